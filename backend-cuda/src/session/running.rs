//! The kernels of a session while they run: looking at them, commanding them, and waiting for their end.

use super::grid::Grid;
use super::image::Image;
use super::publish::Published;
use crate::bridge::Bridge;
use crate::buffer::DeviceBuffer;
use crate::clock::ClockOffset;
use crate::device::{Device, Module};
use crate::driver::{Driver, Handle};
use crate::error::Error;
use crate::hang::{HangReport, HungKernel};
use crate::report::BlockReport;
use bytemuck::Zeroable as _;
use core::fmt;
use core::ops::{Deref, Range};
use core::time::Duration;
use k2k::memory::FileOptions;
use k2k::process::Own;
use k2k_core::fabric::TraceEntry;
use k2k_core::sync::Gpu;
use k2k_core::sync::Ordering::Relaxed;
use k2k_core::{Command, Config, Fabric, FabricRef, Fixed, KernelId, Shape};
use k2k_device::{Outcome, Report};
use std::io::Write as _;
use std::sync::PoisonError;
use std::thread;
use std::time::Instant;

/// How long a session that is dropped waits for its kernels.
const PATIENCE: Duration = Duration::from_secs(2);

/// Between two looks at a device.
const LOOK: Duration = Duration::from_micros(200);

/// Between two looks at the table, for kernels that have yet to be told.
const TELL: Duration = Duration::from_millis(2);

/// How long gateways may take to carry what is on its way, when all others have ended.
const LINGER: Duration = Duration::from_millis(300);

/// A grid that was launched.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) grid: Grid,
    pub(super) first_index: u32,
    pub(super) reports: DeviceBuffer,
    /// `None` when it has ended.
    pub(super) launch: Option<Handle>,
    /// Workspace and argument: kept for the kernels.
    pub(super) _buffers: [DeviceBuffer; 2],
}

impl Started {
    fn has_index(&self, index: usize) -> bool {
        let first = self.first_index as usize;
        (first..first + self.grid.blocks as usize).contains(&index)
    }

    /// What its blocks have written so far.
    fn reports(&self) -> Result<Vec<BlockReport>, Error> {
        let mut reports = vec![Report::zeroed(); self.grid.blocks as usize];
        self.reports.read(0, bytemuck::cast_slice_mut(&mut reports))?;
        let ended = (0..).zip(reports).map(|(block, report)| BlockReport {
            name: self.grid.block_name(block),
            entry: self.grid.entry.clone(),
            block,
            report,
        });
        Ok(ended.collect())
    }
}

/// The kernels of a session. Dropping it tells them to stop and waits for them for 2 s. If they still run then, their
/// memory is not freed, their [device](Device) stays [busy](Device::is_busy), and a [report](HangReport) goes to the standard
/// error output; end the process with [`abandon`](crate::abandon) then, as its own end may wait for them.
pub struct Running<Sh: Shape<Scope = Gpu>> {
    device: Device,
    shape: Sh,
    config: Config,
    clock: ClockOffset,
    fabric: DeviceBuffer,
    /// Kept for the kernels.
    _modules: Vec<Module>,
    grids: Vec<Started>,
    bridges: Vec<Bridge>,
    /// Where onlookers see the fabric. A forked process does not remove the file.
    published: Option<Own<Published<Sh>>>,
    /// Nothing runs, and the device is told so.
    ended: bool,
}

