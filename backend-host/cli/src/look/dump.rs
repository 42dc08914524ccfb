//! `k2k dump`: the contents of a fabric, for a report of a fault.

use super::args::DumpArgs;
use super::table::Table;
use super::{errors, file_state, label, label_of, lower, owner, printable, shape};
use crate::text::{grouped, time_ns};
use core::error::Error;
use core::fmt::Write as _;
use k2k::inspect::{Denial, Look, Mail, ReceiptCounts, Report, Route, View, Watch};
use k2k::{KernelId, Priority, Stats};
use serde_json::{Map, Value, json};
use std::process::ExitCode;

const NAME: &str = "k2k dump";

pub(crate) fn main(args: &DumpArgs) -> ExitCode {
    super::end(NAME, run(args))
}

fn run(args: &DumpArgs) -> Result<ExitCode, Box<dyn Error>> {
    let mut watch = Watch::new(super::open(&args.file)?).patience(super::BETWEEN);
    watch.look()?;
    std::thread::sleep(super::BETWEEN);
    let report = watch.look()?;
    let look = &report.look;
    let view = watch.view();
    if args.json {
        k2k_command::say!("{:#}", json(view, &report, args)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    k2k_command::print(header(view, look))?;
    k2k_command::print(kernels(&report))?;
    let failures = errors::counted(view, look)?;
    k2k_command::say!("\nfailures:{}", if failures.is_empty() { " none" } else { "" })?;
    if !failures.is_empty() {
        k2k_command::print(errors::table(&failures, look))?;
    }
    let routes = view.routes(look)?;
    k2k_command::say!("\nroutes:{}", if routes.is_empty() { " none" } else { "" })?;
    for route in routes {
        let [at, to, next] = [route.at, route.destination, route.next_hop].map(|id| name(look, id.index()));
        k2k_command::say!("  at {at}: to {to} by way of {next}")?;
    }
    let denials = view.denials(look)?;
    k2k_command::say!("\ndenials:{}", if denials.is_empty() { " none" } else { "" })?;
    for denial in denials {
        let [receiver, sender] = [denial.receiver, denial.sender].map(|id| name(look, id.index()));
        k2k_command::say!("  {receiver} receives nothing from {sender}")?;
    }
    k2k_command::say!("\nlatest receipts, by sender:")?;
    for kernel in look.kernels.iter().filter(|kernel| kernel.stats.sent > 0) {
        let counts = view.receipts(kernel.id.index() as u16)?;
        k2k_command::say!("  {}: {}", label(kernel), receipts(&counts))?;
    }
    k2k_command::say!("\ninboxes:")?;
    for kernel in &look.kernels {
        k2k_command::say!("  {}: {} waiting, {} deferred", label(kernel), kernel.waiting(), kernel.deferred())?;
        for from in &kernel.backlog {
            k2k_command::say!(
                "    {} from {}, {} of them of high priority{}",
                from.normal + from.high,
                label_of(look, from.sender),
                from.high,
                if from.full { "; no room for more" } else { "" }
            )?;
        }
        if kernel.waiting() > 0 {
            for mail in view.inbox(kernel.id.index() as u16, args.messages)? {
                k2k_command::print(message(look, &mail, args.payload))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The dump for machines.
fn json(view: &mut View, report: &Report, args: &DumpArgs) -> Result<Value, Box<dyn Error>> {
    let look = &report.look;
    let mut whole = super::json::report(view, report);
    let address = |id: KernelId| json!({ "index": id.index(), "generation": id.generation() });
    whole["failures"] = errors::counted(view, look)?.iter().map(errors::Counted::json).collect();
    let route = |route: &Route| {
        json!({
            "at": address(route.at),
            "destination": address(route.destination),
            "next_hop": address(route.next_hop),
        })
    };
    whole["routes"] = view.routes(look)?.iter().map(route).collect();
    let denial = |denial: &Denial| json!({ "receiver": address(denial.receiver), "sender": address(denial.sender) });
    whole["denials"] = view.denials(look)?.iter().map(denial).collect();
    let mut receipts = Vec::new();
    for kernel in look.kernels.iter().filter(|kernel| kernel.stats.sent > 0) {
        let counts = by_state(&view.receipts(kernel.id.index() as u16)?);
        let counts: Map<String, Value> = counts.iter().map(|(name, n)| (name.replace(' ', "_"), json!(n))).collect();
        receipts.push(json!({ "sender": address(kernel.id), "latest": counts }));
    }
    whole["receipts"] = receipts.into();
    let mut mail = Vec::new();
    for kernel in look.kernels.iter().filter(|kernel| kernel.waiting() > 0) {
        for message in view.inbox(kernel.id.index() as u16, args.messages)? {
            mail.push(mail_json(kernel.id, &message, args.payload));
        }
    }
    whole["messages"] = mail.into();
    Ok(whole)
}

/// A message's unchecked header, and its payload if asked for.
fn mail_json(inbox: KernelId, mail: &Mail, with_payload: bool) -> Value {
    let header = &mail.header;
    json!({
        "inbox": inbox.index(),
        "from": mail.from,
        "priority": lower(mail.priority),
        "source_index": header.source_index,
        "source_generation": header.source_generation,
        "destination_index": header.destination_index,
        "destination_generation": header.destination_generation,
        "sequence": header.sequence,
        "kind": header.kind,
        "correlation_id": header.correlation_id,
        "flags": header.flags,
        "payload_len": header.payload_len,
        "hops": header.hops,
        "hop_limit": header.hop_limit(),
        "sent_wall_ns": header.wall_time_ns,
        "deadline_ns": header.deadline_ns,
        "payload": with_payload.then(|| mail.payload.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
    })
}

fn name(look: &Look, index: usize) -> String {
    label_of(look, u16::try_from(index).unwrap_or(u16::MAX))
}

fn header(view: &View, look: &Look) -> String {
    let config = &look.config;
    let clock = if view.is_on_this_clock() { "this process's" } else { "another boot's or namespace's" };
    let share = if config.high_share == 0 { "equal".to_owned() } else { config.high_share.to_string() };
    format!(
        "{}: {}{}\nlayout {}, clock {:#018x} ({clock}), boot {:#018x}, namespace {:#018x}\ndelivery timeout {}, grace {}, \
         clock offset at most {}, hop limit {}, share of high priority {share}, tracing {}, latencies {}\nlook took {}\n",
        printable(&view.path().to_string_lossy()),
        shape(view.geometry()),
        file_state(look.file),
        view.version(),
        config.clock,
        config.domain.boot,
        config.domain.namespace,
        time_ns(config.delivery_timeout_ns as f64),
        time_ns(config.grace_ns as f64),
        time_ns(config.max_clock_offset_ns as f64),
        config.hop_limit,
        if config.tracing { "on" } else { "off" },
        if config.latency { "on" } else { "off" },
        time_ns(look.took.as_nanos() as f64),
    )
}

fn kernels(report: &Report) -> String {
    let heading = ["KERNEL", "ADDRESS", "OWNER", "STATE", "PHASE", "COMMAND", "PARKS", "HEARTBEAT", "CONDITION"];
    let mut table = Table::new(7, heading);
    let mut counts = String::new();
    for (kernel, detail) in report.kernels() {
        table.row([
            label(kernel),
            kernel.id.to_string(),
            owner(kernel.owner),
            kernel.status.map_or_else(|| "?".to_owned(), lower),
            lower(kernel.phase),
            lower(kernel.command),
            match (kernel.parks, kernel.asleep) {
                (false, _) => "no",
                (true, false) => "awake",
                (true, true) => "asleep",
            }
            .to_owned(),
            kernel.heartbeat.to_string(),
            detail.condition.to_string(),
        ]);
        let counters = counters(&kernel.stats);
        let counters = if counters.is_empty() { "nothing" } else { &counters };
        let _ = writeln!(counts, "  {}: {counters}", label(kernel));
    }
    for (index, stats) in &report.look.left {
        let _ = writeln!(counts, "  #{index}, which nobody has now: {}", counters(stats));
    }
    let total = report.look.total();
    format!("\n{}\ncounters, {} unaccounted for:\n{counts}", table.render(), grouped(total.unaccounted()))
}

fn counters(stats: &Stats) -> String {
    let fields = super::json::FIELDS.iter().map(|(name, of)| (name, of(stats))).filter(|(_, count)| *count > 0);
    fields.map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}

fn receipts(counts: &ReceiptCounts) -> String {
    let all = by_state(counts);
    let some: Vec<_> = all.iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!("{n} {name}")).collect();
    some.join(", ")
}

const fn by_state(counts: &ReceiptCounts) -> [(&'static str, u64); 10] {
    [
        ("pending", counts.pending),
        ("of these overdue", counts.overdue),
        ("with a gateway", counts.in_transit),
        ("delivered", counts.delivered),
        ("not found", counts.not_found),
        ("queue full", counts.queue_full),
        ("timed out", counts.timeout),
        ("hop limit exceeded", counts.max_hops_exceeded),
        ("unanswered", counts.unanswered),
        ("not allowed", counts.not_allowed),
    ]
}

/// A message's unchecked header, and its payload if asked for.
fn message(look: &Look, mail: &Mail, with_payload: bool) -> String {
    let header = &mail.header;
    let deadline = match header.deadline_ns.checked_sub(look.now_ns) {
        Some(left) => format!("{} left", time_ns(left as f64)),
        None => format!("overdue by {}", time_ns((look.now_ns - header.deadline_ns) as f64)),
    };
    let mut text = format!(
        "      {}{} #{} to {}: kind {}, correlation {}, {} bytes, hop {} of {}, {deadline}\n",
        if mail.priority == Priority::High { "high: " } else { "" },
        label_of(look, header.source_index),
        header.sequence,
        label_of(look, header.destination_index),
        header.kind,
        header.correlation_id,
        header.payload_len,
        header.hops,
        header.hop_limit(),
    );
    if with_payload {
        for line in mail.payload.chunks(32) {
            let words = line.chunks(4).map(|word| word.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
            let _ = writeln!(text, "        {}", words.collect::<Vec<_>>().join(" "));
        }
    }
    text
}
