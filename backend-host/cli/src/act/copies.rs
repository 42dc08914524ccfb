//! Copies of messages, from the tap to the writing thread.
//!
//! The tap never waits for the writer, whose output may be a slow terminal or an unread pipe: a copy without room is left
//! out, and counted.

use k2k::Header;
use k2k::Message;
use k2k::k2k_core::sync::AtomicU64;
use k2k::k2k_core::sync::Ordering::Relaxed;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel as unbounded};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Bytes of copies that may wait for the writer.
const ROOM: u64 = 64 << 20;

/// Approximate bytes of a copy beside its payload.
const FIXED: u64 = 192;

/// A message, as found by the tap.
#[derive(Clone, Debug)]
pub(super) struct Copied {
    /// When the tap saw the message, ns since 1970.
    pub(super) wall_time_ns: u64,
    /// When the tap saw the message, ns since the tap began, on a clock that cannot be set.
    pub(super) offset_ns: u64,
    pub(super) header: Header,
    pub(super) payload: Box<[u8]>,
}

impl Copied {
    const fn room(&self) -> u64 {
        FIXED + self.payload.len() as u64
    }
}

/// The tap's end.
#[derive(Debug)]
pub(super) struct Tape {
    began: Instant,
    copies: Sender<Copied>,
    /// Bytes put in; `taken`: bytes taken out by the writer.
    used: u64,
    taken: Arc<AtomicU64>,
    pub(super) left_out: u64,
}

/// The writer's end.
#[derive(Debug)]
pub(super) struct Copies {
    copies: Receiver<Copied>,
    taken: Arc<AtomicU64>,
}

/// Both ends.
pub(super) fn channel() -> (Tape, Copies) {
    let (sender, receiver) = unbounded();
    let taken = Arc::new(AtomicU64::new(0));
    let tape = Tape { began: Instant::now(), copies: sender, used: 0, taken: Arc::clone(&taken), left_out: 0 };
    (tape, Copies { copies: receiver, taken })
}

/// Ns since 1970.
pub(super) fn wall_time_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
}

impl Tape {
    /// Hands a copy to the writer, if there is room; `false` once the writer has ended.
    pub(super) fn put(&mut self, message: &Message<65472>) -> bool {
        let copy = Copied {
            wall_time_ns: wall_time_ns(),
            offset_ns: self.began.elapsed().as_nanos() as u64,
            header: message.header,
            payload: message.payload().into(),
        };
        // Relaxed: the number only grows; an old value leaves less room.
        if self.used - self.taken.load(Relaxed) + copy.room() > ROOM {
            self.left_out += 1;
            // The writer's end holds the second reference.
            return Arc::strong_count(&self.taken) > 1;
        }
        self.used += copy.room();
        self.copies.send(copy).is_ok()
    }
}

impl Copies {
    /// The next copy; `None` when the tap has ended. `waits` is called before a wait for a copy.
    pub(super) fn next<E>(&self, waits: impl FnOnce() -> Result<(), E>) -> Result<Option<Copied>, E> {
        let copy = match self.copies.try_recv() {
            Ok(copy) => Some(copy),
            Err(_) => {
                waits()?;
                self.copies.recv().ok()
            }
        };
        if let Some(copy) = &copy {
            // Relaxed: the tap only compares the number. This thread alone writes it.
            self.taken.store(self.taken.load(Relaxed) + copy.room(), Relaxed);
        }
        Ok(copy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_without_room_are_left_out_and_counted() {
        let (mut tape, copies) = channel();
        let message = Message::from_bytes(1, &[0; 65472]).unwrap();
        let fit = ROOM / (FIXED + 65472);
        for _ in 0..fit + 3 {
            assert!(tape.put(&message));
        }
        assert_eq!(tape.left_out, 3);
        assert!(copies.next(|| Err("nothing waits")).unwrap().is_some());
        assert!(tape.put(&message));
        assert_eq!(tape.left_out, 3);
        drop(copies);
        assert!(!tape.put(&message), "the writer has ended");
    }
}
