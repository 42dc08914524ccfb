//! Delivery statuses: each is provoked, at the first hop and on a longer way, and each is counted once.

mod common;

use common::{Manual, ManualEndpoint, fabric, handle, register_all};
use k2k_core::fabric::{Failure, NotFailed};
use k2k_core::{
    Backlog, CLOCK_MARGIN_NS, Command, Config, DeliveryStatus, Endpoint, Fabric, KernelId, Message, MessageId,
    Priority, ReceiptError, Registration, SendError, Shape, Stats,
};

type Small = Fabric<4, 4, 64>;
type Kernels<'f> = Vec<ManualEndpoint<'f, 4, 4, 64>>;

const TIMEOUT_NS: u64 = 1_000;
/// So long after it was sent, a message's sender times it out.
const OVERDUE_NS: u64 = TIMEOUT_NS + CLOCK_MARGIN_NS + 1;
const CONFIG: Config = Config {
    delivery_timeout_ns: TIMEOUT_NS,
    max_clock_offset_ns: 1_000_000,
    hop_limit: 8,
    grace_ns: 0,
    high_share: u32::MAX,
    tracing: true,
    ..Config::DEFAULT
};

fn status<Sh: Shape>(sender: &mut Endpoint<'_, &Manual, Sh>, id: MessageId) -> Result<DeliveryStatus, ReceiptError> {
    sender.receipt(id).map(|receipt| {
        assert_eq!(receipt.id, id);
        receipt.status
    })
}

fn empty() -> Message<64> {
    Message::new(1)
}

fn ids(kernels: &Kernels<'_>) -> Vec<KernelId> {
    kernels.iter().map(Endpoint::id).collect()
}

/// Routes that lead from each kernel to the last by way of all between.
fn chain(fabric: &Small, ids: &[KernelId]) {
    let last = *ids.last().unwrap();
    for pair in ids.windows(2).filter(|pair| pair[1] != last) {
        fabric.set_route(pair[0], last, pair[1]).unwrap();
    }
}

fn assert_adds_up<const K: usize, const S: usize>(fabric: &Fabric<K, S, 64>, pending: u64) {
    let total = fabric.total_stats();
    assert_eq!(total.sent, total.received + total.failed() + pending, "{total:?}");
    assert_eq!((fabric.pending(), total.corrupt), (pending, 0), "{total:?}");
}

/// Fills the shard from one kernel to another with mail that nobody takes out.
fn fill(from: &mut ManualEndpoint<'_, 4, 4, 64>, to: KernelId) -> Vec<MessageId> {
    core::iter::from_fn(|| from.send(to, &empty()).ok()).collect()
}

#[test]
fn of_each_kind_of_failure_the_first_and_the_last_time_and_the_last_message_are_noted_over_all_owners() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 4, 64>(&Config { tracing: false, ..CONFIG }));
    let mut kernels: Kernels<'_> = register_all(&fabric, &platform, 3);
    let b = kernels[1].id();
    assert_eq!(fabric.failures(b).unwrap().read().count(), 0);
    let mut late = Vec::new();
    for _ in 0..3 {
        late.push(kernels[0].send(b, &empty()).unwrap());
        platform.advance(OVERDUE_NS);
        assert!(kernels[1].try_receive().is_none());
    }
    fabric.deny(b, kernels[2].id()).unwrap();
    fabric.allow(b, kernels[2].id());
    let denied = kernels[2].send(b, &empty()).unwrap();
    fabric.deny(b, kernels[2].id()).unwrap();
    assert!(kernels[1].try_receive().is_none());
    let noted = |status, first_wall_ns, last_wall_ns, example| Failure {
        status,
        first_wall_ns,
        last_wall_ns,
        example,
        hops: 0,
    };
    let [first, last] = [1, 3].map(|n| 1 + n * OVERDUE_NS);
    let refused = noted(DeliveryStatus::NotAllowed, last, last, denied);
    let expected = [noted(DeliveryStatus::Timeout, first, last, late[2]), refused];
    assert_eq!(fabric.failures(b).unwrap().read().collect::<Vec<_>>(), expected);

    // The next owner of the index goes on.
    kernels.remove(1).unregister();
    let who = Registration::new("again").unwrap().at(b.index());
    let mut again = handle(&fabric).register(&who, &platform).unwrap();
    let later = kernels[0].send(again.id(), &empty()).unwrap();
    platform.advance(OVERDUE_NS);
    assert!(again.try_receive().is_none());
    let expected = [noted(DeliveryStatus::Timeout, first, last + OVERDUE_NS, later), refused];
    assert_eq!(fabric.failures(again.id()).unwrap().read().collect::<Vec<_>>(), expected);
    assert!(fabric.failures(KernelId::new(3, 1)).is_none());
}

#[test]
fn a_direct_message_is_pending_and_then_delivered() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 4, 64>(&CONFIG));
    let mut kernels: Kernels<'_> = register_all(&fabric, &platform, 2);
    let [a, b] = &mut kernels[..] else { unreachable!() };
    for priority in [Priority::Normal, Priority::High] {
        let id = a.send_priority(b.id(), &empty(), priority).unwrap();
        assert_eq!(status(a, id), Ok(DeliveryStatus::Pending));
        assert!(b.try_receive().is_some());
        assert_eq!(status(a, id), Ok(DeliveryStatus::Delivered));
    }
    assert_adds_up(&fabric, 0);
}

#[test]
fn a_routed_message_is_pending_at_each_hop_and_then_delivered() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 4, 64>(&CONFIG));
    let mut kernels: Kernels<'_> = register_all(&fabric, &platform, 4);
    let ids = ids(&kernels);
    chain(&fabric, &ids);
    let id = kernels[0].send(ids[3], &empty()).unwrap();
    for hop in 1..3 {
        assert_eq!(status(&mut kernels[0], id), Ok(DeliveryStatus::Pending));
        assert_eq!(kernels[hop].poll(), 1);
    }
    assert_eq!(status(&mut kernels[0], id), Ok(DeliveryStatus::Pending));
    assert_eq!(kernels[3].try_receive().unwrap().header.hops, 2);
    assert_eq!(status(&mut kernels[0], id), Ok(DeliveryStatus::Delivered));
    assert_adds_up(&fabric, 0);
}

#[test]
fn a_kernel_can_send_to_itself() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 4, 64>(&CONFIG));
    let mut kernels: Kernels<'_> = register_all(&fabric, &platform, 1);
    let own = kernels[0].id();
    let id = kernels[0].send(own, &empty()).unwrap();
    assert_eq!(kernels[0].try_receive().unwrap().header.source(), own);
    assert_eq!(status(&mut kernels[0], id), Ok(DeliveryStatus::Delivered));
}

