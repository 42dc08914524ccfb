//! A GPU through the CUDA driver. Every call to it stands in this file.
//!
//! 1. The library is looked for first, then each function in [`FUNCTIONS`]: `cudarc` panics about what is missing,
//!    later.
//! 2. Copies go through pinned staging on a stream of their own, so that they pass running kernels, and are polled for,
//!    so that a device that is stuck is noticed.
//! 3. What the driver might do only when nothing runs is done before a session starts: compiling, loading each entry
//!    point (with lazy loading, the first use would), making room for their local memory, allocating, making streams.

use super::{Driver, Handle, Shape};
use crate::error::{Error, Version};
use crate::probe::{Placement, Probe};
use crate::ptx::Ptx;
use core::ffi::{CStr, c_char, c_int, c_void};
use core::fmt;
use core::ptr::NonNull;
use core::time::Duration;
use cudarc::driver::sys;
use std::ffi::CString;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use sys::{CUdevice_attribute as Attribute, CUfunction_attribute as FunctionAttribute, CUresult};

/// The file that the driver's library is in.
const LIBRARY: &str = if cfg!(windows) { "nvcuda.dll" } else { "libcuda.so.1" };

/// All functions of the library that are called, but for those that are optional: [`FUNC_LOAD`] and [`GRAPHS`].
const FUNCTIONS: [&str; 37] = [
    "cuCtxGetLimit",
    "cuCtxSetCurrent",
    "cuCtxSetLimit",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDeviceGetPCIBusId",
    "cuDevicePrimaryCtxRelease_v2",
    "cuDevicePrimaryCtxRetain",
    "cuDeviceTotalMem_v2",
    "cuDriverGetVersion",
    "cuFuncGetAttribute",
    "cuFuncSetAttribute",
    "cuGetErrorName",
    "cuGetErrorString",
    "cuInit",
    "cuLaunchCooperativeKernel",
    "cuLaunchKernel",
    "cuMemAlloc_v2",
    "cuMemFreeHost",
    "cuMemFree_v2",
    "cuMemGetInfo_v2",
    "cuMemHostAlloc",
    "cuMemHostGetDevicePointer_v2",
    "cuMemHostRegister_v2",
    "cuMemHostUnregister",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemsetD8Async",
    "cuModuleGetFunction",
    "cuModuleLoadDataEx",
    "cuModuleUnload",
    "cuOccupancyMaxActiveBlocksPerMultiprocessor",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamQuery",
];

/// Loads an entry point at once. Since CUDA 12.4; before, asking for an attribute does.
const FUNC_LOAD: &str = "cuFuncLoad";

/// What graphs need. Since CUDA 11.4; without, no launch is recorded.
const GRAPHS: [&str; 6] = [
    "cuGraphDestroy",
    "cuGraphExecDestroy",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
    "cuStreamBeginCapture_v2",
    "cuStreamEndCapture",
];

/// How long a copy may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Bytes of a copy that go at a time.
const STAGING: usize = 256 << 10;

/// Local memory of a thread, bytes, for which there is room from the start: what the entry points of this library need with all that they
/// call (results/sass.md), and two thirds more, in case a driver leaves out what is called when it is asked.
const LOCAL: usize = 3072;

/// Local memory that the driver may want beside what an entry point says that it needs.
const LOCAL_MARGIN: usize = 1024;

/// How much of its fast memory a multiprocessor is to set aside for shared memory, %, the same for all entry points: while
/// it runs blocks of one share, it takes none of another. None of ours uses any, but each block takes 1 KiB on recent
/// devices; this is enough for as many blocks as a multiprocessor can hold, and leaves the rest to the cache.
const CARVEOUT: c_int = 25;

/// Calls a function, and names it in the error.
macro_rules! call {
    ($name:ident($($argument:expr),* $(,)?)) => {
        check(stringify!($name), sys::$name($($argument),*))
    };
}

fn check(call: &'static str, result: CUresult) -> Result<(), Error> {
    if result == CUresult::CUDA_SUCCESS { Ok(()) } else { Err(refused(call, result)) }
}

