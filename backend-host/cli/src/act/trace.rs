//! `k2k trace`: the traces of all kernels as a file for Perfetto's UI and Chrome's `about:tracing`.
//!
//! A kernel's trace is a ring of 64 events. The command looks at all rings again and again while they turn, and counts the
//! events overwritten between two looks.
//!
//! The file is in the Trace Event Format (JSON): a thread per kernel index; a slice (`X`) per event; the slices of a message
//! joined by a flow (`s`, `t`, `f`) whose id is made of the message's id; an instant (`i`) for each failure. Times are in µs
//! since the first event. Slices of a thread must not overlap, so each lasts until the next event, and 1 µs at most; of
//! events at the same time of a kernel's hybrid clock, each later event is moved by a nanosecond. `args` has the unmoved time.

use super::args::TraceArgs;
use crate::fabric::{self, Any, Failure};
use crate::interrupt::{self, INTERRUPTED};
use crate::look::args::Switch;
use crate::output;
use core::time::Duration;
use k2k::fabric::{Event, TraceEntry};
use k2k::inspect::{InspectError, View};
use k2k::{Broker, KernelId, MessageId};
use k2k_command::{OutputError, complain};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

const NAME: &str = "k2k trace";

/// Pause between two looks at rings with few new events.
const PAUSE: Duration = Duration::from_micros(100);

/// With so many new events in a ring, the next look follows at once.
const MANY: u64 = 8;

/// The longest slice, ns.
const SLICE_NS: u64 = 1000;

pub(crate) fn main(args: &TraceArgs) -> ExitCode {
    fabric::main(NAME, || run(args))
}

fn run(args: &TraceArgs) -> Result<ExitCode, Failure> {
    if let Some(switch) = args.switch {
        let broker = fabric::open(&args.file)?;
        broker.set_tracing(switch == Switch::On);
        return Ok(ExitCode::SUCCESS);
    }
    let mut follower = Follower::default();
    let fabric = if args.last {
        follower.read_all(&mut View::open(&args.file)?)?;
        None
    } else {
        Some(fabric::open(&args.file)?)
    };
    // An output error shows before tracing is switched on.
    let out = args.output.as_deref().filter(|path| *path != Path::new("-"));
    let failed = |why: io::Error| format!("cannot write {}: {why}", out.unwrap_or(Path::new("-")).display());
    let out_file = out.map(output::create).transpose().map_err(failed)?;
    if let Some(broker) = &fabric {
        follow(&mut follower, broker, args.time);
    }
    let events = follower.events();
    match out_file {
        Some(file) => write(BufWriter::new(file), &events, &follower, args).map_err(failed)?,
        None => write(BufWriter::new(io::stdout().lock()), &events, &follower, args).map_err(OutputError::from)?,
    }
    let kernels = follower.names.len();
    complain(NAME, format_args!("{} events of {kernels} kernels", events.len()));
    if follower.lost > 0 {
        complain(
            NAME,
            format_args!("{} more were overwritten before they were read: a trace keeps 64 per kernel", follower.lost),
        );
    }
    Ok(ExitCode::from(if interrupt::is_asked_for() { INTERRUPTED } else { 0 }))
}

/// Follows the traces for a time.
fn follow(follower: &mut Follower, broker: &Broker<Any>, time: Duration) {
    interrupt::catch_all();
    follower.skip(broker);
    let mut switched = Switched::on(broker);
    fabric::has_acted();
    let began = Instant::now();
    while began.elapsed() < time && !interrupt::is_asked_for() {
        switched.keep_on();
        if follower.look(broker) < MANY {
            thread::sleep(PAUSE.min(time.saturating_sub(began.elapsed())));
        }
    }
    for remark in switched.remarks() {
        complain(NAME, remark);
    }
    drop(switched);
    follower.look_everywhere(broker);
}

/// Tracing, on until dropped. Switched off then, unless tracing was on before and stayed on: another trace that goes on
/// notices, and switches tracing on again.
struct Switched<'b> {
    broker: &'b Broker<Any>,
    was_on: bool,
    /// How often another program has switched tracing off.
    interruptions: u64,
}

impl<'b> Switched<'b> {
    fn on(broker: &'b Broker<Any>) -> Self {
        let was_on = is_on(broker);
        broker.set_tracing(true);
        Self { broker, was_on, interruptions: 0 }
    }

