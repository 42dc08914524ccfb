//! What the design rests on, each by itself: what an access costs, from either side, and where a flag had better lie.

use super::Failure;
use super::rig::{Rig, Spread, all_finished};
use super::row::{Figure, Missing, Row, Unit};
use super::trip::host_flag;
use crate::check::ensure;
use crate::count;
use core::fmt::Write as _;
use core::mem::offset_of;
use k2k_core::sync::Ordering::Relaxed;
use k2k_core::sync::{AtomicU64, Gpu};
use k2k_core::{Config, Fixed};
use k2k_cuda::Ptx;
use k2k_cuda::{Grid, Session};
use k2k_device::{Launch, Outcome, Report};

/// Of each kind of access, at most.
const MOST: u64 = 20_000;

/// Copies are some 10 µs each.
const COPIES: u64 = 2_000;

const LOOP: &str = "an empty loop";

/// Which memory an instruction is on.
#[derive(Clone, Copy, PartialEq)]
enum On {
    Device,
    Host,
}

/// What is timed: entry point, what it is, the instruction, which memory `%rd4` is the address of.
const ACCESSES: [(&str, &str, &str, On); 14] = [
    ("k2k_time_nothing", LOOP, "", On::Device),
    ("k2k_time_load_gpu", "load, acquire.gpu, device", "ld.acquire.gpu.b64 %rd9, [%rd4];", On::Device),
    ("k2k_time_load_sys", "load, acquire.sys, device", "ld.acquire.sys.b64 %rd9, [%rd4];", On::Device),
    ("k2k_time_load_host", "load, acquire.sys, host", "ld.acquire.sys.b64 %rd9, [%rd4];", On::Host),
    ("k2k_time_store_relaxed", "store, relaxed.gpu, device", "st.relaxed.gpu.b64 [%rd4], %rd8;", On::Device),
    ("k2k_time_store_gpu", "store, release.gpu, device", "st.release.gpu.b64 [%rd4], %rd8;", On::Device),
    ("k2k_time_store_sys", "store, release.sys, device", "st.release.sys.b64 [%rd4], %rd8;", On::Device),
    ("k2k_time_store_host", "store, release.sys, host", "st.release.sys.b64 [%rd4], %rd8;", On::Host),
    ("k2k_time_fence_gpu", "fence, acq_rel.gpu", "fence.acq_rel.gpu;", On::Device),
    ("k2k_time_fence_sys", "fence, acq_rel.sys", "fence.acq_rel.sys;", On::Device),
    ("k2k_time_fence_sc", "fence, sc.sys", "fence.sc.sys;", On::Device),
    ("k2k_time_cas", "compare-exchange, acquire.gpu", "atom.acquire.gpu.cas.b64 %rd9, [%rd4], %rd8, %rd8;", On::Device),
    ("k2k_time_nap", "nanosleep 20", "nanosleep.u32 20;", On::Device),
    ("k2k_time_timer", "read %globaltimer", "mov.u64 %rd9, %globaltimer; max.u64 %rd10, %rd10, %rd9;", On::Device),
];

/// The least step of `%globaltimer`.
const STEP: &str = "k2k_timer_step";

