//! What the tests of the host backend share.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use core::time::Duration;
use k2k::{Broker, Builder, Context, Endpoint, Fixed, Kernel, KernelId, Message};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// No test waits longer than this for anything: it is there to end a test that hangs, not to measure.
pub const GUARD: Duration = Duration::from_secs(120);

/// A small fabric on the heap in which no message times out.
pub fn broker<const K: usize, const S: usize, const P: usize>() -> Broker<Fixed<K, S, P>> {
    patient().build().expect("address space")
}

/// A builder in which no message times out while a test runs.
pub fn patient<const K: usize, const S: usize, const P: usize>() -> Builder<Fixed<K, S, P>> {
    Builder::new().delivery_timeout(GUARD * 2)
}

/// Sends `count` messages of the kinds 0, 1, ...
pub fn fill<const K: usize, const S: usize, const P: usize>(
    from: &mut Endpoint<Fixed<K, S, P>>,
    to: KernelId,
    count: u32,
) {
    for kind in 0..count {
        from.send(to, &Message::new(kind)).expect("room");
    }
}

/// Waits until something is true.
pub fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_true() {
        assert!(start.elapsed() < GUARD, "still not so after {GUARD:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A name for a shared-memory file that is removed when the test ends, however it ends.
pub struct Shm(pub String);

impl Shm {
    pub fn new(test: &str) -> Self {
        Self(format!("k2k-test-{test}-{}", std::process::id()))
    }

    pub fn path(&self) -> PathBuf {
        k2k::memory::path_of(&self.0).expect("a file name")
    }
}

impl Drop for Shm {
    fn drop(&mut self) {
        let _ = k2k::memory::remove(&self.0);
    }
}

/// A child process that does not outlive its test.
pub struct Process(pub Child);

impl Process {
    /// Runs the test `entry` of this test program in another process, with `role` in its environment.
    pub fn start(entry: &str, role: &[(&str, &str)]) -> Self {
        let program = std::env::current_exe().expect("this test program");
        let child = Command::new(program)
            .args(["--exact", entry, "--nocapture", "--test-threads=1"])
            .envs(role.iter().copied())
            .stdout(Stdio::null())
            .spawn()
            .expect("another process");
        Self(child)
    }

    pub fn succeed(mut self) {
        let start = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().expect("a child") {
                return assert!(status.success(), "the other process failed: {status}");
            }
            assert!(start.elapsed() < GUARD, "the other process hangs");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills it, without any chance to clean up, and waits until it is gone.
    pub fn kill(&mut self) {
        self.0.kill().expect("a child");
        self.0.wait().expect("a child");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// CPU time that the threads of this process with this name have used, user and system.
pub fn cpu_time_of(thread: &str) -> Duration {
    let ticks_per_s = rustix::param::clock_ticks_per_second();
    let mut ticks = 0;
    for task in std::fs::read_dir("/proc/self/task").expect("procfs").flatten() {
        let Ok(stat) = std::fs::read_to_string(task.path().join("stat")) else { continue };
        let (Some(open), Some(close)) = (stat.find('('), stat.rfind(')')) else { continue };
        if stat[open + 1..close] != *thread {
            continue;
        }
        let fields: Vec<&str> = stat[close + 2..].split(' ').collect();
        ticks += fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime");
    }
    Duration::from_millis(ticks * 1000 / ticks_per_s)
}

/// Threads of this process with this name.
pub fn threads_named(thread: &str) -> usize {
    std::fs::read_dir("/proc/self/task")
        .expect("procfs")
        .flatten()
        .filter(|task| std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim() == thread))
        .count()
}

/// Sends everything back, and counts.
#[derive(Debug, Default)]
pub struct Echo {
    pub handled: u64,
    pub stopped: bool,
}

impl<const P: usize> Kernel<P> for Echo {
    fn on_message(&mut self, context: &mut impl Context<P>, message: &Message<P>) {
        self.handled += 1;
        let _ = context.reply(message, message);
    }

    fn on_stop(&mut self, _: &mut impl Context<P>) {
        self.stopped = true;
    }
}
