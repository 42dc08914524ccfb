//! Messages on their way through a kernel whose next hop has no room.
//!
//! Every kernel keeps a store of `SLOTS` such messages in the fabric, so that it can take them out of its inbox and get
//! at what lies behind them, its own mail above all. From the store a message leaves by being forwarded when the next
//! hop has room, or by failing when its deadline passes. A message that finds the store full fails with `QueueFull` at
//! once.
//!
//! **This is why a cycle of full inboxes cannot deadlock.** A poll never waits for another kernel: each message it
//! takes is received, forwarded, deferred or failed, in a bounded number of steps, so every kernel that polls goes on
//! emptying its inbox whatever its neighbours do. The price is that overload ends in `QueueFull` receipts rather than
//! in back pressure through the mesh; their senders may send again, since such a message was certainly not delivered.
//!
//! Messages of one priority to the same next hop leave the store in the order in which they entered it.
//!
//! # If the kernel dies
//!
//! A message is in the store from the store of `last` on (or of `used`, where [`compact`](TransitView::compact) has moved it)
//! until its `used` becomes 0. `compact` copies a message into the gap before it, marks the copy as used, and then
//! empties the original. A kernel that dies in between leaves the message twice, one copy right behind the other, which
//! is how the successor knows it: [`recover`](TransitView::recover) empties the second. Every other step is one store.
//!
//! 1. All words and bodies here are written and read by the kernel's own endpoint only. They lie in the fabric so that
//!    an endpoint that is taken over finds them, and because a GPU block has no other place for them.

use crate::message::{Header, Message};
use crate::shape::{Packet, Part, Shape};
use crate::sync::Ordering::Relaxed;
use crate::sync::{AtomicU32, AtomicU64, Body, SharedCell, shared_struct};
use core::mem::offset_of;
#[cfg(not(k2k_loom))]
use core::ops::Range;

shared_struct! {
    struct DeferredSlot[const PAYLOAD: usize,][PAYLOAD,] {
        /// 0: empty; otherwise 1 + index of the next hop that the message was deferred for.
        used: AtomicU32,
        _zero: AtomicU32,
        body: SharedCell<Message<PAYLOAD>>,
    }
}

shared_struct! {
    /// One kernel's store.
    #[repr(align(128))]
    pub(crate) struct Transit[const SLOTS: usize, const PAYLOAD: usize,][SLOTS, PAYLOAD,] {
        /// Oldest position in use.
        first: AtomicU64,
        /// Position after the youngest.
        last: AtomicU64,
        slots: [DeferredSlot<PAYLOAD>; SLOTS],
    }
}

/// The endpoint's half: positions `first..last` of the store, some of which may already be empty.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TransitState {
    first: u64,
    last: u64,
    len: u32,
    /// Where a look at all messages goes on: before it lie those that this look has found to stay.
    next: u64,
}

impl<const SLOTS: usize, const PAYLOAD: usize> Transit<SLOTS, PAYLOAD> {
    /// Where the messages begin, and how far they are apart.
    pub(crate) const SLOTS_AT: usize = offset_of!(Self, slots);
    pub(crate) const STRIDE: usize = {
        assert!(offset_of!(Self, first) == 0 && offset_of!(Self, last) == size_of::<AtomicU64>());
        size_of::<DeferredSlot<PAYLOAD>>()
    };
}

/// A slot of a store.
#[derive(Clone, Copy)]
struct DeferredSlotView<'f, T> {
    used: &'f AtomicU32,
    body: Body<'f, T>,
}

/// One kernel's store: of the type `Transit`, for as many messages as the shape says.
pub(crate) enum Store {}
pub(crate) type TransitView<'f, Sh> = Part<'f, Sh, Store>;

impl<'f, Sh: Shape> TransitView<'f, Sh> {
    #[inline(always)]
    fn len(&self) -> u64 {
        self.shape.slots() as u64
    }

