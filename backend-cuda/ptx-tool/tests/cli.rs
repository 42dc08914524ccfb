//! The command: what it prints, and how it ends.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_k2k-ptx")).args(args).output().unwrap()
}

fn texts(output: &Output) -> (String, String) {
    (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn good() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/good/scopes.ptx")
}

fn bad(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad").join(name).display().to_string()
}

/// A copy of the good file in a folder of its own, so that a contract can be written beside it.
fn copied() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("scopes.ptx");
    fs::copy(good(), &file).unwrap();
    (folder, file)
}

#[test]
fn findings_have_file_line_rule_and_end_with_1() {
    let file = bad("bare-atomic.ptx");
    let output = run(&["audit", &file]);
    let (out, err) = texts(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(out.starts_with(&format!("{file}:8: [bare-atomic] e: `atom.add.u64 %rd2, [%rd1], 1;`: ")), "{out}");
    assert!(err.contains("no contract") && err.contains("4 findings"), "{err}");
}

#[test]
fn contract_is_written_kept_and_held_to() {
    let (_folder, file) = copied();
    let name = file.display().to_string();
    assert_eq!(run(&["audit", &name, "--require-contract"]).status.code(), Some(2));
    assert_eq!(run(&["audit", &name, "--bless", "--hot", "within_the_gpu"]).status.code(), Some(0));
    let contract = fs::read_to_string(file.with_extension("audit")).unwrap();
    assert!(
        contract.contains("entry within_the_gpu hot releases-per-loop=0\n    atom.acq_rel.gpu.cas 1\n"),
        "{contract}"
    );
    assert_eq!(run(&["audit", &name, "--require-contract"]).status.code(), Some(0));
    // What was written by hand stays.
    assert_eq!(run(&["audit", &name, "--bless"]).status.code(), Some(0));
    assert_eq!(fs::read_to_string(file.with_extension("audit")).unwrap(), contract);

    let weaker = fs::read_to_string(&file).unwrap().replacen("ld.acquire.sys", "ld.relaxed.sys", 1);
    fs::write(&file, weaker).unwrap();
    let output = run(&["audit", &name]);
    assert_eq!(output.status.code(), Some(1));
    let (out, _) = texts(&output);
    assert!(out.contains("[contract] with_the_host: `ld.acquire.sys`: 0 instead of the 1"), "{out}");
    assert!(out.contains("[contract] with_the_host: `ld.relaxed.sys`: 2 instead of the 1"), "{out}");
}

#[test]
fn every_mutation_is_found() {
    let fabric = Path::new(env!("CARGO_MANIFEST_DIR")).join("../executor/tests/fixtures/kernels.ptx");
    for file in [good(), fabric] {
        let output = run(&["mutate", &file.display().to_string()]);
        let (out, _) = texts(&output);
        assert_eq!(output.status.code(), Some(0), "{out}");
        let mut words = out.rsplit(": ").next().unwrap().split(' ');
        let (found, of) = (words.next().unwrap(), words.nth(1).unwrap());
        assert!(found == of && found.parse::<usize>().unwrap() > 50, "{out}");
    }
}

#[test]
fn missing_assembler_is_neither_passed_nor_failed() {
    let (folder, file) = copied();
    let name = file.display().to_string();
    let without_tools = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_k2k-ptx"));
        command.args(args).env("PATH", folder.path()).env_remove("CUDA_HOME").output().unwrap()
    };
    let output = without_tools(&["audit", &name, "--sass", "sm_90"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(texts(&output).1.contains("pip install nvidia-cuda-nvcc"));
    let output = without_tools(&["audit", &name, "--sass", "sm_90", "--require-sass"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn bad_input_is_named_in_one_line_and_ends_with_2() {
    let not_ptx = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml").display().to_string();
    for (args, part) in [
        (&["audit", "/nowhere.ptx"][..], "cannot read /nowhere.ptx"),
        (&["audit", &not_ptx], "not PTX"),
        (&["mutate", &not_ptx], "not PTX"),
        (&["audit", &good().display().to_string(), "--hot", "x"], "no entry point x; it has within_the_gpu, "),
        (&["audit", &good().display().to_string(), "--contract", &not_ptx], "line 1: the first line is `entry NAME`"),
        (&["build", "--toolchain-rustc", "/nowhere/rustc"], "/nowhere/rustc cannot compile device code"),
        (&["build", "--manifest-path", &not_ptx, "--nvvm=/nowhere/x.so"], "/nowhere/x.so is no usable libNVVM: "),
        (&["audit", &good().display().to_string(), "--sass", "sm_90", "--ptxas", "/nowhere/ptxas"], "/nowhere/ptxas"),
        // Before a compiler is looked for.
        (
            &["build", "--manifest-path", "nothere/Cargo.toml"],
            "nothere/Cargo.toml: no such file; --manifest-path takes",
        ),
        (&["build", "--manifest-path", "/"], "/: this is a folder; --manifest-path takes its Cargo.toml"),
        (&["build", "--out", "/nowhere/x.ptx"], "cannot write /nowhere/x.ptx: /nowhere is no folder"),
        (&["build", "--out", "/"], "cannot write /: this is a folder"),
    ] {
        let output = run(args);
        let (_, err) = texts(&output);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {err}");
        assert!(
            err.starts_with("error: ") && err.contains(part) && err.trim_end().lines().count() == 1,
            "{args:?}: {err}"
        );
    }
}

#[test]
fn build_options_that_will_not_do_end_with_2_and_what_is_out_of_date_with_1() {
    let device = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/device/kernels");
    let (folder, manifest) = (device.display().to_string(), device.join("Cargo.toml").display().to_string());
    if let Err(why) = k2k_ptx::build::Toolchain::find(&device, None, None) {
        eprintln!("skipped: {why}");
        return;
    }
    for (args, part) in [
        (&["--manifest-path", "nope"][..], "nope: no such file; --manifest-path takes the device crate's Cargo.toml"),
        (&["--manifest-path", &folder], "kernels: this is a folder; --manifest-path takes its Cargo.toml"),
        (&["--manifest-path", &manifest, "--arch", "sm_foo"], "knows no processor `sm_foo`"),
    ] {
        let output = run(&[&["build"], args].concat());
        let (_, err) = texts(&output);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {err}");
        assert!(err.contains(part), "{args:?}: {err}");
    }
    // A copy: cargo writes a lock file beside it.
    let copied = tempfile::tempdir().unwrap();
    for file in ["kernels/Cargo.toml", "kernels/src/lib.rs", "words/Cargo.toml", "words/src/lib.rs"] {
        let to = copied.path().join(file);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(device.parent().unwrap().join(file), to).unwrap();
    }
    let manifest = copied.path().join("kernels/Cargo.toml").display().to_string();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli").display().to_string();
    let old = good().display().to_string();
    let output = run(&["build", "--manifest-path", &manifest, "--target-dir", &target, "--check", &old]);
    assert_eq!(output.status.code(), Some(1), "{}", texts(&output).1);
    assert!(texts(&output).1.contains("was made from something else"), "{}", texts(&output).1);
}

#[test]
fn each_command_has_help() {
    for command in ["build", "audit", "mutate"] {
        let output = run(&[command, "--help"]);
        assert!(texts(&output).0.contains("Exit status: 0 "), "{command}");
    }
}

#[test]
fn output_that_nobody_reads_ends_it_quietly_and_a_full_disk_with_one_line() {
    let (bad, good) = (bad("bare-atomic.ptx"), good().display().to_string());
    for args in [&["audit", &bad][..], &["mutate", &good], &["--help"], &["build", "--help"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_k2k-ptx"));
        command.args(args);
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let (unread, says) = {
            let output = command.stdout(writer).output().unwrap();
            (output.status.code(), texts(&output).1)
        };
        assert_eq!(unread, Some(141), "{args:?}: {says}");
        assert!(!says.contains("error"), "{args:?}: {says}");
        let output = command.stdout(File::options().write(true).open("/dev/full").unwrap()).output().unwrap();
        let (_, says) = texts(&output);
        let errors: Vec<&str> = says.lines().filter(|line| line.starts_with("error")).collect();
        assert_eq!(errors, ["error: cannot write to standard output: No space left on device (os error 28)"]);
        let status = if args.contains(&"--help") { 1 } else { 2 };
        assert_eq!(output.status.code(), Some(status), "{args:?}");
    }
}

#[test]
fn a_folder_for_temporary_files_that_is_not_there_is_named() {
    if k2k_ptx::sass::Tools::find().is_err() {
        eprintln!("skipped: no ptxas");
        return;
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_k2k-ptx"));
    let good = good().display().to_string();
    let output = command.args(["audit", &good, "--sass", "sm_90"]).env("TMPDIR", "/no such folder").output().unwrap();
    let (_, err) = texts(&output);
    assert_eq!(output.status.code(), Some(2), "{err}");
    assert!(err.contains("/no such folder") && err.contains("TMPDIR"), "{err}");
}

#[test]
fn one_list_says_what_brings_a_compiler_for_device_code() {
    let (help, _) = texts(&run(&["build", "--help"]));
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let error = k2k_ptx::build::BuildError::NoToolchain { tried: Vec::new() }.to_string();
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    // The package does not hold it.
    let page = fs::read_to_string(page).unwrap_or_else(|_| k2k_ptx::build::toolchains());
    for (whom, command) in k2k_ptx::build::TOOLCHAINS {
        let entry = format!("`{command}` ({whom})");
        for text in [&help, &error, &page] {
            assert!(text.contains(&entry), "{entry} is not in {text}");
        }
    }
}
