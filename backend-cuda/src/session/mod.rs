//! A fabric in device memory, and the kernels that are to run on it.
//!
//! ```text
//!   Session::new --> load --> add --> add --> start --> Running --> stop, drain, join
//!                                               |
//!                     all of it fits at once? --+-- everything allocated and loaded, clock measured, header written,
//!                                                   then one launch per grid, each on a stream of its own
//! ```
//!
//! Blocks that never return and that wait for one another must all be resident. So `start` counts what all grids
//! together need before it launches any, and launches nothing while others' kernels run on the same [`Device`].

mod grid;
mod image;
mod publish;
mod running;

pub use grid::Grid;
pub use running::{Running, Snapshot};

use crate::bridge::{Bridge, Halves};
use crate::buffer::DeviceBuffer;
use crate::clock::ClockOffset;
use crate::device::{Device, Module, Watched};
use crate::driver::{self, Handle};
use crate::error::Error;
use crate::ptx::Ptx;
use core::fmt;
use image::Image;
use k2k::Memory;
use k2k::memory::FileOptions;
use k2k_core::fabric::NAME_LEN;
use k2k_core::gateway::GatewayConfig;
use k2k_core::sync::{Gpu, System};
use k2k_core::{Config, Fabric, Fixed, Shape};
use k2k_device::{Launch, Report};
use k2k_kernels::shape;
use running::Started;
use std::sync::Arc;

/// The library's gateway, and what one needs: it says so if this is too little.
const GATEWAY: &str = "k2k_gateway";
const GATEWAY_WORKSPACE: usize = 512 << 10;

/// A grid that has been found fit.
#[derive(Debug)]
struct PlannedGrid {
    grid: Grid,
    entry: Handle,
    per_multiprocessor: u32,
    /// Index of its first block's kernel.
    first_index: u32,
}

/// A fabric in device memory, before its kernels start.
///
/// ```
/// use core::time::Duration;
/// use k2k_cuda::k2k_core::sync::Gpu;
/// use k2k_cuda::k2k_core::{Config, Fixed};
/// use k2k_cuda::{Device, EmulatedOptions, Grid, Outcome, Ptx, Session};
///
/// let device = Device::emulated(EmulatedOptions::default())?;
/// let mut session = Session::<Fixed<4, 16, 64, Gpu>>::new(&device, &Config::default())?;
/// session.load(&Ptx::new(include_str!("../../tests/ptx/kernels.ptx"))?)?;
/// // SAFETY: these entry points keep the contract, and take no address as a parameter.
/// unsafe { session.add(Grid::new("test_loop").name("worker").blocks(2))? };
/// let mut running = session.start()?;
/// let kernels = running.wait_ready(Duration::from_secs(10))?;
/// assert_eq!(running.observe()?.find("worker-1"), Some(kernels[1]));
/// for ended in running.stop(Duration::from_secs(10))? {
///     assert_eq!(ended.outcome(), Some(Outcome::Finished));
/// }
/// # Ok::<(), k2k_cuda::Error>(())
/// ```
pub struct Session<Sh: Shape<Scope = Gpu>> {
    device: Device,
    shape: Sh,
    config: Config,
    fabric: DeviceBuffer,
    modules: Vec<Module>,
    grids: Vec<PlannedGrid>,
    indices: u32,
    bridges: Vec<Bridge>,
}

impl<Sh: Shape<Scope = Gpu>> fmt::Debug for Session<Sh> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("shape", &self.shape)
            .field("device", &self.device)
            .field("grids", &self.grids)
            .finish_non_exhaustive()
    }
}

impl<const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize> Session<Fixed<KERNELS, SLOTS, PAYLOAD, Gpu>> {
    /// Size of the fabric, bytes.
    pub const SIZE: usize = Fabric::<KERNELS, SLOTS, PAYLOAD, Gpu>::GEOMETRY.size as usize;

    /// A new fabric in device memory.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; [`Error::Busy`] while another session runs on this device.
    pub fn new(device: &Device, config: &Config) -> Result<Self, Error> {
        Self::of(Fixed::default(), device, config)
    }
}

impl<Sh: Shape<Scope = Gpu>> Session<Sh> {
    /// A new fabric of this shape in device memory. Entry points are compiled for one shape, and refuse others
    /// ([`Outcome::WrongFabric`](crate::Outcome::WrongFabric)).
    ///
    /// # Errors
    /// As for [`new`](Session::new).
    pub fn of(shape: Sh, device: &Device, config: &Config) -> Result<Self, Error> {
        let mut fabric = device.allocate(shape.size())?;
        // The rest is zero, which is idle. An image in host memory has the header that this fabric is to have.
        let image = Image::new(shape, config)?;
        let table = image.fabric().table_bytes();
        fabric.write(table.start, &image.bytes(table))?;
        let device = device.clone();
        Ok(Self {
            device,
            shape,
            config: *config,
            fabric,
            modules: Vec::new(),
            grids: Vec::new(),
            indices: 0,
            bridges: Vec::new(),
        })
    }

