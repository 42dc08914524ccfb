//! Integer arithmetic on slots (PTX ISA 9.7.1, 9.7.7). Values come zero-extended and leave so.

use super::float;
use crate::op::{Binary, Compare, Kind, Quaternary, Ternary, Type, Unary, mask, sign_extend};

pub(crate) fn unary(f: Unary, bits: u8, a: u64) -> u64 {
    let unused = 64 - u32::from(bits);
    let find = |value: u64| if value == 0 { u64::from(u32::MAX) } else { u64::from(63 - value.leading_zeros()) };
    match f {
        Unary::Not => !a & mask(bits),
        Unary::LogicalNot => u64::from(a == 0),
        Unary::Neg => a.wrapping_neg() & mask(bits),
        Unary::Abs => sign_extend(a, bits).unsigned_abs() & mask(bits),
        Unary::Popc => u64::from(a.count_ones()),
        Unary::Clz => u64::from(a.leading_zeros() - unused),
        Unary::Brev => a.reverse_bits() >> unused,
        Unary::FindUnsigned => find(a),
        Unary::FindSigned => find(if sign_extend(a, bits) < 0 { !a & mask(bits) } else { a }),
        _ => float::unary(f, bits, a),
    }
}

/// A sum, or a difference, and the carry out of it. For a difference, a carry is the borrow's opposite.
#[inline(always)]
pub(crate) fn add_with_carry(bits: u8, subtract: bool, a: u64, b: u64, carry: bool) -> (u64, bool) {
    let b = if subtract { !b & mask(bits) } else { b };
    let sum = u128::from(a) + u128::from(b) + u128::from(carry);
    (sum as u64 & mask(bits), sum >> bits != 0)
}

#[inline(always)]
pub(crate) fn binary(f: Binary, bits: u8, a: u64, b: u64) -> u64 {
    let (ones, signed) = (mask(bits), |x| sign_extend(x, bits));
    let product_u = || u128::from(a) * u128::from(b);
    let product_s = || i128::from(signed(a)) * i128::from(signed(b));
    match f {
        Binary::Add => a.wrapping_add(b) & ones,
        Binary::Sub => a.wrapping_sub(b) & ones,
        Binary::AddSat => saturate(i128::from(signed(a)) + i128::from(signed(b)), bits),
        Binary::SubSat => saturate(i128::from(signed(a)) - i128::from(signed(b)), bits),
        Binary::Mul => a.wrapping_mul(b) & ones,
        Binary::MulHighU => (product_u() >> bits) as u64 & ones,
        Binary::MulHighS => (product_s() >> bits) as u64 & ones,
        Binary::MulWideU => a.wrapping_mul(b) & mask(bits.saturating_mul(2).min(64)),
        Binary::MulWideS => signed(a).wrapping_mul(signed(b)) as u64 & mask(bits.saturating_mul(2).min(64)),
        // Division by zero gives a value that the manual leaves open; devices give all ones.
        Binary::DivU => a.checked_div(b).unwrap_or(ones),
        Binary::DivS if b == 0 => ones,
        Binary::DivS => signed(a).wrapping_div(signed(b)) as u64 & ones,
        Binary::RemU => a.checked_rem(b).unwrap_or(a),
        Binary::RemS if b == 0 => a,
        Binary::RemS => signed(a).wrapping_rem(signed(b)) as u64 & ones,
        Binary::And => a & b,
        Binary::Or => a | b,
        Binary::Xor => a ^ b,
        Binary::Shl => {
            if b < u64::from(bits) {
                (a << b) & ones
            } else {
                0
            }
        }
        Binary::ShrU => {
            if b < u64::from(bits) {
                a >> b
            } else {
                0
            }
        }
        Binary::ShrS => (signed(a) >> b.min(63)) as u64 & ones,
        Binary::MinU => a.min(b),
        Binary::MaxU => a.max(b),
        Binary::MinS => signed(a).min(signed(b)) as u64 & ones,
        Binary::MaxS => signed(a).max(signed(b)) as u64 & ones,
        _ => float::binary(f, bits, a, b),
    }
}

