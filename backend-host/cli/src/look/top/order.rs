//! The order of kernels on the screen.

use k2k::inspect::{Detail, KernelLook, Report};

/// The column to sort by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(not(feature = "top"), expect(dead_code, reason = "only a person at a terminal asks for another one"))]
pub(super) enum Order {
    /// The worst condition first.
    #[default]
    Condition,
    Name,
    Sent,
    Received,
    Failed,
    Waiting,
}

impl Order {
    #[cfg(feature = "top")]
    pub(super) const fn next(self) -> Self {
        match self {
            Self::Condition => Self::Name,
            Self::Name => Self::Sent,
            Self::Sent => Self::Received,
            Self::Received => Self::Failed,
            Self::Failed => Self::Waiting,
            Self::Waiting => Self::Condition,
        }
    }

    #[cfg(feature = "top")]
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Condition => "condition",
            Self::Name => "name",
            Self::Sent => "sent",
            Self::Received => "received",
            Self::Failed => "failed",
            Self::Waiting => "waiting",
        }
    }

    /// The kernels in this order; equal kernels by index.
    pub(super) fn sorted(self, report: &Report) -> Vec<(&KernelLook, &Detail)> {
        let mut kernels: Vec<_> = report.kernels().collect();
        match self {
            Self::Condition => kernels.sort_by_key(|(_, detail)| detail.condition),
            Self::Name => kernels.sort_by_cached_key(|(kernel, _)| kernel.label()),
            Self::Sent => kernels.sort_by_key(|(_, detail)| core::cmp::Reverse(detail.change.sent)),
            Self::Received => kernels.sort_by_key(|(_, detail)| core::cmp::Reverse(detail.change.received)),
            Self::Failed => kernels.sort_by_key(|(_, detail)| core::cmp::Reverse(detail.change.failed())),
            Self::Waiting => kernels.sort_by_cached_key(|(kernel, _)| core::cmp::Reverse(kernel.waiting())),
        }
        kernels
    }
}
