//! Does it work on this device? Every way that messages take, tried with numbered messages, each accounted for.
//!
//! The same list runs on a GPU (`k2k-gpu check`) and, with fewer messages and many seeds, on the emulated device in the
//! tests.
//!
//! | file | what |
//! | --- | --- |
//! | `side.rs` | what runs side by side; memory of the host that a device sees |
//! | `rings.rs` | each kind of ring: host to device, device to host, device to device, by threads and by warps |
//! | `bus.rs` | kernels of a host and of a device, joined by a bridge |
//! | `fabric.rs` | the layout; kernels of one device: routes, loops, hop limits, receipts, commands, hang reports |

mod bus;
mod fabric;
mod rings;
mod side;

use core::fmt;
use core::ops::{Deref, DerefMut};
use core::time::Duration;
use k2k_core::Shape;
use k2k_core::sync::Ordering::Relaxed;
use k2k_core::sync::{AtomicU32, Gpu};
use k2k_cuda::Device;
use k2k_cuda::Error;
use k2k_cuda::HostBuffer;
use k2k_cuda::Ptx;
use k2k_cuda::{Grid, Running};
use std::time::Instant;

/// How thorough to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckOptions {
    /// Numbered messages per check.
    pub messages: u64,
    /// How long each wait of a check may take, at most.
    pub patience: Duration,
}

impl Default for CheckOptions {
    /// A million messages, 20 s.
    fn default() -> Self {
        Self { messages: 1_000_000, patience: Duration::from_secs(20) }
    }
}

/// How one check went.
#[derive(Clone, Debug)]
pub struct CheckResult {
    /// What was tried.
    pub name: &'static str,
    /// What was counted; or what went wrong.
    pub outcome: Result<String, String>,
    /// How long it took.
    pub took: Duration,
}

impl CheckResult {
    /// Whether all was well.
    #[must_use]
    pub const fn passed(&self) -> bool {
        self.outcome.is_ok()
    }
}

impl fmt::Display for CheckResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verdict, text) = match &self.outcome {
            Ok(text) => ("ok", text),
            Err(text) => ("FAILED", text),
        };
        write!(f, "{:<44} {verdict:<6} {:>8.2} s  {text}", self.name, self.took.as_secs_f64())
    }
}

/// What went wrong.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) String);

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        Self(e.to_string())
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// Fails with the text unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($text:tt)*) => {
        if !$condition {
            return Err(crate::check::Failure(format!($($text)*)));
        }
    };
}
pub(crate) use ensure;

/// What a check works with.
pub(crate) struct Bench<'d> {
    pub(crate) device: &'d Device,
    pub(crate) options: CheckOptions,
    pub(crate) ptx: Ptx,
}

impl Bench<'_> {
    /// For the device's own waits, ns: shorter than the host's, so that a stuck kernel ends before it is called hung.
    pub(crate) fn patience_ns(&self) -> u64 {
        (self.options.patience / 2).as_nanos() as u64
    }

    /// Calls `step` until it says that it is done, for as long as the patience lasts.
    pub(crate) fn until(&self, what: &str, mut step: impl FnMut() -> Result<bool, Failure>) -> Result<(), Failure> {
        let started = Instant::now();
        while !step()? {
            ensure!(started.elapsed() < self.options.patience, "{what}: not within {:?}", self.options.patience);
            std::thread::yield_now();
        }
        Ok(())
    }
}

/// A session of entry points that use no fabric: nobody can tell them to stop, but their own patience ends. Dropped
/// before that, it waits for them: otherwise one failure would leave the device busy, and fail all that comes after it.
pub(crate) struct Patient<Sh: Shape<Scope = Gpu>> {
    running: Running<Sh>,
    until: Instant,
}

impl<Sh: Shape<Scope = Gpu>> Patient<Sh> {
    /// `patience` is longer than that of what has just been started.
    pub(crate) fn new(running: Running<Sh>, patience: Duration) -> Self {
        Self { running, until: Instant::now() + patience }
    }
}

impl<Sh: Shape<Scope = Gpu>> Deref for Patient<Sh> {
    type Target = Running<Sh>;

    fn deref(&self) -> &Self::Target {
        &self.running
    }
}

impl<Sh: Shape<Scope = Gpu>> DerefMut for Patient<Sh> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.running
    }
}

