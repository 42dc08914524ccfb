//! What runs on the device only.

pub(crate) mod block;
pub(crate) mod clock;
pub(crate) mod gateway;
pub mod thread;
pub(crate) mod warp;
pub(crate) mod workers;
