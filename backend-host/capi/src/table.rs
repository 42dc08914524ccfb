//! Handles: numbers for values that C programs hold.
//!
//! A handle is an index into a table and a generation, not an address. So a call with a handle that was never given out,
//! or was closed, finds that out without touching freed memory, whichever number the caller made up.
//!
//! | word of an entry | state |
//! | --- | --- |
//! | generation, `FREE` | no value; the generation is that of the last handle |
//! | generation, `IDLE` | a value that no call uses |
//! | generation, `BUSY` | a value that one call uses; another call is told so |
//!
//! Sync points: [handle-idle], from the call that ends to the next one that begins on whichever thread.

use crate::error::{Failure, k2k_result};
use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use k2k::k2k_core::sync::AtomicU64;
use k2k::k2k_core::sync::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Mutex, PoisonError};

/// Values of one type that may be open at the same time.
pub(crate) const ENTRIES: usize = 4096;

const FREE: u64 = 0;
const IDLE: u64 = 1;
const BUSY: u64 = 2;
const STATE: u64 = 3;

/// An entry has cache lines of its own: two threads that use two handles do not slow one another.
#[repr(align(128))]
struct Entry<T> {
    word: AtomicU64,
    value: UnsafeCell<Option<Box<T>>>,
}

/// All open values of a type.
pub(crate) struct Table<T> {
    entries: [Entry<T>; ENTRIES],
    /// Where the search for a free entry begins.
    next: Mutex<usize>,
    /// The type's name, for errors.
    what: &'static str,
}

// SAFETY: a value is reached by the one call that has its entry's word at `BUSY`, on whichever thread.
unsafe impl<T: Send> Sync for Table<T> {}

impl<T> Table<T> {
    pub(crate) const fn new(what: &'static str) -> Self {
        let entries = [const { Entry { word: AtomicU64::new(0), value: UnsafeCell::new(None) } }; ENTRIES];
        Self { entries, next: Mutex::new(0), what }
    }

    /// A handle for the value.
    pub(crate) fn insert(&self, value: Box<T>) -> Result<u64, Failure> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        for tried in 0..ENTRIES {
            let index = (*next + tried) % ENTRIES;
            let entry = &self.entries[index];
            // Acquire [handle-idle]: the last call has dropped the value that was here.
            let word = entry.word.load(Acquire);
            if word & STATE != FREE {
                continue;
            }
            let generation = (word >> 2) + 1;
            // SAFETY: under the lock no other call takes a free entry, and no handle of this generation was given out.
            unsafe { *entry.value.get() = Some(value) };
            // Release [handle-idle]: the value is there for the first call.
            entry.word.store(generation << 2 | IDLE, Release);
            *next = index + 1;
            return Ok(generation * ENTRIES as u64 + index as u64);
        }
        let words = format!("{ENTRIES} {}s are open, which is all there can be: close some", self.what);
        Err(Failure::new(k2k_result::K2K_TOO_MANY_HANDLES, words))
    }

    /// The value of a handle, for one call.
    pub(crate) fn enter(&self, handle: u64) -> Result<InUse<'_, T>, Failure> {
        let entry = &self.entries[handle as usize % ENTRIES];
        let generation = handle / ENTRIES as u64;
        let idle = generation << 2 | IDLE;
        // Acquire [handle-idle]: what the last call did to the value is visible. Relaxed: a failure reads no value.
        match entry.word.compare_exchange(idle, generation << 2 | BUSY, Acquire, Relaxed) {
            Ok(_) => Ok(InUse { entry, idle }),
            Err(word) if word == generation << 2 | BUSY => Err(Failure::new(
                k2k_result::K2K_IN_USE,
                format!("another call uses this {}: one thread at a time", self.what),
            )),
            Err(_) => Err(Failure::new(
                k2k_result::K2K_BAD_HANDLE,
                format!("this is no open {}: it was closed, or never opened", self.what),
            )),
        }
    }

    /// Ends a handle, and returns its value.
    pub(crate) fn close(&self, handle: u64) -> Result<Box<T>, Failure> {
        let mut used = self.enter(handle)?;
        // SAFETY: `used` is the one call that has the entry.
        let value = unsafe { (*used.entry.value.get()).take() };
        used.idle = used.idle & !STATE | FREE;
        drop(used);
        value.ok_or_else(|| Failure::new(k2k_result::K2K_BAD_HANDLE, format!("this {} is empty", self.what)))
    }
}

/// A value that one call uses.
pub(crate) struct InUse<'t, T> {
    entry: &'t Entry<T>,
    /// The word when the call has ended.
    idle: u64,
}

impl<T> Deref for InUse<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the word is `BUSY` on behalf of this value alone.
        let value = unsafe { &*self.entry.value.get() };
        value.as_deref().expect("an entry in use has a value")
    }
}

impl<T> DerefMut for InUse<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the word is `BUSY` on behalf of this value alone.
        let value = unsafe { &mut *self.entry.value.get() };
        value.as_deref_mut().expect("an entry in use has a value")
    }
}

impl<T> Drop for InUse<'_, T> {
    fn drop(&mut self) {
        // Release [handle-idle]: what this call did to the value is visible to the next one.
        self.entry.word.store(self.idle, Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_good_until_it_is_closed_and_for_one_call_at_a_time() {
        static TABLE: Table<u32> = Table::new("number");
        let first = TABLE.insert(Box::new(7)).unwrap();
        let code = |handle| TABLE.enter(handle).map(|value| *value).map_err(|e| e.code);
        assert_eq!(code(first), Ok(7));
        let using = TABLE.enter(first).unwrap();
        assert_eq!(code(first), Err(k2k_result::K2K_IN_USE));
        assert_eq!(TABLE.close(first).unwrap_err().code, k2k_result::K2K_IN_USE);
        drop(using);
        assert_eq!(*TABLE.close(first).unwrap(), 7);
        for made_up in [first, 0, 1, u64::MAX, ENTRIES as u64] {
            assert_eq!(code(made_up), Err(k2k_result::K2K_BAD_HANDLE));
            assert_eq!(TABLE.close(made_up).unwrap_err().code, k2k_result::K2K_BAD_HANDLE);
        }
    }

    #[test]
    fn a_table_that_is_full_says_so_and_a_handle_never_comes_back() {
        static TABLE: Table<usize> = Table::new("number");
        let handles: Vec<_> = (0..ENTRIES).map(|i| TABLE.insert(Box::new(i)).unwrap()).collect();
        let full = TABLE.insert(Box::new(0)).unwrap_err();
        assert_eq!(full.code, k2k_result::K2K_TOO_MANY_HANDLES);
        assert_eq!(*TABLE.close(handles[5]).unwrap(), 5);
        let next = TABLE.insert(Box::new(9)).unwrap();
        assert!(!handles.contains(&next));
        assert_eq!(TABLE.enter(handles[5]).map(|_| ()).unwrap_err().code, k2k_result::K2K_BAD_HANDLE);
        assert_eq!(*TABLE.enter(next).unwrap(), 9);
    }
}
