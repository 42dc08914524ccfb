//! iceoryx2's SPSC queue: two indices, neither cached nor padded.

use super::Shared;
use crate::element::Element;
use crate::queue::{Pop, Push, Queue, Sink};
use iceoryx2_bb_lock_free::spsc::queue;

pub struct Iceoryx2<const N: usize>;
pub struct Tx<E: Copy + 'static, const N: usize>(queue::Producer<'static, E, N>, Shared<queue::Queue<E, N>>);
pub struct Rx<E: Copy + 'static, const N: usize>(queue::Consumer<'static, E, N>, Shared<queue::Queue<E, N>>);

impl<E: Element, const N: usize> Queue<E> for Iceoryx2<N> {
    type Tx = Tx<E, N>;
    type Rx = Rx<E, N>;

    fn open(_: usize, _: usize) -> (Vec<Self::Tx>, Self::Rx) {
        let queue = Shared::new(queue::Queue::new());
        // SAFETY: each end keeps the queue alive for longer than itself.
        let lasting = unsafe { queue.lasting() };
        let tx = lasting.acquire_producer().expect("the first producer");
        let rx = lasting.acquire_consumer().expect("the first consumer");
        (vec![Tx(tx, queue.clone())], Rx(rx, queue))
    }
}

impl<E: Element, const N: usize> Push<E> for Tx<E, N> {
    #[inline(always)]
    fn push(&mut self, message: &E) -> bool {
        let _ = &self.1;
        self.0.push(message)
    }
}

impl<E: Element, const N: usize> Pop<E> for Rx<E, N> {
    #[inline(always)]
    fn pop<S: Sink<E>>(&mut self, sink: &mut S) -> bool {
        let _ = &self.1;
        self.0.pop().map(|message| sink.take(message)).is_some()
    }
}
