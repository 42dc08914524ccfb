//! From the device to the host. A message counts when the host has taken it out of the ring and looked at it.

use super::Failure;
use super::rig::{Rig, Spread, rate};
use super::row::{Figure, Row, Target, Unit};
use super::trip::host_ring;
use crate::check::ensure;
use k2k_core::ring::Consumer;
use k2k_core::sync::System;
use k2k_cuda::BlockReport;
use k2k_cuda::Grid;
use k2k_kernels::shape::{Body, RING_SLOTS, TestSpsc, body};
use std::thread;
use std::time::Instant;

type HostConsumer = Consumer<'static, Body, RING_SLOTS>;

/// Number of each ring's first message: not what zeroed memory would give.
const FIRST: u64 = 1000;

/// Warps with a ring each: 1024 threads.
const WARPS: u32 = 32;

pub(super) fn rates(rig: &Rig<'_>) -> Result<Vec<Row>, Failure> {
    const LINES: &str = "bare lines";
    let (few, many) = (rig.messages(5), rig.messages(1));
    let warps = WARPS.min(rig.blocks());
    let threads = rig.host_threads(warps as usize) as f64;
    let per_message = |rate: f64, floor: f64| Figure::new(1e9 / rate, Unit::Nanoseconds).over(LINES, 1e9 / floor);
    let per_second = |rate: f64, floor: f64| Figure::new(rate, Unit::PerSecond).over(LINES, floor);
    let one = push(rig, "k2k_spsc_produce_sys", 1, few).and_then(|rate| Ok(per_message(rate, lines(rig, 1, 1, few)?)));
    let warp = push(rig, "k2k_warp_produce_sys", 1, many);
    let warp = warp.and_then(|rate| Ok(per_second(rate, lines(rig, 1, 32, many)?)));
    let all = push(rig, "k2k_warp_produce_sys", warps, many);
    let all = all.and_then(|rate| Ok(per_second(rate, lines(rig, warps, 32, many)?)));
    let all = all.map(|figure| figure.with([("warps", f64::from(warps)), ("host threads", threads)]));
    Ok(vec![
        rig.row("1 thread, each by itself", one).target(Target::AtMost(1_900.0)),
        rig.row("1 warp", warp).target(Target::AtLeast(5e6)),
        rig.row("1024 threads, a ring a warp", all),
    ])
}

/// Lines per second that reach the host without a ring.
fn lines(rig: &Rig<'_>, blocks: u32, threads: u32, each: u64) -> Result<f64, Failure> {
    let size = size_of::<TestSpsc<System>>();
    let buffer = rig.device.allocate_host(size * blocks as usize)?;
    let grid = grid(rig, "k2k_lines_sys", buffer.address(), blocks, each).threads(threads);
    let ended = rig.run([grid.keep(buffer)])?;
    Ok(rate(&ended, each * u64::from(blocks)))
}

fn grid(rig: &Rig<'_>, entry: &str, address: u64, blocks: u32, each: u64) -> Grid {
    Grid::new(entry)
        .blocks(blocks)
        .parameter(0, address)
        .parameter(1, FIRST)
        .parameter(2, each)
        .parameter(3, rig.tools.patience_ns())
        .parameter(5, size_of::<TestSpsc<System>>() as u64)
}

/// Messages per second of `rings` blocks with a ring each, from the first that the host takes to the last.
fn push(rig: &Rig<'_>, entry: &str, rings: u32, each: u64) -> Result<f64, Failure> {
    let (times, _) = take(rig, entry, rings, each, |consumers| {
        let mut next = vec![FIRST; consumers.len()];
        let mut left = each * consumers.len() as u64;
        let mut batch = [Body::default(); RING_SLOTS / 2];
        let mut first = None;
        while left > 0 {
            rig.spin("messages come", || {
                let mut taken = 0;
                for (consumer, next) in consumers.iter_mut().zip(&mut next) {
                    let count = consumer.pop_batch(&mut batch);
                    if count > 0 {
                        first.get_or_insert_with(Instant::now);
                    }
                    for found in &batch[..count] {
                        ensure!(*found == body(*next), "message {next} came as {found:x?}");
                        *next += 1;
                    }
                    taken += count as u64;
                }
                left -= taken;
                Ok(taken > 0)
            })?;
        }
        let last = Instant::now();
        Ok((first.unwrap_or(last), last))
    })?;
    let first = times.iter().map(|(first, _)| *first).min();
    let last = times.iter().map(|(_, last)| *last).max();
    let took = first.zip(last).map_or(1.0, |(first, last)| last.duration_since(first).as_secs_f64());
    Ok((each * u64::from(rings)) as f64 / took.max(1e-9))
}

