//! What kernels count.

/// Which counter of a kernel. The order is the layout in shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Counter {
    Sent,
    Received,
    NotFound,
    QueueFull,
    Timeout,
    MaxHopsExceeded,
    Unanswered,
    Forwarded,
    Discarded,
    Refused,
    Corrupt,
    ClockSkews,
    TraceEvents,
    NotAllowed,
}

impl Counter {
    /// Whether what a kernel has in hand ends with this count: see [`Hand`](super::hand).
    pub(crate) const fn ends_a_note(self) -> bool {
        !matches!(self, Self::Sent | Self::Refused | Self::ClockSkews | Self::TraceEvents)
    }

    /// All that do.
    pub(crate) const ENDING: [Self; 10] = [
        Self::Received,
        Self::NotFound,
        Self::QueueFull,
        Self::Timeout,
        Self::MaxHopsExceeded,
        Self::Unanswered,
        Self::Forwarded,
        Self::Discarded,
        Self::Corrupt,
        Self::NotAllowed,
    ];
}

pub(crate) const COUNTERS: usize = Counter::NotAllowed as usize + 1;

/// What a kernel, or all of them together, did with messages. Every accepted message ends in exactly one of `received`
/// and the six failures, so over all kernels of a fabric at rest
/// `sent == received + not_found + queue_full + timeout + max_hops_exceeded + unanswered + not_allowed + pending`,
/// where `pending` is what [`Fabric::pending`](super::Fabric::pending) counts.
///
/// A failure is counted by the kernel that decided it; one that an onlooker decided, by the sender's or the holder's
/// kernel when it comes by. A message that its own sender has given up, and that its holder has not found before the
/// receipt was overwritten, is pending again until a holder finds it. Counts go on when a kernel index changes hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Stats {
    /// Messages accepted by `send`.
    pub sent: u64,
    /// Messages handed to their receiver; for a [proxy](crate::gateway), in the remote domain.
    pub received: u64,
    /// Ended because destination or next hop had left.
    pub not_found: u64,
    /// Ended because a forwarder had no room.
    pub queue_full: u64,
    /// Ended because the deadline passed.
    pub timeout: u64,
    /// Ended because the hop limit was reached.
    pub max_hops_exceeded: u64,
    /// Ended because a remote domain did not say in time what became of them: they may have been received there.
    pub unanswered: u64,
    /// Ended because the receiver may not receive from the message's source: see [`Fabric::deny`](super::Fabric::deny).
    pub not_allowed: u64,
    /// Hops: messages passed on for others. Says nothing about how they end.
    pub forwarded: u64,
    /// Messages found in an inbox that had been ended, and counted, by someone else.
    pub discarded: u64,
    /// Calls of `send` that were refused; the message stayed with the caller and is not in `sent`.
    pub refused: u64,
    /// Messages thrown away because their header was not one that `send` writes: memory was damaged. Such a
    /// message stays in `pending` until its sender times it out.
    pub corrupt: u64,
    /// Received messages whose sender's clock was too far ahead to follow.
    pub clock_skews: u64,
}

impl Stats {
    pub(crate) const fn from_counters(counters: &[u64; COUNTERS]) -> Self {
        Self {
            sent: counters[Counter::Sent as usize],
            received: counters[Counter::Received as usize],
            not_found: counters[Counter::NotFound as usize],
            queue_full: counters[Counter::QueueFull as usize],
            timeout: counters[Counter::Timeout as usize],
            max_hops_exceeded: counters[Counter::MaxHopsExceeded as usize],
            unanswered: counters[Counter::Unanswered as usize],
            not_allowed: counters[Counter::NotAllowed as usize],
            forwarded: counters[Counter::Forwarded as usize],
            discarded: counters[Counter::Discarded as usize],
            refused: counters[Counter::Refused as usize],
            corrupt: counters[Counter::Corrupt as usize],
            clock_skews: counters[Counter::ClockSkews as usize],
        }
    }

    /// Messages whose way did not end in being received.
    #[must_use]
    pub const fn failed(&self) -> u64 {
        let here = self.not_found.wrapping_add(self.queue_full).wrapping_add(self.timeout);
        here.wrapping_add(self.max_hops_exceeded).wrapping_add(self.unanswered).wrapping_add(self.not_allowed)
    }

    /// Of the sum over all kernels: messages that were not counted as received or failed, so `sent` less these. What is
    /// pending is [counted](super::Fabric::pending); the two differ by what was lost.
    #[must_use]
    pub const fn unaccounted(&self) -> u64 {
        self.sent.wrapping_sub(self.received).wrapping_sub(self.failed())
    }

    /// Adds another kernel's numbers. Wraps, because they come out of shared memory.
    #[must_use]
    pub const fn plus(&self, other: &Self) -> Self {
        Self {
            sent: self.sent.wrapping_add(other.sent),
            received: self.received.wrapping_add(other.received),
            not_found: self.not_found.wrapping_add(other.not_found),
            queue_full: self.queue_full.wrapping_add(other.queue_full),
            timeout: self.timeout.wrapping_add(other.timeout),
            max_hops_exceeded: self.max_hops_exceeded.wrapping_add(other.max_hops_exceeded),
            unanswered: self.unanswered.wrapping_add(other.unanswered),
            not_allowed: self.not_allowed.wrapping_add(other.not_allowed),
            forwarded: self.forwarded.wrapping_add(other.forwarded),
            discarded: self.discarded.wrapping_add(other.discarded),
            refused: self.refused.wrapping_add(other.refused),
            corrupt: self.corrupt.wrapping_add(other.corrupt),
            clock_skews: self.clock_skews.wrapping_add(other.clock_skews),
        }
    }
}
