//! Who may not send to whom: one word per receiver and sender.
//!
//! ```text
//!    63                     32 31                       0
//!   +-------------------------+-------------------------+
//!   | receiver's generation   |   sender's generation   |     0: allowed
//!   +-------------------------+-------------------------+
//! ```
//!
//! The word denies a sender exactly if it holds the generations of both. So a denial ends when either kernel index
//! changes hands, without a store of anybody: a new owner, on either side, starts without. It survives a successor that
//! goes on under the same address.
//!
//! Nobody looks at a word before the receiver's state in the [kernel table](super::table) says `restricted`. A supervisor
//! writes the word first; should it die in between, the denial takes effect when the receiver is restricted for another
//! reason.
//!
//! # Rules
//!
//! 1. Words: compare-exchanged by supervisors, in such a way that neither generation in a word is replaced by an earlier
//!    one: a slow supervisor cannot overwrite a denial of later owners.
//! 2. Read by the sender, and by the receiver. No ordering is needed: nothing is published through a word, and a sender
//!    that was told of a denial sees it.

use crate::message::KernelId;
use crate::shape::{Part, Shape};
use crate::sync::Ordering::Relaxed;
use crate::sync::{AtomicU64, shared_struct};

/// Tries of a supervisor against others that write the same word.
const TRIES: u32 = 16;

shared_struct! {
    /// The denials of a fabric, by receiver and sender.
    #[repr(align(128))]
    pub(crate) struct Senders[const KERNELS: usize,][KERNELS,] in S {
        denied: [[AtomicU64<S>; KERNELS]; KERNELS],
    }
}

const fn word(receiver: KernelId, sender: KernelId) -> u64 {
    (receiver.generation() as u64) << 32 | sender.generation() as u64
}

/// The denials of a fabric: of the type `Senders`, for as many kernels as the shape says.
pub(crate) enum AllSenders {}
pub(crate) type SendersView<'f, Sh> = Part<'f, Sh, AllSenders>;

impl<'f, Sh: Shape> SendersView<'f, Sh> {
    fn entry(&self, receiver: KernelId, sender: KernelId) -> Option<&'f AtomicU64<Sh::Scope>> {
        let [receiver, sender] = [self.shape.index(receiver.index())?, self.shape.index(sender.index())?];
        let i = self.shape.below(receiver) * self.shape.producers() + self.shape.below(sender);
        // SAFETY: one word for each pair.
        Some(unsafe { self.item(0, i) })
    }

    /// Whether a message of `sender` may not be received by `receiver`, whose state says `restricted`.
    #[cold]
    #[inline(never)]
    pub(crate) fn denies(&self, receiver: KernelId, sender: KernelId) -> bool {
        // Relaxed: rule 2.
        self.entry(receiver, sender).is_some_and(|entry| entry.load(Relaxed) == word(receiver, sender))
    }

    /// Denies.
    ///
    /// # Errors
    /// The kernel whose index has a later owner.
    pub(crate) fn deny(&self, receiver: KernelId, sender: KernelId) -> Result<(), KernelId> {
        let entry = self.entry(receiver, sender).ok_or(receiver)?;
        for _ in 0..TRIES {
            // Relaxed: the exchange decides.
            let found = entry.load(Relaxed);
            if (found >> 32) as u32 > receiver.generation() {
                return Err(receiver);
            }
            if found as u32 > sender.generation() {
                return Err(sender);
            }
            // Relaxed, both: rule 2. On failure another supervisor was faster: look again.
            if entry.widened().compare_exchange(found, word(receiver, sender), Relaxed, Relaxed).is_ok() {
                return Ok(());
            }
        }
        Err(receiver)
    }

    /// Allows again.
    pub(crate) fn allow(&self, receiver: KernelId, sender: KernelId) {
        if let Some(entry) = self.entry(receiver, sender) {
            // Relaxed, both: rule 2. On failure there is nothing to allow.
            let _ = entry.widened().compare_exchange(word(receiver, sender), 0, Relaxed, Relaxed);
        }
    }
}

#[cfg(test)]
#[cfg(not(k2k_loom))]
mod tests {
    use super::*;
    use crate::shape::Fixed;

    #[test]
    fn a_denial_is_of_two_owners_and_no_slow_supervisor_overwrites_it() {
        // SAFETY: `Shared`: zero is the idle state.
        let storage: Senders<3> = unsafe { core::mem::zeroed() };
        // SAFETY: of this shape.
        let senders: SendersView<'_, Fixed<3, 1, 0>> =
            unsafe { Part::at(core::ptr::NonNull::from_ref(&storage).cast(), Fixed::SHAPE) };
        let [receiver, sender] = [KernelId::new(0, 7), KernelId::new(1, 9)];
        let [next_receiver, next_sender] = [KernelId::new(0, 8), KernelId::new(1, 10)];
        assert!(!senders.denies(receiver, sender));
        assert_eq!(senders.deny(receiver, sender), Ok(()));
        assert!(senders.denies(receiver, sender) && !senders.denies(sender, receiver));
        assert!(!senders.denies(next_receiver, sender) && !senders.denies(receiver, next_sender));
        senders.allow(next_receiver, sender);
        senders.allow(receiver, next_sender);
        assert!(senders.denies(receiver, sender), "those are others");
        senders.allow(receiver, sender);
        assert!(!senders.denies(receiver, sender));
        assert_eq!(senders.deny(next_receiver, sender), Ok(()));
        assert_eq!(senders.deny(receiver, sender), Err(receiver));
        assert_eq!(senders.deny(next_receiver, next_sender), Ok(()));
        assert_eq!(senders.deny(next_receiver, sender), Err(sender));
        assert!(senders.denies(next_receiver, next_sender));
        assert!(senders.deny(KernelId::new(3, 1), sender).is_err() && !senders.denies(KernelId::new(3, 1), sender));
    }
}
