//! Loads, stores and atomics in all state spaces.
//!
//! Generic addresses of shared and local memory lie in windows that no real address falls into: a tag in the top byte,
//! then the number of the block or thread, then the offset. So an address that wanders to another block or thread is
//! recognised, and named as what it is.

use super::slots::set;
use super::thread::Thread;
use super::{Halt, World};
use crate::error::FaultKind;
use crate::memory::{self, Memory, Refusal};
use crate::op::{Access, Order, Rmw, Scope, Slot, Space, mask, sign_extend};
use crate::race::Observed;

/// What uninitialised shared and local memory holds.
pub(crate) const POISON: u8 = 0xa5;

const OFFSET_BITS: u32 = 24;
const SHARED: u64 = 0x71 << 56;
const LOCAL: u64 = 0x72 << 56;
const FUNCTION: u64 = 0x73 << 56;

/// The generic addresses of one block's shared or one thread's local memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window(u64);

impl Window {
    pub(crate) const BYTES: u64 = 1 << OFFSET_BITS;

    pub(crate) const fn shared(block: u32) -> Self {
        Self(SHARED | (block as u64) << OFFSET_BITS)
    }

    pub(crate) const fn local(agent: u32) -> Self {
        Self(LOCAL | (agent as u64) << OFFSET_BITS)
    }

    /// Through which a thread sees its own shared or local memory.
    pub(super) fn of(space: Space, block: u32, agent: u32) -> Self {
        if space == Space::Shared { Self::shared(block) } else { Self::local(agent) }
    }

    pub(crate) const fn start(self) -> u64 {
        self.0
    }
}

pub(super) fn to_generic(window: Window, offset: u64) -> u64 {
    window.0.wrapping_add(offset)
}

pub(super) fn from_generic(window: Window, address: u64) -> Option<u64> {
    (address >> OFFSET_BITS == window.0 >> OFFSET_BITS).then_some(address & (Window::BYTES - 1))
}

/// The address in the window's space of a generic one.
///
/// Compilers convert pointers from elsewhere, null among them, there and back before they look at them. An access
/// through what comes of one is far outside of any memory.
pub(super) fn offset_of(window: Window, address: u64) -> u64 {
    address.wrapping_sub(window.0)
}

/// Whether a generic address lies in a space, of which the thread sees `window`.
pub(super) fn is_in(space: Space, window: Window, address: u64) -> bool {
    match space {
        Space::Shared | Space::Local => from_generic(window, address).is_some(),
        _ => !in_a_window(address),
    }
}

pub(crate) fn in_a_window(address: u64) -> bool {
    matches!(address >> 56, 0x71..=0x73)
}

/// The value of a pointer to a function.
pub(crate) const fn function_pointer(number: u32) -> u64 {
    FUNCTION | number as u64
}

pub(super) fn function_of(pointer: u64) -> Option<u32> {
    (pointer >> 32 == FUNCTION >> 32).then_some(pointer as u32)
}

/// Where an access goes.
#[derive(Clone, Copy)]
enum Target {
    /// Memory of the process, checked.
    Real,
    /// Offset in the block's shared memory, not yet checked.
    Shared(u64),
    /// Offset in the thread's local memory.
    Local(u64),
    /// Offset in the thread's parameters.
    Param(u64),
}

fn resolve(
    thread: &Thread,
    memory: &mut Memory,
    access: &Access,
    address: u64,
    write: bool,
) -> Result<Target, FaultKind> {
    match access.space {
        Space::Param => return Ok(Target::Param(address)),
        Space::Shared => return Ok(Target::Shared(address)),
        Space::Local => return Ok(Target::Local(address)),
        Space::Generic if in_a_window(address) => {
            return if let Some(offset) = from_generic(Window::shared(thread.block), address) {
                Ok(Target::Shared(offset))
            } else if let Some(offset) = from_generic(Window::local(thread.agent), address) {
                Ok(Target::Local(offset))
            } else {
                Err(FaultKind::Foreign { address })
            };
        }
        _ => {}
    }
    match memory.check(address, access.bytes, write) {
        Ok(()) => Ok(Target::Real),
        Err(Refusal::Misaligned) => Err(FaultKind::Misaligned { address, bytes: access.bytes }),
        Err(Refusal::ReadOnly) => Err(FaultKind::ReadOnly { address }),
        Err(Refusal::Outside) if in_a_window(address) => Err(FaultKind::Foreign { address }),
        Err(Refusal::Outside) => {
            Err(FaultKind::OutOfBounds { address, bytes: access.bytes, near: memory.describe(address) })
        }
    }
}

