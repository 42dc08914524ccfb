//! How many PTX instructions a second: `cargo run --release -p k2k-ptx-executor --example speed`.

use k2k_command::{OutputError, say};
use k2k_ptx_executor::{Machine, Module, Options};
use std::process::ExitCode;
use std::time::Instant;

const PTX: &str = include_str!("../tests/fixtures/kernels.ptx");

fn main() -> ExitCode {
    k2k_command::end("speed", 1, run().map(|()| ExitCode::SUCCESS))
}

fn run() -> Result<(), OutputError> {
    let start = Instant::now();
    let module = Module::parse(PTX).expect("the fixtures");
    say!("parse: {} lines in {:.1} ms", PTX.lines().count(), start.elapsed().as_secs_f64() * 1e3)?;
    for races in [false, true] {
        let mut m = Machine::new(1, Options { races, ..Options::default() });
        m.load(&module);
        let ring = m.allocate("ring", 128 + 128 + 4 * 64);
        let out = m.allocate("out", 16);
        m.launch("ring_between_blocks", 2, 1, &[ring.into(), 100_000u64.into(), out.into()]).expect("a launch");
        measure(&mut m, "SPSC ring, 2 blocks", races)?;

        let mut m = Machine::new(1, Options { races, ..Options::default() });
        m.load(&module);
        let out = m.allocate("out", 4 * 1024);
        m.launch("local_array", 8, 128, &[out.into(), 1000u32.into()]).expect("a launch");
        measure(&mut m, "local arrays, 1024 threads", races)?;

        let mut m = Machine::new(1, Options { races, ..Options::default() });
        m.load(&module);
        let (from, out) = (m.allocate("from", 4 * 65536), m.allocate("out", 4 * 64));
        m.launch("reduce", 64, 256, &[from.into(), out.into()]).expect("a launch");
        measure(&mut m, "shared-memory reduction, 16384 threads", races)?;
    }
    Ok(())
}

fn measure(machine: &mut Machine, what: &str, races: bool) -> Result<(), OutputError> {
    let start = Instant::now();
    machine.run(u64::MAX).expect("a run");
    let seconds = start.elapsed().as_secs_f64();
    let (count, rate) = (machine.executed(), machine.executed() as f64 / seconds / 1e6);
    let detector = if races { "with" } else { "without" };
    say!("{what}, {detector} race detection: {count} instructions, {rate:.1} M/s")
}
