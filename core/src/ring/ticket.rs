//! A bounded ring that any number of producers share, and one consumer, in one memory domain.
//!
//! Vyukov's bounded MPMC queue (2010) gives each slot a sequence number, so that the slot itself says whose turn it is;
//! this keeps that idea and mends its weak point. In Vyukov's queue a producer that stops between taking a position
//! and publishing it stops the consumer for good. Here a slot's word is a small state machine that also names the
//! producer, each contested step is one compare-exchange, and the consumer may give up on a producer: whichever of the
//! two moves the word first decides, and the loser can see it.
//!
//! ```text
//!    63                              19       18       17..16   15..0
//!   +----------------------------------+-------------+-------+----------+
//!   |     lap = position / N           | quarantined | phase | producer |   zero: FREE for lap 0
//!   +----------------------------------+-------------+-------+----------+
//! ```
//!
//! | step | by | from | to |
//! | --- | --- | --- | --- |
//! | claim | producer at the tail | `FREE(p)` | `CLAIMED(p)` |
//! | publish, abort | the claim's owner | `CLAIMED(p)` | `PUBLISHED(p)`, `VOID(p)` |
//! | pop, pass | consumer | `PUBLISHED(p)`, `VOID(p)` | `FREE(p + N)` |
//! | revoke | consumer | `CLAIMED(p)` | `FREE(p + N)` quarantined |
//! | skip | producer at the tail | `FREE(p)` quarantined | `VOID(p)` quarantined |
//! | pass | consumer | `VOID(p)` quarantined | `FREE(p + N)` quarantined |
//! | give back | the revoked owner | `FREE(p)` or `VOID(p)` quarantined | the same, not quarantined |
//!
//! A *quarantined* slot is out of service: a producer that was given up may still write its body. Its positions are
//! skipped until that producer comes back, finds out, and clears the mark.
//!
//! # Invariants
//!
//! 1. A slot's lap is that of the next position that the consumer visits there. Only a step that passes the position
//!    changes it.
//! 2. For one position the phase only goes up, and a cleared mark never returns. So a word never has the same value
//!    twice, and a compare-exchange that succeeds has not overlooked anything.
//! 3. `tail` goes beyond `p` only when `p` is not `FREE` any more. So positions are claimed in order, and a consumer
//!    that finds `FREE` at its head knows without a look at `tail` that nothing waits behind it.
//!
//! # Who may touch what
//!
//! 1. `TicketSlot::body`: the producer's from its claim until it publishes, aborts, or (given up meanwhile) clears the
//!    mark; the consumer's from seeing `PUBLISHED` until it frees the slot. Nobody else's in any state.
//! 2. `TicketSlot::word`: `FREE` may be changed by any producer at the tail; `CLAIMED` by its owner and the consumer;
//!    `PUBLISHED` and `VOID` by the consumer; the mark is cleared by its owner. A store (not a compare-exchange) only
//!    where a single party may act: `PUBLISHED`, and `VOID` without the mark.
//! 3. `tail`: a hint that only grows, moved by any producer. `head`: the consumer's, for observers and a successor.
//!
//! # Synchronisation
//!
//! | label | release | acquire | what becomes visible |
//! | --- | --- | --- | --- |
//! | `slot-published` | publishing compare-exchange | consumer's load of the word | the body written before |
//! | `slot-freed` | consumer's store of `FREE`; abort; clearing the mark | claiming compare-exchange (through the consumer, where it passes a `VOID`) | that the former owner is done with the body |
//! | `claims-below` | moving the tail | reading the tail | that every position below is not `FREE`: a message that was published before a `pop` began is never hidden from it |
//! | `end-handed-over` | the consumer end's release | its claim | everything the previous consumer did |
//!
//! # Progress, and what the dead cost
//!
//! `claim` is lock-free: it repeats only if another producer got ahead. Publishing and `pop` are wait-free, and `pop`
//! passes at most `N` skipped positions. Nobody waits for a stalled producer: others claim behind it, and the
//! consumer is told [`TicketPop::Stalled`], so that it can decide how long is too long. `Stalled` is no verdict: a
//! producer that is just copying its message looks the same.
//!
//! * A producer that stalls and is revoked gets [`Revoked`]: its message was not sent. Until then it costs one slot.
//! * A producer that dies costs one slot, until [`Ticket::reclaim`] brings that back.
//! * A consumer that dies inside `pop` has either consumed that message or left it; no other is lost or repeated.
//!
//! Every loop is bounded: `2 N + 64` rounds without luck count as a full (or empty) ring. No content of the words does
//! worse than that. After each lost race a producer waits twice as long as after the one before, so that the winner can
//! go on with the lines that it has won.
//!
//! # Laps
//!
//! 45 bits of lap and 64 of position wrap without harm: laps are compared modulo 2⁴⁵, and a producer that slept for
//! so long finds its slot claimed or quarantined as it left it.

use super::spsc::{CONSUMER_WRITES_LINES, InUse, Slot, claim_end, release_end};
use crate::error::Full;
use crate::shape::{Ring, Typed};
use crate::sync::Ordering::{Acquire, Relaxed, Release};
use crate::sync::{AtomicU32, AtomicU64, Body, ReachesHere, Scope, SharedCell, System, shared_struct, spin_hint};
use bytemuck::AnyBitPattern;
use core::fmt;
use core::marker::PhantomData;
use core::mem::offset_of;
#[cfg(not(k2k_loom))]
use core::ops::Range;
use core::ptr::NonNull;

/// What a slot's word says. See the module's page for the bits.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Word(u64);

/// The position may be claimed (or, in a quarantined slot, skipped).
const FREE: u64 = 0 << 16;
/// A producer is writing the body.
const CLAIMED: u64 = 1 << 16;
/// The body is a message.
const PUBLISHED: u64 = 2 << 16;
/// There is no message at this position, and there will be none.
const VOID: u64 = 3 << 16;
const PHASE: u64 = 3 << 16;
/// A producer that was given up may still write the body.
const QUARANTINED: u64 = 1 << 18;
const LAP_SHIFT: u32 = 19;

