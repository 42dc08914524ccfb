//! Receiving: from the inbox to the caller, past what is for others.

use super::Endpoint;
use super::share::LOOKS_WHEN_IDLE;
use crate::fabric::{Counter, DeliveryStatus, Event, Notes, Verdict};
use crate::message::Header;
use crate::platform::Platform;
use crate::ring::ticket::TicketPop;
use crate::shape::{Index, Packet, Shape};
use crate::sync::{Body, Scope, zeroed_in};
use core::mem::MaybeUninit;

/// Messages of high priority that are received in a row while normal ones wait.
pub const HIGH_BURST: u32 = 16;

/// Messages that one call of `try_receive` takes out of the inbox at most.
pub(super) const BUDGET: usize = 256;

/// Messages that `poll` passes on from one sender, or from the high-priority ring, before the next one has its turn.
const POLL_TURN: usize = 16;

/// Turns of the high-priority ring, and of a sender, in one call of `poll`.
const POLL_ROUNDS: usize = 8;

/// Messages received in a row while others are put aside for full next hops, before those are tried again.
const FLUSH_EVERY: u32 = 64;

/// How long a sender of high priority may take between claiming its place and publishing its message, before the
/// receiver passes it over. It then finds out and tries again.
const CLAIM_PATIENCE_NS: u64 = 10_000_000;

/// Copies a message out of a slot, and notes it before the ring counts it as taken: what the SPSC ring's `pop` calls.
#[inline(always)]
fn read_noted<T: Packet, S: Scope>(notes: &Notes<'_, S>, body: Body<'_, T>, message: &mut T) -> ((), usize) {
    // SAFETY: rule 2 of the SPSC ring: `pop` calls this with the slot that is the consumer's to read.
    let used = unsafe { body.read_used(message, Packet::used) };
    notes.take(message.header().source_index, message.header().sequence);
    ((), used)
}

