//! ringkernel-core: its SPSC and MPSC queues of envelopes (256 bytes of header and a heap-allocated payload), and its
//! K2K broker.
//!
//! The queues' "no payload" form moves an envelope whose payload is the empty `Vec`: the number travels in the header.

use crate::element::Element;
use crate::queue::{Pop, Push, Queue, Sink};
use core::marker::PhantomData;
use core::pin::pin;
use core::task::{Context, Poll, Waker};
use ringkernel_core::hlc::HlcTimestamp;
use ringkernel_core::k2k::{DeliveryStatus, K2KBroker, K2KConfig, K2KEndpoint};
use ringkernel_core::message::{MessageEnvelope, MessageHeader, MessageId};
use ringkernel_core::queue::{MessageQueue, MpscQueue, SpscQueue};
use ringkernel_core::runtime::KernelId;
use std::sync::Arc;

/// `PAYLOAD`: whether the message's bytes travel.
pub struct Ringkernel<Q, const PAYLOAD: bool>(PhantomData<Q>);
pub struct End<Q, const PAYLOAD: bool>(Arc<Q>, MessageHeader);

pub trait Open: MessageQueue + 'static {
    fn open(capacity: usize) -> Self;
}

impl Open for SpscQueue {
    fn open(capacity: usize) -> Self {
        Self::new(capacity)
    }
}

impl Open for MpscQueue {
    fn open(capacity: usize) -> Self {
        Self::new(capacity)
    }
}

fn header() -> MessageHeader {
    MessageHeader::new(7, 1, 2, 0, HlcTimestamp::new(1, 0, 1))
}

#[inline(always)]
fn envelope<E: Element>(header: &MessageHeader, message: &E, payload: bool) -> MessageEnvelope {
    let payload = if payload { bytemuck::bytes_of(message).to_vec() } else { Vec::new() };
    let mut header = *header;
    header.message_id = MessageId::new(message.number());
    header.payload_size = payload.len() as u64;
    MessageEnvelope { header, payload, provenance: None, tenant_id: 0, audit_tag: Default::default() }
}

impl<E: Element, Q: Open, const PAYLOAD: bool> Queue<E> for Ringkernel<Q, PAYLOAD> {
    type Tx = End<Q, PAYLOAD>;
    type Rx = End<Q, PAYLOAD>;

    fn open(capacity: usize, producers: usize) -> (Vec<Self::Tx>, Self::Rx) {
        let queue = Arc::new(Q::open(capacity));
        ((0..producers).map(|_| End(queue.clone(), header())).collect(), End(queue, header()))
    }
}

impl<E: Element, Q: Open, const PAYLOAD: bool> Push<E> for End<Q, PAYLOAD> {
    #[inline(always)]
    fn push(&mut self, message: &E) -> bool {
        // A full queue destroys the envelope, so look first: the only way not to lose messages.
        !self.0.is_full() && self.0.try_enqueue(envelope(&self.1, message, PAYLOAD)).is_ok()
    }
}

impl<E: Element, Q: Open, const PAYLOAD: bool> Pop<E> for End<Q, PAYLOAD> {
    #[inline(always)]
    fn pop<S: Sink<E>>(&mut self, sink: &mut S) -> bool {
        let Ok(envelope) = self.0.try_dequeue() else { return false };
        if PAYLOAD {
            sink.bytes(&envelope.payload);
        } else {
            sink.number(envelope.header.message_id.inner());
        }
        true
    }
}

/// Two kernels at a broker: `endpoint.send(...)` polled once (it never waits), `try_receive`.
pub struct Broker;
pub struct BrokerTx(K2KEndpoint, KernelId, MessageHeader);
pub struct BrokerRx(K2KEndpoint);

impl<E: Element> Queue<E> for Broker {
    type Tx = BrokerTx;
    type Rx = BrokerRx;

    fn open(capacity: usize, producers: usize) -> (Vec<Self::Tx>, Self::Rx) {
        let broker = K2KBroker::new(K2KConfig { max_pending_messages: capacity, ..K2KConfig::default() });
        let receiver = KernelId::new("receiver");
        let rx = broker.register(receiver.clone());
        let senders = (0..producers)
            .map(|i| BrokerTx(broker.register(KernelId::new(format!("sender {i}"))), receiver.clone(), header()));
        (senders.collect(), BrokerRx(rx))
    }
}

impl<E: Element> Push<E> for BrokerTx {
    #[inline(always)]
    fn push(&mut self, message: &E) -> bool {
        let sending = pin!(self.0.send(self.1.clone(), envelope(&self.2, message, true)));
        match sending.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(receipt)) => receipt.status == DeliveryStatus::Delivered,
            Poll::Ready(Err(e)) => panic!("{e}"),
            Poll::Pending => unreachable!("it uses try_send inside"),
        }
    }
}

impl<E: Element> Pop<E> for BrokerRx {
    #[inline(always)]
    fn pop<S: Sink<E>>(&mut self, sink: &mut S) -> bool {
        self.0.try_receive().map(|message| sink.bytes(&message.envelope.payload)).is_some()
    }
}
