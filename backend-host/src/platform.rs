//! The clocks of a host, and how a sleeping kernel is woken.
//!
//! # Time
//!
//! Two clocks, as [`Platform`] requires: `CLOCK_MONOTONIC` for all durations, which cannot be set and which is
//! the same in all processes of a machine; and `CLOCK_REALTIME` for timestamps. On x86-64 [`Host`] reads the processor's
//! time stamp counter between looks at those clocks:
//!
//! ```text
//!   clock_gettime ──┬── rdtsc, rdtsc, rdtsc, ... ──┬── rdtsc ... ──┬──
//!                anchor      at most 0.5 ms      anchor         anchor
//! ```
//!
//! 1. An anchor is a pair (counter, `CLOCK_MONOTONIC`) read together, within [`TIGHT_TICKS`] of each other.
//! 2. The rate comes from two anchors at least 0.5 ms apart, and is used once two such pairs in a row agree about the rate
//!    to within 1/512. A single pair could have a suspended machine between its anchors.
//! 3. A line (anchor and rate) is used for 0.5 ms at most. Even if the clock is slewed by 10 %, the system's limit, the
//!    line is then off by 50 µs, and by 0.25 µs at the usual 500 ppm; a rate that is wrong by 1/512 makes 1 µs. All are
//!    within half of [`CLOCK_MARGIN_NS`](k2k_core::CLOCK_MARGIN_NS), so two processes never differ by more than the margin.
//! 4. When an anchor differs from the line's prediction by more than 1/512 of the time in between, the counter has changed
//!    its behaviour (a machine that moved, a laptop that slept): back to step 2, and until then each reading asks the
//!    system.
//! 5. If the system's own clock source is not the counter, the system does not trust the counter, and neither does
//!    [`Host`]: every reading is then a `clock_gettime`.
//!
//! The difference between the two clocks is read with each anchor, or every 0.5 ms without anchors. So a message
//! costs no second reading, and `Host` follows a set wall clock within 0.5 ms.
//!
//! The time may go back by a fraction of a microsecond at an anchor; [`Platform::now_ns`] allows such a step. The time
//! stands still while the machine is suspended: a deadline counts only time in which kernels could have received.
//!
//! # Which clock
//!
//! `CLOCK_MONOTONIC` begins anew with each boot, and a time namespace can move the clock. [`clock_id`] names boot and
//! namespace; the number is in the header of every fabric created by a host, and a process on another clock is refused.
//!
//! # Waking
//!
//! A sleeping kernel waits in a futex on its wake flag. The futex is not process-private, because the sender may be in
//! another process with the same file. A sender clears the flag and wakes the sleeper in one system call,
//! `FUTEX_WAKE_OP`, so that the sender's death cannot come between the two. If a sandbox refuses this call, the sender takes
//! two steps, and the sleeper's slice bounds the delay after a death in between. A task that awaits mail has left its waker
//! in the process's reactor: a sender in the same process calls the waker, and makes no system call.

use crate::owner;
use crate::process::Origin;
use crate::reactor::Reactor;
use core::cell::Cell;
use core::time::Duration;
use k2k_core::WakeFlag;
use k2k_core::{Platform, ProcessDomain, Sleep};
use rustix::thread::futex;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// The platform of a host thread. Cheap to make; each endpoint has its own.
///
/// Fast from 1 ms after its first use on; before, each reading asks the system. The clock cannot be set: a jump of the wall
/// clock moves timestamps, and nothing else.
#[derive(Debug)]
pub struct Host {
    clock: Cell<Clock>,
    wall: Cell<Wall>,
    origin: Origin,
    owner: u64,
    reactor: &'static Reactor,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            clock: Cell::default(),
            wall: Cell::default(),
            origin: Origin::here(),
            owner: owner::NOT_SAID,
            reactor: Reactor::here(),
        }
    }
}

