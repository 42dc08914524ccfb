//! A CUDA driver whose device is the CPU: its kernels are run by the PTX executor. With it in the place of `libcuda.so.1`,
//! all that is for a GPU runs where there is none, down to the last call of the driver. For rehearsals (tests/rehearsal.rs); its
//! times mean nothing.
//!
//! `FAKE_CUDA` in the environment says what is wrong with it: words, separated by spaces.
//!
//! | word | what |
//! | --- | --- |
//! | `hang=N` | the launch of that number, counted from 1 over all processes (see `count`), never returns |
//! | `lose=N` | its kernel never begins |
//! | `die=N` | the process dies of it |
//! | `hang:NAME`, `lose:NAME`, `die:NAME` | the same for each launch of that entry point |
//! | `count=FILE` | where launches are counted |
//! | `slow=MS` | each call takes so many milliseconds more |
//! | `compile=MS` | the same for each kilobyte of PTX |
//! | `queues=N` | so many streams run side by side; what is on the others waits (32) |
//! | `disjoint` | kernels of two entry points are never on the same multiprocessor |
//! | `name=NAME` | the device is called so |
//! | `exit` | the process never ends once it has been told to |

#![allow(non_snake_case, unreachable_pub, clippy::missing_safety_doc, reason = "the names and contracts are CUDA's")]

use core::alloc::Layout;
use core::ffi::{CStr, c_char, c_int, c_uint, c_void};
use core::time::Duration;
use k2k_core::sync::Ordering::Relaxed;
use k2k_core::sync::{AtomicU32, AtomicU64};
use k2k_ptx_executor::{Arg, Background, Clock, LaunchId, Machine, Module, Options};
use std::alloc::{alloc_zeroed, dealloc};
use std::collections::{HashMap, VecDeque};
use std::io::Write as _;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

const MULTIPROCESSORS: u32 = 16;
const PER_MULTIPROCESSOR: u32 = 4;

/// What a stream does, one after the other.
enum Work {
    Copy { to: usize, from: usize, bytes: usize },
    Set { to: usize, value: u8, bytes: usize },
    Kernel { name: String, blocks: u32, threads: u32, argument: u64 },
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(usize, Work)>,
    /// What runs, whose stream, and with how many blocks. `None` for what never begins.
    running: Option<(Option<LaunchId>, usize, u32, String)>,
}

struct Driver {
    machine: Background,
    memory: HashMap<usize, Layout>,
    modules: usize,
    functions: Vec<String>,
    streams: usize,
    queues: Vec<Queue>,
    stack: usize,
}

static DRIVER: LazyLock<Mutex<Driver>> = LazyLock::new(|| {
    // A device goes on whether or not it is asked.
    std::thread::spawn(|| {
        loop {
            std::thread::sleep(Duration::from_millis(1));
            DRIVER.lock().unwrap_or_else(PoisonError::into_inner).go_on();
        }
    });
    let options = Options { races: false, native_host: true, clock: Clock::Host, ..Options::default() };
    Mutex::new(Driver {
        machine: Background::start(Machine::new(1, options)).expect("a thread"),
        memory: HashMap::new(),
        modules: 0,
        functions: Vec::new(),
        streams: 0,
        queues: (0..number("queues").unwrap_or(32)).map(|_| Queue::default()).collect(),
        stack: 1024,
    })
});

/// What is wrong: the part behind `name` of the word that begins so.
fn wrong(name: &str) -> Option<String> {
    let words = std::env::var("FAKE_CUDA").ok()?;
    words.split(' ').find_map(|word| word.strip_prefix(name).map(str::to_owned))
}

fn number(name: &str) -> Option<u64> {
    wrong(&format!("{name}="))?.parse().ok()
}

/// Does a call after as long as it takes.
fn call<R>(does: impl FnOnce(&mut Driver) -> R) -> R {
    if let Some(ms) = number("slow") {
        std::thread::sleep(Duration::from_millis(ms));
    }
    let mut driver: MutexGuard<'_, Driver> = DRIVER.lock().unwrap_or_else(PoisonError::into_inner);
    driver.go_on();
    let result = does(&mut driver);
    driver.go_on();
    result
}

fn forever() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(1000));
    }
}

/// The number of a launch.
fn count() -> u64 {
    let Some(file) = wrong("count=") else { return 0 };
    let mut file = std::fs::File::options().create(true).append(true).open(file).expect("a file to count in");
    file.write_all(b".").expect("room for a byte");
    file.metadata().expect("its length").len()
}

