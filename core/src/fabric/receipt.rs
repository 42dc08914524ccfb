//! Delivery receipts: what became of each message, decided once.
//!
//! Each sender has a table, indexed by sequence, with two things per entry: the *terms* on which its latest message was
//! sent, which the sender writes, and a *word* that says which message of the entry has ended last, and how. The word
//! is the one that decides:
//!
//! ```text
//!    63         48                 4       3      2      0
//!   +-------------+-----------------+-----------+--------+
//!   | generation  |    sequence     | by sender | status |     0: none has ended yet
//!   +-------------+-----------------+-----------+--------+
//! ```
//!
//! Sequences modulo 2⁴⁴. The generation is the sender's: the owners of a place need not continue one another's
//! sequences ([proxies](crate::gateway) take theirs from elsewhere), and mail of an earlier one may still be on its
//! way.
//!
//! A message is pending while the word tells of an earlier one. Whoever ends its way compare-exchanges what is found
//! there to the message's name and a final status: the receiver to `Delivered`, a forwarder to `MaxHopsExceeded`,
//! `NotFound`, `QueueFull` or `Timeout`, the sender itself to `Timeout` when the deadline has passed or to `NotFound`
//! when the receiver has left. The first one decides; whoever comes later finds the message's name there already and
//! gives way. So no message is both delivered and timed out. And as long as a sender does not ask, its receiver alone
//! writes these words: they stay in its cache, and a receipt moves no line between the two.
//!
//! The table is as long as the fabric has slots for one receiver, and old entries are overwritten: nothing grows. A
//! message that finds a later one in its entry is decided, and counted, by whoever holds it; its sender can no longer
//! time it out.
//!
//! If the sender had, that verdict must not be counted a second time when the message turns up later. Hence *by
//! sender*: set with the sender's verdict, cleared by the holder that finds the message. A sender that needs an entry
//! with the mark again takes its count back (`RETRACTED`), and leaves the message to its holder, which counts it as timed
//! out. Both do so with a compare-exchange, so exactly one of them has it. A holder that finds a later message in the
//! entry decides alone, and looks at the clock once more. Its sender may have given the message up before; it did so past
//! the deadline and the margin of the clocks, so the holder's look finds the deadline passed, and the message ends as
//! timed out here, too. (The clock cannot be set: see [`Platform`](crate::Platform), which has the margin as well.)
//!
//! A message that leaves the domain through a [gateway](crate::gateway) is decided on the other side, where this word
//! cannot be reached. So the gateway *holds* it: it moves the word to `HELD`, which still reads as `Pending`, but which
//! only the gateway moves on, when it is told what became of the message. Its sender can no longer give it up.
//!
//! 1. `words`: compare-exchanged by the holders of messages and by the sender, which also clears one that it could take
//!    for a later message's before it uses the entry again.
//! 2. `Terms`: written by the sender only; `opened` is read by whoever asks for a receipt, the rest by the sender.
//!
//! No ordering is needed: the word alone decides, and nothing else is published through it.

use crate::message::{KernelId, MessageId};
use crate::sync::Ordering::Relaxed;
use crate::sync::{AtomicU32, AtomicU64, Scope, shared_struct};
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
    /// The sender had given it up, and has taken that back since: this call ends it as given up, and counts it.
    GivenUp,
    /// Someone else had, with this result; whoever did has counted it.
    Lost,
}

shared_struct! {
    /// On what terms a message was sent.
    struct Terms[][] in S {
        /// The message's name as in a word, with the status `Pending`; 0: none.
        opened: AtomicU64<S>,
        deadline_ns: AtomicU64<S>,
        destination: AtomicU64<S>,
        /// For a proxy's messages: 1 when its gateway knows how this one has ended.
        collected: AtomicU32<S>,
        _zero: AtomicU32<S>,
    }
}

shared_struct! {
    /// What holders write, on lines of its own.
    #[repr(align(128))]
    struct Words[const KERNELS: usize, const SLOTS: usize,][KERNELS, SLOTS,] in S {
        words: [[AtomicU64<S>; SLOTS]; KERNELS],
    }
}

