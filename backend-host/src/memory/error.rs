//! Why there is no memory for a fabric: each reason with the file it is about and what to do.

use core::fmt;
use k2k_core::fabric::AttachError;
use std::io;
use std::path::PathBuf;

/// Why a [`Memory`](super::Memory) could not be made.
#[derive(Debug)]
#[non_exhaustive]
pub enum MemoryError {
    /// The name cannot be a file's.
    BadName {
        /// What was given.
        name: String,
    },
    /// `create`: there is a file of that name.
    Exists {
        /// Where.
        path: PathBuf,
    },
    /// `open` or `remove`: there is no file of that name.
    NotFound {
        /// Where it would be.
        path: PathBuf,
    },
    /// There is something of that name, but no regular file.
    NotAFile {
        /// Where.
        path: PathBuf,
    },
    /// The file is shorter than a fabric of this shape.
    TooShort {
        /// Where.
        path: PathBuf,
        /// Its length, bytes.
        found: u64,
        /// Length of a fabric of this shape, bytes.
        expected: u64,
        /// Whether it begins like a fabric, so that it is probably one of another shape.
        is_fabric: bool,
    },
    /// The file system has too little room.
    NoSpace {
        /// The file that was to be made.
        path: PathBuf,
        /// Room there is, bytes.
        free: u64,
        /// Room needed, bytes.
        needed: u64,
        /// The shape's indices for kernels.
        kernels: usize,
        /// The shape's messages per kernel pair.
        slots: usize,
        /// The shape's payload bytes per message.
        payload: usize,
    },
    /// This process may not write files that are large enough (`ulimit -f`).
    FileSizeLimit {
        /// The file that was to be made.
        path: PathBuf,
        /// The limit, bytes.
        limit: u64,
        /// Size of the fabric, bytes.
        needed: u64,
    },
    /// The file system cannot reserve room for a file.
    CannotReserve {
        /// The file that was to be made.
        path: PathBuf,
        /// The system's answer.
        why: io::Error,
    },
    /// The file is complete, but the file system gives it no name.
    CannotName {
        /// The name.
        path: PathBuf,
        /// The system's answer.
        why: io::Error,
    },
    /// The file cannot be given to the group.
    CannotGive {
        /// The file that was to be made.
        path: PathBuf,
        /// The group.
        gid: u32,
        /// The system's answer.
        why: io::Error,
    },
    /// A mode that is not for a fabric's file.
    BadMode {
        /// The file.
        path: PathBuf,
        /// The mode.
        mode: u32,
    },
    /// There is a symbolic link of that name. Links are not followed: whoever can make one could choose the file.
    SymbolicLink {
        /// Where.
        path: PathBuf,
        /// Where it leads to.
        target: PathBuf,
    },
    /// The file is another user's.
    Owner {
        /// Where.
        path: PathBuf,
        /// Its owner.
        found: u32,
        /// This user.
        own: u32,
        /// Other users whose files were allowed.
        trusted: Vec<u32>,
    },
    /// Others can write the file than was allowed.
    Mode {
        /// Where.
        path: PathBuf,
        /// Its mode.
        found: u32,
        /// The mode that was allowed.
        expected: u32,
    },
    /// The file belongs to another group.
    Group {
        /// Where.
        path: PathBuf,
        /// Its group.
        found: u32,
        /// The group that was asked for.
        expected: u32,
    },
    /// The bytes are not a fabric that this program can use.
    Attach {
        /// The file, if it is one.
        path: Option<PathBuf>,
        /// Which of its properties is wrong.
        why: AttachError,
    },
    /// The system refused.
    System {
        /// The file, if it is about one.
        path: Option<PathBuf>,
        /// What was tried: a verb.
        action: &'static str,
        /// The system's answer.
        why: io::Error,
    },
}

impl MemoryError {
    pub(super) fn system(path: Option<PathBuf>, action: &'static str, why: impl Into<io::Error>) -> Self {
        Self::System { path, action, why: why.into() }
    }
}

