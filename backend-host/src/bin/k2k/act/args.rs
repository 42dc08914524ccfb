//! The command lines of the commands that act on a fabric.

use clap::Args;
use core::time::Duration;
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
/// Registers a kernel of its own for that, sends, waits for the outcome, and leaves. The fabric needs a free place.
#[derive(Args, Debug)]
#[command(
    after_long_help = "Exit status:\n    0  the message was delivered\n    1  it was not: the line says why\n    2  \
                             nothing was sent: no fabric, no such kernel, a payload that is too long\n  130  ended by a \
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
                             the messages\n    2  nothing was sent: no fabric, no such kernel, a size that is too large"
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
                             what is known of it. The command stands, and a kernel that looks later obeys it\n    2  \
                             nothing was told: no fabric, no such kernel"
)]
pub(crate) struct ControlArgs {
    #[command(flatten)]
    pub(crate) target: Target,

    /// How long to wait until it has obeyed, with a unit: 500ms, 2s, 1m.
    #[arg(short, long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub(crate) timeout: Duration,
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
