//! Jobs that the threads of a block do together.

use bytemuck::Pod;

/// A job that is cut into shares: one per thread of a block. It is copied to each of them.
pub trait Share: Pod + Send + PartialEq {
    /// Does share `member` of `members`. What members write they keep apart by their numbers.
    fn share(&self, member: u32, members: u32);

    /// Does all shares, one after the other: what a crew does, on one thread.
    fn alone(&self, members: u32) {
        for member in 0..members {
            self.share(member, members);
        }
    }
}
