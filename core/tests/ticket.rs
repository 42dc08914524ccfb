//! The ticket ring from outside: capacity, order, and what stalled and dead producers do to the others.

use k2k_core::ring::Ticket;
use k2k_core::ring::ticket::{Revoked, TicketClaim, TicketConsumer, TicketError, TicketPop};
use proptest::prelude::*;
use std::collections::VecDeque;

fn drain<const N: usize>(consumer: &mut TicketConsumer<'_, u64, N>) -> Vec<u64> {
    core::iter::from_fn(|| match consumer.pop() {
        TicketPop::Message(value) => Some(value),
        _ => None,
    })
    .collect()
}

#[test]
fn full_at_exactly_n_in_every_lap() {
    fn check<const N: usize>() {
        let ring = Ticket::<u64, N>::new();
        let (mut a, mut b) = (ring.producer(1), ring.producer(2));
        let mut consumer = ring.consumer().unwrap();
        for lap in 0..5 {
            for i in 0..N as u64 {
                assert_eq!(consumer.pending(), i);
                let producer = if i % 2 == 0 { &mut a } else { &mut b };
                assert_eq!(producer.push(&(lap * 100 + i)), Ok(()));
            }
            assert_eq!(a.push(&0), Err(TicketError::Full));
            assert!(b.claim().is_err());
            let all = drain(&mut consumer);
            assert_eq!(all, (0..N as u64).map(|i| lap * 100 + i).collect::<Vec<_>>());
            assert!(!consumer.ready());
        }
    }
    check::<1>();
    check::<2>();
    check::<8>();
    check::<64>();
}

#[test]
fn fifo_at_every_fill_level() {
    let ring = Ticket::<u64, 4>::new();
    let mut producer = ring.producer(0);
    let mut consumer = ring.consumer().unwrap();
    for level in 0..=4 {
        let mut next = 0;
        (0..level).for_each(|i| producer.push(&i).unwrap());
        for i in level..level + 50 {
            if level == 4 {
                assert_eq!(consumer.pop(), TicketPop::Message(next));
                next += 1;
                producer.push(&i).unwrap();
            } else {
                producer.push(&i).unwrap();
                assert_eq!(consumer.pop(), TicketPop::Message(next));
                next += 1;
            }
        }
        assert_eq!(drain(&mut consumer), (next..level + 50).collect::<Vec<_>>());
    }
}

#[test]
fn messages_of_whole_lines_arrive_whole() {
    let ring = Ticket::<[u64; 15], 2>::new();
    let mut consumer = ring.consumer().unwrap();
    for i in 0..9 {
        let value = core::array::from_fn(|word| i * 100 + word as u64);
        ring.producer(0).push(&value).unwrap();
        assert_eq!(consumer.pop(), TicketPop::Message(value));
    }
}

#[test]
fn a_second_consumer_is_refused_until_the_first_is_gone() {
    let ring = Ticket::<u64, 4>::new();
    let mut first = ring.consumer().unwrap();
    assert!(ring.consumer().is_err());
    (0..3).for_each(|i| ring.producer(0).push(&i).unwrap());
    assert_eq!(first.pop(), TicketPop::Message(0));
    drop(first);
    assert_eq!(drain(&mut ring.consumer().unwrap()), [1, 2]);
}

#[test]
fn a_stalled_producer_is_skipped_and_learns_it_when_it_returns() {
    let ring = Ticket::<u64, 4>::new();
    let (mut slow, mut fast) = (ring.producer(7), ring.producer(8));
    let mut consumer = ring.consumer().unwrap();
    let mut claim = slow.claim().unwrap();
    claim.write(&1);
    fast.push(&2).unwrap();
    fast.push(&3).unwrap();
    assert_eq!(consumer.pop(), TicketPop::Stalled { producer: 7, position: 0 });
    assert_eq!(consumer.pop(), TicketPop::Stalled { producer: 7, position: 0 });
    assert!(!consumer.revoke(1), "not the position at the head");
    assert!(consumer.revoke(0));
    assert!(!consumer.revoke(0), "over already");
    assert_eq!(drain(&mut consumer), [2, 3]);
    // The ring goes on with three slots for as long as it takes.
    for lap in 0..10 {
        (0..3).for_each(|i| fast.push(&(lap * 10 + i)).unwrap());
        assert_eq!(fast.push(&0), Err(TicketError::Full));
        assert_eq!(drain(&mut consumer), [lap * 10, lap * 10 + 1, lap * 10 + 2]);
    }
    claim.write(&99);
    assert_eq!(claim.commit(), Err(Revoked));
    assert_eq!(drain(&mut consumer), []);
    (0..4).for_each(|i| slow.push(&i).unwrap());
    assert_eq!(slow.push(&0), Err(TicketError::Full));
    assert_eq!(drain(&mut consumer), [0, 1, 2, 3]);
}

