//! Compiles a device crate to PTX that is the same on every machine.
//!
//! The recipe needs nothing but a compiler with the sources of `core`: no CUDA, no bitcode linker. A `staticlib` for
//! `nvptx64-nvidia-cuda`, optimised as a whole (`lto = "fat"`, one codegen unit) and emitted as assembly, is one PTX
//! module with everything in it.
//!
//! The file depends on the sources, the processor, the features and the release of the compiler; not on the folder, the
//! user, cargo's caches or who built the compiler (see [`rustc_wrapper`]). Its first lines say what it was made from.
//!
//! [`build_with_nvvm`] takes rustc's IR instead and has NVIDIA's libNVVM make the PTX: a second compiler for the same
//! source.

mod error;
mod nvvm;
mod toolchain;
mod wrapper;

pub use error::BuildError;
pub use nvvm::{NVVM_ARCH, NVVM_INSTALL, Nvvm, NvvmError};
pub use toolchain::Toolchain;
pub use wrapper::rustc_wrapper;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The device target.
pub const TARGET: &str = "nvptx64-nvidia-cuda";

/// What brings a compiler with the sources of `core`: for whom, and the command. This list is printed wherever such a
/// compiler is asked for.
pub const TOOLCHAINS: [(&str, &str); 3] = [
    ("rustup", "rustup component add rust-src"),
    ("Debian 12", "apt-get install rustc-web cargo-web rust-web-src"),
    ("Debian 13, if its rustc is 1.95 or later", "apt-get install rustc cargo rust-src"),
];

/// [`TOOLCHAINS`] in one line.
#[must_use]
pub fn toolchains() -> String {
    TOOLCHAINS.map(|(whom, command)| format!("`{command}` ({whom})")).join("; ")
}

/// What every device module can be loaded on: Volta, the first with a memory model.
pub const DEFAULT_ARCH: &str = "sm_70";

/// The version of PTX for processors that do not need a higher one: drivers since CUDA 11.0 (2020) read it.
pub const DEFAULT_PTX_VERSION: &str = "7.0";

/// Functions that the driver brings.
const DRIVER_FUNCTIONS: [&str; 4] = ["vprintf", "malloc", "free", "__assertfail"];

/// What to build, and how.
#[derive(Clone, Debug)]
pub struct BuildOptions {
    /// The crate's `Cargo.toml`.
    pub manifest_path: PathBuf,
    /// The oldest processor the module is to run on, such as `sm_70`.
    pub arch: String,
    /// The version of PTX, such as `7.8`, which decides what inline assembly may use and how old a driver may be;
    /// `None` is [`DEFAULT_PTX_VERSION`], or the lowest that `arch` allows, whichever is higher.
    pub ptx_version: Option<String>,
    /// The crate's features to enable.
    pub features: Vec<String>,
    /// Whether to leave out the crate's default features.
    pub no_default_features: bool,
    /// Further arguments for cargo, such as `--locked`.
    pub cargo_args: Vec<OsString>,
    /// A program that calls [`rustc_wrapper`] first: usually [`std::env::current_exe`].
    pub wrapper: PathBuf,
    /// Where intermediate files go; `None` is `k2k-ptx` in the target folder of cargo.
    pub target_dir: Option<PathBuf>,
}

impl BuildOptions {
    /// The crate of `manifest_path`, for [`DEFAULT_ARCH`], with its default features.
    #[must_use]
    pub fn new(manifest_path: impl Into<PathBuf>, wrapper: impl Into<PathBuf>) -> Self {
        Self {
            manifest_path: manifest_path.into(),
            arch: DEFAULT_ARCH.to_owned(),
            ptx_version: None,
            features: Vec::new(),
            no_default_features: false,
            cargo_args: Vec::new(),
            wrapper: wrapper.into(),
            target_dir: None,
        }
    }
}

/// Compiles a crate and returns its PTX, header included.
///
/// Cargo's messages go to the standard error.
///
/// # Errors
/// Each reason is a variant of [`BuildError`].
pub fn build(options: &BuildOptions, toolchain: &Toolchain) -> Result<String, BuildError> {
    let (package, body) = compile(options, toolchain, Emit::Assembly)?;
    check(&body, &package, toolchain)?;
    Ok(with_header(&body, &package, options, &by(toolchain)))
}

