//! A bounded ring for one producer and one consumer, in which each message publishes itself.
//!
//! Lamport's queue (1983) with two changes that others found before us. A *stamp* in the slot's own first line says
//! that the slot is full, as in FastForward (Giacomoni, Moseley and Vachharajani, PPoPP 2008): data and readiness move
//! in one cache line, and there is no shared tail. And the producer keeps a copy of the consumer's position, as in
//! MCRingBuffer (Lee, Bu and Chandranmenon, IPDPS 2010), and looks at the real one only when the ring seems full.
//!
//! ```text
//!              index = position % N
//!            +-------+-------+-------+-------+
//!   stamp    |   5   |   6   |   3   |   4   |      N = 4, head = 3, tail = 6
//!            +-------+-------+-------+-------+
//!   body     |  p=4  |  p=5  | (p=2) |  p=3  |      position 2 was read: slot 2 is free for position 6,
//!            +-------+-------+-------+-------+      whose stamp will be 7
//!                        ^               ^
//!                    tail - 1           head
//! ```
//!
//! A slot is full for position `p` when its stamp is `p + 1`. Stamps are never cleared, so that a producer can find
//! its position again by looking at them. Zero is the stamp of no position: zeroed memory is an empty ring.
//!
//! # Who may touch what
//!
//! 1. `Slot::stamp`: written by the producer, read by both.
//! 2. `Slot::body`: the producer's from the moment it sees `tail - credit < N` until it stores the stamp; the
//!    consumer's from the moment it sees the stamp until it stores a credit beyond the slot. In that time the consumer
//!    may also *write* it: see "Lines that the consumer has written".
//! 3. `Credit`: written by the consumer only, read by the producer.
//! 4. Each side's own position lives in its state (`ProducerState`, `ConsumerState`) and is never read back from
//!    shared memory. The consumer leaves a copy in a word that nobody else looks at (`consumed` in `Claims`), for a
//!    successor.
//!
//! # Synchronisation
//!
//! | label | release | acquire | what becomes visible |
//! | --- | --- | --- | --- |
//! | `slot-published` | producer's stamp store | consumer's stamp load | the body written before the stamp |
//! | `slot-freed` | consumer's credit store | producer's credit load | that the consumer is done with all bodies below |
//! | `end-handed-over` | `Claims` release | `Claims` claim | everything the previous endpoint did |
//!
//! # Lines that the consumer has written
//!
//! A line that was only read stays shared, and the producer's next write to it, a lap later, is an upgrade that no
//! prefetcher starts early. If the consumer stores one word into each line it has read, the line moves back as a whole.
//! How much that is worth depends on the processor: from a factor of four and more to nothing. Across a bus it would be
//! wrong, so it is off for device code (`CONSUMER_WRITES_LINES`).
//!
//! # Progress
//!
//! Every operation is wait-free. A producer that stops between writing a body and its stamp leaves the slot as it
//! was: nothing to repair. One that stops within a batch may leave stamps behind a gap, which its successor clears. A
//! consumer that stops has noted each message that it copied out before it did anything else with the slot: its
//! successor goes on with the next one.
//!
//! # Positions
//!
//! 64 bits, so at 10⁹ messages a second a ring lives for 584 years.

mod ends;

pub use ends::{Claim, Consumer, InUse, Peek, Producer, Spsc};

use crate::error::Full;
use crate::shape::{Ring, Typed};
use crate::sync::Ordering::{Acquire, Relaxed, Release};
use crate::sync::{AtomicU32, AtomicU64, Body, LINE, ON_DEVICE, Scope, SharedCell, shared_struct};
use bytemuck::AnyBitPattern;
use core::marker::PhantomData;
use core::ptr::NonNull;

/// Whether the consumer stores a word into each line it has read. See the module's page.
pub(crate) const CONSUMER_WRITES_LINES: bool = !ON_DEVICE;

/// Messages of a batch that are published together, where that is of use.
const RUN: usize = 16;

/// Messages from a gap on that may have been stamped, but not sent: those of a run, or of all members of a group.
const UNORDERED: u64 = 32;

