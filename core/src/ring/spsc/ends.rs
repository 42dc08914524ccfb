//! The ring as a program has it, and its two ends.

use super::{Claims, ConsumerState, Credit, ProducerState, Slot, Slots, SpscView, claim_end, release_end};
use crate::error::Full;
use crate::shape::Typed;
use crate::sync::Ordering::Relaxed;
use crate::sync::{Body, LINE, ON_DEVICE, ReachesHere, Scope, System, shared_struct};
use bytemuck::AnyBitPattern;

shared_struct! {
    /// A ring of exactly `N` messages for one producer and one consumer. `N` is a power of two, 32768 at most.
    ///
    /// Zeroed memory is an empty ring. It may lie in a `static`, on the heap or in memory that processes share, at
    /// a different address in each.
    ///
    /// ```
    /// use k2k_core::ring::Spsc;
    ///
    /// static RING: Spsc<u64, 64> = Spsc::new();
    /// let mut producer = RING.producer().expect("the first producer");
    /// let mut consumer = RING.consumer().expect("the first consumer");
    /// producer.push(&7).expect("an empty ring has room");
    /// assert_eq!(consumer.pop(), Some(7));
    /// assert!(RING.producer().is_err(), "there is one producer at a time");
    /// ```
    pub struct Spsc[T: AnyBitPattern + Send, const N: usize,][T, N,] in S {
        pub(in crate::ring) claims: Claims<S>,
        pub(in crate::ring) credit: Credit<S>,
        pub(in crate::ring) slots: Slots<T, N, S>,
    }
}

/// An end of the ring is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InUse;

impl core::fmt::Display for InUse {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(
            "this end of the ring is in use: drop the producer or consumer that holds it, or, if its holder is dead, take it \
             over with `recover_producer` or `recover_consumer` (in rings that have them)",
        )
    }
}

impl core::error::Error for InUse {}

#[cfg(not(k2k_loom))]
impl<T: AnyBitPattern + Send, const N: usize, S: Scope> Default for Spsc<T, N, S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: AnyBitPattern + Send, const N: usize, S: Scope> Spsc<T, N, S> {
    /// An empty ring.
    #[cfg(not(k2k_loom))]
    #[must_use]
    pub const fn new() -> Self {
        const { assert!(Slots::<T, N, S>::MASK < u64::MAX) };
        // SAFETY: `Shared`: zero is the idle state, and valid.
        unsafe { core::mem::MaybeUninit::zeroed().assume_init() }
    }

    /// As [`new`](Self::new), in memory of the caller's: a ring can be too large for the stack.
    /// `k2k::boxed` puts it on the heap.
    ///
    /// ```
    /// use core::mem::MaybeUninit;
    /// use k2k_core::ring::Spsc;
    ///
    /// // In a static it is made when the program is compiled.
    /// static RING: Spsc<[u64; 32], 32_768> = Spsc::new();
    ///
    /// let mut place = Box::<Spsc<[u64; 32], 32_768>>::new_uninit();
    /// let ring = Spsc::new_in(&mut place);
    /// for ring in [&RING, &*ring] {
    ///     ring.producer().unwrap().push(&[7; 32]).unwrap();
    ///     assert_eq!(ring.consumer().unwrap().pop(), Some([7; 32]));
    /// }
    /// ```
    #[cfg(not(k2k_loom))]
    pub const fn new_in(place: &mut core::mem::MaybeUninit<Self>) -> &mut Self {
        const { assert!(Slots::<T, N, S>::MASK < u64::MAX) };
        crate::sync::idle_in(place)
    }

    /// An empty ring.
    #[cfg(k2k_loom)]
    #[must_use]
    pub fn new() -> Self {
        crate::sync::Shared::idle()
    }

    /// Takes the producing end. It continues where the previous producer stopped.
    ///
    /// # Errors
    /// [`InUse`] while another producer exists.
    pub fn producer(&self) -> Result<Producer<'_, T, N, S>, InUse>
    where
        S: ReachesHere,
    {
        if claim_end(&self.claims.producer) { Ok(self.producer_unclaimed()) } else { Err(InUse) }
    }

    /// Takes the consuming end. It continues where the previous consumer stopped.
    ///
    /// # Errors
    /// [`InUse`] while another consumer exists.
    pub fn consumer(&self) -> Result<Consumer<'_, T, N, S>, InUse>
    where
        S: ReachesHere,
    {
        if claim_end(&self.claims.consumer) { Ok(self.consumer_unclaimed()) } else { Err(InUse) }
    }

