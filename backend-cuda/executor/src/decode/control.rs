//! Branches, calls, ends and barriers (PTX ISA 9.7.12 and 9.7.13.1).

use super::mnemonic::Mnemonic;
use super::scope::{Binding, Body, Reason};
use crate::op::{CallSite, Callee, NO_SLOT, Op, Place, Symbol};
use crate::parse::ast::Operand;

pub(super) fn decode<'a>(
    body: &mut Body<'a, '_>,
    mnemonic: &mut Mnemonic<'_>,
    operands: &[Operand<'a>],
) -> Result<bool, Reason> {
    match (mnemonic.name, operands) {
        ("bra", [Operand::Name(_, 0)]) => {
            mnemonic.take("uni");
            // The target is filled in when all labels are known.
            body.emit(Op::Branch { target: 0 });
        }
        ("brx", [index, Operand::Name(table, 0)]) if mnemonic.take("idx") => {
            mnemonic.take("uni");
            let (list, count) = *body.tables.get(table).ok_or_else(|| format!("there is no table {table}"))?;
            let index = body.value(index, 32)?;
            body.emit(Op::BranchTable { index, list, count });
        }
        ("call", _) => {
            mnemonic.take("uni");
            call(body, operands)?;
        }
        ("ret", []) => {
            mnemonic.take("uni");
            body.emit(if body.function.is_entry { Op::Exit } else { Op::Return });
        }
        ("exit", []) => body.emit(Op::Exit),
        ("trap" | "brkpt", []) => body.emit(Op::Trap),
        ("nanosleep", [ns]) => {
            let bits = mnemonic.ty()?.bits;
            let ns = body.value(ns, bits)?;
            body.emit(Op::Sleep { ns });
        }
        // `bar.warp.sync` belongs to the collectives.
        ("bar" | "barrier", [id, rest @ ..]) if rest.len() < 2 && !mnemonic.take("warp") => {
            mnemonic.take("cta");
            mnemonic.take("aligned");
            if !mnemonic.take("sync") {
                return Err("of barriers, only sync is supported".into());
            }
            let id = body.value(id, 32)?;
            let count = rest.first().map_or(Ok(NO_SLOT), |count| body.value(count, 32))?;
            body.emit(Op::Barrier { id, count });
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn call<'a>(body: &mut Body<'a, '_>, operands: &[Operand<'a>]) -> Result<(), Reason> {
    let (results, rest) = match operands {
        [Operand::List(results), rest @ ..] => (&results[..], rest),
        rest => (&[][..], rest),
    };
    let [Operand::Name(name, 0), rest @ ..] = rest else { return Err("a function to call expected".into()) };
    let arguments = match rest {
        [] => &[][..],
        // A prototype follows the arguments of a call through a pointer.
        [Operand::List(arguments)] | [Operand::List(arguments), Operand::Name(_, 0)] => &arguments[..],
        _ => return Err("a call of a form that is not supported".into()),
    };
    let callee = match body.lookup(name) {
        Some(Binding::Global(Symbol::Function(index))) => Callee::Function(index),
        Some(Binding::Register { slot, bits: 64 }) => Callee::Pointer(slot),
        _ => return Err(format!("{name} is called but defined nowhere")),
    };
    let place = |operand: &Operand<'a>| -> Result<Place, Reason> {
        match operand {
            Operand::Name(name, 0) => match body.lookup(name) {
                Some(Binding::Param { place }) => Ok(place),
                _ => Err(format!("{name} is not a .param variable")),
            },
            _ => Err("arguments are .param variables".into()),
        }
    };
    let arguments = arguments.iter().map(place).collect::<Result<_, _>>()?;
    let results = results.iter().map(place).collect::<Result<_, _>>()?;
    let site = body.function.calls.len() as u32;
    body.function.calls.push(CallSite { callee, arguments, results });
    body.emit(Op::Call { site });
    Ok(())
}