fn refused(call: &'static str, result: CUresult) -> Error {
    type Describe = unsafe fn(CUresult, *mut *const c_char) -> CUresult;
    let describe = |describe: Describe| {
        let mut text = core::ptr::null();
        // SAFETY: `init` has found these functions; they store a pointer to a constant string, or nothing.
        let result = unsafe { describe(result, &raw mut text) };
        if result != CUresult::CUDA_SUCCESS || text.is_null() {
            return "an error of which the driver has no name".to_owned();
        }
        // SAFETY: as above.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    };
    Error::Cuda { call, name: describe(sys::cuGetErrorName), text: describe(sys::cuGetErrorString) }
}

fn has_function(name: &str) -> bool {
    // SAFETY: asked after `is_culib_present` said yes. The symbol is only looked for, not called.
    unsafe { sys::culib().get::<unsafe extern "C" fn()>(name.as_bytes()) }.is_ok()
}

/// Looks for the driver, and starts it.
fn init() -> Result<(), Error> {
    // SAFETY: loading the driver's library asks for nothing.
    if !unsafe { sys::is_culib_present() } {
        return Err(Error::NoDriver { file: LIBRARY });
    }
    if let Some(name) = FUNCTIONS.into_iter().find(|name| !has_function(name)) {
        return Err(Error::NoFunction { name });
    }
    // SAFETY: the function is there, and may be called at any time.
    match unsafe { sys::cuInit(0) } {
        CUresult::CUDA_ERROR_NO_DEVICE => Err(Error::NoDevice),
        // `cudarc` looks for libcuda.so before libcuda.so.1, and the toolkit has a stub of that name.
        CUresult::CUDA_ERROR_STUB_LIBRARY => Err(Error::StubDriver),
        result => check("cuInit", result),
    }
}

/// The number of devices.
pub(crate) fn count() -> Result<u32, Error> {
    init()?;
    let mut count = 0;
    // SAFETY: after `init`, as for every call in this file.
    unsafe { call!(cuDeviceGetCount(&raw mut count)) }?;
    u32::try_from(count).ok().filter(|count| *count > 0).ok_or(Error::NoDevice)
}

pub(crate) struct Cuda {
    device: sys::CUdevice,
    context: sys::CUcontext,
    probe: Probe,
    /// Streams for kernels, made in advance.
    streams: Mutex<Vec<sys::CUstream>>,
    side: Mutex<Side>,
}

/// The way of copies.
struct Side {
    stream: sys::CUstream,
    /// `STAGING` bytes of pinned memory.
    staging: NonNull<u8>,
}

// SAFETY: the driver's handles and pinned memory belong to the process; each call sets its thread's context first.
unsafe impl Send for Cuda {}
// SAFETY: as above; what is changed is behind locks.
unsafe impl Sync for Cuda {}

impl fmt::Debug for Cuda {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cuda").field("device", &self.device).field("name", &self.probe.name).finish_non_exhaustive()
    }
}

/// Queues between host and device: streams beyond their number share one, and wait for one another.
fn connections() -> u32 {
    let asked = std::env::var("CUDA_DEVICE_MAX_CONNECTIONS").ok().and_then(|asked| asked.parse().ok());
    // 8 unless asked, 32 at most (CUDA programming guide, environment variables).
    asked.unwrap_or(8).clamp(1, 32)
}

/// Refuses an environment in which the first kernel that does not return is the last thing that happens.
fn check_environment() -> Result<(), Error> {
    if std::env::var_os("CUDA_LAUNCH_BLOCKING").is_some_and(|set| set != "0") {
        return Err(Error::Environment {
            variable: "CUDA_LAUNCH_BLOCKING",
            why: "each launch then returns when its kernels have ended, and these do not end by themselves; unset it, \
                  or set it to 0",
        });
    }
    if connections() < 2 {
        return Err(Error::Environment {
            variable: "CUDA_DEVICE_MAX_CONNECTIONS",
            why: "with a single queue to the device, nothing can be copied while kernels run; unset it, or set it to 2 \
                  to 32",
        });
    }
    Ok(())
}

