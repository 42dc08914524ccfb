//! Loads, stores, atomics, fences and addresses (PTX ISA 9.7.9 and 9.7.13).

use super::mnemonic::Mnemonic;
use super::scope::{Binding, Body, Reason};
use crate::op::{Access, Kind, NO_SLOT, Op, Order, Rmw, Scope, Slot, Space};
use crate::parse::ast::Operand;

const SPACES: &[(&str, Space)] = &[
    ("global", Space::Global),
    ("shared", Space::Shared),
    ("shared::cta", Space::Shared),
    ("local", Space::Local),
    ("const", Space::Const),
    ("param", Space::Param),
    ("param::entry", Space::Param),
    ("param::func", Space::Param),
];

const ORDERS: &[(&str, Order)] = &[
    ("weak", Order::Weak),
    ("volatile", Order::Volatile),
    ("relaxed", Order::Relaxed),
    ("acquire", Order::Acquire),
    ("release", Order::Release),
    ("acq_rel", Order::AcqRel),
];

/// Hints that do not change what a program means.
fn take_cache_hints(mnemonic: &mut Mnemonic<'_>) {
    for hint in ["ca", "cg", "cs", "lu", "cv", "wb", "wt", "nc"] {
        mnemonic.take(hint);
    }
    mnemonic.take_prefixed("L1::evict_");
    mnemonic.take_prefixed("L1::no_allocate");
    for hint in ["L2::64B", "L2::128B", "L2::256B"] {
        mnemonic.take(hint);
    }
}

pub(super) fn decode<'a>(
    body: &mut Body<'a, '_>,
    mnemonic: &mut Mnemonic<'_>,
    operands: &[Operand<'a>],
) -> Result<bool, Reason> {
    match (mnemonic.name, operands) {
        ("ld" | "ldu", [dst, address]) => load(body, mnemonic, dst, address)?,
        ("st", [address, src]) => store(body, mnemonic, address, src)?,
        ("atom", [dst, address, values @ ..]) => {
            let dst = body.target(dst)?.0;
            atomic(body, mnemonic, dst, address, values)?;
        }
        ("red", [address, values @ ..]) => atomic(body, mnemonic, NO_SLOT, address, values)?,
        ("fence", []) => {
            const FENCES: &[(&str, Order)] = &[
                ("sc", Order::Sc),
                ("acq_rel", Order::AcqRel),
                ("acquire", Order::Acquire),
                ("release", Order::Release),
            ];
            let order = mnemonic.take_any(FENCES).unwrap_or(Order::AcqRel);
            let scope = mnemonic.scope().ok_or("a fence without a scope that is supported")?;
            body.emit(Op::Fence { order, scope });
        }
        ("membar", []) => {
            const LEVELS: &[(&str, Scope)] = &[("cta", Scope::Cta), ("gl", Scope::Gpu), ("sys", Scope::Sys)];
            let scope = mnemonic.take_any(LEVELS).ok_or("a membar without a level that is supported")?;
            body.emit(Op::Fence { order: Order::Sc, scope });
        }
        ("cvta", [dst, a]) => {
            let to_window = mnemonic.take("to");
            let space = mnemonic.take_any(SPACES).ok_or("cvta without a space that is supported")?;
            let bits = mnemonic.ty()?.bits;
            let (dst, a) = (body.target(dst)?.0, body.value(a, bits)?);
            body.emit(match space {
                Space::Shared | Space::Local if to_window => Op::FromGeneric { space, dst, a },
                Space::Shared | Space::Local => Op::ToGeneric { space, dst, a },
                // Global, constant and parameter memory have their generic addresses.
                _ => Op::Move { dst, a },
            });
        }
        ("isspacep", [dst, a]) => {
            let space = mnemonic.take_any(SPACES).ok_or("isspacep without a space that is supported")?;
            let (dst, a) = (body.target(dst)?.0, body.value(a, 64)?);
            body.emit(Op::IsSpace { space, dst, a });
        }
        ("prefetch" | "prefetchu", _) => {
            mnemonic.take_any(SPACES);
            mnemonic.take_prefixed("L");
            body.emit(Op::Nop);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// What all memory instructions say of themselves.
fn access(mnemonic: &mut Mnemonic<'_>, default: Order) -> Result<(Access, Kind), Reason> {
    take_cache_hints(mnemonic);
    if mnemonic.take("mmio") {
        return Err("memory-mapped input and output is not supported".into());
    }
    let order = mnemonic.take_any(ORDERS);
    let scope = mnemonic.scope();
    let space = mnemonic.take_any(SPACES).unwrap_or(Space::Generic);
    let lanes = mnemonic.take_any(&[("v2", 2), ("v4", 4), ("v8", 8)]).unwrap_or(1);
    let ty = mnemonic.ty()?;
    if ty.bits < 8 {
        return Err("predicates have no address".into());
    }
    let order = order.unwrap_or(default);
    let scope = match (order, scope) {
        (Order::Weak | Order::Volatile, Some(_)) => return Err("a scope without an order".into()),
        (Order::Weak | Order::Volatile, None) => Scope::Sys,
        (_, Some(scope)) => scope,
        // The default scope of an atomic is .gpu (PTX ISA 9.7.13.5).
        (_, None) if default == Order::Relaxed => Scope::Gpu,
        (_, None) => return Err("an order without a scope that is supported".into()),
    };
    let signed = ty.kind == Kind::Signed;
    Ok((Access { space, bytes: ty.bits / 8, lanes, order, scope, signed, wide: ty.bits }, ty.kind))
}

/// Slot and offset of an address. A parameter's space becomes its offset in the frame.
fn address<'a>(body: &mut Body<'a, '_>, access: &Access, operand: &Operand<'a>) -> Result<(Slot, i32), Reason> {
    let Operand::Address(inner) = operand else { return Err("an address in brackets expected".into()) };
    let small = |offset: i64| i32::try_from(offset).map_err(|_| Reason::from("an offset beyond 32 bits"));
    match &**inner {
        Operand::Name(name, offset) => match body.lookup(name) {
            Some(Binding::Param { place }) if access.space == Space::Param => {
                let at = i64::from(place.offset) + offset;
                let end = offset + i64::from(access.bytes) * i64::from(access.lanes);
                if *offset < 0 || end > i64::from(place.size) {
                    return Err("an access outside of the parameter".into());
                }
                Ok((NO_SLOT, small(at)?))
            }
            _ if access.space == Space::Param => Err(format!("{name} is not a parameter")),
            Some(Binding::Register { slot, .. }) => Ok((slot, small(*offset)?)),
            _ => Ok((body.value(inner, 64)?, 0)),
        },
        Operand::Int(_) => Ok((body.value(inner, 64)?, 0)),
        _ => Err("an address is a register, a name or a number".into()),
    }
}

/// The slots of a vector, as a list; of a scalar, the slot itself.
fn elements<'a>(
    body: &mut Body<'a, '_>,
    lanes: u8,
    operand: &Operand<'a>,
    mut slot: impl FnMut(&mut Body<'a, '_>, &Operand<'a>) -> Result<Slot, Reason>,
) -> Result<Slot, Reason> {
    match operand {
        Operand::Vector(items) if items.len() == usize::from(lanes) && lanes > 1 => {
            let slots = items.iter().map(|item| slot(body, item)).collect::<Result<Vec<_>, _>>()?;
            let first = body.function.lists.len() as u32;
            body.function.lists.extend(slots);
            Ok(first)
        }
        Operand::Vector(items) if lanes == 1 && items.len() == 1 => slot(body, &items[0]),
        Operand::Vector(_) => Err("a vector of another length".into()),
        _ if lanes == 1 => slot(body, operand),
        _ => Err("a vector expected".into()),
    }
}

fn load<'a>(
    body: &mut Body<'a, '_>,
    mnemonic: &mut Mnemonic<'_>,
    dst: &Operand<'a>,
    from: &Operand<'a>,
) -> Result<(), Reason> {
    let (mut access, _) = access(mnemonic, Order::Weak)?;
    if access.order.releases() {
        return Err("a load cannot release".into());
    }
    let mut wide = 64;
    let dst = elements(body, access.lanes, dst, |body, operand| {
        let (slot, bits) = body.target(operand)?;
        wide = wide.min(bits);
        Ok(slot)
    })?;
    access.wide = wide;
    let (base, offset) = address(body, &access, from)?;
    body.emit(Op::Load { access, dst, base, offset });
    Ok(())
}

fn store<'a>(
    body: &mut Body<'a, '_>,
    mnemonic: &mut Mnemonic<'_>,
    to: &Operand<'a>,
    src: &Operand<'a>,
) -> Result<(), Reason> {
    let (access, _) = access(mnemonic, Order::Weak)?;
    if access.order.acquires() {
        return Err("a store cannot acquire".into());
    }
    let src = elements(body, access.lanes, src, |body, operand| body.value(operand, access.bytes * 8))?;
    let (base, offset) = address(body, &access, to)?;
    body.emit(Op::Store { access, src, base, offset });
    Ok(())
}