/// Spin hints after a lost race, at most. None under loom, which knows no time, but takes each for a step.
const BACKOFF_LIMIT: u32 = if cfg!(k2k_loom) { 0 } else { 32 };

impl Word {
    /// `FREE` for a position of a ring with so many slots.
    #[inline(always)]
    const fn free(position: u64, slots: usize) -> Self {
        Self((position >> slots.trailing_zeros()) << LAP_SHIFT)
    }

    /// By how many laps the word is ahead of a position: 0 if it speaks of that very position.
    #[inline(always)]
    const fn laps_ahead(self, position: u64, slots: usize) -> i64 {
        self.0.wrapping_sub(Self::free(position, slots).0).cast_signed() >> LAP_SHIFT
    }

    #[inline(always)]
    const fn phase(self) -> u64 {
        self.0 & PHASE
    }

    #[inline(always)]
    const fn is_quarantined(self) -> bool {
        self.0 & QUARANTINED != 0
    }

    /// The owner of a claimed or quarantined slot.
    #[inline(always)]
    const fn producer(self) -> u16 {
        self.0 as u16
    }

    #[inline(always)]
    const fn is_quarantined_for(self, producer: u16) -> bool {
        self.is_quarantined() && self.producer() == producer
    }

    /// The same position, mark and producer in another phase.
    #[inline(always)]
    const fn with(self, phase: u64) -> Self {
        Self(self.0 & !PHASE | phase)
    }

    /// `FREE` for the next lap; the mark and the producer stay.
    #[inline(always)]
    const fn next_lap(self) -> Self {
        Self(self.with(FREE).0.wrapping_add(1 << LAP_SHIFT))
    }

    /// Without mark and producer.
    #[inline(always)]
    const fn unowned(self) -> Self {
        Self(self.0 & !(QUARANTINED | 0xffff))
    }
}

shared_struct! {
    struct TicketSlot[T: AnyBitPattern + Send,][T,] in S {
        word: AtomicU64<S>,
        body: SharedCell<T>,
    }
}

shared_struct! {
    /// Where the next claim is likely to succeed, on a line of its own.
    #[repr(align(128))]
    struct Tail[][] in S {
        position: AtomicU64<S>,
    }
}

shared_struct! {
    /// How far the consumer has read, lazily, and whether there is one.
    #[repr(align(128))]
    struct Head[][] in S {
        position: AtomicU64<S>,
        consumer: AtomicU32<S>,
    }
}

shared_struct! {
    /// A ring of exactly `N` messages for any number of producers and one consumer. `N` is a power of two, 32768 at most.
    ///
    /// Zeroed memory is an empty ring. All parties must be in one memory domain: the processors of one host, or one GPU.
    ///
    /// ```
    /// use k2k_core::ring::{Ticket, ticket::TicketPop};
    ///
    /// static RING: Ticket<u64, 16> = Ticket::new();
    /// let mut first = RING.producer(1);
    /// let mut second = RING.producer(2);
    /// let mut consumer = RING.consumer().expect("the only consumer");
    /// first.push(&10).expect("an empty ring has room");
    /// second.push(&20).expect("room");
    /// assert_eq!(consumer.pop(), TicketPop::Message(10));
    /// assert_eq!(consumer.pop(), TicketPop::Message(20));
    /// assert_eq!(consumer.pop(), TicketPop::Empty);
    /// ```
    pub struct Ticket[T: AnyBitPattern + Send, const N: usize,][T, N,] in S {
        tail: Tail<S>,
        head: Head<S>,
        slots: [TicketSlot<T, S>; N],
    }
}

/// The consumer gave up on this producer between claim and publish. The message was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revoked;

impl fmt::Display for Revoked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the consumer gave up waiting for this message, which was not sent")
    }
}

impl core::error::Error for Revoked {}

/// Why a push was refused. The message is still the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TicketError {
    /// No slot is free (or others were faster `2 N + 64` times).
    Full,
    /// The consumer gave up waiting between claim and publish.
    Revoked,
}

impl fmt::Display for TicketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => Full.fmt(f),
            Self::Revoked => Revoked.fmt(f),
        }
    }
}

impl core::error::Error for TicketError {}

impl From<Full> for TicketError {
    fn from(Full: Full) -> Self {
        Self::Full
    }
}

impl From<Revoked> for TicketError {
    fn from(Revoked: Revoked) -> Self {
        Self::Revoked
    }
}

/// What the consumer found at its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TicketPop<T> {
    /// The oldest message.
    Message(T),
    /// No position is claimed.
    Empty,
    /// The oldest position is claimed but not published yet; newer messages may wait behind it. Ask again, or
    /// [revoke](TicketConsumer::revoke) the position.
    Stalled {
        /// Whose claim it is.
        producer: u16,
        /// Which position: as long as it stays the same, it is the same claim.
        position: u64,
    },
}

impl<T: AnyBitPattern + Send, const N: usize, S: Scope> Ticket<T, N, S> {
    /// The ring as the algorithm sees it.
    #[inline(always)]
    pub(crate) const fn view(&self) -> TicketView<'_, Typed<T, 1, N, S>> {
        const {
            assert!(offset_of!(Self, tail) == 0 && offset_of!(Self, head) == size_of::<Tail<S>>());
            assert!(offset_of!(Self, slots) == size_of::<Tail<S>>() + size_of::<Head<S>>());
            assert!(size_of::<TicketSlot<T, S>>() == size_of::<Slot<T, S>>());
        }
        // SAFETY: a ring of this very shape.
        unsafe { TicketView::at(NonNull::from_ref(self).cast(), Typed::SHAPE) }
    }

    /// For the successor of a producer that has died, before [`reclaim`](Self::reclaim): whether the message of its last
    /// claim, at this position (modulo a multiple of `N`), was published. If not, the slot is still claimed by that producer,
    /// or quarantined for it: nobody else can change that, and a dead producer makes no further claim.
    #[must_use]
    pub fn was_published(&self, position: u64, producer: u16) -> bool {
        self.view().was_published(position, producer)
    }

    /// Brings back what a dead producer had: its claims become void, and slots quarantined for it go back into service.
    /// Returns how many slots that were. Anyone may call this, at any time, while the ring is in use.
    ///
    /// # Safety
    /// Every producer with this id has ended, without a claim that will still be used, and the caller knows it by
    /// means that order memory: a joined thread, a process that was waited for, a word that the producer stored last.
    pub unsafe fn reclaim(&self, producer: u16) -> usize
    where
        S: ReachesHere,
    {
        // SAFETY: the caller's promise is the same.
        unsafe { self.view().reclaim(producer) }
    }
}

