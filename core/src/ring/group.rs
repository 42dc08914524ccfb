//! Group ends: the threads of a warp hold one end of an [SPSC ring](super::spsc) together, each with a slot of its own.
//!
//! A warp of a GPU pushes up to 32 messages with one look for room and one release, and takes as many with one look.
//! Nothing is shared but the ring: each member keeps its own copy of the end's position, and all copies move alike,
//! because the members agree on each step.
//!
//! ```text
//!   member        0       1       2       3            position of the end: 8, room for 3
//!             +-------+-------+-------+
//!   slot      |   8   |   9   |  10   |   -            each writes its body and publishes its stamp;
//!             +-------+-------+-------+                all go on with position 11
//! ```
//!
//! # Synchronisation
//!
//! The ring's own labels. Each member that writes bodies has itself seen the credit that frees them (`slot-freed`), and
//! publishes its body itself (`slot-published`): as all do so in one step, a GPU does it with one fence. The credit,
//! which one member publishes for all, is stored after all have met ([`Group::sync`]).

use super::spsc::{ConsumerState, InUse, ProducerState, Spsc, claim_end, release_end};
use crate::sync::Ordering::Relaxed;
use crate::sync::{Body, ReachesHere, Scope, System};
use bytemuck::AnyBitPattern;

/// Threads that go through a protocol in step: a GPU's warp.
///
/// # Safety
/// Every operation is collective: it returns to no member before all have called it. `sync` makes visible to every
/// member what each did before. Members have the ranks from 0 to `size() - 1`, and `size()` is between 1 and 32.
pub unsafe trait Group: Copy {
    /// Which member this is.
    fn rank(&self) -> u32;

    /// How many there are.
    fn size(&self) -> u32;

    /// A bit per member, by rank: its answer.
    fn ballot(&self, yes: bool) -> u32;

    /// The smallest of all members' values.
    fn min(&self, value: u32) -> u32;

    /// Waits for all members.
    fn sync(&self);
}

impl<T: AnyBitPattern + Send, const N: usize, S: Scope> Spsc<T, N, S> {
    /// Takes the producing end for a group. It continues where the previous producer stopped.
    ///
    /// # Errors
    /// [`InUse`], to all members, while another producer exists.
    ///
    /// # Safety
    /// All members of the group call it, and later every operation of what it returns, its drop included, in the same
    /// order; [`push`](GroupProducer::push) with the same `count`.
    pub unsafe fn group_producer<G: Group>(&self, group: G) -> Result<GroupProducer<'_, G, T, N, S>, InUse>
    where
        S: ReachesHere,
    {
        if !claim(group, || claim_end(&self.claims.producer)) {
            return Err(InUse);
        }
        let found = if group.rank() == 0 { self.view().recover_producer() } else { ProducerState::default() };
        // What the leader has found free is free for all, and cleared before another one publishes there.
        group.sync();
        let state = ProducerState { tail: leaders(group, found.tail), credit: leaders(group, found.credit) };
        Ok(GroupProducer { ring: self, group, state })
    }

    /// Takes the consuming end for a group. It continues where the previous consumer stopped.
    ///
    /// # Errors
    /// [`InUse`], to all members, while another consumer exists.
    ///
    /// # Safety
    /// As for [`group_producer`](Self::group_producer).
    pub unsafe fn group_consumer<G: Group>(&self, group: G) -> Result<GroupConsumer<'_, G, T, N, S>, InUse>
    where
        S: ReachesHere,
    {
        if !claim(group, || claim_end(&self.claims.consumer)) {
            return Err(InUse);
        }
        let found = self.view().recover_consumer(&self.claims.consumed);
        let state = ConsumerState { head: leaders(group, found.head), published: leaders(group, found.published) };
        Ok(GroupConsumer { ring: self, group, state })
    }
}

/// The leader claims for all.
fn claim(group: impl Group, claim: impl FnOnce() -> bool) -> bool {
    group.ballot(group.rank() == 0 && claim()) != 0
}

/// The leader's value, to all: who looked for itself might see another, if someone writes over the ring meanwhile.
fn leaders(group: impl Group, value: u64) -> u64 {
    let half = |half: u32| u64::from(group.min(if group.rank() == 0 { half } else { u32::MAX }));
    half((value >> 32) as u32) << 32 | half(value as u32)
}

