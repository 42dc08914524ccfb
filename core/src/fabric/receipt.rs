//! Delivery receipts: what became of each message, decided once.
//!
//! Each sender has a table of receipts, indexed by sequence. One word of an entry decides:
//!
//! ```text
//!    63                             4       3      2      0
//!   +--------------------------------+-----------+--------+
//!   |  tag: sequence and generation  | by sender | status |     0: no message yet
//!   +--------------------------------+-----------+--------+
//! ```
//!
//! The tag is the low 60 bits of the sequence, its upper 16 combined (exclusive or) with the sender's generation: the owners of a
//! place need not continue one another's sequences ([proxies](crate::gateway) take theirs from elsewhere), and mail of
//! an earlier one may still be on its way.
//!
//! The sender writes (sequence, `Pending`) before it sends. Whoever ends the message's way compare-exchanges that very
//! value to a final status: the receiver to `Delivered`, a forwarder to `MaxHopsExceeded`, `NotFound`, `QueueFull` or
//! `Timeout`, the sender itself to `Timeout` when the deadline has passed or to `NotFound` when the receiver has left.
//! The first one decides; whoever comes later finds another value and gives way. So no message is both delivered and
//! timed out.
//!
//! The table is as long as the fabric has slots for one receiver, and old entries are overwritten: nothing grows. A
//! message whose entry was overwritten is decided, and counted, by whoever holds it; its sender can no longer time it out.
//!
//! If the sender had, that verdict must not be counted a second time when the message turns up later. Hence *by sender*:
//! set with the sender's verdict, cleared by the holder that finds the message. A sender that overwrites an entry with the
//! mark takes its count back, and leaves the message to its holder like any other. Both do so with a compare-exchange, so
//! exactly one of them has it. A holder that decides alone looks at the clock once more: what was said of the message
//! before, that it timed out, is still true.
//!
//! A message that leaves the domain through a [gateway](crate::gateway) is decided on the other side, where this word cannot be
//! reached. So the gateway *holds* it: it moves the word from `Pending` to `HELD`, which still reads as `Pending`, but which
//! only the gateway moves on, when it is told what became of the message. Its sender can no longer give it up.
//!
//! 1. `word`: stored by the sender; compare-exchanged by the message's holder and the sender.
//! 2. `deadline_ns`, `destination`, `collected`: written and read by the sender only.
//!
//! No ordering is needed: the word alone decides, and nothing else is published through it. The `Pending` entry itself
//! becomes visible to the receiver with the message (`slot-published`).

use crate::message::{KernelId, MessageId};
use crate::sync::Ordering::Relaxed;
use crate::sync::{AtomicU32, AtomicU64, Scope, prefetch_write, shared_struct};
use core::fmt;

/// What became of a message. The numbers stand in shared memory and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DeliveryStatus {
    /// On its way, or waiting in an inbox.
    Pending = 1,
    /// The receiver has taken it out of its inbox.
    Delivered = 2,
    /// There is no such kernel (any more), or the next hop on the way to it has left.
    NotFound = 3,
    /// A forwarder had no room for it.
    QueueFull = 4,
    /// Its deadline passed before it was received.
    Timeout = 5,
    /// It was forwarded as often as it may be and was not there yet.
    MaxHopsExceeded = 6,
}

impl DeliveryStatus {
    const fn from_bits(bits: u64) -> Option<Self> {
        Some(match bits {
            1 => Self::Pending,
            2 => Self::Delivered,
            3 => Self::NotFound,
            4 => Self::QueueFull,
            5 => Self::Timeout,
            6 => Self::MaxHopsExceeded,
            _ => return None,
        })
    }

    /// The status that a number in a trace stands for.
    pub(crate) const fn from_number(number: u8) -> Option<Self> {
        Self::from_bits(number as u64)
    }
}

impl fmt::Display for DeliveryStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::NotFound => "destination not found",
            Self::QueueFull => "queue full",
            Self::Timeout => "timed out",
            Self::MaxHopsExceeded => "hop limit exceeded",
        })
    }
}

/// A message and what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryReceipt {
    /// The message.
    pub id: MessageId,
    /// Its status when the receipt was read. Only `Pending` can still change.
    pub status: DeliveryStatus,
}

/// Why there is no receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReceiptError {
    /// The sender has sent so many messages since that the entry tells of a later one.
    Overwritten,
    /// No message of that name was sent.
    Unknown,
}

