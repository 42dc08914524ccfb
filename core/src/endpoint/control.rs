//! What a supervisor and a run loop tell a kernel, and the kernel's signs of life.

use super::Endpoint;
use crate::fabric::{Command, Phase, Status};
use crate::platform::Platform;
use crate::shape::Shape;

/// Signs of life given, and how the run loop and the endpoint end.
pub(super) struct Control {
    heartbeats: u64,
    stopping: bool,
    /// What becomes of the kernel index when the endpoint is dropped.
    leave_as: Status,
}

impl Control {
    /// Goes on after a predecessor's last sign of life.
    pub(super) const fn new(heartbeats: u64) -> Self {
        Self { heartbeats, stopping: false, leave_as: Status::Free }
    }

    /// What becomes of the kernel index when the endpoint is dropped.
    pub(super) const fn leave_as(&self) -> Status {
        self.leave_as
    }
}

impl<P: Platform, Sh: Shape> Endpoint<'_, P, Sh> {
    /// What the supervisor wants. An [evicted](Self::is_evicted) kernel has to stop.
    #[inline]
    #[must_use]
    pub fn command(&self) -> Command {
        if self.is_evicted() {
            return Command::Stop;
        }
        self.member.entry().command(self.id().generation())
    }

    /// Whether the supervisor wants anything but [`Command::Run`]: then ask [`command`](Self::command) what.
    #[inline(always)]
    pub(crate) fn is_commanded(&self) -> bool {
        self.member.entry().is_commanded(self.id().generation())
    }

    /// Says what this kernel is doing. The run loop does so by itself.
    pub fn set_phase(&mut self, phase: Phase) {
        if !self.may_write() {
            return;
        }
        self.member.entry().set_phase(phase);
    }

    /// Gives a sign of life. The run loop does so by itself.
    #[inline]
    pub fn heartbeat(&mut self) {
        if self.may_write() {
            self.count_heartbeat();
        }
    }

    /// Begins a pass of a run loop with a sign of life; `false` if the loop has to [stop](Self::is_stopping).
    #[inline(always)]
    pub(crate) fn begin_pass(&mut self) -> bool {
        if self.is_stopping() {
            return false;
        }
        self.count_heartbeat();
        true
    }

    #[inline(always)]
    fn count_heartbeat(&mut self) {
        self.control.heartbeats = self.control.heartbeats.wrapping_add(1);
        self.member.entry().set_heartbeat(self.control.heartbeats);
    }

    /// Lets a run loop begin, whatever the last one was asked.
    pub(crate) fn start(&mut self) {
        self.control.stopping = false;
    }

    /// Asks the run loop to end after the message in hand.
    pub fn stop(&mut self) {
        self.control.stopping = true;
    }

    /// Whether [`stop`](Self::stop) was called, or this is a forked process's copy, or [evicted](Self::is_evicted).
    #[inline]
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.control.stopping || !self.may_write()
    }

    /// Leaves as failed: the index stays in use, with its trace, until it is [cleared](crate::FabricRef::clear_failed).
    pub fn fail(mut self) {
        self.set_phase(Phase::Failed);
        self.control.leave_as = Status::Failed;
    }
}
