//! How a kernel that sleeps is woken, and why no wake-up is lost.
//!
//! | label | release | acquire | what becomes visible |
//! | --- | --- | --- | --- |
//! | `asleep` | fences on both sides | | each side's store to the other's load: see [`WakeFlag`] |

use crate::sync::Ordering::{Relaxed, SeqCst};
use crate::sync::{AtomicU32, fence, shared_struct};

shared_struct! {
    /// Where a parked kernel sleeps, and how others know that it does.
    ///
    /// The receiver says that it sleeps and then looks at its inbox once more; the sender publishes its message and then
    /// looks whether the receiver sleeps. Each writes one word and reads the other's, so each needs a sequentially
    /// consistent fence between its two steps: with both, at least one of them sees the other ("store buffering" in the
    /// litmus tests), and no wake-up is lost. Only senders to kernels that registered as parking pay for it.
    #[repr(align(64))]
    pub struct WakeFlag[][] {
        /// 1 while the kernel sleeps or is about to. Written by the kernel; cleared by whoever wakes it.
        asleep: AtomicU32,
    }
}

impl WakeFlag {
    /// For the kernel: says that it is about to sleep. It must look at its inbox once more before it does.
    pub fn fall_asleep(&self) {
        // Relaxed: ordered by the fence.
        self.asleep.store(1, Relaxed);
        // SeqCst [asleep]: the store above comes before the look at the inbox that follows; pairs with the fence in
        // `answer`.
        fence(SeqCst);
    }

    /// For the kernel: says that it is awake.
    pub fn wake_up(&self) {
        // Relaxed: a wake-up that comes too late finds nobody asleep, or wakes once too often.
        self.asleep.store(0, Relaxed);
    }

    /// For a sender, after its message is published: whether the kernel sleeps and must be woken by this sender. At
    /// most one of several senders gets a `true` for one sleep.
    #[must_use]
    pub fn answer(&self) -> bool {
        // SeqCst [asleep]: the message's stamp comes before the load below; pairs with the fence in `fall_asleep`.
        fence(SeqCst);
        // Relaxed: ordered by the fence. The plain load keeps the common case, awake, from taking the line.
        // Relaxed on the exchange: it only decides which sender makes the system call.
        self.asleep.load(Relaxed) == 1 && self.asleep.compare_exchange(1, 0, Relaxed, Relaxed).is_ok()
    }

    /// Whether the kernel said that it sleeps. A snapshot.
    #[must_use]
    pub fn is_asleep(&self) -> bool {
        // Relaxed: a snapshot.
        self.asleep.load(Relaxed) == 1
    }

    /// The word to sleep on: sleep while it is 1.
    #[cfg(not(loom))]
    #[must_use]
    pub const fn word(&self) -> &AtomicU32 {
        &self.asleep
    }
}
