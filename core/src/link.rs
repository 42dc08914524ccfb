//! A link: what joins two memory domains, and all that either side ever sees of the other. It carries [`Message`]s and
//! bare headers; [`gateway`](crate::gateway) says what they mean.
//!
//! A ring each way, cut so that every word lies with the side that polls it: a write across a bus is posted and cheap,
//! a read is a round trip. A link is therefore two *halves*, one in each side's memory:
//!
//! ```text
//!            side A's memory                                   side B's memory
//!   +--------------------------------+                +--------------------------------+
//!   | header   A's own               |                | header   B's own               |
//!   | heartbeat <--------- B counts -|----------------|- A counts ---------> heartbeat |
//!   | credit    <------- how far B --|----------------|-- how far A ------->  credit   |
//!   |                   has read     |                |   has read                     |
//!   | slots     <------- B's frames -|----------------|- A's frames ------->  slots    |
//!   +--------------------------------+                +--------------------------------+
//!     A polls only this half, and stores into it         B polls only this half, and stores into it
//!     its own header                                     its own header
//! ```
//!
//! Where the two domains cannot both reach both memories, both halves may lie in one that they share.
//!
//! How many payload bytes a frame has is known when the program is compiled ([`LinkHalf`]), or at run time
//! ([`ReadFrames`]). Both reach the same bytes, through a [`HalfRef`].
//!
//! # Who may touch what
//!
//! 1. `LinkHeader`: written by the side that owns the half; the other one only reads `magic` to `size`, once.
//! 2. `LinkHeartbeat`, `Credit`, `Slots`: as the picture says. The rings are those of
//!    [`ring::spsc`](crate::ring::spsc).
//! 3. A compare-exchange happens only on `magic` and `claimed`, and only by the half's owner: across a bus it would not
//!    be atomic.
//!
//! # Synchronisation
//!
//! | label | release | acquire | what becomes visible |
//! | --- | --- | --- | --- |
//! | `link-ready` | owner's store of the magic | anyone's load of it | version and shape |
//! | `slot-published`, `slot-freed`, `end-handed-over` | as in [`ring::spsc`](crate::ring::spsc) | | |

use crate::message::{Header, Message};
#[cfg(not(k2k_loom))]
use crate::ring::spsc::Slot;
use crate::ring::spsc::{ConsumerState, Credit, ProducerState, Slots, SpscView, claim_end, release_end};
use crate::shape::{Packet, Ring, Typed};
use crate::sync::Ordering::{Acquire, Relaxed, Release};
use crate::sync::{AtomicU32, AtomicU64, Body, Shared, System, shared_struct};
use core::fmt;
use core::marker::PhantomData;
use core::mem::offset_of;
use core::ptr::NonNull;

/// "K2Klink0" in ASCII, little-endian: the first word of every half in use.
pub const LINK_MAGIC: u64 = u64::from_le_bytes(*b"K2Klink0");
/// Stands in the magic's place while the rest of the header is written.
const CLAIMED: u64 = u64::from_le_bytes(*b"K2Kbegun");

/// Version of the layout of a half and of the frames.
pub const LINK_VERSION: u32 = 2;

shared_struct! {
    /// What a half is, and who uses it. Its owner's.
    #[repr(align(128))]
    pub struct LinkHeader[][] {
        magic: AtomicU64,
        version: AtomicU32,
        frames: AtomicU32,
        payload: AtomicU32,
        /// 0 is free, 1 is in use.
        claimed: AtomicU32,
        /// Size of the half, bytes.
        size: AtomicU64,
        /// Position after the last frame consumed; for a successor.
        consumed: AtomicU64,
    }
}

shared_struct! {
    /// The remote side's signs of life: any change is one.
    #[repr(align(128))]
    pub struct LinkHeartbeat[][] {
        count: AtomicU64,
    }
}

