//! Special registers (PTX ISA 10).

use super::World;
use super::thread::Thread;
use crate::op::Special;

/// The register's value now; `ahead` is the number of instructions since the clock was last set.
pub(super) fn read(what: Special, thread: &Thread, world: &World<'_>, ahead: u32) -> u64 {
    let block = &world.blocks[thread.block as usize];
    let lane = thread.lane();
    let ones = |below: u32| (1u64 << below) - 1;
    let clock = || world.timer.cycles(ahead);
    let time = || world.timer.now_ns(ahead);
    match what {
        Special::Tid(axis) => u64::from(thread.index[usize::from(axis)]),
        Special::Ntid(axis) => u64::from(block.block_dim[usize::from(axis)]),
        Special::Ctaid(axis) => u64::from(block.index[usize::from(axis)]),
        Special::Nctaid(axis) => u64::from(block.grid_dim[usize::from(axis)]),
        Special::Lane => u64::from(lane),
        Special::Warp => u64::from(thread.linear / 32),
        Special::Warps => block.threads.len().div_ceil(32) as u64,
        Special::MaskEq => 1 << lane,
        Special::MaskLt => ones(lane),
        Special::MaskLe => ones(lane + 1),
        Special::MaskGe => ones(32) & !ones(lane),
        Special::MaskGt => ones(32) & !ones(lane + 1),
        // Each block has a multiprocessor of its own.
        Special::Sm => u64::from(thread.block),
        Special::Sms => world.blocks.len() as u64,
        Special::Grid => u64::from(thread.launch),
        Special::Clock64 => clock(),
        Special::Clock => clock() & 0xffff_ffff,
        Special::ClockHigh => clock() >> 32,
        Special::Timer => time(),
        Special::TimerLow => time() & 0xffff_ffff,
        Special::TimerHigh => time() >> 32,
        Special::DynamicShared => u64::from(block.dynamic_shared),
        Special::TotalShared => block.shared.len() as u64,
    }
}
