//! What sessions take for granted of a driver and a device.

use super::{Bench, Failure, Patient, ensure};
use crate::count;
use k2k::{Fixed, Memory};
use k2k_core::Config;
use k2k_core::sync::Ordering::{Acquire, Relaxed, Release};
use k2k_core::sync::{AtomicU64, Gpu};
use k2k_cuda::Ptx;
use k2k_cuda::{Grid, Session};

/// Grids beside grids, copies beside grids.
pub(super) fn queues(bench: &Bench<'_>) -> Result<String, Failure> {
    let found = bench.device.verify_queues()?;
    Ok(format!("{} grids at the same time, a copy beside them in {:.1?}", found.grids, found.copy))
}

/// Blocks of two entry points on the same multiprocessors. That they keep apart is no failure: then one is counted for each.
pub(super) fn residency(bench: &Bench<'_>) -> Result<String, Failure> {
    let found = bench.device.verify_residency()?;
    let multiprocessors = bench.device.probe().multiprocessors;
    ensure!(
        found.together >= found.blocks.min(multiprocessors),
        "{} of {} blocks at the same time on {multiprocessors} multiprocessors: {found:?}",
        found.together,
        found.blocks
    );
    let spread: Vec<_> = found.spread.iter().map(|(blocks, count)| format!("{count} had {blocks}")).collect();
    let holds = if found.together == found.blocks { "" } else { "KEPT APART: " };
    Ok(format!(
        "{holds}{} of {} blocks at the same time; of the multiprocessors {}, {} had both kinds",
        found.together,
        found.blocks,
        spread.join(", "),
        found.shared
    ))
}

/// A fabric of the host: as in tests, small.
type Small = Memory<Fixed<2, 8, 64>>;

/// A fabric in a shared-memory file that a device sees: it waits for a word of it, and counts in another.
pub(super) fn registered(bench: &Bench<'_>) -> Result<String, Failure> {
    let text = |e: k2k::MemoryError| Failure(e.to_string());
    let name = format!("k2k-gpu-check-{}", std::process::id());
    let memory = Small::create(&name, &Config::default()).map_err(text)?;
    let path = memory.path().map(ToOwned::to_owned);
    let unlinked = Unlink(path.clone());
    let registered = bench.device.register(&memory)?;
    // The last words of the file: of an inbox that nobody uses.
    let (gate, word) = (Small::SIZE - 16, Small::SIZE - 8);
    let base = core::ptr::from_ref(memory.fabric().storage()).cast::<u8>();
    // SAFETY: aligned words inside of the fabric, all of which is behind atomics and cells; nobody is registered in it.
    let at = |offset: usize| unsafe { &*base.add(offset).cast::<AtomicU64>() };
    let count = bench.options.messages;
    let address = registered.address();
    let mut session = Session::<Fixed<2, 2, 64, Gpu>>::new(bench.device, &Config::default())?;
    session.load(&Ptx::new(count::text())?)?;
    let grid = Grid::new(count::ENTRY)
        .parameter(0, address + gate as u64)
        .parameter(1, bench.patience_ns())
        .parameter(2, address + word as u64)
        .parameter(3, count)
        .keep(registered);
    // SAFETY: this library's own entry point; the memory of both words is kept.
    unsafe { session.add(grid)? };
    let mut running = Patient::new(session.start()?, bench.options.patience);
    // Release: whoever has seen it open counts after this.
    at(gate).store(1, Release);
    let mut last = 0;
    bench.until("the device counts in the file", || {
        // Asked before: what it has written when it ended can all be seen.
        let ended = running.is_finished()?;
        // Acquire: of the device's release.
        let now = at(word).load(Acquire);
        ensure!(now >= last && now <= count, "{now} after {last}, of {count}");
        last = now;
        Ok(now == count || ended)
    })?;
    ensure!(last == count, "it has counted to {last} of {count}");
    running.join(bench.options.patience)?;
    // Relaxed: nobody looks any more.
    at(gate).store(0, Relaxed);
    at(word).store(0, Relaxed);
    drop(unlinked);
    let path = path.map_or_else(|| "?".to_owned(), |path| path.display().to_string());
    Ok(format!("counted to {count} in {path}, {} bytes pinned", Small::SIZE))
}

/// Takes the file away.
struct Unlink(Option<std::path::PathBuf>);

impl Drop for Unlink {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            let _ = std::fs::remove_file(path);
        }
    }
}
