//! What is measured, what it is compared with, and what it ought to be.

use core::fmt;

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Nanoseconds.
    Nanoseconds,
    /// Messages per second.
    PerSecond,
    /// Hundredths of the time of a core of the host.
    PercentOfCore,
}

impl Unit {
    /// A value with its unit, short.
    #[must_use]
    pub fn text(self, value: f64) -> String {
        match self {
            Self::Nanoseconds if value.abs() < 1_000.0 => format!("{value:.0} ns"),
            Self::Nanoseconds if value.abs() < 1_000_000.0 => format!("{:.2} µs", value / 1e3),
            Self::Nanoseconds => format!("{:.2} ms", value / 1e6),
            Self::PerSecond if value < 1e4 => format!("{value:.0} /s"),
            Self::PerSecond => format!("{:.2} M/s", value / 1e6),
            Self::PercentOfCore => format!("{value:.2} %"),
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nanoseconds => "ns",
            Self::PerSecond => "messages/s",
            Self::PercentOfCore => "% of a core",
        })
    }
}

/// What the same way costs without K2K, measured in the same run.
#[derive(Clone, Debug, PartialEq)]
pub struct Floor {
    /// What it is.
    pub name: &'static str,
    /// In the unit of the figure.
    pub value: f64,
}

/// A figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// The figure.
    pub value: f64,
    /// What it counts.
    pub unit: Unit,
    /// What it is compared with. A floor has none.
    pub floor: Option<Floor>,
    /// What else is known of it: percentiles in its unit, counts.
    pub details: Vec<(&'static str, f64)>,
}

impl Figure {
    pub(super) const fn new(value: f64, unit: Unit) -> Self {
        Self { value, unit, floor: None, details: Vec::new() }
    }

    pub(super) fn over(mut self, name: &'static str, value: f64) -> Self {
        self.floor = Some(Floor { name, value });
        self
    }

    pub(super) fn with(mut self, details: impl IntoIterator<Item = (&'static str, f64)>) -> Self {
        self.details.extend(details);
        self
    }

    /// Figure over floor.
    #[must_use]
    pub fn ratio(&self) -> Option<f64> {
        self.floor.as_ref().filter(|floor| floor.value > 0.0).map(|floor| self.value / floor.value)
    }
}

/// What a figure ought to be on an H100.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// No more.
    AtMost(f64),
    /// No less.
    AtLeast(f64),
    /// No more than so many times the floor.
    TimesFloor(f64),
}

impl Target {
    /// In words, for a figure of that unit.
    #[must_use]
    pub fn text(self, unit: Unit) -> String {
        match self {
            Self::AtMost(value) => format!("≤ {}", unit.text(value)),
            Self::AtLeast(value) => format!("≥ {}", unit.text(value)),
            Self::TimesFloor(value) => format!("≤ {value:.2} × floor"),
        }
    }
}

/// Whether a target is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Met,
    /// It is not.
    NotMet,
    /// It is not, and the floor itself is beyond it.
    FloorBeyond,
    /// There is no figure, or none of a GPU.
    NotMeasured,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Met => "met",
            Self::NotMet => "not met",
            Self::FloorBeyond => "not met, nor by the floor",
            Self::NotMeasured => "not measured",
        })
    }
}

/// Why there is no figure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Something went wrong.
    Failed(String),
    /// This machine does not have what it takes.
    Unavailable(String),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(why) => write!(f, "FAILED: {why}"),
            Self::Unavailable(why) => write!(f, "not measured: {why}"),
        }
    }
}

/// A line of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Which benchmark.
    pub benchmark: &'static str,
    /// What of it.
    pub name: &'static str,
    /// The figure, or why there is none.
    pub figure: Result<Figure, Missing>,
    /// What it ought to be, on an H100.
    pub target: Option<Target>,
    /// Whether a GPU did it.
    pub is_gpu: bool,
}

impl Row {
    pub(super) const fn target(mut self, target: Target) -> Self {
        self.target = Some(target);
        self
    }

