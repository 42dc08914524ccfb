//! Signals that ask a job to end. The first signal ends the job early, and its figures are printed; the second signal ends
//! the command, unless the command must clean up.

#[cfg(feature = "top")]
use signal_hook::consts::{SIGCONT, SIGQUIT, SIGTSTP};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::os::raw::c_int;
use std::sync::OnceLock;
use std::{fs, io, process, thread};

/// Exit status of a job that was interrupted: 128 + `SIGINT`.
pub(crate) const INTERRUPTED: u8 = 130;

static ASKED: OnceLock<()> = OnceLock::new();
static ASKED_TWICE: OnceLock<()> = OnceLock::new();

/// Makes Ctrl-C a request, reported by [`is_asked_for`]. A second Ctrl-C ends the process.
pub(crate) fn catch() {
    // If the system cannot start a thread, the job goes on to its end.
    let _ = listen(&[SIGINT], |signal| process::exit(128 + signal));
}

/// As [`catch`], also for SIGTERM and SIGHUP: for a job with a kernel of its own, so that the kernel leaves.
pub(crate) fn catch_all() {
    let _ = listen(&[SIGINT, SIGTERM, SIGHUP], |signal| process::exit(128 + signal));
}

/// As [`catch_all`], for a job that must clean up: the second signal is a request, too, reported by [`is_urgent`].
///
/// # Errors
/// The system's error if it cannot start a thread: then the job should not begin.
pub(crate) fn catch_and_clean_up() -> io::Result<()> {
    listen(&[SIGINT, SIGTERM, SIGHUP], |_| {
        let _ = ASKED_TWICE.set(());
    })
}

fn listen(signals: &[c_int], again: impl Fn(c_int) + Send + 'static) -> io::Result<()> {
    let mut signals = heeded(signals)?;
    thread::Builder::new().name("k2k-signals".to_owned()).spawn(move || {
        for signal in &mut signals {
            if ASKED.set(()).is_err() {
                again(signal);
            }
        }
    })?;
    Ok(())
}

/// The signals that stop, continue or quit a program, for a program that changes its terminal and polls for pending signals.
#[cfg(feature = "top")]
pub(crate) fn of_job_control() -> io::Result<Signals> {
    heeded(&[SIGTSTP, SIGCONT, SIGQUIT])
}

/// Listens to the given signals; a signal ignored already stays ignored: Ctrl-C in a script's background job, SIGHUP under
/// nohup.
fn heeded(signals: &[c_int]) -> io::Result<Signals> {
    let ignored = ignored();
    Signals::new(signals.iter().filter(|&&signal| ignored >> (signal - 1) & 1 == 0))
}

/// The signals ignored by this process: bit `n - 1` is signal `n`. Zero if the system does not tell.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// Whether the job is to end early.
pub(crate) fn is_asked_for() -> bool {
    ASKED.get().is_some()
}

/// Whether the job was asked a second time.
pub(crate) fn is_urgent() -> bool {
    ASKED_TWICE.get().is_some()
}