impl fmt::Display for MemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadName { name } => {
                write!(f, "{name:?} cannot name a fabric: give a file name (for /dev/shm) or a path to a file")
            }
            Self::Exists { path } => {
                write!(f, "{} exists: open it, or remove it if its processes are gone", path.display())
            }
            Self::NotFound { path } => write!(
                f,
                "{} does not exist: check the name; a fabric can be opened once it was created",
                path.display()
            ),
            Self::NotAFile { path } => write!(f, "{} is not a regular file", path.display()),
            Self::TooShort { path, found, expected, is_fabric } => {
                write!(f, "{} has {found} bytes, a fabric of this shape has {expected}: ", path.display())?;
                f.write_str(if *is_fabric {
                    "it is a fabric of another shape, open it with the type it was created with"
                } else {
                    "it is not a fabric"
                })
            }
            Self::NoSpace { path, free, needed, kernels, slots, payload } => write!(
                f,
                "no room for {}: the fabric needs {needed} bytes, its file system has {free} left; lower KERNELS \
                 ({kernels}, counts twice), SLOTS ({slots}) or PAYLOAD ({payload}), name a path on another file system, \
                 enlarge this one, or let the file be sparse",
                path.display()
            ),
            Self::FileSizeLimit { path, limit, needed } => write!(
                f,
                "{} cannot be made: the fabric needs {needed} bytes, and this process may write files of {limit} at most; \
                 raise the limit (ulimit -f) or lower KERNELS, SLOTS or PAYLOAD",
                path.display()
            ),
            Self::CannotReserve { path, why } => write!(
                f,
                "the file system of {} cannot reserve room ({why}): name a path on another one, such as /dev/shm, or let \
                 the file be sparse, if it is acceptable that processes end by SIGBUS when the file system is full",
                path.display()
            ),
            Self::CannotName { path, why } => write!(
                f,
                "cannot name {}: {why}; its file system must be able to link or to rename without replacing: name a path \
                 on another one, such as /dev/shm",
                path.display()
            ),
            Self::CannotGive { path, gid, why } => write!(
                f,
                "cannot give {} to group {gid}: {why}; a user can give files to groups that the user is in",
                path.display()
            ),
            Self::BadMode { path, mode } => write!(
                f,
                "{}: mode {mode:04o} is not for a fabric: its owner must be able to read and write (0600), and nobody \
                 executes it (0666 at most)",
                path.display()
            ),
            Self::SymbolicLink { path, target } => write!(
                f,
                "{} is a symbolic link to {}, which is not followed: name the file itself, or remove the link",
                path.display(),
                target.display()
            ),
            Self::Owner { path, found, own, trusted } => {
                write!(f, "{} belongs to user {found}, this process runs as user {own}", path.display())?;
                if !trusted.is_empty() {
                    write!(f, " and trusts the files of {trusted:?}")?;
                }
                f.write_str(": open it with FileOptions that trust that owner, if that is meant")
            }
            Self::Mode { path, found, expected } => write!(
                f,
                "{} has mode {found:04o}, so others can write it than mode {expected:04o} allows: chmod it, or open it with \
                 FileOptions of its mode, if that is meant",
                path.display()
            ),
            Self::Group { path, found, expected } => {
                write!(f, "{} belongs to group {found}, expected group {expected}: chgrp it", path.display())
            }
            Self::Attach { path: Some(path), why } => write!(f, "{}: {why}", path.display()),
            Self::Attach { path: None, why } => why.fmt(f),
            Self::System { path: Some(path), action, why } => write!(f, "cannot {action} {}: {why}", path.display()),
            Self::System { path: None, action, why } => write!(f, "cannot {action}: {why}"),
        }
    }
}

impl core::error::Error for MemoryError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Attach { why, .. } => Some(why),
            Self::System { why, .. }
            | Self::CannotReserve { why, .. }
            | Self::CannotName { why, .. }
            | Self::CannotGive { why, .. } => Some(why),
            _ => None,
        }
    }
}
