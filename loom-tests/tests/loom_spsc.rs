//! The SPSC ring: a slot is never written and read at once, no message is lost, repeated or out of order, and the ends
//! change hands.
#![cfg(k2k_loom)]

mod world;

use k2k_core::ring::{Consumer, Producer, Spsc};
use k2k_core::sync::spin_hint;
use k2k_loom_tests::model;
use loom::thread;
use world::shared;

/// A slot is one line, so that the consumer writes it back.
type Body = [u64; 7];

const fn body(n: u64) -> Body {
    [n; 7]
}

fn ring<const N: usize>(f: impl FnOnce(&'static Spsc<Body, N>)) {
    shared(Spsc::new(), f);
}

fn push<const N: usize>(producer: &mut Producer<'_, Body, N>, n: u64) {
    while producer.push(&body(n)).is_err() {
        spin_hint();
    }
}

fn pop<const N: usize>(consumer: &mut Consumer<'_, Body, N>) -> u64 {
    loop {
        if let Some(value) = consumer.pop() {
            assert_eq!(value, body(value[0]), "a torn message");
            return value[0];
        }
        spin_hint();
    }
}

/// Three messages through two slots.
#[test]
fn wrap() {
    model("spsc.wrap", 194, || {
        ring::<2>(|ring| {
            let producer = thread::spawn(move || {
                let mut producer = ring.producer().unwrap();
                (1..=3).for_each(|n| push(&mut producer, n));
            });
            let mut consumer = ring.consumer().unwrap();
            (1..=3).for_each(|n| assert_eq!(pop(&mut consumer), n));
            assert!(consumer.is_empty());
            producer.join().unwrap();
        });
    });
}

/// Neither side waits: what was accepted comes out, in order, and nothing else.
#[test]
fn try_only() {
    model("spsc.try_only", 308, || {
        ring::<2>(|ring| {
            let producer = thread::spawn(move || {
                let mut producer = ring.producer().unwrap();
                (1..=4).filter(|&n| producer.push(&body(n)).is_ok()).collect::<Vec<_>>()
            });
            let mut consumer = ring.consumer().unwrap();
            let mut got: Vec<_> = (0..4).filter_map(|_| consumer.pop()).map(|value| value[0]).collect();
            let sent = producer.join().unwrap();
            got.extend(core::iter::from_fn(|| consumer.pop()).map(|value| value[0]));
            assert_eq!(got, sent, "lost, repeated or out of order");
        });
    });
}

/// Batches that do not fit at once.
#[test]
fn batch() {
    model("spsc.batch", 70, || {
        ring::<2>(|ring| {
            let producer = thread::spawn(move || {
                let mut producer = ring.producer().unwrap();
                let values = [1, 2, 3].map(body);
                let mut sent = 0;
                while sent < values.len() {
                    match producer.push_batch(&values[sent..]) {
                        0 => spin_hint(),
                        n => sent += n,
                    }
                }
            });
            let mut consumer = ring.consumer().unwrap();
            let mut got = Vec::new();
            while got.len() < 3 {
                let mut out = [body(0); 2];
                match consumer.pop_batch(&mut out) {
                    0 => spin_hint(),
                    n => got.extend_from_slice(&out[..n]),
                }
            }
            assert_eq!(got, [1, 2, 3].map(body));
            producer.join().unwrap();
        });
    });
}

/// Written and read in place; a claim and a look that come to nothing change nothing.
#[test]
fn in_place() {
    model("spsc.in_place", 56, || {
        ring::<1>(|ring| {
            let producer = thread::spawn(move || {
                let mut producer = ring.producer().unwrap();
                drop(producer.claim());
                for n in 1..=2 {
                    while producer.free_slots() == 0 {
                        spin_hint();
                    }
                    let mut claim = producer.claim().unwrap();
                    claim.write(&body(n));
                    claim.commit();
                }
            });
            let mut consumer = ring.consumer().unwrap();
            for n in 1..=2 {
                while consumer.is_empty() {
                    spin_hint();
                }
                assert!(consumer.peek().is_some());
                let message = consumer.peek().unwrap();
                assert_eq!(message.read(), body(n));
                message.release();
            }
            producer.join().unwrap();
        });
    });
}

/// Two producers in turn, who wait for the end to be free: the second one goes on where the first one stopped.
#[test]
fn producers_in_turn() {
    model("spsc.producers_in_turn", 6, || {
        ring::<2>(|ring| {
            let one = move |n| {
                let mut producer = loop {
                    match ring.producer() {
                        Ok(producer) => break producer,
                        Err(_) => spin_hint(),
                    }
                };
                producer.push(&body(n)).expect("room");
            };
            let other = thread::spawn(move || one(1));
            one(2);
            other.join().unwrap();
            let mut consumer = ring.consumer().unwrap();
            assert_eq!(pop(&mut consumer) + pop(&mut consumer), 3);
            assert!(consumer.is_empty());
        });
    });
}

/// A second producer takes a slot that the consumer has just read.
#[test]
fn a_new_producer_waits_for_the_consumer() {
    model("spsc.a_new_producer_waits_for_the_consumer", 26, || {
        ring::<1>(|ring| {
            push(&mut ring.producer().unwrap(), 1);
            let consumer = thread::spawn(move || {
                let mut consumer = ring.consumer().unwrap();
                assert_eq!((pop(&mut consumer), pop(&mut consumer)), (1, 2));
            });
            push(&mut ring.producer().unwrap(), 2);
            consumer.join().unwrap();
        });
    });
}

/// Two consumers in turn, who wait for the end to be free: no message is read twice.
#[test]
fn consumers_in_turn() {
    model("spsc.consumers_in_turn", 6, || {
        ring::<2>(|ring| {
            let mut producer = ring.producer().unwrap();
            push(&mut producer, 1);
            push(&mut producer, 2);
            let one = move || {
                let mut consumer = loop {
                    match ring.consumer() {
                        Ok(consumer) => break consumer,
                        Err(_) => spin_hint(),
                    }
                };
                pop(&mut consumer)
            };
            let other = thread::spawn(one);
            assert_eq!(one() + other.join().unwrap(), 3);
        });
    });
}