fn saturate(value: i128, bits: u8) -> u64 {
    let limit = 1i128 << (bits - 1);
    value.clamp(-limit, limit - 1) as u64 & mask(bits)
}

pub(crate) fn ternary(f: Ternary, bits: u8, a: u64, b: u64, c: u64) -> u64 {
    let (ones, wide) = (mask(bits), mask(bits.saturating_mul(2).min(64)));
    let pair = || (b << 32) | a;
    match f {
        Ternary::Mad => a.wrapping_mul(b).wrapping_add(c) & ones,
        Ternary::MadHighU => binary(Binary::MulHighU, bits, a, b).wrapping_add(c) & ones,
        Ternary::MadHighS => binary(Binary::MulHighS, bits, a, b).wrapping_add(c) & ones,
        Ternary::MadWideU => binary(Binary::MulWideU, bits, a, b).wrapping_add(c) & wide,
        Ternary::MadWideS => binary(Binary::MulWideS, bits, a, b).wrapping_add(c) & wide,
        Ternary::SadU => a.abs_diff(b).wrapping_add(c) & ones,
        Ternary::SadS => sign_extend(a, bits).abs_diff(sign_extend(b, bits)).wrapping_add(c) & ones,
        Ternary::BfeU | Ternary::BfeS => extract(matches!(f, Ternary::BfeS), bits, a, b & 0xff, c & 0xff),
        Ternary::Prmt => permute(a, b, c),
        // A funnel shift moves the pair (b, a), b on top.
        Ternary::FunnelLeftWrap => (pair() << (c & 31)) >> 32,
        Ternary::FunnelLeftClamp => ((u128::from(pair()) << c.min(32)) >> 32) as u64 & ones,
        Ternary::FunnelRightWrap => (pair() >> (c & 31)) & ones,
        Ternary::FunnelRightClamp => (pair() >> c.min(32)) & ones,
        Ternary::Fma => float::fma(bits, a, b, c),
    }
}

/// `bfe`: `len` bits of `a` from `pos` on; signed, everything above repeats the last of them.
fn extract(signed: bool, bits: u8, a: u64, pos: u64, len: u64) -> u64 {
    let msb = u64::from(bits) - 1;
    let bit = |at: u64| (a >> at) & 1;
    let fill = if !signed || len == 0 { 0 } else { bit((pos + len - 1).min(msb)) };
    let field = if pos > msb { 0 } else { a >> pos };
    // Bits that exist: none above the field, none above the operand.
    let have = len.min((msb + 1).saturating_sub(pos));
    let low = if have == 0 { 0 } else { field & mask(have as u8) };
    let above = if have >= 64 { 0 } else { (u64::MAX << have) * fill };
    (low | above) & mask(bits)
}

/// `prmt` in its default mode: four nibbles of `c` pick bytes of (b, a); the top bit of a nibble spreads the sign.
fn permute(a: u64, b: u64, c: u64) -> u64 {
    let bytes = (b << 32) | (a & 0xffff_ffff);
    (0..4).fold(0, |out, i| {
        let nibble = (c >> (4 * i)) & 15;
        let byte = (bytes >> (8 * (nibble & 7))) & 0xff;
        let byte = if nibble & 8 == 0 { byte } else { 0xff * (byte >> 7) };
        out | (byte << (8 * i))
    })
}

pub(crate) fn quaternary(f: Quaternary, bits: u8, [a, b, c, d]: [u64; 4]) -> u64 {
    match f {
        Quaternary::Bfi => {
            let (pos, len) = (c & 0xff, d & 0xff);
            if pos >= u64::from(bits) || len == 0 {
                return b;
            }
            let field = (mask(len.min(64) as u8) << pos) & mask(bits);
            (b & !field) | ((a << pos) & field)
        }
        // Bit i of the table is the result for the inputs a, b, c = the bits of i, a on top.
        Quaternary::Lop3 => (0..8u64).filter(|i| (d >> i) & 1 == 1).fold(0, |out, i| {
            let pick = |x: u64, on: u64| if on == 1 { x } else { !x };
            out | (pick(a, i >> 2 & 1) & pick(b, i >> 1 & 1) & pick(c, i & 1) & mask(bits))
        }),
    }
}

