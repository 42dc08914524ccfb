//! One kernel's handle on a fabric: sending, receiving, and passing on what is for others.
//!
//! # The way of a message
//!
//! ```text
//!   send ──> receipt opened (Pending) ──> lane of the next hop ──> its poll ──┬─> for it: receipt Delivered, received
//!                                              ^                              ├─> for another: hops + 1 ──┐
//!                                              └──────────────────────────────┼───────────────────────────┘
//!                                                                             └─> failed: receipt says why
//! ```
//!
//! Everything here runs on the kernel's own thread. What it shares with others is in [`fabric`](crate::fabric) and
//! [`ring`](crate::ring); this file says in which order things happen:
//!
//! 1. `send` opens the receipt before it publishes the message, so that whoever takes the message finds the receipt.
//! 2. A message is decided (its receipt compare-exchanged) before it is counted, and counted by whoever decided it.
//! 3. A message is handed to the caller only if this endpoint decided `Delivered`.
//! 4. A poll never waits: each message it takes is received, forwarded, stored or failed.

use crate::fabric::{
    COUNTERS, Command, Config, Counter, DeliveryReceipt, DeliveryStatus, Doorbell, Event, Fabric, Name, NameError,
    Phase, ReceiptError, Receipts, Stats, Status, TraceEntry, TransitState, Verdict,
};
use crate::hlc::{Clock, Timestamp};
use crate::message::{HEADER_VERSION, Header, KernelId, Message, MessageId, PayloadTooLong, Priority};
use crate::platform::Platform;
use crate::ring::lanes::LanesState;
use crate::ring::spsc::ProducerState;
use crate::ring::ticket::{TicketConsumerState, TicketError, TicketPop, TicketProducerState};
use crate::sync::SharedCell;
use core::fmt;

/// Messages of high priority that are received in a row while normal ones wait.
pub const HIGH_BURST: u32 = 16;

/// Messages that one call of `try_receive` or `poll` takes out of the inbox at most.
const BUDGET: usize = 256;

/// Messages received in a row while others are put aside for full next hops, before those are tried again.
const FLUSH_EVERY: u32 = 64;

/// How long a sender of high priority may take between claiming its place and publishing its message, before the
/// receiver passes it over. It then finds out and tries again.
const CLAIM_PATIENCE_NS: u64 = 10_000_000;

/// Tries of a high-priority send that is passed over each time.
const HIGH_TRIES: usize = 3;

/// How a kernel registers.
#[derive(Clone, Copy, Debug)]
pub struct Register {
    name: Name,
    parks: bool,
}

impl Register {
    /// Under this name.
    ///
    /// # Errors
    /// [`NameError`] unless the name has 1 to 32 bytes.
    pub fn new(name: &str) -> Result<Self, NameError> {
        Ok(Self { name: Name::new(name)?, parks: false })
    }

    /// As a kernel that may sleep when its inbox is empty. Everyone who sends to it then pays for a fence per message,
    /// which is why it must be known from the start.
    #[must_use]
    pub const fn parking(mut self) -> Self {
        self.parks = true;
        self
    }
}

/// Why a kernel could not register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegisterError {
    /// All places are taken.
    NoPlace {
        /// Places there are.
        kernels: usize,
    },
    /// A kernel of that name is registered.
    NameTaken {
        /// Its address.
        by: KernelId,
    },
    /// The place that was asked for is taken.
    PlaceTaken {
        /// Its index.
        index: usize,
    },
}

impl fmt::Display for RegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPlace { kernels } => write!(
                f,
                "all {kernels} places of the fabric are taken: unregister a kernel, clear a failed one, or use a fabric \
                 with more KERNELS"
            ),
            Self::NameTaken { by } => {
                write!(f, "the name is taken by {by}: unregister it first or choose another name")
            }
            Self::PlaceTaken { index } => write!(f, "place {index} does not exist or is taken"),
        }
    }
}

impl core::error::Error for RegisterError {}

/// Why a message was not accepted. It is still the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// Nobody is registered at the destination, or at the next hop on the way to it.
    NotFound {
        /// Who is missing.
        kernel: KernelId,
    },
    /// The next hop's inbox has no room for this sender now.
    QueueFull {
        /// Whose inbox.
        next_hop: KernelId,
    },
    /// The deadline has passed, perhaps while waiting for room.
    Timeout {
        /// The deadline, ns on the fabric's clock.
        deadline_ns: u64,
    },
    /// The header claims more payload than a message holds.
    PayloadTooLong(PayloadTooLong),
}

