//! Settings of a fabric, and the choice of its memory.

use super::Broker;
use crate::memory::FileOptions;
use crate::{Memory, MemoryError};
use core::marker::PhantomData;
use core::time::Duration;
use k2k_core::sync::System;
use k2k_core::{Config, Fixed, Shape};

/// Where a [`Builder`] puts the fabric.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Heap,
    HugePages,
    Create(String),
    Open(String),
    CreateOrOpen(String),
}

/// Makes a [`Broker`]. Defaults: heap, 5 s delivery timeout, 8 hops, 500 ms clock offset, no tracing.
///
/// The fabric's shape comes from the type, from a file, or from values found at run time:
///
/// ```
/// use core::time::Duration;
/// use k2k::{Broker, Builder, Fixed, Read};
///
/// let slots = "128".parse()?;
/// let read: Broker<Read> = Broker::builder().kernels(4).slots(slots).payload(64).build()?;
/// assert_eq!(read.memory().fabric().geometry().slots, 128);
///
/// let default: Broker = Broker::builder().delivery_timeout(Duration::from_secs(1)).build()?;
/// let small: Broker<Fixed<4, 64, 192>> = Broker::builder().build()?;
/// let broker = Broker::<Fixed<4, 64, 192>>::builder().tracing(true).build()?;
/// let broker = Builder::<Fixed<4, 64, 192>>::new().huge_pages().build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct Builder<Sh: Shape<Scope = System> = Fixed<16, 256, 192>> {
    config: Config,
    /// Kernels, slots and payload.
    shape: [usize; 3],
    place: Place,
    file: FileOptions,
    of: PhantomData<fn() -> Sh>,
}

impl<Sh: Shape<Scope = System>> Default for Builder<Sh> {
    fn default() -> Self {
        Self {
            config: Config::default(),
            shape: Sh::USUAL,
            place: Place::default(),
            file: FileOptions::default(),
            of: PhantomData,
        }
    }
}

impl<Sh: Shape<Scope = System>> Builder<Sh> {
    /// A builder with all settings at their defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// All settings at once.
    pub const fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Number of kernels that the fabric has indices for. Default 16. A [`Fixed`] shape accepts only its type's number.
    pub const fn kernels(mut self, kernels: usize) -> Self {
        self.shape[0] = kernels;
        self
    }

    /// Number of waiting messages per kernel pair: a power of two. Default 256. A [`Fixed`] shape accepts only its type's
    /// number.
    pub const fn slots(mut self, slots: usize) -> Self {
        self.shape[1] = slots;
        self
    }

    /// Bytes of payload per message: a multiple of 64. Default 192. A [`Fixed`] shape accepts only its type's number.
    pub const fn payload(mut self, payload: usize) -> Self {
        self.shape[2] = payload;
        self
    }

    /// How long a message without a deadline of its own may take. Default 5 s.
    pub const fn delivery_timeout(mut self, timeout: Duration) -> Self {
        self.config.delivery_timeout_ns = nanos(timeout);
        self
    }

    /// How often a message without a limit of its own may be forwarded. Default 8; 0 counts as 1, and more than
    /// 127 as 127.
    pub const fn hop_limit(mut self, hops: u8) -> Self {
        self.config.hop_limit = match hops {
            0 => 1,
            1..=127 => hops,
            128.. => 127,
        };
        self
    }

    /// How long after its deadline a message in a gateway's hands may still be answered. Default 1 s.
    pub const fn grace(mut self, grace: Duration) -> Self {
        self.config.grace_ns = nanos(grace);
        self
    }

    /// Number of high-priority messages that a sender may have in an inbox: see [`Config::high_share`]. Default 0:
    /// `SLOTS / KERNELS`.
    pub const fn high_share(mut self, messages: u32) -> Self {
        self.config.high_share = messages;
        self
    }

    /// How far a peer's clock may be ahead. Default 500 ms.
    pub const fn max_clock_offset(mut self, offset: Duration) -> Self {
        self.config.max_clock_offset_ns = nanos(offset);
        self
    }

    /// Whether kernels write traces. Default no; [`Broker::set_tracing`] changes the setting later.
    pub const fn tracing(mut self, on: bool) -> Self {
        self.config.tracing = on;
        self
    }

    /// Whether receivers count how long their messages were on the way. Default no; [`Broker::set_latency`] changes the
    /// setting later.
    pub const fn latency(mut self, on: bool) -> Self {
        self.config.latency = on;
        self
    }

    /// In ordinary memory of this process: the default.
    pub fn heap(mut self) -> Self {
        self.place = Place::Heap;
        self
    }

    /// In [huge pages](Memory::huge_pages), as far as available.
    pub fn huge_pages(mut self) -> Self {
        self.place = Place::HugePages;
        self
    }

    /// In a new [shared-memory file](Memory::create).
    pub fn create(mut self, name: &str) -> Self {
        self.place = Place::Create(name.to_owned());
        self
    }

    /// In an [existing](Memory::open) shared-memory file. The file's configuration stays as created.
    pub fn open(mut self, name: &str) -> Self {
        self.place = Place::Open(name.to_owned());
        self
    }

    /// In a shared-memory file, [created if missing](Memory::create_or_open).
    pub fn create_or_open(mut self, name: &str) -> Self {
        self.place = Place::CreateOrOpen(name.to_owned());
        self
    }

    /// Who may share a file, and how its room is reserved. Applies to `create`, `open` and `create_or_open`.
    pub fn file_options(mut self, options: FileOptions) -> Self {
        self.file = options;
        self
    }

    /// Mode of the file: given by `create`, and the most that `open` accepts. Default 0600. See [`FileOptions::mode`].
    pub fn mode(mut self, mode: u32) -> Self {
        self.file = self.file.mode(mode);
        self
    }

    /// Group of the file, a numeric id: see [`FileOptions::group`].
    pub fn group(mut self, gid: u32) -> Self {
        self.file = self.file.group(gid);
        self
    }

    /// Also accepts files of this user (a numeric id): see [`FileOptions::trust_owner`].
    pub fn trust_owner(mut self, uid: u32) -> Self {
        self.file = self.file.trust_owner(uid);
        self
    }

    /// Reserves a file's room on the first write instead of at creation: see [`FileOptions::sparse`].
    pub fn sparse(mut self) -> Self {
        self.file = self.file.sparse();
        self
    }

    /// Makes or opens the fabric.
    ///
    /// # Errors
    /// Those of the chosen [`Memory`] constructor.
    pub fn build(self) -> Result<Broker<Sh>, MemoryError> {
        let [kernels, slots, payload] = self.shape;
        let shape = || Sh::of(kernels, slots, payload).map_err(|why| MemoryError::Attach { path: None, why });
        let memory = match &self.place {
            Place::Heap => Memory::heap_of(shape()?, &self.config),
            Place::HugePages => Memory::huge_pages_of(shape()?, &self.config),
            Place::Create(name) => Memory::create_of(shape()?, name, &self.config, &self.file),
            Place::Open(name) => Memory::open_with(name, &self.file),
            Place::CreateOrOpen(name) => Memory::create_or_open_of(shape()?, name, &self.config, &self.file),
        };
        memory.map(Broker::new)
    }
}

const fn nanos(duration: Duration) -> u64 {
    let ns = duration.as_nanos();
    if ns > u64::MAX as u128 { u64::MAX } else { ns as u64 }
}
