//! Why the control plane refuses.

use core::fmt;
use k2k_core::fabric::{NameError, NotFailed, NotRegistered};
use k2k_core::{KernelId, RegisterError};

/// Why an endpoint was not registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndpointError {
    /// The name is too long, empty, or contains a NUL.
    Name(NameError),
    /// The fabric has no free index, or the name is in use.
    Register(RegisterError),
    /// This process was forked, and has only a copy of the broker or of private memory.
    Forked,
}

/// Message for an operation on a forked process's copy.
const FORKED: &str = "this process was forked and has only a copy of its parent's: open the fabric's file again, or \
                      make a broker of the inherited memory, if that is a file";

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(e) => e.fmt(f),
            Self::Register(e) => e.fmt(f),
            Self::Forked => f.write_str(FORKED),
        }
    }
}

impl core::error::Error for EndpointError {}

impl From<NameError> for EndpointError {
    fn from(e: NameError) -> Self {
        Self::Name(e)
    }
}

/// Why [`Broker::unregister`](super::Broker::unregister) did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnregisterError {
    /// The kernel has left already.
    NotRegistered(KernelId),
    /// This broker did not start the kernel: drop the kernel's endpoint instead.
    NotStartedHere(KernelId),
    /// This process was forked, and has only a copy of the broker.
    Forked,
}

impl fmt::Display for UnregisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRegistered(id) => NotRegistered(*id).fmt(f),
            Self::NotStartedHere(id) => {
                write!(f, "{id} was not started by this broker: it leaves when its endpoint is dropped")
            }
            Self::Forked => f.write_str(FORKED),
        }
    }
}

impl core::error::Error for UnregisterError {}

/// Why a broker or a handle did not change a kernel or a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ControlError {
    /// No kernel is registered at this address (any more).
    NotRegistered(KernelId),
    /// No failed kernel has an index at this address.
    NotFailed(NotFailed),
    /// This process was forked, and has only a copy of the broker or handle.
    Forked,
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRegistered(id) => NotRegistered(*id).fmt(f),
            Self::NotFailed(e) => e.fmt(f),
            Self::Forked => f.write_str(FORKED),
        }
    }
}

impl core::error::Error for ControlError {}

impl From<NotFailed> for ControlError {
    fn from(e: NotFailed) -> Self {
        Self::NotFailed(e)
    }
}

impl From<NotRegistered> for ControlError {
    fn from(e: NotRegistered) -> Self {
        Self::NotRegistered(e.0)
    }
}