/// As [`build`], with NVIDIA's own optimiser and code generator behind rustc. For [`NVVM_ARCH`] or later; the version of
/// PTX is the library's.
///
/// # Errors
/// As for [`build`], and [`BuildError::Nvvm`].
pub fn build_with_nvvm(options: &BuildOptions, toolchain: &Toolchain, nvvm: &Nvvm) -> Result<String, BuildError> {
    nvvm.reads(&options.arch, &toolchain.llvm).map_err(BuildError::Nvvm)?;
    let (package, ir) = compile(options, toolchain, Emit::Ir)?;
    let body = nvvm.compile(&ir, &options.arch).map_err(BuildError::Nvvm)?;
    check(&body, &package, toolchain)?;
    let by = format!("{}, libNVVM {}", by(toolchain), nvvm::release(&body));
    Ok(with_header(&body, &package, options, &by))
}

/// What rustc writes: how it says so, and how the file's name ends.
#[derive(Clone, Copy)]
enum Emit {
    Assembly,
    Ir,
}

impl Emit {
    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Assembly => ("asm", "s"),
            Self::Ir => ("llvm-ir", "ll"),
        }
    }
}

/// Compiles a crate, and returns what rustc wrote.
fn compile(options: &BuildOptions, toolchain: &Toolchain, emit: Emit) -> Result<(Package, String), BuildError> {
    let manifest = manifest(&options.manifest_path)?;
    let known = toolchain.archs();
    if !known.contains(&options.arch) {
        return Err(BuildError::UnknownArch { arch: options.arch.clone(), known });
    }
    // Cargo does not look into a wrapper: what another one compiled must not count as done.
    let mut flags =
        vec![format!("-Ctarget-cpu={}", options.arch), format!("--cfg=k2k_ptx_wrapper=\"{}\"", wrapper::EDITION)];
    let arch_number = toolchain::arch_number(&options.arch);
    // Processors after sm_80 came with a higher version, which the compiler knows.
    let default = arch_number.is_some_and(|number| number <= 80).then_some(DEFAULT_PTX_VERSION);
    if let Some(version) = options.ptx_version.as_deref().or(default) {
        let known = toolchain.ptx_versions();
        if !known.iter().any(|it| it == version) {
            return Err(BuildError::UnknownPtxVersion { version: version.to_owned(), known });
        }
        flags.push(format!("-Ctarget-feature=+ptx{}", version.replace('.', "")));
    }
    let package = Package::read(&manifest, toolchain)?;
    let target_dir = match &options.target_dir {
        Some(folder) => absolute(folder)?,
        None => package.target_dir.join("k2k-ptx"),
    };
    for (folder, name) in [(home("CARGO_HOME", ".cargo"), "/cargo"), (Some(toolchain.sysroot.clone()), "/rust")] {
        flags.extend(folder.map(|folder| format!("--remap-path-prefix={}={name}", folder.display())));
    }

    // One file for each way to build the package: a build that finds nothing to do must find its output, too.
    let key = format!("{} {flags:?} {:?} {}", manifest.display(), options.features, options.no_default_features);
    let (emit, end) = emit.names();
    let output = target_dir.join(format!("{}-{}-{:016x}.{end}", package.name, options.arch, fnv1a(key.as_bytes())));
    fs::create_dir_all(&target_dir).map_err(system(&target_dir, "create"))?;
    if !output.is_file() {
        forget(&target_dir, &package.name);
    }
    let mut command = Command::new(&toolchain.cargo);
    command
        .args(["rustc", "--lib", "--release", "--crate-type", "staticlib", "-Zbuild-std=core", "--target", TARGET])
        .arg("--manifest-path")
        .arg(&manifest)
        .arg("--target-dir")
        .arg(&target_dir);
    if !options.features.is_empty() {
        command.arg("--features").arg(options.features.join(","));
    }
    if options.no_default_features {
        command.arg("--no-default-features");
    }
    command.args(&options.cargo_args).arg("--").arg(format!("--emit={emit}={}", output.display()));
    command
        .env("RUSTC", &toolchain.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTC_WRAPPER", absolute(&options.wrapper)?)
        .env(wrapper::VARIABLE, &toolchain.release)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env("CARGO_INCREMENTAL", "0");
    for (name, value) in [
        ("LTO", "fat"),
        ("CODEGEN_UNITS", "1"),
        ("PANIC", "abort"),
        ("OPT_LEVEL", "3"),
        ("DEBUG", "0"),
        ("DEBUG_ASSERTIONS", "false"),
        ("OVERFLOW_CHECKS", "false"),
    ] {
        command.env(format!("CARGO_PROFILE_RELEASE_{name}"), value);
    }
    let status = command.status().map_err(system(&toolchain.cargo, "run"))?;
    if !status.success() {
        return Err(BuildError::Cargo { command: format!("{command:?}") });
    }
    let text = fs::read_to_string(&output).map_err(system(&output, "read"))?;
    Ok((package, text))
}

/// The absolute path of a manifest. Needs no compiler, so that it can come before one is looked for.
///
/// # Errors
/// [`BuildError::Manifest`] if it is no file.
pub fn manifest(path: &Path) -> Result<PathBuf, BuildError> {
    let manifest = absolute(path)?;
    let why = match () {
        () if manifest.is_file() => return Ok(manifest),
        () if manifest.is_dir() => "this is a folder; --manifest-path takes its Cargo.toml",
        () => "no such file; --manifest-path takes the device crate's Cargo.toml",
    };
    Err(BuildError::Manifest { path: path.to_path_buf(), why: why.to_owned() })
}

/// What cargo says about the package.
struct Package {
    name: String,
    version: String,
    /// Root of its workspace.
    root: PathBuf,
    target_dir: PathBuf,
}

impl Package {
    fn read(manifest: &Path, toolchain: &Toolchain) -> Result<Self, BuildError> {
        let cargo = |args: &[&str]| {
            let mut command = Command::new(&toolchain.cargo);
            command.args(args).arg("--manifest-path").arg(manifest).env("RUSTC", &toolchain.rustc);
            let output = command.output().map_err(system(&toolchain.cargo, "run"))?;
            if output.status.success() {
                return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
            }
            let why = String::from_utf8_lossy(&output.stderr);
            let why = why.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
            Err(BuildError::Manifest { path: manifest.to_path_buf(), why })
        };
        let root = PathBuf::from(cargo(&["locate-project", "--workspace", "--message-format", "plain"])?);
        let root = root.parent().unwrap_or(Path::new("/")).to_path_buf();
        // The one command that needs no lock file. Its JSON begins with the two, and neither can hold a quotation mark.
        let description = cargo(&["read-manifest"])?;
        let field = |name: &str| {
            let (_, rest) = description.split_once(&format!("\"{name}\":\""))?;
            rest.split('"').next().map(str::to_owned)
        };
        let (Some(name), Some(version)) = (field("name"), field("version")) else {
            let why = "cargo describes a package without name and version".to_owned();
            return Err(BuildError::Manifest { path: manifest.to_path_buf(), why });
        };
        let target_dir = match env::var_os("CARGO_TARGET_DIR") {
            Some(folder) => absolute(Path::new(&folder))?,
            None => root.join("target"),
        };
        Ok(Self { name, version, root, target_dir })
    }
}

/// Makes cargo build the package again: its fingerprints go.
fn forget(target_dir: &Path, package: &str) {
    let Ok(entries) = fs::read_dir(target_dir.join(TARGET).join("release/.fingerprint")) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.rsplit_once('-').is_some_and(|(name, _)| name == package) {
            // If it cannot be removed, reading the output fails, and that is said.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether a driver would load it, and another machine would have made the same.
fn check(body: &str, package: &Package, toolchain: &Toolchain) -> Result<(), BuildError> {
    if !body.lines().any(|line| line.contains(".entry ")) {
        return Err(BuildError::NoEntries { package: package.name.clone() });
    }
    let external = body.lines().filter_map(|line| line.trim_start().strip_prefix(".extern .func"));
    let functions: Vec<String> = external
        .map(|rest| rest.trim_start())
        // `(.param .b32 func_retval0) NAME`, or `NAME` alone.
        .map(|rest| if rest.starts_with('(') { rest.split_once(')').map_or(rest, |(_, rest)| rest) } else { rest })
        .filter_map(|rest| {
            rest.split(|c: char| c.is_whitespace() || c == '(' || c == ';').find(|word| !word.is_empty())
        })
        .filter(|name| !DRIVER_FUNCTIONS.contains(name))
        .map(str::to_owned)
        .collect();
    if !functions.is_empty() {
        return Err(BuildError::Undefined { functions });
    }
    let local = [Some(package.root.clone()), home("CARGO_HOME", ".cargo"), Some(toolchain.sysroot.clone())];
    // Text is emitted as numbers in data, so that is where a path hides.
    for folder in local.into_iter().flatten().filter(|folder| folder.components().count() > 2) {
        let path = folder.display().to_string();
        let bytes = path.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ");
        if let Some(line) = body.lines().position(|line| line.contains(&bytes) || line.contains(&path)) {
            return Err(BuildError::LocalPath { line: line + 1, path });
        }
    }
    Ok(())
}

/// Who compiled it. Builds of one release differ in LLVM's patches, and yet write the same PTX.
fn by(toolchain: &Toolchain) -> String {
    format!("rustc {}, LLVM {}", toolchain.release, toolchain.llvm.split('.').next().unwrap_or(""))
}

/// The file: what it was made from, and the module.
fn with_header(body: &str, package: &Package, options: &BuildOptions, by: &str) -> String {
    let Package { name, version, .. } = package;
    let mut features = options.features.clone();
    features.sort_unstable();
    if options.no_default_features {
        features.insert(0, "no default features".to_owned());
    }
    let features = if features.is_empty() { String::new() } else { format!(" ({})", features.join(", ")) };
    let body = body.trim_end();
    format!(
        "// {name} {version}{features} for {}, by {by}.\n\
         // Made by `k2k-ptx build`, not by hand. What follows has the hash {:016x} (FNV-1a).\n{body}\n",
        options.arch,
        fnv1a(body.as_bytes()),
    )
}

/// Whether the file is as [`build`] left it: `None` if it has no header, else whether the hash there is the body's.
#[must_use]
pub fn is_untouched(ptx: &str) -> Option<bool> {
    let (first, rest) = ptx.split_once('\n')?;
    let (second, body) = rest.split_once('\n')?;
    let (_, hash) = second.split_once("has the hash ")?;
    let hash = u64::from_str_radix(hash.split(' ').next()?, 16).ok()?;
    first.starts_with("// ").then(|| hash == fnv1a(body.trim_end().as_bytes()))
}

/// Fowler, Noll and Vo's hash, 64 bits, variant 1a: it only has to be the same everywhere.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn home(variable: &str, folder: &str) -> Option<PathBuf> {
    env::var_os(variable).map(PathBuf::from).or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(folder)))
}

