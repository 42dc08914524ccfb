//! Jobs that the threads of a block do together.

use bytemuck::Pod;

/// A job that is cut into parts: one per thread of a block. It is copied to each of them.
pub trait Job: Pod + Send + PartialEq {
    /// Does part `member` of `members`. What members write they keep apart by their numbers.
    fn part(&self, member: u32, members: u32);

    /// Does all parts, one after the other, on one thread.
    fn alone(&self, members: u32) {
        for member in 0..members {
            self.part(member, members);
        }
    }
}
