//! A tap between two kernels changes neither order nor priority nor outcome.

mod common;

use common::{Manual, ManualEndpoint, fabric, register_all};
use k2k_core::{Config, DeliveryStatus, Fabric, Message, Priority, Registration, SendError, TapReport};

const SLOTS: usize = 8;
type Small = Fabric<4, SLOTS, 64>;
type End<'f> = ManualEndpoint<'f, 4, SLOTS, 64>;

/// Kernels a, b, and the tap between them.
fn tapped<'f>(fabric: &'f Small, platform: &'f Manual) -> [End<'f>; 3] {
    let ends: [End<'f>; 3] = register_all(fabric, platform, 3).try_into().expect("three");
    let [a, b, tap] = ends.each_ref().map(|end| end.id());
    assert!(fabric.handle().reroute(a, b, None, Some(tap)).unwrap());
    ends
}

fn kinds(end: &mut End<'_>) -> Vec<u32> {
    core::iter::from_fn(|| end.try_receive()).map(|message| message.header.kind).collect()
}

#[test]
fn messages_come_as_they_were_sent_and_are_shown() {
    let (fabric, platform) = (fabric(&Config { high_share: 8, ..Config::default() }), Manual::at(1));
    let [mut a, mut b, mut tap] = tapped(&fabric, &platform);
    let mut shown = Vec::new();
    for round in 0..1000u32 {
        let sent: Vec<_> = (0..1 + round % 7)
            .map(|i| {
                let message = Message::from_bytes(round * 10 + i, &round.to_le_bytes()).unwrap();
                let priority = if (round * 7 + i * 5) % 3 == 0 { Priority::High } else { Priority::Normal };
                (message.header.kind, priority, a.send_priority(b.id(), &message, priority).unwrap())
            })
            .collect();
        shown.clear();
        while tap.tap(|message| shown.push((message.header.kind, message.header.priority, message.header.hops))).passed
            > 0
        {}
        let of =
            |wanted: Priority| sent.iter().filter(move |(_, priority, _)| *priority == wanted).map(|(kind, ..)| *kind);
        // What a receiver without a tap would see: all of high priority first.
        let expected: Vec<u32> = of(Priority::High).chain(of(Priority::Normal)).collect();
        assert_eq!(shown.iter().map(|(kind, ..)| *kind).collect::<Vec<_>>(), expected);
        assert!(shown.iter().all(|(.., hops)| *hops == 0), "shown as they were found");
        assert_eq!(kinds(&mut b), expected);
        for (.., id) in sent {
            assert_eq!(a.receipt(id).unwrap().status, DeliveryStatus::Delivered);
        }
    }
    assert_eq!((fabric.pending(), fabric.total_stats().failed()), (0, 0));
}

#[test]
fn a_full_next_hop_holds_messages_back_in_the_taps_inbox_and_ends_none() {
    for priority in [Priority::Normal, Priority::High] {
        let (fabric, platform) = (fabric(&Config { high_share: 8, ..Config::default() }), Manual::at(1));
        let [mut a, mut b, mut tap] = tapped(&fabric, &platform);
        let mut accepted = 0;
        // As many as both inboxes hold, and no more: then the sender itself is refused.
        loop {
            match a.send_priority(b.id(), &Message::new(accepted), priority) {
                Ok(_) => accepted += 1,
                Err(SendError::QueueFull { next_hop }) => {
                    assert_eq!(next_hop, tap.id());
                    if tap.tap(|_| {}) == (TapReport { passed: 0, blocked: true }) {
                        break;
                    }
                }
                Err(e) => panic!("{e}"),
            }
        }
        assert_eq!(accepted, 2 * SLOTS as u32);
        let mut received = Vec::new();
        while received.len() < accepted as usize {
            received.append(&mut kinds(&mut b));
            let _ = tap.tap(|_| {});
        }
        assert_eq!(received, (0..accepted).collect::<Vec<_>>());
        assert_eq!((fabric.pending(), fabric.total_stats().failed()), (0, 0));
    }
}

#[test]
fn what_is_held_back_still_times_out_and_what_follows_goes_on() {
    let (fabric, platform) = (fabric(&Config::default()), Manual::at(1));
    let [mut a, mut b, mut tap] = tapped(&fabric, &platform);
    for _ in 0..SLOTS {
        a.send(b.id(), &Message::new(0)).unwrap();
    }
    while tap.tap(|_| {}).passed > 0 {}
    let late = a.send(b.id(), &Message::new(1).with_deadline_ns(1000)).unwrap();
    let after = a.send(b.id(), &Message::new(2)).unwrap();
    assert!(tap.tap(|_| {}).blocked);
    platform.advance(1001);
    let mut shown = Vec::new();
    assert!(tap.tap(|message| shown.push(message.header.kind)).blocked);
    assert_eq!(shown, [1], "it went from a to b, though it did not arrive");
    assert_eq!(kinds(&mut b), [0; SLOTS]);
    while tap.tap(|_| {}).passed > 0 {}
    assert_eq!(kinds(&mut b), [2]);
    let status = |a: &mut End<'_>, id| a.receipt(id).unwrap().status;
    assert_eq!((status(&mut a, late), status(&mut a, after)), (DeliveryStatus::Timeout, DeliveryStatus::Delivered));
}

#[test]
fn a_tap_costs_no_hop_of_the_limit() {
    let (fabric, platform) = (fabric(&Config::default()), Manual::at(1));
    let [mut a, mut b, mut tap] = tapped(&fabric, &platform);
    let mut between = fabric.handle().register(&Registration::new("between").unwrap(), &platform).unwrap();
    fabric.set_route(tap.id(), b.id(), between.id()).unwrap();
    a.send(b.id(), &Message::new(1).with_hop_limit(1)).unwrap();
    let _ = tap.tap(|message| assert_eq!(message.header.hop_limit(), 1));
    between.poll();
    assert_eq!(b.try_receive().expect("within the limit").header.hops, 2);
    // The highest limit stays what it is: beside it stands whether the message is a reply.
    fabric.remove_route(tap.id(), b.id());
    a.send(b.id(), &Message::new(2).with_hop_limit(127)).unwrap();
    let _ = tap.tap(|_| {});
    assert_eq!(b.try_receive().expect("within the limit").header.hop_limit, 127);
}

#[test]
fn mail_for_the_tap_ends_in_not_found_and_keeps_nothing_back() {
    let (fabric, platform) = (fabric(&Config::default()), Manual::at(1));
    let [mut a, mut b, mut tap] = tapped(&fabric, &platform);
    for priority in [Priority::Normal, Priority::High] {
        let mail = a.send_priority(tap.id(), &Message::new(1), priority).unwrap();
        a.send_priority(b.id(), &Message::new(2), priority).unwrap();
        let mut shown = 0;
        while tap.tap(|_| shown += 1).passed > 0 {}
        assert_eq!((shown, kinds(&mut b)), (1, vec![2]));
        assert_eq!(a.receipt(mail).unwrap().status, DeliveryStatus::NotFound);
    }
}

#[test]
fn a_tap_sees_whose_mail_waits_and_what_the_sender_has_put_elsewhere_before() {
    let (fabric, platform) = (fabric(&Config::default()), Manual::at(1));
    let [mut a, mut b, mut tap] = tapped(&fabric, &platform);
    let handle = fabric.handle();
    handle.bypass(tap.id());
    for kind in 0..3 {
        a.send(b.id(), &Message::new(kind)).unwrap();
    }
    assert_eq!(handle.normal_mail(b.id(), a.id()), Some((0, 3)));
    assert!(handle.reroute(a.id(), b.id(), None, Some(tap.id())).unwrap());
    assert!(!tap.has_mail_of(a.id()));
    a.send(b.id(), &Message::new(3)).unwrap();
    assert!(tap.has_mail_of(a.id()) && !tap.has_mail_of(b.id()));
    assert_eq!(kinds(&mut b), [0, 1, 2]);
    assert_eq!(handle.normal_mail(b.id(), a.id()), Some((3, 0)));
    let _ = tap.tap(|_| {});
    assert_eq!((handle.normal_mail(b.id(), tap.id()), kinds(&mut b)), (Some((0, 1)), vec![3]));
}

#[test]
fn routes_lead_round_a_tap_again_in_whichever_order_taps_leave() {
    let (fabric, platform) = (fabric(&Config::default()), Manual::at(1));
    let ends = register_all::<4, SLOTS, 64>(&fabric, &platform, 4);
    let [a, b, first, second] = [0, 1, 2, 3].map(|i: usize| ends[i].id());
    let handle = fabric.handle();
    for first_leaves_first in [true, false] {
        assert!(handle.reroute(a, b, None, Some(first)).unwrap());
        fabric.set_route(second, b, first).unwrap();
        assert!(!handle.reroute(a, b, None, Some(second)).unwrap(), "there is a route");
        assert!(handle.reroute(a, b, Some(first), Some(second)).unwrap());
        let order = if first_leaves_first { [first, second] } else { [second, first] };
        handle.bypass(order[0]);
        assert_eq!(fabric.route(a, b), Some(order[1]));
        handle.bypass(order[1]);
        assert_eq!((fabric.route(a, b), fabric.route(second, b)), (None, None));
    }
    // A circle is not made of a detour.
    fabric.set_route(a, b, first).unwrap();
    fabric.set_route(first, b, a).unwrap();
    handle.bypass(first);
    assert_eq!(fabric.route(a, b), None);
}

#[test]
fn high_priority_waits_for_one_turn_of_one_sender_at_most() {
    let (fabric, platform) = (fabric::<4, 64, 64>(&Config { high_share: 64, ..Config::default() }), Manual::at(1));
    let mut ends = register_all(&fabric, &platform, 4);
    let [a, other, tap, b] = &mut ends[..] else { unreachable!() };
    for (sender, high) in [(&mut *a, 40), (other, 0)] {
        assert!(fabric.handle().reroute(sender.id(), b.id(), None, Some(tap.id())).unwrap());
        (0..30).for_each(|_| _ = sender.send(b.id(), &Message::new(0)).unwrap());
        (0..high).for_each(|_| _ = sender.send_priority(b.id(), &Message::new(1), Priority::High).unwrap());
    }
    let mut shown = Vec::new();
    while tap.tap(|message| shown.push(message.header.kind)).passed > 0 {}
    let runs: Vec<_> = shown.chunk_by(|one, next| one == next).map(|run| (run[0], run.len())).collect();
    assert_eq!(runs, [(1, 16), (0, 16), (1, 16), (0, 16), (1, 8), (0, 28)]);
}
