//! A worker group in a block: the first thread runs the kernel, every further warp is a worker.

use super::block::{Block, run};
use super::thread::{rest, thread_index, threads};
use super::warp::Warp;
use crate::job::Job;
use crate::launch::{Launch, Outcome};
use k2k_core::sync::Gpu;
use k2k_core::worker_group::{Call, Leader, WorkerGroup};
use k2k_core::{Kernel, KernelId, Message, Shape};

/// Warps of a block beside the first.
const WORKERS: usize = 31;

/// Rest between two looks, ns.
const REST_NS: u32 = 50;

/// The worker group of this block, as its handler calls it to jobs.
#[derive(Debug)]
pub struct Workers<J: Job> {
    leader: Leader<'static, J, WORKERS, Gpu>,
    members: u32,
}

/// Bytes of workspace that the workers need, at its end.
#[must_use]
pub const fn workers_workspace_len<J: Job>() -> u64 {
    (size_of::<WorkerGroup<J, WORKERS, Gpu>>() as u64).next_multiple_of(256)
}

/// The group at the end of the block's workspace.
///
/// # Safety
/// It has room for one, and nobody else uses it.
unsafe fn group<J: Job>(block: &Block<'_>) -> &'static WorkerGroup<J, WORKERS, Gpu> {
    let (workspace, len) = block.workspace();
    // The workspace starts and ends at a multiple of 256.
    let at = len - workers_workspace_len::<J>();
    // SAFETY: passed on; any bytes are a group.
    unsafe { &*workspace.add(at as usize).cast() }
}

/// Warps of this block beside the first.
fn workers() -> usize {
    (threads().div_ceil(32) - 1) as usize
}

impl<J: Job> Workers<J> {
    /// # Safety
    /// Called once, by the block's first thread, in a block whose other warps serve.
    unsafe fn of(block: &Block<'_>) -> Self {
        // SAFETY: passed on.
        let leader = unsafe { group(block).leader(workers()) };
        // The first warp polls; its first thread does a part beside the workers.
        Self { leader, members: 1 + threads().saturating_sub(32) }
    }

    /// How many parts a job is cut into: one for the kernel's own thread, one for each thread of the other warps.
    #[must_use]
    pub const fn members(&self) -> u32 {
        self.members
    }

    /// Does a job: all members their parts at once. What they wrote is visible to the caller afterwards.
    pub fn work(&mut self, job: &J) {
        // The workers were done when the last call returned.
        let _ = self.leader.call(job);
        job.part(0, self.members);
        while !self.leader.all_done() {
            rest(REST_NS);
        }
    }
}

/// A worker: does its threads' parts of each job until there are no more.
///
/// # Safety
/// Called by all threads of a warp that is not the block's first, once, with room for the group.
unsafe fn serve<J: Job>(block: &Block<'_>) {
    let warp = Warp::this();
    // SAFETY: passed on; a worker per warp. Each thread keeps a copy of it, and all copies move alike.
    let mut worker = unsafe { group::<J>(block).worker((thread_index() / 32 - 1) as usize) };
    let member = thread_index() - 31;
    let members = 1 + threads().saturating_sub(32);
    loop {
        let called = warp.is_leader() && worker.has_call();
        warp.sync();
        if warp.leaders(u32::from(called)) == 0 {
            rest(REST_NS);
            continue;
        }
        // What the leader has seen is there for all: each looks for itself, and so has the job.
        match worker.look() {
            Call::Work(job) => job.part(member, members),
            Call::Dismissed => return,
            Call::Wait => {}
        }
        // All parts are done before one thread reports it for the warp.
        warp.sync();
        if warp.is_leader() {
            worker.done();
        }
    }
}

/// As [`run`](super::block::run), with a [`Workers`] for the handler: all threads of the block but the first warp's
/// others are its members.
///
/// # Safety
/// As for [`run`](super::block::run).
pub unsafe fn run_with_workers<H, J: Job, Sh: Shape<Item = Message<PAYLOAD>, Scope = Gpu>, const PAYLOAD: usize>(
    launch: *const Launch,
    make: impl FnOnce(&Block<'_>, Workers<J>, &'static mut [u8]) -> Result<H, (Outcome, [u64; 7])>,
    values: impl FnOnce(&H) -> [u64; 7],
) where
    H: Kernel<PAYLOAD>,
{
    // SAFETY: passed on.
    let block = unsafe { Block::of(launch) };
    let (_, len) = block.workspace();
    let needed = workers_workspace_len::<J>();
    if len < needed {
        if thread_index() == 0 {
            block.report(Outcome::SmallWorkspace, KernelId::NONE, [len, needed, 0, 0, 0, 0, 0]);
        }
        return;
    }
    if thread_index() >= 32 {
        // SAFETY: passed on.
        return unsafe { serve::<J>(&block) };
    }
    let make = |block: &Block<'_>, rest: &'static mut [u8]| {
        let left = rest.len().saturating_sub(needed as usize);
        // SAFETY: the only leader; the other warps serve.
        make(block, unsafe { Workers::of(block) }, rest.split_at_mut(left).0)
    };
    // SAFETY: passed on.
    unsafe { run::<H, Sh, PAYLOAD>(launch, make, values) };
    if thread_index() == 0 {
        // SAFETY: the only leader: the handler's is gone, or was never made.
        unsafe { group::<J>(&block).leader(0) }.dismiss();
    }
}
