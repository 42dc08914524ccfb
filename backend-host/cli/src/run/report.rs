//! The result of a job: a table for people, a JSON object for machines.

use super::arrival::Arrived;
use super::feed::Fed;
use crate::text::{Table, bytes, grouped, rate, time_ns};
use core::fmt::Write as _;
use core::time::Duration;
use k2k::Stats;
use serde::Serialize;

/// Seconds below which the start of the threads dominates the measurement.
const TOO_SHORT: f64 = 0.1;

/// All results of a job. Field names are the keys of the JSON object.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// The arrived bytes are the sent bytes, every one of them.
    pub(crate) identical: bool,
    /// Every message has ended, and the counters add up.
    pub(crate) nothing_lost: bool,
    /// Ctrl-C ended the job early: the figures count the messages carried until then.
    pub(crate) interrupted: bool,
    /// Errors, if any.
    pub(crate) problems: Vec<String>,
    /// Name of the input file, or `null` for generated data.
    pub(crate) input: Option<String>,
    /// Name of the output file; `null` for a temporary file or none.
    pub(crate) output: Option<String>,
    pub(crate) topology: &'static str,
    #[serde(skip)]
    pub(crate) mesh: String,
    pub(crate) kernels: usize,
    /// Cores that the kernels could run on.
    pub(crate) cores: usize,
    /// Indices of the kernels on the way, from the first to the last.
    pub(crate) route: Vec<usize>,
    pub(crate) message_size: usize,
    /// Messages that may be on their way at once.
    pub(crate) window: usize,
    /// KERNELS, SLOTS and PAYLOAD of the fabric, and its size in bytes.
    pub(crate) fabric: FabricReport,
    /// Number of different messages that arrived.
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    /// Number of forwardings by kernels on the way.
    pub(crate) hops: u64,
    pub(crate) hops_per_second: f64,
    pub(crate) messages_per_second: f64,
    /// 10⁶ bytes a second.
    pub(crate) megabytes_per_second: f64,
    /// Latency from `send` to reception over all hops; `null` if no message was received.
    pub(crate) latency_ns: Option<Latency>,
    pub(crate) retransmissions: Retransmissions,
    pub(crate) accounting: Accounting,
    /// The way of the last message, with `--tracing`.
    pub(crate) trace: Option<Vec<TraceLine>>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct FabricReport {
    pub(crate) kernels: usize,
    pub(crate) slots: usize,
    pub(crate) payload: usize,
    pub(crate) bytes: usize,
    pub(crate) huge_pages: bool,
    /// The kind of memory of the fabric, in words.
    #[serde(skip)]
    pub(crate) backing: &'static str,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) p99_9: u64,
    pub(crate) max: u64,
    pub(crate) mean: f64,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Retransmissions {
    pub(crate) queue_full: u64,
    pub(crate) timeout: u64,
    /// Calls of `send` refused for lack of room. A refused message was not sent, so not sent again.
    pub(crate) refused: u64,
}

/// The fabric's counters, summed over its kernels: `sent` is the sum of the outcomes and `pending`.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Accounting {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) not_found: u64,
    pub(crate) queue_full: u64,
    pub(crate) timeout: u64,
    pub(crate) max_hops_exceeded: u64,
    pub(crate) unanswered: u64,
    pub(crate) not_allowed: u64,
    pub(crate) pending: u64,
    /// Messages found damaged in memory.
    pub(crate) corrupt: u64,
}

/// An event in the life of a message.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TraceLine {
    pub(crate) kernel: usize,
    pub(crate) event: String,
    pub(crate) hops: u8,
    /// Hybrid time of the event.
    pub(crate) wall_time_ns: u64,
    pub(crate) logical: u16,
}

impl Latency {
    pub(crate) fn of(histogram: &hdrhistogram::Histogram<u64>) -> Option<Self> {
        (!histogram.is_empty()).then(|| Self {
            p50: histogram.value_at_quantile(0.5),
            p99: histogram.value_at_quantile(0.99),
            p99_9: histogram.value_at_quantile(0.999),
            max: histogram.max(),
            mean: histogram.mean(),
        })
    }
}

