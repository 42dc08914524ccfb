//! Files of fabrics: how a file is completed before it has a name, and the checks before a file is used.
//!
//! # Creating
//!
//! ```text
//!   nameless file ── room taken ── group, mode ── mapped, header written ── named
//! ```
//!
//! No process ever opens half a fabric, and a creator that dies on the way leaves no file behind. On a file system without
//! nameless files (`O_TMPFILE`), the file begins as a draft, under a hidden name beside the final name. The creator holds a
//! lock (`flock`) on its draft, so a draft without a lock is a dead creator's: the next `create` or `remove` of the same
//! name removes the draft.
//!
//! # Opening
//!
//! Until checked, a file in a folder that other users can write is only a claim: the checks of type, owner, mode, group,
//! length and header come before the first write. A symbolic link as the last part of a path is never followed.

use super::MemoryError;
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, FlockOperation, Gid, Mode, OFlags, RawMode, RenameFlags, Uid,
};
use rustix::io::Errno;
use rustix::process::{Resource, geteuid};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// Who may share a fabric's file, and how its room is reserved. [`Memory::create`](super::Memory::create) and `open` use
/// the default: the file is for this user alone, and all of its room is reserved.
///
/// ```
/// use k2k::{Fixed, Config, Memory, memory::FileOptions};
/// # let name = format!("k2k-doc-options-{}", std::process::id());
/// let options = FileOptions::new().mode(0o660);
/// let _ours = Memory::<Fixed<4, 8, 64>>::create_with(&name, &Config::default(), &options)?;
/// // Who opens it must expect that its group can write it.
/// assert!(Memory::<Fixed<4, 8, 64>>::open(&name).is_err());
/// assert!(Memory::<Fixed<4, 8, 64>>::open_with(&name, &options).is_ok());
/// # k2k::memory::remove(&name)?;
/// # Ok::<(), k2k::MemoryError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct FileOptions {
    mode: u32,
    group: Option<u32>,
    owners: Vec<u32>,
    sparse: bool,
}

impl Default for FileOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl FileOptions {
    /// Mode 0600, files of this user, room reserved.
    pub const fn new() -> Self {
        Self { mode: 0o600, group: None, owners: Vec::new(), sparse: false }
    }

    /// Permission bits: given by `create` regardless of the umask; for `open`, the most write permissions that it accepts. A
    /// user with write permission can stop every kernel in the file.
    pub const fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// The numeric id of the group: `create` gives the file to the group, `open` expects the group.
    pub const fn group(mut self, gid: u32) -> Self {
        self.group = Some(gid);
        self
    }

    /// Lets `open` accept files of this user (a numeric id) in addition to files of the process's own user.
    pub fn trust_owner(mut self, uid: u32) -> Self {
        self.owners.push(uid);
        self
    }

    /// Makes `create` leave room unreserved until first written. A large shape then costs only its written pages; the price
    /// is a SIGBUS in every process that uses the file when the file system is full.
    pub const fn sparse(mut self) -> Self {
        self.sparse = true;
        self
    }

    fn check(&self, path: &Path) -> Result<Mode, MemoryError> {
        if self.mode & 0o600 != 0o600 || self.mode & !0o666 != 0 {
            return Err(MemoryError::BadMode { path: path.to_owned(), mode: self.mode });
        }
        Ok(Mode::from_raw_mode(self.mode as RawMode))
    }
}

/// A file with all its room, not yet visible to any other process.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) file: File,
    path: PathBuf,
    /// The draft's hidden name; `None` for a nameless file.
    draft: Option<PathBuf>,
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(draft) = &self.draft {
            // If this removal fails, the next `create` or `remove` of this name removes the draft.
            let _ = std::fs::remove_file(draft);
        }
    }
}

impl Draft {
    /// A new file of `shape`'s `size`, to be [named](Self::publish) `path`.
    pub(super) fn new(path: &Path, shape: Shape, options: &FileOptions) -> Result<Self, MemoryError> {
        Self::with(path, shape, options, open_nameless)
    }

    fn with(
        path: &Path,
        shape: Shape,
        options: &FileOptions,
        open_nameless: impl FnOnce(&Path) -> Result<OwnedFd, Errno>,
    ) -> Result<Self, MemoryError> {
        let mode = options.check(path)?;
        // Not decisive, since naming the file decides, but the cheapest check.
        if let Ok(stat) = rustix::fs::lstat(path) {
            return Err(occupied(path, FileType::from_raw_mode(stat.st_mode)));
        }
        let this = match open_nameless(folder_of(path)) {
            Ok(file) => Self { file: File::from(file), path: path.to_owned(), draft: None },
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => Self::hidden(path)?,
            Err(e) => return Err(MemoryError::system(Some(path.to_owned()), "create", e)),
        };
        take_room(&this.file, path, shape, options.sparse)?;
        if let Some(gid) = options.group {
            rustix::fs::fchown(&this.file, None, Some(Gid::from_raw(gid))).map_err(|why| MemoryError::CannotGive {
                path: path.to_owned(),
                gid,
                why: why.into(),
            })?;
        }
        rustix::fs::fchmod(&this.file, mode)
            .map_err(|e| MemoryError::system(Some(path.to_owned()), "set the mode of", e))?;
        Ok(this)
    }

