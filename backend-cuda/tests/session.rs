//! Sessions on the emulated device: what a GPU is asked for, in the same order, with kernels that obey the contract and
//! kernels that do not.
#![cfg(feature = "emulated")]

use core::time::Duration;
use k2k::inspect::{Condition, View, Watch};
use k2k::memory::{self, FileOptions};
use k2k::{Fixed, Host, Memory, Read};
use k2k_cuda::k2k_core::fabric::Status;
use k2k_cuda::k2k_core::sync::Ordering::Acquire;
use k2k_cuda::k2k_core::sync::{AtomicU32, Gpu};
use k2k_cuda::k2k_core::{CLOCK_MARGIN_NS, Command, Config, KernelId, Phase, Platform, Registration};
use k2k_cuda::{Clock, Device, EmulatedOptions, Error, Grid, Outcome, Ptx, Running, Session, host_clock_ns};
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

type TestSession = Session<Fixed<4, 8, 64, Gpu>>;
type TestRunning = Running<Fixed<4, 8, 64, Gpu>>;

const LONG: Duration = Duration::from_secs(30);

fn device() -> Device {
    Device::emulated(EmulatedOptions::default()).unwrap()
}

fn ptx() -> Ptx {
    Ptx::new(include_str!("ptx/kernels.ptx")).unwrap()
}

fn session(device: &Device) -> TestSession {
    let mut session = TestSession::new(device, &Config::default()).unwrap();
    session.load(&ptx()).unwrap();
    session
}

fn add(session: &mut TestSession, grid: Grid) -> Result<(), Error> {
    // SAFETY: the tests' entry points keep the contract for any fabric of four kernels, and addresses are kept.
    unsafe { session.add(grid) }
}

fn start(device: &Device, grids: impl IntoIterator<Item = Grid>) -> TestRunning {
    let mut session = session(device);
    for grid in grids {
        add(&mut session, grid).unwrap();
    }
    session.start().unwrap()
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < LONG, "{what} did not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn kernels_start_register_beat_and_stop() {
    let device = device();
    let mut running =
        start(&device, [Grid::new("test_loop").name("a").blocks(2), Grid::new("test_loop").name("b").threads(64)]);
    assert!(device.is_busy());
    let ids = running.wait_ready(LONG).unwrap();
    let at_work: Vec<_> = device.at_work().iter().map(ToString::to_string).collect();
    assert_eq!(at_work.len(), 3);
    assert_eq!(at_work[1], "kernel a-1 (test_loop, block 1) is at work");
    assert_eq!(ids, [0, 1, 2].map(|index| KernelId::new(index, 1)));
    let seen = running.observe().unwrap();
    let names: Vec<_> = seen.kernels().map(|(_, name)| name.to_string()).collect();
    assert_eq!(names, ["a-0", "a-1", "b"]);
    assert_eq!(seen.phase(ids[2]), Some(Phase::Running));
    let beats = seen.heartbeat(ids[2]);
    until("a heartbeat", || running.observe().unwrap().heartbeat(ids[2]) > beats);
    let ended = running.stop(LONG).unwrap();
    assert_eq!(device.at_work(), []);
    let said: Vec<_> = ended.iter().map(|e| (e.name.as_str(), e.block, e.outcome(), e.report.values[0])).collect();
    let stopped = (Some(Outcome::Finished), Command::Stop as u64);
    assert_eq!(
        said,
        [("a-0", 0, stopped.0, stopped.1), ("a-1", 1, stopped.0, stopped.1), ("b", 0, stopped.0, stopped.1)]
    );
    assert_eq!(running.observe().unwrap().phase(ids[0]), Some(Phase::Stopped));
    assert!(running.is_finished().unwrap() && !device.is_busy());
    // Again on the same device, and asked twice.
    assert_eq!(running.stop(Duration::ZERO).unwrap().len(), 3);
    drop(running);
    let mut running = start(&device, [Grid::new("test_loop")]);
    running.stop(LONG).unwrap();
}

