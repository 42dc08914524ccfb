//! A fabric: everything that the kernels of one memory domain share, in one piece of memory.
//!
//! ```text
//!   +--------+--------------+--------+---------------------------------------+----------+-------+------+---------+--------+
//!   | header | kernel table | routes | inboxes                               | receipts | hands | held | transit | traces |
//!   |        | [KERNELS]    | [K][K] | [KERNELS]: lanes[KERNELS] + high ring | [K]      | [K]   | [K]  | [K]     | [K]    |
//!   +--------+--------------+--------+---------------------------------------+----------+-------+------+---------+--------+
//! ```
//!
//! It has no pointers, so it may lie at a different address for each who maps it, and zeroed memory is an idle one.
//! Each part's page says who may write which of its words; [`Endpoint`](crate::Endpoint) is what puts them together.

mod hand;
mod header;
mod held;
#[cfg(not(k2k_loom))]
mod observe;
mod receipt;
mod route;
mod senders;
mod table;
mod trace;
mod transit;

pub use header::{AttachError, FabricHeader, Geometry, LAYOUT_VERSION, MAGIC};
pub use receipt::{DeliveryReceipt, DeliveryStatus, ReceiptError};
pub use table::{Command, NAME_LEN, Name, NameError, Phase, Stats, Status};
pub use trace::{Event, TRACE_EVENTS, Trace, TraceEntry};

pub(crate) use hand::{Deposit, Hand, Noted, Notes, Step};
pub(crate) use held::{Held, HeldState};
pub(crate) use receipt::{Entry as ReceiptEntry, LAST_SEQUENCE, Receipts, Settled, Unsettled, Verdict};
pub(crate) use route::Routes;
pub(crate) use senders::Senders;
pub(crate) use table::{COUNTERS, Claim, Counter, Entry, Marks, Unclaimed};
pub(crate) use transit::{Transit, TransitState};

use crate::message::{KernelId, Message, MessageId};
use crate::place::Place;
use crate::platform::Platform;
use crate::ring::{Lanes, Ticket};
use crate::sync::{ReachesHere, Scope, shared_struct};
use core::fmt;

/// What a fabric is told when it is set up; all kernels share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// A message without a deadline of its own has this long to be received, ns.
    pub delivery_timeout_ns: u64,
    /// How far a peer's clock may be ahead of one's own, ns.
    pub max_clock_offset_ns: u64,
    /// How often a message without a limit of its own may be forwarded, 1 to 127.
    pub hop_limit: u8,
    /// How long after its deadline a message that a gateway has taken may be answered, ns: more than the clocks of two
    /// domains differ. After that it is `Unanswered`, whatever became of the gateway. No
    /// [`GatewayConfig::grace_ns`](crate::gateway::GatewayConfig::grace_ns) is longer.
    pub grace_ns: u64,
    /// How many messages of high priority one sender, or forwarder, may have in an inbox that its owner has not taken: at
    /// least 1, and at most `SLOTS`, which is what all senders together have room for. 0 means `SLOTS / KERNELS`, with
    /// which no sender can take another's room. Normal priority needs no share: each sender has `SLOTS` to itself.
    pub high_share: u32,
    /// Whether kernels write traces.
    pub tracing: bool,
    /// Where the [owners](crate::Platform::owner) of kernels can be told apart.
    pub domain: ProcessDomain,
    /// Which clock the times in the fabric are on: a number of the backend's, the same for two kernels exactly when
    /// their [`Platform::now_ns`] read the same clock; 0 says nothing. See [`Fabric::check_clock`].
    pub clock: u64,
}

/// Where process ids mean something. Written by the creator of a fabric, so that a supervisor that runs elsewhere does
/// not take a living owner for a dead one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ProcessDomain {
    /// A number for the boot of the machine; 0 says nothing.
    pub boot: u64,
    /// A number for the process id namespace; 0 says nothing.
    pub namespace: u64,
}

impl Config {
    /// 5 s, 500 ms, 8 hops, 1 s, equal shares, no tracing; neither the clock nor the domain is named.
    pub const DEFAULT: Self = Self {
        delivery_timeout_ns: 5_000_000_000,
        max_clock_offset_ns: 500_000_000,
        hop_limit: 8,
        grace_ns: 1_000_000_000,
        high_share: 0,
        tracing: false,
        domain: ProcessDomain { boot: 0, namespace: 0 },
        clock: 0,
    };
}

