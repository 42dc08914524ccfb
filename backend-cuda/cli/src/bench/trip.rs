//! There and back.

use super::Failure;
use super::rig::{Rig, Spread, all_finished, patient};
use super::row::{Figure, Row, Target, Unit};
use crate::check::{Gate, ensure};
use k2k::{Broker, Fixed, Memory};
use k2k_core::gateway::GatewayConfig;
use k2k_core::sync::Ordering::Relaxed;
use k2k_core::sync::{AtomicU64, Gpu, System};
use k2k_core::{KernelId, Message, SendError};
use k2k_cuda::Ptx;
use k2k_cuda::{Grid, Session};
use k2k_device::Outcome;
use k2k_kernels::handlers::RoleKind;
use k2k_kernels::shape::{DeviceShape, KERNELS, PAYLOAD, SLOTS, TestSpsc};
use std::thread;

/// Between words that are polled from different sides.
const LINE: usize = 128;

const FLAG: &str = "bare flag";

/// Host, device, host: a flag, a ring, a message between kernels.
pub(super) fn host(rig: &Rig<'_>) -> Result<Vec<Row>, Failure> {
    let flag = host_flag(rig)?;
    let over_flag = |spread: Spread| spread.median().over(FLAG, flag.p50);
    Ok(vec![
        rig.row("bare flag, p50", Ok(flag.median())),
        rig.row("ring, p50", host_ring(rig).map(over_flag)).target(Target::TimesFloor(1.1)),
        rig.row("kernel to kernel, p50", host_message(rig).map(over_flag)),
    ])
}

pub(super) fn host_flag(rig: &Rig<'_>) -> Result<Spread, Failure> {
    let buffer = rig.device.allocate_host(2 * LINE)?;
    let (base, address) = (buffer.as_ptr(), buffer.address());
    let grid = Grid::new("k2k_flag_sys")
        .parameter(0, address)
        .parameter(1, address + LINE as u64)
        .parameter(2, rig.trips())
        .parameter(3, rig.tools.patience_ns());
    let mut running = rig.start([grid.keep(buffer)])?;
    // SAFETY: two aligned words of that buffer, which `running` keeps.
    let (to, from) = unsafe { (&*base.cast::<AtomicU64>(), &*base.add(LINE).cast::<AtomicU64>()) };
    let spread = rig.time(|number| {
        // Relaxed, as below: nothing is published by it.
        to.store(number, Relaxed);
        rig.spin("the flag comes back", || Ok(from.load(Relaxed) == number))
    })?;
    rig.join(&mut running)?;
    Ok(spread)
}

pub(super) fn host_ring(rig: &Rig<'_>) -> Result<Spread, Failure> {
    let size = size_of::<TestSpsc<System>>();
    let buffer = rig.device.allocate_host(2 * size)?;
    let (base, address) = (buffer.as_ptr(), buffer.address());
    let grid = Grid::new("k2k_pong_sys")
        .parameter(0, address)
        .parameter(1, address + size as u64)
        .parameter(2, rig.trips())
        .parameter(3, rig.tools.patience_ns());
    let mut running = rig.start([grid.keep(buffer)])?;
    // SAFETY: room for two rings, which are valid whatever their bytes; aligned to 256; `running` keeps them.
    let (to, from) = unsafe { (&*base.cast::<TestSpsc<System>>(), &*base.add(size).cast::<TestSpsc<System>>()) };
    let mut to = to.producer().map_err(|e| Failure(e.to_string()))?;
    let mut from = from.consumer().map_err(|e| Failure(e.to_string()))?;
    let spread = rig.time(|number| {
        ensure!(to.push(&[number; 7]).is_ok(), "a ring with one message is full");
        rig.spin("the message comes back", || {
            let Some(found) = from.pop() else { return Ok(false) };
            ensure!(found == [number; 7], "message {number} came back as {found:?}");
            Ok(true)
        })
    })?;
    drop((to, from));
    rig.join(&mut running)?;
    Ok(spread)
}

/// From a kernel of the host through both gateways to one of the device, and its answer.
fn host_message(rig: &Rig<'_>) -> Result<Spread, Failure> {
    let memory = Memory::<Fixed<KERNELS, SLOTS, PAYLOAD>>::heap(&patient()).map_err(|e| Failure(e.to_string()))?;
    let mut session = Session::<DeviceShape>::new(rig.device, &patient())?;
    session.load(&Ptx::library().only(&["k2k_echo"])?)?;
    // SAFETY: the library's own entry point, which takes no address.
    unsafe { session.add(Grid::new("k2k_echo").name("echo"))? };
    session.bridge("gateway", &memory, GatewayConfig::default())?;
    let mut running = session.start()?;
    let broker = Broker::new(memory);
    let mut me = broker.register("me").map_err(|e| Failure(e.to_string()))?;
    let mut found = None;
    rig.tools.until("the echo is announced", || {
        found = broker.find("echo");
        Ok(found.is_some())
    })?;
    let echo = found.ok_or_else(|| Failure("no echo".to_owned()))?;
    let spread = rig.time(|number| {
        let message = Message::from_value(1, &number);
        rig.spin("the message is accepted", || match me.send(echo, &message) {
            Ok(_) => Ok(true),
            Err(SendError::QueueFull { .. }) => Ok(false),
            Err(e) => Err(Failure(e.to_string())),
        })?;
        rig.spin("the answer comes", || {
            let Some(answer) = me.try_receive() else { return Ok(false) };
            ensure!(answer.value::<u64>() == Ok(number), "the answer to {number} is another");
            Ok(true)
        })
    })?;
    all_finished(&running.stop(rig.options.patience)?)?;
    Ok(spread)
}

