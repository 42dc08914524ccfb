//! Who may send what: shares of the high-priority ring, and senders that are denied an inbox.

mod common;

use common::{Manual, fabric, register_all};
use k2k_core::sync::{AtomicU32, Ordering};
use k2k_core::{Config, DeliveryStatus, Message, Priority, SendError, Stats};

const PRIORITIES: [Priority; 2] = [Priority::Normal, Priority::High];

fn empty() -> Message<64> {
    Message::new(1)
}

#[test]
fn a_sender_has_its_share_of_the_high_priority_ring_and_no_more() {
    let platform = Manual::at(1_000);
    for (high_share, share) in [(0, 4), (1, 1), (7, 7), (u32::MAX, 16)] {
        let fabric = fabric::<4, 16, 64>(&Config { high_share, ..Config::default() });
        let mut kernels = register_all(&fabric, &platform, 2);
        let [a, b] = &mut kernels[..] else { unreachable!() };
        let full = Err(SendError::QueueFull { next_hop: b.id() });
        // Over several laps, and with the ring full, empty and half full.
        for lap in 0..9 {
            let sent = (0..).take_while(|_| a.send_priority(b.id(), &empty(), Priority::High).is_ok()).count();
            assert_eq!(sent, if lap == 0 { share } else { share - share / 2 }, "{high_share}");
            assert_eq!(a.send_priority(b.id(), &empty(), Priority::High), full);
            for _ in 0..share - share / 2 {
                assert!(b.try_receive().is_some());
                let before = a.stats().sent;
                assert!(a.send_priority(b.id(), &empty(), Priority::High).is_ok(), "one was taken");
                assert_eq!(a.send_priority(b.id(), &empty(), Priority::High), full);
                assert_eq!(a.stats().sent, before + 1);
            }
            for _ in 0..share - share / 2 {
                assert!(b.try_receive().is_some());
            }
        }
    }
}

#[test]
fn a_flooding_sender_takes_nobodys_room_in_either_priority() {
    let platform = Manual::at(1_000);
    let fabric = fabric::<4, 16, 64>(&Config::default());
    let mut kernels = register_all(&fabric, &platform, 3);
    let [flooder, polite, receiver] = &mut kernels[..] else { unreachable!() };
    for _ in 0..1_000 {
        let mut ids = Vec::new();
        for priority in PRIORITIES {
            while flooder.send_priority(receiver.id(), &empty(), priority).is_ok() {}
            ids.push(polite.send_priority(receiver.id(), &empty(), priority).expect("it has a share of its own"));
        }
        // Of either priority, the flooder has 16 and 4 messages there, which the receiver takes by turns.
        let received: Vec<_> = (0..24).map_while(|_| receiver.try_receive()).map(|m| m.header.id()).collect();
        assert!(ids.iter().all(|id| received.contains(id)));
    }
}

#[test]
fn a_flooding_thread_takes_nobodys_room_in_either_priority() {
    let fabric = fabric::<4, 16, 64>(&Config::default());
    let who = |name| k2k_core::Registration::new(name).unwrap();
    let mut flooder = common::handle(&fabric).register(&who("flooder"), Quiet).unwrap();
    let mut polite = common::handle(&fabric).register(&who("polite"), Quiet).unwrap();
    let mut receiver = common::handle(&fabric).register(&who("receiver"), Quiet).unwrap();
    let (to, done) = (receiver.id(), AtomicU32::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while done.load(Ordering::Relaxed) == 0 {
                for priority in PRIORITIES {
                    let _ = flooder.send_priority(to, &empty(), priority);
                }
            }
        });
        scope.spawn(|| {
            while done.load(Ordering::Relaxed) == 0 {
                let _ = receiver.try_receive();
                std::thread::yield_now();
            }
        });
        // One at a time: accepted at once, and received.
        for round in 0..500 {
            for priority in PRIORITIES {
                let id = polite.send_priority(to, &empty(), priority);
                let id = id.unwrap_or_else(|e| panic!("round {round}, {priority:?}: {e}"));
                while polite.receipt(id).unwrap().status == DeliveryStatus::Pending {
                    std::thread::yield_now();
                }
                assert_eq!(polite.receipt(id).unwrap().status, DeliveryStatus::Delivered);
            }
        }
        done.store(1, Ordering::Relaxed);
    });
}

/// A clock that stands still, for several threads.
struct Quiet;
impl k2k_core::Platform for Quiet {
    fn now_ns(&self) -> u64 {
        1_000
    }

    fn wake(&self, _: &k2k_core::WakeFlag) {}
}

