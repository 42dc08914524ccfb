//! Numbers and tables for people.

/// A number with a separator between groups of three digits: `1,234,567`.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number with three significant digits, or with all digits before the point.
fn three_digits(value: f64) -> String {
    let decimals = if value >= 99.95 {
        0
    } else if value >= 9.995 {
        1
    } else {
        2
    };
    format!("{value:.decimals$}")
}

/// The value in the first unit that keeps it below `step`, or in the last unit.
fn scaled(mut value: f64, step: f64, units: &[&str]) -> String {
    let mut unit = 0;
    // 999.5 would be shown as 1000.
    while value >= step - 0.5 && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    if unit == 0 && value.fract() == 0.0 {
        return format!("{value} {}", units[0]);
    }
    format!("{} {}", three_digits(value), units[unit])
}

/// `12.3 µs`.
pub(crate) fn time_ns(ns: f64) -> String {
    if ns >= 120e9 { format!("{:.0} s", ns / 1e9) } else { scaled(ns, 1000.0, &["ns", "µs", "ms", "s"]) }
}

/// `12.3 KiB`.
pub(crate) fn bytes(n: u64) -> String {
    scaled(n as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"])
}

/// `12.3 M` for a count per second; the unit is the caller's.
pub(crate) fn rate(per_second: f64) -> String {
    scaled(per_second, 1000.0, &["", "k", "M", "G"]).trim_end().to_owned()
}

/// Lines of a name and a value, the values in one column.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<(String, String, String)>,
}

impl Table {
    /// Adds a line: name, value, and a remark that may be empty.
    pub(crate) fn row(&mut self, name: &str, value: impl Into<String>, remark: impl Into<String>) {
        self.rows.push((name.to_owned(), value.into(), remark.into()));
    }

    /// Adds an empty line.
    pub(crate) fn gap(&mut self) {
        self.row("", "", "");
    }

    /// Names to the left, values to the right of their columns, remarks behind.
    pub(crate) fn render(&self, indent: usize) -> String {
        let width = |column: fn(&(String, String, String)) -> &String| {
            self.rows.iter().map(|row| column(row).chars().count()).max().unwrap_or(0)
        };
        let (names, values) = (width(|row| &row.0), width(|row| &row.1));
        let mut text = String::new();
        for (name, value, remark) in &self.rows {
            let line = format!("{:indent$}{name:<names$}  {value:>values$}  {remark}", "");
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped_by_three() {
        let cases = [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")];
        for (n, text) in cases {
            assert_eq!(grouped(n), text);
        }
    }

    #[test]
    fn values_have_a_unit_that_keeps_them_short() {
        assert_eq!(time_ns(0.0), "0 ns");
        assert_eq!(time_ns(999.0), "999 ns");
        assert_eq!(time_ns(999.7), "1.00 µs");
        assert_eq!(time_ns(1234.0), "1.23 µs");
        assert_eq!(time_ns(123_456.0), "123 µs");
        assert_eq!(time_ns(12_345_678.0), "12.3 ms");
        assert_eq!(time_ns(300e9), "300 s");
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1024), "1.00 KiB");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(5 << 30), "5.00 GiB");
        assert_eq!(rate(12.0), "12");
        assert_eq!(rate(3_456_789.0), "3.46 M");
    }

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::default();
        table.row("a", "1", "");
        table.row("long", "1,000", "µs");
        assert_eq!(table.render(2), "  a         1\n  long  1,000  µs\n");
    }
}
