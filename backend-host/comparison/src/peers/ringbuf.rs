//! ringbuf: two indices, the other side's cached; slices for batches.

use crate::element::Element;
use crate::queue::{Pop, Push, Queue, Sink};
use ringbuf::traits::{Consumer, Producer, Split};
use ringbuf::{HeapCons, HeapProd, HeapRb};

pub struct Ringbuf;
pub struct Rx<E: Element>(HeapCons<E>, Box<[E]>);

impl<E: Element> Queue<E> for Ringbuf {
    type Tx = HeapProd<E>;
    type Rx = Rx<E>;
    const BATCH: bool = true;

    fn open(capacity: usize, _: usize) -> (Vec<Self::Tx>, Self::Rx) {
        let (tx, rx) = HeapRb::new(capacity).split();
        (vec![tx], Rx(rx, super::batch_buffer()))
    }
}

impl<E: Element> Push<E> for HeapProd<E> {
    #[inline(always)]
    fn push(&mut self, message: &E) -> bool {
        self.try_push(*message).is_ok()
    }

    #[inline(always)]
    fn push_batch(&mut self, messages: &[E]) -> usize {
        self.push_slice(messages)
    }
}

impl<E: Element> Pop<E> for Rx<E> {
    #[inline(always)]
    fn pop<S: Sink<E>>(&mut self, sink: &mut S) -> bool {
        self.0.try_pop().map(|message| sink.take(message)).is_some()
    }

    #[inline(always)]
    fn pop_batch<S: Sink<E>>(&mut self, sink: &mut S, most: usize) -> usize {
        let count = self.0.pop_slice(&mut self.1[..most]);
        sink.take_all(&self.1[..count]);
        count
    }
}
