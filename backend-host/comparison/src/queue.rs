//! What a competitor has to offer, and what is done with the messages that it delivers.

use crate::element::Element;
use core::hint::black_box;
use std::time::{Duration, Instant};

/// A bounded queue of `E`. One that has room for a single producer is only asked for one.
pub trait Queue<E: Element>: 'static {
    type Tx: Push<E>;
    type Rx: Pop<E>;
    /// Whether both ends have calls for many messages.
    const BATCH: bool = false;
    /// Whether a receiver (and a sender before a full queue) sleeps in the system instead of polling.
    const PARKS: bool = false;

    /// An empty queue for that many messages in all, with that many producing ends.
    fn open(capacity: usize, producers: usize) -> (Vec<Self::Tx>, Self::Rx);
}

/// A producing end.
pub trait Push<E: Element>: Send + 'static {
    /// `false` if the queue is full.
    fn push(&mut self, message: &E) -> bool;

    /// Returns how many were taken.
    #[inline(always)]
    fn push_batch(&mut self, messages: &[E]) -> usize {
        messages.iter().take_while(|message| self.push(message)).count()
    }

    /// Waits for room: as the competitor does it, where it parks.
    #[inline(always)]
    fn push_waiting(&mut self, message: &E, patience: &mut Patience) {
        while !self.push(message) {
            patience.miss();
        }
        patience.hit();
    }
}

/// The consuming end.
pub trait Pop<E: Element>: Send + 'static {
    /// Hands the oldest message to `sink`; `false` if there is none.
    fn pop<S: Sink<E>>(&mut self, sink: &mut S) -> bool;

    /// Returns how many were handed over.
    #[inline(always)]
    fn pop_batch<S: Sink<E>>(&mut self, sink: &mut S, most: usize) -> usize {
        (0..most).take_while(|_| self.pop(sink)).count()
    }

    /// Waits for a message: as the competitor does it, where it parks.
    #[inline(always)]
    fn pop_waiting<S: Sink<E>>(&mut self, sink: &mut S, patience: &mut Patience) {
        while !self.pop(sink) {
            patience.miss();
        }
        patience.hit();
    }
}

/// Whom a message is handed to. A queue that returns messages by value calls [`take`](Self::take), one that only lends
/// them [`look`](Self::look).
pub trait Sink<E: Element> {
    /// A whole message, which was copied out.
    fn take(&mut self, message: E);
    /// A message in place: one word per line is read.
    fn look(&mut self, message: &E);
    /// A run of messages that was copied out.
    fn take_all(&mut self, messages: &[E]);
    /// The bytes of a message, behind a pointer.
    fn bytes(&mut self, bytes: &[u8]);
    /// A queue that carries no contents passes the number on.
    fn number(&mut self, number: u64);
}

/// The timed passes' sink: sees to it that the message really is in memory here.
#[derive(Default)]
pub struct Seen;

#[inline(always)]
fn touch(bytes: &[u8]) {
    black_box(bytes.chunks(64).map(|line| u64::from(line[0])).sum::<u64>());
}

impl<E: Element> Sink<E> for Seen {
    #[inline(always)]
    fn take(&mut self, message: E) {
        black_box(&message);
    }

    #[inline(always)]
    fn look(&mut self, message: &E) {
        touch(bytemuck::bytes_of(message));
    }

    #[inline(always)]
    fn take_all(&mut self, messages: &[E]) {
        black_box(messages);
    }

    #[inline(always)]
    fn bytes(&mut self, bytes: &[u8]) {
        touch(bytes);
    }

    #[inline(always)]
    fn number(&mut self, number: u64) {
        black_box(number);
    }
}

/// Bits of a number that say whose it is: see [`numbering`].
const PRODUCER_SHIFT: u32 = 48;

/// Number `i` of a producer.
#[inline(always)]
pub fn numbering(producer: usize, i: u64) -> u64 {
    (producer as u64) << PRODUCER_SHIFT | i
}

/// The checking pass's sink: each producer's messages have to come complete, in order and unharmed.
pub struct Verify {
    next: Vec<u64>,
    pub wrong: Option<String>,
}

impl Verify {
    pub fn new(producers: usize) -> Self {
        Self { next: vec![0; producers], wrong: None }
    }

    fn check(&mut self, number: u64, intact: bool) {
        let (producer, i) = ((number >> PRODUCER_SHIFT) as usize, number & ((1 << PRODUCER_SHIFT) - 1));
        match self.next.get_mut(producer) {
            Some(next) if *next == i && intact => *next += 1,
            Some(next) if *next == i => {
                self.wrong.get_or_insert(format!("message {i} of producer {producer} has wrong contents"));
            }
            Some(next) => {
                self.wrong.get_or_insert(format!("message {i} of producer {producer} came instead of {next}"));
            }
            None => {
                self.wrong.get_or_insert(format!("there is no producer {producer}"));
            }
        }
    }
}

impl<E: Element> Sink<E> for Verify {
    fn take(&mut self, message: E) {
        self.check(message.number(), message.intact());
    }

    fn look(&mut self, message: &E) {
        self.check(message.number(), message.intact());
    }

    fn take_all(&mut self, messages: &[E]) {
        for message in messages {
            self.check(message.number(), message.intact());
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        let message: E = bytemuck::pod_read_unaligned(bytes);
        self.check(message.number(), message.intact());
    }

    fn number(&mut self, number: u64) {
        self.check(number, true);
    }
}

/// What to do when there is nothing to do: poll without a pause while every thread has a processor, else yield after 64
/// polls. Gives up (with a panic, which marks the competitor as failed) after some seconds without progress.
pub struct Patience {
    yields: bool,
    misses: u32,
    since: Option<Instant>,
}

const LIMIT: Duration = Duration::from_secs(8);

impl Patience {
    pub fn new(yields: bool) -> Self {
        Self { yields, misses: 0, since: None }
    }

    #[inline(always)]
    pub fn hit(&mut self) {
        self.misses = 0;
    }

    #[inline(always)]
    pub fn miss(&mut self) {
        self.misses = self.misses.wrapping_add(1);
        if self.yields && self.misses >= 64 {
            std::thread::yield_now();
        }
        if self.misses.is_multiple_of(1 << 18) {
            self.look_at_the_clock();
        }
    }

    #[cold]
    fn look_at_the_clock(&mut self) {
        // Two looks, because nobody resets `since`: many short waits are no long one.
        match self.since {
            Some(since) if since.elapsed() > LIMIT && self.misses > 1 << 20 => panic!("no progress for {LIMIT:?}"),
            Some(_) if self.misses > 1 << 18 => {}
            _ => self.since = Some(Instant::now()),
        }
    }
}
