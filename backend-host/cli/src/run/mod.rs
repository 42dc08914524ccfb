//! `k2k run`: carries a file through a mesh of kernels and checks that the file arrives intact.
//!
//! | file | content |
//! | --- | --- |
//! | `files` | source and destination of the data: files, standard input and output |
//! | `supply` | the input, cut into chunks |
//! | `feed` | kernel 0: sends every chunk until its receipt says delivered |
//! | `mesh` | the fabric, the kernels and their threads |
//! | `arrival` | the last kernel: checks, times and writes arriving chunks |
//! | `report` | the table and the JSON object |
//! | `progress` | a line on the terminal during the run |

mod arrival;
mod feed;
mod files;
mod mesh;
mod progress;
mod report;
mod supply;

use crate::args::RunArgs;
use crate::interrupt;
use crate::topology::{Routes, Topology};
use arrival::{Arrivals, Arrived};
use core::error::Error;
use core::fmt;
use core::time::Duration;
use files::{Files, FilesError};
use k2k_command::{complain, note, print};
use mesh::Carried;
use progress::Progress;
use report::{Accounting, Latency, Report, Retransmissions};
use std::process::ExitCode;
use std::thread;
use supply::Supply;

pub(crate) use mesh::{MAX_KERNELS, MAX_MESSAGE_SIZE};

/// The command's name in messages.
const NAME: &str = "k2k run";

/// The fewest and the most kernels of a mesh without a given size. At least three, so that a kernel passes messages on.
pub(crate) const USUAL_KERNELS: (usize, usize) = (3, 6);

/// The cores that this process may use.
fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Why no job was run.
#[derive(Debug)]
enum UsageError {
    TooFewKernels { topology: Topology, given: usize },
    TooManyKernels { given: usize },
    MessageSize { given: usize },
    Files(FilesError),
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooFewKernels { topology, given } => write!(
                f,
                "--kernels {given} is too few: a {} needs at least {}",
                topology.name(),
                topology.min_kernels()
            ),
            Self::TooManyKernels { given } => {
                write!(f, "--kernels {given} is too many: a mesh has at most {MAX_KERNELS}")
            }
            Self::MessageSize { given } => {
                write!(f, "--message-size {given} is out of range: a message carries 1 to {MAX_MESSAGE_SIZE} bytes")
            }
            Self::Files(e) => e.fmt(f),
        }
    }
}

/// All decisions made before the mesh is set up.
#[derive(Debug)]
struct Plan {
    topology: Topology,
    kernels: usize,
    routes: Routes,
    /// Indices from the first kernel to the last.
    way: Vec<usize>,
    message_size: usize,
    /// Slots of the fabric per kernel pair.
    slots: usize,
    window: usize,
    hop_limit: u8,
    tracing: bool,
    pin: bool,
    huge_pages: bool,
}

impl Plan {
    fn new(args: &RunArgs) -> Result<Self, UsageError> {
        let topology = args.topology;
        let usual = || cores().clamp(USUAL_KERNELS.0.max(topology.min_kernels()), USUAL_KERNELS.1);
        let kernels = args.kernels.unwrap_or_else(usual);
        if kernels < topology.min_kernels() {
            return Err(UsageError::TooFewKernels { topology, given: kernels });
        }
        if kernels > MAX_KERNELS {
            return Err(UsageError::TooManyKernels { given: kernels });
        }
        if !(1..=MAX_MESSAGE_SIZE).contains(&args.message_size) {
            return Err(UsageError::MessageSize { given: args.message_size });
        }
        let routes = Routes::new(topology, kernels);
        let way = routes.way(0, routes.farthest(0));
        // The first and the last kernel on the way do not forward.
        let needed = u8::try_from(way.len() - 2).unwrap_or(u8::MAX).clamp(1, 127);
        // A sender has KERNELS x SLOTS receipts, and each repeated message uses a new receipt: twice as many as are on
        // their way at once.
        let window = usize::from(args.window);
        let usual = if kernels > 16 { 64 } else { 256 };
        let slots = args.slots.unwrap_or_else(|| usual.max((2 * window).div_ceil(kernels).next_power_of_two()));
        let window = window.min((kernels * slots / 2).max(1));
        Ok(Self {
            topology,
            kernels,
            routes,
            way,
            message_size: args.message_size,
            slots,
            window,
            hop_limit: args.hop_limit.unwrap_or(needed),
            tracing: args.tracing,
            pin: args.pin,
            huge_pages: args.huge_pages,
        })
    }
}

/// The data to carry, and its destination.
#[derive(Debug)]
enum Cargo {
    Files(Files),
    Generated { lasts: Duration },
}