    /// Address of the fabric on the device.
    #[must_use]
    pub const fn fabric_address(&self) -> u64 {
        self.fabric.address()
    }

    /// Compiles a text for the device. Its entry points can then be [added](Self::add).
    ///
    /// # Errors
    /// [`Error::OldDriver`], [`Error::WrongTarget`], or [`Error::PtxRejected`] with what the compiler said.
    pub fn load(&mut self, ptx: &Ptx) -> Result<(), Error> {
        self.modules.push(self.device.load(ptx)?);
        Ok(())
    }

    /// As [`load`](Self::load), but only what these grids need, which a driver compiles in a fraction of the time: see
    /// [`Ptx::only`].
    ///
    /// # Errors
    /// As for `load`; [`Error::NoEntry`].
    pub fn load_for(&mut self, ptx: &Ptx, grids: &[Grid]) -> Result<(), Error> {
        let mut entries: Vec<_> = grids.iter().map(|grid| grid.entry.as_str()).collect();
        entries.sort_unstable();
        entries.dedup();
        self.load(&ptx.only(&entries)?)
    }

    /// Adds a grid. Its blocks' kernels take the indices after those of the grids before.
    ///
    /// # Errors
    /// [`Error::NoEntry`], with those there are; [`Error::BadGrid`]; [`Error::TooManyKernels`].
    ///
    /// # Safety
    /// - The entry point keeps the contract of [`Launch`] and is compiled for `Fabric` of this shape,
    ///   if for any.
    /// - Each parameter that it takes for an address is the address of what it expects there, valid for the device
    ///   until the session has ended. [`Grid::keep`] is the way to be sure of the latter.
    pub unsafe fn add(&mut self, grid: Grid) -> Result<(), Error> {
        grid.check()?;
        let module = self.modules.iter().find(|module| module.entries.contains(&grid.entry));
        let Some(module) = module else {
            let entries = self.modules.iter().flat_map(|module| module.entries.iter().cloned()).collect();
            return Err(Error::NoEntry { asked: grid.entry.clone(), entries });
        };
        let asked = self.indices.saturating_add(grid.blocks);
        let indices = self.shape.geometry().kernels;
        if asked > indices {
            return Err(Error::TooManyKernels { asked, indices });
        }
        let (entry, per_multiprocessor) = self.device.while_idle("look up an entry point", |driver| {
            let entry = driver.entry(module.handle, &grid.entry)?;
            Ok((entry, driver.blocks_per_multiprocessor(entry, grid.threads)?))
        })?;
        self.grids.push(PlannedGrid { entry, per_multiprocessor, first_index: self.indices, grid });
        self.indices = asked;
        Ok(())
    }

    /// As [`bridge`](Session::bridge), with a gateway of the caller's.
    ///
    /// # Errors
    /// As for [`bridge`](Session::bridge).
    ///
    /// # Safety
    /// The entry point is `k2k_device::run_gateway` of this session's shape, with links of `FRAMES` frames.
    pub unsafe fn bridge_with<H: Shape<Scope = System>, const FRAMES: usize>(
        &mut self,
        entry: &str,
        name: &str,
        memory: &Memory<H>,
        config: GatewayConfig,
    ) -> Result<(), Error> {
        let halves = Arc::new(Halves::new(&self.device, self.shape.frames::<FRAMES>())?);
        let [near, far] = halves.addresses();
        let mut grid = Grid::new(entry)
            .name(name)
            .workspace(GATEWAY_WORKSPACE)
            .parameter(0, near)
            .parameter(1, far)
            .parameter(2, config.silence_ns)
            .parameter(3, config.grace_ns)
            .keep(Arc::clone(&halves));
        grid.serves_others = true;
        // The host's end first: dropping it takes it back, and nothing takes back a grid that was added.
        let bridge = Bridge::start::<H, FRAMES>(name, memory, halves, config)?;
        // SAFETY: the caller's; the halves are kept.
        unsafe { self.add(grid)? };
        self.bridges.push(bridge);
        Ok(())
    }

