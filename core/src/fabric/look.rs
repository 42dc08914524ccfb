//! For an onlooker with a copy of its own, of a fabric of any shape: which bytes to copy, and what they say.
//!
//! The onlooker has as many zeroed bytes as the fabric has, opens the header that it has copied there, and from then on
//! [fetches](FabricRef::fetch) a [`Region`] and asks about it. Nobody writes the copy meanwhile, so an answer does not
//! change between two looks; but each aligned word was read at a moment of its own. What was not fetched is zero, or from
//! an earlier fetch.

use super::receipt::Latest;
use super::{Command, DeliveryStatus, FabricRef, Failures, Latencies, Latency, Name, Phase, Stats, Status, Trace};
use crate::message::{KernelId, MessageId, Priority};
use crate::ring::ticket::TicketView;
use crate::shape::{Index, Shape};
use crate::sync::AtomicU64;
use core::ops::Range;

/// Of rings and stores up to this size, bytes, all is copied at once if many of their words are asked for.
const AT_ONCE: usize = 1 << 20;

/// So many words are copied one by one.
const FEW: usize = 32;

/// A part of a fabric that an onlooker fetches before it asks about it. Numbers are kernel indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Region {
    /// Header and kernel table: for [`FabricRef::observe`] and everything else that is known of kernels by name.
    Table,
    /// For [`FabricRef::route`].
    Routes,
    /// For [`FabricRef::is_allowed`].
    Denials,
    /// For [`FabricRef::normal_backlog`], [`high_backlog`](FabricRef::high_backlog) and
    /// [`deferred`](FabricRef::deferred).
    Backlog(usize),
    /// For [`FabricRef::peek_inbox`] with the same limit; after `Backlog`.
    Inbox(usize, u64),
    /// For [`FabricRef::receipts_of`].
    Receipts(usize),
    /// For [`FabricRef::trace_of_index`].
    Trace(usize),
    /// For [`FabricRef::failures_of_index`].
    Failures(usize),
    /// For [`FabricRef::latency_of_index`].
    Latency(usize),
}

/// What the kernel table says of a kernel index that is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The index and its last generation.
    pub id: KernelId,
    /// `None` if the state is none that exists.
    pub status: Option<Status>,
    /// The [owner](crate::Platform::owner), unless the index is free or failed.
    pub owner: Option<u64>,
    /// Its name, if it has one yet.
    pub name: Option<Name>,
    /// Whether it may park.
    pub parks: bool,
    /// Whether some senders may be [denied](FabricRef::deny).
    pub restricted: bool,
    /// Whether it is marked asleep.
    pub asleep: bool,
    /// What it is told to do.
    pub command: Command,
    /// What it says that it is doing.
    pub phase: Phase,
    /// Passes of its run loop; stays 0 if it has none.
    pub heartbeat: u64,
    /// Counters of the index, over all its owners.
    pub stats: Stats,
}

/// The messages of normal priority of one sender that wait in an inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObservedShard {
    /// Kernel index of the sender, or of the last forwarder.
    pub sender: u16,
    /// How many.
    pub waiting: u64,
    /// Whether the sender finds no room for more. The receiver gives room back in batches, so fewer may wait than there is
    /// room for.
    pub full: bool,
}

/// The receipt of a message, as an onlooker finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObservedReceipt {
    /// The message.
    pub id: MessageId,
    /// What became of it. `Pending` also while a gateway holds it.
    pub status: DeliveryStatus,
    /// Whether a gateway holds it.
    pub in_transit: bool,
    /// Its receiver.
    pub destination: KernelId,
    /// Its deadline, ns on the fabric's clock.
    pub deadline_ns: u64,
}

