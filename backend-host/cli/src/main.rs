//! The command `k2k`: `k2k run` carries a file through a mesh of kernels, `k2k doctor` checks this machine,
//! `k2k reap` frees the indices of kernels whose process is gone, the commands of [`look`] look into a running fabric,
//! and the commands of [`act`] act on a running fabric.

mod act;
mod args;
mod doctor;
mod fabric;
mod interrupt;
mod look;
mod output;
mod reap;
mod run;
mod text;
mod topology;

use args::Command;
use k2k::Command as Control;
use std::process::ExitCode;

fn main() -> ExitCode {
    match k2k_command::parse::<args::Cli>("k2k").map(|cli| cli.command) {
        Ok(Command::Run(args)) => run::main(&args),
        Ok(Command::Doctor(args)) => doctor::main(&args),
        Ok(Command::Reap(args)) => reap::main(&args),
        Ok(Command::Ls(args)) => look::ls(&args),
        Ok(Command::Top(args)) => look::top(&args),
        Ok(Command::Dump(args)) => look::dump(&args),
        Ok(Command::Metrics(args)) => look::metrics(&args),
        Ok(Command::Errors(args)) => look::errors(&args),
        Ok(Command::Latency(args)) => look::latency(&args),
        Ok(Command::Send(args)) => act::send::main(&args),
        Ok(Command::Ping(args)) => act::ping::main(&args),
        Ok(Command::Trace(args)) => act::trace::main(&args),
        Ok(Command::Tap(args)) => act::tap::main(&args),
        Ok(Command::Record(args)) => act::record::main(&args),
        Ok(Command::Replay(args)) => act::replay::main(&args),
        Ok(Command::Pause(args)) => act::control::main("k2k pause", Control::Pause, &args),
        Ok(Command::Resume(args)) => act::control::main("k2k resume", Control::Run, &args),
        Ok(Command::Drain(args)) => act::control::main("k2k drain", Control::Drain, &args),
        Ok(Command::Stop(args)) => act::control::main("k2k stop", Control::Stop, &args),
        Err(status) => status,
    }
}
