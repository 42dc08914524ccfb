//! What goes out: mail of the proxies, and how its way ends.

use super::control::set_transfer;
use super::{Away, AwayState, BATCH, Gateway, LOOKS};
use crate::endpoint::Backlog;
use crate::fabric::DeliveryStatus;
use crate::place::Place;
use crate::platform::Platform;
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
    /// Takes mail out of the proxies' inboxes and sends it across, as much as there is room and licence for.
    #[inline(never)]
    pub(super) fn send_frames(&mut self) -> bool {
        let connected = self.is_connected();
        let mut left = BATCH;
        let mut worked = false;
        let mut place = self.next_proxy;
        self.next_proxy = place.next();
        for _ in 0..KERNELS {
            loop {
                // A kernel may have to be introduced, and its predecessor withdrawn.
                let may_send = connected && left > 0 && self.has_room(3);
                let Some(proxy) = self.proxies[place].as_mut() else { break };
                if proxy.closed || proxy.endpoint.backlog() == Backlog::None {
                    break;
                }
                let record = proxy.held.free().filter(|_| may_send && proxy.held.len() < self.free_count);
                let Some(record) = record else {
                    // Its own mail stays. What is for others does not.
                    worked |= proxy.endpoint.poll() > 0;
                    break;
                };
                if !proxy.endpoint.take_for_transfer(&mut self.message, record.index()) {
                    break;
                }
                left -= 1;
                worked = true;
                self.send_frame(place, record);
            }
            place = place.next();
        }
        worked
    }

    /// Sends the message in hand, which the proxy at `place` has taken and recorded.
    #[inline(never)]
    fn send_frame(&mut self, place: Place<KERNELS>, record: Place<SLOTS>) {
        let id = self.message.header.id();
        let introduced = self.introduce(id.source);
        let Some(proxy) = self.proxies[place].as_mut() else { return };
        let hops = self.message.header.hops;
        let last = self.free_count.checked_sub(1).filter(|_| introduced);
        let Some((last, &number)) = last.and_then(|last| Some((last, self.free.get(last)?))) else {
            return proxy.endpoint.settle(id, hops, DeliveryStatus::NotFound, Some(record.index()));
        };
        if let Some(shift) = proxy.shift
            && self.message.header.is_reply()
        {
            let header = &mut self.message.header;
            header.correlation_id = header.correlation_id.wrapping_sub(shift);
        }
        self.message.header.set_destination(proxy.remote);
        set_transfer(&mut self.message.header, number.index() as u16);
        if !self.link.push(&self.message.header, &self.message) {
            // There was room for it. The credit was written over.
            return proxy.endpoint.settle(id, hops, DeliveryStatus::QueueFull, Some(record.index()));
        }
        self.free_count = last;
        self.away[number] = Away {
            state: AwayState::Sent,
            id,
            deadline_ns: self.message.header.deadline_ns,
            place: place.index() as u16,
            hops,
            record,
        };
        proxy.held.take();
        self.stats.sent = self.stats.sent.wrapping_add(1);
    }

    /// Whether an answer would come too late: deadline and grace have passed.
    pub(super) fn is_unanswered(&self, number: Place<FRAMES>, now_ns: u64) -> bool {
        self.away[number].deadline_ns.saturating_add(self.config.grace_ns) < now_ns
    }

    /// Ends what was not answered in time.
    #[inline(never)]
    pub(super) fn expire(&mut self, now_ns: u64) -> bool {
        let mut worked = false;
        for _ in 0..LOOKS.min(FRAMES) {
            if self.free_count == FRAMES {
                break;
            }
            let number = self.next_away;
            self.next_away = number.next();
            if self.away[number].state == AwayState::Sent && self.is_unanswered(number, now_ns) {
                worked = true;
                self.stats.unanswered = self.stats.unanswered.wrapping_add(1);
                self.settle(number, DeliveryStatus::Unanswered);
                self.away[number].state = AwayState::Expired;
            }
        }
        worked
    }

    /// Nobody over there knows any more what was sent: nothing of it will be answered, and its numbers are free. Ended now,
    /// whatever the deadlines, as numbers and proxies' places are few.
    #[inline(never)]
    pub(super) fn give_up(&mut self) {
        for number in Place::all() {
            if self.away[number].state == AwayState::Sent {
                self.stats.unanswered = self.stats.unanswered.wrapping_add(1);
                self.settle(number, DeliveryStatus::Unanswered);
            }
            if self.away[number].state != AwayState::Free {
                self.release(number);
            }
        }
    }

    /// Ends the way of a held message in this domain.
    #[inline(never)]
    pub(super) fn settle(&mut self, number: Place<FRAMES>, status: DeliveryStatus) {
        let Away { id, place, hops, record, .. } = self.away[number];
        if let Some(place) = Place::new(place as usize)
            && let Some(proxy) = self.proxies[place].as_mut()
        {
            proxy.endpoint.settle(id, hops, status, Some(record.index()));
            proxy.held.give_back(record);
            self.bury(place);
        }
    }

    /// Makes a number usable again.
    pub(super) fn release(&mut self, number: Place<FRAMES>) {
        self.away[number] = Away::FREE;
        if let Some(place) = self.free.get_mut(self.free_count) {
            *place = number;
            self.free_count += 1;
        }
    }
}