/// A producing end that a group holds. Dropping it, by all members, lets another one be taken.
#[derive(Debug)]
pub struct GroupProducer<'r, G: Group, T: AnyBitPattern + Send, const N: usize, S: Scope = System> {
    ring: &'r Spsc<T, N, S>,
    group: G,
    state: ProducerState,
}

impl<G: Group, T: AnyBitPattern + Send, const N: usize, S: Scope> GroupProducer<'_, G, T, N, S> {
    /// Appends the values of the members with ranks below `count`, in the order of ranks, or of as many as there is
    /// room for. Returns how many those are; the values of the others are still theirs.
    #[inline(always)]
    pub fn push(&mut self, value: &T, count: u32) -> u32 {
        let ring = self.ring.view();
        let count = count.min(self.group.size());
        // Every member looks for itself, so that it may write to what was freed; the smallest answer counts for all.
        let room = ring.room(&mut self.state, u64::from(count)).min(u64::from(count)) as u32;
        let enough = self.group.ballot(room == count).count_ones() == self.group.size();
        let count = if enough { count } else { self.group.min(room) };
        if self.group.rank() < count {
            // This member's slot, as a producer of its own that has come that far.
            let mut own = self.state;
            own.tail = own.tail.wrapping_add(u64::from(self.group.rank()));
            // SAFETY: rule 2 of the ring: `fill` is called with the slot that is this member's to write.
            let fill = |body: Body<'_, T>| unsafe { body.write(value, size_of::<T>()) };
            let pushed = ring.push(&mut own, size_of::<T>(), fill);
            debug_assert!(pushed.is_ok(), "there was room for all");
        }
        self.state.tail = self.state.tail.wrapping_add(u64::from(count));
        count
    }
}

impl<G: Group, T: AnyBitPattern + Send, const N: usize, S: Scope> Drop for GroupProducer<'_, G, T, N, S> {
    fn drop(&mut self) {
        self.group.sync();
        if self.group.rank() == 0 {
            release_end(&self.ring.claims.producer);
        }
    }
}

/// A consuming end that a group holds. Dropping it, by all members, acknowledges what was read and lets another one be
/// taken.
#[derive(Debug)]
pub struct GroupConsumer<'r, G: Group, T: AnyBitPattern + Send, const N: usize, S: Scope = System> {
    ring: &'r Spsc<T, N, S>,
    group: G,
    state: ConsumerState,
}

impl<G: Group, T: AnyBitPattern + Send, const N: usize, S: Scope> GroupConsumer<'_, G, T, N, S> {
    /// Takes up to one message per member: the member of rank `i` gets the `i`th of those that wait. Returns how many
    /// there were, and this member's.
    #[inline(always)]
    pub fn pop(&mut self) -> (u32, Option<T>) {
        let (rank, ring) = (self.group.rank(), self.ring.view());
        // This member's slot, as a consumer of its own that has come that far.
        let mut own = self.state;
        own.head = own.head.wrapping_add(u64::from(rank));
        // A ring may have fewer slots than the group has members.
        let slot = if u64::from(rank) < N as u64 { ring.next(&own) } else { None };
        let count = self.group.ballot(slot.is_some()).trailing_ones();
        // SAFETY: rule 2 of the ring: the stamp says that the slot is full, and no credit beyond it is stored yet.
        let value = slot.filter(|_| rank < count).map(|slot| unsafe { slot.body.read() });
        // All have copied before one of them frees the slots.
        self.group.sync();
        self.state.head = self.state.head.wrapping_add(u64::from(count));
        if rank == 0 && count > 0 {
            // Relaxed: for a successor only.
            self.ring.claims.consumed.store(self.state.head, Relaxed);
        }
        if count == 0 || self.state.unpublished() >= ring.publish_every() {
            if rank == 0 {
                self.ring.view().publish_credit(&mut self.state);
            } else {
                self.state.published = self.state.head;
            }
        }
        (count, value)
    }
}

impl<G: Group, T: AnyBitPattern + Send, const N: usize, S: Scope> Drop for GroupConsumer<'_, G, T, N, S> {
    fn drop(&mut self) {
        // All have copied what they took: `pop` has waited for that.
        if self.group.rank() == 0 {
            self.ring.view().publish_credit(&mut self.state);
            release_end(&self.ring.claims.consumer);
        }
    }
}
