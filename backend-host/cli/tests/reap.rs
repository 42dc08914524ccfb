//! `k2k reap`. This test program starts itself again as the processes that are killed.

mod common;
use common::{GUARD, Process, Shm, eventually, patient};
use k2k::{Broker, Builder, Fixed};

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
fn failed_kernels_stay_until_the_command_clears_them() {
    let shm = Shm::new("reap-command-failed");
    let broker: Shared = patient().create(&shm.0).build().unwrap();
    let reap = |more: &[&str]| {
        let command = std::process::Command::new(env!("CARGO_BIN_EXE_k2k")).args(["reap", &shm.0]).args(more).output();
        String::from_utf8(command.unwrap().stdout).unwrap()
    };
    for name in ["fails 1", "fails 2", "fails 3", "fails 4"] {
        Process::start("worker", &[("K2K_REAP_FILE", &shm.0), ("K2K_REAP_NAME", name)]).succeed();
    }
    assert!(broker.register("next").is_err());
    let told = reap(&[]);
    assert!(told.contains("failed: fails 3 (k2.1), ") && told.contains("0 alive, 0 unknown, 4 failed\n"), "{told}");
    assert!(told.contains("k2k reap --clear-failed"), "{told}");
    let told = reap(&["--clear-failed"]);
    assert!(told.contains("cleared fails 3 (k2.1), ") && told.ends_with("0 unknown, 0 failed\n"), "{told}");
    assert!(broker.register("next").is_ok());
}

#[test]
fn the_command_reaps_and_says_what_it_did() {
    let shm = Shm::new("reap-command");
    let broker: Broker<Fixed<4, 64, 64>> = patient().create(&shm.0).build().unwrap();
    let reap = |file: &str| {
        let out = std::process::Command::new(env!("CARGO_BIN_EXE_k2k")).args(["reap", file]).output().unwrap();
        (out.status.code(), String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap())
    };
    let me = broker.register("me").unwrap();
    assert_eq!(reap(&shm.0), (Some(0), "0 reaped, 1 alive, 0 unknown, 0 failed\n".to_owned(), String::new()));
    drop(me);
    // `k2k reap FILE | head -1`, whose reader has gone, and a full disk.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    for (stdout, ends_with, lines) in [(writer.into(), 141, 0), (std::process::Stdio::from(full), 1, 1)] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_k2k"));
        let output = command.args(["reap", &shm.0]).stdout(stdout).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), error.lines().count()), (Some(ends_with), lines), "{error}");
    }
    let (status, out, error) = reap("k2k-there-is-no-such-fabric");
    assert_eq!((status, out.as_str()), (Some(2), ""));
    assert!(error.contains("k2k-there-is-no-such-fabric"), "{error}");

    // Any shape: it stands in the header.
    let odd = Shm::new("reap-odd");
    let broker: Shared = patient().create(&odd.0).build().unwrap();
    start(&odd, &broker, "worker").kill();
    let (status, out, error) = reap(&odd.0);
    assert_eq!((status, error.as_str()), (Some(0), ""));
    assert!(out.contains("1 reaped, 0 alive, 0 unknown"), "{out}");
    assert_eq!(broker.find("worker"), None);
}