impl fmt::Display for ReceiptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Overwritten => {
                "the receipt was overwritten by a later message: a sender's table holds KERNELS x SLOTS receipts"
            }
            Self::Unknown => "no message of that name was sent",
        })
    }
}

impl core::error::Error for ReceiptError {}

/// Who decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// This call did; it counts the message.
    Decided,
    /// This call did, because the receipt was overwritten. Its sender may have been told of a timeout before.
    Alone,
    /// Someone else had, with this result; whoever did has counted it.
    Lost,
}

shared_struct! {
    /// One message's fate.
    pub(crate) struct Receipt[][] in S {
        word: AtomicU64<S>,
        deadline_ns: AtomicU64<S>,
        destination: AtomicU32<S>,
        /// For a proxy's messages: 1 when its gateway knows how this one has ended.
        collected: AtomicU32<S>,
    }
}

shared_struct! {
    /// A sender's receipts.
    #[repr(align(128))]
    pub(crate) struct Receipts[const KERNELS: usize, const SLOTS: usize,][KERNELS, SLOTS,] in S {
        entries: [[Receipt<S>; SLOTS]; KERNELS],
    }
}

/// Receipts ahead of the current one whose lines are asked for.
const AHEAD: u64 = 4;

/// The sender has decided this, and nobody has found the message since.
const BY_SENDER: u64 = 1 << 3;
const STATUS: u64 = BY_SENDER - 1;
const PENDING: u64 = DeliveryStatus::Pending as u64;
/// In the place of a status: pending, and with a gateway.
const HELD: u64 = 7;
/// Where the generation begins in a tag.
const GENERATION_SHIFT: u32 = 44;

const fn tag(id: MessageId) -> u64 {
    (id.sequence ^ (id.source.generation() as u64) << GENERATION_SHIFT) << 4 >> 4
}

const fn word(id: MessageId, status: u64) -> u64 {
    tag(id) << 4 | status
}

/// The generation in a word, if its sequence is near to another.
const fn generation_in(word: u64, sequence: u64) -> u16 {
    ((word >> 4 ^ sequence) >> GENERATION_SHIFT) as u16
}

/// Whether a word tells of a message of the same owner with a greater sequence, or of one of a later owner.
const fn tells_of_later(word: u64, id: MessageId) -> bool {
    let generation = generation_in(word, id.sequence);
    match generation.wrapping_sub(id.source.generation()) {
        0 => word >> 4 ^ (generation as u64) << GENERATION_SHIFT > id.sequence << 4 >> 4,
        later => later < 1 << 15,
    }
}

/// Whether a word tells of a message of that sequence, of whichever owner of the place.
const fn tells_of(word: u64, sequence: u64) -> bool {
    (word >> 4 ^ sequence) << (64 - GENERATION_SHIFT) == 0
}

impl<const KERNELS: usize, const SLOTS: usize, S: Scope> Receipts<KERNELS, SLOTS, S> {
    /// How many messages back a receipt can be asked for.
    pub(crate) const CAPACITY: u64 = (KERNELS * SLOTS) as u64;

    #[inline(always)]
    fn at(&self, sequence: u64) -> &Receipt<S> {
        // Both divisors are constants, and the second is a power of two.
        let i = (sequence % Self::CAPACITY) as usize;
        &self.entries[i / SLOTS][i % SLOTS]
    }

    /// Asks for the line of a receipt ahead, which the next messages of the same sender will need: the sender's stores leave
    /// its processor in order, and a compare-exchange waits for its line with everything behind it.
    #[inline(always)]
    fn reach_ahead(&self, sequence: u64) {
        if Self::CAPACITY > 2 * AHEAD {
            prefetch_write(core::ptr::from_ref(self.at(sequence.wrapping_add(AHEAD))).cast());
        }
    }

    /// Opens the receipt of a message that is about to be sent, over an older one, on which the sender has no verdict
    /// of its own (see [`retract`](Self::retract)).
    #[inline(always)]
    pub(crate) fn open(&self, id: MessageId, destination: KernelId, deadline_ns: u64) {
        self.reach_ahead(id.sequence);
        let entry = self.at(id.sequence);
        // Relaxed: `deadline_ns` and `destination` are this sender's own; `word` becomes visible with the message.
        entry.deadline_ns.store(deadline_ns, Relaxed);
        entry.destination.store(destination.raw(), Relaxed);
        entry.word.store(word(id, PENDING), Relaxed);
    }

