//! Memory that a device sees. It is given back when its buffer is dropped and no kernel runs.

use crate::device::{DeferredFree, Device};
use crate::error::Error;
use core::fmt;
use core::ptr::{self, NonNull};
use k2k::{Memory, Shape};
use k2k_core::sync::System;

/// Bytes that a device sees.
struct Allocation {
    device: Device,
    /// Address on the device.
    address: u64,
    /// Address on the host, or null.
    base: *mut u8,
    len: usize,
    /// What is to be given back; `None` when it has been.
    free: Option<DeferredFree>,
}

// SAFETY: addresses, which no thread is bound to; `free` is for the drop alone, and `Send`.
unsafe impl Send for Allocation {}
// SAFETY: as above: a shared reference reaches addresses and a device.
unsafe impl Sync for Allocation {}

impl Drop for Allocation {
    fn drop(&mut self) {
        if let Some(free) = self.free.take() {
            self.device.release(free);
        }
    }
}

macro_rules! buffer {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub struct $name(Allocation);

        impl $name {
            /// Its address on the device.
            #[must_use]
            pub const fn address(&self) -> u64 {
                self.0.address
            }

            /// Its length, bytes.
            #[must_use]
            pub const fn len(&self) -> usize {
                self.0.len
            }

            /// Whether it has no bytes.
            #[must_use]
            pub const fn is_empty(&self) -> bool {
                self.0.len == 0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let Allocation { address, len, .. } = self.0;
                f.debug_struct(stringify!($name)).field("address", &address).field("len", &len).finish_non_exhaustive()
            }
        }
    };
}

buffer! {
    /// Device memory, freed when it is dropped and no kernel runs.
    DeviceBuffer
}
buffer! {
    /// Host memory that the device sees, freed when it is dropped and no kernel runs.
    HostBuffer
}
buffer! {
    /// A fabric of the host that the device sees, until it is dropped and no kernel runs.
    Registered
}

impl Device {
    /// Zeroed device memory, aligned to 256 bytes.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; [`Error::Busy`] while kernels run.
    pub fn allocate(&self, len: usize) -> Result<DeviceBuffer, Error> {
        let address = self.while_idle("allocate device memory", |driver| driver.allocate(len))?;
        let free = Some(DeferredFree::Device(address));
        Ok(DeviceBuffer(Allocation { device: self.clone(), address, base: ptr::null_mut(), len, free }))
    }

    /// Zeroed host memory that the device sees as well: pinned, cached by the CPU, aligned to 256 bytes.
    ///
    /// # Errors
    /// [`Error::OutOfHostMemory`]; [`Error::Busy`] while kernels run.
    pub fn allocate_host(&self, len: usize) -> Result<HostBuffer, Error> {
        let (base, address) = self.while_idle("allocate host memory", |driver| driver.allocate_host(len))?;
        let free = Some(DeferredFree::Host(base, len));
        Ok(HostBuffer(Allocation { device: self.clone(), address, base: base.as_ptr(), len, free }))
    }

    /// Lets the device see a fabric of the host, so that one in a shared-memory file stays visible to tools while
    /// kernels of this device work on it. All its pages are committed and pinned.
    ///
    /// # Errors
    /// [`Error::NotPinned`] if the driver refuses: it can pin memory of the process and files in `/dev/shm`, and since Linux 6.5
    /// no file on a disk. [`Error::Busy`] while kernels run.
    pub fn register<Sh: Shape<Scope = System>>(&self, memory: &Memory<Sh>) -> Result<Registered, Error> {
        let fabric = memory.fabric();
        let (base, len) = (fabric.as_ptr(), fabric.shape().size());
        // A fabric does not lie at 0.
        let base = NonNull::new(base).unwrap_or(NonNull::dangling());
        let address = self.while_idle("register memory", |driver| {
            // SAFETY: the clone below keeps the mapping until it has been unregistered. All of it is a fabric, which is
            // made for peers that write it at any time.
            unsafe { driver.register(base, len) }.map_err(|why| match why {
                Error::Cuda { .. } => Error::NotPinned { path: memory.path().map(Into::into), why: Box::new(why) },
                why => why,
            })
        })?;
        let free = Some(DeferredFree::Registered(base, Box::new(memory.clone())));
        Ok(Registered(Allocation { device: self.clone(), address, base: base.as_ptr(), len, free }))
    }
}

impl DeviceBuffer {
    /// Copies bytes out of it, also while kernels run. What they write meanwhile is seen word by word, in any order.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`]; [`Error::NoAnswer`] if the device does not copy.
    pub fn read(&self, offset: usize, to: &mut [u8]) -> Result<(), Error> {
        self.check(offset, to.len())?;
        // SAFETY: checked.
        unsafe { self.0.device.driver().read(self.address() + offset as u64, to) }
    }

    /// Copies bytes into it, also while kernels run. They see it word by word, in any order.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<(), Error> {
        self.write_shared(offset, bytes)
    }

    pub(crate) fn write_shared(&self, offset: usize, bytes: &[u8]) -> Result<(), Error> {
        self.check(offset, bytes.len())?;
        // SAFETY: checked.
        unsafe { self.0.device.driver().write(self.address() + offset as u64, bytes) }
    }

    const fn check(&self, offset: usize, len: usize) -> Result<(), Error> {
        let buffer = self.len();
        if offset > buffer || len > buffer - offset {
            return Err(Error::OutOfBounds { offset, len, buffer });
        }
        Ok(())
    }
}

impl HostBuffer {
    /// Its address on the host. The device may write the bytes at any time: use them through atomics and the types of
    /// [`k2k_core`].
    #[must_use]
    pub const fn as_ptr(&self) -> *mut u8 {
        self.0.base
    }
}
