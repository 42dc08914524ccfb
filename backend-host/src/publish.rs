//! One message to several kernels, and what became of each copy.
//!
//! Each receiver has a copy in its inbox and the sender a receipt of each copy, so one receiver that is slow, gone or full
//! is told from the others, and holds none of them back.
//!
//! ```
//! use core::time::Duration;
//! use k2k::{Broker, DeliveryStatus, Message, SendError};
//!
//! let broker: Broker = Broker::builder().build()?;
//! let mut me = broker.register("me")?;
//! let (mut a, mut b) = (broker.register("a")?, broker.register("b")?);
//! let gone = broker.register("gone")?.id();
//!
//! let mut news = me.publish(&[a.id(), b.id(), gone], &Message::from_bytes(1, b"news")?);
//! assert_eq!(news.sent().count(), 2);
//! assert_eq!(news.refused().collect::<Vec<_>>(), [(gone, SendError::NotFound { kernel: gone })]);
//!
//! assert_eq!(a.try_receive().unwrap().payload(), b"news");
//! news.update(&mut me);
//! assert_eq!(news.copies()[0].status(), Some(DeliveryStatus::Delivered));
//! assert_eq!(news.copies()[1].status(), Some(DeliveryStatus::Pending));
//!
//! assert_eq!(b.try_receive().unwrap().payload(), b"news");
//! news.wait(&mut me, Duration::from_secs(1))?;
//! assert_eq!((news.delivered().count(), news.is_delivered_to_all()), (2, false));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::wait::{self, ReceiveError};
use crate::{Endpoint, Wait};
use core::time::Duration;
use k2k_core::sync::System;
use k2k_core::{DeliveryStatus, KernelId, MessageId, Packet, SendError, Shape};
use std::time::Instant;

/// The copy of a message for one receiver, and what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    to: KernelId,
    sent: Result<MessageId, SendError>,
    status: Option<DeliveryStatus>,
}

impl Delivery {
    /// Its receiver.
    #[must_use]
    pub const fn to(&self) -> KernelId {
        self.to
    }

    /// The copy's id, or why it was not sent.
    pub const fn sent(&self) -> Result<MessageId, SendError> {
        self.sent
    }

    /// What had become of it at the last [look](Published::update), or the status of its refusal. `None` if there is no
    /// receipt: it was overwritten, or the refusal has no status.
    #[must_use]
    pub const fn status(&self) -> Option<DeliveryStatus> {
        self.status
    }

    const fn is_unknown(&self) -> bool {
        self.sent.is_ok() && matches!(self.status, None | Some(DeliveryStatus::Unanswered))
    }

    const fn is_failed(&self) -> bool {
        let open = matches!(self.status, Some(DeliveryStatus::Pending | DeliveryStatus::Delivered));
        !open && !self.is_unknown()
    }
}

/// What became of a message that was published.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "it says which receivers the message was not sent to"]
pub struct Published {
    copies: Vec<Delivery>,
}

impl Published {
    /// All copies, in the order in which their receivers were given.
    #[must_use]
    pub fn copies(&self) -> &[Delivery] {
        &self.copies
    }

    /// The copies that were sent.
    pub fn sent(&self) -> impl Iterator<Item = (KernelId, MessageId)> {
        self.copies.iter().filter_map(|copy| copy.sent.ok().map(|id| (copy.to, id)))
    }

    /// The copies that were refused, and why.
    pub fn refused(&self) -> impl Iterator<Item = (KernelId, SendError)> {
        self.copies.iter().filter_map(|copy| copy.sent.err().map(|why| (copy.to, why)))
    }

    /// The receivers that had received their copies at the last look.
    pub fn delivered(&self) -> impl Iterator<Item = KernelId> {
        self.copies.iter().filter(|copy| copy.status == Some(DeliveryStatus::Delivered)).map(|copy| copy.to)
    }

    /// The copies that were not received and will not be, with their statuses as of the last look; `None`: a refusal without
    /// one. To send these once more is safe.
    pub fn failed(&self) -> impl Iterator<Item = (KernelId, Option<DeliveryStatus>)> {
        self.copies.iter().filter(|copy| copy.is_failed()).map(|copy| (copy.to, copy.status))
    }

    /// The copies of which nobody can tell whether they were received, as of the last look: `Unanswered`, or `None`, since the
    /// receipt was overwritten.
    pub fn unknown(&self) -> impl Iterator<Item = (KernelId, Option<DeliveryStatus>)> {
        self.copies.iter().filter(|copy| copy.is_unknown()).map(|copy| (copy.to, copy.status))
    }

    /// Whether all receivers had received their copies at the last look.
    #[must_use]
    pub fn is_delivered_to_all(&self) -> bool {
        self.delivered().count() == self.copies.len()
    }