shared_struct! {
    /// A sender's receipts.
    #[repr(align(128))]
    pub(crate) struct Receipts[const KERNELS: usize, const SLOTS: usize,][KERNELS, SLOTS,] in S {
        words: Words<KERNELS, SLOTS, S>,
        terms: [[Terms<S>; SLOTS]; KERNELS],
    }
}

/// The sender has decided this, and nobody has found the message since.
const BY_SENDER: u64 = 1 << 3;
const STATUS: u64 = BY_SENDER - 1;
const PENDING: u64 = DeliveryStatus::Pending as u64;
/// In the place of a status: the sender had decided, and has taken that back. Whoever finds the message decides alone.
const RETRACTED: u64 = PENDING;
/// In the place of a status: pending, and with a gateway.
const HELD: u64 = 7;

/// Upper bits of a sequence that a word has no room for.
const SEQUENCE_CUT: u32 = 20;
const GENERATION_SHIFT: u32 = 48;

/// Changes of a word by others that a holder puts up with before it decides alone. In a healthy fabric each of them is
/// a step of an earlier message of the same entry, and there are no more of those on their way than inboxes and stores
/// have room for: three or four.
const TRIES: u32 = 16;

const fn word(id: MessageId, status: u64) -> u64 {
    (id.source.generation() as u16 as u64) << GENERATION_SHIFT
        | id.sequence << SEQUENCE_CUT >> (SEQUENCE_CUT - 4)
        | status
}

/// The generation in a word.
const fn generation_in(word: u64) -> u16 {
    (word >> GENERATION_SHIFT) as u16
}

/// By how much the sequence in a word is ahead of another, modulo 2⁴⁴.
const fn sequence_ahead(word: u64, sequence: u64) -> i64 {
    ((word >> 4).wrapping_sub(sequence) << SEQUENCE_CUT).cast_signed() >> SEQUENCE_CUT
}

/// Which message a word tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tells {
    /// One before, or none: this one's way has not ended.
    Earlier,
    /// This one.
    This,
    /// One after.
    Later,
}

impl Tells {
    #[inline(always)]
    const fn of(found: u64, id: MessageId) -> Self {
        match generation_in(found).wrapping_sub(id.source.generation() as u16) {
            0 => match sequence_ahead(found, id.sequence) {
                0 => Self::This,
                1.. => Self::Later,
                _ => Self::Earlier,
            },
            // No generation is 0: an entry that was never used.
            1..0x8000 if generation_in(found) != 0 => Self::Later,
            _ => Self::Earlier,
        }
    }
}

/// A message of the sender's whose way has not ended.
#[derive(Clone, Copy)]
pub(crate) struct PendingReceipt {
    /// The word, which tells of an earlier message, or that this one is held.
    found: u64,
    opened: u64,
}

impl<const KERNELS: usize, const SLOTS: usize, S: Scope> Receipts<KERNELS, SLOTS, S> {
    /// How many messages back a receipt can be asked for.
    pub(crate) const CAPACITY: u64 = (KERNELS * SLOTS) as u64;

    #[inline(always)]
    const fn index(sequence: u64) -> (usize, usize) {
        // Both divisors are constants, and the second is a power of two.
        let i = (sequence % Self::CAPACITY) as usize;
        (i / SLOTS, i % SLOTS)
    }

    #[inline(always)]
    fn word_at(&self, sequence: u64) -> &AtomicU64<S> {
        let (row, i) = Self::index(sequence);
        &self.words.words[row][i]
    }

    #[inline(always)]
    fn terms_at(&self, sequence: u64) -> &Terms<S> {
        let (row, i) = Self::index(sequence);
        &self.terms[row][i]
    }

