//! `k2k top` on a terminal.

use super::super::json::FIELDS;
use super::super::{cells, file_state, label, label_of, labels, lower, owner, printable};
use super::order::Order;
use super::quantile;
use crate::interrupt;
use crate::text::{bytes, grouped, rate, time_ns};
use core::error::Error;
use core::time::Duration;
use k2k::KernelId;
use k2k::fabric::Geometry;
use k2k::inspect::{Condition, Detail, FileState, InspectError, KernelLook, Quantiles, Report, Watch};
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, enable_raw_mode};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Paragraph, Row, Sparkline, Table, TableState, Wrap};
use ratatui::{Frame, Terminal};
use rustix::event::{PollFd, PollFlags};
use signal_hook::consts::SIGCONT;
use signal_hook::iterator::Signals;
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{self, ExitCode};
use std::rc::Rc;
use std::time::Instant;

/// Looks kept for the picture of a kernel's rates.
const HISTORY: usize = 240;

/// Longest time between the first look and the first drawn look.
const FIRST: Duration = Duration::from_millis(250);

/// Longest wait for a key, so that a signal is noticed.
const TICK: Duration = Duration::from_millis(100);

/// Exit status after the terminal has hung up: 128 + `SIGHUP`.
const HUNG_UP: u8 = 129;

/// Draws until the user quits.
pub(super) fn show(mut watches: Vec<Watch>, interval: Duration) -> Result<ExitCode, Box<dyn Error>> {
    // Before the terminal is changed: an error about a fabric is then a plain line.
    for watch in &mut watches {
        watch.look()?;
    }
    // Rates from the first picture on.
    std::thread::sleep(interval.min(FIRST));
    let panes = watches.iter_mut().map(|watch| {
        let report = watch.look()?;
        let copy = if watch.view().is_copy() { " (a copy)" } else { "" };
        let file = format!("{}{copy}", printable(&watch.view().path().to_string_lossy()));
        Ok(Pane::new(file, watch.view().geometry(), report))
    });
    let mut screen = Screen::new(panes.collect::<Result<_, InspectError>>()?);
    interrupt::catch_all();
    let keys = keys()?;
    let mut signals = interrupt::of_job_control()?;
    let ended = ratatui::try_init().map_err(Into::into).and_then(|mut terminal| {
        let result = draw(&mut terminal, &mut screen, &mut watches, interval, &keys, &mut signals);
        let restored = ratatui::try_restore();
        let status = result?;
        restored?;
        Ok(status)
    });
    if is_gone(&keys) {
        // Not by returning: the remaining output has no terminal, and writing it would be an error.
        process::exit(HUNG_UP.into());
    }
    ended
}

/// The terminal from which `event::read` reads keys.
fn keys() -> io::Result<OwnedFd> {
    let stdin = io::stdin();
    if stdin.is_terminal() { stdin.as_fd().try_clone_to_owned() } else { Ok(File::open("/dev/tty")?.into()) }
}

/// Waits for a key, at most for `wait`; may return early.
fn wait_for_key(keys: &OwnedFd, wait: Duration) {
    let wait = rustix::time::Timespec::try_from(wait).ok();
    // An error is a signal that interrupts the wait.
    let _ = rustix::event::poll(&mut [PollFd::new(keys, PollFlags::IN)], wait.as_ref());
}

/// Whether the terminal has hung up: its window was closed, its connection has ended. To `event::poll` a hung-up terminal
/// would be an input that is ready for ever and empty.
fn is_gone(keys: &OwnedFd) -> bool {
    let mut keys = [PollFd::new(keys, PollFlags::empty())];
    let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut keys, Some(&now)).is_ok_and(|ready| ready > 0)
}

fn draw(
    terminal: &mut ratatui::DefaultTerminal,
    screen: &mut Screen,
    watches: &mut [Watch],
    interval: Duration,
    keys: &OwnedFd,
    signals: &mut Signals,
) -> Result<ExitCode, Box<dyn Error>> {
    let mut next = Instant::now() + interval;
    loop {
        terminal.draw(|frame| screen.draw(frame))?;
        let mut changed = false;
        while !changed {
            changed |= obey(signals, terminal)?;
            if interrupt::is_asked_for() {
                return Ok(ExitCode::from(interrupt::INTERRUPTED));
            }
            let left = next.saturating_duration_since(Instant::now());
            wait_for_key(keys, left.min(TICK));
            if is_gone(keys) {
                return Ok(ExitCode::from(HUNG_UP));
            }
            if left.is_zero() {
                next = Instant::now() + interval;
                screen.look(watches)?;
                changed = true;
            } else if event::poll(Duration::ZERO)? {
                match event::read()? {
                    Event::Key(key) if key.kind != KeyEventKind::Release => match (key.code, key.modifiers) {
                        (KeyCode::Char('c'), KeyModifiers::CONTROL) => return Ok(ExitCode::SUCCESS),
                        (KeyCode::Char('z'), KeyModifiers::CONTROL) => suspend()?,
                        (code, _) if screen.press(code) == Pressed::Quit => return Ok(ExitCode::SUCCESS),
                        _ => {}
                    },
                    _ => {}
                }
                changed = true;
            }
        }
    }
}

