//! The machine: its clock, its cores, and how disturbed it is.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use k2k_core::Platform;
use k2k_core::WakeFlag;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Raw time: the time stamp counter where there is one, else the system's monotonic clock in ns.
#[inline(always)]
pub fn ticks() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has the instruction.
    unsafe {
        core::arch::x86_64::_rdtsc()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_nanos() as u64
    }
}

/// How the counter relates to time.
struct Rate {
    ticks: u64,
    epoch_ns: u64,
    /// ns per tick, times 2³².
    scale: u64,
}

fn rate() -> &'static Rate {
    static RATE: OnceLock<Rate> = OnceLock::new();
    RATE.get_or_init(|| {
        let (ticks_0, start) = (ticks(), Instant::now());
        std::thread::sleep(Duration::from_millis(50));
        let (ticks_1, elapsed) = (ticks(), start.elapsed());
        let scale = ((elapsed.as_nanos() << 32) / u128::from((ticks_1 - ticks_0).max(1))) as u64;
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Rate { ticks: ticks(), epoch_ns: epoch.as_nanos() as u64, scale }
    })
}

/// ns that a number of ticks takes.
pub fn nanoseconds(ticks: u64) -> f64 {
    ticks as f64 * rate().scale as f64 / (1_u64 << 32) as f64
}

/// The smallest step of the clock that was seen, ns, and what reading it costs.
pub fn granularity() -> (f64, f64) {
    let mut step = u64::MAX;
    let (mut last, first) = (ticks(), ticks());
    for _ in 0..100_000 {
        let now = ticks();
        if now > last {
            step = step.min(now - last);
        }
        last = now;
    }
    (nanoseconds(step), nanoseconds(last.saturating_sub(first)) / 1e5)
}

/// The clock of the endpoints: the counter, scaled once. What a host backend does between its looks at the system's
/// clock.
#[derive(Clone, Copy, Debug)]
pub struct Tsc;

static SCALE: AtomicU64 = AtomicU64::new(0);
static BASE: AtomicU64 = AtomicU64::new(0);

/// Measures the clock's rate. Before anything else.
pub fn calibrate() {
    let rate = rate();
    SCALE.store(rate.scale, Relaxed);
    let elapsed = ((u128::from(rate.ticks) * u128::from(rate.scale)) >> 32) as u64;
    BASE.store(rate.epoch_ns.wrapping_sub(elapsed), Relaxed);
}

impl Platform for Tsc {
    #[inline(always)]
    fn now_ns(&self) -> u64 {
        let ns = ((u128::from(ticks()) * u128::from(SCALE.load(Relaxed))) >> 32) as u64;
        BASE.load(Relaxed).wrapping_add(ns)
    }

    fn wake(&self, _: &WakeFlag) {}
}

/// The cores that this process may use.
pub fn cores() -> Vec<core_affinity::CoreId> {
    core_affinity::get_core_ids().unwrap_or_default()
}

/// How often the calling thread was preempted so far.
pub fn preemptions() -> u64 {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: plain old data, and the pointer is valid.
        unsafe {
            let mut usage: libc::rusage = core::mem::zeroed();
            libc::getrusage(libc::RUSAGE_THREAD, &mut usage);
            usage.ru_nivcsw as u64
        }
    }
    #[cfg(not(target_os = "linux"))]
    0
}

/// Load average over one minute.
pub fn load() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

/// Ticks of processor time since the start of the system: (all, stolen by the hypervisor).
pub fn stolen() -> Option<(u64, u64)> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let times: Vec<u64> = stat.lines().next()?.split_whitespace().skip(1).filter_map(|t| t.parse().ok()).collect();
    Some((times.iter().take(8).sum(), *times.get(7)?))
}

/// Model of the processor.
pub fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = info.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name))?;
        Some(line.split(':').nth(1)?.trim().to_owned())
    };
    let model = field("model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    match (field("cpu family"), field("model")) {
        (Some(family), Some(number)) => format!("{model} (family {family}, model {number})"),
        _ => model,
    }
}

/// The competitors' versions, from the lock file.
pub fn versions() -> Vec<(String, String)> {
    const LOCK: &str = include_str!("../Cargo.lock");
    const PEERS: [&str; 16] = [
        "crossbeam-queue",
        "crossfire",
        "disruptor",
        "flume",
        "gil",
        "heapless",
        "iceoryx2-bb-lock-free",
        "kanal",
        "nexus-queue",
        "omango",
        "rbuffer",
        "ringbuf",
        "ringkernel-core",
        "rtrb",
        "thingbuf",
        "tokio",
    ];
    let value = |line: &str, key: &str| Some(line.strip_prefix(key)?.trim_matches(['=', ' ', '"']).to_owned());
    let mut found = Vec::new();
    let mut lines = LOCK.lines();
    while let Some(line) = lines.next() {
        let Some(name) = value(line, "name ").filter(|name| PEERS.contains(&name.as_str())) else { continue };
        if let Some(version) = lines.next().and_then(|line| value(line, "version ")) {
            found.push((name, version));
        }
    }
    found
}
