//! The kinds of measurement.

pub mod alone;
pub mod endpoints;
pub mod floors;
pub mod latency;
pub mod one_thread;
pub mod sharded;
pub mod throughput;
