//! Names of a function body: registers, variables and labels, and the slots that constants get.

use crate::op::{Function, Instruction, NO_SLOT, Op, Place, Slot, Symbol};
use crate::parse::ast::{Operand, VarSpace, Variable};
use std::collections::HashMap;

/// What a name stands for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Binding {
    Register { slot: Slot, bits: u8 },
    Local { offset: u32 },
    Shared { offset: u32 },
    Param { place: Place },
    Global(Symbol),
}

/// Names of the module.
#[derive(Debug, Default)]
pub(super) struct Globals<'a> {
    pub(super) names: HashMap<&'a str, Binding>,
    /// Bytes of shared memory given out so far.
    pub(super) shared_bytes: u32,
}

/// A function that is being decoded.
pub(super) struct Body<'a, 'g> {
    pub(super) globals: &'g mut Globals<'a>,
    pub(super) function: Function,
    scopes: Vec<HashMap<&'a str, Binding>>,
    /// First slot, number and width of the families `%r<n>`, by scope.
    families: Vec<Vec<(&'a str, Slot, u32, u8)>>,
    constants: HashMap<u64, Slot>,
    pub(super) labels: HashMap<&'a str, u32>,
    pub(super) tables: HashMap<&'a str, (u32, u32)>,
    /// Line of the instruction that is being decoded.
    pub(super) line: u32,
    pub(super) guard: (Slot, bool),
}

/// What is wrong with an instruction.
pub(super) type Reason = String;

pub(super) fn align_up(at: u32, align: u32) -> u32 {
    at.next_multiple_of(align.max(1))
}

impl<'a, 'g> Body<'a, 'g> {
    pub(super) fn new(globals: &'g mut Globals<'a>, function: Function) -> Self {
        Self {
            globals,
            function,
            scopes: vec![HashMap::new()],
            families: vec![Vec::new()],
            constants: HashMap::new(),
            labels: HashMap::new(),
            tables: HashMap::new(),
            line: 0,
            guard: (NO_SLOT, false),
        }
    }

    pub(super) fn open(&mut self) {
        self.scopes.push(HashMap::new());
        self.families.push(Vec::new());
    }

    pub(super) fn close(&mut self) {
        self.scopes.pop();
        self.families.pop();
    }

    /// A slot with this value at the start.
    pub(super) fn slot(&mut self, value: u64) -> Slot {
        self.function.slots.push(value);
        (self.function.slots.len() - 1) as Slot
    }

    pub(super) fn constant(&mut self, value: u64) -> Slot {
        if let Some(slot) = self.constants.get(&value) {
            return *slot;
        }
        let slot = self.slot(value);
        self.constants.insert(value, slot);
        slot
    }

    fn bind(&mut self, name: &'a str, binding: Binding) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(name, binding);
        }
    }

    pub(super) fn declare_registers(&mut self, name: &'a str, count: Option<u32>, bits: u8) {
        let slot = self.function.slots.len() as Slot;
        let extra = count.unwrap_or(1) as usize;
        self.function.slots.resize(slot as usize + extra, 0);
        match count {
            None => self.bind(name, Binding::Register { slot, bits }),
            Some(count) => {
                if let Some(scope) = self.families.last_mut() {
                    scope.push((name, slot, count, bits));
                }
            }
        }
    }

    /// Room for a parameter or result in the frame.
    pub(super) fn declare_param(&mut self, variable: &Variable<'a>) -> Place {
        let offset = align_up(self.function.param_bytes, variable.align);
        self.function.param_bytes = offset + variable.size();
        let place = Place { offset, size: variable.size() };
        self.bind(variable.name, Binding::Param { place });
        place
    }

    pub(super) fn declare_variable(&mut self, variable: &Variable<'a>) {
        match variable.space {
            VarSpace::Shared => {
                let offset = self.globals.declare_shared(variable);
                self.bind(variable.name, Binding::Shared { offset });
            }
            VarSpace::Local => {
                let offset = align_up(self.function.local_bytes, variable.align);
                self.function.local_bytes = offset + variable.size();
                self.bind(variable.name, Binding::Local { offset });
            }
            _ => {
                self.declare_param(variable);
            }
        }
    }

