//! Forwarding: a message for another kernel goes to its next hop, is deferred until that has room, or fails.

use super::Endpoint;
use super::outbox::Purpose;
use crate::fabric::{Counter, DeliveryStatus, Event};
use crate::message::Header;
use crate::platform::Platform;
use crate::shape::{Index, Packet, Shape};
use crate::sync::zeroed_in;
use core::mem::MaybeUninit;

/// Deferred messages that one call looks at.
const FLUSH_LOOKS: usize = 64;

impl<P: Platform, Sh: Shape> Endpoint<'_, P, Sh> {
    /// A message for someone else, or for an earlier owner of this index.
    // One copy, as of all that is not the way of a kernel's own mail: on a GPU its code would be most of a kernel's.
    #[inline(never)]
    pub(super) fn handle_other(&mut self, message: &Sh::Item) {
        let header = message.header();
        if header.destination().index() == self.id().index() {
            return self.settle(header, DeliveryStatus::NotFound);
        }
        let Some(next_hop) = self.pass_on(message, None) else { return };
        if !self.defer(message, next_hop) {
            self.settle(header, DeliveryStatus::QueueFull);
        }
    }

    #[cold]
    #[inline(never)]
    fn defer(&mut self, message: &Sh::Item, next_hop: Index<Sh>) -> bool {
        let is_deferred = self.deferred.put(&self.member, message, next_hop);
        if is_deferred {
            self.ledger.close();
            self.trace(Event::Deferred, None, message.header());
        }
        is_deferred
    }

    /// Before a message is taken out of the inbox: if the store is full, looks once per call whether something of it can
    /// go by now. (Not afterwards: a kernel has one message in hand at a time.)
    #[inline(always)]
    pub(super) fn make_room(&mut self) {
        if self.deferred.needs_room(&self.member) {
            self.flush_transit();
        }
    }

    /// Forwards a message, which lies at that position of the store if at one, or ends its way. Returns the next hop's
    /// index if that has no room; then the message stays in hand, or in the store.
    // As `handle_other`: one copy.
    #[inline(never)]
    fn pass_on(&mut self, message: &Sh::Item, deferred: Option<u64>) -> Option<Index<Sh>> {
        let header = message.header();
        let next_hop = if header.hops >= header.hop_limit() {
            Err(DeliveryStatus::MaxHopsExceeded)
        } else if header.deadline_ns < self.platform.now_ns() {
            Err(DeliveryStatus::Timeout)
        } else {
            self.member.next_hop(header.destination()).map_err(|_| DeliveryStatus::NotFound)
        };
        let next_hop = match next_hop {
            Ok(next_hop) => next_hop,
            Err(status) => {
                self.settle_deferred(header, status, deferred);
                return None;
            }
        };
        let header = Header { hops: header.hops + 1, ..*header };
        // What was deferred for this next hop goes first, but never before what is of higher priority.
        if self.deferred.keeps_back(next_hop.index, &header, deferred) {
            return Some(next_hop.index);
        }
        self.ledger.pass(self.outbox.deposit_of(next_hop.index, &header).encode());
        if !self.outbox.deposit(&self.member, &self.ledger, next_hop.index, &header, message, Purpose::Forward) {
            return Some(next_hop.index);
        }
        // Before the count, which ends the note.
        self.deferred.remove(&self.member, deferred);
        self.ledger.count(Counter::Forwarded);
        self.trace(Event::Forwarded, None, &header);
        self.wake(next_hop);
        None
    }

    /// Tries again to forward deferred messages, a bounded number of messages: the next call goes on behind them.
    #[inline(always)]
    pub(super) fn flush_transit(&mut self) {
        if !self.deferred.is_empty() {
            self.deferred.set_flushed();
            self.flush_deferred();
        }
    }

    /// As [`flush_transit`](Self::flush_transit), but looks at all messages.
    pub(super) fn flush_all(&mut self) {
        // A look that has begun, and a whole one.
        for _ in 0..2 {
            while !self.deferred.is_empty() && !self.flush_deferred() {}
        }
    }

    /// In order, by the routes of now: what has to stay makes everything behind it for the same next hop stay that is of
    /// its priority. `true` at the end of a look at all of them.
    #[cold]
    #[inline(never)]
    fn flush_deferred(&mut self) -> bool {
        let mut memory = MaybeUninit::uninit();
        let message = zeroed_in(&mut memory);
        for _ in 0..=FLUSH_LOOKS {
            let Some(position) = self.deferred.look(&self.member) else { return true };
            if !self.deferred.get(&self.member, position, message) {
                self.deferred.looked(position);
                continue;
            }
            let header = message.header();
            self.ledger.take(header.source_index, header.sequence);
            // The store lies in shared memory as well: not necessarily what this endpoint put there.
            if [header.source(), header.destination()].iter().any(|id| self.member.fabric().index(id.index()).is_none())
            {
                self.deferred.remove(&self.member, Some(position));
                self.ledger.count(Counter::Corrupt);
                continue;
            }
            // May panic in the platform's code: then this message is looked at again, and nothing overtakes it.
            let kept_for = self.pass_on(message, Some(position));
            self.deferred.looked(position);
            if let Some(next_hop) = kept_for {
                self.ledger.close();
                self.deferred.keep(&self.member, position, message.header(), next_hop);
            }
        }
        false
    }
}
