//! Two processes play ping-pong through a fabric in shared memory, once for each way of waiting.
//!
//! ```text
//! cargo run --release -p k2k --example ping_pong
//! ```
//!
//! ```text
//!   process "ping"                                        process "pong", the same program started again
//!   Builder::create(name) ──────> /dev/shm/name <────── Builder::open(name), and remove(name)
//!   send ───────────────────────> inbox of pong ───────> receive
//!   receive <──────────────────── inbox of ping <─────── reply
//! ```
//!
//! No broker, lock or system call stands between the two while both are awake. How long a round trip takes depends on
//! how they wait: spinning needs a core for each, parking needs none while nothing comes and pays for being woken.
//!
//! The name goes as soon as both have the memory, so that nothing stays in /dev/shm, whatever ends the two.
//!
//! An argument says how long each game lasts, in seconds (default 1).

use core::error::Error;
use core::time::Duration;
use k2k::{Broker, Builder, Endpoint, Fixed, Message, ReceiveError, Wait, memory};
use k2k_command::{complain, say};
use std::io::{self, Read};
use std::process::{self, Child, Command, ExitCode, Stdio};
use std::time::Instant;
use std::{env, thread};

/// Two kernels, 64 messages each way, of up to 64 bytes.
type Table = Broker<Fixed<2, 64, 64>>;
type Player = Endpoint<Fixed<2, 64, 64>>;

/// What a message asks for.
const BALL: u32 = 1;
const GOODBYE: u32 = 2;

/// Longest wait for the other one: to begin, to answer, to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Round trips that are not timed: until the other process runs and the caches are warm.
const WARM_UP: u64 = 1000;

/// The longest game, seconds.
const LONGEST: f64 = 3600.0;

const USAGE: &str = "usage: ping_pong [SECONDS], up to 3600";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let lasts = |given: &str| {
        let seconds = given.parse().ok().filter(|seconds| (0.0..=LONGEST).contains(seconds))?;
        Duration::try_from_secs_f64(seconds).ok()
    };
    let played = match &args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["pong", table, wait] => parse(wait).ok_or("spin, yield or park?".into()).and_then(|wait| pong(table, wait)),
        [] => tournament(Duration::from_secs(1)),
        ["-h" | "--help"] => say!("{USAGE}").map_err(Into::into),
        [given] => match lasts(given) {
            Some(lasts) => tournament(lasts),
            None => {
                complain("ping_pong", format_args!("{given:?} is no number of seconds; {USAGE}"));
                return ExitCode::from(2);
            }
        },
        _ => {
            complain("ping_pong", USAGE);
            return ExitCode::from(2);
        }
    };
    k2k_command::end("ping_pong", 1, played.map(|()| ExitCode::SUCCESS))
}

fn parse(wait: &str) -> Option<Wait> {
    match wait {
        "spin" => Some(Wait::Spin),
        "yield" => Some(Wait::Yield),
        "park" => Some(Wait::Park),
        _ => None,
    }
}

/// Plays one game for each way of waiting.
fn tournament(lasts: Duration) -> Result<(), Box<dyn Error>> {
    say!("{:<6} {:>14} {:>12} {:>12} {:>12}", "wait", "round trips/s", "p50", "p99", "max")?;
    for wait in ["spin", "yield", "park"] {
        if wait == "spin" && thread::available_parallelism()?.get() < 2 {
            say!("{wait:<6} skipped: it needs a core for each process, and there is one")?;
            continue;
        }
        // The process id makes the name this run's own.
        let name = format!("k2k-ping-pong-{}-{wait}", process::id());
        let table: Table = Builder::new().create(&name).build()?;
        let player = table.register_parking("ping")?.with_wait(parse(wait).ok_or("no such way of waiting")?);
        // It ends when this end of the pipe is closed: when this process has ended, however.
        let mut command = Command::new(env::current_exe()?);
        let other = command.args(["pong", &name, wait]).stdin(Stdio::piped()).spawn();
        let mut other = other.inspect_err(|_| drop(memory::remove(&name)))?;
        let game = ping(&table, player, &mut other, lasts);
        // The other process has removed the name, unless it could not even begin.
        let _ = memory::remove(&name);
        if game.is_err() {
            // It may have ended by itself.
            let _ = other.kill();
        }
        // `wait` closes the pipe first, which would end the other process before it has read the goodbye.
        let pipe = other.stdin.take();
        let ended = other.wait()?;
        drop(pipe);
        let mut times_ns = game?;
        if !ended.success() {
            return Err(format!("the other process ended with {ended}").into());
        }
        times_ns.sort_unstable();
        let at = |quantile: f64| times_ns[((times_ns.len() - 1) as f64 * quantile) as usize] as f64 / 1e3;
        let per_second = times_ns.len() as f64 * 1e9 / times_ns.iter().sum::<u64>() as f64;
        say!("{wait:<6} {per_second:>14.0} {:>9.2} µs {:>9.2} µs {:>9.2} µs", at(0.5), at(0.99), at(1.0))?;
    }
    Ok(())
}

/// Sends a ball and waits until it is back, again and again. Returns how long each time took, ns.
fn ping(table: &Table, mut me: Player, other: &mut Child, lasts: Duration) -> Result<Vec<u64>, Box<dyn Error>> {
    // In slices, so that a process that has ended already is not waited for.
    let began = Instant::now();
    let pong = loop {
        match table.wait_for_kernel("pong", Duration::from_millis(50)) {
            Ok(pong) => break pong,
            Err(e) if began.elapsed() > PATIENCE => return Err(e.into()),
            Err(_) => {}
        }
        if let Some(status) = other.try_wait()? {
            return Err(format!("the other process ended with {status}").into());
        }
    };

    let mut times_ns = Vec::new();
    let mut until = None;
    for number in 0u64.. {
        let thrown = Instant::now();
        if number >= WARM_UP && thrown > *until.get_or_insert(thrown + lasts) {
            break;
        }
        me.send(pong, &Message::from_value(BALL, &number))?;
        let ball = me.receive(PATIENCE)?;
        if number >= WARM_UP {
            times_ns.push(thrown.elapsed().as_nanos() as u64);
        }
        if ball.value() != Ok(number) {
            return Err(format!("sent ball {number}, and {:?} came back", ball.value::<u64>()).into());
        }
    }
    me.send(pong, &Message::new(GOODBYE))?;
    Ok(times_ns)
}

/// The second process: sends every ball back.
fn pong(name: &str, wait: Wait) -> Result<(), Box<dyn Error>> {
    let table: Table = Builder::new().open(name).build()?;
    // Both have it now.
    memory::remove(name)?;
    // The first process holds the other end of this pipe as long as it lives, and writes nothing.
    thread::spawn(|| {
        let _ = io::stdin().read(&mut [0]);
        process::exit(1);
    });
    let mut me = table.register_parking("pong")?.with_wait(wait);
    loop {
        match me.receive(PATIENCE) {
            Ok(message) if message.header.kind == GOODBYE => return Ok(()),
            Ok(ball) => {
                me.reply(&ball, &ball)?;
            }
            // The first process has died, or it would have said goodbye.
            Err(ReceiveError::Timeout) => return Err("nobody plays with me".into()),
            Err(e) => return Err(e.into()),
        }
    }
}