impl<'f, Sh: Shape> FabricRef<'f, Sh> {
    /// Has the bytes of a region copied, range by range, in bytes from the fabric's start: multiples of 8 inside of the
    /// fabric. Which ranges come later may depend on what came before. Nothing for an index beyond the last.
    ///
    /// # Errors
    /// The first one of `copy`.
    pub fn fetch<E>(&self, region: Region, mut copy: impl FnMut(Range<usize>) -> Result<(), E>) -> Result<(), E> {
        let (shape, numbers) = (self.shape(), self.shape().numbers());
        let moved = |by: usize, range: Range<usize>| range.start + by..range.end + by;
        let of_kernel = |number: usize| shape.index(number).map(|at| (at, shape.below(at)));
        match region {
            Region::Table => copy(self.table_bytes()),
            Region::Routes => copy(numbers.routes..numbers.senders),
            Region::Denials => copy(numbers.senders..numbers.inboxes),
            Region::Backlog(number) => {
                let Some((at, i)) = of_kernel(number) else { return Ok(()) };
                let inbox = numbers.inboxes + i * numbers.inbox;
                for range in self.sharded(at).counts_bytes() {
                    copy(moved(inbox, range))?;
                }
                for sender in shape.indices().filter(|sender| self.sharded(at).waiting_in(*sender).1 > 0) {
                    copy(moved(inbox, self.sharded(at).credit_bytes(sender)))?;
                }
                let high = self.high(at);
                copy(moved(inbox + numbers.high, TicketView::<Sh>::ENDS))?;
                words_at(high.in_use(), numbers.slot * numbers.slots, |position| {
                    moved(inbox + numbers.high, high.slot_bytes(position))
                })
                .copy(&mut copy)?;
                let (base, store) = (numbers.transit + i * numbers.transit_len, self.transit(at));
                copy(moved(base, super::transit::TransitView::<Sh>::ENDS))?;
                words_at(store.in_use(), numbers.transit_len, |position| moved(base, store.slot_bytes(position)))
                    .copy(&mut copy)
            }
            Region::Inbox(number, limit) => {
                let Some((at, i)) = of_kernel(number) else { return Ok(()) };
                let inbox = numbers.inboxes + i * numbers.inbox;
                for (position, _) in self.waiting_high(at, limit) {
                    copy(moved(inbox + numbers.high, self.high(at).slot_bytes(position)))?;
                }
                for sender in shape.indices() {
                    for position in self.waiting_from(at, sender, limit) {
                        copy(moved(inbox, self.sharded(at).slot_bytes(sender, position)))?;
                    }
                }
                Ok(())
            }
            Region::Receipts(number) => {
                let Some((at, i)) = of_kernel(number) else { return Ok(()) };
                let receipts = numbers.receipts + i * numbers.receipts_len;
                self.receipts(at).state_bytes().into_iter().try_for_each(|range| copy(moved(receipts, range)))
            }
            Region::Trace(number) => {
                let Some((_, i)) = of_kernel(number) else { return Ok(()) };
                let len = size_of::<Trace>();
                copy(moved(numbers.traces + i * len, 0..len))
            }
            Region::Failures(number) => {
                let Some((_, i)) = of_kernel(number) else { return Ok(()) };
                let len = size_of::<Failures>();
                copy(moved(numbers.failures + i * len, 0..len))
            }
            Region::Latency(number) => {
                let Some((_, i)) = of_kernel(number) else { return Ok(()) };
                let len = size_of::<Latencies>();
                copy(moved(numbers.latencies + i * len, 0..len))
            }
        }
    }

    /// What the kernel table says of a kernel index; `None` if it is free, or there is none. After [`Region::Table`].
    pub fn observe(&self, number: usize) -> Option<Observation> {
        let entry = self.entry(self.index(number)?);
        let (state, owner) = (entry.state(), entry.owner());
        if state.status == Some(Status::Free) && owner.is_none() {
            return None;
        }
        let (command, asleep) = entry.commanded(state.generation);
        Some(Observation {
            id: KernelId::new(number as u16, state.generation),
            status: state.status,
            owner,
            name: entry.name(state.generation),
            parks: state.parks,
            restricted: state.restricted,
            asleep,
            command,
            phase: entry.phase(),
            heartbeat: entry.heartbeat(),
            stats: Stats::from_counters(&entry.counters()),
        })
    }

    /// The counters of a kernel index, over all its owners, also if it is free now; `None` if there is no such index. After
    /// [`Region::Table`].
    pub fn counters_at(&self, number: usize) -> Option<Stats> {
        self.index(number).map(|at| Stats::from_counters(&self.entry(at).counters()))
    }

