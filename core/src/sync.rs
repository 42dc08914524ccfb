//! The one door to atomics and to memory that someone else may write.
//!
//! No other file of the workspace names an atomic type. What is exported here is deliberately less than
//! `core::sync::atomic` offers: **load, store, compare-exchange and fence**, nothing else. Those four keep their
//! ordering and scope on every compiler we support. Any other read-modify-write loses both on `nvptx64` up to
//! LLVM 22, and is not atomic at all between a CPU and a GPU across PCIe.
//!
//! Several implementations stand behind the same names:
//!
//! | cfg | atomics | `SharedCell` |
//! | --- | --- | --- |
//! | default | `core`'s; `portable-atomic`'s where the target has no 64-bit atomics | volatile copies |
//! | `--cfg k2k_loom` | loom's | loom's `UnsafeCell`, so that an access outside the protocol fails the model |
//! | `nvptx64`, `--cfg k2k_device` | `core`'s (system scope) | plain copies (a PTX `volatile` access would be relaxed and slow) |
//! | `nvptx64`, feature `ptx-asm` | inline PTX, with the scope of the word's type | plain copies |
//!
//! Both cfgs are K2K's own, and not features: a feature that one package turns on would change every other package of
//! the same build, and a user's own `--cfg loom` must leave K2K as it is. `--cfg k2k_device` is for compilers that make
//! device code inside the host's target, and holds for the whole build: host code of the same build then makes plain
//! copies, which a hostile peer in another process could turn into undefined behaviour.
//!
//! # Targets without 64-bit atomics
//!
//! `portable-atomic` takes a lock of this program there for each access of a 64-bit word: an interrupt handler that
//! interrupts the holder of that lock spins for ever (use `portable-atomic`'s `critical-section` or
//! `unsafe-assume-single-core` instead), and another process or core that maps the same memory knows nothing of it.
//! Rings and fabrics are for the threads of one program there.
//!
//! # Scope
//!
//! On a GPU, an order holds within a [`Scope`]: among the threads of that GPU, or for everybody. The wider one costs
//! about as much as the bus, so a fabric that lies in one GPU's memory and is used by its kernels alone is of scope
//! [`Gpu`]. The scope is part of each word's type, hence of each ring's: both sides agree, and code that is out of
//! reach cannot become a side ([`ReachesHere`]). Words that a supervisor elsewhere reads or writes while kernels run
//! are [`System`] whatever their fabric is. An access whose scope is wider than needed is correct, which is what
//! `core`'s atomics rely on.
//!
//! # Bytes that another process may write
//!
//! A ring's protocol gives each slot to one side at a time, so in a healthy system no two accesses to a
//! `SharedCell` overlap; loom and ThreadSanitizer check exactly that. A hostile peer with write access to the same
//! mapping keeps to no protocol. For it, `SharedCell` never hands out a reference: it copies in and out through
//! volatile accesses, which the compiler may neither repeat, split off nor invent, and only for types in which every
//! byte pattern is valid (`bytemuck::AnyBitPattern`). A torn copy is then merely wrong data, and is checked as such.

#![allow(clippy::disallowed_types, reason = "this is the door that the lint sends everyone to")]

mod cell;
mod shared;

pub use core::sync::atomic::Ordering;
pub use shared::Shared;

pub(crate) use cell::{Body, LINE, SharedCell, zeroed_in};
#[cfg(not(k2k_loom))]
pub(crate) use shared::idle_in;
#[cfg(not(k2k_loom))]
pub(crate) use shared::layout_of;
pub(crate) use shared::shared_struct;

use core::fmt::Debug;
use core::marker::PhantomData;

/// Whether this is compiled for a device: for PTX, or by a compiler that makes device code inside the host's target and
/// is told so by `--cfg k2k_device`.
pub(crate) const ON_DEVICE: bool = cfg!(any(target_arch = "nvptx64", k2k_device));

/// Whether a kernel can die and leave the others, and what it had in hand, to go on. A GPU's kernels end all together: a
/// trap of one of them ends its whole program, and the memory that their fabric lies in is gone with it.
pub(crate) const DIES_ALONE: bool = cfg!(not(target_arch = "nvptx64"));

mod sealed {
    pub trait Sealed {}
}

