//! Which auto traits the public types have is a promise: a field of another type must not take one away unseen.

use core::panic::{RefUnwindSafe, UnwindSafe};
use k2k_cuda::k2k_core::Fixed;
use k2k_cuda::k2k_core::sync::Gpu;
use k2k_cuda::{
    BlockReport, Bridge, BridgeError, ClockOffset, Compile, Device, DeviceBuffer, Error, Grid, HangReport, HostBuffer,
    HungKernel, Launch, Outcome, Placement, PlacementError, Probe, Ptx, Registered, Report, Running, Session, Snapshot,
    Version, Where,
};

fn plain<T: Send + Sync + Unpin + UnwindSafe + RefUnwindSafe>() {}

/// For any number of threads.
fn shared<T: Send + Sync + Unpin>() {}

/// Fits an error of `anyhow` and of `std::thread`.
fn error<T: core::error::Error + Send + Sync + Unpin + 'static>() {}

#[test]
fn public_types_have_the_auto_traits_that_they_promise() {
    plain::<ClockOffset>();
    plain::<Compile<'static>>();
    shared::<Grid>();
    plain::<Launch>();
    plain::<Outcome>();
    plain::<Placement>();
    plain::<Probe>();
    plain::<Ptx>();
    plain::<Report>();
    plain::<Version>();
    plain::<Where>();
    plain::<HungKernel>();
    error::<Error>();
    error::<BridgeError>();
    error::<PlacementError>();
    shared::<HangReport>();
    shared::<BlockReport>();
    shared::<Bridge>();
    shared::<Device>();
    shared::<DeviceBuffer>();
    shared::<HostBuffer>();
    shared::<Registered>();
    shared::<Running<Fixed<4, 8, 64, Gpu>>>();
    shared::<Session<Fixed<4, 8, 64, Gpu>>>();
    shared::<Snapshot<Fixed<4, 8, 64, Gpu>>>();
}
