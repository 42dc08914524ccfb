//! Arithmetic, comparisons, conversions and moves (PTX ISA 9.7.1 to 9.7.9).
//!
//! Of the rounding modes, arithmetic knows round-to-nearest-even, which is what Rust and C ask for; `.ftz` is refused.
//! The approximate functions (`div.full`, `ex2.approx`, `sin.approx`, ...) are computed as exactly as the host can.

use super::mnemonic::Mnemonic;
use super::scope::{Body, Reason};
use crate::op::{
    Binary, Bool, Compare, Convert, Kind, NO_SLOT, Op, Quaternary, Round, Slot, Ternary, Type, Unary, mask,
};
use crate::parse::ast::Operand;

pub(super) fn decode<'a>(
    body: &mut Body<'a, '_>,
    mnemonic: &mut Mnemonic<'_>,
    operands: &[Operand<'a>],
) -> Result<bool, Reason> {
    match (mnemonic.name, operands) {
        ("mov", [dst, src]) => return move_(body, mnemonic, dst, src).map(|()| true),
        ("setp", [dst, a, b, rest @ ..]) if rest.len() < 2 => return setp(body, mnemonic, dst, a, b, rest),
        ("set", [dst, a, b]) => return set(body, mnemonic, dst, a, b),
        ("cvt", [dst, src]) => return convert(body, mnemonic, dst, src),
        ("add" | "sub" | "addc" | "subc", [dst, a, b]) => {
            let (with_cc, reads) = (mnemonic.take("cc"), mnemonic.name.ends_with('c'));
            if with_cc || reads {
                let bits = mnemonic.ty()?.bits;
                let subtract = mnemonic.name.starts_with("sub");
                let (dst, a, b) = (body.target(dst)?.0, body.value(a, bits)?, body.value(b, bits)?);
                body.emit(Op::Carry { bits, subtract, reads, writes: with_cc, dst, a, b });
                return Ok(true);
            }
        }
        _ => {}
    }
    match operands {
        [dst, a] => unary(body, mnemonic, dst, a),
        [dst, a, b] => binary(body, mnemonic, dst, a, b),
        [dst, a, b, c] => ternary(body, mnemonic, dst, [a, b, c]),
        [dst, a, b, c, d] => quaternary(body, mnemonic, dst, [a, b, c, d]),
        _ => Ok(false),
    }
}

/// Result and type of an instruction with one type; floats take `.rn` and the marks of approximation.
fn result<'a>(body: &Body<'a, '_>, mnemonic: &mut Mnemonic<'_>, dst: &Operand<'a>) -> Result<(Slot, Type), Reason> {
    let ty = mnemonic.ty()?;
    if ty.kind == Kind::Float {
        for mark in ["rn", "approx", "full"] {
            mnemonic.take(mark);
        }
    }
    Ok((body.target(dst)?.0, ty))
}

fn unary<'a>(
    body: &mut Body<'a, '_>,
    mnemonic: &mut Mnemonic<'_>,
    dst: &Operand<'a>,
    a: &Operand<'a>,
) -> Result<bool, Reason> {
    let name = mnemonic.name;
    let (dst, ty) = match name {
        "not" | "cnot" | "neg" | "abs" | "popc" | "clz" | "brev" | "bfind" | "sqrt" | "rcp" | "rsqrt" | "ex2"
        | "lg2" | "sin" | "cos" | "tanh" => result(body, mnemonic, dst)?,
        _ => return Ok(false),
    };
    let f = match (name, ty.kind) {
        ("not", _) => Unary::Not,
        ("cnot", _) => Unary::LogicalNot,
        ("popc", _) => Unary::Popc,
        ("clz", _) => Unary::Clz,
        ("brev", _) => Unary::Brev,
        ("bfind", Kind::Signed) => Unary::FindSigned,
        ("bfind", _) => Unary::FindUnsigned,
        ("neg", Kind::Float) => Unary::FloatNeg,
        ("abs", Kind::Float) => Unary::FloatAbs,
        ("neg", _) => Unary::Neg,
        ("abs", _) => Unary::Abs,
        ("sqrt", Kind::Float) => Unary::Sqrt,
        ("rcp", Kind::Float) => Unary::Reciprocal,
        ("rsqrt", Kind::Float) => Unary::ReciprocalSqrt,
        ("ex2", Kind::Float) => Unary::Exp2,
        ("lg2", Kind::Float) => Unary::Log2,
        ("sin", Kind::Float) => Unary::Sin,
        ("cos", Kind::Float) => Unary::Cos,
        ("tanh", Kind::Float) => Unary::Tanh,
        _ => return Ok(false),
    };
    let a = body.value(a, ty.bits)?;
    body.emit(Op::Unary { f, bits: ty.bits, dst, a });
    Ok(true)
}

