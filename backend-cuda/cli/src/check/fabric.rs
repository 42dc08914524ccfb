//! Kernels of one device, one per block, on a fabric in its memory.

use super::{Bench, Failure, Gate, ensure};
use core::time::Duration;
use k2k_core::fabric::Stats;
use k2k_core::{Command, Config, KernelId, Phase};
use k2k_cuda::BlockReport;
use k2k_cuda::Error;
use k2k_cuda::{Grid, Running, Session};
use k2k_device::Outcome;
use k2k_kernels::handlers::{RoleKind, Tally};
use k2k_kernels::shape::{DeviceShape, LAYOUT, LAYOUT_NAMES, SLOTS};

type DeviceRunning = Running<DeviceShape>;

/// Undecided messages of a source, at most: half of what a shard holds.
const WINDOW: u64 = SLOTS as u64 / 2;
/// What sources are called.
const SOURCES: [&str; 3] = ["source", "normal", "high"];
const HIGH: u64 = 1 << 8;

pub(super) fn layout(bench: &Bench<'_>) -> Result<String, Failure> {
    let mut running = start(bench, &Config::default(), [Grid::new("k2k_layout")])?;
    let ended = running.join(bench.options.patience)?;
    let found = ended.first().ok_or_else(|| Failure("no report".to_owned()))?.report.values;
    for ((name, found), expected) in LAYOUT_NAMES.iter().zip(found).zip(LAYOUT) {
        ensure!(found == expected, "{name}: {found:#x} on the device, {expected:#x} here");
    }
    Ok(format!("{} numbers", LAYOUT.len()))
}

fn start(bench: &Bench<'_>, config: &Config, grids: impl IntoIterator<Item = Grid>) -> Result<DeviceRunning, Failure> {
    let mut session = Session::new(bench.device, config)?;
    let grids = Vec::from_iter(grids);
    session.load_for(&bench.ptx, &grids)?;
    for grid in grids {
        // SAFETY: the library's own entry points; roles take no addresses but a ping's.
        unsafe { session.add(grid)? };
    }
    Ok(session.start()?)
}

fn role(kind: RoleKind, name: &str) -> Grid {
    Grid::new("k2k_role").name(name).parameter(0, kind as u64)
}

/// A source of `count` messages to the kernel at `place`, the first one there.
fn source(name: &str, index: u16, count: u64) -> Grid {
    role(RoleKind::Source, name).parameter(1, KernelId::new(index, 1).raw()).parameter(2, count).parameter(3, WINDOW)
}

/// Waits until all messages that were accepted have ended, as the kernels' counters say, and the sources know it.
fn settle(bench: &Bench<'_>, running: &DeviceRunning, sent: u64) -> Result<Stats, Failure> {
    let mut stats = Stats::default();
    bench.until("all messages end", || {
        stats = running.observe()?.total_stats();
        // Reading the reports also says what has ended everything, if something has.
        let reports = running.reports()?;
        let mut sources = reports.iter().filter(|block| SOURCES.iter().any(|name| block.name.starts_with(name)));
        let all_know = sources.all(|block| block.outcome() == Some(Outcome::Finished));
        Ok(stats.sent >= sent && stats.unaccounted() == 0 && all_know)
    })?;
    Ok(stats)
}

fn stop(bench: &Bench<'_>, mut running: DeviceRunning) -> Result<Vec<BlockReport>, Failure> {
    let ended = running.stop(bench.options.patience)?;
    for block in &ended {
        ensure!(block.outcome() == Some(Outcome::Finished), "{block}");
    }
    Ok(ended)
}

fn tally(ended: &[BlockReport], name: &str) -> Tally {
    let found = ended.iter().find(|block| block.name == name);
    Tally::from_values(found.map_or([0; 7], |block| block.report.values))
}

/// Received, torn, out of order.
fn taken(ended: &[BlockReport], name: &str) -> (u64, u64, u64) {
    let found = ended.iter().find(|block| block.name == name);
    found.map_or((0, 0, 0), |block| (block.report.values[0], block.report.values[1], block.report.values[2]))
}

pub(super) fn accounting(bench: &Bench<'_>) -> Result<String, Failure> {
    let count = bench.options.messages;
    let mut gate = Gate::new(bench)?;
    let grids = [role(RoleKind::Sink, "sink"), gate.before(source("source", 0, count))];
    let mut running = start(bench, &Config::default(), grids)?;
    running.wait_ready(bench.options.patience)?;
    // SAFETY: `running` keeps it.
    unsafe { gate.open() };
    let stats = settle(bench, &running, count)?;
    let ended = stop(bench, running)?;
    let tally = tally(&ended, "source");
    ensure!(tally == Tally { accepted: count, delivered: count, ..Tally::default() }, "the source counts {tally:?}");
    ensure!(taken(&ended, "sink") == (count, 0, 0), "the sink counts {:?}", taken(&ended, "sink"));
    let expected = Stats { sent: count, received: count, refused: stats.refused, ..Stats::default() };
    ensure!(stats == expected, "the fabric counts {stats:?}");
    Ok(format!("{count} messages sent, received and receipted"))
}

