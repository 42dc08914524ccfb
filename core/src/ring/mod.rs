//! Rings: fixed-size queues in memory that both sides can see.
//!
//! | ring | producers | read-modify-write | choose it for |
//! | --- | --- | --- | --- |
//! | [`Spsc`] | one | none | a pair; a link across a bus |
//! | [`Sharded`] | one shard each | none | fan-in with capacity per pair: the default |
//! | [`Ticket`] | any number | compare-exchange | fan-in where a shard for each producer would cost too much memory |
//!
//! The ends, which keep the private state of a side, have lines of their own on a host (two, since processors fetch them in pairs): two
//! ends side by side in a struct or a `Vec`, each lent to a thread, would otherwise take each other's positions away
//! with every message.

pub mod group;
pub mod sharded;
pub mod spsc;
pub mod ticket;

pub use group::Group;
pub use sharded::Sharded;
pub use spsc::{Consumer, InUse, Producer, Spsc};
pub use ticket::Ticket;
