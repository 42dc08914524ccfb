//! omango: bounded SPSC and MPMC queues whose blocking calls sleep in a futex.

use crate::element::Element;
use crate::queue::{Patience, Pop, Push, Queue, Sink};
use omango::queue::{mpmc, spsc};

pub struct OmangoSpsc;
pub struct OmangoMpmc;

macro_rules! queue {
    ($($name:ident $kind:ident)*) => {$(
        impl<E: Element> Queue<E> for $name {
            type Tx = $kind::BSender<E>;
            type Rx = $kind::BReceiver<E>;
            const PARKS: bool = true;

            fn open(capacity: usize, producers: usize) -> (Vec<Self::Tx>, Self::Rx) {
                let (tx, rx) = $kind::bounded(capacity as u32);
                (vec![tx; producers], rx)
            }
        }

        impl<E: Element> Push<E> for $kind::BSender<E> {
            #[inline(always)]
            fn push(&mut self, message: &E) -> bool {
                self.try_send(*message).is_ok()
            }

            #[inline(always)]
            fn push_waiting(&mut self, message: &E, _: &mut Patience) {
                self.send(*message).expect("the receiver lives");
            }
        }

        impl<E: Element> Pop<E> for $kind::BReceiver<E> {
            #[inline(always)]
            fn pop<S: Sink<E>>(&mut self, sink: &mut S) -> bool {
                self.try_recv().map(|message| sink.take(message)).is_ok()
            }

            #[inline(always)]
            fn pop_waiting<S: Sink<E>>(&mut self, sink: &mut S, _: &mut Patience) {
                sink.take(self.recv().expect("a sender lives"));
            }
        }
    )*};
}

queue!(OmangoSpsc spsc OmangoMpmc mpmc);
