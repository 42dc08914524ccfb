//! Decoded instructions. Registers and constants of a function share one array of 64-bit *slots* in its frame, so that
//! every operand is a slot number. A slot narrower than 64 bits is kept zero-extended.

/// Index into a frame's slots.
pub(crate) type Slot = u32;

/// "No such operand": `_`, or an instruction without a result.
pub(crate) const NO_SLOT: Slot = Slot::MAX;

/// State spaces of memory instructions (PTX ISA 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    Generic,
    Global,
    Const,
    Shared,
    Local,
    /// Parameters and return values, at an offset in the frame.
    Param,
}

/// Order of a memory operation (PTX ISA 8.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Plain: no order, and a race with any concurrent write.
    Weak,
    /// `volatile`: relaxed at system scope, and not to be used for synchronisation.
    Volatile,
    /// `relaxed`
    Relaxed,
    /// `acquire`
    Acquire,
    /// `release`
    Release,
    /// `acq_rel`
    AcqRel,
    /// `sc`, of fences only.
    Sc,
}

impl Order {
    pub(crate) fn acquires(self) -> bool {
        matches!(self, Self::Acquire | Self::AcqRel | Self::Sc)
    }

    pub(crate) fn releases(self) -> bool {
        matches!(self, Self::Release | Self::AcqRel | Self::Sc)
    }
}

/// Scope of a strong operation (PTX ISA 8.5): the threads with which it synchronises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// The threads of the same block.
    Cta,
    /// The threads of the same device.
    Gpu,
    /// All threads, those of the host among them.
    Sys,
}

/// What a load, store or atomic accesses, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access {
    pub(crate) space: Space,
    pub(crate) bytes: u8,
    /// Elements of a vector.
    pub(crate) lanes: u8,
    pub(crate) order: Order,
    pub(crate) scope: Scope,
    /// A load sign-extends.
    pub(crate) signed: bool,
    /// Bits of the destination register.
    pub(crate) wide: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Unsigned,
    Signed,
    Bits,
    Float,
}

