//! The command as its users see it: exit status, output, and what it says when something is wrong.

use core::time::Duration;
use serde_json::Value;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::Instant;

fn k2k(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_k2k")).args(args).output().expect("the command starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

fn text(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is not a count"))
}

/// A file with bytes that do not repeat soon.
struct Input {
    dir: tempfile::TempDir,
    content: Vec<u8>,
}

impl Input {
    fn new(len: usize) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut content = vec![0; len];
        fastrand::Rng::with_seed(len as u64).fill(&mut content);
        fs::write(dir.path().join("input"), &content).expect("written");
        Self { dir, content }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("input")
    }

    fn output(&self) -> PathBuf {
        self.dir.path().join("output")
    }

    fn run(&self, args: &[&str]) -> Output {
        k2k(&[&["run", "--input", &text(&self.path())][..], args].concat())
    }

    /// Runs with `--json` and checks everything that must hold of every good run.
    fn run_json(&self, args: &[&str]) -> Value {
        let output = self.run(&[args, &["--json"]].concat());
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}{}", stdout(&output), stderr(&output));
        assert_eq!(stderr(&output), "", "{args:?}");
        let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
        assert_eq!(report["identical"], true);
        assert_eq!(report["bytes"], self.content.len());
        assert_adds_up(&report);
        report
    }
}

fn assert_adds_up(report: &Value) {
    assert_eq!(report["nothing_lost"], true, "{report}");
    let account = &report["accounting"];
    let ends =
        ["received", "not_found", "queue_full", "timeout", "max_hops_exceeded", "unanswered", "not_allowed", "pending"];
    assert_eq!(number(&account["sent"]), ends.iter().map(|end| number(&account[end])).sum::<u64>(), "{account}");
    assert_eq!(account["pending"], 0);
    assert_eq!(account["received"], report["messages"]);
    let again = &report["retransmissions"];
    let sent = number(&report["messages"]) + number(&again["queue_full"]) + number(&again["timeout"]);
    assert_eq!(number(&account["sent"]), sent);
}

#[test]
fn a_file_arrives_intact_through_every_topology() {
    let input = Input::new(50_000);
    for (topology, way) in [("line", 6), ("ring", 4), ("torus", 3), ("star", 3), ("full", 2)] {
        let report = input.run_json(&["--topology", topology, "--kernels", "6", "--message-size", "200"]);
        assert_eq!(report["topology"], topology);
        assert_eq!(report["messages"], 250);
        assert_eq!(report["route"].as_array().map(Vec::len), Some(way), "{topology}");
        // More if something had to be sent again.
        assert!(number(&report["hops"]) >= 250 * (way as u64 - 2), "{topology}: {}", report["hops"]);
        let latency = ["p50", "p99", "p99_9", "max"].map(|which| number(&report["latency_ns"][which]));
        assert!(latency.is_sorted(), "{latency:?}");
    }
}

#[test]
fn more_kernels_than_cores_work() {
    let input = Input::new(20_000);
    let report = input.run_json(&["--topology", "torus", "--kernels", "16", "--message-size", "1000"]);
    assert_eq!(report["kernels"], 16);
    assert_eq!(report["fabric"]["payload"], 1024, "whole lines that carry 1000 bytes");
}

#[test]
fn a_window_larger_than_the_inboxes_works() {
    let report = Input::new(100_000).run_json(&["--message-size", "50", "--window", "1024", "--kernels", "4"]);
    assert_eq!(report["messages"], 2000);
    // Fewer receipts than the window asks for: fewer are on their way.
    let few = ["--message-size", "50", "--window", "1024", "--kernels", "3", "--slots", "2"];
    assert_eq!(Input::new(10_000).run_json(&few)["messages"], 200);
}

#[test]
fn an_empty_file_works() {
    let input = Input::new(0);
    let report = input.run_json(&[]);
    assert_eq!((number(&report["messages"]), number(&report["hops"])), (0, 0));
    assert_eq!(report["latency_ns"], Value::Null);
    let table = input.run(&[]);
    assert_eq!(table.status.code(), Some(0));
    assert!(stdout(&table).contains("identical: yes   nothing lost: yes"), "{}", stdout(&table));
}

