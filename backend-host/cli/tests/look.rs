//! The commands that look into a fabric, as their users see them.

mod common;
use common::{Echo, Process, Shm, eventually, fill, patient};
use k2k::fabric::MAGIC;
use k2k::{
    Broker, Builder, Command, Config, DeliveryStatus, Endpoint, Fixed, KernelId, Message, Priority, StartOptions,
    memory,
};
use serde_json::Value;
use std::process::Output;

type Shared = Broker<Fixed<4, 16, 64>>;

fn k2k(args: &[&str]) -> Output {
    std::process::Command::new(env!("CARGO_BIN_EXE_k2k")).args(args).output().expect("the command starts")
}

/// What a command prints that succeeds, and says nothing else.
fn printed(args: &[&str]) -> String {
    let output = k2k(args);
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    let (out, err) = (text(output.stdout), text(output.stderr));
    assert_eq!((output.status.code(), &*err), (Some(0), ""), "{args:?}: {out}");
    out
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&printed(args)).expect("JSON")
}

fn shared(test: &str) -> (Shm, Shared) {
    let shm = Shm::new(test);
    let broker = patient().create(&shm.0).build().unwrap();
    (shm, broker)
}

fn kernel<'v>(of: &'v Value, name: &str) -> &'v Value {
    let kernels = of["kernels"].as_array().expect("kernels");
    kernels.iter().find(|kernel| kernel["name"] == name).unwrap_or_else(|| panic!("no {name}: {of:#}"))
}

/// Not a test by itself: a process that is killed.
#[test]
fn dies() {
    let Ok(file) = std::env::var("K2K_LOOK_FILE") else { return };
    let broker: Shared = Builder::new().open(&file).build().unwrap();
    let _endpoint = broker.register("dies").unwrap();
    std::thread::sleep(common::GUARD);
}

#[test]
fn ls_lists_fabrics_and_says_how_many_of_their_kernels_are_dead() {
    let (shm, broker) = shared("ls-all");
    let mut process = Process::start("dies", &[("K2K_LOOK_FILE", &shm.0)]);
    eventually("it has registered", || broker.find("dies").is_some());
    process.kill();
    let _lives = broker.register("lives").unwrap();
    let output = k2k(&["ls", "--json"]);
    let all: Value = serde_json::from_slice(&output.stdout).unwrap();
    let path = shm.path().to_str().unwrap().to_owned();
    let found = all["fabrics"].as_array().unwrap().iter().find(|fabric| fabric["file"] == *path).expect("listed");
    assert_eq!((&found["in_use"], &found["dead"], &found["shape"]["slots"]), (&2.into(), &1.into(), &16.into()));
    let text = String::from_utf8(k2k(&["ls"]).stdout).unwrap();
    let line = text.lines().find(|line| line.starts_with(&shm.0)).expect("listed by the name that a user types");
    let cells: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(cells[1..5], ["4", "16", "64", "B"]);
    assert_eq!(cells[cells.len() - 2..], ["2", "1"]);
}

#[test]
fn ls_of_a_file_lists_its_kernels() {
    let (shm, broker) = shared("ls-one");
    let (mut a, b) = (broker.register("a").unwrap(), broker.register("b \u{1b}[31m").unwrap());
    fill(&mut a, b.id(), 3);
    let _echo = broker.start("echo", Echo::default(), StartOptions::default()).unwrap();
    let text = printed(&["ls", &shm.0]);
    assert!(text.contains("4 kernels x 16 slots x 64 B") && text.contains("tracing off"), "{text}");
    assert!(!text.contains('\u{1b}'), "no name moves the cursor: {text:?}");
    let me = std::process::id().to_string();
    let line = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{text}"));
    assert!(line("a ").contains(&me) && line("a ").ends_with("idle"), "{text}");
    assert!(line("b ?[31m").ends_with("3  stalled"), "{text}");
    assert!(line("echo").contains("running") && line("echo").contains("moves"), "{text}");
    let of = json(&["ls", &shm.0, "--json"]);
    for word in ["clock", "boot", "namespace"] {
        let text = of["config"][word].as_str().expect("a string, since a number would lose bits");
        assert!(text.len() == 18 && text.starts_with("0x"), "{text}");
    }
    assert_eq!(kernel(&of, "b \u{1b}[31m")["backlog"][0]["normal"], 3);
    assert_eq!(kernel(&of, "a")["counters"]["sent"], 3);
}

