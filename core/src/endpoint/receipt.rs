//! Deciding what became of a message, counting it, and telling the sender.

use super::Endpoint;
use crate::fabric::{
    Counter, DeliveryReceipt, DeliveryStatus, Event, ReceiptEntry, ReceiptError, Step, Unsettled, Verdict,
};
use crate::message::{Header, MessageId};
use crate::platform::{CLOCK_MARGIN_NS, Platform};
use crate::shape::Shape;

/// Messages that [`Endpoint::expire_some`] looks at.
const SWEEP_STEPS: u32 = 8;

/// Calls of [`Endpoint::expire_some`] between two sweeps over what is pending.
const SWEEP_EVERY: u32 = 1024;

impl<L: Platform, Sh: Shape> Endpoint<'_, L, Sh> {
    /// What became of a message. One that is overdue (its deadline and the margin of the clocks, [`CLOCK_MARGIN_NS`], have
    /// passed) is settled as `Timeout` by this; one of this kernel's own that is pending also as `NotFound` if its
    /// destination has left.
    ///
    /// # Errors
    /// [`ReceiptError::Overwritten`] once the sender has sent `KERNELS × SLOTS` more messages.
    pub fn receipt(&mut self, id: MessageId) -> Result<DeliveryReceipt, ReceiptError> {
        if !self.may_write() {
            return self.fabric.peek_receipt(id);
        }
        if id.source.index() == self.id.index() && id.sequence <= self.last_sequence() {
            self.resolve(id.sequence);
        } else {
            self.fabric.settle_overdue(id, self.platform.now_ns(), self.config.grace_ns);
        }
        self.fabric.peek_receipt(id)
    }

    /// The sequence of the last message sent from this kernel's index.
    pub(crate) fn last_sequence(&self) -> u64 {
        self.base.wrapping_add(self.counts[Counter::Sent as usize])
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
        let first = self.first_to_expire(self.unresolved, last);
        let mut first_pending = None;
        let mut pending = 0;
        for sequence in first..=last {
            if !self.resolve(sequence) {
                first_pending.get_or_insert(sequence);
                pending += 1;
            }
        }
        self.end_sweep(first_pending, last);
        pending
    }

    /// Settles own messages that can no longer arrive, a bounded number of steps further on each call: to be called on
    /// every empty pass. A sweep over what was sent since the oldest pending message goes on from call to call; the next
    /// one begins `SWEEP_EVERY` calls after its end, so that what is pending costs as much as what is new.
    #[inline]
    pub fn expire_some(&mut self) {
        // The oldest pending message is never behind the sweep, and the sweep ends just behind the last one sent.
        if self.unresolved <= self.last_sequence() {
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
        if self.swept > last {
            self.sweep_rest = self.sweep_rest.saturating_sub(1);
            if self.sweep_rest == 0 {
                self.sweep_rest = SWEEP_EVERY;
                self.swept = self.unresolved;
                self.sweep_pending = None;
            }
            return;
        }
        let mut sequence = self.first_to_expire(self.swept, last);
        for _ in 0..SWEEP_STEPS {
            if sequence > last {
                break;
            }
            if !self.resolve(sequence) {
                self.sweep_pending.get_or_insert(sequence);
            }
            sequence = sequence.saturating_add(1);
        }
        self.swept = sequence;
        if sequence > last {
            self.end_sweep(self.sweep_pending, last);
        }
    }

    /// Where a sweep begins: entries before that were used again.
    fn first_to_expire(&self, from: u64, last: u64) -> u64 {
        from.max(last.saturating_sub(self.fabric.shape().receipts() - 1)).max(1)
    }

    fn end_sweep(&mut self, first_pending: Option<u64>, last: u64) {
        self.swept = last.saturating_add(1);
        self.unresolved = first_pending.unwrap_or(self.swept);
        self.sweep_pending = first_pending;
        self.sweep_rest = SWEEP_EVERY;
    }

    /// Settles the pending message of the entry of a sequence if it can no longer arrive, and counts one that an onlooker
    /// has settled; `true` if it is (then) settled.
    pub(super) fn resolve(&mut self, sequence: u64) -> bool {
        let receipts = self.fabric.receipts(self.place);
        let (unsettled, status) = match receipts.entry(sequence) {
            ReceiptEntry::Settled => return true,
            ReceiptEntry::Uncounted(uncounted) => {
                self.notes.note(self.place.number() as u16, uncounted.sequence, Step::GivingUp, 0);
                if receipts.take_count(uncounted) {
                    self.count_given_up(uncounted.sequence, uncounted.status());
                } else {
                    self.notes.close();
                }
                return true;
            }
            ReceiptEntry::Pending(pending) => match self.verdict_on(pending) {
                Some(status) => (pending, status),
                None => return false,
            },
        };
        self.notes.note(self.place.number() as u16, unsettled.sequence, Step::GivingUp, 0);
        if receipts.give_up(unsettled, status) {
            self.count_given_up(unsettled.sequence, status);
            return true;
        }
        self.notes.close();
        // Its holder was faster, or a gateway, which then holds it, or an onlooker, whose verdict is counted next time.
        !matches!(receipts.entry(sequence), ReceiptEntry::Pending(_) | ReceiptEntry::Uncounted(_))
    }

    /// How a pending message of this kernel's ends, if it does.
    fn verdict_on(&self, pending: Unsettled) -> Option<DeliveryStatus> {
        let (deadline_ns, destination) = self.fabric.receipts(self.place).terms(pending.sequence);
        let now_ns = self.platform.now_ns();
        // Its holder's clock may be behind by the margin.
        let overdue_ns = deadline_ns.saturating_add(CLOCK_MARGIN_NS);
        if pending.is_held() {
            // The gateway's answer decides, unless that is late, or the proxy is gone with its gateway.
            let is_late = overdue_ns.saturating_add(self.config.grace_ns) < now_ns;
            return (is_late || !self.fabric.is_owned(destination)).then_some(DeliveryStatus::Unanswered);
        }
        if overdue_ns < now_ns {
            return Some(DeliveryStatus::Timeout);
        }
        let has_left = self.registered(destination).is_none();
        has_left.then_some(if deadline_ns < now_ns { DeliveryStatus::Timeout } else { DeliveryStatus::NotFound })
    }

    fn count_given_up(&mut self, sequence: u64, status: DeliveryStatus) {
        self.retract_until = self.retract_until.max(sequence.saturating_add(self.fabric.shape().receipts()));
        self.count_failure(status, 1);
        self.trace_of(Event::Failed, Some(status), MessageId { source: self.id, sequence }, 0);
    }

    /// What a message ends in that cannot be received: whatever came first, after its deadline it has timed out.
    fn after_deadline(&self, header: &Header, status: DeliveryStatus) -> DeliveryStatus {
        if header.deadline_ns < self.platform.now_ns() { DeliveryStatus::Timeout } else { status }
    }

    /// Settles a message that cannot be received, and counts it, unless another party has already.
    #[cold]
    #[inline(never)]
    pub(super) fn end(&mut self, header: &Header, status: DeliveryStatus) {
        self.end_stored(header, status, None);
    }

    /// As [`end`](Self::end), for a message that lies in the transit store, perhaps: it is removed before it is counted.
    #[cold]
    #[inline(never)]
    pub(super) fn end_stored(&mut self, header: &Header, status: DeliveryStatus, stored: Option<u64>) {
        let status = self.after_deadline(header, status);
        let verdict = self.decide(header, status);
        self.let_go(stored);
        match verdict {
            Verdict::Decided => self.count_end(header, status),
            // As in `handle`: what was reported before the receipt was overwritten stays true.
            Verdict::Alone => self.count_end(header, self.after_deadline(header, status)),
            Verdict::GivenUp(status) => self.count_end(header, status),
            Verdict::Lost => self.discard(header.id(), header.hops),
        }
    }

    /// Counts a message that this kernel has settled.
    #[cold]
    #[inline(never)]
    pub(super) fn count_end(&mut self, header: &Header, status: DeliveryStatus) {
        self.count_failure(status, 1);
        self.trace(Event::Failed, Some(status), header);
    }

    /// Settles a message; the caller counts what it has decided. A source that is no kernel index has nothing to lose.
    #[inline(always)]
    pub(super) fn decide(&self, header: &Header, status: DeliveryStatus) -> Verdict {
        match self.fabric.index(header.source().index()) {
            Some(source) => self.fabric.receipts(source).decide_noted(header.sequence, status, || self.notes.found()),
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
            DeliveryStatus::Unanswered => Counter::Unanswered,
            DeliveryStatus::NotAllowed => Counter::NotAllowed,
            DeliveryStatus::Pending | DeliveryStatus::Delivered => return,
        };
        self.notes.counted(by);
        self.set_count(counter, self.counts[counter as usize].wrapping_add_signed(by));
    }

    /// Before the receipt of `sequence` is opened: a message that this kernel has given up, and that its holder has not
    /// found yet, will be counted by its holder.
    #[cold]
    #[inline(never)]
    pub(super) fn retract(&mut self, sequence: u64) {
        let receipts = self.fabric.receipts(self.place);
        let given_up = receipts.given_up(sequence);
        if let Some(status) = given_up {
            self.notes.note(self.place.number() as u16, sequence, Step::Retracting, status as u64);
        }
        if let Some(status) = receipts.retract(sequence) {
            self.count_failure(status, -1);
        } else if given_up.is_some() {
            self.notes.close();
        }
    }
}
