//! What the assembler makes of the PTX: machine code, which has memory order of its own.
//!
//! The machine code of an entry point, with all it calls, is compared with the PTX of the same functions:
//!
//! | PTX, scope gpu or sys | machine code |
//! | --- | --- |
//! | strong loads and stores | at least as many bytes of `LD….STRONG` and `ST….STRONG` with that scope (the assembler may join two neighbours) |
//! | strong read-modify-writes | at least as many `ATOM….STRONG`, `RED….STRONG` |
//! | releases and fences | at least as many `MEMBAR` |
//! | acquires and fences | at least as many `CCTL.IVALL` (the cache is invalidated) |
//!
//! A relaxed load whose result nobody reads may be gone. Nothing may be needed of registers, stack and spills beyond
//! what the contract allows, and hot entry points and functions touch no local memory.

mod parse;
mod tools;

pub use tools::{INSTALL, PLACES, SassError, Tools};

use crate::access::{Access, Kind, Scope};
use crate::audit::{Clause, Contract, Finding, Rule};
use crate::ptx::{Function, Instruction, Module};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;

/// The machine code of one entry point and all it calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntryCode {
    /// Its name.
    pub name: String,
    /// Registers per thread.
    pub registers: usize,
    /// Stack per thread, callees included, bytes.
    pub stack_bytes: usize,
    /// Registers written to memory for want of room, bytes in the code.
    pub spill_store_bytes: usize,
    /// Registers read back, bytes in the code.
    pub spill_load_bytes: usize,
    /// How many instructions of each kind.
    pub opcodes: BTreeMap<String, usize>,
    /// Loads and stores of local memory in each of its functions, its own body among them.
    pub function_locals: BTreeMap<String, usize>,
}

impl EntryCode {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// All instructions but those that only fill up.
    #[must_use]
    pub fn instructions(&self) -> usize {
        self.sum(|op| op != "NOP", |_| 1)
    }

    /// Memory barriers; at `scope`, if one is given.
    #[must_use]
    pub fn membars(&self, scope: Option<Scope>) -> usize {
        self.sum(|op| op.starts_with("MEMBAR.") && scope.is_none_or(|scope| has(op, sass_scope(scope))), |_| 1)
    }

    /// Invalidations of the cache.
    #[must_use]
    pub fn invalidations(&self) -> usize {
        self.sum(|op| op.starts_with("CCTL.IVALL"), |_| 1)
    }

    /// Loads and stores of local memory.
    #[must_use]
    pub fn local_accesses(&self) -> usize {
        self.sum(|op| matches!(base(op), "LDL" | "STL"), |_| 1)
    }

    /// Calls.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.sum(|op| base(op) == "CALL", |_| 1)
    }

    /// Strong accesses of a kind, at `scope`, if one is given.
    #[must_use]
    pub fn strong(&self, kind: Kind, scope: Option<Scope>) -> usize {
        self.sum(|op| is_strong(op, kind, scope), |_| 1)
    }

    fn strong_bytes(&self, kind: Kind, scope: Scope) -> usize {
        self.sum(|op| is_strong(op, kind, Some(scope)), width)
    }

    fn sum(&self, test: impl Fn(&str) -> bool, each: impl Fn(&str) -> usize) -> usize {
        self.opcodes.iter().filter(|(op, _)| test(op)).map(|(op, number)| number * each(op)).sum()
    }
}

fn base(op: &str) -> &str {
    op.split('.').next().unwrap_or("")
}

fn has(op: &str, part: &str) -> bool {
    op.split('.').any(|it| it == part)
}

const fn sass_scope(scope: Scope) -> &'static str {
    match scope {
        Scope::Cta => "SM",
        Scope::Cluster => "CLUSTER",
        Scope::Gpu => "GPU",
        Scope::Sys => "SYS",
    }
}

fn is_strong(op: &str, kind: Kind, scope: Option<Scope>) -> bool {
    let bases: &[&str] = match kind {
        Kind::Load => &["LD", "LDG"],
        Kind::Store => &["ST", "STG"],
        Kind::Atomic | Kind::Reduction => &["ATOM", "ATOMG", "RED", "REDG"],
        Kind::Fence => &[],
    };
    let strong = op.split_once(".STRONG.").map(|(_, rest)| rest.split('.').next().unwrap_or(""));
    bases.contains(&base(op)) && strong.is_some_and(|found| scope.is_none_or(|scope| found == sass_scope(scope)))
}