/// Obeys a terminal's signals, with the terminal restored meanwhile; `true` if the picture must be drawn anew.
fn obey(signals: &mut Signals, terminal: &mut ratatui::DefaultTerminal) -> io::Result<bool> {
    let mut comes_back = false;
    for signal in signals.pending() {
        if signal != SIGCONT {
            ratatui::try_restore()?;
            // For SIGTSTP, returns when the process is continued; for SIGQUIT, does not return.
            signal_hook::low_level::emulate_default_handler(signal)?;
        }
        comes_back = true;
    }
    if comes_back {
        // After a SIGSTOP, which cannot be noticed, the terminal's mode differs from the recorded mode.
        ratatui::try_restore()?;
        enable_raw_mode()?;
        execute!(io::stdout(), EnterAlternateScreen)?;
        // A new terminal has no earlier picture, and draws the whole of the next picture.
        *terminal = Terminal::new(CrosstermBackend::new(io::stdout()))?;
        // Drops the signals of the stop that has just ended.
        signals.pending().for_each(drop);
    }
    Ok(comes_back)
}

/// Ctrl-Z stops all processes of the job, unless there is no shell to continue them.
fn suspend() -> io::Result<()> {
    let session = |process| rustix::process::getsid(process).ok();
    let parent = rustix::process::getppid();
    if parent.is_some() && session(parent) == session(None) {
        rustix::process::kill_current_process_group(rustix::process::Signal::TSTP)?;
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pressed {
    Quit,
    Stay,
}

/// The page in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    Kernels,
    /// A single kernel.
    Detail,
    Help,
}

/// A fabric's part of the picture.
#[derive(Debug)]
struct Pane {
    file: String,
    geometry: Geometry,
    report: Report,
    /// Messages received per second, look after look.
    history: HashMap<KernelId, VecDeque<u64>>,
    picked: Option<KernelId>,
    table: TableState,
    /// Kernels that fit into the table, as drawn last.
    rows: u16,
    /// Why the fabric cannot be looked at any more.
    gone: Option<InspectError>,
}

#[derive(Debug)]
struct Screen {
    panes: Vec<Pane>,
    /// The pane that keys move in.
    focus: usize,
    order: Order,
    page: Page,
    /// The page to return to from help.
    before_help: Page,
    frozen: bool,
}

impl Screen {
    fn new(panes: Vec<Pane>) -> Self {
        Self {
            panes,
            focus: 0,
            order: Order::default(),
            page: Page::Kernels,
            before_help: Page::Kernels,
            frozen: false,
        }
    }

    /// Looks at every fabric that is still there.
    ///
    /// # Errors
    /// The error of a fabric, if none can be looked at any more.
    fn look(&mut self, watches: &mut [Watch]) -> Result<(), InspectError> {
        for (pane, watch) in self.panes.iter_mut().zip(watches).filter(|(pane, _)| pane.gone.is_none()) {
            match watch.look() {
                Ok(report) => pane.update(report, self.frozen),
                Err(why) => pane.gone = Some(why),
            }
        }
        if self.panes.iter().all(|pane| pane.gone.is_some()) {
            return self.panes.iter_mut().find_map(|pane| pane.gone.take()).map_or(Ok(()), Err);
        }
        Ok(())
    }

    fn press(&mut self, key: KeyCode) -> Pressed {
        match key {
            KeyCode::Char('q') => return Pressed::Quit,
            KeyCode::Esc if self.page == Page::Kernels => return Pressed::Quit,
            KeyCode::Char('h' | '?') | KeyCode::Esc | KeyCode::Backspace if self.page == Page::Help => {
                self.page = self.before_help;
            }
            KeyCode::Esc | KeyCode::Backspace => self.page = Page::Kernels,
            KeyCode::Char('h' | '?') => (self.before_help, self.page) = (self.page, Page::Help),
            KeyCode::Char('p' | ' ') => self.frozen = !self.frozen,
            KeyCode::Char('s') => self.order = self.order.next(),
            KeyCode::Tab => self.focus_on(self.focus + 1),
            KeyCode::BackTab => self.focus_on(self.focus + self.panes.len() - 1),
            KeyCode::Enter => {
                self.pick(0);
                self.page = if self.page == Page::Kernels { Page::Detail } else { Page::Kernels };
            }
            KeyCode::Down | KeyCode::Char('j') => self.pick(1),
            KeyCode::Up | KeyCode::Char('k') => self.pick(-1),
            KeyCode::PageDown => self.pick(self.page_len()),
            KeyCode::PageUp => self.pick(-self.page_len()),
            KeyCode::Home => self.pick(isize::MIN),
            KeyCode::End => self.pick(isize::MAX),
            _ => {}
        }
        Pressed::Stay
    }

    /// Focuses on a pane, by its number modulo the number of panes. A detail page then shows a kernel of the new pane.
    fn focus_on(&mut self, pane: usize) {
        self.focus = pane % self.panes.len();
        if self.page == Page::Detail && self.panes.get(self.focus).is_some_and(|pane| pane.picked.is_none()) {
            self.pick(0);
        }
    }

    /// Kernels that fit into the table with the focus.
    fn page_len(&self) -> isize {
        self.panes.get(self.focus).map_or(1, |pane| pane.rows.max(1).cast_signed().into())
    }

    fn pick(&mut self, by: isize) {
        if let Some(pane) = self.panes.get_mut(self.focus) {
            pane.pick(self.order, by);
        }
    }

    fn draw(&mut self, frame: &mut Frame<'_>) {
        let [body, foot] = Layout::vertical([Constraint::Min(1), Constraint::Length(1)]).areas(frame.area());
        if self.page == Page::Help {
            frame.render_widget(Paragraph::new(HELP).wrap(Wrap { trim: false }), body);
        } else {
            let (panes, focus) = (self.panes.len(), self.focus);
            for ((at, pane), area) in self.panes.iter_mut().enumerate().zip(split(body, panes).iter()) {
                let is_focus = at == focus;
                let page = if is_focus { self.page } else { Page::Kernels };
                pane.draw(frame, *area, page, self.order, Head { frozen: self.frozen, is_focus });
            }
        }
        let tab = if self.panes.len() > 1 { "tab fabric  " } else { "" };
        let sort = self.order.name();
        let keys = match self.page {
            Page::Kernels => [
                format!("q quit  h help  p freeze  {tab}s sort: {sort}  ↑↓ pick  enter one"),
                format!("q quit  h help  {tab}s sort: {sort}"),
            ],
            Page::Detail => [
                format!("q quit  h help  p freeze  {tab}↑↓ another  enter back"),
                format!("q quit  h help  {tab}enter back"),
            ],
            Page::Help => ["q quit  h back".to_owned(), String::new()],
        };
        let fits = |keys: &&String| keys.chars().count() <= usize::from(frame.area().width);
        let keys = keys.iter().find(fits).cloned().unwrap_or_else(|| format!("q quit  h help  {tab}"));
        frame.render_widget(Line::styled(keys, DIM), foot);
    }
}

/// Room for several fabrics: side by side if each has the width of a whole table, else stacked.
fn split(area: Rect, panes: usize) -> Rc<[Rect]> {
    let fits = usize::from(area.width) >= panes * (usize::from(WHOLE) + 2);
    let layout = if fits {
        Layout::horizontal(vec![Constraint::Fill(1); panes]).spacing(2)
    } else {
        Layout::vertical(vec![Constraint::Fill(1); panes])
    };
    layout.split(area)
}

/// How a pane's heading is drawn.
#[derive(Clone, Copy, Debug)]
struct Head {
    frozen: bool,
    is_focus: bool,
}

impl Pane {
    fn new(file: String, geometry: Geometry, report: Report) -> Self {
        Self {
            file,
            geometry,
            report,
            history: HashMap::new(),
            picked: None,
            table: TableState::default(),
            rows: 10,
            gone: None,
        }
    }

    /// Takes a new report. Rates are kept also while the picture is frozen.
    fn update(&mut self, report: Report, frozen: bool) {
        self.history.retain(|id, _| report.look.kernels.iter().any(|kernel| kernel.id == *id));
        for (kernel, detail) in report.kernels() {
            let rates = self.history.entry(kernel.id).or_default();
            if rates.len() == HISTORY {
                rates.pop_front();
            }
            rates.push_back(report.per_second(detail.change.received) as u64);
        }
        if !frozen {
            self.report = report;
        }
    }

    /// Moves on from the picked kernel; without a picked kernel, to the first, or to the last if `by` is the maximum.
    fn pick(&mut self, order: Order, by: isize) {
        let kernels = order.sorted(&self.report);
        let at = kernels.iter().position(|(kernel, _)| Some(kernel.id) == self.picked);
        let from_none = if by == isize::MAX { usize::MAX } else { 0 };
        let to = at.map_or(from_none, |at| at.saturating_add_signed(by)).min(kernels.len().saturating_sub(1));
        self.picked = kernels.get(to).map(|(kernel, _)| kernel.id);
    }

    fn draw(&mut self, frame: &mut Frame<'_>, area: Rect, page: Page, order: Order, head: Head) {
        let [top, body] = Layout::vertical([Constraint::Length(2), Constraint::Min(1)]).areas(area);
        self.draw_head(frame, top, head);
        match page {
            Page::Detail => self.draw_detail(frame, body),
            _ => self.draw_kernels(frame, body, order),
        }
    }

    fn draw_head(&self, frame: &mut Frame<'_>, area: Rect, head: Head) {
        let Geometry { kernels, slots, payload, size } = self.geometry;
        let report = &self.report;
        let frozen = if head.frozen { "  FROZEN" } else { "" };
        // The sentence at the end may be cut.
        let warning = match report.look.file {
            FileState::Named => "",
            FileState::Removed => "REMOVED ",
            FileState::Replaced => "REPLACED ",
        };
        let style = if head.is_focus { BOLD } else { DIM };
        let stuck = report.details.iter().filter(|detail| detail.condition <= Condition::Stalled).count();
        let stuck = if stuck > 0 { format!("  {stuck} stuck") } else { String::new() };
        let first = format!(
            "{warning}{}{frozen}{stuck}  {} of {kernels} kernels x {slots} x {payload} B, {}{}",
            self.file,
            report.look.kernels.len(),
            bytes(size),
            file_state(report.look.file),
        );
        let sum = |of: fn(&Detail) -> u64| {
            rate(report.per_second(report.details.iter().map(of).fold(0, u64::saturating_add)))
        };
        let waiting: u64 = report.look.kernels.iter().map(KernelLook::waiting).sum();
        let second = format!(
            "{}/s received  {}/s sent  {}/s failed  {}/s refused  {} waiting",
            sum(|detail| detail.change.received),
            sum(|detail| detail.change.sent),
            sum(|detail| detail.change.failed()),
            sum(|detail| detail.change.refused),
            grouped(waiting),
        );
        let second = match &self.gone {
            None => Line::from(second),
            // The last look stays on the screen.
            Some(why) => Line::styled(format!("GONE: {}", printable(&why.to_string())), GONE),
        };
        frame.render_widget(Paragraph::new(vec![Line::styled(first, style), second]), area);
    }

    fn draw_kernels(&mut self, frame: &mut Frame<'_>, area: Rect, order: Order) {
        self.rows = area.height.saturating_sub(1);
        let kernels = order.sorted(&self.report);
        let columns = columns(&self.report, area.width);
        let rows: Vec<Row<'_>> = kernels
            .iter()
            .map(|(kernel, detail)| {
                let cells = columns.iter().map(|column| {
                    let text = column.cell(&self.report, kernel, detail);
                    let line = Line::from(text);
                    let line = if column.right { line.right_aligned() } else { line };
                    let style = if column.heading == CONDITION { colour(detail.condition) } else { Style::new() };
                    Cell::from(line).style(style)
                });
                Row::new(cells.collect::<Vec<_>>())
            })
            .collect();
        let heading = columns.iter().map(|column| {
            let line = Line::from(column.heading);
            Cell::from(if column.right { line.right_aligned() } else { line })
        });
        let heading = Row::new(heading.collect::<Vec<_>>()).style(Style::new().add_modifier(Modifier::UNDERLINED));
        let widths = columns.iter().map(|column| column.width);
        let picked = self.picked.and_then(|id| kernels.iter().position(|(kernel, _)| kernel.id == id));
        self.table.select(picked);
        let table = Table::new(rows, widths)
            .header(heading)
            .column_spacing(GAP)
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
        frame.render_stateful_widget(table, area, &mut self.table);
    }

    fn draw_detail(&self, frame: &mut Frame<'_>, area: Rect) {
        let report = &self.report;
        let Some((kernel, detail)) = report.kernels().find(|(kernel, _)| Some(kernel.id) == self.picked) else {
            let why = if self.picked.is_some() { "this kernel has left" } else { "no kernels" };
            return frame.render_widget(Paragraph::new(why), area);
        };
        let [picture, text] = Layout::vertical([Constraint::Length(4), Constraint::Min(1)]).areas(area);
        let [title, picture] = Layout::vertical([Constraint::Length(1), Constraint::Length(3)]).areas(picture);
        let condition = format!("{} ({}): {}", label(kernel), kernel.id, detail.condition);
        frame.render_widget(Line::styled(condition, colour(detail.condition).patch(BOLD)), title);
        let rates: Vec<u64> = self.history.get(&kernel.id).into_iter().flatten().copied().collect();
        // The newest rate is at the right.
        let shown = rates.len().saturating_sub(usize::from(picture.width));
        frame.render_widget(Sparkline::default().data(rates.get(shown..).unwrap_or_default()), picture);

        let facts = facts(report, kernel, detail);
        let counters = FIELDS.iter().map(|(name, of)| {
            let per_second = rate(report.per_second(of(&detail.change)));
            Line::from(format!("{:<18}{:>16}{per_second:>10}/s", name.replace('_', " "), grouped(of(&kernel.stats))))
        });
        if text.width >= 100 {
            let [left, right] = Layout::horizontal([Constraint::Fill(1), Constraint::Length(46)]).areas(text);
            frame.render_widget(Paragraph::new(facts), left);
            frame.render_widget(Paragraph::new(counters.collect::<Vec<_>>()), right);
        } else {
            // A counter without room is zero, most likely.
            let counters = counters.zip(FIELDS).filter(|(_, (_, of))| of(&kernel.stats) > 0).map(|(line, _)| line);
            frame.render_widget(Paragraph::new(facts.into_iter().chain(counters).collect::<Vec<_>>()), text);
        }
    }
}

/// The facts about a kernel, without its counters.
fn facts(report: &Report, kernel: &KernelLook, detail: &Detail) -> Vec<Line<'static>> {
    let fact = |name: &str, value: String| Line::from(format!("{name:<12}{value}"));
    let mut facts = vec![
        fact("owner", owner(kernel.owner)),
        fact("phase", format!("{}, told to {}", lower(kernel.phase), lower(kernel.command))),
        fact("heartbeat", heartbeat(kernel, detail).replace("still ", "still for ")),
        fact("waiting", format!("{}, at most {}", grouped(kernel.waiting()), grouped(detail.high_water))),
    ];
    if let Some(Quantiles { count, p50_ns, p99_ns }) = detail.latency {
        let [p50, p99] = [p50_ns, p99_ns].map(|ns| time_ns(ns as f64));
        facts.push(fact("latency", format!("p50 {p50}, p99 {p99}, of {} counted", grouped(count))));
    }
    for from in kernel.backlog.iter().take(10) {
        let high = if from.high > 0 { format!(", {} of high priority", grouped(from.high)) } else { String::new() };
        facts.push(fact("", format!("{} from {}{high}", grouped(from.normal), label_of(&report.look, from.sender))));
    }
    for (next_hop, count) in kernel.deferred.iter().take(10) {
        facts.push(fact("deferred", format!("{} for {}", grouped(*count), label_of(&report.look, *next_hop))));
    }
    if !kernel.waits_for.is_empty() {
        facts.push(fact("waits for", labels(&report.look, &kernel.waits_for)));
    }
    facts
}

