//! Asking: a request, and its answer or the reason why there is none.

use super::{Refused, Request, RequestError};
use crate::wait::{self, ReceiveError};
use crate::{Broker, Endpoint, EndpointError};
use core::fmt;
use core::time::Duration;
use k2k_core::sync::System;
use k2k_core::{
    CLOCK_MARGIN_NS, DeliveryStatus, Fixed, Header, KernelId, Message, MessageId, Packet, SendError, Shape,
};
use std::collections::VecDeque;
use std::time::Instant;

/// How long a client waits between two looks at the fate of its request: whether it was received, and whether the
/// service is still there.
const LOOK: Duration = Duration::from_millis(20);

/// How long a client waits for room before it tries again to send.
const ROOM: Duration = Duration::from_millis(1);

/// How long a client waits, after the service has left, for an answer that another kernel passes on.
const RELAYED: Duration = Duration::from_secs(1);

/// Other messages that a client keeps at most, by default.
const KEPT: usize = 1024;

/// Requests without an answer whose late answers are recognised.
const REMEMBERED: usize = 1024;

/// An endpoint that sends requests and waits for their answers, in threads and in tasks.
///
/// | while it waits | the client |
/// | --- | --- |
/// | the service's inbox, or that of a forwarder, is full | tries again until the deadline |
/// | the request ended otherwise | returns [`RequestError::NotReceived`] |
/// | the service leaves | returns [`RequestError::Gone`], within some 20 ms, or 1 s if a forwarder may have its answer |
/// | an answer to an earlier request comes | drops it, and counts it ([`late`](Self::late)) |
/// | another message comes | keeps it for [`receive`](Self::receive) |
/// | traffic in transit comes | passes it on |
/// | a supervisor sends `Stop` | returns [`RequestError::Stopped`]; `Drain` does not end the wait |
/// | the deadline passes | returns [`RequestError::NoAnswer`] or `NotReceived` |
///
/// The deadline is that of the request as well: a request that its client has given up is never received.
///
/// Each try that finds no room counts in [`Stats::refused`](k2k_core::Stats::refused): a client that waits for room for a
/// second counts some 1000.
///
/// ```
/// use core::time::Duration;
/// use k2k::{Broker, Client, Message};
///
/// let broker: Broker = Broker::builder().build()?;
/// let mut service = broker.register_parking("upper")?;
/// let to = service.id();
/// let serving = std::thread::spawn(move || {
///     let request = service.receive(Duration::from_secs(5)).unwrap();
///     let answer = Message::from_bytes(request.header.kind, &request.payload().to_ascii_uppercase()).unwrap();
///     service.reply(&request, &answer).unwrap();
/// });
/// let mut client = Client::new(broker.register_parking("me")?);
/// let answer = client.request(to, &Message::from_bytes(1, b"hello")?, Duration::from_secs(5))?;
/// assert_eq!(answer.payload(), b"HELLO");
/// # serving.join().unwrap();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Client<Sh: Shape<Scope = System> = Fixed<16, 256, 192>> {
    endpoint: Endpoint<Sh>,
    /// Messages that came while an answer was waited for, oldest first.
    kept: VecDeque<Sh::Item>,
    /// How many of them there may be.
    room: usize,
    /// Sequences of requests without an answer yet, oldest first.
    unanswered: VecDeque<u64>,
    /// Requests that their callers look at now and then, and the answers that came while something else was received.
    started: Vec<Started<Sh::Item>>,
    late: u64,
}

impl<Sh: Shape<Scope = System>> fmt::Debug for Client<Sh> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("endpoint", &self.endpoint)
            .field("kept", &self.kept.len())
            .field("late", &self.late)
            .finish_non_exhaustive()
    }
}

impl<Sh: Shape<Scope = System>> From<Endpoint<Sh>> for Client<Sh> {
    fn from(endpoint: Endpoint<Sh>) -> Self {
        Self::new(endpoint)
    }
}

