//! Ends of rings, for tests and benchmarks: one thread or one warp each.
//!
//! Parameters: address of the ring, first number, how many, patience in ns; what the entry point says; how many bytes
//! further on the ring of the next block is. Values: how many were moved, how many were not as they should be,
//! `%globaltimer` when this block began and when it was done.

use crate::shape::{Body, PRODUCERS, RING_SLOTS, TestSharded, TestSpsc, TestTicket, body};
use k2k_core::KernelId;
use k2k_core::ring::ticket::TicketPop;
use k2k_core::sync::Ordering::Release;
use k2k_core::sync::{AtomicU64, Gpu, ReachesHere, Scope, System};
use k2k_device::{Block, Launch, Outcome, Patience, Warp, thread};

struct Task<'l> {
    block: Block<'l>,
    first: u64,
    count: u64,
    patience: Patience,
    began_ns: u64,
}

impl<'l> Task<'l> {
    /// # Safety
    /// `launch` is a launch.
    unsafe fn of(launch: *const Launch) -> Self {
        // SAFETY: passed on.
        let block = unsafe { Block::of(launch) };
        let patience = Patience::new(block.parameter(3));
        Self {
            block,
            first: block.parameter(1),
            count: block.parameter(2),
            patience,
            began_ns: thread::globaltimer_ns(),
        }
    }

    /// Address of this block's ring.
    fn address(&self) -> u64 {
        self.block.parameter(0) + u64::from(self.block.index()) * self.block.parameter(5)
    }

    /// The ring at parameter 0.
    ///
    /// # Safety
    /// One of that type lies there.
    unsafe fn ring<R>(&self) -> &'l R {
        // SAFETY: passed on.
        unsafe { &*(self.address() as *const R) }
    }

    fn end(&self, moved: u64, bad: u64) {
        let outcome = if moved == self.count && bad == 0 { Outcome::Finished } else { Outcome::CheckFailed };
        self.block.report(outcome, KernelId::NONE, [moved, bad, self.began_ns, thread::globaltimer_ns(), 0, 0, 0]);
    }

    fn end_in_use(&self) {
        self.block.report(Outcome::IndexInUse, KernelId::NONE, [0; 7]);
    }

    /// Calls `step` with how many have been moved, until all are or the patience is over; it says how many more.
    #[inline(always)]
    fn move_all(&self, mut step: impl FnMut(u64) -> u64) -> u64 {
        let mut moved = 0;
        if self.count > 0 {
            let _ = self.patience.wait_until(|| {
                moved += step(moved);
                moved >= self.count
            });
        }
        moved
    }

    /// The same by all threads of a warp.
    #[inline(always)]
    fn move_all_by(&self, warp: &Warp, mut step: impl FnMut(u64) -> u64) -> u64 {
        let mut moved = 0;
        if self.count > 0 {
            let _ = self.patience.wait_until_all(warp, || {
                moved += step(moved);
                moved >= self.count
            });
        }
        moved
    }

    /// Calls `push` with each number until it takes it.
    fn push_all(&self, mut push: impl FnMut(&Body) -> bool) {
        let moved = self.move_all(|moved| u64::from(push(&body(self.first + moved))));
        self.end(moved, 0);
    }
}

/// Whether an element is not number `number`. Without a comparison of arrays, which would take both to local memory.
fn differs(value: &Body, number: u64) -> bool {
    value.iter().zip(body(number)).fold(0, |bits, (found, expected)| bits | (found ^ expected)) != 0
}

fn spsc_produce<S: ReachesHere>(task: &Task<'_>, ring: &TestSpsc<S>) {
    let Ok(mut producer) = ring.producer() else { return task.end_in_use() };
    task.push_all(|value| producer.push(value).is_ok());
}

fn spsc_consume<S: ReachesHere>(task: &Task<'_>, ring: &TestSpsc<S>) {
    let Ok(mut consumer) = ring.consumer() else { return task.end_in_use() };
    let mut bad = 0;
    let moved = task.move_all(|moved| {
        let Some(value) = consumer.pop() else { return 0 };
        bad += u64::from(differs(&value, task.first + moved));
        1
    });
    task.end(moved, bad);
}

