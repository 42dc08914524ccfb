//! The one door to atomics and to memory that someone else may write.
//!
//! No other file of the workspace names an atomic type. What is exported here is deliberately less than
//! `core::sync::atomic` offers: **load, store, compare-exchange and fence**, nothing else. Those four keep their
//! ordering and scope on every compiler we support. Any other read-modify-write loses both on `nvptx64` up to
//! LLVM 22, and is not atomic at all between a CPU and a GPU across PCIe.
//!
//! Several implementations stand behind the same names:
//!
//! | cfg | atomics | [`SharedCell`] |
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
//! [`SharedCell`] overlap; loom and ThreadSanitizer check exactly that. A hostile peer with write access to the same
//! mapping keeps to no protocol. For it, `SharedCell` never hands out a reference: it copies in and out through
//! volatile accesses, which the compiler may neither repeat, split off nor invent, and only for types in which every
//! byte pattern is valid (`bytemuck::AnyBitPattern`). A torn copy is then merely wrong data, and is checked as such.

#![allow(clippy::disallowed_types, reason = "this is the door that the lint sends everyone to")]

pub use core::sync::atomic::Ordering;

use core::fmt::Debug;
use core::marker::PhantomData;

/// Whether this is compiled for a device: for PTX, or by a compiler that makes device code inside the host's target and
/// is told so by `--cfg k2k_device`.
pub const ON_DEVICE: bool = cfg!(any(target_arch = "nvptx64", k2k_device));

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

/// What makes a shared type: any byte pattern is a valid value, and all zero is its idle state.
///
/// # Safety
/// The type is `repr(C)` or `repr(transparent)`, has no padding that is read, and consists only of atomics of this
/// module, [`SharedCell`]s and other `Shared` types, so that a shared reference to memory that another process writes
/// asserts nothing about its contents.
pub unsafe trait Shared: Sized + Sync {
    /// The idle state, by value: what zeroed memory is everywhere else. Models use small shapes only.
    #[cfg(k2k_loom)]
    fn idle() -> Self;

    /// A number made of the size, the alignment, and every field's offset and own layout, all the way down: two
    /// programs that share memory, or a host and a device, were compiled alike if theirs is the same.
    #[cfg(not(k2k_loom))]
    const LAYOUT: u64 = layout_of(0, &[size_of::<Self>(), align_of::<Self>()]);
}

