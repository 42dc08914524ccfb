//! The SPSC ring from outside: capacity, order, both ends handed over and recovered, and two threads.

use bytemuck::AnyBitPattern;
use core::fmt::Debug;
use k2k_core::Message;
use k2k_core::error::Full;
use k2k_core::ring::{InUse, Spsc};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;

/// Element number `count`: every byte depends on it.
fn value<T: AnyBitPattern>(count: u64) -> T {
    let byte = |i: usize| (count.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (i % 8 * 8)) as u8 ^ i as u8;
    bytemuck::pod_read_unaligned(&(0..size_of::<T>()).map(byte).collect::<Vec<_>>())
}

#[derive(Clone, Copy, Debug)]
enum Operation {
    Push,
    PushBatch(usize),
    ClaimCommit,
    ClaimDrop,
    Pop,
    PopBatch(usize),
    PeekRelease,
    PeekDrop,
    RetakeProducer,
    RetakeConsumer,
    CrashProducer,
    CrashInClaim,
    CrashConsumer,
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    use Operation::*;
    let operation = prop_oneof![
        4 => Just(Push),
        2 => (0..20_usize).prop_map(PushBatch),
        2 => Just(ClaimCommit),
        1 => Just(ClaimDrop),
        4 => Just(Pop),
        2 => (0..20_usize).prop_map(PopBatch),
        2 => Just(PeekRelease),
        1 => Just(PeekDrop),
        1 => Just(RetakeProducer),
        1 => Just(RetakeConsumer),
        1 => Just(CrashProducer),
        1 => Just(CrashInClaim),
        1 => Just(CrashConsumer),
    ];
    proptest::collection::vec(operation, 0..if cfg!(miri) { 20 } else { 200 })
}

/// A ring of up to 8 slots acknowledges each message as it is read, so the free slots are known exactly.
fn agrees_with_a_queue<T: AnyBitPattern + Send + PartialEq + Debug, const N: usize>(operations: &[Operation]) {
    let ring = Box::new(Spsc::<T, N>::new());
    let mut queue = VecDeque::new();
    let mut count = 0;
    let mut producer = Some(ring.producer().unwrap());
    let mut consumer = Some(ring.consumer().unwrap());
    for operation in operations {
        assert_eq!((ring.producer().err(), ring.consumer().err()), (Some(InUse), Some(InUse)));
        let (p, c) = (producer.as_mut().unwrap(), consumer.as_mut().unwrap());
        match *operation {
            Operation::Push => {
                let room = queue.len() < N;
                assert_eq!(p.push(&value(count)), if room { Ok(()) } else { Err(Full) });
                if room {
                    queue.push_back(count);
                    count += 1;
                }
            }
            Operation::PushBatch(wanted) => {
                let values: Vec<T> = (count..).take(wanted).map(value).collect();
                let pushed = p.push_batch(&values);
                assert_eq!(pushed, wanted.min(N - queue.len()));
                queue.extend(count..count + pushed as u64);
                count += pushed as u64;
            }
            Operation::ClaimCommit | Operation::ClaimDrop | Operation::CrashInClaim => match p.claim() {
                Ok(mut claim) => {
                    assert!(queue.len() < N);
                    claim.write(&value(count));
                    if matches!(operation, Operation::ClaimCommit) {
                        claim.commit();
                        queue.push_back(count);
                        count += 1;
                    } else if matches!(operation, Operation::CrashInClaim) {
                        // A claim holds nothing: what was written into it is gone with its producer.
                        core::mem::forget(producer.take());
                        // SAFETY: it was forgotten.
                        producer = Some(unsafe { ring.recover_producer() });
                    }
                }
                Err(Full) => assert_eq!(queue.len(), N),
            },
            Operation::Pop => assert_eq!(c.pop(), queue.pop_front().map(value)),
            Operation::PopBatch(wanted) => {
                let mut out = vec![value::<T>(u64::MAX); wanted];
                let taken = c.pop_batch(&mut out);
                assert_eq!(taken, wanted.min(queue.len()));
                let expected: Vec<T> = queue.drain(..taken).map(value).collect();
                assert_eq!(out[..taken], expected);
                assert!(out[taken..].iter().all(|left| *left == value(u64::MAX)));
            }
            Operation::PeekRelease | Operation::PeekDrop => match c.peek() {
                Some(peek) => {
                    assert_eq!(peek.read(), value(queue[0]));
                    if matches!(operation, Operation::PeekRelease) {
                        peek.release();
                        queue.pop_front();
                    }
                }
                None => assert!(queue.is_empty()),
            },
            Operation::RetakeProducer => {
                drop(producer.take());
                producer = Some(ring.producer().unwrap());
            }
            Operation::RetakeConsumer => {
                drop(consumer.take());
                consumer = Some(ring.consumer().unwrap());
            }
            Operation::CrashProducer => {
                core::mem::forget(producer.take());
                // SAFETY: it was forgotten.
                producer = Some(unsafe { ring.recover_producer() });
            }
            Operation::CrashConsumer => {
                core::mem::forget(consumer.take());
                // SAFETY: it was forgotten.
                consumer = Some(unsafe { ring.recover_consumer() });
            }
        }
        assert_eq!(consumer.as_ref().unwrap().is_empty(), queue.is_empty());
        assert_eq!(producer.as_mut().unwrap().free_slots(), N - queue.len());
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
                    agrees_with_a_queue::<$element, 1>(&operations);
                    agrees_with_a_queue::<$element, 2>(&operations);
                    agrees_with_a_queue::<$element, 8>(&operations);
                }
            )*
        }
    };
}

