//! The commands that act on a running fabric, as their users see them: `k2k` is one process, the kernels are in others or
//! in this one, and what `k2k` says is compared with what the kernels know.

mod common;
use common::{Echo, GUARD, Process, Shm, eventually, patient};
use core::time::Duration;
use k2k::memory::FileOptions;
use k2k::{
    Broker, Config, Context, DeliveryStatus, Endpoint, Fixed, Header, Kernel, Memory, Message, Phase, Priority,
    Read as AnyShape, SendError, StartOptions,
};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Write;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

const ROLE: &str = "K2K_TEST_ROLE";
const FILE: &str = "K2K_TEST_FILE";

/// What another process opens: any shape that a test creates.
type Any = AnyShape<16, 1024>;

fn k2k(args: &[&str]) -> Output {
    spawn(args).wait_with_output().expect("the command ends")
}

fn spawn(args: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_k2k"))
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts")
}

fn stdout(output: &Output) -> &str {
    core::str::from_utf8(&output.stdout).expect("UTF-8")
}

fn stderr(output: &Output) -> &str {
    core::str::from_utf8(&output.stderr).expect("UTF-8")
}

/// Checks the exit status, and returns standard output.
fn ends_with(status: i32, output: &Output) -> &str {
    assert_eq!(output.status.code(), Some(status), "{}{}", stdout(output), stderr(output));
    stdout(output)
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}{}", stdout(output), stderr(output)))
}

fn signal(process: u32, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &process.to_string()]).status().expect("kill");
    assert!(status.success());
}

/// Not a test by itself: a kernel in another process.
#[test]
fn other_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let file = std::env::var(FILE).unwrap();
    let broker: Broker<Any> = Broker::new(Memory::open(&file).unwrap());
    let mut me = broker.register_parking(&role).unwrap();
    match &*role {
        "echo" => me.run(&mut Echo::default(), Duration::from_millis(10)),
        "idle" => std::thread::sleep(GUARD),
        other => panic!("no such role: {other}"),
    }
}

fn other(role: &str, shm: &Shm) -> Process {
    Process::start("other_process", &[(ROLE, role), (FILE, &shm.0)])
}

/// A fabric of a shape that is known at run time only.
fn any_shape(shm: &Shm, kernels: usize, slots: usize, payload: usize) -> Broker<Any> {
    let shape = Any::new(kernels, slots, payload).expect("a shape");
    let config = Config { delivery_timeout_ns: 2 * GUARD.as_nanos() as u64, ..Config::default() };
    Broker::new(Memory::create_of(shape, &shm.0, &config, &FileOptions::new()).expect("room"))
}

fn sends_to<const K: usize, const S: usize, const P: usize>(test: &str) {
    let shm = Shm::new(test);
    let broker: Broker<Fixed<K, S, P>> = patient().create(&shm.0).build().unwrap();
    let mut sink = broker.register_parking("sink").unwrap();
    let longest = "x".repeat(P);
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), [0, 255, 10]).unwrap();
    let input = file.path().to_str().unwrap();
    let cases: [(&[&str], u32, Priority, &[u8]); 4] = [
        (&["hello"], 0, Priority::Normal, b"hello"),
        (&["--kind", "4000000000", "--high"], 4_000_000_000, Priority::High, b""),
        (&[&longest, "--as", "me"], 0, Priority::Normal, longest.as_bytes()),
        (&["--input", input, "--kind", "7"], 7, Priority::Normal, &[0, 255, 10]),
    ];
    for (args, kind, priority, payload) in cases {
        let command = spawn(&[&["send", &shm.0, "sink"], args].concat());
        let message = sink.receive(GUARD).expect("the message");
        let output = command.wait_with_output().unwrap();
        assert!(ends_with(0, &output).starts_with("delivered after "), "{}", stdout(&output));
        assert_eq!((message.header.kind, message.payload()), (kind, payload));
        assert_eq!(message.header.priority, priority as u8);
        assert_eq!(broker.kernels().len(), 1, "the sender has left");
    }
    let too_long = k2k(&["send", &shm.0, "sink", &"x".repeat(P + 1)]);
    ends_with(2, &too_long);
    let both = format!("the payload has {} bytes, and a message of this fabric carries {P} at most", P + 1);
    assert_eq!(stderr(&too_long), format!("k2k send: {both}\n"));
    let stats = broker.stats();
    assert_eq!((stats.sent, stats.received, broker.pending()), (4, 4, 0));
}

#[test]
fn a_message_by_hand_arrives_in_a_fabric_of_any_shape() {
    sends_to::<2, 1, 64>("send-small");
    sends_to::<16, 256, 192>("send-usual");
    sends_to::<40, 4, 4096>("send-large");
}