/// Copies words whole, as a bus does.
///
/// # Safety
/// Both are valid for so many bytes.
unsafe fn copy(to: usize, from: usize, bytes: usize) {
    let mut at = 0;
    while at < bytes {
        let (to, from) = (to + at, from + at);
        let aligned = |width: usize| (to | from).is_multiple_of(width) && bytes - at >= width;
        // SAFETY: inside of the range, and aligned for what is accessed. Relaxed: a copy has no order.
        unsafe {
            at += if aligned(8) {
                (*(to as *const AtomicU64)).store((*(from as *const AtomicU64)).load(Relaxed), Relaxed);
                8
            } else if aligned(4) {
                (*(to as *const AtomicU32)).store((*(from as *const AtomicU32)).load(Relaxed), Relaxed);
                4
            } else {
                (to as *mut u8).write_volatile((from as *const u8).read_volatile());
                1
            };
        }
    }
}

impl Driver {
    /// Lets each queue do what it can.
    fn go_on(&mut self) {
        for number in 0..self.queues.len() {
            loop {
                if let Some((launch, ..)) = &self.queues[number].running {
                    let done = launch.is_some_and(|launch| {
                        self.machine.with(|machine| machine.is_finished(launch) && machine.join(launch))
                    });
                    if !done {
                        break;
                    }
                    self.queues[number].running = None;
                }
                let Some((stream, work)) = self.queues[number].waiting.pop_front() else { break };
                match work {
                    // SAFETY: as the caller of the driver promised, until the work is done.
                    Work::Copy { to, from, bytes } => unsafe { copy(to, from, bytes) },
                    // SAFETY: as above.
                    Work::Set { to, value, bytes } => unsafe { (to as *mut u8).write_bytes(value, bytes) },
                    Work::Kernel { name, blocks, threads, argument } => {
                        if !self.has_room(&name, blocks) {
                            let work = Work::Kernel { name, blocks, threads, argument };
                            self.queues[number].waiting.push_front((stream, work));
                            break;
                        }
                        let launch = match self.fate(&name) {
                            Fate::Runs => Some(self.machine.with(|machine| {
                                machine.launch(&name, blocks, threads, &[Arg::U64(argument)]).expect("a launch")
                            })),
                            Fate::Lost => None,
                        };
                        self.queues[number].running = Some((launch, stream, blocks, name));
                    }
                }
            }
        }
    }

    fn has_room(&self, name: &str, blocks: u32) -> bool {
        let running = self.queues.iter().filter_map(|queue| queue.running.as_ref());
        let (mut same, mut other) = (0, 0);
        for (_, _, blocks, running) in running {
            if running == name { same += blocks } else { other += blocks }
        }
        if wrong("disjoint").is_some() {
            let left = MULTIPROCESSORS.saturating_sub(other);
            return same + blocks <= left * PER_MULTIPROCESSOR;
        }
        same + other + blocks <= MULTIPROCESSORS * PER_MULTIPROCESSOR
    }

    fn fate(&self, name: &str) -> Fate {
        let launch = count();
        let meant = |what: &str| number(what) == Some(launch) || wrong(&format!("{what}:")).as_deref() == Some(name);
        if meant("die") {
            eprintln!("FAKE: killed by launch {launch}, of {name}");
            std::process::abort();
        }
        if meant("hang") {
            eprintln!("FAKE: launch {launch}, of {name}, does not return");
            forever();
        }
        if meant("lose") { Fate::Lost } else { Fate::Runs }
    }

    fn put(&mut self, stream: usize, work: Work) -> c_int {
        let queues = self.queues.len();
        if stream == 0 || stream > self.streams {
            return 201;
        }
        self.queues[(stream - 1) % queues].waiting.push_back((stream, work));
        self.go_on();
        0
    }

    fn make(&mut self, what: &str, bytes: usize) -> usize {
        let layout = Layout::from_size_align(bytes.max(1).next_multiple_of(8), 4096).expect("a size");
        // SAFETY: the size is not zero.
        let base = unsafe { alloc_zeroed(layout) };
        let registered = self.machine.with(|machine| {
            // SAFETY: freed by `unmake` alone, which unregisters it before.
            unsafe { machine.register(what, base, layout.size()) }
        });
        registered.expect("fresh memory overlaps none");
        self.memory.insert(base.expose_provenance(), layout);
        base.addr()
    }

