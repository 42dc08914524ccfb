//! Compiles device crates to PTX, and audits what became of their memory order.
//!
//! - [`build`]: a crate with `extern "ptx-kernel"` entry points becomes one PTX file, the same on every machine; by
//!   rustc alone, or with NVIDIA's own optimiser behind it.
//! - [`audit`](mod@audit): that file keeps the rules of memory order, and the contract that was agreed for it.
//! - [`sass`]: the machine code that NVIDIA's assembler makes of it has kept that order, too.
//! - [`mutate`](mod@mutate): the audit notices when an access loses its order or scope.

#![allow(clippy::std_instead_of_core, reason = "a tool for hosts")]

pub mod access;
pub mod audit;
pub mod build;
pub mod mutate;
mod places;
pub mod ptx;
pub mod sass;
