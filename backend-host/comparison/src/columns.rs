//! The columns: what is measured, in which order.

use crate::bench::alone::CAPACITY;
use crate::bench::endpoints::{self, Forward};
use crate::bench::floors::{Lines, bounce, compare_exchange, fetch_add, mailbox, slot, stream};
use crate::bench::latency;
use crate::bench::one_thread::BURST;
use crate::bench::sharded::Receive;
use crate::bench::throughput::Calls;
use crate::element::{Element, FourLines, Line, Seven, ThirtyOne, TwoLines, Word};
use crate::rows::{Row, Rows, What, messages, more_spsc_peers, mpsc_peers, our_mpsc, our_spsc, spsc_peers, tracing};

/// Makes the rows, of which the names are wanted (all, if none is given).
type Make = Box<dyn Fn(&[String]) -> Vec<Row>>;

pub struct Column {
    pub id: String,
    pub title: String,
    pub metrics: &'static [&'static str],
    /// Left out by `--quick`.
    pub full_only: bool,
    pub make: Make,
}

const NS: &[&str] = &["ns/message"];

fn column(
    id: &str,
    title: &str,
    metrics: &'static [&'static str],
    make: impl Fn(&[String]) -> Vec<Row> + 'static,
) -> Column {
    Column { id: id.to_owned(), title: title.to_owned(), metrics, full_only: false, make: Box::new(make) }
}

fn rows(what: What, capacity: usize, producers: usize, wanted: &[String], floors: Vec<Row>) -> Rows {
    let floors = floors
        .into_iter()
        .filter(|row| wanted.is_empty() || wanted.iter().any(|wanted| row.name.contains(wanted.as_str())))
        .collect();
    Rows { what, capacity, producers, wanted: wanted.to_vec(), rows: floors }
}

/// An SPSC column: peers carry `E`, ours `O`; `F` is what the floor streams. `N` is the peers' capacity, `M` ours.
fn spsc<E: Element, O: Element, F: Element, const N: usize, const M: usize>(
    size: &'static str,
    calls: Calls,
) -> Column {
    let name = if calls == Calls::Batch { "batch" } else { "single" };
    let how = if calls == Calls::Batch { "calls of 32 messages" } else { "one message a call" };
    let ours = if N == M { String::new() } else { format!(", ours {M}") };
    let title = format!("SPSC throughput, {size}-byte messages, {how}, capacity {N}{ours}");
    let mut column = column(&format!("spsc/{size}/{name}/{N}"), &title, NS, move |wanted| {
        let floors = vec![
            Row::floor("streamed lines, consumer writes, 2 x 64", stream::<F>(2, Lines::Written)),
            Row::floor("streamed lines, consumer writes, 16 x 64", stream::<F>(16, Lines::Written)),
            Row::floor("streamed lines, consumer only reads, 2 x 64", stream::<F>(2, Lines::Read)),
            Row::floor("streamed lines, consumer only reads, 16 x 64", stream::<F>(16, Lines::Read)),
            Row::floor("streamed lines, asked for ahead, 16 x 64", stream::<F>(16, Lines::AskedFor)),
        ];
        let mut rows = rows(What::Throughput(calls), N, 1, wanted, floors);
        our_spsc::<O, M>(&mut rows);
        spsc_peers::<E, N>(&mut rows);
        if N == 1024 {
            more_spsc_peers::<E, N>(&mut rows);
        }
        rows.rows
    });
    column.full_only = N != 1024 || size == "56" || (calls == Calls::Batch && size == "8");
    column
}

fn round_trip<E: Element, O: Element, M: Element>(size: &'static str) -> Column {
    let title = format!("SPSC round trip, {size}-byte messages, capacity 1024, one in flight");
    let mut column = column(&format!("round-trip/{size}"), &title, latency::METRICS, |wanted| {
        let floors = vec![
            Row::floor("mailboxes", mailbox::<M>()),
            Row::floor("one line, one word", bounce(1)),
            Row::floor("one line per direction, one word", bounce(2)),
        ];
        let mut rows = rows(What::RoundTrip, 1024, 1, wanted, floors);
        our_spsc::<O, 1024>(&mut rows);
        spsc_peers::<E, 1024>(&mut rows);
        more_spsc_peers::<E, 1024>(&mut rows);
        rows.rows
    });
    column.full_only = size == "56" || size == "8";
    column
}

fn mpsc<const P: usize, const SHARD: usize>(calls: Calls) -> Column {
    let (name, how) =
        if calls == Calls::Waiting { ("parking", ", receiver sleeps where it can") } else { ("polling", "") };
    let threads = P + 1;
    let title =
        format!("MPSC throughput, {P} producers ({threads} threads), 64-byte messages, capacity 1024 in all{how}");
    let mut column = column(&format!("mpsc/{P}/{name}"), &title, NS, move |wanted| {
        let mut rows = rows(What::Throughput(calls), 1024, P, wanted, Vec::new());
        our_mpsc::<Seven, P, 1024, SHARD>(&mut rows);
        mpsc_peers::<Line, 1024>(&mut rows);
        rows.rows
    });
    column.full_only = calls == Calls::Waiting && P != 4 || P == 8;
    column
}

