//! How a kernel waits: for mail, and for room.
//!
//! | strategy | waits by | latency | CPU while idle |
//! | --- | --- | --- | --- |
//! | [`Wait::Spin`] | looking again at once | lowest | a whole core |
//! | [`Wait::Yield`] | looking, then letting other threads run in between | low, grows with load | a whole core, unless other threads want the core |
//! | [`Wait::Park`] | looking, yielding, then sleeping at the kernel's wake flag | a wake-up, some µs | next to none |
//!
//! # Why no wake-up is lost
//!
//! A parking kernel marks itself asleep at its [wake flag](k2k_core::WakeFlag) and then looks at its inbox once more;
//! a sender publishes its message and then looks at the flag. Both have a fence between the two steps, so the kernel sees
//! the message or the sender sees the flag. The sleep itself is a futex on the flag's word: in a single step the system
//! checks the word for the number of this sleep and puts the thread to sleep, so a wake-up in between is not lost either.
//!
//! A sender may stop or die before the wake-up, and a hostile process may overwrite the flag. Therefore each sleep ends
//! after a *slice*, and the kernel looks at its inbox. A slice begins with 1 ms (a task's with the longest) and doubles up
//! to [`longest_slice`], 48 ms in a fabric for 16 kernels. No message waits longer for a waiting receiver: blocking, in
//! `async` code, in a run loop, or paused.
//!
//! Two events wake no kernel: room in another kernel's inbox (or any event awaited by a handler that answers
//! [`Idle::Soon`](k2k_core::Idle::Soon)), and mail to an endpoint that did not register as parking. A kernel that waits
//! for either event naps for at most 1 ms, beginning with 50 µs.

use crate::Host;
use crate::platform::sleep_for;
use core::fmt;
use core::time::Duration;
use k2k_core::Shape;
use k2k_core::sync::System;
use k2k_core::{Command, Endpoint as Core, Platform as _, Sleep, TapReport};
use std::time::Instant;

/// How a kernel waits while there is nothing to do. See the [module's page](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Wait {
    /// Look again at once. For kernels with a core to themselves.
    Spin,
    /// Let other threads of this core run, then look again.
    Yield,
    /// Look and yield for some microseconds, then sleep until mail arrives. Mail wakes kernels that registered as
    /// [parking](k2k_core::Registration::parking); all other kernels look again every millisecond.
    #[default]
    Park,
}

/// Why no message was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReceiveError {
    /// No message arrived in time.
    Timeout,
    /// A supervisor told this kernel to stop or drain, and its inbox is empty.
    Stopped,
    /// This process was forked: the endpoint is a copy, and only the parent's endpoint receives.
    Forked,
    /// This kernel's owner was taken for dead, and a successor took the kernel over.
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

/// Empty passes with a spin, before the first yield.
const SPINS: u32 = 64;
/// Empty passes before the first sleep.
const YIELDS: u32 = SPINS + 16;
/// The shortest and the longest nap of a kernel without a wake-up.
const NAP: (Duration, Duration) = (Duration::from_micros(50), Duration::from_millis(1));
/// The first slice of a sleep.
const FIRST_SLICE: Duration = Duration::from_millis(1);

/// The longest sleep of a parked kernel before it looks again, whether or not it was woken: 3 ms for each kernel of the
/// fabric's shape, but 192 ms at most.
///
/// So the sleeping kernels of a fabric look 333 times a second together, however many kernels sleep (up to 64). A look
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

/// The event that ends a sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// Mail, or a command other than the given command.
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
    /// Waits a little, for an event without a wake-up. `passes` counts the tries that failed so far.
    pub fn nap(self, passes: u32) {
        match self {
            Self::Spin => core::hint::spin_loop(),
            Self::Yield | Self::Park if passes < SPINS => core::hint::spin_loop(),
            Self::Park if passes >= YIELDS => std::thread::sleep(nap_length(passes)),
            Self::Yield | Self::Park => std::thread::yield_now(),
        }
    }

    /// Waits a little, or until the kernel is woken, but not longer than `limit`. `passes` counts the empty looks so far.
    /// `true` if the kernel slept for the whole of `limit`, or may have.
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
                // Mail has just arrived; or, for 10 ms at most, a high-priority message is not complete yet.
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

    /// Waits a little for an event without a wake-up, or until the kernel is woken.
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

/// Length of a kernel's next sleep after `slices` slices without a wake-up.
fn slice<Sh: Shape<Scope = System>>(endpoint: &Core<'_, Host, Sh>, slices: u32) -> Duration {
    (FIRST_SLICE * (1 << slices.min(16))).min(longest_slice(endpoint.fabric().geometry().kernels as usize))
}

/// Whether this sleep must be a nap, because an awaited event wakes no kernel.
pub(crate) fn naps<Sh: Shape<Scope = System>>(endpoint: &Core<'_, Host, Sh>, sleep: &Sleep<'_>) -> bool {
    sleep.soon() || !endpoint.parks()
}

/// End of a task's sleep without a wake-up, `until` at the latest; monotonic, ns. Wakers are expensive, so slices and naps
/// are the longest.
pub(crate) fn slice_ends<Sh: Shape<Scope = System>>(
    endpoint: &Core<'_, Host, Sh>,
    sleep: &Sleep<'_>,
    until: Option<Instant>,
) -> u64 {
    let slice = if naps(endpoint, sleep) { NAP.1 } else { slice(endpoint, u32::MAX) };
    let rest = until.map_or(slice, |until| slice.min(until.saturating_duration_since(Instant::now())));
    endpoint.deadline_in(rest)
}

/// The longest nap of a task that waits for an event without a wake-up.
pub(crate) const LONGEST_NAP: Duration = NAP.1;

/// End of a longest nap that begins now; monotonic, ns.
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

/// As [`receive`], into the caller's message. `goes_on` is [`obeyed`] or [`stopped`]: whether a draining kernel goes on
/// waiting when its inbox is empty.
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

/// Passes transit traffic on and shows each message, waiting for traffic until `deadline` at most.
pub(crate) fn tap<Sh: Shape<Scope = System>>(
    endpoint: &mut Core<'_, Host, Sh>,
    wait: Wait,
    deadline: Option<Instant>,
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
        let rest = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if rest == Some(Duration::ZERO) {
            return Ok(tapped);
        }
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

/// The command under which a kernel goes on waiting for an event of its own, also while draining.
pub(crate) fn stopped<Sh: Shape<Scope = System>>(endpoint: &mut Core<'_, Host, Sh>) -> Result<Command, ReceiveError> {
    match endpoint.command() {
        _ if !endpoint.platform().is_here() => Err(ReceiveError::Forked),
        _ if endpoint.is_evicted() => Err(ReceiveError::Evicted),
        Command::Stop => Err(ReceiveError::Stopped),
        obeyed => Ok(obeyed),
    }
}
