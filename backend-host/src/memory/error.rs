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
            Self::NotFound { path } => write!(f, "{} does not exist: create it first", path.display()),
            Self::NotAFile { path } => write!(f, "{} is not a regular file", path.display()),
            Self::TooShort { path, found, expected, is_fabric } => {
                write!(f, "{} has {found} bytes, a fabric of this shape has {expected}: ", path.display())?;
                f.write_str(if *is_fabric {
                    "it is a fabric of another shape, open it with the type it was created with"
                } else {
                    "it is not a fabric"
                })
            }
            Self::NoSpace { path, free, needed } => write!(
                f,
                "no room for {}: the fabric needs {needed} bytes, its file system has {free} left; use a smaller shape, \
                 a path on another file system, or enlarge this one",
                path.display()
            ),
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
            Self::System { why, .. } => Some(why),
            _ => None,
        }
    }
}
