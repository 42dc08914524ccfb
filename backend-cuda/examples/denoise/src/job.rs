//! The host's half: a kernel of the host tells the tiles, across a [bridge](Session::bridge), what to do.

use crate::TileSpec;
use core::fmt;
use core::time::Duration;
use k2k::{Broker, Endpoint, Fixed, Memory};
use k2k_core::gateway::GatewayConfig;
use k2k_core::sync::Gpu;
use k2k_core::{Config, KernelId, Message};
use k2k_cuda::{Device, DeviceBuffer, Error, Grid as Entry, Ptx, Running, Session};
use k2k_denoise::protocol::{FINISH, REPORT, START};
use k2k_denoise::{Grid, Outcome, Params, Report, Shape, Side, Start};
use std::time::Instant;

const KERNELS: usize = 16;
const SLOTS: usize = 64;
const PAYLOAD: usize = 192;

type DeviceShape = Fixed<KERNELS, SLOTS, PAYLOAD, Gpu>;

/// Tiles at most: the indices of the device's fabric, less the gateway's and the controller's.
pub const MOST_TILES: u32 = KERNELS as u32 - 2;

/// A picture: one plane of values per channel, one after the other, row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct Planes {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Planes.
    pub channels: u32,
    /// `channels × height × width` of them.
    pub values: Vec<f32>,
}

impl Planes {
    const fn plane_len(&self) -> usize {
        self.width as usize * self.height as usize
    }

    /// The sequential reference.
    #[must_use]
    pub fn diffused_by_reference(&self, params: &Params) -> Self {
        let mut result = self.clone();
        let mut scratch = vec![0.0; self.plane_len()];
        for plane in result.values.chunks_exact_mut(self.plane_len()) {
            k2k_denoise::diffuse_reference(plane, &mut scratch, self.width as usize, params);
        }
        result
    }

    /// Whether every value is the other's, bit for bit.
    #[must_use]
    pub fn is_identical_to(&self, other: &Self) -> bool {
        self.values.len() == other.values.len()
            && self.values.iter().zip(&other.values).all(|(a, b)| a.to_bits() == b.to_bits())
    }
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Done {
    /// The picture.
    pub planes: Planes,
    /// Tiles that worked on it.
    pub tiles: u32,
    /// Messages between tiles.
    pub halos: u64,
    /// From the first START to the last REPORT.
    pub elapsed: Duration,
}

/// Why it came to nothing.
#[derive(Debug)]
pub enum DenoiseError {
    /// The device.
    Device(Error),
    /// The picture has no pixels, another number of values than pixels, or tiles that are too large.
    Picture(String),
    /// Messages.
    Host(String),
    /// A tile ended otherwise than by being done.
    Tile {
        /// Which.
        tile: usize,
        /// How; `None` if it says something that does not exist.
        outcome: Option<Outcome>,
    },
    /// Tiles said nothing for so long.
    Silent(Duration),
}

impl fmt::Display for DenoiseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(e) => e.fmt(f),
            Self::Picture(why) | Self::Host(why) => f.write_str(why),
            Self::Tile { tile, outcome: Some(outcome) } => write!(f, "tile {tile} {outcome}"),
            Self::Tile { tile, outcome: None } => write!(f, "tile {tile} reports what no tile reports"),
            Self::Silent(waited) => write!(f, "the tiles said nothing for {waited:?}"),
        }
    }
}

impl core::error::Error for DenoiseError {}

impl From<Error> for DenoiseError {
    fn from(e: Error) -> Self {
        Self::Device(e)
    }
}

fn host(e: impl fmt::Display) -> DenoiseError {
    DenoiseError::Host(e.to_string())
}

/// Diffuses a picture with up to `tiles` kernels of the device, [`MOST_TILES`] at most.
///
/// # Errors
/// [`DenoiseError`]. Whatever happens, no kernel goes on running; or the device's own error says that it does.
pub fn diffuse(
    device: &Device,
    planes: &Planes,
    tiles: u32,
    params: &Params,
    patience: Duration,
) -> Result<Done, DenoiseError> {
    let grid = cut(planes, tiles)?;
    let (uploaded, table) = upload(device, planes, &grid)?;

    // A message may wait for as long as the job.
    let config = Config { delivery_timeout_ns: patience.as_nanos() as u64, ..Config::default() };
    let memory = Memory::heap(&config).map_err(host)?;
    let mut session = Session::new(device, &config)?;
    session.load(&Ptx::new(include_str!("../denoise.ptx"))?)?;
    let entry = Entry::new("tile").name(NAME).blocks(grid.len()).parameter(0, table.address()).keep(table);
    // SAFETY: this crate's entry point; table and storages live until the session has ended, which is before they are
    // read.
    unsafe { session.add(entry)? };
    session.bridge("gateway", &memory, GatewayConfig::default())?;
    let broker = Broker::new(memory);
    let mut controller = broker.register_parking("controller").map_err(host)?;
    let mut running: DeviceRunning = session.start()?;

    let there = running.wait_ready(patience)?;
    let here = find(&broker, grid.len(), patience)?;
    let began = Instant::now();
    begin(&mut controller, &grid, params, patience, &here, &there)?;
    let halos = collect(&mut controller, &here, patience)?;
    let elapsed = began.elapsed();
    for id in &here {
        controller.send_blocking(*id, &Message::new(FINISH)).map_err(host)?;
    }
    running.join(patience)?;

    let planes = download(planes, &uploaded, params)?;
    Ok(Done { planes, tiles: grid.len(), halos, elapsed })
}

