//! What time it is on a host, and how a sleeping kernel is woken.
//!
//! # Time
//!
//! The clock is `CLOCK_REALTIME`: kernels in several processes compare deadlines, so all must read the same one. On
//! x86-64 [`Host`] reads the processor's time stamp counter between looks at that clock:
//!
//! ```text
//!   clock_gettime ──┬── rdtsc, rdtsc, rdtsc, ... ──┬── rdtsc ... ──┬──
//!                anchor       at most 1 ms       anchor         anchor
//! ```
//!
//! 1. An anchor is a pair (counter, clock) read together, within [`TIGHT_TICKS`] of each other.
//! 2. The rate comes from two anchors at least 1 ms apart. It is used for at most 1 ms at a time, so even a rate that
//!    is wrong by the 500 ppm that a clock may be slewed by makes an error of 0.5 µs, and a clock that is set is
//!    followed within 1 ms.
//! 3. When an anchor differs from what the rate predicted by more than 1/512 of the time in between, the clock was set,
//!    or the counter is not what it was (a machine that moved, a laptop that slept): the rate is measured anew.
//! 4. Where the system does not use the counter as its own clock source, it does not trust it, and neither do we: every
//!    reading is then a `clock_gettime`.
//!
//! The time may go back by a fraction of a microsecond at an anchor; [`Platform::now_ns`] allows it, and the hybrid
//! clock above it never goes back.
//!
//! # Waking
//!
//! A sleeping kernel waits in a futex on its wake flag. The futex is not process-private, because the sender may be
//! another process that maps the same file.

use crate::process::Origin;
use core::cell::Cell;
use core::time::Duration;
use k2k_core::Platform;
use k2k_core::WakeFlag;
use rustix::thread::futex;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// The platform of a host thread. Cheap to make; each endpoint has its own.
///
/// It becomes fast 1 ms after its first use; before that each reading asks the system.
#[derive(Debug)]
pub struct Host {
    clock: Cell<Clock>,
    origin: Origin,
}

impl Default for Host {
    fn default() -> Self {
        Self { clock: Cell::default(), origin: Origin::here() }
    }
}

impl Host {
    /// A platform.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Platform for Host {
    #[inline]
    fn now_ns(&self) -> u64 {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        {
            let clock = self.clock.get();
            let elapsed = ticks().wrapping_sub(clock.anchor_ticks);
            // `valid_ticks` is 0 while the rate is unknown; a counter that went back makes `elapsed` huge.
            if elapsed < clock.valid_ticks {
                return clock.anchor_ns + clock.ns_after(elapsed);
            }
        }
        self.ask_the_system()
    }

    fn wake(&self, wake_flag: &WakeFlag) {
        ring(wake_flag);
    }

    #[inline(always)]
    fn is_here(&self) -> bool {
        self.origin.is_here()
    }
}

/// Wakes whoever sleeps at the wake flag. The word must have been cleared before.
pub(crate) fn ring(wake_flag: &WakeFlag) {
    // All of them: an endpoint's watcher thread and its owner can sleep at the same wake flag.
    // A futex that cannot be woken is one that nobody can sleep at: nothing to do.
    let _ = futex::wake(wake_flag.word().as_std(), futex::Flags::empty(), i32::MAX as u32);
}

/// Sleeps while the wake flag's word says that this kernel sleeps, at most for `limit`. May return early.
pub(crate) fn sleep_at(wake_flag: &WakeFlag, limit: Option<Duration>) {
    let limit = limit.map(|limit| Timespec {
        tv_sec: limit.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    });
    // Every way out is a reason to look again: woken, already awake, interrupted, timed out.
    let _ = futex::wait(wake_flag.word().as_std(), futex::Flags::empty(), 1, limit.as_ref());
}

fn realtime_ns() -> u64 {
    let now = clock_gettime(ClockId::Realtime);
    // A clock set before 1970 reads 0. The product overflows in the year 2554.
    u64::try_from(now.tv_sec).unwrap_or(0).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64)
}

/// How long a rate is used before the next anchor, and the least time between two anchors that give one, ns.
const ANCHOR_NS: u64 = 1_000_000;

/// Two readings of the counter around a look at the clock must be this close, or they are no anchor: 1 to 2 µs.
pub const TIGHT_TICKS: u64 = 4096;

/// A line through the last anchor.
#[derive(Clone, Copy, Debug, Default)]
struct Clock {
    anchor_ticks: u64,
    anchor_ns: u64,
    /// ns per tick, times 2³²; 0: unknown.
    rate: u64,
    /// The line is used for this many ticks.
    valid_ticks: u64,
    /// The counter cannot be used.
    unusable: bool,
}

