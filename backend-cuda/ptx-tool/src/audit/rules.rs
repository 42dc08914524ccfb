//! The rules, one function for each group. Each page of PTX that breaks one lies in `tests/bad`.

use super::contract::{Contract, counts};
use super::{Finding, Rule};
use crate::access::{Access, Kind, Order, Scope, Space};
use crate::ptx::{Function, Instruction, Module};
use std::collections::{BTreeMap, HashMap};

/// Parts of the names of the functions that Rust calls when it panics.
const PANICS: [&str; 8] = [
    "panic",
    "unwrap_failed",
    "expect_failed",
    "slice_index_fail",
    "len_mismatch_fail",
    "index_fail",
    "index_len_fail",
    "rust_begin_unwind",
];

fn finding(function: &Function, instruction: &Instruction, rule: Rule, advice: impl Into<String>) -> Finding {
    Finding {
        line: instruction.line,
        function: function.name.clone(),
        instruction: instruction.to_string(),
        rule,
        advice: advice.into(),
    }
}

/// What no instruction may be, wherever it is.
pub(super) fn instructions(functions: &[Function], findings: &mut Vec<Finding>) {
    for function in functions {
        for instruction in &function.instructions {
            let Some(access) = instruction.access() else { continue };
            let mut found = |rule, advice: &str| findings.push(finding(function, instruction, rule, advice));
            match access {
                Access { kind: Kind::Fence, operation: Some(_), .. } => {
                    found(Rule::Proxy, "no access here goes through another proxy: leave it out");
                }
                Access { kind: Kind::Fence, .. } if instruction.mnemonic() == "membar" => {
                    found(Rule::Membar, "the memory model's name for it has an order: fence.acq_rel.gpu or .sys");
                }
                Access { kind: Kind::Atomic | Kind::Reduction, order, scope, .. }
                    if order.is_none() || scope.is_none() =>
                {
                    found(
                        Rule::BareAtomic,
                        "without order and scope it is relaxed.gpu (LLVM up to 22 makes this of every read-modify-write \
                         but compare_exchange): write one, such as atom.acq_rel.sys",
                    );
                }
                Access { order: Some(Order::Volatile), .. } => found(
                    Rule::Volatile,
                    "a volatile access is relaxed.sys and never merged: plain for a payload, ld.acquire or st.release for a \
                     control word",
                ),
                Access { kind: Kind::Fence, order, scope, .. } if order.is_none() || scope.is_none() => {
                    found(Rule::Unscoped, "say order and scope, such as fence.acq_rel.gpu");
                }
                Access { kind: Kind::Load | Kind::Store, order, scope, .. } if order.is_some() != scope.is_some() => {
                    found(Rule::Unscoped, "order and scope go together, such as ld.acquire.gpu or st.release.sys");
                }
                _ => {}
            }
        }
    }
}

/// A word that a function accesses both with an order and without.
pub(super) fn control_words(functions: &[Function], findings: &mut Vec<Finding>) {
    for function in functions {
        let places = Places::of(function);
        let mut strong: HashMap<(&str, i64), &Instruction> = HashMap::new();
        let mut weak = Vec::new();
        for instruction in &function.instructions {
            let Some(access) = instruction.access() else { continue };
            let Some(place) = instruction.address().and_then(|address| places.resolve(address)) else { continue };
            if access.is_strong() {
                strong.entry(place).or_insert(instruction);
            } else {
                weak.push((place, instruction));
            }
        }
        for (place, instruction) in weak {
            if let Some(other) = strong.get(&place) {
                let advice = format!(
                    "line {} accesses the same word with {}: a control word needs order and scope everywhere",
                    other.line, other.opcode
                );
                findings.push(finding(function, instruction, Rule::ControlWord, advice));
            }
        }
    }
}

/// Where the registers of a function point, as far as they are written once and by something simple.
struct Places<'a> {
    /// Register to (register it was made from, bytes added).
    from: HashMap<&'a str, (&'a str, i64)>,
    /// How often each is written.
    writes: HashMap<&'a str, usize>,
}

