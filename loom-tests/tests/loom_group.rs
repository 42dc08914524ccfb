//! An end of a ring that two threads hold together: no member writes a slot that is still read, or frees one that
//! another still reads, and the end changes hands.
#![cfg(k2k_loom)]

mod world;

use core::cell::Cell;
use k2k_core::ring::{Group, Spsc};
use k2k_core::sync::spin_hint;
use k2k_loom_tests::model;
use loom::sync::atomic::AtomicU32;
use loom::sync::atomic::Ordering::AcqRel;
use loom::thread::{self, JoinHandle};
use world::shared;

type Body = [u64; 7];

const fn body(n: u64) -> Body {
    [n; 7]
}

/// Meetings that a model may need.
const MEETINGS: usize = 16;

/// A place where the two members meet once. What they say there is none of loom's business: like the votes of a GPU's
/// warp it makes nothing else visible, and hiding it leaves loom the ring's own words to try orders of.
#[derive(Default)]
struct Meeting {
    said: [std::sync::atomic::AtomicU64; 2],
    met: AtomicU32,
}

type Ring = Spsc<Body, 4>;

struct Scene {
    ring: Ring,
    meetings: [Meeting; MEETINGS],
}

/// One of two members.
#[derive(Clone, Copy)]
struct Member<'m> {
    rank: usize,
    meetings: &'m Cell<&'static [Meeting]>,
}

impl Member<'_> {
    fn next(self) -> &'static Meeting {
        let (next, rest) = self.meetings.get().split_first().expect("MEETINGS are enough");
        self.meetings.set(rest);
        next
    }

    /// What both say.
    fn exchange(self, meeting: &Meeting, answer: u32) -> [u32; 2] {
        meeting.said[self.rank].store(u64::from(answer) + 1, std::sync::atomic::Ordering::Relaxed);
        loop {
            let said = [0, 1].map(|rank| meeting.said[rank].load(std::sync::atomic::Ordering::Relaxed));
            if !said.contains(&0) {
                return said.map(|answer| (answer - 1) as u32);
            }
            spin_hint();
        }
    }
}

// SAFETY: each operation waits for the other member; `sync` acquires what both have released.
unsafe impl Group for Member<'_> {
    fn rank(&self) -> u32 {
        self.rank as u32
    }

    fn size(&self) -> u32 {
        2
    }

    fn ballot(&self, yes: bool) -> u32 {
        let [first, second] = self.exchange(self.next(), u32::from(yes));
        first | second << 1
    }

    fn min(&self, value: u32) -> u32 {
        let [first, second] = self.exchange(self.next(), value);
        first.min(second)
    }

    fn sync(&self) {
        let meeting = self.next();
        meeting.met.fetch_add(1, AcqRel);
        self.exchange(meeting, 0);
        meeting.met.fetch_add(1, AcqRel);
    }
}

