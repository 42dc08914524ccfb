//! Memory of this process that device code may touch, and the atomic accesses to it.
//!
//! An address in global space is a real one. Each access is checked against the registered regions, then done with one
//! atomic instruction, also where the device code asks for a plain one: a host thread or another process may be at the
//! same bytes.

#![allow(clippy::disallowed_types, reason = "interpreter of another machine's atomics")]
#![allow(clippy::useless_conversion, reason = "one text for words of four widths, one of which is u64")]

use crate::op::Order;
use core::alloc::Layout;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::alloc::{alloc_zeroed, dealloc, handle_alloc_error};

/// A range of this process's memory that device code may access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// First address.
    pub address: u64,
    /// Length in bytes.
    pub bytes: u64,
    /// Whether device code may write.
    pub writable: bool,
    /// What messages call it.
    pub name: String,
}

/// Why an access was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Outside,
    Misaligned,
    ReadOnly,
}

/// Memory that the machine owns.
#[derive(Debug)]
struct Owned {
    address: usize,
    layout: Layout,
}

/// The regions, sorted by address.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    regions: Vec<Region>,
    last: usize,
    owned: Vec<Owned>,
}

impl Drop for Memory {
    fn drop(&mut self) {
        for Owned { address, layout } in self.owned.drain(..) {
            // SAFETY: `allocate` got it with this layout.
            unsafe { dealloc(core::ptr::with_exposed_provenance_mut(address), layout) };
        }
    }
}

impl Memory {
    /// Adds a region; `false` if it overlaps another.
    pub(crate) fn register(&mut self, region: Region) -> bool {
        let at = self.regions.partition_point(|r| r.address < region.address);
        let end = region.address.saturating_add(region.bytes);
        let free = self.regions.get(at).is_none_or(|next| end <= next.address)
            && at.checked_sub(1).is_none_or(|before| {
                let before = &self.regions[before];
                before.address + before.bytes <= region.address
            });
        if free {
            self.regions.insert(at, region);
        }
        free
    }

    /// Removes the region that begins at `address`.
    pub(crate) fn unregister(&mut self, address: u64) -> Option<Region> {
        let at = self.regions.iter().position(|r| r.address == address)?;
        self.last = 0;
        Some(self.regions.remove(at))
    }

    pub(crate) fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// Zeroed memory of the machine's own.
    pub(crate) fn allocate(&mut self, bytes: usize, align: usize, writable: bool, name: &str) -> u64 {
        let layout = Layout::from_size_align(bytes.max(1), align.next_power_of_two().max(8)).expect("a size that fits");
        // SAFETY: the size is not zero.
        let pointer = unsafe { alloc_zeroed(layout) };
        if pointer.is_null() {
            handle_alloc_error(layout);
        }
        let address = pointer.expose_provenance();
        self.owned.push(Owned { address, layout });
        let region = Region { address: address as u64, bytes: bytes as u64, writable, name: name.to_owned() };
        let added = bytes == 0 || self.register(region);
        debug_assert!(added, "the allocator gave memory out twice");
        address as u64
    }

    /// Gives memory of the machine's own back.
    pub(crate) fn release(&mut self, address: u64) {
        self.unregister(address);
        if let Some(at) = self.owned.iter().position(|o| o.address as u64 == address) {
            let Owned { address, layout } = self.owned.swap_remove(at);
            // SAFETY: as in `drop`.
            unsafe { dealloc(core::ptr::with_exposed_provenance_mut(address), layout) };
        }
    }

    /// Checks bounds, alignment and permission.
    #[inline(always)]
    pub(crate) fn check(&mut self, address: u64, bytes: u8, write: bool) -> Result<(), Refusal> {
        if address & (u64::from(bytes) - 1) != 0 {
            return Err(Refusal::Misaligned);
        }
        let inside =
            |r: &Region| address >= r.address && u64::from(bytes) <= (r.address + r.bytes).saturating_sub(address);
        if !self.regions.get(self.last).is_some_and(inside) {
            let at = self.regions.partition_point(|r| r.address <= address).wrapping_sub(1);
            if !self.regions.get(at).is_some_and(inside) {
                return Err(Refusal::Outside);
            }
            self.last = at;
        }
        if write && !self.regions[self.last].writable { Err(Refusal::ReadOnly) } else { Ok(()) }
    }

    /// The region that an address lies in or is closest to, in words.
    pub(crate) fn describe(&self, address: u64) -> String {
        let distance = |r: &Region| match address {
            a if a < r.address => r.address - a,
            a => a.saturating_sub(r.address + r.bytes - 1),
        };
        match self.regions.iter().min_by_key(|r| distance(r)) {
            None => "no memory is registered".to_owned(),
            Some(r) if address < r.address => format!("{} bytes before {:?}", r.address - address, r.name),
            Some(r) => format!("offset {} of {:?}, which has {} bytes", address - r.address, r.name, r.bytes),
        }
    }
}

macro_rules! by_width {
    ($address:expr, $bytes:expr, |$word:ident: $ty:ident| $body:expr) => {{
        let pointer = core::ptr::with_exposed_provenance_mut::<u8>($address as usize);
        // SAFETY: the caller has checked the address against a region, for whose bytes `Machine::register` has the word
        // of its caller: valid, and accessed by others atomically or not at once. Widths are powers of two, and the
        // alignment has been checked.
        unsafe {
            match $bytes {
                1 => {
                    type $ty = u8;
                    let $word = AtomicU8::from_ptr(pointer);
                    $body
                }
                2 => {
                    type $ty = u16;
                    let $word = AtomicU16::from_ptr(pointer.cast());
                    $body
                }
                4 => {
                    type $ty = u32;
                    let $word = AtomicU32::from_ptr(pointer.cast());
                    $body
                }
                _ => {
                    type $ty = u64;
                    let $word = AtomicU64::from_ptr(pointer.cast());
                    $body
                }
            }
        }
    }};
}

/// Loads from an address that has been [checked](Memory::check).
#[inline(always)]
pub(crate) fn load(address: u64, bytes: u8, order: Order) -> u64 {
    // Relaxed: no more was asked for. Acquire: asked for.
    let order = if order.acquires() { Ordering::Acquire } else { Ordering::Relaxed };
    by_width!(address, bytes, |word: Word| u64::from(word.load(order) as Word))
}

/// Stores to an address that has been [checked](Memory::check) for writing.
#[inline(always)]
pub(crate) fn store(address: u64, bytes: u8, value: u64, order: Order) {
    // As in `load`.
    let order = if order.releases() { Ordering::Release } else { Ordering::Relaxed };
    by_width!(address, bytes, |word: Word| word.store(value as Word, order));
}

/// Replaces the value at a [checked](Memory::check) address with what `f` makes of it, at once; `None` leaves it.
/// Returns the value found.
pub(crate) fn modify(address: u64, bytes: u8, f: impl Fn(u64) -> Option<u64>) -> u64 {
    by_width!(address, bytes, |word: Word| {
        // AcqRel: as strong as any read-modify-write can ask for.
        let result =
            word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |old| f(u64::from(old)).map(|new| new as Word));
        u64::from(result.unwrap_or_else(|old| old))
    })
}

/// A fence of the device, for the host threads that look on.
pub(crate) fn fence(order: Order) {
    core::sync::atomic::fence(match order {
        // SeqCst: the device asked for `fence.sc`.
        Order::Sc => Ordering::SeqCst,
        // AcqRel: the device's weakest fence.
        _ => Ordering::AcqRel,
    });
}
