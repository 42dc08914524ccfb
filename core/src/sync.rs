//! The one door to atomics and to memory that someone else may write.
//!
//! No other file of the workspace names an atomic type. What is exported here is deliberately less than
//! `core::sync::atomic` offers: **load, store, compare-exchange and fence**, nothing else. Those four keep their
//! ordering and scope on every compiler we support. Any other read-modify-write loses both on `nvptx64` up to
//! LLVM 22, and is not atomic at all between a CPU and a GPU across PCIe.
//!
//! Three implementations stand behind the same names:
//!
//! | cfg | atomics | [`SharedCell`] |
//! | --- | --- | --- |
//! | default | `core`'s; `portable-atomic`'s where the target has no 64-bit atomics | volatile copies |
//! | `loom` | loom's | loom's `UnsafeCell`, so that an access outside the protocol fails the model |
//! | `nvptx64` | `core`'s (system scope) | plain copies (a PTX `volatile` access would be relaxed and slow) |
//!
//! # Bytes that another process may write
//!
//! A ring's protocol gives each slot to one side at a time, so in a healthy system no two accesses to a
//! [`SharedCell`] overlap; loom and ThreadSanitizer check exactly that. A hostile peer with write access to the same
//! mapping keeps to no protocol. For it, `SharedCell` never hands out a reference: it copies in and out through
//! volatile accesses, which the compiler may neither repeat, split off nor invent, and only for types in which every
//! byte pattern is valid ([`bytemuck::Pod`]). A torn copy is then merely wrong data, and is checked as such.

pub use core::sync::atomic::Ordering;

#[cfg(not(loom))]
mod imp {
    #![allow(clippy::disallowed_types, reason = "this is the door the lint sends everyone to")]
    #[cfg(target_has_atomic = "64")]
    pub(super) use core::sync::atomic::AtomicU64;
    pub(super) use core::sync::atomic::{AtomicU16, AtomicU32, fence};
    #[cfg(not(target_has_atomic = "64"))]
    pub(super) use portable_atomic::AtomicU64;
}

#[cfg(loom)]
mod imp {
    pub(super) use loom::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, fence};
}

