//! Reads the text of a PTX module, as far as an audit needs it: functions, instructions, labels, and who calls whom.
//!
//! Nothing is refused because it is unknown: an instruction is a mnemonic and operands, whatever they mean. (The crate
//! `k2k-ptx-executor` knows what they mean, and refuses the rest.)

use crate::access::Access;
use core::fmt;
use std::collections::{BTreeSet, HashMap};

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Its line, from 1.
    pub line: usize,
    /// The predicate before it, such as `@!%p1`, or nothing.
    pub guard: String,
    /// Mnemonic and modifiers, such as `ld.acquire.sys.b64`.
    pub opcode: String,
    /// What follows, spaces made single.
    pub operands: String,
}

impl Instruction {
    /// The access to memory or the fence that it is, if it is one.
    #[must_use]
    pub fn access(&self) -> Option<Access> {
        Access::of(&self.opcode)
    }

    /// The mnemonic without modifiers, such as `ld`.
    #[must_use]
    pub fn mnemonic(&self) -> &str {
        self.opcode.split('.').next().unwrap_or("")
    }

    /// What it calls: a function's name, or a register.
    #[must_use]
    pub fn callee(&self) -> Option<&str> {
        if self.mnemonic() != "call" {
            return None;
        }
        // `NAME`, `NAME, (…)`, `(…), NAME, (…)`; a register and a prototype where it goes through a pointer.
        let rest = match self.operands.strip_prefix('(') {
            Some(results) => results.split_once(')')?.1.trim_start_matches([',', ' ']),
            None => &self.operands,
        };
        rest.split([',', ' ']).find(|word| !word.is_empty())
    }

    /// What is between the brackets: the address of a load or store.
    #[must_use]
    pub fn address(&self) -> Option<&str> {
        let (_, rest) = self.operands.split_once('[')?;
        Some(rest.split_once(']')?.0.trim())
    }
}

impl fmt::Display for Instruction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.guard, &self.opcode].into_iter().filter(|part| !part.is_empty()) {
            write!(f, "{part} ")?;
        }
        write!(f, "{};", self.operands)
    }
}

/// A function with a body.
#[derive(Clone, Debug, Default)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Whether the host can launch it.
    pub is_entry: bool,
    /// The line of its head, from 1.
    pub line: usize,
    /// Its instructions in the order of the file.
    pub instructions: Vec<Instruction>,
    /// The line of its `.local` memory, if it has any: where the compiler keeps what is not in registers.
    pub local_line: Option<usize>,
    /// Index into `instructions` of what follows a label.
    labels: HashMap<String, usize>,
    /// Labels that a branch table goes to.
    tables: HashMap<String, Vec<String>>,
}

/// A part of a function that is repeated: from the target of a branch backwards to the last such branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loop {
    /// Index of the first instruction.
    pub first: usize,
    /// Index of the last instruction.
    pub last: usize,
}

impl Function {
    /// Its loops, in the order of the file; one that lies in another comes later. A branch backwards to what never
    /// comes back to it is none: compilers put what is rare behind what is not.
    #[must_use]
    pub fn loops(&self) -> Vec<Loop> {
        let mut ends: HashMap<usize, usize> = HashMap::new();
        for index in 0..self.instructions.len() {
            for first in self.targets(index).filter(|first| *first <= index && self.reaches(*first, index)) {
                ends.entry(first).and_modify(|last| *last = index.max(*last)).or_insert(index);
            }
        }
        let mut loops: Vec<Loop> = ends.into_iter().map(|(first, last)| Loop { first, last }).collect();
        loops.sort_by_key(|it| (it.first, usize::MAX - it.last));
        loops
    }

    /// Where an instruction may branch to.
    fn targets(&self, index: usize) -> impl Iterator<Item = usize> {
        let instruction = &self.instructions[index];
        let labels: Vec<&str> = match instruction.mnemonic() {
            "bra" => vec![instruction.operands.trim()],
            "brx" => {
                let table = instruction.operands.rsplit(',').next().unwrap_or("").trim();
                self.tables.get(table).into_iter().flatten().map(String::as_str).collect()
            }
            _ => Vec::new(),
        };
        labels.into_iter().filter_map(|label| self.labels.get(label).copied())
    }

    /// Whether control can come from one instruction to another.
    fn reaches(&self, from: usize, to: usize) -> bool {
        let mut seen = vec![false; self.instructions.len()];
        let mut open = vec![from];
        while let Some(index) = open.pop() {
            if index == to {
                return true;
            }
            if self.instructions.get(index).is_none() || core::mem::replace(&mut seen[index], true) {
                continue;
            }
            open.extend(self.targets(index));
            let instruction = &self.instructions[index];
            let leaves = matches!(instruction.mnemonic(), "bra" | "brx" | "ret" | "exit" | "trap");
            if !leaves || !instruction.guard.is_empty() {
                open.push(index + 1);
            }
        }
        false
    }
}

