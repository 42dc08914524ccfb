//! The machine: modules, memory, launches, and turns.

mod background;
pub(crate) mod block;
pub(crate) mod clock;
mod explore;
mod host;
mod launch;
mod report;
pub(crate) mod schedule;
mod sync;

pub use background::Background;
pub use clock::{Clock, host_clock_ns};
pub use explore::{Bounds, explore};
pub use launch::{Arg, Dim, LaunchConfig, LaunchId};

use crate::decode::Module;
use crate::error::Error;
use crate::exec::thread::{State, Thread};
use crate::exec::{self, Budget, Stop, World};
use crate::memory::{Memory, Region};
use crate::op::{Function, Scope, Symbol};
use crate::race::Detector;
use block::Block;
use clock::Timer;
use launch::Launch;
use schedule::Scheduler;
use std::sync::Arc;

/// What a machine does beside running.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whether to look for races.
    pub races: bool,
    /// The host's own code reads and writes shared memory where the detector does not see it (a host thread runs the
    /// real endpoints between turns). A strong device read of a value that nobody is known to have written then
    /// counts as an acquire of all that was released to the system, so that the host is no source of false
    /// reports.
    pub native_host: bool,
    /// The device's clock.
    pub clock: Clock,
    /// Accesses to memory in one turn of a thread, usually at most.
    pub burst: u32,
    /// Local memory of one thread, in bytes.
    pub local_bytes: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { races: true, native_host: false, clock: Clock::default(), burst: 8, local_bytes: 256 << 10 }
    }
}

/// Instructions of a thread before another gets a turn, however few of them access memory.
const TURN: u32 = 2048;

#[derive(Debug)]
struct Loaded {
    source: Arc<str>,
    shared_bytes: u32,
    /// Name, address and length of its variables.
    statics: Vec<(String, u64, u64)>,
}

/// A device that runs the kernels of its modules, one turn of one thread at a time.
///
/// The same seed, launches and host operations give the same run.
#[derive(Debug)]
pub struct Machine {
    options: Options,
    functions: Vec<Function>,
    modules: Vec<Loaded>,
    memory: Memory,
    blocks: Vec<Block>,
    free_blocks: Vec<u32>,
    threads: Vec<Thread>,
    free_threads: Vec<u32>,
    launches: Vec<Launch>,
    ready: Vec<u32>,
    /// When, and who.
    sleeping: Vec<(u64, u32)>,
    detector: Option<Detector>,
    timer: Timer,
    scheduler: Scheduler,
    yields: bool,
    executed: u64,
}

impl Machine {
    /// A machine without modules, whose interleaving is drawn from `seed`.
    #[must_use]
    pub fn new(seed: u64, options: Options) -> Self {
        Self::with_scheduler(Scheduler::Random(fastrand::Rng::with_seed(seed)), options)
    }

    fn with_scheduler(scheduler: Scheduler, options: Options) -> Self {
        Self {
            options,
            functions: Vec::new(),
            modules: Vec::new(),
            memory: Memory::default(),
            blocks: Vec::new(),
            free_blocks: Vec::new(),
            threads: Vec::new(),
            free_threads: Vec::new(),
            launches: Vec::new(),
            ready: Vec::new(),
            sleeping: Vec::new(),
            detector: options.races.then(|| Detector::new(options.native_host)),
            timer: Timer::new(options.clock),
            scheduler,
            yields: false,
            executed: 0,
        }
    }

    /// Adds a module: gives its variables memory and puts their addresses into its code.
    pub fn load(&mut self, module: &Module) {
        let first = self.functions.len() as u32;
        let number = self.modules.len() as u32;
        let statics: Vec<(String, u64, u64)> = module
            .statics
            .iter()
            .map(|v| {
                let address = self.memory.allocate(v.bytes.len(), v.align as usize, !v.constant, &v.name);
                (v.name.clone(), address, v.bytes.len() as u64)
            })
            .collect();
        let resolve = |symbol: Symbol, offset: i64| {
            let base = match symbol {
                Symbol::Variable(index) => statics[index as usize].1,
                Symbol::Function(index) => exec::function_pointer(first + index),
            };
            base.wrapping_add(offset as u64)
        };
        for (variable, (_, address, _)) in module.statics.iter().zip(&statics) {
            let mut bytes = variable.bytes.clone();
            for r in &variable.relocations {
                let value = resolve(r.symbol, r.offset) >> r.shift;
                bytes[r.at..r.at + r.bytes].copy_from_slice(&value.to_le_bytes()[..r.bytes]);
            }
            for (at, byte) in (*address..).zip(bytes) {
                crate::memory::store(at, 1, u64::from(byte), crate::Order::Relaxed);
            }
        }
        for function in &module.functions {
            let mut function = function.clone();
            function.module = number;
            for (slot, symbol, offset) in &function.relocations {
                function.slots[*slot as usize] = resolve(*symbol, *offset);
            }
            for site in &mut function.calls {
                if let crate::op::Callee::Function(callee) = &mut site.callee {
                    *callee += first;
                }
            }
            self.functions.push(function);
        }
        let source = Arc::clone(&module.source);
        self.modules.push(Loaded { source, shared_bytes: module.shared_bytes, statics });
    }

