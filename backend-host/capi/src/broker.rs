//! Calls on a fabric: making and opening it, and the control plane.

use crate::Any;
use crate::endpoint::{ENDPOINTS, Kernel};
use crate::error::{Failure, guard, k2k_result};
use crate::table::Table;
use crate::types::{
    K2K_WAIT_PARK, K2K_WAIT_SPIN, K2K_WAIT_YIELD, k2k_broker, k2k_config, k2k_endpoint, k2k_kernel_id,
    k2k_registration, k2k_shape, k2k_stats, read_struct, write_struct,
};
use core::ffi::{CStr, c_char};
use core::time::Duration;
use k2k::{Broker, Builder, Command, KernelId, Registration, Wait, memory};

static BROKERS: Table<Broker<Any>> = Table::new("broker");

/// Tries again while another call clones the broker.
fn patiently<T>(mut enter: impl FnMut() -> Result<T, Failure>) -> Result<T, Failure> {
    for _ in 0..100_000 {
        match enter() {
            Err(e) if e.code == k2k_result::K2K_IN_USE => std::thread::yield_now(),
            entered => return entered,
        }
    }
    // In a forked process, if a call of another thread was amid that when the process forked.
    enter()
}

/// A broker, for a call that may take its time: another one may use the same broker meanwhile.
fn broker(handle: k2k_broker) -> Result<Broker<Any>, Failure> {
    patiently(|| BROKERS.enter(handle.handle).map(|broker| broker.clone()))
}

/// A string of the caller's.
///
/// # Safety
/// NULL, or a string that ends with a NUL.
pub(crate) unsafe fn text<'a>(given: *const c_char, what: &str) -> Result<&'a str, Failure> {
    if given.is_null() {
        return Err(Failure::null(what));
    }
    // SAFETY: passed on.
    let bytes = unsafe { CStr::from_ptr(given) };
    bytes.to_str().map_err(|_| Failure::argument(format!("{what} is no UTF-8: {bytes:?}")))
}

/// A place for a result.
///
/// # Safety
/// NULL, or a `T` can be written there.
pub(crate) unsafe fn put<T>(to: *mut T, value: T, what: &str) -> Result<(), Failure> {
    if to.is_null() {
        return Err(Failure::null(what));
    }
    // SAFETY: passed on.
    unsafe { to.write_unaligned(value) };
    Ok(())
}

/// As a duration, or for ever.
pub(crate) const fn limit(timeout_ns: u64) -> Option<Duration> {
    if timeout_ns == u64::MAX { None } else { Some(Duration::from_nanos(timeout_ns)) }
}

/// Where a fabric goes.
enum Way {
    Create,
    Open,
    CreateOrOpen,
}

/// # Safety
/// As for the functions below.
unsafe fn make(way: &Way, name: *const c_char, config: *const k2k_config, out: *mut k2k_broker) -> Result<(), Failure> {
    if out.is_null() {
        return Err(Failure::null("the place for the broker"));
    }
    // SAFETY: passed on.
    let given = unsafe { read_struct(config) }?;
    let mut builder = Builder::<Any>::new().config(given.config());
    if given.kernels != 0 {
        builder = builder.kernels(given.kernels as usize);
    }
    if given.slots != 0 {
        builder = builder.slots(given.slots as usize);
    }
    if given.payload != 0 {
        builder = builder.payload(given.payload as usize);
    }
    if given.mode != 0 {
        builder = builder.mode(given.mode);
    }
    if given.sparse != 0 {
        builder = builder.sparse();
    }
    builder = match way {
        Way::Create if name.is_null() => builder.heap(),
        // SAFETY: passed on.
        Way::Create => builder.create(unsafe { text(name, "the name") }?),
        // SAFETY: as above.
        Way::Open => builder.open(unsafe { text(name, "the name") }?),
        // SAFETY: as above.
        Way::CreateOrOpen => builder.create_or_open(unsafe { text(name, "the name") }?),
    };
    let handle = BROKERS.insert(Box::new(builder.build()?))?;
    // SAFETY: not NULL.
    unsafe { put(out, k2k_broker { handle }, "the place for the broker") }
}

/// Creates a fabric in a new file, in /dev/shm unless the name has a slash; for NULL in memory of this process alone.
/// `config` may be NULL.
///
/// # Safety
/// Pointers are NULL or good, `name` ends with a NUL, and structs have the size that they say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn k2k_create(
    name: *const c_char,
    config: *const k2k_config,
    broker: *mut k2k_broker,
) -> k2k_result {
    // SAFETY: the caller vouches for it.
    guard(|| unsafe { make(&Way::Create, name, config, broker) })
}