#[test]
fn a_message_by_hand_comes_from_standard_input() {
    let shm = Shm::new("send-stdin");
    let broker = any_shape(&shm, 3, 8, 128);
    let mut sink = broker.register_parking("sink").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_k2k"))
        .args(["send", &shm.0, "sink", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    command.stdin.take().unwrap().write_all(b"from a pipe").unwrap();
    assert_eq!(sink.receive(GUARD).unwrap().payload(), b"from a pipe");
    assert!(command.wait().unwrap().success());
}

#[test]
fn a_message_by_hand_that_is_not_received_ends_in_status_1_and_says_why() {
    let shm = Shm::new("send-fails");
    let broker = any_shape(&shm, 4, 8, 64);
    let mut sink = broker.register_parking("sink").unwrap();
    let late = k2k(&["send", &shm.0, "sink", "--timeout", "50ms"]);
    let said = ends_with(1, &late);
    assert!(said.starts_with("timed out after ") && said.contains("sink did not take it out"), "{said}");
    assert!(sink.try_receive().is_none(), "what has timed out is not received");
    // Its receiver leaves while it waits there.
    let command = spawn(&["send", &shm.0, "sink"]);
    eventually("it waits", || sink.pending_count() == 1);
    drop(sink);
    let output = command.wait_with_output().unwrap();
    assert!(ends_with(1, &output).starts_with("destination not found after "), "{}", stdout(&output));
    let stats = broker.stats();
    assert_eq!((stats.sent, stats.timeout, stats.not_found, broker.pending()), (2, 1, 1, 0));
}

#[test]
fn a_command_that_is_interrupted_leaves_the_fabric() {
    let shm = Shm::new("send-interrupted");
    let broker = any_shape(&shm, 3, 8, 64);
    let sink = broker.register_parking("sink").unwrap();
    for name in ["INT", "TERM", "HUP"] {
        let command = spawn(&["send", &shm.0, "sink", "--timeout", "1h"]);
        let waits = sink.pending_count();
        eventually("it waits", || sink.pending_count() == waits + 1);
        signal(command.id(), name);
        let output = command.wait_with_output().unwrap();
        assert!(ends_with(130, &output).contains("may still do so"), "{name}: {}", stdout(&output));
        assert_eq!(broker.kernels().len(), 1, "{name}");
    }
}

#[test]
fn an_unknown_name_is_answered_with_the_names_there_are() {
    let shm = Shm::new("unknown");
    let broker = any_shape(&shm, 4, 8, 64);
    let empty = k2k(&["ping", &shm.0, "arm"]);
    ends_with(2, &empty);
    assert_eq!(stderr(&empty), "k2k ping: no kernel is named \"arm\"; no kernel is registered in this fabric\n");
    let _there = [broker.register("a").unwrap(), broker.register("b\nc").unwrap()];
    let unknown = k2k(&["pause", &shm.0, "arm"]);
    ends_with(2, &unknown);
    assert_eq!(stderr(&unknown), "k2k pause: no kernel is named \"arm\"; registered are: \"a\", \"b\\nc\"\n");
    let failed = broker.register("arm").unwrap();
    failed.fail();
    let failed = k2k(&["send", &shm.0, "arm"]);
    ends_with(2, &failed);
    assert!(stderr(&failed).starts_with("k2k send: kernel \"arm\" has failed"), "{}", stderr(&failed));
}

#[test]
fn a_fabric_without_a_free_index_is_refused_in_words() {
    let shm = Shm::new("full");
    let broker = any_shape(&shm, 2, 8, 64);
    let _there = [broker.register("a").unwrap(), broker.register("b").unwrap()];
    let full = k2k(&["send", &shm.0, "a"]);
    ends_with(2, &full);
    assert!(stderr(&full).contains("all 2 indices of the fabric are in use"), "{}", stderr(&full));
    let in_use = k2k(&["send", &shm.0, "a", "--as", "b"]);
    assert!(stderr(&in_use).contains("cannot register the kernel \"b\": the name is in use"), "{}", stderr(&in_use));
}

/// Receives, and answers nothing.
struct Sink;

impl<const P: usize> Kernel<P> for Sink {
    fn on_message(&mut self, _: &mut impl Context<P>, _: &Message<P>) {}
}

#[test]
fn a_ping_counts_what_the_kernel_has_answered() {
    let shm = Shm::new("ping");
    let broker: Broker<Fixed<4, 16, 192>> = patient().create(&shm.0).build().unwrap();
    let echo = broker.start("echo", Echo::default(), StartOptions::default()).unwrap();
    let report =
        json(&k2k(&["ping", &shm.0, "echo", "--count", "50", "--interval", "0s", "--size", "32", "--json", "--high"]));
    assert_eq!((&report["sent"], &report["replies"]), (&50.into(), &50.into()), "{report}");
    assert_eq!(report["no_reply"], serde_json::json!({}));
    let times = ["min", "p50", "p90", "p99", "p99_9", "max"].map(|key| report["round_trip_ns"][key].as_u64().unwrap());
    assert!(times.is_sorted() && times[0] > 0, "{times:?}");
    assert_eq!(echo.stop_and_join(GUARD).unwrap().handled, 50);
    assert_eq!(broker.kernels().len(), 0);
}

#[test]
fn a_ping_to_a_kernel_in_another_process_is_ended_by_ctrl_c_with_its_figures() {
    let shm = Shm::new("ping-process");
    let broker = any_shape(&shm, 3, 8, 256);
    let _echo = other("echo", &shm);
    eventually("it is there", || broker.find("echo").is_some());
    let command = spawn(&["ping", &shm.0, "echo", "--interval", "5ms"]);
    let echo = broker.find("echo").unwrap();
    eventually("some went round", || broker.kernel_stats(echo).unwrap().received > 10);
    signal(command.id(), "INT");
    let output = command.wait_with_output().unwrap();
    let said = ends_with(0, &output);

    assert!(said.starts_with("0: 8 bytes, ") && said.contains("\np99 "), "{said}");
}

#[test]
fn a_ping_without_replies_says_what_became_of_the_messages() {
    let shm = Shm::new("ping-sink");
    let broker: Broker<Fixed<3, 8, 64>> = patient().create(&shm.0).build().unwrap();
    let sink = broker.start("sink", Sink, StartOptions::default()).unwrap();
    let ping = |more: &[&str]| {
        let args = ["ping", &shm.0, "sink", "--count", "3", "--interval", "0s", "--timeout", "100ms"];
        k2k(&[&args, more].concat())
    };
    let received = ping(&["--json"]);
    assert_eq!(json(&received)["no_reply"], serde_json::json!({"delivered": 3}));
    assert_eq!((received.status.code(), &json(&received)["round_trip_ns"]), (Some(1), &Value::Null));
    sink.pause().unwrap();
    eventually("it is paused", || sink.phase() == Phase::Paused);
    let paused = ping(&["--quiet"]);
    let said = ends_with(1, &paused);
    assert!(said.contains("no reply  3  timed out: sink did not take it out"), "{said}");
    let _ = sink.stop_and_join(GUARD).unwrap();
}

#[test]
fn a_kernel_pauses_goes_on_drains_and_stops_when_it_is_told() {
    let shm = Shm::new("control");
    let broker = any_shape(&shm, 4, 16, 64);
    let mut echo = other("echo", &shm);
    eventually("it runs", || {
        broker.find("echo").is_some_and(|echo| broker.memory().fabric().phase(echo) == Some(Phase::Running))
    });
    let id = broker.find("echo").unwrap();
    let phase = || broker.memory().fabric().phase(id);
    let mut me = broker.register("me").unwrap();
    let pause = k2k(&["pause", &shm.0, "echo"]);
    assert!(ends_with(0, &pause).contains(" is paused, after "), "{}", stdout(&pause));
    assert_eq!(phase(), Some(Phase::Paused));
    me.send(id, &Message::new(1)).unwrap();
    assert!(me.receive(Duration::from_millis(50)).is_err(), "it handles nothing");
    let again = k2k(&["pause", &shm.0, "echo"]);
    assert!(ends_with(0, &again).contains(" is paused already"), "{}", stdout(&again));
    let resume = k2k(&["resume", &shm.0, "echo"]);
    assert!(ends_with(0, &resume).contains(" runs, after "), "{}", stdout(&resume));
    assert_eq!(me.receive(GUARD).unwrap().header.kind, 1);
    // What waits is handled before a drained kernel stops.
    ends_with(0, &k2k(&["pause", &shm.0, "echo"]));
    for kind in 2..10 {
        me.send(id, &Message::new(kind)).unwrap();
    }
    let drain = k2k(&["drain", &shm.0, "echo"]);
    let said = ends_with(0, &drain);
    assert!(said.contains(" has stopped, after ") || said.contains(" has left, after "), "{said}");
    for kind in 2..10 {
        assert_eq!(me.receive(GUARD).unwrap().header.kind, kind);
    }
    assert!(echo.0.wait().unwrap().success());
    let _second = other("echo", &shm);
    eventually("it runs", || {
        broker.find("echo").is_some_and(|echo| broker.memory().fabric().phase(echo) == Some(Phase::Running))
    });
    ends_with(0, &k2k(&["stop", &shm.0, "echo"]));
    eventually("it has left", || broker.find("echo").is_none());
}

/// Hangs in its handler until it is let go.
struct Hangs(Arc<OnceLock<()>>);

impl<const P: usize> Kernel<P> for Hangs {
    fn on_message(&mut self, _: &mut impl Context<P>, _: &Message<P>) {
        while self.0.get().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn a_kernel_that_does_not_obey_is_told_for_what_it_is() {
    let shm = Shm::new("disobeys");
    let broker: Broker<Fixed<8, 8, 64>> = patient().create(&shm.0).build().unwrap();
    let mut me = broker.register("me").unwrap();
    let go = Arc::new(OnceLock::new());
    let hangs = broker.start("hangs", Hangs(Arc::clone(&go)), StartOptions::default()).unwrap();
    me.send(hangs.id(), &Message::new(0)).unwrap();
    let mut killed = other("idle", &shm);
    eventually("it is there", || broker.find("idle").is_some());
    let told = |command: &str, name: &str| {
        let output = k2k(&[command, &shm.0, name, "--timeout", "200ms"]);
        ends_with(1, &output).to_owned()
    };
    eventually("it handles the message", || broker.kernel_stats(hangs.id()).unwrap().received == 1);
    for command in ["pause", "resume"] {
        let said = told(command, "hangs");
        assert!(said.contains("hangs in its handler"), "its phase is that of a kernel that runs: {said}");
    }
    let said = told("stop", "hangs");
    assert!(said.contains("its heartbeat stands still at ") && said.contains("hangs in its handler"), "{said}");
    let said = told("pause", "me");
    assert!(said.contains("it is not in a run loop"), "{said}");
    signal(killed.0.id(), "STOP");
    let said = told("stop", "idle");
    assert!(said.contains(&format!("its process {} is stopped by the system", killed.0.id())), "{said}");
    killed.kill();
    let said = told("stop", "idle");
    assert!(said.contains(&format!("its process {} is gone", killed.0.id())), "{said}");
    // The command stands: the handler goes on, and the kernel obeys.
    go.set(()).unwrap();
    hangs.join().unwrap();
}

#[test]
fn what_is_no_fabric_is_refused_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let good = path("good");
    let broker: Broker<Fixed<4, 8, 64>> = patient().create(&good).build().unwrap();
    let _sink = broker.register("sink").unwrap();
    let bytes = fs::read(&good).unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let options = FileOptions::new();
        drop(Memory::<Fixed<4, 8, 64>>::create_with(&path(name), &Config::default(), &options).unwrap());
        fs::write(path(name), bytes).unwrap();
    };
    write("short", &bytes[..bytes.len() / 2]);
    write("empty", &[]);
    write("text", &b"No fabric at all. ".repeat(100_000));
    let mut version = bytes.clone();
    version[8] += 1;
    write("version", &version);
    write("shared", &bytes);
    let mode = Command::new("chmod").args(["0666", &path("shared")]).status().unwrap();
    assert!(mode.success());
    let cases = [
        ("missing", "does not exist"),
        ("short", "bytes"),
        ("empty", "bytes"),
        ("text", "fabric"),
        ("version", "version"),
        ("shared", "mode 0666"),
    ];
    for (file, why) in cases {
        let commands: [(&str, &[&str]); 8] = [
            ("send", &[]),
            ("ping", &[]),
            ("pause", &[]),
            ("stop", &[]),
            ("tap", &["other"]),
            ("record", &["other", "-o", "/dev/null"]),
            ("replay", &[]),
            ("trace", &["-o", "/dev/null"]),
        ];
        for (command, more) in commands {
            let name: &[&str] = if command == "trace" { &[] } else { &["sink"] };
            let output = k2k(&[&[command, &path(file)], name, more].concat());
            ends_with(2, &output);
            let said = stderr(&output);
            assert!(said.contains(why) && said.lines().count() == 1, "{command:?} {file}: {said}");
        }
    }
}

type Mesh = Fixed<8, 64, 64>;

/// A sender of numbered messages of both priorities, as fast as they are received: every fifth is of high priority.
/// Returns how many it has sent, when it is told to end; all of them had an outcome.
fn sender(mut me: Endpoint<Mesh>, to: k2k::KernelId, end: &OnceLock<()>) -> (Vec<k2k::MessageId>, Vec<DeliveryStatus>) {
    let (mut sent, mut outcomes) = (Vec::new(), Vec::new());
    while end.get().is_none() {
        let number = sent.len() as u64;
        let priority = if number.is_multiple_of(5) { Priority::High } else { Priority::Normal };
        match me.send_priority(to, &Message::from_value(0, &number), priority) {
            Ok(id) => sent.push(id),
            Err(SendError::QueueFull { .. }) => std::thread::yield_now(),
            // A next hop that was killed.
            Err(e) => panic!("{e}"),
        }
        // At most 32 are on their way.
        while sent.len() - outcomes.len() > if end.get().is_some() { 0 } else { 32 } {
            match me.receipt(sent[outcomes.len()]).unwrap().status {
                DeliveryStatus::Pending => std::thread::yield_now(),
                status => outcomes.push(status),
            }
        }
    }
    while outcomes.len() < sent.len() {
        match me.receipt(sent[outcomes.len()]).unwrap().status {
            DeliveryStatus::Pending => std::thread::yield_now(),
            status => outcomes.push(status),
        }
    }
    (sent, outcomes)
}

/// What a receiver saw: how many, and how many came after a later one of their priority.
#[derive(Debug, Default)]
struct Seen {
    count: u64,
    overtaken: u64,
}

fn receiver(mut me: Endpoint<Mesh>, end: &OnceLock<()>, count: &Mutex<Seen>) {
    let mut next = [0; 2];
    while end.get().is_none() {
        let Ok(message) = me.receive(Duration::from_millis(20)) else { continue };
        let number = message.value::<u64>().unwrap();
        let next = &mut next[message.header.priority as usize];
        let mut seen = count.lock().unwrap();
        seen.count += 1;
        seen.overtaken += u64::from(number < *next);
        *next = number.max(*next) + 1;
    }
}

/// Ends a thread when it is dropped.
struct Ends<'e>(&'e OnceLock<()>);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        let _ = self.0.set(());
    }
}

