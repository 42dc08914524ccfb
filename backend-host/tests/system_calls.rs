//! A process that is killed at the entry of each of its system calls in turn: while it creates and opens memory, registers,
//! parks, sends, wakes, receives, leaves and removes what it created. Then it is reaped, and the promises are checked.
//! What happens between two system calls are stores, and a death at each of those is tried in core's `deaths`.
//!
//! `K2K_SECONDS=300` tries for that long, and again from the start when all calls have had their turn; `K2K_SEED` says in
//! which order.
#![cfg(target_os = "linux")]

mod common;
use common::{Echo, GUARD, Shm, eventually};
use core::time::Duration;
use k2k::{
    Broker, Builder, DeliveryStatus, Endpoint, Fixed, KernelId, Memory, MemoryError, Message, MessageId, Priority,
    StartOptions, Wait,
};
use libc::{c_int, pid_t};
use std::collections::BTreeSet;
use std::io;
use std::time::Instant;

type Shape = Fixed<4, 8, 64>;

/// All that the process does. It has just forked, and never returns from here to what it has copies of.
fn work(made: &str, shared: &str) {
    let short = Duration::from_millis(20);
    let own: Broker<Shape> = Builder::new().create(made).build().expect("memory");
    let broker: Broker<Shape> = Builder::new().open(shared).build().expect("the parent's memory");
    let mut me = broker.register_parking("worker").expect("an index");
    // Sleeps until its parent, which has seen it register, sends; and once more, for a whole slice.
    let _ = (me.receive(short), me.receive(Duration::from_millis(2)));
    // Its peer sleeps, and is woken; it answers.
    let peer = broker.find("peer").expect("registered");
    for priority in [Priority::Normal, Priority::High] {
        me.send_priority(peer, &Message::new(1), priority).expect("room");
    }
    let _ = (me.receive(short), me.receive(short));
    me.unregister();
    drop((broker, own));
    k2k::memory::remove(made).expect("its own file");
}

/// How a traced process went on.
#[derive(Debug, PartialEq, Eq)]
enum Stop {
    /// It is about to enter a system call of this number.
    Enters(u64),
    /// It has ended by itself, with this status.
    Ended(c_int),
}

/// A forked process that stops at each system call.
struct Traced(pid_t);

impl Traced {
    /// Forks, and lets the child do `work`. An error if the system does not let it be traced.
    fn start(work: impl FnOnce()) -> io::Result<Self> {
        // SAFETY: the child goes on with what a program may do: it allocates, as glibc allows after a fork.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: asks to be traced by its parent.
            let refused = unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) } != 0;
            let status = if refused {
                io::Error::last_os_error().raw_os_error().unwrap_or(0)
            } else {
                // From here on its system calls count.
                // SAFETY: stops this process, until its parent lets it go on.
                unsafe { libc::raise(libc::SIGSTOP) };
                // The panic's message has said what is wrong.
                if std::panic::catch_unwind(core::panic::AssertUnwindSafe(work)).is_ok() { 0 } else { 101 }
            };
            // SAFETY: ends the process at once, without what the harness has to do.
            unsafe { libc::_exit(status) };
        }
        if child < 0 {
            return Err(io::Error::last_os_error());
        }
        let this = Self(child);
        let status = this.wait();
        if libc::WIFEXITED(status) {
            return Err(io::Error::from_raw_os_error(libc::WEXITSTATUS(status)));
        }
        let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
        // SAFETY: the child is stopped, and this thread traces it.
        if unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, child, 0, options) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(this)
    }

    fn wait(&self) -> c_int {
        let mut status = 0;
        // SAFETY: the status is this function's.
        assert_eq!(unsafe { libc::waitpid(self.0, &raw mut status, 0) }, self.0, "{}", io::Error::last_os_error());
        status
    }

    /// Lets it run until it enters a system call, or ends.
    fn go_on(&self) -> io::Result<Stop> {
        let mut signal = 0;
        loop {
            // SAFETY: the child is stopped, and this thread traces it.
            if unsafe { libc::ptrace(libc::PTRACE_SYSCALL, self.0, 0, signal) } != 0 {
                return Err(io::Error::last_os_error());
            }
            let status = self.wait();
            if !libc::WIFSTOPPED(status) {
                return Ok(Stop::Ended(status));
            }
            signal = libc::WSTOPSIG(status);
            if signal != libc::SIGTRAP | 0x80 {
                // A signal of its own, which it gets.
                continue;
            }
            signal = 0;
            // SAFETY: plain numbers; zero is valid.
            let mut info: libc::ptrace_syscall_info = unsafe { core::mem::zeroed() };
            // SAFETY: the child is stopped, and `info` is as long as is said.
            let got = unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, self.0, size_of_val(&info), &raw mut info) };
            if got <= 0 {
                return Err(io::Error::last_os_error());
            }
            if info.op == libc::PTRACE_SYSCALL_INFO_ENTRY {
                // SAFETY: the operation says which of the union is there.
                return Ok(Stop::Enters(unsafe { info.u.entry.nr }));
            }
        }
    }

    /// Kills it where it stands: a system call that it enters is not made.
    fn kill(&self) {
        // SAFETY: a child that nobody has waited for to its end.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
        while libc::WIFSTOPPED(self.wait()) {}
    }
}

/// How a try ended.
enum End {
    /// At a system call of this number.
    Killed { number: u64 },
    /// By itself: it made no more calls than these.
    Lived { calls: usize },
}

/// A fabric in which the others live on, whatever becomes of the process.
struct World {
    shm: Shm,
    /// The file that the process creates.
    made: Shm,
    broker: Broker<Shape>,
    me: Endpoint<Shape>,
    peer: KernelId,
}

