//! Endpoints on one thread, with a clock turned by hand.

mod common;

use common::{Manual, fabric, register_all};
use k2k_core::{Config, DeliveryStatus, Message, Priority, SendError};

#[test]
fn a_message_is_received_as_it_was_sent_and_its_receipt_says_so() {
    let platform = Manual::at(1_000);
    let fabric = fabric::<4, 8, 64>(&Config::default());
    let mut kernels = register_all(&fabric, &platform, 2);
    let [a, b] = &mut kernels[..] else { unreachable!() };
    let message = Message::from_bytes(7, b"hello").unwrap().with_correlation_id(9).with_flags(3);
    let id = a.send(b.id(), &message).unwrap();
    assert_eq!(a.receipt(id).unwrap().status, DeliveryStatus::Pending);
    assert_eq!(b.pending_count(), 1);
    let received = b.try_receive().unwrap();
    assert_eq!(received.payload(), b"hello");
    assert_eq!((received.header.kind, received.header.correlation_id, received.header.flags), (7, 9, 3));
    assert_eq!(received.header.source(), a.id());
    assert_eq!(received.header.id(), id);
    assert_eq!(a.receipt(id).unwrap().status, DeliveryStatus::Delivered);
    assert_eq!(b.pending_count(), 0);
    assert_eq!(fabric.pending(), 0);
}

#[test]
fn high_priority_comes_first_but_not_for_ever() {
    let platform = Manual::at(1_000);
    let fabric = fabric::<2, 32, 64>(&Config { high_share: u32::MAX, ..Config::default() });
    let mut kernels = register_all(&fabric, &platform, 2);
    let [a, b] = &mut kernels[..] else { unreachable!() };
    for kind in 0..4 {
        a.send(b.id(), &Message::new(kind)).unwrap();
    }
    for kind in 100..120 {
        a.send_priority(b.id(), &Message::new(kind), Priority::High).unwrap();
    }
    let order: Vec<u32> = core::iter::from_fn(|| b.try_receive()).map(|m| m.header.kind).collect();
    let expected: Vec<u32> = (100..116).chain([0]).chain(116..120).chain(1..4).collect();
    assert_eq!(order, expected);
}

#[test]
fn a_full_inbox_refuses_and_the_message_stays_with_the_caller() {
    let platform = Manual::at(1_000);
    let fabric = fabric::<2, 4, 64>(&Config::default());
    let mut kernels = register_all(&fabric, &platform, 2);
    let [a, b] = &mut kernels[..] else { unreachable!() };
    for _ in 0..4 {
        a.send(b.id(), &Message::new(1)).unwrap();
    }
    assert_eq!(a.send(b.id(), &Message::new(1)), Err(SendError::QueueFull { next_hop: b.id() }));
    assert_eq!((a.stats().sent, a.stats().refused), (4, 1));
    assert!(b.try_receive().is_some());
    a.send(b.id(), &Message::new(1)).unwrap();
}

#[test]
fn a_message_is_forwarded_hop_by_hop() {
    let platform = Manual::at(1_000);
    let fabric = fabric::<4, 8, 64>(&Config { tracing: true, ..Config::default() });
    let mut kernels = register_all(&fabric, &platform, 4);
    let ids: Vec<_> = kernels.iter().map(|k| k.id()).collect();
    for at in 0..2 {
        fabric.set_route(ids[at], ids[3], ids[at + 1]).unwrap();
    }
    let id = kernels[0].send(ids[3], &Message::from_bytes(1, b"over there").unwrap()).unwrap();
    assert_eq!(kernels[3].try_receive(), None);
    assert_eq!(kernels[1].poll(), 1);
    assert_eq!(kernels[2].try_receive(), None);
    let received = kernels[3].try_receive().unwrap();
    assert_eq!((received.payload(), received.header.hops), (&b"over there"[..], 2));
    assert_eq!(kernels[0].receipt(id).unwrap().status, DeliveryStatus::Delivered);
    let total = fabric.total_stats();
    assert_eq!((total.sent, total.received, total.forwarded, fabric.pending()), (1, 1, 2, 0));
    assert_eq!(fabric.trace(ids[1]).unwrap().read().count(), 1);
}

#[test]
fn a_payload_of_any_length_arrives_whole_also_by_way_of_a_forwarder() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 4, 192>(&Config::default()));
    let mut kernels = register_all(&fabric, &platform, 3);
    let [a, f, b] = &mut kernels[..] else { unreachable!() };
    for forwarded in [false, true] {
        if forwarded {
            fabric.set_route(a.id(), b.id(), f.id()).unwrap();
        }
        for len in 0..=192u8 {
            for priority in [Priority::Normal, Priority::High] {
                let bytes: Vec<u8> = (0..len).map(|i| i.wrapping_mul(31) ^ len | 1).collect();
                a.send_priority(b.id(), &Message::from_bytes(1, &bytes).unwrap(), priority).unwrap();
                f.poll();
                assert_eq!(b.try_receive().expect("it arrives").payload(), bytes);
            }
        }
    }
}

#[test]
fn latencies_are_counted_for_one_message_of_sixteen_while_that_is_switched_on() {
    let platform = Manual::at(1);
    let fabric = fabric::<2, 4, 64>(&Config { latency: true, ..Config::default() });
    let mut kernels = register_all(&fabric, &platform, 2);
    let to = kernels[1].id();
    let mut go = |count: usize, ns: u64| {
        for _ in 0..count {
            kernels[0].send(to, &Message::new(1)).unwrap();
            platform.advance(ns);
            kernels[1].try_receive().unwrap();
        }
        fabric.latency(to).unwrap()
    };
    let counted = go(1_600, 500);
    assert!((99..=101).contains(&counted.count()), "{}", counted.count());
    assert_eq!((counted.sum_ns(), counted.quantile(0.5)), (500 * counted.count(), Some(511)));
    // Tracing is another switch.
    fabric.set_tracing(true);
    fabric.set_latency(false);
    assert_eq!((fabric.config().tracing, fabric.config().latency), (true, false));
    assert_eq!(go(1_600, 90_000), counted, "switched off");
    fabric.set_latency(true);
    fabric.set_tracing(false);
    assert_eq!((fabric.config().tracing, fabric.config().latency), (false, true));
    let since = go(1_600, 90_000).since(&counted);
    assert!((99..=101).contains(&since.count()));
    assert_eq!((since.quantile(0.0), since.quantile(1.0)), (Some(98_303), Some(98_303)));
    assert_eq!(fabric.latency(kernels[0].id()).unwrap().count(), 0, "the sender has received nothing");
}
