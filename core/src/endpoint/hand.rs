//! Finishing or undoing what a predecessor had in hand when it died. The table of cases is on the page of
//! `fabric/hand.rs`.

use super::Endpoint;
use crate::fabric::{Counter, DeliveryStatus, Deposit, Event, Noted, Settled, Step, Verdict};
use crate::message::{KernelId, MessageId};
use crate::platform::Platform;
use crate::ring::ticket::TicketPop;
use crate::shape::Shape;
use crate::sync::DIES_ALONE;

impl<L: Platform, Sh: Shape> Endpoint<'_, L, Sh> {
    /// For a successor, or after a panic of the platform: before anything else is done with the endpoint, and before the
    /// high-priority rings are [reclaimed](crate::ring::Ticket::reclaim).
    #[cold]
    #[inline(never)]
    pub(super) fn finish_predecessor(&mut self) {
        self.finish_sending();
        let Some(noted) = self.notes.noted() else { return };
        if matches!(noted.step, Step::Taken | Step::Settling) {
            self.forget_held(&noted);
        }
        if noted.found && self.was_found(&noted) {
            self.let_go(self.stored(&noted));
            return self.discard(self.id_of(noted.source, noted.sequence), 0);
        }
        match noted.step {
            Step::Taken => self.finish_taken(&noted),
            // `found` was noted after the deposit had failed.
            Step::Passing if noted.found => self.finish_taken(&noted),
            Step::Passing => match Deposit::decode(noted.to, &self.fabric.shape()) {
                Some(deposit) if self.was_deposited(deposit) => {
                    self.let_go(self.stored(&noted));
                    self.count(Counter::Forwarded);
                }
                _ => self.finish_taken(&noted),
            },
            Step::Settling => match noted.status() {
                Some(status) => self.finish_settling(&noted, status),
                None => self.notes.close(),
            },
            Step::GivingUp => match self.settled(&noted) {
                Settled::BySender(status) => self.count_failure(status, 1),
                _ => self.notes.close(),
            },
            Step::Retracting => self.finish_retracting(&noted),
        }
    }

    /// A message was being sent: if it was not deposited, that never happened, and its sequence is used again.
    fn finish_sending(&mut self) {
        let sent = self.counts[Counter::Sent as usize];
        if let Some(sending) = self.notes.noted_sending(sent, &self.fabric.shape())
            && !(sending.counted && self.was_deposited(sending.deposit))
        {
            self.fabric.receipts(self.place).void(sending.sequence);
            if sending.counted {
                self.set_count(Counter::Sent, sent.wrapping_sub(1));
            }
        }
        self.notes.sent();
    }

    /// For a successor: settles what the predecessor held for a remote domain. It may have been received there.
    #[cold]
    #[inline(never)]
    pub(super) fn end_held(&mut self) {
        if !DIES_ALONE {
            return;
        }
        let held = self.fabric.held(self.place);
        for (record, source, sequence) in held.messages() {
            if self.fabric.index(source).is_some() {
                let id = self.id_of(source, sequence);
                self.settle(id, 0, DeliveryStatus::Unanswered, Some(record));
            } else {
                // No endpoint writes this.
                held.remove(record);
            }
        }
    }

    /// A message that is noted needs no record.
    fn forget_held(&self, noted: &Noted) {
        let held = self.fabric.held(self.place);
        for (record, source, sequence) in held.messages() {
            if (source, sequence) == (noted.source, noted.sequence) {
                held.remove(record);
            }
        }
    }

    /// Whether the mark that a message was found, which was about to be set, is there.
    fn was_found(&self, noted: &Noted) -> bool {
        let source = self.fabric.index(noted.source);
        source.is_some_and(|source| self.fabric.receipts(source).was_found(noted.sequence))
    }

    /// Whether a predecessor's message is in the inbox that it was meant for, or was taken from there.
    fn was_deposited(&self, deposit: Deposit<Sh>) -> bool {
        match deposit {
            Deposit::Normal { hop, position } => Deposit::<Sh>::is_passed_by(position, self.lanes_out[hop].tail),
            Deposit::High { hop, position: Some(position) } => {
                self.fabric.high(hop).was_published(position, self.id.index() as u16)
            }
            Deposit::High { position: None, .. } => false,
        }
    }

    /// A message was being taken out of the inbox or the store, and was not deposited.
    fn finish_taken(&mut self, noted: &Noted) {
        let stored = self.stored(noted);
        match self.settled(noted) {
            Settled::ByHolder(status) => {
                self.let_go(stored);
                self.count_settled(status);
            }
            // Not counted as forwarded: it did not leave the domain.
            Settled::Held => self.finish_settling(noted, DeliveryStatus::NotFound),
            // It waits in the store or in the inbox.
            _ if stored.is_some() || self.is_first_in_inbox(noted) => self.notes.close(),
            _ => self.end_lost(noted),
        }
    }

    /// A message was lost with the predecessor.
    fn end_lost(&mut self, noted: &Noted) {
        let Some(source) = self.fabric.index(noted.source) else { return self.count(Counter::Corrupt) };
        let id = self.id_of(noted.source, noted.sequence);
        let status = DeliveryStatus::NotFound;
        let verdict = self.fabric.receipts(source).decide_noted(noted.sequence, status, || self.notes.found());
        let status = match verdict {
            Verdict::Decided | Verdict::Alone => status,
            Verdict::GivenUp(status) => status,
            Verdict::Lost => return self.discard(id, 0),
        };
        self.count_failure(status, 1);
        self.trace_of(Event::Failed, Some(status), id, 0);
    }

    /// A remote domain had answered.
    fn finish_settling(&mut self, noted: &Noted, status: DeliveryStatus) {
        match self.settled(noted) {
            Settled::ByHolder(status) => self.count_settled(status),
            _ => self.settle(self.id_of(noted.source, noted.sequence), 0, status, None),
        }
    }

    fn finish_retracting(&mut self, noted: &Noted) {
        match noted.status() {
            Some(status) if self.fabric.receipts(self.place).was_retracted(noted.sequence) => {
                self.fabric.receipts(self.place).note_retracted(noted.sequence);
                self.count_failure(status, -1);
            }
            _ => self.notes.close(),
        }
    }

    /// Counts a message that the predecessor has settled.
    fn count_settled(&mut self, status: DeliveryStatus) {
        match status {
            DeliveryStatus::Delivered => self.count(Counter::Received),
            status => self.count_failure(status, 1),
        }
    }

    /// The message's id for a trace. The sender's generation is not noted: that of now is the best guess.
    fn id_of(&self, source: usize, sequence: u64) -> MessageId {
        let place = self.fabric.index(source);
        let generation = place.map_or(0, |place| self.fabric.entry(place).state().generation);
        MessageId { source: KernelId::new(source as u16, generation), sequence }
    }

    fn settled(&self, noted: &Noted) -> Settled {
        let source = self.fabric.index(noted.source);
        source.map_or(Settled::No, |source| self.fabric.receipts(source).settled(noted.sequence))
    }

    /// Where in the transit store a message lies.
    fn stored(&self, noted: &Noted) -> Option<u64> {
        let store = self.fabric.transit(self.place);
        self.transit.positions().find(|&at| store.next_hop(at).is_some() && noted.is(&store.header(at)))
    }

    /// Whether a message is the next one of its sender's shard or of the high-priority ring, and so was not taken.
    fn is_first_in_inbox(&mut self, noted: &Noted) -> bool {
        let first_of_high = match self.fabric.high(self.place).peek_head(&mut self.high_in) {
            TicketPop::Message(head) => noted.is(&head),
            _ => false,
        };
        first_of_high
            || self.fabric.shape().indices().any(|sender| {
                let lanes = self.fabric.lanes(self.place);
                lanes.peek_head(&self.lanes_in, sender).is_some_and(|head| noted.is(&head))
            })
    }
}