/// The consumer's half of a ring: where it reads next, and what it has told observers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TicketConsumerState {
    pub(crate) head: u64,
    published: u64,
}

/// Waiting after a lost race, twice as long each time: the winner gets to use the lines it has won.
struct Backoff(u32);

impl Backoff {
    #[inline(always)]
    fn wait(&mut self) {
        let hints = self.0.min(BACKOFF_LIMIT);
        for _ in 0..hints {
            spin_hint();
        }
        self.0 = hints * 2;
    }
}

/// A position that this producer owns, and its slot's word.
#[derive(Clone, Copy)]
struct Claimed {
    position: u64,
    word: Word,
}

/// A slot, wherever it is.
struct TicketSlotView<'r, R: Ring> {
    word: &'r AtomicU64<R::Scope>,
    body: Body<'r, R::Item>,
}

/// A ring wherever it is: what the algorithm works on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TicketView<'r, R: Ring> {
    base: NonNull<u8>,
    ring: R,
    memory: PhantomData<&'r AtomicU64<R::Scope>>,
}

// SAFETY: what is behind it are atomics, and cells of `Send` items that the protocol hands over.
unsafe impl<R: Ring> Send for TicketView<'_, R> {}
// SAFETY: as above.
unsafe impl<R: Ring> Sync for TicketView<'_, R> {}

impl<'r, R: Ring> TicketView<'r, R> {
    /// How far the slots are from the start.
    pub(crate) const SLOTS: usize = size_of::<Tail<R::Scope>>() + size_of::<Head<R::Scope>>();

    /// # Safety
    /// For `'r`, there is a ring of this shape at `base`.
    #[inline(always)]
    pub(crate) const unsafe fn at(base: NonNull<u8>, ring: R) -> Self {
        Self { base, ring, memory: PhantomData }
    }

    /// Rounds after which a loop gives up: each position can cost a consumer two. In a healthy ring only a producer that
    /// lost that many races gets here.
    #[inline(always)]
    fn rounds(self) -> u64 {
        self.ring.slots() as u64 * 2 + 64
    }

