//! disruptor: preallocated slots, a consumer's cursor; its event poller lends the slots, so nothing is copied out.
//! "single" has one producer, "multi" claims with a compare-exchange and keeps one availability bit per slot.

use crate::element::Element;
use crate::queue::{Pop, Push, Queue, Sink};
use disruptor::{
    BusySpin, EventPoller, MultiProducer, MultiProducerBarrier, Producer, SingleConsumerBarrier, SingleProducer,
    SingleProducerBarrier, build_multi_producer, build_single_producer,
};

pub struct DisruptorSingle;
pub struct DisruptorMulti;

macro_rules! queue {
    ($($name:ident $producer:ident $barrier:ident $build:ident $copies:expr;)*) => {$(
        impl<E: Element> Queue<E> for $name {
            type Tx = $producer<E, SingleConsumerBarrier>;
            type Rx = EventPoller<E, $barrier>;
            const BATCH: bool = true;

            fn open(capacity: usize, producers: usize) -> (Vec<Self::Tx>, Self::Rx) {
                let (rx, builder) = $build(capacity, E::default, BusySpin).new_event_poller();
                ($copies(builder.build(), producers), rx)
            }
        }

        impl<E: Element> Push<E> for $producer<E, SingleConsumerBarrier> {
            #[inline(always)]
            fn push(&mut self, message: &E) -> bool {
                self.try_publish(|place| *place = *message).is_ok()
            }

            /// All or nothing, as the crate has it.
            #[inline(always)]
            fn push_batch(&mut self, messages: &[E]) -> usize {
                let published = self.try_batch_publish(messages.len(), |places| {
                    places.zip(messages).for_each(|(place, message)| *place = *message);
                });
                if published.is_ok() { messages.len() } else { 0 }
            }
        }

        impl<E: Element> Pop<E> for EventPoller<E, $barrier> {
            #[inline(always)]
            fn pop<S: Sink<E>>(&mut self, sink: &mut S) -> bool {
                self.pop_batch(sink, 1) == 1
            }

            #[inline(always)]
            fn pop_batch<S: Sink<E>>(&mut self, sink: &mut S, most: usize) -> usize {
                let Ok(mut events) = self.take(most as u64) else { return 0 };
                let mut count = 0;
                for event in &mut events {
                    sink.look(event);
                    count += 1;
                }
                count
            }
        }
    )*};
}

queue! {
    DisruptorSingle SingleProducer SingleProducerBarrier build_single_producer |tx, _| vec![tx];
    DisruptorMulti MultiProducer MultiProducerBarrier build_multi_producer |tx, producers| vec![tx; producers];
}
