//! The host's side in the race detector: memory operations at system scope, seen as another thread's.

use super::Machine;
use crate::error::{Error, Fault, FaultKind, Place, Who};
use crate::memory::{self, Refusal};
use crate::op::{Order, Scope, mask};
use crate::race::{HOST, Observed};

impl Machine {
    fn host_check(&mut self, address: u64, bytes: u8, write: bool) -> Result<(), Error> {
        let kind = match self.memory.check(address, bytes, write) {
            Ok(()) => return Ok(()),
            Err(Refusal::Misaligned) => FaultKind::Misaligned { address, bytes },
            Err(Refusal::ReadOnly) => FaultKind::ReadOnly { address },
            Err(Refusal::Outside) => FaultKind::OutOfBounds { address, bytes, near: self.memory.describe(address) },
        };
        let place = Place { who: Who::Host, line: 0, text: String::new() };
        Err(Error::Fault(Box::new(Fault { kind, place })))
    }

    fn host_observe(
        &mut self,
        address: u64,
        bytes: u8,
        order: Order,
        found: Option<u64>,
        left: Option<u64>,
    ) -> Result<(), Error> {
        let Some(detector) = &mut self.detector else { return Ok(()) };
        let (function, line, scope) = (u32::MAX, 0, Scope::Sys);
        let op = Observed { agent: HOST, address, bytes, order, scope, function, line, found, left };
        detector.access(op).map_err(|found| self.race(&found))
    }

    /// Loads 1, 2, 4 or 8 bytes.
    ///
    /// # Errors
    /// [`Error::Fault`] outside of registered memory, [`Error::Race`] with a device thread.
    pub fn host_load(&mut self, address: u64, bytes: u8, order: Order) -> Result<u64, Error> {
        self.host_check(address, bytes, false)?;
        let value = memory::load(address, bytes, order);
        self.host_observe(address, bytes, order, Some(value), None)?;
        Ok(value)
    }

    /// Stores 1, 2, 4 or 8 bytes.
    ///
    /// # Errors
    /// As for [`host_load`](Self::host_load).
    pub fn host_store(&mut self, address: u64, bytes: u8, value: u64, order: Order) -> Result<(), Error> {
        self.host_check(address, bytes, true)?;
        let value = value & mask(bytes * 8);
        self.host_observe(address, bytes, order, None, Some(value))?;
        memory::store(address, bytes, value, order);
        Ok(())
    }

    /// Loads a 64-bit word with acquire.
    ///
    /// # Errors
    /// As for [`host_load`](Self::host_load).
    pub fn host_load_acquire(&mut self, address: u64) -> Result<u64, Error> {
        self.host_load(address, 8, Order::Acquire)
    }

    /// Stores a 64-bit word with release.
    ///
    /// # Errors
    /// As for [`host_load`](Self::host_load).
    pub fn host_store_release(&mut self, address: u64, value: u64) -> Result<(), Error> {
        self.host_store(address, 8, value, Order::Release)
    }

    /// Reads bytes plainly.
    ///
    /// # Errors
    /// As for [`host_load`](Self::host_load).
    pub fn host_read(&mut self, address: u64, to: &mut [u8]) -> Result<(), Error> {
        for (at, bytes) in pieces(address, to.len()) {
            let value = self.host_load(address + at as u64, bytes, Order::Weak)?;
            let bytes = usize::from(bytes);
            to[at..at + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
        }
        Ok(())
    }

    /// Writes bytes plainly.
    ///
    /// # Errors
    /// As for [`host_load`](Self::host_load).
    pub fn host_write(&mut self, address: u64, from: &[u8]) -> Result<(), Error> {
        for (at, bytes) in pieces(address, from.len()) {
            let mut value = [0; 8];
            value[..usize::from(bytes)].copy_from_slice(&from[at..at + usize::from(bytes)]);
            self.host_store(address + at as u64, bytes, u64::from_le_bytes(value), Order::Weak)?;
        }
        Ok(())
    }
}

/// Cuts a range into aligned accesses: offset and width.
fn pieces(address: u64, len: usize) -> impl Iterator<Item = (usize, u8)> {
    let mut at = 0;
    core::iter::from_fn(move || {
        let left = len - at;
        let aligned = (address + at as u64).trailing_zeros().min(3);
        let widest = left.checked_ilog2()?.min(aligned);
        let piece = (at, 1 << widest);
        at += 1 << widest;
        Some(piece)
    })
}
