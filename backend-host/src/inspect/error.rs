//! Why a fabric cannot be looked at.

use crate::memory::MemoryError;
use core::fmt;
use k2k_core::fabric::AttachError;
use std::io;
use std::path::PathBuf;

/// Why a fabric cannot be looked at, or not any more.
#[derive(Debug)]
#[non_exhaustive]
pub enum InspectError {
    /// The name cannot name a file.
    Name(MemoryError),
    /// No file of this name exists.
    NotFound {
        /// Path of the missing file.
        path: PathBuf,
    },
    /// The name belongs to an object other than a regular file.
    NotAFile {
        /// Path of the object.
        path: PathBuf,
    },
    /// This user may not read the file.
    NotReadable {
        /// Path of the file.
        path: PathBuf,
        /// User id of the file's owner, if known.
        owner: Option<u32>,
    },
    /// The bytes are not a fabric, or are a fabric of another version.
    Attach {
        /// Path of the file.
        path: PathBuf,
        /// The wrong property of the fabric.
        why: AttachError,
    },
    /// The file ends before the fabric does: the file was made shorter, or has never been complete.
    Shorter {
        /// Path of the file.
        path: PathBuf,
        /// Length of the file, bytes.
        found: u64,
        /// Size of the fabric, bytes.
        expected: u64,
    },
    /// The file's header has changed since the view opened.
    Changed {
        /// Path of the file.
        path: PathBuf,
    },
    /// The system refused.
    System {
        /// Path of the file.
        path: PathBuf,
        /// The failed action: a verb.
        action: &'static str,
        /// The system's answer.
        why: io::Error,
    },
}

impl InspectError {
    pub(super) fn system(path: PathBuf, action: &'static str, why: io::Error) -> Self {
        Self::System { path, action, why }
    }
}

impl fmt::Display for InspectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(why) => why.fmt(f),
            Self::NotFound { path } => write!(
                f,
                "{} does not exist: check the name; `k2k ls` lists the fabrics on this machine",
                path.display()
            ),
            Self::NotAFile { path } => write!(f, "{} is not a regular file", path.display()),
            Self::NotReadable { path, owner } => {
                write!(f, "{} may not be read by this user", path.display())?;
                match owner {
                    Some(owner) => write!(f, ": it belongs to user {owner}, look at it as that user"),
                    None => Ok(()),
                }
            }
            Self::Attach { path, why: AttachError::TooSmall { found, .. } } => {
                write!(f, "{} has {found} bytes, which is too short for a fabric: it is none", path.display())
            }
            // Every possible shape can be looked at.
            Self::Attach { path, why: AttachError::Shape { kernels, slots, payload, most_kernels, most_payload } } => {
                write!(
                    f,
                    "{} is damaged: its header tells of {kernels} kernels, {slots} slots and {payload} bytes of payload; kernels \
                 may be 1 to {most_kernels}, slots a power of two up to 32768, payload a multiple of 64 up to {most_payload}",
                    path.display()
                )
            }
            Self::Attach { path, why } => write!(f, "{}: {why}", path.display()),
            Self::Shorter { path, found, expected } => write!(
                f,
                "{} has {found} bytes, and its fabric has {expected}: it was made shorter, or never finished",
                path.display()
            ),
            Self::Changed { path } => {
                write!(f, "{} has another header than before: it was written over; look again", path.display())
            }
            Self::System { path, action, why } => write!(f, "cannot {action} {}: {why}", path.display()),
        }
    }
}

impl core::error::Error for InspectError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Name(why) => Some(why),
            Self::Attach { why, .. } => Some(why),
            Self::System { why, .. } => Some(why),
            _ => None,
        }
    }
}
