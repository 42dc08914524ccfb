//! Work that one kernel shares out: a leader calls, every hand does its share, the leader goes on when all have.
//!
//! ```text
//!   leader     job ──> called = n ······················ done[0] = done[1] = n ──> the next job, or the handler
//!                           │                               ↑
//!   hand 0, 1               └──> a copy of the job, a share ┘
//! ```
//!
//! In a GPU block the kernel's own thread leads and each further warp is a hand; the words lie in the block's
//! workspace.
//!
//! # Who may touch what
//!
//! 1. `called`: written by the leader, read by the hands. The number of the job, from 1; all ones when there are no
//!    more.
//! 2. `job`: the leader's while every hand is done with the last job; then the hands', to read, until they are done.
//! 3. `done[i]`: written by hand `i`, read by the leader.
//!
//! # Synchronisation
//!
//! | label | release | acquire | what becomes visible |
//! | --- | --- | --- | --- |
//! | `crew-called` | leader's store of `called` | hand's load | the job, and everything that the leader did before |
//! | `share-done` | hand's store of `done` | leader's load | what the hand did for the job, and that it is done reading it |
//!
//! # Progress
//!
//! No call waits. A hand that never comes back keeps the leader from going on: its own code is at fault, and a hang
//! report shows the kernel in its handler.

use crate::sync::Ordering::{Acquire, Relaxed, Release};
use crate::sync::{AtomicU32, AtomicU64, ReachesHere, SharedCell, shared_struct};
use bytemuck::AnyBitPattern;

/// Stands in the place of a job's number when the hands may leave.
const DISMISSED: u32 = u32::MAX;

shared_struct! {
    /// What a leader and up to `HANDS` hands share. Zeroed memory is a board without a job.
    #[repr(align(128))]
    pub struct Board[J: AnyBitPattern + Send, const HANDS: usize,][J, HANDS,] in S {
        called: AtomicU32<S>,
        done: [AtomicU32<S>; HANDS],
        job: Job<J>,
    }
}

shared_struct! {
    /// A job where a message's body would be: behind the first word of a line, as bodies are copied.
    #[repr(align(64))]
    struct Job[J: AnyBitPattern + Send,][J,] {
        _zero: AtomicU64,
        body: SharedCell<J>,
    }
}

/// The leader's side of a [`Board`].
#[derive(Debug)]
pub struct Leader<'b, J: AnyBitPattern + Send, const HANDS: usize, S: ReachesHere> {
    board: &'b Board<J, HANDS, S>,
    hands: usize,
    number: u32,
    /// All hands were seen to be done with job `number`.
    all_done: bool,
}

/// A hand's side of a [`Board`].
#[derive(Debug)]
pub struct Hand<'b, J: AnyBitPattern + Send, const HANDS: usize, S: ReachesHere> {
    board: &'b Board<J, HANDS, S>,
    hand: usize,
    number: u32,
}

/// What a hand finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call<J> {
    /// Nothing new.
    Wait,
    /// A job: do a share of it, then say [`done`](Hand::done).
    Work(J),
    /// There will be none any more.
    Dismissed,
}

impl<J: AnyBitPattern + Send, const HANDS: usize, S: ReachesHere> Board<J, HANDS, S> {
    /// The leader, of `hands` hands (`HANDS` at most).
    ///
    /// # Safety
    /// The board was zero, there is one leader, and one [`hand`](Self::hand) of each number below `hands`.
    pub unsafe fn leader(&self, hands: usize) -> Leader<'_, J, HANDS, S> {
        Leader { board: self, hands: hands.min(HANDS), number: 0, all_done: true }
    }

    /// Hand number `hand`.
    ///
    /// # Safety
    /// As for [`leader`](Self::leader).
    pub unsafe fn hand(&self, hand: usize) -> Hand<'_, J, HANDS, S> {
        Hand { board: self, hand, number: 0 }
    }
}

