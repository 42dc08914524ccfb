//! rbuffer: an SPSC ring with cached indices, and an MPSC ring with a `fetch_add` ticket and a sequence per slot. The
//! latter cannot refuse: a push waits inside for room.

use super::Shared;
use crate::element::Element;
use crate::queue::{Pop, Push, Queue, Sink};
use rbuffer::{MPSCConsumer, MPSCProducer, MPSCRBuffer, SPSCConsumer, SPSCProducer, SPSCRBuffer};

pub struct RbufferSpsc<const N: usize>;
pub struct SpscTx<E: Send + 'static, const N: usize>(SPSCProducer<'static, E, N>, Keep<SPSCRBuffer<E, N>>);
pub struct SpscRx<E: Send + 'static, const N: usize>(SPSCConsumer<'static, E, N>, Keep<SPSCRBuffer<E, N>>);
type Keep<R> = Shared<Box<R>>;

impl<E: Element, const N: usize> Queue<E> for RbufferSpsc<N> {
    type Tx = SpscTx<E, N>;
    type Rx = SpscRx<E, N>;

    fn open(_: usize, _: usize) -> (Vec<Self::Tx>, Self::Rx) {
        let buffer = Shared::new(SPSCRBuffer::new_boxed());
        // SAFETY: this is the only reference, and it is split once.
        let (tx, rx) = unsafe { buffer.exclusive() }.split();
        (vec![SpscTx(tx, buffer.clone())], SpscRx(rx, buffer))
    }
}

impl<E: Element, const N: usize> Push<E> for SpscTx<E, N> {
    #[inline(always)]
    fn push(&mut self, message: &E) -> bool {
        let _ = &self.1;
        self.0.try_push(*message).is_ok()
    }
}

impl<E: Element, const N: usize> Pop<E> for SpscRx<E, N> {
    #[inline(always)]
    fn pop<S: Sink<E>>(&mut self, sink: &mut S) -> bool {
        let _ = &self.1;
        self.0.try_pop().map(|message| sink.take(message)).is_some()
    }
}

pub struct RbufferMpsc<const N: usize>;
pub struct MpscTx<E: Send + 'static, const N: usize>(MPSCProducer<'static, E, N>, Keep<MPSCRBuffer<E, N>>);
pub struct MpscRx<E: Send + 'static, const N: usize>(MPSCConsumer<'static, E, N>, Keep<MPSCRBuffer<E, N>>);

impl<E: Element, const N: usize> Queue<E> for RbufferMpsc<N> {
    type Tx = MpscTx<E, N>;
    type Rx = MpscRx<E, N>;

    fn open(_: usize, producers: usize) -> (Vec<Self::Tx>, Self::Rx) {
        let buffer = Shared::new(MPSCRBuffer::new_boxed());
        // SAFETY: this is the only reference, and it is split once.
        let (tx, rx) = unsafe { buffer.exclusive() }.split();
        ((0..producers).map(|_| MpscTx(tx.clone(), buffer.clone())).collect(), MpscRx(rx, buffer))
    }
}

impl<E: Element, const N: usize> Push<E> for MpscTx<E, N> {
    #[inline(always)]
    fn push(&mut self, message: &E) -> bool {
        let _ = &self.1;
        self.0.push(*message).is_ok()
    }
}

impl<E: Element, const N: usize> Pop<E> for MpscRx<E, N> {
    #[inline(always)]
    fn pop<S: Sink<E>>(&mut self, sink: &mut S) -> bool {
        let _ = &self.1;
        self.0.try_pop().map(|message| sink.take(message)).is_some()
    }
}
