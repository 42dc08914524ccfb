//! Kernels for use.

use crate::handlers::{Echo, Relay};
use crate::shape::{DeviceShape, FRAMES, KERNELS, PAYLOAD, SLOTS, TileSpec};
use k2k_denoise::{Shape, Tile};
use k2k_device::{Block, Launch, Outcome, export, run_gateway};

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

    /// A tile of the picture that `denoise` works on: the handler of the host's example.
    pub(crate) fn k2k_tile(KERNELS, SLOTS, PAYLOAD) = |block, _| tile(block);
}

/// One side of a link: see `k2k_device::run_gateway`.
///
/// # Safety
/// `launch` is a launch, with the halves of a link for parameters.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "ptx-kernel" fn k2k_gateway(launch: *const Launch) {
    // SAFETY: the caller's.
    unsafe { run_gateway::<DeviceShape, FRAMES>(launch) }
}
