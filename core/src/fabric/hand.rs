//! What a kernel has in hand: notes in shared memory from which a successor finishes or undoes what a death cut in two.
//!
//! Most of what an endpoint does with a message takes two effects: it deposits the message at a next hop and removes it
//! from the store, it settles a receipt and counts. A death in between must neither lose a message nor do something
//! twice. So the endpoint notes the message *before* the first effect, and the successor looks at what the note
//! speaks of and finds out how far the predecessor came.
//!
//! ```text
//!    63              32 31             16 15          4 3    0
//!   +------------------+-----------------+-------------+------+
//!   |        0         |  source's index |   number    | step |     what
//!   +------------------+-----------------+-------------+------+
//!   |  sequence of the message                                |     sequence
//!   +----------------------------+------------+------+-------+-----+
//!   |  position                  |  next hop  | high | known | tag |     to, sending (0: no message is being sent)
//!   +----------------------------+------------+------+-------+-----+
//!    63                        16 15         4    3      2    1  0
//! ```
//!
//! # When a note is open
//!
//! Whatever is done with a message ends with a count: received, forwarded, failed, discarded, corrupt. The *number* is the
//! sum of these counters when the note was written. So the store of the counter is also what closes the note: from then on
//! the sum is another one, and no store is spent on closing. A step that ends without a count (a message was put into
//! the store, or stays there) stores 0. No other word of a note is written while the note is open.
//!
//! # What a successor does
//!
//! | step | what the successor finds | what it does |
//! | --- | --- | --- |
//! | `PASSING` | the message stands in the next hop's inbox, or was taken from there | removes it from the store, counts it as forwarded |
//! | any | the predecessor has settled the receipt | removes the message from the store, counts it as settled |
//! | `CONSUMING`, `PASSING` | the message is at the head of the inbox, or in the store | leaves it there |
//! | `CONSUMING`, `PASSING` | none of these: the message was lost with the predecessor | settles it as `NotFound`, and counts it |
//! | `SETTLING` | a remote domain has said what became of the message | settles it so, and counts it |
//! | any of these, and *found* | the sender's verdict is marked, or its entry was used again and the verdict not taken back | removes the message from the store, counts it as discarded |
//! | any of these, and *found* | none of these | as for `CONSUMING` or `SETTLING` |
//! | `GIVING_UP` | the verdict stands in the receipt | counts it |
//! | sending | the message's receipt is open, perhaps it was counted as sent, and it was not deposited | takes it back: it was never sent |
//!
//! Each of these can itself die half-way: the next successor finds the note still open and does the same.
//!
//! Whether a message was deposited can be read from the ring: the producer is dead, so its recovered tail is beyond the
//! noted position exactly if the stamp was stored. In a high-priority ring the noted slot is claimed by the dead producer,
//! or quarantined for it after a revocation, exactly if the message was not published (see
//! [`was_published`](crate::ring::Ticket::was_published)).
//!
//! 1. All words are written by the kernel's own endpoint and read by its successor.
//!
//! The order of these stores among each other and among the effects is that of the program: a thread that is killed has
//! done everything before some instruction, and nothing behind it. All that is needed of the compiler is to leave them in
//! index ([`keep_order`]).
//!
//! # On a GPU
//!
//! Nothing is noted there ([`DIES_ALONE`]): its kernels end all together, with the memory of their fabric, and nobody can
//! take an index over. An index changes hands only when its kernel has left, and then there is nothing in hand.

use crate::fabric::{COUNTERS, Counter, DeliveryStatus, Entry};
use crate::in_place::make_in;
use crate::message::Header;
use crate::shape::{Index, Shape};
use crate::sync::Ordering::Relaxed;
use crate::sync::{AtomicU64, DIES_ALONE, Scope, keep_order, shared_struct};
use core::mem::MaybeUninit;

shared_struct! {
    /// One kernel's notes.
    #[repr(align(128))]
    pub(crate) struct Hand[][] in S {
        what: AtomicU64<S>,
        sequence: AtomicU64<S>,
        to: AtomicU64<S>,
        sending: AtomicU64<S>,
        sent_sequence: AtomicU64<S>,
    }
}