/// Three senders; the first tries `flood` times as often as the others, both priorities alike, and the receiver takes
/// `taken` messages per round. Returns tries and acceptances per priority, of the others.
fn overload(high_share: u32, flood: usize, taken: usize) -> [[u32; 2]; 2] {
    let platform = Manual::at(1_000);
    let fabric = fabric::<4, 16, 64>(&Config { high_share, ..Config::default() });
    let mut kernels = register_all(&fabric, &platform, 4);
    let to = kernels[3].id();
    let mut tally = [[0; 2]; 2];
    for round in 0..20_000 {
        for (sender, times) in [(0, flood), (1, 1), (2, 1)] {
            for _ in 0..times {
                for (priority, [tried, accepted]) in PRIORITIES.into_iter().zip(&mut tally) {
                    let sent = kernels[sender].send_priority(to, &empty(), priority).is_ok();
                    // Once it is in its stride.
                    if sender > 0 && round > 1_000 {
                        *tried += 1;
                        *accepted += u32::from(sent);
                    }
                }
            }
        }
        for _ in 0..taken {
            kernels[3].try_receive();
        }
    }
    tally
}

#[test]
fn under_overload_high_priority_is_the_better_way_in() {
    for (flood, taken) in [(1, 1), (1, 3), (20, 1), (20, 3), (20, 5)] {
        let [shared, equal] = [u32::MAX, 0].map(|share| {
            overload(share, flood, taken).map(|[tried, accepted]| 100.0 * f64::from(accepted) / f64::from(tried))
        });
        println!(
            "flood x{flood}, {taken} taken: without shares {:.1} % of normal, {:.1} % of high accepted; with shares {:.1} %, {:.1} %",
            shared[0], shared[1], equal[0], equal[1]
        );
        assert!(equal[1] > equal[0], "flood x{flood}, {taken} taken: {equal:?}");
    }
}

#[test]
fn a_successor_knows_how_much_of_its_share_is_used() {
    let platform = Manual::at(1_000);
    let fabric = fabric::<4, 16, 64>(&Config::default());
    let mut kernels = register_all(&fabric, &platform, 2);
    let (mut b, mut a) = (kernels.pop().unwrap(), kernels.pop().unwrap());
    for _ in 0..3 {
        a.send_priority(b.id(), &empty(), Priority::High).unwrap();
    }
    let id = a.id();
    core::mem::forget(a);
    // SAFETY: forgotten: nobody uses the endpoint any more.
    let mut a = unsafe { common::handle(&fabric).take_over(id, &platform) }.unwrap();
    a.send_priority(b.id(), &empty(), Priority::High).unwrap();
    assert!(a.send_priority(b.id(), &empty(), Priority::High).is_err(), "four of four");
    while b.try_receive().is_some() {}
    assert_eq!((0..9).filter(|_| a.send_priority(b.id(), &empty(), Priority::High).is_ok()).count(), 4);
}

#[test]
fn a_forwarder_has_the_share_of_one_sender() {
    let platform = Manual::at(1_000);
    let fabric = fabric::<4, 16, 64>(&Config::default());
    let mut kernels = register_all(&fabric, &platform, 3);
    let [a, forwarder, b] = &mut kernels[..] else { unreachable!() };
    fabric.set_route(a.id(), b.id(), forwarder.id()).unwrap();
    for _ in 0..3 {
        while a.send_priority(b.id(), &empty(), Priority::High).is_ok() {}
        assert!(forwarder.try_receive().is_none());
    }
    assert_eq!((b.pending_count(), forwarder.pending_count()), (4, 8), "the others are deferred");
    assert!(forwarder.send_priority(b.id(), &empty(), Priority::High).is_err());
    assert_eq!(
        (0..99)
            .filter(|_| {
                let got = b.try_receive().is_some();
                forwarder.poll();
                got
            })
            .count(),
        12
    );
}

#[test]
fn a_denied_sender_is_refused_and_its_mail_ends_as_not_allowed() {
    let platform = Manual::at(1_000);
    let fabric = fabric::<4, 16, 64>(&Config::default());
    let mut kernels = register_all(&fabric, &platform, 3);
    let [a, b, c] = &mut kernels[..] else { unreachable!() };
    let early = PRIORITIES.map(|priority| a.send_priority(b.id(), &empty(), priority).unwrap());
    assert!(fabric.is_allowed(b.id(), a.id()));
    fabric.deny(b.id(), a.id()).unwrap();
    assert!(
        !fabric.is_allowed(b.id(), a.id()) && fabric.is_allowed(b.id(), c.id()) && fabric.is_allowed(a.id(), b.id())
    );
    for priority in PRIORITIES {
        let refused = a.send_priority(b.id(), &empty(), priority).unwrap_err();
        assert_eq!(refused, SendError::NotAllowed { receiver: b.id() });
        assert_eq!(refused.status(), Some(DeliveryStatus::NotAllowed));
        assert_eq!(a.send_waiting(b.id(), &empty(), priority, || unreachable!()), Err(refused));
        c.send_priority(b.id(), &empty(), priority).unwrap();
        b.send_priority(a.id(), &empty(), priority).unwrap();
    }
    let received: Vec<_> = core::iter::from_fn(|| b.try_receive()).map(|m| m.header.source()).collect();
    assert_eq!(received, [c.id(); 2]);
    for id in early {
        assert_eq!(a.receipt(id).unwrap().status, DeliveryStatus::NotAllowed);
    }
    assert_eq!((b.stats().not_allowed, a.stats().refused), (2, 4));
    fabric.allow(b.id(), a.id());
    let id = a.send(b.id(), &empty()).unwrap();
    assert_eq!(b.try_receive().map(|m| m.header.id()), Some(id));
    while a.try_receive().is_some() {}
    let total: Stats = fabric.total_stats();
    assert_eq!((total.sent, total.received + total.failed(), fabric.pending()), (7, 7, 0));
    assert_eq!(total.failed(), total.not_allowed);
}

