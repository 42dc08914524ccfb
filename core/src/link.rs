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
//!   | pulse    <------- B's beat ----|----------------|-- A's beat ------->   pulse    |
//!   | credit   <------- how far B ---|----------------|-- how far A ------>   credit   |
//!   |                   has read     |                |   has read                     |
//!   | slots    <------- B's frames --|----------------|-- A's frames ----->   slots    |
//!   +--------------------------------+                +--------------------------------+
//!     A polls only this half, and stores into it         B polls only this half, and stores into it
//!     its own header                                     its own header
//! ```
//!
//! Where the two domains cannot both reach both memories, both halves may lie in one that they share.
//!
//! # Who may touch what
//!
//! 1. `LinkHeader`: written by the side that owns the half; the other one only reads `magic` to `size`, once.
//! 2. `Pulse`, `Credit`, `Slots`: as the picture says. The rings are those of [`ring::spsc`](crate::ring::spsc).
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
use crate::ring::spsc::{ConsumerState, Credit, ProducerState, Slots, SpscView, claim_end, release_end};
use crate::shape::Typed;
use crate::sync::Ordering::{Acquire, Relaxed, Release};
use crate::sync::{AtomicU32, AtomicU64, Body, shared_struct};
use core::fmt;

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
        /// 0 is free, 1 is taken.
        claimed: AtomicU32,
        /// Size of the half, bytes.
        size: AtomicU64,
        /// Position after the last frame taken; for a successor.
        taken: AtomicU64,
    }
}

shared_struct! {
    /// The other side's signs of life: any change is one.
    #[repr(align(128))]
    pub struct Pulse[][] {
        beat: AtomicU64,
    }
}

shared_struct! {
    /// One side's half of a link with room for `FRAMES` frames of `PAYLOAD` bytes each way, and for as many messages whose fate
    /// is not known yet. `FRAMES` is a power of two from 4 to 32768; `PAYLOAD` is that of the fabrics.
    ///
    /// Zeroed memory is an unused half.
    pub struct LinkHalf[const FRAMES: usize, const PAYLOAD: usize][FRAMES, PAYLOAD] {
        header: LinkHeader,
        pulse: Pulse,
        /// Of the ring to the other side.
        credit: Credit,
        /// Of the ring from the other side.
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
    Taken,
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
            Self::Taken => f.write_str(
                "an end of this half is open: drop the gateway that has it, or recover it if its owner is dead",
            ),
            Self::SameHalf => f.write_str("a link needs two halves, but both are the same memory"),
        }
    }
}

impl core::error::Error for LinkError {}

impl<const FRAMES: usize, const PAYLOAD: usize> LinkHalf<FRAMES, PAYLOAD> {
    /// The shape, as the header records it.
    pub const GEOMETRY: LinkGeometry = {
        let () = Message::<PAYLOAD>::SIZE_IS_RIGHT;
        assert!(Slots::<Message<PAYLOAD>, FRAMES>::MASK < u64::MAX);
        assert!(FRAMES >= 4, "a link has at least 4 frames each way");
        LinkGeometry { frames: FRAMES as u32, payload: PAYLOAD as u32, size: size_of::<Self>() as u64 }
    };

    /// Finds a half in zeroed or used bytes. Neither side's [`set_up`](Self::set_up) is done by this.
    ///
    /// # Errors
    /// [`LinkError::TooSmall`], [`LinkError::Misaligned`].
    ///
    /// # Safety
    /// `base` is valid for reads and writes of `len` bytes for as long as `'m`, and this program accesses them in no
    /// other way than as half of a link (the other side may do what it likes).
    pub unsafe fn attach_raw<'m>(base: *mut u8, len: usize) -> Result<&'m Self, LinkError> {
        let expected = size_of::<Self>();
        if len < expected {
            return Err(LinkError::TooSmall { found: len, expected });
        }
        let remainder = base.addr() % align_of::<Self>();
        if remainder != 0 {
            return Err(LinkError::Misaligned { remainder, expected: align_of::<Self>() });
        }
        // SAFETY: large enough and aligned; the caller vouches for the rest. `Shared`: any bytes are a valid `Self`.
        Ok(unsafe { &*base.cast::<Self>() })
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
        crate::sync::Shared::idle()
    }

