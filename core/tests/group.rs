//! A ring whose ends are held by several threads each: what goes in comes out once, in order.

use k2k_core::Message;
use k2k_core::ring::{Group, InUse, Spsc};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::sync::{Arc, Barrier, Mutex};
use std::thread;

/// Threads of a host that go in step.
#[derive(Clone, Copy)]
struct Member<'c> {
    rank: u32,
    meeting: &'c Barrier,
    answers: &'c Mutex<Vec<u32>>,
}

impl Member<'_> {
    fn gather(&self, value: u32) -> Vec<u32> {
        self.answers.lock().unwrap()[self.rank as usize] = value;
        self.meeting.wait();
        let all = self.answers.lock().unwrap().clone();
        self.meeting.wait();
        all
    }
}

// SAFETY: each operation waits for all members, twice, and barriers make visible what was done before.
unsafe impl Group for Member<'_> {
    fn rank(&self) -> u32 {
        self.rank
    }

    fn size(&self) -> u32 {
        self.answers.lock().unwrap().len() as u32
    }

    fn ballot(&self, yes: bool) -> u32 {
        self.gather(u32::from(yes)).iter().rev().fold(0, |bits, answer| bits << 1 | answer)
    }

    fn min(&self, value: u32) -> u32 {
        self.gather(value).into_iter().min().unwrap_or(0)
    }

    fn sync(&self) {
        self.meeting.wait();
    }
}

/// Runs `member` on `size` threads that are a group.
fn together<R: Send>(size: usize, member: impl Fn(Member<'_>) -> R + Sync) -> Vec<R> {
    let (meeting, answers) = (Barrier::new(size), Mutex::new(vec![0; size]));
    thread::scope(|scope| {
        let spawn = |rank| {
            let own = Member { rank: rank as u32, meeting: &meeting, answers: &answers };
            let member = &member;
            scope.spawn(move || member(own))
        };
        let threads: Vec<_> = (0..size).map(spawn).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn a_group_takes_an_end_once_and_gives_it_back() {
    let ring = Spsc::<u64, 4>::new();
    for _ in 0..3 {
        // SAFETY: all members do the same.
        let results = together(3, |member| unsafe { ring.group_producer(member) }.map(|mut end| end.push(&1, 1)));
        assert!(results.iter().all(Result::is_ok));
    }
    let held = ring.producer().unwrap();
    // SAFETY: all members do the same.
    let results = together(3, |member| unsafe { ring.group_producer(member) }.map(drop));
    assert_eq!(results, [Err(InUse); 3]);
    drop(held);
    assert!(ring.producer().is_ok());
}

#[test]
fn a_group_goes_on_where_the_last_holder_of_the_end_stopped() {
    let ring = Spsc::<u64, 64>::new();
    let (mut producer, mut consumer) = (ring.producer().unwrap(), ring.consumer().unwrap());
    for value in 0..70 {
        producer.push(&value).unwrap();
        assert_eq!(consumer.pop(), Some(value));
    }
    drop((producer, consumer));
    for dies in [false, false, true] {
        let results = together(2, |member| {
            // SAFETY: all members do the same.
            let (mut producer, mut consumer) =
                unsafe { (ring.group_producer(member).unwrap(), ring.group_consumer(member).unwrap()) };
            assert_eq!(producer.push(&u64::from(member.rank()), 2), 2);
            member.sync();
            let taken = consumer.pop();
            if dies {
                core::mem::forget(consumer);
            }
            taken
        });
        assert_eq!(results, [(2, Some(0)), (2, Some(1))]);
    }
    // SAFETY: the members of the last consumer have ended.
    let mut successor = unsafe { ring.recover_consumer() };
    assert_eq!(successor.pop(), None, "the group has taken them");
    ring.producer().unwrap().push(&9).unwrap();
    assert_eq!(successor.pop(), Some(9));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Push(u32),
    Pop,
    One,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 2 } else { 48 }, ..ProptestConfig::default() })]
    /// A group at each end of a ring of eight, step by step beside a queue.
    #[test]
    fn like_a_queue(size in 1..6_usize, steps in proptest::collection::vec(
        prop_oneof![(0..9_u32).prop_map(Step::Push), Just(Step::Pop), Just(Step::One)], 0..40)
    ) {
        let ring = Spsc::<[u64; 7], 8>::new();
        let outcomes = together(size, |member| {
            // SAFETY: all members go through the same steps.
            let (mut producer, mut consumer) = unsafe { (ring.group_producer(member).unwrap(), ring.group_consumer(member).unwrap()) };
            let mut next = 0;
            let mut seen = Vec::new();
            for step in &steps {
                // What one member has done is known to all: here, where both ends are theirs, the numbers shall be
                // exact.
                member.sync();
                match step {
                    Step::Push(_) | Step::One => {
                        let count = if let Step::Push(count) = step { *count } else { 1 };
                        let pushed = producer.push(&[next + u64::from(member.rank()); 7], count);
                        next += u64::from(pushed);
                        seen.push((pushed, None));
                    }
                    Step::Pop => {
                        let (count, value) = consumer.pop();
                        seen.push((count, value));
                    }
                }
            }
            seen
        });
        let (mut model, mut next) = (VecDeque::new(), 0);
        for (i, step) in steps.iter().enumerate() {
            let count = match step {
                Step::Push(_) | Step::One => {
                    let wanted = if let Step::Push(count) = step { *count } else { 1 };
                    // The ring tells of freed slots one by one: it has eight.
                    let count = (wanted as usize).min(size).min(8 - model.len());
                    model.extend(next..next + count as u64);
                    next += count as u64;
                    count
                }
                Step::Pop => {
                    let count = model.len().min(size);
                    for outcome in outcomes.iter().take(count) {
                        prop_assert_eq!(outcome[i].1, model.pop_front().map(|number| [number; 7]));
                    }
                    count
                }
            };
            for outcome in &outcomes {
                prop_assert_eq!(outcome[i].0 as usize, count);
            }
        }
    }
}

