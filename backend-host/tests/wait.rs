//! Waiting for mail and for room, with each strategy.

mod common;
use common::{GUARD, broker, eventually, fill};
use core::time::Duration;
use k2k::fabric::Event;
use k2k::wait::longest_slice;
use k2k::{Command, DeliveryStatus, Endpoint, Fixed, Message, Priority, ReceiveError, SendError, Wait};
use rustix::time::{ClockId, clock_gettime};
use std::time::Instant;

const ALL: [Wait; 3] = [Wait::Spin, Wait::Yield, Wait::Park];

/// As docs/guarantees.md says.
#[test]
fn a_slice_is_3_ms_per_kernel_and_192_ms_at_most() {
    let slices = [0, 1, 2, 16, 63, 64, 65, 4096].map(|kernels| longest_slice(kernels).as_millis());
    assert_eq!(slices, [3, 3, 6, 48, 189, 192, 192, 192]);
}

fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// One message at a time with random pauses: each meets its receiver in another state between looking and sleeping.
fn each_single_message_arrives(
    mut receiver: Endpoint<Fixed<4, 8, 64>>,
    mut sender: Endpoint<Fixed<4, 8, 64>>,
    count: u32,
) {
    let to = receiver.id();
    let thread = std::thread::spawn(move || {
        (0..count).for_each(|i| assert_eq!(receiver.receive(GUARD).expect("a wake-up").header.kind, i));
    });
    let mut random = 88_172_645_463_325_252u64;
    for i in 0..count {
        sender.send_blocking(to, &Message::new(i)).unwrap();
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        match random % 4 {
            0 => {}
            1 => (0..random % 2000).for_each(|_| core::hint::spin_loop()),
            2 => std::thread::yield_now(),
            _ => std::thread::sleep(Duration::from_micros(random % 300)),
        }
    }
    thread.join().unwrap();
}

#[test]
fn no_wake_up_is_missed() {
    for wait in ALL {
        let broker = broker::<4, 8, 64>();
        let b = broker.register_parking("b").unwrap().with_wait(wait);
        // The others never sleep, and without a core each they are slow.
        let count = if wait == Wait::Park { 2000 } else { 200 };
        each_single_message_arrives(b, broker.register("a").unwrap(), count);
    }
}

#[test]
fn an_endpoint_that_does_not_park_naps() {
    let broker = broker::<4, 8, 64>();
    let b = broker.register("b").unwrap();
    assert_eq!(b.wait(), Wait::Park);
    each_single_message_arrives(b, broker.register("a").unwrap(), 200);
}

#[test]
fn receive_ends_at_its_deadline_and_not_before() {
    let broker = broker::<4, 8, 64>();
    for (i, wait) in ALL.into_iter().enumerate() {
        let mut endpoint = broker.register_parking(&format!("k{i}")).unwrap().with_wait(wait);
        let start = Instant::now();
        assert_eq!(endpoint.receive(Duration::from_millis(30)), Err(ReceiveError::Timeout));
        assert!(start.elapsed() >= Duration::from_millis(30));
        assert_eq!(endpoint.receive(Duration::ZERO), Err(ReceiveError::Timeout));
    }
}

#[test]
fn receive_until_ends_at_its_deadline_and_not_before() {
    let broker = broker::<4, 8, 64>();
    let mut sender = broker.register("a").unwrap();
    for (i, wait) in ALL.into_iter().enumerate() {
        let mut endpoint = broker.register_parking(&format!("k{i}")).unwrap().with_wait(wait);
        let deadline = Instant::now() + Duration::from_millis(30);
        assert_eq!(endpoint.receive_until(deadline), Err(ReceiveError::Timeout));
        assert!(Instant::now() >= deadline);
        // What is there is received at any time.
        sender.send(endpoint.id(), &Message::new(1)).unwrap();
        assert_eq!(endpoint.receive_until(deadline).unwrap().header.kind, 1);
        assert_eq!(endpoint.receive_until(deadline), Err(ReceiveError::Timeout));
    }
}

#[test]
fn mail_ends_a_receive_until_early() {
    for wait in ALL {
        let broker = broker::<4, 8, 64>();
        let mut endpoint = broker.register_parking("b").unwrap().with_wait(wait);
        let mut sender = broker.register("a").unwrap();
        let to = endpoint.id();
        let thread = std::thread::spawn(move || endpoint.receive_until(Instant::now() + GUARD));
        std::thread::sleep(Duration::from_millis(5));
        sender.send(to, &Message::new(7)).unwrap();
        assert_eq!(thread.join().unwrap().expect("before the deadline").header.kind, 7);
    }
}

