//! The tree to a program: layout of variables, names to slots, mnemonics to [operations](crate::op). Whatever is not
//! understood is refused here, before anything runs.

mod arithmetic;
mod collective;
mod control;
mod memory;
mod mnemonic;
mod scope;
mod special;

use crate::op::{Function, NO_SLOT, Op, Symbol};
use crate::parse::ast::{self, Init, Operand, Statement, VarSpace};
use crate::parse::{ParseError, parse};
use mnemonic::Mnemonic;
use scope::{Binding, Body, Globals, Reason};
use std::sync::Arc;

/// A variable in global or constant memory.
#[derive(Clone, Debug)]
pub(crate) struct Static {
    pub(crate) name: String,
    pub(crate) align: u32,
    pub(crate) constant: bool,
    pub(crate) bytes: Vec<u8>,
    pub(crate) relocations: Vec<StaticRelocation>,
}

/// An address within a variable's initial value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StaticRelocation {
    pub(crate) at: usize,
    pub(crate) bytes: usize,
    pub(crate) symbol: Symbol,
    pub(crate) offset: i64,
    pub(crate) shift: u32,
}

/// PTX that has been read and understood. It can be [loaded](crate::Machine::load) into any number of machines.
#[derive(Clone, Debug)]
pub struct Module {
    pub(crate) source: Arc<str>,
    pub(crate) functions: Vec<Function>,
    pub(crate) statics: Vec<Static>,
    /// Bytes of static shared memory; dynamic shared memory follows.
    pub(crate) shared_bytes: u32,
}

impl Module {
    /// Reads the text of a PTX module.
    ///
    /// # Errors
    /// [`ParseError`] names the line that is malformed, or holds an instruction, modifier or directive that the
    /// executor does not know, or refers to something that is not defined.
    pub fn parse(source: &str) -> Result<Self, ParseError> {
        let tree = parse(source)?;
        let mut globals = Globals::default();
        let dynamic_at = static_shared_bytes(&tree);
        let mut statics = Vec::new();
        for variable in &tree.variables {
            let binding = match variable.space {
                VarSpace::Shared if variable.external => Binding::Shared { offset: dynamic_at },
                VarSpace::Shared => Binding::Shared { offset: globals.declare_shared(variable) },
                _ if variable.external => {
                    return Err(ParseError::at(source, variable.line, "an external variable that nobody defines"));
                }
                _ => {
                    statics.push(variable);
                    Binding::Global(Symbol::Variable((statics.len() - 1) as u32))
                }
            };
            globals.names.insert(variable.name, binding);
        }
        let defined: Vec<_> = tree.functions.iter().filter(|f| f.body.is_some()).collect();
        for (index, function) in defined.iter().enumerate() {
            globals.names.insert(function.name, Binding::Global(Symbol::Function(index as u32)));
        }
        let statics = statics.into_iter().map(|v| initial_value(source, &globals, v)).collect::<Result<_, _>>()?;
        let mut functions =
            defined.iter().map(|f| function(source, &mut globals, f)).collect::<Result<Vec<_>, ParseError>>()?;
        check_calls(source, &mut functions)?;
        Ok(Self { source: source.into(), functions, statics, shared_bytes: dynamic_at })
    }

    /// Names of the kernels, in the order of the text.
    pub fn kernels(&self) -> impl Iterator<Item = &str> {
        self.functions.iter().filter(|f| f.is_entry).map(|f| f.name.as_str())
    }
}

/// An upper bound for all static shared variables of the module, wherever they are declared.
fn static_shared_bytes(tree: &ast::Tree<'_>) -> u32 {
    let inner = tree.functions.iter().flat_map(|f| f.body.iter().flatten()).filter_map(|s| match s {
        Statement::Variable(variable) => Some(variable),
        _ => None,
    });
    let all = tree.variables.iter().chain(inner).filter(|v| v.space == VarSpace::Shared && !v.external);
    all.map(|v| v.size() + v.align).sum::<u32>().next_multiple_of(128)
}

fn initial_value(source: &str, globals: &Globals<'_>, variable: &ast::Variable<'_>) -> Result<Static, ParseError> {
    let element = variable.element as usize;
    let count = variable.count.map_or(variable.init.len(), |c| c as usize);
    if variable.init.len() > count {
        return Err(ParseError::at(source, variable.line, "more initial values than elements"));
    }
    let mut bytes = vec![0; element * count];
    let mut relocations = Vec::new();
    for (at, init) in (0..).step_by(element).zip(&variable.init) {
        match *init {
            Init::Value(value) => bytes[at..at + element].copy_from_slice(&value.to_le_bytes()[..element]),
            Init::Symbol { name, offset, shift } => match globals.names.get(name) {
                Some(Binding::Global(symbol)) => {
                    relocations.push(StaticRelocation { at, bytes: element, symbol: *symbol, offset, shift });
                }
                _ => return Err(ParseError::at(source, variable.line, format!("{name} is not defined"))),
            },
        }
    }
    let constant = variable.space == VarSpace::Const;
    Ok(Static { name: variable.name.to_owned(), align: variable.align, constant, bytes, relocations })
}

