//! Finishing or undoing what a predecessor had in hand when it died. The table of cases is on the page of
//! `fabric/hand.rs`.

use super::Endpoint;
use crate::fabric::{Counter, DeliveryStatus, Deposit, Note, Settlement, Step, Verdict};
use crate::message::{KernelId, MessageId};
use crate::platform::Platform;
use crate::shape::Shape;
use crate::sync::DIES_ALONE;

impl<P: Platform, Sh: Shape> Endpoint<'_, P, Sh> {
    /// For a successor, or after a panic of the platform: before anything else is done with the endpoint, and before the
    /// high-priority rings are [reclaimed](crate::ring::Ticket::reclaim).
    #[cold]
    #[inline(never)]
    pub(super) fn finish_predecessor(&mut self) {
        self.finish_sending();
        let Some(noted) = self.ledger.noted() else { return };
        if matches!(noted.step, Step::Consuming | Step::Settling) {
            self.forget_outstanding(&noted);
        }
        if noted.found && self.was_found(&noted) {
            self.remove_deferred(&noted);
            return self.discard(self.id_of(noted.source, noted.sequence), 0);
        }
        match noted.step {
            Step::Consuming => self.finish_consuming(&noted),
            // `found` was noted after the deposit had failed.
            Step::Passing if noted.found => self.finish_consuming(&noted),
            Step::Passing => match Deposit::decode(noted.to, &self.member.fabric().shape()) {
                Some(deposit) if self.outbox.was_deposited(&self.member, deposit) => {
                    self.remove_deferred(&noted);
                    self.ledger.count(Counter::Forwarded);
                }
                _ => self.finish_consuming(&noted),
            },
            Step::Settling => match noted.status() {
                Some(status) => self.finish_settling(&noted, status),
                None => self.ledger.close(),
            },
            Step::GivingUp => match self.settled(&noted) {
                Settlement::BySender(status) => self.count_failed(status, self.id_of(noted.source, noted.sequence), 0),
                _ => self.ledger.close(),
            },
            Step::Retracting => self.finish_retracting(&noted),
        }
    }

    /// A message was being sent: if it was not deposited, that never happened, and its sequence is used again.
    fn finish_sending(&mut self) {
        let sending = self.ledger.noted_sending(&self.member.fabric().shape());
        if let Some(sending) = sending
            && !(sending.counted && self.outbox.was_deposited(&self.member, sending.deposit))
        {
            self.ledger.take_back(sending.counted, || self.member.receipts().void(sending.sequence));
        }
        self.ledger.end_sending();
    }

    /// For a successor: settles what the predecessor held for a remote domain. It may have been received there.
    #[cold]
    #[inline(never)]
    pub(super) fn settle_outstanding(&mut self) {
        if !DIES_ALONE {
            return;
        }
        let outstanding = self.member.outstanding();
        for (record, source, sequence) in outstanding.messages() {
            if self.member.fabric().index(source).is_some() {
                let id = self.id_of(source, sequence);
                self.settle_transfer(id, 0, DeliveryStatus::Unanswered, Some(record));
            } else {
                // No endpoint writes this.
                outstanding.remove(record);
            }
        }
    }

    /// A message that is noted needs no record.
    fn forget_outstanding(&self, noted: &Note) {
        let outstanding = self.member.outstanding();
        for (record, source, sequence) in outstanding.messages() {
            if (source, sequence) == (noted.source, noted.sequence) {
                outstanding.remove(record);
            }
        }
    }

    /// Whether the mark that a message was found, which was about to be set, is there.
    fn was_found(&self, noted: &Note) -> bool {
        let source = self.member.fabric().index(noted.source);
        source.is_some_and(|source| self.member.fabric().receipts(source).was_found(noted.sequence))
    }

    /// A message was being taken out of the inbox or the store, and was not deposited.
    fn finish_consuming(&mut self, noted: &Note) {
        let deferred = self.deferred.position_of(&self.member, noted);
        match self.settled(noted) {
            Settlement::ByHolder(status) => {
                self.deferred.remove(&self.member, deferred);
                self.count_settled(noted, status);
            }
            // Not counted as forwarded: it did not leave the domain.
            Settlement::InTransit => self.finish_settling(noted, DeliveryStatus::NotFound),
            // It waits in the store or in the inbox.
            _ if deferred.is_some() || self.inbox.is_first(&self.member, noted) => self.ledger.close(),
            _ => self.end_lost(noted),
        }
    }

    /// A message was lost with the predecessor.
    fn end_lost(&mut self, noted: &Note) {
        let Some(source) = self.member.fabric().index(noted.source) else { return self.ledger.count(Counter::Corrupt) };
        let id = self.id_of(noted.source, noted.sequence);
        let status = DeliveryStatus::NotFound;
        let verdict =
            self.member.fabric().receipts(source).decide_noted(noted.sequence, status, || self.ledger.found());
        let status = match verdict {
            Verdict::Decided | Verdict::Alone => status,
            Verdict::GivenUp(status) => status,
            Verdict::Lost => return self.discard(id, 0),
        };
        self.count_failed(status, id, 0);
    }

    /// A remote domain had answered.
    fn finish_settling(&mut self, noted: &Note, status: DeliveryStatus) {
        match self.settled(noted) {
            Settlement::ByHolder(status) => self.count_settled(noted, status),
            _ => self.settle_transfer(self.id_of(noted.source, noted.sequence), 0, status, None),
        }
    }

    fn finish_retracting(&mut self, noted: &Note) {
        match noted.status() {
            Some(status) if self.member.receipts().was_retracted(noted.sequence) => {
                self.member.receipts().note_retracted(noted.sequence);
                self.ledger.count_failure(status, -1);
            }
            _ => self.ledger.close(),
        }
    }

    /// Counts a message that the predecessor has settled.
    fn count_settled(&mut self, noted: &Note, status: DeliveryStatus) {
        match status {
            DeliveryStatus::Delivered => self.ledger.count(Counter::Received),
            status => self.count_failed(status, self.id_of(noted.source, noted.sequence), 0),
        }
    }

    /// The message's id for a trace. The sender's generation is not noted: that of now is the best guess.
    fn id_of(&self, source: usize, sequence: u64) -> MessageId {
        let index = self.member.fabric().index(source);
        let generation = index.map_or(0, |index| self.member.fabric().entry(index).state().generation);
        MessageId { source: KernelId::new(source as u16, generation), sequence }
    }

    fn settled(&self, noted: &Note) -> Settlement {
        let source = self.member.fabric().index(noted.source);
        source.map_or(Settlement::No, |source| self.member.fabric().receipts(source).settled(noted.sequence))
    }

    /// Removes a message from the store, if it lies there.
    fn remove_deferred(&mut self, noted: &Note) {
        self.deferred.remove(&self.member, self.deferred.position_of(&self.member, noted));
    }
}
