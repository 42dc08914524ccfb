//! The competitors, one file per crate, and ours.

pub mod channels;
pub mod crossbeam;
pub mod disruptor;
pub mod gil;
pub mod heapless;
pub mod iceoryx2;
pub mod nexus;
pub mod omango;
pub mod ours;
pub mod rbuffer;
pub mod ringbuf;
pub mod ringkernel;
pub mod rtrb;

use core::cell::UnsafeCell;
use std::sync::Arc;

/// Messages that a batch call moves.
pub const BATCH: usize = 32;

fn batch_buffer<E: Default + Clone>() -> Box<[E]> {
    vec![E::default(); BATCH].into()
}

/// A queue on the heap whose ends borrow it and keep it alive: each end stores its borrow first and this last, so that
/// they are dropped in that order.
pub struct Shared<T>(Arc<Place<T>>);

#[repr(align(128))]
struct Place<T>(UnsafeCell<T>);

// SAFETY: what is reached through it are the queues' own ends, whose crates say which of them may go where.
unsafe impl<T> Send for Place<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Place<T> {}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Shared<T> {
    pub fn new(queue: T) -> Self {
        Self(Arc::new(Place(UnsafeCell::new(queue))))
    }

    /// # Safety
    /// Zeroed memory is a valid `T`.
    pub unsafe fn zeroed() -> Self {
        // SAFETY: the caller vouches for it.
        Self(unsafe { Arc::new_zeroed().assume_init() })
    }

    /// # Safety
    /// There is no other reference, and what borrows this one is dropped before the last `Shared`.
    pub unsafe fn exclusive(&self) -> &'static mut T {
        // SAFETY: the caller vouches for it.
        unsafe { &mut *self.0.0.get() }
    }

    /// # Safety
    /// What borrows it is dropped before the last `Shared`, and [`exclusive`](Self::exclusive) is not used.
    pub unsafe fn lasting(&self) -> &'static T {
        // SAFETY: the caller vouches for it.
        unsafe { &*self.0.0.get() }
    }
}

/// For queues that are shared by reference; not together with [`exclusive`](Shared::exclusive).
impl<T> core::ops::Deref for Shared<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: nobody has an exclusive reference.
        unsafe { &*self.0.0.get() }
    }
}
