//! The contract: how many strong accesses of each kind an entry point makes.
//!
//! Which words of memory are control words, PTX does not say: a stamp that is read weakly looks like a payload. But in
//! this code base each access to a shared word has an order and a scope in the source, so one that lost them is one
//! strong access fewer. The contract, a text file beside the PTX, keeps the numbers under review:
//!
//! ```text
//! entry produce hot releases-per-loop=1
//!     ld.acquire.sys 2
//!     st.release.sys 1
//! ```
//!
//! Callees count, each once for each entry point, wherever the compiler put them. Space, width and vectors do not
//! count: they follow from types and from what the compiler could infer. The words after an entry point's name are
//! written by hand; the numbers by [`Contract::of`] (`k2k-ptx audit --bless`).
//!
//! `registers=N`, `stack-bytes=N` and `spill-bytes=N` behind a name are numbers, too: what the assembler needs today,
//! on the processor where it needs most; the last one is for how many bytes of spilled registers it has no room. An
//! entry point without `spill-bytes` spills nothing; a hot one cannot have it.
//!
//! # Hot functions
//!
//! An entry point that is a whole kernel has much that is rare, and cannot be hot. What it does for each message can:
//!
//! ```text
//! entry echo registers=174 stack-bytes=616
//!     hot-function echo calls=try_receive_into,begin
//!     hot-function try_receive_into calls=take_high
//! ```
//!
//! A hot function, the entry point's own body or one that it reaches, touches no local memory, in PTX or machine code,
//! cannot panic, and calls only what is listed. A name is a function's, or a part of its path; all that have it are
//! meant. Written by hand.
//!
//! # Another compiler
//!
//! The numbers are those of one compiler, which decides what to inline, copy or merge. PTX that another one made of the
//! same source is held to what no compiler may change ([`Contract::for_another_compiler`]): the kinds are the same, there
//! are not fewer of those that order, and what is hot uses no local memory, calls nothing else and cannot panic.

use crate::access::Access;
use crate::ptx::{Function, Instruction, Module};
use core::fmt;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// How many accesses of each kind, by the name that [`Access`] has.
pub type Counts = BTreeMap<String, usize>;

/// What one entry point is held to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clause {
    /// Whether it is on the way of messages, so that the stricter rules hold.
    pub hot: bool,
    /// How many stores may publish in one turn of any of its loops.
    pub releases_per_loop: Option<usize>,
    /// How many registers a thread may need.
    pub registers: Option<usize>,
    /// How many bytes of stack a thread may need.
    pub stack_bytes: Option<usize>,
    /// How many bytes of loads and stores the assembler may spend on registers that it has no room for.
    pub spill_bytes: usize,
    /// Functions on the way of messages, and what they may call.
    pub hot_functions: BTreeMap<String, BTreeSet<String>>,
    /// Its strong accesses.
    pub counts: Counts,
}

/// What the entry points of a module are held to, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contract {
    /// The entry points.
    pub entries: BTreeMap<String, Clause>,
    /// Whether relaxed loads may be gone whose values nothing needs.
    pub(crate) may_drop_loads: bool,
}

/// Why a contract cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContractError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it, and what would be right.
    pub why: &'static str,
}

impl fmt::Display for ContractError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)
    }
}

impl core::error::Error for ContractError {}

impl Contract {
    /// What `module` does today; `hot` and the limits are those of `old`, where it has the entry point.
    ///
    /// A hot entry point without a limit gets what it has now.
    #[must_use]
    pub fn of(module: &Module, old: Option<&Self>) -> Self {
        let entry = |(function, counts): (&Function, Counts)| {
            let old = old.and_then(|old| old.entries.get(&function.name)).cloned().unwrap_or_default();
            let limit = old.hot.then(|| super::rules::releases_per_loop(function).map_or(0, |(most, _)| most));
            let clause = Clause { hot: old.hot, releases_per_loop: old.releases_per_loop.or(limit), counts, ..old };
            (function.name.clone(), clause)
        };
        Self { entries: counts(module).into_iter().map(entry).collect(), may_drop_loads: false }
    }

    /// What PTX is held to that another compiler made of the same source; see the top of the module.
    ///
    /// Such PTX may have more accesses of each kind, and fewer relaxed loads and stores, though not none. How often a loop
    /// publishes, what the assembler needs, and hot functions that are none of their own there, are left out; what one hot
    /// function may call, each of that entry point's may, since it may have been inlined there.
    #[must_use]
    pub fn for_another_compiler(&self, module: &Module) -> Self {
        let mut contract = Self { may_drop_loads: true, ..self.clone() };
        for (entry, now) in counts(module) {
            let Some(clause) = contract.entries.get_mut(&entry.name) else { continue };
            for (kind, agreed) in &mut clause.counts {
                let now = now.get(kind).copied().unwrap_or(0);
                let may_be_merged = kind.starts_with("ld.relaxed.") || kind.starts_with("st.relaxed.");
                if now >= *agreed || (may_be_merged && now > 0) {
                    *agreed = now;
                }
            }
            let all_calls: BTreeSet<String> = clause.hot_functions.values().flatten().cloned().collect();
            (clause.releases_per_loop, clause.registers, clause.stack_bytes) = (None, None, None);
            clause.spill_bytes = usize::MAX;
            let reached = module.reached_from(entry);
            let symbols = reached.iter().map(|function| function.name.as_str());
            clause.hot_functions.retain(|name, _| !crate::ptx::named(symbols.clone(), name).is_empty());
            clause.hot_functions.values_mut().for_each(|calls| calls.clone_from(&all_calls));
        }
        contract
    }

