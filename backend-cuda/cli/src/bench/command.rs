//! Telling a kernel that runs to do something, against launching one that does it.

use super::Failure;
use super::rig::{Rig, Spread};
use super::row::{Missing, Row};
use super::trip::host_ring;
use k2k_cuda::Blink;
use k2k_cuda::Error;

/// Launches take long: so many at most.
const LAUNCHES: u64 = 5_000;

pub(super) fn against_launches(rig: &Rig<'_>) -> Result<Vec<Row>, Failure> {
    // Launches first: nothing may run beside them.
    let mut blink = Blink::new(rig.device)?;
    let launch = timed(rig, || blink.launch())?;
    let graph = if blink.record()? {
        timed(rig, || blink.replay()).map_err(|Failure(why)| Missing::Failed(why))
    } else {
        Err(Missing::Unavailable("the driver has no graphs: it is older than CUDA 11.4".to_owned()))
    };
    drop(blink);
    let message = host_ring(rig)?;
    let against = |name: &'static str, other: Spread| message.median().over(name, other.p50);
    Ok(vec![
        rig.row("launch and wait, p50", Ok(launch.median())),
        rig.row("message and answer / launch", Ok(against("launch and wait", launch))),
        rig.row_or("message and answer / graph", graph.map(|graph| against("graph replay and wait", graph))),
    ])
}

fn timed(rig: &Rig<'_>, mut launch: impl FnMut() -> Result<(), Error>) -> Result<Spread, Failure> {
    let mut left = LAUNCHES;
    let mut samples = Vec::new();
    let _ = rig.time(|_| {
        if left > 0 {
            left -= 1;
            let began = std::time::Instant::now();
            launch()?;
            samples.push(began.elapsed().as_nanos() as u64);
        }
        Ok(())
    })?;
    let dropped = samples.len() / 10;
    Ok(Spread::of(samples.split_off(dropped)))
}
