//! Forks with everything alive: the child's copies refuse or do nothing, also when they are dropped, and the parent
//! goes on unharmed.
//!
//! Without the test harness, since that has threads; each scenario begins with one thread and forks when it has what it
//! needs. The child leaves a scenario by returning from `main`, which runs every destructor.

mod common;

use common::{GUARD, Shm};
use core::pin::pin;
use core::task::{Context as TaskContext, Poll, Waker};
use core::time::Duration;
use k2k::{
    Broker, Client, Command, Config, Context, ControlError, Endpoint, EndpointError, Fixed, Kernel, Memory, Message,
    Phase, PresenceError, Priority, ReceiveError, RequestError, SendError, StartOptions, UnregisterError,
};
use std::process::ExitCode;
use std::time::Instant;

type Fabric = Memory<Fixed<8, 8, 64>>;

enum Side {
    Parent,
    Child,
}

fn main() -> ExitCode {
    for (name, scenario) in [
        ("copies write nothing", copies_write_nothing as fn() -> Side),
        ("threads stay the parent's", threads_stay_the_parents),
        ("a child has kernels of its own", a_child_has_kernels_of_its_own),
        ("heap memory is a private copy", heap_memory_is_a_private_copy),
        ("a handler forks", a_handler_forks),
    ] {
        match scenario() {
            Side::Child => return ExitCode::SUCCESS,
            Side::Parent => println!("fork: {name} ... ok"),
        }
    }
    ExitCode::SUCCESS
}

/// The id of the child, 0 in the child.
fn fork() -> i32 {
    // SAFETY: the child goes on with what a program may do: it allocates, as glibc allows after a fork.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "{}", std::io::Error::last_os_error());
    pid
}

