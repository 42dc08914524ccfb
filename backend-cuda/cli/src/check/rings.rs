//! Rings, without a fabric: each end on the host, on a thread of a device, or on a warp.

use super::{Bench, Failure, Patient, ensure};
use k2k_cuda::{DeviceBuffer, HostBuffer};

use k2k_core::sync::{Gpu, System};
use k2k_core::{Config, ring::Producer};
use k2k_cuda::Error;
use k2k_cuda::{Grid, Session};
use k2k_device::Outcome;
use k2k_kernels::shape::{Body, DeviceShape, PRODUCERS, RING_SLOTS, TestSharded, TestSpsc, TestTicket, body};

type DeviceRunning = Patient<DeviceShape>;

/// Number of the first message: not what zeroed memory would give.
const FIRST: u64 = 1000;

/// Zeroed memory of the size of an `R`, which both sides see. It lives as long as what runs.
struct Shared<R> {
    ring: *const R,
    address: u64,
    buffer: Option<HostBuffer>,
}

impl<R> Shared<R> {
    fn new(bench: &Bench<'_>) -> Result<Self, Failure> {
        let buffer = bench.device.allocate_host(size_of::<R>())?;
        Ok(Self { ring: buffer.as_ptr().cast(), address: buffer.address(), buffer: Some(buffer) })
    }

    /// # Safety
    /// What the buffer was given to still lives.
    unsafe fn get(&self) -> &R {
        // SAFETY: a ring is valid whatever its bytes; large enough; aligned to 256.
        unsafe { &*self.ring }
    }
}

/// A grid for an end of the ring at `address`: `count` messages a block.
fn grid(bench: &Bench<'_>, entry: &str, address: u64, count: u64) -> Grid {
    Grid::new(entry).parameter(0, address).parameter(1, FIRST).parameter(2, count).parameter(3, bench.patience_ns())
}

fn start(bench: &Bench<'_>, grids: impl IntoIterator<Item = Grid>) -> Result<DeviceRunning, Failure> {
    let mut session = Session::new(bench.device, &Config::default())?;
    let grids = Vec::from_iter(grids);
    session.load_for(&bench.ptx, &grids)?;
    for grid in grids {
        // SAFETY: the library's own entry points, given rings of the type that they were compiled for, which are kept.
        unsafe { session.add(grid)? };
    }
    Ok(Patient::new(session.start()?, bench.options.patience))
}

/// What each of several producers sends: together, as many as one would alone. More would need more than the patience
/// of a consumer that takes them over the bus one by one.
fn share(bench: &Bench<'_>, producers: usize) -> u64 {
    (bench.options.messages / producers as u64).max(1)
}

/// Waits for all blocks, and checks that each moved as many of the `all` messages as `counts` says, as they should be.
fn join(bench: &Bench<'_>, mut running: DeviceRunning, all: u64, counts: &[u64]) -> Result<String, Failure> {
    let ended = running.join(bench.options.patience).map_err(|e: Error| Failure(e.to_string()))?;
    for (block, count) in ended.iter().zip(counts) {
        let [moved, bad, ..] = block.report.values;
        ensure!(
            block.outcome() == Some(Outcome::Finished) && (moved, bad) == (*count, 0),
            "{}: {moved} of {count} messages, {bad} of them wrong, outcome {:?}",
            block.name,
            block.outcome()
        );
    }
    Ok(format!("{all} messages"))
}

/// Pushes `each` messages by each producer from the host.
fn push_all(
    bench: &Bench<'_>,
    producers: &mut [impl FnMut(&Body) -> bool],
    each: u64,
    running: &mut DeviceRunning,
) -> Result<(), Failure> {
    let mut next = vec![0; producers.len()];
    bench.until("the device takes what the host sends", || {
        for _ in 0..1000 {
            for (push, next) in producers.iter_mut().zip(&mut next) {
                if *next < each && push(&body(FIRST + *next)) {
                    *next += 1;
                }
            }
        }
        let done = next.iter().all(|next| *next == each);
        // A consumer that has given up says why.
        Ok(done || running.is_finished()?)
    })
}

/// Takes `each` messages of each sender on the host. They count each for itself.
fn pop_all<const SENDERS: usize>(
    bench: &Bench<'_>,
    each: u64,
    mut pop: impl FnMut() -> Option<(usize, Body)>,
    running: &mut DeviceRunning,
) -> Result<(), Failure> {
    let all = each * SENDERS as u64;
    let mut next = [0; SENDERS];
    let mut taken = 0;
    bench.until("the host gets what the device sends", || {
        // Asked before: what a producer that has ended has sent can all be taken.
        let ended = running.is_finished()?;
        let before = taken;
        for _ in 0..1000 {
            let Some((sender, found)) = pop() else { break };
            let number = FIRST + next[sender];
            ensure!(found == body(number), "message {number} of sender {sender} came as {found:x?}");
            next[sender] += 1;
            taken += 1;
        }
        Ok(taken == all || (ended && taken == before))
    })?;
    if taken < all {
        let said: Vec<String> = running.reports()?.iter().map(ToString::to_string).collect();
        return Err(Failure(format!("{taken} of {all} messages came: {}", said.join("; "))));
    }
    Ok(())
}