/// Runs `member` on two threads that are a group, beside what `before` has started. Member 0 also plays whoever is at
/// the other end, or has this end before or after the group: a third thread to wait for is too many for loom. Returns
/// what is left in the ring.
fn group(
    before: fn(&'static Ring) -> Option<JoinHandle<()>>,
    member: fn(&'static Ring, Member<'_>),
    check: fn(&[u64]),
) {
    shared(Scene { ring: Spsc::new(), meetings: Default::default() }, |scene| {
        let beside = before(&scene.ring);
        let run = move |rank| member(&scene.ring, Member { rank, meetings: &Cell::new(&scene.meetings[..]) });
        let second = thread::spawn(move || run(1));
        run(0);
        second.join().unwrap();
        beside.into_iter().for_each(|thread| thread.join().unwrap());
        check(&drain(&scene.ring));
    });
}

/// All that waits.
fn drain(ring: &'static Ring) -> Vec<u64> {
    let mut consumer = ring.consumer().unwrap();
    let bodies: Vec<_> = core::iter::from_fn(|| consumer.pop()).collect();
    bodies.iter().for_each(|found| assert_eq!(*found, body(found[0]), "a torn message"));
    bodies.iter().map(|body| body[0]).collect()
}

fn fill(ring: &'static Ring) -> Option<JoinHandle<()>> {
    assert_eq!(ring.producer().unwrap().push_batch(&[1, 2, 3, 4].map(body)), 4);
    None
}

/// Slots that have just been freed: a member writes to its own when it has seen that itself.
#[test]
fn push() {
    model("group.push", 179, || {
        group(
            fill,
            |ring, member| {
                // SAFETY: both members do the same.
                let mut producer = unsafe { ring.group_producer(member) }.unwrap();
                if member.rank == 0 {
                    assert_eq!(drain(ring), [1, 2, 3, 4]);
                }
                producer.push(&body(5 + member.rank as u64), 2);
            },
            |rest| assert!([5, 6].starts_with(rest), "{rest:?}"),
        );
    });
}

/// The consumer frees slots while the group takes the end: what the leader finds free is free for both.
#[test]
fn take_and_push() {
    model("group.take_and_push", 170, || {
        group(
            |ring| {
                fill(ring);
                let consumer = move || assert_eq!(ring.consumer().unwrap().pop_batch(&mut [body(0); 4]), 4);
                Some(thread::spawn(consumer))
            },
            |ring, member| {
                // SAFETY: both members do the same.
                let mut producer = unsafe { ring.group_producer(member) }.unwrap();
                producer.push(&body(5 + member.rank as u64), 2);
            },
            |_| {},
        );
    });
}

/// The producer writes to two slots again as soon as they are free, which is when both members have copied.
#[test]
fn pop() {
    model("group.pop", 10, || {
        group(
            fill,
            |ring, member| {
                // SAFETY: both members do the same.
                let mut consumer = unsafe { ring.group_consumer(member) }.unwrap();
                assert_eq!(consumer.pop(), (2, Some(body(1 + member.rank as u64))));
                if member.rank == 0 {
                    assert_eq!(ring.producer().unwrap().push_batch(&[5, 6].map(body)), 2);
                }
            },
            |rest| assert_eq!(rest, [3, 4, 5, 6]),
        );
    });
}

/// A group finds what the thread did that had the end before.
#[test]
fn from_a_thread() {
    model("group.from_a_thread", 28, || {
        group(
            |_| None,
            |ring, member| {
                if member.rank == 0 {
                    ring.producer().unwrap().push(&body(1)).unwrap();
                }
                // SAFETY: both members do the same.
                let mut producer = unsafe { ring.group_producer(member) }.unwrap();
                assert_eq!(producer.push(&body(2 + member.rank as u64), 2), 2);
            },
            |rest| assert_eq!(rest, [1, 2, 3]),
        );
    });
}

/// A thread finds what both members did.
#[test]
fn to_a_thread() {
    model("group.to_a_thread", 28, || {
        group(
            |_| None,
            |ring, member| {
                // SAFETY: both members do the same.
                let mut producer = unsafe { ring.group_producer(member) }.unwrap();
                assert_eq!(producer.push(&body(1 + member.rank as u64), 2), 2);
                drop(producer);
                if member.rank == 0 {
                    ring.producer().unwrap().push(&body(3)).unwrap();
                }
            },
            |rest| assert_eq!(rest, [1, 2, 3]),
        );
    });
}

/// The second of two members, the first of which died before it wrote.
#[derive(Clone, Copy)]
struct Orphan;

// SAFETY: the other member does nothing any more.
unsafe impl Group for Orphan {
    fn rank(&self) -> u32 {
        1
    }

    fn size(&self) -> u32 {
        2
    }

    fn ballot(&self, _: bool) -> u32 {
        0b11
    }

    fn min(&self, _: u32) -> u32 {
        0
    }

    fn sync(&self) {}
}

/// What a dead group stamped behind a gap is cleared by all before one of them publishes there.
#[test]
fn recover() {
    model("group.recover", 28, || {
        group(
            |ring| {
                // SAFETY: the only member that is alive.
                let mut producer = unsafe { ring.group_producer(Orphan) }.unwrap();
                assert_eq!(producer.push(&body(2), 2), 2);
                core::mem::forget(producer);
                None
            },
            |ring, member| {
                // SAFETY: both members do the same.
                let mut producer = unsafe { ring.group_producer(member) }.unwrap();
                assert_eq!(producer.push(&body(3 + member.rank as u64), 2), 2);
            },
            |rest| assert_eq!(rest, [3, 4]),
        );
    });
}
