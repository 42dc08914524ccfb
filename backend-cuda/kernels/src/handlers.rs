//! The handlers behind the entry points: plain kernels, which run on a host thread as well.

use bytemuck::{Pod, Zeroable};
use core::time::Duration;
use k2k_core::sync::AtomicU32;
use k2k_core::sync::Ordering::Relaxed;
use k2k_core::{
    Context, DeliveryStatus, Idle, Kernel, KernelId, Message, MessageId, Priority, ReceiptError, SendError,
};
use k2k_device::Job;

/// Kind of the messages here.
const NUMBERED: u32 = 1;

/// Sends everything back.
#[derive(Debug, Default)]
pub struct Echo;

impl<const PAYLOAD: usize> Kernel<PAYLOAD> for Echo {
    fn on_message(&mut self, context: &mut impl Context<PAYLOAD>, message: &Message<PAYLOAD>) {
        // A full inbox at the other end loses the answer, and the requester's timeout tells it so.
        let _ = context.reply(message, message);
    }
}

/// Does nothing with messages of its own: there to pass on those of others.
#[derive(Debug, Default)]
pub struct Relay;

impl<const PAYLOAD: usize> Kernel<PAYLOAD> for Relay {
    fn on_message(&mut self, _: &mut impl Context<PAYLOAD>, _: &Message<PAYLOAD>) {}
}

/// Does not return from its handler for `lasts_ns`, or ever if that is 0.
#[derive(Debug, Default)]
pub struct Hang {
    /// How long, ns.
    pub lasts_ns: u64,
}

impl<const PAYLOAD: usize> Kernel<PAYLOAD> for Hang {
    fn on_message(&mut self, context: &mut impl Context<PAYLOAD>, _: &Message<PAYLOAD>) {
        let until_ns = context.now_ns().saturating_add(self.lasts_ns);
        while self.lasts_ns == 0 || context.now_ns() < until_ns {}
    }
}

/// Payload of a numbered message, long enough to be torn if it could be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Numbered {
    /// From 0, per sender.
    pub number: u64,
    /// Follow from the number.
    pub check: [u64; 7],
}

impl Numbered {
    /// Number `number`.
    #[must_use]
    pub fn new(number: u64) -> Self {
        Self {
            number,
            check: core::array::from_fn(|i| number.wrapping_add(i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        }
    }

    /// Whether it is as it was sent.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        *self == Self::new(self.number)
    }
}

/// What a [`Source`] is told to send.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// To whom.
    pub to: KernelId,
    /// How many.
    pub count: u64,
    /// How many may be undecided at once.
    pub window: u64,
    /// Hop limit of each, or 0 for the fabric's.
    pub hop_limit: u8,
    /// How long each may take, ns, or 0 for the fabric's limit.
    pub timeout_ns: u64,
    /// Of each.
    pub priority: Priority,
    /// A word that must not be 0 for the first to go: for whoever wants to set routes before.
    pub gate: Option<&'static AtomicU32>,
}

/// Sends numbered messages, follows the receipt of each, and stops when all are decided.
#[derive(Debug)]
pub struct Source {
    order: Order,
    accepted: u64,
    decided: u64,
    /// Of the oldest message that is not decided; those after it follow without a gap.
    oldest: u64,
    tally: Tally,
}

/// How messages ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Accepted by `send`.
    pub accepted: u64,
    /// [`DeliveryStatus::Delivered`].
    pub delivered: u64,
    /// [`DeliveryStatus::NotFound`], refusals included.
    pub not_found: u64,
    /// [`DeliveryStatus::QueueFull`].
    pub queue_full: u64,
    /// [`DeliveryStatus::Timeout`].
    pub timeout: u64,
    /// [`DeliveryStatus::MaxHopsExceeded`].
    pub max_hops_exceeded: u64,
    /// Receipts that were gone when asked for, and [`DeliveryStatus::NotAllowed`].
    pub unknown: u64,
}

impl Tally {
    /// As results of an entry point.
    #[must_use]
    pub const fn values(&self) -> [u64; 7] {
        [
            self.accepted,
            self.delivered,
            self.not_found,
            self.queue_full,
            self.timeout,
            self.max_hops_exceeded,
            self.unknown,
        ]
    }

    /// From [`values`](Self::values).
    #[must_use]
    pub const fn from_values(values: [u64; 7]) -> Self {
        let [accepted, delivered, not_found, queue_full, timeout, max_hops_exceeded, unknown] = values;
        Self { accepted, delivered, not_found, queue_full, timeout, max_hops_exceeded, unknown }
    }
}

impl Source {
    /// One that carries out `order`.
    #[must_use]
    pub const fn new(order: Order) -> Self {
        let tally = Tally {
            accepted: 0,
            delivered: 0,
            not_found: 0,
            queue_full: 0,
            timeout: 0,
            max_hops_exceeded: 0,
            unknown: 0,
        };
        Self { order, accepted: 0, decided: 0, oldest: 0, tally }
    }

