//! The commands that look into a running fabric and change nothing: `ls`, `top`, `dump`, `metrics`, `errors` and `latency`;
//! `latency` also has a switch.

pub(crate) mod args;
mod dump;
mod errors;
mod json;
mod latency;
mod ls;
mod metrics;
mod table;
mod top;

pub(crate) use dump::main as dump;
pub(crate) use errors::main as errors;
pub(crate) use latency::main as latency;
pub(crate) use ls::main as ls;
pub(crate) use metrics::main as metrics;
pub(crate) use top::main as top;

use crate::fabric::NOTHING_DONE;
use crate::text::bytes;
use core::error::Error;
use core::fmt;
use core::time::Duration;
use k2k::fabric::Geometry;
use k2k::inspect::{FileState, InspectError, KernelLook, Look, Owner, View};
use k2k::owner::OwnerState;
use std::process::ExitCode;
use unicode_width::UnicodeWidthStr as _;

/// Time between the two looks of a command that looks twice and ends. An idle kernel that parks looks at its inbox after a
/// fifth of a second at most.
const BETWEEN: Duration = Duration::from_millis(300);

/// `4 kernels x 64 slots x 192 B, 1.07 MiB`.
fn shape(shape: Geometry) -> String {
    let Geometry { kernels, slots, payload, size } = shape;
    format!("{kernels} kernels x {slots} slots x {payload} B, {}", bytes(size))
}

/// The unusual state of a file's name, as the end of a sentence.
const fn file_state(state: FileState) -> &'static str {
    match state {
        FileState::Named => "",
        FileState::Removed => "; the file was removed, and lives on in the processes that have it open",
        FileState::Replaced => "; the file was removed, and another one has its name",
    }
}

/// `4711`, `4711 (dead)`, `unknown`; `-` for a kernel without an owner.
fn owner(owner: Option<Owner>) -> String {
    let Some(owner) = owner else { return "-".to_owned() };
    let process = owner.process.map_or_else(|| "unknown".to_owned(), |process| process.to_string());
    match state(owner) {
        "alive" => process,
        "unknown" if owner.process.is_none() => process,
        state => format!("{process} ({state})"),
    }
}

const fn state(owner: Owner) -> &'static str {
    match owner.state {
        OwnerState::Alive if owner.stopped => "stopped",
        OwnerState::Alive => "alive",
        OwnerState::Dead => "dead",
        OwnerState::Unknown => "unknown",
    }
}

/// A kernel's name, or else its address, without characters that move a terminal's cursor.
fn label(kernel: &KernelLook) -> String {
    printable(&kernel.label())
}

/// The label of a kernel index, which may be any number.
fn label_of(look: &Look, index: u16) -> String {
    look.kernel(index).map_or_else(|| format!("#{index}"), label)
}

/// Names come out of shared memory: control characters become `?`, and so do characters that change the display of their
/// neighbours (such as U+202E, after which text runs to the left) or are invisible (U+200B).
fn printable(text: &str) -> String {
    text.chars().map(|c| if is_seen(c) { c } else { '?' }).collect()
}

fn is_seen(c: char) -> bool {
    if c.is_ascii() {
        return !c.is_control();
    }
    // Behind a letter, an accent is not escaped.
    !format!("x{c}").escape_debug().any(|c| c == '\\')
}

/// Columns of a terminal that a text takes.
fn cells(text: &str) -> usize {
    text.width()
}

fn labels(look: &Look, indices: &[u16]) -> String {
    indices.iter().map(|index| label_of(look, *index)).collect::<Vec<_>>().join(" ")
}

/// A fabric that cannot be opened for looking.
#[derive(Debug)]
struct Unopened(InspectError);

impl fmt::Display for Unopened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A path may hold anything but a NUL.
        f.write_str(&printable(&self.0.to_string()))
    }
}

impl Error for Unopened {}

fn open(file: &str) -> Result<View, Unopened> {
    View::open(file).map_err(Unopened)
}

/// Ends a command: with status 2 if the fabric cannot be looked at, with 1 if it went away meanwhile or after any other
/// error.
fn end(name: &str, result: Result<ExitCode, Box<dyn Error>>) -> ExitCode {
    let failed = if result.as_ref().is_err_and(|why| why.is::<Unopened>()) { NOTHING_DONE } else { 1 };
    k2k_command::end(name, failed, result)
}

/// A value in the lower case of the command line.
fn lower(value: impl fmt::Debug) -> String {
    format!("{value:?}").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_nothing_that_is_not_seen_and_take_the_room_that_they_take() {
        assert_eq!(printable("a\u{202e}b\u{200b}c\u{1b}[1m\u{85}"), "a?b?c?[1m?");
        let plain = "café cafe\u{301} \\\"' 漢字 ü→🦀";
        assert_eq!(printable(plain), plain);
        let mut table = table::Table::new(1, ["NAME", "N", "LAST"]);
        for name in ["漢字", "ab"] {
            table.row([name, "1", "x"].map(str::to_owned));
        }
        assert_eq!(table.render(), "NAME  N  LAST\n漢字  1  x\nab    1  x\n");
    }
}