shared_struct! {
    /// One slot of a ring: the stamp, and the bytes it vouches for.
    pub(crate) struct Slot[T: AnyBitPattern + Send,][T,] in S {
        pub(crate) stamp: AtomicU64<S>,
        pub(crate) body: SharedCell<T>,
    }
}

shared_struct! {
    /// The slots of a ring: written by the producer, polled by the consumer, so they live on the consumer's side.
    #[repr(align(128))]
    pub(crate) struct Slots[T: AnyBitPattern + Send, const N: usize,][T, N,] in S {
        slots: [Slot<T, S>; N],
    }
}

impl<T: AnyBitPattern + Send, const N: usize, S: Scope> Slots<T, N, S> {
    /// `position % N`, without a division.
    pub(crate) const MASK: u64 = {
        assert!(N.is_power_of_two(), "the capacity of a ring must be a power of two");
        assert!(N <= 1 << 15, "a ring holds at most 32768 messages");
        assert!(align_of::<T>() <= 8, "ring elements are aligned to at most 8 bytes");
        N as u64 - 1
    };
}

shared_struct! {
    /// How far the consumer has read: written by the consumer, polled by the producer, so it lives on the producer's side.
    #[repr(align(128))]
    pub(crate) struct Credit[][] in S {
        position: AtomicU64<S>,
    }
}

/// The producer's half of a ring: where it will write next, and what it last saw of the consumer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ProducerState {
    pub(crate) tail: u64,
    pub(super) credit: u64,
}

/// The consumer's half of a ring: where it reads next, and what it has told the producer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ConsumerState {
    pub(crate) head: u64,
    pub(super) published: u64,
}

impl ConsumerState {
    /// Messages consumed that the producer was not told of.
    #[inline(always)]
    pub(super) const fn unpublished(&self) -> u64 {
        self.head.wrapping_sub(self.published)
    }
}

/// A slot, wherever it is.
pub(crate) struct SlotView<'r, R: Ring> {
    pub(super) stamp: &'r AtomicU64<R::Scope>,
    pub(super) body: Body<'r, R::Item>,
}

/// A ring whose parts lie anywhere: what the algorithm works on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SpscView<'r, R: Ring> {
    credit: &'r Credit<R::Scope>,
    /// The first of the ring's slots.
    slots: NonNull<u8>,
    ring: R,
    memory: PhantomData<&'r AtomicU64<R::Scope>>,
}

// SAFETY: what is behind it are atomics, and cells of `Send` items that the protocol hands over.
unsafe impl<R: Ring> Send for SpscView<'_, R> {}
// SAFETY: as above.
unsafe impl<R: Ring> Sync for SpscView<'_, R> {}

impl<'r, T: AnyBitPattern + Send, const N: usize, S: Scope> SpscView<'r, Typed<T, 1, N, S>> {
    /// The ring of these parts, which may lie in different memories.
    #[inline(always)]
    pub(crate) const fn of(slots: &'r Slots<T, N, S>, credit: &'r Credit<S>) -> Self {
        Self { credit, slots: NonNull::from_ref(slots).cast(), ring: Typed::SHAPE, memory: PhantomData }
    }
}

impl<'r, R: Ring> SpscView<'r, R> {
    /// # Safety
    /// For `'r`, there are as many slots behind `slots` as the shape says, aligned to 8.
    #[inline(always)]
    pub(crate) const unsafe fn at(slots: NonNull<u8>, credit: &'r Credit<R::Scope>, ring: R) -> Self {
        Self { credit, slots, ring, memory: PhantomData }
    }

    /// How many messages it holds.
    #[inline(always)]
    fn len(self) -> u64 {
        self.ring.slots() as u64
    }