#[test]
fn top_once_shows_rates_and_puts_the_stuck_first() {
    let (shm, broker) = shared("top-once");
    let (mut a, b, c) = (broker.register("a").unwrap(), broker.register("b").unwrap(), broker.register("c").unwrap());
    fill(&mut a, b.id(), 16);
    broker.command(c.id(), Command::Stop).unwrap();
    let echo = broker.start("echo", Echo::default(), StartOptions::default()).unwrap();
    let stop = std::sync::Arc::new(());
    let (stopped, to) = (std::sync::Arc::downgrade(&stop), echo.id());
    let sender = std::thread::spawn(move || {
        let mut sent = 0;
        while stopped.upgrade().is_some() {
            sent += u64::from(a.send(to, &Message::new(0)).is_ok());
            while a.try_receive().is_some() {}
            std::thread::sleep(core::time::Duration::from_millis(2));
        }
        sent
    });
    let of = json(&["top", &shm.0, "--once", "--json", "--interval", "0.7"]);
    let text = printed(&["top", &shm.0, "--once", "--interval", "0.7"]);
    drop(stop);
    let sent = sender.join().unwrap();

    let conditions = ["b", "c", "echo"].map(|name| kernel(&of, name)["condition"].as_str().unwrap().to_owned());
    assert_eq!(conditions, ["stalled", "unheard", "busy"]);
    assert_eq!(kernel(&of, "a")["waits_for"][0]["name"], "b");
    let rate = kernel(&of, "echo")["per_second"]["received"].as_f64().unwrap();
    assert!(rate > 0.0 && rate < 600.0, "{rate}");
    let counted = kernel(&of, "a")["counters"]["sent"].as_u64().unwrap();
    assert!(counted >= 16 && counted <= 16 + sent, "{counted} of {sent}");
    let order: Vec<&str> = text.lines().skip(2).filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(order[..2], ["c", "b"], "{text}");
    assert!(text.lines().any(|line| line.starts_with("a ") && line.ends_with(" b")), "who waits for whom: {text}");
}

#[test]
fn top_prints_as_many_tables_as_it_is_told_and_an_object_a_line() {
    let (shm, broker) = shared("top-count");
    let _a = broker.register("a").unwrap();
    let text = printed(&["top", &shm.0, "-n", "3", "--interval", "0.05"]);
    assert_eq!(text.matches("KERNEL").count(), 3, "{text}");
    let lines = printed(&["top", &shm.0, "-n", "2", "-i", "0.05", "--json"]);
    let objects: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(objects.len(), 2);
}

