//! `k2k ping`: round trips to a kernel that replies.

use super::args::PingArgs;
use super::{meaning, send, word};
use crate::fabric::{self, Any, Failure};
use crate::interrupt;
use crate::text::{Table, grouped, time_ns};
use core::time::Duration;
use hdrhistogram::Histogram;
use k2k::{DeliveryStatus, Endpoint, KernelId, Message, MessageId, Priority, ReceiveError};
use k2k_command::{print, say};
use serde_json::json;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

/// Time between two checks for an interrupt.
const SLICE: Duration = Duration::from_millis(50);

const QUANTILES: [(&str, &str, f64); 4] =
    [("p50", "p50", 0.5), ("p90", "p90", 0.9), ("p99", "p99", 0.99), ("p99.9", "p99_9", 0.999)];

pub(crate) fn main(args: &PingArgs) -> ExitCode {
    fabric::main("k2k ping", || run(args))
}

/// Outcomes of the messages.
#[derive(Debug)]
struct Figures {
    sent: u64,
    replies: u64,
    /// Replies after their time; `others`: further messages to the command's kernel.
    late: u64,
    others: u64,
    /// Messages without a reply, by outcome.
    without: BTreeMap<&'static str, (DeliveryStatus, u64)>,
    round_trips: Histogram<u64>,
}

fn run(args: &PingArgs) -> Result<ExitCode, Failure> {
    let broker = fabric::open(&args.target.file)?;
    let to = fabric::find(&broker, &args.target.name)?;
    let capacity = broker.memory().fabric().geometry().payload as usize;
    if args.size > capacity {
        return Err(send::too_long(args.size, capacity).into());
    }
    interrupt::catch_all();
    let mut me = fabric::register(&broker, args.own_name.as_deref(), "ping")?;
    let mut figures = Figures {
        sent: 0,
        replies: 0,
        late: 0,
        others: 0,
        without: BTreeMap::new(),
        round_trips: Histogram::new(3).map_err(|e| e.to_string())?,
    };
    let mut message = Message::from_bytes(args.kind, &vec![0; args.size])?;
    let mut answer = Message::new(0);
    let lines = !args.quiet && !args.json;
    let mut next = Instant::now();
    while args.count.is_none_or(|count| figures.sent < count) && !interrupt::is_asked_for() {
        wait_until(next);
        if interrupt::is_asked_for() {
            break;
        }
        next = Instant::now().max(next).checked_add(args.interval).unwrap_or(next);
        let number = figures.sent;
        for (byte, count) in message.payload_mut(args.size)?.iter_mut().zip(number.to_le_bytes()) {
            *byte = count;
        }
        figures.sent += 1;
        match round_trip(&mut me, to, &message, &mut answer, args, &mut figures)? {
            Trip::Reply(took) => {
                figures.replies += 1;
                figures.round_trips.saturating_record(took.as_nanos() as u64);
                if lines {
                    say!("{number}: {} bytes, {}", answer.payload().len(), time_ns(took.as_nanos() as f64))?;
                }
            }
            Trip::None(status) => {
                figures.without.entry(word(status)).or_insert((status, 0)).1 += 1;
                if lines {
                    say!("{number}: no reply; {status}: {}", meaning(status, &args.target.name))?;
                }
            }
        }
    }
    print(if args.json { figures.json(args, to) } else { figures.render(args, to, lines) })?;
    Ok(ExitCode::from(u8::from(figures.replies == 0)))
}

fn wait_until(time: Instant) {
    while !interrupt::is_asked_for() {
        match time.checked_duration_since(Instant::now()) {
            None | Some(Duration::ZERO) => return,
            Some(left) => thread::sleep(left.min(SLICE)),
        }
    }
}

/// Outcome of a single message.
enum Trip {
    Reply(Duration),
    None(DeliveryStatus),
}