impl SendError {
    /// The status that a receipt would have shown.
    #[must_use]
    pub const fn status(&self) -> Option<DeliveryStatus> {
        match self {
            Self::NotFound { .. } => Some(DeliveryStatus::NotFound),
            Self::QueueFull { .. } => Some(DeliveryStatus::QueueFull),
            Self::Timeout { .. } => Some(DeliveryStatus::Timeout),
            Self::PayloadTooLong(_) => None,
        }
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { kernel } => write!(f, "{kernel} is not registered (any more)"),
            Self::QueueFull { next_hop } => {
                write!(f, "the inbox of {next_hop} has no room for this sender: try again when it has received")
            }
            Self::Timeout { deadline_ns } => write!(f, "the deadline ({deadline_ns} ns) has passed"),
            Self::PayloadTooLong(e) => e.fmt(f),
        }
    }
}

impl core::error::Error for SendError {}

/// What an endpoint has left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backlog {
    /// Nothing: it may sleep until its doorbell rings.
    None,
    /// Messages are put aside for next hops that are full: it may rest, but must poll again soon.
    Transit,
    /// There is mail.
    Mail,
}

/// One kernel's handle on a fabric. Dropping it unregisters the kernel.
///
/// It is a capability: the source of every message sent through it is this kernel. It can move to another thread, but
/// has one user at a time.
pub struct Endpoint<'f, L: Platform, const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize> {
    fabric: &'f Fabric<KERNELS, SLOTS, PAYLOAD>,
    platform: L,
    id: KernelId,
    /// This kernel's lanes to the others.
    lanes_out: [ProducerState; KERNELS],
    lanes_in: LanesState<KERNELS>,
    high_in: TicketConsumerState,
    /// Messages of high priority received in a row.
    high_run: u32,
    /// A position of the high ring that was claimed and not published, and since when that is known.
    stalled: Option<(u64, u64)>,
    /// A message of high priority for this kernel that `poll` came across.
    held: Option<Message<PAYLOAD>>,
    transit: TransitState,
    /// Messages put aside per next hop.
    parked: [u16; KERNELS],
    /// Whether this call has looked already if some of them can go.
    flushed: bool,
    clock: Clock,
    config: Config,
    counts: [u64; COUNTERS],
    /// All receipts below this sequence are decided or overwritten.
    unresolved: u64,
    /// Up to this sequence, opening a receipt may overwrite a verdict of this kernel's own.
    retract_until: u64,
    beats: u64,
    stopping: bool,
    /// What becomes of the place when this is dropped.
    leave_as: Status,
    /// Calls of `try_receive` while messages are put aside.
    turns: u32,
}

impl<L: Platform, const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize> fmt::Debug
    for Endpoint<'_, L, KERNELS, SLOTS, PAYLOAD>
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("id", &self.id).field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl<const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize> Fabric<KERNELS, SLOTS, PAYLOAD> {
    /// Takes the first free place and opens it for mail.
    ///
    /// # Errors
    /// [`RegisterError::NameTaken`] if a registered kernel has the name, [`RegisterError::NoPlace`] if all are taken.
    pub fn register<L: Platform>(
        &self,
        who: &Register,
        platform: L,
    ) -> Result<Endpoint<'_, L, KERNELS, SLOTS, PAYLOAD>, RegisterError> {
        if let Some(by) = self.find(who.name.as_str()) {
            return Err(RegisterError::NameTaken { by });
        }
        let (index, generation) = self
            .kernels
            .iter()
            .enumerate()
            .find_map(|(index, entry)| Some((index, entry.begin_register()?)))
            .ok_or(RegisterError::NoPlace { kernels: KERNELS })?;
        Ok(Endpoint::open(self, platform, KernelId::new(index as u16, generation), who))
    }

    /// Takes a certain place.
    ///
    /// # Errors
    /// [`RegisterError::PlaceTaken`] unless it is free.
    pub fn register_at<L: Platform>(
        &self,
        index: usize,
        who: &Register,
        platform: L,
    ) -> Result<Endpoint<'_, L, KERNELS, SLOTS, PAYLOAD>, RegisterError> {
        let taken = RegisterError::PlaceTaken { index };
        let generation = self.kernels.get(index).and_then(|entry| entry.begin_register()).ok_or(taken)?;
        Ok(Endpoint::open(self, platform, KernelId::new(index as u16, generation), who))
    }

    /// Takes over the endpoint of a kernel that died without unregistering, and goes on where it stopped: mail that waits
    /// is received, transit traffic moves on.
    ///
    /// # Errors
    /// [`RegisterError::PlaceTaken`] if `id` is not registered.
    ///
    /// # Safety
    /// The endpoint that registered as `id` is not used any more, in any process.
    pub unsafe fn take_over<L: Platform>(
        &self,
        id: KernelId,
        platform: L,
    ) -> Result<Endpoint<'_, L, KERNELS, SLOTS, PAYLOAD>, RegisterError> {
        if !self.is_registered(id) {
            return Err(RegisterError::PlaceTaken { index: id.index() });
        }
        for inbox in &self.inboxes {
            // SAFETY: the caller vouches that this producer is dead, so it writes to no slot any more.
            unsafe { inbox.high.reclaim(id.index() as u16) };
        }
        Ok(Endpoint::recover(self, platform, id))
    }
}

