//! The sharded queue from outside: capacity per shard, order, fairness, hand-over, and many threads.

mod common;
use bytemuck::AnyBitPattern;
use core::fmt::Debug;
use k2k_core::Message;
use k2k_core::error::Full;
use k2k_core::ring::{InUse, Sharded};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

/// More shards than any ring of the model has: operations name a shard modulo its number.
const ANY_SHARD: core::ops::Range<usize> = 0..1000;

fn value<T: AnyBitPattern>(count: u64) -> T {
    let byte = |i: usize| (count.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (i % 8 * 8)) as u8 ^ i as u8;
    bytemuck::pod_read_unaligned(&(0..size_of::<T>()).map(byte).collect::<Vec<_>>())
}

#[derive(Clone, Copy, Debug)]
enum Operation {
    Push(usize),
    PushBatch(usize, usize),
    Pop,
    RetakeProducer(usize),
    RetakeConsumer,
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    use Operation::*;
    let operation = prop_oneof![
        4 => ANY_SHARD.prop_map(Push),
        2 => (ANY_SHARD, 0..20_usize).prop_map(|(shard, count)| PushBatch(shard, count)),
        6 => Just(Pop),
        1 => ANY_SHARD.prop_map(RetakeProducer),
        1 => Just(RetakeConsumer),
    ];
    proptest::collection::vec(operation, 0..if cfg!(miri) { 20 } else { 200 })
}

fn agrees_with_queues<T: AnyBitPattern + Send + PartialEq + Debug, const SHARDS: usize, const N: usize>(
    operations: &[Operation],
) {
    let ring = Box::new(Sharded::<T, SHARDS, N>::new());
    let mut queues: [VecDeque<u64>; SHARDS] = core::array::from_fn(|_| VecDeque::new());
    let mut count = 0;
    let mut producers: [_; SHARDS] = core::array::from_fn(|shard| Some(ring.producer(shard).unwrap()));
    let mut consumer = Some(ring.consumer().unwrap());
    for operation in operations {
        match *operation {
            Operation::Push(shard) => {
                let shard = shard % SHARDS;
                let room = queues[shard].len() < N;
                let pushed = producers[shard].as_mut().unwrap().push(&value(count));
                assert_eq!(pushed, if room { Ok(()) } else { Err(Full) });
                if room {
                    queues[shard].push_back(count);
                    count += 1;
                }
            }
            Operation::PushBatch(shard, wanted) => {
                let shard = shard % SHARDS;
                let values: Vec<T> = (count..).take(wanted).map(value).collect();
                let pushed = producers[shard].as_mut().unwrap().push_batch(&values);
                assert_eq!(pushed, wanted.min(N - queues[shard].len()));
                queues[shard].extend(count..count + pushed as u64);
                count += pushed as u64;
            }
            Operation::Pop => match consumer.as_mut().unwrap().pop() {
                Some((shard, found)) => assert_eq!(Some(found), queues[shard].pop_front().map(value)),
                None => assert!(queues.iter().all(VecDeque::is_empty)),
            },
            Operation::RetakeProducer(shard) => {
                let shard = shard % SHARDS;
                assert_eq!(ring.producer(shard).err(), Some(InUse));
                drop(producers[shard].take());
                producers[shard] = Some(ring.producer(shard).unwrap());
            }
            Operation::RetakeConsumer => {
                assert_eq!(ring.consumer().err(), Some(InUse));
                drop(consumer.take());
                consumer = Some(ring.consumer().unwrap());
            }
        }
        let waiting: u64 = queues.iter().map(|queue| queue.len() as u64).sum();
        assert_eq!(consumer.as_ref().unwrap().pending(), waiting);
    }
}

macro_rules! models {
    ($($name:ident: $element:ty;)*) => {
        proptest! {
            #![proptest_config(ProptestConfig {
                cases: if cfg!(miri) { 2 } else { 48 },
                failure_persistence: None,
                ..ProptestConfig::default()
            })]
            $(
                #[test]
                fn $name(operations in operations()) {
                    agrees_with_queues::<$element, 3, 1>(&operations);
                    agrees_with_queues::<$element, 3, 2>(&operations);
                    agrees_with_queues::<$element, 3, 8>(&operations);
                    // Doorbells of 16 shards at most have a line each, of more they share rows of 32.
                    agrees_with_queues::<$element, 20, 4>(&operations);
                    agrees_with_queues::<$element, 130, 2>(&operations);
                }
            )*
        }
    };
}

models! {
    words_go_through_like_a_queue_per_shard: u64;
    single_lines_go_through_like_a_queue_per_shard: [u64; 7];
    double_lines_go_through_like_a_queue_per_shard: [u64; 15];
    odd_sizes_go_through_like_a_queue_per_shard: [u8; 3];
    messages_go_through_like_a_queue_per_shard: Message<64>;
}

