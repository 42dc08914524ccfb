//! Columns for people.

use super::cells;

/// Rows of cells under a heading; the first `left` columns are aligned left, the rest right.
#[derive(Debug, Default)]
pub(super) struct Table {
    left: usize,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new<'h>(left: usize, heading: impl IntoIterator<Item = &'h str>) -> Self {
        Self { left, rows: vec![heading.into_iter().map(str::to_owned).collect()] }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Two spaces between columns, none at the end of a line.
    pub(super) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cells(cell)).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
                let gap = " ".repeat(width.saturating_sub(cells(cell)));
                if column < self.left || column + 1 == columns {
                    format!("{cell}{gap}")
                } else {
                    format!("{gap}{cell}")
                }
            });
            let line = cells.collect::<Vec<_>>().join("  ");
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}
