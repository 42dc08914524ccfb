//! Links: halves that are found whole, and receipts that a gateway holds while the remote side decides.
#![cfg(k2k_loom)]

mod world;

use core::cell::Cell;
use k2k_core::gateway::GatewayConfig;
use k2k_core::link::LinkError;
use k2k_core::sync::spin_hint;
use k2k_core::{DeliveryStatus, Fabric, Fixed, Gateway, LinkEnd, LinkHalf, Message, Registration};
use k2k_loom_tests::model;
use loom::thread;
use world::{At, CONFIG, EARLY, LATE, assert_adds_up, receive, register, send, shared};

type Half = LinkHalf<4, 0>;
type Domain = Fabric<3, 1, 0>;
type Side = Gateway<'static, At, Fixed<3, 1, 0>, 4>;

/// Someone who sees that a half is set up sees how.
#[test]
fn set_up() {
    model("link.set_up", 28, || {
        shared(Half::new(), |half| {
            let owner = thread::spawn(move || half.set_up().unwrap());
            let outcome = loop {
                match half.check() {
                    Err(LinkError::NotSetUp) => spin_hint(),
                    outcome => break outcome,
                }
            };
            assert_eq!(outcome, Ok(()));
            owner.join().unwrap();
        });
    });
}

/// Two of one domain set the same half up: one of them does, the other finds it so, or unfinished.
#[test]
fn set_up_twice() {
    model("link.set_up_twice", 10, || {
        shared(Half::new(), |half| {
            let other = thread::spawn(move || half.set_up());
            let outcomes = [half.set_up(), other.join().unwrap()];
            assert!(
                outcomes.iter().all(|outcome| matches!(outcome, Ok(()) | Err(LinkError::NotSetUp))),
                "{outcomes:?}"
            );
            assert!(outcomes.contains(&Ok(())));
            assert_eq!(half.check(), Ok(()));
        });
    });
}

/// What a gateway needs; a model's own thread has less.
const STACK: usize = 1 << 17;

/// Two domains and the link between them, and a gateway each.
fn domains(f: fn([&'static Domain; 2], [Box<Side>; 2])) {
    let body = move || {
        shared((Domain::new(), Domain::new()), |(near, far)| {
            shared([Half::new(), Half::new()], |[near_half, far_half]| {
                f([near, far], [side(near, near_half, far_half), side(far, far_half, near_half)]);
            });
        });
    };
    spawn(body).join().unwrap();
}

fn spawn<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
    thread::Builder::new().stack_size(STACK).spawn(f).unwrap()
}

fn side(fabric: &'static Domain, near: &'static Half, far: &'static Half) -> Box<Side> {
    fabric.init(&CONFIG).unwrap();
    near.set_up().unwrap();
    far.set_up().unwrap();
    let endpoint = fabric.register(&Registration::new("gateway").unwrap().at(0), At(Cell::new(EARLY))).unwrap();
    let config = GatewayConfig { silence_ns: 1_000, grace_ns: 1_000, export_all: false };
    let mut place = Box::new_uninit();
    // SAFETY: the two sides open an end each, of the same two halves.
    let link = unsafe { LinkEnd::open(near.handle(), far.handle()) }.unwrap();
    Gateway::new_in(&mut place, endpoint, link, config);
    // SAFETY: `new_in` has initialised it.
    unsafe { place.assume_init() }
}

/// The sender gives its message up while the gateway takes it, and the remote side receives it: it times out and is not
/// received, or is received and does not time out, and the sender waits for the answer in between.
#[test]
fn in_transit() {
    model("link.in_transit", 36, || {
        domains(|fabrics, [mut here, mut there]| {
            let mut sender = register(fabrics[0], 1, "a");
            let mut receiver = register(fabrics[1], 1, "b");
            there.export(receiver.id());
            here.export(sender.id());
            for _ in 0..2 {
                here.pass();
                there.pass();
            }
            here.pass();
            let to = fabrics[0].find("b").unwrap();
            let id = send(&mut sender, to, 1);
            let carrier = spawn(move || {
                here.pass();
                there.pass();
                let got = receiver.try_receive();
                there.pass();
                here.pass();
                (here, there, receiver, got)
            });
            sender.platform().0.set(LATE);
            let asked = sender.receipt(id).unwrap().status;
            let left = sender.expire();
            let (here, there, receiver, got) = carrier.join().unwrap();
            let status = sender.receipt(id).unwrap().status;
            let expected = if got.is_some() { DeliveryStatus::Delivered } else { DeliveryStatus::Timeout };
            assert_eq!(status, expected);
            assert!(asked == expected || asked == DeliveryStatus::Pending && got.is_some(), "{asked}, then {status}");
            assert!(left == 0 || got.is_some(), "given up, and yet pending");
            assert_eq!(here.in_flight(), (0, 0));
            assert_adds_up(&fabrics[0].total_stats());
            assert_adds_up(&fabrics[1].total_stats());
            drop((here, there, receiver));
        });
    });
}

/// The sender needs the receipt of a message for another one while the message is on the remote side: the gateway
/// counts it.
#[test]
fn overwritten() {
    model("link.overwritten", 9, || {
        domains(|fabrics, [mut here, mut there]| {
            let mut sender = register(fabrics[0], 1, "a");
            let mut receiver = register(fabrics[1], 1, "b");
            there.export(receiver.id());
            here.export(sender.id());
            for _ in 0..2 {
                here.pass();
                there.pass();
            }
            here.pass();
            let to = fabrics[0].find("b").unwrap();
            let id = send(&mut sender, to, 1);
            here.pass();
            there.pass();
            assert_eq!(receive(&mut receiver), 1);
            there.pass();
            let carrier = spawn(move || {
                here.pass();
                (here, there, receiver)
            });
            let own = sender.id();
            for kind in 2..=4 {
                sender.send(own, &Message::new(kind)).unwrap();
                assert_eq!(receive(&mut sender), kind);
            }
            // Not asked for here: loom lets the gateway's exchange read the store before the sender's and come after
            // it.
            assert_eq!(id.sequence, 1);
            let (here, there, receiver) = carrier.join().unwrap();
            assert_eq!(here.in_flight(), (0, 0));
            assert_adds_up(&fabrics[0].total_stats());
            drop((here, there, receiver));
        });
    });
}
