//! A worker group: a leader calls the workers to a job, each does its part, and the leader goes on when all have.
//!
//! ```text
//!   leader        job ──> called = n ······················ done[0] = done[1] = n ──> the next job, or the handler
//!                              │                               ↑
//!   worker 0, 1                └──> a copy of the job, a part ─┘
//! ```
//!
//! In a GPU block the kernel's own thread leads and each further warp is a worker; the words lie in the block's
//! workspace.
//!
//! # Who may touch what
//!
//! 1. `called`: written by the leader, read by the workers. The number of the job, from 1; all ones when there are no
//!    more.
//! 2. `job`: the leader's while every worker is done with the last job; then the workers', to read, until they are
//!    done.
//! 3. `done[i]`: written by worker `i`, read by the leader.
//!
//! # Synchronisation
//!
//! | label | release | acquire | what becomes visible |
//! | --- | --- | --- | --- |
//! | `job-called` | leader's store of `called` | worker's load | the job, and everything that the leader did before |
//! | `job-done` | worker's store of `done` | leader's load | what the worker did for the job, and that it is done reading it |
//!
//! # Progress
//!
//! No call waits. A worker that never comes back keeps the leader from going on: its own code is at fault, and a hang
//! report shows the kernel in its handler.

use crate::sync::Ordering::{Acquire, Relaxed, Release};
use crate::sync::{AtomicU32, AtomicU64, ReachesHere, SharedCell, shared_struct};
use bytemuck::AnyBitPattern;

/// Stands in the place of a job's number when the workers may leave.
const DISMISSED: u32 = u32::MAX;

shared_struct! {
    /// The shared words of a leader and up to `WORKERS` workers. Zeroed memory is a group without a job.
    #[repr(align(128))]
    pub struct WorkerGroup[J: AnyBitPattern + Send, const WORKERS: usize,][J, WORKERS,] in S {
        called: AtomicU32<S>,
        done: [AtomicU32<S>; WORKERS],
        job: JobCell<J>,
    }
}

shared_struct! {
    /// A job where a message's body would be: behind the first word of a line, as bodies are copied.
    #[repr(align(64))]
    struct JobCell[J: AnyBitPattern + Send,][J,] {
        _zero: AtomicU64,
        body: SharedCell<J>,
    }
}

/// The leader's side of a [`WorkerGroup`].
#[derive(Debug)]
pub struct Leader<'b, J: AnyBitPattern + Send, const WORKERS: usize, S: ReachesHere> {
    group: &'b WorkerGroup<J, WORKERS, S>,
    workers: usize,
    number: u32,
    /// All workers were seen to be done with job `number`.
    all_done: bool,
}

/// A worker's side of a [`WorkerGroup`].
#[derive(Debug)]
pub struct Worker<'b, J: AnyBitPattern + Send, const WORKERS: usize, S: ReachesHere> {
    group: &'b WorkerGroup<J, WORKERS, S>,
    worker: usize,
    number: u32,
}

/// What a worker finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call<J> {
    /// Nothing new.
    Wait,
    /// A job: do a part of it, then call [`done`](Worker::done).
    Work(J),
    /// There will be none any more.
    Dismissed,
}

impl<J: AnyBitPattern + Send, const WORKERS: usize, S: ReachesHere> WorkerGroup<J, WORKERS, S> {
    /// The leader, of `workers` workers (`WORKERS` at most).
    ///
    /// # Safety
    /// The group was zero, there is one leader, and one [`worker`](Self::worker) of each number below `workers`.
    pub unsafe fn leader(&self, workers: usize) -> Leader<'_, J, WORKERS, S> {
        Leader { group: self, workers: workers.min(WORKERS), number: 0, all_done: true }
    }

    /// Worker number `worker`.
    ///
    /// # Safety
    /// As for [`leader`](Self::leader).
    pub unsafe fn worker(&self, worker: usize) -> Worker<'_, J, WORKERS, S> {
        Worker { group: self, worker, number: 0 }
    }
}

