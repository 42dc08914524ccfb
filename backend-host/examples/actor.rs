//! An actor with `async`: an account that several clients use at once, by request and reply.
//!
//! ```text
//! cargo run --release -p k2k --example actor
//! ```
//!
//! Shows
//! - typed requests and answers: plain values in a message, its kind says which;
//! - an actor as a task: `receive_async`, then `reply`, which carries the request's sequence as the correlation id;
//! - a request with a time limit, and why an answer that comes too late confuses nobody;
//! - three failures that a client can tell apart: the actor says no, the actor is too slow, there is no actor.
//!
//! Nothing here needs tokio but the timeout and the tasks: `receive_async` works with any executor.

use core::error::Error;
use core::fmt;
use core::time::Duration;
use k2k::{Broker, Endpoint, KernelId, Message, ReceiveError, SendError};
use k2k_command::{OutputError, complain, note, say};
use std::process::ExitCode;
use std::time::Instant;

/// Requests, as message kinds. The payload is an amount, or nothing.
const DEPOSIT: u32 = 1;
const WITHDRAW: u32 = 2;
const BALANCE: u32 = 3;
/// Like `BALANCE`, but the answer takes as many milliseconds as the amount says.
const AUDIT: u32 = 4;
const CLOSE: u32 = 5;
/// Answers. The payload is the balance.
const DONE: u32 = 100;
const NOT_ENOUGH: u32 = 101;
const NOT_UNDERSTOOD: u32 = 102;

/// The actor: its state is its own, so it needs no lock.
async fn account(mut me: Endpoint) -> Result<(), OutputError> {
    let mut balance = 0u64;
    loop {
        let request = match me.receive_async().await {
            Ok(request) => request,
            Err(e) => return say!("account: {e}, with {balance} in it"),
        };
        let amount = request.value::<u64>().ok();
        let kind = match (request.header.kind, amount) {
            (DEPOSIT, Some(amount)) => {
                balance += amount;
                DONE
            }
            (WITHDRAW, Some(amount)) if amount > balance => NOT_ENOUGH,
            (WITHDRAW, Some(amount)) => {
                balance -= amount;
                DONE
            }
            (AUDIT, Some(millis)) => {
                tokio::time::sleep(Duration::from_millis(millis)).await;
                DONE
            }
            (BALANCE | CLOSE, _) => DONE,
            _ => NOT_UNDERSTOOD,
        };
        if let Err(e) = me.reply(&request, &Message::from_value(kind, &balance)) {
            say!("account: {} gets no answer: {e}", request.header.source())?;
        }
        if request.header.kind == CLOSE {
            return Ok(());
        }
    }
}

/// Why a request came to nothing.
#[derive(Debug)]
enum AskError {
    /// It was not sent.
    Send(SendError),
    /// It was sent, and no answer came in time. It may have been carried out all the same.
    TooSlow,
    /// This client was told to stop.
    Stopped,
    /// The actor has answered no.
    Refused { kind: u32, balance: u64 },
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(e) => e.fmt(f),
            Self::TooSlow => f.write_str("no answer in time"),
            Self::Stopped => f.write_str("told to stop"),
            Self::Refused { kind: NOT_ENOUGH, balance } => write!(f, "refused: there is only {balance}"),
            Self::Refused { .. } => f.write_str("refused: not understood"),
        }
    }
}

impl Error for AskError {}

/// Sends a request and waits for its answer, the balance.
async fn ask(me: &mut Endpoint, account: KernelId, kind: u32, amount: u64, limit: Duration) -> Result<u64, AskError> {
    let request = me.send(account, &Message::from_value(kind, &amount)).map_err(AskError::Send)?;
    let answer = async {
        loop {
            match me.receive_async().await {
                Ok(answer) if answer.header.correlation_id == request.sequence => return Ok(answer),
                // The answer to an earlier request that was given up.
                Ok(late) => note(format_args!("  (late answer to request {} ignored)", late.header.correlation_id)),
                Err(ReceiveError::Stopped) => return Err(AskError::Stopped),
                Err(_) => return Err(AskError::TooSlow),
            }
        }
    };
    let answer = tokio::time::timeout(limit, answer).await.map_err(|_| AskError::TooSlow)??;
    let balance = answer.value().unwrap_or(0);
    if answer.header.kind == DONE { Ok(balance) } else { Err(AskError::Refused { kind: answer.header.kind, balance }) }
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
    let endpoint = broker.register_parking("account")?;
    let id = endpoint.id();
    let actor = tokio::spawn(account(endpoint));

    // Clients find the actor by its name, and use it at the same time.
    let mut clients = Vec::new();
    for number in 0..4 {
        let mut me = broker.register_parking(&format!("client {number}"))?;
        let account = broker.find("account").ok_or("there is no account")?;
        clients.push(tokio::spawn(async move {
            for _ in 0..1000 {
                ask(&mut me, account, DEPOSIT, 3, PATIENT).await?;
                ask(&mut me, account, WITHDRAW, 2, PATIENT).await?;
            }
            Ok::<(), AskError>(())
        }));
    }
    let began = Instant::now();
    for client in clients {
        client.await??;
    }
    say!("4 clients, 8000 requests: {:.1?}", began.elapsed())?;

    let mut me = broker.register_parking("me")?;
    say!("balance: {}", ask(&mut me, id, BALANCE, 0, PATIENT).await?)?;

    // The actor says no.
    match ask(&mut me, id, WITHDRAW, 5000, PATIENT).await {
        Err(e @ AskError::Refused { .. }) => say!("withdraw 5000: {e}")?,
        other => return Err(format!("expected a refusal, got {other:?}").into()),
    }

    // The actor is too slow; its answer comes while the next one is waited for.
    match ask(&mut me, id, AUDIT, 200, Duration::from_millis(20)).await {
        Err(e @ AskError::TooSlow) => say!("audit of 200 ms within 20 ms: {e}")?,
        other => return Err(format!("expected a timeout, got {other:?}").into()),
    }
    say!("balance: {}", ask(&mut me, id, BALANCE, 0, PATIENT).await?)?;

    // There is no actor any more: its address is never another kernel's.
    ask(&mut me, id, CLOSE, 0, PATIENT).await?;
    actor.await??;
    match ask(&mut me, id, BALANCE, 0, PATIENT).await {
        Err(e @ AskError::Send(SendError::NotFound { .. })) => say!("balance: {e}")?,
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
