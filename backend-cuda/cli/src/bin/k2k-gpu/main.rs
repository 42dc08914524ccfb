//! `k2k-gpu`: what the GPUs of this machine can do, tried out; whether K2K works there, and how fast.

mod check;
mod doctor;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

const EXIT_STATUS: &str = "Exit status: 0 a kernel ran on a GPU, 1 on none, 2 bad arguments, 141 nobody reads \
                           standard output any more. `check` has more of them.";

/// Says what the GPUs of this machine can do, and tries them out.
#[derive(Debug, Parser)]
#[command(name = "k2k-gpu", version, max_term_width = 100, after_help = EXIT_STATUS)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Describe each GPU and run a kernel on it. Also without a command.
    #[command(after_help = EXIT_STATUS)]
    Doctor,
    /// Check that K2K works on a GPU, and measure it: one command, which needs nothing but the driver.
    ///
    /// First every way that messages take is tried with numbered messages, each accounted for; then each way is timed
    /// beside its floor. It ends by itself within five minutes, whatever happens.
    Check(check::Args),
    /// The benchmarks of `check` without its checks.
    Bench(check::Args),
}

fn main() -> ExitCode {
    match k2k_command::parse::<Cli>("k2k-gpu").map(|cli| cli.command) {
        Ok(None | Some(Command::Doctor)) => doctor::main(),
        Ok(Some(Command::Check(args))) => check::main(&args, check::What::All),
        Ok(Some(Command::Bench(args))) => check::main(&args, check::What::Benchmarks),
        Err(status) => status,
    }
}
