//! Room for a value that is made where it lies. An `Option` of something large can only be assigned: the value is made
//! elsewhere, and moved, which a GPU does byte by byte and through local memory.

use core::mem::MaybeUninit;

/// A value, or none.
pub(crate) struct InPlaceOption<T> {
    some: bool,
    /// Initialised if `some`.
    value: MaybeUninit<T>,
}

impl<T> InPlaceOption<T> {
    /// Makes an empty option.
    pub(crate) const fn empty_in(at: &mut MaybeUninit<Self>) -> &mut Self {
        // SAFETY: `at` is valid for a `Self`, of which an empty one needs no more than this.
        unsafe { (&raw mut (*at.as_mut_ptr()).some).write(false) };
        // SAFETY: as above.
        unsafe { at.assume_init_mut() }
    }

    /// The value, if there is one.
    #[inline(always)]
    pub(crate) const fn as_ref(&self) -> Option<&T> {
        if !self.some {
            return None;
        }
        // SAFETY: initialised, as `some` says.
        Some(unsafe { self.value.assume_init_ref() })
    }

    /// The value, if there is one.
    #[inline(always)]
    pub(crate) const fn as_mut(&mut self) -> Option<&mut T> {
        if !self.some {
            return None;
        }
        // SAFETY: initialised, as `some` says.
        Some(unsafe { self.value.assume_init_mut() })
    }

    /// Puts a value in the place of the last one. That `make` returns a reference says that it has made one.
    pub(crate) fn fill(&mut self, make: impl FnOnce(&mut MaybeUninit<T>) -> &mut T) {
        self.clear();
        make(&mut self.value);
        self.some = true;
    }

    /// Drops the value, if there is one.
    pub(crate) fn clear(&mut self) {
        if core::mem::take(&mut self.some) {
            // SAFETY: it was initialised, and is not reached any more.
            unsafe { self.value.assume_init_drop() };
        }
    }
}

impl<T> Drop for InPlaceOption<T> {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
#[cfg(not(k2k_loom))]
mod tests {
    use super::*;
    use core::cell::Cell;

    struct Counted<'c>(&'c Cell<u32>);

    impl Drop for Counted<'_> {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }

    #[test]
    fn a_value_is_dropped_once() {
        let drops = Cell::new(0);
        let mut at = MaybeUninit::uninit();
        InPlaceOption::empty_in(&mut at);
        // SAFETY: made above.
        let mut option: InPlaceOption<Counted<'_>> = unsafe { at.assume_init() };
        assert!(option.as_ref().is_none() && option.as_mut().is_none());
        for before in 0..3 {
            option.fill(|at| at.write(Counted(&drops)));
            assert_eq!(drops.get(), before);
            assert!(option.as_ref().is_some() && option.as_mut().is_some());
        }
        option.clear();
        assert!(option.as_ref().is_none());
        drop(option);
        assert_eq!(drops.get(), 3);
    }
}