/// Continues a layout's number by some sizes or offsets (FNV-1a, a word at a time).
#[cfg(not(k2k_loom))]
pub(crate) const fn layout_of(before: u64, numbers: &[usize]) -> u64 {
    let mut hash = before ^ 0xcbf2_9ce4_8422_2325;
    let mut i = 0;
    while i < numbers.len() {
        hash = (hash ^ numbers[i] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        i += 1;
    }
    hash
}

// SAFETY: an array has no padding of its own.
unsafe impl<T: Shared, const N: usize> Shared for [T; N] {
    #[cfg(not(k2k_loom))]
    const LAYOUT: u64 = layout_of(T::LAYOUT, &[N]);

    #[cfg(k2k_loom)]
    fn idle() -> Self {
        core::array::from_fn(|_| T::idle())
    }
}

/// The idle state, made where it is to lie.
#[cfg(not(k2k_loom))]
#[inline]
pub(crate) const fn idle_in<T: Shared>(place: &mut core::mem::MaybeUninit<T>) -> &mut T {
    // SAFETY: the place has room for a `T`. `Shared`: zero is the idle state, and valid.
    unsafe {
        place.as_mut_ptr().write_bytes(0, 1);
        place.assume_init_mut()
    }
}

/// Declares a `repr(C)` struct of [`Shared`] fields and implements [`Shared`] for it. Generics come in brackets, each
/// with a comma behind it, once with their bounds and once as arguments; `in S` adds the [`Scope`] `S`, by default
/// [`System`]: `struct Name[const N: usize,][N,] in S { .. }`.
macro_rules! shared_struct {
    (
        $(#[$attr:meta])*
        $vis:vis struct $name:ident [$($gen:tt)*] [$($arg:tt)*] $(in $scope:ident)? {
            $( $(#[$fattr:meta])* $fvis:vis $field:ident : $ty:ty ),* $(,)?
        }
    ) => {
        $(#[$attr])*
        #[repr(C)]
        $vis struct $name<$($gen)* $($scope: $crate::sync::Scope = $crate::sync::System)?> {
            $( $(#[$fattr])* $fvis $field: $ty ),*
        }

        // SAFETY: `repr(C)`, and every field is `Shared`, which what follows makes the compiler check.
        unsafe impl<$($gen)* $($scope: $crate::sync::Scope)?> $crate::sync::Shared for $name<$($arg)* $($scope)?> {
            #[cfg(k2k_loom)]
            fn idle() -> Self {
                Self { $( $field: <$ty as $crate::sync::Shared>::idle() ),* }
            }
            #[cfg(not(k2k_loom))]
            const LAYOUT: u64 = {
                let hash = $crate::sync::layout_of(0, &[size_of::<Self>(), align_of::<Self>()]);
                $(
                    let hash = $crate::sync::layout_of(hash, &[core::mem::offset_of!(Self, $field)]);
                    let hash = $crate::sync::layout_of(hash ^ <$ty as $crate::sync::Shared>::LAYOUT, &[]);
                )*
                hash
            };
        }

        impl<$($gen)* $($scope: $crate::sync::Scope)?> core::fmt::Debug for $name<$($arg)* $($scope)?> {
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

#[cfg(not(k2k_loom))]
type CellImp<T> = core::cell::UnsafeCell<T>;
#[cfg(k2k_loom)]
type CellImp<T> = loom::cell::UnsafeCell<T>;

// SAFETY: the cell gives no access in safe code; the protocol of the ring that holds it decides who copies when.
unsafe impl<T: bytemuck::AnyBitPattern + Send> Sync for SharedCell<T> {}

// SAFETY: transparent over `T: AnyBitPattern`.
unsafe impl<T: bytemuck::AnyBitPattern + Send> Shared for SharedCell<T> {
    #[cfg(k2k_loom)]
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
pub(crate) const LINE: usize = 64;

/// What is copied at once: the widest that every processor of the architecture has; words in device code. A value may
/// have padding, which is copied as it is: initialised or not.
#[cfg(all(target_arch = "x86_64", not(k2k_device), not(k2k_loom)))]
type Chunk = core::mem::MaybeUninit<core::arch::x86_64::__m128i>;
// Loom's words and cells are larger than the real ones, so its slots are not laid out in lines.
#[cfg(not(all(target_arch = "x86_64", not(k2k_device), not(k2k_loom))))]
type Chunk = core::mem::MaybeUninit<u64>;

/// Which of two addresses is the shared one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    From,
    To,
}

/// Copies one unit. Volatile on the shared side; plain on a GPU, where volatile means something else.
///
/// # Safety
/// Both are valid for one `U`, the shared one aligned for it.
#[inline(always)]
unsafe fn copy_one<U: Copy>(shared: Side, from: *const U, to: *mut U) {
    // SAFETY: passed on.
    unsafe {
        match shared {
            _ if ON_DEVICE => to.write(from.read()),
            Side::From => to.write_unaligned(from.read_volatile()),
            Side::To => to.write_volatile(from.read_unaligned()),
        }
    }
}

/// Copies `LEN` bytes to or from a cache line: a whole one, or what the stamp leaves of the first.
///
/// # Safety
/// Both are valid for `LEN` bytes and aligned to 8; the shared one ends at a multiple of 16.
#[inline(always)]
unsafe fn copy_line<const LEN: usize>(shared: Side, from: *const u8, to: *mut u8) {
    const { assert!(LEN == LINE || LEN == FIRST_LINE) };
    if shared == Side::To {
        step();
    }
    debug_assert!((if shared == Side::To { to.addr() } else { from.addr() } + LEN).is_multiple_of(size_of::<Chunk>()));
    let mut at = 0;
    // SAFETY: `at` stays below `LEN`; behind the first word of a first line, the shared side is aligned to 16.
    unsafe {
        if LEN == FIRST_LINE {
            copy_one(shared, from.cast::<core::mem::MaybeUninit<u64>>(), to.cast());
            at = 8;
        }
        while at < LEN {
            copy_one(shared, from.add(at).cast::<Chunk>(), to.add(at).cast());
            at += size_of::<Chunk>();
        }
    }
}

/// Zero, made where it is to lie: no long value is moved there, and in device code it is not written byte by byte.
#[inline(always)]
pub(crate) fn zeroed_in<T: bytemuck::Zeroable>(place: &mut core::mem::MaybeUninit<T>) -> &mut T {
    // SAFETY: `at` stays within `T`, which has room for bytes of any value; zero is a `T`.
    unsafe {
        for_each_line(size_of::<T>(), |at, len| place.as_mut_ptr().cast::<u8>().add(at).write_bytes(0, len));
        place.assume_init_mut()
    }
}

/// Calls `each` with offset and length of the lines of `len` bytes, or with all of them at once where that is quicker.
#[inline(always)]
fn for_each_line(len: usize, mut each: impl FnMut(usize, usize)) {
    if !ON_DEVICE {
        return each(0, len);
    }
    let mut at = 0;
    while at + LINE <= len {
        each(at, LINE);
        op::between_lines();
        at += LINE;
    }
    while at + 8 <= len {
        each(at, 8);
        op::between_lines();
        at += 8;
    }
    while at < len {
        each(at, 1);
        op::between_lines();
        at += 1;
    }
}

impl<T: bytemuck::AnyBitPattern> SharedCell<T> {
    /// Whether `T` fills lines exactly behind a stamp, so that unused lines can be left alone.
    const WHOLE_LINES: bool =
        align_of::<T>() == 8 && size_of::<T>() >= FIRST_LINE && (size_of::<T>() - FIRST_LINE).is_multiple_of(LINE);
    /// Lines of a `T` behind the first.
    pub(crate) const MORE_LINES: usize = if Self::WHOLE_LINES { (size_of::<T>() - FIRST_LINE) / LINE } else { 0 };

    /// The cell's bytes.
    #[inline(always)]
    pub(crate) const fn body(&self) -> Body<'_, T> {
        #[cfg(not(k2k_loom))]
        let at = self.0.get();
        #[cfg(k2k_loom)]
        let at = self;
        Body { at, lines: Self::MORE_LINES, memory: PhantomData }
    }
}

/// The bytes of one message in shared memory: a [`SharedCell`], or as many of the first lines of one as there are.
pub(crate) struct Body<'m, T> {
    #[cfg(not(k2k_loom))]
    at: *mut T,
    /// Loom's cells are always whole.
    #[cfg(k2k_loom)]
    at: &'m SharedCell<T>,
    /// Lines behind the first.
    lines: usize,
    memory: PhantomData<&'m SharedCell<T>>,
}

impl<T> Clone for Body<'_, T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Body<'_, T> {}

impl<T> Body<'_, T> {
    /// # Safety
    /// `at` points to a `SharedCell<T>` that lives as long as `'m`, or to memory of one that ends after a first line and
    /// `lines` more.
    #[inline(always)]
    pub(crate) const unsafe fn at(at: core::ptr::NonNull<u8>, lines: usize) -> Self {
        #[cfg(not(k2k_loom))]
        let at = at.as_ptr().cast();
        // SAFETY: a whole cell, see the field.
        #[cfg(k2k_loom)]
        let at = unsafe { at.cast().as_ref() };
        Self { at, lines, memory: PhantomData }
    }
}

impl<T: bytemuck::AnyBitPattern> Body<'_, T> {
    const WHOLE_LINES: bool = SharedCell::<T>::WHOLE_LINES;

    /// Lines behind the first that hold the first `used` bytes. Any `used` is safe: it is clamped to `T`, and to what
    /// there is.
    #[inline(always)]
    const fn more_lines(self, used: usize) -> usize {
        let lines = used.saturating_sub(FIRST_LINE).div_ceil(LINE);
        let most = SharedCell::<T>::MORE_LINES;
        let most = if self.lines < most { self.lines } else { most };
        if lines < most { lines } else { most }
    }

    /// Copies the lines of `value` that hold its first `used` bytes into the cell, the first line last.
    ///
    /// # Safety
    /// The ring's protocol has given the cell to the caller to write.
    #[inline(always)]
    pub(crate) unsafe fn write(self, value: &T, used: usize) {
        // SAFETY: passed on; a value is a first line and what follows it.
        unsafe { self.write_parts(core::ptr::from_ref(value).cast(), value, used) };
    }

    /// As [`write`](Self::write), with the first line taken from `head` instead.
    ///
    /// # Safety
    /// As for `write`.
    #[inline(always)]
    pub(crate) unsafe fn write_headed<H: bytemuck::Pod>(self, head: &H, value: &T, used: usize) {
        const { assert!(size_of::<H>() == FIRST_LINE && align_of::<H>() == 8 && Self::WHOLE_LINES) };
        // SAFETY: passed on; `head` is a first line.
        unsafe { self.write_parts(core::ptr::from_ref(head).cast(), value, used) };
    }

    /// Writes the first line alone.
    ///
    /// # Safety
    /// As for `write`.
    #[inline(always)]
    pub(crate) unsafe fn write_head<H: bytemuck::Pod>(self, head: &H) {
        const { assert!(size_of::<H>() == FIRST_LINE && align_of::<H>() == 8 && Self::WHOLE_LINES) };
        // SAFETY: the cell is the caller's; `T` begins with a first line, and `H` is as long.
        self.with_mut(|to| unsafe { copy_line::<FIRST_LINE>(Side::To, core::ptr::from_ref(head).cast(), to.cast()) });
    }

    /// # Safety
    /// As for `write`; `head` is valid for a first line, aligned to 8, if `T` is whole lines.
    #[inline(always)]
    unsafe fn write_parts(self, head: *const u8, value: &T, used: usize) {
        self.with_mut(|to| {
            // SAFETY: the cell is the caller's. Line `i` < MORE_LINES lies inside `T`.
            unsafe {
                if !Self::WHOLE_LINES {
                    return copy_one(Side::To, value, to);
                }
                let (from, to) = (core::ptr::from_ref(value).cast::<u8>(), to.cast::<u8>());
                // The first line comes last: the peer polls the stamp beside it, and would take it away mid-write.
                for i in (0..self.more_lines(used)).rev() {
                    let at = FIRST_LINE + i * LINE;
                    copy_line::<LINE>(Side::To, from.add(at), to.add(at));
                }
                copy_line::<FIRST_LINE>(Side::To, head, to);
            }
        });
    }

    /// Copies another cell's first line and those behind it that hold its first `used` bytes.
    ///
    /// # Safety
    /// The ring's protocol has given both cells to the caller, this one to write. They are different ones.
    pub(crate) unsafe fn copy_from(self, other: Self, used: usize) {
        self.with_mut(|to| {
            // SAFETY: passed on. Line `i` < MORE_LINES lies inside `T`, and `line` has room for one.
            other.with(|from| unsafe {
                if !Self::WHOLE_LINES {
                    return to.write_volatile(from.read_volatile());
                }
                let (from, to) = (from.cast::<u8>(), to.cast::<u8>());
                let mut line = [0_u64; LINE / 8];
                let line = line.as_mut_ptr().cast::<u8>();
                copy_line::<FIRST_LINE>(Side::From, from, line);
                copy_line::<FIRST_LINE>(Side::To, line, to);
                for i in 0..self.more_lines(used) {
                    let at = FIRST_LINE + i * LINE;
                    copy_line::<LINE>(Side::From, from.add(at), line);
                    copy_line::<LINE>(Side::To, line, to.add(at));
                }
            });
        });
    }

    /// Copies the first line out.
    ///
    /// # Safety
    /// The ring's protocol has given the cell to the caller to read.
    #[inline(always)]
    pub(crate) unsafe fn read_head<H: bytemuck::Pod>(self) -> H {
        const { assert!(size_of::<H>() == FIRST_LINE && align_of::<H>() == 8 && Self::WHOLE_LINES) };
        let mut head = core::mem::MaybeUninit::<H>::uninit();
        // SAFETY: `T` begins with a first line, and `H` is as long.
        self.with(|from| unsafe { copy_line::<FIRST_LINE>(Side::From, from.cast(), head.as_mut_ptr().cast()) });
        // SAFETY: written above.
        unsafe { head.assume_init() }
    }

    /// Copies out those lines behind the first that hold the first `used` bytes. The rest of `value` stays what it was.
    ///
    /// # Safety
    /// The ring's protocol has given the cell to the caller to read.
    #[inline(always)]
    pub(crate) unsafe fn read_behind_head(self, value: &mut T, used: usize) {
        // SAFETY: passed on; both are valid for a `T`.
        self.with(|from| unsafe { self.copy_behind_head(from, value, used) });
    }

    /// # Safety
    /// The cell is the caller's to read; `from` is its, and `to` is valid for writing a `T`.
    #[inline(always)]
    unsafe fn copy_behind_head(self, from: *const T, to: *mut T, used: usize) {
        let (from, to) = (from.cast::<u8>(), to.cast::<u8>());
        for i in 0..self.more_lines(used) {
            let at = FIRST_LINE + i * LINE;
            // SAFETY: as in `write_parts`.
            unsafe { copy_line::<LINE>(Side::From, from.add(at), to.add(at)) };
        }
    }

    /// Copies the whole value out.
    ///
    /// # Safety
    /// The ring's protocol has given the cell to the caller to read.
    #[inline(always)]
    pub(crate) unsafe fn read(self) -> T {
        let mut value = core::mem::MaybeUninit::<T>::uninit();
        // SAFETY: the cell is the caller's; `value` has room for a `T`, all of which is written.
        unsafe {
            self.read_parts(value.as_mut_ptr(), |_| size_of::<T>());
            value.assume_init()
        }
    }

    /// Copies out the first line, asks `used` how many bytes of that value count, and copies only their lines; returns
    /// the number. The rest of `value` stays what it was.
    ///
    /// # Safety
    /// The ring's protocol has given the cell to the caller to read.
    #[inline(always)]
    pub(crate) unsafe fn read_used(self, value: &mut T, used: impl FnOnce(&T) -> usize) -> usize {
        // SAFETY: passed on; `value` is initialised, so it can be shown to `used` at any time.
        unsafe { self.read_parts(value, |value| used(&*value)) }
    }

    /// # Safety
    /// As for `read_used`; `to` is valid for writing a `T`, and `used` may look at it only if it is initialised.
    #[inline(always)]
    unsafe fn read_parts(self, to: *mut T, used: impl FnOnce(*mut T) -> usize) -> usize {
        self.with(|from| {
            // SAFETY: as in `write_parts`.
            unsafe {
                if !Self::WHOLE_LINES {
                    copy_one(Side::From, from, to);
                    return size_of::<T>();
                }
                copy_line::<FIRST_LINE>(Side::From, from.cast(), to.cast());
                let used = used(to);
                self.copy_behind_head(from, to, used);
                used
            }
        })
    }

    /// Writes one word into each line that holds the first `used` bytes, destroying the value.
    ///
    /// # Safety
    /// The ring's protocol has given the cell to the caller, who has copied out what it needs.
    #[inline(always)]
    pub(crate) unsafe fn scribble(self, used: usize) {
        if !Self::WHOLE_LINES {
            return;
        }
        step();
        self.with_mut(|to| {
            let to = to.cast::<u8>();
            // SAFETY: each word lies inside `T`, see `copy_lines`.
            unsafe {
                to.cast::<u64>().write_volatile(0);
                for i in 0..self.more_lines(used) {
                    to.add(FIRST_LINE + i * LINE).cast::<u64>().write_volatile(0);
                }
            }
        });
    }

    /// Asks for the first lines, four at most, of those that hold `used` bytes, to be written soon. Accesses nothing.
    #[inline(always)]
    pub(crate) fn prefetch(self, used: usize) {
        #[cfg(not(k2k_loom))]
        let start = self.at.cast::<u8>();
        #[cfg(k2k_loom)]
        let start = core::ptr::from_ref(self.at).cast::<u8>();
        prefetch_write(start);
        for i in 0..self.more_lines(used).min(3) {
            prefetch_write(start.wrapping_add(FIRST_LINE + i * LINE));
        }
    }

    /// Address of the bytes, for in-place access under the ring's protocol.
    #[cfg(not(k2k_loom))]
    #[inline(always)]
    pub(crate) const fn as_ptr(self) -> *mut T {
        self.at
    }

    #[cfg(not(k2k_loom))]
    #[inline(always)]
    fn with<R>(self, f: impl FnOnce(*const T) -> R) -> R {
        f(self.at)
    }

    #[cfg(not(k2k_loom))]
    #[inline(always)]
    fn with_mut<R>(self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.at)
    }

    #[cfg(k2k_loom)]
    fn with<R>(self, f: impl FnOnce(*const T) -> R) -> R {
        self.at.0.with(f)
    }

    #[cfg(k2k_loom)]
    fn with_mut<R>(self, f: impl FnOnce(*mut T) -> R) -> R {
        self.at.0.with_mut(f)
    }
}
