//! The device's clock, as `core` wants it.

use super::thread::globaltimer_ns;
use k2k_core::{Platform, WakeFlag};

/// `%globaltimer`, moved to the Unix epoch. Nobody sleeps on a device, so there is nobody to wake.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    offset_ns: i64,
}

impl Clock {
    /// A clock that adds `offset_ns` to the device's: [`Launch::clock_offset_ns`](crate::Launch::clock_offset_ns).
    #[must_use]
    pub const fn new(offset_ns: i64) -> Self {
        Self { offset_ns }
    }
}

impl Platform for Clock {
    #[inline(always)]
    fn now_ns(&self) -> u64 {
        globaltimer_ns().wrapping_add_signed(self.offset_ns)
    }

    #[inline(always)]
    fn wake(&self, _: &WakeFlag) {}
}
