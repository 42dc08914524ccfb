//! The messages of a job, and their order.
//!
//! ```text
//!   controller            tile                      its neighbours
//!       | ---- START -----> | <------- HALO i ---------> |      a neighbour that started earlier may have sent already
//!       |                   |  computes iteration i + 1  |
//!       |                   | <----- HALO i + 1 -------> |
//!       |                  ...                          ...
//!       | <--- REPORT ----- |                            |      its result is in its storage
//!       | ---- FINISH ----> | stops                      |
//! ```
//!
//! A tile computes iteration i + 1 when all halos of iteration i have come and all its own have gone. So whoever sends
//! it a halo of i + 1 has had its halo of i, and none is more than one iteration ahead: two frames suffice, every halo
//! has its place when it arrives, and no tile ever refuses one. Sending waits for room; receiving never waits. Hence no
//! deadlock, with one slot per kernel pair as well.
//!
//! A tile that fails tells its neighbours (ABORT) and the controller (REPORT) and stops. A tile that stops without a
//! word is noticed by the receipts of what was sent to it, or at the latest when `patience_ns` is over.
//!
//! | kind | payload | `correlation_id` | `flags` |
//! | --- | --- | --- | --- |
//! | START | [`Start`] | | |
//! | HALO | `f32`, little-endian | iteration << 32 \| number of the first value | receiver's [`Side`](crate::Side) |
//! | REPORT | [`Report`] | | |
//! | ABORT, FINISH | | | |

use bytemuck::{Pod, Zeroable};
use core::fmt;
use k2k_core::DeliveryStatus;

/// Controller to tile: begin.
pub const START: u32 = 1;
/// Tile to neighbour: values of a border.
pub const HALO: u32 = 2;
/// Tile to controller: how it ended.
pub const REPORT: u32 = 3;
/// Tile to neighbour: the job has failed.
pub const ABORT: u32 = 4;
/// Controller to tile: stop, at whatever point.
pub const FINISH: u32 = 5;

/// What a tile is told.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct Start {
    /// How long nothing may come and go before the tile gives up, ns.
    pub patience_ns: u64,
    /// Raw [`KernelId`](k2k_core::KernelId) of the neighbour on each [`Side`](crate::Side), by number; 0 where the
    /// picture ends.
    pub neighbours: [u64; 4],
    /// See [`Params`](crate::Params).
    pub iterations: u32,
    /// See [`Params`](crate::Params).
    pub kappa: f32,
    /// See [`Params`](crate::Params).
    pub lambda: f32,
    /// Zero.
    pub reserved: u32,
}

/// How a tile ended. The numbers travel in messages and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// All iterations are done, all halos delivered.
    Done,
    /// Stopped from outside before that.
    Stopped,
    /// A START with numbers out of range, for other neighbours than have written, or a second one.
    BadStart,
    /// A halo that has no place here.
    BadHalo,
    /// One of its own messages was not delivered.
    Undelivered(DeliveryStatus),
    /// A neighbour told that it had failed.
    NeighbourFailed,
    /// Nothing came or went for longer than the patience.
    Stalled,
}

impl Outcome {
    /// As it stands in a [`Report`]: the number, and the detail.
    const fn encode(self) -> (u32, u32) {
        match self {
            Self::Done => (1, 0),
            Self::Stopped => (2, 0),
            Self::BadStart => (3, 0),
            Self::BadHalo => (4, 0),
            Self::Undelivered(status) => (5, status as u32),
            Self::NeighbourFailed => (6, 0),
            Self::Stalled => (7, 0),
        }
    }

    const fn decode(number: u32, detail: u32) -> Option<Self> {
        Some(match (number, detail) {
            (1, 0) => Self::Done,
            (2, 0) => Self::Stopped,
            (3, 0) => Self::BadStart,
            (4, 0) => Self::BadHalo,
            (5, 3) => Self::Undelivered(DeliveryStatus::NotFound),
            (5, 4) => Self::Undelivered(DeliveryStatus::QueueFull),
            (5, 5) => Self::Undelivered(DeliveryStatus::Timeout),
            (5, 6) => Self::Undelivered(DeliveryStatus::MaxHopsExceeded),
            (5, 7) => Self::Undelivered(DeliveryStatus::Unanswered),
            (5, 10) => Self::Undelivered(DeliveryStatus::NotAllowed),
            (6, 0) => Self::NeighbourFailed,
            (7, 0) => Self::Stalled,
            _ => return None,
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Stopped => f.write_str("stopped before it was done"),
            Self::BadStart => f.write_str("was told to start with numbers or neighbours that cannot be, or twice"),
            Self::BadHalo => f.write_str("received a halo that has no place in this iteration"),
            Self::Undelivered(status) => write!(f, "a message of its own was not delivered: {status}"),
            Self::NeighbourFailed => f.write_str("a neighbour failed"),
            Self::Stalled => f.write_str("nothing came or went for longer than its patience"),
        }
    }
}

/// What a tile tells in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Report {
    /// Halo messages sent.
    pub sent: u64,
    /// Halo messages received.
    pub received: u64,
    /// Times that a neighbour had no room for one.
    pub retries: u64,
    outcome: u32,
    detail: u32,
    /// Iterations done.
    pub iterations: u32,
    reserved: u32,
}

impl Report {
    pub(crate) const fn new(outcome: Outcome, iterations: u32, sent: u64, received: u64, retries: u64) -> Self {
        let (outcome, detail) = outcome.encode();
        Self { sent, received, retries, outcome, detail, iterations, reserved: 0 }
    }

    /// How the tile ended; `None` if the report holds no outcome that exists.
    #[must_use]
    pub const fn outcome(&self) -> Option<Outcome> {
        Outcome::decode(self.outcome, self.detail)
    }
}

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<Start>() == 56 && align_of::<Start>() == 8);
    assert!(offset_of!(Start, neighbours) == 8);
    assert!(offset_of!(Start, iterations) == 40);
    assert!(size_of::<Report>() == 40 && align_of::<Report>() == 8);
    assert!(offset_of!(Report, outcome) == 24);
    assert!(offset_of!(Report, iterations) == 32);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_pinned() {
        assert_eq!([START, HALO, REPORT, ABORT, FINISH], [1, 2, 3, 4, 5]);
        let all = [
            (Outcome::Done, (1, 0)),
            (Outcome::Stopped, (2, 0)),
            (Outcome::BadStart, (3, 0)),
            (Outcome::BadHalo, (4, 0)),
            (Outcome::Undelivered(DeliveryStatus::NotFound), (5, 3)),
            (Outcome::Undelivered(DeliveryStatus::QueueFull), (5, 4)),
            (Outcome::Undelivered(DeliveryStatus::Timeout), (5, 5)),
            (Outcome::Undelivered(DeliveryStatus::MaxHopsExceeded), (5, 6)),
            (Outcome::Undelivered(DeliveryStatus::Unanswered), (5, 7)),
            (Outcome::Undelivered(DeliveryStatus::NotAllowed), (5, 10)),
            (Outcome::NeighbourFailed, (6, 0)),
            (Outcome::Stalled, (7, 0)),
        ];
        for (outcome, (number, detail)) in all {
            assert_eq!(outcome.encode(), (number, detail));
            assert_eq!(Outcome::decode(number, detail), Some(outcome));
        }
        assert_eq!(Outcome::decode(0, 0), None);
        assert_eq!(Outcome::decode(5, 1), None);
    }
}
