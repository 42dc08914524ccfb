//! Why the control plane refuses.

use core::fmt;
use k2k_core::fabric::{NameError, NotRegistered};
use k2k_core::{KernelId, RegisterError};

/// Why an endpoint was not registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndpointError {
    /// The name is too long, empty, or contains a NUL.
    Name(NameError),
    /// The fabric has no place, or the name is taken.
    Register(RegisterError),
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(e) => e.fmt(f),
            Self::Register(e) => e.fmt(f),
        }
    }
}

impl core::error::Error for EndpointError {}

/// Why [`Broker::unregister`](super::Broker::unregister) did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnregisterError {
    /// It has left already.
    NotRegistered(KernelId),
    /// It was not started by this broker: who holds its endpoint drops that.
    NotStartedHere(KernelId),
}

impl fmt::Display for UnregisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRegistered(id) => NotRegistered(*id).fmt(f),
            Self::NotStartedHere(id) => {
                write!(f, "{id} was not started by this broker: it leaves when its endpoint is dropped")
            }
        }
    }
}

impl core::error::Error for UnregisterError {}
