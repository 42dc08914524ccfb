//! Who passes a message on to whom.
//!
//! A table per kernel: destination → next hop, one word each, replaced while kernels read. An empty entry means that
//! the destination is reached directly: all kernels of a fabric see one another's inboxes. Routes are what makes a
//! mesh out of that, and later what leads to another memory domain.
//!
//! ```text
//!    63                        56 55               48 47                      16 15            0
//!   +----------------------------+-------------------+--------------------------+---------------+
//!   | generation of destination  | generation of at  | generation of next hop   | its index     |    0: direct
//!   +----------------------------+-------------------+--------------------------+---------------+
//!         lowest 8 bits              lowest 8 bits
//! ```
//!
//! 1. An entry is one word, so a reader sees the old next hop or the new one, never half of each. A message on its way
//!    during a change goes by the old or the new path at each hop; a loop that this makes for a moment is ended by the
//!    hop limit.
//! 2. A route belongs to two kernels, not to their indices. A kernel that registers removes all routes of and to its
//!    index before it is found. [`set_route`](super::Fabric::set_route) looks at both kernels before it stores the
//!    route, and once more afterwards: if one has left meanwhile, it takes the route back. Two fences make sure that
//!    either this second look finds the new owner, or the new owner's removal finds the route.
//! 3. Until it is taken back, and should its setter die in between, such a route is marked: a reader ignores it unless the
//!    generations' lowest bits are its own and its destination's. (Only a setter's death in the middle of `set_route` *and* a
//!    multiple of 256 owners later could let somebody inherit a route; and the next owner but these removes it.)
//!
//! An entry publishes nothing but itself, so no other ordering is needed. System scope, so that anyone can change a
//! route; it costs nothing without an order.
//!
//! | label | fence | pairs with | what is known behind it |
//! | --- | --- | --- | --- |
//! | `route-owned` | in `keep`, between storing a route and looking at its owners | in `clear`, after the new owner's state was written | one of the two sees what the other did |

use super::{FabricRef, NotRegistered};
use crate::message::KernelId;
use crate::shape::{Index, Part, Shape};
use crate::sync::Ordering::{Relaxed, SeqCst};
use crate::sync::{AtomicU64, fence, shared_struct};
use core::ptr::NonNull;

shared_struct! {
    /// All kernels' next hops: `next[at][destination]`, as on the module's page.
    #[repr(align(128))]
    pub(crate) struct Routes[const KERNELS: usize,][KERNELS,] {
        next: [[AtomicU64; KERNELS]; KERNELS],
    }
}

/// Bits of a generation in a mark. The models do without, to show that rule 2 alone leaves nothing behind.
const MARK: u32 = if cfg!(k2k_loom) { 0 } else { 0xff };

/// The upper 16 bits of a route.
#[inline(always)]
const fn mark(at: KernelId, destination: KernelId) -> u64 {
    ((destination.generation() & MARK) << 8 | at.generation() & MARK) as u64
}

/// A route as it stands in an entry.
pub(super) const fn word(at: KernelId, destination: KernelId, next_hop: KernelId) -> u64 {
    mark(at, destination) << 48 | next_hop.raw()
}

/// What an entry says to kernels of these addresses.
#[inline(always)]
fn read(word: u64, at: KernelId, destination: KernelId) -> Option<KernelId> {
    (word != 0 && word >> 48 == mark(at, destination)).then(|| KernelId::from_raw(word))
}

/// Rule 2, after a route was stored: takes it back, and answers `false`, if one of its kernels has left.
fn keep(entry: &AtomicU64, word: u64, owned: impl FnOnce() -> bool) -> bool {
    // SeqCst [route-owned]: see rule 2.
    fence(SeqCst);
    if owned() {
        return true;
    }
    // Relaxed, both: the entry alone matters. On failure the route is gone already.
    let _ = entry.compare_exchange(word, 0, Relaxed, Relaxed);
    false
}

/// The routes of a fabric: of the type `Routes`, for as many kernels as the shape says.
pub(crate) enum AllRoutes {}
pub(crate) type RoutesView<'f, Sh> = Part<'f, Sh, AllRoutes>;

/// The routes of messages at one kernel index, by destination.
pub(crate) enum RouteRow {}
pub(crate) type RouteRowView<'f, Sh> = Part<'f, Sh, RouteRow>;

impl<'f, Sh: Shape> RouteRowView<'f, Sh> {
    #[inline(always)]
    fn word(&self, destination: Index<Sh>) -> &'f AtomicU64 {
        // SAFETY: one word for each destination.
        unsafe { self.item(0, self.shape.below(destination)) }
    }

    /// As [`RoutesView::get`], where the row is that of `at`.
    #[inline(always)]
    pub(crate) fn get(&self, at: KernelId, destination: (Index<Sh>, KernelId)) -> Option<KernelId> {
        // Relaxed: the entry alone matters.
        read(self.word(destination.0).load(Relaxed), at, destination.1)
    }

    /// Where it begins.
    pub(crate) const fn start(&self) -> NonNull<u8> {
        // SAFETY: the start is inside.
        unsafe { self.address(0) }
    }
}

