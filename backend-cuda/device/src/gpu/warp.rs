//! The threads of a warp as one.

use super::thread::{lane_index, thread_index, threads};

// LLVM's intrinsics rather than `asm!`: it knows that they are convergent, and does not copy them into both arms of a
// branch, where the two halves of a warp would wait for one another at different places.
unsafe extern "C" {
    #[link_name = "llvm.nvvm.bar.warp.sync"]
    fn bar_warp_sync(mask: u32);
}
#[cfg(not(k2k_rust_cuda))]
unsafe extern "C" {
    #[link_name = "llvm.nvvm.vote.ballot.sync"]
    fn vote_ballot_sync(mask: u32, yes: bool) -> u32;
    #[link_name = "llvm.nvvm.shfl.sync.idx.i32"]
    fn shfl_sync_idx(mask: u32, value: u32, lane: u32, clamp: u32) -> u32;
    #[link_name = "llvm.nvvm.shfl.sync.bfly.i32"]
    fn shfl_sync_bfly(mask: u32, value: u32, lane_mask: u32, clamp: u32) -> u32;
}

// As rust-cuda's own `cuda_std` has them: its LLVM is older than those intrinsics.
#[cfg(k2k_rust_cuda)]
use inline::{shfl_sync_bfly, shfl_sync_idx, vote_ballot_sync};
#[cfg(k2k_rust_cuda)]
mod inline {
    use core::arch::asm;

    /// # Safety
    /// All threads of the mask call this.
    #[inline(always)]
    pub(super) unsafe fn vote_ballot_sync(mask: u32, yes: bool) -> u32 {
        let votes: u32;
        // SAFETY: passed on.
        unsafe {
            asm!(
                "{{ .reg .pred %yes; setp.ne.u32 %yes, {}, 0; vote.sync.ballot.b32 {}, %yes, {}; }}",
                in(reg32) u32::from(yes), out(reg32) votes, in(reg32) mask,
            );
        }
        votes
    }

    macro_rules! shuffle {
        ($name:ident, $mode:literal) => {
            /// # Safety
            /// All threads of the mask call this.
            #[inline(always)]
            pub(super) unsafe fn $name(mask: u32, value: u32, lane: u32, clamp: u32) -> u32 {
                let other: u32;
                // SAFETY: passed on.
                unsafe {
                    asm!(
                        concat!("shfl.sync.", $mode, ".b32 {}, {}, {}, {}, {};"),
                        out(reg32) other, in(reg32) value, in(reg32) lane, in(reg32) clamp, in(reg32) mask,
                    );
                }
                other
            }
        };
    }
    shuffle!(shfl_sync_idx, "idx");
    shuffle!(shfl_sync_bfly, "bfly");
}

/// Up to 32 threads that go through a protocol together. Each of them has a copy of this and calls the same operations
/// in the same order.
#[derive(Clone, Copy, Debug)]
pub struct Warp {
    lane: u32,
    mask: u32,
}

impl Warp {
    /// The warp of the calling thread. Its threads are those that the block was launched with.
    #[inline(always)]
    #[must_use]
    pub fn this() -> Self {
        let lane = lane_index();
        // The last warp of a block may have fewer threads. Blocks have one dimension.
        let first = thread_index() - lane;
        let size = (threads() - first).min(32);
        Self { lane, mask: u32::MAX >> (32 - size) }
    }

    /// Index of this thread in the warp.
    #[inline(always)]
    #[must_use]
    pub const fn lane(&self) -> u32 {
        self.lane
    }

    /// Threads in the warp.
    #[inline(always)]
    #[must_use]
    pub const fn size(&self) -> u32 {
        self.mask.count_ones()
    }

    /// Whether this thread is the one that acts for all.
    #[inline(always)]
    #[must_use]
    pub const fn is_leader(&self) -> bool {
        self.lane == 0
    }

    /// Waits for all threads of the warp. What each did before is visible to all after it.
    #[inline(always)]
    pub fn sync(&self) {
        // SAFETY: all threads of the mask call this.
        unsafe { bar_warp_sync(self.mask) };
    }

    /// A bit per thread: its answer.
    #[inline(always)]
    #[must_use]
    pub fn ballot(&self, yes: bool) -> u32 {
        // SAFETY: all threads of the mask call this.
        unsafe { vote_ballot_sync(self.mask, yes) }
    }

    /// Whether any thread says yes.
    #[inline(always)]
    #[must_use]
    pub fn any(&self, yes: bool) -> bool {
        self.ballot(yes) != 0
    }

    /// The leader's value, to all.
    #[inline(always)]
    #[must_use]
    pub fn leaders(&self, value: u32) -> u32 {
        // SAFETY: all threads of the mask call this.
        unsafe { shfl_sync_idx(self.mask, value, 0, 31) }
    }

    /// The smallest value of all threads.
    #[inline(always)]
    #[must_use]
    pub fn min(&self, value: u32) -> u32 {
        let mut min = value;
        for by in [16u32, 8, 4, 2, 1] {
            // SAFETY: all threads of the mask call this.
            let other = unsafe { shfl_sync_bfly(self.mask, min, by, 31) };
            // A lane that is not in the warp has no value.
            if self.mask & 1 << (self.lane ^ by) != 0 {
                min = min.min(other);
            }
        }
        min
    }
}

// SAFETY: the threads of a warp call the same operations in the same order, each of which waits for all of the mask
// (`.sync`); `bar.warp.sync` orders their memory accesses.
unsafe impl k2k_core::ring::Group for Warp {
    #[inline(always)]
    fn rank(&self) -> u32 {
        self.lane
    }

    #[inline(always)]
    fn size(&self) -> u32 {
        Self::size(self)
    }

    #[inline(always)]
    fn ballot(&self, yes: bool) -> u32 {
        Self::ballot(self, yes)
    }

    #[inline(always)]
    fn min(&self, value: u32) -> u32 {
        Self::min(self, value)
    }

    #[inline(always)]
    fn sync(&self) {
        Self::sync(self);
    }
}
