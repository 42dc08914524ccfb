//! A leader and its hands: no hand sees half a job, the leader sees what the hands did, and all can leave.
#![cfg(k2k_loom)]

mod world;

use k2k_core::crew::{Board, Call};
use k2k_core::sync::{System, spin_hint};
use k2k_loom_tests::model;
use loom::cell::UnsafeCell;
use loom::thread;
use world::shared;

/// What a hand works on: a cell of its own.
struct Bench {
    board: Board<u64, 2, System>,
    shares: [UnsafeCell<u64>; 2],
}

// SAFETY: loom checks the accesses to the cells.
unsafe impl Sync for Bench {}

fn bench(f: impl FnOnce(&'static Bench)) {
    let board = k2k_core::sync::Shared::idle();
    shared(Bench { board, shares: [UnsafeCell::new(0), UnsafeCell::new(0)] }, f);
}

/// Adds a number of jobs to its share, or leaves when it is dismissed.
fn work(bench: &'static Bench, number: usize, mut jobs: u32) {
    // SAFETY: one hand of each number.
    let mut hand = unsafe { bench.board.hand(number) };
    while jobs > 0 {
        match hand.look() {
            Call::Wait => spin_hint(),
            Call::Work(job) => {
                // SAFETY: loom checks it.
                bench.shares[number].with_mut(|share| unsafe { *share += job });
                hand.done();
                jobs -= 1;
            }
            Call::Dismissed => return,
        }
    }
}

/// Two jobs, so that the second is written over the first.
#[test]
fn two_jobs() {
    model("crew.two_jobs", 120, || {
        bench(|bench| {
            let hand = thread::spawn(move || work(bench, 0, 2));
            // SAFETY: the only leader.
            let mut leader = unsafe { bench.board.leader(1) };
            for (job, sum) in [(1, 1), (10, 11)] {
                assert!(leader.call(&job));
                while !leader.all_done() {
                    spin_hint();
                }
                // SAFETY: loom checks it.
                assert_eq!(bench.shares[0].with(|share| unsafe { *share }), sum);
            }
            hand.join().unwrap();
        });
    });
}

/// All hands, not the first alone. They find the job at once: three that wait for one another are too many for loom.
#[test]
fn two_hands() {
    model("crew.two_hands", 57, || {
        bench(|bench| {
            // SAFETY: the only leader.
            let mut leader = unsafe { bench.board.leader(2) };
            assert!(leader.call(&7));
            let hands = [0, 1].map(|number| thread::spawn(move || work(bench, number, 1)));
            while !leader.all_done() {
                spin_hint();
            }
            // SAFETY: loom checks it.
            let shares = [0, 1].map(|i| bench.shares[i].with(|share| unsafe { *share }));
            assert_eq!(shares, [7, 7]);
            for hand in hands {
                hand.join().unwrap();
            }
        });
    });
}

/// A hand that leaves sees what the leader did.
#[test]
fn dismissed() {
    model("crew.dismissed", 5, || {
        bench(|bench| {
            let hand = thread::spawn(move || {
                work(bench, 0, 1);
                // SAFETY: loom checks it.
                bench.shares[0].with(|share| unsafe { *share })
            });
            // SAFETY: loom checks it.
            bench.shares[0].with_mut(|share| unsafe { *share = 5 });
            // SAFETY: the only leader.
            unsafe { bench.board.leader(1) }.dismiss();
            // Joined by word of the board, not of the thread.
            assert_eq!(hand.join().unwrap(), 5);
        });
    });
}
