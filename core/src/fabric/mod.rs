//! A fabric: everything that the kernels of one memory domain share, in one piece of memory.
//!
//! ```text
//!   +--------+--------------+--------+---------------------------------------+----------+-------+------+---------+--------+----------+
//!   | header | kernel table | routes | inboxes                               | receipts | hands | outstanding | transit | traces | failures | latencies |
//!   |        | [KERNELS]    | [K][K] | [KERNELS]: shards[KERNELS] + high ring | [K]      | [K]   | [K]  | [K]     | [K]    | [K]      | [K]       |
//!   +--------+--------------+--------+---------------------------------------+----------+-------+------+---------+--------+----------+
//! ```
//!
//! It has no pointers, so it may lie at a different address for each who maps it, and zeroed memory is an idle one.
//! Each part's page says who may write which of its words; [`Endpoint`] is what puts them together.

mod failures;
mod hand;
mod header;
mod latency;
#[cfg(not(k2k_loom))]
mod look;
mod name;
#[cfg(not(k2k_loom))]
mod observe;
mod outstanding;
mod own;
mod receipt;
mod route;
mod senders;
mod stats;
mod status;
mod table;
mod trace;
mod transit;

pub use failures::{Failure, Failures};
#[cfg(not(k2k_loom))]
pub use header::COPY_CLOCK;
pub use header::{AttachError, FabricHeader, Geometry, LAYOUT_VERSION, MAGIC};
pub use latency::{LATENCY_SAMPLE, Latency};
#[cfg(not(k2k_loom))]
pub use look::{Observation, ObservedReceipt, ObservedShard, Region};
pub use name::{NAME_LEN, Name, NameError};
pub use stats::Stats;
pub use status::{DeliveryReceipt, DeliveryStatus, ReceiptError};
pub use table::{Command, Phase, Status};
pub use trace::{Event, TRACE_EVENTS, Trace, TraceEntry};

pub(crate) use hand::{Deposit, Hand, Ledger, Note, Step};
pub(crate) use header::{Switch, Switches};
pub(crate) use latency::{Latencies, is_sampled};
pub(crate) use outstanding::{Outstanding, OutstandingView};
pub(crate) use own::Own;
pub(crate) use receipt::{
    Entry as ReceiptEntry, LAST_SEQUENCE, PendingReceipt, Receipts, ReceiptsView, Settlement, Verdict,
};
pub(crate) use route::Routes;
pub(crate) use senders::Senders;
pub(crate) use stats::{COUNTERS, Counter};
pub(crate) use table::{Claim, ClaimError, Entry, Marks};
pub(crate) use transit::{Transit, TransitState, TransitView};

use crate::endpoint::{Endpoint, RegisterError, Registration};
use crate::message::{KernelId, Message, MessageId};
use crate::platform::Platform;
use crate::ring::sharded::ShardedView;
use crate::ring::ticket::TicketView;
use crate::ring::{Sharded, Ticket};
use crate::shape::{Fixed, Index, Numbers, Part, Shape};
use crate::sync::{ReachesHere, Scope, shared_struct};
use core::fmt;
use core::mem::{MaybeUninit, offset_of};
use core::ptr::NonNull;
use route::RoutesView;
use senders::SendersView;

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
    /// Whether kernels count how long the messages that they receive were on their way: see
    /// [`FabricRef::set_latency`].
    pub latency: bool,
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
    /// 5 s, 500 ms, 8 hops, 1 s, equal shares, no tracing, no latencies; neither the clock nor the domain is named.
    pub const DEFAULT: Self = Self {
        delivery_timeout_ns: 5_000_000_000,
        max_clock_offset_ns: 500_000_000,
        hop_limit: 8,
        grace_ns: 1_000_000_000,
        high_share: 0,
        tracing: false,
        latency: false,
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
        pub(crate) sharded: Sharded<Message<PAYLOAD>, KERNELS, SLOTS, S>,
        /// Mail of high priority from everybody: rare, so one ring serves all.
        pub(crate) high: Ticket<Message<PAYLOAD>, SLOTS, S>,
    }
}

shared_struct! {
    /// The memory that up to `KERNELS` kernels share, with room for `SLOTS` messages of `PAYLOAD` bytes per kernel pair.
    ///
    /// `SLOTS` is a power of two, `PAYLOAD` a multiple of 64. `SLOTS` is RingKernel's `max_pending_messages`; 256 is a
    /// good value, 1024 where memory allows. The size is about
    /// `KERNELS² × SLOTS × (PAYLOAD + 104) + 2 × KERNELS × SLOTS × (PAYLOAD + 64)` bytes; untouched shards cost no
    /// memory on systems that allocate lazily.
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
        pub(crate) outstanding: [Outstanding<SLOTS>; KERNELS],
        pub(crate) transit: [Transit<SLOTS, PAYLOAD>; KERNELS],
        pub(crate) traces: [Trace; KERNELS],
        pub(crate) failures: [Failures; KERNELS],
        pub(crate) latencies: [Latencies; KERNELS],
    }
}