/// Runs `act` while a kernel "from" sends to a kernel "to", and checks that every message has arrived, once. As many as
/// `not_found` may have ended in `NotFound` instead.
fn under_load(broker: &Broker<Mesh>, not_found: usize, act: impl FnOnce(&dyn Fn() -> u64)) -> Seen {
    let (from, to) = (broker.register("from").unwrap(), broker.register_parking("to").unwrap());
    let (end_sender, end_receiver, seen) = (OnceLock::new(), OnceLock::new(), Mutex::new(Seen::default()));
    std::thread::scope(|scope| {
        let id = to.id();
        // Also if something below panics.
        let _ends = (Ends(&end_sender), Ends(&end_receiver));
        scope.spawn(|| receiver(to, &end_receiver, &seen));
        let end = &end_sender;
        let sender = scope.spawn(move || sender(from, id, end));
        act(&|| seen.lock().unwrap().count);
        end_sender.set(()).unwrap();
        let (sent, outcomes) = sender.join().expect("the sender");
        let others: Vec<_> = outcomes.iter().filter(|status| **status != DeliveryStatus::Delivered).collect();
        let is_expected = others.iter().all(|status| **status == DeliveryStatus::NotFound);
        assert!(is_expected && others.len() <= not_found, "{others:?} {:?}", broker.stats());
        let delivered = (sent.len() - others.len()) as u64;
        eventually("all were received", || seen.lock().unwrap().count >= delivered);
        end_receiver.set(()).unwrap();
        assert_eq!(seen.lock().unwrap().count, delivered);
    });
    let stats = broker.stats();
    assert_eq!((stats.sent, broker.pending()), (stats.received + stats.not_found, 0), "{stats:?}");
    seen.into_inner().unwrap()
}

