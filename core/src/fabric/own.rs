//! The parts of one kernel, as their owner reaches them.

use super::route::RouteRowView;
use super::{FabricRef, ReceiptsView};
use crate::ring::sharded::{ShardOffsets, ShardView, ShardedView};
use crate::ring::ticket::TicketView;
use crate::shape::{Index, Part, Shape};
use core::ptr::NonNull;

/// A fabric and one of its kernels, with the addresses of the parts that the kernel looks at for each message: of a shape
/// that is read, each of them is a product and two sums.
pub(crate) struct Own<'f, Sh> {
    fabric: FabricRef<'f, Sh>,
    index: Index<Sh>,
    // In the fabric, where its parts of that name are; never changed.
    sharded: NonNull<u8>,
    high: NonNull<u8>,
    receipts: NonNull<u8>,
    /// This kernel's row.
    routes: NonNull<u8>,
    /// In each inbox.
    shard: ShardOffsets,
}

// SAFETY: a fabric's handle, and addresses in the same fabric.
unsafe impl<Sh: Shape> Send for Own<'_, Sh> {}
// SAFETY: as above.
unsafe impl<Sh: Shape> Sync for Own<'_, Sh> {}

impl<'f, Sh: Shape> Own<'f, Sh> {
    pub(crate) fn new(fabric: FabricRef<'f, Sh>, index: Index<Sh>) -> Self {
        let numbers = fabric.shape().numbers();
        // SAFETY: so the fabric's numbers say, as in the methods that have these names.
        let [sharded, high, receipts] = unsafe {
            [
                fabric.of_kernel(index, [numbers.inboxes, numbers.inbox]),
                fabric.of_kernel(index, [numbers.inboxes + numbers.high, numbers.inbox]),
                fabric.of_kernel(index, [numbers.receipts, numbers.receipts_len]),
            ]
        };
        let routes = fabric.routes().row(index).start();
        let shard = fabric.sharded(index).offsets(index);
        Self { fabric, index, sharded, high, receipts, routes, shard }
    }

    // Lent: of a shape that is read, it holds all numbers.
    #[inline(always)]
    pub(crate) const fn fabric(&self) -> &FabricRef<'f, Sh> {
        &self.fabric
    }

    #[inline(always)]
    pub(crate) const fn index(&self) -> Index<Sh> {
        self.index
    }

    /// The kernel's inbox for normal priority.
    #[inline(always)]
    pub(crate) fn sharded(&self) -> ShardedView<'f, Sh> {
        // SAFETY: there it is.
        unsafe { ShardedView::at(self.sharded, self.fabric.shape()) }
    }

    /// The kernel's inbox for high priority.
    #[inline(always)]
    pub(crate) fn high(&self) -> TicketView<'f, Sh> {
        // SAFETY: there it is.
        unsafe { TicketView::at(self.high, self.fabric.shape()) }
    }

    /// The kernel's shard of an inbox.
    #[inline(always)]
    pub(crate) fn shard_to(&self, inbox: Index<Sh>) -> ShardView<'f, Sh> {
        // SAFETY: the inboxes of a fabric are queues of one shape.
        unsafe { self.fabric.sharded(inbox).shard_at(self.shard) }
    }

    /// The routes of messages at the kernel.
    #[inline(always)]
    pub(crate) fn routes(&self) -> RouteRowView<'f, Sh> {
        // SAFETY: there they are.
        unsafe { Part::at(self.routes, self.fabric.shape()) }
    }

    /// The receipts of the kernel's messages.
    #[inline(always)]
    pub(crate) fn receipts(&self) -> ReceiptsView<'f, Sh> {
        // SAFETY: there they are.
        unsafe { Part::at(self.receipts, self.fabric.shape()) }
    }
}