/// An index that somebody owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexOwner {
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
        write!(
            f,
            "{} is not registered (any more): if the kernel was started again, look its new address up by its name",
            self.0
        )
    }
}

impl core::error::Error for NotRegistered {}

/// An index was to be cleared that no failed kernel of this address has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotFailed {
    /// The address.
    pub kernel: KernelId,
    /// Whether a kernel is registered there, registers or leaves.
    pub is_here: bool,
}

impl fmt::Display for NotFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, is_here } = self;
        if *is_here {
            write!(
                f,
                "{kernel} has not failed: its index comes free when its endpoint is dropped, or, if its process is gone, when \
                 it is reaped"
            )
        } else {
            write!(f, "{kernel} has no failed index: it has left, or its index was cleared before")
        }
    }
}

impl core::error::Error for NotFailed {}

impl<const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize, S: Scope> Fabric<KERNELS, SLOTS, PAYLOAD, S> {
    /// The shape, as the header records it.
    pub const GEOMETRY: Geometry = Self::NUMBERS.geometry();

    /// In an inbox: the high-priority ring, and the length.
    pub(crate) const INBOX: [usize; 2] = {
        type Mail<const K: usize, const N: usize, const P: usize, S> = Inbox<K, N, P, S>;
        assert!(offset_of!(Mail<KERNELS, SLOTS, PAYLOAD, S>, sharded) == 0);
        [offset_of!(Mail<KERNELS, SLOTS, PAYLOAD, S>, high), size_of::<Mail<KERNELS, SLOTS, PAYLOAD, S>>()]
    };

    /// Where the parts are, and the length.
    pub(crate) const OFFSETS: [usize; 12] = [
        offset_of!(Self, kernels),
        offset_of!(Self, routes),
        offset_of!(Self, senders),
        offset_of!(Self, inboxes),
        offset_of!(Self, receipts),
        offset_of!(Self, hands),
        offset_of!(Self, outstanding),
        offset_of!(Self, transit),
        offset_of!(Self, traces),
        offset_of!(Self, failures),
        offset_of!(Self, latencies),
        size_of::<Self>(),
    ];

    /// Counts and offsets: those that the compiler lays out, which the formula has to say as well.
    pub(crate) const NUMBERS: Numbers = {
        let numbers = Numbers::of_struct::<KERNELS, SLOTS, PAYLOAD, S>();
        // Loom's words and cells are larger than the formula knows.
        #[cfg(not(k2k_loom))]
        match Numbers::of::<S>(KERNELS, SLOTS, PAYLOAD) {
            Some(computed) => assert!(computed.is(&numbers), "the formula of `Numbers::of` is not the struct"),
            None => panic!("no fabric has this shape"),
        }
        numbers
    };