    /// A file under a name beside `path` that no other call, in any process, uses.
    fn hidden(path: &Path) -> Result<Self, MemoryError> {
        remove_stale_drafts(path);
        let system = |e: Errno| MemoryError::system(Some(path.to_owned()), "create", e);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        for _ in 0..16 {
            let draft = draft_name(path);
            let file = File::from(rustix::fs::open(&draft, flags, Mode::RUSR | Mode::WUSR).map_err(system)?);
            let this = Self { file, path: path.to_owned(), draft: Some(draft) };
            // Before the lock is held, another creator may take this draft for a dead creator's, and remove it.
            // On a file system without locks, `flock` fails with other errors; other creators get no lock either, and leave
            // the draft alone.
            if rustix::fs::flock(&this.file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
                continue;
            }
            if rustix::fs::fstat(&this.file).map_err(system)?.st_nlink > 0 {
                return Ok(this);
            }
        }
        Err(system(Errno::AGAIN))
    }

    /// Gives the file its name. The name must be free.
    pub(super) fn publish(mut self) -> Result<(), MemoryError> {
        let Some(draft) = self.draft.clone() else { return self.publish_nameless() };
        // A single step, so that a death leaves a single name. Also, some file systems cannot link a second name.
        match rustix::fs::renameat_with(CWD, &draft, CWD, &self.path, RenameFlags::NOREPLACE) {
            Ok(()) => {
                self.draft = None;
                // The file lives on in its mappings, but is no draft any more.
                let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
                Ok(())
            }
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                // The draft's name is removed when this draft is dropped or, after a death here, when the file is removed.
                rustix::fs::linkat(CWD, &draft, CWD, &self.path, AtFlags::empty()).map_err(|e| self.unnamed(e))
            }
            Err(e) => Err(self.unnamed(e)),
        }
    }

    fn publish_nameless(&self) -> Result<(), MemoryError> {
        let by_number = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        match rustix::fs::linkat(CWD, by_number, CWD, &self.path, AtFlags::SYMLINK_FOLLOW) {
            Ok(()) => Ok(()),
            // Without /proc: needs a privilege, or a recent kernel of the system.
            Err(Errno::NOENT | Errno::NOTDIR) => {
                rustix::fs::linkat(&self.file, "", CWD, &self.path, AtFlags::EMPTY_PATH).map_err(|e| self.unnamed(e))
            }
            Err(e) => Err(self.unnamed(e)),
        }
    }

    fn unnamed(&self, e: Errno) -> MemoryError {
        match e {
            Errno::EXIST => {
                let kind = rustix::fs::lstat(&self.path).map(|stat| FileType::from_raw_mode(stat.st_mode));
                occupied(&self.path, kind.unwrap_or(FileType::RegularFile))
            }
            why => MemoryError::CannotName { path: self.path.clone(), why: why.into() },
        }
    }
}

/// The size of a fabric, and the numbers behind the size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) size: u64,
    pub(super) kernels: usize,
    pub(super) slots: usize,
    pub(super) payload: usize,
}

fn open_nameless(folder: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(folder, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)
}

