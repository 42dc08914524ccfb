//! How a kernel waits: for mail, and for room.
//!
//! | strategy | waits by | latency | CPU while idle |
//! | --- | --- | --- | --- |
//! | [`Wait::Spin`] | looking again at once | lowest | a whole core |
//! | [`Wait::Yield`] | looking, then letting other threads run in between | low, grows with load | a whole core that nobody else wants |
//! | [`Wait::Park`] | looking, yielding, then sleeping at its wake flag | a wake-up, some µs | next to none |
//!
//! # Why no wake-up is lost
//!
//! A kernel that parks marks itself asleep at its [wake flag](k2k_core::WakeFlag) and then looks at its inbox once more;
//! a sender publishes its message and then looks at the flag. Between the two steps of each stands a fence, so at least
//! one sees the other. The sleep itself is a futex on the flag's word: the system checks that the word still holds the
//! number of this sleep in one step with going to sleep, so a wake-up in between is not lost either.
//!
//! A sender may stop or die before it wakes the receiver, and a hostile process may overwrite the flag. Therefore each
//! sleep ends after a *slice*, and the kernel looks at its inbox. A slice begins with 1 ms (a task's with the longest)
//! and doubles up to [`longest_slice`], 48 ms in a fabric for 16 kernels: no message that is there waits longer for a receiver that waits,
//! blocking, in `async` code, in a run loop, or paused.
//!
//! Two things wake nobody: room in another's inbox (or whatever else a handler waits for that answers
//! [`Idle::Soon`](k2k_core::Idle::Soon)), and mail to an endpoint that did not register as parking. A kernel that waits
//! for one of these naps for at most 1 ms, beginning with 50 µs.

use crate::Host;
use crate::platform::sleep_for;
use core::fmt;
use core::time::Duration;
use k2k_core::Shape;
use k2k_core::sync::System;
use k2k_core::{Command, Endpoint as Core, Platform as _, Sleep, TapReport};
use std::time::Instant;

/// What a kernel does while there is nothing to do. See the [module's page](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Wait {
    /// Look again at once. For kernels that have a core to themselves.
    Spin,
    /// Let other threads of this core run, then look again.
    Yield,
    /// Look and yield for some microseconds, then sleep until there is mail. Kernels that registered as
    /// [parking](k2k_core::Registration::parking) are woken by it; others look again every millisecond.
    #[default]
    Park,
}

/// Why nothing was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReceiveError {
    /// Nothing came in time.
    Timeout,
    /// A supervisor told this kernel to stop or drain, and its inbox is empty.
    Stopped,
    /// This process was forked: the endpoint is a copy, and only the parent's receives.
    Forked,
    /// The owner of this kernel was taken for dead, and another took the kernel over.
    Evicted,
}

impl fmt::Display for ReceiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Timeout => "no message came in time",
            Self::Stopped => "this kernel was told to stop",
            Self::Forked => {
                "this process was forked and has only a copy of the endpoint: register a kernel of its own here"
            }
            Self::Evicted => {
                "the owner of this kernel was taken for dead and another took the kernel over: register anew"
            }
        })
    }
}

impl core::error::Error for ReceiveError {}

/// Passes without success that are spun, before the first yield.
const SPINS: u32 = 64;
/// Passes without success before the first sleep.
const YIELDS: u32 = SPINS + 16;
/// The shortest and the longest nap of a kernel that nobody wakes.
const NAP: (Duration, Duration) = (Duration::from_micros(50), Duration::from_millis(1));
/// The first slice of a sleep.
const FIRST_SLICE: Duration = Duration::from_millis(1);

/// The longest time that a parked kernel sleeps before it looks again, whether or not it was woken: 3 ms for each kernel
/// that the fabric has room for, but 192 ms at most.
///
/// So the sleeping kernels of one fabric look 333 times a second together, however many there are (up to 64). A look
/// takes 15 to 20 µs of CPU time, the switch to the kernel's thread and back included: less than 1 % of a core.
#[must_use]
pub const fn longest_slice(kernels: usize) -> Duration {
    let counted = match kernels {
        0 => 1,
        1..64 => kernels as u64,
        _ => 64,
    };
    Duration::from_millis(3 * counted)
}

/// What ends a sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// Mail, or a command other than this one.
    Mail(Command),
    /// For a paused kernel: traffic in transit, or a command.
    Transit,
}

