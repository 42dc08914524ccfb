use arbitrary::{Result, Unstructured};
use k2k_core::ring::ticket::{TicketError, TicketPop};
use k2k_core::ring::{Sharded, Spsc, Ticket};
use std::collections::VecDeque;

/// Runs sequences of operations on a ring and on a queue. The first byte chooses the ring and its capacity.
pub fn ring_ops(input: &[u8]) {
    let mut input = Unstructured::new(input);
    // Input that runs out ends the program.
    let _ = match input.arbitrary::<u8>().unwrap_or(0) % 8 {
        0 => spsc::<u64, 1>(&mut input),
        1 => spsc::<[u64; 7], 2>(&mut input),
        2 => spsc::<[u64; 15], 8>(&mut input),
        3 => spsc::<[u8; 3], 4>(&mut input),
        4 => sharded::<1>(&mut input),
        5 => sharded::<8>(&mut input),
        6 => ticket::<2>(&mut input),
        _ => ticket::<8>(&mut input),
    };
}

/// Message number `count`, recognisable in each of its bytes' neighbourhoods.
fn value<T: bytemuck::Pod>(count: u64) -> T {
    let mut value: T = bytemuck::Zeroable::zeroed();
    for (i, byte) in bytemuck::bytes_of_mut(&mut value).iter_mut().enumerate() {
        *byte = (count.wrapping_mul(31).wrapping_add(i as u64)) as u8;
    }
    value
}

fn spsc<T: bytemuck::Pod + Send + PartialEq + core::fmt::Debug, const N: usize>(
    input: &mut Unstructured<'_>,
) -> Result<()> {
    let ring = Box::new(Spsc::<T, N>::new());
    let mut model = VecDeque::new();
    let mut count = 0;
    let mut producer = ring.producer().ok();
    let mut consumer = ring.consumer().ok();
    while !input.is_empty() {
        let (producer_end, consumer_end) =
            (producer.as_mut().expect("always there"), consumer.as_mut().expect("always there"));
        match input.int_in_range(0..=11)? {
            0..=1 => {
                let pushed = producer_end.push(&value::<T>(count)).is_ok();
                assert_eq!(pushed, model.len() < N);
                if pushed {
                    model.push_back(count);
                    count += 1;
                }
            }
            2 => {
                let wanted = input.int_in_range(0..=2 * N)?;
                let values: Vec<T> = (0..wanted as u64).map(|i| value(count + i)).collect();
                let pushed = producer_end.push_batch(&values);
                assert_eq!(pushed, wanted.min(N - model.len()));
                model.extend(count..count + pushed as u64);
                count += pushed as u64;
            }
            3 => match producer_end.claim() {
                Ok(mut claim) => {
                    assert!(model.len() < N);
                    claim.write(&value(count));
                    if input.arbitrary()? {
                        claim.commit();
                        model.push_back(count);
                        count += 1;
                    }
                }
                Err(_) => assert_eq!(model.len(), N),
            },
            4..=5 => assert_eq!(consumer_end.pop(), model.pop_front().map(value)),
            6 => {
                let wanted = input.int_in_range(0..=2 * N)?;
                let mut out = vec![value::<T>(0); wanted];
                let taken = consumer_end.pop_batch(&mut out);
                assert_eq!(taken, wanted.min(model.len()));
                assert_eq!(out[..taken], model.drain(..taken).map(value).collect::<Vec<T>>());
            }
            7 => match consumer_end.peek() {
                Some(peek) => {
                    assert_eq!(Some(peek.read()), model.front().copied().map(value));
                    if input.arbitrary()? {
                        peek.release();
                        model.pop_front();
                    }
                }
                None => assert!(model.is_empty()),
            },
            8 => {
                assert!(ring.producer().is_err());
                drop(producer.take());
                producer = ring.producer().ok();
            }
            9 => {
                assert!(ring.consumer().is_err());
                drop(consumer.take());
                consumer = ring.consumer().ok();
            }
            10 => {
                core::mem::forget(producer.take());
                // SAFETY: it was forgotten.
                producer = Some(unsafe { ring.recover_producer() });
            }
            _ => {
                assert_eq!(consumer_end.is_empty(), model.is_empty());
                assert_eq!(producer_end.free_slots(), N - model.len());
            }
        }
    }
    Ok(())
}

