//! Checks and benchmarks of a device, as one command.
//!
//! | file | what |
//! | --- | --- |
//! | `item.rs` | the list of things to do: a quick pass over everything, then the long one |
//! | `isolate.rs` | each of them in a process of its own |
//! | `watch.rs` | an end to everything; how a process tells what it finds |
//! | `record.rs` | everything that was found, for machines |
//! | `machine.rs` | what the machine says of itself |

mod isolate;
mod item;
mod machine;
mod record;
mod watch;

use clap::builder::RangedI64ValueParser;
use core::time::Duration;
use item::{Item, Kind, Pass};
use k2k_command::{OutputError, READER_GONE, complain, note};
use k2k_cuda::{ClockOffset, Device, Error};
use k2k_gpu::bench::{self, BenchOptions, Row};
use k2k_gpu::check::{self, CheckOptions};
use record::Record;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;
use watch::{To, Watch};

/// The command's name in messages.
const NAME: &str = "k2k-gpu";

/// Exit statuses, beside 0 and clap's 2.
const FAILED: u8 = 1;
const USAGE: u8 = 2;
const NO_GPU: u8 = 3;
const TIME_IS_UP: u8 = 4;

/// Seconds after which nothing new is begun or waited for. Saying so takes up to five more.
const LIMIT: u64 = 290;

/// How long each wait may take in the quick pass, and how many messages there are.
const QUICK: Duration = Duration::from_secs(5);
const FEW: u64 = 10_000;

/// What is done without being told more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// Checks, then benchmarks.
    All,
    Benchmarks,
}

