//! The mesh itself: fabric, routes, kernels and their threads.

use super::Plan;
use super::arrival::{Arrivals, Arrived};
use super::feed::{Fed, FeedError, Outbox, feed};
use super::progress::Progress;
use super::report::{FabricReport, TraceLine};
use super::supply::Supply;
use crate::text::bytes;
use core::time::Duration;
use k2k::fabric::Event;
use k2k::{
    Backing, Broker, Builder, Context, DeliveryStatus, Endpoint, Kernel, KernelHandle, KernelId, Message, MessageId,
    Phase, Read, ReceiptError, SendError, Shape as _, StartOptions, Stats, allowed_cores,
};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Instant;

/// Longest time for a kernel to begin, and to stop.
const PATIENCE: Duration = Duration::from_secs(10);

/// Result of a job.
#[derive(Debug)]
pub(super) struct Carried {
    pub(super) fed: Fed,
    pub(super) arrived: Arrived,
    /// Counters summed over all kernels, after the last kernel has left.
    pub(super) stats: Stats,
    /// Time from the first message sent to the last message delivered.
    pub(super) took: Duration,
    pub(super) fabric: FabricReport,
    pub(super) trace: Option<Vec<TraceLine>>,
    /// Errors that ended the job early.
    pub(super) problems: Vec<String>,
    /// Settings that differ from the request, but work.
    pub(super) notices: Vec<String>,
}

/// The most kernels of a mesh.
pub(crate) const MAX_KERNELS: usize = 256;
/// The most bytes of a message.
pub(crate) const MAX_MESSAGE_SIZE: usize = 65472;

/// Sets up a mesh, carries all chunks through the mesh, and takes it down again. An error says why the setup failed.
///
/// The fabric has the requested shape; the kernels' message buffers are compiled for a few sizes.
pub(super) fn carry(
    plan: &Plan,
    supply: Supply,
    arrivals: Arrivals,
    progress: &mut Progress,
) -> Result<Carried, String> {
    match plan.message_size {
        0..=192 => carry_in::<192>(plan, supply, arrivals, progress),
        193..=4096 => carry_in::<4096>(plan, supply, arrivals, progress),
        _ => carry_in::<MAX_MESSAGE_SIZE>(plan, supply, arrivals, progress),
    }
}

/// A kernel between the first and the last. Its run loop forwards messages for other kernels, so its handler has nothing to
/// do.
struct Forward;

impl<const PAYLOAD: usize> Kernel<PAYLOAD> for Forward {
    fn on_message(&mut self, _: &mut impl Context<PAYLOAD>, _: &Message<PAYLOAD>) {}
}

/// The last kernel.
struct Sink {
    arrivals: Arrivals,
    /// Set after an error, so that the first kernel stops.
    spoiled: Arc<OnceLock<()>>,
    /// Delivery timeout of each message: its deadline minus this is the time of sending.
    timeout_ns: u64,
}

impl<const PAYLOAD: usize> Kernel<PAYLOAD> for Sink {
    fn on_message(&mut self, context: &mut impl Context<PAYLOAD>, message: &Message<PAYLOAD>) {
        let header = &message.header;
        // Not by the timestamps: the wall clock may be set meanwhile.
        let sent_ns = header.deadline_ns.saturating_sub(self.timeout_ns);
        let latency_ns = context.now_ns().saturating_sub(sent_ns);
        if !self.arrivals.take(header.correlation_id, message.payload(), latency_ns) {
            let _ = self.spoiled.set(());
        }
    }
}

/// The first kernel's endpoint, as the outbox of `feed`.
struct Source<const PAYLOAD: usize> {
    endpoint: Endpoint<Read<MAX_KERNELS, PAYLOAD>>,
    sink: KernelId,
    /// Used for every message, so that its payload is copied once.
    message: Message<PAYLOAD>,
    last: Option<MessageId>,
}

impl<const PAYLOAD: usize> Outbox for Source<PAYLOAD> {
    fn send(&mut self, index: u64, chunk: &[u8]) -> Result<u64, SendError> {
        self.message.set_payload(chunk).map_err(SendError::PayloadTooLong)?;
        self.message.header.correlation_id = index;
        let id = self.endpoint.send(self.sink, &self.message)?;
        self.last = Some(id);
        Ok(id.sequence)
    }