    /// The last events at a kernel index, whoever its owner was. After [`Region::Trace`].
    pub fn trace_of_index(&self, number: usize) -> Option<&'f Trace> {
        self.index(number).map(|at| self.trace_at(at))
    }

    /// What is noted of the failures at a kernel index, over all its owners. After [`Region::Failures`].
    pub fn failures_of_index(&self, number: usize) -> Option<&'f Failures> {
        self.index(number).map(|at| self.failures_at(at))
    }

    /// How long the messages received at a kernel index were on their way, over all its owners. After [`Region::Latency`].
    pub fn latency_of_index(&self, number: usize) -> Option<Latency> {
        self.index(number).map(|at| self.latencies_at(at).read())
    }

    /// Messages of normal priority that wait in an inbox, by sender: those of whom something waits. After
    /// [`Region::Backlog`].
    pub fn normal_backlog(&self, number: usize) -> impl Iterator<Item = ObservedShard> + use<'f, Sh> {
        let (fabric, at) = (*self, self.index(number));
        at.into_iter().flat_map(move |at| {
            let queue = fabric.sharded(at);
            let shard = move |from: Index<Sh>| {
                let waiting = queue.waiting_in(from).1;
                ObservedShard { sender: from.number() as u16, waiting, full: waiting > 0 && queue.is_full(from) }
            };
            fabric.indices().map(shard).filter(|shard| shard.waiting > 0)
        })
    }

    /// Messages of high priority that wait in an inbox: for each the index of the kernel that put it there, which may be
    /// any number. After [`Region::Backlog`].
    pub fn high_backlog(&self, number: usize) -> impl Iterator<Item = u16> + use<'f, Sh> {
        let (fabric, at) = (*self, self.index(number));
        at.into_iter().flat_map(move |at| fabric.waiting_high(at, u64::MAX).map(|(_, sender)| sender))
    }

    /// Messages that a kernel has deferred: for each the index of the next hop that has no room, which may be any number.
    /// After [`Region::Backlog`].
    pub fn deferred(&self, number: usize) -> impl Iterator<Item = usize> + use<'f, Sh> {
        let (fabric, at) = (*self, self.index(number));
        at.into_iter().flat_map(move |at| {
            let store = fabric.transit(at);
            store.in_use().filter_map(move |position| store.next_hop(position))
        })
    }

    /// Copies out, one after the other, the first `limit` messages of high priority that wait in an inbox, and of each
    /// sender's first `limit` of normal priority. The second argument of `tell` is the index of the kernel that put the
    /// message there. Nothing in the message is checked: its payload may claim to be longer than the shape allows. After
    /// [`Region::Inbox`].
    pub fn peek_inbox(
        &self,
        number: usize,
        limit: u64,
        message: &mut Sh::Item,
        mut tell: impl FnMut(Priority, u16, &Sh::Item),
    ) {
        let Some(at) = self.index(number) else { return };
        for (position, sender) in self.waiting_high(at, limit) {
            if self.high(at).peek(position, message) {
                tell(Priority::High, sender, message);
            }
        }
        for sender in self.indices() {
            for position in self.waiting_from(at, sender, limit) {
                if self.sharded(at).peek(sender, position, message) {
                    tell(Priority::Normal, sender.number() as u16, message);
                }
            }
        }
    }

    /// The latest message of each receipt of a sender that has had one. After [`Region::Receipts`].
    pub fn receipts_of(&self, number: usize) -> impl Iterator<Item = ObservedReceipt> + use<'f, Sh> {
        let (fabric, at) = (*self, self.index(number));
        at.into_iter().flat_map(move |at| {
            let source = KernelId::new(at.number() as u16, fabric.entry(at).state().generation);
            let observed = move |latest: Latest| ObservedReceipt {
                id: MessageId { source, sequence: latest.sequence },
                status: latest.status.unwrap_or(DeliveryStatus::Pending),
                in_transit: latest.status.is_none(),
                destination: latest.destination,
                deadline_ns: latest.deadline_ns,
            };
            fabric.receipts(at).latest().map(observed)
        })
    }

    /// The positions of the first messages of high priority that wait, and who put them there.
    fn waiting_high(&self, at: Index<Sh>, limit: u64) -> impl Iterator<Item = (u64, u16)> + use<'f, Sh> {
        let ring = self.high(at);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        ring.in_use().filter_map(move |position| Some((position, ring.producer_at(position)?))).take(limit)
    }

    /// The positions of the first messages that wait in a sender's shard.
    fn waiting_from(&self, at: Index<Sh>, sender: Index<Sh>, limit: u64) -> impl Iterator<Item = u64> + use<Sh> {
        let (first, waiting) = self.sharded(at).waiting_in(sender);
        (0..waiting.min(limit)).map(move |i| first.wrapping_add(i))
    }
}

