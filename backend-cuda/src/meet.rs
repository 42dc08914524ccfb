//! Whether things really run side by side: what a session takes for granted of a driver and a device, tried out with kernels
//! that wait for one another.
//!
//! ```text
//!   block   here, on that multiprocessor ---- waits for the gate, or 2 s ---- began, ended, seen or not
//!   host      looks, by copies, until all are here ---- opens the gate
//! ```
//!
//! A driver is asked for so many queues and says nothing of how many it made; streams of others in the process take some.
//! And how many blocks fit on a multiprocessor is known of each entry point by itself alone.

use crate::device::{Device, DeviceBuffer, HostBuffer};
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

/// How long the blocks wait for one another.
const PATIENCE: Duration = Duration::from_secs(2);

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

/// They say that they are here, and wait. Parameters: address of the gate, a 32-bit word; patience in ns. Values: whether
/// the gate was seen open, multiprocessor, `%globaltimer` at the beginning and the end.
pub(crate) fn text() -> String {
    /// Values that are live while a block waits.
    const LIVE: usize = 100;
    let parameters = offset_of!(Launch, parameters);
    let reports = offset_of!(Launch, reports);
    let values = offset_of!(Report, values);
    let (running, finished) = (Outcome::Running as u16, Outcome::Finished as u16);
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
    st.global.u64 [%rd2+{began}], %rd7;
    mov.u64 %rd10, {running};
    st.release.sys.global.b64 [%rd2], %rd10;
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
    mov.u64 %rd8, %globaltimer;
    st.global.u64 [%rd2+{ended}], %rd8;
    mov.u64 %rd10, {finished};
    st.release.sys.global.b64 [%rd2], %rd10;
END:
    ret;
}}
",
            report = size_of::<Report>(),
            patience = parameters + 8,
            smid = values + 8,
            began = values + 16,
            ended = values + 24,
        );
    }
    text
}

/// Waits for a gate, and then writes 1, 2, 3 and so on into a word of host memory. Parameters: address of the gate, a word of
/// 64 bits; patience in ns; address of the word; up to which number.
pub(crate) fn count_text() -> String {
    let parameters = offset_of!(Launch, parameters);
    format!(
        ".version 7.0
.target sm_70
.address_size 64

.visible .entry {COUNT}(
    .param .u64 launch
)
{{
    .reg .pred %p<5>;
    .reg .b32 %r<2>;
    .reg .b64 %rd<12>;
    mov.u32 %r1, %tid.x;
    setp.ne.u32 %p1, %r1, 0;
    @%p1 bra END;
    mov.u64 %rd7, %globaltimer;
    ld.param.u64 %rd1, [launch];
    ld.global.u64 %rd2, [%rd1+{reports}];
    ld.global.u64 %rd3, [%rd1+{parameters}];
    ld.global.u64 %rd4, [%rd1+{patience}];
    ld.global.u64 %rd5, [%rd1+{word}];
    ld.global.u64 %rd6, [%rd1+{last}];
    mov.u64 %rd8, 0;
WAIT:
    ld.acquire.sys.b64 %rd9, [%rd3];
    setp.ne.u64 %p2, %rd9, 0;
    @%p2 bra COUNT;
    nanosleep.u32 1000;
    mov.u64 %rd9, %globaltimer;
    sub.u64 %rd9, %rd9, %rd7;
    setp.lt.u64 %p3, %rd9, %rd4;
    @%p3 bra WAIT;
    bra DONE;
COUNT:
    add.u64 %rd8, %rd8, 1;
    st.release.sys.b64 [%rd5], %rd8;
    setp.lt.u64 %p4, %rd8, %rd6;
    @%p4 bra COUNT;
DONE:
    st.global.u64 [%rd2+{values}], %rd8;
    mov.u64 %rd10, {finished};
    st.release.sys.global.b64 [%rd2], %rd10;
END:
    ret;
}}
",
        reports = offset_of!(Launch, reports),
        patience = parameters + 8,
        word = parameters + 16,
        last = parameters + 24,
        values = offset_of!(Report, values),
        finished = Outcome::Finished as u16,
    )
}

/// The entry point of [`count_text`].
pub(crate) const COUNT: &str = "k2k_count";

/// What a block has said.
struct Guest {
    outcome: u16,
    /// It has seen the others' gate open.
    seen: bool,
    multiprocessor: u64,
    began_ns: u64,
    ended_ns: u64,
}

/// A grid that waits at the gate.
struct Waiting {
    reports: DeviceBuffer,
    /// Kept for the kernel.
    _argument: DeviceBuffer,
    blocks: u32,
    launch: Option<Handle>,
}

/// Grids that wait for one another.
struct Meeting<'d> {
    device: &'d Device,
    gate: HostBuffer,
    grids: Vec<Waiting>,
    /// The longest that a look took.
    copy: Duration,
}

