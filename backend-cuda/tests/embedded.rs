//! The PTX that is committed: its memory order. No device and no device toolchain is
//! needed; whether it was made from this source, `.ci/run ptx` says.

use k2k_ptx::audit::{self, Contract};
use k2k_ptx::ptx::Module;
use std::fs;
use std::path::{Path, PathBuf};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn text(name: &str) -> String {
    let path = path(name);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn module() -> Module {
    Module::parse(&text("ptx/k2k.ptx")).unwrap()
}

fn contract() -> Contract {
    Contract::parse(&text("ptx/k2k.audit")).unwrap()
}

#[test]
fn memory_order_is_that_of_the_contract() {
    let mut findings = audit::audit(&module(), Some(&contract()));
    findings.extend(audit::edited(&text("ptx/k2k.ptx")));
    let lines: Vec<String> = findings.iter().map(|finding| format!("k2k.ptx:{finding}")).collect();
    assert!(lines.is_empty(), "{}", lines.join("\n"));
}