impl<'f, Sh: Shape> RoutesView<'f, Sh> {
    /// The row of a kernel index.
    #[inline(always)]
    pub(crate) fn row(&self, at: Index<Sh>) -> RouteRowView<'f, Sh> {
        let start = self.shape.below(at) * self.shape.producers() * size_of::<AtomicU64>();
        // SAFETY: one row for each kernel, of one word for each kernel.
        unsafe { Part::at(self.address(start), self.shape) }
    }

    #[inline(always)]
    fn word(&self, at: Index<Sh>, destination: Index<Sh>) -> &'f AtomicU64 {
        self.row(at).word(destination)
    }

    fn entry(&self, at: KernelId, destination: KernelId) -> Option<&'f AtomicU64> {
        Some(self.word(self.shape.index(at.index())?, self.shape.index(destination.index())?))
    }

    /// Sets or replaces a route. `owned` says whether `at` and `destination` have their indices still; if not, the
    /// route is taken back, and the answer is `false`.
    pub(crate) fn set(
        &self,
        at: KernelId,
        destination: KernelId,
        next_hop: KernelId,
        owned: impl FnOnce() -> bool,
    ) -> bool {
        let Some(entry) = self.entry(at, destination) else { return false };
        let word = word(at, destination, next_hop);
        // Relaxed: the entry alone matters.
        entry.store(word, Relaxed);
        keep(entry, word, owned)
    }

    /// Replaces a route that was found by another, with `None` for no route; `false` if it is not there any more. `owned`
    /// as for [`set`](Self::set).
    pub(crate) fn replace(
        &self,
        at: KernelId,
        destination: KernelId,
        found: Option<KernelId>,
        next_hop: Option<KernelId>,
        owned: impl FnOnce() -> bool,
    ) -> bool {
        let Some(entry) = self.entry(at, destination) else { return false };
        // Relaxed, all: the entry alone matters. On failure another was faster.
        let there = entry.load(Relaxed);
        let new = next_hop.map_or(0, |next_hop| word(at, destination, next_hop));
        read(there, at, destination) == found
            && entry.compare_exchange(there, new, Relaxed, Relaxed).is_ok()
            && (new == 0 || keep(entry, new, owned))
    }

    /// Removes a route of these two kernels; `owned` as for [`set`](Self::set).
    pub(crate) fn remove(&self, at: KernelId, destination: KernelId, owned: impl FnOnce() -> bool) {
        let Some(entry) = self.entry(at, destination) else { return };
        // Relaxed, all: the entry alone matters. On failure it was replaced at the same moment, just after this.
        let found = entry.load(Relaxed);
        if found >> 48 == mark(at, destination) && owned() {
            let _ = entry.compare_exchange(found, 0, Relaxed, Relaxed);
        }
    }

    /// Removes all routes of and to an index that changes hands: its next owner starts without.
    pub(crate) fn clear(&self, index: Index<Sh>) {
        // SeqCst [route-owned]: see rule 2. It is also the release of `name-began` in the kernel table: the name is written
        // after this.
        fence(SeqCst);
        for other in self.shape.indices() {
            // Relaxed, both: the entries alone matter.
            self.word(index, other).store(0, Relaxed);
            self.word(other, index).store(0, Relaxed);
        }
    }

    /// The next hop from `at` to `destination`, whose indices are given as well, if a route is set: otherwise the
    /// destination itself.
    #[inline(always)]
    pub(crate) fn get(&self, at: (Index<Sh>, KernelId), destination: (Index<Sh>, KernelId)) -> Option<KernelId> {
        self.row(at.0).get(at.1, destination)
    }
}

