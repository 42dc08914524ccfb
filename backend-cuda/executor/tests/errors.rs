//! What is wrong is said, with the line.

mod common;

use common::{LIMIT, halves, machine, words};
use k2k_ptx_executor::{Arg, Doing, Error, FaultKind, Machine, Module, Options, Who};

/// A kernel with this body, which begins on line 4 of the text.
fn kernel(body: &str) -> String {
    format!(
        ".version 7.0\n.target sm_70\n.address_size 64\n.visible .entry k(.param .u64 p) {{ .reg .pred %p<9>; .reg .b32 %r<9>; .reg .b64 %rd<9>;\n{body}\n}}\n"
    )
}

fn refused(body: &str) -> String {
    Module::parse(&kernel(body)).expect_err("refused").to_string()
}

fn machine_with(body: &str) -> Machine {
    let module = Module::parse(&kernel(body)).unwrap_or_else(|error| panic!("{error}"));
    let mut machine = Machine::new(1, Options::default());
    machine.load(&module);
    machine
}

fn fault(error: &Error) -> &FaultKind {
    match error {
        Error::Fault(fault) => &fault.kind,
        _ => panic!("{error}"),
    }
}

fn run(body: &str, block: u32) -> Error {
    let mut m = machine_with(body);
    m.launch("k", 1, block, &[Arg::U64(0)]).unwrap();
    m.run(LIMIT).expect_err("an error")
}

#[test]
fn unknown_instructions_and_modifiers_are_refused_with_their_line() {
    assert_eq!(
        refused("mov.u32 %r1, 1;\nwgmma.fence.sync.aligned;\nret;"),
        "PTX line 6: the instruction wgmma.fence.sync.aligned is not supported: `wgmma.fence.sync.aligned;`"
    );
    for (line, reason) in [
        ("add.ftz.f32 %r1, %r2, %r3;", "the modifier .ftz of add is not supported"),
        ("ld.acquire.cluster.b32 %r1, [%rd1];", "an order without a scope that is supported"),
        ("ld.release.sys.b32 %r1, [%rd1];", "a load cannot release"),
        ("mov.u32 %r1, %r10;", "the register %r10 is neither declared nor known"),
        ("bra NOWHERE;", "there is no label NOWHERE"),
        ("call.uni missing, ();", "missing is called but defined nowhere"),
        ("add.f16 %r1, %r2, %r3;", "add without a type that is supported"),
        ("fence.proxy.alias;", "a fence without a scope that is supported"),
    ] {
        let message = refused(&format!("{line}\nret;"));
        assert_eq!(message, format!("PTX line 5: {reason}: `{line}`"));
    }
    let missing = Module::parse(".version 7.0\n.alias a, b;").unwrap_err();
    assert_eq!((missing.line, missing.text.as_str()), (2, ".alias a, b;"));
}

#[test]
fn accesses_outside_of_memory_are_named() {
    let mut m = machine(1);
    let (from, to) = (words(&mut m, "from", &[7; 4]), words(&mut m, "to", &[0; 3]));
    m.launch("echo", 1, 4, &[from.into(), to.into(), 4u32.into()]).unwrap();
    let error = m.run(LIMIT).unwrap_err();
    let Error::Fault(fault) = &error else { panic!("{error}") };
    let FaultKind::OutOfBounds { address, bytes: 8, near } = &fault.kind else { panic!("{error}") };
    let place = &fault.place;
    assert_eq!((*address, near.as_str()), (to + 24, "offset 24 of \"to\", which has 24 bytes"));
    assert!(place.text.starts_with("st.global.b64"), "{place}");
    let Who::Thread { thread, .. } = &place.who else { panic!("{place}") };
    assert_eq!(*thread, [3, 0, 0]);
}

#[test]
fn misaligned_and_foreign_addresses_are_named() {
    let error = run("ld.param.u64 %rd1, [p]; ld.global.b32 %r1, [%rd1+2];", 1);
    assert!(matches!(fault(&error), FaultKind::Misaligned { address: 2, bytes: 4 }), "{error}");
    // The address of a thread's own array means nothing to another thread.
    let local = ".local .b8 l[16]; .shared .b64 s; mov.u32 %r1, %tid.x; setp.ne.u32 %p1, %r1, 0; mov.u64 %rd1, l;
        cvta.local.u64 %rd1, %rd1; @!%p1 st.shared.u64 [s], %rd1; bar.sync 0; ld.shared.u64 %rd2, [s]; ld.b32 %r2, [%rd2]; ret;";
    let error = run(local, 2);
    assert!(matches!(fault(&error), FaultKind::Foreign { .. }), "{error}");
}