fn function<'a>(source: &str, globals: &mut Globals<'a>, tree: &ast::Function<'a>) -> Result<Function, ParseError> {
    let start = Function { name: tree.name.to_owned(), is_entry: tree.is_entry, ..Function::default() };
    let mut body = Body::new(globals, start);
    body.function.params = tree.params.iter().map(|p| body.declare_param(p)).collect();
    body.function.results = tree.returns.iter().map(|p| body.declare_param(p)).collect();
    // Branches whose label may come later: where it goes, in the code or in the lists.
    let (mut branches, mut entries) = (Vec::new(), Vec::new());
    for statement in tree.body.iter().flatten() {
        match statement {
            Statement::Open => body.open(),
            Statement::Close => body.close(),
            Statement::Label(name) => {
                let at = body.function.code.len() as u32;
                body.labels.insert(name, at);
            }
            Statement::Registers { bits, name, count } => body.declare_registers(name, *count, *bits),
            Statement::Variable(variable) => body.declare_variable(variable),
            Statement::Targets { name, labels } => {
                let first = body.function.lists.len();
                body.tables.insert(name, (first as u32, labels.len() as u32));
                entries.extend(labels.iter().zip(first..).map(|(label, at)| (at, *label)));
                body.function.lists.resize(first + labels.len(), 0);
            }
            Statement::Instruction(instruction) => {
                let refuse = |reason: Reason| ParseError::at(source, instruction.line, reason);
                body.line = instruction.line;
                body.guard = match instruction.guard {
                    Some((name, negated)) => (body.predicate(name).map_err(refuse)?, negated),
                    None => (NO_SLOT, false),
                };
                if let ("bra" | "bra.uni", [Operand::Name(label, 0)]) =
                    (instruction.mnemonic, &instruction.operands[..])
                {
                    branches.push((body.function.code.len(), *label, instruction.line));
                }
                one(&mut body, instruction).map_err(refuse)?;
            }
        }
    }
    for (at, label, line) in branches {
        let Some(target) = body.labels.get(label) else {
            return Err(ParseError::at(source, line, format!("there is no label {label}")));
        };
        body.function.code[at].op = Op::Branch { target: *target };
    }
    for (at, label) in entries {
        let Some(target) = body.labels.get(label) else {
            return Err(ParseError::at(source, tree.line, format!("there is no label {label}")));
        };
        body.function.lists[at] = *target;
    }
    // A function may end without a `ret`.
    body.guard = (NO_SLOT, false);
    body.emit(Op::Return);
    body.function.param_bytes = body.function.param_bytes.next_multiple_of(16);
    body.function.local_bytes = body.function.local_bytes.next_multiple_of(16);
    Ok(body.function)
}

/// Decodes one instruction into one or more operations.
fn one<'a>(body: &mut Body<'a, '_>, instruction: &ast::Instruction<'a>) -> Result<(), Reason> {
    let mut mnemonic = Mnemonic::new(instruction.mnemonic);
    let operands = &instruction.operands[..];
    let known = memory::decode(body, &mut mnemonic, operands)?
        || control::decode(body, &mut mnemonic, operands)?
        || collective::decode(body, &mut mnemonic, operands)?
        || arithmetic::decode(body, &mut mnemonic, operands)?;
    if !known {
        return Err(format!("the instruction {} is not supported", instruction.mnemonic));
    }
    mnemonic.finish()
}

/// Arguments of each direct call fit their parameters.
fn check_calls(source: &str, functions: &mut [Function]) -> Result<(), ParseError> {
    for function in &*functions {
        for instruction in &function.code {
            let Op::Call { site } = instruction.op else { continue };
            let site = &function.calls[site as usize];
            let crate::op::Callee::Function(callee) = site.callee else { continue };
            let callee = &functions[callee as usize];
            let sizes = |places: &[crate::op::Place]| places.iter().map(|p| p.size).collect::<Vec<_>>();
            if sizes(&site.arguments) != sizes(&callee.params) || sizes(&site.results) != sizes(&callee.results) {
                return Err(ParseError::at(source, instruction.line, "arguments that do not fit the function called"));
            }
        }
    }
    Ok(())
}
