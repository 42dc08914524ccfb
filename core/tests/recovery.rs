//! What a successor makes of a death between two effects, seen from outside: a platform whose wake-up panics is a kernel
//! that dies there. `core/src/deaths` has a death at every step.

mod common;

use common::{fabric, register_all};
use core::cell::Cell;
use core::mem::ManuallyDrop;
use core::panic::AssertUnwindSafe;
use k2k_core::{Command, Config, Message, Platform, Registration, WakeFlag};
use std::panic::catch_unwind;

/// A clock that stands still, and a wake-up that panics if it is told to.
#[derive(Default)]
struct Mortal {
    dies: Cell<bool>,
    wakes: Cell<u32>,
}

impl Platform for Mortal {
    fn now_ns(&self) -> u64 {
        1_000
    }
    fn wake(&self, _: &WakeFlag) {
        self.wakes.set(self.wakes.get() + 1);
        assert!(!self.dies.get(), "dies here");
    }
}

#[test]
fn a_message_that_a_dead_forwarder_had_deposited_is_received_once() {
    let platform = Mortal::default();
    let fabric = fabric::<4, 4, 64>(&Config::default());
    let [a, forwarder, c] = ["a", "forwarder", "c"].map(|name| {
        ManuallyDrop::new(
            common::handle(&fabric).register(&Registration::new(name).unwrap().parking(), &platform).unwrap(),
        )
    });
    let [mut a, mut forwarder, mut c] = [a, forwarder, c];
    fabric.set_route(a.id(), c.id(), forwarder.id()).unwrap();
    // The next hop is full of the forwarder's own mail, so that the message is deferred.
    for kind in 0..4 {
        forwarder.send(c.id(), &Message::new(kind)).unwrap();
    }
    a.send(c.id(), &Message::new(9)).unwrap();
    assert!(forwarder.try_receive().is_none());
    while c.try_receive().is_some() {}
    // Then there is room, and the forwarder dies as it wakes the receiver.
    let asleep = c.fall_asleep(Command::Run).expect("nothing waits");
    platform.dies.set(true);
    assert!(catch_unwind(AssertUnwindSafe(|| forwarder.poll())).is_err());
    platform.dies.set(false);
    asleep.end();
    assert_eq!(c.try_receive().map(|message| message.header.kind), Some(9));
    // The sender overwrites all its receipts, and only then comes a successor.
    let me = a.id();
    for _ in 0..=16 {
        a.send(me, &Message::new(0)).unwrap();
        assert!(a.try_receive().is_some());
    }
    // SAFETY: nobody uses the endpoint of the dead any more.
    let mut successor = unsafe { common::handle(&fabric).take_over(forwarder.id(), &platform) }.unwrap();
    successor.poll();
    assert!(c.try_receive().is_none(), "received twice");
    let stats = fabric.total_stats();
    assert_eq!((stats.sent, stats.received, stats.forwarded), (22, 22, 1));
}

#[test]
fn a_successor_wakes_receivers() {
    let platform = Mortal::default();
    let fabric = fabric::<2, 4, 64>(&Config::default());
    let who = |name| Registration::new(name).unwrap().parking();
    let sender = ManuallyDrop::new(common::handle(&fabric).register(&who("a"), &platform).unwrap());
    let mut receiver = common::handle(&fabric).register(&who("b"), &platform).unwrap();
    let _asleep = receiver.fall_asleep(Command::Run).expect("nothing waits");
    // SAFETY: nobody uses the endpoint of the dead any more.
    let _successor = unsafe { common::handle(&fabric).take_over(sender.id(), &platform) }.unwrap();
    assert_eq!(platform.wakes.get(), 1);
}

#[test]
fn the_store_is_flushed_before_a_message_finds_it_full() {
    let platform = common::Manual::at(1_000);
    let fabric = fabric::<4, 4, 64>(&Config::default());
    let mut kernels = register_all(&fabric, &platform, 3);
    let [a, forwarder, c] = &mut kernels[..] else { unreachable!() };
    fabric.set_route(a.id(), c.id(), forwarder.id()).unwrap();
    for kind in 0..4 {
        forwarder.send(c.id(), &Message::new(kind)).unwrap();
    }
    for kind in 10..14 {
        a.send(c.id(), &Message::new(kind)).unwrap();
    }
    assert!(forwarder.try_receive().is_none());
    // The store is full; the next hop has room again; one more comes, and nothing fails.
    assert_eq!(core::iter::from_fn(|| c.try_receive()).count(), 4);
    a.send(c.id(), &Message::new(14)).unwrap();
    assert!(forwarder.try_receive().is_none());
    let _ = core::iter::from_fn(|| c.try_receive()).count();
    forwarder.poll();
    let _ = core::iter::from_fn(|| c.try_receive()).count();
    let stats = fabric.total_stats();
    assert_eq!((stats.sent, stats.received, stats.queue_full), (9, 9, 0));
}