shared_struct! {
    /// One side's half of a link with room for `FRAMES` frames of `PAYLOAD` bytes each way, and for as many messages whose fate
    /// is not known yet. `FRAMES` is a power of two from 4 to 32768; `PAYLOAD` is that of the fabrics.
    ///
    /// Zeroed memory is an unused half.
    pub struct LinkHalf[const FRAMES: usize, const PAYLOAD: usize][FRAMES, PAYLOAD] {
        header: LinkHeader,
        heartbeat: LinkHeartbeat,
        /// How far the remote gateway has read the outgoing ring.
        credit: Credit,
        /// Slots of the incoming ring.
        slots: Slots<Message<PAYLOAD>, FRAMES>,
    }
}

/// The numbers that both sides of a link must have been compiled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkGeometry {
    /// Frames each way.
    pub frames: u32,
    /// Payload bytes per message.
    pub payload: u32,
    /// Size of a half, bytes.
    pub size: u64,
}

/// Why a link cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkError {
    /// Fewer bytes than a half needs.
    TooSmall {
        /// Bytes given.
        found: usize,
        /// Bytes needed.
        expected: usize,
    },
    /// The bytes do not start at a multiple of the half's alignment.
    Misaligned {
        /// Remainder of the address, bytes.
        remainder: usize,
        /// Alignment needed, bytes.
        expected: usize,
    },
    /// The half's owner has not set it up yet: try again.
    NotSetUp,
    /// The bytes are neither zero nor a half of a link.
    Magic {
        /// First word found.
        found: u64,
    },
    /// Another layout version.
    Version {
        /// Version found.
        found: u32,
        /// Version of this program.
        expected: u32,
    },
    /// Another shape.
    Geometry {
        /// Shape found.
        found: LinkGeometry,
        /// Shape of this program's type.
        expected: LinkGeometry,
    },
    /// An end of this half is open.
    InUse,
    /// Both halves are the same memory.
    SameHalf,
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooSmall { found, expected } => {
                write!(f, "{found} bytes are too few: half of this link needs {expected}")
            }
            Self::Misaligned { remainder, expected } => write!(
                f,
                "the address is {remainder} bytes past a multiple of {expected}, which half of a link must start at"
            ),
            Self::NotSetUp => f.write_str("this half of the link has not been set up by its owner yet: try again"),
            Self::Magic { found } => write!(
                f,
                "not half of a link: the first word is {found:#018x}, expected {LINK_MAGIC:#018x} (\"K2Klink0\") or zero"
            ),
            Self::Version { found, expected } => {
                write!(f, "the link has layout version {found}, this program speaks {expected}: rebuild one of them")
            }
            Self::Geometry { found, expected } => write!(
                f,
                "the link has another shape: {} frames of {} bytes in {} bytes, this program has {} of {} in {}: both sides \
                 must use the same type",
                found.frames, found.payload, found.size, expected.frames, expected.payload, expected.size
            ),
            Self::InUse => f.write_str(
                "an end of this half is open: drop the gateway that has it, or recover it if its owner is dead",
            ),
            Self::SameHalf => f.write_str("a link needs two halves, but both are the same memory"),
        }
    }
}

impl core::error::Error for LinkError {}

/// The frames of a link: how many each way, and of how many bytes of payload.
///
/// # Safety
/// As for `Ring`. In a half of a link of this type, the slots begin `SLOTS_AT` bytes from the start.
pub unsafe trait Frames: Ring<Item: Packet, Scope = System> {
    /// Where a half has its slots.
    #[doc(hidden)]
    const SLOTS_AT: usize;

    /// The frames of a header's numbers, if they are of this type.
    ///
    /// # Errors
    /// [`LinkError::Geometry`] says which numbers they would need.
    #[doc(hidden)]
    fn found(found: LinkGeometry) -> Result<Self, LinkError>;

    /// Payload bytes of a frame, at most.
    #[inline(always)]
    fn payload(&self) -> usize {
        self.lines() * 64
    }

    /// The numbers, as a half's header records them.
    fn geometry(&self) -> LinkGeometry {
        let (frames, payload) = (self.slots(), self.payload());
        let size = Self::SLOTS_AT + frames * self.stride();
        LinkGeometry { frames: frames as u32, payload: payload as u32, size: size as u64 }
    }
}

