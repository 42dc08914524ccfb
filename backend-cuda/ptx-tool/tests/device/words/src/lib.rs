//! A word that is published and taken.
#![no_std]

use core::sync::atomic::{AtomicU64, Ordering};

/// Where this file lies.
pub const PLACE: &str = file!();

/// Two positions.
#[repr(C)]
pub struct Word {
    published: AtomicU64,
    taken: AtomicU64,
}

#[inline(never)]
fn load(word: &AtomicU64) -> u64 {
    word.load(Ordering::Acquire)
}

impl Word {
    /// What was published last.
    pub fn published(&self) -> u64 {
        load(&self.published)
    }

    /// What was taken last.
    pub fn taken(&self) -> u64 {
        load(&self.taken)
    }

    /// Publishes.
    pub fn publish(&self, position: u64) {
        self.published.store(position, Ordering::Release);
    }

    /// Takes.
    pub fn take(&self, position: u64) {
        self.taken.store(position, Ordering::Release);
    }
}