/// What is being done with a message in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Step {
    /// It is consumed from the inbox, or looked at in the store.
    Consuming = 1,
    /// As `Consuming`, and it is deposited at `to`. Has the bit of `Consuming`, too.
    Passing = 3,
    /// It was in transit to a remote domain; `to` is the status that came back.
    Settling = 2,
    /// The kernel gives up a message of its own.
    GivingUp = 8,
    /// The kernel takes back that it gave up an older message of the receipt's entry; `to` is the status.
    Retracting = 9,
}

/// With `Consuming`, `Passing` or `Settling`: the message's sender has settled it, which is about to be marked as
/// found.
const FOUND: u64 = 4;

/// An open note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) step: Step,
    /// The message's sender has settled it, and the mark that it was found may have been set.
    pub(crate) found: bool,
    /// The kernel index of the message's sender, not checked, and the sequence.
    pub(crate) source: usize,
    pub(crate) sequence: u64,
    pub(crate) to: u64,
}

/// Where a message is deposited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deposit<Sh> {
    /// The ring of normal priority, at this position.
    Normal { hop: Index<Sh>, position: u64 },
    /// The high-priority ring, at this position, or at none yet.
    High { hop: Index<Sh>, position: Option<u64> },
}

/// What a note's number goes up by with each count.
const NUMBER_STEP: u16 = 1 << 4;
const STEP: u64 = 0xf;
const NUMBER: u64 = 0xfff0;
const SOURCE_SHIFT: u32 = 16;

const POSITION_SHIFT: u32 = 16;
const HOP_SHIFT: u32 = 4;
const HOP: u64 = 0xfff;
const HIGH: u64 = 1 << 3;
/// The position is known. Without `HIGH` it always is, so no note of a deposit is 0.
const KNOWN: u64 = 1 << 2;
const TAG: u64 = 3;

impl<Sh: Shape> Deposit<Sh> {
    /// The word for a note.
    #[inline(always)]
    pub(crate) const fn encode(self) -> u64 {
        match self {
            Self::Normal { hop, position } => position << POSITION_SHIFT | (hop.number() as u64) << HOP_SHIFT | KNOWN,
            Self::High { hop, position: Some(position) } => {
                position << POSITION_SHIFT | (hop.number() as u64) << HOP_SHIFT | HIGH | KNOWN
            }
            Self::High { hop, position: None } => (hop.number() as u64) << HOP_SHIFT | HIGH,
        }
    }

    /// What a note's word says; `None` if no endpoint wrote it. The position is that of the deposit modulo 2⁴⁸.
    pub(crate) fn decode(word: u64, shape: &Sh) -> Option<Self> {
        let hop = shape.index((word >> HOP_SHIFT & HOP) as usize)?;
        let position = (word & KNOWN != 0).then_some(word >> POSITION_SHIFT);
        if word & HIGH != 0 {
            Some(Self::High { hop, position })
        } else {
            Some(Self::Normal { hop, position: position? })
        }
    }

    /// Whether a ring whose producer has died at `tail` is beyond this position.
    pub(crate) const fn is_passed_by(position: u64, tail: u64) -> bool {
        (position ^ tail) << POSITION_SHIFT != 0
    }
}

/// The owner's end of a [`Hand`] and of its counters, which close the notes: every count of a kernel is made here.
pub(crate) struct Ledger<'f, S: Scope> {
    hand: &'f Hand<S>,
    entry: &'f Entry<S>,
    counts: [u64; COUNTERS],
    /// This and the count of messages sent are the sequence of the last one.
    base: u64,
    /// The number of the next note: the sum of the counters that end one, in the place of a note's number.
    number: u16,
}

