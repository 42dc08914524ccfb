//! A thread's own state: registers, frames, local memory.

use crate::error::Doing;
use crate::op::Function;

/// Where a caller goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    pub(crate) function: u32,
    pub(crate) pc: u32,
    pub(crate) slot_base: usize,
    pub(crate) param_base: usize,
    pub(crate) local_base: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Ready,
    Sleeping,
    AtBarrier { id: u8 },
    AtCollective { list: u32 },
    Done,
}

impl State {
    pub(crate) fn doing(self) -> Doing {
        match self {
            Self::Ready | Self::Done => Doing::Running,
            Self::Sleeping => Doing::Sleeping,
            Self::AtBarrier { id } => Doing::AtBarrier { id },
            Self::AtCollective { .. } => Doing::AtCollective,
        }
    }
}

/// A device thread.
#[derive(Debug)]
pub(crate) struct Thread {
    /// Its number in the race detector.
    pub(crate) agent: u32,
    pub(crate) launch: u32,
    pub(crate) block: u32,
    pub(crate) index: [u32; 3],
    /// Number within the block: warps are 32 of these in a row.
    pub(crate) linear: u32,
    pub(crate) state: State,
    pub(crate) function: u32,
    /// The next instruction.
    pub(crate) pc: u32,
    /// Slots of all frames, the current one last.
    pub(crate) slots: Vec<u64>,
    pub(crate) slot_base: usize,
    pub(crate) params: Vec<u8>,
    pub(crate) param_base: usize,
    pub(crate) local: Vec<u8>,
    pub(crate) local_base: u32,
    pub(crate) frames: Vec<Frame>,
    pub(crate) carry: bool,
    /// Address of the launch's parameters.
    pub(crate) launch_params: u64,
    /// The last strong read: instruction, address, value.
    pub(crate) polled: (u32, u64, u64),
    /// The last read was the same as the one before.
    pub(crate) polls: bool,
}

impl Thread {
    pub(crate) fn lane(&self) -> u32 {
        self.linear % 32
    }

    /// Enters a function; its parameters are zero.
    pub(crate) fn enter(&mut self, number: u32, function: &Function) {
        self.function = number;
        self.pc = 0;
        self.slot_base = self.slots.len();
        self.slots.extend_from_slice(&function.slots);
        self.param_base = self.params.len();
        self.params.resize(self.param_base + function.param_bytes as usize, 0);
        self.local_base = self.local.len() as u32;
        // Not zero, so that whoever reads before writing notices.
        self.local.resize(self.local.len() + function.local_bytes as usize, super::memory::POISON);
    }
}