/// One thread does one thing over and over. Parameters: address of a word of 64 bits, how often. Values: how often; ns; cycles.
/// Of [`STEP`]: the least difference of two times that differ, ns.
fn text() -> String {
    let mut text = ".version 7.0\n.target sm_70\n.address_size 64\n".to_owned();
    let parameters = offset_of!(Launch, parameters);
    let values = offset_of!(Report, values);
    let step = "mov.u64 %rd9, %globaltimer;
    sub.u64 %rd12, %rd9, %rd10;
    mov.u64 %rd10, %rd9;
    setp.eq.u64 %p3, %rd12, 0;
    @%p3 bra NEXT;
    min.u64 %rd11, %rd11, %rd12;";
    let accesses = ACCESSES.iter().map(|(entry, _, code, _)| (*entry, *code));
    for (entry, code) in accesses.chain([(STEP, step)]) {
        let _ = write!(
            text,
            "
.visible .entry {entry}(
    .param .u64 launch
)
{{
    .reg .pred %p<4>;
    .reg .b32 %r<2>;
    .reg .b64 %rd<16>;
    mov.u32 %r1, %tid.x;
    setp.ne.u32 %p1, %r1, 0;
    @%p1 bra END;
    ld.param.u64 %rd1, [launch];
    ld.global.u64 %rd2, [%rd1+{reports}];
    ld.global.u64 %rd4, [%rd1+{parameters}];
    ld.global.u64 %rd5, [%rd1+{often}];
    mov.u64 %rd8, 0;
    mov.u64 %rd11, -1;
    mov.u64 %rd6, %globaltimer;
    mov.u64 %rd10, %rd6;
    mov.u64 %rd7, %clock64;
NEXT:
    add.u64 %rd8, %rd8, 1;
    setp.gt.u64 %p2, %rd8, %rd5;
    @%p2 bra DONE;
    {code}
    bra NEXT;
DONE:
    mov.u64 %rd13, %clock64;
    mov.u64 %rd14, %globaltimer;
    sub.u64 %rd13, %rd13, %rd7;
    sub.u64 %rd14, %rd14, %rd6;
    st.global.u64 [%rd2+{values}], %rd5;
    st.global.u64 [%rd2+{ns}], %rd14;
    st.global.u64 [%rd2+{cycles}], %rd13;
    st.global.u64 [%rd2+{least}], %rd11;
    st.global.u64 [%rd2+{last}], %rd10;
    mov.u64 %rd15, {finished};
    st.release.sys.global.b64 [%rd2], %rd15;
END:
    ret;
}}
",
            reports = offset_of!(Launch, reports),
            often = parameters + 8,
            ns = values + 8,
            cycles = values + 16,
            least = values + 24,
            last = values + 32,
            finished = Outcome::Finished as u16,
        );
    }
    text
}

/// Runs one of the entry points on a word of that memory: its values.
fn values(rig: &Rig<'_>, entry: &str, on: On, often: u64) -> Result<[u64; 7], Failure> {
    let grid = Grid::new(entry).parameter(1, often);
    let grid = match on {
        On::Device => {
            let word = rig.device.allocate(size_of::<u64>())?;
            grid.parameter(0, word.address()).keep(word)
        }
        On::Host => {
            let word = rig.device.allocate_host(size_of::<u64>())?;
            grid.parameter(0, word.address()).keep(word)
        }
    };
    let mut session = Session::<Fixed<2, 2, 64, Gpu>>::new(rig.device, &Config::default())?;
    session.load_for(&Ptx::new(text())?, core::slice::from_ref(&grid))?;
    // SAFETY: this library's own entry point; its word is kept.
    unsafe { session.add(grid)? };
    let ended = session.start()?.join(rig.options.patience)?;
    all_finished(&ended)?;
    let values = ended.first().map_or([0; 7], |block| block.report.values);
    ensure!(values[0] == often, "{} of {often} times", values[0]);
    Ok(values)
}

/// By a thread of the device, one after the other.
pub(super) fn device(rig: &Rig<'_>) -> Result<Vec<Row>, Failure> {
    let often = rig.trips().min(MOST);
    let mut empty = None;
    let mut rows = Vec::new();
    for (entry, name, _, on) in ACCESSES {
        let figure = values(rig, entry, on, often).map(|[_, ns, cycles, ..]| {
            let each = |all: u64| all as f64 / often as f64;
            let figure = Figure::new(each(ns), Unit::Nanoseconds).with([("cycles", each(cycles))]);
            match empty {
                None => {
                    empty = Some(each(ns));
                    figure
                }
                Some(empty) => figure.over(LOOP, empty),
            }
        });
        rows.push(rig.row(name, figure));
    }
    // Steps are up to a microsecond: some hundreds of them.
    let step = values(rig, STEP, On::Device, often).map(|values| {
        let figure = Figure::new(values[3] as f64, Unit::Nanoseconds);
        if let Some(empty) = empty { figure.over(LOOP, empty) } else { figure }
    });
    rows.push(rig.row("step of %globaltimer", step));
    Ok(rows)
}

