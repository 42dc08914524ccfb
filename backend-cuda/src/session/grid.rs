//! What a session is to launch.

use crate::error::Error;
use core::any::Any;
use core::fmt;
use k2k_core::fabric::NAME_LEN;
use std::sync::{Mutex, PoisonError};

/// Workspace of a block unless its grid says otherwise, bytes.
const WORKSPACE: usize = 64 << 10;

/// Some blocks with the same entry point: one kernel each.
pub struct Grid {
    pub(super) entry: String,
    pub(super) name: String,
    pub(super) blocks: u32,
    pub(super) threads: u32,
    pub(super) workspace_len: usize,
    pub(super) parameters: [u64; 8],
    /// In a lock that nobody waits for, so that a grid can be shared between threads whatever it keeps.
    pub(super) keep: Mutex<Vec<Box<dyn Any + Send>>>,
    /// Stopped when all others have ended: a gateway carries what they still have to say.
    pub(super) serves_others: bool,
}

impl fmt::Debug for Grid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grid")
            .field("entry", &self.entry)
            .field("name", &self.name)
            .field("blocks", &self.blocks)
            .field("threads", &self.threads)
            .field("parameters", &self.parameters)
            .finish_non_exhaustive()
    }
}

impl Grid {
    /// One block of one warp, named like its entry point, with 64 KiB of workspace and all parameters 0.
    #[must_use]
    pub fn new(entry: &str) -> Self {
        Self {
            entry: entry.to_owned(),
            name: entry.to_owned(),
            blocks: 1,
            threads: 32,
            workspace_len: WORKSPACE,
            parameters: [0; 8],
            keep: Mutex::default(),
            serves_others: false,
        }
    }

    /// The kernels' name, 1 to 32 bytes. Of several blocks, each appends `-` and its number.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Blocks: kernels.
    #[must_use]
    pub const fn blocks(mut self, blocks: u32) -> Self {
        self.blocks = blocks;
        self
    }

    /// Threads of each block, 1 to 1024.
    #[must_use]
    pub const fn threads(mut self, threads: u32) -> Self {
        self.threads = threads;
        self
    }

    /// Workspace of each block, bytes; rounded up to a multiple of 256. An entry point that finds too little says how
    /// much it needs ([`Outcome::SmallWorkspace`](crate::Outcome::SmallWorkspace)).
    #[must_use]
    pub const fn workspace(mut self, len: usize) -> Self {
        self.workspace_len = len;
        self
    }

    /// A parameter, 0 to 7, of which the entry point knows the meaning: a number, or an address on the device.
    ///
    /// # Panics
    /// If there is no parameter of that index.
    #[must_use]
    pub const fn parameter(mut self, index: usize, value: u64) -> Self {
        self.parameters[index] = value;
        self
    }

    /// Keeps the owner of memory that a parameter points to, until no kernel uses it any more.
    #[must_use]
    pub fn keep(mut self, owner: impl Any + Send) -> Self {
        self.keep.get_mut().unwrap_or_else(PoisonError::into_inner).push(Box::new(owner));
        self
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        let bad = |why| Err(Error::BadGrid { entry: self.entry.clone(), why });
        if self.blocks == 0 {
            return bad("a grid has at least one block".to_owned());
        }
        if !(1..=1024).contains(&self.threads) {
            return bad(format!("a block has 1 to 1024 threads, not {}", self.threads));
        }
        let longest = self.block_name(self.blocks - 1);
        if self.name.is_empty() || longest.len() > NAME_LEN || longest.contains('\0') {
            return bad(format!("the name {longest:?} is not one of 1 to {NAME_LEN} bytes without NUL"));
        }
        Ok(())
    }

    /// The name that a block registers under.
    pub(super) fn block_name(&self, block: u32) -> String {
        if self.blocks == 1 { self.name.clone() } else { format!("{}-{block}", self.name) }
    }
}