impl Awaited {
    /// Marks the kernel asleep, unless there is something to do.
    pub(crate) fn fall_asleep<'f, Sh: Shape<Scope = System>>(
        self,
        endpoint: &mut Core<'f, Host, Sh>,
    ) -> Option<Sleep<'f>> {
        match self {
            Self::Mail(obeyed) => endpoint.fall_asleep(obeyed),
            Self::Transit => endpoint.fall_asleep_paused(),
        }
    }
}

impl Wait {
    /// Waits a little for something that wakes nobody. `passes` counts the tries that failed so far.
    pub fn nap(self, passes: u32) {
        match self {
            Self::Spin => core::hint::spin_loop(),
            Self::Yield | Self::Park if passes < SPINS => core::hint::spin_loop(),
            Self::Park if passes >= YIELDS => std::thread::sleep(nap_length(passes)),
            Self::Yield | Self::Park => std::thread::yield_now(),
        }
    }

    /// Waits a little, or until the kernel is woken, but not longer than `limit`. `passes` counts the looks that found
    /// nothing. `true` if it slept for the whole of `limit`, or may have.
    pub(crate) fn idle<Sh: Shape<Scope = System>>(
        self,
        endpoint: &mut Core<'_, Host, Sh>,
        awaited: Awaited,
        passes: u32,
        limit: Option<Duration>,
    ) -> bool {
        if self != Self::Park || passes < YIELDS {
            self.nap(passes.min(YIELDS - 1));
            return false;
        }
        let began = Instant::now();
        // A kernel that has slept for whole limits, such as heartbeats, goes on with longer slices.
        let mut slices = passes.saturating_sub(YIELDS).saturating_mul(8);
        loop {
            let rest = limit.map(|limit| limit.saturating_sub(began.elapsed()));
            if rest == Some(Duration::ZERO) {
                break;
            }
            let Some(sleep) = awaited.fall_asleep(endpoint) else {
                // Mail that came just now; or, for 10 ms at most, a message of high priority that is not whole yet.
                std::thread::yield_now();
                return false;
            };
            let naps = naps(endpoint, &sleep);
            let longest = if naps { nap_length(passes) } else { slice(endpoint, slices) };
            sleep_for(&sleep, rest.map_or(longest, |rest| rest.min(longest)));
            let woken = sleep.is_over();
            sleep.end();
            if woken || naps {
                break;
            }
            slices = slices.saturating_add(1);
        }
        limit.is_some_and(|limit| began.elapsed() >= limit)
    }

    /// Waits a little for something that wakes nobody, or until the kernel is woken.
    pub(crate) fn idle_soon<Sh: Shape<Scope = System>>(
        self,
        endpoint: &mut Core<'_, Host, Sh>,
        awaited: Awaited,
        passes: u32,
        limit: Duration,
    ) {
        self.idle(endpoint, awaited, passes, Some(nap_length(passes).min(limit)));
    }
}

fn nap_length(passes: u32) -> Duration {
    (NAP.0 * (1u32 << (passes.saturating_sub(YIELDS) / 4).min(8))).min(NAP.1)
}

/// How long a kernel sleeps that has slept for so many slices without being woken.
fn slice<Sh: Shape<Scope = System>>(endpoint: &Core<'_, Host, Sh>, slices: u32) -> Duration {
    (FIRST_SLICE * (1 << slices.min(16))).min(longest_slice(endpoint.fabric().geometry().kernels as usize))
}

/// Whether a kernel naps that sleeps, since something that it waits for wakes nobody.
pub(crate) fn naps<Sh: Shape<Scope = System>>(endpoint: &Core<'_, Host, Sh>, sleep: &Sleep<'_>) -> bool {
    sleep.soon() || !endpoint.parks()
}

/// Until when a task sleeps that nobody wakes, at most until `until`; monotonic, ns. A waker is no cheap thing, so slices
/// and naps are the longest.
pub(crate) fn slice_ends<Sh: Shape<Scope = System>>(
    endpoint: &Core<'_, Host, Sh>,
    sleep: &Sleep<'_>,
    until: Option<Instant>,
) -> u64 {
    let slice = if naps(endpoint, sleep) { NAP.1 } else { slice(endpoint, u32::MAX) };
    let rest = until.map_or(slice, |until| slice.min(until.saturating_duration_since(Instant::now())));
    endpoint.deadline_in(rest)
}