    pub(super) fn lookup(&self, name: &str) -> Option<Binding> {
        for (scope, families) in self.scopes.iter().zip(&self.families).rev() {
            if let Some(binding) = scope.get(name) {
                return Some(*binding);
            }
            let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
            let Ok(number) = name[stem.len()..].parse::<u32>() else { continue };
            for (family, first, count, bits) in families {
                if *family == stem && number < *count {
                    return Some(Binding::Register { slot: first + number, bits: *bits });
                }
            }
        }
        self.globals.names.get(name).copied()
    }

    pub(super) fn emit(&mut self, op: Op) {
        let (guard, negated) = self.guard;
        self.function.code.push(Instruction { op, guard, negated, line: self.line });
    }

    /// A register that is written, and its width. `_` is no register.
    pub(super) fn target(&self, operand: &Operand<'a>) -> Result<(Slot, u8), Reason> {
        match operand {
            Operand::Name("_", 0) => Ok((NO_SLOT, 64)),
            Operand::Name(name, 0) => match self.lookup(name) {
                Some(Binding::Register { slot, bits }) => Ok((slot, bits)),
                _ => Err(format!("{name} is not a declared register")),
            },
            _ => Err("a register expected".into()),
        }
    }

    /// A predicate by name.
    pub(super) fn predicate(&self, name: &str) -> Result<Slot, Reason> {
        match self.lookup(name) {
            Some(Binding::Register { slot, bits: 1 }) => Ok(slot),
            _ => Err(format!("{name} is not a declared predicate")),
        }
    }

    /// A value that is read, as a slot. Constants are cut to `bits`.
    pub(super) fn value(&mut self, operand: &Operand<'a>, bits: u8) -> Result<Slot, Reason> {
        let mask = crate::op::mask(bits);
        match operand {
            Operand::Int(value) => Ok(self.constant(value & mask)),
            Operand::Single(value) => Ok(self.constant(u64::from(*value))),
            Operand::Double(value) => Ok(self.constant(*value)),
            Operand::Name("WARP_SZ", 0) => Ok(self.constant(32)),
            Operand::Name(name, offset) => self.named_value(name, *offset),
            _ => Err("a register or constant expected".into()),
        }
    }

    fn named_value(&mut self, name: &str, offset: i64) -> Result<Slot, Reason> {
        match self.lookup(name) {
            Some(Binding::Register { slot, .. }) if offset == 0 => Ok(slot),
            Some(Binding::Shared { offset: at }) => Ok(self.constant(i64::from(at).wrapping_add(offset) as u64)),
            Some(Binding::Global(symbol)) => {
                let slot = self.slot(0);
                self.function.relocations.push((slot, symbol, offset));
                Ok(slot)
            }
            Some(Binding::Local { offset: at }) => {
                let dst = self.slot(0);
                self.emit(Op::LocalAddress { dst, offset: at.wrapping_add(offset as u32) });
                Ok(dst)
            }
            Some(Binding::Param { place }) if self.function.is_entry => {
                let dst = self.slot(0);
                self.emit(Op::ParamAddress { dst, offset: place.offset.wrapping_add(offset as u32) });
                Ok(dst)
            }
            Some(Binding::Param { .. }) => Err("the address of a device function's parameter is not supported".into()),
            Some(Binding::Register { .. }) => Err("an offset makes no sense here".into()),
            None => match super::special::special(name) {
                Some(what) => {
                    let dst = self.slot(0);
                    self.emit(Op::Special { what, dst });
                    Ok(dst)
                }
                None if name.starts_with('%') => Err(format!("the register {name} is neither declared nor known")),
                None => Err(format!("{name} is not declared")),
            },
        }
    }
}

impl<'a> Globals<'a> {
    /// Room for a static variable in shared memory.
    pub(super) fn declare_shared(&mut self, variable: &Variable<'a>) -> u32 {
        let offset = align_up(self.shared_bytes, variable.align);
        self.shared_bytes = offset + variable.size();
        offset
    }
}