/// Which product an integer multiplication keeps: the low half if `lo` stands there.
#[derive(Clone, Copy)]
enum Product {
    Low,
    High,
    Wide,
}

const PRODUCTS: &[(&str, Product)] = &[("lo", Product::Low), ("hi", Product::High), ("wide", Product::Wide)];

fn binary<'a>(
    body: &mut Body<'a, '_>,
    mnemonic: &mut Mnemonic<'_>,
    dst: &Operand<'a>,
    a: &Operand<'a>,
    b: &Operand<'a>,
) -> Result<bool, Reason> {
    use Kind::{Float, Signed};
    let name = mnemonic.name;
    if !["add", "sub", "mul", "div", "rem", "and", "or", "xor", "shl", "shr", "min", "max", "copysign"].contains(&name)
    {
        return Ok(false);
    }
    let (dst, ty) = result(body, mnemonic, dst)?;
    let f = match (name, ty.kind) {
        ("add", Float) => Binary::FloatAdd,
        ("sub", Float) => Binary::FloatSub,
        ("mul", Float) => Binary::FloatMul,
        ("div", Float) => Binary::FloatDiv,
        ("min", Float) if mnemonic.take("NaN") => Binary::FloatMinNan,
        ("max", Float) if mnemonic.take("NaN") => Binary::FloatMaxNan,
        ("min", Float) => Binary::FloatMin,
        ("max", Float) => Binary::FloatMax,
        ("copysign", Float) => Binary::CopySign,
        (_, Float) => return Ok(false),
        ("add", Signed) if mnemonic.take("sat") => Binary::AddSat,
        ("sub", Signed) if mnemonic.take("sat") => Binary::SubSat,
        ("add", _) => Binary::Add,
        ("sub", _) => Binary::Sub,
        ("mul", kind) => match (mnemonic.take_any(PRODUCTS).ok_or("mul without .lo, .hi or .wide")?, kind) {
            (Product::Low, _) => Binary::Mul,
            (Product::High, Signed) => Binary::MulHighS,
            (Product::High, _) => Binary::MulHighU,
            (Product::Wide, Signed) => Binary::MulWideS,
            (Product::Wide, _) => Binary::MulWideU,
        },
        ("div", Signed) => Binary::DivS,
        ("div", _) => Binary::DivU,
        ("rem", Signed) => Binary::RemS,
        ("rem", _) => Binary::RemU,
        ("and", _) => Binary::And,
        ("or", _) => Binary::Or,
        ("xor", _) => Binary::Xor,
        ("shl", _) => Binary::Shl,
        ("shr", Signed) => Binary::ShrS,
        ("shr", _) => Binary::ShrU,
        ("min", Signed) => Binary::MinS,
        ("min", _) => Binary::MinU,
        ("max", Signed) => Binary::MaxS,
        ("max", _) => Binary::MaxU,
        _ => return Ok(false),
    };
    let shift = matches!(f, Binary::Shl | Binary::ShrS | Binary::ShrU);
    let (a, b) = (body.value(a, ty.bits)?, body.value(b, if shift { 32 } else { ty.bits })?);
    body.emit(Op::Binary { f, bits: ty.bits, dst, a, b });
    Ok(true)
}

fn ternary<'a>(
    body: &mut Body<'a, '_>,
    mnemonic: &mut Mnemonic<'_>,
    dst: &Operand<'a>,
    [a, b, c]: [&Operand<'a>; 3],
) -> Result<bool, Reason> {
    let name = mnemonic.name;
    if !["mad", "fma", "sad", "bfe", "prmt", "shf", "selp", "slct"].contains(&name) {
        return Ok(false);
    }
    if name == "slct" {
        return slct(body, mnemonic, dst, [a, b, c]);
    }
    let (dst, ty) = result(body, mnemonic, dst)?;
    let bits = ty.bits;
    if name == "selp" {
        let (a, b) = (body.value(a, bits)?, body.value(b, bits)?);
        let p = body.value(c, 1)?;
        body.emit(Op::Select { dst, a, b, p });
        return Ok(true);
    }
    let signed = ty.kind == Kind::Signed;
    // Widths of the second and third operand.
    let (f, widths) = match (name, ty.kind) {
        ("fma" | "mad", Kind::Float) => (Ternary::Fma, [bits; 2]),
        ("mad", _) => {
            let product = mnemonic.take_any(PRODUCTS).ok_or("mad without .lo, .hi or .wide")?;
            let f = match (product, signed) {
                (Product::Low, _) => Ternary::Mad,
                (Product::High, true) => Ternary::MadHighS,
                (Product::High, false) => Ternary::MadHighU,
                (Product::Wide, true) => Ternary::MadWideS,
                (Product::Wide, false) => Ternary::MadWideU,
            };
            (f, [bits, if matches!(product, Product::Wide) { bits * 2 } else { bits }])
        }
        ("sad", _) => (if signed { Ternary::SadS } else { Ternary::SadU }, [bits; 2]),
        ("bfe", _) => (if signed { Ternary::BfeS } else { Ternary::BfeU }, [32; 2]),
        ("prmt", _) => (Ternary::Prmt, [32; 2]),
        ("shf", _) => {
            let wraps = mnemonic.take("wrap") || !mnemonic.take("clamp");
            let f = match (mnemonic.take("l"), wraps) {
                (true, true) => Ternary::FunnelLeftWrap,
                (true, false) => Ternary::FunnelLeftClamp,
                (false, true) if mnemonic.take("r") => Ternary::FunnelRightWrap,
                (false, false) if mnemonic.take("r") => Ternary::FunnelRightClamp,
                _ => return Err("shf without a direction".into()),
            };
            (f, [32; 2])
        }
        _ => return Ok(false),
    };
    let (a, b, c) = (body.value(a, bits)?, body.value(b, widths[0])?, body.value(c, widths[1])?);
    body.emit(Op::Ternary { f, bits, dst, a, b, c });
    Ok(true)
}

