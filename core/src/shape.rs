//! How many kernels, slots and payload bytes a fabric has: known when the program is compiled, or read from its header.
//!
//! The algorithms of rings and fabrics reach storage by a base address and offsets. Where these come from is a type:
//!
//! | type | counts and offsets are | size | for |
//! | --- | --- | --- | --- |
//! | [`Fixed`] | constants, those of the structs | none | programs that name the shape, device code |
//! | [`Read`] | read once from a fabric's header, checked, and kept | [`Numbers`] | hosts, tools: any fabric within limits |
//!
//! Both reach the same bytes: [`Numbers::of`] computes what the compiler lays out, and each `Fixed` shape that anybody
//! compiles is compared with it then.
//!
//! # Why an access is never wild
//!
//! 1. A `Ring`'s numbers never change, and those of a [`Read`] shape come from [`Numbers::of`], which no header can make
//!    overflow. They are never read from shared memory again.
//! 2. An [`Index`] of a [`Fixed`] shape is below its number of kernels, by type. One of a [`Read`] shape is below the
//!    type's maximum, and `Fan::below` clamps it before it becomes an offset: an index of another fabric is a wrong kernel
//!    at worst.

use crate::fabric::{AttachError, Fabric, Geometry, Outstanding, Receipts, Transit};
#[cfg(not(k2k_loom))]
use crate::fabric::{Entry, FabricHeader, Failures, Hand, Latencies, Trace};
use crate::in_place::memory_of;
#[cfg(not(k2k_loom))]
use crate::link::ReadFrames;
use crate::link::{FixedFrames, Frames};
use crate::message::{Header, Message};
use crate::ring::sharded::Sharded;
use crate::ring::spsc::{Slot, Slots};
#[cfg(not(k2k_loom))]
use crate::ring::{sharded::DoorbellRow, spsc::Credit, ticket::TicketView};
#[cfg(not(k2k_loom))]
use crate::sync::AtomicU32;
use crate::sync::{AtomicU64, Scope, Shared, SharedCell, System};
use bytemuck::AnyBitPattern;
use core::fmt::Debug;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ops;
use core::ptr::NonNull;

/// The shape of a single ring.
///
/// # Safety
/// What the methods return never changes. `slots` is a power of two, and `mask` one less. `stride` is the size of a slot for a body of a first
/// line and `lines` more, or of an [`Item`](Self::Item).
#[doc(hidden)]
pub unsafe trait Ring: Copy + Debug + Eq + Send + Sync + 'static {
    /// The messages, as the program holds them.
    type Item: AnyBitPattern + Send;
    /// How far apart the two sides may be.
    type Scope: Scope;

    /// How many messages it holds.
    fn slots(&self) -> usize;

    /// What is left of a position is the number of its slot.
    #[inline(always)]
    fn mask(&self) -> usize {
        self.slots() - 1
    }

    /// Bytes from one slot to the next.
    fn stride(&self) -> usize;

    /// Lines of a slot's body behind the first.
    fn lines(&self) -> usize;
}

/// Where the parts of a sharded queue are, in bytes from its start.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueNumbers {
    /// The consumer's notes.
    pub(crate) notes: usize,
    /// The shards.
    pub(crate) shards: usize,
    /// Bytes from one shard to the next.
    pub(crate) shard: usize,
}

/// The shape of many rings to one consumer.
///
/// # Safety
/// As for [`Ring`]: `below` is `last` at most, which is one less than `producers`, and that is at least 1 and at most `LENGTH`. An [`Each`](Self::Each) and
/// a [`Local`](Self::Local) are arrays of that length.
#[doc(hidden)]
pub unsafe trait Fan: Ring {
    /// A thing for each producer, perhaps with more behind.
    type Each<T: Send>: Send
        + ops::Index<Index<Self>, Output = T>
        + ops::IndexMut<Index<Self>>
        + AsRef<[T]>
        + AsMut<[T]>;

    /// As `Each`, of things that may be bound to a thread.
    type Local<T>: ops::Index<Index<Self>, Output = T> + ops::IndexMut<Index<Self>> + AsRef<[T]>;

    /// The length of an `Each` and of a `Local`.
    const LENGTH: usize;

    /// How many producers there are at most.
    fn producers(&self) -> usize;

