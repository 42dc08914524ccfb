//! A gateway: what makes the kernels of another memory domain look like kernels of this one.
//!
//! Each domain (the processors of a host; one GPU) has a fabric of its own. Two of them are joined by a
//! [link](crate::link) and a gateway on each side. A gateway registers a *proxy* for every kernel of the other domain,
//! under that kernel's name. So a kernel finds, sends to and answers a kernel beyond the link as any other; names,
//! receipts, priorities, deadlines and hop limits mean the same.
//!
//! ```text
//!            host's fabric                          link                         GPU's fabric
//!   +--------------------------------+                               +--------------------------------+
//!   |  "a" --------> proxy "b" ======|==== message, a's sequence ===>|==> proxy "a" -------> "b"      |
//!   |  receipt: held, reads Pending  |                               |    receipt: Pending            |
//!   |           Delivered <----------|<--- answer -------------------|<-- receipt: Delivered          |
//!   |                                |                               |                                |
//!   |   gateway owns proxy "b"       |                               |       gateway owns proxy "a"   |
//!   +--------------------------------+                               +--------------------------------+
//! ```
//!
//! # The way of a message
//!
//! 1. The gateway takes it out of a proxy's inbox and *holds* its receipt: from here on the sender cannot time it out
//!    by itself, and the receipt reads `Pending` until the other side answers. One hop is added; hop limit and deadline
//!    are looked at as a forwarder does.
//! 2. It crosses the link, and is sent as the proxy of its source, with the times and limits that it has, and with its
//!    sequence shifted beyond all that were used at the proxy's kernel index. A destination without room makes it wait on
//!    that side, for its deadline at most; messages for other destinations overtake it.
//! 3. When that side's receipt is decided, the status goes back, ends the message's way in the domain of its sender,
//!    and is counted there by the proxy. So each fabric's counters add up by themselves.
//!
//! Each domain asks its own clock about a deadline. The two run on one scale: a device's clock is moved to the host's when
//! its kernels are launched ([`Platform`] says which clocks are meant). They need to agree as well as
//! [`GatewayConfig::grace_ns`] says, which has to cover what they drift apart by in a session. Each side's hello names its
//! clock, as its fabric's header does; where the two names differ, the sides do not meet. Silence and grace are measured by
//! this side's clock alone, which cannot be set.
//!
//! # Sequences
//!
//! A sequence of a kernel index is never used twice (see `fabric/receipt.rs`), so a proxy cannot take over its kernel's
//! sequences as they are. It adds a constant to them, chosen with the first message: that one gets a sequence above all
//! that were used at the index, and so do messages whose sequence is up to 2³² lower (they may come later, by another
//! destination or priority). One that is older still ends in `QueueFull`. A [reply](crate::Endpoint::reply) to a proxy has
//! a correlation id of the proxy's; when its message leaves the domain, the gateway takes the constant off it. Any
//! other correlation id crosses as it is.
//!
//! # Why nothing gets stuck
//!
//! At most `FRAMES` messages of each direction are on the other side undecided, and that side has a place for each of
//! them under the number that the message carries. So a gateway takes every frame out of the link in the pass that
//! finds it, whatever its fabric looks like, and an answer never waits for more than the other side's next pass. What
//! the link has no room for stays in the proxies' inboxes, where it fills its sender's lane, and so comes back as
//! `QueueFull`.
//!
//! One slow destination cannot take all of the `FRAMES`: a proxy's messages may be as many as places are still free (a
//! dynamic threshold: Choudhury and Hahne 1998). One that is stuck leaves half of them to the others, `n` leave one in
//! `n + 1`. For that, `FRAMES` should be more than the kernels on the other side. They are `SLOTS` at most, since a proxy
//! has so many records of messages that it holds.
//!
//! A message that stays undecided for so long that its sender has sent as many as it has receipts is forgotten, and
//! counted as `Unanswered` by its sender's domain, whatever becomes of it. (In one fabric, too, its receipt could not be
//! read any more.)
//!
//! # When the other side dies
//!
//! While it gives no sign of life for [`GatewayConfig::silence_ns`], nothing is sent to it: mail stays in the proxies'
//! inboxes and times out there. What was sent before and is not answered by its deadline and a grace, ends in
//! `Unanswered`, or as soon as the other side leaves or begins again. If the gateway of this side dies as well, the sender
//! or any onlooker settles these messages when the fabric's [`grace_ns`](crate::Config::grace_ns) has passed, too; the
//! successor of a proxy settles and counts at once what the proxy's records name, also where a receipt was overwritten
//! meanwhile. Such a message may have been received: no party on this side can know, so it has a status of its own.
//! `Timeout` always means that it was not, and never will be. A late answer is ignored.
//!
//! Apart from these records, the gateways keep what they know in themselves. One that starts anew on a used link says so,
//! and both sides forget the other's kernels and transfers and begin again.
//!
//! # Names
//!
//! By default all kernels but the gateway's own are announced, those that other gateways stand for included, so that
//! links can be joined in rows and trees. In a ring of links, names would chase one another after their kernel has
//! left: there, say what is [exported](Gateway::export). A kernel whose name is taken on the other side is not known
//! there. It cannot send there either: its messages end in `NotFound`. So do those of a sender that has left before the
//! gateway came to them.