#[test]
fn a_group_and_a_thread_share_a_ring_both_ways() {
    const COUNT: u64 = if cfg!(miri) { 100 } else { 20_000 };
    let there = Arc::new(Spsc::<Message<64>, 16>::new());
    let back = Arc::new(Spsc::<Message<64>, 16>::new());
    let (group_in, group_out) = (Arc::clone(&there), Arc::clone(&back));
    let group = thread::spawn(move || {
        together(3, |member| {
            // SAFETY: all members go through the same steps.
            let (mut from, mut to) =
                unsafe { (group_in.group_consumer(member).unwrap(), group_out.group_producer(member).unwrap()) };
            let mut moved = 0;
            while moved < COUNT {
                let (count, message) = from.pop();
                let message = message.unwrap_or_else(|| Message::new(0));
                // A full ring takes the rest later; the values of those above stay with their members, in order.
                let mut done = 0;
                while done < count {
                    let mine = member.rank() >= done && member.rank() < count;
                    let first = member.gather(if mine { message.header.kind } else { 0 });
                    let value = first.get((done + member.rank()) as usize).copied().unwrap_or(0);
                    done += to.push(&Message::from_value(value, &u64::from(value)), count - done);
                }
                moved += u64::from(count);
            }
        });
    });
    let (mut producer, mut consumer) = (there.producer().unwrap(), back.consumer().unwrap());
    let (mut sent, mut received) = (0, 0);
    while received < COUNT {
        if sent < COUNT && producer.push(&Message::new(sent as u32)).is_ok() {
            sent += 1;
        }
        if let Some(message) = consumer.pop() {
            assert_eq!((u64::from(message.header.kind), message.value::<u64>().unwrap()), (received, received));
            received += 1;
        } else {
            thread::yield_now();
        }
    }
    group.join().unwrap();
}
