//! Kernels of a host and kernels of a device, joined by a bridge: as if they were in one fabric.

use super::{Bench, Failure, Gate, ensure};
use core::time::Duration;
use k2k::{Broker, Endpoint, Fixed, Memory};
use k2k_core::fabric::Event;
use k2k_core::gateway::GatewayConfig;
use k2k_core::{Command, Config, DeliveryStatus, KernelId, Message, MessageId, Phase, Priority, SendError};
use k2k_cuda::BlockReport;
use k2k_cuda::{Grid, Running, Session};
use k2k_device::Outcome;
use k2k_kernels::handlers::{Numbered, RoleKind};
use k2k_kernels::shape::{DeviceShape, KERNELS, PAYLOAD, SLOTS};

type DeviceRunning = Running<DeviceShape>;
type HostBroker = Broker<Fixed<KERNELS, SLOTS, PAYLOAD>>;
type HostEndpoint = Endpoint<Fixed<KERNELS, SLOTS, PAYLOAD>>;

/// Undecided messages of a host kernel, at most: half of what a shard holds.
const WINDOW: usize = SLOTS / 2;

/// A host's fabric and a device's, joined; the device runs `grids`.
fn start(
    bench: &Bench<'_>,
    config: &Config,
    grids: impl IntoIterator<Item = Grid>,
) -> Result<(HostBroker, DeviceRunning), Failure> {
    let memory = Memory::heap(config).map_err(|e| Failure(e.to_string()))?;
    let mut session = Session::new(bench.device, config)?;
    let grids = Vec::from_iter(grids);
    session.load_for(&bench.ptx, &grids)?;
    for grid in grids {
        // SAFETY: the library's own entry points; these roles take no addresses.
        unsafe { session.add(grid)? };
    }
    session.bridge("gateway", &memory, GatewayConfig::default())?;
    Ok((Broker::new(memory), session.start()?))
}

fn role(kind: RoleKind, name: &str) -> Grid {
    Grid::new("k2k_role").name(name).parameter(0, kind as u64)
}

/// The device's kernel of that name, when it has been announced.
fn find(bench: &Bench<'_>, broker: &HostBroker, name: &str) -> Result<KernelId, Failure> {
    let mut found = None;
    bench.until(&format!("{name:?} is announced"), || {
        found = broker.find(name);
        Ok(found.is_some())
    })?;
    found.ok_or_else(|| Failure(format!("no {name:?}")))
}

fn register(broker: &HostBroker, name: &str) -> Result<HostEndpoint, Failure> {
    broker.register(name).map_err(|e| Failure(e.to_string()))
}

fn stop(bench: &Bench<'_>, mut running: DeviceRunning) -> Result<Vec<BlockReport>, Failure> {
    let ended = running.stop(bench.options.patience)?;
    for block in &ended {
        ensure!(block.outcome() == Some(Outcome::Finished), "{block}");
    }
    Ok(ended)
}

/// What became of a message, when it is decided.
fn decided(bench: &Bench<'_>, me: &mut HostEndpoint, id: MessageId) -> Result<DeliveryStatus, Failure> {
    let mut status = DeliveryStatus::Pending;
    bench.until("the message's way ends", || {
        status = me.receipt(id).map_err(|e| Failure(e.to_string()))?.status;
        Ok(status != DeliveryStatus::Pending)
    })?;
    Ok(status)
}