impl Clock {
    fn ns_after(&self, ticks: u64) -> u64 {
        ((u128::from(ticks) * u128::from(self.rate)) >> 32) as u64
    }

    /// Takes a new anchor into account.
    fn anchor(&mut self, ticks: u64, ns: u64) {
        let elapsed_ticks = ticks.wrapping_sub(self.anchor_ticks);
        let elapsed_ns = ns.saturating_sub(self.anchor_ns);
        if self.rate != 0 && self.ns_after(elapsed_ticks).abs_diff(elapsed_ns) > elapsed_ns / 512 + 1_000 {
            *self = Self::default();
        } else if self.anchor_ns != 0 {
            if elapsed_ns < ANCHOR_NS && ticks > self.anchor_ticks && ns >= self.anchor_ns {
                return; // The last anchor stays until it is old enough to measure from.
            }
            let rate = (u128::from(elapsed_ns) << 32) / u128::from(elapsed_ticks.max(1));
            // 0.1 to 20 GHz; anything else is not a counter that measures time.
            if let Some(rate) = u64::try_from(rate).ok().filter(|rate| (214_748_364..=42_949_672_960).contains(rate)) {
                self.rate = rate;
                self.valid_ticks = ((u128::from(ANCHOR_NS) << 32) / u128::from(rate)) as u64;
            }
        }
        self.anchor_ticks = ticks;
        self.anchor_ns = ns;
    }
}

impl Host {
    #[cold]
    fn ask_the_system(&self) -> u64 {
        let mut clock = self.clock.get();
        if clock.unusable {
            return realtime_ns();
        }
        if !counter_is_trusted() {
            clock.unusable = true;
            self.clock.set(clock);
            return realtime_ns();
        }
        let before = ticks();
        let ns = realtime_ns();
        let after = ticks();
        if after.wrapping_sub(before) <= TIGHT_TICKS {
            clock.anchor(before + (after - before) / 2, ns);
            self.clock.set(clock);
        }
        ns
    }
}

/// Whether the system itself uses the counter as its clock: it has then checked that the counter runs evenly and alike
/// on all cores, and goes on checking.
#[cfg(all(target_arch = "x86_64", not(miri)))]
fn counter_is_trusted() -> bool {
    use std::sync::OnceLock;
    static TRUSTED: OnceLock<bool> = OnceLock::new();
    *TRUSTED.get_or_init(|| {
        std::fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource")
            .is_ok_and(|source| source.trim() == "tsc")
    })
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
fn counter_is_trusted() -> bool {
    false
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
fn ticks() -> u64 {
    // SAFETY: every x86-64 processor has the instruction.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
fn ticks() -> u64 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_comes_from_two_anchors_a_millisecond_apart() {
        let mut clock = Clock::default();
        clock.anchor(1_000, 5_000_000);
        clock.anchor(2_000, 5_000_500);
        assert_eq!((clock.rate, clock.anchor_ticks), (0, 1_000));
        clock.anchor(1_000 + 2_000_000, 6_000_000);
        assert_eq!(clock.rate, 1 << 31, "half a nanosecond per tick");
        assert_eq!(clock.valid_ticks, 2_000_000);
        assert_eq!(clock.ns_after(1_000), 500);
    }

    #[test]
    fn a_clock_that_was_set_makes_the_rate_unknown() {
        let mut clock = Clock::default();
        clock.anchor(1, 1_000_000);
        clock.anchor(2_000_001, 2_000_000);
        assert_ne!(clock.valid_ticks, 0);
        clock.anchor(4_000_001, 3_000_100);
        assert_ne!(clock.valid_ticks, 0, "100 ns are the noise of an anchor");
        clock.anchor(6_000_001, 900_000_000);
        assert_eq!((clock.valid_ticks, clock.anchor_ns), (0, 900_000_000));
        clock.anchor(8_000_001, 901_000_000);
        clock.anchor(10_000_001, 5_000);
        assert_eq!((clock.valid_ticks, clock.anchor_ns), (0, 5_000), "and set back");
    }

    #[test]
    fn a_counter_that_stands_still_gives_no_rate() {
        let mut clock = Clock::default();
        clock.anchor(7, 1_000_000);
        clock.anchor(7, 9_000_000);
        assert_eq!(clock.valid_ticks, 0);
        clock.anchor(3, 19_000_000);
        assert_eq!(clock.valid_ticks, 0, "nor one that goes back");
    }
}