fn sharded<const N: usize>(input: &mut Unstructured<'_>) -> Result<()> {
    const SHARDS: usize = 3;
    let ring = Box::new(Sharded::<u64, SHARDS, N>::new());
    let mut models: [VecDeque<u64>; SHARDS] = Default::default();
    let mut count = 0;
    let mut producers = [0, 1, 2].map(|shard| ring.producer(shard).ok());
    let mut consumer = ring.consumer().ok();
    while !input.is_empty() {
        let shard = input.choose_index(SHARDS)?;
        let (producer, model) = (producers[shard].as_mut().expect("always there"), &mut models[shard]);
        match input.int_in_range(0..=6)? {
            0..=1 => {
                let pushed = producer.push(&count).is_ok();
                assert_eq!(pushed, model.len() < N);
                if pushed {
                    model.push_back(count);
                    count += 1;
                }
            }
            2 => {
                let values: Vec<u64> = (count..).take(input.int_in_range(0..=2 * N)?).collect();
                let pushed = producer.push_batch(&values);
                assert_eq!(pushed, values.len().min(N - model.len()));
                model.extend(&values[..pushed]);
                count += pushed as u64;
            }
            3 => {
                drop(producers[shard].take());
                producers[shard] = ring.producer(shard).ok();
            }
            4 => {
                drop(consumer.take());
                consumer = ring.consumer().ok();
            }
            _ => {
                let consumer = consumer.as_mut().expect("always there");
                assert_eq!(consumer.pending(), models.iter().map(|model| model.len() as u64).sum::<u64>());
                match consumer.pop() {
                    Some((shard, value)) => assert_eq!(models[shard].pop_front(), Some(value)),
                    None => assert!(models.iter().all(VecDeque::is_empty)),
                }
            }
        }
    }
    Ok(())
}

/// A ticket ring is a queue; slots of revoked claims are out of service until they are reclaimed.
fn ticket<const N: usize>(input: &mut Unstructured<'_>) -> Result<()> {
    let ring = Box::new(Ticket::<u64, N>::new());
    // `None`: an aborted claim.
    let mut model = VecDeque::new();
    let mut count = 0;
    let mut quarantined = 0;
    let mut consumer = ring.consumer().ok();
    while !input.is_empty() {
        let mut producer = ring.producer(input.int_in_range(1..=3)?);
        match input.int_in_range(0..=6)? {
            0..=1 => match producer.push(&count) {
                Ok(()) => {
                    model.push_back(Some(count));
                    count += 1;
                }
                Err(error) => {
                    assert_eq!(error, TicketError::Full);
                    // Aborted, revoked and skipped positions count until the consumer passes them.
                    assert_eq!(consumer.as_ref().expect("always there").pending(), N as u64);
                }
            },
            2 => match producer.claim() {
                Ok(mut claim) => {
                    claim.write(&count);
                    if input.arbitrary()? {
                        assert_eq!(claim.commit(), Ok(()));
                        model.push_back(Some(count));
                        count += 1;
                    } else {
                        drop(claim);
                        model.push_back(None);
                    }
                }
                Err(_) => assert_eq!(consumer.as_ref().expect("always there").pending(), N as u64),
            },
            // A producer that dies between claim and publish, and a consumer that gives it up.
            3 => {
                let Ok(claim) = producer.claim() else { continue };
                core::mem::forget(claim);
                let consumer = consumer.as_mut().expect("always there");
                loop {
                    match consumer.pop() {
                        TicketPop::Message(value) => {
                            while model.front() == Some(&None) {
                                model.pop_front();
                            }
                            assert_eq!(model.pop_front(), Some(Some(value)));
                        }
                        TicketPop::Stalled { position, .. } => {
                            model.clear();
                            assert!(consumer.revoke(position));
                            quarantined += 1;
                            break;
                        }
                        TicketPop::Empty => panic!("the claim is in the ring"),
                    }
                }
            }
            4 => {
                for id in 1..=3 {
                    // SAFETY: every producer is forgotten or gone.
                    quarantined -= unsafe { ring.reclaim(id) };
                }
                assert_eq!(quarantined, 0);
            }
            5 => {
                drop(consumer.take());
                consumer = ring.consumer().ok();
            }
            _ => {
                while model.front() == Some(&None) {
                    model.pop_front();
                }
                let expected = model.pop_front().flatten().map_or(TicketPop::Empty, TicketPop::Message);
                assert_eq!(consumer.as_mut().expect("always there").pop(), expected);
            }
        }
    }
    Ok(())
}
