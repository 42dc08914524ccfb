//! What the models of fabrics have in common.
#![allow(dead_code, reason = "each test file uses a part")]

use core::cell::Cell;
use k2k_core::WakeFlag;
use k2k_core::{Config, Endpoint, Fabric, Fixed, Message, MessageId, Platform, Registration, SendError, Stats};
use k2k_core::{KernelId, sync::spin_hint};

/// When the deadline of every message is that does not name one.
pub(crate) const DEADLINE: u64 = 100;
/// Before it.
pub(crate) const EARLY: u64 = 1;
/// After it.
pub(crate) const LATE: u64 = 2 * k2k_core::CLOCK_MARGIN_NS;

/// A backend whose clock stands still until the model sets it.
#[derive(Clone, Debug)]
pub(crate) struct At(pub(crate) Cell<u64>);

impl Platform for At {
    fn now_ns(&self) -> u64 {
        self.0.get()
    }

    fn wake(&self, _: &WakeFlag) {}
}

pub(crate) type End<const KERNELS: usize, const SLOTS: usize> = Endpoint<'static, At, Fixed<KERNELS, SLOTS, 0>>;

/// Lends a value to all threads of a model, which have ended when `f` returns, and frees it then.
pub(crate) fn shared<T: 'static>(value: T, f: impl FnOnce(&'static T)) {
    let value = Box::into_raw(Box::new(value));
    // SAFETY: comes from a box; freed below, when nobody uses it any more.
    f(unsafe { &*value });
    // SAFETY: see above.
    drop(unsafe { Box::from_raw(value) });
}

pub(crate) const CONFIG: Config = Config {
    delivery_timeout_ns: DEADLINE - EARLY,
    max_clock_offset_ns: 1_000,
    hop_limit: 2,
    tracing: false,
    ..Config::DEFAULT
};

/// A fabric of messages without payload.
pub(crate) fn fabric<const KERNELS: usize, const SLOTS: usize>(f: impl FnOnce(&'static Fabric<KERNELS, SLOTS, 0>)) {
    shared(Fabric::new(), |fabric: &'static Fabric<KERNELS, SLOTS, 0>| {
        fabric.init(&CONFIG).expect("all zero");
        f(fabric);
    });
}

/// Registers at an index, when it is free.
pub(crate) fn register<const KERNELS: usize, const SLOTS: usize>(
    fabric: &'static Fabric<KERNELS, SLOTS, 0>,
    index: usize,
    name: &str,
) -> End<KERNELS, SLOTS> {
    let who = Registration::new(name).expect("short");
    loop {
        match fabric.register(&who.at(index), At(Cell::new(EARLY))) {
            Ok(endpoint) => return endpoint,
            Err(_) => spin_hint(),
        }
    }
}

/// Sends an empty message, when there is room.
pub(crate) fn send<const KERNELS: usize, const SLOTS: usize>(
    from: &mut End<KERNELS, SLOTS>,
    to: KernelId,
    kind: u32,
) -> MessageId {
    loop {
        match from.send(to, &Message::new(kind)) {
            Ok(id) => return id,
            Err(SendError::QueueFull { .. }) => spin_hint(),
            Err(e) => panic!("{e}"),
        }
    }
}

/// Receives, when there is something; returns the kind.
pub(crate) fn receive<const KERNELS: usize, const SLOTS: usize>(at: &mut End<KERNELS, SLOTS>) -> u32 {
    loop {
        match at.try_receive() {
            Some(message) => return message.header.kind,
            None => spin_hint(),
        }
    }
}

/// Every message that was sent has ended in one way.
pub(crate) fn assert_adds_up(stats: &Stats) {
    assert_eq!(stats.unaccounted(), 0, "sent is not received + failed: {stats:?}");
    assert_eq!(stats.corrupt, 0);
}
