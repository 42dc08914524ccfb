//! The kernel table: indices change hands while others send to them, read their names and count on their counters.
#![cfg(k2k_loom)]

mod world;

use core::cell::Cell;
use k2k_core::fabric::Status;
use k2k_core::sync::spin_hint;
use k2k_core::{
    Command, DeliveryStatus, KernelId, Message, Platform, RegisterError, Registration, SendError, WakeFlag,
};
use k2k_loom_tests::model;
use loom::thread;
use world::{At, EARLY, assert_adds_up, fabric, receive, register, send};

/// A name and an address that belong together, or none at all, while an index changes hands.
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
            let (id, status) = fabric.statuses().next().unwrap_or((id, Status::Free));
            let name = fabric.name(id).map(|name| name.as_str().to_owned());
            let right = ["old", "new"][id.generation() as usize - 1];
            assert!(name.as_deref().is_none_or(|name| name == right), "{id}, {status:?}, is called {name:?}");
            drop(owners.join().unwrap());
        });
    });
}

/// A supervisor restricts a kernel that registers and leaves: the name stays visible with the mark, the kernel leaves all
/// the same, and the next owner of the index does not inherit the mark.
#[test]
fn restricted_while_it_leaves() {
    model("table.restricted_while_it_leaves", 1_230, || {
        fabric::<1, 1>(|fabric| {
            let id = KernelId::new(0, 1);
            let owners = thread::spawn(move || {
                drop(register(fabric, 0, "old"));
                register(fabric, 0, "new")
            });
            let _ = fabric.deny(id, id);
            for (id, name) in fabric.kernels() {
                assert_eq!(name.as_str(), ["old", "new"][id.generation() as usize - 1]);
            }
            let new = owners.join().unwrap();
            assert!(fabric.is_allowed(new.id(), new.id()) && fabric.deny(id, id).is_err());
        });
    });
}

/// Two want the same index: one gets it, and the table says which.
#[test]
fn one_index_for_two() {
    model("table.one_index_for_two", 72, || {
        fabric::<1, 1>(|fabric| {
            let apply = move |owner| {
                let who = Registration::new("k").unwrap();
                fabric.register(&who.at(0), Of(owner, At(Cell::new(EARLY)))).ok()
            };
            let other = thread::spawn(move || apply(1));
            let mine = apply(2);
            let other = other.join().unwrap();
            assert!(mine.is_some() != other.is_some());
            let winner = mine.or(other).unwrap();
            assert_eq!(
                fabric.owner(winner.id()),
                Some(winner.platform().owner()),
                "the loser has taken the owner away"
            );
        });
    });
}

/// Two, at indices of their own, ask for one name at the same moment: one gets it. Who is refused has given its index
/// back, and hears who is in the way.
fn one_name_for_two(name: &str, floor: u64, leaves: bool) {
    model(name, floor, move || {
        fabric::<2, 1>(|fabric| {
            let apply = move |index| {
                let endpoint = fabric.register(&Registration::new("k").unwrap().at(index), At(Cell::new(EARLY)));
                // It leaves before the other has been refused, perhaps.
                endpoint.map(|endpoint| if leaves { Err(endpoint.unregister()) } else { Ok(endpoint) })
            };
            let other = thread::spawn(move || apply(1));
            let both = [apply(0), other.join().unwrap()];
            let named = fabric.kernels().count();
            let winners = both.iter().filter(|one| one.is_ok()).count();
            if leaves {
                assert!(winners >= 1 && named == 0, "{winners} of two");
            } else {
                assert_eq!((winners, named), (1, 1), "{both:?}");
                assert_eq!(fabric.owners().count() + fabric.statuses().count(), 1 + 1, "the loser's index is free");
            }
            for (i, one) in both.iter().enumerate() {
                if let Err(why) = one {
                    assert!(matches!(why, RegisterError::NameInUse { by } if by.index() == 1 - i), "{why}");
                }
            }
        });
    });
}

#[test]
fn one_name() {
    one_name_for_two("table.one_name", 1_532, false);
}

#[test]
fn one_name_for_two_that_leave() {
    one_name_for_two("table.one_name_for_two_that_leave", 6_098, true);
}

