//! Two kernels that hand words to one another, and one that says where its sources lie.
#![no_std]
#![feature(abi_ptx, asm_experimental_arch)]
#![allow(clippy::missing_safety_doc, reason = "entry points, called by no one")]

use words::Word;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: ends the kernel.
    unsafe { core::arch::asm!("trap;", options(noreturn)) }
}

/// Publishes the numbers below `count`, one after another.
#[unsafe(no_mangle)]
pub extern "ptx-kernel" fn publish(word: &Word, payload: &mut u64, count: u64) {
    for number in 1..=count {
        while word.taken() != number - 1 {}
        *payload = number * number;
        word.publish(number);
    }
}

/// Takes them.
#[unsafe(no_mangle)]
pub extern "ptx-kernel" fn take(word: &Word, payload: &u64, count: u64, sum: &mut u64) {
    for number in 1..=count {
        while word.published() != number {}
        *sum += *payload;
        word.take(number);
    }
}

/// Where the sources of `words` lie.
#[cfg(feature = "places")]
#[unsafe(no_mangle)]
pub extern "ptx-kernel" fn place(out: &mut &'static str) {
    *out = words::PLACE;
}
