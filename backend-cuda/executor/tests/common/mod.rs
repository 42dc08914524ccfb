//! What the executor's tests share: the fixtures and buffers.
#![allow(dead_code, reason = "each test file uses its part")]

use k2k_ptx_executor::{Error, Machine, Module, Options};
use std::sync::OnceLock;

/// The fixtures as PTX.
pub(crate) const PTX: &str = include_str!("../fixtures/kernels.ptx");

/// Instructions after which a test gives up.
pub(crate) const LIMIT: u64 = 5_000_000;

pub(crate) fn module() -> &'static Module {
    static MODULE: OnceLock<Module> = OnceLock::new();
    MODULE.get_or_init(|| Module::parse(PTX).unwrap_or_else(|error| panic!("{error}")))
}

/// A machine with the fixtures.
pub(crate) fn machine(seed: u64) -> Machine {
    let mut machine = Machine::new(seed, Options::default());
    machine.load(module());
    machine
}

/// Device memory that holds these values.
pub(crate) fn buffer<const N: usize>(machine: &mut Machine, name: &str, values: &[[u8; N]]) -> u64 {
    let address = machine.allocate(name, values.len() * N);
    machine.host_write(address, &values.concat()).unwrap();
    address
}

pub(crate) fn words(machine: &mut Machine, name: &str, values: &[u64]) -> u64 {
    buffer(machine, name, &values.iter().map(|v| v.to_le_bytes()).collect::<Vec<_>>())
}

pub(crate) fn halves(machine: &mut Machine, name: &str, values: &[u32]) -> u64 {
    buffer(machine, name, &values.iter().map(|v| v.to_le_bytes()).collect::<Vec<_>>())
}

pub(crate) fn read_words(machine: &mut Machine, address: u64, count: usize) -> Result<Vec<u64>, Error> {
    (0..count as u64).map(|i| machine.host_load(address + 8 * i, 8, k2k_ptx_executor::Order::Weak)).collect()
}

pub(crate) fn read_halves(machine: &mut Machine, address: u64, count: usize) -> Result<Vec<u32>, Error> {
    let load = |i| machine.host_load(address + 4 * i, 4, k2k_ptx_executor::Order::Weak).map(|v| v as u32);
    (0..count as u64).map(load).collect()
}

/// The fixture with one kernel's body changed line by line; the change must apply.
pub(crate) fn mutated(kernel: &str, mut change: impl FnMut(&str) -> Option<String>) -> String {
    let start = PTX.find(&format!(".entry {kernel}(")).expect("a kernel of that name");
    let end = start + PTX[start..].find("\n}\n").expect("an end");
    let mut changed = 0;
    let body: Vec<String> = PTX[start..end]
        .lines()
        .map(|line| match change(line) {
            Some(new) => {
                changed += 1;
                new
            }
            None => line.to_owned(),
        })
        .collect();
    assert!(changed > 0, "nothing to change in {kernel}");
    format!("{}{}{}", &PTX[..start], body.join("\n"), &PTX[end..])
}
