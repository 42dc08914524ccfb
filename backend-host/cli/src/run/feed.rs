//! The first kernel's work: every chunk is sent until a receipt reports its delivery.
//!
//! At most `window` chunks are on their way at once. A receipt with a final status other than `Delivered` means that the
//! message was certainly not delivered, so the chunk can be sent again and still arrives exactly once.

use super::supply::Supply;
use core::fmt;
use core::time::Duration;
use k2k::{DeliveryStatus, ReceiptError, SendError};
use std::collections::VecDeque;
use std::time::Instant;
use std::{io, thread};

/// Time without a single delivery after which the mesh is given up. Longer than any message's deadline, so that each
/// message has ended by then.
const PATIENCE: Duration = Duration::from_secs(30);

/// Looks at an unchanged window before the thread gives up the core, and before it sleeps.
const SPINS: u32 = 64;
const YIELDS: u32 = 512;
const NAP: Duration = Duration::from_micros(50);

/// The way into the mesh.
pub(crate) trait Outbox {
    /// Sends a chunk and returns the message's sequence.
    fn send(&mut self, index: u64, chunk: &[u8]) -> Result<u64, SendError>;
    /// The outcome of a message.
    fn status(&mut self, sequence: u64) -> Result<DeliveryStatus, ReceiptError>;
}

/// Counts of the feeding kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fed {
    /// Chunks and bytes to be carried.
    pub(crate) chunks: u64,
    pub(crate) bytes: u64,
    /// Chunks whose receipt says delivered.
    pub(crate) delivered: u64,
    /// Messages sent again because a kernel on the way had no room.
    pub(crate) again_queue_full: u64,
    /// Messages sent again because their deadline had passed.
    pub(crate) again_timeout: u64,
}

/// Why not all chunks were delivered.
#[derive(Debug)]
pub(crate) enum FeedError {
    Read(io::Error),
    Refused {
        chunk: u64,
        why: SendError,
    },
    Failed {
        chunk: u64,
        status: DeliveryStatus,
    },
    NoReceipt {
        chunk: u64,
        why: ReceiptError,
    },
    Stuck {
        chunk: u64,
    },
    /// The receiving kernel stopped the job.
    Stopped,
}

impl fmt::Display for FeedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(e) => write!(f, "cannot read the input: {e}"),
            Self::Refused { chunk, why } => write!(f, "message {chunk} cannot be sent: {why}"),
            Self::Failed { chunk, status: DeliveryStatus::MaxHopsExceeded } => {
                write!(f, "message {chunk} was not delivered: hop limit exceeded; raise --hop-limit or leave it out")
            }
            Self::Failed { chunk, status } => write!(f, "message {chunk} was not delivered: {status}"),
            Self::NoReceipt { chunk, why } => write!(f, "message {chunk} has no receipt: {why}"),
            Self::Stuck { chunk } => write!(
                f,
                "nothing was delivered for {} s, and message {chunk} is the oldest that waits",
                PATIENCE.as_secs()
            ),
            Self::Stopped => f.write_str("the receiving kernel stopped the job"),
        }
    }
}

/// A chunk on its way.
#[derive(Debug)]
struct Place {
    index: u64,
    chunk: Vec<u8>,
    /// Sequence of the message; `None`: to be sent, again or for the first time.
    sequence: Option<u64>,
}

#[derive(Debug)]
struct Window {
    /// Places, the oldest first.
    places: VecDeque<Place>,
    /// Buffers to use again.
    spare: Vec<Vec<u8>>,
    size: usize,
    /// Whether some place may have to be sent.
    unsent: bool,
}

