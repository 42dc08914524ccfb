//! A kernel's ends of the other kernels' inboxes: whether a message has room there, and its deposit.
//!
//! The high-priority ring of an inbox serves all senders, so a sender that sends faster than the receiver takes would keep
//! all of it. So the sender keeps within a share, [`Config::high_share`](crate::Config::high_share). Which of its messages
//! wait is said by the ring's words, which name the producer of each. So nothing has to survive the sender: a successor
//! counts them there.

use super::member::Member;
use crate::fabric::{Config, Deposit, Ledger};
use crate::in_place::make_in;
use crate::message::{Header, Priority};
use crate::ring::spsc::ProducerState;
use crate::ring::ticket::TicketError;
use crate::shape::{Index, Packet, Shape};
use crate::sync::Body;
use core::mem::MaybeUninit;

/// Tries of a high-priority deposit that is passed over each time.
const HIGH_TRIES: usize = 3;

/// For what a message is deposited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The message is this kernel's own.
    Send,
    /// The message is passed on.
    Forward,
}

/// What a sender knows of its messages in one high-priority ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HighRoom {
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
const fn share(configured: u32, kernels: usize, slots: usize) -> u32 {
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

/// The producer's ends of this kernel's shards and of the high-priority rings, one of each per inbox.
pub(super) struct Outbox<Sh: Shape> {
    shards: Sh::Each<ProducerState>,
    high: Sh::Each<HighRoom>,
    /// Messages of high priority that may wait in one inbox.
    share: u32,
    /// Header of the message of high priority that is being deposited.
    header: Header,
}

impl<Sh: Shape> Outbox<Sh> {
    /// Goes on where the last owner of the kernel index stopped.
    pub(super) fn recover_in<'e>(
        memory: &'e mut MaybeUninit<Self>,
        me: &Member<'_, Sh>,
        config: &Config,
    ) -> &'e mut Self {
        let shape = me.fabric().shape();
        make_in!(memory, Self {
            shards => |each| shape.each_in(each, |to| me.fabric().sharded(to).recover_producer(me.index())),
            high => |each| shape.each_in(each, |_| HighRoom::default()),
            share: share(config.high_share, shape.producers(), shape.slots()),
            header: bytemuck::Zeroable::zeroed(),
        })
    }

    /// Whether an inbox has room for a message of this kernel: one of high priority may find the ring full all the same.
    #[inline(always)]
    pub(super) fn has_room(&mut self, me: &Member<'_, Sh>, to: Index<Sh>, header_priority: u8) -> bool {
        if header_priority == Priority::Normal as u8 {
            me.shard_to(to).has_room(&mut self.shards[to])
        } else {
            self.has_high_room(me, to)
        }
    }

    /// Whether this kernel's share of an inbox has room.
    #[cold]
    #[inline(never)]
    fn has_high_room(&mut self, me: &Member<'_, Sh>, to: Index<Sh>) -> bool {
        let ring = me.fabric().high(to);
        match self.high[to] {
            HighRoom::AtLeast(1..) => return true,
            HighRoom::Full { oldest } if ring.is_waiting(oldest, me.producer()) => return false,
            _ => {}
        }
        let (waiting, oldest) = ring.waiting_of(me.producer());
        let room = self.share.saturating_sub(waiting);
        self.high[to] = if room > 0 { HighRoom::AtLeast(room) } else { HighRoom::Full { oldest } };
        room > 0
    }

    /// Where a message is about to be deposited.
    #[inline(always)]
    pub(super) fn deposit_of(&self, hop: Index<Sh>, header: &Header) -> Deposit<Sh> {
        if header.priority == Priority::Normal as u8 {
            Deposit::Normal { hop, position: self.shards[hop].tail }
        } else {
            Deposit::High { hop, position: None }
        }
    }

    /// Puts a message into an inbox; `false` if there is no room. The caller has noted the message, and will wake the
    /// inbox's owner.
    #[inline(always)]
    pub(super) fn deposit(
        &mut self,
        me: &Member<'_, Sh>,
        ledger: &Ledger<'_, Sh::Scope>,
        to: Index<Sh>,
        header: &Header,
        message: &Sh::Item,
        purpose: Purpose,
    ) -> bool {
        if header.priority == Priority::Normal as u8 {
            // SAFETY: rule 2 of the SPSC ring: `fill` is called with the slot that is this producer's to write.
            let fill = |body: Body<'_, _>| unsafe { body.write_headed(header, message, message.used()) };
            me.shard_to(to).push(&mut self.shards[to], message.used(), fill).is_ok()
        } else {
            // Not lent: on a GPU, what is lent to a call has to be in local memory.
            self.header = *header;
            self.has_high_room(me, to) && self.deposit_high(me, ledger, to, message, purpose)
        }
    }

    #[cold]
    #[inline(never)]
    fn deposit_high(
        &mut self,
        me: &Member<'_, Sh>,
        ledger: &Ledger<'_, Sh::Scope>,
        hop: Index<Sh>,
        message: &Sh::Item,
        purpose: Purpose,
    ) -> bool {
        let ring = me.fabric().high(hop);
        // A successor looks at the slot that was claimed last, if it is not given back yet.
        let note = |position| {
            let to = Deposit::High { hop, position }.encode();
            match purpose {
                Purpose::Send => ledger.deposit(to, self.header.sequence),
                Purpose::Forward => ledger.pass(to),
            }
        };
        // SAFETY: rule 1 of the ticket ring: `fill` is called with a slot that is this producer's to write.
        let fill = |body: Body<'_, _>| unsafe { body.write_headed(&self.header, message, message.used()) };
        let mut tries = (0..HIGH_TRIES).map(|_| ring.push_with(me.producer(), fill, note));
        let done = tries.find(|result| *result != Err(TicketError::Revoked)) == Some(Ok(()));
        if done && let HighRoom::AtLeast(room) = self.high[hop] {
            self.high[hop] = HighRoom::AtLeast(room.saturating_sub(1));
        }
        done
    }

    /// For a successor: whether its predecessor's message is in the inbox that it was meant for, or was taken from there.
    pub(super) fn was_deposited(&self, me: &Member<'_, Sh>, deposit: Deposit<Sh>) -> bool {
        match deposit {
            Deposit::Normal { hop, position } => Deposit::<Sh>::is_passed_by(position, self.shards[hop].tail),
            Deposit::High { hop, position: Some(position) } => {
                me.fabric().high(hop).was_published(position, me.producer())
            }
            Deposit::High { position: None, .. } => false,
        }
    }

    /// Forgets that a sender has to keep within its share.
    #[cfg(all(test, not(k2k_loom)))]
    pub(super) fn ignore_share(&mut self, to: Index<Sh>) {
        self.high[to] = HighRoom::AtLeast(u32::MAX);
    }
}

#[cfg(test)]
#[cfg(not(k2k_loom))]
mod tests {
    use super::{Purpose, share};
    use crate::{
        Config, DeliveryStatus, Endpoint, Fabric, Fixed, Header, KernelId, Message, Platform, Priority, Registration,
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
        fabric.register(&Registration::new(name).unwrap(), Still).unwrap()
    }

    /// A sender that does not keep to the rules: it deposits a message and asks neither the sender set nor its share.
    fn deposit_unasked(sender: &mut End<'_>, to: KernelId, sequence: u64, priority: Priority) -> bool {
        let hop = sender.member.next_hop(to).expect("registered");
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
        sender.outbox.ignore_share(hop.index);
        let End { member, outbox, ledger, .. } = sender;
        outbox.deposit(member, ledger, hop.index, &header, &Message::new(1), Purpose::Send)
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
