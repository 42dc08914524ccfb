//! `k2k reap`: frees the names and indices of kernels whose process is gone, in a fabric of any shape.

use crate::args::ReapArgs;
use crate::fabric;
use k2k::{FailedKernel, ReapReport};
use std::process::ExitCode;

const NAME: &str = "k2k reap";

pub(crate) fn main(args: &ReapArgs) -> ExitCode {
    fabric::main(NAME, || run(args))
}

fn run(args: &ReapArgs) -> Result<ExitCode, fabric::Failure> {
    let (report, cleared) = reap(&args.file, args.clear_failed)?;
    let mut text = cleared.iter().map(|failed| format!("cleared {failed}, which had failed\n")).collect::<String>();
    text += &format!("{report}\n");
    if !report.failed.is_empty() {
        text += "(k2k reap --clear-failed frees the indices of failed kernels)\n";
    }
    k2k_command::print(text)?;
    Ok(ExitCode::SUCCESS)
}

/// Reaps, and returns the report and the failed kernels whose indices were cleared, if `clear` asks for clearing.
fn reap(file: &str, clear: bool) -> Result<(ReapReport, Vec<FailedKernel>), fabric::Failure> {
    let broker = fabric::open(file)?;
    fabric::has_acted();
    let mut report = broker.reap();
    let mut cleared = Vec::new();
    if clear {
        cleared = core::mem::take(&mut report.failed);
        // Another process may have cleared the index a moment ago.
        cleared.retain(|failed| broker.clear_failed(failed.id).is_ok());
    }
    Ok((report, cleared))
}
