//! Everything that was found, for machines.
//!
//! It is taken from [news](super::watch), small JSON objects that say one thing each: so it is all one whether an item ran in
//! this process or told its news through a pipe and died.

use super::item::{Item, Kind};
use super::machine;
use k2k_cuda::{ClockOffset, Device, Ptx};
use k2k_gpu::bench::{Missing, Row, Target};
use k2k_gpu::check;
use k2k_gpu::check::CheckResult;
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// What was done so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    /// Device, machine, options.
    head: Map<String, Value>,
    checks: Vec<Value>,
    rows: Vec<Value>,
    /// Each item that was begun and has ended: how, and how long it took.
    items: Vec<Value>,
    /// What is yet to be done.
    pub(super) left: Vec<Item>,
    /// What is being done.
    at: Option<Item>,
}

/// What another run has left to do.
#[derive(Debug)]
pub(super) struct Earlier {
    pub(super) record: Record,
    done: Vec<String>,
    /// In the middle of it, that run ended.
    at: Option<String>,
}

impl Record {
    pub(super) fn new(options: Value) -> Self {
        let mut head = Map::new();
        let tool = json!({
            "name": "k2k-gpu check",
            "version": env!("CARGO_PKG_VERSION"),
            // Set by whoever builds it: see results/on-gpu.
            "commit": option_env!("K2K_COMMIT"),
        });
        for (name, value) in
            [("tool", tool), ("date", json!(k2k_command::date())), ("ptx", ptx()), ("host", machine::host())]
        {
            head.insert(name.to_owned(), value);
        }
        head.insert("options".to_owned(), options);
        Self { head, ..Self::default() }
    }

    /// Those of a run that goes on: of a pass, the newest.
    pub(super) fn add_options(&mut self, options: Value) {
        match (self.head.get_mut("options").and_then(Value::as_object_mut), options) {
            (Some(known), Value::Object(more)) => known.extend(more),
            (_, options) => drop(self.head.insert("options".to_owned(), options)),
        }
    }

    /// Takes what one of the [news](super::watch) says.
    pub(super) fn take(&mut self, news: &Value) {
        if let Some(device) = news.get("device") {
            self.head.insert("device".to_owned(), device.clone());
        }
        self.checks.extend(news.get("check").cloned());
        self.rows.extend(news.get("row").cloned());
    }

    /// What is known of the item from a run that was interrupted in it, is done anew.
    pub(super) fn begin(&mut self, item: Item) {
        self.checks.retain(|check| !is_of(check, "name", item));
        self.rows.retain(|row| !is_of(row, "benchmark", item));
        self.at = Some(item);
    }

    /// An item has ended, somehow.
    pub(super) fn end(&mut self, item: Item, how: Value) {
        self.at = None;
        self.left.retain(|left| *left != item);
        // That it once went wrong stays.
        self.items.retain(|known| known.get("item") != how.get("item") || known.get("ended") != Some(&json!("well")));
        self.items.push(how);
    }

    /// Nothing goes on any more.
    pub(super) fn rest(&mut self) {
        self.at = None;
    }

    /// Which device it is about, if that is known.
    pub(super) fn device(&self) -> Option<(String, Option<String>)> {
        let name = self.head.get("device")?.get("name")?.as_str()?;
        Some((name.to_owned(), self.pci().map(str::to_owned)))
    }

    /// What is the place of the device on the bus, if it has said so.
    pub(super) fn pci(&self) -> Option<&str> {
        self.head.get("device")?.get("pci")?.as_str()
    }

    pub(super) fn is_gpu(&self) -> bool {
        self.head.get("device").and_then(|device| device.get("is_gpu")) == Some(&Value::Bool(true))
    }

    /// Puts something under "device".
    pub(super) fn describe(&mut self, name: &str, value: Value) {
        if let Some(device) = self.head.get_mut("device").and_then(Value::as_object_mut) {
            device.insert(name.to_owned(), value);
        }
    }

    /// Whether it has a result of that item, and a bad one.
    pub(super) fn has(&self, item: Item) -> bool {
        match item.kind {
            Kind::Device => self.head.contains_key("device"),
            Kind::Check => self.checks.iter().any(|check| is_of(check, "name", item)),
            Kind::Benchmark => self.rows.iter().any(|row| is_of(row, "benchmark", item)),
        }
    }