models! {
    words_go_through_like_a_queue: u64;
    single_lines_go_through_like_a_queue: [u64; 7];
    double_lines_go_through_like_a_queue: [u64; 15];
    odd_sizes_go_through_like_a_queue: [u8; 3];
    messages_go_through_like_a_queue: Message<64>;
}

#[test]
fn full_at_exactly_n_at_every_position() {
    fn check<const N: usize>() {
        let ring = Spsc::<u64, N>::new();
        let (mut producer, mut consumer) = (ring.producer().unwrap(), ring.consumer().unwrap());
        for start in 0..2 * N as u64 {
            for i in 0..N as u64 {
                assert_eq!(producer.push(&(start + i)), Ok(()));
            }
            assert_eq!(producer.push(&0), Err(Full));
            assert!(producer.claim().is_err());
            assert_eq!(producer.push_batch(&[1, 2, 3]), 0);
            // The next round begins one slot further on.
            assert_eq!(consumer.pop(), Some(start));
            while producer.push(&9).is_err() {
                // A consumer acknowledges in eighths, and when the ring runs dry.
                assert!(consumer.pop().is_some());
            }
            while consumer.pop().is_some() {}
        }
    }
    check::<1>();
    check::<2>();
    check::<8>();
    check::<64>();
}

/// A ring of 32 acknowledges what was read in fours; what a consumer has taken it knows more exactly than that.
#[test]
fn a_successor_goes_on_exactly_where_a_dead_consumer_stopped() {
    fn check<T: AnyBitPattern + Send + PartialEq + Debug>() {
        let ring = Spsc::<T, 32>::new();
        let (mut producer, mut consumer) = (ring.producer().unwrap(), ring.consumer().unwrap());
        let values: Vec<T> = (0..32).map(value).collect();
        assert_eq!(producer.push_batch(&values), 32);
        for (i, expected) in values.iter().enumerate() {
            assert_eq!(consumer.pop().as_ref(), Some(expected));
            if i % 3 == 2 {
                core::mem::forget(consumer);
                assert_eq!(ring.consumer().err(), Some(InUse));
                // SAFETY: it was forgotten.
                consumer = unsafe { ring.recover_consumer() };
            }
        }
        assert_eq!(consumer.pop(), None);
        assert_eq!(producer.free_slots(), 32);
    }
    check::<u64>();
    check::<[u64; 7]>();
    check::<Message<192>>();
}

