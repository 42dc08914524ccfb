//! The result of a look, for machines.

use super::{lower, state};
use core::time::Duration;
use k2k::Stats;
use k2k::fabric::{Geometry, Latency};
use k2k::inspect::{Detail, FileState, KernelLook, Look, Quantiles, Report, View};
use serde_json::{Map, Value, json};

/// A fabric, without its kernels.
pub(super) fn fabric(view: &View, look: &Look) -> Map<String, Value> {
    let Geometry { kernels, slots, payload, size } = view.geometry();
    let config = &look.config;
    let file_state = match look.file {
        FileState::Named => "named",
        FileState::Removed => "removed",
        FileState::Replaced => "replaced",
    };
    object(json!({
        "file": view.path().to_string_lossy(),
        "file_state": file_state,
        "shape": { "kernels": kernels, "slots": slots, "payload": payload, "size": size },
        "layout_version": view.version(),
        "on_this_clock": view.is_on_this_clock(),
        "is_copy": view.is_copy(),
        "config": {
            "delivery_timeout_ns": config.delivery_timeout_ns,
            "max_clock_offset_ns": config.max_clock_offset_ns,
            "hop_limit": config.hop_limit,
            "grace_ns": config.grace_ns,
            "high_share": config.high_share,
            "tracing": config.tracing,
            "latency": config.latency,
            "clock": identity(config.clock),
            "boot": identity(config.domain.boot),
            "namespace": identity(config.domain.namespace),
        },
        "took_ns": nanoseconds(look.took),
    }))
}

/// All 64 bits as text: many readers of JSON keep 53 bits of a number.
fn identity(word: u64) -> String {
    format!("{word:#018x}")
}

/// A report, with its fabric.
pub(super) fn report(view: &View, report: &Report) -> Value {
    let mut whole = fabric(view, &report.look);
    whole.insert("seconds".to_owned(), json!(report.since.as_secs_f64()));
    whole.insert("total".to_owned(), counters(&report.look.total()));
    let kernels = report.kernels().map(|(kernel, detail)| {
        let mut entry = self::kernel(&report.look, kernel);
        entry.extend(self::detail(report, detail));
        Value::Object(entry)
    });
    whole.insert("kernels".to_owned(), kernels.collect());
    let left = report.look.left.iter().map(|(index, stats)| json!({ "index": index, "counters": counters(stats) }));
    whole.insert("left".to_owned(), left.collect());
    Value::Object(whole)
}

fn kernel(look: &Look, kernel: &KernelLook) -> Map<String, Value> {
    let name_of = |index: u16| look.kernel(index).and_then(|kernel| kernel.name).map(|name| name.as_str().to_owned());
    let backlog: Vec<Value> = kernel
        .backlog
        .iter()
        .map(|from| {
            json!({ "sender": from.sender, "name": name_of(from.sender), "normal": from.normal, "high": from.high, "full": from.full })
        })
        .collect();
    let deferred: Vec<Value> = kernel
        .deferred
        .iter()
        .map(|(next_hop, count)| json!({ "next_hop": next_hop, "name": name_of(*next_hop), "count": count }))
        .collect();
    let waits_for: Vec<Value> =
        kernel.waits_for.iter().map(|index| json!({ "index": index, "name": name_of(*index) })).collect();
    object(json!({
        "index": kernel.id.index(),
        "generation": kernel.id.generation(),
        "name": kernel.name.map(|name| name.as_str().to_owned()),
        "status": kernel.status.map(lower),
        "owner": kernel.owner.map(|owner| json!({ "process": owner.process, "state": state(owner) })),
        "phase": lower(kernel.phase),
        "command": lower(kernel.command),
        "parks": kernel.parks,
        "asleep": kernel.asleep,
        "heartbeat": kernel.heartbeat,
        "counters": counters(&kernel.stats),
        "waiting": kernel.waiting(),
        "backlog": backlog,
        "deferred": deferred,
        "waits_for": waits_for,
        "latency": kernel.latency.as_deref().map(latency),
    }))
}

/// Times in ns; `null` if no message was counted.
pub(super) fn latency(latency: &Latency) -> Value {
    let [p50, p90, p99, p999] = [0.5, 0.9, 0.99, 0.999].map(|share| latency.quantile(share));
    let sum = latency.sum_ns();
    json!({ "count": latency.count(), "sum_ns": sum, "p50_ns": p50, "p90_ns": p90, "p99_ns": p99, "p999_ns": p999 })
}

fn detail(report: &Report, detail: &Detail) -> Map<String, Value> {
    let rates: Map<String, Value> =
        FIELDS.iter().map(|(name, of)| ((*name).to_owned(), json!(report.per_second(of(&detail.change))))).collect();
    let since = detail
        .latency
        .map(|Quantiles { count, p50_ns, p99_ns }| json!({ "count": count, "p50_ns": p50_ns, "p99_ns": p99_ns }));
    object(json!({
        "condition": detail.condition.to_string(),
        "still_seconds": detail.still.as_secs_f64(),
        "high_water": detail.high_water,
        "latency_since": since,
        "per_second": rates,
    }))
}

pub(super) type Field = (&'static str, fn(&Stats) -> u64);

/// All counters, under their names in [`Stats`].
pub(super) const FIELDS: [Field; 13] = [
    ("sent", |s| s.sent),
    ("received", |s| s.received),
    ("forwarded", |s| s.forwarded),
    ("not_found", |s| s.not_found),
    ("queue_full", |s| s.queue_full),
    ("timeout", |s| s.timeout),
    ("max_hops_exceeded", |s| s.max_hops_exceeded),
    ("unanswered", |s| s.unanswered),
    ("not_allowed", |s| s.not_allowed),
    ("refused", |s| s.refused),
    ("discarded", |s| s.discarded),
    ("corrupt", |s| s.corrupt),
    ("clock_skews", |s| s.clock_skews),
];

fn counters(stats: &Stats) -> Value {
    FIELDS.iter().map(|(name, of)| ((*name).to_owned(), json!(of(stats)))).collect::<Map<_, _>>().into()
}

pub(super) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn object(value: Value) -> Map<String, Value> {
    if let Value::Object(map) = value { map } else { Map::new() }
}