    /// A handle on the fabric: see [`FabricRef`].
    #[inline(always)]
    pub const fn handle(&self) -> FabricRef<'_, Fixed<KERNELS, SLOTS, PAYLOAD, S>> {
        const { assert!(Self::GEOMETRY.kernels > 0) };
        // SAFETY: a fabric of this very shape.
        FabricRef { part: unsafe { Part::at(NonNull::from_ref(self).cast(), Fixed::SHAPE) } }
    }

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
        fabric.header.open(Fixed::<KERNELS, SLOTS, PAYLOAD, S>::found)?;
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

    // All else is asked of the handle.

    /// See [`FabricRef::register`].
    ///
    /// # Errors
    /// As there.
    pub fn register<P: Platform>(
        &self,
        who: &Registration,
        platform: P,
    ) -> Result<Endpoint<'_, P, Fixed<KERNELS, SLOTS, PAYLOAD, S>>, RegisterError>
    where
        S: ReachesHere,
    {
        self.handle().register(who, platform)
    }

    /// See [`FabricRef::register_in`].
    ///
    /// # Errors
    /// As there.
    pub fn register_in<'f, 'e, P: Platform>(
        &'f self,
        at: &'e mut MaybeUninit<Endpoint<'f, P, Fixed<KERNELS, SLOTS, PAYLOAD, S>>>,
        who: &Registration,
        platform: P,
    ) -> Result<&'e mut Endpoint<'f, P, Fixed<KERNELS, SLOTS, PAYLOAD, S>>, RegisterError>
    where
        S: ReachesHere,
    {
        self.handle().register_in(at, who, platform)
    }

    /// See [`FabricRef::take_over`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Safety
    /// As there.
    pub unsafe fn take_over<P: Platform>(
        &self,
        id: KernelId,
        platform: P,
    ) -> Result<Endpoint<'_, P, Fixed<KERNELS, SLOTS, PAYLOAD, S>>, RegisterError>
    where
        S: ReachesHere,
    {
        // SAFETY: the caller's promise is the same.
        unsafe { self.handle().take_over(id, platform) }
    }

    /// See [`FabricRef::seize`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Safety
    /// As there.
    pub unsafe fn seize<P: Platform>(
        &self,
        index: usize,
        dead: u64,
        platform: P,
    ) -> Result<Endpoint<'_, P, Fixed<KERNELS, SLOTS, PAYLOAD, S>>, RegisterError>
    where
        S: ReachesHere,
    {
        // SAFETY: the caller's promise is the same.
        unsafe { self.handle().seize(index, dead, platform) }
    }

    /// See [`FabricRef::check_clock`].
    ///
    /// # Errors
    /// As there.
    pub fn check_clock(&self, clock: u64) -> Result<(), AttachError> {
        self.handle().check_clock(clock)
    }

    /// See [`FabricRef::config`].
    pub fn config(&self) -> Config {
        self.handle().config()
    }

    /// See [`FabricRef::set_tracing`].
    pub fn set_tracing(&self, on: bool) {
        self.handle().set_tracing(on)
    }

    /// See [`FabricRef::set_latency`].
    pub fn set_latency(&self, on: bool) {
        self.handle().set_latency(on)
    }

    /// See [`FabricRef::latency`].
    pub fn latency(&self, id: KernelId) -> Option<Latency> {
        self.handle().latency(id)
    }

    /// See [`FabricRef::is_registered`].
    pub fn is_registered(&self, id: KernelId) -> bool {
        self.handle().is_registered(id)
    }

    /// See [`FabricRef::kernels`].
    pub fn kernels(&self) -> impl Iterator<Item = (KernelId, Name)> + use<'_, KERNELS, SLOTS, PAYLOAD, S> {
        self.handle().kernels()
    }

    /// See [`FabricRef::statuses`].
    pub fn statuses(&self) -> impl Iterator<Item = (KernelId, Status)> + use<'_, KERNELS, SLOTS, PAYLOAD, S> {
        self.handle().statuses()
    }

    /// See [`FabricRef::owners`].
    pub fn owners(&self) -> impl Iterator<Item = IndexOwner> + use<'_, KERNELS, SLOTS, PAYLOAD, S> {
        self.handle().owners()
    }

    /// See [`FabricRef::owner`].
    pub fn owner(&self, id: KernelId) -> Option<u64> {
        self.handle().owner(id)
    }

    /// See [`FabricRef::find`].
    pub fn find(&self, name: &str) -> Option<KernelId> {
        self.handle().find(name)
    }

    /// See [`FabricRef::name`].
    pub fn name(&self, id: KernelId) -> Option<Name> {
        self.handle().name(id)
    }

    /// See [`FabricRef::set_route`].
    ///
    /// # Errors
    /// As there.
    pub fn set_route(&self, at: KernelId, destination: KernelId, next_hop: KernelId) -> Result<(), NotRegistered> {
        self.handle().set_route(at, destination, next_hop)
    }

    /// See [`FabricRef::remove_route`].
    pub fn remove_route(&self, at: KernelId, destination: KernelId) {
        self.handle().remove_route(at, destination)
    }

    /// See [`FabricRef::route`].
    pub fn route(&self, at: KernelId, destination: KernelId) -> Option<KernelId> {
        self.handle().route(at, destination)
    }

    /// See [`FabricRef::deny`].
    ///
    /// # Errors
    /// As there.
    pub fn deny(&self, receiver: KernelId, sender: KernelId) -> Result<(), NotRegistered>
    where
        S: ReachesHere,
    {
        self.handle().deny(receiver, sender)
    }

    /// See [`FabricRef::allow`].
    pub fn allow(&self, receiver: KernelId, sender: KernelId)
    where
        S: ReachesHere,
    {
        self.handle().allow(receiver, sender)
    }

    /// See [`FabricRef::is_allowed`].
    pub fn is_allowed(&self, receiver: KernelId, sender: KernelId) -> bool {
        self.handle().is_allowed(receiver, sender)
    }

    /// See [`FabricRef::receipt`].
    ///
    /// # Errors
    /// As there.
    pub fn receipt(&self, id: MessageId, platform: &impl Platform) -> Result<DeliveryReceipt, ReceiptError>
    where
        S: ReachesHere,
    {
        self.handle().receipt(id, platform)
    }

    /// See [`FabricRef::peek_receipt`].
    ///
    /// # Errors
    /// As there.
    pub fn peek_receipt(&self, id: MessageId) -> Result<DeliveryReceipt, ReceiptError> {
        self.handle().peek_receipt(id)
    }

    /// See [`FabricRef::pending`].
    pub fn pending(&self) -> u64 {
        self.handle().pending()
    }

    /// See [`FabricRef::stats`].
    pub fn stats(&self, id: KernelId) -> Option<Stats> {
        self.handle().stats(id)
    }

    /// See [`FabricRef::total_stats`].
    pub fn total_stats(&self) -> Stats {
        self.handle().total_stats()
    }

    /// See [`FabricRef::command`].
    ///
    /// # Errors
    /// As there.
    pub fn command(&self, id: KernelId, command: Command, platform: &impl Platform) -> Result<(), NotRegistered> {
        self.handle().command(id, command, platform)
    }

    /// See [`FabricRef::phase`].
    pub fn phase(&self, id: KernelId) -> Option<Phase> {
        self.handle().phase(id)
    }

    /// See [`FabricRef::heartbeat`].
    pub fn heartbeat(&self, id: KernelId) -> Option<u64> {
        self.handle().heartbeat(id)
    }

    /// See [`FabricRef::trace`].
    pub fn trace(&self, id: KernelId) -> Option<&Trace> {
        self.handle().trace(id)
    }

    /// See [`FabricRef::failures`].
    pub fn failures(&self, id: KernelId) -> Option<&Failures> {
        self.handle().failures(id)
    }

    /// See [`FabricRef::clear_failed`].
    ///
    /// # Errors
    /// As there.
    pub fn clear_failed(&self, id: KernelId) -> Result<(), NotFailed> {
        self.handle().clear_failed(id)
    }
}

