use crate::world::{Clock, Memory, World};
use arbitrary::{Result, Unstructured};
use k2k_core::{Config, FabricRef, Message, Priority, Read, Registration};

/// Words of the header.
const HEADER: usize = 16;

/// Attaches to arbitrary bytes, and uses what it gets. The first byte says how much of the header is put right.
pub fn attach(input: &[u8]) {
    // Input that runs out ends the program.
    let _ = attempt(&mut Unstructured::new(input));
}

fn attempt(input: &mut Unstructured<'_>) -> Result<()> {
    let memory = Memory::zeroed();
    let mode: u8 = input.arbitrary()?;
    let program_len = input.int_in_range(0..=1024usize)?.min(input.len() / 2);
    let mut program = Unstructured::new(input.bytes(program_len)?);
    if !mode.is_multiple_of(4) {
        memory.fabric(&Config::default()).expect("zeroed memory is an idle fabric");
    }
    let first = match mode % 4 {
        // Not even the header is right.
        0 => 0,
        // Magic, version and shape are; the configuration may be anything.
        1 => 4,
        _ => HEADER,
    };
    let words = Memory::LEN / 8;
    if mode & 0x80 != 0 {
        // One pattern everywhere: a short input must be able to reach all of the fabric.
        let pattern: u64 = input.arbitrary()?;
        (first..words).for_each(|word| memory.poke(word, pattern));
    }
    let skip = input.int_in_range(0..=words - first - 1)?;
    let rest = input.bytes(input.len())?;
    for (word, bytes) in (first + skip..words).zip(rest.chunks(8)) {
        let mut value = [0; 8];
        value[..bytes.len()].copy_from_slice(bytes);
        memory.poke(word, u64::from_le_bytes(value));
    }
    let clock = Clock::default();
    clock.advance(1_000);
    if mode & 0x40 != 0 {
        return by_header(&memory, &clock, &mut program);
    }
    match memory.fabric(&Config::default()) {
        Ok(fabric) => {
            let mut world = World::new(fabric, &clock);
            // Whatever there is to find is found.
            (0..3).for_each(|index| world.register(index, index == 0));
            while !program.is_empty() {
                world.step(&mut program)?;
            }
        }
        Err(error) => drop(error.to_string()),
    }
    Ok(())
}

/// Uses the bytes as a fabric of the shape that their header tells of, whichever that is.
fn by_header(memory: &Memory, clock: &Clock, program: &mut Unstructured<'_>) -> Result<()> {
    // SAFETY: the block lives longer than what is made here, and is accessed through fabrics and `poke` alone.
    let fabric = match unsafe { FabricRef::<Read<4, 128>>::open_raw(memory.base(), Memory::LEN) } {
        Ok(fabric) => fabric,
        Err(error) => return Ok(drop(error.to_string())),
    };
    let mut kernels: Vec<_> = ["a", "b", "c"]
        .into_iter()
        .filter_map(|name| fabric.register(&Registration::new(name).expect("short"), clock).ok())
        .collect();
    let mut last = None;
    while !program.is_empty() && !kernels.is_empty() {
        let (op, other): (u8, u8) = program.arbitrary()?;
        let (at, to) = (usize::from(op >> 4) % kernels.len(), usize::from(other) % kernels.len());
        let to = kernels[to].id();
        match op % 8 {
            0..4 => {
                let mut message = Message::new(1);
                message.header.payload_len = u16::from(other) % 160;
                let priority = if op % 4 == 3 { Priority::High } else { Priority::Normal };
                last = kernels[at].send_priority(to, &message, priority).ok().or(last);
            }
            4 => drop(kernels[at].try_receive()),
            5 => _ = kernels[at].poll(),
            6 => memory.poke(program.int_in_range(0..=Memory::LEN / 8 - 1)?, program.arbitrary()?),
            _ => {
                _ = (kernels[at].expire(), kernels[at].backlog(), kernels[at].pending_count(), fabric.pending());
                _ = last.map(|id| kernels[at].receipt(id));
            }
        }
    }
    Ok(())
}
