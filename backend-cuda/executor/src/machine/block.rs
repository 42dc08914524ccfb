//! A block: its shared memory and its barriers.

/// One of a block's sixteen barriers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Barrier {
    pub(crate) arrived: Vec<u32>,
    pub(crate) expected: u32,
}

#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) index: [u32; 3],
    pub(crate) grid_dim: [u32; 3],
    pub(crate) block_dim: [u32; 3],
    pub(crate) shared: Vec<u8>,
    pub(crate) dynamic_shared: u32,
    /// Its threads, by their number in the block.
    pub(crate) threads: Vec<u32>,
    pub(crate) barriers: [Barrier; 16],
}
