//! A device that interprets PTX on the CPU, on a thread of its own. Its memory is the host's.

use super::{Driver, Handle, Shape};
use crate::error::{Error, Version};
use crate::probe::Probe;
use crate::ptx::Ptx;
use core::alloc::Layout;
use core::ptr::NonNull;
use k2k_core::sync::Ordering::Relaxed;
use k2k_core::sync::{AtomicU32, AtomicU64};
use k2k_ptx_executor::{Arg, Background, Clock, LaunchId, Machine, Module, Options};
use std::alloc::{alloc_zeroed, dealloc};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How the emulated device behaves.
#[derive(Clone, Copy, Debug)]
pub struct EmulatedOptions {
    /// What the interleaving of its threads is drawn from. Host threads beside it are not in its hand, so a run with
    /// the same seed may still differ.
    pub seed: u64,
    /// Blocks that can be resident at a time.
    pub blocks: u32,
    /// Whether to look for races between its threads. One ends everything that runs, with a message. Slower.
    pub races: bool,
    /// What `%globaltimer` reads.
    pub clock: Clock,
}

impl Default for EmulatedOptions {
    /// 64 blocks, the host's clock, not looking for races.
    fn default() -> Self {
        Self { seed: 1, blocks: 64, races: false, clock: Clock::Host }
    }
}

const ALIGN: usize = 256;

#[derive(Debug)]
pub(crate) struct Emulated {
    machine: Background,
    blocks: u32,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Lengths of allocations, by address.
    owned: HashMap<u64, usize>,
    /// What has been loaded: a machine forgets nothing. A module's handle is its index.
    modules: Vec<Ptx>,
    /// Module and name. An entry's handle is its index.
    entries: Vec<(usize, String)>,
    launches: Vec<LaunchId>,
    /// Launches to repeat. A record's handle is its index.
    records: Vec<(Handle, Shape)>,
}

impl Emulated {
    pub(crate) fn new(options: EmulatedOptions) -> Result<Self, Error> {
        let EmulatedOptions { seed, blocks, races, clock } = options;
        let machine = Machine::new(seed, Options { races, native_host: true, clock, ..Options::default() });
        let machine = Background::start(machine).map_err(|e| Error::Emulated(format!("no thread for it: {e}")))?;
        Ok(Self { machine, blocks, inner: Mutex::default() })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn layout(bytes: usize) -> Option<Layout> {
        Layout::from_size_align(bytes.max(1).next_multiple_of(8), ALIGN).ok()
    }

    fn make(&self, name: &str, bytes: usize, error: Error) -> Result<NonNull<u8>, Error> {
        let Some(layout) = Self::layout(bytes) else { return Err(error) };
        // SAFETY: the layout's size is not zero.
        let Some(base) = NonNull::new(unsafe { alloc_zeroed(layout) }) else { return Err(error) };
        // SAFETY: freed by `unmake` alone, which unregisters it first; reached through atomics and raw pointers.
        let registered = self.machine.with(|machine| unsafe { machine.register(name, base.as_ptr(), layout.size()) });
        registered.map_err(|e| Error::Emulated(e.to_string()))?;
        Ok(base)
    }

    /// # Safety
    /// `base` and `bytes` are those of `make`, once.
    unsafe fn unmake(&self, base: NonNull<u8>, bytes: usize) {
        self.machine.with(|machine| machine.unregister(base.as_ptr()));
        if let Some(layout) = Self::layout(bytes) {
            // SAFETY: `make` got it with this layout, and the device no longer reaches it.
            unsafe { dealloc(base.as_ptr(), layout) };
        }
    }
}

/// A byte address, at any of which an access may be cut into words.
fn at(address: u64) -> *mut u8 {
    core::ptr::with_exposed_provenance_mut(address as usize)
}

impl Driver for Emulated {
    fn probe(&self) -> Result<Probe, Error> {
        Ok(Probe {
            name: "emulated device (PTX on the CPU)".to_owned(),
            is_gpu: false,
            // The newest whose PTX its tests have run: older PTX runs as well, as on a device.
            capability: Version(10, 0),
            driver: Version(13, 5),
            // One block each.
            multiprocessors: self.blocks,
            warp_size: 32,
            memory: 0,
            host_atomics: true,
            mapped_memory: true,
            unified_addresses: true,
            cooperative_launch: true,
            time_limit: false,
            pci: None,
            numa_node: None,
            watched_by: None,
        })
    }

    fn queues(&self) -> u32 {
        u32::MAX
    }

    fn allocate(&self, bytes: usize) -> Result<u64, Error> {
        let base = self.make("device memory", bytes, Error::OutOfMemory { asked: bytes as u64, free: None })?;
        let address = base.as_ptr().expose_provenance() as u64;
        self.inner().owned.insert(address, bytes);
        Ok(address)
    }

    unsafe fn free(&self, address: u64) {
        let bytes = self.inner().owned.remove(&address);
        if let (Some(bytes), Some(base)) = (bytes, NonNull::new(at(address))) {
            // SAFETY: it was in the list, so `make` made it, and it is there once.
            unsafe { self.unmake(base, bytes) };
        }
    }

    unsafe fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Error> {
        for (offset, width) in pieces(address, bytes.len()) {
            let piece = &bytes[offset..][..width];
            let place = at(address + offset as u64);
            // SAFETY: inside of one allocation, as the caller says, and aligned, as `pieces` says. Everybody else uses
            // atomics as well. Relaxed: a copy engine promises no order either.
            unsafe {
                match *piece {
                    [a, b, c, d] => (*place.cast::<AtomicU32>()).store(u32::from_le_bytes([a, b, c, d]), Relaxed),
                    [a, b, c, d, e, f, g, h] => {
                        (*place.cast::<AtomicU64>()).store(u64::from_le_bytes([a, b, c, d, e, f, g, h]), Relaxed);
                    }
                    _ => place.write_volatile(piece[0]),
                }
            }
        }
        Ok(())
    }

