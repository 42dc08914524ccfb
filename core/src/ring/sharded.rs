//! A bounded queue for many producers and one consumer, made of one [SPSC ring](super::spsc) per producer.
//!
//! No producer waits for, or even writes a word of, another. There is no read-modify-write. Capacity is per producer,
//! and a producer that dies hurts only its own shard, which is simply empty. The price is memory: `PRODUCERS × N`
//! slots. The `gil` crate calls this form "sharded", DPDK "one ring per core".
//!
//! ```text
//!         doorbells                   shards
//!          +------+      +----------------------------------+
//!   P0 --> |   7  |      | credit | stamp body | stamp body |   the consumer stays with one shard until it is
//!          +------+      +----------------------------------+   dry (64 messages at most), watching only its stamp;
//!   P1 --> |   0  |      | credit | stamp body | stamp body |   then it looks for a doorbell that differs from what
//!          +------+      +----------------------------------+   it has consumed of that shard
//! ```
//!
//! A *doorbell* is the low half of its shard's tail: 32 bits, for not every compiler of device code has narrower
//! atomics. 32 doorbells fill two cache lines, so polling an idle queue of 64 shards reads four lines (and the next
//! slot of the shard that was served last). The price is that producers on different processors take these lines from
//! one another, and the consumer takes them from all of them. Up to 16 shards have two lines each for their doorbells
//! instead: the one that is being served is watched by its stamp alone, so its producer keeps its doorbell to itself.
//!
//! # Who may touch what
//!
//! 1. A shard: as in [`super::spsc`], its producer and the consumer.
//! 2. `doorbells[i]`: written by producer `i` only, after the stamp; read by the consumer as a hint where to look. A
//!    doorbell vouches for nothing: the consumer may hear it before it sees the stamp, or the other way round.
//! 3. `notes`: written by the consumer, read by its successor.
//!
//! # Synchronisation
//!
//! That of the shards: see [`super::spsc`]. Doorbells order nothing, so a message costs its producer a single release.
//!
//! # Order and fairness
//!
//! First in, first out per producer. A shard is left after 64 messages if another has rung, so each waits for at most
//! `64 × (PRODUCERS - 1)` messages of others.
//!
//! # Progress
//!
//! Every operation is wait-free; a poll takes at most one load per doorbell, and one for a stamp.
//!
//! # A producer that dies between its stamp and its doorbell
//!
//! Its last message is found by the stamp: by a consumer that goes to sleep, in its last look or, with more than 16
//! shards, in one of `PRODUCERS / 16` such looks; by one that polls, in one of `64 × PRODUCERS` polls that find nothing
//! or turn to another shard; and as soon as a successor of the producer recovers, which rings again.

use super::spsc::{ConsumerState, Credit, InUse, ProducerState, Slots, SpscView, claim_end, release_end};
use crate::error::Full;
use crate::in_place::make_in;
use crate::shape::{Fan, Index, QueueNumbers, Typed};
use crate::sync::Ordering::Relaxed;
use crate::sync::{AtomicU32, AtomicU64, Body, ReachesHere, Scope, System, shared_struct};
use bytemuck::AnyBitPattern;
use core::fmt;
use core::marker::PhantomData;
use core::mem::{MaybeUninit, offset_of};
#[cfg(not(k2k_loom))]
use core::ops::Range;
use core::ptr::NonNull;

/// Doorbells in a row: two cache lines full. Loom's atomics are larger, and its stacks are small.
const ROW: usize = if cfg!(k2k_loom) { 1 } else { 32 };

/// So many shards have a row each for their doorbells.
const SPREAD_SHARDS: usize = 16;

/// Messages consumed from one shard before the others are looked at.
const BURST: u32 = 64;

/// Turns to another shard, or for nothing, after which the stamp of a shard is looked at that may not have rung.
const PROBE_EVERY: u32 = 64;

shared_struct! {
    /// One producer's ring to the consumer.
    pub(crate) struct Shard[T: AnyBitPattern + Send, const N: usize,][T, N,] in S {
        credit: Credit<S>,
        slots: Slots<T, N, S>,
    }
}

shared_struct! {
    #[repr(align(128))]
    pub(crate) struct DoorbellRow[][] in S {
        doorbells: [AtomicU32<S>; ROW],
    }
}