/// Runs producers, and lets threads of the host share their rings.
fn take<R: Send>(
    rig: &Rig<'_>,
    entry: &str,
    rings: u32,
    each: u64,
    consume: impl Fn(&mut [HostConsumer]) -> Result<R, Failure> + Sync,
) -> Result<(Vec<R>, Vec<BlockReport>), Failure> {
    let size = size_of::<TestSpsc<System>>();
    let buffer = rig.device.allocate_host(size * rings as usize)?;
    let base = buffer.as_ptr();
    let grid = grid(rig, entry, buffer.address(), rings, each).keep(buffer);
    let mut running = rig.start([grid.parameter(4, 1)])?;
    let consumers = (0..rings as usize).map(|i| {
        // SAFETY: room for so many rings, which are valid whatever their bytes; aligned to 256. `running` keeps them,
        // and the consumers do not outlive this function.
        let ring = unsafe { &*base.add(i * size).cast::<TestSpsc<System>>() };
        ring.consumer().map_err(|e| Failure(e.to_string()))
    });
    let mut consumers = consumers.collect::<Result<Vec<_>, _>>()?;
    let share = consumers.len().div_ceil(rig.host_threads(consumers.len()));
    let results = thread::scope(|scope| {
        let threads: Vec<_> = consumers.chunks_mut(share).map(|rings| scope.spawn(|| consume(rings))).collect();
        let results = threads.into_iter().map(|thread| {
            thread.join().unwrap_or_else(|_| Err(Failure("a thread of the benchmark has panicked".to_owned())))
        });
        results.collect::<Result<Vec<_>, _>>()
    })?;
    drop(consumers);
    let ended = rig.join(&mut running)?;
    Ok((results, ended))
}

/// How long after it was pushed a message is taken, when many producers push as fast as their messages are taken, each
/// one at a time.
///
/// The two clocks differ, and drift. So each message is compared with the fastest of some thousand around it, and the
/// fastest is taken to need no less than a whole round trip of a ring on an idle bus, which a push is a part of. That
/// is a little too much.
pub(super) fn lateness(rig: &Rig<'_>) -> Result<Vec<Row>, Failure> {
    const AROUND: usize = 4096;
    let alone = host_ring(rig)?;
    let rings = rig.blocks();
    let each = (rig.options.trips / 5).max(20);
    let zero = Instant::now();
    let (late, _) = take(rig, "k2k_stamp_produce_sys", rings, each, |consumers| {
        let mut left = each * consumers.len() as u64;
        let mut next = vec![FIRST; consumers.len()];
        let mut late = Vec::with_capacity(left as usize);
        while left > 0 {
            rig.spin("messages come", || {
                let mut any = false;
                for (consumer, next) in consumers.iter_mut().zip(&mut next) {
                    let Some(found) = consumer.pop() else { continue };
                    let now_ns = zero.elapsed().as_nanos() as u64;
                    // The next time round it finds nothing, and says how far it has read.
                    ensure!(found[1] == *next, "message {next} came as {}", found[1]);
                    late.push(now_ns.wrapping_sub(found[0]).cast_signed());
                    *next += 1;
                    left -= 1;
                    any = true;
                }
                Ok(any)
            })?;
        }
        for around in late.chunks_mut(AROUND) {
            let fastest = around.iter().min().copied().unwrap_or(0);
            around.iter_mut().for_each(|late| *late -= fastest);
        }
        Ok(late)
    })?;
    let samples = late.into_iter().flatten().map(|late| late.unsigned_abs() + alone.least as u64).collect();
    let threads = rig.host_threads(rings as usize) as f64;
    let figure = Spread::of(samples).late().over("one message on an idle bus, there and back", alone.p50);
    let figure = figure.with([("producers", f64::from(rings)), ("host threads", threads)]);
    Ok(vec![rig.row("from push to pop, p99, at most", Ok(figure)).target(Target::AtMost(8_000.0))])
}
