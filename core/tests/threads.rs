//! Endpoints on several threads at once: everything is accounted for when they have stopped.
//!
//! Made for ThreadSanitizer as well: threads are joined by handle, and data goes through the fabric only.

mod common;

use common::fabric;
use k2k_core::WakeFlag;
use k2k_core::fabric::Event;
use k2k_core::sync::AtomicU32;
use k2k_core::sync::Ordering::{Acquire, Release};
use k2k_core::{
    Config, DeliveryStatus, Endpoint, Fabric, Fixed, KernelId, Message, MessageId, Platform, Priority, Registration,
    SendError,
};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

/// Time since the first look at it, which all threads share.
#[derive(Clone, Copy)]
struct Steady(Instant);

impl Platform for Steady {
    fn now_ns(&self) -> u64 {
        1 + self.0.elapsed().as_nanos() as u64
    }

    fn wake(&self, _: &WakeFlag) {}
}

/// Long after every deadline.
struct JudgementDay;

impl Platform for JudgementDay {
    fn now_ns(&self) -> u64 {
        u64::MAX
    }

    fn wake(&self, _: &WakeFlag) {}
}

const fn scaled(count: u32) -> u32 {
    if cfg!(miri) { count / 100 + 5 } else { count }
}

/// A hundred seconds are for ever here: nothing times out while the threads run.
const PATIENT: Config =
    Config { delivery_timeout_ns: 100_000_000_000, max_clock_offset_ns: u64::MAX, hop_limit: 8, ..Config::DEFAULT };

fn register<'f, const K: usize, const S: usize>(
    fabric: &'f Fabric<K, S, 64>,
    index: usize,
    clock: Steady,
) -> Endpoint<'f, Steady, Fixed<K, S, 64>> {
    fabric.register(&Registration::new(&format!("k{index}")).unwrap().at(index), clock).unwrap()
}

/// What each message says, so that a torn or stale one shows.
fn payload(source: KernelId, count: u32) -> [u32; 15] {
    core::array::from_fn(|i| match i {
        0 => source.index() as u32,
        1 => count,
        _ => (source.index() as u32 ^ count).wrapping_mul(0x9e37_79b9).rotate_left(i as u32),
    })
}

/// What one thread received.
#[derive(Default)]
struct Log {
    received: HashSet<MessageId>,
    youngest: HashMap<(KernelId, u8), u64>,
}

impl Log {
    fn note(&mut self, me: KernelId, message: &Message<64>, in_order: bool) {
        let header = &message.header;
        let [source, count, ..] = message.value::<[u32; 15]>().expect("whole");
        assert_eq!(message.value(), Ok(payload(header.source(), count)));
        assert_eq!((header.source().index() as u32, header.destination()), (source, me));
        assert!(self.received.insert(header.id()), "{} was received twice", header.id());
        if in_order {
            let before = self.youngest.insert((header.source(), header.priority), header.sequence);
            assert!(before < Some(header.sequence), "first in, first out");
        }
    }
}

/// Throws out what lies in the inboxes of kernels that left, times out the rest, and checks that the sum is right.
fn assert_adds_up<const K: usize, const S: usize>(fabric: &Fabric<K, S, 64>, received: usize) {
    let mut last: Vec<_> = (0..K)
        .map(|index| {
            fabric.register(&Registration::new(&format!("l{index}")).unwrap().at(index), JudgementDay).unwrap()
        })
        .collect();
    for kernel in &mut last {
        assert_eq!(kernel.expire(), 0);
    }
    drop(last);
    let total = fabric.total_stats();
    assert_eq!((fabric.pending(), total.unaccounted(), total.corrupt), (0, 0, 0), "{total:?}");
    assert_eq!(total.received, received as u64, "{total:?}");
}

