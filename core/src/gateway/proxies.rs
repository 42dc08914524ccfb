//! The proxies: kernels of this domain, one registered for each kernel of the remote domain.

use super::SEQUENCES_BACK;
use super::control::Control;
use super::free::FreeList;
use super::incoming::TransferState;
use super::peer::Peer;
use crate::endpoint::{Endpoint, Registration, SendError};
use crate::fabric::{DeliveryStatus, LAST_SEQUENCE, NAME_LEN};
use crate::in_place::make_in;
use crate::in_place_option::InPlaceOption;
use crate::link::Frames;
use crate::message::KernelId;
use crate::platform::Platform;
use crate::shape::{Index, Packet, Shape};
use core::mem::MaybeUninit;

/// Refusals that wait for room. More are forgotten: kernels are announced again and again.
const REFUSALS: usize = 8;

/// The proxies, by kernel index in this domain.
pub(super) struct Proxies<'f, P: Platform, Sh: Shape, const FRAMES: usize> {
    shape: Sh,
    proxies: Sh::Local<InPlaceOption<Proxy<'f, P, Sh, FRAMES>>>,
    /// Where the proxy of a kernel was found last, by the low part of the kernel's remote index. A hint.
    hints: Sh::Each<Index<Sh>>,
    /// The proxy whose turn it is to send.
    next: Index<Sh>,
    /// Kernels that could not be registered, and the remote gateway does not know yet.
    refusals: [KernelId; REFUSALS],
    refusal_count: usize,
    /// Kernels that could not be registered, counted each time.
    refused: u64,
    /// Whether [`tidy`](Self::tidy) may find a proxy to close or to clear.
    untidy: bool,
}

impl<'f, P: Platform, Sh: Shape, const FRAMES: usize> Proxies<'f, P, Sh, FRAMES> {
    pub(super) fn new_in(memory: &mut MaybeUninit<Self>, shape: Sh) -> &mut Self {
        make_in!(memory, Self {
            shape: shape,
            proxies => |each| shape.local_in(each, InPlaceOption::empty_in),
            hints => |each| shape.each_in(each, |_| shape.first()),
            next: shape.first(),
            refusals: [KernelId::NONE; REFUSALS],
            refusal_count: 0,
            refused: 0,
            untidy: false,
        })
    }

    /// Kernels that could not be registered, counted each time.
    pub(super) const fn refused(&self) -> u64 {
        self.refused
    }