/// Whether a message is overtaken while a tap begins or ends depends on the moment: here the receiver keeps up, so that nothing
/// waits for long. The test of what a tap lets overtake has the receiver stand still at both moments, and fails without either
/// wait.
#[test]
fn a_tap_under_load_changes_neither_order_nor_priority_nor_outcome() {
    let shm = Shm::new("tap-load");
    let broker: Broker<Mesh> = patient().create(&shm.0).build().unwrap();
    let mut taps = Vec::new();
    let seen = under_load(&broker, 0, |received| {
        for name in ["INT", "TERM", "HUP"] {
            let tap = spawn(&["tap", &shm.0, "from", "to", "--json", "--as", "tap"]);
            // Nobody reads its output meanwhile.
            eventually("it is between them", || {
                let ids = ["from", "to", "tap"].map(|name| broker.find(name));
                ids[2].is_some() && broker.route(ids[0].unwrap(), ids[1].unwrap()) == ids[2]
            });
            let before = received();
            eventually("thousands went through", || received() > before + 3000);
            signal(tap.id(), name);
            taps.push(tap.wait_with_output().unwrap());
            let [from, to] = ["from", "to"].map(|name| broker.find(name).unwrap());
            assert_eq!((broker.route(from, to), broker.find("tap")), (None, None));
        }
    });
    let mut may_be_overtaken = false;
    for tap in &taps {
        let mut sequences: Vec<[u64; 2]> = Vec::new();
        let mut last = [0; 2];
        for line in ends_with(0, tap).lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let (sequence, high) = (line["sequence"].as_u64().unwrap(), line["priority"] == "high");
            let payload = line["payload"].as_str().unwrap();
            let number = u64::from_str_radix(payload, 16).unwrap().swap_bytes();
            assert_eq!(high, number.is_multiple_of(5), "{line}");
            assert!(sequence > core::mem::replace(&mut last[usize::from(high)], sequence), "shown in order");
            sequences.push([sequence, number]);
        }
        sequences.sort_unstable();
        assert!(sequences.len() > 2500, "{}", stderr(tap));
        let whole = sequences.windows(2).all(|two| [two[0][0] + 1, two[0][1] + 1] == two[1]);
        assert!(whole, "not one was left out between the first and the last");
        may_be_overtaken |= stderr(tap).contains("may have overtaken");
    }
    assert!(seen.overtaken == 0 || may_be_overtaken, "{seen:?}");
}

