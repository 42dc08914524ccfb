//! What the commands share that act on a fabric: a fabric of any shape, and kernels by their names.

use core::error::Error;
use core::fmt;
use k2k::fabric::{Name, Status};
use k2k::{Broker, Endpoint, KernelId, Memory, MemoryError, Read};
use std::process::ExitCode;
use std::thread;

/// The largest shape that there is; what a fabric has stands in its header.
pub(crate) type Any = Read<4096, 65472>;

/// What goes wrong in a command.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// An endpoint of [`Any`] keeps state for each of 4096 kernels, and messages of 64 KiB, in its stack frame.
const STACK_LEN: usize = 64 << 20;

/// Names that a message lists, before it only counts them.
const NAMES_LISTED: usize = 16;

/// Exit status of a command that could not do anything: a file that is no fabric, a name that is unknown.
pub(crate) const NOTHING_DONE: u8 = 2;

/// Runs a command on a thread with room for endpoints of [`Any`], and ends it: with status 2 if it fails.
pub(crate) fn main(name: &str, job: impl FnOnce() -> Result<ExitCode, Failure> + Send) -> ExitCode {
    k2k_command::end(name, NOTHING_DONE, with_stack(job).and_then(|result| result).map_err(plain))
}

/// As [`k2k_command::end`] takes it.
pub(crate) fn plain(why: Failure) -> Box<dyn Error> {
    why
}

/// Runs `job` on a thread with room for endpoints of [`Any`].
pub(crate) fn with_stack<T: Send>(job: impl FnOnce() -> T + Send) -> Result<T, Failure> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(STACK_LEN).spawn_scoped(scope, job)?;
        thread.join().map_err(|_| "the command's thread has panicked".into())
    })
}

/// Opens the fabric in a file.
pub(crate) fn open(file: &str) -> Result<Broker<Any>, MemoryError> {
    Memory::open(file).map(Broker::new)
}

/// Registers a kernel of the command's own, which sleeps while it waits: under `name`, or one that is made of the
/// command's and the process.
pub(crate) fn register(broker: &Broker<Any>, name: Option<&str>, command: &str) -> Result<Endpoint<Any>, Failure> {
    let usual = || format!("k2k-{command}-{}", std::process::id());
    let name = name.map_or_else(usual, str::to_owned);
    broker.register_parking(&name).map_err(|why| format!("cannot register the kernel {name:?}: {why}").into())
}

/// The kernel of that name.
pub(crate) fn find(broker: &Broker<Any>, name: &str) -> Result<KernelId, UnknownKernel> {
    broker.find(name).ok_or_else(|| {
        let fabric = broker.memory().fabric();
        let wanted = Name::new(name).ok();
        let has_failed = |(id, status)| status == Status::Failed && fabric.name(id) == wanted && wanted.is_some();
        UnknownKernel {
            name: name.to_owned(),
            failed: fabric.statuses().any(has_failed),
            there: broker.kernels().into_iter().map(|(_, name)| name).collect(),
        }
    })
}

/// No registered kernel has this name.
#[derive(Debug)]
pub(crate) struct UnknownKernel {
    name: String,
    /// Whether a kernel of this name has failed, and its index was not cleared.
    failed: bool,
    there: Vec<Name>,
}

impl fmt::Display for UnknownKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.failed {
            write!(f, "kernel {:?} has failed, and nothing reaches it any more; ", self.name)?;
        } else {
            write!(f, "no kernel is named {:?}; ", self.name)?;
        }
        if self.there.is_empty() {
            return f.write_str("no kernel is registered in this fabric");
        }
        f.write_str("registered are:")?;
        for (i, name) in self.there.iter().take(NAMES_LISTED).enumerate() {
            // Shared memory can hold anything: quotes and escapes keep a name on one line.
            write!(f, "{} {:?}", if i > 0 { "," } else { "" }, name.as_str())?;
        }
        match self.there.len().saturating_sub(NAMES_LISTED) {
            0 => Ok(()),
            more => write!(f, ", and {more} more"),
        }
    }
}

impl Error for UnknownKernel {}
