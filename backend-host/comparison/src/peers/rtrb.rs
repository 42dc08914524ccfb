//! rtrb: two indices, the other side's cached; slices for batches.

use crate::element::Element;
use crate::queue::{Pop, Push, Queue, Sink};

pub struct Rtrb;
pub struct Rx<E>(rtrb::Consumer<E>, Box<[E]>);

impl<E: Element> Queue<E> for Rtrb {
    type Tx = rtrb::Producer<E>;
    type Rx = Rx<E>;
    const BATCH: bool = true;

    fn open(capacity: usize, _: usize) -> (Vec<Self::Tx>, Self::Rx) {
        let (tx, rx) = rtrb::RingBuffer::new(capacity);
        (vec![tx], Rx(rx, super::batch_buffer()))
    }
}

impl<E: Element> Push<E> for rtrb::Producer<E> {
    #[inline(always)]
    fn push(&mut self, message: &E) -> bool {
        Self::push(self, *message).is_ok()
    }

    #[inline(always)]
    fn push_batch(&mut self, messages: &[E]) -> usize {
        self.push_partial_slice(messages).0.len()
    }
}

impl<E: Element> Pop<E> for Rx<E> {
    #[inline(always)]
    fn pop<S: Sink<E>>(&mut self, sink: &mut S) -> bool {
        self.0.pop().map(|message| sink.take(message)).is_ok()
    }

    #[inline(always)]
    fn pop_batch<S: Sink<E>>(&mut self, sink: &mut S, most: usize) -> usize {
        let taken = self.0.pop_partial_slice(&mut self.1[..most]).0;
        sink.take_all(taken);
        taken.len()
    }
}
