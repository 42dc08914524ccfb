//! What the queues carry.
//!
//! | column | ours | peers | why |
//! | --- | --- | --- | --- |
//! | 8 | `[u64; 1]` | `[u64; 1]` | the same bytes |
//! | 56 | `[u64; 7]` | `[u64; 7]` | the same user bytes: ours adds its stamp to make one line, index rings pack 56 bytes |
//! | 64 | `[u64; 7]` | 64 bytes aligned to 64 | the same slot: one line ("56 + 8": our stamp is one of the eight words) |
//! | 256 | `[u64; 31]` | 256 bytes aligned to 64 | the same slot: four lines ("248 + 8") |
//!
//! Peers whose slot has a word of its own (sequence, flag) grow to two and five lines in the last two columns; in the
//! column 56 they have one line, as ours.

use bytemuck::{Pod, Zeroable};
use k2k_core::Message;

/// A message whose words can be told from one another.
pub trait Element: Pod + Send + Sync + Default {
    /// All words follow from the number.
    fn numbered(number: u64) -> Self;
    /// Changes the number alone: what the timed passes do.
    fn renumber(&mut self, number: u64);
    fn number(&self) -> u64;
    /// Whether all words still follow from the number.
    fn intact(&self) -> bool;
}

fn word(number: u64, i: usize) -> u64 {
    number.rotate_left(i as u32) ^ (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

macro_rules! words {
    ($($name:ident, $count:literal, $align:meta;)*) => {$(
        #[derive(Clone, Copy, Pod, Zeroable)]
        #[repr(C)]
        #[$align]
        pub struct $name(pub [u64; $count]);

        impl Default for $name {
            #[inline(always)]
            fn default() -> Self {
                Zeroable::zeroed()
            }
        }

        impl Element for $name {
            fn numbered(number: u64) -> Self {
                Self(core::array::from_fn(|i| word(number, i)))
            }

            #[inline(always)]
            fn renumber(&mut self, number: u64) {
                self.0[0] = number;
            }

            #[inline(always)]
            fn number(&self) -> u64 {
                self.0[0]
            }

            fn intact(&self) -> bool {
                self.0.iter().enumerate().all(|(i, w)| *w == word(self.number(), i))
            }
        }
    )*};
}

words! {
    Word, 1, repr(align(8));
    // Seven words: with a stamp, one line.
    Seven, 7, repr(align(8));
    ThirtyOne, 31, repr(align(8));
    // Aligned lines.
    Line, 8, repr(align(64));
    TwoLines, 16, repr(align(64));
    FourLines, 32, repr(align(64));
}

impl<const PAYLOAD: usize> Element for Envelope<PAYLOAD> {
    fn numbered(number: u64) -> Self {
        let mut payload = [0_u8; PAYLOAD];
        for (i, bytes) in payload.chunks_exact_mut(8).enumerate() {
            bytes.copy_from_slice(&word(number, i).to_le_bytes());
        }
        let message = Message::from_bytes(7, &payload).expect("the payload has the size of the message's");
        Self(message.with_correlation_id(number))
    }

    #[inline(always)]
    fn renumber(&mut self, number: u64) {
        self.0.header.correlation_id = number;
    }

    #[inline(always)]
    fn number(&self) -> u64 {
        self.0.header.correlation_id
    }

    fn intact(&self) -> bool {
        let payload = self.0.payload();
        self.0.header.kind == 7
            && payload.len() == PAYLOAD
            && payload.chunks_exact(8).enumerate().all(|(i, bytes)| bytes == word(self.number(), i).to_le_bytes())
    }
}

/// A whole message: 56 bytes of header and the payload.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Envelope<const PAYLOAD: usize>(pub Message<PAYLOAD>);

// SAFETY: transparent over a `Message`, which is.
unsafe impl<const PAYLOAD: usize> Zeroable for Envelope<PAYLOAD> {}
// SAFETY: transparent over a `Message` whose `PAYLOAD` is a multiple of 64 here, so that there is no padding.
unsafe impl<const PAYLOAD: usize> Pod for Envelope<PAYLOAD> {}

impl<const PAYLOAD: usize> Envelope<PAYLOAD> {
    /// A message as an element.
    pub const fn of(message: &Message<PAYLOAD>) -> &Self {
        const { assert!(PAYLOAD.is_multiple_of(64)) };
        // SAFETY: transparent over it.
        unsafe { &*core::ptr::from_ref(message).cast() }
    }
}

impl<const PAYLOAD: usize> Default for Envelope<PAYLOAD> {
    #[inline(always)]
    fn default() -> Self {
        Self(Zeroable::zeroed())
    }
}