#[test]
fn a_send_to_nobody_is_refused_as_not_found() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 4, 64>(&CONFIG));
    let mut kernels: Kernels<'_> = register_all(&fabric, &platform, 2);
    let b = kernels.pop().unwrap().id();
    let a = &mut kernels[0];
    for nobody in [b, KernelId::NONE, KernelId::new(3, 1), KernelId::new(900, 1), KernelId::new(0, 7)] {
        let refused = a.send(nobody, &empty()).unwrap_err();
        assert_eq!(refused, SendError::NotFound { kernel: nobody });
        assert_eq!(refused.status(), Some(DeliveryStatus::NotFound));
    }
    assert_eq!((a.stats().sent, a.stats().refused), (0, 5));
    let refusal = SendError::NotFound { kernel: KernelId::new(3, 7) }.to_string();
    assert!(refusal.contains("k3.7"), "{refusal}");
}

#[test]
fn a_route_over_a_kernel_that_left_is_refused_naming_it() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 4, 64>(&CONFIG));
    let mut kernels: Kernels<'_> = register_all(&fabric, &platform, 3);
    let ids = ids(&kernels);
    fabric.set_route(ids[0], ids[2], ids[1]).unwrap();
    kernels.remove(1).unregister();
    assert_eq!(kernels[0].send(ids[2], &empty()), Err(SendError::NotFound { kernel: ids[1] }));
    fabric.remove_route(ids[0], ids[2]);
    assert!(kernels[0].send(ids[2], &empty()).is_ok());
}

#[test]
fn mail_on_its_way_ends_as_not_found_when_the_receiver_unregisters() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 4, 64>(&CONFIG));
    let mut kernels: Kernels<'_> = register_all(&fabric, &platform, 2);
    let b = kernels.pop().unwrap();
    let a = &mut kernels[0];
    let normal = a.send(b.id(), &empty()).unwrap();
    let high = a.send_priority(b.id(), &empty(), Priority::High).unwrap();
    b.unregister();
    assert_eq!(fabric.peek_receipt(normal).unwrap().status, DeliveryStatus::NotFound, "decided by who left");
    assert_eq!(status(a, high), Ok(DeliveryStatus::NotFound));
    assert_eq!(fabric.total_stats().not_found, 2);
    assert_adds_up(&fabric, 0);
}

#[test]
fn routed_mail_ends_as_not_found_when_the_receiver_or_the_next_hop_has_left() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 4, 64>(&CONFIG));
    let mut kernels: Kernels<'_> = register_all(&fabric, &platform, 4);
    let ids = ids(&kernels);
    chain(&fabric, &ids);
    let to_last = kernels[0].send(ids[3], &empty()).unwrap();
    kernels.remove(2).unregister();
    kernels[1].poll();
    assert_eq!(status(&mut kernels[0], to_last), Ok(DeliveryStatus::NotFound), "the next hop is gone");

    fabric.remove_route(ids[1], ids[3]);
    let to_last = kernels[0].send(ids[3], &empty()).unwrap();
    kernels.remove(2).unregister();
    kernels[1].poll();
    assert_eq!(fabric.peek_receipt(to_last).unwrap().status, DeliveryStatus::NotFound, "decided by the forwarder");
    assert_eq!(fabric.stats(ids[1]).unwrap().not_found, 2);
    assert_adds_up(&fabric, 0);
}

#[test]
fn a_sender_learns_that_the_receiver_left_even_if_nobody_finds_the_message() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 4, 64>(&CONFIG));
    let mut kernels: Kernels<'_> = register_all(&fabric, &platform, 3);
    let ids = ids(&kernels);
    fabric.set_route(ids[0], ids[2], ids[1]).unwrap();
    let id = kernels[0].send(ids[2], &empty()).unwrap();
    kernels.remove(2).unregister();
    assert_eq!(status(&mut kernels[0], id), Ok(DeliveryStatus::NotFound));
    // The forwarder, which finds it later, gives way.
    kernels[1].poll();
    assert_eq!((fabric.total_stats().not_found, fabric.total_stats().discarded), (1, 1));
    assert_adds_up(&fabric, 0);
}

#[test]
fn a_reused_index_never_gets_its_predecessors_mail() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 4, 64>(&CONFIG));
    let mut kernels: Kernels<'_> = register_all(&fabric, &platform, 3);
    let ids = ids(&kernels);
    fabric.set_route(ids[0], ids[2], ids[1]).unwrap();
    let routed = kernels[0].send(ids[2], &empty()).unwrap();
    let direct = kernels[1].send(ids[2], &empty()).unwrap();
    kernels.pop().unwrap().unregister();
    let who = Registration::new("successor").unwrap();
    let mut successor = common::handle(&fabric).register(&who.at(2), &platform).unwrap();
    assert_ne!(successor.id(), ids[2]);
    assert_eq!(successor.id().index(), 2);
    kernels[1].poll();
    assert_eq!(successor.try_receive(), None);
    assert_eq!(status(&mut kernels[0], routed), Ok(DeliveryStatus::NotFound));
    assert_eq!(status(&mut kernels[1], direct), Ok(DeliveryStatus::NotFound));
    assert_eq!(kernels[1].send(ids[2], &empty()), Err(SendError::NotFound { kernel: ids[2] }));
    assert_adds_up(&fabric, 0);
}

#[test]
fn mail_in_a_forwarders_store_does_not_reach_the_receivers_successor() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 4, 64>(&CONFIG));
    let mut kernels: Kernels<'_> = register_all(&fabric, &platform, 3);
    let ids = ids(&kernels);
    fabric.set_route(ids[0], ids[2], ids[1]).unwrap();
    let blocking = fill(&mut kernels[1], ids[2]);
    let deferred = kernels[0].send(ids[2], &empty()).unwrap();
    kernels[1].poll();
    assert_eq!(kernels[1].backlog(), Backlog::Transit);
    kernels.pop().unwrap().unregister();
    let mut successor =
        common::handle(&fabric).register(&Registration::new("successor").unwrap().at(2), &platform).unwrap();
    kernels[1].poll();
    assert_eq!((kernels[1].backlog(), successor.try_receive()), (Backlog::None, None));
    assert_eq!(status(&mut kernels[0], deferred), Ok(DeliveryStatus::NotFound));
    assert!(blocking.iter().all(|&id| status(&mut kernels[1], id) == Ok(DeliveryStatus::NotFound)));
    assert_adds_up(&fabric, 0);
}

