//! One thread, task or event loop that waits for several endpoints.

mod common;
use common::{GUARD, Shm, broker, eventually, fill};
use core::time::Duration;
use k2k::{Broker, Command, Descriptor, Endpoint, Fixed, Message, ReceiveError, Set};
use rustix::event::{PollFd, PollFlags, poll};
use std::time::Instant;

type Shape = Fixed<8, 16, 64>;

/// A set of three endpoints, two of them in one file, and a sender for each.
fn three(test: &str) -> (Shm, Set<Shape>, Vec<Endpoint<Shape>>, Vec<k2k::KernelId>) {
    let shm = Shm::new(test);
    let shared: Broker<Shape> = Broker::builder().create(&shm.0).build().unwrap();
    let private: Broker<Shape> = broker();
    let of = [&shared, &private, &shared];
    let endpoints: Vec<_> = (0..3).map(|i| of[i].register_parking(&format!("receiver-{i}")).unwrap()).collect();
    let senders = (0..3).map(|i| of[i].register(&format!("sender-{i}")).unwrap()).collect();
    let ids = endpoints.iter().map(Endpoint::id).collect();
    (shm, Set::new(endpoints), senders, ids)
}

#[test]
fn mail_at_any_endpoint_wakes_the_thread_and_each_has_its_turn() {
    let (_shm, mut set, mut senders, ids) = three("set-any");
    let begun = Instant::now();
    assert!(set.receive(Duration::from_millis(20)).is_none() && begun.elapsed() >= Duration::from_millis(20));
    let thread = std::thread::spawn(move || {
        for i in 0..600_u32 {
            let at = (i % 3) as usize;
            senders[at].send_blocking(ids[at], &Message::new(i)).unwrap();
            if i % 5 == 0 {
                std::thread::sleep(Duration::from_micros(u64::from(i % 7) * 60));
            }
        }
        (senders, ids)
    });
    let mut last = [None; 3];
    for _ in 0..600 {
        let (from, message) = set.receive(GUARD).expect("a wake-up");
        let kind = message.unwrap().header.kind;
        assert_eq!(kind as usize % 3, from);
        assert!(last[from].replace(kind).is_none_or(|last| last < kind), "in order");
    }
    let (mut senders, ids) = thread.join().unwrap();
    fill(&mut senders[0], ids[0], 8);
    senders[2].send(ids[2], &Message::new(2)).unwrap();
    let of: Vec<usize> = (0..3).map(|_| set.receive(GUARD).unwrap().0).collect();
    assert!(of.contains(&2), "a flood at one endpoint holds up no other: {of:?}");
}

#[test]
fn an_endpoint_that_is_told_to_stop_is_reported_and_can_be_taken_out() {
    let (_shm, mut set, mut senders, ids) = three("set-stop");
    let fabric = senders[1].memory().clone();
    let supervisor = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        Broker::new(fabric).command(ids[1], Command::Stop).unwrap();
        ids
    });
    let (from, outcome) = set.receive(GUARD).unwrap();
    assert_eq!((from, outcome.unwrap_err()), (1, ReceiveError::Stopped));
    let ids = supervisor.join().unwrap();
    assert_eq!(set.remove(1).map(|endpoint| endpoint.id()), Some(ids[1]));
    assert!(set.remove(2).is_none() && set.len() == 2);
    assert!(set.receive(Duration::from_millis(5)).is_none());
    senders[2].send(ids[2], &Message::new(9)).unwrap();
    let (from, message) = set.receive(GUARD).unwrap();
    assert_eq!((from, message.unwrap().header.kind), (1, 9), "those behind it have moved up");
    assert!(Set::<Shape>::new([]).receive(Duration::from_millis(5)).is_none());
}

#[tokio::test]
async fn a_task_awaits_a_set_and_a_dropped_future_loses_nothing() {
    let (_shm, mut set, mut senders, ids) = three("set-task");
    let thread = std::thread::spawn(move || {
        for i in 0..300_u32 {
            let at = (i % 3) as usize;
            senders[at].send_blocking(ids[at], &Message::new(i)).unwrap();
            std::thread::sleep(Duration::from_micros(100));
        }
    });
    let (mut received, mut cancelled) = (0, 0);
    while received < 300 {
        tokio::select! {
            (_, message) = set.receive_async() => received += u32::from(message.is_ok()),
            () = tokio::time::sleep(Duration::from_micros(50)) => cancelled += 1,
        }
    }
    assert!(cancelled > 0);
    thread.join().unwrap();
}

#[test]
fn a_descriptor_becomes_readable_with_mail_and_not_without() {
    let (_shm, mut set, mut senders, ids) = three("descriptor");
    for at in 0..2 {
        let descriptor = Descriptor::new().unwrap();
        let is_readable = |wait: Duration| {
            let wait = rustix::time::Timespec::try_from(wait).unwrap();
            poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&wait)).unwrap() == 1
        };
        let endpoint = set.get_mut(at).unwrap();
        assert!(!is_readable(Duration::ZERO));
        let sender = &mut senders[at];
        for i in 0..100 {
            assert!(descriptor.arm(endpoint));
            if i == 0 {
                // A slice may end just now, and makes it readable; not each time.
                assert!((0..1000).any(|_| descriptor.arm(endpoint) && !is_readable(Duration::ZERO)));
            }
            sender.send(ids[at], &Message::new(i)).unwrap();
            assert!(is_readable(GUARD), "message {i}");
            assert!(!descriptor.arm(endpoint), "there is mail");
            assert_eq!(endpoint.try_receive().unwrap().header.kind, i);
        }
        assert!(descriptor.arm(endpoint));
        sender.memory().fabric().command(ids[at], Command::Stop, &k2k::Host::new()).unwrap();
        assert!(is_readable(GUARD), "a command");
        assert!(!descriptor.arm(endpoint));
        // It is armed on; dropped before or after its endpoint, it does no harm.
        eventually("nothing is there", || endpoint.try_receive().is_none());
    }
}

/// As a C program's loop would: another process sends.
#[test]
fn a_sender_in_another_process_makes_a_descriptor_readable() {
    if let Ok(file) = std::env::var("K2K_SET_FILE") {
        let broker: Broker<Shape> = Broker::builder().open(&file).build().unwrap();
        let mut sender = broker.register("elsewhere").unwrap();
        let to = broker.find("receiver-0").unwrap();
        for i in 0..50 {
            sender.send_blocking(to, &Message::new(i)).unwrap();
            std::thread::sleep(Duration::from_millis(2));
        }
        return;
    }
    let (shm, mut set, _senders, _) = three("descriptor-process");
    let name = "a_sender_in_another_process_makes_a_descriptor_readable";
    let mut process = common::Process::start(name, &[("K2K_SET_FILE", &shm.0)]);
    let (descriptor, endpoint) = (Descriptor::new().unwrap(), set.get_mut(0).unwrap());
    let (mut received, begun) = (0, Instant::now());
    while received < 50 {
        while let Some(message) = endpoint.try_receive() {
            assert_eq!(message.header.kind, received);
            received += 1;
        }
        if received < 50 && descriptor.arm(endpoint) {
            let wait = rustix::time::Timespec { tv_sec: 5, tv_nsec: 0 };
            assert_eq!(poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&wait)).unwrap(), 1, "{received}");
        }
        assert!(begun.elapsed() < GUARD);
    }
    assert!(process.0.wait().unwrap().success());
}
