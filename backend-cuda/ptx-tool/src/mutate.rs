//! The audit of the audit: whether it notices when an access loses its order or its scope.
//!
//! Each strong access of a module is weakened in each way there is, one at a time, and the audit must report something
//! that it did not report before.

use crate::access::{Kind, Order, Scope};
use crate::audit::{Contract, Finding, Rule, audit_part};
use crate::ptx::Module;
use std::thread;

/// One weakened instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutation {
    /// Its line, from 1.
    pub line: usize,
    /// The mnemonic as it was.
    pub before: String,
    /// The mnemonic as it is; empty for a fence that was left out.
    pub after: String,
    /// Whether the audit found it.
    pub found: bool,
    /// Whether it would have been found without a contract.
    pub found_without_contract: bool,
}

/// Weakens each strong access of `module`, one at a time, and audits the result against `contract`.
#[must_use]
pub fn mutate(module: &Module, contract: &Contract) -> Vec<Mutation> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let mut all: Vec<Mutation> = thread::scope(|scope| {
        let each: Vec<_> =
            (0..threads).map(|turn| scope.spawn(move || part(module, contract, turn, threads))).collect();
        each.into_iter()
            .flat_map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    // Those of one line are from one thread.
    all.sort_by_key(|mutation| mutation.line);
    all
}

/// The same for every `threads`-th instruction.
fn part(module: &Module, contract: &Contract, turn: usize, threads: usize) -> Vec<Mutation> {
    let mut module = module.clone();
    let mut mutations = Vec::new();
    for function in 0..module.functions.len() {
        // What other functions tell by themselves does not change.
        let audit =
            |module: &Module| audit_part(module, core::slice::from_ref(&module.functions[function]), Some(contract));
        let before = audit(&module);
        for index in (turn..module.functions[function].instructions.len()).step_by(threads) {
            let original = module.functions[function].instructions[index].clone();
            for opcode in weaker(&original.opcode) {
                module.functions[function].instructions[index].opcode.clone_from(&opcode);
                let findings = audit(&module);
                let new = |finding: &&Finding| !before.contains(finding);
                mutations.push(Mutation {
                    line: original.line,
                    before: original.opcode.clone(),
                    after: opcode,
                    found: findings.iter().any(|finding| new(&finding)),
                    found_without_contract: findings.iter().filter(new).any(|it| it.rule != Rule::Contract),
                });
            }
            module.functions[function].instructions[index] = original;
        }
    }
    mutations
}

/// All ways to weaken a mnemonic; none, if it is not a strong access.
#[must_use]
pub fn weaker(opcode: &str) -> Vec<String> {
    let Some(access) = crate::access::Access::of(opcode).filter(crate::access::Access::is_strong) else {
        return Vec::new();
    };
    let order = access.order.map(Order::name);
    let scope = access.scope.map(Scope::name);
    let without = |names: &[Option<&str>]| {
        let parts: Vec<&str> = opcode.split('.').filter(|part| !names.contains(&Some(part))).collect();
        parts.join(".")
    };
    let with = |old: &str, new: &str| {
        let parts: Vec<&str> = opcode.split('.').map(|part| if part == old { new } else { part }).collect();
        parts.join(".")
    };
    let mut all = Vec::new();
    // Neither order nor scope: a weak access, a bare read-modify-write, no fence at all.
    match access.kind {
        Kind::Fence => all.push(String::new()),
        _ if order.is_some() || scope.is_some() => all.push(without(&[order, scope])),
        _ => {}
    }
    let weaker: &[&str] = match access.order {
        Some(Order::Sc) => &["acq_rel"],
        Some(Order::AcqRel) if access.kind != Kind::Fence => &["acquire", "release", "relaxed"],
        Some(Order::Acquire | Order::Release) => &["relaxed"],
        _ => &[],
    };
    all.extend(weaker.iter().map(|new| with(order.unwrap_or(""), new)));
    let narrower: &[&str] = match access.scope {
        Some(Scope::Sys) => &["gpu", "cta"],
        Some(Scope::Gpu | Scope::Cluster) => &["cta"],
        _ => &[],
    };
    all.extend(narrower.iter().map(|new| with(scope.unwrap_or(""), new)));
    if order.is_some() && scope.is_some() {
        all.push(without(&[scope]));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::weaker;

    #[test]
    fn each_way_to_weaken_is_there() {
        let all = |opcode| weaker(opcode).join(" ");
        assert_eq!(
            all("ld.acquire.sys.b64"),
            "ld.b64 ld.relaxed.sys.b64 ld.acquire.gpu.b64 ld.acquire.cta.b64 ld.acquire.b64"
        );
        assert_eq!(
            all("atom.acq_rel.gpu.cas.b32"),
            "atom.cas.b32 atom.acquire.gpu.cas.b32 atom.release.gpu.cas.b32 atom.relaxed.gpu.cas.b32 atom.acq_rel.cta.cas.b32 \
             atom.acq_rel.cas.b32"
        );
        assert_eq!(all("fence.sc.sys"), " fence.acq_rel.sys fence.sc.gpu fence.sc.cta fence.sc");
        assert_eq!(all("st.relaxed.gpu.b32"), "st.b32 st.relaxed.cta.b32 st.relaxed.b32");
        assert_eq!(all("ld.global.b32"), "");
        assert_eq!(all("atom.add.u32"), "");
    }
}