#[test]
fn a_full_next_hop_is_refused_as_queue_full_at_exactly_the_capacity() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 4, 64>(&CONFIG));
    let mut kernels: Kernels<'_> = register_all(&fabric, &platform, 3);
    let ids = ids(&kernels);
    fabric.set_route(ids[0], ids[2], ids[1]).unwrap();
    assert_eq!(fill(&mut kernels[0], ids[2]).len(), 4);
    let refused = kernels[0].send(ids[2], &empty()).unwrap_err();
    assert_eq!(refused, SendError::QueueFull { next_hop: ids[1] }, "the next hop's inbox, not the destination's");
    assert_eq!(refused.status(), Some(DeliveryStatus::QueueFull));
    for _ in 0..4 {
        kernels[0].send_priority(ids[1], &empty(), Priority::High).unwrap();
    }
    assert_eq!(
        kernels[0].send_priority(ids[1], &empty(), Priority::High),
        Err(SendError::QueueFull { next_hop: ids[1] })
    );
    assert_adds_up(&fabric, 8);
}

#[test]
fn a_routed_message_ends_as_queue_full_when_a_forwarder_has_no_room_at_all() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 4, 64>(&CONFIG));
    let mut kernels: Kernels<'_> = register_all(&fabric, &platform, 3);
    let ids = ids(&kernels);
    fabric.set_route(ids[0], ids[2], ids[1]).unwrap();
    fill(&mut kernels[1], ids[2]);
    let mut sent = Vec::new();
    for _ in 0..5 {
        // Four fit into the store, the fifth does not.
        sent.push(kernels[0].send(ids[2], &empty()).unwrap());
        kernels[1].poll();
    }
    let expected = [[DeliveryStatus::Pending; 4].as_slice(), &[DeliveryStatus::QueueFull]].concat();
    let found: Vec<_> = sent.iter().map(|&id| status(&mut kernels[0], id).unwrap()).collect();
    assert_eq!(found, expected);
    assert_eq!(fabric.stats(ids[1]).unwrap().queue_full, 1);
    // What was deferred arrives, in order, once there is room.
    let mut arrived = Vec::new();
    while let Some(message) = kernels[2].try_receive() {
        kernels[1].poll();
        if message.header.source() == ids[0] {
            arrived.push(message.header.id());
        }
    }
    assert_eq!(arrived, sent[..4]);
    assert_adds_up(&fabric, 0);
}

#[test]
fn transit_mail_of_a_kernel_that_leaves_moves_on_or_ends_as_queue_full() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 4, 64>(&CONFIG));
    let mut kernels: Kernels<'_> = register_all(&fabric, &platform, 3);
    let ids = ids(&kernels);
    fabric.set_route(ids[0], ids[2], ids[1]).unwrap();
    let moves_on = kernels[0].send(ids[2], &empty()).unwrap();
    let fits = fill(&mut kernels[1], ids[2]);
    assert_eq!(fits.len(), 4);
    let stays = kernels[0].send(ids[2], &empty()).unwrap();
    assert!(kernels[2].try_receive().is_some());
    kernels.remove(1).unregister();
    assert_eq!(status(&mut kernels[0], stays), Ok(DeliveryStatus::QueueFull));
    assert_eq!(status(&mut kernels[0], moves_on), Ok(DeliveryStatus::Pending));
    while kernels[1].try_receive().is_some() {}
    assert_eq!(status(&mut kernels[0], moves_on), Ok(DeliveryStatus::Delivered));
    assert_adds_up(&fabric, 0);
}

#[test]
fn a_message_that_is_not_received_in_time_is_timed_out_by_its_sender() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 4, 64>(&CONFIG));
    let mut kernels: Kernels<'_> = register_all(&fabric, &platform, 2);
    let [a, b] = &mut kernels[..] else { unreachable!() };
    let id = a.send(b.id(), &empty()).unwrap();
    platform.advance(TIMEOUT_NS);
    assert_eq!(status(a, id), Ok(DeliveryStatus::Pending), "the deadline itself is in time");
    platform.advance(CLOCK_MARGIN_NS);
    assert_eq!(status(a, id), Ok(DeliveryStatus::Pending), "the receiver's clock may be behind");
    platform.advance(1);
    assert_eq!(fabric.peek_receipt(id).unwrap().status, DeliveryStatus::Pending, "looking changes nothing");
    assert_eq!(status(a, id), Ok(DeliveryStatus::Timeout));
    assert_eq!(fabric.stats(a.id()).unwrap().timeout, 1);
    // It is still in the inbox, but will not be received, nor counted twice.
    assert_eq!(b.pending_count(), 1);
    assert_eq!(b.try_receive(), None);
    assert_eq!((b.stats().timeout, b.stats().discarded), (0, 1));
    assert_eq!(status(a, id), Ok(DeliveryStatus::Timeout));
    assert_adds_up(&fabric, 0);
}

#[test]
fn a_message_whose_deadline_has_passed_is_timed_out_by_its_receiver() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 4, 64>(&CONFIG));
    let mut kernels: Kernels<'_> = register_all(&fabric, &platform, 2);
    let [a, b] = &mut kernels[..] else { unreachable!() };
    let short = a.send(b.id(), &empty().with_deadline_ns(10)).unwrap();
    let normal = a.send(b.id(), &empty()).unwrap();
    platform.advance(10);
    assert_eq!(b.try_receive().unwrap().header.id(), normal);
    assert_eq!(fabric.peek_receipt(short).unwrap().status, DeliveryStatus::Timeout);
    assert_eq!((fabric.stats(a.id()).unwrap().timeout, fabric.stats(b.id()).unwrap().timeout), (0, 1));
    assert_adds_up(&fabric, 0);
}

#[test]
fn a_routed_message_is_timed_out_in_an_inbox_on_its_way() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 4, 64>(&CONFIG));
    let mut kernels: Kernels<'_> = register_all(&fabric, &platform, 4);
    let ids = ids(&kernels);
    chain(&fabric, &ids);
    let id = kernels[0].send(ids[3], &empty()).unwrap();
    kernels[1].poll();
    platform.advance(OVERDUE_NS);
    kernels[2].poll();
    assert_eq!(fabric.peek_receipt(id).unwrap().status, DeliveryStatus::Timeout, "nobody had to ask");
    assert_eq!(fabric.stats(ids[2]).unwrap().timeout, 1);
    assert_adds_up(&fabric, 0);
}