impl<Sh: Shape<Scope = Gpu>> Drop for Patient<Sh> {
    fn drop(&mut self) {
        while let Ok(false) = self.running.is_finished()
            && Instant::now() < self.until
        {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A word in host memory that sources wait for, while routes are set and commands given.
pub(crate) struct Gate {
    word: *const AtomicU32,
    address: u64,
    buffer: Option<HostBuffer>,
}

impl Gate {
    pub(crate) fn new(bench: &Bench<'_>) -> Result<Self, Failure> {
        let buffer = bench.device.allocate_host(size_of::<AtomicU32>())?;
        Ok(Self { word: buffer.as_ptr().cast(), address: buffer.address(), buffer: Some(buffer) })
    }

    /// Makes a grid's sources wait for it, and keeps it for them.
    pub(crate) fn before(&mut self, grid: Grid) -> Grid {
        grid.parameter(7, self.address).keep(self.buffer.take())
    }

    /// The same for a ping.
    pub(crate) fn before_ping(&mut self, grid: Grid) -> Grid {
        grid.parameter(3, self.address).keep(self.buffer.take())
    }

    /// # Safety
    /// What was given the gate still lives.
    pub(crate) unsafe fn open(&self) {
        // SAFETY: passed on. Relaxed: publishes nothing but itself.
        unsafe { &*self.word }.store(1, Relaxed);
    }
}

type Check = fn(&Bench<'_>) -> Result<String, Failure>;

/// The list.
const CHECKS: &[(&str, Check)] = &[
    ("queues, side by side", side::queues),
    ("blocks of two entry points, side by side", side::residency),
    ("layout, as the device sees it", fabric::layout),
    ("spsc, host to device", rings::spsc_in),
    ("spsc, device to host", rings::spsc_out),
    ("spsc, device to device", rings::spsc_across),
    ("spsc, host to a warp", rings::warp_in),
    ("spsc, a warp to the host", rings::warp_out),
    ("spsc, warp to warp", rings::warp_across),
    ("sharded queue, host to device", rings::sharded_in),
    ("sharded queue, device to host", rings::sharded_out),
    ("sharded queue, device to device", rings::sharded_across),
    ("ticket, device to device", rings::ticket_across),
    ("fabric, all accounted for", fabric::accounting),
    ("fabric, several senders and priorities", fabric::fan_in),
    ("routing, three hops", fabric::route),
    ("routing, a loop and the hop limit", fabric::route_loop),
    ("receipts, not found", fabric::not_found),
    ("receipts, timeout", fabric::timeout),
    ("commands: pause, run, drain", fabric::commands),
    ("a fabric in shared memory, seen by the device", side::registered),
    ("across the bus, requests and answers", bus::echo),
    ("across the bus, device to host", bus::outward),
    ("across the bus, failures", bus::failures),
    ("across the bus, priorities", bus::priority),
    ("a block that works together", bus::workers),
    ("a kernel that hangs is reported", fabric::hang),
];

/// The text whose entry points are tried.
#[must_use]
pub fn ptx() -> Ptx {
    Ptx::new(include_str!("../../ptx/check.ptx")).expect("read by a test")
}

/// What is tried, in order.
pub fn names() -> impl Iterator<Item = &'static str> {
    CHECKS.iter().map(|(name, _)| *name)
}

/// Tries everything, one after the other, and tells `progress` of each result. A check after one that left the device
/// busy (a kernel that really hangs) fails with that as its reason. What comes after one that left it
/// [lost](Device::is_lost) is not tried.
pub fn run(device: &Device, options: CheckOptions, progress: impl FnMut(&CheckResult)) -> Vec<CheckResult> {
    run_some(device, options, |_| true, progress)
}

/// As [`run`], but only what `begin` says yes to, when its turn has come.
pub fn run_some(
    device: &Device,
    options: CheckOptions,
    begin: impl FnMut(&'static str) -> bool,
    progress: impl FnMut(&CheckResult),
) -> Vec<CheckResult> {
    run_with(&Bench { device, options, ptx: ptx() }, begin, progress)
}

fn run_with(
    bench: &Bench<'_>,
    mut begin: impl FnMut(&'static str) -> bool,
    mut progress: impl FnMut(&CheckResult),
) -> Vec<CheckResult> {
    let wanted = CHECKS.iter().filter(|(name, _)| begin(name) && !bench.device.is_lost());
    let results = wanted.map(|(name, check)| {
        let started = Instant::now();
        let outcome = check(bench).map_err(|Failure(text)| text);
        let result = CheckResult { name, outcome, took: started.elapsed() };
        progress(&result);
        result
    });
    results.collect()
}

/// What a check that fails leaves to those after it.
#[cfg(all(test, feature = "emulated"))]
mod failures {
    use super::*;
    use k2k_cuda::EmulatedOptions;

    /// Runs those whose names begin so, with a PTX that has been tampered with. Whether each passed, and the device
    /// after them.
    fn run_on(ptx: String, names: &str, patience: Duration) -> (Vec<(&'static str, bool)>, Device) {
        let device = Device::emulated(EmulatedOptions::default()).unwrap();
        let options = CheckOptions { messages: 100, patience };
        let bench = Bench { device: &device, options, ptx: Ptx::new(ptx).unwrap() };
        let results = run_with(&bench, |name| name.starts_with(names), |result| println!("{result}"));
        (results.iter().map(|result| (result.name, result.passed())).collect(), device)
    }

    #[test]
    fn nothing_is_tried_on_a_device_that_a_fault_has_ended() {
        let head = ".visible .entry k2k_spsc_produce_sys(";
        let (before, entry) = ptx().text().split_once(head).map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        let faulty = format!("{before}{head}{}", entry.replacen("\n{\n", "\n{\n\ttrap;\n", 1));
        let (results, device) = run_on(faulty, "spsc, ", Duration::from_secs(60));
        assert_eq!(results, [("spsc, host to device", true), ("spsc, device to host", false)]);
        assert!(device.is_lost());
    }

    #[test]
    fn a_ring_that_is_given_up_does_not_keep_the_device_from_those_after_it() {
        // The device sends what the host does not expect, and goes on for longer than a session waits that is dropped.
        let swapped = ptx().text().replace("entry k2k_spsc_produce_sys(", "entry other(");
        let swapped = swapped.replace("entry k2k_stamp_produce_sys(", "entry k2k_spsc_produce_sys(");
        let (results, device) = run_on(swapped, "spsc, device", Duration::from_secs(8));
        assert_eq!(results, [("spsc, device to host", false), ("spsc, device to device", true)]);
        assert!(!device.is_busy());
    }
}

/// The PTX that is embedded, with an order or a scope taken out: the checks, on a device that looks for races, must
/// notice.
#[cfg(all(test, feature = "emulated"))]
mod mutations {
    use super::*;
    use k2k_cuda::EmulatedOptions;

    /// Seeds that are tried before a mutation counts as unnoticed.
    const SEEDS: u64 = 20;

    fn fails(ptx: &str, check: Check) -> bool {
        (1..=SEEDS).any(|seed| {
            let device = Device::emulated(EmulatedOptions { seed, races: true, ..EmulatedOptions::default() }).unwrap();
            let options = CheckOptions { messages: 300, patience: Duration::from_secs(5) };
            check(&Bench { device: &device, options, ptx: Ptx::new(ptx.to_owned()).unwrap() }).is_err()
        })
    }

    /// In all of an entry point, because compilers copy accesses, and look twice. 64 bits: stamps and credits. The
    /// 32-bit claims of a ring's ends are not among them: here nobody takes an end after another.
    #[test]
    fn orders_and_scopes_of_stamps_and_credits_are_missed_when_they_are_gone() {
        let text = ptx().text().to_owned();
        let entries: [(&str, Check); 8] = [
            ("k2k_spsc_produce_gpu", rings::spsc_across),
            ("k2k_spsc_consume_gpu", rings::spsc_across),
            ("k2k_warp_produce_gpu", rings::warp_across),
            ("k2k_warp_consume_gpu", rings::warp_across),
            ("k2k_sharded_produce_gpu", rings::sharded_across),
            ("k2k_sharded_consume_gpu", rings::sharded_across),
            ("k2k_ticket_produce", rings::ticket_across),
            ("k2k_ticket_consume", rings::ticket_across),
        ];
        let mutations = [
            ("st.release.gpu.b64", "st.relaxed.gpu.b64"),
            ("st.release.gpu.b64", "st.release.cta.b64"),
            ("ld.acquire.gpu.b64", "ld.relaxed.gpu.b64"),
            ("ld.acquire.gpu.b64", "ld.acquire.cta.b64"),
        ];
        let (mut tried, mut unnoticed) = (0, Vec::new());
        for (entry, check) in entries {
            let start = text.find(&format!(".visible .entry {entry}(")).expect("there is such an entry point");
            let end = start + text[start..].find("\n}\n").expect("its end");
            for (strong, weak) in mutations {
                // A claim that follows is a compare-exchange that acquires as well. Without the first acquire it could
                // be made on a stale value, and values are never stale in the executor: that one is
                // loom's to find.
                let seen = !(entry == "k2k_ticket_produce" && weak == "ld.relaxed.gpu.b64");
                if !text[start..end].contains(strong) || !seen {
                    continue;
                }
                tried += 1;
                let mutant = [&text[..start], &text[start..end].replace(strong, weak), &text[end..]].concat();
                if !fails(&mutant, check) {
                    unnoticed.push(format!("{entry}: {strong} -> {weak}"));
                }
            }
        }
        assert!(tried >= 26 && unnoticed.is_empty(), "{} of {tried} unnoticed: {unnoticed:#?}", unnoticed.len());
    }
}