/// `FRAMES` frames each way of `PAYLOAD` bytes of payload, both of which the compiler knows.
pub type FixedFrames<const FRAMES: usize, const PAYLOAD: usize> = Typed<Message<PAYLOAD>, 1, FRAMES>;

// SAFETY: the struct's own offset.
unsafe impl<const FRAMES: usize, const PAYLOAD: usize> Frames for Typed<Message<PAYLOAD>, 1, FRAMES> {
    const SLOTS_AT: usize = offset_of!(LinkHalf<FRAMES, PAYLOAD>, slots);

    fn found(found: LinkGeometry) -> Result<Self, LinkError> {
        let expected = LinkHalf::<FRAMES, PAYLOAD>::GEOMETRY;
        if found == expected { Ok(Self::SHAPE) } else { Err(LinkError::Geometry { found, expected }) }
    }
}

/// `FRAMES` frames each way, whose payload bytes are known at run time: a multiple of 64, `PAYLOAD` at most.
#[cfg(not(k2k_loom))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadFrames<const FRAMES: usize, const PAYLOAD: usize> {
    /// Payload of a frame, in lines of 64 bytes.
    lines: usize,
}

#[cfg(not(k2k_loom))]
impl<const FRAMES: usize, const PAYLOAD: usize> ReadFrames<FRAMES, PAYLOAD> {
    /// Frames of so many lines of payload.
    pub(crate) const fn of_lines(lines: usize) -> Self {
        Self { lines }
    }

    /// Frames of so many bytes of payload.
    ///
    /// # Errors
    /// [`LinkError::Geometry`] unless `payload` is a multiple of 64, and at most `PAYLOAD`.
    pub fn new(payload: usize) -> Result<Self, LinkError> {
        let frames = Self { lines: payload / 64 };
        if payload.is_multiple_of(64) && payload <= PAYLOAD {
            return Ok(frames);
        }
        let expected = Self { lines: PAYLOAD.min(payload) / 64 }.geometry();
        let payload = u32::try_from(payload).unwrap_or(u32::MAX);
        Err(LinkError::Geometry { found: LinkGeometry { payload, ..expected }, expected })
    }
}

// SAFETY: `MASK` sees to it that `FRAMES` is a power of two. A slot is a stamp and a message.
#[cfg(not(k2k_loom))]
unsafe impl<const FRAMES: usize, const PAYLOAD: usize> Ring for ReadFrames<FRAMES, PAYLOAD> {
    type Item = Message<PAYLOAD>;
    type Scope = System;

    #[inline(always)]
    fn slots(&self) -> usize {
        Slots::<Message<0>, FRAMES>::MASK as usize + 1
    }

    #[inline(always)]
    fn stride(&self) -> usize {
        size_of::<Slot<Message<0>>>() + self.lines * 64
    }

    #[inline(always)]
    fn lines(&self) -> usize {
        self.lines
    }
}

// SAFETY: the slots begin where those of any payload do.
#[cfg(not(k2k_loom))]
unsafe impl<const FRAMES: usize, const PAYLOAD: usize> Frames for ReadFrames<FRAMES, PAYLOAD> {
    const SLOTS_AT: usize = LinkHalf::<4, 0>::SLOTS_AT;

    fn found(found: LinkGeometry) -> Result<Self, LinkError> {
        let (frames, expected) = match Self::new(found.payload as usize) {
            Ok(frames) => (Some(frames), frames.geometry()),
            Err(LinkError::Geometry { expected, .. }) => (None, expected),
            Err(error) => return Err(error),
        };
        frames.filter(|_| found == expected).ok_or(LinkError::Geometry { found, expected })
    }
}

/// Half of a link, where it lies.
pub struct HalfRef<'l, F> {
    base: NonNull<u8>,
    frames: F,
    memory: PhantomData<&'l LinkHeader>,
}

