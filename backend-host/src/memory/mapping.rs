//! Mappings of this process, and the memory behind the mappings.

use super::MemoryError;
use crate::process::Origin;
use core::fmt;
use core::ptr::NonNull;
use k2k_core::fabric::AttachError;
use rustix::mm::{Advice, MapFlags, ProtFlags};
use std::fs::File;
use std::io;
use std::path::PathBuf;

/// The kind of memory that holds the bytes of a [`Memory`](super::Memory), and why a better kind was not available.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backing {
    /// Ordinary pages of this process.
    Heap,
    /// Huge pages out of the system's pool, reserved for this fabric.
    HugePages {
        /// Size of a page, bytes.
        page_size: usize,
    },
    /// Pages that the system makes huge when it can; the pool had none to reserve.
    TransparentHugePages {
        /// Size of a huge page, bytes.
        page_size: usize,
        /// Why no huge pages could be reserved.
        why: String,
    },
    /// Ordinary pages, although huge pages were asked for.
    HeapInsteadOfHugePages {
        /// Why no huge pages were available.
        why: String,
    },
    /// A file that other processes can map.
    File {
        /// Path of the file.
        path: PathBuf,
    },
}

impl Backing {
    /// Why the memory differs from the user's request, in words; `None` if the memory is as requested.
    #[must_use]
    pub fn notice(&self) -> Option<&str> {
        match self {
            Self::TransparentHugePages { why, .. } | Self::HeapInsteadOfHugePages { why } => Some(why),
            _ => None,
        }
    }
}

impl fmt::Display for Backing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Heap => f.write_str("heap"),
            Self::HugePages { page_size } => write!(f, "huge pages of {} KiB", page_size >> 10),
            Self::TransparentHugePages { page_size, why } => {
                write!(f, "transparent huge pages of {} KiB ({why})", page_size >> 10)
            }
            Self::HeapInsteadOfHugePages { why } => write!(f, "heap instead of huge pages ({why})"),
            Self::File { path } => path.display().fmt(f),
        }
    }
}

/// A mapping of this process, unmapped when the last [`Memory`](super::Memory) is dropped.
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
    pub(super) backing: Backing,
    origin: Origin,
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping").field("len", &self.len).field("backing", &self.backing).finish_non_exhaustive()
    }
}

// SAFETY: a mapping belongs to the process, not to a thread; its bytes are reached through `Fabric: Sync` alone.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `base` and `len` come from mmap; every reference into the mapping borrows a `Memory`, and this was the
        // last.
        let unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok(), "{unmapped:?}");
    }
}

impl Mapping {
    /// Start and length of the fabric's bytes: from the first huge page, if huge pages matter.
    pub(crate) fn fabric_bytes(&self, align: usize) -> (*mut u8, usize) {
        let align = match &self.backing {
            Backing::TransparentHugePages { page_size, .. } => align.max(*page_size),
            _ => align,
        };
        let skip = self.base.addr().get().next_multiple_of(align) - self.base.addr().get();
        // `map_transparent` has mapped a huge page more than the fabric needs; other mappings are aligned already.
        (self.base.as_ptr().wrapping_add(skip), self.len.saturating_sub(skip))
    }

    /// Gives the memory behind a private mapping back to the system: all bytes are zero again.
    pub(crate) fn forget(&mut self) {
        // SAFETY: the mapping's own range. Zeroed pages are as valid as any bytes to the holder of a fabric's handle.
        let forgotten = unsafe { rustix::mm::madvise(self.base.as_ptr().cast(), self.len, Advice::LinuxDontNeed) };
        debug_assert!(forgotten.is_ok(), "{forgotten:?}");
    }

    /// Whether this is a forked process's copy of private memory.
    pub(super) fn is_private_copy(&self) -> bool {
        !matches!(self.backing, Backing::File { .. }) && !self.origin.is_here()
    }

    pub(super) fn refused(&self, why: AttachError) -> MemoryError {
        let path = if let Backing::File { path } = &self.backing { Some(path.clone()) } else { None };
        MemoryError::Attach { path, why }
    }
}

/// Ordinary memory of this process, committed on first touch.
pub(crate) fn map_heap(len: usize) -> io::Result<Mapping> {
    map_anonymous(len, MapFlags::NORESERVE, Backing::Heap)
}

/// Memory of this process in huge pages, as far as available.
pub(super) fn map_huge(size: usize) -> io::Result<Mapping> {
    let page_size = huge_page_size();
    let len = size.next_multiple_of(page_size);
    // No NORESERVE here: an exhausted pool must refuse the mapping, not kill the process that touches a page.
    map_anonymous(len, MapFlags::HUGETLB, Backing::HugePages { page_size }).or_else(|e| {
        let (count, kib) = (len / page_size, page_size >> 10);
        let why = format!("the pool cannot give {count} huge pages of {kib} KiB: {e}; see /proc/sys/vm/nr_hugepages");
        map_transparent(size, page_size, why)
    })
}

fn map_anonymous(len: usize, flags: MapFlags, backing: Backing) -> io::Result<Mapping> {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: the system chooses an unused address.
    let base =
        unsafe { rustix::mm::mmap_anonymous(core::ptr::null_mut(), len, protection, MapFlags::PRIVATE | flags)? };
    Ok(Mapping { base: not_null(base), len, backing, origin: Origin::here() })
}

/// Memory shared with every process that maps the file; the file has at least `len` bytes.
pub(super) fn map_file(file: &File, len: usize, path: PathBuf) -> io::Result<Mapping> {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: the system chooses an unused address.
    let base = unsafe { rustix::mm::mmap(core::ptr::null_mut(), len, protection, MapFlags::SHARED, file, 0)? };
    Ok(Mapping { base: not_null(base), len, backing: Backing::File { path }, origin: Origin::here() })
}

/// Ordinary memory, with the advice to the system to use huge pages.
fn map_transparent(size: usize, page_size: usize, why: String) -> io::Result<Mapping> {
    let mut mapping = map_anonymous(size + page_size, MapFlags::NORESERVE, Backing::Heap)?;
    // SAFETY: the mapping was made above, and advice of this kind does not change its contents.
    let advised = unsafe { rustix::mm::madvise(mapping.base.as_ptr().cast(), mapping.len, Advice::LinuxHugepage) };
    let switch = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    mapping.backing = match advised {
        Ok(()) if !switch.contains("[never]") => Backing::TransparentHugePages { page_size, why },
        Ok(()) => Backing::HeapInsteadOfHugePages { why: format!("{why}; transparent ones are switched off") },
        Err(e) => Backing::HeapInsteadOfHugePages { why: format!("{why}; transparent ones: {e}") },
    };
    Ok(mapping)
}

/// The system's default huge page size, bytes.
fn huge_page_size() -> usize {
    let kib = std::fs::read_to_string("/proc/meminfo").ok().and_then(|info| {
        let line = info.lines().find_map(|line| line.strip_prefix("Hugepagesize:"))?;
        line.trim().trim_end_matches("kB").trim().parse::<usize>().ok()
    });
    kib.map_or(2 << 20, |kib| kib << 10)
}

fn not_null<T>(base: *mut T) -> NonNull<u8> {
    NonNull::new(base.cast()).expect("mmap without a fixed address never returns null")
}
