//! Each item in a process of its own. What hangs is looked at, killed, and costs nothing but itself; what crashes in the
//! driver is told with its last words. This process never calls the driver.

use super::item::{Item, Kind, Pass};
use super::record::{self, Record};
use super::watch::{GRACE, Watch};
use super::{Args, NAME, NO_GPU, READER_GONE, UNWRITTEN, USAGE, What, machine, say};
use core::time::Duration;
use k2k_command::{complain, note};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Instant;

/// How long a process may be silent beyond what it has said that it may.
const SLACK: Duration = Duration::from_secs(2);

/// How long a process that was killed may take to go. One that waits inside the driver may never.
const GOING: Duration = Duration::from_secs(5);

/// How long `--on-hang` may take.
const LOOKING: Duration = Duration::from_secs(90);

/// After how long it is said what an item is still at.
const TELL: Duration = Duration::from_secs(3);

/// Lines of standard error that are kept of a process that dies.
const LAST_WORDS: usize = 12;

/// So many in a row that cannot open the device: the rest would not either.
const GONE: u32 = 3;

/// What a process has to say.
enum Event {
    /// A line of standard output.
    Said(String),
    /// A line of standard error.
    Muttered(String),
    /// Both have ended.
    Ended,
}

/// How an item's process ended.
enum Ending {
    Exited(ExitStatus),
    /// Killed, because of that.
    Hung(String),
    /// Killed: there is no time for it.
    NoTime,
    /// Not even begun.
    NotBegun(String),
}

struct Outcome {
    ending: Ending,
    compiled: f64,
    last_words: VecDeque<String>,
}

/// Does everything, and returns an exit status if something else than the record decides on it.
pub(super) fn examine(args: &Args, what: What, watch: &Watch, mut plan: Vec<Item>) -> Option<u8> {
    let isolated = Isolated { args, what, watch, ends: Instant::now() + Duration::from_secs(args.limit) };
    // Also when a run goes on: it may be on another device.
    let earlier = watch.record(|record| record.device().map(|device| (device, record.clone())));
    plan.insert(0, Item::DEVICE);
    watch.record(|record| record.left = plan.clone());
    let mut queue: VecDeque<_> = plan.into();
    let (mut pass, mut kind) = (None, None);
    let (mut cannot_open, mut described) = (0, 0);
    while let Some(item) = queue.pop_front() {
        if !isolated.has_time() || args.json.is_none() && UNWRITTEN.get().is_some() {
            break;
        }
        // What failed in a hurry is tried at leisure when all else has been.
        let hurried = Item { pass: Pass::Quick, ..item };
        let is_last =
            queue.iter().all(|left| watch.record(|record| record.is_bad(Item { pass: Pass::Quick, ..*left })));
        if item.pass == Pass::Long && watch.record(|record| record.is_bad(hurried)) && !is_last {
            queue.push_back(item);
            continue;
        }
        if item.kind != Kind::Device && pass != Some(item.pass) {
            (pass, kind) = (Some(item.pass), None);
            let options = args.check_options(item.pass);
            say(format_args!("{}, {} messages, patience {:?}", item.pass.name(), options.messages, options.patience));
        }
        if item.kind == Kind::Benchmark && kind != Some(item.kind) {
            say(k2k_gpu::bench::Row::head());
        }
        kind = Some(item.kind);
        match isolated.attend(item) {
            Attended::Done => cannot_open = 0,
            // With what it is at.
            Attended::NoTime => return None,
            Attended::NoGpu if item == Item::DEVICE => return Some(NO_GPU),
            Attended::NoGpu => {
                cannot_open += 1;
                if cannot_open == GONE {
                    say("The device can no longer be opened: the rest is not tried.");
                    break;
                }
            }
            Attended::ReaderGone => return Some(READER_GONE),
        }
        if let Some((device, record)) = earlier.as_ref().filter(|_| item == Item::DEVICE)
            && watch.record(|record| record.device()).as_ref() != Some(device)
        {
            let (name, pci) = (&device.0, device.1.as_deref().unwrap_or("no place"));
            complain(
                NAME,
                format_args!("the record is of another device, {name} at {pci}: begin anew, without --resume"),
            );
            // As it was.
            watch.record(|now| now.clone_from(record));
            isolated.write();
            return Some(USAGE);
        }
        // What went wrong once may go well the next time; and if not, others may yet.
        if item == Item::DEVICE && described == 0 && !watch.record(|record| record.has(item)) {
            described += 1;
            queue.push_front(item);
        }
    }
    watch.record(Record::rest);
    None
}

enum Attended {
    Done,
    NoTime,
    NoGpu,
    ReaderGone,
}

