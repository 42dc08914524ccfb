//! What a kernel did last, readable by others while it runs or hangs.
//!
//! A ring of the last [`TRACE_EVENTS`] events per kernel, overwritten in turn. One writer, any number of readers that
//! never disturb it.
//!
//! 1. All words are written by the kernel's endpoint, and read by anyone, in whatever order the memory makes of it: no
//!    access has an order, so an event costs the kernel nothing but its stores, even where readers sit across a bus.
//! 2. A reader that caught words of two events finds that `check`, a hash of all others, does not fit, and leaves the
//!    event out. One wrong word never fits; several do by a chance of 2⁻⁶⁴.

use super::DeliveryStatus;
use crate::hlc::Timestamp;
use crate::message::{KernelId, MessageId};
use crate::sync::Ordering::Relaxed;
use crate::sync::{AtomicU64, shared_struct};

/// Events that are kept per kernel.
pub const TRACE_EVENTS: usize = if cfg!(k2k_loom) { 2 } else { 64 };

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
    /// Deferred because the next hop was full.
    Deferred = 4,
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
            4 => Self::Deferred,
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
        /// 0: never used; `n + 1`: event `n`.
        number: AtomicU64,
        /// source << 16 | hops << 8 | status << 4 | event
        what: AtomicU64,
        sequence: AtomicU64,
        wall_time_ns: AtomicU64,
        logical: AtomicU64,
        check: AtomicU64,
    }
}

impl Entry {
    /// Everything but the check, in order.
    const fn words(&self) -> [&AtomicU64; 5] {
        [&self.number, &self.what, &self.sequence, &self.wall_time_ns, &self.logical]
    }
}

/// The hash of a record's words. Each step is a bijection of the word and of what came before.
pub(super) fn check(words: &[u64; 5]) -> u64 {
    // 2⁶⁴ divided by the golden ratio.
    let [a, b, c, d, e] = *words;
    let step = |hash: u64, word: u64| (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    step(step(step(step(step(0, a), b), c), d), e)
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
        let what = entry.id.source.raw() << 16
            | u64::from(entry.hops) << 8
            | u64::from(entry.status & 0xf) << 4
            | entry.event as u64;
        let values =
            [entry.number.wrapping_add(1), what, entry.id.sequence, entry.at.wall_time_ns, u64::from(entry.at.logical)];
        // Relaxed: rule 2 makes readers independent of order. Index by index: an iterator over both keeps them in a
        // GPU's local memory.
        let words = slot.words();
        for i in 0..values.len() {
            words[i].store(values[i], Relaxed);
        }
        slot.check.store(check(&values), Relaxed);
    }

    /// The entries that stand whole at this moment, unordered: sort by `number`.
    pub fn read(&self) -> impl Iterator<Item = TraceEntry> + '_ {
        self.entries.iter().filter_map(|slot| {
            // Relaxed: as in `write`.
            let values = slot.words().map(|word| word.load(Relaxed));
            if slot.check.load(Relaxed) != check(&values) {
                return None;
            }
            let [number, what, sequence, wall_time_ns, logical] = values;
            Some(TraceEntry {
                number: number.checked_sub(1)?,
                event: Event::from_bits(what & 0xf)?,
                status: (what >> 4 & 0xf) as u8,
                hops: (what >> 8) as u8,
                id: MessageId { source: KernelId::from_raw(what >> 16), sequence },
                at: Timestamp { wall_time_ns, logical: logical as u16 },
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

#[cfg(test)]
#[cfg(not(k2k_loom))]
mod tests {
    use super::*;

    #[test]
    fn an_event_of_which_any_bit_is_anothers_is_left_out() {
        // SAFETY: `Shared`: zero is the idle state.
        let trace: Trace = unsafe { core::mem::zeroed() };
        assert_eq!(trace.read().count(), 0, "empty");
        let entry = TraceEntry {
            number: 0xfeed_5a5a_0ff0_3cc3,
            event: Event::Failed,
            status: DeliveryStatus::Timeout as u8,
            hops: 3,
            id: MessageId { source: KernelId::new(7, 0x9999), sequence: 0x1234_5678_9abc_def0 },
            at: Timestamp { wall_time_ns: 0x0f1e_2d3c_4b5a_6978, logical: 0xa5c3 },
        };
        trace.write(&entry);
        assert_eq!(trace.read().next(), Some(entry));
        assert_eq!(entry.failure(), Some(DeliveryStatus::Timeout));
        assert_eq!(TraceEntry { event: Event::Sent, ..entry }.failure(), None);
        let slot = &trace.entries[(entry.number % TRACE_EVENTS as u64) as usize];
        for word in slot.words().into_iter().chain([&slot.check]) {
            let whole = word.load(Relaxed);
            for bit in 0..64 {
                word.store(whole ^ 1 << bit, Relaxed);
                assert_eq!(trace.read().count(), 0, "bit {bit}");
            }
            word.store(whole, Relaxed);
        }
        assert_eq!(trace.read().next(), Some(entry));
    }
}
