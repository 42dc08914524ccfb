//! Messages that leave the domain: mail of the proxies, and how its way ends.

use super::LOOKS;
use super::control::set_transfer;
use super::exports::Exports;
use super::free::FreeList;
use super::peer::Peer;
use super::proxies::Proxies;
use crate::below::Below;
use crate::endpoint::{Backlog, Endpoint};
use crate::fabric::DeliveryStatus;
use crate::in_place::{array_in, make_in};
use crate::link::Frames;
use crate::message::{KernelId, MessageId};
use crate::platform::Platform;
use crate::shape::{Index, Packet, Shape};
use crate::sync::zeroed_in;
use core::mem::MaybeUninit;

/// A message that is on the remote side.
#[derive(Clone, Copy)]
struct Away {
    state: AwayState,
    id: MessageId,
    deadline_ns: u64,
    /// Kernel index of the proxy that it was for.
    proxy: u16,
    /// Where the proxy has recorded it.
    record: u16,
    hops: u8,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum AwayState {
    Free,
    /// The answer decides.
    Sent,
    /// Ended without an answer. Its number is not used again before the remote gateway has said that it is free.
    Expired,
}

/// What became of an attempt to send a proxy's mail across.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sending {
    /// A message was taken out of its inbox.
    Sent,
    /// There is no room for its own mail. Mail for other kernels may go to its next hop.
    Stays,
    /// There is none.
    Nothing,
}

impl Away {
    const FREE: Self = Self {
        state: AwayState::Free,
        id: MessageId { source: KernelId::NONE, sequence: 0 },
        deadline_ns: 0,
        proxy: 0,
        record: 0,
        hops: 0,
    };
}

/// The messages that are on the remote side, by number of transfer.
pub(super) struct Outgoing<M, const FRAMES: usize> {
    away: [Away; FRAMES],
    numbers: FreeList<FRAMES>,
    /// The message in hand. Here, and not in a variable: memory of a thread is dear on a GPU.
    message: M,
    /// The number that is looked at next.
    next: Below<FRAMES>,
    grace_ns: u64,
    sent: u64,
    unanswered: u64,
}

impl<M: Packet, const FRAMES: usize> Outgoing<M, FRAMES> {
    pub(super) fn new_in(memory: &mut MaybeUninit<Self>, grace_ns: u64) -> &mut Self {
        make_in!(memory, Self {
            away => |away| array_in(away, |_| Away::FREE),
            numbers => |numbers| FreeList::new_in(numbers, FRAMES),
            message => zeroed_in,
            next: Below::FIRST,
            grace_ns: grace_ns,
            sent: 0,
            unanswered: 0,
        })
    }

    /// Messages whose fate is not known yet.
    pub(super) const fn len(&self) -> usize {
        self.numbers.in_use()
    }

    /// Messages that were sent into the link.
    pub(super) const fn sent(&self) -> u64 {
        self.sent
    }

    /// Messages that were not answered in time.
    pub(super) const fn unanswered(&self) -> u64 {
        self.unanswered
    }

