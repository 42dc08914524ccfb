//! What `core` asks of the place it runs in: two clocks, and a way to wake a kernel that sleeps.
//!
//! # Two clocks
//!
//! | clock | read through | what runs on it |
//! | --- | --- | --- |
//! | elapsed time | [`Platform::now_ns`] | deadlines, timeouts, patience with a dead sender, silence of a gateway, heartbeats |
//! | wall time | `now_ns` + [`Platform::wall_offset_ns`] | hybrid timestamps, traces: what people read |
//!
//! The elapsed time cannot be set, so a wall clock that is set by an hour neither times out a message nor lengthens a
//! wait. Its zero is the backend's choice: a reading means something only to kernels on the same clock.
//! [`Config::clock`](crate::Config::clock) says in the fabric's header which clock that is.
//!
//! # The margin
//!
//! Two kernels that read the elapsed time at the same moment may see readings that differ, but by less than
//! [`CLOCK_MARGIN_NS`]: backends promise it. Hence two different ends of a message's time:
//!
//! ```text
//!   ------------- may be received ---------------|-- nobody receives, nobody gives up --|--- its sender may give up --->
//!                                             deadline                         deadline + margin
//! ```
//!
//! A receiver or forwarder refuses a message once its own clock is past the deadline. The sender gives a message up once
//! its own clock is past the deadline and the margin; by then every other kernel's clock is past the deadline. So a
//! message that its sender has given up is refused even by a receiver that does not see the sender's verdict any more.

use crate::wake_flag::WakeFlag;

/// By how much the clocks of two kernels of one fabric may differ at most, ns.
pub const CLOCK_MARGIN_NS: u64 = 100_000;

/// A backend: a host, a device, or a test. `core` never reads a clock and never makes a system call by itself.
pub trait Platform {
    /// Elapsed time in ns, on a clock that cannot be set; its zero lies in the past, anywhere. All kernels of one fabric
    /// read the same clock. At any moment their readings differ by less than [`CLOCK_MARGIN_NS`], and a later reading is
    /// less than the margin behind an earlier one.
    fn now_ns(&self) -> u64;

    /// What to add (wrapping) to the last [`now_ns`](Self::now_ns) to get the wall time, ns since the Unix epoch. Asked
    /// once per message, right after `now_ns`: a backend should remember it rather than read another clock.
    #[inline(always)]
    fn wall_offset_ns(&self) -> u64 {
        0
    }

    /// Ends the sleep of the kernel at `wake_flag`: makes its word even and wakes the kernel, in one step where the
    /// system has such a step; otherwise [`WakeFlag::wake_up`], then wake. Called only for kernels that registered as
    /// [parking](crate::Registration::parking), while [`WakeFlag::must_wake`] says that the kernel sleeps. A death between
    /// two steps costs the kernel the rest of its slice.
    fn wake(&self, wake_flag: &WakeFlag);

    /// Whether this is the process that made the platform. A forked process has a copy of every endpoint of its parent;
    /// a copy whose platform answers `false` writes nothing to shared memory, not even when it is dropped. Asked in
    /// every call, so the answer must be cheap.
    #[inline(always)]
    fn is_here(&self) -> bool {
        true
    }

    /// Who owns the kernels that register with this platform: a number that no other process has while this fabric lives,
    /// so that a supervisor can find the indices of a process that died. Asked when a kernel registers, never on a
    /// message's way.
    ///
    /// 1, the default, says nothing: nobody takes such an index away without being told to. Otherwise bit 63 is set,
    /// and the lower bits are the backend's business; the host's are a process id and the time at which the process
    /// started, both as seen in the domain that [`Config::domain`](crate::Config::domain) names. A number of another form
    /// counts as 1.
    #[inline(always)]
    fn owner(&self) -> u64 {
        1
    }
}

impl<P: Platform + ?Sized> Platform for &P {
    #[inline(always)]
    fn now_ns(&self) -> u64 {
        (**self).now_ns()
    }

    #[inline(always)]
    fn wall_offset_ns(&self) -> u64 {
        (**self).wall_offset_ns()
    }

    #[inline(always)]
    fn wake(&self, wake_flag: &WakeFlag) {
        (**self).wake(wake_flag);
    }

    #[inline(always)]
    fn is_here(&self) -> bool {
        (**self).is_here()
    }

    #[inline(always)]
    fn owner(&self) -> u64 {
        (**self).owner()
    }
}
