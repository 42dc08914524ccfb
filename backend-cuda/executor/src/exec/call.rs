//! Calls and returns (PTX ISA 7.1, 9.7.12.5): arguments are copied between the parameter spaces of two frames. And
//! branches by a table.

use super::memory::function_of;
use super::thread::{Frame, Thread};
use super::{Halt, World};
use crate::error::FaultKind;
use crate::op::{Callee, Place};

const MAX_FRAMES: usize = 1024;

fn sizes(places: &[Place]) -> impl Iterator<Item = u32> + '_ {
    places.iter().map(|p| p.size)
}

pub(super) fn call(thread: &mut Thread, world: &World<'_>, site: u32) -> Result<(), Halt> {
    let caller = &world.functions[thread.function as usize];
    let site = &caller.calls[site as usize];
    let number = match site.callee {
        Callee::Function(number) => number,
        Callee::Pointer(slot) => {
            let number = function_of(thread.slots[thread.slot_base + slot as usize]).ok_or(FaultKind::BadCall)?;
            let callee = world.functions.get(number as usize).ok_or(FaultKind::BadCall)?;
            let fits =
                sizes(&callee.params).eq(sizes(&site.arguments)) && sizes(&callee.results).eq(sizes(&site.results));
            if callee.is_entry || !fits {
                return Err(FaultKind::BadCall.into());
            }
            number
        }
    };
    let callee = &world.functions[number as usize];
    let local = thread.local.len() as u64 + u64::from(callee.local_bytes);
    if thread.frames.len() >= MAX_FRAMES || local > u64::from(world.local_limit) {
        return Err(FaultKind::StackOverflow.into());
    }
    let (param_base, local_base) = (thread.param_base, thread.local_base);
    let (function, pc, slot_base) = (thread.function, thread.pc, thread.slot_base);
    thread.frames.push(Frame { function, pc, slot_base, param_base, local_base });
    thread.enter(number, callee);
    for (from, to) in site.arguments.iter().zip(&callee.params) {
        let start = param_base + from.offset as usize;
        thread.params.copy_within(start..start + from.size as usize, thread.param_base + to.offset as usize);
    }
    Ok(())
}

/// Where a branch by a table goes. Beyond the table is undefined behaviour in PTX; here it is a fault.
#[inline(always)]
pub(super) fn target(table: &[u32], index: u64) -> Result<u32, FaultKind> {
    let target = usize::try_from(index).ok().and_then(|index| table.get(index));
    target.copied().ok_or(FaultKind::BadCall)
}

/// Returns from a function; `false` if it was the outermost.
pub(super) fn ret(thread: &mut Thread, world: &World<'_>) -> bool {
    let Some(frame) = thread.frames.pop() else { return false };
    let callee = &world.functions[thread.function as usize];
    // The call is the instruction before the one to go on with.
    let caller = &world.functions[frame.function as usize];
    if let crate::op::Op::Call { site } = caller.code[frame.pc as usize - 1].op {
        for (from, to) in callee.results.iter().zip(&caller.calls[site as usize].results) {
            let start = thread.param_base + from.offset as usize;
            thread.params.copy_within(start..start + from.size as usize, frame.param_base + to.offset as usize);
        }
    }
    thread.slots.truncate(thread.slot_base);
    thread.params.truncate(thread.param_base);
    thread.local.truncate(thread.local_base as usize);
    thread.function = frame.function;
    thread.pc = frame.pc;
    thread.slot_base = frame.slot_base;
    thread.param_base = frame.param_base;
    thread.local_base = frame.local_base;
    true
}