/// Carries all chunks of `supply`. `delivered` receives the bytes of chunks whose receipts have come; by returning `false`
/// it stops the job. The counts are in `fed`, also after an error.
pub(crate) fn feed(
    outbox: &mut dyn Outbox,
    supply: &mut Supply,
    window: usize,
    fed: &mut Fed,
    delivered: &mut dyn FnMut(u64) -> bool,
) -> Result<(), FeedError> {
    let mut window = Window { places: VecDeque::new(), spare: Vec::new(), size: window, unsent: false };
    let mut ended = false;
    let mut idle = 0u32;
    let mut idle_since = None;
    loop {
        let mut moved = window.send(outbox)?;
        while !ended && !window.unsent && window.places.len() < window.size {
            ended = !window.load(supply, fed)?;
            moved |= window.send(outbox)?;
        }
        let bytes = window.settle(outbox, fed)?;
        if !delivered(bytes) {
            return Err(FeedError::Stopped);
        }
        if ended && window.places.is_empty() {
            return Ok(());
        }
        if bytes > 0 {
            idle_since = None;
        }
        if moved || bytes > 0 {
            idle = 0;
            continue;
        }
        idle = idle.saturating_add(1);
        rest(idle);
        if idle > SPINS && idle_since.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
            return Err(FeedError::Stuck { chunk: window.places.front().map_or(0, |place| place.index) });
        }
    }
}

/// Waits a little: with the core, without it, or asleep.
fn rest(idle: u32) {
    if idle <= SPINS {
        core::hint::spin_loop();
    } else if idle <= SPINS + YIELDS {
        thread::yield_now();
    } else {
        thread::sleep(NAP);
    }
}

impl Window {
    /// Reads a chunk; `false` at the end.
    fn load(&mut self, supply: &mut Supply, fed: &mut Fed) -> Result<bool, FeedError> {
        let mut chunk = self.spare.pop().unwrap_or_default();
        let Some(index) = supply.next(&mut chunk).map_err(FeedError::Read)? else { return Ok(false) };
        fed.chunks += 1;
        fed.bytes += chunk.len() as u64;
        self.places.push_back(Place { index, chunk, sequence: None });
        self.unsent = true;
        Ok(true)
    }

    /// Sends all unsent places, until there is no room. `true` if any was sent.
    fn send(&mut self, outbox: &mut dyn Outbox) -> Result<bool, FeedError> {
        let mut moved = false;
        if !self.unsent {
            return Ok(moved);
        }
        for place in self.places.iter_mut().filter(|place| place.sequence.is_none()) {
            match outbox.send(place.index, &place.chunk) {
                Ok(sequence) => {
                    place.sequence = Some(sequence);
                    moved = true;
                }
                // Refused, and still in this window: there will be room when the next hop has received.
                Err(SendError::QueueFull { .. }) => return Ok(moved),
                Err(why) => return Err(FeedError::Refused { chunk: place.index, why }),
            }
        }
        self.unsent = false;
        Ok(moved)
    }

