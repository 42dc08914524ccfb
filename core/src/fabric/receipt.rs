//! Delivery receipts: what became of each message, decided once.
//!
//! Each sender has a table, indexed by sequence, with two things per entry: the *terms* on which its latest message was
//! sent, which the sender writes, and a *word* that says which message of the entry has been settled last, and how. The
//! word is the one that decides:
//!
//! ```text
//!    63                           7      6        5        4       3      0
//!   +------------------------------+-----------+-------+-----------+--------+
//!   |           sequence           | uncounted | found | by sender | status |     0: no message was settled yet
//!   +------------------------------+-----------+-------+-----------+--------+
//! ```
//!
//! # Sequences
//!
//! A sequence names one message of a *kernel index*, for ever: the owners of an index go on counting where the one
//! before them stopped, and a [proxy](crate::gateway) shifts its kernel's sequences beyond all that were used there. So
//! words need no generation, and a message of an earlier owner cannot be taken for one of a later owner. An index that
//! has used half of its 57 bits is not given to a new owner any more. That is after 228 years at ten million messages per
//! second, and leaves as much to its last owner. A proxy uses up to 2³² sequences when it is registered: 2²⁴ proxies of
//! one index take half a year if the gateway starts anew every second, 32 years if every minute.
//!
//! # Who settles a message
//!
//! A message is pending while the word tells of an earlier one. The side that settles it compare-exchanges the word it
//! read for (sequence, final status): the receiver to `Delivered` or `NotAllowed`, a forwarder to `MaxHopsExceeded`, `NotFound`,
//! `QueueFull` or `Timeout`, the sender to `Timeout` when the deadline has passed or to `NotFound` when the receiver has
//! left. The first one decides; a later one finds the message's sequence there already and gives way. So no message is
//! both delivered and timed out. And as long as a sender does not ask, its receiver alone writes these words: they stay
//! in its cache, and a receipt moves no line between the two.
//!
//! The table is as long as the fabric has slots for one receiver, and old entries are overwritten: nothing grows. If a
//! later message occupies the entry already, the holder of a message settles it without the word, and counts it; its
//! sender can no longer time it out. The holder reads the clock again first, so that it cannot contradict a timeout that
//! was reported.
//!
//! # Who counts it
//!
//! The side that settles a message counts it, in its own counters. A timeout by the sender must not be counted again when
//! the message turns up later. Hence three marks:
//!
//! | word | who has counted the message |
//! | --- | --- |
//! | status | its holder |
//! | status, *by sender* | its sender; no holder has found the message yet |
//! | status, *by sender*, *found* | its sender; the holder that found the message has discarded it |
//! | `Timeout`, *by sender*, *uncounted* | nobody: an onlooker has settled it. The owner of the sender's index clears the mark and counts, or the holder takes the verdict over and counts, whichever is first |
//! | `RETRACTED` | nobody: the sender needed the entry again and took its count back. The holder counts a timeout |
//! | `RETRACTED_IN_TRANSIT` | nobody, likewise. The gateway that holds the message, or its successor, counts it as unanswered |
//!
//! Each change is a compare-exchange, so exactly one side has it.
//!
//! # Outcomes end
//!
//! A sender or receiver that has left or died settles nothing. So an onlooker who asks for a receipt
//! ([`Fabric::receipt`](crate::Fabric::receipt)) settles what is overdue: more than
//! [`CLOCK_MARGIN_NS`] after its deadline. What the onlooker has to know of the terms
//! may be written at that moment for a later message; `check` tells it whether sequence and deadline belong together.
//!
//! A message that leaves the domain through a [gateway](crate::gateway) is settled on the remote side, where this word
//! cannot be reached. So the gateway marks it as *in transit*: it moves the word to `IN_TRANSIT`, which still reads as
//! `Pending`, and which the gateway moves on when it is told what became of the message. Should it not do so in time
//! (until the deadline, the fabric's [`grace_ns`](crate::Config::grace_ns) and the margin have passed), or should the
//! proxy be gone, the sender or an onlooker settles the message as `Unanswered`, and the answer comes too late. So no
//! receipt reads `Pending` after that time, whoever is dead. It is no `Timeout`, since the message may have been
//! received. The proxy also keeps a [record](super::outstanding) of the message, so that a successor counts it when a
//! later message occupies the entry.
//!
//! # Who may touch what
//!
//! 1. `words`: compare-exchanged by the holders of messages, the sender, and onlookers. A proxy, whose sequences come in
//!    any order, also lowers a word that tells of a later message before it uses the entry.
//! 2. `Terms`: written by the sender only.
//!
//! No ordering is needed: the word alone decides, nothing else is published through it, and terms check themselves.

use super::status::{DeliveryStatus, ReceiptError};
use crate::message::KernelId;
use crate::platform::CLOCK_MARGIN_NS;
use crate::shape::{Part, Shape};
use crate::sync::Ordering::Relaxed;
use crate::sync::{AtomicU64, Scope, keep_order, shared_struct};
use core::mem::offset_of;
#[cfg(not(k2k_loom))]
use core::ops::Range;

/// Who settled a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// This call did; it counts the message.
    Decided,
    /// This call did, because the receipt was overwritten. A timeout may have been reported before.
    Alone,
    /// It had been given up, and that was not counted, or the count was taken back: this call takes the verdict over, and
    /// counts the message as this: `Timeout`, or `Unanswered` where it was in transit.
    GivenUp(DeliveryStatus),
    /// Another party did, and has counted it.
    Lost,
}

/// What a receipt's word says of one message, for the successor of a kernel that may have settled it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settlement {
    /// The message is not settled, or not counted, or a later one occupies the entry.
    No,
    /// It is in transit: a gateway holds it.
    InTransit,
    /// Its holder has settled it.
    ByHolder(DeliveryStatus),
    /// Its sender has given it up.
    BySender(DeliveryStatus),
}

/// The latest message of an entry, for an onlooker.
#[cfg(not(k2k_loom))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Latest {
    pub(crate) sequence: u64,
    /// `None`: a gateway holds it.
    pub(crate) status: Option<DeliveryStatus>,
    pub(crate) destination: KernelId,
    pub(crate) deadline_ns: u64,
}

