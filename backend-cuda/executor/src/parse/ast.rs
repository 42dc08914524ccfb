//! What the parser makes of a module. Names borrow from the source.

/// State spaces of variables (PTX ISA 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VarSpace {
    Global,
    Const,
    Shared,
    Local,
    Param,
}

/// A variable, parameter or return value.
#[derive(Clone, Debug)]
pub(crate) struct Variable<'a> {
    pub(crate) space: VarSpace,
    pub(crate) name: &'a str,
    pub(crate) align: u32,
    /// Bytes of one element.
    pub(crate) element: u32,
    /// Elements; `None` for an array of unknown size.
    pub(crate) count: Option<u32>,
    pub(crate) init: Vec<Init<'a>>,
    pub(crate) external: bool,
    pub(crate) line: u32,
}

impl Variable<'_> {
    pub(crate) fn size(&self) -> u32 {
        self.element.saturating_mul(self.count.unwrap_or(0))
    }
}

/// One element of an initialiser.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Init<'a> {
    Value(u64),
    /// An address, of which the element holds the bits from `shift` on.
    Symbol {
        name: &'a str,
        offset: i64,
        shift: u32,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Function<'a> {
    pub(crate) name: &'a str,
    pub(crate) is_entry: bool,
    pub(crate) params: Vec<Variable<'a>>,
    pub(crate) returns: Vec<Variable<'a>>,
    /// `None` for a declaration.
    pub(crate) body: Option<Vec<Statement<'a>>>,
    pub(crate) line: u32,
}

#[derive(Clone, Debug)]
pub(crate) enum Statement<'a> {
    Label(&'a str),
    /// `.reg`: width in bits, name, and how many numbered ones if it is a family.
    Registers {
        bits: u8,
        name: &'a str,
        count: Option<u32>,
    },
    Variable(Variable<'a>),
    /// `.branchtargets`, with the label before it.
    Targets {
        name: &'a str,
        labels: Vec<&'a str>,
    },
    Open,
    Close,
    Instruction(Instruction<'a>),
}

#[derive(Clone, Debug)]
pub(crate) struct Instruction<'a> {
    pub(crate) line: u32,
    /// Predicate, and whether it is negated.
    pub(crate) guard: Option<(&'a str, bool)>,
    pub(crate) mnemonic: &'a str,
    pub(crate) operands: Vec<Operand<'a>>,
}

#[derive(Clone, Debug)]
pub(crate) enum Operand<'a> {
    /// Register, special register, symbol or label, with an offset.
    Name(&'a str, i64),
    Int(u64),
    Single(u32),
    Double(u64),
    Not(&'a str),
    /// `a|b`
    Pair(&'a str, &'a str),
    Address(Box<Operand<'a>>),
    Vector(Vec<Operand<'a>>),
    List(Vec<Operand<'a>>),
}

/// A parsed module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree<'a> {
    pub(crate) variables: Vec<Variable<'a>>,
    pub(crate) functions: Vec<Function<'a>>,
}
