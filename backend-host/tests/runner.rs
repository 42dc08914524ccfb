//! Kernels on threads of their own.

mod common;
use common::{Echo, GUARD, broker, cpu_time_of, eventually, fill};
use core::time::Duration;
use k2k::{
    Context, DeliveryStatus, Kernel, KernelId, Message, Phase, SendError, StartError, StartOptions, StopError, Wait,
    allowed_cores,
};
use std::sync::mpsc;

/// Does what the kind of a message says.
struct Moody {
    handled: u32,
    release: mpsc::Receiver<()>,
}

const PANIC: u32 = 1;
const HANG: u32 = 2;
const STOP: u32 = 3;

impl Kernel<64> for Moody {
    fn on_message(&mut self, context: &mut impl Context<64>, message: &Message<64>) {
        self.handled += 1;
        match message.header.kind {
            PANIC => panic!("message {} was too much", self.handled),
            HANG => drop(self.release.recv()),
            STOP => context.stop(),
            _ => {}
        }
    }
}

fn moody() -> (Moody, mpsc::Sender<()>) {
    let (sender, release) = mpsc::channel();
    (Moody { handled: 0, release }, sender)
}

#[test]
fn a_kernel_runs_pauses_drains_and_comes_back() {
    for wait in [Wait::Spin, Wait::Yield, Wait::Park] {
        let broker = broker::<4, 32, 64>();
        let echo = broker.start("echo", Echo::default(), StartOptions { wait, ..StartOptions::default() }).unwrap();
        let mut me = broker.register_parking("me").unwrap();
        me.send(echo.id(), &Message::new(0)).unwrap();
        me.receive(GUARD).unwrap();
        eventually("it runs", || echo.phase() == Phase::Running);

        echo.pause().unwrap();
        eventually("it pauses", || echo.phase() == Phase::Paused);
        fill(&mut me, echo.id(), 10);
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(me.try_receive(), None, "a paused kernel handles nothing");
        echo.resume().unwrap();
        (0..10).for_each(|i| assert_eq!(me.receive(GUARD).unwrap().header.kind, i));

        echo.pause().unwrap();
        eventually("it pauses", || echo.phase() == Phase::Paused);
        fill(&mut me, echo.id(), 10);
        echo.drain().unwrap();
        let echo = echo.join().unwrap();
        assert_eq!((echo.handled, echo.stopped), (21, true));
        (0..10).for_each(|i| assert_eq!(me.receive(GUARD).unwrap().header.kind, i));
        assert_eq!(broker.pending(), 0);
    }
}

#[test]
fn stop_comes_before_mail_that_waits() {
    let broker = broker::<4, 32, 64>();
    let echo = broker.start("echo", Echo::default(), StartOptions::default()).unwrap();
    let mut me = broker.register_parking("me").unwrap();
    echo.pause().unwrap();
    eventually("it pauses", || echo.phase() == Phase::Paused);
    let ids: Vec<_> = (0..10).map(|i| me.send(echo.id(), &Message::new(i)).unwrap()).collect();
    let id = echo.id();
    let state = echo.stop_and_join(GUARD).unwrap();
    assert_eq!((state.handled, state.stopped), (0, true));
    assert!(ids.iter().all(|id| me.receipt(*id).unwrap().status == DeliveryStatus::NotFound));
    assert_eq!(me.send(id, &Message::new(0)), Err(SendError::NotFound { kernel: id }));
    assert_eq!(broker.pending(), 0);
}

#[test]
fn a_kernel_can_stop_itself() {
    let broker = broker::<4, 8, 64>();
    let (kernel, _release) = moody();
    let handle = broker.start("moody", kernel, StartOptions::default()).unwrap();
    let mut me = broker.register("me").unwrap();
    me.send(handle.id(), &Message::new(STOP)).unwrap();
    assert_eq!(handle.join().unwrap().handled, 1);
}