#[test]
fn traffic_goes_on_when_a_tap_was_killed_and_reaped() {
    let shm = Shm::new("tap-killed");
    let broker: Broker<Mesh> = patient().create(&shm.0).build().unwrap();
    // The sender may have looked up the tap, and put a message there only after the tap was killed and reaped: one message
    // for each of them.
    under_load(&broker, 3, |received| {
        for _ in 0..3 {
            let mut tap = spawn(&["tap", &shm.0, "from", "to"]);
            let began = received();
            eventually("some went through", || received() > began + 500);
            let ids = || ["from", "to"].map(|name| broker.find(name).unwrap());
            eventually("it is between them", || broker.route(ids()[0], ids()[1]).is_some());
            tap.kill().unwrap();
            tap.wait().unwrap();
            let reaped = k2k(&["reap", &shm.0]);
            assert!(ends_with(0, &reaped).contains("1 reaped, 2 alive"), "{}", stdout(&reaped));
            assert_eq!(broker.route(ids()[0], ids()[1]), None);
            let before = received();
            eventually("traffic goes on", || received() > before + 500);
        }
    });
}

#[test]
fn a_tap_shows_what_passes_and_ends_after_as_many_as_were_asked_for() {
    let shm = Shm::new("tap-count");
    let broker: Broker<Fixed<5, 8, 64>> = patient().create(&shm.0).build().unwrap();
    let mut from = broker.register("from").unwrap();
    let mut relay = broker.register("relay").unwrap();
    let mut to = broker.register("to").unwrap();
    // The way that there was is the way that there is afterwards.
    broker.add_route(from.id(), to.id(), relay.id()).unwrap();
    let tap = spawn(&["tap", &shm.0, "from", "to", "--count", "2", "--hex", "--as", "tap"]);
    eventually("it is between them", || {
        broker.find("tap").is_some_and(|tap| broker.route(from.id(), to.id()) == Some(tap))
    });
    let text = Message::from_bytes(3, b"a text that is longer than a row").unwrap();
    let first = from.send(to.id(), &text).unwrap();
    let second = from.send_priority(to.id(), &Message::new(4), Priority::High).unwrap();
    eventually("both arrived", || {
        relay.poll();
        to.pending_count() == 2
    });
    let output = tap.wait_with_output().unwrap();
    let said = ends_with(0, &output);
    let lines: Vec<&str> = said.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    let normal = format!("from {first} normal kind 3, 32 bytes");
    let high = format!("from {second} high kind 4, 0 bytes");
    let rows = [
        " 0000  61 20 74 65 78 74 20 74 68 61 74 20 69 73 20 6c  a text that is l",
        " 0010  6f 6e 67 65 72 20 74 68 61 6e 20 61 20 72 6f 77  onger than a row",
    ];
    assert!(lines.contains(&&*normal) && lines.contains(&&*high), "{said}");
    assert!(rows.iter().all(|row| lines.contains(row)), "{said}");
    assert_eq!(stderr(&output), "k2k tap: 2 messages went through\n");
    assert_eq!(broker.route(from.id(), to.id()), Some(relay.id()));
    assert_eq!((to.try_receive().unwrap().header.kind, to.try_receive().unwrap().header.kind), (4, 3));
    let itself = k2k(&["tap", &shm.0, "to", "to"]);
    ends_with(2, &itself);
    assert!(stderr(&itself).contains("of a kernel to itself"), "{}", stderr(&itself));
}

#[test]
fn a_tap_ends_when_it_is_told_to_or_one_of_the_two_leaves() {
    let shm = Shm::new("tap-ends");
    let broker = any_shape(&shm, 4, 8, 64);
    let (from, to) = (broker.register("from").unwrap(), broker.register("to").unwrap());
    let start = || {
        let tap = spawn(&["tap", &shm.0, "from", "to", "--as", "tap"]);
        eventually("it is between them", || broker.route(from.id(), to.id()).is_some());
        tap
    };
    let tap = start();
    ends_with(0, &k2k(&["stop", &shm.0, "tap"]));
    ends_with(0, &tap.wait_with_output().unwrap());
    assert_eq!(broker.route(from.id(), to.id()), None);
    let tap = start();
    drop(to);
    let output = tap.wait_with_output().unwrap();
    ends_with(1, &output);
    assert!(stderr(&output).contains(" has left\n"), "{}", stderr(&output));
}

#[test]
fn a_tap_lets_nothing_overtake_what_went_before_it_or_through_it() {
    let shm = Shm::new("tap-order");
    let broker: Broker<Fixed<4, 8, 64>> = patient().create(&shm.0).build().unwrap();
    let mut from = broker.register("from").unwrap();
    let mut to = broker.register("to").unwrap();
    let mail = |to: &Endpoint<Fixed<4, 8, 64>>, of| broker.memory().fabric().normal_mail(to.id(), of).unwrap();
    let mut kind = 0;
    let to_id = to.id();
    let mut send = |from: &mut Endpoint<Fixed<4, 8, 64>>| {
        from.send(to_id, &Message::new(kind)).unwrap();
        kind += 1;
    };
    let start = |from: k2k::KernelId, to: k2k::KernelId| {
        let tap = spawn(&["tap", &shm.0, "from", "to", "--as", "tap"]);
        eventually("it is between them", || broker.route(from, to).is_some());
        (tap, broker.find("tap").unwrap())
    };
    (0..3).for_each(|_| send(&mut from));
    let (tap, id) = start(from.id(), to.id());
    (0..3).for_each(|_| send(&mut from));
    // What is on its way without the tap comes first, so the tap waits.
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!((mail(&to, from.id()), mail(&to, id).1), ((0, 3), 0));
    let receive = |to: &mut Endpoint<Fixed<4, 8, 64>>| to.receive(GUARD).unwrap().header.kind;
    for expected in 0..3 {
        assert_eq!(receive(&mut to), expected);
    }
    eventually("it has passed on the others", || mail(&to, id).1 == 3);
    // As long as something is on its way through it, the route stays.
    signal(tap.id(), "TERM");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(broker.route(from.id(), to.id()), Some(id));
    send(&mut from);
    for expected in 3..7 {
        assert_eq!(receive(&mut to), expected);
    }
    let output = tap.wait_with_output().unwrap();
    ends_with(0, &output);
    assert_eq!(stderr(&output), "k2k tap: 4 messages went through\n");
    // A receiver that takes nothing does not keep it for ever; then it says so.
    let (tap, id) = start(from.id(), to.id());
    send(&mut from);
    eventually("it has passed it on", || mail(&to, id).1 == 1);
    signal(tap.id(), "TERM");
    let output = tap.wait_with_output().unwrap();
    ends_with(0, &output);
    assert!(stderr(&output).contains("1 messages were on their way through the tap"), "{}", stderr(&output));
    assert_eq!((broker.route(from.id(), to.id()), receive(&mut to)), (None, 7));
}