fn alone<const P: usize, const SHARD: usize>() -> Column {
    let title = format!("{P} producers alone (contended push, no consumer), 64-byte messages");
    column(&format!("mpsc/{P}/alone"), &title, &["ns/push"], |wanted| {
        let floors = vec![
            Row::floor("fetch_add on one word", fetch_add(P as u64)),
            Row::floor("compare-exchange on one word", compare_exchange(P as u64)),
        ];
        let mut rows = rows(What::Alone, CAPACITY, P, wanted, floors);
        our_mpsc::<Seven, P, CAPACITY, SHARD>(&mut rows);
        mpsc_peers::<Line, CAPACITY>(&mut rows);
        rows.rows
    })
}

fn one_thread<E: Element, O: Element>(size: &'static str, burst: u64) -> Column {
    let (name, how) = if burst == 1 { ("alternating", "alternating") } else { ("bursts", "in bursts of 64") };
    let title = format!("push + pop by one thread, {how}, {size}-byte messages");
    let mut column = column(&format!("one-thread/{size}/{name}"), &title, NS, move |wanted| {
        let floors = vec![Row::floor("slot written and read", slot::<O>(burst))];
        let mut rows = rows(What::OneThread(burst), 1024, 1, wanted, floors);
        our_spsc::<O, 1024>(&mut rows);
        spsc_peers::<E, 1024>(&mut rows);
        more_spsc_peers::<E, 1024>(&mut rows);
        rows.rows
    });
    column.full_only = size == "8" || (size == "256" && burst != 1);
    column
}

fn endpoint<const PAYLOAD: usize>(what: What) -> Column {
    let (name, how, metrics) = match what {
        What::RoundTrip => ("round-trip", "round trip", latency::METRICS),
        What::OneThread(1) => ("one-thread", "send + receive by one thread", NS),
        What::OneThread(_) => ("one-thread-bursts", "send + receive by one thread in bursts of 64", NS),
        _ => ("throughput", "send on one thread, receive on another", NS),
    };
    let title = format!("whole messages, header and {PAYLOAD} bytes: {how}");
    let mut column = column(&format!("endpoint/{PAYLOAD}/{name}"), &title, metrics, move |wanted| {
        let mut rows = rows(what, 1024, 1, wanted, Vec::new());
        messages::<PAYLOAD>(&mut rows);
        rows.rows
    });
    column.full_only = PAYLOAD != 64;
    column
}

fn fabric_columns() -> Vec<Column> {
    let forward = |id, title, burst| {
        column(id, title, endpoints::METRICS, move |_| {
            vec![
                Row::ours("payload 64", Forward::<64>::boxed(burst)),
                Row::ours("payload 192", Forward::<192>::boxed(burst)),
            ]
        })
    };
    vec![
        forward("forward/alternating", "forwarding, one message at a time, three kernels on one thread", 1),
        forward("forward/bursts", "forwarding in bursts of 64, three kernels on one thread", BURST),
        column("tracing", "tracing: send + receive by one thread, payload 64", NS, |wanted| {
            let mut rows = rows(What::OneThread(1), 1024, 1, wanted, Vec::new());
            tracing(&mut rows);
            rows.rows
        }),
        column("fabric/one-ready", "send + receive, one message waiting at a time, payload 64", NS, |_| {
            vec![
                Row::floor("2 kernels", Receive::<2>::boxed(&[1])),
                Row::ours("64 kernels, the last one sends", Receive::<64>::boxed(&[63])),
                Row::ours("3 kernels, two send in turn", Receive::<3>::boxed(&[1, 2])),
                Row::ours("64 kernels, two send in turn", Receive::<64>::boxed(&[20, 52])),
            ]
        }),
        column("fabric/idle", "poll of an empty inbox", &["ns/poll"], |_| {
            vec![Row::floor("2 kernels", Receive::<2>::boxed(&[])), Row::ours("64 kernels", Receive::<64>::boxed(&[]))]
        }),
    ]
}

