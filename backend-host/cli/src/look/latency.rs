//! `k2k latency`: how long messages were on the way, by receiver; and the switch for counting.

use super::args::{LatencyArgs, Switch};
use super::table::Table;
use super::{json, label, printable};
use crate::text::{grouped, time_ns};
use core::error::Error;
use k2k::fabric::Latency;
use serde_json::{Value, json};
use std::process::ExitCode;

const NAME: &str = "k2k latency";

pub(crate) fn main(args: &LatencyArgs) -> ExitCode {
    match args.switch {
        Some(switch) => crate::fabric::main(NAME, || {
            let broker = crate::fabric::open(&args.file)?;
            broker.set_latency(switch == Switch::On);
            Ok(ExitCode::SUCCESS)
        }),
        None => super::end(NAME, show(args)),
    }
}

fn show(args: &LatencyArgs) -> Result<ExitCode, Box<dyn Error>> {
    let mut view = super::open(&args.file)?;
    let look = view.look()?;
    let mut counted: Vec<(u16, String, Latency)> = Vec::new();
    for kernel in &look.kernels {
        let index = kernel.id.index() as u16;
        counted.extend(view.latency(index)?.map(|latency| (index, label(kernel), latency)));
    }
    if args.json {
        let kernels: Vec<Value> = counted
            .iter()
            .map(|(index, name, latency)| json!({ "index": index, "name": name, "latency": json::latency(latency) }))
            .collect();
        let file = view.path().to_string_lossy();
        k2k_command::say!("{:#}", json!({ "file": file, "on": look.config.latency, "kernels": kernels }))?;
        return Ok(ExitCode::SUCCESS);
    }
    counted.retain(|(_, _, latency)| latency.count() > 0);
    if counted.is_empty() {
        k2k_command::say!("{}: no latency was counted", printable(&view.path().to_string_lossy()))?;
    } else {
        let mut table = Table::new(1, ["RECEIVER", "COUNTED", "MEAN", "P50", "P90", "P99", "P99.9", "MOST"]);
        for (_, name, latency) in &counted {
            let mean = latency.sum_ns() / latency.count().max(1);
            let times = [0.5, 0.9, 0.99, 0.999, 1.0].map(|share| latency.quantile(share).unwrap_or_default());
            let cells = [name.clone(), grouped(latency.count()), time(mean)];
            table.row(cells.into_iter().chain(times.map(time)));
        }
        k2k_command::print(table.render())?;
    }
    if !look.config.latency {
        k2k_command::note(format_args!("{NAME}: switched off: k2k latency FILE on has kernels count"));
    }
    Ok(ExitCode::SUCCESS)
}

/// The longest step has no end.
fn time(ns: u64) -> String {
    if ns == u64::MAX { "> 1000 s".to_owned() } else { time_ns(ns as f64) }
}
