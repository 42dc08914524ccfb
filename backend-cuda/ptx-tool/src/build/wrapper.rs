//! What makes the output the same on every machine: a wrapper around the compiler.
//!
//! Cargo identifies a package by where it lies, and hands rustc a hash of that (`-C metadata`). It ends up in every
//! symbol's name and so in the order of the functions. Cargo runs a wrapper in rustc's place if it is told to
//! (`RUSTC_WRAPPER`); this one replaces the hash by one of the package's name, version and features, and each package's
//! folder by `/NAME-VERSION`. A distribution's name in the compiler's version is in every symbol, too, so the compiler
//! is told its plain release. Crates for the host (build scripts, procedural macros) are left alone.

use super::TARGET;
use std::env;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};

/// Set, to the compiler's release, for the program that cargo runs in rustc's place.
pub(super) const VARIABLE: &str = "K2K_PTX_RUSTC_WRAPPER";

/// One more whenever the wrapper changes what rustc is given.
pub(super) const EDITION: u32 = 2;

/// What rustc takes for its version where it makes names of symbols.
const VERSION_VARIABLE: &str = "RUSTC_FORCE_RUSTC_VERSION";

/// What rustc says about the version of PTX, for each crate again: of no use to anyone here.
const NOISE: &str = "unstable feature specified for `-Ctarget-feature`: `ptx";

/// Acts as cargo's wrapper around rustc, if cargo runs this program as one. [`build`](super::build) makes cargo do so;
/// a program that calls it does this first in `main`, and returns the exit code if there is one.
///
/// ```no_run
/// use std::process::ExitCode;
///
/// fn main() -> ExitCode {
///     if let Some(code) = k2k_ptx::build::rustc_wrapper() {
///         return code;
///     }
///     // ...
///     ExitCode::SUCCESS
/// }
/// ```
#[must_use]
pub fn rustc_wrapper() -> Option<ExitCode> {
    let release = env::var_os(VARIABLE)?;
    let mut args = env::args_os().skip(1);
    let rustc = args.next()?;
    let args: Vec<OsString> = args.collect();
    let mut command = Command::new(&rustc);
    command.env_remove(VARIABLE);
    if is_for_device(&args) {
        let variable = |name| env::var(name).unwrap_or_default();
        let (name, version) = (variable("CARGO_PKG_NAME"), variable("CARGO_PKG_VERSION"));
        command.args(rewrite(args, &name, &version, &variable("CARGO_MANIFEST_DIR"))).env(VERSION_VARIABLE, release);
    } else {
        command.args(args);
    }
    match run(&mut command) {
        Ok(true) => Some(ExitCode::SUCCESS),
        Ok(false) => Some(ExitCode::FAILURE),
        Err(why) => {
            k2k_command::complain("k2k-ptx", format_args!("cannot run {}: {why}", rustc.display()));
            Some(ExitCode::FAILURE)
        }
    }
}

/// Runs rustc, and passes on what it says, line by line: cargo reads along.
fn run(command: &mut Command) -> io::Result<bool> {
    let mut child = command.stderr(Stdio::piped()).spawn()?;
    if let Some(messages) = child.stderr.take() {
        let mut messages = BufReader::new(messages);
        let mut line = Vec::new();
        while messages.read_until(b'\n', &mut line)? > 0 {
            if !String::from_utf8_lossy(&line).contains(NOISE) {
                io::stderr().write_all(&line)?;
            }
            line.clear();
        }
    }
    Ok(child.wait()?.success())
}

fn is_for_device(args: &[OsString]) -> bool {
    let is_compiled = args.iter().any(|arg| arg.to_str().is_some_and(|arg| arg.starts_with("metadata=")));
    is_compiled && args.windows(2).any(|pair| pair[0] == "--target" && pair[1] == TARGET)
}

/// The arguments for rustc, free of where the package lies.
fn rewrite(mut args: Vec<OsString>, name: &str, version: &str, folder: &str) -> Vec<OsString> {
    let Some(metadata) = args.iter().position(|arg| arg.to_str().is_some_and(|arg| arg.starts_with("metadata=")))
    else {
        return args;
    };
    let mut identity = format!("{name} {version}");
    let mut features: Vec<&str> =
        args.iter().filter_map(|arg| arg.to_str()).filter(|arg| arg.starts_with("feature=")).collect();
    features.sort_unstable();
    for feature in features {
        identity.push(' ');
        identity.push_str(feature);
    }
    args[metadata] = format!("metadata={:016x}", super::fnv1a(identity.as_bytes())).into();
    if !folder.is_empty() {
        args.push(format!("--remap-path-prefix={folder}=/{name}-{version}").into());
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(args: &[&str], folder: &str) -> Vec<String> {
        let args = args.iter().map(OsString::from).collect();
        rewrite(args, "ring", "1.2.3", folder).into_iter().map(|arg| arg.into_string().unwrap()).collect()
    }

    #[test]
    fn folder_does_not_count() {
        let args = |hash| ["--cfg", "feature=\"a\"", "-C", hash, "--target", TARGET];
        let (one, two) = (rewritten(&args("metadata=1"), "/x"), rewritten(&args("metadata=2"), "/y/z"));
        assert_eq!(one[..6], two[..6]);
        assert_eq!(two[6], "--remap-path-prefix=/y/z=/ring-1.2.3");
    }

    #[test]
    fn features_count_but_not_their_order() {
        let args = |a, b| ["--cfg", a, "--cfg", b, "-C", "metadata=1", "--target", TARGET];
        let both = rewritten(&args("feature=\"a\"", "feature=\"b\""), "")[5].clone();
        assert_eq!(both, rewritten(&args("feature=\"b\"", "feature=\"a\""), "")[5]);
        assert_ne!(both, rewritten(&args("feature=\"a\"", "feature=\"c\""), "")[5]);
    }

    #[test]
    fn host_crates_are_left_alone() {
        let is_for_device = |args: &[&str]| is_for_device(&args.iter().map(OsString::from).collect::<Vec<_>>());
        assert!(!is_for_device(&["-C", "metadata=1", "--target", "x86_64-unknown-linux-gnu"]));
        assert!(!is_for_device(&["-C", "metadata=1"]));
        assert!(!is_for_device(&["-", "--print=cfg", "--target", TARGET]));
        assert!(is_for_device(&["-C", "metadata=1", "--target", TARGET]));
    }
}