#[test]
fn drain_and_join() {
    let device = device();
    let mut running = start(&device, [Grid::new("test_loop").name("a")]);
    running.wait_ready(LONG).unwrap();
    let ended = running.drain(LONG).unwrap();
    assert_eq!(ended[0].report.values[0], Command::Drain as u64);
    drop(running);
    // One that ends by itself needs no telling.
    let mut running = start(&device, [Grid::new("test_once")]);
    let ended = running.join(LONG).unwrap();
    assert_eq!(ended[0].outcome(), Some(Outcome::Finished));
    assert_eq!(ended[0].kernel(), None);
}

#[test]
fn commands_reach_running_kernels_one_by_one() {
    let device = device();
    let mut running = start(&device, [Grid::new("test_loop").name("a").blocks(2)]);
    let ids = running.wait_ready(LONG).unwrap();
    running.command(ids[0], Command::Pause).unwrap();
    until("a pause", || running.observe().unwrap().phase(ids[0]) == Some(Phase::Paused));
    assert_eq!(running.observe().unwrap().phase(ids[1]), Some(Phase::Running));
    running.command(ids[0], Command::Run).unwrap();
    until("an end of the pause", || running.observe().unwrap().phase(ids[0]) == Some(Phase::Running));
    running.command(ids[0], Command::Stop).unwrap();
    until("an end", || running.reports().unwrap()[0].outcome() == Some(Outcome::Finished));
    assert!(!running.is_finished().unwrap(), "the grid's other block runs");
    assert!(matches!(running.command(ids[0], Command::Run), Err(Error::NotRegistered(id)) if id == ids[0]));
    assert!(matches!(running.command(KernelId::new(9, 1), Command::Run), Err(Error::NotRegistered(_))));
    running.stop(LONG).unwrap();
}

#[test]
fn a_kernel_that_never_returns_is_reported_in_time_and_its_memory_stays() {
    let device = device();
    let owner = Arc::new(());
    let mut running = start(
        &device,
        [Grid::new("test_loop").name("good"), Grid::new("test_stuck").name("stuck").keep(Arc::clone(&owner))],
    );
    running.wait_ready(LONG).unwrap();
    let started = Instant::now();
    let Err(Error::Hung(hung)) = running.stop(Duration::from_millis(300)) else { panic!("it hangs") };
    assert!(started.elapsed() < LONG, "reported in time");
    assert_eq!((hung.blocks, hung.kernels.len()), (2, 1));
    let kernel = &hung.kernels[0];
    assert_eq!((kernel.report.name.as_str(), kernel.report.entry.as_str(), kernel.index), ("stuck", "test_stuck", 1));
    assert_eq!((kernel.status, kernel.phase), (Some(Status::Registered), Phase::Running));
    assert_eq!((kernel.heartbeats, kernel.moves()), ((7, 7), false));
    assert_eq!((kernel.stats.sent, kernel.stats.received, kernel.waiting), (3, 7, 0));
    let waited = hung.waited;
    assert_eq!(
        hung.to_string(),
        format!(
            "1 of 2 kernels have not ended after {waited:?}:\n  kernel stuck (test_stuck, block 0) is at work; index \
             1, phase Running, heartbeat 7 (stands still: it is stuck in its handler or in the device)\n    3 sent, 7 \
             received, 0 failed, 0 refused, 0 waiting"
        )
    );
    // The good one has ended meanwhile; the session still answers.
    assert_eq!(running.reports().unwrap()[0].outcome(), Some(Outcome::Finished));
    drop(running);
    assert!(device.is_busy());
    assert_eq!(Arc::strong_count(&owner), 2, "what the kernel may use is kept");
    let refused = device.allocate(8).unwrap_err().to_string();
    assert_eq!(
        refused,
        "cannot allocate device memory while kernels run on this device: the driver would wait for them; do it before \
         they start, or after they have ended"
    );
}