fn round_trip(
    me: &mut Endpoint<Any>,
    to: KernelId,
    message: &Message<65472>,
    answer: &mut Message<65472>,
    args: &PingArgs,
    figures: &mut Figures,
) -> Result<Trip, Failure> {
    let priority = if args.high { Priority::High } else { Priority::Normal };
    let message = message.with_deadline_ns(me.deadline_in(args.timeout));
    let began = Instant::now();
    let id = match me.send_priority(to, &message, priority) {
        Ok(id) => {
            fabric::has_acted();
            id
        }
        Err(why) => return why.status().map(Trip::None).ok_or_else(|| why.into()),
    };
    while let Some(left) = args.timeout.checked_sub(began.elapsed())
        && !interrupt::is_asked_for()
    {
        match me.receive_into(answer, left.min(SLICE)) {
            Ok(()) if is_reply(answer, to, id) => return Ok(Trip::Reply(began.elapsed())),
            Ok(()) if answer.header.is_reply() && answer.header.source() == to => figures.late += 1,
            Ok(()) => figures.others += 1,
            Err(ReceiveError::Timeout) if figures.is_hopeless(me, id)? => break,
            Err(ReceiveError::Timeout) => {}
            Err(why) => return Err(why.into()),
        }
    }
    Ok(Trip::None(send::outcome(me, id)?.unwrap_or(DeliveryStatus::Pending)))
}

/// A handler may answer with `reply`, or with a message that has the request's sequence as its correlation id.
fn is_reply(answer: &Message<65472>, to: KernelId, request: MessageId) -> bool {
    answer.header.source() == to && answer.header.correlation_id == request.sequence
}

impl Figures {
    /// Whether a message has failed, so that no reply will come.
    fn is_hopeless(&self, me: &mut Endpoint<Any>, id: MessageId) -> Result<bool, Failure> {
        let status = me.receipt(id)?.status;
        Ok(!matches!(status, DeliveryStatus::Pending | DeliveryStatus::Delivered))
    }

    fn render(&self, args: &PingArgs, to: KernelId, after_lines: bool) -> String {
        let mut table = Table::default();
        table.row("sent", grouped(self.sent), format!("of {} B to {} ({to})", args.size, args.target.name));
        table.row("replies", grouped(self.replies), "");
        for (status, count) in self.without.values() {
            let remark = match status {
                DeliveryStatus::Delivered => "received, but no reply came in time".to_owned(),
                status => format!("{status}: {}", meaning(*status, &args.target.name)),
            };
            table.row("no reply", grouped(*count), remark);
        }
        if self.late > 0 {
            table.row("late replies", grouped(self.late), "");
        }
        if self.others > 0 {
            table.row("other messages", grouped(self.others), "came to this kernel, and were thrown away");
        }
        if self.replies > 0 {
            let time = |ns: u64| time_ns(ns as f64);
            table.gap();
            table.row("round trip, min", time(self.round_trips.min()), "");
            table.row("mean", time_ns(self.round_trips.mean()), "");
            for (name, _, quantile) in QUANTILES {
                table.row(name, time(self.round_trips.value_at_quantile(quantile)), "");
            }
            table.row("max", time(self.round_trips.max()), "");
        }
        format!("{}{}", if after_lines { "\n" } else { "" }, table.render(0))
    }

    fn json(&self, args: &PingArgs, to: KernelId) -> String {
        let without: serde_json::Map<_, _> =
            self.without.iter().map(|(word, (_, count))| ((*word).to_owned(), json!(count))).collect();
        let round_trips = (self.replies > 0).then(|| {
            let quantiles = QUANTILES.map(|(_, key, q)| (key, self.round_trips.value_at_quantile(q)));
            let ends = [("min", self.round_trips.min()), ("max", self.round_trips.max())];
            let mut times: serde_json::Map<_, _> =
                quantiles.into_iter().chain(ends).map(|(key, ns)| (key.to_owned(), json!(ns))).collect();
            times.insert("mean".to_owned(), json!(self.round_trips.mean()));
            times
        });
        let report = json!({
            "kernel": args.target.name,
            "address": to.to_string(),
            "size": args.size,
            "sent": self.sent,
            "replies": self.replies,
            "late_replies": self.late,
            "other_messages": self.others,
            "no_reply": without,
            "round_trip_ns": round_trips,
        });
        format!("{report:#}\n")
    }
}