    /// Reads a contract.
    ///
    /// # Errors
    /// The first line that is not one of a contract.
    pub fn parse(text: &str) -> Result<Self, ContractError> {
        let mut contract = Self::default();
        let mut current: Option<&mut Clause> = None;
        for (index, line) in text.lines().enumerate() {
            let fail = |why| ContractError { line: index + 1, why };
            let mut words = line.split('#').next().unwrap_or("").split_whitespace();
            let Some(first) = words.next() else { continue };
            if first == "entry" {
                let name = words.next().ok_or(fail("an entry point needs a name: `entry NAME [hot]`"))?;
                let mut clause = Clause::default();
                for word in words {
                    match word.split_once('=') {
                        None if word == "hot" => clause.hot = true,
                        Some(("releases-per-loop", number)) => {
                            clause.releases_per_loop =
                                Some(number.parse().map_err(|_| fail("releases-per-loop takes a number"))?);
                        }
                        Some(("registers", number)) => {
                            clause.registers = Some(number.parse().map_err(|_| fail("registers takes a number"))?);
                        }
                        Some(("stack-bytes", number)) => {
                            clause.stack_bytes = Some(number.parse().map_err(|_| fail("stack-bytes takes a number"))?);
                        }
                        Some(("spill-bytes", number)) => {
                            clause.spill_bytes = number.parse().map_err(|_| fail("spill-bytes takes a number"))?;
                        }
                        _ => {
                            return Err(fail(
                                "after the name may stand `hot`, `releases-per-loop=N`, `registers=N`, `stack-bytes=N` and \
                                 `spill-bytes=N`",
                            ));
                        }
                    }
                }
                if contract.entries.contains_key(name) {
                    return Err(fail("this entry point is there already"));
                }
                current = Some(contract.entries.entry(name.to_owned()).or_insert(clause));
                continue;
            }
            let clause = current.as_mut().ok_or(fail("the first line is `entry NAME`"))?;
            if first == "hot-function" {
                let name = words.next().ok_or(fail("a function needs a name: `hot-function NAME [calls=NAME,..]`"))?;
                let calls = match words.next().map(|word| word.strip_prefix("calls=")) {
                    None => BTreeSet::new(),
                    // Every function has the empty name: it would agree to all calls.
                    Some(Some(names)) if names.split(',').any(str::is_empty) => {
                        return Err(fail("an empty name in calls=; without calls, leave it out"));
                    }
                    Some(Some(names)) => names.split(',').map(str::to_owned).collect(),
                    Some(None) => return Err(fail("after a hot function's name may stand `calls=NAME,..`")),
                };
                if clause.hot_functions.insert(name.to_owned(), calls).is_some() || words.next().is_some() {
                    return Err(fail("a hot function has one line, with its name and perhaps `calls=NAME,..`"));
                }
                continue;
            }
            let (Some(number), None) = (words.next().and_then(|word| word.parse().ok()), words.next()) else {
                return Err(fail(
                    "neither `entry NAME` nor a kind of access and its number, such as `st.release.sys 2`",
                ));
            };
            if clause.counts.insert(first.to_owned(), number).is_some() {
                return Err(fail("this kind of access is there already"));
            }
        }
        Ok(contract)
    }
}

/// The text of the file.
impl fmt::Display for Contract {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "# The strong accesses of each entry point, its callees included: a change here is a change of memory order.\n\
             # `k2k-ptx audit --bless` writes the numbers, and with `--sass` the registers, stack and spills that the assembler needs\n\
             # today; `hot` and `releases-per-loop=N` behind a name and `hot-function` are written by hand.\n",
        )?;
        for (name, clause) in &self.entries {
            write!(f, "\nentry {name}")?;
            if clause.hot {
                f.write_str(" hot")?;
            }
            if let Some(limit) = clause.releases_per_loop {
                write!(f, " releases-per-loop={limit}")?;
            }
            for (word, number) in [("registers", clause.registers), ("stack-bytes", clause.stack_bytes)] {
                if let Some(number) = number {
                    write!(f, " {word}={number}")?;
                }
            }
            if clause.spill_bytes > 0 {
                write!(f, " spill-bytes={}", clause.spill_bytes)?;
            }
            f.write_str("\n")?;
            for (function, calls) in &clause.hot_functions {
                write!(f, "    hot-function {function}")?;
                for (i, callee) in calls.iter().enumerate() {
                    write!(f, "{}{callee}", if i == 0 { " calls=" } else { "," })?;
                }
                f.write_str("\n")?;
            }
            for (kind, number) in &clause.counts {
                writeln!(f, "    {kind} {number}")?;
            }
        }
        Ok(())
    }
}

