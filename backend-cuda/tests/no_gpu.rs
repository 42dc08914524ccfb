//! The CUDA driver's side without a GPU: a library that answers as a driver would, found and called as the real one is.
//! Each case is a process of its own, which runs the test `child` of this file.

mod fake;

use core::time::Duration;
use fake::{build, driver};
use k2k::{Fixed, Memory};
use k2k_cuda::k2k_core::Config;
use k2k_cuda::k2k_core::sync::Gpu;
use k2k_cuda::{Device, Error, Grid, Ptx, Session};
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

type TestSession = Session<Fixed<8, 8, 64, Gpu>>;

const LONG: Duration = Duration::from_secs(30);

/// Runs a case in a process that finds the library in `folder`. Returns what it printed.
fn run_in(folder: &Path, mode: &str, case: &str) -> String {
    run_with(folder, mode, case, &[])
}

/// As [`run_in`], with more in the environment.
fn run_with(folder: &Path, mode: &str, case: &str, variables: &[(&str, &str)]) -> String {
    let Output { status, stdout, stderr } = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env_remove("CUDA_DEVICE_MAX_CONNECTIONS")
        .env_remove("CUDA_LAUNCH_BLOCKING")
        .envs(variables.iter().copied())
        .env("LD_LIBRARY_PATH", folder)
        .env("FAKE_CUDA", mode)
        .env("FAKE_CASE", case)
        .output()
        .unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{mode}, {case}: {status}\n{stdout}\n{stderr}");
    format!("{stdout}{stderr}")
}

/// As [`run_in`]; what it printed after "error: ".
fn error(mode: &str, case: &str) -> Option<String> {
    let printed = run_in(driver()?, mode, case);
    let (_, error) = printed.split_once("error: ").unwrap_or_else(|| panic!("{mode}, {case}: {printed}"));
    let (error, _) = error.split_once("\nend of error").unwrap();
    Some(error.to_owned())
}

#[test]
fn child() {
    let Ok(case) = std::env::var("FAKE_CASE") else { return };
    if let Err(e) = case_of(&case) {
        println!("error: {e}\nend of error");
    }
}

fn session(device: &Device) -> Result<TestSession, Error> {
    let mut session = TestSession::new(device, &Config::default())?;
    session.load(&Ptx::new(include_str!("ptx/kernels.ptx"))?)?;
    Ok(session)
}

fn start(
    device: &Device,
    grids: impl IntoIterator<Item = Grid>,
) -> Result<k2k_cuda::Running<Fixed<8, 8, 64, Gpu>>, Error> {
    let mut session = session(device)?;
    for grid in grids {
        // SAFETY: the fake driver's kernels keep the contract.
        unsafe { session.add(grid)? };
    }
    session.start()
}