#[test]
fn a_routed_message_is_timed_out_in_a_forwarders_store() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 4, 64>(&CONFIG));
    let mut kernels: Kernels<'_> = register_all(&fabric, &platform, 3);
    let ids = ids(&kernels);
    fabric.set_route(ids[0], ids[2], ids[1]).unwrap();
    fill(&mut kernels[1], ids[2]);
    let long = kernels[0].send(ids[2], &empty().with_deadline_ns(1_000 * TIMEOUT_NS)).unwrap();
    let short = kernels[0].send(ids[2], &empty()).unwrap();
    kernels[1].poll();
    platform.advance(OVERDUE_NS);
    kernels[1].poll();
    assert_eq!(
        fabric.peek_receipt(short).unwrap().status,
        DeliveryStatus::Timeout,
        "also behind one that may still wait"
    );
    assert_eq!(fabric.peek_receipt(long).unwrap().status, DeliveryStatus::Pending);
    platform.advance(1_000 * TIMEOUT_NS);
    kernels[1].poll();
    assert_eq!(fabric.peek_receipt(long).unwrap().status, DeliveryStatus::Timeout);
    assert_eq!((kernels[1].backlog(), fabric.stats(ids[1]).unwrap().timeout), (Backlog::None, 2));
    kernels[1].expire();
    assert_adds_up(&fabric, 0);
}

#[test]
fn a_send_that_waits_for_room_ends_in_timeout_at_its_deadline() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 4, 64>(&CONFIG));
    let mut kernels: Kernels<'_> = register_all(&fabric, &platform, 2);
    let [a, b] = &mut kernels[..] else { unreachable!() };
    fill(a, b.id());
    for (message, deadline_ns) in [(empty(), 1 + TIMEOUT_NS), (empty().with_deadline_ns(5_000), 5_000)] {
        let mut waited = 0;
        let sent = a.send_waiting(b.id(), &message, Priority::Normal, || {
            waited += 1;
            platform.advance(100);
        });
        assert_eq!(sent, Err(SendError::Timeout { deadline_ns }));
        assert!(waited > 5 && platform.now_ns.get() < deadline_ns + 100);
    }
    assert_eq!(a.send_waiting(b.id(), &empty().with_deadline_ns(1), Priority::High, || unreachable!()), {
        Err(SendError::Timeout { deadline_ns: 1 })
    });
    assert_eq!((a.stats().sent, a.stats().refused), (4, 4));
    assert_eq!(
        SendError::Timeout { deadline_ns: 1 }.to_string(),
        "the deadline, 1 ns on the clock of `Platform::now_ns`, passed before the message was sent, or before there was \
         room for it; 0 stands for the fabric's delivery timeout, and `deadline_in` makes a deadline of a duration"
    );
}

#[test]
fn a_send_that_waits_goes_through_when_there_is_room_and_forwards_meanwhile() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 4, 64>(&CONFIG));
    let mut kernels: Kernels<'_> = register_all(&fabric, &platform, 4);
    let ids = ids(&kernels);
    // 0 -> 1 -> 3, while 1 waits for room at 2.
    fabric.set_route(ids[0], ids[3], ids[1]).unwrap();
    let transit = kernels[0].send(ids[3], &empty()).unwrap();
    fill(&mut kernels[1], ids[2]);
    let mut others = kernels.split_off(2);
    let mut pauses = 0;
    let sent = kernels[1].send_waiting(ids[2], &empty(), Priority::Normal, || {
        pauses += 1;
        if pauses == 3 {
            assert_eq!(others[1].try_receive().unwrap().header.id(), transit, "forwarded while waiting");
            assert!(others[0].try_receive().is_some());
        }
    });
    assert!(sent.is_ok());
    assert_eq!(pauses, 3);
    kernels[1].send_waiting(ids[0], &empty(), Priority::Normal, || unreachable!("there is room")).unwrap();
}

#[test]
fn a_loop_ends_in_max_hops_exceeded_after_exactly_the_fabrics_limit() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 4, 64>(&CONFIG));
    let mut kernels: Kernels<'_> = register_all(&fabric, &platform, 3);
    let ids = ids(&kernels);
    // 0 and 1 each believe that the other knows the way to 2.
    fabric.set_route(ids[0], ids[2], ids[1]).unwrap();
    fabric.set_route(ids[1], ids[2], ids[0]).unwrap();
    for (message, limit) in [(empty(), 8), (empty().with_hop_limit(1), 1), (empty().with_hop_limit(127), 127)] {
        let before = fabric.total_stats();
        let id = kernels[0].send(ids[2], &message).unwrap();
        let mut polls = 0;
        while fabric.peek_receipt(id).unwrap().status == DeliveryStatus::Pending {
            kernels[1 - polls % 2].poll();
            polls += 1;
        }
        let total = fabric.total_stats();
        assert_eq!(status(&mut kernels[0], id), Ok(DeliveryStatus::MaxHopsExceeded));
        assert_eq!(total.forwarded - before.forwarded, limit);
        assert_eq!(total.max_hops_exceeded - before.max_hops_exceeded, 1);
        let failed = [0, 1]
            .iter()
            .flat_map(|&k| fabric.trace(ids[k]).unwrap().read())
            .find(|e| e.id == id && e.failure() == Some(DeliveryStatus::MaxHopsExceeded));
        assert_eq!(u64::from(failed.unwrap().hops), limit);
    }
    assert_adds_up(&fabric, 0);
}

#[test]
fn the_hop_limit_counts_forwards_and_not_the_first_send() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 4, 64>(&Config { hop_limit: 1, ..CONFIG }));
    let mut kernels: Kernels<'_> = register_all(&fabric, &platform, 4);
    let ids = ids(&kernels);
    chain(&fabric, &ids);
    for (message, arrives) in [(empty(), false), (empty().with_hop_limit(2), true)] {
        let id = kernels[0].send(ids[3], &message).unwrap();
        kernels[1].poll();
        kernels[2].poll();
        assert_eq!(kernels[3].try_receive().is_some(), arrives);
        let expected = if arrives { DeliveryStatus::Delivered } else { DeliveryStatus::MaxHopsExceeded };
        assert_eq!(status(&mut kernels[0], id), Ok(expected));
    }
    let direct = kernels[2].send(ids[3], &empty()).unwrap();
    assert!(kernels[3].try_receive().is_some());
    assert_eq!(status(&mut kernels[2], direct), Ok(DeliveryStatus::Delivered));
    assert_adds_up(&fabric, 0);
}

#[test]
fn a_receipt_can_be_had_until_it_is_overwritten_and_then_says_so() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 4, 64>(&CONFIG));
    let mut kernels: Kernels<'_> = register_all(&fabric, &platform, 2);
    let [a, b] = &mut kernels[..] else { unreachable!() };
    let first = a.send(b.id(), &empty()).unwrap();
    assert!(b.try_receive().is_some());
    for more in 1..=16 {
        assert_eq!(status(a, first), Ok(DeliveryStatus::Delivered), "after {} more", more - 1);
        a.send(b.id(), &empty()).unwrap();
        assert!(b.try_receive().is_some());
    }
    assert_eq!(status(a, first), Err(ReceiptError::Overwritten));
    for never in [0, 18, 1 << 40] {
        assert_eq!(status(a, MessageId { source: a.id(), sequence: never }), Err(ReceiptError::Unknown));
    }
    let of_nobody = MessageId { source: KernelId::new(900, 1), sequence: 1 };
    assert_eq!(status(a, of_nobody), Err(ReceiptError::Unknown));
}