    /// For the half's owner: sets it up, or checks that it is as it should be. May be done for both halves by one side
    /// if that is before the other one starts.
    ///
    /// # Errors
    /// [`LinkError`] names what differs; `NotSetUp` if somebody else is at it.
    pub fn set_up(&self) -> Result<(), LinkError> {
        let header = &self.header;
        // Relaxed, both: zero publishes nothing, and `check` looks at any other value again.
        if header.magic.compare_exchange(0, CLAIMED, Relaxed, Relaxed).is_err() {
            return self.check();
        }
        let LinkGeometry { frames, payload, size } = Self::GEOMETRY;
        // Relaxed: published by the magic.
        header.version.store(LINK_VERSION, Relaxed);
        header.frames.store(frames, Relaxed);
        header.payload.store(payload, Relaxed);
        header.size.store(size, Relaxed);
        // Release [link-ready]: whoever sees the magic sees the version and the shape.
        header.magic.store(LINK_MAGIC, Release);
        Ok(())
    }

    /// For either side: whether the half is set up and has this program's shape. Loads only.
    ///
    /// # Errors
    /// [`LinkError`] names what differs.
    pub fn check(&self) -> Result<(), LinkError> {
        let header = &self.header;
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
        let found = LinkGeometry {
            frames: header.frames.load(Relaxed),
            payload: header.payload.load(Relaxed),
            size: header.size.load(Relaxed),
        };
        if found == Self::GEOMETRY { Ok(()) } else { Err(LinkError::Geometry { found, expected: Self::GEOMETRY }) }
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
pub struct LinkEnd<'l, const FRAMES: usize, const PAYLOAD: usize> {
    near: &'l LinkHalf<FRAMES, PAYLOAD>,
    far: &'l LinkHalf<FRAMES, PAYLOAD>,
    out: ProducerState,
    inward: ConsumerState,
    beats: u64,
}

impl<'l, const FRAMES: usize, const PAYLOAD: usize> LinkEnd<'l, FRAMES, PAYLOAD> {
    /// Opens the end of the side that owns `near`.
    ///
    /// # Errors
    /// [`LinkError`]: a half is not set up or not of this shape, or an end of `near` is open.
    ///
    /// # Safety
    /// No other end, on any side, uses `far` as its far half, or `near` as its near one's partner: two halves make one
    /// link. (Across a bus nothing can be claimed on the other side.)
    pub unsafe fn open(
        near: &'l LinkHalf<FRAMES, PAYLOAD>,
        far: &'l LinkHalf<FRAMES, PAYLOAD>,
    ) -> Result<Self, LinkError> {
        Self::check(near, far)?;
        if !claim_end(&near.header.claimed) {
            return Err(LinkError::Taken);
        }
        Ok(Self::open_claimed(near, far))
    }

    /// As [`open`](Self::open), from an owner that died without dropping its end.
    ///
    /// # Errors
    /// As [`open`](Self::open), except `Taken`.
    ///
    /// # Safety
    /// The end that was open for `near` is not used any more.
    pub unsafe fn recover(
        near: &'l LinkHalf<FRAMES, PAYLOAD>,
        far: &'l LinkHalf<FRAMES, PAYLOAD>,
    ) -> Result<Self, LinkError> {
        Self::check(near, far)?;
        // Relaxed: the caller vouches that the predecessor has ended; that knowledge is the synchronisation.
        near.header.claimed.store(1, Relaxed);
        Ok(Self::open_claimed(near, far))
    }

    fn check(near: &LinkHalf<FRAMES, PAYLOAD>, far: &LinkHalf<FRAMES, PAYLOAD>) -> Result<(), LinkError> {
        if core::ptr::eq(near, far) {
            return Err(LinkError::SameHalf);
        }
        near.check()?;
        far.check()
    }

    fn open_claimed(near: &'l LinkHalf<FRAMES, PAYLOAD>, far: &'l LinkHalf<FRAMES, PAYLOAD>) -> Self {
        Self {
            near,
            far,
            out: SpscView::of(&far.slots, &near.credit).recover_producer(),
            inward: SpscView::of(&near.slots, &far.credit).recover_consumer(&near.header.taken),
            // Relaxed: a sign of life, nothing else.
            beats: far.pulse.beat.load(Relaxed),
        }
    }

