//! The detector accepts what is right over many seeds, and finds each order or scope that is taken away.

mod common;

use common::{LIMIT, machine, mutated, words};
use k2k_ptx_executor::{Error, LaunchConfig, Machine, Module, Options, Order, RaceKind, Scope};

/// Seeds in which a mutation must be found at least once.
const SEEDS: u64 = 20;

fn parsed(ptx: &str) -> Module {
    Module::parse(ptx).unwrap_or_else(|error| panic!("{error}"))
}

fn with(module: &Module, seed: u64) -> Machine {
    let mut machine = Machine::new(seed, Options::default());
    machine.load(module);
    machine
}

fn ping_pong(mut m: Machine) -> Result<(), Error> {
    let memory = words(&mut m, "flag and payload", &[0, 0]);
    m.launch("ping_pong", 2, 1, &[memory.into(), (memory + 8).into(), 10u64.into(), 0u32.into()])?;
    m.run(LIMIT)
}

/// The device is side 0, the host side 1.
fn ping_pong_with_host(mut m: Machine) -> Result<(), Error> {
    let memory = words(&mut m, "flag and payload", &[0, 0]);
    let launch = m.launch("ping_pong", 1, 1, &[memory.into(), (memory + 8).into(), 10u64.into(), 0u32.into()])?;
    let mut round = 0;
    m.run_until(LIMIT, |m| {
        if round < 10 && m.host_load_acquire(memory)? == round * 2 + 1 {
            let payload = m.host_load(memory + 8, 8, Order::Weak)?;
            m.host_store(memory + 8, 8, payload + 1, Order::Weak)?;
            m.host_store_release(memory, round * 2 + 2)?;
            round += 1;
        }
        Ok(m.is_finished(launch))
    })
}

fn ring(mut m: Machine) -> Result<(), Error> {
    let ring = m.allocate("ring", 128 + 128 + 4 * 64);
    let out = words(&mut m, "out", &[0, 0]);
    let launch = m.launch("ring_between_blocks", 2, 1, &[ring.into(), 20u64.into(), out.into()])?;
    m.run(LIMIT)?;
    m.join(launch);
    assert_eq!(common::read_words(&mut m, out, 2)?, [(5..25).sum(), 0]);
    Ok(())
}

fn handed_over(mut m: Machine) -> Result<(), Error> {
    let ring = m.allocate("ring", 128 + 128 + 128);
    let out = words(&mut m, "out", &[0]);
    let launch = m.launch("ring_handed_over", 3, 1, &[ring.into(), 6u64.into(), out.into()])?;
    m.run(LIMIT)?;
    m.join(launch);
    assert_eq!(common::read_words(&mut m, out, 1)?, [2 * (0..6).sum::<u64>()]);
    Ok(())
}

/// How many seeds find a race; any other error is a failure of the test.
fn found(ptx: &str, scenario: impl Fn(Machine) -> Result<(), Error>) -> (u64, Option<RaceKind>) {
    let (module, mut races, mut kind) = (parsed(ptx), 0, None);
    for seed in 0..SEEDS {
        match scenario(with(&module, seed)) {
            Ok(()) => {}
            Err(Error::Race(race)) => {
                races += 1;
                kind = Some(race.kind);
            }
            Err(other) => panic!("{other}"),
        }
    }
    (races, kind)
}

