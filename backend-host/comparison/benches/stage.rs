//! Rings and kernels, warmed up, for counting.

use k2k_core::WakeFlag;
use k2k_core::ring::sharded::{ShardProducer, ShardedConsumer};
use k2k_core::ring::spsc::{Consumer, Producer};
use k2k_core::ring::ticket::{TicketConsumer, TicketProducer};
use k2k_core::ring::{Sharded, Spsc, Ticket};
use k2k_core::{Config, Endpoint, Fabric, FabricRef, Fixed, KernelId, Message, Platform, Read, Registration, Shape};

/// Operations per count.
pub const TIMES: usize = 64;
const SLOTS: usize = 2 * TIMES;

/// With the stamp, one line.
pub type Words = [u64; 7];
pub type SpscEnds = (Producer<'static, Words, SLOTS>, Consumer<'static, Words, SLOTS>);
pub type ShardedEnds = (ShardProducer<'static, Words, 8, SLOTS>, ShardedConsumer<'static, Words, 8, SLOTS>);
pub type TicketEnds = (TicketProducer<'static, Words, SLOTS>, TicketConsumer<'static, Words, SLOTS>);
/// The kernels' shape, known when this is compiled, and the same read from the fabric's header.
pub type Known = Fixed<3, SLOTS, 64>;
pub type Found = Read<8, 64>;

/// A clock that costs one load: the instructions of a backend's clock are the backend's.
pub struct Frozen(u64);

impl Platform for Frozen {
    fn now_ns(&self) -> u64 {
        self.0
    }

    fn wake(&self, _: &WakeFlag) {}
}

fn zeroed<T>() -> &'static T {
    // SAFETY: used below for rings and fabrics only, of which zeroed memory is an idle one.
    Box::leak(unsafe { Box::<T>::new_zeroed().assume_init() })
}

macro_rules! ring {
    ($(#[$doc:meta])* $name:ident: $ends:ty = $ring:ty, $tx:ident => $producer:expr) => {
        $(#[$doc])*
        pub fn $name(filled: usize) -> $ends {
            let $tx: &'static $ring = zeroed();
            let (mut tx, mut rx) = ($producer, $tx.consumer().expect("the first consumer"));
            for i in 0..SLOTS {
                tx.push(&[i as u64; 7]).expect("room");
                rx.pop();
            }
            for i in 0..filled {
                tx.push(&[i as u64; 7]).expect("room");
            }
            (tx, rx)
        }
    };
}

ring! {
    /// A ring through which a lap has gone, with that many messages in it.
    spsc: SpscEnds = Spsc<Words, SLOTS>, ring => ring.producer().expect("the first producer")
}
ring! {
    /// A sharded queue of which one shard is in use, as [`spsc`].
    sharded: ShardedEnds = Sharded<Words, 8, SLOTS>, ring => ring.producer(3).expect("a free shard")
}
ring! {
    /// A ring for many producers, as [`spsc`].
    ticket: TicketEnds = Ticket<Words, SLOTS>, ring => ring.producer(3)
}

/// A sender, a forwarder, a receiver, and a full message.
pub struct Stage<Sh: Shape> {
    pub a: Endpoint<'static, Frozen, Sh>,
    pub f: Endpoint<'static, Frozen, Sh>,
    pub b: Endpoint<'static, Frozen, Sh>,
    pub to: KernelId,
    pub message: Message<64>,
}

macro_rules! stage {
    ($($(#[$doc:meta])* $name:ident: $shape:ty;)*) => {
        $($(#[$doc])*
        pub fn $name(sent: usize, through: bool) -> Box<Stage<$shape>> {
            let fabric: &'static Fabric<3, SLOTS, 64> = zeroed();
            fabric.init(&Config::default()).expect("zeroed memory is an idle fabric");
            let (base, len) = (core::ptr::from_ref(fabric).cast_mut().cast(), size_of_val(fabric));
            // SAFETY: all of it is behind atomics and cells, and lives for ever.
            let fabric = unsafe { FabricRef::<$shape>::open_raw(base, len) }.expect("set up above");
            let register = |name| {
                let who = Registration::new(name).expect("a short name");
                fabric.register(&who, Frozen(1_000_000_000)).expect("a free index")
            };
            let (a, f, b) = (register("a"), register("f"), register("b"));
            let to = b.id();
            if through {
                fabric.set_route(a.id(), to, f.id()).expect("all are registered");
            }
            let message = Message::from_bytes(1, &[7; 64]).expect("64 bytes fit");
            let mut stage = Box::new(Stage { a, f, b, to, message });
            for _ in 0..SLOTS {
                stage.a.send(to, &message).expect("room");
                stage.f.poll();
                stage.b.try_receive().expect("a message");
            }
            for _ in 0..sent {
                stage.a.send(to, &message).expect("room");
            }
            stage
        })*
    };
}

// Not one generic function: the compiler would inline less in each of its copies.
stage! {
    /// Three kernels, and that many messages sent from `a` to `b`: directly, or on their way through `f`.
    stage: Known;
    /// As [`stage`], of a shape that is read.
    stage_read: Found;
}
