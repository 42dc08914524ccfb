//! Where NVIDIA's programs and libraries may lie.

use std::env;
use std::path::PathBuf;
use std::process::Command;

/// Folders of CUDA's own.
pub(crate) fn cuda_homes() -> impl Iterator<Item = PathBuf> {
    let named = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(env::var_os).map(PathBuf::from);
    named.chain(["/usr/local/cuda".into()])
}

/// Folders where `python3` looks for packages; none without it.
pub(crate) fn python_packages() -> Vec<PathBuf> {
    let print = "import sys; print('\\n'.join(sys.path))";
    let output = Command::new("python3").args(["-c", print]).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().filter(|line| !line.is_empty()).map(PathBuf::from).collect()
}