mod control;
mod inward;
mod names;
mod outward;

use crate::endpoint::{Endpoint, Register, RegisterError};
use crate::fabric::{DeliveryStatus, Fabric, HeldState};
use crate::link::LinkEnd;
use crate::message::{Header, KernelId, Message, MessageId};
use crate::place::Place;
use crate::platform::Platform;
use crate::seat::Seat;
use crate::shape::Fixed;
use crate::sync::{ReachesHere, System, zeroed_in};
use control::Control;
use core::fmt;
use core::mem::{ManuallyDrop, MaybeUninit};

/// Frames, and messages of each priority, that a pass moves at most.
const BATCH: usize = 64;
/// Transfers, and held messages, that a pass looks at.
const LOOKS: usize = 256;
/// Places of the kernel table that a pass looks at.
const SCAN: usize = 4;
/// How much lower than its first message's a proxy's sequences may be.
const SEQUENCES_BACK: u64 = 1 << 32;
/// Refusals that wait for room. More are forgotten: kernels are announced again and again.
const REFUSALS: usize = 8;

/// How a gateway judges the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatewayConfig {
    /// Without a sign of life for so long, the other side counts as gone until the next one, ns. Signs are given, and
    /// kernels announced again, four times as often.
    pub silence_ns: u64,
    /// How long after its deadline a message may still be answered, ns: more than the clocks of the two domains
    /// differ, and than a pass of the other gateway takes. If this is more than the fabric's
    /// [`grace_ns`](crate::Config::grace_ns), that one counts.
    pub grace_ns: u64,
    /// Whether all kernels are announced to the other side, or those that [`Gateway::export`] names.
    pub export_all: bool,
}

impl Default for GatewayConfig {
    /// 1 s, 1 s, all.
    fn default() -> Self {
        Self { silence_ns: 1_000_000_000, grace_ns: 1_000_000_000, export_all: true }
    }
}

/// What a gateway has seen that the fabric's counters do not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct GatewayStats {
    /// Messages that this side sent into the link.
    pub sent: u64,
    /// Messages that came out of it.
    pub received: u64,
    /// Frames that made no sense, or none any more: answers that came too late are among them.
    pub rejected: u64,
    /// Kernels that were announced and could not be registered: their name was taken, or there was no place. Counted
    /// each time.
    pub refused: u64,
    /// Messages that were not answered in time. They ended in `Unanswered`, and may have been received.
    pub unanswered: u64,
    /// Hellos of a remote side whose deadlines are on another clock than this side's
    /// ([`Config::clock`](crate::Config::clock)). Nothing crosses such a link.
    pub other_clock: u64,
}