impl<Sh: Shape<Scope = System>> Broker<Sh> {
    /// A [`Client`] on a new endpoint, which [parks](Self::register_parking).
    ///
    /// # Errors
    /// [`EndpointError`] says why not.
    pub fn client(&self, name: &str) -> Result<Client<Sh>, EndpointError> {
        self.register_parking(name).map(Client::new)
    }
}

/// What a client knows of a request that was started and sent.
struct Started<Item> {
    id: MessageId,
    to: KernelId,
    /// The answer, if it came while something else was received.
    answer: Option<Box<Item>>,
}

/// A request that its caller looks at now and then: see [`Client::start_request`].
#[derive(Debug)]
#[must_use = "a request is sent when it is looked at"]
pub struct StartedRequest {
    asked: Asked,
    /// When its fate is looked at next.
    look: Option<Instant>,
}

/// A request under way.
#[derive(Debug)]
struct Asked {
    to: KernelId,
    /// The message that was sent, unless there was no room yet.
    id: Option<MessageId>,
    /// The last refusal for want of room.
    full: Option<SendError>,
    /// When the wait has certainly ended; `None`: never.
    ends: Option<Instant>,
    /// The service has left: until when an answer that it sent before may still come.
    gone: Option<Instant>,
}

impl StartedRequest {
    /// When its client is to look at it again, though no mail came.
    #[must_use]
    pub const fn next_look(&self) -> Option<Instant> {
        self.look
    }
}

impl<Sh: Shape<Scope = System>> Client<Sh> {
    /// A client on this endpoint, which should have [registered as parking](Broker::register_parking).
    ///
    /// It keeps at most 1024 other messages, and no more than one for each kernel and slot of the fabric: see
    /// [`with_room`](Self::with_room).
    #[must_use]
    pub fn new(endpoint: Endpoint<Sh>) -> Self {
        let shape = endpoint.fabric().geometry();
        let room = KEPT.min(shape.kernels as usize * shape.slots as usize);
        Self { endpoint, kept: VecDeque::new(), room, unanswered: VecDeque::new(), started: Vec::new(), late: 0 }
    }

    /// Keeps so many other messages at most while it waits for an answer. Each takes the memory of a whole message.
    #[must_use]
    pub const fn with_room(mut self, messages: usize) -> Self {
        self.room = if messages == 0 { 1 } else { messages };
        self
    }

    /// How many other messages it keeps at most.
    #[must_use]
    pub const fn room(&self) -> usize {
        self.room
    }

    /// The endpoint.
    #[must_use]
    pub const fn endpoint(&self) -> &Endpoint<Sh> {
        &self.endpoint
    }

    /// The endpoint, to send, reply, publish and wait for kernels. A message that is received here directly is none that
    /// the client keeps.
    #[must_use]
    pub const fn endpoint_mut(&mut self) -> &mut Endpoint<Sh> {
        &mut self.endpoint
    }

