//! One side of a link, as a block of its own.

use super::block::{Block, register};
use super::clock::Clock;
use super::thread::{rest, thread_index};
use crate::launch::{Launch, Outcome};
use core::mem::MaybeUninit;
use k2k_core::gateway::{Gateway, GatewayConfig};
use k2k_core::link::{Frames as _, HalfRef, LinkEnd};
use k2k_core::sync::Gpu;
use k2k_core::{Backlog, Command, KernelId, Phase, Shape};

/// Rest between two passes that found nothing to do, ns. Each looks across the bus.
const REST_NS: u32 = 200;

/// Bytes of workspace that a gateway needs.
#[must_use]
pub const fn gateway_workspace_len<Sh: Shape<Scope = Gpu>, const FRAMES: usize>() -> u64 {
    size_of::<Ours<Sh, FRAMES>>() as u64
}

/// Runs a gateway until it is told to stop, or to drain and nothing is on its way any more. Parameters of the launch:
/// the address of this side's half of the link, that of the remote side's, and of a [`GatewayConfig`] its silence, its
/// grace (0 for the default). Values: messages sent, received, frames rejected, announcements refused.
///
/// # Safety
/// Called by all threads of an entry point's grid of one block with its argument, once. The halves lie at their
/// addresses for as long as it runs.
pub unsafe fn run_gateway<Sh: Shape<Scope = Gpu>, const FRAMES: usize>(launch: *const Launch) {
    if thread_index() != 0 {
        return;
    }
    // SAFETY: passed on.
    let block = unsafe { Block::of(launch) };
    // SAFETY: passed on.
    match unsafe { open::<Sh, FRAMES>(&block) } {
        Ok(gateway) => serve(&block, gateway),
        Err((outcome, values)) => block.report(outcome, KernelId::NONE, values),
    }
}

type Ours<Sh, const FRAMES: usize> = Gateway<'static, Clock, Sh, FRAMES>;

/// Takes the block's index, and makes the gateway in the workspace. Apart from the loop, so that what it needs of local
/// memory is not the loop's.
///
/// # Safety
/// As for `run_gateway`.
#[cold]
#[inline(never)]
unsafe fn open<Sh: Shape<Scope = Gpu>, const FRAMES: usize>(
    block: &Block<'_>,
) -> Result<&'static mut Ours<Sh, FRAMES>, (Outcome, [u64; 7])> {
    let (workspace, len) = block.workspace();
    let needed = gateway_workspace_len::<Sh, FRAMES>();
    if len < needed {
        return Err((Outcome::SmallWorkspace, [len, needed, 0, 0, 0, 0, 0]));
    }
    // SAFETY: passed on.
    let fabric = unsafe { block.fabric::<Sh>()? };
    let frames = fabric.shape().frames::<FRAMES>();
    // SAFETY: passed on.
    let half = |i: usize| unsafe {
        HalfRef::attach_raw(block.parameter(i) as *mut u8, frames.geometry().size as usize, frames)
            .map_err(|_| (Outcome::BadParameter, [i as u64, block.parameter(i), 0, 0, 0, 0, 0]))
    };
    // SAFETY: passed on: the halves of one link.
    let link = unsafe { LinkEnd::open(half(0)?, half(1)?) }
        .map_err(|_| (Outcome::BadParameter, [0, block.parameter(0), block.parameter(1), 0, 0, 0, 0]))?;
    let defaults = GatewayConfig::default();
    let or = |given: u64, default: u64| if given == 0 { default } else { given };
    let config = GatewayConfig {
        silence_ns: or(block.parameter(2), defaults.silence_ns),
        grace_ns: or(block.parameter(3), defaults.grace_ns),
        ..defaults
    };
    // SAFETY: large enough, aligned to 256, zeroed, this block's.
    let place: &'static mut MaybeUninit<_> = unsafe { &mut *workspace.cast() };
    register(block, |who, clock| Gateway::register_in(place, fabric, who, clock, link, config))
}

#[inline(always)]
fn serve<Sh: Shape<Scope = Gpu>, const FRAMES: usize>(block: &Block<'_>, gateway: &mut Ours<Sh, FRAMES>) {
    let kernel = gateway.endpoint().id();
    block.report(Outcome::Running, kernel, [0; 7]);
    gateway.endpoint().set_phase(Phase::Running);
    loop {
        let worked = gateway.pass();
        match gateway.endpoint().command() {
            Command::Stop => break,
            Command::Drain if gateway.in_flight() == (0, 0) && gateway.endpoint().backlog() == Backlog::None => break,
            _ => {}
        }
        if !worked {
            rest(REST_NS);
        }
    }
    gateway.endpoint().set_phase(Phase::Stopped);
    let stats = gateway.stats();
    // It takes its leave.
    // SAFETY: written above, used by nobody any more.
    unsafe { core::ptr::drop_in_place(gateway) };
    block.report(Outcome::Finished, kernel, [stats.sent, stats.received, stats.rejected, stats.refused, 0, 0, 0]);
}