    /// The checks and figures that went wrong, in words.
    pub(super) fn failures(&self) -> impl Iterator<Item = String> {
        let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let checks = self.checks.iter().filter(|check| check.get("passed") != Some(&Value::Bool(true)));
        let checks = checks.map(move |check| format!("FAILED {}: {}", text(check, "name"), text(check, "text")));
        let rows = self.rows.iter().filter(|row| row.get("failed").is_some());
        checks.chain(rows.map(move |row| format!("FAILED {}: {}", text(row, "benchmark"), text(row, "failed"))))
    }

    /// Whether something went wrong with an item.
    pub(super) fn is_bad(&self, item: Item) -> bool {
        let bad = |all: &[Value], key: &str, is_bad: fn(&Value) -> bool| {
            all.iter().any(|value| is_of(value, key, item) && is_bad(value))
        };
        match item.kind {
            Kind::Device => false,
            Kind::Check => bad(&self.checks, "name", |check| check.get("passed") != Some(&Value::Bool(true))),
            Kind::Benchmark => bad(&self.rows, "benchmark", |row| row.get("failed").is_some()),
        }
    }

    /// Whether something went wrong with anything.
    pub(super) fn has_failed(&self) -> bool {
        let ended_badly = |item: &Value| item.get("ended").and_then(Value::as_str).is_some_and(|how| how != "well");
        self.failures().next().is_some() || self.items.iter().any(ended_badly)
    }

    fn to_json(&self) -> Value {
        let mut all = self.head.clone();
        let mut put = |name: &str, value: Value| all.insert(name.to_owned(), value);
        put("checks", json!(self.checks));
        put("benchmarks", json!(self.rows));
        put("items", json!(self.items));
        put("unfinished", self.left.iter().map(|item| json!(item.to_string())).collect());
        if let Some(at) = self.at {
            put("at", json!(at.to_string()));
        }
        Value::Object(all)
    }

    /// Writes the file, if there is to be one. Whenever the machine goes, a whole one is there: this or the last.
    pub(super) fn write(&self, path: Option<&Path>) -> Result<(), String> {
        let Some(path) = path else { return Ok(()) };
        let failed = |e: std::io::Error| format!("cannot write {}: {e}", path.display());
        let text = format!("{:#}\n", self.to_json());
        if !std::fs::metadata(path).is_ok_and(|file| !file.is_file()) {
            let mut name = path.as_os_str().to_owned();
            name.push(".new");
            let new = PathBuf::from(name);
            for file in [path, &new] {
                if File::open(file).is_ok_and(|file| k2k::inspect::begins_like_a_fabric(&file)) {
                    return Err(format!(
                        "cannot write {}: {} is a fabric, which programs may use",
                        path.display(),
                        file.display()
                    ));
                }
            }
            let written = File::create(&new).and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                file.sync_all()
            });
            return written.and_then(|()| std::fs::rename(&new, path)).map_err(|e| {
                let _ = std::fs::remove_file(&new);
                failed(e)
            });
        }
        // A device or a pipe, which nothing may replace.
        std::fs::write(path, text).map_err(failed)
    }

    /// What an earlier run has written.
    pub(super) fn read(path: &Path) -> Result<Earlier, String> {
        let failed = |why: String| format!("cannot go on from {}: {why}", path.display());
        let text = std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
        let found: Value = serde_json::from_str(&text).map_err(|e| failed(e.to_string()))?;
        let Value::Object(mut all) = found else { return Err(failed("it is no record".to_owned())) };
        if all.get("ptx") != Some(&ptx()) {
            return Err(failed("it is of other device code; begin anew, without --resume".to_owned()));
        }
        let mut list = |name: &str| match all.remove(name) {
            Some(Value::Array(list)) => list,
            _ => Vec::new(),
        };
        let (checks, rows, items) = (list("checks"), list("benchmarks"), list("items"));
        list("unfinished");
        let at = all.remove("at").and_then(|at| at.as_str().map(str::to_owned));
        let name = |item: &Value| item.get("item").and_then(Value::as_str).map(str::to_owned);
        let done = items.iter().filter_map(name).collect();
        let record = Self { head: all, checks, rows, items, ..Self::default() };
        Ok(Earlier { record, done, at })
    }
}

