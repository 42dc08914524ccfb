//! The command lines of the commands that act on a fabric.

use crate::fabric::{self, Any, Failure};
use crate::look::args::Switch;
use clap::Args;
use core::time::Duration;
use k2k::{Broker, KernelId};
use std::path::PathBuf;

/// The fabric, and one of its kernels.
#[derive(Args, Debug)]
pub(crate) struct Target {
    /// The fabric's shared-memory file: a path, or a name without a slash for a file in /dev/shm.
    #[arg(value_name = "FILE")]
    pub(crate) file: String,

    /// The kernel's name.
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

/// Send one message to a kernel, and say what became of it.
///
/// Registers a kernel of its own for that, sends, waits for the outcome, and leaves. The fabric needs a free index.
#[derive(Args, Debug)]
#[command(
    after_long_help = "Exit status:\n    0  the message was delivered\n    1  it was not, or the fabric went away, or what \
                             became of it cannot be said on standard output: the line says why\n    2  nothing was sent: no \
                             fabric, no such kernel, a payload that is too long\n  130  ended by a \
                             signal\n\nExamples:\n  k2k send robots arm 'home'\n  k2k send robots arm --kind 7 --input \
                             pose.bin --high --timeout 500ms"
)]
pub(crate) struct SendArgs {
    #[command(flatten)]
    pub(crate) target: Target,

    /// The payload; - is standard input. Without it and without --input, the message is empty.
    #[arg(value_name = "TEXT", conflicts_with = "input")]
    pub(crate) text: Option<String>,

    /// Take the payload from this file; - is standard input.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,

    /// The message's type word.
    #[arg(short, long, value_name = "N", default_value_t = 0)]
    pub(crate) kind: u32,

    /// Send with high priority.
    #[arg(long)]
    pub(crate) high: bool,

    /// How long the message may take, with a unit: 500us, 20ms, 2s, 1m. By default the fabric's delivery timeout.
    #[arg(short, long, value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,

    /// The name of the sending kernel. By default k2k-send- and the process id.
    #[arg(long = "as", value_name = "NAME")]
    pub(crate) own_name: Option<String>,
}

/// Measure round trips to a kernel that replies.
///
/// Sends one message after the other and waits for the reply to each: a message that the kernel sends with the request's
/// sequence as correlation id, as `reply` does. The kernel gets these messages like any other: choose kind and size that
/// are harmless to it. For a kernel that does not reply, the command says what came of the messages. Ctrl-C ends it, and
/// the figures are printed.
#[derive(Args, Debug)]
#[command(
    after_long_help = "Exit status:\n    0  at least one reply came\n    1  none came: the lines say what became of \
                             the messages; or the fabric went away, or standard output cannot be written\n    2  nothing was sent: no fabric, no such kernel, a size that is too large"
)]
pub(crate) struct PingArgs {
    #[command(flatten)]
    pub(crate) target: Target,

    /// How many messages to send. Without it, until Ctrl-C.
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,

    /// From one message to the next, at least, with a unit: 0s sends the next one when the reply is there.
    #[arg(short, long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    pub(crate) interval: Duration,

    /// Payload, bytes. The first eight, or as many as there are, count the messages.
    #[arg(short, long, value_name = "BYTES", default_value_t = 8)]
    pub(crate) size: usize,

    /// How long a message and its reply may take together, with a unit.
    #[arg(short, long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    pub(crate) timeout: Duration,

    /// The messages' type word.
    #[arg(short, long, value_name = "N", default_value_t = 0)]
    pub(crate) kind: u32,

    /// Send with high priority.
    #[arg(long)]
    pub(crate) high: bool,

    /// The name of the sending kernel. By default k2k-ping- and the process id.
    #[arg(long = "as", value_name = "NAME")]
    pub(crate) own_name: Option<String>,

    /// No line for each message, only the figures.
    #[arg(short, long)]
    pub(crate) quiet: bool,

    /// Print one JSON object instead.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Tells a kernel what to do, and waits until it has obeyed.
#[derive(Args, Debug)]
#[command(
    after_long_help = "Exit status:\n    0  the kernel has obeyed\n    1  it has not, or not in time: the line says \
                             what is known of it. The command stands, and a kernel that looks later obeys it. Also if \
                             standard output cannot be written\n    2  nothing was told: no fabric, no such kernel\n  130  \
                             Ctrl-C ended the wait; the command stands"
)]
pub(crate) struct ControlArgs {
    #[command(flatten)]
    pub(crate) target: Target,

