//! `k2k replay`: sends recorded messages.

use super::args::{Rate, ReplayArgs};
use super::{meaning, send, word};
use crate::fabric::{self, Any, Failure};
use crate::interrupt::{self, INTERRUPTED};
use crate::text::{Table, grouped, time_ns};
use core::time::Duration;
use k2k::recording::{Reader, Record, RecordingError};
use k2k::{DeliveryStatus, Endpoint, KernelId, Message, MessageId, SendError, Wait};
use k2k_command::{complain, print};
use serde_json::json;
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::BufReader;
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

const NAME: &str = "k2k replay";

/// Time between two checks for an interrupt and for outcomes.
const SLICE: Duration = Duration::from_millis(10);

pub(crate) fn main(args: &ReplayArgs) -> ExitCode {
    fabric::main(NAME, || run(args))
}

/// Outcomes of the messages.
#[derive(Debug, Default)]
struct Figures {
    sent: u64,
    outcomes: BTreeMap<&'static str, (DeliveryStatus, u64)>,
    /// The most by which a message was sent later than due.
    behind: Duration,
    took: Duration,
}

fn run(args: &ReplayArgs) -> Result<ExitCode, Failure> {
    let broker = fabric::open(&args.file)?;
    // The whole recording is checked before the first send.
    let (records, head) = read(args)?;
    let capacity = broker.memory().fabric().geometry().payload as usize;
    if let Some(too_long) = records.iter().map(|record| record.payload.len()).find(|len| *len > capacity) {
        return Err(send::too_long(too_long, capacity).into());
    }
    let name = args.to.as_deref().unwrap_or(&head);
    let to = fabric::find(&broker, name)?;
    interrupt::catch_all();
    let mut me = fabric::register(&broker, args.own_name.as_deref(), "replay")?;
    let mut figures = Figures::default();
    replay(&mut me, to, &records, args, &mut figures)?;
    let is_interrupted = interrupt::is_asked_for();
    let delivered = figures.outcomes.get(word(DeliveryStatus::Delivered)).map_or(0, |(_, count)| *count);
    print(if args.json { figures.json(name) } else { figures.render(name) })?;
    Ok(ExitCode::from(if is_interrupted { INTERRUPTED } else { u8::from(delivered != records.len() as u64) }))
}

/// The messages of the recording, and the name of their receiver.
fn read(args: &ReplayArgs) -> Result<(Vec<Record>, String), Failure> {
    let failed = |why: RecordingError| format!("cannot replay {}: {why}", args.recording.display());
    let file = File::open(&args.recording).map_err(|why| failed(why.into()))?;
    let mut reader = Reader::new(BufReader::new(file)).map_err(failed)?;
    let mut records = Vec::new();
    for record in &mut reader {
        match record {
            Ok(record) => records.push(record),
            Err(why @ RecordingError::Truncated { .. }) if args.truncated => {
                complain(NAME, format_args!("{}: {why}", args.recording.display()));
            }
            Err(why) => return Err(failed(why).into()),
        }
    }
    Ok((records, reader.head().to.clone()))
}

