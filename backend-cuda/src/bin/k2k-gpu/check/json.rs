//! Everything that was found, for machines.

use k2k_cuda::bench::{BenchOptions, Missing, Row, Target};
use k2k_cuda::check::{CheckOptions, CheckResult};
use k2k_cuda::{ClockOffset, Device};
use serde_json::{Map, Value, json};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// What was done so far.
#[derive(Default)]
pub(super) struct Record {
    /// Device, machine, options.
    head: Map<String, Value>,
    pub(super) checks: Vec<CheckResult>,
    pub(super) rows: Vec<Row>,
    /// What time was too short for.
    pub(super) unfinished: Vec<&'static str>,
}

impl Record {
    pub(super) fn new(
        device: &Device,
        clock: Option<ClockOffset>,
        checks: CheckOptions,
        benchmarks: BenchOptions,
    ) -> Self {
        let probe = device.probe();
        let mut head = Map::new();
        let mut put = |name: &str, value: Value| head.insert(name.to_owned(), value);
        put("tool", json!({ "name": "k2k-gpu-check", "version": env!("CARGO_PKG_VERSION") }));
        put("date", json!(date()));
        put("host", json!({ "processor": processor(), "kernel": kernel(), "cores": cores() }));
        put(
            "device",
            json!({
                "name": probe.name,
                "is_gpu": probe.is_gpu,
                "compute_capability": probe.capability.to_string(),
                "driver_for_cuda": probe.driver.to_string(),
                "multiprocessors": probe.multiprocessors,
                "memory_bytes": probe.memory,
                "host_atomics": probe.host_atomics,
                "cooperative_launch": probe.cooperative_launch,
                "pci": probe.pci,
                "numa_node": probe.numa_node,
                "placement": device.placement().to_string(),
                "clock_error_ns": clock.map(|clock| clock.error_ns),
            }),
        );
        put(
            "options",
            json!({
                "messages_per_check": checks.messages,
                "round_trips": benchmarks.trips,
                "messages_per_ring": benchmarks.messages,
                "blocks": benchmarks.blocks,
            }),
        );
        Self { head, ..Self::default() }
    }

    fn to_json(&self) -> Value {
        let mut all = self.head.clone();
        let checks = self.checks.iter().map(|check| {
            let (Ok(text) | Err(text)) = &check.outcome;
            json!({ "name": check.name, "passed": check.passed(), "text": text, "seconds": check.took.as_secs_f64() })
        });
        all.insert("checks".to_owned(), checks.collect());
        all.insert("benchmarks".to_owned(), self.rows.iter().map(row).collect());
        all.insert("unfinished".to_owned(), json!(self.unfinished));
        Value::Object(all)
    }

    /// Writes the file, if there is to be one.
    pub(super) fn write(&self, path: Option<&Path>) -> Result<(), String> {
        let Some(path) = path else { return Ok(()) };
        let text = format!("{:#}\n", self.to_json());
        std::fs::write(path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))
    }
}

fn row(row: &Row) -> Value {
    let mut all = Map::new();
    let mut put = |name: &str, value: Value| all.insert(name.to_owned(), value);
    put("benchmark", json!(row.benchmark));
    put("figure", json!(row.name));
    match &row.figure {
        Ok(figure) => {
            put("value", json!(figure.value));
            put("unit", json!(figure.unit.to_string()));
            if let Some(floor) = &figure.floor {
                put("floor", json!({ "name": floor.name, "value": floor.value }));
            }
            put("ratio", json!(figure.ratio()));
            let details = figure.details.iter().map(|(name, value)| ((*name).to_owned(), json!(value)));
            put("details", Value::Object(details.collect()));
        }
        Err(Missing::Failed(why)) => drop(put("failed", json!(why))),
        Err(why) => drop(put("missing", json!(why.to_string()))),
    }
    if let Some(target) = row.target {
        let target = match target {
            Target::AtMost(value) => json!({ "at_most": value }),
            Target::AtLeast(value) => json!({ "at_least": value }),
            Target::TimesFloor(value) => json!({ "at_most_times_floor": value }),
        };
        put("target", target);
        put("verdict", json!(row.verdict().map(|verdict| verdict.to_string())));
    }
    Value::Object(all)
}

fn processor() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn kernel() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    Some(text.trim().to_owned())
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Day, without a library: days since 1970 to the civil calendar.
fn date() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as i64;
    let days = seconds / 86_400 + 719_468;
    let era = days / 146_097;
    let day_of_era = days - era * 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}
