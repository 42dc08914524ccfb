//! The first bytes of a fabric: what it is, its shape, and its configuration.

use super::{Config, ProcessDomain};
use crate::message::HOP_LIMIT_MAX;
use crate::sync::Ordering::{Acquire, Relaxed, Release};
use crate::sync::{AtomicU32, AtomicU64, shared_struct, spin_hint};
use core::fmt;

/// "K2Kfabri" in ASCII, little-endian: the first word of every fabric in use.
pub const MAGIC: u64 = u64::from_le_bytes(*b"K2Kfabri");
/// Stands in the magic's place while the first one to attach writes the rest of the header.
const CLAIMED: u64 = u64::from_le_bytes(*b"K2Kbegun");

/// Version of the layout of everything in a [`Fabric`](super::Fabric).
pub const LAYOUT_VERSION: u32 = 3;

/// Stands in the place of the clock in a copy for onlookers: see [`FabricRef::show`](super::FabricRef::show). No backend's
/// clock has this number, so a program that names its clock does not take the copy for a fabric.
#[cfg(not(k2k_loom))]
pub const COPY_CLOCK: u64 = u64::from_le_bytes(*b"K2Kcopy\0");

shared_struct! {
    /// Two cache lines at the start of a fabric.
    #[repr(align(128))]
    #[doc(hidden)]
    pub struct FabricHeader[][] {
        magic: AtomicU64,
        version: AtomicU32,
        kernels: AtomicU32,
        slots: AtomicU32,
        payload: AtomicU32,
        /// Size of the whole fabric, bytes.
        size: AtomicU64,
        delivery_timeout_ns: AtomicU64,
        max_clock_offset_ns: AtomicU64,
        hop_limit: AtomicU32,
        /// [`Switch`]es that are on.
        switches: AtomicU32,
        /// In which boot and in which process id namespace the owners' numbers are meant.
        domain: [AtomicU64; 2],
        /// Where the search for a free index begins; in a copy for onlookers, how often it was brought up to date.
        next_index: AtomicU32,
        high_share: AtomicU32,
        /// Names the clock of all times; 0: not said.
        clock: AtomicU64,
        grace_ns: AtomicU64,
    }
}

/// Tries of an exchange that puts a switch.
const SWITCH_TRIES: u32 = 8;

/// What a supervisor switches on and off for all kernels. The numbers stand in shared memory and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Switch {
    /// Kernels write traces.
    Tracing = 1,
    /// Kernels count how long the messages that they receive were on their way.
    Latency = 2,
}

impl Switch {
    const fn bit(self, on: bool) -> u32 {
        if on { self as u32 } else { 0 }
    }
}

/// Which switches are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Switches(u32);

impl Switches {
    /// Whether any is.
    #[inline(always)]
    pub(crate) const fn any(self) -> bool {
        self.0 != 0
    }

    #[inline(always)]
    pub(crate) const fn tracing(self) -> bool {
        self.0 & Switch::Tracing as u32 != 0
    }

    #[inline(always)]
    pub(crate) const fn latency(self) -> bool {
        self.0 & Switch::Latency as u32 != 0
    }
}

/// The numbers that both sides of a fabric must have been compiled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Indices for kernels.
    pub kernels: u32,
    /// Messages per kernel pair.
    pub slots: u32,
    /// Payload bytes per message.
    pub payload: u32,
    /// Size of the whole fabric, bytes.
    pub size: u64,
}

