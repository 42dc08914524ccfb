//! Round trips and throughput of Rust with Rust and of Rust with C, between two processes, in one run.
//!
//! ```text
//! make -C backend-host/capi bench
//! ```
//!
//! Both sides of a pair are processes on the same fabric; the second one is this program started again, or
//! `bench/peer.c`, compiled by `cc -O2` against the shared library. The rows take turns, so that all of them see the same
//! machine; each figure is the median of the rounds (default 9). Messages carry 64 bytes.

use core::error::Error;
use core::time::Duration;
use k2k::{Broker, Endpoint, Message, Read, Wait, memory};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Instant;
use std::{env, fs};

const PLAIN: u32 = 1;
const LAST: u32 = 2;
const END: u32 = 3;

/// Longest wait for a peer.
const PATIENCE: Duration = Duration::from_secs(20);
const ROUND_TRIPS: u32 = 20_000;
const MESSAGES: u64 = 400_000;

/// The fabric's shape is read from its header, as it is for the calls of C.
type Shape = Read<512, 65_472>;
/// A message of this benchmark needs no more room; so the Rust side copies no more than the C side.
type Fast = Read<512, 64>;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["peer", role, fabric, wait] => peer(role, fabric, wait, 0),
        ["peer", role, fabric, wait, count] => peer(role, fabric, wait, count.parse()?),
        [] => compare(9),
        [rounds] => compare(rounds.parse()?),
        _ => Err("usage: bench [ROUNDS]".into()),
    }
}

fn wait_of(word: &str) -> Wait {
    match word {
        "spin" => Wait::Spin,
        "yield" => Wait::Yield,
        _ => Wait::Park,
    }
}

fn register(broker: &Broker<Fast>, name: &str, wait: Wait) -> Result<Endpoint<Fast>, Box<dyn Error>> {
    let endpoint = if wait == Wait::Park { broker.register_parking(name) } else { broker.register(name) };
    Ok(endpoint?.with_wait(wait))
}

/// What `bench/peer.c` does.
fn peer(role: &str, fabric: &str, wait: &str, count: u64) -> Result<(), Box<dyn Error>> {
    let broker = Broker::<Fast>::builder().open(fabric).build()?;
    let mut me = register(&broker, role, wait_of(wait))?;
    let mut message = Message::from_bytes(PLAIN, &[0; 64])?;
    if role == "source" {
        return send_all(&mut me, count);
    }
    loop {
        me.receive_into(&mut message, None)?;
        match message.header.kind {
            END => return Ok(()),
            kind if role == "echo" || kind == LAST => {
                let answer = Message::from_bytes(kind, message.payload())?;
                me.reply(&message, &answer)?;
            }
            _ => {}
        }
    }
}

fn send_all(me: &mut Endpoint<Fast>, count: u64) -> Result<(), Box<dyn Error>> {
    let sink = me.wait_for_kernel("sink", PATIENCE)?;
    let payload = [0; 64];
    for left in (1..=count).rev() {
        let kind = if left == 1 { LAST } else { PLAIN };
        let message = Message::from_bytes(kind, &payload)?.with_deadline_ns(u64::MAX);
        me.send_blocking(sink, &message)?;
    }
    me.receive(None)?;
    Ok(())
}

/// The second process of a pair.
#[derive(Clone, Copy, PartialEq)]
enum Language {
    Rust,
    C,
}

fn start(language: Language, c: &Path, args: &[&str]) -> Result<Child, Box<dyn Error>> {
    let mut command = match language {
        Language::Rust => {
            let mut command = Command::new(env::current_exe()?);
            command.arg("peer");
            command
        }
        Language::C => Command::new(c),
    };
    Ok(command.args(args).spawn()?)
}

/// The C side, compiled; and the size of the library that it uses, bytes.
fn compile() -> Result<(PathBuf, u64), Box<dyn Error>> {
    let mut release = env::current_exe()?;
    release.pop();
    release.pop();
    let library = release.join("libk2k_capi.so");
    if !library.exists() {
        return Err(format!("there is no {}: run `make -C backend-host/capi bench`", library.display()).into());
    }
    let beside = env::temp_dir().join(format!("k2k-bench-{}", std::process::id()));
    fs::create_dir_all(&beside)?;
    fs::copy(&library, beside.join("libk2k.so.0"))?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = beside.join("peer");
    let compiler = env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let status = Command::new(compiler)
        .args(["-std=c11", "-O2", "-I"])
        .arg(root.join("include"))
        .arg(root.join("bench/peer.c"))
        .arg("-o")
        .arg(&program)
        .arg(beside.join("libk2k.so.0"))
        .arg(format!("-Wl,-rpath,{}", beside.display()))
        .status()?;
    if !status.success() {
        return Err(format!("the C compiler ended with {status}").into());
    }
    Ok((program, fs::metadata(library)?.len()))
}