#[test]
fn a_panic_ends_one_kernel_and_no_other() {
    let broker = broker::<4, 8, 64>();
    broker.set_tracing(true);
    let (kernel, _release) = moody();
    let bad = broker.start("bad", kernel, StartOptions::default()).unwrap();
    let good = broker.start("good", Echo::default(), StartOptions::default()).unwrap();
    let mut me = broker.register_parking("me").unwrap();
    let bad_id = bad.id();
    me.send(bad_id, &Message::new(0)).unwrap();
    let last = me.send(bad_id, &Message::new(PANIC)).unwrap();
    eventually("it has failed", || bad.is_finished());
    assert_eq!(me.send(bad_id, &Message::new(0)), Err(SendError::NotFound { kernel: bad_id }));
    assert_eq!((bad.phase(), broker.find("bad")), (Phase::Failed, None));
    assert_eq!(me.receipt(last).unwrap().status, DeliveryStatus::Delivered);
    let failure = bad.join().err().expect("it has failed");
    assert_eq!((failure.id, &*failure.name, &*failure.message), (bad_id, "bad", "message 2 was too much"));
    assert_eq!(failure.to_string(), format!("kernel bad ({bad_id}) panicked: message 2 was too much"));
    assert_eq!(failure.trace.last().unwrap().id, last, "the trace ends with the message it failed at");

    me.send(good.id(), &Message::new(7)).unwrap();
    assert_eq!(me.receive(GUARD).unwrap().header.kind, 7);
    broker.clear_failed(bad_id).unwrap();
    assert!(broker.clear_failed(bad_id).is_err());
    assert_eq!(good.stop_and_join(GUARD).unwrap().handled, 1);
    assert_eq!(broker.pending(), 0);
}

#[test]
fn a_kernel_that_hangs_is_reported_with_its_last_signs_of_life() {
    let broker = broker::<4, 8, 64>();
    broker.set_tracing(true);
    let (kernel, release) = moody();
    let handle = broker.start("hangs", kernel, StartOptions::default()).unwrap();
    let mut me = broker.register("me").unwrap();
    let id = me.send(handle.id(), &Message::new(HANG)).unwrap();
    eventually("it has the message", || me.receipt(id).unwrap().status == DeliveryStatus::Delivered);
    let Err(StopError::Hangs(hanging)) = handle.stop_and_join(Duration::from_millis(50)) else {
        panic!("it cannot have stopped");
    };
    assert_eq!((hanging.phase, hanging.trace.last().unwrap().id), (Phase::Running, id));
    assert_eq!(hanging.heartbeats.0, hanging.heartbeats.1);
    let words = StopError::Hangs(hanging).to_string();
    assert!(words.contains("hangs in its handler") && words.contains("hangs ("), "{words}");
    drop(release);
    eventually("it has left", || broker.find("hangs").is_none());
}

#[test]
fn a_hanging_kernel_can_still_be_joined_later() {
    let broker = broker::<4, 8, 64>();
    let (kernel, release) = moody();
    let handle = broker.start("slow", kernel, StartOptions::default()).unwrap();
    let mut me = broker.register("me").unwrap();
    let id = me.send(handle.id(), &Message::new(HANG)).unwrap();
    eventually("it has the message", || me.receipt(id).unwrap().status == DeliveryStatus::Delivered);
    let Err(StopError::Hangs(hanging)) = handle.stop_and_join(Duration::from_millis(10)) else {
        panic!("it cannot have stopped");
    };
    release.send(()).unwrap();
    assert_eq!(hanging.handle.join().unwrap().handled, 1);
}

#[test]
fn a_thread_is_bound_to_the_core_that_was_asked_for() {
    struct Where(Option<usize>);
    impl Kernel<64> for Where {
        fn on_start(&mut self, context: &mut impl Context<64>) {
            let set = rustix::thread::sched_getaffinity(None).unwrap();
            self.0 = (set.count() == 1).then(rustix::thread::sched_getcpu);
            context.stop();
        }
        fn on_message(&mut self, _: &mut impl Context<64>, _: &Message<64>) {}
    }
    let broker = broker::<4, 8, 64>();
    let core = *allowed_cores().last().unwrap();
    let options = StartOptions { pin: Some(core), ..StartOptions::default() };
    assert_eq!(broker.start("pinned", Where(None), options).unwrap().join().unwrap().0, Some(core));
}