#[test]
fn an_overdue_message_is_timed_out_by_any_onlooker_and_counted_by_its_sender() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 4, 64>(&CONFIG));
    let mut kernels: Kernels<'_> = register_all(&fabric, &platform, 3);
    let [a, b, c] = &mut kernels[..] else { unreachable!() };
    let ids = [a.send(b.id(), &empty()).unwrap(), a.send_priority(b.id(), &empty(), Priority::High).unwrap()];
    platform.advance(OVERDUE_NS - 1);
    for id in ids {
        assert_eq!((status(c, id), status(b, id)), (Ok(DeliveryStatus::Pending), Ok(DeliveryStatus::Pending)));
    }
    platform.advance(1);
    assert_eq!(status(c, ids[0]), Ok(DeliveryStatus::Timeout));
    assert_eq!(fabric.receipt(ids[1], &platform).unwrap().status, DeliveryStatus::Timeout);
    assert_adds_up(&fabric, 2);
    assert_eq!(fabric.total_stats().timeout, 0, "who looks on has no counters");
    assert_eq!((a.expire(), a.stats().timeout), (0, 2));
    assert_adds_up(&fabric, 0);
    assert_eq!((b.try_receive(), b.stats().discarded), (None, 2));
    assert_eq!(ids.map(|id| status(a, id)), [Ok(DeliveryStatus::Timeout); 2]);
    assert_adds_up(&fabric, 0);
}

#[test]
fn a_message_that_an_onlooker_has_timed_out_is_counted_by_its_holder_if_that_comes_first() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 4, 64>(&CONFIG));
    let mut kernels: Kernels<'_> = register_all(&fabric, &platform, 2);
    let [a, b] = &mut kernels[..] else { unreachable!() };
    let id = a.send(b.id(), &empty()).unwrap();
    platform.advance(OVERDUE_NS);
    assert_eq!(fabric.receipt(id, &platform).unwrap().status, DeliveryStatus::Timeout);
    // A receiver whose clock lags does not receive it either.
    platform.now_ns.set(1);
    assert_eq!((b.try_receive(), b.stats().timeout), (None, 1));
    platform.advance(OVERDUE_NS);
    assert_eq!((a.expire(), a.stats().timeout), (0, 0));
    assert_adds_up(&fabric, 0);
}

/// The receiver is dead and the sender has left: no kernel comes by.
#[test]
fn a_message_between_a_dead_receiver_and_a_sender_that_left_does_not_stay_pending() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 4, 64>(&CONFIG));
    let mut kernels: Kernels<'_> = register_all(&fabric, &platform, 3);
    let to = kernels[1].id();
    let id = kernels[0].send(to, &empty()).unwrap();
    core::mem::forget(kernels.remove(1));
    kernels.remove(0).unregister();
    platform.advance(OVERDUE_NS);
    assert_eq!(fabric.peek_receipt(id).unwrap().status, DeliveryStatus::Pending);
    assert_eq!(fabric.receipt(id, &platform).unwrap().status, DeliveryStatus::Timeout);
    assert_eq!(status(&mut kernels[0], id), Ok(DeliveryStatus::Timeout));
    // The next owner of the sender's index counts it.
    assert_adds_up(&fabric, 1);
    let mut next = common::handle(&fabric).register(&Registration::new("next").unwrap().at(0), &platform).unwrap();
    assert_eq!((next.expire(), fabric.total_stats().timeout), (0, 1));
    assert_adds_up(&fabric, 0);
}

#[test]
fn a_message_that_failed_after_its_deadline_has_timed_out() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 4, 64>(&CONFIG));
    let mut kernels: Kernels<'_> = register_all(&fabric, &platform, 4);
    let ids = ids(&kernels);
    chain(&fabric, &ids);
    // Out of hops, without a receiver, thrown out by one that leaves.
    let hops = kernels[0].send(ids[3], &empty().with_hop_limit(1)).unwrap();
    kernels[1].poll();
    let thrown_out = kernels[0].send(ids[1], &empty()).unwrap();
    let nowhere = kernels[1].send(ids[3], &empty()).unwrap();
    kernels.pop();
    platform.advance(TIMEOUT_NS + 1);
    kernels[2].poll();
    kernels.remove(1).unregister();
    for id in [hops, thrown_out, nowhere] {
        assert_eq!(fabric.peek_receipt(id).unwrap().status, DeliveryStatus::Timeout);
    }
    assert_adds_up(&fabric, 0);
}

/// Refused sends use the sequence of the next message; what is asked about that one meanwhile must not decide it.
#[test]
fn a_refused_send_of_high_priority_leaves_no_receipt_behind() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 4, 64>(&CONFIG));
    let mut kernels: Kernels<'_> = register_all(&fabric, &platform, 2);
    let [a, b] = &mut kernels[..] else { unreachable!() };
    while a.send_priority(b.id(), &empty(), Priority::High).is_ok() {}
    let next = MessageId { source: a.id(), sequence: a.stats().sent + 1 };
    platform.advance(OVERDUE_NS);
    assert_eq!(fabric.receipt(next, &platform), Err(ReceiptError::Unknown));
    assert_eq!(a.expire(), 0);
    while b.try_receive().is_some() {}
    assert_eq!(a.send(b.id(), &empty()), Ok(next));
    assert!(b.try_receive().is_some());
    assert_eq!(status(a, next), Ok(DeliveryStatus::Delivered));
    assert_adds_up(&fabric, 0);
}

/// The loop of a kernel looks at a few messages at a time, and yet comes to all of them.
#[test]
fn a_kernel_that_polls_settles_all_that_is_overdue_in_steps() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 64, 64>(&CONFIG));
    let mut kernels = register_all(&fabric, &platform, 4);
    let ids: Vec<_> = kernels.iter().map(Endpoint::id).collect();
    for to in [ids[1], ids[2]] {
        while kernels[0].send(to, &empty()).is_ok() {}
    }
    // Seen pending once, and later overdue.
    for _ in 0..64 {
        kernels[0].poll();
    }
    platform.advance(OVERDUE_NS);
    let mut polls = 0;
    while kernels[0].stats().timeout < 128 {
        let before = kernels[0].stats().timeout;
        kernels[0].poll();
        assert!(kernels[0].stats().timeout - before <= 8, "a bounded step");
        polls += 1;
    }
    assert!(polls <= 1024 + 128 / 8 + 1, "{polls}");
    assert_adds_up(&fabric, 0);
}