fn heartbeat(kernel: &KernelLook, detail: &Detail) -> String {
    match kernel.heartbeat {
        0 => "-".to_owned(),
        _ if detail.still.is_zero() => "moves".to_owned(),
        _ => format!("still {}", time_ns(detail.still.as_nanos() as f64)),
    }
}

const HELP: &str = "\
q, Esc      quit              s      sort by the next column
p, space    freeze, go on     enter  one kernel, or back
↑ ↓ k j     pick a kernel     page up, page down, home, end
tab         the next fabric   ctrl-z suspend

dead     its process is gone: k2k reap frees its name
failed   its handler failed
stopped  its process is stopped (SIGSTOP, a debugger)
hung     its run loop makes no pass: it hangs in its handler
unheard  it was told to pause, drain or stop, and does not follow
stalled  mail waits, and it takes none
flooded  it takes mail, and some sender has no room for more
paused   it was told to pause
ending   it drains its inbox, leaves, or has stopped
refused  every message that it wants to send is refused
busy     it takes or sends messages
idle     nothing waits, and nothing happens";

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const GONE: Style = Style::new().add_modifier(Modifier::REVERSED);

/// Width from which on a table has all columns that people usually need.
const WHOLE: u16 = 80;

fn colour(condition: Condition) -> Style {
    // https://no-color.org
    if std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
        return Style::new();
    }
    match condition {
        Condition::Dead | Condition::Failed | Condition::Hung => Style::new().fg(Color::Red).patch(BOLD),
        Condition::Stopped | Condition::Unheard | Condition::Stalled => Style::new().fg(Color::Yellow).patch(BOLD),
        Condition::Flooded | Condition::Refused => Style::new().fg(Color::Magenta),
        Condition::Busy => Style::new().fg(Color::Green),
        _ => DIM,
    }
}