impl<'a> Places<'a> {
    fn of(function: &'a Function) -> Self {
        let mut places = Self { from: HashMap::new(), writes: HashMap::new() };
        for instruction in &function.instructions {
            if matches!(instruction.mnemonic(), "st" | "red" | "bra" | "bar" | "fence" | "membar" | "ret") {
                continue;
            }
            // A result, or several: `%r1`, `{%r1, %r2}`, `%p1|%p2`. What is read is counted too for calls, which is
            // harmless.
            let results = match instruction.operands.strip_prefix(['{', '(']) {
                Some(rest) => rest.split(['}', ')']).next().unwrap_or(""),
                None => instruction.operands.split(',').next().unwrap_or(""),
            };
            for result in results.split([',', '|']) {
                *places.writes.entry(result.trim()).or_insert(0) += 1;
            }
            let mut operands = instruction.operands.split(',').map(str::trim);
            let (Some(result), Some(source)) = (operands.next(), operands.next()) else { continue };
            let simple = instruction.guard.is_empty() && source.starts_with('%');
            match (instruction.mnemonic(), operands.next().map(str::parse::<i64>)) {
                ("add", Some(Ok(bytes))) if simple => places.from.insert(result, (source, bytes)),
                ("mov" | "cvta", None) if simple => places.from.insert(result, (source, 0)),
                _ => None,
            };
        }
        places
    }

    /// The register that an address comes from, and the distance in bytes.
    fn resolve(&self, address: &'a str) -> Option<(&'a str, i64)> {
        let (mut register, mut bytes) = match address.split_once('+') {
            Some((register, bytes)) => (register.trim(), bytes.trim().parse().ok()?),
            None => (address, 0),
        };
        // A chain is short; a bound keeps nonsense from going round.
        for _ in 0..64 {
            if self.writes.get(register) != Some(&1) {
                // Written more than once it may be another address by now; never, it is a parameter or a variable.
                return (!self.writes.contains_key(register)).then_some((register, bytes));
            }
            match self.from.get(register) {
                Some((source, more)) => {
                    // Made from a register that changes, it still has one value of its own.
                    if self.writes.get(source).is_some_and(|writes| *writes > 1) {
                        return Some((register, bytes));
                    }
                    (register, bytes) = (source, bytes.checked_add(*more)?);
                }
                None => return Some((register, bytes)),
            }
        }
        None
    }
}

/// What is published to this GPU and read by no one on it, or the other way round.
pub(super) fn pairs(module: &Module, findings: &mut Vec<Finding>) {
    // A fence orders the accesses around it, so with one neither side needs its own.
    let all = module
        .functions
        .iter()
        .flat_map(|function| function.instructions.iter().filter_map(move |it| Some((function, it, it.access()?))));
    let all: Vec<_> = all.collect();
    let fences = all.iter().any(|(.., access)| access.kind == Kind::Fence && access.operation.is_none());
    if fences {
        return;
    }
    let at = |test: fn(&Access) -> bool, scope: Scope| {
        all.iter().filter(move |(.., access)| test(access) && access.scope.is_some_and(|it| it >= scope))
    };
    for (test, other, advice) in [
        (
            Access::releases as fn(&Access) -> bool,
            Access::acquires as fn(&Access) -> bool,
            "no entry point of this module acquires at that scope, and no one else can see it: ld.acquire.gpu where it is read",
        ),
        (
            Access::acquires,
            Access::releases,
            "no entry point of this module releases at that scope, and no one else can: st.release.gpu where it is written",
        ),
    ] {
        // At system scope the other side may be the host's.
        let inside = at(test, Scope::Cta).filter(|(.., access)| access.scope < Some(Scope::Sys));
        for (function, instruction, access) in inside {
            if at(other, access.scope.unwrap_or(Scope::Cta)).next().is_none() {
                findings.push(finding(function, instruction, Rule::Unpaired, advice));
            }
        }
    }
}

/// What differs from the contract.
pub(super) fn contract(module: &Module, contract: &Contract, findings: &mut Vec<Finding>) {
    for (entry, now) in counts(module) {
        let mut found = |instruction: String, advice: String| {
            let (line, function) = (entry.line, entry.name.clone());
            findings.push(Finding { line, function, instruction, rule: Rule::Contract, advice });
        };
        let Some(clause) = contract.entries.get(&entry.name) else {
            found(format!(".entry {}", entry.name), "it is not in the contract: add it with --bless".to_owned());
            continue;
        };
        let mut kinds: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for (kind, number) in &clause.counts {
            kinds.entry(kind).or_default().0 = *number;
        }
        for (kind, number) in &now {
            kinds.entry(kind).or_default().1 = *number;
        }
        for (kind, (agreed, found_now)) in kinds.into_iter().filter(|(_, (agreed, now))| agreed != now) {
            let advice = if found_now < agreed {
                format!(
                    "{found_now} instead of the {agreed} of the contract: an access lost its order, its scope, or is gone"
                )
            } else {
                format!("{found_now} instead of the {agreed} of the contract; if it is meant, --bless")
            };
            found(kind.to_owned(), advice);
        }
    }
    for name in contract.entries.keys().filter(|name| !module.entries().any(|entry| entry.name == **name)) {
        findings.push(Finding {
            line: 1,
            function: name.clone(),
            instruction: format!(".entry {name}"),
            rule: Rule::Contract,
            advice: "it is in the contract but no longer in the file; if that is meant, --bless".to_owned(),
        });
    }
}