    /// The number of the last one.
    #[inline(always)]
    fn last(&self) -> usize {
        self.producers() - 1
    }

    /// Where the parts of a queue are.
    fn queue(&self) -> QueueNumbers;

    /// The number of an index.
    fn below(&self, index: Index<Self>) -> usize;

    /// Makes a thing for each producer, where they are to lie. Those behind are made by `Default`.
    fn each_in<'e, T: Default + Send>(
        &self,
        memory: &'e mut MaybeUninit<Self::Each<T>>,
        mut make: impl FnMut(Index<Self>) -> T,
    ) -> &'e mut Self::Each<T> {
        for i in 0..Self::LENGTH {
            let value = self.index(i).map_or_else(T::default, &mut make);
            // SAFETY: the trait's promise: an array of this length.
            unsafe { memory.as_mut_ptr().cast::<T>().add(i).write(value) };
        }
        // SAFETY: all of the array was written.
        unsafe { memory.assume_init_mut() }
    }

    /// Makes a thing for each producer, and for each place behind, where they are to lie.
    fn local_in<'e, T>(
        &self,
        memory: &'e mut MaybeUninit<Self::Local<T>>,
        mut make: impl FnMut(&mut MaybeUninit<T>) -> &mut T,
    ) -> &'e mut Self::Local<T> {
        for i in 0..Self::LENGTH {
            // SAFETY: the trait's promise: an array of this length.
            make(unsafe { memory_of(memory.as_mut_ptr().cast::<T>().add(i)) });
        }
        // SAFETY: all of the array was made.
        unsafe { memory.assume_init_mut() }
    }

    /// The index of a number, if there is such a producer.
    #[inline(always)]
    fn index(&self, number: usize) -> Option<Index<Self>> {
        if number <= self.last() { Some(Index(number, PhantomData)) } else { None }
    }

    /// The first index.
    #[inline(always)]
    fn first(&self) -> Index<Self> {
        Index(0, PhantomData)
    }

    /// All indices, in order.
    #[inline(always)]
    fn indices(&self) -> impl Iterator<Item = Index<Self>> + use<Self> {
        (0..self.producers()).map(|number| Index(number, PhantomData))
    }

    /// The index after this one; after the last one, the first.
    #[inline(always)]
    fn after(&self, index: Index<Self>) -> Index<Self> {
        self.index(index.0 + 1).unwrap_or_else(|| self.first())
    }
}

/// The number of a kernel or a producer, checked once against a shape.
#[derive(Debug)]
pub struct Index<F>(usize, PhantomData<fn() -> F>);

impl<F> Index<F> {
    /// As a number.
    #[inline(always)]
    pub(crate) const fn number(self) -> usize {
        self.0
    }
}

impl<F> Clone for Index<F> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}
impl<F> Copy for Index<F> {}
impl<F> Default for Index<F> {
    /// The first: there is one in each shape.
    #[inline(always)]
    fn default() -> Self {
        Self(0, PhantomData)
    }
}
impl<F> PartialEq for Index<F> {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<F> Eq for Index<F> {}

/// A header and what follows it: what generic code knows of a [`Message`].
pub trait Packet: AnyBitPattern + Send {
    /// The fixed part.
    fn header(&self) -> &Header;

    /// The fixed part.
    fn header_mut(&mut self) -> &mut Header;

    /// An empty one.
    fn empty() -> Self {
        bytemuck::Zeroable::zeroed()
    }

    /// Bytes from the start that count.
    #[inline(always)]
    fn used(&self) -> usize {
        self.header().used()
    }
}

impl<const PAYLOAD: usize> Packet for Message<PAYLOAD> {
    #[inline(always)]
    fn header(&self) -> &Header {
        &self.header
    }

