//! Kernels for use.

use crate::handlers::{Echo, Relay};
use crate::shape::{DeviceShape, FRAMES, KERNELS, PAYLOAD, SLOTS};
use k2k_device::{Launch, export, run_gateway};

export! {
    /// Answers each message with itself.
    pub(crate) fn k2k_echo(KERNELS, SLOTS, PAYLOAD) = |_, _| Ok(Echo);

    /// Only passes on.
    pub(crate) fn k2k_relay(KERNELS, SLOTS, PAYLOAD) = |_, _| Ok(Relay);
}

/// One side of a link: see `k2k_device::run_gateway`.
///
/// # Safety
/// `launch` is a launch, with the halves of a link for parameters.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "ptx-kernel" fn k2k_gateway(launch: *const Launch) {
    // SAFETY: the caller's.
    unsafe { run_gateway::<DeviceShape, FRAMES>(launch) }
}
