//! Memory for a fabric on a host: the heap, huge pages, or a file that several processes map.
//!
//! | constructor | bytes | reached by |
//! | --- | --- | --- |
//! | [`Memory::heap`] | anonymous mapping; pages are committed when they are touched | cloning the [`Memory`] |
//! | [`Memory::huge_pages`] | the same in huge pages, as far as available; [`Backing`] tells | cloning |
//! | [`Memory::create`], [`Memory::open`] | a file, by default in `/dev/shm` | [`Memory::open`] with the same name |
//!
//! A name without a `/` is a POSIX shared-memory object: the file `/dev/shm/<name>`. A name with a `/` is a path.
//!
//! # Access to a file
//!
//! No contents of a file cause undefined behaviour. But a process with write access can stop every kernel in the file, and
//! can shorten the file: then every process with a mapping ends by SIGBUS. So a file has mode 0600 unless [`FileOptions`]
//! name a group or a mode, and `open` refuses a file of another user, a file with more write permissions than allowed,
//! and a symbolic link. Only `create` writes a header: opening a file without a fabric changes no byte of the file.
//!
//! `create` reserves a file's room (`fallocate`), so a file system that fills up later does no harm. The
//! default shape takes 22 MB, of the 64 MiB that a container has in `/dev/shm` by default.
//!
//! `create` completes a file without a name and then names the file, so no process ever opens half a fabric, and a killed
//! creator leaves no file behind.

mod error;
mod file;
mod mapping;

pub use error::MemoryError;
pub use file::FileOptions;
pub use mapping::Backing;

use crate::owner;
use crate::platform::clock_id;
use core::fmt;
use core::ops::Deref;
use file::Draft;
use k2k_core::fabric::{FabricHeader, Geometry};
use k2k_core::sync::System;
use k2k_core::{Config, Fabric, FabricRef, Fixed, ProcessDomain, Shape};
pub(crate) use mapping::{Mapping, map_heap};
use mapping::{map_file, map_huge};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Folder of names without a `/`.
pub(crate) const SHM: &str = "/dev/shm";

/// The bytes of a fabric; clones share the bytes. With a [`Fixed`] shape, derefs to the [`Fabric`].
///
/// ```
/// use k2k::{Config, Fixed, Memory, Read};
/// let memory = Memory::<Fixed<4, 64, 192>>::heap(&Config::default())?;
/// assert_eq!(memory.kernels().count(), 0);
///
/// // The shape may come from a file or the command line.
/// let memory = Memory::heap_of(Read::<64, 4096>::new(4, 64, 192)?, &Config::default())?;
/// assert_eq!(memory.fabric().geometry().slots, 64);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Memory<Sh: Shape<Scope = System>> {
    mapping: Arc<Mapping>,
    /// Handle on the bytes. Handed out for as long as `self` is borrowed.
    fabric: FabricRef<'static, Sh>,
}

impl<Sh: Shape<Scope = System>> Clone for Memory<Sh> {
    fn clone(&self) -> Self {
        Self { mapping: Arc::clone(&self.mapping), fabric: self.fabric }
    }
}

impl<Sh: Shape<Scope = System>> fmt::Debug for Memory<Sh> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("geometry", &self.fabric.geometry()).field("backing", self.backing()).finish()
    }
}

impl<const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize> Deref for Memory<Fixed<KERNELS, SLOTS, PAYLOAD>> {
    type Target = Fabric<KERNELS, SLOTS, PAYLOAD>;

    #[inline(always)]
    fn deref(&self) -> &Self::Target {
        self.fabric.storage()
    }
}

/// Constructors for shapes given by the type.
impl<const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize> Memory<Fixed<KERNELS, SLOTS, PAYLOAD>> {
    /// Size of the fabric, bytes.
    pub const SIZE: usize = Fabric::<KERNELS, SLOTS, PAYLOAD>::GEOMETRY.size as usize;

    /// See [`heap_of`](Self::heap_of).
    ///
    /// # Errors
    /// As for [`heap_of`](Self::heap_of).
    pub fn heap(config: &Config) -> Result<Self, MemoryError> {
        Self::heap_of(Fixed::default(), config)
    }

    /// See [`huge_pages_of`](Self::huge_pages_of).
    ///
    /// # Errors
    /// As for [`huge_pages_of`](Self::huge_pages_of).
    pub fn huge_pages(config: &Config) -> Result<Self, MemoryError> {
        Self::huge_pages_of(Fixed::default(), config)
    }

    /// As [`create_with`](Self::create_with), with the default options.
    ///
    /// # Errors
    /// As for [`create_with`](Self::create_with).
    pub fn create(name: &str, config: &Config) -> Result<Self, MemoryError> {
        Self::create_with(name, config, &FileOptions::new())
    }

