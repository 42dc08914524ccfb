//! The parts of one kernel, as their owner reaches them.

use super::route::RouteRowView;
use super::{FabricRef, ReceiptsView};
use crate::ring::lanes::{LaneOffsets, LaneView, LanesView};
use crate::ring::ticket::TicketView;
use crate::shape::{Index, Part, Shape};
use core::ptr::NonNull;

/// A fabric and one of its kernels, with the addresses of the parts that the kernel looks at for each message: of a shape
/// that is read, each of them is a product and two sums.
pub(crate) struct Own<'f, Sh> {
    fabric: FabricRef<'f, Sh>,
    index: Index<Sh>,
    // In the fabric, where its parts of that name are; never changed.
    lanes: NonNull<u8>,
    high: NonNull<u8>,
    receipts: NonNull<u8>,
    /// This kernel's row.
    routes: NonNull<u8>,
    /// In each inbox.
    lane: LaneOffsets,
}

// SAFETY: a fabric's handle, and addresses in the same fabric.
unsafe impl<Sh: Shape> Send for Own<'_, Sh> {}
// SAFETY: as above.
unsafe impl<Sh: Shape> Sync for Own<'_, Sh> {}

impl<'f, Sh: Shape> Own<'f, Sh> {
    pub(crate) fn new(fabric: FabricRef<'f, Sh>, index: Index<Sh>) -> Self {
        let numbers = fabric.shape().numbers();
        // SAFETY: so the fabric's numbers say, as in the methods that have these names.
        let [lanes, high, receipts] = unsafe {
            [
                fabric.of_kernel(index, [numbers.inboxes, numbers.inbox]),
                fabric.of_kernel(index, [numbers.inboxes + numbers.high, numbers.inbox]),
                fabric.of_kernel(index, [numbers.receipts, numbers.receipts_len]),
            ]
        };
        let routes = fabric.routes().row(index).start();
        let lane = fabric.lanes(index).offsets(index);
        Self { fabric, index, lanes, high, receipts, routes, lane }
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
    pub(crate) fn lanes(&self) -> LanesView<'f, Sh> {
        // SAFETY: there it is.
        unsafe { LanesView::at(self.lanes, self.fabric.shape()) }
    }

    /// The kernel's inbox for high priority.
    #[inline(always)]
    pub(crate) fn high(&self) -> TicketView<'f, Sh> {
        // SAFETY: there it is.
        unsafe { TicketView::at(self.high, self.fabric.shape()) }
    }

    /// The kernel's shard of an inbox.
    #[inline(always)]
    pub(crate) fn lane_to(&self, inbox: Index<Sh>) -> LaneView<'f, Sh> {
        // SAFETY: the inboxes of a fabric are queues of one shape.
        unsafe { self.fabric.lanes(inbox).lane_at(self.lane) }
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