#[test]
fn what_was_recorded_is_replayed_with_its_messages_and_rate() {
    let (shm, dir) = (Shm::new("record"), tempfile::tempdir().unwrap());
    let file = dir.path().join("recording");
    let file = file.to_str().unwrap();
    let broker: Broker<Fixed<4, 16, 192>> = patient().create(&shm.0).build().unwrap();
    let mut from = broker.register("from").unwrap();
    let mut to = broker.register_parking("to").unwrap();
    let recorder = spawn(&["record", &shm.0, "from", "to", "-o", file, "--count", "40"]);
    eventually("it is between them", || broker.route(from.id(), to.id()).is_some());
    let receive = |to: &mut Endpoint<Fixed<4, 16, 192>>| {
        let message = to.receive(GUARD).unwrap();
        let Header { kind, priority, flags, correlation_id, .. } = message.header;
        (kind, priority, flags, correlation_id, message.payload().to_vec())
    };
    let began = Instant::now();
    let recorded: Vec<_> = (0..40u32)
        .map(|kind| {
            let message = Message::from_bytes(kind, &vec![kind as u8; kind as usize * 4]).unwrap();
            let message = message.with_flags(kind as u8).with_correlation_id(u64::MAX - u64::from(kind));
            let priority = if kind % 3 == 0 { Priority::High } else { Priority::Normal };
            from.send_priority(to.id(), &message, priority).unwrap();
            std::thread::sleep(Duration::from_millis(10));
            receive(&mut to)
        })
        .collect();
    let took = began.elapsed();
    let output = recorder.wait_with_output().unwrap();
    ends_with(0, &output);
    assert!(stderr(&output).contains("40 of them are in "), "{}", stderr(&output));
    // In a fabric of another shape, at the recorded rate, four times as fast, and without pauses.
    let other = Shm::new("replay");
    let broker = any_shape(&other, 8, 4, 256);
    let mut to = broker.register_parking("to").unwrap();
    for (rate, times) in [("1.0", 1.0), ("4", 4.0), ("max", 40.0)] {
        let replay = spawn(&["replay", &other.0, file, "--rate", rate, "--json"]);
        let first = to.receive(GUARD).unwrap();
        let began = Instant::now();
        assert_eq!((first.header.kind, first.payload()), (0, &[][..]));
        let mut received: Vec<_> = (1..40)
            .map(|_| {
                let message = to.receive(GUARD).unwrap();
                let Header { kind, priority, flags, correlation_id, .. } = message.header;
                (kind, priority, flags, correlation_id, message.payload().to_vec())
            })
            .collect();
        let replayed = began.elapsed();
        let of = |wanted: u8| {
            received
                .iter()
                .map(|(kind, priority, ..)| (*kind, *priority))
                .filter(move |(_, priority)| *priority == wanted)
        };
        assert!([0, 1].into_iter().all(|priority| of(priority).is_sorted()), "in order, each priority");
        // Where several wait, those of high priority come first.
        received.sort_unstable();
        assert!(received == recorded[1..], "rate {rate}: not the recorded messages");
        let report = replay.wait_with_output().unwrap();
        ends_with(0, &report);
        assert_eq!(json(&report)["outcomes"], serde_json::json!({"delivered": 40}));
        // Never faster; how much slower is up to the machine.
        let least = if rate == "max" { Duration::ZERO } else { took.mul_f64(0.8 / times) };
        assert!(replayed > least, "{rate}: {replayed:?} of {took:?}");
        println!("recorded in {took:?}, replayed at rate {rate} in {replayed:?}");
    }
    let missing = k2k(&["replay", &other.0, file, "--to", "nobody"]);
    ends_with(2, &missing);
    let small = Shm::new("replay-small");
    let small_broker = any_shape(&small, 3, 4, 64);
    let _to = small_broker.register("to").unwrap();
    let too_long = k2k(&["replay", &small.0, file]);
    ends_with(2, &too_long);
    assert!(stderr(&too_long).contains("a message of this fabric carries 64 at most"), "{}", stderr(&too_long));
}

#[test]
fn a_recording_that_is_none_or_was_cut_short_is_refused_in_words() {
    let (shm, dir) = (Shm::new("recording"), tempfile::tempdir().unwrap());
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let broker: Broker<Fixed<4, 64, 64>> = patient().create(&shm.0).build().unwrap();
    let mut from = broker.register("from").unwrap();
    let mut to = broker.register_parking("to").unwrap();
    let mut recorder = spawn(&["record", &shm.0, "from", "to", "-o", &path("killed")]);
    eventually("it is between them", || broker.route(from.id(), to.id()).is_some());
    for kind in 0..20 {
        from.send(to.id(), &Message::from_bytes(kind, b"0123456789").unwrap()).unwrap();
        to.receive(GUARD).unwrap();
    }
    eventually("it is written", || fs::metadata(path("killed")).unwrap().len() == 96 + 20 * 42);
    recorder.kill().unwrap();
    recorder.wait().unwrap();
    broker.reap();
    let whole = fs::read(path("killed")).unwrap();
    fs::write(path("cut"), &whole[..whole.len() - 5]).unwrap();
    let mut damaged = whole.clone();
    damaged[200] ^= 1;
    fs::write(path("damaged"), damaged).unwrap();
    fs::write(path("foreign"), b"%PDF-1.7 and so on").unwrap();
    for (file, why) in [
        ("killed", "cut short after 20 whole messages"),
        ("cut", "cut short after 19 whole messages"),
        ("damaged", "a checksum does not fit"),
        ("foreign", "it is no recording: it begins with \"%PDF-1.7\""),
        ("missing", "No such file"),
    ] {
        let output = k2k(&["replay", &shm.0, &path(file)]);
        ends_with(2, &output);
        assert!(stderr(&output).contains(why) && stderr(&output).lines().count() == 1, "{file}: {}", stderr(&output));
    }
    assert_eq!(to.pending_count(), 0, "nothing was sent");
    let partly = spawn(&["replay", &shm.0, &path("cut"), "--truncated", "--rate", "max"]);
    for kind in 0..19 {
        assert_eq!(to.receive(GUARD).unwrap().header.kind, kind);
    }
    ends_with(0, &partly.wait_with_output().unwrap());
    let nowhere = k2k(&["record", &shm.0, "from", "to", "-o", "/nowhere/file"]);
    ends_with(2, &nowhere);
    assert!(stderr(&nowhere).contains("cannot write /nowhere/file"), "{}", stderr(&nowhere));
}

