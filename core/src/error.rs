//! Every way in which an operation of this crate can be refused.
//!
//! One small type per operation. A refused message is always still the caller's: messages are lent to `push` and
//! `send`, never given.

use core::fmt;

/// A ring had no free slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the ring is full: its consumer has not freed a slot yet")
    }
}

impl core::error::Error for Full {}
