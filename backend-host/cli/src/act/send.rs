//! `k2k send`: a single message by hand.

use super::args::SendArgs;
use super::meaning;
use crate::fabric::{self, Any, Failure};
use crate::interrupt::{self, INTERRUPTED};
use crate::text::time_ns;
use core::time::Duration;
use k2k::{DeliveryStatus, Endpoint, KernelId, Message, MessageId, Priority, SendError, Wait};
use k2k_command::say;
use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;
use std::{fs, io};

pub(crate) fn main(args: &SendArgs) -> ExitCode {
    fabric::main("k2k send", || run(args))
}

fn run(args: &SendArgs) -> Result<ExitCode, Failure> {
    let broker = fabric::open(&args.target.file)?;
    let to = fabric::find(&broker, &args.target.name)?;
    let payload = payload(args)?;
    let capacity = broker.memory().fabric().geometry().payload as usize;
    if payload.len() > capacity {
        return Err(too_long(payload.len(), capacity).into());
    }
    let mut message = Message::from_bytes(args.kind, &payload)?;
    interrupt::catch_all();
    let mut me = fabric::register(&broker, args.own_name.as_deref(), "send")?;
    if let Some(timeout) = args.timeout {
        message = message.with_deadline_ns(me.deadline_in(timeout));
    }
    let priority = if args.high { Priority::High } else { Priority::Normal };
    let began = Instant::now();
    let outcome = send(&mut me, to, &message, priority)?;
    let took = time_ns(began.elapsed().as_nanos() as f64);
    let Some(status) = outcome else {
        say!("interrupted after {took}: {}", meaning(DeliveryStatus::Pending, &args.target.name))?;
        return Ok(ExitCode::from(INTERRUPTED));
    };
    say!("{status} after {took}: {}", meaning(status, &args.target.name))?;
    Ok(ExitCode::from(u8::from(status != DeliveryStatus::Delivered)))
}

/// The error for a payload too long for this fabric.
pub(super) fn too_long(len: usize, capacity: usize) -> String {
    format!("the payload has {len} bytes, and a message of this fabric carries {capacity} at most")
}

fn payload(args: &SendArgs) -> Result<Vec<u8>, Failure> {
    let stdin = || {
        let mut bytes = Vec::new();
        io::stdin().lock().read_to_end(&mut bytes).map_err(|e| format!("cannot read standard input: {e}"))?;
        Ok::<_, Failure>(bytes)
    };
    match (&args.input, args.text.as_deref()) {
        (Some(path), _) if path == Path::new("-") => stdin(),
        (Some(path), _) => fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()).into()),
        (None, Some("-")) => stdin(),
        (None, text) => Ok(text.unwrap_or_default().as_bytes().to_vec()),
    }
}

/// Sends, waits for room until the message's deadline, and for the outcome. `None` if the command was interrupted.
fn send(
    me: &mut Endpoint<Any>,
    to: KernelId,
    message: &Message<65472>,
    priority: Priority,
) -> Result<Option<DeliveryStatus>, Failure> {
    // A deadline fixed once includes the wait for room.
    let timeout = Duration::from_nanos(me.fabric().config().delivery_timeout_ns);
    let deadline_ns =
        if message.header.deadline_ns == 0 { me.deadline_in(timeout) } else { message.header.deadline_ns };
    let message = message.with_deadline_ns(deadline_ns);
    let mut tries = 0;
    let id = loop {
        match me.send_priority(to, &message, priority) {
            Ok(id) => {
                fabric::has_acted();
                break id;
            }
            Err(SendError::QueueFull { .. }) if !interrupt::is_asked_for() => {}
            // Not accepted, so certainly not received.
            Err(why) => return why.status().map(Some).ok_or_else(|| why.into()),
        }
        tries += 1;
        Wait::Park.nap(tries);
    };
    outcome(me, id)
}

/// Waits for the outcome of a message, which comes at its deadline and grace at the latest. `None` if the command was
/// interrupted.
pub(super) fn outcome(me: &mut Endpoint<Any>, id: MessageId) -> Result<Option<DeliveryStatus>, Failure> {
    let mut looks = 0;
    loop {
        let status = me.receipt(id)?.status;
        if status != DeliveryStatus::Pending {
            return Ok(Some(status));
        }
        if interrupt::is_asked_for() {
            return Ok(None);
        }
        looks += 1;
        Wait::Park.nap(looks);
    }
}