impl<F: Copy> Clone for HalfRef<'_, F> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}
impl<F: Copy> Copy for HalfRef<'_, F> {}
// SAFETY: what is behind it are atomics, and cells of messages that the rings' protocol hands over.
unsafe impl<F: Frames> Send for HalfRef<'_, F> {}
// SAFETY: as above.
unsafe impl<F: Frames> Sync for HalfRef<'_, F> {}

impl<F: fmt::Debug> fmt::Debug for HalfRef<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HalfRef").field("frames", &self.frames).finish_non_exhaustive()
    }
}

impl<'l, F: Frames> HalfRef<'l, F> {
    /// Finds a half in zeroed or used bytes. [`set_up`](Self::set_up) is the owner's.
    ///
    /// # Errors
    /// [`LinkError::TooSmall`], [`LinkError::Misaligned`].
    ///
    /// # Safety
    /// `base` is valid for reads and writes of `len` bytes for as long as `'l`, and this program accesses them in no
    /// other way than as half of a link (the remote side may do what it likes).
    pub unsafe fn attach_raw(base: *mut u8, len: usize, frames: F) -> Result<Self, LinkError> {
        let expected = frames.geometry().size as usize;
        if len < expected {
            return Err(LinkError::TooSmall { found: len, expected });
        }
        let remainder = base.addr() % align_of::<LinkHeader>();
        if remainder != 0 {
            return Err(LinkError::Misaligned { remainder, expected: align_of::<LinkHeader>() });
        }
        let base = NonNull::new(base).ok_or(LinkError::TooSmall { found: 0, expected })?;
        Ok(Self { base, frames, memory: PhantomData })
    }

    /// Finds a half that its owner has set up, whatever its payload.
    ///
    /// # Errors
    /// As for [`attach_raw`](Self::attach_raw) and [`check`](Self::check).
    ///
    /// # Safety
    /// As for `attach_raw`.
    #[cfg(not(k2k_loom))]
    pub unsafe fn open_raw(base: *mut u8, len: usize) -> Result<Self, LinkError> {
        // SAFETY: passed on.
        let smallest = unsafe { HalfRef::attach_raw(base, len, FixedFrames::<4, 0>::SHAPE)? };
        let frames = F::found(smallest.found()?)?;
        // SAFETY: passed on.
        unsafe { Self::attach_raw(base, len, frames) }
    }

    /// How many frames it has room for, and how long they are.
    #[must_use]
    pub const fn frames(&self) -> F {
        self.frames
    }

