//! Which competitors a column has.

use crate::bench::alone::Alone;
use crate::bench::latency::RoundTrip;
use crate::bench::one_thread::OneThread;
use crate::bench::throughput::{Calls, Throughput};
use crate::element::{Element, Envelope};
use crate::peers::channels::{CrossfireMpsc, CrossfireSpsc, Flume, Kanal, Std, Thingbuf, Tokio};
use crate::peers::crossbeam::Crossbeam;
use crate::peers::disruptor::{DisruptorMulti, DisruptorSingle};
use crate::peers::gil::{GilMpsc, GilSharded, GilSpsc};
use crate::peers::heapless::{HeaplessMpmc, HeaplessSpsc};
use crate::peers::iceoryx2::Iceoryx2;
use crate::peers::nexus::{NexusMpsc, NexusSpsc};
use crate::peers::omango::{OmangoMpmc, OmangoSpsc};
use crate::peers::ours::{OurEndpoints, OurSharded, OurSpsc, OurSpscInPlace, OurTicket};
use crate::peers::rbuffer::{RbufferMpsc, RbufferSpsc};
use crate::peers::ringbuf::Ringbuf;
use crate::peers::ringkernel::{Broker, Ringkernel};
use crate::peers::rtrb::Rtrb;
use crate::queue::Queue;
use crate::sample::Sampler;
use ringkernel_core::queue::{MpscQueue, SpscQueue};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Floor,
    Ours,
    Peer,
}

pub struct Row {
    pub name: &'static str,
    pub kind: Kind,
    pub sampler: Box<dyn Sampler>,
}

impl Row {
    pub fn floor(name: &'static str, sampler: Box<dyn Sampler>) -> Self {
        Self { name, kind: Kind::Floor, sampler }
    }

    pub fn ours(name: &'static str, sampler: Box<dyn Sampler>) -> Self {
        Self { name, kind: Kind::Ours, sampler }
    }
}

/// What is to be measured of each competitor.
#[derive(Clone, Copy)]
pub enum What {
    Throughput(Calls),
    RoundTrip,
    Alone,
    /// Messages pushed before they are popped.
    OneThread(u64),
}

/// The rows of a column that are being collected.
pub struct Rows {
    pub what: What,
    pub capacity: usize,
    pub producers: usize,
    /// Rows whose names contain none of these are left out; all if empty.
    pub wanted: Vec<String>,
    pub rows: Vec<Row>,
}

impl Rows {
    fn add<E: Element, Q: Queue<E>>(&mut self, kind: Kind, name: &'static str) {
        if !self.wanted.is_empty() && !self.wanted.iter().any(|wanted| name.contains(wanted)) {
            return;
        }
        let sampler = match self.what {
            What::Throughput(Calls::Batch) if !Q::BATCH => return,
            What::Throughput(Calls::Waiting) if !Q::PARKS && kind == Kind::Peer => return,
            What::Throughput(calls) => Throughput::<E, Q>::boxed(calls, self.capacity, self.producers),
            What::RoundTrip => RoundTrip::<E, Q>::boxed(self.capacity),
            What::Alone => Alone::<E, Q>::boxed(self.producers),
            What::OneThread(burst) => OneThread::<E, Q>::boxed(self.capacity, burst),
        };
        self.rows.push(Row { name, kind, sampler });
    }

    fn ours<E: Element, Q: Queue<E>>(&mut self, name: &'static str) {
        self.add::<E, Q>(Kind::Ours, name);
    }

    fn peer<E: Element, Q: Queue<E>>(&mut self, name: &'static str) {
        self.add::<E, Q>(Kind::Peer, name);
    }
}

/// Our rings of `N` messages with one producer.
pub fn our_spsc<E: Element, const N: usize>(rows: &mut Rows) {
    rows.ours::<E, OurSpsc<N>>("k2k Spsc");
    if !matches!(rows.what, What::Throughput(Calls::Batch)) {
        rows.ours::<E, OurSpscInPlace<N>>("k2k Spsc, in place");
    }
    rows.ours::<E, OurTicket<N>>("k2k Ticket (1 producer)");
    rows.ours::<E, OurSharded<1, N>>("k2k Sharded (1 producer)");
}

/// SPSC queues of `N` messages, and the best-known MPMC one.
pub fn spsc_peers<E: Element, const N: usize>(rows: &mut Rows) {
    rows.peer::<E, Rtrb>("rtrb");
    rows.peer::<E, Ringbuf>("ringbuf");
    rows.peer::<E, NexusSpsc>("nexus-queue spsc");
    rows.peer::<E, GilSpsc>("gil spsc");
    rows.peer::<E, RbufferSpsc<N>>("rbuffer spsc");
    rows.peer::<E, HeaplessSpsc<N>>("heapless spsc");
    rows.peer::<E, Iceoryx2<N>>("iceoryx2-bb-lock-free spsc");
    rows.peer::<E, OmangoSpsc>("omango spsc");
    rows.peer::<E, DisruptorSingle>("disruptor single");
    rows.peer::<E, Crossbeam>("crossbeam-queue ArrayQueue");
}

