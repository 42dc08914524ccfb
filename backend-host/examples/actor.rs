//! An actor with `async`: an account that several clients use at once, by request and reply.
//!
//! ```text
//! cargo run --release -p k2k --example actor
//! ```
//!
//! Shows
//! - typed requests and answers: plain values in a message, its kind says which;
//! - an actor as a task: a `Service`, whose state is its own, run by `run_async`;
//! - a request with a time limit, and why an answer that comes too late confuses no client;
//! - three failures that a client can tell apart: the actor says no, the actor is too slow, there is no actor.
//!
//! Nothing here needs tokio but the tasks: `run_async` and `ask_async` work with any executor, and need no timer of it.

use bytemuck::{Pod, Zeroable};
use core::error::Error;
use core::time::Duration;
use k2k::service::{Refused, Request};
use k2k::{Broker, Command, DeliveryStatus, RequestError, SendError, Service};
use k2k_command::{complain, say};
use std::process::ExitCode;
use std::time::Instant;

/// Requests. All are answered with the balance.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(transparent)]
struct Deposit(u64);
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(transparent)]
struct Withdraw(u64);
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Balance;
/// Like `Balance`, but the answer takes so many milliseconds.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(transparent)]
struct Audit(u64);

macro_rules! requests {
    ($($request:ty = $kind:literal),*) => {
        $(impl Request for $request {
            const KIND: u32 = $kind;
            type Answer = u64;
        })*
    };
}
requests!(Deposit = 1, Withdraw = 2, Balance = 3, Audit = 4);

/// The actor's no.
const NOT_ENOUGH: Refused = Refused(1);

/// The actor: its state is its own, so it needs no lock.
fn account() -> Service<u64> {
    Service::new(0u64)
        .on(|balance: &mut u64, Deposit(amount)| {
            *balance += amount;
            Ok(*balance)
        })
        .on(|balance: &mut u64, Withdraw(amount)| {
            *balance = balance.checked_sub(amount).ok_or(NOT_ENOUGH)?;
            Ok(*balance)
        })
        .on(|balance: &mut u64, Balance| Ok(*balance))
        .on(|balance: &mut u64, Audit(millis)| {
            // A handler that takes long tells the executor, which runs the other tasks elsewhere.
            tokio::task::block_in_place(|| std::thread::sleep(Duration::from_millis(millis)));
            Ok(*balance)
        })
}

#[tokio::main]
async fn main() -> ExitCode {
    if let Some(argument) = std::env::args().nth(1) {
        complain("actor", format_args!("{argument:?}: it takes no arguments"));
        return ExitCode::from(2);
    }
    k2k_command::end("actor", 1, run().await.map(|()| ExitCode::SUCCESS))
}

async fn run() -> Result<(), Box<dyn Error>> {
    const PATIENT: Duration = Duration::from_secs(5);
    let broker: Broker = Broker::builder().build()?;
    let mut endpoint = broker.register_parking("account")?;
    let id = endpoint.id();
    let actor = tokio::spawn(async move {
        let mut account = account();
        endpoint.run_async(&mut account, Duration::from_millis(250)).await;
        account
    });

    // Clients find the actor by its name, and use it at the same time.
    let mut clients = Vec::new();
    for number in 0..4 {
        let mut me = broker.client(&format!("client {number}"))?;
        clients.push(tokio::spawn(async move {
            let account =
                me.endpoint_mut().wait_for_kernel_async("account", PATIENT).await.map_err(|e| e.to_string())?;
            for _ in 0..1000 {
                me.ask_async(account, &Deposit(3), PATIENT).await.map_err(|e| e.to_string())?;
                me.ask_async(account, &Withdraw(2), PATIENT).await.map_err(|e| e.to_string())?;
            }
            Ok::<(), String>(())
        }));
    }
    let began = Instant::now();
    for client in clients {
        client.await??;
    }
    say!("4 clients, 8000 requests: {:.1?}", began.elapsed())?;

    let mut me = broker.client("me")?;
    say!("balance: {}", me.ask_async(id, &Balance, PATIENT).await?)?;

    // The actor says no.
    match me.ask_async(id, &Withdraw(5000), PATIENT).await {
        Err(RequestError::Refused(NOT_ENOUGH)) => say!("withdraw 5000: there is not enough")?,
        other => return Err(format!("expected a refusal, got {other:?}").into()),
    }

    // The actor is too slow; its answer is not taken for that of the next request.
    match me.ask_async(id, &Audit(200), Duration::from_millis(20)).await {
        Err(e @ RequestError::NoAnswer(DeliveryStatus::Delivered)) => say!("audit of 200 ms within 20 ms: {e}")?,
        other => return Err(format!("expected a timeout, got {other:?}").into()),
    }
    say!("balance: {}", me.ask_async(id, &Balance, PATIENT).await?)?;

    // There is no actor any more: its address is never another kernel's.
    broker.command(id, Command::Stop)?;
    let account = actor.await?;
    say!("account: told to stop, with {} in it", account.state())?;
    match me.ask_async(id, &Balance, PATIENT).await {
        Err(e @ RequestError::Send(SendError::NotFound { .. })) => say!("balance: {e}")?,
        other => return Err(format!("expected nobody to be there, got {other:?}").into()),
    }

    drop(me);
    let stats = broker.stats();
    say!(
        "sent {} = received {} + failed {}, pending {}",
        stats.sent,
        stats.received,
        stats.failed(),
        broker.pending()
    )?;
    Ok(())
}
