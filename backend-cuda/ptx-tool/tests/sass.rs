//! Assembles PTX, which needs NVIDIA's assembler and disassembler. Without them, the tests say so and pass.

use k2k_ptx::audit::Contract;
use k2k_ptx::ptx::Module;
use k2k_ptx::sass::{SassError, Tools, check};
use std::fs;
use std::path::{Path, PathBuf};

const ARCHS: [&str; 4] = ["sm_75", "sm_80", "sm_90", "sm_100"];

fn tools() -> Option<Tools> {
    Tools::find().inspect_err(|why| eprintln!("skipped: {why}")).ok()
}

fn file(path: &str) -> (PathBuf, Module) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let module = Module::parse(&fs::read_to_string(&path).unwrap()).unwrap();
    (path, module)
}

#[test]
fn order_and_scope_reach_the_machine_code() {
    let Some(tools) = tools() else { return };
    let (path, module) = file("tests/good/scopes.ptx");
    let mut contract = Contract::of(&module, None);
    contract.entries.values_mut().for_each(|clause| clause.hot = true);
    for arch in ARCHS {
        let codes = tools.assemble(&path, arch).unwrap();
        assert_eq!(codes.len(), 3);
        assert!(codes.iter().all(|code| code.registers > 0 && code.instructions() > 0), "{codes:#?}");
        assert_eq!(check(&module, Some(&contract), arch, &codes), []);
    }
}

#[test]
fn machine_code_of_weaker_ptx_is_found() {
    let Some(tools) = tools() else { return };
    let (path, module) = file("tests/good/scopes.ptx");
    let text = fs::read_to_string(path).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let weaker = folder.path().join("weaker.ptx");
    for (before, after) in [
        ("ld.acquire.sys.global", "ld.relaxed.sys.global"),
        ("ld.acquire.gpu.global", "ld.relaxed.gpu.global"),
        ("ld.relaxed.gpu.global", "ld.global"),
        ("st.release.sys.global", "st.relaxed.sys.global"),
        ("st.release.gpu.global", "st.release.cta.global"),
        ("st.release.sys.global", "st.release.gpu.global"),
        ("st.relaxed.sys.global", "st.global"),
        ("atom.acq_rel.gpu.global", "atom.relaxed.gpu.global"),
        ("atom.acq_rel.sys.global", "atom.acq_rel.gpu.global"),
        ("fence.acq_rel.gpu", "fence.acq_rel.cta"),
        ("fence.sc.sys", "fence.sc.gpu"),
    ] {
        assert!(text.contains(before), "{before}");
        fs::write(&weaker, text.replacen(before, after, 1)).unwrap();
        for arch in [ARCHS[0], ARCHS[3]] {
            let codes = tools.assemble(&weaker, arch).unwrap();
            assert!(!check(&module, None, arch, &codes).is_empty(), "{arch}: {after} for {before}");
        }
    }
}

#[test]
fn whole_fabric_keeps_its_order() {
    let Some(tools) = tools() else { return };
    let (path, module) = file("../executor/tests/fixtures/kernels.ptx");
    // Compiled for the executor alone, it names a version without all of its instructions.
    let text = fs::read_to_string(path).unwrap().replacen(".version 6.0", ".version 7.0", 1);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kernels.ptx");
    fs::write(&path, text).unwrap();
    let findings = check(&module, None, "sm_90", &tools.assemble(&path, "sm_90").unwrap());
    let lost: Vec<_> = findings.iter().filter(|finding| finding.rule.name() != "sass-spill").collect();
    assert!(lost.is_empty(), "{lost:#?}");
}

#[test]
fn errors_name_what_would_be_right() {
    let Some(tools) = tools() else { return };
    let (path, _) = file("tests/good/scopes.ptx");
    let Err(SassError::UnknownArch { known, .. }) = tools.assemble(&path, "sm_1") else { panic!() };
    assert!(known.iter().any(|name| name == "sm_90"));
    let not_ptx = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let Err(why @ SassError::Refused { .. }) = tools.assemble(&not_ptx, "sm_90") else { panic!() };
    assert!(!why.to_string().contains('\n'), "{why}");
}