/// Says where a fabric is and of which shape: what everything is asked of.
///
/// Of a [`Fixed`] shape it is an address; `FABRIC.handle()` makes one of a fabric that has its type. Of a
/// [`Read`](crate::Read) shape it also keeps the numbers that were read from the header once.
pub struct FabricRef<'f, Sh> {
    part: Part<'f, Sh, Whole>,
}

/// What a fabric's handle is on.
enum Whole {}

impl<Sh: Copy> Clone for FabricRef<'_, Sh> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}
impl<Sh: Copy> Copy for FabricRef<'_, Sh> {}

impl<Sh: Shape> fmt::Debug for FabricRef<'_, Sh> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FabricRef").field("geometry", &self.geometry()).finish_non_exhaustive()
    }
}

impl<'f, Sh: Shape> FabricRef<'f, Sh> {
    /// Finds or sets up a fabric of this shape in zeroed or used bytes, as [`Fabric::attach`] does.
    ///
    /// # Errors
    /// As for [`Fabric::attach`].
    pub fn create(bytes: &'f mut [u8], shape: Sh, config: &Config) -> Result<Self, AttachError> {
        // SAFETY: the bytes are borrowed exclusively for as long as the fabric is.
        unsafe { Self::create_raw(bytes.as_mut_ptr(), bytes.len(), shape, config) }
    }

    /// As [`create`](Self::create), for memory that others map as well.
    ///
    /// # Errors
    /// As for [`create`](Self::create).
    ///
    /// # Safety
    /// As for [`Fabric::attach_raw`].
    pub unsafe fn create_raw(base: *mut u8, len: usize, shape: Sh, config: &Config) -> Result<Self, AttachError> {
        let numbers = shape.numbers();
        let base = check_bytes(base, len, numbers.size)?;
        // SAFETY: large enough, aligned, and the caller vouches for the rest.
        let fabric = Self { part: unsafe { Part::at(base, shape) } };
        fabric.header().attach(numbers.geometry(), config)?;
        Ok(fabric)
    }

    /// Finds a fabric that was set up before. A [`Read`](crate::Read) shape is what its header says.
    ///
    /// # Errors
    /// As for [`Fabric::attach`], [`AttachError::Empty`] where that would set up a fabric, and [`AttachError::Shape`] if
    /// the shape is more than the type is for.
    pub fn open(bytes: &'f mut [u8]) -> Result<Self, AttachError> {
        // SAFETY: the bytes are borrowed exclusively for as long as the fabric is.
        unsafe { Self::open_raw(bytes.as_mut_ptr(), bytes.len()) }
    }

    /// As [`open`](Self::open), for memory that others map as well. Writes nothing: bytes that are no fabric stay as they
    /// are.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    ///
    /// # Safety
    /// As for [`Fabric::attach_raw`].
    pub unsafe fn open_raw(base: *mut u8, len: usize) -> Result<Self, AttachError> {
        let base = check_bytes(base, len, size_of::<FabricHeader>())?;
        // SAFETY: large enough for a header, aligned, and the caller vouches for the rest.
        let header = unsafe { base.cast::<FabricHeader>().as_ref() };
        // The only time that the shape is read: what others may write must not be believed twice.
        let shape = header.open(Sh::found)?;
        let base = check_bytes(base.as_ptr(), len, shape.numbers().size)?;
        // SAFETY: large enough for this shape, and as above.
        Ok(Self { part: unsafe { Part::at(base, shape) } })
    }

    /// Where it begins.
    #[must_use]
    pub const fn as_ptr(&self) -> *mut u8 {
        // SAFETY: the start is inside.
        unsafe { self.part.address(0).as_ptr() }
    }