/// All threads of the warp; each takes the numbers that its rank makes of the warp's.
unsafe fn warp_produce<S: ReachesHere>(task: &Task<'_>, ring: &TestSpsc<S>) {
    let warp = Warp::this();
    // SAFETY: all threads of the warp go through this function.
    let Ok(mut producer) = (unsafe { ring.group_producer(warp) }) else { return task.end_in_use() };
    let moved = task.move_all_by(&warp, |moved| {
        let count = (task.count - moved).min(u64::from(warp.size())) as u32;
        let value = body(task.first + moved + u64::from(warp.lane()));
        u64::from(producer.push(&value, count))
    });
    if warp.is_leader() {
        task.end(moved, 0);
    }
}

unsafe fn warp_consume<S: ReachesHere>(task: &Task<'_>, ring: &TestSpsc<S>) {
    let warp = Warp::this();
    // SAFETY: all threads of the warp go through this function.
    let Ok(mut consumer) = (unsafe { ring.group_consumer(warp) }) else { return task.end_in_use() };
    let mut bad = 0;
    let moved = task.move_all_by(&warp, |moved| {
        let (count, value) = consumer.pop();
        let number = task.first + moved + u64::from(warp.lane());
        bad += u64::from(warp.ballot(value.is_some_and(|value| differs(&value, number))).count_ones());
        u64::from(count)
    });
    if warp.is_leader() {
        task.end(moved, bad);
    }
}

fn sharded_produce<S: ReachesHere>(task: &Task<'_>, queue: &TestSharded<S>) {
    // A shard per block, from parameter 4 on.
    let shard = task.block.parameter(4).wrapping_add(u64::from(task.block.index()));
    if shard >= PRODUCERS as u64 {
        return task.block.report(Outcome::BadParameter, KernelId::NONE, [4, task.block.parameter(4), 0, 0, 0, 0, 0]);
    }
    let Ok(mut producer) = queue.producer(shard as usize) else { return task.end_in_use() };
    task.push_all(|value| producer.push(value).is_ok());
}

fn sharded_consume<S: ReachesHere>(task: &Task<'_>, queue: &TestSharded<S>) {
    let Ok(mut consumer) = queue.consumer() else { return task.end_in_use() };
    let (mut next, mut bad) = ([task.first; PRODUCERS], 0);
    let moved = task.move_all(|_| {
        let Some((shard, value)) = consumer.pop() else { return 0 };
        bad += u64::from(differs(&value, next[shard]));
        next[shard] += 1;
        1
    });
    task.end(moved, bad);
}

fn ticket_produce(task: &Task<'_>, ring: &TestTicket) {
    let mut producer = ring.producer(task.block.index() as u16);
    task.push_all(|value| producer.push(value).is_ok());
}

fn ticket_consume(task: &Task<'_>, ring: &TestTicket) {
    let Ok(mut consumer) = ring.consumer() else { return task.end_in_use() };
    let mut bad = 0;
    let moved = task.move_all(|_| {
        let TicketPop::Message(value) = consumer.pop() else { return 0 };
        bad += u64::from(differs(&value, value[0]));
        1
    });
    task.end(moved, bad);
}

/// Each message carries the time at which it was pushed, and goes when fewer wait than parameter 4 says.
fn stamp_produce(task: &Task<'_>, ring: &TestSpsc<System>) {
    let Ok(mut producer) = ring.producer() else { return task.end_in_use() };
    let window = (task.block.parameter(4) as usize).clamp(1, RING_SLOTS);
    let moved = task.move_all(|moved| {
        if RING_SLOTS - producer.free_slots() >= window {
            return 0;
        }
        u64::from(producer.push(&[thread::globaltimer_ns(), task.first + moved, 0, 0, 0, 0, 0]).is_ok())
    });
    task.end(moved, 0);
}

/// What a ring's slot is, without a ring.
#[repr(C)]
struct Line<S: Scope> {
    body: Body,
    stamp: AtomicU64<S>,
}

/// Writes lines as a ring's producer does, each published by a release, round and round where a ring's slots would be,
/// and asks nobody whether there is room: what a push costs at least.
///
/// # Safety
/// Of all threads of a warp; `RING_SLOTS` lines lie at the block's address, which nobody reads.
unsafe fn lines<S: ReachesHere>(task: &Task<'_>) {
    let warp = Warp::this();
    let base = task.address() as *mut Line<S>;
    let moved = task.move_all_by(&warp, |moved| {
        let number = task.first + moved + u64::from(warp.lane());
        // SAFETY: one of those lines, and each thread of the warp has one of its own.
        unsafe {
            let line = base.add(number as usize % RING_SLOTS);
            (&raw mut (*line).body).write(body(number));
            // Release: as of a slot's stamp. Nobody acquires it.
            (*line).stamp.store(number, Release);
        }
        u64::from(warp.size())
    });
    warp.sync();
    if warp.is_leader() {
        task.end(moved.min(task.count), 0);
    }
}

