//! `k2k errors`: the failures so far, by kernel and kind: their number, their times, and the last message.

use super::args::ErrorsArgs;
use super::table::Table;
use super::{label, label_of, printable};
use crate::text::{grouped, time_ns};
use core::error::Error;
use k2k::fabric::Failure;
use k2k::inspect::{InspectError, KernelLook, Look, View};
use k2k::{DeliveryStatus, Stats};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

const NAME: &str = "k2k errors";

/// A kind of failure: its name, its counter, and the status under which kernels note its times, if kernels note them.
type Kind = (&'static str, fn(&Stats) -> u64, Option<DeliveryStatus>);

const KINDS: [Kind; 9] = [
    ("not_found", |s| s.not_found, Some(DeliveryStatus::NotFound)),
    ("queue_full", |s| s.queue_full, Some(DeliveryStatus::QueueFull)),
    ("timeout", |s| s.timeout, Some(DeliveryStatus::Timeout)),
    ("max_hops_exceeded", |s| s.max_hops_exceeded, Some(DeliveryStatus::MaxHopsExceeded)),
    ("unanswered", |s| s.unanswered, Some(DeliveryStatus::Unanswered)),
    ("not_allowed", |s| s.not_allowed, Some(DeliveryStatus::NotAllowed)),
    ("refused", |s| s.refused, None),
    ("corrupt", |s| s.corrupt, None),
    ("clock_skews", |s| s.clock_skews, None),
];

pub(crate) fn main(args: &ErrorsArgs) -> ExitCode {
    super::end(NAME, run(args))
}

/// Failures of a kind at a kernel index.
pub(super) struct Counted<'l> {
    pub(super) index: u16,
    /// The index's kernel, unless it has left.
    pub(super) kernel: Option<&'l KernelLook>,
    pub(super) kind: &'static str,
    pub(super) count: u64,
    /// The kernel's notes; `None` for a kind with a count alone, or if the notes are being written.
    pub(super) noted: Option<Failure>,
}

impl Counted<'_> {
    /// The kernel that counted the failures.
    pub(super) fn by(&self) -> String {
        self.kernel.map_or_else(|| format!("#{} (has left)", self.index), label)
    }

    /// The message of the last failure: its sender and its sequence.
    pub(super) fn example(&self, look: &Look) -> Option<String> {
        let id = self.noted?.example;
        let index = u16::try_from(id.source.index()).unwrap_or(u16::MAX);
        Some(format!("{} #{}", label_of(look, index), id.sequence))
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "kernel": self.kernel.and_then(|kernel| kernel.name).map(|name| name.as_str().to_owned()),
            "index": self.index,
            "failure": self.kind,
            "count": self.count,
            "first_wall_ns": self.noted.map(|noted| noted.first_wall_ns),
            "last_wall_ns": self.noted.map(|noted| noted.last_wall_ns),
            "example": self.noted.map(|noted| json!({
                "source_index": noted.example.source.index(),
                "source_generation": noted.example.source.generation(),
                "sequence": noted.example.sequence,
                "hops": noted.hops,
            })),
        })
    }
}

fn run(args: &ErrorsArgs) -> Result<ExitCode, Box<dyn Error>> {
    let mut view = super::open(&args.file)?;
    let look = view.look()?;
    let failures = counted(&mut view, &look)?;
    if args.json {
        let list: Vec<Value> = failures.iter().map(Counted::json).collect();
        let file = view.path().to_string_lossy();
        k2k_command::say!("{:#}", json!({ "file": file, "failures": list }))?;
        return Ok(ExitCode::SUCCESS);
    }
    if failures.is_empty() {
        k2k_command::say!("{}: no failure was counted", printable(&view.path().to_string_lossy()))?;
        return Ok(ExitCode::SUCCESS);
    }
    k2k_command::print(table(&failures, &look))?;
    Ok(ExitCode::SUCCESS)
}

/// A table for people.
pub(super) fn table(failures: &[Counted<'_>], look: &Look) -> String {
    let mut table = Table::new(2, ["COUNTED BY", "FAILURE", "COUNT", "FIRST", "LAST", "LAST MESSAGE"]);
    for failure in failures {
        let time =
            |of: fn(&Failure) -> u64| failure.noted.as_ref().map_or_else(|| "-".to_owned(), |noted| ago(of(noted)));
        let (first, last) = (time(|noted| noted.first_wall_ns), time(|noted| noted.last_wall_ns));
        let example = failure.example(look).unwrap_or_else(|| "-".to_owned());
        table.row([failure.by(), failure.kind.replace('_', " "), grouped(failure.count), first, last, example]);
    }
    table.render()
}

/// The counted failures, the most frequent first, with their notes.
pub(super) fn counted<'l>(view: &mut View, look: &'l Look) -> Result<Vec<Counted<'l>>, InspectError> {
    let mut failures = Vec::new();
    let kernels = look.kernels.iter().map(|kernel| (kernel.id.index() as u16, Some(kernel), kernel.stats));
    for (index, kernel, stats) in kernels.chain(look.left.iter().map(|(index, stats)| (*index, None, *stats))) {
        let notes = if stats.failed() > 0 { view.failures(index)? } else { Vec::new() };
        for (kind, of, status) in KINDS {
            let count = of(&stats);
            let noted = notes.iter().find(|noted| Some(noted.status) == status).copied();
            if count > 0 {
                failures.push(Counted { index, kernel, kind, count, noted });
            }
        }
    }
    failures.sort_by_key(|failure| core::cmp::Reverse(failure.count));
    Ok(failures)
}

/// `12.3 s ago`.
fn ago(wall_ns: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX).saturating_sub(wall_ns);
    format!("{} ago", time_ns(ns as f64))
}
