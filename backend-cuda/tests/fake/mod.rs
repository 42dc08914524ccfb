//! A library that answers as the CUDA driver would, built from `cuda.c`.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A folder with the library; `None`, and a word why, if it cannot be built.
pub fn build(flags: &[&str]) -> Option<PathBuf> {
    // Not in the system's folder for temporary files: a `static` has it until the test program ends.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fake-cuda{}", flags.concat()));
    std::fs::create_dir_all(&folder).ok()?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake/cuda.c");
    let library = folder.join("libcuda.so.1");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-pthread", "-Wall", "-o"])
        .args([&library, &source])
        .args(flags)
        .output();
    match built {
        Ok(output) if output.status.success() => {
            std::fs::copy(&library, folder.join("libcuda.so")).ok()?;
            Some(folder)
        }
        Ok(output) => panic!("the fake driver does not compile: {}", String::from_utf8_lossy(&output.stderr)),
        Err(e) => {
            println!("skipped: no C compiler for the fake driver (cc: {e})");
            None
        }
    }
}

pub fn driver() -> Option<&'static Path> {
    static DRIVER: OnceLock<Option<PathBuf>> = OnceLock::new();
    DRIVER.get_or_init(|| build(&[])).as_deref()
}
