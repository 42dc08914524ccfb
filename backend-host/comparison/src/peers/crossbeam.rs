//! crossbeam-queue's `ArrayQueue`: Vyukov's MPMC queue.

use crate::element::Element;
use crate::queue::{Pop, Push, Queue, Sink};
use crossbeam_queue::ArrayQueue;
use std::sync::Arc;

pub struct Crossbeam;

impl<E: Element> Queue<E> for Crossbeam {
    type Tx = Arc<ArrayQueue<E>>;
    type Rx = Arc<ArrayQueue<E>>;

    fn open(capacity: usize, producers: usize) -> (Vec<Self::Tx>, Self::Rx) {
        let queue = Arc::new(ArrayQueue::new(capacity));
        (vec![queue.clone(); producers], queue)
    }
}

impl<E: Element> Push<E> for Arc<ArrayQueue<E>> {
    #[inline(always)]
    fn push(&mut self, message: &E) -> bool {
        ArrayQueue::push(self, *message).is_ok()
    }
}

impl<E: Element> Pop<E> for Arc<ArrayQueue<E>> {
    #[inline(always)]
    fn pop<S: Sink<E>>(&mut self, sink: &mut S) -> bool {
        ArrayQueue::pop(self).map(|message| sink.take(message)).is_some()
    }
}
