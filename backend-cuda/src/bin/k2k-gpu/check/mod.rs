//! Checks and benchmarks of a device, as one command.

mod json;
mod watch;

use clap::builder::RangedI64ValueParser;
use core::time::Duration;
use json::Record;
use k2k_command::{OutputError, complain, note};
use k2k_cuda::bench::{self, BenchOptions, Row};
use k2k_cuda::check::{self, CheckOptions};
use k2k_cuda::{ClockOffset, Device, Error};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;
use watch::Watch;

/// The command's name in messages.
const NAME: &str = "k2k-gpu-check";

/// Exit statuses, beside 0 and clap's 2.
const FAILED: u8 = 1;
const USAGE: u8 = 2;
const NO_GPU: u8 = 3;
const TIME_IS_UP: u8 = 4;

/// Seconds after which nothing new is begun or waited for. Saying so takes up to five more.
const LIMIT: u64 = 290;

/// How long each wait may take. A kernel that hangs is reported after about that.
const PATIENCE: Duration = Duration::from_secs(60);

/// What to check and measure.
#[derive(clap::Args, Debug)]
#[command(after_long_help = EXIT_STATUS)]
pub(crate) struct Args {
    /// Write everything that was found to this file, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Which GPU, counted from 0; by default the first that will do.
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(0..))]
    device: Option<u32>,

    /// Use a device that runs the same PTX on the CPU, with few messages. Its times mean nothing.
    #[cfg(feature = "emulated")]
    #[arg(long, conflicts_with = "device")]
    emulated: bool,

    /// How many messages each check sends, and each ring of a benchmark carries, 1 to 1000000000; by default a million,
    /// and some hundred without a GPU.
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = RangedI64ValueParser::<u64>::new().range(1..=1_000_000_000))]
    messages: Option<u64>,

    /// Only those checks and benchmarks whose names contain this text (see --list).
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,

    /// Only the checks.
    #[arg(long)]
    no_bench: bool,

    /// End after this many seconds, 1 to 290, whatever is unfinished.
    #[arg(long, value_name = "SECS", default_value_t = LIMIT, allow_negative_numbers = true)]
    #[arg(value_parser = RangedI64ValueParser::<u64>::new().range(1..=LIMIT as i64))]
    limit: u64,

    /// Print the names of all checks and benchmarks, and do nothing else.
    #[arg(long)]
    list: bool,
}

const EXIT_STATUS: &str = "Exit status:
    0  every check passed and every benchmark ran
    1  something failed
    2  the command line is no good; nothing was run
    3  there is no GPU that will do; the message says what is missing
    4  time was up before all was done
  141  nobody reads standard output any more; without --json, the rest was left out

Examples:
  k2k-gpu-check --json results.json
  k2k-gpu-check --emulated --only 'fabric'";

/// A line of standard output. The first error is kept for the [end](main), since what is measured is worth more than the
/// lines if it is also written to a file.
fn say(line: impl core::fmt::Display) {
    if let Err(e) = k2k_command::say!("{line}") {
        let _ = UNWRITTEN.set(e);
    }
}

/// Why a line could not be written.
static UNWRITTEN: OnceLock<OutputError> = OnceLock::new();

impl Args {
    #[cfg(feature = "emulated")]
    const fn is_emulated(&self) -> bool {
        self.emulated
    }

    #[cfg(not(feature = "emulated"))]
    const fn is_emulated(&self) -> bool {
        false
    }

    fn open(&self) -> Result<Device, Error> {
        #[cfg(feature = "emulated")]
        if self.emulated {
            return Device::emulated(k2k_cuda::EmulatedOptions::default());
        }
        self.device.map_or_else(Device::first, Device::cuda)
    }

    fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.to_lowercase().contains(&only.to_lowercase()))
    }

    fn check_options(&self) -> CheckOptions {
        let usual = if self.is_emulated() { 200 } else { 1_000_000 };
        CheckOptions { messages: self.messages.unwrap_or(usual), patience: PATIENCE }
    }

    fn bench_options(&self) -> BenchOptions {
        let usual = if self.is_emulated() { BenchOptions::few() } else { BenchOptions::default() };
        BenchOptions { messages: self.messages.unwrap_or(usual.messages), patience: PATIENCE / 2, ..usual }
    }

    fn benchmarks(&self) -> impl Iterator<Item = &'static str> {
        bench::names().filter(|_| !self.no_bench)
    }
}