    #[inline(always)]
    pub(super) fn slot(self, position: u64) -> SlotView<'r, R> {
        let i = position as usize & self.ring.mask();
        // SAFETY: `i` is below the number of slots, and each is as long as the shape says: a stamp and a body.
        unsafe {
            let slot = self.slots.add(i * self.ring.stride());
            let body = slot.add(core::mem::offset_of!(Slot<R::Item, R::Scope>, body));
            SlotView { stamp: slot.cast().as_ref(), body: Body::at(body, self.ring.lines()) }
        }
    }

    /// Finds the producer's position in a ring that may have been in use.
    ///
    /// Takes as many loads as there are slots, and a few more: the stamps from the consumer's position on say what was
    /// published.
    pub(crate) fn recover_producer(self) -> ProducerState {
        // Acquire [slot-freed]: the consumer is done with every body below this position.
        let head = self.credit.position.load(Acquire);
        let mut tail = head;
        // Relaxed: only this end writes stamps, and the claim of the end has made its predecessor's visible.
        while tail.wrapping_sub(head) < self.len() && self.slot(tail).stamp.load(Relaxed) == tail.wrapping_add(1) {
            tail = tail.wrapping_add(1);
        }
        // A predecessor that died within a run: what it had stamped behind the gap was never sent, and must not become
        // visible when the gap is filled. Relaxed: before the stamp that fills it, which the consumer will acquire.
        for position in (1..UNORDERED.min(self.len())).map(|i| tail.wrapping_add(i)) {
            let stamp = self.slot(position).stamp;
            if stamp.load(Relaxed) == position.wrapping_add(1) {
                stamp.store(0, Relaxed);
            }
        }
        ProducerState { tail, credit: head }
    }

    /// In a copy for onlookers: says how far the consumer has read.
    #[cfg(not(k2k_loom))]
    pub(crate) fn show_credit(self, position: u64) {
        // Relaxed: a number to show.
        self.credit.position.store(position, Relaxed);
    }

    /// For an onlooker: how far the consumer has told the producer that it has read.
    #[cfg(not(k2k_loom))]
    pub(crate) fn credit(self) -> u64 {
        // Relaxed: a number to show.
        self.credit.position.load(Relaxed)
    }

    /// Slots that can be written now, at least `wanted` if there are that many; asks the consumer only if the copy of
    /// its position says that there are fewer.
    #[inline(always)]
    pub(crate) fn room(self, state: &mut ProducerState, wanted: u64) -> u64 {
        let mut used = state.tail.wrapping_sub(state.credit);
        if self.len().saturating_sub(used) < wanted {
            // Acquire [slot-freed]: pairs with the credit store in `publish_credit`; the consumer has copied out (and
            // written back) every body below this position, so they may be overwritten.
            state.credit = self.credit.position.load(Acquire);
            used = state.tail.wrapping_sub(state.credit);
        }
        // A credit beyond the tail (a hostile or broken consumer) gives a huge `used`: the ring counts as full.
        self.len().saturating_sub(used)
    }

    /// Appends what `fill` writes: `used` bytes, more or less.
    ///
    /// # Errors
    /// [`Full`] if all slots hold messages that the consumer has not freed.
    #[inline(always)]
    pub(crate) fn push(
        self,
        state: &mut ProducerState,
        used: usize,
        fill: impl FnOnce(Body<'r, R::Item>),
    ) -> Result<(), Full> {
        if self.room(state, 1) == 0 {
            return Err(Full);
        }
        self.reach_ahead(state, used);
        // Rule 2: there is room, so the slot is this producer's until the stamp.
        fill(self.slot(state.tail).body);
        self.publish(state);
        Ok(())
    }

    /// Publishes the body at `tail`, which has been written.
    #[inline(always)]
    fn publish(self, state: &mut ProducerState) {
        let slot = self.slot(state.tail);
        state.tail = state.tail.wrapping_add(1);
        // Release [slot-published]: the body written before is visible to the consumer that sees this stamp.
        slot.stamp.store(state.tail, Release);
    }

    /// Slots ahead of the one being written whose lines are asked for already. More than two takes lines away from a
    /// consumer that is still at work on them; small rings have less to spare.
    #[inline(always)]
    fn ahead(self) -> u64 {
        match self.len() {
            ..8 => 0,
            8..128 => 1,
            _ => 2,
        }
    }

    /// Asks for the lines of a slot ahead, if it is known to be free, before the stores that will have to wait for
    /// them: stores leave a processor in order, so one that waits for its line holds up all behind it.
    #[inline(always)]
    fn reach_ahead(self, state: &ProducerState, used: usize) {
        let next = state.tail.wrapping_add(self.ahead());
        if self.ahead() > 0 && next.wrapping_sub(state.credit) < self.len() {
            self.slot(next).body.prefetch(used);
        }
    }

    /// As [`push_batch`](Self::push_batch), for slots of a line at most: in runs, each from its last message to its
    /// first. So a consumer that waits for the first finds all of them, instead of taking each line away while it
    /// is being filled.
    #[inline(always)]
    fn push_runs(self, state: &mut ProducerState, values: &[R::Item]) -> usize {
        let count = self.room(state, (values.len() as u64).min(self.len())).min(values.len() as u64) as usize;
        for run in values.get(..count).unwrap_or_default().chunks(RUN) {
            // Small rings have nothing to spare for the run after this one.
            let after = if self.len() > 4 * RUN as u64 { run.len() as u64 } else { 0 };
            let next = state.tail.wrapping_add(after);
            if next.wrapping_add(RUN as u64).wrapping_sub(state.credit) <= self.len() {
                for i in (0..RUN as u64).step_by((LINE / size_of::<Slot<R::Item, R::Scope>>()).max(1)) {
                    self.slot(next.wrapping_add(i)).body.prefetch(size_of::<R::Item>());
                }
            }
            for (i, value) in run.iter().enumerate().rev() {
                let position = state.tail.wrapping_add(i as u64);
                let slot = self.slot(position);
                // SAFETY: rule 2, as in `push`: there was room for `count`.
                unsafe { slot.body.write(value, size_of::<R::Item>()) };
                // Release [slot-published]: as in `publish`.
                slot.stamp.store(position.wrapping_add(1), Release);
            }
            state.tail = state.tail.wrapping_add(run.len() as u64);
        }
        count
    }

    /// Appends as many of `values` as there is room for, in order; returns how many.
    #[inline(always)]
    pub(crate) fn push_batch(self, state: &mut ProducerState, values: &[R::Item]) -> usize {
        let count = self.room(state, (values.len() as u64).min(self.len())).min(values.len() as u64);
        if !ON_DEVICE {
            for value in values.iter().take(count as usize) {
                self.reach_ahead(state, size_of::<R::Item>());
                // SAFETY: rule 2, as in `push`: there was room for `count`.
                unsafe { self.slot(state.tail).body.write(value, size_of::<R::Item>()) };
                self.publish(state);
            }
            return count as usize;
        }
        // A release is a fence there, and dear: the first finds all bodies written, the others nothing left to do.
        let bodies = values.iter().zip(0..count);
        for (value, i) in bodies {
            // SAFETY: rule 2, as in `push`: there was room for `count`.
            unsafe { self.slot(state.tail.wrapping_add(i)).body.write(value, size_of::<R::Item>()) };
        }
        for _ in 0..count {
            self.publish(state);
        }
        count as usize
    }

    /// Finds the consumer's position in a ring that may have been in use: after the last message consumed.
    pub(crate) fn recover_consumer(self, consumed: &AtomicU64<R::Scope>) -> ConsumerState {
        // Relaxed: only this end writes the two words, and the claim of the end has made its predecessor's stores
        // visible.
        let published = self.credit.position.load(Relaxed);
        let head = consumed.load(Relaxed);
        // More than a ring apart: no consumer writes this.
        let head = if head.wrapping_sub(published) > self.len() { published } else { head };
        ConsumerState { head, published }
    }

    /// The next full slot, if there is one.
    #[inline(always)]
    pub(super) fn next(self, state: &ConsumerState) -> Option<SlotView<'r, R>> {
        let slot = self.slot(state.head);
        // Acquire [slot-published]: pairs with the stamp store in `publish`; the body is visible.
        (slot.stamp.load(Acquire) == state.head.wrapping_add(1)).then_some(slot)
    }

    /// How many messages wait, if someone says that there are `hint`: not more than that.
    pub(crate) fn waiting(self, state: &ConsumerState, hint: u64) -> u64 {
        let mut waiting = hint.min(self.len());
        while waiting > 0 {
            let after = state.head.wrapping_add(waiting);
            // Acquire [slot-published]: as in `next`; so are the stamps of all messages before, which were stored
            // earlier.
            if self.slot(after.wrapping_sub(1)).stamp.load(Acquire) == after {
                break;
            }
            waiting -= 1;
        }
        waiting
    }

    /// Whether a message waits.
    #[inline(always)]
    pub(crate) fn ready(self, state: &ConsumerState) -> bool {
        self.next(state).is_some()
    }

    /// Copies out the first line of the oldest message, which stays in the ring.
    #[inline(always)]
    pub(crate) fn peek_head<H: bytemuck::Pod>(self, state: &ConsumerState) -> Option<H> {
        // SAFETY: rule 2: the stamp says that the slot is full, and nobody but this consumer can free it.
        self.next(state).map(|slot| unsafe { slot.body.read_head() })
    }

    /// Takes the oldest message: `take` copies it out and says how many of its bytes it has looked at.
    #[inline(always)]
    pub(crate) fn pop<V>(
        self,
        state: &mut ConsumerState,
        consumed: &AtomicU64<R::Scope>,
        take: impl FnOnce(Body<'r, R::Item>) -> (V, usize),
    ) -> Option<V> {
        let Some(slot) = self.next(state) else {
            self.publish_credit(state);
            return None;
        };
        // Rule 2: the stamp says that the slot is full, so it is this consumer's until the credit is stored.
        let (result, used) = take(slot.body);
        self.finish(state, slot, consumed, used);
        Some(result)
    }

    /// Ends the reading of the slot at `head`.
    #[inline(always)]
    fn finish(self, state: &mut ConsumerState, slot: SlotView<'r, R>, consumed: &AtomicU64<R::Scope>, used: usize) {
        state.head = state.head.wrapping_add(1);
        // Relaxed: for a successor only. Before the write-back, so that it never takes a message that was written over.
        consumed.store(state.head, Relaxed);
        if CONSUMER_WRITES_LINES {
            // SAFETY: rule 2: still this consumer's; the value has been copied out.
            unsafe { slot.body.write_back(used) };
        }
        // Telling the producer costs a line transfer: once per eighth of the ring, and when it has run dry.
        if state.unpublished() >= self.publish_every() {
            self.publish_credit(state);
        }
    }

    /// How many messages that were consumed without telling the producer are too many.
    #[inline(always)]
    pub(super) fn publish_every(self) -> u64 {
        if self.len() < 8 { 1 } else { self.len() / 8 }
    }

    /// Takes up to `out.len()` messages; returns how many. In runs, each copied out, then noted as consumed, then
    /// written over.
    #[inline(always)]
    pub(crate) fn pop_batch(
        self,
        state: &mut ConsumerState,
        consumed: &AtomicU64<R::Scope>,
        out: &mut [R::Item],
    ) -> usize {
        let mut count = 0;
        // As long as the producer may go without news; never a single one.
        for run in out.chunks_mut(self.publish_every().max(2) as usize) {
            let first = state.head;
            for place in &mut *run {
                let Some(slot) = self.next(state) else { break };
                // SAFETY: rule 2: the stamp says that the slot is full, so it is this consumer's until the credit is
                // stored.
                unsafe { slot.body.read_used(place, |_| size_of::<R::Item>()) };
                state.head = state.head.wrapping_add(1);
            }
            let length = state.head.wrapping_sub(first);
            count += length as usize;
            if length > 0 {
                // Relaxed: as in `finish`: before the write-back.
                consumed.store(state.head, Relaxed);
            }
            if CONSUMER_WRITES_LINES {
                for i in 0..length {
                    // SAFETY: rule 2: still this consumer's; the values have been copied out.
                    unsafe { self.slot(first.wrapping_add(i)).body.write_back(size_of::<R::Item>()) };
                }
            }
            let dry = length < run.len() as u64;
            if dry || state.unpublished() >= self.publish_every() {
                self.publish_credit(state);
            }
            if dry {
                break;
            }
        }
        count
    }

    /// Tells the producer how far this consumer has read. `pop` does so by itself every `N / 8` messages and when the
    /// ring runs dry.
    #[inline(always)]
    pub(crate) fn publish_credit(self, state: &mut ConsumerState) {
        if state.published != state.head {
            state.published = state.head;
            // Release [slot-freed]: all reads of (and write-backs of) bodies below `head` happen before the producer
            // that sees this position overwrites them.
            self.credit.position.store(state.head, Release);
        }
    }
}

