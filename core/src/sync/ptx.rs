//! The four operations as inline PTX, each with the scope of its word's type. Needs sm_70.
//!
//! No block says `nomem`, so the compiler moves no other access across one: that is stronger than any of the orders
//! asks, and copies of bodies stay on their side. An order that Rust would refuse counts as the strongest of its kind.

use super::{Ordering, Scope};
use core::arch::asm;

/// One instruction, in the scope `$s`.
macro_rules! scoped {
    ($s:ident, $before:literal, $after:expr $(, $($operands:tt)*)?) => {
        // SAFETY: the operands hold the address of a live, aligned atomic and values of its width, and nothing else.
        unsafe {
            if $s::WITHIN_GPU {
                asm!(concat!($before, ".gpu", $after), $($($operands)*,)? options(nostack, preserves_flags));
            } else {
                asm!(concat!($before, ".sys", $after), $($($operands)*,)? options(nostack, preserves_flags));
            }
        }
    };
}

macro_rules! word {
    ($name:ident, $int:ty, $reg:ident, $bits:literal) => {
        impl<S: Scope> super::$name<S> {
            #[inline(always)]
            pub(super) fn load_word(&self, order: Ordering) -> $int {
                let (at, value): (_, $int);
                at = self.0.as_ptr();
                match order {
                    Ordering::Relaxed => {
                        scoped!(S, "ld.relaxed", concat!(".b", $bits, " {}, [{}];"), out($reg) value, in(reg64) at);
                    }
                    _ => {
                        if order == Ordering::SeqCst {
                            fence_in::<S>(order);
                        }
                        scoped!(S, "ld.acquire", concat!(".b", $bits, " {}, [{}];"), out($reg) value, in(reg64) at);
                    }
                }
                value
            }

            #[inline(always)]
            pub(super) fn store_word(&self, value: $int, order: Ordering) {
                let at = self.0.as_ptr();
                match order {
                    Ordering::Relaxed => {
                        scoped!(S, "st.relaxed", concat!(".b", $bits, " [{}], {};"), in(reg64) at, in($reg) value);
                    }
                    _ => {
                        if order == Ordering::SeqCst {
                            fence_in::<S>(order);
                        }
                        scoped!(S, "st.release", concat!(".b", $bits, " [{}], {};"), in(reg64) at, in($reg) value);
                    }
                }
            }

            #[inline(always)]
            pub(super) fn compare_exchange_word(
                &self,
                [current, new]: [$int; 2],
                success: Ordering,
                failure: Ordering,
            ) -> Result<$int, $int> {
                let (at, found): (_, $int);
                at = self.0.as_ptr();
                macro_rules! cas {
                    ($before:literal) => {
                        scoped!(S, $before, concat!(".cas.b", $bits, " {}, [{}], {}, {};"),
                            out($reg) found, in(reg64) at, in($reg) current, in($reg) new)
                    };
                }
                // One order for both outcomes: the weakest that is as strong as each.
                match (success, failure) {
                    (Ordering::Relaxed, Ordering::Relaxed) => cas!("atom.relaxed"),
                    (Ordering::Release, Ordering::Relaxed) => cas!("atom.release"),
                    (Ordering::Relaxed | Ordering::Acquire, Ordering::Relaxed | Ordering::Acquire) => {
                        cas!("atom.acquire");
                    }
                    _ => {
                        if success == Ordering::SeqCst || failure == Ordering::SeqCst {
                            fence_in::<S>(Ordering::SeqCst);
                        }
                        cas!("atom.acq_rel");
                    }
                }
                if found == current { Ok(found) } else { Err(found) }
            }
        }
    };
}
word!(AtomicU32, u32, reg32, "32");
word!(AtomicU64, u64, reg64, "64");

#[inline(always)]
fn fence_in<S: Scope>(order: Ordering) {
    if order == Ordering::SeqCst {
        scoped!(S, "fence.sc", ";");
    } else {
        scoped!(S, "fence.acq_rel", ";");
    }
}

#[inline(always)]
pub(super) fn fence(order: Ordering) {
    fence_in::<super::System>(order);
}

#[inline(always)]
pub(super) fn spin_hint() {
    // SAFETY: touches neither memory nor registers. 20 ns: about what a poll of the L2 cache takes away from others.
    unsafe { asm!("nanosleep.u32 20;", options(nomem, nostack, preserves_flags)) };
}

/// Between two lines of a long copy. Nothing, but the compiler does not see through it: it would make one `memcpy` of
/// all lines, which it then writes as a loop of single bytes (LLVM up to 22 does so from 128 bytes on).
#[inline(always)]
pub(super) fn between_lines() {
    // SAFETY: no instruction.
    unsafe { asm!("", options(nostack, preserves_flags)) };
}
