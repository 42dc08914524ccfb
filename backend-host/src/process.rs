//! Which process made a value: how a copy in a forked process is recognised.
//!
//! A fork copies every endpoint, broker and handle of the parent, but the kernels and the threads stay the parent's. A
//! copy must therefore neither write to shared memory nor join a thread, also when it is dropped.
//!
//! A page of this process holds the number of its life. The system wipes the page in the child of every fork
//! (`MADV_WIPEONFORK`), so a child reads 0 there until it makes a value of its own and takes the next number. Each
//! value remembers the number at its creation; the comparison costs one load. If the system cannot wipe
//! (Linux before 4.14), the number is the process id, and the comparison costs a system call.

use core::mem::ManuallyDrop;
use core::ops::{Deref, DerefMut};
use k2k_core::sync::AtomicU64;
use k2k_core::sync::Ordering::Relaxed;
use rustix::mm::{Advice, MapFlags, ProtFlags};
use rustix::process::getpid;
use std::sync::OnceLock;

/// The life of the process that made a value.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    word: &'static AtomicU64,
    life: u64,
}

/// Set if the life is a process id, because the system cannot wipe.
const BY_ID: u64 = 1 << 63;

impl Origin {
    /// This process.
    #[must_use]
    pub fn here() -> Self {
        static WORD: OnceLock<&'static AtomicU64> = OnceLock::new();
        let word = *WORD.get_or_init(|| wiped_word().unwrap_or_else(word_by_id));
        let life = life_in(word);
        Self { word, life }
    }

    /// The number of the life: different in each forked process.
    pub(crate) const fn life(self) -> u64 {
        self.life
    }

    /// Whether this process made the value.
    #[inline(always)]
    #[must_use]
    pub fn is_here(self) -> bool {
        // Relaxed: a forked process sees its own word, which is wiped before its first instruction.
        self.word.load(Relaxed) == self.life && (self.life & BY_ID == 0 || self.life == own_id())
    }
}

/// The life named by the word, or a new life if this process has none.
fn life_in(word: &AtomicU64) -> u64 {
    /// The last number taken by this process or an ancestor.
    static LAST: AtomicU64 = AtomicU64::new(0);
    // Relaxed: the number guards no other memory.
    let known = word.load(Relaxed);
    if known & BY_ID != 0 {
        let id = own_id();
        // Relaxed: as above.
        word.store(id, Relaxed);
        return id;
    }
    if known != 0 {
        return known;
    }
    // Relaxed: as above. Threads that run this at the same time take the same number, and each writes the number down
    // before use, so that no child takes the number again.
    let next = LAST.load(Relaxed) + 1;
    LAST.store(next, Relaxed);
    // Relaxed: as above.
    match word.compare_exchange(0, next, Relaxed, Relaxed) {
        Ok(_) => next,
        Err(known) => known,
    }
}

fn own_id() -> u64 {
    BY_ID | u64::from(getpid().as_raw_nonzero().get().unsigned_abs())
}

/// A word that reads 0 in the child of every fork.
fn wiped_word() -> Option<&'static AtomicU64> {
    let (len, protection) = (rustix::param::page_size(), ProtFlags::READ | ProtFlags::WRITE);
    // SAFETY: the system chooses an unused address.
    let page = unsafe { rustix::mm::mmap_anonymous(core::ptr::null_mut(), len, protection, MapFlags::PRIVATE) }.ok()?;
    // SAFETY: the page was mapped above, and is zero, as it will be after a wipe.
    if unsafe { rustix::mm::madvise(page, len, Advice::LinuxWipeOnFork) }.is_err() {
        // SAFETY: as above; no reference to the page exists.
        let _ = unsafe { rustix::mm::munmap(page, len) };
        return None;
    }
    // SAFETY: aligned, large enough, zero is a value, and the page stays mapped for ever.
    Some(unsafe { &*page.cast::<AtomicU64>() })
}

fn word_by_id() -> &'static AtomicU64 {
    Box::leak(Box::new(AtomicU64::new(BY_ID)))
}

/// A value that a forked process neither uses nor drops: its threads, its locks and its peers are the parent's.
#[derive(Debug)]
pub struct Own<T> {
    origin: Origin,
    value: ManuallyDrop<T>,
}

impl<T> Own<T> {
    /// A value of this process.
    pub fn new(value: T) -> Self {
        Self { origin: Origin::here(), value: ManuallyDrop::new(value) }
    }

    /// The value, unless this is a forked process's copy.
    pub fn into_inner(self) -> Option<T> {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is not used again, and not dropped.
        this.origin.is_here().then(|| unsafe { ManuallyDrop::take(&mut this.value) })
    }

    /// Whether this process made the value.
    pub fn is_here(&self) -> bool {
        self.origin.is_here()
    }
}

impl<T> Drop for Own<T> {
    fn drop(&mut self) {
        if self.origin.is_here() {
            // SAFETY: the value is not used again.
            unsafe { ManuallyDrop::drop(&mut self.value) };
        }
    }
}

impl<T> Deref for Own<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Own<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_was_wiped_gets_another_life() {
        let word = Box::leak(Box::new(AtomicU64::new(0)));
        let first = Origin { word, life: life_in(word) };
        assert!(first.is_here());
        assert_eq!(life_in(word), first.life, "as long as the process lives");
        // Relaxed: one thread. What a fork does to the child's page.
        word.store(0, Relaxed);
        assert!(!first.is_here());
        let second = Origin { word, life: life_in(word) };
        assert!(second.is_here() && !first.is_here());
    }

    #[test]
    fn without_wiping_the_process_id_tells() {
        let word = word_by_id();
        let here = Origin { word, life: life_in(word) };
        assert!(here.is_here());
        // As read by a child with another id.
        let child = Origin { word: Box::leak(Box::new(AtomicU64::new(BY_ID | 1))), life: BY_ID | 1 };
        assert_eq!(child.is_here(), std::process::id() == 1);
    }

    #[test]
    fn only_the_origin_drops_a_value() {
        let word = Box::leak(Box::new(AtomicU64::new(0)));
        let counted = std::rc::Rc::new(());
        let own = || Own {
            origin: Origin { word, life: life_in(word) },
            value: ManuallyDrop::new(std::rc::Rc::clone(&counted)),
        };
        drop(own());
        assert_eq!(own().into_inner().map(|_| ()), Some(()));
        assert_eq!(std::rc::Rc::strong_count(&counted), 1);
        let (copied, taken) = (own(), own());
        // Relaxed: one thread.
        word.store(0, Relaxed);
        drop(copied);
        assert!(taken.into_inner().is_none());
        assert_eq!(std::rc::Rc::strong_count(&counted), 3, "the copies are forgotten");
    }
}