impl Host {
    /// A platform.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A platform whose kernels name this process as their owner, in a fabric of [this domain](k2k_core::Config::domain):
    /// so other processes can tell whether the owner is gone.
    #[must_use]
    pub fn in_domain(fabric: ProcessDomain) -> Self {
        Self { owner: owner::tag_in(fabric), ..Self::default() }
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

    #[inline]
    fn wall_offset_ns(&self) -> u64 {
        let wall = self.wall.get();
        if wall.read_ns == 0 { self.read_wall(monotonic_ns()) } else { wall.offset_ns }
    }

    fn wake(&self, wake_flag: &WakeFlag) {
        if self.reactor.wake(wake_flag) {
            return;
        }
        let word = wake_flag.word().as_std();
        let all = i32::MAX as u32;
        // All sleepers: the helper thread for tasks and an endpoint's owner can sleep at the same flag. The comparison and
        // the 0 before it are for sleepers at a second word, and there is no second word.
        let (flags, op, compare) = (futex::Flags::empty(), futex::WakeOp::AndN, futex::WakeOpCmp::Lt);
        if futex::wake_op(word, flags, all, 0, word, op, compare, 1, 0).is_err() {
            wake_flag.wake_up();
            nudge(wake_flag);
        }
    }

    fn owner(&self) -> u64 {
        self.owner
    }

    #[inline(always)]
    fn is_here(&self) -> bool {
        self.origin.is_here()
    }
}

/// Lets the threads that sleep at the wake flag look again. The flag stays as it is.
pub(crate) fn nudge(wake_flag: &WakeFlag) {
    // A futex call that fails has no sleeper to wake: nothing to do.
    let _ = futex::wake(wake_flag.word().as_std(), futex::Flags::empty(), i32::MAX as u32);
}

/// Sleeps until the kernel is woken, at most for `limit`. May return early.
pub(crate) fn sleep_for(sleep: &Sleep<'_>, limit: Duration) {
    let limit =
        Timespec { tv_sec: limit.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: limit.subsec_nanos().into() };
    // Every way out is a reason to look again: woken, already awake, interrupted, timed out.
    let _ = futex::wait(sleep.flag().word().as_std(), futex::Flags::empty(), sleep.number(), Some(&limit));
}

pub(crate) fn monotonic_ns() -> u64 {
    to_ns(clock_gettime(ClockId::Monotonic))
}

/// Seconds before the zero wrap: the difference of two clocks is right all the same.
const fn to_ns(time: Timespec) -> u64 {
    time.tv_sec.cast_unsigned().wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec.cast_unsigned())
}

/// How long a line is used before the next anchor, the least time between two anchors of a rate, and how long the
/// difference to the wall clock is used, ns.
const ANCHOR_NS: u64 = 500_000;

/// Two readings of the counter around a look at the clock must be this close to form an anchor: 1 to 2 µs.
pub const TIGHT_TICKS: u64 = 4096;

/// Two readings of `CLOCK_MONOTONIC` around a look at the wall clock should be this close, ns.
const TIGHT_NS: u64 = 2_000;

/// Tries to read the wall clock within [`TIGHT_NS`].
const WALL_TRIES: u32 = 3;

/// The wall clock relative to the monotonic clock.
#[derive(Clone, Copy, Debug, Default)]
struct Wall {
    offset_ns: u64,
    /// Monotonic time of the reading; 0: never.
    read_ns: u64,
}

/// A line through the last anchor.
#[derive(Clone, Copy, Debug, Default)]
struct Clock {
    anchor_ticks: u64,
    anchor_ns: u64,
    /// ns per tick, times 2³²; 0: unknown.
    rate: u64,
    /// Number of ticks for which the line is used; 0 while only a single pair of anchors confirms the rate.
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
        let known = self.anchor_ns != 0;
        if known && elapsed_ns < ANCHOR_NS && ticks > self.anchor_ticks && ns >= self.anchor_ns {
            // Too close to measure from. The last anchor stays, unless its line is wrong already.
            if self.rate == 0 || self.predicts(elapsed_ticks, elapsed_ns) {
                return;
            }
            (self.rate, self.valid_ticks) = (0, 0);
        } else if known {
            let agrees = self.rate != 0 && self.predicts(elapsed_ticks, elapsed_ns);
            let rate = (u128::from(elapsed_ns) << 32) / u128::from(elapsed_ticks.max(1));
            // 0.1 to 20 GHz; any other rate is no counter of time.
            let rate = u64::try_from(rate).ok().filter(|rate| (214_748_364..=42_949_672_960).contains(rate));
            self.rate = rate.unwrap_or(0);
            self.valid_ticks = match rate {
                Some(rate) if agrees => ((u128::from(ANCHOR_NS) << 32) / u128::from(rate)) as u64,
                _ => 0,
            };
        }
        self.anchor_ticks = ticks;
        self.anchor_ns = ns;
    }

    /// Whether the line leads to this anchor.
    fn predicts(&self, elapsed_ticks: u64, elapsed_ns: u64) -> bool {
        self.ns_after(elapsed_ticks).abs_diff(elapsed_ns) <= elapsed_ns / 512 + 1_000
    }
}

