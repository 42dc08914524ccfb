//! Where a thread is, what time it has, how it rests and how it gives up.

use core::arch::asm;

macro_rules! special {
    ($($(#[$doc:meta])* $name:ident: $register:literal),* $(,)?) => { $(
        $(#[$doc])*
        #[inline(always)]
        #[must_use]
        pub fn $name() -> u32 {
            let value: u32;
            // SAFETY: reads a special register that is constant for a thread.
            unsafe {
                asm!(concat!("mov.u32 {}, %", $register, ";"), out(reg32) value, options(pure, nomem, nostack, preserves_flags));
            }
            value
        }
    )* };
}
special! {
    /// Index of this thread in its block.
    thread_index: "tid.x",
    /// Threads per block.
    threads: "ntid.x",
    /// Index of this block in the grid.
    block_index: "ctaid.x",
    /// Blocks of the grid.
    blocks: "nctaid.x",
    /// Index of this thread in its warp.
    lane_index: "laneid",
}

/// Rests for about `ns`, so that a poll does not take the bus from those who have something to say.
#[inline(always)]
pub fn rest(ns: u32) {
    // SAFETY: delays the thread.
    unsafe { asm!("nanosleep.u32 {};", in(reg32) ns, options(nomem, nostack, preserves_flags)) };
}

/// `%globaltimer`: ns since some point in the past, the same for all threads. Its resolution is the device's: 32 ns on
/// recent ones, up to 1 µs on others.
#[inline(always)]
#[must_use]
pub fn globaltimer_ns() -> u64 {
    let ns: u64;
    // SAFETY: reads a special register. Not `pure`: it changes.
    unsafe { asm!("mov.u64 {}, %globaltimer;", out(reg64) ns, options(nomem, nostack, preserves_flags)) };
    ns
}

/// Ends the kernel with an error that the host sees at its next call.
#[cold]
pub fn trap() -> ! {
    // SAFETY: ends the kernel.
    unsafe { asm!("trap;", options(noreturn)) }
}
