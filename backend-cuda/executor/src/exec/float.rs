//! Floating point (PTX ISA 9.7.3, 9.7.9.21). IEEE 754 with rounding to nearest even, which is the host's own.
//!
//! A single-precision result that is not a number is the canonical one, 0x7fffffff. Approximate functions are as exact
//! as the host computes them, so they may differ from a device in the last bits.

use crate::op::{Binary, Compare, Convert, Kind, Round, Unary, mask, sign_extend};

const CANONICAL_NAN: u64 = 0x7fff_ffff;

fn single(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

fn double(bits: u64) -> f64 {
    f64::from_bits(bits)
}

fn from_single(value: f32) -> u64 {
    if value.is_nan() { CANONICAL_NAN } else { u64::from(value.to_bits()) }
}

pub(super) fn unary(f: Unary, bits: u8, a: u64) -> u64 {
    let sign = 1u64 << (bits - 1);
    match f {
        Unary::FloatNeg => return a ^ sign,
        Unary::FloatAbs => return a & !sign,
        _ => {}
    }
    macro_rules! compute {
        ($x:expr) => {
            match f {
                Unary::Sqrt => $x.sqrt(),
                Unary::Reciprocal => 1.0 / $x,
                Unary::ReciprocalSqrt => 1.0 / $x.sqrt(),
                Unary::Exp2 => $x.exp2(),
                Unary::Log2 => $x.log2(),
                Unary::Sin => $x.sin(),
                Unary::Cos => $x.cos(),
                Unary::Tanh => $x.tanh(),
                _ => $x,
            }
        };
    }
    if bits == 32 { from_single(compute!(single(a))) } else { compute!(double(a)).to_bits() }
}

pub(super) fn binary(f: Binary, bits: u8, a: u64, b: u64) -> u64 {
    let sign = 1u64 << (bits - 1);
    if matches!(f, Binary::CopySign) {
        // copysign d, a, b: the sign of a, the rest of b.
        return (a & sign) | (b & !sign & mask(bits));
    }
    macro_rules! compute {
        ($x:expr, $y:expr) => {{
            let (x, y) = ($x, $y);
            // The zeroes are ordered: -0 below +0.
            let less = x < y || (x == y && x.is_sign_negative());
            match f {
                Binary::FloatAdd => x + y,
                Binary::FloatSub => x - y,
                Binary::FloatMul => x * y,
                Binary::FloatDiv => x / y,
                Binary::FloatMinNan | Binary::FloatMaxNan if x.is_nan() || y.is_nan() => x + y,
                _ if x.is_nan() => y,
                _ if y.is_nan() => x,
                Binary::FloatMin | Binary::FloatMinNan => {
                    if less {
                        x
                    } else {
                        y
                    }
                }
                _ => {
                    if less {
                        y
                    } else {
                        x
                    }
                }
            }
        }};
    }
    if bits == 32 { from_single(compute!(single(a), single(b))) } else { compute!(double(a), double(b)).to_bits() }
}

pub(super) fn fma(bits: u8, a: u64, b: u64, c: u64) -> u64 {
    if bits == 32 {
        from_single(single(a).mul_add(single(b), single(c)))
    } else {
        double(a).mul_add(double(b), double(c)).to_bits()
    }
}

pub(super) fn compare(f: Compare, bits: u8, a: u64, b: u64) -> bool {
    let (a, b) = if bits == 32 { (f64::from(single(a)), f64::from(single(b))) } else { (double(a), double(b)) };
    let unordered = a.is_nan() || b.is_nan();
    match f {
        Compare::Eq => a == b,
        Compare::Ne => !unordered && a != b,
        Compare::Lt => a < b,
        Compare::Le => a <= b,
        Compare::Gt => a > b,
        Compare::Ge => a >= b,
        Compare::Equ => unordered || a == b,
        Compare::Neu => a != b,
        Compare::Ltu => unordered || a < b,
        Compare::Leu => unordered || a <= b,
        Compare::Gtu => unordered || a > b,
        Compare::Geu => unordered || a >= b,
        Compare::Num => !unordered,
        Compare::Nan => unordered,
    }
}

pub(crate) fn convert(how: Convert, a: u64) -> u64 {
    let Convert { to, from, .. } = how;
    let a = a & mask(from.bits);
    match (from.kind, to.kind) {
        (Kind::Float, Kind::Float) => float_to_float(how, a),
        (Kind::Float, _) => float_to_integer(how, a),
        (_, Kind::Float) => {
            macro_rules! exact {
                ($float:ty) => {
                    if from.kind == Kind::Signed { sign_extend(a, from.bits) as $float } else { a as $float }
                };
            }
            match (to.bits, how.saturate) {
                (32, false) => from_single(exact!(f32)),
                (32, true) => from_single(exact!(f32).clamp(0.0, 1.0)),
                (_, false) => exact!(f64).to_bits(),
                (_, true) => exact!(f64).clamp(0.0, 1.0).to_bits(),
            }
        }
        _ => {
            let value = if from.kind == Kind::Signed { i128::from(sign_extend(a, from.bits)) } else { i128::from(a) };
            extend(if how.saturate { clamp(value, to.kind, to.bits) } else { value as u64 }, how)
        }
    }
}

/// Cuts an integer to its type and extends it to its register.
fn extend(value: u64, how: Convert) -> u64 {
    let Convert { to, wide, .. } = how;
    let value = value & mask(to.bits);
    if to.kind == Kind::Signed && wide > to.bits { sign_extend(value, to.bits) as u64 & mask(wide) } else { value }
}

fn clamp(value: i128, kind: Kind, bits: u8) -> u64 {
    let (low, high) = match kind {
        Kind::Signed => (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1),
        _ => (0, i128::from(mask(bits))),
    };
    value.clamp(low, high) as u64
}

fn integral(round: Round, value: f64) -> f64 {
    match round {
        Round::Nearest => value.round_ties_even(),
        Round::Zero => value.trunc(),
        Round::Down => value.floor(),
        Round::Up => value.ceil(),
    }
}

fn float_to_integer(how: Convert, a: u64) -> u64 {
    let value = if how.from.bits == 32 { f64::from(single(a)) } else { double(a) };
    // Out of range is the nearest that is in range. What is not a number is zero between types of at most 32 bits, and
    // the top bit alone otherwise (PTX ISA 9.7.9.21).
    if value.is_nan() {
        let narrow = how.from.bits == 32 && how.to.bits <= 32;
        return extend(if narrow { 0 } else { 1u64 << (how.to.bits - 1) }, how);
    }
    // Doubles beyond 2^127 saturate in the cast, then in the clamp.
    extend(clamp(integral(how.round, value) as i128, how.to.kind, how.to.bits), how)
}

fn float_to_float(how: Convert, a: u64) -> u64 {
    let value = if how.from.bits == 32 { f64::from(single(a)) } else { double(a) };
    let value = if how.integral { integral(how.round, value) } else { value };
    let value = if how.saturate { if value.is_nan() { 0.0 } else { value.clamp(0.0, 1.0) } } else { value };
    if how.to.bits == 32 { from_single(value as f32) } else { value.to_bits() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minimum_prefers_numbers_and_orders_zeroes() {
        let bits = |x: f32| u64::from(x.to_bits());
        assert_eq!(binary(Binary::FloatMin, 32, bits(f32::NAN), bits(3.0)), bits(3.0));
        assert_eq!(binary(Binary::FloatMin, 32, bits(0.0), bits(-0.0)), bits(-0.0));
        assert_eq!(binary(Binary::FloatMax, 32, bits(-0.0), bits(0.0)), bits(0.0));
        assert_eq!(binary(Binary::FloatMaxNan, 32, bits(f32::NAN), bits(0.0)), CANONICAL_NAN);
    }
}