    #[inline(always)]
    fn header_mut(&mut self) -> &mut Header {
        &mut self.header
    }
}

/// `PRODUCERS` rings of `N` messages, all of which the compiler knows.
pub struct Typed<T, const PRODUCERS: usize, const N: usize, S = System>(PhantomData<fn() -> (T, S)>);

impl<T, const PRODUCERS: usize, const N: usize, S> Typed<T, PRODUCERS, N, S> {
    /// The only one.
    pub(crate) const SHAPE: Self = Self(PhantomData);
}

impl<T, const PRODUCERS: usize, const N: usize, S> Default for Typed<T, PRODUCERS, N, S> {
    fn default() -> Self {
        Self::SHAPE
    }
}
impl<T, const PRODUCERS: usize, const N: usize, S> Clone for Typed<T, PRODUCERS, N, S> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}
impl<T, const PRODUCERS: usize, const N: usize, S> Copy for Typed<T, PRODUCERS, N, S> {}
impl<T, const PRODUCERS: usize, const N: usize, S> PartialEq for Typed<T, PRODUCERS, N, S> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl<T, const PRODUCERS: usize, const N: usize, S> Eq for Typed<T, PRODUCERS, N, S> {}
impl<T, const PRODUCERS: usize, const N: usize, S> Debug for Typed<T, PRODUCERS, N, S> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{PRODUCERS} x {N}")
    }
}

// SAFETY: constants, those of the structs; `MASK` sees to it that `N` is a power of two.
unsafe impl<T: AnyBitPattern + Send + 'static, const PRODUCERS: usize, const N: usize, S: Scope> Ring
    for Typed<T, PRODUCERS, N, S>
{
    type Item = T;
    type Scope = S;

    #[inline(always)]
    fn slots(&self) -> usize {
        Slots::<T, N, S>::MASK as usize + 1
    }

    #[inline(always)]
    fn stride(&self) -> usize {
        size_of::<Slot<T, S>>()
    }

    #[inline(always)]
    fn lines(&self) -> usize {
        SharedCell::<T>::MORE_LINES
    }
}

// SAFETY: constants; an index of this type is below `PRODUCERS`, however it was made.
unsafe impl<T: AnyBitPattern + Send + 'static, const PRODUCERS: usize, const N: usize, S: Scope> Fan
    for Typed<T, PRODUCERS, N, S>
{
    type Each<U: Send> = [U; PRODUCERS];
    type Local<U> = [U; PRODUCERS];
    const LENGTH: usize = PRODUCERS;

    #[inline(always)]
    fn producers(&self) -> usize {
        const { assert!(PRODUCERS > 0) };
        PRODUCERS
    }

    #[inline(always)]
    fn queue(&self) -> QueueNumbers {
        Sharded::<T, PRODUCERS, N, S>::NUMBERS
    }

    #[inline(always)]
    fn below(&self, index: Index<Self>) -> usize {
        index.0
    }
}

impl<U, T, const PRODUCERS: usize, const N: usize, S> ops::Index<Index<Typed<T, PRODUCERS, N, S>>> for [U; PRODUCERS] {
    type Output = U;

    #[inline(always)]
    fn index(&self, index: Index<Typed<T, PRODUCERS, N, S>>) -> &U {
        // SAFETY: an index of this type is below `PRODUCERS`, however it was made.
        unsafe { self.as_slice().get_unchecked(index.0) }
    }
}

impl<U, T, const PRODUCERS: usize, const N: usize, S> ops::IndexMut<Index<Typed<T, PRODUCERS, N, S>>>
    for [U; PRODUCERS]
{
    #[inline(always)]
    fn index_mut(&mut self, index: Index<Typed<T, PRODUCERS, N, S>>) -> &mut U {
        // SAFETY: as in `index`.
        unsafe { self.as_mut_slice().get_unchecked_mut(index.0) }
    }
}

/// All counts, strides and offsets of a fabric. The only place that knows them.
///
/// The fields are private: made by hand, they would be wild accesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    pub(crate) kernels: usize,
    pub(crate) slots: usize,
    /// One less than each: the last kernel, and the bits of a position that are the number of its slot.
    pub(crate) last: usize,
    pub(crate) mask: usize,
    pub(crate) payload: usize,
    /// Bytes from one slot of a ring to the next, and of a transit store.
    pub(crate) slot: usize,
    pub(crate) transit_slot: usize,
    /// In an inbox: its queue, its high-priority ring, its length.
    pub(crate) queue: QueueNumbers,
    pub(crate) high: usize,
    pub(crate) inbox: usize,
    /// In a kernel's receipts: their terms, what was retracted, the base, their length.
    pub(crate) terms: usize,
    pub(crate) retracted: usize,
    pub(crate) base: usize,
    pub(crate) receipts_len: usize,
    /// Lengths of a kernel's records and of its transit store.
    pub(crate) outstanding_len: usize,
    pub(crate) transit_len: usize,
    /// In a fabric.
    pub(crate) entries: usize,
    pub(crate) routes: usize,
    pub(crate) senders: usize,
    pub(crate) inboxes: usize,
    pub(crate) receipts: usize,
    pub(crate) hands: usize,
    pub(crate) outstanding: usize,
    pub(crate) transit: usize,
    pub(crate) traces: usize,
    pub(crate) failures: usize,
    pub(crate) latencies: usize,
    pub(crate) size: usize,
}