/// Bytes that an instruction moves: four, unless it says so.
fn width(op: &str) -> usize {
    let named = op.split('.').find_map(|part| match part {
        "U8" | "S8" => Some(1),
        "U16" | "S16" => Some(2),
        "64" => Some(8),
        "128" => Some(16),
        "256" => Some(32),
        _ => None,
    });
    named.unwrap_or(4)
}

/// What an entry point's PTX asks of memory at one scope.
#[derive(Default)]
struct Asked {
    load_bytes: usize,
    store_bytes: usize,
    atomics: usize,
    barriers: usize,
    invalidations: usize,
}

impl Asked {
    fn of(module: &Module, entry: &Function, scope: Scope, may_drop_loads: bool) -> Self {
        let mut asked = Self::default();
        let accesses = module.reached_from(entry).into_iter().flat_map(|function| {
            let read = reads(function);
            function.instructions.iter().filter(move |it| !is_dead(it, &read))
        });
        // Shared memory has instructions of its own.
        let accesses = accesses.filter_map(Instruction::access).filter(|it| it.space != crate::access::Space::Shared);
        for access in accesses.filter(|access: &Access| access.scope == Some(scope)) {
            match access.kind {
                Kind::Load if may_drop_loads && !access.acquires() => {}
                Kind::Load => asked.load_bytes += access.bytes,
                Kind::Store => asked.store_bytes += access.bytes,
                Kind::Atomic | Kind::Reduction => asked.atomics += 1,
                Kind::Fence => {
                    asked.barriers += 1;
                    asked.invalidations += 1;
                }
            }
            asked.barriers += usize::from(access.releases());
            asked.invalidations += usize::from(access.acquires());
        }
        asked
    }
}

/// How often each register is named.
fn reads(function: &Function) -> HashMap<&str, usize> {
    let mut names = HashMap::new();
    for instruction in &function.instructions {
        for text in [&instruction.guard, &instruction.operands] {
            let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '%' | '_')));
            for register in words.filter(|word| word.starts_with('%')) {
                *names.entry(register).or_insert(0) += 1;
            }
        }
    }
    names
}

/// Whether it is a relaxed load into a register that is named nowhere else: it orders nothing and tells nothing.
fn is_dead(instruction: &Instruction, names: &HashMap<&str, usize>) -> bool {
    let relaxed = instruction.mnemonic() == "ld" && instruction.opcode.contains(".relaxed.");
    let result = instruction.operands.split(',').next().unwrap_or("").trim();
    relaxed && names.get(result) == Some(&1)
}

/// Writes into `contract` what each entry point needs, on the processor where it is most. Hot ones may not spill.
pub fn allow(contract: &mut Contract, codes: &[(String, Vec<EntryCode>)]) {
    for (name, clause) in &mut contract.entries {
        let most = |number: fn(&EntryCode) -> usize| {
            let entries = codes.iter().flat_map(|(_, entries)| entries).filter(|code| code.name == *name);
            entries.map(number).max()
        };
        clause.registers = most(|code| code.registers);
        clause.stack_bytes = most(|code| code.stack_bytes);
        if !clause.hot {
            clause.spill_bytes = most(|code| code.spill_store_bytes + code.spill_load_bytes).unwrap_or(0);
        }
    }
}

/// What is wrong with the machine code of a module for one processor.
#[must_use]
pub fn check(module: &Module, contract: Option<&Contract>, arch: &str, codes: &[EntryCode]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for entry in module.entries() {
        let mut report = Report { arch, entry, findings: &mut findings };
        let Some(code) = codes.iter().find(|code| code.name == entry.name) else {
            let missing = format!(".entry {}", entry.name);
            report.add(Rule::SassStrong, missing, "the machine code has no such entry point");
            continue;
        };
        let clause = contract.and_then(|it| it.entries.get(&entry.name));
        check_spills(&mut report, code, clause);
        check_resources(&mut report, code, clause);
        check_local_accesses(&mut report, code, clause);
        let may_drop_loads = contract.is_some_and(|contract| contract.may_drop_loads);
        let asked = SCOPES.map(|scope| (scope, Asked::of(module, entry, scope, may_drop_loads)));
        for (scope, asked) in &asked {
            check_strong(&mut report, code, *scope, asked);
            check_barriers(&mut report, code, *scope, asked);
        }
        check_invalidations(&mut report, code, asked.iter().map(|(_, asked)| asked.invalidations).sum());
    }
    findings
}

/// The scopes whose accesses the machine code must still have.
const SCOPES: [Scope; 2] = [Scope::Gpu, Scope::Sys];