pub(super) fn fan_in(bench: &Bench<'_>) -> Result<String, Failure> {
    let count = (bench.options.messages / 4).max(1);
    let mut gate = Gate::new(bench)?;
    let grids = [
        role(RoleKind::Sink, "sink"),
        gate.before(source("normal", 0, count).blocks(3)),
        gate.before(source("high", 0, count).parameter(4, HIGH).parameter(3, WINDOW / 4)),
    ];
    let mut running = start(bench, &Config::default(), grids)?;
    running.wait_ready(bench.options.patience)?;
    // SAFETY: `running` keeps it.
    unsafe { gate.open() };
    let stats = settle(bench, &running, 4 * count)?;
    let ended = stop(bench, running)?;
    ensure!(taken(&ended, "sink") == (4 * count, 0, 0), "the sink counts {:?}", taken(&ended, "sink"));
    ensure!((stats.sent, stats.received) == (4 * count, 4 * count), "the fabric counts {stats:?}");
    Ok(format!("{} messages, a quarter of them of high priority", 4 * count))
}

pub(super) fn route(bench: &Bench<'_>) -> Result<String, Failure> {
    let count = (bench.options.messages / 4).max(1);
    let mut gate = Gate::new(bench)?;
    let grids = [
        role(RoleKind::Sink, "sink"),
        role(RoleKind::Relay, "relay").blocks(2),
        gate.before(source("source", 0, count)),
    ];
    let mut running = start(bench, &Config::default(), grids)?;
    let ids = running.wait_ready(bench.options.patience)?;
    let [sink, first, second, source] = ids[..] else { return Err(Failure(format!("{} kernels, not 4", ids.len()))) };
    running.set_route(source, sink, Some(first))?;
    running.set_route(first, sink, Some(second))?;
    // SAFETY: `running` keeps it.
    unsafe { gate.open() };
    let stats = settle(bench, &running, count)?;
    let ended = stop(bench, running)?;
    ensure!(taken(&ended, "sink") == (count, 0, 0), "the sink counts {:?}", taken(&ended, "sink"));
    ensure!(tally(&ended, "source").delivered == count, "the source counts {:?}", tally(&ended, "source"));
    ensure!(stats.forwarded == 2 * count, "not all went through both relays: {stats:?}");
    Ok(format!("{count} messages, {} hops", stats.forwarded))
}

pub(super) fn route_loop(bench: &Bench<'_>) -> Result<String, Failure> {
    let count = 20;
    let mut gate = Gate::new(bench)?;
    let grids = [
        role(RoleKind::Sink, "sink"),
        role(RoleKind::Relay, "relay"),
        gate.before(source("source", 0, count).parameter(4, 5)),
    ];
    let mut running = start(bench, &Config::default(), grids)?;
    let ids = running.wait_ready(bench.options.patience)?;
    let [sink, relay, source] = ids[..] else { return Err(Failure(format!("{} kernels, not 3", ids.len()))) };
    // Round and round between the source and a relay, and never to the sink.
    running.set_route(relay, sink, Some(source))?;
    running.set_route(source, sink, Some(relay))?;
    // SAFETY: `running` keeps it.
    unsafe { gate.open() };
    let stats = settle(bench, &running, count)?;
    let ended = stop(bench, running)?;
    let tally = tally(&ended, "source");
    let expected = Tally { accepted: count, max_hops_exceeded: count, ..Tally::default() };
    ensure!(tally == expected, "the source counts {tally:?}");
    ensure!(stats.received == 0 && stats.max_hops_exceeded == count, "the fabric counts {stats:?}");
    // The message goes out with no hop behind it, and is ended by whoever has it when there are five.
    ensure!(stats.forwarded == 5 * count, "the fabric counts {stats:?}");
    Ok(format!("{count} messages ended after {} hops", stats.forwarded))
}

pub(super) fn not_found(bench: &Bench<'_>) -> Result<String, Failure> {
    // A sink that stops after half of them.
    let (count, half) = (40, 20);
    let mut gate = Gate::new(bench)?;
    let grids = [role(RoleKind::Sink, "sink").parameter(2, half), gate.before(source("source", 0, count))];
    let mut running = start(bench, &Config::default(), grids)?;
    running.wait_ready(bench.options.patience)?;
    // SAFETY: `running` keeps it.
    unsafe { gate.open() };
    let ended = running.join(bench.options.patience)?;
    let tally = tally(&ended, "source");
    let received = taken(&ended, "sink").0;
    ensure!(received == half && tally.delivered == half, "{received} received, and the source counts {tally:?}");
    ensure!(tally.delivered + tally.not_found == count, "the source counts {tally:?}");
    Ok(format!("{} delivered, {} not found", tally.delivered, tally.not_found))
}