    /// A part of a half of any shape.
    ///
    /// # Safety
    /// It is so many bytes from the start.
    #[inline(always)]
    const unsafe fn part<T: Shared>(self, offset: usize) -> &'l T {
        // SAFETY: passed on. `Shared`: any bytes are a valid `T`, and it is behind atomics.
        unsafe { self.base.add(offset).cast().as_ref() }
    }

    #[inline(always)]
    const fn header(self) -> &'l LinkHeader {
        // SAFETY: a half begins with it.
        unsafe { self.part(offset_of!(LinkHalf<4, 0>, header)) }
    }

    #[inline(always)]
    const fn heartbeat(self) -> &'l LinkHeartbeat {
        // SAFETY: in front of the slots, all halves are the same.
        unsafe { self.part(offset_of!(LinkHalf<4, 0>, heartbeat)) }
    }

    /// The ring that has its slots in this half, and its credit in the producer's.
    #[inline(always)]
    const fn ring(self, producer: Self) -> SpscView<'l, F> {
        // SAFETY: the credit is where it is in all halves, the slots where the type says.
        unsafe {
            let credit = producer.part(offset_of!(LinkHalf<4, 0>, credit));
            SpscView::at(self.base.add(F::SLOTS_AT), credit, self.frames)
        }
    }

    /// For the half's owner: sets it up, or checks that it is as it should be. May be done for both halves by one side
    /// if that is before the other one starts.
    ///
    /// # Errors
    /// [`LinkError`] names what differs; `NotSetUp` if somebody else is at it.
    pub fn set_up(&self) -> Result<(), LinkError> {
        let header = self.header();
        // Relaxed, both: zero publishes nothing, and `check` looks at any other value again.
        if header.magic.compare_exchange(0, CLAIMED, Relaxed, Relaxed).is_err() {
            return self.check();
        }
        let LinkGeometry { frames, payload, size } = self.frames.geometry();
        // Relaxed: published by the magic.
        header.version.store(LINK_VERSION, Relaxed);
        header.frames.store(frames, Relaxed);
        header.payload.store(payload, Relaxed);
        header.size.store(size, Relaxed);
        // Release [link-ready]: whoever sees the magic sees the version and the shape.
        header.magic.store(LINK_MAGIC, Release);
        Ok(())
    }

    /// For either side: whether the half is set up and has this shape. Loads only.
    ///
    /// # Errors
    /// [`LinkError`] names what differs.
    pub fn check(&self) -> Result<(), LinkError> {
        let (found, expected) = (self.found()?, self.frames.geometry());
        if found == expected { Ok(()) } else { Err(LinkError::Geometry { found, expected }) }
    }

    /// The shape that its owner has given it.
    fn found(&self) -> Result<LinkGeometry, LinkError> {
        let header = self.header();
        // Acquire [link-ready]: version and shape are visible.
        match header.magic.load(Acquire) {
            LINK_MAGIC => {}
            0 | CLAIMED => return Err(LinkError::NotSetUp),
            found => return Err(LinkError::Magic { found }),
        }
        // Relaxed: made visible by the magic.
        let version = header.version.load(Relaxed);
        if version != LINK_VERSION {
            return Err(LinkError::Version { found: version, expected: LINK_VERSION });
        }
        Ok(LinkGeometry {
            frames: header.frames.load(Relaxed),
            payload: header.payload.load(Relaxed),
            size: header.size.load(Relaxed),
        })
    }
}

impl<const FRAMES: usize, const PAYLOAD: usize> LinkHalf<FRAMES, PAYLOAD> {
    /// The shape, as the header records it.
    pub const GEOMETRY: LinkGeometry = {
        let () = Message::<PAYLOAD>::SIZE_IS_RIGHT;
        assert!(Slots::<Message<PAYLOAD>, FRAMES>::MASK < u64::MAX);
        assert!(FRAMES >= 4, "a link has at least 4 frames each way");
        #[cfg(not(k2k_loom))]
        assert!(Self::SLOTS_AT == LinkHalf::<4, 0>::SLOTS_AT);
        #[cfg(not(k2k_loom))]
        assert!(size_of::<Self>() == Self::SLOTS_AT + FRAMES * (size_of::<Slot<Message<0>>>() + PAYLOAD));
        LinkGeometry { frames: FRAMES as u32, payload: PAYLOAD as u32, size: size_of::<Self>() as u64 }
    };

    #[cfg(not(k2k_loom))]
    const SLOTS_AT: usize = offset_of!(Self, slots);