fn case_of(case: &str) -> Result<(), Error> {
    match case {
        "first" => println!("{}\n{}", Device::first()?.probe(), Device::first()?.placement()),
        "seventh" => drop(Device::cuda(7)?),
        "load" => drop(session(&Device::first()?)?),
        "allocate" => drop(Device::first()?.allocate(2 << 20)?),
        "blocks" => drop(start(&Device::first()?, [Grid::new("test_loop").threads(1024).blocks(3)])?),
        "mixed" => drop(start(&Device::first()?, ["test_loop", "test_once"].map(Grid::new))?),
        "grids" => drop(start(&Device::first()?, (0..8).map(|_| Grid::new("test_loop")))?),
        "queues" => {
            let mut running = start(&Device::first()?, (0..7).map(|_| Grid::new("test_loop")))?;
            assert_eq!(running.wait_ready(LONG)?.len(), 7);
            running.stop(LONG)?;
        }
        "one device" => {
            // The fake driver has one set of kernels for both.
            let (other, device) = (Device::cuda(0)?, Device::cuda(1)?);
            let mut running = start(&device, [Grid::new("test_loop")])?;
            assert!(Device::cuda(1)?.is_busy() && !other.is_busy());
            running.stop(LONG)?;
        }
        "session" => {
            let device = Device::cuda(0)?;
            let memory = Memory::<Fixed<8, 8, 64>>::heap(&Config::default())?;
            let registered = device.register(&memory)?;
            let host = device.allocate_host(100)?;
            // SAFETY: 100 bytes, which nobody else uses.
            assert_eq!(unsafe { core::slice::from_raw_parts(host.as_ptr(), 100) }, [0; 100]);
            let grids = [Grid::new("test_loop").name("a").blocks(2).keep(registered), Grid::new("test_stop").name("b")];
            let refused = start(&device, grids).unwrap_err().to_string();
            assert!(refused.starts_with("there is no entry point test_stop; those there are: test_loop,"), "{refused}");
            let mut running = start(&device, [Grid::new("test_loop").name("a").blocks(2), Grid::new("test_once")])?;
            let offset = running.clock();
            assert!((offset.offset_ns + 5_000_000_000).unsigned_abs() <= offset.error_ns, "{offset:?}");
            let ids = running.wait_ready(LONG)?;
            assert_eq!(ids.len(), 2);
            assert_eq!(running.observe()?.kernels().count(), 2);
            // Given back while kernels run.
            drop(host);
            println!("{} ended", running.drain(LONG)?.len());
        }
        "cooperative" => drop(start(&Device::first()?, [Grid::new("test_loop")])?),
        "second" => drop(start(&Device::first()?, [Grid::new("test_loop"), Grid::new("test_once")])?),
        "stuck" => {
            let device = Device::first()?;
            let mut running = start(&device, [Grid::new("test_stuck"), Grid::new("test_loop")])?;
            running.wait_ready(LONG)?;
            let hung = running.stop(Duration::from_millis(100)).unwrap_err();
            // Says so on the standard error output, and frees nothing.
            drop(running);
            return Err(hung);
        }
        "fault" => {
            let device = Device::first()?;
            let mut running = start(&device, [Grid::new("test_loop")])?;
            assert!(!device.is_lost());
            let fault = running.stop(LONG).unwrap_err();
            assert!(device.is_lost() && !device.is_busy());
            return Err(fault);
        }
        _ => panic!("no such case: {case}"),
    }
    Ok(())
}

#[test]
fn without_a_driver_the_message_says_what_to_install() {
    let empty = TempDir::new().unwrap();
    if Device::count().is_ok() {
        println!("skipped: there is a driver");
        return;
    }
    let printed = run_in(empty.path(), "", "first");
    if !printed.contains("libcuda.so.1 was not found") {
        println!("skipped: there is a driver without a device");
        return;
    }
    assert!(
        printed.contains(
            "error: no CUDA driver: libcuda.so.1 was not found; on a machine with an NVIDIA GPU install its driver \
             (Debian: apt-get install nvidia-driver)\n"
        ),
        "{printed}"
    );
}

#[test]
fn a_driver_without_a_function_is_too_old() {
    let Some(folder) = build(&["-DWITHOUT_REGISTER"]) else { return };
    let printed = run_in(&folder, "", "first");
    assert!(
        printed.contains("the CUDA driver has no function cuMemHostRegister_v2: it is older than CUDA 11"),
        "{printed}"
    );
}

#[test]
fn each_missing_thing_is_told_with_what_would_be_right() {
    for (mode, case, expected) in [
        (
            "no-device",
            "first",
            "the CUDA driver knows of no device: see nvidia-smi, and CUDA_VISIBLE_DEVICES, which may hide it",
        ),
        ("none", "first", "the CUDA driver knows of no device: see nvidia-smi"),
        (
            "stub",
            "first",
            "the CUDA driver's library that was found is the stub of CUDA's toolkit, which does nothing: take its \
             folder (.../lib64/stubs) out of LD_LIBRARY_PATH",
        ),
        ("", "seventh", "there is no device 7: there are 2, numbers 0 to 1"),
        (
            "old-device",
            "first",
            "Fake 0 has compute capability 6.1; kernels need 7.0 or later (Volta, 2017), the first with acquire and \
             release",
        ),
        (
            "old-driver",
            "load",
            "the driver is for CUDA 10.2, and PTX 7.0 needs one for CUDA 11.0 or later: install a newer driver",
        ),
        (
            "little-memory",
            "allocate",
            "the device has no room for 2097152 bytes: 123456 are free; use a smaller fabric",
        ),
        (
            "bad-ptx",
            "load",
            "the PTX (entry points: test_loop, test_stuck, test_refuses, test_once, test_faults) was refused:\n  ptxas \
             application ptx input, line 7; fatal : Parsing error near 'fly'\n  ptxas fatal : Ptx assembly aborted \
             due to errors",
        ),
        (
            "small",
            "mixed",
            "2 blocks cannot all run at the same time: 1 are certain to fit on this device; use fewer, or fewer threads \
             per block (since they are of several entry points, one is counted for each multiprocessor: call \
             Device::verify_residency before, which may see that there is room for more)",
        ),
        ("small", "blocks", "3 blocks cannot all run at the same time: 2 are certain to fit on this device"),
        (
            "",
            "grids",
            "8 grids may not run side by side: there are 7 queues to this device, and a grid that waits behind one \
             that never returns never starts",
        ),
        ("faults", "fault", "cuStreamQuery: CUDA_ERROR_ILLEGAL_ADDRESS (an illegal memory access was encountered)"),
    ] {
        let Some(error) = error(mode, case) else { return };
        assert!(error.starts_with(expected), "{mode}, {case}: {error}");
    }
}

