//! Copies the workspace, mutates the copy, runs the models.

use core::error::Error;
use core::fmt;
use core::ops::RangeInclusive;
use core::time::Duration;
use std::collections::BTreeMap;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Instant;

use k2k_command::{complain, note, say};

use crate::list::{List, Mutation};
use crate::sites::{self, Change, Site};

/// The command's name in messages.
const NAME: &str = "mutations";

/// What `--timeout` may be: a mutant that is not told apart within a day never is.
const SECONDS: RangeInclusive<u64> = 1..=86400;

const HELP: &str = "usage: loom-tests/mutations [--list] [--filter TEXT] [--timeout SECONDS] [--root DIR]
SECONDS: how long a model may take, 1 to 86400; by default 120
exit status: 0 all killed, 1 not all, 2 an error or bad arguments, 141 nobody reads standard output any more";

struct Options {
    list: bool,
    filter: String,
    timeout: Duration,
    root: PathBuf,
}

pub(crate) fn main() -> ExitCode {
    let done = match options() {
        Ok(Some(options)) => run(&options),
        Ok(None) => say!("{HELP}").map(|()| true).map_err(Into::into),
        Err(message) => Err(message.into()),
    };
    k2k_command::end(NAME, 2, done.map(|good| if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }))
}

/// The options; none if help is asked for.
fn options() -> Result<Option<Options>, String> {
    let mut options =
        Options { list: false, filter: String::new(), timeout: Duration::from_secs(120), root: PathBuf::from(".") };
    let mut args = env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value; {HELP}"));
        match arg.as_str() {
            "--list" => options.list = true,
            "--filter" => options.filter = value()?,
            "--timeout" => {
                let value = value()?;
                let seconds = value.parse().ok().filter(|seconds| SECONDS.contains(seconds));
                let (least, most) = (SECONDS.start(), SECONDS.end());
                let wrong = || format!("--timeout {value}: must be a number of seconds from {least} to {most}");
                options.timeout = Duration::from_secs(seconds.ok_or_else(wrong)?);
            }
            "--root" => options.root = PathBuf::from(value()?),
            "-h" | "--help" => return Ok(None),
            _ => return Err(format!("{arg:?} is no option; {HELP}")),
        }
    }
    options.root = options.root.canonicalize().map_err(|e| format!("{}: {e}", options.root.display()))?;
    Ok(Some(options))
}

fn run(options: &Options) -> Result<bool, Box<dyn Error>> {
    let core = options.root.join("core/src");
    let mut list = List::parse(&read(&options.root.join("loom-tests/mutations.toml"))?)?;
    let (sites, bare) = scan_all(&core)?;

    // Where each mutation lands. One that no longer fits its file is a failure of its own, below.
    let mut changes = Vec::new();
    for m in &mut list.mutation {
        let tests = options.root.join("loom-tests/tests").join(&m.model).with_extension("rs");
        if !tests.exists() {
            return Err(format!("{}: no file {}", m.name(), tests.display()).into());
        }
        let Ok(text) = read(&core.join(&m.file)) else { continue };
        if let Ok((_, bytes)) = m.apply(&text) {
            m.line = Some(text[..bytes.start].matches('\n').count() + 1);
            changes.push(Change { label: m.label.clone(), file: m.file.clone(), bytes });
        }
    }
    let mut complaints = sites::gaps(&sites, &changes);
    complaints.extend(bare.iter().map(|place| format!("{place}: a strong ordering without a labelled comment")));

    let chosen: Vec<&Mutation> = list.mutation.iter().filter(|m| m.name().contains(&options.filter)).collect();
    if options.list {
        for m in &chosen {
            say!("{} | {}", m.name(), m.model_name())?;
            if m.line.is_none() {
                complaints.push(format!("{}: stale: what it is to replace is not there, or not once", m.name()));
            }
        }
        say!("{} mutations, {} ordering comments", chosen.len(), sites.len())?;
        complaints.iter().try_for_each(|complaint| say!("{complaint}"))?;
        return Ok(complaints.is_empty());
    }

    let results = Bench::new(options)?.run_all(&chosen)?;
    say!("\nlabel | model | result | seconds")?;
    for (m, result, seconds) in &results {
        say!("{} | {} | {result} | {seconds:.1}", m.name(), m.model_name())?;
    }
    let killed = results.iter().filter(|(_, result, _)| result.killed()).count();
    say!("{killed} of {} mutations killed, {} ordering comments", results.len(), sites.len())?;
    complaints.iter().try_for_each(|complaint| say!("{complaint}"))?;
    if !options.filter.is_empty() {
        // Gaps elsewhere are shown, but are not what was asked.
        return if chosen.is_empty() {
            Err(format!("no mutation's label contains {:?}", options.filter).into())
        } else {
            Ok(killed == results.len())
        };
    }
    Ok(killed == results.len() && complaints.is_empty())
}

