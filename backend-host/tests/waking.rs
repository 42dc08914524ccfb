//! No death of a sender, and no store into the wake flag, keeps a receiver asleep: blocking, in `async` code, in a run
//! loop, or paused. This test program starts itself again as the sender that dies.

mod common;
use common::{Echo, GUARD, Process, Shm, eventually, patient};
use core::time::Duration;
use k2k::k2k_core::WakeFlag;
use k2k::k2k_core::sync::Ordering::Relaxed;
use k2k::wait::longest_slice;
use k2k::{
    Broker, Builder, Command, Endpoint, Fixed, Host, KernelId, Message, Phase, Platform, ReceiveError, Registration,
    StartOptions,
};
use std::sync::mpsc;
use std::time::Instant;

type Shared = Broker<Fixed<4, 8, 64>>;

const FILE: &str = "K2K_TEST_FILE";
const TO: &str = "K2K_TEST_TO";
const VIA: &str = "K2K_TEST_VIA";

/// Long past any slice on a busy machine, and far from any other time limit here.
const SOON: Duration = Duration::from_secs(20);
/// A heartbeat that does not help.
const NEVER: Duration = Duration::from_secs(3600);

/// A host whose process is killed where it would wake a sleeper.
struct Doomed(Host);

impl Platform for Doomed {
    fn now_ns(&self) -> u64 {
        self.0.now_ns()
    }

    fn wake(&self, _: &WakeFlag) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// Not a test by itself: the sender that dies.
#[test]
fn other_process() {
    let Ok(file) = std::env::var(FILE) else { return };
    let broker: Shared = Builder::new().open(&file).build().unwrap();
    let find = |name: &str| broker.find(&std::env::var(name).unwrap()).unwrap();
    let mut sender = broker.memory().register(&Registration::new("doomed").unwrap(), Doomed(Host::new())).unwrap();
    broker.add_route(sender.id(), find(TO), find(VIA)).unwrap();
    let _ = sender.send(find(TO), &Message::new(1));
    panic!("the receiver was not asleep");
}

/// Sends one message from a process that is killed before it wakes the next hop.
fn send_and_die(file: &str, to: &str, via: &str) {
    let mut process = Process::start("other_process", &[(FILE, file), (TO, to), (VIA, via)]);
    let status = process.0.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{status}");
}

/// A kernel's wake flag, to be looked at and written over from outside.
#[derive(Clone, Copy)]
struct Outside(*const WakeFlag);

// SAFETY: a test keeps the fabric's memory while it has one of these.
unsafe impl Send for Outside {}

impl Outside {
    fn of(endpoint: &Endpoint<Fixed<4, 8, 64>>) -> Self {
        Self(endpoint.as_core().wake_flag())
    }

    fn flag(&self) -> &WakeFlag {
        // SAFETY: as above.
        unsafe { &*self.0 }
    }

    /// Waits until the kernel is asleep and no longer about to be.
    fn wait_for_sleep(&self) {
        eventually("it sleeps", || self.flag().is_asleep());
        std::thread::sleep(4 * longest_slice(4));
        eventually("it still sleeps", || self.flag().is_asleep());
    }
}

/// How a kernel waits for mail.
#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    Blocking,
    Async,
    Running,
}

const ALL: [How; 3] = [How::Blocking, How::Async, How::Running];

/// A kernel on a thread of its own; what comes out of its wait comes out of the channel.
fn sleeper(broker: &Shared, how: How) -> (KernelId, Outside, mpsc::Receiver<Result<u32, ReceiveError>>) {
    struct Forward(mpsc::Sender<Result<u32, ReceiveError>>);
    impl k2k::Kernel<64> for Forward {
        fn on_message(&mut self, _: &mut impl k2k::Context<64>, message: &Message<64>) {
            let _ = self.0.send(Ok(message.header.kind));
        }
        fn on_stop(&mut self, _: &mut impl k2k::Context<64>) {
            let _ = self.0.send(Err(ReceiveError::Stopped));
        }
    }
    let mut endpoint = broker.register_parking("sleeper").unwrap();
    let (id, outside) = (endpoint.id(), Outside::of(&endpoint));
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let kind = |received: Result<Message<64>, _>| received.map(|message| message.header.kind);
        let outcome = match how {
            How::Blocking => kind(endpoint.receive(None)),
            How::Async => {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                kind(runtime.block_on(endpoint.receive_async()))
            }
            How::Running => return endpoint.run(&mut Forward(tell), NEVER),
        };
        let _ = tell.send(outcome);
    });
    outside.wait_for_sleep();
    (id, outside, told)
}