type DeviceRunning = Running<DeviceShape>;
type HostBroker = Broker<Fixed<KERNELS, SLOTS, PAYLOAD>>;
type HostEndpoint = Endpoint<Fixed<KERNELS, SLOTS, PAYLOAD>>;

/// Of the tiles: that of one, or what stands before the number of each.
const NAME: &str = "tile";

/// A tile's pixels on the device.
struct Uploaded {
    storage: DeviceBuffer,
    shape: Shape,
    /// Where the tile begins in a plane.
    first: usize,
}

/// How the picture is cut into tiles.
fn cut(planes: &Planes, tiles: u32) -> Result<Grid, DenoiseError> {
    let picture = |why: &str| DenoiseError::Picture(why.to_owned());
    let grid = Grid::new(planes.width, planes.height, tiles.min(MOST_TILES));
    let grid = grid.ok_or_else(|| picture("a picture without pixels, or no tiles"))?;
    if planes.channels == 0 || planes.values.len() != planes.plane_len() * planes.channels as usize {
        return Err(picture("a picture with another number of values than width x height x channels"));
    }
    Ok(grid)
}

/// Puts each tile's pixels into device memory, and a table of them that the kernels read.
fn upload(device: &Device, planes: &Planes, grid: &Grid) -> Result<(Vec<Uploaded>, DeviceBuffer), DenoiseError> {
    let width = planes.width as usize;
    let mut tiles = Vec::new();
    let mut specs = Vec::new();
    for tile in 0..grid.len() {
        let area = grid.area(tile);
        let shape =
            Shape::new(area.width, area.height, planes.channels).map_err(|e| DenoiseError::Picture(e.to_string()))?;
        let first = area.y as usize * width + area.x as usize;
        let mut values = vec![0.0; shape.storage_len()];
        for (channel, plane) in planes.values.chunks_exact(planes.plane_len()).enumerate() {
            shape.load(&mut values, channel, &plane[first..], width);
        }
        let mut storage = device.allocate(values.len() * size_of::<f32>())?;
        storage.write(0, bytemuck::cast_slice(&values))?;
        let (width, height, channels) = (area.width, area.height, planes.channels);
        specs.push(TileSpec { storage: storage.address(), width, height, channels, reserved: 0 });
        tiles.push(Uploaded { storage, shape, first });
    }
    let mut table = device.allocate(size_of_val(specs.as_slice()))?;
    table.write(0, bytemuck::cast_slice(&specs))?;
    Ok((tiles, table))
}

/// The tiles as the host knows them, as soon as the gateway has announced them all.
fn find(broker: &HostBroker, tiles: u32, patience: Duration) -> Result<Vec<KernelId>, DenoiseError> {
    let waiting_since = Instant::now();
    let mut found = Vec::new();
    while found.len() < tiles as usize {
        let name = if tiles == 1 { NAME.to_owned() } else { format!("{NAME}-{}", found.len()) };
        match broker.find(&name) {
            Some(id) => found.push(id),
            None if waiting_since.elapsed() > patience => return Err(DenoiseError::Silent(patience)),
            None => std::thread::sleep(Duration::from_micros(200)),
        }
    }
    Ok(found)
}

/// Tells each tile, by its address here, its job and its neighbours, which know one another by their addresses there.
fn begin(
    controller: &mut HostEndpoint,
    grid: &Grid,
    params: &Params,
    patience: Duration,
    here: &[KernelId],
    there: &[KernelId],
) -> Result<(), DenoiseError> {
    for (tile, id) in (0..).zip(here) {
        let address = |i: u32| there.get(i as usize).copied().unwrap_or(KernelId::NONE);
        let neighbours = Side::ALL.map(|side| grid.neighbour(tile, side).map_or(KernelId::NONE, address));
        let start = Start {
            patience_ns: patience.as_nanos() as u64,
            neighbours: neighbours.map(KernelId::raw),
            iterations: params.iterations(),
            kappa: params.kappa(),
            lambda: params.lambda(),
            reserved: 0,
        };
        controller.send_blocking(*id, &Message::from_value(START, &start)).map_err(host)?;
    }
    Ok(())
}

/// Waits until each tile has reported that it is done. Returns how many messages they have sent one another.
fn collect(controller: &mut HostEndpoint, tiles: &[KernelId], patience: Duration) -> Result<u64, DenoiseError> {
    let mut halos = 0;
    let mut open = tiles.len();
    while open > 0 {
        let message = controller.receive(patience).map_err(|_| DenoiseError::Silent(patience))?;
        let Some(tile) = tiles.iter().position(|id| *id == message.header.source()) else { continue };
        if message.header.kind != REPORT {
            continue;
        }
        let report: Report = message.value().map_err(host)?;
        let outcome = report.outcome();
        if outcome != Some(Outcome::Done) {
            return Err(DenoiseError::Tile { tile, outcome });
        }
        halos += report.sent;
        open -= 1;
    }
    Ok(halos)
}

/// The picture that the tiles have left in device memory, of the size of `planes`.
fn download(planes: &Planes, tiles: &[Uploaded], params: &Params) -> Result<Planes, DenoiseError> {
    let mut result = Planes { values: vec![0.0; planes.values.len()], ..*planes };
    for Uploaded { storage, shape, first } in tiles {
        let mut values = vec![0f32; shape.storage_len()];
        storage.read(0, bytemuck::cast_slice_mut(&mut values))?;
        for (channel, plane) in result.values.chunks_exact_mut(planes.plane_len()).enumerate() {
            shape.unload(&values, params.iterations(), channel, &mut plane[*first..], planes.width as usize);
        }
    }
    Ok(result)
}
