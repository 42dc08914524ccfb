//! What a kernel did last, readable by others while it runs or hangs.
//!
//! A ring of the last [`TRACE_EVENTS`] events per kernel, overwritten in turn. One writer, any number of readers that
//! never disturb it: each entry is a sequence lock whose data words are atomics.
//!
//! | label | release | acquire | what becomes visible |
//! | --- | --- | --- | --- |
//! | `trace-began` | each data word's store | each data word's load | that the stamp was odd before the word changed |
//! | `trace-ended` | the even stamp's store | the reader's first stamp load | all data words of the event |
//!
//! A reader that saw a word of a later event sees, in its second look at the stamp, that a later event has begun.

use super::DeliveryStatus;
use crate::hlc::Timestamp;
use crate::message::{KernelId, MessageId};
use crate::sync::Ordering::{Acquire, Relaxed, Release};
use crate::sync::{AtomicU64, shared_struct};

/// Events that are kept per kernel.
pub const TRACE_EVENTS: usize = if cfg!(loom) { 2 } else { 64 };

/// What happened to a message at a kernel. The numbers stand in shared memory and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Event {
    /// Accepted by `send`.
    Sent = 1,
    /// Taken out of the inbox by its receiver.
    Received = 2,
    /// Passed on to the next hop.
    Forwarded = 3,
    /// Put aside because the next hop was full.
    Parked = 4,
    /// Its way ended here: see the status.
    Failed = 5,
    /// Found in an inbox after someone else had ended its way.
    Discarded = 6,
}

impl Event {
    const fn from_bits(bits: u64) -> Option<Self> {
        Some(match bits {
            1 => Self::Sent,
            2 => Self::Received,
            3 => Self::Forwarded,
            4 => Self::Parked,
            5 => Self::Failed,
            6 => Self::Discarded,
            _ => return None,
        })
    }
}

/// One line of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceEntry {
    /// Counts this kernel's events from 0.
    pub number: u64,
    /// What happened.
    pub event: Event,
    /// For [`Event::Failed`], why; 0 otherwise: a [`DeliveryStatus`] as a number.
    pub status: u8,
    /// Hops the message had made.
    pub hops: u8,
    /// Which message.
    pub id: MessageId,
    /// When, on this kernel's hybrid clock.
    pub at: Timestamp,
}

shared_struct! {
    struct Entry[][] {
        /// 0: never used; `2 n + 1`: event `n` is being written; `2 n + 2`: event `n` stands here.
        stamp: AtomicU64,
        /// source << 32 | hops << 16 | status << 8 | event
        what: AtomicU64,
        sequence: AtomicU64,
        wall_time_ns: AtomicU64,
        logical: AtomicU64,
    }
}

shared_struct! {
    /// One kernel's trace.
    #[repr(align(128))]
    pub struct Trace[][] {
        entries: [Entry; TRACE_EVENTS],
    }
}

impl Trace {
    /// Writes event `number`. Only the kernel's own endpoint calls this.
    pub(crate) fn write(&self, entry: &TraceEntry) {
        let slot = &self.entries[(entry.number % TRACE_EVENTS as u64) as usize];
        let what = u64::from(entry.id.source.raw()) << 32
            | u64::from(entry.hops) << 16
            | u64::from(entry.status) << 8
            | entry.event as u64;
        // Relaxed: made visible by each word below.
        slot.stamp.store(entry.number.wrapping_mul(2).wrapping_add(1), Relaxed);
        for (word, value) in [
            (&slot.what, what),
            (&slot.sequence, entry.id.sequence),
            (&slot.wall_time_ns, entry.at.wall_time_ns),
            (&slot.logical, u64::from(entry.at.logical)),
        ] {
            // Release [trace-began]: the odd stamp above is visible to a reader of this word.
            word.store(value, Release);
        }
        // Release [trace-ended]: the words above are visible to a reader of this stamp.
        slot.stamp.store(entry.number.wrapping_mul(2).wrapping_add(2), Release);
    }

    /// The entries that stand whole at this moment, unordered: sort by `number`.
    pub fn read(&self) -> impl Iterator<Item = TraceEntry> + '_ {
        self.entries.iter().filter_map(|slot| {
            // Acquire [trace-ended]: the words of that event are visible.
            let stamp = slot.stamp.load(Acquire);
            if stamp == 0 || stamp % 2 == 1 {
                return None;
            }
            // Acquire [trace-began]: having read a word of a later event, the stamp below is seen changed.
            let what = slot.what.load(Acquire);
            let sequence = slot.sequence.load(Acquire);
            let wall_time_ns = slot.wall_time_ns.load(Acquire);
            let logical = slot.logical.load(Acquire);
            // Relaxed: the loads above keep it in its place.
            if slot.stamp.load(Relaxed) != stamp {
                return None;
            }
            Some(TraceEntry {
                number: stamp / 2 - 1,
                event: Event::from_bits(what & 0xff)?,
                status: (what >> 8) as u8,
                hops: (what >> 16) as u8,
                id: MessageId { source: KernelId::from_raw((what >> 32) as u32), sequence },
                at: Timestamp { wall_time_ns, logical: logical as u32 },
            })
        })
    }
}

impl TraceEntry {
    /// Why the message's way ended here, for [`Event::Failed`].
    #[must_use]
    pub fn failure(&self) -> Option<DeliveryStatus> {
        DeliveryStatus::from_number(self.status).filter(|_| self.event == Event::Failed)
    }
}