impl Accounting {
    pub(crate) const fn of(stats: &Stats) -> Self {
        Self {
            sent: stats.sent,
            received: stats.received,
            not_found: stats.not_found,
            queue_full: stats.queue_full,
            timeout: stats.timeout,
            max_hops_exceeded: stats.max_hops_exceeded,
            unanswered: stats.unanswered,
            not_allowed: stats.not_allowed,
            pending: stats.unaccounted(),
            corrupt: stats.corrupt,
        }
    }
}

/// The counts that do not add up, in words. Empty if no message was lost.
pub(crate) fn losses(fed: &Fed, arrived: &Arrived, accounting: &Accounting) -> Vec<String> {
    let mut losses = Vec::new();
    if fed.delivered != fed.chunks {
        losses.push(format!(
            "{} of {} messages were not delivered",
            grouped(fed.chunks - fed.delivered),
            grouped(fed.chunks)
        ));
    }
    if arrived.chunks != fed.delivered {
        losses.push(format!(
            "{} messages have a receipt that says delivered, but {} arrived",
            grouped(fed.delivered),
            grouped(arrived.chunks)
        ));
    }
    if accounting.pending != 0 {
        losses.push(format!("{} messages are neither received nor failed", grouped(accounting.pending)));
    }
    losses
}

impl Report {
    /// Whether the exit status is 0, by the rules in `--help`.
    pub(crate) const fn is_good(&self) -> bool {
        self.identical && self.nothing_lost && self.problems.is_empty()
    }

    /// Sets the time, and all rates derived from the time.
    pub(crate) fn set_time(&mut self, took: Duration) {
        let per_second = |n: u64| if took.is_zero() { 0.0 } else { n as f64 / took.as_secs_f64() };
        self.seconds = took.as_secs_f64();
        self.hops_per_second = per_second(self.hops);
        self.messages_per_second = per_second(self.messages);
        self.megabytes_per_second = per_second(self.bytes) / 1e6;
    }

    /// The table.
    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        let carried = self.input.as_deref().unwrap_or("generated data");
        let compared = match (&self.output, &self.input) {
            (Some(output), _) => format!(" -> {output}"),
            (None, Some(_)) => " -> a temporary file, compared and removed".to_owned(),
            (None, None) => ", each message checked on arrival".to_owned(),
        };
        let _ = writeln!(text, "{carried}{compared}");
        let _ = writeln!(text, "{}: {}\n", self.mesh, way(&self.route));

        // The first and the last kernel do not forward.
        let hops = self.route.len() - 2;
        let mut table = Table::default();
        let cut = format!("of up to {} B", grouped(self.message_size as u64));
        table.row("messages", grouped(self.messages), cut);
        table.row("bytes", grouped(self.bytes), bytes_remark(self.bytes));
        // Lost messages made fewer hops.
        let each = match hops {
            _ if self.messages == 0 => String::new(),
            0 => "none: every message goes straight to its receiver".to_owned(),
            1 => "1 each".to_owned(),
            _ => format!("{hops} each"),
        };
        table.row("hops", grouped(self.hops), each);
        let remark = if self.seconds < TOO_SHORT { "too short to measure with; --duration 2 is not" } else { "" };
        table.row("time", time_ns(self.seconds * 1e9), remark);
        let remark = match (self.kernels, self.cores) {
            (kernels, 1) => format!("which {kernels} kernels share: each also waits for its turn"),
            (kernels, cores) if kernels > cores => format!("which {kernels} kernels share: some also wait for a turn"),
            _ => String::new(),
        };
        table.row("cores", grouped(self.cores as u64), remark);
        let fabric = &self.fabric;
        let room = format!("{}, room for {} kernels", fabric.backing, fabric.kernels);
        table.row("fabric", bytes(fabric.bytes as u64), room);
        table.gap();
        table.row("throughput", rate(self.messages_per_second), "messages/s");
        if hops > 0 {
            table.row("", rate(self.hops_per_second), "hops/s");
        }
        table.row("", format!("{:.1}", self.megabytes_per_second), "MB/s");
        let latency = |value: fn(&Latency) -> u64| {
            self.latency_ns.as_ref().map_or_else(|| "-".to_owned(), |latency| time_ns(value(latency) as f64))
        };
        table.row("latency", latency(|l| l.p50), "p50, from send to reception");
        table.row("", latency(|l| l.p99), "p99");
        table.row("", latency(|l| l.p99_9), "p99.9");
        table.row("", latency(|l| l.max), "max");
        let again = self.retransmissions;
        let why = match (again.queue_full, again.timeout) {
            (0, 0) => String::new(),
            (full, late) => format!("{} for lack of room, {} too late", grouped(full), grouped(late)),
        };
        table.row("sent again", grouped(again.queue_full + again.timeout), why);
        table.gap();
        let account = &self.accounting;
        table.row("sent", grouped(account.sent), "");
        table.row("= received", grouped(account.received), "");
        table.row("+ queue full", grouped(account.queue_full), "");
        table.row("+ timed out", grouped(account.timeout), "");
        table.row("+ not found", grouped(account.not_found), "");
        table.row("+ hop limit exceeded", grouped(account.max_hops_exceeded), "");
        if account.unanswered > 0 {
            table.row("+ unanswered", grouped(account.unanswered), "by another domain");
        }
        if account.not_allowed > 0 {
            table.row("+ not allowed", grouped(account.not_allowed), "");
        }
        table.row("+ pending", grouped(account.pending), "");
        text.push_str(&table.render(2));

