//! Kernels of a fabric.

use crate::handlers::{Echo, Hang, Order, Relay, Sink, Source};
use crate::shape::{KERNELS, PAYLOAD, SLOTS, TileSpec};
use k2k_core::{KernelId, Priority};
use k2k_denoise::{Shape, Tile};
use k2k_device::{Block, Launch, Outcome, export, thread};

/// What [`Order`] says, from the parameters: destination, count, window, hop limit, timeout in ns, priority.
fn order(block: &Block<'_>) -> Order {
    Order {
        to: KernelId::from_raw(block.parameter(0) as u32),
        count: block.parameter(1),
        window: block.parameter(2),
        hop_limit: block.parameter(3) as u8,
        timeout_ns: block.parameter(4),
        priority: if block.parameter(5) == 0 { Priority::Normal } else { Priority::High },
    }
}

/// The tile of this block, on the pixels that the host has put into device memory.
fn tile(block: &Block<'_>) -> Result<Tile<&'static mut [f32]>, (Outcome, [u64; 7])> {
    // SAFETY: the host has put a spec per block there.
    let spec = unsafe { (block.parameter(0) as *const TileSpec).add(block.index() as usize).read() };
    let TileSpec { storage, width, height, channels, .. } = spec;
    let wrong = (Outcome::BadParameter, [0, u64::from(width), u64::from(height), u64::from(channels), 0, 0, 0]);
    let shape = Shape::new(width, height, channels).map_err(|_| wrong)?;
    // SAFETY: the host has put so many values there, for this block alone.
    let storage = unsafe { core::slice::from_raw_parts_mut(storage as *mut f32, shape.storage_len()) };
    Tile::new(storage, shape).map_err(|_| wrong)
}

export! {
    /// Answers each message with itself.
    pub(crate) fn k2k_echo(KERNELS, SLOTS, PAYLOAD) = |_, _| Ok(Echo);

    /// Only passes on.
    pub(crate) fn k2k_relay(KERNELS, SLOTS, PAYLOAD) = |_, _| Ok(Relay);

    /// Never returns from its handler, when asked.
    pub(crate) fn k2k_hang(KERNELS, SLOTS, PAYLOAD) = |_, _| Ok(Hang);

    /// A tile of the picture that `denoise` works on: the handler of the host's example.
    pub(crate) fn k2k_tile(KERNELS, SLOTS, PAYLOAD) = |block, _| tile(block);

    /// Sends numbered messages. Values: a `Tally`.
    pub(crate) fn k2k_source(KERNELS, SLOTS, PAYLOAD) = |block, _| Ok(Source::new(order(block))), |source| source.tally().values();

    /// Takes numbered messages; parameter 0 is the number after which it stops. Values: received, torn, out of order.
    pub(crate) fn k2k_sink(KERNELS, SLOTS, PAYLOAD) =
        |block, _| Ok(Sink::<KERNELS>::new(block.parameter(0))), |sink| sink.values();
}

/// Value 0: `%globaltimer`.
///
/// # Safety
/// `launch` is a launch.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "ptx-kernel" fn k2k_clock(launch: *const Launch) {
    // SAFETY: the caller's.
    let block = unsafe { Block::of(launch) };
    if thread::thread_index() == 0 {
        block.report(Outcome::Finished, 0, [thread::globaltimer_ns(), 0, 0, 0, 0, 0, 0]);
    }
}
