//! What comes in: messages and what is said about them, and the answers to those messages.

use super::control::{Control, FIRST_CONTROL, answer, transfer, without_transfer};
use super::{AwayState, BATCH, Gateway, LOOKS, Proxy, SEQUENCES_BACK, Transfer, TransferState};
use crate::endpoint::SendError;
use crate::fabric::{DeliveryStatus, LAST_SEQUENCE};
use crate::message::{Message, MessageId, Priority};
use crate::place::Place;
use crate::platform::Platform;
use crate::seat::Seat;
use crate::sync::ReachesHere;

impl<
    'f,
    L: Platform + Clone,
    const KERNELS: usize,
    const SLOTS: usize,
    const PAYLOAD: usize,
    const FRAMES: usize,
    S: ReachesHere,
> Gateway<'f, '_, L, KERNELS, SLOTS, PAYLOAD, FRAMES, S>
{
    #[inline(never)]
    pub(super) fn receive_frames(&mut self, leaving: bool) -> bool {
        let mut count = 0;
        while count < BATCH {
            let Self { link, transfers, bodies, .. } = self;
            // A message goes where its number says, if that is free; anything else is its header alone.
            let popped = link.pop(|header| {
                let number = Place::new(transfer(header) as usize).filter(|_| header.priority < FIRST_CONTROL)?;
                (transfers[number].state == TransferState::Free).then(|| &mut bodies[number])
            });
            let Some(header) = popped else { break };
            count += 1;
            self.incoming = header;
            if header.priority < FIRST_CONTROL {
                self.on_message(leaving);
            } else if let Some((number, id, status)) = answer(&header) {
                self.on_answer(number, id, status);
            } else if !leaving {
                self.on_control();
            }
        }
        count > 0
    }

    /// What is said about kernels, and about the other side itself.
    #[inline(never)]
    fn on_control(&mut self) {
        match Control::decode(&self.incoming) {
            Some(Control::Hello { clock, .. }) if self.endpoint.fabric().check_clock(clock).is_err() => {
                self.forget();
                self.give_up();
                self.met = false;
                self.stats.other_clock = self.stats.other_clock.wrapping_add(1);
            }
            Some(Control::Hello { reply, receipts, .. }) => {
                self.forget();
                if !reply {
                    self.give_up();
                }
                self.far_receipts = receipts;
                self.met = true;
                self.far_beat.1 = self.endpoint.platform().now_ns();
                if !reply {
                    self.greeting = Some(true);
                    self.greet();
                }
            }
            Some(Control::Bye) => {
                self.forget();
                self.give_up();
                self.met = false;
            }
            Some(Control::Announce { id, name }) if self.met => self.on_announce(id, &name),
            Some(Control::Withdraw { id }) if self.met => {
                if let Some(place) = self.find_proxy(id) {
                    self.close(place);
                }
            }
            Some(Control::Refuse { id }) if self.met => {
                if let Some(export) = self.exports.get_mut(id.index())
                    && export.id == id
                {
                    export.refused = true;
                }
            }
            _ => self.stats.rejected = self.stats.rejected.wrapping_add(1),
        }
    }

    /// The message in hand, which lies where its number says if that was free.
    #[inline(never)]
    fn on_message(&mut self, leaving: bool) {
        let number = Place::new(transfer(&self.incoming) as usize);
        let header = without_transfer(&self.incoming);
        let number = number.filter(|&number| self.transfers[number].state == TransferState::Free);
        let Some(number) = number.filter(|_| header.check(PAYLOAD).is_ok()) else {
            self.stats.rejected = self.stats.rejected.wrapping_add(1);
            return;
        };
        self.bodies[number].header = header;
        self.stats.received = self.stats.received.wrapping_add(1);
        self.transfer_count += 1;
        let source = if leaving { None } else { self.find_proxy(header.source()) };
        let high = header.priority != Priority::Normal as u8;
        let proxy = source.and_then(|place| self.proxies[place].as_mut());
        let state = match (proxy, Place::new(header.destination().index())) {
            (Some(proxy), Some(destination)) => {
                proxy.outstanding += 1;
                let waits = proxy.waiting.of(high)[destination].count > 0;
                let state =
                    if waits { TransferState::Waiting } else { proxy.place(&self.bodies[number], self.far_receipts) };
                if state == TransferState::Waiting {
                    proxy.waiting.of(high)[destination].count += 1;
                }
                state
            }
            _ => TransferState::Decided(DeliveryStatus::NotFound),
        };
        self.transfers[number] = Transfer {
            state,
            id: header.id(),
            place: source.map_or(KERNELS, Place::index) as u16,
            destination: header.destination().index() as u16,
            next: u16::MAX,
            high,
        };
        if state == TransferState::Waiting {
            self.waiting.push(&mut self.transfers, number);
        }
        if let TransferState::Decided(status) = state {
            self.answer_one(number, status);
        }
    }

    fn on_answer(&mut self, number: u16, id: MessageId, status: DeliveryStatus) {
        let number = Place::new(number as usize).filter(|&number| self.away[number].id == id);
        match number.map(|number| (number, self.away[number].state)) {
            Some((number, AwayState::Sent)) => {
                // Its sender may have given it up, and have reported that.
                if self.is_unanswered(number, self.endpoint.platform().now_ns()) {
                    self.stats.unanswered = self.stats.unanswered.wrapping_add(1);
                    self.settle(number, DeliveryStatus::Unanswered);
                } else {
                    self.settle(number, status);
                }
                self.release(number);
                return;
            }
            Some((number, AwayState::Expired)) => self.release(number),
            _ => {}
        }
        self.stats.rejected = self.stats.rejected.wrapping_add(1);
    }

    /// Tries again to send what waits for room, a bounded number of messages: the next call goes on behind them.
    #[inline(never)]
    pub(super) fn retry(&mut self) -> bool {
        if self.waiting.is_empty() {
            return false;
        }
        let now_ns = self.endpoint.platform().now_ns();
        let mut worked = false;
        for _ in 0..=BATCH {
            let Some(number) = self.waiting.look(&self.transfers) else { break };
            let state = self.retry_one(number, now_ns);
            if state == TransferState::Waiting {
                self.waiting.keep(number);
            } else {
                self.waiting.remove(&mut self.transfers, number);
                self.transfers[number].state = state;
                worked = true;
            }
        }
        worked
    }

    /// Tries to send one of the messages that wait, unless one before it had to stay in this look.
    fn retry_one(&mut self, number: Place<FRAMES>, now_ns: u64) -> TransferState {
        let look = self.waiting.look;
        let Transfer { place, destination, high, .. } = self.transfers[number];
        let (Some(proxy), Some(destination)) =
            (self.proxies.get_mut(place as usize).and_then(Seat::as_mut), Place::new(destination as usize))
        else {
            // What waits has both.
            return TransferState::Decided(DeliveryStatus::NotFound);
        };
        let message = &self.bodies[number];
        let state = if message.header.deadline_ns < now_ns {
            TransferState::Decided(DeliveryStatus::Timeout)
        } else if proxy.waiting.of(high)[destination].stuck_in == look {
            TransferState::Waiting
        } else {
            proxy.place(message, self.far_receipts)
        };
        let for_room = &mut proxy.waiting.of(high)[destination];
        if state == TransferState::Waiting {
            for_room.stuck_in = look;
        } else {
            for_room.count = for_room.count.saturating_sub(1);
        }
        state
    }

    /// Looks what became of the other side's messages, and answers.
    #[inline(never)]
    pub(super) fn answer(&mut self) -> bool {
        let mut worked = false;
        for _ in 0..LOOKS.min(FRAMES) {
            if self.transfer_count == 0 {
                break;
            }
            let number = self.next_transfer;
            self.next_transfer = number.next();
            let Transfer { state, id, place, .. } = self.transfers[number];
            let status = match (state, self.proxies.get_mut(place as usize).and_then(Seat::as_mut)) {
                (TransferState::Sent, Some(proxy)) => proxy.outcome(id.sequence),
                (TransferState::Decided(status), _) => Some(status),
                _ => None,
            };
            if let Some(status) = status {
                worked |= self.answer_one(number, status);
            }
        }
        worked
    }

    #[inline(never)]
    fn answer_one(&mut self, number: Place<FRAMES>, status: DeliveryStatus) -> bool {
        let Transfer { id, place, .. } = self.transfers[number];
        self.transfers[number].state = TransferState::Decided(status);
        if !self.say_here(&Control::Answer { transfer: number.index() as u16, id, status }) {
            return false;
        }
        self.transfers[number] = Transfer::FREE;
        self.transfer_count = self.transfer_count.saturating_sub(1);
        if let Some(place) = Place::new(place as usize)
            && let Some(proxy) = self.proxies[place].as_mut()
        {
            proxy.outstanding = proxy.outstanding.saturating_sub(1);
            self.bury(place);
        }
        true
    }
}