fn spsc_to(bench: &Bench<'_>, entry: &str) -> Result<String, Failure> {
    let mut shared = Shared::<TestSpsc<System>>::new(bench)?;
    let count = bench.options.messages;
    let mut running = start(bench, [grid(bench, entry, shared.address, count).keep(shared.buffer.take())])?;
    // SAFETY: kept by what runs.
    let mut producer: Producer<'_, Body, RING_SLOTS> =
        unsafe { shared.get() }.producer().map_err(|e| Failure(e.to_string()))?;
    push_all(bench, &mut [|value: &Body| producer.push(value).is_ok()], count, &mut running)?;
    drop(producer);
    join(bench, running, count, &[count])
}

fn spsc_from(bench: &Bench<'_>, entry: &str) -> Result<String, Failure> {
    let mut shared = Shared::<TestSpsc<System>>::new(bench)?;
    let count = bench.options.messages;
    let mut running = start(bench, [grid(bench, entry, shared.address, count).keep(shared.buffer.take())])?;
    // SAFETY: kept by what runs.
    let mut consumer = unsafe { shared.get() }.consumer().map_err(|e| Failure(e.to_string()))?;
    pop_all::<1>(bench, count, || consumer.pop().map(|value| (0, value)), &mut running)?;
    drop(consumer);
    join(bench, running, count, &[count])
}

fn across<R>(bench: &Bench<'_>, from: &str, producers: u32, to: &str) -> Result<String, Failure> {
    let ring: DeviceBuffer = bench.device.allocate(size_of::<R>())?;
    let address = ring.address();
    let each = share(bench, producers as usize);
    let all = each * u64::from(producers);
    let running = start(
        bench,
        [
            grid(bench, from, address, each).name("producer").blocks(producers),
            grid(bench, to, address, all).name("consumer").keep(ring),
        ],
    )?;
    let mut counts = vec![each; producers as usize];
    counts.push(all);
    join(bench, running, all, &counts)
}

pub(super) fn spsc_in(bench: &Bench<'_>) -> Result<String, Failure> {
    spsc_to(bench, "k2k_spsc_consume_sys")
}

pub(super) fn warp_in(bench: &Bench<'_>) -> Result<String, Failure> {
    spsc_to(bench, "k2k_warp_consume_sys")
}

pub(super) fn spsc_out(bench: &Bench<'_>) -> Result<String, Failure> {
    spsc_from(bench, "k2k_spsc_produce_sys")
}

pub(super) fn warp_out(bench: &Bench<'_>) -> Result<String, Failure> {
    spsc_from(bench, "k2k_warp_produce_sys")
}

pub(super) fn spsc_across(bench: &Bench<'_>) -> Result<String, Failure> {
    across::<TestSpsc<Gpu>>(bench, "k2k_spsc_produce_gpu", 1, "k2k_spsc_consume_gpu")
}

pub(super) fn warp_across(bench: &Bench<'_>) -> Result<String, Failure> {
    across::<TestSpsc<Gpu>>(bench, "k2k_warp_produce_gpu", 1, "k2k_warp_consume_gpu")
}

pub(super) fn sharded_across(bench: &Bench<'_>) -> Result<String, Failure> {
    across::<TestSharded<Gpu>>(bench, "k2k_sharded_produce_gpu", PRODUCERS as u32, "k2k_sharded_consume_gpu")
}

pub(super) fn ticket_across(bench: &Bench<'_>) -> Result<String, Failure> {
    across::<TestTicket>(bench, "k2k_ticket_produce", PRODUCERS as u32, "k2k_ticket_consume")
}

pub(super) fn sharded_in(bench: &Bench<'_>) -> Result<String, Failure> {
    let mut shared = Shared::<TestSharded<System>>::new(bench)?;
    let each = share(bench, PRODUCERS);
    let all = each * PRODUCERS as u64;
    let grid = grid(bench, "k2k_sharded_consume_sys", shared.address, all).keep(shared.buffer.take());
    let mut running = start(bench, [grid])?;
    // SAFETY: kept by what runs.
    let queue = unsafe { shared.get() };
    let producers = (0..PRODUCERS).map(|shard| queue.producer(shard)).collect::<Result<Vec<_>, _>>();
    let mut producers = producers.map_err(|e| Failure(e.to_string()))?;
    let mut pushes: Vec<_> = producers.iter_mut().map(|end| |value: &Body| end.push(value).is_ok()).collect();
    push_all(bench, &mut pushes, each, &mut running)?;
    drop(producers);
    join(bench, running, all, &[all])
}

pub(super) fn sharded_out(bench: &Bench<'_>) -> Result<String, Failure> {
    let mut shared = Shared::<TestSharded<System>>::new(bench)?;
    let each = share(bench, PRODUCERS);
    let grid = grid(bench, "k2k_sharded_produce_sys", shared.address, each).blocks(PRODUCERS as u32);
    let mut running = start(bench, [grid.keep(shared.buffer.take())])?;
    // SAFETY: kept by what runs.
    let mut consumer = unsafe { shared.get() }.consumer().map_err(|e| Failure(e.to_string()))?;
    pop_all::<PRODUCERS>(bench, each, || consumer.pop(), &mut running)?;
    drop(consumer);
    join(bench, running, each * PRODUCERS as u64, &[each; PRODUCERS])
}