impl What {
    /// The command's word.
    const fn name(self) -> &'static str {
        match self {
            Self::All => "check",
            Self::Benchmarks => "bench",
        }
    }
}

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

    /// Show the kernels of each check and benchmark in a shared-memory file of this name while they run, for k2k top and
    /// k2k ls: also those that hang.
    #[arg(long, value_name = "NAME")]
    publish: Option<String>,

    /// How many messages each check sends, and each ring of a benchmark carries, 1 to 1000000000; by default a million,
    /// and some hundred without a GPU.
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = RangedI64ValueParser::<u64>::new().range(1..=1_000_000_000))]
    messages: Option<u64>,

    /// Seconds that each wait may take, 1 to 3600; by default 30, and 60 without a GPU. A kernel that hangs is reported
    /// after about that.
    #[arg(long, value_name = "SECS", allow_negative_numbers = true, value_parser = RangedI64ValueParser::<u64>::new().range(1..=3600))]
    patience: Option<u64>,

    /// Only those checks and benchmarks whose names contain this text (see --list), or another that is given so.
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,

    /// Only the checks.
    #[arg(long)]
    no_bench: bool,

    /// Only the quick pass, with few messages and little patience, that comes first on a GPU.
    #[arg(long)]
    quick: bool,

    /// End after this many seconds, 1 to 3600, whatever is unfinished.
    #[arg(long, value_name = "SECS", default_value_t = LIMIT, allow_negative_numbers = true)]
    #[arg(value_parser = RangedI64ValueParser::<u64>::new().range(1..=3600))]
    limit: u64,

    /// Each check and benchmark in a process of its own, so that one that hangs or crashes costs no other. The default
    /// on a GPU.
    #[arg(long)]
    isolate: bool,

    /// All in one process.
    #[arg(long, conflicts_with = "isolate")]
    no_isolate: bool,

    /// Seconds that each process may take, 1 to 3600, without the driver's compiler; by default three times the patience
    /// and ten.
    #[arg(long, value_name = "SECS", allow_negative_numbers = true, value_parser = RangedI64ValueParser::<u64>::new().range(1..=3600))]
    item_limit: Option<u64>,

    /// Before a process that hangs is killed, let the shell run this, with K2K_PID and K2K_ITEM in its environment.
    #[arg(long, value_name = "COMMAND", conflicts_with = "no_isolate")]
    on_hang: Option<String>,

    /// Go on from what is in the file of --json, if it is there: only what it has no result of is done.
    #[arg(long, requires = "json", conflicts_with = "no_isolate")]
    resume: bool,

    /// One thing alone, for the process that started this one.
    #[arg(long, hide = true)]
    item: Option<String>,

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
  k2k-gpu check --json results.json
  k2k-gpu check --json results.json --resume --limit 600
  k2k-gpu check --emulated --only 'fabric'";

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
        let device = self.open_unpublished()?;
        device.publish(self.publish.as_deref());
        Ok(device)
    }

    fn open_unpublished(&self) -> Result<Device, Error> {
        #[cfg(feature = "emulated")]
        if self.emulated {
            return Device::emulated(k2k_cuda::EmulatedOptions::default());
        }
        self.device.map_or_else(Device::first, Device::cuda)
    }

    fn wants(&self, name: &str) -> bool {
        let name = name.to_lowercase();
        self.only.is_empty() || self.only.iter().any(|only| name.contains(&only.to_lowercase()))
    }

    /// For the record.
    fn options(&self) -> serde_json::Value {
        let of = |pass| {
            let (checks, benchmarks) = (self.check_options(pass), self.bench_options(pass));
            json!({
                "messages_per_check": checks.messages,
                "patience_seconds": checks.patience.as_secs_f64(),
                "round_trips": benchmarks.trips,
                "messages_per_ring": benchmarks.messages,
                "blocks": benchmarks.blocks,
            })
        };
        let passes = self.passes().iter().map(|pass| (pass.name().to_owned(), of(*pass)));
        serde_json::Value::Object(passes.collect())
    }

    fn is_isolated(&self) -> bool {
        self.isolate || !self.no_isolate && !self.is_emulated()
    }

    fn passes(&self) -> &'static [Pass] {
        match (self.quick, self.is_isolated()) {
            (true, _) => &[Pass::Quick],
            (false, true) => &[Pass::Quick, Pass::Long],
            (false, false) => &[Pass::Long],
        }
    }

    fn plan(&self, what: What) -> Vec<Item> {
        let left_out = |kind| match kind {
            Kind::Benchmark => self.no_bench,
            Kind::Check => what == What::Benchmarks,
            Kind::Device => false,
        };
        Item::wanted(self.passes(), |item| self.wants(item.name) && !left_out(item.kind))
    }

    fn patience(&self, pass: Pass) -> Duration {
        let usual = if self.is_emulated() { 60 } else { 30 };
        let asked = Duration::from_secs(self.patience.unwrap_or(usual));
        if pass == Pass::Quick && !self.is_emulated() { asked.min(QUICK) } else { asked }
    }

    /// What an item may take, without compiling.
    fn item_limit(&self, pass: Pass) -> Duration {
        let asked = self.item_limit.map(Duration::from_secs);
        asked.unwrap_or_else(|| self.patience(pass) * 3 + Duration::from_secs(10))
    }

    fn check_options(&self, pass: Pass) -> CheckOptions {
        let usual = if self.is_emulated() { 200 } else { 1_000_000 };
        let asked = self.messages.unwrap_or(usual);
        let messages = if pass == Pass::Quick { asked.min(FEW) } else { asked };
        CheckOptions { messages, patience: self.patience(pass) }
    }

    fn bench_options(&self, pass: Pass) -> BenchOptions {
        let usual = if self.is_emulated() { BenchOptions::few() } else { BenchOptions::default() };
        let options =
            BenchOptions { messages: self.messages.unwrap_or(usual.messages), patience: self.patience(pass), ..usual };
        if pass == Pass::Long {
            return options;
        }
        BenchOptions {
            trips: options.trips.min(1000),
            messages: options.messages.min(FEW),
            idle: options.idle.min(Duration::from_millis(200)),
            ..options
        }
    }

    /// What the process for one item is started with.
    fn for_item(&self, item: Item) -> Vec<String> {
        let seconds = |duration: Duration| duration.as_secs().max(1).to_string();
        let CheckOptions { messages, patience } = self.check_options(item.pass);
        let mut all = vec!["--item".to_owned(), item.to_string()];
        // The number of messages of benchmarks is another, if none is asked for.
        if self.messages.is_some() {
            all.extend(["--messages".to_owned(), messages.to_string()]);
        }
        all.extend(["--patience".to_owned(), seconds(patience)]);
        all.extend(["--limit".to_owned(), seconds(self.item_limit(item.pass))]);
        all.extend(self.device.map(|device| format!("--device={device}")));
        all.extend(self.is_emulated().then(|| "--emulated".to_owned()));
        all.extend(self.publish.as_ref().map(|name| format!("--publish={name}")));
        all
    }
}

