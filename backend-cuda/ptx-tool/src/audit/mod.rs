//! The audit: whether the memory order of the source is still there in the PTX.
//!
//! Some of it a single instruction tells (a read-modify-write without order), some a function (one word accessed both
//! with and without order), and some only the number of accesses, for which there is a [contract](Contract).
//!
//! ```
//! use k2k_ptx::{audit::{Rule, audit}, ptx::Module};
//!
//! let module = Module::parse("
//!     .version 7.0
//!     .target sm_70
//!     .visible .entry count(.param .u64 counter) {
//!         ld.param.u64 %rd1, [counter];
//!         atom.add.u64 %rd2, [%rd1], 1;
//!         ret;
//!     }")?;
//! let findings = audit(&module, None);
//! assert_eq!((findings[0].rule, findings[0].line), (Rule::BareAtomic, 6));
//! # Ok::<(), k2k_ptx::ptx::ParseError>(())
//! ```

pub mod contract;
mod rules;

pub use contract::{Clause, Contract, ContractError};

use crate::ptx::{Function, Module};
use core::fmt;

/// Which rule was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// `atom` or `red` without order or scope.
    BareAtomic,
    /// `ld.volatile` or `st.volatile`.
    Volatile,
    /// `membar`.
    Membar,
    /// `fence.proxy`.
    Proxy,
    /// An order without a scope, or the other way round.
    Unscoped,
    /// One word accessed with and without order in one function.
    ControlWord,
    /// An acquire or a release within the GPU without the other half.
    Unpaired,
    /// Not as many strong accesses as agreed.
    Contract,
    /// The file is not what `k2k-ptx build` wrote.
    Edited,
    /// A hot entry point or function uses `.local` memory.
    HotLocal,
    /// A hot entry point calls, or a hot function what it may not.
    HotCall,
    /// A hot entry point or function can panic.
    HotPanic,
    /// A hot entry point has a fence at system scope.
    HotFence,
    /// A loop publishes more often than agreed.
    HotReleases,
    /// Machine code needs more registers than agreed.
    SassRegisters,
    /// Machine code needs more stack than agreed.
    SassStack,
    /// Machine code keeps registers in memory for want of room.
    SassSpill,
    /// Machine code of a hot entry point or function uses local memory.
    SassLocal,
    /// Machine code moves fewer bytes by strong accesses than the PTX.
    SassStrong,
    /// Machine code has fewer memory barriers than the PTX has releases and fences.
    SassMembar,
    /// Machine code invalidates its cache less often than the PTX acquires.
    SassAcquire,
}

impl Rule {
    /// Its name in a report.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BareAtomic => "bare-atomic",
            Self::Volatile => "volatile",
            Self::Membar => "membar",
            Self::Proxy => "proxy",
            Self::Unscoped => "unscoped",
            Self::ControlWord => "control-word",
            Self::Unpaired => "unpaired",
            Self::Contract => "contract",
            Self::Edited => "edited",
            Self::HotLocal => "hot-local",
            Self::HotCall => "hot-call",
            Self::HotPanic => "hot-panic",
            Self::HotFence => "hot-fence",
            Self::HotReleases => "hot-releases",
            Self::SassRegisters => "sass-registers",
            Self::SassStack => "sass-stack",
            Self::SassSpill => "sass-spill",
            Self::SassLocal => "sass-local",
            Self::SassStrong => "sass-strong",
            Self::SassMembar => "sass-membar",
            Self::SassAcquire => "sass-acquire",
        }
    }
}

/// A place where a rule is broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The line of the PTX, from 1; for what is about an entry point as a whole, that of its head.
    pub line: usize,
    /// The function.
    pub function: String,
    /// The instruction, or the kind of access.
    pub instruction: String,
    /// Which rule.
    pub rule: Rule,
    /// What would be right.
    pub advice: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, function, instruction, rule, advice } = self;
        write!(f, "{line}: [{}] {function}: `{instruction}`: {advice}", rule.name())
    }
}

/// Everything in `module` that breaks a rule, by line. Without a contract no entry point is hot, and an order that was
/// dropped is found only where the text itself shows it.
#[must_use]
pub fn audit(module: &Module, contract: Option<&Contract>) -> Vec<Finding> {
    audit_part(module, &module.functions, contract)
}

/// The same, but what a function tells by itself is looked for in some functions of the module only.
pub(crate) fn audit_part(module: &Module, functions: &[Function], contract: Option<&Contract>) -> Vec<Finding> {
    let mut findings = Vec::new();
    rules::instructions(functions, &mut findings);
    rules::control_words(functions, &mut findings);
    rules::pairs(module, &mut findings);
    if let Some(contract) = contract {
        rules::contract(module, contract, &mut findings);
        rules::hot(module, contract, &mut findings);
    }
    findings.sort_by(|a, b| (a.line, a.rule, &a.instruction).cmp(&(b.line, b.rule, &b.instruction)));
    // Two hot entry points may reach one function.
    findings.dedup();
    findings
}

/// Whether the file was changed since [`build`](crate::build::build) wrote it, as far as its header tells.
#[must_use]
pub fn edited(text: &str) -> Option<Finding> {
    (crate::build::is_untouched(text) == Some(false)).then(|| Finding {
        line: 2,
        function: "header".to_owned(),
        instruction: text.lines().nth(1).unwrap_or("").to_owned(),
        rule: Rule::Edited,
        advice: "the rest of the file has another hash: it was changed by hand; write it with `k2k-ptx build`"
            .to_owned(),
    })
}