shared_struct! {
    /// On what terms a message was sent.
    struct Terms[][] in S {
        /// The message's sequence as in a word, and `COLLECTED`; 0: none.
        opened: AtomicU64<S>,
        deadline_ns: AtomicU64<S>,
        /// `opened` (without `COLLECTED`) and `deadline_ns`, by exclusive or.
        check: AtomicU64<S>,
        destination: AtomicU64<S>,
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
        /// The last message of each entry whose verdict its sender has taken back; the sender's.
        retracted: [[AtomicU64<S>; SLOTS]; KERNELS],
        /// This and the count of messages sent are together no less than any sequence that was used.
        base: AtomicU64<S>,
    }
}

const STATUS: u64 = 0xf;
/// The sender has decided this, or an onlooker in its place.
const BY_SENDER: u64 = 1 << 4;
/// The holder has found the message afterwards.
const FOUND: u64 = 1 << 5;
/// The message was not counted yet.
const UNCOUNTED: u64 = 1 << 6;
const MARKS: u64 = BY_SENDER | FOUND | UNCOUNTED;
const SEQUENCE_SHIFT: u32 = 7;

const PENDING: u64 = DeliveryStatus::Pending as u64;
/// With *by sender*: given up while a gateway held it, which holds it still.
const UNANSWERED: u64 = DeliveryStatus::Unanswered as u64;
/// In the place of a status: the sender had decided, and has taken that back. The holder counts a timeout.
const RETRACTED: u64 = PENDING;
/// In the place of a status: pending, and with a gateway.
const IN_TRANSIT: u64 = 8;
/// In the place of a status: `RETRACTED`, and still with a gateway, which counts it as unanswered.
const RETRACTED_IN_TRANSIT: u64 = 9;

/// In `opened`, for a proxy's messages: its gateway knows how this one has ended.
const COLLECTED: u64 = 1;

/// The last sequence that a word has room for.
pub(crate) const LAST_SEQUENCE: u64 = u64::MAX >> SEQUENCE_SHIFT;

/// Changes of a word by others that a holder puts up with before it decides alone. In a healthy fabric each of them is
/// a step of an earlier message of the same entry, and there are no more of those on their way than inboxes and stores
/// have room for, or a step of the sender: three or four.
const TRIES: u32 = 16;

const fn word(sequence: u64, status: u64) -> u64 {
    sequence << SEQUENCE_SHIFT | status
}

/// The sequence in a word.
const fn sequence_in(word: u64) -> u64 {
    word >> SEQUENCE_SHIFT
}

/// What a word's status says to a reader.
const fn status_in(word: u64) -> Option<DeliveryStatus> {
    match word & STATUS {
        IN_TRANSIT => Some(DeliveryStatus::Pending),
        // Not what a receipt says: see `read`.
        RETRACTED_IN_TRANSIT => Some(DeliveryStatus::Pending),
        status => DeliveryStatus::from_bits(status),
    }
}

/// Which message a word tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tells {
    /// One before, or none: this one is not settled.
    Earlier,
    /// This one.
    This,
    /// One after.
    Later,
}

impl Tells {
    #[inline(always)]
    const fn of(found: u64, sequence: u64) -> Self {
        if sequence_in(found) < sequence {
            Self::Earlier
        } else if sequence_in(found) == sequence {
            Self::This
        } else {
            Self::Later
        }
    }
}

/// What a sender finds in an entry.
#[derive(Clone, Copy)]
pub(crate) enum Entry {
    /// Nothing to do: no message, or one that was settled and counted.
    Settled,
    /// A message that an onlooker has settled.
    Uncounted(PendingReceipt),
    /// A message that is not settled.
    Pending(PendingReceipt),
}

/// A message and what its entry's word said.
#[derive(Clone, Copy)]
pub(crate) struct PendingReceipt {
    /// The message.
    pub(crate) sequence: u64,
    found: u64,
}

impl PendingReceipt {
    /// Whether a gateway holds it.
    pub(crate) const fn is_in_transit(self) -> bool {
        sequence_in(self.found) == self.sequence && self.found & STATUS == IN_TRANSIT
    }

    /// The word that gives it up: with this status, or as unanswered if a gateway holds it.
    const fn given_up(self, status: DeliveryStatus) -> u64 {
        word(self.sequence, if self.is_in_transit() { UNANSWERED } else { status as u64 }) | BY_SENDER
    }

    /// As what an onlooker has settled it.
    pub(crate) fn status(self) -> DeliveryStatus {
        status_in(self.found).unwrap_or(DeliveryStatus::Timeout)
    }
}

impl<const KERNELS: usize, const SLOTS: usize, S: Scope> Receipts<KERNELS, SLOTS, S> {
    /// Where terms, what was retracted and the base are, and the length of all.
    pub(crate) const OFFSETS: [usize; 4] =
        [offset_of!(Self, terms), offset_of!(Self, retracted), offset_of!(Self, base), size_of::<Self>()];
    /// The size of a message's terms.
    #[cfg(not(k2k_loom))]
    pub(crate) const TERMS_SIZE: usize = size_of::<Terms<S>>();
}

/// A sender's receipts: of the type `Receipts`, for as many messages as the shape says.
pub(crate) enum OfSender {}
pub(crate) type ReceiptsView<'f, Sh> = Part<'f, Sh, OfSender>;

impl<'f, Sh: Shape> ReceiptsView<'f, Sh> {
    /// How many messages back a receipt can be asked for.
    #[inline(always)]
    pub(crate) fn capacity(&self) -> u64 {
        self.shape.receipts()
    }

    /// Where the entry of a sequence is, in each table.
    #[inline(always)]
    fn index(&self, sequence: u64) -> usize {
        (sequence % self.capacity()) as usize
    }