    /// Switches tracing on again, if another program has switched it off.
    fn keep_on(&mut self) {
        if !is_on(self.broker) {
            self.broker.set_tracing(true);
            (self.was_on, self.interruptions) = (false, self.interruptions + 1);
        }
    }

    /// Remarks for the user, a line each.
    fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if self.interruptions > 0 {
            let times = self.interruptions;
            remarks
                .push(format!("another program switched tracing off {times} times; it was switched on again at once"));
        }
        if self.was_on {
            remarks.push("tracing was on before, and stays on: k2k trace FILE off switches it off".to_owned());
        }
        remarks
    }
}

impl Drop for Switched<'_> {
    fn drop(&mut self) {
        self.broker.set_tracing(self.was_on);
    }
}

fn is_on(broker: &Broker<Any>) -> bool {
    broker.memory().fabric().config().tracing
}

/// Reads rings while they turn.
#[derive(Debug, Default)]
struct Follower {
    /// Number of the next event of each kernel index.
    next: HashMap<usize, u64>,
    /// Names of the owners of an index, in turn.
    names: BTreeMap<usize, Vec<String>>,
    events: Vec<(usize, TraceEntry)>,
    lost: u64,
}

impl Follower {
    /// Leaves out the events now in the rings.
    fn skip(&mut self, broker: &Broker<Any>) {
        self.look_everywhere(broker);
        self.events.clear();
        self.lost = 0;
    }

    /// Takes the events in the rings of a fabric opened for reading only.
    fn read_all(&mut self, view: &mut View) -> Result<(), InspectError> {
        for kernel in view.look()?.kernels {
            let names = self.names.entry(kernel.id.index()).or_default();
            names.extend(kernel.name.map(|name| name.as_str().to_owned()));
        }
        for index in 0..view.geometry().kernels as u16 {
            let entries = view.trace(index)?;
            self.take(usize::from(index), entries);
        }
        // Events lost before are no fault of this command: a ring keeps only the newest.
        self.lost = 0;
        Ok(())
    }

    /// As [`look`](Self::look), also at the rings of kernels that have left.
    fn look_everywhere(&mut self, broker: &Broker<Any>) {
        self.look(broker);
        for index in 0..broker.memory().fabric().geometry().kernels as u16 {
            self.take(usize::from(index), ring(broker, KernelId::new(index, 0)));
        }
    }

    /// Takes the new events of all rings, and returns the largest number of new events in a ring.
    fn look(&mut self, broker: &Broker<Any>) -> u64 {
        let fabric = broker.memory().fabric();
        let mut most = 0;
        for (id, _) in fabric.statuses() {
            if let Some(name) = fabric.name(id) {
                let names = self.names.entry(id.index()).or_default();
                if names.last().is_none_or(|last| last != name.as_str()) {
                    names.push(name.as_str().to_owned());
                }
            }
            most = most.max(self.take(id.index(), ring(broker, id)));
        }
        most
    }

    /// Takes the new events of a ring, and returns their number, lost events included.
    fn take(&mut self, index: usize, entries: impl IntoIterator<Item = TraceEntry>) -> u64 {
        let next = self.next.entry(index).or_insert(0);
        let began = *next;
        let mut new: Vec<_> = entries.into_iter().filter(|entry| entry.number >= began).collect();
        new.sort_unstable_by_key(|entry| entry.number);
        for entry in new {
            self.lost = self.lost.saturating_add(entry.number.saturating_sub(*next));
            *next = entry.number.saturating_add(1);
            self.events.push((index, entry));
            self.names.entry(index).or_default();
        }
        *next - began
    }

    /// All events, in the order of their hybrid times.
    fn events(&self) -> Vec<(usize, TraceEntry)> {
        let mut events = self.events.clone();
        events.sort_by_key(|(index, entry)| (entry.at, entry.hops, *index, entry.number));
        events
    }
}

/// The events in a kernel's ring.
fn ring(broker: &Broker<Any>, id: KernelId) -> impl Iterator<Item = TraceEntry> {
    broker.memory().fabric().trace(id).into_iter().flat_map(|trace| trace.read())
}

