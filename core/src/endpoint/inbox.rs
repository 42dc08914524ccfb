//! A kernel's end of its own inbox: which message is next.

use super::member::Member;
use crate::fabric::{Ledger, Note};
use crate::in_place::make_in;
use crate::message::Header;
use crate::platform::Platform;
use crate::ring::sharded::{ShardedState, ShardedView};
use crate::ring::ticket::{TicketConsumerState, TicketPop};
use crate::shape::{Index, Packet, Shape};
use crate::sync::{Body, Scope};
use core::mem::MaybeUninit;

/// Messages of high priority that are received in a row while normal ones wait.
pub const HIGH_BURST: u32 = 16;

/// How long a sender of high priority may take between claiming a slot and publishing its message, before the receiver
/// passes the slot over. The sender then finds out and tries again.
const CLAIM_PATIENCE_NS: u64 = 10_000_000;

/// On a GPU, a load of a word that a supervisor may write is dear: there a kernel looks whether some senders may be denied
/// when its inbox is empty, and elsewhere at each message.
const LOOKS_WHEN_IDLE: bool = cfg!(target_arch = "nvptx64");

/// The consumer's end of the shards and of the high-priority ring.
pub(super) struct Inbox<Sh: Shape> {
    shards: ShardedState<Sh>,
    high: TicketConsumerState,
    /// Messages of high priority taken in a row.
    high_run: u32,
    /// A position of the high-priority ring that was claimed and not published, and since when that is known.
    stalled: Option<(u64, u64)>,
    /// The sender whose turn it is in `poll`.
    next_sender: Index<Sh>,
    /// On a GPU: whether some senders may be denied, when this kernel looked last.
    restricted: bool,
}

/// Copies a message out of a slot, and notes it before the ring counts it as consumed: what the SPSC ring's `pop`
/// calls.
#[inline(always)]
fn read_noted<T: Packet, S: Scope>(ledger: &Ledger<'_, S>, body: Body<'_, T>, message: &mut T) -> ((), usize) {
    // SAFETY: rule 2 of the SPSC ring: `pop` calls this with the slot that is the consumer's to read.
    let used = unsafe { body.read_used(message, Packet::used) };
    ledger.take(message.header().source_index, message.header().sequence);
    ((), used)
}

impl<Sh: Shape> Inbox<Sh> {
    /// Goes on where the last owner of the kernel index stopped.
    pub(super) fn recover_in<'e>(memory: &'e mut MaybeUninit<Self>, me: &Member<'_, Sh>) -> &'e mut Self {
        make_in!(memory, Self {
            shards => |state| me.sharded().recover_consumer_in(state),
            high: me.high().recover_consumer(),
            high_run: 0,
            stalled: None,
            next_sender: me.fabric().shape().first(),
            restricted: me.entry().is_restricted(),
        })
    }

    /// Takes the next message, whichever kernel it is for; `false` if there is none.
    #[inline(always)]
    pub(super) fn take<P: Platform>(
        &mut self,
        me: &Member<'_, Sh>,
        ledger: &Ledger<'_, Sh::Scope>,
        platform: &P,
        message: &mut Sh::Item,
    ) -> bool {
        if me.high().ready(&self.high)
            && (self.high_run < HIGH_BURST || !me.sharded().any_ready(&self.shards))
            && self.take_high(me, ledger, platform, message)
        {
            self.high_run = self.high_run.saturating_add(1);
            return true;
        }
        self.high_run = 0;
        let take = |body: Body<'_, _>| read_noted(ledger, body, message);
        me.sharded().pop(&mut self.shards, take).is_some()
    }

    #[cold]
    #[inline(never)]
    pub(super) fn take_high<P: Platform>(
        &mut self,
        me: &Member<'_, Sh>,
        ledger: &Ledger<'_, Sh::Scope>,
        platform: &P,
        message: &mut Sh::Item,
    ) -> bool {
        // Noted before the message counts as consumed.
        let used = |message: &Sh::Item| {
            ledger.take(message.header().source_index, message.header().sequence);
            message.used()
        };
        match me.high().pop_into(&mut self.high, message, used) {
            TicketPop::Message(()) => {
                self.stalled = None;
                true
            }
            TicketPop::Empty => false,
            TicketPop::Stalled { position, .. } => {
                self.wait_for_high(me, platform, position);
                false
            }
        }
    }