impl<'f, S: Scope> Ledger<'f, S> {
    /// Goes on with the counters that a predecessor left in the kernel's entry: `counts`, which are read once.
    pub(crate) fn recover_in<'e>(
        memory: &'e mut MaybeUninit<Self>,
        hand: &'f Hand<S>,
        entry: &'f Entry<S>,
        counts: [u64; COUNTERS],
        base: u64,
    ) -> &'e mut Self {
        let ended = Counter::ENDING.iter().map(|&counter| counts[counter as usize] as u16);
        let number = ended.fold(0, u16::wrapping_add).wrapping_mul(NUMBER_STEP);
        make_in!(memory, Self { hand: hand, entry: entry, counts: counts, base: base, number: number })
    }

    /// All counters.
    pub(crate) const fn counts(&self) -> &[u64; COUNTERS] {
        &self.counts
    }

    /// A counter's value.
    #[inline(always)]
    pub(crate) const fn of(&self, counter: Counter) -> u64 {
        self.counts[counter as usize]
    }

    /// The sequence of the last message that was sent from this kernel's index.
    #[inline(always)]
    pub(crate) const fn last_sequence(&self) -> u64 {
        self.base.wrapping_add(self.of(Counter::Sent))
    }

    /// For a proxy: before a message is sent under a sequence of its choice, which may be beyond the last one. Then
    /// this is the base from now on.
    pub(crate) const fn skip_to(&mut self, sequence: u64) -> Option<u64> {
        if self.last_sequence() >= sequence {
            return None;
        }
        self.base = sequence.wrapping_sub(self.of(Counter::Sent));
        Some(self.base)
    }

    /// Counts one, which ends the open note if the counter is one that does.
    #[inline(always)]
    pub(crate) fn count(&mut self, counter: Counter) {
        if counter.ends_a_note() {
            self.end_note(1);
        }
        self.set(counter, self.of(counter).wrapping_add(1));
    }

    /// Counts a message of this status that was not delivered, or takes back that it was counted.
    #[cold]
    #[inline(never)]
    pub(crate) fn count_failure(&mut self, status: DeliveryStatus, by: i64) {
        let counter = match status {
            DeliveryStatus::NotFound => Counter::NotFound,
            DeliveryStatus::QueueFull => Counter::QueueFull,
            DeliveryStatus::Timeout => Counter::Timeout,
            DeliveryStatus::MaxHopsExceeded => Counter::MaxHopsExceeded,
            DeliveryStatus::Unanswered => Counter::Unanswered,
            DeliveryStatus::NotAllowed => Counter::NotAllowed,
            DeliveryStatus::Pending | DeliveryStatus::Delivered => return,
        };
        self.end_note(by);
        self.set(counter, self.of(counter).wrapping_add_signed(by));
    }

    #[inline(always)]
    fn set(&mut self, counter: Counter, value: u64) {
        self.counts[counter as usize] = value;
        self.entry.show(counter, value);
    }

    /// One of the counters that end a note is about to be changed by this.
    #[inline(always)]
    const fn end_note(&mut self, by: i64) {
        if !DIES_ALONE {
            return;
        }
        self.number = self.number.wrapping_add((by as u16).wrapping_mul(NUMBER_STEP));
    }

    /// Notes a message that is about to be deposited at `to`, opens its receipt by `open`, and counts it as sent. Receipt
    /// and count go before the deposit: should this kernel die before the message is published, its successor takes back
    /// what was counted, rather than use a sequence twice.
    #[inline(always)]
    pub(crate) fn begin_sending(&mut self, to: u64, sequence: u64, open: impl FnOnce()) {
        let sent = self.of(Counter::Sent).wrapping_add(1);
        self.note_sending(to, sequence, sent);
        open();
        self.set(Counter::Sent, sent);
    }

    /// The message that is being sent was not deposited: voids its receipt by `void`, and takes it out of the count if it
    /// was counted.
    #[inline(always)]
    pub(crate) fn take_back(&mut self, counted: bool, void: impl FnOnce()) {
        void();
        if counted {
            self.set(Counter::Sent, self.of(Counter::Sent).wrapping_sub(1));
        }
    }

    /// Notes a message that is about to be taken out of the inbox. The note before it is closed.
    #[inline(always)]
    pub(crate) fn take(&self, source: u16, sequence: u64) {
        self.open(Step::Consuming, source, sequence);
    }

    #[inline(always)]
    fn open(&self, step: Step, source: u16, sequence: u64) {
        if !DIES_ALONE {
            return;
        }
        // Relaxed, both: rule 1. `what` last: it opens the note.
        self.hand.sequence.store(sequence, Relaxed);
        keep_order();
        self.hand.what.store(u64::from(source) << SOURCE_SHIFT | u64::from(self.number) | step as u64, Relaxed);
        keep_order();
    }

    /// Notes a message with what goes with the step: see [`Step`].
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(crate) fn note(&self, source: u16, sequence: u64, step: Step, to: u64) {
        if !DIES_ALONE {
            return;
        }
        // Relaxed: rule 1; before the note is open.
        self.hand.to.store(to, Relaxed);
        keep_order();
        self.open(step, source, sequence);
    }

    /// For the message that is noted as being consumed: notes where it is about to be deposited, or where in a
    /// high-priority ring the deposit is now.
    #[inline(always)]
    pub(crate) fn pass(&self, to: u64) {
        if !DIES_ALONE {
            return;
        }
        // Relaxed, all: rule 1. `what` last: it makes `to` count.
        self.hand.to.store(to, Relaxed);
        keep_order();
        self.hand.what.store(self.hand.what.load(Relaxed) | Step::Passing as u64, Relaxed);
        keep_order();
    }

    /// For the message that is noted as being consumed, or as being settled: notes that its sender's verdict is about
    /// to be marked as found.
    #[cold]
    #[inline]
    pub(crate) fn found(&self) {
        if !DIES_ALONE {
            return;
        }
        keep_order();
        // Relaxed, both: rule 1.
        self.hand.what.store(self.hand.what.load(Relaxed) | FOUND, Relaxed);
        keep_order();
    }

    /// Closes the note of a message that stays where it is noted to be.
    #[inline(always)]
    pub(crate) fn close(&self) {
        if !DIES_ALONE {
            return;
        }
        keep_order();
        // Relaxed: rule 1.
        self.hand.what.store(0, Relaxed);
        keep_order();
    }

    /// For the message that is being sent: notes where in a high-priority ring the deposit is now.
    #[inline(always)]
    pub(crate) fn deposit(&self, to: u64, sequence: u64) {
        self.note_sending(to, sequence, self.of(Counter::Sent));
    }

    /// `sent` is the count that includes the message.
    #[inline(always)]
    fn note_sending(&self, to: u64, sequence: u64, sent: u64) {
        if !DIES_ALONE {
            return;
        }
        // Relaxed, both: rule 1. `sending` last: it opens the note.
        self.hand.sent_sequence.store(sequence, Relaxed);
        keep_order();
        self.hand.sending.store(to | sent & TAG, Relaxed);
        keep_order();
    }

    /// The message that was being sent has been deposited, or was [taken back](Self::take_back).
    #[inline(always)]
    pub(crate) fn end_sending(&self) {
        if !DIES_ALONE {
            return;
        }
        keep_order();
        // Relaxed: rule 1.
        self.hand.sending.store(0, Relaxed);
        keep_order();
    }

    /// For a successor: the predecessor's open note, if there is one.
    pub(crate) fn noted(&self) -> Option<Note> {
        // Relaxed, all: rule 1; `index-left`, or the caller of `take_over`, made a predecessor's stores visible.
        let what = self.hand.what.load(Relaxed);
        let found = what & FOUND != 0;
        let step = match what & STEP & !FOUND {
            1 => Step::Consuming,
            3 => Step::Passing,
            2 => Step::Settling,
            8 => Step::GivingUp,
            9 => Step::Retracting,
            _ => return None,
        };
        let source = (what >> SOURCE_SHIFT) as usize;
        let (sequence, to) = (self.hand.sequence.load(Relaxed), self.hand.to.load(Relaxed));
        (what & NUMBER == u64::from(self.number) & NUMBER).then_some(Note { step, found, source, sequence, to })
    }

    /// For a successor: the message that the predecessor was sending when it died.
    pub(crate) fn noted_sending<Sh: Shape>(&self, shape: &Sh) -> Option<Sending<Sh>> {
        // Relaxed, both: as in `noted`.
        let word = self.hand.sending.load(Relaxed);
        let counted = (word ^ self.of(Counter::Sent)) & TAG == 0;
        let deposit = Deposit::decode(word, shape).filter(|_| word != 0)?;
        Some(Sending { deposit, sequence: self.hand.sent_sequence.load(Relaxed), counted })
    }
}

