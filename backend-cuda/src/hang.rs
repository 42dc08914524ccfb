//! What kernels that do not end were doing, seen while they still do it.

use crate::report::BlockReport;
use core::fmt;
use core::time::Duration;
use k2k_core::fabric::{Status, TraceEntry};
use k2k_core::{Phase, Stats};

/// Kernels that have not ended in time. They still run; the [session](crate::Running) can be asked again.
#[derive(Clone, Debug)]
pub struct HangReport {
    /// How long they were waited for.
    pub waited: Duration,
    /// Blocks of the session.
    pub blocks: usize,
    /// Those that have not ended.
    pub kernels: Vec<HungKernel>,
}

/// A kernel that has not ended.
#[derive(Clone, Debug)]
pub struct HungKernel {
    /// Name, entry point, block, and what it wrote so far.
    pub report: BlockReport,
    /// Its index in the fabric's table.
    pub index: u32,
    /// What the table says of that index: `None` if no kernel has claimed it.
    pub status: Option<Status>,
    /// What it says that it is doing.
    pub phase: Phase,
    /// Passes of its run loop: when waiting began, and at its end. If they are equal, it is in its handler, or stuck.
    pub heartbeats: (u64, u64),
    /// Its counters.
    pub stats: Stats,
    /// Messages that wait in its inbox.
    pub waiting: u64,
    /// Its last events, oldest first; empty unless tracing is on.
    pub trace: Vec<TraceEntry>,
}

impl HungKernel {
    /// Whether its run loop went on while it was waited for.
    #[must_use]
    pub const fn moves(&self) -> bool {
        self.heartbeats.0 != self.heartbeats.1
    }
}

/// Events of a trace that are shown.
const SHOWN: usize = 4;

impl fmt::Display for HangReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} kernels have not ended after {:?}:", self.kernels.len(), self.blocks, self.waited)?;
        self.kernels.iter().try_for_each(|kernel| write!(f, "\n  {kernel}"))
    }
}

impl fmt::Display for HungKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; index {}", self.report, self.index)?;
        match self.status {
            None => return f.write_str(" is nobody's: it has not registered, or has left"),
            Some(Status::Registered) => {}
            Some(status) => write!(f, " is {status:?}")?,
        }
        let (then, now) = self.heartbeats;
        write!(f, ", phase {:?}, heartbeat {now}", self.phase)?;
        match now.wrapping_sub(then) {
            0 => f.write_str(" (stands still: it is stuck in its handler or in the device)")?,
            passes => write!(f, " ({passes} passes of its loop meanwhile: it runs, and has not been stopped)")?,
        }
        let Stats { sent, received, .. } = self.stats;
        write!(
            f,
            "\n    {sent} sent, {received} received, {} failed, {} refused, {} waiting",
            self.stats.failed(),
            self.stats.refused,
            self.waiting
        )?;
        for entry in self.trace.iter().skip(self.trace.len().saturating_sub(SHOWN)) {
            write!(f, "\n    event {}: {:?} {} at {}", entry.number, entry.event, entry.id, entry.at)?;
        }
        Ok(())
    }
}
