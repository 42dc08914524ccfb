//! The ticket ring: producers that stall, return, give up or die, at every moment that matters.
#![cfg(k2k_loom)]

use k2k_core::ring::Ticket;
use k2k_core::ring::ticket::{Revoked, TicketClaim, TicketConsumer, TicketError, TicketPop};
use k2k_core::sync::spin_hint;
use k2k_loom_tests::model;
use loom::thread;

/// A slot is one line, so that the consumer writes it back.
type Body = [u64; 7];

const fn body(n: u64) -> Body {
    [n; 7]
}

/// A ring that outlives the execution: a claim can then move to another thread.
fn ring<const N: usize>() -> &'static Ticket<Body, N> {
    Box::leak(Box::new(Ticket::new()))
}

fn claim<const N: usize>(ring: &'static Ticket<Body, N>, id: u16) -> TicketClaim<'static, 'static, Body, N> {
    Box::leak(Box::new(ring.producer(id))).claim().expect("room")
}

fn push<const N: usize>(ring: &'static Ticket<Body, N>, id: u16, n: u64) {
    let mut producer = ring.producer(id);
    while let Err(why) = producer.push(&body(n)) {
        assert_eq!(why, TicketError::Full);
        spin_hint();
    }
}

fn take<const N: usize>(consumer: &mut TicketConsumer<'_, Body, N>) -> u64 {
    loop {
        match consumer.pop() {
            TicketPop::Message(value) => {
                assert_eq!(value, body(value[0]));
                return value[0];
            }
            _ => spin_hint(),
        }
    }
}

/// Pushes up to once, in two tries; how many were sent.
fn tries<const N: usize>(ring: &'static Ticket<Body, N>, id: u16, n: u64) -> usize {
    let mut producer = ring.producer(id);
    usize::from((0..2).any(|_| producer.push(&body(n)).is_ok()))
}

/// Pops twice, and counts the messages.
fn messages<const N: usize>(consumer: &mut TicketConsumer<'_, Body, N>) -> usize {
    (0..2).filter(|_| matches!(consumer.pop(), TicketPop::Message(_))).count()
}

/// Revokes whatever stalls until there is a message.
fn take_impatiently<const N: usize>(consumer: &mut TicketConsumer<'_, Body, N>) -> u64 {
    loop {
        match consumer.pop() {
            TicketPop::Message(value) => return value[0],
            TicketPop::Stalled { position, .. } => drop(consumer.revoke(position)),
            TicketPop::Empty => spin_hint(),
        }
    }
}