#[inline(always)]
pub(crate) fn compare(f: Compare, ty: Type, a: u64, b: u64) -> bool {
    use core::cmp::Ordering::{Equal, Greater, Less};
    let order = match ty.kind {
        Kind::Float => return float::compare(f, ty.bits, a, b),
        Kind::Signed => sign_extend(a, ty.bits).cmp(&sign_extend(b, ty.bits)),
        _ => a.cmp(&b),
    };
    match f {
        Compare::Eq | Compare::Equ => order == Equal,
        Compare::Ne | Compare::Neu => order != Equal,
        Compare::Lt | Compare::Ltu => order == Less,
        Compare::Le | Compare::Leu => order != Greater,
        Compare::Gt | Compare::Gtu => order == Greater,
        Compare::Ge | Compare::Geu => order != Less,
        Compare::Num => true,
        Compare::Nan => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shifts_clamp_and_funnels_wrap() {
        assert_eq!(binary(Binary::Shl, 32, 1, 32), 0);
        assert_eq!(binary(Binary::ShrS, 32, 0x8000_0000, 99), 0xffff_ffff);
        assert_eq!(ternary(Ternary::FunnelLeftWrap, 32, 0x8000_0000, 1, 33), 3);
        assert_eq!(ternary(Ternary::FunnelRightClamp, 32, 7, 9, 40), 9);
        assert_eq!(ternary(Ternary::Prmt, 32, 0x4433_2211, 0x8877_6655, 0x0123), 0x1122_3344);
        assert_eq!(ternary(Ternary::Prmt, 32, 0x8000_0000, 0, 0xb), 0x0000_00ff);
        assert_eq!(quaternary(Quaternary::Lop3, 32, [0xf0, 0xcc, 0xaa, 0x96]), 0xf0 ^ 0xcc ^ 0xaa);
    }

    proptest! {
        #[test]
        fn integer_arithmetic_agrees_with_the_host(a: u64, b: u64, pos in 0u64..40, len in 0u64..40) {
            let (x, y) = (a as i32, b as i32);
            let (wx, wy) = (u64::from(x as u32), u64::from(y as u32));
            prop_assert_eq!(binary(Binary::MulHighS, 32, wx, wy), ((i64::from(x) * i64::from(y)) >> 32) as u64 & mask(32));
            prop_assert_eq!(binary(Binary::MulWideS, 32, wx, wy), (i64::from(x) * i64::from(y)) as u64);
            prop_assert_eq!(binary(Binary::MulHighU, 64, a, b), ((u128::from(a) * u128::from(b)) >> 64) as u64);
            prop_assert_eq!(binary(Binary::AddSat, 32, wx, wy), u64::from(x.saturating_add(y) as u32));
            prop_assert_eq!(binary(Binary::MinS, 32, wx, wy), u64::from(x.min(y) as u32));
            prop_assert_eq!(unary(Unary::Clz, 32, wx), u64::from((x as u32).leading_zeros()));
            prop_assert_eq!(unary(Unary::Brev, 32, wx), u64::from((x as u32).reverse_bits()));
            prop_assert_eq!(ternary(Ternary::SadS, 32, wx, wy, 1), u64::from(x.abs_diff(y).wrapping_add(1)));
            // A field that lies inside is what two shifts give.
            if len > 0 && pos + len <= 64 {
                prop_assert_eq!(ternary(Ternary::BfeU, 64, a, pos, len), (a >> pos) & mask(len as u8));
                let up = 64 - pos - len;
                prop_assert_eq!(ternary(Ternary::BfeS, 64, a, pos, len), (((a << up) as i64) >> (up + pos)) as u64);
            }
            if pos < 32 {
                let inserted = quaternary(Quaternary::Bfi, 32, [wx, wy, pos, len]);
                let field = (((1u64 << len.min(32)) - 1) << pos) & mask(32);
                prop_assert_eq!(inserted, (wy & !field) | ((wx << pos) & field));
            }
        }
    }
}
