//! The sharded form of the MPSC ring: a shard each, and doorbells that say where to look.
#![cfg(k2k_loom)]

mod world;

use k2k_core::ring::Sharded;
use k2k_core::ring::sharded::{ShardProducer, ShardedConsumer};
use k2k_core::sync::spin_hint;
use k2k_loom_tests::model;
use loom::thread;
use world::shared;

/// A slot is one line, so that the consumer writes it back.
type Body = [u64; 7];

const fn body(n: u64) -> Body {
    [n; 7]
}

fn queue<const N: usize>(f: impl FnOnce(&'static Sharded<Body, 2, N>)) {
    shared(Sharded::new(), f);
}

fn push<const N: usize>(producer: &mut ShardProducer<'_, Body, 2, N>, n: u64) {
    while producer.push(&body(n)).is_err() {
        spin_hint();
    }
}

fn pop<const N: usize>(consumer: &mut ShardedConsumer<'_, Body, 2, N>) -> (usize, u64) {
    loop {
        if let Some((shard, value)) = consumer.pop() {
            assert_eq!(value, body(value[0]), "a torn message");
            return (shard, value[0]);
        }
        spin_hint();
    }
}

/// Both shards at once, one of them over its end: each message once, in order per shard.
#[test]
fn two_producers() {
    model("shards.two_producers", 12_400, || {
        queue::<1>(|queue| {
            let producers = [(0, 1), (1, 2)].map(|(shard, count)| {
                thread::spawn(move || {
                    let mut producer = queue.producer(shard).unwrap();
                    (1..=count).for_each(|n| push(&mut producer, n));
                })
            });
            let mut consumer = queue.consumer().unwrap();
            let mut got = [0, 0];
            for _ in 0..3 {
                let (shard, n) = pop(&mut consumer);
                got[shard] += 1;
                assert_eq!(n, got[shard], "lost, repeated or out of order");
            }
            assert_eq!(got, [1, 2]);
            assert_eq!(consumer.pending(), 0);
            for thread in producers {
                thread.join().unwrap();
            }
            assert!(consumer.pop().is_none());
        });
    });
}

/// Whoever is told that messages wait finds them.
#[test]
fn what_is_pending_can_be_taken() {
    model("shards.what_is_pending_can_be_taken", 51, || {
        queue::<2>(|queue| {
            let producer = thread::spawn(move || {
                let mut producer = queue.producer(1).unwrap();
                push(&mut producer, 1);
                push(&mut producer, 2);
            });
            let mut consumer = queue.consumer().unwrap();
            for n in 1..=consumer.pending() {
                assert_eq!(consumer.pop(), Some((1, body(n))), "pending said that it is there");
            }
            producer.join().unwrap();
        });
    });
}

/// A batch rings once; what is taken before the doorbell rings is not taken again.
#[test]
fn batch() {
    model("shards.batch", 1_890, || {
        queue::<2>(|queue| {
            let producer = thread::spawn(move || {
                let mut producer = queue.producer(1).unwrap();
                let values = [1, 2, 3].map(body);
                let mut sent = 0;
                while sent < values.len() {
                    match producer.push_batch(&values[sent..]) {
                        0 => spin_hint(),
                        n => sent += n,
                    }
                }
            });
            let mut consumer = queue.consumer().unwrap();
            for n in 1..=3 {
                assert_eq!(pop(&mut consumer), (1, n));
                assert!(consumer.pending() <= 2);
            }
            producer.join().unwrap();
            assert!(consumer.pop().is_none() && consumer.pending() == 0);
        });
    });
}

/// A shard gets a new producer, which goes on where the first one stopped, while the consumer reads.
#[test]
fn a_shard_changes_hands() {
    model("shards.a_shard_changes_hands", 934, || {
        queue::<1>(|queue| {
            let producer = thread::spawn(move || {
                for n in 1..=2 {
                    push(&mut queue.producer(1).unwrap(), n);
                }
            });
            let mut consumer = queue.consumer().unwrap();
            assert_eq!((pop(&mut consumer), pop(&mut consumer)), ((1, 1), (1, 2)));
            producer.join().unwrap();
        });
    });
}

/// A producer dies between the stamp of a message and its doorbell: its successor rings for it, and goes on behind it.
#[test]
fn a_producer_dies_between_stamp_and_doorbell() {
    model("shards.a_producer_dies_between_stamp_and_doorbell", 342, || {
        queue::<2>(|queue| {
            let producers = thread::spawn(move || {
                queue.producer(1).unwrap().push_and_die(&body(1)).unwrap();
                let mut successor = queue.producer(1).unwrap();
                successor.push(&body(2)).unwrap();
            });
            let mut consumer = queue.consumer().unwrap();
            assert_eq!((pop(&mut consumer), pop(&mut consumer)), ((1, 1), (1, 2)));
            producers.join().unwrap();
            assert!(consumer.pop().is_none() && consumer.pending() == 0);
        });
    });
}

/// As above; the successor has nothing to send.
#[test]
fn the_message_of_a_dead_producer_is_found_when_it_has_a_successor() {
    model("shards.the_message_of_a_dead_producer", 6, || {
        queue::<1>(|queue| {
            queue.producer(1).unwrap().push_and_die(&body(1)).unwrap();
            let successor = thread::spawn(move || drop(queue.producer(1).unwrap()));
            let mut consumer = queue.consumer().unwrap();
            let early = consumer.pop();
            successor.join().unwrap();
            let late = consumer.pop();
            assert_eq!(early.or(late), Some((1, body(1))));
            assert!(consumer.pop().is_none());
        });
    });
}