/// Each owner of an index goes on where the one before stopped: no sequence is used twice, and counters add up.
#[test]
fn owners_in_turn() {
    model("table.owners_in_turn", 1_050, || {
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

/// The index of a kernel that failed is cleared by someone else, and goes on from there.
#[test]
fn failed_index() {
    model("table.failed_index", 94, || {
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

/// A kernel leaves and another takes its index while mail for the first is sent: it is refused or ends in `NotFound`.
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

/// A sender leaves, and another takes its index and its shard, while the receiver empties it.
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

/// Who registers, as a supervisor sees it.
struct Of(u64, At);

impl Platform for Of {
    fn now_ns(&self) -> u64 {
        self.1.now_ns()
    }

    fn wake(&self, wake_flag: &WakeFlag) {
        self.1.wake(wake_flag);
    }

    fn owner(&self) -> u64 {
        1 << 63 | self.0
    }
}

/// Two supervisors find a dead owner, and a third kernel wants its index: one seizes it, and each new owner has a new
/// generation.
#[test]
fn a_dead_owner() {
    model("table.a_dead_owner", 55, || {
        fabric::<1, 1>(|fabric| {
            let who = || Registration::new("k").unwrap();
            let of = |owner| Of(owner, At(Cell::new(EARLY)));
            let dead = fabric.register(&who().at(0), of(1)).unwrap();
            let owner = dead.platform().owner();
            core::mem::forget(dead);
            let reap = move |as_owner| {
                // SAFETY: nobody uses it any more.
                let seized = unsafe { fabric.seize(0, owner, of(as_owner)) }.ok();
                seized.map(|endpoint| endpoint.id())
            };
            let other = thread::spawn(move || reap(2));
            let third = fabric.register(&who().at(0), of(3)).ok().map(|endpoint| endpoint.id());
            let mine = reap(4);
            let other = other.join().unwrap();
            assert!(mine.is_some() != other.is_some(), "one of {mine:?} and {other:?}");
            assert_eq!(mine.or(other), Some(KernelId::new(0, 2)));
            assert!(third.is_none_or(|id| id == KernelId::new(0, 3)), "{third:?}");
            assert_eq!((fabric.owners().count(), fabric.statuses().count()), (0, 0));
            let next = fabric.register(&who().at(0), of(5)).unwrap();
            assert_eq!(next.id().generation(), if third.is_some() { 4 } else { 3 });
        });
    });
}

/// A kernel leaves, and the next one at its kernel index dies as soon as it has claimed it: whoever seizes the index finds what
/// the first one left, and frees it.
#[test]
fn seized_from_one_that_only_claimed() {
    model("table.seized_from_one_that_only_claimed", 18_000, || {
        fabric::<1, 1>(|fabric| {
            let first = thread::spawn(move || {
                let mut endpoint = register(fabric, 0, "first");
                let to = endpoint.id();
                send(&mut endpoint, to, 5);
                assert_eq!(receive(&mut endpoint), 5);
            });
            let dead = 1 << 63 | 1;
            while !fabric.handle().claim_and_die(0, dead) {
                spin_hint();
            }
            // SAFETY: nobody uses the endpoint of a kernel that only claimed.
            let seized = unsafe { fabric.seize(0, dead, Of(2, At(Cell::new(EARLY)))) }.unwrap();
            drop(seized);
            first.join().unwrap();
            assert_eq!(fabric.owners().count(), 0);
            let stats = fabric.total_stats();
            assert_eq!((stats.sent, stats.received), (1, 1));
        });
    });
}

/// A kernel whose registration is visible can be commanded.
#[test]
fn commanded_as_soon_as_it_is_registered() {
    model("table.commanded_as_soon_as_it_is_registered", 70, || {
        fabric::<1, 1>(|fabric| {
            let id = KernelId::new(0, 1);
            let owner = thread::spawn(move || register(fabric, 0, "k"));
            let is_there = fabric.is_registered(id);
            let told = fabric.command(id, Command::Pause, &At(Cell::new(EARLY)));
            assert!(told.is_ok() || !is_there, "registered, and yet: {told:?}");
            drop(owner.join().unwrap());
        });
    });
}

/// An owner that was taken for dead leaves while its index is seized: it is either gone, or finds out, and does not let
/// anybody into its successor's index.
#[test]
fn an_owner_that_was_not_dead() {
    model("table.an_owner_that_was_not_dead", 20, || {
        fabric::<1, 1>(|fabric| {
            let who = || Registration::new("k").unwrap();
            let of = |owner| Of(owner, At(Cell::new(EARLY)));
            let zombie = fabric.register(&who().at(0), of(1)).unwrap();
            let owner = zombie.platform().owner();
            let leaving = thread::spawn(move || drop(zombie));
            // SAFETY: there is no mail, so that the two cannot be in one ring at once.
            let seized = unsafe { fabric.seize(0, owner, of(2)) };
            leaving.join().unwrap();
            match seized {
                Ok(successor) => {
                    assert_eq!(successor.id(), KernelId::new(0, 2));
                    assert!(!successor.is_evicted());
                    assert_eq!(fabric.owner(successor.id()), Some(successor.platform().owner()));
                    assert!(fabric.register(&who().at(0), of(3)).is_err(), "it is the successor's");
                }
                Err(_) => assert_eq!(fabric.owners().count(), 0),
            }
            assert!(fabric.register(&who().at(0), of(3)).is_ok());
        });
    });
}