    #[inline(always)]
    fn word_at(&self, sequence: u64) -> &'f AtomicU64<Sh::Scope> {
        // SAFETY: they stand first; `index` is less than their number.
        unsafe { self.item(0, self.index(sequence)) }
    }

    #[inline(always)]
    fn terms_at(&self, sequence: u64) -> &'f Terms<Sh::Scope> {
        // SAFETY: `index` is less than their number.
        unsafe { self.item(self.shape.numbers().terms, self.index(sequence)) }
    }

    fn retracted_at(&self, sequence: u64) -> &'f AtomicU64<Sh::Scope> {
        // SAFETY: `index` is less than their number.
        unsafe { self.item(self.shape.numbers().retracted, self.index(sequence)) }
    }

    #[inline(always)]
    fn base_word(&self) -> &'f AtomicU64<Sh::Scope> {
        // SAFETY: there is one.
        unsafe { self.item(self.shape.numbers().base, 0) }
    }

    /// What has to be added to a count of messages sent to get the sequence of the last one.
    pub(crate) fn base(&self) -> u64 {
        // Relaxed: written by the caller itself, or by its predecessor before the index was handed over.
        self.base_word().load(Relaxed)
    }

    /// For a proxy, before it uses a sequence that is further than its count.
    #[cold]
    pub(crate) fn set_base(&self, base: u64) {
        // Relaxed: this sender's own; its successor finds it when the index is handed over.
        self.base_word().store(base, Relaxed);
    }

    /// Opens the receipt of a message that is about to be sent, over an older one, on which the sender has no verdict
    /// of its own (see [`retract`](Self::retract)).
    #[inline(always)]
    pub(crate) fn open(&self, sequence: u64, destination: KernelId, deadline_ns: u64) {
        let terms = self.terms_at(sequence);
        let opened = word(sequence, 0);
        // Relaxed, all: this sender's own, but for what onlookers read, and that checks itself. `opened` comes first: a
        // sender that dies in between leaves an older message overwritten, not pending on terms that no onlooker believes.
        terms.opened.store(opened, Relaxed);
        keep_order();
        terms.deadline_ns.store(deadline_ns, Relaxed);
        terms.check.store(opened ^ deadline_ns, Relaxed);
        terms.destination.store(destination.raw(), Relaxed);
    }

    /// For a proxy, whose sequences come in any order, in place of [`open`](Self::open): makes the entry forget a later
    /// message, which has been collected. Its word then tells of a message between this one and all earlier ones of the
    /// entry: their holders still find the receipt overwritten.
    pub(crate) fn open_out_of_order(&self, sequence: u64, destination: KernelId, deadline_ns: u64) {
        let entry = self.word_at(sequence);
        // Relaxed, both: the word alone decides. The message that it told of has no holder any more.
        if Tells::of(entry.load(Relaxed), sequence) != Tells::Earlier {
            entry.store(word(sequence.saturating_sub(1), 0), Relaxed);
        }
        self.open(sequence, destination, deadline_ns);
    }

    /// For the sender, before it opens the receipt of `sequence`: takes back a verdict of its own on an older message of
    /// that entry whose holder has not found it yet, and returns the verdict if it was counted. The holder will count.
    #[cold]
    #[cfg_attr(target_arch = "nvptx64", inline(never))]
    pub(crate) fn retract(&self, sequence: u64) -> Option<DeliveryStatus> {
        let entry = self.word_at(sequence);
        // Relaxed: the word alone decides.
        let found = entry.load(Relaxed);
        if found & (BY_SENDER | FOUND) != BY_SENDER {
            return None;
        }
        let status = if found & STATUS == UNANSWERED { RETRACTED_IN_TRANSIT } else { RETRACTED };
        let taken_back = found & !(MARKS | STATUS) | status;
        // Relaxed, both: as above. On failure the holder was faster, and keeps the verdict as it is.
        let retracted = entry.compare_exchange(found, taken_back, Relaxed, Relaxed).is_ok();
        if retracted {
            self.note_retracted(sequence_in(found));
        }
        if retracted && found & UNCOUNTED == 0 { status_in(found) } else { None }
    }

    /// For the holder of a message: settles it, unless another party has already. `found_note` is called before the
    /// sender's verdict is marked as found: the holder's successor must know of the mark when the entry was used again.
    #[inline(always)]
    pub(crate) fn decide_noted(&self, sequence: u64, status: DeliveryStatus, found_note: impl Fn()) -> Verdict {
        self.enter(sequence, status as u64, found_note)
    }

    /// As [`decide_noted`](Self::decide_noted), without a note.
    #[cfg(test)]
    pub(crate) fn decide(&self, sequence: u64, status: DeliveryStatus) -> Verdict {
        self.enter(sequence, status as u64, || ())
    }

    /// For a gateway that holds a message: takes it out of its sender's hands, unless that has settled it already.
    /// `found_note` as for [`decide_noted`](Self::decide_noted).
    pub(crate) fn mark_in_transit_noted(&self, sequence: u64, found_note: impl Fn()) -> Verdict {
        self.enter(sequence, IN_TRANSIT, found_note)
    }

    #[cfg(test)]
    fn mark_in_transit(&self, sequence: u64) -> Verdict {
        self.enter(sequence, IN_TRANSIT, || ())
    }

    /// For the gateway that [holds](Self::mark_in_transit_noted) a message: settles it. `found_note` as for
    /// [`decide_noted`](Self::decide_noted).
    pub(crate) fn settle_noted(&self, sequence: u64, status: DeliveryStatus, found_note: impl Fn()) -> Verdict {
        let entry = self.word_at(sequence);
        let (in_transit, settled) = (word(sequence, IN_TRANSIT), word(sequence, status as u64));
        // Relaxed: the word alone decides. Relaxed on failure: the value found says all.
        match entry.compare_exchange(in_transit, settled, Relaxed, Relaxed) {
            Ok(_) => Verdict::Decided,
            // Or overwritten while it was in transit.
            Err(found) => Self::give_way(entry, found, sequence, found_note),
        }
    }

    #[cfg(test)]
    fn settle(&self, sequence: u64, status: DeliveryStatus) -> Verdict {
        self.settle_noted(sequence, status, || ())
    }

    /// Writes what became of a message over what the entry tells of an earlier one.
    #[inline(always)]
    fn enter(&self, sequence: u64, status: u64, found_note: impl Fn()) -> Verdict {
        let entry = self.word_at(sequence);
        // Relaxed: the word alone decides.
        let mut found = entry.load(Relaxed);
        for _ in 0..TRIES {
            match Tells::of(found, sequence) {
                // Relaxed, both: as above. On failure the value found says all.
                Tells::Earlier => match entry.compare_exchange(found, word(sequence, status), Relaxed, Relaxed) {
                    Ok(_) => return Verdict::Decided,
                    Err(now) => found = now,
                },
                Tells::This => return Self::give_way(entry, found, sequence, found_note),
                Tells::Later => break,
            }
        }
        // Overwritten: the message's holder decides alone.
        Verdict::Alone
    }

    /// For the holder, which has found another word than one of an earlier message: lets a verdict stand that is there
    /// already, and says that the message was found; or takes it over if it was not counted.
    // The loop is in here, so that only the verdict is handed back: on a GPU, more than a register goes through the
    // thread's own memory.
    #[cold]
    #[inline(never)]
    fn give_way(entry: &AtomicU64<Sh::Scope>, mut found: u64, sequence: u64, found_note: impl Fn()) -> Verdict {
        for _ in 0..TRIES {
            if Tells::of(found, sequence) != Tells::This {
                break;
            }
            let retracted = matches!(found & STATUS, RETRACTED | RETRACTED_IN_TRANSIT) && found & MARKS == 0;
            let uncounted = found & (BY_SENDER | UNCOUNTED) == BY_SENDER | UNCOUNTED;
            let was_in_transit = matches!(found & STATUS, UNANSWERED | RETRACTED_IN_TRANSIT);
            let (new, verdict) = if retracted || uncounted {
                let status = if was_in_transit { DeliveryStatus::Unanswered } else { DeliveryStatus::Timeout };
                (word(sequence, status as u64) | FOUND, Verdict::GivenUp(status))
            } else if found & (BY_SENDER | FOUND) == BY_SENDER {
                found_note();
                (found | FOUND, Verdict::Lost)
            } else {
                return Verdict::Lost;
            };
            // Relaxed, both: as in `enter`. Only the sender changes such a word: it takes its count back, or makes up for
            // it; or it is overwritten.
            match entry.compare_exchange(found, new, Relaxed, Relaxed) {
                Ok(_) => return verdict,
                Err(now) => found = now,
            }
        }
        // Overwritten: as in `enter`.
        Verdict::Alone
    }

    /// For the sender: what is to be done about the message that uses the entry of `sequence`. A predecessor's as well.
    #[inline]
    pub(crate) fn entry(&self, sequence: u64) -> Entry {
        // Relaxed, both: see the module's page.
        let sequence = sequence_in(self.terms_at(sequence).opened.load(Relaxed));
        let found = self.word_at(sequence).load(Relaxed);
        let unsettled = PendingReceipt { sequence, found };
        match Tells::of(found, sequence) {
            _ if sequence == 0 => Entry::Settled,
            Tells::Earlier => Entry::Pending(unsettled),
            Tells::This if found & UNCOUNTED != 0 => Entry::Uncounted(unsettled),
            Tells::This if unsettled.is_in_transit() => Entry::Pending(unsettled),
            Tells::This | Tells::Later => Entry::Settled,
        }
    }

    /// For the sender: gives up a message that can no longer arrive, or whose gateway is late; `false` if its holder was
    /// faster.
    pub(crate) fn give_up(&self, unsettled: PendingReceipt, status: DeliveryStatus) -> bool {
        let entry = self.word_at(unsettled.sequence);
        // Relaxed, both: as in `enter`. Any other value is that of this message's holder, of an onlooker, or of an
        // earlier message's holder: the sender will look again.
        entry.compare_exchange(unsettled.found, unsettled.given_up(status), Relaxed, Relaxed).is_ok()
    }

    /// For the sender: takes upon itself to count a message that an onlooker has settled; `false` if its holder was
    /// faster.
    pub(crate) fn take_count(&self, uncounted: PendingReceipt) -> bool {
        let entry = self.word_at(uncounted.sequence);
        // Relaxed, both: as in `enter`.
        entry.compare_exchange(uncounted.found, uncounted.found & !UNCOUNTED, Relaxed, Relaxed).is_ok()
    }

    /// For an onlooker: settles a message as timed out, or as unanswered where a gateway holds it, if it is overdue.
    pub(crate) fn settle_overdue(&self, sequence: u64, now_ns: u64, grace_ns: u64) {
        let terms = self.terms_at(sequence);
        let opened = word(sequence, 0);
        // Relaxed, all: terms that belong together say so. Between those of two messages that follow one another in
        // the entry no mixture does, unless both have the same deadline.
        let deadline_ns = terms.deadline_ns.load(Relaxed);
        let checked = terms.check.load(Relaxed) == opened ^ deadline_ns;
        if !checked || terms.opened.load(Relaxed) & !COLLECTED != opened {
            return;
        }
        // Relaxed: the word alone decides.
        let unsettled = PendingReceipt { sequence, found: self.word_at(sequence).load(Relaxed) };
        let grace_ns = match Tells::of(unsettled.found, sequence) {
            Tells::Earlier => 0,
            Tells::This if unsettled.is_in_transit() => grace_ns,
            Tells::This | Tells::Later => return,
        };
        if deadline_ns.saturating_add(CLOCK_MARGIN_NS).saturating_add(grace_ns) < now_ns {
            let verdict = unsettled.given_up(DeliveryStatus::Timeout) | UNCOUNTED;
            // Relaxed, both: as in `enter`. On failure another party was faster, or an earlier message's holder came in
            // between, which changes nothing for who asks again.
            let _ = self.word_at(sequence).compare_exchange(unsettled.found, verdict, Relaxed, Relaxed);
        }
    }

    /// For a proxy: whether the entry for `sequence` holds the receipt of a message of its own whose end its gateway does
    /// not know yet, and which is not at least `old` sequences older. `first` is the first sequence of this proxy.
    pub(crate) fn is_in_use(&self, sequence: u64, first: u64, old: u64) -> bool {
        // Relaxed: this sender's own.
        let opened = self.terms_at(sequence).opened.load(Relaxed);
        let own = sequence_in(opened) >= first && opened & COLLECTED == 0;
        let behind = sequence.wrapping_sub(sequence_in(opened)).cast_signed();
        // Relaxed: the word alone decides. A later message that was given up and is still to be found needs its mark.
        let found = self.word_at(sequence).load(Relaxed);
        let marked = found & (BY_SENDER | FOUND) == BY_SENDER && Tells::of(found, sequence) == Tells::Later;
        marked || own && behind < old.min(i64::MAX as u64).cast_signed()
    }

    /// For a proxy: notes that its gateway knows how the message has ended.
    pub(crate) fn set_collected(&self, sequence: u64) {
        // Relaxed: this sender's own.
        self.terms_at(sequence).opened.store(word(sequence, 0) | COLLECTED, Relaxed);
    }

    /// For the sender: empties the entry of a message that could not be sent after all.
    #[cold]
    pub(crate) fn void(&self, sequence: u64) {
        let opened = &self.terms_at(sequence).opened;
        // Relaxed, both: this sender's own. A predecessor may have died before it opened the receipt.
        if sequence_in(opened.load(Relaxed)) == sequence {
            opened.store(0, Relaxed);
        }
    }

    /// For the sender: the counted verdict of its own in the entry of that sequence which `retract` would take back.
    pub(crate) fn given_up(&self, sequence: u64) -> Option<DeliveryStatus> {
        // Relaxed: the word alone decides.
        let found = self.word_at(sequence).load(Relaxed);
        if found & MARKS == BY_SENDER { status_in(found) } else { None }
    }

    /// For a sender's successor: whether the verdict that [`given_up`](Self::given_up) told of was taken back. The holder
    /// may have found the message since.
    pub(crate) fn was_retracted(&self, sequence: u64) -> bool {
        // Relaxed: the word alone decides.
        self.word_at(sequence).load(Relaxed) & BY_SENDER == 0
    }

    /// For the sender, or its successor: notes that a verdict on this message was taken back, before its entry is used
    /// again.
    pub(crate) fn note_retracted(&self, sequence: u64) {
        // Relaxed: only the successor of a holder that died between two steps reads it, after the entry was used again.
        self.retracted_at(sequence).store(sequence, Relaxed);
    }

    /// For the successor of a holder that was about to mark its sender's verdict as found: whether the mark was set. It
    /// was if the entry tells of a later message and the verdict was not taken back. (An entry remembers one message that
    /// was taken back: of a message before that one, this is a guess.)
    pub(crate) fn was_found(&self, sequence: u64) -> bool {
        // Relaxed, both: the word alone decides; see `note_retracted`.
        let found = self.word_at(sequence).load(Relaxed);
        match Tells::of(found, sequence) {
            Tells::Earlier => false,
            Tells::This => found & (BY_SENDER | FOUND) == BY_SENDER | FOUND,
            Tells::Later => self.retracted_at(sequence).load(Relaxed) != sequence,
        }
    }

    /// For an onlooker: whether the entry of a message tells of a later one.
    pub(crate) fn tells_of_later(&self, sequence: u64) -> bool {
        // Relaxed: a number to show.
        Tells::of(self.word_at(sequence).load(Relaxed), sequence) == Tells::Later
    }

    /// For the successor of a kernel that had this message in hand, or gave it up.
    pub(crate) fn settled(&self, sequence: u64) -> Settlement {
        // Relaxed: the word alone decides.
        let found = self.word_at(sequence).load(Relaxed);
        if Tells::of(found, sequence) != Tells::This || found & UNCOUNTED != 0 {
            return Settlement::No;
        }
        match (found & STATUS, status_in(found)) {
            (RETRACTED | RETRACTED_IN_TRANSIT, _) | (_, None) => Settlement::No,
            (IN_TRANSIT, _) => Settlement::InTransit,
            (_, Some(status)) if found & BY_SENDER != 0 => Settlement::BySender(status),
            (_, Some(status)) => Settlement::ByHolder(status),
        }
    }

    /// Reads a receipt.
    pub(crate) fn read(&self, sequence: u64) -> Result<DeliveryStatus, ReceiptError> {
        if sequence == 0 || sequence > LAST_SEQUENCE {
            return Err(ReceiptError::Unknown);
        }
        // Relaxed, both: see the module's page.
        let opened = self.terms_at(sequence).opened.load(Relaxed);
        let found = self.word_at(sequence).load(Relaxed);
        match (Tells::of(opened, sequence), Tells::of(found, sequence)) {
            (Tells::Later, _) | (_, Tells::Later) => Err(ReceiptError::Overwritten),
            // The entry was wanted for a later message, though its sender may have died, or had no room, before it used it.
            (_, Tells::This) if matches!(found & STATUS, RETRACTED | RETRACTED_IN_TRANSIT) => {
                Err(ReceiptError::Overwritten)
            }
            (_, Tells::This) => status_in(found).ok_or(ReceiptError::Unknown),
            (Tells::This, Tells::Earlier) => Ok(DeliveryStatus::Pending),
            (Tells::Earlier, Tells::Earlier) => Err(ReceiptError::Unknown),
        }
    }

    /// For the sender: deadline and destination of a message whose receipt is still there.
    pub(crate) fn terms(&self, sequence: u64) -> (u64, KernelId) {
        let terms = self.terms_at(sequence);
        // Relaxed: written by the caller itself, or by its predecessor before the index was handed over.
        (terms.deadline_ns.load(Relaxed), KernelId::from_raw(terms.destination.load(Relaxed)))
    }

    /// For an onlooker that copies parts of the receipts: where words and terms are, in bytes from their start.
    #[cfg(not(k2k_loom))]
    pub(crate) fn state_bytes(&self) -> [Range<usize>; 2] {
        let (entries, terms) = (self.capacity() as usize, self.shape.numbers().terms);
        [
            0..entries * size_of::<AtomicU64<Sh::Scope>>(),
            terms..terms + entries * Receipts::<1, 1, Sh::Scope>::TERMS_SIZE,
        ]
    }

    /// For an onlooker: the latest message of each entry that has had one, and what became of it; `None` if a gateway
    /// holds it.
    #[cfg(not(k2k_loom))]
    pub(crate) fn latest(self) -> impl Iterator<Item = Latest> + use<'f, Sh> {
        (0..self.capacity()).filter_map(move |entry| {
            let terms = self.terms_at(entry);
            // Relaxed, all: numbers to show.
            let sequence = sequence_in(terms.opened.load(Relaxed));
            if sequence == 0 {
                return None;
            }
            // An entry that tells of a message that belongs elsewhere is no endpoint's.
            let found = self.word_at(entry).load(Relaxed);
            let status = match Tells::of(found, sequence) {
                Tells::Earlier => Some(DeliveryStatus::Pending),
                Tells::This if found & STATUS == IN_TRANSIT => None,
                Tells::This => Some(status_in(found)?),
                Tells::Later => return None,
            };
            let destination = KernelId::from_raw(terms.destination.load(Relaxed));
            Some(Latest { sequence, status, destination, deadline_ns: terms.deadline_ns.load(Relaxed) })
        })
    }

    /// What receipts add to the count of messages that lie in inboxes and stores, to get that of messages that are not
    /// counted as ended: those that a gateway holds, less those that their sender has given up and counted, and that lie
    /// there still.
    pub(crate) fn balance(&self) -> i64 {
        let contribution = |i| {
            // SAFETY: `i` is less than their number.
            let entry: &AtomicU64<Sh::Scope> = unsafe { self.item(0, i) };
            // Relaxed: a number to show.
            let found = entry.load(Relaxed);
            match (found & STATUS, found & MARKS) {
                (IN_TRANSIT | RETRACTED_IN_TRANSIT, 0) => 1,
                (UNANSWERED, marks) => i64::from(marks == BY_SENDER | UNCOUNTED),
                (_, BY_SENDER) => -1,
                _ => 0,
            }
        };
        (0..self.capacity() as usize).map(contribution).sum()
    }
}

