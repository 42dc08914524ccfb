//! What stands between `k2k-core` and a GPU: how an entry point is called, what time it is, how a warp works together.
//!
//! The crate builds for every target. Everywhere but on `nvptx64` only the shared parts are there: what host and device
//! tell one another ([`Launch`], [`Report`]).
#![no_std]

mod launch;

pub use launch::{Launch, Outcome, Report};
