//! The command `k2k`: `k2k run` carries a file through a mesh of kernels, `k2k doctor` says what this machine offers.

mod args;
mod doctor;
mod run;
mod text;
mod topology;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match args::Cli::parse().command {
        args::Command::Run(args) => run::main(&args),
        args::Command::Doctor(args) => doctor::main(&args),
    }
}