    unsafe fn read(&self, address: u64, to: &mut [u8]) -> Result<(), Error> {
        for (offset, width) in pieces(address, to.len()) {
            let place = at(address + offset as u64);
            let piece = &mut to[offset..][..width];
            // SAFETY: as in `write`. Relaxed: as there.
            unsafe {
                match width {
                    8 => piece.copy_from_slice(&(*place.cast::<AtomicU64>()).load(Relaxed).to_le_bytes()),
                    4 => piece.copy_from_slice(&(*place.cast::<AtomicU32>()).load(Relaxed).to_le_bytes()),
                    _ => piece[0] = place.read_volatile(),
                }
            }
        }
        Ok(())
    }

    fn allocate_host(&self, bytes: usize) -> Result<(NonNull<u8>, u64), Error> {
        let base = self.make("host memory", bytes, Error::OutOfHostMemory { asked: bytes as u64 })?;
        Ok((base, base.as_ptr().expose_provenance() as u64))
    }

    unsafe fn free_host(&self, base: NonNull<u8>, bytes: usize) {
        // SAFETY: as the caller says.
        unsafe { self.unmake(base, bytes) };
    }

    unsafe fn register(&self, base: NonNull<u8>, bytes: usize) -> Result<u64, Error> {
        // SAFETY: as the caller says.
        let registered = self.machine.with(|machine| unsafe { machine.register("mapping", base.as_ptr(), bytes) });
        registered.map_err(|e| Error::Emulated(e.to_string()))?;
        Ok(base.as_ptr().expose_provenance() as u64)
    }

    unsafe fn unregister(&self, base: NonNull<u8>) {
        self.machine.with(|machine| machine.unregister(base.as_ptr()));
    }

    fn load(&self, ptx: &Ptx) -> Result<Handle, Error> {
        let mut inner = self.inner();
        if let Some(known) = inner.modules.iter().position(|module| module == ptx) {
            return Ok(known as Handle);
        }
        let rejected = |log| Error::PtxRejected { entries: ptx.entries().to_vec(), log };
        // A machine launches the first of that name: it may be this one, if both are the same.
        let other = inner.modules.iter().find_map(|module| {
            let differs = |name: &&String| {
                let here = ptx.only(&[name]).ok();
                module.entries().contains(*name) && module.only(&[name]).ok() != here
            };
            ptx.entries().iter().find(differs)
        });
        if let Some(name) = other {
            return Err(rejected(format!(
                "another text with an entry point {name} has been loaded; an emulated device forgets none: use \
                 another one"
            )));
        }
        let module = Module::parse(ptx.text()).map_err(|e| rejected(e.to_string()))?;
        self.machine.with(|machine| machine.load(&module));
        inner.modules.push(ptx.clone());
        Ok(inner.modules.len() as Handle - 1)
    }

    unsafe fn unload(&self, _: Handle) {}

    fn entry(&self, module: Handle, name: &str) -> Result<Handle, Error> {
        let mut inner = self.inner();
        inner.entries.push((module as usize, name.to_owned()));
        Ok(inner.entries.len() as Handle - 1)
    }

    fn blocks_per_multiprocessor(&self, _: Handle, _: u32) -> Result<u32, Error> {
        Ok(1)
    }

    unsafe fn launch(&self, entry: Handle, shape: Shape) -> Result<Handle, Error> {
        if let Some(error) = self.machine.error() {
            return Err(Error::Emulated(error.to_string()));
        }
        let mut inner = self.inner();
        let name = inner.entries[entry as usize].1.clone();
        let args = [Arg::U64(shape.launch)];
        let launched = self.machine.with(|machine| machine.launch(&name, shape.blocks, shape.threads, &args));
        inner.launches.push(launched.map_err(|e| Error::Emulated(e.to_string()))?);
        Ok(inner.launches.len() as Handle - 1)
    }

    unsafe fn record(&self, entry: Handle, shape: Shape) -> Result<Option<Handle>, Error> {
        let mut inner = self.inner();
        inner.records.push((entry, shape));
        Ok(Some(inner.records.len() as Handle - 1))
    }

    unsafe fn replay(&self, record: Handle) -> Result<Handle, Error> {
        let (entry, shape) = self.inner().records[record as usize];
        // SAFETY: as the caller of `record` said.
        unsafe { self.launch(entry, shape) }
    }

    unsafe fn forget(&self, _: Handle) {}

    fn is_done(&self, launch: Handle) -> Result<bool, Error> {
        let id = self.inner().launches[launch as usize];
        if self.machine.with(|machine| machine.is_finished(id)) {
            return Ok(true);
        }
        self.machine.error().map_or(Ok(false), |e| Err(Error::Emulated(e.to_string())))
    }

    fn finish(&self, launch: Handle) {
        let id = self.inner().launches[launch as usize];
        self.machine.with(|machine| machine.join(id));
    }

    fn is_lost(&self) -> bool {
        self.machine.error().is_some()
    }
}

/// Cuts a range into aligned words of 8 and 4 bytes and single bytes: offset and width.
fn pieces(address: u64, len: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut offset = 0;
    core::iter::from_fn(move || {
        let left = len - offset;
        let aligned = |width| (address + offset as u64).is_multiple_of(width as u64) && left >= width;
        let width = [8, 4, 1].into_iter().find(|&width| aligned(width))?;
        offset += width;
        Some((offset - width, width))
    })
}