#[cfg(test)]
#[cfg(not(k2k_loom))]
mod tests {
    extern crate std;
    use super::*;
    use crate::shape::Fixed;
    use proptest::prelude::*;
    use std::boxed::Box;

    const TO: KernelId = KernelId::new(0, 1);

    type Table = ReceiptsView<'static, Fixed<1, 4, 0>>;

    fn table() -> Table {
        // SAFETY: `Shared`: zero is the idle state.
        let table: &Receipts<1, 4> = Box::leak(unsafe { Box::new_zeroed().assume_init() });
        // SAFETY: of this shape.
        unsafe { Part::at(core::ptr::NonNull::from_ref(table).cast(), Fixed::SHAPE) }
    }

    /// As the sender: `None` if there was nothing to give up, `false` if the holder was faster.
    fn give_up(table: &Table, sequence: u64, status: DeliveryStatus) -> Option<bool> {
        match table.entry(sequence) {
            Entry::Pending(pending) if pending.sequence == sequence => Some(table.give_up(pending, status)),
            _ => None,
        }
    }

    /// As the sender: whether there was something to count.
    fn count(table: &Table, sequence: u64) -> bool {
        match table.entry(sequence) {
            Entry::Uncounted(uncounted) => table.take_count(uncounted),
            _ => false,
        }
    }