shared_struct! {
    /// The doorbells of all shards: a row for each while there are few, packed into the first rows otherwise.
    pub(crate) struct Doorbells[const PRODUCERS: usize,][PRODUCERS,] in S {
        rows: [DoorbellRow<S>; PRODUCERS],
    }
}

shared_struct! {
    /// A sharded queue: `PRODUCERS` shards of `N` messages each. `N` is a power of two, 32768 at most.
    ///
    /// ```
    /// use k2k_core::ring::Sharded;
    ///
    /// static QUEUE: Sharded<u64, 2, 16> = Sharded::new();
    /// let mut first = QUEUE.producer(0).expect("shard 0 is free");
    /// let mut second = QUEUE.producer(1).expect("shard 1 is free");
    /// let mut consumer = QUEUE.consumer().expect("the only consumer");
    /// first.push(&10).expect("room");
    /// second.push(&20).expect("room");
    /// assert_eq!(consumer.pop(), Some((0, 10)));
    /// assert_eq!(consumer.pop(), Some((1, 20)));
    /// assert_eq!(consumer.pop(), None);
    /// ```
    pub struct Sharded[T: AnyBitPattern + Send, const PRODUCERS: usize, const N: usize,][T, PRODUCERS, N,] in S {
        doorbells: Doorbells<PRODUCERS, S>,
        notes: Notes<PRODUCERS, S>,
        claims: ShardClaims<PRODUCERS, S>,
        shards: [Shard<T, N, S>; PRODUCERS],
    }
}

shared_struct! {
    /// The consumer's notes for a successor: per shard, the position after the last message consumed.
    #[repr(align(128))]
    pub(crate) struct Notes[const PRODUCERS: usize,][PRODUCERS,] in S {
        consumed: [AtomicU64<S>; PRODUCERS],
    }
}

shared_struct! {
    /// Claim words of the ends, for standalone use; a fabric claims whole endpoints instead.
    #[repr(align(128))]
    pub(crate) struct ShardClaims[const PRODUCERS: usize,][PRODUCERS,] in S {
        producers: [AtomicU32<S>; PRODUCERS],
        consumer: AtomicU32<S>,
    }
}

impl<T: AnyBitPattern + Send, const PRODUCERS: usize, const N: usize, S: Scope> Sharded<T, PRODUCERS, N, S> {
    /// Where the parts are.
    pub(crate) const NUMBERS: QueueNumbers = {
        assert!(offset_of!(Self, doorbells) == 0 && offset_of!(Shard<T, N, S>, credit) == 0);
        assert!(offset_of!(Shard<T, N, S>, slots) == size_of::<Credit<S>>());
        QueueNumbers {
            notes: offset_of!(Self, notes),
            shards: offset_of!(Self, shards),
            shard: size_of::<Shard<T, N, S>>(),
        }
    };

    /// The queue as the algorithm sees it.
    #[inline(always)]
    pub(crate) const fn view(&self) -> ShardedView<'_, Typed<T, PRODUCERS, N, S>> {
        // SAFETY: a queue of this very shape.
        unsafe { ShardedView::at(NonNull::from_ref(self).cast(), Typed::SHAPE) }
    }
}

/// A queue wherever it is: what the algorithm works on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShardedView<'q, F: Fan> {
    base: NonNull<u8>,
    fan: F,
    memory: PhantomData<&'q AtomicU64<F::Scope>>,
}

// SAFETY: what is behind it are atomics, and cells of `Send` items that the protocol hands over.
unsafe impl<F: Fan> Send for ShardedView<'_, F> {}
// SAFETY: as above.
unsafe impl<F: Fan> Sync for ShardedView<'_, F> {}

/// Where the shard of a producer and its doorbell are, in bytes from the start of any queue of a shape.
#[derive(Clone, Copy)]
pub(crate) struct ShardOffsets {
    shard: usize,
    doorbell: usize,
}

/// A shard, as its producer reaches it.
#[derive(Clone, Copy)]
pub(crate) struct ShardView<'q, F: Fan> {
    ring: SpscView<'q, F>,
    doorbell: &'q AtomicU32<F::Scope>,
}

