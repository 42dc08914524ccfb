//! Processes that are killed at random moments while they register, send, receive, forward, ask for receipts and leave.
//! A ledger that outlives them tells what became of each message. This test program starts itself again as the workers.
//!
//! `K2K_SECONDS=300 cargo test --release -p k2k --test kills` kills for minutes.

mod common;
use common::{Process, Shm, eventually};
use core::time::Duration;
use fastrand::Rng;
use k2k::k2k_core::sync::AtomicU64;
use k2k::k2k_core::sync::Ordering::Relaxed;
use k2k::{Broker, Builder, DeliveryStatus, Endpoint, Fixed, KernelId, Message, MessageId, Priority};
use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::time::Instant;

const KERNELS: usize = 6;
const SLOTS: usize = 8;
const WORKERS: usize = 4;
type Shared = Broker<Fixed<KERNELS, SLOTS, 64>>;
type End = Endpoint<Fixed<KERNELS, SLOTS, 64>>;

/// Messages of one round, at most: a round begins with a fabric and a ledger of its own.
const MESSAGES: usize = 1 << 19;
const ROUND: Duration = Duration::from_secs(3);
/// How long a message may take. Past that, and a grace, each one has its outcome.
const TIMEOUT: Duration = Duration::from_millis(100);

fn duration() -> Duration {
    let seconds = std::env::var("K2K_SECONDS").ok().and_then(|s| s.parse().ok());
    Duration::from_secs(seconds.unwrap_or(3))
}

/// What is known of one message. The sender writes all words but `received`.
#[repr(C)]
struct Entry {
    /// How often it was received.
    received: AtomicU64,
    /// The sender's id and the sequence, once `send` has accepted it: 0 if it has not, or died before it noted that.
    source: AtomicU64,
    sequence: AtomicU64,
    /// 1 + its final status, once the sender has seen that.
    status: AtomicU64,
}

/// Shared with the workers, beside the fabric.
struct Ledger {
    /// Messages that were begun.
    begun: AtomicU64,
    entries: [Entry; MESSAGES],
}

impl Ledger {
    /// The ledger in a file, which is mapped for the life of this process.
    fn of(path: &str) -> &'static Self {
        use rustix::mm::{MapFlags, ProtFlags, mmap};
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap();
        file.set_len(size_of::<Self>() as u64).unwrap();
        let flags = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a mapping of its own, at an address that the system chooses.
        let base = unsafe { mmap(core::ptr::null_mut(), size_of::<Self>(), flags, MapFlags::SHARED, &file, 0) };
        // SAFETY: as long as a ledger, page-aligned, zeroed at first, atomics alone, and never unmapped.
        unsafe { &*base.unwrap().cast::<Self>() }
    }

    /// The number of a message that is about to be sent.
    fn begin(&self) -> Option<u64> {
        add_one(&self.begun).filter(|&number| number < MESSAGES as u64)
    }

    fn entry(&self, number: u64) -> &Entry {
        &self.entries[number as usize]
    }
}

/// Adds one, and returns what was there.
fn add_one(word: &AtomicU64) -> Option<u64> {
    loop {
        let before = word.load(Relaxed);
        if word.compare_exchange(before, before + 1, Relaxed, Relaxed).is_ok() {
            return Some(before);
        }
    }
}

/// The other process: does all that a kernel can do, until it is killed.
#[test]
fn worker() {
    let Ok(file) = std::env::var("K2K_KILLS_FILE") else { return };
    let text = |name: &str| std::env::var(name).unwrap();
    let ledger = Ledger::of(&text("K2K_KILLS_LEDGER"));
    let mut random = Rng::with_seed(text("K2K_KILLS_SEED").parse().unwrap());
    let broker: Shared = Builder::new().open(&file).build().unwrap();
    loop {
        let name = text("K2K_KILLS_NAME");
        let registered = if random.u64(..2) == 0 { broker.register(&name) } else { broker.register_parking(&name) };
        // The name is a dead predecessor's, until that is reaped.
        let Ok(mut endpoint) = registered else { continue };
        let mut asked = VecDeque::new();
        for _ in 0..random.u64(..5000) {
            operate(&broker, &mut endpoint, ledger, &mut asked, &mut random);
        }
    }
}

/// One operation, chosen at random.
fn operate(
    broker: &Shared,
    endpoint: &mut End,
    ledger: &Ledger,
    asked: &mut VecDeque<(MessageId, u64)>,
    random: &mut Rng,
) {
    match random.u64(..16) {
        0..=5 => send(broker, endpoint, ledger, asked, random),
        6..=11 => {
            while let Some(message) = endpoint.try_receive() {
                add_one(&ledger.entry(message.value::<u64>().unwrap()).received);
            }
        }
        12 => {
            if let Ok(message) = endpoint.receive(Duration::from_micros(random.u64(..500))) {
                add_one(&ledger.entry(message.value::<u64>().unwrap()).received);
            }
        }
        13 => {
            let _ = (endpoint.poll(), endpoint.expire());
        }
        14 => {
            let kernels = broker.kernels();
            let mut any = || kernels[random.u64(..kernels.len() as u64) as usize].0;
            if kernels.is_empty() {
                return;
            }
            let (at, to, via) = (any(), any(), any());
            let _ = broker.add_route(at, to, via);
            broker.remove_route(any(), any());
        }
        _ => {
            for _ in 0..asked.len() {
                let (id, number) = asked.pop_front().unwrap();
                match endpoint.receipt(id).map(|receipt| receipt.status) {
                    Ok(DeliveryStatus::Pending) => asked.push_back((id, number)),
                    Ok(status) => ledger.entry(number).status.store(1 + status as u64, Relaxed),
                    Err(_) => {}
                }
            }
        }
    }
}

