//! Compiles device crates to PTX, and audits what became of their memory order.
//!
//! - [`build`]: a crate with `extern "ptx-kernel"` entry points becomes one PTX file, the same on every machine.

#![allow(clippy::std_instead_of_core, reason = "a tool for hosts")]

pub mod build;