impl<'q, F: Fan> ShardView<'q, F> {
    /// Appends what `fill` writes, `used` bytes, more or less, and rings the doorbell.
    ///
    /// # Errors
    /// [`Full`] if the shard is full.
    #[inline(always)]
    pub(crate) fn push(
        self,
        state: &mut ProducerState,
        used: usize,
        fill: impl FnOnce(Body<'q, F::Item>),
    ) -> Result<(), Full> {
        self.ring.push(state, used, fill)?;
        self.ring_doorbell(state);
        Ok(())
    }

    /// Whether the shard has room; asks the consumer only if the copy of its position says no.
    #[inline(always)]
    pub(crate) fn has_room(self, state: &mut ProducerState) -> bool {
        self.ring.room(state, 1) > 0
    }

    #[inline(always)]
    fn ring_doorbell(self, state: &ProducerState) {
        // Relaxed: a hint. A kernel that falls asleep hears it all the same, by the wake flag's fences.
        self.doorbell.store(state.tail as u32, Relaxed);
    }
}

/// The consumer's private half of a queue.
pub(crate) struct ShardedState<F: Fan> {
    shards: F::Each<ConsumerState>,
    /// The shard being served, and how many messages it may still give before the others are looked at.
    current: Index<F>,
    left: u32,
    /// Turns to another shard, found or not; and the shard whose stamp is looked at next whether or not it has rung.
    turns: u32,
    probed: Index<F>,
}

impl<F: Fan> fmt::Debug for ShardedState<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardedState").field("current", &self.current.number()).finish_non_exhaustive()
    }
}

impl<F: Fan> ShardedState<F> {
    fn recover_in<'e>(memory: &'e mut MaybeUninit<Self>, queue: ShardedView<'_, F>) -> &'e mut Self {
        make_in!(memory, Self {
            shards => |each| queue.fan.each_in(each, |i| queue.shard(i).recover_consumer(queue.consumed(i))),
            current: queue.fan.first(),
            left: BURST,
            turns: 0,
            probed: queue.fan.first(),
        })
    }

    fn turn_to(&mut self, shard: Index<F>) {
        self.current = shard;
        self.left = BURST;
    }
}

impl<'q, F: Fan> ShardedView<'q, F> {
    /// # Safety
    /// For `'q`, there is a queue of this shape at `base`.
    #[inline(always)]
    pub(crate) const unsafe fn at(base: NonNull<u8>, fan: F) -> Self {
        Self { base, fan, memory: PhantomData }
    }

    /// Messages that a shard holds.
    #[inline(always)]
    fn len(self) -> u64 {
        self.fan.slots() as u64
    }