    #[inline(always)]
    fn tail_word(self) -> &'r AtomicU64<R::Scope> {
        // SAFETY: it stands first.
        unsafe { &self.base.cast::<Tail<R::Scope>>().as_ref().position }
    }

    #[inline(always)]
    fn head_word(self) -> &'r AtomicU64<R::Scope> {
        // SAFETY: it follows the tail.
        unsafe { &self.base.cast::<Tail<R::Scope>>().add(1).cast::<Head<R::Scope>>().as_ref().position }
    }

    #[inline(always)]
    fn at_index(self, i: usize) -> TicketSlotView<'r, R> {
        // SAFETY: callers' `i` is below the number of slots, and each is as long as the shape says: a word and a body.
        unsafe {
            let slot = self.base.add(Self::SLOTS + i * self.ring.stride());
            let body = slot.add(offset_of!(TicketSlot<R::Item, R::Scope>, body));
            TicketSlotView { word: slot.cast().as_ref(), body: Body::at(body, self.ring.lines()) }
        }
    }

    #[inline(always)]
    fn at_position(self, position: u64) -> TicketSlotView<'r, R> {
        self.at_index(position as usize & self.ring.mask())
    }

    /// Whether the consumer has not consumed the message that this producer has at a position.
    #[inline(always)]
    pub(crate) fn is_waiting(self, position: u64, producer: u16) -> bool {
        // Relaxed: a producer's own words are known to it and to its successor, and a count needs no more.
        let seen = Word(self.at_position(position).word.load(Relaxed));
        seen.laps_ahead(position, self.ring.slots()) == 0
            && matches!(seen.phase(), CLAIMED | PUBLISHED)
            && seen.producer() == producer
    }

    /// For a producer: how many of its messages the consumer has not consumed, and the position of the oldest. A look
    /// at all positions that the consumer has not passed.
    pub(crate) fn waiting_of(self, producer: u16) -> (u32, u64) {
        // Relaxed, both: its own claims have moved the tail before, or have seen it beyond. Positions are passed in order,
        // so that nothing waits below one that was passed.
        let mut position = self.tail_word().load(Relaxed);
        let (mut count, mut oldest) = (0, position);
        for _ in 0..self.ring.slots() {
            position = position.wrapping_sub(1);
            if Word(self.at_position(position).word.load(Relaxed)).laps_ahead(position, self.ring.slots()) > 0 {
                break;
            }
            if self.is_waiting(position, producer) {
                count += 1;
                oldest = position;
            }
        }
        (count, oldest)
    }

    fn slots(self) -> impl Iterator<Item = TicketSlotView<'r, R>> + use<'r, R> {
        let ring = self;
        (0..ring.ring.slots()).map(move |i| ring.at_index(i))
    }

    /// Moves the tail beyond a position that was seen claimed, skipped or passed; returns the tail as it is then.
    #[inline(always)]
    fn tail_beyond(self, position: u64) -> u64 {
        let next = position.wrapping_add(1);
        // Release [claims-below]: this thread has seen `position` not FREE; whoever reads this tail sees the same.
        // Relaxed on failure: someone else moved it, and it is read again.
        if self.tail_word().compare_exchange(position, next, Release, Relaxed).is_ok() { next } else { self.tail() }
    }

    #[inline(always)]
    fn tail(self) -> u64 {
        // Acquire [claims-below]: what this producer will publish makes all earlier claims visible with it.
        self.tail_word().load(Acquire)
    }

    /// Messages in the ring, for an onlooker.
    pub(crate) fn waiting(self) -> u64 {
        // Relaxed: a number to show.
        self.slots().map(|slot| u64::from(Word(slot.word.load(Relaxed)).phase() == PUBLISHED)).sum()
    }

    /// For an onlooker: the positions that may hold a message that waits. The tail is a hint, so it is one of them.
    #[cfg(not(k2k_loom))]
    pub(crate) fn in_use(self) -> impl Iterator<Item = u64> + use<'r, R> {
        // Relaxed, both: a number to show.
        let (head, tail) = (self.head_word().load(Relaxed), self.tail_word().load(Relaxed));
        let count = tail.wrapping_sub(head).saturating_add(1).min(self.ring.slots() as u64);
        (0..count).map(move |i| head.wrapping_add(i))
    }

    /// For an onlooker: the producer of the message that waits at a position, if one does.
    #[cfg(not(k2k_loom))]
    pub(crate) fn producer_at(self, position: u64) -> Option<u16> {
        // Relaxed: a number to show.
        let word = Word(self.at_position(position).word.load(Relaxed));
        let waits = word.phase() == PUBLISHED && word.laps_ahead(position, self.ring.slots()) == 0;
        waits.then_some(word.producer())
    }

    /// For an onlooker that copies parts of a ring: where its positions are, in bytes from its start.
    #[cfg(not(k2k_loom))]
    pub(crate) const ENDS: Range<usize> = 0..Self::SLOTS;

    /// As [`ENDS`](Self::ENDS): where the slot of a position is. Its first eight bytes are its word.
    #[cfg(not(k2k_loom))]
    pub(crate) fn slot_bytes(self, position: u64) -> Range<usize> {
        let at = Self::SLOTS + (position as usize & self.ring.mask()) * self.ring.stride();
        at..at + self.ring.stride()
    }

    /// For an onlooker with a copy of its own: copies out the message that waits at a position.
    #[cfg(not(k2k_loom))]
    pub(crate) fn peek(self, position: u64, message: &mut R::Item) -> bool
    where
        R::Item: crate::shape::Packet,
    {
        let is_there = self.producer_at(position).is_some();
        if is_there {
            // SAFETY: nobody writes an onlooker's copy.
            unsafe { self.at_position(position).body.read_used(message, crate::shape::Packet::used) };
        }
        is_there
    }

    fn reclaim_slot(self, slot: &TicketSlotView<'r, R>, producer: u16) -> bool {
        for _ in 0..self.rounds() {
            // Relaxed: the compare-exchange decides.
            let seen = Word(slot.word.load(Relaxed));
            let new = if seen.is_quarantined_for(producer) {
                seen.unowned()
            } else if seen.phase() == CLAIMED && seen.producer() == producer {
                seen.with(VOID).unowned()
            } else {
                return false;
            };
            // Release [slot-freed]: what the dead producer wrote, which the caller has seen to be over, happens before
            // the next owner writes. Relaxed on failure: the consumer, or a producer that skips, moved it: look again.
            if slot.word.compare_exchange(seen.0, new.0, Release, Relaxed).is_ok() {
                return true;
            }
        }
        false
    }

    /// For the successor of a producer that has died, before [`reclaim`](Self::reclaim): whether the message of its last
    /// claim, at this position (modulo a multiple of `N`), was published. If not, the slot is still claimed by that producer,
    /// or quarantined for it: nobody else can change that, and a dead producer makes no further claim.
    pub(crate) fn was_published(self, position: u64, producer: u16) -> bool {
        // Relaxed: a producer's own words are known to its successor, and a consumer that revokes, or takes the message,
        // does not change the answer.
        let seen = Word(self.at_position(position).word.load(Relaxed));
        !(seen.phase() == CLAIMED && seen.producer() == producer || seen.is_quarantined_for(producer))
    }

    /// Brings back what a dead producer had: its claims become void, and slots quarantined for it go back into service.
    /// Returns how many slots that were. Anyone may call this, at any time, while the ring is in use.
    ///
    /// # Safety
    /// Every producer with this id has ended, without a claim that will still be used, and the caller knows it by
    /// means that order memory: a joined thread, a process that was waited for, a word that the producer stored last.
    pub(crate) unsafe fn reclaim(self, producer: u16) -> usize {
        self.slots().filter(|slot| self.reclaim_slot(slot, producer)).count()
    }

    /// Takes the next position for the producer `id`.
    #[inline(always)]
    fn claim(self, id: u16) -> Result<Claimed, Full> {
        let mut tail = self.tail();
        let mut backoff = Backoff(1);
        for _ in 0..self.rounds() {
            let slot = self.at_position(tail);
            // Relaxed: the compare-exchange decides, and for moving the tail it is enough to have seen the word.
            let seen = Word(slot.word.load(Relaxed));
            match seen.laps_ahead(tail, self.ring.slots()) {
                // The consumer has still to pass the position one lap below.
                ..0 => return Err(Full),
                0 if seen.phase() == FREE => {
                    let word =
                        if seen.is_quarantined() { seen.with(VOID) } else { Word(seen.0 | CLAIMED | u64::from(id)) };
                    // Acquire [slot-freed]: the former owner is done with the body. (Release is not needed: a claim
                    // says nothing of the body.) Relaxed on failure: another producer was faster: look again.
                    if slot.word.compare_exchange(seen.0, word.0, Acquire, Relaxed).is_err() {
                        backoff.wait();
                        continue;
                    }
                    let position = tail;
                    tail = self.tail_beyond(position);
                    if !seen.is_quarantined() {
                        return Ok(Claimed { position, word });
                    }
                }
                // Claimed by another, who may not have moved the tail yet, or passed already: an old tail.
                _ => {
                    backoff.wait();
                    tail = self.tail_beyond(tail);
                }
            }
        }
        Err(Full)
    }

    #[inline(always)]
    fn publish(self, id: u16, claimed: Claimed, note: impl FnOnce(Option<u64>)) -> Result<(), Revoked> {
        let Claimed { position, word } = claimed;
        let slot = self.at_position(position);
        // Release [slot-published]: the body written under this claim is visible to the consumer that sees the word.
        // Relaxed on failure: the consumer has given up; nothing of its is needed.
        if slot.word.compare_exchange(word.0, word.with(PUBLISHED).0, Release, Relaxed).is_ok() {
            return Ok(());
        }
        // For a successor: as long as the mark stands, it says that nothing was published.
        note(None);
        self.give_back(id, &slot);
        Err(Revoked)
    }

    fn abort(self, id: u16, claimed: Claimed) {
        let Claimed { position, word } = claimed;
        let slot = self.at_position(position);
        // Release [slot-freed]: what was written under this claim happens before the next owner writes; the consumer
        // passes it on. Relaxed on failure: as in `publish`.
        if slot.word.compare_exchange(word.0, word.with(VOID).unowned().0, Release, Relaxed).is_err() {
            self.give_back(id, &slot);
        }
    }

    /// Puts a slot whose claim was revoked back into service.
    #[cold]
    fn give_back(self, id: u16, slot: &TicketSlotView<'r, R>) {
        for _ in 0..self.rounds() {
            // Relaxed: the compare-exchange decides. A word without the mark is one that `reclaim` has cleared.
            let seen = Word(slot.word.load(Relaxed));
            if !seen.is_quarantined_for(id) {
                return;
            }
            // Release [slot-freed]: this producer's late writes happen before the next owner's.
            // Relaxed on failure: the position was skipped or passed meanwhile: look again.
            if slot.word.compare_exchange(seen.0, seen.unowned().0, Release, Relaxed).is_ok() {
                return;
            }
        }
    }

    /// Appends the lines of `value` that hold its first `used` bytes.
    ///
    /// # Errors
    /// [`TicketError`]: no slot, or the consumer gave up while the message was being written.
    #[inline(always)]
    pub(crate) fn push(self, id: u16, value: &R::Item, used: usize) -> Result<(), TicketError> {
        // SAFETY: `fill` is called with a slot that is this producer's to write.
        self.push_with(id, |body| unsafe { body.write(value, used) }, |_| {})
    }

    /// Appends what `fill` writes, for the producer `id`. `note` is told the position that was claimed, and `None` before the slot is given back
    /// after a revocation: what [`was_published`](Ticket::was_published) needs to know.
    ///
    /// # Errors
    /// As for [`push`](Self::push).
    #[inline(always)]
    pub(crate) fn push_with(
        self,
        id: u16,
        fill: impl FnOnce(Body<'r, R::Item>),
        note: impl Fn(Option<u64>),
    ) -> Result<(), TicketError> {
        let claimed = self.claim(id)?;
        note(Some(claimed.position));
        // Rule 1: claimed, so this producer's until `publish`, even if the claim is revoked meanwhile.
        fill(self.at_position(claimed.position).body);
        Ok(self.publish(id, claimed, note)?)
    }

    /// Finds the consumer's exact position in a ring that may have been in use: the first position, from the one that
    /// was stored last, that has not been passed.
    pub(crate) fn recover_consumer(self) -> TicketConsumerState {
        // Relaxed, both: only this end writes the head and raises laps, and the claim of the end has made its
        // predecessor's stores visible.
        let published = self.head_word().load(Relaxed);
        let mut head = published;
        while head.wrapping_sub(published) < self.ring.slots() as u64
            && Word(self.at_position(head).word.load(Relaxed)).laps_ahead(head, self.ring.slots()) > 0
        {
            head = head.wrapping_add(1);
        }
        TicketConsumerState { head, published }
    }

    /// Whether `pop` would say anything but [`TicketPop::Empty`], or has a skipped position to pass.
    #[inline(always)]
    pub(crate) fn ready(self, state: &TicketConsumerState) -> bool {
        // Relaxed: `pop` looks for itself, and sees this word or a later one.
        let seen = Word(self.at_position(state.head).word.load(Relaxed));
        // The phase first: mostly the slot is free, and the lap needs the shape.
        seen.phase() != FREE && seen.laps_ahead(state.head, self.ring.slots()) == 0
    }

    /// Takes the oldest message.
    #[inline(always)]
    fn pop(self, state: &mut TicketConsumerState) -> TicketPop<R::Item> {
        let mut value = bytemuck::Zeroable::zeroed();
        match self.pop_into(state, &mut value, |_| size_of::<R::Item>()) {
            TicketPop::Message(()) => TicketPop::Message(value),
            TicketPop::Empty => TicketPop::Empty,
            TicketPop::Stalled { producer, position } => TicketPop::Stalled { producer, position },
        }
    }

    /// Takes the oldest message; `used` says how many of its bytes count, from the first line alone, and is called before
    /// the message counts as consumed. Bytes behind stay what they were.
    ///
    /// If a push happened before this call and its message was not consumed yet, the answer is not `Empty`.
    #[inline(always)]
    pub(crate) fn pop_into(
        self,
        state: &mut TicketConsumerState,
        to: &mut R::Item,
        used: impl FnOnce(&R::Item) -> usize,
    ) -> TicketPop<()> {
        match self.front(state) {
            TicketPop::Message((slot, seen)) => {
                // SAFETY: rule 1: published, so this consumer's until it stores FREE.
                let used = unsafe { slot.body.read_used(to, used) };
                if CONSUMER_WRITES_LINES {
                    // Relaxed: for a successor, should this consumer die here: the message is consumed.
                    slot.word.store(seen.with(VOID).unowned().0, Relaxed);
                    // SAFETY: rule 1: still this consumer's; the value has been copied out.
                    unsafe { slot.body.write_back(used) };
                }
                self.free(state, &slot);
                TicketPop::Message(())
            }
            TicketPop::Empty => TicketPop::Empty,
            TicketPop::Stalled { producer, position } => TicketPop::Stalled { producer, position },
        }
    }

    /// Copies out the first line of the oldest message, which stays in the ring.
    pub(crate) fn peek_head<H: bytemuck::Pod>(self, state: &mut TicketConsumerState) -> TicketPop<H> {
        match self.front(state) {
            // SAFETY: rule 1: published, so this consumer's until it stores FREE.
            TicketPop::Message((slot, _)) => TicketPop::Message(unsafe { slot.body.read_head() }),
            TicketPop::Empty => TicketPop::Empty,
            TicketPop::Stalled { producer, position } => TicketPop::Stalled { producer, position },
        }
    }

    /// The slot of the oldest message, and its word. Passes the positions before it that hold no message.
    #[inline(always)]
    fn front(self, state: &mut TicketConsumerState) -> TicketPop<(TicketSlotView<'r, R>, Word)> {
        for _ in 0..self.rounds() {
            let slot = self.at_position(state.head);
            // Acquire [slot-published]: pairs with `publish`; the body is visible. For a VOID it pairs with its former
            // owner's [slot-freed]: what that one wrote is passed on with FREE.
            let seen = Word(slot.word.load(Acquire));
            if seen.laps_ahead(state.head, self.ring.slots()) != 0 {
                // By invariant 1, a lie of whoever can write the word: the ring counts as empty.
                break;
            }
            match seen.phase() {
                PUBLISHED => return TicketPop::Message((slot, seen)),
                CLAIMED => return TicketPop::Stalled { producer: seen.producer(), position: state.head },
                VOID if seen.is_quarantined() => {
                    // Relaxed: the body stays its owner's. On failure the owner has come back: look again.
                    if slot.word.compare_exchange(seen.0, seen.next_lap().0, Relaxed, Relaxed).is_ok() {
                        self.advance(state);
                    }
                }
                VOID => self.free(state, &slot),
                // FREE: by invariant 3, nothing is claimed here or behind.
                _ => break,
            }
        }
        self.publish_head(state);
        TicketPop::Empty
    }

    /// Frees the slot at `head`, which nobody else may change now, for the next lap.
    #[inline(always)]
    fn free(self, state: &mut TicketConsumerState, slot: &TicketSlotView<'r, R>) {
        // Release [slot-freed]: all that this consumer, or the owner of a VOID, did with the body happens before the
        // next owner writes.
        slot.word.store(Word::free(state.head, self.ring.slots()).next_lap().0, Release);
        self.advance(state);
    }

    #[inline(always)]
    fn advance(self, state: &mut TicketConsumerState) {
        state.head = state.head.wrapping_add(1);
        if state.head.wrapping_sub(state.published) >= (self.ring.slots() as u64 / 8).max(1) {
            self.publish_head(state);
        }
    }

    /// Gives up on the claim of a position that `pop` has called stalled. `false` if that is over anyway.
    pub(crate) fn revoke(self, state: &mut TicketConsumerState, position: u64) -> bool {
        let slot = self.at_position(position);
        // Relaxed: the compare-exchange decides.
        let seen = Word(slot.word.load(Relaxed));
        if position != state.head || seen.laps_ahead(position, self.ring.slots()) != 0 || seen.phase() != CLAIMED {
            return false;
        }
        let quarantined = Word(seen.next_lap().0 | QUARANTINED);
        // Relaxed: nothing of the body changes hands. On failure the producer was faster: its message will be popped.
        let revoked = slot.word.compare_exchange(seen.0, quarantined.0, Relaxed, Relaxed).is_ok();
        if revoked {
            self.advance(state);
        }
        revoked
    }

    /// Positions that were claimed (or skipped) and not passed yet: a snapshot, which only producers can make too
    /// small.
    pub(crate) fn pending(self, state: &TicketConsumerState) -> u64 {
        // Relaxed: a count for its own sake; `pop` looks at the slots.
        let waiting = self.tail_word().load(Relaxed).wrapping_sub(state.head).cast_signed();
        // The tail may lag, by one; more than the ring holds is a lie of whoever can write the tail.
        waiting.clamp(0, self.ring.slots() as i64).cast_unsigned()
    }

    /// Stores how far this consumer has read. `pop` does so by itself every `N / 8` messages and when the ring runs
    /// dry.
    #[inline(always)]
    pub(crate) fn publish_head(self, state: &mut TicketConsumerState) {
        if state.published != state.head {
            state.published = state.head;
            // Relaxed: for observers; a successor gets it with the end.
            self.head_word().store(state.head, Relaxed);
        }
    }
}