fn replay(
    me: &mut Endpoint<Any>,
    to: KernelId,
    records: &[Record],
    args: &ReplayArgs,
    figures: &mut Figures,
) -> Result<(), Failure> {
    let geometry = me.fabric().geometry();
    // Half of the receipts: the outcome of a message is known before its receipt is used again.
    let most = (geometry.kernels as usize * geometry.slots as usize / 2).max(1);
    let timeout = args.timeout.unwrap_or_else(|| Duration::from_nanos(me.fabric().config().delivery_timeout_ns));
    let first_ns = records.first().map_or(0, |record| record.offset_ns);
    let began = Instant::now();
    let mut pending = VecDeque::new();
    for record in records {
        let due = args.rate.due(Duration::from_nanos(record.offset_ns - first_ns));
        while let Some(left) = due.checked_sub(began.elapsed())
            && !interrupt::is_asked_for()
        {
            figures.settle(me, &mut pending)?;
            // The rest of the wait is spent awake: a sleep ends late by more than most messages are apart.
            match left.checked_sub(Duration::from_micros(200)) {
                Some(sleep) => thread::sleep(sleep.min(SLICE)),
                None => core::hint::spin_loop(),
            }
        }
        let mut tries = 0;
        while pending.len() >= most && !interrupt::is_asked_for() {
            figures.settle(me, &mut pending)?;
            tries += 1;
            Wait::Park.nap(tries);
        }
        if interrupt::is_asked_for() {
            break;
        }
        let message = Message::from_bytes(record.kind, &record.payload)?
            .with_correlation_id(record.correlation_id)
            .with_flags(record.flags)
            .with_deadline_ns(me.deadline_in(timeout));
        if args.rate.keeps_time() {
            figures.behind = figures.behind.max(began.elapsed().saturating_sub(due));
        }
        let mut tries = 0;
        figures.sent += 1;
        loop {
            match me.send_priority(to, &message, record.priority) {
                Ok(id) => {
                    fabric::has_acted();
                    pending.push_back(id);
                }
                Err(SendError::QueueFull { .. }) if !interrupt::is_asked_for() => {
                    figures.settle(me, &mut pending)?;
                    tries += 1;
                    Wait::Park.nap(tries);
                    continue;
                }
                Err(why) => figures.count(why.status().ok_or(why)?),
            }
            break;
        }
    }
    let mut tries = 0;
    while !pending.is_empty() && !interrupt::is_asked_for() {
        figures.settle(me, &mut pending)?;
        tries += 1;
        Wait::Park.nap(tries);
    }
    figures.took = began.elapsed();
    pending.iter().for_each(|_| figures.count(DeliveryStatus::Pending));
    Ok(())
}

impl Figures {
    fn count(&mut self, status: DeliveryStatus) {
        self.outcomes.entry(word(status)).or_insert((status, 0)).1 += 1;
    }

    /// Counts outcomes of pending messages, oldest first, up to the first unknown outcome.
    fn settle(&mut self, me: &mut Endpoint<Any>, pending: &mut VecDeque<MessageId>) -> Result<(), Failure> {
        while let Some(id) = pending.front() {
            match me.receipt(*id)?.status {
                DeliveryStatus::Pending => break,
                status => self.count(status),
            }
            pending.pop_front();
        }
        Ok(())
    }

    fn render(&self, to: &str) -> String {
        let mut table = Table::default();
        table.row("sent", grouped(self.sent), format!("to {to}, in {}", time_ns(self.took.as_nanos() as f64)));
        for (status, count) in self.outcomes.values() {
            let remark = if *status == DeliveryStatus::Delivered { String::new() } else { meaning(*status, to) };
            table.row(&status.to_string(), grouped(*count), remark);
        }
        if !self.behind.is_zero() {
            table.row("behind its time", time_ns(self.behind.as_nanos() as f64), "at most");
        }
        table.render(0)
    }

    fn json(&self, to: &str) -> String {
        let outcomes: serde_json::Map<_, _> =
            self.outcomes.iter().map(|(word, (_, count))| ((*word).to_owned(), json!(count))).collect();
        let report = json!({
            "kernel": to,
            "sent": self.sent,
            "outcomes": outcomes,
            "seconds": self.took.as_secs_f64(),
            "behind_ns": self.behind.as_nanos() as u64,
        });
        format!("{report:#}\n")
    }
}

impl Rate {
    /// When to send a message recorded at `offset`.
    fn due(self, offset: Duration) -> Duration {
        match self {
            Self::Max => Duration::ZERO,
            Self::Times(rate) => Duration::try_from_secs_f64(offset.as_secs_f64() / rate).unwrap_or(Duration::MAX),
        }
    }

    const fn keeps_time(self) -> bool {
        matches!(self, Self::Times(_))
    }
}
