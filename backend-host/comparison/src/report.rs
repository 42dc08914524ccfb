//! The result: what is written as JSON, and as markdown for people.

use crate::machine;
use crate::rows::Kind;
use crate::stats::Quartiles;
use core::fmt::{self, Write};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    pub machine: Machine,
    pub columns: Vec<ColumnResult>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Machine {
    pub processor: String,
    pub cores: usize,
    pub date: String,
    pub command: String,
    pub quick: bool,
    pub load_before: Option<f64>,
    pub load_after: Option<f64>,
    /// Share of processor time that the hypervisor gave to others while this ran.
    pub stolen: Option<f64>,
    pub clock_step_ns: f64,
    pub clock_cost_ns: f64,
    pub seconds: f64,
    pub versions: Vec<(String, String)>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct ColumnResult {
    pub id: String,
    pub title: String,
    pub metrics: Vec<String>,
    /// The distances, ns, of the samples that count.
    pub window: Option<(f64, f64)>,
    /// Samples that were left out because the cores were at another distance.
    pub left_out: usize,
    pub rounds: usize,
    pub rows: Vec<RowResult>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct RowResult {
    pub name: String,
    pub kind: Kind,
    /// One per metric; empty if all samples were left out.
    pub metrics: Vec<Quartiles>,
    pub samples: usize,
    /// Of these, how many were taken although a thread was preempted in each repetition.
    pub dirty: usize,
    /// Why there are no numbers.
    pub failed: Option<String>,
    /// What was measured: values, then the distance before and after.
    pub raw: Vec<Raw>,
}

/// Values, distances.
pub type Raw = (Vec<f64>, Option<(f64, f64)>);

impl RowResult {
    pub fn median(&self, metric: usize) -> Option<f64> {
        self.metrics.get(metric).map(|q| q.median)
    }
}

impl ColumnResult {
    /// The lowest median of the rows of a kind.
    pub fn best(&self, kind: Kind, metric: usize) -> Option<&RowResult> {
        let rows = self.rows.iter().filter(|row| row.kind == kind && row.median(metric).is_some());
        rows.min_by(|a, b| a.median(metric).unwrap_or(f64::NAN).total_cmp(&b.median(metric).unwrap_or(f64::NAN)))
    }

    /// The column's floor: the lowest of the floor rows whose names begin with the same word as the first's (lines can
    /// be streamed in several ways; a bounced word is no message).
    pub fn floor(&self) -> Option<&RowResult> {
        fn word(row: &RowResult) -> Option<&str> {
            row.name.split([' ', ',']).next()
        }
        let floors = || self.rows.iter().filter(|row| row.kind == Kind::Floor);
        let first = floors().next()?;
        let family = floors().filter(|row| word(row) == word(first) && !row.metrics.is_empty());
        family.min_by(|a, b| a.median(0).unwrap_or(f64::NAN).total_cmp(&b.median(0).unwrap_or(f64::NAN)))
    }
}

/// Above this the machine counts as busy: the threads that are measured make a load of their own of up to two.
pub const BUSY: f64 = 0.5;

/// Three significant digits.
fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "- {} with {} cores, {}", self.processor, self.cores, self.date)?;
        writeln!(f, "- `{}`, {:.0} s", self.command, self.seconds)?;
        let load = |load: Option<f64>| load.map_or("unknown".to_owned(), |load| format!("{load:.2}"));
        write!(f, "- load average {} before, {} after", load(self.load_before), load(self.load_after))?;
        if let Some(stolen) = self.stolen {
            write!(f, "; {:.1} % of the time stolen by the hypervisor", stolen * 100.0)?;
        }
        writeln!(f)?;
        let clock =
            if cfg!(target_arch = "x86_64") { "raw time stamp counter" } else { "the system's monotonic clock" };
        writeln!(
            f,
            "- latencies by {clock}: steps of {:.1} ns, {:.1} ns a reading (not subtracted)",
            self.clock_step_ns, self.clock_cost_ns
        )?;
        let versions: Vec<String> = self.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
        writeln!(f, "- {}", versions.join(", "))?;
        writeln!(
            f,
            "- a 64-byte message of ours is a stamp and 56 bytes, one line; a 256-byte one a stamp and 248 bytes; peers \
             carry 64 and 256 bytes, aligned to lines (in columns named 56: 56 bytes, as ours)"
        )?;
        if self.load_before.is_some_and(|load| load > BUSY) {
            writeln!(f, "\n**The machine was busy: these numbers say little.**")?;
        }
        Ok(())
    }
}