/// Where the findings about one entry point go.
struct Report<'a> {
    arch: &'a str,
    entry: &'a Function,
    findings: &'a mut Vec<Finding>,
}

impl Report<'_> {
    fn add(&mut self, rule: Rule, instruction: String, advice: &str) {
        let advice = format!("{}: {advice}", self.arch);
        let (line, function) = (self.entry.line, self.entry.name.clone());
        self.findings.push(Finding { line, function, instruction, rule, advice });
    }
}

/// No more is spilled than is allowed: nothing, if the entry point is hot.
fn check_spills(report: &mut Report<'_>, code: &EntryCode, clause: Option<&Clause>) {
    let allowed = clause.filter(|clause| !clause.hot).map_or(0, |clause| clause.spill_bytes);
    let (stores, loads) = (code.spill_store_bytes, code.spill_load_bytes);
    if stores + loads > allowed {
        let spilled = format!("{stores} bytes spill stores, {loads} bytes spill loads");
        let advice = format!("{allowed} are allowed: smaller functions, fewer values alive at once, or --bless --sass");
        report.add(Rule::SassSpill, spilled, &advice);
    }
}

/// No more registers and stack than are agreed.
fn check_resources(report: &mut Report<'_>, code: &EntryCode, clause: Option<&Clause>) {
    for (rule, what, needed, agreed) in [
        (Rule::SassRegisters, "registers", code.registers, clause.and_then(|clause| clause.registers)),
        (Rule::SassStack, "bytes of stack", code.stack_bytes, clause.and_then(|clause| clause.stack_bytes)),
    ] {
        if let Some(agreed) = agreed
            && needed > agreed
        {
            let advice =
                format!("{agreed} are agreed: move what is rare out of line, lend what is large, or --bless --sass");
            report.add(rule, format!("{needed} {what}"), &advice);
        }
    }
}

/// Hot functions are there, and neither they nor hot entry points touch local memory.
fn check_local_accesses(report: &mut Report<'_>, code: &EntryCode, clause: Option<&Clause>) {
    for name in clause.iter().flat_map(|clause| clause.hot_functions.keys()) {
        let functions = crate::ptx::named(code.function_locals.keys().map(String::as_str), name);
        let counts: Vec<_> = functions.iter().filter_map(|name| code.function_locals.get(*name).copied()).collect();
        if counts.is_empty() {
            let missing = format!("hot-function {name}");
            report.add(Rule::SassLocal, missing, "the assembler made no function of it");
        }
        if counts.iter().any(|locals| *locals > 0) {
            let accesses = format!("hot-function {name}: {} LDL and STL", counts.iter().sum::<usize>());
            report.add(Rule::SassLocal, accesses, "a hot function keeps everything in registers");
        }
    }
    if clause.is_some_and(|clause| clause.hot) && code.local_accesses() > 0 {
        let accesses = format!("{} LDL and STL", code.local_accesses());
        report.add(Rule::SassLocal, accesses, "a hot entry point keeps everything in registers");
    }
}

/// Strong accesses are still strong, and wide enough.
fn check_strong(report: &mut Report<'_>, code: &EntryCode, scope: Scope, asked: &Asked) {
    for (what, asked, there) in [
        ("bytes of LD.STRONG", asked.load_bytes, code.strong_bytes(Kind::Load, scope)),
        ("bytes of ST.STRONG", asked.store_bytes, code.strong_bytes(Kind::Store, scope)),
        ("ATOM and RED.STRONG", asked.atomics, code.strong(Kind::Atomic, Some(scope))),
    ] {
        if there < asked {
            let found = format!("{there} {what}.{}", sass_scope(scope));
            let advice = format!("the PTX has {asked}: the assembler weakened or dropped an access");
            report.add(Rule::SassStrong, found, &advice);
        }
    }
}

/// Releases and fences have their barriers.
fn check_barriers(report: &mut Report<'_>, code: &EntryCode, scope: Scope, asked: &Asked) {
    let there = code.membars(Some(scope));
    if there < asked.barriers {
        let advice = format!("the PTX has {} releases and fences at that scope", asked.barriers);
        report.add(Rule::SassMembar, format!("{there} MEMBAR.{}", sass_scope(scope)), &advice);
    }
}

/// Acquires and fences have their invalidations, which have no scope.
fn check_invalidations(report: &mut Report<'_>, code: &EntryCode, asked: usize) {
    let there = code.invalidations();
    if there < asked {
        let advice = format!("the PTX has {asked} acquires and fences");
        report.add(Rule::SassAcquire, format!("{there} CCTL.IVALL"), &advice);
    }
}

