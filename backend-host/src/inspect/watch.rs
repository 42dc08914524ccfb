//! Changes from look to look.

use super::InspectError;
use super::look::{KernelLook, Look, View};
use crate::owner::OwnerState;
use core::fmt;
use core::time::Duration;
use k2k_core::fabric::{Latency, Status};
use k2k_core::{Command, KernelId, Phase, Stats};
use std::collections::HashMap;
use std::time::Instant;

/// Condition of a kernel, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Condition {
    /// The kernel's process is gone: `k2k reap` frees the index.
    Dead,
    /// The kernel's handler failed.
    Failed,
    /// The kernel's process is stopped: SIGSTOP, or a debugger.
    Stopped,
    /// The run loop has made no pass for the watch's patience: the kernel hangs in its handler.
    Hung,
    /// The kernel was told to pause, drain or stop the watch's patience ago, and has not obeyed.
    Unheard,
    /// Mail waits, and the kernel has taken none for the watch's patience.
    Stalled,
    /// The kernel takes mail, and some sender has no room for more, or had none at the look before.
    Flooded,
    /// The kernel was told to pause, and has paused.
    Paused,
    /// The kernel is about to end: draining, leaving or stopped.
    Ending,
    /// Since the last look the kernel has only tried to send, and every message was refused.
    Refused,
    /// The kernel takes or sends messages, or did since the last look.
    Busy,
    /// No message waits, and no counter has moved since the last look.
    Idle,
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Dead => "dead",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
            Self::Hung => "hung",
            Self::Unheard => "unheard",
            Self::Stalled => "stalled",
            Self::Flooded => "flooded",
            Self::Paused => "paused",
            Self::Ending => "ending",
            Self::Refused => "refused",
            Self::Busy => "busy",
            Self::Idle => "idle",
        })
    }
}

/// How long messages were on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantiles {
    /// Number of counted messages: of the received messages, 1 in
    /// [`LATENCY_SAMPLE`](crate::fabric::LATENCY_SAMPLE).
    pub count: u64,
    /// A time not exceeded by half of the messages, ns: at most a quarter too long, like `p99_ns`.
    pub p50_ns: u64,
    /// A time not exceeded by 99 of 100 messages, ns.
    pub p99_ns: u64,
}

impl Quantiles {
    /// Quantiles of a kernel's counts; `None` if no message was counted.
    #[must_use]
    pub fn of(latency: &Latency) -> Option<Self> {
        let [p50_ns, p99_ns] = [0.5, 0.99].map(|share| latency.quantile(share));
        Some(Self { count: latency.count(), p50_ns: p50_ns?, p99_ns: p99_ns? })
    }
}

/// State of a kernel derived from several looks.
#[derive(Clone, Copy, Debug)]
pub struct Detail {
    /// The kernel's condition.
    pub condition: Condition,
    /// Growth of each counter since the last look. A counter that has gone back, because a verdict was taken back, counts as
    /// grown by 0.
    pub change: Stats,
    /// The most messages that waited in the inbox at any look of this watch.
    pub high_water: u64,
    /// How long the messages received since the last look were on the way; `None` if no message was counted.
    pub latency: Option<Quantiles>,
    /// For how long neither the heartbeat nor any counter has moved, as far as this watch has seen.
    pub still: Duration,
}

/// A look, and the changes since the look before.
#[derive(Clone, Debug)]
pub struct Report {
    /// The look.
    pub look: Look,
    /// Time since the look before; zero at the first look.
    pub since: Duration,
    /// Detail of each kernel of the look, in the same order.
    pub details: Vec<Detail>,
}

impl Report {
    /// The kernels of the look with their details.
    pub fn kernels(&self) -> impl Iterator<Item = (&KernelLook, &Detail)> {
        self.look.kernels.iter().zip(&self.details)
    }

