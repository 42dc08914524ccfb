//! `k2k-gpu doctor`: each GPU, described and tried.

use k2k_cuda::{ClockOffset, Device, Error};
use std::process::ExitCode;

/// Whether kernels run on a GPU is the exit status.
pub(crate) fn main() -> ExitCode {
    let works = match Device::count() {
        Ok(count) => (0..count)
            .map(|ordinal| try_out(&format!("GPU {ordinal}"), Device::cuda(ordinal)))
            .fold(false, |a, b| a | b),
        Err(e) => {
            println!("GPU: {e}");
            false
        }
    };
    #[cfg(feature = "emulated")]
    try_out("Without a GPU", Device::emulated(k2k_cuda::EmulatedOptions::default()));
    if !works && cfg!(feature = "emulated") {
        println!("To try K2K without a GPU: k2k-gpu-check --emulated");
    }
    if works { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Describes a device and runs a kernel on it.
fn try_out(what: &str, device: Result<Device, Error>) -> bool {
    let tried = device.and_then(|device| {
        println!("{what}: {}\n  placement                 {}", device.probe(), device.placement());
        ClockOffset::measure(&device)
    });
    match tried {
        Ok(clock) => println!("  a kernel ran              clock known to within {} ns\n", clock.error_ns),
        Err(ref e) => println!("{what}: {e}\n"),
    }
    tried.is_ok()
}
