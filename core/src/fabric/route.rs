//! Who passes a message on to whom.
//!
//! A table per kernel: destination → next hop, one word each, replaced while kernels read. An empty entry means that
//! the destination is reached directly: all kernels of a fabric see one another's inboxes. Routes are what makes a
//! mesh out of that, and later what leads to another memory domain.
//!
//! 1. An entry is one word, so a reader sees the old next hop or the new one, never half of each. A message on its way
//!    during a change goes by the old or the new path at each hop; a loop that this makes for a moment is ended by the
//!    hop limit.
//!
//! No ordering is needed: an entry publishes nothing but itself. System scope, so that anyone can change a route; it
//! costs nothing without an order.

use crate::message::KernelId;
use crate::place::Place;
use crate::sync::AtomicU64;
use crate::sync::Ordering::Relaxed;
use crate::sync::shared_struct;

shared_struct! {
    /// All kernels' next hops: `next[at][destination]`, a raw [`KernelId`], 0 for direct.
    #[repr(align(128))]
    pub(crate) struct Routes[const KERNELS: usize,][KERNELS,] {
        next: [[AtomicU64; KERNELS]; KERNELS],
    }
}

impl<const KERNELS: usize> Routes<KERNELS> {
    /// Sets or replaces (`Some`) or removes (`None`) a route.
    pub(crate) fn set(&self, at: Place<KERNELS>, destination: Place<KERNELS>, next_hop: Option<KernelId>) {
        // Relaxed: the entry alone matters.
        self.next[at][destination].store(next_hop.unwrap_or(KernelId::NONE).raw(), Relaxed);
    }

    /// Removes all routes of and to a place that changes hands: its next owner starts without.
    pub(crate) fn clear(&self, place: Place<KERNELS>) {
        for other in Place::all() {
            self.set(place, other, None);
            self.set(other, place, None);
        }
    }

    /// The next hop from place `at` to `destination`, if a route is set: otherwise the destination itself.
    #[inline(always)]
    pub(crate) fn get(&self, at: Place<KERNELS>, destination: Place<KERNELS>) -> Option<KernelId> {
        // Relaxed: the entry alone matters.
        let next = KernelId::from_raw(self.next[at][destination].load(Relaxed));
        (!next.is_none()).then_some(next)
    }
}
