//! What a gateway does with its proxies' endpoints: mail leaves the domain by one half of this page, and comes in by
//! the other.
//!
//! Out: [`take_for_transfer`](Endpoint::take_for_transfer) takes a message and holds its receipt; when the remote side
//! has said what became of it, [`settle_transfer`](Endpoint::settle_transfer) settles it here. In:
//! [`send_for`](Endpoint::send_for) sends what a kernel of the other domain has sent there, as that kernel's proxy;
//! [`outcome`](Endpoint::outcome) says what became of it.

use super::Endpoint;
use super::receive::BUDGET;
use super::send::SendError;
use crate::fabric::{Counter, DeliveryStatus, Event, Status, Step, Verdict};
use crate::message::{Header, MessageId};
use crate::platform::Platform;
use crate::shape::{Packet, Shape};

impl<P: Platform, Sh: Shape> Endpoint<'_, P, Sh> {
    /// Takes the next message for this kernel, holds it, and records that: its way here ends with
    /// [`settle_transfer`](Self::settle_transfer). One that may not make another hop, or is too late, is ended; what is
    /// for others is passed on. `false` if there is none.
    pub(crate) fn take_for_transfer(&mut self, message: &mut Sh::Item, record: usize) -> bool {
        if !self.may_write() {
            return false;
        }
        self.deferred.begin_call();
        for _ in 0..BUDGET {
            match self.take_one_for_transfer(message, record) {
                Some(true) => return true,
                Some(false) => {}
                None => break,
            }
        }
        self.after_last();
        false
    }

    /// Whether the next message is for this kernel and held; `None` if there is none.
    // Not part of the loop, which would keep addresses of the endpoint's parts in registers during all calls.
    #[inline(never)]
    fn take_one_for_transfer(&mut self, message: &mut Sh::Item, record: usize) -> Option<bool> {
        self.make_room();
        if !self.take(message) {
            return None;
        }
        if !self.is_for_here(message) || !self.mark_in_transit(message.header()) {
            return Some(false);
        }
        let header = message.header_mut();
        // Below its limit, so below 255.
        header.hops += 1;
        // While the message is still noted as being consumed.
        self.member.outstanding().put(record, header.source_index, header.sequence);
        self.ledger.count(Counter::Forwarded);
        self.trace(Event::Forwarded, None, message.header());
        Some(true)
    }

    fn mark_in_transit(&mut self, header: &Header) -> bool {
        // In the order in which a forwarder looks, but for the sender set. `end` looks at the deadline first.
        if self.refuses(header) {
            return false;
        }
        if header.hops >= header.hop_limit() {
            self.settle(header, DeliveryStatus::MaxHopsExceeded);
            return false;
        }
        if header.deadline_ns < self.platform.now_ns() {
            self.settle(header, DeliveryStatus::Timeout);
            return false;
        }
        let verdict = match self.member.receipts_of(header.source()) {
            Some(receipts) => receipts.mark_in_transit_noted(header.sequence, || self.ledger.found()),
            None => Verdict::Lost,
        };
        // For everyone but the gateway, a message in transit is pending.
        self.is_settled_as(header, verdict, DeliveryStatus::Pending)
    }

    /// Settles a message that was [taken for transfer](Self::take_for_transfer), and counts it here. If there is a record
    /// of it, that is emptied in between.
    pub(crate) fn settle_transfer(&mut self, id: MessageId, hops: u8, status: DeliveryStatus, record: Option<usize>) {
        if !self.may_write() {
            return;
        }
        let Some(receipts) = self.member.receipts_of(id.source) else { return };
        self.ledger.note(id.source.index() as u16, id.sequence, Step::Settling, status as u64);
        let verdict = receipts.settle_noted(id.sequence, status, || self.ledger.found());
        if let Some(record) = record {
            self.member.outstanding().remove(record);
        }
        let status = match verdict {
            Verdict::Lost => return self.discard(id, hops),
            Verdict::Decided | Verdict::Alone => status,
            Verdict::GivenUp(status) => status,
        };
        if status == DeliveryStatus::Delivered {
            self.ledger.count(Counter::Received);
            self.trace_of(Event::Received, None, id, hops);
        } else {
            self.count_failed(status, id, hops);
        }
    }

    /// Sends a message that its source has sent in the remote domain, under this kernel's address and the given sequence,
    /// but with its own times, limits and count of hops. Its header has been checked; its destination is one of this
    /// domain. All sequences of this kernel are at least `first`. Its remote sender can ask for its last `receipts`
    /// receipts.
    ///
    /// # Errors
    /// As for `send`. `QueueFull` also while the receipt's entry is in use: try again.
    pub(crate) fn send_for(
        &mut self,
        message: &Sh::Item,
        sequence: u64,
        first: u64,
        receipts: u64,
    ) -> Result<(), SendError> {
        if self.is_evicted() {
            return Err(SendError::Evicted { kernel: self.id() });
        }
        let given = message.header();
        let to = given.destination();
        let hop = self.member.next_hop(to).map_err(|kernel| SendError::NotFound { kernel })?;
        if hop.marks.is_restricted() && self.member.fabric().senders().denies(to, self.id()) {
            return Err(SendError::NotAllowed { receiver: to });
        }
        if given.deadline_ns < self.platform.now_ns() {
            return Err(SendError::Timeout { deadline_ns: given.deadline_ns });
        }
        // An entry may be needed again before the gateway knows how its message has ended. It is overwritten only if
        // the sender's own is by now, in its domain: then nothing but the counters shows what becomes of that message.
        if self.member.receipts().is_in_use(sequence, first, receipts)
            || !self.outbox.has_room(&self.member, hop.index, given.priority)
        {
            return Err(SendError::QueueFull { next_hop: hop.id });
        }
        let mut header = *given;
        header.sequence = sequence;
        header.set_source(self.id());
        self.retract(sequence);
        // Order 1 of the module's page. Before the sequence is used, a successor can know that it is.
        if let Some(base) = self.ledger.skip_to(sequence) {
            self.member.receipts().set_base(base);
        }
        let to_hop = self.outbox.deposit_of(hop.index, &header).encode();
        let open = || self.member.receipts().open_out_of_order(sequence, to, given.deadline_ns);
        self.ledger.begin_sending(to_hop, sequence, open);
        if self.deposit_own(hop, &header, message) { Ok(()) } else { Err(SendError::QueueFull { next_hop: hop.id }) }
    }

    /// What became of a message that was [sent for](Self::send_for) another kernel: decides as
    /// [`receipt`](Self::receipt) does. `None` while it is pending.
    pub(crate) fn outcome(&mut self, sequence: u64) -> Option<DeliveryStatus> {
        if !self.resolve(sequence) {
            return None;
        }
        let receipts = self.member.receipts();
        match receipts.read(sequence) {
            Ok(DeliveryStatus::Pending) => None,
            Ok(status) => {
                receipts.set_collected(sequence);
                Some(status)
            }
            // Overwritten: see `send_for`. It may still be received.
            Err(_) => Some(DeliveryStatus::Unanswered),
        }
    }

    /// Leaves for everyone else: nothing can be sent here any more, and mail ends in `NotFound`. What was taken for
    /// transfer or sent for another goes on. The index becomes free when this is dropped.
    pub(crate) fn close(&mut self) {
        self.leave(Status::Leaving);
    }
}
