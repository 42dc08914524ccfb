//! A bounded queue for many producers and one consumer, made of one [SPSC ring](super::spsc) per producer.
//!
//! No producer waits for, or even writes a word of, another. There is no read-modify-write. Capacity is per producer,
//! and a producer that dies hurts only its own lane, which is simply empty. The price is memory: `PRODUCERS × N` slots.
//! The `gil` crate calls this form "sharded", DPDK "one ring per core".
//!
//! ```text
//!            bells                     lanes
//!          +------+      +----------------------------------+
//!   P0 --> |   7  |      | credit | stamp body | stamp body |   the consumer stays with one lane until it is
//!          +------+      +----------------------------------+   dry (64 messages at most), watching only its stamp;
//!   P1 --> |   0  |      | credit | stamp body | stamp body |   then it looks for a bell that differs from what
//!          +------+      +----------------------------------+   it has taken from that lane
//! ```
//!
//! A *bell* is the low half-word of its lane's tail. 64 bells fill two cache lines, so polling an idle queue of 64
//! lanes reads two lines (and the next slot of the lane that was served last). The price is that producers on different
//! processors take these lines from one another, and the consumer takes them from all of them. Up to 16 lanes have two
//! lines each for their bells instead: the one that is being served is watched by its stamp alone, so its producer
//! keeps its bell to itself.
//!
//! # Who may touch what
//!
//! 1. A lane: as in [`super::spsc`], its producer and the consumer.
//! 2. `bells[i]`: written by producer `i` only, after the stamp; read by the consumer as a hint where to look. A bell
//!    vouches for nothing: the consumer may hear it before it sees the stamp, or the other way round.
//! 3. `notes`: written by the consumer, read by its successor.
//!
//! # Synchronisation
//!
//! That of the lanes: see [`super::spsc`]. Bells order nothing, so a message costs its producer a single release.
//!
//! # Order and fairness
//!
//! First in, first out per producer. A lane is left after 64 messages if another has rung, so each waits for at most
//! `64 × (PRODUCERS - 1)` messages of others.
//!
//! # Progress
//!
//! Every operation is wait-free; a poll takes at most one load per bell, and one for a stamp.
//!
//! # A producer that dies between its stamp and its bell
//!
//! Its last message is found by the stamp: by a consumer that goes to sleep, in its last look or, with more than 16
//! lanes, in one of `PRODUCERS / 16` such looks; by one that polls, in one of `64 × PRODUCERS` polls that find nothing or
//! turn to another lane; and as soon as a successor of the producer recovers, which rings again.

use super::spsc::{ConsumerState, Credit, ProducerState, Slots, Taken, claim_end, release_end};
use crate::error::Full;
use crate::place::Place;
use crate::sync::Ordering::Relaxed;
use crate::sync::{AtomicU16, AtomicU32, AtomicU64, ReachesHere, Scope, SharedCell, System, shared_struct};
use bytemuck::AnyBitPattern;
use core::mem::MaybeUninit;

/// Bells in a row: two cache lines full. Loom's atomics are larger, and its stacks are small.
const ROW: usize = if cfg!(k2k_loom) { 1 } else { 64 };

/// So many lanes have a row each for their bells.
const SPREAD_LANES: usize = 16;

/// Messages taken from one lane before the others are looked at.
const BURST: u32 = 64;

/// Turns to another lane, or for nothing, after which the stamp of a lane is looked at that may not have rung.
const PROBE_EVERY: u32 = 64;

shared_struct! {
    /// One producer's ring to the consumer.
    pub struct Lane[T: AnyBitPattern + Send, const N: usize,][T, N,] in S {
        credit: Credit<S>,
        slots: Slots<T, N, S>,
    }
}

shared_struct! {
    #[repr(align(128))]
    struct BellRow[][] in S {
        bells: [AtomicU16<S>; ROW],
    }
}

shared_struct! {
    /// The bells of all lanes: a row for each while there are few, packed into the first rows otherwise.
    pub struct Bells[const PRODUCERS: usize,][PRODUCERS,] in S {
        rows: [BellRow<S>; PRODUCERS],
    }
}

impl<const PRODUCERS: usize, S: Scope> Bells<PRODUCERS, S> {
    /// Whether each bell has a row of its own. Within a GPU it would be for nothing: stores go to the cache that all
    /// share.
    const SPREAD: bool = PRODUCERS <= SPREAD_LANES && !S::WITHIN_GPU;

