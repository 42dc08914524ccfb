//! Ctrl-C: the first one ends a job early, and its figures are printed; the second one ends the command.

use std::process;
use std::sync::OnceLock;

/// Exit status of a job that was interrupted: 128 + `SIGINT`.
pub(super) const INTERRUPTED: u8 = 130;

static ASKED: OnceLock<()> = OnceLock::new();

/// From now on, Ctrl-C is a wish that [`is_asked_for`] tells of.
pub(super) fn catch() {
    // It fails if Ctrl-C is ignored already, as in a script's background job: it stays ignored.
    let _ = ctrlc::try_set_handler(|| {
        if ASKED.set(()).is_err() {
            process::exit(INTERRUPTED.into());
        }
    });
}

/// Whether the job is to end early.
pub(super) fn is_asked_for() -> bool {
    ASKED.get().is_some()
}