fn slct<'a>(
    body: &mut Body<'a, '_>,
    mnemonic: &mut Mnemonic<'_>,
    dst: &Operand<'a>,
    [a, b, c]: [&Operand<'a>; 3],
) -> Result<bool, Reason> {
    let by = mnemonic.ty()?;
    let ty = mnemonic.ty()?;
    let (dst, a, b, c) =
        (body.target(dst)?.0, body.value(a, ty.bits)?, body.value(b, ty.bits)?, body.value(c, by.bits)?);
    let (zero, p) = (body.constant(0), body.slot(0));
    body.emit(Op::Compare { f: Compare::Ge, ty: by, dst: p, other: NO_SLOT, a: c, b: zero });
    body.emit(Op::Select { dst, a, b, p });
    Ok(true)
}

fn quaternary<'a>(
    body: &mut Body<'a, '_>,
    mnemonic: &mut Mnemonic<'_>,
    dst: &Operand<'a>,
    [a, b, c, d]: [&Operand<'a>; 4],
) -> Result<bool, Reason> {
    let f = match mnemonic.name {
        "bfi" => Quaternary::Bfi,
        "lop3" => Quaternary::Lop3,
        _ => return Ok(false),
    };
    let (dst, ty) = result(body, mnemonic, dst)?;
    let narrow = if matches!(f, Quaternary::Bfi) { 32 } else { ty.bits };
    let operands = [body.value(a, ty.bits)?, body.value(b, ty.bits)?, body.value(c, narrow)?, body.value(d, 32)?];
    body.emit(Op::Quaternary { f, bits: ty.bits, dst, operands });
    Ok(true)
}

fn comparison(mnemonic: &mut Mnemonic<'_>) -> Result<(Compare, Type), Reason> {
    const NAMES: &[(&str, Compare)] = &[
        ("eq", Compare::Eq),
        ("ne", Compare::Ne),
        ("lt", Compare::Lt),
        ("le", Compare::Le),
        ("gt", Compare::Gt),
        ("ge", Compare::Ge),
        ("lo", Compare::Lt),
        ("ls", Compare::Le),
        ("hi", Compare::Gt),
        ("hs", Compare::Ge),
        ("equ", Compare::Equ),
        ("neu", Compare::Neu),
        ("ltu", Compare::Ltu),
        ("leu", Compare::Leu),
        ("gtu", Compare::Gtu),
        ("geu", Compare::Geu),
        ("num", Compare::Num),
        ("nan", Compare::Nan),
    ];
    let f = mnemonic.take_any(NAMES).ok_or("a comparison that is not supported")?;
    Ok((f, mnemonic.ty()?))
}

