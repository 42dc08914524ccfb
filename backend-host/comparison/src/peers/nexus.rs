//! nexus-queue: an SPSC ring with cached indices, and an MPSC ring with a turn counter per slot.

use crate::element::Element;
use crate::queue::{Pop, Push, Queue, Sink};
use nexus_queue::{mpsc, spsc};

pub struct NexusSpsc;
pub struct NexusMpsc;

impl<E: Element> Queue<E> for NexusSpsc {
    type Tx = spsc::Producer<E>;
    type Rx = spsc::Consumer<E>;

    fn open(capacity: usize, _: usize) -> (Vec<Self::Tx>, Self::Rx) {
        let (tx, rx) = spsc::ring_buffer(capacity);
        (vec![tx], rx)
    }
}

impl<E: Element> Queue<E> for NexusMpsc {
    type Tx = mpsc::Producer<E>;
    type Rx = mpsc::Consumer<E>;

    fn open(capacity: usize, producers: usize) -> (Vec<Self::Tx>, Self::Rx) {
        let (tx, rx) = mpsc::ring_buffer(capacity);
        (vec![tx; producers], rx)
    }
}

macro_rules! ends {
    ($($kind:ident)*) => {$(
        impl<E: Element> Push<E> for $kind::Producer<E> {
            #[inline(always)]
            fn push(&mut self, message: &E) -> bool {
                Self::push(self, *message).is_ok()
            }
        }

        impl<E: Element> Pop<E> for $kind::Consumer<E> {
            #[inline(always)]
            fn pop<S: Sink<E>>(&mut self, sink: &mut S) -> bool {
                Self::pop(self).map(|message| sink.take(message)).is_some()
            }
        }
    )*};
}

ends!(spsc mpsc);