#[cfg(not(k2k_loom))]
impl<T: AnyBitPattern + Send, const N: usize, S: Scope> Default for Ticket<T, N, S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: AnyBitPattern + Send, const N: usize, S: Scope> Ticket<T, N, S> {
    /// An empty ring.
    #[cfg(not(k2k_loom))]
    #[must_use]
    pub const fn new() -> Self {
        const { assert!(super::spsc::Slots::<T, N, S>::MASK < u64::MAX) };
        // SAFETY: `Shared`: zero is the idle state, and valid.
        unsafe { core::mem::MaybeUninit::zeroed().assume_init() }
    }

    /// As [`new`](Self::new), in memory of the caller's: a ring can be too large for the stack.
    #[cfg(not(k2k_loom))]
    pub const fn new_in(place: &mut core::mem::MaybeUninit<Self>) -> &mut Self {
        const { assert!(super::spsc::Slots::<T, N, S>::MASK < u64::MAX) };
        crate::sync::idle_in(place)
    }

    /// An empty ring.
    #[cfg(k2k_loom)]
    #[must_use]
    pub fn new() -> Self {
        crate::sync::Shared::idle()
    }

    /// One more producer. The id is for [`TicketPop::Stalled`] and
    /// [`reclaim`](Self::reclaim): producers may share one if they live and die together.
    pub const fn producer(&self, id: u16) -> TicketProducer<'_, T, N, S>
    where
        S: ReachesHere,
    {
        TicketProducer { ring: self, id }
    }