#[test]
fn an_owner_that_returns_after_its_slot_was_skipped_leaves_that_position_void() {
    let ring = Ticket::<u64, 2>::new();
    let (mut slow, mut fast) = (ring.producer(7), ring.producer(8));
    let mut consumer = ring.consumer().unwrap();
    let claim = slow.claim().unwrap();
    assert!(matches!(consumer.pop(), TicketPop::Stalled { .. }) && consumer.revoke(0));
    fast.push(&1).unwrap();
    // Position 2 is skipped; 3 has no room.
    assert_eq!(fast.push(&3), Err(TicketError::Full));
    drop(claim);
    assert_eq!(fast.push(&3), Err(TicketError::Full));
    assert_eq!(drain(&mut consumer), [1]);
    fast.push(&3).unwrap();
    fast.push(&4).unwrap();
    assert_eq!(drain(&mut consumer), [3, 4]);
}

#[test]
fn a_dropped_claim_holds_nobody_up() {
    let ring = Ticket::<u64, 2>::new();
    let (mut a, mut b) = (ring.producer(1), ring.producer(2));
    let mut consumer = ring.consumer().unwrap();
    for i in 0..10 {
        drop(a.claim().unwrap());
        b.push(&i).unwrap();
        assert!(consumer.ready());
        assert_eq!(consumer.pop(), TicketPop::Message(i));
    }
}

#[test]
fn a_dead_producer_costs_one_slot_until_it_is_reclaimed() {
    let ring = Ticket::<u64, 4>::new();
    let (mut dead, mut live) = (ring.producer(1), ring.producer(2));
    let mut consumer = ring.consumer().unwrap();
    core::mem::forget(dead.claim().unwrap());
    live.push(&5).unwrap();
    assert!(matches!(consumer.pop(), TicketPop::Stalled { producer: 1, .. }) && consumer.revoke(0));
    assert_eq!(drain(&mut consumer), [5]);
    for _ in 0..7 {
        (0..3).for_each(|i| live.push(&i).unwrap());
        assert!(live.push(&9).is_err());
        assert_eq!(drain(&mut consumer), [0, 1, 2]);
    }
    // SAFETY: the claim of producer 1 was forgotten. (Producer 2 has none.)
    assert_eq!(unsafe { (ring.reclaim(2), ring.reclaim(1), ring.reclaim(1)) }, (0, 1, 0));
    // The push that found the ring full has skipped the quarantined slot once more: one void position is to be passed.
    assert_eq!(drain(&mut consumer), []);
    (0..4).for_each(|i| live.push(&i).unwrap());
    assert_eq!(drain(&mut consumer), [0, 1, 2, 3]);

    // Known dead before the consumer ever lost patience: no revoke is needed.
    core::mem::forget(dead.claim().unwrap());
    live.push(&6).unwrap();
    // SAFETY: as above.
    assert_eq!(unsafe { ring.reclaim(1) }, 1);
    assert_eq!(drain(&mut consumer), [6]);
}

/// What a successor asks before it decides whether its predecessor's message was sent.
#[test]
fn a_message_counts_as_published_from_its_commit_on_and_never_while_its_producer_has_the_slot() {
    let ring = Ticket::<u64, 4>::new();
    let (mut dead, mut live) = (ring.producer(1), ring.producer(2));
    let mut consumer = ring.consumer().unwrap();
    let claim = dead.claim().unwrap();
    assert!(!ring.was_published(0, 1), "claimed");
    assert!(matches!(consumer.pop(), TicketPop::Stalled { .. }) && consumer.revoke(0));
    assert!(!ring.was_published(0, 1), "quarantined for the producer");
    core::mem::forget(claim);
    let mut claim = dead.claim().unwrap();
    assert!(!ring.was_published(1, 1));
    claim.write(&5);
    claim.commit().unwrap();
    assert!(ring.was_published(1, 1), "waits");
    assert_eq!(consumer.pop(), TicketPop::Message(5));
    assert!(ring.was_published(1, 1), "was taken");
    // The next owner of the slot is another one.
    (0..2).for_each(|i| live.push(&i).unwrap());
    let other = loop {
        let mut claim = live.claim().unwrap();
        if !ring.was_published(5, 2) {
            break claim;
        }
        claim.write(&0);
        claim.commit().unwrap();
        drain(&mut consumer);
    };
    assert!(ring.was_published(1, 1), "claimed by another producer");
    drop(other);
}