/// By the host, beside a kernel that runs.
pub(super) fn host(rig: &Rig<'_>) -> Result<Vec<Row>, Failure> {
    let gate = rig.device.allocate_host(2 * size_of::<u64>())?;
    let (base, address) = (gate.as_ptr().cast::<AtomicU64>(), gate.address());
    let mut word = rig.device.allocate(size_of::<u64>())?;
    let mut session = Session::<Fixed<2, 2, 64, Gpu>>::new(rig.device, &Config::default())?;
    session.load(&Ptx::new(count::text())?)?;
    let grid = Grid::new(count::ENTRY)
        .parameter(0, address)
        .parameter(1, rig.options.patience.as_nanos() as u64)
        .parameter(2, address + size_of::<u64>() as u64)
        .parameter(3, 1)
        .keep(gate);
    // SAFETY: this library's own entry point; both words are kept.
    unsafe { session.add(grid)? };
    let mut running = session.start()?;
    let mut bytes = [0; 8];
    let from = few(rig, || Ok(word.read(0, &mut bytes)?));
    let to = few(rig, || Ok(word.write(0, &[0; 8])?));
    let observe = few(rig, || {
        running.observe()?;
        Ok(())
    });
    // SAFETY: a word of the gate, which `running` keeps. Relaxed: publishes nothing but itself.
    unsafe { &*base }.store(1, Relaxed);
    all_finished(&running.join(rig.options.patience)?)?;
    let copy = from.as_ref().map_or(0.0, |from| from.p50);
    Ok(vec![
        rig.row("a copy of 8 bytes from it, p50", from.map(Spread::median)),
        rig.row("a copy of 8 bytes to it, p50", to.map(Spread::median)),
        rig.row("observe(), 2 places, p50", observe.map(|spread| spread.median().over("a copy of 8 bytes", copy))),
    ])
}

/// Times something slow.
fn few(rig: &Rig<'_>, mut does: impl FnMut() -> Result<(), Failure>) -> Result<Spread, Failure> {
    let often = rig.trips().min(COPIES);
    let samples = (0..often).map(|_| {
        let began = std::time::Instant::now();
        does()?;
        Ok(began.elapsed().as_nanos() as u64)
    });
    let mut samples = samples.collect::<Result<Vec<_>, Failure>>()?;
    let dropped = samples.len() / 10;
    Ok(Spread::of(samples.split_off(dropped)))
}

/// There and back with each flag where its reader is: the device polls its own memory, into which the host copies.
pub(super) fn near(rig: &Rig<'_>) -> Result<Vec<Row>, Failure> {
    let flag = host_flag(rig)?;
    let often = rig.trips().min(COPIES);
    let mut polled = rig.device.allocate(size_of::<u64>())?;
    let answer = rig.device.allocate_host(size_of::<u64>())?;
    let base = answer.as_ptr().cast::<AtomicU64>();
    let grid = Grid::new("k2k_flag_sys")
        .parameter(0, polled.address())
        .parameter(1, answer.address())
        .parameter(2, often)
        .parameter(3, rig.tools.patience_ns());
    let mut running = rig.start([grid.keep(answer)])?;
    let mut number = 0;
    let spread = few(rig, || {
        number += 1;
        // Nothing is published by it, and a copy of 8 aligned bytes is one access.
        polled.write(0, &u64::to_le_bytes(number))?;
        rig.spin("the flag comes back", || {
            // SAFETY: a word that `running` keeps. Relaxed: as above.
            Ok(unsafe { &*base }.load(Relaxed) == number)
        })
    });
    let spread = spread?;
    rig.join(&mut running)?;
    drop(polled);
    let mapped = "the device's, mapped, p50";
    let missing = Missing::Unavailable(
        "the driver maps no device memory for the host; it takes gdrcopy's kernel module, which is not used yet"
            .to_owned(),
    );
    Ok(vec![
        rig.row("bare flags of the host's, p50", Ok(flag.median())),
        rig.row("one of each side's, p50", Ok(spread.median().over("bare flags", flag.p50))),
        rig.row_or(mapped, Err(missing)),
    ])
}