    fn unmake(&mut self, address: usize) -> c_int {
        let Some(layout) = self.memory.remove(&address) else { return 1 };
        let base = core::ptr::with_exposed_provenance_mut(address);
        self.machine.with(|machine| machine.unregister(base));
        // SAFETY: made with this layout, and no longer in the list.
        unsafe { dealloc(base, layout) };
        0
    }
}

enum Fate {
    Runs,
    Lost,
}

/// Stores a value where the caller wants it.
///
/// # Safety
/// `to` is valid for a write.
unsafe fn give<T>(to: *mut T, value: T) -> c_int {
    // SAFETY: the caller's.
    unsafe { to.write(value) };
    0
}

/// Functions of the driver. The contract of each is that of CUDA's documentation.
macro_rules! functions {
    ($($name:ident($($argument:ident: $type:ty),*) $body:block)*) => { $(
        /// # Safety
        /// As CUDA's documentation says.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($argument: $type),*) -> c_int {
            // SAFETY: the caller's.
            #[allow(unused_unsafe, clippy::undocumented_unsafe_blocks, reason = "one contract for all")]
            unsafe { $body }
        }
    )* };
}

/// Writes a text with its NUL.
///
/// # Safety
/// `to` is valid for writes of `len` bytes.
unsafe fn write_text(to: *mut c_char, len: usize, text: &str) -> c_int {
    let bytes = &text.as_bytes()[..text.len().min(len - 1)];
    // SAFETY: the caller's.
    unsafe {
        to.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        to.add(bytes.len()).write(0);
    }
    0
}

