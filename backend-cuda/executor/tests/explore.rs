//! Systematic exploration visits every interleaving of a small scenario, and finds what few of them show.

mod common;

use common::{LIMIT, module, read_words, words};
use k2k_ptx_executor::{Arg, Bounds, Error, Machine, Module, Options, explore};

fn ring(machine: &mut Machine) -> Result<(), Error> {
    machine.load(module());
    let ring = machine.allocate("ring", 128 + 128 + 4 * 64);
    let out = words(machine, "out", &[0, 0]);
    let launch = machine.launch("ring_between_blocks", 2, 1, &[ring.into(), 6u64.into(), out.into()])?;
    machine.run(LIMIT)?;
    machine.join(launch);
    assert_eq!(read_words(machine, out, 2)?, [(5..11).sum(), 0]);
    Ok(())
}

#[test]
fn all_interleavings_of_a_ring_with_two_preemptions_are_right() {
    let (runs, all) = explore(Bounds { preemptions: 2, runs: 20_000 }, Options::default(), ring).unwrap();
    assert!(all && runs > 100, "{runs} runs");
}

/// Two threads that each read a word, add one and write it back, atomically but apart.
const LOST_UPDATE: &str = ".version 7.0\n.target sm_70\n.address_size 64\n.visible .entry k(.param .u64 p) {
    .reg .b64 %rd<3>; ld.param.u64 %rd1, [p]; ld.relaxed.sys.global.u64 %rd2, [%rd1]; add.u64 %rd2, %rd2, 1;
    st.relaxed.sys.global.u64 [%rd1], %rd2; ret; }";

#[test]
fn every_outcome_is_visited() {
    let module = Module::parse(LOST_UPDATE).unwrap();
    let outcomes = |preemptions| {
        let mut seen = Vec::new();
        let (runs, all) = explore(Bounds { preemptions, runs: 1000 }, Options::default(), |m| {
            m.load(&module);
            let word = words(m, "word", &[0]);
            let launch = m.launch("k", 3, 1, &[Arg::U64(word)])?;
            m.run(LIMIT)?;
            m.join(launch);
            seen.extend(read_words(m, word, 1)?);
            Ok(())
        })
        .unwrap();
        assert!(all);
        seen.sort_unstable();
        seen.dedup();
        (runs, seen)
    };
    assert_eq!(outcomes(0), (6, vec![3]));
    // One thread is interrupted, and its stale store undoes the work of one other or of both.
    assert_eq!(outcomes(1).1, [1, 2, 3]);
    assert!(outcomes(2).0 > outcomes(1).0);
}