#[test]
fn a_running_kernel_that_nobody_stops_is_told_apart() {
    let device = device();
    let mut running = start(&device, [Grid::new("test_loop").name("a")]);
    running.wait_ready(LONG).unwrap();
    let Err(Error::Hung(hung)) = running.join(Duration::from_millis(200)) else { panic!("nobody stopped it") };
    assert!(hung.kernels[0].moves());
    assert!(hung.to_string().contains("passes of its loop meanwhile: it runs, and has not been stopped"), "{hung}");
    running.stop(LONG).unwrap();
}

#[test]
fn dropping_a_session_stops_it_and_frees_what_was_dropped_before() {
    struct Tell(Arc<Mutex<Vec<&'static str>>>, &'static str);
    impl Drop for Tell {
        fn drop(&mut self) {
            self.0.lock().unwrap().push(self.1);
        }
    }
    let device = device();
    let dropped = Arc::new(Mutex::new(Vec::new()));
    let buffer = device.allocate(64).unwrap();
    let running = start(&device, [Grid::new("test_loop").keep(Tell(Arc::clone(&dropped), "kept"))]);
    // While it runs: given back later, and not a problem.
    drop(buffer);
    assert!(dropped.lock().unwrap().is_empty());
    drop(running);
    assert!(!device.is_busy());
    assert_eq!(*dropped.lock().unwrap(), ["kept"]);
}

#[test]
fn a_refusal_is_an_error_before_anyone_waits() {
    let device = device();
    let mut running = start(&device, [Grid::new("test_refuses").name("r").parameter(0, 99)]);
    let refused = running.wait_ready(LONG).unwrap_err();
    assert_eq!(refused.to_string(), "kernel r (test_refuses, block 0) cannot use parameter 0, which is 99");
    assert!(running.join(LONG).unwrap()[0].is_refusal());
}

#[test]
fn a_fault_ends_everything_with_the_thread_and_the_line() {
    let device = device();
    let mut running = start(&device, [Grid::new("test_faults").threads(1)]);
    let fault = running.join(LONG).unwrap_err().to_string();
    assert!(fault.starts_with("emulated device: access to 4 bytes at 0x40, outside of all memory"), "{fault}");
    assert!(fault.contains("test_faults") && fault.contains("st.relaxed.sys.u32 [%rd1], %r1;"), "{fault}");
    assert!(!device.is_busy(), "nothing runs any more");
}

#[test]
fn what_cannot_start_is_refused_with_numbers_and_names() {
    let device = Device::emulated(EmulatedOptions { blocks: 3, ..EmulatedOptions::default() }).unwrap();
    let mut session = session(&device);
    for (grid, expected) in [
        (
            Grid::new("test_lop"),
            "there is no entry point test_lop; those there are: test_loop, test_stuck, test_refuses, test_once, \
            test_faults",
        ),
        (
            Grid::new("test_loop").blocks(5),
            "5 kernels do not fit into a fabric with 4 indices: use a fabric with more KERNELS, or fewer blocks",
        ),
        (Grid::new("test_loop").blocks(0), "test_loop: a grid has at least one block"),
        (Grid::new("test_loop").threads(1025), "test_loop: a block has 1 to 1024 threads, not 1025"),
        (
            Grid::new("test_loop").name("a name that is longer than its room").blocks(2),
            "test_loop: the name \"a name that is longer than its room-1\" is not one of 1 to 32 bytes without NUL",
        ),
        (Grid::new("test_loop").name(""), "test_loop: the name \"\" is not one of 1 to 32 bytes without NUL"),
    ] {
        assert_eq!(add(&mut session, grid).unwrap_err().to_string(), expected);
    }
    add(&mut session, Grid::new("test_loop").name("a").blocks(2)).unwrap();
    add(&mut session, Grid::new("test_loop").name("b").blocks(2)).unwrap();
    let refused = session.start().unwrap_err();
    assert!(matches!(refused, Error::TooManyBlocks { asked: 4, resident: 3, mixed: false }));
    assert_eq!(
        refused.to_string(),
        "4 blocks cannot all run at the same time: 3 are certain to fit on this device; use fewer, or fewer threads \
        per block"
    );
    assert!(!device.is_busy(), "nothing was started");
}