/// Each sends to all others, some of it around corners; all of it is received, or its sender is told why not.
fn all_to_all<const S: usize>(rounds: u32) {
    const KERNELS: usize = 4;
    let rounds = scaled(rounds);
    let fabric: Arc<Fabric<KERNELS, S, 64>> = fabric(&PATIENT).into();
    let clock = Steady(Instant::now());
    let ready: Arc<[AtomicU32; 2 * KERNELS]> = Arc::default();
    let threads: Vec<_> = (0..KERNELS)
        .map(|index| {
            let (fabric, ready) = (Arc::clone(&fabric), Arc::clone(&ready));
            thread::spawn(move || {
                let all_have = |step: usize| (0..KERNELS).all(|i| ready[step * KERNELS + i].load(Acquire) == 1);
                let mut me = register(&fabric, index, clock);
                ready[index].store(1, Release);
                while !all_have(0) {
                    thread::yield_now();
                }
                // The opposite corner of the square is reached by way of the next one.
                let ids: [KernelId; KERNELS] = core::array::from_fn(|i| KernelId::new(i as u16, 1));
                fabric.set_route(me.id(), ids[(index + 2) % KERNELS], ids[(index + 1) % KERNELS]).unwrap();
                let mut log = Log::default();
                let mut sent = Vec::new();
                let mut count = 0;
                // When nobody sends any more, failures and receptions only grow, until they are as many as was sent.
                while !(all_have(1) && fabric.total_stats().unaccounted() == 0) {
                    if count < rounds {
                        let to = ids[(index + 1 + count as usize % 3) % KERNELS];
                        let priority = if count % 5 == 0 { Priority::High } else { Priority::Normal };
                        let message = Message::from_value(count, &payload(me.id(), count));
                        match me.send_priority(to, &message, priority) {
                            Ok(id) => {
                                assert_eq!(id.source, me.id());
                                sent.push(id);
                                count += 1;
                            }
                            Err(error) => assert!(matches!(error, SendError::QueueFull { .. }), "{error}"),
                        }
                    } else {
                        ready[KERNELS + index].store(1, Release);
                    }
                    match me.try_receive() {
                        Some(message) => log.note(me.id(), &message, true),
                        None => thread::yield_now(),
                    }
                }
                let statuses = sent.iter().filter_map(|&id| me.receipt(id).ok()).map(|receipt| receipt.status);
                for status in statuses {
                    assert!(matches!(status, DeliveryStatus::Delivered | DeliveryStatus::QueueFull), "{status}");
                }
                assert_eq!(u64::from(rounds), me.stats().sent);
                log.received.len()
            })
        })
        .collect();
    let received = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    let total = fabric.total_stats();
    assert_eq!((total.sent, total.timeout, total.not_found), (KERNELS as u64 * u64::from(rounds), 0, 0));
    assert_adds_up(&fabric, received);
}

#[test]
fn four_kernels_send_to_all_others_and_nothing_is_lost() {
    all_to_all::<64>(10_000);
}

#[test]
fn four_kernels_with_almost_no_room_lose_nothing_either() {
    all_to_all::<2>(3_000);
    all_to_all::<1>(1_000);
}

/// Two kernels leave and come back while three others send to them and through them.
#[test]
fn kernels_come_and_go_while_others_send() {
    const KERNELS: usize = 5;
    let rounds = scaled(400);
    let fabric: Arc<Fabric<KERNELS, 4, 64>> = fabric(&PATIENT).into();
    let clock = Steady(Instant::now());
    let stop: Arc<AtomicU32> = Arc::default();
    let comers: Vec<_> = (0..2)
        .map(|index| {
            let fabric = Arc::clone(&fabric);
            thread::spawn(move || {
                let mut received = 0;
                for round in 0..rounds {
                    let mut me = register(&fabric, index, clock);
                    let mut log = Log::default();
                    for _ in 0..20 {
                        match me.try_receive() {
                            Some(message) => log.note(me.id(), &message, false),
                            None => thread::yield_now(),
                        }
                        if round % 3 == 0 {
                            let other = KernelId::new(2 + round as u16 % 3, 1);
                            let _ = me.send(other, &Message::from_value(0, &payload(me.id(), round)));
                        }
                    }
                    received += log.received.len();
                    if round % 7 == 0 {
                        let id = me.id();
                        me.fail();
                        fabric.clear_failed(id).unwrap();
                    } else {
                        me.unregister();
                    }
                }
                received
            })
        })
        .collect();
    let stayers: Vec<_> = (2..KERNELS)
        .map(|index| {
            let (fabric, stop) = (Arc::clone(&fabric), Arc::clone(&stop));
            thread::spawn(move || {
                let mut me = register(&fabric, index, clock);
                let mut log = Log::default();
                let mut count = 0;
                while stop.load(Acquire) == 0 {
                    count += 1;
                    let target = ["k0", "k1", "k2", "k3", "k4"][count as usize % KERNELS];
                    if let Some(to) = fabric.find(target) {
                        // Sometimes through one that comes and goes.
                        if count % 11 == 0 {
                            if let Some(next) = fabric.find(["k0", "k1"][count as usize % 2]) {
                                let _ = fabric.set_route(me.id(), to, next);
                            }
                        } else if count % 13 == 0 {
                            fabric.remove_route(me.id(), to);
                        }
                        let priority = if count % 4 == 0 { Priority::High } else { Priority::Normal };
                        let message = Message::from_value(count, &payload(me.id(), count));
                        let sent = me.send_priority(to, &message, priority);
                        if let (Ok(id), 0) = (sent, count % 3) {
                            let _ = me.receipt(id);
                        }
                    }
                    if let Some(message) = me.try_receive() {
                        log.note(me.id(), &message, false);
                    }
                    if count % 16 == 0 {
                        me.expire();
                        thread::yield_now();
                    }
                }
                log.received.len()
            })
        })
        .collect();
    let mut received: usize = comers.into_iter().map(|thread| thread.join().unwrap()).sum();
    stop.store(1, Release);
    received += stayers.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>();
    assert!(received > 0 && fabric.total_stats().not_found > 0);
    assert_adds_up(&fabric, received);
}