    #[inline(always)]
    fn shard(self, shard: Index<F>) -> SpscView<'q, F> {
        let numbers = self.fan.queue();
        // SAFETY: `below` is less than the number of shards; a shard is a credit and the slots.
        unsafe {
            let shard = self.base.add(numbers.shards + self.fan.below(shard) * numbers.shard);
            let credit = shard.cast::<Credit<F::Scope>>();
            SpscView::at(credit.add(1).cast(), credit.as_ref(), self.fan)
        }
    }

    /// The consumer's note on a shard.
    #[inline(always)]
    fn consumed(self, shard: Index<F>) -> &'q AtomicU64<F::Scope> {
        // SAFETY: `below` is less than the number of shards, and there is a note for each.
        unsafe {
            self.base.add(self.fan.queue().notes).cast::<AtomicU64<F::Scope>>().add(self.fan.below(shard)).as_ref()
        }
    }

    /// Whether each doorbell has a row of its own. Within a GPU it would be for nothing: stores go to the cache that
    /// all share.
    #[inline(always)]
    fn is_spread(self) -> bool {
        self.fan.producers() <= SPREAD_SHARDS && !F::Scope::WITHIN_GPU
    }

    #[inline(always)]
    fn rows(self) -> &'q [DoorbellRow<F::Scope>] {
        // SAFETY: they stand first, one for each shard.
        unsafe { core::slice::from_raw_parts(self.base.as_ptr().cast(), self.fan.producers()) }
    }

    #[inline(always)]
    fn doorbell(self, shard: Index<F>) -> &'q AtomicU32<F::Scope> {
        // SAFETY: there it is.
        unsafe { self.base.add(self.doorbell_at(shard)).cast().as_ref() }
    }

    /// Where a doorbell is, in bytes from the start.
    #[inline(always)]
    fn doorbell_at(self, shard: Index<F>) -> usize {
        // Less than the number of rows, and of doorbells if all rows were full.
        let i = self.fan.below(shard);
        let [row, doorbell] = [size_of::<DoorbellRow<F::Scope>>(), size_of::<AtomicU32<F::Scope>>()];
        if self.is_spread() { i * row } else { i / ROW * row + i % ROW * doorbell }
    }

    /// Where the shard of a producer is, and its doorbell.
    pub(crate) fn offsets(self, shard: Index<F>) -> ShardOffsets {
        let numbers = self.fan.queue();
        ShardOffsets {
            shard: numbers.shards + self.fan.below(shard) * numbers.shard,
            doorbell: self.doorbell_at(shard),
        }
    }

    /// A shard, as its producer reaches it.
    ///
    /// # Safety
    /// The offsets are those of a shard in a queue of this very shape.
    #[inline(always)]
    pub(crate) unsafe fn shard_at(self, at: ShardOffsets) -> ShardView<'q, F> {
        // SAFETY: a shard is a credit and the slots.
        unsafe {
            let credit = self.base.add(at.shard).cast::<Credit<F::Scope>>();
            let ring = SpscView::at(credit.add(1).cast(), credit.as_ref(), self.fan);
            ShardView { ring, doorbell: self.base.add(at.doorbell).cast().as_ref() }
        }
    }

    /// Messages that wait in all shards, for an onlooker.
    pub(crate) fn waiting(self) -> u64 {
        self.fan.indices().map(|i| self.waiting_in(i).1).sum()
    }

    /// The messages that wait in a shard, for an onlooker: the position of the first one, and how many: what was rung
    /// for, less what the consumer noted as consumed.
    pub(crate) fn waiting_in(self, shard: Index<F>) -> (u64, u64) {
        // Relaxed, both: a number to show; whoever acts on it looks again.
        let consumed = self.consumed(shard).load(Relaxed);
        let waiting = u64::from(self.doorbell(shard).load(Relaxed).wrapping_sub(consumed as u32));
        // More than a shard holds: consumed before its doorbell was rung, so nothing waits.
        (consumed, if waiting > self.len() { 0 } else { waiting })
    }

    /// Appends to a shard what `fill` writes, `used` bytes, more or less, and rings its doorbell.
    ///
    /// # Errors
    /// [`Full`] if the shard is full.
    #[inline(always)]
    pub(crate) fn push(
        self,
        shard: Index<F>,
        state: &mut ProducerState,
        used: usize,
        fill: impl FnOnce(Body<'q, F::Item>),
    ) -> Result<(), Full> {
        // SAFETY: a shard of this queue.
        unsafe { self.shard_at(self.offsets(shard)) }.push(state, used, fill)
    }

    /// For an onlooker that copies parts of a queue: where the doorbells are that are in use, and where the notes are,
    /// in bytes from the queue's start.
    #[cfg(not(k2k_loom))]
    pub(crate) fn counts_bytes(self) -> [Range<usize>; 2] {
        let producers = self.fan.producers();
        let rows = if self.is_spread() { producers } else { producers.div_ceil(ROW) };
        let notes = self.fan.queue().notes;
        [0..rows * size_of::<DoorbellRow<F::Scope>>(), notes..notes + producers * size_of::<AtomicU64<F::Scope>>()]
    }

    /// Lets an onlooker see here what another queue shows: doorbells, wherever its scope has them, and notes, for which
    /// producers count as told of everything that was consumed.
    #[cfg(not(k2k_loom))]
    pub(crate) fn show<G: Fan>(self, from: ShardedView<'_, G>) {
        for (to, other) in self.fan.indices().zip(from.fan.indices()) {
            // Relaxed, all: numbers to show.
            self.doorbell(to).store(from.doorbell(other).load(Relaxed), Relaxed);
            let consumed = from.consumed(other).load(Relaxed);
            self.consumed(to).store(consumed, Relaxed);
            self.shard(to).show_credit(consumed);
        }
    }

    /// As [`counts_bytes`](Self::counts_bytes): where the word is that tells a shard's producer how far the consumer
    /// has read.
    #[cfg(not(k2k_loom))]
    pub(crate) fn credit_bytes(self, shard: Index<F>) -> Range<usize> {
        let numbers = self.fan.queue();
        let at = numbers.shards + self.fan.below(shard) * numbers.shard;
        at..at + size_of::<AtomicU64<F::Scope>>()
    }

    /// For an onlooker: whether the producer of a shard finds no room in it. The consumer gives room back in batches,
    /// so fewer messages than the shard holds may wait then.
    #[cfg(not(k2k_loom))]
    pub(crate) fn is_full(self, shard: Index<F>) -> bool {
        // Relaxed: a number to show.
        let used = self.doorbell(shard).load(Relaxed).wrapping_sub(self.shard(shard).credit() as u32);
        u64::from(used) >= self.len()
    }

    /// As [`counts_bytes`](Self::counts_bytes): where the slot of a position in a shard is.
    #[cfg(not(k2k_loom))]
    pub(crate) fn slot_bytes(self, shard: Index<F>, position: u64) -> Range<usize> {
        let numbers = self.fan.queue();
        let slot = position as usize & self.fan.mask();
        let at = numbers.shards
            + self.fan.below(shard) * numbers.shard
            + size_of::<Credit<F::Scope>>()
            + slot * self.fan.stride();
        at..at + self.fan.stride()
    }

    /// For an onlooker with a copy of its own: copies out the message at a position, if its stamp vouches for it.
    #[cfg(not(k2k_loom))]
    pub(crate) fn peek(self, shard: Index<F>, position: u64, message: &mut F::Item) -> bool
    where
        F::Item: crate::shape::Packet,
    {
        let slot = self.shard(shard).slot(position);
        // Relaxed: nobody writes an onlooker's copy.
        let is_there = slot.stamp.load(Relaxed) == position.wrapping_add(1);
        if is_there {
            // SAFETY: nobody writes an onlooker's copy.
            unsafe { slot.body.read_used(message, crate::shape::Packet::used) };
        }
        is_there
    }

    /// Takes back the last ring of a doorbell, as if the producer had died before it.
    #[cfg(all(test, not(k2k_loom)))]
    pub(crate) fn unring(self, shard: Index<F>) {
        let doorbell = self.doorbell(shard);
        // Relaxed: for tests, where nothing runs at the same time.
        doorbell.store(doorbell.load(Relaxed).wrapping_sub(1), Relaxed);
    }

    #[inline(always)]
    fn ring_doorbell(self, shard: Index<F>, state: &ProducerState) {
        // SAFETY: a shard of this queue.
        unsafe { self.shard_at(self.offsets(shard)) }.ring_doorbell(state);
    }

    /// The producer's position in a shard that may have been in use. Rings the doorbell again, in case the predecessor
    /// died between a stamp and its doorbell.
    pub(crate) fn recover_producer(self, shard: Index<F>) -> ProducerState {
        let state = self.shard(shard).recover_producer();
        self.ring_doorbell(shard, &state);
        state
    }

    /// Finds the consumer's positions in a queue that may have been in use.
    pub(crate) fn recover_consumer(self) -> ShardedState<F> {
        let mut memory = MaybeUninit::uninit();
        self.recover_consumer_in(&mut memory);
        // SAFETY: `recover_consumer_in` has initialised it.
        unsafe { memory.assume_init() }
    }

    /// As [`recover_consumer`](Self::recover_consumer), where it is to lie.
    pub(crate) fn recover_consumer_in(self, memory: &mut MaybeUninit<ShardedState<F>>) -> &mut ShardedState<F> {
        ShardedState::recover_in(memory, self)
    }

    /// Whether shard `i` has rung for something that was not consumed yet.
    #[inline(always)]
    fn has_rung(self, state: &ShardedState<F>, i: Index<F>) -> bool {
        // Relaxed: a hint. Whoever follows it looks at the stamp, which vouches for the message.
        self.doorbell(i).load(Relaxed) != state.shards[i].head as u32
    }

    /// Whether shard `i` has a message.
    #[inline(always)]
    pub(crate) fn ready(self, state: &ShardedState<F>, i: Index<F>) -> bool {
        self.shard(i).ready(&state.shards[i])
    }

    /// Turns to a shard with a message: the current one while it may go on, else the next that has rung.
    #[inline(always)]
    fn select(self, state: &mut ShardedState<F>) -> bool {
        if state.left > 0 && self.ready(state, state.current) {
            return true;
        }
        self.turn(state)
    }

    // Handed over on the stack otherwise, where the shape is read.
    #[cfg_attr(not(target_arch = "nvptx64"), inline(always))]
    fn turn(self, state: &mut ShardedState<F>) -> bool {
        // The producer of the shard that is left may wait for room.
        self.shard(state.current).publish_credit(&mut state.shards[state.current]);
        state.turns = state.turns.wrapping_add(1);
        if state.turns.is_multiple_of(PROBE_EVERY) && self.probe(state) {
            return true;
        }
        // The current shard is looked at last, so that it cannot keep the others out. It needs no doorbell, as in
        // `any_ready`: its producer may have died just before it rang.
        let next = self.next_rung(state).or_else(|| self.ready(state, state.current).then_some(state.current));
        let Some(next) = next else { return false };
        state.turn_to(next);
        true
    }

    /// The next shard in turn that has rung and has a message, the current one excluded.
    #[inline(always)]
    fn next_rung(self, state: &ShardedState<F>) -> Option<Index<F>> {
        // Mostly none has rung, and a look at all of few doorbells takes fewer instructions than one at two parts of
        // them.
        if self.is_spread() && !self.rung_in(state, 0, self.fan.producers()) {
            return None;
        }
        self.find(state, state.current.number() + 1, self.fan.producers())
            .or_else(|| self.find(state, 0, state.current.number()))
    }

    /// Looks at the stamp of the next shard in turn, whether or not it has rung, and turns to that shard if it has a
    /// message.
    #[cfg_attr(not(target_arch = "nvptx64"), inline(always))]
    #[cfg_attr(target_arch = "nvptx64", cold)]
    fn probe(self, state: &mut ShardedState<F>) -> bool {
        state.probed = self.fan.after(state.probed);
        let found = self.ready(state, state.probed);
        if found {
            state.turn_to(state.probed);
        }
        found
    }

    /// Whether any shard has a message, by the doorbells of all shards and the stamps of the next `count` in turn.
    /// Turns to one that has a message but has not rung: its producer may have died between the two.
    pub(crate) fn look(self, state: &mut ShardedState<F>, count: usize) -> bool {
        self.any_ready(state) || (0..count).any(|_| self.probe(state))
    }

    /// The first shard from `from` to `to - 1` that has rung and has a message.
    #[cfg_attr(not(target_arch = "nvptx64"), inline(always))]
    #[cfg_attr(target_arch = "nvptx64", inline)]
    fn find(self, state: &ShardedState<F>, from: usize, to: usize) -> Option<Index<F>> {
        let mut first = from;
        while first < to {
            // Eight doorbells of a row without a branch between them: mostly none has rung.
            let last = (first + 8).min(to).min((first / ROW + 1) * ROW);
            if self.rung_in(state, first, last)
                && let Some(i) = (first..last)
                    .filter_map(|i| self.fan.index(i))
                    .find(|&i| self.has_rung(state, i) && self.ready(state, i))
            {
                return Some(i);
            }
            first = last;
        }
        None
    }

    /// Whether one of the shards from `first` to `last - 1`, whose doorbells are in one row, has rung.
    #[inline(always)]
    fn rung_in(self, state: &ShardedState<F>, first: usize, last: usize) -> bool {
        let rows = self.rows();
        let Some(shards) = state.shards.as_ref().get(first..last) else { return false };
        // Relaxed: a hint, as in `has_rung`.
        let differs =
            |doorbell: &AtomicU32<F::Scope>, shard: &ConsumerState| doorbell.load(Relaxed) ^ shard.head as u32;
        if self.is_spread() {
            let Some(rows) = rows.get(first..last) else { return false };
            rows.iter().zip(shards).fold(0, |rung, (row, shard)| rung | differs(&row.doorbells[0], shard)) != 0
        } else {
            let doorbells =
                rows.get(first / ROW).and_then(|row| row.doorbells.get(first % ROW..first % ROW + shards.len()));
            let Some(doorbells) = doorbells else { return false };
            doorbells.iter().zip(shards).fold(0, |rung, (doorbell, shard)| rung | differs(doorbell, shard)) != 0
        }
    }

    /// Takes a message, with the shard it came by. `take` as for the SPSC ring.
    #[inline(always)]
    pub(crate) fn pop<V>(
        self,
        state: &mut ShardedState<F>,
        take: impl FnOnce(Body<'q, F::Item>) -> (V, usize),
    ) -> Option<(usize, V)> {
        if !self.select(state) {
            return None;
        }
        let i = state.current;
        state.left = state.left.saturating_sub(1);
        self.pop_shard(state, i, take).map(|result| (i.number(), result))
    }

    /// Copies out the first line of the oldest message of shard `i`, which stays there. By the stamp alone:
    /// `poll` finds a message whose producer died before its doorbell.
    #[inline(always)]
    pub(crate) fn peek_head<H: bytemuck::Pod>(self, state: &ShardedState<F>, i: Index<F>) -> Option<H> {
        self.shard(i).peek_head(&state.shards[i])
    }

    /// Takes the oldest message of shard `i`.
    #[inline(always)]
    pub(crate) fn pop_shard<V>(
        self,
        state: &mut ShardedState<F>,
        i: Index<F>,
        take: impl FnOnce(Body<'q, F::Item>) -> (V, usize),
    ) -> Option<V> {
        self.shard(i).pop(&mut state.shards[i], self.consumed(i), take)
    }

    /// Whether any shard has a message.
    pub(crate) fn any_ready(self, state: &ShardedState<F>) -> bool {
        self.ready(state, state.current) || self.find(state, 0, self.fan.producers()).is_some()
    }

    /// Whether one of the shards `first`, `first + step`, ... has rung: a share of a look at all of them.
    #[inline(always)]
    pub(crate) fn any_rung(self, state: &ShardedState<F>, first: usize, step: usize) -> bool {
        (first..self.fan.producers())
            .step_by(step.max(1))
            .filter_map(|i| self.fan.index(i))
            .any(|i| self.has_rung(state, i))
    }

    /// Messages that wait in all shards: a snapshot that only producers can make too small.
    pub(crate) fn pending(self, state: &ShardedState<F>) -> u64 {
        self.fan
            .indices()
            .map(|i| {
                let shard = &state.shards[i];
                // Relaxed: a hint. The stamps vouch for what is counted, so that whoever is told of a message finds it.
                let rung = u64::from(self.doorbell(i).load(Relaxed).wrapping_sub(shard.head as u32));
                // More than a shard holds: the stamp was seen and the message consumed before its doorbell (nothing
                // waits), or the doorbell lies.
                if rung > self.len() { 0 } else { self.shard(i).waiting(shard, rung) }
            })
            .sum()
    }

    /// Tells every producer how far this consumer has read.
    pub(crate) fn publish(self, state: &mut ShardedState<F>) {
        for i in self.fan.indices() {
            self.shard(i).publish_credit(&mut state.shards[i]);
        }
    }
}

#[cfg(not(k2k_loom))]
impl<T: AnyBitPattern + Send, const PRODUCERS: usize, const N: usize, S: Scope> Default
    for Sharded<T, PRODUCERS, N, S>
{
    fn default() -> Self {
        Self::new()
    }
}

impl<T: AnyBitPattern + Send, const PRODUCERS: usize, const N: usize, S: Scope> Sharded<T, PRODUCERS, N, S> {
    /// An empty queue.
    #[cfg(not(k2k_loom))]
    #[must_use]
    pub const fn new() -> Self {
        const { assert!(Slots::<T, N, S>::MASK < u64::MAX && PRODUCERS > 0) };
        // SAFETY: `Shared`: zero is the idle state, and valid.
        unsafe { core::mem::MaybeUninit::zeroed().assume_init() }
    }

    /// As [`new`](Self::new), in memory of the caller's: a queue can be too large for the stack.
    #[cfg(not(k2k_loom))]
    pub const fn new_in(place: &mut core::mem::MaybeUninit<Self>) -> &mut Self {
        const { assert!(Slots::<T, N, S>::MASK < u64::MAX && PRODUCERS > 0) };
        crate::sync::idle_in(place)
    }

    /// An empty queue.
    #[cfg(k2k_loom)]
    #[must_use]
    pub fn new() -> Self {
        crate::sync::Shared::idle()
    }

    /// Takes the producing end of shard `shard`.
    ///
    /// # Errors
    /// [`InUse`] while that shard has a producer.
    ///
    /// # Panics
    /// If there is no such shard.
    pub fn producer(&self, shard: usize) -> Result<ShardProducer<'_, T, PRODUCERS, N, S>, InUse>
    where
        S: ReachesHere,
    {
        let Some(shard) = Typed::SHAPE.index(shard) else {
            panic!("shard {shard} does not exist: the queue has {PRODUCERS} shards")
        };
        if claim_end(&self.claims.producers[shard]) {
            Ok(ShardProducer { queue: self, shard, state: self.view().recover_producer(shard) })
        } else {
            Err(InUse)
        }
    }

    /// Takes the consuming end.
    ///
    /// # Errors
    /// [`InUse`] while another consumer exists.
    pub fn consumer(&self) -> Result<ShardedConsumer<'_, T, PRODUCERS, N, S>, InUse>
    where
        S: ReachesHere,
    {
        if claim_end(&self.claims.consumer) {
            Ok(ShardedConsumer { queue: self, state: self.view().recover_consumer() })
        } else {
            Err(InUse)
        }
    }
}

/// The producing end of one shard. Dropping it lets another one be taken.
#[derive(Debug)]
#[cfg_attr(not(any(target_arch = "nvptx64", k2k_device)), repr(align(128)))]
pub struct ShardProducer<'q, T: AnyBitPattern + Send, const PRODUCERS: usize, const N: usize, S: Scope = System> {
    queue: &'q Sharded<T, PRODUCERS, N, S>,
    shard: Index<Typed<T, PRODUCERS, N, S>>,
    state: ProducerState,
}

impl<T: AnyBitPattern + Send, const PRODUCERS: usize, const N: usize, S: Scope> ShardProducer<'_, T, PRODUCERS, N, S> {
    /// Appends a message.
    ///
    /// # Errors
    /// [`Full`] if `N` messages of this shard wait.
    #[inline]
    pub fn push(&mut self, value: &T) -> Result<(), Full> {
        // SAFETY: rule 2 of the SPSC ring: `fill` is called with the slot that is this producer's to write.
        let fill = |body: Body<'_, T>| unsafe { body.write(value, size_of::<T>()) };
        self.queue.view().push(self.shard, &mut self.state, size_of::<T>(), fill)
    }

    /// As [`push`](Self::push), by a producer that dies between the stamp and its doorbell.
    ///
    /// # Errors
    /// As there.
    #[cfg(k2k_loom)]
    pub fn push_and_die(mut self, value: &T) -> Result<(), Full> {
        // SAFETY: as in `push`.
        let fill = |body: Body<'_, T>| unsafe { body.write(value, size_of::<T>()) };
        self.queue.view().shard(self.shard).push(&mut self.state, size_of::<T>(), fill)
    }

    /// Appends as many of `values` as there is room for, and rings once; returns how many.
    #[inline]
    pub fn push_batch(&mut self, values: &[T]) -> usize {
        let queue = self.queue.view();
        let count = queue.shard(self.shard).push_batch(&mut self.state, values);
        if count > 0 {
            queue.ring_doorbell(self.shard, &self.state);
        }
        count
    }
}

