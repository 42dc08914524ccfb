//! The kernel table: places change hands while others send to them, read their names and count on their counters.
#![cfg(k2k_loom)]

mod world;

use core::cell::Cell;
use k2k_core::fabric::Status;
use k2k_core::sync::spin_hint;
use k2k_core::{DeliveryStatus, KernelId, Message, Register, SendError};
use k2k_loom_tests::model;
use loom::thread;
use world::{At, EARLY, assert_adds_up, fabric, receive, register, send};

/// A name and an address that belong together, or none at all, while a place changes hands.
#[test]
fn names() {
    model("table.names", 15_400, || {
        fabric::<1, 1>(|fabric| {
            let old = register(fabric, 0, "old");
            let id = old.id();
            let owners = thread::spawn(move || {
                drop(old);
                register(fabric, 0, "new")
            });
            let name = fabric.name(id).map(|name| name.as_str().to_owned());
            assert!(matches!(name.as_deref(), None | Some("old")), "{id} is called {name:?}");
            for (id, name) in fabric.kernels() {
                assert_eq!(name.as_str(), ["old", "new"][id.generation() as usize - 1]);
            }
            let (id, status) = fabric.places().next().unwrap_or((id, Status::Free));
            let name = fabric.name(id).map(|name| name.as_str().to_owned());
            let right = ["old", "new"][id.generation() as usize - 1];
            assert!(name.as_deref().is_none_or(|name| name == right), "{id}, {status:?}, is called {name:?}");
            drop(owners.join().unwrap());
        });
    });
}

/// Two want the same place: one gets it.
#[test]
fn one_place_for_two() {
    model("table.one_place_for_two", 24, || {
        fabric::<1, 1>(|fabric| {
            let apply = move || fabric.register_at(0, &Register::new("k").unwrap(), At(Cell::new(EARLY))).ok();
            let other = thread::spawn(apply);
            let mine = apply();
            let other = other.join().unwrap();
            assert!(mine.is_some() != other.is_some());
        });
    });
}

/// Each owner of a place goes on where the one before stopped: no sequence is used twice, and counters add up.
#[test]
fn owners_in_turn() {
    model("table.owners_in_turn", 169, || {
        fabric::<1, 1>(|fabric| {
            let own = move || {
                let mut endpoint = register(fabric, 0, "k");
                let to = endpoint.id();
                let id = send(&mut endpoint, to, 5);
                assert_eq!(receive(&mut endpoint), 5);
                (id.source.generation(), id.sequence)
            };
            let other = thread::spawn(own);
            let mut both = [own(), other.join().unwrap()];
            both.sort_unstable();
            assert_eq!(both, [(1, 1), (2, 2)]);
            let stats = fabric.total_stats();
            assert_eq!((stats.sent, stats.received), (2, 2));
        });
    });
}

/// The place of a kernel that failed is cleared by someone else, and goes on from there.
#[test]
fn failed_place() {
    model("table.failed_place", 34, || {
        fabric::<1, 1>(|fabric| {
            let failing = thread::spawn(move || {
                let mut endpoint = register(fabric, 0, "k");
                let to = endpoint.id();
                send(&mut endpoint, to, 5);
                assert_eq!(receive(&mut endpoint), 5);
                endpoint.fail();
            });
            while fabric.clear_failed(KernelId::new(0, 1)).is_err() {
                spin_hint();
            }
            let mut endpoint = register(fabric, 0, "k");
            let to = endpoint.id();
            assert_eq!(send(&mut endpoint, to, 6).sequence, 2);
            assert_eq!(receive(&mut endpoint), 6);
            failing.join().unwrap();
        });
    });
}

/// A kernel leaves and another takes its place while mail for the first is sent: it is refused or ends in `NotFound`.
#[test]
fn mail_for_a_predecessor() {
    model("table.mail_for_a_predecessor", 153, || {
        fabric::<2, 1>(|fabric| {
            let mut sender = register(fabric, 0, "a");
            let old = register(fabric, 1, "b");
            let to = old.id();
            let owners = thread::spawn(move || {
                drop(old);
                let mut new = register(fabric, 1, "c");
                assert!(new.try_receive().is_none(), "mail for its predecessor");
                new
            });
            let sent = sender.send(to, &Message::new(1));
            let mut new = owners.join().unwrap();
            assert!(new.try_receive().is_none(), "mail for its predecessor");
            match sent {
                Ok(id) => assert_eq!(sender.receipt(id).unwrap().status, DeliveryStatus::NotFound),
                Err(why) => assert_eq!(why, SendError::NotFound { kernel: to }),
            }
            let stats = fabric.total_stats();
            assert_eq!(stats.received, 0);
            assert_adds_up(&stats);
        });
    });
}

/// A sender leaves, and another takes its place and its lane, while the receiver empties it.
#[test]
fn senders_in_turn() {
    model("table.senders_in_turn", 135, || {
        fabric::<2, 1>(|fabric| {
            let mut receiver = register(fabric, 1, "b");
            let to = receiver.id();
            let senders = thread::spawn(move || {
                for kind in 1..=2 {
                    send(&mut register(fabric, 0, "a"), to, kind);
                }
            });
            assert_eq!((receive(&mut receiver), receive(&mut receiver)), (1, 2));
            senders.join().unwrap();
            assert_adds_up(&fabric.total_stats());
        });
    });
}
