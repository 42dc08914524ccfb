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
//!   |  receipt: in transit, "Pending"|                               |    receipt: Pending            |
//!   |           Delivered <----------|<--- answer -------------------|<-- receipt: Delivered          |
//!   |                                |                               |                                |
//!   |   gateway owns proxy "b"       |                               |       gateway owns proxy "a"   |
//!   +--------------------------------+                               +--------------------------------+
//! ```
//!
//! # The way of a message
//!
//! 1. The gateway takes it out of a proxy's inbox and marks its receipt as *in transit*: from here on the sender cannot
//!    time it out by itself, and the receipt reads `Pending` until the remote side answers. One hop is added; hop limit
//!    and deadline are looked at as a forwarder does.
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
//! At most `FRAMES` messages of each direction are on the remote side undecided, and that side has room for each of
//! them under the number that the message carries. So a gateway takes every frame out of the link in the pass that
//! finds it, whatever its fabric looks like, and an answer never waits for more than the remote side's next pass. What
//! the link has no room for stays in the proxies' inboxes, where it fills its sender's shard, and so comes back as
//! `QueueFull`.
//!
//! One slow destination cannot take all of the `FRAMES`: a proxy's messages may be as many as frames are still free (a
//! dynamic threshold: Choudhury and Hahne 1998). One that is stuck leaves half of them to the others, `n` leave one in
//! `n + 1`. For that, `FRAMES` should be more than the kernels on the remote side. They are `SLOTS` at most, since a
//! proxy has so many records of messages that it holds.
//!
//! A message that stays undecided for so long that its sender has sent as many as it has receipts is forgotten, and
//! counted as `Unanswered` by its sender's domain, whatever becomes of it. (In one fabric, too, its receipt could not be
//! read any more.)
//!
//! A message whose payload is longer than a frame of the link, or than a message of the remote fabric, ends in
//! `QueueFull`: there never is room for it. That can only be where shapes are read at run time.
//!
//! # When the remote side dies
//!
//! While it gives no sign of life for [`GatewayConfig::silence_ns`], nothing is sent to it: mail stays in the proxies'
//! inboxes and times out there. What was sent before and is not answered by its deadline and a grace, ends in
//! `Unanswered`, or as soon as the remote side leaves or begins again. If the gateway of this side dies as well, the
//! sender or any onlooker settles these messages when the fabric's [`grace_ns`](crate::Config::grace_ns) has passed,
//! too; the successor of a proxy settles and counts at once what the proxy's records name, also where a receipt was
//! overwritten meanwhile. Such a message may have been received: no party on this side can know, so it has a status of
//! its own. `Timeout` always means that it was not, and never will be. A late answer is ignored.
//!
//! Apart from these records, the gateways keep what they know in themselves. One that starts anew on a used link says so,
//! and both sides forget the other's kernels and transfers and begin again.
//!
//! # Names
//!
//! By default all kernels but the gateway's own are announced, other gateways' proxies included, so that
//! links can be joined in rows and trees. In a ring of links, names would chase one another after their kernel has
//! left: there, say what is [exported](Gateway::export). A kernel whose name is in use on the remote side is not known
//! there. It cannot send there either: its messages end in `NotFound`. So do those of a sender that has left before the
//! gateway came to them.
//!
//! # Rooms
//!
//! Each type owns its fields; this page has the pass, which leads a frame from one to the next.
//!
//! | file | type | has |
//! | --- | --- | --- |
//! | `control.rs` | `Control` | the frames between gateways |
//! | `peer.rs` | `Peer` | the link, hellos and heartbeats |
//! | `proxies.rs` | `Proxies`, `Proxy` | remote kernels in this domain |
//! | `exports.rs` | `Exports` | the kernels of this domain that were announced |
//! | `outgoing.rs` | `Outgoing` | messages that wait for an answer |
//! | `incoming.rs`, `line.rs` | `Incoming`, `Line` | messages that were not answered yet, and those of them that wait for room |
//! | `free.rs` | `FreeList` | which numbers of transfers, and which records, are free |

mod control;
mod exports;
mod free;
mod incoming;
mod line;
mod outgoing;
mod peer;
mod proxies;