    /// A counter's growth, per second; 0 at the first look.
    #[must_use]
    pub fn per_second(&self, change: u64) -> f64 {
        if self.since.is_zero() { 0.0 } else { change as f64 / self.since.as_secs_f64() }
    }
}

/// State of a kernel at the last look.
#[derive(Debug)]
struct Seen {
    stats: Stats,
    latency: Option<Box<Latency>>,
    heartbeat: u64,
    awake: bool,
    full: bool,
    high_water: u64,
    /// When the heartbeat or a counter moved last.
    moved: Instant,
    /// When the kernel last took mail, or had an empty inbox.
    took: Instant,
    command: Command,
    /// When `command` was first seen.
    commanded: Instant,
}

/// Looks at a fabric again and again.
///
/// ```
/// use k2k::{Broker, Config, Fixed, Memory, Message, inspect::{Condition, View, Watch}, memory};
/// # let name = format!("k2k-doc-watch-{}", std::process::id());
/// let broker = Broker::new(Memory::<Fixed<4, 8, 64>>::create(&name, &Config::default())?);
/// let (mut a, b) = (broker.register("a")?, broker.register("b")?);
///
/// let mut watch = Watch::new(View::open(&name)?);
/// watch.look()?;
/// a.send(b.id(), &Message::new(1))?;
/// let report = watch.look()?;
/// assert_eq!((report.details[0].change.sent, report.details[0].condition), (1, Condition::Busy));
/// # memory::remove(&name)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Watch {
    view: View,
    patience: Duration,
    last: Option<Instant>,
    /// For a copy: its number of updates at the last look, and when this number was first seen.
    shown: Option<(u32, Instant)>,
    seen: HashMap<KernelId, Seen>,
}

impl Watch {
    /// How long a kernel may stand still before it counts as stuck. Idle kernels that park look at their inbox five times
    /// a second at least.
    pub const PATIENCE: Duration = Duration::from_secs(1);

    /// Watches the fabric of a view, with [`PATIENCE`](Self::PATIENCE).
    #[must_use]
    pub fn new(view: View) -> Self {
        Self { view, patience: Self::PATIENCE, last: None, shown: None, seen: HashMap::new() }
    }

    /// Sets another patience.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The view.
    pub const fn view(&mut self) -> &mut View {
        &mut self.view
    }

    /// Looks once more.
    ///
    /// # Errors
    /// As for [`View::look`].
    pub fn look(&mut self) -> Result<Report, InspectError> {
        let look = self.view.look()?;
        let since = self.last.map_or(Duration::ZERO, |last| look.at.saturating_duration_since(last));
        self.last = Some(look.at);
        // The same copy again gives no new information: a copy's kernels are judged by the times at which copies were new.
        let now = match (self.shown, look.shown) {
            (Some((before, at)), Some(shown)) if before == shown => at,
            _ => look.at,
        };
        self.shown = look.shown.map(|shown| (shown, now));
        self.seen.retain(|id, _| look.kernels.iter().any(|kernel| kernel.id == *id));
        let details = look.kernels.iter().map(|kernel| self.detail(kernel, now)).collect();
        Ok(Report { look, since, details })
    }

