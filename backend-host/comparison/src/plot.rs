//! The picture for the README: per column the floor, the best of ours, and the best five peers.

use crate::report::{ColumnResult, Report, RowResult};
use crate::rows::Kind;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Columns that are drawn, with a headline.
const PANELS: [(&str, &str); 6] = [
    ("spsc/64/single/1024", "One producer, 64-byte messages"),
    ("spsc/256/single/1024", "One producer, 256-byte messages"),
    ("round-trip/64", "Round trip, 64-byte messages"),
    ("spsc/64/batch/1024", "One producer, 64-byte messages in calls of 32"),
    ("mpsc/4/polling", "Four producers, 64-byte messages"),
    ("endpoint/64/throughput", "Whole messages: header and 64 bytes"),
];

const PANEL: (i32, i32) = (480, 232);
const HEAD: i32 = 52;
const FOOT: i32 = 28;
const LABELS: i32 = 178;
const BAR: i32 = 17;
const STEP: i32 = 23;
/// Room for the value behind the longest bar.
const TAIL: i32 = 84;

const INK: RGBColor = RGBColor(32, 36, 44);
const FAINT: RGBColor = RGBColor(110, 116, 126);
const OURS: (RGBColor, RGBColor) = (RGBColor(0, 105, 170), RGBColor(150, 200, 232));
const PEER: (RGBColor, RGBColor) = (RGBColor(150, 155, 163), RGBColor(214, 217, 221));
const FLOOR: (RGBColor, RGBColor) = (RGBColor(70, 74, 82), RGBColor(170, 174, 180));

/// What is not said beside a bar.
const LEGEND: &str =
    "floor: what moving the same lines of memory takes without any queue. Others: published crates of that name.";

/// Sizes of letters, in the backend's unit: 1.24 of it are a pixel.
const HEADLINE: i32 = 19;
const TITLE: i32 = 18;
const WORDS: i32 = 16;

/// For readers who have a dark page: there is no background, so only what is too dark to read there changes.
const STYLE: &str = "<style>@media (prefers-color-scheme: dark) { \
    text[fill=\"#20242C\"] { fill: #E6EDF3 } text[fill=\"#6E747E\"] { fill: #9DA7B3 } \
    rect[fill=\"#464A52\"] { fill: #C9D1D9 } rect[fill=\"#0069AA\"] { fill: #2F9BE0 } \
    polygon[fill=\"#FFFFFF\"] { fill: #0D1117 } }</style>\n";

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// Draws the report's columns, as far as it has them.
///
/// # Errors
/// If there is nothing to draw or the file cannot be written.
pub fn draw(report: &Report, path: &str) -> Result<(), String> {
    let found = |(id, title)| Some((report.columns.iter().find(|column| column.id == id)?, title));
    let panels: Vec<(&ColumnResult, &str)> = PANELS.into_iter().filter_map(found).collect();
    if panels.is_empty() {
        return Err(format!("nothing to draw: none of the columns {PANELS:?} was measured"));
    }
    let height = (HEAD + FOOT) as u32 + PANEL.1 as u32 * panels.len().div_ceil(2) as u32;
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (2 * PANEL.0 as u32, height)).into_drawing_area();
        picture(&root, report, &panels, height as i32).map_err(|e| format!("{path}: {e}"))?;
    }
    std::fs::write(path, styled(&svg)).map_err(|e| format!("{path}: {e}"))
}

/// The picture with [`STYLE`] behind its first line.
fn styled(svg: &str) -> String {
    let (first, rest) = svg.split_once('\n').unwrap_or((svg, ""));
    format!("{first}\n{STYLE}{rest}")
}

fn picture(
    root: &Area<'_>,
    report: &Report,
    panels: &[(&ColumnResult, &str)],
    height: i32,
) -> Result<(), Box<dyn core::error::Error>> {
    text(
        root,
        "Time per message (round trip: p50, and p99 in the lighter tone), ns: less is better",
        (16, 8),
        HEADLINE,
        INK,
        HPos::Left,
    )?;
    let machine = format!("{}, {}; medians; best five peers", report.machine.processor, report.machine.date);
    text(root, &machine, (16, 30), WORDS, FAINT, HPos::Left)?;
    for (i, (column, title)) in panels.iter().enumerate() {
        let origin = (i as i32 % 2 * PANEL.0, HEAD + i as i32 / 2 * PANEL.1);
        panel(root, origin, column, title)?;
    }
    text(root, LEGEND, (16, height - FOOT + 4), WORDS, FAINT, HPos::Left)?;
    root.present()?;
    Ok(())
}

/// A bar's value, and that of its lighter end.
struct Bar<'r> {
    row: &'r RowResult,
    value: f64,
    tail: Option<f64>,
}