    /// Takes the producing end from an owner that died without dropping it (a killed process, a reset device).
    ///
    /// # Safety
    /// The previous producer does not run any more.
    pub unsafe fn recover_producer(&self) -> Producer<'_, T, N, S>
    where
        S: ReachesHere,
    {
        // Relaxed: the caller vouches that the predecessor has ended; that knowledge is the synchronisation.
        self.claims.producer.store(1, Relaxed);
        self.producer_unclaimed()
    }

    /// Takes the consuming end from an owner that died without dropping it. Messages that it had consumed are not
    /// delivered again.
    ///
    /// # Safety
    /// The previous consumer does not run any more.
    pub unsafe fn recover_consumer(&self) -> Consumer<'_, T, N, S>
    where
        S: ReachesHere,
    {
        // Relaxed: as in `recover_producer`.
        self.claims.consumer.store(1, Relaxed);
        self.consumer_unclaimed()
    }

    /// The ring as the algorithm sees it.
    #[inline(always)]
    pub(in crate::ring) const fn view(&self) -> SpscView<'_, Typed<T, 1, N, S>> {
        SpscView::of(&self.slots, &self.credit)
    }

    fn producer_unclaimed(&self) -> Producer<'_, T, N, S> {
        Producer { ring: self, state: self.view().recover_producer() }
    }

    fn consumer_unclaimed(&self) -> Consumer<'_, T, N, S> {
        Consumer { ring: self, state: self.view().recover_consumer(&self.claims.consumed) }
    }
}

/// The producing end of an [`Spsc`]. Dropping it lets another one be taken.
#[derive(Debug)]
#[cfg_attr(not(any(target_arch = "nvptx64", k2k_device)), repr(align(128)))]
pub struct Producer<'r, T: AnyBitPattern + Send, const N: usize, S: Scope = System> {
    ring: &'r Spsc<T, N, S>,
    state: ProducerState,
}

impl<'r, T: AnyBitPattern + Send, const N: usize, S: Scope> Producer<'r, T, N, S> {
    /// Appends a message. The value is lent, so a refused one is still the caller's.
    ///
    /// While the ring is full only the consumer can change that; while it is not, nobody else can.
    ///
    /// # Errors
    /// [`Full`] if `N` messages wait.
    #[inline]
    pub fn push(&mut self, value: &T) -> Result<(), Full> {
        // SAFETY: rule 2: `fill` is called with the slot that is this producer's to write.
        let fill = |body: Body<'_, T>| unsafe { body.write(value, size_of::<T>()) };
        self.ring.view().push(&mut self.state, size_of::<T>(), fill)
    }

    /// Appends as many of `values` as there is room for, in order, and returns how many that were.
    #[inline]
    pub fn push_batch(&mut self, values: &[T]) -> usize {
        let ring = self.ring.view();
        // Loom's slots are larger than a line; its models of shards have the other way.
        if !ON_DEVICE && (size_of::<Slot<T, S>>() <= LINE || cfg!(k2k_loom)) {
            ring.push_runs(&mut self.state, values)
        } else {
            ring.push_batch(&mut self.state, values)
        }
    }

    /// Takes the next free slot, to be written in place and [committed](Claim::commit).
    ///
    /// # Errors
    /// [`Full`] if `N` messages wait.
    #[inline]
    pub fn claim(&mut self) -> Result<Claim<'_, 'r, T, N, S>, Full> {
        let ring = self.ring.view();
        if ring.room(&mut self.state, 1) == 0 {
            return Err(Full);
        }
        ring.reach_ahead(&self.state, size_of::<T>());
        Ok(Claim { producer: self })
    }

    /// Slots that can be written at once, at least. Only this producer makes it smaller.
    #[inline]
    pub fn free_slots(&mut self) -> usize {
        self.ring.view().room(&mut self.state, N as u64) as usize
    }
}

impl<T: AnyBitPattern + Send, const N: usize, S: Scope> Drop for Producer<'_, T, N, S> {
    fn drop(&mut self) {
        release_end(&self.ring.claims.producer);
    }
}

/// A slot that is being written in place. Dropping it without [`commit`](Self::commit) sends nothing.
#[derive(Debug)]
pub struct Claim<'p, 'r, T: AnyBitPattern + Send, const N: usize, S: Scope = System> {
    producer: &'p mut Producer<'r, T, N, S>,
}

