//! What K2K's commands share: how they print, and how they end.
//!
//! `println!` and `eprintln!` panic when the output is a pipe that nobody reads any more, or a file on a full disk. Here a
//! command prints with [`say!`] and [`complain`], passes errors on with `?`, and ends with [`end`]:
//!
//! | what happened | standard error | exit status |
//! | --- | --- | --- |
//! | the reader of standard output has closed its pipe (`k2k doctor \| head -1`) | nothing | 141, what a shell reports of a program that `SIGPIPE` ends |
//! | standard output cannot be written (a full disk) | one line that says why | the command's status for errors |
//! | standard error cannot be written | | as without it |
//! | any other error | one line | the command's status for errors |
//!
//! ```
//! use std::process::ExitCode;
//!
//! fn main() -> ExitCode {
//!     k2k_command::end("double", 1, run())
//! }
//!
//! fn run() -> Result<ExitCode, Box<dyn core::error::Error>> {
//!     let number: u32 = "21".parse()?;
//!     k2k_command::say!("{number} doubled is {}", 2 * number)?;
//!     Ok(ExitCode::SUCCESS)
//! }
//! ```

use core::error::Error;
use core::fmt;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::SystemTime;

/// Exit status of a command whose reader has closed the pipe: 128 + `SIGPIPE`.
pub const READER_GONE: u8 = 141;

/// Standard output cannot be written.
#[derive(Debug)]
pub struct OutputError(io::Error);

impl OutputError {
    /// Whether the output is a pipe that its reader has closed. That is how `head` ends, and no error to speak of.
    #[must_use]
    pub fn reader_is_gone(&self) -> bool {
        self.0.kind() == io::ErrorKind::BrokenPipe
    }
}

impl From<io::Error> for OutputError {
    fn from(why: io::Error) -> Self {
        Self(why)
    }
}

impl fmt::Display for OutputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot write to standard output: {}", self.0)
    }
}

impl Error for OutputError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

/// Prints a line to standard output, as `println!` does, and returns the error if that fails: a `Result` of
/// [`OutputError`].
#[macro_export]
macro_rules! say {
    () => { $crate::print("\n") };
    ($($arg:tt)*) => { $crate::print(::core::format_args!("{}\n", ::core::format_args!($($arg)*))) };
}

/// Prints a text to standard output, and what was printed before it.
///
/// # Errors
/// [`OutputError`] if it cannot be written.
pub fn print(text: impl fmt::Display) -> Result<(), OutputError> {
    let mut stdout = io::stdout().lock();
    write!(stdout, "{text}")?;
    Ok(stdout.flush()?)
}

/// Prints `name: message` to standard error. If that fails, no way is left to say so.
pub fn complain(name: &str, message: impl fmt::Display) {
    note(format_args!("{name}: {message}"));
}

/// Prints a line to standard error. If that fails, no way is left to say so.
pub fn note(line: impl fmt::Display) {
    // One write, so that the lines of several threads do not mix.
    let _ = io::stderr().lock().write_all(format!("{line}\n").as_bytes());
}

/// Day and time (UTC) of now, `2026-11-26 16:30`, for records.
#[must_use]
pub fn date() -> String {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    now[..16].replace('T', " ")
}

/// The exit status of a command called `name`, after a line on standard error if one is due: see the
/// [table](crate). `failed` is the command's status for errors.
#[must_use]
pub fn end<E: Into<Box<dyn Error>>>(name: &str, failed: u8, result: Result<ExitCode, E>) -> ExitCode {
    let result = result.map_err(Into::into).and_then(|status| match io::stdout().flush() {
        Ok(()) => Ok(status),
        Err(e) => Err(OutputError(e).into()),
    });
    match result {
        Ok(status) => status,
        Err(e) if e.downcast_ref().is_some_and(OutputError::reader_is_gone) => ExitCode::from(READER_GONE),
        Err(e) => {
            complain(name, e);
            ExitCode::from(failed)
        }
    }
}

/// Reads the command line. What clap prints (help, the version, what is wrong with an argument) ends the command with the
/// status that is returned as the error.
///
/// # Errors
/// The exit status.
#[cfg(feature = "clap")]
pub fn parse<C: clap::Parser>(name: &str) -> Result<C, ExitCode> {
    C::try_parse().map_err(|e| {
        let (status, printed) = (u8::try_from(e.exit_code()).unwrap_or(2), e.print());
        let status = ExitCode::from(status);
        // A complaint about the arguments goes to standard error.
        if e.use_stderr() { status } else { end(name, 1, printed.map(|()| status).map_err(OutputError)) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_closed_pipe_is_quiet() {
        assert!(OutputError(io::ErrorKind::BrokenPipe.into()).reader_is_gone());
        let full = OutputError(io::ErrorKind::StorageFull.into());
        assert!(!full.reader_is_gone());
        assert_eq!(full.to_string(), "cannot write to standard output: no storage space");
    }

    #[test]
    fn an_error_has_the_status_that_the_command_gives_it() {
        let status = |e: Box<dyn Error>| format!("{:?}", end("test", 3, Err(e)));
        assert_eq!(status("no good".into()), format!("{:?}", ExitCode::from(3)));
        let gone = OutputError(io::ErrorKind::BrokenPipe.into());
        assert_eq!(status(gone.into()), format!("{:?}", ExitCode::from(READER_GONE)));
    }
}
