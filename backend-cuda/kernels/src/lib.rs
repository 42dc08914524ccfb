//! The GPU entry points that come with K2K. `k2k-ptx build` makes `backend-cuda/ptx/k2k.ptx` of this crate.
//!
//! On a host only the handlers and the shapes are there; the entry points are for `nvptx64`.
//!
//! | entry point | what a block of it is |
//! | --- | --- |
//! | `k2k_echo` | a kernel that answers each message with itself |
//! | `k2k_relay` | a kernel that only passes on |
//! | `k2k_tile` | a tile of the picture that `denoise` works on |
//! | `k2k_source`, `k2k_sink` | send and take numbered messages, and count how they ended |
//! | `k2k_hang` | a kernel that never returns from its handler, when asked |
//! | `k2k_ping`, `k2k_flag_*`, `k2k_pong_*`, `k2k_chip_*` | for benchmarks |
//! | `k2k_layout` | writes sizes and offsets as the device sees them |
//! | `k2k_spsc_*`, `k2k_lanes_*`, `k2k_ticket_*` | an end of a ring, for tests |
#![no_std]
#![cfg_attr(target_arch = "nvptx64", feature(abi_ptx))]

pub mod handlers;
pub mod shape;

#[cfg(target_arch = "nvptx64")]
mod entry;