/// Requests and answers, each with its receipt.
pub(super) fn echo(bench: &Bench<'_>) -> Result<String, Failure> {
    let count = (bench.options.messages / 10).max(100);
    let (broker, running) = start(bench, &Config::default(), [role(RoleKind::Echo, "echo")])?;
    let mut me = register(&broker, "me")?;
    let echo = find(bench, &broker, "echo")?;
    let mut asked: Vec<MessageId> = Vec::new();
    let mut answered = 0;
    bench.until("all answers come", || {
        if (asked.len() as u64) < count && asked.len() - answered < WINDOW {
            match me.send(echo, &Message::from_value(1, &Numbered::new(asked.len() as u64))) {
                Ok(id) => asked.push(id),
                Err(SendError::QueueFull { .. }) => {}
                Err(e) => return Err(Failure(e.to_string())),
            }
        }
        while let Some(answer) = me.try_receive() {
            let number = answered as u64;
            ensure!(answer.value::<Numbered>() == Ok(Numbered::new(number)), "answer {number} is not its question");
            let (found, expected) = (answer.header.correlation_id, asked[answered].sequence);
            ensure!(found == expected, "answer {number} is to {found}, not to {expected}");
            ensure!(answer.header.source() == echo, "answer {number} came from {}", answer.header.source());
            answered += 1;
        }
        Ok(answered as u64 == count)
    })?;
    // The last ones; a sender has receipts for so many.
    for id in asked.iter().rev().take(SLOTS) {
        let status = decided(bench, &mut me, *id)?;
        ensure!(status == DeliveryStatus::Delivered, "{id}: {status}");
    }
    let ended = stop(bench, running)?;
    drop(me);
    let stats = broker.stats();
    ensure!(
        stats.unaccounted() == 0 && stats.sent == 2 * count && stats.received == 2 * count,
        "the host counts {stats:?}"
    );
    ensure!(ended.len() == 2, "{} blocks", ended.len());
    Ok(format!("{count} requests and as many answers, all receipts delivered"))
}

/// A kernel of the device sends to one of the host.
pub(super) fn outward(bench: &Bench<'_>) -> Result<String, Failure> {
    let count = (bench.options.messages / 10).max(100);
    // The proxy of the first kernel that the host announces takes the first place behind the device's own two.
    let proxy = KernelId::new(2, 1);
    let mut gate = Gate::new(bench)?;
    let source =
        role(RoleKind::Source, "source").parameter(1, proxy.raw()).parameter(2, count).parameter(3, WINDOW as u64);
    let (broker, mut running) = start(bench, &Config::default(), [gate.before(source)])?;
    let mut me = register(&broker, "me")?;
    bench.until("the host's kernel is announced", || Ok(running.observe()?.find("me") == Some(proxy)))?;
    // SAFETY: `running` keeps it.
    unsafe { gate.open() };
    let mut next = 0;
    bench.until("all messages come", || {
        while let Some(message) = me.try_receive() {
            ensure!(message.value::<Numbered>() == Ok(Numbered::new(next)), "message {next} came as another");
            next += 1;
        }
        Ok(next == count)
    })?;
    let ended = running.join(bench.options.patience)?;
    let tally = ended.iter().find(|block| block.name == "source").map_or([0; 7], |block| block.report.values);
    ensure!(tally[..2] == [count, count], "the source counts {tally:?}");
    Ok(format!("{count} messages, all receipts delivered"))
}

/// Each way to fail, as the host's sender sees it.
pub(super) fn failures(bench: &Bench<'_>) -> Result<String, Failure> {
    let grids = [role(RoleKind::Echo, "echo"), role(RoleKind::Sink, "leaves").parameter(2, 1)];
    let (broker, running) = start(bench, &Config::default(), grids)?;
    let mut me = register(&broker, "me")?;
    let (echo, leaves) = (find(bench, &broker, "echo")?, find(bench, &broker, "leaves")?);
    let ids: Vec<KernelId> = running.observe()?.kernels().map(|(id, _)| id).collect();
    let paused = ids.iter().copied().find(|id| id.index() == 0).ok_or_else(|| Failure("no echo".to_owned()))?;
    running.command(paused, Command::Pause)?;
    bench.until("the echo pauses", || Ok(running.observe()?.phase(paused) == Some(Phase::Paused)))?;
    let number = |number| Message::<PAYLOAD>::from_value(1, &Numbered::new(number));
    let send = |me: &mut HostEndpoint, to, message: &Message<PAYLOAD>| {
        me.send(to, message).map_err(|e| Failure(e.to_string()))
    };
    // Waits on the device for longer than it may.
    let mut message = number(1);
    message.header.deadline_ns = me.deadline_in(Duration::from_millis(100));
    let late = send(&mut me, echo, &message)?;
    // A gateway is a hop.
    let mut message = number(2);
    message.header.hop_limit = 1;
    let near = send(&mut me, leaves, &message)?;
    let status = decided(bench, &mut me, near)?;
    ensure!(status == DeliveryStatus::Delivered, "one hop, and one is allowed: {status}");
    // It has left by now, or does soon: either the send is refused or the receipt says so.
    let mut gone = None;
    bench.until("the device's kernel leaves", || {
        match me.send(leaves, &number(3)) {
            Ok(id) => gone = Some(decided(bench, &mut me, id)?),
            Err(SendError::NotFound { .. }) => gone = Some(DeliveryStatus::NotFound),
            Err(e) => return Err(Failure(e.to_string())),
        }
        Ok(gone == Some(DeliveryStatus::NotFound))
    })?;
    let status = decided(bench, &mut me, late)?;
    ensure!(status == DeliveryStatus::Timeout, "a deadline of 100 ms, and the receiver pauses: {status}");
    running.command(paused, Command::Run)?;
    stop(bench, running)?;
    Ok("timed out, not found, hop limit".to_owned())
}

