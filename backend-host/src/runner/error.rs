//! Why a kernel did not start, or did not return.

use super::KernelHandle;
use crate::broker::EndpointError;
use core::fmt;
use core::time::Duration;
use k2k_core::Shape;
use k2k_core::fabric::TraceEntry;
use k2k_core::sync::System;
use k2k_core::{KernelId, Phase};
use std::io;

/// Why a kernel was not started.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The kernel could not register.
    Register(EndpointError),
    /// This process may not run on the core.
    NoSuchCore {
        /// The requested core.
        core: usize,
        /// Cores that this process may run on.
        allowed: Vec<usize>,
    },
    /// The system refused to bind the thread.
    Pin {
        /// The requested core.
        core: usize,
        /// The system's answer.
        why: io::Error,
    },
    /// The system could not start a thread.
    Thread(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Register(e) => e.fmt(f),
            Self::NoSuchCore { core, allowed } => {
                write!(f, "cannot run on core {core}: this process may use {} cores, {allowed:?}", allowed.len())
            }
            Self::Pin { core, why } => write!(f, "cannot bind the thread to core {core}: {why}"),
            Self::Thread(why) => write!(f, "cannot start a thread: {why}"),
        }
    }
}

impl core::error::Error for StartError {}

impl From<EndpointError> for StartError {
    fn from(e: EndpointError) -> Self {
        Self::Register(e)
    }
}

/// A kernel whose handler panicked.
#[derive(Clone, Debug)]
pub struct KernelFailure {
    /// The kernel's address. The index stays failed until [cleared](crate::Broker::clear_failed).
    pub id: KernelId,
    /// The kernel's name.
    pub name: String,
    /// The panic's message.
    pub message: String,
    /// The kernel's last events, oldest first; empty unless tracing was on.
    pub trace: Vec<TraceEntry>,
}

impl fmt::Display for KernelFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kernel {} ({}) panicked: {}", self.name, self.id, self.message)
    }
}

impl core::error::Error for KernelFailure {}

/// Why [`KernelHandle::stop_and_join`] has no kernel to return.
pub enum StopError<T, Sh: Shape<Scope = System>> {
    /// The kernel failed, now or earlier.
    Failed(KernelFailure),
    /// The kernel did not stop in time.
    Hangs(Box<HangReport<T, Sh>>),
}

/// A kernel that does not stop, and its last signs of life.
pub struct HangReport<T, Sh: Shape<Scope = System>> {
    /// The handle: for waiting longer, or to drop.
    pub handle: KernelHandle<T, Sh>,
    /// How long the caller waited.
    pub waited: Duration,
    /// The kernel's last phase.
    pub phase: Phase,
    /// Passes of the run loop at the stop command and at the end. If equal, the kernel is in its handler.
    pub heartbeats: (u64, u64),
    /// The kernel's last events, oldest first; empty unless tracing is on.
    pub trace: Vec<TraceEntry>,
}

impl<T, Sh: Shape<Scope = System>> fmt::Display for StopError<T, Sh> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(e) => e.fmt(f),
            Self::Hangs(h) => {
                let (then, now) = h.heartbeats;
                write!(
                    f,
                    "kernel {} ({}) has not stopped after {:?}: phase {:?}, {} passes of its loop meanwhile{}",
                    h.handle.name,
                    h.handle.id,
                    h.waited,
                    h.phase,
                    now.wrapping_sub(then),
                    if now == then { ", so it hangs in its handler" } else { "" }
                )?;
                h.trace.last().map_or(Ok(()), |last| write!(f, "; last event: {:?} {}", last.event, last.id))
            }
        }
    }
}

impl<T, Sh: Shape<Scope = System>> fmt::Debug for StopError<T, Sh> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(failure) => f.debug_tuple("Failed").field(failure).finish(),
            Self::Hangs(hanging) => f.debug_tuple("Hangs").field(hanging).finish(),
        }
    }
}

impl<T, Sh: Shape<Scope = System>> fmt::Debug for HangReport<T, Sh> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HangReport")
            .field("handle", &self.handle)
            .field("waited", &self.waited)
            .field("phase", &self.phase)
            .field("heartbeats", &self.heartbeats)
            .field("trace", &self.trace)
            .finish()
    }
}

impl<T, Sh: Shape<Scope = System>> core::error::Error for StopError<T, Sh> {}
