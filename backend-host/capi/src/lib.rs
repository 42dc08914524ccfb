//! K2K for C and C++: the calls that `k2k.h` declares. Its README says how to build and link.
//!
//! All of it is a thin layer over the package `k2k`: no protocol is written twice, and the words of errors are those of
//! the Rust library.
//!
//! - Handles are numbers, not addresses (`table`): a closed or made-up one is an error.
//! - Structs begin with their size (`types`), so that they can grow.
//! - No panic leaves a call (`error`).
//! - The shape of a fabric is read from its header: up to 512 kernels, and payloads of any length.

#![allow(non_camel_case_types, reason = "the names of C")]

mod broker;
mod endpoint;
mod error;
mod table;
mod types;

pub use broker::*;
pub use endpoint::*;
pub use error::*;
pub use types::*;

/// Bytes of payload that the largest message carries.
const PAYLOAD: usize = 65_472;

/// A fabric of whatever shape, for up to 512 kernels. An endpoint has 60 bytes of its own for each that there may be.
type Any = k2k::Read<512, PAYLOAD>;

/// The library's version, such as `"0.1.0"`.
#[unsafe(no_mangle)]
pub extern "C" fn k2k_version() -> *const core::ffi::c_char {
    const VERSION: &core::ffi::CStr =
        match core::ffi::CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => c"",
        };
    VERSION.as_ptr()
}