/// The bytes of an access in memory that only this machine sees.
fn bytes<'b>(from: &'b mut [u8], offset: u64, bytes: u8, what: &str) -> Result<&'b mut [u8], FaultKind> {
    if offset & (u64::from(bytes) - 1) != 0 && what != "parameters" {
        return Err(FaultKind::Misaligned { address: offset, bytes });
    }
    let len = from.len();
    let end = offset.saturating_add(u64::from(bytes));
    if end > len as u64 {
        let near = format!("{what} memory has {len} bytes");
        return Err(FaultKind::OutOfBounds { address: offset, bytes, near });
    }
    Ok(&mut from[offset as usize..end as usize])
}

fn read(bytes: &[u8]) -> u64 {
    match *bytes {
        [a] => u64::from(a),
        [a, b] => u64::from(u16::from_le_bytes([a, b])),
        [a, b, c, d] => u64::from(u32::from_le_bytes([a, b, c, d])),
        _ => bytes.try_into().map_or(0, u64::from_le_bytes),
    }
}

/// The block's or thread's own bytes behind a target that is not real memory.
fn own<'b>(
    thread: &'b mut Thread,
    world: &'b mut World<'_>,
    target: Target,
    width: u8,
) -> Result<&'b mut [u8], FaultKind> {
    match target {
        Target::Shared(offset) => bytes(&mut world.blocks[thread.block as usize].shared, offset, width, "shared"),
        Target::Local(offset) => bytes(&mut thread.local, offset, width, "local"),
        Target::Param(offset) => bytes(&mut thread.params[thread.param_base..], offset, width, "parameters"),
        Target::Real => Err(FaultKind::BadCall),
    }
}

/// Reads and, with `write`, replaces a value; tells the detector. Returns what was found.
#[inline(always)]
fn access(
    thread: &mut Thread,
    world: &mut World<'_>,
    access: &Access,
    address: u64,
    write: Option<&dyn Fn(u64) -> Option<u64>>,
    reads: bool,
) -> Result<(u64, bool), Halt> {
    let target = resolve(thread, world.memory, access, address, write.is_some())?;
    let width = access.bytes;
    let found = match (target, write) {
        (Target::Real, None) => memory::load(address, width, access.order),
        (Target::Real, Some(write)) if !reads => {
            let value = write(0).unwrap_or(0) & mask(width * 8);
            // The detector comes first: what it refuses must not become visible to host threads.
            observe(thread, world, access, address, None, Some(value))?;
            memory::store(address, width, value, access.order);
            return Ok((0, true));
        }
        (Target::Real, Some(write)) => memory::modify(address, width, write),
        (_, write) => {
            let place = own(thread, world, target, width)?;
            let found = read(place);
            if let Some(new) = write.and_then(|write| write(found)) {
                place.copy_from_slice(&new.to_le_bytes()[..usize::from(width)]);
            }
            found
        }
    };
    let address = match target {
        Target::Real => address,
        Target::Shared(offset) => Window::shared(thread.block).start() + offset,
        Target::Local(_) | Target::Param(_) => return Ok((found, false)),
    };
    if world.detector.is_some() {
        let left = write.and_then(|write| write(found)).map(|value| value & mask(width * 8));
        observe(thread, world, access, address, reads.then_some(found), left)?;
    }
    Ok((found, true))
}

#[inline(always)]
fn observe(
    thread: &Thread,
    world: &mut World<'_>,
    access: &Access,
    address: u64,
    found: Option<u64>,
    left: Option<u64>,
) -> Result<(), Halt> {
    let Some(detector) = &mut world.detector else { return Ok(()) };
    let line = world.functions[thread.function as usize].code[thread.pc as usize - 1].line;
    let observed = Observed {
        agent: thread.agent,
        address,
        bytes: access.bytes,
        order: access.order,
        scope: access.scope,
        function: thread.function,
        line,
        found,
        left,
    };
    detector.access(observed).map_err(Halt::Race)
}

fn address(thread: &Thread, space: Space, base: Slot, offset: i32) -> u64 {
    let base = if space == Space::Param { 0 } else { thread.slots[thread.slot_base + base as usize] };
    base.wrapping_add(offset as i64 as u64)
}

/// Notes a strong read, to recognise polling.
#[inline(always)]
fn note_poll(thread: &mut Thread, order: Order, address: u64, value: u64) {
    thread.polls = false;
    if order != Order::Weak {
        let now = (thread.pc, address, value);
        thread.polls = thread.polled == now;
        thread.polled = now;
    }
}