/// The largest number of kernels, of slots, and of payload bytes.
const MOST: [usize; 3] = [4096, 1 << 15, 65472];

impl Numbers {
    /// Those of a fabric of this shape; `None` if there is no such shape, or it does not fit into the address space.
    #[cfg(not(k2k_loom))]
    #[must_use]
    pub const fn of<S: Scope>(kernels: usize, slots: usize, payload: usize) -> Option<Self> {
        if kernels == 0 || kernels > MOST[0] || !slots.is_power_of_two() || slots > MOST[1] {
            return None;
        }
        if !payload.is_multiple_of(64) || payload > MOST[2] {
            return None;
        }
        // With these limits nothing is more than 2⁵⁶.
        let (k, s) = (kernels as u64, slots as u64);
        const fn up(bytes: u64) -> u64 {
            bytes.next_multiple_of(128)
        }
        const fn size<T>() -> u64 {
            size_of::<T>() as u64
        }
        let word = size::<AtomicU64<S>>();
        let slot = size::<Slot<Message<0>, S>>() + payload as u64;
        let ring = up(s * slot);
        let notes = k * size::<DoorbellRow<S>>();
        let shards = notes + up(k * word) + up((k + 1) * size::<AtomicU32<S>>());
        let shard = size::<Credit<S>>() + ring;
        let high = shards + k * shard;
        let inbox = high + TicketView::<Fixed<1, 1, 0, S>>::SLOTS as u64 + ring;
        let terms = up(k * s * word);
        let retracted = terms + k * s * Receipts::<1, 1, S>::TERMS_SIZE as u64;
        let base = retracted + k * s * word;
        let receipts_len = up(base + word);
        let outstanding_len = up(s * Outstanding::<1>::RECORD_SIZE as u64);
        let transit_len = up(Transit::<1, 0>::SLOTS_AT as u64 + s * slot);
        let entries = size::<FabricHeader>();
        let routes = entries + k * size::<Entry<S>>();
        let senders = routes + up(k * k * word);
        let inboxes = senders + up(k * k * word);
        let receipts = inboxes + k * inbox;
        let hands = receipts + k * receipts_len;
        let outstanding = hands + k * size::<Hand<S>>();
        let transit = outstanding + k * outstanding_len;
        let traces = transit + k * transit_len;
        let failures = traces + k * size::<Trace>();
        let latencies = failures + k * size::<Failures>();
        let size = latencies + k * size::<Latencies>();
        if size > isize::MAX as u64 {
            return None;
        }
        // No number below is larger than `size`.
        Some(Self {
            kernels,
            slots,
            last: kernels - 1,
            mask: slots - 1,
            payload,
            slot: slot as usize,
            transit_slot: slot as usize,
            queue: QueueNumbers { notes: notes as usize, shards: shards as usize, shard: shard as usize },
            high: high as usize,
            inbox: inbox as usize,
            terms: terms as usize,
            retracted: retracted as usize,
            base: base as usize,
            receipts_len: receipts_len as usize,
            outstanding_len: outstanding_len as usize,
            transit_len: transit_len as usize,
            entries: entries as usize,
            routes: routes as usize,
            senders: senders as usize,
            inboxes: inboxes as usize,
            receipts: receipts as usize,
            hands: hands as usize,
            outstanding: outstanding as usize,
            transit: transit as usize,
            traces: traces as usize,
            failures: failures as usize,
            latencies: latencies as usize,
            size: size as usize,
        })
    }

