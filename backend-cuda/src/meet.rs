//! Whether things really run side by side: what a session takes for granted of a driver and a device, tried out with kernels
//! that wait for one another.
//!
//! ```text
//!   block   "here" (a word of the host's) ---- waits for its grid's gate, or its patience ---- on which multiprocessor
//!   host      looks until all are here, or no more come ---- opens the gates, one by one: who comes then?
//! ```
//!
//! A driver is asked for so many queues and says nothing of how many it made; streams of others in the process take some.
//! And how many blocks fit on a multiprocessor is known of each entry point by itself alone.

use crate::buffer::{DeviceBuffer, HostBuffer};
use crate::device::Device;
use crate::driver::{Driver, Handle, Shape};
use crate::error::Error;
use crate::ptx::Ptx;
use bytemuck::Zeroable as _;
use core::fmt::Write as _;
use core::mem::offset_of;
use core::time::Duration;
use k2k_core::sync::AtomicU32;
use k2k_core::sync::Ordering::Relaxed;
use k2k_device::{Launch, Outcome, Report};
use std::collections::BTreeMap;
use std::time::Instant;

/// How long the blocks wait for one another; and while it is found out who waits behind whom.
const PATIENCE: Duration = Duration::from_secs(3);
const LONG: Duration = Duration::from_secs(20);

/// When nobody has come for so long, nobody will: a launch takes some 10 µs.
const QUIET: Duration = Duration::from_millis(800);

/// How long one that waited behind another may take to come when that has gone.
const NEXT: Duration = Duration::from_millis(500);

/// Between two looks.
const LOOK: Duration = Duration::from_micros(200);

/// How long their end may take, once the gate is open or they have lost patience.
const LIMIT: Duration = Duration::from_secs(10);

/// A copy beside kernels takes some 10 µs. One that waits behind one takes as long as that has patience.
const COPY: Duration = Duration::from_millis(500);

/// What [`Device::verify_queues`] has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queues {
    /// Grids that ran at the same time, each on a stream of its own: as many as a session may have.
    pub grids: u32,
    /// The longest that a copy took beside them.
    pub copy: Duration,
}

/// What [`Device::verify_residency`] has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Residency {
    /// Blocks that were launched, half of them of either entry point.
    pub blocks: u32,
    /// How many were there at the same time.
    pub together: u32,
    /// Multiprocessors by how many blocks they had: number of blocks, number of multiprocessors.
    pub spread: BTreeMap<u32, u32>,
    /// Of these multiprocessors, those that had blocks of both.
    pub shared: u32,
}

/// Entry points that differ in registers and stack alone: a few, and over a hundred with a kilobyte.
const ENTRIES: [&str; 2] = ["k2k_meet", "k2k_meet_large"];