use crate::endpoint::{Endpoint, RegisterError, Registration};
use crate::fabric::FabricRef;
use crate::in_place::make_in;
use crate::link::LinkEnd;
use crate::message::KernelId;
use crate::platform::Platform;
use crate::shape::{Index, Shape};
use crate::sync::ReachesHere;
use control::{Control, answer};
use core::fmt;
use core::mem::MaybeUninit;
use exports::Exports;
use incoming::Incoming;
use outgoing::{Outgoing, Sending};
use peer::{Hello, Peer};
use proxies::Proxies;

/// Frames, and messages of each priority, that a pass moves at most.
const BATCH: usize = 64;
/// Transfers, and outstanding messages, that a pass looks at.
const LOOKS: usize = 256;
/// Indices of the kernel table that a pass looks at.
const SCAN: usize = 4;
/// How much lower than its first message's a proxy's sequences may be.
const SEQUENCES_BACK: u64 = 1 << 32;

/// How a gateway judges the remote side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatewayConfig {
    /// Without a sign of life for so long, the remote side counts as gone until the next one, ns. Signs are given, and
    /// kernels announced again, four times as often.
    pub silence_ns: u64,
    /// How long after its deadline a message may still be answered, ns: more than the clocks of the two domains
    /// differ, and than a pass of the other gateway takes. If this is more than the fabric's
    /// [`grace_ns`](crate::Config::grace_ns), that one counts.
    pub grace_ns: u64,
    /// Whether all kernels are announced to the remote side, or those that [`Gateway::export`] names.
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
    /// Kernels that were announced and could not be registered: their name was in use, or no index was free. Counted
    /// each time.
    pub refused: u64,
    /// Messages that were not answered in time. They ended in `Unanswered`, and may have been received.
    pub unanswered: u64,
    /// Hellos of a remote side whose deadlines are on another clock than this side's
    /// ([`Config::clock`](crate::Config::clock)). Nothing crosses such a link.
    pub other_clock: u64,
}

/// One side's carrier between its fabric and a link. See the [module's page](self).
///
/// Drive it by [`pass`](Self::pass), on a thread or a GPU block of its own or together with other work. It cannot sleep
/// at a wake flag: the remote side has no way to wake it. Dropping it takes leave of the remote side.
///
/// It is large: a proxy's endpoint per index of the table, and a message per frame of the link. Where there is little
/// stack, make it [in place](Self::new_in).
///
/// ```
/// use k2k_core::gateway::{Gateway, GatewayConfig};
/// use k2k_core::{Config, WakeFlag, Fabric, LinkEnd, LinkHalf, Message, Platform, Registration};
///
/// # #[derive(Clone, Copy)]
/// # struct Clock;
/// # impl Platform for Clock {
/// #     fn now_ns(&self) -> u64 { 1 }
/// #     fn wake(&self, _: &WakeFlag) {}
/// # }
/// static LOCAL: Fabric<4, 8, 64> = Fabric::new();
/// static REMOTE: Fabric<4, 8, 64> = Fabric::new();
/// static HALVES: [LinkHalf<8, 64>; 2] = [LinkHalf::new(), LinkHalf::new()];
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// for fabric in [&LOCAL, &REMOTE] {
///     fabric.init(&Config::default())?;
/// }
/// for half in &HALVES {
///     half.set_up()?;
/// }
/// let [first, second] = &HALVES;
/// let who = Registration::new("gateway")?;
/// // SAFETY: two halves, one link, one end on each side.
/// let (local, remote) = unsafe { (LinkEnd::open(first.handle(), second.handle())?, LinkEnd::open(second.handle(), first.handle())?) };
/// let mut local = Gateway::new(LOCAL.register(&who, Clock)?, local, GatewayConfig::default());
/// let mut remote = Gateway::new(REMOTE.register(&who, Clock)?, remote, GatewayConfig::default());
///
/// let mut a = LOCAL.register(&Registration::new("a")?, Clock)?;
/// let mut b = REMOTE.register(&Registration::new("b")?, Clock)?;
/// # let mut pass = || while local.pass() | remote.pass() {};
/// // On two threads: `loop { local.pass(); }` and `loop { remote.pass(); }`.
/// pass();
/// let to = LOCAL.find("b").expect("announced by the remote side");
/// let id = a.send(to, &Message::from_bytes(1, b"remote?")?)?;
/// pass();
/// let request = b.try_receive().expect("carried across");
/// b.reply(&request, &Message::from_bytes(2, b"here!")?)?;
/// pass();
/// let answer = a.try_receive().expect("carried back");
/// assert_eq!((answer.payload(), answer.header.correlation_id), (&b"here!"[..], id.sequence));
/// # Ok(()) }
/// ```
pub struct Gateway<'f, P: Platform + Clone, Sh: Shape, const FRAMES: usize> {
    endpoint: Endpoint<'f, P, Sh>,
    peer: Peer<'f, Sh::Frames<FRAMES>>,
    proxies: Proxies<'f, P, Sh, FRAMES>,
    exports: Exports<Sh>,
    outgoing: Outgoing<Sh::Item, FRAMES>,
    incoming: Incoming<Sh::Item, FRAMES>,
}