    /// Starts all kernels, or none.
    ///
    /// # Errors
    /// [`Error::TooManyBlocks`] and [`Error::TooManyGrids`] if some could wait for ever for others to return;
    /// [`Error::OutOfMemory`]; what the driver says. If the driver refuses a launch after others, those are stopped.
    pub fn start(self) -> Result<Running<Sh>, Error> {
        let Self { device, shape: fabric_shape, config, fabric, modules, grids, bridges, .. } = self;
        check_residency(&device, &grids)?;
        let clock = ClockOffset::measure(&device)?;
        let cooperative = device.probe().cooperative_launch && grids.len() == 1;
        let started = grids.into_iter().map(|added| {
            let blocks = added.grid.blocks as usize;
            let workspace_len = added.grid.workspace_len.next_multiple_of(256);
            let workspace = device.allocate((workspace_len * blocks).max(256))?;
            let reports = device.allocate(blocks * size_of::<Report>())?;
            let mut argument = device.allocate(size_of::<Launch>())?;
            let mut name = [0; NAME_LEN];
            name[..added.grid.name.len()].copy_from_slice(added.grid.name.as_bytes());
            let launch = Launch {
                fabric: fabric.address(),
                workspace: workspace.address(),
                workspace_len: workspace_len as u64,
                reports: reports.address(),
                clock_offset_ns: clock.offset_ns,
                wall_offset_ns: clock.wall_offset_ns,
                first_index: added.first_index,
                blocks: added.grid.blocks,
                name,
                parameters: added.grid.parameters,
            };
            argument.write(0, bytemuck::bytes_of(&launch))?;
            let PlannedGrid { grid, entry, first_index, .. } = added;
            let shape =
                driver::Shape { blocks: grid.blocks, threads: grid.threads, cooperative, launch: argument.address() };
            Ok((Started { grid, first_index, reports, launch: None, _buffers: [workspace, argument] }, entry, shape))
        });
        let started = started.collect::<Result<Vec<_>, Error>>()?;
        device.begin()?;
        let watched = started.iter().map(|(started, ..)| Watched {
            entry: started.grid.entry.clone(),
            names: (0..started.grid.blocks).map(|block| started.grid.block_name(block)).collect(),
            reports: started.reports.address(),
        });
        device.watch(watched.collect());
        let mut running = Running::new(device, fabric_shape, config, clock, fabric, modules, bridges);
        for (mut grid, entry, shape) in started {
            // SAFETY: `add`'s caller vouches for the entry point. Everything that the argument points to is owned by
            // `grid` and `running`, which free it after the launch is done, or never.
            let launched = unsafe { running.driver().launch(entry, shape) };
            match launched {
                Ok(launch) => {
                    grid.launch = Some(launch);
                    running.push(grid);
                }
                // Dropping `running` stops the others.
                Err(e) => return Err(e),
            }
        }
        if let Some(name) = running.device().published() {
            running.publish(&name, FileOptions::new())?;
        }
        Ok(running)
    }
}

impl Session<shape::DeviceShape> {
    /// Joins this session's fabric with a host's: kernels of each find those of the other by name, send to them and
    /// answer them as their own. Loads the library's gateway, which takes an index on each side under the name `name`.
    ///
    /// Only for a fabric of [`k2k_kernels::shape`]'s shape: for another, export a gateway of your own and see
    /// [`bridge_with`](Self::bridge_with). The host's fabric may have any shape; a message that is too long for the
    /// fabric on the remote side ends in `QueueFull`.
    ///
    /// # Errors
    /// [`Error::Bridge`] if the host's fabric has no free index or the name is in use; as for [`load`](Self::load) and
    /// [`add`](Self::add). Neither side has this gateway then, so it may be tried again.
    pub fn bridge<H: Shape<Scope = System>>(
        &mut self,
        name: &str,
        memory: &Memory<H>,
        config: GatewayConfig,
    ) -> Result<(), Error> {
        if !self.modules.iter().any(|module| module.entries.iter().any(|entry| entry == GATEWAY)) {
            self.load(&Ptx::library().only(&[GATEWAY])?)?;
        }
        // SAFETY: the library's gateway has this fabric's shape, and links of so many frames.
        unsafe { self.bridge_with::<H, { shape::FRAMES }>(GATEWAY, name, memory, config) }
    }
}

/// Whether all blocks can be resident together.
///
/// Each multiprocessor holds at least `least` blocks of any kind, where `least` is the smallest of the grids' own
/// numbers: a block of a grid of which `n` fit needs at most `1/n` of everything. So as long as fewer than
/// `multiprocessors × least` blocks are placed, there is one with room for another, wherever the others went.
///
/// That is so if a multiprocessor takes blocks of different entry points at the same time. One that is set up for another
/// share of shared memory does not, until it is empty; all of ours ask for the same, and still there is a report of two that
/// fit together and were kept apart. So with several entry points, one block is counted for each multiprocessor, until
/// [`Device::verify_residency`] has seen more.
fn check_residency(device: &Device, grids: &[PlannedGrid]) -> Result<(), Error> {
    let asked: u32 = grids.iter().map(|added| added.grid.blocks).sum();
    let several = grids.iter().any(|added| added.grid.entry != grids[0].grid.entry);
    let fit = grids.iter().map(|added| added.per_multiprocessor).min().unwrap_or(0);
    let mixed = several && fit > 1 && !device.mixes();
    let least = if mixed { 1 } else { fit };
    let resident = least.saturating_mul(device.probe().multiprocessors);
    if asked > resident {
        return Err(Error::TooManyBlocks { asked, resident, mixed });
    }
    let queues = device.driver().queues();
    match u32::try_from(grids.len()) {
        Ok(asked) if asked <= queues => Ok(()),
        asked => Err(Error::TooManyGrids { asked: asked.unwrap_or(u32::MAX), queues }),
    }
}
