//! Indices that were checked once: an array of `N` things is indexed by a [`Below<N>`] without a branch to a panic,
//! which matters most where a panic is code that a GPU has to carry.

use core::ops::{Index, IndexMut};

/// An index below `N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Below<const N: usize>(usize);

impl<const N: usize> Below<N> {
    /// The first of them.
    pub(crate) const FIRST: Self = {
        assert!(N > 0);
        Self(0)
    };

    /// `None` unless `index` is below `N`.
    #[inline(always)]
    pub(crate) const fn new(index: usize) -> Option<Self> {
        if index < N { Some(Self(index)) } else { None }
    }

    /// All of them, in order.
    #[inline(always)]
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..N).map(Self)
    }

    /// The one after it; after the last one, the first.
    #[inline(always)]
    pub(crate) const fn next(self) -> Self {
        match Self::new(self.0 + 1) {
            Some(next) => next,
            None => Self::FIRST,
        }
    }

    /// As a number.
    #[inline(always)]
    pub(crate) const fn index(self) -> usize {
        self.0
    }
}

impl<T, const N: usize> Index<Below<N>> for [T; N] {
    type Output = T;

    #[inline(always)]
    fn index(&self, index: Below<N>) -> &T {
        // SAFETY: a `Below` is below `N`, however it was made.
        unsafe { self.as_slice().get_unchecked(index.0) }
    }
}

impl<T, const N: usize> IndexMut<Below<N>> for [T; N] {
    #[inline(always)]
    fn index_mut(&mut self, index: Below<N>) -> &mut T {
        // SAFETY: as in `index`.
        unsafe { self.as_mut_slice().get_unchecked_mut(index.0) }
    }
}
