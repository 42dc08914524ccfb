//! Indices change hands: addresses never come back, dead owners are known, and one that was not dead finds out.

mod common;

use common::{Manual, fabric, register_all};
use k2k_core::fabric::{IndexOwner, Status};
use k2k_core::{
    Command, Config, DeliveryStatus, Fabric, KernelId, Message, Platform, Priority, RegisterError, Registration,
    SendError, WakeFlag,
};

type Small = Fabric<4, 4, 64>;

/// A platform whose kernels have an owner.
struct Of<'p>(u64, &'p Manual);

impl Platform for Of<'_> {
    fn now_ns(&self) -> u64 {
        self.1.now_ns()
    }

    fn wake(&self, wake_flag: &WakeFlag) {
        self.1.wake(wake_flag);
    }

    fn owner(&self) -> u64 {
        1 << 63 | self.0
    }
}

fn named(name: &str) -> Registration {
    Registration::new(name).unwrap()
}

/// Owners that an index had before its first owner's address came back, when generations had 16 bits.
const TURN: u32 = if cfg!(miri) { 4 } else { 65_535 };

/// Mail for the first owner waits in a forwarder's inbox and in its store while the index has 65 535 and more owners.
#[test]
fn an_address_never_comes_back() {
    for more in [0, 1] {
        let platform = Manual::at(1_000);
        let fabric: Box<Small> = fabric(&Config::default());
        let mut kernels = register_all(&fabric, &platform, 4);
        let ids: Vec<_> = kernels.iter().map(|kernel| kernel.id()).collect();
        let [from, forwarder, first, other] = [ids[0], ids[1], ids[2], ids[3]];
        fabric.set_route(from, first, forwarder).unwrap();
        fabric.set_route(forwarder, first, other).unwrap();
        let mut sent = Vec::new();
        // Four fill the last hop, four are deferred by the forwarder, four stay in its inbox.
        for kind in 0..12 {
            sent.push(kernels[0].send(first, &Message::new(kind)).unwrap());
            if kind < 8 {
                kernels[1].poll();
            }
        }
        assert_eq!(kernels[1].pending_count(), 8, "four are deferred, four wait in the inbox");
        drop(kernels.remove(2));
        for _ in 1..TURN + more {
            drop(fabric.register(&named("between").at(first.index()), &platform).unwrap());
        }
        let mut now = fabric.register(&named("now").at(first.index()), &platform).unwrap();
        assert_eq!(now.id().generation(), first.generation() + TURN + more);

        assert!(!fabric.is_registered(first) && fabric.name(first).is_none());
        assert!(fabric.command(first, Command::Stop, &platform).is_err());
        assert_eq!(now.command(), Command::Run);
        assert!(fabric.set_route(from, first, forwarder).is_err() && fabric.route(from, first).is_none());
        assert_eq!(fabric.owner(first), None);
        assert_eq!((fabric.phase(first), fabric.heartbeat(first)), (None, None), "not its successor's");
        fabric.set_route(from, now.id(), forwarder).unwrap();
        fabric.remove_route(from, first);
        assert_eq!(fabric.route(from, now.id()), Some(forwarder), "it is not the first owner's to remove");
        fabric.remove_route(from, now.id());
        assert_eq!(kernels[0].send(first, &Message::new(1)), Err(SendError::NotFound { kernel: first }));

        for _ in 0..4 {
            for kernel in &mut kernels[1..] {
                kernel.poll();
            }
            assert!(now.try_receive().is_none(), "mail for its predecessor");
        }
        for id in sent {
            assert_eq!(kernels[0].receipt(id).unwrap().status, DeliveryStatus::NotFound);
        }
        now.fail();
        assert!(fabric.clear_failed(first).is_err());
    }
}

#[test]
fn free_indices_are_claimed_in_turn() {
    let platform = Manual::at(1_000);
    let fabric: Box<Small> = fabric(&Config::default());
    let _stays = fabric.register(&named("stays").at(1), &platform).unwrap();
    let indices: Vec<_> =
        (0..7).map(|_| fabric.register(&named("k"), &platform).unwrap().id()).map(|id| id.index()).collect();
    assert_eq!(indices, [0, 2, 3, 0, 2, 3, 0]);
}

#[test]
fn an_index_without_generations_is_not_an_index_that_is_in_use() {
    let platform = Manual::at(1_000);
    let fabric: Box<Fabric<2, 4, 64>> = fabric(&Config::default());
    let _stays = fabric.register(&named("stays").at(1), &platform).unwrap();
    let state = fabric.handle().table_bytes().start + 128;
    // SAFETY: the state of index 0, which nobody uses now; all of it is behind atomics.
    unsafe {
        let state = core::ptr::from_ref(&*fabric).cast_mut().cast::<u8>().add(state).cast::<u64>();
        state.write(u64::from(u32::MAX - 2) << 32);
    }
    let last = fabric.register(&named("last"), &platform).unwrap();
    assert_eq!(last.id(), KernelId::new(0, u32::MAX - 1));
    let full = RegisterError::NoFreeIndex { kernels: 2, used_up: 0 };
    assert_eq!(fabric.register(&named("k"), &platform).unwrap_err(), full);
    drop(last);
    let used_up = RegisterError::NoFreeIndex { kernels: 2, used_up: 1 };
    assert_eq!(fabric.register(&named("k"), &platform).unwrap_err(), used_up);
    assert!(used_up.to_string().contains("1 are used up"), "{used_up}");
    let refused = fabric.register(&named("k").at(0), &platform).unwrap_err();
    assert_eq!(refused, RegisterError::IndexUsedUp { index: 0 });
    assert_eq!(fabric.register(&named("k").at(1), &platform).unwrap_err(), RegisterError::IndexInUse { index: 1 });
}