    /// Address and length of a variable of a loaded module.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<(u64, u64)> {
        let mut all = self.modules.iter().flat_map(|m| &m.statics);
        all.find(|(found, ..)| found == name).map(|(_, address, bytes)| (*address, *bytes))
    }

    /// Zeroed device memory, which the machine frees when it is dropped. Returns its address.
    pub fn allocate(&mut self, name: &str, bytes: usize) -> u64 {
        self.memory.allocate(bytes, 256, true, name)
    }

    /// Lets device code read and write memory of this process.
    ///
    /// # Errors
    /// [`Error::Launch`] if the range overlaps one that is registered.
    ///
    /// # Safety
    /// - The memory is valid for reads and writes until it is [unregistered](Self::unregister) or the machine is
    ///   dropped.
    /// - While the machine runs, nobody has a reference to it that excludes other writers, and whoever else accesses it
    ///   does so as a peer on a device would have to: atomically, or in turns that atomics arrange.
    pub unsafe fn register(&mut self, name: &str, start: *mut u8, bytes: usize) -> Result<(), Error> {
        let address = start.expose_provenance() as u64;
        let region = Region { address, bytes: bytes as u64, writable: true, name: name.to_owned() };
        if self.memory.register(region) {
            Ok(())
        } else {
            Err(Error::Launch { reason: format!("{name:?} overlaps memory that is registered") })
        }
    }

    /// Takes the region that begins at `start` from the device; `None` if there is none.
    pub fn unregister(&mut self, start: *mut u8) -> Option<Region> {
        let region = self.memory.unregister(start.addr() as u64)?;
        if let Some(detector) = &mut self.detector {
            detector.forget(region.address, region.bytes);
        }
        Some(region)
    }

    /// Marks a range as control words: each device access to it must have an order, and at least this scope.
    pub fn control_words(&mut self, address: u64, bytes: u64, scope: Scope) {
        if let Some(detector) = &mut self.detector {
            detector.control(address, bytes, scope);
        }
    }

    /// Instructions executed so far, by all threads.
    #[must_use]
    pub fn executed(&self) -> u64 {
        self.executed
    }

    /// The device's time.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        self.timer.now_ns(0)
    }

    /// Gives one thread a turn; `false` if no launch is live.
    ///
    /// # Errors
    /// [`Error`] says what a thread did wrong, and who. The machine cannot go on after that.
    pub fn turn(&mut self) -> Result<bool, Error> {
        self.wake();
        if self.ready.is_empty() {
            let Some(next) = self.sleeping.iter().map(|(when, _)| *when).min() else {
                return if self.launches.iter().any(|l| l.live > 0) { Err(self.deadlock()) } else { Ok(false) };
            };
            self.timer.wait_until(next);
            return Ok(true);
        }
        let at = self.scheduler.pick(&self.ready, self.yields);
        let number = self.ready[at];
        let accesses = self.scheduler.burst(self.options.burst);
        let strong_only = matches!(self.scheduler, Scheduler::Path(_));
        let budget = Budget { accesses, instructions: TURN, strong_only };
        let mut world = World {
            functions: &self.functions,
            memory: &mut self.memory,
            blocks: &mut self.blocks,
            detector: self.detector.as_mut(),
            timer: &mut self.timer,
            local_limit: self.options.local_bytes,
        };
        let thread = &mut self.threads[number as usize];
        let result = exec::run(thread, &mut world, budget);
        let (stop, ran) = result.map_err(|halt| self.halted(number, halt))?;
        self.executed += ran;
        self.timer.passed(ran);
        self.yields = matches!(stop, Stop::Polls | Stop::Sleep { .. });
        match stop {
            Stop::Budget | Stop::Polls => {}
            Stop::Sleep { ns } => {
                self.ready.swap_remove(at);
                self.threads[number as usize].state = State::Sleeping;
                self.sleeping.push((self.timer.now_ns(0).saturating_add(ns), number));
            }
            Stop::Exit => {
                self.ready.swap_remove(at);
                self.exit(number)?;
            }
            Stop::Barrier { id, count } => {
                self.ready.swap_remove(at);
                self.arrive(number, id, count)?;
            }
            Stop::Collective { list } => {
                self.ready.swap_remove(at);
                self.threads[number as usize].state = State::AtCollective { list };
                self.complete_collective(number)?;
            }
            Stop::ActiveMask { dst } => self.active_mask(number, dst),
        }
        Ok(true)
    }

    fn wake(&mut self) {
        if self.sleeping.is_empty() {
            return;
        }
        let now = self.timer.now_ns(0);
        let (threads, ready) = (&mut self.threads, &mut self.ready);
        self.sleeping.retain(|(when, number)| {
            if *when <= now {
                threads[*number as usize].state = State::Ready;
                ready.push(*number);
            }
            *when > now
        });
    }

    /// Runs until about `instructions` have been executed or no launch is live; `false` in the latter case.
    ///
    /// # Errors
    /// As for [`turn`](Self::turn).
    pub fn step(&mut self, instructions: u64) -> Result<bool, Error> {
        let end = self.executed.saturating_add(instructions);
        while self.executed < end {
            if !self.turn()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Runs until all launches have ended.
    ///
    /// # Errors
    /// As for [`turn`](Self::turn), and [`Error::StepLimit`] if that takes more than `limit` instructions.
    pub fn run(&mut self, limit: u64) -> Result<(), Error> {
        let end = self.executed.saturating_add(limit);
        while self.turn()? {
            if self.executed >= end {
                return Err(self.step_limit(limit));
            }
        }
        Ok(())
    }

    /// Runs until `host` says `true`. It is called before each turn: a host thread's operations go there, a few at a
    /// time, so that they are interleaved with the device's.
    ///
    /// # Errors
    /// As for [`run`](Self::run). What `host` itself does to the machine may fail: its errors end the run.
    pub fn run_until(
        &mut self,
        limit: u64,
        mut host: impl FnMut(&mut Self) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let end = self.executed.saturating_add(limit);
        // A host that waits for a device with nothing to do waits for ever.
        let mut idle = 0u64;
        while !host(self)? {
            idle = if self.turn()? { 0 } else { idle + 1 };
            if self.executed >= end || idle > limit {
                return Err(self.step_limit(limit));
            }
        }
        Ok(())
    }
}