#[test]
fn what_is_right_is_clean() {
    for seed in 0..100 {
        for scenario in [ping_pong, ping_pong_with_host, ring, handed_over] {
            scenario(machine(seed)).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
    }
}

fn replaced(line: &str, from: &str, to: &str) -> Option<String> {
    line.contains(from).then(|| line.replace(from, to))
}

/// Each line of a kernel that holds `from`, one at a time, with `to` instead.
fn one_by_one(kernel: &str, from: &str, to: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    loop {
        let (mut at, mut which) = (0, None);
        let wanted = all.len();
        let count = common::PTX[common::PTX.find(&format!(".entry {kernel}(")).unwrap()..]
            .split("\n}\n")
            .next()
            .map_or(0, |body| body.matches(from).count());
        if wanted == count {
            return all;
        }
        let text = mutated(kernel, |line| {
            let new = replaced(line, from, to)?;
            at += 1;
            (at == wanted + 1).then(|| {
                which = Some(line.trim().to_owned());
                new
            })
        });
        all.push((which.unwrap_or_default(), text));
    }
}

#[test]
fn each_order_and_scope_of_the_ping_pong_matters() {
    let mutations = [
        (".release", ".relaxed"),
        (".acquire", ".relaxed"),
        ("st.release.sys.global", "st.global"),
        ("ld.acquire.sys.global", "ld.global"),
        ("ld.acquire.sys", "ld.acquire.cta"),
        ("st.release.sys", "st.release.cta"),
        ("ld.acquire.sys.global", "ld.volatile.global"),
    ];
    for (from, to) in mutations {
        for (line, text) in one_by_one("ping_pong", from, to) {
            let (races, kind) = found(&text, ping_pong);
            assert!(races > 0, "{from} to {to} was not found: {line}");
            println!("{from} to {to}: {races} of {SEEDS} seeds, {kind:?}: {line}");
        }
    }
}

#[test]
fn each_fence_matters() {
    let fenced = |mut m: Machine| {
        let memory = words(&mut m, "flag and payload", &[0, 0]);
        // An odd number, so that the loop's remainder runs as well.
        m.launch("ping_pong_fenced", 2, 1, &[memory.into(), (memory + 8).into(), 11u64.into()])?;
        m.run(LIMIT)
    };
    for (from, to) in [("fence.acq_rel.sys;", ""), ("fence.acq_rel.sys", "fence.acq_rel.cta")] {
        for (line, text) in one_by_one("ping_pong_fenced", from, to) {
            let (races, _) = found(&text, fenced);
            assert!(races > 0, "{from} to {to} was not found: {line}");
        }
    }
}

#[test]
fn a_scope_without_the_host_is_found_when_the_host_takes_part() {
    for (from, to) in [("st.release.sys", "st.release.gpu"), ("ld.acquire.sys", "ld.acquire.gpu")] {
        for (line, text) in one_by_one("ping_pong", from, to) {
            assert_eq!(found(&text, ping_pong).0, 0, "among threads of one device, .gpu is enough");
            let (races, kind) = found(&text, ping_pong_with_host);
            assert!(races > 0, "{from} to {to} was not found: {line}");
            assert_eq!(kind, Some(RaceKind::NotMorallyStrong));
        }
    }
}

#[test]
fn each_order_of_the_ring_matters() {
    // All of one kind at once: some acquire loads only make sense together (finding the position in a used ring).
    let mutations = [
        ("st.release.sys", "st.relaxed.sys"),
        ("ld.acquire.sys", "ld.relaxed.sys"),
        ("st.release.sys.global", "st.global"),
        ("ld.acquire.sys.global", "ld.global"),
        (".acquire.sys", ".acquire.cta"),
        (".release.sys", ".release.cta"),
    ];
    for (from, to) in mutations {
        let text = mutated("ring_between_blocks", |line| replaced(line, from, to));
        let (races, kind) = found(&text, ring);
        println!("{from} to {to}: {races} of {SEEDS} seeds, {kind:?}");
        assert!(races > 0, "{from} to {to} was not found");
    }
}

/// The device produces; a kernel that plays the host consumes.
fn ring_to_host(mut m: Machine) -> Result<(), Error> {
    let ring = m.allocate("ring", 128 + 128 + 4 * 64);
    let out = words(&mut m, "out", &[0, 0]);
    let host = LaunchConfig { plays_host: true, ..LaunchConfig::new(1, 1) };
    m.launch("ring_produce", 1, 1, &[ring.into(), 5u64.into(), 20u64.into()])?;
    m.launch_with("ring_consume", host, &[ring.into(), 5u64.into(), 20u64.into(), out.into()])?;
    m.run(LIMIT)
}

#[test]
fn each_scope_of_a_ring_to_the_host_matters() {
    for seed in 0..100 {
        ring_to_host(machine(seed)).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
    for kernel in ["ring_produce", "ring_consume"] {
        for (from, to) in [
            ("st.release.sys.global.b64", "st.release.gpu.global.b64"),
            ("ld.acquire.sys.global.b64", "ld.acquire.gpu.global.b64"),
            ("st.release.sys.global.b64", "st.relaxed.sys.global.b64"),
            ("ld.acquire.sys.global.b64", "ld.relaxed.sys.global.b64"),
        ] {
            let text = mutated(kernel, |line| replaced(line, from, to));
            let (races, kind) = found(&text, ring_to_host);
            println!("{kernel}, {from} to {to}: {races} of {SEEDS} seeds, {kind:?}");
            // The host's own side has no narrower scope to lose.
            assert!(races > 0 || (kernel == "ring_consume" && to.contains(".gpu")), "{kernel}, {from} to {to}");
        }
    }
}

#[test]
fn barriers_and_shuffles_are_not_the_same() {
    let reduce = |mut m: Machine| {
        let (from, out) = (common::halves(&mut m, "from", &[1; 64]), common::halves(&mut m, "out", &[0]));
        m.launch("reduce", 1, 64, &[from.into(), out.into()])?;
        m.run(LIMIT)
    };
    for (line, text) in one_by_one("reduce", "bar.sync 0;", "") {
        assert!(found(&text, reduce).0 > 0, "{line}");
    }
    let broadcast = |mut m: Machine| {
        let (cell, out) = (common::halves(&mut m, "cell", &[0]), common::halves(&mut m, "out", &[0; 32]));
        m.launch("warp_broadcast", 1, 32, &[cell.into(), out.into()])?;
        m.run(LIMIT)
    };
    // A vote brings the lanes together, but orders no memory.
    let vote = "{ .reg .pred q; vote.sync.any.pred q, 1, 0xffffffff; }";
    let text = mutated("warp_broadcast", |line| line.contains("bar.warp.sync").then(|| vote.to_owned()));
    assert!(found(&text, broadcast).0 > 0);
}

#[test]
fn a_release_sequence_needs_its_links() {
    let sequence = |mut m: Machine| {
        let memory = words(&mut m, "word and payload", &[0; 6]);
        m.launch("release_sequence", 4, 1, &[memory.into(), (memory + 8).into(), (memory + 16).into()])?;
        m.run(LIMIT)
    };
    for (from, to) in [("st.release.sys", "st.relaxed.sys"), ("atom.relaxed.sys", "atom.relaxed.cta")] {
        let text = mutated("release_sequence", |line| replaced(line, from, to));
        assert!(found(&text, sequence).0 > 0, "{from} to {to}");
    }
}

#[test]
fn control_words_want_an_order_and_a_scope() {
    let with_control = |scope| {
        move |mut m: Machine| {
            let memory = words(&mut m, "flag and payload", &[0, 0]);
            m.control_words(memory, 8, scope);
            // One side only: nothing races.
            m.launch("ping_pong", 1, 1, &[memory.into(), (memory + 8).into(), 1u64.into(), 0u32.into()])?;
            m.run(LIMIT)
        }
    };
    assert_eq!(found(common::PTX, with_control(Scope::Sys)), (0, None));
    let weak = mutated("ping_pong", |line| replaced(line, "ld.acquire.sys.global", "ld.global"));
    assert_eq!(found(&weak, with_control(Scope::Cta)), (SEEDS, Some(RaceKind::WeakControl)));
    let narrow = mutated("ping_pong", |line| replaced(line, "st.release.sys", "st.release.gpu"));
    assert_eq!(found(&narrow, with_control(Scope::Gpu)), (0, None));
    let wanted = Some(RaceKind::NarrowControl { wanted: Scope::Sys });
    assert_eq!(found(&narrow, with_control(Scope::Sys)), (SEEDS, wanted));
}

#[test]
fn a_report_names_both_instructions() {
    let text = mutated("ping_pong", |line| replaced(line, ".release", ".relaxed"));
    let module = parsed(&text);
    let error = (0..SEEDS).find_map(|seed| ping_pong(with(&module, seed)).err()).expect("a race");
    let Error::Race(race) = &error else { panic!("{error}") };
    let earlier = race.earlier.as_ref().expect("two accesses");
    for (party, line) in [(earlier, earlier.place.line), (&race.later, race.later.place.line)] {
        assert_eq!(text.lines().nth(line as usize - 1).unwrap().trim(), party.place.text);
    }
    assert_eq!(race.memory, "offset 8 of \"flag and payload\", which has 16 bytes");
    let message = error.to_string();
    assert!(message.contains("ping_pong (launch 0), block (1, 0, 0), thread (0, 0, 0)"), "{message}");
}