shared_struct! {
    /// The claim words of the two ends of a ring: 0 is free, 1 is in use; and the consumer's note.
    #[repr(align(128))]
    pub(crate) struct Claims[][] in S {
        pub(super) producer: AtomicU32<S>,
        pub(super) consumer: AtomicU32<S>,
        /// Position after the last message consumed; written by the consumer, read by its successor.
        pub(super) consumed: AtomicU64<S>,
    }
}

/// Takes an end of a ring.
pub(crate) fn claim_end<S: Scope>(word: &AtomicU32<S>) -> bool {
    // Acquire [end-handed-over]: what the end's previous owner did is visible to this one.
    // (Release is not needed: a claim publishes nothing.) Relaxed on failure: nothing is learnt but the refusal.
    word.compare_exchange(0, 1, Acquire, Relaxed).is_ok()
}

/// Gives an end of a ring back.
pub(crate) fn release_end<S: Scope>(word: &AtomicU32<S>) {
    // Release [end-handed-over]: everything this owner did is visible to the next claim.
    word.store(0, Release);
}

#[cfg(not(k2k_loom))]
const _: () = {
    assert!(size_of::<Credit>() == 128 && align_of::<Credit>() == 128);
    assert!(size_of::<Claims>() == 128);
    assert!(UNORDERED >= RUN as u64);
    assert!(size_of::<Slot<[u64; 7]>>() == 64);
    assert!(size_of::<Spsc<u64, 64>>() == 128 + 128 + 64 * 16);
};

