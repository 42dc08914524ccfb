//! `k2k-gpu`: what the GPUs of this machine can do, tried out.

mod check;
mod doctor;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Says what the GPUs of this machine can do, and tries them out.
#[derive(Debug, Parser)]
#[command(name = "k2k-gpu", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Describe each GPU and run a kernel on it. Also without a command.
    Doctor,
    /// The same as `k2k-gpu-check`.
    Check(check::Args),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        None | Some(Command::Doctor) => doctor::main(),
        Some(Command::Check(args)) => check::main(&args),
    }
}
