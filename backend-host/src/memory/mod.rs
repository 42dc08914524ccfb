//! Where a fabric's bytes live on a host: on the heap, in huge pages, or in a file that other processes map as well.
//!
//! | constructor | bytes | others reach it by |
//! | --- | --- | --- |
//! | [`Memory::heap`] | anonymous mapping; pages are committed when they are touched | cloning the [`Memory`] |
//! | [`Memory::huge_pages`] | the same in huge pages, as far as the system gives any; [`Backing`] tells | cloning |
//! | [`Memory::create`], [`Memory::open`] | a file, by default in `/dev/shm` | [`Memory::open`] with the same name |
//!
//! A name without a `/` is a POSIX shared-memory object: the file `/dev/shm/<name>`. A name with one is a path. The
//! file has mode 0600: who may write it can stop every kernel in it, or end the processes that map it by making it
//! shorter (SIGBUS), although nothing that is *in* it causes undefined behaviour. So does a file system that fills up:
//! room is checked when the file is created, but its pages are taken only when they are first written.
//!
//! `create` sets a file up under another name and then links it to its own, so that nobody ever opens half a fabric.

mod error;
mod mapping;

pub use error::MemoryError;
pub use mapping::Backing;

use core::fmt;
use core::ops::Deref;
use core::ptr::NonNull;
use k2k_core::{Config, Fabric};
use mapping::{Mapping, map_file, map_heap, map_huge};
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where names without a `/` live.
const SHM: &str = "/dev/shm";

/// The bytes of one [`Fabric`]; clones share them. Derefs to the fabric.
///
/// ```
/// use k2k_host::{Config, Memory};
/// let memory = Memory::<4, 64, 192>::heap(&Config::default())?;
/// assert_eq!(memory.kernels().count(), 0);
/// # Ok::<(), k2k_host::MemoryError>(())
/// ```
pub struct Memory<const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize> {
    mapping: Arc<Mapping>,
    fabric: NonNull<Fabric<KERNELS, SLOTS, PAYLOAD>>,
}

// SAFETY: it is an `Arc` of a mapping and a pointer into it, used as `&Fabric`, which is `Sync`.
unsafe impl<const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize> Send for Memory<KERNELS, SLOTS, PAYLOAD> where
    Fabric<KERNELS, SLOTS, PAYLOAD>: Sync
{
}
// SAFETY: as above.
unsafe impl<const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize> Sync for Memory<KERNELS, SLOTS, PAYLOAD> where
    Fabric<KERNELS, SLOTS, PAYLOAD>: Sync
{
}

impl<const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize> Clone for Memory<KERNELS, SLOTS, PAYLOAD> {
    fn clone(&self) -> Self {
        Self { mapping: Arc::clone(&self.mapping), fabric: self.fabric }
    }
}

impl<const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize> fmt::Debug for Memory<KERNELS, SLOTS, PAYLOAD> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("shape", &(KERNELS, SLOTS, PAYLOAD))
            .field("size", &Self::SIZE)
            .field("backing", self.backing())
            .finish()
    }
}

impl<const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize> Deref for Memory<KERNELS, SLOTS, PAYLOAD> {
    type Target = Fabric<KERNELS, SLOTS, PAYLOAD>;

    #[inline(always)]
    fn deref(&self) -> &Self::Target {
        // SAFETY: points into the mapping, which lives at least as long as `self`; `attach` has checked it.
        unsafe { self.fabric.as_ref() }
    }
}

impl<const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize> Memory<KERNELS, SLOTS, PAYLOAD> {
    /// Size of the fabric, bytes.
    pub const SIZE: usize = Fabric::<KERNELS, SLOTS, PAYLOAD>::GEOMETRY.size as usize;

    /// A new fabric in ordinary memory of this process. Only the pages that kernels touch are ever committed, so a
    /// large fabric with few kernels costs little.
    ///
    /// # Errors
    /// [`MemoryError::System`] if the system gives no address space.
    pub fn heap(config: &Config) -> Result<Self, MemoryError> {
        let mapping = map_heap(Self::SIZE).map_err(|e| MemoryError::system(None, "map memory", e))?;
        Self::attach(mapping, config)
    }

    /// A new fabric in huge pages: fewer TLB misses, but memory is committed in large steps.
    ///
    /// Takes pages of the system's pool (`/proc/sys/vm/nr_hugepages`) if it has enough, else asks for transparent ones,
    /// else takes ordinary ones. [`backing`](Self::backing) says which it became and why.
    ///
    /// # Errors
    /// As [`heap`](Self::heap).
    pub fn huge_pages(config: &Config) -> Result<Self, MemoryError> {
        let mapping = map_huge(Self::SIZE).map_err(|e| MemoryError::system(None, "map memory", e))?;
        Self::attach(mapping, config)
    }