    /// The half, as the algorithms see it.
    #[inline(always)]
    #[must_use]
    pub const fn handle(&self) -> HalfRef<'_, FixedFrames<FRAMES, PAYLOAD>> {
        const { assert!(Self::GEOMETRY.frames > 0) };
        HalfRef { base: NonNull::from_ref(self).cast(), frames: Typed::SHAPE, memory: PhantomData }
    }

    /// Finds a half in zeroed or used bytes. Neither side's [`set_up`](Self::set_up) is done by this.
    ///
    /// # Errors
    /// [`LinkError::TooSmall`], [`LinkError::Misaligned`].
    ///
    /// # Safety
    /// As for [`HalfRef::attach_raw`].
    pub unsafe fn attach_raw<'m>(base: *mut u8, len: usize) -> Result<&'m Self, LinkError> {
        // SAFETY: passed on.
        let half = unsafe { HalfRef::attach_raw(base, len, FixedFrames::<FRAMES, PAYLOAD>::SHAPE)? };
        // SAFETY: large enough and aligned; the caller vouches for the rest. `Shared`: any bytes are a valid `Self`.
        Ok(unsafe { half.base.cast().as_ref() })
    }

    /// An unused half, for a `static`.
    #[cfg(not(k2k_loom))]
    #[must_use]
    pub const fn new() -> Self {
        const { assert!(Self::GEOMETRY.frames > 0) };
        // SAFETY: `Shared`: zero is the idle state, and valid.
        unsafe { core::mem::MaybeUninit::zeroed().assume_init() }
    }

    /// As [`new`](Self::new), in memory of the caller's: a half can be too large for the stack.
    #[cfg(not(k2k_loom))]
    pub const fn new_in(place: &mut core::mem::MaybeUninit<Self>) -> &mut Self {
        const { assert!(Self::GEOMETRY.frames > 0) };
        crate::sync::idle_in(place)
    }

    /// An unused half.
    #[cfg(k2k_loom)]
    #[must_use]
    pub fn new() -> Self {
        Shared::idle()
    }

    /// As [`HalfRef::set_up`].
    ///
    /// # Errors
    /// As there.
    pub fn set_up(&self) -> Result<(), LinkError> {
        self.handle().set_up()
    }

    /// As [`HalfRef::check`].
    ///
    /// # Errors
    /// As there.
    pub fn check(&self) -> Result<(), LinkError> {
        self.handle().check()
    }
}

#[cfg(not(k2k_loom))]
impl<const FRAMES: usize, const PAYLOAD: usize> Default for LinkHalf<FRAMES, PAYLOAD> {
    fn default() -> Self {
        Self::new()
    }
}

/// One side's end of a link, for a [`Gateway`](crate::Gateway). Dropping it lets another one be opened.
#[derive(Debug)]
pub struct LinkEnd<'l, F: Frames> {
    local: HalfRef<'l, F>,
    remote: HalfRef<'l, F>,
    out: ProducerState,
    inward: ConsumerState,
    heartbeats: u64,
}

impl<'l, F: Frames> LinkEnd<'l, F> {
    /// Opens the end of the side that owns `local`.
    ///
    /// # Errors
    /// [`LinkError`]: a half is not set up or not of this shape, or an end of `local` is open.
    ///
    /// # Safety
    /// No other end, on any side, uses `remote` as its remote half, or `local` as its local one's partner: two halves
    /// make one link. (Across a bus nothing can be claimed on the remote side.)
    pub unsafe fn open(local: HalfRef<'l, F>, remote: HalfRef<'l, F>) -> Result<Self, LinkError> {
        Self::check(local, remote)?;
        if !claim_end(&local.header().claimed) {
            return Err(LinkError::InUse);
        }
        Ok(Self::open_claimed(local, remote))
    }

    /// As [`open`](Self::open), from an owner that died without dropping its end.
    ///
    /// # Errors
    /// As [`open`](Self::open), except `InUse`.
    ///
    /// # Safety
    /// The end that was open for `local` is not used any more.
    pub unsafe fn recover(local: HalfRef<'l, F>, remote: HalfRef<'l, F>) -> Result<Self, LinkError> {
        Self::check(local, remote)?;
        // Relaxed: the caller vouches that the predecessor has ended; that knowledge is the synchronisation.
        local.header().claimed.store(1, Relaxed);
        Ok(Self::open_claimed(local, remote))
    }

    fn check(local: HalfRef<'l, F>, remote: HalfRef<'l, F>) -> Result<(), LinkError> {
        if local.base == remote.base {
            return Err(LinkError::SameHalf);
        }
        if local.frames != remote.frames {
            return Err(LinkError::Geometry { found: remote.frames.geometry(), expected: local.frames.geometry() });
        }
        local.check()?;
        remote.check()
    }

    fn open_claimed(local: HalfRef<'l, F>, remote: HalfRef<'l, F>) -> Self {
        Self {
            local,
            remote,
            out: remote.ring(local).recover_producer(),
            inward: local.ring(remote).recover_consumer(&local.header().consumed),
            // Relaxed: a sign of life, nothing else.
            heartbeats: remote.heartbeat().count.load(Relaxed),
        }
    }

