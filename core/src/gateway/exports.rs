//! What the remote gateway is told of the kernels of this domain.

use super::SCAN;
use super::control::Control;
use super::peer::Peer;
use crate::endpoint::Endpoint;
use crate::fabric::Status;
use crate::in_place::make_in;
use crate::link::Frames;
use crate::message::KernelId;
use crate::platform::Platform;
use crate::shape::{Index, Shape};
use core::mem::MaybeUninit;

/// What the remote gateway knows of a kernel index of this domain.
#[derive(Clone, Copy, Default)]
struct Export {
    /// The kernel that was announced.
    id: KernelId,
    announced_ns: u64,
    refused: bool,
    /// Seen to have left, one look ago: its last messages may still be in a proxy's inbox.
    gone: bool,
}

impl Export {
    const NONE: Self = Self { id: KernelId::NONE, announced_ns: 0, refused: false, gone: false };
}

/// The kernels of this domain that are announced.
pub(super) struct Exports<Sh: Shape> {
    shape: Sh,
    /// By kernel index.
    exports: Sh::Each<Export>,
    /// Whether all kernels may be announced, or those that are `listed`.
    all: bool,
    listed: Sh::Each<KernelId>,
    /// How long an announcement holds, ns.
    again_ns: u64,
    /// The kernel index that is looked at next.
    next: Index<Sh>,
}

impl<Sh: Shape> Exports<Sh> {
    pub(super) fn new_in(memory: &mut MaybeUninit<Self>, shape: Sh, all: bool, again_ns: u64) -> &mut Self {
        make_in!(memory, Self {
            shape: shape,
            exports => |each| shape.each_in(each, |_| Export::NONE),
            all: all,
            listed => |each| shape.each_in(each, |_| KernelId::NONE),
            again_ns: again_ns,
            next: shape.first(),
        })
    }

    /// Lets a kernel be announced.
    pub(super) fn list(&mut self, id: KernelId) {
        if let Some(index) = self.shape.index(id.index()) {
            self.listed[index] = id;
        }
    }

    /// Takes that back.
    pub(super) fn unlist(&mut self, id: KernelId) {
        if let Some(index) = self.shape.index(id.index())
            && self.listed[index] == id
        {
            self.listed[index] = KernelId::NONE;
        }
    }

    /// The remote gateway could not register a proxy of a kernel.
    pub(super) fn on_refuse(&mut self, id: KernelId) {
        if let Some(index) = self.shape.index(id.index())
            && self.exports[index].id == id
        {
            self.exports[index].refused = true;
        }
    }

    /// The remote gateway begins again or leaves: it knows no kernel of this domain.
    pub(super) fn forget(&mut self) {
        self.exports.as_mut().fill(Export::NONE);
    }

    /// Whether the remote gateway has a proxy for a kernel, if the kernel was announced.
    #[inline(always)]
    pub(super) fn is_known(&self, id: KernelId) -> Option<bool> {
        let export = &self.exports[self.shape.index(id.index())?];
        (export.id == id).then_some(!export.refused)
    }

    /// Announces a sender that was not; `false` if that is not possible.
    #[inline(never)]
    pub(super) fn ensure_announced(
        &mut self,
        id: KernelId,
        gateway: &Endpoint<'_, impl Platform, Sh>,
        is_proxy: bool,
        peer: &mut Peer<'_, impl Frames>,
    ) -> bool {
        let Some(index) = self.shape.index(id.index()) else { return false };
        self.may_export(index, id, gateway, is_proxy)
            && self.announce_one(index, id, gateway, gateway.platform().now_ns(), peer)
    }

    fn may_export(
        &self,
        index: Index<Sh>,
        id: KernelId,
        gateway: &Endpoint<'_, impl Platform, Sh>,
        is_proxy: bool,
    ) -> bool {
        let own = gateway.id() == id || is_proxy;
        !own && (self.all || self.listed[index] == id)
    }

    /// Announces a kernel, after its predecessor has been withdrawn.
    #[inline(never)]
    fn announce_one(
        &mut self,
        index: Index<Sh>,
        id: KernelId,
        gateway: &Endpoint<'_, impl Platform, Sh>,
        now_ns: u64,
        peer: &mut Peer<'_, impl Frames>,
    ) -> bool {
        // A kernel that has left has no name any more.
        let Some(name) = gateway.fabric().name(id) else { return false };
        let known = self.exports[index].id;
        if !known.is_none() && known != id {
            if !peer.send_withdraw(known) {
                return false;
            }
            self.exports[index] = Export::NONE;
        }
        let sent = peer.send_control(&Control::Announce { id, name: *name.bytes() });
        if sent {
            self.exports[index] = Export { id, announced_ns: now_ns, refused: false, gone: false };
        }
        sent
    }

    /// Looks at some kernel indices, and tells the remote gateway which kernels have come and which have left.
    #[inline(always)]
    pub(super) fn announce(
        &mut self,
        now_ns: u64,
        gateway: &Endpoint<'_, impl Platform, Sh>,
        is_proxy: impl Fn(Index<Sh>, KernelId) -> bool,
        peer: &mut Peer<'_, impl Frames>,
    ) -> bool {
        let mut worked = false;
        for _ in 0..SCAN.min(self.shape.producers()) {
            let index = self.next;
            self.next = self.shape.after(index);
            let Some(state) = gateway.fabric().state(index.number()) else { return worked };
            let id = KernelId::new(index.number() as u16, state.generation);
            let here =
                state.status == Some(Status::Registered) && self.may_export(index, id, gateway, is_proxy(index, id));
            let export = self.exports[index];
            let known = !export.id.is_none();
            if known && (!here || export.id != id) {
                if !export.gone {
                    self.exports[index].gone = true;
                } else if peer.send_withdraw(export.id) {
                    self.exports[index] = Export::NONE;
                    worked = true;
                }
                continue;
            }
            let due = !known || now_ns.saturating_sub(export.announced_ns) >= self.again_ns;
            if here && due {
                worked |= self.announce_one(index, id, gateway, now_ns, peer);
            }
        }
        worked
    }
}
