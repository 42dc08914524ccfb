//! The device's clock, as `core` wants it.

use super::thread::globaltimer_ns;
use crate::Launch;
use k2k_core::{Platform, WakeFlag};

/// `%globaltimer`, moved to the host's `CLOCK_MONOTONIC`. Nobody sleeps on a device, so there is nobody to wake.
///
/// All blocks of a device read the same timer, so their clocks do not differ at all. The host's is another clock: the two
/// drift apart by some 10 ns a millisecond after the launch, for which the links between them have a grace. A wall clock
/// that is set on the host while kernels run is not followed: timestamps of the device keep the old one.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    offset_ns: i64,
    wall_offset_ns: u64,
}

impl Clock {
    /// The clock that the host has measured for this launch.
    #[must_use]
    pub const fn new(launch: &Launch) -> Self {
        Self { offset_ns: launch.clock_offset_ns, wall_offset_ns: launch.wall_offset_ns }
    }
}

impl Platform for Clock {
    #[inline(always)]
    fn now_ns(&self) -> u64 {
        globaltimer_ns().wrapping_add_signed(self.offset_ns)
    }

    #[inline(always)]
    fn wall_offset_ns(&self) -> u64 {
        self.wall_offset_ns
    }

    #[inline(always)]
    fn wake(&self, _: &WakeFlag) {}
}