    /// The shape.
    #[inline(always)]
    #[must_use]
    pub const fn shape(&self) -> Sh {
        self.part.shape
    }

    /// The shape, as the header records it.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.shape().geometry()
    }

    /// The index of a number, if it is below the number of kernels.
    #[inline(always)]
    pub(crate) fn index(&self, number: usize) -> Option<Index<Sh>> {
        self.part.shape.index(number)
    }

    fn indices(&self) -> impl Iterator<Item = Index<Sh>> + use<Sh> {
        self.part.shape.indices()
    }

    #[inline(always)]
    fn header(&self) -> &'f FabricHeader {
        // SAFETY: it stands first.
        unsafe { self.part.item(0, 0) }
    }

    /// A kernel's entry of the kernel table.
    #[inline(always)]
    pub(crate) fn entry(&self, at: Index<Sh>) -> &'f Entry<Sh::Scope> {
        let numbers = self.part.shape.numbers();
        // SAFETY: there is one for each kernel.
        unsafe { self.part.item(numbers.entries, self.part.shape.below(at)) }
    }

    /// All kernels' entries, by index.
    #[inline(always)]
    pub(crate) fn entries(&self) -> &'f [Entry<Sh::Scope>] {
        let numbers = self.part.shape.numbers();
        // SAFETY: there is one for each kernel, one behind the other.
        unsafe { core::slice::from_raw_parts(self.part.address(numbers.entries).cast().as_ptr(), numbers.kernels) }
    }

    /// The entry of the kernel index of an address, if there is one.
    #[inline(always)]
    pub(crate) fn entry_of(&self, id: KernelId) -> Option<&'f Entry<Sh::Scope>> {
        self.index(id.index()).filter(|_| !id.is_none()).map(|at| self.entry(at))
    }

    /// What the state of a kernel index is.
    pub(crate) fn state(&self, number: usize) -> Option<table::State> {
        self.index(number).map(|at| self.entry(at).state())
    }

    /// A part that each kernel has.
    ///
    /// # Safety
    /// In the fabric's numbers, such parts are `offset` bytes from the start and `length` apart.
    #[inline(always)]
    unsafe fn of_kernel(&self, at: Index<Sh>, [offset, length]: [usize; 2]) -> NonNull<u8> {
        // SAFETY: `below` is less than the number of kernels.
        unsafe { self.part.address(offset + self.part.shape.below(at) * length) }
    }

    /// The routes.
    #[inline(always)]
    pub(crate) fn routes(&self) -> RoutesView<'f, Sh> {
        let shape = self.part.shape;
        // SAFETY: they are there.
        unsafe { Part::at(self.part.address(shape.numbers().routes), shape) }
    }

    /// Who may not send to whom.
    #[inline(always)]
    pub(crate) fn senders(&self) -> SendersView<'f, Sh> {
        let shape = self.part.shape;
        // SAFETY: they are there.
        unsafe { Part::at(self.part.address(shape.numbers().senders), shape) }
    }

    /// A kernel's inbox for normal priority.
    #[inline(always)]
    pub(crate) fn sharded(&self, at: Index<Sh>) -> ShardedView<'f, Sh> {
        let (shape, numbers) = (self.part.shape, self.part.shape.numbers());
        // SAFETY: an inbox begins with them.
        unsafe { ShardedView::at(self.of_kernel(at, [numbers.inboxes, numbers.inbox]), shape) }
    }

    /// A kernel's inbox for high priority.
    #[inline(always)]
    pub(crate) fn high(&self, at: Index<Sh>) -> TicketView<'f, Sh> {
        let (shape, numbers) = (self.part.shape, self.part.shape.numbers());
        // SAFETY: it is in the inbox.
        unsafe { TicketView::at(self.of_kernel(at, [numbers.inboxes + numbers.high, numbers.inbox]), shape) }
    }

    /// A sender's receipts.
    #[inline(always)]
    pub(crate) fn receipts(&self, at: Index<Sh>) -> ReceiptsView<'f, Sh> {
        let (shape, numbers) = (self.part.shape, self.part.shape.numbers());
        // SAFETY: each kernel has some.
        unsafe { Part::at(self.of_kernel(at, [numbers.receipts, numbers.receipts_len]), shape) }
    }

    /// A kernel's notes.
    #[inline(always)]
    pub(crate) fn hand(&self, at: Index<Sh>) -> &'f Hand<Sh::Scope> {
        // SAFETY: each kernel has one.
        unsafe { self.part.item(self.part.shape.numbers().hands, self.part.shape.below(at)) }
    }

    /// A proxy's records.
    #[inline(always)]
    pub(crate) fn outstanding(&self, at: Index<Sh>) -> OutstandingView<'f, Sh> {
        let (shape, numbers) = (self.part.shape, self.part.shape.numbers());
        // SAFETY: each kernel has some.
        unsafe { Part::at(self.of_kernel(at, [numbers.outstanding, numbers.outstanding_len]), shape) }
    }

    /// A kernel's transit store.
    #[inline(always)]
    pub(crate) fn transit(&self, at: Index<Sh>) -> TransitView<'f, Sh> {
        let (shape, numbers) = (self.part.shape, self.part.shape.numbers());
        // SAFETY: each kernel has one.
        unsafe { Part::at(self.of_kernel(at, [numbers.transit, numbers.transit_len]), shape) }
    }

    /// A kernel's trace.
    pub(crate) fn trace_at(&self, at: Index<Sh>) -> &'f Trace {
        // SAFETY: each kernel has one.
        unsafe { self.part.item(self.part.shape.numbers().traces, self.part.shape.below(at)) }
    }

    /// What is noted of a kernel's failures.
    pub(crate) fn failures_at(&self, at: Index<Sh>) -> &'f Failures {
        // SAFETY: each kernel has some.
        unsafe { self.part.item(self.part.shape.numbers().failures, self.part.shape.below(at)) }
    }

    /// A kernel's counts of latencies.
    pub(crate) fn latencies_at(&self, at: Index<Sh>) -> &'f Latencies {
        // SAFETY: each kernel has some.
        unsafe { self.part.item(self.part.shape.numbers().latencies, self.part.shape.below(at)) }
    }

    /// Checks that the times in this fabric are on a certain clock: deadlines on another one would be over at once or
    /// never. A backend that names its clock checks what it opens; a side that gives 0, or did when it set the fabric
    /// up, is not checked.
    ///
    /// # Errors
    /// [`AttachError::Clock`] names both.
    pub fn check_clock(&self, clock: u64) -> Result<(), AttachError> {
        self.header().check_clock(clock)
    }

    /// The configuration in force.
    pub fn config(&self) -> Config {
        self.header().config()
    }

    /// Switches tracing on or off for all kernels, at any time.
    pub fn set_tracing(&self, on: bool) {
        self.header().switch(Switch::Tracing, on);
    }

    /// Has all kernels count how long the messages that they receive were on their way, or no more, at any time:
    /// [`latency`](Self::latency) has the counts. Of the received messages, one of [`LATENCY_SAMPLE`] is counted.
    pub fn set_latency(&self, on: bool) {
        self.header().switch(Switch::Latency, on);
    }

    #[cfg(all(test, not(k2k_loom)))]
    pub(crate) fn set_high_share(&self, share: u32) {
        self.header().set_high_share(share);
    }

    #[inline(always)]
    pub(crate) fn switches(&self) -> Switches {
        self.header().switches()
    }

    /// Whether `id` can be sent to now.
    pub fn is_registered(&self, id: KernelId) -> bool {
        self.entry_of(id).is_some_and(|entry| entry.registered(id).is_some())
    }

    /// All registered kernels, with their names: each as it was when it was looked at.
    pub fn kernels(&self) -> impl Iterator<Item = (KernelId, Name)> + use<'f, Sh> {
        let fabric = *self;
        self.statuses()
            .filter(|(_, status)| *status == Status::Registered)
            .filter_map(move |(id, _)| Some((id, fabric.name(id)?)))
    }

    /// All indices that are not free, in whatever state.
    pub fn statuses(&self) -> impl Iterator<Item = (KernelId, Status)> + use<'f, Sh> {
        self.entries().iter().enumerate().filter_map(|(i, entry)| {
            let state = entry.state();
            let status = state.status.filter(|s| *s != Status::Free)?;
            Some((KernelId::new(i as u16, state.generation), status))
        })
    }

    /// All indices that somebody owns, also those of kernels that have begun to register and have no address yet, or
    /// have left and not let go: what a supervisor looks through for dead owners.
    pub fn owners(&self) -> impl Iterator<Item = IndexOwner> + use<'f, Sh> {
        self.entries().iter().enumerate().filter_map(|(i, entry)| {
            let owner = entry.owner()?;
            let state = entry.state();
            Some(IndexOwner { id: KernelId::new(i as u16, state.generation), status: state.status, owner })
        })
    }

    /// The [owner](crate::Platform::owner) of the index of `id`, unless the index is free, failed, or has another
    /// generation by now.
    pub fn owner(&self, id: KernelId) -> Option<u64> {
        self.last_of(id)?.owner()
    }

    /// Where [`Endpoint`]s look for a free index: after the one that was claimed last, so that each index
    /// rests for as long as others are free.
    pub(crate) fn indices_in_turn(&self) -> impl Iterator<Item = Index<Sh>> + use<'f, Sh> {
        let first = self.header().next_index();
        let shape = self.shape();
        let first = shape.index(first as usize).unwrap_or_else(|| shape.first());
        core::iter::successors(Some(first), move |index| Some(shape.after(*index))).take(shape.producers())
    }

    /// Lets the next search begin after `index`.
    pub(crate) fn set_last_claimed(&self, index: Index<Sh>) {
        self.header().set_next_index(self.header().next_index(), self.shape().after(index).number() as u32);
    }

    /// The registered kernel of that name.
    pub fn find(&self, name: &str) -> Option<KernelId> {
        self.find_named(&Name::new(name).ok()?)
    }

    pub(crate) fn find_named(&self, wanted: &Name) -> Option<KernelId> {
        self.kernels().find(|(_, name)| name == wanted).map(|(id, _)| id)
    }

    /// The name of a kernel, if it is still the owner of its index.
    pub fn name(&self, id: KernelId) -> Option<Name> {
        self.entry_of(id)?.name(id.generation())
    }

    /// Sets or replaces the next hop that the kernel at `at` uses for messages to `destination`, while traffic flows.
    ///
    /// # Errors
    /// [`NotRegistered`] names the address nobody is registered at.
    pub fn set_route(&self, at: KernelId, destination: KernelId, next_hop: KernelId) -> Result<(), NotRegistered> {
        let check = |id| if self.is_registered(id) { Ok(()) } else { Err(NotRegistered(id)) };
        let check_all = || [at, destination, next_hop].into_iter().try_for_each(check);
        check_all()?;
        if self.routes().set(at, destination, next_hop, || self.are_last(at, destination)) {
            return Ok(());
        }
        check_all()?;
        Err(NotRegistered(at))
    }

    /// Whether both kernels are the last owners of their indices.
    fn are_last(&self, one: KernelId, other: KernelId) -> bool {
        self.last_of(one).is_some() && self.last_of(other).is_some()
    }

    /// Removes a route: the kernel at `at` sends to `destination` directly again. Routes that were left behind by
    /// kernels that are gone can be removed as well.
    pub fn remove_route(&self, at: KernelId, destination: KernelId) {
        self.routes().remove(at, destination, || self.are_last(at, destination));
    }

    /// The route that `at` has for `destination`; `None` means directly.
    pub fn route(&self, at: KernelId, destination: KernelId) -> Option<KernelId> {
        let indices = (self.index(at.index())?, self.index(destination.index())?);
        self.routes().get((indices.0, at), (indices.1, destination)).filter(|_| self.are_last(at, destination))
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
        Sh::Scope: ReachesHere,
    {
        for id in [receiver, sender] {
            if !self.is_registered(id) {
                return Err(NotRegistered(id));
            }
        }
        self.senders().deny(receiver, sender).map_err(NotRegistered)?;
        let restricted = self.entry_of(receiver).is_some_and(|entry| entry.restrict(receiver.generation()));
        if restricted { Ok(()) } else { Err(NotRegistered(receiver)) }
    }

    /// Allows what [`deny`](Self::deny) has denied. Everybody may send to everybody to begin with.
    pub fn allow(&self, receiver: KernelId, sender: KernelId)
    where
        Sh::Scope: ReachesHere,
    {
        self.senders().allow(receiver, sender);
    }

    /// Whether `sender` may send to `receiver`, as far as [`deny`](Self::deny) is concerned.
    pub fn is_allowed(&self, receiver: KernelId, sender: KernelId) -> bool {
        let restricted = self.last_of(receiver).is_some_and(Entry::is_restricted);
        !restricted || !self.senders().denies(receiver, sender)
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
        Sh::Scope: ReachesHere,
    {
        self.settle_overdue(id, platform.now_ns(), self.config().grace_ns);
        self.peek_receipt(id)
    }

    /// Like [`receipt`](Self::receipt), but only looks: an overdue message may read `Pending`.
    ///
    /// # Errors
    /// As for [`receipt`](Self::receipt).
    pub fn peek_receipt(&self, id: MessageId) -> Result<DeliveryReceipt, ReceiptError> {
        let source = self.index(id.source.index()).filter(|_| !id.source.is_none()).ok_or(ReceiptError::Unknown)?;
        self.receipts(source).read(id.sequence).map(|status| DeliveryReceipt { id, status })
    }

    pub(crate) fn settle_overdue(&self, id: MessageId, now_ns: u64, grace_ns: u64) {
        if let Some(source) = self.index(id.source.index()) {
            self.receipts(source).settle_overdue(id.sequence, now_ns, grace_ns);
        }
    }

    /// Whether the kernel with this address has neither left nor failed, though it may be leaving.
    pub(crate) fn is_owned(&self, id: KernelId) -> bool {
        let Some(entry) = self.entry_of(id) else { return false };
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
        let lying: u64 = self.indices().map(|i| self.sharded(i).waiting() + self.high(i).waiting()).sum();
        let deferred: u64 = self.indices().map(|i| self.transit(i).waiting()).sum();
        let balance: i64 = self.indices().map(|i| self.receipts(i).balance()).sum();
        let overwritten: u64 = self.indices().map(|i| self.outstanding(i).overwritten(self)).sum();
        (lying + deferred + overwritten).saturating_add_signed(balance)
    }

    /// The counters of the index of `id`, over all its owners; `None` if no kernel has had this address yet.
    pub fn stats(&self, id: KernelId) -> Option<Stats> {
        self.once_of(id).map(|entry| Stats::from_counters(&entry.counters()))
    }

    /// The sum of all kernels' counters. It adds up when nobody is sending or receiving.
    pub fn total_stats(&self) -> Stats {
        self.entries()
            .iter()
            .map(|entry| Stats::from_counters(&entry.counters()))
            .fold(Stats::default(), |sum, stats| sum.plus(&stats))
    }

    /// Tells a kernel what to do, and wakes it if it sleeps.
    ///
    /// # Errors
    /// [`NotRegistered`] if it has left.
    pub fn command(&self, id: KernelId, command: Command, platform: &impl Platform) -> Result<(), NotRegistered> {
        let entry = self.entry_of(id).ok_or(NotRegistered(id))?;
        let parks = entry.registered(id).ok_or(NotRegistered(id))?.parks();
        if !entry.set_command(id.generation(), command) {
            return Err(NotRegistered(id));
        }
        entry.wake(parks, platform);
        Ok(())
    }

    /// What a kernel says that it is doing, or has said last; `None` once its index has another owner.
    pub fn phase(&self, id: KernelId) -> Option<Phase> {
        self.last_of(id).map(Entry::phase)
    }

    /// Passes of the kernel's run loop so far, counted on from its predecessor's; `None` once its index has another
    /// owner. A number that stands still while the phase is `Running` means that the kernel hangs in its handler.
    pub fn heartbeat(&self, id: KernelId) -> Option<u64> {
        self.last_of(id).map(Entry::heartbeat)
    }

    /// The entry of a kernel that is the last owner of its index.
    fn last_of(&self, id: KernelId) -> Option<&'f Entry<Sh::Scope>> {
        self.entry_of(id).filter(|entry| entry.state().generation == id.generation())
    }

    /// The entry of a kernel that is the last owner of its index, or an earlier one.
    fn once_of(&self, id: KernelId) -> Option<&'f Entry<Sh::Scope>> {
        self.entry_of(id).filter(|entry| id.generation() <= entry.state().generation)
    }

    /// The last events at a kernel's index, unordered; `None` if no kernel has had this address yet.
    pub fn trace(&self, id: KernelId) -> Option<&'f Trace> {
        self.once_of(id)?;
        self.index(id.index()).map(|i| self.trace_at(i))
    }

    /// How long the messages that were received at a kernel's index had been on their way, as far as that was counted:
    /// see [`set_latency`](Self::set_latency). `None` if no kernel has had this address yet.
    pub fn latency(&self, id: KernelId) -> Option<Latency> {
        self.once_of(id)?;
        self.index(id.index()).map(|i| self.latencies_at(i).read())
    }

    /// What is noted of the failures that were counted at a kernel's index; `None` if no kernel has had this address
    /// yet.
    pub fn failures(&self, id: KernelId) -> Option<&'f Failures> {
        self.once_of(id)?;
        self.index(id.index()).map(|i| self.failures_at(i))
    }

    /// Makes the index of a failed kernel free for others. Until then its name, phase and trace can be read.
    ///
    /// # Errors
    /// [`NotFailed`] says what `id` is instead.
    pub fn clear_failed(&self, id: KernelId) -> Result<(), NotFailed> {
        let cleared = self.entry_of(id).is_some_and(|entry| entry.clear_failed(id.generation()));
        if cleared { Ok(()) } else { Err(NotFailed { kernel: id, is_here: self.is_owned(id) }) }
    }
}

impl<'f, const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize, S: Scope>
    FabricRef<'f, Fixed<KERNELS, SLOTS, PAYLOAD, S>>
{
    /// The fabric as its type.
    #[inline(always)]
    #[must_use]
    pub const fn storage(&self) -> &'f Fabric<KERNELS, SLOTS, PAYLOAD, S> {
        // SAFETY: a fabric of this very shape. `Shared`: any bytes are a valid one, and it is behind atomics and cells.
        unsafe { self.part.address(0).cast().as_ref() }
    }
}

/// The address, if it is aligned and there are enough bytes.
fn check_bytes(base: *mut u8, found: usize, expected: usize) -> Result<NonNull<u8>, AttachError> {
    if found < expected {
        return Err(AttachError::TooSmall { found, expected });
    }
    let expected = align_of::<FabricHeader>();
    let remainder = base.addr() % expected;
    NonNull::new(base).filter(|_| remainder == 0).ok_or(AttachError::Misaligned { remainder, expected })
}

impl<const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize, S: Scope> Default
    for Fabric<KERNELS, SLOTS, PAYLOAD, S>
{
    fn default() -> Self {
        Self::new()
    }
}