impl Cargo {
    fn new(args: &RunArgs) -> Result<Self, UsageError> {
        match &args.input {
            Some(input) => Files::open(input, args.output.as_deref()).map(Self::Files).map_err(UsageError::Files),
            None => Ok(Self::Generated { lasts: Duration::from_secs_f64(args.duration.unwrap_or(1.0)) }),
        }
    }
}

/// Runs the job and prints its result.
pub(crate) fn main(args: &RunArgs) -> ExitCode {
    let planned = Plan::new(args).and_then(|plan| Ok((plan, Cargo::new(args)?)));
    match planned {
        Ok((plan, cargo)) => k2k_command::end(NAME, 1, run(args, &plan, cargo)),
        Err(e) => {
            complain(NAME, e);
            ExitCode::from(2)
        }
    }
}

fn run(args: &RunArgs, plan: &Plan, cargo: Cargo) -> Result<ExitCode, Box<dyn Error>> {
    interrupt::catch();
    // The arrived data may be on its way to standard output: then the report goes to standard error.
    let data_is_output = matches!(&cargo, Cargo::Files(files) if files.goes_to_stdout());
    let report = carry(args, plan, cargo)?;
    let text = if args.json {
        serde_json::to_string_pretty(&report)? + "\n"
    } else if !args.quiet || !report.is_good() {
        report.render()
    } else {
        String::new()
    };
    if data_is_output {
        note(text.trim_end());
    } else {
        print(text)?;
    }
    for problem in &report.problems {
        complain(NAME, problem);
    }
    Ok(match (report.is_good(), report.interrupted) {
        (false, _) => ExitCode::FAILURE,
        (true, true) => ExitCode::from(interrupt::INTERRUPTED),
        (true, false) => ExitCode::SUCCESS,
    })
}

/// Carries the cargo and checks the result. An error says why the mesh could not be set up, or the output not written.
fn carry(args: &RunArgs, plan: &Plan, cargo: Cargo) -> Result<Report, Box<dyn Error>> {
    let size = plan.message_size;
    let (supply, arrivals, total, files) = match cargo {
        Cargo::Generated { lasts } => (Supply::generated(lasts, size), Arrivals::to_check(size), None, None),
        Cargo::Files(files) => {
            let (supply, arrivals) = (Supply::new(files.source()?, size), files.arrivals(size)?);
            (supply, arrivals, files.len(), Some(files))
        }
    };
    let mut progress = Progress::new(total, !args.quiet);
    let carried = mesh::carry(plan, supply, arrivals, &mut progress)?;
    drop(progress);
    if !args.json && !args.quiet {
        for notice in &carried.notices {
            complain(NAME, notice);
        }
    }
    let interrupted = interrupt::is_asked_for();
    let mut problems: Vec<String> = carried.problems.clone();
    problems.extend(carried.arrived.error.as_ref().map(ToString::to_string));
    let compared = match files {
        // Bytes that were not read were not sent.
        Some(files) => {
            let compared = files.compare(interrupted.then_some(carried.fed.bytes));
            files.pass_on()?;
            compared.map_err(|e| format!("cannot compare output and input: {e}"))?
        }
        None => Ok(()),
    };
    let identical = compared.is_ok() && problems.is_empty() && carried.arrived.chunks == carried.fed.chunks;
    problems.extend(compared.err());
    Ok(report(args, plan, carried, identical, interrupted, problems))
}

fn report(
    args: &RunArgs,
    plan: &Plan,
    carried: Carried,
    identical: bool,
    interrupted: bool,
    mut problems: Vec<String>,
) -> Report {
    let Carried { fed, arrived, stats, took, fabric, trace, .. } = carried;
    let accounting = Accounting::of(&stats);
    let losses = report::losses(&fed, &arrived, &accounting);
    let nothing_lost = losses.is_empty();
    problems.extend(losses);
    let Arrived { chunks, bytes, latency_ns, .. } = arrived;
    let mut report = Report {
        identical,
        nothing_lost,
        interrupted,
        problems,
        input: args.input.as_ref().map(|path| path.display().to_string()),
        output: args.output.as_ref().map(|path| path.display().to_string()),
        topology: plan.topology.name(),
        mesh: plan.topology.describe(plan.kernels),
        kernels: plan.kernels,
        cores: cores(),
        route: plan.way.clone(),
        message_size: plan.message_size,
        window: plan.window,
        fabric,
        messages: chunks,
        bytes,
        seconds: 0.0,
        hops: stats.forwarded,
        hops_per_second: 0.0,
        messages_per_second: 0.0,
        megabytes_per_second: 0.0,
        latency_ns: Latency::of(&latency_ns),
        retransmissions: Retransmissions {
            queue_full: fed.again_queue_full,
            timeout: fed.again_timeout,
            refused: stats.refused,
        },
        accounting,
        trace,
    };
    report.set_time(took);
    report
}
