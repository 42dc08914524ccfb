//! An end to everything: a thread that says what was going on when time was up, and ends the process. And the way of news:
//! JSON objects, each of which says one or two of these things.
//!
//! | key | what |
//! | --- | --- |
//! | `line` | a text for whoever reads along |
//! | `device`, `check`, `row` | for the [record](super::record) |
//! | `at`, `seconds` | what is being done now, and how long that may take |
//! | `compiled` | seconds that the driver's compiler took, once more |
//! | `stuck` | why this process waits to be looked at and killed |
//!
//! They go into the record, or, in a process for one item, to standard output, a line each.

use super::record::Record;
use super::{NAME, READER_GONE, TIME_IS_UP, say};
use core::time::Duration;
use k2k_command::complain;
use k2k_cuda::{Compile, Device, abandon};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// How long saying so may take.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// How long the driver's compiler may take for what one item needs.
const COMPILING: Duration = Duration::from_secs(180);

/// How long a process for one item waits to be killed: it may be looked at before.
const LOOKED_AT: Duration = Duration::from_secs(300);

/// Where news go.
#[derive(Clone, Debug)]
pub(super) enum To {
    /// Into the record, which is written to the file.
    Record(Option<PathBuf>),
    /// To the process that started this one, for one item.
    Parent,
}

/// What is going on, for whoever has to say so.
#[derive(Clone)]
pub(super) struct Watch {
    began: Instant,
    limit: Duration,
    to: To,
    now: Arc<Mutex<Now>>,
}

struct Now {
    at: String,
    since: Instant,
    record: Record,
    device: Option<Device>,
    /// Time of the compiler, which does not count for a single item.
    compiled: Duration,
    compiling: Option<Instant>,
}

impl Watch {
    /// Begins the time.
    pub(super) fn start(limit: Duration, to: To, record: Record) -> Self {
        let began = Instant::now();
        let at = "begin".to_owned();
        let now = Now { at, since: began, record, device: None, compiled: Duration::ZERO, compiling: None };
        let watch = Self { began, limit, to, now: Arc::new(Mutex::new(now)) };
        let other = watch.clone();
        let thread = std::thread::Builder::new().name("watch".to_owned()).spawn(move || other.wait());
        if let Err(e) = thread {
            // It still ends: every wait of the checks has a limit of its own.
            complain(NAME, format_args!("no thread to watch the time: {e}"));
        }
        watch
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_alone(&self) -> bool {
        matches!(self.to, To::Parent)
    }

    /// Time that counts.
    fn used(&self) -> Duration {
        let now = self.now();
        let compiling = now.compiled + now.compiling.map_or(Duration::ZERO, |since| since.elapsed());
        // All of it together ends in time, whatever it was used for.
        self.began.elapsed() - if self.is_alone() { compiling } else { Duration::ZERO }
    }

    /// Waits for the end of the time, and ends the process.
    fn wait(&self) {
        while let Some(left) = self.limit.checked_sub(self.used()).filter(|left| !left.is_zero()) {
            std::thread::sleep(left.min(Duration::from_millis(500)));
        }
        let (at, since) = {
            let now = self.now();
            (now.at.clone(), now.since.elapsed().as_secs_f64())
        };
        let what = format!("time is up after {} s; for {since:.1} s it has been at: {at}", self.limit.as_secs());
        let other = self.clone();
        let why = what.clone();
        // Whoever reads the output may have stopped.
        let _ = std::thread::Builder::new().spawn(move || {
            std::thread::sleep(GRACE);
            other.give_up(&why)
        });
        let written = self.write();
        self.line(format_args!("\nk2k-gpu check: {what}"));
        // Blocks that still run: in a check that takes long, or after one that left some that hang.
        let device = self.now().device.clone();
        device.iter().flat_map(Device::at_work).for_each(|block| self.line(block));
        let failures: Vec<_> = self.now().record.failures().collect();
        failures.into_iter().for_each(|failure| self.line(failure));
        if let Err(e) = written {
            complain(NAME, e);
        }
        self.give_up(&what)
    }

    /// Ends this process; one for a single item waits to be looked at before.
    pub(super) fn give_up(&self, why: &str) -> ! {
        if self.is_alone() {
            self.tell(&json!({ "stuck": why }));
            std::thread::sleep(LOOKED_AT);
        }
        abandon(TIME_IS_UP)
    }

    /// Passes it on.
    pub(super) fn tell(&self, news: &Value) {
        match self.to {
            To::Record(_) => {
                self.now().record.take(news);
                if let Some(line) = news.get("line").and_then(Value::as_str) {
                    say(line);
                }
            }
            // Nobody is left to tell.
            To::Parent => {
                if k2k_command::say!("{news}").is_err() {
                    abandon(READER_GONE);
                }
            }
        }
    }

    pub(super) fn line(&self, line: impl core::fmt::Display) {
        self.tell(&json!({ "line": line.to_string() }));
    }

    /// What comes now.
    pub(super) fn at(&self, what: &str) {
        {
            let mut now = self.now();
            (now.at, now.since) = (what.to_owned(), Instant::now());
        }
        if self.is_alone() {
            let seconds = self.limit.saturating_sub(self.used()).as_secs_f64();
            self.tell(&json!({ "at": what, "seconds": seconds }));
        }
    }

    /// Which device to look at when time is up. From now on its compiling is told, and kept apart.
    pub(super) fn look_at(&self, device: &Device) {
        self.now().device = Some(device.clone());
        let watch = self.clone();
        let before = Mutex::new(String::new());
        device.on_compile(move |compile| {
            let mut before = before.lock().unwrap_or_else(PoisonError::into_inner);
            match compile {
                Compile::Begins { entries, bytes } => {
                    let (first, more) = (entries.first().map_or("?", String::as_str), entries.len().saturating_sub(1));
                    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
                    let what = format!("compile {first}{more} ({} kB of PTX)", bytes / 1000);
                    {
                        let mut now = watch.now();
                        now.compiling = Some(Instant::now());
                        *before = core::mem::replace(&mut now.at, what.clone());
                    }
                    if watch.is_alone() {
                        watch.tell(&json!({ "at": what, "seconds": COMPILING.as_secs_f64() }));
                    }
                }
                Compile::Ended { took } => {
                    {
                        let mut now = watch.now();
                        now.compiling = None;
                        now.compiled += took;
                    }
                    if watch.is_alone() {
                        watch.tell(&json!({ "compiled": took.as_secs_f64() }));
                    }
                    watch.at(&before);
                }
            }
        });
    }

    /// The opposite.
    pub(super) fn look_away(&self) {
        let device = self.now().device.take();
        if let Some(device) = device {
            device.on_compile(|_| {});
        }
    }

    /// Whether there is time for more.
    pub(super) fn has_time(&self) -> bool {
        self.used() + Duration::from_secs(1) < self.limit || self.limit < Duration::from_secs(5)
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Seconds of the driver's compiler so far.
    pub(super) fn compiled(&self) -> f64 {
        self.now().compiled.as_secs_f64()
    }

    pub(super) fn record<R>(&self, change: impl FnOnce(&mut Record) -> R) -> R {
        change(&mut self.now().record)
    }

    /// Writes the record, if that was asked for.
    pub(super) fn write(&self) -> Result<(), String> {
        let To::Record(path) = &self.to else { return Ok(()) };
        self.now().record.write(path.as_deref())
    }
}
