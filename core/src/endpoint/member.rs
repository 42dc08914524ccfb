//! A kernel as a member of its fabric: its address, its parts of the fabric, and the way to other members.

use crate::fabric::{Claim, Entry, FabricRef, Marks, OutstandingView, Own, ReceiptsView, Status, TransitView};
use crate::message::KernelId;
use crate::ring::sharded::{ShardView, ShardedView};
use crate::ring::ticket::TicketView;
use crate::shape::{Index, Shape};
use crate::sync::ON_DEVICE;

/// What all parts of an endpoint look at. Only registering and leaving change it.
pub(super) struct Member<'f, Sh: Shape> {
    /// The fabric and the kernel index of `id`.
    own: Own<'f, Sh>,
    id: KernelId,
    /// This kernel's entry of the kernel table.
    entry: &'f Entry<Sh::Scope>,
    /// What this kernel has written last into its entry.
    claim: Claim,
}

/// A registered kernel, to which a message may go next.
#[derive(Clone, Copy)]
pub(super) struct Hop<Sh> {
    pub(super) id: KernelId,
    pub(super) index: Index<Sh>,
    /// Whether the kernel may park; and whether the destination, which the next hop need not be, is restricted.
    pub(super) marks: Marks,
}

impl<'f, Sh: Shape> Member<'f, Sh> {
    /// The owner of a kernel index, by a claim.
    pub(super) fn new(fabric: FabricRef<'f, Sh>, index: Index<Sh>, claim: Claim) -> Self {
        let id = KernelId::new(index.number() as u16, claim.generation);
        Self { own: Own::new(fabric, index), id, entry: fabric.entry(index), claim }
    }

    /// Opens the kernel index for mail.
    pub(super) fn finish_register(&mut self, parks: bool) {
        self.claim.state = self.entry.finish_register(&self.claim, parks);
    }

    /// Closes the kernel index for mail; `false` if it was taken away from this kernel.
    pub(super) fn begin_leave(&mut self) -> bool {
        let Some(leaving) = self.entry.begin_leave(&self.claim) else { return false };
        self.claim.state = leaving;
        true
    }

    /// Lets the kernel index go.
    pub(super) fn finish_leave(&self, then: Status) {
        self.entry.finish_leave(&self.claim, then);
    }

    /// Whether the kernel index was taken away from this kernel.
    // The kernels of a GPU end all together, or not at all: nobody takes their indices away one by one, and a load of
    // what others may write is dear there.
    #[inline(always)]
    pub(super) fn is_evicted(&self) -> bool {
        !ON_DEVICE && !self.entry.is_in(self.claim.state)
    }

    #[inline(always)]
    pub(super) const fn id(&self) -> KernelId {
        self.id
    }

    #[inline(always)]
    pub(super) const fn index(&self) -> Index<Sh> {
        self.own.index()
    }

    /// As a producer of a high-priority ring.
    #[inline(always)]
    pub(super) const fn producer(&self) -> u16 {
        self.id.index() as u16
    }

    #[inline(always)]
    pub(super) const fn entry(&self) -> &'f Entry<Sh::Scope> {
        self.entry
    }

    #[inline(always)]
    pub(super) const fn fabric(&self) -> &FabricRef<'f, Sh> {
        self.own.fabric()
    }

    /// This kernel's inbox for normal priority.
    #[inline(always)]
    pub(super) fn sharded(&self) -> ShardedView<'f, Sh> {
        self.own.sharded()
    }

    /// This kernel's inbox for high priority.
    #[inline(always)]
    pub(super) fn high(&self) -> TicketView<'f, Sh> {
        self.own.high()
    }

    /// This kernel's shard of another kernel's inbox.
    #[inline(always)]
    pub(super) fn shard_to(&self, to: Index<Sh>) -> ShardView<'f, Sh> {
        self.own.shard_to(to)
    }

    /// The receipts of this kernel's messages.
    #[inline(always)]
    pub(super) fn receipts(&self) -> ReceiptsView<'f, Sh> {
        self.own.receipts()
    }

    /// The receipts of another kernel's messages; `None` unless the source has a kernel index.
    #[inline(always)]
    pub(super) fn receipts_of(&self, source: KernelId) -> Option<ReceiptsView<'f, Sh>> {
        Some(self.fabric().receipts(self.fabric().index(source.index())?))
    }

    /// This kernel's store of deferred messages.
    #[inline(always)]
    pub(super) fn transit(&self) -> TransitView<'f, Sh> {
        self.fabric().transit(self.index())
    }

    /// This kernel's records of messages in transit through a gateway.
    pub(super) fn outstanding(&self) -> OutstandingView<'f, Sh> {
        self.fabric().outstanding(self.index())
    }

    /// A kernel, if it is registered. Any address is safe to ask for.
    #[inline(always)]
    pub(super) fn registered(&self, id: KernelId) -> Option<Hop<Sh>> {
        let index = self.fabric().index(id.index())?;
        let marks = self.fabric().entry(index).registered(id)?;
        Some(Hop { id, index, marks })
    }

    /// The next hop on the way to a kernel: itself, unless a route says otherwise.
    ///
    /// # Errors
    /// Which of the two is not registered.
    #[inline(always)]
    pub(super) fn next_hop(&self, to: KernelId) -> Result<Hop<Sh>, KernelId> {
        // In three variables, not one of two hops: the compiler would choose between them in memory.
        let mut id = to;
        let mut index = self.fabric().index(id.index()).ok_or(id)?;
        let mut marks = self.fabric().entry(index).registered(id).ok_or(id)?;
        if let Some(next) = self.own.routes().get(self.id, (index, to))
            && next != to
        {
            id = next;
            index = self.fabric().index(id.index()).ok_or(id)?;
            marks = self.fabric().entry(index).registered(id).ok_or(id)?.restricted_as(marks);
        }
        Ok(Hop { id, index, marks })
    }
}
