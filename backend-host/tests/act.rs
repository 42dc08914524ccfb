//! The commands that act on a running fabric, as their users see them: `k2k` is one process, the kernels are in others or
//! in this one, and what `k2k` says is compared with what the kernels know.
#![cfg(feature = "cli")]

mod common;
use common::{Echo, GUARD, Process, Shm, eventually, patient};
use core::time::Duration;
use k2k_host::memory::FileOptions;
use k2k_host::{
    Broker, Config, Context, Fixed, Kernel, Memory, Message, Phase, Priority, Read as AnyShape, StartOptions,
};
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, OnceLock};

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
fn a_fabric_without_a_free_place_is_refused_in_words() {
    let shm = Shm::new("full");
    let broker = any_shape(&shm, 2, 8, 64);
    let _there = [broker.register("a").unwrap(), broker.register("b").unwrap()];
    let full = k2k(&["send", &shm.0, "a"]);
    ends_with(2, &full);
    assert!(stderr(&full).contains("all 2 places of the fabric are taken"), "{}", stderr(&full));
    let taken = k2k(&["send", &shm.0, "a", "--as", "b"]);
    assert!(stderr(&taken).contains("cannot register the kernel \"b\": the name is taken"), "{}", stderr(&taken));
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
    let commands: [&[&str]; 4] = [&["send"], &["ping"], &["pause"], &["stop"]];
    for (file, why) in cases {
        for command in commands {
            let output = k2k(&[command, &[&path(file), "sink"]].concat());
            ends_with(2, &output);
            let said = stderr(&output);
            assert!(said.contains(why) && said.lines().count() == 1, "{command:?} {file}: {said}");
        }
    }
}
