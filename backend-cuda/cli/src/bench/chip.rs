//! As many messages as go between all blocks. Receivers count them, and senders have a receipt for each.

use super::Failure;
use super::rig::{Rig, all_finished, patient, rate};
use super::row::{Figure, Row, Target, Unit};
use crate::check::{Gate, ensure};
use k2k_core::KernelId;
use k2k_core::sync::Gpu;
use k2k_cuda::BlockReport;
use k2k_cuda::{Grid, Session};
use k2k_kernels::handlers::{RoleKind, Tally};
use k2k_kernels::shape::{CHIP_SLOTS, ChipShape, TestSpsc};
use std::time::Instant;

/// Undecided messages of a sender: half of what a shard holds.
const WINDOW: u64 = CHIP_SLOTS as u64 / 2;

/// Over the chip.
const TARGET: Target = Target::AtLeast(50e6);

/// Warp to warp, without a fabric.
pub(super) fn rings(rig: &Rig<'_>) -> Result<Vec<Row>, Failure> {
    let pairs = rig.blocks() / 2;
    let lines = bare(rig, pairs)?;
    let figure = warps(rig, pairs)
        .map(|rate| Figure::new(rate, Unit::PerSecond).over("bare lines", lines).with([("pairs", f64::from(pairs))]));
    Ok(vec![rig.row("warp to warp, in pairs", figure).target(TARGET)])
}

fn end(rig: &Rig<'_>, entry: &str, address: u64, blocks: u32) -> Grid {
    Grid::new(entry)
        .blocks(blocks)
        .parameter(0, address)
        .parameter(1, 1000)
        .parameter(2, rig.messages(1))
        .parameter(3, rig.tools.patience_ns())
        .parameter(5, size_of::<TestSpsc<Gpu>>() as u64)
}

/// Lines per second that so many warps write.
fn bare(rig: &Rig<'_>, blocks: u32) -> Result<f64, Failure> {
    let buffer = rig.device.allocate(size_of::<TestSpsc<Gpu>>() * blocks as usize)?;
    let grid = end(rig, "k2k_lines_gpu", buffer.address(), blocks).keep(buffer);
    let ended = rig.run([grid])?;
    Ok(rate(&ended, rig.messages(1) * u64::from(blocks)))
}

/// Messages per second through so many rings.
fn warps(rig: &Rig<'_>, pairs: u32) -> Result<f64, Failure> {
    let buffer = rig.device.allocate(size_of::<TestSpsc<Gpu>>() * pairs as usize)?;
    let from = end(rig, "k2k_warp_produce_gpu", buffer.address(), pairs);
    let to = end(rig, "k2k_warp_consume_gpu", buffer.address(), pairs).keep(buffer);
    let ended = rig.run([from, to])?;
    Ok(rate(&ended, rig.messages(1) * u64::from(pairs)))
}

fn role(kind: RoleKind, name: &str, count: u64) -> Grid {
    Grid::new("k2k_chip_role").name(name).parameter(0, kind as u64).parameter(2, count)
}

/// Senders to the kernels at indices 0 on, each to the one `step` further than the one before.
fn senders(kind: RoleKind, name: &str, first: u16, step: u64, count: u64) -> Grid {
    role(kind, name, count).parameter(1, KernelId::new(first, 1).raw()).parameter(3, WINDOW).parameter(6, step)
}

/// Messages per second from the opening of the gate until all kernels have received and sent what they were to, and
/// left.
fn fabric(
    rig: &Rig<'_>,
    grids: impl FnOnce(&mut Gate) -> Vec<Grid>,
    moved: u64,
) -> Result<(f64, Vec<BlockReport>), Failure> {
    let mut session = Session::<ChipShape>::new(rig.device, &patient())?;
    let mut gate = Gate::new(&rig.tools)?;
    let grids = grids(&mut gate);
    session.load_for(&rig.tools.ptx, &grids)?;
    for grid in grids {
        // SAFETY: the library's own entry point; the gate is kept.
        unsafe { session.add(grid)? };
    }
    let mut running = session.start()?;
    running.wait_ready(rig.options.patience)?;
    let began = Instant::now();
    // SAFETY: `running` keeps it.
    unsafe { gate.open() };
    rig.spin("all messages are received", || Ok(running.is_finished()?))?;
    let took = began.elapsed();
    let ended = rig.join(&mut running)?;
    all_finished(&ended)?;
    Ok((moved as f64 / took.as_secs_f64().max(1e-9), ended))
}

/// As a row, beside what rings do without a fabric.
fn row(rig: &Rig<'_>, measured: Result<f64, Failure>, kernels: u32) -> Result<Vec<Row>, Failure> {
    let floor = warps(rig, rig.blocks() / 2)?;
    let figure = measured.map(|rate| {
        Figure::new(rate, Unit::PerSecond).over("warp rings", floor).with([("kernels", f64::from(kernels))])
    });
    Ok(vec![rig.row("kernel to kernel", figure).target(TARGET)])
}

/// What the receivers count, and the receipts of the senders, for `receivers` blocks and then `senders`.
fn verify(ended: &[BlockReport], receivers: usize, received: u64, sent: u64) -> Result<(), Failure> {
    for (i, block) in ended.iter().enumerate() {
        let values = block.report.values;
        if i < receivers {
            ensure!(values[..3] == [received, 0, 0], "{} of {received}: {values:?}", block.name);
        } else {
            let all = Tally { accepted: sent, delivered: sent, ..Tally::default() };
            ensure!(Tally::from_values(values) == all, "{} of {sent}: {values:?}", block.name);
        }
    }
    Ok(())
}

pub(super) fn pairs(rig: &Rig<'_>) -> Result<Vec<Row>, Failure> {
    let (pairs, each) = (rig.blocks() / 2, rig.messages(5));
    let grids = |gate: &mut Gate| {
        let sources = senders(RoleKind::Source, "source", 0, 1, each).blocks(pairs);
        vec![role(RoleKind::Sink, "sink", each).blocks(pairs), gate.before(sources)]
    };
    let measured = fabric(rig, grids, each * u64::from(pairs)).and_then(|(rate, ended)| {
        verify(&ended, pairs as usize, each, each)?;
        Ok(rate)
    });
    row(rig, measured, 2 * pairs)
}

pub(super) fn all_to_one(rig: &Rig<'_>) -> Result<Vec<Row>, Failure> {
    let (sources, each) = (rig.blocks() - 1, rig.messages(500));
    let all = each * u64::from(sources);
    let grids = |gate: &mut Gate| {
        let sources = senders(RoleKind::Source, "source", 0, 0, each).blocks(sources);
        vec![role(RoleKind::Sink, "sink", all), gate.before(sources)]
    };
    let measured = fabric(rig, grids, all).and_then(|(rate, ended)| {
        verify(&ended, 1, all, each)?;
        Ok(rate)
    });
    row(rig, measured, sources + 1)
}

/// Each sends to the next, and the last to the first.
pub(super) fn ring(rig: &Rig<'_>) -> Result<Vec<Row>, Failure> {
    let (kernels, each) = (rig.blocks(), rig.messages(10));
    let grids = |gate: &mut Gate| {
        let step = 1 | u64::from(kernels) << 16;
        vec![gate.before(senders(RoleKind::Peer, "peer", 1, step, each).blocks(kernels))]
    };
    let measured = fabric(rig, grids, each * u64::from(kernels)).and_then(|(rate, ended)| {
        for block in &ended {
            let values = block.report.values;
            ensure!(values[..5] == [each, each, each, 0, 0], "{} of {each}: {values:?}", block.name);
        }
        Ok(rate)
    });
    row(rig, measured, kernels)
}