fn setp<'a>(
    body: &mut Body<'a, '_>,
    mnemonic: &mut Mnemonic<'_>,
    dst: &Operand<'a>,
    a: &Operand<'a>,
    b: &Operand<'a>,
    rest: &[Operand<'a>],
) -> Result<bool, Reason> {
    const COMBINATIONS: &[(&str, Bool)] = &[("and", Bool::And), ("or", Bool::Or), ("xor", Bool::Xor)];
    let combine = mnemonic.take_any(COMBINATIONS);
    let (f, ty) = comparison(mnemonic)?;
    let (dst, other) = match dst {
        Operand::Pair(p, q) => (body.target(&Operand::Name(p, 0))?.0, body.target(&Operand::Name(q, 0))?.0),
        one => (body.target(one)?.0, NO_SLOT),
    };
    let (a, b) = (body.value(a, ty.bits)?, body.value(b, ty.bits)?);
    match (combine, rest) {
        (None, []) => body.emit(Op::Compare { f, ty, dst, other, a, b }),
        (Some(combine), [p]) => {
            // The predicate may be the one that is written.
            let (p, negated) = match p {
                Operand::Not(name) => (body.predicate(name)?, true),
                p => (body.value(p, 1)?, false),
            };
            let kept = body.slot(0);
            body.emit(Op::Move { dst: kept, a: p });
            body.emit(Op::Compare { f, ty, dst, other, a, b });
            body.emit(Op::Combine { f: combine, dst, other, p: kept, negated });
        }
        _ => return Err("a comparison of a form that is not supported".into()),
    }
    Ok(true)
}

fn set<'a>(
    body: &mut Body<'a, '_>,
    mnemonic: &mut Mnemonic<'_>,
    dst: &Operand<'a>,
    a: &Operand<'a>,
    b: &Operand<'a>,
) -> Result<bool, Reason> {
    let (f, ty) = comparison(mnemonic)?;
    let to = mnemonic.ty()?;
    let yes = if to.kind == Kind::Float { u64::from(1f32.to_bits()) } else { mask(to.bits) };
    let (dst, a, b, p) = (body.target(dst)?.0, body.value(a, ty.bits)?, body.value(b, ty.bits)?, body.slot(0));
    let (yes, no) = (body.constant(yes), body.constant(0));
    body.emit(Op::Compare { f, ty, dst: p, other: NO_SLOT, a, b });
    body.emit(Op::Select { dst, a: yes, b: no, p });
    Ok(true)
}

fn convert<'a>(
    body: &mut Body<'a, '_>,
    mnemonic: &mut Mnemonic<'_>,
    dst: &Operand<'a>,
    src: &Operand<'a>,
) -> Result<bool, Reason> {
    const ROUNDS: &[(&str, (Round, bool))] = &[
        ("rn", (Round::Nearest, false)),
        ("rz", (Round::Zero, false)),
        ("rm", (Round::Down, false)),
        ("rp", (Round::Up, false)),
        ("rni", (Round::Nearest, true)),
        ("rzi", (Round::Zero, true)),
        ("rmi", (Round::Down, true)),
        ("rpi", (Round::Up, true)),
    ];
    let rounds = mnemonic.take_any(ROUNDS);
    let saturate = mnemonic.take("sat");
    let from = mnemonic.ty()?;
    let to = mnemonic.ty()?;
    let (round, integral) = rounds.unwrap_or((Round::Nearest, false));
    if !integral && round != Round::Nearest {
        return Err("a conversion that rounds to a float other than to nearest is not supported".into());
    }
    if to.kind != Kind::Float && from.kind == Kind::Float && !integral {
        return Err("a conversion to an integer says how it rounds".into());
    }
    let (dst, wide) = body.target(dst)?;
    let a = body.value(src, from.bits)?;
    body.emit(Op::Convert { how: Convert { to, from, round, integral, saturate, wide }, dst, a });
    Ok(true)
}

fn move_<'a>(
    body: &mut Body<'a, '_>,
    mnemonic: &mut Mnemonic<'_>,
    dst: &Operand<'a>,
    src: &Operand<'a>,
) -> Result<(), Reason> {
    let bits = mnemonic.ty()?.bits;
    let part = |count: usize| match count {
        2 | 4 => Ok(bits / count as u8),
        _ => Err(Reason::from("a vector of two or four expected")),
    };
    match (dst, src) {
        (Operand::Vector(items), src) => {
            let slots = items.iter().map(|item| Ok(body.target(item)?.0)).collect::<Result<Vec<_>, Reason>>()?;
            let a = body.value(src, bits)?;
            let (list, count) = (body.function.lists.len() as u32, slots.len() as u32);
            body.function.lists.extend(slots);
            body.emit(Op::Unpack { a, bits: part(items.len())?, list, count });
        }
        (dst, Operand::Vector(items)) => {
            let part = part(items.len())?;
            let slots = items.iter().map(|item| body.value(item, part)).collect::<Result<Vec<_>, _>>()?;
            let dst = body.target(dst)?.0;
            let (list, count) = (body.function.lists.len() as u32, slots.len() as u32);
            body.function.lists.extend(slots);
            body.emit(Op::Pack { dst, bits: part, list, count });
        }
        (dst, src) => {
            let dst = body.target(dst)?.0;
            let a = body.value(src, bits)?;
            body.emit(Op::Move { dst, a });
        }
    }
    Ok(())
}