    /// Takes the consuming end. It continues where the previous consumer stopped.
    ///
    /// # Errors
    /// [`InUse`] while another consumer exists.
    pub fn consumer(&self) -> Result<TicketConsumer<'_, T, N, S>, InUse>
    where
        S: ReachesHere,
    {
        if claim_end(&self.head.consumer) { Ok(self.consumer_unclaimed()) } else { Err(InUse) }
    }

    /// Takes the consuming end from an owner that died without dropping it. No message is delivered again.
    ///
    /// # Safety
    /// The previous consumer does not run any more.
    pub unsafe fn recover_consumer(&self) -> TicketConsumer<'_, T, N, S>
    where
        S: ReachesHere,
    {
        // Relaxed: the caller vouches that the predecessor has ended; that knowledge is the synchronisation.
        self.head.consumer.store(1, Relaxed);
        self.consumer_unclaimed()
    }

    fn consumer_unclaimed(&self) -> TicketConsumer<'_, T, N, S> {
        TicketConsumer { ring: self, state: self.view().recover_consumer() }
    }
}

/// A producing end of a [`Ticket`] ring.
#[derive(Debug)]
pub struct TicketProducer<'r, T: AnyBitPattern + Send, const N: usize, S: Scope = System> {
    ring: &'r Ticket<T, N, S>,
    id: u16,
}

