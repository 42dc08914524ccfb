//! What `core` asks of the place it runs in: the time, and a way to wake someone who sleeps.

use crate::wake_flag::WakeFlag;

/// A backend: a host, a device, or a test. `core` never reads a clock and never makes a system call by itself.
pub trait Platform {
    /// Physical time in ns since the Unix epoch; kernels of one fabric read the same clock. Need not be monotonic, but a
    /// message whose sender has timed it out and has since overwritten its receipt may be received after all if the clock
    /// is set back.
    fn now_ns(&self) -> u64;

    /// Wakes the kernel that sleeps at `wake_flag`, if it still does. Called only for kernels that registered as
    /// [parking](crate::Register::parking), after [`WakeFlag::answer`] said that it sleeps.
    fn wake(&self, wake_flag: &WakeFlag);
}

impl<P: Platform + ?Sized> Platform for &P {
    #[inline(always)]
    fn now_ns(&self) -> u64 {
        (**self).now_ns()
    }

    #[inline(always)]
    fn wake(&self, wake_flag: &WakeFlag) {
        (**self).wake(wake_flag);
    }
}
