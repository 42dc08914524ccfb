//! A fabric's file, and the onlooker's copy of the ranges read so far.

use super::{Any, InspectError};
use crate::memory::{Mapping, map_heap, path_of};
use core::ops::Range;
use k2k_core::FabricRef;
use k2k_core::fabric::{AttachError, FabricHeader, Geometry, MAGIC};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// Length of the header, at the start of the file.
const HEADER: usize = size_of::<FabricHeader>();

/// Zeroed memory of this process with room for all of a fabric, and the file to fill the memory from.
#[derive(Debug)]
pub(super) struct Image {
    file: File,
    path: PathBuf,
    bytes: Mapping,
    /// Size of a fabric of the shape; `bytes` has room for so many bytes.
    len: usize,
}

/// Opens a file for reading, if it is a regular file.
pub(super) fn open_file(path: &Path) -> Result<File, InspectError> {
    let at = || path.to_owned();
    // NONBLOCK, NOCTTY: opening a pipe or a terminal must have no effect; for a regular file the flags have no meaning.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT | Errno::NOTDIR) => return Err(InspectError::NotFound { path: at() }),
        Err(Errno::NXIO) => return Err(InspectError::NotAFile { path: at() }),
        Err(Errno::ACCESS | Errno::PERM) => {
            let owner = std::fs::metadata(path).ok().map(|meta| meta.uid());
            return Err(InspectError::NotReadable { path: at(), owner });
        }
        Err(e) => return Err(InspectError::system(at(), "open", e.into())),
    };
    let meta = file.metadata().map_err(|e| InspectError::system(at(), "look at", e))?;
    if meta.is_file() { Ok(file) } else { Err(InspectError::NotAFile { path: at() }) }
}

/// Whether a file begins like a fabric: such a file may be in use, and must not be written over.
#[must_use]
pub fn begins_like_a_fabric(file: &File) -> bool {
    let mut head = [0; 8];
    file.read_exact_at(&mut head, 0).is_ok() && u64::from_le_bytes(head) == MAGIC
}

impl Image {
    /// Opens a file, and the fabric of the shape in its header. Only the header has been read afterwards.
    pub(super) fn open(name: &str) -> Result<(Self, FabricRef<'static, Any>), InspectError> {
        let path = path_of(name).map_err(InspectError::Name)?;
        let file = open_file(&path)?;
        let found = file.metadata().map_err(|e| InspectError::system(path.clone(), "look at", e))?.len();
        if found < HEADER as u64 {
            let why = AttachError::TooSmall { found: found as usize, expected: HEADER };
            return Err(InspectError::Attach { path, why });
        }
        // Address space alone: a page is committed when bytes are copied to the page.
        let len = usize::try_from(found).unwrap_or(usize::MAX);
        let bytes = map_heap(len).map_err(|e| InspectError::system(path.clone(), "make room for a copy of", e))?;
        let mut image = Self { file, path, bytes, len: HEADER };
        image.copy(0..HEADER)?;
        let (base, _) = image.bytes.fabric_bytes(align_of::<FabricHeader>());
        // SAFETY: readable and writable for `len` bytes, for as long as the caller keeps the image; this program writes
        // the bytes in `copy` alone.
        let fabric = match unsafe { FabricRef::<Any>::open_raw(base, len) } {
            Ok(fabric) => fabric,
            // The header exists and names a larger size than the file's.
            Err(AttachError::TooSmall { expected, .. }) => {
                return Err(InspectError::Shorter { path: image.path, found, expected: expected as u64 });
            }
            Err(why) => return Err(InspectError::Attach { path: image.path, why }),
        };
        image.len = fabric.geometry().size as usize;
        Ok((image, fabric))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Reads a range of the file into the same range of the image.
    pub(super) fn copy(&mut self, range: Range<usize>) -> Result<(), InspectError> {
        let range = range.start.min(self.len)..range.end.min(self.len);
        let (base, _) = self.bytes.fabric_bytes(align_of::<FabricHeader>());
        // SAFETY: the range is inside of the image's own mapping. A fabric's handle keeps no reference into the mapping
        // between two calls, and `&mut self` excludes any other call.
        let mut to = unsafe { core::slice::from_raw_parts_mut(base.add(range.start), range.len()) };
        let mut at = range.start as u64;
        while !to.is_empty() {
            match self.file.read_at(to, at) {
                Ok(0) => {
                    let found = self.file.metadata().map_or(at, |meta| meta.len());
                    return Err(InspectError::Shorter { path: self.path.clone(), found, expected: self.len as u64 });
                }
                Ok(read) => {
                    to = to.get_mut(read..).unwrap_or_default();
                    at += read as u64;
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(InspectError::system(self.path.clone(), "read", e)),
            }
        }
        Ok(())
    }

    /// Whether the last copied header still describes a fabric of this shape.
    pub(super) fn check(&self, shape: Geometry) -> Result<(), InspectError> {
        let (base, len) = self.bytes.fabric_bytes(align_of::<FabricHeader>());
        // SAFETY: as in `open`.
        match unsafe { FabricRef::<Any>::open_raw(base, len) } {
            Ok(found) if found.geometry() == shape => Ok(()),
            _ => Err(InspectError::Changed { path: self.path.clone() }),
        }
    }

    /// Gives the memory of earlier copies back to the system; the copied bytes are zero again.
    pub(super) fn forget(&mut self) {
        self.bytes.forget();
    }
}
