//! Operations of a warp (PTX ISA 9.7.9.6, 9.7.13.8 and following).

use super::mnemonic::Mnemonic;
use super::scope::{Body, Reason};
use crate::op::{Collective, CollectiveOp, Kind, NO_SLOT, Op, Shuffle, Slot};
use crate::parse::ast::Operand;

pub(super) fn decode<'a>(
    body: &mut Body<'a, '_>,
    mnemonic: &mut Mnemonic<'_>,
    operands: &[Operand<'a>],
) -> Result<bool, Reason> {
    let empty = CollectiveOp {
        what: Collective::Barrier,
        dst: NO_SLOT,
        flag: NO_SLOT,
        a: NO_SLOT,
        b: NO_SLOT,
        c: NO_SLOT,
        mask: NO_SLOT,
        negated: false,
    };
    let op = match (mnemonic.name, operands) {
        ("shfl", [dst, a, b, c, mask]) => {
            const MODES: &[(&str, Shuffle)] =
                &[("idx", Shuffle::Index), ("up", Shuffle::Up), ("down", Shuffle::Down), ("bfly", Shuffle::Butterfly)];
            let mode = mnemonic.take_any(MODES).ok_or("shfl without a mode")?;
            let (dst, flag) = pair(body, dst)?;
            let [a, b, c] = [body.value(a, 32)?, body.value(b, 32)?, body.value(c, 32)?];
            typed(mnemonic, &[32])?;
            CollectiveOp { what: Collective::Shuffle(mode), dst, flag, a, b, c, mask: body.value(mask, 32)?, ..empty }
        }
        ("vote", [dst, a, mask]) => {
            const MODES: &[(&str, Collective)] = &[
                ("all", Collective::VoteAll),
                ("any", Collective::VoteAny),
                ("uni", Collective::VoteUniform),
                ("ballot", Collective::Ballot),
            ];
            let what = mnemonic.take_any(MODES).ok_or("vote without a mode")?;
            typed(mnemonic, &[1, 32])?;
            let (a, negated) = match a {
                Operand::Not(name) => (body.predicate(name)?, true),
                other => (body.value(other, 1)?, false),
            };
            CollectiveOp { what, dst: body.target(dst)?.0, a, negated, mask: body.value(mask, 32)?, ..empty }
        }
        ("match", [dst, a, mask]) => {
            const MODES: &[(&str, Collective)] = &[("any", Collective::MatchAny), ("all", Collective::MatchAll)];
            let what = mnemonic.take_any(MODES).ok_or("match without a mode")?;
            let bits = typed(mnemonic, &[32, 64])?;
            let (dst, flag) = pair(body, dst)?;
            CollectiveOp { what, dst, flag, a: body.value(a, bits)?, mask: body.value(mask, 32)?, ..empty }
        }
        ("redux", [dst, a, mask]) => {
            let (signed, unsigned) = (reduction(true), reduction(false));
            let ty = mnemonic.ty()?;
            let table = if ty.kind == Kind::Signed { signed } else { unsigned };
            let what = mnemonic.take_any(&table).ok_or("a reduction that is not supported")?;
            if ty.bits != 32 || ty.kind == Kind::Float {
                return Err("a reduction of a type that is not supported".into());
            }
            CollectiveOp { what, dst: body.target(dst)?.0, a: body.value(a, 32)?, mask: body.value(mask, 32)?, ..empty }
        }
        ("elect", [dst, mask]) => {
            let (dst, flag) = pair(body, dst)?;
            CollectiveOp { what: Collective::Elect, dst, flag, mask: body.value(mask, 32)?, ..empty }
        }
        // `control` has taken `warp` off.
        ("bar" | "barrier", [mask]) => CollectiveOp { mask: body.value(mask, 32)?, ..empty },
        ("activemask", [dst]) => {
            typed(mnemonic, &[32])?;
            let dst = body.target(dst)?.0;
            body.emit(Op::ActiveMask { dst });
            return Ok(true);
        }
        _ => return Ok(false),
    };
    if !mnemonic.take("sync") {
        return Err(format!("{} without .sync is not supported", mnemonic.name));
    }
    let list = body.function.collectives.len() as u32;
    body.function.collectives.push(op);
    body.emit(Op::Collective { list });
    Ok(true)
}

fn reduction(signed: bool) -> [(&'static str, Collective); 6] {
    let (min, max) = if signed {
        (Collective::ReduceMinS, Collective::ReduceMaxS)
    } else {
        (Collective::ReduceMinU, Collective::ReduceMaxU)
    };
    [
        ("add", Collective::ReduceAdd),
        ("and", Collective::ReduceAnd),
        ("or", Collective::ReduceOr),
        ("xor", Collective::ReduceXor),
        ("min", min),
        ("max", max),
    ]
}

fn typed(mnemonic: &mut Mnemonic<'_>, allowed: &[u8]) -> Result<u8, Reason> {
    let bits = mnemonic.ty()?.bits;
    if allowed.contains(&bits) { Ok(bits) } else { Err("a type that is not supported here".into()) }
}

/// `d` or `d|p`.
fn pair<'a>(body: &Body<'a, '_>, operand: &Operand<'a>) -> Result<(Slot, Slot), Reason> {
    match operand {
        Operand::Pair(value, flag) => {
            Ok((body.target(&Operand::Name(value, 0))?.0, body.target(&Operand::Name(flag, 0))?.0))
        }
        other => Ok((body.target(other)?.0, NO_SLOT)),
    }
}