/// A fundamental type. A predicate is one bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Type {
    pub(crate) kind: Kind,
    pub(crate) bits: u8,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Unary {
    Not,
    LogicalNot,
    Neg,
    Abs,
    Popc,
    Clz,
    Brev,
    FindSigned,
    FindUnsigned,
    FloatNeg,
    FloatAbs,
    Sqrt,
    Reciprocal,
    ReciprocalSqrt,
    Exp2,
    Log2,
    Sin,
    Cos,
    Tanh,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Binary {
    Add,
    Sub,
    AddSat,
    SubSat,
    Mul,
    MulHighU,
    MulHighS,
    MulWideU,
    MulWideS,
    DivU,
    DivS,
    RemU,
    RemS,
    And,
    Or,
    Xor,
    Shl,
    ShrU,
    ShrS,
    MinU,
    MinS,
    MaxU,
    MaxS,
    FloatAdd,
    FloatSub,
    FloatMul,
    FloatDiv,
    FloatMin,
    FloatMax,
    FloatMinNan,
    FloatMaxNan,
    CopySign,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Ternary {
    Mad,
    MadHighU,
    MadHighS,
    MadWideU,
    MadWideS,
    SadU,
    SadS,
    BfeU,
    BfeS,
    Prmt,
    FunnelLeftWrap,
    FunnelLeftClamp,
    FunnelRightWrap,
    FunnelRightClamp,
    Fma,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Quaternary {
    Bfi,
    Lop3,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compare {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    /// The unordered forms: true if an operand is not a number.
    Equ,
    Neu,
    Ltu,
    Leu,
    Gtu,
    Geu,
    Num,
    Nan,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Bool {
    And,
    Or,
    Xor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Round {
    Nearest,
    Zero,
    Down,
    Up,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Convert {
    pub(crate) to: Type,
    pub(crate) from: Type,
    pub(crate) round: Round,
    /// Rounds to an integral value (`rni`, `rzi`, `rmi`, `rpi`).
    pub(crate) integral: bool,
    pub(crate) saturate: bool,
    /// Bits of the destination register.
    pub(crate) wide: u8,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Rmw {
    Add,
    FloatAdd,
    Exchange,
    CompareExchange,
    MinU,
    MinS,
    MaxU,
    MaxS,
    And,
    Or,
    Xor,
    Inc,
    Dec,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Special {
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    Lane,
    Warp,
    Warps,
    MaskEq,
    MaskLe,
    MaskLt,
    MaskGe,
    MaskGt,
    Sm,
    Sms,
    Grid,
    Clock,
    ClockHigh,
    Clock64,
    Timer,
    TimerLow,
    TimerHigh,
    DynamicShared,
    TotalShared,
}

/// Which lane a shuffle reads from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shuffle {
    Index,
    Up,
    Down,
    Butterfly,
}

/// An operation that the lanes named by a mask execute together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Collective {
    Shuffle(Shuffle),
    VoteAll,
    VoteAny,
    VoteUniform,
    Ballot,
    MatchAny,
    MatchAll,
    /// `redux.sync`, by its read-modify-write.
    ReduceAdd,
    ReduceAnd,
    ReduceOr,
    ReduceXor,
    ReduceMinU,
    ReduceMinS,
    ReduceMaxU,
    ReduceMaxS,
    Elect,
    /// `bar.warp.sync`, the only one that orders memory.
    Barrier,
}

/// Operands of a collective operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CollectiveOp {
    pub(crate) what: Collective,
    pub(crate) dst: Slot,
    /// Predicate result.
    pub(crate) flag: Slot,
    pub(crate) a: Slot,
    pub(crate) b: Slot,
    pub(crate) c: Slot,
    pub(crate) mask: Slot,
    /// `a` is a negated predicate.
    pub(crate) negated: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    Nop,
    Move {
        dst: Slot,
        a: Slot,
    },
    Unary {
        f: Unary,
        bits: u8,
        dst: Slot,
        a: Slot,
    },
    Binary {
        f: Binary,
        bits: u8,
        dst: Slot,
        a: Slot,
        b: Slot,
    },
    Ternary {
        f: Ternary,
        bits: u8,
        dst: Slot,
        a: Slot,
        b: Slot,
        c: Slot,
    },
    Quaternary {
        f: Quaternary,
        bits: u8,
        dst: Slot,
        operands: [Slot; 4],
    },
    /// `add.cc` and kin: adds `a`, `b` (inverted for a subtraction) and the carry.
    Carry {
        bits: u8,
        subtract: bool,
        reads: bool,
        writes: bool,
        dst: Slot,
        a: Slot,
        b: Slot,
    },
    Convert {
        how: Convert,
        dst: Slot,
        a: Slot,
    },
    /// `setp`; `other` gets the opposite comparison.
    Compare {
        f: Compare,
        ty: Type,
        dst: Slot,
        other: Slot,
        a: Slot,
        b: Slot,
    },
    /// The combination of a comparison's results with a predicate.
    Combine {
        f: Bool,
        dst: Slot,
        other: Slot,
        p: Slot,
        negated: bool,
    },
    Select {
        dst: Slot,
        a: Slot,
        b: Slot,
        p: Slot,
    },
    /// Joins `count` registers of `bits` each, the lowest first.
    Pack {
        dst: Slot,
        bits: u8,
        list: u32,
        count: u32,
    },
    Unpack {
        a: Slot,
        bits: u8,
        list: u32,
        count: u32,
    },
    Load {
        access: Access,
        dst: Slot,
        base: Slot,
        offset: i32,
    },
    Store {
        access: Access,
        src: Slot,
        base: Slot,
        offset: i32,
    },
    Atomic {
        f: Rmw,
        access: Access,
        dst: Slot,
        base: Slot,
        offset: i32,
        operands: u32,
    },
    Fence {
        order: Order,
        scope: Scope,
    },
    /// Address of a variable in the frame's part of local memory.
    LocalAddress {
        dst: Slot,
        offset: u32,
    },
    /// Address of a parameter of the kernel.
    ParamAddress {
        dst: Slot,
        offset: u32,
    },
    /// Between a window's own addresses and generic ones.
    ToGeneric {
        space: Space,
        dst: Slot,
        a: Slot,
    },
    FromGeneric {
        space: Space,
        dst: Slot,
        a: Slot,
    },
    IsSpace {
        space: Space,
        dst: Slot,
        a: Slot,
    },
    Special {
        what: Special,
        dst: Slot,
    },
    Branch {
        target: u32,
    },
    BranchTable {
        index: Slot,
        list: u32,
        count: u32,
    },
    Call {
        site: u32,
    },
    Return,
    Exit,
    Trap,
    Sleep {
        ns: Slot,
    },
    /// `bar.sync`; `count` may be absent.
    Barrier {
        id: Slot,
        count: Slot,
    },
    ActiveMask {
        dst: Slot,
    },
    Collective {
        list: u32,
    },
}

/// An instruction: what it does, when, and where it stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Instruction {
    pub(crate) op: Op,
    /// Predicate that guards it, or [`NO_SLOT`].
    pub(crate) guard: Slot,
    pub(crate) negated: bool,
    pub(crate) line: u32,
}

/// Where a parameter lies in a frame's parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) offset: u32,
    pub(crate) size: u32,
}

/// Whom a call calls.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Callee {
    /// Index among the functions of the module, later of the machine.
    Function(u32),
    /// Through a pointer.
    Pointer(Slot),
}

#[derive(Clone, Debug)]
pub(crate) struct CallSite {
    pub(crate) callee: Callee,
    pub(crate) arguments: Vec<Place>,
    pub(crate) results: Vec<Place>,
}

/// What a slot's constant refers to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Symbol {
    /// Index among the module's variables.
    Variable(u32),
    /// Index among the module's functions.
    Function(u32),
}

/// A decoded function.
#[derive(Clone, Debug, Default)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) is_entry: bool,
    /// Index of the module in the machine.
    pub(crate) module: u32,
    pub(crate) code: Vec<Instruction>,
    /// Registers (zero) and constants.
    pub(crate) slots: Vec<u64>,
    /// Constants that depend on where things are loaded: slot, what, offset.
    pub(crate) relocations: Vec<(Slot, Symbol, i64)>,
    /// Slots and branch targets that instructions refer to by position.
    pub(crate) lists: Vec<u32>,
    pub(crate) calls: Vec<CallSite>,
    pub(crate) collectives: Vec<CollectiveOp>,
    pub(crate) params: Vec<Place>,
    pub(crate) results: Vec<Place>,
    /// Bytes of parameters, results and those of calls.
    pub(crate) param_bytes: u32,
    /// Bytes of local memory.
    pub(crate) local_bytes: u32,
}

impl Function {
    #[inline(always)]
    pub(crate) fn list(&self, first: u32, count: u32) -> &[u32] {
        &self.lists[first as usize..(first + count) as usize]
    }
}

/// All ones in the low `bits` bits.
#[inline(always)]
pub(crate) const fn mask(bits: u8) -> u64 {
    u64::MAX >> (64 - bits as u32)
}

/// The low `bits` bits as a signed number.
#[inline(always)]
pub(crate) const fn sign_extend(value: u64, bits: u8) -> i64 {
    let shift = 64 - bits as u32;
    ((value << shift) as i64) >> shift
}
