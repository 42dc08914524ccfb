//! `k2k top`: one or several fabrics, look after look.

mod order;
#[cfg(feature = "top")]
mod screen;

use super::args::TopArgs;
use super::table::Table;
use super::{file_state, json, label, labels, printable, shape};
use crate::text::{grouped, rate, time_ns};
use core::error::Error;
use core::fmt::Write as _;
use k2k::inspect::{Detail, Quantiles, Report, View, Watch};
#[cfg(feature = "top")]
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Instant;

const NAME: &str = "k2k top";

pub(crate) fn main(args: &TopArgs) -> ExitCode {
    super::end(NAME, run(args))
}

fn run(args: &TopArgs) -> Result<ExitCode, Box<dyn Error>> {
    let patience = if args.once { args.interval } else { args.interval.max(Watch::PATIENCE) };
    let open = |file: &String| super::open(file).map(|view| Watch::new(view).patience(patience));
    let watches = args.files.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    #[cfg(feature = "top")]
    if !args.once && args.count.is_none() && !args.json && !args.plain && can_draw() {
        return screen::show(watches, args.interval);
    }
    print(args, watches)
}

/// Whether standard output is a terminal that can move its cursor.
#[cfg(feature = "top")]
fn can_draw() -> bool {
    let is_able = std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb");
    is_able && std::io::stdout().is_terminal()
}

/// A table or an object for each interval and fabric.
fn print(args: &TopArgs, mut watches: Vec<Watch>) -> Result<ExitCode, Box<dyn Error>> {
    let count = if args.once { Some(1) } else { args.count };
    for watch in &mut watches {
        watch.look()?;
    }
    let (mut status, mut gap) = (ExitCode::SUCCESS, "");
    let mut next = Instant::now();
    for number in 0.. {
        if count.is_some_and(|count| number >= count) {
            break;
        }
        next = (next + args.interval).max(Instant::now());
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        let mut at = 0;
        while let Some(watch) = watches.get_mut(at) {
            match watch.look() {
                Ok(report) if args.json => k2k_command::say!("{}", json::report(watch.view(), &report))?,
                Ok(report) => k2k_command::print(format!("{gap}{}", text(watch.view(), &report)))?,
                Err(why) if watches.len() == 1 => return Err(why.into()),
                // The remaining fabrics are watched on.
                Err(why) => {
                    k2k_command::complain(NAME, printable(&why.to_string()));
                    status = ExitCode::FAILURE;
                    watches.remove(at);
                    continue;
                }
            }
            gap = "\n";
            at += 1;
        }
    }
    Ok(status)
}

/// A time of the messages received since the last look.
fn quantile(detail: &Detail, of: fn(Quantiles) -> u64) -> String {
    detail.latency.map_or_else(|| "-".to_owned(), |latency| time_ns(of(latency) as f64))
}

/// A look as a table, the worst condition first.
fn text(view: &View, report: &Report) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{}: {}{}{}",
        printable(&view.path().to_string_lossy()),
        shape(view.geometry()),
        if view.is_copy() { ", a copy of other memory" } else { "" },
        file_state(report.look.file)
    );
    let latency = if report.look.config.latency { &["P50", "P99"][..] } else { &[] };
    let rates = ["KERNEL", "CONDITION", "SENT/s", "RECV/s", "FWD/s", "FAIL/s", "REFUSED/s"];
    let heading = rates.iter().chain(latency).chain(&["WAIT", "MOST", "DEFER", "WAITS FOR"]);
    let mut table = Table::new(2, heading.copied());
    for (kernel, detail) in order::Order::Condition.sorted(report) {
        let per_second = |count| rate(report.per_second(count));
        let mut cells = vec![
            label(kernel),
            detail.condition.to_string(),
            per_second(detail.change.sent),
            per_second(detail.change.received),
            per_second(detail.change.forwarded),
            per_second(detail.change.failed()),
            per_second(detail.change.refused),
        ];
        if report.look.config.latency {
            cells.extend([quantile(detail, |latency| latency.p50_ns), quantile(detail, |latency| latency.p99_ns)]);
        }
        cells.extend([
            grouped(kernel.waiting()),
            grouped(detail.high_water),
            grouped(kernel.deferred()),
            labels(&report.look, &kernel.waits_for),
        ]);
        table.row(cells);
    }
    text.push_str(&table.render());
    text
}