#[test]
fn with_every_slot_held_all_is_full_and_empty_and_nothing_spins() {
    let ring = Ticket::<u64, 2>::new();
    let mut consumer = ring.consumer().unwrap();
    for id in 0..2 {
        let mut producer = ring.producer(id);
        core::mem::forget(producer.claim().unwrap());
        let TicketPop::Stalled { producer: stalled, position } = consumer.pop() else { panic!("not stalled") };
        assert!(stalled == id && consumer.revoke(position));
    }
    for _ in 0..1000 {
        assert_eq!(ring.producer(3).push(&1), Err(TicketError::Full));
        assert_eq!(consumer.pop(), TicketPop::Empty);
    }
    // SAFETY: both claims were forgotten.
    assert_eq!(unsafe { ring.reclaim(0) + ring.reclaim(1) }, 2);
    assert_eq!(consumer.pop(), TicketPop::Empty);
    ring.producer(3).push(&1).unwrap();
    assert_eq!(consumer.pop(), TicketPop::Message(1));
}

#[test]
fn errors_say_what_happened() {
    assert_eq!(TicketError::Revoked.to_string(), "the consumer gave up waiting for this message, which was not sent");
    assert_eq!(TicketError::Full.to_string(), k2k_core::error::Full.to_string());
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Push(usize),
    Claim(usize),
    Commit(usize),
    Abort(usize),
    /// The producer dies with its claim, and the ring is told.
    Die(usize),
    Pop,
    Revoke,
    NewConsumer,
}

/// What a position between head and tail holds.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Entry {
    Claimed(usize),
    Published(u64),
    Void,
}

/// The ring as its page describes it: a queue of positions, and which slots are quarantined for whom.
struct Model<const N: usize> {
    head: usize,
    entries: VecDeque<Entry>,
    quarantined: [Option<usize>; N],
    claims: [Option<(usize, u64)>; 3],
}

impl<const N: usize> Model<N> {
    fn claim(&mut self, entry: Entry) -> Option<usize> {
        loop {
            let tail = self.head + self.entries.len();
            if self.entries.len() == N {
                return None;
            }
            if self.quarantined[tail % N].is_none() {
                self.entries.push_back(entry);
                return Some(tail);
            }
            self.entries.push_back(Entry::Void);
        }
    }

    /// Ends a claim; whether it was still in force.
    fn end(&mut self, producer: usize, position: usize, entry: Entry) -> bool {
        if self.quarantined[position % N] == Some(producer) {
            self.quarantined[position % N] = None;
            return false;
        }
        assert_eq!(self.entries[position - self.head], Entry::Claimed(producer));
        self.entries[position - self.head] = entry;
        true
    }

    fn pop(&mut self) -> TicketPop<u64> {
        loop {
            match self.entries.front() {
                None => return TicketPop::Empty,
                Some(Entry::Claimed(producer)) => {
                    return TicketPop::Stalled { producer: *producer as u16, position: self.head as u64 };
                }
                Some(Entry::Void) => self.pass(),
                Some(Entry::Published(value)) => {
                    let value = *value;
                    self.pass();
                    return TicketPop::Message(value);
                }
            }
        }
    }

    fn pass(&mut self) {
        self.entries.pop_front();
        self.head += 1;
    }
}

/// Runs the operations on a ring and on the model. Producers are made afresh for each claim, as ids may be shared.
fn check_against_model<const N: usize>(ops: &[Op]) {
    let ring = Ticket::<u64, N>::new();
    let mut producers: Vec<_> =
        ops.iter().map(|op| ring.producer(if let Op::Claim(p) = op { *p as u16 } else { 0 })).collect();
    let mut claims: [Option<TicketClaim<'_, '_, u64, N>>; 3] = [const { None }; 3];
    let mut consumer = ring.consumer().unwrap();
    let mut model = Model::<N> { head: 0, entries: VecDeque::new(), quarantined: [None; N], claims: [None; 3] };
    for ((op, producer), value) in ops.iter().zip(&mut producers).zip(0..) {
        match *op {
            Op::Push(p) => {
                let expected = model.claim(Entry::Published(value)).map(drop).ok_or(TicketError::Full);
                assert_eq!(ring.producer(p as u16).push(&value), expected);
            }
            Op::Claim(p) if claims[p].is_none() => {
                claims[p] = producer.claim().ok();
                model.claims[p] = model.claim(Entry::Claimed(p)).map(|position| (position, value));
                assert_eq!(claims[p].is_some(), model.claims[p].is_some());
                if let Some(claim) = &mut claims[p] {
                    claim.write(&value);
                }
            }
            Op::Commit(p) => {
                if let (Some(claim), Some((position, value))) = (claims[p].take(), model.claims[p].take()) {
                    let in_force = model.end(p, position, Entry::Published(value));
                    assert_eq!(claim.commit().is_ok(), in_force);
                }
            }
            Op::Abort(p) => {
                if let (Some(claim), Some((position, _))) = (claims[p].take(), model.claims[p].take()) {
                    model.end(p, position, Entry::Void);
                    drop(claim);
                }
            }
            Op::Die(p) => {
                let expected = model.claims[p].take().map(|(position, _)| model.end(p, position, Entry::Void));
                core::mem::forget(claims[p].take());
                // SAFETY: this was the only claim with that id.
                assert_eq!(unsafe { ring.reclaim(p as u16) }, usize::from(expected.is_some()));
            }
            Op::Pop => assert_eq!(consumer.pop(), model.pop()),
            Op::Revoke => {
                let (real, expected) = (consumer.pop(), model.pop());
                assert_eq!(real, expected);
                if let TicketPop::Stalled { producer, position } = real {
                    assert!(consumer.revoke(position));
                    model.quarantined[position as usize % N] = Some(usize::from(producer));
                    model.pass();
                }
            }
            Op::NewConsumer => {
                drop(consumer);
                consumer = ring.consumer().unwrap();
            }
            Op::Claim(_) => {}
        }
        assert_eq!(consumer.pending(), model.entries.len() as u64);
        assert_eq!(consumer.ready(), !model.entries.is_empty());
    }
}