    /// Opens the receipt of a message that is about to be sent, over an older one, on which the sender has no verdict
    /// of its own (see [`retract`](Self::retract)).
    #[inline(always)]
    pub(crate) fn open(&self, id: MessageId, destination: KernelId, deadline_ns: u64) {
        let terms = self.terms_at(id.sequence);
        // Relaxed, all: this sender's own, but for `opened`, which publishes nothing but itself.
        terms.deadline_ns.store(deadline_ns, Relaxed);
        terms.destination.store(destination.raw(), Relaxed);
        terms.opened.store(word(id, PENDING), Relaxed);
    }

    /// For a proxy, whose sequences come in any order, in place of [`open`](Self::open): makes the entry
    /// forget a later message.
    pub(crate) fn open_anew(&self, id: MessageId, destination: KernelId, deadline_ns: u64) {
        let entry = self.word_at(id.sequence);
        // Relaxed, both: the word alone decides. What it told of has been collected.
        if Tells::of(entry.load(Relaxed), id) != Tells::Earlier {
            entry.store(0, Relaxed);
        }
        self.open(id, destination, deadline_ns);
        // Relaxed: this sender's own.
        self.terms_at(id.sequence).collected.store(0, Relaxed);
    }

    /// For the sender, before it opens the receipt of `id`: takes back a verdict of its own on an older message of that
    /// entry that nobody has found yet, and returns it. It no longer counts: who finds the message does. And makes the
    /// entry forget an owner of the place so long ago that its generation reads as a later one.
    #[cold]
    #[cfg_attr(target_arch = "nvptx64", inline(never))]
    pub(crate) fn retract(&self, id: MessageId) -> Option<DeliveryStatus> {
        let entry = self.word_at(id.sequence);
        // Relaxed: the word alone decides. Relaxed on failure: the holder was faster, and keeps the verdict as it is.
        let found = entry.load(Relaxed);
        let taken_back = found & !(BY_SENDER | STATUS) | RETRACTED;
        let retracted = found & BY_SENDER != 0 && entry.compare_exchange(found, taken_back, Relaxed, Relaxed).is_ok();
        if generation_in(found) != id.source.generation() as u16 && Tells::of(found, id) == Tells::Later {
            // Relaxed: as in `open_anew`.
            entry.store(0, Relaxed);
        }
        if retracted { DeliveryStatus::from_bits(found & STATUS) } else { None }
    }

    /// For the holder of a message: ends its way, unless the sender has already.
    #[inline(always)]
    pub(crate) fn decide(&self, id: MessageId, status: DeliveryStatus) -> Verdict {
        self.enter(id, status as u64)
    }

    /// For a gateway that holds a message: takes it out of its sender's hands, unless the sender has ended its way
    /// already.
    pub(crate) fn hold(&self, id: MessageId) -> Verdict {
        self.enter(id, HELD)
    }

    /// For the gateway that [holds](Self::hold) a message: ends its way.
    pub(crate) fn settle(&self, id: MessageId, status: DeliveryStatus) -> Verdict {
        // Relaxed: the word alone decides. Relaxed on failure: the value found says all.
        match self.word_at(id.sequence).compare_exchange(word(id, HELD), word(id, status as u64), Relaxed, Relaxed) {
            Ok(_) => Verdict::Decided,
            Err(found) if Tells::of(found, id) == Tells::This => Verdict::Lost,
            // Overwritten while it was held.
            Err(_) => Verdict::Alone,
        }
    }

    /// Writes what became of a message over what the entry tells of an earlier one.
    #[inline(always)]
    fn enter(&self, id: MessageId, status: u64) -> Verdict {
        let entry = self.word_at(id.sequence);
        // Relaxed: the word alone decides.
        let mut found = entry.load(Relaxed);
        for _ in 0..TRIES {
            match Tells::of(found, id) {
                // Relaxed, both: as above. On failure the value found says all.
                Tells::Earlier => match entry.compare_exchange(found, word(id, status), Relaxed, Relaxed) {
                    Ok(_) => return Verdict::Decided,
                    Err(now) => found = now,
                },
                Tells::This => return Self::give_way(entry, found),
                Tells::Later => break,
            }
        }
        // Overwritten: the message's holder decides alone.
        Verdict::Alone
    }