    /// Those that the compiler lays out.
    pub(crate) const fn of_struct<const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize, S: Scope>() -> Self {
        type Whole<const K: usize, const N: usize, const P: usize, S> = Fabric<K, N, P, S>;
        assert!(KERNELS >= 1 && KERNELS <= MOST[0], "a fabric has 1 to 4096 kernels");
        let () = Message::<PAYLOAD>::SIZE_IS_RIGHT;
        let [high, inbox] = Whole::<KERNELS, SLOTS, PAYLOAD, S>::INBOX;
        let [terms, retracted, base, receipts_len] = Receipts::<KERNELS, SLOTS, S>::OFFSETS;
        let [
            entries,
            routes,
            senders,
            inboxes,
            receipts,
            hands,
            outstanding,
            transit,
            traces,
            failures,
            latencies,
            size,
        ] = Whole::<KERNELS, SLOTS, PAYLOAD, S>::OFFSETS;
        Self {
            kernels: KERNELS,
            slots: SLOTS,
            last: KERNELS - 1,
            mask: SLOTS - 1,
            payload: PAYLOAD,
            slot: size_of::<Slot<Message<PAYLOAD>, S>>(),
            transit_slot: Transit::<SLOTS, PAYLOAD>::STRIDE,
            queue: Sharded::<Message<PAYLOAD>, KERNELS, SLOTS, S>::NUMBERS,
            high,
            inbox,
            terms,
            retracted,
            base,
            receipts_len,
            outstanding_len: size_of::<Outstanding<SLOTS>>(),
            transit_len: size_of::<Transit<SLOTS, PAYLOAD>>(),
            entries,
            routes,
            senders,
            inboxes,
            receipts,
            hands,
            outstanding,
            transit,
            traces,
            failures,
            latencies,
            size,
        }
    }

    /// Whether both are the same.
    #[cfg(not(k2k_loom))]
    pub(crate) const fn is(&self, other: &Self) -> bool {
        const WORDS: usize = size_of::<Numbers>() / size_of::<usize>();
        // SAFETY: nothing but `usize`s.
        let [a, b]: [[usize; WORDS]; 2] =
            unsafe { [core::mem::transmute_copy(self), core::mem::transmute_copy(other)] };
        let mut i = 0;
        while i < WORDS {
            if a[i] != b[i] {
                return false;
            }
            i += 1;
        }
        true
    }

    /// As a header says it.
    pub(crate) const fn geometry(&self) -> Geometry {
        Geometry {
            kernels: self.kernels as u32,
            slots: self.slots as u32,
            payload: self.payload as u32,
            size: self.size as u64,
        }
    }
}

/// How many kernels, slots and payload bytes a fabric has, and how far apart its kernels may be: [`Fixed`] or [`Read`].
///
/// # Safety
/// As for `Fan`: `numbers` never changes, and describes the memory that the shape is used for. `slots`, `stride`,
/// `producers` and `queue` are taken from it.
pub unsafe trait Shape: Fan<Item: Packet> {
    /// The frames of links to fabrics of this shape, `FRAMES` each way.
    type Frames<const FRAMES: usize>: Frames<Item = Self::Item>;

    /// The same shape where kernels are as far apart as `S` says: no byte lies elsewhere.
    type InScope<S: Scope>: Shape<Item = Self::Item, Scope = S>;

    /// Frames that carry this shape's messages.
    fn frames<const FRAMES: usize>(&self) -> Self::Frames<FRAMES>;

    /// This shape, in another scope.
    fn in_scope<S: Scope>(&self) -> Self::InScope<S>;

    /// Counts and offsets.
    #[doc(hidden)]
    fn numbers(&self) -> Numbers;

    /// Bytes that a fabric of this type has at least.
    #[doc(hidden)]
    const LEAST: usize;

    /// Kernels, slots and payload, where nobody says others.
    #[doc(hidden)]
    const USUAL: [usize; 3];

    /// The shape of so many kernels, of `slots` messages per kernel pair, and of so many bytes of payload, if it is one of
    /// this type's.
    ///
    /// # Errors
    /// [`AttachError::Geometry`] or [`AttachError::Shape`] says which it would have to be.
    fn of(kernels: usize, slots: usize, payload: usize) -> Result<Self, AttachError>;

    /// Bytes of a fabric of this shape.
    fn size(&self) -> usize {
        self.numbers().size
    }

    /// As a header says it.
    fn geometry(&self) -> Geometry {
        self.numbers().geometry()
    }

