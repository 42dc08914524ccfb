//! A process that writes garbage over the whole mapping while endpoints of another one work: no operation panics, hangs
//! or reaches outside of the mapping, whatever the bytes turn into in its middle.
//!
//! `K2K_SECONDS=300 cargo test --release -p k2k --test hostile_writer` runs for minutes. Under AddressSanitizer an
//! access outside of the mapping is reported; without it, it mostly faults.

#![allow(clippy::disallowed_types, reason = "the writer is no user of the fabric")]

mod common;
use common::{GUARD, Process, Shm};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use core::time::Duration;
use fastrand::Rng;
use k2k::{
    Broker, Builder, Command, Context, Endpoint, Fixed, Kernel, KernelId, Message, Priority, StartOptions, Wait,
};
use std::time::Instant;

const KERNELS: usize = 6;
type Shared = Broker<Fixed<KERNELS, 16, 64>>;

/// How long the writer writes.
fn duration() -> Duration {
    let seconds = std::env::var("K2K_SECONDS").ok().and_then(|s| s.parse().ok());
    Duration::from_secs(seconds.unwrap_or(3))
}

/// The other process: maps the file by itself and stores words into it until it is killed.
#[test]
fn writer() {
    use std::fs::OpenOptions;
    let Ok(path) = std::env::var("K2K_HOSTILE_PATH") else { return };
    let seed = std::env::var("K2K_HOSTILE_SEED").unwrap().parse().unwrap();
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let len = file.metadata().unwrap().len() as usize;
    let flags = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE;
    // SAFETY: a mapping of its own, at an address that the system chooses.
    let base = unsafe { rustix::mm::mmap(core::ptr::null_mut(), len, flags, rustix::mm::MapFlags::SHARED, &file, 0) };
    let words = base.unwrap().cast::<AtomicU64>();
    // SAFETY: `len / 8` words lie in the mapping, which stays for the life of this process.
    let words = unsafe { core::slice::from_raw_parts(words, len / 8) };
    let mut random = Rng::with_seed(seed);
    // Some words are written far more often than others: the first pages hold the kernel table.
    let table = (words.len() as u64).min(1024);
    let mut last = 0;
    loop {
        for _ in 0..256 {
            let at = if random.u64(..2) == 0 { random.u64(..table) } else { random.u64(..words.len() as u64) };
            let word = &words[at as usize];
            let value = match random.u64(..8) {
                0 => 0,
                1 => u64::MAX,
                2 => random.u64(..1 << 16),
                // One bit of what is there, or one more, or one less: nearly right is worse than wrong.
                3 => word.load(Relaxed) ^ 1 << random.u64(..64),
                4 => word.load(Relaxed).wrapping_add(1),
                5 => word.load(Relaxed).wrapping_sub(1),
                // What stood somewhere else.
                6 => last,
                _ => random.u64(..),
            };
            last = word.load(Relaxed);
            // Not the magic and the shape: who attaches must still find a fabric.
            if at >= 16 {
                word.store(value, Relaxed);
            }
        }
        // Endpoints that never see a whole message never get past the first check: let some through.
        std::thread::sleep(Duration::from_micros(random.u64(..200)));
    }
}

/// Does something, whatever it is told.
struct Anything(Rng);

impl Kernel<64> for Anything {
    fn on_message(&mut self, context: &mut impl Context<64>, message: &Message<64>) {
        let _ = context.reply(message, message);
        let _ = context.receipt(message.header.id());
        let to = KernelId::from_raw(self.0.u64(..) as _);
        let _ = context.send_priority(to, message, Priority::High);
    }
}

