//! Kernels in two processes on one shared-memory file. This test program starts itself again as the other process.

mod common;
use common::{GUARD, Process, Shm, eventually, patient};
use core::time::Duration;
use k2k::owner::{self, OwnerState};
use k2k::{Broker, Builder, DeliveryStatus, Endpoint, Fixed, Message, SendError};
use std::time::Instant;

type Shared = Broker<Fixed<4, 64, 64>>;

const ROLE: &str = "K2K_TEST_ROLE";
const FILE: &str = "K2K_TEST_FILE";
const MESSAGES: u64 = 100_000;
const SINGLES: u64 = 3_000;

fn start(role: &str, file: &str) -> Process {
    Process::start("other_process", &[(ROLE, role), (FILE, file)])
}

/// Not a test by itself: what the other process does.
#[test]
fn other_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let broker: Shared = Builder::new().open(&std::env::var(FILE).unwrap()).build().unwrap();
    let mut endpoint = broker.register_parking("other").unwrap();
    eventually("the first process has registered", || broker.find("first").is_some());
    let first = broker.find("first").unwrap();
    match &*role {
        "exchange" => exchange(&mut endpoint, first),
        "count" => {
            for i in 0..SINGLES {
                assert_eq!(endpoint.receive(GUARD).expect("a wake-up").value::<u64>().unwrap(), i);
            }
            // So that the last receipt is read before the index is free.
            endpoint.send(first, &Message::new(0)).unwrap();
        }
        "swallow" => while endpoint.receive(GUARD).is_ok() {},
        "sleep" => drop(endpoint.receive(None)),
        "send" => {
            for i in 0.. {
                endpoint.send_blocking(first, &Message::from_value(0, &(i as u64))).unwrap();
            }
        }
        other => panic!("no such role: {other}"),
    }
}

/// Sends `MESSAGES` numbered messages and receives as many, asleep whenever there is nothing to do.
fn exchange(endpoint: &mut Endpoint<Fixed<4, 64, 64>>, peer: k2k::KernelId) {
    let (mut sent, mut received) = (0u64, 0u64);
    let start = Instant::now();
    loop {
        while sent < MESSAGES {
            match endpoint.send(peer, &Message::from_value(0, &sent)) {
                Ok(_) => sent += 1,
                Err(SendError::QueueFull { .. }) => break,
                Err(e) => panic!("{e}"),
            }
        }
        // Nobody rings when there is room again, so only sleep for long when everything is sent.
        let patience = match (sent, received) {
            (MESSAGES, MESSAGES) => break,
            (MESSAGES, _) => GUARD,
            _ => Duration::from_micros(200),
        };
        let mut message = endpoint.receive(patience).ok();
        while let Some(m) = message {
            assert_eq!(m.value::<u64>().unwrap(), received);
            received += 1;
            message = endpoint.try_receive();
        }
        assert!(start.elapsed() < GUARD, "sent {sent}, received {received}");
    }
}

#[test]
fn two_processes_exchange_messages_in_both_directions() {
    let shm = Shm::new("exchange");
    let broker: Shared = patient().create(&shm.0).build().unwrap();
    let mut first = broker.register_parking("first").unwrap();
    let other = start("exchange", &shm.0);
    eventually("the other process has registered", || broker.find("other").is_some());
    exchange(&mut first, broker.find("other").unwrap());
    other.succeed();
    let stats = broker.stats();
    assert_eq!((stats.sent, stats.received, broker.pending()), (2 * MESSAGES, 2 * MESSAGES, 0), "{stats:?}");
}

/// Single messages with random pauses, so that most of them meet a receiver that sleeps or is just about to.
#[test]
fn a_receiver_asleep_in_another_process_gets_each_message() {
    let shm = Shm::new("wake");
    let broker: Shared = patient().create(&shm.0).build().unwrap();
    let mut first = broker.register_parking("first").unwrap();
    let other = start("count", &shm.0);
    eventually("the other process has registered", || broker.find("other").is_some());
    let to = broker.find("other").unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    for i in 0..SINGLES {
        let id = first.send_blocking(to, &Message::from_value(0, &i)).unwrap();
        match random.u32(..3) {
            0 => {
                // With nobody else to wake it, the receiver must get this one before there is a next.
                let delivered = |first: &mut Endpoint<Fixed<4, 64, 64>>| first.receipt(id).unwrap().status;
                eventually("it was received", || delivered(&mut first) == DeliveryStatus::Delivered);
            }
            1 => std::thread::sleep(Duration::from_micros(random.u64(..500))),
            _ => (0..random.u32(..3000)).for_each(|_| core::hint::spin_loop()),
        }
    }
    first.receive(GUARD).unwrap();
    other.succeed();
    assert_eq!(broker.pending(), 0);
}

#[test]
fn an_index_says_who_owns_it_and_whether_that_process_is_gone() {
    let shm = Shm::new("owner-of");
    let broker: Shared = patient().create(&shm.0).build().unwrap();
    let domain = broker.memory().config().domain;
    assert_eq!(domain, owner::domain());
    let first = broker.register("first").unwrap();
    let state = |id| owner::state_of(broker.memory().owner(id).unwrap(), domain);
    assert_eq!(broker.memory().owner(first.id()), Some(owner::tag_in(domain)));
    let mut process = start("sleep", &shm.0);
    eventually("it registers", || broker.find("other").is_some());
    let other = broker.find("other").unwrap();
    assert_ne!(broker.memory().owner(other), Some(owner::tag_in(domain)));
    assert_eq!((state(first.id()), state(other)), (OwnerState::Alive, OwnerState::Alive));
    process.kill();
    assert_eq!((state(first.id()), state(other)), (OwnerState::Alive, OwnerState::Dead));
}

