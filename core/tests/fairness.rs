//! `poll`, which passes on the traffic of others, serves all senders and both priorities.

mod common;

use common::{Manual, fabric, register_all};
use k2k_core::{Backlog, Config, Message, Priority};

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
    let mut successor = unsafe { fabric.take_over(address, &platform) }.unwrap();
    assert_eq!(successor.try_receive().map(|message| message.header.id()), Some(id));
}
