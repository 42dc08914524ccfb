//! Forwarding for a tap: a kernel that a route puts between two others, and that looks at what it passes on.
//!
//! A tap is to change nothing but the way. So it differs from a forwarder in three things:
//!
//! 1. A message whose next hop has no room stays in the tap's inbox. A forwarder would defer some such messages and end the
//!    others in `QueueFull`; without the tap, the sender itself would have been refused, and would still have the message.
//!    With a tap, it is refused when the tap's inbox is full as well.
//! 2. The hop to the tap does not count against the hop limit: the tap raises a message's limit by one, as far as that is
//!    possible ([`HOP_LIMIT_MAX`]). The hops that the receiver finds in the header are one more.
//! 3. Nothing is received: mail for the tap itself ends in `NotFound`, and does not keep back what lies behind it.
//!
//! As each sender's ring, and the ring of high priority, is passed on from its head, order and priority stay.

use super::Endpoint;
use super::receive::{POLL_ROUNDS, POLL_TURN};
use crate::fabric::FabricRef;
use crate::message::{HOP_LIMIT_MAX, Header, KernelId};
use crate::platform::Platform;
use crate::shape::{Index, Packet, Shape};
use crate::sync::zeroed_in;
use core::mem::MaybeUninit;

/// What a call of [`Endpoint::tap`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TapReport {
    /// Messages taken out of the inbox.
    pub passed: usize,
    /// Whether a message stayed there because its next hop has no room. Nobody wakes the tap when there is room: it has to
    /// look again soon.
    pub blocked: bool,
}

impl<P: Platform, Sh: Shape> Endpoint<'_, P, Sh> {
    /// Passes traffic in transit on, and shows each message after that: as it was found, with whatever it ended in. For a tap,
    /// which is to change nothing but the way: a message whose next hop has no room stays in the inbox, where a forwarder
    /// would defer some and end the others in `QueueFull`; the hop to the tap does not count against the hop limit, unless
    /// that is the highest one; and mail for the tap itself ends in `NotFound`. Bounds and fairness are those of
    /// [`poll`](Self::poll).
    ///
    /// A kernel becomes a tap by [`reroute`](FabricRef::reroute), and stops being one by [`bypass`](FabricRef::bypass).
    #[inline(never)]
    pub fn tap(&mut self, mut show: impl FnMut(&Sh::Item)) -> TapReport {
        let mut tapped = TapReport::default();
        if !self.may_write() {
            return tapped;
        }
        let mut place = MaybeUninit::uninit();
        let message = zeroed_in(&mut place);
        self.expire_some();
        self.flush_transit();
        for _ in 0..POLL_ROUNDS {
            let before = tapped.passed;
            self.tap_high(message, &mut tapped, &mut show);
            for _ in 0..self.member.fabric().shape().producers() {
                let sender = self.inbox.next_sender(&self.member);
                let first = tapped.passed;
                self.tap_sender(sender, message, &mut tapped, &mut show);
                if tapped.passed > first {
                    break;
                }
            }
            if tapped.passed == before {
                break;
            }
        }
        tapped
    }

    /// Whether a message of this sender waits, or any of high priority. If one does, all that the sender has put into other
    /// inboxes before is visible.
    pub fn has_mail_of(&mut self, sender: KernelId) -> bool {
        let sender = self.member.fabric().index(sender.index());
        sender.is_some_and(|sender| self.inbox.has_mail_of(&self.member, sender))
    }

    fn tap_high(&mut self, message: &mut Sh::Item, tapped: &mut TapReport, show: &mut impl FnMut(&Sh::Item)) {
        for _ in 0..POLL_TURN {
            let Some(head) = self.inbox.high_head(&self.member, &self.platform) else { break };
            if self.is_blocked(&head) {
                tapped.blocked = true;
                break;
            }
            // The same message, unless a hostile writer is at work.
            if !self.inbox.take_high(&self.member, &self.ledger, &self.platform, message) {
                break;
            }
            tapped.passed += 1;
            self.pass_shown(message, show);
        }
    }

    fn tap_sender(
        &mut self,
        sender: Index<Sh>,
        message: &mut Sh::Item,
        tapped: &mut TapReport,
        show: &mut impl FnMut(&Sh::Item),
    ) {
        for _ in 0..POLL_TURN {
            let Some(head) = self.inbox.head_of(&self.member, sender) else { break };
            if self.is_blocked(&head) {
                tapped.blocked = true;
                break;
            }
            if !self.inbox.take_of(&self.member, &self.ledger, sender, message) {
                break;
            }
            tapped.passed += 1;
            self.pass_shown(message, show);
        }
    }

    /// Whether a message has to stay where it is, because its next hop has no room. One that ends here has not.
    fn is_blocked(&mut self, head: &Header) -> bool {
        if head.destination().index() == self.id().index() || head.deadline_ns < self.platform.now_ns() {
            return false;
        }
        let Ok(hop) = self.member.next_hop(head.destination()) else { return false };
        // What a lost race for an index in a ring of high priority has made this kernel defer goes first.
        self.deferred.keeps_back(hop.index, head, None) || !self.outbox.has_room(&self.member, hop.index, head.priority)
    }

    fn pass_shown(&mut self, message: &mut Sh::Item, show: &mut impl FnMut(&Sh::Item)) {
        let header = *message.header();
        let is_in_transit = header.check(self.capacity()).is_ok() && header.destination().index() != self.id().index();
        if is_in_transit && header.hop_limit() < HOP_LIMIT_MAX {
            message.header_mut().hop_limit += 1;
        }
        self.pass_over(message);
        *message.header_mut() = header;
        // Last, as it is the user's code and may panic.
        if is_in_transit {
            show(message);
        }
    }
}

impl<Sh: Shape> FabricRef<'_, Sh> {
    /// Messages of normal priority that one kernel has put into the inbox of another, its own and those that it forwards:
    /// how many the owner of the inbox has taken out since the fabric was made, and how many wait there. Both as they were
    /// at some moment; `None` if there is no such index.
    pub fn normal_mail(&self, inbox: KernelId, from: KernelId) -> Option<(u64, u64)> {
        Some(self.sharded(self.index(inbox.index())?).waiting_in(self.index(from.index())?))
    }
}