/// Does what is asked for.
pub(crate) fn main(args: &Args, what: What) -> ExitCode {
    if args.list {
        let checks = check::names().map(|name| format!("check      {name}\n"));
        let list: String = checks.chain(bench::names().map(|name| format!("benchmark  {name}\n"))).collect();
        return k2k_command::end(NAME, FAILED, k2k_command::print(list).map(|()| ExitCode::SUCCESS));
    }
    if let Some(item) = &args.item {
        return match Item::parse(item) {
            Some(item) => alone(args, item),
            None => {
                complain(NAME, format_args!("there is nothing called {item:?} to do"));
                ExitCode::from(USAGE)
            }
        };
    }
    let mut plan = args.plan(what);
    if plan.is_empty() {
        let only = args.only.iter().map(|only| format!("{only:?}")).collect::<Vec<_>>().join(" or ");
        let kind = if what == What::Benchmarks { "benchmark" } else { "check or benchmark" };
        complain(NAME, format_args!("no {kind} has {only} in its name: see --list"));
        return ExitCode::from(USAGE);
    }
    let mut record = Record::new(args.options());
    if let Some(path) = args.json.as_deref().filter(|path| args.resume && path.exists()) {
        match Record::read(path) {
            Ok(earlier) => {
                plan = earlier.left(plan);
                record = earlier.record;
                record.add_options(args.options());
            }
            Err(e) => {
                complain(NAME, e);
                return ExitCode::from(USAGE);
            }
        }
    }
    record.left.clone_from(&plan);
    // Before the first call of the driver, which may hang as well. Who starts a process for each item ends by itself.
    let limit = Duration::from_secs(args.limit) + if args.is_isolated() { 3 * watch::GRACE } else { Duration::ZERO };
    let watch = Watch::start(limit, To::Record(args.json.clone()), record);
    // Now rather than after five minutes. Until all is done the file says that it is not.
    if let Err(e) = watch.write() {
        complain(NAME, e);
        return ExitCode::from(USAGE);
    }
    if args.is_isolated() {
        let status = isolate::examine(args, what, &watch, plan);
        return match status {
            Some(status) => ExitCode::from(status),
            None => ExitCode::from(end(&watch)),
        };
    }
    watch.at("open the device");
    let device = match open(args) {
        Ok(device) => device,
        Err(status) => return ExitCode::from(status),
    };
    watch.look_at(&device);
    if describe(&device, &watch) {
        examine(args, &device, &watch, &plan);
    } else {
        watch.record(|record| record.end(Item::DEVICE, json!({ "item": Item::DEVICE.to_string(), "ended": "badly" })));
    }
    let status = end(&watch);
    if device.is_busy() {
        // The driver's own end would wait for kernels that hang.
        k2k_cuda::abandon(status);
    }
    ExitCode::from(status)
}

/// The last lines, and the exit status.
fn end(watch: &Watch) -> u8 {
    let (failed, finished) = watch.record(|record| (record.has_failed(), record.left.is_empty()));
    let mut status = match (failed, finished) {
        (true, _) => FAILED,
        (false, true) => 0,
        (false, false) => TIME_IS_UP,
    };
    say(format_args!("\n{} in {:.1} s", verdict(status), watch.elapsed().as_secs_f64()));
    if let Err(e) = watch.write() {
        complain(NAME, e);
        status = FAILED;
    }
    match UNWRITTEN.get() {
        Some(e) if e.reader_is_gone() => READER_GONE,
        Some(e) => {
            complain(NAME, e);
            FAILED
        }
        None => status,
    }
}