macro_rules! lines {
    ($($(#[$doc:meta])* $name:ident: $scope:ident;)*) => { $(
        $(#[$doc])*
        ///
        /// # Safety
        /// `launch` is a launch, and room for the slots of a ring lies at parameter 0.
        #[unsafe(no_mangle)]
        pub(crate) unsafe extern "ptx-kernel" fn $name(launch: *const Launch) {
            // SAFETY: the caller's.
            unsafe { lines::<$scope>(&Task::of(launch)) };
        }
    )* };
}

lines! {
    /// Bare lines to the host: the floor of pushing to it.
    k2k_lines_sys: System;
    /// Bare lines within the device: the floor of pushing from block to block.
    k2k_lines_gpu: Gpu;
}

macro_rules! entry {
    ($($(#[$doc:meta])* $name:ident: $end:ident, $by:ident;)*) => { $(
        $(#[$doc])*
        ///
        /// # Safety
        /// `launch` is a launch, and a ring of the shape lies at parameter 0.
        #[unsafe(no_mangle)]
        pub(crate) unsafe extern "ptx-kernel" fn $name(launch: *const Launch) {
            if entry!(@alone $by) && thread::thread_index() != 0 {
                return;
            }
            // SAFETY: the caller's.
            unsafe {
                let task = Task::of(launch);
                $end(&task, entry!(@ring task, $by));
            }
        }
    )* };
    (@alone thread_system) => { true };
    (@alone thread_gpu) => { true };
    (@alone sharded_system) => { true };
    (@alone sharded_gpu) => { true };
    (@alone ticket) => { true };
    (@alone warp_system) => { false };
    (@alone warp_gpu) => { false };
    (@ring $task:ident, thread_system) => { $task.ring::<TestSpsc<System>>() };
    (@ring $task:ident, thread_gpu) => { $task.ring::<TestSpsc<Gpu>>() };
    (@ring $task:ident, warp_system) => { $task.ring::<TestSpsc<System>>() };
    (@ring $task:ident, warp_gpu) => { $task.ring::<TestSpsc<Gpu>>() };
    (@ring $task:ident, sharded_system) => { $task.ring::<TestSharded<System>>() };
    (@ring $task:ident, sharded_gpu) => { $task.ring::<TestSharded<Gpu>>() };
    (@ring $task:ident, ticket) => { $task.ring::<TestTicket>() };
}

entry! {
    /// A producer of a ring that the host reads.
    k2k_spsc_produce_sys: spsc_produce, thread_system;
    /// A producer whose messages say when they were pushed.
    k2k_stamp_produce_sys: stamp_produce, thread_system;
    /// A consumer of a ring that the host writes.
    k2k_spsc_consume_sys: spsc_consume, thread_system;
    /// A producer of a ring between blocks.
    k2k_spsc_produce_gpu: spsc_produce, thread_gpu;
    /// A consumer of a ring between blocks.
    k2k_spsc_consume_gpu: spsc_consume, thread_gpu;
    /// A warp that produces for the host.
    k2k_warp_produce_sys: warp_produce, warp_system;
    /// A warp that consumes from the host.
    k2k_warp_consume_sys: warp_consume, warp_system;
    /// A warp that produces for another block.
    k2k_warp_produce_gpu: warp_produce, warp_gpu;
    /// A warp that consumes from another block.
    k2k_warp_consume_gpu: warp_consume, warp_gpu;
    /// Producers of a queue that the host reads, a shard per block.
    k2k_sharded_produce_sys: sharded_produce, sharded_system;
    /// The consumer of a queue that the host writes.
    k2k_sharded_consume_sys: sharded_consume, sharded_system;
    /// Producers of a queue between blocks, a shard per block.
    k2k_sharded_produce_gpu: sharded_produce, sharded_gpu;
    /// The consumer of a queue between blocks.
    k2k_sharded_consume_gpu: sharded_consume, sharded_gpu;
    /// Producers of a ticket ring between blocks.
    k2k_ticket_produce: ticket_produce, ticket;
    /// The consumer of a ticket ring between blocks.
    k2k_ticket_consume: ticket_consume, ticket;
}