/// They say that they are here, and wait. Parameters: address of the gate, a 32-bit word; patience in ns; address of a
/// 32-bit word of each block. Values: whether the gate was seen open, multiprocessor.
pub(crate) fn text() -> String {
    /// Values that are live while a block waits.
    const LIVE: usize = 100;
    let parameters = offset_of!(Launch, parameters);
    let reports = offset_of!(Launch, reports);
    let values = offset_of!(Report, values);
    let finished = Outcome::Finished as u16;
    let mut text = ".version 7.0\n.target sm_70\n.address_size 64\n".to_owned();
    for (entry, live) in ENTRIES.into_iter().zip([0, LIVE]) {
        let (mut before, mut after) = (String::new(), String::new());
        if live > 0 {
            before += "    .local .align 8 .b8 stack[1024];\n    .reg .b64 %v<101>;\n    mov.u64 %rd12, stack;\n";
            before += "    cvta.local.u64 %rd12, %rd12;\n    st.volatile.u64 [%rd12+512], %rd3;\n";
            for i in 0..live {
                // Volatile: none is a copy of another.
                let _ = writeln!(before, "    ld.volatile.u64 %v{i}, [%rd12+512];");
            }
            for i in 0..live {
                let _ = writeln!(after, "    st.volatile.u64 [%rd12+{}], %v{i};", 8 * (i % 64));
            }
        }
        let _ = write!(
            text,
            "
.visible .entry {entry}(
    .param .u64 launch
)
{{
    .reg .pred %p<4>;
    .reg .b32 %r<6>;
    .reg .b64 %rd<14>;
    mov.u32 %r1, %tid.x;
    setp.ne.u32 %p1, %r1, 0;
    @%p1 bra END;
    mov.u64 %rd7, %globaltimer;
    ld.param.u64 %rd1, [launch];
    ld.global.u64 %rd2, [%rd1+{reports}];
    mov.u32 %r2, %ctaid.x;
    mul.wide.u32 %rd3, %r2, {report};
    add.u64 %rd2, %rd2, %rd3;
    ld.global.u64 %rd4, [%rd1+{parameters}];
    ld.global.u64 %rd5, [%rd1+{patience}];
{before}    mov.u32 %r3, %smid;
    cvt.u64.u32 %rd6, %r3;
    st.global.u64 [%rd2+{smid}], %rd6;
    ld.global.u64 %rd8, [%rd1+{here}];
    mul.wide.u32 %rd3, %r2, 4;
    add.u64 %rd8, %rd8, %rd3;
    mov.u32 %r5, 1;
    st.release.sys.b32 [%rd8], %r5;
    mov.u64 %rd11, 1;
WAIT:
    ld.relaxed.sys.b32 %r4, [%rd4];
    setp.ne.u32 %p2, %r4, 0;
    @%p2 bra DONE;
    nanosleep.u32 1000;
    mov.u64 %rd8, %globaltimer;
    sub.u64 %rd9, %rd8, %rd7;
    setp.lt.u64 %p3, %rd9, %rd5;
    @%p3 bra WAIT;
    mov.u64 %rd11, 0;
DONE:
{after}    st.global.u64 [%rd2+{values}], %rd11;
    mov.u64 %rd10, {finished};
    st.release.sys.global.b64 [%rd2], %rd10;
END:
    ret;
}}
",
            report = size_of::<Report>(),
            patience = parameters + 8,
            smid = values + 8,
            here = parameters + 16,
        );
    }
    text
}

/// A grid that waits at its gate.
struct Waiting {
    reports: DeviceBuffer,
    /// Kept for the kernel.
    argument: DeviceBuffer,
    blocks: u32,
    launch: Option<Handle>,
}

/// Grids that wait for one another.
struct Meeting<'d> {
    device: &'d Device,
    /// A gate of each grid, and a word of each block.
    words: HostBuffer,
    grids: Vec<Waiting>,
}

impl<'d> Meeting<'d> {
    /// Starts grids of so many blocks, and waits until all are here, or no more come.
    fn begin(device: &'d Device, grids: &[(Handle, u32)], patience: Duration) -> Result<Self, Error> {
        let all: u32 = grids.iter().map(|(_, blocks)| blocks).sum();
        let words = device.allocate_host((grids.len() + all as usize) * size_of::<AtomicU32>())?;
        let mut first = grids.len();
        let waiting = (0..).zip(grids).map(|(number, (_, blocks))| {
            let address = |word: usize| words.address() + (word * size_of::<AtomicU32>()) as u64;
            let reports = device.allocate(*blocks as usize * size_of::<Report>())?;
            let mut argument = device.allocate(size_of::<Launch>())?;
            let mut launch = Launch { reports: reports.address(), blocks: *blocks, ..Launch::zeroed() };
            launch.parameters[..3].copy_from_slice(&[address(number), patience.as_nanos() as u64, address(first)]);
            first += *blocks as usize;
            argument.write(0, bytemuck::bytes_of(&launch))?;
            Ok(Waiting { reports, argument, blocks: *blocks, launch: None })
        });
        let waiting = waiting.collect::<Result<Vec<_>, Error>>()?;
        device.begin()?;
        let mut meeting = Self { device, words, grids: waiting };
        for (grid, (entry, blocks)) in meeting.grids.iter_mut().zip(grids) {
            let shape = Shape { blocks: *blocks, threads: 32, cooperative: false, launch: grid.argument.address() };
            // SAFETY: the entry point takes the address of a `Launch`; all that it points to is freed when nothing runs.
            match unsafe { device.driver().launch(*entry, shape) } {
                Ok(launch) => grid.launch = Some(launch),
                Err(e) => {
                    let _ = meeting.end();
                    return Err(e);
                }
            }
        }
        meeting.wait(QUIET, all);
        Ok(meeting)
    }

