//! Kernels for tests and benchmarks. One entry point for all, since a driver compiles the whole of `core` for each.

use crate::handlers::{AddJob, Adder, Order, Role, RoleKind};
use crate::shape::{CHIP_KERNELS, CHIP_PAYLOAD, CHIP_SLOTS, KERNELS, PAYLOAD, SLOTS};
use k2k_core::sync::AtomicU32;
use k2k_core::{KernelId, Priority};
use k2k_device::{Block, Outcome, Workers, export};

/// Indices of the parameters. What a role does not need is ignored.
mod parameter {
    /// A `RoleKind` as a number.
    pub(super) const ROLE: usize = 0;
    /// Raw address of the receiver, of the first block.
    pub(super) const TO: usize = 1;
    /// Messages to send, or to take before stopping; 0 for a sink that does not stop.
    pub(super) const COUNT: usize = 2;
    /// Messages that may be undecided. Of a ping, which has one: the address of a word as below.
    pub(super) const WINDOW: usize = 3;
    /// Hop limit | priority << 8.
    pub(super) const LIMIT: usize = 4;
    /// Timeout of each message, ns.
    pub(super) const TIMEOUT: usize = 5;
    /// How many indices further on the receiver of the next block is | number of indices after which it starts again <<
    /// 16.
    pub(super) const STEP: usize = 6;
    /// Of a ping: where `COUNT` samples per block go, each a `u32`. Of others: the address of a word that must not be 0
    /// before the first message goes, or 0.
    pub(super) const ADDRESS: usize = 7;
}

fn order(block: &Block<'_>, kind: RoleKind) -> Order {
    let first = KernelId::from_raw(block.parameter(parameter::TO));
    let step = block.parameter(parameter::STEP) as u32;
    let index = first.index() as u32 + block.index() * (step & 0xffff);
    let index = if step >> 16 == 0 { index } else { index % (step >> 16) };
    let limit = block.parameter(parameter::LIMIT);
    let gate = if kind == RoleKind::Ping { parameter::WINDOW } else { parameter::ADDRESS };
    let gate = match block.parameter(gate) {
        0 => None,
        // SAFETY: the host has put a word there, which lives for as long as the kernels.
        address => Some(unsafe { &*(address as *const AtomicU32) }),
    };
    Order {
        to: KernelId::new(index as u16, first.generation()),
        count: block.parameter(parameter::COUNT),
        window: block.parameter(parameter::WINDOW),
        hop_limit: limit as u8,
        timeout_ns: block.parameter(parameter::TIMEOUT),
        priority: if limit >> 8 & 1 == 0 { Priority::Normal } else { Priority::High },
        gate,
    }
}

fn role<const SENDERS: usize>(block: &Block<'_>) -> Result<Role<&'static mut [u32], SENDERS>, (Outcome, [u64; 7])> {
    let number = block.parameter(parameter::ROLE);
    let wrong = (Outcome::BadParameter, [parameter::ROLE as u64, number, 0, 0, 0, 0, 0]);
    let kind = RoleKind::from_number(number).ok_or(wrong)?;
    let (base, len) = (block.parameter(parameter::ADDRESS) as *mut u32, block.parameter(parameter::COUNT) as usize);
    let samples: &'static mut [u32] = if kind == RoleKind::Ping {
        // SAFETY: the host has put so many there for each block.
        unsafe { core::slice::from_raw_parts_mut(base.add(block.index() as usize * len), len) }
    } else {
        &mut []
    };
    Ok(Role::new(kind, order(block, kind), samples))
}

export! {
    /// The role that parameter 0 says, on a fabric of the usual shape. Values: of the role.
    pub(crate) fn k2k_role(KERNELS, SLOTS, PAYLOAD) = |block, _| role::<KERNELS>(block), |role| role.values();

    /// The same on a fabric that spans a chip.
    pub(crate) fn k2k_chip_role(CHIP_KERNELS, CHIP_SLOTS, CHIP_PAYLOAD) =
        |block, _| role::<CHIP_KERNELS>(block), |role| role.values();
}

export! {
    /// Adds the numbers that it is sent to an array, with all threads of its block. Parameters: address of the array, words.
    pub(crate) fn k2k_adder(KERNELS, SLOTS, PAYLOAD; AddJob) = |block, mut workers: Workers<AddJob>, _| {
        // SAFETY: the host has put an array there.
        Ok(unsafe { Adder::new(block.parameter(0), block.parameter(1), move |job: &AddJob| workers.work(job)) })
    };
}