    /// Whether something went wrong.
    #[must_use]
    pub const fn failed(&self) -> bool {
        matches!(self.figure, Err(Missing::Failed(_)))
    }

    /// Whether the target is met, if there is one.
    #[must_use]
    pub fn verdict(&self) -> Option<Verdict> {
        let target = self.target?;
        let (true, Ok(figure)) = (self.is_gpu, &self.figure) else { return Some(Verdict::NotMeasured) };
        let meets = |value: f64| match target {
            Target::AtMost(limit) => value <= limit,
            Target::AtLeast(limit) => value >= limit,
            Target::TimesFloor(limit) => figure.ratio().is_some_and(|ratio| ratio <= limit),
        };
        Some(match &figure.floor {
            _ if meets(figure.value) => Verdict::Met,
            Some(floor) if !matches!(target, Target::TimesFloor(_)) && !meets(floor.value) => Verdict::FloorBeyond,
            _ => Verdict::NotMet,
        })
    }

    /// What stands above a table of rows.
    #[must_use]
    pub fn head() -> String {
        format!(
            "{:<37} {:<29} {:>11} {:>11} {:>7}  {:<14} {}",
            "benchmark", "figure", "measured", "floor", "ratio", "target (H100)", "verdict"
        )
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<37} {:<29} ", self.benchmark, self.name)?;
        let figure = match &self.figure {
            Ok(figure) => figure,
            Err(why) => return why.fmt(f),
        };
        let floor = figure.floor.as_ref().map_or_else(String::new, |floor| figure.unit.text(floor.value));
        let ratio = figure.ratio().map_or_else(String::new, |ratio| format!("{ratio:.2}"));
        write!(f, "{:>11} {floor:>11} {ratio:>7}", figure.unit.text(figure.value))?;
        let Some((target, verdict)) = self.target.zip(self.verdict()) else { return Ok(()) };
        write!(f, "  {:<14} {verdict}", target.text(figure.unit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(value: f64, floor: f64, target: Target) -> Row {
        let figure = Figure::new(value, Unit::Nanoseconds).over("flag", floor);
        Row { benchmark: "b", name: "n", figure: Ok(figure), target: Some(target), is_gpu: true }
    }

    #[test]
    fn a_target_is_met_or_not_and_a_floor_beyond_it_is_named() {
        assert_eq!(row(105.0, 100.0, Target::TimesFloor(1.1)).verdict(), Some(Verdict::Met));
        assert_eq!(row(115.0, 100.0, Target::TimesFloor(1.1)).verdict(), Some(Verdict::NotMet));
        assert_eq!(row(1900.0, 100.0, Target::AtMost(1900.0)).verdict(), Some(Verdict::Met));
        assert_eq!(row(2000.0, 100.0, Target::AtMost(1900.0)).verdict(), Some(Verdict::NotMet));
        assert_eq!(row(2500.0, 2100.0, Target::AtMost(1900.0)).verdict(), Some(Verdict::FloorBeyond));
        assert_eq!(row(4e6, 9e6, Target::AtLeast(5e6)).verdict(), Some(Verdict::NotMet));
        assert_eq!(row(4e6, 4.5e6, Target::AtLeast(5e6)).verdict(), Some(Verdict::FloorBeyond));
        let emulated = Row { is_gpu: false, ..row(1.0, 1.0, Target::AtMost(2.0)) };
        assert_eq!(emulated.verdict(), Some(Verdict::NotMeasured));
        assert_eq!(Row { target: None, ..emulated }.verdict(), None);
    }

    #[test]
    fn values_are_short() {
        assert_eq!(Unit::Nanoseconds.text(940.4), "940 ns");
        assert_eq!(Unit::Nanoseconds.text(1903.0), "1.90 µs");
        assert_eq!(Unit::PerSecond.text(50e6), "50.00 M/s");
        assert_eq!(Unit::PercentOfCore.text(0.4), "0.40 %");
    }
}
