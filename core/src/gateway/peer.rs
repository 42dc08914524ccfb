//! The link to the remote gateway, and what its hellos and heartbeats say.

use super::control::Control;
use crate::link::{Frames, LinkEnd};
use crate::message::{Header, KernelId};
use core::mem::ManuallyDrop;

/// What this side's hellos say.
#[derive(Clone, Copy)]
pub(super) struct Hello {
    /// How many of its last receipts a kernel can ask for.
    pub(super) receipts: u64,
    /// Name of the clock of deadlines, or 0.
    pub(super) clock: u64,
}

/// The remote gateway.
pub(super) struct Peer<'l, F: Frames> {
    /// Dropped by [`close`](Self::close), which a forked process does not call.
    link: ManuallyDrop<LinkEnd<'l, F>>,
    hello: Hello,
    /// The hello that this side owes before any other frame: as a reply or not.
    owed: Option<bool>,
    /// Whether the remote gateway has said hello, and not left since.
    met: bool,
    /// How many of its last receipts a remote kernel can ask for.
    receipts: u64,
    /// The last heartbeat of the remote gateway, and when it was seen.
    seen: (u64, u64),
    /// When this gateway gave its last heartbeat.
    beat_ns: Option<u64>,
    silence_ns: u64,
    /// Hellos with the name of another clock.
    other_clock: u64,
}

impl<'l, F: Frames> Peer<'l, F> {
    pub(super) fn new(link: LinkEnd<'l, F>, hello: Hello, silence_ns: u64, now_ns: u64) -> Self {
        Self {
            hello,
            owed: Some(false),
            met: false,
            receipts: 0,
            seen: (link.remote_heartbeat(), now_ns),
            beat_ns: None,
            silence_ns,
            other_clock: 0,
            link: ManuallyDrop::new(link),
        }
    }

    /// Whether the remote gateway has said hello, and has given a heartbeat not too long ago.
    pub(super) const fn is_connected(&self, now_ns: u64) -> bool {
        self.met && now_ns.saturating_sub(self.seen.1) <= self.silence_ns
    }

    /// Whether the remote gateway has said hello.
    pub(super) const fn has_met(&self) -> bool {
        self.met
    }

    /// How many of its last receipts a remote kernel can ask for.
    pub(super) const fn receipts(&self) -> u64 {
        self.receipts
    }

    /// Hellos with the name of another clock.
    pub(super) const fn other_clock(&self) -> u64 {
        self.other_clock
    }

    /// Payload bytes of a message that crosses, at most.
    #[inline(always)]
    pub(super) fn payload(&self) -> usize {
        self.link.payload()
    }

    /// Looks for a heartbeat of the remote gateway, and gives one if it is time.
    #[inline(never)]
    pub(super) fn heartbeat(&mut self, now_ns: u64) {
        let seen = self.link.remote_heartbeat();
        if seen != self.seen.0 {
            self.seen = (seen, now_ns);
        }
        if self.beat_ns.is_none_or(|last_ns| now_ns.saturating_sub(last_ns) >= self.silence_ns / 4) {
            self.beat_ns = Some(now_ns);
            self.link.heartbeat();
        }
    }

    /// Says the hello that this side owes, if it owes one; `false` if it does not, or there is no room.
    pub(super) fn send_hello(&mut self) -> bool {
        let Some(reply) = self.owed else { return false };
        let Hello { receipts, clock } = self.hello;
        let sent = self.link.push_header(&Control::Hello { reply, receipts, clock }.encode());
        if sent {
            self.owed = None;
        }
        sent
    }

    /// The remote gateway has said hello, and its kernels can ask for so many receipts.
    pub(super) fn on_hello(&mut self, reply: bool, receipts: u64, now_ns: u64) {
        self.receipts = receipts;
        self.met = true;
        self.seen.1 = now_ns;
        if !reply {
            self.owed = Some(true);
            self.send_hello();
        }
    }

    /// The remote gateway has said hello, with the name of another clock.
    pub(super) const fn on_other_clock(&mut self) {
        self.met = false;
        self.other_clock = self.other_clock.wrapping_add(1);
    }

    /// The remote gateway has left.
    pub(super) const fn on_bye(&mut self) {
        self.met = false;
    }

    /// Whether `frames` can be pushed now.
    pub(super) fn has_room(&mut self, frames: u64) -> bool {
        self.owed.is_none() && self.link.room(frames) >= frames
    }

    /// Sends a control frame; `false` if there is no room.
    #[inline(never)]
    pub(super) fn send_control(&mut self, control: &Control) -> bool {
        self.send_control_here(control)
    }

    /// Says that a kernel has left. Apart from its callers, so that the frame does not lie in their memory.
    #[inline(never)]
    pub(super) fn send_withdraw(&mut self, id: KernelId) -> bool {
        self.send_control(&Control::Withdraw { id })
    }

    /// As [`send_control`](Self::send_control), written out where it stands: for a frame per message.
    #[inline(always)]
    pub(super) fn send_control_here(&mut self, control: &Control) -> bool {
        self.owed.is_none() && self.link.push_header(&control.encode())
    }

    /// Sends a message under another header; `false` if there is no room.
    #[inline(always)]
    pub(super) fn push(&mut self, header: &Header, message: &F::Item) -> bool {
        self.link.push(header, message)
    }

    /// Takes the next frame, if there is one, and returns its header; `place` says where the rest of it is to lie.
    #[inline(always)]
    pub(super) fn pop<'m>(&mut self, place: impl FnOnce(&Header) -> Option<&'m mut F::Item>) -> Option<Header>
    where
        F::Item: 'm,
    {
        self.link.pop(place)
    }

    /// Lets another end of the link be opened.
    ///
    /// # Safety
    /// Called once; the link is not used after that.
    pub(super) unsafe fn close(&mut self) {
        // SAFETY: passed on.
        unsafe { ManuallyDrop::drop(&mut self.link) };
    }
}
