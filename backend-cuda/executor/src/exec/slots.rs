//! Instructions that read and write the slots of a frame, and nothing else.

use super::alu;
use crate::op::{Bool, Compare, Slot, Type, mask};

#[inline(always)]
pub(super) fn set(slots: &mut [u64], dst: Slot, value: u64) {
    // `_` is beyond all slots.
    if let Some(slot) = slots.get_mut(dst as usize) {
        *slot = value;
    }
}

/// Writes the result to the first and its opposite to the second.
#[inline(always)]
pub(super) fn compare(slots: &mut [u64], [dst, other]: [Slot; 2], f: Compare, ty: Type, [a, b]: [Slot; 2]) {
    let result = alu::compare(f, ty, slots[a as usize], slots[b as usize]);
    set(slots, dst, u64::from(result));
    set(slots, other, u64::from(!result));
}

/// Combines each of two predicates with `p`.
#[inline(always)]
pub(super) fn combine(slots: &mut [u64], to: [Slot; 2], f: Bool, p: u64) {
    for slot in to {
        if let Some(value) = slots.get_mut(slot as usize) {
            match f {
                Bool::And => *value &= p,
                Bool::Or => *value |= p,
                Bool::Xor => *value ^= p,
            }
        }
    }
}

/// Puts parts of `bits` bits together, the first of them lowest.
#[inline(always)]
pub(super) fn pack(slots: &mut [u64], dst: Slot, bits: u8, parts: &[Slot]) {
    let join = |out, slot: &Slot| (out << bits) | (slots[*slot as usize] & mask(bits));
    let value = parts.iter().rev().fold(0, join);
    set(slots, dst, value);
}

/// Takes a value apart, as [`pack`] puts it together.
#[inline(always)]
pub(super) fn unpack(slots: &mut [u64], mut value: u64, bits: u8, parts: &[Slot]) {
    for slot in parts {
        set(slots, *slot, value & mask(bits));
        value = value.checked_shr(u32::from(bits)).unwrap_or(0);
    }
}
