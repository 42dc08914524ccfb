//! What runs on the device only.

pub(crate) mod block;
pub(crate) mod clock;
pub mod thread;
pub(crate) mod warp;
