//! What can go wrong while a machine runs, with the thread and the line of PTX.

use crate::race::Race;
use core::fmt;

/// A thread of the device, or the host.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Who {
    /// The host's side of the detector.
    Host,
    /// A device thread.
    Thread {
        /// Number of the launch.
        launch: u32,
        /// Name of the kernel.
        kernel: String,
        /// `%ctaid`
        block: [u32; 3],
        /// `%tid`
        thread: [u32; 3],
    },
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("the host"),
            Self::Thread { launch, kernel, block: [a, b, c], thread: [x, y, z] } => {
                write!(f, "{kernel} (launch {launch}), block ({a}, {b}, {c}), thread ({x}, {y}, {z})")
            }
        }
    }
}

/// A thread and the instruction that it was at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Who.
    pub who: Who,
    /// Line of the PTX text, from 1; 0 for the host.
    pub line: u32,
    /// That line.
    pub text: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.who {
            Who::Host => write!(f, "{}", self.who),
            Who::Thread { .. } => write!(f, "{}, line {}: `{}`", self.who, self.line, self.text),
        }
    }
}

/// Why a thread could not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultKind {
    /// An address that is in no registered region.
    OutOfBounds {
        /// First byte.
        address: u64,
        /// Width of the access.
        bytes: u8,
        /// The memory that is closest.
        near: String,
    },
    /// An address that is not a multiple of the access's width.
    Misaligned {
        /// First byte.
        address: u64,
        /// Width of the access.
        bytes: u8,
    },
    /// A write to constant memory.
    ReadOnly {
        /// First byte.
        address: u64,
    },
    /// Another block's shared memory, or another thread's local memory.
    Foreign {
        /// First byte.
        address: u64,
    },
    /// `trap`: a panic, in code that Rust compiled.
    Trap,
    /// A call through something that is no function, or whose parameters do not fit.
    BadCall,
    /// Deeper calls than local memory or the limit of frames allows.
    StackOverflow,
    /// A lane outside of its own mask, or lanes of one mask at different operations.
    Divergence {
        /// What does not fit.
        reason: String,
    },
    /// A shuffle that reads from a lane which does not take part.
    AbsentLane {
        /// That lane.
        lane: u32,
    },
    /// A barrier with a number or count that does not exist.
    BadBarrier,
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfBounds { address, bytes, near } => {
                write!(f, "access to {bytes} bytes at {address:#x}, outside of all memory ({near})")
            }
            Self::Misaligned { address, bytes } => write!(f, "access to {bytes} bytes at {address:#x}, misaligned"),
            Self::ReadOnly { address } => write!(f, "write to read-only memory at {address:#x}"),
            Self::Foreign { address } => write!(f, "shared or local memory of others at {address:#x}"),
            Self::Trap => f.write_str("trap"),
            Self::BadCall => f.write_str("call of something that is no such function"),
            Self::StackOverflow => f.write_str("stack overflow"),
            Self::Divergence { reason } => write!(f, "divergence: {reason}"),
            Self::AbsentLane { lane } => write!(f, "shuffle from lane {lane}, which does not take part"),
            Self::BadBarrier => f.write_str("barrier with an impossible number or count"),
        }
    }
}

/// What a thread was doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Doing {
    /// It can run.
    Running,
    /// It sleeps (`nanosleep`).
    Sleeping,
    /// It waits at a barrier of its block.
    AtBarrier {
        /// The barrier's number.
        id: u8,
    },
    /// It waits for other lanes of its warp.
    AtCollective,
}

/// A thread that has not ended, for reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadReport {
    /// Who and where.
    pub place: Place,
    /// What it was doing.
    pub doing: Doing,
}

impl fmt::Display for ThreadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let doing = match self.doing {
            Doing::Running => "runs",
            Doing::Sleeping => "sleeps",
            Doing::AtBarrier { id } => return write!(f, "waits at barrier {id}: {}", self.place),
            Doing::AtCollective => "waits for its warp",
        };
        write!(f, "{doing}: {}", self.place)
    }
}

/// A thread that could not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Why.
    pub kind: FaultKind,
    /// Who and where.
    pub place: Place,
}

/// Why a machine stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A thread did what it must not.
    Fault(Box<Fault>),
    /// A race, or a misused control word.
    Race(Box<Race>),
    /// No thread can go on: they wait at barriers or for lanes that will not come.
    Deadlock {
        /// All threads that have not ended.
        threads: Vec<ThreadReport>,
    },
    /// The limit of steps was reached: a livelock, or too low a limit.
    StepLimit {
        /// The limit.
        steps: u64,
        /// All threads that have not ended.
        threads: Vec<ThreadReport>,
    },
    /// A launch that cannot be.
    Launch {
        /// Why not.
        reason: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, threads: &[ThreadReport]| {
            threads.iter().try_for_each(|thread| write!(f, "\n  {thread}"))
        };
        match self {
            Self::Fault(fault) => write!(f, "{}: {}", fault.kind, fault.place),
            Self::Race(race) => race.fmt(f),
            Self::Deadlock { threads } => {
                f.write_str("deadlock: no thread can go on")?;
                list(f, threads)
            }
            Self::StepLimit { steps, threads } => {
                write!(f, "not done after {steps} instructions")?;
                list(f, threads)
            }
            Self::Launch { reason } => write!(f, "launch refused: {reason}"),
        }
    }
}

impl core::error::Error for Error {}