const CONDITION: &str = "CONDITION";
const GAP: u16 = 1;

/// A column of the table: the narrower the terminal, the fewer columns.
#[derive(Clone, Copy)]
struct Column {
    heading: &'static str,
    width: u16,
    right: bool,
    cell: fn(&Report, &KernelLook, &Detail) -> String,
}

impl Column {
    fn cell(&self, report: &Report, kernel: &KernelLook, detail: &Detail) -> String {
        (self.cell)(report, kernel, detail)
    }
}

const fn column(heading: &'static str, width: u16, cell: fn(&Report, &KernelLook, &Detail) -> String) -> Column {
    Column { heading, width, right: true, cell }
}

/// Stands for no width.
const NEVER: u16 = u16::MAX;

/// Columns from left to right, each with the least terminal width at which it is shown, without and with counted
/// latencies.
const COLUMNS: [([u16; 2], Column); 16] = [
    ([0, 0], Column { right: false, ..column("KERNEL", 0, |_, kernel, _| label(kernel)) }),
    ([0, 0], Column { right: false, ..column(CONDITION, 9, |_, _, detail| detail.condition.to_string()) }),
    ([60, 60], column("SENT/s", 7, |report, _, detail| rate(report.per_second(detail.change.sent)))),
    ([30, 30], column("RECV/s", 7, |report, _, detail| rate(report.per_second(detail.change.received)))),
    ([70, 90], column("FWD/s", 7, |report, _, detail| rate(report.per_second(detail.change.forwarded)))),
    ([60, 60], column("FAIL/s", 7, |report, _, detail| rate(report.per_second(detail.change.failed())))),
    ([80, 80], column("REFUSED/s", 9, |report, _, detail| rate(report.per_second(detail.change.refused)))),
    ([NEVER, 100], column("P50", 7, |_, _, detail| quantile(detail, |latency| latency.p50_ns))),
    ([NEVER, 70], column("P99", 7, |_, _, detail| quantile(detail, |latency| latency.p99_ns))),
    ([24, 24], column("WAIT", 7, |_, kernel, _| grouped(kernel.waiting()))),
    ([90, 100], column("MOST", 7, |_, _, detail| grouped(detail.high_water))),
    ([100, 100], column("DEFER", 7, |_, kernel, _| grouped(kernel.deferred()))),
    ([150, 150], column("HEARTBEAT", 13, |_, kernel, detail| heartbeat(kernel, detail))),
    ([160, 160], Column { right: false, ..column("PHASE", 8, |_, kernel, _| lower(kernel.phase)) }),
    ([130, 130], Column { right: false, ..column("OWNER", 17, |_, kernel, _| owner(kernel.owner)) }),
    (
        [80, 80],
        Column { right: false, ..column("WAITS FOR", 0, |report, kernel, _| labels(&report.look, &kernel.waits_for)) },
    ),
];

