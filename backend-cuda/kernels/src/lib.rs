//! The GPU entry points that come with K2K. `k2k-ptx build` makes a module of each feature: `backend-cuda/ptx/k2k.ptx`
//! and `backend-cuda/cli/ptx/check.ptx`.
//!
//! On a host only the handlers and the shapes are there; the entry points are for `nvptx64`.
//!
//! | feature | entry point | what a block of it is |
//! | --- | --- | --- |
//! | `kernels` | `k2k_echo` | a kernel that answers each message with itself |
//! | | `k2k_relay` | a kernel that only passes on |
//! | | `k2k_gateway` | one side of a link to another domain |
//! | `check` | `k2k_role`, `k2k_chip_role` | a kernel as tests and benchmarks need it: see [`handlers::Role`] |
//! | | `k2k_adder` | a kernel that all threads of its block work for |
//! | | `k2k_spsc_*`, `k2k_warp_*`, `k2k_sharded_*`, `k2k_ticket_*` | an end of a ring |
//! | | `k2k_stamp_produce_sys` | a producer whose messages say when they were pushed |
//! | | `k2k_flag_*`, `k2k_pong_*` | one side of a round trip |
//! | | `k2k_lines_*` | what a producer writes, without a ring |
//! | | `k2k_layout` | writes how the shared types lie in memory, as the device sees them |
#![no_std]
#![cfg_attr(target_arch = "nvptx64", feature(abi_ptx))]

pub mod handlers;
pub mod shape;

#[cfg(target_arch = "nvptx64")]
mod entry;