#[test]
fn a_single_byte_works() {
    assert_eq!(Input::new(1).run_json(&[])["messages"], 1);
}

#[test]
fn a_file_of_whole_messages_has_no_empty_one_at_its_end() {
    for size in [192usize, 960, 100] {
        assert_eq!(Input::new(size * 10).run_json(&["--message-size", &size.to_string()])["messages"], 10);
    }
}

#[test]
fn messages_of_one_byte_work() {
    assert_eq!(Input::new(300).run_json(&["--message-size", "1", "--window", "1"])["messages"], 300);
}

#[test]
fn the_output_is_the_input() {
    let input = Input::new(10_007);
    fs::write(input.output(), vec![0; 1 << 20]).expect("written");
    let output = text(&input.output());
    let report = input.run_json(&["--output", &output]);
    assert_eq!(report["output"], output);
    assert_eq!(fs::read(input.output()).expect("readable"), input.content, "what was there before is gone");
}

#[test]
fn the_table_says_what_happened() {
    let output = Input::new(9_600).run(&["--kernels", "4", "--topology", "ring"]);
    assert_eq!(output.status.code(), Some(0));
    let table = stdout(&output);
    for part in [
        "ring of 4 kernels: 0 -> 1 -> 2",
        "1 each",
        "too short to measure with",
        "on the heap, room for ",
        "messages/s",
        "hops/s",
        "MB/s",
        "p99.9",
        "= received",
        "nothing lost: yes",
    ] {
        assert!(table.contains(part), "{part:?} is not in\n{table}");
    }
    assert_eq!(stderr(&output), "", "no progress bar where there is no terminal");
}

#[test]
fn quiet_says_nothing_when_all_went_well() {
    let output = Input::new(100).run(&["--quiet"]);
    assert_eq!((output.status.code(), stdout(&output), stderr(&output)), (Some(0), String::new(), String::new()));
}

#[test]
fn tracing_shows_the_way_of_the_last_message() {
    let report = Input::new(5_000).run_json(&["--tracing", "--kernels", "4"]);
    let trace = report["trace"].as_array().expect("a trace");
    let kernels: Vec<u64> = trace.iter().map(|line| number(&line["kernel"])).collect();
    assert_eq!(kernels, [0, 1, 2, 3]);
    let events: Vec<_> = trace.iter().map(|line| line["event"].as_str().expect("a word")).collect();
    assert_eq!(events, ["sent", "forwarded", "forwarded", "received"]);
    assert_eq!(Input::new(10).run_json(&[])["trace"], Value::Null, "without --tracing");
}