impl Cuda {
    pub(crate) fn new(ordinal: u32) -> Result<Self, Error> {
        let devices = count()?;
        if ordinal >= devices {
            return Err(Error::WrongOrdinal { asked: ordinal, devices });
        }
        check_environment()?;
        let mut device = 0;
        // SAFETY: there is a device of this number.
        unsafe { call!(cuDeviceGet(&raw mut device, ordinal as c_int)) }?;
        let probe = look_at(device)?;
        // Before a context is made: a driver may refuse one for a device that would not do anyway.
        Placement::choose(&probe)?;
        let mut context = core::ptr::null_mut();
        // SAFETY: the device exists. Released when `self` is dropped.
        unsafe { call!(cuDevicePrimaryCtxRetain(&raw mut context, device)) }?;
        let nothing = Side { stream: core::ptr::null_mut(), staging: NonNull::dangling() };
        let mut cuda = Self { device, context, probe, streams: Mutex::default(), side: Mutex::new(nothing) };
        cuda.enter()?;
        make_room(LOCAL)?;
        let side = cuda.side.get_mut().unwrap_or_else(PoisonError::into_inner);
        side.stream = new_stream()?;
        side.staging = pinned(STAGING)?;
        // With the one of copies, as many as there are queues. One more would share a queue with another, and if that
        // is the one of copies, a copy waits behind a kernel that never returns.
        for _ in 1..connections() {
            let stream = new_stream()?;
            cuda.streams().push(stream);
        }
        Ok(cuda)
    }