#[test]
fn ptx_that_the_device_cannot_take_is_refused_with_both_versions() {
    let device = device();
    let mut session = TestSession::new(&device, &Config::default()).unwrap();
    let refusal =
        |session: &mut TestSession, text: &'static str| session.load(&Ptx::new(text).unwrap()).unwrap_err().to_string();
    assert_eq!(
        refusal(&mut session, ".version 7.0\n.target sm_120\n"),
        "the PTX is for compute capability 12.0 or later, and this device has 10.0: compile it for sm_100"
    );
    assert_eq!(
        refusal(&mut session, ".version 9.9\n.target sm_70\n"),
        "the driver is for CUDA 13.5, and PTX 9.9 needs one for CUDA 13.9 or later: install a newer driver, or \
         compile the PTX for an older version"
    );
    let log = refusal(&mut session, ".version 7.0\n.target sm_70\n.visible .entry oops() {\n  fly.me %r1;\n}\n");
    assert!(log.starts_with("the PTX (entry points: oops) was refused:\n  ") && log.contains("fly"), "{log}");
    session.load(&ptx()).unwrap();
    let twice = format!("{}\n// another text", ptx().text());
    let log = session.load(&Ptx::new(twice).unwrap()).unwrap_err().to_string();
    assert!(log.contains("another text with an entry point test_loop has been loaded"), "{log}");
}

#[test]
fn one_session_at_a_time() {
    let device = device();
    let waiting = session(&device);
    let mut running = start(&device, [Grid::new("test_loop")]);
    assert!(matches!(waiting.start(), Err(Error::Busy { .. })));
    assert!(matches!(TestSession::new(&device, &Config::default()), Err(Error::Busy { .. })));
    running.stop(LONG).unwrap();
    TestSession::new(&device, &Config::default()).unwrap();
}

#[test]
fn a_device_works_on_host_memory_and_on_a_registered_fabric() {
    let device = device();
    let shared = Arc::new(device.allocate_host(64).unwrap());
    let grid = |address| Grid::new("test_once").threads(1).parameter(0, address);
    let mut running = start(&device, [grid(shared.address()).keep(Arc::clone(&shared))]);
    running.join(LONG).unwrap();
    // SAFETY: 64 zeroed bytes, aligned, in which the kernel has counted.
    let count = unsafe { &*shared.as_ptr().cast::<AtomicU32>() };
    assert_eq!(count.load(Acquire), 1);
    drop(running);

    let memory = Memory::<Fixed<4, 8, 64>>::heap(&Config::default()).unwrap();
    let registered = device.register(&memory).unwrap();
    assert_eq!(registered.len(), Memory::<Fixed<4, 8, 64>>::SIZE);
    // The phase of a kernel that does nothing.
    let host = Host::default();
    let idle = memory.register(&Registration::new("idle").unwrap().at(3), &host).unwrap();
    let config = memory.config();
    let mut running = start(&device, [grid(registered.address() + 128 + 3 * 384 + 144)]);
    running.join(LONG).unwrap();
    assert_eq!((memory.config(), memory.phase(idle.id())), (config, Some(Phase::Running)));
    drop(idle);
    assert!(matches!(device.register(&memory), Err(Error::Emulated(_))), "registered twice");
    drop(registered);
    device.register(&memory).unwrap();
}

#[test]
fn buffers_have_bounds() {
    let device = device();
    let mut buffer = device.allocate(100).unwrap();
    assert!(buffer.address().is_multiple_of(256));
    let bytes: Vec<u8> = (0..100).collect();
    buffer.write(0, &bytes).unwrap();
    buffer.write(13, &[200; 19]).unwrap();
    let mut back = [0; 97];
    buffer.read(3, &mut back).unwrap();
    let expected: Vec<u8> = (3..100).map(|i| if (13..32).contains(&i) { 200 } else { i }).collect();
    assert_eq!(back[..], expected[..]);
    for (offset, len) in [(101, 0), (100, 1), (1, 100), (usize::MAX, 2)] {
        let e = buffer.read(offset, &mut vec![0; len]).unwrap_err();
        assert!(matches!(e, Error::OutOfBounds { .. }), "{e}");
    }
    let e = buffer.read(90, &mut [0; 20]).unwrap_err().to_string();
    assert_eq!(e, "bytes 90 to 110 lie outside the buffer, which has 100");
}