        if let Some(trace) = &self.trace {
            let _ = write!(text, "\n{}", render_trace(trace));
        }
        if self.interrupted {
            text.push_str("\n  interrupted: the figures are of what was carried until then\n");
        }
        let yes = |good: bool| if good { "yes" } else { "NO" };
        let _ = writeln!(text, "\n  identical: {}   nothing lost: {}", yes(self.identical), yes(self.nothing_lost));
        text
    }
}

/// The size once more, in a unit readable at a glance.
fn bytes_remark(n: u64) -> String {
    if n < 1024 { String::new() } else { bytes(n) }
}

/// `0 -> 1 -> 2`, the middle left out if it is long.
fn way(route: &[usize]) -> String {
    const ENDS: usize = 4;
    let join = |part: &[usize]| part.iter().map(usize::to_string).collect::<Vec<_>>().join(" -> ");
    if route.len() <= 3 * ENDS {
        return join(route);
    }
    format!("{} -> ... -> {}", join(&route[..ENDS]), join(&route[route.len() - ENDS..]))
}

fn render_trace(trace: &[TraceLine]) -> String {
    let Some(first) = trace.first() else { return "  trace: none was kept\n".to_owned() };
    let mut text = "  trace of the last message\n".to_owned();
    let mut table = Table::default();
    for line in trace {
        let after = line.wall_time_ns.checked_sub(first.wall_time_ns).map(|ns| format!("+{}", time_ns(ns as f64)));
        table.row(&format!("kernel {:<2}  {}", line.kernel, line.event), after.as_deref().unwrap_or("-"), "");
    }
    text.push_str(&table.render(4));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_way_is_shortened() {
        assert_eq!(way(&[0, 1, 2]), "0 -> 1 -> 2");
        let long: Vec<usize> = (0..64).collect();
        assert_eq!(way(&long), "0 -> 1 -> 2 -> 3 -> ... -> 60 -> 61 -> 62 -> 63");
    }

    fn arrived(chunks: u64) -> Arrived {
        let latency_ns = hdrhistogram::Histogram::new(3).expect("3 digits");
        Arrived { chunks, bytes: 0, latency_ns, error: None }
    }

    #[test]
    fn each_kind_of_loss_is_said() {
        let whole = Accounting::of(&Stats { sent: 5, received: 4, queue_full: 1, ..Stats::default() });
        let fed = Fed { chunks: 4, delivered: 4, ..Fed::default() };
        assert_eq!(losses(&fed, &arrived(4), &whole), Vec::<String>::new());
        assert_eq!(losses(&Fed { delivered: 3, ..fed }, &arrived(3), &whole), ["1 of 4 messages were not delivered"]);
        assert_eq!(losses(&fed, &arrived(3), &whole), ["4 messages have a receipt that says delivered, but 3 arrived"]);
        let hole = Accounting::of(&Stats { sent: 5, received: 4, ..Stats::default() });
        assert_eq!(losses(&fed, &arrived(4), &hole), ["1 messages are neither received nor failed"]);
    }
}
