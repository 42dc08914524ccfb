//! K2K on a host: the memory of a fabric, how a thread waits, the clock, and how kernels are started.
//!
//! All the logic of messaging is in [`k2k_core`] (re-exported here). This crate adds:
//!
//! | module | what |
//! | --- | --- |
//! | [`memory`] | a fabric on the heap, in huge pages, or in a file that several processes share |
//! | [`broker`] | the control plane: [`Builder`], [`Broker`]; and a table for users of RingKernel's `k2k` |
//! | [`Endpoint`] | a kernel's handle: owns its share of the memory, and can wait |
//! | [`process`] | which process made a value: for backends whose values hold threads or devices |
//! | [`inspect`] | looking into a running fabric from outside, of any shape |
//! | [`owner`] | which process owns a kernel, and whether that process is gone |
//! | [`mod@wait`] | spin, yield or park |
//! | [`asynchronous`] | [`Endpoint::receive_async`] for any executor |
//! | [`service`] | [`Service`] and [`Client`]: typed requests, their answers, and deadlines |
//! | [`mod@publish`] | [`Endpoint::publish`]: one message to several kernels, with a receipt each |
//! | [`presence`] | waiting until a named kernel has registered, or has left |
//! | [`runner`] | kernels on threads of their own: [`Broker::start`], [`KernelHandle`] |
//! | [`platform`] | [`Host`]: the clock, and waking |
//! | [`recording`] | files of messages |
//!
//! Needs Linux: with futexes on shared memory a process wakes a kernel of another process directly.
//!
//! # After a fork
//!
//! A forked process has copies of its parent's endpoints, brokers and handles. The copies refuse every operation
//! (`Forked`) or do nothing, also when they are dropped: the kernels, their mail and their threads stay the parent's. For
//! kernels of its own, a child registers in a [`Memory::open`]ed file, or in the inherited [`Memory`] of a file:
//! `Broker::new(memory.clone())`. Memory on the heap is a private copy in the child, and refuses to register kernels.
//!
//! The smallest program is in the repository's README, the outcomes of a message are in its
//! `docs/statuses.md`, more programs in `docs/recipes.md`; [`Builder`], [`Endpoint`] and [`Memory`] have examples too.

/// The README's program, which is compiled and run with the tests of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The pages for users, compiled and run the same way.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../docs/recipes.md")]
    struct Recipes;
    #[doc = include_str!("../docs/statuses.md")]
    struct Statuses;
}

// On a target without 64-bit atomics, a lock of the program guards each 64-bit word, so two processes on the same file
// would not exclude each other: see the page of `k2k_core::sync`.
#[cfg(not(target_has_atomic = "64"))]
compile_error!("k2k shares memory between processes, which needs a target with 64-bit atomics; use k2k-core alone");

pub mod asynchronous;
mod boxed;
pub mod broker;
mod contain;
mod descriptor;
mod endpoint;
pub mod inspect;
pub mod memory;
pub mod owner;
pub mod platform;
pub mod presence;
pub mod process;
pub mod publish;
mod reactor;
pub mod recording;
pub mod runner;
pub mod service;
mod set;
pub mod wait;

pub use boxed::boxed;
pub use broker::{
    Broker, Builder, ControlError, EndpointError, FailedKernel, ReapReport, ReapedKernel, Supervisor, UnregisterError,
};
pub use descriptor::Descriptor;
pub use endpoint::Endpoint;
pub use k2k_core;
pub use k2k_core::{
    Backlog, CLOCK_MARGIN_NS, Command, Config, Context, DeliveryReceipt, DeliveryStatus, Fabric, FabricRef, Fixed,
    Header, Idle, Kernel, KernelId, Message, MessageId, Phase, Platform, Priority, Read, ReceiptError, RegisterError,
    Registration, SendError, Shape, Stats, TapReport, fabric, hlc, message,
};
pub use memory::{Backing, Memory, MemoryError};
pub use platform::Host;
pub use presence::PresenceError;
pub use publish::Published;
pub use runner::{HangReport, KernelFailure, KernelHandle, StartError, StartOptions, StopError, allowed_cores};
pub use service::{Client, Refused, Request, RequestError, Service};
pub use set::{ReceiveAny, Set};
pub use wait::{ReceiveError, Wait};

/// A fabric for up to 16 kernels, with 256 pending messages of up to 192 bytes per pair: 22 MB. The default shape of
/// [`Broker`], [`Endpoint`] and [`KernelHandle`].
pub type DefaultFabric = Fabric<16, 256, 192>;
