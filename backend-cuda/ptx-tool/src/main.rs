//! The command `k2k-ptx`: compiles device crates to PTX and audits it.

#![allow(clippy::std_instead_of_core, reason = "a tool for hosts")]

mod args;

use args::{BuildArgs, Cli, Command};
use clap::Parser;
use k2k_ptx::build::{self, BuildOptions, Toolchain};
use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = build::rustc_wrapper() {
        return code;
    }
    let done = match Cli::parse().command {
        Command::Build(args) => build(args),
    };
    done.unwrap_or_else(|why| {
        eprintln!("error: {why}");
        ExitCode::FAILURE
    })
}

fn build(args: BuildArgs) -> Result<ExitCode, Box<dyn Error>> {
    let folder = args.manifest_path.parent().unwrap_or(Path::new("."));
    let toolchain = Toolchain::find(folder, args.toolchain_rustc.as_deref(), args.toolchain_cargo.as_deref())?;
    let options = BuildOptions {
        manifest_path: args.manifest_path,
        arch: args.arch,
        ptx_version: args.ptx_version,
        features: args.features,
        no_default_features: args.no_default_features,
        cargo_args: args.cargo_args,
        wrapper: std::env::current_exe()?,
        target_dir: args.target_dir,
    };
    if let Some(file) = &args.check {
        let old = read(file)?;
        return Ok(compare(file, &old, &build::build(&options, &toolchain)?));
    }
    let ptx = build::build(&options, &toolchain)?;
    match &args.out {
        Some(file) => {
            fs::write(file, &ptx).map_err(|why| format!("cannot write {}: {why}", file.display()))?;
            let entries = ptx.lines().filter(|line| line.contains(".entry ")).count();
            eprintln!("{}: {entries} entry points, {} lines", file.display(), ptx.lines().count());
        }
        None => std::io::stdout().write_all(ptx.as_bytes())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Says whether the file is what was just built, and if not, where it differs first.
fn compare(file: &Path, old: &str, new: &str) -> ExitCode {
    if old == new {
        eprintln!("{}: up to date", file.display());
        return ExitCode::SUCCESS;
    }
    let (mut old_lines, mut new_lines) = (old.lines(), new.lines());
    let (first_old, first_new) = (old_lines.next().unwrap_or(""), new_lines.next().unwrap_or(""));
    if first_old != first_new {
        eprintln!("error: {} was made from something else:\n  file: {first_old}\n  now:  {first_new}", file.display());
        return ExitCode::FAILURE;
    }
    // The second line is the hash, which differs anyway.
    let differing = old_lines.zip(new_lines).enumerate().skip(1).find(|(_, (old, new))| old != new);
    match differing {
        Some((index, (old, new))) => eprintln!(
            "error: {} is out of date, from line {} on:\n  file: {old}\n  now:  {new}",
            file.display(),
            index + 2
        ),
        None => eprintln!("error: {} is out of date: one is longer", file.display()),
    }
    eprintln!("write it anew with `k2k-ptx build --out {}` and the same options", file.display());
    ExitCode::FAILURE
}

fn read(file: &Path) -> Result<String, String> {
    fs::read_to_string(file).map_err(|why| format!("cannot read {}: {why}", file.display()))
}