#[test]
fn denials_that_come_and_go_under_load_lose_nothing() {
    let fabric = fabric::<4, 16, 64>(&Config::default());
    let who = |name| k2k_core::Registration::new(name).unwrap();
    let mut sender = common::handle(&fabric).register(&who("sender"), Quiet).unwrap();
    let mut receiver = common::handle(&fabric).register(&who("receiver"), Quiet).unwrap();
    let (from, to, done) = (sender.id(), receiver.id(), AtomicU32::new(0));
    let (mut refused, mut ids) = (0u64, 0u64);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while done.load(Ordering::Acquire) == 0 || fabric.pending() > 0 {
                let _ = receiver.try_receive();
                std::thread::yield_now();
            }
        });
        scope.spawn(|| {
            while done.load(Ordering::Acquire) == 0 {
                fabric.deny(to, from).unwrap();
                std::thread::yield_now();
                fabric.allow(to, from);
                std::thread::yield_now();
            }
        });
        for priority in PRIORITIES.into_iter().cycle().take(20_000) {
            match sender.send_priority(to, &empty(), priority) {
                Ok(_) => ids += 1,
                Err(SendError::NotAllowed { receiver }) => refused += u64::from(receiver == to),
                Err(SendError::QueueFull { .. }) => std::thread::yield_now(),
                Err(e) => panic!("{e}"),
            }
        }
        done.store(1, Ordering::Release);
    });
    let total = fabric.total_stats();
    assert_eq!((total.sent, total.received + total.not_allowed, total.unaccounted()), (ids, ids, 0));
    assert_eq!((total.failed(), fabric.pending()), (total.not_allowed, 0));
    println!("{ids} sent, {} of them denied on the way; {refused} denied before", total.not_allowed);
}

#[test]
fn a_forwarded_message_is_judged_by_its_source_at_its_destination() {
    let platform = Manual::at(1_000);
    let fabric = fabric::<4, 16, 64>(&Config::default());
    let mut kernels = register_all(&fabric, &platform, 3);
    let [a, forwarder, b] = &mut kernels[..] else { unreachable!() };
    fabric.set_route(a.id(), b.id(), forwarder.id()).unwrap();
    // On its way when it was denied; and a forwarder that is denied, or that denies, passes on all the same.
    let denied = a.send(b.id(), &empty()).unwrap();
    fabric.deny(b.id(), a.id()).unwrap();
    fabric.deny(b.id(), forwarder.id()).unwrap();
    fabric.deny(forwarder.id(), a.id()).unwrap();
    assert!(forwarder.try_receive().is_none() && b.try_receive().is_none());
    assert_eq!(a.receipt(denied).unwrap().status, DeliveryStatus::NotAllowed);
    assert_eq!(a.send(b.id(), &empty()), Err(SendError::NotAllowed { receiver: b.id() }));
    fabric.allow(b.id(), a.id());
    let id = a.send(b.id(), &empty()).unwrap();
    assert!(forwarder.try_receive().is_none());
    assert_eq!(b.try_receive().map(|m| m.header.id()), Some(id));
}

#[test]
fn a_denial_ends_with_either_kernel_and_not_with_a_successor() {
    let platform = Manual::at(1_000);
    for receiver_leaves in [false, true] {
        let fabric = fabric::<2, 16, 64>(&Config::default());
        let mut kernels = register_all(&fabric, &platform, 2);
        let (b, a) = (kernels.pop().unwrap(), kernels.pop().unwrap());
        let ids = [a.id(), b.id()];
        fabric.deny(b.id(), a.id()).unwrap();
        core::mem::forget((a, b));
        // SAFETY: forgotten: nobody uses the endpoints any more.
        let [mut a, mut b] = ids.map(|id| unsafe { common::handle(&fabric).take_over(id, &platform) }.unwrap());
        assert!(a.send(b.id(), &empty()).is_err() && b.try_receive().is_none());
        drop(if receiver_leaves { b } else { core::mem::replace(&mut a, b) });
        // What is left is called `a`, and its new partner takes the free index.
        let who = k2k_core::Registration::new("next").unwrap();
        let mut next = common::handle(&fabric).register(&who, &platform).unwrap();
        assert!(fabric.is_allowed(next.id(), a.id()) && fabric.is_allowed(a.id(), next.id()));
        next.send(a.id(), &empty()).unwrap();
        a.send(next.id(), &empty()).unwrap();
        assert!(a.try_receive().is_some() && next.try_receive().is_some());
        assert!(fabric.deny(ids[1], ids[0]).is_err(), "one of them has left");
    }
}
