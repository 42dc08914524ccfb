//! A picture through a grid of kernels: cutting it up, starting, waiting, putting it together.

use core::fmt;
use core::time::Duration;
use k2k::message::PayloadSize;
use k2k::{
    Broker, Endpoint, EndpointError, Fixed, KernelFailure, KernelHandle, KernelId, MemoryError, Message, ReceiveError,
    SendError, StartError, StartOptions, Stats, StopError, Wait,
};
use k2k_denoise::protocol::{FINISH, REPORT, START};
use k2k_denoise::{
    Grid, Outcome, Params, Report, Shape, ShapeError, Side, Start, StorageError, Tile, diffuse_reference,
};
use std::time::Instant;

/// Nothing may come to a tile, or go from it, for longer than this while it has work.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a tile may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the controller looks whether tiles have died without a word.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Channels of equal size, one after the other.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Planes {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) channels: u32,
    /// `channels` × `height` × `width` values.
    pub(crate) values: Vec<f32>,
}

impl Planes {
    fn plane_len(&self) -> usize {
        self.width as usize * self.height as usize
    }

    /// The same picture by the sequential reference.
    pub(crate) fn diffused_by_reference(&self, params: &Params) -> Self {
        let mut result = self.clone();
        let mut scratch = vec![0.0; self.plane_len()];
        for plane in result.values.chunks_exact_mut(self.plane_len()) {
            diffuse_reference(plane, &mut scratch, self.width as usize, params);
        }
        result
    }

    /// Whether every value has the same bits.
    pub(crate) fn is_identical_to(&self, other: &Self) -> bool {
        (self.width, self.height, self.channels) == (other.width, other.height, other.channels)
            && self.values.iter().map(|v| v.to_bits()).eq(other.values.iter().map(|v| v.to_bits()))
    }
}

/// A picture that was diffused, and what that took.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) planes: Planes,
    pub(crate) grid: Grid,
    /// From the first START to the last REPORT.
    pub(crate) elapsed: Duration,
    /// Of all kernels and the controller.
    pub(crate) stats: Stats,
    /// Halo messages.
    pub(crate) halos: u64,
    /// Times that a neighbour had no room for a halo.
    pub(crate) retries: u64,
}

/// Why a picture was not diffused.
#[derive(Debug)]
pub(crate) enum JobError {
    /// A picture without pixels, or no kernels.
    Empty,
    /// More kernels than any fabric here has indices.
    TooManyKernels { found: u32, most: u32 },
    /// A tile is too large.
    Shape(ShapeError),
    /// A tile's memory is not what its shape needs.
    Storage(StorageError),
    /// No memory for the fabric.
    Memory(MemoryError),
    /// The controller could not register.
    Controller(EndpointError),
    /// A tile could not be started.
    Start { tile: u32, why: StartError },
    /// A tile could not be told to start or to finish.
    Send { tile: u32, why: SendError },
    /// The controller could not receive.
    Receive(ReceiveError),
    /// A tile's report is none.
    Report(PayloadSize),
    /// A tile failed, and said why.
    Tile { tile: u32, iterations: u32, outcome: Option<Outcome> },
    /// A tile's handler panicked.
    Panic(KernelFailure),
    /// A tile ended without a report.
    Vanished { tile: u32 },
    /// A tile did not stop.
    Hangs(String),
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("there must be at least one pixel and one kernel"),
            Self::TooManyKernels { found, most } => {
                write!(f, "{found} kernels are too many: this program has fabrics for up to {most}")
            }
            Self::Shape(e) => e.fmt(f),
            Self::Storage(e) => e.fmt(f),
            Self::Memory(e) => e.fmt(f),
            Self::Controller(e) => write!(f, "the controller could not register: {e}"),
            Self::Start { tile, why } => write!(f, "tile {tile} could not be started: {why}"),
            Self::Send { tile, why } => write!(f, "tile {tile} could not be told what to do: {why}"),
            Self::Receive(e) => write!(f, "the controller could not receive: {e}"),
            Self::Report(e) => write!(f, "a tile's report cannot be read: {e}"),
            Self::Tile { tile, iterations, outcome: Some(outcome) } => {
                write!(f, "tile {tile} failed after {iterations} iterations: {outcome}")
            }
            Self::Tile { tile, iterations, outcome: None } => {
                write!(f, "tile {tile} failed after {iterations} iterations, with a number that is no outcome")
            }
            Self::Panic(e) => e.fmt(f),
            Self::Vanished { tile } => write!(f, "tile {tile} ended without a report"),
            Self::Hangs(why) => f.write_str(why),
        }
    }
}

