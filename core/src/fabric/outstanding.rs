//! Messages that have left the domain: which of them a proxy still has to settle.
//!
//! A [gateway](crate::gateway) takes a message out of a proxy's inbox, sends it across its link, and settles and counts
//! it when the remote domain has answered. Until then the message's receipt says that a gateway holds it. But its
//! sender may need the receipt's entry for a later message. So each proxy also keeps a *record* of each message that it
//! holds, `SLOTS` at most, and a dead gateway's messages are settled and counted in any case.
//!
//! A record is written after the receipt is marked as in transit and before the [note](super::hand) of the message is
//! closed, and emptied after the receipt is settled and before the message is counted, while its note is open. So
//! wherever a gateway dies, a message that it has taken is named by a note, by a record, or by both. The successor of
//! the proxy does what the note says, without the record, and then settles what the records name as `Unanswered`: it
//! may have been received.
//!
//! 1. Written by the proxy's endpoint, and read by its successor. Onlookers count them.
//!
//! On a GPU there are no records: its kernels do not die alone ([`DIES_ALONE`]).

use super::FabricRef;
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
    pub(crate) struct Outstanding[const SLOTS: usize,][SLOTS,] {
        records: [Record; SLOTS],
    }
}

impl<const SLOTS: usize> Outstanding<SLOTS> {
    /// The size of a record.
    #[cfg(not(k2k_loom))]
    pub(crate) const RECORD_SIZE: usize = size_of::<Record>();
}

/// One kernel's records: of the type `Outstanding`, as many as the shape says.
pub(crate) enum Records {}
pub(crate) type OutstandingView<'f, Sh> = Part<'f, Sh, Records>;

impl<'f, Sh: Shape> OutstandingView<'f, Sh> {
    fn record(&self, at: usize) -> &'f Record {
        // SAFETY: below the number of slots, a power of two.
        unsafe { self.item(0, at & self.shape.mask()) }
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
        // Relaxed, both: rule 1; `index-left`, or the caller of `take_over`, made a predecessor's stores visible.
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

#[cfg(test)]
#[cfg(not(k2k_loom))]
mod tests {
    use super::*;
    use crate::shape::Fixed;

    #[test]
    fn a_successor_finds_what_was_put_and_not_removed() {
        // SAFETY: `Shared`: zero is the idle state.
        let storage: Outstanding<4> = unsafe { core::mem::zeroed() };
        // SAFETY: of this shape.
        let outstanding: OutstandingView<'_, Fixed<1, 4, 0>> =
            unsafe { Part::at(core::ptr::NonNull::from_ref(&storage).cast(), Fixed::SHAPE) };
        let [first, second] = [0, 3];
        outstanding.put(first, 7, 1);
        outstanding.put(second, 9, 2);
        outstanding.remove(first);
        let mut found = outstanding.messages();
        assert_eq!((found.next(), found.next()), (Some((second, 9, 2)), None));
    }
}
