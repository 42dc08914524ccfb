//! The device's clock beside the host's: `%globaltimer` beside `CLOCK_MONOTONIC`, neither of which can be set.
//!
//! ```text
//!   host    before ---------------------------- after         offset = (before + after) / 2 - read
//!   device            launched .. read .. done                error <= (after - before) / 2
//! ```
//!
//! Measured some times, of which the one with the smallest error counts. It is not measured again: a device's clock
//! that drifts by 10 ppm is 36 ms off after an hour. Within a device's fabric that is no matter, as all of its kernels
//! read the one timer. Across a link, [`GatewayConfig::grace_ns`](k2k_core::gateway::GatewayConfig) has to be more than
//! the drift of a session.

use crate::buffer::DeviceBuffer;
use crate::device::Device;
use crate::driver::{Driver, Handle, Shape};
use crate::error::Error;
use crate::ptx::Ptx;
use bytemuck::Zeroable as _;
use core::mem::offset_of;
use core::time::Duration;
use k2k::Host;
use k2k_core::Platform;
use k2k_device::{Launch, Report};
use std::time::Instant;

/// The difference between a device's `%globaltimer` and the host's clock, when it was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockOffset {
    /// What to add to `%globaltimer` for the host's [`now_ns`](Platform::now_ns), the clock of deadlines.
    pub offset_ns: i64,
    /// What to add (wrapping) to that for the wall time: the host's [`wall_offset_ns`](Platform::wall_offset_ns).
    pub wall_offset_ns: u64,
    /// How far `offset_ns` may be wrong, ns.
    pub error_ns: u64,
}

const ROUNDS: usize = 8;
const LIMIT: Duration = Duration::from_secs(10);
/// How long to look for the end of a launch without a break.
const SPIN: Duration = Duration::from_millis(1);

/// A kernel that reads the clock and ends: the least that can be launched.
#[derive(Debug)]
pub struct Blink<'d> {
    device: &'d Device,
    entry: Handle,
    shape: Shape,
    report: DeviceBuffer,
    /// Kept for the kernel.
    _argument: DeviceBuffer,
    record: Option<Handle>,
}

impl<'d> Blink<'d> {
    /// Loads it.
    ///
    /// # Errors
    /// Those of the driver; [`Error::Busy`] while a session runs.
    pub fn new(device: &'d Device) -> Result<Self, Error> {
        let module = device.load(&Ptx::new(include_str!("clock.ptx"))?)?;
        let entry = device
            .while_idle("look up an entry point", |driver| driver.entry(module.handle, "k2k_read_globaltimer"))?;
        let report = device.allocate(size_of::<Report>())?;
        let mut argument = device.allocate(size_of::<Launch>())?;
        argument.write(0, bytemuck::bytes_of(&Launch { reports: report.address(), blocks: 1, ..Launch::zeroed() }))?;
        let shape = Shape { blocks: 1, threads: 1, cooperative: false, launch: argument.address() };
        Ok(Self { device, entry, shape, report, _argument: argument, record: None })
    }

    /// Records the launch for [`replay`](Self::replay). Whether the driver can.
    ///
    /// # Errors
    /// Those of the driver; [`Error::Busy`] while a session runs.
    pub fn record(&mut self) -> Result<bool, Error> {
        // SAFETY: the entry point takes the address of a `Launch` and writes one `Report`; both live as long as `self`,
        // and longer if the device hangs.
        self.record =
            self.device.while_idle("record a launch", |driver| unsafe { driver.record(self.entry, self.shape) })?;
        Ok(self.record.is_some())
    }

    /// Launches the kernel and waits for its end.
    ///
    /// # Errors
    /// Those of the driver; [`Error::Busy`] while a session runs; one of time after ten seconds.
    pub fn launch(&self) -> Result<(), Error> {
        // SAFETY: as in `record`.
        self.wait_for(|driver| unsafe { driver.launch(self.entry, self.shape) })
    }

    /// The same with the recorded launch, if there is one.
    ///
    /// # Errors
    /// As for [`launch`](Self::launch).
    pub fn replay(&self) -> Result<(), Error> {
        let Some(record) = self.record else { return self.launch() };
        // SAFETY: recorded, and forgotten when `self` is dropped.
        self.wait_for(|driver| unsafe { driver.replay(record) })
    }

    fn wait_for(&self, launch: impl FnOnce(&dyn Driver) -> Result<Handle, Error>) -> Result<(), Error> {
        let driver = self.device.driver();
        let started = Instant::now();
        self.device.begin()?;
        let done = launch(driver).and_then(|launch| {
            while !driver.is_done(launch)? {
                let waited = started.elapsed();
                if waited > LIMIT {
                    // The device stays busy: nothing is freed under the kernel.
                    return Err(Error::NoAnswer { action: "run a kernel that ends at once", waited });
                }
                if waited > SPIN { std::thread::yield_now() } else { core::hint::spin_loop() }
            }
            driver.finish(launch);
            Ok(())
        });
        if !matches!(done, Err(Error::NoAnswer { .. })) {
            self.device.end();
        }
        done
    }

    /// What the clock read, the last time.
    fn device_ns(&self) -> Result<u64, Error> {
        let mut device_ns = [0; 8];
        self.report.read(offset_of!(Report, values), &mut device_ns)?;
        Ok(u64::from_le_bytes(device_ns))
    }
}

impl Drop for Blink<'_> {
    fn drop(&mut self) {
        if let Some(record) = self.record.take().filter(|_| !self.device.is_busy()) {
            // SAFETY: recorded by this driver; nothing runs.
            unsafe { self.device.driver().forget(record) };
        }
    }
}

impl ClockOffset {
    /// Asks the device while no kernel runs.
    ///
    /// # Errors
    /// [`Error::Busy`] while kernels run; what the driver says; [`Error::NoAnswer`] after 10 s.
    pub fn measure(device: &Device) -> Result<Self, Error> {
        let blink = Blink::new(device)?;
        let host = Host::new();
        let mut best: Option<Self> = None;
        for _ in 0..ROUNDS {
            let before = host.now_ns();
            blink.launch()?;
            let after = host.now_ns();
            let half = after.wrapping_sub(before) / 2;
            let offset_ns = before.wrapping_add(half).wrapping_sub(blink.device_ns()?).cast_signed();
            if best.is_none_or(|best| half < best.error_ns) {
                best = Some(Self { offset_ns, wall_offset_ns: host.wall_offset_ns(), error_ns: half });
            }
        }
        best.ok_or(Error::NoAnswer { action: "read its clock", waited: LIMIT })
    }
}