functions! {
    cuInit(_flags: c_uint) {
        if wrong("exit").is_some() {
            extern "C" fn never() {
                forever();
            }
            unsafe extern "C" {
                safe fn atexit(f: extern "C" fn()) -> c_int;
            }
            atexit(never);
        }
        call(|_| 0)
    }
    cuDriverGetVersion(version: *mut c_int) { give(version, 13000) }
    cuDeviceGetCount(count: *mut c_int) { give(count, 1) }
    cuDeviceGet(device: *mut c_int, ordinal: c_int) { give(device, ordinal) }
    cuDeviceGetName(to: *mut c_char, len: c_int, _device: c_int) { write_text(to, len as usize, &wrong("name=").unwrap_or_else(|| "Rehearsal".to_owned())) }
    cuDeviceGetPCIBusId(to: *mut c_char, len: c_int, _device: c_int) { write_text(to, len as usize, "FFFF:AB:00.0") }
    cuDeviceTotalMem_v2(bytes: *mut usize, _device: c_int) { give(bytes, 16 << 30) }
    cuDeviceGetAttribute(value: *mut c_int, attribute: c_int, _device: c_int) {
        give(value, match attribute {
            10 => 32,
            16 => MULTIPROCESSORS as c_int,
            // Maps host memory, unified addresses, cooperative launch.
            19 | 41 | 95 => 1,
            75 => 9,
            _ => 0,
        })
    }
    cuGetErrorName(_error: c_int, text: *mut *const c_char) { give(text, c"CUDA_ERROR_FAKE".as_ptr()) }
    cuGetErrorString(_error: c_int, text: *mut *const c_char) { give(text, c"made up".as_ptr()) }
    cuDevicePrimaryCtxRetain(context: *mut usize, _device: c_int) { give(context, 1) }
    cuDevicePrimaryCtxRelease_v2(_device: c_int) { call(|_| 0) }
    cuCtxSetCurrent(_context: usize) { 0 }
    cuCtxGetLimit(value: *mut usize, _limit: c_int) { call(|driver| give(value, driver.stack)) }
    cuCtxSetLimit(_limit: c_int, value: usize) {
        call(|driver| {
            driver.stack = value;
            0
        })
    }
    cuMemAlloc_v2(address: *mut u64, bytes: usize) { call(|driver| give(address, driver.make("device", bytes) as u64)) }
    cuMemFree_v2(address: u64) { call(|driver| driver.unmake(address as usize)) }
    cuMemGetInfo_v2(free: *mut usize, total: *mut usize) { give(free, 1 << 30) + give(total, 16 << 30) }
    cuMemHostAlloc(base: *mut usize, bytes: usize, _flags: c_uint) {
        call(|driver| give(base, driver.make("host", bytes)))
    }
    cuMemFreeHost(base: usize) { call(|driver| driver.unmake(base)) }
    cuMemHostGetDevicePointer_v2(address: *mut u64, base: *mut c_void, _flags: c_uint) {
        give(address, base.expose_provenance() as u64)
    }
    cuMemHostRegister_v2(base: *mut c_void, bytes: usize, _flags: c_uint) {
        call(|driver| {
            let registered = driver.machine.with(|machine| machine.register("registered", base.cast(), bytes));
            c_int::from(registered.is_err())
        })
    }
    cuMemHostUnregister(base: *mut c_void) {
        call(|driver| c_int::from(driver.machine.with(|machine| machine.unregister(base.cast())).is_none()))
    }
    cuMemsetD8Async(to: u64, value: u8, bytes: usize, stream: usize) {
        call(|driver| driver.put(stream, Work::Set { to: to as usize, value, bytes }))
    }
    cuMemcpyHtoDAsync_v2(to: u64, from: usize, bytes: usize, stream: usize) {
        call(|driver| driver.put(stream, Work::Copy { to: to as usize, from, bytes }))
    }
    cuMemcpyDtoHAsync_v2(to: usize, from: u64, bytes: usize, stream: usize) {
        call(|driver| driver.put(stream, Work::Copy { to, from: from as usize, bytes }))
    }
    cuModuleLoadDataEx(
        module: *mut usize,
        image: *const c_char,
        _options: c_uint,
        _names: *const c_int,
        _values: *mut *mut c_void
    ) {
        let text = CStr::from_ptr(image).to_string_lossy();
        if let Some(ms) = number("compile") {
            std::thread::sleep(Duration::from_millis(ms * text.len() as u64 / 1000));
        }
        call(|driver| match Module::parse(&text) {
            Ok(parsed) => {
                driver.machine.with(|machine| machine.load(&parsed));
                driver.modules += 1;
                give(module, driver.modules)
            }
            Err(_) => 218,
        })
    }
    cuModuleUnload(_module: usize) { 0 }
    cuModuleGetFunction(function: *mut usize, _module: usize, name: *const c_char) {
        let name = CStr::from_ptr(name).to_string_lossy().into_owned();
        call(|driver| {
            driver.functions.push(name);
            give(function, driver.functions.len())
        })
    }
    cuFuncLoad(_function: usize) { call(|_| 0) }
    cuFuncGetAttribute(value: *mut c_int, _attribute: c_int, _function: usize) { give(value, 1000) }
    cuFuncSetAttribute(_function: usize, _attribute: c_int, _value: c_int) { 0 }
    cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks: *mut c_int, _function: usize, _threads: c_int, _shared: usize) {
        give(blocks, PER_MULTIPROCESSOR as c_int)
    }
    cuStreamCreate(stream: *mut usize, _flags: c_uint) {
        call(|driver| {
            driver.streams += 1;
            give(stream, driver.streams)
        })
    }
    cuStreamDestroy_v2(_stream: usize) { 0 }
    cuStreamQuery(stream: usize) {
        call(|driver| {
            if let Some(e) = driver.machine.error() {
                eprintln!("FAKE: {e}");
                return 700;
            }
            let busy = driver.queues.iter().any(|queue| {
                queue.waiting.iter().any(|(on, _)| *on == stream)
                    || queue.running.as_ref().is_some_and(|(_, on, ..)| *on == stream)
            });
            if busy { 600 } else { 0 }
        })
    }
    cuLaunchKernel(
        function: usize,
        gx: c_uint,
        _gy: c_uint,
        _gz: c_uint,
        bx: c_uint,
        _by: c_uint,
        _bz: c_uint,
        _shared: c_uint,
        stream: usize,
        parameters: *const *const u64,
        _extra: usize
    ) {
        let argument = parameters.read().read();
        call(|driver| {
            let name = driver.functions[function - 1].clone();
            driver.put(stream, Work::Kernel { name, blocks: gx, threads: bx, argument })
        })
    }
    cuLaunchCooperativeKernel(
        function: usize,
        gx: c_uint,
        gy: c_uint,
        gz: c_uint,
        bx: c_uint,
        by: c_uint,
        bz: c_uint,
        shared: c_uint,
        stream: usize,
        parameters: *const *const u64
    ) {
        cuLaunchKernel(function, gx, gy, gz, bx, by, bz, shared, stream, parameters, 0)
    }
}
