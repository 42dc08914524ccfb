//! How a kernel waits: for mail, and for room.
//!
//! | strategy | waits by | latency | CPU while idle |
//! | --- | --- | --- | --- |
//! | [`Wait::Spin`] | looking again at once | lowest | a whole core |
//! | [`Wait::Yield`] | looking, then letting other threads run in between | low, grows with load | a whole core that nobody else wants |
//! | [`Wait::Park`] | looking, yielding, then sleeping at its wake flag | a wake-up, some µs | none |
//!
//! # Why no wake-up is lost
//!
//! A kernel that parks says so at its [wake flag](k2k_core::WakeFlag) and then looks at its inbox once more; a
//! sender publishes its message and then looks at the wake flag. Between the two steps of each stands a fence, so at
//! least one sees the other. The sleep itself is a futex on the wake flag's word: the system checks that the word still
//! says "asleep" in one step with going to sleep, so a wake-up in between is not lost either.
//!
//! Two things cannot ring: room in another's inbox (or whatever else a handler waits for that answers
//! [`Idle::Soon`](k2k_core::Idle::Soon)), and mail to an endpoint that did not register as parking. These are waited
//! for in naps of at most 1 ms, beginning with 50 µs.

use crate::Host;
use crate::platform::sleep_at;
use core::fmt;
use core::time::Duration;
use k2k_core::{Backlog, Command, Endpoint as Core, Platform as _};
use std::time::Instant;

/// What a kernel does while there is nothing to do. See the [module's page](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Wait {
    /// Look again at once. For kernels that have a core to themselves.
    Spin,
    /// Let other threads of this core run, then look again.
    Yield,
    /// Look and yield for some microseconds, then sleep until there is mail. Kernels that registered as
    /// [parking](k2k_core::Register::parking) are woken by it; others look again every millisecond.
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
}

impl fmt::Display for ReceiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Timeout => "no message came in time",
            Self::Stopped => "this kernel was told to stop",
            Self::Forked => {
                "this process was forked and has only a copy of the endpoint: register a kernel of its own here"
            }
        })
    }
}

impl core::error::Error for ReceiveError {}

/// Passes without success that are spun, before the first yield.
const SPINS: u32 = 64;
/// Passes without success before the first sleep.
const YIELDS: u32 = SPINS + 16;
/// The shortest and the longest nap where nobody rings.
const NAP: (Duration, Duration) = (Duration::from_micros(50), Duration::from_millis(1));
/// The longest nap of a kernel that a supervisor has paused: its wake flag rings for commands.
const PAUSE_NAP: Duration = Duration::from_millis(100);

impl Wait {
    /// Waits a little for something that cannot ring. `passes` counts the tries that failed so far.
    pub fn nap(self, passes: u32) {
        match self {
            Self::Spin => core::hint::spin_loop(),
            Self::Yield | Self::Park if passes < SPINS => core::hint::spin_loop(),
            Self::Park if passes >= YIELDS => std::thread::sleep(nap_length(passes)),
            Self::Yield | Self::Park => std::thread::yield_now(),
        }
    }

    /// Waits a little, or until the wake flag rings, but not longer than `limit`. `passes` counts the looks that found
    /// nothing. `true` if it slept for the whole of `limit`, or may have.
    pub(crate) fn idle<const K: usize, const S: usize, const P: usize>(
        self,
        endpoint: &mut Core<'_, Host, K, S, P>,
        passes: u32,
        limit: Option<Duration>,
    ) -> bool {
        if self != Self::Park || passes < YIELDS {
            self.nap(passes.min(YIELDS - 1));
            return false;
        }
        let began = Instant::now();
        sleep(endpoint, passes, limit);
        limit.is_some_and(|limit| began.elapsed() >= limit)
    }
}

impl Wait {
    /// Waits a little for something that cannot ring, or until the wake flag rings.
    pub(crate) fn idle_soon<const K: usize, const S: usize, const P: usize>(
        self,
        endpoint: &mut Core<'_, Host, K, S, P>,
        passes: u32,
        limit: Duration,
    ) {
        self.idle(endpoint, passes, Some(nap_length(passes).min(limit)));
    }
}

fn nap_length(passes: u32) -> Duration {
    (NAP.0 * (1u32 << (passes.saturating_sub(YIELDS) / 4).min(8))).min(NAP.1)
}

/// Sleeps until mail or a command comes, if that rings; otherwise naps.
fn sleep<const K: usize, const S: usize, const P: usize>(
    endpoint: &mut Core<'_, Host, K, S, P>,
    passes: u32,
    limit: Option<Duration>,
) {
    if let Some((rest, wake_flag)) = fall_asleep(endpoint, passes) {
        let limit = [rest, limit].into_iter().flatten().min();
        sleep_at(wake_flag, limit);
        wake_flag.wake_up();
    }
}

/// Says at the wake flag that this kernel sleeps, unless there is something to do, and for how long it may (`None`:
/// until it is woken).
///
/// On a kernel that is paused, mail is nothing to do; and transit traffic that found no room must be tried again soon.
pub(crate) fn fall_asleep<'f, const K: usize, const S: usize, const P: usize>(
    endpoint: &mut Core<'f, Host, K, S, P>,
    passes: u32,
) -> Option<(Option<Duration>, &'f k2k_core::WakeFlag)> {
    if let Some(wake_flag) = endpoint.fall_asleep() {
        let rest = (!endpoint.parks()).then(|| nap_length(passes));
        return Some((rest, wake_flag));
    }
    let before = (endpoint.command(), endpoint.backlog());
    let nap = match before {
        // Mail that came just now; or, for 10 ms at most, a message of high priority that is not whole yet.
        (Command::Run | Command::Drain, Backlog::Mail) => {
            std::thread::yield_now();
            return None;
        }
        (Command::Run | Command::Drain, Backlog::None) | (Command::Stop, _) => return None,
        (Command::Pause, Backlog::None | Backlog::Mail) => PAUSE_NAP,
        (_, Backlog::Transit) => nap_length(passes),
    };
    let wake_flag = endpoint.wake_flag();
    wake_flag.fall_asleep();
    if (endpoint.command(), endpoint.backlog()) != before {
        wake_flag.wake_up();
        return None;
    }
    Some((Some(if endpoint.parks() { nap } else { nap.min(NAP.1) }), wake_flag))
}

/// Receives, waiting until `deadline` at most.
pub(crate) fn receive<const K: usize, const S: usize, const P: usize>(
    endpoint: &mut Core<'_, Host, K, S, P>,
    wait: Wait,
    deadline: Option<Instant>,
) -> Result<k2k_core::Message<P>, ReceiveError> {
    let mut passes = 0u32;
    loop {
        if !endpoint.platform().is_here() {
            return Err(ReceiveError::Forked);
        }
        if let Some(message) = endpoint.try_receive() {
            return Ok(message);
        }
        if is_stopped(endpoint) {
            return Err(ReceiveError::Stopped);
        }
        let rest = match deadline {
            None => None,
            Some(deadline) => match deadline.checked_duration_since(Instant::now()) {
                None | Some(Duration::ZERO) => return Err(ReceiveError::Timeout),
                rest => rest,
            },
        };
        passes = passes.saturating_add(1);
        wait.idle(endpoint, passes, rest);
    }
}

/// Whether a kernel with an empty inbox was told to go.
pub(crate) fn is_stopped<const K: usize, const S: usize, const P: usize>(endpoint: &Core<'_, Host, K, S, P>) -> bool {
    match endpoint.command() {
        Command::Stop => true,
        Command::Drain => endpoint.backlog() == Backlog::None,
        Command::Run | Command::Pause => false,
    }
}