/// A kernel of the other domain, as one of this.
struct Proxy<'f, L: Platform, const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize, S: ReachesHere> {
    endpoint: Endpoint<'f, L, Fixed<KERNELS, SLOTS, PAYLOAD, S>>,
    /// Its address in the remote domain.
    remote: KernelId,
    /// The last sequence that was used here before this proxy was registered.
    before: u64,
    /// By how much a sequence here is ahead of the remote one, modulo 2⁶⁴; chosen with the first message.
    shift: Option<u64>,
    /// Over there it has left. Stays until nothing is held or outstanding.
    closed: bool,
    /// Messages to it whose answer is awaited, and where they are recorded.
    held: HeldState<SLOTS>,
    /// Messages from it that were not answered yet.
    outstanding: u32,
    /// Those of them that wait for room, per priority and destination: what comes after them waits, too.
    waiting: Waiting<KERNELS>,
}

/// The messages that wait, by destination.
#[derive(Clone, Copy)]
struct Waiting<const KERNELS: usize> {
    normal: [ForRoom; KERNELS],
    high: [ForRoom; KERNELS],
}

/// The messages of one sender that wait for room at one destination.
#[derive(Clone, Copy)]
struct ForRoom {
    count: u16,
    /// Number of the last look in which one of them had to stay.
    stuck_in: u16,
}

impl<const KERNELS: usize> Waiting<KERNELS> {
    const NONE: Self = Self { normal: [ForRoom::NONE; KERNELS], high: [ForRoom::NONE; KERNELS] };

    const fn of(&mut self, high: bool) -> &mut [ForRoom; KERNELS] {
        if high { &mut self.high } else { &mut self.normal }
    }
}

impl ForRoom {
    const NONE: Self = Self { count: 0, stuck_in: 0 };
}

/// A message that is on the other side.
#[derive(Clone, Copy)]
struct Away<const SLOTS: usize> {
    state: AwayState,
    id: MessageId,
    deadline_ns: u64,
    /// Of the proxy that it was for.
    place: u16,
    hops: u8,
    /// Where the proxy has recorded it.
    record: Place<SLOTS>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum AwayState {
    Free,
    /// The answer decides.
    Sent,
    /// Ended without an answer. Its number is not used again before the other side has said that it is free.
    Expired,
}

impl<const SLOTS: usize> Away<SLOTS> {
    const FREE: Self = Self {
        state: AwayState::Free,
        id: MessageId { source: KernelId::NONE, sequence: 0 },
        deadline_ns: 0,
        place: 0,
        hops: 0,
        record: Place::FIRST,
    };
}

/// A message from the other side.
#[derive(Clone, Copy)]
struct Transfer {
    state: TransferState,
    /// As the other side knows it.
    id: MessageId,
    /// Of its source's proxy; beyond the table if there is none.
    place: u16,
    /// Index, which has been checked if the message waits.
    destination: u16,
    /// The one that waits behind it; beyond the numbers if there is none.
    next: u16,
    high: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum TransferState {
    Free,
    /// For room.
    Waiting,
    /// Sent in this domain.
    Sent,
    /// To be answered.
    Decided(DeliveryStatus),
}

impl Transfer {
    const FREE: Self = Self {
        state: TransferState::Free,
        id: MessageId { source: KernelId::NONE, sequence: 0 },
        place: u16::MAX,
        destination: 0,
        next: u16::MAX,
        high: false,
    };
}

/// Messages that wait, in a row: each has the number of the one behind it.
#[derive(Clone, Copy)]
struct Line<const FRAMES: usize> {
    first: Option<Place<FRAMES>>,
    last: Option<Place<FRAMES>>,
    /// A look at all of them has come to here: this one stays.
    kept: Option<Place<FRAMES>>,
    /// Number of the look.
    look: u16,
}

impl<const FRAMES: usize> Line<FRAMES> {
    const EMPTY: Self = Self { first: None, last: None, kept: None, look: 1 };

