//! A sender's share of the high-priority ring of an inbox. The ring serves all senders, so without shares one that sends
//! faster than the receiver takes would keep all of it.
//!
//! The sender itself keeps within [`Config::high_share`](crate::Config::high_share). Which of its messages wait is said by
//! the ring's words, which name the producer of each. So nothing has to survive the sender: a successor counts them there.

use super::Endpoint;
use crate::fabric::DeliveryStatus;
use crate::message::{Header, Priority};
use crate::platform::Platform;
use crate::shape::{Index, Shape};

/// On a GPU, a load of a word that a supervisor may write is dear: there a kernel looks whether some senders may be denied
/// when its inbox is empty, and elsewhere at each message.
pub(super) const LOOKS_WHEN_IDLE: bool = cfg!(target_arch = "nvptx64");

/// What a sender knows of its messages in one high-priority ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HighRoom {
    /// That many more fit, at least; with 0 it has to count.
    AtLeast(u32),
    /// None does until the one at this position was taken.
    Full { oldest: u64 },
}

impl Default for HighRoom {
    /// To be counted.
    fn default() -> Self {
        Self::AtLeast(0)
    }
}

/// The share in force, for what the fabric's header says.
pub(super) const fn share(configured: u32, kernels: usize, slots: usize) -> u32 {
    let slots = slots as u32;
    let share = if configured == 0 { slots / kernels as u32 } else { configured };
    if share == 0 {
        1
    } else if share > slots {
        slots
    } else {
        share
    }
}

impl<L: Platform, Sh: Shape> Endpoint<'_, L, Sh> {
    /// Whether an inbox has room for a message of this kernel: one of high priority may find the ring full all the same.
    #[inline(always)]
    pub(super) fn has_room(&mut self, to: Index<Sh>, header_priority: u8) -> bool {
        if header_priority == Priority::Normal as u8 {
            self.fabric.lanes(to).has_room(self.place, &mut self.lanes_out[to])
        } else {
            self.has_high_room(to)
        }
    }

    /// Whether this kernel's share of an inbox has room.
    #[cold]
    #[inline(never)]
    pub(super) fn has_high_room(&mut self, to: Index<Sh>) -> bool {
        let ring = self.fabric.high(to);
        let me = self.id.index() as u16;
        match self.high_out[to] {
            HighRoom::AtLeast(1..) => return true,
            HighRoom::Full { oldest } if ring.is_waiting(oldest, me) => return false,
            _ => {}
        }
        let (waiting, oldest) = ring.waiting_of(me);
        let room = share(self.config.high_share, self.fabric.shape().producers(), self.fabric.shape().slots())
            .saturating_sub(waiting);
        self.high_out[to] = if room > 0 { HighRoom::AtLeast(room) } else { HighRoom::Full { oldest } };
        room > 0
    }

    /// Notes that this kernel has published one more message in an inbox's ring.
    #[inline(always)]
    pub(super) fn use_high_room(&mut self, to: Index<Sh>) {
        if let HighRoom::AtLeast(room) = self.high_out[to] {
            self.high_out[to] = HighRoom::AtLeast(room.saturating_sub(1));
        }
    }

    /// Settles a message for this kernel as `NotAllowed`, if its source is denied.
    #[inline(always)]
    pub(super) fn refuses(&mut self, header: &Header) -> bool {
        let restricted = if LOOKS_WHEN_IDLE { self.restricted } else { self.fabric.entry(self.place).is_restricted() };
        restricted && self.refuse_denied(header)
    }

    #[cold]
    #[inline(never)]
    fn refuse_denied(&mut self, header: &Header) -> bool {
        let denied = self.fabric.senders().denies(self.id, header.source());
        if denied {
            self.end(header, DeliveryStatus::NotAllowed);
        }
        denied
    }
}

#[cfg(all(test, not(k2k_loom)))]
mod tests {
    use super::{HighRoom, share};
    use crate::endpoint::send::Purpose;
    use crate::{
        Config, DeliveryStatus, Endpoint, Fabric, Fixed, Header, KernelId, Message, Platform, Priority, Register,
        WakeFlag,
    };
    extern crate std;
    use std::boxed::Box;

