//! The command `loom-tests/mutations`, as a user calls it, and what the page shows of the models.
#![cfg(not(k2k_loom))]

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Command, Output};

/// The command with the repository for its root.
fn mutations(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_k2k-mutations"));
    command.args(["--root", concat!(env!("CARGO_MANIFEST_DIR"), "/..")]).args(args);
    command
}

fn says(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn output_that_nobody_reads_ends_it_quietly_and_a_full_disk_with_one_line() {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let output = mutations(&["--list"]).stdout(writer).output().unwrap();
    assert_eq!((output.status.code(), says(&output).as_str()), (Some(141), ""));
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = mutations(&["--list"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(says(&output), "mutations: cannot write to standard output: No space left on device (os error 28)\n");
}

#[test]
fn arguments_that_will_not_do_are_named_with_what_would() {
    for (args, part) in [
        (&["--timeout", "0"][..], "--timeout 0: must be a number of seconds from 1 to 86400"),
        (&["--timeout", "-1"], "--timeout -1: must be a number of seconds from 1 to 86400"),
        (&["--timeout"], "--timeout needs a value; usage: "),
        (&["--lost"], "\"--lost\" is no option; usage: "),
    ] {
        let output = mutations(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(says(&output).contains(part), "{args:?}: {}", says(&output));
    }
    let output = mutations(&["--help"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("usage: "));
}

/// The page's example has the floor of the model that it names.
#[test]
fn the_page_shows_a_model_as_it_is() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |file: &str| fs::read_to_string(here.join(file)).unwrap();
    let (page, models) = (read("README.md"), read("tests/loom_spsc.rs"));
    let call = |text: &str| {
        let (_, rest) = text.split_once("model(\"spsc.wrap\", ").expect("the model of the example");
        rest.split_once(',').expect("a floor").0.to_owned()
    };
    assert_eq!(call(&page), call(&models));
}