#[test]
fn each_shard_holds_exactly_n_whatever_the_others_hold() {
    let queue = Sharded::<u64, 3, 4>::new();
    let mut producers: [_; 3] = core::array::from_fn(|shard| queue.producer(shard).unwrap());
    for (shard, producer) in producers.iter_mut().enumerate() {
        for i in 0..4 {
            assert_eq!(producer.push(&i), Ok(()), "shard {shard}");
        }
        assert_eq!(producer.push(&4), Err(Full), "shard {shard}");
        assert_eq!(producer.push_batch(&[4, 5]), 0);
    }
    assert_eq!(queue.consumer().unwrap().pending(), 12);
}

#[test]
fn a_second_consumer_and_a_second_producer_of_a_shard_are_refused() {
    let queue = Sharded::<u64, 2, 4>::new();
    let (first, consumer) = (queue.producer(0).unwrap(), queue.consumer().unwrap());
    assert_eq!((queue.producer(0).err(), queue.consumer().err()), (Some(InUse), Some(InUse)));
    assert!(queue.producer(1).is_ok());
    drop((first, consumer));
    assert!(queue.producer(0).is_ok() && queue.consumer().is_ok());
}

#[test]
#[should_panic(expected = "shard 2 does not exist: the queue has 2 shards")]
fn a_shard_beyond_the_last_is_a_mistake_that_says_so() {
    let _ = Sharded::<u64, 2, 4>::new().producer(2);
}

#[test]
fn a_busy_shard_does_not_keep_the_others_waiting_for_more_than_64() {
    let queue = Box::new(Sharded::<u64, 3, 256>::new());
    let mut producers: [_; 3] = core::array::from_fn(|shard| queue.producer(shard).unwrap());
    let mut consumer = queue.consumer().unwrap();
    for i in 0..256 {
        producers[0].push(&i).unwrap();
    }
    producers[1].push(&0).unwrap();
    producers[2].push(&0).unwrap();
    let shards: Vec<usize> = core::iter::from_fn(|| {
        let (shard, _) = consumer.pop()?;
        if shard == 0 {
            // It never runs dry.
            let _ = producers[0].push(&0);
        }
        Some(shard)
    })
    .take(400)
    .collect();
    assert_eq!(shards.iter().position(|&shard| shard == 1), Some(64));
    assert_eq!(shards.iter().position(|&shard| shard == 2), Some(65));
}

#[test]
fn a_doorbell_goes_on_past_65_536_messages() {
    let queue = Box::new(Sharded::<u64, 2, 8>::new());
    let (mut producer, mut consumer) = (queue.producer(1).unwrap(), queue.consumer().unwrap());
    let rounds = if cfg!(miri) { 50 } else { (1 << 16) + 50 };
    for i in 0..rounds {
        producer.push(&i).unwrap();
        assert_eq!(consumer.pending(), 1);
        assert_eq!(consumer.pop(), Some((1, i)));
        assert_eq!(consumer.pop(), None);
    }
    // A doorbell of 16 bits would have gone round once: a shard is not mistaken for one that has not rung.
    assert_eq!(producer.push_batch(&[7; 9]), 8);
    assert_eq!(consumer.pending(), 8);
}

fn fan_in<T: AnyBitPattern + Send + PartialEq + Debug, const N: usize>(each: u64) {
    const SHARDS: usize = 3;
    let each = if cfg!(miri) { 30 } else { each };
    let queue = Arc::new(Sharded::<T, SHARDS, N>::new());
    let senders: Vec<_> = (0..SHARDS)
        .map(|shard| {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                let mut producer = queue.producer(shard).unwrap();
                let mut sent = 0;
                while sent < each {
                    let values: Vec<T> = (sent..each.min(sent + 1 + sent % 4))
                        .map(|i| value(i * SHARDS as u64 + shard as u64))
                        .collect();
                    let pushed = if values.len() == 1 {
                        usize::from(producer.push(&values[0]).is_ok())
                    } else {
                        producer.push_batch(&values)
                    };
                    sent += pushed as u64;
                    if pushed == 0 {
                        thread::yield_now();
                    }
                    if sent % 100 == 0 {
                        drop(producer);
                        producer = queue.producer(shard).unwrap();
                    }
                }
            })
        })
        .collect();
    let mut consumer = queue.consumer().unwrap();
    let mut received = [0; SHARDS];
    let guard = Instant::now() + common::GUARD;
    while received.iter().sum::<u64>() < each * SHARDS as u64 {
        let Some((shard, found)) = consumer.pop() else {
            assert!(Instant::now() < guard, "received {received:?} of {each} each");
            thread::yield_now();
            continue;
        };
        assert_eq!(found, value(received[shard] * SHARDS as u64 + shard as u64));
        received[shard] += 1;
        assert!(consumer.pending() <= (SHARDS * N) as u64);
    }
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    assert_eq!((consumer.pop(), received), (None, [each; SHARDS]));
}

#[test]
fn many_threads_send_words_to_one() {
    fan_in::<u64, 1>(2_000);
    fan_in::<u64, 64>(30_000);
}

#[test]
fn many_threads_send_whole_lines_to_one() {
    fan_in::<[u64; 7], 8>(10_000);
    fan_in::<[u64; 15], 64>(10_000);
}

#[test]
fn many_threads_send_messages_to_one() {
    fan_in::<Message<64>, 8>(10_000);
}