    #[inline(always)]
    fn at(&self, lane: Place<PRODUCERS>) -> &AtomicU16<S> {
        if Self::SPREAD { &self.rows[lane].bells[0] } else { &self.rows[lane.over(ROW)].bells[lane.index() % ROW] }
    }
}

shared_struct! {
    /// A queue of `PRODUCERS` lanes of `N` messages each. `N` is a power of two, 32768 at most.
    ///
    /// ```
    /// use k2k_core::ring::Lanes;
    ///
    /// static QUEUE: Lanes<u64, 2, 16> = Lanes::new();
    /// let mut first = QUEUE.producer(0).expect("lane 0 is free");
    /// let mut second = QUEUE.producer(1).expect("lane 1 is free");
    /// let mut consumer = QUEUE.consumer().expect("the only consumer");
    /// first.push(&10).expect("room");
    /// second.push(&20).expect("room");
    /// assert_eq!(consumer.pop(), Some((0, 10)));
    /// assert_eq!(consumer.pop(), Some((1, 20)));
    /// assert_eq!(consumer.pop(), None);
    /// ```
    pub struct Lanes[T: AnyBitPattern + Send, const PRODUCERS: usize, const N: usize,][T, PRODUCERS, N,] in S {
        bells: Bells<PRODUCERS, S>,
        notes: Notes<PRODUCERS, S>,
        claims: LaneClaims<PRODUCERS, S>,
        lanes: [Lane<T, N, S>; PRODUCERS],
    }
}

shared_struct! {
    /// The consumer's notes for a successor: per lane, the position after the last message taken.
    #[repr(align(128))]
    pub struct Notes[const PRODUCERS: usize,][PRODUCERS,] in S {
        taken: [AtomicU64<S>; PRODUCERS],
    }
}

shared_struct! {
    /// Claim words of the ends, for standalone use; a fabric claims whole endpoints instead.
    #[repr(align(128))]
    pub struct LaneClaims[const PRODUCERS: usize,][PRODUCERS,] in S {
        producers: [AtomicU32<S>; PRODUCERS],
        consumer: AtomicU32<S>,
    }
}

impl<T: AnyBitPattern + Send, const PRODUCERS: usize, const N: usize, S: Scope> Lanes<T, PRODUCERS, N, S> {
    /// How far bells and notes, which stand first, reach.
    #[cfg(not(k2k_loom))]
    pub(crate) const BELL_BYTES: usize = core::mem::offset_of!(Self, claims);

    /// Messages that wait in all lanes, for an onlooker: what was rung for, less what the consumer noted as taken.
    pub(crate) fn waiting(&self) -> u64 {
        // Relaxed, both: a number to show; whoever acts on it looks again.
        Place::all()
            .map(|i| self.bells.at(i).load(Relaxed).wrapping_sub(self.notes.taken[i].load(Relaxed) as u16))
            // More than a lane holds: taken before its bell was rung, so nothing waits.
            .map(|waiting| if u64::from(waiting) > N as u64 { 0 } else { u64::from(waiting) })
            .sum()
    }

    /// Appends to a lane what `fill` writes, `used` bytes, more or less, and rings its bell.
    ///
    /// # Errors
    /// [`Full`] if `N` messages of this lane wait.
    #[inline(always)]
    pub(crate) fn push(
        &self,
        lane: Place<PRODUCERS>,
        state: &mut ProducerState,
        used: usize,
        fill: impl FnOnce(&SharedCell<T>),
    ) -> Result<(), Full> {
        let Lane { credit, slots } = &self.lanes[lane];
        state.push(slots, credit, used, fill)?;
        self.ring_bell(lane, state);
        Ok(())
    }

    /// Whether a lane has room; asks the consumer only if the copy of its position says no.
    #[inline(always)]
    pub(crate) fn has_room(&self, lane: Place<PRODUCERS>, state: &mut ProducerState) -> bool {
        state.room::<N, _>(&self.lanes[lane].credit, 1) > 0
    }

    #[inline(always)]
    fn ring_bell(&self, lane: Place<PRODUCERS>, state: &ProducerState) {
        // Relaxed: a hint. A kernel that falls asleep hears it all the same, by the wake flag's fences.
        self.bells.at(lane).store(state.tail as u16, Relaxed);
    }

