//! A place in host memory for a copy of a GPU's fabric. Only the pages that are copied into it are ever committed.

use crate::error::Error;
use core::ops::Range;
use k2k::{Memory, MemoryError};
use k2k_core::sync::Ordering::Relaxed;
use k2k_core::sync::{AtomicU64, System};
use k2k_core::{Config, FabricRef, Shape};

pub(super) struct Image<Sh: Shape> {
    /// Owns the bytes, which nobody uses through it.
    _memory: Memory<Sh::InScope<System>>,
    base: *mut u8,
    /// The same bytes, valid for as long as `_memory` is.
    fabric: FabricRef<'static, Sh>,
}

// SAFETY: memory that is owned, and a fabric in it, both of which may be used by any thread.
unsafe impl<Sh: Shape> Send for Image<Sh> {}
// SAFETY: as above.
unsafe impl<Sh: Shape> Sync for Image<Sh> {}

impl<Sh: Shape> Clone for Image<Sh> {
    fn clone(&self) -> Self {
        Self { _memory: self._memory.clone(), base: self.base, fabric: self.fabric }
    }
}

impl<Sh: Shape> Image<Sh> {
    /// An idle fabric.
    pub(super) fn new(shape: Sh, config: &Config) -> Result<Self, Error> {
        let memory = Memory::heap_of(shape.in_scope::<System>(), config)?;
        let base = memory.fabric().as_ptr();
        // SAFETY: the bytes of `memory`, which is kept beside it and not used as a fabric. Scopes differ in no byte.
        let fabric = unsafe { FabricRef::create_raw(base, shape.size(), shape, config) };
        let fabric = fabric.map_err(|why| MemoryError::Attach { path: None, why })?;
        Ok(Self { _memory: memory, base, fabric })
    }

    pub(super) const fn fabric(&self) -> FabricRef<'_, Sh> {
        self.fabric
    }

    /// The words of a part of it.
    pub(super) fn words(&self, range: Range<usize>) -> &[AtomicU64] {
        let inside = range.start <= range.end && range.end <= self.fabric.shape().size();
        assert!(inside && range.start.is_multiple_of(8) && range.end.is_multiple_of(8), "whole words of the fabric");
        // SAFETY: inside of the fabric, which is borrowed and aligned to more than 8. All of it is behind atomics and
        // cells, of which nobody uses the smaller ones while this is called.
        unsafe { core::slice::from_raw_parts(self.base.add(range.start).cast::<AtomicU64>(), range.len() / 8) }
    }

    /// A copy of a part of it.
    pub(super) fn bytes(&self, range: Range<usize>) -> Vec<u8> {
        // Relaxed: nobody else uses it.
        self.words(range).iter().flat_map(|word| word.load(Relaxed).to_le_bytes()).collect()
    }
}