/// Deadlines so short that senders, forwarders and receivers all run into them at the same time.
#[test]
fn a_message_is_delivered_or_timed_out_and_never_both() {
    const KERNELS: usize = 3;
    let rounds = scaled(4_000);
    let fabric: Arc<Fabric<KERNELS, 8, 64>> = fabric(&Config { delivery_timeout_ns: 3_000, ..PATIENT }).into();
    let clock = Steady(Instant::now());
    let ready: Arc<[AtomicU32; 2]> = Arc::default();
    let sender = {
        let (fabric, ready) = (Arc::clone(&fabric), Arc::clone(&ready));
        thread::spawn(move || {
            let mut me = register(&fabric, 0, clock);
            ready[0].store(1, Release);
            while fabric.find("k1").is_none() || fabric.find("k2").is_none() {
                thread::yield_now();
            }
            let [via, to] = ["k1", "k2"].map(|name| fabric.find(name).unwrap());
            let mut statuses = HashMap::new();
            for count in 0..rounds {
                if count % 100 == 0 {
                    fabric.set_route(me.id(), to, via).unwrap();
                } else if count % 100 == 50 {
                    fabric.remove_route(me.id(), to);
                }
                let message = Message::from_value(count, &payload(me.id(), count));
                // `QueueFull` becomes `Timeout` soon.
                if let Ok(id) = me.send_waiting(to, &message, Priority::Normal, thread::yield_now) {
                    for _ in 0..count % 50 {
                        core::hint::spin_loop();
                    }
                    let status = me.receipt(id).unwrap().status;
                    statuses.insert(id, status);
                }
            }
            while me.expire() > 0 {
                thread::yield_now();
            }
            ready[1].store(1, Release);
            statuses
        })
    };
    let others: Vec<_> = [1, 2]
        .into_iter()
        .map(|index| {
            let (fabric, ready) = (Arc::clone(&fabric), Arc::clone(&ready));
            thread::spawn(move || {
                while ready[0].load(Acquire) == 0 {
                    thread::yield_now();
                }
                let mut me = register(&fabric, index, clock);
                let mut log = Log::default();
                while ready[1].load(Acquire) == 0 {
                    match me.try_receive() {
                        Some(message) => log.note(me.id(), &message, false),
                        None => thread::yield_now(),
                    }
                }
                log.received
            })
        })
        .collect();
    let statuses = sender.join().unwrap();
    let received: HashSet<_> = others.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    for (id, status) in statuses {
        match status {
            DeliveryStatus::Delivered => assert!(received.contains(&id), "{id}"),
            DeliveryStatus::Pending => {}
            _ => assert!(!received.contains(&id), "{id} is {status} and was received"),
        }
    }
    assert_adds_up(&fabric, received.len());
}