    /// Gates, and then blocks.
    fn words(&self) -> &[AtomicU32] {
        let count = self.words.len() / size_of::<AtomicU32>();
        // SAFETY: the bytes of that buffer, which lives as long as `self`, and is aligned to more than a word.
        unsafe { core::slice::from_raw_parts(self.words.as_ptr().cast::<AtomicU32>(), count) }
    }

    /// Whether each grid's first block has come.
    fn here(&self) -> Vec<bool> {
        let mut word = self.grids.len();
        let first = self.grids.iter().map(|grid| {
            word += grid.blocks as usize;
            word - grid.blocks as usize
        });
        // Relaxed, as below: only whether.
        first.map(|word| self.words()[word].load(Relaxed) != 0).collect()
    }

    /// How many blocks have come.
    fn count(&self) -> u32 {
        self.words()[self.grids.len()..].iter().filter(|word| word.load(Relaxed) != 0).count() as u32
    }

    /// Waits until so many have come, or nobody has for so long.
    fn wait(&self, quiet: Duration, all: u32) {
        let (mut since, mut came) = (Instant::now(), self.count());
        while came < all && since.elapsed() < quiet {
            std::thread::sleep(LOOK);
            // Asked before the clock: whoever comes now has come in time.
            let now = self.count();
            if now != came {
                (since, came) = (Instant::now(), now);
            }
        }
    }

    fn open(&self, grid: usize) {
        // Relaxed: publishes nothing but itself.
        self.words()[grid].store(1, Relaxed);
    }

    /// Opens the gates and waits for the end of all. If that does not come, the device stays busy.
    fn end(&mut self) -> Result<(), Error> {
        (0..self.grids.len()).for_each(|grid| self.open(grid));
        let since = Instant::now();
        let driver: &dyn Driver = self.device.driver();
        for grid in &mut self.grids {
            let Some(launch) = grid.launch else { continue };
            loop {
                match driver.is_done(launch) {
                    Ok(true) => break driver.finish(launch),
                    Ok(false) => {}
                    Err(e) => {
                        // Nothing runs any more.
                        self.device.end();
                        return Err(e);
                    }
                }
                let waited = since.elapsed();
                if waited > LIMIT {
                    return Err(Error::NoAnswer { action: "end kernels that wait for some seconds", waited });
                }
                std::thread::sleep(LOOK);
            }
            grid.launch = None;
        }
        self.device.end();
        Ok(())
    }

    /// The multiprocessors that each grid's blocks were on.
    fn multiprocessors(&self) -> Result<Vec<Vec<u64>>, Error> {
        let grids = self.grids.iter().map(|grid| {
            let mut reports = vec![Report::zeroed(); grid.blocks as usize];
            grid.reports.read(0, bytemuck::cast_slice_mut(&mut reports))?;
            Ok(reports.into_iter().map(|report| report.values[1]).collect())
        });
        grids.collect()
    }
}

/// The entry points, and how many blocks of 32 threads of each fit on a multiprocessor.
fn entries(device: &Device) -> Result<[(Handle, u32); 2], Error> {
    let module = device.load(&Ptx::new(text())?)?;
    let mut found = [(0, 0); 2];
    device.while_idle("look up an entry point", |driver| {
        for (found, name) in found.iter_mut().zip(ENTRIES) {
            let entry = driver.entry(module.handle, name)?;
            *found = (entry, driver.blocks_per_multiprocessor(entry, 32)?);
        }
        Ok(())
    })?;
    Ok(found)
}

impl Device {
    /// Tries out whether as many grids as a session may have run side by side, and copies beside them. Drivers do not say;
    /// streams of other libraries in this process take queues, too. Once per process is enough: before the first session.
    ///
    /// # Errors
    /// [`Error::SharedQueues`] if something waits behind something else: sessions with so many grids would never start.
    /// What the driver says; [`Error::Busy`] while kernels run.
    pub fn verify_queues(&self) -> Result<Queues, Error> {
        queues(self)
    }