impl<'r, T: AnyBitPattern + Send, const N: usize, S: Scope> TicketProducer<'r, T, N, S> {
    /// Appends a message. The value is lent, so a refused one is still the caller's.
    ///
    /// # Errors
    /// [`TicketError`]: no slot, or the consumer gave up while the message was being written.
    #[inline]
    pub fn push(&mut self, value: &T) -> Result<(), TicketError> {
        self.ring.view().push(self.id, value, size_of::<T>())
    }

    /// Takes the next position, to be [written](TicketClaim::write) and [committed](TicketClaim::commit) soon: the
    /// consumer finds it before all later messages.
    ///
    /// # Errors
    /// [`Full`] if no slot is free.
    #[inline]
    pub fn claim(&mut self) -> Result<TicketClaim<'_, 'r, T, N, S>, Full> {
        let claimed = self.ring.view().claim(self.id)?;
        Ok(TicketClaim { producer: self, claimed })
    }
}

/// A position that is being written. Dropping it without [`commit`](Self::commit) sends nothing: the consumer skips it.
pub struct TicketClaim<'p, 'r, T: AnyBitPattern + Send, const N: usize, S: Scope = System> {
    producer: &'p mut TicketProducer<'r, T, N, S>,
    claimed: Claimed,
}

impl<T: AnyBitPattern + Send, const N: usize, S: Scope> TicketClaim<'_, '_, T, N, S> {
    /// Writes the whole message. Without it, the slot holds whatever an earlier lap left.
    #[inline]
    pub fn write(&mut self, value: &T) {
        // SAFETY: rule 1: claimed, so this producer's until it is committed or dropped, even if it is revoked
        // meanwhile.
        unsafe { self.producer.ring.view().at_position(self.claimed.position).body.write(value, size_of::<T>()) };
    }

    /// Publishes the message.
    ///
    /// # Errors
    /// [`Revoked`] if the consumer has given up on this claim: the message was not sent.
    #[inline]
    pub fn commit(self) -> Result<(), Revoked> {
        let this = core::mem::ManuallyDrop::new(self);
        this.producer.ring.view().publish(this.producer.id, this.claimed, |_| {})
    }
}

impl<T: AnyBitPattern + Send, const N: usize, S: Scope> Drop for TicketClaim<'_, '_, T, N, S> {
    fn drop(&mut self) {
        self.producer.ring.view().abort(self.producer.id, self.claimed);
    }
}

impl<T: AnyBitPattern + Send, const N: usize, S: Scope> fmt::Debug for TicketClaim<'_, '_, T, N, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketClaim").field("position", &self.claimed.position).finish_non_exhaustive()
    }
}

/// The consuming end of a [`Ticket`] ring. Dropping it lets another one be taken.
#[derive(Debug)]
#[cfg_attr(not(any(target_arch = "nvptx64", k2k_device)), repr(align(128)))]
pub struct TicketConsumer<'r, T: AnyBitPattern + Send, const N: usize, S: Scope = System> {
    ring: &'r Ticket<T, N, S>,
    state: TicketConsumerState,
}

impl<T: AnyBitPattern + Send, const N: usize, S: Scope> TicketConsumer<'_, T, N, S> {
    /// Takes the oldest message.
    ///
    /// `Empty` is changed only by a producer, and never said while a message waits that was pushed before this call.
    #[inline]
    pub fn pop(&mut self) -> TicketPop<T> {
        self.ring.view().pop(&mut self.state)
    }

    /// Gives up on the claim of a position that [`pop`](Self::pop) has called stalled: its producer, if it ever comes
    /// back, will be told [`Revoked`], and the slot is out of service until then. `false` if the producer was faster.
    #[inline]
    pub fn revoke(&mut self, position: u64) -> bool {
        self.ring.view().revoke(&mut self.state, position)
    }

    /// Whether there is anything for [`pop`](Self::pop) to do. Only a producer can change a `false`.
    #[inline]
    #[must_use]
    pub fn ready(&self) -> bool {
        self.ring.view().ready(&self.state)
    }

    /// Positions that were claimed and not passed yet: a snapshot, which only producers can make too small.
    #[inline]
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.ring.view().pending(&self.state)
    }
}

impl<T: AnyBitPattern + Send, const N: usize, S: Scope> Drop for TicketConsumer<'_, T, N, S> {
    fn drop(&mut self) {
        self.ring.view().publish_head(&mut self.state);
        release_end(&self.ring.head.consumer);
    }
}

