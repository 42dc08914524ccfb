//! What the tests share: compilers of C and C++, and names of files.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use core::time::Duration;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// No test waits longer than this for anything.
pub const GUARD: Duration = Duration::from_secs(60);

/// A name for a fabric that is removed when the test ends.
pub struct Shm(pub String);

impl Shm {
    pub fn new(test: &str) -> Self {
        Self(format!("k2k-capi-{test}-{}", std::process::id()))
    }
}

impl Drop for Shm {
    fn drop(&mut self) {
        let _ = k2k::memory::remove(&self.0);
    }
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where cargo has put the libraries: beside this test program.
pub fn libraries() -> PathBuf {
    let mut folder = std::env::current_exe().expect("this test program");
    folder.pop();
    folder
}

/// The first of these compilers that there is, or that of the environment.
fn compiler(variable: &str, names: &[&str]) -> Option<String> {
    if let Ok(chosen) = std::env::var(variable) {
        return Some(chosen);
    }
    let works = |name: &&&str| {
        Command::new(name).arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    names.iter().find(works).map(|name| (*name).to_owned())
}

/// Compiles a program of the examples, with the shared or the static library; `None`, with words, if there is no compiler
/// for its language. `K2K_CFLAGS` are more flags. Each program is compiled once: a file that is being written to cannot be run.
pub fn compile(source: &str, linked_statically: bool) -> Option<PathBuf> {
    static COMPILED: Mutex<BTreeMap<(String, bool), Option<PathBuf>>> = Mutex::new(BTreeMap::new());
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (source.to_owned(), linked_statically);
    if let Some(program) = compiled.get(&key) {
        return program.clone();
    }
    let program = compile_anew(source, linked_statically);
    compiled.insert(key, program.clone());
    program
}

fn compile_anew(source: &str, linked_statically: bool) -> Option<PathBuf> {
    let is_c = source.ends_with(".c");
    let found =
        if is_c { compiler("CC", &["cc", "gcc", "clang"]) } else { compiler("CXX", &["c++", "g++", "clang++"]) };
    let Some(compiler) = found else {
        println!("skipped: {source} needs a compiler for {}: install gcc or clang", if is_c { "C" } else { "C++" });
        return None;
    };
    let how = if linked_statically { "static" } else { "shared" };
    let name = source.rsplit('/').next().expect("a name").replace('.', "-");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{how}-{}", std::process::id()));
    let folder = libraries();
    let mut command = Command::new(compiler);
    command
        .arg(if is_c { "-std=c11" } else { "-std=c++17" })
        .args(["-D_POSIX_C_SOURCE=200809L", "-O2", "-g", "-Wall", "-Wextra", "-Wpedantic", "-Werror"])
        .args(std::env::var("K2K_CFLAGS").unwrap_or_default().split_whitespace())
        .arg("-I")
        .arg(root().join("include"))
        .arg(root().join(source))
        .arg("-o")
        .arg(&program);
    if linked_statically {
        command.arg(folder.join("libk2k_capi.a")).args(["-lpthread", "-ldl", "-lm"]);
    } else {
        // The library's own name is that of an installed one, which the loader finds beside the program.
        let beside = program.with_extension("lib");
        std::fs::create_dir_all(&beside).expect("a folder");
        std::fs::copy(folder.join("libk2k_capi.so"), beside.join("libk2k.so.0")).expect("the shared library");
        command.arg(beside.join("libk2k.so.0")).arg(format!("-Wl,-rpath,{}", beside.display()));
    }
    let output = command.output().expect("the compiler");
    assert!(output.status.success(), "{source}: {}", String::from_utf8_lossy(&output.stderr));
    Some(program)
}

/// A program that does not outlive its test.
pub struct Program(Option<Child>);

impl Program {
    pub fn start(program: &Path, args: &[&str]) -> Self {
        let child = Command::new(program)
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program that was compiled");
        Self(Some(child))
    }

    /// Waits until it has ended well, and returns what it said.
    pub fn succeed(mut self) -> String {
        let mut child = self.0.take().expect("once");
        let began = Instant::now();
        while child.try_wait().expect("a child").is_none() {
            if began.elapsed() > GUARD {
                let _ = child.kill();
                let output = child.wait_with_output().expect("a child");
                panic!("the program hangs: {output:?}");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let output: Output = child.wait_with_output().expect("a child");
        let (said, complained) =
            (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && complained.is_empty(), "{}: {said}{complained}", output.status);
        said
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
