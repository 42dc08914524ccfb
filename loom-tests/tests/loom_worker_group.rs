//! A worker group: no worker sees half a job, the leader sees what the workers did, and all can leave.
#![cfg(k2k_loom)]

mod world;

use k2k_core::sync::{System, spin_hint};
use k2k_core::worker_group::{Call, WorkerGroup};
use k2k_loom_tests::model;
use loom::cell::UnsafeCell;
use loom::thread;
use world::shared;

/// What a worker works on: a cell of its own.
struct Bench {
    group: WorkerGroup<u64, 2, System>,
    parts: [UnsafeCell<u64>; 2],
}

// SAFETY: loom checks the accesses to the cells.
unsafe impl Sync for Bench {}

fn bench(f: impl FnOnce(&'static Bench)) {
    let group = k2k_core::sync::Shared::idle();
    shared(Bench { group, parts: [UnsafeCell::new(0), UnsafeCell::new(0)] }, f);
}

/// Adds a number of jobs to its part, or leaves when it is dismissed.
fn work(bench: &'static Bench, number: usize, mut jobs: u32) {
    // SAFETY: one worker of each number.
    let mut worker = unsafe { bench.group.worker(number) };
    while jobs > 0 {
        match worker.look() {
            Call::Wait => spin_hint(),
            Call::Work(job) => {
                // SAFETY: loom checks it.
                bench.parts[number].with_mut(|part| unsafe { *part += job });
                worker.done();
                jobs -= 1;
            }
            Call::Dismissed => return,
        }
    }
}

/// Two jobs, so that the second is written over the first.
#[test]
fn two_jobs() {
    model("worker_group.two_jobs", 120, || {
        bench(|bench| {
            let worker = thread::spawn(move || work(bench, 0, 2));
            // SAFETY: the only leader.
            let mut leader = unsafe { bench.group.leader(1) };
            for (job, sum) in [(1, 1), (10, 11)] {
                assert!(leader.call(&job));
                while !leader.all_done() {
                    spin_hint();
                }
                // SAFETY: loom checks it.
                assert_eq!(bench.parts[0].with(|part| unsafe { *part }), sum);
            }
            worker.join().unwrap();
        });
    });
}

/// All workers, not the first alone. They find the job at once: three that wait for one another are too many for loom.
#[test]
fn two_workers() {
    model("worker_group.two_workers", 57, || {
        bench(|bench| {
            // SAFETY: the only leader.
            let mut leader = unsafe { bench.group.leader(2) };
            assert!(leader.call(&7));
            let workers = [0, 1].map(|number| thread::spawn(move || work(bench, number, 1)));
            while !leader.all_done() {
                spin_hint();
            }
            // SAFETY: loom checks it.
            let parts = [0, 1].map(|i| bench.parts[i].with(|part| unsafe { *part }));
            assert_eq!(parts, [7, 7]);
            for worker in workers {
                worker.join().unwrap();
            }
        });
    });
}

/// A worker that leaves sees what the leader did.
#[test]
fn dismissed() {
    model("worker_group.dismissed", 5, || {
        bench(|bench| {
            let worker = thread::spawn(move || {
                work(bench, 0, 1);
                // SAFETY: loom checks it.
                bench.parts[0].with(|part| unsafe { *part })
            });
            // SAFETY: loom checks it.
            bench.parts[0].with_mut(|part| unsafe { *part = 5 });
            // SAFETY: the only leader.
            unsafe { bench.group.leader(1) }.dismiss();
            // Joined by word of the group, not of the thread.
            assert_eq!(worker.join().unwrap(), 5);
        });
    });
}
