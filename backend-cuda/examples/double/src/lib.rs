//! A handler of one's own, for a GPU and for a host.
//!
//! ```sh
//! cargo test -p k2k-double             # on the host
//! cargo run -p k2k-ptx -- build --manifest-path backend-cuda/examples/double/Cargo.toml --out double.ptx
//! cargo run -p k2k-double -- double.ptx
//! ```
//!
//! The second command needs a device toolchain, and says how to get one. Without it, leave out the argument of the
//! third: the PTX lies beside this crate. The third needs no GPU; its source, `main.rs`, is the host's half.
#![no_std]
#![cfg_attr(target_arch = "nvptx64", feature(abi_ptx))]

use k2k_core::{Context, Kernel, Message};

/// Answers every number with its double, and counts.
#[derive(Debug, Default)]
pub struct Double {
    answered: u64,
}

impl Kernel<192> for Double {
    fn on_message(&mut self, context: &mut impl Context<192>, request: &Message<192>) {
        // What is not a number gets no answer.
        let Ok(number) = request.value::<u64>() else { return };
        // No room for the answer: the one who asks finds out by a timeout of its own.
        if context.reply(request, &Message::from_value(2, &number.wrapping_mul(2))).is_ok() {
            self.answered += 1;
        }
    }
}

impl Double {
    /// Answers so far.
    #[must_use]
    pub const fn answered(&self) -> u64 {
        self.answered
    }
}

k2k_device::export! {
    /// One kernel per block, in a fabric of 16 indices, 64 messages per pair and 192 bytes per message: the shape for
    /// which the library has a gateway. When it stops, its block's report says how many answers it gave.
    pub fn double(16, 64, 192) = |_block, _workspace| Ok(Double::default()), |it| [it.answered(), 0, 0, 0, 0, 0, 0];
}
