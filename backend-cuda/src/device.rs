//! A device and its memory.
//!
//! Freeing memory waits for every kernel on the device, and kernels of K2K do not return by themselves. So what is
//! dropped while a session runs is freed when the session has ended; and if its kernels hang, never. For the same
//! reason nothing is allocated or loaded while a session runs: allocate before it starts.

#[cfg(feature = "emulated")]
use crate::driver::emulated::{Emulated, EmulatedOptions};
use crate::driver::gone::Gone;
use crate::driver::{Driver, Handle, cuda};
use crate::error::Error;
use crate::probe::{Placement, Probe};
use crate::ptx::Ptx;
use crate::report::BlockReport;
use bytemuck::Zeroable as _;
use core::any::Any;
use core::fmt;
use core::panic::AssertUnwindSafe;
use core::ptr::NonNull;
use core::time::Duration;
use k2k::process::Own;
use k2k_device::{Outcome, Report};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

/// A device that kernels can run on: a GPU, or the CPU in a GPU's place. Clones are the same device.
///
/// ```
/// use k2k_cuda::{Device, EmulatedOptions};
///
/// // A GPU if there is one; it says so if not.
/// let device = Device::first().or_else(|no_gpu| {
///     eprintln!("{no_gpu}");
///     Device::emulated(EmulatedOptions::default())
/// })?;
/// println!("{}", device.probe());
/// let mut buffer = device.allocate(4096)?;
/// buffer.write(128, &[1, 2, 3])?;
/// let mut bytes = [0; 4];
/// buffer.read(127, &mut bytes)?;
/// assert_eq!(bytes, [0, 1, 2, 3]);
/// # Ok::<(), k2k_cuda::Error>(())
/// ```
#[derive(Clone)]
pub struct Device {
    inner: Arc<Inner>,
}

struct Inner {
    /// A forked process neither asks nor drops it.
    driver: Own<Box<dyn Driver>>,
    probe: Probe,
    placement: Placement,
    state: Mutex<State>,
    /// See [`Device::on_compile`].
    listener: Mutex<Option<Listener>>,
    /// See [`Device::publish`].
    published: Mutex<Option<String>>,
}

type Listener = Arc<dyn Fn(Compile<'_>) + Send + Sync>;

/// The driver's compiler begins or ends: it takes seconds for a large text, once per machine if it may keep what it makes
/// (in `CUDA_CACHE_PATH`, by default `~/.nv/ComputeCache`), and nothing else is done meanwhile.
#[derive(Clone, Copy, Debug)]
pub enum Compile<'t> {
    /// It has been given a text.
    Begins {
        /// Names of its entry points.
        entries: &'t [String],
        /// Its length.
        bytes: usize,
    },
    /// It is done.
    Ended {
        /// How long that took.
        took: Duration,
    },
}

#[derive(Default)]
struct State {
    /// While a session's kernels run: this device, which therefore outlives them, for ever if they hang.
    running: Option<Device>,
    /// Its grids.
    watched: Vec<Watched>,
    /// Blocks of different entry points have been seen to share multiprocessors.
    mixes: bool,
    /// What was dropped meanwhile.
    later: Vec<DeferredFree>,
    /// What has been loaded. Kept for as long as the device: to compile a text takes a driver seconds.
    modules: Vec<(Ptx, Handle)>,
}

/// A grid that runs, for [`Device::at_work`].
pub(crate) struct Watched {
    pub(crate) entry: String,
    /// Of each block.
    pub(crate) names: Vec<String>,
    /// Device address of the blocks' reports, valid while the session runs.
    pub(crate) reports: u64,
}

/// Calls users' code where a panic must not keep the device from doing the rest. The panic has been reported by the hook.
fn contain(users: impl FnOnce()) {
    if let Err(panic) = std::panic::catch_unwind(AssertUnwindSafe(users)) {
        // Its destructor may panic as well.
        core::mem::forget(panic);
    }
}

/// Something that must outlive the kernels that may use it.
pub(crate) enum DeferredFree {
    Device(u64),
    Host(NonNull<u8>, usize),
    /// Memory that the device was allowed to see, and its owner.
    Registered(NonNull<u8>, Box<dyn Any + Send + Sync>),
    /// An owner of memory that kernels may use.
    Kept(Box<dyn Any + Send>),
}

// SAFETY: the pointers are addresses to give back, which no thread is bound to.
unsafe impl Send for DeferredFree {}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("name", &self.inner.probe.name).field("busy", &self.is_busy()).finish()
    }
}

