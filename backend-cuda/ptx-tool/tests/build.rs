//! Compiles a device crate, which needs a compiler with the sources of `core`. Without one, the tests say so and pass.

use k2k_ptx::audit::{Contract, audit};
use k2k_ptx::build::{
    BuildError, BuildOptions, NVVM_ARCH, Nvvm, NvvmError, Toolchain, build, build_with_nvvm, is_untouched,
};
use k2k_ptx::mutate::mutate;
use k2k_ptx::ptx::Module;
use std::fs;
use std::path::Path;

fn toolchain() -> Option<Toolchain> {
    match Toolchain::find(Path::new("."), None, None) {
        Ok(toolchain) => Some(toolchain),
        Err(why) => {
            eprintln!("skipped: {why}");
            None
        }
    }
}

/// A copy of the device crate and of the package beside it.
fn copy(into: &Path) {
    for file in ["kernels/Cargo.toml", "kernels/src/lib.rs", "words/Cargo.toml", "words/src/lib.rs"] {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/device").join(file);
        let to = into.join(file);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    }
}

/// The crate in that folder. `core` is compiled once for all tests.
fn options(folder: &Path) -> BuildOptions {
    BuildOptions {
        target_dir: Some(Path::new(env!("CARGO_TARGET_TMPDIR")).join("device")),
        ..BuildOptions::new(folder.join("kernels/Cargo.toml"), env!("CARGO_BIN_EXE_k2k-ptx"))
    }
}

#[test]
fn folder_leaves_no_trace() {
    let Some(toolchain) = toolchain() else { return };
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let two = two.path().join("another/depth");
    copy(one.path());
    copy(&two);
    let first = build(&options(one.path()), &toolchain).unwrap();
    assert_eq!(first, build(&options(&two), &toolchain).unwrap());
    assert_eq!(is_untouched(&first), Some(true));
    assert!(first.contains("\n.version 7.0\n.target sm_70\n"));

    // Nothing is left to do, and the file is still there.
    assert_eq!(first, build(&options(one.path()), &toolchain).unwrap());

    // Not even where the code asks for it.
    let with_places = BuildOptions { features: vec!["places".to_owned()], ..options(one.path()) };
    let text = build(&with_places, &toolchain).unwrap();
    assert!(text.starts_with("// kernels 0.1.0 (places) for sm_70"));
    let place = b"/words-0.1.0/src/lib.rs".map(|byte| byte.to_string()).join(", ");
    assert!(text.contains(&place), "{text}");

    // The same file passes the audit, and the audit sees each weakened access.
    let module = Module::parse(&first).unwrap();
    let contract = Contract::of(&module, None);
    assert_eq!(contract.entries["publish"].counts["ld.acquire.sys"], 1);
    assert_eq!(contract.entries["take"].counts["st.release.sys"], 1);
    assert!(audit(&module, Some(&contract)).is_empty());
    let mutations = mutate(&module, &contract);
    assert!(mutations.len() >= 15 && mutations.iter().all(|it| it.found), "{mutations:#?}");
}

#[test]
fn another_optimiser_makes_ptx_of_the_same_crate_that_keeps_its_contract() {
    let Some(toolchain) = toolchain() else { return };
    let nvvm = match Nvvm::find(None) {
        Ok(nvvm) => nvvm,
        Err(why) => return eprintln!("skipped: {why}"),
    };
    let folder = tempfile::tempdir().unwrap();
    copy(folder.path());
    // A folder of its own: another test builds a crate of the same name meanwhile.
    let target_dir = Some(Path::new(env!("CARGO_TARGET_TMPDIR")).join("nvvm"));
    let asm = BuildOptions { features: vec!["asm".to_owned()], target_dir, ..options(folder.path()) };
    let contract = Contract::of(&Module::parse(&build(&asm, &toolchain).unwrap()).unwrap(), None);
    let newer = BuildOptions { arch: NVVM_ARCH.to_owned(), ..asm };
    let text = build_with_nvvm(&newer, &toolchain, &nvvm).unwrap();
    assert!(text.starts_with("// kernels 0.1.0 (asm) for sm_100, by rustc ") && text.contains(", libNVVM 1"), "{text}");
    assert!(text.contains("\n.target sm_100\n") && is_untouched(&text) == Some(true), "{text}");
    let module = Module::parse(&text).unwrap();
    let findings = audit(&module, Some(&contract.for_another_compiler(&module)));
    assert!(findings.is_empty(), "{findings:#?}");

    // Orders of LLVM's own it refuses, and says which.
    let llvm = BuildOptions { features: Vec::new(), ..newer };
    let refused = build_with_nvvm(&llvm, &toolchain, &nvvm).unwrap_err();
    assert!(matches!(refused, BuildError::Nvvm(NvvmError::Refused { step: "verify", .. })), "{refused}");

    // For older processors the library reads what no compiler of today writes, or nothing.
    for arch in ["sm_90", "sm_70"] {
        let older = BuildOptions { arch: arch.to_owned(), ..options(folder.path()) };
        let older = build_with_nvvm(&older, &toolchain, &nvvm).unwrap_err();
        assert!(
            matches!(older, BuildError::Nvvm(NvvmError::OtherLlvm { .. } | NvvmError::UnknownArch { .. })),
            "{older}"
        );
        assert!(older.to_string().contains("--arch sm_100"), "{older}");
    }
}

#[test]
fn wrong_options_are_named() {
    let Some(toolchain) = toolchain() else { return };
    let folder = tempfile::tempdir().unwrap();
    copy(folder.path());
    let arch = BuildOptions { arch: "sm_71".to_owned(), ..options(folder.path()) };
    let Err(BuildError::UnknownArch { known, .. }) = build(&arch, &toolchain) else { panic!() };
    assert!(known.iter().any(|name| name == "sm_90") && !known.iter().any(|name| name == "sm_61"));
    let version = BuildOptions { ptx_version: Some("7".to_owned()), ..options(folder.path()) };
    assert!(matches!(build(&version, &toolchain), Err(BuildError::UnknownPtxVersion { .. })));
    let nowhere = options(&folder.path().join("nowhere"));
    assert!(matches!(build(&nowhere, &toolchain), Err(BuildError::Manifest { .. })));
    fs::write(folder.path().join("kernels/Cargo.toml"), "[package\n").unwrap();
    let Err(BuildError::Manifest { why, .. }) = build(&options(folder.path()), &toolchain) else { panic!() };
    assert!(!why.contains('\n'), "{why}");
}

#[test]
fn compiler_that_will_not_do_is_named() {
    let found = Toolchain::find(Path::new("."), Some(Path::new("/nowhere/rustc")), None);
    let Err(why @ BuildError::BadToolchain { .. }) = found else { panic!() };
    assert_eq!(why.to_string(), "/nowhere/rustc cannot compile device code: it does not run");
}
