//! What a bridge costs the host while nothing is sent.

use super::Failure;
use super::rig::{Rig, all_finished, patient};
use super::row::{Figure, Missing, Row, Unit};
use core::time::Duration;
use k2k::{Broker, Fixed, Memory};
use k2k_core::gateway::GatewayConfig;
use k2k_cuda::Ptx;
use k2k_cuda::{Grid, Session};
use k2k_kernels::shape::{DeviceShape, KERNELS, PAYLOAD, SLOTS};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

/// How the gateway is called. The system keeps 15 bytes of a thread's name.
const NAME: &str = "idle-bridge";
const THREAD: &str = "k2k idle-bridge";
const NAPPER: &str = "k2k napper";

pub(super) fn bridge(rig: &Rig<'_>) -> Result<Vec<Row>, Failure> {
    let memory = Memory::<Fixed<KERNELS, SLOTS, PAYLOAD>>::heap(&patient()).map_err(|e| Failure(e.to_string()))?;
    let mut session = Session::<DeviceShape>::new(rig.device, &patient())?;
    session.load(&Ptx::library().only(&["k2k_echo"])?)?;
    // SAFETY: the library's own entry point, which takes no address.
    unsafe { session.add(Grid::new("k2k_echo").name("echo"))? };
    session.bridge(NAME, &memory, GatewayConfig::default())?;
    let mut running = session.start()?;
    let broker = Broker::new(memory);
    rig.tools.until("the echo is announced", || Ok(broker.find("echo").is_some()))?;
    // What a nap of a millisecond costs, over and over.
    let (stop, stopped) = mpsc::channel::<()>();
    let napper = thread::Builder::new().name(NAPPER.to_owned()).spawn(move || {
        while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
            thread::sleep(Duration::from_millis(1));
        }
    });
    let napper = napper.map_err(|e| Failure(e.to_string()))?;
    // Until the bridge has stopped looking without a rest.
    thread::sleep(rig.options.idle / 2);
    let measured = compare(rig.options.idle);
    drop(stop);
    let _ = napper.join();
    all_finished(&running.stop(rig.options.patience)?)?;
    Ok(vec![rig.row_or("the host's gateway", measured)])
}

fn compare(lasts: Duration) -> Result<Figure, Missing> {
    let unknown = |why: String| Missing::Unavailable(why);
    let find = |name: &str| task(name).ok_or_else(|| unknown(format!("the system shows no thread {name:?}")));
    let (bridge, napper) = (find(THREAD)?, find(NAPPER)?);
    let look = |path: &Path| ran_ns(path).ok_or_else(|| unknown("the system does not tell a thread's time".to_owned()));
    let (began, before) = (Instant::now(), (look(&bridge)?, look(&napper)?));
    thread::sleep(lasts);
    let (took, after) = (began.elapsed(), (look(&bridge)?, look(&napper)?));
    let percent = |before: u64, after: u64| after.saturating_sub(before) as f64 * 100.0 / took.as_nanos() as f64;
    let (bridge, napper) = (percent(before.0, after.0), percent(before.1, after.1));
    if bridge <= 0.0 || napper <= 0.0 {
        return Err(unknown("the system's account of threads is too coarse".to_owned()));
    }
    Ok(Figure::new(bridge, Unit::PercentOfCore).over("a thread that naps 1 ms at a time", napper))
}

/// The folder in which Linux shows a thread of this process.
fn task(name: &str) -> Option<PathBuf> {
    let tasks = std::fs::read_dir("/proc/self/task").ok()?;
    let mut folders = tasks.filter_map(|task| Some(task.ok()?.path()));
    folders.find(|folder| std::fs::read_to_string(folder.join("comm")).is_ok_and(|comm| comm.trim_end() == name))
}

/// How long a thread ran on a core so far.
fn ran_ns(task: &Path) -> Option<u64> {
    // Time on a core, time waiting for one, turns (proc(5)).
    let text = std::fs::read_to_string(task.join("schedstat")).ok()?;
    text.split_whitespace().next()?.parse().ok()
}
