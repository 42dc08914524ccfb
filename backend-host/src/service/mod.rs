//! Services: typed requests, their answers, and the reasons why there is none.
//!
//! ```text
//!   client                                        service, a kernel
//!   ask(Deposit { amount }) ── kind, bytes ──────> on::<Deposit>(state, request)
//!   Ok(balance)            <── reply ──────────── Ok(balance)
//!   Err(Refused(7))        <── reply ──────────── Err(Refused(7))
//! ```
//!
//! - [`Request`] says of a plain value that it is a request, which kind its messages have, and the type of its answer.
//! - [`Client`] asks, and returns the answer or a [`RequestError`], in threads and in tasks.
//! - [`Service`] is a [`Kernel`] that calls a function for each kind of request and sends what it returns. It runs as any
//!   kernel: on a thread of its own by [`Broker::start`](crate::Broker::start), on this one by
//!   [`Endpoint::run`](crate::Endpoint::run), as a task by [`Endpoint::run_async`](crate::Endpoint::run_async).
//!
//! A service that asks other services while it handles a request needs no `Service`: a [`Client`] receives requests as
//! well, and keeps those that come while it waits for an answer.
//!
//! ```
//! use core::time::Duration;
//! use k2k::service::{Refused, Request, RequestError, Service};
//! use k2k::{Broker, StartOptions};
//!
//! #[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
//! #[repr(C)]
//! struct Withdraw {
//!     amount: u64,
//! }
//! impl Request for Withdraw {
//!     const KIND: u32 = 1;
//!     type Answer = u64; // the balance
//! }
//! const NOT_ENOUGH: Refused = Refused(7);
//!
//! let broker: Broker = Broker::builder().build()?;
//! let account = Service::new(100u64).on(|balance: &mut u64, Withdraw { amount }| {
//!     *balance = balance.checked_sub(amount).ok_or(NOT_ENOUGH)?;
//!     Ok(*balance)
//! });
//! let account = broker.start("account", account, StartOptions::default())?;
//!
//! let mut client = broker.client("me")?;
//! let second = Duration::from_secs(1);
//! assert_eq!(client.ask(account.id(), &Withdraw { amount: 30 }, second), Ok(70));
//! let refused = client.ask(account.id(), &Withdraw { amount: 500 }, second);
//! assert_eq!(refused, Err(RequestError::Refused(NOT_ENOUGH)));
//!
//! let account = account.stop_and_join(second)?;
//! assert_eq!(account.into_state(), 70);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How requests and answers cross
//!
//! A request is a message of the kind [`Request::KIND`] whose payload is the value. Its answer is a
//! [reply](crate::Endpoint::reply) of the same kind whose payload is the answer. A refusal is a reply of the kind
//! [`Refused::ANSWER_KIND`] whose payload is the number, a `u32`. An answer has the deadline of its request: an answer
//! that its client has given up is not received.

mod client;
mod error;

pub use client::{Client, StartedRequest};
pub use error::{Refused, RequestError};

use bytemuck::Pod;
use core::fmt;
use k2k_core::{Context, Kernel, Message};
use std::collections::HashMap;

/// A plain value that is a request.
pub trait Request: Pod {
    /// The kind of its messages; not [`Refused::ANSWER_KIND`].
    const KIND: u32;
    /// The type of its answer. `()` is an answer without payload.
    type Answer: Pod;
}

/// A function that answers a message.
type Handler<S, const PAYLOAD: usize> = Box<dyn FnMut(&mut S, &Message<PAYLOAD>) -> Option<Message<PAYLOAD>> + Send>;

/// A kernel that answers requests, with a state of its own: see [`service`](self).
///
/// It never waits for room: an answer that finds its client's inbox full, or its client gone, is dropped and
/// [counted](Self::undelivered). A client that waits for an answer has room for it.
pub struct Service<S, const PAYLOAD: usize = 192> {
    state: S,
    handlers: HashMap<u32, Handler<S, PAYLOAD>>,
    answered: u64,
    undelivered: u64,
}

impl<S: fmt::Debug, const PAYLOAD: usize> fmt::Debug for Service<S, PAYLOAD> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut kinds: Vec<_> = self.handlers.keys().collect();
        kinds.sort_unstable();
        f.debug_struct("Service")
            .field("state", &self.state)
            .field("kinds", &kinds)
            .field("answered", &self.answered)
            .field("undelivered", &self.undelivered)
            .finish()
    }
}

