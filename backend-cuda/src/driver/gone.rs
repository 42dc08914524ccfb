//! The driver of a forked process: the device is the parent's, so every call is refused, and nothing is freed.

use super::{Driver, Handle, Shape};
use crate::error::Error;
use crate::probe::Probe;
use crate::ptx::Ptx;
use core::ptr::NonNull;

/// Answers [`Error::Forked`].
#[derive(Debug)]
pub(crate) struct Gone;

impl Driver for Gone {
    fn probe(&self) -> Result<Probe, Error> {
        Err(Error::Forked)
    }
    fn queues(&self) -> u32 {
        0
    }
    fn allocate(&self, _: usize) -> Result<u64, Error> {
        Err(Error::Forked)
    }
    unsafe fn free(&self, _: u64) {}
    unsafe fn write(&self, _: u64, _: &[u8]) -> Result<(), Error> {
        Err(Error::Forked)
    }
    unsafe fn read(&self, _: u64, _: &mut [u8]) -> Result<(), Error> {
        Err(Error::Forked)
    }
    fn allocate_host(&self, _: usize) -> Result<(NonNull<u8>, u64), Error> {
        Err(Error::Forked)
    }
    unsafe fn free_host(&self, _: NonNull<u8>, _: usize) {}
    unsafe fn register(&self, _: NonNull<u8>, _: usize) -> Result<u64, Error> {
        Err(Error::Forked)
    }
    unsafe fn unregister(&self, _: NonNull<u8>) {}
    fn load(&self, _: &Ptx) -> Result<Handle, Error> {
        Err(Error::Forked)
    }
    unsafe fn unload(&self, _: Handle) {}
    fn entry(&self, _: Handle, _: &str) -> Result<Handle, Error> {
        Err(Error::Forked)
    }
    fn blocks_per_multiprocessor(&self, _: Handle, _: u32) -> Result<u32, Error> {
        Err(Error::Forked)
    }
    unsafe fn launch(&self, _: Handle, _: Shape) -> Result<Handle, Error> {
        Err(Error::Forked)
    }
    unsafe fn record(&self, _: Handle, _: Shape) -> Result<Option<Handle>, Error> {
        Err(Error::Forked)
    }
    unsafe fn replay(&self, _: Handle) -> Result<Handle, Error> {
        Err(Error::Forked)
    }
    unsafe fn forget(&self, _: Handle) {}
    fn is_done(&self, _: Handle) -> Result<bool, Error> {
        Err(Error::Forked)
    }
    fn finish(&self, _: Handle) {}
    fn is_lost(&self) -> bool {
        true
    }
}
