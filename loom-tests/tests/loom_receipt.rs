//! Receipts: every message ends in exactly one way, whoever decides it, and is counted once.
#![cfg(k2k_loom)]

mod world;

use core::cell::Cell;
use k2k_core::WakeFlag;
use k2k_core::{DeliveryStatus, Fabric, Message, Platform, Priority, ReceiptError, Registration};
use k2k_loom_tests::model;
use loom::sync::Mutex;
use loom::thread;
use world::{At, CONFIG, EARLY, LATE, assert_adds_up, fabric, receive, register, send, shared};

/// Delivery against timeout: the receiver takes the message or the sender gives it up, never both and never neither.
#[test]
fn delivered_or_timed_out() {
    model("receipt.delivered_or_timed_out", 25, || {
        fabric::<2, 1>(|fabric| {
            let mut sender = register(fabric, 0, "a");
            let mut receiver = register(fabric, 1, "b");
            let id = send(&mut sender, receiver.id(), 1);
            let receiver = thread::spawn(move || {
                let got = receiver.try_receive();
                (receiver, got)
            });
            sender.platform().0.set(LATE);
            let status = sender.receipt(id).unwrap().status;
            let (receiver, got) = receiver.join().unwrap();
            let expected = if got.is_some() { DeliveryStatus::Delivered } else { DeliveryStatus::Timeout };
            assert_eq!(status, expected);
            assert_eq!(sender.receipt(id).unwrap().status, expected, "a decision stands");
            let stats = fabric.total_stats();
            assert_eq!((stats.received, stats.timeout), (u64::from(got.is_some()), u64::from(got.is_none())));
            assert_eq!(receiver.stats().discarded, u64::from(got.is_none()));
            assert_adds_up(&stats);
        });
    });
}

/// The receipt is there when the message is: one that was received at once is not given up later.
#[test]
fn received_at_once() {
    model("receipt.received_at_once", 8, || {
        fabric::<2, 1>(|fabric| {
            let mut sender = register(fabric, 0, "a");
            let mut receiver = register(fabric, 1, "b");
            let to = receiver.id();
            let receiver = thread::spawn(move || {
                assert_eq!(receive(&mut receiver), 1);
                receiver
            });
            let id = send(&mut sender, to, 1);
            let receiver = receiver.join().unwrap();
            sender.platform().0.set(LATE);
            assert_eq!(sender.expire(), 0);
            assert_eq!(sender.receipt(id).unwrap().status, DeliveryStatus::Delivered);
            assert_adds_up(&fabric.total_stats());
            drop(receiver);
        });
    });
}

/// A message is given up, and its receipt overwritten, while its receiver comes upon it.
#[test]
fn overwritten_after_timeout() {
    model("receipt.overwritten_after_timeout", 146, || {
        fabric::<2, 1>(|fabric| {
            let mut sender = register(fabric, 0, "a");
            let mut receiver = register(fabric, 1, "b");
            let id = send(&mut sender, receiver.id(), 1);
            receiver.platform().0.set(LATE);
            let receiver = thread::spawn(move || {
                assert!(receiver.try_receive().is_none());
                receiver
            });
            sender.platform().0.set(LATE);
            assert_eq!(sender.receipt(id).unwrap().status, DeliveryStatus::Timeout);
            // Two more, to itself: the table is two long.
            let to = sender.id();
            for kind in 2..=3 {
                send(&mut sender, to, kind);
                assert_eq!(receive(&mut sender), kind);
            }
            assert_eq!(sender.receipt(id), Err(ReceiptError::Overwritten));
            let receiver = receiver.join().unwrap();
            assert_adds_up(&fabric.total_stats());
            drop(receiver);
        });
    });
}

/// A message is given up, and its receipt needed for a later one that stays pending: who finds the first one decides
/// alone, whichever of the two comes first.
#[test]
fn found_between() {
    model("receipt.found_between", 14, || {
        fabric::<2, 1>(|fabric| {
            let mut sender = register(fabric, 0, "a");
            let mut receiver = register(fabric, 1, "b");
            let id = send(&mut sender, receiver.id(), 1);
            receiver.platform().0.set(LATE);
            sender.platform().0.set(LATE);
            assert_eq!(sender.receipt(id).unwrap().status, DeliveryStatus::Timeout);
            let receiver = thread::spawn(move || {
                assert!(receiver.try_receive().is_none());
                receiver
            });
            let to = sender.id();
            send(&mut sender, to, 2);
            assert_eq!(receive(&mut sender), 2);
            let later = send(&mut sender, to, 3);
            let receiver = receiver.join().unwrap();
            assert_eq!(sender.receipt(later).unwrap().status, DeliveryStatus::Pending);
            let stats = fabric.total_stats();
            assert_eq!((stats.timeout, stats.unaccounted(), fabric.pending()), (1, 1, 1));
            assert_eq!(receive(&mut sender), 3);
            assert_eq!(sender.receipt(later).unwrap().status, DeliveryStatus::Delivered);
            assert_adds_up(&fabric.total_stats());
            drop(receiver);
        });
    });
}