    /// How many receipts a sender has.
    #[doc(hidden)]
    #[inline(always)]
    fn receipts(&self) -> u64 {
        (self.producers() * self.slots()) as u64
    }

    /// The shape that a header tells of, if it is one of this type's.
    ///
    /// # Errors
    /// Which numbers it would have to have.
    #[doc(hidden)]
    fn found(found: Geometry) -> Result<Self, AttachError>;
}

/// A shape that the compiler knows: it has no size, and its offsets are constants.
pub type Fixed<const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize, S = System> =
    Typed<Message<PAYLOAD>, KERNELS, SLOTS, S>;

// SAFETY: constants, those of the structs.
unsafe impl<const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize, S: Scope> Shape
    for Typed<Message<PAYLOAD>, KERNELS, SLOTS, S>
{
    type Frames<const FRAMES: usize> = FixedFrames<FRAMES, PAYLOAD>;
    type InScope<T: Scope> = Fixed<KERNELS, SLOTS, PAYLOAD, T>;

    fn frames<const FRAMES: usize>(&self) -> Self::Frames<FRAMES> {
        Typed::SHAPE
    }

    fn in_scope<T: Scope>(&self) -> Self::InScope<T> {
        Typed::SHAPE
    }

    #[inline(always)]
    fn numbers(&self) -> Numbers {
        Fabric::<KERNELS, SLOTS, PAYLOAD, S>::NUMBERS
    }

    const LEAST: usize = Fabric::<KERNELS, SLOTS, PAYLOAD, S>::NUMBERS.size;
    const USUAL: [usize; 3] = [KERNELS, SLOTS, PAYLOAD];

    fn of(kernels: usize, slots: usize, payload: usize) -> Result<Self, AttachError> {
        let expected = Fabric::<KERNELS, SLOTS, PAYLOAD, S>::GEOMETRY;
        let [kernels, slots, payload] = [kernels, slots, payload].map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        Self::found(Geometry { kernels, slots, payload, ..expected })
    }

    fn found(found: Geometry) -> Result<Self, AttachError> {
        let expected = Fabric::<KERNELS, SLOTS, PAYLOAD, S>::GEOMETRY;
        if found == expected { Ok(Self::SHAPE) } else { Err(AttachError::Geometry { found, expected }) }
    }
}

/// A shape that is read from a fabric's header: of `KERNELS` kernels and `PAYLOAD` bytes of payload at most. Endpoints
/// keep as much state as for so many, and messages are [`Message<PAYLOAD>`](Message).
///
/// ```
/// use k2k_core::{Config, Message, Platform, Read, Registration, FabricRef, WakeFlag};
///
/// # struct Clock;
/// # impl Platform for Clock {
/// #     fn now_ns(&self) -> u64 { 1 }
/// #     fn wake(&self, _: &WakeFlag) {}
/// # }
/// # #[repr(C, align(128))]
/// # struct Aligned([u8; 1 << 16]);
/// # let mut memory = Box::new(Aligned([0; 1 << 16]));
/// # let bytes = &mut memory.0;
/// // The numbers may come from a configuration file.
/// let shape = Read::<8, 256>::new(2, 16, 64)?;
/// let fabric = FabricRef::create(bytes, shape, &Config::default())?;
/// let mut a = fabric.register(&Registration::new("a")?, Clock)?;
/// let mut b = fabric.register(&Registration::new("b")?, Clock)?;
/// a.send(b.id(), &Message::from_bytes(1, b"hello")?)?;
/// assert_eq!(b.try_receive().expect("sent").payload(), b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[cfg(not(k2k_loom))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read<const KERNELS: usize = 64, const PAYLOAD: usize = 4096, S = System>(Numbers, PhantomData<fn() -> S>);

#[cfg(not(k2k_loom))]
impl<const KERNELS: usize, const PAYLOAD: usize, S: Scope> Read<KERNELS, PAYLOAD, S> {
    /// The shape of so many kernels, of `slots` messages per kernel pair, and of so many bytes of payload.
    ///
    /// # Errors
    /// [`AttachError::Shape`] if no fabric has this shape, or it is more than this type is for.
    pub const fn new(kernels: usize, slots: usize, payload: usize) -> Result<Self, AttachError> {
        match Numbers::of::<S>(kernels, slots, payload) {
            Some(numbers) if kernels <= KERNELS && payload <= PAYLOAD => Ok(Self(numbers, PhantomData)),
            _ => Err(AttachError::Shape { kernels, slots, payload, most_kernels: KERNELS, most_payload: PAYLOAD }),
        }
    }
}

