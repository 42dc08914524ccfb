//! Mutation testing of `core` in one build. See README.md beside this.

mod weave;

use k2k_command::say;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};
use weave::Position;

/// One of cargo-mutants' mutants, as its list says it.
#[derive(Deserialize)]
pub struct Mutant {
    file: String,
    genre: String,
    name: String,
    replacement: String,
    span: Extent,
}

#[derive(Deserialize)]
struct Extent {
    start: Point,
    end: Point,
}

#[derive(Deserialize)]
struct Point {
    line: usize,
    column: usize,
}

impl Point {
    fn position(&self) -> Position {
        (self.line, self.column)
    }
}

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const USAGE: &str = "usage: k2k-mutants ROOT FOLDER [--sample N] [--seed N] [--seconds N] [--quick] [--least PERCENT] [NUMBER...]
ROOT: of the project. FOLDER: for the build, kept between runs. Without NUMBERs of mutants, a random sample is tried, for that many
seconds at most. --quick: with the tests that take a second or two. --least: fails if fewer are noticed.";

/// What the woven `lib.rs` ends with. `const`, as mutants stand in constant functions as well: there none is on.
const SWITCH: &str = r#"
extern crate std as std_for_mutants;
static MUTANT: core::sync::atomic::AtomicU32 = core::sync::atomic::AtomicU32::new(u32::MAX);
const fn never(_: u32) -> bool {
    false
}
#[inline(always)]
fn is_on(number: u32) -> bool {
    match MUTANT.load(core::sync::atomic::Ordering::Relaxed) {
        u32::MAX => first(number),
        on => on == number,
    }
}
#[cold]
fn first(number: u32) -> bool {
    let on = std_for_mutants::env::var("K2K_MUTANT").ok().and_then(|text| text.parse().ok()).unwrap_or(u32::MAX - 1);
    MUTANT.store(on, core::sync::atomic::Ordering::Relaxed);
    on == number
}
#[inline(always)]
const fn mutant_is(number: u32) -> bool {
    core::intrinsics::const_eval_select((number,), never, is_on)
}
"#;

/// Tests that are tried in a quick run, beside the unit tests.
const QUICK: &[&str] = &[
    "attach",
    "clocks",
    "endpoint",
    "gateway",
    "kernel_loop",
    "layout",
    "owners",
    "panicking_platform",
    "recovery",
    "routing",
    "spsc",
    "statuses",
    "tap",
    "ticket",
];

/// Tests with these words in their names come last: they take longest.
const DEATHS: &str = "deaths::";

struct Options {
    root: PathBuf,
    folder: PathBuf,
    sample: usize,
    seed: u64,
    time: Duration,
    quick: bool,
    least: f64,
    numbers: Vec<usize>,
}

fn options() -> Result<Options> {
    let mut words = env::args().skip(1);
    let (root, folder) = words.next().zip(words.next()).ok_or(USAGE)?;
    fs::create_dir_all(Path::new(&folder).join("tree"))?;
    let mut options = Options {
        root: fs::canonicalize(root)?,
        folder: fs::canonicalize(folder)?,
        sample: 40,
        seed: 1,
        time: Duration::MAX,
        quick: false,
        least: 0.0,
        numbers: vec![],
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(USAGE);
        match word.as_str() {
            "--sample" => options.sample = value()?.parse()?,
            "--seed" => options.seed = value()?.parse()?,
            "--seconds" => options.time = Duration::from_secs(value()?.parse()?),
            "--quick" => options.quick = true,
            "--least" => options.least = value()?.parse()?,
            number => options.numbers.push(number.parse().map_err(|_| USAGE)?),
        }
    }
    Ok(options)
}

/// A copy of `core` and of the workspace's manifest, into which mutants are woven.
struct Copy<'a> {
    options: &'a Options,
    mutants: Vec<Mutant>,
    /// Mutants that do not compile.
    dropped: BTreeSet<usize>,
    /// By file: what stands where in the woven source.
    woven: BTreeMap<String, Vec<weave::Woven>>,
}

/// A test program, or a part of one.
struct Judge {
    name: String,
    arguments: Vec<String>,
    program: PathBuf,
    /// What it takes without a mutant.
    seconds: f64,
}