    fn first(&self) -> &'f AtomicU64 {
        // SAFETY: it stands first.
        unsafe { self.item(0, 0) }
    }

    fn last(&self) -> &'f AtomicU64 {
        // SAFETY: it is next.
        unsafe { self.item(0, 1) }
    }

    fn at_index(&self, i: usize) -> DeferredSlotView<'f, Sh::Item> {
        let at = Transit::<1, 0>::SLOTS_AT + i * self.shape.numbers().transit_slot;
        // SAFETY: callers' `i` is below the number of slots, and each is as long as the shape says: a word and a body.
        unsafe {
            let body = self.address(at + offset_of!(DeferredSlot<0>, body));
            DeferredSlotView { used: self.item(at, 0), body: Body::at(body, self.shape.lines()) }
        }
    }

    fn at_position(&self, position: u64) -> DeferredSlotView<'f, Sh::Item> {
        self.at_index(position as usize & self.shape.mask())
    }

    /// Finds what a predecessor left.
    pub(crate) fn recover(&self) -> TransitState {
        // Relaxed throughout: rule 1; `index-left` made a predecessor's stores visible.
        let first = self.first().load(Relaxed);
        let last = self.last().load(Relaxed);
        if last.wrapping_sub(first) > self.len() {
            // No endpoint writes this.
            return TransitState::default();
        }
        let mut state = TransitState { first, last, len: 0, next: first };
        // The predecessor died within `put`, between the two stores: the message is still the inbox's or lost.
        for position in (last.wrapping_sub(first)..self.len()).map(|i| first.wrapping_add(i)) {
            let used = self.at_position(position).used;
            if used.load(Relaxed) != 0 {
                used.store(0, Relaxed);
            }
        }
        let mut before = None;
        for position in state.positions() {
            let slot = self.at_position(position);
            // Relaxed: as above.
            if slot.used.load(Relaxed) == 0 {
                continue;
            }
            let id = Some(self.header(position).id());
            if id == before {
                // The predecessor died within `compact`: this message was copied, and the original was not yet emptied.
                slot.used.store(0, Relaxed);
            } else {
                state.len += 1;
                before = id;
            }
        }
        state
    }

    /// Messages in the store, for an onlooker.
    pub(crate) fn waiting(&self) -> u64 {
        // Relaxed: a number to show.
        (0..self.shape.slots()).map(|i| self.at_index(i)).map(|slot| u64::from(slot.used.load(Relaxed) != 0)).sum()
    }

    /// For an onlooker: the positions that may hold a message. None, if the words say what no endpoint writes.
    #[cfg(not(k2k_loom))]
    pub(crate) fn in_use(&self) -> impl Iterator<Item = u64> + use<Sh> {
        // Relaxed, both: a number to show.
        let (first, last) = (self.first().load(Relaxed), self.last().load(Relaxed));
        let count = last.wrapping_sub(first);
        (0..if count > self.len() { 0 } else { count }).map(move |i| first.wrapping_add(i))
    }

    /// For an onlooker that copies parts of a store: where its positions are, in bytes from its start.
    #[cfg(not(k2k_loom))]
    pub(crate) const ENDS: Range<usize> = 0..2 * size_of::<AtomicU64>();

    /// As [`ENDS`](Self::ENDS): where the message at a position is. First comes the word that
    /// [`next_hop`](Self::next_hop) reads.
    #[cfg(not(k2k_loom))]
    pub(crate) fn slot_bytes(&self, position: u64) -> Range<usize> {
        let stride = self.shape.numbers().transit_slot;
        let at = Transit::<1, 0>::SLOTS_AT + (position as usize & self.shape.mask()) * stride;
        at..at + stride
    }

    /// Defers a message; `false` if there is no room.
    pub(crate) fn put(&self, state: &mut TransitState, message: &Sh::Item, next_hop: usize) -> bool {
        if state.last.wrapping_sub(state.first) >= self.len() {
            self.compact(state);
        }
        if state.last.wrapping_sub(state.first) >= self.len() {
            return false;
        }
        let slot = self.at_position(state.last);
        // SAFETY: rule 1.
        unsafe { slot.body.write(message, message.used()) };
        // Relaxed: rule 1.
        slot.used.store(next_hop as u32 + 1, Relaxed);
        state.last = state.last.wrapping_add(1);
        state.len += 1;
        self.last().store(state.last, Relaxed);
        true
    }

    /// The index of the next hop that the message at a position was deferred for, if there is a message.
    pub(crate) fn next_hop(&self, position: u64) -> Option<usize> {
        // Relaxed: rule 1.
        self.at_position(position).used.load(Relaxed).checked_sub(1).map(|i| i as usize)
    }

    /// Copies out the message at a position, which [`next_hop`](Self::next_hop) said is there. Bytes behind its payload
    /// stay what they were.
    pub(crate) fn get(&self, position: u64, message: &mut Sh::Item) {
        // SAFETY: rule 1.
        unsafe { self.at_position(position).body.read_used(message, Packet::used) };
    }

    /// Copies out the header of the message at a position.
    pub(crate) fn header(&self, position: u64) -> Header {
        // SAFETY: rule 1.
        unsafe { self.at_position(position).body.read_head() }
    }

    /// Empties a position.
    pub(crate) fn remove(&self, state: &mut TransitState, position: u64) {
        // Relaxed: rule 1.
        self.at_position(position).used.store(0, Relaxed);
        state.len = state.len.saturating_sub(1);
        while state.first != state.last && self.at_position(state.first).used.load(Relaxed) == 0 {
            state.first = state.first.wrapping_add(1);
        }
        self.first().store(state.first, Relaxed);
    }

    /// Notes that a message that stays now waits for another next hop.
    pub(crate) fn redirect(&self, position: u64, next_hop: usize) {
        // Relaxed: rule 1.
        self.at_position(position).used.store(next_hop as u32 + 1, Relaxed);
    }

    /// After a look at every position has found `len` messages: what the words say now counts, should someone else have
    /// written them. The next look begins.
    pub(crate) fn settle(&self, state: &mut TransitState, len: u32) {
        state.len = len;
        if len == 0 {
            state.first = state.last;
            // Relaxed: rule 1.
            self.first().store(state.first, Relaxed);
        }
        state.next = state.first;
    }

    /// Moves messages up into the gaps, keeping their order.
    #[cold]
    #[inline(never)]
    fn compact(&self, state: &mut TransitState) {
        let mut to = state.first;
        let looked_to = state.looked_to();
        let mut next = None;
        for from in state.positions() {
            if from == looked_to {
                next = Some(to);
            }
            let Some(next_hop) = self.next_hop(from) else { continue };
            if from != to {
                let used = self.header(from).used();
                // SAFETY: rule 1; `to` is a gap, or was moved away from before.
                unsafe { self.at_position(to).body.copy_from(self.at_position(from).body, used) };
                // Relaxed, both: rule 1. In this order, so that a successor finds the message twice rather than not at all.
                self.at_position(to).used.store(next_hop as u32 + 1, Relaxed);
                self.at_position(from).used.store(0, Relaxed);
            }
            to = to.wrapping_add(1);
        }
        state.last = to;
        state.next = next.unwrap_or(to);
        // Relaxed: rule 1.
        self.last().store(to, Relaxed);
    }
}

