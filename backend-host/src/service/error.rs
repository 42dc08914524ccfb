//! Why a request has no answer.

use crate::wait::ReceiveError;
use bytemuck::{Pod, Zeroable};
use core::fmt;
use k2k_core::message::PayloadSize;
use k2k_core::{DeliveryStatus, KernelId, SendError};

/// A service's refusal: a number of its own, or one of those below, with which [`Service`](crate::Service) refuses by
/// itself. Crosses as an answer of the kind [`Refused::ANSWER_KIND`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(transparent)]
pub struct Refused(pub u32);

impl Refused {
    /// The kind of an answer that is a refusal: no request and no other answer has it.
    pub const ANSWER_KIND: u32 = u32::MAX;
    /// The service knows no request of this kind.
    pub const UNKNOWN_KIND: Self = Self(u32::MAX);
    /// The request has not the size that its kind has.
    pub const WRONG_SIZE: Self = Self(u32::MAX - 1);
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::UNKNOWN_KIND => f.write_str("the service knows no request of this kind"),
            Self::WRONG_SIZE => f.write_str("the request has another size than the service's requests of this kind"),
            Self(number) => write!(f, "the service refused with {number}"),
        }
    }
}

impl core::error::Error for Refused {}

/// Why a request came to nothing. [`may_have_been_received`](Self::may_have_been_received) says whether to ask again is
/// safe in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestError {
    /// The request was not sent. `QueueFull`: there was no room until the deadline.
    Send(SendError),
    /// The request ended so, and was not received.
    NotReceived(DeliveryStatus),
    /// No answer came until the deadline. `Delivered`: the service has received the request. Otherwise nobody can tell
    /// yet, or ever (`Unanswered`).
    NoAnswer(DeliveryStatus),
    /// The service received the request, or may have, and left without an answer.
    Gone(KernelId),
    /// The service answered no.
    Refused(Refused),
    /// The answer has another size than its type.
    AnswerSize(PayloadSize),
    /// As many other messages as the client keeps came while it waited: they are to be
    /// [received](crate::Client::receive) first.
    Crowded {
        /// Messages that it keeps.
        kept: usize,
    },
    /// A supervisor told this kernel to stop.
    Stopped,
    /// This process was forked: the endpoint is a copy, and only the parent's may be used.
    Forked,
    /// The owner of this kernel was taken for dead, and another took the kernel over.
    Evicted,
}

impl RequestError {
    /// Whether the service may have carried the request out.
    #[must_use]
    pub const fn may_have_been_received(&self) -> bool {
        !matches!(self, Self::Send(_) | Self::NotReceived(_))
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(e) => e.fmt(f),
            Self::NotReceived(status) => write!(f, "the request was not received: {status}"),
            Self::NoAnswer(DeliveryStatus::Delivered) => {
                f.write_str("the service has received the request, and did not answer in time")
            }
            Self::NoAnswer(status) => {
                write!(f, "no answer came in time, and the request may have been received: {status}")
            }
            Self::Gone(service) => {
                write!(f, "{service} left without an answer to the request: find its successor by name, and ask that")
            }
            Self::Refused(refused) => refused.fmt(f),
            Self::AnswerSize(e) => write!(f, "the answer is of another type: {e}"),
            Self::Crowded { kept } => {
                write!(f, "{kept} other messages came while the answer was waited for: receive them first")
            }
            Self::Stopped => ReceiveError::Stopped.fmt(f),
            Self::Forked => ReceiveError::Forked.fmt(f),
            Self::Evicted => ReceiveError::Evicted.fmt(f),
        }
    }
}

impl core::error::Error for RequestError {}

impl From<ReceiveError> for RequestError {
    /// Of an error that ends a wait, other than its time limit.
    fn from(e: ReceiveError) -> Self {
        match e {
            ReceiveError::Forked => Self::Forked,
            ReceiveError::Evicted => Self::Evicted,
            ReceiveError::Stopped | ReceiveError::Timeout => Self::Stopped,
        }
    }
}

impl From<SendError> for RequestError {
    fn from(e: SendError) -> Self {
        match e {
            SendError::Forked => Self::Forked,
            SendError::Evicted { .. } => Self::Evicted,
            SendError::Stopped { .. } => Self::Stopped,
            e => Self::Send(e),
        }
    }
}