    /// How long to wait until it has obeyed, with a unit: 500ms, 2s, 1m.
    #[arg(short, long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub(crate) timeout: Duration,
}

/// The way from one kernel to another, and the kernel that is put between them.
#[derive(Args, Debug)]
pub(crate) struct Way {
    /// The fabric's shared-memory file: a path, or a name without a slash for a file in /dev/shm.
    #[arg(value_name = "FILE")]
    pub(crate) file: String,

    /// The name of the kernel that sends, or passes on.
    #[arg(value_name = "FROM")]
    from: String,

    /// The name of the kernel that receives in the end.
    #[arg(value_name = "TO")]
    to: String,

    /// The name of the kernel between them. By default k2k-, the command, and the process id.
    #[arg(long = "as", value_name = "NAME")]
    pub(crate) own_name: Option<String>,
}

impl Way {
    /// Both kernels.
    pub(crate) fn find(&self, broker: &Broker<Any>) -> Result<(KernelId, KernelId), Failure> {
        let (from, to) = (fabric::find(broker, &self.from)?, fabric::find(broker, &self.to)?);
        if from == to {
            return Err("messages of a kernel to itself take no way on which they could be seen".into());
        }
        Ok((from, to))
    }
}

/// Print copies of the messages that go from one kernel to another.
///
/// Registers a kernel, and sets a route that leads the messages through it: one line for each that it passes on. The tap
/// changes neither their order nor their priority nor what becomes of them; they take one hop more, which does not count
/// against their hop limit. Copies that the output cannot take in time are left out and counted; messages never wait for
/// the output. Ctrl-C or SIGTERM ends it: the route is removed when nothing is on its way. If the command is killed,
/// `k2k reap` or a supervisor brings the messages back to their way.
#[derive(Args, Debug)]
#[command(
    after_long_help = "Exit status:\n    0  ended by a signal, or after the number of messages asked for\n    1  one \
                             of the two kernels has left, or standard output cannot be written\n    2  there was nothing to tap: no fabric, no such kernel"
)]
pub(crate) struct TapArgs {
    #[command(flatten)]
    pub(crate) way: Way,

    /// End after so many messages.
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,

    /// Show whole payloads, not the first bytes.
    #[arg(long, conflicts_with = "json")]
    pub(crate) hex: bool,

    /// Print one JSON object per line, with the whole payload in hexadecimal.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Record the messages that go from one kernel to another, with their times.
///
/// As `k2k tap`, but the copies go to a file, for `k2k replay`; its format is on the page of `k2k::recording`. A
/// recorder that is killed leaves a file of which `k2k replay --truncated` plays what is whole.
#[derive(Args, Debug)]
#[command(
    after_long_help = "Exit status:\n    0  ended by a signal, or after the number or time asked for\n    1  one of \
                             the two kernels has left, or messages are missing in the file: standard error says so\n    2  \
                             there was nothing to record: no fabric, no such kernel, no file to write"
)]
pub(crate) struct RecordArgs {
    #[command(flatten)]
    pub(crate) way: Way,

    /// The file to write; one that is there is overwritten, but no fabric.
    #[arg(short, long, value_name = "OUT")]
    pub(crate) output: PathBuf,

    /// End after so many messages.
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,

    /// End after so long, with a unit: 10s.
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub(crate) time: Option<Duration>,
}

/// Send recorded messages again.
///
/// Sends what `k2k record` has written: type word, priority, flags, correlation id and payload as they were, from a kernel
/// of its own, at the times that were recorded. Where an inbox is full, it waits, and sends later. The whole file is
/// checked before anything is sent.
#[derive(Args, Debug)]
#[command(
    after_long_help = "Exit status:\n    0  all messages were delivered\n    1  some were not: the table says what \
                             became of them; or the fabric went away, or standard output cannot be written\n    2  nothing was sent: no fabric, no such kernel, no recording, or a \
                             damaged one\n  130  ended by a signal"
)]
pub(crate) struct ReplayArgs {
    /// The fabric's shared-memory file: a path, or a name without a slash for a file in /dev/shm.
    #[arg(value_name = "FILE")]
    pub(crate) file: String,

