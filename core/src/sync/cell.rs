//! Bytes of messages: copied in and out line by line, never borrowed.

use super::{ON_DEVICE, Shared, op, prefetch_write, step};
use core::marker::PhantomData;

/// Bytes of one message, owned by one side at a time as a ring's protocol says, never borrowed, only copied.
#[repr(transparent)]
pub(crate) struct SharedCell<T>(CellImp<T>);

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
    pub(crate) unsafe fn write_back(self, used: usize) {
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
