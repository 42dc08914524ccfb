//! Does it work on this device? Every way that messages take, tried with numbered messages, each accounted for.
//!
//! The same list runs on a GPU (`k2k-gpu check`) and, with fewer messages and many seeds, on the emulated device in the tests.
//!
//! | file | what |
//! | --- | --- |
//! | `rings.rs` | each kind of ring: host to device, device to host, device to device, by threads and by warps |
//! | `fabric.rs` | the layout; kernels of one device: routes, loops, hop limits, receipts, commands, hang reports |

mod fabric;
mod rings;

use crate::device::Device;
use crate::error::Error;
use core::fmt;
use core::time::Duration;
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
struct Failure(String);

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
use ensure;

/// What a check works with.
struct Bench<'d> {
    device: &'d Device,
    options: CheckOptions,
}

impl Bench<'_> {
    /// For the device's own waits, ns: shorter than the host's, so that a stuck kernel ends before it is called hung.
    fn patience_ns(&self) -> u64 {
        (self.options.patience / 2).as_nanos() as u64
    }

    /// Calls `step` until it says that it is done, for as long as the patience lasts.
    fn until(&self, what: &str, mut step: impl FnMut() -> Result<bool, Failure>) -> Result<(), Failure> {
        let started = Instant::now();
        while !step()? {
            ensure!(started.elapsed() < self.options.patience, "{what}: not within {:?}", self.options.patience);
            std::thread::yield_now();
        }
        Ok(())
    }
}

type Check = fn(&Bench<'_>) -> Result<String, Failure>;

/// The list.
const CHECKS: &[(&str, Check)] = &[
    ("layout, as the device sees it", fabric::layout),
    ("spsc, host to device", rings::spsc_in),
    ("spsc, device to host", rings::spsc_out),
    ("spsc, device to device", rings::spsc_across),
    ("spsc, host to a warp", rings::warp_in),
    ("spsc, a warp to the host", rings::warp_out),
    ("spsc, warp to warp", rings::warp_across),
    ("lanes, host to device", rings::lanes_in),
    ("lanes, device to host", rings::lanes_out),
    ("lanes, device to device", rings::lanes_across),
    ("ticket, device to device", rings::ticket_across),
    ("fabric, all accounted for", fabric::accounting),
    ("fabric, several senders and priorities", fabric::fan_in),
    ("routing, three hops", fabric::route),
    ("routing, a loop and the hop limit", fabric::route_loop),
    ("receipts, not found", fabric::not_found),
    ("receipts, timeout", fabric::timeout),
    ("commands: pause, run, drain", fabric::commands),
    ("a kernel that hangs is reported", fabric::hang),
];

/// Tries everything, one after the other, and tells `progress` of each result. A check after one that left the device busy
/// (a kernel that really hangs) fails with that as its reason.
pub fn run(device: &Device, options: CheckOptions, mut progress: impl FnMut(&CheckResult)) -> Vec<CheckResult> {
    let bench = Bench { device, options };
    let results = CHECKS.iter().map(|(name, check)| {
        let started = Instant::now();
        let outcome = check(&bench).map_err(|Failure(text)| text);
        let result = CheckResult { name, outcome, took: started.elapsed() };
        progress(&result);
        result
    });
    results.collect()
}
