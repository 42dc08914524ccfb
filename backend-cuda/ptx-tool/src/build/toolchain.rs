//! Finding a compiler that can compile for the device: one that has the sources of `core`.

use super::BuildError;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The oldest compiler whose device code this tool was tried with: minor version of Rust 1.
const OLDEST_MINOR: u32 = 95;

/// A compiler and its cargo, with the sources of `core`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    /// The compiler.
    pub rustc: PathBuf,
    /// Its cargo.
    pub cargo: PathBuf,
    /// Where the compiler's own files lie.
    pub sysroot: PathBuf,
    /// Release, such as `1.96.0`.
    pub release: String,
    /// Release of LLVM inside it, such as `22.1.8`.
    pub llvm: String,
}

impl Toolchain {
    /// The first usable toolchain: the one named, the one that rustup selects in `folder`, any other of rustup's, the
    /// distribution's.
    ///
    /// # Errors
    /// [`BuildError::BadToolchain`] if one is named and will not do, [`BuildError::NoToolchain`] if none is found.
    pub fn find(folder: &Path, rustc: Option<&Path>, cargo: Option<&Path>) -> Result<Self, BuildError> {
        if let Some(rustc) = rustc {
            let beside = rustc.with_file_name("cargo");
            let cargo = cargo.map_or(if beside.is_file() { beside } else { "cargo".into() }, Path::to_path_buf);
            return Self::probe(rustc, &cargo)
                .map_err(|why| BuildError::BadToolchain { path: rustc.to_path_buf(), why });
        }
        let mut tried = Vec::new();
        for (rustc, cargo) in candidates(folder) {
            match Self::probe(&rustc, &cargo) {
                Ok(found) => return Ok(found),
                Err(why) => tried.push(format!("{} ({why})", rustc.display())),
            }
        }
        Err(BuildError::NoToolchain { tried })
    }

    /// Looks at one compiler.
    fn probe(rustc: &Path, cargo: &Path) -> Result<Self, String> {
        let version = output(Command::new(rustc).arg("-vV")).ok_or("it does not run")?;
        let field = |name: &str| {
            let line = version.lines().find_map(|line| line.strip_prefix(name));
            line.map(|value| value.trim().to_owned()).ok_or(format!("`rustc -vV` has no line `{name}`"))
        };
        let release = field("release:")?;
        let llvm = field("LLVM version:")?;
        let minor = release.split('.').nth(1).and_then(|minor| minor.parse::<u32>().ok());
        if minor.is_none_or(|minor| minor < OLDEST_MINOR) {
            return Err(format!("version {release}; 1.{OLDEST_MINOR} or later is needed"));
        }
        let sysroot = output(Command::new(rustc).args(["--print", "sysroot"])).ok_or("it names no sysroot")?;
        let sysroot = PathBuf::from(sysroot.trim());
        if !sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").is_file() {
            return Err("no sources of `core`".to_owned());
        }
        output(Command::new(cargo).arg("-V")).ok_or(format!("no cargo: {} does not run", cargo.display()))?;
        Ok(Self { rustc: rustc.to_path_buf(), cargo: cargo.to_path_buf(), sysroot, release, llvm })
    }

    /// The processors that this compiler knows, from Volta (`sm_70`) on: older ones have no memory model.
    pub(super) fn archs(&self) -> Vec<String> {
        let list = self.print("target-cpus");
        let names = list.split_whitespace().filter(|word| word.starts_with("sm_"));
        let mut known: Vec<String> =
            names.filter(|name| arch_number(name).is_some_and(|number| number >= 70)).map(str::to_owned).collect();
        known.sort_by_key(|name| (arch_number(name), name.len()));
        known
    }

    /// The versions of PTX that this compiler knows, such as `7.8`.
    pub(super) fn ptx_versions(&self) -> Vec<String> {
        let list = self.print("target-features");
        let digits = list
            .split_whitespace()
            .filter_map(|word| word.strip_prefix("ptx"))
            .filter(|rest| rest.len() == 2 && rest.bytes().all(|byte| byte.is_ascii_digit()));
        digits.map(|digits| format!("{}.{}", &digits[..1], &digits[1..])).collect()
    }

    fn print(&self, what: &str) -> String {
        let mut command = Command::new(&self.rustc);
        command.args(["--print", what, "--target", super::TARGET]).env("RUSTC_BOOTSTRAP", "1");
        output(&mut command).unwrap_or_default()
    }
}

/// The number in `sm_90a`.
pub(super) fn arch_number(name: &str) -> Option<u32> {
    name.strip_prefix("sm_")?.trim_end_matches(|c: char| c.is_ascii_lowercase()).parse().ok()
}

/// Compilers to look at, best first, each with its cargo.
fn candidates(folder: &Path) -> Vec<(PathBuf, PathBuf)> {
    let mut found = Vec::new();
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let rustup = |args: &[&str]| output(Command::new("rustup").args(args).current_dir(folder));
    let mut add = |toolchain: Option<&str>| {
        let which = |tool: &str| {
            let mut args = vec!["which", tool];
            args.extend(toolchain.iter().flat_map(|name| ["--toolchain", name]));
            rustup(&args).map(|path| PathBuf::from(path.trim()))
        };
        if let (Some(rustc), Some(cargo)) = (which("rustc"), which("cargo"))
            && !found.contains(&(rustc.clone(), cargo.clone()))
        {
            found.push((rustc, cargo));
        }
    };
    add(None);
    for name in rustup(&["toolchain", "list"]).unwrap_or_default().lines() {
        add(name.split_whitespace().next());
    }
    for folder in ["/usr/bin", "/usr/local/bin"] {
        let rustc = Path::new(folder).join("rustc");
        if rustc.is_file() {
            found.push((rustc.clone(), rustc.with_file_name("cargo")));
        }
    }
    if found.is_empty() {
        // Neither rustup nor a distribution's: whatever the path offers.
        found.push(("rustc".into(), "cargo".into()));
    }
    found
}

/// What a program prints, if it succeeds.
fn output(command: &mut Command) -> Option<String> {
    // A toolchain chosen for the caller, or a wrapper, must not answer for another one.
    command.env_remove("RUSTUP_TOOLCHAIN");
    let output = command.output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
