//! Runs one thread for a while. Whatever concerns more than one thread (barriers, warps, sleep, the end) is handed to
//! the [machine](crate::machine) as a [`Stop`].

pub(crate) mod alu;
mod call;
pub(crate) mod float;
mod memory;
mod slots;
mod special;
pub(crate) mod thread;

use crate::error::FaultKind;
use crate::machine::block::Block;
use crate::machine::clock::Timer;
use crate::memory::Memory;
use crate::op::{Function, NO_SLOT, Op, Order, Slot};
use crate::race::{Detector, Found};
pub(crate) use memory::{POISON, Window, function_pointer, in_a_window};
use slots::set;
use thread::Thread;

/// Everything beside the thread that an instruction may touch.
pub(crate) struct World<'m> {
    pub(crate) functions: &'m [Function],
    pub(crate) memory: &'m mut Memory,
    pub(crate) blocks: &'m mut [Block],
    pub(crate) detector: Option<&'m mut Detector>,
    pub(crate) timer: &'m mut Timer,
    pub(crate) local_limit: u32,
}

/// How long a thread may run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// Accesses to memory that others see.
    pub(crate) accesses: u32,
    /// Instructions.
    pub(crate) instructions: u32,
    /// Count only what orders: strong accesses and fences.
    pub(crate) strong_only: bool,
}

impl Budget {
    /// How many accesses a load or store counts for.
    #[inline(always)]
    fn spent(self, visible: bool, order: Order) -> u32 {
        u32::from(visible && (order != Order::Weak || !self.strong_only))
    }
}

/// Why a thread stopped.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stop {
    /// The budget is used up.
    Budget,
    /// It has read the same value from the same place again: it waits for someone.
    Polls,
    Sleep {
        ns: u64,
    },
    Barrier {
        id: u64,
        count: Option<u64>,
    },
    Collective {
        list: u32,
    },
    ActiveMask {
        dst: Slot,
    },
    Exit,
}

/// Why a thread cannot go on.
#[derive(Debug)]
pub(crate) enum Halt {
    Fault(FaultKind),
    Race(Found),
}

impl From<FaultKind> for Halt {
    fn from(kind: FaultKind) -> Self {
        Self::Fault(kind)
    }
}

/// Runs `thread` within the budget; returns why it stopped and how many instructions it took.
pub(crate) fn run(thread: &mut Thread, world: &mut World<'_>, budget: Budget) -> Result<(Stop, u64), Halt> {
    let mut accesses = budget.accesses;
    let mut executed = 0u32;
    let stop = loop {
        if executed >= budget.instructions {
            break Stop::Budget;
        }
        let function = &world.functions[thread.function as usize];
        let instruction = &function.code[thread.pc as usize];
        thread.pc += 1;
        executed += 1;
        let slots = &mut thread.slots[thread.slot_base..];
        if instruction.guard != NO_SLOT && (slots[instruction.guard as usize] != 0) == instruction.negated {
            continue;
        }
        macro_rules! get {
            ($slot:expr) => {
                slots[$slot as usize]
            };
        }
        let window = |space| Window::of(space, thread.block, thread.agent);
        match instruction.op {
            Op::Nop => {}
            Op::Move { dst, a } => set(slots, dst, get!(a)),
            Op::Unary { f, bits, dst, a } => set(slots, dst, alu::unary(f, bits, get!(a))),
            Op::Binary { f, bits, dst, a, b } => set(slots, dst, alu::binary(f, bits, get!(a), get!(b))),
            Op::Ternary { f, bits, dst, a, b, c } => {
                set(slots, dst, alu::ternary(f, bits, get!(a), get!(b), get!(c)));
            }
            Op::Quaternary { f, bits, dst, operands } => {
                set(slots, dst, alu::quaternary(f, bits, operands.map(|s| slots[s as usize])));
            }
            Op::Carry { bits, subtract, reads, writes, dst, a, b } => {
                // For a subtraction, the flag holds the borrow's opposite.
                let carry = if reads { thread.carry } else { subtract };
                let (sum, carry) = alu::add_with_carry(bits, subtract, get!(a), get!(b), carry);
                if writes {
                    thread.carry = carry;
                }
                set(slots, dst, sum);
            }
            Op::Convert { how, dst, a } => set(slots, dst, float::convert(how, get!(a))),
            Op::Compare { f, ty, dst, other, a, b } => slots::compare(slots, [dst, other], f, ty, [a, b]),
            Op::Combine { f, dst, other, p, negated } => {
                let p = get!(p) ^ u64::from(negated);
                slots::combine(slots, [dst, other], f, p);
            }
            Op::Select { dst, a, b, p } => set(slots, dst, if get!(p) != 0 { get!(a) } else { get!(b) }),
            Op::Pack { dst, bits, list, count } => slots::pack(slots, dst, bits, function.list(list, count)),
            Op::Unpack { a, bits, list, count } => slots::unpack(slots, get!(a), bits, function.list(list, count)),
            Op::LocalAddress { dst, offset } => set(slots, dst, u64::from(thread.local_base + offset)),
            Op::ParamAddress { dst, offset } => set(slots, dst, thread.launch_params + u64::from(offset)),
            Op::ToGeneric { space, dst, a } => set(slots, dst, memory::to_generic(window(space), get!(a))),
            Op::FromGeneric { space, dst, a } => {
                set(slots, dst, memory::offset_of(window(space), get!(a)));
            }
            Op::IsSpace { space, dst, a } => {
                set(slots, dst, u64::from(memory::is_in(space, window(space), get!(a))));
            }
            Op::Special { what, dst } => {
                let value = special::read(what, thread, world, executed);
                set(&mut thread.slots[thread.slot_base..], dst, value);
            }
            Op::Branch { target } => thread.pc = target,
            Op::BranchTable { index, list, count } => {
                thread.pc = call::target(function.list(list, count), get!(index))?;
            }
            Op::Call { site } => call::call(thread, world, site)?,
            Op::Return => {
                if !call::ret(thread, world) {
                    break Stop::Exit;
                }
            }
            Op::Exit => break Stop::Exit,
            Op::Trap => return Err(FaultKind::Trap.into()),
            Op::Sleep { ns } => break Stop::Sleep { ns: get!(ns) },
            Op::Barrier { id, count } => {
                break Stop::Barrier { id: get!(id), count: (count != NO_SLOT).then(|| get!(count)) };
            }
            Op::ActiveMask { dst } => break Stop::ActiveMask { dst },
            Op::Collective { list } => break Stop::Collective { list },
            Op::Fence { order, scope } => {
                memory::fence(thread, world, order, scope);
                accesses = accesses.saturating_sub(1);
            }
            Op::Load { access, dst, base, offset } => {
                let visible = memory::load(thread, world, access, dst, base, offset)?;
                accesses = accesses.saturating_sub(budget.spent(visible, access.order));
                if thread.polls {
                    break Stop::Polls;
                }
            }
            Op::Store { access, src, base, offset } => {
                let visible = memory::store(thread, world, access, src, base, offset)?;
                accesses = accesses.saturating_sub(budget.spent(visible, access.order));
            }
            Op::Atomic { f, access, dst, base, offset, operands } => {
                memory::atomic(thread, world, f, access, dst, base, offset, operands)?;
                accesses = accesses.saturating_sub(1);
                if thread.polls {
                    break Stop::Polls;
                }
            }
        }
        if accesses == 0 {
            break Stop::Budget;
        }
    };
    Ok((stop, u64::from(executed)))
}