    /// A slot of the high-priority ring is claimed and not published: after a while, the claim is revoked. `true` if that
    /// is over.
    #[cold]
    #[inline(never)]
    fn wait_for_high<P: Platform>(&mut self, me: &Member<'_, Sh>, platform: &P, position: u64) -> bool {
        let now_ns = platform.now_ns();
        match self.stalled {
            Some((known, since_ns)) if known == position => {
                if now_ns.saturating_sub(since_ns) > CLAIM_PATIENCE_NS {
                    // Whether or not the sender was quicker, the next look finds something else here.
                    return self.revoke_stalled(me);
                }
            }
            _ => self.stalled = Some((position, now_ns)),
        }
        false
    }

    /// Revokes the claim of a slot that was not published, if the last look has found one; `false` if not.
    pub(super) fn revoke_stalled(&mut self, me: &Member<'_, Sh>) -> bool {
        let Some((position, _)) = self.stalled.take() else { return false };
        me.high().revoke(&mut self.high, position);
        true
    }

    /// Whether a claim of high priority waits for its message.
    pub(super) const fn is_stalled(&self) -> bool {
        self.stalled.is_some()
    }

    /// Takes the oldest message of high priority, if it is for another kernel.
    pub(super) fn take_high_in_transit<P: Platform>(
        &mut self,
        me: &Member<'_, Sh>,
        ledger: &Ledger<'_, Sh::Scope>,
        platform: &P,
        message: &mut Sh::Item,
    ) -> bool {
        loop {
            // What was not there at this look is not taken: it may be for this kernel.
            match me.high().peek_head::<Header>(&mut self.high) {
                // The same message, unless a hostile writer is at work.
                TicketPop::Message(head) if head.destination().index() != me.id().index() => {
                    return self.take_high(me, ledger, platform, message);
                }
                TicketPop::Stalled { position, .. } => {
                    if !self.wait_for_high(me, platform, position) {
                        return false;
                    }
                    // What lies behind the claim has waited long enough. The next one is waited for in its turn.
                }
                TicketPop::Message(_) | TicketPop::Empty => {
                    self.stalled = None;
                    return false;
                }
            }
        }
    }

    /// Takes the oldest message of a sender's shard, if it is for another kernel. `inbox` is this kernel's: of a shape
    /// that is read, a turn makes the view once.
    #[inline(always)]
    pub(super) fn take_in_transit(
        &mut self,
        inbox: &ShardedView<'_, Sh>,
        me: &Member<'_, Sh>,
        ledger: &Ledger<'_, Sh::Scope>,
        sender: Index<Sh>,
        message: &mut Sh::Item,
    ) -> bool {
        match inbox.peek_head::<Header>(&self.shards, sender) {
            Some(head) if head.destination().index() != me.id().index() => {
                let take = |body: Body<'_, _>| read_noted(ledger, body, message);
                inbox.pop_shard(&mut self.shards, sender, take).is_some()
            }
            _ => false,
        }
    }

    /// The head of the oldest message of high priority, whichever kernel it is for: for a tap, which looks before it takes.
    pub(super) fn high_head<P: Platform>(&mut self, me: &Member<'_, Sh>, platform: &P) -> Option<Header> {
        loop {
            match me.high().peek_head::<Header>(&mut self.high) {
                TicketPop::Message(head) => return Some(head),
                // As in `take_high_in_transit`.
                TicketPop::Stalled { position, .. } if self.wait_for_high(me, platform, position) => {}
                TicketPop::Stalled { .. } => return None,
                TicketPop::Empty => {
                    self.stalled = None;
                    return None;
                }
            }
        }
    }