    /// See [`create_of`](Self::create_of).
    ///
    /// # Errors
    /// As for [`create_of`](Self::create_of).
    pub fn create_with(name: &str, config: &Config, options: &FileOptions) -> Result<Self, MemoryError> {
        Self::create_of(Fixed::default(), name, config, options)
    }

    /// As [`create_or_open_with`](Self::create_or_open_with), with the default options.
    ///
    /// # Errors
    /// As for [`create_or_open_with`](Self::create_or_open_with).
    pub fn create_or_open(name: &str, config: &Config) -> Result<Self, MemoryError> {
        Self::create_or_open_with(name, config, &FileOptions::new())
    }

    /// See [`create_or_open_of`](Self::create_or_open_of).
    ///
    /// # Errors
    /// As for [`create_or_open_of`](Self::create_or_open_of).
    pub fn create_or_open_with(name: &str, config: &Config, options: &FileOptions) -> Result<Self, MemoryError> {
        Self::create_or_open_of(Fixed::default(), name, config, options)
    }
}

impl<Sh: Shape<Scope = System>> Memory<Sh> {
    /// A new fabric in ordinary memory of this process. Only touched pages are committed, so a large fabric with few kernels
    /// costs little.
    ///
    /// # Errors
    /// [`MemoryError::System`] if the system gives no address space.
    pub fn heap_of(shape: Sh, config: &Config) -> Result<Self, MemoryError> {
        let mapping = map_heap(shape.size()).map_err(|e| MemoryError::system(None, "map memory", e))?;
        Self::attach(mapping, shape, config)
    }

    /// A new fabric in huge pages: fewer TLB misses, but memory is committed in large steps.
    ///
    /// Takes pages of the system's pool (`/proc/sys/vm/nr_hugepages`) if the pool has enough, else asks for transparent huge
    /// pages, else takes ordinary pages. [`backing`](Self::backing) gives the result and the reason.
    ///
    /// # Errors
    /// As for [`heap_of`](Self::heap_of).
    pub fn huge_pages_of(shape: Sh, config: &Config) -> Result<Self, MemoryError> {
        let mapping = map_huge(shape.size()).map_err(|e| MemoryError::system(None, "map memory", e))?;
        Self::attach(mapping, shape, config)
    }

    /// A new fabric in a new shared-memory file, by default of this user alone. The file stays until [removed](remove). All
    /// of its room is reserved at once, unless the options say otherwise: a file system with too little room is an error
    /// here, instead of a SIGBUS later.
    ///
    /// # Errors
    /// [`MemoryError::Exists`] if the name is in use, [`MemoryError::NoSpace`] if the file system has too little room,
    /// [`MemoryError::CannotGive`] if the file cannot be given to the group.
    pub fn create_of(shape: Sh, name: &str, config: &Config, options: &FileOptions) -> Result<Self, MemoryError> {
        let path = path_of(name)?;
        let Geometry { kernels, slots, payload, size } = shape.geometry();
        let needed = file::Shape { size, kernels: kernels as usize, slots: slots as usize, payload: payload as usize };
        let draft = Draft::new(&path, needed, options)?;
        let mapping =
            map_file(&draft.file, shape.size(), path.clone()).map_err(|e| MemoryError::system(Some(path), "map", e))?;
        let memory = Self::attach(mapping, shape, config)?;
        draft.publish()?;
        Ok(memory)
    }

    /// The fabric in a shared-memory file that this or another process [created](Self::create_of). The configuration comes
    /// from the file, and so does a [`Read`](crate::Read) shape. A file without a fabric stays as it is.
    ///
    /// ```
    /// use k2k::{Config, Fixed, Memory, Read, memory};
    /// # let name = format!("k2k-doc-open-{}", std::process::id());
    /// let _ours = Memory::<Fixed<4, 8, 64>>::create(&name, &Config::default())?;
    /// let theirs = Memory::<Read>::open(&name)?;
    /// assert_eq!(theirs.fabric().geometry().kernels, 4);
    /// # memory::remove(&name)?;
    /// # Ok::<(), k2k::MemoryError>(())
    /// ```
    ///
    /// # Errors
    /// [`MemoryError::NotFound`], [`MemoryError::NotAFile`], [`MemoryError::SymbolicLink`], [`MemoryError::Owner`],
    /// [`MemoryError::Mode`], [`MemoryError::TooShort`] before mapping; [`MemoryError::Attach`] if the contents are not a
    /// fabric of this shape, or its times are on another clock: the clock of an earlier boot, or of another time
    /// namespace.
    pub fn open(name: &str) -> Result<Self, MemoryError> {
        Self::open_with(name, &FileOptions::new())
    }