#[test]
fn a_core_that_does_not_exist_is_named() {
    let broker = broker::<4, 8, 64>();
    let options = StartOptions { pin: Some(1000), ..StartOptions::default() };
    let error = broker.start("k", Echo::default(), options).unwrap_err();
    assert!(matches!(&error, StartError::NoSuchCore { core: 1000, allowed } if *allowed == allowed_cores()));
    let count = allowed_cores().len();
    assert!(error.to_string().starts_with(&format!("cannot run on core 1000: this process may use {count} cores")));
    assert_eq!(broker.kernels(), [], "nothing stays registered");
}

#[test]
fn an_idle_kernel_uses_no_cpu_and_gives_signs_of_life() {
    let broker = broker::<4, 8, 64>();
    let handle = broker.start("idle-kernel", Echo::default(), StartOptions::default()).unwrap();
    std::thread::sleep(Duration::from_millis(700));
    let used = cpu_time_of("idle-kernel");
    assert!(used <= Duration::from_millis(20), "used {used:?} of CPU in 700 ms");
    let before = handle.heartbeat();
    eventually("it gives a sign of life", || handle.heartbeat() > before);
    handle.pause().unwrap();
    eventually("it pauses", || handle.phase() == Phase::Paused);
    let mut me = broker.register("me").unwrap();
    me.send(handle.id(), &Message::new(0)).unwrap();
    let before = cpu_time_of("idle-kernel");
    std::thread::sleep(Duration::from_millis(500));
    let used = cpu_time_of("idle-kernel") - before;
    assert!(used <= Duration::from_millis(20), "paused with mail, it used {used:?} of CPU in 500 ms");
    handle.stop_and_join(GUARD).unwrap();
}

/// A parked kernel that sent into the void notices without being asked.
#[test]
fn an_idle_kernel_ends_its_overdue_messages() {
    struct Asks(KernelId);
    impl Kernel<64> for Asks {
        fn on_start(&mut self, context: &mut impl Context<64>) {
            context.send(self.0, &Message::new(0)).unwrap();
        }
        fn on_message(&mut self, _: &mut impl Context<64>, _: &Message<64>) {}
    }
    let broker =
        k2k::Builder::<k2k::Fixed<4, 8, 64>>::new().delivery_timeout(Duration::from_millis(30)).build().unwrap();
    let silent = broker.register("silent").unwrap();
    let options = StartOptions { heartbeat: Duration::from_millis(20), ..StartOptions::default() };
    let handle = broker.start("asks", Asks(silent.id()), options).unwrap();
    eventually("it has timed out", || broker.stats().timeout == 1);
    assert_eq!(broker.pending(), 0);
    handle.stop_and_join(GUARD).unwrap();
}

#[test]
fn a_handle_that_is_dropped_lets_its_kernel_run() {
    let broker = broker::<4, 8, 64>();
    let id = broker.start("echo", Echo::default(), StartOptions::default()).unwrap().id();
    let mut me = broker.register_parking("me").unwrap();
    me.send(id, &Message::new(1)).unwrap();
    assert_eq!(me.receive(GUARD).unwrap().header.kind, 1);
    broker.unregister(id).unwrap();
    eventually("it has left", || !broker.is_registered(id));
}

/// Panics when it is dropped, as often as it is asked to.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a destructor");
    }
}

/// Panics with a payload whose destructor panics, and so does its own.
struct Minefield {
    _state: Bomb,
}

impl Kernel<64> for Minefield {
    fn on_message(&mut self, context: &mut impl Context<64>, message: &Message<64>) {
        if message.header.kind == PANIC {
            std::panic::panic_any(Bomb);
        }
        context.stop();
    }
}

#[test]
fn panics_in_destructors_end_no_thread_but_the_kernels() {
    let broker = broker::<4, 8, 64>();
    let mut me = broker.register("me").unwrap();
    // The handler's panic and its state.
    let handle = broker.start("both", Minefield { _state: Bomb }, StartOptions::default()).unwrap();
    let id = handle.id();
    me.send(id, &Message::new(PANIC)).unwrap();
    assert_eq!(handle.join().err().expect("it has failed").message, "a value that is no text");
    broker.clear_failed(id).unwrap();
    // The state of a kernel that nobody joins.
    let id = broker.start("alone", Minefield { _state: Bomb }, StartOptions::default()).unwrap().id();
    me.send(id, &Message::new(STOP)).unwrap();
    eventually("it has left", || !broker.is_registered(id));
}