    /// For the sender, before it opens the receipt of `sequence`: empties the entry if it holds a verdict of the sender's
    /// on an older message that nobody has found yet, and returns it. It no longer counts: who finds the message decides.
    #[cold]
    pub(crate) fn retract(&self, sequence: u64) -> Option<DeliveryStatus> {
        let entry = self.at(sequence);
        // Relaxed: the word alone decides. Relaxed on failure: the holder was faster, and keeps the verdict as it is.
        let found = entry.word.load(Relaxed);
        let retracted = found & BY_SENDER != 0 && entry.word.compare_exchange(found, 0, Relaxed, Relaxed).is_ok();
        if retracted { DeliveryStatus::from_bits(found & STATUS) } else { None }
    }

    /// For the holder of a message: ends its way, unless the sender has already.
    #[inline(always)]
    pub(crate) fn decide(&self, id: MessageId, status: DeliveryStatus) -> Verdict {
        self.reach_ahead(id.sequence);
        self.advance(id, PENDING, status as u64)
    }

    /// For a gateway that holds a message: takes it out of its sender's hands, unless the sender has ended its way already.
    pub(crate) fn hold(&self, id: MessageId) -> Verdict {
        self.advance(id, PENDING, HELD)
    }

    /// For the gateway that [holds](Self::hold) a message: ends its way.
    pub(crate) fn settle(&self, id: MessageId, status: DeliveryStatus) -> Verdict {
        self.advance(id, HELD, status as u64)
    }

    #[inline(always)]
    fn advance(&self, id: MessageId, from: u64, to: u64) -> Verdict {
        let current = word(id, from);
        // Relaxed: the word alone decides. Relaxed on failure: the value found says all.
        match self.at(id.sequence).word.compare_exchange(current, word(id, to), Relaxed, Relaxed) {
            Ok(_) => Verdict::Decided,
            // The same message, already ended by someone else.
            Err(found) if found >> 4 == current >> 4 => self.give_way(id.sequence, found),
            // Overwritten: the message's holder decides alone.
            Err(_) => Verdict::Alone,
        }
    }

    /// Lets a verdict stand that is there already. If it is the sender's, says that the message was found.
    #[cold]
    fn give_way(&self, sequence: u64, found: u64) -> Verdict {
        // Relaxed, both: as in `advance`.
        let stands = found & BY_SENDER == 0
            || self.at(sequence).word.compare_exchange(found, found & !BY_SENDER, Relaxed, Relaxed).is_ok();
        // Only `retract` changes a word with the mark.
        if stands { Verdict::Lost } else { Verdict::Alone }
    }

    /// For the sender: the word of a message whose way has not ended, if it is still there.
    pub(crate) fn pending(&self, sequence: u64) -> Option<u64> {
        // Relaxed: see the module's page.
        let found = self.at(sequence).word.load(Relaxed);
        (tells_of(found, sequence) && matches!(found & STATUS, PENDING | HELD)).then_some(found)
    }

    /// For the sender: ends the way of a message that can no longer arrive, unless its holder has already. `pending` is the
    /// word that [`pending`](Self::pending) has found; that of a message held by a gateway stays as it is.
    pub(crate) fn give_up(&self, sequence: u64, pending: u64, status: DeliveryStatus) -> Verdict {
        if pending & STATUS != PENDING {
            return Verdict::Lost;
        }
        let verdict = pending & !STATUS | status as u64 | BY_SENDER;
        // Relaxed, both: as in `advance`. Only this sender overwrites entries, so any other value is the holder's.
        match self.at(sequence).word.compare_exchange(pending, verdict, Relaxed, Relaxed) {
            Ok(_) => Verdict::Decided,
            Err(_) => Verdict::Lost,
        }
    }

    /// For a proxy: whether the entry for `id` holds the receipt of a message of its own whose end its gateway does not know yet, and
    /// which is not at least `old` sequences older.
    pub(crate) fn is_in_use(&self, id: MessageId, old: u64) -> bool {
        let entry = self.at(id.sequence);
        // Relaxed, both: only the sender opens entries, and `collected` is its own.
        let found = entry.word.load(Relaxed);
        let generation = id.source.generation();
        let own = generation_in(found, id.sequence) == generation && entry.collected.load(Relaxed) == 0;
        let behind = id.sequence.wrapping_sub(found >> 4 ^ u64::from(generation) << GENERATION_SHIFT);
        own && (behind < old || behind.cast_signed() < 0)
    }

    /// For a proxy: notes whether its gateway knows how the message has ended.
    pub(crate) fn set_collected(&self, sequence: u64, collected: bool) {
        // Relaxed: this sender's own.
        self.at(sequence).collected.store(u32::from(collected), Relaxed);
    }