fn scan_all(core: &Path) -> Result<(Vec<Site>, Vec<String>), String> {
    let (mut sites, mut bare) = (Vec::new(), Vec::new());
    for path in files(core)? {
        let Ok(file) = path.strip_prefix(core) else { continue };
        // The names in mutations.toml are written with slashes everywhere.
        let file: Vec<_> = file.iter().map(OsStr::to_string_lossy).collect();
        let file = file.join("/");
        // What stands behind the atomics of a device; it orders nothing by itself.
        if file.starts_with("sync/") {
            continue;
        }
        let (more, lines) = sites::scan(&file, &read(&path)?);
        sites.extend(more);
        bare.extend(lines.iter().map(|line| format!("core/src/{file}:{line}")));
    }
    Ok((sites, bare))
}

/// A mutation, what became of it, and the seconds that took.
type Judged<'m> = (&'m Mutation, Outcome, f32);

enum Outcome {
    Killed(String),
    Survived,
    Stale(String),
    NotCompiled,
    Timeout,
}

impl Outcome {
    const fn killed(&self) -> bool {
        matches!(self, Self::Killed(_))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Killed(why) => write!(f, "killed ({why})"),
            Self::Survived => f.write_str("SURVIVED"),
            Self::Stale(why) => write!(f, "STALE ({why})"),
            Self::NotCompiled => f.write_str("DOES NOT COMPILE"),
            Self::Timeout => f.write_str("TIMEOUT"),
        }
    }
}

/// A copy of the workspace with a target folder of its own.
struct Bench {
    src: PathBuf,
    build: PathBuf,
    loom: String,
    timeout: Duration,
}