#[test]
fn a_panic_is_a_trap() {
    let mut m = machine(1);
    let (items, out) = (halves(&mut m, "items", &[1; 8]), halves(&mut m, "out", &[0]));
    m.launch("panics", 1, 1, &[items.into(), 3u32.into(), out.into()]).unwrap();
    m.run(LIMIT).unwrap();
    m.launch("panics", 1, 1, &[items.into(), 8u32.into(), out.into()]).unwrap();
    let error = m.run(LIMIT).unwrap_err();
    assert!(matches!(fault(&error), FaultKind::Trap), "{error}");
}

#[test]
fn threads_at_different_barriers_are_a_deadlock() {
    let error = run("mov.u32 %r1, %tid.x; and.b32 %r1, %r1, 1; bar.sync %r1; ret;", 4);
    let Error::Deadlock { threads } = &error else { panic!("{error}") };
    let ids: Vec<Doing> = threads.iter().map(|t| t.doing).collect();
    let at = |id| Doing::AtBarrier { id };
    assert_eq!(ids, [at(0), at(1), at(0), at(1)]);
    assert_eq!(threads[0].place.line, 5);
    // A thread that has ended never comes.
    let error = run("mov.u32 %r1, %tid.x; setp.eq.u32 %p1, %r1, 0; @%p1 exit; bar.sync 0; ret;", 4);
    assert!(matches!(&error, Error::Deadlock { threads } if threads.len() == 3), "{error}");
}

#[test]
fn lanes_that_do_not_meet_are_divergent() {
    let error = run(
        "mov.u32 %r1, %tid.x; setp.eq.u32 %p2, %r1, 0; selp.u32 %r1, 3, 7, %p2; vote.sync.any.pred %p1, 1, %r1; ret;",
        3,
    );
    assert!(matches!(fault(&error), FaultKind::Divergence { .. }), "{error}");
    let error = run("shfl.sync.idx.b32 %r1, %r2, 3, 31, 3; ret;", 2);
    assert!(matches!(fault(&error), FaultKind::AbsentLane { lane: 3 }), "{error}");
}

#[test]
fn a_livelock_shows_where_everyone_is() {
    let error = run("LOOP: bra LOOP;", 2);
    let Error::StepLimit { steps, threads } = &error else { panic!("{error}") };
    assert_eq!((*steps, threads.len()), (LIMIT, 2));
    assert!(
        error.to_string().contains("runs: k (launch 0), block (0, 0, 0), thread (1, 0, 0), line 5: `LOOP: bra LOOP;`")
    );
}

#[test]
fn launches_are_checked() {
    let mut m = machine(1);
    let message = |result: Result<_, Error>| result.map(|_: k2k_ptx_executor::LaunchId| ()).unwrap_err().to_string();
    assert_eq!(message(m.launch("nothing", 1, 1, &[])), "launch refused: there is no kernel \"nothing\"");
    assert_eq!(
        message(m.launch("count", 1, 1, &[Arg::U32(1)])),
        "launch refused: \"count\" takes arguments of [8, 8] bytes, not of [4]"
    );
    assert_eq!(
        message(m.launch("count", 1, 2048, &[0u64.into(), 0u64.into()])),
        "launch refused: 1 blocks of 2048 threads"
    );
}

#[test]
fn dynamic_shared_memory_follows_the_static() {
    let text = ".version 7.0\n.target sm_70\n.address_size 64\n.extern .shared .align 16 .b8 more[];\n.shared .b64 one;
        .visible .entry k(.param .u64 p) { .reg .b64 %rd<4>; .reg .b32 %r<4>; ld.param.u64 %rd1, [p];
        st.shared.u64 [one], 5; st.shared.u64 [more+8], 6; ld.shared.u64 %rd2, [one]; ld.shared.u64 %rd3, [more+8];
        st.global.v2.u64 [%rd1], {%rd2, %rd3}; mov.u64 %rd1, more; ld.shared.u64 %rd2, [%rd1+16]; ret; }";
    let module = Module::parse(text).unwrap();
    for (bytes, fits) in [(24, true), (16, false)] {
        let mut m = Machine::new(1, Options::default());
        m.load(&module);
        let out = words(&mut m, "out", &[0, 0]);
        let config =
            k2k_ptx_executor::LaunchConfig { shared_bytes: bytes, ..k2k_ptx_executor::LaunchConfig::new(1, 1) };
        m.launch_with("k", config, &[out.into()]).unwrap();
        assert_eq!(m.run(LIMIT).is_ok(), fits);
    }
}
