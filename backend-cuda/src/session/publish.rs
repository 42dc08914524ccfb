//! A file in which onlookers of this machine see a fabric that lies in a device's memory: `k2k ls`, `k2k top` and
//! `k2k::inspect`, as if its kernels ran on the host.

use crate::error::Error;
use core::fmt;
use core::time::Duration;
use k2k::inspect::View;
use k2k::memory::{self, FileOptions};
use k2k::{Memory, MemoryError};
use k2k_core::sync::{Gpu, System};
use k2k_core::{Config, FabricRef, Shape};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Between two copies that a session takes for onlookers while it waits.
const EVERY: Duration = Duration::from_millis(100);

/// The file, which is removed when this is dropped.
pub(super) struct Published<Sh: Shape<Scope = Gpu>> {
    name: String,
    memory: Memory<Sh::InScope<System>>,
    /// When the next copy is due.
    next: Mutex<Instant>,
}

impl<Sh: Shape<Scope = Gpu>> fmt::Debug for Published<Sh> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Published").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<Sh: Shape<Scope = Gpu>> Published<Sh> {
    /// Creates the file. Only what is shown takes room in it: not the inboxes. A copy that a killed process has left under
    /// this name is replaced.
    pub(super) fn new(shape: Sh, name: &str, config: &Config, options: FileOptions) -> Result<Self, Error> {
        let options = options.sparse();
        let create = || Memory::create_of(shape.in_scope::<System>(), name, config, &options);
        let memory = match create() {
            Err(MemoryError::Exists { .. }) if View::open(name).is_ok_and(|view| view.is_copy()) => {
                memory::remove(name)?;
                create()?
            }
            created => created?,
        };
        Ok(Self { name: name.to_owned(), memory, next: Mutex::new(Instant::now()) })
    }

    /// Whether a copy is due. Says so once.
    pub(super) fn is_due(&self) -> bool {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let is_due = now >= *next;
        if is_due {
            *next = now + EVERY;
        }
        is_due
    }

    /// Shows a copy.
    pub(super) fn show(&self, copy: FabricRef<'_, Sh>) {
        // Of the same shape.
        self.memory.fabric().show(copy);
    }
}

impl<Sh: Shape<Scope = Gpu>> Drop for Published<Sh> {
    fn drop(&mut self) {
        // Somebody else may have removed it.
        let _ = memory::remove(&self.name);
    }
}