/// The first words of slots or deferred messages, at some positions.
struct Words<P, B> {
    positions: P,
    /// Bytes that all slots have.
    whole: usize,
    bytes: B,
}

fn words_at<P: Iterator<Item = u64>, B: Fn(u64) -> Range<usize>>(positions: P, whole: usize, bytes: B) -> Words<P, B> {
    Words { positions, whole, bytes }
}

impl<P: Iterator<Item = u64>, B: Fn(u64) -> Range<usize>> Words<P, B> {
    /// In one piece where that is cheaper.
    fn copy<E>(self, copy: &mut impl FnMut(Range<usize>) -> Result<(), E>) -> Result<(), E> {
        let Self { mut positions, whole, bytes } = self;
        let word = |position| {
            let slot = bytes(position);
            slot.start..slot.start + size_of::<AtomicU64>()
        };
        for position in positions.by_ref().take(FEW) {
            copy(word(position))?;
        }
        // Slots lie side by side, so a lap begins at the lowest and ends at the highest.
        let mut rest = positions.map(word);
        if whole <= AT_ONCE {
            let cover = rest.reduce(|cover, next| cover.start.min(next.start)..cover.end.max(next.end));
            return cover.map_or(Ok(()), copy);
        }
        rest.try_for_each(copy)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::platform::Platform;
    use crate::{Config, Fabric, Message, Read, Registration, WakeFlag};
    use std::vec::Vec;

    struct Manual;

    impl Platform for Manual {
        fn now_ns(&self) -> u64 {
            1
        }

        fn wake(&self, _: &WakeFlag) {}
    }

    const KERNELS: usize = 20;
    type Watched = Fabric<KERNELS, 64, 64>;
    type Any = Read<4096, 65472>;

    /// A copy with room for the fabric, of which only what is fetched is there.
    struct Copy<'f> {
        of: &'f Watched,
        bytes: Vec<[u64; 16]>,
    }

    impl<'f> Copy<'f> {
        fn new(of: &'f Watched) -> Self {
            let mut copy = Self { of, bytes: std::vec![[0; 16]; size_of::<Watched>() / 128 + 1] };
            copy.take(0..128);
            copy
        }

        fn base(&mut self) -> *mut u8 {
            // At a multiple of 128, as a fabric has to be.
            let base = self.bytes.as_mut_ptr().cast::<u8>();
            base.wrapping_add(base.align_offset(128))
        }

        fn take(&mut self, range: Range<usize>) {
            assert!(
                range.start.is_multiple_of(8) && range.end.is_multiple_of(8) && range.start < range.end,
                "{range:?}"
            );
            assert!(range.end <= size_of::<Watched>(), "{range:?}");
            let to = self.base();
            for at in range {
                // SAFETY: inside of both; nobody uses either now. All of it is behind cells.
                unsafe { to.add(at).write(core::ptr::from_ref(self.of).cast::<u8>().add(at).read()) };
            }
        }

        fn fabric(&mut self) -> FabricRef<'static, Any> {
            let (base, len) = (self.base(), size_of::<Watched>());
            // SAFETY: the bytes live longer than what the tests ask, and are written by `take` alone.
            unsafe { FabricRef::open_raw(base, len) }.unwrap()
        }