/// The identity that every message is received, failed or pending is not true by definition.
#[test]
fn a_message_that_was_lost_is_missed() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 4, 64>(&CONFIG));
    let mut kernels = register_all(&fabric, &platform, 2);
    let (to, other) = (kernels[1].id(), kernels[0].id());
    let [a, b] = &mut kernels[..] else { unreachable!() };
    for to in [to, to, other] {
        a.send(to, &empty()).unwrap();
    }
    assert_eq!((fabric.pending(), fabric.total_stats().unaccounted()), (3, 3));
    assert!(b.try_receive().is_some());
    assert_eq!((fabric.pending(), fabric.total_stats().unaccounted()), (2, 2));
    // A header that no kernel writes: the message is thrown away, and its receipt stays as it is.
    let base = core::ptr::from_ref(&*fabric).cast::<u8>().cast_mut();
    let wanted = Message::<64>::new(0xfeed).header.kind;
    a.send(to, &Message::new(wanted)).unwrap();
    // SAFETY: inside of the fabric; one thread.
    let at = (0..size_of::<Fabric<4, 4, 64>>())
        .step_by(4)
        .rfind(|&at| unsafe { base.add(at).cast::<u32>().read() } == wanted);
    let priority = core::mem::offset_of!(k2k_core::Header, priority) - core::mem::offset_of!(k2k_core::Header, kind);
    // SAFETY: as above.
    unsafe { base.add(at.unwrap() + priority).write(9) };
    assert_eq!((fabric.pending(), fabric.total_stats().unaccounted()), (3, 3));
    assert!(b.try_receive().is_some());
    assert!(b.try_receive().is_none());
    assert_eq!((fabric.pending(), fabric.total_stats().unaccounted(), fabric.total_stats().corrupt), (1, 2, 1));
}

#[test]
fn expire_decides_everything_that_is_overdue_and_counts_the_rest() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 4, 64>(&CONFIG));
    let mut kernels: Kernels<'_> = register_all(&fabric, &platform, 3);
    let c = kernels.pop().unwrap();
    let [a, b] = &mut kernels[..] else { unreachable!() };
    let long = a.send(b.id(), &empty().with_deadline_ns(1_000_000)).unwrap();
    let short = a.send(b.id(), &empty()).unwrap();
    let to_c = a.send(c.id(), &empty()).unwrap();
    assert_eq!(a.expire(), 3);
    platform.advance(OVERDUE_NS);
    assert_eq!(a.expire(), 1);
    for (id, expected) in
        [(long, DeliveryStatus::Pending), (short, DeliveryStatus::Timeout), (to_c, DeliveryStatus::Timeout)]
    {
        assert_eq!(fabric.peek_receipt(id).unwrap().status, expected);
    }
    platform.advance(1_000_000);
    assert_eq!(a.expire(), 0);
    assert_eq!(a.stats().timeout, 3);
    assert_adds_up(&fabric, 0);
}

/// The sender's own verdict must not be forgotten while the message still lies somewhere.
#[test]
fn a_message_that_is_found_after_its_receipt_was_overwritten_is_counted_once() {
    for found_before in [false, true] {
        let (platform, fabric) = (Manual::at(1), fabric::<4, 4, 64>(&CONFIG));
        let mut kernels: Kernels<'_> = register_all(&fabric, &platform, 3);
        let [a, b, c] = &mut kernels[..] else { unreachable!() };
        let late = a.send(b.id(), &empty()).unwrap();
        platform.advance(OVERDUE_NS);
        assert_eq!(status(a, late), Ok(DeliveryStatus::Timeout));
        assert_adds_up(&fabric, 0);
        if found_before {
            assert_eq!(b.try_receive(), None);
        }
        for _ in 0..40 {
            a.send(c.id(), &empty()).unwrap();
            assert!(c.try_receive().is_some());
        }
        assert_eq!(status(a, late), Err(ReceiptError::Overwritten));
        // Until someone finds it, it is on its way as far as anyone can know.
        assert_adds_up(&fabric, u64::from(!found_before));
        assert_eq!(b.try_receive(), None);
        assert_eq!((fabric.total_stats().timeout, fabric.total_stats().received), (1, 40));
        assert_adds_up(&fabric, 0);
    }
}

/// Nor by who sends from the sender's index after it.
#[test]
fn a_message_that_a_predecessor_gave_up_is_counted_once_when_it_is_found() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 4, 64>(&CONFIG));
    let mut kernels: Kernels<'_> = register_all(&fabric, &platform, 3);
    let to = kernels[1].id();
    let late = kernels[0].send(to, &empty()).unwrap();
    platform.advance(OVERDUE_NS);
    assert_eq!(status(&mut kernels[0], late), Ok(DeliveryStatus::Timeout));
    kernels.remove(0).unregister();
    let mut successor =
        common::handle(&fabric).register(&Registration::new("successor").unwrap().at(0), &platform).unwrap();
    let [b, c] = &mut kernels[..] else { unreachable!() };
    for _ in 0..16 {
        successor.send(c.id(), &empty()).unwrap();
        assert!(c.try_receive().is_some());
    }
    // Until someone finds it, it is on its way as far as anyone can know.
    assert_adds_up(&fabric, 1);
    assert_eq!(b.try_receive(), None);
    assert_eq!((fabric.total_stats().timeout, fabric.total_stats().received), (1, 16));
    assert_adds_up(&fabric, 0);
}

/// Whoever said "timed out" is right for ever, also when the clock is set back.
#[test]
fn a_message_that_was_given_up_is_not_received_by_an_earlier_clock() {
    let (platform, fabric) = (Manual::at(10_000), fabric::<4, 4, 64>(&CONFIG));
    let mut kernels: Kernels<'_> = register_all(&fabric, &platform, 2);
    let [a, b] = &mut kernels[..] else { unreachable!() };
    let late = a.send(b.id(), &empty()).unwrap();
    platform.advance(OVERDUE_NS);
    assert_eq!(status(a, late), Ok(DeliveryStatus::Timeout));
    // The entry is needed again, and the sender's count taken back.
    for sent in 1..=16 {
        a.send(a.id(), &empty()).unwrap();
        assert!(sent == 16 || a.try_receive().is_some());
    }
    platform.now_ns.set(10_500);
    assert_eq!(b.try_receive(), None);
    assert_eq!(b.stats().timeout, 1);
    assert_adds_up(&fabric, 1);
}

