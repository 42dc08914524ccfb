//! Frames: what crosses a link.
//!
//! A frame is a [`Message`](crate::Message). Its `priority` says which kind: below `FIRST_CONTROL` a message of that
//! priority, whose source and destination are the addresses of its sender and its receiver in their own domains;
//! from there on a *control* frame, which one gateway sends to the other, without payload. In messages and answers,
//! `logical` carries the number of the transfer. The logical time of a message does not travel: if it is not 0, the
//! gateway that sends the frame adds 1 ns to the wall time, so that the timestamp that arrives is never before the
//! timestamp that was given.

use crate::fabric::{DeliveryStatus, NAME_LEN};
use crate::message::{Header, KernelId, MessageId};

/// A frame whose `priority` is this or more is no message.
pub(super) const FIRST_CONTROL: u8 = 16;

const HELLO: u8 = 16;
const BYE: u8 = 17;
const ANNOUNCE: u8 = 18;
const WITHDRAW: u8 = 19;
const REFUSE: u8 = 20;
const ANSWER: u8 = 21;

/// A control frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Control {
    /// The sender begins: its receiver forgets all earlier frames, and answers with a hello of its own unless this one
    /// is a `reply`. The sender's kernels can ask for their last `receipts` receipts, and its deadlines are on the clock
    /// of that name, if the name is not 0.
    Hello { reply: bool, receipts: u64, clock: u64 },
    /// The sender's last frame.
    Bye,
    /// The sender's domain has a kernel of that name.
    Announce { id: KernelId, name: [u8; NAME_LEN] },
    /// That kernel has left.
    Withdraw { id: KernelId },
    /// A kernel that was announced could not be registered.
    Refuse { id: KernelId },
    /// What became of a message of the receiver's domain.
    Answer { transfer: u16, id: MessageId, status: DeliveryStatus },
}

impl Control {
    pub(super) fn encode(self) -> Header {
        let mut header: Header = bytemuck::Zeroable::zeroed();
        match self {
            Self::Hello { reply, receipts, clock } => {
                header.priority = HELLO;
                header.sequence = receipts;
                header.correlation_id = clock;
                header.kind = u32::from(reply);
            }
            Self::Bye => header.priority = BYE,
            Self::Announce { id, name } => {
                header.priority = ANNOUNCE;
                header.set_source(id);
                let mut words = name.chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().unwrap_or([0; 8])));
                let mut next = || words.next().unwrap_or(0);
                header.sequence = next();
                header.correlation_id = next();
                header.wall_time_ns = next();
                header.deadline_ns = next();
            }
            Self::Withdraw { id } => {
                header.priority = WITHDRAW;
                header.set_source(id);
            }
            Self::Refuse { id } => {
                header.priority = REFUSE;
                header.set_source(id);
            }
            Self::Answer { transfer, id, status } => {
                header.priority = ANSWER;
                header.logical = transfer;
                header.set_source(id.source);
                header.sequence = id.sequence;
                header.kind = status as u32;
            }
        }
        header
    }

    /// `None` for a header that no gateway sends.
    pub(super) fn decode(header: &Header) -> Option<Self> {
        let id = header.source();
        Some(match header.priority {
            HELLO => Self::Hello { reply: header.kind != 0, receipts: header.sequence, clock: header.correlation_id },
            BYE => Self::Bye,
            ANNOUNCE => {
                let mut name = [0; NAME_LEN];
                let words = [header.sequence, header.correlation_id, header.wall_time_ns, header.deadline_ns];
                for (bytes, word) in name.chunks_exact_mut(8).zip(words) {
                    bytes.copy_from_slice(&word.to_le_bytes());
                }
                Self::Announce { id, name }
            }
            WITHDRAW => Self::Withdraw { id },
            REFUSE => Self::Refuse { id },
            ANSWER => {
                let (transfer, id, status) = answer(header)?;
                Self::Answer { transfer, id, status }
            }
            _ => return None,
        })
    }
}

/// Number, message and status, if this is an [answer](Control::Answer).
#[inline(always)]
pub(super) fn answer(header: &Header) -> Option<(u16, MessageId, DeliveryStatus)> {
    let status = u8::try_from(header.kind).ok().and_then(DeliveryStatus::from_number)?;
    (header.priority == ANSWER && status != DeliveryStatus::Pending).then(|| (transfer(header), header.id(), status))
}

/// The number of the transfer that a message or an answer belongs to.
pub(super) const fn transfer(header: &Header) -> u16 {
    header.logical
}

/// Puts the number of its transfer into a message's header, in the place of its logical time.
pub(super) const fn set_transfer(header: &mut Header, transfer: u16) {
    if header.logical > 0 {
        header.wall_time_ns = header.wall_time_ns.saturating_add(1);
    }
    header.logical = transfer;
}

/// The header of a message as it was before [`set_transfer`], but for its logical time.
pub(super) const fn without_transfer(header: &Header) -> Header {
    Header { logical: 0, ..*header }
}

#[cfg(test)]
#[cfg(not(k2k_loom))]
mod tests {
    use super::*;

    #[test]
    fn what_gateways_say_survives_the_way() {
        let id = KernelId::new(3, 7);
        let name = core::array::from_fn(|i| i as u8 + 1);
        for control in [
            Control::Hello { reply: false, receipts: 9, clock: u64::MAX },
            Control::Hello { reply: true, receipts: 0, clock: 0 },
            Control::Bye,
            Control::Announce { id, name },
            Control::Withdraw { id },
            Control::Refuse { id },
            Control::Answer {
                transfer: 0xabcd,
                id: MessageId { source: id, sequence: 5 },
                status: DeliveryStatus::MaxHopsExceeded,
            },
        ] {
            let header = control.encode();
            assert_eq!(Control::decode(&header), Some(control));
            assert!(header.priority >= FIRST_CONTROL && header.payload_len == 0);
            let delivered = Header { kind: DeliveryStatus::Delivered as u32, ..header };
            assert_eq!(answer(&delivered).is_some(), matches!(control, Control::Answer { .. }));
        }
    }

    #[test]
    fn what_no_gateway_says_is_nothing() {
        let answer = Control::Answer { transfer: 1, id: MessageId::default(), status: DeliveryStatus::Delivered };
        for kind in [0, 1, 8, 256 + 2] {
            assert_eq!(Control::decode(&Header { kind, ..answer.encode() }), None);
        }
        for priority in [2, 15, 22, 255] {
            assert_eq!(Control::decode(&Header { priority, ..answer.encode() }), None);
        }
    }

    #[test]
    fn a_timestamp_that_crosses_is_never_before_the_one_that_was_given() {
        for (wall_time_ns, logical) in [(5, 0), (5, 1), (5, u16::MAX), (u64::MAX, 3)] {
            let mut header = Header { wall_time_ns, logical, ..bytemuck::Zeroable::zeroed() };
            let given = header.sent();
            set_transfer(&mut header, 0xabcd);
            assert_eq!(transfer(&header), 0xabcd);
            let arrived = without_transfer(&header).sent();
            assert!(arrived >= given || given.wall_time_ns == u64::MAX, "{given} became {arrived}");
            assert!(arrived.wall_time_ns - given.wall_time_ns <= 1 && arrived.logical == 0);
        }
    }

    #[test]
    fn frame_codes_are_pinned() {
        assert_eq!([HELLO, BYE, ANNOUNCE, WITHDRAW, REFUSE, ANSWER], [16, 17, 18, 19, 20, 21]);
    }
}
