//! Messages that come into the domain, and the answers to them.

use super::control::{Control, FIRST_CONTROL, transfer, without_transfer};
use super::line::Line;
use super::peer::Peer;
use super::proxies::Proxies;
use super::{BATCH, LOOKS};
use crate::below::Below;
use crate::fabric::DeliveryStatus;
use crate::in_place::{array_in, make_in};
use crate::link::Frames;
use crate::message::{Header, KernelId, MessageId, Priority};
use crate::platform::Platform;
use crate::shape::{Packet, Shape};
use crate::sync::zeroed_in;
use core::mem::MaybeUninit;

/// A message of the remote side.
#[derive(Clone, Copy)]
pub(super) struct Transfer {
    state: TransferState,
    /// As the remote side knows it.
    id: MessageId,
    /// Kernel index of its source's proxy; beyond the table if there is none.
    proxy: u16,
    /// Kernel index, which has been checked if the message waits.
    destination: u16,
    /// The one that waits behind it; beyond the numbers if there is none.
    pub(super) next: u16,
    high: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum TransferState {
    Free,
    /// For room.
    Waiting,
    /// Sent in this domain.
    Sent,
    /// To be answered.
    Decided(DeliveryStatus),
}

impl Transfer {
    pub(super) const FREE: Self = Self {
        state: TransferState::Free,
        id: MessageId { source: KernelId::NONE, sequence: 0 },
        proxy: u16::MAX,
        destination: 0,
        next: u16::MAX,
        high: false,
    };
}

/// The messages of the remote side, by number of transfer, as the remote gateway has chosen it.
pub(super) struct Incoming<M, const FRAMES: usize> {
    transfers: [Transfer; FRAMES],
    /// How many were not answered yet.
    count: usize,
    /// Those that wait for room.
    waiting: Line<FRAMES>,
    /// The messages themselves.
    bodies: [M; FRAMES],
    /// The header in hand. Here, and not in a variable: what is lent to a call has to be in memory, and memory of a thread
    /// is dear on a GPU.
    header: Header,
    /// Frames that this pass may still take.
    left: usize,
    /// The number that is looked at next.
    next: Below<FRAMES>,
    received: u64,
    rejected: u64,
}

impl<M: Packet, const FRAMES: usize> Incoming<M, FRAMES> {
    pub(super) fn new_in(memory: &mut MaybeUninit<Self>) -> &mut Self {
        make_in!(memory, Self {
            transfers => |transfers| array_in(transfers, |_| Transfer::FREE),
            count: 0,
            waiting: Line::EMPTY,
            bodies => zeroed_in,
            header: bytemuck::Zeroable::zeroed(),
            left: 0,
            next: Below::FIRST,
            received: 0,
            rejected: 0,
        })
    }

    /// Messages that were not answered yet.
    pub(super) const fn len(&self) -> usize {
        self.count
    }

    /// Messages that came out of the link.
    pub(super) const fn received(&self) -> u64 {
        self.received
    }

    /// Frames that made no sense, or none any more.
    pub(super) const fn rejected(&self) -> u64 {
        self.rejected
    }

    /// The frame in hand made no sense.
    pub(super) const fn reject(&mut self) {
        self.rejected = self.rejected.wrapping_add(1);
    }

    /// The header in hand.
    pub(super) const fn header(&self) -> &Header {
        &self.header
    }

    /// Whether the header in hand is a message's.
    pub(super) const fn is_message(&self) -> bool {
        self.header.priority < FIRST_CONTROL
    }

    /// A pass begins.
    pub(super) const fn begin_pass(&mut self) {
        self.left = BATCH;
    }

    /// Whether this pass has taken a frame.
    pub(super) const fn has_taken(&self) -> bool {
        self.left < BATCH
    }

    /// Takes the next frame, if there is one and this pass may take one more. A message goes where its number says, if
    /// that is free; anything else is its header alone.
    #[inline(always)]
    pub(super) fn take(&mut self, peer: &mut Peer<'_, impl Frames<Item = M>>) -> bool {
        if self.left == 0 {
            return false;
        }
        let Self { transfers, bodies, .. } = self;
        let taken = peer.pop(|header| {
            let number = Below::new(transfer(header) as usize).filter(|_| header.priority < FIRST_CONTROL)?;
            (transfers[number].state == TransferState::Free).then(|| &mut bodies[number])
        });
        let Some(header) = taken else { return false };
        self.header = header;
        self.left -= 1;
        true
    }

