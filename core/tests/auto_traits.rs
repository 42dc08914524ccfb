//! Which auto traits the public types have is a promise: a field of another type must not take one away unseen.

use core::panic::{RefUnwindSafe, UnwindSafe};
use k2k_core::link::FixedFrames;
use k2k_core::ring::{Consumer, Producer, Sharded, Spsc, Ticket};
use k2k_core::{
    Config, DeliveryReceipt, Endpoint, Fabric, Fixed, Gateway, Header, KernelId, LinkEnd, LinkHalf, Message, Platform,
    RegisterError, Registration, SendError, Stats, WakeFlag,
};

fn shared<T: Send + Sync + Unpin>() {}
fn plain<T: Send + Sync + Unpin + UnwindSafe + RefUnwindSafe + Copy>() {}

/// One user at a time, on any thread.
fn moves<T: Send + Unpin>() {}

/// A platform that nothing but the traits that are asked for.
#[derive(Clone)]
struct Nowhere;
impl Platform for Nowhere {
    fn now_ns(&self) -> u64 {
        0
    }
    fn wake(&self, _: &WakeFlag) {}
}

#[test]
fn public_types_have_the_auto_traits_that_they_promise() {
    plain::<Config>();
    plain::<DeliveryReceipt>();
    plain::<Header>();
    plain::<KernelId>();
    plain::<Message<64>>();
    plain::<Registration>();
    plain::<RegisterError>();
    plain::<SendError>();
    plain::<Stats>();
    shared::<Fabric<2, 4, 64>>();
    shared::<LinkHalf<4, 64>>();
    shared::<Spsc<u64, 4>>();
    shared::<Sharded<u64, 2, 4>>();
    shared::<Ticket<u64, 4>>();
    moves::<Endpoint<'static, Nowhere, Fixed<2, 4, 64>>>();
    moves::<Gateway<'static, Nowhere, Fixed<2, 4, 64>, 4>>();
    moves::<LinkEnd<'static, FixedFrames<4, 64>>>();
    moves::<Producer<'static, u64, 4>>();
    moves::<Consumer<'static, u64, 4>>();
}
