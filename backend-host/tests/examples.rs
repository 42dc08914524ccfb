//! The examples as their users see them: what they leave behind, and what they refuse.

use core::time::Duration;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::Instant;

/// An example's program. `cargo test` builds all examples; with `--test examples` alone, `cargo build --examples` must come first.
fn example(name: &str) -> Command {
    let mut folder = std::env::current_exe().expect("this test program");
    folder.pop();
    folder.pop();
    Command::new(folder.join("examples").join(name))
}

fn says(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The names in shared memory that a game of this process has.
fn names_of(ping: &Child) -> Vec<PathBuf> {
    let prefix = format!("k2k-ping-pong-{}-", ping.id());
    let entries = fs::read_dir("/dev/shm").expect("shared memory").flatten();
    entries.map(|entry| entry.path()).filter(|path| path.to_string_lossy().contains(&prefix)).collect()
}

/// The processes that play the other half of it.
fn others_of(ping: &Child) -> Vec<PathBuf> {
    let name = format!("k2k-ping-pong-{}-", ping.id());
    let entries = fs::read_dir("/proc").expect("procfs").flatten();
    let command = |path: &Path| fs::read_to_string(path.join("cmdline")).unwrap_or_default();
    entries.map(|entry| entry.path()).filter(|path| command(path).contains(&name)).collect()
}

#[test]
fn a_game_that_is_killed_leaves_neither_a_file_nor_a_process() {
    for signal in ["-INT", "-KILL"] {
        let mut ping = example("ping_pong").arg("600").stdout(Stdio::piped()).spawn().expect("the example");
        // Its table begins when it does; the name has gone as soon as the other half plays.
        let mut head = String::new();
        BufReader::new(ping.stdout.take().expect("a pipe")).read_line(&mut head).expect("a table");
        let began = Instant::now();
        while others_of(&ping).is_empty() || !names_of(&ping).is_empty() {
            assert!(began.elapsed() < Duration::from_secs(30), "the game does not begin");
            sleep(Duration::from_millis(1));
        }
        let killed = Command::new("kill").args([signal, &ping.id().to_string()]).status().expect("kill");
        assert!(killed.success());
        ping.wait().expect("a child");
        let began = Instant::now();
        while !others_of(&ping).is_empty() {
            assert!(began.elapsed() < Duration::from_secs(2), "its other half plays on");
            sleep(Duration::from_millis(5));
        }
        assert_eq!(names_of(&ping), [""; 0].map(PathBuf::from));
    }
}

#[test]
fn output_that_nobody_reads_ends_it_quietly_and_a_full_disk_with_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let picture = folder.path().join("out.png").display().to_string();
    for (name, arguments) in
        [("ping_pong", &["0.01"][..]), ("actor", &[]), ("denoise", &["demo", &picture, "--iterations", "1"])]
    {
        let (reader, writer) = io::pipe().expect("a pipe");
        drop(reader);
        let output = example(name).args(arguments).stdout(writer).output().expect("the example");
        assert_eq!(output.status.code(), Some(141), "{name}: {}", says(&output));
        assert!(!says(&output).contains("panicked"), "{name}: {}", says(&output));
        let full = File::options().write(true).open("/dev/full").expect("a device that is always full");
        let output = example(name).args(arguments).stdout(full).output().expect("the example");
        assert_eq!(output.status.code(), Some(1), "{name}: {}", says(&output));
        assert!(says(&output).contains(&format!("{name}: cannot write to standard output: No space")), "{name}");
    }
}

#[test]
fn a_picture_is_not_written_over_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let picture = folder.path().join("picture.png");
    let path = picture.display().to_string();
    let output = example("denoise").args(["demo", &path, "--iterations", "1"]).output().expect("the example");
    assert_eq!(output.status.code(), Some(0), "{}", says(&output));
    let before = fs::read(&picture).expect("a picture");
    let linked = folder.path().join("linked.png");
    std::os::unix::fs::symlink(&picture, &linked).expect("a link");
    for other in [&picture, &linked] {
        let output = example("denoise").args([&picture, other]).output().expect("the example");
        assert_eq!(output.status.code(), Some(1));
        assert!(says(&output).contains("is both IN and OUT: it would be overwritten"), "{}", says(&output));
        assert_eq!(fs::read(&picture).expect("a picture"), before);
    }
}

#[test]
fn numbers_out_of_range_are_refused_with_the_range_also_negative_ones() {
    for (arguments, range) in [
        (["--kernels", "-1"], "1..=255"),
        (["--iterations", "-1"], "0..=4294967295"),
        (["--kappa", "-1"], "kappa"),
        (["--lambda", "-1"], "lambda"),
    ] {
        let output = example("denoise").args(["demo", "/no such folder/x.png"]).args(arguments).output().unwrap();
        assert!(!output.status.success() && says(&output).contains(range), "{arguments:?}: {}", says(&output));
        assert!(!says(&output).contains("unexpected argument"), "{arguments:?}: {}", says(&output));
    }
    let output = example("trouble").arg("-1").output().expect("the example");
    assert_eq!(output.status.code(), Some(2));
    assert!(says(&output).contains("takes no arguments"), "{}", says(&output));
    let output = example("ping_pong").arg("-1").output().expect("the example");
    assert_eq!(output.status.code(), Some(2));
    assert!(says(&output).contains("up to 3600"), "{}", says(&output));
}