/// Why bytes are not a fabric that this program can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttachError {
    /// Fewer bytes than the fabric needs.
    TooSmall {
        /// Bytes given.
        found: usize,
        /// Bytes needed.
        expected: usize,
    },
    /// The bytes do not start at a multiple of the fabric's alignment.
    Misaligned {
        /// Remainder of the address, bytes.
        remainder: usize,
        /// Alignment needed, bytes.
        expected: usize,
    },
    /// The first word is zero: no fabric was created in these bytes. `open` creates none.
    Empty,
    /// The bytes are neither zero nor a fabric.
    Magic {
        /// First word found.
        found: u64,
    },
    /// Someone began to set the fabric up and has not finished; it may have died.
    Unfinished,
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
        found: Geometry,
        /// Shape of this program's fabric type.
        expected: Geometry,
    },
    /// No fabric has such a shape, or it is more than the program's type is for.
    Shape {
        /// Indices for kernels.
        kernels: usize,
        /// Messages per kernel pair.
        slots: usize,
        /// Payload bytes per message.
        payload: usize,
        /// The most kernels that the type is for.
        most_kernels: usize,
        /// The most payload bytes that the type is for.
        most_payload: usize,
    },
    /// Deadlines are on another clock than this program reads.
    Clock {
        /// The fabric's clock.
        found: u64,
        /// This program's.
        expected: u64,
    },
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooSmall { found, expected } => {
                write!(f, "{found} bytes are too few: this fabric needs {expected}")
            }
            Self::Misaligned { remainder, expected } => {
                write!(
                    f,
                    "the address is {remainder} bytes past a multiple of {expected}, which a fabric must start at"
                )
            }
            Self::Empty => f.write_str(
                "no fabric: the first word is zero, so nobody has created one here, and opening does not create one",
            ),
            Self::Magic { found } => {
                write!(f, "not a fabric: the first word is {found:#018x}, expected {MAGIC:#018x} (\"K2Kfabri\")")
            }
            Self::Unfinished => f.write_str(
                "someone began to set this fabric up and has not finished: if its process is dead, remove the file or \
                 zero the memory",
            ),
            Self::Version { found, expected } => {
                write!(f, "fabric has layout version {found}, this program speaks {expected}: rebuild one of them")
            }
            Self::Geometry { found, expected } => {
                f.write_str("fabric has another shape:")?;
                for (name, found, expected) in [
                    ("KERNELS", u64::from(found.kernels), u64::from(expected.kernels)),
                    ("SLOTS", u64::from(found.slots), u64::from(expected.slots)),
                    ("PAYLOAD", u64::from(found.payload), u64::from(expected.payload)),
                    ("size", found.size, expected.size),
                ] {
                    if found != expected {
                        write!(f, " {name} is {found}, this program has {expected};")?;
                    }
                }
                f.write_str(" attach with the type it was created with")
            }
            Self::Shape { kernels, slots, payload, most_kernels, most_payload } => write!(
                f,
                "no fabric for this program: {kernels} kernels, {slots} slots and {payload} bytes of payload; kernels may be \
                 1 to {most_kernels}, slots a power of two up to 32768, payload a multiple of 64 up to {most_payload}; for \
                 more kernels or payload, attach with a `Read` shape of larger limits"
            ),
            #[cfg(not(k2k_loom))]
            Self::Clock { found: COPY_CLOCK, .. } => f.write_str(
                "it is a copy, for onlookers, of a fabric in other memory: nobody can register or send there; look at it with \
                 `k2k ls` and `k2k top`, and act through the program that publishes it",
            ),
            Self::Clock { found, expected } => write!(
                f,
                "the fabric's times are on clock {found:#018x}, this program reads clock {expected:#018x}: the fabric was \
                 created before this boot of the machine, or in another time namespace; create it anew, or run both in one \
                 namespace"
            ),
        }
    }
}

impl core::error::Error for AttachError {}

impl FabricHeader {
    /// Sets up an all-zero header, or checks one that is in use. A fabric's configuration is what the first one to
    /// attach gave it; of `config` only the clock counts then.
    pub(super) fn attach(&self, expected: Geometry, config: &Config) -> Result<(), AttachError> {
        // Relaxed on success: zero publishes nothing.
        // Relaxed on failure: `open` loads the magic again.
        if self.magic.compare_exchange(0, CLAIMED, Relaxed, Relaxed).is_ok() {
            self.write(expected, config);
            // Release [fabric-ready]: whoever sees the magic sees the geometry and the configuration.
            self.magic.store(MAGIC, Release);
            return Ok(());
        }
        self.open(|found| if found == expected { Ok(()) } else { Err(AttachError::Geometry { found, expected }) })?;
        self.check_clock(config.clock)
    }

    /// Whether times are on this clock, if both sides say which.
    pub(super) fn check_clock(&self, expected: u64) -> Result<(), AttachError> {
        // Relaxed: made visible by the magic's load in `open`.
        let found = self.clock.load(Relaxed);
        let agrees = found == expected || found == 0 || expected == 0;
        if agrees { Ok(()) } else { Err(AttachError::Clock { found, expected }) }
    }

    /// Checks a header that is in use, and lets `accept` judge the shape that it tells of. Writes nothing, so that the memory may be a read-only mapping or no fabric at all.
    pub(super) fn open<T>(&self, accept: impl FnOnce(Geometry) -> Result<T, AttachError>) -> Result<T, AttachError> {
        // Acquire [fabric-ready]: pairs with the magic's store in `attach`; the rest of the header is visible.
        let mut magic = self.magic.load(Acquire);
        // The creator needs a few stores. Long enough for that, and bounded, since it may have died.
        let mut patience = if cfg!(k2k_loom) { 2 } else { 1_000_000 };
        while magic == CLAIMED && patience > 0 {
            spin_hint();
            // Acquire [fabric-ready]: as above.
            magic = self.magic.load(Acquire);
            patience -= 1;
        }
        match magic {
            MAGIC => accept(self.geometry()?),
            CLAIMED => Err(AttachError::Unfinished),
            0 => Err(AttachError::Empty),
            found => Err(AttachError::Magic { found }),
        }
    }