#[test]
fn top_shows_several_fabrics_and_goes_on_when_one_of_them_goes_away() {
    let ((here, one), (there, other)) = (shared("top-here"), shared("top-there"));
    let (_a, b) = (one.register("a").unwrap(), other.register("b").unwrap());
    let text = printed(&["top", &here.0, &there.0, "-n", "2", "--interval", "0.05"]);
    let tables: Vec<&str> = text.split("\n\n").collect();
    assert_eq!(tables.len(), 4, "{text}");
    for (table, (file, kernel)) in tables.iter().zip([(&here.0, "\na "), (&there.0, "\nb ")].iter().cycle()) {
        assert!(table.contains(file.as_str()) && table.contains(kernel), "{text}");
    }
    let lines = printed(&["top", &here.0, &there.0, "--once", "-i", "0.05", "--json"]);
    let objects: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(objects.len(), 2);
    assert!(objects[0]["file"].as_str().unwrap().ends_with(&here.0), "{lines}");

    // Shorter, as by a program that writes over it. Nothing of this process may touch it any more.
    let path = format!("/dev/shm/{}", there.0.trim_start_matches("/dev/shm/"));
    let child = std::process::Command::new(env!("CARGO_BIN_EXE_k2k"))
        .args(["top", &here.0, &there.0, "-n", "20", "--interval", "0.05"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Process(child);
    let mut out = std::io::BufReader::new(child.0.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("b ") {
        line.clear();
        assert!(std::io::BufRead::read_line(&mut out, &mut line).unwrap() > 0);
    }
    let _ = core::mem::ManuallyDrop::new((b, other));
    std::fs::File::options().write(true).open(&path).unwrap().set_len(4096).unwrap();
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut out, &mut rest).unwrap();
    let status = child.0.wait().unwrap();
    let mut err = String::new();
    std::io::Read::read_to_string(&mut child.0.stderr.take().unwrap(), &mut err).unwrap();
    assert_eq!(status.code(), Some(1), "{err}");
    assert!(err.lines().count() == 1 && err.contains("made shorter") && err.contains(&path), "{err}");
    assert!(rest.matches("\na ").count() > 10, "the other one is watched on: {rest}");
}

/// `sent` messages of `a` wait at `b`; one more was forwarded to nobody.
fn troubled(test: &str) -> (Shm, Shared, [Endpoint<Fixed<4, 16, 64>>; 3]) {
    let shm = Shm::new(test);
    let config = Config { delivery_timeout_ns: 3_600_000_000_000, ..Config::default() };
    let broker: Shared = Broker::new(k2k::Memory::create(&shm.0, &config).unwrap());
    let [mut a, b, c] = ["a", "b", "c\"\\\n"].map(|name| broker.register(name).unwrap());
    a.send(b.id(), &Message::from_bytes(7, b"secret!!").unwrap()).unwrap();
    a.send_priority(b.id(), &Message::new(8), Priority::High).unwrap();
    assert!(a.send(KernelId::new(3, 9), &Message::new(0)).is_err());
    let lost = a.send(c.id(), &Message::new(9)).unwrap();
    let id = c.id();
    drop(c);
    assert_eq!(a.receipt(lost).unwrap().status, DeliveryStatus::NotFound);
    let c = broker.register("c\"\\\n").unwrap();
    assert_ne!(c.id(), id);
    (shm, broker, [a, b, c])
}

#[test]
fn dump_shows_messages_without_their_payload_unless_it_is_asked_for() {
    let (shm, broker, [mut a, b, c]) = troubled("dump");
    broker.memory().set_route(a.id(), b.id(), c.id()).unwrap();
    broker.deny(b.id(), c.id()).unwrap();
    let text = printed(&["dump", &shm.0]);
    for says in [
        "4 kernels x 16 slots x 64 B",
        "tracing off",
        "at a: to b by way of c\"\\?",
        "b receives nothing from c\"\\?",
        "a: 2 pending, 1 not found",
        "b: 2 waiting, 0 deferred",
        "2 from a, 1 of them of high priority",
        "a #1 to b: kind 7, correlation 0, 8 bytes, hop 0 of 8",
        "high: a #2 to b: kind 8",
        "a: sent 3, refused 1",
        "#2, which nobody has now: not_found 1",
        "#2 (has left)  not found",
    ] {
        assert!(text.contains(says), "{says}: {text}");
    }
    let payload = "73656372 65742121";
    assert!(!text.contains(payload) && !text.contains("secret"), "{text}");
    assert!(printed(&["dump", &shm.0, "--payload"]).contains(payload));
    assert!(!printed(&["dump", &shm.0, "--messages", "0"]).contains("kind 7"));
    a.poll();
}

/// Every line of the text format of Prometheus: a comment, or a name, labels and a number.
fn metrics_of(text: &str) -> Vec<(String, f64)> {
    let mut families = Vec::new();
    let mut samples = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            if let Some(family) = rest.strip_prefix("TYPE ") {
                families.push(family.split(' ').next().unwrap().to_owned());
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let name = series.split('{').next().unwrap();
        // Those of a histogram have a suffix.
        let is_of = |family: &String| {
            let rest = name.strip_prefix(family.as_str());
            rest.is_some_and(|rest| matches!(rest, "" | "_bucket" | "_sum" | "_count"))
        };
        assert!(families.last().is_some_and(is_of), "a sample stands with its family: {line}");
        samples.push((series.to_owned(), value.parse().expect("a number")));
    }
    let mut unique: Vec<_> = samples.iter().map(|(series, _)| series).collect();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), samples.len(), "no series twice");
    samples
}