/// Everything else that can be used by one producer and one consumer.
pub fn more_spsc_peers<E: Element, const N: usize>(rows: &mut Rows) {
    rows.peer::<E, NexusMpsc>("nexus-queue mpsc");
    rows.peer::<E, GilMpsc>("gil mpsc");
    rows.peer::<E, GilSharded>("gil mpsc sharded");
    rows.peer::<E, RbufferMpsc<N>>("rbuffer mpsc");
    rows.peer::<E, HeaplessMpmc<N>>("heapless mpmc");
    rows.peer::<E, OmangoMpmc>("omango mpmc");
    rows.peer::<E, DisruptorMulti>("disruptor multi");
    rows.peer::<E, CrossfireSpsc>("crossfire spsc");
    rows.peer::<E, Kanal>("kanal");
    rows.peer::<E, Thingbuf>("thingbuf");
    rows.peer::<E, Flume>("flume");
    rows.peer::<E, Tokio>("tokio mpsc");
    rows.peer::<E, Std>("std sync_channel");
    rows.peer::<E, Ringkernel<SpscQueue, true>>("ringkernel-core SpscQueue");
    rows.peer::<E, Ringkernel<SpscQueue, false>>("ringkernel-core SpscQueue, no payload");
}

/// Our queues for `P` producers: `N` messages in all, `SHARD` per shard.
pub fn our_mpsc<E: Element, const P: usize, const N: usize, const SHARD: usize>(rows: &mut Rows) {
    rows.ours::<E, OurSharded<P, SHARD>>("k2k Sharded");
    rows.ours::<E, OurTicket<N>>("k2k Ticket");
}

pub fn mpsc_peers<E: Element, const N: usize>(rows: &mut Rows) {
    rows.peer::<E, GilSharded>("gil mpsc sharded");
    rows.peer::<E, GilMpsc>("gil mpsc");
    rows.peer::<E, NexusMpsc>("nexus-queue mpsc");
    rows.peer::<E, RbufferMpsc<N>>("rbuffer mpsc");
    rows.peer::<E, OmangoMpmc>("omango mpmc");
    rows.peer::<E, HeaplessMpmc<N>>("heapless mpmc");
    rows.peer::<E, Crossbeam>("crossbeam-queue ArrayQueue");
    rows.peer::<E, DisruptorMulti>("disruptor multi");
    rows.peer::<E, CrossfireMpsc>("crossfire mpsc");
    rows.peer::<E, Kanal>("kanal");
    rows.peer::<E, Thingbuf>("thingbuf");
    rows.peer::<E, Flume>("flume");
    rows.peer::<E, Tokio>("tokio mpsc");
    rows.peer::<E, Std>("std sync_channel");
    rows.peer::<E, Ringkernel<MpscQueue, true>>("ringkernel-core MpscQueue");
    rows.peer::<E, Ringkernel<MpscQueue, false>>("ringkernel-core MpscQueue, no payload");
}

/// Whole messages between two parties, with header and `PAYLOAD` bytes. The queues carry the same struct, but nobody
/// fills the header, routes, counts, checks a deadline or keeps a receipt.
pub fn messages<const PAYLOAD: usize>(rows: &mut Rows) {
    rows.ours::<Envelope<PAYLOAD>, OurEndpoints<2, 1024, false>>("k2k Endpoint, try_receive");
    rows.ours::<Envelope<PAYLOAD>, OurEndpoints<2, 1024, true>>("k2k Endpoint, try_receive_into");
    rows.peer::<Envelope<PAYLOAD>, Broker>("ringkernel-core K2KBroker");
    rows.peer::<Envelope<PAYLOAD>, Tokio>("tokio mpsc, same struct");
    rows.peer::<Envelope<PAYLOAD>, Std>("std sync_channel, same struct");
    rows.peer::<Envelope<PAYLOAD>, Crossbeam>("crossbeam-queue ArrayQueue, same struct");
    rows.peer::<Envelope<PAYLOAD>, Rtrb>("rtrb, same struct");
    // Listed as a floor: what the ring itself costs.
    rows.add::<Envelope<PAYLOAD>, OurSpsc<1024>>(Kind::Floor, "bare k2k Spsc, same struct");
}

/// Tracing off and on.
pub fn tracing(rows: &mut Rows) {
    rows.add::<Envelope<64>, OurEndpoints<2, 1024, true>>(Kind::Floor, "k2k Endpoint, tracing off");
    rows.ours::<Envelope<64>, OurEndpoints<2, 1024, true, true>>("k2k Endpoint, tracing on");
}
