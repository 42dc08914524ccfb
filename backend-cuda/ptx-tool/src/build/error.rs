//! Why a crate did not become PTX: each reason with what to do.

use super::NvvmError;
use core::fmt;
use std::io;
use std::path::PathBuf;

/// Why [`build`](super::build) failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum BuildError {
    /// No compiler with `core`'s sources was found.
    NoToolchain {
        /// What was looked at, and why it will not do: one entry each.
        tried: Vec<String>,
    },
    /// The compiler that was named will not do.
    BadToolchain {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The manifest is not there, or cargo cannot read it.
    Manifest {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The compiler knows no such processor.
    UnknownArch {
        /// What was given.
        arch: String,
        /// Those from Volta on that it knows.
        known: Vec<String>,
    },
    /// The compiler knows no such version of PTX.
    UnknownPtxVersion {
        /// What was given.
        version: String,
        /// Those it knows.
        known: Vec<String>,
    },
    /// Cargo failed; it has said why on the standard error.
    Cargo {
        /// The command as it was run.
        command: String,
    },
    /// The crate has no entry points.
    NoEntries {
        /// The package.
        package: String,
    },
    /// The module calls functions that are in no crate, so no driver would load it.
    Undefined {
        /// Their names.
        functions: Vec<String>,
    },
    /// libNVVM made no PTX of it.
    Nvvm(NvvmError),
    /// A path of this machine is in the output.
    LocalPath {
        /// Number of the line, from 1.
        line: usize,
        /// The path.
        path: String,
    },
    /// The system refused.
    System {
        /// The file or program it is about.
        path: PathBuf,
        /// What was tried: a verb.
        action: &'static str,
        /// The system's answer.
        why: io::Error,
    },
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoToolchain { tried } => {
                write!(
                    f,
                    "no compiler here has the sources of `core`, which device code needs. Any one of these brings one: {}; \
                     or name one with --toolchain-rustc and --toolchain-cargo",
                    super::toolchains()
                )?;
                for entry in tried {
                    write!(f, "; looked at {entry}")?;
                }
                Ok(())
            }
            Self::BadToolchain { path, why } => write!(f, "{} cannot compile device code: {why}", path.display()),
            Self::Manifest { path, why } => write!(f, "{}: {why}", path.display()),
            Self::UnknownArch { arch, known } => {
                write!(f, "this compiler knows no processor `{arch}`; it knows {}", known.join(", "))
            }
            Self::UnknownPtxVersion { version, known } => {
                write!(f, "this compiler knows no PTX {version}; it knows {}", known.join(", "))
            }
            Self::Cargo { command } => write!(f, "cargo failed (its messages are above); repeat it with: {command}"),
            Self::NoEntries { package } => write!(
                f,
                "{package} has no entry points: a kernel is `#[unsafe(no_mangle)] pub unsafe extern \"ptx-kernel\" fn`"
            ),
            Self::Undefined { functions } => write!(
                f,
                "the module calls functions that no crate defines, so no driver would load it: {}; define them in the \
                 device crate (`#[unsafe(no_mangle)] extern \"C\"`) or avoid what needs them",
                functions.join(", ")
            ),
            Self::Nvvm(why) => why.fmt(f),
            Self::LocalPath { line, path } => write!(
                f,
                "line {line} of the output names a folder of this machine, {path}, so the file would differ elsewhere: \
                 keep `file!()` and `env!(\"CARGO_MANIFEST_DIR\")` out of device code"
            ),
            Self::System { path, action, why } => write!(f, "cannot {action} {}: {why}", path.display()),
        }
    }
}

impl core::error::Error for BuildError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::System { why, .. } => Some(why),
            Self::Nvvm(why) => why.source(),
            _ => None,
        }
    }
}
