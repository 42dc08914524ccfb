//! K2K's rings and endpoints.

use super::Shared;
use crate::element::{Element, Envelope};
use crate::machine::Tsc;
use crate::queue::{Pop, Push, Queue, Sink};
use k2k_core::ring::sharded::{ShardProducer, ShardedConsumer};
use k2k_core::ring::spsc::{Consumer, Producer};
use k2k_core::ring::ticket::{TicketConsumer, TicketPop, TicketProducer};
use k2k_core::ring::{Sharded, Spsc, Ticket};
use k2k_core::{Config, Endpoint, Fabric, Fixed, KernelId, Message, Registration};

/// The SPSC ring, single and batch calls.
pub struct OurSpsc<const N: usize>;
pub struct SpscTx<E: Element, const N: usize>(Producer<'static, E, N>, Shared<Spsc<E, N>>);
pub struct SpscRx<E: Element, const N: usize>(Consumer<'static, E, N>, Shared<Spsc<E, N>>, Box<[E]>);

fn spsc<E: Element, const N: usize>() -> (Producer<'static, E, N>, Consumer<'static, E, N>, Shared<Spsc<E, N>>) {
    // SAFETY: zeroed memory is an empty ring.
    let ring: Shared<Spsc<E, N>> = unsafe { Shared::zeroed() };
    // SAFETY: each end keeps the ring alive for longer than itself.
    let lasting = unsafe { ring.lasting() };
    (lasting.producer().expect("the first producer"), lasting.consumer().expect("the first consumer"), ring)
}

impl<E: Element, const N: usize> Queue<E> for OurSpsc<N> {
    type Tx = SpscTx<E, N>;
    type Rx = SpscRx<E, N>;
    const BATCH: bool = true;

    fn open(_: usize, _: usize) -> (Vec<Self::Tx>, Self::Rx) {
        let (tx, rx, ring) = spsc();
        (vec![SpscTx(tx, ring.clone())], SpscRx(rx, ring, super::batch_buffer()))
    }
}

impl<E: Element, const N: usize> Push<E> for SpscTx<E, N> {
    #[inline(always)]
    fn push(&mut self, message: &E) -> bool {
        let _ = &self.1;
        self.0.push(message).is_ok()
    }

    #[inline(always)]
    fn push_batch(&mut self, messages: &[E]) -> usize {
        self.0.push_batch(messages)
    }
}

impl<E: Element, const N: usize> Pop<E> for SpscRx<E, N> {
    #[inline(always)]
    fn pop<S: Sink<E>>(&mut self, sink: &mut S) -> bool {
        let _ = &self.1;
        self.0.pop().map(|message| sink.take(message)).is_some()
    }

    #[inline(always)]
    fn pop_batch<S: Sink<E>>(&mut self, sink: &mut S, most: usize) -> usize {
        let count = self.0.pop_batch(&mut self.2[..most]);
        sink.take_all(&self.2[..count]);
        count
    }
}

/// The SPSC ring in place: the producer writes into a claimed slot, the consumer reads one word per line of it.
pub struct OurSpscInPlace<const N: usize>;
pub struct InPlaceTx<E: Element, const N: usize>(SpscTx<E, N>);
pub struct InPlaceRx<E: Element, const N: usize>(SpscRx<E, N>);

impl<E: Element, const N: usize> Queue<E> for OurSpscInPlace<N> {
    type Tx = InPlaceTx<E, N>;
    type Rx = InPlaceRx<E, N>;

    fn open(_: usize, _: usize) -> (Vec<Self::Tx>, Self::Rx) {
        let (tx, rx, ring) = spsc();
        (vec![InPlaceTx(SpscTx(tx, ring.clone()))], InPlaceRx(SpscRx(rx, ring, Box::default())))
    }
}

impl<E: Element, const N: usize> Push<E> for InPlaceTx<E, N> {
    #[inline(always)]
    fn push(&mut self, message: &E) -> bool {
        let Ok(mut claim) = self.0.0.claim() else { return false };
        // SAFETY: the claim's slot is this producer's until it is committed, and valid for an `E`.
        unsafe { claim.as_mut_ptr().write(*message) };
        claim.commit();
        true
    }
}

impl<E: Element, const N: usize> Pop<E> for InPlaceRx<E, N> {
    #[inline(always)]
    fn pop<S: Sink<E>>(&mut self, sink: &mut S) -> bool {
        let Some(peek) = self.0.0.peek() else { return false };
        // SAFETY: the message is this consumer's until it is released, and any bytes are an `E`.
        sink.look(unsafe { &*peek.as_ptr() });
        peek.release();
        true
    }
}

/// One shard per producer. The capacity is divided among them: `N` is that of a shard.
pub struct OurSharded<const PRODUCERS: usize, const N: usize>;
pub struct ShardedTx<E: Element, const P: usize, const N: usize>(
    ShardProducer<'static, E, P, N>,
    Shared<Sharded<E, P, N>>,
);
pub struct ShardedRx<E: Element, const P: usize, const N: usize>(
    ShardedConsumer<'static, E, P, N>,
    Shared<Sharded<E, P, N>>,
);

impl<E: Element, const P: usize, const N: usize> Queue<E> for OurSharded<P, N> {
    type Tx = ShardedTx<E, P, N>;
    type Rx = ShardedRx<E, P, N>;

    fn open(_: usize, producers: usize) -> (Vec<Self::Tx>, Self::Rx) {
        // SAFETY: zeroed memory is an empty queue.
        let queue: Shared<Sharded<E, P, N>> = unsafe { Shared::zeroed() };
        // SAFETY: each end keeps the queue alive for longer than itself.
        let lasting = unsafe { queue.lasting() };
        let shard = |i| ShardedTx(lasting.producer(i).expect("a free shard"), queue.clone());
        ((0..producers).map(shard).collect(), ShardedRx(lasting.consumer().expect("the first consumer"), queue.clone()))
    }
}

impl<E: Element, const P: usize, const N: usize> Push<E> for ShardedTx<E, P, N> {
    #[inline(always)]
    fn push(&mut self, message: &E) -> bool {
        let _ = &self.1;
        self.0.push(message).is_ok()
    }
}

impl<E: Element, const P: usize, const N: usize> Pop<E> for ShardedRx<E, P, N> {
    #[inline(always)]
    fn pop<S: Sink<E>>(&mut self, sink: &mut S) -> bool {
        let _ = &self.1;
        self.0.pop().map(|(_, message)| sink.take(message)).is_some()
    }
}

/// One ring for all producers.
pub struct OurTicket<const N: usize>;
pub struct TicketTx<E: Element, const N: usize>(TicketProducer<'static, E, N>, Shared<Ticket<E, N>>);
pub struct TicketRx<E: Element, const N: usize>(TicketConsumer<'static, E, N>, Shared<Ticket<E, N>>);

impl<E: Element, const N: usize> Queue<E> for OurTicket<N> {
    type Tx = TicketTx<E, N>;
    type Rx = TicketRx<E, N>;

    fn open(_: usize, producers: usize) -> (Vec<Self::Tx>, Self::Rx) {
        // SAFETY: zeroed memory is an empty ring.
        let ring: Shared<Ticket<E, N>> = unsafe { Shared::zeroed() };
        // SAFETY: each end keeps the ring alive for longer than itself.
        let lasting = unsafe { ring.lasting() };
        let tx = |i| TicketTx(lasting.producer(i as u16), ring.clone());
        ((0..producers).map(tx).collect(), TicketRx(lasting.consumer().expect("the first consumer"), ring.clone()))
    }
}

impl<E: Element, const N: usize> Push<E> for TicketTx<E, N> {
    #[inline(always)]
    fn push(&mut self, message: &E) -> bool {
        let _ = &self.1;
        self.0.push(message).is_ok()
    }
}

impl<E: Element, const N: usize> Pop<E> for TicketRx<E, N> {
    #[inline(always)]
    fn pop<S: Sink<E>>(&mut self, sink: &mut S) -> bool {
        let _ = &self.1;
        match self.0.pop() {
            TicketPop::Message(message) => {
                sink.take(message);
                true
            }
            TicketPop::Empty | TicketPop::Stalled { .. } => false,
        }
    }
}

/// Kernels of one fabric: kernel 0 receives, the others send to it. `INTO`: with `try_receive_into`.
pub struct OurEndpoints<const KERNELS: usize, const SLOTS: usize, const INTO: bool, const TRACING: bool = false>;
pub type End<const K: usize, const S: usize, const P: usize> = Endpoint<'static, Tsc, Fixed<K, S, P>>;
type Keep<const K: usize, const S: usize, const P: usize> = Shared<Fabric<K, S, P>>;
pub struct EndpointTx<const K: usize, const S: usize, const P: usize>(pub End<K, S, P>, KernelId, Keep<K, S, P>);
pub struct EndpointRx<const K: usize, const S: usize, const P: usize, const INTO: bool>(
    pub End<K, S, P>,
    Box<Message<P>>,
    Keep<K, S, P>,
);

/// A fabric and that many kernels on it.
pub fn fabric<const K: usize, const S: usize, const P: usize>(
    kernels: usize,
    tracing: bool,
) -> (Shared<Fabric<K, S, P>>, Vec<End<K, S, P>>) {
    // SAFETY: zeroed memory is an idle fabric.
    let fabric: Keep<K, S, P> = unsafe { Shared::zeroed() };
    // SAFETY: whoever gets the endpoints keeps the fabric alive for longer.
    let lasting = unsafe { fabric.lasting() };
    lasting.init(&Config { tracing, ..Config::default() }).expect("zeroed memory is an idle fabric");
    let endpoint = |i| {
        let who = Registration::new(&format!("kernel {i}")).expect("a short name");
        lasting.register(&who, Tsc).expect("a free index")
    };
    let endpoints = (0..kernels).map(endpoint).collect();
    (fabric, endpoints)
}

impl<const K: usize, const S: usize, const P: usize, const INTO: bool, const TRACING: bool> Queue<Envelope<P>>
    for OurEndpoints<K, S, INTO, TRACING>
{
    type Tx = EndpointTx<K, S, P>;
    type Rx = EndpointRx<K, S, P, INTO>;

    fn open(_: usize, producers: usize) -> (Vec<Self::Tx>, Self::Rx) {
        let (fabric, mut endpoints) = fabric(producers + 1, TRACING);
        let to = endpoints[0].id();
        let senders = endpoints.split_off(1).into_iter().map(|end| EndpointTx(end, to, fabric.clone())).collect();
        let rx = endpoints.pop().expect("the receiver");
        (senders, EndpointRx(rx, Box::new(Message::new(0)), fabric))
    }
}

impl<const K: usize, const S: usize, const P: usize> Push<Envelope<P>> for EndpointTx<K, S, P> {
    #[inline(always)]
    fn push(&mut self, message: &Envelope<P>) -> bool {
        let _ = &self.2;
        self.0.send(self.1, &message.0).is_ok()
    }
}

impl<const K: usize, const S: usize, const P: usize, const INTO: bool> Pop<Envelope<P>> for EndpointRx<K, S, P, INTO> {
    #[inline(always)]
    fn pop<T: Sink<Envelope<P>>>(&mut self, sink: &mut T) -> bool {
        let _ = &self.2;
        if !INTO {
            return self.0.try_receive().map(|message| sink.take(Envelope(message))).is_some();
        }
        let received = self.0.try_receive_into(&mut self.1);
        if received {
            sink.look(Envelope::of(&self.1));
        }
        received
    }
}