    /// Takes back the last ring of a bell, as if the producer had died before it.
    #[cfg(all(test, not(k2k_loom)))]
    pub(crate) fn unring(&self, lane: Place<PRODUCERS>) {
        let bell = self.bells.at(lane);
        // Relaxed: for tests, where nothing runs at the same time.
        bell.store(bell.load(Relaxed).wrapping_sub(1), Relaxed);
    }

    /// The producer's place in a lane that may have been in use. Rings the bell again, in case the predecessor died
    /// between a stamp and its bell.
    pub(crate) fn recover_producer(&self, lane: Place<PRODUCERS>) -> ProducerState {
        let Lane { credit, slots } = &self.lanes[lane];
        let state = ProducerState::recover(slots, credit);
        self.ring_bell(lane, &state);
        state
    }
}

/// The consumer's private half of a [`Lanes`] queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LanesState<const PRODUCERS: usize> {
    lanes: [ConsumerState; PRODUCERS],
    /// The lane being served, and how many messages it may still give before the others are looked at.
    current: Place<PRODUCERS>,
    left: u32,
    /// Turns to another lane, found or not; and the lane whose stamp is looked at next whether or not it has rung.
    turns: u32,
    probed: Place<PRODUCERS>,
}

impl<const PRODUCERS: usize> LanesState<PRODUCERS> {
    /// Finds the consumer's place in a queue that may have been in use.
    pub(crate) fn recover<T: AnyBitPattern + Send, const N: usize, S: Scope>(
        queue: &Lanes<T, PRODUCERS, N, S>,
    ) -> Self {
        let mut at = MaybeUninit::uninit();
        Self::recover_in(&mut at, queue);
        // SAFETY: `recover_in` has initialised it.
        unsafe { at.assume_init() }
    }

    /// As [`recover`](Self::recover), where it is to lie.
    pub(crate) fn recover_in<T: AnyBitPattern + Send, const N: usize, S: Scope>(
        at: &mut MaybeUninit<Self>,
        queue: &Lanes<T, PRODUCERS, N, S>,
    ) {
        let to = at.as_mut_ptr();
        // SAFETY: `to` is valid for a `Self`, and a place is below the length of `lanes`.
        unsafe {
            for i in Place::<PRODUCERS>::all() {
                let lane = ConsumerState::recover::<N, _>(&queue.lanes[i].credit, &queue.notes.taken[i]);
                (&raw mut (*to).lanes).cast::<ConsumerState>().add(i.index()).write(lane);
            }
            (&raw mut (*to).current).write(Place::FIRST);
            (&raw mut (*to).left).write(BURST);
            (&raw mut (*to).turns).write(0);
            (&raw mut (*to).probed).write(Place::FIRST);
        }
    }

    /// Whether lane `i` has rung for something that was not taken yet.
    #[inline(always)]
    fn has_rung<T: AnyBitPattern + Send, const N: usize, S: Scope>(
        &self,
        queue: &Lanes<T, PRODUCERS, N, S>,
        i: Place<PRODUCERS>,
    ) -> bool {
        // Relaxed: a hint. Whoever follows it looks at the stamp, which vouches for the message.
        queue.bells.at(i).load(Relaxed) != self.lanes[i].head as u16
    }

    /// Whether lane `i` has a message.
    #[inline(always)]
    fn ready<T: AnyBitPattern + Send, const N: usize, S: Scope>(
        &self,
        queue: &Lanes<T, PRODUCERS, N, S>,
        i: Place<PRODUCERS>,
    ) -> bool {
        self.lanes[i].ready(&queue.lanes[i].slots)
    }

    /// Turns to a lane with a message: the current one while it may go on, else the next that has rung.
    #[inline(always)]
    fn select<T: AnyBitPattern + Send, const N: usize, S: Scope>(&mut self, queue: &Lanes<T, PRODUCERS, N, S>) -> bool {
        if self.left > 0 && self.ready(queue, self.current) {
            return true;
        }
        self.turn(queue)
    }

