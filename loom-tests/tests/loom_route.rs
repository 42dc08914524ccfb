//! Forwarding: routes change and hops fill up while messages pass.
#![cfg(k2k_loom)]

mod world;

use k2k_core::Fabric;
use k2k_core::sync::spin_hint;
use k2k_loom_tests::model;
use loom::thread;
use world::{End, LATE, assert_adds_up, fabric, receive, register, send};

type Three = &'static Fabric<3, 1, 0>;

/// `a` sends to `c` by way of `b`.
fn chain(fabric: Three) -> [End<3, 1>; 3] {
    let ends = [register(fabric, 0, "a"), register(fabric, 1, "b"), register(fabric, 2, "c")];
    let [a, b, c] = &ends;
    fabric.set_route(a.id(), c.id(), b.id()).unwrap();
    ends
}

/// A route is replaced and removed while the message is forwarded: it arrives by the old way or the new one, once.
#[test]
fn a_route_changes() {
    model("route.a_route_changes", 19, || {
        fabric(|fabric: Three| {
            let [mut a, mut b, mut c] = chain(fabric);
            let (ids, to) = ([a.id(), b.id()], c.id());
            send(&mut a, to, 7);
            let forwarder = thread::spawn(move || {
                b.poll();
                b
            });
            // Back to where it came from, and then directly.
            fabric.set_route(ids[1], to, ids[0]).unwrap();
            fabric.remove_route(ids[0], to);
            let mut got = c.try_receive().map(|message| message.header.kind);
            let mut b = forwarder.join().unwrap();
            fabric.remove_route(ids[1], to);
            b.poll();
            a.poll();
            b.poll();
            if got.is_none() {
                got = c.try_receive().map(|message| message.header.kind);
            }
            assert_eq!(got, Some(7));
            assert!(c.try_receive().is_none(), "a second copy");
            assert_adds_up(&fabric.total_stats());
        });
    });
}

/// The sender's route changes between two messages: each goes by one way.
#[test]
fn the_first_hop_changes() {
    model("route.the_first_hop_changes", 15, || {
        fabric(|fabric: Three| {
            let [mut a, mut b, mut c] = chain(fabric);
            let (from, to) = (a.id(), c.id());
            let sender = thread::spawn(move || {
                send(&mut a, to, 1);
                a
            });
            fabric.remove_route(from, to);
            b.poll();
            let a = sender.join().unwrap();
            b.poll();
            assert_eq!(receive(&mut c), 1);
            assert!(c.try_receive().is_none());
            assert_adds_up(&fabric.total_stats());
            drop(a);
        });
    });
}

/// The next hop is full: the message is deferred, and goes on when there is room again.
#[test]
fn put_aside() {
    model("route.put_aside", 32, || {
        fabric(|fabric: Three| {
            let [mut a, mut b, mut c] = chain(fabric);
            let to = c.id();
            // The only slot from `b` to `c` is taken.
            send(&mut b, to, 1);
            send(&mut a, to, 2);
            let receiver = thread::spawn(move || {
                assert_eq!((receive(&mut c), receive(&mut c)), (1, 2));
                c
            });
            while b.stats().forwarded == 0 {
                b.poll();
                spin_hint();
            }
            let mut c = receiver.join().unwrap();
            b.poll();
            assert!(c.try_receive().is_none());
            let stats = fabric.total_stats();
            assert_eq!((stats.forwarded, stats.discarded), (1, 0), "a second copy, which its receipt gave away");
            assert_adds_up(&stats);
        });
    });
}

/// A forwarder leaves while a message comes in for it to pass on, and the sender gives that up in time.
#[test]
fn a_forwarder_leaves() {
    model("route.a_forwarder_leaves", 22, || {
        fabric(|fabric: Three| {
            let [mut a, b, mut c] = chain(fabric);
            let to = c.id();
            let forwarder = thread::spawn(move || drop(b));
            let sent = a.send(to, &k2k_core::Message::new(3));
            forwarder.join().unwrap();
            let got = c.try_receive();
            a.platform().0.set(LATE);
            assert_eq!(a.expire(), 0);
            let stats = fabric.total_stats();
            assert_eq!(stats.sent, u64::from(sent.is_ok()));
            assert_eq!(stats.received, u64::from(got.is_some()));
            assert_adds_up(&stats);
            // What was left behind is found by the next owner of the index, and counted no second time.
            let b = register(fabric, 1, "b2");
            assert_adds_up(&fabric.total_stats());
            drop(b);
        });
    });
}

/// A route is set while its destination leaves and another kernel takes the index: the newcomer inherits nothing. (In
/// the models, routes carry no mark that would hide it.)
#[test]
fn a_newcomer_inherits_no_route() {
    model("route.a_newcomer_inherits_no_route", 90, || {
        fabric(|fabric: Three| {
            let (a, b, old) = (register(fabric, 0, "a"), register(fabric, 1, "b"), register(fabric, 2, "old"));
            let (at, hop, to) = (a.id(), b.id(), old.id());
            let owners = thread::spawn(move || {
                drop(old);
                register(fabric, 2, "new")
            });
            let set = fabric.set_route(at, to, hop);
            let new = owners.join().unwrap();
            assert_eq!(fabric.route(at, new.id()), None, "{set:?}");
            assert_eq!(fabric.route(at, to), None, "{set:?}");
            drop((a, b, new));
        });
    });
}

/// Two replace one route at the same moment, while a message is sent over it: one of them succeeds, the route is the one
/// that this one asked for, and the message arrives once by whichever way it found.
#[test]
fn one_of_two_that_reroute_succeeds() {
    model("route.one_of_two_that_reroute_succeeds", 134, || {
        fabric(|fabric: Three| {
            let [mut a, mut b, mut c] = chain(fabric);
            let (at, hop, to) = (a.id(), b.id(), c.id());
            let sender = thread::spawn(move || {
                send(&mut a, to, 7);
                a
            });
            let other = thread::spawn(move || fabric.handle().reroute(at, to, Some(hop), Some(to)).unwrap());
            let direct = fabric.handle().reroute(at, to, Some(hop), None).unwrap();
            let explicit = other.join().unwrap();
            let a = sender.join().unwrap();
            assert!(direct ^ explicit, "{direct} {explicit}");
            assert_eq!(fabric.route(at, to), explicit.then_some(to));
            b.poll();
            assert_eq!(receive(&mut c), 7);
            assert!(c.try_receive().is_none(), "a second copy");
            assert_adds_up(&fabric.total_stats());
            drop((a, b, c));
        });
    });
}

/// As [`a_newcomer_inherits_no_route`], where the route is not set but replaced.
#[test]
fn a_newcomer_inherits_no_replaced_route() {
    model("route.a_newcomer_inherits_no_replaced_route", 145, || {
        fabric(|fabric: Three| {
            let (a, b, old) = (register(fabric, 0, "a"), register(fabric, 1, "b"), register(fabric, 2, "old"));
            let (at, hop, to) = (a.id(), b.id(), old.id());
            let owners = thread::spawn(move || {
                drop(old);
                register(fabric, 2, "new")
            });
            let replaced = fabric.handle().reroute(at, to, None, Some(hop));
            let new = owners.join().unwrap();
            assert_eq!(fabric.route(at, new.id()), None, "{replaced:?}");
            assert_eq!(fabric.route(at, to), None, "{replaced:?}");
            drop((a, b, new));
        });
    });
}