// SAFETY: the numbers are those of `Numbers::of`, and private.
#[cfg(not(k2k_loom))]
unsafe impl<const KERNELS: usize, const PAYLOAD: usize, S: Scope> Ring for Read<KERNELS, PAYLOAD, S> {
    type Item = Message<PAYLOAD>;
    type Scope = S;

    #[inline(always)]
    fn slots(&self) -> usize {
        self.0.slots
    }

    #[inline(always)]
    fn mask(&self) -> usize {
        self.0.mask
    }

    #[inline(always)]
    fn stride(&self) -> usize {
        self.0.slot
    }

    #[inline(always)]
    fn lines(&self) -> usize {
        self.0.payload / 64
    }
}

// SAFETY: as above; `below` clamps.
#[cfg(not(k2k_loom))]
unsafe impl<const KERNELS: usize, const PAYLOAD: usize, S: Scope> Fan for Read<KERNELS, PAYLOAD, S> {
    type Each<T: Send> = [T; KERNELS];
    type Local<T> = [T; KERNELS];
    const LENGTH: usize = KERNELS;

    #[inline(always)]
    fn producers(&self) -> usize {
        self.0.kernels
    }

    #[inline(always)]
    fn last(&self) -> usize {
        self.0.last
    }

    #[inline(always)]
    fn queue(&self) -> QueueNumbers {
        self.0.queue
    }

    #[inline(always)]
    fn below(&self, index: Index<Self>) -> usize {
        index.0.min(self.0.last)
    }
}

// SAFETY: as above.
#[cfg(not(k2k_loom))]
unsafe impl<const KERNELS: usize, const PAYLOAD: usize, S: Scope> Shape for Read<KERNELS, PAYLOAD, S> {
    type Frames<const FRAMES: usize> = ReadFrames<FRAMES, PAYLOAD>;
    type InScope<T: Scope> = Read<KERNELS, PAYLOAD, T>;

    fn frames<const FRAMES: usize>(&self) -> Self::Frames<FRAMES> {
        ReadFrames::of_lines(self.0.payload / 64)
    }

    fn in_scope<T: Scope>(&self) -> Self::InScope<T> {
        Read(self.0, PhantomData)
    }

    #[inline(always)]
    fn numbers(&self) -> Numbers {
        self.0
    }

    const LEAST: usize = size_of::<FabricHeader>();
    const USUAL: [usize; 3] = [if KERNELS < 16 { KERNELS } else { 16 }, 256, if PAYLOAD < 192 { PAYLOAD } else { 192 }];

    fn of(kernels: usize, slots: usize, payload: usize) -> Result<Self, AttachError> {
        Self::new(kernels, slots, payload)
    }

    fn found(found: Geometry) -> Result<Self, AttachError> {
        let shape = Self::new(found.kernels as usize, found.slots as usize, found.payload as usize)?;
        let expected = shape.0.geometry();
        if found == expected { Ok(shape) } else { Err(AttachError::Geometry { found, expected }) }
    }
}

#[cfg(not(k2k_loom))]
impl<T, const KERNELS: usize, const PAYLOAD: usize, S> ops::Index<Index<Read<KERNELS, PAYLOAD, S>>> for [T; KERNELS] {
    type Output = T;

    #[inline(always)]
    fn index(&self, index: Index<Read<KERNELS, PAYLOAD, S>>) -> &T {
        // SAFETY: an index of this type is below the kernels of some shape of this type: at most `KERNELS`.
        unsafe { self.as_slice().get_unchecked(index.0) }
    }
}

#[cfg(not(k2k_loom))]
impl<T, const KERNELS: usize, const PAYLOAD: usize, S> ops::IndexMut<Index<Read<KERNELS, PAYLOAD, S>>>
    for [T; KERNELS]
{
    #[inline(always)]
    fn index_mut(&mut self, index: Index<Read<KERNELS, PAYLOAD, S>>) -> &mut T {
        // SAFETY: as in `index`.
        unsafe { self.as_mut_slice().get_unchecked_mut(index.0) }
    }
}