impl<S, const PAYLOAD: usize> Service<S, PAYLOAD> {
    /// A service that refuses every request, with [`Refused::UNKNOWN_KIND`].
    #[must_use]
    pub fn new(state: S) -> Self {
        Self { state, handlers: HashMap::new(), answered: 0, undelivered: 0 }
    }

    /// Answers requests of this type with what `handle` returns. Replies of its kind are no requests, and are not handled:
    /// see [`on_message`](Self::on_message).
    ///
    /// # Panics
    /// If requests of this kind are answered already.
    #[must_use]
    pub fn on<R: Request>(
        self,
        mut handle: impl FnMut(&mut S, R) -> Result<R::Answer, Refused> + Send + 'static,
    ) -> Self {
        const { assert!(R::KIND != Refused::ANSWER_KIND, "this kind is that of refusals") };
        self.on_message(R::KIND, move |state, request| {
            // Two services that each took the other's answers for requests would never come to an end.
            if request.header.is_reply() {
                return None;
            }
            let answer = request.value().map_err(|_| Refused::WRONG_SIZE).and_then(|request| handle(state, request));
            Some(match answer {
                Ok(answer) => Message::from_value(R::KIND, &answer),
                Err(refused) => refusal(refused),
            })
        })
    }

    /// Calls `handle` for messages of this kind, as bytes, and replies with what it returns, if anything.
    ///
    /// ```
    /// use core::time::Duration;
    /// use k2k::{Broker, Message, Service, StartOptions};
    ///
    /// let broker: Broker = Broker::builder().build()?;
    /// let counter = Service::new(0usize).on_message(1, |bytes, message| {
    ///     *bytes += message.payload().len();
    ///     None
    /// });
    /// let counter = broker.start("counter", counter, StartOptions::default())?;
    /// let mut me = broker.register("me")?;
    /// me.send(counter.id(), &Message::from_bytes(1, b"five!")?)?;
    /// counter.drain()?;
    /// assert_eq!(counter.join()?.into_state(), 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    /// If messages of this kind are answered already.
    #[must_use]
    pub fn on_message(
        mut self,
        kind: u32,
        handle: impl FnMut(&mut S, &Message<PAYLOAD>) -> Option<Message<PAYLOAD>> + Send + 'static,
    ) -> Self {
        let before = self.handlers.insert(kind, Box::new(handle));
        assert!(before.is_none(), "a service has one function for a kind: there is one for {kind} already");
        self
    }

    /// The state.
    #[must_use]
    pub const fn state(&self) -> &S {
        &self.state
    }

    /// The state, when the service has ended.
    #[must_use]
    pub fn into_state(self) -> S {
        self.state
    }

    /// Answers and refusals that were sent.
    #[must_use]
    pub const fn answered(&self) -> u64 {
        self.answered
    }

    /// Answers that were not sent: their client had left, had given up, or had a full inbox.
    #[must_use]
    pub const fn undelivered(&self) -> u64 {
        self.undelivered
    }
}

/// The answer that is a refusal.
fn refusal<const PAYLOAD: usize>(refused: Refused) -> Message<PAYLOAD> {
    let mut message = Message::new(Refused::ANSWER_KIND);
    // A fabric whose messages carry nothing has no room for the number.
    let _ = message.set_payload(bytemuck::bytes_of(&refused));
    message
}

impl<S, const PAYLOAD: usize> Kernel<PAYLOAD> for Service<S, PAYLOAD> {
    fn on_message(&mut self, context: &mut impl Context<PAYLOAD>, message: &Message<PAYLOAD>) {
        let answer = match self.handlers.get_mut(&message.header.kind) {
            Some(handle) => handle(&mut self.state, message),
            // A reply is no request: two services would refuse one another's refusals for ever.
            None if message.header.is_reply() => None,
            None => Some(refusal(Refused::UNKNOWN_KIND)),
        };
        let Some(mut answer) = answer else { return };
        if answer.header.deadline_ns == 0 {
            answer.header.deadline_ns = message.header.deadline_ns;
        }
        match context.reply(message, &answer) {
            Ok(_) => self.answered += 1,
            Err(_) => self.undelivered += 1,
        }
    }
}