    const fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Puts a message at the end.
    fn push(&mut self, transfers: &mut [Transfer; FRAMES], number: Place<FRAMES>) {
        match self.last {
            Some(last) => transfers[last].next = number.index() as u16,
            None => self.first = Some(number),
        }
        self.last = Some(number);
        transfers[number].next = u16::MAX;
    }

    /// The message that the look has come to. At the end, `None`, and the next look begins.
    fn look(&mut self, transfers: &[Transfer; FRAMES]) -> Option<Place<FRAMES>> {
        let next = match self.kept {
            Some(kept) => Place::new(transfers[kept].next as usize),
            None => self.first,
        };
        if next.is_none() {
            self.kept = None;
            self.look = self.look.wrapping_add(1);
        }
        next
    }

    /// The message that the look has come to stays.
    const fn keep(&mut self, number: Place<FRAMES>) {
        self.kept = Some(number);
    }

    /// The message that the look has come to goes.
    fn remove(&mut self, transfers: &mut [Transfer; FRAMES], number: Place<FRAMES>) {
        let next = transfers[number].next;
        match self.kept {
            Some(kept) => transfers[kept].next = next,
            None => self.first = Place::new(next as usize),
        }
        if self.last == Some(number) {
            self.last = self.kept;
        }
    }
}

/// What the other side knows of a place of this side's table.
#[derive(Clone, Copy)]
struct Export {
    /// Who was announced.
    id: KernelId,
    announced_ns: u64,
    refused: bool,
    /// Seen to have left, one look ago: its last messages may still be in a proxy's inbox.
    gone: bool,
}

impl Export {
    const NONE: Self = Self { id: KernelId::NONE, announced_ns: 0, refused: false, gone: false };
}

/// One side's carrier between its fabric and a link. See the [module's page](self).
///
/// Drive it by [`pass`](Self::pass), on a thread or a GPU block of its own or together with other work. It cannot sleep
/// at a wake flag: the remote side has no way to wake it. Dropping it takes leave of the other side.
///
/// It is large: a proxy's endpoint per place of the table, and a message per frame of the link. Where there is little
/// stack, make it [in place](Self::new_in).
///
/// ```
/// use k2k_core::gateway::{Gateway, GatewayConfig};
/// use k2k_core::{Config, WakeFlag, Fabric, LinkEnd, LinkHalf, Message, Platform, Register};
///
/// # #[derive(Clone, Copy)]
/// # struct Clock;
/// # impl Platform for Clock {
/// #     fn now_ns(&self) -> u64 { 1 }
/// #     fn wake(&self, _: &WakeFlag) {}
/// # }
/// static NEAR: Fabric<4, 8, 64> = Fabric::new();
/// static FAR: Fabric<4, 8, 64> = Fabric::new();
/// static HALVES: [LinkHalf<8, 64>; 2] = [LinkHalf::new(), LinkHalf::new()];
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// for fabric in [&NEAR, &FAR] {
///     fabric.init(&Config::default())?;
/// }
/// for half in &HALVES {
///     half.set_up()?;
/// }
/// let [near, far] = &HALVES;
/// let who = Register::new("gateway")?;
/// // SAFETY: two halves, one link, one end on each side.
/// let (here, there) = unsafe { (LinkEnd::open(near, far)?, LinkEnd::open(far, near)?) };
/// let mut here = Gateway::new(NEAR.register(&who, Clock)?, here, GatewayConfig::default());
/// let mut there = Gateway::new(FAR.register(&who, Clock)?, there, GatewayConfig::default());
///
/// let mut a = NEAR.register(&Register::new("a")?, Clock)?;
/// let mut b = FAR.register(&Register::new("b")?, Clock)?;
/// # let mut pass = || while here.pass() | there.pass() {};
/// // On two threads: `loop { here.pass(); }` and `loop { there.pass(); }`.
/// pass();
/// let to = NEAR.find("b").expect("announced by the other side");
/// let id = a.send(to, &Message::from_bytes(1, b"over there?")?)?;
/// pass();
/// let request = b.try_receive().expect("carried across");
/// b.reply(&request, &Message::from_bytes(2, b"here!")?)?;
/// pass();
/// let answer = a.try_receive().expect("carried back");
/// assert_eq!((answer.payload(), answer.header.correlation_id), (&b"here!"[..], id.sequence));
/// # Ok(()) }
/// ```
pub struct Gateway<
    'f,
    'l,
    L: Platform + Clone,
    const KERNELS: usize,
    const SLOTS: usize,
    const PAYLOAD: usize,
    const FRAMES: usize,
    S: ReachesHere = System,
> {
    endpoint: Endpoint<'f, L, Fixed<KERNELS, SLOTS, PAYLOAD, S>>,
    /// Dropped by `Gateway::drop`, but not in a forked process.
    link: ManuallyDrop<LinkEnd<'l, FRAMES, PAYLOAD>>,
    config: GatewayConfig,
    stats: GatewayStats,
    /// Whether the other side has said hello, and not left since.
    met: bool,
    /// How many of its messages back a sender over there can ask for a receipt.
    far_receipts: u64,
    /// What to say before anything else: a hello, as a reply or not.
    greeting: Option<bool>,
    /// The other side's last sign of life, and when it was seen.
    far_beat: (u64, u64),
    /// When this side gave its last one.
    beat_ns: Option<u64>,
    /// By place.
    proxies: [Seat<Proxy<'f, L, KERNELS, SLOTS, PAYLOAD, S>>; KERNELS],
    /// Where the proxy of a kernel was found last, by the low part of its index over there. A hint.
    hints: [Place<KERNELS>; KERNELS],
    exports: [Export; KERNELS],
    /// What may be exported, by place, if not all.
    listed: [KernelId; KERNELS],
    refusals: [KernelId; REFUSALS],
    refusal_count: usize,
    /// By number of transfer, as chosen here.
    away: [Away<SLOTS>; FRAMES],
    free: [Place<FRAMES>; FRAMES],
    free_count: usize,
    /// By number of transfer, as chosen over there.
    transfers: [Transfer; FRAMES],
    transfer_count: usize,
    /// Those that wait for room, in the order of their arrival, and their messages.
    waiting: Line<FRAMES>,
    bodies: [Message<PAYLOAD>; FRAMES],
    /// The message in hand, on its way out.
    message: Message<PAYLOAD>,
    /// The header in hand, which has come in. Here, like the message, and not in a variable: what is lent to a call has to
    /// be in memory, and that of a thread is dear on a GPU.
    incoming: Header,
    next_proxy: Place<KERNELS>,
    next_place: Place<KERNELS>,
    next_away: Place<FRAMES>,
    next_transfer: Place<FRAMES>,
}

impl<
    L: Platform + Clone,
    const KERNELS: usize,
    const SLOTS: usize,
    const PAYLOAD: usize,
    const FRAMES: usize,
    S: ReachesHere,
> fmt::Debug for Gateway<'_, '_, L, KERNELS, SLOTS, PAYLOAD, FRAMES, S>
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("id", &self.endpoint.id()).field("stats", &self.stats).finish_non_exhaustive()
    }
}

impl<
    'f,
    'l,
    L: Platform + Clone,
    const KERNELS: usize,
    const SLOTS: usize,
    const PAYLOAD: usize,
    const FRAMES: usize,
    S: ReachesHere,
> Gateway<'f, 'l, L, KERNELS, SLOTS, PAYLOAD, FRAMES, S>
{
    /// A gateway between the fabric of `endpoint`, which is the gateway's own, and `link`.
    #[must_use]
    pub fn new(
        endpoint: Endpoint<'f, L, Fixed<KERNELS, SLOTS, PAYLOAD, S>>,
        link: LinkEnd<'l, FRAMES, PAYLOAD>,
        config: GatewayConfig,
    ) -> Self {
        let mut place = MaybeUninit::uninit();
        Self::new_in(&mut place, endpoint, link, config);
        // SAFETY: `new_in` has initialised it.
        unsafe { place.assume_init() }
    }

    /// As [`new`](Self::new), in memory of the caller's. Who wants the gateway to take its leave drops it there.
    pub fn new_in<'p>(
        place: &'p mut MaybeUninit<Self>,
        endpoint: Endpoint<'f, L, Fixed<KERNELS, SLOTS, PAYLOAD, S>>,
        link: LinkEnd<'l, FRAMES, PAYLOAD>,
        config: GatewayConfig,
    ) -> &'p mut Self {
        // SAFETY: a valid place for the endpoint.
        unsafe { (&raw mut (*place.as_mut_ptr()).endpoint).write(endpoint) };
        // SAFETY: written above.
        unsafe { Self::with_endpoint(place, link, config) }
    }

    /// As [`new_in`](Self::new_in), with an endpoint [registered](Fabric::register_at) there, so that nothing large is
    /// moved.
    ///
    /// # Errors
    /// As for `register_at`.
    pub fn register_at_in<'p>(
        place: &'p mut MaybeUninit<Self>,
        (fabric, index): (&'f Fabric<KERNELS, SLOTS, PAYLOAD, S>, usize),
        who: &Register,
        platform: L,
        link: LinkEnd<'l, FRAMES, PAYLOAD>,
        config: GatewayConfig,
    ) -> Result<&'p mut Self, RegisterError> {
        // SAFETY: a valid place for the endpoint, initialised or not.
        let endpoint = unsafe { &mut *(&raw mut (*place.as_mut_ptr()).endpoint).cast() };
        fabric.register_at_in(endpoint, index, who, platform)?;
        // SAFETY: written above.
        Ok(unsafe { Self::with_endpoint(place, link, config) })
    }

    /// # Safety
    /// `endpoint` is initialised.
    unsafe fn with_endpoint<'p>(
        place: &'p mut MaybeUninit<Self>,
        link: LinkEnd<'l, FRAMES, PAYLOAD>,
        config: GatewayConfig,
    ) -> &'p mut Self {
        let to = place.as_mut_ptr();
        // SAFETY: `to` is valid for a `Self`; every field is written but the endpoint, which is already, and only that
        // is read.
        unsafe {
            let far_beat = (link.far_beat(), (*to).endpoint.platform().now_ns());
            // The sender waits for that long at most.
            let grace_ns = config.grace_ns.min((*to).endpoint.fabric().config().grace_ns);
            let config = GatewayConfig { grace_ns, ..config };
            (&raw mut (*to).link).write(ManuallyDrop::new(link));
            (&raw mut (*to).config).write(config);
            (&raw mut (*to).stats).write(GatewayStats::default());
            (&raw mut (*to).met).write(false);
            (&raw mut (*to).far_receipts).write(0);
            (&raw mut (*to).greeting).write(Some(false));
            (&raw mut (*to).far_beat).write(far_beat);
            (&raw mut (*to).beat_ns).write(None);
            for place in Place::<KERNELS>::all() {
                let i = place.index();
                let proxies =
                    (&raw mut (*to).proxies).cast::<MaybeUninit<Seat<Proxy<'f, L, KERNELS, SLOTS, PAYLOAD, S>>>>();
                Seat::empty_in(&mut *proxies.add(i));
                (&raw mut (*to).hints).cast::<Place<KERNELS>>().add(i).write(Place::FIRST);
                (&raw mut (*to).exports).cast::<Export>().add(i).write(Export::NONE);
                (&raw mut (*to).listed).cast::<KernelId>().add(i).write(KernelId::NONE);
            }
            (&raw mut (*to).refusals).write([KernelId::NONE; REFUSALS]);
            (&raw mut (*to).refusal_count).write(0);
            for place in Place::<FRAMES>::all() {
                let i = place.index();
                (&raw mut (*to).away).cast::<Away<SLOTS>>().add(i).write(Away::FREE);
                (&raw mut (*to).free).cast::<Place<FRAMES>>().add(i).write(place);
                (&raw mut (*to).transfers).cast::<Transfer>().add(i).write(Transfer::FREE);
            }
            (&raw mut (*to).free_count).write(FRAMES);
            (&raw mut (*to).transfer_count).write(0);
            (&raw mut (*to).waiting).write(Line::EMPTY);
            zeroed_in::<[Message<PAYLOAD>; FRAMES]>(&mut *(&raw mut (*to).bodies).cast());
            zeroed_in::<Message<PAYLOAD>>(&mut *(&raw mut (*to).message).cast());
            (&raw mut (*to).incoming).write(bytemuck::Zeroable::zeroed());
            (&raw mut (*to).next_proxy).write(Place::FIRST);
            (&raw mut (*to).next_place).write(Place::FIRST);
            (&raw mut (*to).next_away).write(Place::FIRST);
            (&raw mut (*to).next_transfer).write(Place::FIRST);
        }
        // SAFETY: every field was written.
        let gateway = unsafe { place.assume_init_mut() };
        // The compiler would miss a new field here.
        let Self {
            endpoint: _,
            link: _,
            config: _,
            stats: _,
            met: _,
            far_receipts: _,
            greeting: _,
            far_beat: _,
            beat_ns: _,
            proxies: _,
            hints: _,
            exports: _,
            listed: _,
            refusals: _,
            refusal_count: _,
            away: _,
            free: _,
            free_count: _,
            transfers: _,
            transfer_count: _,
            waiting: _,
            bodies: _,
            message: _,
            incoming: _,
            next_proxy: _,
            next_place: _,
            next_away: _,
            next_transfer: _,
        } = &*gateway;
        gateway
    }

    /// The gateway's own kernel: for its name, its counters, and what a supervisor tells it.
    pub const fn endpoint(&mut self) -> &mut Endpoint<'f, L, Fixed<KERNELS, SLOTS, PAYLOAD, S>> {
        &mut self.endpoint
    }

    /// What it has done.
    #[must_use]
    pub const fn stats(&self) -> GatewayStats {
        self.stats
    }

    /// Whether the other side is there: it has said hello, and has given a sign of life not too long ago.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.met && self.endpoint.platform().now_ns().saturating_sub(self.far_beat.1) <= self.config.silence_ns
    }

    /// Messages of this side whose fate is not known yet, and of the other side that were not answered yet. When both
    /// are 0, no message is lost by dropping the gateway.
    #[must_use]
    pub const fn in_flight(&self) -> (usize, usize) {
        (FRAMES - self.free_count, self.transfer_count)
    }

    /// The kernels of the other side that are known here: the address of each in this fabric and in its own.
    pub fn proxies(&self) -> impl Iterator<Item = (KernelId, KernelId)> + '_ {
        self.proxies.iter().filter_map(Seat::as_ref).filter(|p| !p.closed).map(|p| (p.endpoint.id(), p.remote))
    }

    /// Lets the other side know a kernel, where not [all](GatewayConfig::export_all) are. It stays so until the kernel
    /// leaves.
    pub fn export(&mut self, id: KernelId) {
        if let Some(listed) = self.listed.get_mut(id.index()) {
            *listed = id;
        }
    }

    /// Takes an [export](Self::export) back.
    pub fn withdraw(&mut self, id: KernelId) {
        if let Some(listed) = self.listed.get_mut(id.index())
            && *listed == id
        {
            *listed = KernelId::NONE;
        }
    }

    /// Carries what there is to carry, a bounded amount of it. `true` if something was done: come again at once.
    pub fn pass(&mut self) -> bool {
        if !self.endpoint.may_write() {
            return false;
        }
        let now_ns = self.endpoint.platform().now_ns();
        self.endpoint.beat();
        self.beat(now_ns);
        let mut worked = self.greet();
        worked |= self.receive_frames(false);
        worked |= self.retry();
        // Before the messages, which must not take their room.
        worked |= self.answer();
        worked |= self.refuse();
        worked |= self.send_frames();
        worked |= self.announce(now_ns);
        worked |= self.expire(now_ns);
        worked | (self.endpoint.poll() > 0)
    }

    #[inline(never)]
    fn beat(&mut self, now_ns: u64) {
        let seen = self.link.far_beat();
        if seen != self.far_beat.0 {
            self.far_beat = (seen, now_ns);
        }
        let due = self.beat_ns.is_none_or(|last_ns| now_ns.saturating_sub(last_ns) >= self.config.silence_ns / 4);
        if due {
            self.beat_ns = Some(now_ns);
            self.link.beat();
        }
    }

    fn greet(&mut self) -> bool {
        let Some(reply) = self.greeting else { return false };
        let clock = self.endpoint.fabric().config().clock;
        let said = self.link.push_header(&Control::Hello { reply, receipts: (KERNELS * SLOTS) as u64, clock }.encode());
        if said {
            self.greeting = None;
        }
        said
    }

    /// Whether `frames` can be pushed now.
    fn has_room(&mut self, frames: u64) -> bool {
        self.greeting.is_none() && self.link.room(frames) >= frames
    }

    #[inline(never)]
    fn say(&mut self, control: &Control) -> bool {
        self.say_here(control)
    }

    /// As [`say`](Self::say), written out where it stands: for what is said once per message.
    #[inline(always)]
    fn say_here(&mut self, control: &Control) -> bool {
        self.greeting.is_none() && self.link.push_header(&control.encode())
    }
}