/// Checks a trace by the rules of the Trace Event Format that Perfetto's importer goes by: what each phase must have, slices
/// that do not overlap, flows that begin, step and end at a slice that is open on their thread. Returns each flow's way: the
/// names of threads and of slices.
fn ways(trace: &Value) -> HashMap<String, Vec<(String, String)>> {
    let mut threads = HashMap::new();
    let mut open: HashMap<u64, (f64, f64, String)> = HashMap::new();
    let mut flows: HashMap<String, Vec<(String, String)>> = HashMap::new();
    let mut ended = HashSet::new();
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned();
    for event in trace["traceEvents"].as_array().expect("an array") {
        let tid = event["tid"].as_u64().expect("a thread");
        assert_eq!(event["pid"], 1);
        let name = text(&event["name"]);
        let phase = text(&event["ph"]);
        if phase == "M" {
            assert!(!event["args"].as_object().unwrap().is_empty());
            if name == "thread_name" {
                assert!(threads.insert(tid, text(&event["args"]["name"])).is_none(), "one name per thread");
            }
            continue;
        }
        let ts = event["ts"].as_f64().expect("a time");
        assert!(ts >= 0.0 && threads.contains_key(&tid), "{event}");
        match &*phase {
            "X" => {
                let duration = event["dur"].as_f64().expect("a duration");
                assert!(duration > 0.0, "{event}");
                if let Some((_, end, _)) = open.insert(tid, (ts, ts + duration, name)) {
                    assert!(ts > end - 1e-6, "slices of a thread overlap: {event}");
                }
            }
            "s" | "t" | "f" => {
                let (begin, end, slice) = &open[&tid];
                assert!((*begin..*end).contains(&ts), "a flow binds to no slice: {event}");
                let id = text(&event["id"]);
                // Perfetto reads a string as a hexadecimal number.
                assert!(u64::from_str_radix(&id, 16).is_ok(), "{event}");
                assert_eq!(event["bp"] == "e", phase == "f", "{event}");
                assert_eq!(flows.contains_key(&id), phase != "s", "a flow begins once: {event}");
                assert!(!ended.contains(&id), "{event}");
                if phase == "f" {
                    ended.insert(id.clone());
                }
                flows.entry(id).or_default().push((threads[&tid].clone(), slice.clone()));
            }
            "i" => assert_eq!(event["s"], "t"),
            other => panic!("no such phase: {other}"),
        }
    }
    assert_eq!(ended.len(), flows.len(), "each flow ends");
    flows
}

