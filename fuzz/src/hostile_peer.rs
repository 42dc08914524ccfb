use crate::world::{Clock, KERNELS, Memory, World};
use arbitrary::{Result, Unstructured};
use k2k_core::Config;

/// Three endpoints at work in one fabric, while between any two of their operations someone else writes what it likes.
pub fn hostile_peer(input: &[u8]) {
    // Input that runs out ends the program.
    let _ = attempt(&mut Unstructured::new(input));
}

fn attempt(input: &mut Unstructured<'_>) -> Result<()> {
    let memory = Memory::zeroed();
    let clock = Clock::default();
    clock.advance(1_000);
    let config = Config { delivery_timeout_ns: 1_000, hop_limit: 4, tracing: true, ..Config::default() };
    let fabric = memory.fabric(&config).expect("zeroed memory is an idle fabric");
    let mut world = World::new(fabric, &clock);
    (0..KERNELS).for_each(|index| world.register(index, index == 0));
    while !input.is_empty() {
        if input.ratio(1, 3)? {
            overwrite(&memory, input)?;
        } else {
            world.step(input)?;
        }
    }
    Ok(())
}

fn overwrite(memory: &Memory, input: &mut Unstructured<'_>) -> Result<()> {
    let words = Memory::LEN / 8;
    let at = input.int_in_range(0..=words - 1)?;
    let old = memory.peek(at);
    let value = match input.int_in_range(0..=7)? {
        0 => 0,
        1 => u64::MAX,
        2 => input.int_in_range(0..=16)?,
        3 => old.wrapping_add(1),
        4 => old.wrapping_sub(1),
        // Another word of the fabric, as a replay.
        5 => memory.peek(input.int_in_range(0..=words - 1)?),
        6 => old ^ 1 << input.int_in_range(0..=63)?,
        _ => input.arbitrary()?,
    };
    let count = if input.ratio(1, 8)? { input.int_in_range(1..=64)? } else { 1 };
    (at..words).take(count).for_each(|word| memory.poke(word, value));
    Ok(())
}