impl<
    L: Platform + Clone,
    const KERNELS: usize,
    const SLOTS: usize,
    const PAYLOAD: usize,
    const FRAMES: usize,
    S: ReachesHere,
> Drop for Gateway<'_, '_, L, KERNELS, SLOTS, PAYLOAD, FRAMES, S>
{
    /// Answers what can be answered, and says goodbye. Messages whose fate is not known end in `Unanswered`; mail for the
    /// proxies ends in `NotFound`. A copy in a forked process does nothing.
    fn drop(&mut self) {
        if !self.endpoint.may_write() {
            return;
        }
        for transfer in self.transfers.iter_mut().filter(|transfer| transfer.state == TransferState::Waiting) {
            // It was not sent in this domain, and will not be.
            transfer.state = TransferState::Decided(DeliveryStatus::NotFound);
        }
        for _ in 0..FRAMES.div_ceil(BATCH) {
            self.receive_frames(true);
        }
        for _ in 0..FRAMES.div_ceil(LOOKS) {
            self.answer();
        }
        if self.met {
            self.say(&Control::Bye);
        }
        for number in Place::all() {
            if self.away[number].state == AwayState::Sent {
                self.settle(number, DeliveryStatus::Unanswered);
            }
        }
        // SAFETY: it is not used after this, and nothing else drops it.
        unsafe { ManuallyDrop::drop(&mut self.link) };
    }
}