impl<'f, L: Platform, const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize>
    Endpoint<'f, L, KERNELS, SLOTS, PAYLOAD>
{
    /// An endpoint for a place that is already this caller's, going on where the last owner stopped.
    fn recover(fabric: &'f Fabric<KERNELS, SLOTS, PAYLOAD>, platform: L, id: KernelId) -> Self {
        let me = id.index();
        let config = fabric.config();
        let transit = fabric.transit[me].recover();
        let counts = fabric.kernels[me].counters();
        let mut parked = [0; KERNELS];
        for next_hop in transit.positions().filter_map(|p| fabric.transit[me].next_hop(p)) {
            if let Some(count) = parked.get_mut(next_hop) {
                *count += 1;
            }
        }
        Self {
            fabric,
            platform,
            id,
            lanes_out: core::array::from_fn(|to| fabric.inboxes[to].lanes.recover_producer(me)),
            lanes_in: LanesState::recover(&fabric.inboxes[me].lanes),
            high_in: TicketConsumerState::recover(&fabric.inboxes[me].high),
            high_run: 0,
            stalled: None,
            held: None,
            transit,
            parked,
            flushed: false,
            clock: Clock::new(config.max_clock_offset_ns),
            config,
            counts,
            unresolved: 1,
            retract_until: counts[Counter::Sent as usize].saturating_add(Receipts::<KERNELS, SLOTS>::CAPACITY),
            beats: fabric.kernels[me].heartbeat(),
            stopping: false,
            leave_as: Status::Free,
            turns: 0,
        }
    }

    /// Opens a place that `begin_register` has taken.
    fn open(fabric: &'f Fabric<KERNELS, SLOTS, PAYLOAD>, platform: L, id: KernelId, who: &Register) -> Self {
        let mut endpoint = Self::recover(fabric, platform, id);
        // Mail that senders put here after the last owner had left. It is for that owner, and ends in `NotFound`.
        endpoint.throw_out_mail();
        fabric.routes.clear(id.index());
        fabric.kernels[id.index()].finish_register(id.generation(), &who.name, who.parks);
        endpoint
    }

    /// This kernel's address.
    #[must_use]
    pub const fn id(&self) -> KernelId {
        self.id
    }

    /// Whether this kernel registered as [parking](Register::parking).
    #[must_use]
    pub fn parks(&self) -> bool {
        self.registered(self.id) == Some(true)
    }

    /// The fabric.
    #[must_use]
    pub const fn fabric(&self) -> &'f Fabric<KERNELS, SLOTS, PAYLOAD> {
        self.fabric
    }

    /// The backend.
    #[must_use]
    pub const fn platform(&self) -> &L {
        &self.platform
    }

    /// Sends with normal priority. The message is lent: if it is refused, it is still the caller's.
    ///
    /// The destination's kernel, sequence, times, version and, where the caller left 0, deadline and hop limit are filled
    /// in. [`receipt`](Self::receipt) tells later what became of the message.
    ///
    /// # Errors
    /// See [`SendError`]; `QueueFull` means that it may be tried again.
    #[inline]
    pub fn send(&mut self, to: KernelId, message: &Message<PAYLOAD>) -> Result<MessageId, SendError> {
        self.send_priority(to, message, Priority::Normal)
    }

    /// Sends. A message of high priority is received before all normal ones that wait, except that one normal message
    /// is received after every 16.
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    #[inline]
    pub fn send_priority(
        &mut self,
        to: KernelId,
        message: &Message<PAYLOAD>,
        priority: Priority,
    ) -> Result<MessageId, SendError> {
        let result = self.accept(to, message, priority);
        if result.is_err() {
            self.count(Counter::Refused);
        }
        result
    }

    /// Sends, and waits for room until the message's deadline (by default the fabric's delivery timeout from now). While
    /// it waits, transit traffic is forwarded, and `wait` is called between tries.
    ///
    /// # Errors
    /// As for [`send`](Self::send), but [`SendError::Timeout`] in place of `QueueFull`.
    pub fn send_waiting(
        &mut self,
        to: KernelId,
        message: &Message<PAYLOAD>,
        priority: Priority,
        mut wait: impl FnMut(),
    ) -> Result<MessageId, SendError> {
        let mut message = *message;
        let deadline_ns = self.deadline(&message.header, self.platform.now_ns());
        message.header.deadline_ns = deadline_ns;
        loop {
            match self.accept(to, &message, priority) {
                Err(SendError::QueueFull { .. }) => {}
                Err(e) => {
                    self.count(Counter::Refused);
                    return Err(e);
                }
                sent => return sent,
            }
            self.poll();
            wait();
        }
    }

    /// Answers a request: sends to its source, with its sequence as the correlation id, at its priority.
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    pub fn reply(&mut self, request: &Message<PAYLOAD>, answer: &Message<PAYLOAD>) -> Result<MessageId, SendError> {
        let priority = if request.header.priority == 0 { Priority::Normal } else { Priority::High };
        let answer = answer.with_correlation_id(request.header.sequence);
        self.send_priority(request.header.source(), &answer, priority)
    }

    fn deadline(&self, header: &Header, now_ns: u64) -> u64 {
        match header.deadline_ns {
            0 => now_ns.saturating_add(self.config.delivery_timeout_ns),
            given => given,
        }
    }

    #[inline]
    fn accept(&mut self, to: KernelId, message: &Message<PAYLOAD>, priority: Priority) -> Result<MessageId, SendError> {
        let fabric = self.fabric;
        let me = self.id.index();
        let given = &message.header;
        if given.payload_len as usize > PAYLOAD {
            let len = given.payload_len as usize;
            return Err(SendError::PayloadTooLong(PayloadTooLong { len, capacity: PAYLOAD }));
        }
        let mut parks = self.registered(to).ok_or(SendError::NotFound { kernel: to })?;
        let next_hop = fabric.routes.next_hop(me, to);
        if next_hop != to {
            parks = self.registered(next_hop).ok_or(SendError::NotFound { kernel: next_hop })?;
        }
        let now_ns = self.platform.now_ns();
        let deadline_ns = self.deadline(given, now_ns);
        if deadline_ns <= now_ns {
            return Err(SendError::Timeout { deadline_ns });
        }
        // Before anything is written: a sender that tries again and again must not use up receipts.
        let lanes = &fabric.inboxes[next_hop.index()].lanes;
        if priority == Priority::Normal && !lanes.has_room(me, &mut self.lanes_out[next_hop.index()]) {
            return Err(SendError::QueueFull { next_hop });
        }
        let sent = self.clock.now(now_ns);
        let sequence = self.counts[Counter::Sent as usize].wrapping_add(1);
        let header = Header {
            sequence,
            correlation_id: given.correlation_id,
            wall_time_ns: sent.wall_time_ns,
            deadline_ns,
            source: self.id.raw(),
            destination: to.raw(),
            kind: given.kind,
            logical: sent.logical,
            payload_len: given.payload_len,
            version: HEADER_VERSION,
            flags: given.flags,
            hops: 0,
            hop_limit: if given.hop_limit == 0 { self.config.hop_limit } else { given.hop_limit },
            priority: priority as u8,
            reserved: 0,
        };
        // Order 1 of the module's page. Receipt and count go first: should this kernel die before the message is
        // published, its successor finds a message to time out rather than a sequence used twice.
        if sequence <= self.retract_until {
            self.retract(sequence);
        }
        fabric.receipts[me].open(sequence, to, deadline_ns);
        self.set_count(Counter::Sent, sequence);
        if !self.deposit(next_hop.index(), parks, &header, message) {
            self.set_count(Counter::Sent, sequence.wrapping_sub(1));
            return Err(SendError::QueueFull { next_hop });
        }
        self.trace(Event::Sent, None, &header);
        Ok(MessageId { source: self.id, sequence })
    }

    /// Whether a kernel is registered, and whether it may park. Any address is safe to ask for.
    #[inline(always)]
    fn registered(&self, id: KernelId) -> Option<bool> {
        self.fabric.kernels.get(id.index())?.is_registered(id)
    }

    /// Puts a message into a next hop's inbox, and wakes its owner; `false` if there is no room.
    #[inline(always)]
    fn deposit(&mut self, to: usize, parks: bool, header: &Header, message: &Message<PAYLOAD>) -> bool {
        let inbox = &self.fabric.inboxes[to];
        let done = if header.priority == Priority::Normal as u8 {
            // SAFETY: rule 2 of the SPSC ring: `fill` is called with the slot that is this producer's to write.
            let fill = |body: &SharedCell<_>| unsafe { body.write_headed(header, message, message.used()) };
            inbox.lanes.push(self.id.index(), &mut self.lanes_out[to], fill).is_ok()
        } else {
            self.deposit_high(to, header, message)
        };
        if done {
            self.fabric.kernels[to].wake(parks, &self.platform);
        }
        done
    }

    #[cold]
    fn deposit_high(&self, to: usize, header: &Header, message: &Message<PAYLOAD>) -> bool {
        let mut message = *message;
        message.header = *header;
        let mut producer = TicketProducerState::new(self.id.index() as u16);
        (0..HIGH_TRIES)
            .map(|_| producer.push(&self.fabric.inboxes[to].high, &message, message.used()))
            .find(|result| *result != Err(TicketError::Revoked))
            == Some(Ok(()))
    }

    /// Takes the next message for this kernel, if there is one. Transit traffic that lies before it is passed on.
    ///
    /// High priority comes first; otherwise first in, first out per sender. Messages whose deadline has passed, and
    /// those for an earlier owner of this place, are not received.
    #[inline]
    pub fn try_receive(&mut self) -> Option<Message<PAYLOAD>> {
        let mut message = bytemuck::Zeroable::zeroed();
        self.try_receive_into(&mut message).then_some(message)
    }

    /// As [`try_receive`](Self::try_receive), into a message that the caller has: nothing is copied twice. `false` if
    /// there is none; `message` may then hold one that was not for the caller. Bytes behind the payload stay what they were.
    #[inline]
    pub fn try_receive_into(&mut self, message: &mut Message<PAYLOAD>) -> bool {
        self.flushed = false;
        if self.transit.len() > 0 {
            // A kernel with mail of its own all the time must not let others' wait for their deadlines.
            self.turns = self.turns.wrapping_add(1);
            if self.turns.is_multiple_of(FLUSH_EVERY) {
                self.flush_transit();
            }
        }
        for _ in 0..BUDGET {
            if !self.take(message) {
                break;
            }
            if self.handle(message) {
                return true;
            }
        }
        self.flush_transit();
        false
    }

    /// Passes on transit traffic without receiving: for a kernel that is paused, or busy with something of its own.
    ///
    /// A message for this kernel stays, and what the same sender sent after it waits behind it. Returns how many
    /// messages were looked at.
    pub fn poll(&mut self) -> usize {
        let fabric = self.fabric;
        let me = self.id.index();
        let lanes = &fabric.inboxes[me].lanes;
        let mut taken = 0;
        let mut message = bytemuck::Zeroable::zeroed();
        self.flush_transit();
        while self.held.is_none() && taken < BUDGET && self.take_high(&mut message) {
            taken += 1;
            if message.header.destination().index() == me {
                self.held = Some(message);
            } else {
                self.handle(&message);
            }
        }
        for lane in 0..KERNELS {
            while taken < BUDGET {
                let Some(head) = self.lanes_in.peek_head::<_, Header, SLOTS>(lanes, lane) else { break };
                if head.destination().index() == me {
                    break;
                }
                // SAFETY: rule 2 of the SPSC ring: `take` is called with the slot that is this consumer's to read.
                let take = |body: &SharedCell<_>| unsafe { ((), body.read_used(&mut message, Message::used)) };
                if self.lanes_in.pop_lane(lanes, lane, take).is_none() {
                    break;
                }
                taken += 1;
                self.handle(&message);
            }
        }
        taken
    }

    /// The next message of the inbox, for whomever it is; `false` if there is none.
    #[inline(always)]
    fn take(&mut self, message: &mut Message<PAYLOAD>) -> bool {
        let inbox = &self.fabric.inboxes[self.id.index()];
        let high_waits = self.held.is_some() || self.high_in.ready(&inbox.high);
        if high_waits
            && (self.high_run < HIGH_BURST || !self.lanes_in.any_ready(&inbox.lanes))
            && self.take_high(message)
        {
            self.high_run = self.high_run.saturating_add(1);
            return true;
        }
        self.high_run = 0;
        // SAFETY: rule 2 of the SPSC ring: `take` is called with the slot that is this consumer's to read.
        let take = |body: &SharedCell<_>| unsafe { ((), body.read_used(message, Message::used)) };
        self.lanes_in.pop(&inbox.lanes, take).is_some()
    }

    #[cold]
    fn take_high(&mut self, message: &mut Message<PAYLOAD>) -> bool {
        if let Some(held) = self.held.take() {
            *message = held;
            return true;
        }
        let ring = &self.fabric.inboxes[self.id.index()].high;
        match self.high_in.pop(ring, Message::used) {
            TicketPop::Message(taken) => {
                self.stalled = None;
                *message = taken;
                true
            }
            TicketPop::Empty => false,
            TicketPop::Stalled { position, .. } => {
                let now_ns = self.platform.now_ns();
                match self.stalled {
                    Some((known, since_ns)) if known == position => {
                        if now_ns.saturating_sub(since_ns) > CLAIM_PATIENCE_NS {
                            self.stalled = None;
                            // Whether or not the sender was quicker, the next look finds something else here.
                            self.high_in.revoke(ring, position);
                        }
                    }
                    _ => self.stalled = Some((position, now_ns)),
                }
                false
            }
        }
    }

    /// Does with a message what has to be done; `true` if it is to be handed to the caller.
    #[inline(always)]
    fn handle(&mut self, message: &Message<PAYLOAD>) -> bool {
        let header = &message.header;
        if header.check(PAYLOAD).is_err()
            || header.source().index() >= KERNELS
            || header.destination().index() >= KERNELS
        {
            self.count(Counter::Corrupt);
            return false;
        }
        if header.destination() != self.id {
            self.handle_other(message);
            return false;
        }
        let now_ns = self.platform.now_ns();
        if header.deadline_ns < now_ns {
            self.end(header, DeliveryStatus::Timeout);
            return false;
        }
        // Order 2 and 3 of the module's page.
        match self.decide(header, DeliveryStatus::Delivered) {
            // A look at the clock after the one that the sender has acted on, should it have given this message up.
            Verdict::Alone if header.deadline_ns < self.platform.now_ns() => {
                self.end(header, DeliveryStatus::Timeout);
                false
            }
            Verdict::Decided | Verdict::Alone => {
                self.count(Counter::Received);
                if self.clock.update(now_ns, header.sent()).is_err() {
                    self.clock.now(now_ns);
                    self.count(Counter::ClockSkews);
                }
                self.trace(Event::Received, None, header);
                true
            }
            Verdict::Lost => {
                self.discard(header);
                false
            }
        }
    }

    /// A message for someone else, or for an earlier owner of this place.
    fn handle_other(&mut self, message: &Message<PAYLOAD>) {
        let header = &message.header;
        if header.destination().index() == self.id.index() {
            return self.end(header, DeliveryStatus::NotFound);
        }
        let Some(next_hop) = self.pass_on(message) else { return };
        if self.put_aside(message, next_hop) {
            return;
        }
        // There may be room by now for what fills the store. Once per call: it is a look at all of it.
        if !self.flushed {
            self.flush_transit();
            let Some(next_hop) = self.pass_on(message) else { return };
            if self.put_aside(message, next_hop) {
                return;
            }
        }
        self.end(header, DeliveryStatus::QueueFull);
    }

    fn put_aside(&mut self, message: &Message<PAYLOAD>, next_hop: usize) -> bool {
        let stored = self.fabric.transit[self.id.index()].put(&mut self.transit, message, next_hop);
        if stored {
            self.parked[next_hop] = self.parked[next_hop].saturating_add(1);
            self.trace(Event::Parked, None, &message.header);
        }
        stored
    }

    /// Forwards a message or ends its way. Returns the next hop's index if that has no room.
    fn pass_on(&mut self, message: &Message<PAYLOAD>) -> Option<usize> {
        let header = &message.header;
        let failure = if header.hops >= header.hop_limit {
            Some(DeliveryStatus::MaxHopsExceeded)
        } else if header.deadline_ns < self.platform.now_ns() {
            Some(DeliveryStatus::Timeout)
        } else if self.registered(header.destination()).is_none() {
            Some(DeliveryStatus::NotFound)
        } else {
            None
        };
        if let Some(status) = failure {
            self.end(header, status);
            return None;
        }
        let next_hop = self.fabric.routes.next_hop(self.id.index(), header.destination());
        let Some(parks) = self.registered(next_hop) else {
            self.end(header, DeliveryStatus::NotFound);
            return None;
        };
        let header = Header { hops: header.hops + 1, ..*header };
        // What was put aside for this next hop goes first.
        if self.parked[next_hop.index()] > 0 || !self.deposit(next_hop.index(), parks, &header, message) {
            return Some(next_hop.index());
        }
        self.count(Counter::Forwarded);
        self.trace(Event::Forwarded, None, &header);
        None
    }

    /// Tries again to forward what was put aside, in order, by the routes of now: what has to stay makes everything
    /// behind it for the same next hop stay.
    fn flush_transit(&mut self) {
        self.flushed = true;
        if self.transit.len() == 0 {
            return;
        }
        let store = &self.fabric.transit[self.id.index()];
        // Counted afresh: for `pass_on`, only what lies before a message is before it.
        self.parked = [0; KERNELS];
        let mut left = 0;
        for position in self.transit.positions() {
            let Some(parked_for) = store.next_hop(position) else { continue };
            let message = store.get(position);
            let header = &message.header;
            // The store lies in shared memory as well: not necessarily what this endpoint put there.
            if header.source().index() >= KERNELS || header.destination().index() >= KERNELS {
                store.remove(&mut self.transit, position);
                self.count(Counter::Corrupt);
                continue;
            }
            let Some(next_hop) = self.pass_on(&message) else {
                store.remove(&mut self.transit, position);
                continue;
            };
            self.parked[next_hop] += 1;
            left += 1;
            if next_hop != parked_for {
                store.redirect(position, next_hop);
            }
        }
        store.settle(&mut self.transit, left);
    }

    /// Ends a message's way, and counts how, unless someone has already.
    fn end(&mut self, header: &Header, status: DeliveryStatus) {
        match self.decide(header, status) {
            Verdict::Decided | Verdict::Alone => {
                self.count_failure(status, 1);
                self.trace(Event::Failed, Some(status), header);
            }
            Verdict::Lost => self.discard(header),
        }
    }

    fn count_failure(&mut self, status: DeliveryStatus, by: i64) {
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
    fn retract(&mut self, sequence: u64) {
        if let Some(status) = self.fabric.receipts[self.id.index()].retract(sequence) {
            self.count_failure(status, -1);
        }
    }

    fn discard(&mut self, header: &Header) {
        self.count(Counter::Discarded);
        self.trace(Event::Discarded, None, header);
    }

    /// The index of the source has been checked.
    #[inline(always)]
    fn decide(&self, header: &Header, status: DeliveryStatus) -> Verdict {
        self.fabric.receipts[header.source().index()].decide(header.sequence, status)
    }

    /// What became of a message. For one of this kernel's own that is pending, this also decides: `Timeout` if its
    /// deadline has passed, `NotFound` if its destination has left.
    ///
    /// # Errors
    /// [`ReceiptError::Overwritten`] once this kernel has sent `KERNELS × SLOTS` more messages.
    pub fn receipt(&mut self, id: MessageId) -> Result<DeliveryReceipt, ReceiptError> {
        if id.source.index() == self.id.index() && id.sequence <= self.counts[Counter::Sent as usize] {
            self.resolve(id.sequence);
        }
        self.fabric.receipt(id)
    }

    /// Decides a pending message of this kernel's that can no longer arrive; `true` if it is (then) decided.
    fn resolve(&mut self, sequence: u64) -> bool {
        let receipts = &self.fabric.receipts[self.id.index()];
        if receipts.read(sequence) != Ok(DeliveryStatus::Pending) {
            return true;
        }
        let (deadline_ns, destination) = receipts.terms(sequence);
        let status = if deadline_ns < self.platform.now_ns() {
            DeliveryStatus::Timeout
        } else if self.registered(destination).is_none() {
            DeliveryStatus::NotFound
        } else {
            return false;
        };
        if receipts.give_up(sequence, status) == Verdict::Decided {
            self.retract_until = self.retract_until.max(sequence.saturating_add(Receipts::<KERNELS, SLOTS>::CAPACITY));
            self.count_failure(status, 1);
            if self.fabric.tracing() {
                let header = Header {
                    sequence,
                    source: self.id.raw(),
                    destination: destination.raw(),
                    ..bytemuck::Zeroable::zeroed()
                };
                self.trace(Event::Failed, Some(status), &header);
            }
        }
        true
    }

    /// Decides all own messages that can no longer arrive, and returns how many are still pending. Takes a step per message
    /// that was pending at the last call; the run loop calls it when idle.
    pub fn expire(&mut self) -> usize {
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

    /// Messages that wait in this kernel's inbox, for it or to be passed on: a snapshot that only senders can make
    /// too small.
    #[must_use]
    pub fn pending_count(&self) -> u64 {
        let inbox = &self.fabric.inboxes[self.id.index()];
        self.lanes_in.pending(&inbox.lanes)
            + self.high_in.pending(&inbox.high)
            + u64::from(self.held.is_some())
            + self.transit.len() as u64
    }

    /// What is left to do.
    #[must_use]
    pub fn backlog(&self) -> Backlog {
        let inbox = &self.fabric.inboxes[self.id.index()];
        if self.held.is_some() || self.high_in.ready(&inbox.high) || self.lanes_in.any_ready(&inbox.lanes) {
            Backlog::Mail
        } else if self.transit.len() > 0 {
            Backlog::Transit
        } else {
            Backlog::None
        }
    }

    /// Says that this kernel is about to sleep, and looks once more: if the answer is `None`, sleep at the doorbell
    /// until it is awake again. The kernel must have registered as [parking](Register::parking). Senders with no room
    /// in a lane see it freed.
    #[must_use]
    pub fn fall_asleep(&mut self) -> Option<&'f Doorbell> {
        let entry = &self.fabric.kernels[self.id.index()];
        self.lanes_in.publish(&self.fabric.inboxes[self.id.index()].lanes);
        entry.doorbell.fall_asleep();
        let stays_awake = self.backlog() != Backlog::None || self.command() != Command::Run;
        if stays_awake {
            entry.doorbell.wake_up();
            return None;
        }
        Some(&entry.doorbell)
    }

    /// This kernel's doorbell.
    #[must_use]
    pub fn doorbell(&self) -> &'f Doorbell {
        &self.fabric.kernels[self.id.index()].doorbell
    }

    /// What the supervisor wants.
    #[inline]
    #[must_use]
    pub fn command(&self) -> Command {
        self.fabric.kernels[self.id.index()].command(self.id.generation())
    }

    /// Says what this kernel is doing. The run loop does so by itself.
    pub fn set_phase(&mut self, phase: Phase) {
        self.fabric.kernels[self.id.index()].set_phase(phase);
    }

    /// Gives a sign of life. The run loop does so by itself.
    #[inline]
    pub fn beat(&mut self) {
        self.beats = self.beats.wrapping_add(1);
        self.fabric.kernels[self.id.index()].set_heartbeat(self.beats);
    }

    /// Lets a run loop begin, whatever the last one was asked.
    pub(crate) fn start(&mut self) {
        self.stopping = false;
    }

    /// Asks the run loop to end after the message in hand.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Whether [`stop`](Self::stop) was called.
    #[must_use]
    pub const fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// A new timestamp of this kernel's hybrid clock.
    pub fn now(&mut self) -> Timestamp {
        let physical_ns = self.platform.now_ns();
        self.clock.now(physical_ns)
    }

    /// This kernel's counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats::from_counters(&self.counts)
    }

    #[inline(always)]
    fn count(&mut self, counter: Counter) {
        self.set_count(counter, self.counts[counter as usize].wrapping_add(1));
    }

    #[inline(always)]
    fn set_count(&mut self, counter: Counter, value: u64) {
        self.counts[counter as usize] = value;
        self.fabric.kernels[self.id.index()].show(counter, value);
    }

    #[inline(always)]
    fn trace(&mut self, event: Event, status: Option<DeliveryStatus>, header: &Header) {
        if self.fabric.tracing() {
            self.write_trace(event, status, header);
        }
    }

    #[cold]
    fn write_trace(&mut self, event: Event, status: Option<DeliveryStatus>, header: &Header) {
        // A kernel that only forwards has no other reason to move its clock.
        let at = self.now();
        let entry = TraceEntry {
            number: self.counts[Counter::TraceEvents as usize],
            event,
            status: status.map_or(0, |s| s as u8),
            hops: header.hops,
            id: header.id(),
            at,
        };
        self.fabric.traces[self.id.index()].write(&entry);
        self.count(Counter::TraceEvents);
    }

    /// Leaves. Mail for this kernel ends in `NotFound`, transit traffic moves on as far as there is room.
    pub fn unregister(self) {
        drop(self);
    }

    /// Leaves as failed: the place stays taken, with its trace, until it is [cleared](Fabric::clear_failed).
    pub fn fail(mut self) {
        self.set_phase(Phase::Failed);
        self.leave_as = Status::Failed;
    }

    fn leave(&mut self, then: Status) {
        let entry = &self.fabric.kernels[self.id.index()];
        entry.set_status(self.id.generation(), Status::Leaving);
        self.throw_out_mail();
        entry.set_status(self.id.generation(), then);
    }

    /// Empties the inbox and the transit store: mail for this place ends in `NotFound`, the rest is passed on, or ends in
    /// `QueueFull`. What a slow sender puts here later is found by the next owner.
    fn throw_out_mail(&mut self) {
        let me = self.id.index();
        let inbox = &self.fabric.inboxes[me];
        // As many as an inbox and its store hold, so that busy senders cannot keep this kernel from leaving.
        let mut message: Message<PAYLOAD> = bytemuck::Zeroable::zeroed();
        for _ in 0..(KERNELS + 2) * SLOTS {
            if !self.take(&mut message) {
                break;
            }
            let header = &message.header;
            if header.check(PAYLOAD).is_err()
                || header.source().index() >= KERNELS
                || header.destination().index() >= KERNELS
            {
                self.count(Counter::Corrupt);
            } else if header.destination().index() == me {
                self.end(header, DeliveryStatus::NotFound);
            } else {
                self.handle_other(&message);
            }
        }
        self.flush_transit();
        let store = &self.fabric.transit[me];
        for position in self.transit.positions() {
            if store.next_hop(position).is_some() {
                let message = store.get(position);
                store.remove(&mut self.transit, position);
                if message.header.source().index() < KERNELS {
                    self.end(&message.header, DeliveryStatus::QueueFull);
                } else {
                    self.count(Counter::Corrupt);
                }
            }
        }
        self.parked = [0; KERNELS];
        self.lanes_in.publish(&inbox.lanes);
        self.high_in.publish(&inbox.high);
    }
}

impl<L: Platform, const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize> Drop
    for Endpoint<'_, L, KERNELS, SLOTS, PAYLOAD>
{
    fn drop(&mut self) {
        self.leave(self.leave_as);
    }
}