impl Device {
    /// A GPU, counted from 0 in the driver's order (`CUDA_VISIBLE_DEVICES` changes it).
    ///
    /// # Errors
    /// [`Error`] says which of driver, device and its abilities is missing.
    pub fn cuda(ordinal: u32) -> Result<Self, Error> {
        static OPEN: Mutex<Vec<(u32, Weak<Inner>)>> = Mutex::new(Vec::new());
        // One for all who ask: only so is it known whether kernels run on it.
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(_, inner)| inner.strong_count() > 0);
        if let Some(inner) = open.iter().find(|(open, _)| *open == ordinal).and_then(|(_, inner)| inner.upgrade()) {
            if !inner.driver.is_here() {
                return Err(Error::Forked);
            }
            return Ok(Self { inner });
        }
        let device = Self::new(Box::new(cuda::Cuda::new(ordinal)?))?;
        open.push((ordinal, Arc::downgrade(&device.inner)));
        Ok(device)
    }

    /// The number of GPUs, if there is a driver.
    ///
    /// # Errors
    /// [`Error::NoDriver`] and kin.
    pub fn count() -> Result<u32, Error> {
        cuda::count()
    }

    /// The first GPU that kernels can run on.
    ///
    /// # Errors
    /// If there is none, why the first one there is would not do, or what is missing. [`Device::emulated`] works
    /// anywhere.
    pub fn first() -> Result<Self, Error> {
        let mut first_error = None;
        for ordinal in 0..Self::count()? {
            match Self::cuda(ordinal) {
                Ok(device) => return Ok(device),
                Err(e) => first_error = first_error.or(Some(e)),
            }
        }
        Err(first_error.unwrap_or(Error::NoDevice))
    }

    /// A device that interprets PTX on a thread of this process. Thousands of times slower than a GPU, and the same
    /// code.
    ///
    /// # Errors
    /// [`Error::Emulated`] if the system gives no thread.
    #[cfg(feature = "emulated")]
    pub fn emulated(options: EmulatedOptions) -> Result<Self, Error> {
        Self::new(Box::new(Emulated::new(options)?))
    }

    fn new(driver: Box<dyn Driver>) -> Result<Self, Error> {
        let probe = driver.probe()?;
        let placement = Placement::choose(&probe)?;
        let (driver, state) = (Own::new(driver), Mutex::default());
        let (listener, published) = (Mutex::default(), Mutex::default());
        Ok(Self { inner: Arc::new(Inner { driver, probe, placement, state, listener, published }) })
    }

    /// What the device says of itself.
    #[must_use]
    pub fn probe(&self) -> &Probe {
        &self.inner.probe
    }

    /// Where a session puts things on this device.
    #[must_use]
    pub fn placement(&self) -> Placement {
        self.inner.placement
    }

    /// Whether a session's kernels run here, or hang.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.state().running.is_some()
    }

    /// Whether a fault has ended everything that ran here. Every call fails from then on: a GPU can be used again by
    /// another process, an emulated device is to be made anew.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.driver().is_lost()
    }

    /// Calls this whenever a text begins to be compiled for this device, and when that is done. It takes the place of the
    /// one before. The device is locked meanwhile, so the listener must not use it. A panic of the listener is contained.
    pub fn on_compile(&self, listener: impl Fn(Compile<'_>) + Send + Sync + 'static) {
        *self.inner.listener.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(listener));
    }

    /// Has each session that starts here from now on [published](crate::Running::publish) in a file of this name, or with
    /// `None` no more.
    pub fn publish(&self, name: Option<&str>) {
        *self.inner.published.lock().unwrap_or_else(PoisonError::into_inner) = name.map(str::to_owned);
    }

    pub(crate) fn published(&self) -> Option<String> {
        self.inner.published.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn tell(&self, compile: Compile<'_>) {
        let listener = self.inner.listener.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(listener) = listener {
            contain(|| listener(compile));
        }
    }

    /// The blocks of a session that runs here and have not ended: for whoever has to say what a device is at, and does
    /// not have the session. Empty also while something is being loaded or allocated.
    #[must_use]
    pub fn at_work(&self) -> Vec<BlockReport> {
        let Ok(state) = self.inner.state.try_lock() else { return Vec::new() };
        let mut found = Vec::new();
        for Watched { entry, names, reports: address } in &state.watched {
            let mut reports = vec![Report::zeroed(); names.len()];
            // SAFETY: so many reports lie there. They are not freed while the session runs, which ends when `state` is
            // no longer locked.
            if unsafe { self.driver().read(*address, bytemuck::cast_slice_mut(&mut reports)) }.is_err() {
                continue;
            }
            let blocks = (0..).zip(names).zip(reports);
            found.extend(blocks.map(|((block, name), report)| BlockReport {
                name: name.clone(),
                entry: entry.clone(),
                block,
                report,
            }));
        }
        found.retain(|block| matches!(block.outcome(), Some(Outcome::NotStarted | Outcome::Running)));
        found
    }

    /// Whether blocks of different entry points have been seen to share multiprocessors.
    pub(crate) fn mixes(&self) -> bool {
        self.state().mixes
    }

    pub(crate) fn set_mixes(&self, mixes: bool) {
        self.state().mixes = mixes;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn driver(&self) -> &dyn Driver {
        if self.is_here() { &**self.inner.driver } else { &Gone }
    }

    /// Whether this process opened the device. A forked one has a copy, and can do nothing with it.
    pub(crate) fn is_here(&self) -> bool {
        self.inner.driver.is_here()
    }

    /// Does what would wait for running kernels.
    pub(crate) fn while_idle<R>(
        &self,
        action: &'static str,
        f: impl FnOnce(&dyn Driver) -> Result<R, Error>,
    ) -> Result<R, Error> {
        if !self.is_here() {
            return Err(Error::Forked);
        }
        let state = self.state();
        if state.running.is_some() { Err(Error::Busy { action }) } else { f(self.driver()) }
    }

    pub(crate) fn load(&self, ptx: &Ptx) -> Result<Module, Error> {
        let Probe { capability, driver: version, .. } = self.inner.probe;
        if ptx.target() > capability {
            return Err(Error::WrongTarget { device: capability, target: ptx.target() });
        }
        if ptx.needs_cuda() > version {
            return Err(Error::OldDriver { driver: version, needed: ptx.needs_cuda(), ptx: ptx.version() });
        }
        if !self.is_here() {
            return Err(Error::Forked);
        }
        let mut state = self.state();
        if let Some((_, handle)) = state.modules.iter().find(|(known, _)| known == ptx) {
            return Ok(Module { handle: *handle, entries: ptx.entries().to_vec() });
        }
        if state.running.is_some() {
            return Err(Error::Busy { action: "load a module" });
        }
        let began = Instant::now();
        self.tell(Compile::Begins { entries: ptx.entries(), bytes: ptx.text().len() });
        let handle = self.driver().load(ptx);
        self.tell(Compile::Ended { took: began.elapsed() });
        let handle = handle?;
        state.modules.push((ptx.clone(), handle));
        Ok(Module { handle, entries: ptx.entries().to_vec() })
    }

    /// From now on, nothing is freed.
    pub(crate) fn begin(&self) -> Result<(), Error> {
        if !self.is_here() {
            return Err(Error::Forked);
        }
        let mut state = self.state();
        if state.running.is_some() {
            return Err(Error::Busy { action: "start a session" });
        }
        state.running = Some(self.clone());
        Ok(())
    }

    /// What the session that runs consists of. The reports' addresses are valid until it has ended.
    pub(crate) fn watch(&self, grids: Vec<Watched>) {
        self.state().watched = grids;
    }

    /// No kernel runs any more: frees what has been dropped.
    pub(crate) fn end(&self) {
        let later = {
            let mut state = self.state();
            // Not the last one: `self` is another.
            state.running = None;
            state.watched.clear();
            core::mem::take(&mut state.later)
        };
        for freed in later {
            self.release(freed);
        }
    }

    /// Keeps something until no kernel runs.
    pub(crate) fn keep(&self, owner: Box<dyn Any + Send>) {
        self.release(DeferredFree::Kept(owner));
    }

    /// Frees something, or keeps it until no kernel runs.
    pub(crate) fn release(&self, freed: DeferredFree) {
        if !self.is_here() {
            // The parent's; and the lock may be held by a thread that is not there.
            core::mem::forget(freed);
            return;
        }
        let mut state = self.state();
        if state.running.is_some() {
            state.later.push(freed);
            return;
        }
        match freed {
            // SAFETY: each comes from the drop of the one that owned it, and no kernel runs; none starts while `state`
            // is locked.
            DeferredFree::Device(address) => unsafe { self.driver().free(address) },
            // SAFETY: as above.
            DeferredFree::Host(base, len) => unsafe { self.driver().free_host(base, len) },
            DeferredFree::Registered(base, owner) => {
                // SAFETY: as above.
                unsafe { self.driver().unregister(base) };
                drop(state);
                contain(|| drop(owner));
            }
            DeferredFree::Kept(owner) => {
                // It may release more itself.
                drop(state);
                contain(|| drop(owner));
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !self.driver.is_here() {
            return;
        }
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (_, handle) in state.modules.drain(..) {
            // SAFETY: loaded by this driver, in the list once; nothing runs, or `running` would hold this device.
            unsafe { self.driver.unload(handle) };
        }
    }
}

/// A module on a device, loaded for as long as the device is there.
#[derive(Debug)]
pub(crate) struct Module {
    pub(crate) handle: Handle,
    pub(crate) entries: Vec<String>,
}
