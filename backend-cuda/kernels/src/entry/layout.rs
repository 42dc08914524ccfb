//! How the shared types lie in memory as the device sees them.

use crate::shape::LAYOUT;
use k2k_core::KernelId;
use k2k_device::{Block, Launch, Outcome, thread};

/// For a comparison without a device: it stands in the PTX.
#[unsafe(no_mangle)]
pub(crate) static k2k_layout_words: [u64; 7] = LAYOUT;

/// Values: `LAYOUT`.
///
/// # Safety
/// `launch` is a launch.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "ptx-kernel" fn k2k_layout(launch: *const Launch) {
    // SAFETY: the caller's.
    let block = unsafe { Block::of(launch) };
    if thread::thread_index() == 0 {
        // SAFETY: a static. Volatile, so that it is read on the device, where it lies, and not by the compiler.
        let words = unsafe { (&raw const k2k_layout_words).read_volatile() };
        block.report(Outcome::Finished, KernelId::NONE, words);
    }
}
