//! A forked process's copy of a device refuses every call, and its drops free nothing and join no thread.
#![cfg(feature = "emulated")]

use core::time::Duration;
use k2k_cuda::{Device, EmulatedOptions, Error};
use std::time::Instant;

#[test]
fn a_copy_of_a_device_does_nothing() {
    let device = Device::emulated(EmulatedOptions::default()).unwrap();
    let mut buffer = device.allocate(4096).unwrap();
    let host = device.allocate_host(4096).unwrap();
    buffer.write(0, &[1, 2, 3]).unwrap();
    // SAFETY: the child goes on with what a program may do: it allocates, as glibc allows after a fork.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let refused = matches!(buffer.write(0, &[4]), Err(Error::Forked))
            && matches!(buffer.read(0, &mut [0]), Err(Error::Forked))
            && matches!(device.allocate(16), Err(Error::Forked))
            && matches!(device.allocate_host(16), Err(Error::Forked))
            && device.is_lost();
        drop((buffer, host, device));
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
    let mut bytes = [0; 3];
    buffer.read(0, &mut bytes).unwrap();
    assert_eq!(bytes, [1, 2, 3]);
    drop((buffer, host, device));
}