#[test]
fn receipts_of_an_owner_of_long_ago_do_not_pass_for_later_ones() {
    let (platform, fabric) = (Manual::at(1), fabric::<2, 2, 64>(&CONFIG));
    let who = Registration::new("who").unwrap();
    let mut receiver = common::handle(&fabric).register(&Registration::new("receiver").unwrap(), &platform).unwrap();
    {
        let mut first = common::handle(&fabric).register(&who, &platform).unwrap();
        for _ in 0..4 {
            first.send(receiver.id(), &empty()).unwrap();
            assert!(receiver.try_receive().is_some());
        }
    }
    for _ in 0..if cfg!(miri) { 10 } else { 33_000 } {
        common::handle(&fabric).register(&who, &platform).unwrap();
    }
    let mut last = common::handle(&fabric).register(&who, &platform).unwrap();
    let id = last.send(receiver.id(), &empty()).unwrap();
    assert_eq!(status(&mut last, id), Ok(DeliveryStatus::Pending));
    platform.advance(OVERDUE_NS);
    assert_eq!(status(&mut last, id), Ok(DeliveryStatus::Timeout));
}

#[test]
fn a_pending_message_whose_receipt_was_overwritten_is_decided_by_who_holds_it() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 4, 64>(&CONFIG));
    let mut kernels: Kernels<'_> = register_all(&fabric, &platform, 3);
    let [a, b, c] = &mut kernels[..] else { unreachable!() };
    let early = a.send(b.id(), &empty()).unwrap();
    for _ in 0..16 {
        a.send(c.id(), &empty()).unwrap();
        assert!(c.try_receive().is_some());
    }
    assert_eq!((status(a, early), a.expire()), (Err(ReceiptError::Overwritten), 0));
    assert_adds_up(&fabric, 1);
    assert_eq!(b.try_receive().unwrap().header.id(), early);
    assert_adds_up(&fabric, 0);
}

#[test]
fn an_address_that_no_kernel_has_had_says_nothing_of_an_index() {
    let platform = Manual::at(1);
    let fabric = fabric::<2, 4, 64>(&Config::default());
    let unused = |id| {
        assert!(fabric.stats(id).is_none() && fabric.trace(id).is_none(), "{id}");
        assert!(fabric.phase(id).is_none() && fabric.heartbeat(id).is_none() && fabric.owner(id).is_none(), "{id}");
        assert!(fabric.name(id).is_none() && fabric.clear_failed(id).is_err(), "{id}");
        assert!(fabric.command(id, Command::Stop, &platform).is_err() && !fabric.is_registered(id), "{id}");
        assert_eq!(fabric.route(id, id), None);
    };
    let [first, next] = [1, 2].map(|generation| KernelId::new(0, generation));
    for id in [KernelId::NONE, first, KernelId::new(1, 0), KernelId::new(2, 1)] {
        unused(id);
    }
    let kernel = common::handle(&fabric).register(&Registration::new("k").unwrap(), &platform).unwrap();
    assert_eq!(kernel.id(), first);
    unused(KernelId::NONE);
    unused(next);
    drop(kernel);
    assert!(fabric.stats(first).is_some() && fabric.trace(first).is_some(), "its counts and trace stay");
}

#[test]
fn a_failed_kernel_keeps_its_index_and_its_trace_until_it_is_cleared() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 4, 64>(&CONFIG));
    let mut kernels: Kernels<'_> = register_all(&fabric, &platform, 2);
    let b = kernels.pop().unwrap();
    let (a, failed) = (&mut kernels[0], b.id());
    let id = a.send(failed, &empty()).unwrap();
    b.fail();
    assert!(!fabric.is_registered(failed));
    assert_eq!(fabric.phase(failed), Some(k2k_core::Phase::Failed));
    assert_eq!(status(a, id), Ok(DeliveryStatus::NotFound));
    assert_eq!(a.send(failed, &empty()), Err(SendError::NotFound { kernel: failed }));
    assert!(fabric.trace(failed).unwrap().read().any(|entry| entry.id == id));
    let who = Registration::new("again").unwrap();
    assert!(common::handle(&fabric).register(&who.at(1), &platform).is_err());
    assert_eq!(common::handle(&fabric).register(&who, &platform).unwrap().id().index(), 2);
    let refused = fabric.clear_failed(a.id()).unwrap_err();
    assert_eq!(refused, NotFailed { kernel: a.id(), is_here: true });
    assert!(refused.to_string().contains("has not failed"), "{refused}");
    fabric.clear_failed(failed).unwrap();
    let refused = fabric.clear_failed(failed).unwrap_err();
    assert_eq!(refused, NotFailed { kernel: failed, is_here: false });
    assert!(refused.to_string().contains("cleared before"), "{refused}");
    assert_eq!(
        common::handle(&fabric).register(&who.at(1), &platform).unwrap().id(),
        KernelId::new(1, failed.generation() + 1)
    );
    assert_adds_up(&fabric, 0);
}

#[test]
fn a_successor_takes_over_the_mail_and_the_traffic_of_a_dead_kernel() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 4, 64>(&CONFIG));
    let mut kernels: Kernels<'_> = register_all(&fabric, &platform, 3);
    let ids = ids(&kernels);
    fabric.set_route(ids[0], ids[2], ids[1]).unwrap();
    let own = kernels[1].send(ids[0], &empty()).unwrap();
    fill(&mut kernels[1], ids[2]);
    let deferred = kernels[0].send(ids[2], &empty()).unwrap();
    kernels[1].poll();
    let waiting = kernels[0].send(ids[1], &empty()).unwrap();
    let high = kernels[0].send_priority(ids[1], &empty(), Priority::High).unwrap();
    let dead = kernels.remove(1);
    let stats = dead.stats();
    core::mem::forget(dead);
    assert!(common::handle(&fabric).register(&Registration::new("other").unwrap().at(1), &platform).is_err());
    // SAFETY: it was forgotten.
    let mut successor = unsafe { common::handle(&fabric).take_over(ids[1], &platform) }.unwrap();
    assert_eq!((successor.id(), successor.stats()), (ids[1], stats));
    assert_eq!(status(&mut successor, own), Ok(DeliveryStatus::Pending));
    assert_eq!(successor.pending_count(), 3);
    let received: Vec<_> = core::iter::from_fn(|| successor.try_receive()).map(|m| m.header.id()).collect();
    assert_eq!(received, [high, waiting]);
    assert_eq!(successor.send(ids[2], &empty()), Err(SendError::QueueFull { next_hop: ids[2] }));
    while kernels[1].try_receive().is_some() {
        successor.poll();
    }
    assert_eq!(status(&mut kernels[0], deferred), Ok(DeliveryStatus::Delivered));
    assert!(kernels[0].try_receive().is_some());
    assert_adds_up(&fabric, 0);
    // SAFETY: refused.
    assert!(unsafe { common::handle(&fabric).take_over(KernelId::new(1, 9), &platform) }.is_err());
}

