//! Litmus tests of the checker itself: it sees each seeded bug, and nothing wrong in the right code.
//!
//! loom as published passes the try-only ring below with any of its orderings weakened, after one execution: both
//! sides load a word that they store afterwards, and the search forgets the other side's load. See `loom.patch`.
#![cfg(k2k_loom)]

use k2k_core::sync::{AtomicU32, Ordering, fence};
use k2k_loom_tests::{model, must_fail};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use std::sync::Mutex;

use Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};

/// What loom says of two accesses to a cell of which neither happens before the other.
const RACE: &str = "Causality violation";

/// The orderings of a ring, right unless a test weakens one.
#[derive(Clone, Copy)]
struct Orders {
    /// Producer: the message is there.
    publish: Ordering,
    /// Consumer: is a message there?
    observe: Ordering,
    /// Consumer: the slot is free.
    free: Ordering,
    /// Producer: is the slot free?
    reuse: Ordering,
}

const RIGHT: Orders = Orders { publish: Release, observe: Acquire, free: Release, reuse: Acquire };

/// Each way of getting one ordering wrong.
fn weakened() -> [(&'static str, Orders); 4] {
    [
        ("publish", Orders { publish: Relaxed, ..RIGHT }),
        ("observe", Orders { observe: Relaxed, ..RIGHT }),
        ("free", Orders { free: Relaxed, ..RIGHT }),
        ("reuse", Orders { reuse: Relaxed, ..RIGHT }),
    ]
}

const CAP: u32 = 2;

/// Head and tail, one producer, one consumer. Each side loads its own index before it stores it.
struct Spsc {
    orders: Orders,
    head: AtomicU32,
    tail: AtomicU32,
    slots: [UnsafeCell<u64>; CAP as usize],
}

impl Spsc {
    fn new(orders: Orders) -> Self {
        Self {
            orders,
            head: AtomicU32::new(0),
            tail: AtomicU32::new(0),
            slots: core::array::from_fn(|_| UnsafeCell::new(0)),
        }
    }

    fn try_push(&self, value: u64) -> bool {
        let tail = self.tail.load(Relaxed);
        if tail.wrapping_sub(self.head.load(self.orders.reuse)) == CAP {
            return false;
        }
        self.slots[(tail % CAP) as usize].with_mut(|slot| {
            // SAFETY: loom fails the model unless the slot is the producer's alone.
            unsafe { *slot = value }
        });
        self.tail.store(tail.wrapping_add(1), self.orders.publish);
        true
    }

    fn try_pop(&self) -> Option<u64> {
        let head = self.head.load(Relaxed);
        if self.tail.load(self.orders.observe) == head {
            return None;
        }
        let value = self.slots[(head % CAP) as usize].with(|slot| {
            // SAFETY: loom fails the model unless the slot is the consumer's alone.
            unsafe { *slot }
        });
        self.head.store(head.wrapping_add(1), self.orders.free);
        Some(value)
    }
}

/// Four tries on each side of a ring of two, so that slots are used again; no retry, no yield.
fn spsc_try_only(orders: Orders) {
    let ring = Arc::new(Spsc::new(orders));
    let producer = {
        let ring = Arc::clone(&ring);
        thread::spawn(move || (1..=4).filter(|&value| ring.try_push(value)).collect::<Vec<_>>())
    };
    let mut got: Vec<u64> = (0..4).filter_map(|_| ring.try_pop()).collect();
    let sent = producer.join().unwrap();
    got.extend(core::iter::from_fn(|| ring.try_pop()));
    assert_eq!(got, sent, "messages lost, repeated or out of order");
}

#[test]
fn spsc_right() {
    model("checker.spsc", 373, || spsc_try_only(RIGHT));
}

#[test]
fn spsc_weakened_is_found() {
    for (name, orders) in weakened() {
        let why = must_fail(&format!("checker.spsc.{name}"), move || spsc_try_only(orders));
        assert!(why.contains(RACE), "{name}: {why}");
    }
}

/// A sequence number in each slot; producers claim a slot by compare-exchange of the tail.
struct Mpsc {
    orders: Orders,
    tail: AtomicU32,
    slots: [(AtomicU32, UnsafeCell<u64>); CAP as usize],
}

impl Mpsc {
    fn new(orders: Orders) -> Self {
        let mut seq = 0..;
        Self {
            orders,
            tail: AtomicU32::new(0),
            slots: core::array::from_fn(|_| (AtomicU32::new(seq.next().unwrap_or(0)), UnsafeCell::new(0))),
        }
    }

    /// Full, or lost the slot to the other producer: false.
    fn try_push(&self, value: u64) -> bool {
        let tail = self.tail.load(Relaxed);
        let (seq, slot) = &self.slots[(tail % CAP) as usize];
        if seq.load(self.orders.reuse) != tail || self.tail.compare_exchange(tail, tail + 1, Relaxed, Relaxed).is_err()
        {
            return false;
        }
        slot.with_mut(|slot| {
            // SAFETY: loom fails the model unless the slot is this producer's alone.
            unsafe { *slot = value }
        });
        seq.store(tail + 1, self.orders.publish);
        true
    }

    fn try_pop(&self, head: u32) -> Option<u64> {
        let (seq, slot) = &self.slots[(head % CAP) as usize];
        if seq.load(self.orders.observe) != head + 1 {
            return None;
        }
        let value = slot.with(|slot| {
            // SAFETY: loom fails the model unless the slot is the consumer's alone.
            unsafe { *slot }
        });
        seq.store(head + CAP, self.orders.free);
        Some(value)
    }
}

/// Two producers with two tries each and a consumer, over a ring of two that is full at some point.
fn mpsc_try_only(orders: Orders) {
    let ring = Arc::new(Mpsc::new(orders));
    let producers: Vec<_> = [10, 20]
        .map(|base| {
            let ring = Arc::clone(&ring);
            thread::spawn(move || (base..base + 2).filter(|&value| ring.try_push(value)).collect::<Vec<_>>())
        })
        .into();
    let mut got = Vec::new();
    for _ in 0..2 {
        got.extend(ring.try_pop(u32::try_from(got.len()).unwrap()));
    }
    let mut sent: Vec<u64> = producers.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    while let Some(value) = ring.try_pop(u32::try_from(got.len()).unwrap()) {
        got.push(value);
    }
    for base in [10, 20] {
        let of_one: Vec<_> = got.iter().filter(|&&value| value / 10 * 10 == base).collect();
        assert!(of_one.is_sorted(), "messages of one producer out of order: {of_one:?}");
    }
    got.sort_unstable();
    sent.sort_unstable();
    assert_eq!(got, sent, "messages lost or repeated");
}

#[test]
fn mpsc_right() {
    model("checker.mpsc", 4_334, || mpsc_try_only(RIGHT));
}

#[test]
fn mpsc_weakened_is_found() {
    for (name, orders) in weakened() {
        let why = must_fail(&format!("checker.mpsc.{name}"), move || mpsc_try_only(orders));
        assert!(why.contains(RACE), "{name}: {why}");
    }
}

/// Two threads announce themselves, then look for the other: with `order` fences at least one must see it. This is
/// the shape of parking: "I sleep, is there work?" against "here is work, do you sleep?".
fn store_buffering(order: Ordering) {
    let words = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
    let other = {
        let words = Arc::clone(&words);
        thread::spawn(move || {
            words[0].store(1, Relaxed);
            fence(order);
            words[1].load(Relaxed)
        })
    };
    words[1].store(1, Relaxed);
    fence(order);
    let seen = words[0].load(Relaxed);
    assert_ne!((seen, other.join().unwrap()), (0, 0), "both missed the other");
}

#[test]
fn fences_right() {
    model("checker.fences", 11, || store_buffering(SeqCst));
}

#[test]
fn fences_weakened_is_found() {
    let why = must_fail("checker.fences.acq_rel", || store_buffering(AcqRel));
    assert!(why.contains("both missed"), "{why}");
}

/// A model that is not run to its end proves nothing, whatever the environment asks for.
#[test]
fn every_execution_is_run() {
    let values = std::sync::Arc::new(Mutex::new(Vec::new()));
    let seen = std::sync::Arc::clone(&values);
    model("checker.exhaustive", 10, move || {
        let word = Arc::new(AtomicU32::new(0));
        let other = {
            let word = Arc::clone(&word);
            thread::spawn(move || {
                word.store(1, Relaxed);
                word.store(2, Relaxed);
            })
        };
        let value = word.load(Relaxed);
        seen.lock().unwrap().push(value);
        other.join().unwrap();
    });
    let values = values.lock().unwrap();
    assert!((0..=2).all(|value| values.contains(&value)), "{values:?}");
}