    /// Takes a message out of the inbox of the proxy at `index` and sends it across, if `connected` and there is room.
    #[inline(always)]
    pub(super) fn send_one<'f, P: Platform, Sh: Shape<Item = M>>(
        &mut self,
        index: Index<Sh>,
        connected: bool,
        gateway: &Endpoint<'f, P, Sh>,
        proxies: &mut Proxies<'f, P, Sh, FRAMES>,
        exports: &mut Exports<Sh>,
        peer: &mut Peer<'_, impl Frames<Item = M>>,
    ) -> Sending {
        // A kernel may have to be announced, and its predecessor withdrawn.
        let may_send = connected && peer.has_room(3);
        let Some(proxy) = proxies.get_mut(index) else { return Sending::Nothing };
        if proxy.closed || proxy.endpoint.backlog() == Backlog::None {
            return Sending::Nothing;
        }
        let record = proxy.records.first().filter(|_| may_send && proxy.records.in_use() < self.numbers.free());
        let Some(record) = record else { return Sending::Stays };
        if !proxy.endpoint.take_for_transfer(&mut self.message, record.into()) {
            return Sending::Nothing;
        }
        let source = self.message.header().source();
        let is_known = match exports.is_known(source) {
            Some(known) => known,
            None => {
                let is_proxy = proxies.index(source).is_some_and(|index| proxies.has(index, source));
                exports.ensure_announced(source, gateway, is_proxy, peer)
            }
        };
        self.send_frame(index, record, is_known, proxies, peer);
        Sending::Sent
    }

    /// Sends the message in hand, which the proxy at `index` has taken and recorded.
    #[inline(never)]
    fn send_frame<'f, P: Platform, Sh: Shape<Item = M>>(
        &mut self,
        index: Index<Sh>,
        record: u16,
        is_known: bool,
        proxies: &mut Proxies<'f, P, Sh, FRAMES>,
        peer: &mut Peer<'_, impl Frames<Item = M>>,
    ) {
        let Some(proxy) = proxies.get_mut(index) else { return };
        let header = self.message.header_mut();
        let (id, hops) = (header.id(), header.hops);
        let fits = proxy.endpoint.capacity() <= peer.payload() || usize::from(header.payload_len) <= peer.payload();
        let number = self.numbers.first().and_then(|number| Below::new(number.into()));
        let Some(number) = number.filter(|_| is_known && fits) else {
            let status = if is_known { DeliveryStatus::QueueFull } else { DeliveryStatus::NotFound };
            return proxy.endpoint.settle_transfer(id, hops, status, Some(record.into()));
        };
        if let Some(shift) = proxy.shift()
            && header.is_reply()
        {
            header.correlation_id = header.correlation_id.wrapping_sub(shift);
        }
        header.set_destination(proxy.remote);
        set_transfer(header, number.index() as u16);
        let deadline_ns = header.deadline_ns;
        if !peer.push(self.message.header(), &self.message) {
            // There was room for it. The credit was written over.
            return proxy.endpoint.settle_transfer(id, hops, DeliveryStatus::QueueFull, Some(record.into()));
        }
        self.numbers.take();
        let proxy_index = index.number() as u16;
        self.away[number] = Away { state: AwayState::Sent, id, deadline_ns, proxy: proxy_index, record, hops };
        proxy.records.take();
        self.sent = self.sent.wrapping_add(1);
    }

    /// An answer has come; `false` if it answers nothing, or comes too late.
    pub(super) fn on_answer<'f, P: Platform, Sh: Shape<Item = M>>(
        &mut self,
        (number, id, status): (u16, MessageId, DeliveryStatus),
        now_ns: u64,
        proxies: &mut Proxies<'f, P, Sh, FRAMES>,
    ) -> bool {
        let Some(number) = Below::new(number.into()).filter(|&number| self.away[number].id == id) else { return false };
        match self.away[number].state {
            AwayState::Sent => {
                // Its sender may have given it up, and have reported that.
                if self.is_late(number, now_ns) {
                    self.settle_unanswered(number, proxies);
                } else {
                    self.settle_away(number, status, proxies);
                }
                self.release(number);
                true
            }
            AwayState::Expired => {
                self.release(number);
                false
            }
            AwayState::Free => false,
        }
    }

    /// Whether an answer would come too late: deadline and grace have passed.
    fn is_late(&self, number: Below<FRAMES>, now_ns: u64) -> bool {
        self.away[number].deadline_ns.saturating_add(self.grace_ns) < now_ns
    }

    /// Settles messages that were not answered in time, if it finds any among some.
    #[inline(always)]
    pub(super) fn expire<'f, P: Platform, Sh: Shape<Item = M>>(
        &mut self,
        now_ns: u64,
        proxies: &mut Proxies<'f, P, Sh, FRAMES>,
    ) -> bool {
        let mut worked = false;
        for _ in 0..LOOKS.min(FRAMES) {
            if self.numbers.in_use() == 0 {
                break;
            }
            let number = self.next;
            self.next = number.next();
            if self.away[number].state == AwayState::Sent && self.is_late(number, now_ns) {
                worked = true;
                self.settle_unanswered(number, proxies);
                self.away[number].state = AwayState::Expired;
            }
        }
        worked
    }

    /// The remote gateway has restarted or left, and will not answer earlier messages. All of them end now, whatever
    /// their deadlines: numbers of transfers and kernel indices are few.
    #[inline(never)]
    pub(super) fn give_up<'f, P: Platform, Sh: Shape<Item = M>>(&mut self, proxies: &mut Proxies<'f, P, Sh, FRAMES>) {
        for number in Below::all() {
            if self.away[number].state == AwayState::Sent {
                self.settle_unanswered(number, proxies);
            }
            if self.away[number].state != AwayState::Free {
                self.release(number);
            }
        }
    }

    fn settle_unanswered<'f, P: Platform, Sh: Shape<Item = M>>(
        &mut self,
        number: Below<FRAMES>,
        proxies: &mut Proxies<'f, P, Sh, FRAMES>,
    ) {
        self.unanswered = self.unanswered.wrapping_add(1);
        self.settle_away(number, DeliveryStatus::Unanswered, proxies);
    }

    /// Settles a message of this domain that was outstanding.
    #[inline(never)]
    fn settle_away<'f, P: Platform, Sh: Shape<Item = M>>(
        &mut self,
        number: Below<FRAMES>,
        status: DeliveryStatus,
        proxies: &mut Proxies<'f, P, Sh, FRAMES>,
    ) {
        let Away { id, proxy, hops, record, .. } = self.away[number];
        if let Some((index, proxy)) = proxies.at(proxy) {
            proxy.endpoint.settle_transfer(id, hops, status, Some(record.into()));
            proxy.records.give_back(record);
            proxies.look_at_end(index);
        }
    }

    /// Makes a number usable again.
    fn release(&mut self, number: Below<FRAMES>) {
        self.away[number] = Away::FREE;
        self.numbers.give_back(number.index() as u16);
    }
}