#[test]
fn a_dead_owners_index_is_seized_and_its_mail_ends() {
    let platform = Manual::at(1_000);
    let fabric: Box<Small> = fabric(&Config::default());
    let mut sender = fabric.register(&named("sender"), Of(1, &platform)).unwrap();
    let dead = fabric.register(&named("dead"), Of(2, &platform)).unwrap();
    let (id, owner) = (dead.id(), dead.platform().owner());
    core::mem::forget(dead);
    let owners: Vec<_> = fabric.owners().collect();
    assert_eq!(owners[1], IndexOwner { id, status: Some(Status::Registered), owner });
    assert_eq!((fabric.owner(id), fabric.owner(KernelId::new(3, 1))), (Some(owner), None));
    let normal = sender.send(id, &Message::new(1)).unwrap();
    let high = sender.send_priority(id, &Message::new(2), Priority::High).unwrap();

    // SAFETY: nobody uses it any more.
    let seize = |owner| unsafe { fabric.seize(id.index(), owner, Of(3, &platform)) };
    assert_eq!(seize(sender.platform().owner()).unwrap_err(), RegisterError::IndexInUse { index: id.index() });
    let successor = seize(owner).unwrap();
    assert_eq!(successor.id(), KernelId::new(id.index() as u16, 2));
    assert!(!fabric.is_registered(id) && !fabric.is_registered(successor.id()));
    assert_eq!(fabric.owner(successor.id()), Some(successor.platform().owner()));
    drop(successor);
    for id in [normal, high] {
        assert_eq!(sender.receipt(id).unwrap().status, DeliveryStatus::NotFound);
    }
    assert!(seize(owner).is_err(), "once");
    assert_eq!(fabric.register(&named("next").at(id.index()), &platform).unwrap().id().generation(), 3);
}

// On a GPU nobody is evicted: see `Endpoint::is_evicted`.
#[cfg(not(k2k_device))]
#[test]
fn an_owner_that_was_not_dead_finds_out_and_does_no_harm() {
    let platform = Manual::at(1_000);
    let fabric: Box<Small> = fabric(&Config::default());
    let mut sender = fabric.register(&named("sender"), Of(1, &platform)).unwrap();
    let mut zombie = fabric.register(&named("zombie"), Of(2, &platform)).unwrap();
    let (old, owner) = (zombie.id(), zombie.platform().owner());
    assert!(!zombie.is_evicted() && !zombie.is_stopping());
    let before = zombie.send(sender.id(), &Message::new(1)).unwrap();
    // SAFETY: one thread, which is in no operation of it.
    drop(unsafe { fabric.seize(old.index(), owner, Of(3, &platform)) }.unwrap());
    let mut next = fabric.register(&named("next").at(old.index()), Of(4, &platform)).unwrap();
    let sent = sender.send(next.id(), &Message::new(2)).unwrap();
    let stats = (next.stats(), fabric.stats(next.id()).unwrap());

    assert!(zombie.is_evicted() && zombie.is_stopping());
    assert_eq!(zombie.command(), Command::Stop);
    assert_eq!(zombie.send(sender.id(), &Message::new(3)), Err(SendError::Evicted { kernel: old }));
    let waiting =
        zombie.send_waiting(sender.id(), &Message::new(3), Priority::High, || unreachable!("it does not wait"));
    assert_eq!(waiting, Err(SendError::Evicted { kernel: old }));
    assert!(zombie.try_receive().is_none() && zombie.poll() == 0 && zombie.expire() == 0);
    assert!(zombie.fall_asleep(Command::Run).is_none());
    zombie.heartbeat();
    assert_eq!(zombie.receipt(before).unwrap().status, DeliveryStatus::Pending, "it may ask");
    drop(zombie);

    assert_eq!((next.stats(), fabric.stats(next.id()).unwrap()), stats);
    assert_eq!((fabric.is_registered(next.id()), fabric.heartbeat(next.id())), (true, Some(0)));
    assert_eq!(next.try_receive().map(|message| message.header.kind), Some(2));
    assert_eq!(sender.receipt(sent).unwrap().status, DeliveryStatus::Delivered);
    assert_eq!(sender.try_receive().map(|message| message.header.kind), Some(1), "what it sent before counts");
}
