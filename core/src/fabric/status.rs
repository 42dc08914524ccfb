//! What a sender is told of a message.

use crate::message::MessageId;
use core::fmt;

/// What became of a message. The numbers stand in shared memory and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DeliveryStatus {
    /// On its way, or waiting in an inbox.
    Pending = 1,
    /// The receiver has taken it out of its inbox.
    Delivered = 2,
    /// There is no such kernel (any more), or the next hop on the way to it has left.
    NotFound = 3,
    /// A forwarder had no room for it.
    QueueFull = 4,
    /// Its deadline passed before it was received.
    Timeout = 5,
    /// It was forwarded as often as it may be and was not there yet.
    MaxHopsExceeded = 6,
    /// It crossed to a remote domain, which has not said in time what became of it: it may have been received. The only
    /// status that leaves this open; `Timeout` never does.
    Unanswered = 7,
    /// Its receiver may not receive from its source: see [`Fabric::deny`](crate::Fabric::deny).
    NotAllowed = 10,
}

impl DeliveryStatus {
    pub(super) const fn from_bits(bits: u64) -> Option<Self> {
        Some(match bits {
            1 => Self::Pending,
            2 => Self::Delivered,
            3 => Self::NotFound,
            4 => Self::QueueFull,
            5 => Self::Timeout,
            6 => Self::MaxHopsExceeded,
            7 => Self::Unanswered,
            10 => Self::NotAllowed,
            _ => return None,
        })
    }

    /// The status that a number in a trace stands for.
    pub(crate) const fn from_number(number: u8) -> Option<Self> {
        Self::from_bits(number as u64)
    }
}

impl fmt::Display for DeliveryStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::NotFound => "destination not found",
            Self::QueueFull => "queue full",
            Self::Timeout => "timed out",
            Self::MaxHopsExceeded => "hop limit exceeded",
            Self::Unanswered => "not answered by the remote domain",
            Self::NotAllowed => "not allowed",
        })
    }
}

/// A message and what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryReceipt {
    /// The message.
    pub id: MessageId,
    /// Its status when the receipt was read. Only `Pending` can still change.
    pub status: DeliveryStatus,
}

/// Why there is no receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReceiptError {
    /// The sender has sent so many messages since that the entry tells of a later one.
    Overwritten,
    /// No message of that name was sent.
    Unknown,
}

impl fmt::Display for ReceiptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Overwritten => {
                "the receipt was overwritten by a later message: a sender's table holds KERNELS x SLOTS receipts"
            }
            Self::Unknown => "no message with this id was sent",
        })
    }
}

impl core::error::Error for ReceiptError {}

#[cfg(test)]
#[cfg(not(k2k_loom))]
mod tests {
    use super::*;

    #[test]
    fn status_numbers_are_pinned() {
        let all = [
            (DeliveryStatus::Pending, 1),
            (DeliveryStatus::Delivered, 2),
            (DeliveryStatus::NotFound, 3),
            (DeliveryStatus::QueueFull, 4),
            (DeliveryStatus::Timeout, 5),
            (DeliveryStatus::MaxHopsExceeded, 6),
            (DeliveryStatus::Unanswered, 7),
        ];
        for (status, number) in all {
            assert_eq!(status as u64, number);
            assert_eq!(DeliveryStatus::from_bits(number), Some(status));
        }
        assert_eq!(DeliveryStatus::from_bits(0), None);
        assert_eq!(DeliveryStatus::from_bits(8), None);
    }
}