/// Those of `symbols` that are `name`, or else have it in the path that they were made of.
pub fn named<'s>(symbols: impl Iterator<Item = &'s str> + Clone, name: &str) -> Vec<&'s str> {
    let exact: Vec<_> = symbols.clone().filter(|symbol| *symbol == name).collect();
    if exact.is_empty() { symbols.filter(|symbol| is_name(symbol, name)).collect() } else { exact }
}

/// Whether `name` is that of a function called `symbol`, or a part of the path that the symbol was made of.
///
/// Each part of a mangled path stands behind its length (and an underscore, where it would otherwise begin with a
/// digit), so that no part is found within another.
#[must_use]
pub fn is_name(symbol: &str, name: &str) -> bool {
    if symbol == name {
        return true;
    }
    let part = format!("{}{name}", name.len());
    let Some(at) = symbol.rfind(&part).filter(|_| symbol.starts_with("_R")) else { return false };
    let (before, after) = (&symbol[..at], &symbol[at + part.len()..]);
    !before.ends_with(|c: char| c.is_ascii_digit()) && !after.starts_with(|c: char| c.is_ascii_digit())
}

/// A module: what one file holds.
#[derive(Clone, Debug)]
pub struct Module {
    /// The version of PTX, such as `7.0`.
    pub version: String,
    /// The oldest processor it runs on, such as `sm_70`.
    pub target: String,
    /// The functions with a body, in the order of the file.
    pub functions: Vec<Function>,
    /// Functions whose address is somewhere, so that a call through a pointer may reach them.
    pointed_at: BTreeSet<String>,
}

/// Why a file is not PTX that can be audited.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParseError {
    /// It does not begin with a version and a target.
    NotPtx,
    /// It ends within a function.
    CutOff {
        /// The function.
        function: String,
        /// The line of its head, from 1.
        line: usize,
    },
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPtx => {
                write!(
                    f,
                    "not PTX: it has no lines `.version` and `.target` (PTX is text, such as `k2k-ptx build` writes)"
                )
            }
            Self::CutOff { function, line } => {
                write!(f, "cut off: it ends within the function {function}, which begins in line {line}")
            }
        }
    }
}

impl core::error::Error for ParseError {}

impl Module {
    /// Reads a module.
    ///
    /// # Errors
    /// If it is not PTX, or ends within a function.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut reader = Reader::default();
        reader.read(text);
        if let Some(function) = reader.function {
            return Err(ParseError::CutOff { function: function.name, line: function.line });
        }
        if reader.version.is_empty() || reader.target.is_empty() {
            return Err(ParseError::NotPtx);
        }
        let names: BTreeSet<&str> = reader.functions.iter().map(|function| function.name.as_str()).collect();
        let pointed_at = reader.mentioned.iter().filter(|name| names.contains(name.as_str())).cloned().collect();
        Ok(Self { version: reader.version, target: reader.target, functions: reader.functions, pointed_at })
    }

    /// The entry points.
    pub fn entries(&self) -> impl Iterator<Item = &Function> {
        self.functions.iter().filter(|function| function.is_entry)
    }

    /// The function and all that it may call, each once, itself first.
    #[must_use]
    pub fn reached_from<'a>(&'a self, function: &'a Function) -> Vec<&'a Function> {
        let by_name: HashMap<&str, &Function> =
            self.functions.iter().map(|function| (function.name.as_str(), function)).collect();
        let mut reached = vec![function];
        let mut next = 0;
        while let Some(function) = reached.get(next) {
            next += 1;
            for callee in function.instructions.iter().filter_map(Instruction::callee).collect::<Vec<_>>() {
                let through_pointer = callee.starts_with('%');
                let names = through_pointer.then(|| self.pointed_at.iter().map(String::as_str)).into_iter().flatten();
                for name in names.chain((!through_pointer).then_some(callee)) {
                    if let Some(function) = by_name.get(name)
                        && !reached.iter().any(|it| core::ptr::eq(*it, *function))
                    {
                        reached.push(function);
                    }
                }
            }
        }
        reached
    }
}

/// The state of [`Module::parse`].
#[derive(Default)]
struct Reader {
    version: String,
    target: String,
    functions: Vec<Function>,
    /// The one whose body is being read.
    function: Option<Function>,
    /// Blocks open within it, its body included.
    depth: usize,
    /// The label before the statement.
    label: Option<String>,
    /// Names in places that can hold a function's address.
    mentioned: BTreeSet<String>,
}

