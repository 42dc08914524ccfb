//! The command line.

use crate::act::args::{ControlArgs, PingArgs, RecordArgs, ReplayArgs, SendArgs, TapArgs, TraceArgs};
use crate::look::args::{DumpArgs, ErrorsArgs, LatencyArgs, LsArgs, MetricsArgs, TopArgs};
use crate::run::{MAX_KERNELS, MAX_MESSAGE_SIZE, USUAL_KERNELS};
use crate::topology::Topology;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Kernel-to-kernel messaging: carry a file through a mesh of kernels, look at what this machine offers, look into a running
/// fabric, and act on its kernels.
#[derive(Debug, Parser)]
#[command(name = "k2k", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(RunArgs),
    Doctor(DoctorArgs),
    Reap(ReapArgs),
    Ls(LsArgs),
    Top(TopArgs),
    Dump(DumpArgs),
    Metrics(MetricsArgs),
    Errors(ErrorsArgs),
    Latency(LatencyArgs),
    Send(SendArgs),
    Ping(PingArgs),
    Trace(TraceArgs),
    Tap(TapArgs),
    Record(RecordArgs),
    Replay(ReplayArgs),
    /// Let a kernel handle no messages, but forward traffic in transit, until it is resumed.
    Pause(ControlArgs),
    /// Let a paused kernel go on.
    Resume(ControlArgs),
    /// Let a kernel handle what is in its inbox, and then stop.
    Drain(ControlArgs),
    /// Let a kernel stop after the message in hand.
    Stop(ControlArgs),
}

/// Carry a file through a mesh of kernels and check that it arrives intact.
///
/// Kernel 0 cuts the file into messages and sends them to the kernel farthest from it. The kernels between, each on a
/// thread of its own, pass them on, neighbour to neighbour. The last one writes them out, and what it wrote is compared
/// with the input, byte for byte. Overload never loses a message: it ends in a receipt that says so, and the source
/// sends that piece again.
#[derive(Args, Debug)]
#[command(
    after_long_help = exit_status(),
    group = clap::ArgGroup::new("data").required(true).args(["input", "duration"])
)]
pub(crate) struct RunArgs {
    /// The file to carry; - is standard input.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,

    /// Where to write what arrives: no fabric. It is overwritten, and stays also if it turns out to be damaged. With -, it goes to
    /// standard output at the end, and the report to standard error. Without this option, a temporary file is written,
    /// compared and removed.
    #[arg(short, long, value_name = "FILE", conflicts_with = "duration")]
    pub(crate) output: Option<PathBuf>,

    /// Instead of a file, carry generated data for so long, up to 1000000 s; every message is checked when it arrives.
    /// Ctrl-C ends it early, and the figures are printed.
    #[arg(short, long, value_name = "SECS", value_parser = seconds, allow_negative_numbers = true)]
    pub(crate) duration: Option<f64>,

    #[arg(short, long, value_name = "N", allow_negative_numbers = true, value_parser = kernels)]
    #[arg(help = kernels_help())]
    pub(crate) kernels: Option<usize>,

    /// How the kernels are joined.
    #[arg(short, long, value_enum, default_value_t = Topology::Line)]
    pub(crate) topology: Topology,

    #[arg(short, long, value_name = "BYTES", default_value_t = 192, allow_negative_numbers = true)]
    #[arg(value_parser = message_size)]
    #[arg(help = format!("How many bytes a message carries, 1 to {MAX_MESSAGE_SIZE}"))]
    pub(crate) message_size: usize,