impl<T: AnyBitPattern + Send, const N: usize, S: Scope> Claim<'_, '_, T, N, S> {
    /// Writes the whole message. Without it, the slot holds whatever an earlier lap left.
    #[inline]
    pub fn write(&mut self, value: &T) {
        // SAFETY: rule 2: `Producer::claim` saw room, and holds the only producer until this is dropped.
        unsafe { self.body().write(value, size_of::<T>()) };
    }

    /// Address of the message in the ring, for writing parts of it. Write with volatile or atomic stores if a hostile
    /// process can map the same memory.
    #[cfg(not(k2k_loom))]
    #[inline]
    pub fn as_mut_ptr(&mut self) -> *mut T {
        self.body().as_ptr()
    }

    /// Publishes the message.
    #[inline]
    pub fn commit(self) {
        // What was written through this claim is visible to the consumer that sees the stamp.
        self.producer.ring.view().publish(&mut self.producer.state);
    }

    fn body(&self) -> Body<'_, T> {
        self.producer.ring.view().slot(self.producer.state.tail).body
    }
}

/// The consuming end of an [`Spsc`]. Dropping it acknowledges what was read and lets another one be taken.
#[derive(Debug)]
#[cfg_attr(not(any(target_arch = "nvptx64", k2k_device)), repr(align(128)))]
pub struct Consumer<'r, T: AnyBitPattern + Send, const N: usize, S: Scope = System> {
    ring: &'r Spsc<T, N, S>,
    state: ConsumerState,
}

impl<'r, T: AnyBitPattern + Send, const N: usize, S: Scope> Consumer<'r, T, N, S> {
    /// Takes the oldest message.
    ///
    /// `None` while the ring is empty, which only the producer can change.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        // SAFETY: rule 2: `take` is called with the slot that is this consumer's to read.
        let take = |body: Body<'_, T>| unsafe { (body.read(), size_of::<T>()) };
        self.ring.view().pop(&mut self.state, &self.ring.claims.consumed, take)
    }

    /// Takes up to `out.len()` messages, oldest first, and returns how many it took.
    #[inline]
    pub fn pop_batch(&mut self, out: &mut [T]) -> usize {
        self.ring.view().pop_batch(&mut self.state, &self.ring.claims.consumed, out)
    }

    /// Looks at the oldest message without taking it; [`Peek::release`] takes it.
    #[inline]
    pub fn peek(&mut self) -> Option<Peek<'_, 'r, T, N, S>> {
        self.ring.view().next(&self.state)?;
        Some(Peek { consumer: self })
    }

    /// Whether the ring is empty now. Only the producer can change a `true`.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.ring.view().ready(&self.state)
    }
}

impl<T: AnyBitPattern + Send, const N: usize, S: Scope> Drop for Consumer<'_, T, N, S> {
    fn drop(&mut self) {
        self.ring.view().publish_credit(&mut self.state);
        release_end(&self.ring.claims.consumer);
    }
}

/// The oldest message of a ring, read in place. Dropping it without [`release`](Self::release) leaves it in the ring.
#[derive(Debug)]
pub struct Peek<'c, 'r, T: AnyBitPattern + Send, const N: usize, S: Scope = System> {
    consumer: &'c mut Consumer<'r, T, N, S>,
}

impl<T: AnyBitPattern + Send, const N: usize, S: Scope> Peek<'_, '_, T, N, S> {
    /// Copies the message out.
    #[inline]
    #[must_use]
    pub fn read(&self) -> T {
        // SAFETY: rule 2: `Consumer::peek` saw the stamp, and no credit beyond the slot is stored while this lives.
        unsafe { self.body().read() }
    }

    /// Address of the message in the ring, for reading parts of it. Read with volatile or atomic loads if a hostile
    /// process can map the same memory.
    #[cfg(not(k2k_loom))]
    #[inline]
    #[must_use]
    pub fn as_ptr(&self) -> *const T {
        self.body().as_ptr()
    }

    /// Takes the message out of the ring; its slot is free for the producer.
    #[inline]
    pub fn release(self) {
        let (ring, state) = (self.consumer.ring, &mut self.consumer.state);
        let view = ring.view();
        view.finish(state, view.slot(state.head), &ring.claims.consumed, size_of::<T>());
    }

    fn body(&self) -> Body<'_, T> {
        self.consumer.ring.view().slot(self.consumer.state.head).body
    }
}