impl<J: AnyBitPattern + Send, const WORKERS: usize, S: ReachesHere> Leader<'_, J, WORKERS, S> {
    /// Calls all workers to a job; `false`, and nothing has changed, unless they are [done](Self::all_done) with the
    /// last one.
    #[must_use]
    pub fn call(&mut self, job: &J) -> bool {
        if !self.all_done() {
            return false;
        }
        self.all_done = false;
        // SAFETY: rule 2: the workers are done with the last job.
        unsafe { self.group.job.body.body().write(job, size_of::<J>()) };
        self.number = self.number.wrapping_add(1) % DISMISSED;
        // Release [job-called]: the job, and what it points to, are visible to a worker that sees the number.
        self.group.called.store(self.number, Release);
        true
    }

    /// Whether every worker has done its part of the last job.
    pub fn all_done(&mut self) -> bool {
        if !self.all_done {
            let number = self.number;
            // Acquire [job-done]: what the workers did is visible, and they no longer read the job.
            self.all_done = self.group.done.iter().take(self.workers).all(|done| done.load(Acquire) == number);
        }
        self.all_done
    }

    /// Lets the workers leave.
    pub fn dismiss(self) {
        // Release [job-called]: everything that the leader did is visible to workers that leave.
        self.group.called.store(DISMISSED, Release);
    }
}

impl<J: AnyBitPattern + Send, const WORKERS: usize, S: ReachesHere> Worker<'_, J, WORKERS, S> {
    /// Whether there is something to [look](Self::look) at.
    pub fn has_call(&self) -> bool {
        // Relaxed: a hint. The worker that follows it looks.
        self.group.called.load(Relaxed) != self.number
    }

    /// Looks for a job.
    pub fn look(&mut self) -> Call<J> {
        // Acquire [job-called]: the job, and what it points to, are visible.
        match self.group.called.load(Acquire) {
            DISMISSED => Call::Dismissed,
            number if number == self.number => Call::Wait,
            number => {
                self.number = number;
                // SAFETY: rule 2: the leader has called, and waits for this worker before it writes again.
                Call::Work(unsafe { self.group.job.body.body().read() })
            }
        }
    }

    /// Reports that this worker has done its part.
    pub fn done(&mut self) {
        if let Some(done) = self.group.done.get(self.worker) {
            // Release [job-done]: what this worker did is visible to the leader, which may then write the next job.
            done.store(self.number, Release);
        }
    }
}

#[cfg(not(k2k_loom))]
const _: () = assert!(size_of::<WorkerGroup<u64, 31>>() == 256);

#[cfg(test)]
#[cfg(not(k2k_loom))]
mod tests {
    use super::*;
    use crate::sync::System;

    fn group<J: AnyBitPattern + Send, const WORKERS: usize>() -> WorkerGroup<J, WORKERS, System> {
        // SAFETY: `Shared`: zero is the idle state.
        unsafe { core::mem::zeroed() }
    }

    /// As long as a message's body, which is copied in larger pieces than others.
    fn carries<const WORDS: usize, const WORKERS: usize>() {
        let group = group::<[u64; WORDS], WORKERS>();
        // SAFETY: one leader, one worker.
        let (mut leader, mut worker) = unsafe { (group.leader(1), group.worker(0)) };
        assert!(leader.call(&[7; WORDS]));
        assert_eq!(worker.look(), Call::Work([7; WORDS]));
    }

    #[test]
    fn a_job_of_any_length_is_carried_by_a_group_of_any_size() {
        carries::<7, 31>();
        carries::<15, 1>();
        carries::<1, 2>();
    }

    #[test]
    fn a_job_is_not_written_over_while_a_worker_may_read_it() {
        let group = group::<u64, 3>();
        // SAFETY: one leader, one worker.
        let (mut leader, mut worker) = unsafe { (group.leader(1), group.worker(0)) };
        assert!(leader.call(&1));
        assert!(!leader.call(&2));
        assert_eq!(worker.look(), Call::Work(1));
        worker.done();
        assert!(leader.call(&2));
        assert_eq!(worker.look(), Call::Work(2));
    }
}