impl Reader {
    fn read(&mut self, text: &str) {
        let mut statement = String::new();
        let (mut line, mut first_line) = (1, 1);
        // Braces open within the statement: vectors of registers, initial values.
        let mut nested = 0usize;
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            if c == '\n' {
                line += 1;
            }
            match c {
                '/' if chars.peek() == Some(&'/') => {
                    while chars.peek().is_some_and(|c| *c != '\n') {
                        chars.next();
                    }
                }
                '/' if chars.peek() == Some(&'*') => {
                    let mut star = false;
                    chars.next();
                    for c in chars.by_ref() {
                        line += usize::from(c == '\n');
                        if star && c == '/' {
                            break;
                        }
                        star = c == '*';
                    }
                    push_space(&mut statement);
                }
                '"' => {
                    for c in chars.by_ref() {
                        line += usize::from(c == '\n');
                        if c == '"' {
                            break;
                        }
                    }
                    statement.push_str("\"\"");
                }
                ';' if nested == 0 => self.statement(&mut statement, first_line),
                '{' if nested == 0 && (statement.is_empty() || is_head(&statement)) => {
                    self.open(&mut statement, first_line);
                }
                '{' => {
                    nested += 1;
                    statement.push('{');
                }
                '}' if nested > 0 => {
                    nested -= 1;
                    statement.push('}');
                }
                '}' => {
                    self.statement(&mut statement, first_line);
                    self.close();
                }
                ':' if nested == 0 && is_label(&statement) && chars.peek() != Some(&':') => {
                    self.set_label(core::mem::take(&mut statement));
                }
                c if c.is_whitespace() => {
                    // Directives before the first function end with the line.
                    if c == '\n' && self.function.is_none() && ends_with_line(&statement) {
                        self.statement(&mut statement, first_line);
                    }
                    push_space(&mut statement);
                }
                c => {
                    if statement.is_empty() {
                        first_line = line;
                    }
                    statement.push(c);
                }
            }
        }
    }

    fn set_label(&mut self, label: String) {
        if let Some(function) = &mut self.function {
            function.labels.insert(label.clone(), function.instructions.len());
        }
        self.label = Some(label);
    }

    fn open(&mut self, statement: &mut String, line: usize) {
        let head = core::mem::take(statement);
        if self.function.is_some() {
            self.depth += 1;
            return;
        }
        let (is_entry, rest) = match (head.split_once(".entry"), head.split_once(".func")) {
            (Some((_, rest)), _) => (true, rest),
            (None, Some((_, rest))) => (false, rest),
            _ => return,
        };
        self.function = Some(Function { name: function_name(rest), is_entry, line, ..Function::default() });
        self.depth = 1;
    }

    fn close(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        if self.depth == 0 {
            self.functions.extend(self.function.take());
        }
    }

    fn statement(&mut self, statement: &mut String, line: usize) {
        let text = core::mem::take(statement);
        let text = text.trim();
        let label = self.label.take();
        if text.is_empty() {
            return;
        }
        let Some(function) = &mut self.function else {
            match text.split_once(' ') {
                Some((".version", version)) => self.version = version.to_owned(),
                Some((".target", target)) => target.split(',').next().unwrap_or("").clone_into(&mut self.target),
                _ => {
                    if let Some((_, value)) = text.split_once('=') {
                        self.mention(value);
                    }
                }
            }
            return;
        };
        if let Some(directive) = text.strip_prefix('.') {
            if directive.starts_with("local") {
                function.local_line.get_or_insert(line);
            }
            if let (Some(targets), Some(label)) = (directive.strip_prefix("branchtargets"), label) {
                let targets = targets.split(',').map(|target| target.trim().to_owned()).collect();
                function.tables.insert(label, targets);
            }
            return;
        }
        let (guard, rest) = match text.strip_prefix('@') {
            Some(_) => text.split_once(' ').unwrap_or((text, "")),
            None => ("", text),
        };
        let (opcode, operands) = rest.split_once(' ').unwrap_or((rest, ""));
        let instruction =
            Instruction { line, guard: guard.to_owned(), opcode: opcode.to_owned(), operands: operands.to_owned() };
        let may_hold_address = matches!(instruction.mnemonic(), "mov" | "st" | "selp" | "cvta");
        function.instructions.push(instruction);
        if may_hold_address {
            self.mention(operands);
        }
    }

    fn mention(&mut self, text: &str) {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || "_$".contains(c)));
        let names = words.filter(|word| word.starts_with(|c: char| c.is_ascii_alphabetic() || "_$".contains(c)));
        self.mentioned.extend(names.map(str::to_owned));
    }
}

/// The name in `(.param .b32 result) NAME (…)`.
fn function_name(head: &str) -> String {
    let head = head.trim_start();
    let rest = if head.starts_with('(') { head.split_once(')').map_or(head, |(_, rest)| rest) } else { head };
    rest.trim_start().split(|c: char| c.is_whitespace() || c == '(').next().unwrap_or("").to_owned()
}