    fn status(&mut self, sequence: u64) -> Result<DeliveryStatus, ReceiptError> {
        let source = self.endpoint.id();
        self.endpoint.receipt(MessageId { source, sequence }).map(|receipt| receipt.status)
    }
}

/// As [`carry`], with messages of up to `PAYLOAD` bytes.
fn carry_in<const PAYLOAD: usize>(
    plan: &Plan,
    mut supply: Supply,
    arrivals: Arrivals,
    progress: &mut Progress,
) -> Result<Carried, String> {
    let builder = Builder::new().hop_limit(plan.hop_limit).tracing(plan.tracing);
    let builder = if plan.huge_pages { builder.huge_pages() } else { builder.heap() };
    let payload = plan.message_size.next_multiple_of(64);
    let builder = builder.kernels(plan.kernels).slots(plan.slots).payload(payload);
    let shape = Read::<MAX_KERNELS, PAYLOAD>::new(plan.kernels, plan.slots, payload).map_err(|e| e.to_string())?;
    let broker: Broker<Read<MAX_KERNELS, PAYLOAD>> = builder.build().map_err(|e| {
        let needed = bytes(shape.size() as u64);
        format!("a fabric of {needed}: {e}; lower --kernels, --slots or --message-size to use a smaller one")
    })?;
    // The reason alone would read as if no job was run.
    let notices =
        broker.backing().notice().map(|_| format!("going on with {}", broker.backing())).into_iter().collect();
    let fabric = FabricReport {
        kernels: plan.kernels,
        slots: plan.slots,
        payload,
        bytes: shape.size(),
        huge_pages: matches!(broker.backing(), Backing::HugePages { .. } | Backing::TransparentHugePages { .. }),
        backing: match broker.backing() {
            Backing::HugePages { .. } => "in huge pages",
            Backing::TransparentHugePages { .. } => "in transparent huge pages",
            _ => "on the heap",
        },
    };

    let spoiled = Arc::new(OnceLock::new());
    let timeout_ns = broker.memory().fabric().config().delivery_timeout_ns;
    let sink = Sink { arrivals, spoiled: Arc::clone(&spoiled), timeout_ns };
    let mut mesh = Mesh::start(&broker, plan, sink)?;
    let sink = mesh.sink.id();
    let mut source = Source { endpoint: mesh.source, sink, message: Message::new(0), last: None };
    let mut fed = Fed::default();
    let began = Instant::now();
    let result = feed(&mut source, &mut supply, plan.window, &mut fed, &mut |bytes| {
        if bytes > 0 {
            progress.advance(bytes);
        }
        spoiled.get().is_none()
    });
    let took = began.elapsed();

    // If the last kernel stopped the job, its own error says why.
    let failure = result.err().filter(|e| !matches!(e, FeedError::Stopped));
    let mut problems: Vec<String> = failure.map(|e| e.to_string()).into_iter().collect();
    let mut note = |problem: String| problems.push(problem);
    let sink = mesh.sink.stop_and_join(PATIENCE).map_err(|e| note(e.to_string())).ok();
    for forwarder in mesh.forwarders.drain(..) {
        if let Err(e) = forwarder.stop_and_join(PATIENCE) {
            note(e.to_string());
        }
    }
    // After a failure: messages still on their way have lost their receiver.
    source.endpoint.expire();
    let trace = plan.tracing.then(|| source.last.map_or_else(Vec::new, |id| trace_of(&broker, &mesh.ids, plan, id)));
    source.endpoint.unregister();
    let arrived = sink.ok_or_else(|| problems.join("; "))?.arrivals.finish();
    Ok(Carried { fed, arrived, stats: broker.stats(), took, fabric, trace, problems, notices })
}

/// All kernels of a job, running.
struct Mesh<const PAYLOAD: usize> {
    source: Endpoint<Read<MAX_KERNELS, PAYLOAD>>,
    sink: KernelHandle<Sink, Read<MAX_KERNELS, PAYLOAD>>,
    forwarders: Vec<KernelHandle<Forward, Read<MAX_KERNELS, PAYLOAD>>>,
    /// Addresses by index in the mesh.
    ids: Vec<KernelId>,
}