/// How far apart the two sides of a word may be: the scope of its orders on a GPU. On a host, all scopes are the same.
///
/// It is part of a ring's or a fabric's type, so that both sides use the same one.
pub trait Scope: sealed::Sealed + Copy + Debug + Default + Eq + Send + Sync + 'static {
    #[doc(hidden)]
    const WITHIN_GPU: bool;
}

/// Everybody who can address the memory: processors of the host and all GPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct System;

/// All threads of one GPU. Much cheaper there than [`System`], and enough for what only that GPU's kernels share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gpu;

impl sealed::Sealed for System {}
impl sealed::Sealed for Gpu {}
impl Scope for System {
    const WITHIN_GPU: bool = false;
}
impl Scope for Gpu {
    const WITHIN_GPU: bool = true;
}

/// A [`Scope`] that reaches the code being compiled: that code may be a side of rings of this scope. [`System`] reaches
/// all code, [`Gpu`] only a device's. Looking on from elsewhere (counters, names, traces) needs no reach.
#[cfg_attr(not(any(target_arch = "nvptx64", k2k_device)), doc = "```compile_fail,E0277")]
#[cfg_attr(any(target_arch = "nvptx64", k2k_device), doc = "```")]
/// use k2k_core::{ring::Spsc, sync::Gpu};
///
/// static RING: Spsc<u64, 64, Gpu> = Spsc::new();
/// // On a host: "code outside the GPU is not within the scope `Gpu`".
/// let producer = RING.producer();
/// ```
///
/// The same with a scope that reaches both:
/// ```
/// use k2k_core::{ring::Spsc, sync::System};
///
/// static RING: Spsc<u64, 64, System> = Spsc::new();
/// let producer = RING.producer();
/// ```
#[diagnostic::on_unimplemented(
    message = "code outside the GPU is not within the scope `{Self}`",
    note = "use the scope `System` for what a host and a device, or two devices, share",
    note = "device code that is compiled for the host's target is built with `--cfg k2k_device`"
)]
pub trait ReachesHere: Scope {}

impl ReachesHere for System {}
#[cfg(any(target_arch = "nvptx64", k2k_device))]
impl ReachesHere for Gpu {}

#[cfg(not(k2k_loom))]
mod imp {
    pub(super) use core::sync::atomic::AtomicU32;
    #[cfg(target_has_atomic = "64")]
    pub(super) use core::sync::atomic::AtomicU64;
    #[cfg(not(target_has_atomic = "64"))]
    pub(super) use portable_atomic::AtomicU64;
}

#[cfg(k2k_loom)]
mod imp {
    pub(super) use loom::sync::atomic::{AtomicU32, AtomicU64};
}

/// The four operations, on the standard atomics: their scope is the system, which is right for every narrower one, too.
#[cfg(not(all(target_arch = "nvptx64", feature = "ptx-asm")))]
mod op {
    use super::{Ordering, Scope};