impl Bench {
    fn new(options: &Options) -> Result<Self, String> {
        let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| options.root.join("target"), PathBuf::from);
        let target = std::path::absolute(&target).map_err(|e| e.to_string())?;
        let output = Command::new("bash")
            .arg(options.root.join("loom-tests/patched-loom.sh"))
            .env("CARGO_TARGET_DIR", &target)
            .stderr(Stdio::inherit())
            .output()
            .map_err(|e| format!("patched-loom.sh: {e}"))?;
        if !output.status.success() {
            return Err("patched-loom.sh failed".to_owned());
        }
        let loom = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let bench = Self {
            src: target.join("mutations/src"),
            build: target.join("mutations/build"),
            loom,
            timeout: options.timeout,
        };
        bench.copy(&options.root)?;
        Ok(bench)
    }

    /// Files that are the same are not touched, so that a second run builds nothing anew.
    fn copy(&self, root: &Path) -> Result<(), String> {
        let manifest = read(&root.join("Cargo.toml"))?;
        let manifest: toml::Table = manifest.parse().map_err(|e| format!("Cargo.toml: {e}"))?;
        let members = manifest["workspace"]["members"].as_array().ok_or("Cargo.toml: no members")?;
        let mut wanted: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
        for file in ["Cargo.toml", "Cargo.lock", "clippy.toml"] {
            wanted.insert(self.src.join(file), root.join(file));
        }
        for member in members.iter().filter_map(toml::Value::as_str) {
            let folder = root.join(member);
            for file in files(&folder)? {
                // This program would be linked again for each mutation.
                if file.strip_prefix(&folder).is_ok_and(|f| member != "loom-tests" || !f.starts_with("src/bin")) {
                    let to = self.src.join(member).join(file.strip_prefix(&folder).unwrap_or(&file));
                    wanted.insert(to, file);
                }
            }
        }
        if self.src.exists() {
            for old in files(&self.src)?.into_iter().filter(|file| !wanted.contains_key(file)) {
                fs::remove_file(&old).map_err(|e| format!("{}: {e}", old.display()))?;
            }
        }
        for (to, from) in wanted.iter().filter(|(_, from)| from.exists()) {
            let bytes = fs::read(from).map_err(|e| format!("{}: {e}", from.display()))?;
            write_changed(to, &bytes)?;
        }
        Ok(())
    }

    fn cargo(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        // Cargo's settings of the outer run would be taken for ours.
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST") {
                command.env_remove(&name);
            }
        }
        command
            .current_dir(&self.src)
            .env("CARGO_TARGET_DIR", &self.build)
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            // A mutation leaves unused imports behind, which no lint level may turn into "does not compile".
            .env("RUSTFLAGS", "--cfg k2k_loom --cap-lints warn")
            .env("CARGO_INCREMENTAL", "0")
            .env("CARGO_PROFILE_LOOM_LTO", "off")
            .env("CARGO_PROFILE_LOOM_CODEGEN_UNITS", "16")
            .arg("--config")
            .arg(&self.loom)
            .args(["test", "--quiet", "--profile", "loom", "-p", "k2k-loom-tests", "--no-run"])
            .args(["--message-format", "json-render-diagnostics"])
            .args(args)
            .stdin(Stdio::null());
        command
    }

    /// Builds test files and returns their programs by name; nothing if it does not compile.
    fn build(&self, models: &[&str]) -> Result<Option<BTreeMap<String, PathBuf>>, String> {
        let args: Vec<&str> = models.iter().flat_map(|model| ["--test", *model]).collect();
        let output = self.cargo(&args).stderr(Stdio::piped()).output().map_err(|e| format!("cargo: {e}"))?;
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            errors
                .lines()
                .filter(|line| line.starts_with("error"))
                .take(5)
                .for_each(|line| note(format_args!("    {line}")));
            return Ok(None);
        }
        let mut programs = BTreeMap::new();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let value = |key: &str| line.split_once(key)?.1.split('"').next();
            if let (Some(program), Some(name)) =
                (value("\"executable\":\""), value("\"kind\":[\"test\"],\"crate_types\":[\"bin\"],\"name\":\""))
            {
                // The paths are JSON strings; the only escape that one can hold is a backslash.
                programs.insert(name.to_owned(), PathBuf::from(program.replace("\\\\", "\\")));
            }
        }
        Ok(Some(programs))
    }

    fn run_all<'m>(&self, chosen: &[&'m Mutation]) -> Result<Vec<Judged<'m>>, Box<dyn Error>> {
        let mut models: Vec<&str> = chosen.iter().map(|m| m.model.as_str()).collect();
        models.sort_unstable();
        models.dedup();
        if models.is_empty() {
            return Ok(Vec::new());
        }
        let start = Instant::now();
        let programs = self.build(&models)?.ok_or("the code does not compile unmutated")?;
        self.check_unmutated(chosen, &programs)?;
        say!("unmutated: {} test files pass, {:.1} s", models.len(), start.elapsed().as_secs_f32())?;

        let mut results = Vec::new();
        for &m in chosen {
            let start = Instant::now();
            let outcome = self.try_one(m)?;
            let seconds = start.elapsed().as_secs_f32();
            say!("{} | {} | {outcome} | {seconds:.1}", m.name(), m.model_name())?;
            results.push((m, outcome, seconds));
        }
        Ok(results)
    }

    /// Every test that a mutation counts on exists and passes, or its failure would mean nothing.
    fn check_unmutated(&self, chosen: &[&Mutation], programs: &BTreeMap<String, PathBuf>) -> Result<(), String> {
        let mut seen = Vec::new();
        for m in chosen {
            let key = (&m.model, &m.test, m.preemptions);
            if seen.contains(&key) {
                continue;
            }
            seen.push(key);
            let program = programs.get(&m.model).ok_or_else(|| format!("no test file {}", m.model))?;
            let listed = Command::new(program)
                .args(m.test.iter())
                .args(["--list", "--format", "terse"])
                .output()
                .map_err(|e| e.to_string())?;
            if !String::from_utf8_lossy(&listed.stdout).lines().any(|line| line.ends_with(": test")) {
                return Err(format!("{}: no such test", m.model_name()));
            }
            match self.test(program, m)? {
                Outcome::Survived => {}
                Outcome::Killed(why) => return Err(format!("{} fails unmutated: {why}", m.model_name())),
                _ => return Err(format!("{} does not end in time unmutated", m.model_name())),
            }
        }
        Ok(())
    }

    fn try_one(&self, m: &Mutation) -> Result<Outcome, String> {
        let path = self.src.join("core/src").join(&m.file);
        let Ok(original) = fs::read_to_string(&path) else {
            return Ok(Outcome::Stale(format!("no file core/src/{}", m.file)));
        };
        let mutated = match m.apply(&original) {
            Ok((mutated, _)) => mutated,
            Err(why) => return Ok(Outcome::Stale(why)),
        };
        // Also when this function returns early: the next mutation must start from the original.
        let _restore = Restore { path: &path, original: &original };
        write_changed(&path, mutated.as_bytes())?;
        let Some(programs) = self.build(&[&m.model])? else {
            return Ok(Outcome::NotCompiled);
        };
        let program = programs.get(&m.model).ok_or_else(|| format!("no test file {}", m.model))?;
        self.test(program, m)
    }

    /// Runs the tests until the first failure.
    fn test(&self, program: &Path, m: &Mutation) -> Result<Outcome, String> {
        let mut command = Command::new(program);
        command
            .args(m.test.iter())
            // What the harness has captured is lost when loom aborts.
            .arg("--nocapture")
            .current_dir(self.src.join("loom-tests"))
            .env("RUST_BACKTRACE", "0")
            .env("K2K_LOOM_NO_FLOOR", "1")
            // See `loom-tests/run`.
            .env("RUST_TEST_THREADS", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for name in ["LOOM_LOG", "LOOM_LOCATION", "LOOM_MAX_BRANCHES", "LOOM_CHECKPOINT_FILE"] {
            command.env_remove(name);
        }
        match m.preemptions {
            Some(n) => command.env("LOOM_MAX_PREEMPTIONS", n.to_string()),
            None => command.env_remove("LOOM_MAX_PREEMPTIONS"),
        };
        let mut child = command.spawn().map_err(|e| format!("{}: {e}", program.display()))?;
        let (send, lines) = mpsc::channel();
        read_lines(child.stdout.take(), send.clone());
        read_lines(child.stderr.take(), send);

        let end = Instant::now() + self.timeout;
        let (mut failed, mut why) = (false, None);
        loop {
            match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    if line.contains(REASON_FOLLOWS) && why.is_none() {
                        why = Some(String::new());
                    } else if why.as_deref() == Some("") && !line.trim().is_empty() {
                        why = Some(line.trim().chars().take(70).collect());
                    }
                    // "test NAME ... FAILED" of the harness, or only the end of it where tests run one at a time.
                    failed |= (line.starts_with("test ") && line.ends_with(" FAILED")) || line == "FAILED";
                    if failed && why.as_deref().is_some_and(|why| !why.is_empty()) {
                        stop(&mut child);
                        break;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    stop(&mut child);
                    return Ok(if failed {
                        Outcome::Killed("others still running".to_owned())
                    } else {
                        Outcome::Timeout
                    });
                }
            }
        }
        let status = child.wait().map_err(|e| e.to_string())?;
        Ok(if failed || !status.success() {
            Outcome::Killed(why.filter(|why| !why.is_empty()).unwrap_or_else(|| describe(status)))
        } else {
            Outcome::Survived
        })
    }
}