impl World {
    /// Kills the process when it enters its system call `at`, counted from 0.
    fn dies_at(&mut self, at: usize) -> io::Result<End> {
        let (made, shared) = (self.made.0.clone(), self.shm.0.clone());
        let process = Traced::start(|| work(&made, &shared))?;
        let mut sent = None;
        let mut calls = 0;
        loop {
            match process.go_on()? {
                Stop::Ended(status) => {
                    assert_eq!(status, 0, "the process failed by itself");
                    self.check(sent, false, &format!("ended after {calls} calls"));
                    return Ok(End::Lived { calls });
                }
                Stop::Enters(number) if calls == at => {
                    let is_there = self.broker.find("worker").is_some();
                    process.kill();
                    self.check(sent, is_there, &format!("killed at call {at}, number {number} of the system's"));
                    return Ok(End::Killed { number });
                }
                Stop::Enters(_) => calls += 1,
            }
            if sent.is_none()
                && let Some(worker) = self.broker.find("worker")
            {
                sent = Some(self.me.send(worker, &Message::new(2)).expect("room"));
            }
        }
    }

    /// Checks the promises. `sent` is a message to the process, and `is_there` says that it died registered.
    fn check(&mut self, sent: Option<MessageId>, is_there: bool, what: &str) {
        let report = self.broker.reap();
        assert!(report.unknown.is_empty() && report.failed.is_empty(), "{what}: {report}");
        assert!((usize::from(is_there)..=1).contains(&report.reaped.len()), "{what}: {report}");
        assert_eq!(self.broker.find("worker"), None, "{what}");
        // A file is whole or absent, and there is no draft.
        match Memory::<Shape>::open(&self.made.0) {
            Ok(memory) => {
                drop(Broker::new(memory).register("first").unwrap_or_else(|why| panic!("{what}: {why}")));
                k2k::memory::remove(&self.made.0).expect("it is there");
            }
            Err(MemoryError::NotFound { .. }) => {
                // Where a draft has a name, it goes with this.
                assert!(k2k::memory::remove(&self.made.0).is_err(), "{what}");
            }
            Err(why) => panic!("{what}: {why}"),
        }
        let path = self.made.path();
        let name = path.file_name().expect("a name").to_string_lossy();
        let left = std::fs::read_dir(path.parent().expect("a folder")).expect("a folder").flatten();
        let left: Vec<_> = left.filter(|entry| entry.file_name().to_string_lossy().contains(&*name)).collect();
        assert!(left.is_empty(), "{what}: {left:?} is left");
        // The others run on: the peer wakes, and answers.
        self.me.send(self.peer, &Message::new(3)).expect("room");
        let answer = self.me.receive(GUARD).unwrap_or_else(|why| panic!("{what}: {why}"));
        assert_eq!(answer.header.kind, 3, "{what}");
        // The message to the process has an outcome, and all indices come back.
        if let Some(id) = sent {
            let status = self.me.receipt(id).expect("a moment ago").status;
            assert!(matches!(status, DeliveryStatus::Delivered | DeliveryStatus::NotFound), "{what}: {status}");
        }
        drop(["a", "b"].map(|name| self.broker.register(name).unwrap_or_else(|why| panic!("{what}: {why}"))));
        eventually(&format!("{what}: nothing is under way"), || self.broker.pending() == 0);
        let stats = self.broker.stats();
        assert_eq!(stats.unaccounted(), 0, "{what}: {stats:?}");
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Whether kills, at calls of these numbers, show anything.
fn is_enough(kills: u32, numbers: &BTreeSet<u64>) -> bool {
    kills > 10 && numbers.len() > 5
}

#[test]
fn no_kill_at_any_system_call_breaks_a_promise() {
    let seconds = number("K2K_SECONDS");
    let seed = number("K2K_SEED").unwrap_or_else(|| u64::from(std::process::id()) << 20);
    let (shm, made) = (Shm::new("calls"), Shm::new("calls-made"));
    let broker: Broker<Shape> = common::patient().create(&shm.0).build().unwrap();
    let park = StartOptions { wait: Wait::Park, ..StartOptions::default() };
    let peer = broker.start("peer", Echo::default(), park).unwrap();
    let me = broker.register_parking("me").unwrap();
    let mut world = World { shm, made, broker, me, peer: peer.id() };

    let (mut kills, mut numbers, mut indices) = (0, BTreeSet::new(), BTreeSet::new());
    let calls = match world.dies_at(usize::MAX) {
        Ok(End::Lived { calls }) => calls,
        Ok(End::Killed { .. }) => unreachable!("it has no such call"),
        Err(why) => {
            println!("skipped: no process can be traced here (ptrace: {why}); allow it, to kill at system calls");
            return;
        }
    };
    let began = Instant::now();
    let limit = Duration::from_secs(seconds.unwrap_or(30));
    let mut round = 0;
    // Without a time, each a few times: what the others do meanwhile differs. At least one round, however slow the machine
    // is, unless it has shown enough before.
    while round == 0 || (round < 5 || seconds.is_some()) && began.elapsed() < limit {
        // Some processes make a few more: they meet in time.
        let mut order: Vec<usize> = (0..calls + calls / 4).collect();
        fastrand::Rng::with_seed(seed + round).shuffle(&mut order);
        for at in order {
            if began.elapsed() >= limit && is_enough(kills, &numbers) {
                break;
            }
            if let End::Killed { number } = world.dies_at(at).expect("it could be traced before") {
                kills += 1;
                numbers.insert(number);
                indices.insert(at);
            }
        }
        round += 1;
    }
    println!(
        "{kills} kills, at {} of {calls} system calls of {} kinds, seed {seed}, {:?}",
        indices.len(),
        numbers.len(),
        began.elapsed()
    );
    assert!(is_enough(kills, &numbers));
    peer.stop_and_join(GUARD).unwrap();
}
