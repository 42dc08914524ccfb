//! What the fuzz targets do with an input: plain functions, which ordinary tests call as well.
//!
//! | target | attacks |
//! | --- | --- |
//! | [`attach()`] | [`Fabric::attach`](k2k_core::Fabric::attach) and everything behind it, on bytes that were never a fabric |
//! | [`hostile_peer()`] | endpoints that are at work while someone writes anything anywhere in their fabric |
//! | [`gateway()`] | a gateway whose link's remote side writes what it likes |
//! | [`ring_ops()`] | the three rings, against queues |
//! | [`look()`] | an onlooker's copy of bytes that were never a fabric, and change while it copies |
//! | [`message()`] | decoding of messages |
//! | [`recording()`] | reading recordings |
//!
//! Each returns unless it has found something: a panic, an overflow, undefined behaviour (under a sanitizer) or, by the
//! fuzzer's time limit, an endless loop.

mod attach;
mod gateway;
mod hostile_peer;
mod look;
mod message;
mod recording;
mod ring_ops;
mod world;

pub use attach::attach;
pub use gateway::gateway;
pub use hostile_peer::hostile_peer;
pub use look::look;
pub use message::message;
pub use recording::recording;
pub use ring_ops::ring_ops;