fn finish(mut child: Child) -> Result<(), Box<dyn Error>> {
    let status = child.wait()?;
    if status.success() { Ok(()) } else { Err(format!("a peer ended with {status}").into()) }
}

/// ns for a round trip.
fn round_trip(language: Language, c: &Path, wait: &str) -> Result<f64, Box<dyn Error>> {
    let name = format!("k2k-bench-{}", std::process::id());
    let broker = Broker::<Fast>::builder().kernels(2).slots(256).payload(64).create(&name).build()?;
    let mut me = register(&broker, "ping", wait_of(wait))?;
    let echo = start(language, c, &["echo", &name, wait])?;
    let to = me.wait_for_kernel("echo", PATIENCE);
    memory::remove(&name)?;
    let to = to?;
    let (message, mut back) = (Message::from_bytes(PLAIN, &[0; 64])?, Message::new(0));
    let mut began = Instant::now();
    for number in 0..ROUND_TRIPS + 1000 {
        if number == 1000 {
            began = Instant::now();
        }
        me.send(to, &message)?;
        me.receive_into(&mut back, PATIENCE)?;
    }
    let took = began.elapsed();
    me.send(to, &Message::new(END))?;
    finish(echo)?;
    Ok(took.as_nanos() as f64 / f64::from(ROUND_TRIPS))
}

/// ns per message of a stream from one process to another: from this one to the peer, or the other way.
fn stream(language: Language, c: &Path, to_peer: bool) -> Result<f64, Box<dyn Error>> {
    let name = format!("k2k-bench-{}", std::process::id());
    let broker = Broker::<Fast>::builder().kernels(2).slots(256).payload(64).create(&name).build()?;
    let mut me = register(&broker, if to_peer { "source" } else { "sink" }, Wait::Yield)?;
    let count = MESSAGES.to_string();
    let role = if to_peer { "sink" } else { "source" };
    let other = start(language, c, &[role, &name, "yield", &count])?;
    let to = me.wait_for_kernel(role, PATIENCE);
    memory::remove(&name)?;
    let (to, mut began) = (to?, Instant::now());
    if to_peer {
        send_all(&mut me, MESSAGES)?;
    } else {
        let mut message = Message::new(0);
        for number in 0..MESSAGES {
            me.receive_into(&mut message, PATIENCE)?;
            if number == 0 {
                began = Instant::now();
            }
        }
        me.reply(&message, &Message::new(LAST))?;
    }
    let took = began.elapsed();
    if to_peer {
        me.send(to, &Message::new(END))?;
    }
    finish(other)?;
    Ok(took.as_nanos() as f64 / MESSAGES as f64)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

fn compare(rounds: usize) -> Result<(), Box<dyn Error>> {
    let (c, size) = compile()?;
    type Row<'r> = (&'r str, Box<dyn Fn(Language) -> Result<f64, Box<dyn Error>> + 'r>);
    let rows: Vec<Row<'_>> = vec![
        ("round trip, spinning", Box::new(|language| round_trip(language, &c, "spin"))),
        ("round trip, yielding", Box::new(|language| round_trip(language, &c, "yield"))),
        ("round trip, parking", Box::new(|language| round_trip(language, &c, "park"))),
        ("stream, Rust to peer", Box::new(|language| stream(language, &c, true))),
        ("stream, peer to Rust", Box::new(|language| stream(language, &c, false))),
    ];
    let mut figures = vec![[Vec::new(), Vec::new()]; rows.len()];
    for _ in 0..rounds.max(1) {
        for ((_, measure), found) in rows.iter().zip(&mut figures) {
            found[0].push(measure(Language::Rust)?);
            found[1].push(measure(Language::C)?);
        }
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{:<24} {:>14} {:>14} {:>8}", "ns, median", "Rust and Rust", "Rust and C", "ratio")?;
    for ((name, _), found) in rows.iter().zip(&mut figures) {
        let [rust, c] = [median(&mut found[0]), median(&mut found[1])];
        writeln!(out, "{name:<24} {rust:>14.0} {c:>14.0} {:>8.2}", c / rust)?;
    }
    writeln!(out, "libk2k.so: {size} bytes, an endpoint {} bytes", size_of::<Endpoint<Shape>>())?;
    if let Some(folder) = c.parent() {
        let _ = fs::remove_dir_all(folder);
    }
    Ok(())
}
