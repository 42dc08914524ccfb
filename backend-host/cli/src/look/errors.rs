//! `k2k errors`: which failures there have been, by kernel and kind.

use super::args::ErrorsArgs;
use super::table::Table;
use super::{label, label_of, printable};
use crate::text::{grouped, time_ns};
use core::error::Error;
use k2k::fabric::{Event, TraceEntry};
use k2k::inspect::{KernelLook, Look, View};
use k2k::{DeliveryStatus, Stats};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

const NAME: &str = "k2k errors";

/// A kind of failure: its name, its counter, and what it is called in a trace.
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

/// Failures of one kind at one kernel index.
struct Failure<'l> {
    index: u16,
    /// The index's kernel, unless it has left.
    kernel: Option<&'l KernelLook>,
    kind: &'static str,
    count: u64,
    /// The oldest and the latest of them in the kernel's trace.
    traced: Option<(TraceEntry, TraceEntry)>,
}

fn run(args: &ErrorsArgs) -> Result<ExitCode, Box<dyn Error>> {
    let mut view = super::open(&args.file)?;
    let look = view.look()?;
    let failures = failures(&mut view, &look)?;
    let source = |entry: &TraceEntry| {
        let index = u16::try_from(entry.id.source.index()).unwrap_or(u16::MAX);
        format!("{} #{}", label_of(&look, index), entry.id.sequence)
    };
    if args.json {
        let list: Vec<Value> = failures
            .iter()
            .map(|failure| {
                json!({
                    "kernel": failure.kernel.and_then(|kernel| kernel.name).map(|name| name.as_str().to_owned()),
                    "index": failure.index,
                    "failure": failure.kind,
                    "count": failure.count,
                    "first_traced_wall_ns": failure.traced.map(|(first, _)| first.at.wall_time_ns),
                    "last_traced_wall_ns": failure.traced.map(|(_, last)| last.at.wall_time_ns),
                    "example": failure.traced.map(|(_, last)| json!({
                        "source_index": last.id.source.index(),
                        "source_generation": last.id.source.generation(),
                        "sequence": last.id.sequence,
                        "hops": last.hops,
                    })),
                })
            })
            .collect();
        let file = view.path().to_string_lossy();
        k2k_command::say!("{:#}", json!({ "file": file, "tracing": look.config.tracing, "failures": list }))?;
        return Ok(ExitCode::SUCCESS);
    }
    if failures.is_empty() {
        k2k_command::say!("{}: no failure was counted", printable(&view.path().to_string_lossy()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(2, ["COUNTED BY", "FAILURE", "COUNT", "FIRST TRACED", "LAST TRACED", "EXAMPLE"]);
    for failure in &failures {
        let [first, last] = match &failure.traced {
            Some((first, last)) => [first, last].map(|entry| ago(entry.at.wall_time_ns)),
            None => [const { String::new() }; 2],
        };
        let example = failure.traced.as_ref().map(|(_, last)| source(last)).unwrap_or_default();
        let kind = failure.kind.replace('_', " ");
        let by = failure.kernel.map_or_else(|| format!("#{} (has left)", failure.index), label);
        table.row([by, kind, grouped(failure.count), first, last, example]);
    }
    k2k_command::print(table.render())?;
    if !look.config.tracing {
        k2k_command::note(format_args!(
            "{NAME}: times and examples come from traces, and tracing is off: k2k trace switches it on"
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// What was counted, the most frequent first, with what the traces tell of it.
fn failures<'l>(view: &mut View, look: &'l Look) -> Result<Vec<Failure<'l>>, Box<dyn Error>> {
    let mut failures = Vec::new();
    let kernels = look.kernels.iter().map(|kernel| (kernel.id.index() as u16, Some(kernel), kernel.stats));
    for (index, kernel, stats) in kernels.chain(look.left.iter().map(|(index, stats)| (*index, None, *stats))) {
        let trace = view.trace(index)?;
        for (kind, of, status) in KINDS {
            let count = of(&stats);
            let is_one =
                |entry: &&TraceEntry| entry.event == Event::Failed && status.is_some() && entry.failure() == status;
            let mut events = trace.iter().filter(is_one);
            let first = events.next();
            let last = events.next_back().or(first);
            if count > 0 {
                failures.push(Failure { index, kernel, kind, count, traced: first.copied().zip(last.copied()) });
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
