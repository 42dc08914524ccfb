//! `k2k run`: carries a file through a mesh of kernels and checks that it arrives intact.
//!
//! | file | what |
//! | --- | --- |
//! | `supply` | the input, cut into chunks |
//! | `feed` | kernel 0: sends every chunk until its receipt says delivered |
//! | `mesh` | the fabric, the kernels and their threads; the only part that depends on the fabric's shape |
//! | `arrival` | the last kernel: checks, times and writes what arrives |
//! | `report` | the table and the JSON object |

mod arrival;
mod feed;
mod mesh;
mod report;
mod supply;

use crate::args::RunArgs;
use crate::topology::{Routes, Topology};
use arrival::{Arrivals, Arrived};
use core::fmt;
use core::time::Duration;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use mesh::{Carried, SHAPES, Shape};
use report::{Accounting, Latency, Report, Retransmissions};
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;
use supply::Supply;

pub(crate) use mesh::{MAX_KERNELS, MAX_MESSAGE_SIZE, shapes_help};

/// Why nothing was run.
#[derive(Debug)]
enum UsageError {
    TooFewKernels { topology: Topology, given: usize },
    TooManyKernels { given: usize },
    MessageSize { given: usize },
    Input { path: String, why: io::Error },
    NotAFile { path: String },
    Output { path: String, why: io::Error },
    OutputIsInput { path: String },
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
            Self::Input { path, why } => write!(f, "cannot read {path}: {why}"),
            Self::NotAFile { path } => write!(f, "{path} is not a regular file"),
            Self::Output { path, why } => write!(f, "cannot write {path}: {why}"),
            Self::OutputIsInput { path } => write!(f, "{path} is both input and output: it would be overwritten"),
        }
    }
}

/// Everything that was decided before the mesh is set up.
#[derive(Debug)]
struct Plan {
    shape: &'static Shape,
    topology: Topology,
    kernels: usize,
    routes: Routes,
    /// Indices from the first kernel to the last.
    way: Vec<usize>,
    message_size: usize,
    window: usize,
    hop_limit: u8,
    tracing: bool,
    pin: bool,
    huge_pages: bool,
}

impl Plan {
    fn new(args: &RunArgs) -> Result<Self, UsageError> {
        let (topology, kernels) = (args.topology, args.kernels);
        if kernels < topology.min_kernels() {
            return Err(UsageError::TooFewKernels { topology, given: kernels });
        }
        if kernels > MAX_KERNELS {
            return Err(UsageError::TooManyKernels { given: kernels });
        }
        let size_fits = (1..=MAX_MESSAGE_SIZE).contains(&args.message_size);
        let mut shapes = SHAPES.iter().filter(|shape| kernels <= shape.kernels && args.message_size <= shape.payload);
        let shape = shapes.next().filter(|_| size_fits).ok_or(UsageError::MessageSize { given: args.message_size })?;
        let routes = Routes::new(topology, kernels);
        let way = routes.way(0, routes.farthest(0));
        // The first and the last kernel on the way do not pass anything on.
        let needed = u8::try_from(way.len() - 2).unwrap_or(u8::MAX).max(1);
        Ok(Self {
            shape,
            topology,
            kernels,
            routes,
            way,
            message_size: args.message_size,
            window: args.window.into(),
            hop_limit: args.hop_limit.unwrap_or(needed),
            tracing: args.tracing,
            pin: args.pin,
            huge_pages: args.huge_pages,
        })
    }
}

/// What is carried, and where to.
#[derive(Debug)]
enum Cargo {
    File { input: File, len: u64, output: File },
    Generated { lasts: Duration },
}

impl Cargo {
    fn new(args: &RunArgs) -> Result<Self, UsageError> {
        let Some(path) = &args.input else {
            return Ok(Self::Generated { lasts: Duration::from_secs_f64(args.duration.unwrap_or(1.0)) });
        };
        let input_error = |why| UsageError::Input { path: path.display().to_string(), why };
        // Before it is opened: a pipe would wait for its other end.
        let meta = fs::metadata(path).map_err(input_error)?;
        if !meta.is_file() {
            return Err(UsageError::NotAFile { path: path.display().to_string() });
        }
        let input = File::open(path).map_err(input_error)?;
        let output = match &args.output {
            Some(output) => create(output, path)?,
            None => tempfile::tempfile().map_err(|why| UsageError::Output { path: "a temporary file".into(), why })?,
        };
        Ok(Self::File { input, len: meta.len(), output })
    }
}

/// Opens the output, emptied, to write and to read again.
fn create(path: &Path, input: &Path) -> Result<File, UsageError> {
    let name = || path.display().to_string();
    match fs::metadata(path) {
        Ok(meta) if !meta.is_file() => return Err(UsageError::NotAFile { path: name() }),
        Ok(meta) if fs::metadata(input).is_ok_and(|input| (input.dev(), input.ino()) == (meta.dev(), meta.ino())) => {
            return Err(UsageError::OutputIsInput { path: name() });
        }
        Ok(_) | Err(_) => {}
    }
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(true);
    options.open(path).map_err(|why| UsageError::Output { path: name(), why })
}

/// Runs the job and prints what came of it.
pub(crate) fn main(args: &RunArgs) -> ExitCode {
    let planned = Plan::new(args).and_then(|plan| Ok((plan, Cargo::new(args)?)));
    let (plan, cargo) = match planned {
        Ok(planned) => planned,
        Err(e) => {
            eprintln!("k2k run: {e}");
            return ExitCode::from(2);
        }
    };
    match carry(args, &plan, cargo) {
        Ok(report) => print(args, &report),
        Err(e) => {
            eprintln!("k2k run: {e}");
            ExitCode::FAILURE
        }
    }
}

