//! What stands between `k2k-core` and a GPU: how an entry point is called, what time it is, how a warp works together.
//!
//! A handler (`impl Kernel`) becomes an entry point with [`export!`]; one kernel then runs per block, on `core`'s own
//! loop, until it stops itself or is told to.
//!
//! The crate builds for every target, so that a crate of handlers does, too. Everywhere but on `nvptx64` only what host
//! and device tell one another is there ([`Launch`], [`Report`]), and [`export!`] is nothing.
//!
//! | on the device | what |
//! | --- | --- |
//! | `run`, `Block` | the persistent loop of a block, and what it was launched with |
//! | `run_with_workers`, `Workers` | the same, with all threads of the block to work on jobs ([`Job`]) |
//! | `run_gateway` | one side of a link to another domain |
//! | `Warp` | 32 threads as one: ballot, shuffles; a `Group` for rings |
//! | `Clock` | `%globaltimer` on the host's clock, as a `Platform` |
//! | `thread` | indices, the timer, rest |
//!
//! `--cfg k2k_rust_cuda` is for rust-cuda, whose code generator knows entry points by an attribute of its own and warp
//! operations as inline PTX, and whose `cuda_std` brings the panic handler.
#![no_std]
#![cfg_attr(target_arch = "nvptx64", feature(asm_experimental_arch, link_llvm_intrinsics))]
#![cfg_attr(target_arch = "nvptx64", allow(internal_features, reason = "see `gpu/warp.rs` for why"))]

mod export;
#[cfg(target_arch = "nvptx64")]
mod gpu;
mod job;
mod launch;

pub use job::Job;
pub use launch::{Launch, Outcome, Report};

/// The shape of a GPU's fabric, which its entry points are compiled for.
pub type DeviceShape<const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize> =
    k2k_core::Fixed<KERNELS, SLOTS, PAYLOAD, k2k_core::sync::Gpu>;

#[cfg(target_arch = "nvptx64")]
pub use gpu::{
    block::{Block, Patience, run, workspace_len},
    clock::Clock,
    gateway::{gateway_workspace_len, run_gateway},
    thread,
    warp::Warp,
    workers::{Workers, run_with_workers, workers_workspace_len},
};

// rust-cuda's `cuda_std` brings one.
#[cfg(all(target_arch = "nvptx64", not(k2k_rust_cuda)))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    thread::trap()
}

/// What the compiler calls to compare slices. A module without it would not load.
///
/// # Safety
/// As in C: both are valid for `len` bytes.
#[cfg(target_arch = "nvptx64")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
    for i in 0..len {
        // SAFETY: the caller's.
        let (x, y) = unsafe { (a.add(i).read(), b.add(i).read()) };
        if x != y {
            return i32::from(x) - i32::from(y);
        }
    }
    0
}