    /// Overdue for onlookers, and with a grace of 5.
    const LATE_NS: u64 = 10 + CLOCK_MARGIN_NS + 1;

    #[test]
    fn the_first_decides() {
        let table = table();
        table.open(1, TO, 10);
        assert_eq!(table.read(1), Ok(DeliveryStatus::Pending));
        assert_eq!(table.decide(1, DeliveryStatus::Timeout), Verdict::Decided);
        assert_eq!(table.decide(1, DeliveryStatus::Delivered), Verdict::Lost);
        assert_eq!(table.read(1), Ok(DeliveryStatus::Timeout));
    }

    #[test]
    fn an_overwritten_receipt_says_so_and_leaves_the_decision_to_the_holder() {
        let table = table();
        table.open(1, TO, 10);
        table.open(5, TO, 10);
        assert_eq!(table.read(1), Err(ReceiptError::Overwritten));
        // Its way can still be decided by all, as long as the later one's is not.
        assert_eq!(table.decide(1, DeliveryStatus::Delivered), Verdict::Decided);
        assert_eq!((table.read(1), table.read(5)), (Err(ReceiptError::Overwritten), Ok(DeliveryStatus::Pending)));
        table.open(9, TO, 10);
        assert_eq!(table.decide(9, DeliveryStatus::Delivered), Verdict::Decided);
        assert_eq!(table.decide(5, DeliveryStatus::Delivered), Verdict::Alone);
        assert_eq!(
            (table.read(5), give_up(&table, 5, DeliveryStatus::Timeout)),
            (Err(ReceiptError::Overwritten), None)
        );
    }

