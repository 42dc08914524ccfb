//! One kernel's handle on a fabric: sending, receiving, and passing on what is for others.
//!
//! # The way of a message
//!
//! ```text
//!   send ──> receipt opened (Pending) ──> shard of the next hop ──> its poll ──┬─> for it: receipt Delivered, received
//!                                              ^                              ├─> for another: hops + 1 ──┐
//!                                              └──────────────────────────────┼───────────────────────────┘
//!                                                                             └─> failed: receipt says why
//! ```
//!
//! Everything here runs on the kernel's own thread. What it shares with others is in [`fabric`](crate::fabric) and
//! [`ring`](crate::ring). The order in which things happen:
//!
//! 1. `send` opens the receipt before it publishes the message, so that a successor of a sender that died in between
//!    can time the message out.
//! 2. A message is decided (its receipt compare-exchanged) before it is counted, and counted by whoever decided it.
//! 3. A message is handed to the caller only if this endpoint decided `Delivered`.
//! 4. Where a death between two effects would lose a message or do something twice, the endpoint notes the message first,
//!    and its successor finishes or undoes what was noted: see [`hand`](crate::fabric) and `succeed.rs`.
//! 5. A poll never waits: each message it takes is received, forwarded, deferred or failed.
//!
//! # Parts
//!
//! An endpoint is made of types that keep what they own to themselves: nothing but their methods changes it.
//!
//! | file | type | what it owns |
//! | --- | --- | --- |
//! | `member.rs` | `Member` | the address, the claim of the kernel index, the way to everything in the fabric |
//! | `outbox.rs` | `Outbox` | the producer's ends of the other kernels' inboxes, and the share of their high-priority rings |
//! | `inbox.rs` | `Inbox` | the consumer's ends of the own inbox, and whose turn it is |
//! | `deferred.rs` | `Deferred` | which deferred messages wait for which next hop |
//! | [`fabric/hand.rs`](crate::fabric) | `Ledger` | the counters, the sequence, the notes for a successor |
//! | `own_receipts.rs` | `OwnReceipts` | which own messages may be pending |
//! | `control.rs` | `Control` | signs of life, and how the endpoint ends |
//!
//! What is done with a message, by means of them:
//!
//! | file | what |
//! | --- | --- |
//! | `register.rs` | taking an index, taking one over, leaving |
//! | `send.rs` | from the caller's message to the next hop's inbox |
//! | `receive.rs` | from the inbox to the caller |
//! | `forward.rs` | what is for others |
//! | `settle.rs` | deciding what became of a message that was taken, and counting it |
//! | `expire.rs` | the receipts of own messages |
//! | `trace.rs` | writing the trace |
//! | `sleep.rs` | falling asleep |
//! | `succeed.rs` | what a successor does with a message that its predecessor had in hand |
//! | `tap.rs` | forwarding for a kernel that looks on |
//! | `transfer.rs` | what a gateway does with its proxies' endpoints |

mod control;
mod deferred;
mod expire;
mod forward;
mod inbox;
mod member;
mod outbox;
mod own_receipts;
mod receive;
mod register;
mod send;
mod settle;
mod sleep;
mod succeed;
mod tap;
mod trace;
mod transfer;

pub use inbox::HIGH_BURST;
pub use register::{RegisterError, Registration};
pub use send::SendError;
pub use tap::TapReport;

use crate::fabric::{Config, FabricRef, Ledger, Stats};
use crate::hlc::{Clock, Timestamp};
use crate::message::KernelId;
use crate::platform::Platform;
use crate::shape::Shape;
use crate::wake_flag::WakeFlag;
use control::Control;
use core::fmt;
use core::time::Duration;
use deferred::Deferred;
use inbox::Inbox;
use member::Member;
use outbox::Outbox;
use own_receipts::OwnReceipts;

/// The deadline of a message that has `time` from `now_ns`.
fn deadline_after(now_ns: u64, time: Duration) -> u64 {
    let ns = time.as_secs().saturating_mul(1_000_000_000).saturating_add(time.subsec_nanos().into());
    // 0 in a header stands for the fabric's delivery timeout.
    now_ns.saturating_add(ns).max(1)
}

/// What an endpoint has left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backlog {
    /// Nothing: it may sleep until it is woken.
    None,
    /// Messages are deferred, because their next hops are full: it may rest, but must poll again soon.
    Transit,
    /// There is mail.
    Mail,
}