fn is_head(statement: &str) -> bool {
    (statement.contains(".entry") || statement.contains(".func")) && !statement.contains('=')
}

fn is_label(statement: &str) -> bool {
    let mut chars = statement.trim_end().chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || "_$%".contains(c))
        && chars.all(|c| c.is_ascii_alphanumeric() || "_$%".contains(c))
}

fn ends_with_line(statement: &str) -> bool {
    [".version", ".target", ".address_size", ".file", ".loc"].iter().any(|name| statement.starts_with(name))
}

fn push_space(statement: &mut String) {
    if !statement.is_empty() && !statement.ends_with(' ') {
        statement.push(' ');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = ".version 7.0\n.target sm_70, texmode_independent\n.address_size 64\n";

    fn parse(rest: &str) -> Module {
        Module::parse(&format!("{HEAD}{rest}")).unwrap()
    }

    #[test]
    fn instruction_has_line_guard_opcode_operands() {
        let module =
            parse(".visible .entry e(\n.param .u64 p\n)\n{\n@%p1 ld.v2.b64\t{%rd1, %rd2},\n [%rd3+8]; ret;\n}");
        let Instruction { line, guard, opcode, operands } = &module.functions[0].instructions[0];
        assert_eq!((*line, guard.as_str(), opcode.as_str()), (8, "@%p1", "ld.v2.b64"));
        assert_eq!(operands, "{%rd1, %rd2}, [%rd3+8]");
        assert_eq!(module.functions[0].instructions[0].address(), Some("%rd3+8"));
        assert_eq!(module.functions[0].instructions[1].opcode, "ret");
        assert_eq!((module.version.as_str(), module.target.as_str()), ("7.0", "sm_70"));
    }

    #[test]
    fn inline_assembly_and_comments_hide_nothing() {
        let module = parse(
            ".entry e()\n{\n// begin; inline { asm\n{ .reg .b32 t; atom.add.u32 t, [%rd1], 1; /* ; } */ mov.u32 %r1, t; }\nret;\n}",
        );
        let opcodes: Vec<_> = module.functions[0].instructions.iter().map(|it| it.opcode.as_str()).collect();
        assert_eq!(opcodes, ["atom.add.u32", "mov.u32", "ret"]);
    }

    #[test]
    fn calls_are_followed_also_through_pointers() {
        let module = parse(
            ".global .align 8 .u64 table[1] = {c};\n\
             .func (.param .b32 r) a()\n{\ncall.uni b, (p);\nret;\n}\n.func b()\n{\nret;\n}\n.func c()\n{\nret;\n}\n.func d()\n{\nret;\n}\n\
             .entry one()\n{\ncall.uni (retval0), a, (param0);\nret;\n}\n.entry two()\n{\ncall %rd1, prototype_0;\nret;\n}",
        );
        let names = |entry| {
            let entry = module.entries().find(|it| it.name == entry).unwrap();
            module.reached_from(entry).iter().map(|it| it.name.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(names("one"), ["one", "a", "b"]);
        assert_eq!(names("two"), ["two", "c"]);
    }

    #[test]
    fn loops_are_found_also_behind_a_branch_table() {
        let module = parse(
            ".entry e()\n{\nmov.u32 %r1, 0;\n$L1:\nadd.u32 %r1, %r1, 1;\n$L2:\nsub.u32 %r2, %r2, 1;\n@%p1 bra $L2;\n\
             $T: .branchtargets $L1, $L3;\nbrx.idx %r1, $T;\n$L3:\nret;\n}",
        );
        assert_eq!(module.functions[0].loops(), [Loop { first: 1, last: 4 }, Loop { first: 2, last: 3 }]);
    }

    #[test]
    fn a_branch_backwards_to_what_never_comes_back_is_no_loop() {
        let module = parse(
            ".entry e()\n{\n@%p1 bra $L2;\n$L1:\nadd.u32 %r1, %r1, 1;\n@%p2 bra $L1;\nret;\n\
             $L2:\nsub.u32 %r1, %r1, 1;\nbra.uni $L1;\n}",
        );
        assert_eq!(module.functions[0].loops(), [Loop { first: 1, last: 2 }]);
    }

    #[test]
    fn what_is_not_ptx_is_refused() {
        assert_eq!(Module::parse("fn main() {}").unwrap_err(), ParseError::NotPtx);
        assert_eq!(Module::parse("").unwrap_err(), ParseError::NotPtx);
        let cut = Module::parse(&format!("{HEAD}.entry e()\n{{\nret;\n")).unwrap_err();
        assert_eq!(cut, ParseError::CutOff { function: "e".to_owned(), line: 4 });
    }
}