fn print(args: &RunArgs, report: &Report) -> ExitCode {
    if args.json {
        match serde_json::to_string_pretty(report) {
            Ok(json) => println!("{json}"),
            Err(e) => eprintln!("k2k run: {e}"),
        }
    } else if !args.quiet || !report.is_good() {
        print!("{}", report.render());
    }
    for problem in &report.problems {
        eprintln!("k2k run: {problem}");
    }
    if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Carries the cargo and looks at the result. An error says why the mesh could not be set up.
fn carry(args: &RunArgs, plan: &Plan, cargo: Cargo) -> Result<Report, String> {
    let size = plan.message_size;
    let (supply, arrivals, bar, files) = match cargo {
        Cargo::Generated { lasts } => {
            (Supply::generated(lasts, size), Arrivals::to_check(size), progress_bar(args, None), None)
        }
        Cargo::File { input, len, output } => {
            let clone = |file: &File| file.try_clone().map_err(|e| e.to_string());
            let (read, written) = (clone(&input)?, clone(&output)?);
            (
                Supply::file(read, size),
                Arrivals::to_file(written, size),
                progress_bar(args, Some(len)),
                Some((input, output)),
            )
        }
    };
    let carried = (plan.shape.carry)(plan, supply, arrivals, &bar)?;
    bar.finish_and_clear();
    if !args.json && !args.quiet {
        for notice in &carried.notices {
            eprintln!("k2k run: {notice}");
        }
    }
    let mut problems: Vec<String> = carried.problems.clone();
    problems.extend(carried.arrived.error.as_ref().map(ToString::to_string));
    let compared = match files {
        Some((input, output)) => compare(input, output).map_err(|e| format!("cannot compare output and input: {e}"))?,
        None => Ok(()),
    };
    let identical = compared.is_ok() && problems.is_empty() && carried.arrived.chunks == carried.fed.chunks;
    problems.extend(compared.err());
    Ok(report(args, plan, carried, identical, problems))
}

fn report(args: &RunArgs, plan: &Plan, carried: Carried, identical: bool, mut problems: Vec<String>) -> Report {
    let Carried { fed, arrived, stats, took, fabric, trace, .. } = carried;
    let accounting = Accounting::of(&stats);
    let losses = report::losses(&fed, &arrived, &accounting);
    let nothing_lost = losses.is_empty();
    problems.extend(losses);
    let Arrived { chunks, bytes, latency_ns, .. } = arrived;
    let mut report = Report {
        identical,
        nothing_lost,
        problems,
        input: args.input.as_ref().map(|path| path.display().to_string()),
        output: args.output.as_ref().map(|path| path.display().to_string()),
        topology: plan.topology.name(),
        mesh: plan.topology.describe(plan.kernels),
        kernels: plan.kernels,
        route: plan.way.clone(),
        message_size: plan.message_size,
        window: plan.window,
        fabric,
        messages: chunks,
        bytes,
        seconds: 0.0,
        hops: stats.sent + stats.forwarded,
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

/// Compares two files from their beginnings; an inner error says where they differ.
fn compare(input: File, output: File) -> io::Result<Result<(), String>> {
    let (mut input, mut output) = (rewound(input)?, rewound(output)?);
    let (mut expected, mut found) = ([0; 1 << 16], [0; 1 << 16]);
    let mut at = 0;
    loop {
        let (expect, find) = (fill(&mut input, &mut expected)?, fill(&mut output, &mut found)?);
        if expected[..expect] != found[..find] {
            let same = expected[..expect].iter().zip(&found[..find]).take_while(|(a, b)| a == b).count();
            return Ok(Err(format!("the output differs from the input from byte {} on", at + same as u64)));
        }
        if expect == 0 {
            return Ok(Ok(()));
        }
        at += expect as u64;
    }
}

fn rewound(mut file: File) -> io::Result<BufReader<File>> {
    use io::Seek;
    file.rewind()?;
    Ok(BufReader::new(file))
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match file.read(&mut buffer[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(len)
}

/// On standard error, and only if that is a terminal.
fn progress_bar(args: &RunArgs, len: Option<u64>) -> ProgressBar {
    if args.quiet {
        return ProgressBar::hidden();
    }
    let bar = match len {
        Some(len) => ProgressBar::new(len),
        None => ProgressBar::new_spinner(),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
    let template = match len {
        Some(_) => "{bar:40} {percent:>3}%  {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left",
        None => "{spinner} {bytes}  {bytes_per_sec}  {elapsed}",
    };
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, Write};

    fn file(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(content).and_then(|()| file.rewind()).expect("written");
        file
    }

    #[test]
    fn equal_files_are_equal() {
        for content in [&b""[..], b"a", &[7; 70_000]] {
            assert_eq!(compare(file(content), file(content)).expect("readable"), Ok(()));
        }
    }

    #[test]
    fn the_first_difference_is_named() {
        let mut other = [7; 70_000];
        other[66_000] = 8;
        for (a, b, at) in
            [(&b"abc"[..], &b"abd"[..], 2), (b"abc", b"ab", 2), (b"", b"x", 0), (&[7; 70_000], &other, 66_000)]
        {
            let message = format!("the output differs from the input from byte {at} on");
            assert_eq!(compare(file(a), file(b)).expect("readable"), Err(message));
        }
    }
}
