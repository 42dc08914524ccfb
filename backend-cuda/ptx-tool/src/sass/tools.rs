//! Finding and running NVIDIA's assembler and disassembler.

use super::{EntryCode, parse};
use core::fmt;
use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// Which packages bring the programs.
pub const INSTALL: &str = "pip install nvidia-cuda-nvcc nvidia-cuda-nvdisasm";

/// Where they are looked for.
pub const PLACES: &str = "in PATH, in $CUDA_HOME/bin, $CUDA_PATH/bin, /usr/local/cuda/bin or among Python's packages";

/// The assembler and the disassembler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tools {
    /// Assembler: PTX to machine code.
    pub ptxas: PathBuf,
    /// Disassembler: machine code to text.
    pub nvdisasm: PathBuf,
    /// The assembler's version, such as `13.0.88`.
    pub version: String,
}

/// Why there is no machine code to look at.
#[derive(Debug)]
#[non_exhaustive]
pub enum SassError {
    /// A program is not there.
    Missing {
        /// Which.
        program: &'static str,
    },
    /// The assembler knows no such processor.
    UnknownArch {
        /// What was given.
        arch: String,
        /// The assembler's version.
        version: String,
        /// Those it knows.
        known: Vec<String>,
    },
    /// A program refused the file.
    Refused {
        /// Which.
        program: PathBuf,
        /// The first of its errors.
        why: String,
    },
    /// The system refused.
    System {
        /// The file or program it is about.
        path: PathBuf,
        /// The system's answer.
        why: io::Error,
    },
}

impl fmt::Display for SassError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { program } => {
                write!(f, "no {program} {PLACES}: {INSTALL}")
            }
            Self::UnknownArch { arch, version, known } => {
                write!(f, "ptxas {version} knows no processor `{arch}`; it knows {}", known.join(", "))
            }
            Self::Refused { program, why } => write!(f, "{}: {why}", program.display()),
            Self::System { path, why } => write!(f, "cannot use {}: {why}", path.display()),
        }
    }
}

impl core::error::Error for SassError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::System { why, .. } => Some(why),
            _ => None,
        }
    }
}

impl Tools {
    /// Looks in `PATH`, in CUDA's own folder, and among the packages of `python3`.
    ///
    /// # Errors
    /// [`SassError::Missing`] names the first program that is nowhere.
    pub fn find() -> Result<Self, SassError> {
        Self::find_with(None)
    }

    /// As [`find`](Self::find), with an assembler that is named: an older one, for instance, such as drivers have.
    ///
    /// # Errors
    /// As for [`find`](Self::find), and [`SassError::System`] or [`SassError::Refused`] if the named one does not run.
    pub fn find_with(ptxas: Option<&Path>) -> Result<Self, SassError> {
        let folders = folders();
        let find = |program: &'static str| {
            let found = folders.iter().map(|folder| folder.join(program)).find(|path| path.is_file());
            found.ok_or(SassError::Missing { program })
        };
        let ptxas = ptxas.map_or_else(|| find("ptxas"), |path| Ok(path.to_path_buf()))?;
        let nvdisasm = find("nvdisasm")?;
        let text = run(Command::new(&ptxas).arg("--version"), &ptxas)?;
        // `Cuda compilation tools, release 13.0, V13.0.88`
        let version = text.split_whitespace().find_map(|word| {
            let version = word.strip_prefix('V')?;
            version.starts_with(|c: char| c.is_ascii_digit()).then(|| version.to_owned())
        });
        Ok(Self { ptxas, nvdisasm, version: version.unwrap_or_else(|| "(unknown version)".to_owned()) })
    }

    /// The processors that the assembler knows.
    ///
    /// # Errors
    /// If it does not run.
    pub fn archs(&self) -> Result<Vec<String>, SassError> {
        let help = run(Command::new(&self.ptxas).arg("--help"), &self.ptxas)?;
        let mut known: Vec<String> =
            help.split(['\'', ',', ' ']).filter(|word| word.starts_with("sm_")).map(str::to_owned).collect();
        known.retain(|name| name.len() > 3 && name[3..].starts_with(|c: char| c.is_ascii_digit()));
        known.sort_by_key(|name| (name.len(), name.clone()));
        known.dedup();
        Ok(known)
    }

    /// Assembles a PTX file for a processor, and says what became of each of its entry points, by name.
    ///
    /// # Errors
    /// Each reason is a variant of [`SassError`].
    pub fn assemble(&self, file: &Path, arch: &str) -> Result<Vec<EntryCode>, SassError> {
        let known = self.archs()?;
        if !known.iter().any(|name| name == arch) {
            return Err(SassError::UnknownArch { arch: arch.to_owned(), version: self.version.clone(), known });
        }
        let cubin = Temporary::new()?;
        let mut ptxas = Command::new(&self.ptxas);
        ptxas.arg(format!("-arch={arch}")).arg("-v").arg(file).arg("-o").arg(&cubin.0);
        let log = run(&mut ptxas, &self.ptxas)?;
        let text = run(Command::new(&self.nvdisasm).arg("-c").arg(&cubin.0), &self.nvdisasm)?;
        Ok(parse::entries(&log, &text))
    }
}

/// Where the programs may lie.
fn folders() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = env::split_paths(&path).collect();
    folders.extend(crate::places::cuda_homes().map(|home| home.join("bin")));
    for package in crate::places::python_packages() {
        // Packages for CUDA 13 share a folder; those for CUDA 12 had one each.
        for inside in ["nvidia/cu13/bin", "nvidia/cuda_nvcc/bin", "nvidia/cuda_nvdisasm/bin"] {
            folders.push(package.join(inside));
        }
    }
    folders
}

/// Runs a program: what it printed, on both ways.
fn run(command: &mut Command, program: &Path) -> Result<String, SassError> {
    let output = command.output().map_err(|why| SassError::System { path: program.to_path_buf(), why })?;
    let both = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    if output.status.success() {
        return Ok(both);
    }
    let why = both.lines().find(|line| line.contains("error") || line.contains("fatal"));
    let why = why.or(both.lines().next()).unwrap_or("it failed and said nothing").to_owned();
    Err(SassError::Refused { program: program.to_path_buf(), why })
}

/// A file that goes when it is no longer needed.
struct Temporary(PathBuf);

impl Temporary {
    fn new() -> Result<Self, SassError> {
        static NEXT: Mutex<usize> = Mutex::new(0);
        let folder = env::temp_dir();
        if !folder.is_dir() {
            let why = io::Error::new(io::ErrorKind::NotFound, "no such folder for temporary files; TMPDIR names it");
            return Err(SassError::System { path: folder, why });
        }
        let mut next = NEXT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *next += 1;
        Ok(Self(folder.join(format!("k2k-ptx-{}-{next}.cubin", std::process::id()))))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // If it is not there, the assembler failed, and that was said.
        let _ = fs::remove_file(&self.0);
    }
}