    /// How the messages ended so far.
    #[must_use]
    pub const fn tally(&self) -> Tally {
        self.tally
    }

    const fn is_done(&self) -> bool {
        self.accepted >= self.order.count && self.decided == self.accepted
    }

    fn step<const PAYLOAD: usize>(&mut self, context: &mut impl Context<PAYLOAD>) -> Idle {
        let (sent, followed) = (self.send(context), self.follow(context));
        if sent || followed { Idle::Again } else { Idle::Soon }
    }

    fn send<const PAYLOAD: usize>(&mut self, context: &mut impl Context<PAYLOAD>) -> bool {
        let Order { to, count, window, hop_limit, timeout_ns, priority, gate } = self.order;
        // Relaxed: publishes nothing but itself.
        if gate.is_some_and(|gate| gate.load(Relaxed) == 0) {
            return false;
        }
        self.order.gate = None;
        if self.accepted >= count || self.accepted - self.decided >= window {
            return false;
        }
        let mut message = Message::from_value(NUMBERED, &Numbered::new(self.accepted));
        message.header.hop_limit = hop_limit;
        if timeout_ns > 0 {
            message.header.deadline_ns = context.deadline_in(Duration::from_nanos(timeout_ns));
        }
        match context.send_priority(to, &message, priority) {
            Ok(id) => {
                if self.accepted == 0 {
                    self.oldest = id.sequence;
                }
                self.accepted += 1;
                self.tally.accepted += 1;
                true
            }
            Err(SendError::QueueFull { .. } | SendError::Timeout { .. }) => false,
            // There is nobody to send to (any more).
            Err(_) => {
                self.tally.not_found += count - self.accepted;
                self.order.count = self.accepted;
                true
            }
        }
    }

    fn follow<const PAYLOAD: usize>(&mut self, context: &mut impl Context<PAYLOAD>) -> bool {
        if self.decided == self.accepted {
            return false;
        }
        let id = MessageId { source: context.id(), sequence: self.oldest };
        let counter = match context.receipt(id).map(|receipt| receipt.status) {
            Ok(DeliveryStatus::Pending) => return false,
            Ok(DeliveryStatus::Delivered) => &mut self.tally.delivered,
            Ok(DeliveryStatus::NotFound) => &mut self.tally.not_found,
            Ok(DeliveryStatus::QueueFull) => &mut self.tally.queue_full,
            Ok(DeliveryStatus::Timeout) => &mut self.tally.timeout,
            Ok(DeliveryStatus::MaxHopsExceeded) => &mut self.tally.max_hops_exceeded,
            Ok(DeliveryStatus::Unanswered | DeliveryStatus::NotAllowed)
            | Err(ReceiptError::Overwritten | ReceiptError::Unknown | _) => &mut self.tally.unknown,
        };
        *counter += 1;
        self.decided += 1;
        self.oldest += 1;
        true
    }
}

impl<const PAYLOAD: usize> Kernel<PAYLOAD> for Source {
    fn on_message(&mut self, _: &mut impl Context<PAYLOAD>, _: &Message<PAYLOAD>) {}

    fn on_idle(&mut self, context: &mut impl Context<PAYLOAD>) -> Idle {
        let idle = self.step(context);
        if self.is_done() {
            context.stop();
        }
        idle
    }
}

/// Takes numbered messages, and checks that each is whole and that each sender's come in order.
#[derive(Debug)]
pub struct Sink<const SENDERS: usize> {
    next: [u64; SENDERS],
    /// Taken.
    pub received: u64,
    /// Not whole.
    pub torn: u64,
    /// Whole, but not the next of its sender.
    pub out_of_order: u64,
    /// Messages after which it stops; 0 for never.
    pub until: u64,
}

impl<const SENDERS: usize> Sink<SENDERS> {
    /// One that stops after `until` messages, or never if that is 0.
    #[must_use]
    pub const fn new(until: u64) -> Self {
        Self { next: [0; SENDERS], received: 0, torn: 0, out_of_order: 0, until }
    }

    /// As results of an entry point: received, torn, out of order.
    #[must_use]
    pub const fn values(&self) -> [u64; 7] {
        [self.received, self.torn, self.out_of_order, 0, 0, 0, 0]
    }
}

impl<const SENDERS: usize, const PAYLOAD: usize> Kernel<PAYLOAD> for Sink<SENDERS> {
    fn on_message(&mut self, context: &mut impl Context<PAYLOAD>, message: &Message<PAYLOAD>) {
        self.received += 1;
        match message.value::<Numbered>() {
            Ok(numbered) if numbered.is_whole() => {
                if let Some(next) = self.next.get_mut(message.header.source().index()) {
                    // Messages that failed on the way leave gaps; none comes twice or late.
                    self.out_of_order += u64::from(numbered.number < *next);
                    *next = numbered.number + 1;
                }
            }
            _ => self.torn += 1,
        }
        if self.received == self.until {
            context.stop();
        }
    }
}