impl<P: Platform + Clone, Sh: Shape, const FRAMES: usize> fmt::Debug for Gateway<'_, P, Sh, FRAMES> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("id", &self.endpoint.id()).field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl<'f, P: Platform + Clone, Sh: Shape, const FRAMES: usize> Gateway<'f, P, Sh, FRAMES> {
    /// A gateway between the fabric of `endpoint`, which is the gateway's own, and `link`.
    #[must_use]
    pub fn new(endpoint: Endpoint<'f, P, Sh>, link: LinkEnd<'f, Sh::Frames<FRAMES>>, config: GatewayConfig) -> Self {
        let mut place = MaybeUninit::uninit();
        Self::new_in(&mut place, endpoint, link, config);
        // SAFETY: `new_in` has initialised it.
        unsafe { place.assume_init() }
    }

    /// As [`new`](Self::new), in memory of the caller's. Who wants the gateway to take its leave drops it there.
    pub fn new_in<'p>(
        place: &'p mut MaybeUninit<Self>,
        endpoint: Endpoint<'f, P, Sh>,
        link: LinkEnd<'f, Sh::Frames<FRAMES>>,
        config: GatewayConfig,
    ) -> &'p mut Self {
        // SAFETY: a valid place for the endpoint.
        unsafe { (&raw mut (*place.as_mut_ptr()).endpoint).write(endpoint) };
        // SAFETY: written above.
        unsafe { Self::with_endpoint(place, link, config) }
    }

    /// As [`new_in`](Self::new_in), with an endpoint [registered](FabricRef::register) there, so that nothing large is
    /// moved.
    ///
    /// # Errors
    /// As for `register`.
    pub fn register_in<'p>(
        place: &'p mut MaybeUninit<Self>,
        fabric: FabricRef<'f, Sh>,
        who: &Registration,
        platform: P,
        link: LinkEnd<'f, Sh::Frames<FRAMES>>,
        config: GatewayConfig,
    ) -> Result<&'p mut Self, RegisterError>
    where
        Sh::Scope: ReachesHere,
    {
        // SAFETY: a valid place for the endpoint, initialised or not.
        let endpoint = unsafe { &mut *(&raw mut (*place.as_mut_ptr()).endpoint).cast() };
        fabric.register_in(endpoint, who, platform)?;
        // SAFETY: written above.
        Ok(unsafe { Self::with_endpoint(place, link, config) })
    }

    /// # Safety
    /// `endpoint` is initialised.
    unsafe fn with_endpoint<'p>(
        place: &'p mut MaybeUninit<Self>,
        link: LinkEnd<'f, Sh::Frames<FRAMES>>,
        config: GatewayConfig,
    ) -> &'p mut Self {
        // SAFETY: the caller's promise.
        let endpoint = unsafe { &(*place.as_ptr()).endpoint };
        let (fabric, now_ns) = (endpoint.fabric(), endpoint.platform().now_ns());
        let (shape, fabric_config) = (fabric.shape(), fabric.config());
        let hello = Hello { receipts: shape.receipts(), clock: fabric_config.clock };
        let GatewayConfig { silence_ns, grace_ns, export_all } = config;
        // The sender waits for that long at most.
        let grace_ns = grace_ns.min(fabric_config.grace_ns);
        make_in!(place, Self {
            // SAFETY: the caller's promise.
            endpoint => |at| unsafe { at.assume_init_mut() },
            peer: Peer::new(link, hello, silence_ns, now_ns),
            proxies => |at| Proxies::new_in(at, shape),
            exports => |at| Exports::new_in(at, shape, export_all, silence_ns / 4),
            outgoing => |at| Outgoing::new_in(at, grace_ns),
            incoming => Incoming::new_in,
        })
    }

    /// The gateway's own kernel: for its name, its counters, and what a supervisor tells it.
    pub const fn endpoint(&mut self) -> &mut Endpoint<'f, P, Sh> {
        &mut self.endpoint
    }

    /// What it has done.
    #[must_use]
    pub const fn stats(&self) -> GatewayStats {
        GatewayStats {
            sent: self.outgoing.sent(),
            received: self.incoming.received(),
            rejected: self.incoming.rejected(),
            refused: self.proxies.refused(),
            unanswered: self.outgoing.unanswered(),
            other_clock: self.peer.other_clock(),
        }
    }

    /// Whether the remote side is there: it has said hello, and has given a sign of life not too long ago.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.peer.is_connected(self.endpoint.platform().now_ns())
    }

    /// Messages of this side whose fate is not known yet, and of the remote side that were not answered yet. When both
    /// are 0, no message is lost by dropping the gateway.
    #[must_use]
    pub const fn in_flight(&self) -> (usize, usize) {
        (self.outgoing.len(), self.incoming.len())
    }

    /// The kernels of the remote side that are known here: the address of each in this fabric and in its own.
    pub fn proxies(&self) -> impl Iterator<Item = (KernelId, KernelId)> + '_ {
        self.proxies.iter().filter(|p| !p.closed).map(|p| (p.endpoint.id(), p.remote))
    }

    /// Lets the remote side know a kernel, where not [all](GatewayConfig::export_all) are. It stays so until the kernel
    /// leaves.
    pub fn export(&mut self, id: KernelId) {
        self.exports.list(id);
    }

    /// Takes an [export](Self::export) back.
    pub fn withdraw(&mut self, id: KernelId) {
        self.exports.unlist(id);
    }

    /// Carries what there is to carry, a bounded amount of it. `true` if something was done: come again at once.
    // Not part of its caller's loop, which would keep addresses of the rooms in registers during all calls.
    #[inline(never)]
    pub fn pass(&mut self) -> bool {
        if !self.endpoint.may_write() {
            return false;
        }
        let now_ns = self.endpoint.platform().now_ns();
        self.endpoint.heartbeat();
        self.peer.heartbeat(now_ns);
        let mut worked = self.peer.send_hello();
        self.incoming.begin_pass();
        while self.receive_frames(false) {
            self.on_control();
            self.tidy();
        }
        worked |= self.incoming.has_taken();
        worked |= self.retry();
        // Before the messages, which must not take their room.
        worked |= self.answer();
        worked |= self.proxies.refuse(&mut self.peer);
        worked |= self.send_frames();
        worked |= self.announce(now_ns);
        worked |= self.expire(now_ns);
        self.tidy();
        worked | (self.endpoint.poll() > 0)
    }

    // The steps of a pass: functions of their own, which take the gateway's address alone. With the address of each room they
    // would take as many registers of a GPU.

    #[inline(never)]
    fn retry(&mut self) -> bool {
        self.incoming.retry(self.endpoint.platform(), self.peer.receipts(), &mut self.proxies)
    }

    #[inline(never)]
    fn answer(&mut self) -> bool {
        self.incoming.answer(&mut self.proxies, &mut self.peer)
    }

    /// Takes mail out of the proxies' inboxes and sends it across, as much as there is room and licence for.
    #[inline(never)]
    fn send_frames(&mut self) -> bool {
        let connected = self.peer.is_connected(self.endpoint.platform().now_ns());
        let mut left = BATCH;
        let mut worked = false;
        for index in self.proxies.in_turn() {
            let sending = loop {
                let sending = self.send_one(index, connected && left > 0);
                if sending != Sending::Sent {
                    break sending;
                }
                left -= 1;
                worked = true;
            };
            if sending == Sending::Stays {
                worked |= self.proxies.poll(index);
            }
        }
        worked
    }

    #[inline(never)]
    fn send_one(&mut self, index: Index<Sh>, connected: bool) -> Sending {
        let Self { endpoint, peer, proxies, exports, outgoing, .. } = self;
        outgoing.send_one(index, connected, endpoint, proxies, exports, peer)
    }

    #[inline(never)]
    fn announce(&mut self, now_ns: u64) -> bool {
        let Self { endpoint, peer, proxies, exports, .. } = self;
        let connected = peer.is_connected(endpoint.platform().now_ns());
        connected && exports.announce(now_ns, endpoint, |index, id| proxies.has(index, id), peer)
    }

    #[inline(never)]
    fn expire(&mut self, now_ns: u64) -> bool {
        self.outgoing.expire(now_ns, &mut self.proxies)
    }

    #[inline(never)]
    fn tidy(&mut self) {
        self.proxies.tidy();
    }

    #[inline(never)]
    fn on_message(&mut self, leaving: bool) {
        self.incoming.on_message(leaving, self.endpoint.capacity(), &mut self.proxies, &mut self.peer);
    }

    /// Takes frames out of the link. `true` when there is a control frame in hand that is no answer; of those that come
    /// while this gateway leaves, none is, and no message is sent on.
    #[inline(never)]
    fn receive_frames(&mut self, leaving: bool) -> bool {
        while self.incoming.take(&mut self.peer) {
            if self.incoming.is_message() {
                self.on_message(leaving);
            } else if !self.on_answer() && !leaving {
                return true;
            }
        }
        false
    }

    /// What became of a message that is with the remote gateway; `false` if the control frame in hand is no answer.
    #[inline(never)]
    fn on_answer(&mut self) -> bool {
        let Some(answer) = answer(self.incoming.header()) else { return false };
        let now_ns = self.endpoint.platform().now_ns();
        if !self.outgoing.on_answer(answer, now_ns, &mut self.proxies) {
            self.incoming.reject();
        }
        true
    }

    /// The control frame in hand.
    #[inline(never)]
    fn on_control(&mut self) {
        match Control::decode(self.incoming.header()) {
            Some(Control::Hello { clock, .. }) if self.endpoint.fabric().check_clock(clock).is_err() => {
                self.forget();
                self.outgoing.give_up(&mut self.proxies);
                self.peer.on_other_clock();
            }
            Some(Control::Hello { reply, receipts, .. }) => {
                self.forget();
                if !reply {
                    self.outgoing.give_up(&mut self.proxies);
                }
                self.peer.on_hello(reply, receipts, self.endpoint.platform().now_ns());
            }
            Some(Control::Bye) => {
                self.forget();
                self.outgoing.give_up(&mut self.proxies);
                self.peer.on_bye();
            }
            Some(Control::Announce { id, name }) if self.peer.has_met() => {
                self.proxies.on_announce(id, &name, &self.endpoint);
            }
            Some(Control::Withdraw { id }) if self.peer.has_met() => {
                if let Some(index) = self.proxies.find_proxy(id) {
                    self.proxies.close(index);
                }
            }
            Some(Control::Refuse { id }) if self.peer.has_met() => self.exports.on_refuse(id),
            _ => self.incoming.reject(),
        }
    }

    /// The remote side begins again or leaves: its kernels and its messages are no more, and it knows none of this
    /// side.
    #[inline(never)]
    fn forget(&mut self) {
        self.incoming.forget();
        self.proxies.forget();
        self.exports.forget();
    }

    /// Of its own accord, once.
    #[cold]
    #[inline(never)]
    fn leave(&mut self) {
        self.incoming.end_waiting();
        for _ in 0..FRAMES.div_ceil(BATCH) {
            self.incoming.begin_pass();
            self.receive_frames(true);
        }
        for _ in 0..FRAMES.div_ceil(LOOKS) {
            self.answer();
        }
        if self.peer.has_met() {
            self.peer.send_control(&Control::Bye);
        }
        self.outgoing.give_up(&mut self.proxies);
        // SAFETY: nothing uses the link after this.
        unsafe { self.peer.close() };
    }
}

impl<P: Platform + Clone, Sh: Shape, const FRAMES: usize> Drop for Gateway<'_, P, Sh, FRAMES> {
    /// Answers what can be answered, and says goodbye. Messages whose fate is not known end in `Unanswered`; mail for the
    /// proxies ends in `NotFound`. A copy in a forked process does nothing.
    fn drop(&mut self) {
        if self.endpoint.may_write() {
            self.leave();
        }
    }
}