impl TransitState {
    /// Where the look goes on, once messages before it have gone.
    const fn looked_to(&self) -> u64 {
        let is_inside = self.next.wrapping_sub(self.first) <= self.last.wrapping_sub(self.first);
        if is_inside { self.next } else { self.first }
    }

    /// The position that the look at all messages has come to; `None` at its end.
    pub(crate) const fn look(&self) -> Option<u64> {
        let position = self.looked_to();
        if position == self.last { None } else { Some(position) }
    }

    /// Moves the look on, past this position: after what is there was dealt with. Until then a panic of the platform
    /// leaves the look where it is, and the message in its turn.
    pub(crate) const fn looked(&mut self, position: u64) {
        self.next = position.wrapping_add(1);
    }

    /// Messages in the store.
    pub(crate) const fn len(&self) -> usize {
        self.len as usize
    }

    /// Positions that may hold messages, oldest first.
    pub(crate) fn positions(&self) -> impl Iterator<Item = u64> + use<> {
        let Self { first, last, .. } = *self;
        (0..last.wrapping_sub(first)).map(move |i| first.wrapping_add(i))
    }
}

#[cfg(test)]
#[cfg(not(k2k_loom))]
mod tests {
    extern crate std;
    use super::*;
    use crate::shape::Fixed;
    use std::boxed::Box;

