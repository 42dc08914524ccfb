//! The PTX that is committed: its memory order and its layout. No device and no device toolchain is
//! needed; whether it was made from this source, `.ci/run ptx` says.

use k2k_cuda::Ptx;
use k2k_kernels::shape::{LAYOUT, LAYOUT_NAMES};
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
    Module::parse(&text("ptx/check.ptx")).unwrap()
}

fn contract() -> Contract {
    Contract::parse(&text("ptx/check.audit")).unwrap()
}

#[test]
fn memory_order_is_that_of_the_contract() {
    let mut findings = audit::audit(&module(), Some(&contract()));
    findings.extend(audit::edited(&text("ptx/check.ptx")));
    let lines: Vec<String> = findings.iter().map(|finding| format!("check.ptx:{finding}")).collect();
    assert!(lines.is_empty(), "{}", lines.join("\n"));
}

#[test]
fn ends_of_rings_are_hot_and_nothing_hot_spills() {
    // The consumer of shards keeps an array, for its own check of what comes, in local memory.
    let hot = |name: &str| {
        let ring = ["k2k_spsc_", "k2k_warp_", "k2k_ticket_", "k2k_flag_", "k2k_pong_", "k2k_sharded_produce_"];
        ring.iter().any(|prefix| name.starts_with(prefix))
    };
    for (name, clause) in contract().entries {
        assert_eq!(clause.hot, hot(&name), "{name}");
        assert!(!clause.hot || (clause.releases_per_loop.is_some() && clause.spill_bytes == 0), "{name}");
    }
}

/// What stands in the PTX as `.b8 NAME[56] = {37, 23, …}`. Zeros at the end are left out.
fn words<const N: usize>(ptx: &str, name: &str) -> [u64; N] {
    let line = ptx.lines().find(|line| line.contains(&format!(" {name}["))).expect("the variable is there");
    let (_, rest) = line.split_once('{').unwrap();
    let bytes = rest.split_once('}').unwrap().0.split(',').map(|byte| byte.trim().parse::<u8>().unwrap());
    let mut all = vec![0; 8 * N];
    for (to, byte) in all.iter_mut().zip(bytes) {
        *to = byte;
    }
    core::array::from_fn(|i| u64::from_le_bytes(all[8 * i..][..8].try_into().unwrap()))
}

#[test]
fn shared_types_lie_there_as_they_lie_here() {
    let device: [u64; LAYOUT.len()] = words(&text("ptx/check.ptx"), "k2k_layout_words");
    let differ = LAYOUT_NAMES.iter().zip(device.iter().zip(LAYOUT)).filter(|(_, (device, host))| **device != *host);
    let differ: Vec<String> =
        differ.map(|(name, (device, host))| format!("{name}: {device:#x} in the PTX, {host:#x} here")).collect();
    assert!(differ.is_empty(), "{}\nwas backend-cuda/ptx/regenerate.sh run?", differ.join("\n"));
}

#[test]
fn layout_in_the_text_is_read() {
    let text = "x\n.visible .global .align 8 .b8 words[16] = {1, 2, 0, 0, 0, 0, 0, 0, 255};\n";
    assert_eq!(words(text, "words"), [0x201, 255]);
}

#[test]
fn each_entry_point_can_be_had_by_itself() {
    let ptx = k2k_gpu::check::ptx();
    assert!(ptx.source_hash().is_some() && ptx.source_hash() != Ptx::library().source_hash());
    for name in ptx.entries() {
        let only = ptx.only(&[name]).unwrap();
        assert_eq!(only.entries(), core::slice::from_ref(name));
        assert!(only.text().len() < ptx.text().len());
    }
}
