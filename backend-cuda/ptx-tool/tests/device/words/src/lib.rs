//! A word that is published and taken.
#![no_std]
#![cfg_attr(feature = "asm", feature(asm_experimental_arch))]

use core::sync::atomic::AtomicU64;
#[cfg(not(feature = "asm"))]
use core::sync::atomic::Ordering;

/// Where this file lies.
pub const PLACE: &str = file!();

/// Two positions.
#[repr(C)]
pub struct Word {
    published: AtomicU64,
    taken: AtomicU64,
}

#[cfg(not(feature = "asm"))]
#[inline(never)]
fn load(word: &AtomicU64) -> u64 {
    word.load(Ordering::Acquire)
}

#[cfg(feature = "asm")]
#[inline(never)]
fn load(word: &AtomicU64) -> u64 {
    let value;
    // SAFETY: the address of a live word.
    unsafe { core::arch::asm!("ld.acquire.sys.b64 {}, [{}];", out(reg64) value, in(reg64) word.as_ptr(), options(nostack)) };
    value
}

fn store(word: &AtomicU64, value: u64) {
    #[cfg(not(feature = "asm"))]
    word.store(value, Ordering::Release);
    #[cfg(feature = "asm")]
    // SAFETY: the address of a live word.
    unsafe {
        core::arch::asm!("st.release.sys.b64 [{}], {};", in(reg64) word.as_ptr(), in(reg64) value, options(nostack));
    }
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
        store(&self.published, position);
    }

    /// Takes.
    pub fn take(&self, position: u64) {
        store(&self.taken, position);
    }
}
