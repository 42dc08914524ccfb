//! The command `k2k`: `k2k run` carries a file through a mesh of kernels, `k2k doctor` says what this machine offers,
//! `k2k reap` frees the places of kernels whose process is gone.

mod args;
mod doctor;
mod reap;
mod run;
mod text;
mod topology;

use std::process::ExitCode;

fn main() -> ExitCode {
    match k2k_command::parse::<args::Cli>("k2k").map(|cli| cli.command) {
        Ok(args::Command::Run(args)) => run::main(&args),
        Ok(args::Command::Doctor(args)) => doctor::main(&args),
        Ok(args::Command::Reap(args)) => reap::main(&args),
        Err(status) => status,
    }
}
