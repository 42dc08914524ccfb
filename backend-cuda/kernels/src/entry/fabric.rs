//! Kernels of a fabric.

use crate::handlers::{Echo, Hang, Order, Peer, Ping, Relay, Sink, Source};
use crate::shape::{CHIP_KERNELS, CHIP_PAYLOAD, CHIP_SLOTS, KERNELS, PAYLOAD, SLOTS, TileSpec};
use k2k_core::{KernelId, Priority};
use k2k_denoise::{Shape, Tile};
use k2k_device::{Block, Outcome, export};

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

/// The kernel that block 0's parameter says, or that many places further for the blocks after it.
fn order_by_block(block: &Block<'_>) -> Order {
    let order = order(block);
    // A fresh fabric: every kernel is the first at its place.
    let place = (block.parameter(0) as u16).wrapping_add((block.index() * block.parameter(6) as u32) as u16);
    let around = block.parameter(7) as u16;
    let place = if around == 0 { place } else { place % around };
    Order { to: KernelId::new(place, 1), ..order }
}

/// Where round trips are noted: parameter 1 is the address, parameter 2 how many `u32` per block.
fn samples(block: &Block<'_>) -> &'static mut [u32] {
    let len = block.parameter(2) as usize;
    let base = block.parameter(1) as *mut u32;
    // SAFETY: the host has put so many there for each block.
    unsafe { core::slice::from_raw_parts_mut(base.add(block.index() as usize * len), len) }
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

export! {
    /// Measures round trips to the kernel at the address in parameter 0.
    pub(crate) fn k2k_ping(KERNELS, SLOTS, PAYLOAD) =
        |block, _| Ok(Ping::new(KernelId::from_raw(block.parameter(0) as u32), samples(block))), |ping| ping.values();

    /// As `k2k_source`, on the large fabric. Parameter 0 is the place of the first block's receiver, parameter 6 how much
    /// further on that of the next is, parameter 7 after which place it starts again.
    pub(crate) fn k2k_chip_source(CHIP_KERNELS, CHIP_SLOTS, CHIP_PAYLOAD) =
        |block, _| Ok(Source::new(order_by_block(block))), |source| source.tally().values();

    /// As `k2k_sink`, on the large fabric.
    pub(crate) fn k2k_chip_sink(CHIP_KERNELS, CHIP_SLOTS, CHIP_PAYLOAD) =
        |block, _| Ok(Sink::<CHIP_KERNELS>::new(block.parameter(0))), |sink| sink.values();

    /// Source and sink in one, on the large fabric: parameters as for `k2k_chip_source`; each takes as many as it sends.
    pub(crate) fn k2k_chip_peer(CHIP_KERNELS, CHIP_SLOTS, CHIP_PAYLOAD) = |block, _| {
        let order = order_by_block(block);
        Ok(Peer::<CHIP_KERNELS>::new(order, order.count))
    }, |peer| peer.values();
}
