//! What can be wrong between this program and a GPU. One type for all of it: whoever starts kernels meets most of it in
//! one call. Each message says what was found and what would be right, as far as it is the machine's: that the CPU can
//! run the same code is for programs to say, in words that their users can type ([`Error::is_no_gpu`]).

use crate::hang::HangReport;
use crate::report::BlockReport;
use core::fmt;
use core::time::Duration;
use k2k::MemoryError;
use k2k_core::fabric::{NameError, NotRegistered};
use k2k_core::link::LinkError;
use k2k_core::{KernelId, RegisterError};
use std::io;
use std::path::PathBuf;

/// A version of two numbers: of CUDA, of PTX, or a compute capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u32, pub u32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// Why something about a GPU did not work.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A bridge to a host's fabric could not be built.
    Bridge(BridgeError),
    /// The driver's library is not on this machine.
    NoDriver {
        /// The file that was looked for.
        file: &'static str,
    },
    /// The driver's library lacks a function, so it is older than any driver for a device that would do.
    NoFunction {
        /// Name of the function.
        name: &'static str,
    },
    /// The driver works, but there is no device.
    NoDevice,
    /// There are devices, but none of that number.
    WrongOrdinal {
        /// The number asked for.
        asked: u32,
        /// How many there are; they are counted from 0.
        devices: u32,
    },
    /// The device lacks something without which no kernel can run.
    Placement(PlacementError),
    /// The driver is older than the PTX.
    OldDriver {
        /// Version of CUDA that the driver is for.
        driver: Version,
        /// Version of CUDA that this PTX came with.
        needed: Version,
        /// Version of the PTX.
        ptx: Version,
    },
    /// The PTX is for a newer device.
    WrongTarget {
        /// Compute capability of the device.
        device: Version,
        /// Compute capability that the PTX is for.
        target: Version,
    },
    /// The text has no `.version` or no `.target` line.
    NotPtx {
        /// What is missing.
        missing: &'static str,
    },
    /// The driver's compiler, or the emulated device, refused the PTX.
    PtxRejected {
        /// Entry points of the text, to tell which one it was.
        entries: Vec<String>,
        /// What the compiler said.
        log: String,
    },
    /// No module that was loaded has such an entry point.
    NoEntry {
        /// What was asked for.
        asked: String,
        /// The entry points there are.
        entries: Vec<String>,
    },
    /// A grid that no device could run, or a name that is too long.
    BadGrid {
        /// Name of its entry point.
        entry: String,
        /// What is wrong, and what would be right.
        why: String,
    },
    /// More kernels than the fabric has indices.
    TooManyKernels {
        /// Kernels of all grids together.
        asked: u32,
        /// Indices in the fabric's table: `KERNELS`.
        indices: u32,
    },
    /// Not all blocks could be resident at the same time, so some would wait for ever for those that never return.
    TooManyBlocks {
        /// Blocks of all grids together.
        asked: u32,
        /// Blocks that are certain to fit.
        resident: u32,
        /// Whether one block was counted for each multiprocessor, since the grids are of several entry points and
        /// [`verify_residency`](crate::Device::verify_residency) has not seen more.
        mixed: bool,
    },
    /// More grids than the driver is certain to run side by side.
    TooManyGrids {
        /// Grids asked for.
        asked: u32,
        /// Queues between host and device, less one for copies.
        queues: u32,
    },
    /// Grids that were to run side by side did not, or copies waited for them.
    SharedQueues {
        /// Grids, each on a stream of its own.
        grids: u32,
        /// How many ran at the same time.
        together: u32,
        /// Grids that waited: the first one's behind the second one's.
        behind: Vec<(u32, u32)>,
        /// How long a copy took, if it waited.
        copy: Option<Duration>,
    },
    /// The driver does not let the device see memory of the host.
    NotPinned {
        /// The file that the memory is of, if it is one.
        path: Option<PathBuf>,
        /// What the driver says.
        why: Box<Error>,
    },
    /// The device has too little memory.
    OutOfMemory {
        /// Bytes asked for.
        asked: u64,
        /// Bytes free at that moment, if the driver said.
        free: Option<u64>,
    },
    /// The host has too little memory that a device may see.
    OutOfHostMemory {
        /// Bytes asked for.
        asked: u64,
    },
    /// Kernels run on this device, and this would wait for them.
    Busy {
        /// What was to be done.
        action: &'static str,
    },
    /// Bytes outside of a buffer.
    OutOfBounds {
        /// First byte.
        offset: usize,
        /// How many.
        len: usize,
        /// Length of the buffer, bytes.
        buffer: usize,
    },
    /// A copy has not been done in time.
    NoAnswer {
        /// What was to be done.
        action: &'static str,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The driver refused.
    Cuda {
        /// The function.
        call: &'static str,
        /// Its answer, as a name: `CUDA_ERROR_…`.
        name: String,
        /// Its answer in words.
        text: String,
    },
    /// Interpreted code did what it must not: the message names thread and line.
    Emulated(String),
    /// The host has no memory for a copy of the fabric.
    Memory(MemoryError),
    /// Nobody is registered at that address.
    NotRegistered(KernelId),
    /// This process was forked: the device and what runs on it are the parent's.
    Forked,
    /// A kernel gave up before it began its work.
    Refused(BlockReport),
    /// Kernels that did not begin in time.
    NotReady {
        /// How long it was waited for.
        waited: Duration,
        /// Blocks that have begun.
        ready: usize,
        /// All blocks.
        blocks: usize,
    },
    /// Kernels that did not end in time.
    Hung(Box<HangReport>),
    /// A variable of the environment makes the driver wait where kernels that do not return must not be waited for.
    Environment {
        /// Its name.
        variable: &'static str,
        /// What it makes the driver do, and what would be right.
        why: &'static str,
    },
    /// The library that was found in the driver's place is CUDA's stub, for linking on machines without a driver.
    StubDriver,
}