#[test]
fn an_environment_in_which_kernels_would_block_everything_is_refused() {
    let Some(driver) = driver() else { return };
    for (variable, value, expected) in [
        (
            "CUDA_LAUNCH_BLOCKING",
            "1",
            "error: CUDA_LAUNCH_BLOCKING is set in the environment: each launch then returns when its kernels have \
             ended, and these do not end by themselves; unset it, or set it to 0\n",
        ),
        (
            "CUDA_DEVICE_MAX_CONNECTIONS",
            "1",
            "error: CUDA_DEVICE_MAX_CONNECTIONS is set in the environment: with a single queue to the device, nothing \
             can be copied while kernels run; unset it, or set it to 2 to 32\n",
        ),
        ("CUDA_LAUNCH_BLOCKING", "0", "Fake 0\n"),
        ("CUDA_DEVICE_MAX_CONNECTIONS", "2", "Fake 0\n"),
    ] {
        let printed = run_with(driver, "", "first", &[(variable, value)]);
        assert!(printed.contains(expected), "{variable}={value}: {printed}");
    }
}

#[test]
fn a_device_is_described() {
    let Some(driver) = driver() else { return };
    let printed = run_in(driver, "", "first");
    let expected = "Fake 0\n  compute capability        8.0\n  driver                    for CUDA 13.0\n  \
                    multiprocessors           4, warps of 32\n  memory                    16384 MiB\n  maps host \
                    memory          yes\n  atomic with the CPU       no\n  cooperative launch        yes\n  time \
                    limit on kernels     no\n  PCI, NUMA node            ffff:ab:00.0\nfabric in device memory, links in \
                    pinned host memory that the device maps\n";
    assert!(printed.contains(expected), "{printed}");
}

#[test]
fn a_session_runs_without_a_call_that_would_wait_for_its_kernels() {
    let Some(driver) = driver() else { return };
    let printed = run_in(driver, "", "session");
    assert!(printed.contains("3 ended"), "{printed}");
    let stacks: Vec<_> = printed.lines().filter(|line| line.starts_with("stack ")).collect();
    assert_eq!(stacks, ["stack 3072", "stack 4096", "stack 6144"], "room for local memory is made in advance");
    assert!(printed.contains("released with 0 allocations, 4 entry points with a carve-out"), "{printed}");
    assert!(!printed.contains("cooperative\n"), "several grids at once are not launched cooperatively: {printed}");
    let printed = run_in(driver, "", "cooperative");
    assert!(printed.contains("cooperative\n") && printed.contains("released with 0 allocations"), "{printed}");
    run_in(driver, "", "one device");
    run_in(driver, "", "queues");
}

#[test]
fn a_launch_that_is_refused_after_others_stops_those() {
    let Some(driver) = driver() else { return };
    let printed = run_in(driver, "refuses", "second");
    assert!(printed.contains("error: cuLaunchKernel: CUDA_ERROR_FAKE (made up)\n"), "{printed}");
    assert!(printed.contains("released with 0 allocations"), "{printed}");
}

#[test]
fn a_kernel_that_hangs_is_reported_and_nothing_is_freed_under_it() {
    let Some(driver) = driver() else { return };
    let printed = run_in(driver, "", "stuck");
    assert!(printed.contains("error: 1 of 2 kernels have not ended after "), "{printed}");
    assert!(
        printed.contains("kernel test_stuck (test_stuck, block 0) is at work; index 0, phase Running"),
        "{printed}"
    );
    assert!(
        printed.contains("a session was dropped, its memory stays allocated and its device busy: 1 of 2"),
        "{printed}"
    );
    assert!(!printed.contains("released"), "{printed}");
}