#[test]
fn a_parked_receiver_uses_no_cpu() {
    let broker = broker::<4, 8, 64>();
    let mut endpoint = broker.register_parking("sleeper").unwrap();
    let before = thread_cpu_time();
    assert_eq!(endpoint.receive(Duration::from_millis(500)), Err(ReceiveError::Timeout));
    let used = thread_cpu_time() - before;
    assert!(used < Duration::from_millis(20), "used {used:?} of CPU in 500 ms");
}

#[test]
fn a_supervisor_ends_a_receive_that_waits_for_ever() {
    for command in [Command::Stop, Command::Drain] {
        let broker = broker::<4, 8, 64>();
        let mut endpoint = broker.register_parking("b").unwrap();
        let id = endpoint.id();
        let thread = std::thread::spawn(move || endpoint.receive(None));
        std::thread::sleep(Duration::from_millis(20));
        broker.command(id, command).unwrap();
        assert_eq!(thread.join().unwrap(), Err(ReceiveError::Stopped));
    }
}

#[test]
fn mail_is_received_before_a_stop_is_reported() {
    let broker = broker::<4, 8, 64>();
    let mut a = broker.register("a").unwrap();
    let mut b = broker.register_parking("b").unwrap();
    a.send(b.id(), &Message::new(1)).unwrap();
    broker.command(b.id(), Command::Stop).unwrap();
    assert!(b.receive(GUARD).is_ok());
    assert_eq!(b.receive(GUARD), Err(ReceiveError::Stopped));
}

#[test]
fn a_blocking_send_waits_for_room() {
    for wait in ALL {
        let broker = broker::<4, 8, 64>();
        let mut a = broker.register("a").unwrap().with_wait(wait);
        let mut b = broker.register_parking("b").unwrap();
        let to = b.id();
        let thread = std::thread::spawn(move || {
            for i in 0..500 {
                if i % 50 == 0 {
                    std::thread::sleep(Duration::from_millis(3));
                }
                assert_eq!(b.receive(GUARD).unwrap().header.kind, i);
            }
        });
        for i in 0..500 {
            a.send_blocking(to, &Message::new(i)).unwrap();
        }
        thread.join().unwrap();
        assert_eq!(broker.pending(), 0);
    }
}

#[test]
fn a_blocking_send_of_high_priority_waits_for_room_of_its_own_and_comes_first() {
    for wait in ALL {
        let broker = common::patient::<4, 8, 64>().high_share(8).build().unwrap();
        let mut a = broker.register("a").unwrap().with_wait(wait);
        let mut b = broker.register_parking("b").unwrap();
        let to = b.id();
        // Full for messages of normal priority, which is no hindrance.
        fill(&mut a, to, 8);
        let mut sent = Vec::new();
        for _ in 0..8 {
            sent.push(a.send_priority(to, &Message::new(100), Priority::High).unwrap());
        }
        let full = a.send_priority(to, &Message::new(100), Priority::High);
        assert!(matches!(full, Err(SendError::QueueFull { .. })), "{full:?}");
        let thread = std::thread::spawn(move || {
            let id = a.send_priority_blocking(to, &Message::new(200), Priority::High).unwrap();
            (id, a)
        });
        std::thread::sleep(Duration::from_millis(5));
        let mut kinds = Vec::new();
        while kinds.len() < 8 + 1 + 8 {
            let message = b.receive(GUARD).unwrap();
            assert_eq!(message.header.priority, u8::from(message.header.kind >= 100));
            kinds.push(message.header.kind);
        }
        let (id, mut a) = thread.join().unwrap();
        sent.push(id);
        assert!(sent.into_iter().all(|id| a.receipt(id).unwrap().status == DeliveryStatus::Delivered));
        let high: Vec<u32> = kinds.iter().copied().filter(|kind| *kind >= 100).collect();
        assert_eq!((kinds[0], high.last()), (100, Some(&200)));
        assert_eq!(broker.pending(), 0);
    }
}