struct Isolated<'a> {
    args: &'a Args,
    /// What stands between the program and its options.
    what: What,
    watch: &'a Watch,
    ends: Instant,
}

impl Isolated<'_> {
    fn has_time(&self) -> bool {
        Instant::now() + Duration::from_secs(1) < self.ends
    }

    /// An item from its beginning to its place in the record.
    fn attend(&self, item: Item) -> Attended {
        self.watch.record(|record| record.begin(item));
        self.write();
        let clocks = || {
            let pci = self.watch.record(|record| record.is_gpu().then(|| record.pci().map(str::to_owned)).flatten());
            pci.filter(|_| item.kind == Kind::Benchmark).map_or(Value::Null, |pci| machine::clocks(&pci))
        };
        let before = clocks();
        let began = Instant::now();
        let outcome = self.run(item);
        let seconds = began.elapsed().as_secs_f64();
        let last_words = Vec::from(outcome.last_words).join("\n");
        let (how, attended) = match &outcome.ending {
            Ending::NoTime => {
                // It stays what the record is at: the next run begins with the others.
                self.write();
                return Attended::NoTime;
            }
            Ending::Exited(status) => match status.code() {
                Some(0) if self.watch.record(|record| record.has(item)) => ("well".to_owned(), Attended::Done),
                Some(code) if code == i32::from(NO_GPU) => {
                    (format!("cannot open the device: {last_words}"), Attended::NoGpu)
                }
                Some(code) if code == i32::from(READER_GONE) => return Attended::ReaderGone,
                Some(code) => (format!("ended with status {code}: {last_words}"), Attended::Done),
                None => {
                    let signal = status.signal().unwrap_or(0);
                    (format!("died of signal {signal}: {last_words}"), Attended::Done)
                }
            },
            Ending::Hung(why) => (format!("hung, and was killed: {why}"), Attended::Done),
            Ending::NotBegun(why) => (format!("could not be begun: {why}"), Attended::Done),
        };
        if how != "well" {
            if self.watch.record(|record| record.has(item)) {
                say(format_args!("  {item}: {how}"));
            } else if !(item == Item::DEVICE && matches!(attended, Attended::NoGpu)) {
                self.watch.tell(&record::without_result(item, &how, seconds));
            }
        }
        let mut ended = json!({
            "item": item.to_string(),
            "ended": how,
            "seconds": seconds,
            "compile_seconds": outcome.compiled,
        });
        let after = clocks();
        if !before.is_null() || !after.is_null() {
            ended["clocks"] = json!({ "before": before, "after": after });
        }
        if item == Item::DEVICE {
            let pci = self.watch.record(|record| record.pci().map(str::to_owned));
            if let Some(pci) = pci {
                let (bus, clocks) = (machine::bus(&pci), machine::clocks(&pci));
                self.watch.record(|record| {
                    record.describe("bus", bus);
                    record.describe("clocks", clocks);
                });
            }
        }
        if matches!(attended, Attended::NoGpu) {
            // To be tried again by another run.
            self.watch.record(|record| record.rest());
        } else {
            self.watch.record(|record| record.end(item, ended));
        }
        self.write();
        attended
    }

    fn write(&self) {
        if let Err(e) = self.watch.write() {
            complain(NAME, e);
        }
    }

    fn run(&self, item: Item) -> Outcome {
        let mut outcome = Outcome { ending: Ending::NoTime, compiled: 0.0, last_words: VecDeque::new() };
        let program = std::env::current_exe();
        let child = program.and_then(|program| {
            let mut command = Command::new(program);
            command.arg(self.what.name()).args(self.args.for_item(item));
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
        });
        let mut child = match child {
            Ok(child) => child,
            Err(e) => {
                outcome.ending = Ending::NotBegun(e.to_string());
                return outcome;
            }
        };
        let events = listen(&mut child);
        outcome.ending = self.attend_to(&mut outcome, item, &mut child, &events);
        if !matches!(outcome.ending, Ending::Exited(_)) {
            let _ = child.kill();
            match gone(&mut child, GOING) {
                Some(_) => {}
                None => note(format_args!("{NAME}: process {} cannot be killed: it waits in the driver", child.id())),
            }
            // What it had still to say, of which nobody took notice.
            let left = core::iter::from_fn(|| events.recv_timeout(Duration::from_millis(100)).ok());
            for event in left.take_while(|event| !matches!(event, Event::Ended)) {
                outcome.hear(self.watch, event);
            }
        }
        outcome
    }

    /// Hears what the process says, until it ends or must be ended.
    fn attend_to(&self, outcome: &mut Outcome, item: Item, child: &mut Child, events: &Receiver<Event>) -> Ending {
        let mut at = "begin".to_owned();
        let mut since = Instant::now();
        let mut deadline = since + self.args.item_limit(item.pass) + GRACE + SLACK;
        let mut told = false;
        loop {
            let now = Instant::now();
            if now >= self.ends {
                say(format_args!(
                    "\n{NAME}: time is up after {} s; for {:.1} s it has been at: {item}: {at}",
                    self.args.limit,
                    since.elapsed().as_secs_f64()
                ));
                return Ending::NoTime;
            }
            if now >= deadline {
                let why = format!("no word for {:.1} s, at: {at}", since.elapsed().as_secs_f64());
                self.look(item, child);
                return Ending::Hung(why);
            }
            let tell = if told { deadline } else { since + TELL };
            let wait = tell.min(deadline).min(self.ends).saturating_duration_since(now);
            match events.recv_timeout(wait.max(Duration::from_millis(1))) {
                Ok(Event::Ended) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    if !told && since.elapsed() >= TELL {
                        told = true;
                        note(format_args!("  ... {item}: {at}"));
                    }
                }
                Ok(event) => {
                    let Some(news) = outcome.hear(self.watch, event) else { continue };
                    if let Some(what) = news.get("at").and_then(Value::as_str) {
                        (at, since, told) = (what.to_owned(), Instant::now(), false);
                        let seconds = news.get("seconds").and_then(Value::as_f64).unwrap_or(0.0).clamp(0.0, 1e6);
                        deadline = since + Duration::from_secs_f64(seconds) + GRACE + SLACK;
                    }
                    if let Some(why) = news.get("stuck").and_then(Value::as_str) {
                        self.look(item, child);
                        return Ending::Hung(why.to_owned());
                    }
                }
            }
        }
        let left = deadline.min(self.ends).saturating_duration_since(Instant::now());
        gone(child, left.max(GOING))
            .map_or_else(|| Ending::Hung("it has closed its output, and has not ended".to_owned()), Ending::Exited)
    }

    /// Lets the user's command look at a process that hangs.
    fn look(&self, item: Item, child: &Child) {
        let Some(command) = &self.args.on_hang else { return };
        let name: String = item.to_string().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).env("K2K_PID", child.id().to_string()).env("K2K_ITEM", name);
        // Standard output may be a table that somebody reads.
        match shell.stdin(Stdio::null()).stdout(std::io::stderr()).spawn() {
            Ok(mut looking) => {
                let left = self.ends.saturating_duration_since(Instant::now());
                if gone(&mut looking, LOOKING.min(left)).is_none() {
                    let _ = looking.kill();
                    let _ = gone(&mut looking, SLACK);
                    note(format_args!("{NAME}: --on-hang took too long"));
                }
            }
            Err(e) => complain(NAME, format_args!("--on-hang: {e}")),
        }
    }
}