/// Address of a load or store. A vector is aligned as a whole (PTX ISA 5.4.2, 9.7.9.8).
fn vector_start(thread: &Thread, how: &Access, base: Slot, offset: i32) -> Result<u64, FaultKind> {
    let start = address(thread, how.space, base, offset);
    let bytes = how.bytes * how.lanes;
    let aligned = how.space == Space::Param || start & (u64::from(bytes) - 1) == 0;
    if aligned { Ok(start) } else { Err(FaultKind::Misaligned { address: start, bytes }) }
}

/// Returns whether others see the memory.
pub(super) fn load(
    thread: &mut Thread,
    world: &mut World<'_>,
    how: Access,
    dst: Slot,
    base: Slot,
    offset: i32,
) -> Result<bool, Halt> {
    let start = vector_start(thread, &how, base, offset)?;
    let mut visible = false;
    for lane in 0..how.lanes {
        let at = start.wrapping_add(u64::from(lane * how.bytes));
        let (found, seen) = access(thread, world, &how, at, None, true)?;
        visible = seen;
        let bits = how.bytes * 8;
        let value =
            if how.signed && how.wide > bits { sign_extend(found, bits) as u64 & mask(how.wide) } else { found };
        let dst = match how.lanes {
            1 => dst,
            _ => world.functions[thread.function as usize].lists[dst as usize + usize::from(lane)],
        };
        set(&mut thread.slots[thread.slot_base..], dst, value);
        note_poll(thread, how.order, at, found);
    }
    Ok(visible)
}

/// Returns whether others see the memory.
pub(super) fn store(
    thread: &mut Thread,
    world: &mut World<'_>,
    how: Access,
    src: Slot,
    base: Slot,
    offset: i32,
) -> Result<bool, Halt> {
    let start = vector_start(thread, &how, base, offset)?;
    let mut visible = false;
    for lane in 0..how.lanes {
        let at = start.wrapping_add(u64::from(lane * how.bytes));
        let src = match how.lanes {
            1 => src,
            _ => world.functions[thread.function as usize].lists[src as usize + usize::from(lane)],
        };
        let value = thread.slots[thread.slot_base + src as usize];
        visible = access(thread, world, &how, at, Some(&|_| Some(value)), false)?.1;
    }
    thread.polls = false;
    Ok(visible)
}

#[expect(clippy::too_many_arguments, reason = "the fields of one instruction")]
pub(super) fn atomic(
    thread: &mut Thread,
    world: &mut World<'_>,
    f: Rmw,
    how: Access,
    dst: Slot,
    base: Slot,
    offset: i32,
    operands: u32,
) -> Result<(), Halt> {
    let at = address(thread, how.space, base, offset);
    let lists = &world.functions[thread.function as usize].lists[operands as usize..];
    let [b, c] = [lists[0], lists[1]].map(|slot| thread.slots[thread.slot_base + slot as usize]);
    let bits = how.bytes * 8;
    let write = |old: u64| modified(f, bits, old, b, c);
    let (found, _) = access(thread, world, &how, at, Some(&write), true)?;
    set(&mut thread.slots[thread.slot_base..], dst, found);
    // A compare-exchange that fails again and again waits for someone.
    let failed = matches!(f, Rmw::CompareExchange) && found != b;
    note_poll(thread, if failed { how.order } else { Order::Weak }, at, found);
    Ok(())
}

/// What a read-modify-write leaves; `None` if a comparison failed.
fn modified(f: Rmw, bits: u8, old: u64, b: u64, c: u64) -> Option<u64> {
    use crate::exec::alu::binary;
    use crate::op::Binary;
    let two = |f| binary(f, bits, old, b);
    Some(match f {
        Rmw::Add => two(Binary::Add),
        Rmw::FloatAdd => two(Binary::FloatAdd),
        Rmw::Exchange => b,
        Rmw::CompareExchange => return (old == b).then_some(c),
        Rmw::MinU => two(Binary::MinU),
        Rmw::MinS => two(Binary::MinS),
        Rmw::MaxU => two(Binary::MaxU),
        Rmw::MaxS => two(Binary::MaxS),
        Rmw::And => old & b,
        Rmw::Or => old | b,
        Rmw::Xor => old ^ b,
        // inc and dec wrap at the operand (PTX ISA 9.7.13.5).
        Rmw::Inc => {
            if old >= b {
                0
            } else {
                old + 1
            }
        }
        Rmw::Dec => {
            if old == 0 || old > b {
                b
            } else {
                old - 1
            }
        }
    })
}

/// A fence: the detector's, and for host threads that look on, a real one.
pub(super) fn fence(thread: &Thread, world: &mut World<'_>, order: Order, scope: Scope) {
    if let Some(detector) = &mut world.detector {
        detector.fence(thread.agent, order, scope);
    }
    memory::fence(order);
}
