//! Deciding what became of a message, counting it, and telling the sender.

use super::Endpoint;
use crate::fabric::{Counter, DeliveryReceipt, DeliveryStatus, Event, ReceiptError, Receipts, Verdict};
use crate::message::{Header, MessageId};
use crate::place::Place;
use crate::platform::{CLOCK_MARGIN_NS, Platform};
use crate::sync::Scope;

impl<L: Platform, const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize, S: Scope>
    Endpoint<'_, L, KERNELS, SLOTS, PAYLOAD, S>
{
    /// What became of a message. For one of this kernel's own that is pending, this also decides: `Timeout` if its
    /// deadline and the margin of the clocks ([`CLOCK_MARGIN_NS`]) have passed, `NotFound` if its destination has left.
    ///
    /// # Errors
    /// [`ReceiptError::Overwritten`] once this kernel has sent `KERNELS × SLOTS` more messages.
    pub fn receipt(&mut self, id: MessageId) -> Result<DeliveryReceipt, ReceiptError> {
        let asks = self.may_write() && id.source.index() == self.id.index();
        if asks && id.sequence <= self.counts[Counter::Sent as usize] {
            self.resolve(id.sequence);
        }
        self.fabric.receipt(id)
    }

    /// Decides all own messages that can no longer arrive, and returns how many are still pending. Takes a step per
    /// message that was pending at the last call; the run loop calls it when idle.
    #[inline(never)]
    pub fn expire(&mut self) -> usize {
        if !self.may_write() {
            return 0;
        }
        let sent = self.counts[Counter::Sent as usize];
        let oldest = sent.saturating_sub((KERNELS * SLOTS) as u64 - 1).max(1);
        let mut first_pending = None;
        let mut pending = 0;
        for sequence in self.unresolved.max(oldest)..=sent {
            if !self.resolve(sequence) {
                first_pending.get_or_insert(sequence);
                pending += 1;
            }
        }
        self.unresolved = first_pending.unwrap_or(sent.saturating_add(1));
        pending
    }

    /// Decides a pending message of this kernel's that can no longer arrive; `true` if it is (then) decided.
    pub(super) fn resolve(&mut self, sequence: u64) -> bool {
        let receipts = &self.fabric.receipts[self.place];
        let Some(pending) = receipts.pending(sequence) else { return true };
        let (deadline_ns, destination) = receipts.terms(sequence);
        // Until then, its receiver may take the message although the receipt was overwritten: see the page of `Platform`.
        let status = if deadline_ns.saturating_add(CLOCK_MARGIN_NS) < self.platform.now_ns() {
            DeliveryStatus::Timeout
        } else if self.registered(destination).is_none() {
            DeliveryStatus::NotFound
        } else {
            return false;
        };
        if receipts.give_up(sequence, pending, status) == Verdict::Decided {
            self.retract_until =
                self.retract_until.max(sequence.saturating_add(Receipts::<KERNELS, SLOTS, S>::CAPACITY));
            self.count_failure(status, 1);
            self.trace_of(Event::Failed, Some(status), MessageId { source: self.id, sequence }, 0);
            return true;
        }
        // Its holder was faster: it has ended the way, or is a gateway, which will.
        receipts.pending(sequence).is_none()
    }

    /// Ends a message's way, and counts how, unless someone has already.
    #[cold]
    #[inline(never)]
    pub(super) fn end(&mut self, header: &Header, status: DeliveryStatus) {
        match self.decide(header, status) {
            Verdict::Decided | Verdict::Alone | Verdict::GivenUp => {
                self.count_failure(status, 1);
                self.trace(Event::Failed, Some(status), header);
            }
            Verdict::Lost => self.discard(header.id(), header.hops),
        }
    }

    /// Ends a message's way; the caller counts what it has decided. A source that is no place has nothing to lose.
    #[inline(always)]
    pub(super) fn decide(&self, header: &Header, status: DeliveryStatus) -> Verdict {
        match Place::new(header.source().index()) {
            Some(source) => self.fabric.receipts[source].decide(header.id(), status),
            None => Verdict::Lost,
        }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn discard(&mut self, id: MessageId, hops: u8) {
        self.count(Counter::Discarded);
        self.trace_of(Event::Discarded, None, id, hops);
    }

    #[cold]
    #[inline(never)]
    pub(super) fn count_failure(&mut self, status: DeliveryStatus, by: i64) {
        let counter = match status {
            DeliveryStatus::NotFound => Counter::NotFound,
            DeliveryStatus::QueueFull => Counter::QueueFull,
            DeliveryStatus::Timeout => Counter::Timeout,
            DeliveryStatus::MaxHopsExceeded => Counter::MaxHopsExceeded,
            DeliveryStatus::Pending | DeliveryStatus::Delivered => return,
        };
        self.set_count(counter, self.counts[counter as usize].wrapping_add_signed(by));
    }

    /// Before the receipt of `sequence` is opened: a message that this kernel has given up, and that nobody has found
    /// yet, will be counted by who finds it.
    #[cold]
    #[inline(never)]
    pub(super) fn retract(&mut self, sequence: u64) {
        let id = MessageId { source: self.id, sequence };
        if let Some(status) = self.fabric.receipts[self.place].retract(id) {
            self.count_failure(status, -1);
        }
    }
}