    /// Lets a verdict stand that is there already. If it is the sender's, says that the message was found.
    #[cold]
    #[inline(never)]
    fn give_way(entry: &AtomicU64<S>, found: u64) -> Verdict {
        // Relaxed, both: as in `enter`. Only `retract` changes a word with the mark.
        let stands = found & (BY_SENDER | STATUS) != RETRACTED
            && (found & BY_SENDER == 0 || entry.compare_exchange(found, found & !BY_SENDER, Relaxed, Relaxed).is_ok());
        if stands { Verdict::Lost } else { Verdict::GivenUp }
    }

    /// For the sender: the message of that sequence, if its way has not ended and its entry is not used by another. A
    /// predecessor's as well.
    pub(crate) fn pending(&self, sequence: u64) -> Option<PendingReceipt> {
        // Relaxed, both: see the module's page.
        let opened = self.terms_at(sequence).opened.load(Relaxed);
        let found = self.word_at(sequence).load(Relaxed);
        if opened == 0 || sequence_ahead(opened, sequence) != 0 {
            return None;
        }
        let id = MessageId { source: KernelId::new(0, u32::from(generation_in(opened))), sequence };
        let pending = match Tells::of(found, id) {
            Tells::Earlier => true,
            Tells::This => found & (BY_SENDER | STATUS) == HELD,
            Tells::Later => false,
        };
        pending.then_some(PendingReceipt { found, opened })
    }

    /// For the sender: ends the way of a message that can no longer arrive, unless its holder has already. One that a
    /// gateway holds stays with it.
    pub(crate) fn give_up(&self, sequence: u64, pending: PendingReceipt, status: DeliveryStatus) -> Verdict {
        let PendingReceipt { found, opened } = pending;
        if (found ^ opened) >> 4 == 0 {
            return Verdict::Lost;
        }
        let verdict = opened & !STATUS | status as u64 | BY_SENDER;
        // Relaxed, both: as in `enter`. Any other value is that of this message's holder, or of an earlier one's: the
        // sender will look again.
        match self.word_at(sequence).compare_exchange(found, verdict, Relaxed, Relaxed) {
            Ok(_) => Verdict::Decided,
            Err(_) => Verdict::Lost,
        }
    }

    /// For a proxy: whether the entry for `id` holds the receipt of a message of its own whose end its gateway does not
    /// know yet, and which is not at least `old` sequences older.
    pub(crate) fn is_in_use(&self, id: MessageId, old: u64) -> bool {
        let terms = self.terms_at(id.sequence);
        // Relaxed, both: this sender's own.
        let opened = terms.opened.load(Relaxed);
        let own =
            opened != 0 && generation_in(opened) == id.source.generation() as u16 && terms.collected.load(Relaxed) == 0;
        let behind = -sequence_ahead(opened, id.sequence);
        // Relaxed: the word alone decides. A later message that was given up and is still to be found needs its mark.
        let found = self.word_at(id.sequence).load(Relaxed);
        let marked = found & BY_SENDER != 0 && Tells::of(found, id) == Tells::Later;
        marked || own && behind < old.min(i64::MAX as u64).cast_signed()
    }

    /// For a proxy: notes that its gateway knows how the message has ended.
    pub(crate) fn set_collected(&self, sequence: u64) {
        // Relaxed: this sender's own.
        self.terms_at(sequence).collected.store(1, Relaxed);
    }

    /// For the sender: empties the entry of a message that could not be sent after all.
    #[cold]
    pub(crate) fn void(&self, sequence: u64) {
        // Relaxed: this sender's own.
        self.terms_at(sequence).opened.store(0, Relaxed);
    }

