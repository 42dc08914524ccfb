//! Several endpoints in a single wait of a thread or task.

use crate::Endpoint;
use crate::wait::{ReceiveError, longest_slice};
use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use k2k_core::sync::System;
use k2k_core::{Shape, Sleep};
use std::sync::Arc;
use std::task::Wake;
use std::thread::{self, Thread};
use std::time::Instant;

/// Endpoints, of one fabric or of several, for receiving in a single thread or task.
///
/// ```
/// use core::time::Duration;
/// use k2k::{Broker, Message, Set};
///
/// let (one, other): (Broker, Broker) = (Broker::builder().build()?, Broker::builder().build()?);
/// let mut set = Set::new([one.register_parking("a")?, other.register_parking("b")?]);
/// let mut sender = other.register("sender")?;
/// sender.send(other.find("b").unwrap(), &Message::new(7))?;
/// let (from, message) = set.receive(Duration::from_secs(5)).expect("mail of one of them");
/// assert_eq!((from, message?.header.kind), (1, 7));
/// assert!(set.receive(Duration::from_millis(1)).is_none(), "nothing in time");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Set<Sh: Shape<Scope = System>> {
    members: Vec<Member<Sh>>,
    /// Number of the member to look at first.
    next: usize,
}

struct Member<Sh: Shape<Scope = System>> {
    endpoint: Endpoint<Sh>,
    asleep: Option<Sleep<'static>>,
}

impl<Sh: Shape<Scope = System>> fmt::Debug for Set<Sh> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.members.iter().map(|member| &member.endpoint)).finish()
    }
}

impl<Sh: Shape<Scope = System>> Set<Sh> {
    /// A set of these endpoints, numbered from 0. They should have registered as parking; the set looks at an endpoint
    /// without parking every millisecond.
    pub fn new(endpoints: impl IntoIterator<Item = Endpoint<Sh>>) -> Self {
        let members = endpoints.into_iter().map(|endpoint| Member { endpoint, asleep: None }).collect();
        Self { members, next: 0 }
    }

    /// Adds an endpoint, and returns its number.
    pub fn push(&mut self, endpoint: Endpoint<Sh>) -> usize {
        self.members.push(Member { endpoint, asleep: None });
        self.members.len() - 1
    }

    /// Takes an endpoint out; each endpoint behind it moves up by 1. `None` if the set has no such number.
    pub fn remove(&mut self, number: usize) -> Option<Endpoint<Sh>> {
        (number < self.members.len()).then(|| self.members.remove(number).endpoint)
    }

    /// An endpoint, to send with, say. `None` if the set has no such number.
    pub fn get_mut(&mut self, number: usize) -> Option<&mut Endpoint<Sh>> {
        self.members.get_mut(number).map(|member| &mut member.endpoint)
    }

    /// Number of endpoints in the set.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether the set has no endpoint.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The next message of any endpoint, with the endpoint's number; `None` if no message came within `timeout`. The
    /// endpoints take turns: the look after a message begins with the next endpoint, so a flood at one endpoint holds up no
    /// other.
    ///
    /// An endpoint that was told to stop is reported as [`ReceiveError::Stopped`] at each of its turns, until
    /// [taken out](Self::remove). An empty set waits for the whole time.
    pub fn receive(&mut self, timeout: impl Into<Option<Duration>>) -> Option<(usize, Result<Sh::Item, ReceiveError>)> {
        struct Unparks(Thread);
        impl Wake for Unparks {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let deadline = timeout.into().and_then(|timeout| Instant::now().checked_add(timeout));
        let waker = Waker::from(Arc::new(Unparks(thread::current())));
        let mut receiving = self.receive_async();
        loop {
            if let Poll::Ready(received) = Pin::new(&mut receiving).poll(&mut Context::from_waker(&waker)) {
                return Some(received);
            }
            let rest = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if rest == Some(Duration::ZERO) {
                return None;
            }
            // Needed if another task's waker holds up the helper thread.
            let slice = longest_slice(usize::MAX);
            thread::park_timeout(rest.map_or(slice, |rest| rest.min(slice)));
        }
    }

    /// As [`receive`](Self::receive); `await` the future in any executor. Dropping the future loses no message.
    pub const fn receive_async(&mut self) -> ReceiveAny<'_, Sh> {
        ReceiveAny { set: self, yielded: false }
    }

    fn disarm(&mut self) {
        for member in &mut self.members {
            if let Some(sleep) = member.asleep.take() {
                member.endpoint.disarm(sleep);
            }
        }
    }
}

/// The future of [`Set::receive_async`].
#[must_use = "a future does nothing until it is awaited"]
#[derive(Debug)]
pub struct ReceiveAny<'s, Sh: Shape<Scope = System>> {
    set: &'s mut Set<Sh>,
    /// Other tasks have had a turn since the first look.
    yielded: bool,
}

impl<Sh: Shape<Scope = System>> Future for ReceiveAny<'_, Sh> {
    type Output = (usize, Result<Sh::Item, ReceiveError>);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.set.disarm();
        let count = this.set.members.len();
        for number in (0..count).map(|turn| (this.set.next + turn) % count) {
            if let Some(received) = this.set.members[number].endpoint.look() {
                this.set.next = number + 1;
                return Poll::Ready((number, received));
            }
        }
        let mut all = core::mem::replace(&mut this.yielded, true);
        if all {
            for member in &mut this.set.members {
                member.asleep = member.endpoint.arm_for_mail(context.waker());
                all &= member.asleep.is_some();
            }
        }
        if !all {
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl<Sh: Shape<Scope = System>> Drop for ReceiveAny<'_, Sh> {
    fn drop(&mut self) {
        self.set.disarm();
    }
}