fn floor_columns() -> Vec<Column> {
    vec![
        column("floor/bounce", "one word bounced between two cores", latency::METRICS, |_| {
            vec![
                Row::floor("one line that both write", bounce(1)),
                Row::floor("one line per direction", bounce(2)),
                Row::floor("mailboxes, 64 bytes", mailbox::<Seven>()),
                Row::floor("mailboxes, 256 bytes", mailbox::<ThirtyOne>()),
            ]
        }),
        column("floor/stream", "lines streamed from core to core", NS, |_| {
            vec![
                Row::floor("64 bytes, 2 x 64, consumer only reads", stream::<Line>(2, Lines::Read)),
                Row::floor("64 bytes, 2 x 64, consumer writes a word per line", stream::<Line>(2, Lines::Written)),
                Row::floor("64 bytes, 16 x 64, consumer only reads", stream::<Line>(16, Lines::Read)),
                Row::floor("64 bytes, 16 x 64, consumer writes a word per line", stream::<Line>(16, Lines::Written)),
                Row::floor("64 bytes, 16 x 64, the same, asked for ahead", stream::<Line>(16, Lines::AskedFor)),
                Row::floor("128 bytes, 2 x 64, consumer only reads", stream::<TwoLines>(2, Lines::Read)),
                Row::floor("128 bytes, 2 x 64, consumer writes a word per line", stream::<TwoLines>(2, Lines::Written)),
                Row::floor("128 bytes, 16 x 64, consumer only reads", stream::<TwoLines>(16, Lines::Read)),
                Row::floor(
                    "128 bytes, 16 x 64, consumer writes a word per line",
                    stream::<TwoLines>(16, Lines::Written),
                ),
                Row::floor("256 bytes, 2 x 64, consumer only reads", stream::<FourLines>(2, Lines::Read)),
                Row::floor(
                    "256 bytes, 2 x 64, consumer writes a word per line",
                    stream::<FourLines>(2, Lines::Written),
                ),
                Row::floor("256 bytes, 16 x 64, consumer only reads", stream::<FourLines>(16, Lines::Read)),
                Row::floor(
                    "256 bytes, 16 x 64, consumer writes a word per line",
                    stream::<FourLines>(16, Lines::Written),
                ),
                Row::floor("256 bytes, 16 x 64, the same, asked for ahead", stream::<FourLines>(16, Lines::AskedFor)),
            ]
        }),
        column("floor/slot", "a slot written and read on one core", NS, |_| {
            vec![
                Row::floor("64 bytes", slot::<Line>(1)),
                Row::floor("256 bytes", slot::<FourLines>(1)),
                Row::floor("64 bytes, 64 slots at a time", slot::<Line>(BURST)),
                Row::floor("256 bytes, 64 slots at a time", slot::<FourLines>(BURST)),
            ]
        }),
        column("floor/add", "additions to one word", &["ns/addition"], |_| {
            vec![
                Row::floor("fetch_add, one core", fetch_add(1)),
                Row::floor("fetch_add, two cores", fetch_add(2)),
                Row::floor("compare-exchange, one core", compare_exchange(1)),
                Row::floor("compare-exchange, two cores", compare_exchange(2)),
            ]
        }),
    ]
}

/// All columns. Those with more producers alone than cores are left out.
pub fn columns(cores: usize) -> Vec<Column> {
    let mut all = floor_columns();
    for calls in [Calls::Single, Calls::Batch] {
        all.extend([
            spsc::<Line, Seven, Line, 1024, 1024>("64", calls),
            spsc::<FourLines, ThirtyOne, FourLines, 1024, 1024>("256", calls),
            spsc::<Word, Word, Word, 1024, 1024>("8", calls),
            spsc::<Seven, Seven, Line, 1024, 1024>("56", calls),
            spsc::<Line, Seven, Line, 64, 64>("64", calls),
            spsc::<FourLines, ThirtyOne, FourLines, 64, 64>("256", calls),
            spsc::<Word, Word, Word, 64, 64>("8", calls),
            spsc::<Line, Seven, Line, 65_536, 32_768>("64", calls),
            spsc::<FourLines, ThirtyOne, FourLines, 65_536, 32_768>("256", calls),
            spsc::<Word, Word, Word, 65_536, 32_768>("8", calls),
        ]);
    }
    all.extend([
        round_trip::<Line, Seven, Seven>("64"),
        round_trip::<FourLines, ThirtyOne, ThirtyOne>("256"),
        round_trip::<Word, Word, Word>("8"),
        round_trip::<Seven, Seven, Seven>("56"),
    ]);
    for calls in [Calls::Single, Calls::Waiting] {
        all.extend([mpsc::<1, 1024>(calls), mpsc::<2, 512>(calls), mpsc::<4, 256>(calls), mpsc::<8, 128>(calls)]);
    }
    all.push(alone::<2, 16_384>());
    if cores >= 4 {
        all.push(alone::<4, 8192>());
    }
    if cores >= 8 {
        all.push(alone::<8, 4096>());
    }
    for burst in [1, BURST] {
        all.extend([
            one_thread::<Line, Seven>("64", burst),
            one_thread::<FourLines, ThirtyOne>("256", burst),
            one_thread::<Word, Word>("8", burst),
        ]);
    }
    for what in [What::OneThread(1), What::OneThread(BURST), What::Throughput(Calls::Single), What::RoundTrip] {
        all.extend([endpoint::<64>(what), endpoint::<192>(what)]);
    }
    all.extend(fabric_columns());
    all
}
