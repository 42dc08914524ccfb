//! An end to everything: a thread that says what was going on when time was up, and ends the process.

use super::json::Record;
use super::{FAILED, NAME, TIME_IS_UP, say};
use core::time::Duration;
use k2k_command::complain;
use k2k_cuda::Device;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

unsafe extern "C" {
    /// Ends the process without what `exit` does before: the CUDA library would wait for kernels there (C standard,
    /// `_Exit`).
    safe fn _exit(status: core::ffi::c_int) -> !;
}

/// How long saying so may take.
const GRACE: Duration = Duration::from_secs(5);

/// Ends the process now. What it has printed has been written: standard output is flushed at each line.
pub(super) fn leave(status: u8) -> ! {
    _exit(status.into())
}

/// What is going on, for whoever has to say so.
pub(super) struct Watch {
    began: Instant,
    limit: Duration,
    json: Option<PathBuf>,
    now: Arc<Mutex<Now>>,
}

struct Now {
    at: &'static str,
    since: Instant,
    record: Record,
    device: Option<Device>,
}

fn lock(now: &Mutex<Now>) -> MutexGuard<'_, Now> {
    now.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    /// Begins the time.
    pub(super) fn start(limit: Duration, json: Option<PathBuf>) -> Self {
        let began = Instant::now();
        let now = Arc::new(Mutex::new(Now { at: "begin", since: began, record: Record::default(), device: None }));
        let watch = Self { began, limit, json, now };
        let (now, json) = (Arc::clone(&watch.now), watch.json.clone());
        let thread = std::thread::Builder::new().name("watch".to_owned()).spawn(move || {
            std::thread::sleep(limit);
            // Whoever reads the output may have stopped.
            let _ = std::thread::Builder::new().spawn(|| {
                std::thread::sleep(GRACE);
                leave(TIME_IS_UP);
            });
            let mut now = lock(&now);
            let at = now.at;
            now.record.unfinished.push(at);
            let written = now.record.write(json.as_deref());
            let (seconds, since) = (limit.as_secs(), now.since.elapsed().as_secs_f64());
            say(format_args!("\nk2k-gpu-check: time is up after {seconds} s; for {since:.1} s it has been at: {at}"));
            // Blocks that still run: in a check that takes long, or after one that left some that hang.
            now.device.iter().flat_map(Device::at_work).for_each(say);
            now.record.checks.iter().filter(|check| !check.passed()).for_each(say);
            now.record.rows.iter().filter(|row| row.failed()).for_each(say);
            if let Err(e) = written {
                complain(NAME, e);
            }
            leave(TIME_IS_UP);
        });
        if let Err(e) = thread {
            // It still ends: every wait of the checks has a limit of its own.
            complain(NAME, format_args!("no thread to watch the time: {e}"));
        }
        watch
    }

    /// What comes now.
    pub(super) fn at(&self, what: &'static str) {
        let mut now = lock(&self.now);
        (now.at, now.since) = (what, Instant::now());
    }

    /// Which device to look at when time is up.
    pub(super) fn look_at(&self, device: &Device) {
        lock(&self.now).device = Some(device.clone());
    }

    /// Whether there is time for that; if not, it is noted.
    pub(super) fn has_time(&self, what: &'static str) -> bool {
        let has_time =
            self.began.elapsed() + Duration::from_secs(1) < self.limit || self.limit < Duration::from_secs(5);
        if !has_time {
            self.record(|record| record.unfinished.push(what));
        }
        has_time
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    pub(super) fn record(&self, change: impl FnOnce(&mut Record)) {
        change(&mut lock(&self.now).record);
    }

    /// The exit status.
    pub(super) fn status(&self) -> u8 {
        let now = lock(&self.now);
        let failed =
            now.record.checks.iter().any(|check| !check.passed()) || now.record.rows.iter().any(|row| row.failed());
        match (failed, now.record.unfinished.is_empty()) {
            (true, _) => FAILED,
            (false, true) => 0,
            (false, false) => TIME_IS_UP,
        }
    }

    /// Writes the record, if that was asked for.
    pub(super) fn write(&self) -> Result<(), String> {
        lock(&self.now).record.write(self.json.as_deref())
    }
}