#[test]
fn generated_data_is_carried_for_a_while() {
    let output = k2k(&["run", "--duration", "0.2", "--kernels", "3", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert!(number(&report["messages"]) > 0);
    assert_eq!(report["input"], Value::Null);
    assert_adds_up(&report);
}

#[test]
fn pinning_and_huge_pages_are_accepted_everywhere() {
    let output = Input::new(1000).run(&["--pin", "--huge-pages"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let notice = stderr(&output);
    assert!(notice.is_empty() || notice.starts_with("k2k run: going on with "), "no error: {notice}");
}

#[test]
fn a_hop_limit_that_is_too_low_ends_in_failure_and_says_so() {
    let output = Input::new(1000).run(&["--kernels", "6", "--hop-limit", "2", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("message 0 was not delivered: hop limit exceeded"), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!((&report["identical"], &report["nothing_lost"]), (&Value::Bool(false), &Value::Bool(false)));
    let account = &report["accounting"];
    assert!(number(&account["max_hops_exceeded"]) > 0);
    assert_eq!(account["pending"], 0, "what failed is accounted for as well: {account}");

    let table = stdout(&Input::new(1000).run(&["--kernels", "6", "--hop-limit", "1"]));
    assert!(table.contains("  hops ") && !table.contains(" each"), "nothing made all of its hops: {table}");
}

/// Exit status 2, nothing on standard output, and a message that says what is wrong.
fn assert_refused(output: &Output, says: &[&str]) {
    assert_eq!(output.status.code(), Some(2), "{}{}", stdout(output), stderr(output));
    assert_eq!(stdout(output), "");
    for part in says {
        assert!(stderr(output).contains(part), "{part:?} is not in {}", stderr(output));
    }
}

#[test]
fn a_missing_file_is_refused() {
    assert_refused(&k2k(&["run", "--input", "no/such/file"]), &["cannot read no/such/file: "]);
}

#[test]
fn a_folder_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    assert_refused(&k2k(&["run", "--input", &text(dir.path())]), &["is not a regular file"]);
    let output = Input::new(10).run(&["--output", &text(dir.path())]);
    assert_refused(&output, &["is not a regular file"]);
}

#[test]
fn an_output_that_cannot_be_written_is_refused() {
    assert_refused(&Input::new(10).run(&["--output", "no/such/folder/file"]), &["cannot write no/such/folder/file: "]);
}

#[test]
fn an_output_over_the_input_is_refused_and_the_input_kept() {
    let input = Input::new(10);
    let same = text(&input.dir.path().join(".").join("input"));
    assert_refused(&input.run(&["--output", &same]), &["both input and output"]);
    assert_eq!(fs::read(input.path()).expect("readable"), input.content);
}

#[test]
fn too_many_kernels_are_refused_with_both_numbers() {
    assert_refused(&Input::new(10).run(&["--kernels", "257"]), &["257", "at most 256"]);
}

#[test]
fn too_few_kernels_are_refused_with_both_numbers() {
    let cases = [("line", "1", "at least 2"), ("ring", "2", "at least 3"), ("star", "2", "at least 3")];
    for (topology, kernels, least) in cases {
        let output = Input::new(10).run(&["--topology", topology, "--kernels", kernels]);
        assert_refused(&output, &[topology, kernels, least]);
    }
}

#[test]
fn a_message_size_out_of_range_is_refused_with_both_numbers() {
    for size in ["0", "65473"] {
        assert_refused(&Input::new(10).run(&["--message-size", size]), &[size, "1 to 65472"]);
    }
}

#[test]
fn a_job_without_data_or_with_two_kinds_of_it_is_refused() {
    assert_refused(&k2k(&["run"]), &["--input <FILE>", "--duration <SECS>"]);
    assert_refused(&Input::new(10).run(&["--duration", "1"]), &["cannot be used with"]);
    assert_refused(&k2k(&["run", "--duration", "0"]), &["number of seconds above 0"]);
    assert_refused(&k2k(&["run", "--duration", "1", "--output", "x"]), &["cannot be used with"]);
}

/// Runs with a standard output that nobody reads.
fn unread(args: &[&str]) -> Output {
    let (reader, writer) = io::pipe().expect("a pipe");
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_k2k"));
    command.args(args).stdout(writer).output().expect("the command starts")
}

/// Runs with a standard output on a full disk.
fn on_a_full_disk(args: &[&str]) -> Output {
    let full = File::options().write(true).open("/dev/full").expect("a device that is always full");
    Command::new(env!("CARGO_BIN_EXE_k2k")).args(args).stdout(full).output().expect("the command starts")
}

#[test]
fn output_that_nobody_reads_ends_it_quietly_and_a_full_disk_with_one_line() {
    let input = Input::new(1000);
    let file = text(&input.path());
    let run = ["run", "--input", &file];
    for args in [&run[..], &[&run[..], &["--json"]].concat(), &[&run[..], &["--output", "-"]].concat(), &["doctor"]] {
        let output = unread(args);
        let report_is_stderr = args.contains(&"-");
        assert_eq!(output.status.code(), Some(141), "{args:?}: {}", stderr(&output));
        assert!(report_is_stderr || stderr(&output).is_empty(), "{args:?}: {}", stderr(&output));
        let output = on_a_full_disk(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", stderr(&output));
        let says = stderr(&output);
        assert!(says.contains("cannot write to standard output: No space left on device"), "{args:?}: {says}");
        assert_eq!(says.lines().count(), 1, "{args:?}: {says}");
    }
    for args in [&["doctor", "--json"][..], &["--help"], &["run", "--help"], &["--version"]] {
        assert_eq!((unread(args).status.code(), stderr(&unread(args)).as_str()), (Some(141), ""), "{args:?}");
        assert_eq!(on_a_full_disk(args).status.code(), Some(1), "{args:?}");
    }
}

#[test]
fn messages_that_nobody_reads_change_no_exit_status() {
    let input = Input::new(1000);
    let file = text(&input.path());
    for (args, status) in
        [(&["run", "--kernels", "257", "--input", &file][..], 2), (&["run", "--input", &file, "--output", "-"], 0)]
    {
        let (reader, writer) = io::pipe().expect("a pipe");
        drop(reader);
        let full = File::options().write(true).open("/dev/full").expect("a device that is always full");
        for stderr in [Stdio::from(writer), Stdio::from(full)] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_k2k"));
            let output = command.args(args).stderr(stderr).output().expect("the command starts");
            assert_eq!(output.status.code(), Some(status), "{args:?}");
        }
    }
}

/// Runs with that on standard input.
fn fed(args: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_k2k"));
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the command starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_vec();
    // It reads while it writes.
    let feeder = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("it ends");
    feeder.join().expect("no panic").expect("all is read");
    output
}

#[test]
fn a_dash_is_standard_input_and_output() {
    let input = Input::new(100_007);
    let output = fed(&["run", "--input", "-", "--output", "-"], &input.content);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(output.stdout, input.content);
    assert!(stderr(&output).contains("identical: yes   nothing lost: yes"), "{}", stderr(&output));
    assert!(!Path::new("-").exists(), "no file is called -");

    let report = fed(&["run", "--input", "-", "--json", "--output", &text(&input.output())], &input.content);
    let report: Value = serde_json::from_slice(&report.stdout).expect("one JSON object");
    assert_eq!((&report["identical"], &report["bytes"]), (&Value::Bool(true), &Value::from(100_007)));
    assert_eq!(fs::read(input.output()).expect("readable"), input.content);

    let output = fed(&["run", "--input", "-"], b"");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    // A report that goes the other way is still one JSON object.
    let output = input.run(&["--output", "-", "--json"]);
    let report: Value = serde_json::from_slice(&output.stderr).expect("one JSON object");
    assert_eq!((&report["identical"], output.stdout == input.content), (&Value::Bool(true), true));
}

#[test]
fn standard_input_that_is_the_output_is_refused() {
    let input = Input::new(10);
    let mut command = Command::new(env!("CARGO_BIN_EXE_k2k"));
    command.args(["run", "--input", "-", "--output", &text(&input.path())]);
    let output = command.stdin(File::open(input.path()).expect("readable")).output().expect("the command starts");
    assert_refused(&output, &["both input and output"]);
    assert_eq!(fs::read(input.path()).expect("readable"), input.content);
}

#[test]
fn numbers_out_of_range_are_refused_with_the_range_also_negative_ones() {
    for (option, range) in [
        ("--kernels", "at least 2"),
        ("--kernels=", "2 to 256"),
        ("--message-size", "1 to 65472"),
        ("--window", "1..=1024"),
        ("--hop-limit", "1..=127"),
        ("--duration", "above 0, at most 1000000"),
    ] {
        let number = if option.ends_with('=') {
            "-7"
        } else if option == "--kernels" {
            "1"
        } else {
            "-1"
        };
        let option = option.trim_end_matches('=');
        let data: &[&str] = if option == "--duration" { &[] } else { &["--duration", "1"] };
        assert_refused(&k2k(&[&["run", option, number], data].concat()), &[number, range]);
    }
    let help = stdout(&k2k(&["run", "--help"])).split_whitespace().collect::<Vec<_>>().join(" ");
    for range in ["2 to 256", "1 to 65472", "1 to 1024", "1 to 127", "up to 1000000 s"] {
        assert!(help.contains(range), "{range:?} is not in {help}");
    }
}

#[test]
fn a_folder_for_temporary_files_that_is_not_there_is_named() {
    let input = Input::new(10);
    for args in [&["run", "--input", &text(&input.path())][..], &["run", "--input", "-", "--output", "x"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_k2k"));
        let output = command.args(args).env("TMPDIR", "/no such folder").stdin(Stdio::null()).output();
        assert_refused(&output.expect("the command starts"), &["temporary file in /no such folder", "TMPDIR"]);
    }
}

#[test]
fn memory_that_cannot_be_had_is_named_with_what_to_lower() {
    let limited = |kilobytes: &str, args: &str| {
        let script = format!("ulimit -v {kilobytes}; exec \"$0\" run --duration 0.1 {args}");
        Command::new("sh").args(["-c", &script, env!("CARGO_BIN_EXE_k2k")]).output().expect("a shell")
    };
    let output = limited("500000", "--kernels 64 --message-size 4032");
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    for part in ["a fabric of ", " GiB: ", "lower --kernels, --slots or --message-size"] {
        assert!(stderr(&output).contains(part), "{part:?} is not in {}", stderr(&output));
    }
}

#[test]
fn fewer_hops_than_the_way_has_fail_and_as_many_pass() {
    let input = Input::new(1000);
    let report = input.run_json(&["--kernels", "6", "--hop-limit", "4"]);
    assert_eq!(number(&report["hops"]), 4 * number(&report["messages"]), "a hop is a kernel that passes it on");
    assert_eq!(input.run(&["--kernels", "6", "--hop-limit", "3"]).status.code(), Some(1));
}

#[test]
fn without_a_number_of_kernels_there_are_about_as_many_as_cores() {
    let report = Input::new(1000).run_json(&[]);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    assert_eq!(number(&report["kernels"]), cores.clamp(3, 6) as u64);
    assert_eq!(number(&report["cores"]), cores as u64);
    let table = stdout(&Input::new(1000).run(&["--kernels", "64"]));
    assert!(cores >= 64 || table.contains("64 kernels share"), "{table}");
}

/// Waits, but not for ever.
fn ended(mut child: Child) -> Output {
    let began = Instant::now();
    while child.try_wait().expect("a child").is_none() {
        if began.elapsed() > Duration::from_secs(60) {
            let _ = child.kill();
            panic!("it does not end");
        }
        sleep(Duration::from_millis(5));
    }
    child.wait_with_output().expect("a child")
}

fn interrupt(child: &Child) {
    let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
    assert!(status.success());
}

#[test]
fn an_interrupted_job_prints_the_figures_so_far() {
    let start = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_k2k"));
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the command starts")
    };
    let child = start(&["run", "--duration", "1000", "--json"]);
    sleep(Duration::from_millis(500));
    interrupt(&child);
    let output = ended(child);
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!((&report["interrupted"], &report["identical"]), (&Value::Bool(true), &Value::Bool(true)));
    assert!(number(&report["messages"]) > 0);
    assert_adds_up(&report);

    // While it waits for more of its input.
    let mut child = start(&["run", "--input", "-", "--message-size", "10", "--output", "-"]);
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(&[7; 95]).expect("it reads");
    sleep(Duration::from_millis(500));
    interrupt(&child);
    let output = ended(child);
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert_eq!(output.stdout, [7; 95], "what was carried");
    assert!(stderr(&output).contains("interrupted: "), "{}", stderr(&output));
}

#[test]
fn the_second_interrupt_ends_it() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_k2k"));
    let mut child = command.args(["run", "--duration", "1000"]).stdout(Stdio::piped()).spawn().expect("it starts");
    sleep(Duration::from_millis(300));
    // A job that ends slowly would have to be made; so both come at once, and whichever way it ends is soon.
    interrupt(&child);
    interrupt(&child);
    let mut text = String::new();
    child.stdout.take().expect("a pipe").read_to_string(&mut text).expect("UTF-8");
    assert_eq!(ended(child).status.code(), Some(130));
}

#[test]
fn the_doctor_finds_that_the_host_part_works() {
    let output = k2k(&["doctor"]);
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
    for part in [
        "cores",
        "shared memory",
        "huge pages",
        "clock",
        "CUDA driver",
        "device compiler",
        "ptxas, nvdisasm",
        "Kernels on the host: yes",
    ] {
        assert!(stdout(&output).contains(part), "{part:?} is not in\n{}", stdout(&output));
    }
}

#[test]
fn the_doctor_speaks_json() {
    let output = k2k(&["doctor", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let diagnosis: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!(diagnosis["host_works"], true);
    for section in ["host", "gpu", "device_toolchain"] {
        for check in diagnosis[section].as_array().expect("a list") {
            let ok = check["ok"].as_bool().expect("a truth value");
            assert!(ok || check["remedy"].is_string(), "{check} says what to do");
            assert!(!check["needed_for"].as_str().unwrap_or_default().is_empty());
        }
    }
}
