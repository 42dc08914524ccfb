//! What `%globaltimer` and `%clock64` read, and when sleepers wake.

use core::time::Duration;
use std::sync::OnceLock;
use std::time::Instant;

/// The device's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Advances with each instruction, and jumps when all threads sleep. Deterministic.
    Virtual {
        /// Time at the start, in ns.
        start_ns: u64,
        /// Time that one instruction of one thread takes, in ns.
        ns_per_instruction: u64,
    },
    /// The host's: what [`host_clock_ns`] reads.
    Host,
}

impl Default for Clock {
    fn default() -> Self {
        Self::Virtual { start_ns: 1_000_000_000, ns_per_instruction: 1 }
    }
}

/// What [`Clock::Host`] reads: ns on a clock that cannot be set, as a GPU's cannot, from 1 s at its first reading in this
/// process.
#[must_use]
pub fn host_clock_ns() -> u64 {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    1_000_000_000 + FIRST.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

#[derive(Debug)]
pub(crate) struct Timer {
    clock: Clock,
    /// Instructions before the turn that runs.
    executed: u64,
    /// Time that passed while nobody ran.
    skipped_ns: u64,
    started: Instant,
}

impl Timer {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, executed: 0, skipped_ns: 0, started: Instant::now() }
    }

    /// The time, `ahead` instructions into a turn.
    pub(crate) fn now_ns(&self, ahead: u32) -> u64 {
        match self.clock {
            Clock::Virtual { start_ns, ns_per_instruction } => {
                let ran = (self.executed + u64::from(ahead)).wrapping_mul(ns_per_instruction);
                start_ns.wrapping_add(ran).wrapping_add(self.skipped_ns)
            }
            Clock::Host => host_clock_ns(),
        }
    }

    pub(crate) fn cycles(&self, ahead: u32) -> u64 {
        match self.clock {
            Clock::Virtual { .. } => self.executed + u64::from(ahead),
            Clock::Host => self.started.elapsed().as_nanos() as u64,
        }
    }

    pub(crate) fn passed(&mut self, instructions: u64) {
        self.executed += instructions;
    }

    /// Lets time go on to `ns`, or a little towards it.
    pub(crate) fn wait_until(&mut self, ns: u64) {
        let left = ns.saturating_sub(self.now_ns(0));
        match self.clock {
            Clock::Virtual { .. } => self.skipped_ns += left,
            Clock::Host => std::thread::sleep(Duration::from_nanos(left.min(1_000_000))),
        }
    }
}