    fn detail(&mut self, kernel: &KernelLook, now: Instant) -> Detail {
        let waiting = kernel.waiting();
        // A kernel that does not park makes pass after pass.
        let awake = !kernel.parks || !kernel.asleep;
        let seen = self.seen.entry(kernel.id).or_insert(Seen {
            stats: kernel.stats,
            latency: kernel.latency.clone(),
            heartbeat: kernel.heartbeat,
            awake: false,
            full: false,
            high_water: 0,
            moved: now,
            took: now,
            command: kernel.command,
            commanded: now,
        });
        let change = growth(&seen.stats, &kernel.stats);
        let latency = kernel.latency.as_ref().zip(seen.latency.as_ref());
        let latency = latency.and_then(|(now, before)| Quantiles::of(&now.since(before)));
        seen.latency.clone_from(&kernel.latency);
        if kernel.stats != seen.stats || kernel.heartbeat != seen.heartbeat {
            seen.moved = now;
        }
        if waiting == 0 || taken(&change) {
            seen.took = now;
        }
        if kernel.command != seen.command {
            (seen.command, seen.commanded) = (kernel.command, now);
        }
        let stays_awake = seen.awake && awake;
        seen.high_water = seen.high_water.max(waiting);
        // Right after the receiver has given room back, a sender that has filled the rest may not have come by yet.
        let is_full = kernel.backlog.iter().any(|from| from.full);
        let was_full = seen.full;
        (seen.stats, seen.heartbeat, seen.awake, seen.full) = (kernel.stats, kernel.heartbeat, awake, is_full);

        let still = now.saturating_duration_since(seen.moved);
        let since = |then| now.saturating_duration_since(then) >= self.patience;
        let in_run_loop = matches!(kernel.phase, Phase::Running | Phase::Paused | Phase::Draining);
        let owner = kernel.owner.as_ref();
        let condition = if owner.is_some_and(|owner| owner.state == OwnerState::Dead) {
            Condition::Dead
        } else if kernel.status == Some(Status::Failed) || kernel.phase == Phase::Failed {
            Condition::Failed
        } else if owner.is_some_and(|owner| owner.stopped) {
            Condition::Stopped
        } else if in_run_loop && since(seen.moved) && (waiting > 0 || stays_awake) {
            Condition::Hung
        } else if !follows(kernel) && since(seen.commanded) {
            Condition::Unheard
        } else if kernel.phase == Phase::Paused {
            Condition::Paused
        } else if since(seen.took) {
            Condition::Stalled
        } else if is_full || was_full && waiting > 0 {
            Condition::Flooded
        } else if kernel.status == Some(Status::Leaving) || matches!(kernel.phase, Phase::Draining | Phase::Stopped) {
            Condition::Ending
        } else if change.refused > 0 && change == (Stats { refused: change.refused, ..Stats::default() }) {
            Condition::Refused
        } else if change != Stats::default() || waiting > 0 {
            Condition::Busy
        } else {
            Condition::Idle
        };
        Detail { condition, change, high_water: seen.high_water, latency, still }
    }
}

/// Whether a kernel obeys its command. A kernel without a run loop shows no obedience until it has read the command.
fn follows(kernel: &KernelLook) -> bool {
    match kernel.command {
        Command::Run => true,
        Command::Pause => matches!(kernel.phase, Phase::Paused | Phase::Stopped),
        Command::Drain => matches!(kernel.phase, Phase::Draining | Phase::Stopped),
        Command::Stop => kernel.phase == Phase::Stopped,
    }
}

/// Whether a kernel has taken mail.
fn taken(change: &Stats) -> bool {
    change.received + change.forwarded + change.discarded + change.corrupt + change.failed() > 0
}

/// Growth of each counter.
fn growth(before: &Stats, now: &Stats) -> Stats {
    let grown = |of: fn(&Stats) -> u64| {
        // Shared memory may hold any value: no sum of a few of these overflows.
        of(now).saturating_sub(of(before)).min(u64::MAX >> 8)
    };
    Stats {
        sent: grown(|s| s.sent),
        received: grown(|s| s.received),
        not_found: grown(|s| s.not_found),
        queue_full: grown(|s| s.queue_full),
        timeout: grown(|s| s.timeout),
        max_hops_exceeded: grown(|s| s.max_hops_exceeded),
        unanswered: grown(|s| s.unanswered),
        not_allowed: grown(|s| s.not_allowed),
        forwarded: grown(|s| s.forwarded),
        discarded: grown(|s| s.discarded),
        refused: grown(|s| s.refused),
        corrupt: grown(|s| s.corrupt),
        clock_skews: grown(|s| s.clock_skews),
    }
}