impl fmt::Display for ColumnResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "### {} (`{}`)\n", self.title, self.id)?;
        let samples: usize = self.rows.iter().map(|row| row.samples).sum();
        let dirty: usize = self.rows.iter().map(|row| row.dirty).sum();
        if let Some((low, high)) = self.window {
            write!(f, "Cores {low:.0} to {high:.0} ns apart; {} samples at other distances left out. ", self.left_out)?;
        }
        writeln!(f, "{} rounds; {dirty} of {samples} samples preempted.\n", self.rounds)?;
        write!(f, "| |")?;
        for metric in &self.metrics {
            write!(f, " {metric} | quartiles |")?;
        }
        writeln!(f, " to floor | to best peer | samples |")?;
        writeln!(f, "|---|{}---:|---:|---:|", "---:|---:|".repeat(self.metrics.len()))?;
        let mut rows: Vec<&RowResult> = self.rows.iter().collect();
        let key = |row: &RowResult| (row.kind != Kind::Floor, row.median(0).unwrap_or(f64::INFINITY));
        rows.sort_by(|a, b| key(a).0.cmp(&key(b).0).then(key(a).1.total_cmp(&key(b).1)));
        let floor = self.floor().and_then(|row| row.median(0));
        let peer = self.best(Kind::Peer, 0).and_then(|row| row.median(0));
        for row in rows {
            self.row(f, row, floor, peer)?;
        }
        Ok(())
    }
}

impl ColumnResult {
    fn row(&self, f: &mut fmt::Formatter<'_>, row: &RowResult, floor: Option<f64>, peer: Option<f64>) -> fmt::Result {
        match row.kind {
            Kind::Ours => write!(f, "| **{}** |", row.name)?,
            Kind::Floor => write!(f, "| *{}* |", row.name)?,
            Kind::Peer => write!(f, "| {} |", row.name)?,
        }
        if let Some(reason) = &row.failed {
            return writeln!(f, " failed: {reason} |{}", " |".repeat(2 * self.metrics.len() + 2));
        }
        for i in 0..self.metrics.len() {
            match row.metrics.get(i) {
                Some(q) => write!(f, " {} | {}–{} |", short(q.median), short(q.q1), short(q.q3))?,
                None => f.write_str(" – | – |")?,
            }
        }
        let ratio = |to: Option<f64>| match (row.median(0), to) {
            (Some(median), Some(to)) if to > 0.0 => format!("{:.2}", median / to),
            _ => String::new(),
        };
        let dirty = if row.dirty > 0 { format!(" ({} preempted)", row.dirty) } else { String::new() };
        writeln!(f, " {} | {} | {}{dirty} |", ratio(floor), ratio(peer), row.samples)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# Comparison\n\n{}", self.machine)?;
        let mut group = "";
        for column in &self.columns {
            let this = column.id.split('/').next().unwrap_or_default();
            if this != group {
                writeln!(f, "## {this}\n")?;
                group = this;
            }
            writeln!(f, "{column}")?;
        }
        f.write_char('\n')
    }
}

/// Complaints about the conditions, to be read before the numbers.
pub fn complaints() -> Vec<String> {
    let mut all = Vec::new();
    match machine::load() {
        Some(load) if load > BUSY => all.push(format!(
            "load average {load:.2}: other work disturbs every number here; wait until it is below {BUSY}"
        )),
        Some(_) => {}
        None => all.push("the load average is unknown".to_owned()),
    }
    let cores = machine::cores().len();
    if cores < 2 {
        all.push(format!("{cores} core: two threads take turns on it, and nothing here is about queues"));
    }
    if cfg!(debug_assertions) {
        all.push("built without optimisation: use --release".to_owned());
    }
    let governor = std::fs::read_to_string("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
    if governor.is_ok_and(|governor| governor.trim() != "performance") {
        all.push("the frequency governor is not `performance`".to_owned());
    }
    all
}
