//! A place in host memory for a copy of a GPU's fabric. Only what is copied into it is ever committed.

use crate::error::Error;
use core::ops::Range;
use core::ptr::NonNull;
use k2k_core::sync::Ordering::Relaxed;
use k2k_core::sync::{AtomicU64, Gpu};
use k2k_core::{Config, Fabric};
use k2k_host::{Fixed, Memory, MemoryError};

pub(super) struct Image<const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize> {
    /// Owns the bytes.
    memory: Memory<Fixed<KERNELS, SLOTS, PAYLOAD>>,
    fabric: NonNull<Fabric<KERNELS, SLOTS, PAYLOAD, Gpu>>,
}

// SAFETY: a pointer into memory that is owned, used as `&Fabric`, which is `Sync`.
unsafe impl<const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize> Send for Image<KERNELS, SLOTS, PAYLOAD> where
    Fabric<KERNELS, SLOTS, PAYLOAD, Gpu>: Sync
{
}
// SAFETY: as above.
unsafe impl<const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize> Sync for Image<KERNELS, SLOTS, PAYLOAD> where
    Fabric<KERNELS, SLOTS, PAYLOAD, Gpu>: Sync
{
}

impl<const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize> Clone for Image<KERNELS, SLOTS, PAYLOAD> {
    fn clone(&self) -> Self {
        Self { memory: self.memory.clone(), fabric: self.fabric }
    }
}

impl<const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize> Image<KERNELS, SLOTS, PAYLOAD> {
    /// An idle fabric.
    pub(super) fn new(config: &Config) -> Result<Self, Error> {
        let memory = Memory::heap(config)?;
        let base = core::ptr::from_ref(memory.fabric().storage()).cast_mut().cast::<u8>();
        // SAFETY: the bytes of `memory`, which is kept beside it and reached as a fabric alone. Scopes differ in no
        // byte.
        let fabric = unsafe { Fabric::attach_raw(base, Memory::<Fixed<KERNELS, SLOTS, PAYLOAD>>::SIZE, config) };
        let fabric = NonNull::from(fabric.map_err(|why| MemoryError::Attach { path: None, why })?);
        Ok(Self { memory, fabric })
    }

    pub(super) fn fabric(&self) -> &Fabric<KERNELS, SLOTS, PAYLOAD, Gpu> {
        // SAFETY: into `memory`, which lives as long as `self`.
        unsafe { self.fabric.as_ref() }
    }

    /// The words of a part of it.
    pub(super) fn words(&self, range: Range<usize>) -> &[AtomicU64] {
        let inside = range.start <= range.end && range.end <= Memory::<Fixed<KERNELS, SLOTS, PAYLOAD>>::SIZE;
        assert!(inside && range.start.is_multiple_of(8) && range.end.is_multiple_of(8), "whole words of the fabric");
        // SAFETY: inside of the fabric, which is borrowed and aligned to more than 8. All of it is behind atomics and
        // cells, of which nobody uses the smaller ones while this is called.
        unsafe {
            core::slice::from_raw_parts(self.fabric.as_ptr().cast::<AtomicU64>().byte_add(range.start), range.len() / 8)
        }
    }

    /// A copy of a part of it.
    pub(super) fn bytes(&self, range: Range<usize>) -> Vec<u8> {
        // Relaxed: nobody else uses it.
        self.words(range).iter().flat_map(|word| word.load(Relaxed).to_le_bytes()).collect()
    }
}