    fn write(&self, geometry: Geometry, config: &Config) {
        // Relaxed: published by the magic's store in `attach`.
        self.version.store(LAYOUT_VERSION, Relaxed);
        self.kernels.store(geometry.kernels, Relaxed);
        self.slots.store(geometry.slots, Relaxed);
        self.payload.store(geometry.payload, Relaxed);
        self.size.store(geometry.size, Relaxed);
        self.delivery_timeout_ns.store(config.delivery_timeout_ns, Relaxed);
        self.max_clock_offset_ns.store(config.max_clock_offset_ns, Relaxed);
        self.hop_limit.store(u32::from(config.hop_limit), Relaxed);
        self.grace_ns.store(config.grace_ns, Relaxed);
        self.high_share.store(config.high_share, Relaxed);
        let on = Switch::Tracing.bit(config.tracing) | Switch::Latency.bit(config.latency);
        self.switches.store(on, Relaxed);
        // Relaxed, these too: `fabric-ready` makes them visible.
        for (word, value) in self.domain.iter().zip([config.domain.boot, config.domain.namespace]) {
            word.store(value, Relaxed);
        }
        self.clock.store(config.clock, Relaxed);
    }

    fn geometry(&self) -> Result<Geometry, AttachError> {
        // Relaxed: made visible by the magic's load in `open`.
        let version = self.version.load(Relaxed);
        if version != LAYOUT_VERSION {
            return Err(AttachError::Version { found: version, expected: LAYOUT_VERSION });
        }
        Ok(Geometry {
            kernels: self.kernels.load(Relaxed),
            slots: self.slots.load(Relaxed),
            payload: self.payload.load(Relaxed),
            size: self.size.load(Relaxed),
        })
    }

    /// The configuration in force.
    pub(super) fn config(&self) -> Config {
        // Relaxed: independent words; attaching has made their first values visible.
        Config {
            delivery_timeout_ns: self.delivery_timeout_ns.load(Relaxed),
            max_clock_offset_ns: self.max_clock_offset_ns.load(Relaxed),
            hop_limit: self.hop_limit.load(Relaxed).clamp(1, HOP_LIMIT_MAX as u32) as u8,
            grace_ns: self.grace_ns.load(Relaxed),
            high_share: self.high_share.load(Relaxed),
            tracing: self.switches().tracing(),
            latency: self.switches().latency(),
            domain: ProcessDomain { boot: self.domain[0].load(Relaxed), namespace: self.domain[1].load(Relaxed) },
            clock: self.clock.load(Relaxed),
        }
    }

    #[inline(always)]
    pub(super) fn switches(&self) -> Switches {
        // Relaxed: they take effect soon.
        Switches(self.switches.load(Relaxed))
    }

    /// For a copy for onlookers: shows the switches of another fabric, and says that this is a copy, and was brought up to date.
    #[cfg(not(k2k_loom))]
    pub(super) fn show(&self, from: &Self) {
        // Relaxed, all: numbers to show; a program that opens the fabric later reads the clock after the magic.
        self.switches.store(from.switches.load(Relaxed), Relaxed);
        self.clock.store(COPY_CLOCK, Relaxed);
        self.next_index.store(self.next_index.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// Of a copy for onlookers, how often it was brought up to date, modulo 2³².
    #[cfg(not(k2k_loom))]
    pub(super) fn shown(&self) -> Option<u32> {
        // Relaxed, both: numbers to show.
        (self.clock.load(Relaxed) == COPY_CLOCK).then(|| self.next_index.load(Relaxed))
    }

    #[cfg(all(test, not(k2k_loom)))]
    pub(super) fn set_high_share(&self, share: u32) {
        // Relaxed: for kernels that register later.
        self.high_share.store(share, Relaxed);
    }

    /// Puts a switch on or off, and leaves the others.
    pub(super) fn switch(&self, switch: Switch, on: bool) {
        // Relaxed, all: as above. An exchange that fails has met another switch that was put at the same moment.
        let mut found = self.switches.load(Relaxed);
        for _ in 0..SWITCH_TRIES {
            let new = found & !switch.bit(true) | switch.bit(on);
            match self.switches.compare_exchange(found, new, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(other) => found = other,
            }
        }
        // Somebody puts them on and off all the time.
        self.switches.store(found & !switch.bit(true) | switch.bit(on), Relaxed);
    }

    /// Where the search for a free index begins, as a number that may be anything.
    pub(super) fn next_index(&self) -> u32 {
        // Relaxed: a hint.
        self.next_index.load(Relaxed)
    }

    /// Moves the beginning of the next search on, unless another registration has moved it since `found` was read.
    pub(super) fn set_next_index(&self, found: u32, next: u32) {
        // Relaxed, both: a hint. On failure the other registration's hint is as good.
        let _ = self.next_index.compare_exchange(found, next, Relaxed, Relaxed);
    }
}

#[cfg(not(k2k_loom))]
const _: () = assert!(size_of::<FabricHeader>() == 128);