    #[inline(always)]
    pub(super) fn get(&self, index: Index<Sh>) -> Option<&Proxy<'f, P, Sh, FRAMES>> {
        self.proxies[index].as_ref()
    }

    #[inline(always)]
    pub(super) fn get_mut(&mut self, index: Index<Sh>) -> Option<&mut Proxy<'f, P, Sh, FRAMES>> {
        self.proxies[index].as_mut()
    }

    /// The kernel index of an address of this domain, if there is such an index.
    #[inline(always)]
    pub(super) fn index(&self, id: KernelId) -> Option<Index<Sh>> {
        self.shape.index(id.index())
    }

    /// The proxy at a kernel index, which may be beyond the table, and that index.
    #[inline(always)]
    pub(super) fn at(&mut self, index: u16) -> Option<(Index<Sh>, &mut Proxy<'f, P, Sh, FRAMES>)> {
        let index = self.shape.index(index.into())?;
        Some((index, self.proxies[index].as_mut()?))
    }

    /// Whether a kernel of this domain is a proxy.
    pub(super) fn has(&self, index: Index<Sh>, id: KernelId) -> bool {
        self.get(index).is_some_and(|proxy| proxy.endpoint.id() == id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Proxy<'f, P, Sh, FRAMES>> {
        self.proxies.as_ref().iter().filter_map(InPlaceOption::as_ref)
    }

    /// The kernel indices of all proxies, in turn: each call begins at another one.
    #[inline(always)]
    pub(super) fn in_turn(&mut self) -> impl Iterator<Item = Index<Sh>> + use<P, Sh, FRAMES> {
        let (shape, mut index) = (self.shape, self.next);
        self.next = shape.after(index);
        (0..shape.producers()).map(move |_| {
            let after = shape.after(index);
            core::mem::replace(&mut index, after)
        })
    }

    /// Passes on what is for other kernels in the inbox of the proxy at `index`; `true` if there was some.
    #[inline(always)]
    pub(super) fn poll(&mut self, index: Index<Sh>) -> bool {
        self.get_mut(index).is_some_and(|proxy| proxy.endpoint.poll() > 0)
    }

    /// Where the proxy of a remote kernel is.
    #[inline(never)]
    pub(super) fn find_proxy(&mut self, remote: KernelId) -> Option<Index<Sh>> {
        let is_proxy_of = |index: Index<Sh>| self.get(index).is_some_and(|p| p.remote == remote && !p.closed);
        let hint = self.shape.index(remote.index() % self.shape.producers().max(1))?;
        let known = self.hints[hint];
        if is_proxy_of(known) {
            return Some(known);
        }
        let found = self.shape.indices().find(|&index| is_proxy_of(index))?;
        self.hints[hint] = found;
        Some(found)
    }

    /// A remote kernel was announced: registers a proxy, unless there is one.
    #[inline(always)]
    pub(super) fn on_announce(&mut self, id: KernelId, name: &[u8; NAME_LEN], gateway: &Endpoint<'f, P, Sh>)
    where
        P: Clone,
    {
        if self.find_proxy(id).is_some() {
            return;
        }
        let text = name.split(|&byte| byte == 0).next().unwrap_or_default();
        let who = core::str::from_utf8(text).ok().and_then(|name| Registration::new(name).ok());
        let who = who.filter(|_| id.generation() != 0);
        if !who.is_some_and(|who| self.open(id, &who, gateway)) {
            self.refused = self.refused.wrapping_add(1);
            if let Some(at) = self.refusals.get_mut(self.refusal_count) {
                *at = id;
                self.refusal_count += 1;
            }
        }
    }

    /// Registers a proxy beside the gateway's own kernel; `false` if that is not possible.
    #[inline(always)]
    fn open(&mut self, remote: KernelId, who: &Registration, gateway: &Endpoint<'f, P, Sh>) -> bool
    where
        P: Clone,
    {
        let fabric = gateway.fabric();
        let platform = gateway.platform().clone();
        let Ok(claimed) = fabric.claim_index(who, platform.owner()) else { return false };
        let entry = &mut self.proxies[claimed.index()];
        if entry.as_ref().is_some() {
            // Only if someone writes over the fabric's table.
            fabric.give_back(claimed);
            return false;
        }
        entry.fill(|at| Proxy::new_in(at, self.shape, remote, |at| Endpoint::open(at, fabric, platform, claimed, who)));
        true
    }

    /// Tells the remote gateway which kernels could not be registered; `true` if it was told of one.
    pub(super) fn refuse(&mut self, peer: &mut Peer<'_, impl Frames>) -> bool {
        let mut worked = false;
        while let Some(last) = self.refusal_count.checked_sub(1) {
            let Some(&id) = self.refusals.get(last) else { break };
            if !peer.send_control(&Control::Refuse { id }) {
                break;
            }
            self.refusal_count = last;
            worked = true;
        }
        worked
    }

    /// A remote kernel has left: [`tidy`](Self::tidy) closes its proxy.
    pub(super) fn close(&mut self, index: Index<Sh>) {
        if let Some(proxy) = self.get_mut(index) {
            proxy.closed = true;
            self.untidy = true;
        }
    }

    /// Something of a proxy is decided: it may have been the last.
    pub(super) fn look_at_end(&mut self, index: Index<Sh>) {
        self.untidy |= self.get(index).is_some_and(Proxy::has_ended);
    }

    /// Lets the proxies of kernels that have left leave, too, and frees the kernel indices of those of which nothing is
    /// left to be decided.
    // A step of a pass, not where a proxy is closed or its last message is decided: a kernel that leaves calls much, and
    // deep below a pass a GPU has no registers left for that.
    #[inline(always)]
    pub(super) fn tidy(&mut self) {
        if !core::mem::take(&mut self.untidy) {
            return;
        }
        for index in self.shape.indices() {
            let entry = &mut self.proxies[index];
            if let Some(proxy) = entry.as_mut()
                && proxy.closed
                && !core::mem::replace(&mut proxy.has_left, true)
            {
                proxy.endpoint.close();
            }
            if entry.as_ref().is_some_and(Proxy::has_ended) {
                entry.clear();
            }
        }
    }

    /// The remote gateway begins again or leaves: its kernels and its messages are no more.
    pub(super) fn forget(&mut self) {
        for index in self.shape.indices() {
            if let Some(proxy) = self.get_mut(index) {
                proxy.outstanding = 0;
                proxy.waiting.forget();
                self.close(index);
            }
        }
        self.refusal_count = 0;
    }
}

/// A kernel of the remote domain, as one of this.
pub(super) struct Proxy<'f, P: Platform, Sh: Shape, const FRAMES: usize> {
    pub(super) endpoint: Endpoint<'f, P, Sh>,
    /// Its address in the remote domain.
    pub(super) remote: KernelId,
    /// The last sequence that was used here before this proxy was registered.
    before: u64,
    /// By how much a sequence here is ahead of the remote one, modulo 2⁶⁴; chosen with the first message.
    shift: Option<u64>,
    /// The remote kernel has left. The proxy stays until none of its messages is outstanding.
    pub(super) closed: bool,
    /// Its endpoint has left.
    has_left: bool,
    /// Records of the messages to it whose answer is awaited.
    pub(super) records: FreeList<FRAMES>,
    /// Messages from it that were not answered yet.
    pub(super) outstanding: u32,
    /// Those of them that wait for room.
    pub(super) waiting: WaitList<Sh>,
}

impl<'f, P: Platform, Sh: Shape, const FRAMES: usize> Proxy<'f, P, Sh, FRAMES> {
    fn new_in<'m>(
        memory: &'m mut MaybeUninit<Self>,
        shape: Sh,
        remote: KernelId,
        open: impl for<'e> FnOnce(&'e mut MaybeUninit<Endpoint<'f, P, Sh>>) -> &'e mut Endpoint<'f, P, Sh>,
    ) -> &'m mut Self {
        let mut before = 0;
        make_in!(memory, Self {
            endpoint => |at| {
                let endpoint = open(at);
                before = endpoint.last_sequence();
                endpoint
            },
            remote: remote,
            before: before,
            shift: None,
            closed: false,
            has_left: false,
            records => |records| FreeList::new_in(records, shape.slots()),
            outstanding: 0,
            waiting => |at| WaitList::new_in(at, shape),
        })
    }

    /// Whether it is closed, and nothing is left to be decided.
    const fn has_ended(&self) -> bool {
        self.closed && self.records.in_use() == 0 && self.outstanding == 0
    }

    /// By how much a sequence of the kernel is higher here than in its own domain, if it has sent a message.
    pub(super) const fn shift(&self) -> Option<u64> {
        self.shift
    }

    /// The sequence here of a message of the remote kernel; `None` if it is much older than the first one that came, or
    /// if there are no sequences left.
    fn sequence(&mut self, remote: u64) -> Option<u64> {
        let before = self.before;
        let shift = *self.shift.get_or_insert_with(|| before.wrapping_sub(remote.saturating_sub(SEQUENCES_BACK)));
        let sequence = remote.wrapping_add(shift);
        (sequence > before && sequence <= LAST_SEQUENCE).then_some(sequence)
    }

    /// What became of a message that was sent here.
    pub(super) fn outcome(&mut self, remote: u64) -> Option<DeliveryStatus> {
        self.endpoint.outcome(remote.wrapping_add(self.shift.unwrap_or(0)))
    }

    /// Sends a message of the remote kernel.
    #[inline(never)]
    pub(super) fn send_on(&mut self, message: &Sh::Item, receipts: u64) -> TransferState {
        let Some(sequence) = self.sequence(message.header().sequence) else {
            return TransferState::Decided(DeliveryStatus::QueueFull);
        };
        match self.endpoint.send_for(message, sequence, self.before.saturating_add(1), receipts) {
            Ok(()) => TransferState::Sent,
            Err(SendError::QueueFull { .. }) => TransferState::Waiting,
            Err(error) => TransferState::Decided(error.status().unwrap_or(DeliveryStatus::NotFound)),
        }
    }
}

/// The messages of one sender that wait for room, by priority and destination: later ones wait behind them.
pub(super) struct WaitList<Sh: Shape> {
    normal: Sh::Each<ForRoom>,
    high: Sh::Each<ForRoom>,
}

/// The messages of one sender that wait for room at one destination.
#[derive(Clone, Copy, Default)]
pub(super) struct ForRoom {
    pub(super) count: u16,
    /// Number of the last look in which one of them had to stay.
    pub(super) stuck_in: u16,
}

impl<Sh: Shape> WaitList<Sh> {
    fn new_in(memory: &mut MaybeUninit<Self>, shape: Sh) -> &mut Self {
        make_in!(memory, Self {
            normal => |each| shape.each_in(each, |_| ForRoom::default()),
            high => |each| shape.each_in(each, |_| ForRoom::default()),
        })
    }

    /// Those of a priority for a destination.
    #[inline(always)]
    pub(super) fn of(&mut self, high: bool, destination: Index<Sh>) -> &mut ForRoom {
        let each = if high { &mut self.high } else { &mut self.normal };
        &mut each[destination]
    }

    fn forget(&mut self) {
        self.normal.as_mut().fill(ForRoom::default());
        self.high.as_mut().fill(ForRoom::default());
    }
}