/// What entry points on the way of messages may not do.
pub(super) fn hot(module: &Module, contract: &Contract, findings: &mut Vec<Finding>) {
    for entry in module.entries() {
        let Some(clause) = contract.entries.get(&entry.name) else { continue };
        if clause.hot {
            for function in module.reached_from(entry) {
                hot_function(function, findings);
            }
        }
        for (name, calls) in &clause.hot_functions {
            let reached = module.reached_from(entry);
            let names = crate::ptx::named(reached.iter().map(|it| it.name.as_str()), name);
            if names.is_empty() {
                findings.push(Finding {
                    line: entry.line,
                    function: entry.name.clone(),
                    instruction: format!("hot-function {name}"),
                    rule: Rule::Contract,
                    advice:
                        "it reaches no such function: it has another name by now, or is no function of its own any more"
                            .to_owned(),
                });
            }
            for function in reached.into_iter().filter(|it| names.contains(&it.name.as_str())) {
                let mut own = Vec::new();
                hot_function(function, &mut own);
                own.retain(|finding: &Finding| finding.rule != Rule::HotFence && finding.rule != Rule::HotCall);
                findings.append(&mut own);
                let foreign = function.instructions.iter().filter(|it| {
                    it.callee().is_some_and(|callee| !calls.iter().any(|name| crate::ptx::is_name(callee, name)))
                });
                findings.extend(foreign.map(|it| {
                    let advice =
                        "a call that is not agreed: #[inline(always)]; or list it, if messages do not come there";
                    finding(function, it, Rule::HotCall, advice)
                }));
            }
        }
        if let (Some(limit), Some((most, at))) = (clause.releases_per_loop, releases_per_loop(entry))
            && most > limit
        {
            let advice = format!(
                "the loop from here on publishes {most} times a turn, and {limit} are agreed: publish a batch at once, or \
                 change releases-per-loop in the contract"
            );
            findings.push(finding(entry, at, Rule::HotReleases, advice));
        }
    }
}

fn hot_function(function: &Function, findings: &mut Vec<Finding>) {
    if let Some(line) = function.local_line {
        findings.push(Finding {
            line,
            function: function.name.clone(),
            instruction: ".local".to_owned(),
            rule: Rule::HotLocal,
            advice: "memory of its own, which is slow: keep arrays out, or index them by constants only".to_owned(),
        });
    }
    for instruction in &function.instructions {
        let access = instruction.access();
        let mut found = |rule, advice: &str| findings.push(finding(function, instruction, rule, advice));
        match instruction.mnemonic() {
            "ld" | "st" if access.as_ref().is_some_and(|access| access.space == Space::Local) => {
                found(
                    Rule::HotLocal,
                    "memory of its own, which is slow: keep arrays out, or index them by constants only",
                );
            }
            "trap" | "brkpt" => {
                found(Rule::HotPanic, "what ends in a panic: return an error, or index without a check")
            }
            "call" if instruction.callee().is_some_and(|name| PANICS.iter().any(|panic| name.contains(panic))) => {
                found(Rule::HotPanic, "what ends in a panic: return an error, or index without a check");
            }
            "call" => found(Rule::HotCall, "a call that was not inlined: #[inline(always)], or make it smaller"),
            "fence" | "membar" if access.as_ref().is_some_and(|access| access.scope == Some(Scope::Sys)) => {
                found(Rule::HotFence, "as slow as the bus: publish by st.release, or at gpu scope");
            }
            _ => {}
        }
    }
}

/// The most publications in one turn of a loop, those of inner loops left out, and the loop's first instruction.
pub(super) fn releases_per_loop(function: &Function) -> Option<(usize, &Instruction)> {
    let loops = function.loops();
    let within = |index: usize, it: &crate::ptx::Loop| (it.first..=it.last).contains(&index);
    let counted = loops.iter().map(|outer| {
        let inner: Vec<_> =
            loops.iter().filter(|it| *it != outer && it.first >= outer.first && it.last <= outer.last).collect();
        let releases = (outer.first..=outer.last)
            .filter(|index| !inner.iter().any(|it| within(*index, it)))
            .filter_map(|index| function.instructions.get(index)?.access())
            .filter(Access::releases);
        (releases.count(), &function.instructions[outer.first])
    });
    // The first of several with as many.
    counted.rev().max_by_key(|(releases, _)| *releases)
}