        fn fetch(&mut self, region: Region) -> FabricRef<'static, Any> {
            let fabric = self.fabric();
            let copy = |range| {
                self.take(range);
                Ok::<_, ()>(())
            };
            fabric.fetch(region, copy).unwrap();
            fabric
        }
    }

    fn send(from: &mut crate::Endpoint<'_, Manual, crate::Fixed<KERNELS, 64, 64>>, to: KernelId, priority: Priority) {
        from.send_priority(to, &Message::from_value(1, &7u64), priority).unwrap();
    }

    #[test]
    fn what_is_fetched_says_what_the_fabric_says() {
        static FABRIC: Watched = Watched::new();
        FABRIC.init(&Config { high_share: 64, tracing: true, ..Config::default() }).unwrap();
        let register = |name| FABRIC.register(&Registration::new(name).unwrap(), Manual).unwrap();
        let [mut a, mut b, mut c] = ["a", "b", "c"].map(register);
        let mut copy = Copy::new(&FABRIC);

        // More than a lap of the high ring, and of it more than a few at once.
        for count in [50, 20] {
            (0..count).for_each(|_| send(&mut a, b.id(), Priority::High));
            (0..count).for_each(|_| assert!(b.try_receive().is_some()));
        }
        (0..40).for_each(|_| send(&mut a, b.id(), Priority::High));
        (0..3).for_each(|_| send(&mut c, b.id(), Priority::High));
        (0..64).for_each(|_| send(&mut a, b.id(), Priority::Normal));
        (0..5).for_each(|_| send(&mut c, b.id(), Priority::Normal));
        // `c` has to forward to `b` by way of `a`'s full shard.
        FABRIC.set_route(c.id(), b.id(), a.id()).unwrap();
        FABRIC.set_route(a.id(), c.id(), b.id()).unwrap();
        send(&mut c, b.id(), Priority::Normal);
        a.poll();
        FABRIC.deny(c.id(), b.id()).unwrap();

        let fabric = copy.fetch(Region::Table);
        for i in 0..KERNELS {
            copy.fetch(Region::Backlog(i));
        }
        assert!(fabric.observe(3).is_none() && fabric.observe(KERNELS).is_none());
        let observed = fabric.observe(1).unwrap();
        assert_eq!(
            (observed.id, observed.name.unwrap().as_str(), observed.status),
            (b.id(), "b", Some(Status::Registered))
        );
        assert_eq!(Some(observed.stats), FABRIC.stats(b.id()));
        assert_eq!((fabric.counters_at(1), fabric.counters_at(KERNELS)), (FABRIC.stats(b.id()), None));
        assert_eq!(fabric.counters_at(3), Some(Stats::default()), "nobody was there yet");
        assert_eq!((observed.restricted, observed.parks, observed.asleep), (false, false, false));
        assert_eq!((observed.command, observed.phase, observed.heartbeat), (Command::Run, Phase::Idle, 0));
        assert!(fabric.observe(2).unwrap().restricted);
        let shard = |sender, waiting, full| ObservedShard { sender, waiting, full };
        assert_eq!(fabric.normal_backlog(1).collect::<Vec<_>>(), [shard(0, 64, true), shard(2, 5, false)]);
        let high: Vec<_> = fabric.high_backlog(1).collect();
        assert_eq!((high.len(), high.iter().filter(|&&sender| sender == 2).count()), (43, 3));
        assert_eq!((fabric.deferred(0).collect::<Vec<_>>(), fabric.deferred(1).count()), (std::vec![1], 0));

        assert_eq!((fabric.route(c.id(), b.id()), fabric.is_allowed(c.id(), b.id())), (None, true), "not fetched");
        copy.fetch(Region::Routes);
        copy.fetch(Region::Denials);
        assert_eq!((fabric.route(c.id(), b.id()), fabric.is_allowed(c.id(), b.id())), (Some(a.id()), false));

        assert_eq!(fabric.trace_of_index(1).map(|trace| trace.read().count()), Some(0), "not fetched");
        copy.fetch(Region::Trace(1));
        assert!(fabric.trace_of_index(1).unwrap().read().eq(FABRIC.trace(b.id()).unwrap().read()));
        assert!(fabric.trace_of_index(1).unwrap().read().count() > 0 && fabric.trace_of_index(KERNELS).is_none());
        assert_eq!(fabric.trace_of_index(2).map(|trace| trace.read().count()), Some(0), "not fetched");

        let mut message = Message::new(0);
        let mut seen = Vec::new();
        copy.fetch(Region::Inbox(1, 4));
        fabric.peek_inbox(1, 4, &mut message, |priority, sender, message| {
            assert_eq!(message.value::<u64>().unwrap(), 7);
            seen.push((priority, sender, message.header.sequence));
        });
        let of = |priority, sender| {
            seen.iter().filter(|s| (s.0, s.1) == (priority, sender)).map(|s| s.2).collect::<Vec<_>>()
        };
        assert_eq!(of(Priority::High, 0), [71, 72, 73, 74]);
        assert_eq!(of(Priority::Normal, 0), [111, 112, 113, 114]);
        assert_eq!((of(Priority::Normal, 2), seen.len()), (std::vec![4, 5, 6, 7], 12));

        copy.fetch(Region::Receipts(0));
        let by = |status| fabric.receipts_of(0).filter(|receipt| receipt.status == status).count();
        assert_eq!((by(DeliveryStatus::Delivered), by(DeliveryStatus::Pending)), (70, 104));
        copy.fetch(Region::Receipts(2));
        assert_eq!((fabric.receipts_of(2).count(), fabric.receipts_of(1).count()), (9, 0), "of the others not fetched");
        assert!(fabric.receipts_of(0).all(|receipt| receipt.destination == b.id() && !receipt.in_transit));

        let late = Message::new(2).with_deadline_ns(2);
        FABRIC.allow(c.id(), b.id());
        let id = b.send(c.id(), &late).unwrap();
        FABRIC.deny(c.id(), b.id()).unwrap();
        assert!(c.try_receive().is_none());
        assert_eq!(fabric.failures_of_index(2).unwrap().read().count(), 0, "not fetched");
        copy.fetch(Region::Failures(2));
        let failed = fabric.failures_of_index(2).unwrap().read().next().unwrap();
        assert_eq!((failed.status, failed.example), (DeliveryStatus::NotAllowed, id));

        FABRIC.set_latency(true);
        let id = c.id();
        (0..64).for_each(|_| {
            send(&mut c, id, Priority::Normal);
            c.try_receive().unwrap();
        });
        FABRIC.set_latency(false);
        copy.fetch(Region::Latency(2));
        assert_eq!(fabric.latency_of_index(2), FABRIC.latency(c.id()));
        assert!((3..=5).contains(&fabric.latency_of_index(2).unwrap().count()));

        // The receiver has taken some, and not said so yet.
        (0..43 + 4).for_each(|_| assert!(b.try_receive().is_some()));
        copy.fetch(Region::Backlog(1));
        let first = fabric.normal_backlog(1).next().unwrap();
        assert!(first.full && first.waiting < 64, "{first:?}");

        // The next fetch sees what has happened since.
        while b.try_receive().is_some() {}
        copy.fetch(Region::Backlog(1));
        assert_eq!((fabric.normal_backlog(1).count(), fabric.high_backlog(1).count()), (0, 0));
        FABRIC.command(b.id(), Command::Drain, &Manual).unwrap();
        copy.fetch(Region::Table);
        assert_eq!(fabric.observe(1).map(|observed| observed.command), Some(Command::Drain));
        // In the second lap there is room as well.
        (0..5).for_each(|_| send(&mut a, b.id(), Priority::Normal));
        copy.fetch(Region::Backlog(1));
        assert_eq!(fabric.normal_backlog(1).collect::<Vec<_>>(), [shard(0, 5, false)]);
    }

    #[test]
    fn words_that_no_endpoint_writes_cost_no_more_than_a_look_at_all_slots() {
        static FABRIC: Watched = Watched::new();
        FABRIC.init(&Config::default()).unwrap();
        let mut copy = Copy::new(&FABRIC);
        for pattern in [u64::MAX, 1, 1 << 63, 0x0101_0101_0101_0101] {
            copy.bytes.iter_mut().flatten().for_each(|word| *word = pattern);
            copy.take(0..128);
            let fabric = copy.fabric();
            for number in [0, 1, KERNELS - 1, KERNELS, usize::MAX] {
                let mut ranges = 0;
                for region in [Region::Backlog(number), Region::Inbox(number, u64::MAX), Region::Receipts(number)] {
                    let count = |range: Range<usize>| {
                        assert!(range.start < range.end && range.end <= size_of::<Watched>(), "{range:?}");
                        ranges += 1;
                        Ok::<_, ()>(())
                    };
                    fabric.fetch(region, count).unwrap();
                }
                assert!(ranges <= 10 + KERNELS + 2 * 64 + KERNELS * 64, "{ranges}");
                let mut message = bytemuck::Zeroable::zeroed();
                fabric.peek_inbox(number, u64::MAX, &mut message, |_, _, _| ());
                assert!(fabric.high_backlog(number).count() <= 64 && fabric.deferred(number).count() <= 64);
                assert!(fabric.receipts_of(number).count() <= 64 * KERNELS);
                let _ = (fabric.observe(number), fabric.normal_backlog(number).count());
            }
        }
    }
}
