//! Which of some numbers are free.

use crate::in_place::{array_in, make_in};
use core::mem::MaybeUninit;

/// The numbers below a limit, which is `N` at most: in use, or free.
pub(super) struct FreeList<const N: usize> {
    /// A number for each that is in use, then those that are free.
    order: [u16; N],
    in_use: usize,
    limit: usize,
}

impl<const N: usize> FreeList<N> {
    /// All numbers below `limit`, free.
    pub(super) fn new_in(memory: &mut MaybeUninit<Self>, limit: usize) -> &mut Self {
        const { assert!(N <= 1 << 16) };
        make_in!(memory, Self {
            order => |order| array_in(order, |number| number as u16),
            in_use: 0,
            limit: if limit < N { limit } else { N },
        })
    }

    /// How many are in use.
    pub(super) const fn in_use(&self) -> usize {
        self.in_use
    }

    /// How many are free.
    pub(super) const fn free(&self) -> usize {
        self.limit.saturating_sub(self.in_use)
    }

    /// A free number, if there is one. It stays free until [`take`](Self::take).
    pub(super) fn first(&self) -> Option<u16> {
        if self.in_use < self.limit { self.order.get(self.in_use).copied() } else { None }
    }

    /// Takes the number that [`first`](Self::first) has named.
    pub(super) const fn take(&mut self) {
        self.in_use += 1;
    }

    /// Gives a number back.
    pub(super) fn give_back(&mut self, number: u16) {
        self.in_use = self.in_use.saturating_sub(1);
        if let Some(free) = self.order.get_mut(self.in_use) {
            *free = number;
        }
    }
}

#[cfg(test)]
#[cfg(not(k2k_loom))]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_free_taken_and_given_back_once() {
        for limit in [4, 6] {
            let mut memory = MaybeUninit::uninit();
            let list = FreeList::<6>::new_in(&mut memory, limit);
            let mut taken = [0; 6];
            while let Some(number) = list.first() {
                taken[usize::from(number)] += 1;
                list.take();
            }
            assert_eq!(taken[..limit], [1; 6][..limit]);
            assert_eq!((taken[limit..].iter().sum::<i32>(), list.in_use(), list.free()), (0, limit, 0));
            for number in [2, 0] {
                list.give_back(number);
            }
            assert_eq!((list.in_use(), list.free()), (limit - 2, 2));
            for number in [0, 2] {
                assert_eq!(list.first(), Some(number));
                list.take();
            }
            assert_eq!(list.first(), None);
        }
    }

    #[test]
    fn a_limit_beyond_the_room_is_the_room() {
        assert_eq!(FreeList::<3>::new_in(&mut MaybeUninit::uninit(), usize::MAX).free(), 3);
    }
}