/// Sends a message to a kernel that answers, waits for the answer, and notes how long that took; again and again.
#[derive(Debug)]
pub struct Ping<S> {
    to: KernelId,
    /// Round trips, ns, in order.
    samples: S,
    done: usize,
    sent_ns: Option<u64>,
    /// Answers that were not to the question.
    wrong: u64,
    gate: Option<&'static AtomicU32>,
}

impl<S: AsRef<[u32]> + AsMut<[u32]>> Ping<S> {
    /// One that fills `samples` and stops. It begins when the word at `gate` is not 0.
    pub const fn new(to: KernelId, samples: S, gate: Option<&'static AtomicU32>) -> Self {
        Self { to, samples, done: 0, sent_ns: None, wrong: 0, gate }
    }

    /// As results of an entry point: round trips, answers that were wrong.
    pub const fn values(&self) -> [u64; 7] {
        [self.done as u64, self.wrong, 0, 0, 0, 0, 0]
    }
}

impl<S: AsRef<[u32]> + AsMut<[u32]>, const PAYLOAD: usize> Kernel<PAYLOAD> for Ping<S> {
    fn on_message(&mut self, context: &mut impl Context<PAYLOAD>, message: &Message<PAYLOAD>) {
        let now_ns = context.now_ns();
        let Some(sent_ns) = self.sent_ns.take() else { return };
        self.wrong += u64::from(message.value() != Ok(self.done as u64));
        if let Some(sample) = self.samples.as_mut().get_mut(self.done) {
            *sample = now_ns.saturating_sub(sent_ns).min(u64::from(u32::MAX)) as u32;
        }
        self.done += 1;
        if self.done >= self.samples.as_ref().len() {
            context.stop();
        }
    }

    fn on_idle(&mut self, context: &mut impl Context<PAYLOAD>) -> Idle {
        if self.sent_ns.is_some() {
            return Idle::Done;
        }
        // Relaxed: publishes nothing but itself.
        if self.gate.is_some_and(|gate| gate.load(Relaxed) == 0) {
            return Idle::Soon;
        }
        self.gate = None;
        let now_ns = context.now_ns();
        match context.send(self.to, &Message::from_value(NUMBERED, &(self.done as u64))) {
            Ok(_) => {
                self.sent_ns = Some(now_ns);
                Idle::Done
            }
            Err(_) => Idle::Soon,
        }
    }
}

/// A source and a sink in one: for rings of kernels, and pairs that send both ways.
#[derive(Debug)]
pub struct Peer<const SENDERS: usize> {
    source: Source,
    sink: Sink<SENDERS>,
    expected: u64,
}

impl<const SENDERS: usize> Peer<SENDERS> {
    /// One that carries out `order`, takes `expected` messages, and stops when both are done.
    #[must_use]
    pub const fn new(order: Order, expected: u64) -> Self {
        Self { source: Source::new(order), sink: Sink::new(0), expected }
    }

    /// As results of an entry point: accepted, delivered, received, torn, out of order.
    #[must_use]
    pub const fn values(&self) -> [u64; 7] {
        let Tally { accepted, delivered, .. } = self.source.tally;
        [accepted, delivered, self.sink.received, self.sink.torn, self.sink.out_of_order, 0, 0]
    }
}

impl<const SENDERS: usize, const PAYLOAD: usize> Kernel<PAYLOAD> for Peer<SENDERS> {
    fn on_message(&mut self, context: &mut impl Context<PAYLOAD>, message: &Message<PAYLOAD>) {
        self.sink.on_message(context, message);
        // Mail never ends as long as others send: the own sending must not wait for an empty inbox.
        self.source.send(context);
    }

    fn on_idle(&mut self, context: &mut impl Context<PAYLOAD>) -> Idle {
        let idle = self.source.step(context);
        if self.source.is_done() && self.sink.received >= self.expected {
            context.stop();
        }
        idle
    }
}

/// Which [`Role`]. The numbers stand in launch parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum RoleKind {
    /// [`Echo`]
    Echo = 0,
    /// [`Relay`]
    Relay = 1,
    /// [`Source`]
    Source = 2,
    /// [`Sink`]
    Sink = 3,
    /// [`Peer`]
    Peer = 4,
    /// [`Ping`]
    Ping = 5,
    /// [`Hang`]
    Hang = 6,
}