    /// How many messages were kept while an answer was waited for: [`receive`](Self::receive) has them without waiting.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.kept.len()
    }

    /// The endpoint, and the messages that were kept.
    #[must_use]
    pub fn into_parts(self) -> (Endpoint<Sh>, VecDeque<Sh::Item>) {
        (self.endpoint, self.kept)
    }

    /// Late answers that were dropped.
    #[must_use]
    pub const fn late(&self) -> u64 {
        self.late
    }

    /// Sends a request and waits for its answer, as bytes: see the table at [`Client`]. Its deadline is `timeout` from now,
    /// or that of the message, if it has an earlier one.
    ///
    /// # Errors
    /// [`RequestError`] says what became of the request.
    pub fn request(&mut self, to: KernelId, message: &Sh::Item, timeout: Duration) -> Result<Sh::Item, RequestError> {
        let (mut message, mut answer) = (*message, Sh::Item::empty());
        self.request_into(to, &mut message, &mut answer, timeout)?;
        Ok(answer)
    }

    /// As [`request`](Self::request), with messages that the caller has: none is copied on the stack, which is worth the
    /// trouble where messages are large. `message` gets the request's deadline; after an error, `answer` may hold a message
    /// that is none.
    ///
    /// # Errors
    /// As for [`request`](Self::request).
    pub fn request_into(
        &mut self,
        to: KernelId,
        message: &mut Sh::Item,
        answer: &mut Sh::Item,
        timeout: Duration,
    ) -> Result<(), RequestError> {
        let mut asked = self.ask_for(to, message, timeout);
        loop {
            let limit = self.send_or_wait(&mut asked, message)?;
            let wait = self.endpoint.wait();
            match wait::receive_into(self.endpoint.core(), answer, wait, Some(limit), wait::stopped) {
                Ok(()) if self.sort(&asked, answer) => return Ok(()),
                Ok(()) => {}
                Err(ReceiveError::Timeout) => self.look(&mut asked)?,
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// [`request`](Self::request) for `async` code, with any executor, which needs no timer. A future that is dropped
    /// loses no other message; its request may be carried out.
    ///
    /// # Errors
    /// As for [`request`](Self::request).
    ///
    /// # Panics
    /// If the system gives no thread for the helper, which the first `await` of a process starts.
    pub async fn request_async(
        &mut self,
        to: KernelId,
        message: &Sh::Item,
        timeout: Duration,
    ) -> Result<Sh::Item, RequestError> {
        let mut message = *message;
        let mut asked = self.ask_for(to, &mut message, timeout);
        loop {
            let limit = self.send_or_wait(&mut asked, &message)?;
            match self.endpoint.receive_async_draining(limit).await {
                Ok(received) if self.sort(&asked, &received) => return Ok(received),
                Ok(_) => {}
                Err(ReceiveError::Timeout) => self.look(&mut asked)?,
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// For callers that do other things while they wait, such as event loops: a request that is sent and looked at by
    /// [`look_at_request`](Self::look_at_request). A client may have several, and may receive and ask meanwhile. `message`
    /// gets the request's deadline.
    ///
    /// ```
    /// use core::time::Duration;
    /// use k2k::{Broker, Client, Message};
    ///
    /// let broker: Broker = Broker::builder().build()?;
    /// let (mut a, mut b) = (broker.register_parking("a")?, broker.register_parking("b")?);
    /// let mut client = Client::new(broker.register_parking("me")?);
    /// let (mut message, mut answer) = (Message::new(1), Message::new(0));
    /// let mut first = client.start_request(a.id(), &mut message, Duration::from_secs(1));
    /// let mut second = client.start_request(b.id(), &mut message, Duration::from_secs(1));
    /// assert!(!client.look_at_request(&mut first, &message, &mut answer, Duration::ZERO)?);
    /// assert!(!client.look_at_request(&mut second, &message, &mut answer, Duration::ZERO)?);
    /// for service in [&mut a, &mut b] {
    ///     let request = service.receive(Duration::from_secs(1))?;
    ///     service.reply(&request, &Message::new(2))?;
    /// }
    /// assert!(client.look_at_request(&mut second, &message, &mut answer, Duration::ZERO)?);
    /// assert!(client.look_at_request(&mut first, &message, &mut answer, Duration::ZERO)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn start_request(&self, to: KernelId, message: &mut Sh::Item, timeout: Duration) -> StartedRequest {
        StartedRequest { asked: self.ask_for(to, message, timeout), look: None }
    }

    /// Sends the request, unless it is under way, and waits for its answer, `wait` at most. `true`: `answer` holds it.
    /// `false`: look again when mail came, and by [`next_look`](StartedRequest::next_look) in any case. `message` is the one
    /// that the request was started with. After `true` or an error the request has ended;
    /// [abandon](Self::abandon_request) one that is given up before.
    ///
    /// # Errors
    /// As for [`request`](Self::request).
    pub fn look_at_request(
        &mut self,
        request: &mut StartedRequest,
        message: &Sh::Item,
        answer: &mut Sh::Item,
        wait: Duration,
    ) -> Result<bool, RequestError> {
        let until = Instant::now().checked_add(wait);
        let found = self.look_until(request, message, answer, until);
        if found != Ok(false) {
            self.forget(request);
        }
        found
    }

    /// Gives a request up: its answer, should one come, is a late one.
    pub fn abandon_request(&mut self, request: StartedRequest) {
        if let Some(at) = self.position(&request) {
            if self.started[at].answer.is_some() {
                self.late += 1;
            }
            self.forget(&request);
        }
    }

    fn look_until(
        &mut self,
        request: &mut StartedRequest,
        message: &Sh::Item,
        answer: &mut Sh::Item,
        until: Option<Instant>,
    ) -> Result<bool, RequestError> {
        loop {
            if let Some(found) = self.position(request).and_then(|at| self.started[at].answer.take()) {
                *answer = *found;
                return Ok(true);
            }
            let was_sent = request.asked.id;
            let next = self.send_or_wait(&mut request.asked, message)?;
            if let Some(id) = request.asked.id
                && was_sent.is_none()
            {
                self.started.push(Started { id, to: request.asked.to, answer: None });
            }
            let due = *request.look.get_or_insert(next);
            let limit = until.map_or(due, |until| until.min(due));
            let way = self.endpoint.wait();
            match wait::receive_into(self.endpoint.core(), answer, way, Some(limit), wait::stopped) {
                Ok(()) if self.sort(&request.asked, answer) => return Ok(true),
                Ok(()) => {}
                Err(ReceiveError::Timeout) if due <= Instant::now() => {
                    request.look = None;
                    let before = request.asked.id;
                    self.look(&mut request.asked)?;
                    if request.asked.id != before {
                        self.started.retain(|started| Some(started.id) != before);
                    }
                }
                Err(ReceiveError::Timeout) => return Ok(false),
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn position(&self, request: &StartedRequest) -> Option<usize> {
        self.started.iter().position(|started| Some(started.id) == request.asked.id)
    }

    fn forget(&mut self, request: &StartedRequest) {
        self.started.retain(|started| Some(started.id) != request.asked.id);
    }

    /// Answers of [started](Self::start_request) requests that came while something else was received.
    #[must_use]
    pub fn put_aside(&self) -> usize {
        self.started.iter().filter(|started| started.answer.is_some()).count()
    }

    /// Puts aside a message that is the answer of a request that was started.
    fn is_for_started(&mut self, received: &Sh::Item) -> bool {
        let header = received.header();
        if self.started.is_empty() || !header.is_reply() {
            return false;
        }
        let (to, sequence) = (header.source(), header.correlation_id);
        let Some(at) = self.started.iter().position(|started| started.id.sequence == sequence && started.to == to)
        else {
            return false;
        };
        self.unanswered.retain(|&unanswered| unanswered != sequence);
        self.started[at].answer = Some(Box::new(*received));
        true
    }

    /// The oldest message that was kept while an answer was waited for, or else the next one of the endpoint: as
    /// [`Endpoint::receive`]. Late answers are dropped.
    ///
    /// # Errors
    /// As for [`Endpoint::receive`].
    pub fn receive(&mut self, timeout: impl Into<Option<Duration>>) -> Result<Sh::Item, ReceiveError> {
        let mut message = Sh::Item::empty();
        self.receive_into(&mut message, timeout)?;
        Ok(message)
    }

    /// As [`receive`](Self::receive), into a message that the caller has.
    ///
    /// # Errors
    /// As for [`Endpoint::receive_into`].
    pub fn receive_into(
        &mut self,
        message: &mut Sh::Item,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<(), ReceiveError> {
        if let Some(kept) = self.kept.pop_front() {
            *message = kept;
            return Ok(());
        }
        // With mail there, the time is not needed.
        while self.endpoint.try_receive_into(message) {
            if !self.is_not_mail(message) {
                return Ok(());
            }
        }
        let deadline = timeout.into().and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let wait = self.endpoint.wait();
            wait::receive_into(self.endpoint.core(), message, wait, deadline, wait::obeyed)?;
            if !self.is_not_mail(message) {
                return Ok(());
            }
        }
    }

    /// [`receive`](Self::receive) for `async` code: as [`Endpoint::receive_async`].
    ///
    /// # Errors
    /// As for [`Endpoint::receive_async`].
    ///
    /// # Panics
    /// If the system gives no thread for the helper, which the first `await` of a process starts.
    pub async fn receive_async(&mut self) -> Result<Sh::Item, ReceiveError> {
        loop {
            if let Some(message) = self.kept.pop_front() {
                return Ok(message);
            }
            let message = self.endpoint.receive_async().await?;
            if !self.is_not_mail(&message) {
                return Ok(message);
            }
        }
    }

    /// A request that is not sent yet, with its deadline.
    fn ask_for(&self, to: KernelId, message: &mut Sh::Item, timeout: Duration) -> Asked {
        let header = message.header_mut();
        let latest = self.endpoint.deadline_in(timeout);
        header.deadline_ns = if header.deadline_ns == 0 { latest } else { header.deadline_ns.min(latest) };
        let rest = Duration::from_nanos(header.deadline_ns.saturating_sub(self.endpoint.now_ns()));
        // The sender of a message learns its end when the margin has passed as well.
        let ends = Instant::now().checked_add(rest.saturating_add(Duration::from_nanos(2 * CLOCK_MARGIN_NS)));
        Asked { to, id: None, full: None, ends, gone: None }
    }

    /// Sends the request, if it is not under way; returns when the next look at it is due.
    fn send_or_wait(&mut self, asked: &mut Asked, message: &Sh::Item) -> Result<Instant, RequestError> {
        // Before each message is received, since there is no way back into the inbox.
        if self.kept.len() >= self.room {
            return Err(RequestError::Crowded { kept: self.kept.len() });
        }
        // A kernel that gets message after message never waits, and must hear of it all the same.
        wait::stopped(self.endpoint.core())?;
        if asked.id.is_none() {
            match self.endpoint.send(asked.to, message) {
                Ok(id) => {
                    if self.unanswered.len() == REMEMBERED {
                        self.unanswered.pop_front();
                    }
                    self.unanswered.push_back(id.sequence);
                    asked.id = Some(id);
                }
                Err(e @ SendError::QueueFull { .. }) => asked.full = Some(e),
                Err(e @ SendError::Timeout { .. }) => return Err(asked.full.unwrap_or(e).into()),
                Err(e) => return Err(e.into()),
            }
        }
        let next = Instant::now() + if asked.id.is_some() { LOOK } else { ROOM };
        Ok([asked.ends, asked.gone].into_iter().flatten().fold(next, Instant::min))
    }

    /// Whether this is the answer. Others are kept, or dropped if they are late answers.
    fn sort(&mut self, asked: &Asked, received: &Sh::Item) -> bool {
        let header = received.header();
        if let Some(id) = asked.id
            && header.is_reply()
            && header.correlation_id == id.sequence
            && header.source() == asked.to
        {
            self.unanswered.retain(|&sequence| sequence != id.sequence);
            return true;
        }
        if !self.is_not_mail(received) {
            self.kept.push_back(*received);
        }
        false
    }

    /// Whether a message is an answer: one that is put aside for its request, or a late one, which is counted.
    fn is_not_mail(&mut self, received: &Sh::Item) -> bool {
        self.is_for_started(received) || self.is_late(received.header())
    }

    /// Whether a message answers a request that was given up; it is counted then.
    fn is_late(&mut self, header: &Header) -> bool {
        let late = header.is_reply() && self.unanswered.contains(&header.correlation_id);
        if late {
            self.unanswered.retain(|&sequence| sequence != header.correlation_id);
            self.late += 1;
        }
        late
    }

    /// Whether a route leads requests to this kernel, or its answers, through another one.
    fn is_relayed(&self, to: KernelId) -> bool {
        let (fabric, me) = (self.endpoint.fabric(), self.endpoint.id());
        fabric.route(to, me).is_some() || fabric.route(me, to).is_some()
    }

    /// What has become of a request without an answer so far.
    fn look(&mut self, asked: &mut Asked) -> Result<(), RequestError> {
        let late = asked.ends.is_some_and(|ends| ends <= Instant::now());
        let Some(id) = asked.id else {
            return match asked.full {
                Some(full) if late => Err(full.into()),
                _ => Ok(()),
            };
        };
        // A receipt that was overwritten tells nothing.
        let status = self.endpoint.receipt(id).map_or(DeliveryStatus::Pending, |receipt| receipt.status);
        match status {
            // A forwarder had no room.
            DeliveryStatus::QueueFull => {
                self.unanswered.retain(|&sequence| sequence != id.sequence);
                (asked.id, asked.gone) = (None, None);
                if late { Err(RequestError::NotReceived(status)) } else { Ok(()) }
            }
            DeliveryStatus::Pending | DeliveryStatus::Delivered if late => Err(RequestError::NoAnswer(status)),
            DeliveryStatus::Pending | DeliveryStatus::Delivered => {
                let now = Instant::now();
                match asked.gone {
                    Some(until) if until <= now => return Err(RequestError::Gone(asked.to)),
                    None if !self.endpoint.fabric().is_registered(asked.to) => {
                        // The inbox is looked at once more after this: an answer that was sent directly is there by now.
                        asked.gone = Some(if self.is_relayed(asked.to) { now + RELAYED } else { now });
                    }
                    _ => {}
                }
                Ok(())
            }
            DeliveryStatus::Unanswered => Err(RequestError::NoAnswer(status)),
            failed => {
                self.unanswered.retain(|&sequence| sequence != id.sequence);
                Err(RequestError::NotReceived(failed))
            }
        }
    }
}

impl<const PAYLOAD: usize, Sh: Shape<Scope = System, Item = Message<PAYLOAD>>> Client<Sh> {
    /// Sends a typed request and waits for its answer: see [`service`](super).
    ///
    /// # Errors
    /// As for [`request`](Self::request), and [`RequestError::Refused`], [`RequestError::AnswerSize`].
    pub fn ask<R: Request>(&mut self, to: KernelId, request: &R, timeout: Duration) -> Result<R::Answer, RequestError> {
        let answer = self.request(to, &Message::from_value(R::KIND, request), timeout)?;
        answer_of::<R, PAYLOAD>(&answer)
    }

    /// [`ask`](Self::ask) for `async` code, with any executor.
    ///
    /// # Errors
    /// As for [`ask`](Self::ask).
    ///
    /// # Panics
    /// If the system gives no thread for the helper, which the first `await` of a process starts.
    pub async fn ask_async<R: Request>(
        &mut self,
        to: KernelId,
        request: &R,
        timeout: Duration,
    ) -> Result<R::Answer, RequestError> {
        let answer = self.request_async(to, &Message::from_value(R::KIND, request), timeout).await?;
        answer_of::<R, PAYLOAD>(&answer)
    }
}

/// What an answer says.
fn answer_of<R: Request, const PAYLOAD: usize>(answer: &Message<PAYLOAD>) -> Result<R::Answer, RequestError> {
    if answer.header.kind == Refused::ANSWER_KIND {
        return Err(answer.value().map_or_else(RequestError::AnswerSize, RequestError::Refused));
    }
    answer.value().map_err(RequestError::AnswerSize)
}
