//! What is written of messages while a supervisor has switched that on: this kernel's trace, and how long messages were on
//! their way to it.

use super::Endpoint;
use crate::fabric::{Counter, DeliveryStatus, Event, TraceEntry, is_sampled};
use crate::message::{Header, MessageId};
use crate::platform::Platform;
use crate::shape::Shape;
use crate::sync::ON_DEVICE;

impl<P: Platform, Sh: Shape> Endpoint<'_, P, Sh> {
    #[inline(always)]
    pub(super) fn trace(&mut self, event: Event, status: Option<DeliveryStatus>, header: &Header) {
        if self.member.fabric().switches().tracing() {
            // On a GPU, what is lent to a call has to be in local memory. On a host, that is where a header is best: it
            // goes to its slot in pieces larger than a register.
            if ON_DEVICE {
                self.write_trace(event, status, header.id(), header.hops);
            } else {
                self.write_trace_of(event, status, header);
            }
        }
    }

    /// For a message that was received. Its timestamp has moved the clock.
    #[inline(always)]
    pub(super) fn trace_received(&mut self, header: &Header) {
        let switches = self.member.fabric().switches();
        if switches.any() && (switches.tracing() || is_sampled(header.sequence)) {
            // As in `trace`.
            if ON_DEVICE {
                self.write_received(header.id(), header.hops, header.wall_time_ns);
            } else {
                self.write_received_of(header);
            }
        }
    }

    /// The same, for a message of which no more is known.
    #[inline(always)]
    pub(super) fn trace_of(&mut self, event: Event, status: Option<DeliveryStatus>, id: MessageId, hops: u8) {
        if self.member.fabric().switches().tracing() {
            self.write_trace(event, status, id, hops);
        }
    }

    #[cold]
    #[inline(never)]
    fn write_trace_of(&mut self, event: Event, status: Option<DeliveryStatus>, header: &Header) {
        self.write_trace(event, status, header.id(), header.hops);
    }

    #[cold]
    #[inline(never)]
    fn write_received_of(&mut self, header: &Header) {
        self.write_received(header.id(), header.hops, header.wall_time_ns);
    }

    #[cold]
    #[inline(never)]
    fn write_received(&mut self, id: MessageId, hops: u8, sent_wall_ns: u64) {
        let switches = self.member.fabric().switches();
        if switches.latency() && is_sampled(id.sequence) {
            let ns = self.clock.last().wall_time_ns.saturating_sub(sent_wall_ns);
            self.member.fabric().latencies_at(self.member.index()).count(ns);
        }
        if switches.tracing() {
            self.write_trace(Event::Received, None, id, hops);
        }
    }

    #[cold]
    #[inline(never)]
    fn write_trace(&mut self, event: Event, status: Option<DeliveryStatus>, id: MessageId, hops: u8) {
        let at = match event {
            // The clock was moved by what is traced.
            Event::Sent | Event::Received => self.clock.last(),
            // A kernel that only forwards has no other reason to move it.
            _ => self.now(),
        };
        let entry = TraceEntry {
            number: self.ledger.of(Counter::TraceEvents),
            event,
            status: status.map_or(0, |s| s as u8),
            hops,
            id,
            at,
        };
        self.member.fabric().trace_at(self.member.index()).write(&entry);
        self.ledger.count(Counter::TraceEvents);
    }
}