    /// Tries out how many blocks of two entry points are resident together, two for each multiprocessor. Sessions with
    /// grids of several entry points count one for each until this has seen all of them together.
    ///
    /// # Errors
    /// What the driver says; [`Error::Busy`] while kernels run.
    pub fn verify_residency(&self) -> Result<Residency, Error> {
        let found = residency(self)?;
        self.set_mixes(found.together == found.blocks && found.shared > 0);
        Ok(found)
    }
}

fn queues(device: &Device) -> Result<Queues, Error> {
    let [(entry, _), _] = entries(device)?;
    // The emulated device has no end of them.
    let grids = device.driver().queues().min(31);
    let all = vec![(entry, 1); grids as usize];
    let mut meeting = Meeting::begin(device, &all, LONG)?;
    let together = meeting.count();
    let mut behind = Vec::new();
    let mut left: Vec<_> = (0..grids as usize).collect();
    loop {
        // Whoever comes when one that was here goes has waited behind it.
        let before = meeting.here();
        let Some(next) = left.iter().position(|grid| before[*grid]).filter(|_| together < grids) else { break };
        let goes = left.remove(next);
        meeting.open(goes);
        meeting.wait(NEXT, meeting.count() + 1);
        let came = meeting.here().into_iter().zip(before).enumerate().filter(|(_, (now, before))| *now && !before);
        behind.extend(came.map(|(grid, _)| (grid as u32, goes as u32)));
    }
    meeting.end()?;
    let mut meeting = Meeting::begin(device, &all, PATIENCE)?;
    let took = |copied: Result<(), Error>, began: Instant| match copied {
        Ok(()) => Ok(began.elapsed()),
        Err(Error::NoAnswer { waited, .. }) => Ok(waited),
        Err(e) => Err(e),
    };
    let (mut word, grid) = ([0; 8], &mut meeting.grids[0]);
    let began = Instant::now();
    let read = took(grid.reports.read(0, &mut word), began);
    let began = Instant::now();
    let write = took(grid.argument.write(0, &word), began);
    meeting.end()?;
    let copy = read?.max(write?);
    if together == grids && copy < COPY {
        return Ok(Queues { grids, copy });
    }
    Err(Error::SharedQueues { grids, together, behind, copy: (copy >= COPY).then_some(copy) })
}

fn residency(device: &Device) -> Result<Residency, Error> {
    let entries = entries(device)?;
    let multiprocessors = device.probe().multiprocessors;
    // Of a device that says that only one fits on each, no more is asked.
    let fit = entries.iter().map(|(_, fit)| *fit).min().unwrap_or(0);
    let each = if fit < 2 { multiprocessors / 2 } else { multiprocessors }.max(1);
    let mut meeting = Meeting::begin(device, &entries.map(|(entry, _)| (entry, each)), PATIENCE)?;
    let together = meeting.count();
    meeting.end()?;
    let mut blocks = BTreeMap::<u64, [u32; 2]>::new();
    for (kind, multiprocessors) in meeting.multiprocessors()?.into_iter().enumerate() {
        for multiprocessor in multiprocessors {
            blocks.entry(multiprocessor).or_default()[kind.min(1)] += 1;
        }
    }
    let mut spread = BTreeMap::new();
    for [small, large] in blocks.values() {
        *spread.entry(small + large).or_default() += 1;
    }
    let shared = blocks.values().filter(|[small, large]| *small > 0 && *large > 0).count() as u32;
    Ok(Residency { blocks: 2 * each, together, spread, shared })
}

#[cfg(all(test, feature = "emulated"))]
mod tests {
    use super::*;
    use crate::EmulatedOptions;

    #[test]
    fn everything_runs_beside_everything_on_the_emulated_device() {
        let device =
            Device::emulated(EmulatedOptions { blocks: 8, races: true, ..EmulatedOptions::default() }).unwrap();
        let queues = device.verify_queues().unwrap();
        assert_eq!(queues.grids, 31);
        let residency = device.verify_residency().unwrap();
        assert_eq!((residency.blocks, residency.together, residency.shared), (8, 8, 0));
        assert_eq!(residency.spread, BTreeMap::from([(1, 8)]));
        assert!(!device.is_busy());
    }
}