pub(crate) fn main(args: &Args) -> ExitCode {
    if args.list {
        let checks = check::names().map(|name| format!("check      {name}\n"));
        let list: String = checks.chain(bench::names().map(|name| format!("benchmark  {name}\n"))).collect();
        return k2k_command::end(NAME, FAILED, k2k_command::print(list).map(|()| ExitCode::SUCCESS));
    }
    if !check::names().chain(args.benchmarks()).any(|name| args.wants(name)) {
        let only = args.only.as_deref().unwrap_or_default();
        complain(NAME, format_args!("no check or benchmark has {only:?} in its name: see --list"));
        return ExitCode::from(USAGE);
    }
    // Before the first call of the driver, which may hang as well.
    let watch = Watch::start(Duration::from_secs(args.limit), args.json.clone());
    // Now rather than after five minutes. Until all is done the file says that it is not.
    watch.record(|record| record.unfinished.push("open the device"));
    if let Err(e) = watch.write() {
        complain(NAME, e);
        return ExitCode::from(USAGE);
    }
    watch.at("open the device");
    let device = match args.open() {
        Ok(device) => device,
        Err(e) => {
            complain(NAME, &e);
            if cfg!(feature = "emulated") && e.is_no_gpu() {
                note("To try it without a GPU: k2k-gpu-check --emulated");
            }
            return ExitCode::from(NO_GPU);
        }
    };
    watch.look_at(&device);
    let status = examine(args, &device, &watch);
    say(format_args!("{} in {:.1} s", verdict(status), watch.elapsed().as_secs_f64()));
    let mut status = status;
    if let Err(e) = watch.write() {
        complain(NAME, e);
        status = FAILED;
    }
    match UNWRITTEN.get() {
        Some(e) if e.reader_is_gone() => status = k2k_command::READER_GONE,
        Some(e) => {
            complain(NAME, e);
            status = FAILED;
        }
        None => {}
    }
    if device.is_busy() {
        // The driver's own end would wait for kernels that hang.
        watch::leave(status);
    }
    ExitCode::from(status)
}

const fn verdict(status: u8) -> &'static str {
    match status {
        0 => "all passed",
        TIME_IS_UP => "not finished: time was up",
        _ => "FAILED",
    }
}

/// Runs all that is wanted, and returns the exit status.
fn examine(args: &Args, device: &Device, watch: &Watch) -> u8 {
    say(format_args!("{}\n  placement                 {}", device.probe(), device.placement()));
    watch.at("measure the device's clock");
    let clock = ClockOffset::measure(device);
    match &clock {
        Ok(clock) => say(format_args!("  a kernel ran              clock known to within {} ns\n", clock.error_ns)),
        Err(e) => {
            complain(NAME, e);
            return FAILED;
        }
    }
    watch.record(|record| *record = Record::new(device, clock.ok(), args.check_options(), args.bench_options()));
    // Asked when a check's or a benchmark's turn has come.
    let begin = |name: &'static str| {
        if !args.wants(name) || !watch.has_time(name) {
            return false;
        }
        if args.json.is_none() && UNWRITTEN.get().is_some() {
            // Nobody will learn of it.
            watch.record(|record| record.unfinished.push(name));
            return false;
        }
        let lost = device.is_lost();
        if lost {
            watch.record(|record| record.unfinished.push(name));
        } else {
            watch.at(name);
        }
        !lost
    };
    check::run_some(device, args.check_options(), begin, |result| {
        say(result);
        watch.record(|record| record.checks.push(result.clone()));
    });
    if args.benchmarks().any(|name| args.wants(name)) {
        say(format_args!("\n{}", Row::head()));
        bench::run_some(device, args.bench_options(), begin, |row| {
            say(row);
            watch.record(|record| record.rows.push(row.clone()));
        });
        if !device.probe().is_gpu {
            say("These are times of the CPU in a GPU's place: they mean nothing.");
        }
    }
    if device.is_lost() {
        say("The device is lost: since a fault, every call fails. What came after it was not tried.");
    }
    say("");
    watch.at("end");
    watch.status()
}
