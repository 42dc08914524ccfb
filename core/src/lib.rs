//! Kernel-to-kernel messaging in memory that both sides can see.
//!
//! A *kernel* is a long-running worker with an address and an inbox: a host thread, a process, a GPU block that never
//! returns. Kernels send one another fixed-size messages through rings; no broker thread, lock or system call stands
//! between them. This crate is all of the logic, `no_std` and without `alloc`, the same source and the same bytes on
//! every side. Where the bytes live, how to wait and what time it is are a backend's business ([`Platform`]).
//!
//! | module | what |
//! | --- | --- |
//! | [`ring`] | SPSC, and MPSC in two forms |
//! | [`message`] | header, payload, addresses |
//! | [`hlc`] | hybrid logical clock |
//! | [`fabric`] | what all kernels of a memory domain share: table, inboxes, routes, receipts, traces |
//! | [`Endpoint`] | one kernel's handle: send, receive, forward |
//! | [`link`], [`gateway`] | what joins two memory domains, and who carries messages across |
//! | [`Kernel`], [`run`], [`RunLoop`] | a handler and the loop that feeds it, whole or pass by pass |
//! | [`worker_group`] | the threads of a block that share one kernel's work |
//! | [`sync`] | the one door to atomics |
#![no_std]
#![cfg_attr(
    test,
    allow(clippy::incompatible_msrv, reason = "the declared version is that of the library; tests use the newest")
)]
#![cfg_attr(all(target_arch = "nvptx64", feature = "ptx-asm"), feature(asm_experimental_arch))]

mod below;
#[cfg(test)]
#[cfg(not(k2k_loom))]
mod deaths;
mod endpoint;
pub mod error;
pub mod fabric;
pub mod gateway;
pub mod hlc;
mod in_place;
mod in_place_option;
mod kernel;
pub mod link;
pub mod message;
mod platform;
pub mod ring;
mod shape;
pub mod sync;
mod wake_flag;
pub mod worker_group;

pub use endpoint::{Backlog, Endpoint, HIGH_BURST, RegisterError, Registration, SendError, TapReport};
pub use fabric::{
    Command, Config, DeliveryReceipt, DeliveryStatus, Fabric, FabricRef, Phase, ProcessDomain, ReceiptError, Stats,
};
pub use gateway::Gateway;
pub use kernel::{Context, Idle, IdleHint, Kernel, Pass, RunLoop, run};
pub use link::{LinkEnd, LinkHalf};
pub use message::{Header, KernelId, Message, MessageId, Priority};
pub use platform::{CLOCK_MARGIN_NS, Platform};
#[cfg(not(k2k_loom))]
pub use shape::Read;
pub use shape::{Fixed, Packet, Shape, Typed};
pub use wake_flag::{Sleep, WakeFlag};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
