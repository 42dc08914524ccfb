//! heapless: an SPSC queue of two indices, and Vyukov's MPMC queue. Both without padding, made for microcontrollers.

use super::Shared;
use crate::element::Element;
use crate::queue::{Pop, Push, Queue, Sink};
use heapless::{mpmc, spsc};

/// `N` is one more than its capacity; that of the column is rounded down by one.
pub struct HeaplessSpsc<const N: usize>;
pub struct SpscTx<E: 'static, const N: usize>(spsc::Producer<'static, E>, Keep<E, N>);
pub struct SpscRx<E: 'static, const N: usize>(spsc::Consumer<'static, E>, Keep<E, N>);
type Keep<E, const N: usize> = Shared<spsc::Queue<E, N>>;

impl<E: Element, const N: usize> Queue<E> for HeaplessSpsc<N> {
    type Tx = SpscTx<E, N>;
    type Rx = SpscRx<E, N>;

    fn open(_: usize, _: usize) -> (Vec<Self::Tx>, Self::Rx) {
        // SAFETY: zeroed storage and indices are the empty queue; the storage itself is `MaybeUninit`.
        let queue: Shared<spsc::Queue<E, N>> = unsafe { Shared::zeroed() };
        // SAFETY: this is the only reference, and it is split once.
        let (tx, rx) = unsafe { queue.exclusive() }.split();
        (vec![SpscTx(tx, queue.clone())], SpscRx(rx, queue))
    }
}

impl<E: Element, const N: usize> Push<E> for SpscTx<E, N> {
    #[inline(always)]
    fn push(&mut self, message: &E) -> bool {
        let _ = &self.1;
        self.0.enqueue(*message).is_ok()
    }
}

impl<E: Element, const N: usize> Pop<E> for SpscRx<E, N> {
    #[inline(always)]
    fn pop<S: Sink<E>>(&mut self, sink: &mut S) -> bool {
        let _ = &self.1;
        self.0.dequeue().map(|message| sink.take(message)).is_some()
    }
}

pub struct HeaplessMpmc<const N: usize>;
pub struct MpmcEnd<E: 'static, const N: usize>(Shared<mpmc::Queue<E, N>>);

impl<E: Element, const N: usize> Queue<E> for HeaplessMpmc<N> {
    type Tx = MpmcEnd<E, N>;
    type Rx = MpmcEnd<E, N>;

    fn open(_: usize, producers: usize) -> (Vec<Self::Tx>, Self::Rx) {
        #[expect(deprecated, reason = "deprecated because a stalled producer stops it, which does not happen here")]
        let queue = Shared::new(mpmc::Queue::new());
        ((0..producers).map(|_| MpmcEnd(queue.clone())).collect(), MpmcEnd(queue))
    }
}

impl<E: Element, const N: usize> Push<E> for MpmcEnd<E, N> {
    #[inline(always)]
    fn push(&mut self, message: &E) -> bool {
        self.0.enqueue(*message).is_ok()
    }
}

impl<E: Element, const N: usize> Pop<E> for MpmcEnd<E, N> {
    #[inline(always)]
    fn pop<S: Sink<E>>(&mut self, sink: &mut S) -> bool {
        self.0.dequeue().map(|message| sink.take(message)).is_some()
    }
}