fn any_op() -> impl Strategy<Value = Op> {
    let producer = 0..3_usize;
    prop_oneof![
        4 => producer.clone().prop_map(Op::Push),
        3 => producer.clone().prop_map(Op::Claim),
        2 => producer.clone().prop_map(Op::Commit),
        1 => producer.clone().prop_map(Op::Abort),
        1 => producer.prop_map(Op::Die),
        5 => Just(Op::Pop),
        2 => Just(Op::Revoke),
        1 => Just(Op::NewConsumer),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 8 } else { 512 }, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn does_what_the_model_does(ops in proptest::collection::vec(any_op(), 1..120)) {
        check_against_model::<1>(&ops);
        check_against_model::<2>(&ops);
        check_against_model::<4>(&ops);
        check_against_model::<16>(&ops);
    }
}

/// Four producers stall at random between claim and publish, and the consumer has little patience.
#[test]
fn nothing_is_lost_or_doubled_while_producers_stall_and_are_revoked() {
    const PRODUCERS: u64 = 4;
    const EACH: u64 = if cfg!(miri) { 50 } else { 20_000 };
    static RING: Ticket<[u64; 7], 8> = Ticket::new();
    let mut consumer = RING.consumer().unwrap();
    {
        // Not scoped threads: what ends a scope looks like a race to ThreadSanitizer.
        let producers: Vec<_> = (0..PRODUCERS)
            .map(|id| {
                std::thread::spawn(move || {
                    let mut producer = RING.producer(id as u16);
                    let (mut random, mut revoked) = (id * 7919 + 1, 0_u64);
                    let mut sent = 0;
                    while sent < EACH {
                        let Ok(mut claim) = producer.claim() else {
                            std::thread::yield_now();
                            continue;
                        };
                        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                        let stall = (random >> 33) % 64;
                        claim.write(&[u64::MAX; 7]);
                        match stall {
                            0 => std::thread::sleep(core::time::Duration::from_micros(20)),
                            1..4 => std::thread::yield_now(),
                            // Gives up by itself.
                            4 => continue,
                            _ => {}
                        }
                        claim.write(&[id * EACH + sent; 7]);
                        match claim.commit() {
                            Ok(()) => sent += 1,
                            Err(Revoked) => revoked += 1,
                        }
                    }
                    revoked
                })
            })
            .collect();
        let mut next = [0; PRODUCERS as usize];
        let (mut patience, mut revoked, mut waited) = (0, 0, std::time::Instant::now());
        while next.iter().sum::<u64>() < PRODUCERS * EACH {
            match consumer.pop() {
                TicketPop::Message(value) => {
                    assert_eq!(value, [value[0]; 7], "a torn message");
                    let (id, sequence) = ((value[0] / EACH) as usize, value[0] % EACH);
                    assert_eq!(sequence, next[id], "producer {id}");
                    next[id] += 1;
                    (patience, waited) = (0, std::time::Instant::now());
                }
                TicketPop::Stalled { position, .. } => {
                    patience += 1;
                    if patience > 20 {
                        revoked += u64::from(consumer.revoke(position));
                        patience = 0;
                    }
                }
                TicketPop::Empty => std::thread::yield_now(),
            }
            assert!(waited.elapsed().as_secs() < 60, "stuck at {next:?}");
        }
        // A producer that gives up a claim by itself does not learn that it had been revoked.
        assert!(producers.into_iter().map(|thread| thread.join().unwrap()).sum::<u64>() <= revoked);
        assert!(revoked > 0 || cfg!(miri), "the test did not test revoking");
    }
    // Everyone came back, so that every slot is in service.
    assert_eq!(consumer.pop(), TicketPop::Empty);
    (0..8).for_each(|_| RING.producer(0).push(&[0; 7]).unwrap());
}