impl<Sh: Shape<Scope = Gpu>> fmt::Debug for Running<Sh> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running")
            .field("shape", &self.shape)
            .field("device", &self.device)
            .field("grids", &self.grids)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl<Sh: Shape<Scope = Gpu>> Running<Sh> {
    pub(super) const fn new(
        device: Device,
        shape: Sh,
        config: Config,
        clock: ClockOffset,
        fabric: DeviceBuffer,
        modules: Vec<Module>,
        bridges: Vec<Bridge>,
    ) -> Self {
        let grids = Vec::new();
        Self { device, shape, config, clock, fabric, _modules: modules, grids, bridges, published: None, ended: false }
    }

    pub(super) fn push(&mut self, grid: Started) {
        self.grids.push(grid);
    }

    pub(super) fn driver(&self) -> &dyn Driver {
        self.device.driver()
    }

    /// The device.
    #[must_use]
    pub const fn device(&self) -> &Device {
        &self.device
    }

    /// Address of the fabric on the device.
    #[must_use]
    pub const fn fabric_address(&self) -> u64 {
        self.fabric.address()
    }

    /// The device's clock, as it was measured before the kernels started.
    #[must_use]
    pub const fn clock(&self) -> ClockOffset {
        self.clock
    }

    /// Copies the fabric's table, routes, traces, failures, latencies and counts of mail, to look at.
    ///
    /// # Errors
    /// [`Error::NoAnswer`] if the device does not copy; [`Error::Memory`].
    pub fn observe(&self) -> Result<Snapshot<Sh>, Error> {
        let snapshot = self.look_at_table()?;
        self.copy(&snapshot, snapshot.fabric().route_bytes())?;
        self.copy(&snapshot, snapshot.fabric().record_bytes())?;
        for index in 0..self.indices() {
            self.copy(&snapshot, snapshot.fabric().doorbell_bytes(index))?;
        }
        if let Some(published) = &self.published {
            published.show(snapshot.fabric());
        }
        Ok(snapshot)
    }

    /// Publishes the fabric to onlookers of this machine, in a shared-memory file: `k2k ls` and `k2k top` show these kernels
    /// beside a host's, [`k2k::inspect`] gives them as data, and a hang is seen while it hangs.
    ///
    /// The file shows what this session copies: ten times a second while it waits, in [`join`](Self::join),
    /// [`stop`](Self::stop), [`drain`](Self::drain) and [`wait_ready`](Self::wait_ready), and at each
    /// [`observe`](Self::observe). It has the fabric's layout, without mail and receipts, and is marked as a copy: nobody can
    /// register there. It is removed when the session is dropped. Publishing again replaces the first file.
    ///
    /// # Errors
    /// [`Error::Memory`] if the file cannot be made; [`Error::NoAnswer`] if the device does not copy.
    pub fn publish(&mut self, name: &str, options: FileOptions) -> Result<(), Error> {
        self.published = None;
        self.published = Some(Own::new(Published::new(self.shape, name, &self.config, options)?));
        self.observe().map(drop)
    }

    /// Shows onlookers how things are, if that is due.
    fn show(&self) {
        if self.published.as_ref().is_some_and(|published| published.is_due()) {
            // A device that does not copy is told of by whatever this session does next; onlookers see what was.
            let _ = self.observe();
        }
    }

    /// As [`observe`](Self::observe), but only header and table.
    fn look_at_table(&self) -> Result<Snapshot<Sh>, Error> {
        let snapshot = Snapshot { image: Image::new(self.shape, &self.config)? };
        self.copy(&snapshot, snapshot.fabric().table_bytes())?;
        Ok(snapshot)
    }

    fn copy(&self, to: &Snapshot<Sh>, range: Range<usize>) -> Result<(), Error> {
        let mut bytes = vec![0; range.len()];
        self.fabric.read(range.start, &mut bytes)?;
        for (word, bytes) in to.image.words(range).iter().zip(bytes.chunks_exact(8)) {
            // Relaxed: nobody else has this copy yet.
            word.store(u64::from_le_bytes(bytes.try_into().unwrap_or_default()), Relaxed);
        }
        Ok(())
    }

    /// Indices that belong to the session's grids.
    fn indices(&self) -> usize {
        self.grids.iter().map(|grid| grid.grid.blocks as usize).sum()
    }

    /// What each block has written so far: in the order in which their grids were added. While a block runs, its
    /// outcome may be newer than the values beside it.
    ///
    /// # Errors
    /// [`Error::NoAnswer`] if the device does not copy.
    pub fn reports(&self) -> Result<Vec<BlockReport>, Error> {
        let reports = self.grids.iter().map(Started::reports).collect::<Result<Vec<_>, Error>>()?;
        Ok(reports.into_iter().flatten().collect())
    }

    /// Waits until every block has registered, and returns their addresses, in the order in which their grids were
    /// added. Like all waits of a session, this one ends with `timeout` at the latest: a session is a supervisor, which
    /// nobody commands, so do not give it a timeout without end. Blocks that have ended by then without registering are left out.
    ///
    /// # Errors
    /// [`Error::Refused`] as soon as one gives up; [`Error::NotReady`]; what ended them all.
    pub fn wait_ready(&mut self, timeout: Duration) -> Result<Vec<KernelId>, Error> {
        let started = Instant::now();
        loop {
            self.poll()?;
            let reports = self.reports()?;
            if let Some(refused) = reports.iter().position(BlockReport::is_refusal) {
                // [reported]: the values are in a copy that begins after the outcome was seen.
                return Err(Error::Refused(self.reports()?.swap_remove(refused)));
            }
            let ready = |ended: &&BlockReport| ended.kernel().is_some() || ended.outcome() == Some(Outcome::Finished);
            let count = reports.iter().filter(ready).count();
            if count == reports.len() {
                return Ok(reports.iter().filter_map(BlockReport::kernel).collect());
            }
            self.show();
            let waited = started.elapsed();
            if waited >= timeout {
                return Err(Error::NotReady { waited, ready: count, blocks: reports.len() });
            }
            thread::sleep(LOOK.min(timeout - waited));
        }
    }

    /// Tells a kernel what to do. It sees that at its next pass.
    ///
    /// # Errors
    /// [`Error::NotRegistered`] if it has left, or has not registered yet.
    pub fn command(&self, kernel: KernelId, command: Command) -> Result<(), Error> {
        self.tell(&self.look_at_table()?, kernel, command)
    }

    fn tell(&self, table: &Snapshot<Sh>, kernel: KernelId, command: Command) -> Result<(), Error> {
        let (offset, word) = table.fabric().command_word(kernel, command)?;
        self.fabric.write_shared(offset, &word.to_le_bytes())
    }

    /// Sets the next hop that the kernel at `at` uses for messages to `destination`, or with `None` lets it send to it
    /// directly again, while traffic flows.
    ///
    /// # Errors
    /// [`Error::NotRegistered`] names the address nobody is registered at.
    pub fn set_route(&self, at: KernelId, destination: KernelId, next_hop: Option<KernelId>) -> Result<(), Error> {
        let (offset, word) = self.look_at_table()?.fabric().route_word(at, destination, next_hop)?;
        self.fabric.write_shared(offset, &word.to_le_bytes())
    }

    /// Tells all kernels to stop after the message in hand, and waits for that.
    ///
    /// # Errors
    /// [`Error::Hung`] if some have not ended by then: the session can be asked again. Anything else ended them all,
    /// except [`Error::NoAnswer`], after which they may still run.
    pub fn stop(&mut self, timeout: Duration) -> Result<Vec<BlockReport>, Error> {
        self.wait(Some(Command::Stop), timeout)
    }

    /// Tells all kernels to handle what is in their inboxes and then to stop, and waits for that.
    ///
    /// # Errors
    /// As for [`stop`](Self::stop).
    pub fn drain(&mut self, timeout: Duration) -> Result<Vec<BlockReport>, Error> {
        self.wait(Some(Command::Drain), timeout)
    }

    /// Waits for the kernels to end by themselves, or because they were [told](Self::command) to.
    ///
    /// # Errors
    /// As for [`stop`](Self::stop).
    pub fn join(&mut self, timeout: Duration) -> Result<Vec<BlockReport>, Error> {
        self.wait(None, timeout)
    }

    /// Whether all kernels have ended.
    ///
    /// # Errors
    /// What ended them all, if it was not their own doing.
    pub fn is_finished(&mut self) -> Result<bool, Error> {
        self.poll()
    }

    fn wait(&mut self, command: Option<Command>, timeout: Duration) -> Result<Vec<BlockReport>, Error> {
        let started = Instant::now();
        let mut first = None;
        let mut told: Vec<(KernelId, Command)> = Vec::new();
        let mut alone = None;
        let mut next_tell = Duration::ZERO;
        loop {
            if self.poll()? {
                if self.published.is_some() {
                    // How they ended.
                    let _ = self.observe();
                }
                return self.reports();
            }
            self.show();
            let waited = started.elapsed();
            if first.is_none() {
                first = Some(self.look_at_table()?);
            }
            // Those that serve others end when the others have, whatever was asked of these.
            let others = self.grids.iter().any(|grid| grid.launch.is_some() && !grid.grid.serves_others);
            let now = if others {
                command
            } else if alone.get_or_insert(waited).saturating_add(LINGER) > waited {
                Some(Command::Drain)
            } else {
                // Whoever sends across the link all the time keeps it from draining.
                Some(Command::Stop)
            };
            if let Some(command) = now.filter(|_| waited >= next_tell) {
                // Again and again: a kernel may register after the others were told.
                let table = self.look_at_table()?;
                let indices: Vec<_> = self.grids.iter().filter(|grid| grid.grid.serves_others != others).collect();
                let meant = |id: &KernelId| indices.iter().any(|grid| grid.has_index(id.index()));
                for (kernel, _) in table.fabric().kernels().filter(|(id, _)| meant(id)) {
                    if !told.contains(&(kernel, command)) {
                        self.tell(&table, kernel, command)?;
                        told.push((kernel, command));
                    }
                }
                next_tell = waited + TELL;
            }
            if waited >= timeout {
                let first = first.as_ref().map_or_else(|| self.look_at_table(), |first| Ok(first.clone()))?;
                return Err(Error::Hung(Box::new(self.hung(waited, &first)?)));
            }
            thread::sleep(LOOK.min(timeout - waited));
        }
    }

    /// Looks whether grids have ended; whether all have.
    fn poll(&mut self) -> Result<bool, Error> {
        let mut failure = None;
        let driver = self.device.driver();
        for grid in &mut self.grids {
            let Some(launch) = grid.launch else { continue };
            match driver.is_done(launch) {
                Ok(true) => {
                    driver.finish(launch);
                    grid.launch = None;
                }
                Ok(false) => {}
                // Nothing runs any more.
                Err(e) => failure = Some(e),
            }
        }
        let all = failure.is_some() || self.grids.iter().all(|grid| grid.launch.is_none());
        if all && !self.ended {
            self.ended = true;
            self.bridges.clear();
            self.device.end();
        }
        failure.map_or(Ok(all), Err)
    }

    fn hung(&self, waited: Duration, first: &Snapshot<Sh>) -> Result<HangReport, Error> {
        let (now, first) = (self.observe()?, first.fabric());
        let (copy, now) = (&now, now.fabric());
        let mut kernels = Vec::new();
        for grid in self.grids.iter().filter(|grid| grid.launch.is_some()) {
            let reports = grid.reports()?;
            let at_work = |ended: &BlockReport| matches!(ended.outcome(), Some(Outcome::NotStarted | Outcome::Running));
            // A grid whose blocks all say that they have ended, and which has not, is to be seen as well.
            let any = reports.iter().any(at_work);
            for report in reports.into_iter().filter(|ended| !any || at_work(ended)) {
                let index = grid.first_index + report.block;
                let found = now.statuses().find(|(id, _)| id.index() == index as usize);
                let known = found.map(|(id, _)| id).or(report.kernel());
                let id = known.unwrap_or(KernelId::new(index as u16, 0));
                kernels.push(HungKernel {
                    report,
                    index,
                    status: found.map(|(_, status)| status),
                    phase: now.phase(id).unwrap_or_default(),
                    heartbeats: (first.heartbeat(id).unwrap_or_default(), now.heartbeat(id).unwrap_or_default()),
                    stats: now.stats(id).unwrap_or_default(),
                    waiting: now.waiting(id).unwrap_or_default(),
                    trace: copy.trace_of(id),
                });
            }
        }
        Ok(HangReport { waited, blocks: self.indices(), kernels })
    }
}