/// The longest nap of a task that waits for something that wakes nobody.
pub(crate) const LONGEST_NAP: Duration = NAP.1;

/// When such a nap ends that begins now; monotonic, ns.
pub(crate) fn longest_nap_from<Sh: Shape<Scope = System>>(endpoint: &Core<'_, Host, Sh>) -> u64 {
    endpoint.deadline_in(LONGEST_NAP)
}

/// Receives, waiting until `deadline` at most.
pub(crate) fn receive<Sh: Shape<Scope = System>>(
    endpoint: &mut Core<'_, Host, Sh>,
    wait: Wait,
    deadline: Option<Instant>,
) -> Result<Sh::Item, ReceiveError> {
    let mut message = <Sh::Item as k2k_core::Packet>::empty();
    receive_into(endpoint, &mut message, wait, deadline, obeyed)?;
    Ok(message)
}

/// As [`receive`], into a message that the caller has. `goes_on` is [`obeyed`] or [`stopped`]: whether a kernel that
/// drains its inbox goes on waiting when that is empty.
pub(crate) fn receive_into<Sh: Shape<Scope = System>>(
    endpoint: &mut Core<'_, Host, Sh>,
    message: &mut Sh::Item,
    wait: Wait,
    deadline: Option<Instant>,
    goes_on: impl Fn(&mut Core<'_, Host, Sh>) -> Result<Command, ReceiveError>,
) -> Result<(), ReceiveError> {
    let mut passes = 0u32;
    loop {
        if !endpoint.platform().is_here() {
            return Err(ReceiveError::Forked);
        }
        if endpoint.try_receive_into(message) {
            return Ok(());
        }
        let obeyed = goes_on(endpoint)?;
        let rest = match deadline {
            None => None,
            Some(deadline) => match deadline.checked_duration_since(Instant::now()) {
                None | Some(Duration::ZERO) => return Err(ReceiveError::Timeout),
                rest => rest,
            },
        };
        passes = passes.saturating_add(1);
        wait.idle(endpoint, Awaited::Mail(obeyed), passes, rest);
    }
}

/// Passes on what is in transit, and shows it, waiting until `deadline` at most for some.
pub(crate) fn tap<Sh: Shape<Scope = System>>(
    endpoint: &mut Core<'_, Host, Sh>,
    wait: Wait,
    deadline: Instant,
    mut show: impl FnMut(&Sh::Item),
) -> Result<TapReport, ReceiveError> {
    let mut passes = 0u32;
    loop {
        if !endpoint.platform().is_here() {
            return Err(ReceiveError::Forked);
        }
        let tapped = endpoint.tap(&mut show);
        if tapped.passed > 0 {
            return Ok(tapped);
        }
        let obeyed = obeyed(endpoint)?;
        let rest = match deadline.checked_duration_since(Instant::now()) {
            None | Some(Duration::ZERO) => return Ok(tapped),
            rest => rest,
        };
        passes = passes.saturating_add(1);
        if tapped.blocked {
            wait.nap(passes);
        } else {
            wait.idle(endpoint, Awaited::Mail(obeyed), passes, rest);
        }
    }
}

/// The command under which a kernel with an empty inbox goes on waiting.
pub(crate) fn obeyed<Sh: Shape<Scope = System>>(endpoint: &mut Core<'_, Host, Sh>) -> Result<Command, ReceiveError> {
    match endpoint.command() {
        _ if endpoint.is_evicted() => Err(ReceiveError::Evicted),
        Command::Stop => Err(ReceiveError::Stopped),
        Command::Drain if endpoint.is_drained() => Err(ReceiveError::Stopped),
        obeyed => Ok(obeyed),
    }
}

/// The command under which a kernel goes on waiting that waits for something of its own, also while it drains.
pub(crate) fn stopped<Sh: Shape<Scope = System>>(endpoint: &mut Core<'_, Host, Sh>) -> Result<Command, ReceiveError> {
    match endpoint.command() {
        _ if !endpoint.platform().is_here() => Err(ReceiveError::Forked),
        _ if endpoint.is_evicted() => Err(ReceiveError::Evicted),
        Command::Stop => Err(ReceiveError::Stopped),
        obeyed => Ok(obeyed),
    }
}
