//! Instructions per operation on the hot paths, counted by callgrind. `../instructions` prints them beside the recorded
//! ones. Each function does its operation [`TIMES`] times.

use core::hint::black_box;
use gungraun::prelude::*;
use k2k_instructions::{LanesEnds, SpscEnds, Stage, TIMES, TicketEnds, lanes, spsc, stage, ticket};

#[library_benchmark]
#[bench::empty(spsc(0))]
fn spsc_push((mut tx, rx): SpscEnds) -> SpscEnds {
    let words = [1; 7];
    for _ in 0..TIMES {
        let _ = black_box(tx.push(black_box(&words)));
    }
    (tx, rx)
}

#[library_benchmark]
#[bench::full(spsc(TIMES))]
fn spsc_pop((tx, mut rx): SpscEnds) -> SpscEnds {
    for _ in 0..TIMES {
        black_box(rx.pop());
    }
    (tx, rx)
}

#[library_benchmark]
#[bench::empty(lanes(0))]
fn lanes_push((mut tx, rx): LanesEnds) -> LanesEnds {
    let words = [1; 7];
    for _ in 0..TIMES {
        let _ = black_box(tx.push(black_box(&words)));
    }
    (tx, rx)
}

#[library_benchmark]
#[bench::full(lanes(TIMES))]
fn lanes_pop((tx, mut rx): LanesEnds) -> LanesEnds {
    for _ in 0..TIMES {
        black_box(rx.pop());
    }
    (tx, rx)
}

#[library_benchmark]
#[bench::empty(ticket(0))]
fn ticket_push((mut tx, rx): TicketEnds) -> TicketEnds {
    let words = [1; 7];
    for _ in 0..TIMES {
        let _ = black_box(tx.push(black_box(&words)));
    }
    (tx, rx)
}

#[library_benchmark]
#[bench::full(ticket(TIMES))]
fn ticket_pop((tx, mut rx): TicketEnds) -> TicketEnds {
    for _ in 0..TIMES {
        black_box(rx.pop());
    }
    (tx, rx)
}

#[library_benchmark]
#[bench::direct(stage(0, false))]
fn send(mut stage: Box<Stage>) -> Box<Stage> {
    for _ in 0..TIMES {
        let _ = black_box(stage.a.send(stage.to, black_box(&stage.message)));
    }
    stage
}

#[library_benchmark]
#[bench::direct(stage(TIMES, false))]
fn receive(mut stage: Box<Stage>) -> Box<Stage> {
    for _ in 0..TIMES {
        black_box(stage.b.try_receive_into(black_box(&mut stage.message)));
    }
    stage
}

#[library_benchmark]
#[bench::idle(stage(0, false))]
fn receive_nothing(mut stage: Box<Stage>) -> Box<Stage> {
    for _ in 0..TIMES {
        black_box(stage.b.try_receive_into(black_box(&mut stage.message)));
    }
    stage
}

// One poll forwards all of them.
#[library_benchmark]
#[bench::through(stage(TIMES, true))]
fn forward(mut stage: Box<Stage>) -> Box<Stage> {
    black_box(stage.f.poll());
    stage
}

library_benchmark_group!(
    name = hot_paths,
    benchmarks =
        [spsc_push, spsc_pop, lanes_push, lanes_pop, ticket_push, ticket_pop, send, receive, receive_nothing, forward]
);

main!(library_benchmark_groups = hot_paths);
