//! A copy of an endpoint in a forked process writes nothing to shared memory, whatever is asked of it.

mod common;

use common::fabric;
use core::cell::Cell;
use k2k_core::gateway::GatewayConfig;
use k2k_core::{
    Command, Config, Context, Endpoint, Fabric, Fixed, Gateway, Idle, Kernel, LinkEnd, LinkHalf, Message, Phase,
    Platform, Priority, Registration, SendError, WakeFlag, run,
};

/// A process that can become the child of a fork.
struct Process {
    here: Cell<bool>,
    now_ns: Cell<u64>,
}

impl Process {
    const fn new() -> Self {
        Self { here: Cell::new(true), now_ns: Cell::new(1) }
    }
}

impl Platform for Process {
    fn now_ns(&self) -> u64 {
        self.now_ns.get()
    }
    fn wake(&self, _: &WakeFlag) {
        assert!(self.here.get(), "a copy wakes nobody");
    }
    fn is_here(&self) -> bool {
        self.here.get()
    }
}

fn bytes<T>(of: &T) -> Vec<u8> {
    // SAFETY: nobody writes meanwhile, and the types are shared memory, which has no padding.
    unsafe { core::slice::from_raw_parts(core::ptr::from_ref(of).cast::<u8>(), size_of::<T>()) }.to_vec()
}

fn joined<'f>(
    fabric: &'f Fabric<3, 4, 64>,
    name: &str,
    process: &'f Process,
) -> Endpoint<'f, &'f Process, Fixed<3, 4, 64>> {
    fabric.register(&Registration::new(name).unwrap().parking(), process).unwrap()
}

/// A handler that forks in the middle of a message: the child returns from it.
struct Forks<'p>(&'p Process);

impl Kernel<64> for Forks<'_> {
    fn on_message(&mut self, _: &mut impl Context<64>, _: &Message<64>) {
        self.0.here.set(false);
    }
    fn on_idle(&mut self, _: &mut impl Context<64>) -> Idle {
        panic!("the child's loop goes on");
    }
    fn on_stop(&mut self, _: &mut impl Context<64>) {
        panic!("the child's copy of the kernel stops");
    }
}

#[test]
fn nothing_that_a_copy_is_asked_writes() {
    let fabric = fabric::<3, 4, 64>(&Config { delivery_timeout_ns: 100, tracing: true, ..Config::default() });
    let (process, other) = (Process::new(), Process::new());
    let mut copy = joined(&fabric, "copied", &process);
    let mut peer = joined(&fabric, "peer", &other);
    let mine = copy.send(peer.id(), &Message::new(1)).unwrap();
    for priority in [Priority::Normal, Priority::High] {
        peer.send_priority(copy.id(), &Message::new(2), priority).unwrap();
    }
    // Overdue, so that every look at the receipts would decide it.
    process.now_ns.set(1_000_000_000);
    process.here.set(false);

    let before = bytes(&*fabric);
    let to = peer.id();
    for priority in [Priority::Normal, Priority::High] {
        assert_eq!(copy.send_priority(to, &Message::new(3), priority), Err(SendError::Forked));
        let waiting = copy.send_waiting(to, &Message::new(3), priority, || panic!("there is nothing to wait for"));
        assert_eq!(waiting, Err(SendError::Forked));
    }
    assert_eq!(copy.reply(&Message::new(1), &Message::new(2)), Err(SendError::Forked));
    assert!(copy.try_receive().is_none());
    assert_eq!(copy.poll(), 0);
    assert!(copy.receipt(mine).is_ok(), "looking on is harmless");
    assert_eq!(copy.expire(), 0);
    assert!(copy.fall_asleep(Command::Run).is_none());
    copy.set_phase(Phase::Stopped);
    copy.heartbeat();
    assert!(copy.is_stopping());
    run(&mut copy, &mut Forks(&process), |_, _| panic!("the child's loop waits"));
    assert!(bytes(&*fabric) == before);
    copy.fail();
    assert!(bytes(&*fabric) == before);

    assert!(fabric.is_registered(mine.source), "the parent's kernel is still there");
    // Only now: its own end is no part of this.
    drop(peer);
}

#[test]
fn a_loop_whose_handler_forks_ends_in_the_child() {
    let fabric = fabric::<3, 4, 64>(&Config::default());
    let (process, other) = (Process::new(), Process::new());
    let mut copy = joined(&fabric, "copied", &process);
    let mut peer = joined(&fabric, "peer", &other);
    for _ in 0..2 {
        peer.send(copy.id(), &Message::new(2)).unwrap();
    }
    run(&mut copy, &mut Forks(&process), |_, _| panic!("the child's loop waits"));
    let id = copy.id();
    drop(copy);
    assert!(fabric.is_registered(id));
    assert_eq!(fabric.phase(id), Some(Phase::Running), "as the parent has left it");
}

#[test]
fn a_copied_gateway_does_nothing_to_fabric_and_link() {
    let fabric = fabric::<3, 4, 64>(&Config::default());
    let process = Process::new();
    let (near, far) = (LinkHalf::<4, 64>::new(), LinkHalf::<4, 64>::new());
    near.set_up().unwrap();
    far.set_up().unwrap();
    // SAFETY: two halves, one link, one end on this side.
    let link = unsafe { LinkEnd::open(near.handle(), far.handle()) }.unwrap();
    let mut gateway = Gateway::new(joined(&fabric, "gateway", &process), link, GatewayConfig::default());
    while gateway.pass() {}
    process.here.set(false);
    process.now_ns.set(u64::MAX / 2);
    let before = (bytes(&*fabric), bytes(&near), bytes(&far));
    assert!(!gateway.pass());
    drop(gateway);
    assert!((bytes(&*fabric), bytes(&near), bytes(&far)) == before);
}