    #[test]
    fn a_senders_verdict_counts_for_the_sender_or_for_the_holder_but_not_for_both() {
        let table = table();
        table.open(1, TO, 10);
        assert_eq!(table.retract(5), None, "nothing of the sender's");
        assert_eq!(give_up(&table, 1, DeliveryStatus::Timeout), Some(true));
        assert_eq!(give_up(&table, 1, DeliveryStatus::NotFound), None);
        assert_eq!((table.read(1), table.balance()), (Ok(DeliveryStatus::Timeout), -1));
        // Found before the entry is needed again: the sender's verdict stands, and the word says who had counted.
        assert_eq!(table.decide(1, DeliveryStatus::Delivered), Verdict::Lost);
        assert_eq!(table.word_at(1).load(Relaxed) & MARKS, BY_SENDER | FOUND);
        assert_eq!(table.decide(1, DeliveryStatus::Delivered), Verdict::Lost);
        assert_eq!((table.read(1), table.retract(5), table.balance()), (Ok(DeliveryStatus::Timeout), None, 0));
        // Found afterwards: the holder's does.
        table.open(5, TO, 10);
        assert_eq!(give_up(&table, 5, DeliveryStatus::NotFound), Some(true));
        assert_eq!(table.retract(9), Some(DeliveryStatus::NotFound));
        assert_eq!(table.retract(9), None);
        table.open(9, TO, 10);
        assert_eq!(table.decide(5, DeliveryStatus::Timeout), Verdict::GivenUp(DeliveryStatus::Timeout));
        assert_eq!(table.decide(5, DeliveryStatus::Timeout), Verdict::Lost, "once");
        assert_eq!(table.read(9), Ok(DeliveryStatus::Pending));
    }

