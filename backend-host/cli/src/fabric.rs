//! Shared by the commands that act on a fabric: a fabric of any shape, and kernels by their names.

use core::error::Error;
use core::fmt;
use k2k::fabric::{AttachError, Name, Status};
use k2k::{Broker, Endpoint, KernelId, Memory, MemoryError, Read};
use k2k_command::OutputError;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::{io, thread};

/// The largest possible shape; a fabric's own shape is in its header.
pub(crate) type Any = Read<4096, 65472>;

/// An error of a command.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// An endpoint of [`Any`] keeps state for each of 4096 kernels, and messages of 64 KiB, in its stack frame.
const STACK_LEN: usize = 64 << 20;

/// Names listed in a message before it only counts names.
const NAMES_LISTED: usize = 16;

/// Exit status of a command that could not do anything: a file that is no fabric, an unknown name.
pub(crate) const NOTHING_DONE: u8 = 2;

/// Exit status of a command that failed after it had begun to act, or that could not print its result.
pub(crate) const FAILED: u8 = 1;

/// The command, for the line of [`end_if_shortened`].
static COMMAND: OnceLock<String> = OnceLock::new();

/// Set when a command has acted on a fabric.
static ACTED: OnceLock<()> = OnceLock::new();

/// Runs a command on a thread with room for endpoints of [`Any`], and ends the command. If it fails, its status is
/// [`NOTHING_DONE`]; but [`FAILED`] if it [has acted](has_acted), or if its output cannot be written.
pub(crate) fn main(name: &str, job: impl FnOnce() -> Result<ExitCode, Failure> + Send) -> ExitCode {
    let _ = COMMAND.set(name.to_owned());
    let result = with_stack(job).and_then(|result| result);
    let mute = result.as_ref().is_err_and(|why| why.is::<OutputError>());
    let failed = if mute || ACTED.get().is_some() { FAILED } else { NOTHING_DONE };
    k2k_command::end(name, failed, result.map_err(|why| -> Box<dyn Error> { why }))
}

/// Records that an error after this call does not mean that nothing was done.
pub(crate) fn has_acted() {
    let _ = ACTED.set(());
}

/// Runs `job` on a thread with room for endpoints of [`Any`].
pub(crate) fn with_stack<T: Send>(job: impl FnOnce() -> T + Send) -> Result<T, Failure> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(STACK_LEN).spawn_scoped(scope, job)?;
        thread.join().map_err(|_| "the command's thread has panicked".into())
    })
}

/// Opens the fabric in a file. If the file is made shorter later, the command ends with a line and [`FAILED`].
pub(crate) fn open(file: &str) -> Result<Broker<Any>, Failure> {
    let memory = Memory::open(file).map_err(advised)?;
    end_if_shortened(file)?;
    Ok(Broker::new(memory))
}

/// Advice for a user of the command, in place of the library's advice for a programmer.
fn advised(why: MemoryError) -> Failure {
    match why {
        MemoryError::Owner { path, found, own, .. } => {
            let path = path.display();
            format!("{path} belongs to user {found}, and this command runs as user {own}: run it as user {found}")
        }
        MemoryError::Mode { path, found, .. } => {
            let path = path.display();
            format!("{path} has mode {found:04o}, so others than its owner can write it: chmod it to 0600")
        }
        MemoryError::TooShort { path, found, is_fabric: true, .. } => {
            format!("{} has {found} bytes, and its fabric has more: it was made shorter", path.display())
        }
        MemoryError::TooShort { path, found, .. } => {
            format!("{} has {found} bytes, which is too short for a fabric: it is none", path.display())
        }
        MemoryError::Attach { path: Some(path), why: AttachError::Shape { .. } | AttachError::Geometry { .. } } => {
            format!("{} is damaged: its header tells of a shape that no fabric has", path.display())
        }
        MemoryError::Attach { path: Some(path), why: AttachError::TooSmall { found, expected } } => {
            let path = path.display();
            format!("{path} has {found} bytes, and its fabric has {expected}: it was made shorter, or never finished")
        }
        why => return why.into(),
    }
    .into()
}

/// Makes the command end with a line when it touches a missing part of the mapped file. Otherwise SIGBUS ends the command
/// without a word.
fn end_if_shortened(file: &str) -> io::Result<()> {
    let command = COMMAND.get().map_or("k2k", |name| name);
    let line = format!("{command}: {} was made shorter while it was in use\n", file.escape_debug());
    // SAFETY: the action takes no lock, allocates nothing and does not return: `write` and `_exit` alone are called.
    unsafe {
        signal_hook::low_level::register(signal_hook::consts::SIGBUS, move || {
            let _ = rustix::io::write(rustix::stdio::stderr(), line.as_bytes());
            signal_hook::low_level::exit(FAILED.into());
        })?;
    }
    Ok(())
}

/// Registers a kernel of the command's own, which sleeps while it waits: under `name`, or under a name made of the
/// command's name and the process id.
pub(crate) fn register(broker: &Broker<Any>, name: Option<&str>, command: &str) -> Result<Endpoint<Any>, Failure> {
    let usual = || format!("k2k-{command}-{}", std::process::id());
    let name = name.map_or_else(usual, str::to_owned);
    broker.register_parking(&name).map_err(|why| format!("cannot register the kernel {name:?}: {why}").into())
}

/// The kernel with this name.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_is_for_a_user_of_the_command() {
        let path = std::path::PathBuf::from("/dev/shm/x");
        let owner = MemoryError::Owner { path: path.clone(), found: 1000, own: 0, trusted: Vec::new() };
        assert!(advised(owner).to_string().ends_with("runs as user 0: run it as user 1000"));
        let short = MemoryError::TooShort { path, found: 0, expected: 128, is_fabric: false };
        assert!(advised(short).to_string().ends_with("has 0 bytes, which is too short for a fabric: it is none"));
    }
}
