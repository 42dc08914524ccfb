//! What host and device tell one another around a launch. Plain old data, the same bytes on both sides.

use bytemuck::{Pod, Zeroable};
use k2k_core::KernelId;

/// The one argument of every entry point: `extern "ptx-kernel" fn(launch: *const Launch)`. Lies in device memory.
///
/// An entry point that works on a fabric runs one kernel per block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Launch {
    /// Device address of the fabric, or 0 for an entry point that needs none.
    pub fabric: u64,
    /// Device address of `blocks × workspace_len` bytes, zeroed before the launch.
    pub workspace: u64,
    /// Bytes of workspace per block, a multiple of 256. The entry point refuses less than it needs.
    pub workspace_len: u64,
    /// Device address of one [`Report`] per block, zeroed before the launch.
    pub reports: u64,
    /// What to add (wrapping) to `%globaltimer` for the host's `CLOCK_MONOTONIC`, on which deadlines are.
    pub clock_offset_ns: i64,
    /// Index in the fabric's table of block 0's kernel; block `i` takes the one `i` further on.
    pub first_index: u32,
    /// Blocks of the grid.
    pub blocks: u32,
    /// Name of the kernel, padded with NUL; of several blocks, each appends `-` and its number.
    pub name: [u8; 32],
    /// What the entry point makes of them is its own business: addresses of links, counts, sizes.
    pub parameters: [u64; 8],
    /// What to add (wrapping) to that for the wall time, ns since the Unix epoch: as it was at the launch.
    pub wall_offset_ns: u64,
}

/// What a block says about how it went. Written by the device, eight bytes at a time and the first of them last; read
/// by the host at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Report {
    /// An [`Outcome`] as a number.
    pub outcome: u16,
    /// Index of the kernel that it became.
    pub kernel_index: u16,
    /// Generation of the kernel that it became, or 0.
    pub kernel_generation: u32,
    /// Results; of a refusal, what was found and what was expected.
    pub values: [u64; 7],
}

impl Report {
    /// Its first word.
    #[must_use]
    pub const fn first_word(outcome: Outcome, kernel: KernelId) -> u64 {
        kernel.raw() << 16 | outcome as u64
    }

    /// Which kernel the block became.
    #[must_use]
    pub fn kernel(&self) -> Option<KernelId> {
        let kernel = KernelId::new(self.kernel_index, self.kernel_generation);
        (!kernel.is_none()).then_some(kernel)
    }
}

/// Where a block is. The numbers stand in shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Outcome {
    /// Has not begun (yet).
    NotStarted = 0,
    /// At work.
    Running = 1,
    /// Returned after it was told to stop or had done its work.
    Finished = 2,
    /// The bytes at [`Launch::fabric`] are not a fabric of the shape that the entry point was compiled for.
    /// `values`: KERNELS, SLOTS, PAYLOAD and size expected.
    WrongFabric = 3,
    /// Its index in the kernel table, or its name, is in use. `values[0]`: the index.
    IndexInUse = 4,
    /// The workspace is too small. `values`: bytes per block found, needed.
    SmallWorkspace = 5,
    /// A parameter is not one that the entry point can use. `values`: its index, the value found.
    BadParameter = 6,
    /// A test or benchmark found something wrong. `values` say what.
    CheckFailed = 7,
}

impl Outcome {
    /// The outcome with that number, if there is one.
    #[must_use]
    pub const fn from_number(number: u16) -> Option<Self> {
        Some(match number {
            0 => Self::NotStarted,
            1 => Self::Running,
            2 => Self::Finished,
            3 => Self::WrongFabric,
            4 => Self::IndexInUse,
            5 => Self::SmallWorkspace,
            6 => Self::BadParameter,
            7 => Self::CheckFailed,
            _ => return None,
        })
    }
}

const _: () = assert!(size_of::<Launch>() == 152 && size_of::<Report>() == 64 && align_of::<Report>() == 8);
const _: () = {
    use core::mem::offset_of;
    assert!(offset_of!(Report, kernel_index) == 2 && offset_of!(Report, kernel_generation) == 4);
    assert!(offset_of!(Report, values) == 8);
};
