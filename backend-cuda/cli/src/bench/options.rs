//! How much a benchmark measures.

use core::time::Duration;

/// How much to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BenchOptions {
    /// Round trips that are timed for each figure.
    pub trips: u64,
    /// Messages of each ring, for rates. Slower ways take a share of it.
    pub messages: u64,
    /// Blocks at once, at most 128. A device with fewer multiprocessors runs as many as it has.
    pub blocks: u32,
    /// How long to look at an idle bridge.
    pub idle: Duration,
    /// How long each wait may take, at most.
    pub patience: Duration,
}

impl Default for BenchOptions {
    /// What a large GPU does in about half a minute.
    fn default() -> Self {
        Self {
            trips: 50_000,
            messages: 1_000_000,
            blocks: 128,
            idle: Duration::from_secs(1),
            patience: Duration::from_secs(30),
        }
    }
}

impl BenchOptions {
    /// What the emulated device does in a few seconds.
    #[must_use]
    pub const fn few() -> Self {
        Self {
            trips: 100,
            messages: 400,
            blocks: 6,
            idle: Duration::from_millis(200),
            patience: Duration::from_secs(60),
        }
    }
}