#[test]
fn metrics_are_what_the_kernels_counted() {
    let (shm, _broker, _kernels) = troubled("metrics");
    let samples = metrics_of(&printed(&["metrics", &shm.0]));
    let of = |start: &str, has: &[&str]| {
        let is = |series: &str| series.starts_with(start) && has.iter().all(|label| series.contains(label));
        samples.iter().find(|(series, _)| is(series)).unwrap_or_else(|| panic!("{start} {has:?}: {samples:#?}")).1
    };
    assert_eq!(of("k2k_messages_sent_total{", &["kernel=\"a\""]), 3.0);
    assert_eq!(
        of("k2k_messages_not_found_total{", &["kernel=\"\"", "index=\"2\""]),
        1.0,
        "counted by one that has left"
    );
    assert_eq!(of("k2k_messages_waiting{", &["kernel=\"b\"", "sender=\"a\"", "priority=\"high\""]), 1.0);
    assert!(of("k2k_failure_last_timestamp_seconds{", &["index=\"2\"", "failure=\"not_found\""]) > 1.6e9);
    assert_eq!(of("k2k_messages_unaccounted{", &[]), 2.0);
    assert_eq!(of("k2k_kernel_condition{", &["kernel=\"c\\\"\\\\?\"", "condition=\"idle\""]), 1.0);
}