    /// What `k2k record` has written.
    #[arg(value_name = "RECORDING")]
    pub(crate) recording: PathBuf,

    /// The name of the kernel to send to. By default that of the recorded receiver.
    #[arg(long, value_name = "NAME")]
    pub(crate) to: Option<String>,

    /// How much faster than recorded: 2.0 in half of the time, 0.5 in twice the time, max without a pause.
    #[arg(short, long, value_name = "RATE", default_value = "1.0", value_parser = rate)]
    pub(crate) rate: Rate,

    /// How long each message may take, with a unit. By default the fabric's delivery timeout.
    #[arg(short, long, value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,

    /// Send what is whole of a recording that was cut short.
    #[arg(long)]
    pub(crate) truncated: bool,

    /// The name of the sending kernel. By default k2k-replay- and the process id.
    #[arg(long = "as", value_name = "NAME")]
    pub(crate) own_name: Option<String>,

    /// Print one JSON object instead of the table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// At which times recorded messages are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Rate {
    /// So many times as fast as recorded.
    Times(f64),
    /// One after the other.
    Max,
}

fn rate(text: &str) -> Result<Rate, String> {
    match text.parse::<f64>() {
        _ if text == "max" => Ok(Rate::Max),
        Ok(rate) if rate > 0.0 && rate.is_finite() => Ok(Rate::Times(rate)),
        _ => Err(format!("must be max or a number above 0, not {text:?}")),
    }
}

/// Write the ways of messages as a trace that Perfetto's UI opens.
///
/// Switches tracing on for a time, follows the traces of all kernels, and leaves tracing as it was. The output is JSON in the
/// Trace Event Format, for <https://ui.perfetto.dev>: a track per kernel, a flow per message over its hops, and a mark for each
/// message that was accepted and then failed; sends that were refused leave no event (k2k errors counts them). A kernel's trace
/// keeps 64 events; what is overwritten before it is read is counted. A command that is killed leaves tracing on: k2k trace FILE
/// off switches it off.
#[derive(Args, Debug)]
#[command(after_long_help = "Exit status:\n    0  the trace was written, or tracing switched\n    1  the trace \
                             could not be written to its end\n    2  there was nothing to trace: no fabric, no file to \
                             write\n  130  as 0, but ended early by a signal")]
pub(crate) struct TraceArgs {
    /// The fabric's shared-memory file: a path, or a name without a slash for a file in /dev/shm.
    #[arg(value_name = "FILE")]
    pub(crate) file: String,

    /// Switch tracing on or off for good, instead, and write no trace.
    #[arg(value_name = "SWITCH", conflicts_with_all = ["output", "time", "last"])]
    pub(crate) switch: Option<Switch>,

    /// The file to write; one that is there is overwritten, but no fabric. Without it, standard output.
    #[arg(short, long, value_name = "OUT")]
    pub(crate) output: Option<PathBuf>,

    /// For how long, with a unit.
    #[arg(long = "for", value_name = "TIME", default_value = "2s", value_parser = duration)]
    pub(crate) time: Duration,

    /// Take what stands in the traces, switch nothing, and write nothing to the fabric.
    #[arg(long, conflicts_with = "time")]
    pub(crate) last: bool,
}

/// A time with a unit.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let usage = || format!("must be a number and its unit (us, ms, s, m or h), such as 500ms, not {text:?}");
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(usage)?;
    let (number, unit) = text.split_at(unit_at);
    let seconds = match unit {
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(usage()),
    };
    let number: f64 = number.parse().map_err(|_| usage())?;
    Duration::try_from_secs_f64(number * seconds).map_err(|_| format!("{text} is longer than any clock lasts"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_number_and_a_unit() {
        let ms = Duration::from_millis;
        for (text, time) in
            [("500ms", ms(500)), ("2s", ms(2000)), ("0.5m", ms(30_000)), ("0s", ms(0)), ("1000us", ms(1))]
        {
            assert_eq!(duration(text), Ok(time), "{text}");
        }
        for bad in ["2", "s", "", "-1s", "1d", "1e3s", "1..2s", "1s2"] {
            assert!(duration(bad).unwrap_err().starts_with("must be a number and its unit"), "{bad}");
        }
        assert!(duration("99999999999999999999999999h").unwrap_err().contains("any clock"));
    }
}
