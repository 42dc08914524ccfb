//! `poll`, which passes on the traffic of others, serves all senders and both priorities.

mod common;

use common::{Manual, fabric, register_all};
use core::cell::Cell;
use k2k_core::{Backlog, Config, Message, Platform, Priority, Registration, WakeFlag};

/// Two senders that keep their rings to a forwarder full; returns what of each arrived at the far end.
fn relayed(high: [bool; 2], polls: usize) -> [usize; 2] {
    let platform = Manual::at(1_000);
    let fabric = fabric::<4, 512, 64>(&Config::default());
    let mut kernels = register_all(&fabric, &platform, 4);
    let [a, b, forwarder, c] = &mut kernels[..] else { unreachable!() };
    for sender in [&*a, &*b] {
        fabric.set_route(sender.id(), c.id(), forwarder.id()).unwrap();
    }
    let mut arrived = [0; 2];
    for _ in 0..polls {
        for (kind, (sender, high)) in [&mut *a, &mut *b].into_iter().zip(high).enumerate() {
            let priority = if high { Priority::High } else { Priority::Normal };
            while sender.send_priority(c.id(), &Message::new(kind as u32), priority).is_ok() {}
        }
        forwarder.poll();
        while let Some(message) = c.try_receive() {
            arrived[message.header.kind as usize] += 1;
        }
    }
    arrived
}

#[test]
fn poll_serves_two_busy_senders_alike() {
    let [a, b] = relayed([false, false], 2_000);
    assert!(a > 0 && a.abs_diff(b) <= 16, "{a} of the first, {b} of the second");
}

#[test]
fn poll_serves_both_priorities_alike() {
    for high in [[true, false], [false, true]] {
        let [a, b] = relayed(high, 2_000);
        assert!(a > 0 && a.abs_diff(b) <= 16, "{high:?}: {a} of the first, {b} of the second");
    }
}

#[test]
fn a_message_of_high_priority_for_a_kernel_that_only_polls_survives_the_kernel() {
    let platform = Manual::at(1_000);
    let fabric = fabric::<3, 8, 64>(&Config::default());
    let mut kernels = register_all(&fabric, &platform, 2);
    let mut b = kernels.pop().unwrap();
    let a = &mut kernels[0];
    let id = a.send_priority(b.id(), &Message::new(7), Priority::High).unwrap();
    assert_eq!((b.poll(), b.backlog(), b.pending_count()), (0, Backlog::Mail, 1));
    let address = b.id();
    core::mem::forget(b);
    // SAFETY: forgotten: nobody uses the endpoint any more.
    let mut successor = unsafe { common::handle(&fabric).take_over(address, &platform) }.unwrap();
    assert_eq!(successor.try_receive().map(|message| message.header.id()), Some(id));
}

/// Counts how often it is asked for the time.
#[derive(Default)]
struct Counting {
    looks: Cell<usize>,
}

impl Platform for &Counting {
    fn now_ns(&self) -> u64 {
        self.looks.set(self.looks.get() + 1);
        1_000
    }

    fn wake(&self, flag: &WakeFlag) {
        flag.wake_up();
    }
}

/// A forwarder reads the clock once for each deferred message that it looks at.
#[test]
fn a_poll_costs_no_more_the_more_messages_are_deferred() {
    const SLOTS: usize = 512;
    let platform = Counting::default();
    let fabric = fabric::<3, SLOTS, 64>(&Config::default());
    let [mut a, mut forwarder, mut c] =
        ["a", "forwarder", "c"].map(|name| fabric.register(&Registration::new(name).unwrap(), &platform).unwrap());
    fabric.set_route(a.id(), c.id(), forwarder.id()).unwrap();
    for _ in 0..SLOTS {
        forwarder.send(c.id(), &Message::new(u32::MAX)).unwrap();
    }
    for kind in 0..SLOTS as u32 {
        a.send(c.id(), &Message::new(kind)).unwrap();
    }
    while forwarder.backlog() == Backlog::Mail {
        forwarder.poll();
    }
    assert_eq!(forwarder.pending_count(), SLOTS as u64, "all are deferred");
    let before = platform.looks.get();
    forwarder.poll();
    let looks = platform.looks.get() - before;
    assert!(looks <= 80, "one poll looked at {looks} of {SLOTS} deferred messages");
    let mut expected = 0;
    // Two rounds of looks at all of them.
    for _ in 0..2 * (SLOTS / 64 + 1) {
        while let Some(message) = c.try_receive() {
            if message.header.kind != u32::MAX {
                assert_eq!(message.header.kind, expected);
                expected += 1;
            }
        }
        forwarder.poll();
    }
    assert_eq!(expected, SLOTS as u32, "in order, and soon");
}