    /// A new fabric in a new shared-memory file. The file stays until it is [removed](remove).
    ///
    /// # Errors
    /// [`MemoryError::Exists`] if the name is taken, [`MemoryError::NoSpace`] if the file system has too little room.
    pub fn create(name: &str, config: &Config) -> Result<Self, MemoryError> {
        let path = path_of(name)?;
        if path.exists() {
            return Err(MemoryError::Exists { path });
        }
        let system = |action| {
            let path = path.clone();
            move |e: io::Error| MemoryError::system(Some(path), action, e)
        };
        let draft = draft_name(&path);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::open(&draft, flags, Mode::RUSR | Mode::WUSR).map_err(|e| system("create")(e.into()))?;
        let file = File::from(file);
        let result = (|| {
            let free = rustix::fs::fstatvfs(&file).map_err(|e| system("look at")(e.into()))?;
            let free = free.f_bavail.saturating_mul(free.f_frsize);
            if free < Self::SIZE as u64 {
                return Err(MemoryError::NoSpace { path: path.clone(), free, needed: Self::SIZE as u64 });
            }
            file.set_len(Self::SIZE as u64).map_err(system("resize"))?;
            let memory = Self::attach(map_file(&file, Self::SIZE, path.clone()).map_err(system("map"))?, config)?;
            std::fs::hard_link(&draft, &path).map_err(|e| match e.kind() {
                io::ErrorKind::AlreadyExists => MemoryError::Exists { path: path.clone() },
                _ => system("name")(e),
            })?;
            Ok(memory)
        })();
        // The draft is this call's own; if it cannot be removed, a nameless leftover harms nobody.
        let _ = std::fs::remove_file(&draft);
        result
    }

    /// The fabric in a shared-memory file that this or another process [created](Self::create). Its configuration is
    /// the one it was created with.
    ///
    /// # Errors
    /// [`MemoryError::NotFound`], [`MemoryError::NotAFile`], [`MemoryError::TooShort`] before anything is mapped;
    /// [`MemoryError::Attach`] if the contents are not a fabric of this shape.
    pub fn open(name: &str) -> Result<Self, MemoryError> {
        let path = path_of(name)?;
        let system = |action, e: io::Error| MemoryError::system(Some(path.clone()), action, e);
        // NONBLOCK: opening a pipe must not wait for its other end. It means nothing for a file.
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(rustix::io::Errno::NOENT) => return Err(MemoryError::NotFound { path }),
            Err(rustix::io::Errno::ISDIR) => return Err(MemoryError::NotAFile { path }),
            Err(e) => return Err(system("open", e.into())),
        };
        let meta = file.metadata().map_err(|e| system("look at", e))?;
        if !meta.is_file() {
            return Err(MemoryError::NotAFile { path });
        }
        if meta.len() < Self::SIZE as u64 {
            let mut head = [0; 8];
            let is_fabric =
                file.read_exact_at(&mut head, 0).is_ok() && u64::from_le_bytes(head) == k2k_core::fabric::MAGIC;
            return Err(MemoryError::TooShort { path, found: meta.len(), expected: Self::SIZE as u64, is_fabric });
        }
        let mapping = map_file(&file, Self::SIZE, path.clone()).map_err(|e| system("map", e))?;
        Self::attach(mapping, &Config::default())
    }

    /// [Opens](Self::open) a file or, if there is none, [creates](Self::create) it: for processes that start in any
    /// order.
    ///
    /// # Errors
    /// As for `open` and `create`, but neither `NotFound` nor `Exists`, unless others create and remove it all the
    /// time.
    pub fn create_or_open(name: &str, config: &Config) -> Result<Self, MemoryError> {
        let mut result = Self::open(name);
        for _ in 0..16 {
            result = match result {
                Err(MemoryError::NotFound { .. }) => Self::create(name, config),
                Err(MemoryError::Exists { .. }) => Self::open(name),
                done => return done,
            };
        }
        result
    }

    /// The fabric.
    #[must_use]
    pub fn fabric(&self) -> &Fabric<KERNELS, SLOTS, PAYLOAD> {
        self
    }

    /// What holds the bytes, and what could not be had.
    #[must_use]
    pub fn backing(&self) -> &Backing {
        &self.mapping.backing
    }

    /// The file, if it is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self.backing() {
            Backing::File { path } => Some(path),
            _ => None,
        }
    }

    /// Whether this is a forked process's copy of memory that is not shared: the parent's kernels are elsewhere.
    pub(crate) fn is_private_copy(&self) -> bool {
        self.mapping.is_private_copy()
    }

    fn attach(mapping: Mapping, config: &Config) -> Result<Self, MemoryError> {
        let (base, len) = mapping.fabric_bytes(align_of::<Fabric<KERNELS, SLOTS, PAYLOAD>>());
        // SAFETY: the mapping is readable and writable for `len` bytes, and this program reaches it through the
        // reference below alone, which no one outlives who does not hold the mapping as well.
        let fabric = unsafe { Fabric::attach_raw(base, len, config) };
        match fabric {
            Ok(fabric) => Ok(Self { fabric: NonNull::from(fabric), mapping: Arc::new(mapping) }),
            Err(why) => Err(mapping.refused(why)),
        }
    }
}

/// Removes a shared-memory file's name. Processes that have it open keep it.
///
/// # Errors
/// [`MemoryError::NotFound`] if there is none.
pub fn remove(name: &str) -> Result<(), MemoryError> {
    let path = path_of(name)?;
    match std::fs::remove_file(&path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(MemoryError::NotFound { path }),
        Err(e) => Err(MemoryError::system(Some(path), "remove", e)),
    }
}

/// The file that a name stands for.
///
/// # Errors
/// [`MemoryError::BadName`] for a name that is empty, `.` or `..`, or contains a NUL.
pub fn path_of(name: &str) -> Result<PathBuf, MemoryError> {
    if matches!(name, "" | "." | "..") || name.contains('\0') || name.ends_with('/') {
        return Err(MemoryError::BadName { name: name.to_owned() });
    }
    Ok(if name.contains('/') { PathBuf::from(name) } else { Path::new(SHM).join(name) })
}

/// A name beside `path` that no other call, in any process, uses at the moment.
fn draft_name(path: &Path) -> PathBuf {
    use core::hash::BuildHasher;
    use std::hash::RandomState;
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let unique = RandomState::new().hash_one(std::process::id());
    path.with_file_name(format!(".{file}.{unique:016x}"))
}