/// What a device lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PlacementError {
    /// Older than the first device with acquire and release.
    OldDevice {
        /// Name of the device.
        device: String,
        /// Its compute capability.
        found: Version,
        /// The least that will do.
        needed: Version,
    },
    /// It cannot see host memory, so no link to the host can be made.
    NoMappedMemory {
        /// Name of the device.
        device: String,
    },
    /// Host and device do not share one range of addresses.
    NoUnifiedAddresses {
        /// Name of the device.
        device: String,
    },
}

impl fmt::Display for PlacementError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OldDevice { device, found, needed } => write!(
                f,
                "{device} has compute capability {found}; kernels need {needed} or later (Volta, 2017), the first with \
                 acquire and release"
            ),
            Self::NoMappedMemory { device } => write!(
                f,
                "{device} cannot map host memory, which is where links to the host lie: use a device that can, or none"
            ),
            Self::NoUnifiedAddresses { device } => write!(
                f,
                "{device} has addresses of its own for host memory: use a 64-bit system and a device with unified \
                 addressing"
            ),
        }
    }
}

impl core::error::Error for PlacementError {}

/// What a bridge to a host's fabric lacks.
#[derive(Debug)]
#[non_exhaustive]
pub enum BridgeError {
    /// The two halves in host memory are no link.
    Link(LinkError),
    /// No kernel can have the gateway's name.
    Name(NameError),
    /// The host's fabric does not take its gateway.
    Register(RegisterError),
    /// The system starts no thread for the host's gateway.
    NoThread(io::Error),
    /// The thread of the host's gateway ended before it began to serve.
    ThreadEnded,
}

impl fmt::Display for BridgeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(e) => write!(f, "its link cannot be opened: {e}"),
            Self::Name(e) => write!(f, "its gateway cannot be called that: {e}"),
            Self::Register(e) => write!(f, "its gateway cannot register there: {e}"),
            Self::NoThread(e) => {
                write!(f, "its gateway has no thread: {e}; end other threads, or allow more (see ulimit -u)")
            }
            Self::ThreadEnded => f.write_str(
                "its gateway's thread ended before it began to serve: it panicked, and has written to standard error \
                 why",
            ),
        }
    }
}