impl core::error::Error for JobError {}

/// Indices in the largest fabric, less one for the controller.
pub(crate) const MOST_KERNELS: u32 = 255;

/// Diffuses a picture with up to `kernels` kernels (fewer if it has not enough pixels), in a fabric that has room for
/// them.
pub(crate) fn diffuse(planes: &Planes, kernels: u32, params: &Params) -> Result<Done, JobError> {
    let grid = Grid::new(planes.width, planes.height, kernels).ok_or(JobError::Empty)?;
    match grid.len() {
        // One index is the controller's.
        0..=3 => diffuse_in::<4, 16, 960>(planes, grid, params),
        4..=15 => diffuse_in::<16, 16, 960>(planes, grid, params),
        16..=63 => diffuse_in::<64, 16, 960>(planes, grid, params),
        64..=MOST_KERNELS => diffuse_in::<256, 16, 960>(planes, grid, params),
        found => Err(JobError::TooManyKernels { found, most: MOST_KERNELS }),
    }
}

type TileHandle<const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize> =
    KernelHandle<Tile<Box<[f32]>>, Fixed<KERNELS, SLOTS, PAYLOAD>>;

/// The running tiles. Whatever happens, none of them runs on.
struct Tiles<const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize>(Vec<TileHandle<KERNELS, SLOTS, PAYLOAD>>);

impl<const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize> Drop for Tiles<KERNELS, SLOTS, PAYLOAD> {
    fn drop(&mut self) {
        for handle in &self.0 {
            // One that has left already needs no telling.
            let _ = handle.stop();
        }
    }
}

/// Diffuses a picture in a fabric of this shape, which has it for itself.
pub(crate) fn diffuse_in<const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize>(
    planes: &Planes,
    grid: Grid,
    params: &Params,
) -> Result<Done, JobError> {
    let broker = Broker::builder().delivery_timeout(PATIENCE).build().map_err(JobError::Memory)?;
    diffuse_on::<KERNELS, SLOTS, PAYLOAD>(&broker, planes, grid, params)
}

/// Diffuses a picture in this fabric.
pub(crate) fn diffuse_on<const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize>(
    broker: &Broker<Fixed<KERNELS, SLOTS, PAYLOAD>>,
    planes: &Planes,
    grid: Grid,
    params: &Params,
) -> Result<Done, JobError> {
    let mut controller = broker.register_parking("controller").map_err(JobError::Controller)?;
    let options = StartOptions { wait: Wait::Park, ..StartOptions::default() };
    let mut tiles = Tiles(Vec::new());
    for tile in 0..grid.len() {
        let kernel = load(planes, &grid, tile)?;
        let started = broker.start(&format!("tile-{tile}"), kernel, options);
        tiles.0.push(started.map_err(|why| JobError::Start { tile, why })?);
    }

    let began = Instant::now();
    for (tile, handle) in (0..).zip(&tiles.0) {
        let neighbours =
            Side::ALL.map(|side| grid.neighbour(tile, side).map_or(KernelId::NONE, |i| tiles.0[i as usize].id()));
        let start = Start {
            patience_ns: PATIENCE.as_nanos() as u64,
            neighbours: neighbours.map(KernelId::raw),
            iterations: params.iterations(),
            kappa: params.kappa(),
            lambda: params.lambda(),
            reserved: 0,
        };
        controller
            .send_blocking(handle.id(), &Message::from_value(START, &start))
            .map_err(|why| JobError::Send { tile, why })?;
    }
    let (halos, retries) = collect(&mut controller, &mut tiles)?;
    let elapsed = began.elapsed();

    for (tile, handle) in (0..).zip(&tiles.0) {
        controller.send_blocking(handle.id(), &Message::new(FINISH)).map_err(|why| JobError::Send { tile, why })?;
    }
    let finished = Instant::now();
    let mut result = Planes { values: vec![0.0; planes.values.len()], ..*planes };
    for (tile, handle) in (0..).zip(tiles.0.drain(..)) {
        // Every tile has its FINISH and stops by it; one that does not is stopped.
        while !handle.is_finished() && finished.elapsed() < STOP_TIMEOUT {
            std::thread::sleep(Duration::from_micros(100));
        }
        let kernel = handle.stop_and_join(STOP_TIMEOUT).map_err(|e| match e {
            StopError::Failed(e) => JobError::Panic(e),
            e @ StopError::Hangs(_) => JobError::Hangs(e.to_string()),
        })?;
        unload(&mut result, &grid, tile, params, kernel)?;
    }
    Ok(Done { planes: result, grid, elapsed, stats: broker.stats(), halos, retries })
}