    /// The message in hand, which lies where its number says if that was free.
    #[inline(always)]
    pub(super) fn on_message<'f, P: Platform, Sh: Shape<Item = M>>(
        &mut self,
        leaving: bool,
        capacity: usize,
        proxies: &mut Proxies<'f, P, Sh, FRAMES>,
        peer: &mut Peer<'_, impl Frames<Item = M>>,
    ) {
        let number = Below::new(transfer(&self.header) as usize);
        let header = without_transfer(&self.header);
        let number = number.filter(|&number| self.transfers[number].state == TransferState::Free);
        let Some(number) = number.filter(|_| header.check(peer.payload()).is_ok()) else {
            return self.reject();
        };
        *self.bodies[number].header_mut() = header;
        self.received = self.received.wrapping_add(1);
        self.count += 1;
        let source = if leaving { None } else { proxies.find_proxy(header.source()) };
        let fits = peer.payload() <= capacity || usize::from(header.payload_len) <= capacity;
        let high = header.priority != Priority::Normal as u8;
        let destination = proxies.index(header.destination());
        let state = match (source.and_then(|index| proxies.get_mut(index)), destination) {
            (Some(proxy), _) if !fits => {
                proxy.outstanding += 1;
                TransferState::Decided(DeliveryStatus::QueueFull)
            }
            (Some(proxy), Some(destination)) => {
                proxy.outstanding += 1;
                let waits = proxy.waiting.of(high, destination).count > 0;
                let state =
                    if waits { TransferState::Waiting } else { proxy.send_on(&self.bodies[number], peer.receipts()) };
                if state == TransferState::Waiting {
                    proxy.waiting.of(high, destination).count += 1;
                }
                state
            }
            _ => TransferState::Decided(DeliveryStatus::NotFound),
        };
        self.transfers[number] = Transfer {
            state,
            id: header.id(),
            proxy: source.map_or(u16::MAX, |index| index.number() as u16),
            destination: header.destination().index() as u16,
            next: u16::MAX,
            high,
        };
        if state == TransferState::Waiting {
            self.waiting.push(&mut self.transfers, number);
        }
        if let TransferState::Decided(status) = state {
            self.answer_one(number, status, proxies, peer);
        }
    }

    /// Tries again to send messages that wait for room, a bounded number of them: the next call goes on behind them.
    #[inline(always)]
    pub(super) fn retry<'f, P: Platform, Sh: Shape<Item = M>>(
        &mut self,
        clock: &P,
        receipts: u64,
        proxies: &mut Proxies<'f, P, Sh, FRAMES>,
    ) -> bool {
        if self.waiting.is_empty() {
            return false;
        }
        let now_ns = clock.now_ns();
        let mut worked = false;
        for _ in 0..=BATCH {
            let Some(number) = self.waiting.look(&self.transfers) else { break };
            let state = self.retry_one(number, now_ns, receipts, proxies);
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

    /// Tries to send one of the messages that wait, unless an earlier one had to stay in this look.
    fn retry_one<'f, P: Platform, Sh: Shape<Item = M>>(
        &mut self,
        number: Below<FRAMES>,
        now_ns: u64,
        receipts: u64,
        proxies: &mut Proxies<'f, P, Sh, FRAMES>,
    ) -> TransferState {
        let look = self.waiting.number();
        let Transfer { proxy, destination, high, .. } = self.transfers[number];
        let destination = proxies.index(KernelId::new(destination, 0));
        let (Some((_, proxy)), Some(destination)) = (proxies.at(proxy), destination) else {
            // A message that waits has both.
            return TransferState::Decided(DeliveryStatus::NotFound);
        };
        let message = &self.bodies[number];
        let state = if message.header().deadline_ns < now_ns {
            TransferState::Decided(DeliveryStatus::Timeout)
        } else if proxy.waiting.of(high, destination).stuck_in == look {
            TransferState::Waiting
        } else {
            proxy.send_on(message, receipts)
        };
        let for_room = proxy.waiting.of(high, destination);
        if state == TransferState::Waiting {
            for_room.stuck_in = look;
        } else {
            for_room.count = for_room.count.saturating_sub(1);
        }
        state
    }

    /// Looks what became of the remote side's messages, and answers.
    #[inline(always)]
    pub(super) fn answer<'f, P: Platform, Sh: Shape<Item = M>>(
        &mut self,
        proxies: &mut Proxies<'f, P, Sh, FRAMES>,
        peer: &mut Peer<'_, impl Frames>,
    ) -> bool {
        let mut worked = false;
        for _ in 0..LOOKS.min(FRAMES) {
            if self.count == 0 {
                break;
            }
            let number = self.next;
            self.next = number.next();
            let Transfer { state, id, proxy, .. } = self.transfers[number];
            let status = match state {
                TransferState::Sent => proxies.at(proxy).and_then(|(_, proxy)| proxy.outcome(id.sequence)),
                TransferState::Decided(status) => Some(status),
                _ => None,
            };
            if let Some(status) = status {
                worked |= self.answer_one(number, status, proxies, peer);
            }
        }
        worked
    }

    #[inline(never)]
    fn answer_one<'f, P: Platform, Sh: Shape<Item = M>>(
        &mut self,
        number: Below<FRAMES>,
        status: DeliveryStatus,
        proxies: &mut Proxies<'f, P, Sh, FRAMES>,
        peer: &mut Peer<'_, impl Frames>,
    ) -> bool {
        let Transfer { id, proxy, .. } = self.transfers[number];
        self.transfers[number].state = TransferState::Decided(status);
        if !peer.send_control_here(&Control::Answer { transfer: number.index() as u16, id, status }) {
            return false;
        }
        self.transfers[number] = Transfer::FREE;
        self.count = self.count.saturating_sub(1);
        if let Some((index, proxy)) = proxies.at(proxy) {
            proxy.outstanding = proxy.outstanding.saturating_sub(1);
            proxies.look_at_end(index);
        }
        true
    }

    /// The messages that wait were not sent in this domain, and will not be.
    pub(super) fn end_waiting(&mut self) {
        for transfer in self.transfers.iter_mut().filter(|transfer| transfer.state == TransferState::Waiting) {
            transfer.state = TransferState::Decided(DeliveryStatus::NotFound);
        }
    }

    /// The remote gateway begins again or leaves: its messages are no more.
    pub(super) fn forget(&mut self) {
        self.transfers.fill(Transfer::FREE);
        self.count = 0;
        self.waiting = Line::EMPTY;
    }
}