impl<'d> Meeting<'d> {
    /// Starts grids of so many blocks.
    fn begin(device: &'d Device, grids: &[(Handle, u32)], patience: Duration) -> Result<Self, Error> {
        let gate = device.allocate_host(size_of::<AtomicU32>())?;
        let waiting = grids.iter().map(|(_, blocks)| {
            let reports = device.allocate(*blocks as usize * size_of::<Report>())?;
            let mut argument = device.allocate(size_of::<Launch>())?;
            let mut launch = Launch { reports: reports.address(), blocks: *blocks, ..Launch::zeroed() };
            launch.parameters[..2].copy_from_slice(&[gate.address(), patience.as_nanos() as u64]);
            argument.write(0, bytemuck::bytes_of(&launch))?;
            Ok(Waiting { reports, _argument: argument, blocks: *blocks, launch: None })
        });
        let waiting = waiting.collect::<Result<Vec<_>, Error>>()?;
        device.begin()?;
        let mut meeting = Self { device, gate, grids: waiting, copy: Duration::ZERO };
        for (grid, (entry, blocks)) in meeting.grids.iter_mut().zip(grids) {
            let shape = Shape { blocks: *blocks, threads: 32, cooperative: false, launch: grid._argument.address() };
            // SAFETY: the entry point takes the address of a `Launch`; all that it points to is freed when nothing runs.
            match unsafe { device.driver().launch(*entry, shape) } {
                Ok(launch) => grid.launch = Some(launch),
                Err(e) => {
                    let _ = meeting.end();
                    return Err(e);
                }
            }
        }
        Ok(meeting)
    }

    /// What each block of each grid has said so far.
    fn look(&mut self) -> Result<Vec<Vec<Guest>>, Error> {
        let began = Instant::now();
        let guests = self.grids.iter().map(|grid| {
            let mut reports = vec![Report::zeroed(); grid.blocks as usize];
            grid.reports.read(0, bytemuck::cast_slice_mut(&mut reports))?;
            let guests = reports.into_iter().map(|report| {
                let [seen, multiprocessor, began_ns, ended_ns, ..] = report.values;
                Guest { outcome: report.outcome, seen: seen != 0, multiprocessor, began_ns, ended_ns }
            });
            Ok(guests.collect())
        });
        let guests = guests.collect::<Result<Vec<_>, Error>>();
        self.copy = self.copy.max(began.elapsed() / self.grids.len().max(1) as u32);
        guests
    }

    /// Looks until all are here, or have lost patience: how many were here at the same time.
    fn gather(&mut self) -> Result<u32, Error> {
        let since = Instant::now();
        let mut most = 0;
        loop {
            let guests = self.look()?;
            let of = |outcome: Outcome| guests.iter().flatten().filter(|guest| guest.outcome == outcome as u16).count();
            let (here, left) = (of(Outcome::Running), of(Outcome::Finished));
            most = most.max(here as u32);
            if here == guests.iter().map(Vec::len).sum() || left > 0 || since.elapsed() > PATIENCE {
                return Ok(most);
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Opens the gate and waits for the end of all. If that does not come, the device stays busy.
    fn end(&mut self) -> Result<(), Error> {
        // SAFETY: a word of that buffer, which lives. Relaxed: publishes nothing but itself.
        unsafe { &*self.gate.as_ptr().cast::<AtomicU32>() }.store(1, Relaxed);
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
                    return Err(Error::NoAnswer { action: "end kernels that wait for two seconds", waited });
                }
                std::thread::sleep(LOOK);
            }
            grid.launch = None;
        }
        self.device.end();
        Ok(())
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

/// See [`Device::verify_queues`].
pub(crate) fn queues(device: &Device) -> Result<Queues, Error> {
    let [(entry, _), _] = entries(device)?;
    // The emulated device has no end of them.
    let count = device.driver().queues().min(31);
    let mut meeting = Meeting::begin(device, &vec![(entry, 1); count as usize], PATIENCE)?;
    let gathered = meeting.gather();
    let copy = meeting.copy;
    meeting.end()?;
    let together = gathered?;
    if together == count && copy < COPY {
        return Ok(Queues { grids: count, copy });
    }
    let guests: Vec<_> = meeting.look()?.into_iter().flatten().collect();
    // Each that began when another had lost patience, behind the last of these.
    let behind = guests.iter().enumerate().filter_map(|(grid, guest)| {
        let before = guests.iter().enumerate().filter(|(_, other)| !other.seen && other.ended_ns <= guest.began_ns);
        let (other, _) = before.max_by_key(|(_, other)| other.ended_ns)?;
        Some((grid as u32, other as u32))
    });
    Err(Error::SharedQueues { grids: count, together, behind: behind.collect(), copy: (copy >= COPY).then_some(copy) })
}

/// See [`Device::verify_residency`].
pub(crate) fn residency(device: &Device) -> Result<Residency, Error> {
    let entries = entries(device)?;
    let multiprocessors = device.probe().multiprocessors;
    // Of a device that says that only one fits on each, no more is asked.
    let fit = entries.iter().map(|(_, fit)| *fit).min().unwrap_or(0);
    let each = if fit < 2 { multiprocessors / 2 } else { multiprocessors }.max(1);
    let mut meeting = Meeting::begin(device, &entries.map(|(entry, _)| (entry, each)), PATIENCE)?;
    let gathered = meeting.gather();
    meeting.end()?;
    let together = gathered?;
    let mut blocks = BTreeMap::<u64, [u32; 2]>::new();
    for (kind, guests) in meeting.look()?.into_iter().enumerate() {
        for guest in guests {
            blocks.entry(guest.multiprocessor).or_default()[kind.min(1)] += 1;
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