impl<L: Platform, Sh: Shape> Endpoint<'_, L, Sh> {
    /// Takes the next message for this kernel, if there is one. Transit traffic that lies before it is passed on.
    ///
    /// High priority comes first; otherwise first in, first out per sender. Messages whose deadline has passed, and
    /// those for an earlier owner of this place, are not received.
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
        if !self.may_write() {
            return false;
        }
        self.flushed = false;
        if self.transit.len() > 0 {
            self.make_room();
            // A kernel with mail of its own all the time must not let others' wait for their deadlines.
            self.turns = self.turns.wrapping_add(1);
            if self.turns.is_multiple_of(FLUSH_EVERY) {
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
        self.look_at_restrictions();
        self.flush_transit();
        false
    }

    /// The inbox is empty: looks whether some senders may be denied, where that is the time for it.
    #[inline(always)]
    pub(super) fn look_at_restrictions(&mut self) {
        if LOOKS_WHEN_IDLE {
            self.restricted = self.fabric.entry(self.place).is_restricted();
        }
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
            for _ in 0..self.fabric.shape().producers() {
                let sender = self.next_polled;
                self.next_polled = self.fabric.shape().after(sender);
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

    /// One turn of the high-priority ring: passes on up to 16 messages.
    fn poll_high(&mut self, message: &mut Sh::Item) -> usize {
        let ring = self.fabric.high(self.place);
        let mut passed = 0;
        while passed < POLL_TURN {
            // What was not there at this look is not taken: it may be for this kernel.
            match ring.peek_head::<Header>(&mut self.high_in) {
                TicketPop::Message(head) if head.destination().index() != self.id.index() => {}
                TicketPop::Stalled { position, .. } => {
                    if self.wait_for_high(position) {
                        // What lies behind the claim has waited long enough. The next one is waited for in its turn.
                        continue;
                    }
                    break;
                }
                TicketPop::Message(_) | TicketPop::Empty => {
                    self.stalled = None;
                    break;
                }
            }
            // The same message, unless a hostile writer is at work.
            if !self.take_high(message) {
                break;
            }
            passed += 1;
            self.pass_over(message);
        }
        passed
    }

    /// One sender's turn: passes on up to 16 messages.
    fn poll_sender(&mut self, sender: Index<Sh>, message: &mut Sh::Item) -> usize {
        let lanes = self.fabric.lanes(self.place);
        let mut passed = 0;
        while passed < POLL_TURN {
            let Some(head) = lanes.peek_head::<Header>(&self.lanes_in, sender) else { break };
            if head.destination().index() == self.id.index() {
                break;
            }
            let notes = &self.notes;
            let take = |body: Body<'_, _>| read_noted(notes, body, message);
            if lanes.pop_lane(&mut self.lanes_in, sender, take).is_none() {
                break;
            }
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
            self.end(message.header(), DeliveryStatus::NotFound);
        }
    }

    /// The next message of the inbox, for whomever it is; `false` if there is none.
    #[inline(always)]
    pub(super) fn take(&mut self, message: &mut Sh::Item) -> bool {
        let high_waits = self.fabric.high(self.place).ready(&self.high_in);
        if high_waits
            && (self.high_run < HIGH_BURST || !self.fabric.lanes(self.place).any_ready(&self.lanes_in))
            && self.take_high(message)
        {
            self.high_run = self.high_run.saturating_add(1);
            return true;
        }
        self.high_run = 0;
        let notes = &self.notes;
        let take = |body: Body<'_, _>| read_noted(notes, body, message);
        self.fabric.lanes(self.place).pop(&mut self.lanes_in, take).is_some()
    }

    #[cold]
    #[inline(never)]
    fn take_high(&mut self, message: &mut Sh::Item) -> bool {
        let ring = self.fabric.high(self.place);
        let notes = &self.notes;
        // Noted before the message counts as taken.
        let used = |message: &Sh::Item| {
            notes.take(message.header().source_index, message.header().sequence);
            message.used()
        };
        match ring.pop_into(&mut self.high_in, message, used) {
            TicketPop::Message(()) => {
                self.stalled = None;
                true
            }
            TicketPop::Empty => false,
            TicketPop::Stalled { position, .. } => {
                self.wait_for_high(position);
                false
            }
        }
    }

    /// A slot of the high-priority ring is claimed and not published: after a while, the claim is revoked. `true` if that
    /// is over.
    #[cold]
    #[inline(never)]
    fn wait_for_high(&mut self, position: u64) -> bool {
        let now_ns = self.platform.now_ns();
        match self.stalled {
            Some((known, since_ns)) if known == position => {
                if now_ns.saturating_sub(since_ns) > CLAIM_PATIENCE_NS {
                    self.stalled = None;
                    // Whether or not the sender was quicker, the next look finds something else here.
                    self.fabric.high(self.place).revoke(&mut self.high_in, position);
                    return true;
                }
            }
            _ => self.stalled = Some((position, now_ns)),
        }
        false
    }

    /// Checks a message, and passes it on if it is for someone else; `true` if it is for this kernel.
    #[inline(always)]
    pub(super) fn is_for_here(&mut self, message: &Sh::Item) -> bool {
        let header = message.header();
        if header.check(self.capacity()).is_err()
            || self.fabric.index(header.source().index()).is_none()
            || self.fabric.index(header.destination().index()).is_none()
        {
            self.count(Counter::Corrupt);
            return false;
        }
        if header.destination() != self.id {
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
            self.end(header, DeliveryStatus::Timeout);
            return false;
        }
        // Before the message is decided: the platform may panic, and what was decided must be handed over.
        let wall_ns = self.wall_ns(now_ns);
        // Order 2 and 3 of the module's page.
        match self.decide(header, DeliveryStatus::Delivered) {
            // A look at the clock after the one that the sender has acted on, should it have given this message up: as
            // that one was past the deadline and the margin, this one is past the deadline.
            Verdict::Alone if header.deadline_ns < self.platform.now_ns() => {
                self.count_end(header, DeliveryStatus::Timeout);
                false
            }
            Verdict::GivenUp(status) => {
                self.count_end(header, status);
                false
            }
            Verdict::Decided | Verdict::Alone => {
                self.count(Counter::Received);
                if self.clock.update(wall_ns, header.sent()).is_err() {
                    self.clock.now(wall_ns);
                    self.count(Counter::ClockSkews);
                }
                self.trace(Event::Received, None, header);
                true
            }
            Verdict::Lost => {
                self.discard(header.id(), header.hops);
                false
            }
        }
    }
}