/// Reserves a file's room, so that no page of the file can be missing later.
fn take_room(file: &File, path: &Path, shape: Shape, sparse: bool) -> Result<(), MemoryError> {
    /// The most that a system call reserves: after a signal, a call begins anew.
    const STEP: u64 = 8 << 20;
    let system = |e: Errno| MemoryError::system(Some(path.to_owned()), "reserve room for", e);
    let needed = shape.size;
    // Writing past the limit would end this process by SIGXFSZ.
    if let Some(limit) = rustix::process::getrlimit(Resource::Fsize).current.filter(|&limit| limit < needed) {
        return Err(MemoryError::FileSizeLimit { path: path.to_owned(), limit, needed });
    }
    let no_space = |free| MemoryError::NoSpace {
        path: path.to_owned(),
        free,
        needed,
        kernels: shape.kernels,
        slots: shape.slots,
        payload: shape.payload,
    };
    let free = || {
        let stat = rustix::fs::fstatvfs(file).map_err(system)?;
        // A file system that does not know its size, such as a tmpfs without a limit, reports no blocks.
        Ok(if stat.f_blocks == 0 { u64::MAX } else { stat.f_bavail.saturating_mul(stat.f_frsize) })
    };
    if sparse {
        return rustix::fs::ftruncate(file, needed).map_err(system);
    }
    // Before reserving anything: other processes need room, too.
    let before = free()?;
    if before < needed {
        return Err(no_space(before));
    }
    let mut taken = 0;
    while taken < needed {
        let step = STEP.min(needed - taken);
        match rustix::fs::fallocate(file, FallocateFlags::empty(), taken, step) {
            Ok(()) => taken += step,
            Err(Errno::INTR) => {}
            Err(Errno::NOSPC) => return Err(no_space(free()?.saturating_add(taken))),
            Err(why @ (Errno::OPNOTSUPP | Errno::NOSYS)) => {
                return Err(MemoryError::CannotReserve { path: path.to_owned(), why: why.into() });
            }
            Err(e) => return Err(system(e)),
        }
    }
    Ok(())
}

/// Opens a file that satisfies `options` and has at least `expected` bytes; also returns the file's length.
pub(super) fn open(path: &Path, expected: u64, options: &FileOptions) -> Result<(File, u64), MemoryError> {
    options.check(path)?;
    let at = || path.to_owned();
    // NONBLOCK, NOCTTY: opening a pipe or a terminal must have no effect; for a regular file the flags have no meaning.
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Err(MemoryError::NotFound { path: at() }),
        Err(Errno::ISDIR | Errno::NXIO) => return Err(MemoryError::NotAFile { path: at() }),
        Err(Errno::LOOP) => return Err(not_a_file(path, FileType::Symlink)),
        Err(e) => {
            // A user without permission to open the file should learn the file's owner.
            return match std::fs::symlink_metadata(path) {
                Ok(meta) if e == Errno::ACCESS => {
                    Err(owner(path, &meta, options).err().unwrap_or_else(|| MemoryError::system(Some(at()), "open", e)))
                }
                _ => Err(MemoryError::system(Some(at()), "open", e)),
            };
        }
    };
    let meta = file.metadata().map_err(|e| MemoryError::system(Some(at()), "look at", e))?;
    if !meta.is_file() {
        return Err(MemoryError::NotAFile { path: at() });
    }
    owner(path, &meta, options)?;
    let writable = meta.mode() & 0o022;
    if writable & !options.mode != 0 {
        return Err(MemoryError::Mode { path: at(), found: meta.mode() & 0o7777, expected: options.mode });
    }
    if let Some(expected) = options.group.filter(|&gid| gid != meta.gid()) {
        return Err(MemoryError::Group { path: at(), found: meta.gid(), expected });
    }
    if meta.len() < expected {
        let mut head = [0; 8];
        let is_fabric = file.read_exact_at(&mut head, 0).is_ok() && u64::from_le_bytes(head) == k2k_core::fabric::MAGIC;
        return Err(MemoryError::TooShort { path: at(), found: meta.len(), expected, is_fabric });
    }
    Ok((file, meta.len()))
}

fn owner(path: &Path, meta: &std::fs::Metadata, options: &FileOptions) -> Result<(), MemoryError> {
    let (found, own) = (meta.uid(), geteuid().as_raw());
    if found == own || options.owners.contains(&found) {
        return Ok(());
    }
    Err(MemoryError::Owner { path: path.to_owned(), found, own, trusted: options.owners.clone() })
}

/// The error for an occupied name.
fn occupied(path: &Path, kind: FileType) -> MemoryError {
    if kind == FileType::RegularFile { MemoryError::Exists { path: path.to_owned() } } else { not_a_file(path, kind) }
}

fn not_a_file(path: &Path, kind: FileType) -> MemoryError {
    if kind == FileType::Symlink {
        let target = std::fs::read_link(path).unwrap_or_default();
        return MemoryError::SymbolicLink { path: path.to_owned(), target };
    }
    MemoryError::NotAFile { path: path.to_owned() }
}

/// Removes a file's name, and the drafts of dead creators of the same name.
pub(super) fn remove(path: &Path) -> Result<(), MemoryError> {
    remove_stale_drafts(path);
    match std::fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(MemoryError::NotFound { path: path.to_owned() }),
        Err(e) => Err(MemoryError::system(Some(path.to_owned()), "remove", e)),
    }
}