impl Default for Config {
    /// [`Config::DEFAULT`].
    fn default() -> Self {
        Self::DEFAULT
    }
}

shared_struct! {
    /// Where one kernel's mail arrives.
    pub(crate) struct Inbox[const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize,][KERNELS, SLOTS, PAYLOAD,] in S {
        pub(crate) lanes: Lanes<Message<PAYLOAD>, KERNELS, SLOTS, S>,
        /// Mail of high priority from everybody: rare, so one ring serves all.
        pub(crate) high: Ticket<Message<PAYLOAD>, SLOTS, S>,
    }
}

shared_struct! {
    /// The memory that up to `KERNELS` kernels share, with room for `SLOTS` messages of `PAYLOAD` bytes per kernel pair.
    ///
    /// `SLOTS` is a power of two, `PAYLOAD` a multiple of 64. `SLOTS` is RingKernel's `max_pending_messages`; 256 is a
    /// good value, 1024 where memory allows. The size is about
    /// `KERNELS² × SLOTS × (PAYLOAD + 104) + 2 × KERNELS × SLOTS × (PAYLOAD + 64)` bytes; untouched lanes cost no memory on
    /// systems that allocate lazily.
    ///
    /// `S` says how far apart its kernels may be: see [`Scope`]. Anyone can attach and look on; only code within the scope
    /// can register.
    pub struct Fabric[const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize,][KERNELS, SLOTS, PAYLOAD,] in S {
        header: FabricHeader,
        pub(crate) kernels: [Entry<S>; KERNELS],
        pub(crate) routes: Routes<KERNELS>,
        pub(crate) senders: Senders<KERNELS, S>,
        pub(crate) inboxes: [Inbox<KERNELS, SLOTS, PAYLOAD, S>; KERNELS],
        pub(crate) receipts: [Receipts<KERNELS, SLOTS, S>; KERNELS],
        pub(crate) hands: [Hand<S>; KERNELS],
        pub(crate) held: [Held<SLOTS>; KERNELS],
        pub(crate) transit: [Transit<SLOTS, PAYLOAD>; KERNELS],
        pub(crate) traces: [Trace; KERNELS],
    }
}

/// A place that somebody owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owned {
    /// Its index and its last generation.
    pub id: KernelId,
    /// Its status; `Free` if its owner has claimed it and not begun to register, or has left and not let go. `None` if
    /// its state word holds no status that exists.
    pub status: Option<Status>,
    /// The [owner](crate::Platform::owner).
    pub owner: u64,
}

/// Something was asked of an address that nobody is registered at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotRegistered(pub KernelId);

impl fmt::Display for NotRegistered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not registered (any more)", self.0)
    }
}

impl core::error::Error for NotRegistered {}

impl<const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize, S: Scope> Fabric<KERNELS, SLOTS, PAYLOAD, S> {
    /// The shape, as the header records it.
    pub const GEOMETRY: Geometry = {
        assert!(KERNELS >= 1 && KERNELS <= 4096, "a fabric has 1 to 4096 kernels");
        let () = Message::<PAYLOAD>::SIZE_IS_RIGHT;
        Geometry {
            kernels: KERNELS as u32,
            slots: SLOTS as u32,
            payload: PAYLOAD as u32,
            size: size_of::<Self>() as u64,
        }
    };

