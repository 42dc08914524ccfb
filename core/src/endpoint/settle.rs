//! Settling messages that this kernel has taken: deciding what became of them, and counting that.
//!
//! A message is decided (its receipt compare-exchanged) before it is counted, and counted by the kernel that decided it.

use super::Endpoint;
use crate::fabric::{Counter, DeliveryStatus, Event, Verdict};
use crate::message::{Header, MessageId};
use crate::platform::Platform;
use crate::shape::Shape;

impl<P: Platform, Sh: Shape> Endpoint<'_, P, Sh> {
    /// Settles a message; the caller [counts](Self::is_settled_as) it. A source that is no kernel index has nothing to
    /// lose.
    #[inline(always)]
    pub(super) fn decide(&self, header: &Header, status: DeliveryStatus) -> Verdict {
        match self.member.receipts_of(header.source()) {
            Some(receipts) => receipts.decide_noted(header.sequence, status, || self.ledger.found()),
            None => Verdict::Lost,
        }
    }

    /// Whether a message has ended as this kernel has decided, by the verdict on it; the caller then counts it. If the
    /// message has ended in another way, that is counted here, unless another party has counted it.
    #[inline(always)]
    pub(super) fn is_settled_as(&mut self, header: &Header, verdict: Verdict, status: DeliveryStatus) -> bool {
        let ended = match verdict {
            Verdict::Decided => status,
            // A look at the clock after the one that the sender has acted on, should it have given this message up: as
            // that one was past the deadline and the margin, this one is past the deadline. So what was reported before
            // the receipt was overwritten stays true.
            Verdict::Alone => self.after_deadline(header, status),
            Verdict::GivenUp(status) => status,
            Verdict::Lost => {
                self.discard(header.id(), header.hops);
                return false;
            }
        };
        if ended != status {
            self.count_outcome(header, ended);
        }
        ended == status
    }

    /// Settles a message that cannot be received, and counts it, unless another party has already.
    #[cold]
    #[inline(never)]
    pub(super) fn settle(&mut self, header: &Header, status: DeliveryStatus) {
        self.settle_deferred(header, status, None);
    }

    /// As [`settle`](Self::settle), for a message that lies in the transit store, perhaps: it is removed before it is
    /// counted.
    #[cold]
    #[inline(never)]
    pub(super) fn settle_deferred(&mut self, header: &Header, status: DeliveryStatus, deferred: Option<u64>) {
        let status = self.after_deadline(header, status);
        let verdict = self.decide(header, status);
        self.deferred.remove(&self.member, deferred);
        if self.is_settled_as(header, verdict, status) {
            self.count_outcome(header, status);
        }
    }

    /// What a message ends in that cannot be received: whatever came first, after its deadline it has timed out.
    fn after_deadline(&self, header: &Header, status: DeliveryStatus) -> DeliveryStatus {
        if header.deadline_ns < self.platform.now_ns() { DeliveryStatus::Timeout } else { status }
    }

    /// Settles a message for this kernel as `NotAllowed`, if its source is denied.
    #[inline(always)]
    pub(super) fn refuses(&mut self, header: &Header) -> bool {
        self.inbox.is_restricted(&self.member) && self.refuse_denied(header)
    }

    #[cold]
    #[inline(never)]
    fn refuse_denied(&mut self, header: &Header) -> bool {
        let denied = self.member.fabric().senders().denies(self.id(), header.source());
        if denied {
            self.settle(header, DeliveryStatus::NotAllowed);
        }
        denied
    }

    /// Counts a message that this kernel has settled.
    #[cold]
    #[inline(never)]
    pub(super) fn count_outcome(&mut self, header: &Header, status: DeliveryStatus) {
        self.count_failed(status, header.id(), header.hops);
    }

    /// Counts a failed message that this kernel, or its predecessor, has settled, and then notes it for onlookers.
    // In this order: the platform may panic, and what was settled must be counted.
    #[cold]
    #[inline(never)]
    pub(super) fn count_failed(&mut self, status: DeliveryStatus, id: MessageId, hops: u8) {
        self.ledger.count_failure(status, 1);
        let wall_ns = self.wall_ns(self.platform.now_ns());
        self.member.fabric().failures_at(self.member.index()).write(status, id, hops, wall_ns);
        self.trace_of(Event::Failed, Some(status), id, hops);
    }

    /// Counts a message that another party has settled and counted.
    #[cold]
    #[inline(never)]
    pub(super) fn discard(&mut self, id: MessageId, hops: u8) {
        self.ledger.count(Counter::Discarded);
        self.trace_of(Event::Discarded, None, id, hops);
    }
}