impl core::error::Error for BridgeError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Link(e) => Some(e),
            Self::Name(e) => Some(e),
            Self::Register(e) => Some(e),
            Self::NoThread(e) => Some(e),
            Self::ThreadEnded => None,
        }
    }
}

impl Error {
    /// Whether it can help to try the [emulated device](crate::Device::emulated) instead: there is no GPU that would
    /// do.
    #[must_use]
    pub const fn is_no_gpu(&self) -> bool {
        matches!(
            self,
            Self::NoDriver { .. }
                | Self::NoFunction { .. }
                | Self::NoDevice
                | Self::StubDriver
                | Self::OldDriver { .. }
                | Self::Placement(_)
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bridge(why) => write!(f, "no bridge to the host's fabric: {why}"),
            Self::NoDriver { file } => write!(
                f,
                "no CUDA driver: {file} was not found; on a machine with an NVIDIA GPU install its driver (Debian: \
                 apt-get install nvidia-driver)"
            ),
            Self::NoFunction { name } => {
                write!(f, "the CUDA driver has no function {name}: it is older than CUDA 11; install a newer one")
            }
            Self::NoDevice => write!(
                f,
                "the CUDA driver knows of no device: see nvidia-smi, and CUDA_VISIBLE_DEVICES, which may hide it"
            ),
            Self::WrongOrdinal { asked, devices: 1 } => write!(f, "there is no device {asked}: there is one, number 0"),
            Self::WrongOrdinal { asked, devices } => {
                write!(f, "there is no device {asked}: there are {devices}, numbers 0 to {}", devices - 1)
            }
            Self::Placement(e) => e.fmt(f),
            Self::OldDriver { driver, needed, ptx } => write!(
                f,
                "the driver is for CUDA {driver}, and PTX {ptx} needs one for CUDA {needed} or later: install a newer \
                 driver, or compile the PTX for an older version"
            ),
            Self::WrongTarget { device, target } => write!(
                f,
                "the PTX is for compute capability {target} or later, and this device has {device}: compile it for \
                 sm_{}{}",
                device.0, device.1
            ),
            Self::NotPtx { missing } => write!(f, "this is no PTX: it has no {missing} line"),
            Self::PtxRejected { entries, log } => {
                write!(f, "the PTX (entry points: {}) was refused:", List(entries))?;
                let mut lines = log.lines().filter(|line| !line.trim().is_empty());
                for line in lines.by_ref().take(6) {
                    write!(f, "\n  {line}")?;
                }
                match lines.count() {
                    0 => Ok(()),
                    more => write!(f, "\n  and {more} lines more"),
                }
            }
            Self::NoEntry { asked, entries } => {
                write!(f, "there is no entry point {asked}; those there are: {}", List(entries))
            }
            Self::BadGrid { entry, why } => write!(f, "{entry}: {why}"),
            Self::TooManyKernels { asked, indices } => write!(
                f,
                "{asked} kernels do not fit into a fabric with {indices} indices: use a fabric with more KERNELS, or \
                 fewer blocks"
            ),
            Self::TooManyBlocks { asked, resident, mixed } => {
                write!(
                    f,
                    "{asked} blocks cannot all run at the same time: {resident} are certain to fit on this device; use \
                     fewer, or fewer threads per block"
                )?;
                if *mixed {
                    write!(
                        f,
                        " (since they are of several entry points, one is counted for each multiprocessor: call \
                         Device::verify_residency before, which may see that there is room for more)"
                    )?;
                }
                Ok(())
            }
            Self::SharedQueues { grids, together, behind, copy } => {
                write!(f, "of {grids} grids, each on a stream of its own, {together} ran at the same time")?;
                for (grid, other) in behind {
                    write!(f, "; grid {grid} waited for the end of grid {other}")?;
                }
                if let Some(copy) = copy {
                    write!(f, "; a copy beside them took {copy:.1?}")?;
                }
                write!(
                    f,
                    ": they share queues to the device; start the program with CUDA_DEVICE_MAX_CONNECTIONS=32, and make \
                     no streams in it before this"
                )
            }
            Self::NotPinned { path: Some(path), why } => write!(
                f,
                "the device cannot see the fabric in {}: {why}; since Linux 6.5 a driver can pin no file of a disk: put \
                 it into /dev/shm, and see ulimit -l",
                path.display()
            ),
            Self::NotPinned { path: None, why } => {
                write!(
                    f,
                    "the device cannot see the fabric: {why}; see ulimit -l, which may not allow so much pinned memory"
                )
            }
            Self::TooManyGrids { asked, queues } => write!(
                f,
                "{asked} grids may not run side by side: there are {queues} queues to this device, and a grid that \
                 waits behind one that never returns never starts; use fewer grids, or start the program with \
                 CUDA_DEVICE_MAX_CONNECTIONS=32"
            ),
            Self::OutOfMemory { asked, free: Some(free) } => write!(
                f,
                "the device has no room for {asked} bytes: {free} are free; use a smaller fabric (fewer KERNELS, \
                 SLOTS or PAYLOAD), or end what else uses it (see nvidia-smi)"
            ),
            Self::OutOfMemory { asked, free: None } => write!(f, "the device has no room for {asked} bytes"),
            Self::OutOfHostMemory { asked } => {
                write!(f, "the host has no room for {asked} bytes that the device may see (see free, and ulimit -l)")
            }
            Self::Busy { action } => write!(
                f,
                "cannot {action} while kernels run on this device: the driver would wait for them; do it before they \
                 start, or after they have ended"
            ),
            Self::OutOfBounds { offset, len, buffer } => {
                let end = offset.saturating_add(*len);
                write!(f, "bytes {offset} to {end} lie outside the buffer, which has {buffer}")
            }
            Self::NoAnswer { action, waited } => {
                write!(f, "the device has not finished to {action} after {waited:?}: see dmesg and nvidia-smi")
            }
            Self::Cuda { call, name, text } => write!(f, "{call}: {name} ({text})"),
            Self::Emulated(why) => write!(f, "emulated device: {why}"),
            Self::Memory(e) => e.fmt(f),
            Self::NotRegistered(id) => NotRegistered(*id).fmt(f),
            Self::Forked => f.write_str(
                "this process was forked, and a GPU's context does not survive that: open devices in the process that \
                 uses them, after the fork",
            ),
            Self::Refused(ended) => ended.fmt(f),
            Self::NotReady { waited, ready, blocks } => {
                write!(
                    f,
                    "after {waited:?}, {ready} of {blocks} blocks have registered: wait longer, or look at the reports"
                )
            }
            Self::Hung(hung) => hung.fmt(f),
            Self::Environment { variable, why } => write!(f, "{variable} is set in the environment: {why}"),
            Self::StubDriver => f.write_str(
                "the CUDA driver's library that was found is the stub of CUDA's toolkit, which does nothing: take its \
                 folder (.../lib64/stubs) out of LD_LIBRARY_PATH",
            ),
        }
    }
}

impl core::error::Error for Error {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Bridge(e) => Some(e),
            Self::Placement(e) => Some(e),
            Self::Memory(e) => Some(e),
            Self::NotPinned { why, .. } => Some(why),
            _ => None,
        }
    }
}

impl From<PlacementError> for Error {
    fn from(e: PlacementError) -> Self {
        Self::Placement(e)
    }
}

impl From<BridgeError> for Error {
    fn from(e: BridgeError) -> Self {
        Self::Bridge(e)
    }
}

impl From<MemoryError> for Error {
    fn from(e: MemoryError) -> Self {
        Self::Memory(e)
    }
}

impl From<NotRegistered> for Error {
    fn from(e: NotRegistered) -> Self {
        Self::NotRegistered(e.0)
    }
}

/// Names, or a word for none.
struct List<'l>(&'l [String]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("none") } else { f.write_str(&self.0.join(", ")) }
    }
}