/// The line after the one with this is the message of a panic.
const REASON_FOLLOWS: &str = "panicked at ";

fn describe(status: ExitStatus) -> String {
    status.code().map_or_else(|| "aborted".to_owned(), |code| format!("exit status {code}"))
}

fn stop(child: &mut Child) {
    // Both fail only if it has ended by itself.
    let _ = child.kill();
    let _ = child.wait();
}

fn read_lines(from: Option<impl Read + Send + 'static>, to: mpsc::Sender<String>) {
    let Some(from) = from else { return };
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if to.send(line).is_err() {
                break;
            }
        }
    });
}

struct Restore<'a> {
    path: &'a Path,
    original: &'a str,
}

impl Drop for Restore<'_> {
    fn drop(&mut self) {
        if let Err(e) = fs::write(self.path, self.original) {
            complain(NAME, format_args!("{}: {e}", self.path.display()));
        }
    }
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

fn write_changed(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let write = || -> io::Result<()> {
        if fs::read(path).is_ok_and(|old| old == bytes) {
            return Ok(());
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(path, bytes)
    };
    write().map_err(|e| format!("{}: {e}", path.display()))
}

/// All files below a folder, sorted, but for what tools have built there.
fn files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    let mut todo = vec![folder.to_owned()];
    while let Some(folder) = todo.pop() {
        let entries = fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        for entry in entries {
            let path = entry.map_err(|e| e.to_string())?.path();
            let built =
                path.file_name().is_some_and(|name| name == "target" || name.to_string_lossy().starts_with('.'));
            if path.is_dir() && !built {
                todo.push(path);
            } else if path.is_file() && !built {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
