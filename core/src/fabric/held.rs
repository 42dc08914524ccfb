//! Messages that have left the domain: which of them a proxy still has to settle.
//!
//! A [gateway](crate::gateway) takes a message out of a proxy's inbox, sends it across its link, and settles and counts it
//! when the remote domain has answered. Until then the message's receipt says that a gateway holds it. But its sender may
//! need the receipt's entry for a later message. So each proxy also keeps a *record* of each message that it holds,
//! `SLOTS` at most, and a dead gateway's messages are settled and counted in any case.
//!
//! A record is written after the receipt is held and before the [note](super::hand) of the message is closed, and emptied
//! after the receipt is settled and before the message is counted, while its note is open. So wherever a gateway dies,
//! a message that it has taken is named by a note, by a record, or by both. The successor of the proxy does what the note
//! says, without the record, and then settles what the records name as `Unanswered`: it may have been received.
//!
//! 1. Written by the proxy's endpoint, and read by its successor. Onlookers count them.
//!
//! On a GPU there are no records: its kernels do not die alone ([`DIES_ALONE`]).

use super::FabricRef;
use crate::place::Place;
use crate::shape::{Part, Shape};
use crate::sync::Ordering::Relaxed;
use crate::sync::{AtomicU64, DIES_ALONE, keep_order, shared_struct};

shared_struct! {
    /// Names a message.
    struct Record[][] {
        /// 0: there is none.
        sequence: AtomicU64,
        source: AtomicU64,
    }
}

shared_struct! {
    /// One kernel's records.
    #[repr(align(128))]
    pub(crate) struct Held[const SLOTS: usize,][SLOTS,] {
        records: [Record; SLOTS],
    }
}

impl<const SLOTS: usize> Held<SLOTS> {
    /// The size of a record.
    #[cfg(not(k2k_loom))]
    pub(crate) const RECORD_SIZE: usize = size_of::<Record>();
}

/// One kernel's records: of the type `Held`, as many as the shape says.
pub(crate) enum Records {}
pub(crate) type HeldView<'f, Sh> = Part<'f, Sh, Records>;

impl<'f, Sh: Shape> HeldView<'f, Sh> {
    fn record(&self, at: usize) -> &'f Record {
        // SAFETY: below the number of slots, a power of two.
        unsafe { self.item(0, at & (self.shape.slots() - 1)) }
    }

    /// Records a message.
    #[inline]
    pub(crate) fn put(&self, at: usize, source: u16, sequence: u64) {
        if !DIES_ALONE {
            return;
        }
        let record = self.record(at);
        // Relaxed, both: rule 1. `sequence` last: from here on there is a record.
        record.source.store(u64::from(source), Relaxed);
        keep_order();
        record.sequence.store(sequence, Relaxed);
        keep_order();
    }

    /// Empties a record.
    #[inline]
    pub(crate) fn remove(&self, at: usize) {
        if !DIES_ALONE {
            return;
        }
        keep_order();
        // Relaxed: rule 1.
        self.record(at).sequence.store(0, Relaxed);
        keep_order();
    }

    /// What the records name: where, the kernel index of the source (not checked), and the sequence.
    pub(crate) fn messages(&self) -> impl Iterator<Item = (usize, usize, u64)> + use<'f, Sh> {
        // Relaxed, both: rule 1; `place-left`, or the caller of `take_over`, made a predecessor's stores visible.
        let records = *self;
        let read = move |at| {
            let record = records.record(at);
            (at, record.source.load(Relaxed) as usize, record.sequence.load(Relaxed))
        };
        (0..self.shape.slots()).map(read).filter(|&(_, _, sequence)| sequence != 0)
    }

    /// How many of these messages have a receipt whose entry tells of a later message.
    pub(crate) fn overwritten(&self, fabric: &FabricRef<'f, Sh>) -> u64 {
        let is_overwritten = |&(_, source, sequence): &(_, usize, u64)| {
            fabric.index(source).is_some_and(|source| fabric.receipts(source).tells_of_later(sequence))
        };
        self.messages().filter(is_overwritten).count() as u64
    }
}

/// The endpoint's half: which records are free.
#[derive(Clone, Copy)]
pub(crate) struct HeldState<const SLOTS: usize> {
    /// All records, those in use first.
    order: [Place<SLOTS>; SLOTS],
    len: usize,
}

impl<const SLOTS: usize> HeldState<SLOTS> {
    pub(crate) fn new() -> Self {
        let mut order = [Place::FIRST; SLOTS];
        for (at, place) in order.iter_mut().zip(Place::all()) {
            *at = place;
        }
        Self { order, len: 0 }
    }

    /// Messages that are held.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// A free record, if there is one. It stays free until [`take`](Self::take).
    pub(crate) fn free(&self) -> Option<Place<SLOTS>> {
        self.order.get(self.len).copied()
    }

    /// Takes the record that [`free`](Self::free) has named.
    pub(crate) const fn take(&mut self) {
        self.len += 1;
    }

    /// Gives a record back.
    pub(crate) fn give_back(&mut self, record: Place<SLOTS>) {
        self.len = self.len.saturating_sub(1);
        if let Some(free) = self.order.get_mut(self.len) {
            *free = record;
        }
    }
}

#[cfg(all(test, not(k2k_loom)))]
mod tests {
    use super::*;
    use crate::shape::Fixed;

    #[test]
    fn every_record_is_free_taken_and_given_back_once() {
        let mut state = HeldState::<4>::new();
        let mut taken = [0; 4];
        for _ in 0..4 {
            taken[state.free().unwrap().index()] += 1;
            state.take();
        }
        assert_eq!((taken, state.free(), state.len()), ([1; 4], None, 4));
        for index in [2, 0] {
            state.give_back(Place::new(index).unwrap());
        }
        for index in [0, 2] {
            assert_eq!(state.free(), Place::new(index));
            state.take();
        }
        assert_eq!(state.free(), None);
    }

    #[test]
    fn a_successor_finds_what_was_put_and_not_removed() {
        // SAFETY: `Shared`: zero is the idle state.
        let storage: Held<4> = unsafe { core::mem::zeroed() };
        // SAFETY: of this shape.
        let held: HeldView<'_, Fixed<1, 4, 0>> =
            unsafe { Part::at(core::ptr::NonNull::from_ref(&storage).cast(), Fixed::SHAPE) };
        let [first, second] = [0, 3];
        held.put(first, 7, 1);
        held.put(second, 9, 2);
        held.remove(first);
        let mut found = held.messages();
        assert_eq!((found.next(), found.next()), (Some((second, 9, 2)), None));
    }
}