impl Host {
    #[cold]
    fn ask_the_system(&self) -> u64 {
        let mut clock = self.clock.get();
        if !clock.unusable && !counter_is_trusted() {
            clock.unusable = true;
            self.clock.set(clock);
        }
        if clock.unusable {
            let ns = monotonic_ns();
            if ns.wrapping_sub(self.wall.get().read_ns) > ANCHOR_NS {
                self.read_wall(ns);
            }
            return ns;
        }
        let before = ticks();
        let ns = monotonic_ns();
        let after = ticks();
        if after.wrapping_sub(before) <= TIGHT_TICKS {
            clock.anchor(before + (after - before) / 2, ns);
            self.clock.set(clock);
        }
        if ns.wrapping_sub(self.wall.get().read_ns) >= ANCHOR_NS / 2 {
            self.read_wall(ns);
        }
        ns
    }

    /// Reads the wall clock's difference to the monotonic clock; `before_ns` was read just now.
    #[cold]
    fn read_wall(&self, mut before_ns: u64) -> u64 {
        let mut best = (u64::MAX, 0);
        for _ in 0..WALL_TRIES {
            let wall_ns = to_ns(clock_gettime(ClockId::Realtime));
            let after_ns = monotonic_ns();
            let apart_ns = after_ns.saturating_sub(before_ns);
            if apart_ns < best.0 {
                best = (apart_ns, wall_ns.wrapping_sub(before_ns + apart_ns / 2));
            }
            before_ns = after_ns;
            if apart_ns <= TIGHT_NS {
                break;
            }
        }
        self.wall.set(Wall { offset_ns: best.1, read_ns: before_ns.max(1) });
        best.1
    }
}

/// Names the clock behind [`Host`]: the same number in all processes for which `CLOCK_MONOTONIC` reads the same. Never 0.
///
/// Made of the kernel's boot id and the process's time namespace. Processes that can read neither have the same number.
#[must_use]
pub fn clock_id() -> u64 {
    // Read each time, as a forked process may be in another time namespace.
    let boot = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace = std::fs::read_link("/proc/self/ns/time").unwrap_or_default();
    clock_id_of(&boot, namespace.as_os_str().as_encoded_bytes())
}

fn clock_id_of(boot: &[u8], namespace: &[u8]) -> u64 {
    // FNV-1a, 64 bits.
    let bytes = b"CLOCK_MONOTONIC".iter().chain(boot).chain(b"/").chain(namespace);
    let hash = bytes
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    hash.max(1)
}