impl Earlier {
    /// Leaves out what has been done. What that run was at when it ended comes last: it may have been the reason.
    pub(super) fn left(&self, plan: Vec<Item>) -> Vec<Item> {
        let left = plan.into_iter().filter(|item| !self.done.contains(&item.to_string()));
        let (last, first): (Vec<_>, Vec<_>) = left.partition(|item| self.at.as_ref() == Some(&item.to_string()));
        [first, last].concat()
    }
}

/// Whether a result is one of that item.
fn is_of(result: &Value, key: &str, item: Item) -> bool {
    let text = |name: &str| result.get(name).and_then(Value::as_str);
    text(key) == Some(item.name) && text("pass") == Some(item.pass.name())
}

/// Which device code.
fn ptx() -> Value {
    let of = |ptx: &Ptx| json!({ "hash": ptx.source_hash(), "bytes": ptx.text().len() });
    json!({ "library": of(&Ptx::library()), "checks": of(&check::ptx()) })
}

/// What a device says of itself.
pub(super) fn device(device: &Device, clock: &ClockOffset) -> Value {
    let probe = device.probe();
    json!({ "device": {
        "name": probe.name,
        "is_gpu": probe.is_gpu,
        "compute_capability": probe.capability.to_string(),
        "driver_for_cuda": probe.driver.to_string(),
        "multiprocessors": probe.multiprocessors,
        "memory_bytes": probe.memory,
        "host_atomics": probe.host_atomics,
        "cooperative_launch": probe.cooperative_launch,
        "time_limit": probe.time_limit,
        "pci": probe.pci,
        "numa_node": probe.numa_node,
        "watched_by": probe.watched_by,
        "placement": device.placement().to_string(),
        "clock_error_ns": clock.error_ns,
    } })
}

/// How a check went.
pub(super) fn check_result(result: &CheckResult, item: Item) -> Value {
    let (Ok(text) | Err(text)) = &result.outcome;
    json!({
        "line": result.to_string(),
        "check": {
            "name": result.name,
            "pass": item.pass.name(),
            "passed": result.passed(),
            "text": text,
            "seconds": result.took.as_secs_f64(),
        },
    })
}

/// A figure.
pub(super) fn row(row: &Row, item: Item) -> Value {
    let mut all = Map::new();
    let mut put = |name: &str, value: Value| all.insert(name.to_owned(), value);
    put("benchmark", json!(row.benchmark));
    put("pass", json!(item.pass.name()));
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
    json!({ "line": row.to_string(), "row": all })
}

/// That an item has no result of its own, and why.
pub(super) fn without_result(item: Item, why: &str, seconds: f64) -> Value {
    match item.kind {
        Kind::Device => json!({ "line": format!("{item}: {why}") }),
        Kind::Check => json!({
            "line": format!("{:<44} FAILED {seconds:>8.2} s  {why}", item.name),
            "check": { "name": item.name, "pass": item.pass.name(), "passed": false, "text": why, "seconds": seconds },
        }),
        Kind::Benchmark => json!({
            "line": format!("{:<37} {:<29} FAILED: {why}", item.name, "all of it"),
            "row": { "benchmark": item.name, "pass": item.pass.name(), "figure": "all of it", "failed": why },
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::item::Pass;
    use super::*;

    #[test]
    fn what_an_interrupted_item_had_told_is_told_anew() {
        let item = |pass| Item { pass, kind: Kind::Benchmark, name: "idle bridge" };
        let row = |pass: Pass| json!({ "row": { "benchmark": "idle bridge", "pass": pass.name(), "failed": "?" } });
        let mut record = Record::default();
        record.begin(item(Pass::Quick));
        record.take(&row(Pass::Quick));
        record.end(item(Pass::Quick), json!({ "item": item(Pass::Quick).to_string(), "ended": "badly" }));
        record.begin(item(Pass::Long));
        record.take(&row(Pass::Long));
        record.begin(item(Pass::Long));
        assert!(record.is_bad(item(Pass::Quick)) && !record.has(item(Pass::Long)));
        record.begin(item(Pass::Quick));
        record.end(item(Pass::Quick), json!({ "item": item(Pass::Quick).to_string(), "ended": "well" }));
        assert!(record.has_failed(), "that it once ended badly stays");
    }
}