/// The strong accesses of each entry point and of all that it reaches, in the order of the file.
#[must_use]
pub fn counts(module: &Module) -> Vec<(&Function, Counts)> {
    let mut own: HashMap<&str, Counts> = HashMap::new();
    for function in &module.functions {
        let counts = own.entry(&function.name).or_default();
        for access in function.instructions.iter().filter_map(Instruction::access).filter(Access::is_strong) {
            *counts.entry(access.to_string()).or_insert(0) += 1;
        }
    }
    let with_callees = |entry| {
        let mut sum = Counts::new();
        for (kind, number) in module.reached_from(entry).iter().flat_map(|it| &own[it.name.as_str()]) {
            *sum.entry(kind.clone()).or_insert(0) += number;
        }
        (entry, sum)
    };
    module.entries().map(with_callees).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let text = "entry a hot releases-per-loop=1\n ld.acquire.sys 2\n st.release.sys 1\n\
                    entry b registers=40 stack-bytes=16 spill-bytes=8\n hot-function b calls=c,d\n hot-function c\n";
        let contract = Contract::parse(text).unwrap();
        assert_eq!(Contract::parse(&contract.to_string()).unwrap(), contract);
        assert!(contract.entries["a"].hot);
        assert_eq!(contract.entries["a"].counts["ld.acquire.sys"], 2);
        let (a, b) = (&contract.entries["a"], &contract.entries["b"]);
        assert_eq!(
            (a.spill_bytes, b.spill_bytes, a.registers, b.registers, b.stack_bytes),
            (0, 8, None, Some(40), Some(16))
        );
        assert_eq!(b.hot_functions["b"].iter().collect::<Vec<_>>(), ["c", "d"]);
        assert!(b.hot_functions["c"].is_empty());
    }

    #[test]
    fn another_compiler_may_copy_and_merge_but_weaken_nothing() {
        let agreed = Contract::parse(
            "entry e hot releases-per-loop=1 registers=8\n hot-function gone\n ld.acquire.gpu 1\n ld.relaxed.gpu 2\n \
             st.release.gpu 1",
        )
        .unwrap();
        let findings = |body: &str| {
            let text = format!(".version 7.0\n.target sm_70\n.entry e()\n{{\n{body}\nret;\n}}");
            let module = Module::parse(&text).unwrap();
            let held_to = agreed.for_another_compiler(&module);
            crate::audit::audit(&module, Some(&held_to)).iter().map(|it| it.instruction.clone()).collect::<Vec<_>>()
        };
        let good =
            "ld.acquire.gpu.b64 %rd1, [%rd2];\nld.relaxed.gpu.b64 %rd1, [%rd3];\nst.release.gpu.b64 [%rd4], 1;\n";
        assert_eq!(findings(good), [""; 0]);
        assert_eq!(findings(&good.repeat(2)), [""; 0]);
        assert!(findings(&good.replace("ld.acquire.gpu", "ld.relaxed.gpu")).contains(&"ld.acquire.gpu".to_owned()));
        assert_eq!(findings(&good.replace("ld.relaxed.gpu", "ld")), ["ld.relaxed.gpu"]);
        let weaker = [good, "ld.volatile.b64 %rd1, [%rd5];\n"].concat();
        assert!(findings(&weaker).contains(&"ld.volatile".to_owned()));
        assert_eq!(findings(&[good, "call other, ();\n"].concat()).len(), 1);
    }

    #[test]
    fn nonsense_is_refused_with_its_line() {
        for (text, line) in [
            ("ld.acquire.sys 2", 1),
            ("entry", 1),
            ("# yes\nentry a cold", 2),
            ("entry a releases-per-loop=x", 1),
            ("entry a spill-bytes=x", 1),
            ("entry a registers=x", 1),
            ("entry a stack-bytes=x", 1),
            ("entry a\nhot-function", 2),
            ("entry a\nhot-function f cold", 2),
            ("entry a\nhot-function f calls=g h", 2),
            ("entry a\nhot-function f\nhot-function f", 3),
            ("entry a\nhot-function f calls=", 2),
            ("entry a\nhot-function f calls=g,", 2),
            ("entry a\nld.acquire.sys", 2),
            ("entry a\nld.acquire.sys 1 2", 2),
            ("entry a\nst 1\nst 2", 3),
            ("entry a\nentry a", 2),
        ] {
            assert_eq!(Contract::parse(text).unwrap_err().line, line, "{text}");
        }
    }
}