impl Outcome {
    /// Takes what a process has said, and returns it if it is news.
    fn hear(&mut self, watch: &Watch, event: Event) -> Option<Value> {
        match event {
            Event::Ended => None,
            Event::Muttered(line) => {
                note(&line);
                if self.last_words.len() == LAST_WORDS {
                    self.last_words.pop_front();
                }
                self.last_words.push_back(line);
                None
            }
            Event::Said(line) => match serde_json::from_str(&line) {
                Ok(news @ Value::Object(_)) => {
                    self.compiled += news.get("compiled").and_then(Value::as_f64).unwrap_or(0.0);
                    watch.tell(&news);
                    Some(news)
                }
                // The driver's, or a debugger's.
                _ => {
                    note(format_args!("  {line}"));
                    None
                }
            },
        }
    }
}

/// Threads that pass on what the process says.
fn listen(child: &mut Child) -> Receiver<Event> {
    let (sender, events) = mpsc::channel();
    let said = child.stdout.take().map(|pipe| pass_on(pipe, sender.clone(), Event::Said));
    let muttered = child.stderr.take().map(|pipe| pass_on(pipe, sender.clone(), Event::Muttered));
    let end = move || {
        for thread in [said, muttered].into_iter().flatten().flatten() {
            let _ = thread.join();
        }
        let _ = sender.send(Event::Ended);
    };
    // Without this thread, the events end with a sender that is gone, which is as well.
    let _ = std::thread::Builder::new().spawn(end);
    events
}

fn pass_on(
    pipe: impl Read + Send + 'static,
    to: Sender<Event>,
    event: fn(String) -> Event,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().spawn(move || {
        for line in BufReader::new(pipe).split(b'\n') {
            let Ok(line) = line else { return };
            if to.send(event(String::from_utf8_lossy(&line).into_owned())).is_err() {
                return;
            }
        }
    })
}

/// Waits for a process that has been told to go.
fn gone(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let began = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if began.elapsed() < limit => std::thread::sleep(Duration::from_millis(2)),
            _ => return None,
        }
    }
}