const fn verdict(status: u8) -> &'static str {
    match status {
        0 => "all passed",
        TIME_IS_UP => "not finished",
        _ => "FAILED",
    }
}

/// Opens the device, or says why not and returns the exit status.
fn open(args: &Args) -> Result<Device, u8> {
    args.open().map_err(|e| {
        complain(NAME, &e);
        if cfg!(feature = "emulated") && e.is_no_gpu() {
            note("To try it without a GPU: k2k-gpu check --emulated");
        }
        NO_GPU
    })
}

/// Says what the device is, and runs a kernel on it: whether that went well.
fn describe(device: &Device, watch: &Watch) -> bool {
    watch.line(format_args!("{}\n  placement                 {}", device.probe(), device.placement()));
    watch.at("measure the device's clock");
    match ClockOffset::measure(device) {
        Ok(clock) => {
            watch.line(format_args!("  a kernel ran              clock known to within {} ns\n", clock.error_ns));
            watch.tell(&record::device(device, &clock));
            true
        }
        Err(e) => {
            complain(NAME, e);
            false
        }
    }
}

/// One item, and news of it for the process that started this one.
fn alone(args: &Args, item: Item) -> ExitCode {
    let watch = Watch::start(Duration::from_secs(args.limit), To::Parent, Record::default());
    watch.at("open the device");
    let device = match open(args) {
        Ok(device) => device,
        Err(status) => return ExitCode::from(status),
    };
    watch.look_at(&device);
    watch.at("its work");
    let well = if item.kind == Kind::Device {
        describe(&device, &watch)
    } else {
        perform(args, &device, &watch, item);
        true
    };
    if device.is_busy() {
        device.at_work().iter().for_each(|block| watch.line(block));
        watch.give_up("it left kernels that do not end");
    }
    // The driver's own end is a thing that may hang, too.
    watch.at("end");
    watch.look_away();
    drop(device);
    ExitCode::from(if well { 0 } else { FAILED })
}

/// Runs what is wanted, all in this process.
fn examine(args: &Args, device: &Device, watch: &Watch, plan: &[Item]) {
    let mut kind = Kind::Check;
    for item in plan {
        let nobody_learns = args.json.is_none() && UNWRITTEN.get().is_some();
        if nobody_learns || device.is_lost() || !watch.has_time() {
            break;
        }
        if kind != item.kind {
            watch.line(format_args!("\n{}", Row::head()));
            kind = item.kind;
        }
        watch.at(item.name);
        watch.record(|record| record.begin(*item));
        let (began, compiled) = (watch.elapsed(), watch.compiled());
        perform(args, device, watch, *item);
        let ended = json!({
            "item": item.to_string(),
            "ended": "well",
            "seconds": (watch.elapsed() - began).as_secs_f64(),
            "compile_seconds": watch.compiled() - compiled,
        });
        watch.record(|record| record.end(*item, ended));
        if let Err(e) = watch.write() {
            complain(NAME, e);
        }
    }
    if kind == Kind::Benchmark && !device.probe().is_gpu {
        watch.line("These are times of the CPU in a GPU's place: they mean nothing.");
    }
    if device.is_lost() {
        watch.line("The device is lost: since a fault, every call fails. What came after it was not tried.");
    }
    watch.at("end");
}

/// One check or benchmark.
fn perform(args: &Args, device: &Device, watch: &Watch, item: Item) {
    match item.kind {
        Kind::Device => {}
        Kind::Check => {
            let tell = |result: &check::CheckResult| watch.tell(&record::check_result(result, item));
            check::run_some(device, args.check_options(item.pass), |name| name == item.name, tell);
        }
        Kind::Benchmark => {
            let tell = |row: &Row| watch.tell(&record::row(row, item));
            bench::run_some(device, args.bench_options(item.pass), |name| name == item.name, tell);
        }
    }
}