/// Two blocks: a flag in the device's memory, a ring, a message between kernels.
pub(super) fn blocks(rig: &Rig<'_>) -> Result<Vec<Row>, Failure> {
    let flag = block_flag(rig)?;
    let mean = |ns: f64| Figure::new(ns, Unit::Nanoseconds).with([("count", rig.trips() as f64)]);
    Ok(vec![
        rig.row("bare flag in L2, mean", Ok(mean(flag))),
        rig.row("ring, mean", block_ring(rig).map(|ns| mean(ns).over(FLAG, flag))),
        rig.row("kernel to kernel, mean", through(rig, 0).map(|spread| spread.average().over(FLAG, flag))),
    ])
}

/// Two blocks of an entry point that exchange something through two places of `size` bytes: ns per round trip.
fn exchange(rig: &Rig<'_>, entry: &str, size: usize) -> Result<f64, Failure> {
    let buffer = rig.device.allocate(2 * size)?;
    let grid = Grid::new(entry)
        .blocks(2)
        .parameter(0, buffer.address())
        .parameter(1, buffer.address() + size as u64)
        .parameter(2, rig.trips())
        .parameter(3, rig.tools.patience_ns());
    let ended = rig.run([grid.keep(buffer)])?;
    // The first block asks.
    let [done, ns, ..] = ended.first().map_or([0; 7], |block| block.report.values);
    ensure!(done == rig.trips(), "{done} round trips of {}", rig.trips());
    Ok(ns as f64 / done as f64)
}

pub(super) fn block_flag(rig: &Rig<'_>) -> Result<f64, Failure> {
    exchange(rig, "k2k_flag_gpu", LINE)
}

fn block_ring(rig: &Rig<'_>) -> Result<f64, Failure> {
    exchange(rig, "k2k_pong_gpu", size_of::<TestSpsc<Gpu>>())
}

/// A ping and an echo in one fabric; the question goes through `relays` relays, the answer straight back.
fn through(rig: &Rig<'_>, relays: u32) -> Result<Spread, Failure> {
    let count = rig.trips() as usize;
    let samples = rig.device.allocate(count * size_of::<u32>())?;
    let mut gate = Gate::new(&rig.tools)?;
    let role = |kind: RoleKind, name: &str| Grid::new("k2k_role").name(name).parameter(0, kind as u64);
    let ping = role(RoleKind::Ping, "ping")
        .parameter(1, KernelId::new(0, 1).raw())
        .parameter(2, count as u64)
        .parameter(7, samples.address());
    let mut session = Session::<DeviceShape>::new(rig.device, &patient())?;
    let mut grids = vec![role(RoleKind::Echo, "echo"), gate.before_ping(ping)];
    if relays > 0 {
        grids.push(role(RoleKind::Relay, "relay").blocks(relays));
    }
    session.load_for(&rig.tools.ptx, &grids)?;
    for grid in grids {
        // SAFETY: the library's own entry point; `samples` is freed when nothing runs.
        unsafe { session.add(grid)? };
    }
    let mut running = session.start()?;
    let ids = running.wait_ready(rig.options.patience)?;
    ensure!(ids.len() == 2 + relays as usize, "{} kernels have registered", ids.len());
    let mut at = ids[1];
    for relay in &ids[2..] {
        running.set_route(at, ids[0], Some(*relay))?;
        at = *relay;
    }
    // SAFETY: `running` keeps it.
    unsafe { gate.open() };
    rig.tools.until("the ping is done", || {
        thread::sleep(core::time::Duration::from_millis(1));
        Ok(running.reports()?.iter().any(|block| block.name == "ping" && block.outcome() == Some(Outcome::Finished)))
    })?;
    let forwarded = running.observe()?.total_stats().forwarded;
    ensure!(forwarded == u64::from(relays) * count as u64, "{forwarded} hops in {count} round trips");
    let ended = running.stop(rig.options.patience)?;
    all_finished(&ended)?;
    let [done, wrong, ..] = ended.iter().find(|block| block.name == "ping").map_or([0; 7], |ping| ping.report.values);
    ensure!((done, wrong) == (count as u64, 0), "{done} of {count} round trips, {wrong} wrong answers");
    let mut found = vec![0u32; count];
    samples.read(0, bytemuck::cast_slice_mut(&mut found))?;
    Ok(Spread::of(found.into_iter().skip(rig.dropped() as usize).map(u64::from).collect()))
}

/// What each relay adds to a round trip.
pub(super) fn hops(rig: &Rig<'_>) -> Result<Vec<Row>, Failure> {
    const NAMES: [&str; 4] = ["direct", "1 relay", "2 relays", "3 relays"];
    let flag = block_flag(rig)?;
    let means = (0..4).map(|relays| Ok(through(rig, relays)?.mean)).collect::<Result<Vec<f64>, Failure>>()?;
    // Least squares: the mean of 0 to 3 is 1.5, and the squares of what they differ from it add up to 5.
    let slope = (0..).zip(&means).map(|(relays, mean)| (f64::from(relays) - 1.5) * mean).sum::<f64>() / 5.0;
    let figure = if slope > 0.0 {
        Ok(Figure::new(slope, Unit::Nanoseconds)
            .over("bare flag, one way", flag / 2.0)
            .with(NAMES.into_iter().zip(means)))
    } else {
        Err(Failure(format!("lost in noise: {means:.0?} ns through 0 to 3 relays")))
    };
    Ok(vec![rig.row("per hop, mean", figure)])
}