/// Claims at the same time: two positions, each published once.
#[test]
fn two_producers() {
    model("ticket.two_producers", 15_816, || {
        let ring = ring::<2>();
        let threads = [1, 2].map(|id| thread::spawn(move || push(ring, id, u64::from(id))));
        let mut consumer = ring.consumer().unwrap();
        let sum = take(&mut consumer) + take(&mut consumer);
        assert_eq!((sum, consumer.pop()), (3, TicketPop::Empty));
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

/// One slot used twice: the second body must not be written while the first is read.
#[test]
fn wrap() {
    model("ticket.wrap", 1_168, || {
        let ring = ring::<1>();
        let producer = thread::spawn(move || (1..=2).for_each(|n| push(ring, 1, n)));
        let mut consumer = ring.consumer().unwrap();
        assert_eq!((take(&mut consumer), take(&mut consumer)), (1, 2));
        producer.join().unwrap();
    });
}

/// One producer's messages keep their order over two laps.
#[test]
fn order_over_two_laps() {
    model("ticket.order_over_two_laps", 3_388, || {
        let ring = ring::<2>();
        let producer = thread::spawn(move || (1..=3).for_each(|n| push(ring, 1, n)));
        let mut consumer = ring.consumer().unwrap();
        (1..=3).for_each(|n| assert_eq!(take(&mut consumer), n));
        producer.join().unwrap();
    });
}

/// Publish against revoke: exactly one of them wins, and both know who.
#[test]
fn commit_or_revoke() {
    model("ticket.commit_or_revoke", 25, || {
        let ring = ring::<1>();
        let mut claimed = claim(ring, 1);
        let owner = thread::spawn(move || {
            claimed.write(&body(5));
            claimed.commit()
        });
        let mut consumer = ring.consumer().unwrap();
        let sent = match consumer.pop() {
            TicketPop::Message(value) => value == body(5),
            TicketPop::Stalled { producer: 1, position: 0 } => {
                !consumer.revoke(0) && consumer.pop() == TicketPop::Message(body(5))
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(owner.join().unwrap(), if sent { Ok(()) } else { Err(Revoked) });
        // Either way the slot is in service, and nothing is left in it.
        assert_eq!(consumer.pop(), TicketPop::Empty);
        push(ring, 2, 6);
        assert_eq!(take(&mut consumer), 6);
    });
}

/// A revoked producer comes back while another skips its slot, or claims it at once: it must be done with the body.
#[test]
fn owner_returns() {
    model("ticket.owner_returns", 446, || {
        let ring = ring::<1>();
        let mut consumer = ring.consumer().unwrap();
        let mut claimed = claim(ring, 1);
        assert!(consumer.revoke(0));
        let owner = thread::spawn(move || {
            claimed.write(&body(5));
            assert_eq!(claimed.commit(), Err(Revoked));
        });
        let other = thread::spawn(move || tries(ring, 2, 6));
        let mut taken = messages(&mut consumer);
        owner.join().unwrap();
        let sent = other.join().unwrap();
        taken += messages(&mut consumer);
        assert_eq!(taken, sent);
        // The slot is in service again.
        push(ring, 1, 7);
        assert_eq!(take(&mut consumer), 7);
    });
}

/// A claim is dropped: its slot goes on, by way of the consumer, to the next producer.
#[test]
fn abort() {
    model("ticket.abort", 578, || {
        let ring = ring::<1>();
        let mut claimed = claim(ring, 1);
        let owner = thread::spawn(move || {
            claimed.write(&body(5));
            drop(claimed);
        });
        let other = thread::spawn(move || tries(ring, 2, 6));
        let mut consumer = ring.consumer().unwrap();
        let mut taken = messages(&mut consumer);
        owner.join().unwrap();
        let sent = other.join().unwrap();
        taken += messages(&mut consumer);
        assert_eq!(taken, sent);
    });
}

/// The same, with a consumer that revokes: abort and revoke meet.
#[test]
fn abort_or_revoke() {
    model("ticket.abort_or_revoke", 25, || {
        let ring = ring::<2>();
        let claimed = claim(ring, 1);
        push(ring, 2, 6);
        let owner = thread::spawn(move || drop(claimed));
        let mut consumer = ring.consumer().unwrap();
        assert_eq!(take_impatiently(&mut consumer), 6);
        owner.join().unwrap();
        // Both slots are in service.
        push(ring, 2, 7);
        push(ring, 2, 8);
        assert_eq!((take(&mut consumer), take(&mut consumer)), (7, 8));
    });
}

/// What was pushed before a pop began is not hidden from it by claims that the consumer has not seen yet.
#[test]
fn nothing_hides_behind_a_claim() {
    model("ticket.nothing_hides_behind_a_claim", 1_600, || {
        let ring = ring::<4>();
        let staller = thread::spawn(move || {
            for id in [1, 2] {
                core::mem::forget(ring.producer(id).claim().expect("room"));
            }
        });
        let producer = thread::spawn(move || push(ring, 3, 9));
        let mut consumer = ring.consumer().unwrap();
        producer.join().unwrap();
        loop {
            match consumer.pop() {
                TicketPop::Message(value) => break assert_eq!(value, body(9)),
                TicketPop::Stalled { position, .. } => drop(consumer.revoke(position)),
                TicketPop::Empty => panic!("a message that was pushed before is hidden"),
            }
        }
        staller.join().unwrap();
    });
}

/// A dead producer's slot is used again only after all that it wrote.
#[test]
fn reclaim() {
    model("ticket.reclaim", 519, || {
        let ring = ring::<1>();
        let mut consumer = ring.consumer().unwrap();
        let mut claimed = claim(ring, 1);
        assert!(consumer.revoke(0));
        let dead = thread::spawn(move || {
            claimed.write(&body(5));
            core::mem::forget(claimed);
        });
        let other = thread::spawn(move || tries(ring, 2, 6));
        dead.join().unwrap();
        // SAFETY: its thread has ended.
        assert_eq!(unsafe { ring.reclaim(1) }, 1);
        let mut taken = messages(&mut consumer);
        let sent = other.join().unwrap();
        taken += messages(&mut consumer);
        assert_eq!(taken, sent);
    });
}

/// Someone reclaims a dead producer's claim while the consumer revokes it: the slot comes back once.
#[test]
fn reclaim_or_revoke() {
    model("ticket.reclaim_or_revoke", 23, || {
        let ring = ring::<1>();
        core::mem::forget(claim(ring, 1));
        let mut consumer = ring.consumer().unwrap();
        // SAFETY: the claim was forgotten.
        let undertaker = thread::spawn(move || assert_eq!(unsafe { ring.reclaim(1) }, 1));
        if let TicketPop::Stalled { position, .. } = consumer.pop() {
            consumer.revoke(position);
        }
        undertaker.join().unwrap();
        assert_eq!(consumer.pop(), TicketPop::Empty);
        push(ring, 2, 7);
        assert_eq!(take(&mut consumer), 7);
    });
}

/// The end changes hands: a new consumer continues exactly where the old one stopped.
#[test]
fn successor() {
    model("ticket.successor", 7, || {
        let ring = ring::<2>();
        push(ring, 1, 1);
        push(ring, 1, 2);
        let one = move || {
            loop {
                if let Ok(mut consumer) = ring.consumer() {
                    break take(&mut consumer);
                }
                spin_hint();
            }
        };
        let other = thread::spawn(one);
        assert_eq!(one() + other.join().unwrap(), 3);
    });
}

/// A producer dies before or after it publishes. Its successor says whether it had, while the consumer takes the message
/// or gives up on it: what the successor says is what the consumer gets.
#[test]
fn a_successor_knows_what_a_dead_producer_has_published() {
    model("ticket.a_successor_knows", 100, || {
        for publishes in [false, true] {
            let ring = ring::<1>();
            let mut claim = claim(ring, 1);
            if publishes {
                claim.write(&body(1));
                claim.commit().expect("not revoked");
            } else {
                core::mem::forget(claim);
            }
            let consumer = thread::spawn(move || {
                let mut consumer = ring.consumer().expect("the only one");
                match consumer.pop() {
                    TicketPop::Message(_) => 1,
                    TicketPop::Stalled { position, .. } => {
                        consumer.revoke(position);
                        0
                    }
                    TicketPop::Empty => 0,
                }
            });
            let published = ring.was_published(0, 1);
            // SAFETY: dead.
            unsafe { ring.reclaim(1) };
            assert_eq!(usize::from(published), consumer.join().unwrap());
            assert_eq!(published, publishes);
        }
    });
}