/// The id of a message's flow: unique as long as an index has sent fewer than 2⁴⁸ messages.
fn flow(id: MessageId) -> String {
    format!("{:x}", (id.source.index() as u64) << 48 | id.sequence & 0xffff_ffff_ffff)
}

fn write(mut out: impl Write, events: &[(usize, TraceEntry)], follower: &Follower, args: &TraceArgs) -> io::Result<()> {
    let began_ns = events.first().map_or(0, |(_, entry)| entry.at.wall_time_ns);
    let head = json!({
        "fabric": args.file,
        "began_ns": began_ns,
        "events": events.len(),
        "overwritten": follower.lost,
    });
    write!(out, "{{\"displayTimeUnit\":\"ns\",\"otherData\":{head},\"traceEvents\":[")?;
    let mut first = true;
    let mut put = |event: Value| {
        let comma = if core::mem::take(&mut first) { "\n" } else { ",\n" };
        write!(out, "{comma}{event}")
    };
    put(
        json!({"ph": "M", "pid": 1, "tid": 0, "name": "process_name", "args": {"name": format!("K2K {}", args.file)}}),
    )?;
    for (index, names) in &follower.names {
        let name = if names.is_empty() { format!("k{index}") } else { format!("{} (k{index})", names.join(", ")) };
        put(json!({"ph": "M", "pid": 1, "tid": index + 1, "name": "thread_name", "args": {"name": name}}))?;
        put(
            json!({"ph": "M", "pid": 1, "tid": index + 1, "name": "thread_sort_index", "args": {"sort_index": index}}),
        )?;
    }
    // Begin of each event, no two of a thread at once; and the length until the next event of the thread.
    let mut last: HashMap<usize, usize> = HashMap::new();
    let mut begins: Vec<u64> = Vec::with_capacity(events.len());
    let mut lengths = vec![SLICE_NS; events.len()];
    for (i, (index, entry)) in events.iter().enumerate() {
        let mut begin = entry.at.wall_time_ns.saturating_sub(began_ns);
        if let Some(before) = last.insert(*index, i) {
            begin = begin.max(begins[before] + 1);
            lengths[before] = SLICE_NS.min(begin - begins[before]);
        }
        begins.push(begin);
    }
    let mut counts: HashMap<MessageId, [u32; 2]> = HashMap::new();
    for (_, entry) in events {
        counts.entry(entry.id).or_default()[1] += 1;
    }
    let us = |ns: u64| ns as f64 / 1000.0;
    for (i, (index, entry)) in events.iter().enumerate() {
        let (tid, ts) = (index + 1, us(begins[i]));
        let failure = entry.failure().map(|status| status.to_string());
        let args = json!({
            "message": entry.id.to_string(),
            "hops": entry.hops,
            "status": failure,
            "wall_time_ns": entry.at.wall_time_ns,
            "logical": entry.at.logical,
        });
        let name = name(entry.event);
        put(json!({
            "ph": "X", "cat": "message", "name": name, "pid": 1, "tid": tid, "ts": ts, "dur": us(lengths[i]), "args": args,
        }))?;
        let [seen, all] = counts.entry(entry.id).or_default();
        *seen += 1;
        let phase = match (*seen, *all) {
            (1, 1) => None,
            (1, _) => Some("s"),
            (seen, all) if seen == all => Some("f"),
            _ => Some("t"),
        };
        if let Some(phase) = phase {
            let id = flow(entry.id);
            let mut event =
                json!({"ph": phase, "cat": "message", "name": "way", "id": id, "pid": 1, "tid": tid, "ts": ts});
            if phase == "f" {
                // Ends at the open slice, not at the next slice.
                event["bp"] = "e".into();
            }
            put(event)?;
        }
        if let Some(failure) = failure {
            let name = format!("failed: {failure}");
            put(json!({"ph": "i", "s": "t", "cat": "failure", "name": name, "pid": 1, "tid": tid, "ts": ts}))?;
        }
    }
    writeln!(out, "\n]}}")?;
    out.flush()
}

const fn name(event: Event) -> &'static str {
    match event {
        Event::Sent => "sent",
        Event::Received => "received",
        Event::Forwarded => "forwarded",
        Event::Deferred => "deferred",
        Event::Failed => "failed",
        Event::Discarded => "discarded",
    }
}