    /// Payload bytes of a frame, at most.
    #[inline(always)]
    #[must_use]
    pub fn payload(&self) -> usize {
        self.local.frames.payload()
    }

    /// Frames that can be pushed now, at least `wanted` if there is room for so many.
    #[inline]
    pub(crate) fn room(&mut self, wanted: u64) -> u64 {
        self.remote.ring(self.local).room(&mut self.out, wanted)
    }

    /// Pushes a message under another header; `false` if there is no room. What is longer than a frame is cut off.
    #[inline]
    pub(crate) fn push(&mut self, header: &Header, message: &F::Item) -> bool {
        // SAFETY: rule 2 of the SPSC ring: `fill` is called with the slot that is this producer's to write.
        let fill = |body: Body<'_, _>| unsafe { body.write_headed(header, message, message.used()) };
        self.remote.ring(self.local).push(&mut self.out, message.used(), fill).is_ok()
    }

    /// Pushes a header without a payload; `false` if there is no room.
    #[inline(always)]
    pub(crate) fn push_header(&mut self, header: &Header) -> bool {
        // SAFETY: rule 2 of the SPSC ring, as in `push`.
        let fill = |body: Body<'_, _>| unsafe { body.write_head(header) };
        self.remote.ring(self.local).push(&mut self.out, size_of::<Header>(), fill).is_ok()
    }

    /// Takes the next frame, if there is one, and returns its header; `place` says from the header where to put it, if
    /// it is more than that.
    #[inline]
    pub(crate) fn pop<'m>(&mut self, place: impl FnOnce(&Header) -> Option<&'m mut F::Item>) -> Option<Header>
    where
        F::Item: 'm,
    {
        let take = |body: Body<'_, F::Item>| {
            // SAFETY: rule 2 of the SPSC ring: `take` is called with the slot that is this consumer's to read.
            let header: Header = unsafe { body.read_head() };
            let mut used = size_of::<Header>();
            if let Some(message) = place(&header) {
                *message.header_mut() = header;
                used = message.used();
                // SAFETY: as above.
                unsafe { body.read_behind_head(message, used) };
            }
            (header, used)
        };
        self.local.ring(self.remote).pop(&mut self.inward, &self.local.header().consumed, take)
    }

    /// Gives the remote side a sign of life.
    pub(crate) fn heartbeat(&mut self) {
        self.heartbeats = self.heartbeats.wrapping_add(1);
        // Relaxed: a sign of life, nothing else.
        self.remote.heartbeat().count.store(self.heartbeats, Relaxed);
    }

    /// The remote side's last sign of life.
    pub(crate) fn remote_heartbeat(&self) -> u64 {
        // Relaxed: as above.
        self.local.heartbeat().count.load(Relaxed)
    }
}

impl<F: Frames> Drop for LinkEnd<'_, F> {
    fn drop(&mut self) {
        self.local.ring(self.remote).publish_credit(&mut self.inward);
        release_end(&self.local.header().claimed);
    }
}

#[cfg(not(k2k_loom))]
const _: () = {
    assert!(size_of::<LinkHeader>() == 128 && size_of::<LinkHeartbeat>() == 128);
    assert!(offset_of!(LinkHeader, magic) == 0 && offset_of!(LinkHeader, version) == 8);
    assert!(offset_of!(LinkHeader, frames) == 12 && offset_of!(LinkHeader, payload) == 16);
    assert!(offset_of!(LinkHeader, claimed) == 20 && offset_of!(LinkHeader, size) == 24);
    assert!(offset_of!(LinkHeader, consumed) == 32);
    assert!(offset_of!(LinkHalf<4, 64>, heartbeat) == 128 && offset_of!(LinkHalf<4, 64>, credit) == 256);
    assert!(offset_of!(LinkHalf<4, 64>, slots) == 384 && size_of::<LinkHalf<4, 64>>() == 384 + 4 * 128);
};