    #[test]
    fn an_onlookers_verdict_counts_for_the_sender_or_for_the_holder_but_not_for_both() {
        // The sender comes by first, or the holder, or the sender needs the entry before either.
        let [first, second, third] = [table(), table(), table()];
        for table in [&first, &second, &third] {
            table.open(1, TO, 10);
            table.settle_overdue(1, LATE_NS - 1, 0);
            assert_eq!(table.read(1), Ok(DeliveryStatus::Pending), "in time");
            table.settle_overdue(1, LATE_NS, 0);
            table.settle_overdue(1, LATE_NS, 0);
            assert_eq!((table.read(1), table.balance()), (Ok(DeliveryStatus::Timeout), 0));
        }
        assert!(count(&first, 1) && !count(&first, 1));
        assert_eq!((first.balance(), first.decide(1, DeliveryStatus::Delivered)), (-1, Verdict::Lost));
        let given_up = Verdict::GivenUp(DeliveryStatus::Timeout);
        assert_eq!((second.decide(1, DeliveryStatus::Delivered), count(&second, 1)), (given_up, false));
        assert_eq!(second.decide(1, DeliveryStatus::Delivered), Verdict::Lost);
        assert_eq!(third.retract(5), None, "not counted, so there is nothing to take back");
        third.open(5, TO, 10);
        assert_eq!(third.decide(1, DeliveryStatus::Delivered), given_up);
        for table in [&first, &second] {
            assert_eq!(table.read(1), Ok(DeliveryStatus::Timeout));
        }
    }

    #[test]
    fn an_onlooker_leaves_alone_what_is_settled_or_not_there_or_of_another_message() {
        let table = table();
        table.settle_overdue(1, u64::MAX, 0);
        assert_eq!(table.read(1), Err(ReceiptError::Unknown));
        table.open(1, TO, 10);
        assert_eq!(table.decide(1, DeliveryStatus::Delivered), Verdict::Decided);
        table.settle_overdue(1, LATE_NS, 0);
        assert_eq!(table.read(1), Ok(DeliveryStatus::Delivered));
        table.open(5, TO, 10_000_000);
        for sequence in [1, 5, 9] {
            table.settle_overdue(sequence, LATE_NS, 0);
        }
        assert_eq!(table.word_at(1).load(Relaxed), word(1, DeliveryStatus::Delivered as u64));
        // The terms of two messages, mixed: the deadline of the next one is there already.
        table.terms_at(5).deadline_ns.store(10, Relaxed);
        table.settle_overdue(5, LATE_NS, 0);
        assert_eq!(table.read(5), Ok(DeliveryStatus::Pending));
        table.terms_at(5).check.store(word(9, 0) ^ 10, Relaxed);
        table.settle_overdue(5, LATE_NS, 0);
        table.settle_overdue(9, LATE_NS, 0);
        assert_eq!(table.read(5), Ok(DeliveryStatus::Pending));
    }

    #[test]
    fn a_message_never_sent_is_unknown() {
        let table = table();
        assert_eq!(table.read(0), Err(ReceiptError::Unknown));
        assert_eq!(table.read(3), Err(ReceiptError::Unknown));
        table.open(1, TO, 10);
        assert_eq!(table.read(5), Err(ReceiptError::Unknown));
        table.open(4, TO, 10);
        assert_eq!(table.read(0), Err(ReceiptError::Unknown));
        assert_eq!(table.read(LAST_SEQUENCE + 1), Err(ReceiptError::Unknown));
    }

    #[test]
    fn a_message_in_transit_is_pending_until_its_holder_settles_it_or_is_late() {
        let table = table();
        table.open(1, TO, 10);
        assert_eq!(table.mark_in_transit(1), Verdict::Decided);
        assert_eq!((table.read(1), table.balance()), (Ok(DeliveryStatus::Pending), 1));
        table.settle_overdue(1, LATE_NS + 4, 5);
        assert_eq!(table.read(1), Ok(DeliveryStatus::Pending), "the grace");
        assert_eq!(table.settle(1, DeliveryStatus::QueueFull), Verdict::Decided);
        assert_eq!((table.read(1), table.balance()), (Ok(DeliveryStatus::QueueFull), 0));
        // Late: by the onlooker or by the sender, and the gateway comes afterwards or never.
        let unanswered = Verdict::GivenUp(DeliveryStatus::Unanswered);
        table.open(5, TO, 10);
        assert_eq!(table.mark_in_transit(5), Verdict::Decided);
        table.settle_overdue(5, LATE_NS + 5, 5);
        assert_eq!((table.read(5), table.balance()), (Ok(DeliveryStatus::Unanswered), 1));
        assert_eq!(table.settle(5, DeliveryStatus::Delivered), unanswered);
        assert_eq!((table.read(5), table.balance()), (Ok(DeliveryStatus::Unanswered), 0));
        table.open(9, TO, 10);
        assert_eq!(table.mark_in_transit(9), Verdict::Decided);
        assert_eq!(give_up(&table, 9, DeliveryStatus::Timeout), Some(true));
        assert_eq!((table.read(9), table.balance()), (Ok(DeliveryStatus::Unanswered), 0));
        assert_eq!(table.settle(9, DeliveryStatus::Delivered), Verdict::Lost);
        // Needed again before the late gateway comes.
        table.open(13, TO, 10);
        assert_eq!(table.mark_in_transit(13), Verdict::Decided);
        assert_eq!(give_up(&table, 13, DeliveryStatus::Timeout), Some(true));
        assert_eq!((table.retract(17), table.balance()), (Some(DeliveryStatus::Unanswered), 1));
        assert_eq!(table.settle(13, DeliveryStatus::Delivered), unanswered);
    }

    #[test]
    fn holders_of_overwritten_messages_settle_alone() {
        let table = table();
        table.open(5, TO, 10);
        assert_eq!(give_up(&table, 5, DeliveryStatus::Timeout), Some(true));
        assert_eq!(table.mark_in_transit(5), Verdict::Lost, "given up before");
        table.open(9, TO, 10);
        assert_eq!(table.mark_in_transit(9), Verdict::Decided);
        table.open(13, TO, 10);
        assert_eq!(table.settle(9, DeliveryStatus::Delivered), Verdict::Decided);
        assert_eq!(table.mark_in_transit(13), Verdict::Decided);
        table.open(17, TO, 10);
        assert_eq!(table.decide(17, DeliveryStatus::Delivered), Verdict::Decided);
        assert_eq!(table.settle(13, DeliveryStatus::Delivered), Verdict::Alone, "overwritten while in transit");
    }