#[cfg(test)]
#[cfg(not(k2k_loom))]
mod tests {
    use super::*;
    use crate::message::Message;

    #[test]
    fn a_ring_has_the_sizes_that_every_side_expects() {
        assert_eq!(
            (size_of::<Slot<u64>>(), size_of::<Slot<[u64; 7]>>(), size_of::<Slot<Message<64>>>()),
            (16, 64, 128)
        );
        assert_eq!((size_of::<Slots<u64, 4>>(), align_of::<Slots<u64, 4>>()), (128, 128));
        assert_eq!((size_of::<Credit>(), align_of::<Credit>(), size_of::<Claims>()), (128, 128, 128));
    }

    #[test]
    fn no_more_wait_than_were_published_whatever_somebody_says() {
        let ring = Spsc::<u64, 8>::new();
        let mut producer = ring.producer().unwrap();
        let state = ring.view().recover_consumer(&ring.claims.consumed);
        for published in 0..=8 {
            for hint in [0, 1, 3, 8, 9, u64::MAX] {
                assert_eq!(ring.view().waiting(&state, hint), hint.min(published));
            }
            let _ = producer.push(&published);
        }
    }

    /// As a producer leaves it that died within a run: the last of it stamped, the first not.
    #[test]
    fn what_a_dead_producer_had_not_sent_does_not_appear_later() {
        let ring = Spsc::<u64, 64>::new();
        let mut consumer = ring.consumer().unwrap();
        let mut producer = ring.producer().unwrap();
        assert_eq!(producer.push_batch(&[1, 2, 3]), 3);
        drop(producer);
        // Position 3 is the gap: all that a group may have stamped behind it.
        for position in 4..3 + UNORDERED {
            ring.view().slot(position).stamp.store(position + 1, Relaxed);
        }
        let mut successor = ring.producer().unwrap();
        successor.push(&4).unwrap();
        let all: [_; 5] = core::array::from_fn(|_| consumer.pop());
        assert_eq!(all, [Some(1), Some(2), Some(3), Some(4), None]);
        for value in 5..4 + UNORDERED {
            assert_eq!(consumer.pop(), None);
            successor.push(&value).unwrap();
            assert_eq!(consumer.pop(), Some(value));
        }
        assert_eq!(consumer.pop(), None);
    }
}