#[test]
fn metrics_are_served_until_the_command_ends_also_to_clients_that_misbehave() {
    let (shm, _broker, _kernels) = troubled("serve");
    let child = std::process::Command::new(env!("CARGO_BIN_EXE_k2k"))
        .args(["metrics", &shm.0, "--serve", "127.0.0.1:0"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Process(child);
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.0.stdout.take().unwrap()), &mut line).unwrap();
    let address = line.trim().strip_prefix("http://").and_then(|rest| rest.strip_suffix("/metrics")).unwrap();
    let ask = |request: &[u8]| {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        let _ = std::io::Write::write_all(&mut stream, request);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = String::new();
        let _ = std::io::Read::read_to_string(&mut stream, &mut answer);
        answer
    };
    let get = || ask(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    let (head, body) = { get() }.split_once("\r\n\r\n").map(|(h, b)| (h.to_owned(), b.to_owned())).unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK") && head.contains(&format!("Content-Length: {}", body.len())), "{head}");
    assert!(
        metrics_of(&body).iter().any(|(series, value)| series.starts_with("k2k_messages_sent_total") && *value == 3.0)
    );
    assert!(ask(b"GET /x HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
    assert!(ask(b"POST /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405"));
    assert!(ask(b"\r\n\r\n").starts_with("HTTP/1.1 405"));
    for unanswered in [&b""[..], b"GET", &[b'x'; 20_000]] {
        assert_eq!(ask(unanswered), "");
    }
    assert!(ask(b"GET /metrics?x=1 HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200"));
    let head = ask(b"HEAD /metrics HTTP/1.1\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n") && !head.contains("k2k_"), "{head}");
    // Clients that say nothing keep nobody waiting: one after the other, they would take 100 s.
    let idle: Vec<_> = (0..50).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
    let began = std::time::Instant::now();
    assert!(get().starts_with("HTTP/1.1 200"));
    assert!(began.elapsed() < core::time::Duration::from_secs(30), "{:?}", began.elapsed());
    drop(idle);
    // A fabric of that name comes back.
    memory::remove(&shm.0).unwrap();
    assert!(get().starts_with("HTTP/1.1 200"), "removed, and looked at still");
    let again: Broker<Fixed<2, 4, 0>> = Builder::new().create(&shm.0).build().unwrap();
    let _b = again.register("newcomer").unwrap();
    assert!(get().contains("newcomer"));
}

#[test]
fn latencies_are_shown_by_all_that_look_while_they_are_counted() {
    let (shm, broker) = shared("latency");
    let (mut a, mut b) = (broker.register("a").unwrap(), broker.register("b").unwrap());
    assert!(String::from_utf8(k2k(&["latency", &shm.0]).stdout).unwrap().ends_with("no latency was counted\n"));
    assert_eq!(printed(&["latency", &shm.0, "on"]), "");
    for _ in 0..320 {
        a.send(b.id(), &Message::new(1)).unwrap();
        b.try_receive().unwrap();
    }
    let of = json(&["latency", &shm.0, "--json"]);
    assert_eq!((&of["on"], &of["kernels"][0]["latency"]["count"]), (&true.into(), &0.into()));
    let counted = &of["kernels"][1]["latency"];
    let times = ["p50_ns", "p90_ns", "p99_ns", "p999_ns"].map(|share| counted[share].as_u64().unwrap());
    assert!((19..=21).contains(&counted["count"].as_u64().unwrap()) && times.is_sorted() && times[0] > 0, "{of:#}");
    let text = printed(&["latency", &shm.0]);
    assert!(text.lines().count() == 2 && text.contains("b  ") && text.contains("P99"), "{text}");
    assert!(printed(&["top", &shm.0, "--once", "-i", "0.05"]).contains("P99"));
    assert_eq!(&kernel(&json(&["ls", &shm.0, "--json"]), "b")["latency"]["p99_ns"], &counted["p99_ns"]);

    let samples = metrics_of(&printed(&["metrics", &shm.0]));
    let of_b = |part: &str| {
        let name = format!("k2k_message_latency_seconds_{part}{{");
        let of_b = samples.iter().filter(|(series, _)| series.starts_with(&name) && series.contains("kernel=\"b\""));
        of_b.cloned().collect::<Vec<_>>()
    };
    let (buckets, all) = (of_b("bucket"), of_b("count")[0].1);
    assert!(buckets.is_sorted_by_key(|(_, count)| *count as u64), "counts are cumulative: {buckets:#?}");
    assert_eq!((buckets.len(), buckets.last().unwrap().1, all), (29, all, counted["count"].as_f64().unwrap()));
    assert!(buckets[28].0.contains("le=\"+Inf\"") && buckets[4].0.contains("le=\"0.000001024\""), "{buckets:#?}");

    assert_eq!(printed(&["latency", &shm.0, "off"]), "");
    assert!(!broker.memory().config().latency && !broker.memory().config().tracing);
    assert!(!printed(&["top", &shm.0, "--once", "-i", "0.05"]).contains("P99"));
    assert!(!printed(&["metrics", &shm.0]).contains("latency_seconds"));
    assert_eq!(k2k(&["latency", &shm.0, "perhaps"]).status.code(), Some(2));
}

#[test]
fn dump_for_machines_has_what_it_has_for_people() {
    let (shm, broker, [a, b, c]) = troubled("dump-json");
    broker.memory().set_route(a.id(), b.id(), c.id()).unwrap();
    broker.deny(b.id(), c.id()).unwrap();
    let of = json(&["dump", &shm.0, "--json"]);
    assert_eq!((&of["shape"]["slots"], &kernel(&of, "a")["counters"]["sent"]), (&16.into(), &3.into()), "{of:#}");
    let [route, denial] = [&of["routes"][0], &of["denials"][0]];
    assert_eq!((&route["at"]["index"], &route["next_hop"]["index"]), (&0.into(), &c.id().index().into()));
    assert_eq!(
        (&denial["receiver"]["index"], &denial["sender"]["generation"]),
        (&1.into(), &c.id().generation().into())
    );
    assert_eq!(
        (&of["receipts"][0]["latest"]["pending"], &of["receipts"][0]["latest"]["not_found"]),
        (&2.into(), &1.into())
    );
    assert_eq!(
        (&of["failures"][1]["failure"], &of["failures"][1]["example"]["sequence"]),
        (&"not_found".into(), &3.into())
    );
    let kinds: Vec<_> = of["messages"].as_array().unwrap().iter().map(|message| message["kind"].clone()).collect();
    assert_eq!((kinds, &of["messages"][0]["payload"]), (vec![8.into(), 7.into()], &Value::Null), "{of:#}");
    let with = json(&["dump", &shm.0, "--json", "--payload", "--messages", "1"]);
    assert_eq!(with["messages"][1]["payload"], "7365637265742121");
}

#[test]
fn errors_are_listed_by_kernel_and_kind_with_an_example() {
    let (shm, _broker, _kernels) = troubled("errors");
    let of = json(&["errors", &shm.0, "--json"]);
    let failures = of["failures"].as_array().unwrap();
    let kinds: Vec<_> =
        failures.iter().map(|f| (f["failure"].as_str().unwrap(), f["count"].as_u64().unwrap())).collect();
    assert_eq!(kinds, [("refused", 1), ("not_found", 1)]);
    assert_eq!((&failures[1]["kernel"], &failures[1]["example"]["sequence"]), (&Value::Null, &3.into()), "{of:#}");
    let [first, last] = ["first_wall_ns", "last_wall_ns"].map(|time| failures[1][time].as_u64().unwrap());
    assert!(first > 1_600_000_000_000_000_000 && last == first && failures[0]["example"].is_null());
    let text = printed(&["errors", &shm.0]);
    assert!(text.contains("not found") && text.contains(" ago") && text.contains("a #3"), "{text}");
    let quiet = Shm::new("errors-none");
    let _broker: Shared = patient().create(&quiet.0).build().unwrap();
    assert!(printed(&["errors", &quiet.0]).ends_with("no failure was counted\n"));
}

#[test]
fn what_cannot_be_looked_at_is_one_line_and_status_2() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("text"), [b'x'; 5000]).unwrap();
    let mut other = vec![0; 5000];
    other[..8].copy_from_slice(&MAGIC.to_le_bytes());
    other[8] = 99;
    std::fs::write(path("version"), &other).unwrap();
    std::fs::write(path("empty"), []).unwrap();
    for (file, says) in [
        (path("missing"), "does not exist"),
        (path("text"), "not a fabric"),
        (path("version"), "layout version 99"),
        (path("empty"), "has 0 bytes, which is too short for a fabric: it is none"),
        (dir.path().to_str().unwrap().to_owned(), "not a regular file"),
        (String::new(), "cannot name a fabric"),
        (path("missing\u{1b}[31m"), "missing?[31m"),
    ] {
        for command in ["ls", "top", "dump", "metrics", "errors", "latency"] {
            let output = k2k(&[command, &file]);
            let err = String::from_utf8(output.stderr).unwrap();
            assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{err}");
            let is_a_line = err.starts_with(&format!("k2k {command}: ")) && err.ends_with('\n');
            assert!(is_a_line && err.lines().count() == 1 && err.contains(says), "{err:?}");
        }
    }
    let output = k2k(&["top", "x", "--interval", "0"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_fabric_that_goes_away_while_it_is_watched_ends_top_with_a_line_and_status_1() {
    let (shm, broker) = shared("top-away");
    let a = broker.register("a").unwrap();
    let child = std::process::Command::new(env!("CARGO_BIN_EXE_k2k"))
        .args(["top", &shm.0, "--interval", "0.05"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Process(child);
    let mut out = std::io::BufReader::new(child.0.stdout.take().unwrap());
    let mut line = String::new();
    let mut read = |line: &mut String| {
        line.clear();
        std::io::BufRead::read_line(&mut out, line).unwrap()
    };
    assert!(read(&mut line) > 0 && line.contains("4 kernels"), "{line}");
    memory::remove(&shm.0).unwrap();
    while !line.contains("the file was removed") {
        assert!(read(&mut line) > 0, "a removed file is watched on");
    }
    // Nothing of these may touch the file any more.
    let _ = core::mem::ManuallyDrop::new((a, broker));
    let held = std::fs::read_dir(format!("/proc/{}/fd", child.0.id())).unwrap().flatten();
    let file = held.map(|fd| fd.path()).find(|fd| std::fs::read_link(fd).is_ok_and(|to| to.starts_with("/dev/shm")));
    std::fs::File::options().write(true).open(file.unwrap()).unwrap().set_len(4096).unwrap();
    while read(&mut line) > 0 {}
    let status = child.0.wait().unwrap();
    let mut err = String::new();
    std::io::Read::read_to_string(&mut child.0.stderr.take().unwrap(), &mut err).unwrap();
    assert_eq!(status.code(), Some(1), "{err}");
    assert!(err.lines().count() == 1 && err.contains("made shorter"), "{err}");
}

/// Both ends of a terminal: the window, and what a program has.
#[cfg(feature = "top")]
fn terminal() -> (std::fs::File, std::os::fd::OwnedFd) {
    use std::os::fd::{FromRawFd, OwnedFd};

    let (mut master, mut slave) = (0, 0);
    let size = libc::winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: both descriptors are written by a call that succeeds; the other pointers may be null or are valid.
    unsafe {
        // The command is not to hold the other end itself.
        assert_eq!(libc::openpty(&mut master, &mut slave, core::ptr::null_mut(), core::ptr::null(), &size), 0);
        assert_eq!(libc::fcntl(master, libc::F_SETFD, libc::FD_CLOEXEC), 0);
        (std::fs::File::from_raw_fd(master), OwnedFd::from_raw_fd(slave))
    }
}

/// Reads of a terminal until a text has come.
#[cfg(feature = "top")]
fn read_until(window: &mut std::fs::File, text: &str) {
    let (mut seen, mut bytes) = (Vec::new(), [0; 4096]);
    while !seen.windows(text.len()).any(|part| part == text.as_bytes()) {
        let wait = rustix::time::Timespec::try_from(common::GUARD).unwrap();
        let mut ready = [rustix::event::PollFd::new(&*window, rustix::event::PollFlags::IN)];
        let ready = rustix::event::poll(&mut ready, Some(&wait)).unwrap();
        assert!(ready > 0, "{text:?}: {:?}", String::from_utf8_lossy(&seen));
        let len = std::io::Read::read(window, &mut bytes).unwrap();
        assert_ne!(len, 0, "{text:?}: {:?}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&bytes[..len]);
    }
}

#[cfg(feature = "top")]
#[test]
fn top_gives_the_terminal_back_while_it_is_stopped_and_when_it_is_quit() {
    const ENTER: &str = "\u{1b}[?1049h";
    const LEAVE: &str = "\u{1b}[?1049l";
    let (shm, _broker) = shared("top-stop");
    let (mut window, terminal) = terminal();
    // SAFETY: the descriptor is open, and the call writes what it is given.
    let is_cooked = || unsafe {
        let mut mode = core::mem::zeroed::<libc::termios>();
        assert_eq!(libc::tcgetattr(std::os::fd::AsRawFd::as_raw_fd(&terminal), &mut mode), 0);
        mode.c_lflag & libc::ICANON != 0
    };
    assert!(is_cooked());
    let top = std::process::Command::new(env!("CARGO_BIN_EXE_k2k"))
        .args(["top", &shm.0])
        .env("TERM", "xterm")
        .stdin(terminal.try_clone().unwrap())
        .stdout(terminal.try_clone().unwrap())
        .spawn()
        .unwrap();
    let mut top = Process(top);
    let id = top.0.id();
    let signal = |name: &str| {
        assert!(std::process::Command::new("kill").args([name, &id.to_string()]).status().unwrap().success());
    };
    let is_stopped = || {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
        stat.rsplit(')').next().unwrap().starts_with(" T")
    };
    read_until(&mut window, "KERNEL");
    assert!(!is_cooked());
    for stop in ["-TSTP", "-STOP"] {
        signal(stop);
        if stop == "-TSTP" {
            read_until(&mut window, LEAVE);
        }
        eventually("it is stopped", is_stopped);
        assert!(is_cooked() == (stop == "-TSTP"));
        signal("-CONT");
        read_until(&mut window, ENTER);
        read_until(&mut window, "KERNEL");
        assert!(!is_cooked());
    }
    signal("-QUIT");
    read_until(&mut window, LEAVE);
    let status = top.0.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGQUIT));
    assert!(is_cooked());
}

#[cfg(feature = "top")]
#[test]
fn top_prints_tables_on_a_terminal_that_cannot_move_its_cursor() {
    let (shm, broker) = shared("top-dumb");
    let _a = broker.register("a").unwrap();
    for term in [Some("dumb"), Some(""), None] {
        let (mut window, terminal) = terminal();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_k2k"));
        command.args(["top", &shm.0, "--interval", "0.05"]).stdin(terminal.try_clone().unwrap()).stdout(terminal);
        match term {
            Some(term) => command.env("TERM", term),
            None => command.env_remove("TERM"),
        };
        let _top = Process(command.spawn().unwrap());
        let mut picture = [0; 64];
        std::io::Read::read_exact(&mut window, &mut picture).unwrap();
        assert!(picture.starts_with(b"/dev/shm"), "{}", String::from_utf8_lossy(&picture));
    }
}

#[cfg(feature = "top")]
#[test]
fn top_ends_when_its_terminal_is_gone() {
    use std::io::Read;

    let (shm, _broker) = shared("top-hangup");
    let (mut window, terminal) = terminal();
    let mut top = std::process::Command::new(env!("CARGO_BIN_EXE_k2k"))
        .args(["top", &shm.0])
        .env("TERM", "xterm")
        .stdin(terminal.try_clone().unwrap())
        .stdout(terminal)
        .spawn()
        .unwrap();
    // The first picture is there: from now on it waits for keys.
    let mut picture = [0; 4096];
    assert_ne!(window.read(&mut picture).unwrap(), 0);
    // It has no controlling terminal, so no signal tells it.
    drop(window);
    let mut status = None;
    eventually("top has ended", || {
        status = top.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.and_then(|status| status.code()), Some(129));
}