impl Bar<'_> {
    fn length(&self) -> f64 {
        self.tail.unwrap_or(0.0).max(self.value)
    }
}

fn bars(column: &ColumnResult) -> Vec<Bar<'_>> {
    let tail = column.metrics.iter().position(|metric| metric.starts_with("p99 "));
    let bar = |row| Some(Bar { row, value: row.median(0)?, tail: tail.and_then(|i| row.median(i)) });
    let mut peers: Vec<Bar<'_>> = column.rows.iter().filter(|row| row.kind == Kind::Peer).filter_map(bar).collect();
    peers.sort_by(|a, b| a.value.total_cmp(&b.value));
    peers.truncate(5);
    // Most peers copy messages in and out, so ours are shown doing the same.
    let ours = column.rows.iter().filter(|row| row.kind == Kind::Ours && !row.name.ends_with("in place"));
    let ours = ours.filter_map(bar).min_by(|a, b| a.value.total_cmp(&b.value));
    let first = column.floor().and_then(bar).into_iter().chain(ours);
    first.chain(peers).collect()
}

fn panel(
    root: &Area<'_>,
    (x, y): (i32, i32),
    column: &ColumnResult,
    title: &str,
) -> Result<(), Box<dyn core::error::Error>> {
    let bars = bars(column);
    let mut lengths: Vec<f64> = bars.iter().map(Bar::length).collect();
    lengths.sort_by(f64::total_cmp);
    // One bar that dwarfs all others is cut, and shown so.
    let longest = match lengths.as_slice() {
        [.., second, last] if *last > 4.0 * second => 1.5 * second,
        [.., last] => *last,
        [] => return Ok(()),
    };
    let scale = f64::from(PANEL.0 - LABELS - TAIL) / longest.max(1e-9);
    text(root, title, (x + 16, y + 10), TITLE, INK, HPos::Left)?;
    for (i, bar) in bars.iter().enumerate() {
        let top = y + 38 + i as i32 * STEP;
        let (dark, light) = match bar.row.kind {
            Kind::Ours => OURS,
            Kind::Peer => PEER,
            Kind::Floor => FLOOR,
        };
        let left = x + LABELS;
        let end = |value: f64| left + ((value.min(longest) * scale) as i32).max(1);
        if let Some(tail) = bar.tail {
            root.draw(&Rectangle::new([(left, top), (end(tail), top + BAR)], light.filled()))?;
        }
        // The floor is a thin bar: it is no competitor.
        let inset = if bar.row.kind == Kind::Floor { 5 } else { 0 };
        root.draw(&Rectangle::new([(left, top + inset), (end(bar.value), top + BAR - inset)], dark.filled()))?;
        if bar.length() > longest {
            let gap = end(longest) - 24;
            root.draw(&Polygon::new(
                [(gap, top + BAR), (gap + 5, top), (gap + 10, top), (gap + 5, top + BAR)],
                WHITE.filled(),
            ))?;
        }
        let ink = if bar.row.kind == Kind::Peer { FAINT } else { INK };
        text(root, name(bar.row), (left - 8, top + 1), WORDS, ink, HPos::Right)?;
        let number = match bar.tail {
            Some(tail) => format!("{} / {}", digits(bar.value), digits(tail)),
            None => digits(bar.value),
        };
        text(root, &number, (end(bar.length()) + 6, top + 1), WORDS, ink, HPos::Left)?;
    }
    Ok(())
}

/// What fits beside a bar.
fn name(row: &RowResult) -> &str {
    if row.kind == Kind::Floor {
        return "floor";
    }
    let short = row.name.trim_end_matches(", same struct").trim_end_matches(" (1 producer)");
    match short {
        "crossbeam-queue ArrayQueue" => "crossbeam ArrayQueue",
        short if short.starts_with("iceoryx2-bb-lock-free") => "iceoryx2 spsc",
        short => short,
    }
}

fn digits(value: f64) -> String {
    if value < 9.95 { format!("{value:.1}") } else { format!("{value:.0}") }
}

fn text(
    root: &Area<'_>,
    words: &str,
    at: (i32, i32),
    size: i32,
    color: RGBColor,
    anchor: HPos,
) -> Result<(), Box<dyn core::error::Error>> {
    let style = TextStyle::from(("sans-serif", size).into_font()).color(&color).pos(Pos::new(anchor, VPos::Top));
    root.draw_text(words, &style, at)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_style_names_the_colours_that_are_drawn() {
        for RGBColor(red, green, blue) in [INK, FAINT, OURS.0, FLOOR.0] {
            assert!(STYLE.contains(&format!("#{red:02X}{green:02X}{blue:02X}")), "{red} {green} {blue}");
        }
        assert_eq!(styled("<svg>\n<rect/>\n</svg>\n"), format!("<svg>\n{STYLE}<rect/>\n</svg>\n"));
    }
}