impl<Sh: Shape<Scope = Gpu>> Drop for Running<Sh> {
    fn drop(&mut self) {
        if self.device.is_here()
            && !self.ended
            && let Err(e) = self.stop(PATIENCE)
            && !self.ended
        {
            // If it cannot be said, no way is left to say so; `eprintln!` would panic.
            let _ = writeln!(
                std::io::stderr(),
                "k2k-cuda: a session was dropped, its memory stays allocated and its device busy: {e}"
            );
        }
        for grid in &mut self.grids {
            for owner in core::mem::take(grid.grid.keep.get_mut().unwrap_or_else(PoisonError::into_inner)) {
                // Dropped now, or when nothing runs any more, or never.
                self.device.keep(owner);
            }
        }
    }
}

/// A copy of a fabric's table, routes, traces, failures, latencies and counts of mail, as they were at about the same time. Inboxes and receipts are
/// not in it. The fabric is one of a GPU: nobody can register there. Of a [`Fixed`] shape, a snapshot derefs to it.
pub struct Snapshot<Sh: Shape<Scope = Gpu>> {
    image: Image<Sh>,
}

impl<Sh: Shape<Scope = Gpu>> Clone for Snapshot<Sh> {
    fn clone(&self) -> Self {
        Self { image: self.image.clone() }
    }
}

impl<Sh: Shape<Scope = Gpu>> fmt::Debug for Snapshot<Sh> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.fabric().kernels()).finish()
    }
}

impl<const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize> Deref
    for Snapshot<Fixed<KERNELS, SLOTS, PAYLOAD, Gpu>>
{
    type Target = Fabric<KERNELS, SLOTS, PAYLOAD, Gpu>;

    fn deref(&self) -> &Self::Target {
        self.fabric().storage()
    }
}

impl<Sh: Shape<Scope = Gpu>> Snapshot<Sh> {
    /// The fabric.
    #[must_use]
    pub const fn fabric(&self) -> FabricRef<'_, Sh> {
        self.image.fabric()
    }

    /// As [`FabricRef::waiting`].
    #[must_use]
    pub fn waiting(&self, id: KernelId) -> Option<u64> {
        self.fabric().waiting(id)
    }

    /// A kernel's last events, oldest first.
    #[must_use]
    pub fn trace_of(&self, id: KernelId) -> Vec<TraceEntry> {
        let mut events: Vec<_> = self.fabric().trace(id).map(|trace| trace.read().collect()).unwrap_or_default();
        events.sort_by_key(|entry| entry.number);
        events
    }
}
