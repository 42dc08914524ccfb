//! Sending: from the caller's message to the next hop's inbox.

use super::Endpoint;
use super::member::Hop;
use super::outbox::Purpose;
use crate::fabric::{Command, Counter, DeliveryStatus, Event, NotRegistered};
use crate::message::{Header, KernelId, MessageId, PayloadTooLong, Priority};
use crate::platform::Platform;
use crate::shape::{Packet, Shape};
use core::fmt;

/// Why a message was not accepted. It is still the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// Nobody is registered at the destination, or at the next hop on the way to it.
    NotFound {
        /// Who is missing.
        kernel: KernelId,
    },
    /// The next hop's inbox has no room for this sender now: with normal priority, its own ring is full; with high
    /// priority, it has as many messages there as its [share](crate::Config::high_share), or the ring is full.
    QueueFull {
        /// Whose inbox.
        next_hop: KernelId,
    },
    /// The deadline has passed, perhaps while waiting for room.
    Timeout {
        /// The deadline, ns on the clock of [`Platform::now_ns`].
        deadline_ns: u64,
    },
    /// The inbox had no room, and a supervisor told this kernel to stop while it waited for some.
    Stopped {
        /// Whose inbox.
        next_hop: KernelId,
    },
    /// The receiver may not receive from this kernel: see [`Fabric::deny`](crate::Fabric::deny).
    NotAllowed {
        /// The receiver.
        receiver: KernelId,
    },
    /// The header claims more payload than a message holds.
    PayloadTooLong(PayloadTooLong),
    /// This process was forked: the endpoint is a copy, and only the parent's may be used.
    Forked,
    /// This kernel's index was taken away, because somebody took its process for dead: see
    /// [`Endpoint::is_evicted`](crate::Endpoint::is_evicted).
    Evicted {
        /// The address that this kernel had.
        kernel: KernelId,
    },
}

impl SendError {
    /// The status that a receipt would have shown.
    #[must_use]
    pub const fn status(&self) -> Option<DeliveryStatus> {
        match self {
            Self::NotFound { .. } => Some(DeliveryStatus::NotFound),
            Self::QueueFull { .. } => Some(DeliveryStatus::QueueFull),
            Self::Timeout { .. } => Some(DeliveryStatus::Timeout),
            Self::NotAllowed { .. } => Some(DeliveryStatus::NotAllowed),
            Self::Stopped { .. } | Self::PayloadTooLong(_) | Self::Forked | Self::Evicted { .. } => None,
        }
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { kernel } => NotRegistered(*kernel).fmt(f),
            Self::QueueFull { next_hop } => {
                write!(f, "the inbox of {next_hop} has no room for this sender: try again when it has received")
            }
            Self::Timeout { deadline_ns } => write!(
                f,
                "the deadline, {deadline_ns} ns on the clock of `Platform::now_ns`, passed before the message was sent, or \
                 before there was room for it; 0 stands for the fabric's delivery timeout, and `deadline_in` makes a \
                 deadline of a duration"
            ),
            Self::Stopped { next_hop } => {
                write!(f, "this kernel was told to stop while it waited for room in the inbox of {next_hop}")
            }
            Self::NotAllowed { receiver } => {
                write!(f, "this kernel may not send to {receiver}: a supervisor has denied it, and can allow it again")
            }
            Self::PayloadTooLong(e) => e.fmt(f),
            Self::Forked => f.write_str(
                "this process was forked and has only a copy of the endpoint: register a kernel of its own here",
            ),
            Self::Evicted { kernel } => write!(
                f,
                "{kernel} was taken for dead and its index was taken away: drop this endpoint and register anew"
            ),
        }
    }
}

impl core::error::Error for SendError {}