fn send(
    broker: &Shared,
    endpoint: &mut End,
    ledger: &Ledger,
    asked: &mut VecDeque<(MessageId, u64)>,
    random: &mut Rng,
) {
    let to = broker.find(&format!("worker-{}", random.u64(..WORKERS as u64)));
    let (Some(to), Some(number)) = (to, ledger.begin()) else { return };
    let priority = if random.u64(..4) == 0 { Priority::High } else { Priority::Normal };
    let Ok(id) = endpoint.send_priority(to, &Message::from_value(0, &number), priority) else { return };
    let entry = ledger.entry(number);
    entry.sequence.store(id.sequence, Relaxed);
    entry.source.store(id.source.raw(), Relaxed);
    asked.push_back((id, number));
    if asked.len() > SLOTS * KERNELS {
        asked.pop_front();
    }
}

/// Kills, reaps and starts again for a while, and checks the ledger then. Returns kills, messages and receipts seen.
fn round(random: &mut Rng, time: Duration) -> [u64; 3] {
    let (shm, ledger_file) = (Shm::new("kills"), Shm::new("kills-ledger"));
    let path = ledger_file.path().into_os_string().into_string().unwrap();
    let ledger = Ledger::of(&path);
    let broker: Shared = Builder::new().create(&shm.0).delivery_timeout(TIMEOUT).build().unwrap();
    let start = |number: usize, random: &mut Rng| {
        let seed = random.u64(..1 << 40).to_string();
        let name = format!("worker-{number}");
        let role = [
            ("K2K_KILLS_FILE", &*shm.0),
            ("K2K_KILLS_LEDGER", &*path),
            ("K2K_KILLS_NAME", &*name),
            ("K2K_KILLS_SEED", &*seed),
        ];
        Process::start("worker", &role)
    };
    let mut workers: Vec<_> = (0..WORKERS).map(|number| start(number, random)).collect();
    let began = Instant::now();
    let mut kills = 0;
    while began.elapsed() < time {
        std::thread::sleep(Duration::from_micros(random.u64(..20_000)));
        let number = random.u64(..WORKERS as u64) as usize;
        assert!(workers[number].0.try_wait().unwrap().is_none(), "a worker ended by itself");
        workers[number].kill();
        kills += 1;
        // Sometimes the dead are found late, or by nobody but the last look.
        if random.u64(..4) != 0 {
            let report = broker.reap();
            assert!(report.unknown.is_empty(), "{report}");
        }
        workers[number] = start(number, random);
    }
    for worker in &mut workers {
        worker.kill();
        kills += 1;
    }
    broker.reap();
    std::thread::sleep(TIMEOUT + Duration::from_millis(1));
    let messages = check(&broker, ledger);
    [kills, messages[0], messages[1]]
}

/// Checks all promises of a fabric that everybody has left.
fn check(broker: &Shared, ledger: &Ledger) -> [u64; 2] {
    let begun = ledger.begun.load(Relaxed).min(MESSAGES as u64);
    let (mut accepted, mut looked_up) = (0, 0);
    for number in 0..begun {
        let entry = ledger.entry(number);
        let received = entry.received.load(Relaxed);
        assert!(received <= 1, "message {number} was received {received} times");
        let id = MessageId {
            source: KernelId::from_raw(entry.source.load(Relaxed)),
            sequence: entry.sequence.load(Relaxed),
        };
        if id.source == KernelId::NONE {
            continue;
        }
        accepted += 1;
        let seen = entry.status.load(Relaxed);
        let status = if seen == 0 {
            // An error: its receipt was overwritten.
            broker.receipt(id).ok().map(|receipt| receipt.status)
        } else {
            (0..=u8::MAX).find(|&raw| 1 + u64::from(raw) == seen).and_then(status_of)
        };
        looked_up += u64::from(status.is_some());
        match status {
            Some(DeliveryStatus::Pending) => panic!("message {number}, {id}, stays pending"),
            Some(status) if status != DeliveryStatus::Delivered => {
                assert_eq!(received, 0, "message {number}, {id}, was received, and ended in {status}");
            }
            _ => {}
        }
    }
    // All indices come back, and the counters add up.
    eventually("nothing is under way", || broker.pending() == 0);
    let all: Vec<_> = (0..KERNELS).map(|i| broker.register(&format!("last-{i}")).unwrap()).collect();
    drop(all);
    let stats = broker.stats();
    assert_eq!((stats.unaccounted(), broker.pending()), (0, 0), "{stats:?}");
    [accepted, looked_up]
}

fn status_of(raw: u8) -> Option<DeliveryStatus> {
    use DeliveryStatus::{Delivered, MaxHopsExceeded, NotAllowed, NotFound, QueueFull, Timeout, Unanswered};
    [Delivered, NotFound, QueueFull, Timeout, MaxHopsExceeded, Unanswered, NotAllowed]
        .into_iter()
        .find(|&s| s as u8 == raw)
}

#[test]
fn no_kill_at_a_random_moment_breaks_a_promise() {
    let seed = 0x9e37_79b9_7f4a_7c15 ^ u64::from(std::process::id()) << 17;
    println!("seed {seed}");
    let mut random = Rng::with_seed(seed);
    let began = Instant::now();
    let mut tried = [0; 3];
    while began.elapsed() < duration() {
        let left = duration() - began.elapsed();
        let more = round(&mut random, left.min(ROUND));
        tried = core::array::from_fn(|i| tried[i] + more[i]);
    }
    let [kills, messages, receipts] = tried;
    println!("{kills} kills, {messages} messages accepted, {receipts} receipts checked, {:?}", began.elapsed());
    assert!(kills > 10 && messages > 100);
}
