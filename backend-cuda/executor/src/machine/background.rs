//! A machine on a thread of its own, beside host threads that really run at the same time.

#![allow(clippy::disallowed_types, reason = "interpreter of another machine's atomics")]

use super::Machine;
use crate::error::Error;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

#[derive(Debug)]
struct Shared {
    machine: Mutex<Machine>,
    error: Mutex<Option<Error>>,
    stop: AtomicBool,
    /// Times that a thread has asked for the machine, and that one got it. Both wrap.
    asked: AtomicU32,
    served: AtomicU32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A machine that runs by itself until it is stopped or dropped.
///
/// The detector still sees the device's threads among themselves. It does not see host threads that access memory
/// directly, so ask for [`Options::native_host`](super::Options::native_host) or no detection.
#[derive(Debug)]
pub struct Background {
    shared: Arc<Shared>,
    runner: Option<JoinHandle<()>>,
}

impl Background {
    /// Instructions between looks at who wants the machine.
    const SLICE: u64 = 20_000;

    /// Lets the machine run.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub fn start(machine: Machine) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            machine: Mutex::new(machine),
            error: Mutex::new(None),
            stop: AtomicBool::new(false),
            asked: AtomicU32::new(0),
            served: AtomicU32::new(0),
        });
        let theirs = Arc::clone(&shared);
        let runner = std::thread::Builder::new().name("ptx".to_owned()).spawn(move || run(&theirs))?;
        Ok(Self { shared, runner: Some(runner) })
    }

    /// Does something with the machine between two turns: launch, look, join.
    pub fn with<R>(&self, f: impl FnOnce(&mut Machine) -> R) -> R {
        // Relaxed, both: hints for the runner's fairness; the lock orders everything else.
        self.shared.asked.fetch_add(1, Ordering::Relaxed);
        let mut machine = lock(&self.shared.machine);
        self.shared.served.fetch_add(1, Ordering::Relaxed);
        f(&mut machine)
    }

    /// What ended the run, if something has.
    #[must_use]
    pub fn error(&self) -> Option<Error> {
        lock(&self.shared.error).clone()
    }

    /// Ends the run at the next turn, whatever its threads do.
    pub fn stop(&mut self) {
        // Relaxed: joining the thread orders everything else.
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(runner) = self.runner.take() {
            let _ = runner.join();
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(shared: &Shared) {
    // Relaxed: as in `stop` and `with`.
    while !shared.stop.load(Ordering::Relaxed) {
        // A mutex is not fair: this thread would have it again before a sleeping one wakes up. So all that have asked by now
        // come first; not those that ask meanwhile, or the machine would never run.
        let asked = shared.asked.load(Ordering::Relaxed);
        while (asked.wrapping_sub(shared.served.load(Ordering::Relaxed)).cast_signed()) > 0 {
            std::thread::yield_now();
        }
        let result = lock(&shared.machine).step(Background::SLICE);
        match result {
            Ok(true) => {}
            Ok(false) => std::thread::sleep(core::time::Duration::from_micros(50)),
            Err(error) => {
                *lock(&shared.error) = Some(error);
                return;
            }
        }
    }
}