/// The columns for a terminal of `width` characters. Free width goes to the names, as far as they need it, and to the
/// last column.
fn columns(report: &Report, width: u16) -> Vec<Column> {
    let mode = usize::from(report.look.config.latency);
    let mut columns: Vec<Column> =
        COLUMNS.iter().filter(|(from, _)| width >= from[mode]).map(|(_, column)| *column).collect();
    let fixed: u16 = columns.iter().map(|column| column.width + GAP).sum::<u16>().saturating_sub(GAP);
    let left = width.saturating_sub(fixed);
    let longest = report.look.kernels.iter().map(|kernel| cells(&label(kernel))).max().unwrap_or(0);
    let has_last = columns.last().is_some_and(|column| column.width == 0 && column.heading != "KERNEL");
    let most = if has_last { left.saturating_sub(9) } else { left };
    let name = u16::try_from(longest).unwrap_or(u16::MAX).max(6).min(most);
    if let Some(first) = columns.first_mut() {
        first.width = name;
    }
    if has_last && let Some(last) = columns.last_mut() {
        last.width = left.saturating_sub(name);
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;
    use k2k::fabric::{Name, Status};
    use k2k::inspect::{FileState, Look, Owner, SenderBacklog};
    use k2k::owner::OwnerState;
    use k2k::{Command, Config, Phase, Stats};
    use ratatui::backend::TestBackend;
    use std::collections::BTreeMap;

    fn kernel(index: u16, name: &str, waiting: u64, waits_for: &[u16]) -> KernelLook {
        KernelLook {
            id: KernelId::new(index, 1),
            name: Some(Name::new(name).unwrap()),
            status: Some(Status::Registered),
            owner: Some(Owner { process: Some(4711), state: OwnerState::Alive, stopped: false }),
            parks: true,
            asleep: false,
            restricted: false,
            command: Command::Run,
            phase: Phase::Running,
            heartbeat: 7,
            stats: Stats { sent: 1_234_567, received: 3, ..Stats::default() },
            backlog: vec![SenderBacklog { sender: 1, normal: waiting, high: 2, full: false }],
            deferred: BTreeMap::new(),
            latency: None,
            waits_for: waits_for.to_vec(),
        }
    }

    fn detail(condition: Condition, received: u64) -> Detail {
        let change = Stats { received, sent: 12_300, ..Stats::default() };
        Detail { condition, change, high_water: 256, latency: None, still: Duration::ZERO }
    }

    fn pane(file: &str) -> Pane {
        let kernels = vec![
            kernel(0, "source", 0, &[2]),
            kernel(1, "relay", 4, &[]),
            kernel(2, "a name of twenty-nine bytes", 64, &[]),
        ];
        let look = Look {
            at: Instant::now(),
            now_ns: 0,
            took: Duration::ZERO,
            file: FileState::Named,
            shown: None,
            config: Config::default(),
            kernels,
            left: Vec::new(),
        };
        let details = vec![detail(Condition::Busy, 0), detail(Condition::Busy, 45_600), detail(Condition::Hung, 0)];
        let report = Report { look, since: Duration::from_secs(1), details };
        let geometry = Geometry { kernels: 4, slots: 64, payload: 64, size: 1 << 20 };
        let mut pane = Pane::new(file.to_owned(), geometry, report.clone());
        pane.update(report, false);
        pane
    }

    fn screen() -> Screen {
        Screen::new(vec![pane("/dev/shm/mesh")])
    }

    fn drawn(screen: &mut Screen, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| screen.draw(frame)).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..height).map(line).collect()
    }

    #[test]
    fn the_worst_comes_first_at_every_width_and_columns_fit() {
        for (width, height) in [(40, 24), (80, 24), (200, 50), (20, 6), (1, 1)] {
            let lines = drawn(&mut screen(), width, height);
            if width == 20 {
                assert!(lines[3].starts_with("a name of") && lines[3].ends_with("hung"), "{lines:#?}");
            }
            if width < 40 {
                continue;
            }
            assert!(lines[0].starts_with("/dev/shm/mesh  1 stuck"), "{lines:#?}");
            assert!(lines[2].starts_with("KERNEL") && lines[2].contains("WAIT"), "{lines:#?}");
            assert!(
                lines[3].starts_with("a name") && lines[3].contains("hung") && lines[3].contains("66"),
                "{lines:#?}"
            );
            assert!(lines[4].starts_with("source") && lines[4].contains("busy"), "{lines:#?}");
            assert!(lines[5].starts_with("relay") && lines[5].contains("45.6 k"), "{lines:#?}");
            assert!(lines[usize::from(height) - 1].contains("q quit"), "{lines:#?}");
        }
    }

    #[test]
    fn a_wide_terminal_shows_who_waits_for_whom_and_the_owner() {
        let lines = drawn(&mut screen(), 200, 50);
        assert!(lines[4].ends_with("a name of twenty-nine bytes") && lines[4].contains("4711"), "{lines:#?}");
        assert!(drawn(&mut screen(), 80, 24)[4].ends_with("a name of"), "{:#?}", drawn(&mut screen(), 80, 24));
    }

    #[test]
    fn latencies_have_columns_while_they_are_counted() {
        let mut screen = screen();
        screen.panes[0].report.look.config.latency = true;
        screen.panes[0].report.details[1].latency = Some(Quantiles { count: 9, p50_ns: 1_234, p99_ns: 56_789 });
        let lines = drawn(&mut screen, 80, 24);
        assert!(lines[2].contains("P99") && !lines[2].contains("P50") && lines[5].contains("56.8 µs"), "{lines:#?}");
        let lines = drawn(&mut screen, 200, 50);
        assert!(lines[2].contains("P50") && lines[5].contains("1.23 µs"), "{lines:#?}");
        assert!(lines[4].contains(" - "), "no message was counted: {lines:#?}");
        screen.panes[0].picked = Some(KernelId::new(1, 1));
        screen.page = Page::Detail;
        let lines = drawn(&mut screen, 40, 24);
        assert!(lines.iter().any(|line| line.contains("p50 1.23 µs, p99 56.8")), "{lines:#?}");
    }

    #[test]
    fn keys_sort_pick_and_show_one_kernel() {
        let mut screen = screen();
        assert_eq!(screen.press(KeyCode::Char('s')), Pressed::Stay);
        assert!(drawn(&mut screen, 80, 24)[4].starts_with("relay"), "by name");
        screen.press(KeyCode::Down);
        screen.press(KeyCode::Down);
        screen.press(KeyCode::Enter);
        let lines = drawn(&mut screen, 80, 24);
        assert!(lines[2].starts_with("relay (1.1): busy") || lines[2].starts_with("relay ("), "{lines:#?}");
        assert!(lines.iter().any(|line| line.contains("4 from relay, 2 of high priority")), "{lines:#?}");
        assert!(lines.iter().any(|line| line.contains("1,234,567") && line.contains("12.3 k/s")), "{lines:#?}");
        assert!(drawn(&mut screen, 200, 50).iter().any(|line| line.contains("clock skews")));
        screen.press(KeyCode::Esc);
        assert!(drawn(&mut screen, 80, 24)[2].starts_with("KERNEL"));
        screen.press(KeyCode::Char('h'));
        assert!(drawn(&mut screen, 80, 24).iter().any(|line| line.starts_with("unheard")));
        assert_eq!(screen.press(KeyCode::Char('q')), Pressed::Quit);
    }

    #[test]
    fn a_frozen_picture_stands_still_and_says_so() {
        let mut screen = screen();
        screen.press(KeyCode::Char('p'));
        let mut report = screen.panes[0].report.clone();
        report.look.kernels.clear();
        report.details.clear();
        screen.panes[0].update(report, screen.frozen);
        let lines = drawn(&mut screen, 80, 24);
        assert!(lines[0].contains("FROZEN") && lines[3].starts_with("a name"), "{lines:#?}");
    }

    #[test]
    fn a_kernel_whose_messages_are_all_refused_shows_at_every_usual_width() {
        for width in [40, 80, 120] {
            let mut screen = screen();
            let refused = &mut screen.panes[0].report.details[0];
            refused.condition = Condition::Refused;
            refused.change = Stats { refused: 76, ..Stats::default() };
            let lines = drawn(&mut screen, width, 24);
            assert!(lines.iter().any(|line| line.contains("source") && line.contains("refused")), "{lines:#?}");
            if width >= 80 {
                assert!(lines[1].contains("76/s refused") && lines[2].contains("REFUSED/s"), "{lines:#?}");
                assert!(lines.iter().any(|line| line.starts_with("source") && line.contains(" 76 ")), "{lines:#?}");
            }
        }
    }

    #[test]
    fn a_pane_that_comes_into_focus_shows_a_kernel_of_its_own() {
        let mut screen = Screen::new(vec![pane("/dev/shm/a"), pane("/dev/shm/b")]);
        for key in [KeyCode::Down, KeyCode::Down, KeyCode::Enter, KeyCode::Tab] {
            screen.press(key);
        }
        let lines = drawn(&mut screen, 80, 40).join("\n");
        assert!(!lines.contains("has left") && lines.contains("a name of twenty-nine bytes (k2.1): hung"), "{lines}");
        // None is there, and none has left.
        screen.panes[0].report.look.kernels.clear();
        screen.panes[0].report.details.clear();
        (screen.panes[0].picked, screen.focus) = (None, 1);
        screen.press(KeyCode::Tab);
        assert!(drawn(&mut screen, 80, 40).join("\n").contains("no kernels"));
    }

    #[test]
    fn end_picks_the_last_kernel_also_first_and_a_page_is_as_high_as_the_table() {
        let mut screen = screen();
        screen.press(KeyCode::End);
        assert_eq!(screen.panes[0].picked, Some(KernelId::new(1, 1)));
        screen.press(KeyCode::Home);
        drawn(&mut screen, 80, 5);
        assert_eq!(screen.page_len(), 1);
        screen.press(KeyCode::PageDown);
        assert_eq!(screen.panes[0].picked, Some(KernelId::new(0, 1)), "the second of three");
        drawn(&mut screen, 80, 50);
        assert_eq!(screen.page_len(), 46);
    }

    #[test]
    fn what_matters_is_not_cut() {
        let mut screen = screen();
        screen.panes[0].report.look.file = FileState::Replaced;
        assert!(drawn(&mut screen, 40, 24)[0].starts_with("REPLACED /dev/shm/mesh"));
        for width in [40, 60, 80] {
            assert!(drawn(&mut screen, width, 24)[23].contains("h help"), "{width}");
        }
        screen.press(KeyCode::Enter);
        screen.press(KeyCode::Char('h'));
        let help = drawn(&mut screen, 40, 50).join(" ");
        assert!(help.contains("nothing happens") && help.contains("frees its name"), "{help}");
        screen.press(KeyCode::Char('h'));
        assert_eq!(screen.page, Page::Detail, "help goes back to the page that it came from");
    }

    #[test]
    fn several_fabrics_stand_beside_one_another_or_one_above_the_other_and_tab_moves_between_them() {
        let two = || Screen::new(vec![pane("/dev/shm/host"), pane("/dev/shm/gpu (a copy)")]);
        let at = |lines: &[String], text: &str| {
            let y = lines.iter().position(|line| line.contains(text)).unwrap_or_else(|| panic!("{text}: {lines:#?}"));
            (y, lines[y].find(text).unwrap())
        };
        let lines = drawn(&mut two(), 200, 50);
        assert_eq!((at(&lines, "/dev/shm/host").0, at(&lines, "/dev/shm/gpu").0), (0, 0), "{lines:#?}");
        assert!(lines[3].matches("a name of").count() == 2, "{lines:#?}");
        for (width, height) in [(80, 24), (40, 24)] {
            let lines = drawn(&mut two(), width, height);
            let (host, gpu) = (at(&lines, "/dev/shm/host"), at(&lines, "/dev/shm/gpu"));
            assert!(host == (0, 0) && gpu.0 > 6 && gpu.1 == 0, "{lines:#?}");
            assert_eq!(lines.iter().filter(|line| line.starts_with("KERNEL")).count(), 2, "{lines:#?}");
            assert!(lines[usize::from(height) - 1].contains("tab fabric"), "{lines:#?}");
        }
        let mut screen = two();
        screen.press(KeyCode::Tab);
        screen.press(KeyCode::Down);
        screen.press(KeyCode::Enter);
        assert_eq!((screen.panes[0].picked, screen.panes[1].picked), (None, Some(KernelId::new(2, 1))));
        let lines = drawn(&mut screen, 80, 40);
        let (table, detail) = (at(&lines, "KERNEL").0, at(&lines, "owner       4711").0);
        assert!(table < detail && lines.iter().filter(|line| line.starts_with("KERNEL")).count() == 1, "{lines:#?}");
        screen.press(KeyCode::BackTab);
        assert_eq!(screen.focus, 0);
        screen.panes[1].gone = Some(InspectError::Changed { path: "/dev/shm/gpu".into() });
        let lines = drawn(&mut screen, 80, 40);
        assert!(lines.iter().any(|line| line.starts_with("GONE: /dev/shm/gpu has another header")), "{lines:#?}");
    }
}