/// Waits for a child that must end well, and soon.
fn wait_for(child: i32) {
    let began = Instant::now();
    loop {
        let mut status = 0;
        // SAFETY: the status is this function's.
        if unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) } == child {
            assert_eq!(status, 0, "the child ended otherwise than by returning");
            return;
        }
        if began.elapsed() > GUARD {
            // SAFETY: a child that was not waited for.
            unsafe { libc::kill(child, libc::SIGKILL) };
            panic!("the child hangs");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn bytes(memory: &Fabric) -> Vec<u8> {
    let base = core::ptr::from_ref(memory.fabric().storage()).cast::<u8>();
    // SAFETY: as long as the fabric, and nobody writes meanwhile.
    unsafe { core::slice::from_raw_parts(base, Fabric::SIZE) }.to_vec()
}

fn is_forked<T: core::fmt::Debug>(result: Result<T, ReceiveError>) {
    assert_eq!(result.map(drop), Err(ReceiveError::Forked));
}

fn copies_write_nothing() -> Side {
    let shm = Shm::new("fork-copies");
    let broker: Broker<Fixed<8, 8, 64>> = Broker::builder().tracing(true).create(&shm.0).build().unwrap();
    let (mut a, mut b) = (broker.register_parking("a").unwrap(), broker.register("b").unwrap());
    let to = b.id();
    let message = Message::from_bytes(1, b"before the fork").unwrap();
    for priority in [Priority::Normal, Priority::High] {
        a.send_priority(to, &message, priority).unwrap();
        b.send_priority(a.id(), &message, priority).unwrap();
    }
    let sent = a.send(to, &message.with_deadline_ns(u64::MAX)).unwrap();
    let before = bytes(broker.memory());
    let child = fork();
    if child == 0 {
        // The name is the parent's, too.
        core::mem::forget(shm);
        for priority in [Priority::Normal, Priority::High] {
            assert_eq!(a.send_priority(to, &message, priority), Err(SendError::Forked));
            assert_eq!(a.send_priority_blocking(to, &message, priority), Err(SendError::Forked));
        }
        assert_eq!(a.reply(&message, &message), Err(SendError::Forked));
        assert!(a.try_receive().is_none());
        is_forked(a.receive(None));
        is_forked(a.receive(Duration::ZERO));
        let mut task = TaskContext::from_waker(Waker::noop());
        let Poll::Ready(outcome) = pin!(a.receive_async()).poll(&mut task) else { panic!("a copy waits") };
        is_forked(outcome);
        assert_eq!(a.wait_for_kernel("b", None), Err(PresenceError::Forked));
        assert_eq!(a.wait_until_gone(to, None), Err(PresenceError::Forked));
        for published in [a.publish(&[to], &message), a.publish_blocking(&[to], &message)] {
            assert_eq!(published.refused().collect::<Vec<_>>(), [(to, SendError::Forked)]);
        }
        let mut client = Client::new(a);
        assert_eq!(client.request(to, &message, GUARD), Err(RequestError::Forked));
        let Poll::Ready(outcome) = pin!(client.request_async(to, &message, GUARD)).poll(&mut task) else {
            panic!("a copy waits")
        };
        assert_eq!(outcome, Err(RequestError::Forked));
        is_forked(client.receive(None));
        let (mut a, _) = client.into_parts();
        let Poll::Ready(()) = pin!(a.run_async(&mut Unused, GUARD)).poll(&mut task) else { panic!("a copy runs") };
        assert_eq!((a.poll(), a.expire()), (0, 0));
        assert!(a.receipt(sent).is_ok());
        a.set_phase(Phase::Failed);
        a.heartbeat();
        a.run(&mut Unused, Duration::from_secs(1));
        assert_eq!(broker.register("c").map(drop), Err(EndpointError::Forked));
        assert_eq!(broker.unregister(to), Err(UnregisterError::Forked));
        assert_eq!(broker.command(to, Command::Stop), Err(ControlError::Forked));
        assert_eq!(broker.clear_failed(to), Err(ControlError::Forked));
        assert_eq!(broker.add_route(sent.source, to, to), Err(ControlError::Forked));
        assert_eq!(broker.add_route_everywhere(to, sent.source), Err(ControlError::Forked));
        broker.remove_route(sent.source, to);
        broker.remove_route_everywhere(to);
        broker.set_tracing(false);
        assert!(broker.start("d", Unused, StartOptions::default()).is_err());
        // SAFETY: refused, so nothing is taken over.
        assert_eq!(unsafe { broker.take_over(to) }.map(drop), Err(EndpointError::Forked));
        assert!(broker.is_registered(to), "looking on is harmless");
        b.fail();
        a.unregister();
        return Side::Child;
    }
    wait_for(child);
    assert!(bytes(broker.memory()) == before, "the child has written");
    for endpoint in [&mut a, &mut b] {
        for _ in 0..2 {
            assert_eq!(endpoint.receive(GUARD).unwrap().payload(), b"before the fork");
        }
    }
    Side::Parent
}

struct Unused;
impl Kernel<64> for Unused {
    fn on_start(&mut self, _: &mut impl Context<64>) {}
    fn on_message(&mut self, _: &mut impl Context<64>, _: &Message<64>) {
        panic!("a copy handles no message");
    }
}

struct Echo;
impl Kernel<64> for Echo {
    fn on_message(&mut self, context: &mut impl Context<64>, message: &Message<64>) {
        let _ = context.reply(message, message);
    }
}

fn answers(me: &mut Endpoint<Fixed<8, 8, 64>>, echo: k2k::KernelId) {
    me.send(echo, &Message::new(5)).unwrap();
    assert_eq!(me.receive(GUARD).unwrap().header.kind, 5);
}

fn threads_stay_the_parents() -> Side {
    let shm = Shm::new("fork-threads");
    let broker: Broker<Fixed<8, 8, 64>> = Broker::builder().create(&shm.0).build().unwrap();
    let [joined, stopped, left] =
        ["joined", "stopped", "left"].map(|name| broker.start(name, Echo, StartOptions::default()).unwrap());
    let mut me = broker.register_parking("me").unwrap();
    answers(&mut me, joined.id());
    // With a helper thread that sleeps: the first look lets other tasks run, the second one falls asleep.
    let mut awaited = broker.register_parking("awaited").unwrap();
    let mut task = TaskContext::from_waker(Waker::noop());
    let mut awaiting = Box::pin(awaited.receive_async());
    assert!(awaiting.as_mut().poll(&mut task).is_pending());
    assert!(awaiting.as_mut().poll(&mut task).is_pending());
    let child = fork();
    if child == 0 {
        core::mem::forget(shm);
        assert_eq!(joined.pause(), Err(ControlError::Forked));
        assert_eq!(joined.stop(), Err(ControlError::Forked));
        assert!(joined.join().map(drop).unwrap_err().message.contains("forked"));
        assert!(stopped.stop_and_join(GUARD).map(drop).unwrap_err().to_string().contains("forked"));
        drop(left);
        let Poll::Ready(outcome) = awaiting.as_mut().poll(&mut task) else { panic!("a copy waits") };
        is_forked(outcome);
        return Side::Child;
    }
    wait_for(child);
    for handle in [joined, stopped, left] {
        answers(&mut me, handle.id());
        handle.stop_and_join(GUARD).unwrap();
    }
    drop(awaiting);
    me.send(awaited.id(), &Message::new(6)).unwrap();
    assert_eq!(awaited.receive(GUARD).unwrap().header.kind, 6);
    Side::Parent
}

fn a_child_has_kernels_of_its_own() -> Side {
    let shm = Shm::new("fork-own");
    let broker: Broker<Fixed<8, 8, 64>> = Broker::builder().create(&shm.0).build().unwrap();
    let mut parent = broker.register_parking("parent").unwrap();
    let child = fork();
    if child == 0 {
        core::mem::forget(shm);
        let own = Broker::new(broker.memory().clone());
        let mut me = own.register_parking("child").unwrap();
        let grandchild = fork();
        if grandchild == 0 {
            assert_eq!(me.send(parent.id(), &Message::new(1)), Err(SendError::Forked));
            assert_eq!(own.register("d").map(drop), Err(EndpointError::Forked));
            return Side::Child;
        }
        wait_for(grandchild);
        me.send(parent.id(), &Message::new(7)).unwrap();
        assert_eq!(me.receive(GUARD).unwrap().header.kind, 8, "and the grandchild has not unregistered it");
        return Side::Child;
    }
    let question = parent.receive(GUARD).unwrap();
    assert_eq!(question.header.kind, 7);
    parent.reply(&question, &Message::new(8)).unwrap();
    wait_for(child);
    assert_eq!(broker.find("child"), None, "it has left");
    Side::Parent
}

fn heap_memory_is_a_private_copy() -> Side {
    let memory = Fabric::heap(&Config::default()).unwrap();
    let broker = Broker::new(memory.clone());
    let (mut a, mut b) = (broker.register("a").unwrap(), broker.register("b").unwrap());
    let child = fork();
    if child == 0 {
        assert_eq!(a.send(b.id(), &Message::new(1)), Err(SendError::Forked));
        assert_eq!(Broker::new(memory).register("c").map(drop), Err(EndpointError::Forked));
        let own: Broker<Fixed<8, 8, 64>> = Broker::builder().build().unwrap();
        own.register("a").unwrap();
        return Side::Child;
    }
    wait_for(child);
    a.send(b.id(), &Message::new(1)).unwrap();
    assert!(b.try_receive().is_some());
    Side::Parent
}

/// Forks for each message, and returns from the handler on both sides.
struct Forks;
impl Kernel<64> for Forks {
    fn on_message(&mut self, context: &mut impl Context<64>, message: &Message<64>) {
        let child = fork();
        if child != 0 {
            wait_for(child);
            context.reply(message, message).unwrap();
        } else {
            assert_eq!(context.reply(message, message), Err(SendError::Forked));
        }
    }
}

fn a_handler_forks() -> Side {
    let shm = Shm::new("fork-handler");
    let broker: Broker<Fixed<8, 8, 64>> = Broker::builder().create(&shm.0).build().unwrap();
    let mut me = broker.register_parking("me").unwrap();
    let forks = broker.start("forks", Forks, StartOptions::default()).unwrap();
    for _ in 0..3 {
        answers(&mut me, forks.id());
    }
    assert!(me.try_receive().is_none(), "one answer each");
    forks.stop_and_join(GUARD).unwrap();
    Side::Parent
}
