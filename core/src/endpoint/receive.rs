//! Receiving: from the inbox to the caller, past what is for others.

use super::Endpoint;
use crate::fabric::{Counter, DeliveryStatus};
use crate::platform::Platform;
use crate::shape::{Index, Packet, Shape};
use crate::sync::zeroed_in;
use core::mem::MaybeUninit;

/// Messages that one call of `try_receive` takes out of the inbox at most.
pub(super) const BUDGET: usize = 256;

/// Messages that `poll` passes on from one sender, or from the high-priority ring, before the next one has its turn.
pub(super) const POLL_TURN: usize = 16;

/// Turns of the high-priority ring, and of a sender, in one call of `poll`.
pub(super) const POLL_ROUNDS: usize = 8;

impl<P: Platform, Sh: Shape> Endpoint<'_, P, Sh> {
    /// Takes the next message for this kernel, if there is one. Transit traffic that lies before it is passed on.
    ///
    /// High priority comes first; otherwise first in, first out per sender. Messages whose deadline has passed, and
    /// those for an earlier owner of this index, are not received.
    #[inline]
    pub fn try_receive(&mut self) -> Option<Sh::Item> {
        let mut message = bytemuck::Zeroable::zeroed();
        self.try_receive_into(&mut message).then_some(message)
    }

    /// As [`try_receive`](Self::try_receive), into a message that the caller has: nothing is copied twice. `false` if
    /// there is none; `message` may then hold one that was not for the caller. Bytes behind the payload stay what they
    /// were.
    #[inline]
    pub fn try_receive_into(&mut self, message: &mut Sh::Item) -> bool {
        self.may_write() && self.receive_into(message)
    }

    /// As [`try_receive_into`](Self::try_receive_into), for an endpoint that may write.
    #[inline]
    pub(crate) fn receive_into(&mut self, message: &mut Sh::Item) -> bool {
        self.deferred.begin_call();
        if !self.deferred.is_empty() {
            self.make_room();
            // A kernel with mail of its own all the time must not let others' wait for their deadlines.
            if self.deferred.is_turn() {
                self.flush_transit();
            }
        }
        for _ in 0..BUDGET {
            if !self.take(message) {
                break;
            }
            if self.handle(message) {
                return true;
            }
            self.make_room();
        }
        self.after_last();
        false
    }

    /// Passes on transit traffic without receiving, and settles messages of its own that are overdue: for a kernel that is
    /// paused, or busy with something of its own.
    ///
    /// A message for this kernel stays in its ring, and keeps back what follows it there: later messages of the same
    /// sender, or, for one of high priority, everything of high priority. Returns the number of messages passed on.
    ///
    /// One call has 8 rounds. In each round the high-priority ring has a turn, and then one sender that has transit
    /// traffic at the head of its ring: the senders have theirs one after the other, across calls. A turn is 16 messages
    /// at most. So transit traffic at the head of a sender's ring waits for at most `16 × (KERNELS - 1)` messages of other
    /// senders and `16 × KERNELS` of high priority, and traffic of high priority for at most 16 normal messages.
    #[inline(never)]
    pub fn poll(&mut self) -> usize {
        if !self.may_write() {
            return 0;
        }
        let mut place = MaybeUninit::uninit();
        let message = zeroed_in(&mut place);
        self.expire_some();
        self.flush_transit();
        let mut passed = 0;
        for _ in 0..POLL_ROUNDS {
            let before = passed;
            passed += self.poll_high(message);
            for _ in 0..self.member.fabric().shape().producers() {
                let sender = self.inbox.next_sender(&self.member);
                let turn = self.poll_sender(sender, message);
                passed += turn;
                if turn > 0 {
                    break;
                }
            }
            if passed == before {
                break;
            }
        }
        passed
    }

    /// A turn of the high-priority ring: passes on up to 16 messages.
    fn poll_high(&mut self, message: &mut Sh::Item) -> usize {
        let mut passed = 0;
        while passed < POLL_TURN && self.inbox.take_high_in_transit(&self.member, &self.ledger, &self.platform, message)
        {
            passed += 1;
            self.pass_over(message);
        }
        passed
    }

    /// A sender's turn: passes on up to 16 messages.
    fn poll_sender(&mut self, sender: Index<Sh>, message: &mut Sh::Item) -> usize {
        let inbox = self.member.sharded();
        let mut passed = 0;
        while passed < POLL_TURN && self.inbox.take_in_transit(&inbox, &self.member, &self.ledger, sender, message) {
            passed += 1;
            self.pass_over(message);
        }
        passed
    }

    /// Passes a message on without receiving it: one for this kernel ends in `NotFound`.
    #[cold]
    #[inline(never)]
    pub(super) fn pass_over(&mut self, message: &Sh::Item) {
        if self.is_for_here(message) {
            self.settle(message.header(), DeliveryStatus::NotFound);
        }
    }

    /// Takes the next message of the inbox, whichever kernel it is for; `false` if there is none.
    #[inline(always)]
    pub(super) fn take(&mut self, message: &mut Sh::Item) -> bool {
        self.inbox.take(&self.member, &self.ledger, &self.platform, message)
    }

    /// The inbox is empty.
    #[inline(always)]
    pub(super) fn after_last(&mut self) {
        self.inbox.look_at_restrictions(&self.member);
        self.flush_transit();
    }

    /// Checks a message, and passes it on if it is for someone else; `true` if it is for this kernel.
    #[inline(always)]
    pub(super) fn is_for_here(&mut self, message: &Sh::Item) -> bool {
        let header = message.header();
        let fabric = self.member.fabric();
        if header.check(self.capacity()).is_err()
            || fabric.index(header.source().index()).is_none()
            || fabric.index(header.destination().index()).is_none()
        {
            self.ledger.count(Counter::Corrupt);
            return false;
        }
        if header.destination() != self.id() {
            self.handle_other(message);
            return false;
        }
        true
    }

    /// Does with a message what has to be done; `true` if it is to be handed to the caller.
    #[inline(always)]
    fn handle(&mut self, message: &Sh::Item) -> bool {
        let header = message.header();
        if !self.is_for_here(message) {
            return false;
        }
        if self.refuses(header) {
            return false;
        }
        let now_ns = self.platform.now_ns();
        if header.deadline_ns < now_ns {
            self.settle(header, DeliveryStatus::Timeout);
            return false;
        }
        // Before the message is decided: the platform may panic, and what was decided must be handed over.
        let wall_ns = self.wall_ns(now_ns);
        // Order 2 and 3 of the module's page.
        let verdict = self.decide(header, DeliveryStatus::Delivered);
        if !self.is_settled_as(header, verdict, DeliveryStatus::Delivered) {
            return false;
        }
        self.ledger.count(Counter::Received);
        if self.clock.update(wall_ns, header.sent()).is_err() {
            self.clock.now(wall_ns);
            self.ledger.count(Counter::ClockSkews);
        }
        self.trace_received(header);
        true
    }
}