#[test]
fn a_message_that_a_dead_kernel_had_received_is_not_received_again() {
    let (platform, fabric) = (Manual::at(1), fabric::<2, 32, 64>(&CONFIG));
    let mut kernels = register_all(&fabric, &platform, 2);
    let mut b = kernels.pop().unwrap();
    let a = &mut kernels[0];
    for _ in 0..5 {
        a.send(b.id(), &empty()).unwrap();
    }
    // One of five: the shard's credit is told in eighths, so this one is not told yet.
    let received = b.try_receive().unwrap().header.id();
    let id = b.id();
    core::mem::forget(b);
    // SAFETY: it was forgotten.
    let mut successor = unsafe { common::handle(&fabric).take_over(id, &platform) }.unwrap();
    let rest: Vec<_> = core::iter::from_fn(|| successor.try_receive()).map(|m| m.header.id().sequence).collect();
    assert_eq!(rest, [2, 3, 4, 5]);
    assert_eq!(status(a, received), Ok(DeliveryStatus::Delivered));
    assert_eq!(fabric.pending(), 0);
}

#[test]
fn a_payload_too_long_is_refused_with_both_lengths() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 4, 64>(&CONFIG));
    let mut kernels: Kernels<'_> = register_all(&fabric, &platform, 2);
    let to = kernels[1].id();
    let mut message = empty();
    message.header.payload_len = 65;
    let refused = kernels[0].send(to, &message).unwrap_err();
    assert_eq!((refused.status(), refused.to_string().contains("65"), refused.to_string().contains("64")), {
        (None, true, true)
    });
}

#[test]
fn counters_are_of_the_index_and_go_on_with_its_next_owner() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 4, 64>(&CONFIG));
    let mut kernels: Kernels<'_> = register_all(&fabric, &platform, 2);
    let b = kernels.pop().unwrap();
    let first = kernels[0].send(b.id(), &empty()).unwrap();
    kernels.pop().unwrap().unregister();
    let mut a = common::handle(&fabric).register(&Registration::new("again").unwrap().at(0), &platform).unwrap();
    assert_eq!(a.stats(), Stats { sent: 1, ..Stats::default() });
    let second = a.send(b.id(), &empty()).unwrap();
    assert_eq!((first.sequence, second.sequence), (1, 2));
    // The predecessor's message is pending for its successor, who answers for the index.
    assert_eq!(a.expire(), 2);
    platform.advance(OVERDUE_NS);
    assert_eq!((a.expire(), a.stats().timeout), (0, 2));
    assert_adds_up(&fabric, 0);
}

#[test]
fn transit_mail_moves_on_while_the_forwarder_has_mail_of_its_own_all_the_time() {
    let platform = Manual::at(1_000);
    let fabric = fabric::<4, 4, 64>(&CONFIG);
    let mut kernels = register_all(&fabric, &platform, 3);
    let ids = ids(&kernels);
    chain(&fabric, &ids);
    // The forwarder's shard to the last kernel is full, so what comes by is deferred.
    fill(&mut kernels[1], ids[2]);
    let id = kernels[0].send(ids[2], &empty()).unwrap();
    assert!(kernels[1].try_receive().is_none());
    assert_eq!(kernels[1].backlog(), Backlog::Transit);
    while kernels[2].try_receive().is_some() {}
    // The inbox is never found empty, and the store never full.
    for _ in 0..200 {
        kernels[1].send(ids[1], &empty()).unwrap();
        assert!(kernels[1].try_receive().is_some());
    }
    assert!(kernels[2].try_receive().is_some());
    assert_eq!(status(&mut kernels[0], id), Ok(DeliveryStatus::Delivered));
}

#[test]
fn high_priority_does_not_wait_behind_normal_transit_mail() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 4, 64>(&CONFIG));
    let mut kernels: Kernels<'_> = register_all(&fabric, &platform, 3);
    let ids = ids(&kernels);
    chain(&fabric, &ids);
    // The shard to the last kernel is full, and so is the forwarder's store.
    for _ in 0..8 {
        kernels[0].send(ids[2], &empty()).unwrap();
        kernels[1].poll();
    }
    let high = kernels[0].send_priority(ids[2], &Message::new(2), Priority::High).unwrap();
    kernels[1].poll();
    assert_eq!(kernels[2].try_receive().unwrap().header.kind, 2);
    assert_eq!(status(&mut kernels[0], high), Ok(DeliveryStatus::Delivered));
}

#[test]
fn a_new_owner_starts_without_the_routes_of_and_to_its_predecessor() {
    let platform = Manual::at(1_000);
    let fabric = fabric::<4, 4, 64>(&CONFIG);
    let mut kernels = register_all(&fabric, &platform, 3);
    let ids = ids(&kernels);
    fabric.set_route(ids[1], ids[2], ids[0]).unwrap();
    fabric.set_route(ids[0], ids[1], ids[2]).unwrap();
    fabric.set_route(ids[0], ids[2], ids[1]).unwrap();
    kernels.remove(1).unregister();
    let successor =
        common::handle(&fabric).register(&Registration::new("successor").unwrap().at(1), &platform).unwrap();
    assert_eq!(fabric.route(successor.id(), ids[2]), None, "a route of the predecessor's");
    assert_eq!(fabric.route(ids[0], successor.id()), None, "a route to the predecessor");
    assert_eq!(fabric.route(ids[0], ids[2]), Some(ids[1]), "others' routes are theirs, and name who has left");
}

#[test]
fn a_refused_send_leaves_all_receipts_as_they_are() {
    let platform = Manual::at(1_000);
    let fabric = fabric::<2, 4, 64>(&CONFIG);
    let mut kernels = register_all(&fabric, &platform, 2);
    let [a, b] = &mut kernels[..] else { unreachable!() };
    let first = a.send(b.id(), &empty()).unwrap();
    assert!(b.try_receive().is_some());
    for _ in 0..3 {
        a.send(b.id(), &empty()).unwrap();
        assert!(b.try_receive().is_some());
    }
    // The eighth of eight receipts is taken; one more message would overwrite the first.
    for _ in 0..4 {
        a.send(b.id(), &empty()).unwrap();
    }
    assert!(matches!(a.send(b.id(), &empty()), Err(SendError::QueueFull { .. })));
    assert_eq!(status(a, first), Ok(DeliveryStatus::Delivered));
}

#[test]
fn a_kernel_that_fails_gives_its_platform_back() {
    struct Counted<'c>(&'c core::cell::Cell<u32>);
    impl k2k_core::Platform for Counted<'_> {
        fn now_ns(&self) -> u64 {
            1_000
        }
        fn wake(&self, _: &k2k_core::WakeFlag) {}
    }
    impl Drop for Counted<'_> {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }
    let dropped = core::cell::Cell::new(0);
    let fabric = fabric::<2, 4, 64>(&CONFIG);
    let who = Registration::new("counted").unwrap();
    common::handle(&fabric).register(&who, Counted(&dropped)).unwrap().fail();
    assert_eq!(dropped.get(), 1);
}
