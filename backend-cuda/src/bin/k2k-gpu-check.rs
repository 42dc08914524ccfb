//! `k2k-gpu-check`: does K2K work on this GPU, and how fast? One command, which needs nothing but the driver.

#[path = "k2k-gpu/check/mod.rs"]
mod check;

use clap::Parser;
use std::process::ExitCode;

/// Checks and measures K2K on this machine's GPU.
///
/// First every way that messages take is tried with numbered messages, each accounted for; then each way is timed
/// beside its floor. It ends by itself within five minutes, whatever happens.
#[derive(Debug, Parser)]
#[command(name = "k2k-gpu-check", version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    args: check::Args,
}

fn main() -> ExitCode {
    k2k_command::parse::<Cli>("k2k-gpu-check").map_or_else(|status| status, |cli| check::main(&cli.args, &[]))
}