    fn turn<T: AnyBitPattern + Send, const N: usize, S: Scope>(&mut self, queue: &Lanes<T, PRODUCERS, N, S>) -> bool {
        // The producer of the lane that is left may wait for room.
        self.lanes[self.current].publish(&queue.lanes[self.current].credit);
        self.turns = self.turns.wrapping_add(1);
        if self.turns.is_multiple_of(PROBE_EVERY) && self.probe(queue) {
            return true;
        }
        // The current lane is looked at last, so that it cannot keep the others out. It needs no bell, as in
        // `any_ready`: its producer may have died just before it rang.
        let next = self.next_rung(queue).or_else(|| self.ready(queue, self.current).then_some(self.current));
        let Some(next) = next else { return false };
        self.turn_to(next);
        true
    }

    /// The next lane in turn that has rung and has a message, the current one excluded.
    #[inline(always)]
    fn next_rung<T: AnyBitPattern + Send, const N: usize, S: Scope>(
        &self,
        queue: &Lanes<T, PRODUCERS, N, S>,
    ) -> Option<Place<PRODUCERS>> {
        // Mostly none has rung, and a look at all of few bells takes fewer instructions than one at two parts of them.
        if Bells::<PRODUCERS, S>::SPREAD && !self.rung_in(queue, 0, PRODUCERS) {
            return None;
        }
        self.find(queue, self.current.index() + 1, PRODUCERS).or_else(|| self.find(queue, 0, self.current.index()))
    }

    /// Looks at the stamp of the next lane in turn, whether or not it has rung, and turns to that lane if it has a
    /// message.
    #[cold]
    fn probe<T: AnyBitPattern + Send, const N: usize, S: Scope>(&mut self, queue: &Lanes<T, PRODUCERS, N, S>) -> bool {
        self.probed = self.probed.next();
        let found = self.ready(queue, self.probed);
        if found {
            self.turn_to(self.probed);
        }
        found
    }

    /// Whether any lane has a message, by the bells of all lanes and the stamps of the next `count` in turn. Turns to one
    /// that has a message but has not rung: its producer may have died between the two.
    pub(crate) fn look<T: AnyBitPattern + Send, const N: usize, S: Scope>(
        &mut self,
        queue: &Lanes<T, PRODUCERS, N, S>,
        count: usize,
    ) -> bool {
        self.any_ready(queue) || (0..count).any(|_| self.probe(queue))
    }

    fn turn_to(&mut self, lane: Place<PRODUCERS>) {
        self.current = lane;
        self.left = BURST;
    }

    /// The first lane from `from` to `to - 1` that has rung and has a message.
    #[inline]
    fn find<T: AnyBitPattern + Send, const N: usize, S: Scope>(
        &self,
        queue: &Lanes<T, PRODUCERS, N, S>,
        from: usize,
        to: usize,
    ) -> Option<Place<PRODUCERS>> {
        let mut first = from;
        while first < to {
            // Eight bells of a row without a branch between them: mostly none has rung.
            let last = (first + 8).min(to).min((first / ROW + 1) * ROW);
            if self.rung_in(queue, first, last)
                && let Some(i) =
                    (first..last).filter_map(Place::new).find(|&i| self.has_rung(queue, i) && self.ready(queue, i))
            {
                return Some(i);
            }
            first = last;
        }
        None
    }

    /// Whether one of the lanes from `first` to `last - 1`, whose bells are in one row, has rung.
    #[inline(always)]
    fn rung_in<T: AnyBitPattern + Send, const N: usize, S: Scope>(
        &self,
        queue: &Lanes<T, PRODUCERS, N, S>,
        first: usize,
        last: usize,
    ) -> bool {
        let rows = &queue.bells.rows;
        let Some(lanes) = self.lanes.get(first..last) else { return false };
        // Relaxed: a hint, as in `has_rung`.
        let differs = |bell: &AtomicU16<S>, lane: &ConsumerState| bell.load(Relaxed) ^ lane.head as u16;
        if Bells::<PRODUCERS, S>::SPREAD {
            let Some(rows) = rows.get(first..last) else { return false };
            rows.iter().zip(lanes).fold(0, |rung, (row, lane)| rung | differs(&row.bells[0], lane)) != 0
        } else {
            let bells = rows.get(first / ROW).and_then(|row| row.bells.get(first % ROW..first % ROW + lanes.len()));
            let Some(bells) = bells else { return false };
            bells.iter().zip(lanes).fold(0, |rung, (bell, lane)| rung | differs(bell, lane)) != 0
        }
    }