/// A supervisor turns the routes over and over while messages flow.
#[test]
fn routes_change_while_traffic_flows() {
    const KERNELS: usize = 4;
    let rounds = scaled(5_000);
    let fabric: Arc<Fabric<KERNELS, 16, 64>> = fabric(&PATIENT).into();
    let clock = Steady(Instant::now());
    let stop: Arc<[AtomicU32; 3]> = Arc::default();
    let mut first = register(&fabric, 0, clock);
    let threads: Vec<_> = (1..KERNELS)
        .map(|index| {
            let (fabric, stop) = (Arc::clone(&fabric), Arc::clone(&stop));
            thread::spawn(move || {
                let mut me = register(&fabric, index, clock);
                let mut log = Log::default();
                while stop[0].load(Acquire) == 0 {
                    match me.try_receive() {
                        Some(message) => log.note(me.id(), &message, false),
                        None => thread::yield_now(),
                    }
                }
                log.received.len()
            })
        })
        .collect();
    while fabric.kernels().count() < KERNELS {
        thread::yield_now();
    }
    let ids: [KernelId; KERNELS] = core::array::from_fn(|i| KernelId::new(i as u16, 1));
    let supervisor = {
        let (fabric, stop) = (Arc::clone(&fabric), Arc::clone(&stop));
        thread::spawn(move || {
            let mut turn = 0;
            while stop[1].load(Acquire) == 0 {
                turn += 1;
                let (at, next) = (ids[turn % 3], ids[turn * 7 % 4]);
                if turn % 5 == 0 {
                    fabric.remove_route(at, ids[3]);
                } else {
                    fabric.set_route(at, ids[3], next).unwrap();
                }
                assert!(fabric.route(at, ids[3]).is_none_or(|next| ids.contains(&next)));
                thread::yield_now();
            }
        })
    };
    let mut sent = 0;
    let mut own = Log::default();
    while sent < rounds {
        let message = Message::from_value(sent, &payload(first.id(), sent)).with_hop_limit(20);
        match first.send(ids[3], &message) {
            Ok(_) => sent += 1,
            Err(SendError::QueueFull { .. }) => thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
        first.poll();
    }
    stop[1].store(1, Release);
    supervisor.join().unwrap();
    // The last word: everything goes straight there.
    ids[..3].iter().for_each(|&at| fabric.remove_route(at, ids[3]));
    while fabric.total_stats().unaccounted() > 0 {
        if let Some(message) = first.try_receive() {
            own.note(first.id(), &message, false);
        }
        thread::yield_now();
    }
    stop[0].store(1, Release);
    let received: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    let total = fabric.total_stats();
    assert_eq!((total.timeout, total.not_found, own.received.len()), (0, 0, 0));
    assert_eq!(total.sent, total.received + total.queue_full + total.max_hops_exceeded);
    drop(first);
    assert_adds_up(&fabric, received);
}

/// Each entry that a reader gets is one event, whole, however fast the writer goes round.
#[test]
fn a_trace_is_read_whole_while_it_is_overwritten() {
    let rounds = scaled(20_000);
    let fabric: Arc<Fabric<2, 8, 64>> = fabric(&Config { tracing: true, ..PATIENT }).into();
    let clock = Steady(Instant::now());
    let stop: Arc<AtomicU32> = Arc::default();
    let mut a = register(&fabric, 0, clock);
    let reader = {
        let (fabric, stop, id) = (Arc::clone(&fabric), Arc::clone(&stop), a.id());
        thread::spawn(move || {
            let mut seen = 0;
            while stop.load(Acquire) == 0 {
                for entry in fabric.trace(id).unwrap().read() {
                    // The writer only sends, so event and message numbers go together, and so do the events' times.
                    assert_eq!((entry.event, entry.id.source), (Event::Sent, id));
                    assert_eq!(entry.id.sequence, entry.number + 1);
                    assert!(entry.at.wall_time_ns > 0);
                    seen += 1;
                }
                thread::yield_now();
            }
            seen
        })
    };
    let mut b = register(&fabric, 1, clock);
    for count in 0..rounds {
        a.send(b.id(), &Message::from_value(count, &payload(a.id(), count))).unwrap();
        assert!(b.try_receive().is_some());
        if count % 64 == 0 {
            thread::yield_now();
        }
    }
    stop.store(1, Release);
    assert!(reader.join().unwrap() > 0);
    drop((a, b));
    assert_adds_up(&fabric, rounds as usize);
}

/// Only one of many gets the index, and only one the name.
#[test]
fn an_index_is_given_to_one_of_many() {
    let fabric: Arc<Fabric<2, 1, 64>> = fabric(&PATIENT).into();
    let clock = Steady(Instant::now());
    let rounds = scaled(2_000);
    let inside: Arc<AtomicU32> = Arc::default();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (fabric, inside) = (Arc::clone(&fabric), Arc::clone(&inside));
            thread::spawn(move || {
                let who = Registration::new("one").unwrap();
                let mut won = 0;
                for _ in 0..rounds {
                    if let Ok(me) = fabric.register(&who.at(1), clock) {
                        // The index itself keeps others out: plain load and store are enough.
                        assert_eq!(inside.load(Acquire), 0);
                        inside.store(1, Release);
                        assert!(fabric.is_registered(me.id()));
                        inside.store(0, Release);
                        won += 1;
                    } else {
                        thread::yield_now();
                    }
                }
                won
            })
        })
        .collect();
    let won: u32 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    let last = fabric.register(&Registration::new("last").unwrap().at(1), clock).unwrap();
    assert_eq!(last.id().generation(), won + 1);
}
