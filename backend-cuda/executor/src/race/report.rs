//! A race in words.

use crate::error::Place;
use crate::op::{Order, Scope};
use core::fmt;

/// What is wrong between two accesses, or with one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RaceKind {
    /// Nothing orders two plain accesses: a release, an acquire or a barrier is missing, or is too narrow in scope.
    Unordered,
    /// One is plain, the other strong, and nothing orders them.
    Mixed,
    /// Both are strong, but the scope of one does not include the other's thread, or they overlap in part only.
    NotMorallyStrong,
    /// A plain or volatile access to a control word.
    WeakControl,
    /// A strong access to a control word whose scope is too narrow for those who share it.
    NarrowControl {
        /// The scope that the word was registered with.
        wanted: Scope,
    },
}

impl RaceKind {
    pub(super) fn classify(a: Order, b: Order) -> Self {
        match (a == Order::Weak, b == Order::Weak) {
            (true, true) => Self::Unordered,
            (false, false) => Self::NotMorallyStrong,
            _ => Self::Mixed,
        }
    }
}

/// One access of a race.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Party {
    /// Who and where.
    pub place: Place,
    /// Whether it writes.
    pub writes: bool,
    /// Its order.
    pub order: Order,
    /// Its scope, unless it is plain.
    pub scope: Option<Scope>,
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.writes { "write" } else { "read" };
        match self.scope {
            Some(scope) => write!(f, "{:?} {what} at scope {scope:?} by {}", self.order, self.place),
            None => write!(f, "plain {what} by {}", self.place),
        }
    }
}

/// Two accesses of which the outcome is undefined, or one that breaks the rules of a control word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Race {
    /// What is wrong.
    pub kind: RaceKind,
    /// First byte of the later access.
    pub address: u64,
    /// Its width.
    pub bytes: u8,
    /// Where that is, in words.
    pub memory: String,
    /// The earlier access; `None` if the later one is wrong by itself.
    pub earlier: Option<Party>,
    /// The access that was about to be done.
    pub later: Party,
}

impl fmt::Display for Race {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            RaceKind::Unordered => "race: nothing orders these accesses".to_owned(),
            RaceKind::Mixed => "race: nothing orders a plain access and a strong one".to_owned(),
            RaceKind::NotMorallyStrong => {
                "race: strong accesses whose scopes do not include each other, or that overlap in part".to_owned()
            }
            RaceKind::WeakControl => "a control word wants an explicit order and scope".to_owned(),
            RaceKind::NarrowControl { wanted } => format!("this control word wants scope {wanted:?}"),
        };
        write!(f, "{what}, at {:#x} ({}): {}", self.address, self.memory, self.later)?;
        match &self.earlier {
            Some(earlier) => write!(f, "; before it, {earlier}"),
            None => Ok(()),
        }
    }
}

impl core::error::Error for Race {}
