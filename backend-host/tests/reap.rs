//! Owners that die, and reapers that find them. This test program starts itself again as the processes that are killed.

mod common;
use common::{GUARD, Process, Shm, eventually, patient};
use core::time::Duration;
use k2k::fabric::NotFailed;
use k2k::{Broker, Builder, ControlError, DeliveryStatus, EndpointError, Fixed, KernelId, Message, RegisterError};
use rustix::process::{Pid, Signal, kill_process};
use std::time::Instant;

type Shared = Broker<Fixed<4, 16, 64>>;

/// The other process: registers under the name that it is told, and waits for its end.
#[test]
fn worker() {
    let Ok(file) = std::env::var("K2K_REAP_FILE") else { return };
    let broker: Shared = Builder::new().open(&file).build().unwrap();
    let name = std::env::var("K2K_REAP_NAME").unwrap();
    let endpoint = broker.register_parking(&name).unwrap();
    if name.starts_with("fails") {
        return endpoint.fail();
    }
    std::thread::sleep(GUARD);
}

fn start(shm: &Shm, broker: &Shared, name: &str) -> Process {
    let process = Process::start("worker", &[("K2K_REAP_FILE", &shm.0), ("K2K_REAP_NAME", name)]);
    eventually("the worker has registered", || broker.find(name).is_some());
    process
}

#[test]
fn a_worker_that_was_killed_can_start_again_under_its_name_when_it_was_reaped() {
    let shm = Shm::new("reap-name");
    let broker: Shared = patient().create(&shm.0).build().unwrap();
    let mut me = broker.register("me").unwrap();
    let mut process = start(&shm, &broker, "worker");
    let id = broker.find("worker").unwrap();
    let sent = me.send(id, &Message::from_bytes(1, b"never received").unwrap()).unwrap();
    assert_eq!(broker.reap().reaped, [], "its owner lives");
    process.kill();

    let taken = broker.register("worker").unwrap_err();
    assert!(matches!(taken, EndpointError::Register(RegisterError::NameInUse { by }) if by == id), "{taken}");
    assert!(taken.to_string().contains("reap"), "{taken}");

    let report = broker.reap();
    assert_eq!((report.reaped.len(), report.unknown.len(), report.alive), (1, 0, 1), "{report}");
    assert_eq!((report.reaped[0].id, report.reaped[0].name.unwrap().as_str()), (id, "worker"));
    assert_eq!(report.reaped[0].process, process.0.id());
    assert_eq!(me.receipt(sent).unwrap().status, DeliveryStatus::NotFound);
    let again = broker.register("worker").unwrap();
    assert_ne!(again.id(), id);
    drop(again);
    let stats = broker.stats();
    assert_eq!((stats.sent, stats.not_found), (1, 1));
}

#[test]
fn as_many_crashes_as_there_are_indices_do_not_fill_the_fabric() {
    let shm = Shm::new("reap-full");
    let broker: Shared = patient().create(&shm.0).build().unwrap();
    let mut dead = Vec::new();
    for name in ["a", "b", "c", "d"] {
        let mut process = start(&shm, &broker, name);
        process.kill();
        dead.push(process);
    }
    assert!(broker.register("e").is_err());
    assert_eq!(broker.reap().reaped.len(), 4);
    let all: Vec<_> = ["a", "b", "c", "d"].iter().map(|name| broker.register(name).unwrap()).collect();
    assert_eq!(broker.reap().alive, 4);
    drop(all);
}