    /// Looks at receipts, the oldest message's first, until a pending receipt. Returns the number of delivered bytes.
    fn settle(&mut self, outbox: &mut dyn Outbox, fed: &mut Fed) -> Result<u64, FeedError> {
        let mut bytes = 0;
        while let Some(place) = self.places.front_mut() {
            let Some(sequence) = place.sequence else { break };
            match outbox.status(sequence) {
                Ok(DeliveryStatus::Pending) => break,
                Ok(DeliveryStatus::Delivered) => {
                    bytes += place.chunk.len() as u64;
                    fed.delivered += 1;
                    self.spare.extend(self.places.pop_front().map(|place| place.chunk));
                }
                Ok(status @ (DeliveryStatus::QueueFull | DeliveryStatus::Timeout)) => {
                    match status {
                        DeliveryStatus::QueueFull => fed.again_queue_full += 1,
                        _ => fed.again_timeout += 1,
                    }
                    place.sequence = None;
                    self.unsent = true;
                    break;
                }
                Ok(status) => return Err(FeedError::Failed { chunk: place.index, status }),
                Err(why) => return Err(FeedError::NoReceipt { chunk: place.index, why }),
            }
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k2k::KernelId;
    use std::io::{Seek, Write};

    const FULL: SendError = SendError::QueueFull { next_hop: KernelId::NONE };

    /// Says of the n-th message what `fate` says, and keeps what was delivered.
    struct Script<F> {
        fate: F,
        sent: Vec<(u64, Vec<u8>)>,
        refuse_every: usize,
        calls: usize,
        most: usize,
        settled: usize,
    }

    impl<F: Fn(usize) -> DeliveryStatus> Outbox for Script<F> {
        fn send(&mut self, index: u64, chunk: &[u8]) -> Result<u64, SendError> {
            self.calls += 1;
            if self.refuse_every > 0 && self.calls.is_multiple_of(self.refuse_every) {
                return Err(FULL);
            }
            self.sent.push((index, chunk.to_vec()));
            self.most = self.most.max(self.sent.len() - self.settled);
            Ok(self.sent.len() as u64)
        }

        fn status(&mut self, sequence: u64) -> Result<DeliveryStatus, ReceiptError> {
            self.settled += 1;
            Ok((self.fate)(sequence as usize))
        }
    }

    fn run(
        content: &[u8],
        refuse_every: usize,
        fate: impl Fn(usize) -> DeliveryStatus,
    ) -> (Result<(), FeedError>, Fed, Vec<u8>, usize) {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(content).and_then(|()| file.rewind()).expect("written");
        let mut supply = Supply::new(crate::run::files::Input::File(file), 2);
        let mut script = Script { fate, sent: Vec::new(), refuse_every, calls: 0, most: 0, settled: 0 };
        let mut fed = Fed::default();
        let mut told = 0;
        let result = feed(&mut script, &mut supply, 4, &mut fed, &mut |bytes| {
            told += bytes;
            true
        });
        let mut arrived: Vec<_> = (script.sent.iter().enumerate())
            .filter(|(i, _)| (script.fate)(i + 1) == DeliveryStatus::Delivered)
            .map(|(_, sent)| sent.clone())
            .collect();
        arrived.sort();
        if result.is_ok() {
            assert_eq!(told, content.len() as u64);
            assert_eq!(fed.delivered, fed.chunks);
        }
        (result, fed, arrived.into_iter().flat_map(|(_, chunk)| chunk).collect(), script.most)
    }

    #[test]
    fn everything_is_sent_once_when_nothing_fails() {
        let (result, fed, arrived, most) = run(b"abcdefghijk", 0, |_| DeliveryStatus::Delivered);
        assert!(result.is_ok());
        assert_eq!(arrived, b"abcdefghijk");
        assert_eq!((fed.chunks, fed.bytes, fed.again_queue_full, fed.again_timeout), (6, 11, 0, 0));
        assert_eq!(most, 4, "the window is used, and kept");
    }

    #[test]
    fn an_empty_supply_sends_nothing() {
        let (result, fed, ..) = run(b"", 0, |_| DeliveryStatus::Delivered);
        assert!(result.is_ok());
        assert_eq!(fed, Fed::default());
    }

    #[test]
    fn what_failed_is_sent_again_and_arrives_once() {
        let fate = |n: usize| match n % 3 {
            0 => DeliveryStatus::QueueFull,
            1 => DeliveryStatus::Timeout,
            _ => DeliveryStatus::Delivered,
        };
        for refuse_every in [0, 2, 3, 5] {
            let (result, fed, arrived, _) = run(b"abcdefghijklmnop", refuse_every, fate);
            assert!(result.is_ok(), "{result:?}");
            assert_eq!(arrived, b"abcdefghijklmnop");
            assert!(fed.again_queue_full > 0 && fed.again_timeout > 0);
        }
    }

    #[test]
    fn a_failure_that_would_come_again_ends_the_job_and_names_the_message() {
        let fate = |n: usize| if n == 3 { DeliveryStatus::MaxHopsExceeded } else { DeliveryStatus::Delivered };
        let (result, fed, ..) = run(b"abcdefgh", 0, fate);
        let error = result.expect_err("a limit that is too low").to_string();
        assert!(error.starts_with("message 2 was not delivered: hop limit exceeded"), "{error}");
        assert_eq!(fed.delivered, 2);
    }
}
