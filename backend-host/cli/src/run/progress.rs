//! A line on a terminal with the progress of a job.
//!
//! The line takes the terminal's width at the time of drawing. The cursor waits at the line's beginning: a terminal that
//! became narrower may have broken the line into several, and all of them lie behind the cursor, where the next drawing
//! erases them.

use crate::text::{bytes, time_ns};
use core::fmt::Write as _;
use core::time::Duration;
use rustix::termios::{isatty, tcgetwinsize};
use std::io::{self, Write as _};
use std::time::Instant;

/// Time between two drawings.
const EVERY: Duration = Duration::from_millis(100);

/// The width of a terminal that does not know its own.
const USUAL_WIDTH: usize = 80;

/// The narrowest and the widest useful bar.
const BAR: (usize, usize) = (10, 60);

/// Moves to the beginning of the line and erases the line, and all below.
const ERASE: &str = "\r\x1b[J";

/// Progress of a job. Draws on standard error, if standard error is a terminal.
#[derive(Debug)]
pub(super) struct Progress {
    /// Bytes of the whole job; `None`: not known.
    total: Option<u64>,
    done: u64,
    began: Instant,
    /// When to draw next; `None`: never.
    next: Option<Instant>,
    is_drawn: bool,
}

impl Progress {
    /// Progress of a job of `total` bytes. With `shown` false, never draws.
    pub(super) fn new(total: Option<u64>, shown: bool) -> Self {
        let began = Instant::now();
        let next = (shown && isatty(io::stderr())).then(|| began + EVERY);
        Self { total, done: 0, began, next, is_drawn: false }
    }

    /// Counts `bytes` more as carried.
    pub(super) fn advance(&mut self, bytes: u64) {
        self.done += bytes;
        if let Some(next) = self.next {
            let now = Instant::now();
            if now >= next {
                self.next = Some(now + EVERY);
                self.draw(now);
            }
        }
    }

    fn draw(&mut self, now: Instant) {
        let width = tcgetwinsize(io::stderr()).map_or(0, |size| usize::from(size.ws_col));
        let width = if width == 0 { USUAL_WIDTH } else { width };
        // Terminals differ in the effect of a character in the last column.
        let line = line(width - 1, self.done, self.total, now - self.began);
        // If the line cannot be drawn, the job goes on all the same.
        self.is_drawn |= write!(io::stderr().lock(), "{ERASE}{line}\r").is_ok();
    }
}

impl Drop for Progress {
    /// Leaves the line empty.
    fn drop(&mut self) {
        if self.is_drawn {
            let _ = write!(io::stderr().lock(), "{ERASE}");
        }
    }
}

/// The line, cut to `width` columns.
fn line(width: usize, done: u64, total: Option<u64>, took: Duration) -> String {
    let per_second = done as f64 / took.as_secs_f64().max(1e-9);
    let rate = format!("{}/s", bytes(per_second as u64));
    // The most telling part first; each part has its place only if it fits.
    let (first, parts) = match total {
        Some(total) => {
            let percent = if total == 0 { 100 } else { u128::from(done) * 100 / u128::from(total) };
            let left = total.saturating_sub(done) as f64 / per_second.max(1e-9) * 1e9;
            (format!("{percent:>3}%"), [rate, format!("{} left", time_ns(left)), bytes(done)])
        }
        None => (bytes(done), [rate, time_ns(took.as_nanos() as f64), String::new()]),
    };
    // The cursor's column.
    let mut line = format!(" {first}");
    for part in parts.iter().filter(|part| !part.is_empty()) {
        if columns(&line) + 2 + columns(part) > width {
            break;
        }
        let _ = write!(line, "  {part}");
    }
    let room = width.saturating_sub(columns(&line) + 4).min(BAR.1);
    if let Some(total) = total.filter(|_| room >= BAR.0) {
        let full = (room as u128 * u128::from(done.min(total)) / u128::from(total.max(1))) as usize;
        line = format!(" [{:.<room$}]{line}", "#".repeat(full));
    }
    line.chars().take(width).collect()
}

fn columns(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(2);

    #[test]
    fn the_line_fits_whatever_width_there_is() {
        for width in 0..200 {
            for done in [0, 1, 1 << 20, u64::MAX / 2] {
                for total in [None, Some(0), Some(1 << 20), Some(u64::MAX)] {
                    for took in [Duration::ZERO, SOON, Duration::from_secs(1 << 20)] {
                        let line = line(width, done, total, took);
                        assert!(columns(&line) <= width, "{width}: {line:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_wide_terminal_shows_all_and_a_narrow_one_the_most_telling() {
        let half = |width| line(width, 1 << 20, Some(2 << 20), SOON);
        assert_eq!(half(60), " [########.........]  50%  512 KiB/s  2.00 s left  1.00 MiB");
        assert_eq!(half(24), "  50%  512 KiB/s");
        assert_eq!(half(6), "  50%");
        assert_eq!(line(60, 1 << 20, None, SOON), " 1.00 MiB  512 KiB/s  2.00 s");
    }

    #[test]
    fn a_bar_is_empty_at_first_and_full_at_last() {
        let bar = |done| line(80, done, Some(100), SOON);
        assert!(bar(0).starts_with(" [....") && bar(100).starts_with(" [####"));
        assert!(!bar(0).contains('#') && !bar(100).contains(".]"), "{}", bar(100));
    }
}
