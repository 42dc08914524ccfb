//! What is remembered about memory: for each granule of eight bytes, recent accesses and what was released there.

use super::Site;
use super::clock::Clock;
use crate::op::Scope;
use std::collections::HashMap;
use std::sync::Arc;

/// An access that could still take part in a race.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cell {
    pub(super) site: Site,
    /// Bytes of the granule, one bit each.
    pub(super) mask: u8,
    /// The agent's epoch.
    pub(super) clock: u32,
}

/// A release that a reader of the value may acquire.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) agent: u32,
    pub(super) scope: Scope,
    pub(super) clock: Arc<Clock>,
}

impl Head {
    /// Whether whoever acquires this has acquired `older` as well.
    pub(super) fn replaces(&self, older: &Self) -> bool {
        self.agent == older.agent && self.scope >= older.scope
    }
}

/// The last strong write to some bytes of a granule.
#[derive(Clone, Debug)]
pub(super) struct Published {
    pub(super) mask: u8,
    pub(super) value: u64,
    pub(super) writer: u32,
    pub(super) scope: Scope,
    pub(super) heads: Vec<Head>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Word {
    pub(super) cells: Vec<Cell>,
    pub(super) published: Vec<Published>,
}

const WORDS: usize = 64;

/// Granules by address, made when they are first touched.
#[derive(Debug, Default)]
pub(super) struct Shadow {
    pages: Vec<Box<[Word]>>,
    index: HashMap<u64, u32>,
    /// The last page looked up.
    last: Option<(u64, u32)>,
    free: Vec<u32>,
}

/// Bits of the bytes that an access touches within its granule.
pub(super) fn bytes_mask(address: u64, bytes: u8) -> u8 {
    (((1u16 << bytes) - 1) << (address & 7)) as u8
}

impl Shadow {
    #[inline]
    pub(super) fn word(&mut self, address: u64) -> &mut Word {
        let (page, word) = (address / (8 * WORDS as u64), (address / 8) as usize % WORDS);
        let slot = match self.last {
            Some((last, slot)) if last == page => slot,
            _ => {
                let (pages, free) = (&mut self.pages, &mut self.free);
                let slot = *self.index.entry(page).or_insert_with(|| {
                    free.pop().unwrap_or_else(|| {
                        pages.push(vec![Word::default(); WORDS].into_boxed_slice());
                        (pages.len() - 1) as u32
                    })
                });
                self.last = Some((page, slot));
                slot
            }
        };
        &mut self.pages[slot as usize][word]
    }

    pub(super) fn forget(&mut self, address: u64, bytes: u64) {
        self.last = None;
        let size = 8 * WORDS as u64;
        let touched: Vec<u64> =
            self.index.keys().copied().filter(|p| p * size < address + bytes && (p + 1) * size > address).collect();
        for page in touched {
            let Some(slot) = self.index.get(&page).copied() else { continue };
            let whole = page * size >= address && (page + 1) * size <= address + bytes;
            for (i, word) in self.pages[slot as usize].iter_mut().enumerate() {
                let at = page * size + 8 * i as u64;
                if at >= address && at < address + bytes {
                    *word = Word::default();
                }
            }
            if whole {
                self.index.remove(&page);
                self.free.push(slot);
            }
        }
    }
}
