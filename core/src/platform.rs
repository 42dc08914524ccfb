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

    /// Whether this is the process that made the platform. A forked process has a copy of every endpoint of its parent;
    /// a copy whose platform answers `false` writes nothing to shared memory, not even when it is dropped. Asked in
    /// every call, so the answer must be cheap.
    #[inline(always)]
    fn is_here(&self) -> bool {
        true
    }
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

    #[inline(always)]
    fn is_here(&self) -> bool {
        (**self).is_here()
    }
}