    /// The head of the oldest message of a sender's shard: as [`high_head`](Self::high_head).
    pub(super) fn head_of(&self, me: &Member<'_, Sh>, sender: Index<Sh>) -> Option<Header> {
        me.sharded().peek_head(&self.shards, sender)
    }

    /// Takes the oldest message of a sender's shard, whichever kernel it is for.
    pub(super) fn take_of(
        &mut self,
        me: &Member<'_, Sh>,
        ledger: &Ledger<'_, Sh::Scope>,
        sender: Index<Sh>,
        message: &mut Sh::Item,
    ) -> bool {
        let take = |body: Body<'_, _>| read_noted(ledger, body, message);
        me.sharded().pop_shard(&mut self.shards, sender, take).is_some()
    }

    /// Whether a message of this sender waits, or any of high priority.
    pub(super) fn has_mail_of(&mut self, me: &Member<'_, Sh>, sender: Index<Sh>) -> bool {
        self.head_of(me, sender).is_some()
            || matches!(me.high().peek_head::<Header>(&mut self.high), TicketPop::Message(_))
    }

    /// The sender whose turn it is in `poll`; the next call says the next one.
    pub(super) fn next_sender(&mut self, me: &Member<'_, Sh>) -> Index<Sh> {
        let sender = self.next_sender;
        self.next_sender = me.fabric().shape().after(sender);
        sender
    }

    /// Whether some senders may be denied.
    #[inline(always)]
    pub(super) fn is_restricted(&self, me: &Member<'_, Sh>) -> bool {
        if LOOKS_WHEN_IDLE { self.restricted } else { me.entry().is_restricted() }
    }

    /// The inbox is empty: looks whether some senders may be denied, where that is the time for it.
    #[inline(always)]
    pub(super) fn look_at_restrictions(&mut self, me: &Member<'_, Sh>) {
        if LOOKS_WHEN_IDLE {
            self.restricted = me.entry().is_restricted();
        }
    }

    /// Messages that wait: a snapshot that only senders can make too small.
    pub(super) fn pending(&self, me: &Member<'_, Sh>) -> u64 {
        me.sharded().pending(&self.shards) + me.high().pending(&self.high)
    }

    /// Whether there is mail.
    pub(super) fn is_ready(&self, me: &Member<'_, Sh>) -> bool {
        me.high().ready(&self.high) || me.sharded().any_ready(&self.shards)
    }

    /// Whether there seems to be mail from the senders `first`, `first + step`, ..., or of high priority where `first` is 0.
    #[inline(always)]
    pub(super) fn has_rung(&self, me: &Member<'_, Sh>, first: usize, step: usize) -> bool {
        let high = first == 0 && me.high().ready(&self.high);
        high || me.sharded().any_rung(&self.shards, first, step)
    }

    /// Whether there is mail, for this kernel or in transit, by all doorbells and the stamps of `shards` shards. Mail that
    /// only a stamp tells of is next to be received.
    pub(super) fn look(&mut self, me: &Member<'_, Sh>, shards: usize) -> bool {
        me.high().ready(&self.high) || me.sharded().look(&mut self.shards, shards)
    }

    /// Tells all senders how far this kernel has read.
    pub(super) fn publish(&mut self, me: &Member<'_, Sh>) {
        me.sharded().publish(&mut self.shards);
    }

    /// As [`publish`](Self::publish), for the high-priority ring as well.
    pub(super) fn publish_all(&mut self, me: &Member<'_, Sh>) {
        self.publish(me);
        me.high().publish_head(&mut self.high);
    }

    /// For a successor: whether a message is the next one of its sender's shard or of the high-priority ring, and so was
    /// not taken.
    pub(super) fn is_first(&mut self, me: &Member<'_, Sh>, noted: &Note) -> bool {
        let first_of_high = match me.high().peek_head(&mut self.high) {
            TicketPop::Message(head) => noted.is(&head),
            _ => false,
        };
        let mut senders = me.fabric().shape().indices();
        first_of_high
            || senders.any(|sender| me.sharded().peek_head(&self.shards, sender).is_some_and(|head| noted.is(&head)))
    }
}