    macro_rules! word {
        ($name:ident, $int:ty) => {
            impl<S: Scope> super::$name<S> {
                #[inline(always)]
                pub(super) fn load_word(&self, order: Ordering) -> $int {
                    self.0.load(order)
                }

                #[inline(always)]
                pub(super) fn store_word(&self, value: $int, order: Ordering) {
                    super::step();
                    self.0.store(value, order);
                }

                #[inline(always)]
                pub(super) fn compare_exchange_word(
                    &self,
                    [current, new]: [$int; 2],
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$int, $int> {
                    super::step();
                    self.0.compare_exchange(current, new, success, failure)
                }
            }
        };
    }
    word!(AtomicU32, u32);
    word!(AtomicU64, u64);

    #[inline(always)]
    pub(super) fn fence(order: Ordering) {
        #[cfg(not(k2k_loom))]
        core::sync::atomic::fence(order);
        #[cfg(k2k_loom)]
        loom::sync::atomic::fence(order);
    }

    #[inline(always)]
    pub(super) fn spin_hint() {
        #[cfg(not(k2k_loom))]
        core::hint::spin_loop();
        #[cfg(k2k_loom)]
        loom::thread::yield_now();
    }

    #[inline(always)]
    pub(super) fn between_lines() {}
}

// Never with loom, which models no device.
#[cfg(all(target_arch = "nvptx64", feature = "ptx-asm"))]
#[path = "sync/ptx.rs"]
mod op;

/// Where a process may die: before each store to shared memory and each compare-exchange. In core's own tests, whoever
/// runs the code may be told of it (`crate::deaths`); anywhere else there is nothing.
#[inline(always)]
fn step() {
    #[cfg(all(test, not(k2k_loom)))]
    crate::deaths::step();
}

macro_rules! atomic {
    ($(#[$doc:meta])* $name:ident, $int:ty) => {
        $(#[$doc])*
        #[repr(transparent)]
        #[derive(Debug)]
        pub struct $name<S: Scope = System>(imp::$name, PhantomData<S>);

        impl $name {
            /// A word holding `value`.
            #[cfg(not(k2k_loom))]
            #[must_use]
            pub const fn new(value: $int) -> Self {
                Self(imp::$name::new(value), PhantomData)
            }

            /// A word holding `value` (loom's constructor is not `const`).
            #[cfg(k2k_loom)]
            #[must_use]
            pub fn new(value: $int) -> Self {
                Self(imp::$name::new(value), PhantomData)
            }
        }

        impl<S: Scope> $name<S> {
            /// Atomic load.
            #[inline(always)]
            pub fn load(&self, order: Ordering) -> $int {
                self.load_word(order)
            }

            /// Atomic store.
            #[inline(always)]
            pub fn store(&self, value: $int, order: Ordering) {
                self.store_word(value, order);
            }

            /// Strong compare-exchange.
            ///
            /// # Errors
            /// The value found, when it was not `current`.
            #[inline(always)]
            pub fn compare_exchange(
                &self,
                current: $int,
                new: $int,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$int, $int> {
                self.compare_exchange_word([current, new], success, failure)
            }
        }

        impl<S: Scope> Default for $name<S> {
            fn default() -> Self {
                Self(imp::$name::new(0), PhantomData)
            }
        }

        // SAFETY: transparent over an integer atomic: every bit pattern is a value.
        unsafe impl<S: Scope> Shared for $name<S> {
            #[cfg(k2k_loom)]
            fn idle() -> Self {
                Self::default()
            }
        }
    };
}

atomic!(
    /// A 32-bit shared word.
    AtomicU32, u32
);
atomic!(
    /// A 64-bit shared word.
    AtomicU64, u64
);

impl AtomicU32 {
    /// The word as the standard type that futex wrappers take.
    #[cfg(not(k2k_loom))]
    #[must_use]
    pub const fn as_std(&self) -> &core::sync::atomic::AtomicU32 {
        &self.0
    }
}

impl<S: Scope> AtomicU64<S> {
    /// The word for an access of system scope: a rare store that others look on from outside the scope.
    #[inline(always)]
    pub(crate) const fn widened(&self) -> &AtomicU64 {
        // SAFETY: both are transparent over the same atomic; the scope has no bytes.
        unsafe { &*core::ptr::from_ref(self).cast() }
    }
}

/// Atomic fence of system scope. Only the park/wake hand-shake uses one; data is published by release stores.
#[inline(always)]
pub fn fence(order: Ordering) {
    op::fence(order);
}

/// Keeps the compiler from moving accesses across, for the successor of a thread that is killed: it finds everything
/// done that stands before some instruction, and nothing behind. Costs no instruction. A GPU's kernels die together, and
/// models have no compiler.
#[inline(always)]
pub(crate) fn keep_order() {
    #[cfg(not(any(target_arch = "nvptx64", k2k_device, k2k_loom)))]
    core::sync::atomic::compiler_fence(Ordering::SeqCst);
}

/// Asks for a cache line that will be written soon, where the processor has an instruction for it.
#[inline(always)]
pub(crate) fn prefetch_write(address: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(k2k_device), not(k2k_loom), not(miri)))]
    // SAFETY: a hint: no address makes it fault, and processors that do not know it take it for a no-op.
    unsafe {
        core::arch::asm!("prefetchw [{}]", in(reg) address.addr(), options(nostack, preserves_flags, nomem));
    }
    #[cfg(not(all(target_arch = "x86_64", not(k2k_device), not(k2k_loom), not(miri))))]
    let _ = address;
}

/// Tells the processor (or the model checker) that the caller is waiting for someone else.
#[inline(always)]
pub fn spin_hint() {
    op::spin_hint();
}
