//! `k2k reap`: frees the names and places of kernels whose process is gone, in a fabric of any shape.

use crate::args::ReapArgs;
use crate::fabric;
use std::process::ExitCode;

const NAME: &str = "k2k reap";

pub(crate) fn main(args: &ReapArgs) -> ExitCode {
    k2k_command::end(NAME, 1, run(args).map_err(fabric::plain))
}

fn run(args: &ReapArgs) -> Result<ExitCode, fabric::Failure> {
    let report = fabric::with_stack(|| fabric::open(&args.file).map(|broker| broker.reap()))??;
    k2k_command::print(format!("{report}\n"))?;
    Ok(ExitCode::SUCCESS)
}