#[test]
fn the_clock_is_measured_to_within_its_error() {
    let options = EmulatedOptions { clock: Clock::Host, ..EmulatedOptions::default() };
    let running = start(&Device::emulated(options).unwrap(), [Grid::new("test_once")]);
    let clock = running.clock();
    // The two start at different times, and neither can be set: what is between them stays.
    let host = Host::new();
    let (before, device_ns, after) = (host.now_ns(), host_clock_ns(), host.now_ns());
    let between = before.wrapping_sub(device_ns).cast_signed();
    let error = (clock.offset_ns - between).unsigned_abs();
    assert!(
        error <= clock.error_ns + (after - before) + CLOCK_MARGIN_NS,
        "{clock:?}, seen {between} by {}",
        after - before
    );
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let device_wall = host_clock_ns().wrapping_add_signed(clock.offset_ns).wrapping_add(clock.wall_offset_ns);
    assert!(wall.abs_diff(device_wall) < LONG.as_nanos() as u64, "{wall} {device_wall}");

    let options = EmulatedOptions {
        clock: Clock::Virtual { start_ns: 1000, ns_per_instruction: 1 },
        ..EmulatedOptions::default()
    };
    let running = start(&Device::emulated(options).unwrap(), [Grid::new("test_once")]);
    let now = host.now_ns().cast_signed();
    let off = (now - running.clock().offset_ns).unsigned_abs();
    assert!(off < LONG.as_nanos() as u64, "the device's clock is near 0: {off}");
}

#[test]
fn races_are_found_if_asked_for() {
    let device = Device::emulated(EmulatedOptions { races: true, ..EmulatedOptions::default() }).unwrap();
    // A clean one first, observed all the time.
    let mut running = start(&device, [Grid::new("test_loop").name("a").blocks(2)]);
    running.wait_ready(LONG).unwrap();
    for _ in 0..20 {
        running.observe().unwrap();
    }
    running.stop(LONG).unwrap();
}

#[test]
fn everything_can_go_to_another_thread() {
    fn check<T: Send + Sync>() {}
    check::<Device>();
    check::<Error>();
    check::<k2k_cuda::DeviceBuffer>();
    check::<k2k_cuda::HostBuffer>();
    check::<k2k_cuda::Registered>();
    check::<k2k_cuda::Snapshot<Fixed<4, 8, 64, Gpu>>>();
    let device = device();
    let mut running = start(&device, [Grid::new("test_loop")]);
    std::thread::spawn(move || running.stop(LONG).unwrap()).join().unwrap();
}

/// What a grid keeps is the user's, and so is a listener: their panics leave the device as it is.
#[test]
fn panics_of_users_code_keep_a_device_from_nothing() {
    struct Panics(Arc<Mutex<u32>>);
    impl Drop for Panics {
        fn drop(&mut self) {
            *self.0.lock().unwrap() += 1;
            panic!("expected: in the destructor of what a grid keeps");
        }
    }
    let device = device();
    device.on_compile(|_| panic!("expected: in a listener"));
    let dropped = Arc::new(Mutex::new(0));
    for n in 1..=2 {
        let grid = || Grid::new("test_loop").keep(Panics(Arc::clone(&dropped))).keep(Panics(Arc::clone(&dropped)));
        let mut running = start(&device, [grid().name("a")]);
        running.wait_ready(LONG).unwrap();
        running.stop(LONG).unwrap();
        drop(running);
        assert_eq!((*dropped.lock().unwrap(), device.is_busy()), (2 * n, false));
    }
    device.allocate(256).unwrap();
}