    /// Whether no copy was on its way at the last look.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.copies.iter().all(|copy| copy.status != Some(DeliveryStatus::Pending))
    }

    /// Looks at the receipts of the copies that were on their way. `sender` is the endpoint that published.
    pub fn update<Sh: Shape<Scope = System>>(&mut self, sender: &mut Endpoint<Sh>) {
        for copy in &mut self.copies {
            if let (Ok(id), Some(DeliveryStatus::Pending)) = (copy.sent, copy.status) {
                copy.status = sender.receipt(id).ok().map(|receipt| receipt.status);
            }
        }
    }

    /// Waits until no copy is on its way any more, and looks at the receipts meanwhile. Transit traffic is forwarded; mail
    /// stays in the inbox. Receiving wakes no sender: the wait naps for 1 ms at most.
    ///
    /// # Errors
    /// [`ReceiveError::Timeout`] if some are still on their way; [`ReceiveError::Stopped`] when a supervisor has sent
    /// [`Command::Stop`](k2k_core::Command::Stop) to `sender`.
    pub fn wait<Sh: Shape<Scope = System>>(
        &mut self,
        sender: &mut Endpoint<Sh>,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<(), ReceiveError> {
        let deadline = timeout.into().and_then(|timeout| Instant::now().checked_add(timeout));
        let (wait, mut passes) = (sender.wait(), 0u32);
        loop {
            self.update(sender);
            if self.is_settled() {
                return Ok(());
            }
            pause(sender, wait, &mut passes, deadline)?;
        }
    }

    /// Sends the copies that found no room.
    fn try_again<Sh: Shape<Scope = System>>(&mut self, sender: &mut Endpoint<Sh>, message: &Sh::Item) -> bool {
        let mut done = true;
        for copy in &mut self.copies {
            if let Err(SendError::QueueFull { .. }) = copy.sent {
                *copy = send_copy(sender, copy.to, message);
                done &= !matches!(copy.sent, Err(SendError::QueueFull { .. }));
            }
        }
        done
    }
}

/// One step of a wait for something that wakes nobody.
fn pause<Sh: Shape<Scope = System>>(
    sender: &mut Endpoint<Sh>,
    wait: Wait,
    passes: &mut u32,
    deadline: Option<Instant>,
) -> Result<(), ReceiveError> {
    wait::stopped(sender.core())?;
    if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
        return Err(ReceiveError::Timeout);
    }
    sender.poll();
    *passes = passes.saturating_add(1);
    wait.nap(*passes);
    Ok(())
}

fn send_copy<Sh: Shape<Scope = System>>(sender: &mut Endpoint<Sh>, to: KernelId, message: &Sh::Item) -> Delivery {
    let sent = sender.send(to, message);
    let status = sent.map_or_else(|why| why.status(), |_| Some(DeliveryStatus::Pending));
    Delivery { to, sent, status }
}

impl<Sh: Shape<Scope = System>> Endpoint<Sh> {
    /// Sends a copy of a message to each of these kernels: see [`publish`](self). Never waits: a receiver whose inbox is
    /// full gets none.
    pub fn publish(&mut self, to: &[KernelId], message: &Sh::Item) -> Published {
        Published { copies: to.iter().map(|&to| send_copy(self, to, message)).collect() }
    }

    /// As [`publish`](Self::publish), but tries again to send the copies that found no room, until the message's deadline,
    /// by default the fabric's delivery timeout from now, or until a supervisor sends
    /// [`Command::Stop`](k2k_core::Command::Stop) to this kernel. All copies have the same deadline. Each try counts in
    /// [`Stats::refused`](k2k_core::Stats::refused).
    pub fn publish_blocking(&mut self, to: &[KernelId], message: &Sh::Item) -> Published {
        let (message, wait, mut passes) = (self.with_deadline(message), self.wait(), 0u32);
        let mut published = self.publish(to, &message);
        while !published.try_again(self, &message) {
            if pause(self, wait, &mut passes, None).is_err() {
                break;
            }
        }
        published
    }

    /// [`publish_blocking`](Self::publish_blocking) for `async` code, with any executor: it tries every millisecond. A
    /// future that is dropped has sent some of the copies.
    ///
    /// # Panics
    /// If the system gives no thread for the helper, which the first `await` of a process starts.
    pub async fn publish_async(&mut self, to: &[KernelId], message: &Sh::Item) -> Published {
        let message = self.with_deadline(message);
        let mut published = self.publish(to, &message);
        while !published.try_again(self, &message) {
            if wait::stopped(self.core()).is_err() {
                break;
            }
            self.poll();
            self.nap_async().await;
        }
        published
    }

    /// The message with a deadline, so that it has the same one however often it is tried.
    fn with_deadline(&self, message: &Sh::Item) -> Sh::Item {
        let mut message = *message;
        if message.header().deadline_ns == 0 {
            let timeout_ns = self.fabric().config().delivery_timeout_ns;
            message.header_mut().deadline_ns = self.now_ns().saturating_add(timeout_ns);
        }
        message
    }
}