#[test]
fn a_failed_kernel_is_reported_until_its_index_is_cleared() {
    let shm = Shm::new("reap-failed");
    let broker: Shared = patient().create(&shm.0).build().unwrap();
    let fail = |name| {
        let mut process = Process::start("worker", &[("K2K_REAP_FILE", &shm.0), ("K2K_REAP_NAME", name)]);
        assert!(process.0.wait().unwrap().success());
    };
    fail("fails");
    let report = broker.reap();
    let [failed] = report.failed[..] else { panic!("{report}") };
    assert_eq!((failed.name.unwrap().as_str(), failed.id), ("fails", KernelId::new(0, 1)));
    assert_eq!((report.reaped.len(), report.alive, report.unknown.len()), (0, 0, 0), "{report}");
    assert_eq!(broker.reap(), report, "it stays");
    broker.clear_failed(failed.id).unwrap();
    assert_eq!(broker.reap().failed, []);

    // As many as there are indices.
    for name in ["fails 1", "fails 2", "fails 3", "fails 4"] {
        fail(name);
    }
    assert!(broker.register("next").is_err());
    for failed in broker.reap().failed {
        broker.clear_failed(failed.id).unwrap();
    }
    let all = ["a", "b", "c", "d"].map(|name| broker.register(name).unwrap());
    let refused = broker.clear_failed(all[0].id()).unwrap_err();
    assert_eq!(refused, ControlError::NotFailed(NotFailed { kernel: all[0].id(), is_here: true }));

    // A supervisor tells of it once.
    let (tell, told) = std::sync::mpsc::channel();
    let supervisor = broker.supervise(Duration::from_millis(5), move |report| _ = tell.send(report.clone())).unwrap();
    let [a, b, _c, _d] = all;
    let ids = [a.id(), b.id()];
    a.fail();
    assert_eq!(told.recv_timeout(GUARD).unwrap().failed[0].id, ids[0]);
    std::thread::sleep(Duration::from_millis(50));
    b.fail();
    let failed = told.recv_timeout(GUARD).unwrap().failed;
    assert_eq!(failed.iter().map(|failed| failed.id).collect::<Vec<_>>(), ids);
    drop(supervisor);
}

#[test]
fn a_process_that_is_stopped_is_not_dead() {
    let shm = Shm::new("reap-stopped");
    let broker: Shared = patient().create(&shm.0).build().unwrap();
    let process = start(&shm, &broker, "worker");
    let pid = Pid::from_raw(process.0.id() as i32).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let report = broker.reap();
    assert_eq!((report.reaped.len(), report.alive), (0, 1), "{report}");
    kill_process(pid, Signal::CONT).unwrap();
    assert!(broker.find("worker").is_some());
}

#[test]
fn a_supervisor_finds_the_dead_by_itself_and_says_so() {
    let shm = Shm::new("reap-supervisor");
    let broker: Shared = patient().create(&shm.0).build().unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let supervisor = broker.supervise(Duration::from_millis(10), move |report| _ = tell.send(report.clone())).unwrap();
    let mut process = start(&shm, &broker, "worker");
    process.kill();
    let report = told.recv_timeout(GUARD).unwrap();
    assert_eq!(report.reaped[0].name.unwrap().as_str(), "worker");
    assert!(broker.find("worker").is_none());
    let began = Instant::now();
    drop(supervisor);
    assert!(began.elapsed() < GUARD);
    assert!(told.recv().is_err(), "the thread has ended");
}

#[test]
fn a_supervisor_whose_listener_panics_goes_on() {
    let shm = Shm::new("reap-panics");
    let broker: Shared = patient().create(&shm.0).build().unwrap();
    let supervisor = broker.supervise(Duration::from_millis(5), |_| std::panic::resume_unwind(Box::new(()))).unwrap();
    for _ in 0..2 {
        start(&shm, &broker, "worker").kill();
        eventually("the worker is reaped", || broker.find("worker").is_none());
    }
    drop(supervisor);
}

#[test]
fn a_supervisor_that_looks_once_and_never_again_stays_until_it_is_dropped() {
    let broker: Shared = patient().build().unwrap();
    let listener = std::sync::Arc::new(());
    let is_there = std::sync::Arc::downgrade(&listener);
    let supervisor = broker.supervise(Duration::MAX, move |_| drop(std::sync::Arc::clone(&listener))).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert!(is_there.upgrade().is_some(), "its thread has panicked");
    drop(supervisor);
}