    /// How many messages an inbox holds of each sender: a power of two up to 32768. By default 256, and 64 with more than
    /// 16 kernels; more where the window asks for it.
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = slots)]
    pub(crate) slots: Option<usize>,

    /// How many messages may be on their way at once, 1 to 1024; at most half of kernels x slots, so that each has its
    /// receipt. More raise the throughput and the latency.
    #[arg(short, long, value_name = "N", default_value_t = 128, allow_negative_numbers = true)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) window: u16,

    /// How many hops a message may make before it fails, 1 to 127: a hop is a kernel on the way that passes it on. By
    /// default as many as the way requires.
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u8).range(1..=127))]
    pub(crate) hop_limit: Option<u8>,

    /// Pin each kernel's thread to a core: kernel 0 to the first, and so on round the cores.
    #[arg(long)]
    pub(crate) pin: bool,

    /// Ask for huge pages for the fabric, and say so if there are none.
    #[arg(long)]
    pub(crate) huge_pages: bool,

    /// Let the kernels keep traces, and show the way of the last message.
    #[arg(long)]
    pub(crate) tracing: bool,

    /// Print one JSON object instead of the table.
    #[arg(long)]
    pub(crate) json: bool,

    /// No progress bar, and no table if all went well.
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// Say what this machine offers, what is missing, and what that is needed for.
///
/// Looks and tries, but changes nothing. Exit status 0 if kernels on the host can run here, 1 if not; what only a GPU
/// needs may be missing. 141 if nobody reads standard output any more.
#[derive(Args, Debug)]
pub(crate) struct DoctorArgs {
    /// Print one JSON object instead of the list.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Free the names and indices of kernels whose process is gone.
///
/// Looks at each kernel of the fabric in FILE. Where the process that owns it is gone, what it left is settled: messages
/// for it end in "not found", or in "timed out" if their deadline has passed; messages on their way through it move on, and
/// its name can be used again. A process that is stopped or hangs is not gone; of one in another container it cannot be
/// known. Exit status 0, also if there is nothing to do; 2 if the fabric cannot be opened; 1 if it goes away meanwhile, or
/// standard output cannot be written.
#[derive(Args, Debug)]
pub(crate) struct ReapArgs {
    /// The fabric's shared-memory file: a path, or a name without a slash for a file in /dev/shm.
    #[arg(value_name = "FILE")]
    pub(crate) file: String,

    /// Free the indices of kernels that have failed, too. Their traces may be overwritten then.
    #[arg(long)]
    pub(crate) clear_failed: bool,
}

fn exit_status() -> &'static str {
    "Exit status:\n    0  the file arrived intact and every message is accounted for\n    1  it did not, or a message was \
     lost: standard error says which\n    2  the command line or a file it names is no good; nothing was run\n  130  \
     as 0, but Ctrl-C ended it early\n  141  nobody reads standard output any more\n\n\
     Examples:\n  k2k run --input README.md --topology torus --kernels 16\n  k2k run --duration 2"
}

fn kernels_help() -> String {
    let (few, many) = USUAL_KERNELS;
    format!(
        "How many kernels make up the mesh, 2 to {MAX_KERNELS} (a ring or a star 3, a torus 4); by default one for each \
         core, but {few} to {many}"
    )
}

/// A count. Its range is checked where more is known.
fn count(text: &str, what: &str) -> Result<usize, String> {
    // A negative number that is far too small is a number, too.
    let digits = text.strip_prefix('-').unwrap_or(text);
    match text.parse() {
        Ok(count) => Ok(count),
        Err(_) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
            Err(format!("must be {what}, not {text}"))
        }
        Err(_) => Err(format!("must be {what}, and this is no whole number")),
    }
}

fn kernels(text: &str) -> Result<usize, String> {
    count(text, &format!("2 to {MAX_KERNELS}"))
}

fn message_size(text: &str) -> Result<usize, String> {
    count(text, &format!("1 to {MAX_MESSAGE_SIZE}"))
}

fn slots(text: &str) -> Result<usize, String> {
    let what = "a power of two, 1 to 32768";
    count(text, what).and_then(|n| {
        if n.is_power_of_two() && n <= 32768 { Ok(n) } else { Err(format!("must be {what}, not {text}")) }
    })
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 1e6 => Ok(seconds),
        _ => Err(format!("must be a number of seconds above 0, at most 1000000, not {text:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_duration_is_a_positive_number() {
        assert_eq!(seconds("0.5"), Ok(0.5));
        for bad in ["0", "-1", "x", "inf", "NaN", "1e9"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