#[test]
fn a_receiver_wakes_though_its_only_sender_was_killed_before_the_wake_up() {
    for how in ALL {
        let shm = Shm::new(&format!("waking-{how:?}"));
        let broker: Shared = patient().create(&shm.0).build().unwrap();
        let (_, _, told) = sleeper(&broker, how);
        send_and_die(&shm.0, "sleeper", "sleeper");
        assert_eq!(told.recv_timeout(SOON), Ok(Ok(1)), "{how:?}");
    }
}

#[test]
fn a_receiver_hears_stop_though_a_sender_was_killed_before_the_wake_up() {
    for how in ALL {
        let shm = Shm::new(&format!("waking-stop-{how:?}"));
        let broker: Shared = patient().create(&shm.0).build().unwrap();
        let (id, _, told) = sleeper(&broker, how);
        send_and_die(&shm.0, "sleeper", "sleeper");
        // It may have found the mail at the end of a slice, and have left.
        let _ = broker.command(id, Command::Stop);
        let first = told.recv_timeout(SOON).unwrap();
        assert!(first == Ok(1) || first == Err(ReceiveError::Stopped), "{how:?}: {first:?}");
    }
}

#[test]
fn a_paused_kernel_passes_on_what_a_sender_sent_that_was_killed_before_the_wake_up() {
    let shm = Shm::new("waking-paused");
    let broker: Shared = patient().create(&shm.0).build().unwrap();
    let options = StartOptions { heartbeat: NEVER, ..StartOptions::default() };
    let paused = broker.start("paused", Echo::default(), options).unwrap();
    paused.pause().unwrap();
    eventually("it pauses", || paused.phase() == Phase::Paused);
    std::thread::sleep(4 * longest_slice(4));
    let mut last = broker.register("last").unwrap();
    send_and_die(&shm.0, "last", "paused");
    assert_eq!(last.receive(SOON).expect("it was passed on").header.kind, 1);
    paused.stop_and_join(GUARD).unwrap();
}

#[test]
fn a_receiver_wakes_though_its_wake_flag_was_overwritten() {
    for how in ALL {
        for word in [0, 1, u32::MAX - 1, u32::MAX] {
            for command in [false, true] {
                let broker: Shared = patient().build().unwrap();
                let mut sender = broker.register("sender").unwrap();
                let (id, outside, told) = sleeper(&broker, how);
                outside.flag().word().store(word, Relaxed);
                let expected = if command {
                    broker.command(id, Command::Stop).unwrap();
                    Err(ReceiveError::Stopped)
                } else {
                    sender.send(id, &Message::new(1)).unwrap();
                    Ok(1)
                };
                assert_eq!(told.recv_timeout(SOON), Ok(expected), "{how:?}, {word}");
                let _ = broker.command(id, Command::Stop);
            }
        }
    }
}

/// All the slices of a fabric of sleeping kernels together.
#[test]
fn a_fabric_of_sleeping_kernels_uses_next_to_no_cpu() {
    let broker: Broker<Fixed<16, 8, 64>> = patient().build().unwrap();
    let names: Vec<String> = (0..16).map(|i| format!("idle-of-16-{i}")).collect();
    let start = |name: &String| broker.start(name, Echo::default(), StartOptions::default()).unwrap();
    let kernels: Vec<_> = names.iter().map(start).collect();
    std::thread::sleep(Duration::from_millis(200));
    let used = || names.iter().map(|name| common::cpu_time_of(name)).sum::<Duration>();
    let (before, began) = (used(), Instant::now());
    std::thread::sleep(Duration::from_secs(2));
    let share = (used() - before).as_secs_f64() / began.elapsed().as_secs_f64();
    assert!(share < 0.02, "{:.2} % of a core", share * 100.0);
    drop(kernels);
}
