//! The messages that wait for room, in the order of their arrival.

use super::incoming::Transfer;
use crate::below::Below;

/// Messages that wait, in a row: each has the number of the next one.
#[derive(Clone, Copy)]
pub(super) struct Line<const FRAMES: usize> {
    first: Option<Below<FRAMES>>,
    last: Option<Below<FRAMES>>,
    /// The last message that the current look has come to and that stays.
    kept: Option<Below<FRAMES>>,
    /// Number of the look.
    look: u16,
}

impl<const FRAMES: usize> Line<FRAMES> {
    pub(super) const EMPTY: Self = Self { first: None, last: None, kept: None, look: 1 };

    pub(super) const fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Number of the look.
    pub(super) const fn number(&self) -> u16 {
        self.look
    }

    /// Puts a message at the end.
    pub(super) fn push(&mut self, transfers: &mut [Transfer; FRAMES], number: Below<FRAMES>) {
        match self.last {
            Some(last) => transfers[last].next = number.index() as u16,
            None => self.first = Some(number),
        }
        self.last = Some(number);
        transfers[number].next = u16::MAX;
    }

    /// The message that the look has come to. At the end, `None`, and the next look begins.
    pub(super) fn look(&mut self, transfers: &[Transfer; FRAMES]) -> Option<Below<FRAMES>> {
        let next = match self.kept {
            Some(kept) => Below::new(transfers[kept].next as usize),
            None => self.first,
        };
        if next.is_none() {
            self.kept = None;
            self.look = self.look.wrapping_add(1);
        }
        next
    }

    /// The message that the look has come to stays.
    pub(super) const fn keep(&mut self, number: Below<FRAMES>) {
        self.kept = Some(number);
    }

    /// The message that the look has come to goes.
    pub(super) fn remove(&mut self, transfers: &mut [Transfer; FRAMES], number: Below<FRAMES>) {
        let next = transfers[number].next;
        match self.kept {
            Some(kept) => transfers[kept].next = next,
            None => self.first = Below::new(next as usize),
        }
        if self.last == Some(number) {
            self.last = self.kept;
        }
    }
}

#[cfg(test)]
#[cfg(not(k2k_loom))]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_looked_at_in_turn_and_stays_in_order() {
        const FRAMES: usize = 4;
        let number = |n| Below::<FRAMES>::new(n).unwrap();
        let (mut transfers, mut line) = ([Transfer::FREE; FRAMES], Line::EMPTY);
        [2, 0, 3].into_iter().for_each(|n| line.push(&mut transfers, number(n)));
        // The first stays, the second goes, another one comes in the middle of the look.
        assert_eq!(line.look(&transfers), Some(number(2)));
        line.keep(number(2));
        assert_eq!(line.look(&transfers), Some(number(0)));
        line.remove(&mut transfers, number(0));
        line.push(&mut transfers, number(1));
        let look = line.look;
        for n in [3, 1] {
            assert_eq!(line.look(&transfers), Some(number(n)));
            line.keep(number(n));
        }
        assert_eq!((line.look(&transfers), line.look == look), (None, false));
        // All go, and one comes back.
        for n in [2, 3, 1] {
            assert_eq!(line.look(&transfers), Some(number(n)));
            line.remove(&mut transfers, number(n));
        }
        assert!(line.is_empty() && line.look(&transfers).is_none());
        line.push(&mut transfers, number(1));
        assert_eq!(line.look(&transfers), Some(number(1)));
    }
}
