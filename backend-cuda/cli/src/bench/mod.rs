//! How fast is it on this device? Each figure stands beside its floor, measured in the same run: what the same way
//! costs without K2K.
//!
//! A message counts when the other side has acted on it. On the emulated device everything runs and nothing means
//! anything.
//!
//! | file | what | against |
//! | --- | --- | --- |
//! | `micro.rs` | what the design rests on: loads, stores, fences, naps, copies, by themselves | an empty loop, a bare flag |
//! | `trip.rs` | there and back: host and device, block and block, through relays | a bare flag |
//! | `push.rs` | from the device to the host: by a thread, a warp, 32 warps; how late the last of many producers is | bare lines, a single message |
//! | `chip.rs` | over all blocks: warp rings; pairs, all to one, a ring of kernels in one fabric | bare lines, warp rings |
//! | `command.rs` | a message to a kernel that runs | launching one, replaying a graph |
//! | `idle.rs` | what a bridge costs the host while nothing is sent | a thread that naps |

mod chip;
mod command;
mod idle;
mod micro;
mod options;
mod push;
mod rig;
mod row;
mod trip;

pub use options::BenchOptions;
pub use row::{Figure, Floor, Missing, Row, Target, Unit, Verdict};

use crate::check::Failure;
use k2k_cuda::Device;
use rig::Rig;

/// Measures, and returns its figures.
type Measure = fn(&Rig<'_>) -> Result<Vec<Row>, Failure>;

/// The list.
const BENCHMARKS: &[(&str, Measure)] = &[
    ("accesses of the device", micro::device),
    ("accesses of the host", micro::host),
    ("flags where their readers are", micro::near),
    ("round trip, host and device", trip::host),
    ("push, device to host", push::rates),
    ("push, device to host, many producers", push::lateness),
    ("round trip, block and block", trip::blocks),
    ("rings over the chip", chip::rings),
    ("fabric over the chip, pairs", chip::pairs),
    ("fabric over the chip, all to one", chip::all_to_one),
    ("fabric over the chip, a ring", chip::ring),
    ("routing", trip::hops),
    ("command to a kernel that runs", command::against_launches),
    ("idle bridge", idle::bridge),
];

/// What is measured, in order.
pub fn names() -> impl Iterator<Item = &'static str> {
    BENCHMARKS.iter().map(|(name, _)| *name)
}

/// Measures everything, one after the other, and tells `progress` of each figure. What comes after a benchmark that
/// left the device [lost](Device::is_lost) is not measured.
pub fn run(device: &Device, options: BenchOptions, progress: impl FnMut(&Row)) -> Vec<Row> {
    run_some(device, options, |_| true, progress)
}

/// As [`run`], but only what `begin` says yes to, when its turn has come.
pub fn run_some(
    device: &Device,
    options: BenchOptions,
    mut begin: impl FnMut(&'static str) -> bool,
    mut progress: impl FnMut(&Row),
) -> Vec<Row> {
    let mut all = Vec::new();
    for (name, measure) in BENCHMARKS.iter().filter(|(name, _)| begin(name) && !device.is_lost()) {
        let rig = Rig::new(device, options, name);
        let rows = measure(&rig).unwrap_or_else(|failure| vec![rig.row("all of it", Err(failure))]);
        rows.iter().for_each(&mut progress);
        all.extend(rows);
    }
    all
}
