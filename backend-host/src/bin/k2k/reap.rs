//! `k2k reap`: frees the names and places of kernels whose process is gone, in a fabric of any shape.

use crate::args::ReapArgs;
use k2k_host::{Broker, Memory, MemoryError, Read, ReapReport};
use std::process::ExitCode;
use std::thread;

const NAME: &str = "k2k reap";

/// The largest shape that there is; what this one has stands in the fabric's header.
type Any = Read<4096, 65472>;

/// An endpoint of [`Any`] keeps state for each of 4096 kernels, and messages of 64 KiB, in its stack frame.
const STACK_LEN: usize = 64 << 20;

pub(crate) fn main(args: &ReapArgs) -> ExitCode {
    k2k_command::end(NAME, 1, run(args))
}

fn run(args: &ReapArgs) -> Result<ExitCode, Box<dyn core::error::Error>> {
    let file = args.file.clone();
    let reaper = thread::Builder::new().stack_size(STACK_LEN).spawn(move || reap(&file))?;
    let report = reaper.join().map_err(|_| "the thread that reaps has panicked")??;
    k2k_command::print(format!("{report}\n"))?;
    Ok(ExitCode::SUCCESS)
}

fn reap(file: &str) -> Result<ReapReport, MemoryError> {
    Memory::<Any>::open(file).map(|memory| Broker::new(memory).reap())
}