#[cfg(not(k2k_loom))]
const _: () = {
    assert!(size_of::<TicketSlot<[u64; 7]>>() == 64);
    assert!(size_of::<Ticket<u64, 64>>() == 128 + 128 + 64 * 16);
    assert!(
        core::mem::offset_of!(Ticket<u64, 64>, head) == 128 && core::mem::offset_of!(Ticket<u64, 64>, slots) == 256
    );
};

#[cfg(test)]
#[cfg(not(k2k_loom))]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// A ring whose head and tail are at a position.
    fn ring_at<const N: usize>(position: u64) -> Ticket<u64, N> {
        let ring = Ticket::<u64, N>::new();
        ring.tail.position.store(position, Relaxed);
        ring.head.position.store(position, Relaxed);
        for i in 0..N as u64 {
            let p = position.wrapping_add(i);
            ring.view().at_position(p).word.store(Word::free(p, N).0, Relaxed);
        }
        ring
    }

    #[test]
    fn word_bits_are_pinned() {
        let word = Word::free(7, 4);
        assert_eq!(word.0, 1 << 19);
        assert_eq!(Word(word.0 | CLAIMED | 5).next_lap().0 | QUARANTINED, 2 << 19 | 1 << 18 | 5);
        assert_eq!((FREE, CLAIMED, PUBLISHED, VOID), (0, 0x1_0000, 0x2_0000, 0x3_0000));
        assert_eq!(Word(word.0 | QUARANTINED | VOID | 9).laps_ahead(7, 4), 0);
        assert_eq!((word.laps_ahead(3, 4), word.laps_ahead(8, 4)), (1, -1));
        assert_eq!(Word(0).laps_ahead(u64::MAX, 4), 1);
    }

    #[test]
    fn laps_and_positions_wrap() {
        for wrap in [1_u64 << 47, 1 << 46, 0] {
            let ring = ring_at::<4>(wrap.wrapping_sub(6));
            let mut producer = ring.producer(3);
            let mut consumer = ring.consumer().unwrap();
            let mut lost = None;
            for i in 0..20 {
                let claim = producer.claim().unwrap();
                if i == 3 {
                    // One slot goes out of service just before the wrap.
                    core::mem::forget(claim);
                    let TicketPop::Stalled { producer: 3, position } = consumer.pop() else { panic!() };
                    assert!(consumer.revoke(position));
                    lost = Some(position);
                } else {
                    drop(claim);
                }
                while producer.push(&i).is_ok() {}
                assert_eq!(consumer.pending(), 4);
                let mut count = 0;
                while let TicketPop::Message(value) = consumer.pop() {
                    assert_eq!(value, i);
                    count += 1;
                }
                // The voided position, and the one in the quarantined slot, hold no message.
                assert!((2..=3).contains(&count), "{count} messages in round {i}");
            }
            assert!(ring.view().at_position(lost.unwrap()).word.load(Relaxed) & QUARANTINED != 0);
        }
    }

    #[test]
    fn a_successor_continues_exactly_where_the_dead_consumer_stopped() {
        let ring = Ticket::<u64, 32>::new();
        let mut producer = ring.producer(0);
        (0..32).for_each(|i| producer.push(&i).unwrap());
        let mut dead = ring.consumer().unwrap();
        (0..7).for_each(|i| assert_eq!(dead.pop(), TicketPop::Message(i)));
        core::mem::forget(dead);
        assert_eq!(ring.head.position.load(Relaxed), 4);
        (32..39).for_each(|i| producer.push(&i).unwrap());
        assert!(ring.consumer().is_err());
        // SAFETY: it was forgotten.
        let mut consumer = unsafe { ring.recover_consumer() };
        (7..39).for_each(|i| assert_eq!(consumer.pop(), TicketPop::Message(i)));
        assert_eq!(consumer.pop(), TicketPop::Empty);
    }

    #[test]
    fn a_claim_whose_owner_died_before_it_moved_the_tail_stops_nobody() {
        let ring = Ticket::<u64, 4>::new();
        ring.view().at_position(0).word.store(CLAIMED | 9, Relaxed);
        ring.producer(1).push(&5).unwrap();
        let mut consumer = ring.consumer().unwrap();
        assert_eq!(consumer.pop(), TicketPop::Stalled { producer: 9, position: 0 });
        assert!(consumer.revoke(0));
        assert_eq!(consumer.pop(), TicketPop::Message(5));
        // Here the consumer passes before anyone helps the tail.
        ring.view().at_position(2).word.store(CLAIMED | 9, Relaxed);
        assert!(consumer.revoke(2) && consumer.pending() == 0);
        ring.producer(1).push(&6).unwrap();
        assert_eq!(consumer.pop(), TicketPop::Message(6));
    }

    proptest! {
        /// Rule: no content of shared memory causes a panic or an endless loop.
        #[test]
        fn hostile_words_are_survived(
            words in proptest::collection::vec(prop_oneof![any::<u64>(), 0..1_u64 << 21, (0..8_u64).prop_map(|s| s << 16)], 6),
            ops in proptest::collection::vec(0..6_u8, 1..24),
        ) {
            let ring = Ticket::<u64, 4>::new();
            for (slot, word) in ring.slots.iter().zip(&words) {
                slot.word.store(*word, Relaxed);
            }
            ring.tail.position.store(words[4], Relaxed);
            ring.head.position.store(words[5], Relaxed);
            let mut consumer = ring.consumer().unwrap();
            let mut producer = ring.producer(0);
            let mut got = Vec::new();
            for op in ops {
                match op {
                    0 => drop(producer.push(&1)),
                    1 => drop(producer.claim()),
                    2 => got.push(consumer.pop()),
                    3 => if let TicketPop::Stalled { position, .. } = consumer.pop() {
                        consumer.revoke(position);
                    },
                    // SAFETY: one thread, and its producer has no claim.
                    4 => { unsafe { ring.reclaim(0) }; }
                    _ => {
                        let _ = consumer.ready();
                        prop_assert!(consumer.pending() <= 4);
                    }
                }
            }
        }
    }
}