fn atomic<'a>(
    body: &mut Body<'a, '_>,
    mnemonic: &mut Mnemonic<'_>,
    dst: Slot,
    at: &Operand<'a>,
    values: &[Operand<'a>],
) -> Result<(), Reason> {
    const OPERATIONS: &[(&str, Rmw)] = &[
        ("add", Rmw::Add),
        ("exch", Rmw::Exchange),
        ("cas", Rmw::CompareExchange),
        ("min", Rmw::MinU),
        ("max", Rmw::MaxU),
        ("and", Rmw::And),
        ("or", Rmw::Or),
        ("xor", Rmw::Xor),
        ("inc", Rmw::Inc),
        ("dec", Rmw::Dec),
    ];
    mnemonic.take("noftz");
    let f = mnemonic.take_any(OPERATIONS).ok_or("an atomic operation that is not supported")?;
    let (access, kind) = access(mnemonic, Order::Relaxed)?;
    let f = match (f, kind) {
        (Rmw::Add, Kind::Float) => Rmw::FloatAdd,
        (Rmw::MinU, Kind::Signed) => Rmw::MinS,
        (Rmw::MaxU, Kind::Signed) => Rmw::MaxS,
        (_, Kind::Float) => return Err("this atomic operation on floating-point numbers is not supported".into()),
        _ => f,
    };
    let wanted = if matches!(f, Rmw::CompareExchange) { 2 } else { 1 };
    if access.lanes > 1 || access.bytes == 1 || values.len() != wanted {
        return Err("an atomic operation of a shape that is not supported".into());
    }
    let slots = values.iter().map(|v| body.value(v, access.bytes * 8)).collect::<Result<Vec<_>, _>>()?;
    let (base, offset) = address(body, &access, at)?;
    let operands = body.function.lists.len() as u32;
    body.function.lists.extend([slots[0], slots.get(1).copied().unwrap_or(slots[0])]);
    body.emit(Op::Atomic { f, access, dst, base, offset, operands });
    Ok(())
}