pub(super) fn timeout(bench: &Bench<'_>) -> Result<String, Failure> {
    let count = 10;
    let limit = Duration::from_millis(50);
    let mut gate = Gate::new(bench)?;
    let grids = [
        role(RoleKind::Sink, "sink"),
        gate.before(source("source", 0, count).parameter(5, limit.as_nanos() as u64)),
        role(RoleKind::Relay, "idle"),
    ];
    let mut running = start(bench, &Config::default(), grids)?;
    let ids = running.wait_ready(bench.options.patience)?;
    running.command(ids[0], Command::Pause)?;
    bench.until("the sink pauses", || Ok(running.observe()?.phase(ids[0]) == Some(Phase::Paused)))?;
    // SAFETY: `running` keeps it.
    unsafe { gate.open() };
    let stats = settle(bench, &running, count)?;
    running.command(ids[0], Command::Run)?;
    let ended = stop(bench, running)?;
    let tally = tally(&ended, "source");
    ensure!(tally == Tally { accepted: count, timeout: count, ..Tally::default() }, "the source counts {tally:?}");
    ensure!(stats.timeout == count && stats.received == 0, "the fabric counts {stats:?}");
    ensure!(taken(&ended, "sink").0 == 0, "a message was received and timed out");
    Ok(format!("{count} messages timed out in the inbox of a paused kernel"))
}

pub(super) fn commands(bench: &Bench<'_>) -> Result<String, Failure> {
    // No more than wait in a shard.
    let count = WINDOW;
    let mut gate = Gate::new(bench)?;
    let grids = [role(RoleKind::Sink, "sink"), gate.before(source("source", 0, count))];
    let mut running = start(bench, &Config::default(), grids)?;
    let ids = running.wait_ready(bench.options.patience)?;
    running.command(ids[0], Command::Pause)?;
    bench.until("the sink pauses", || Ok(running.observe()?.phase(ids[0]) == Some(Phase::Paused)))?;
    // SAFETY: `running` keeps it.
    unsafe { gate.open() };
    bench.until("the messages arrive", || Ok(running.observe()?.waiting(ids[0]) == Some(count)))?;
    let beats = running.observe()?.heartbeat(ids[0]).unwrap_or_default();
    bench.until("a paused kernel beats", || Ok(running.observe()?.heartbeat(ids[0]).unwrap_or_default() > beats))?;
    let received = running.observe()?.stats(ids[0]).unwrap_or_default().received;
    ensure!(received == 0, "a paused kernel received {received} messages");
    let ended = running.drain(bench.options.patience)?;
    ensure!(taken(&ended, "sink") == (count, 0, 0), "the sink counts {:?}", taken(&ended, "sink"));
    Ok(format!("{count} messages waited for a paused kernel, which took them before it stopped"))
}

pub(super) fn hang(bench: &Bench<'_>) -> Result<String, Failure> {
    // The hang ends by itself after a while, so that the device can go on being used.
    let lasts = Duration::from_secs(2);
    let config = Config { tracing: true, ..Config::default() };
    let mut gate = Gate::new(bench)?;
    let grids = [
        role(RoleKind::Hang, "hang").parameter(5, lasts.as_nanos() as u64),
        gate.before(source("source", 0, 3)),
        role(RoleKind::Relay, "well"),
    ];
    let mut running = start(bench, &config, grids)?;
    running.wait_ready(bench.options.patience)?;
    // SAFETY: `running` keeps it.
    unsafe { gate.open() };
    bench.until("the kernel gets its message", || {
        Ok(running.observe()?.stats(KernelId::new(0, 1)).is_some_and(|stats| stats.received > 0))
    })?;
    let report = match running.stop(lasts / 8) {
        Err(Error::Hung(report)) => report,
        Ok(_) => return Err(Failure("a kernel that hangs was stopped".to_owned())),
        Err(e) => return Err(e.into()),
    };
    let names: Vec<&str> = report.kernels.iter().map(|kernel| kernel.report.name.as_str()).collect();
    ensure!(names.contains(&"hang"), "the report names {names:?}");
    let hung = report.kernels.iter().find(|kernel| kernel.report.name == "hang");
    let hung = hung.ok_or_else(|| Failure("not in the report".to_owned()))?;
    ensure!(!hung.moves() && hung.phase == Phase::Running && !hung.trace.is_empty(), "{report}");
    running.stop(bench.options.patience)?;
    Ok(format!("{} of {} kernels, {} trace events", report.kernels.len(), report.blocks, hung.trace.len()))
}
