//! How a block's kernel went.

use core::fmt;
use k2k_core::KernelId;
use k2k_device::{Outcome, Report};

/// What a block of an entry point says of how it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockReport {
    /// Name of its kernel.
    pub name: String,
    /// Its entry point.
    pub entry: String,
    /// Number of the block in its grid.
    pub block: u32,
    /// What it wrote.
    pub report: Report,
}

impl BlockReport {
    /// How it went; `None` if the number is none of those that are known.
    #[must_use]
    pub const fn outcome(&self) -> Option<Outcome> {
        Outcome::from_number(self.report.outcome)
    }

    /// The address that it registered at.
    #[must_use]
    pub fn kernel(&self) -> Option<KernelId> {
        self.report.kernel()
    }

    /// Whether it gave up before it began its work, or found something wrong.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        !matches!(self.outcome(), Some(Outcome::NotStarted | Outcome::Running | Outcome::Finished))
    }
}

impl fmt::Display for BlockReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, entry, block, report } = self;
        let [a, b, c, d, ..] = report.values;
        write!(f, "kernel {name} ({entry}, block {block}) ")?;
        match self.outcome() {
            Some(Outcome::NotStarted) => f.write_str("has not begun"),
            Some(Outcome::Running) => f.write_str("is at work"),
            Some(Outcome::Finished) => f.write_str("has finished"),
            Some(Outcome::WrongFabric) => write!(
                f,
                "was compiled for another fabric: KERNELS {a}, SLOTS {b}, PAYLOAD {c}, {d} bytes; start it in a \
                 session of that shape, or compile it for this one"
            ),
            Some(Outcome::IndexInUse) => {
                write!(f, "could not register: index {a} of the kernel table, or its name, is in use")
            }
            Some(Outcome::SmallWorkspace) => {
                write!(f, "needs {b} bytes of workspace per block and was given {a}: see Grid::workspace")
            }
            Some(Outcome::BadParameter) => write!(f, "cannot use parameter {a}, which is {b}"),
            Some(Outcome::CheckFailed) => write!(f, "found something wrong: {:?}", report.values),
            _ => write!(
                f,
                "says {}, which is no outcome: the entry point was compiled from another version",
                report.outcome
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_says_what_would_be_right() {
        let text = |outcome: u16| {
            let values = [4, 16, 64, 1 << 20, 0, 0, 0];
            let report = Report { outcome, kernel_index: 0, kernel_generation: 0, values };
            BlockReport { name: "echo-1".into(), entry: "k2k_echo".into(), block: 1, report }.to_string()
        };
        let expected = [
            "has not begun",
            "is at work",
            "has finished",
            "was compiled for another fabric: KERNELS 4, SLOTS 16, PAYLOAD 64, 1048576 bytes; start it in a session of \
             that shape, or compile it for this one",
            "could not register: index 4 of the kernel table, or its name, is in use",
            "needs 16 bytes of workspace per block and was given 4: see Grid::workspace",
            "cannot use parameter 4, which is 16",
            "found something wrong: [4, 16, 64, 1048576, 0, 0, 0]",
            "says 8, which is no outcome: the entry point was compiled from another version",
        ];
        for (outcome, expected) in (0..).zip(expected) {
            assert_eq!(text(outcome), format!("kernel echo-1 (k2k_echo, block 1) {expected}"));
        }
    }
}
