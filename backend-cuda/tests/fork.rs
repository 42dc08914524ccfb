//! A forked process's copy of a device refuses every call, and its drops free nothing and join no thread.
#![cfg(feature = "emulated")]

use core::time::Duration;
use k2k::memory::{self, FileOptions};
use k2k_cuda::k2k_core::sync::Gpu;
use k2k_cuda::k2k_core::{Config, Fixed};
use k2k_cuda::{Device, EmulatedOptions, Error, Grid, Ptx, Session};
use std::time::Instant;

#[test]
fn a_copy_of_a_device_does_nothing() {
    let device = Device::emulated(EmulatedOptions::default()).unwrap();
    let mut buffer = device.allocate(4096).unwrap();
    let host = device.allocate_host(4096).unwrap();
    buffer.write(0, &[1, 2, 3]).unwrap();
    let shown = Device::emulated(EmulatedOptions::default()).unwrap();
    let file = format!("k2k-test-fork-published-{}", std::process::id());
    let mut session = Session::<Fixed<4, 8, 64, Gpu>>::new(&shown, &Config::default()).unwrap();
    session.load(&Ptx::new(include_str!("ptx/kernels.ptx")).unwrap()).unwrap();
    // SAFETY: the entry point is for this shape and takes no parameters.
    unsafe { session.add(Grid::new("test_loop")).unwrap() };
    let mut running = session.start().unwrap();
    running.publish(&file, FileOptions::new()).unwrap();
    // SAFETY: the child goes on with what a program may do: it allocates, as glibc allows after a fork.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let refused = matches!(buffer.write(0, &[4]), Err(Error::Forked))
            && matches!(buffer.read(0, &mut [0]), Err(Error::Forked))
            && matches!(device.allocate(16), Err(Error::Forked))
            && matches!(device.allocate_host(16), Err(Error::Forked))
            && device.is_lost();
        drop((buffer, host, device, running, shown));
        // SAFETY: ends the process at once, without what the harness has to do.
        unsafe { libc::_exit(i32::from(!refused)) };
    }
    let began = Instant::now();
    let mut status = 0;
    // SAFETY: the status is this function's.
    while unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) } == 0 {
        if began.elapsed() > Duration::from_secs(60) {
            // SAFETY: a child that was not waited for.
            unsafe { libc::kill(child, libc::SIGKILL) };
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(status, 0);
    assert!(memory::path_of(&file).unwrap().exists(), "the child has removed the file that onlookers look into");
    running.stop(Duration::from_secs(60)).unwrap();
    drop(running);
    assert!(!memory::path_of(&file).unwrap().exists());
    let mut bytes = [0; 3];
    buffer.read(0, &mut bytes).unwrap();
    assert_eq!(bytes, [1, 2, 3]);
    drop((buffer, host, device));
}