impl<Sh: Shape> FabricRef<'_, Sh> {
    /// Replaces a route if it is what was [found](Self::route) (`None`: none, that is directly); `false` if it is not any
    /// more. Of several that replace one route at the same moment, one succeeds.
    ///
    /// # Errors
    /// [`NotRegistered`] names the address nobody is registered at.
    pub fn reroute(
        &self,
        at: KernelId,
        destination: KernelId,
        found: Option<KernelId>,
        next_hop: Option<KernelId>,
    ) -> Result<bool, NotRegistered> {
        if let Some(gone) = [at, destination].into_iter().chain(next_hop).find(|id| !self.is_registered(*id)) {
            return Err(NotRegistered(gone));
        }
        Ok(self.routes().replace(at, destination, found, next_hop, || self.are_last(at, destination)))
    }

    /// Leads all routes over a kernel round it, each to the next hop that this kernel has for the destination: for one
    /// that leaves, or is dead. Its routes count even if its index has a new owner, as long as that has not registered.
    pub fn bypass(&self, id: KernelId) {
        let Some(index) = self.index(id.index()) else { return };
        let owner = |at: Index<Sh>| KernelId::new(at.number() as u16, self.entry(at).state().generation);
        for to in self.indices() {
            let destination = owner(to);
            let next_hop = self.routes().get((index, id), (to, destination)).filter(|next| *next != destination);
            for from in self.indices() {
                let at = owner(from);
                let next_hop = next_hop.filter(|next| *next != at && *next != id);
                if self.routes().get((from, at), (to, destination)) == Some(id) {
                    // If it has changed, it leads round this kernel already.
                    let owned = || self.are_last(at, destination);
                    let _ = self.routes().replace(at, destination, Some(id), next_hop, owned);
                }
            }
        }
    }
}

#[cfg(test)]
#[cfg(not(k2k_loom))]
mod tests {
    use super::*;
    use crate::shape::{Fan, Fixed};

    const AT: KernelId = KernelId::new(0, 7);
    const TO: KernelId = KernelId::new(1, 9);
    const HOP: KernelId = KernelId::new(2, u32::MAX);

    type Three = Fixed<3, 1, 0>;

    fn view(routes: &Routes<3>) -> RoutesView<'_, Three> {
        // SAFETY: of this shape.
        unsafe { Part::at(core::ptr::NonNull::from_ref(routes).cast(), Three::SHAPE) }
    }

    fn get(routes: &RoutesView<'_, Three>, at: KernelId, destination: KernelId) -> Option<KernelId> {
        let index = |id: KernelId| (routes.shape.index(id.index()).unwrap(), id);
        routes.get(index(at), index(destination))
    }

    fn routes() -> Routes<3> {
        // SAFETY: `Shared`: zero is the idle state.
        unsafe { core::mem::zeroed() }
    }

    #[test]
    fn a_route_whose_owner_left_while_it_was_set_is_taken_back() {
        let storage = routes();
        let routes = view(&storage);
        assert!(!routes.set(AT, TO, HOP, || false));
        assert_eq!(routes.entry(AT, TO).unwrap().load(Relaxed), 0);
        // The new owner was quicker, and has a route already.
        let new = KernelId::new(1, 10);
        assert!(!routes.set(AT, TO, HOP, || !routes.set(AT, new, HOP, || true)));
        assert_eq!((get(&routes, AT, new), get(&routes, AT, TO)), (Some(HOP), None));
    }

    #[test]
    fn a_route_that_a_dead_setter_left_behind_is_not_the_next_owners() {
        let storage = routes();
        let routes = view(&storage);
        assert!(routes.set(AT, TO, HOP, || true));
        assert_eq!(get(&routes, AT, TO), Some(HOP));
        for later in 1..256 {
            assert_eq!(get(&routes, AT, KernelId::new(1, 9 + later)), None);
            assert_eq!(get(&routes, KernelId::new(0, 7 + later), TO), None);
        }
    }

    #[test]
    fn a_route_is_replaced_if_it_is_what_was_found() {
        let storage = routes();
        let routes = view(&storage);
        let other = KernelId::new(2, 1);
        assert!(!routes.replace(AT, TO, Some(HOP), Some(other), || true));
        assert!(routes.replace(AT, TO, None, Some(HOP), || true));
        assert!(!routes.replace(AT, TO, None, Some(other), || true));
        assert!(!routes.replace(AT, TO, Some(HOP), Some(other), || false), "an owner has left");
        assert_eq!(get(&routes, AT, TO), None);
        assert!(routes.set(AT, TO, HOP, || true));
        assert!(routes.replace(AT, TO, Some(HOP), None, || true));
        assert_eq!(routes.entry(AT, TO).unwrap().load(Relaxed), 0);
        // A predecessor's route is none.
        let new = KernelId::new(1, 10);
        assert!(routes.set(AT, TO, HOP, || true) && routes.replace(AT, new, None, Some(other), || true));
        assert_eq!(get(&routes, AT, new), Some(other));
        assert!(!routes.replace(KernelId::new(3, 1), TO, None, Some(HOP), || true));
    }

    #[test]
    fn a_route_is_removed_for_its_owners_alone() {
        let storage = routes();
        let routes = view(&storage);
        assert!(routes.set(AT, TO, HOP, || true));
        routes.remove(AT, KernelId::new(1, 10), || true);
        routes.remove(AT, TO, || false);
        assert_eq!(get(&routes, AT, TO), Some(HOP));
        routes.remove(AT, TO, || true);
        assert_eq!(get(&routes, AT, TO), None);
        routes.remove(KernelId::new(3, 1), TO, || true);
    }
}
