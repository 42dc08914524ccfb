//! `k2k reap`: frees the names and places of kernels whose process is gone.

use crate::args::ReapArgs;
use k2k_host::fabric::AttachError;
use k2k_host::{Broker, Fixed, Memory, MemoryError, ReapReport};
use std::process::ExitCode;

const NAME: &str = "k2k reap";

/// A fabric's shape, kernels, slots and payload, and how to reap in it.
type Reaper = ([usize; 3], fn(&str) -> Result<ReapReport, MemoryError>);

/// Those that this program was compiled for: a fabric's shape is part of its type.
macro_rules! reapers {
    ($($kernels:literal $slots:literal $payload:literal;)*) => {
        &[$(([$kernels, $slots, $payload], reap::<$kernels, $slots, $payload>),)*]
    };
}

const REAPERS: &[Reaper] = reapers! {
    4 64 64; 4 64 192; 4 256 192;
    8 64 64; 8 64 192; 8 256 192;
    16 64 64; 16 64 192; 16 256 192; 16 1024 192;
    64 64 64; 64 64 192; 64 256 192;
};

fn reap<const K: usize, const S: usize, const P: usize>(file: &str) -> Result<ReapReport, MemoryError> {
    Memory::<Fixed<K, S, P>>::open(file).map(|memory| Broker::new(memory).reap())
}

/// Their shapes, as a list.
fn known() -> String {
    let known: Vec<String> = REAPERS.iter().map(|([k, s, p], _)| format!("{k} x {s} x {p}")).collect();
    known.join(", ")
}

pub(crate) fn shapes_help() -> String {
    format!(
        "A fabric's shape (kernels x slots x payload bytes) is part of its type. This program knows {}; in a fabric of \
         another shape, call Broker::reap in a program with that shape.",
        known()
    )
}

pub(crate) fn main(args: &ReapArgs) -> ExitCode {
    k2k_command::end(NAME, 1, run(args))
}

fn run(args: &ReapArgs) -> Result<ExitCode, Box<dyn core::error::Error>> {
    let mut shape = None;
    for (_, reap) in REAPERS {
        match reap(&args.file) {
            Ok(report) => {
                k2k_command::print(format!("{report}\n"))?;
                return Ok(ExitCode::SUCCESS);
            }
            // Another shape: the error says which.
            Err(MemoryError::Attach { why: AttachError::Geometry { found, .. }, .. }) => shape = Some(found),
            Err(MemoryError::TooShort { is_fabric: true, .. }) => {}
            Err(why) => return Err(why.into()),
        }
    }
    let found = shape.map_or_else(String::new, |found| {
        format!(", {} kernels x {} slots x {} bytes,", found.kernels, found.slots, found.payload)
    });
    Err(format!(
        "{}: the fabric's shape{found} is none of those that this program was compiled for ({}): call \
         Broker::reap in a program with that shape",
        args.file,
        known()
    )
    .into())
}
