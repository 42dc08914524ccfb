//! Does K2K work on this device, and how fast? What the command `k2k-gpu` does, as a library.
//!
//! | module | what |
//! | --- | --- |
//! | [`check`] | every way that messages take, tried with numbered messages, each accounted for |
//! | [`mod@bench`] | each way timed beside its floor |

pub mod bench;
pub mod check;
mod count;