/// Removes drafts of this name whose creators are dead: drafts of this user without a lock.
fn remove_stale_drafts(path: &Path) {
    let Ok(folder) = std::fs::read_dir(folder_of(path)) else { return };
    let prefix = draft_prefix(path);
    for entry in folder.flatten() {
        if !entry.file_name().as_bytes().starts_with(prefix.as_bytes()) {
            continue;
        }
        let draft = entry.path();
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let Ok(file) = rustix::fs::open(&draft, flags, Mode::empty()) else { continue };
        let is_ours = rustix::fs::fstat(&file).is_ok_and(|stat| {
            FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && Uid::from_raw(stat.st_uid) == geteuid()
        });
        if is_ours && rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            // An error is harmless: a draft that stays hinders no process.
            let _ = std::fs::remove_file(&draft);
        }
    }
}

/// The folder of a file.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

fn draft_prefix(path: &Path) -> std::ffi::OsString {
    let mut prefix = std::ffi::OsString::from(".k2k-draft.");
    prefix.push(path.file_name().unwrap_or_default());
    prefix.push(".");
    prefix
}

/// An unused name beside `path`.
fn draft_name(path: &Path) -> PathBuf {
    use core::hash::BuildHasher;
    use std::hash::RandomState;
    let mut name = draft_prefix(path);
    name.push(format!("{:016x}", RandomState::new().hash_one(std::process::id())));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { size: 65_536, kernels: 1, slots: 1, payload: 0 };

    fn folder() -> PathBuf {
        let folder = draft_name(&std::env::temp_dir().join("test"));
        std::fs::create_dir(&folder).unwrap();
        folder
    }

    fn hidden(path: &Path) -> Result<Draft, MemoryError> {
        Draft::with(path, SHAPE, &FileOptions::new(), |_| Err(Errno::OPNOTSUPP))
    }

    fn count(folder: &Path) -> usize {
        std::fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn a_nameless_draft_is_nowhere_until_it_is_published() {
        let folder = folder();
        let path = folder.join("fabric");
        let draft = Draft::new(&path, SHAPE, &FileOptions::new()).unwrap();
        // A file system without nameless files takes the other way.
        assert_eq!(count(&folder), usize::from(draft.draft.is_some()));
        let rival = Draft::new(&path, SHAPE, &FileOptions::new()).unwrap();
        draft.publish().unwrap();
        assert!(matches!(rival.publish(), Err(MemoryError::Exists { .. })));
        assert_eq!((count(&folder), path.metadata().unwrap().len()), (1, SHAPE.size));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_hidden_draft_takes_its_name_in_one_step_and_only_if_it_is_free() {
        let folder = folder();
        let path = folder.join("fabric");
        let (draft, rival) = (hidden(&path).unwrap(), hidden(&path).unwrap());
        assert_eq!(count(&folder), 2, "a living creator's draft stays");
        draft.publish().unwrap();
        assert!(matches!(rival.publish(), Err(MemoryError::Exists { .. })));
        assert!(matches!(hidden(&path), Err(MemoryError::Exists { .. })));
        assert_eq!((count(&folder), path.metadata().unwrap().mode() & 0o7777), (1, 0o600));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_a_dead_creator_left_goes_with_the_next_create_or_remove() {
        let folder = folder();
        let path = folder.join("fabric");
        let die = || {
            let draft = core::mem::ManuallyDrop::new(hidden(&path).unwrap());
            // SAFETY: the system closes the files of a process that dies, and this file is not used any more.
            drop(unsafe { core::ptr::read(&raw const draft.file) });
        };
        std::fs::write(folder.join(".k2k-draft.other.0"), "").unwrap();
        die();
        assert_eq!(count(&folder), 2);
        let living = hidden(&path).unwrap();
        assert_eq!(count(&folder), 2, "the dead one's is gone, that of another name is not");
        die();
        assert!(matches!(remove(&path), Err(MemoryError::NotFound { .. })));
        assert_eq!(count(&folder), 2);
        // Named, but still a draft as well, as on a file system that can link but not rename.
        std::fs::hard_link(living.draft.as_ref().unwrap(), &path).unwrap();
        let mut living = core::mem::ManuallyDrop::new(living);
        // SAFETY: as above.
        drop(unsafe { core::ptr::read(&raw const living.file) });
        remove(&path).unwrap();
        assert_eq!(count(&folder), 1, "nothing holds the memory any more");
        living.draft = None;
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_draft_that_comes_to_nothing_leaves_nothing() {
        let folder = folder();
        let path = folder.join("fabric");
        let huge = Shape { size: 1 << 60, ..SHAPE };
        let options = FileOptions::new();
        let error = Draft::with(&path, huge, &options, |_| Err(Errno::OPNOTSUPP)).unwrap_err();
        assert!(matches!(error, MemoryError::NoSpace { needed: 0x1000_0000_0000_0000, .. }), "{error}");
        drop(hidden(&path).unwrap());
        assert_eq!(count(&folder), 0);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