/// A part of a fabric, or all of it, where it lies.
pub(crate) struct Part<'f, Sh, What> {
    base: NonNull<u8>,
    pub(crate) shape: Sh,
    memory: PhantomData<&'f AtomicU64>,
    what: PhantomData<fn() -> What>,
}

impl<Sh: Copy, What> Clone for Part<'_, Sh, What> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}
impl<Sh: Copy, What> Copy for Part<'_, Sh, What> {}
// SAFETY: what is behind it are atomics, and cells of messages that the protocol hands over.
unsafe impl<Sh: Shape, What> Send for Part<'_, Sh, What> {}
// SAFETY: as above.
unsafe impl<Sh: Shape, What> Sync for Part<'_, Sh, What> {}

impl<'f, Sh, What> Part<'f, Sh, What> {
    /// # Safety
    /// For `'f`, there is such a part of a fabric of this shape at `base`.
    #[inline(always)]
    pub(crate) const unsafe fn at(base: NonNull<u8>, shape: Sh) -> Self {
        Self { base, shape, memory: PhantomData, what: PhantomData }
    }

    /// The address `offset` bytes from the start.
    ///
    /// # Safety
    /// That is inside the part.
    #[inline(always)]
    pub(crate) const unsafe fn address(&self, offset: usize) -> NonNull<u8> {
        // SAFETY: passed on.
        unsafe { self.base.add(offset) }
    }

    /// The `i`th `T` of those that begin `offset` bytes from the start.
    ///
    /// # Safety
    /// There are more than `i`.
    #[inline(always)]
    pub(crate) const unsafe fn item<T: Shared>(&self, offset: usize, i: usize) -> &'f T {
        // SAFETY: passed on. `Shared`: any bytes are a valid `T`, and it is behind atomics and cells.
        unsafe { self.base.add(offset).cast::<T>().add(i).as_ref() }
    }
}

#[cfg(test)]
#[cfg(not(k2k_loom))]
mod tests {
    use super::*;
    use crate::sync::Gpu;

    /// The comparison is made when the program is compiled.
    #[test]
    fn the_formula_is_the_struct() {
        fn size<const K: usize, const N: usize, const P: usize>() -> [usize; 2] {
            [Fabric::<K, N, P>::NUMBERS.size, Fabric::<K, N, P, Gpu>::NUMBERS.size]
        }
        for [system, gpu] in [
            size::<1, 1, 0>(),
            size::<2, 4, 64>(),
            size::<3, 8, 0>(),
            size::<5, 2, 192>(),
            size::<17, 16, 64>(),
            size::<64, 1, 128>(),
            size::<65, 1, 0>(),
        ] {
            assert_eq!(system, gpu);
        }
    }

    /// Both shapes are of one type, so nothing but the clamp keeps the index of one out of the memory of the other.
    #[test]
    fn an_index_of_a_larger_fabric_is_no_wild_access_in_a_smaller_one() {
        let [large, small] = [8, 3].map(|kernels| Read::<8, 64>::of(kernels, 4, 64).unwrap());
        for index in large.indices() {
            assert_eq!(small.below(index), index.number().min(2));
        }
    }

    #[test]
    fn indices_are_in_turn_and_equal_only_to_themselves() {
        let shape = Read::<8, 64>::of(3, 4, 64).unwrap();
        let [a, b, c] = [0, 1, 2].map(|number| shape.index(number).unwrap());
        assert!(a == shape.first() && a != b && b != c && a != c && shape.index(3).is_none());
        assert!([a, b, c].map(|index| shape.after(index)) == [b, c, a]);
        assert!(shape.indices().eq([a, b, c]));
    }

    #[test]
    fn no_numbers_make_the_formula_overflow() {
        let values = [0, 1, 2, 3, 63, 64, 65, 4095, 4096, 4097, 1 << 15, 65472, 65536, u32::MAX as usize, usize::MAX];
        for kernels in values {
            for slots in values {
                for payload in values {
                    if let Some(numbers) = Numbers::of::<System>(kernels, slots, payload) {
                        assert!(kernels <= 4096 && slots <= 1 << 15 && payload <= 65472);
                        assert!(numbers.traces < numbers.size && numbers.inboxes < numbers.receipts);
                    }
                }
            }
        }
    }
}