impl<T: AnyBitPattern + Send, const PRODUCERS: usize, const N: usize, S: Scope> Drop
    for ShardProducer<'_, T, PRODUCERS, N, S>
{
    fn drop(&mut self) {
        release_end(&self.queue.claims.producers[self.shard]);
    }
}

/// The consuming end of a [`Sharded`] queue. Dropping it acknowledges what was read and lets another one be taken.
#[derive(Debug)]
#[cfg_attr(not(any(target_arch = "nvptx64", k2k_device)), repr(align(128)))]
pub struct ShardedConsumer<'q, T: AnyBitPattern + Send, const PRODUCERS: usize, const N: usize, S: Scope = System> {
    queue: &'q Sharded<T, PRODUCERS, N, S>,
    state: ShardedState<Typed<T, PRODUCERS, N, S>>,
}

impl<T: AnyBitPattern + Send, const PRODUCERS: usize, const N: usize, S: Scope>
    ShardedConsumer<'_, T, PRODUCERS, N, S>
{
    /// Takes a message, with the index of its shard.
    #[inline]
    pub fn pop(&mut self) -> Option<(usize, T)> {
        // SAFETY: rule 2 of the SPSC ring: `take` is called with the slot that is this consumer's to read.
        self.queue.view().pop(&mut self.state, |body| unsafe { (body.read(), size_of::<T>()) })
    }

    /// Messages that wait: a snapshot, which only producers can make too small.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.queue.view().pending(&self.state)
    }
}

impl<T: AnyBitPattern + Send, const PRODUCERS: usize, const N: usize, S: Scope> Drop
    for ShardedConsumer<'_, T, PRODUCERS, N, S>
{
    fn drop(&mut self) {
        self.queue.view().publish(&mut self.state);
        release_end(&self.queue.claims.consumer);
    }
}