/// Opens a fabric in a file, of whatever shape.
///
/// # Safety
/// As for `k2k_create`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn k2k_open(name: *const c_char, broker: *mut k2k_broker) -> k2k_result {
    // SAFETY: the caller vouches for it.
    guard(|| unsafe { make(&Way::Open, name, core::ptr::null(), broker) })
}

/// Opens a fabric in a file or, if there is none, creates it: for processes that start in any order.
///
/// # Safety
/// As for `k2k_create`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn k2k_create_or_open(
    name: *const c_char,
    config: *const k2k_config,
    broker: *mut k2k_broker,
) -> k2k_result {
    // SAFETY: the caller vouches for it.
    guard(|| unsafe { make(&Way::CreateOrOpen, name, config, broker) })
}

/// Removes a file's name. Processes that have it open keep it.
///
/// # Safety
/// As for `k2k_create`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn k2k_remove(name: *const c_char) -> k2k_result {
    // SAFETY: the caller vouches for it.
    guard(|| Ok(memory::remove(unsafe { text(name, "the name") }?)?))
}

/// Closes a broker. Its endpoints stay open, and keep the memory.
#[unsafe(no_mangle)]
pub extern "C" fn k2k_broker_close(broker: k2k_broker) -> k2k_result {
    guard(|| patiently(|| BROKERS.close(broker.handle)).map(drop))
}

/// The fabric's shape.
///
/// # Safety
/// As for `k2k_create`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn k2k_broker_shape(broker: k2k_broker, shape: *mut k2k_shape) -> k2k_result {
    guard(|| {
        let broker = self::broker(broker)?;
        if shape.is_null() {
            return Err(Failure::null("the place for the shape"));
        }
        let found = broker.memory().fabric().geometry();
        let found = k2k_shape {
            size: 0,
            kernels: found.kernels,
            slots: found.slots,
            payload: found.payload,
            reserved: 0,
            bytes: found.size,
        };
        // SAFETY: the caller vouches for it.
        unsafe { write_struct(shape, &found) }
    })
}

/// Registers a kernel under a name of 1 to 32 bytes. `registration` may be NULL.
///
/// # Safety
/// As for `k2k_create`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn k2k_register(
    broker: k2k_broker,
    name: *const c_char,
    registration: *const k2k_registration,
    endpoint: *mut k2k_endpoint,
) -> k2k_result {
    guard(|| {
        if endpoint.is_null() {
            return Err(Failure::null("the place for the endpoint"));
        }
        let broker = self::broker(broker)?;
        // SAFETY: the caller vouches for both.
        let (name, given) = unsafe { (text(name, "the name")?, read_struct(registration)?) };
        let wait = match given.wait {
            K2K_WAIT_PARK => Wait::Park,
            K2K_WAIT_YIELD => Wait::Yield,
            K2K_WAIT_SPIN => Wait::Spin,
            other => {
                let words = format!("{other} is no way of waiting: 0 is parking, 1 is yielding, 2 is spinning");
                return Err(Failure::argument(words));
            }
        };
        let mut who = Registration::new(name).map_err(k2k::EndpointError::from)?;
        if given.never_parks == 0 {
            who = who.parking();
        }
        if let Some(index) = given.index_plus_1.checked_sub(1) {
            if index >= broker.memory().fabric().geometry().kernels {
                let kernels = broker.memory().fabric().geometry().kernels;
                let words = format!("there is no kernel index {index}: the fabric has {kernels}, from 0");
                return Err(Failure::argument(words));
            }
            who = who.at(index as usize);
        }
        let kernel = Kernel::new(broker.register_as(&who)?.with_wait(wait), given.keeps);
        let handle = ENDPOINTS.insert(Box::new(kernel))?;
        // SAFETY: not NULL.
        unsafe { put(endpoint, k2k_endpoint { handle }, "the place for the endpoint") }
    })
}

/// The registered kernel of that name, or `K2K_NOT_FOUND`.
///
/// # Safety
/// As for `k2k_create`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn k2k_find(broker: k2k_broker, name: *const c_char, kernel: *mut k2k_kernel_id) -> k2k_result {
    guard(|| {
        let broker = self::broker(broker)?;
        // SAFETY: the caller vouches for it.
        let name = unsafe { text(name, "the name") }?;
        let found = broker
            .find(name)
            .ok_or_else(|| Failure::new(k2k_result::K2K_NOT_FOUND, format!("no kernel is registered as {name:?}")))?;
        // SAFETY: as above.
        unsafe { put(kernel, found.raw(), "the place for the kernel") }
    })
}

