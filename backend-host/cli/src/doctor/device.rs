//! Requirements of a GPU and its code: the driver, a device, and a toolchain that makes PTX.

use super::Check;
use core::ffi::{CStr, c_char, c_int};
use k2k_ptx::build::{self, BuildError, Toolchain};
use k2k_ptx::sass::{INSTALL, PLACES, SassError, Tools};
use libloading::{Library, Symbol};
use std::path::Path;

/// Names of the driver's library, in the order of the search.
const LIBCUDA: [&str; 3] = ["libcuda.so.1", "libcuda.so", "nvcuda.dll"];

/// The oldest compute capability of compiled device code: the first with acquire and release.
const OLDEST: (c_int, c_int) = (7, 0);

/// Driver and devices.
pub(super) fn gpu() -> Vec<Check> {
    const NEEDED_FOR: &str = "kernels on a GPU";
    const INSTALL: &str = "a machine with an NVIDIA GPU and its driver (on Debian: apt-get install nvidia-driver)";
    let Some((name, driver)) = Driver::load() else {
        let found = format!("{} is not there", LIBCUDA[0]);
        return vec![
            Check::missing("CUDA driver", NEEDED_FOR, found, INSTALL),
            Check::missing("GPU", NEEDED_FOR, "cannot be looked for without the driver", INSTALL),
        ];
    };
    let version = driver
        .version()
        .map_or_else(|| "of unknown version".to_owned(), |v| format!("for CUDA {}.{}", v / 1000, v % 1000 / 10));
    let driver_check = Check::ok("CUDA driver", NEEDED_FOR, format!("{name} {version}"));
    let gpu_check = match driver.devices() {
        Err(code) => {
            let found = format!("the driver does not start: CUresult {code}");
            Check::missing("GPU", NEEDED_FOR, found, "a GPU that this process may use (see nvidia-smi)")
        }
        Ok(devices) if devices.is_empty() => Check::missing("GPU", NEEDED_FOR, "the driver knows of none", INSTALL),
        Ok(devices) => {
            let found = devices.iter().map(|device| {
                format!("{}, compute capability {}.{}", device.name, device.capability.0, device.capability.1)
            });
            let found = found.collect::<Vec<_>>().join("; ");
            if devices.iter().any(|device| device.capability >= OLDEST) {
                Check::ok("GPU", NEEDED_FOR, found)
            } else {
                let remedy = format!("a GPU of compute capability {}.{} or later", OLDEST.0, OLDEST.1);
                Check::missing("GPU", NEEDED_FOR, found, remedy)
            }
        }
    };
    vec![driver_check, gpu_check]
}

/// A device as the driver describes it.
struct Device {
    name: String,
    /// Major and minor compute capability.
    capability: (c_int, c_int),
}

/// The driver's library. Loaded at run time, so that this program starts without the library.
struct Driver(Library);

// Signatures and numbers as in cuda.h; all functions return a CUresult, 0 for success.
type GetNumber = unsafe extern "C" fn(*mut c_int) -> c_int;
type Init = unsafe extern "C" fn(u32) -> c_int;
type GetDevice = unsafe extern "C" fn(*mut c_int, c_int) -> c_int;
type GetName = unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int;
type GetAttribute = unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int;
/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR` and `_MINOR`.
const CAPABILITY: (c_int, c_int) = (75, 76);
/// Stands for a function missing in the library: `CUDA_ERROR_NOT_FOUND`.
const NO_FUNCTION: c_int = 500;

impl Driver {
    fn load() -> Option<(&'static str, Self)> {
        LIBCUDA.into_iter().find_map(|name| {
            // SAFETY: any process may load the driver's library; its initialisers ask for nothing.
            let library = unsafe { Library::new(name) }.ok()?;
            Some((name, Self(library)))
        })
    }

    /// A function of the library.
    ///
    /// # Safety
    /// `F` is the function's type.
    unsafe fn function<F>(&self, name: &str) -> Result<Symbol<'_, F>, c_int> {
        // SAFETY: the caller vouches for the type.
        unsafe { self.0.get(name.as_bytes()) }.map_err(|_| NO_FUNCTION)
    }

    /// 1000 * major + 10 * minor.
    fn version(&self) -> Option<c_int> {
        let mut version = 0;
        // SAFETY: `GetNumber` is the type of this function, which needs no initialisation.
        let result = unsafe { self.function::<GetNumber>("cuDriverGetVersion").map(|get| get(&mut version)) };
        (result == Ok(0)).then_some(version)
    }

    fn devices(&self) -> Result<Vec<Device>, c_int> {
        let checked = |result: c_int| if result == 0 { Ok(()) } else { Err(result) };
        let mut count = 0;
        // SAFETY: the types match the functions, and cuInit comes first.
        unsafe {
            checked(self.function::<Init>("cuInit")?(0))?;
            checked(self.function::<GetNumber>("cuDeviceGetCount")?(&mut count))?;
        }
        let describe = |ordinal| {
            let (mut device, mut major, mut minor) = (0, 0, 0);
            let mut name = [0u8; 128];
            // SAFETY: as above; `name` has the given length, and the driver ends it with a NUL.
            unsafe {
                checked(self.function::<GetDevice>("cuDeviceGet")?(&mut device, ordinal))?;
                let len = name.len() as c_int;
                checked(self.function::<GetName>("cuDeviceGetName")?(name.as_mut_ptr().cast(), len, device))?;
                let attribute = self.function::<GetAttribute>("cuDeviceGetAttribute")?;
                checked(attribute(&mut major, CAPABILITY.0, device))?;
                checked(attribute(&mut minor, CAPABILITY.1, device))?;
            }
            let name = CStr::from_bytes_until_nul(&name).unwrap_or(c"?").to_string_lossy().into_owned();
            Ok(Device { name, capability: (major, minor) })
        };
        (0..count).map(describe).collect()
    }
}

/// A compiler that makes PTX out of Rust, and an assembler that checks PTX.
pub(super) fn toolchain() -> Vec<Check> {
    vec![compiler(), assembler()]
}

fn compiler() -> Check {
    const NAME: &str = "device compiler";
    const NEEDED_FOR: &str = "changing device code; using it needs no compiler, for the PTX comes with it";
    match Toolchain::find(Path::new("."), None, None) {
        Ok(found) => {
            let found = format!("rustc {} with the sources of core, {}", found.release, found.rustc.display());
            Check::ok(NAME, NEEDED_FOR, found)
        }
        Err(why) => {
            let found = match why {
                BuildError::NoToolchain { tried } => {
                    format!("no compiler with the sources of core; looked at {}", tried.join(", "))
                }
                why => why.to_string(),
            };
            Check::missing(NAME, NEEDED_FOR, found, build::toolchains())
        }
    }
}

fn assembler() -> Check {
    const NAME: &str = "ptxas, nvdisasm";
    const NEEDED_FOR: &str = "checking generated PTX without a GPU";
    match Tools::find() {
        Ok(tools) => Check::ok(NAME, NEEDED_FOR, format!("{}, {}", tools.version, tools.ptxas.display())),
        Err(SassError::Missing { program }) => {
            Check::missing(NAME, NEEDED_FOR, format!("no {program} {PLACES}"), INSTALL)
        }
        Err(why) => Check::missing(NAME, NEEDED_FOR, why.to_string(), INSTALL),
    }
}