#[test]
fn a_blocking_send_of_high_priority_ends_at_the_messages_deadline() {
    let broker = broker::<4, 8, 64>();
    let mut a = broker.register("a").unwrap();
    let b = broker.register("b").unwrap();
    while a.send_priority(b.id(), &Message::new(1), Priority::High).is_ok() {}
    let mut message = Message::new(2);
    message.header.deadline_ns = a.deadline_in(Duration::from_millis(20));
    let sent = a.send_priority_blocking(b.id(), &message, Priority::High);
    assert!(matches!(sent, Err(SendError::Timeout { .. })), "{sent:?}");
    assert!(a.now_ns() >= message.header.deadline_ns);
    assert_eq!(a.stats().refused, 2);
}

#[test]
fn a_blocking_send_ends_at_the_delivery_timeout() {
    let broker: k2k::Broker<k2k::Fixed<4, 8, 64>> =
        k2k::Builder::new().delivery_timeout(Duration::from_millis(50)).build().unwrap();
    let mut a = broker.register("a").unwrap();
    let b = broker.register("b").unwrap();
    fill(&mut a, b.id(), 8);
    let start = Instant::now();
    assert!(matches!(a.send_blocking(b.id(), &Message::new(9)), Err(SendError::Timeout { .. })));
    assert!(start.elapsed() >= Duration::from_millis(49));
}

/// x sends to z by way of y; z is full, so y keeps the message and must not sleep on it.
#[test]
fn transit_traffic_moves_on_when_room_appears_without_anyone_ringing() {
    let broker = broker::<4, 8, 64>();
    broker.set_tracing(true);
    let mut x = broker.register("x").unwrap();
    let mut y = broker.register_parking("y").unwrap();
    let mut z = broker.register("z").unwrap();
    let (y_id, z_id) = (y.id(), z.id());
    fill(&mut y, z_id, 8);
    broker.add_route(x.id(), z_id, y_id).unwrap();
    x.send(z_id, &Message::new(100)).unwrap();
    let forwarder = std::thread::spawn(move || y.receive(GUARD));
    eventually("y has deferred the message", || broker.trace(y_id).iter().any(|e| e.event == Event::Deferred));
    for i in (0..8).chain([100]) {
        assert_eq!(z.receive(GUARD).unwrap().header.kind, i);
    }
    broker.command(y_id, Command::Stop).unwrap();
    assert_eq!(forwarder.join().unwrap(), Err(ReceiveError::Stopped));
}

#[test]
fn a_blocking_send_without_end_hears_stop() {
    for wait in ALL {
        for parking in [false, true] {
            let broker = broker::<4, 8, 64>();
            let a = if parking { broker.register_parking("a") } else { broker.register("a") };
            let mut a = a.unwrap().with_wait(wait);
            let b = broker.register("b").unwrap();
            let (me, to) = (a.id(), b.id());
            fill(&mut a, to, 8);
            let message = Message::new(9).with_deadline_ns(a.deadline_in(Duration::MAX));
            let (ready, is_ready) = std::sync::mpsc::channel();
            let sender = std::thread::spawn(move || {
                ready.send(()).unwrap();
                (a.send_blocking(to, &message), a)
            });
            is_ready.recv().unwrap();
            std::thread::sleep(Duration::from_millis(20));
            assert!(!sender.is_finished());
            let told = Instant::now();
            broker.command(me, Command::Stop).unwrap();
            eventually("the send ends", || sender.is_finished());
            println!("{wait:?}: heard after {:?}", told.elapsed());
            let (sent, mut a) = sender.join().unwrap();
            assert_eq!(sent, Err(SendError::Stopped { next_hop: to }));
            // Its inbox is no reason to go on, either.
            assert_eq!(a.receive(None), Err(ReceiveError::Stopped));
        }
    }
}

/// The same where the fabric says that no message ever times out.
#[test]
fn a_blocking_send_in_a_fabric_without_a_timeout_hears_stop() {
    let broker: k2k::Broker<k2k::Fixed<4, 8, 64>> =
        k2k::Builder::new().delivery_timeout(Duration::MAX).build().unwrap();
    let mut a = broker.register("a").unwrap();
    let b = broker.register("b").unwrap();
    let (me, to) = (a.id(), b.id());
    fill(&mut a, to, 8);
    let sender = std::thread::spawn(move || a.send_priority_blocking(to, &Message::new(9), Priority::Normal));
    std::thread::sleep(Duration::from_millis(5));
    broker.command(me, Command::Stop).unwrap();
    eventually("the send ends", || sender.is_finished());
    assert_eq!(sender.join().unwrap(), Err(SendError::Stopped { next_hop: to }));
}
