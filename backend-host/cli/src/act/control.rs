//! `k2k pause`, `resume`, `drain`, `stop`: the commands, and their effect.
//!
//! A command is a word in the kernel table, read by the kernel's run loop at each pass; the kernel's phase shows obedience.
//! For a kernel that does not obey, the report has its phase, its heartbeat, and the state of its process in the system.

use super::args::ControlArgs;
use crate::fabric::{self, Any, Failure};
use crate::interrupt::{self, INTERRUPTED};
use crate::text::time_ns;
use core::time::Duration;
use k2k::owner::{self, OwnerState};
use k2k::{Broker, Command, KernelId, Phase};
use k2k_command::say;
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

/// Time between two looks at the kernel.
const LOOK: Duration = Duration::from_millis(1);

pub(crate) fn main(name: &str, command: Command, args: &ControlArgs) -> ExitCode {
    fabric::main(name, || run(command, args))
}

fn run(command: Command, args: &ControlArgs) -> Result<ExitCode, Failure> {
    let broker = fabric::open(&args.target.file)?;
    let kernel = fabric::find(&broker, &args.target.name)?;
    interrupt::catch();
    let before = View::of(&broker, kernel);
    let began = Instant::now();
    broker.command(kernel, command)?;
    fabric::has_acted();
    loop {
        let now = View::of(&broker, kernel);
        let took = began.elapsed();
        let name = &args.target.name;
        if now.obeys(command, &before) {
            let already = if before.is_so(command) { " already" } else { "" };
            say!("{name} ({kernel}) {}{already}, after {}", now.state(), time_ns(took.as_nanos() as f64))?;
            return Ok(ExitCode::SUCCESS);
        }
        let is_over = took >= args.timeout || now.cannot_obey();
        if is_over || interrupt::is_asked_for() {
            let status = if is_over { 1 } else { INTERRUPTED };
            // The command did not wait for a kernel that can never obey.
            let within =
                if now.cannot_obey() { String::new() } else { format!(" within {}", time_ns(took.as_nanos() as f64)) };
            say!("{name} ({kernel}) has not obeyed{within}: {}", now.why(&before))?;
            return Ok(ExitCode::from(status));
        }
        thread::sleep(LOOK.min(args.timeout - took));
    }
}

/// State of a kernel at a moment.
#[derive(Clone, Copy, Debug)]
struct View {
    /// Phase of the kernel; `None` once it has left.
    phase: Option<Phase>,
    heartbeat: u64,
    process: Option<u32>,
    owner: OwnerState,
    /// Whether the system has stopped the kernel's process (SIGSTOP, a debugger).
    is_suspended: bool,
}

impl View {
    fn of(broker: &Broker<Any>, kernel: KernelId) -> Self {
        let fabric = broker.memory().fabric();
        let domain = fabric.config().domain;
        let tag = fabric.owner(kernel);
        Self {
            phase: fabric.phase(kernel).filter(|phase| *phase == Phase::Failed || fabric.is_registered(kernel)),
            heartbeat: fabric.heartbeat(kernel).unwrap_or(0),
            process: tag.and_then(|tag| owner::process_of(tag, domain)),
            owner: tag.map_or(OwnerState::Unknown, |tag| owner::state_of(tag, domain)),
            is_suspended: tag.is_some_and(|tag| owner::is_suspended(tag, domain)),
        }
    }

    /// Whether the kernel has obeyed since `before`. A kernel that hung in its handler before the pause still shows the
    /// phase of a running kernel, so only a moving heartbeat proves a resume; a kernel without the library's run loop has no
    /// heartbeat.
    fn obeys(&self, command: Command, before: &Self) -> bool {
        let moves = self.heartbeat == 0 || self.heartbeat != before.heartbeat;
        self.is_so(command) && (command != Command::Run || moves)
    }

    /// Whether the kernel's phase is the phase asked for by the command.
    fn is_so(&self, command: Command) -> bool {
        match command {
            Command::Run => self.phase == Some(Phase::Running),
            Command::Pause => self.phase == Some(Phase::Paused),
            Command::Drain | Command::Stop => matches!(self.phase, None | Some(Phase::Stopped)),
        }
    }

    /// Whether no amount of time will make the kernel obey.
    fn cannot_obey(&self) -> bool {
        self.owner == OwnerState::Dead || matches!(self.phase, None | Some(Phase::Failed | Phase::Stopped))
    }

    /// The kernel's state, to print behind its name.
    fn state(&self) -> &'static str {
        match self.phase {
            None => "has left",
            Some(Phase::Idle) => "is not in a run loop",
            Some(Phase::Running) => "runs",
            Some(Phase::Paused) => "is paused",
            Some(Phase::Draining) => "drains its inbox",
            Some(Phase::Stopped) => "has stopped",
            Some(Phase::Failed) => "has failed",
        }
    }

    /// Why the kernel has not obeyed, as far as visible from outside.
    fn why(&self, before: &Self) -> String {
        let process = self.process.map_or_else(|| "its process".to_owned(), |id| format!("its process {id}"));
        match (self.owner, self.phase) {
            (OwnerState::Dead, _) => format!("{process} is gone; `k2k reap` frees its name and index"),
            (_, None) => "it has left".to_owned(),
            (_, Some(Phase::Failed)) => "its handler has failed, and nothing runs there any more".to_owned(),
            (_, Some(Phase::Stopped)) => "it has left its run loop, and reads no commands".to_owned(),
            _ if self.is_suspended => {
                format!("{process} is stopped by the system (SIGSTOP, or a debugger); it obeys when it goes on")
            }
            (_, Some(Phase::Idle)) => {
                "it is not in a run loop, so only its own code reads the command, if it does".to_owned()
            }
            (_, Some(Phase::Draining)) => "it drains its inbox, and has not come to its end".to_owned(),
            (_, Some(_)) if self.heartbeat == before.heartbeat => {
                format!("its heartbeat stands still at {}: it hangs in its handler", self.heartbeat)
            }
            (_, Some(_)) => {
                "it runs, its heartbeat goes on, and another command may have taken this one's index".to_owned()
            }
        }
    }
}