    /// The ring to the other side: its slots lie there, its credit here.
    #[inline(always)]
    const fn ring_out(&self) -> SpscView<'l, Typed<Message<PAYLOAD>, 1, FRAMES>> {
        SpscView::of(&self.far.slots, &self.near.credit)
    }

    /// Frames that can be pushed now, at least `wanted` if there is room for so many.
    #[inline]
    pub(crate) fn room(&mut self, wanted: u64) -> u64 {
        self.ring_out().room(&mut self.out, wanted)
    }

    /// Pushes a message under another header; `false` if there is no room.
    #[inline]
    pub(crate) fn push(&mut self, header: &Header, message: &Message<PAYLOAD>) -> bool {
        // SAFETY: rule 2 of the SPSC ring: `fill` is called with the slot that is this producer's to write.
        let fill = |body: Body<'_, _>| unsafe { body.write_headed(header, message, message.used()) };
        self.ring_out().push(&mut self.out, message.used(), fill).is_ok()
    }

    /// Pushes a header without a payload; `false` if there is no room.
    #[inline(always)]
    pub(crate) fn push_header(&mut self, header: &Header) -> bool {
        // SAFETY: rule 2 of the SPSC ring, as in `push`.
        let fill = |body: Body<'_, _>| unsafe { body.write_head(header) };
        self.ring_out().push(&mut self.out, size_of::<Header>(), fill).is_ok()
    }

    /// Takes the next frame, if there is one, and returns its header; `place` says from the header where to put it, if
    /// it is more than that.
    #[inline]
    pub(crate) fn pop<'m>(
        &mut self,
        place: impl FnOnce(&Header) -> Option<&'m mut Message<PAYLOAD>>,
    ) -> Option<Header> {
        let take = |body: Body<'_, Message<PAYLOAD>>| {
            // SAFETY: rule 2 of the SPSC ring: `take` is called with the slot that is this consumer's to read.
            let header = unsafe { body.read_head() };
            let mut used = size_of::<Header>();
            if let Some(message) = place(&header) {
                message.header = header;
                used = message.used();
                // SAFETY: as above.
                unsafe { body.read_behind_head(message, used) };
            }
            (header, used)
        };
        SpscView::of(&self.near.slots, &self.far.credit).pop(&mut self.inward, &self.near.header.taken, take)
    }

    /// Gives the other side a sign of life.
    pub(crate) fn beat(&mut self) {
        self.beats = self.beats.wrapping_add(1);
        // Relaxed: a sign of life, nothing else.
        self.far.pulse.beat.store(self.beats, Relaxed);
    }

    /// The other side's last sign of life.
    pub(crate) fn far_beat(&self) -> u64 {
        // Relaxed: as above.
        self.near.pulse.beat.load(Relaxed)
    }
}

impl<const FRAMES: usize, const PAYLOAD: usize> Drop for LinkEnd<'_, FRAMES, PAYLOAD> {
    fn drop(&mut self) {
        SpscView::of(&self.near.slots, &self.far.credit).publish_credit(&mut self.inward);
        release_end(&self.near.header.claimed);
    }
}

#[cfg(not(k2k_loom))]
const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<LinkHeader>() == 128 && size_of::<Pulse>() == 128);
    assert!(offset_of!(LinkHeader, magic) == 0 && offset_of!(LinkHeader, version) == 8);
    assert!(offset_of!(LinkHeader, frames) == 12 && offset_of!(LinkHeader, payload) == 16);
    assert!(offset_of!(LinkHeader, claimed) == 20 && offset_of!(LinkHeader, size) == 24);
    assert!(offset_of!(LinkHeader, taken) == 32);
    assert!(offset_of!(LinkHalf<4, 64>, pulse) == 128 && offset_of!(LinkHalf<4, 64>, credit) == 256);
    assert!(offset_of!(LinkHalf<4, 64>, slots) == 384 && size_of::<LinkHalf<4, 64>>() == 384 + 4 * 128);
};