/// One operation of an endpoint, chosen at random.
fn operate(broker: &Shared, endpoint: &mut Endpoint<Fixed<KERNELS, 16, 64>>, random: &mut Rng) {
    let kernels = broker.kernels();
    let to = match random.u64(..4) {
        0 => KernelId::from_raw(random.u64(..) as _),
        _ if kernels.is_empty() => endpoint.id(),
        _ => kernels[random.u64(..kernels.len() as u64) as usize].0,
    };
    let mut message = Message::from_value(1, &random.u64(..));
    message.header.hop_limit = random.u64(..) as u8;
    match random.u64(..16) {
        0..=3 => drop(endpoint.send(to, &message)),
        4 => drop(endpoint.send_priority(to, &message, Priority::High)),
        5..=8 => {
            if let Some(request) = endpoint.try_receive() {
                assert!(request.payload().len() <= 64);
                let _ = endpoint.reply(&request, &request);
                let _ = endpoint.receipt(request.header.id());
            }
        }
        9 => _ = endpoint.poll(),
        10 => _ = endpoint.expire(),
        11 => _ = (endpoint.pending_count(), endpoint.backlog(), endpoint.command(), endpoint.stats()),
        12 => {
            let began = Instant::now();
            let _ = endpoint.receive(Duration::from_millis(random.u64(..5)));
            assert!(began.elapsed() < GUARD, "a receive of milliseconds");
        }
        13 => {
            let _ = broker.add_route(endpoint.id(), to, KernelId::from_raw(random.u64(..) as _));
            let _ = broker.route(endpoint.id(), to);
            broker.remove_route(endpoint.id(), to);
            let _ = (broker.deny(endpoint.id(), to), broker.is_allowed(endpoint.id(), to));
            broker.allow(endpoint.id(), to);
        }
        14 => {
            let _ = broker.command(to, [Command::Run, Command::Pause][random.u64(..2) as usize]);
            let _ = (broker.stats(), broker.trace(to), broker.find("worker-1"));
        }
        _ => {
            let _ = endpoint.now();
            endpoint.heartbeat();
        }
    }
}

#[test]
fn nothing_that_is_written_during_an_operation_breaks_it() {
    let shm = Shm::new("hostile");
    let broker: Shared =
        Builder::new().create(&shm.0).delivery_timeout(Duration::from_millis(20)).tracing(true).build().unwrap();
    let seed = 0x9e37_79b9_7f4a_7c15 ^ u64::from(std::process::id()) << 17;
    println!("seed {seed}");
    let path = shm.path();
    let role = [("K2K_HOSTILE_PATH", path.to_str().unwrap().to_owned()), ("K2K_HOSTILE_SEED", (seed | 1).to_string())];
    let role: Vec<(&str, &str)> = role.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut writer = Process::start("writer", &role);

    let over = AtomicBool::new(false);
    let operations = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for number in 0..3u64 {
            let (broker, over, operations) = (&broker, &over, &operations);
            scope.spawn(move || {
                let mut random = Rng::with_seed(seed ^ (number + 1) << 40);
                while !over.load(Relaxed) {
                    // The table may say that all indices are taken, or that the name is.
                    let name = format!("worker-{}-{}", number, random.u64(..1 << 20));
                    let register = if random.u64(..2) == 0 { Broker::register } else { Broker::register_parking };
                    let Ok(endpoint) = register(broker, &name) else {
                        operations.fetch_add(1, Relaxed);
                        continue;
                    };
                    let mut endpoint = endpoint.with_wait([Wait::Park, Wait::Yield][random.u64(..2) as usize]);
                    for _ in 0..random.u64(..2000) {
                        operate(broker, &mut endpoint, &mut random);
                        operations.fetch_add(1, Relaxed);
                        if over.load(Relaxed) {
                            break;
                        }
                    }
                }
            });
        }
        // Kernels in a run loop, which are told to stop by a word that the writer writes over: told again and again.
        let (broker, over) = (&broker, &over);
        scope.spawn(move || {
            let mut number = 0;
            while !over.load(Relaxed) {
                number += 1;
                let handler = Anything(Rng::with_seed(seed ^ number));
                let options = StartOptions { heartbeat: Duration::from_millis(5), ..StartOptions::default() };
                let Ok(handle) = broker.start(&format!("loop-{number}"), handler, options) else { continue };
                std::thread::sleep(Duration::from_millis(20));
                let began = Instant::now();
                while !handle.is_finished() {
                    let _ = handle.stop();
                    std::thread::sleep(Duration::from_millis(1));
                    assert!(began.elapsed() < GUARD, "a run loop does not end");
                    // Nobody can stop a kernel whose address the table does not know any more, but itself.
                    if over.load(Relaxed) && began.elapsed() > Duration::from_secs(1) {
                        return;
                    }
                }
                handle.join().expect("no handler panics");
            }
        });
        let began = Instant::now();
        let (mut before, mut stood_still) = (0, 0);
        while began.elapsed() < duration() {
            std::thread::sleep(Duration::from_millis(100));
            let now = operations.load(Relaxed);
            stood_still = if now == before { stood_still + 1 } else { 0 };
            before = now;
            assert!(Duration::from_millis(stood_still * 100) < GUARD / 4, "no operation ends any more");
            assert!(writer.0.try_wait().unwrap().is_none(), "the writer is still there");
        }
        writer.kill();
        over.store(true, Relaxed);
    });
    println!("{} operations under a writer, {:?}", operations.load(Relaxed), duration());
    assert!(operations.load(Relaxed) > 100);
}
