//! The command `k2k-gpu`, as a user calls it.

use std::fs::File;
use std::io;
use std::process::{Command, Output};

fn check(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_k2k-gpu")).arg("check").args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn the_list_names_checks_and_benchmarks() {
    let (code, out, _) = check(&["--list"]);
    assert_eq!(code, Some(0));
    assert!(out.contains("check      layout, as the device sees it\n"), "{out}");
    assert!(out.contains("benchmark  round trip, host and device\n"), "{out}");
}

#[test]
fn a_command_line_that_is_no_good_runs_nothing() {
    for (arguments, expected) in [
        (&["--messages", "0"][..], "0 is not in 1..="),
        (&["--limit", "3601"], "3601 is not in 1..=3600"),
        (&["--limit", "-1"], "-1 is not in 1..=3600"),
        (&["--messages", "-1"], "-1 is not in 1..=1000000000"),
        (&["--device", "-1"], "-1 is not in 0..=4294967295"),
        (&["--what"], "unexpected argument '--what'"),
        (&["--only", "no such thing"], "no check or benchmark has \"no such thing\" in its name: see --list"),
        (&["--only", "idle bridge", "--no-bench"], "no check or benchmark has \"idle bridge\" in its name"),
    ] {
        let (code, out, err) = check(arguments);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{arguments:?}: {err}");
        assert!(err.contains(expected), "{arguments:?}: {err}");
    }
}

#[test]
fn help_has_the_exit_statuses() {
    for arguments in [&["--help"][..], &["doctor", "--help"]] {
        let Output { status, stdout, .. } =
            Command::new(env!("CARGO_BIN_EXE_k2k-gpu")).args(arguments).output().unwrap();
        assert_eq!(status.code(), Some(0));
        let out = String::from_utf8_lossy(&stdout).into_owned();
        assert!(out.contains("Exit status: 0 a kernel ran on a GPU, 1 on none"), "{out}");
    }
    let (_, out, _) = check(&["--help"]);
    assert!(out.contains("Exit status:") && out.contains("3  there is no GPU that will do"), "{out}");
}

#[test]
fn output_that_nobody_reads_ends_it_quietly_and_a_full_disk_with_one_line() {
    let mut cases = vec![&[][..], &["--help"], &["check", "--list"]];
    if cfg!(feature = "emulated") {
        cases.push(&["check", "--emulated", "--only", "layout"]);
    }
    for arguments in cases {
        let mut command = Command::new(env!("CARGO_BIN_EXE_k2k-gpu"));
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let output = command.args(arguments).stdout(writer).output().unwrap();
        let says = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), says.as_str()), (Some(141), ""), "{arguments:?}");
        let output = command.stdout(File::options().write(true).open("/dev/full").unwrap()).output().unwrap();
        let says = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {says}");
        assert_eq!(says.lines().count(), 1, "{arguments:?}: {says}");
        assert!(says.contains("cannot write to standard output: No space left on device"), "{says}");
    }
}

#[test]
fn without_a_gpu_it_says_what_is_missing() {
    if k2k_cuda::Device::count().is_ok() {
        println!("skipped: there is a GPU");
        return;
    }
    let (code, out, err) = check(&[]);
    assert_eq!((code, out.as_str()), (Some(3), ""), "{err}");
    assert!(err.contains("CUDA driver"), "{err}");
}

#[cfg(feature = "emulated")]
mod emulated {
    use super::check;
    use serde_json::Value;
    use std::process::Command;
    use tempfile::TempDir;

    fn json(folder: &TempDir) -> Value {
        let text = std::fs::read_to_string(folder.path().join("results.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn what_is_found_is_written_as_json() {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("results.json");
        let (code, out, err) = check(&["--emulated", "--only", "device to host", "--json", file.to_str().unwrap()]);
        assert_eq!(code, Some(0), "{out}{err}");
        assert!(out.contains("emulated device") && out.contains("all passed in "), "{out}");
        let all = json(&folder);
        assert_eq!(all["device"]["is_gpu"], false);
        assert_eq!(all["checks"][0]["passed"], true);
        assert_eq!(all["unfinished"].as_array().map(Vec::len), Some(0));
        let rows = all["benchmarks"].as_array().unwrap();
        let row = rows.iter().find(|row| row["figure"] == "1 warp").unwrap();
        assert!(row["value"].as_f64() > Some(0.0) && row["floor"]["value"].as_f64() > Some(0.0), "{row}");
        assert_eq!((&row["unit"], &row["verdict"]), (&"messages/s".into(), &"not measured".into()));
        assert_eq!(row["target"]["at_least"], 5e6);
    }

    #[test]
    fn bench_measures_and_does_not_check() {
        let mut command = Command::new(env!("CARGO_BIN_EXE_k2k-gpu"));
        let output = command.args(["bench", "--emulated", "--only", "round trip, host", "--only", "layout"]).output();
        let output = output.unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{out}{err}");
        assert!(out.contains("round trip, host and device") && !out.contains("layout, as the device"), "{out}");
    }

    #[test]
    fn a_file_that_cannot_be_written_is_an_error_before_anything_is_run() {
        let (code, out, err) = check(&["--emulated", "--only", "layout", "--json", "/no such folder/results.json"]);
        assert_eq!((code, out.as_str()), (Some(2), ""));
        assert!(err.contains("cannot write /no such folder/results.json: "), "{err}");
    }

    #[test]
    fn it_ends_when_time_is_up_and_says_what_it_was_at() {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("results.json");
        let name = "fabric, all accounted for";
        let arguments = ["--emulated", "--only", name, "--messages", "100000000", "--limit", "3"];
        let (code, out, err) = check(&[&arguments[..], &["--json", file.to_str().unwrap()]].concat());
        assert_eq!(code, Some(4), "{out}{err}");
        assert!(out.contains("time is up after 3 s") && out.contains(&format!("it has been at: {name}")), "{out}");
        assert!(out.contains("kernel source (k2k_role, block 0) is at work"), "{out}");
        assert_eq!(json(&folder)["unfinished"][0], format!("long check: {name}"));
    }
}