/// A table of what became of each entry point, in Markdown: `codes` holds the entry points of each processor. A cell
/// has one value for all processors, or, if they differ, one for each in the order given.
#[must_use]
pub fn table(codes: &[(String, Vec<EntryCode>)]) -> String {
    let mut text = String::from(
        "| entry point | registers | stack, bytes | spilled, bytes | instructions | calls | local accesses | barriers | \
         invalidations | strong loads | strong stores | strong read-modify-writes |\n\
         | --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |\n",
    );
    let columns: [fn(&EntryCode) -> usize; 11] = [
        |code| code.registers,
        |code| code.stack_bytes,
        |code| code.spill_store_bytes + code.spill_load_bytes,
        EntryCode::instructions,
        EntryCode::calls,
        EntryCode::local_accesses,
        |code| code.membars(None),
        EntryCode::invalidations,
        |code| code.strong(Kind::Load, None),
        |code| code.strong(Kind::Store, None),
        |code| code.strong(Kind::Atomic, None),
    ];
    let names: BTreeSet<&str> = codes.iter().flat_map(|(_, entries)| entries).map(|code| code.name.as_str()).collect();
    for name in names {
        // Writing to a string does not fail.
        let _ = write!(text, "| `{name}` |");
        for column in columns {
            let values: Vec<Option<usize>> =
                codes.iter().map(|(_, entries)| entries.iter().find(|code| code.name == name).map(column)).collect();
            let all: Vec<String> =
                values.iter().map(|value| value.map_or("-".to_owned(), |value| value.to_string())).collect();
            let shown = if values.iter().all(|value| *value == values[0]) { &all[..1] } else { &all[..] };
            let _ = write!(text, " {} |", shown.join(" / "));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const PTX: &str = ".version 7.0\n.target sm_70\n.entry e()\n{\nld.acquire.sys.b64 %rd1, [%rd2];\n\
        st.relaxed.gpu.b32 [%rd3], 1;\nst.release.gpu.b32 [%rd3+4], 1;\natom.acq_rel.sys.cas.b64 %rd1, [%rd2], 0, 1;\nret;\n}";

    fn rules(opcodes: &[(&str, usize)], change: impl Fn(&mut EntryCode)) -> Vec<&'static str> {
        let mut code = EntryCode::new("e");
        code.opcodes = opcodes.iter().map(|(op, number)| ((*op).to_owned(), *number)).collect();
        change(&mut code);
        let contract = Contract::parse("entry e hot").unwrap();
        let module = Module::parse(PTX).unwrap();
        check(&module, Some(&contract), "sm_90", &[code]).iter().map(|finding| finding.rule.name()).collect()
    }

    /// Two stores of four bytes became one of eight.
    const GOOD: [(&str, usize); 6] = [
        ("LD.E.64.STRONG.SYS", 1),
        ("STG.E.64.STRONG.GPU", 1),
        ("ATOM.E.CAS.64.STRONG.SYS", 1),
        ("MEMBAR.ALL.GPU", 1),
        ("MEMBAR.ALL.SYS", 1),
        ("CCTL.IVALL", 2),
    ];

    #[test]
    fn good_code_passes() {
        assert!(rules(&GOOD, |_| {}).is_empty());
    }

    #[test]
    fn each_rule_finds_what_breaks_it() {
        let without = |index: usize| {
            let mut opcodes = GOOD.to_vec();
            opcodes.remove(index);
            rules(&opcodes, |_| {})
        };
        assert_eq!(without(0), ["sass-strong"]);
        assert_eq!(without(1), ["sass-strong"]);
        assert_eq!(without(2), ["sass-strong"]);
        assert_eq!(without(3), ["sass-membar"]);
        assert_eq!(without(4), ["sass-membar"]);
        assert_eq!(without(5), ["sass-acquire"]);
        assert_eq!(rules(&GOOD, |code| code.spill_load_bytes = 4), ["sass-spill"]);
        let local = |code: &mut EntryCode| code.opcodes.extend([("STL.64".to_owned(), 1)]);
        assert_eq!(rules(&GOOD, local), ["sass-local"]);
        assert_eq!(rules(&GOOD, |code| code.name = "other".to_owned()), ["sass-strong"]);
    }

    #[test]
    fn weak_and_narrower_accesses_do_not_count() {
        let mut opcodes = GOOD.to_vec();
        opcodes[0] = ("LD.E.64.SYS", 1);
        assert_eq!(rules(&opcodes, |_| {}), ["sass-strong"]);
        opcodes[0] = ("LD.E.64.STRONG.GPU", 1);
        assert_eq!(rules(&opcodes, |_| {}), ["sass-strong"]);
    }

    #[test]
    fn spills_are_found_beyond_what_is_allowed() {
        let mut code = EntryCode::new("e");
        code.spill_load_bytes = 12;
        let module = Module::parse(".version 7.0\n.target sm_70\n.entry e()\n{\nret;\n}").unwrap();
        let findings = |text, code: &EntryCode| {
            check(&module, Some(&Contract::parse(text).unwrap()), "sm_90", core::slice::from_ref(code)).len()
        };
        assert_eq!((findings("entry e spill-bytes=12", &code), findings("entry e spill-bytes=11", &code)), (0, 1));
        assert_eq!(findings("entry e hot spill-bytes=12", &code), 1);
        let mut contract = Contract::of(&module, None);
        code.stack_bytes = 8;
        allow(&mut contract, &[("sm_90".to_owned(), vec![code])]);
        let clause = &contract.entries["e"];
        assert_eq!((clause.spill_bytes, clause.stack_bytes, clause.registers), (12, Some(8), Some(0)));
    }

    #[test]
    fn more_registers_and_stack_than_agreed_are_found() {
        let mut code = EntryCode::new("e");
        (code.registers, code.stack_bytes) = (40, 16);
        let module = Module::parse(".version 7.0\n.target sm_70\n.entry e()\n{\nret;\n}").unwrap();
        let findings = |text| {
            let findings = check(&module, Some(&Contract::parse(text).unwrap()), "sm_90", &[code.clone()]);
            findings.iter().map(|finding| finding.rule.name()).collect::<Vec<_>>()
        };
        assert_eq!(findings("entry e registers=40 stack-bytes=16"), [""; 0]);
        assert_eq!(findings("entry e registers=39 stack-bytes=16"), ["sass-registers"]);
        assert_eq!(findings("entry e registers=40 stack-bytes=15"), ["sass-stack"]);
        assert_eq!(findings("entry e"), [""; 0]);
    }

    #[test]
    fn local_memory_of_hot_functions_is_found() {
        let mut code = EntryCode::new("e");
        code.function_locals =
            [("e", 3), ("_RNvCs1_1k7receive", 0), ("_RNvCs1_1k4rare", 9)].map(|(name, n)| (name.to_owned(), n)).into();
        let module = Module::parse(".version 7.0\n.target sm_70\n.entry e()\n{\nret;\n}").unwrap();
        let findings = |text| check(&module, Some(&Contract::parse(text).unwrap()), "sm_90", &[code.clone()]).len();
        assert_eq!(findings("entry e\nhot-function receive"), 0);
        assert_eq!(findings("entry e\nhot-function e"), 1);
        assert_eq!(findings("entry e\nhot-function rare"), 1);
        assert_eq!(findings("entry e\nhot-function gone"), 1);
    }

    #[test]
    fn relaxed_load_that_nobody_reads_may_go() {
        let asked = |after: &str| {
            let text = format!(
                ".version 7.0\n.target sm_70\n.entry e()\n{{\nld.relaxed.gpu.b64 %rd1, [%rd2];\n\
                 ld.acquire.gpu.b64 %rd3, [%rd2];\n{after}ret;\n}}"
            );
            let module = Module::parse(&text).unwrap();
            Asked::of(&module, module.entries().next().unwrap(), Scope::Gpu, false).load_bytes
        };
        assert_eq!((asked(""), asked("st.b64 [%rd4], %rd1;\n"), asked("mov.b64 %rd5, %rd10;\n")), (8, 16, 8));
    }

    #[test]
    fn table_has_a_row_for_each_entry_point_and_a_value_for_each_processor_that_differs() {
        let codes = |registers| {
            let mut b = EntryCode::new("b");
            b.registers = registers;
            vec![b, EntryCode::new("a")]
        };
        let text = table(&[("sm_75".to_owned(), codes(7)), ("sm_100".to_owned(), codes(8))]);
        let rows: Vec<_> =
            text.lines().skip(2).map(|row| row.split(" |").take(3).collect::<Vec<_>>().join(",")).collect();
        assert_eq!(rows, ["| `a`, 0, 0", "| `b`, 7 / 8, 0"]);
    }
}