    /// Takes a message, with the lane it came by. `take` as for the SPSC ring.
    #[inline(always)]
    pub(crate) fn pop<T: AnyBitPattern + Send, R, const N: usize, S: Scope>(
        &mut self,
        queue: &Lanes<T, PRODUCERS, N, S>,
        take: impl FnOnce(&SharedCell<T>) -> (R, usize),
    ) -> Option<(usize, R)> {
        if !self.select(queue) {
            return None;
        }
        let i = self.current;
        self.left = self.left.saturating_sub(1);
        self.pop_lane(queue, i, take).map(|result| (i.index(), result))
    }

    /// Copies out the first line of the oldest message of lane `i`, which stays there. By the stamp alone:
    /// `poll` finds a message whose producer died before its bell.
    #[inline(always)]
    pub(crate) fn peek_head<T: AnyBitPattern + Send, H: bytemuck::Pod, const N: usize, S: Scope>(
        &self,
        queue: &Lanes<T, PRODUCERS, N, S>,
        i: Place<PRODUCERS>,
    ) -> Option<H> {
        self.lanes[i].peek_head(&queue.lanes[i].slots)
    }

    /// Takes the oldest message of lane `i`.
    #[inline(always)]
    pub(crate) fn pop_lane<T: AnyBitPattern + Send, R, const N: usize, S: Scope>(
        &mut self,
        queue: &Lanes<T, PRODUCERS, N, S>,
        i: Place<PRODUCERS>,
        take: impl FnOnce(&SharedCell<T>) -> (R, usize),
    ) -> Option<R> {
        let Lane { credit, slots } = &queue.lanes[i];
        self.lanes[i].pop(slots, credit, &queue.notes.taken[i], take)
    }

    /// Whether any lane has a message.
    pub(crate) fn any_ready<T: AnyBitPattern + Send, const N: usize, S: Scope>(
        &self,
        queue: &Lanes<T, PRODUCERS, N, S>,
    ) -> bool {
        self.ready(queue, self.current) || self.find(queue, 0, PRODUCERS).is_some()
    }

    /// Whether one of the lanes `first`, `first + step`, ... has rung: a share of a look at all of them.
    #[inline(always)]
    pub(crate) fn any_rung<T: AnyBitPattern + Send, const N: usize, S: Scope>(
        &self,
        queue: &Lanes<T, PRODUCERS, N, S>,
        first: usize,
        step: usize,
    ) -> bool {
        (first..PRODUCERS).step_by(step.max(1)).filter_map(Place::new).any(|i| self.has_rung(queue, i))
    }

    /// Messages that wait in all lanes: a snapshot that only producers can make too small.
    pub(crate) fn pending<T: AnyBitPattern + Send, const N: usize, S: Scope>(
        &self,
        queue: &Lanes<T, PRODUCERS, N, S>,
    ) -> u64 {
        Place::all()
            .map(|i| {
                let lane = &self.lanes[i];
                // Relaxed: a hint. The stamps vouch for what is counted, so that whoever is told of a message finds it.
                let rung = u64::from(queue.bells.at(i).load(Relaxed).wrapping_sub(lane.head as u16));
                // More than a lane holds: the stamp was seen and taken before its bell (nothing waits), or the bell
                // lies.
                if rung > N as u64 { 0 } else { lane.waiting(&queue.lanes[i].slots, rung) }
            })
            .sum()
    }

    /// Tells every producer how far this consumer has read.
    pub(crate) fn publish<T: AnyBitPattern + Send, const N: usize, S: Scope>(
        &mut self,
        queue: &Lanes<T, PRODUCERS, N, S>,
    ) {
        for (state, lane) in self.lanes.iter_mut().zip(&queue.lanes) {
            state.publish(&lane.credit);
        }
    }
}

#[cfg(not(k2k_loom))]
impl<T: AnyBitPattern + Send, const PRODUCERS: usize, const N: usize, S: Scope> Default for Lanes<T, PRODUCERS, N, S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: AnyBitPattern + Send, const PRODUCERS: usize, const N: usize, S: Scope> Lanes<T, PRODUCERS, N, S> {
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