impl<L: Platform, const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize, S: ReachesHere>
    Proxy<'_, L, KERNELS, SLOTS, PAYLOAD, S>
{
    /// The sequence here of a message of the kernel that this stands for; `None` if it is much older than the first one
    /// that came, or if there are no sequences left.
    fn sequence(&mut self, remote: u64) -> Option<u64> {
        let before = self.before;
        let shift = *self.shift.get_or_insert_with(|| before.wrapping_sub(remote.saturating_sub(SEQUENCES_BACK)));
        let sequence = remote.wrapping_add(shift);
        (sequence > before && sequence <= LAST_SEQUENCE).then_some(sequence)
    }

    /// What became of a message that was sent here.
    fn outcome(&mut self, remote: u64) -> Option<DeliveryStatus> {
        self.endpoint.outcome(remote.wrapping_add(self.shift.unwrap_or(0)))
    }

    /// Sends a message of the kernel that this stands for.
    #[inline(never)]
    fn place(&mut self, message: &Message<PAYLOAD>, receipts: u64) -> TransferState {
        let Some(sequence) = self.sequence(message.header.sequence) else {
            return TransferState::Decided(DeliveryStatus::QueueFull);
        };
        match self.endpoint.send_for(message, sequence, self.before.saturating_add(1), receipts) {
            Ok(()) => TransferState::Sent,
            Err(SendError::QueueFull { .. }) => TransferState::Waiting,
            Err(error) => TransferState::Decided(error.status().unwrap_or(DeliveryStatus::NotFound)),
        }
    }
}
