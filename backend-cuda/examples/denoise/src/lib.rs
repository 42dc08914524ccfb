//! Removes noise from a picture on the kernels of a device: the handler of the host's example, [`k2k_denoise::Tile`], one tile
//! per block. The result is that of [`k2k_denoise::diffuse_reference`] bit for bit, on a GPU, on the emulated device, on
//! the host.
//!
//! | file | what |
//! | --- | --- |
//! | `lib.rs` | the device's half: an entry point, and what it is told |
//! | `job.rs` | the host's half: cuts the picture, starts the kernels, tells each its neighbours, puts the picture together |
//! | `main.rs` | the program: pictures in files |
//! | `denoise.ptx` | the device's half, as `backend-cuda/ptx/regenerate.sh` compiles it |
#![cfg_attr(target_arch = "nvptx64", no_std)]
#![cfg_attr(target_arch = "nvptx64", feature(abi_ptx))]

#[cfg(not(target_arch = "nvptx64"))]
pub mod job;

use bytemuck::{Pod, Zeroable};
#[cfg(target_arch = "nvptx64")]
use k2k_denoise::{Shape, Tile};
#[cfg(target_arch = "nvptx64")]
use k2k_device::{Block, Outcome};

/// A tile: parameter 0 of the launch is the address of one per block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct TileSpec {
    /// Device address of its `f32` values, as many as [`k2k_denoise::Shape::storage_len`] says.
    pub storage: u64,
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Values per pixel.
    pub channels: u32,
    /// Zero.
    pub reserved: u32,
}

/// The tile of this block, on the pixels that the host has put into device memory.
#[cfg(target_arch = "nvptx64")]
fn of(block: &Block<'_>) -> Result<Tile<&'static mut [f32]>, (Outcome, [u64; 7])> {
    // SAFETY: the host has put a spec per block there.
    let spec = unsafe { (block.parameter(0) as *const TileSpec).add(block.index() as usize).read() };
    let TileSpec { storage, width, height, channels, .. } = spec;
    let wrong = (Outcome::BadParameter, [0, u64::from(width), u64::from(height), u64::from(channels), 0, 0, 0]);
    let shape = Shape::new(width, height, channels).map_err(|_| wrong)?;
    // SAFETY: the host has put so many values there, for this block alone.
    let storage = unsafe { core::slice::from_raw_parts_mut(storage as *mut f32, shape.storage_len()) };
    Tile::new(storage, shape).map_err(|_| wrong)
}

k2k_device::export! {
    /// One tile per block, in a fabric of 16 indices, 64 messages per pair and 192 bytes per message: the shape for
    /// which the library has a gateway.
    pub fn tile(16, 64, 192) = |block, _| of(block);
}
