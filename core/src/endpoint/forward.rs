//! Passing on: what is for others goes to its next hop, or is put aside until that has room, or fails.

use super::send::Purpose;
use super::{Endpoint, PRIORITIES};
use crate::fabric::{Counter, DeliveryStatus, Event};
use crate::message::{Header, Priority};
use crate::platform::Platform;
use crate::shape::{Index, Packet, Shape};
use crate::sync::zeroed_in;
use core::mem::MaybeUninit;

/// Deferred messages that one call looks at.
const FLUSH_LOOKS: usize = 64;

/// Where messages of this one's priority are counted.
#[inline(always)]
const fn priority_of(header: &Header) -> usize {
    (header.priority != Priority::Normal as u8) as usize
}

impl<L: Platform, Sh: Shape> Endpoint<'_, L, Sh> {
    /// A message for someone else, or for an earlier owner of this place.
    // One copy, as of all that is not the way of a kernel's own mail: on a GPU its code would be most of a kernel's.
    #[inline(never)]
    pub(super) fn handle_other(&mut self, message: &Sh::Item) {
        let header = message.header();
        if header.destination().index() == self.id.index() {
            return self.end(header, DeliveryStatus::NotFound);
        }
        let Some(next_hop) = self.pass_on(message, None) else { return };
        if !self.put_aside(message, next_hop) {
            self.end(header, DeliveryStatus::QueueFull);
        }
    }

    #[cold]
    #[inline(never)]
    fn put_aside(&mut self, message: &Sh::Item, next_hop: Index<Sh>) -> bool {
        let stored = self.fabric.transit(self.place).put(&mut self.transit, message, next_hop.number());
        if stored {
            self.notes.close();
            let parked = self.parked_for(next_hop, message.header());
            *parked = parked.saturating_add(1);
            self.trace(Event::Parked, None, message.header());
        }
        stored
    }

    /// Before a message is taken out of the inbox: if the store is full, looks once per call whether something of it can
    /// go by now. (Not afterwards: a kernel has one message in hand at a time.)
    #[inline(always)]
    pub(super) fn make_room(&mut self) {
        if self.transit.len() >= self.fabric.shape().slots() && !self.flushed {
            self.flush_transit();
        }
    }

    /// The message in hand is about to be counted. If it lies in the store, it is removed before that.
    #[inline(always)]
    pub(super) fn let_go(&mut self, stored: Option<u64>) {
        if let Some(position) = stored {
            self.fabric.transit(self.place).remove(&mut self.transit, position);
        }
    }

    /// How many messages of this one's priority were put aside for a next hop.
    #[inline(always)]
    pub(super) fn parked_for(&mut self, next_hop: Index<Sh>, header: &Header) -> &mut u16 {
        &mut self.parked[next_hop][priority_of(header)]
    }

    /// Forwards a message, which lies at that position of the store if at one, or ends its way. Returns the next hop's
    /// place if that has no room; then the message stays in hand, or in the store.
    // As `handle_other`: one copy.
    #[inline(never)]
    fn pass_on(&mut self, message: &Sh::Item, stored: Option<u64>) -> Option<Index<Sh>> {
        let header = message.header();
        let next_hop = if header.hops >= header.hop_limit() {
            Err(DeliveryStatus::MaxHopsExceeded)
        } else if header.deadline_ns < self.platform.now_ns() {
            Err(DeliveryStatus::Timeout)
        } else {
            self.next_hop(header.destination()).map_err(|_| DeliveryStatus::NotFound)
        };
        let next_hop = match next_hop {
            Ok(next_hop) => next_hop,
            Err(status) => {
                self.end_stored(header, status, stored);
                return None;
            }
        };
        let header = Header { hops: header.hops + 1, ..*header };
        // What was put aside for this next hop goes first, but never before what is of higher priority.
        let before = match stored {
            Some(_) => self.kept[next_hop.place][priority_of(&header)],
            None => self.parked[next_hop.place][priority_of(&header)],
        };
        if before > 0 {
            return Some(next_hop.place);
        }
        self.notes.pass(self.deposit_of(next_hop.place, &header).encode());
        if !self.deposit(next_hop, &header, message, Purpose::Forward) {
            return Some(next_hop.place);
        }
        self.let_go(stored);
        self.count(Counter::Forwarded);
        self.trace(Event::Forwarded, None, &header);
        self.wake(next_hop);
        None
    }

    /// Tries again to forward what was put aside, a bounded number of messages: the next call goes on behind them.
    #[inline(always)]
    pub(super) fn flush_transit(&mut self) {
        if self.transit.len() > 0 {
            self.flushed = true;
            self.flush_stored();
        }
    }

    /// As [`flush_transit`](Self::flush_transit), but looks at all messages.
    pub(super) fn flush_all(&mut self) {
        // A look that has begun, and a whole one.
        for _ in 0..2 {
            while self.transit.len() > 0 && !self.flush_stored() {}
        }
    }

    /// In order, by the routes of now: what has to stay makes everything behind it for the same next hop stay that is of
    /// its priority. `true` at the end of a look at all of them.
    #[cold]
    #[inline(never)]
    fn flush_stored(&mut self) -> bool {
        let store = self.fabric.transit(self.place);
        let mut place = MaybeUninit::uninit();
        let message = zeroed_in(&mut place);
        for _ in 0..=FLUSH_LOOKS {
            let Some(position) = self.transit.look() else {
                // What the store says now counts.
                store.settle(&mut self.transit, self.kept_count);
                core::mem::swap(&mut self.parked, &mut self.kept);
                self.forget_kept();
                return true;
            };
            let Some(parked_for) = store.next_hop(position) else {
                self.transit.looked(position);
                continue;
            };
            store.get(position, message);
            let header = message.header();
            self.notes.take(header.source_index, header.sequence);
            // The store lies in shared memory as well: not necessarily what this endpoint put there.
            if [header.source(), header.destination()].iter().any(|id| self.fabric.index(id.index()).is_none()) {
                self.let_go(Some(position));
                self.count(Counter::Corrupt);
                continue;
            }
            // May panic in the platform's code: then this message is looked at again, and nothing overtakes it.
            let kept_for = self.pass_on(message, Some(position));
            self.transit.looked(position);
            let Some(next_hop) = kept_for else { continue };
            self.notes.close();
            self.kept_count += 1;
            let kept = &mut self.kept[next_hop][priority_of(message.header())];
            *kept = kept.saturating_add(1);
            if next_hop.number() != parked_for {
                store.redirect(position, next_hop.number());
                let parked = self.parked_for(next_hop, message.header());
                *parked = parked.saturating_add(1);
            }
        }
        false
    }

    /// A look at all deferred messages begins.
    pub(super) fn forget_kept(&mut self) {
        self.kept.as_mut().fill([0; PRIORITIES]);
        self.kept_count = 0;
    }
}