    type Four = TransitView<'static, Fixed<1, 4, 64>>;

    fn store() -> Four {
        // SAFETY: `Shared`: zero is the idle state.
        let store: &Transit<4, 64> = Box::leak(unsafe { Box::new_zeroed().assume_init() });
        // SAFETY: of this shape.
        unsafe { Part::at(core::ptr::NonNull::from_ref(store).cast(), Fixed::SHAPE) }
    }

    fn kinds(store: &Four, state: &TransitState) -> [u32; 4] {
        let mut kinds = [0; 4];
        let headers = state.positions().filter(|&p| store.next_hop(p).is_some()).map(|p| store.header(p));
        kinds.iter_mut().zip(headers).for_each(|(kind, header)| *kind = header.kind);
        kinds
    }

    #[test]
    fn a_store_keeps_messages_and_their_order_across_gaps_and_refuses_when_full() {
        let store = store();
        let mut state = store.recover();
        let message = |kind: u32| {
            let mut message = Message::from_bytes(kind, &[kind as u8; 60]).unwrap();
            message.header.sequence = u64::from(kind);
            message
        };
        for kind in 1..=4 {
            assert!(store.put(&mut state, &message(kind), 0));
        }
        assert!(!store.put(&mut state, &message(5), 0));
        let second = state.positions().nth(1).unwrap();
        store.remove(&mut state, second);
        assert!(store.put(&mut state, &message(5), 0), "the gap is closed to make room");
        assert_eq!(kinds(&store, &state), [1, 3, 4, 5]);
        assert_eq!(state.len(), 4);
        for (position, kind) in state.positions().zip([1, 3, 4, 5]) {
            let mut found = Message::new(0);
            store.get(position, &mut found);
            assert_eq!(found, message(kind));
        }
    }

    #[test]
    fn a_successor_finds_what_was_deferred() {
        let store = store();
        let mut state = store.recover();
        store.put(&mut state, &Message::new(1), 0);
        store.put(&mut state, &Message::new(2), 3);
        let first = state.positions().next().unwrap();
        store.remove(&mut state, first);
        let successor = store.recover();
        assert_eq!((successor.len(), kinds(&store, &successor)), (1, [2, 0, 0, 0]));
    }

    #[test]
    fn a_message_that_was_being_moved_when_its_kernel_died_is_there_once() {
        let store = store();
        let mut state = store.recover();
        for kind in 1..=4 {
            let mut message = Message::new(kind);
            (message.header.source_generation, message.header.sequence) = (1, u64::from(kind));
            store.put(&mut state, &message, 0);
        }
        // As `compact` does it: 2 goes, 3 is copied into the gap, and the kernel dies.
        let second = state.positions().nth(1).unwrap();
        store.remove(&mut state, second);
        // SAFETY: one thread.
        unsafe { store.at_position(second).body.copy_from(store.at_position(second + 1).body, 56) };
        store.at_position(second).used.store(1, Relaxed);
        let successor = store.recover();
        assert_eq!((successor.len(), kinds(&store, &successor)), (3, [1, 3, 4, 0]));
    }

    #[test]
    fn positions_that_no_endpoint_writes_are_an_empty_store() {
        let store = store();
        store.last().store(u64::MAX, Relaxed);
        assert_eq!(store.recover().len(), 0);
    }
}