/// A message that a predecessor was sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sending<Sh> {
    pub(crate) deposit: Deposit<Sh>,
    pub(crate) sequence: u64,
    /// Whether the predecessor had counted it.
    pub(crate) counted: bool,
}

impl Note {
    /// Whether this is the header of the noted message. Sequences of a kernel index are unique for ever.
    pub(crate) fn is(&self, header: &Header) -> bool {
        usize::from(header.source_index) == self.source && header.sequence == self.sequence
    }

    /// The status that a note of `Settling` or `Retracting` speaks of.
    pub(crate) fn status(&self) -> Option<DeliveryStatus> {
        u8::try_from(self.to).ok().and_then(DeliveryStatus::from_number)
    }
}

#[cfg(test)]
#[cfg(not(k2k_loom))]
mod tests {
    use super::*;
    use crate::shape::{Fan, Fixed};

    fn hand() -> Hand {
        // SAFETY: `Shared`: zero is the idle state.
        unsafe { core::mem::zeroed() }
    }

    fn entry() -> Entry {
        // SAFETY: `Shared`: zero is the idle state.
        unsafe { core::mem::zeroed() }
    }

    fn recover<'f>(hand: &'f Hand, entry: &'f Entry) -> Ledger<'f, crate::sync::System> {
        let mut memory = MaybeUninit::uninit();
        Ledger::recover_in(&mut memory, hand, entry, entry.counters(), 0);
        // SAFETY: made above.
        unsafe { memory.assume_init() }
    }

