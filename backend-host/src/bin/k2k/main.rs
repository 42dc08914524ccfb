//! The command `k2k`: `k2k run` carries a file through a mesh of kernels, `k2k doctor` says what this machine offers.

mod args;
mod doctor;
mod run;
mod text;
mod topology;

use std::process::ExitCode;

fn main() -> ExitCode {
    match k2k_command::parse::<args::Cli>("k2k").map(|cli| cli.command) {
        Ok(args::Command::Run(args)) => run::main(&args),
        Ok(args::Command::Doctor(args)) => doctor::main(&args),
        Err(status) => status,
    }
}
