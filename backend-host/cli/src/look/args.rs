//! Their command lines.

use clap::{Args, ValueEnum};
use core::time::Duration;
use std::net::SocketAddr;

/// List the fabrics on this machine, or the kernels of one.
///
/// Without FILE, looks for fabrics in /dev/shm and among the files that running processes share. With FILE, looks at that
/// fabric twice within a third of a second, so that it can say which heartbeats move. Nothing is written to it. Exit status
/// 0; 2 if the fabric cannot be looked at, 1 if it goes away meanwhile, or standard output cannot be written.
#[derive(Args, Debug)]
pub(crate) struct LsArgs {
    /// The fabric's shared-memory file: a path, or a name without a slash for a file in /dev/shm.
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<String>,

    /// Print one JSON object instead of the table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Watch a fabric, or several: rates, backlogs, who waits for whom, and which kernels are stuck.
///
/// On a terminal, a picture that is drawn anew until q is pressed; h lists the keys. Elsewhere, and on a terminal that cannot
/// move its cursor (TERM is dumb or unset), a table for each look.
/// Kernels that are dead, failed, stopped, hung, deaf to a command or stalled come first. Nothing is written to the fabric.
/// Of several fabrics, such as a host's and the published copy of a GPU's, each has a part of the picture, or a table of its
/// own. Exit status 0; 2 if a fabric cannot be looked at, 1 if one goes away meanwhile, or standard output cannot be written.
#[derive(Args, Debug)]
#[command(after_long_help = CONDITIONS)]
pub(crate) struct TopArgs {
    /// The fabrics' shared-memory files: paths, or names without a slash for files in /dev/shm.
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<String>,

    /// Time between two looks, 0.05 to 3600 s. A kernel is called stuck when it has stood still for this long, and for 1 s
    /// at least.
    #[arg(short, long, value_name = "SECS", default_value = "1", value_parser = interval, allow_negative_numbers = true)]
    pub(crate) interval: Duration,

    /// Print what changes within one interval, and end.
    #[arg(long, conflicts_with = "count")]
    pub(crate) once: bool,

    /// Print so many tables, and end.
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,

    /// Print one JSON object per look and fabric, each on a line.
    #[arg(long)]
    pub(crate) json: bool,

    /// Tables also on a terminal.
    #[arg(long)]
    pub(crate) plain: bool,
}

/// Print what a fabric holds: for a report of a fault.
///
/// Header, kernels, counters, failures, routes, denials, receipts by state, and the headers of the messages that wait. No payload is
/// printed unless it is asked for. Nothing is written to the fabric. Exit status 0; 2 if the fabric cannot be looked at, 1 if
/// it goes away meanwhile, or standard output cannot be written.
#[derive(Args, Debug)]
pub(crate) struct DumpArgs {
    /// The fabric's shared-memory file: a path, or a name without a slash for a file in /dev/shm.
    #[arg(value_name = "FILE")]
    pub(crate) file: String,

    /// Messages to show of each sender to a kernel, and of high priority of all.
    #[arg(short, long, value_name = "N", default_value_t = 4)]
    pub(crate) messages: u64,

    /// Show their payloads, in hexadecimal.
    #[arg(long)]
    pub(crate) payload: bool,

    /// Print one JSON object instead: what k2k ls prints as JSON, and failures, routes, denials, receipts and messages.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Print a fabric's counters and gauges in the text format of Prometheus.
///
/// Once, for a textfile collector, or at http://ADDRESS/metrics until it is interrupted. Nothing is written to the fabric.
/// Exit status 0; 2 if the fabric cannot be looked at, 1 if it goes away meanwhile, nobody can listen at that address, or
/// standard output cannot be written.
#[derive(Args, Debug)]
pub(crate) struct MetricsArgs {
    /// The fabric's shared-memory file: a path, or a name without a slash for a file in /dev/shm.
    #[arg(value_name = "FILE")]
    pub(crate) file: String,

    /// Answer requests at this address and port, such as 127.0.0.1:9464. Anyone who reaches it can read the metrics.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) serve: Option<SocketAddr>,
}

/// List which failures a fabric's kernels have counted.
///
/// By kernel and kind, the most frequent first: how many since the fabric was created, when the first and the last one were
/// counted, and which message the last was, by its sender and its number. Of messages that were refused (they stayed with
/// their sender), of headers that were damaged, and of clocks that were too far ahead, only the number is known. Nothing is
/// written to the fabric. Exit status 0; 2 if the fabric cannot be looked at, 1 if it goes away meanwhile, or standard output
/// cannot be written.
#[derive(Args, Debug)]
pub(crate) struct ErrorsArgs {
    /// The fabric's shared-memory file: a path, or a name without a slash for a file in /dev/shm.
    #[arg(value_name = "FILE")]
    pub(crate) file: String,

    /// Print one JSON object instead of the table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Show how long messages were on their way to each kernel, or have that counted.
///
/// With on, all kernels of the fabric count it from now on, for one received message of 16; with off, no more. A receiver's
/// counts are kept by its index, on a scale of four steps per power of two: a percentile is at most a quarter too long. Times
/// are from the sender's timestamp to the receiver's, both on the hybrid clock. k2k top and k2k metrics show them as well,
/// while it is on. Exit status 0; 2 if the fabric cannot be looked at, or, for on and off, written to; 1 if it goes away
/// meanwhile, or standard output cannot be written.
#[derive(Args, Debug)]
pub(crate) struct LatencyArgs {
    /// The fabric's shared-memory file: a path, or a name without a slash for a file in /dev/shm.
    #[arg(value_name = "FILE")]
    pub(crate) file: String,

    /// Switch it on or off, instead.
    #[arg(value_name = "SWITCH", conflicts_with = "json")]
    pub(crate) switch: Option<Switch>,

    /// Print one JSON object instead of the table.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    On,
    Off,
}

const CONDITIONS: &str = "Conditions:\n  \
    dead     its process is gone: k2k reap frees its name\n  \
    failed   its handler failed\n  \
    stopped  its process is stopped (SIGSTOP, a debugger)\n  \
    hung     its run loop makes no pass: it hangs in its handler\n  \
    unheard  it was told to pause, drain or stop, and does not follow\n  \
    stalled  mail waits, and it takes none\n  \
    flooded  it takes mail, and some sender has no room for more\n  \
    paused   it was told to pause\n  \
    ending   it drains its inbox, leaves, or has stopped\n  \
    refused  every message that it wants to send is refused\n  \
    busy     it takes or sends messages\n  \
    idle     nothing waits, and nothing happens";

fn interval(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.05..=3600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(format!("must be a number of seconds, 0.05 to 3600, not {text:?}")),
    }
}
