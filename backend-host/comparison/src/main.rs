//! K2K's rings and endpoints against the queues that a user would pick instead, and against what the machine allows,
//! all in one run. `NOTES.md` says how it measures and how to read it.

mod bench;
mod columns;
mod element;
mod machine;
mod peers;
mod plot;
mod queue;
mod report;
mod rows;
mod sample;
mod stats;

use clap::Parser;
use columns::Column;
use k2k_command::{complain, note, say};
use report::{ColumnResult, Machine, Report, RowResult};
use rows::Row;
use sample::{Sample, Setting};
use std::error::Error;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Compares K2K's rings and endpoints with other queues. Prints markdown.
#[derive(Default, Parser)]
#[command(version, max_term_width = 100)]
struct Args {
    /// Fewer columns, rounds and repetitions: under a minute.
    #[arg(long)]
    quick: bool,
    /// Only columns whose names contain one of these.
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    only: Vec<String>,
    /// Only rows whose names contain one of these (always with the floors that match).
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    rows: Vec<String>,
    /// The columns' names.
    #[arg(long)]
    list: bool,
    /// Writes everything that was measured.
    #[arg(long, value_name = "FILE")]
    json: Option<String>,
    /// Measures nothing: reads such a file.
    #[arg(long, value_name = "FILE")]
    from: Option<String>,
    /// Draws the columns for the README.
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<String>,
}

/// The command's name in messages.
const NAME: &str = "k2k-comparison";

fn main() -> ExitCode {
    // Some queues are made on the stack, with 65536 messages of 256 bytes.
    let args = match k2k_command::parse::<Args>(NAME) {
        Ok(args) => args,
        Err(status) => return status,
    };
    let work = move || k2k_command::end(NAME, 1, run(&args).map(|()| ExitCode::SUCCESS));
    let thread = std::thread::Builder::new().stack_size(256 << 20).spawn(work);
    thread.expect("a thread").join().unwrap_or(ExitCode::FAILURE)
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let wanted = |column: &Column| {
        let named = args.only.iter().any(|part| column.id.contains(part.as_str()));
        if args.only.is_empty() { !(args.quick && column.full_only) } else { named }
    };
    let cores = machine::cores();
    let columns: Vec<Column> = columns::columns(cores.len()).into_iter().filter(wanted).collect();
    if columns.is_empty() {
        return Err(format!("no column has {} in its name: --list shows them all", args.only.join(" or ")).into());
    }
    if args.list {
        let list: String = columns.iter().map(|column| format!("{:28} {}\n", column.id, column.title)).collect();
        return Ok(k2k_command::print(list)?);
    }
    let report = match &args.from {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
            serde_json::from_str(&text).map_err(|e| format!("{path} was not written by --json: {e}"))?
        }
        None => measure(args, &columns, cores)?,
    };
    // The files first: a measurement takes minutes, and must not be lost for want of a reader.
    if let Some(path) = &args.json {
        let text = serde_json::to_string(&report).map_err(|e| e.to_string())?;
        std::fs::write(path, text).map_err(|e| format!("{path}: {e}"))?;
    }
    if let Some(path) = &args.plot {
        plot::draw(&report, path)?;
    }
    Ok(say!("{report}")?)
}

fn measure(args: &Args, columns: &[Column], cores: Vec<core_affinity::CoreId>) -> Result<Report, String> {
    let complaints = report::complaints();
    for complaint in &complaints {
        complain("WARNING", complaint);
    }
    machine::calibrate();
    let (clock_step_ns, clock_cost_ns) = machine::granularity();
    let setting = if args.quick {
        Setting { cores, sample_ns: 5e5, rounds: 5, repeats: 2, column_ns: 2.5e9 }
    } else {
        Setting { cores, sample_ns: 4e6, rounds: 15, repeats: 4, column_ns: 1.5e10 }
    };
    let (load_before, stolen_before, start) = (machine::load(), machine::stolen(), Instant::now());
    let mut results = Vec::new();
    // A competitor that stands still panics, and is reported as failed: no need for its backtrace.
    std::panic::set_hook(Box::new(|_| {}));
    std::thread::spawn(watch);
    for (i, column) in columns.iter().enumerate() {
        let took = start.elapsed().as_secs_f64();
        note(format_args!("{:3}/{} {took:5.0} s  {}", i + 1, columns.len(), column.id));
        results.push(measure_column(column, &args.rows, &setting));
    }
    let stolen = match (stolen_before, machine::stolen()) {
        (Some(before), Some(after)) if after.0 > before.0 => {
            Some((after.1 - before.1) as f64 / (after.0 - before.0) as f64)
        }
        _ => None,
    };
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    for complaint in &complaints {
        complain("WARNING", complaint);
    }
    let machine = Machine {
        processor: machine::processor(),
        cores: setting.cores.len(),
        date: k2k_command::date()[..10].to_owned(),
        command: format!("cargo run --release -- {}", arguments.join(" ")),
        quick: args.quick,
        load_before,
        load_after: machine::load(),
        stolen,
        clock_step_ns,
        clock_cost_ns,
        seconds: start.elapsed().as_secs_f64(),
        versions: machine::versions(),
    };
    Ok(Report { machine, columns: results })
}