#[test]
fn a_trace_has_a_flow_per_message_over_its_hops() {
    let (shm, dir) = (Shm::new("trace"), tempfile::tempdir().unwrap());
    let out = dir.path().join("out.json");
    let broker: Broker<Fixed<8, 64, 64>> = patient().create(&shm.0).build().unwrap();
    let [mut a, mut one, mut two, mut b] = ["a", "one", "two", "b"].map(|name| broker.register(name).unwrap());
    for (at, next) in [(a.id(), one.id()), (one.id(), two.id())] {
        broker.add_route(at, b.id(), next).unwrap();
    }
    let mut carry = |count: u32| {
        for kind in 0..count {
            let priority = if kind % 4 == 0 { Priority::High } else { Priority::Normal };
            a.send_priority(b.id(), &Message::new(kind), priority).unwrap();
            one.poll();
            two.poll();
            b.try_receive().unwrap();
        }
        // One that fails on its way.
        let late = Message::new(99).with_deadline_ns(a.deadline_in(Duration::from_millis(1)));
        a.send(b.id(), &late).unwrap();
        std::thread::sleep(Duration::from_millis(2));
        one.poll();
    };
    let is_on = || broker.memory().fabric().config().tracing;
    let trace = spawn(&["trace", &shm.0, "-o", out.to_str().unwrap(), "--for", "1s"]);
    eventually("tracing is on", is_on);
    for _ in 0..20 {
        carry(9);
        // So that nothing is overwritten before it is read.
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = trace.wait_with_output().unwrap();
    ends_with(0, &output);
    assert!(!is_on(), "as it was");
    let trace: Value = serde_json::from_slice(&fs::read(&out).unwrap()).unwrap();
    assert_eq!(trace["otherData"]["overwritten"], 0, "{}", stderr(&output));
    let ways = ways(&trace);
    let step = |thread: &str, slice: &str| (thread.to_owned(), slice.to_owned());
    let whole = [
        step("a (k0)", "sent"),
        step("one (k1)", "forwarded"),
        step("two (k2)", "forwarded"),
        step("b (k3)", "received"),
    ];
    let failed = [step("a (k0)", "sent"), step("one (k1)", "failed")];
    assert_eq!(ways.values().filter(|way| way[..] == whole).count(), 180);
    assert_eq!(ways.values().filter(|way| way[..] == failed).count(), 20);
    assert_eq!(ways.len(), 200);
    let events = trace["traceEvents"].as_array().unwrap();
    assert_eq!(events.iter().filter(|event| event["ph"] == "i" && event["name"] == "failed: timed out").count(), 20);
    // What is there, without switching: nothing new was written since.
    carry(1);
    let last = k2k(&["trace", &shm.0, "--last"]);
    ends_with(0, &last);
    assert!(!is_on());
    let last = json(&last);
    let slices = last["traceEvents"].as_array().unwrap().iter().filter(|event| event["ph"] == "X").count();
    assert_eq!(slices, 4 * 64);
    // A reader that is too slow says what it has missed.
    let stopped = spawn(&["trace", &shm.0, "-o", out.to_str().unwrap(), "--for", "60s"]);
    eventually("tracing is on", is_on);
    signal(stopped.id(), "STOP");
    (0..20).for_each(|_| carry(9));
    signal(stopped.id(), "CONT");
    signal(stopped.id(), "TERM");
    let output = stopped.wait_with_output().unwrap();
    ends_with(130, &output);
    assert!(stderr(&output).contains(" more were overwritten before they were read"), "{}", stderr(&output));
    assert!(!is_on());
    let _ = self::ways(&serde_json::from_slice(&fs::read(&out).unwrap()).unwrap());
}

#[test]
fn no_output_is_written_over_a_fabric() {
    let (shm, other) = (Shm::new("output"), Shm::new("output-other"));
    let broker = any_shape(&shm, 4, 8, 64);
    let _kernels = ["a", "b"].map(|name| broker.register(name).unwrap());
    let _other = any_shape(&other, 4, 8, 64);
    let len = |shm: &Shm| fs::metadata(shm.path()).unwrap().len();
    let lens = [len(&shm), len(&other)];
    for target in [&shm, &other] {
        let path = target.path();
        let out = path.to_str().unwrap();
        let commands: [&[&str]; 4] = [
            &["trace", &shm.0, "--for", "10ms", "-o", out],
            &["trace", &shm.0, "--last", "-o", out],
            &["record", &shm.0, "a", "b", "--for", "10ms", "-o", out],
            &["run", "--input", "/etc/hostname", "--output", out],
        ];
        for args in commands {
            let output = k2k(args);
            ends_with(2, &output);
            assert!(stderr(&output).contains("it is a fabric"), "{args:?}: {}", stderr(&output));
            assert_eq!([len(&shm), len(&other)], lens, "{args:?}");
        }
    }
}

#[test]
fn a_trace_notices_that_tracing_was_switched_off_and_leaves_it_off() {
    let shm = Shm::new("trace-two");
    let broker = any_shape(&shm, 4, 8, 64);
    let is_on = || broker.memory().fabric().config().tracing;
    // The second one begins while tracing is on, and the first one ends.
    let first = spawn(&["trace", &shm.0, "--for", "60s"]);
    eventually("tracing is on", is_on);
    let second = spawn(&["trace", &shm.0, "--for", "60s"]);
    // The thread that waits for signals is there shortly before the look at the switch.
    let tasks = format!("/proc/{}/task", second.id());
    eventually("it follows the traces", || fs::read_dir(&tasks).is_ok_and(|threads| threads.count() >= 3));
    std::thread::sleep(Duration::from_millis(300));
    signal(first.id(), "TERM");
    ends_with(130, &first.wait_with_output().unwrap());
    eventually("the second one has switched it on again", is_on);
    signal(second.id(), "TERM");
    let output = second.wait_with_output().unwrap();
    ends_with(130, &output);
    assert!(stderr(&output).contains("another program switched tracing off 1 times"), "{}", stderr(&output));
    assert!(!is_on());
    // One that is killed leaves it on.
    let mut killed = spawn(&["trace", &shm.0, "--for", "60s"]);
    eventually("tracing is on", is_on);
    killed.kill().unwrap();
    killed.wait().unwrap();
    let beside = k2k(&["trace", &shm.0, "--for", "10ms"]);
    ends_with(0, &beside);
    assert!(stderr(&beside).contains("tracing was on before, and stays on: k2k trace FILE off"), "{}", stderr(&beside));
    for (word, on) in [("off", false), ("on", true), ("off", false)] {
        assert_eq!(ends_with(0, &k2k(&["trace", &shm.0, word])), "");
        assert_eq!(is_on(), on);
    }
}

#[test]
fn what_was_done_but_cannot_be_said_is_status_1() {
    let shm = Shm::new("full-disk");
    let broker: Broker<Fixed<8, 16, 64>> = patient().create(&shm.0).build().unwrap();
    let _echo = broker.start("echo", Echo::default(), StartOptions::default()).unwrap();
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    for args in [
        &["send", &shm.0, "echo"][..],
        &["ping", &shm.0, "echo", "--count", "1"],
        &["pause", &shm.0, "echo"],
        &["resume", &shm.0, "echo"],
        &["reap", &shm.0],
        &["ls", &shm.0],
        &["top", &shm.0, "--once"],
        &["trace", &shm.0, "--for", "10ms"],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_k2k")).args(args).stdout(full()).output().unwrap();
        ends_with(1, &output);
        assert!(stderr(&output).contains("cannot write to standard output"), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn a_file_that_is_made_shorter_ends_a_command_that_acts_with_a_line_and_status_1() {
    let shm = Shm::new("shorter");
    let broker = any_shape(&shm, 4, 8, 64);
    let sink = broker.register("sink").unwrap();
    let command = spawn(&["send", &shm.0, "sink", "--timeout", "1h"]);
    eventually("it waits", || sink.pending_count() == 1);
    // Nothing of this process may touch it any more.
    let _ = core::mem::ManuallyDrop::new((sink, broker));
    fs::File::options().write(true).open(shm.path()).unwrap().set_len(0).unwrap();
    let output = command.wait_with_output().unwrap();
    ends_with(1, &output);
    assert_eq!(stderr(&output), format!("k2k send: {} was made shorter while it was in use\n", shm.0));
}

#[test]
fn a_trace_of_what_is_there_only_reads() {
    let shm = Shm::new("trace-read");
    let config = Config { tracing: true, ..Config::default() };
    let broker: Broker<Fixed<4, 8, 64>> = Broker::new(Memory::create(&shm.0, &config).unwrap());
    let (mut a, mut b) = (broker.register("a").unwrap(), broker.register("b").unwrap());
    a.send(b.id(), &Message::new(1)).unwrap();
    b.try_receive().unwrap();
    // No command may act on a file that others can write; and looks at it.
    let mode = Command::new("chmod").args(["0666", shm.path().to_str().unwrap()]).status().unwrap();
    assert!(mode.success());
    ends_with(2, &k2k(&["trace", &shm.0, "--for", "1ms"]));
    let last = k2k(&["trace", &shm.0, "--last"]);
    ends_with(0, &last);
    let ways = ways(&json(&last));
    assert_eq!(ways.values().next().unwrap().len(), 2, "{ways:?}");
}
