//! What benchmarks work with: sessions, waits, and what many times come to.

use super::options::BenchOptions;
use super::row::{Figure, Missing, Row, Unit};
use crate::check::{Bench, CheckOptions, Failure, Patient, ensure};
use core::hint::spin_loop;
use k2k_core::sync::Gpu;
use k2k_core::{Config, Fixed, Shape};
use k2k_cuda::BlockReport;
use k2k_cuda::Device;
use k2k_cuda::{Grid, Running, Session};
use k2k_device::Outcome;
use std::thread;
use std::time::Instant;

/// Blocks at once.
pub(super) const BLOCKS: usize = 128;

/// A session for entry points that use no fabric: as small as it can be with so many blocks.
pub(super) type Bare = Session<Fixed<BLOCKS, 2, 64, Gpu>>;
pub(super) type BareRunning = Patient<Fixed<BLOCKS, 2, 64, Gpu>>;

/// Tries before a wait of the host lets others have its core.
const SPINS: u32 = 1 << 14;

pub(super) struct Rig<'d> {
    pub(super) device: &'d Device,
    pub(super) options: BenchOptions,
    pub(super) tools: Bench<'d>,
    benchmark: &'static str,
}

impl<'d> Rig<'d> {
    pub(super) fn new(device: &'d Device, options: BenchOptions, benchmark: &'static str) -> Self {
        let checks = CheckOptions { messages: options.messages, patience: options.patience };
        let tools = Bench { device, options: checks, ptx: crate::check::ptx() };
        Self { device, options, tools, benchmark }
    }

    pub(super) fn row(&self, name: &'static str, figure: Result<Figure, Failure>) -> Row {
        self.row_or(name, figure.map_err(|Failure(why)| Missing::Failed(why)))
    }

    pub(super) fn row_or(&self, name: &'static str, figure: Result<Figure, Missing>) -> Row {
        Row { benchmark: self.benchmark, name, figure, target: None, is_gpu: self.device.probe().is_gpu }
    }

    /// Blocks that run at once, each on a multiprocessor of its own.
    pub(super) fn blocks(&self) -> u32 {
        self.options.blocks.min(self.device.probe().multiprocessors).clamp(2, BLOCKS as u32)
    }

    /// Threads of the host that take from `rings` rings: half of the cores, 8 at most.
    pub(super) fn host_threads(&self, rings: usize) -> usize {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        (cores / 2).clamp(1, 8).min(rings)
    }

    /// A share of the messages, at least a few.
    pub(super) fn messages(&self, share: u64) -> u64 {
        (self.options.messages / share).max(8)
    }

    /// Round trips before those that count.
    pub(super) fn dropped(&self) -> u64 {
        (self.options.trips / 10).clamp(1, 2_000)
    }

    /// Round trips in all.
    pub(super) fn trips(&self) -> u64 {
        self.options.trips.max(1) + self.dropped()
    }

    /// Does each round trip, and times those that count.
    pub(super) fn time(&self, mut trip: impl FnMut(u64) -> Result<(), Failure>) -> Result<Spread, Failure> {
        let mut samples = Vec::with_capacity(self.options.trips as usize);
        for number in 1..=self.trips() {
            let began = Instant::now();
            trip(number)?;
            let took = began.elapsed();
            if number > self.dropped() {
                samples.push(took.as_nanos() as u64);
            }
        }
        Ok(Spread::of(samples))
    }

    /// Waits without sleep, for as long as the patience lasts.
    pub(super) fn spin(&self, what: &str, mut is_done: impl FnMut() -> Result<bool, Failure>) -> Result<(), Failure> {
        let mut tries = 0u32;
        let mut since = None;
        while !is_done()? {
            tries = tries.wrapping_add(1);
            if tries.is_multiple_of(1024) {
                let since = *since.get_or_insert_with(Instant::now);
                ensure!(since.elapsed() < self.options.patience, "{what}: not within {:?}", self.options.patience);
            }
            if tries < SPINS { spin_loop() } else { thread::yield_now() }
        }
        Ok(())
    }

    /// Starts grids that use no fabric.
    pub(super) fn start(&self, grids: impl IntoIterator<Item = Grid>) -> Result<BareRunning, Failure> {
        let mut session = Bare::new(self.device, &Config::default())?;
        let grids = Vec::from_iter(grids);
        session.load_for(&self.tools.ptx, &grids)?;
        for grid in grids {
            // SAFETY: the library's own entry points, given what they were compiled for, which outlives them.
            unsafe { session.add(grid)? };
        }
        Ok(Patient::new(session.start()?, self.options.patience))
    }

    /// Starts grids that use no fabric, and waits for them.
    pub(super) fn run(&self, grids: impl IntoIterator<Item = Grid>) -> Result<Vec<BlockReport>, Failure> {
        self.join(&mut *self.start(grids)?)
    }

    /// Waits until all have finished by themselves, and had nothing to say against it.
    pub(super) fn join<Sh: Shape<Scope = Gpu>>(&self, running: &mut Running<Sh>) -> Result<Vec<BlockReport>, Failure> {
        let ended = running.join(self.options.patience)?;
        all_finished(&ended)?;
        Ok(ended)
    }
}

pub(super) fn all_finished(ended: &[BlockReport]) -> Result<(), Failure> {
    match ended.iter().find(|block| block.outcome() != Some(Outcome::Finished)) {
        Some(block) => Err(Failure(block.to_string())),
        None => Ok(()),
    }
}

/// For traffic that must not fail because a device is slow.
pub(super) fn patient() -> Config {
    Config { delivery_timeout_ns: 60_000_000_000, ..Config::default() }
}

/// Many times, ns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spread {
    pub(super) least: f64,
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
    pub(super) mean: f64,
    pub(super) count: f64,
}

impl Spread {
    pub(super) fn of(mut samples: Vec<u64>) -> Self {
        samples.sort_unstable();
        let at = |share: f64| samples.get((samples.len() as f64 * share) as usize).or(samples.last()).copied();
        let count = samples.len() as f64;
        Self {
            least: at(0.0).unwrap_or(0) as f64,
            p50: at(0.5).unwrap_or(0) as f64,
            p99: at(0.99).unwrap_or(0) as f64,
            p999: at(0.999).unwrap_or(0) as f64,
            mean: samples.iter().sum::<u64>() as f64 / count.max(1.0),
            count,
        }
    }

    fn details(self) -> [(&'static str, f64); 6] {
        let Self { least, p50, p99, p999, mean, count } = self;
        [("least", least), ("p50", p50), ("p99", p99), ("p99.9", p999), ("mean", mean), ("count", count)]
    }

    /// The half of them is no longer than this.
    pub(super) fn median(self) -> Figure {
        Figure::new(self.p50, Unit::Nanoseconds).with(self.details())
    }

    /// All but a hundredth of them are no longer than this.
    pub(super) fn late(self) -> Figure {
        Figure::new(self.p99, Unit::Nanoseconds).with(self.details())
    }

    /// For times of a clock with coarse steps.
    pub(super) fn average(self) -> Figure {
        Figure::new(self.mean, Unit::Nanoseconds).with(self.details())
    }
}

/// What blocks of ring ends did per second, by the device's clock: from the first one's beginning to the last one's
/// end.
pub(super) fn rate(ended: &[BlockReport], moved: u64) -> f64 {
    let began = ended.iter().map(|block| block.report.values[2]).min().unwrap_or(0);
    let done = ended.iter().map(|block| block.report.values[3]).max().unwrap_or(0);
    moved as f64 * 1e9 / done.saturating_sub(began).max(1) as f64
}