/// One kernel's handle on a fabric. Dropping it unregisters the kernel.
///
/// It is a capability: the source of every message sent through it is this kernel. It can move to another thread, but
/// has one user at a time. It has lines of its own, so that endpoints may lie side by side.
#[cfg_attr(not(any(target_arch = "nvptx64", k2k_device)), repr(align(128)))]
pub struct Endpoint<'f, P: Platform, Sh: Shape> {
    member: Member<'f, Sh>,
    platform: P,
    config: Config,
    clock: Clock,
    outbox: Outbox<Sh>,
    inbox: Inbox<Sh>,
    deferred: Deferred<Sh>,
    ledger: Ledger<'f, Sh::Scope>,
    own: OwnReceipts,
    control: Control,
}

impl<P: Platform, Sh: Shape> fmt::Debug for Endpoint<'_, P, Sh> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("id", &self.id()).field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl<'f, P: Platform, Sh: Shape> Endpoint<'f, P, Sh> {
    /// This kernel's address.
    #[must_use]
    pub const fn id(&self) -> KernelId {
        self.member.id()
    }

    /// Whether this kernel's index was taken away, because somebody took its process for dead. Its address is gone and
    /// nothing can be sent or received any more: drop it, and register anew. Every operation looks first.
    #[inline(always)]
    #[must_use]
    pub fn is_evicted(&self) -> bool {
        self.member.is_evicted()
    }

    /// Whether this endpoint may write to the fabric: it is no forked process's copy, and not evicted.
    #[inline(always)]
    pub(crate) fn may_write(&self) -> bool {
        self.platform.is_here() && !self.member.is_evicted()
    }

    /// Whether this kernel registered as [parking](Registration::parking).
    #[must_use]
    pub fn parks(&self) -> bool {
        self.member.registered(self.id()).is_some_and(|me| me.marks.parks())
    }

    /// The fabric.
    #[must_use]
    pub const fn fabric(&self) -> FabricRef<'f, Sh> {
        *self.member.fabric()
    }

    /// Bytes of payload that a message of this fabric carries at most.
    #[inline(always)]
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.member.fabric().shape().numbers().payload
    }

    /// The backend.
    #[must_use]
    pub const fn platform(&self) -> &P {
        &self.platform
    }

    /// Messages that wait in this kernel's inbox, for it or to be passed on: a snapshot that only senders can make
    /// too small.
    #[must_use]
    pub fn pending_count(&self) -> u64 {
        self.inbox.pending(&self.member) + self.deferred.len() as u64
    }

    /// What is left to do.
    #[must_use]
    pub fn backlog(&self) -> Backlog {
        if self.inbox.is_ready(&self.member) {
            Backlog::Mail
        } else if self.deferred.is_empty() {
            Backlog::None
        } else {
            Backlog::Transit
        }
    }

    /// Whether there seems to be mail from the senders at the indices `first`, `first + step`, ...: a share of an idle
    /// poll, for the threads of a warp that wait together. A hint: [`try_receive`](Self::try_receive) decides.
    #[inline]
    #[must_use]
    pub fn has_rung(&self, first: usize, step: usize) -> bool {
        self.inbox.has_rung(&self.member, first, step)
    }

    /// This kernel's wake flag.
    #[must_use]
    pub fn wake_flag(&self) -> &'f WakeFlag {
        &self.member.entry().wake_flag
    }

    /// A new timestamp of this kernel's hybrid clock: wall time, for people and for order. Deadlines are on another
    /// clock: see [`deadline_in`](Self::deadline_in).
    pub fn now(&mut self) -> Timestamp {
        let now_ns = self.platform.now_ns();
        self.clock.now(self.wall_ns(now_ns))
    }

    /// Elapsed time in ns, on the clock of deadlines: see [`Platform::now_ns`].
    #[inline]
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        self.platform.now_ns()
    }

    /// The deadline of a message that has this long from now, for
    /// [`Message::with_deadline_ns`](crate::Message::with_deadline_ns). A time too long for the clock is never over.
    ///
    /// ```
    /// # use core::time::Duration;
    /// # use k2k_core::{Endpoint, Fixed, KernelId, Message, Platform, SendError};
    /// # fn ask<P: Platform>(me: &mut Endpoint<'_, P, Fixed<4, 8, 64>>, echo: KernelId) -> Result<(), SendError> {
    /// let question = Message::new(7).with_deadline_ns(me.deadline_in(Duration::from_millis(20)));
    /// me.send(echo, &question)?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn deadline_in(&self, time: Duration) -> u64 {
        deadline_after(self.platform.now_ns(), time)
    }

    /// The wall time at a reading of the other clock that was just taken.
    #[inline(always)]
    fn wall_ns(&self, now_ns: u64) -> u64 {
        now_ns.wrapping_add(self.platform.wall_offset_ns())
    }

    /// This kernel's counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats::from_counters(self.ledger.counts())
    }
}