    #[test]
    fn a_note_is_open_until_something_is_counted() {
        let (hand, entry) = (hand(), entry());
        for counter in Counter::ENDING {
            entry.show(counter, u64::MAX);
        }
        let mut ledger = recover(&hand, &entry);
        assert_eq!(ledger.noted(), None);
        let (source, sequence) = (7, 9);
        for _ in 0..3 {
            ledger.take(7, sequence);
            assert_eq!(
                recover(&hand, &entry).noted(),
                Some(Note { step: Step::Consuming, found: false, source, sequence, to: 0 })
            );
            ledger.count(Counter::Forwarded);
            assert_eq!((ledger.noted(), recover(&hand, &entry).noted()), (None, None));
        }
        ledger.take(7, sequence);
        ledger.pass(5);
        assert_eq!(ledger.noted(), Some(Note { step: Step::Passing, found: false, source, sequence, to: 5 }));
        ledger.begin_sending(0, 1, || ());
        assert!(recover(&hand, &entry).noted().is_some(), "what is sent ends no note");
        ledger.close();
        assert_eq!(ledger.noted(), None);
    }

    #[test]
    fn where_a_message_is_deposited_can_be_read_again() {
        let shape = Fixed::<4096, 1, 0>::SHAPE;
        let hop = shape.index(4095).unwrap();
        for to in [
            Deposit::Normal { hop, position: u64::MAX >> POSITION_SHIFT },
            Deposit::Normal { hop: shape.first(), position: 0 },
            Deposit::High { hop, position: None },
            Deposit::High { hop, position: Some(1) },
        ] {
            assert_eq!(Deposit::decode(to.encode(), &shape), Some(to));
            let (hand, entry) = (hand(), entry());
            entry.show(Counter::Sent, 5);
            let mut ledger = recover(&hand, &entry);
            ledger.begin_sending(to.encode(), 77, || {
                let found = recover(&hand, &entry).noted_sending(&shape);
                assert_eq!(found, Some(Sending { deposit: to, sequence: 77, counted: false }));
            });
            let found = recover(&hand, &entry).noted_sending(&shape);
            assert_eq!(found, Some(Sending { deposit: to, sequence: 77, counted: true }));
            ledger.end_sending();
            assert_eq!(ledger.noted_sending(&shape), None);
        }
        assert_eq!(Deposit::decode(2 << HOP_SHIFT | KNOWN, &Fixed::<2, 1, 0>::SHAPE), None);
    }
}
