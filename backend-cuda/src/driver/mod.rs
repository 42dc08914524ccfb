//! What a device is asked to do. Two answer: a GPU through its driver, and the interpreter.

pub(crate) mod cuda;
#[cfg(feature = "emulated")]
pub(crate) mod emulated;
pub(crate) mod gone;

use crate::error::Error;
use crate::probe::Probe;
use crate::ptx::Ptx;
use core::fmt;
use core::ptr::NonNull;

/// A module, an entry point or a launch, as the driver numbers it.
pub(crate) type Handle = u64;

/// The shape of a launch, and the address of its one argument.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) blocks: u32,
    pub(crate) threads: u32,
    /// All blocks at once or none.
    pub(crate) cooperative: bool,
    /// Device address of a [`Launch`](k2k_device::Launch).
    pub(crate) launch: u64,
}

/// A device. Everything may be called from any thread; nothing waits for a kernel to end, except what frees and
/// allocates, which [`Device`](crate::Device) calls while no kernel runs.
pub(crate) trait Driver: Send + Sync + fmt::Debug {
    fn probe(&self) -> Result<Probe, Error>;

    /// Kernels that certainly run side by side, each in a queue of its own.
    fn queues(&self) -> u32;

    /// Zeroed device memory, aligned to 256 bytes.
    fn allocate(&self, bytes: usize) -> Result<u64, Error>;

    /// # Safety
    /// `address` came from [`allocate`](Self::allocate), is freed once, and no kernel uses it.
    unsafe fn free(&self, address: u64);

    /// # Safety
    /// The bytes lie in one allocation of device memory.
    unsafe fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Error>;

    /// # Safety
    /// As [`write`](Self::write).
    unsafe fn read(&self, address: u64, to: &mut [u8]) -> Result<(), Error>;

    /// Zeroed host memory that the device sees, aligned to 256 bytes, and its address there.
    fn allocate_host(&self, bytes: usize) -> Result<(NonNull<u8>, u64), Error>;

    /// # Safety
    /// As [`free`](Self::free).
    unsafe fn free_host(&self, base: NonNull<u8>, bytes: usize);

    /// Lets the device see existing memory; returns its address there.
    ///
    /// # Safety
    /// The memory stays valid until it is unregistered, and everybody accesses it as shared memory.
    unsafe fn register(&self, base: NonNull<u8>, bytes: usize) -> Result<u64, Error>;

    /// # Safety
    /// `base` is registered, and no kernel uses it.
    unsafe fn unregister(&self, base: NonNull<u8>);

    fn load(&self, ptx: &Ptx) -> Result<Handle, Error>;

    /// # Safety
    /// The module came from [`load`](Self::load), is unloaded once, and no kernel of it runs.
    unsafe fn unload(&self, module: Handle);

    /// An entry point, ready to run. The module has it.
    fn entry(&self, module: Handle, name: &str) -> Result<Handle, Error>;

    /// Blocks of that many threads that fit on one multiprocessor.
    fn blocks_per_multiprocessor(&self, entry: Handle, threads: u32) -> Result<u32, Error>;

    /// Starts a grid on a stream of its own.
    ///
    /// # Safety
    /// The entry point's contract is kept: `shape.launch` and what it points to are valid until the launch is done.
    unsafe fn launch(&self, entry: Handle, shape: Shape) -> Result<Handle, Error>;

    /// Records a launch, to be repeated with less work for the host. `None` if the driver cannot.
    ///
    /// # Safety
    /// As [`launch`](Self::launch), for as long as the record is there.
    unsafe fn record(&self, entry: Handle, shape: Shape) -> Result<Option<Handle>, Error>;

    /// Launches what was recorded.
    ///
    /// # Safety
    /// The record came from [`record`](Self::record), and has not been forgotten.
    unsafe fn replay(&self, record: Handle) -> Result<Handle, Error>;

    /// # Safety
    /// As [`replay`](Self::replay), and no launch of it runs.
    unsafe fn forget(&self, record: Handle);

    /// Whether a launch has ended. An error means that it never will, and that nothing runs any more.
    fn is_done(&self, launch: Handle) -> Result<bool, Error>;

    /// Frees what a launch that is done used.
    fn finish(&self, launch: Handle);

    /// Whether a fault has ended everything, and every call fails from now on.
    fn is_lost(&self) -> bool;
}