    /// Reads a receipt.
    pub(crate) fn read(&self, id: MessageId) -> Result<DeliveryStatus, ReceiptError> {
        if id.sequence == 0 || id.source.is_none() {
            return Err(ReceiptError::Unknown);
        }
        // Relaxed, both: see the module's page.
        let opened = self.terms_at(id.sequence).opened.load(Relaxed);
        let found = self.word_at(id.sequence).load(Relaxed);
        match (Tells::of(opened, id), Tells::of(found, id)) {
            (Tells::Later, _) | (_, Tells::Later) => Err(ReceiptError::Overwritten),
            (_, Tells::This) => match DeliveryStatus::from_bits(found & STATUS) {
                Some(status) => Ok(status),
                None if found & STATUS == HELD => Ok(DeliveryStatus::Pending),
                None => Err(ReceiptError::Unknown),
            },
            (Tells::This, Tells::Earlier) => Ok(DeliveryStatus::Pending),
            (Tells::Earlier, Tells::Earlier) => Err(ReceiptError::Unknown),
        }
    }

    /// For the sender: deadline and destination of a message whose receipt is still there.
    pub(crate) fn terms(&self, sequence: u64) -> (u64, KernelId) {
        let terms = self.terms_at(sequence);
        // Relaxed: written by the caller itself, or by its predecessor before the place was handed over.
        (terms.deadline_ns.load(Relaxed), KernelId::from_raw(terms.destination.load(Relaxed)))
    }
}