/// The clock of the wall: behind a lock, so that it never goes back for anyone.
struct Wall(&'static Mutex<u64>);

impl Platform for Wall {
    fn now_ns(&self) -> u64 {
        *self.0.lock().unwrap()
    }

    fn wake(&self, _: &WakeFlag) {}
}

/// The receiver looks at the clock and then dozes off, so long that the sender gives the message up and overwrites the
/// receipt. The sender was told that it timed out, so it is not delivered.
#[test]
fn told_late() {
    model("receipt.told_late", 192, || {
        shared((Fabric::<2, 1, 0>::new(), Mutex::new(EARLY)), |(fabric, time)| {
            fabric.init(&CONFIG).unwrap();
            let mut sender = fabric.register(&Registration::new("a").unwrap().at(0), Wall(time)).unwrap();
            let mut receiver = fabric.register(&Registration::new("b").unwrap().at(1), Wall(time)).unwrap();
            let id = sender.send(receiver.id(), &Message::new(1)).unwrap();
            let receiver = thread::spawn(move || {
                let got = receiver.try_receive().is_some();
                (receiver, got)
            });
            *time.lock().unwrap() = LATE;
            let status = sender.receipt(id).unwrap().status;
            for _ in 0..2 {
                sender.send(sender.id(), &Message::new(2)).unwrap();
                assert!(sender.try_receive().is_some());
            }
            let (receiver, got) = receiver.join().unwrap();
            assert_eq!(status, if got { DeliveryStatus::Delivered } else { DeliveryStatus::Timeout });
            assert_adds_up(&fabric.total_stats());
            drop(receiver);
        });
    });
}

/// A receipt is overwritten while its message is still on its way: whoever holds the message decides alone.
#[test]
fn overwritten_while_pending() {
    model("receipt.overwritten_while_pending", 8, || {
        fabric::<2, 1>(|fabric| {
            let mut sender = register(fabric, 0, "a");
            let mut receiver = register(fabric, 1, "b");
            send(&mut sender, receiver.id(), 1);
            let receiver = thread::spawn(move || {
                assert_eq!(receiver.try_receive().map(|message| message.header.kind), Some(1));
                receiver
            });
            let to = sender.id();
            for kind in 2..=3 {
                send(&mut sender, to, kind);
                assert_eq!(receive(&mut sender), kind);
            }
            let receiver = receiver.join().unwrap();
            assert_adds_up(&fabric.total_stats());
            drop(receiver);
        });
    });
}

/// The receiver leaves with mail in its inbox while the sender asks what became of it: one of them ends and counts it.
#[test]
fn left_with_mail() {
    model("receipt.left_with_mail", 29, || {
        fabric::<2, 1>(|fabric| {
            let mut sender = register(fabric, 0, "a");
            let receiver = register(fabric, 1, "b");
            let to = receiver.id();
            let id = send(&mut sender, to, 1);
            sender.send_priority(to, &Message::new(2), Priority::High).unwrap();
            let receiver = thread::spawn(move || drop(receiver));
            let status = sender.receipt(id).unwrap().status;
            assert!(matches!(status, DeliveryStatus::Pending | DeliveryStatus::NotFound), "{status}");
            receiver.join().unwrap();
            assert_eq!(sender.expire(), 0);
            assert_eq!(fabric.total_stats().not_found, 2);
            assert_adds_up(&fabric.total_stats());
            assert_eq!(sender.platform().0.get(), EARLY);
        });
    });
}

/// An onlooker settles an overdue message while its receiver comes upon it and its sender counts: it is counted once.
#[test]
fn settled_by_an_onlooker() {
    model("receipt.settled_by_an_onlooker", 59, || {
        fabric::<2, 1>(|fabric| {
            let mut sender = register(fabric, 0, "a");
            let mut receiver = register(fabric, 1, "b");
            let id = send(&mut sender, receiver.id(), 1);
            // Its clock lags.
            let receiver = thread::spawn(move || {
                let got = receiver.try_receive().is_some();
                (receiver, got)
            });
            let late = At(Cell::new(LATE));
            let status = fabric.receipt(id, &late).unwrap().status;
            sender.platform().0.set(LATE);
            sender.expire();
            let (receiver, got) = receiver.join().unwrap();
            assert_eq!(status, if got { DeliveryStatus::Delivered } else { DeliveryStatus::Timeout });
            assert_eq!(fabric.peek_receipt(id).unwrap().status, status);
            sender.expire();
            assert_adds_up(&fabric.total_stats());
            assert_eq!(fabric.pending(), 0);
            drop(receiver);
        });
    });
}

/// An onlooker asks for a message while its entry is opened for the next one, whose deadline is earlier: it takes neither
/// deadline for the other's.
#[test]
fn terms_of_two_messages() {
    model("receipt.terms_of_two_messages", 69, || {
        fabric::<1, 1>(|fabric| {
            let mut sender = register(fabric, 0, "a");
            let own = sender.id();
            let id = sender.send(own, &Message::new(1).with_deadline_ns(u64::MAX)).unwrap();
            let onlooker =
                thread::spawn(move || fabric.receipt(id, &At(Cell::new(LATE))).map(|receipt| receipt.status));
            // It stays, and the next one takes its entry: of high priority, as there is room for one of each.
            sender.send_priority(own, &Message::new(2), Priority::High).unwrap();
            let seen = onlooker.join().unwrap();
            assert!(matches!(seen, Ok(DeliveryStatus::Pending) | Err(ReceiptError::Overwritten)), "{seen:?}");
            let mut kinds = [receive(&mut sender), receive(&mut sender)];
            kinds.sort_unstable();
            assert_eq!(kinds, [1, 2], "neither was settled");
            assert_adds_up(&fabric.total_stats());
        });
    });
}