impl<P: Platform, Sh: Shape> Endpoint<'_, P, Sh> {
    /// Sends with normal priority. The message is lent: if it is refused, it is still the caller's.
    ///
    /// Sender, receiver, sequence, times, priority and, where the caller left 0, deadline and hop limit of the header
    /// are filled in on the way; `message` itself stays as it is. [`receipt`](Self::receipt) tells later what became of
    /// the message.
    ///
    /// # Errors
    /// See [`SendError`]; `QueueFull` means that it may be tried again.
    #[inline]
    pub fn send(&mut self, to: KernelId, message: &Sh::Item) -> Result<MessageId, SendError> {
        self.send_priority(to, message, Priority::Normal)
    }

    /// Sends. A message of high priority is received before all normal ones that wait, except that one normal message
    /// is received after every 16.
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    #[inline]
    pub fn send_priority(
        &mut self,
        to: KernelId,
        message: &Sh::Item,
        priority: Priority,
    ) -> Result<MessageId, SendError> {
        self.send_under(to, message.header(), message, priority, false)
    }

    /// As [`send_priority`](Self::send_priority), with what the caller sets of a header taken from `given`: the message
    /// itself need not be copied to be sent under another one.
    #[inline]
    fn send_under(
        &mut self,
        to: KernelId,
        given: &Header,
        message: &Sh::Item,
        priority: Priority,
        is_reply: bool,
    ) -> Result<MessageId, SendError> {
        self.may_send(given)?;
        match self.accept(to, given, message, priority, is_reply) {
            Ok(id) => Ok(id),
            Err(refusal) => {
                self.ledger.count(Counter::Refused);
                Err(refusal)
            }
        }
    }

    /// Sends, and waits for room until the message's deadline (by default the fabric's delivery timeout from now), or
    /// until a supervisor tells this kernel to stop. So a deadline that never comes is allowed. While it waits, transit
    /// traffic is forwarded, and `wait` is called between tries: it should return within milliseconds, since nothing
    /// else looks at the deadline and the supervisor's command.
    ///
    /// A kernel that was told to stop before, or that drains its inbox, can still send: the first try comes first, and
    /// [`Command::Drain`] does not end the wait.
    ///
    /// # Errors
    /// As for [`send`](Self::send), but [`SendError::Timeout`] or [`SendError::Stopped`] in place of `QueueFull`.
    pub fn send_waiting(
        &mut self,
        to: KernelId,
        message: &Sh::Item,
        priority: Priority,
        mut wait: impl FnMut(),
    ) -> Result<MessageId, SendError> {
        let deadline_ns = self.deadline(message.header(), self.platform.now_ns());
        let given = Header { deadline_ns, ..*message.header() };
        loop {
            self.may_send(&given)?;
            let next_hop = match self.accept(to, &given, message, priority, false) {
                Err(SendError::QueueFull { next_hop }) => next_hop,
                Err(e) => {
                    self.ledger.count(Counter::Refused);
                    return Err(e);
                }
                sent => return sent,
            };
            if self.command() == Command::Stop {
                self.may_send(&given)?;
                self.ledger.count(Counter::Refused);
                return Err(SendError::Stopped { next_hop });
            }
            self.poll();
            wait();
        }
    }

    /// Answers a request: sends to its source, with its sequence as the correlation id, at its priority. The message says
    /// that it is a reply, so that [gateways](crate::gateway) make the correlation id what the requester knows.
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    pub fn reply(&mut self, request: &Sh::Item, answer: &Sh::Item) -> Result<MessageId, SendError> {
        let priority = if request.header().priority == 0 { Priority::Normal } else { Priority::High };
        let given = Header { correlation_id: request.header().sequence, ..*answer.header() };
        self.send_under(request.header().source(), &given, answer, priority, true)
    }

    fn deadline(&self, header: &Header, now_ns: u64) -> u64 {
        match header.deadline_ns {
            0 => now_ns.saturating_add(self.config.delivery_timeout_ns),
            given => given,
        }
    }

    /// Refuses what needs no look at the fabric. Where this endpoint may not write, a refusal is not counted either.
    // Apart from `accept`, whose other errors carry one word: where both meet, a device compiler keeps them in memory.
    #[inline]
    fn may_send(&mut self, given: &Header) -> Result<(), SendError> {
        if !self.platform.is_here() {
            return Err(SendError::Forked);
        }
        if self.member.is_evicted() {
            return Err(SendError::Evicted { kernel: self.id() });
        }
        if given.payload_len as usize > self.capacity() {
            self.ledger.count(Counter::Refused);
            let len = given.payload_len as usize;
            return Err(SendError::PayloadTooLong(PayloadTooLong { len, capacity: self.capacity() }));
        }
        Ok(())
    }

    #[inline]
    fn accept(
        &mut self,
        to: KernelId,
        given: &Header,
        message: &Sh::Item,
        priority: Priority,
        is_reply: bool,
    ) -> Result<MessageId, SendError> {
        let hop = self.member.next_hop(to).map_err(|kernel| SendError::NotFound { kernel })?;
        if hop.marks.is_restricted() && self.member.fabric().senders().denies(to, self.id()) {
            return Err(SendError::NotAllowed { receiver: to });
        }
        let now_ns = self.platform.now_ns();
        let deadline_ns = self.deadline(given, now_ns);
        if deadline_ns <= now_ns {
            return Err(SendError::Timeout { deadline_ns });
        }
        // Before anything is written: a sender that tries again and again must not use up receipts.
        if !self.outbox.has_room(&self.member, hop.index, priority as u8) {
            return Err(SendError::QueueFull { next_hop: hop.id });
        }
        let sent = self.clock.now(self.wall_ns(now_ns));
        let sequence = self.ledger.last_sequence().wrapping_add(1);
        let hop_limit = if given.hop_limit() == 0 { self.config.hop_limit } else { given.hop_limit() };
        let header = Header {
            sequence,
            correlation_id: given.correlation_id,
            wall_time_ns: sent.wall_time_ns,
            deadline_ns,
            source_generation: self.id().generation(),
            destination_generation: to.generation(),
            kind: given.kind,
            source_index: self.id().index() as u16,
            destination_index: to.index() as u16,
            payload_len: given.payload_len,
            logical: sent.logical,
            flags: given.flags,
            hops: 0,
            hop_limit: Header::marked_hop_limit(hop_limit, is_reply),
            priority: priority as u8,
        };
        if self.own.may_hold_verdict(sequence) {
            self.retract(sequence);
        }
        let id = MessageId { source: self.id(), sequence };
        // Order 1 of the module's page.
        let to_hop = self.outbox.deposit_of(hop.index, &header).encode();
        self.ledger.begin_sending(to_hop, sequence, || self.member.receipts().open(sequence, to, deadline_ns));
        if self.deposit_own(hop, &header, message) { Ok(id) } else { Err(SendError::QueueFull { next_hop: hop.id }) }
    }

    /// Deposits a message whose receipt was opened at its next hop, and wakes that; or voids the receipt, and returns
    /// `false`, if there is no room.
    #[inline(always)]
    pub(super) fn deposit_own(&mut self, hop: Hop<Sh>, header: &Header, message: &Sh::Item) -> bool {
        let done = self.outbox.deposit(&self.member, &self.ledger, hop.index, header, message, Purpose::Send);
        if !done {
            self.ledger.take_back(true, || self.member.receipts().void(header.sequence));
        }
        self.ledger.end_sending();
        if done {
            self.trace(Event::Sent, None, header);
            self.wake(hop);
        }
        done
    }

    /// Wakes the owner of a next hop's inbox, after a deposit there and everything that had to follow it: the platform is
    /// the user's code, and may panic.
    #[inline(always)]
    pub(super) fn wake(&self, hop: Hop<Sh>) {
        self.member.fabric().entry(hop.index).wake(hop.marks.parks(), &self.platform);
    }
}