#[test]
fn a_dropped_claim_sends_nothing_and_a_dropped_peek_takes_nothing() {
    let ring = Spsc::<u64, 2>::new();
    let (mut producer, mut consumer) = (ring.producer().unwrap(), ring.consumer().unwrap());
    producer.claim().unwrap().write(&1);
    assert!(consumer.is_empty());
    producer.push(&2).unwrap();
    assert_eq!(consumer.peek().unwrap().read(), 2);
    assert_eq!(consumer.pop(), Some(2));
}

#[test]
fn a_message_can_be_written_and_read_in_place() {
    let ring = Spsc::<[u64; 7], 2>::new();
    let (mut producer, mut consumer) = (ring.producer().unwrap(), ring.consumer().unwrap());
    let mut claim = producer.claim().unwrap();
    // SAFETY: the claim's own slot, and one thread.
    unsafe { claim.as_mut_ptr().write_volatile([5; 7]) };
    claim.commit();
    let peek = consumer.peek().unwrap();
    // SAFETY: as above.
    assert_eq!(unsafe { peek.as_ptr().read_volatile() }, [5; 7]);
    peek.release();
    assert!(consumer.is_empty());
}

/// Everything that one thread sends, another receives in order, in whatever forms the two choose.
fn stream<T: AnyBitPattern + Send + PartialEq + Debug, const N: usize>(total: u64) {
    let total = if cfg!(miri) { 100 } else { total };
    let ring = Arc::new(Spsc::<T, N>::new());
    let sender = {
        let ring = Arc::clone(&ring);
        thread::spawn(move || {
            let mut producer = ring.producer().unwrap();
            let mut sent = 0;
            while sent < total {
                let pushed = match sent % 3 {
                    0 => u64::from(producer.push(&value(sent)).is_ok()),
                    1 => {
                        let values: Vec<T> = (sent..total.min(sent + 5)).map(value).collect();
                        producer.push_batch(&values) as u64
                    }
                    _ => match producer.claim() {
                        Ok(mut claim) => {
                            claim.write(&value(sent));
                            claim.commit();
                            1
                        }
                        Err(Full) => 0,
                    },
                };
                sent += pushed;
                if pushed == 0 {
                    thread::yield_now();
                }
                if sent % 64 == 0 {
                    drop(producer);
                    producer = ring.producer().unwrap();
                }
            }
        })
    };
    let mut consumer = ring.consumer().unwrap();
    let mut received = 0;
    while received < total {
        let before = received;
        match received % 3 {
            0 => {
                if let Some(found) = consumer.pop() {
                    assert_eq!(found, value(received));
                    received += 1;
                }
            }
            1 => {
                let mut out = [value::<T>(0); 5];
                let taken = consumer.pop_batch(&mut out);
                for found in &out[..taken] {
                    assert_eq!(*found, value(received));
                    received += 1;
                }
            }
            _ => {
                if let Some(peek) = consumer.peek() {
                    assert_eq!(peek.read(), value(received));
                    peek.release();
                    received += 1;
                }
            }
        }
        if received == before {
            thread::yield_now();
        }
    }
    sender.join().unwrap();
    assert_eq!(consumer.pop(), None);
}

#[test]
fn two_threads_pass_words() {
    stream::<u64, 8>(20_000);
    stream::<u64, 64>(100_000);
}

#[test]
fn two_threads_pass_whole_lines() {
    stream::<[u64; 7], 1>(2_000);
    stream::<[u64; 7], 64>(50_000);
    stream::<[u64; 15], 2>(5_000);
}

#[test]
fn two_threads_pass_messages() {
    stream::<Message<64>, 8>(10_000);
    stream::<Message<192>, 64>(20_000);
}

#[test]
fn two_threads_pass_odd_sizes() {
    stream::<[u8; 3], 8>(20_000);
}