#[cfg(all(test, not(k2k_loom)))]
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
        // Its way can still be decided by all, as long as the later one's is not.
        assert_eq!(table.decide(id(1), DeliveryStatus::Delivered), Verdict::Decided);
        assert_eq!(
            (table.read(id(1)), table.read(id(5))),
            (Err(ReceiptError::Overwritten), Ok(DeliveryStatus::Pending))
        );
        table.open(id(9), KernelId::new(0, 1), 10);
        assert_eq!(table.decide(id(9), DeliveryStatus::Delivered), Verdict::Decided);
        assert_eq!(table.decide(id(5), DeliveryStatus::Delivered), Verdict::Alone);
        assert_eq!((table.read(id(5)), table.pending(5).is_none()), (Err(ReceiptError::Overwritten), true));
    }

    #[test]
    fn a_senders_verdict_counts_for_the_sender_or_for_the_holder_but_not_for_both() {
        let table = table();
        table.open(id(1), KernelId::new(0, 1), 10);
        assert_eq!(table.retract(id(5)), None, "nothing of the sender's");
        assert_eq!(give_up(&table, 1, DeliveryStatus::Timeout), Verdict::Decided);
        assert_eq!(give_up(&table, 1, DeliveryStatus::NotFound), Verdict::Lost);
        assert_eq!(table.read(id(1)), Ok(DeliveryStatus::Timeout));
        // Found before the entry is needed again: the sender's verdict stands.
        assert_eq!(table.decide(id(1), DeliveryStatus::Delivered), Verdict::Lost);
        assert_eq!((table.read(id(1)), table.retract(id(5))), (Ok(DeliveryStatus::Timeout), None));
        // Found afterwards: the holder's does.
        table.open(id(5), KernelId::new(0, 1), 10);
        assert_eq!(give_up(&table, 5, DeliveryStatus::NotFound), Verdict::Decided);
        assert_eq!(table.retract(id(9)), Some(DeliveryStatus::NotFound));
        assert_eq!(table.retract(id(9)), None);
        table.open(id(9), KernelId::new(0, 1), 10);
        assert_eq!(table.decide(id(5), DeliveryStatus::Timeout), Verdict::GivenUp);
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
        table.set_collected(1);
        assert!(!table.is_in_use(id(5), 5));
        table.open(id(5), KernelId::new(0, 1), 10);
        assert_eq!(give_up(&table, 5, DeliveryStatus::Timeout), Verdict::Decided);
        assert_eq!(table.hold(id(5)), Verdict::Lost, "given up before");
        table.open(id(9), KernelId::new(0, 1), 10);
        assert_eq!(table.hold(id(9)), Verdict::Decided);
        table.open(id(13), KernelId::new(0, 1), 10);
        assert_eq!(table.settle(id(9), DeliveryStatus::Delivered), Verdict::Decided);
        assert_eq!(table.hold(id(13)), Verdict::Decided);
        table.open(id(17), KernelId::new(0, 1), 10);
        assert_eq!(table.decide(id(17), DeliveryStatus::Delivered), Verdict::Decided);
        assert_eq!(table.settle(id(13), DeliveryStatus::Delivered), Verdict::Alone, "overwritten while held");
        table.open(id(21), KernelId::new(0, 1), 10);
        table.void(21);
        assert_eq!(table.read(id(21)), Err(ReceiptError::Unknown));
    }

    #[test]
    fn a_proxys_entry_can_be_used_for_an_earlier_message() {
        let table = table();
        table.open_anew(id(5), KernelId::new(0, 1), 10);
        assert_eq!(give_up(&table, 5, DeliveryStatus::Timeout), Verdict::Decided);
        table.set_collected(5);
        assert!(table.is_in_use(id(1), 1), "given up, and still to be found");
        assert_eq!(table.decide(id(5), DeliveryStatus::Delivered), Verdict::Lost);
        assert!(!table.is_in_use(id(1), 1));
        table.open_anew(id(1), KernelId::new(0, 1), 10);
        assert_eq!(table.read(id(1)), Ok(DeliveryStatus::Pending));
        assert_eq!(table.decide(id(1), DeliveryStatus::Delivered), Verdict::Decided);
        assert_eq!((table.read(id(1)), table.is_in_use(id(5), 5)), (Ok(DeliveryStatus::Delivered), true));
    }

    #[test]
    fn the_same_sequence_of_another_owner_is_another_message() {
        let table = table();
        let later = MessageId { source: KernelId::new(0, 2), sequence: 1 };
        table.open(id(1), KernelId::new(0, 1), 10);
        assert!(!table.is_in_use(later, 5));
        table.open(later, KernelId::new(0, 1), 10);
        assert_eq!(
            (table.read(id(1)), table.read(later)),
            (Err(ReceiptError::Overwritten), Ok(DeliveryStatus::Pending))
        );
        assert_eq!(table.decide(later, DeliveryStatus::Delivered), Verdict::Decided);
        assert_eq!(table.decide(id(1), DeliveryStatus::Delivered), Verdict::Alone);
        // The generation wraps from 65535 to 1.
        let last = MessageId { source: KernelId::new(0, u32::from(u16::MAX)), sequence: 1 };
        assert_eq!(table.read(last), Err(ReceiptError::Overwritten));
        assert_eq!(table.read(MessageId { source: KernelId::new(0, 3), sequence: 1 }), Err(ReceiptError::Unknown));
    }

    #[test]
    fn sequences_go_on_beyond_what_a_word_holds() {
        let table = table();
        let start = (3 << 44) - 6;
        for sequence in start..start + 12 {
            table.open(id(sequence), KernelId::new(0, 1), 10);
            assert_eq!(table.read(id(sequence)), Ok(DeliveryStatus::Pending));
            assert!(table.pending(sequence).is_some() && table.is_in_use(id(sequence), 1));
            assert_eq!(table.decide(id(sequence), DeliveryStatus::Delivered), Verdict::Decided);
            assert_eq!(table.decide(id(sequence - 4), DeliveryStatus::Delivered), Verdict::Alone);
            assert_eq!(table.read(id(sequence - 4)), Err(ReceiptError::Overwritten));
            assert_eq!(table.read(id(sequence + 4)), Err(ReceiptError::Unknown));
        }
    }

    #[test]
    fn words_that_nobody_wrote_cost_a_holder_a_bounded_time() {
        let table = table();
        for garbage in [u64::MAX, 1, 8, 0xffff << 48, (1 << 48 | 5) << 4] {
            for entry in &table.words.words[0] {
                entry.store(garbage, Relaxed);
            }
            table.open(id(5), KernelId::new(0, 1), 10);
            let _ = (table.decide(id(5), DeliveryStatus::Delivered), table.read(id(5)), table.retract(id(9)));
            let _ = (table.hold(id(5)), table.settle(id(5), DeliveryStatus::Timeout), table.is_in_use(id(9), 4));
            let _ = give_up(&table, 5, DeliveryStatus::Timeout);
        }
    }
}