    fn streams(&self) -> MutexGuard<'_, Vec<sys::CUstream>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn side(&self) -> MutexGuard<'_, Side> {
        self.side.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets this thread's next calls be about this device. Another context that the thread had is no longer current.
    fn enter(&self) -> Result<(), Error> {
        // SAFETY: the context is retained.
        unsafe { call!(cuCtxSetCurrent(self.context)) }
    }

    /// Puts something on a stream that is nobody else's until it is [given back](Driver::finish).
    fn on_a_stream(&self, put: impl FnOnce(sys::CUstream) -> Result<(), Error>) -> Result<Handle, Error> {
        self.enter()?;
        let pooled = self.streams().pop();
        let stream = pooled.map_or_else(new_stream, Ok)?;
        match put(stream) {
            Ok(()) => Ok(stream as Handle),
            Err(e) => {
                self.streams().push(stream);
                Err(e)
            }
        }
    }

    fn out_of_memory(&self, asked: usize, result: CUresult) -> Error {
        if result != CUresult::CUDA_ERROR_OUT_OF_MEMORY {
            return refused("cuMemAlloc", result);
        }
        let (mut free, mut total) = (0, 0);
        // SAFETY: the context is current.
        let known = unsafe { call!(cuMemGetInfo_v2(&raw mut free, &raw mut total)) };
        Error::OutOfMemory { asked: asked as u64, free: known.ok().map(|()| free as u64) }
    }
}

impl Side {
    /// Waits until everything on the stream is done.
    fn wait(&self, action: &'static str) -> Result<(), Error> {
        let started = Instant::now();
        loop {
            // SAFETY: the stream exists.
            match unsafe { sys::cuStreamQuery(self.stream) } {
                CUresult::CUDA_SUCCESS => return Ok(()),
                CUresult::CUDA_ERROR_NOT_READY => {}
                result => return Err(refused("cuStreamQuery", result)),
            }
            let waited = started.elapsed();
            if waited > LIMIT {
                return Err(Error::NoAnswer { action, waited });
            }
            if waited > Duration::from_millis(1) { std::thread::yield_now() } else { core::hint::spin_loop() }
        }
    }
}

/// Launches a grid on a stream.
///
/// # Safety
/// As [`Driver::launch`]; the context is current.
unsafe fn start(entry: Handle, shape: Shape, stream: sys::CUstream) -> Result<(), Error> {
    let function = entry as sys::CUfunction;
    let Shape { blocks, threads, cooperative, mut launch } = shape;
    let mut arguments = [(&raw mut launch).cast::<c_void>()];
    let arguments = arguments.as_mut_ptr();
    // SAFETY: one argument of 8 bytes, which the driver copies before it returns. The caller vouches for the rest.
    unsafe {
        if cooperative {
            call!(cuLaunchCooperativeKernel(function, blocks, 1, 1, threads, 1, 1, 0, stream, arguments))
        } else {
            let extra = core::ptr::null_mut();
            call!(cuLaunchKernel(function, blocks, 1, 1, threads, 1, 1, 0, stream, arguments, extra))
        }
    }
}

fn new_stream() -> Result<sys::CUstream, Error> {
    let mut stream = core::ptr::null_mut();
    // SAFETY: a context is current.
    // Not blocking: what others do on the default stream neither waits for it nor makes it wait.
    unsafe {
        call!(cuStreamCreate(&raw mut stream, sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32))?;
    }
    Ok(stream)
}

/// Makes room for that much local memory per thread. A launch that needs more than there is would do so itself, and
/// wait for running kernels before it does.
fn make_room(local_bytes: usize) -> Result<(), Error> {
    let limit = sys::CUlimit::CU_LIMIT_STACK_SIZE;
    let mut room = 0;
    // SAFETY: a context is current.
    unsafe {
        call!(cuCtxGetLimit(&raw mut room, limit))?;
        if local_bytes > room {
            call!(cuCtxSetLimit(limit, local_bytes.next_multiple_of(1024)))?;
        }
    }
    Ok(())
}

/// Zeroed host memory, pinned, mapped, and cached by the CPU.
fn pinned(bytes: usize) -> Result<NonNull<u8>, Error> {
    let mut base = core::ptr::null_mut();
    let flags = sys::CU_MEMHOSTALLOC_PORTABLE | sys::CU_MEMHOSTALLOC_DEVICEMAP;
    // SAFETY: a context is current.
    match unsafe { sys::cuMemHostAlloc(&raw mut base, bytes.max(1), flags) } {
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => return Err(Error::OutOfHostMemory { asked: bytes as u64 }),
        result => check("cuMemHostAlloc", result)?,
    }
    let base = NonNull::new(base.cast::<u8>()).ok_or(Error::OutOfHostMemory { asked: bytes as u64 })?;
    // SAFETY: the driver gave that many bytes, which nobody else knows.
    unsafe { base.write_bytes(0, bytes) };
    Ok(base)
}

/// The device's address of host memory that it maps.
fn device_address(base: NonNull<u8>) -> Result<u64, Error> {
    let mut address = 0;
    // SAFETY: a context is current; the memory was allocated or registered as mapped.
    unsafe { call!(cuMemHostGetDevicePointer_v2(&raw mut address, base.as_ptr().cast(), 0)) }?;
    Ok(address)
}

/// Asks a device about itself. Needs no context.
fn look_at(device: sys::CUdevice) -> Result<Probe, Error> {
    let attribute = |attribute: Attribute| {
        let mut value = 0;
        // SAFETY: the device exists.
        unsafe { call!(cuDeviceGetAttribute(&raw mut value, attribute, device)) }?;
        Ok::<_, Error>(u32::try_from(value).unwrap_or(0))
    };
    let text = |get: unsafe fn(*mut c_char, c_int, sys::CUdevice) -> CUresult, call| {
        let mut text = [0u8; 128];
        // SAFETY: the driver writes at most as many bytes as it is told there are, with a NUL behind.
        check(call, unsafe { get(text.as_mut_ptr().cast(), text.len() as c_int, device) })?;
        Ok::<_, Error>(CStr::from_bytes_until_nul(&text).unwrap_or(c"?").to_string_lossy().into_owned())
    };
    let mut version = 0;
    let mut memory = 0;
    // SAFETY: as above.
    unsafe {
        call!(cuDriverGetVersion(&raw mut version))?;
        call!(cuDeviceTotalMem_v2(&raw mut memory, device))?;
    }
    let version = u32::try_from(version).unwrap_or(0);
    // A device without a place on a bus has none.
    let pci = text(sys::cuDeviceGetPCIBusId, "cuDeviceGetPCIBusId").ok().map(|id| id.to_lowercase());
    Ok(Probe {
        name: text(sys::cuDeviceGetName, "cuDeviceGetName")?,
        is_gpu: true,
        capability: Version(
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        // 1000 * major + 10 * minor
        driver: Version(version / 1000, version % 1000 / 10),
        multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        warp_size: attribute(Attribute::CU_DEVICE_ATTRIBUTE_WARP_SIZE)?,
        memory: memory as u64,
        host_atomics: attribute(Attribute::CU_DEVICE_ATTRIBUTE_HOST_NATIVE_ATOMIC_SUPPORTED)? != 0,
        mapped_memory: attribute(Attribute::CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY)? != 0,
        unified_addresses: attribute(Attribute::CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING)? != 0,
        cooperative_launch: attribute(Attribute::CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH)? != 0,
        time_limit: attribute(Attribute::CU_DEVICE_ATTRIBUTE_KERNEL_EXEC_TIMEOUT)? != 0,
        numa_node: pci.as_deref().and_then(numa_node),
        pci,
        watched_by: std::env::var("CUDA_INJECTION64_PATH").ok().filter(|path| !path.is_empty()),
    })
}

/// What the system says of a PCI device; -1, no number, means that it does not know.
fn numa_node(pci: &str) -> Option<u32> {
    let node = std::fs::read_to_string(format!("/sys/bus/pci/devices/{pci}/numa_node")).ok()?;
    node.trim().parse().ok()
}

impl Driver for Cuda {
    fn probe(&self) -> Result<Probe, Error> {
        Ok(self.probe.clone())
    }

    fn queues(&self) -> u32 {
        // One is for copies.
        connections() - 1
    }

    fn allocate(&self, bytes: usize) -> Result<u64, Error> {
        self.enter()?;
        let mut address = 0;
        // SAFETY: the context is current, as below.
        let result = unsafe { sys::cuMemAlloc_v2(&raw mut address, bytes.max(1)) };
        if result != CUresult::CUDA_SUCCESS {
            return Err(self.out_of_memory(bytes, result));
        }
        let side = self.side();
        // SAFETY: the bytes have just been allocated.
        let zeroed = unsafe { call!(cuMemsetD8Async(address, 0, bytes.max(1), side.stream)) };
        if let Err(e) = zeroed.and_then(|()| side.wait("zero memory")) {
            drop(side);
            // SAFETY: allocated above, and given to nobody.
            unsafe { self.free(address) };
            return Err(e);
        }
        Ok(address)
    }

    unsafe fn free(&self, address: u64) {
        // Whatever the driver says, there is nothing left to do about it.
        let _ = self.enter();
        // SAFETY: as the caller says.
        let _ = unsafe { sys::cuMemFree_v2(address) };
    }

    unsafe fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Error> {
        self.enter()?;
        let side = self.side();
        for (chunk, bytes) in bytes.chunks(STAGING).enumerate() {
            // A copy that was given up may still use the staging.
            side.wait("finish an earlier copy")?;
            let to = address + (chunk * STAGING) as u64;
            // SAFETY: nobody uses the staging now, and it is long enough. The caller vouches for the device's bytes.
            unsafe {
                side.staging.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
                call!(cuMemcpyHtoDAsync_v2(to, side.staging.as_ptr().cast::<c_void>(), bytes.len(), side.stream))?;
            }
            side.wait("copy to its memory")?;
        }
        Ok(())
    }

    unsafe fn read(&self, address: u64, to: &mut [u8]) -> Result<(), Error> {
        self.enter()?;
        let side = self.side();
        for (chunk, to) in to.chunks_mut(STAGING).enumerate() {
            side.wait("finish an earlier copy")?;
            let from = address + (chunk * STAGING) as u64;
            // SAFETY: as in `write`.
            unsafe {
                call!(cuMemcpyDtoHAsync_v2(side.staging.as_ptr().cast::<c_void>(), from, to.len(), side.stream))?;
            }
            side.wait("copy from its memory")?;
            // SAFETY: the copy is done, and nobody else uses the staging.
            unsafe { side.staging.as_ptr().copy_to_nonoverlapping(to.as_mut_ptr(), to.len()) };
        }
        Ok(())
    }

    fn allocate_host(&self, bytes: usize) -> Result<(NonNull<u8>, u64), Error> {
        self.enter()?;
        let base = pinned(bytes)?;
        match device_address(base) {
            Ok(address) => Ok((base, address)),
            Err(e) => {
                // SAFETY: allocated above, and given to nobody.
                unsafe { self.free_host(base, bytes) };
                Err(e)
            }
        }
    }

    unsafe fn free_host(&self, base: NonNull<u8>, _: usize) {
        let _ = self.enter();
        // SAFETY: as the caller says.
        let _ = unsafe { sys::cuMemFreeHost(base.as_ptr().cast()) };
    }

    unsafe fn register(&self, base: NonNull<u8>, bytes: usize) -> Result<u64, Error> {
        self.enter()?;
        let flags = sys::CU_MEMHOSTREGISTER_PORTABLE | sys::CU_MEMHOSTREGISTER_DEVICEMAP;
        // SAFETY: as the caller says.
        unsafe { call!(cuMemHostRegister_v2(base.as_ptr().cast(), bytes, flags)) }?;
        device_address(base).inspect_err(|_| {
            // SAFETY: registered above.
            unsafe { self.unregister(base) };
        })
    }

    unsafe fn unregister(&self, base: NonNull<u8>) {
        let _ = self.enter();
        // SAFETY: as the caller says.
        let _ = unsafe { sys::cuMemHostUnregister(base.as_ptr().cast()) };
    }

    fn load(&self, ptx: &Ptx) -> Result<Handle, Error> {
        use sys::CUjit_option::{CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
        self.enter()?;
        let rejected = |log| Error::PtxRejected { entries: ptx.entries().to_vec(), log };
        let text = CString::new(ptx.text()).map_err(|e| rejected(format!("a NUL at byte {}", e.nul_position())))?;
        let mut log = vec![0u8; 16 << 10];
        let mut options = [CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
        // The second value is a number in a pointer's place.
        let mut values = [log.as_mut_ptr().cast::<c_void>(), core::ptr::without_provenance_mut(log.len() - 1)];
        let mut module = core::ptr::null_mut();
        // SAFETY: a text that ends with NUL; a buffer and its length.
        let result = unsafe {
            sys::cuModuleLoadDataEx(
                &raw mut module,
                text.as_ptr().cast(),
                options.len() as u32,
                options.as_mut_ptr(),
                values.as_mut_ptr(),
            )
        };
        let log = CStr::from_bytes_until_nul(&log).unwrap_or_default().to_string_lossy().trim().to_owned();
        match result {
            CUresult::CUDA_SUCCESS => Ok(module as Handle),
            CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => {
                Err(Error::OldDriver { driver: self.probe.driver, needed: ptx.needs_cuda(), ptx: ptx.version() })
            }
            CUresult::CUDA_ERROR_INVALID_PTX if log.is_empty() => {
                Err(rejected("the compiler gave no reason".to_owned()))
            }
            result if log.is_empty() => Err(refused("cuModuleLoadDataEx", result)),
            _ => Err(rejected(log)),
        }
    }

    unsafe fn unload(&self, module: Handle) {
        let _ = self.enter();
        // SAFETY: as the caller says.
        let _ = unsafe { sys::cuModuleUnload(module as sys::CUmodule) };
    }

    fn entry(&self, module: Handle, name: &str) -> Result<Handle, Error> {
        self.enter()?;
        let missing = || Error::NoEntry { asked: name.to_owned(), entries: Vec::new() };
        let c_name = CString::new(name).map_err(|_| missing())?;
        let mut function = core::ptr::null_mut();
        // SAFETY: the module is loaded; the name ends with NUL.
        match unsafe { sys::cuModuleGetFunction(&raw mut function, module as sys::CUmodule, c_name.as_ptr()) } {
            CUresult::CUDA_ERROR_NOT_FOUND => return Err(missing()),
            result => check("cuModuleGetFunction", result)?,
        }
        if has_function(FUNC_LOAD) {
            // SAFETY: the function is there, and was found in the module.
            unsafe { call!(cuFuncLoad(function)) }?;
        }
        let carveout = FunctionAttribute::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT;
        // SAFETY: as above.
        unsafe { call!(cuFuncSetAttribute(function, carveout, CARVEOUT)) }?;
        let local_bytes = {
            let attribute = FunctionAttribute::CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES;
            let mut value = 0;
            // SAFETY: as above.
            unsafe { call!(cuFuncGetAttribute(&raw mut value, attribute, function)) }?;
            usize::try_from(value).unwrap_or(0)
        };
        make_room(local_bytes + LOCAL_MARGIN)?;
        Ok(function as Handle)
    }

    fn blocks_per_multiprocessor(&self, entry: Handle, threads: u32) -> Result<u32, Error> {
        self.enter()?;
        let function = entry as sys::CUfunction;
        let mut blocks = 0;
        // SAFETY: the function is loaded.
        unsafe {
            call!(cuOccupancyMaxActiveBlocksPerMultiprocessor(&raw mut blocks, function, threads as c_int, 0))?;
        }
        Ok(u32::try_from(blocks).unwrap_or(0))
    }

    unsafe fn launch(&self, entry: Handle, shape: Shape) -> Result<Handle, Error> {
        // SAFETY: as the caller says.
        self.on_a_stream(|stream| unsafe { start(entry, shape, stream) })
    }

    unsafe fn record(&self, entry: Handle, shape: Shape) -> Result<Option<Handle>, Error> {
        if !GRAPHS.into_iter().all(has_function) {
            return Ok(None);
        }
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        let (mut graph, mut executable) = (core::ptr::null_mut(), core::ptr::null_mut());
        let stream = self.on_a_stream(|stream| {
            // SAFETY: the stream exists and nothing else is put on it meanwhile. As the caller says.
            unsafe {
                call!(cuStreamBeginCapture_v2(stream, mode))?;
                let started = start(entry, shape, stream);
                // Whatever was captured: otherwise the stream would go on capturing.
                let ended = call!(cuStreamEndCapture(stream, &raw mut graph));
                started.and(ended)
            }
        })?;
        self.finish(stream);
        // SAFETY: the graph was made above, and is not needed once it has been instantiated.
        unsafe {
            let made = call!(cuGraphInstantiateWithFlags(&raw mut executable, graph, 0));
            let _ = sys::cuGraphDestroy(graph);
            made?;
        }
        Ok(Some(executable as Handle))
    }

    unsafe fn replay(&self, record: Handle) -> Result<Handle, Error> {
        // SAFETY: as the caller says; `record` has found the function.
        self.on_a_stream(|stream| unsafe { call!(cuGraphLaunch(record as sys::CUgraphExec, stream)) })
    }

    unsafe fn forget(&self, record: Handle) {
        let _ = self.enter();
        // SAFETY: as the caller says; `record` has found the function.
        let _ = unsafe { sys::cuGraphExecDestroy(record as sys::CUgraphExec) };
    }

    fn is_done(&self, launch: Handle) -> Result<bool, Error> {
        self.enter()?;
        // SAFETY: the stream exists: it is in the pool before and after.
        match unsafe { sys::cuStreamQuery(launch as sys::CUstream) } {
            CUresult::CUDA_SUCCESS => Ok(true),
            CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            result => Err(refused("cuStreamQuery", result)),
        }
    }

    fn finish(&self, launch: Handle) {
        self.streams().push(launch as sys::CUstream);
    }

    fn is_lost(&self) -> bool {
        if self.enter().is_err() {
            return true;
        }
        // The driver answers every call with the fault of a kernel, once there was one. This one changes nothing.
        // SAFETY: the stream exists.
        let answer = unsafe { sys::cuStreamQuery(self.side().stream) };
        !matches!(answer, CUresult::CUDA_SUCCESS | CUresult::CUDA_ERROR_NOT_READY)
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        let _ = self.enter();
        let streams = core::mem::take(&mut *self.streams());
        let side = self.side.get_mut().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: no kernel runs, and nobody has the streams, the staging or the context any more. Of what `new` did
        // not get to make, there is nothing.
        unsafe {
            for stream in streams {
                let _ = sys::cuStreamDestroy_v2(stream);
            }
            if !side.stream.is_null() {
                let _ = sys::cuStreamDestroy_v2(side.stream);
            }
            if side.staging != NonNull::dangling() {
                let _ = sys::cuMemFreeHost(side.staging.as_ptr().cast());
            }
            let _ = sys::cuDevicePrimaryCtxRelease_v2(self.device);
        }
    }
}