impl<const PAYLOAD: usize> Mesh<PAYLOAD> {
    fn start(broker: &Broker<Read<MAX_KERNELS, PAYLOAD>>, plan: &Plan, sink: Sink) -> Result<Self, String> {
        let cores = if plan.pin { cores_to_pin_to(allowed_cores())? } else { Vec::new() };
        let core = |index: usize| cores.get(index % cores.len().max(1)).copied();
        let source = broker.register("kernel 0").map_err(|e| e.to_string())?;
        let last = plan.way[plan.way.len() - 1];
        let mut ids = vec![source.id()];
        let mut forwarders = Vec::new();
        let (mut sink, mut sink_handle) = (Some(sink), None);
        for index in 1..plan.kernels {
            let name = format!("kernel {index}");
            let options = StartOptions { pin: core(index), ..StartOptions::default() };
            let error = |e: k2k::StartError| format!("cannot start {name}: {e}");
            if let Some(sink) = sink.take_if(|_| index == last) {
                let handle = broker.start(&name, sink, options).map_err(error)?;
                ids.push(handle.id());
                sink_handle = Some(handle);
            } else {
                let handle = broker.start(&name, Forward, options).map_err(error)?;
                ids.push(handle.id());
                forwarders.push(handle);
            }
        }
        let sink = sink_handle.ok_or("the way through the mesh has no end")?;
        // Last: a thread inherits the cores of the thread that starts it.
        if let Some(core) = core(0) {
            pin_this_thread(core)?;
        }
        for (at, to, next_hop) in plan.routes.indirect() {
            broker.add_route(ids[at], ids[to], ids[next_hop]).map_err(|e| e.to_string())?;
        }
        let began = Instant::now();
        while sink.phase() != Phase::Running || forwarders.iter().any(|kernel| kernel.phase() != Phase::Running) {
            if began.elapsed() > PATIENCE {
                return Err(format!("the kernels have not begun after {} s", PATIENCE.as_secs()));
            }
            thread::sleep(Duration::from_micros(100));
        }
        Ok(Self { source, sink, forwarders, ids })
    }
}

/// The cores for `--pin`. An impossible pin is an error: figures with and without pinning differ.
fn cores_to_pin_to(allowed: Vec<usize>) -> Result<Vec<usize>, String> {
    if allowed.is_empty() {
        return Err(
            "--pin: the cores that this process may use cannot be read (sched_getaffinity); leave it out".into()
        );
    }
    Ok(allowed)
}

fn pin_this_thread(core: usize) -> Result<(), String> {
    use rustix::thread::{CpuSet, sched_setaffinity};
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).map_err(|e| format!("cannot bind kernel 0 to core {core}: {e}"))
}

/// The notes on a message by the kernels on the way.
fn trace_of<const PAYLOAD: usize>(
    broker: &Broker<Read<MAX_KERNELS, PAYLOAD>>,
    ids: &[KernelId],
    plan: &Plan,
    id: MessageId,
) -> Vec<TraceLine> {
    let lines = plan.way.iter().flat_map(|&kernel| {
        let events = broker.trace(ids[kernel]).into_iter().filter(move |entry| entry.id == id);
        events.map(move |entry| TraceLine {
            kernel,
            event: match (entry.event, entry.failure()) {
                (Event::Sent, _) => "sent".to_owned(),
                (Event::Received, _) => "received".to_owned(),
                (Event::Forwarded, _) => "forwarded".to_owned(),
                (Event::Deferred, _) => "deferred".to_owned(),
                (Event::Failed, Some(status)) => format!("failed: {status}"),
                (Event::Failed, None) => "failed".to_owned(),
                (Event::Discarded, _) => "discarded".to_owned(),
            },
            hops: entry.hops,
            wall_time_ns: entry.at.wall_time_ns,
            logical: entry.at.logical,
        })
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_that_cannot_be_had_is_an_error() {
        assert_eq!(cores_to_pin_to(vec![3, 5]), Ok(vec![3, 5]));
        assert!(cores_to_pin_to(Vec::new()).expect_err("no cores").starts_with("--pin: "));
    }
}