    #[test]
    fn a_proxys_entry_is_in_use_until_it_is_collected_or_old() {
        let table = table();
        assert!(!table.is_in_use(1, 1, 4));
        table.open_out_of_order(1, TO, 10);
        assert!(table.is_in_use(5, 1, 5));
        assert!(!table.is_in_use(5, 1, 4), "old enough");
        assert!(!table.is_in_use(5, 2, 5), "of the proxy before");
        assert_eq!(table.decide(1, DeliveryStatus::Delivered), Verdict::Decided);
        assert!(table.is_in_use(5, 1, 5));
        table.set_collected(1);
        assert!(!table.is_in_use(5, 1, 5));
        // Out of order.
        table.open_out_of_order(9, TO, 10);
        assert!(table.is_in_use(5, 1, 5));
        assert_eq!(table.decide(9, DeliveryStatus::Delivered), Verdict::Decided);
        table.set_collected(9);
        assert!(!table.is_in_use(5, 1, 5));
        table.open_out_of_order(5, TO, 10);
        assert_eq!(table.decide(1, DeliveryStatus::Delivered), Verdict::Alone, "as before: its receipt is overwritten");
        assert_eq!(table.read(5), Ok(DeliveryStatus::Pending));
        assert_eq!(table.decide(5, DeliveryStatus::Delivered), Verdict::Decided);
        assert_eq!(table.read(5), Ok(DeliveryStatus::Delivered));
        // A later one whose sender's verdict is still to be found keeps the entry.
        table.open_out_of_order(13, TO, 10);
        assert_eq!(give_up(&table, 13, DeliveryStatus::Timeout), Some(true));
        table.set_collected(13);
        assert!(table.is_in_use(9, 1, 5));
        assert_eq!(table.decide(13, DeliveryStatus::Delivered), Verdict::Lost);
        assert!(!table.is_in_use(9, 1, 5));
    }

    #[test]
    fn words_that_no_kernel_wrote_cost_a_holder_a_bounded_time() {
        let table = table();
        for garbage in
            [u64::MAX, 1, 8, 0xffff << 48, (1 << 48 | 5) << 4, word(5, RETRACTED), word(5, UNANSWERED) | MARKS]
        {
            (0..4).for_each(|sequence| table.word_at(sequence).store(garbage, Relaxed));
            table.open(5, TO, 10);
            let _ = (table.decide(5, DeliveryStatus::Delivered), table.read(5), table.retract(9));
            let _ = (table.mark_in_transit(5), table.settle(5, DeliveryStatus::Timeout), table.is_in_use(9, 1, 4));
            let _ = (give_up(&table, 5, DeliveryStatus::Timeout), count(&table, 5), table.balance());
            table.settle_overdue(5, u64::MAX, 0);
        }
    }

    proptest! {
        /// What a word says is what was put into it, up to the last sequence, and words are ordered as their sequences.
        #[test]
        fn a_word_is_a_sequence_with_marks_and_a_status(
            sequence in 0..=LAST_SEQUENCE,
            other in 0..=LAST_SEQUENCE,
            marks in 0..8_u64,
            status in 0..16_u64,
        ) {
            let found = word(sequence, status) | marks << BY_SENDER.trailing_zeros();
            prop_assert_eq!((sequence_in(found), found & MARKS, found & STATUS), (sequence, marks << 4, status));
            for other in [other, sequence.saturating_sub(1), sequence, (sequence + 1).min(LAST_SEQUENCE)] {
                let expected = match sequence.cmp(&other) {
                    core::cmp::Ordering::Less => Tells::Earlier,
                    core::cmp::Ordering::Equal => Tells::This,
                    core::cmp::Ordering::Greater => Tells::Later,
                };
                prop_assert_eq!(Tells::of(found, other), expected);
            }
        }

        /// One message of an entry, and what its holder, its sender and onlookers do with it in any order, also after
        /// the entry was needed again: it is counted once, and said to be timed out only if it is not received.
        #[test]
        fn a_message_is_counted_once_whoever_comes_first(
            start in prop_oneof![1..20_u64, LAST_SEQUENCE - 40..LAST_SEQUENCE - 20],
            steps in proptest::collection::vec(0..7_u8, 0..12),
        ) {
            let table = table();
            let mut at = Model { reported: None, counted: 0, received: false, in_transit: false, found: false };
            table.open(start, TO, 10);
            let (mut later, mut given_up) = (start, false);
            for step in steps {
                match step {
                    0 if !at.found && !at.in_transit => at.found(table.decide(start, DeliveryStatus::Delivered)),
                    1 if !at.found && !at.in_transit => match table.mark_in_transit(start) {
                        Verdict::Decided | Verdict::Alone => at.in_transit = true,
                        other => at.found(other),
                    },
                    2 if at.in_transit => {
                        at.in_transit = false;
                        at.found(table.settle(start, DeliveryStatus::Delivered));
                    }
                    3 if later == start && give_up(&table, start, DeliveryStatus::Timeout) == Some(true) => {
                        at.counted += 1;
                        given_up = true;
                    }
                    4 => table.settle_overdue(start, u64::MAX, 0),
                    5 if later == start && count(&table, start) => {
                        at.counted += 1;
                        given_up = true;
                    }
                    6 if later + 4 <= LAST_SEQUENCE => {
                        if table.retract(later + 4).is_some() {
                            at.counted -= 1;
                        }
                        later += 4;
                        table.open(later, TO, 10);
                    }
                    _ => {}
                }
                if let Ok(status) = table.read(start)
                    && status != DeliveryStatus::Pending
                {
                    prop_assert!(at.reported.is_none_or(|reported| reported == status));
                    at.reported = Some(status);
                    prop_assert_eq!(at.received, status == DeliveryStatus::Delivered);
                }
                prop_assert!((0..=1).contains(&at.counted));
            }
            // In the end its holder finds it.
            if at.in_transit {
                at.found(table.settle(start, DeliveryStatus::Delivered));
            } else if !at.found {
                at.found(table.decide(start, DeliveryStatus::Delivered));
            }
            if later == start && count(&table, start) {
                at.counted += 1;
            }
            prop_assert_eq!(at.counted, 1);
            prop_assert!(!(given_up && at.received));
        }
    }

    struct Model {
        reported: Option<DeliveryStatus>,
        counted: i32,
        received: bool,
        in_transit: bool,
        found: bool,
    }

    impl Model {
        fn found(&mut self, verdict: Verdict) {
            self.found = true;
            self.received = matches!(verdict, Verdict::Decided | Verdict::Alone);
            self.counted += i32::from(verdict != Verdict::Lost);
        }
    }
}
