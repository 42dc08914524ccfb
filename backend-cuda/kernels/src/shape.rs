//! The shapes that the entry points are compiled for.

use k2k_core::ring::{Sharded, Spsc, Ticket};
use k2k_core::sync::{Gpu, Shared};
use k2k_core::{Fabric, Header};

/// Indices for kernels in a device's fabric.
pub const KERNELS: usize = 16;
/// Messages per pair of kernels.
pub const SLOTS: usize = 64;
/// Bytes per message.
pub const PAYLOAD: usize = 192;

/// Frames each way of a link, and messages on their way at a time.
pub const FRAMES: usize = 64;

/// The shape of a GPU's fabric.
pub type DeviceShape = k2k_device::DeviceShape<KERNELS, SLOTS, PAYLOAD>;

/// The fabric of one GPU.
pub type DeviceFabric = Fabric<KERNELS, SLOTS, PAYLOAD, Gpu>;

/// Indices in the fabric that spans a whole chip, in benchmarks.
pub const CHIP_KERNELS: usize = 128;
/// Messages per pair there.
pub const CHIP_SLOTS: usize = 16;
/// Bytes per message there.
pub const CHIP_PAYLOAD: usize = 64;

/// The shape of the fabric that spans a whole chip.
pub type ChipShape = k2k_device::DeviceShape<CHIP_KERNELS, CHIP_SLOTS, CHIP_PAYLOAD>;

/// What the rings of the tests carry: with the stamp, a line.
pub type Body = [u64; 7];
/// Slots of the test rings.
pub const RING_SLOTS: usize = 64;
/// Producers of the test queues.
pub const PRODUCERS: usize = 4;

/// An SPSC ring as the tests use it.
pub type TestSpsc<S> = Spsc<Body, RING_SLOTS, S>;
/// A sharded queue as the tests use it.
pub type TestSharded<S> = Sharded<Body, PRODUCERS, RING_SLOTS, S>;
/// A ticket ring as the tests use it. Only within one GPU: claims are compare-exchanged.
pub type TestTicket = Ticket<Body, RING_SLOTS, Gpu>;

/// Element number `number`: every word follows from it.
#[must_use]
pub fn body(number: u64) -> Body {
    core::array::from_fn(|i| number.wrapping_add(i as u64).wrapping_mul(2 * i as u64 + 1))
}

/// What [`LAYOUT`] is of.
pub const LAYOUT_NAMES: [&str; 7] = [
    "DeviceFabric",
    "size of DeviceFabric",
    "Header",
    "TestSpsc",
    "TestSharded",
    "TestTicket",
    "sizes of Launch and Report",
];

/// How the shared types lie in memory as this side sees them. The device's stands in the PTX as `k2k_layout_words`, and
/// `k2k_layout` writes it.
pub const LAYOUT: [u64; 7] = [
    DeviceFabric::LAYOUT,
    size_of::<DeviceFabric>() as u64,
    Header::LAYOUT,
    TestSpsc::<Gpu>::LAYOUT,
    TestSharded::<Gpu>::LAYOUT,
    TestTicket::LAYOUT,
    (size_of::<k2k_device::Launch>() << 32 | size_of::<k2k_device::Report>()) as u64,
];

const _: () = assert!(size_of::<TestSpsc<Gpu>>() == 256 + 64 * RING_SLOTS);