/// The receiver is killed at full speed; its endpoint is taken over and goes on where it stopped.
#[test]
fn a_receiver_that_was_killed_is_taken_over() {
    let shm = Shm::new("killed-receiver");
    let broker: Shared = patient().create(&shm.0).build().unwrap();
    let mut first = broker.register("first").unwrap();
    let mut other = start("swallow", &shm.0);
    eventually("the other process has registered", || broker.find("other").is_some());
    let to = broker.find("other").unwrap();
    let mut sent = 0u64;
    while sent < 20_000 {
        first.send_blocking(to, &Message::from_value(0, &sent)).unwrap();
        sent += 1;
    }
    other.kill();
    while first.send(to, &Message::from_value(0, &sent)).is_ok() {
        sent += 1;
    }
    // SAFETY: the process that owned the endpoint is dead.
    let mut heir = unsafe { broker.take_over(to) }.unwrap();
    assert_eq!(heir.id(), to);
    let mut last = None;
    while let Ok(message) = heir.receive(Duration::from_millis(100)) {
        let number = message.value::<u64>().unwrap();
        assert!(last.is_none_or(|last| number == last + 1), "{number} after {last:?}");
        last = Some(number);
    }
    assert_eq!(last, Some(sent - 1), "all mail up to the last message is there");
    first.send(to, &Message::from_value(0, &sent)).unwrap();
    assert_eq!(heir.receive(GUARD).unwrap().value::<u64>().unwrap(), sent);
    // One message can have been decided, but not yet counted, when its receiver died.
    let stats = broker.stats();
    assert_eq!((stats.sent, stats.failed()), (sent + 1, 0), "{stats:?}");
    assert!(stats.unaccounted() <= 1, "{stats:?}");
}

/// A kernel that died in its sleep: senders ring in vain, and nothing is lost.
#[test]
fn a_sleeper_that_was_killed_is_taken_over() {
    let shm = Shm::new("killed-sleeper");
    let broker: Shared = patient().create(&shm.0).build().unwrap();
    let mut first = broker.register("first").unwrap();
    let mut other = start("sleep", &shm.0);
    eventually("the other process has registered", || broker.find("other").is_some());
    let to = broker.find("other").unwrap();
    std::thread::sleep(Duration::from_millis(50));
    other.kill();
    let id = first.send(to, &Message::from_value(0, &7u64)).unwrap();
    // SAFETY: the process that owned the endpoint is dead.
    let mut heir = unsafe { broker.take_over(to) }.unwrap();
    assert!(heir.as_core().parks());
    assert_eq!(heir.receive(GUARD).unwrap().value::<u64>().unwrap(), 7);
    assert_eq!(first.receipt(id).unwrap().status, DeliveryStatus::Delivered);
    assert_eq!(broker.pending(), 0);
}

/// The sender is killed at full speed; what it had published arrives, and its heir sends on.
#[test]
fn a_sender_that_was_killed_is_taken_over() {
    let shm = Shm::new("killed-sender");
    let broker: Shared = patient().create(&shm.0).build().unwrap();
    let mut first = broker.register_parking("first").unwrap();
    let mut other = start("send", &shm.0);
    let mut next = 0u64;
    let mut source = None;
    let mut receive = |first: &mut Endpoint<Fixed<4, 64, 64>>, patience| {
        let Ok(message) = first.receive(patience) else { return None };
        assert_eq!(message.value::<u64>().unwrap(), next);
        next += 1;
        Some(message.header.source())
    };
    for _ in 0..20_000 {
        source = Some(receive(&mut first, GUARD).expect("the other process sends"));
    }
    other.kill();
    while receive(&mut first, Duration::from_millis(100)).is_some() {}
    // SAFETY: the process that owned the endpoint is dead.
    let mut heir = unsafe { broker.take_over(source.unwrap()) }.unwrap();
    let before = broker.stats();
    assert!(before.unaccounted() <= 1, "at most the message that was being sent: {before:?}");
    heir.send(first.id(), &Message::new(9)).unwrap();
    assert_eq!(first.receive(GUARD).unwrap().header.kind, 9);
    drop(heir);
    assert!(broker.find("other").is_none());
}

/// A process whose `CLOCK_MONOTONIC` is an hour ahead, by a time namespace, would find every deadline passed.
#[test]
fn a_process_in_another_time_namespace_is_refused() {
    let shm = Shm::new("time-namespace");
    let broker: Shared = Builder::new().create(&shm.0).build().unwrap();
    let program = std::env::current_exe().unwrap();
    let run = |arguments: &[&str]| {
        let other = std::process::Command::new("unshare")
            .args(arguments)
            .arg(&program)
            .args(["--exact", "opens_the_file", "--nocapture"])
            .env(FILE, &shm.0)
            .output();
        other.map(|other| (other.status.success(), String::from_utf8_lossy(&other.stdout).into_owned()))
    };
    match run(&["--time", "--monotonic", "3600"]) {
        Ok((true, said)) => {
            let here = format!("{:#018x}", broker.memory().config().clock);
            assert!(said.contains("another time namespace") && said.contains(&here), "{said}");
        }
        other => return println!("skipped: no time namespace to be had here ({other:?})"),
    }
    let (done, said) = run(&["--uts"]).unwrap();
    assert!(done && said.contains("opened"), "in the same time namespace: {said}");
}

/// Not a test by itself.
#[test]
fn opens_the_file() {
    let Ok(file) = std::env::var(FILE) else { return };
    match k2k::Memory::<k2k::Fixed<4, 64, 64>>::open(&file) {
        Ok(_) => println!("opened"),
        Err(e) => println!("refused: {e}"),
    }
}
