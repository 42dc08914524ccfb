//! Sending: from the caller's message to the next hop's inbox.

use super::{Endpoint, Hop};
use crate::fabric::{Command, Counter, DeliveryStatus, Deposit, Event, NotRegistered};
use crate::message::{Header, KernelId, MessageId, PayloadTooLong, Priority};
use crate::platform::Platform;
use crate::ring::ticket::TicketError;
use crate::shape::{Index, Packet, Shape};
use crate::sync::Body;
use core::fmt;

/// Tries of a high-priority send that is passed over each time.
const HIGH_TRIES: usize = 3;

/// For what a message is deposited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It is this kernel's own.
    Send,
    /// It is passed on.
    Forward,
}

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
    /// This kernel's place was taken away, because somebody took its process for dead: see
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
                "{kernel} was taken for dead and its place was taken away: drop this endpoint and register anew"
            ),
        }
    }
}

impl core::error::Error for SendError {}

impl<L: Platform, Sh: Shape> Endpoint<'_, L, Sh> {
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
                self.count(Counter::Refused);
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
                    self.count(Counter::Refused);
                    return Err(e);
                }
                sent => return sent,
            };
            if self.command() == Command::Stop {
                self.may_send(&given)?;
                self.count(Counter::Refused);
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
        if self.is_evicted() {
            return Err(SendError::Evicted { kernel: self.id });
        }
        if given.payload_len as usize > self.capacity() {
            self.count(Counter::Refused);
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
        let hop = self.next_hop(to).map_err(|kernel| SendError::NotFound { kernel })?;
        if hop.marks.is_restricted() && self.fabric.senders().denies(to, self.id) {
            return Err(SendError::NotAllowed { receiver: to });
        }
        let now_ns = self.platform.now_ns();
        let deadline_ns = self.deadline(given, now_ns);
        if deadline_ns <= now_ns {
            return Err(SendError::Timeout { deadline_ns });
        }
        // Before anything is written: a sender that tries again and again must not use up receipts.
        if !self.has_room(hop.place, priority as u8) {
            return Err(SendError::QueueFull { next_hop: hop.id });
        }
        let sent = self.clock.now(self.wall_ns(now_ns));
        let count = self.counts[Counter::Sent as usize].wrapping_add(1);
        let sequence = self.base.wrapping_add(count);
        let hop_limit = if given.hop_limit() == 0 { self.config.hop_limit } else { given.hop_limit() };
        let header = Header {
            sequence,
            correlation_id: given.correlation_id,
            wall_time_ns: sent.wall_time_ns,
            deadline_ns,
            source_generation: self.id.generation(),
            destination_generation: to.generation(),
            kind: given.kind,
            source_index: self.id.index() as u16,
            destination_index: to.index() as u16,
            payload_len: given.payload_len,
            logical: sent.logical,
            flags: given.flags,
            hops: 0,
            hop_limit: Header::marked_hop_limit(hop_limit, is_reply),
            priority: priority as u8,
        };
        // Order 1 of the module's page. Receipt and count go first: should this kernel die before the message is
        // published, its successor takes back what was counted, rather than use a sequence twice.
        if sequence <= self.retract_until {
            self.retract(sequence);
        }
        let id = MessageId { source: self.id, sequence };
        self.note_sending(&hop, &header, count);
        self.fabric.receipts(self.place).open(sequence, to, deadline_ns);
        self.set_count(Counter::Sent, count);
        let done = self.deposit(hop, &header, message, Purpose::Send);
        if !done {
            self.fabric.receipts(self.place).void(sequence);
            self.set_count(Counter::Sent, count.wrapping_sub(1));
        }
        self.notes.sent();
        if !done {
            return Err(SendError::QueueFull { next_hop: hop.id });
        }
        self.trace(Event::Sent, None, &header);
        self.wake(hop);
        Ok(id)
    }

    /// Notes for a successor what is about to be counted as sent, and where it goes; `sent` is the count.
    #[inline(always)]
    pub(super) fn note_sending(&self, to: &Hop<Sh>, header: &Header, sent: u64) {
        self.notes.send(self.deposit_of(to.place, header).encode(), header.sequence, sent);
    }

    /// Where a message is about to be deposited.
    #[inline(always)]
    pub(super) fn deposit_of(&self, hop: Index<Sh>, header: &Header) -> Deposit<Sh> {
        if header.priority == Priority::Normal as u8 {
            Deposit::Normal { hop, position: self.lanes_out[hop].tail }
        } else {
            Deposit::High { hop, position: None }
        }
    }

    /// Puts a message into a next hop's inbox; `false` if there is no room. The caller has noted the message, and will
    /// [wake](Self::wake) the owner.
    #[inline(always)]
    pub(super) fn deposit(&mut self, to: Hop<Sh>, header: &Header, message: &Sh::Item, purpose: Purpose) -> bool {
        if header.priority == Priority::Normal as u8 {
            // SAFETY: rule 2 of the SPSC ring: `fill` is called with the slot that is this producer's to write.
            let fill = |body: Body<'_, _>| unsafe { body.write_headed(header, message, message.used()) };
            self.fabric.lanes(to.place).push(self.place, &mut self.lanes_out[to.place], message.used(), fill).is_ok()
        } else {
            // Not lent: as in `trace`.
            self.outgoing = *header;
            let done = self.has_high_room(to.place) && self.deposit_high(to.place, message, purpose);
            if done {
                self.use_high_room(to.place);
            }
            done
        }
    }

    /// Wakes the owner of a next hop's inbox, after a deposit there and everything that had to follow it: the platform is
    /// the user's code, and may panic.
    #[inline(always)]
    pub(super) fn wake(&self, hop: Hop<Sh>) {
        self.fabric.entry(hop.place).wake(hop.marks.parks(), &self.platform);
    }

    #[cold]
    #[inline(never)]
    fn deposit_high(&self, hop: Index<Sh>, message: &Sh::Item, purpose: Purpose) -> bool {
        let (ring, me) = (self.fabric.high(hop), self.id.index() as u16);
        let notes = &self.notes;
        // A successor looks at the slot that was claimed last, if it is not given back yet.
        let note = |position| {
            let to = Deposit::High { hop, position }.encode();
            match purpose {
                Purpose::Send => notes.send(to, self.outgoing.sequence, self.counts[Counter::Sent as usize]),
                Purpose::Forward => notes.pass(to),
            }
        };
        // SAFETY: rule 1 of the ticket ring: `fill` is called with a slot that is this producer's to write.
        let fill = |body: Body<'_, _>| unsafe { body.write_headed(&self.outgoing, message, message.used()) };
        (0..HIGH_TRIES).map(|_| ring.push_with(me, fill, note)).find(|result| *result != Err(TicketError::Revoked))
            == Some(Ok(()))
    }
}