    /// Takes the producing end of lane `lane`.
    ///
    /// # Errors
    /// [`Taken`] while that lane has a producer.
    ///
    /// # Panics
    /// If there is no such lane.
    pub fn producer(&self, lane: usize) -> Result<LaneProducer<'_, T, PRODUCERS, N, S>, Taken>
    where
        S: ReachesHere,
    {
        let Some(lane) = Place::new(lane) else {
            panic!("lane {lane} does not exist: the queue has {PRODUCERS} lanes")
        };
        if claim_end(&self.claims.producers[lane]) {
            Ok(LaneProducer { queue: self, lane, state: self.recover_producer(lane) })
        } else {
            Err(Taken)
        }
    }

    /// Takes the consuming end.
    ///
    /// # Errors
    /// [`Taken`] while another consumer exists.
    pub fn consumer(&self) -> Result<LanesConsumer<'_, T, PRODUCERS, N, S>, Taken>
    where
        S: ReachesHere,
    {
        if claim_end(&self.claims.consumer) {
            Ok(LanesConsumer { queue: self, state: LanesState::recover(self) })
        } else {
            Err(Taken)
        }
    }
}

/// The producing end of one lane. Dropping it lets another one be taken.
#[derive(Debug)]
#[cfg_attr(not(any(target_arch = "nvptx64", k2k_device)), repr(align(128)))]
pub struct LaneProducer<'q, T: AnyBitPattern + Send, const PRODUCERS: usize, const N: usize, S: Scope = System> {
    queue: &'q Lanes<T, PRODUCERS, N, S>,
    lane: Place<PRODUCERS>,
    state: ProducerState,
}

impl<T: AnyBitPattern + Send, const PRODUCERS: usize, const N: usize, S: Scope> LaneProducer<'_, T, PRODUCERS, N, S> {
    /// Appends a message.
    ///
    /// # Errors
    /// [`Full`] if `N` messages of this lane wait.
    #[inline]
    pub fn push(&mut self, value: &T) -> Result<(), Full> {
        // SAFETY: rule 2 of the SPSC ring: `fill` is called with the slot that is this producer's to write.
        let fill = |body: &SharedCell<T>| unsafe { body.write(value, size_of::<T>()) };
        self.queue.push(self.lane, &mut self.state, size_of::<T>(), fill)
    }

    /// Appends as many of `values` as there is room for, and rings once; returns how many.
    #[inline]
    pub fn push_batch(&mut self, values: &[T]) -> usize {
        let Lane { credit, slots } = &self.queue.lanes[self.lane];
        let count = self.state.push_batch(slots, credit, values);
        if count > 0 {
            self.queue.ring_bell(self.lane, &self.state);
        }
        count
    }
}

impl<T: AnyBitPattern + Send, const PRODUCERS: usize, const N: usize, S: Scope> Drop
    for LaneProducer<'_, T, PRODUCERS, N, S>
{
    fn drop(&mut self) {
        release_end(&self.queue.claims.producers[self.lane]);
    }
}

/// The consuming end of a [`Lanes`] queue. Dropping it acknowledges what was read and lets another one be taken.
#[derive(Debug)]
#[cfg_attr(not(any(target_arch = "nvptx64", k2k_device)), repr(align(128)))]
pub struct LanesConsumer<'q, T: AnyBitPattern + Send, const PRODUCERS: usize, const N: usize, S: Scope = System> {
    queue: &'q Lanes<T, PRODUCERS, N, S>,
    state: LanesState<PRODUCERS>,
}

impl<T: AnyBitPattern + Send, const PRODUCERS: usize, const N: usize, S: Scope> LanesConsumer<'_, T, PRODUCERS, N, S> {
    /// Takes a message, with the index of its lane.
    #[inline]
    pub fn pop(&mut self) -> Option<(usize, T)> {
        // SAFETY: rule 2 of the SPSC ring: `take` is called with the slot that is this consumer's to read.
        self.state.pop(self.queue, |body| unsafe { (body.read(), size_of::<T>()) })
    }

    /// Messages that wait: a snapshot, which only producers can make too small.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.state.pending(self.queue)
    }
}

impl<T: AnyBitPattern + Send, const PRODUCERS: usize, const N: usize, S: Scope> Drop
    for LanesConsumer<'_, T, PRODUCERS, N, S>
{
    fn drop(&mut self) {
        self.state.publish(self.queue);
        release_end(&self.queue.claims.consumer);
    }
}