/// The kernel of that name, as soon as there is one, or `K2K_TIMEOUT`.
///
/// # Safety
/// As for `k2k_create`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn k2k_wait_for_kernel(
    broker: k2k_broker,
    name: *const c_char,
    timeout_ns: u64,
    kernel: *mut k2k_kernel_id,
) -> k2k_result {
    guard(|| {
        let broker = self::broker(broker)?;
        // SAFETY: the caller vouches for it.
        let name = unsafe { text(name, "the name") }?;
        let found = broker.wait_for_kernel(name, Duration::from_nanos(timeout_ns))?;
        // SAFETY: as above.
        unsafe { put(kernel, found.raw(), "the place for the kernel") }
    })
}

/// Returns when a kernel has left, or `K2K_TIMEOUT`.
#[unsafe(no_mangle)]
pub extern "C" fn k2k_wait_until_gone(broker: k2k_broker, kernel: k2k_kernel_id, timeout_ns: u64) -> k2k_result {
    guard(|| {
        let timeout = Duration::from_nanos(timeout_ns);
        Ok(self::broker(broker)?.wait_until_gone(KernelId::from_raw(kernel), timeout)?)
    })
}

/// Tells a kernel what to do: one of the `K2K_COMMAND_` numbers.
#[unsafe(no_mangle)]
pub extern "C" fn k2k_command(broker: k2k_broker, kernel: k2k_kernel_id, command: u32) -> k2k_result {
    guard(|| {
        let command = match command {
            0 => Command::Run,
            1 => Command::Pause,
            2 => Command::Drain,
            3 => Command::Stop,
            other => {
                let words = format!("{other} is no command: 0 is run, 1 is pause, 2 is drain, 3 is stop");
                return Err(Failure::argument(words));
            }
        };
        Ok(self::broker(broker)?.command(KernelId::from_raw(kernel), command)?)
    })
}

/// Sets the next hop that the kernel `at` uses for messages to `destination`; 0: none, so that it sends directly.
#[unsafe(no_mangle)]
pub extern "C" fn k2k_set_route(
    broker: k2k_broker,
    at: k2k_kernel_id,
    destination: k2k_kernel_id,
    next_hop: k2k_kernel_id,
) -> k2k_result {
    guard(|| {
        let broker = self::broker(broker)?;
        let no_hop = next_hop == 0;
        let [at, destination, next_hop] = [at, destination, next_hop].map(KernelId::from_raw);
        if no_hop {
            broker.remove_route(at, destination);
            return Ok(());
        }
        Ok(broker.add_route(at, destination, next_hop)?)
    })
}

/// Frees the names and kernel indices of kernels whose process is gone. `reaped`, which may be NULL, gets their number.
///
/// # Safety
/// As for `k2k_create`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn k2k_reap(broker: k2k_broker, reaped: *mut u64) -> k2k_result {
    guard(|| {
        let report = self::broker(broker)?.reap();
        if !reaped.is_null() {
            // SAFETY: the caller vouches for it.
            unsafe { put(reaped, report.reaped.len() as u64, "the place for the number") }?;
        }
        Ok(())
    })
}

/// The counters of a kernel; those of all kernels together for 0.
///
/// # Safety
/// As for `k2k_create`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn k2k_broker_stats(
    broker: k2k_broker,
    kernel: k2k_kernel_id,
    stats: *mut k2k_stats,
) -> k2k_result {
    guard(|| {
        let broker = self::broker(broker)?;
        if stats.is_null() {
            return Err(Failure::null("the place for the counters"));
        }
        let kernel = KernelId::from_raw(kernel);
        let found = if kernel == KernelId::NONE { Some(broker.stats()) } else { broker.kernel_stats(kernel) };
        let found = found.ok_or_else(|| {
            Failure::new(k2k_result::K2K_NOT_FOUND, format!("no kernel has had the address {kernel} yet"))
        })?;
        // SAFETY: the caller vouches for it.
        unsafe { write_struct(stats, &found.into()) }
    })
}

/// Messages whose end was not counted yet, counted one by one.
///
/// # Safety
/// As for `k2k_create`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn k2k_broker_pending(broker: k2k_broker, pending: *mut u64) -> k2k_result {
    guard(|| {
        let counted = self::broker(broker)?.pending();
        // SAFETY: the caller vouches for it.
        unsafe { put(pending, counted, "the place for the number") }
    })
}