/// What an onlooker finds in a file: the name, phase and heartbeat of each kernel.
fn published(file: &str) -> Vec<(String, Phase, u64)> {
    let mut view = View::open(file).unwrap();
    assert!(view.is_copy());
    let look = view.look().unwrap();
    look.kernels.iter().map(|kernel| (kernel.label(), kernel.phase, kernel.heartbeat)).collect()
}

#[test]
fn onlookers_see_a_sessions_kernels_in_a_file_while_it_waits_for_them() {
    let device = device();
    let file = format!("k2k-test-published-{}", std::process::id());
    let mut running = start(&device, [Grid::new("test_loop").name("a").blocks(2)]);
    running.publish(&file, FileOptions::new()).unwrap();
    running.wait_ready(LONG).unwrap();
    running.observe().unwrap();
    assert_eq!(published(&file).iter().map(|(name, ..)| name.clone()).collect::<Vec<_>>(), ["a-0", "a-1"]);
    // While the session waits, and its kernels do not end.
    std::thread::scope(|scope| {
        let onlooker = scope.spawn(|| {
            let first = published(&file);
            until("both heartbeats go on", || {
                let now = published(&file);
                first.iter().zip(&now).all(|(first, now)| now.2 > first.2 && now.1 == Phase::Running)
            });
        });
        while !onlooker.is_finished() {
            assert!(matches!(running.join(Duration::from_millis(300)), Err(Error::Hung(_))));
        }
    });
    // Nobody takes it for a fabric in which there is somebody to talk to.
    let refused = Memory::<Read>::open(&file).unwrap_err();
    assert!(refused.to_string().contains("it is a copy, for onlookers"), "{refused}");
    // Nor is another's file taken for a copy.
    let other = format!("{file}-other");
    let memory =
        Memory::<Read>::create_of(Read::new(2, 4, 0).unwrap(), &other, &Config::default(), &FileOptions::new());
    assert!(matches!(running.publish(&other, FileOptions::new()), Err(Error::Memory(_))));
    drop(memory.unwrap());
    memory::remove(&other).unwrap();
    running.publish(&file, FileOptions::new()).unwrap();
    running.stop(LONG).unwrap();
    assert!(published(&file).iter().all(|(_, phase, _)| *phase == Phase::Stopped));
    drop(running);
    assert!(!memory::path_of(&file).unwrap().exists());
}

#[test]
fn a_kernel_that_hangs_is_seen_to_hang_while_it_does_and_not_if_nobody_looks_after_it() {
    let device = device();
    let file = format!("k2k-test-hangs-{}", std::process::id());
    device.publish(Some(&file));
    let mut running = start(&device, [Grid::new("test_loop").name("good"), Grid::new("test_stuck").name("stuck")]);
    running.wait_ready(LONG).unwrap();
    running.observe().unwrap();
    let mut watch = Watch::new(View::open(&file).unwrap()).patience(Duration::from_millis(400));
    let conditions = |watch: &mut Watch| {
        let report = watch.look().unwrap();
        report.kernels().map(|(kernel, detail)| (kernel.label(), detail.condition)).collect::<Vec<_>>()
    };
    // The copy is as old as the session's last look: that nothing moves in it says nothing.
    for _ in 0..8 {
        let seen = conditions(&mut watch);
        assert!(seen.iter().all(|(_, condition)| *condition > Condition::Stalled), "{seen:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    std::thread::scope(|scope| {
        let onlooker = scope.spawn(|| {
            until("one is seen to hang, and the other is not", || {
                let seen = conditions(&mut watch);
                let of = |name: &str| seen.iter().find(|(kernel, _)| kernel == name).map(|(_, condition)| *condition);
                of("stuck") == Some(Condition::Hung) && of("good") != Some(Condition::Hung)
            });
        });
        while !onlooker.is_finished() {
            assert!(matches!(running.join(Duration::from_millis(300)), Err(Error::Hung(_))));
        }
    });
    drop(running);
    assert!(device.is_busy() && !memory::path_of(&file).unwrap().exists());
}