#[cfg(all(test, not(k2k_loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_looked_at_in_turn_and_stays_in_order() {
        const FRAMES: usize = 4;
        let number = |n| Place::<FRAMES>::new(n).unwrap();
        let (mut transfers, mut line) = ([Transfer::FREE; FRAMES], Line::EMPTY);
        [2, 0, 3].into_iter().for_each(|n| line.push(&mut transfers, number(n)));
        // The first stays, the second goes, another one comes in the middle of the look.
        assert_eq!(line.look(&transfers), Some(number(2)));
        line.keep(number(2));
        assert_eq!(line.look(&transfers), Some(number(0)));
        line.remove(&mut transfers, number(0));
        line.push(&mut transfers, number(1));
        let look = line.look;
        for n in [3, 1] {
            assert_eq!(line.look(&transfers), Some(number(n)));
            line.keep(number(n));
        }
        assert_eq!((line.look(&transfers), line.look == look), (None, false));
        // All go, and one comes back.
        for n in [2, 3, 1] {
            assert_eq!(line.look(&transfers), Some(number(n)));
            line.remove(&mut transfers, number(n));
        }
        assert!(line.is_empty() && line.look(&transfers).is_none());
        line.push(&mut transfers, number(1));
        assert_eq!(line.look(&transfers), Some(number(1)));
    }
}