impl RoleKind {
    /// The kind with that number, if there is one.
    #[must_use]
    pub const fn from_number(number: u64) -> Option<Self> {
        Some(match number {
            0 => Self::Echo,
            1 => Self::Relay,
            2 => Self::Source,
            3 => Self::Sink,
            4 => Self::Peer,
            5 => Self::Ping,
            6 => Self::Hang,
            _ => return None,
        })
    }
}

/// One of the handlers above, chosen when the kernel starts. `S` is where a ping notes its round trips.
#[derive(Debug)]
#[expect(missing_docs, reason = "each holds what it is called after")]
pub enum Role<S, const SENDERS: usize> {
    Echo(Echo),
    Relay(Relay),
    Source(Source),
    Sink(Sink<SENDERS>),
    Peer(Peer<SENDERS>),
    Ping(Ping<S>),
    Hang(Hang),
}

impl<S: AsRef<[u32]> + AsMut<[u32]>, const SENDERS: usize> Role<S, SENDERS> {
    /// The handler of that kind. A hang lasts for `order.timeout_ns`. A sink stops after `order.count` messages, or
    /// never if that is 0; a peer takes as many as it sends.
    pub fn new(kind: RoleKind, order: Order, samples: S) -> Self {
        match kind {
            RoleKind::Echo => Self::Echo(Echo),
            RoleKind::Relay => Self::Relay(Relay),
            RoleKind::Source => Self::Source(Source::new(order)),
            RoleKind::Sink => Self::Sink(Sink::new(order.count)),
            RoleKind::Peer => Self::Peer(Peer::new(order, order.count)),
            RoleKind::Ping => Self::Ping(Ping::new(order.to, samples, order.gate)),
            RoleKind::Hang => Self::Hang(Hang { lasts_ns: order.timeout_ns }),
        }
    }

    /// As results of an entry point: those of the handler, zero if it has none.
    pub const fn values(&self) -> [u64; 7] {
        match self {
            Self::Source(source) => source.tally().values(),
            Self::Sink(sink) => sink.values(),
            Self::Peer(peer) => peer.values(),
            Self::Ping(ping) => ping.values(),
            Self::Echo(_) | Self::Relay(_) | Self::Hang(_) => [0; 7],
        }
    }
}

impl<S: AsRef<[u32]> + AsMut<[u32]>, const SENDERS: usize, const PAYLOAD: usize> Kernel<PAYLOAD> for Role<S, SENDERS> {
    fn on_message(&mut self, context: &mut impl Context<PAYLOAD>, message: &Message<PAYLOAD>) {
        match self {
            Self::Echo(handler) => handler.on_message(context, message),
            Self::Relay(handler) => handler.on_message(context, message),
            Self::Source(handler) => handler.on_message(context, message),
            Self::Sink(handler) => handler.on_message(context, message),
            Self::Peer(handler) => handler.on_message(context, message),
            Self::Ping(handler) => handler.on_message(context, message),
            Self::Hang(handler) => handler.on_message(context, message),
        }
    }

    fn on_idle(&mut self, context: &mut impl Context<PAYLOAD>) -> Idle {
        match self {
            Self::Source(handler) => handler.on_idle(context),
            Self::Peer(handler) => handler.on_idle(context),
            Self::Ping(handler) => handler.on_idle(context),
            Self::Echo(_) | Self::Relay(_) | Self::Sink(_) | Self::Hang(_) => Idle::Done,
        }
    }
}

/// A job for the threads of a block: adds a number to every word of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct AddJob {
    /// Address of the array.
    pub array: u64,
    /// Words in it.
    pub len: u64,
    /// What to add.
    pub number: u64,
}

impl Job for AddJob {
    fn part(&self, member: u32, members: u32) {
        let array = self.array as *mut u64;
        for i in (u64::from(member)..self.len).step_by(members.max(1) as usize) {
            // SAFETY: whoever made the job vouches for the array; each word is one member's.
            unsafe { *array.add(i as usize) += self.number };
        }
    }
}

/// Adds the number in each message to every word of an array, and answers when that is done. `W` is who works.
#[derive(Debug)]
pub struct Adder<W> {
    array: u64,
    len: u64,
    work: W,
}

impl<W: FnMut(&AddJob)> Adder<W> {
    /// On an array of `len` words, with the work done by `work`.
    ///
    /// # Safety
    /// `array` is the address of so many words, which nobody else uses while the handler lives.
    pub const unsafe fn new(array: u64, len: u64, work: W) -> Self {
        Self { array, len, work }
    }
}

impl<W: FnMut(&AddJob), const PAYLOAD: usize> Kernel<PAYLOAD> for Adder<W> {
    fn on_message(&mut self, context: &mut impl Context<PAYLOAD>, message: &Message<PAYLOAD>) {
        if let Ok(number) = message.value::<u64>() {
            (self.work)(&AddJob { array: self.array, len: self.len, number });
            // Whoever asked can ask again.
            let _ = context.reply(message, message);
        }
    }
}
