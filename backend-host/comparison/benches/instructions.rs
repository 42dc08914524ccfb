//! Instructions per operation on the hot paths. `../instructions` runs this under callgrind, once per name, and prints
//! the counts beside the recorded ones. What is counted are the functions `count_NAME`, which do their operation
//! [`TIMES`] times.

use core::hint::black_box;
use k2k_instructions::{
    Found, Known, ShardedEnds, SpscEnds, Stage, TIMES, TicketEnds, Words, sharded, spsc, stage, stage_read, ticket,
};

#[inline(never)]
fn count_spsc_push((tx, _): &mut SpscEnds, words: &Words) {
    for _ in 0..TIMES {
        let _ = black_box(tx.push(black_box(words)));
    }
}

#[inline(never)]
fn count_spsc_pop((_, rx): &mut SpscEnds) {
    for _ in 0..TIMES {
        black_box(rx.pop());
    }
}

#[inline(never)]
fn count_spsc_push_batch((tx, _): &mut SpscEnds, words: &[Words; TIMES]) {
    black_box(tx.push_batch(black_box(words)));
}

#[inline(never)]
fn count_spsc_pop_batch((_, rx): &mut SpscEnds, words: &mut [Words; TIMES]) {
    black_box(rx.pop_batch(black_box(words)));
}

#[inline(never)]
fn count_sharded_push((tx, _): &mut ShardedEnds, words: &Words) {
    for _ in 0..TIMES {
        let _ = black_box(tx.push(black_box(words)));
    }
}

#[inline(never)]
fn count_sharded_pop((_, rx): &mut ShardedEnds) {
    for _ in 0..TIMES {
        black_box(rx.pop());
    }
}

#[inline(never)]
fn count_ticket_push((tx, _): &mut TicketEnds, words: &Words) {
    for _ in 0..TIMES {
        let _ = black_box(tx.push(black_box(words)));
    }
}

#[inline(never)]
fn count_ticket_pop((_, rx): &mut TicketEnds) {
    for _ in 0..TIMES {
        black_box(rx.pop());
    }
}

macro_rules! of_shape {
    ($shape:ty: $send:ident $receive:ident $forward:ident) => {
        #[inline(never)]
        fn $send(stage: &mut Stage<$shape>) {
            for _ in 0..TIMES {
                let _ = black_box(stage.a.send(stage.to, black_box(&stage.message)));
            }
        }

        /// Messages, or that there is none.
        #[inline(never)]
        fn $receive(stage: &mut Stage<$shape>) {
            for _ in 0..TIMES {
                black_box(stage.b.try_receive_into(black_box(&mut stage.message)));
            }
        }

        // One poll forwards all of them.
        #[inline(never)]
        fn $forward(stage: &mut Stage<$shape>) {
            black_box(stage.f.poll());
        }
    };
}
of_shape!(Known: count_send count_receive count_forward);
of_shape!(Found: count_read_send count_read_receive count_read_forward);

/// The same, while receivers count how long messages were on their way.
fn with_latency(stage: Box<Stage<Known>>) -> Box<Stage<Known>> {
    stage.b.fabric().set_latency(true);
    stage
}

const NAMES: [&str; 18] = [
    "spsc_push",
    "spsc_pop",
    "spsc_push_batch",
    "spsc_pop_batch",
    "sharded_push",
    "sharded_pop",
    "ticket_push",
    "ticket_pop",
    "send",
    "receive",
    "receive_nothing",
    "send_latency",
    "receive_latency",
    "forward",
    "read_send",
    "read_receive",
    "read_receive_nothing",
    "read_forward",
];

fn main() {
    let name = std::env::args().nth(1);
    match name.as_deref() {
        None => println!("{TIMES} {}", NAMES.join(" ")),
        Some("spsc_push") => count_spsc_push(&mut spsc(0), &[1; 7]),
        Some("spsc_pop") => count_spsc_pop(&mut spsc(TIMES)),
        Some("spsc_push_batch") => count_spsc_push_batch(&mut spsc(0), &[[1; 7]; TIMES]),
        Some("spsc_pop_batch") => count_spsc_pop_batch(&mut spsc(TIMES), &mut [[1; 7]; TIMES]),
        Some("sharded_push") => count_sharded_push(&mut sharded(0), &[1; 7]),
        Some("sharded_pop") => count_sharded_pop(&mut sharded(TIMES)),
        Some("ticket_push") => count_ticket_push(&mut ticket(0), &[1; 7]),
        Some("ticket_pop") => count_ticket_pop(&mut ticket(TIMES)),
        Some("send") => count_send(&mut stage(0, false)),
        Some("receive") => count_receive(&mut stage(TIMES, false)),
        Some("receive_nothing") => count_receive(&mut stage(0, false)),
        Some("send_latency") => count_send(&mut with_latency(stage(0, false))),
        Some("receive_latency") => count_receive(&mut with_latency(stage(TIMES, false))),
        Some("forward") => count_forward(&mut stage(TIMES, true)),
        Some("read_send") => count_read_send(&mut stage_read(0, false)),
        Some("read_receive") => count_read_receive(&mut stage_read(TIMES, false)),
        Some("read_receive_nothing") => count_read_receive(&mut stage_read(0, false)),
        Some("read_forward") => count_read_forward(&mut stage_read(TIMES, true)),
        Some(other) => {
            eprintln!("nothing is called {other}");
            std::process::exit(2);
        }
    }
}
