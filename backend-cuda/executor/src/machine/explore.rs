//! All interleavings of a small scenario, up to a number of preemptions (Musuvathi and Qadeer, PLDI 2007).
//!
//! A thread can lose its turn after each strong access, fence or barrier; plain accesses need no choice of their own,
//! because the race detector judges them in any order. A thread that polls gives way without a choice.

use super::schedule::{Path, Scheduler};
use super::{Machine, Options};
use crate::error::Error;

/// How far to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Turns that are taken from threads which could go on, in one run.
    pub preemptions: u32,
    /// Runs, at most.
    pub runs: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { preemptions: 2, runs: 100_000 }
    }
}

/// Runs `scenario` on a fresh machine for each interleaving; returns how many there were, and whether those were all.
/// The scenario must do the same each time: load, launch, run, check.
///
/// # Errors
/// The first error that a run ends with.
pub fn explore(
    bounds: Bounds,
    options: Options,
    mut scenario: impl FnMut(&mut Machine) -> Result<(), Error>,
) -> Result<(u64, bool), Error> {
    let mut path = Path::default();
    for run in 1..=bounds.runs {
        path.begin(bounds.preemptions);
        let mut machine = Machine::with_scheduler(Scheduler::Path(path), options);
        scenario(&mut machine)?;
        let Scheduler::Path(taken) = machine.scheduler.clone() else { return Ok((run, false)) };
        path = taken;
        if !path.advance() {
            return Ok((run, true));
        }
    }
    Ok((bounds.runs, false))
}
