//! K2K on a GPU: where a fabric's bytes live, how persistent kernels are started, watched and stopped, what time it is
//! there.
//!
//! All the logic of messaging is in [`k2k_core`], and kernels are compiled from it to PTX. This crate adds:
//!
//! | module | what |
//! | --- | --- |
//! | [`Device`] | a GPU, or the CPU in its place; memory that it sees |
//! | [`Probe`], [`Placement`] | what the device can do, and where things are put |
//! | [`Ptx`] | text for a device |
//! | [`Session`], [`Running`] | a fabric in device memory, and the kernels that run on it |
//! | [`Bridge`] | a host's kernels and a device's, as if they were in one fabric |
//! | [`HangReport`] | what kernels that do not stop were doing |
//! | [`ClockOffset`] | the device's clock |
//! | [`Blink`] | the least that can be launched: what a launch costs |
//! | [`Queues`], [`Residency`] | what runs side by side on the device, tried out |
//!
//! It builds and starts without CUDA: the driver's library is looked for when a [`Device`] is asked for. Without one,
//! `Device::emulated` runs the same PTX on the CPU. The package `k2k-gpu` checks a device and measures it.
//!
//! # Waiting
//!
//! No call waits for a kernel without a limit. But the end of a process may: one whose kernels hang is to [`abandon`] itself. While a session runs, nothing is allocated, loaded or freed on its
//! device, because a driver may wait for all kernels before it does; see [`Busy`](Error::Busy).

mod bridge;
mod buffer;
mod clock;
mod cut;
mod device;
mod driver;
mod error;
mod hang;
mod leave;
mod meet;
mod probe;
mod ptx;
mod report;
mod session;

pub use bridge::Bridge;
pub use buffer::{DeviceBuffer, HostBuffer, Registered};
pub use clock::{Blink, ClockOffset};
pub use device::{Compile, Device};
#[cfg(feature = "emulated")]
pub use driver::emulated::EmulatedOptions;
pub use error::{BridgeError, Error, PlacementError, Version};
pub use hang::{HangReport, HungKernel};
pub use k2k_core;
pub use k2k_device::{Launch, Outcome, Report};
#[cfg(feature = "emulated")]
pub use k2k_ptx_executor::{Clock, host_clock_ns};
pub use leave::abandon;
pub use meet::{Queues, Residency};
pub use probe::{OLDEST, Placement, Probe, Where};
pub use ptx::Ptx;
pub use report::BlockReport;
pub use session::{Grid, Running, Session, Snapshot};
