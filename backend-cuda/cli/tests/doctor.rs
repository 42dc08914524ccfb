//! `k2k-gpu doctor`, with a driver that is none.

mod fake;

use fake::driver;
use std::process::Command;

#[test]
fn the_doctor_tries_each_device() {
    let Some(driver) = driver() else { return };
    let doctor = |mode: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_k2k-gpu"));
        command.env_remove("CUDA_DEVICE_MAX_CONNECTIONS").env_remove("CUDA_LAUNCH_BLOCKING");
        let output = command.arg("doctor").env("LD_LIBRARY_PATH", driver).env("FAKE_CUDA", mode).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (works, printed) = doctor("");
    assert!(works && printed.contains("GPU 0: Fake 0\n") && printed.contains("GPU 1: Fake 1\n"), "{printed}");
    assert!(printed.contains("  a kernel ran              clock known to within "), "{printed}");
    assert!(printed.contains("  side by side              7 grids, a copy beside them in "), "{printed}");
    assert!(!printed.contains("--emulated"), "{printed}");
    let (works, printed) = doctor("old-device");
    assert!(!works && printed.contains("GPU 1: Fake 1 has compute capability 6.1;"), "{printed}");
    #[cfg(feature = "emulated")]
    for part in
        ["Without a GPU: emulated device (PTX on the CPU)\n", "To try K2K without a GPU: k2k-gpu check --emulated\n"]
    {
        assert!(printed.contains(part), "{part:?} is not in {printed}");
    }
    assert!(!printed.contains("Device::emulated"), "a call, which nobody can type at a prompt: {printed}");
}
