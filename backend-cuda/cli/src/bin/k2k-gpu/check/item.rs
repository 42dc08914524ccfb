//! What there is to do, in which order.

use core::fmt;
use k2k_gpu::bench;
use k2k_gpu::check;

/// How thorough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// Few messages and little patience: whatever is wrong with all of it shows within a minute.
    Quick,
    /// As many messages as were asked for.
    Long,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Opening it, what it says of itself, its clock.
    Device,
    Check,
    Benchmark,
}

/// One thing to do. On a GPU each has a process of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) pass: Pass,
    pub(super) kind: Kind,
    pub(super) name: &'static str,
}

impl Item {
    /// Comes first, and whether or not it is asked for.
    pub(super) const DEVICE: Self = Self { pass: Pass::Quick, kind: Kind::Device, name: "open and describe" };

    fn all() -> impl Iterator<Item = Self> {
        let of = |pass| {
            let checks = check::names().map(move |name| Self { pass, kind: Kind::Check, name });
            checks.chain(bench::names().map(move |name| Self { pass, kind: Kind::Benchmark, name }))
        };
        [Self::DEVICE].into_iter().chain(of(Pass::Quick)).chain(of(Pass::Long))
    }

    /// Those of these passes that are wanted, in order, without [`DEVICE`](Self::DEVICE).
    pub(super) fn wanted(passes: &[Pass], wants: impl Fn(&Self) -> bool) -> Vec<Self> {
        Self::all().filter(|item| item.kind != Kind::Device && passes.contains(&item.pass) && wants(item)).collect()
    }

    /// What [`Display`](fmt::Display) writes.
    pub(super) fn parse(text: &str) -> Option<Self> {
        Self::all().find(|item| item.to_string() == text)
    }
}

impl Pass {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Long => "long",
        }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pass, kind, name } = self;
        match kind {
            Kind::Device => write!(f, "device: {name}"),
            Kind::Check => write!(f, "{} check: {name}", pass.name()),
            Kind::Benchmark => write!(f, "{} benchmark: {name}", pass.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_item_is_found_by_what_it_is_called() {
        for item in Item::all() {
            assert_eq!(Item::parse(&item.to_string()), Some(item));
        }
        assert_eq!(Item::parse("quick check: nothing"), None);
    }
}