/// Whether the system itself uses the counter as its clock. If so, the system has checked that the counter runs evenly and
/// alike on all cores, and goes on checking.
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

    /// Half a nanosecond per tick.
    const RATE: u64 = 1 << 31;

    fn running() -> Clock {
        let mut clock = Clock::default();
        clock.anchor(1_000, 5_000_000);
        clock.anchor(1_000 + 1_000_000, 5_500_000);
        clock.anchor(1_000 + 2_000_000, 6_000_000);
        assert_eq!((clock.rate, clock.valid_ticks), (RATE, 1_000_000));
        clock
    }

    #[test]
    fn a_rate_is_used_when_two_pairs_of_anchors_agree() {
        let mut clock = Clock::default();
        clock.anchor(1_000, 5_000_000);
        clock.anchor(2_000, 5_000_500);
        assert_eq!((clock.rate, clock.anchor_ticks), (0, 1_000), "too close together");
        clock.anchor(1_000 + 1_000_000, 5_500_000);
        assert_eq!((clock.rate, clock.valid_ticks), (RATE, 0), "one pair alone");
        clock.anchor(1_000 + 2_000_000, 6_000_000);
        assert_eq!((clock.rate, clock.valid_ticks), (RATE, 1_000_000));
        assert_eq!(clock.ns_after(1_000), 500);
    }

    /// The counter goes on while the machine sleeps, and the clock does not; or the reverse.
    #[test]
    fn a_machine_that_slept_between_two_anchors_does_not_give_its_rate() {
        for (slept_ticks, slept_ns) in [(20_000_000, 0), (0, 10_000_000)] {
            // While the first rate is measured.
            let mut clock = Clock::default();
            clock.anchor(1_000, 5_000_000);
            let (mut ticks, mut ns) = (1_001_000 + slept_ticks, 5_500_000 + slept_ns);
            clock.anchor(ticks, ns);
            assert_eq!(clock.valid_ticks, 0);
            for valid_ticks in [0, 1_000_000, 1_000_000] {
                (ticks, ns) = (ticks + 1_000_000, ns + 500_000);
                clock.anchor(ticks, ns);
                assert_eq!(clock.valid_ticks, valid_ticks);
            }
            // And later.
            let mut clock = running();
            (ticks, ns) = (3_001_000 + slept_ticks, 6_500_000 + slept_ns);
            clock.anchor(ticks, ns);
            assert_eq!(clock.valid_ticks, 0);
            for valid_ticks in [0, 1_000_000] {
                (ticks, ns) = (ticks + 1_000_000, ns + 500_000);
                clock.anchor(ticks, ns);
                assert_eq!(clock.valid_ticks, valid_ticks);
            }
        }
    }

    #[test]
    fn the_noise_of_an_anchor_is_put_up_with_and_a_wrong_line_is_not() {
        let mut clock = running();
        clock.anchor(3_001_000, 6_500_100);
        assert_ne!(clock.valid_ticks, 0, "100 ns are the noise of an anchor");
        // Within the time that the line is for: a counter that differs from core to core, say.
        clock.anchor(3_001_000 + 800_000, 6_500_100 + 100_000);
        assert_eq!((clock.rate, clock.valid_ticks), (0, 0));
    }

    /// As fast as the system lets a process slew its clock: 10 %. Between anchors the line is off by half of the margin.
    #[test]
    fn two_lines_through_a_slewed_clock_stay_within_the_margin() {
        let margin_ns = k2k_core::CLOCK_MARGIN_NS;
        let mut clock = running();
        let slewed = |ticks: u64| 6_000_000 + (ticks - 2_001_000) * 11 / 20;
        let last = clock.anchor_ticks + clock.valid_ticks - 1;
        let line = clock.anchor_ns + clock.ns_after(last - clock.anchor_ticks);
        assert!(line.abs_diff(slewed(last)) <= margin_ns / 2 + 1, "{line} {}", slewed(last));
        clock.anchor(last + 1, slewed(last + 1));
        assert_eq!(clock.valid_ticks, 0, "measured anew");
    }

    #[test]
    fn a_counter_that_stands_still_gives_no_rate() {
        let mut clock = Clock::default();
        clock.anchor(7, 1_000_000);
        for i in 1..9 {
            clock.anchor(7, 1_000_000 + i * 8_000_000);
            assert_eq!(clock.valid_ticks, 0);
        }
        clock.anchor(3, 99_000_000);
        assert_eq!(clock.valid_ticks, 0, "nor one that goes back");
    }

    #[test]
    fn the_wall_clock_is_read_with_the_anchors_and_not_with_each_message() {
        let host = Host::new();
        let is_right = |host: &Host| {
            let now_ns = host.now_ns();
            let wall_ns = now_ns.wrapping_add(host.wall_offset_ns());
            to_ns(clock_gettime(ClockId::Realtime)).abs_diff(wall_ns) < 50_000_000
        };
        assert!(is_right(&host));
        assert!(is_right(&Host { wall: Cell::default(), ..Host::default() }));
        // As if the wall clock had just been set by an hour.
        let mut wall = host.wall.get();
        wall.offset_ns = wall.offset_ns.wrapping_add(3_600_000_000_000);
        host.wall.set(wall);
        if !cfg!(miri) {
            assert!(!is_right(&host) || host.wall.get().read_ns != wall.read_ns);
        }
        std::thread::sleep(Duration::from_millis(1));
        assert!(is_right(&host), "followed");
    }

    #[test]
    fn a_clock_is_named_by_boot_and_namespace() {
        let here = clock_id();
        assert!(here != 0 && here == clock_id());
        let ids = [(b"1" as &[u8], b"" as &[u8]), (b"2", b""), (b"1", b"time:[4026531834]"), (b"", b"1")];
        let ids = ids.map(|(boot, namespace)| clock_id_of(boot, namespace));
        for (i, id) in ids.iter().enumerate() {
            assert!(!ids[..i].contains(id));
        }
    }
}