    /// As [`open`](Self::open), for a file that another user owns or further users can write.
    ///
    /// # Errors
    /// As for `open`, and [`MemoryError::Group`].
    pub fn open_with(name: &str, options: &FileOptions) -> Result<Self, MemoryError> {
        let path = path_of(name)?;
        let (file, len) = file::open(&path, Sh::LEAST as u64, options)?;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let mapping = map_file(&file, len, path.clone()).map_err(|e| MemoryError::system(Some(path), "map", e))?;
        let (base, len) = mapping.fabric_bytes(align_of::<FabricHeader>());
        // SAFETY: as in `attach`.
        let fabric = unsafe { FabricRef::open_raw(base, len) };
        let fabric = fabric.and_then(|fabric| fabric.check_clock(clock_id()).map(|()| fabric));
        match fabric {
            Ok(fabric) => Ok(Self { fabric, mapping: Arc::new(mapping) }),
            Err(why) => Err(mapping.refused(why)),
        }
    }

    /// [Opens](Self::open_with) a file or, if missing, [creates](Self::create_of) the file: for processes that start in
    /// any order.
    ///
    /// # Errors
    /// As for both, but neither `NotFound` nor `Exists`, unless other processes keep creating and removing the file.
    pub fn create_or_open_of(
        shape: Sh,
        name: &str,
        config: &Config,
        options: &FileOptions,
    ) -> Result<Self, MemoryError> {
        let mut result = Self::open_with(name, options);
        for _ in 0..16 {
            result = match result {
                Err(MemoryError::NotFound { .. }) => Self::create_of(shape, name, config, options),
                Err(MemoryError::Exists { .. }) => Self::open_with(name, options),
                done => return done,
            };
        }
        result
    }

    /// The fabric.
    #[inline(always)]
    #[must_use]
    pub const fn fabric(&self) -> FabricRef<'_, Sh> {
        self.fabric
    }

    /// The fabric, for a caller that keeps a clone of this memory for longer.
    ///
    /// # Safety
    /// The fabric is not used after the last clone is gone.
    pub(crate) const unsafe fn for_ever(&self) -> FabricRef<'static, Sh> {
        self.fabric
    }

    /// The kind of memory that holds the bytes, and why a better kind was not available.
    #[must_use]
    pub fn backing(&self) -> &Backing {
        &self.mapping.backing
    }

    /// Path of the file; `None` for memory without a file.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self.backing() {
            Backing::File { path } => Some(path),
            _ => None,
        }
    }

    /// Whether this is a forked process's copy of private memory: the parent's kernels are elsewhere.
    pub(crate) fn is_private_copy(&self) -> bool {
        self.mapping.is_private_copy()
    }

    /// Sets a fabric up in new memory, for the processes visible to this process unless the configuration names a domain.
    fn attach(mapping: Mapping, shape: Sh, config: &Config) -> Result<Self, MemoryError> {
        let domain = if config.domain == ProcessDomain::default() { owner::domain() } else { config.domain };
        let (base, len) = mapping.fabric_bytes(align_of::<FabricHeader>());
        // Later, each opener of the memory checks that its clock is the same.
        let config = &Config { clock: clock_id(), domain, ..*config };
        // SAFETY: the mapping is readable and writable for `len` bytes, and this program reaches it through the
        // handle below alone; every holder of the handle also holds the mapping.
        let fabric = unsafe { FabricRef::create_raw(base, len, shape, config) };
        match fabric {
            Ok(fabric) => Ok(Self { fabric, mapping: Arc::new(mapping) }),
            Err(why) => Err(mapping.refused(why)),
        }
    }
}

/// Removes a shared-memory file's name. Processes with the file open keep it. Also removes the drafts of killed creators
/// of this name, on file systems with drafts.
///
/// # Errors
/// [`MemoryError::NotFound`] if there is no such file.
pub fn remove(name: &str) -> Result<(), MemoryError> {
    file::remove(&path_of(name)?)
}

/// The file for a name.
///
/// # Errors
/// [`MemoryError::BadName`] for a name that is empty, `.` or `..`, or contains a NUL.
pub fn path_of(name: &str) -> Result<PathBuf, MemoryError> {
    if matches!(name, "" | "." | "..") || name.contains('\0') || name.ends_with('/') {
        return Err(MemoryError::BadName { name: name.to_owned() });
    }
    Ok(if name.contains('/') { PathBuf::from(name) } else { Path::new(SHM).join(name) })
}