impl<J: AnyBitPattern + Send, const HANDS: usize, S: ReachesHere> Leader<'_, J, HANDS, S> {
    /// Calls all hands to a job; `false`, and nothing has changed, unless they are [done](Self::all_done) with the last
    /// one.
    #[must_use]
    pub fn call(&mut self, job: &J) -> bool {
        if !self.all_done() {
            return false;
        }
        self.all_done = false;
        // SAFETY: rule 2: the hands are done with the last job.
        unsafe { self.board.job.body.body().write(job, size_of::<J>()) };
        self.number = self.number.wrapping_add(1) % DISMISSED;
        // Release [crew-called]: the job, and what it points to, are visible to a hand that sees the number.
        self.board.called.store(self.number, Release);
        true
    }

    /// Whether every hand has done its share of the last job.
    pub fn all_done(&mut self) -> bool {
        if !self.all_done {
            let number = self.number;
            // Acquire [share-done]: what the hands did is visible, and they no longer read the job.
            self.all_done = self.board.done.iter().take(self.hands).all(|done| done.load(Acquire) == number);
        }
        self.all_done
    }

    /// Lets the hands leave.
    pub fn dismiss(self) {
        // Release [crew-called]: everything that the leader did is visible to hands that leave.
        self.board.called.store(DISMISSED, Release);
    }
}

impl<J: AnyBitPattern + Send, const HANDS: usize, S: ReachesHere> Hand<'_, J, HANDS, S> {
    /// Whether there is something to [look](Self::look) at.
    pub fn has_call(&self) -> bool {
        // Relaxed: a hint. Whoever follows it looks.
        self.board.called.load(Relaxed) != self.number
    }

    /// Looks for a job.
    pub fn look(&mut self) -> Call<J> {
        // Acquire [crew-called]: the job, and what it points to, are visible.
        match self.board.called.load(Acquire) {
            DISMISSED => Call::Dismissed,
            number if number == self.number => Call::Wait,
            number => {
                self.number = number;
                // SAFETY: rule 2: the leader has called, and waits for this hand before it writes again.
                Call::Work(unsafe { self.board.job.body.body().read() })
            }
        }
    }

    /// Says that this hand's share is done.
    pub fn done(&mut self) {
        if let Some(done) = self.board.done.get(self.hand) {
            // Release [share-done]: what this hand did is visible to the leader, which may then write the next job.
            done.store(self.number, Release);
        }
    }
}

#[cfg(not(k2k_loom))]
const _: () = assert!(size_of::<Board<u64, 31>>() == 256);

#[cfg(test)]
#[cfg(not(k2k_loom))]
mod tests {
    use super::*;
    use crate::sync::System;

    fn board<J: AnyBitPattern + Send, const HANDS: usize>() -> Board<J, HANDS, System> {
        // SAFETY: `Shared`: zero is the idle state.
        unsafe { core::mem::zeroed() }
    }

    /// As long as a message's body, which is copied in larger pieces than others.
    fn carries<const WORDS: usize, const HANDS: usize>() {
        let board = board::<[u64; WORDS], HANDS>();
        // SAFETY: one leader, one hand.
        let (mut leader, mut hand) = unsafe { (board.leader(1), board.hand(0)) };
        assert!(leader.call(&[7; WORDS]));
        assert_eq!(hand.look(), Call::Work([7; WORDS]));
    }

    #[test]
    fn a_job_of_any_length_is_carried_by_a_board_of_any_size() {
        carries::<7, 31>();
        carries::<15, 1>();
        carries::<1, 2>();
    }

    #[test]
    fn a_job_is_not_written_over_while_a_hand_may_read_it() {
        let board = board::<u64, 3>();
        // SAFETY: one leader, one hand.
        let (mut leader, mut hand) = unsafe { (board.leader(1), board.hand(0)) };
        assert!(leader.call(&1));
        assert!(!leader.call(&2));
        assert_eq!(hand.look(), Call::Work(1));
        hand.done();
        assert!(leader.call(&2));
        assert_eq!(hand.look(), Call::Work(2));
    }
}
