//! gil: SPSC, MPSC (a word per slot, backoff), and MPSC as one SPSC ring per producer ("sharded").

use crate::element::Element;
use crate::queue::{Pop, Push, Queue, Sink};
use core::num::NonZeroUsize;
use gil::{mpsc, spsc};

pub struct GilSpsc;
pub struct GilMpsc;
/// The capacity is divided among the producers.
pub struct GilSharded;

fn size(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).expect("a capacity")
}

impl<E: Element> Queue<E> for GilSpsc {
    type Tx = spsc::Sender<E>;
    type Rx = spsc::Receiver<E>;
    const BATCH: bool = true;

    fn open(capacity: usize, _: usize) -> (Vec<Self::Tx>, Self::Rx) {
        let (tx, rx) = spsc::channel(size(capacity));
        (vec![tx], rx)
    }
}

impl<E: Element> Queue<E> for GilMpsc {
    type Tx = mpsc::Sender<E>;
    type Rx = mpsc::Receiver<E>;

    fn open(capacity: usize, producers: usize) -> (Vec<Self::Tx>, Self::Rx) {
        let (tx, rx) = mpsc::channel(size(capacity));
        (vec![tx; producers], rx)
    }
}

impl<E: Element> Queue<E> for GilSharded {
    type Tx = mpsc::sharded::Sender<E>;
    type Rx = mpsc::sharded::Receiver<E>;

    fn open(capacity: usize, producers: usize) -> (Vec<Self::Tx>, Self::Rx) {
        let (tx, rx) = mpsc::sharded::channel(size(producers.next_power_of_two()), size(capacity / producers));
        let mut senders = vec![tx];
        while senders.len() < producers {
            senders.push(senders[0].clone().expect("a shard per producer"));
        }
        (senders, rx)
    }
}

macro_rules! push {
    ($($tx:ty),*) => {$(
        impl<E: Element> Push<E> for $tx {
            #[inline(always)]
            fn push(&mut self, message: &E) -> bool {
                self.try_send(*message).is_ok()
            }
        }
    )*};
}

macro_rules! pop {
    ($($rx:ty),*) => {$(
        impl<E: Element> Pop<E> for $rx {
            #[inline(always)]
            fn pop<S: Sink<E>>(&mut self, sink: &mut S) -> bool {
                self.try_recv().map(|message| sink.take(message)).is_some()
            }
        }
    )*};
}

push!(mpsc::Sender<E>, mpsc::sharded::Sender<E>);
pop!(mpsc::Receiver<E>, mpsc::sharded::Receiver<E>);

impl<E: Element> Push<E> for spsc::Sender<E> {
    #[inline(always)]
    fn push(&mut self, message: &E) -> bool {
        self.try_send(*message).is_ok()
    }

    #[inline(always)]
    fn push_batch(&mut self, messages: &[E]) -> usize {
        let free = self.write_buffer();
        let count = free.len().min(messages.len());
        for (place, message) in free.iter_mut().zip(messages) {
            place.write(*message);
        }
        // SAFETY: the first `count` places were written above.
        unsafe { self.commit(count) };
        count
    }
}

impl<E: Element> Pop<E> for spsc::Receiver<E> {
    #[inline(always)]
    fn pop<S: Sink<E>>(&mut self, sink: &mut S) -> bool {
        self.try_recv().map(|message| sink.take(message)).is_some()
    }

    /// In place: the crate lends the slice.
    #[inline(always)]
    fn pop_batch<S: Sink<E>>(&mut self, sink: &mut S, most: usize) -> usize {
        let mut guard = self.read_guard();
        let count = guard.len().min(most);
        guard.as_slice()[..count].iter().for_each(|message| sink.look(message));
        guard.advance(count);
        count
    }
}
