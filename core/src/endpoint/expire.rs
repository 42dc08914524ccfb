//! The receipts of this kernel's own messages: reading them, and settling what can no longer arrive.

use super::Endpoint;
use crate::fabric::{DeliveryReceipt, DeliveryStatus, PendingReceipt, ReceiptEntry, ReceiptError, Step};
use crate::message::MessageId;
use crate::platform::{CLOCK_MARGIN_NS, Platform};
use crate::shape::Shape;

/// Messages that [`Endpoint::expire_some`] looks at.
const SWEEP_STEPS: u32 = 8;

impl<P: Platform, Sh: Shape> Endpoint<'_, P, Sh> {
    /// What became of a message. One that is overdue (its deadline and the margin of the clocks, [`CLOCK_MARGIN_NS`], have
    /// passed) is settled as `Timeout` by this; one of this kernel's own that is pending also as `NotFound` if its
    /// destination has left.
    ///
    /// # Errors
    /// [`ReceiptError::Overwritten`] once the sender has sent `KERNELS × SLOTS` more messages.
    pub fn receipt(&mut self, id: MessageId) -> Result<DeliveryReceipt, ReceiptError> {
        if !self.may_write() {
            return self.member.fabric().peek_receipt(id);
        }
        if id.source.index() == self.id().index() && id.sequence <= self.last_sequence() {
            self.resolve(id.sequence);
        } else {
            self.member.fabric().settle_overdue(id, self.platform.now_ns(), self.config.grace_ns);
        }
        self.member.fabric().peek_receipt(id)
    }

    /// The sequence of the last message sent from this kernel's index.
    pub(crate) fn last_sequence(&self) -> u64 {
        self.ledger.last_sequence()
    }

    /// Settles all own messages that can no longer arrive, and returns how many are still pending. Takes a step per
    /// message from the oldest pending one on: a [run loop](crate::run) that spins takes some steps per pass instead
    /// ([`expire_some`](Self::expire_some)), and a backend calls this when a kernel has slept.
    #[inline(never)]
    pub fn expire(&mut self) -> usize {
        if !self.may_write() {
            return 0;
        }
        let last = self.last_sequence();
        let first = self.own.oldest(last);
        let mut first_pending = None;
        let mut pending = 0;
        for sequence in first..=last {
            if !self.resolve(sequence) {
                first_pending.get_or_insert(sequence);
                pending += 1;
            }
        }
        self.own.end_sweep(first_pending, last);
        pending
    }

    /// Settles own messages that can no longer arrive, a bounded number of steps further on each call: to be called on
    /// every empty pass. A sweep over what was sent since the oldest pending message goes on from call to call; the next
    /// one begins 1024 calls after its end, so that what is pending costs as much as what is new.
    #[inline]
    pub fn expire_some(&mut self) {
        if self.own.any_unresolved(self.last_sequence()) {
            self.sweep_on();
        }
    }

    /// Some messages are pending, or were not looked at yet.
    #[cold]
    #[inline(never)]
    fn sweep_on(&mut self) {
        if !self.may_write() {
            return;
        }
        let last = self.last_sequence();
        let Some(mut sequence) = self.own.next_step(last) else { return };
        for _ in 0..SWEEP_STEPS {
            if sequence > last {
                break;
            }
            if !self.resolve(sequence) {
                self.own.found_pending(sequence);
            }
            sequence = sequence.saturating_add(1);
        }
        self.own.end_step(sequence, last);
    }

    /// Settles the pending message of the entry of a sequence if it can no longer arrive, and counts one that an onlooker
    /// has settled; `true` if it is (then) settled.
    pub(super) fn resolve(&mut self, sequence: u64) -> bool {
        let receipts = self.member.receipts();
        let (unsettled, status) = match receipts.entry(sequence) {
            ReceiptEntry::Settled => return true,
            ReceiptEntry::Uncounted(uncounted) => {
                self.ledger.note(self.member.producer(), uncounted.sequence, Step::GivingUp, 0);
                if receipts.take_count(uncounted) {
                    self.count_given_up(uncounted.sequence, uncounted.status());
                } else {
                    self.ledger.close();
                }
                return true;
            }
            ReceiptEntry::Pending(pending) => match self.verdict_on(pending) {
                Some(status) => (pending, status),
                None => return false,
            },
        };
        self.ledger.note(self.member.producer(), unsettled.sequence, Step::GivingUp, 0);
        if receipts.give_up(unsettled, status) {
            self.count_given_up(unsettled.sequence, status);
            return true;
        }
        self.ledger.close();
        // Its holder was faster, or a gateway, which then holds it, or an onlooker, whose verdict is counted next time.
        !matches!(receipts.entry(sequence), ReceiptEntry::Pending(_) | ReceiptEntry::Uncounted(_))
    }

    /// How a pending message of this kernel's ends, if it does.
    fn verdict_on(&self, pending: PendingReceipt) -> Option<DeliveryStatus> {
        let (deadline_ns, destination) = self.member.receipts().terms(pending.sequence);
        let now_ns = self.platform.now_ns();
        // Its holder's clock may be behind by the margin.
        let overdue_ns = deadline_ns.saturating_add(CLOCK_MARGIN_NS);
        if pending.is_in_transit() {
            // The gateway's answer decides, unless that is late, or the proxy is gone with its gateway.
            let is_late = overdue_ns.saturating_add(self.config.grace_ns) < now_ns;
            return (is_late || !self.member.fabric().is_owned(destination)).then_some(DeliveryStatus::Unanswered);
        }
        if overdue_ns < now_ns {
            return Some(DeliveryStatus::Timeout);
        }
        let has_left = self.member.registered(destination).is_none();
        has_left.then_some(if deadline_ns < now_ns { DeliveryStatus::Timeout } else { DeliveryStatus::NotFound })
    }

    fn count_given_up(&mut self, sequence: u64, status: DeliveryStatus) {
        self.own.gave_up(sequence);
        self.count_failed(status, MessageId { source: self.id(), sequence }, 0);
    }

    /// Before the receipt of `sequence` is opened: a message that this kernel has given up, and that its holder has not
    /// found yet, will be counted by its holder.
    #[cold]
    #[inline(never)]
    pub(super) fn retract(&mut self, sequence: u64) {
        let receipts = self.member.receipts();
        let given_up = receipts.given_up(sequence);
        if let Some(status) = given_up {
            self.ledger.note(self.member.producer(), sequence, Step::Retracting, status as u64);
        }
        if let Some(status) = receipts.retract(sequence) {
            self.ledger.count_failure(status, -1);
        } else if given_up.is_some() {
            self.ledger.close();
        }
    }
}