    struct Still;
    impl Platform for Still {
        fn now_ns(&self) -> u64 {
            1_000
        }

        fn wake(&self, _: &WakeFlag) {}
    }

    type Small = Fabric<4, 16, 64>;
    type End<'f> = Endpoint<'f, Still, Fixed<4, 16, 64>>;

    fn fabric() -> Box<Small> {
        // SAFETY: zero is an idle fabric.
        let fabric = unsafe { Box::<Small>::new_zeroed().assume_init() };
        fabric.init(&Config::default()).expect("zeroed");
        fabric
    }

    fn register<'f>(fabric: &'f Small, name: &str) -> End<'f> {
        fabric.register(&Register::new(name).unwrap(), Still).unwrap()
    }

    /// A sender that does not keep to the rules: it deposits a message and asks neither the sender set nor its share.
    fn deposit_unasked(sender: &mut End<'_>, to: KernelId, sequence: u64, priority: Priority) -> bool {
        let hop = sender.next_hop(to).expect("registered");
        let header = Header {
            sequence,
            deadline_ns: u64::MAX,
            source_generation: sender.id().generation(),
            source_index: sender.id().index() as u16,
            destination_generation: to.generation(),
            destination_index: to.index() as u16,
            hop_limit: 4,
            priority: priority as u8,
            ..bytemuck::Zeroable::zeroed()
        };
        sender.high_out[hop.place] = HighRoom::AtLeast(u32::MAX);
        sender.deposit(hop, &header, &Message::new(1), Purpose::Send)
    }

    #[test]
    fn a_denied_sender_that_does_not_ask_is_refused_by_the_receiver() {
        for forwarded in [false, true] {
            let fabric = fabric();
            let [mut liar, mut forwarder, mut receiver] =
                ["liar", "forwarder", "receiver"].map(|n| register(&fabric, n));
            if forwarded {
                fabric.set_route(liar.id(), receiver.id(), forwarder.id()).unwrap();
            }
            fabric.deny(receiver.id(), liar.id()).unwrap();
            for (sequence, priority) in [(1, Priority::Normal), (2, Priority::High)] {
                assert!(deposit_unasked(&mut liar, receiver.id(), sequence, priority));
            }
            forwarder.send(receiver.id(), &Message::new(2)).unwrap();
            assert!(forwarder.try_receive().is_none());
            assert_eq!(receiver.try_receive().map(|m| m.header.source()), Some(forwarder.id()));
            assert!(receiver.try_receive().is_none());
            assert_eq!((receiver.stats().not_allowed, receiver.stats().received), (2, 1), "forwarded: {forwarded}");
        }
    }

    #[test]
    fn a_sender_that_takes_more_than_its_share_takes_no_room_of_normal_priority() {
        let fabric = fabric();
        let [mut liar, mut polite, mut receiver] = ["liar", "polite", "receiver"].map(|n| register(&fabric, n));
        let mut sequence = 0;
        for _ in 0..100 {
            for priority in [Priority::Normal, Priority::High] {
                while deposit_unasked(&mut liar, receiver.id(), sequence + 1, priority) {
                    sequence += 1;
                }
            }
            let id = polite.send(receiver.id(), &Message::new(1)).expect("a ring of its own");
            // The ring of high priority is full, and the receiver takes from the others all the same.
            let received = (0..64).map_while(|_| receiver.try_receive());
            assert!(received.map(|m| m.header.id()).any(|received| received == id));
            assert_eq!(polite.receipt(id).unwrap().status, DeliveryStatus::Delivered);
        }
    }

    #[test]
    fn a_share_is_at_least_one_message_and_at_most_the_ring() {
        assert_eq!([(0, 16, 256), (0, 4, 2), (0, 3, 8), (0, 1, 8)].map(|(n, k, s)| share(n, k, s)), [16, 1, 2, 8]);
        assert_eq!(
            [(1, 16, 256), (9, 4, 8), (u32::MAX, 4, 8), (3, 4, 2)].map(|(n, k, s)| share(n, k, s)),
            [1, 8, 8, 2]
        );
    }
}