    /// Finds or sets up the fabric in zeroed or used bytes. `config` counts only for the first one to attach, but for its
    /// `clock`, which must be that of the fabric.
    ///
    /// Anything may be in the bytes: nothing that they say can cause undefined behaviour later.
    ///
    /// # Errors
    /// [`AttachError`] says which of size, alignment, magic, version, shape and clock is wrong, and what would be right.
    pub fn attach<'m>(bytes: &'m mut [u8], config: &Config) -> Result<&'m Self, AttachError> {
        // SAFETY: the bytes are borrowed exclusively for as long as the fabric is.
        unsafe { Self::attach_raw(bytes.as_mut_ptr(), bytes.len(), config) }
    }

    /// As [`attach`](Self::attach), for memory that others map as well.
    ///
    /// # Errors
    /// As [`attach`](Self::attach).
    ///
    /// # Safety
    /// `base` is valid for reads and writes of `len` bytes for as long as `'m`, and this program accesses them in no
    /// other way than through fabrics (other programs may do what they like).
    pub unsafe fn attach_raw<'m>(base: *mut u8, len: usize, config: &Config) -> Result<&'m Self, AttachError> {
        // SAFETY: the caller's promise is the same.
        let fabric = unsafe { Self::at(base, len)? };
        fabric.init(config)?;
        Ok(fabric)
    }

    /// Finds a fabric that was set up before, in memory that others map as well. Writes nothing: bytes that are no
    /// fabric stay as they are.
    ///
    /// # Errors
    /// As [`attach`](Self::attach), and [`AttachError::Empty`] where `attach` would set up a fabric.
    ///
    /// # Safety
    /// As for [`attach_raw`](Self::attach_raw).
    pub unsafe fn open_raw<'m>(base: *mut u8, len: usize) -> Result<&'m Self, AttachError> {
        // SAFETY: the caller's promise is the same.
        let fabric = unsafe { Self::at(base, len)? };
        fabric.header.open(Self::GEOMETRY)?;
        Ok(fabric)
    }

    /// The bytes as a fabric, if there are enough and they are aligned.
    ///
    /// # Safety
    /// As for [`attach_raw`](Self::attach_raw).
    unsafe fn at<'m>(base: *mut u8, len: usize) -> Result<&'m Self, AttachError> {
        let expected = size_of::<Self>();
        if len < expected {
            return Err(AttachError::TooSmall { found: len, expected });
        }
        let remainder = base.addr() % align_of::<Self>();
        if remainder != 0 {
            return Err(AttachError::Misaligned { remainder, expected: align_of::<Self>() });
        }
        // SAFETY: large enough and aligned; the caller vouches for the rest. `Shared`: any bytes are a valid `Self`,
        // and all of it is behind atomics and cells, so that others may write while the reference lives.
        Ok(unsafe { &*base.cast::<Self>() })
    }

    /// Sets up a fabric that already has its type: a `static`, or zeroed memory from an allocator.
    ///
    /// # Errors
    /// As [`attach`](Self::attach), if it has been in use with other contents.
    pub fn init(&self, config: &Config) -> Result<(), AttachError> {
        self.header.attach(Self::GEOMETRY, config)
    }

    /// An idle fabric, for a `static`. Call [`init`](Self::init) before use to configure it.
    #[cfg(not(k2k_loom))]
    #[must_use]
    pub const fn new() -> Self {
        const { assert!(Self::GEOMETRY.kernels > 0) };
        // SAFETY: `Shared`: zero is the idle state, and valid.
        unsafe { core::mem::MaybeUninit::zeroed().assume_init() }
    }

    /// As [`new`](Self::new), in memory of the caller's: it is too large for most stacks.
    #[cfg(not(k2k_loom))]
    pub const fn new_in(place: &mut core::mem::MaybeUninit<Self>) -> &mut Self {
        const { assert!(Self::GEOMETRY.kernels > 0) };
        crate::sync::idle_in(place)
    }

    /// An idle fabric.
    #[cfg(k2k_loom)]
    #[must_use]
    pub fn new() -> Self {
        crate::sync::Shared::idle()
    }

    /// Checks that the times in this fabric are on a certain clock: deadlines on another one would be over at once or
    /// never. A backend that names its clock checks what it opens; a side that gives 0, or did when it set the fabric
    /// up, is not checked.
    ///
    /// # Errors
    /// [`AttachError::Clock`] names both.
    pub fn check_clock(&self, clock: u64) -> Result<(), AttachError> {
        self.header.check_clock(clock)
    }

    /// The configuration in force.
    pub fn config(&self) -> Config {
        self.header.config()
    }

    /// Switches tracing on or off for all kernels, at any time.
    pub fn set_tracing(&self, on: bool) {
        self.header.set_tracing(on);
    }

    #[cfg(all(test, not(k2k_loom)))]
    pub(crate) fn set_high_share(&self, share: u32) {
        self.header.set_high_share(share);
    }

    #[inline(always)]
    pub(crate) fn tracing(&self) -> bool {
        self.header.tracing()
    }

    /// Whether `id` can be sent to now.
    pub fn is_registered(&self, id: KernelId) -> bool {
        self.kernels.get(id.index()).is_some_and(|entry| entry.registered(id).is_some())
    }

    /// All registered kernels, with their names: each as it was when it was looked at.
    pub fn kernels(&self) -> impl Iterator<Item = (KernelId, Name)> + '_ {
        self.places()
            .filter(|(_, status)| *status == Status::Registered)
            .filter_map(|(id, _)| Some((id, self.name(id)?)))
    }

    /// All places that are not free, in whatever state.
    pub fn places(&self) -> impl Iterator<Item = (KernelId, Status)> + '_ {
        self.kernels.iter().enumerate().filter_map(|(i, entry)| {
            let state = entry.state();
            let status = state.status.filter(|s| *s != Status::Free)?;
            Some((KernelId::new(i as u16, state.generation), status))
        })
    }

    /// All places that somebody owns, also those of kernels that have begun to register and have no address yet, or have
    /// left and not let go: what a supervisor looks through for dead owners.
    pub fn owners(&self) -> impl Iterator<Item = Owned> + '_ {
        self.kernels.iter().enumerate().filter_map(|(i, entry)| {
            let owner = entry.owner()?;
            let state = entry.state();
            Some(Owned { id: KernelId::new(i as u16, state.generation), status: state.status, owner })
        })
    }

    /// The [owner](crate::Platform::owner) of the place of `id`, unless the place is free, failed, or has another
    /// generation by now.
    pub fn owner(&self, id: KernelId) -> Option<u64> {
        self.last_of(id)?.owner()
    }

    /// Where [`Endpoint`](crate::Endpoint)s look for a free place: after the one that was taken last, so that each place
    /// rests for as long as others are free.
    pub(crate) fn places_in_turn(&self) -> impl Iterator<Item = Place<KERNELS>> + '_ {
        let first = self.header.next_place();
        let first = Place::new(first as usize).unwrap_or(Place::FIRST);
        core::iter::successors(Some(first), |place| Some(place.next())).take(KERNELS)
    }

    /// Lets the next search begin after `place`.
    pub(crate) fn set_last_taken(&self, place: Place<KERNELS>) {
        self.header.set_next_place(self.header.next_place(), place.next().index() as u32);
    }

    /// The registered kernel of that name; of several, the one with the lowest index.
    pub fn find(&self, name: &str) -> Option<KernelId> {
        self.find_named(&Name::new(name).ok()?)
    }

    pub(crate) fn find_named(&self, wanted: &Name) -> Option<KernelId> {
        self.kernels().find(|(_, name)| name == wanted).map(|(id, _)| id)
    }

    /// The name of a kernel, if it is still the owner of its place.
    pub fn name(&self, id: KernelId) -> Option<Name> {
        self.kernels.get(id.index())?.name(id.generation())
    }

    /// Sets or replaces the next hop that the kernel at `at` uses for messages to `destination`, while traffic flows.
    ///
    /// # Errors
    /// [`NotRegistered`] names the address nobody is registered at.
    pub fn set_route(&self, at: KernelId, destination: KernelId, next_hop: KernelId) -> Result<(), NotRegistered> {
        let check = |id| if self.is_registered(id) { Ok(()) } else { Err(NotRegistered(id)) };
        let check_all = || [at, destination, next_hop].into_iter().try_for_each(check);
        check_all()?;
        if self.routes.set(at, destination, next_hop, || self.are_last(at, destination)) {
            return Ok(());
        }
        check_all()?;
        Err(NotRegistered(at))
    }

    /// Whether both kernels are the last owners of their places.
    fn are_last(&self, one: KernelId, other: KernelId) -> bool {
        self.last_of(one).is_some() && self.last_of(other).is_some()
    }

    /// Removes a route: the kernel at `at` sends to `destination` directly again. Routes that were left behind by
    /// kernels that are gone can be removed as well.
    pub fn remove_route(&self, at: KernelId, destination: KernelId) {
        self.routes.remove(at, destination, || self.are_last(at, destination));
    }

    /// The route that `at` has for `destination`; `None` means directly.
    pub fn route(&self, at: KernelId, destination: KernelId) -> Option<KernelId> {
        let places = (Place::new(at.index())?, Place::new(destination.index())?);
        self.routes.get((places.0, at), (places.1, destination)).filter(|_| self.are_last(at, destination))
    }

    /// Denies a sender an inbox: `send` is refused with [`SendError::NotAllowed`](crate::SendError::NotAllowed), and a
    /// message that is on its way ends as [`DeliveryStatus::NotAllowed`] at the receiver. A forwarded message is judged by
    /// its source; the sender may still send to others through `receiver`. Holds until it is [allowed](Self::allow), or
    /// until `receiver` or `sender` has left: its index then belongs to another kernel. A successor that takes either
    /// over under its address inherits the denial.
    ///
    /// Takes effect soon: after this returns, for a sender that has heard so. A receiver on a GPU, which does not look at
    /// its state for each message, notices when its inbox is empty.
    ///
    /// # Errors
    /// [`NotRegistered`] names the address nobody is registered at.
    pub fn deny(&self, receiver: KernelId, sender: KernelId) -> Result<(), NotRegistered>
    where
        S: ReachesHere,
    {
        for id in [receiver, sender] {
            if !self.is_registered(id) {
                return Err(NotRegistered(id));
            }
        }
        self.senders.deny(receiver, sender).map_err(NotRegistered)?;
        let restricted = self.kernels.get(receiver.index()).is_some_and(|entry| entry.restrict(receiver.generation()));
        if restricted { Ok(()) } else { Err(NotRegistered(receiver)) }
    }

    /// Allows what [`deny`](Self::deny) has denied. Everybody may send to everybody to begin with.
    pub fn allow(&self, receiver: KernelId, sender: KernelId)
    where
        S: ReachesHere,
    {
        self.senders.allow(receiver, sender);
    }

    /// Whether `sender` may send to `receiver`, as far as [`deny`](Self::deny) is concerned.
    pub fn is_allowed(&self, receiver: KernelId, sender: KernelId) -> bool {
        let restricted = self.last_of(receiver).is_some_and(Entry::is_restricted);
        !restricted || !self.senders.denies(receiver, sender)
    }

    /// What became of a message. One that is overdue is settled as `Timeout` or `Unanswered` by this: with
    /// [`CLOCK_MARGIN_NS`](crate::CLOCK_MARGIN_NS) and, if a gateway has it, the configured
    /// [`grace_ns`](Config::grace_ns), `Pending` ends for every onlooker, whether sender, receiver, forwarders and
    /// gateway are alive or not. [`Endpoint::receipt`](crate::Endpoint::receipt) is the sender's way to ask.
    ///
    /// # Errors
    /// [`ReceiptError::Overwritten`] once the sender has sent `KERNELS × SLOTS` more, [`ReceiptError::Unknown`] if it
    /// was never sent.
    pub fn receipt(&self, id: MessageId, platform: &impl Platform) -> Result<DeliveryReceipt, ReceiptError>
    where
        S: ReachesHere,
    {
        self.settle_overdue(id, platform.now_ns(), self.config().grace_ns);
        self.peek_receipt(id)
    }

    /// Like [`receipt`](Self::receipt), but only looks: an overdue message may read `Pending`.
    ///
    /// # Errors
    /// As for [`receipt`](Self::receipt).
    pub fn peek_receipt(&self, id: MessageId) -> Result<DeliveryReceipt, ReceiptError> {
        let table =
            self.receipts.get(id.source.index()).filter(|_| !id.source.is_none()).ok_or(ReceiptError::Unknown)?;
        table.read(id.sequence).map(|status| DeliveryReceipt { id, status })
    }

    pub(crate) fn settle_overdue(&self, id: MessageId, now_ns: u64, grace_ns: u64) {
        if let Some(table) = self.receipts.get(id.source.index()) {
            table.settle_overdue(id.sequence, now_ns, grace_ns);
        }
    }

    /// Whether the kernel with this address has neither left nor failed, though it may be leaving.
    pub(crate) fn is_owned(&self, id: KernelId) -> bool {
        let Some(entry) = self.kernels.get(id.index()) else { return false };
        let state = entry.state();
        let owned = matches!(state.status, Some(Status::Registering | Status::Registered | Status::Leaving));
        owned && state.generation == id.generation()
    }

    /// Messages whose end no kernel has counted: those that lie in inboxes and in the stores of forwarders, and those
    /// that gateways hold, less those that their senders have given up and counted. Counted one by one, so a look at all
    /// of the receipts and stores. While no kernel is at work,
    /// `sent == received + failed() + pending()` for the [sum of all counters](Self::total_stats), except for messages
    /// that [damaged memory](Stats::corrupt) has cost, for those that a dead kernel had in hand until it is succeeded,
    /// and on a GPU for those whose receipt was overwritten while a gateway held them.
    pub fn pending(&self) -> u64 {
        let lying: u64 = self.inboxes.iter().map(|inbox| inbox.lanes.waiting() + inbox.high.waiting()).sum();
        let stored: u64 = self.transit.iter().map(Transit::waiting).sum();
        let balance: i64 = self.receipts.iter().map(Receipts::balance).sum();
        let overwritten: u64 = self.held.iter().map(|held| held.overwritten(&self.receipts)).sum();
        (lying + stored + overwritten).saturating_add_signed(balance)
    }

    /// The counters of the place of `id`, over all its owners.
    pub fn stats(&self, id: KernelId) -> Option<Stats> {
        self.kernels.get(id.index()).map(|entry| Stats::from_counters(&entry.counters()))
    }

    /// The sum of all kernels' counters. It adds up when nobody is sending or receiving.
    pub fn total_stats(&self) -> Stats {
        self.kernels
            .iter()
            .map(|entry| Stats::from_counters(&entry.counters()))
            .fold(Stats::default(), |sum, stats| sum.plus(&stats))
    }

    /// Tells a kernel what to do, and wakes it if it sleeps.
    ///
    /// # Errors
    /// [`NotRegistered`] if it has left.
    pub fn command(&self, id: KernelId, command: Command, platform: &impl Platform) -> Result<(), NotRegistered> {
        let entry = self.kernels.get(id.index()).ok_or(NotRegistered(id))?;
        let parks = entry.registered(id).ok_or(NotRegistered(id))?.parks();
        if !entry.set_command(id.generation(), command) {
            return Err(NotRegistered(id));
        }
        entry.wake(parks, platform);
        Ok(())
    }

    /// What a kernel says that it is doing, or has said last; `None` once its place has another owner.
    pub fn phase(&self, id: KernelId) -> Option<Phase> {
        self.last_of(id).map(Entry::phase)
    }

    /// Passes of the kernel's run loop so far, counted on from its predecessor's; `None` once its place has another owner.
    /// A number that stands still while the phase is `Running` means that the kernel hangs in its handler.
    pub fn heartbeat(&self, id: KernelId) -> Option<u64> {
        self.last_of(id).map(Entry::heartbeat)
    }

    /// The entry of a kernel that is the last owner of its place.
    fn last_of(&self, id: KernelId) -> Option<&Entry<S>> {
        self.kernels.get(id.index()).filter(|entry| entry.state().generation == id.generation())
    }

    /// The last events at a kernel's place, unordered.
    pub fn trace(&self, id: KernelId) -> Option<&Trace> {
        self.traces.get(id.index())
    }

    /// Makes the place of a failed kernel free for others.
    ///
    /// # Errors
    /// [`NotRegistered`] if `id` is not a failed kernel.
    pub fn clear_failed(&self, id: KernelId) -> Result<(), NotRegistered> {
        let cleared = self.kernels.get(id.index()).is_some_and(|entry| entry.clear_failed(id.generation()));
        if cleared { Ok(()) } else { Err(NotRegistered(id)) }
    }
}

impl<const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize, S: Scope> Default
    for Fabric<KERNELS, SLOTS, PAYLOAD, S>
{
    fn default() -> Self {
        Self::new()
    }
}