/// What is being measured, and since when: see [`watch`].
static CURRENT: Mutex<Option<(Instant, String)>> = Mutex::new(None);

/// Ends the run when a competitor sleeps and nobody wakes it: threads cannot be stopped from outside.
fn watch() {
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let current = CURRENT.lock().unwrap_or_else(|e| e.into_inner());
        if let Some((since, name)) = &*current
            && since.elapsed() > Duration::from_secs(60)
        {
            complain(NAME, format_args!("{name} has hung for a minute: leave it out with --rows or --only"));
            std::process::exit(4);
        }
    }
}

fn current(column: &Column, row: &str) {
    *CURRENT.lock().unwrap_or_else(|e| e.into_inner()) = Some((Instant::now(), format!("{}: {row}", column.id)));
}

/// One row on its way through the rounds.
struct Contender {
    row: Row,
    samples: Vec<Sample>,
    failed: Option<String>,
}

fn measure_column(column: &Column, wanted: &[String], setting: &Setting) -> ColumnResult {
    let start = Instant::now();
    let over = |share: f64| start.elapsed().as_nanos() as f64 > setting.column_ns * share;
    let mut contenders: Vec<Contender> = (column.make)(wanted)
        .into_iter()
        .map(|mut row| {
            current(column, row.name);
            let failed = row.sampler.prepare(setting).err();
            Contender { row, samples: Vec::new(), failed }
        })
        .collect();
    let mut rounds = 0;
    while rounds < 2 * setting.rounds && (rounds < 3 || !over(1.0)) {
        // After the regular rounds, only rows that have lost more than half of their samples to other distances.
        let window = window(&contenders);
        let kept = |c: &Contender| c.samples.iter().filter(|sample| stats::belongs(sample, window)).count();
        let poor = |c: &Contender| rounds < setting.rounds || 2 * kept(c) < setting.rounds;
        let due: Vec<bool> = contenders.iter().map(|c| c.failed.is_none() && poor(c)).collect();
        if !due.contains(&true) {
            break;
        }
        // Every row once per round, each round beginning with another, so that none always follows the same one.
        let count = contenders.len();
        for i in (rounds..rounds + count).map(|i| i % count) {
            let contender = &mut contenders[i];
            if !due[i] {
                continue;
            }
            current(column, contender.row.name);
            match clean_sample(contender, setting, over(2.0)) {
                Ok(sample) => contender.samples.push(sample),
                Err(reason) => contender.failed = Some(reason),
            }
        }
        rounds += 1;
    }
    let window = window(&contenders);
    let mut left_out = 0;
    let rows = contenders.into_iter().map(|contender| {
        let Contender { row, samples, failed } = contender;
        let raw = samples.iter().map(|sample| (sample.values.clone(), sample.distance)).collect();
        let (kept, other): (Vec<Sample>, Vec<Sample>) = samples.into_iter().partition(|s| stats::belongs(s, window));
        left_out += other.len();
        let metric = |i: usize| stats::quartiles(kept.iter().map(|sample| sample.values[i]).collect());
        RowResult {
            name: row.name.to_owned(),
            kind: row.kind,
            metrics: (0..column.metrics.len()).filter_map(metric).collect(),
            samples: kept.len(),
            dirty: kept.iter().filter(|sample| sample.preempted).count(),
            failed,
            raw,
        }
    });
    let rows = rows.collect();
    let metrics = column.metrics.iter().map(|metric| (*metric).to_owned()).collect();
    ColumnResult { id: column.id.clone(), title: column.title.clone(), metrics, window, left_out, rounds, rows }
}

fn window(contenders: &[Contender]) -> Option<(f64, f64)> {
    stats::window(contenders.iter().flat_map(|contender| &contender.samples))
}

/// Repeats a sample in which a thread was preempted, so often as the setting says.
fn clean_sample(contender: &mut Contender, setting: &Setting, hurry: bool) -> Result<Sample, String> {
    let mut sample = contender.row.sampler.sample(setting)?;
    for _ in 0..if hurry { 0 } else { setting.repeats } {
        if !sample.preempted {
            break;
        }
        sample = contender.row.sampler.sample(setting)?;
    }
    Ok(sample)
}