/// What waits with high priority is received before what has waited for longer: the receiver's trace tells.
pub(super) fn priority(bench: &Bench<'_>) -> Result<String, Failure> {
    let config = Config { tracing: true, ..Config::default() };
    let (broker, running) = start(bench, &config, [role(RoleKind::Echo, "echo")])?;
    let mut me = register(&broker, "me")?;
    let echo = find(bench, &broker, "echo")?;
    let there = KernelId::new(0, 1);
    running.command(there, Command::Pause)?;
    bench.until("the echo pauses", || Ok(running.observe()?.phase(there) == Some(Phase::Paused)))?;
    for number in 0..8 {
        me.send(echo, &Message::from_value(1, &Numbered::new(number))).map_err(|e| Failure(e.to_string()))?;
    }
    bench.until("eight wait", || Ok(running.observe()?.waiting(there) == Some(8)))?;
    let high = Message::from_value(1, &Numbered::new(100));
    let high = me.send_priority(echo, &high, Priority::High).map_err(|e| Failure(e.to_string()))?;
    // The proxy of this one has sent nine, says its trace: an event comes after the message is in the inbox, and the counter
    // before that.
    bench.until("the ninth has crossed", || {
        let now = running.observe()?;
        let events = now.find("me").map(|proxy| now.trace_of(proxy)).unwrap_or_default();
        Ok(events.iter().filter(|event| event.event == Event::Sent).count() == 9)
    })?;
    running.command(there, Command::Run)?;
    let mut answers = 0;
    bench.until("nine answers come", || {
        while me.try_receive().is_some() {
            answers += 1;
        }
        Ok(answers == 9)
    })?;
    let events = running.observe()?.trace_of(there);
    stop(bench, running)?;
    let received: Vec<u64> =
        events.iter().filter(|event| event.event == Event::Received).map(|event| event.id.sequence).collect();
    ensure!(received.len() == 9 && received[0] == high.sequence, "received in the order {received:?}");
    Ok("one of high priority overtook eight".to_owned())
}

/// A kernel whose block works with it: every thread does its part of every job, once.
pub(super) fn workers(bench: &Bench<'_>) -> Result<String, Failure> {
    const WORDS: usize = 1000;
    let mut array = bench.device.allocate(WORDS * size_of::<u64>())?;
    let first: Vec<u64> = (0..WORDS as u64).collect();
    array.write(0, bytemuck::cast_slice(&first))?;
    let grid =
        Grid::new("k2k_adder").name("adder").threads(128).parameter(0, array.address()).parameter(1, WORDS as u64);
    let (broker, running) = start(bench, &Config::default(), [grid])?;
    let mut me = register(&broker, "me")?;
    let adder = find(bench, &broker, "adder")?;
    let (jobs, mut sum) = (20, 0);
    for job in 1..=jobs {
        me.send(adder, &Message::from_value(1, &job)).map_err(|e| Failure(e.to_string()))?;
        bench.until("the job is done", || Ok(me.try_receive().is_some()))?;
        sum += job;
    }
    stop(bench, running)?;
    let mut found = vec![0u64; WORDS];
    array.read(0, bytemuck::cast_slice_mut(&mut found))?;
    let wrong = (0..WORDS as u64).zip(&found).find(|(i, found)| **found != i + sum);
    ensure!(wrong.is_none(), "word {wrong:?} is not its number and {sum}");
    Ok(format!("{jobs} jobs, {WORDS} words each, 97 threads"))
}
