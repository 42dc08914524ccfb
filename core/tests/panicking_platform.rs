//! A platform of the user's that panics at its n-th call, for each n; the endpoint is used on. Nothing of others' is
//! overtaken, handed over twice, or counted as received and not handed over.

mod common;
use core::cell::Cell;
use core::panic::AssertUnwindSafe;
use k2k_core::{Config, Message, Platform, Priority, Registration, WakeFlag};
use std::panic::{catch_unwind, resume_unwind};

#[derive(Default)]
struct Panics {
    now_ns: Cell<u64>,
    /// Calls until the panic; 0: none comes.
    left: Cell<u64>,
}

impl Panics {
    fn step(&self) {
        self.left.set(self.left.get().saturating_sub(1));
        if self.left.get() == 1 {
            self.left.set(0);
            // Not a panic: nobody prints anything.
            resume_unwind(Box::new(()));
        }
    }
}

impl Platform for Panics {
    fn now_ns(&self) -> u64 {
        self.step();
        self.now_ns.get()
    }

    fn wall_offset_ns(&self) -> u64 {
        self.step();
        5
    }

    fn wake(&self, flag: &WakeFlag) {
        self.step();
        flag.wake_up();
    }
}

/// Messages of `a` to `b` by way of `f`, past a full inbox. `false` if the platform was called less often than that.
fn try_at(call: u64, tracing: bool, priority: Priority) -> bool {
    let fabric = common::fabric::<4, 4, 64>(&Config { tracing, high_share: 4, ..Config::default() });
    let platform = Panics::default();
    platform.now_ns.set(1_000);
    let register = |name| fabric.register(&Registration::new(name).unwrap().parking(), &platform).unwrap();
    let [mut a, mut f, mut b] = ["a", "f", "b"].map(register);
    fabric.set_route(a.id(), b.id(), f.id()).unwrap();
    for _ in 0..4 {
        f.send_priority(b.id(), &Message::new(0), priority).unwrap();
    }
    let (mut handed, mut order, forwarder) = (0, Vec::new(), f.id());
    let mut receive = |message: Message<64>| {
        handed += 1;
        if message.header.source() != forwarder {
            order.push(message.header.sequence);
        }
    };
    platform.left.set(call + 1);
    for round in 0..12 {
        let _ = catch_unwind(AssertUnwindSafe(|| a.send_priority(b.id(), &Message::new(1), priority)));
        let _ = catch_unwind(AssertUnwindSafe(|| assert!(f.try_receive().is_none())));
        if round > 3
            && let Ok(Some(message)) = catch_unwind(AssertUnwindSafe(|| b.try_receive()))
        {
            receive(message);
        }
    }
    let came_to_it = platform.left.replace(0) == 0;
    for _ in 0..20 {
        f.poll();
        while let Some(message) = b.try_receive() {
            receive(message);
        }
    }
    platform.now_ns.set(60_000_000_000);
    for endpoint in [&mut a, &mut f, &mut b] {
        assert_eq!(endpoint.expire(), 0);
    }
    let stats = fabric.total_stats();
    let at = format!("call {call}, tracing {tracing}, {priority:?}: {order:?}, {stats:?}");
    assert!(order.is_sorted_by(|one, next| one < next), "overtaken: {at}");
    assert_eq!(handed, stats.received, "counted as received and not handed over: {at}");
    assert_eq!((stats.unaccounted(), fabric.pending()), (0, 0), "{at}");
    came_to_it
}

#[test]
fn a_panic_of_the_platform_neither_loses_what_is_delivered_nor_lets_messages_overtake() {
    for tracing in [false, true] {
        for priority in [Priority::Normal, Priority::High] {
            let calls = (1..).find(|&call| !try_at(call, tracing, priority)).unwrap();
            assert!(calls > 100, "{calls}");
        }
    }
}
