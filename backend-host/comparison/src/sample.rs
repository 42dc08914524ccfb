//! How one sample is taken: threads on their cores, a common start, the distance of the cores before and after, and
//! whether anyone was preempted.

use crate::machine::{nanoseconds, preemptions, ticks};
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use core_affinity::CoreId;

/// What holds for the whole run.
pub struct Setting {
    pub cores: Vec<CoreId>,
    /// How long the timed part of a sample takes, ns.
    pub sample_ns: f64,
    pub rounds: usize,
    /// A sample in which a thread was preempted is repeated at most so often.
    pub repeats: usize,
    /// A column ends after this, if it has had three rounds, ns.
    pub column_ns: f64,
}

/// Something that no other thread's data shares a line (or a pair of them) with: each end of a queue, above all,
/// because many keep positions in themselves, and the threads of a sample borrow them from one struct.
#[repr(align(128))]
#[derive(Default)]
pub struct Apart<T>(pub T);

/// One measurement.
#[derive(Clone, Debug)]
pub struct Sample {
    /// One value per metric of the column.
    pub values: Vec<f64>,
    /// Round trip of one line between the two cores, ns: before and after. `None` if only one thread was measured.
    pub distance: Option<(f64, f64)>,
    pub preempted: bool,
}

/// Something that can be measured again and again.
pub trait Sampler {
    /// Checks that the results are right, and finds out how many operations fill a sample.
    ///
    /// # Errors
    /// What is wrong. The competitor is then left out.
    fn prepare(&mut self, setting: &Setting) -> Result<(), String>;

    /// # Errors
    /// A thread made no progress.
    fn sample(&mut self, setting: &Setting) -> Result<Sample, String>;
}

/// All arrive before any leaves.
pub struct Gate {
    threads: usize,
    arrived: AtomicUsize,
    yields: bool,
    /// A thread has panicked and will not arrive.
    broken: AtomicBool,
}

/// Breaks the gate if its thread panics.
struct Breaks<'g>(&'g Gate);

impl Drop for Breaks<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.broken.store(true, Ordering::Relaxed);
        }
    }
}

impl Gate {
    fn new(threads: usize, yields: bool) -> Self {
        Self { threads, arrived: AtomicUsize::new(0), yields, broken: AtomicBool::new(false) }
    }

    fn pass(&self) {
        let me = self.arrived.fetch_add(1, Ordering::AcqRel);
        let all = (me / self.threads + 1) * self.threads;
        while self.arrived.load(Ordering::Acquire) < all {
            assert!(!self.broken.load(Ordering::Relaxed), "another thread failed");
            if self.yields {
                std::thread::yield_now();
            }
        }
    }
}

#[repr(align(128))]
#[derive(Default)]
struct Ball(AtomicU64);

const THROWS: u64 = 400;

/// Bounces one cache line between threads 0 and 1; returns ns per round trip.
fn distance(ball: &Ball, thread: usize, offset: u64) -> f64 {
    let start = ticks();
    for i in (thread as u64..2 * THROWS).step_by(2) {
        let mut waits = 0_u32;
        while ball.0.load(Ordering::Acquire) != offset + i {
            waits += 1;
            if waits > 1 << 14 {
                std::thread::yield_now();
            }
        }
        ball.0.store(offset + i + 1, Ordering::Release);
    }
    nanoseconds(ticks() - start) / THROWS as f64
}

/// What one thread of a sample does: called with the number of operations, first for the warm-up, then for the clock.
pub type Role<'a> = Box<dyn FnMut(u64) + Send + 'a>;

/// What came of a run.
pub struct Run {
    /// From the first start to the last end, ns.
    pub elapsed_ns: f64,
    pub distance: Option<(f64, f64)>,
    pub preempted: bool,
}

impl Run {
    /// As a sample with one value: ns per operation.
    pub fn per(&self, operations: u64) -> Sample {
        self.sample(vec![self.elapsed_ns / operations as f64])
    }

    pub fn sample(&self, values: Vec<f64>) -> Sample {
        Sample { values, distance: self.distance, preempted: self.preempted }
    }
}

struct Times {
    start: u64,
    end: u64,
    preempted: bool,
    distance: (f64, f64),
}

/// Runs the roles at the same time, each on the core of its index (in turn, if there are fewer). The first two measure
/// the distance.
///
/// # Errors
/// If a thread panicked.
pub fn together(cores: &[CoreId], roles: Vec<Role<'_>>, warm: u64, count: u64) -> Result<Run, String> {
    let threads = roles.len();
    let crowded = crowded(cores, threads);
    let gate = Gate::new(threads, crowded);
    let ball = Ball::default();
    let run = |i: usize, mut role: Role<'_>| {
        let _breaks = Breaks(&gate);
        if let Some(core) = cores.get(i % cores.len().max(1)) {
            core_affinity::set_for_current(*core);
        }
        // In a crowd nobody can say how far apart two threads are.
        let measure = |offset| if threads > 1 && i < 2 && !crowded { distance(&ball, i, offset) } else { 0.0 };
        if warm > 0 {
            gate.pass();
            role(warm);
        }
        gate.pass();
        let before = measure(0);
        let preempted = preemptions();
        gate.pass();
        let start = ticks();
        role(count);
        let end = ticks();
        let preempted = preemptions() > preempted;
        gate.pass();
        let after = measure(2 * THROWS);
        Times { start, end, preempted, distance: (before, after) }
    };
    let times: Result<Vec<Times>, String> = std::thread::scope(|scope| {
        let run = &run;
        let handles: Vec<_> =
            roles.into_iter().enumerate().map(|(i, role)| scope.spawn(move || run(i, role))).collect();
        let ends: Vec<_> = handles.into_iter().map(|handle| handle.join().map_err(|panic| reason(&*panic))).collect();
        // The first reason that is not just another thread's.
        let why = ends.iter().filter_map(|end| end.as_ref().err()).max_by_key(|why| *why != "another thread failed");
        if let Some(why) = why { Err(why.clone()) } else { ends.into_iter().collect() }
    });
    let times = times?;
    let start = times.iter().map(|t| t.start).min().unwrap_or(0);
    let end = times.iter().map(|t| t.end).max().unwrap_or(0);
    Ok(Run {
        elapsed_ns: nanoseconds(end.saturating_sub(start)),
        distance: (threads > 1 && !crowded).then(|| times[0].distance),
        preempted: times.iter().any(|t| t.preempted),
    })
}

/// The cores of a run in which role 0 is the consumer: it has one to itself, producers share the others.
pub fn consumer_apart(cores: &[CoreId], producers: usize) -> Vec<CoreId> {
    let Some((consumer, others)) = cores.split_first() else { return Vec::new() };
    let others = if others.is_empty() { core::slice::from_ref(consumer) } else { others };
    core::iter::once(*consumer).chain((0..producers).map(|i| others[i % others.len()])).collect()
}

/// Whether some of that many threads share a core.
pub fn crowded(cores: &[CoreId], threads: usize) -> bool {
    let mut ids: Vec<usize> = cores.iter().map(|core| core.id).collect();
    ids.sort_unstable();
    ids.dedup();
    threads > ids.len()
}

fn reason(panic: &(dyn core::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
        .unwrap_or_else(|| "a thread panicked".to_owned())
}

/// How many operations fill a sample, from how long some took.
pub fn fill(setting: &Setting, elapsed_ns: f64, operations: u64, least: u64, most: u64) -> u64 {
    let wanted = setting.sample_ns / elapsed_ns.max(1.0) * operations as f64;
    (wanted as u64).clamp(least, most)
}
