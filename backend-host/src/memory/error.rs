//! Why there is no memory for a fabric: each reason with its file and a remedy.

use core::fmt;
use k2k_core::fabric::AttachError;
use std::io;
use std::path::PathBuf;

/// Why a [`Memory`](super::Memory) could not be made.
#[derive(Debug)]
#[non_exhaustive]
pub enum MemoryError {
    /// The name cannot name a file.
    BadName {
        /// The given name.
        name: String,
    },
    /// `create`: a file of this name exists.
    Exists {
        /// Path of the existing file.
        path: PathBuf,
    },
    /// `open` or `remove`: no file of this name exists.
    NotFound {
        /// Path of the missing file.
        path: PathBuf,
    },
    /// The name belongs to an object other than a regular file.
    NotAFile {
        /// Path of the object.
        path: PathBuf,
    },
    /// The file is shorter than a fabric of this shape.
    TooShort {
        /// Path of the file.
        path: PathBuf,
        /// Length of the file, bytes.
        found: u64,
        /// Length of a fabric of this shape, bytes.
        expected: u64,
        /// Whether the file begins like a fabric, so probably holds a fabric of another shape.
        is_fabric: bool,
    },
    /// The file system has too little room.
    NoSpace {
        /// Path of the file to create.
        path: PathBuf,
        /// Free room, bytes.
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
    /// This process may not write files of the needed size (`ulimit -f`).
    FileSizeLimit {
        /// Path of the file to create.
        path: PathBuf,
        /// The limit of this process, bytes.
        limit: u64,
        /// Size of the fabric, bytes.
        needed: u64,
    },
    /// The file system cannot reserve room for a file.
    CannotReserve {
        /// Path of the file to create.
        path: PathBuf,
        /// The system's answer.
        why: io::Error,
    },
    /// The file is complete, but the file system cannot name it.
    CannotName {
        /// The intended path.
        path: PathBuf,
        /// The system's answer.
        why: io::Error,
    },
    /// The file cannot be given to the group.
    CannotGive {
        /// Path of the file to create.
        path: PathBuf,
        /// Numeric id of the group.
        gid: u32,
        /// The system's answer.
        why: io::Error,
    },
    /// A mode unfit for a fabric's file.
    BadMode {
        /// Path of the file.
        path: PathBuf,
        /// The refused mode.
        mode: u32,
    },
    /// The name belongs to a symbolic link. Links are not followed: a user who can make links could choose the file.
    SymbolicLink {
        /// Path of the link.
        path: PathBuf,
        /// Target of the link.
        target: PathBuf,
    },
    /// Another user owns the file.
    Owner {
        /// Path of the file.
        path: PathBuf,
        /// User id of the file's owner.
        found: u32,
        /// User id of this process.
        own: u32,
        /// Other users whose files the options accept.
        trusted: Vec<u32>,
    },
    /// More users can write the file than the options allow.
    Mode {
        /// Path of the file.
        path: PathBuf,
        /// Mode of the file.
        found: u32,
        /// The allowed mode.
        expected: u32,
    },
    /// The file belongs to a group other than the expected group.
    Group {
        /// Path of the file.
        path: PathBuf,
        /// Group id of the file.
        found: u32,
        /// Group id in the options.
        expected: u32,
    },
    /// The bytes are not a fabric that this program can use.
    Attach {
        /// Path of the file; `None` for memory without a file.
        path: Option<PathBuf>,
        /// The wrong property of the fabric.
        why: AttachError,
    },
    /// The system refused.
    System {
        /// Path of the file; `None` if no file is concerned.
        path: Option<PathBuf>,
        /// The failed action: a verb.
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