fn absolute(path: &Path) -> Result<PathBuf, BuildError> {
    std::path::absolute(path).map_err(system(path, "find"))
}

fn system(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> BuildError {
    let path = path.to_path_buf();
    move |why| BuildError::System { path, action, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package() -> (Package, Toolchain) {
        let package = Package {
            name: "p".to_owned(),
            version: "1.0.0".to_owned(),
            root: "/home/someone/p".into(),
            target_dir: "/home/someone/p/target".into(),
        };
        let toolchain = Toolchain {
            rustc: "rustc".into(),
            cargo: "cargo".into(),
            sysroot: "/home/someone/rust".into(),
            release: "1.96.0".to_owned(),
            llvm: "22.1.8".to_owned(),
        };
        (package, toolchain)
    }

    fn checked(body: &str) -> Result<(), BuildError> {
        let (package, toolchain) = package();
        check(body, &package, &toolchain)
    }

    #[test]
    fn module_without_entry_is_refused() {
        assert!(matches!(checked(".func f()\n{\nret;\n}"), Err(BuildError::NoEntries { .. })));
    }

    #[test]
    fn function_that_no_one_defines_is_named() {
        let body = ".extern .func  (.param .b32 func_retval0) memcmp\n(\n)\n;\n.extern .func vprintf\n(\n)\n;\n.visible .entry e()\n";
        let Err(BuildError::Undefined { functions }) = checked(body) else { panic!() };
        assert_eq!(functions, ["memcmp"]);
    }

    #[test]
    fn path_of_this_machine_is_found_among_the_numbers() {
        let bytes = b"/home/someone/p/src".map(|byte| byte.to_string()).join(", ");
        let body = format!(".visible .entry e()\n.global .align 1 .b8 name[19] = {{{bytes}}};\n");
        assert!(matches!(checked(&body), Err(BuildError::LocalPath { line: 2, .. })));
    }

    #[test]
    fn header_knows_whether_the_body_was_touched() {
        let (package, toolchain) = package();
        let file = with_header("\n.entry e()\n{\nret;\n}\n\n", &package, &BuildOptions::new("", ""), &by(&toolchain));
        assert!(file.starts_with("// p 1.0.0 for sm_70, by rustc 1.96.0, LLVM 22.\n"));
        assert_eq!(is_untouched(&file), Some(true));
        assert_eq!(is_untouched(&file.replace("ret;", "trap;")), Some(false));
        assert_eq!(is_untouched(".version 7.0\n.entry e()\n{}"), None);
    }
}