impl Copy<'_> {
    fn cargo(&self) -> Command {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or("cargo".into()));
        // Unstable: a function that is constant and looks at the environment all the same.
        cargo
            .env("RUSTC_BOOTSTRAP", "1")
            .env("RUSTFLAGS", "-Awarnings")
            .env("CARGO_TARGET_DIR", self.options.folder.join("target"));
        cargo.current_dir(self.options.folder.join("tree"));
        cargo
    }

    fn list(&mut self) -> Result<()> {
        let mut cargo = self.cargo();
        cargo.current_dir(&self.options.root).args(["mutants", "--list", "--json", "-p", "k2k-core"]);
        // The driver of deaths is a test, and PTX is no code here.
        let listed =
            cargo.args(["-e", "core/src/deaths/**", "-e", "core/src/sync/ptx.rs"]).stderr(Stdio::inherit()).output()?;
        if !listed.status.success() {
            return Err("cargo mutants failed; install it with: cargo install --locked cargo-mutants".into());
        }
        self.mutants = serde_json::from_slice(&listed.stdout)?;
        Ok(())
    }

    /// Copies what is built; what has not changed keeps its time.
    fn copy(&self) -> Result<()> {
        let (from, to) = (&self.options.root, self.options.folder.join("tree"));
        let _ = fs::remove_dir_all(to.join("core"));
        copy_folder(&from.join("core"), &to.join("core"))?;
        fs::copy(from.join("Cargo.lock"), to.join("Cargo.lock"))?;
        let manifest = fs::read_to_string(from.join("Cargo.toml"))?;
        let (before, members) =
            manifest.split_once("members = [").ok_or("the workspace's manifest names no members")?;
        let (_, after) = members.split_once(']').ok_or("the workspace's manifest names no members")?;
        let profiles = after.find("# An interpreter").map_or(after, |at| &after[..at]);
        fs::write(
            to.join("Cargo.toml"),
            format!("{before}members = [\"core\"]{profiles}\n[profile.dev]\ndebug = false\n"),
        )?;
        Ok(())
    }

    fn weave(&mut self) -> Result<()> {
        let mut files: BTreeMap<&str, Vec<(usize, &Mutant)>> = BTreeMap::new();
        for (number, mutant) in self.mutants.iter().enumerate() {
            // A file of which every mutant was dropped is woven as well: what an earlier round wrote is not to stay.
            let mutants = files.entry(&mutant.file).or_default();
            if !self.dropped.contains(&number) {
                mutants.push((number, mutant));
            }
        }
        let mut all = BTreeMap::new();
        for (file, mutants) in files {
            let (text, woven) = weave::weave(&fs::read_to_string(self.options.root.join(file))?, &mutants);
            fs::write(self.options.folder.join("tree").join(file), text)?;
            all.insert(file.to_owned(), woven);
        }
        self.woven = all;
        let lib = "core/src/lib.rs";
        let text = fs::read_to_string(self.options.root.join(lib))?;
        let text = text.replacen(
            "#![no_std]",
            "#![no_std]\n#![feature(core_intrinsics, const_eval_select)]\n#![allow(internal_features)]",
            1,
        );
        fs::write(self.options.folder.join("tree").join(lib), text + SWITCH)?;
        Ok(())
    }

    /// Weaves and compiles, and leaves out what does not compile, until the rest does.
    fn settle(&mut self) -> Result<()> {
        loop {
            self.weave()?;
            let checked = self
                .cargo()
                .args(["check", "-p", "k2k-core", "--lib", "--message-format=json"])
                .stderr(Stdio::null())
                .output()?;
            if checked.status.success() {
                return Ok(());
            }
            let known = self.dropped.len();
            let mut other = vec![];
            for error in messages(&checked.stdout, "compiler-message").map(|line| line["message"].clone()) {
                if error["level"] == "error" && !self.drop_at(&error) {
                    other.push(error["rendered"].to_string());
                }
            }
            if self.dropped.len() == known {
                return Err(
                    format!("the copy of core does not compile, and not for a mutant: {}", other.join("\n")).into()
                );
            }
        }
    }

    /// Drops the mutants of the narrowest place that an error is in.
    fn drop_at(&mut self, error: &Value) -> bool {
        let mut spans: Vec<&Value> = error["spans"].as_array().map(|all| all.iter().collect()).unwrap_or_default();
        spans.sort_by_key(|span| span["is_primary"] != true);
        for span in spans {
            let byte = |name: &str| span[name].as_u64().unwrap_or(0) as usize;
            let bytes = byte("byte_start")..byte("byte_end");
            let woven = span["file_name"].as_str().and_then(|file| self.woven.get(file));
            let around =
                woven.into_iter().flatten().filter(|w| w.bytes.start <= bytes.start && bytes.end <= w.bytes.end);
            if let Some(narrowest) = around.min_by_key(|w| w.bytes.len()) {
                self.dropped.extend(&narrowest.mutants);
                return true;
            }
        }
        false
    }

    /// Builds the tests; the shortest ones first.
    fn build(&self) -> Result<Vec<Judge>> {
        let built = self
            .cargo()
            .args(["test", "-p", "k2k-core", "--no-run", "--message-format=json", "--lib"])
            .args(if self.options.quick {
                QUICK.iter().flat_map(|name| ["--test", *name]).collect()
            } else {
                vec!["--tests"]
            })
            .stderr(Stdio::inherit())
            .output()?;
        if !built.status.success() {
            return Err("core's tests do not compile with its mutants".into());
        }
        let mut judges = vec![];
        for line in messages(&built.stdout, "compiler-artifact") {
            let Some(program) = line["executable"].as_str().map(PathBuf::from) else { continue };
            let name = line["target"]["name"].as_str().unwrap_or_default().to_owned();
            let parts: &[&[&str]] = match (name == "k2k_core", self.options.quick) {
                (true, true) => &[&["--skip", DEATHS]],
                (true, false) => &[&["--skip", DEATHS], &[DEATHS, "--skip", "second_death"]],
                _ => &[&[]],
            };
            for part in parts {
                let arguments = part.iter().map(|word| word.to_string()).collect();
                let mut judge = Judge { name: name.clone(), arguments, program: program.clone(), seconds: 0.0 };
                let begun = Instant::now();
                if let Some(why) = self.notices(&judge, None) {
                    return Err(format!("without a mutant, {name} fails: {why}").into());
                }
                judge.seconds = begun.elapsed().as_secs_f64();
                judges.push(judge);
            }
        }
        judges.sort_by(|one, other| one.seconds.total_cmp(&other.seconds));
        Ok(judges)
    }

    /// Why a judge fails, if it does. One that takes ten times as long as without a mutant has noticed something, too.
    fn notices(&self, judge: &Judge, number: Option<usize>) -> Option<String> {
        let log = self.options.folder.join("log");
        let file = fs::File::create(&log).expect("the folder can be written to");
        let mut command = Command::new(&judge.program);
        command
            .args(&judge.arguments)
            .args(["-q", "--test-threads=2"])
            .env("RUST_BACKTRACE", "0")
            .env("PROPTEST_CASES", "64")
            .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1");
        command.current_dir(self.options.folder.join("tree/core")).stdout(file.try_clone().expect("open")).stderr(file);
        match number {
            Some(number) => command.env("K2K_MUTANT", number.to_string()),
            None => command.env_remove("K2K_MUTANT"),
        };
        let mut child = command.spawn().expect("it was built");
        let limit = number.map(|_| Duration::from_secs_f64(20.0 + 10.0 * judge.seconds));
        let begun = Instant::now();
        let status = loop {
            match child.try_wait().expect("a child") {
                Some(status) => break status,
                None if limit.is_some_and(|limit| begun.elapsed() > limit) => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Some(format!("takes more than {} s", begun.elapsed().as_secs()));
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        let text = fs::read_to_string(log).unwrap_or_default();
        let failed = || text.lines().find_map(|line| line.strip_prefix("    ").filter(|rest| !rest.contains(' ')));
        (!status.success()).then(|| failed().map_or_else(|| status.to_string(), str::to_owned))
    }
}

fn messages(out: &[u8], reason: &str) -> impl Iterator<Item = Value> {
    let lines = String::from_utf8_lossy(out).into_owned();
    let parsed: Vec<Value> = lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let reason = reason.to_owned();
    parsed.into_iter().filter(move |line| line["reason"] == reason.as_str())
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// A random order that a seed decides (SplitMix64).
fn shuffle(numbers: &mut [usize], mut seed: u64) {
    for i in (1..numbers.len()).rev() {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = seed;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        numbers.swap(i, ((z ^ z >> 31) % (i as u64 + 1)) as usize);
    }
}

fn main() -> ExitCode {
    k2k_command::end("k2k-mutants", 2, run().map(|enough| if enough { ExitCode::SUCCESS } else { ExitCode::FAILURE }))
}

/// `false` if fewer were noticed than asked for.
fn run() -> Result<bool> {
    let options = options()?;
    let mut copy = Copy { options: &options, mutants: vec![], dropped: BTreeSet::new(), woven: BTreeMap::new() };
    copy.list()?;
    copy.copy()?;
    copy.settle()?;
    let mut numbers: Vec<usize> = weave::numbers(copy.woven.values().flatten()).into_iter().collect();
    say!("{} mutants, {} of them compile and are in one build", copy.mutants.len(), numbers.len())?;
    let judges = copy.build()?;
    if options.numbers.is_empty() {
        shuffle(&mut numbers, options.seed);
        numbers.truncate(options.sample);
    } else {
        numbers.retain(|number| options.numbers.contains(number));
    }
    let (mut tried, mut noticed) = (0_u32, 0_u32);
    let begun = Instant::now();
    for &number in numbers.iter().take_while(|_| begun.elapsed() < options.time) {
        tried += 1;
        let mutant = &copy.mutants[number];
        // What is named as the mutant's file is most likely to notice; deaths are tried last.
        let mut order: Vec<&Judge> = judges.iter().collect();
        order.sort_by_key(|judge| {
            (judge.arguments.first().is_some_and(|word| word == DEATHS), !mutant.file.contains(&judge.name))
        });
        match order.into_iter().find_map(|judge| Some((judge, copy.notices(judge, Some(number))?))) {
            Some((judge, why)) => {
                noticed += 1;
                say!("noticed  {number} {}: {} {why}", mutant.name, judge.name)?;
            }
            None => say!("SURVIVED {number} {}", mutant.name)?,
        }
    }
    let percent = 100.0 * f64::from(noticed) / f64::from(tried.max(1));
    say!("{noticed} of {tried} mutants noticed, {percent:.1} %, seed {}", options.seed)?;
    if percent < options.least {
        k2k_command::note(format_args!("fewer than {} % were noticed", options.least));
    }
    Ok(percent >= options.least)
}