macro_rules! atomic {
    ($(#[$doc:meta])* $name:ident, $int:ty) => {
        $(#[$doc])*
        #[repr(transparent)]
        #[derive(Debug)]
        #[allow(clippy::disallowed_types, reason = "this is the door the lint sends everyone to")]
        pub struct $name(imp::$name);

        impl $name {
            /// A word holding `value`.
            #[cfg(not(loom))]
            #[must_use]
            pub const fn new(value: $int) -> Self {
                Self(imp::$name::new(value))
            }

            /// A word holding `value` (loom's constructor is not `const`).
            #[cfg(loom)]
            #[must_use]
            pub fn new(value: $int) -> Self {
                Self(imp::$name::new(value))
            }

            /// Atomic load.
            #[inline(always)]
            pub fn load(&self, order: Ordering) -> $int {
                self.0.load(order)
            }

            /// Atomic store.
            #[inline(always)]
            pub fn store(&self, value: $int, order: Ordering) {
                self.0.store(value, order);
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
                self.0.compare_exchange(current, new, success, failure)
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new(0)
            }
        }
    };
}

atomic!(
    /// A 16-bit shared word.
    AtomicU16, u16
);
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
    #[cfg(not(loom))]
    #[must_use]
    #[allow(clippy::disallowed_types, reason = "a system call wrapper needs the standard type")]
    pub const fn as_std(&self) -> &core::sync::atomic::AtomicU32 {
        &self.0
    }
}

/// Atomic fence. Only the park/wake hand-shake uses one; data is published by release stores.
#[inline(always)]
pub fn fence(order: Ordering) {
    imp::fence(order);
}

/// Tells the processor (or the model checker) that the caller is waiting for someone else.
#[inline(always)]
pub fn spin_hint() {
    #[cfg(not(loom))]
    core::hint::spin_loop();
    #[cfg(loom)]
    loom::thread::yield_now();
}

/// What makes a shared type: any byte pattern is a valid value, and all zero is its idle state.
///
/// # Safety
/// The type is `repr(C)` or `repr(transparent)`, has no padding that is read, and consists only of atomics of this
/// module, [`SharedCell`]s and other `Shared` types, so that a shared reference to memory that another process writes
/// asserts nothing about its contents.
pub unsafe trait Shared: Sized + Sync {
    /// The idle state, by value: what zeroed memory is everywhere else. Models use small shapes only.
    #[cfg(loom)]
    fn idle() -> Self;

    /// Never called: a struct's implementation names each field here, so that one that is not `Shared` does not compile.
    #[cfg(not(loom))]
    #[doc(hidden)]
    fn fields_are_shared(&self) {}
}

macro_rules! shared_word {
    ($($name:ident),*) => { $(
        // SAFETY: transparent over an integer atomic: every bit pattern is a value.
        unsafe impl Shared for $name {
            #[cfg(loom)]
            fn idle() -> Self {
                Self::new(0)
            }
        }
    )* };
}
shared_word!(AtomicU16, AtomicU32, AtomicU64);

// SAFETY: an array has no padding of its own.
unsafe impl<T: Shared, const N: usize> Shared for [T; N] {
    #[cfg(loom)]
    fn idle() -> Self {
        core::array::from_fn(|_| T::idle())
    }
}

/// Declares a `repr(C)` struct of [`Shared`] fields and implements [`Shared`] for it. Generics come in brackets, once
/// with their bounds and once as arguments: `struct Name[const N: usize][N] { .. }`.
macro_rules! shared_struct {
    (
        $(#[$attr:meta])*
        $vis:vis struct $name:ident [$($gen:tt)*] [$($arg:tt)*] {
            $( $(#[$fattr:meta])* $fvis:vis $field:ident : $ty:ty ),* $(,)?
        }
    ) => {
        $(#[$attr])*
        #[repr(C)]
        $vis struct $name<$($gen)*> {
            $( $(#[$fattr])* $fvis $field: $ty ),*
        }

        // SAFETY: `repr(C)`, and every field is `Shared`, which `idle` below makes the compiler check.
        unsafe impl<$($gen)*> $crate::sync::Shared for $name<$($arg)*> {
            #[cfg(loom)]
            fn idle() -> Self {
                Self { $( $field: <$ty as $crate::sync::Shared>::idle() ),* }
            }
            #[cfg(not(loom))]
            #[allow(unused_variables, reason = "compiled for its type check only")]
            fn fields_are_shared(&self) {
                $( $crate::sync::Shared::fields_are_shared(&self.$field); )*
            }
        }

        impl<$($gen)*> core::fmt::Debug for $name<$($arg)*> {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    };
}
pub(crate) use shared_struct;

/// Bytes of one message, owned by one side at a time as a ring's protocol says, never borrowed, only copied.
#[repr(transparent)]
pub struct SharedCell<T>(CellImp<T>);

#[cfg(not(loom))]
type CellImp<T> = core::cell::UnsafeCell<T>;
#[cfg(loom)]
type CellImp<T> = loom::cell::UnsafeCell<T>;

// SAFETY: the cell gives no access in safe code; the protocol of the ring that holds it decides who copies when.
unsafe impl<T: bytemuck::Pod + Send> Sync for SharedCell<T> {}

// SAFETY: transparent over `T: Pod`, for which every byte pattern is valid.
unsafe impl<T: bytemuck::Pod + Send> Shared for SharedCell<T> {
    #[cfg(loom)]
    fn idle() -> Self {
        Self(CellImp::new(bytemuck::Zeroable::zeroed()))
    }
}

impl<T> core::fmt::Debug for SharedCell<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("SharedCell")
    }
}

/// Bytes of the first cache line that are left for a value behind the 8-byte stamp.
pub(crate) const FIRST_LINE: usize = 56;
const LINE: usize = 64;

/// One volatile copy; plain on a GPU, where volatile means something else.
///
/// # Safety
/// `src` and `dst` are valid for one `U` and aligned for it.
#[inline(always)]
unsafe fn copy_one<U: bytemuck::Pod>(src: *const U, dst: *mut U) {
    #[cfg(not(target_arch = "nvptx64"))]
    // SAFETY: passed on.
    unsafe {
        dst.write_volatile(src.read_volatile());
    }
    #[cfg(target_arch = "nvptx64")]
    // SAFETY: passed on.
    unsafe {
        dst.write(src.read());
    }
}

impl<T: bytemuck::Pod> SharedCell<T> {
    /// Whether `T` fills lines exactly behind a stamp, so that unused lines can be left alone.
    const WHOLE_LINES: bool =
        align_of::<T>() == 8 && size_of::<T>() >= FIRST_LINE && (size_of::<T>() - FIRST_LINE).is_multiple_of(LINE);
    const MORE_LINES: usize = if Self::WHOLE_LINES { (size_of::<T>() - FIRST_LINE) / LINE } else { 0 };

    /// Lines behind the first that hold the first `used` bytes. Any `used` is safe: it is clamped to `T`.
    #[inline(always)]
    const fn more_lines(used: usize) -> usize {
        let lines = used.saturating_sub(FIRST_LINE).div_ceil(LINE);
        if lines < Self::MORE_LINES { lines } else { Self::MORE_LINES }
    }

    /// # Safety
    /// `from` and `to` are valid for a `T`, `head` for its first line; all are aligned to 8 if `T` is whole lines.
    #[inline(always)]
    unsafe fn copy_lines(head: *const T, from: *const T, to: *mut T, used: usize) {
        if !Self::WHOLE_LINES {
            // SAFETY: both are valid for the whole of `T`.
            unsafe { copy_one(from, to) };
            return;
        }
        // SAFETY: line `i` < MORE_LINES lies inside `T`; `T` begins 8 bytes into a line and is aligned to 8.
        unsafe {
            let (from, to) = (from.cast::<u8>(), to.cast::<u8>());
            // The first line comes last: the peer polls the stamp beside it, and would take the line away mid-write.
            for i in (0..Self::more_lines(used)).rev() {
                let at = FIRST_LINE + i * LINE;
                copy_one(from.add(at).cast::<[u64; LINE / 8]>(), to.add(at).cast());
            }
            copy_one(head.cast::<[u64; FIRST_LINE / 8]>(), to.cast());
        }
    }

    /// Copies the lines of `value` that hold its first `used` bytes into the cell, the first line last.
    ///
    /// # Safety
    /// The ring's protocol has given the cell to the caller to write.
    #[inline(always)]
    pub(crate) unsafe fn write(&self, value: &T, used: usize) {
        self.with_mut(|to| {
            // SAFETY: the cell is the caller's; `value` is a `T`.
            unsafe { Self::copy_lines(value, value, to, used) }
        });
    }

    /// As [`write`](Self::write), with the first line taken from `head` instead.
    ///
    /// # Safety
    /// As for `write`.
    #[inline(always)]
    pub(crate) unsafe fn write_headed<H: bytemuck::Pod>(&self, head: &H, value: &T, used: usize) {
        const { assert!(size_of::<H>() == FIRST_LINE && align_of::<H>() <= 8 && Self::WHOLE_LINES) };
        self.with_mut(|to| {
            // SAFETY: the cell is the caller's; `head` is a first line, `value` a `T`.
            unsafe { Self::copy_lines(core::ptr::from_ref(head).cast(), value, to, used) }
        });
    }

    /// Copies the first line out.
    ///
    /// # Safety
    /// The ring's protocol has given the cell to the caller to read.
    #[inline(always)]
    pub(crate) unsafe fn read_head<H: bytemuck::Pod>(&self) -> H {
        const { assert!(size_of::<H>() == FIRST_LINE && align_of::<H>() <= 8 && Self::WHOLE_LINES) };
        let mut head = core::mem::MaybeUninit::<H>::uninit();
        // SAFETY: `T` begins with a first line, and `H` is as long.
        self.with(|from| unsafe { copy_one(from.cast::<H>(), head.as_mut_ptr()) });
        // SAFETY: written above.
        unsafe { head.assume_init() }
    }

    /// Copies the whole value out.
    ///
    /// # Safety
    /// The ring's protocol has given the cell to the caller to read.
    #[inline(always)]
    pub(crate) unsafe fn read(&self) -> T {
        let mut value = core::mem::MaybeUninit::<T>::uninit();
        self.with(|from| {
            // SAFETY: the cell is the caller's; `value` has room for a `T`.
            unsafe { Self::copy_lines(from, from, value.as_mut_ptr(), size_of::<T>()) }
        });
        // SAFETY: `copy_lines` with the full size wrote every byte.
        unsafe { value.assume_init() }
    }

    /// Copies out the first line, asks `used` how many bytes of that value count, and copies only their lines.
    /// The rest of the value is zero.
    ///
    /// # Safety
    /// The ring's protocol has given the cell to the caller to read.
    #[inline(always)]
    pub(crate) unsafe fn read_used(&self, used: impl FnOnce(&T) -> usize) -> T {
        if !Self::WHOLE_LINES {
            // SAFETY: passed on.
            return unsafe { self.read() };
        }
        let mut value: T = bytemuck::Zeroable::zeroed();
        self.with(|from| {
            let to: *mut T = &raw mut value;
            // SAFETY: as in `copy_lines`.
            unsafe {
                copy_one(from.cast::<[u64; FIRST_LINE / 8]>(), to.cast());
                let lines = Self::more_lines(used(&*to));
                let (from, to) = (from.cast::<u8>(), to.cast::<u8>());
                for i in 0..lines {
                    let at = FIRST_LINE + i * LINE;
                    copy_one(from.add(at).cast::<[u64; LINE / 8]>(), to.add(at).cast());
                }
            }
        });
        value
    }

    /// Writes one word into each line that holds the first `used` bytes, destroying the value.
    ///
    /// # Safety
    /// The ring's protocol has given the cell to the caller, who has copied out what it needs.
    #[inline(always)]
    pub(crate) unsafe fn scribble(&self, used: usize) {
        if !Self::WHOLE_LINES {
            return;
        }
        self.with_mut(|to| {
            let to = to.cast::<u8>();
            // SAFETY: each word lies inside `T`, see `copy_lines`.
            unsafe {
                to.cast::<u64>().write_volatile(0);
                for i in 0..Self::more_lines(used) {
                    to.add(FIRST_LINE + i * LINE).cast::<u64>().write_volatile(0);
                }
            }
        });
    }

    /// Address of the bytes, for in-place access under the ring's protocol.
    #[cfg(not(loom))]
    #[inline(always)]
    pub(crate) const fn as_ptr(&self) -> *mut T {
        self.0.get()
    }

    #[cfg(not(loom))]
    #[inline(always)]
    fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        f(self.0.get())
    }

    #[cfg(not(loom))]
    #[inline(always)]
    fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }

    #[cfg(loom)]
    fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        self.0.with(f)
    }

    #[cfg(loom)]
    fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        self.0.with_mut(f)
    }
}
