//! Special registers (PTX ISA 10).

use crate::op::Special;

/// The special register of that name.
pub(super) fn special(name: &str) -> Option<Special> {
    let (stem, axis) = match name.rsplit_once('.') {
        Some((stem, "x")) => (stem, Some(0)),
        Some((stem, "y")) => (stem, Some(1)),
        Some((stem, "z")) => (stem, Some(2)),
        _ => (name, None),
    };
    Some(match (stem, axis) {
        ("%tid", Some(axis)) => Special::Tid(axis),
        ("%ntid", Some(axis)) => Special::Ntid(axis),
        ("%ctaid", Some(axis)) => Special::Ctaid(axis),
        ("%nctaid", Some(axis)) => Special::Nctaid(axis),
        ("%laneid", None) => Special::Lane,
        ("%warpid", None) => Special::Warp,
        ("%nwarpid", None) => Special::Warps,
        ("%lanemask_eq", None) => Special::MaskEq,
        ("%lanemask_le", None) => Special::MaskLe,
        ("%lanemask_lt", None) => Special::MaskLt,
        ("%lanemask_ge", None) => Special::MaskGe,
        ("%lanemask_gt", None) => Special::MaskGt,
        ("%smid", None) => Special::Sm,
        ("%nsmid", None) => Special::Sms,
        ("%gridid", None) => Special::Grid,
        ("%clock", None) => Special::Clock,
        ("%clock_hi", None) => Special::ClockHigh,
        ("%clock64", None) => Special::Clock64,
        ("%globaltimer", None) => Special::Timer,
        ("%globaltimer_lo", None) => Special::TimerLow,
        ("%globaltimer_hi", None) => Special::TimerHigh,
        ("%dynamic_smem_size", None) => Special::DynamicShared,
        ("%total_smem_size", None) => Special::TotalShared,
        _ => return None,
    })
}
