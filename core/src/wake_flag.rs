//! How a kernel that sleeps is woken, and why no wake-up is lost.
//!
//! The flag's word counts sleeps: odd while the kernel sleeps or is about to, even while it is awake. Each sleep has a
//! number of its own, so that no delayed step of an earlier sleep can be taken for one of a later sleep.
//!
//! ```text
//!   receiver:  word = next odd number ── fence ── look at inbox ── none ── sleep while the word is that number ──┐
//!                                                                                                               │
//!   sender:    publish message ── fence ── word is odd? ── Platform::wake: make the word even, wake ────────────┘
//! ```
//!
//! # No death loses a wake-up
//!
//! | the sender stops or dies | what remains | the receiver wakes |
//! | --- | --- | --- |
//! | before it looks at the word | the word is odd | at the next sender's message, or at the end of its slice |
//! | between its look and [`Platform::wake`](crate::Platform::wake) | the word is odd | the same |
//! | within `Platform::wake` | depends on the platform | at once, if making the word even and waking are one step |
//! | and goes on during a later sleep | | once too often, and looks for nothing |
//!
//! A sender never makes the word even by itself: only the platform does, in one step with waking where the system has
//! such a step (a host has: `FUTEX_WAKE_OP`). A *slice* is the bounded time for which a backend sleeps before it lets
//! the kernel look again. So even a receiver with no further sender, or one whose word was overwritten by a hostile
//! process, sleeps no longer than a slice on a message that is there.
//!
//! A sender may also have died before it wrote its doorbell word ([`ring::Sharded`](crate::ring::Sharded)): the look
//! before each sleep is at stamps as well, those of 16 shards in turn.
//!
//! | label | release | acquire | what becomes visible |
//! | --- | --- | --- | --- |
//! | `asleep` | fences on both sides | | each side's store to the other's load: see [`WakeFlag`] |

use crate::sync::Ordering::{Relaxed, SeqCst};
use crate::sync::{AtomicU32, fence, shared_struct};

shared_struct! {
    /// Where a parked kernel sleeps, and how others know that it does.
    ///
    /// The receiver marks itself asleep and then looks at its inbox once more; the sender publishes its message and then
    /// looks whether the receiver sleeps. Each writes one word and reads the other's, so each needs a sequentially
    /// consistent fence between its two steps: with both, at least one of them sees the other ("store buffering" in the
    /// litmus tests), and no wake-up is lost. Only senders to kernels that registered as parking pay for it.
    #[repr(align(64))]
    pub struct WakeFlag[][] {
        /// Odd while the kernel sleeps. The kernel raises it; the kernel and its senders' platforms clear the lowest bit.
        word: AtomicU32,
    }
}

/// The lowest bit of the word: the kernel sleeps.
const ASLEEP: u32 = 1;

impl WakeFlag {
    /// For the kernel: begins a sleep. It must look at its inbox once more before it sleeps.
    pub fn fall_asleep(&self) -> Sleep<'_> {
        // Relaxed: only the kernel raises the count; a late platform can at most clear the bit of an earlier sleep.
        let number = (self.word.load(Relaxed) | ASLEEP).wrapping_add(2);
        // Relaxed: ordered by the fence.
        self.word.store(number, Relaxed);
        // SeqCst [asleep]: the store above comes before the look at the inbox that follows; pairs with the fence in
        // `must_wake`.
        fence(SeqCst);
        Sleep { flag: self, number, soon: false }
    }

    /// Ends the sleep that is in the word: for a platform whose system cannot clear and wake in one step.
    pub fn wake_up(&self) {
        // Relaxed: a look.
        let word = self.word.load(Relaxed);
        if word & ASLEEP != 0 {
            self.end(word);
        }
    }

    fn end(&self, number: u32) {
        // Relaxed, both: the word orders nothing. A failure means that this sleep has ended already.
        let _ = self.word.compare_exchange(number, number & !ASLEEP, Relaxed, Relaxed);
    }

    /// For a sender, after its message is published: whether the kernel sleeps and must be woken. The flag stays as it
    /// is, for the next sender, until the platform has woken the kernel.
    #[must_use]
    pub fn must_wake(&self) -> bool {
        // SeqCst [asleep]: the message's stamp comes before the load below; pairs with the fence in `fall_asleep`.
        fence(SeqCst);
        self.is_asleep()
    }

    /// Whether the kernel is marked asleep. A snapshot.
    #[must_use]
    pub fn is_asleep(&self) -> bool {
        // Relaxed: a snapshot; a sender's fence orders it.
        self.word.load(Relaxed) & ASLEEP != 0
    }

    /// The word to sleep on: see [`Sleep::number`].
    #[cfg(not(k2k_loom))]
    #[must_use]
    pub const fn word(&self) -> &AtomicU32 {
        &self.word
    }
}

/// One sleep of a kernel: until [`is_over`](Self::is_over), and for no longer than a slice.
#[derive(Clone, Copy, Debug)]
#[must_use = "a kernel that is marked asleep costs each sender a system call"]
pub struct Sleep<'f> {
    flag: &'f WakeFlag,
    number: u32,
    soon: bool,
}

impl<'f> Sleep<'f> {
    /// The kernel's wake flag.
    #[must_use]
    pub const fn flag(&self) -> &'f WakeFlag {
        self.flag
    }

    /// What the flag's word holds during this sleep: the value that a futex expects.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// Whether deferred messages wait for room in a next hop, which wakes nobody: the kernel must poll again soon.
    #[must_use]
    pub const fn soon(&self) -> bool {
        self.soon
    }

    pub(crate) const fn with_soon(self, soon: bool) -> Self {
        Self { soon, ..self }
    }

    /// For the kernel, when it is awake: ends this sleep, but none that a successor has begun.
    pub fn end(self) {
        if !self.is_over() {
            self.flag.end(self.number);
        }
    }

    /// Whether the kernel was woken.
    #[must_use]
    pub fn is_over(&self) -> bool {
        // Relaxed: the inbox is looked at anew, whatever is read here.
        self.flag.word.load(Relaxed) != self.number
    }
}

#[cfg(test)]
#[cfg(not(k2k_loom))]
mod tests {
    use super::*;

    fn flag() -> WakeFlag {
        // SAFETY: `Shared`: zero is the idle state.
        unsafe { core::mem::zeroed() }
    }

    #[test]
    fn a_sender_leaves_the_flag_for_the_next_one_until_the_kernel_is_woken() {
        let flag = flag();
        assert!(!flag.must_wake());
        let sleep = flag.fall_asleep();
        assert!(flag.must_wake() && flag.must_wake() && !sleep.is_over());
        flag.wake_up();
        assert!(sleep.is_over() && !flag.must_wake());
        let later = flag.fall_asleep();
        sleep.end();
        assert!(!later.is_over(), "an earlier sleep ends alone");
        later.end();
        assert!(later.is_over());
        flag.wake_up();
        assert!(!flag.is_asleep());
    }

    #[test]
    fn each_sleep_has_a_number_of_its_own_also_one_that_was_not_ended_and_after_a_wrap() {
        let flag = flag();
        for start in [0, 1, u32::MAX - 2, u32::MAX - 1, u32::MAX] {
            flag.word.store(start, Relaxed);
            let first = flag.fall_asleep();
            let second = flag.fall_asleep();
            assert!(first.is_over() && !second.is_over() && flag.is_asleep());
            assert!(first.number() != start && second.number() != start);
            flag.wake_up();
            assert!(second.is_over() && !flag.is_asleep());
        }
    }
}