/// Waits until every tile has reported that it is done; returns how many halos they sent, and how often they had to try
/// again.
fn collect<const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize>(
    controller: &mut Endpoint<Fixed<KERNELS, SLOTS, PAYLOAD>>,
    tiles: &mut Tiles<KERNELS, SLOTS, PAYLOAD>,
) -> Result<(u64, u64), JobError> {
    let (mut halos, mut retries) = (0, 0);
    let mut waiting = vec![true; tiles.0.len()];
    let mut failure = None;
    while waiting.contains(&true) {
        // Those that have ended before the inbox is looked at have reported before it.
        let ended: Vec<bool> = tiles.0.iter().map(KernelHandle::is_finished).collect();
        let message = match controller.receive(LOOK_EVERY) {
            Ok(message) => message,
            Err(ReceiveError::Timeout) => {
                if let Some(failure) = failure {
                    return Err(failure);
                }
                let Some(tile) = (0..ended.len()).find(|&i| ended[i] && waiting[i]) else { continue };
                let vanished = JobError::Vanished { tile: tile as u32 };
                return Err(tiles.0.swap_remove(tile).join().map_or_else(JobError::Panic, |_| vanished));
            }
            Err(e) => return Err(JobError::Receive(e)),
        };
        let Some(tile) = tiles.0.iter().position(|handle| handle.id() == message.header.source()) else { continue };
        if message.header.kind != REPORT {
            continue;
        }
        let report: Report = message.value().map_err(JobError::Report)?;
        waiting[tile] = false;
        halos += report.sent;
        retries += report.retries;
        if report.outcome() != Some(Outcome::Done) {
            let outcome = report.outcome();
            let error = JobError::Tile { tile: tile as u32, iterations: report.iterations, outcome };
            // Behind a neighbour's failure is another, which says more and is on its way.
            if outcome != Some(Outcome::NeighbourFailed) {
                return Err(error);
            }
            failure.get_or_insert(error);
        }
    }
    failure.map_or(Ok((halos, retries)), Err)
}

fn shape_of(planes: &Planes, grid: &Grid, tile: u32) -> Result<(Shape, usize), JobError> {
    let area = grid.area(tile);
    let shape = Shape::new(area.width, area.height, planes.channels).map_err(JobError::Shape)?;
    Ok((shape, area.y as usize * planes.width as usize + area.x as usize))
}

fn load(planes: &Planes, grid: &Grid, tile: u32) -> Result<Tile<Box<[f32]>>, JobError> {
    let (shape, first) = shape_of(planes, grid, tile)?;
    let mut storage = vec![0.0; shape.storage_len()].into_boxed_slice();
    for (channel, plane) in planes.values.chunks_exact(planes.plane_len()).enumerate() {
        shape.load(&mut storage, channel, &plane[first..], planes.width as usize);
    }
    Tile::new(storage, shape).map_err(JobError::Storage)
}

fn unload(
    planes: &mut Planes,
    grid: &Grid,
    tile: u32,
    params: &Params,
    kernel: Tile<Box<[f32]>>,
) -> Result<(), JobError> {
    let (shape, first) = shape_of(planes, grid, tile)?;
    let storage = kernel.into_storage();
    let (width, plane_len) = (planes.width as usize, planes.plane_len());
    for (channel, plane) in planes.values.chunks_exact_mut(plane_len).enumerate() {
        shape.unload(&storage, params.iterations(), channel, &mut plane[first..], width);
    }
    Ok(())
}
