use crate::world::Memory;
use arbitrary::{Result, Unstructured};
use k2k_core::fabric::Region;
use k2k_core::{Config, FabricRef, KernelId, Message, Read};

/// Words of the header.
const HEADER: usize = 16;

/// Looks at arbitrary bytes as an onlooker does: copies what a region needs, while the bytes change, and asks the copy
/// everything. The first byte says how much of the header is put right.
pub fn look(input: &[u8]) {
    // Input that runs out ends the program.
    let _ = attempt(&mut Unstructured::new(input));
}

fn attempt(input: &mut Unstructured<'_>) -> Result<()> {
    let (watched, copy) = (Memory::zeroed(), Memory::zeroed());
    let mode: u8 = input.arbitrary()?;
    watched.fabric(&Config::default()).expect("zeroed memory is an idle fabric");
    let first = [0, 4, HEADER, HEADER][usize::from(mode % 4)];
    let words = Memory::LEN / 8;
    if mode & 0x80 != 0 {
        // One pattern everywhere: a short input must be able to reach all of the fabric.
        let pattern: u64 = input.arbitrary()?;
        (first..words).for_each(|word| watched.poke(word, pattern));
    }
    for _ in 0..input.int_in_range(0..=64)? {
        watched.poke(input.int_in_range(first..=words - 1)?, input.arbitrary()?);
    }
    (0..HEADER).for_each(|word| copy.poke(word, watched.peek(word)));
    // SAFETY: the block lives longer than what is made here, and is accessed through fabrics and `poke` alone.
    let fabric = match unsafe { FabricRef::<Read<64, 256>>::open_raw(copy.base(), Memory::LEN) } {
        Ok(fabric) => fabric,
        Err(error) => return Ok(drop(error.to_string())),
    };
    let mut message = Message::new(0);
    while !input.is_empty() {
        let (number, limit): (u8, u8) = input.arbitrary()?;
        let number = if number == 255 { usize::MAX } else { usize::from(number) % 66 };
        for region in [
            Region::Table,
            Region::Routes,
            Region::Denials,
            Region::Backlog(number),
            Region::Inbox(number, limit.into()),
            Region::Receipts(number),
            Region::Trace(number),
            Region::Failures(number),
            Region::Latency(number),
        ] {
            let _ = fabric.fetch(region, |range| {
                assert!(range.start < range.end && range.end <= Memory::LEN, "{range:?}");
                assert!(range.start % 8 == 0 && range.end % 8 == 0, "{range:?}");
                (range.start / 8..range.end / 8).for_each(|word| copy.poke(word, watched.peek(word)));
                // Whoever works in the fabric goes on meanwhile.
                watched.poke(input.int_in_range(first..=words - 1)?, input.arbitrary()?);
                Ok::<_, arbitrary::Error>(())
            });
        }
        let observed = fabric.observe(number);
        let name = observed.and_then(|observed| observed.name).map(|name| name.to_string());
        let id = observed.map_or(KernelId::new(0, 1), |observed| observed.id);
        _ = (name, fabric.config(), fabric.counters_at(number), fabric.route(id, id), fabric.is_allowed(id, id));
        _ = (
            fabric.normal_backlog(number).count(),
            fabric.high_backlog(number).count(),
            fabric.deferred(number).count(),
        );
        _ = (fabric.receipts_of(number).count(), fabric.trace_of_index(number).map(|trace| trace.read().count()));
        _ = fabric.failures_of_index(number).map(|failures| failures.read().count());
        if let Some(latency) = fabric.latency_of_index(number) {
            _ = (latency.quantile(0.5), latency.quantile(1.0), latency.steps().count(), latency.sum_ns());
        }
        fabric.peek_inbox(number, limit.into(), &mut message, |_, _, message| drop(message.payload().to_vec()));
    }
    Ok(())
}
