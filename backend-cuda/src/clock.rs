//! What the device's clock reads when the host's reads the Unix time.
//!
//! ```text
//!   host    before ---------------------------- after         offset = (before + after) / 2 - read
//!   device            launched .. read .. done                error <= (after - before) / 2
//! ```
//!
//! Measured some times, of which the one with the smallest error counts. It is not measured again: a device's clock
//! that drifts by 10 ppm is 36 ms off after an hour.

use crate::device::Device;
use crate::driver::Shape;
use crate::error::Error;
use crate::ptx::Ptx;
use bytemuck::Zeroable as _;
use core::mem::offset_of;
use core::time::Duration;
use k2k_core::Platform;
use k2k_device::{Launch, Report};
use k2k_host::Host;
use std::time::Instant;

/// The difference between a device's `%globaltimer` and the host's clock, when it was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockOffset {
    /// What to add to `%globaltimer` for ns since the Unix epoch.
    pub offset_ns: i64,
    /// How far that may be wrong, ns.
    pub error_ns: u64,
}

const ROUNDS: usize = 8;
const LIMIT: Duration = Duration::from_secs(10);

impl ClockOffset {
    /// Asks the device while no kernel runs.
    ///
    /// # Errors
    /// [`Error::Busy`] while kernels run; what the driver says; [`Error::NoAnswer`] after 10 s.
    pub fn measure(device: &Device) -> Result<Self, Error> {
        let ptx = Ptx::new(include_str!("clock.ptx"))?;
        let module = device.load(&ptx)?;
        let driver = device.driver();
        let entry = driver.entry(module.handle, "k2k_read_globaltimer")?;
        let report = device.allocate(size_of::<Report>())?;
        let mut argument = device.allocate(size_of::<Launch>())?;
        argument.write(0, bytemuck::bytes_of(&Launch { reports: report.address(), blocks: 1, ..Launch::zeroed() }))?;
        let shape = Shape { blocks: 1, threads: 1, cooperative: false, launch: argument.address() };
        let host = Host::new();
        let mut best: Option<Self> = None;
        for _ in 0..ROUNDS {
            let started = Instant::now();
            let before = host.now_ns();
            device.begin()?;
            // SAFETY: the entry point takes the address of a `Launch` and writes one `Report`; both live until the
            // device is idle again, or for ever.
            let launched = unsafe { driver.launch(entry, shape) };
            let done = launched.and_then(|launch| {
                while !driver.is_done(launch)? {
                    if started.elapsed() > LIMIT {
                        // The device stays busy: nothing is freed under the kernel.
                        return Err(Error::NoAnswer { action: "read its clock", waited: started.elapsed() });
                    }
                    std::thread::yield_now();
                }
                driver.finish(launch);
                Ok(())
            });
            let after = host.now_ns();
            if !matches!(done, Err(Error::NoAnswer { .. })) {
                device.end();
            }
            done?;
            let mut device_ns = [0; 8];
            report.read(offset_of!(Report, values), &mut device_ns)?;
            let half = after.wrapping_sub(before) / 2;
            let offset_ns = before.wrapping_add(half).wrapping_sub(u64::from_le_bytes(device_ns)).cast_signed();
            if best.is_none_or(|best| half < best.error_ns) {
                best = Some(Self { offset_ns, error_ns: half });
            }
        }
        best.ok_or(Error::NoAnswer { action: "read its clock", waited: LIMIT })
    }
}