    /// For the sender: empties the entry of a message that could not be sent after all.
    #[cold]
    pub(crate) fn void(&self, sequence: u64) {
        // Relaxed: nobody else has seen the entry.
        self.at(sequence).word.store(0, Relaxed);
    }

    /// Reads a receipt.
    pub(crate) fn read(&self, id: MessageId) -> Result<DeliveryStatus, ReceiptError> {
        // Relaxed: see the module's page.
        let found = self.at(id.sequence).word.load(Relaxed);
        let status = match found & STATUS {
            HELD => Some(DeliveryStatus::Pending),
            bits => DeliveryStatus::from_bits(bits),
        };
        match status {
            _ if id.sequence == 0 => Err(ReceiptError::Unknown),
            Some(status) if found >> 4 == tag(id) => Ok(status),
            Some(_) if tells_of_later(found, id) => Err(ReceiptError::Overwritten),
            _ => Err(ReceiptError::Unknown),
        }
    }

    /// For the sender: deadline and destination of a message whose receipt is still there.
    pub(crate) fn terms(&self, sequence: u64) -> (u64, KernelId) {
        let entry = self.at(sequence);
        // Relaxed: written by the caller itself, or by its predecessor before the place was handed over.
        (entry.deadline_ns.load(Relaxed), KernelId::from_raw(entry.destination.load(Relaxed)))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn status_numbers_are_pinned() {
        let all = [
            (DeliveryStatus::Pending, 1),
            (DeliveryStatus::Delivered, 2),
            (DeliveryStatus::NotFound, 3),
            (DeliveryStatus::QueueFull, 4),
            (DeliveryStatus::Timeout, 5),
            (DeliveryStatus::MaxHopsExceeded, 6),
        ];
        for (status, number) in all {
            assert_eq!(status as u64, number);
            assert_eq!(DeliveryStatus::from_bits(number), Some(status));
        }
        assert_eq!(DeliveryStatus::from_bits(0), None);
        assert_eq!(DeliveryStatus::from_bits(7), None);
    }

    fn id(sequence: u64) -> MessageId {
        MessageId { source: KernelId::new(0, 1), sequence }
    }

    fn give_up(table: &Receipts<1, 4>, sequence: u64, status: DeliveryStatus) -> Verdict {
        table.pending(sequence).map_or(Verdict::Lost, |pending| table.give_up(sequence, pending, status))
    }

    fn table() -> Receipts<1, 4> {
        // SAFETY: `Shared`: zero is the idle state.
        unsafe { core::mem::zeroed() }
    }

    #[test]
    fn the_first_decides() {
        let table = table();
        table.open(id(1), KernelId::new(0, 1), 10);
        assert_eq!(table.read(id(1)), Ok(DeliveryStatus::Pending));
        assert_eq!(table.decide(id(1), DeliveryStatus::Timeout), Verdict::Decided);
        assert_eq!(table.decide(id(1), DeliveryStatus::Delivered), Verdict::Lost);
        assert_eq!(table.read(id(1)), Ok(DeliveryStatus::Timeout));
    }

    #[test]
    fn an_overwritten_receipt_says_so_and_leaves_the_decision_to_the_holder() {
        let table = table();
        table.open(id(1), KernelId::new(0, 1), 10);
        table.open(id(5), KernelId::new(0, 1), 10);
        assert_eq!(table.read(id(1)), Err(ReceiptError::Overwritten));
        assert_eq!(table.decide(id(1), DeliveryStatus::Delivered), Verdict::Alone);
        assert_eq!(table.read(id(5)), Ok(DeliveryStatus::Pending));
    }

    #[test]
    fn a_senders_verdict_counts_for_the_sender_or_for_the_holder_but_not_for_both() {
        let table = table();
        table.open(id(1), KernelId::new(0, 1), 10);
        assert_eq!(table.retract(5), None, "nothing of the sender's");
        assert_eq!(give_up(&table, 1, DeliveryStatus::Timeout), Verdict::Decided);
        assert_eq!(give_up(&table, 1, DeliveryStatus::NotFound), Verdict::Lost);
        assert_eq!(table.read(id(1)), Ok(DeliveryStatus::Timeout));
        // Found before the entry is needed again: the sender's verdict stands.
        assert_eq!(table.decide(id(1), DeliveryStatus::Delivered), Verdict::Lost);
        assert_eq!((table.read(id(1)), table.retract(5)), (Ok(DeliveryStatus::Timeout), None));
        // Found afterwards: the holder's does.
        table.open(id(5), KernelId::new(0, 1), 10);
        assert_eq!(give_up(&table, 5, DeliveryStatus::NotFound), Verdict::Decided);
        assert_eq!(table.retract(9), Some(DeliveryStatus::NotFound));
        assert_eq!(table.retract(9), None);
        table.open(id(9), KernelId::new(0, 1), 10);
        assert_eq!(table.decide(id(5), DeliveryStatus::Timeout), Verdict::Alone);
        assert_eq!(table.read(id(9)), Ok(DeliveryStatus::Pending));
    }

    #[test]
    fn a_message_never_sent_is_unknown() {
        let table = table();
        assert_eq!(table.read(id(0)), Err(ReceiptError::Unknown));
        assert_eq!(table.read(id(3)), Err(ReceiptError::Unknown));
        table.open(id(1), KernelId::new(0, 1), 10);
        assert_eq!(table.read(id(5)), Err(ReceiptError::Unknown));
        table.open(id(4), KernelId::new(0, 1), 10);
        assert_eq!(table.read(id(0)), Err(ReceiptError::Unknown));
    }

    #[test]
    fn a_held_message_is_pending_until_its_holder_settles_it() {
        let table = table();
        table.open(id(1), KernelId::new(0, 1), 10);
        assert_eq!(table.hold(id(1)), Verdict::Decided);
        assert_eq!(table.read(id(1)), Ok(DeliveryStatus::Pending));
        assert!(table.is_in_use(id(5), 5));
        assert!(!table.is_in_use(id(5), 4), "old enough");
        assert_eq!(give_up(&table, 1, DeliveryStatus::Timeout), Verdict::Lost);
        assert_eq!(table.decide(id(1), DeliveryStatus::Delivered), Verdict::Lost);
        assert_eq!(table.settle(id(1), DeliveryStatus::QueueFull), Verdict::Decided);
        assert_eq!((table.read(id(1)), table.is_in_use(id(5), 5)), (Ok(DeliveryStatus::QueueFull), true));
        table.set_collected(1, true);
        assert!(!table.is_in_use(id(5), 5));
        table.open(id(5), KernelId::new(0, 1), 10);
        assert_eq!(give_up(&table, 5, DeliveryStatus::Timeout), Verdict::Decided);
        assert_eq!(table.hold(id(5)), Verdict::Lost, "given up before");
        table.open(id(9), KernelId::new(0, 1), 10);
        assert_eq!(table.hold(id(9)), Verdict::Decided);
        table.open(id(13), KernelId::new(0, 1), 10);
        assert_eq!(table.settle(id(9), DeliveryStatus::Delivered), Verdict::Alone, "overwritten while held");
        table.void(13);
        assert_eq!(table.read(id(13)), Err(ReceiptError::Unknown));
    }

    #[test]
    fn the_same_sequence_of_another_owner_is_another_message() {
        let table = table();
        let later = MessageId { source: KernelId::new(0, 2), sequence: 1 };
        table.open(id(1), KernelId::new(0, 1), 10);
        assert!(!table.is_in_use(later, 5));
        table.open(later, KernelId::new(0, 1), 10);
        assert_eq!(table.decide(id(1), DeliveryStatus::Delivered), Verdict::Alone);
        assert_eq!(
            (table.read(id(1)), table.read(later)),
            (Err(ReceiptError::Overwritten), Ok(DeliveryStatus::Pending))
        );
        // The generation wraps from 65535 to 1.
        let last = MessageId { source: KernelId::new(0, u16::MAX), sequence: 1 };
        assert_eq!(table.read(last), Err(ReceiptError::Overwritten));
        assert_eq!(table.read(MessageId { source: KernelId::new(0, 3), sequence: 1 }), Err(ReceiptError::Unknown));
    }

    #[test]
    fn sequences_beyond_the_tag_and_below_the_generation_are_told_apart() {
        let table = table();
        for sequence in [1 << 44, (1 << 60) - 3, 3 << 50 | 1] {
            table.open(id(sequence), KernelId::new(0, 1), 10);
            assert_eq!(table.read(id(sequence)), Ok(DeliveryStatus::Pending));
            assert!(table.pending(sequence).is_some() && table.is_in_use(id(sequence), 1));
            assert_eq!(table.decide(id(sequence), DeliveryStatus::Delivered), Verdict::Decided);
        }
    }
}
