//! `k2k-gpu doctor`: each GPU, described and tried.

use k2k_command::{OutputError, say};
use k2k_cuda::{ClockOffset, Device, Error};
use std::process::ExitCode;

/// Whether kernels run on a GPU is the exit status.
pub(crate) fn main() -> ExitCode {
    k2k_command::end("k2k-gpu", 1, run())
}

fn run() -> Result<ExitCode, OutputError> {
    let mut works = false;
    match Device::count() {
        Ok(count) => {
            for ordinal in 0..count {
                works |= try_out(&format!("GPU {ordinal}"), Device::cuda(ordinal))?;
            }
        }
        Err(e) => say!("GPU: {e}")?,
    }
    #[cfg(feature = "emulated")]
    try_out("Without a GPU", Device::emulated(k2k_cuda::EmulatedOptions::default()))?;
    if !works && cfg!(feature = "emulated") {
        say!("To try K2K without a GPU: k2k-gpu check --emulated")?;
    }
    Ok(if works { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Describes a device and runs a kernel on it.
fn try_out(what: &str, device: Result<Device, Error>) -> Result<bool, OutputError> {
    let device = match device {
        Ok(device) => device,
        Err(e) => return say!("{what}: {e}\n").map(|()| false),
    };
    say!("{what}: {}\n  placement                 {}", device.probe(), device.placement())?;
    match ClockOffset::measure(&device) {
        Ok(clock) => say!("  a kernel ran              clock known to within {} ns", clock.error_ns)?,
        Err(e) => return say!("{what}: {e}\n").map(|()| false),
    }
    match device.verify_queues() {
        Ok(queues) => {
            say!("  side by side              {} grids, a copy beside them in {:.1?}\n", queues.grids, queues.copy)?;
        }
        Err(e) => return say!("{what}: {e}\n").map(|()| false),
    }
    Ok(true)
}
