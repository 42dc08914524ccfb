//! Meshes of kernels on one thread, in random order, against a reference router.

mod common;

use common::{Manual, ManualEndpoint, fabric, register_all};
use k2k_core::{
    Backlog, Config, DeliveryStatus, Fabric, KernelId, Message, MessageId, Priority, ReceiptError, Registration,
};
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};

const KERNELS: usize = 8;

/// What a routing table does to a message, on paper.
#[derive(Clone, Debug)]
struct Routes(Vec<Vec<Option<usize>>>);

impl Routes {
    /// The status that a message ends with if there is room and time everywhere, and how often it is forwarded.
    fn fate(&self, from: usize, to: usize, hop_limit: u8) -> (DeliveryStatus, u64) {
        let next = |at: usize| self.0[at][to].unwrap_or(to);
        let (mut at, mut hops) = (next(from), 0);
        while at != to {
            if hops == u64::from(hop_limit) {
                return (DeliveryStatus::MaxHopsExceeded, hops);
            }
            hops += 1;
            at = next(at);
        }
        (DeliveryStatus::Delivered, hops)
    }

    fn apply<const S: usize>(&self, fabric: &Fabric<KERNELS, S, 64>, ids: &[KernelId]) {
        for (at, row) in self.0.iter().enumerate() {
            for (to, next) in row.iter().enumerate() {
                if let Some(next) = next {
                    fabric.set_route(ids[at], ids[to], ids[*next]).unwrap();
                }
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Operation {
    Send {
        from: usize,
        to: usize,
        hop_limit: u8,
        high: bool,
    },
    Poll(usize),
    Receive(usize),
    Advance(u64),
    Expire(usize),
    /// Somebody asks for the receipt of a message.
    Ask(usize),
    Route {
        at: usize,
        to: usize,
        next: Option<usize>,
    },
    Replace(usize),
}

#[derive(Clone, Copy)]
struct Mix {
    time: u32,
    routes: u32,
    replace: u32,
    count: usize,
}

fn mesh(mix: Mix) -> impl Strategy<Value = (Routes, Vec<Operation>)> {
    (2..=KERNELS).prop_flat_map(move |kernels| {
        let any = 0..kernels;
        // Half of the pairs are direct; the others go anywhere: loops and detours, to oneself as well.
        let row = proptest::collection::vec(proptest::option::of(0..kernels), kernels);
        let operation = prop_oneof![
            6 => (any.clone(), any.clone(), prop_oneof![Just(0), 1..12u8], proptest::bool::weighted(0.2))
                .prop_map(|(from, to, hop_limit, high)| Operation::Send { from, to, hop_limit, high }),
            6 => any.clone().prop_map(Operation::Poll),
            6 => any.clone().prop_map(Operation::Receive),
            mix.time => (0..60u64).prop_map(Operation::Advance),
            mix.time => any.clone().prop_map(Operation::Expire),
            mix.time => (0..1000usize).prop_map(Operation::Ask),
            mix.routes => (any.clone(), any.clone(), proptest::option::of(0..kernels))
                .prop_map(|(at, to, next)| Operation::Route { at, to, next }),
            mix.replace => any.prop_map(Operation::Replace),
        ];
        let count = if cfg!(miri) { mix.count / 10 } else { mix.count };
        (proptest::collection::vec(row, kernels).prop_map(Routes), proptest::collection::vec(operation, 0..count))
    })
}

const CONFIG: Config = Config {
    delivery_timeout_ns: 200,
    max_clock_offset_ns: 1_000_000,
    hop_limit: 5,
    grace_ns: 0,
    high_share: u32::MAX,
    ..Config::DEFAULT
};

/// A mesh at work, and what is known about each message.
struct Mesh<'f, const S: usize> {
    fabric: &'f Fabric<KERNELS, S, 64>,
    platform: &'f Manual,
    kernels: Vec<Option<ManualEndpoint<'f, KERNELS, S, 64>>>,
    sent: Vec<(MessageId, (DeliveryStatus, u64))>,
    received: HashSet<MessageId>,
    /// Youngest message that was received, per sender, receiver and priority.
    youngest: HashMap<(KernelId, KernelId, u8), u64>,
    /// Whether each pair of kernels has one path for the whole run.
    fixed: bool,
}

impl<'f, const S: usize> Mesh<'f, S> {
    fn new(fabric: &'f Fabric<KERNELS, S, 64>, platform: &'f Manual, routes: &Routes) -> Self {
        let kernels = register_all(fabric, platform, routes.0.len());
        let ids: Vec<_> = kernels.iter().map(|kernel| kernel.id()).collect();
        routes.apply(fabric, &ids);
        Self {
            fabric,
            platform,
            kernels: kernels.into_iter().map(Some).collect(),
            sent: Vec::new(),
            received: HashSet::new(),
            youngest: HashMap::new(),
            fixed: true,
        }
    }

    fn kernel(&mut self, index: usize) -> &mut ManualEndpoint<'f, KERNELS, S, 64> {
        self.kernels[index].as_mut().unwrap()
    }

    fn id(&self, index: usize) -> KernelId {
        self.kernels[index].as_ref().unwrap().id()
    }

    /// Returns whether anything happened.
    fn receive(&mut self, index: usize) -> bool {
        let Some(message) = self.kernel(index).try_receive() else { return false };
        let header = message.header;
        assert_eq!(header.destination(), self.id(index));
        assert!(self.received.insert(header.id()), "{} was received twice", header.id());
        let (source, destination) = (header.source().raw(), header.destination().raw());
        assert_eq!(message.value::<[u64; 3]>(), Ok([u64::from(header.kind), source, destination]));
        let fate = self.sent.iter().find(|(id, _)| *id == header.id()).expect("someone sent it").1;
        if self.fixed {
            assert_eq!((DeliveryStatus::Delivered, u64::from(header.hops)), fate);
            let flow = (header.source(), header.destination(), header.priority);
            let before = self.youngest.insert(flow, header.sequence);
            assert!(before < Some(header.sequence), "first in, first out");
        }
        true
    }

    fn step(&mut self, routes: &Routes, operation: &Operation) {
        match *operation {
            Operation::Send { from, to, hop_limit, high } => {
                let to_id = self.id(to);
                let kind = self.sent.len() as u32;
                let payload = [u64::from(kind), self.id(from).raw(), to_id.raw()];
                let message = Message::from_value(kind, &payload).with_hop_limit(hop_limit);
                let priority = if high { Priority::High } else { Priority::Normal };
                let limit = if hop_limit == 0 { CONFIG.hop_limit } else { hop_limit };
                if let Ok(id) = self.kernel(from).send_priority(to_id, &message, priority) {
                    self.sent.push((id, routes.fate(from, to, limit)));
                }
            }
            Operation::Poll(index) => drop(self.kernel(index).poll()),
            Operation::Receive(index) => drop(self.receive(index)),
            Operation::Advance(ns) => self.platform.advance(ns),
            Operation::Expire(index) => drop(self.kernel(index).expire()),
            Operation::Ask(nth) => {
                if let Some(&(id, _)) = self.sent.get(nth % self.sent.len().max(1)) {
                    let _ = self.fabric.receipt(id, self.platform);
                }
            }
            Operation::Route { at, to, next } => {
                self.fixed = false;
                match next {
                    Some(next) => self.fabric.set_route(self.id(at), self.id(to), self.id(next)).unwrap(),
                    None => self.fabric.remove_route(self.id(at), self.id(to)),
                }
            }
            Operation::Replace(index) => {
                self.fixed = false;
                drop(self.kernels[index].take());
                let who = Registration::new(&format!("k{index}")).unwrap();
                self.kernels[index] =
                    Some(common::handle(self.fabric).register(&who.at(index), self.platform).unwrap());
            }
        }
        // Each message is received, has failed, or lies somewhere: at every moment, as one thread does all of it.
        assert_eq!(self.fabric.total_stats().unaccounted(), self.fabric.pending(), "after {operation:?}");
    }

    /// Lets everybody work until there is nothing left to do without the clock.
    fn settle(&mut self) {
        let mut quiet = 0;
        for _ in 0..10_000 {
            let before = self.fabric.total_stats();
            let mut busy = false;
            for index in 0..self.kernels.len() {
                while self.receive(index) {}
                self.kernel(index).poll();
                busy |= self.kernel(index).backlog() == Backlog::Mail;
            }
            busy |= self.fabric.total_stats() != before;
            // What has been deferred in one round may move in the next.
            quiet = if busy { 0 } else { quiet + 1 };
            if quiet == 2 {
                return;
            }
        }
        panic!("the mesh does not come to rest");
    }

    /// At rest and after every deadline, all is accounted for.
    fn finish(mut self) -> Self {
        self.settle();
        self.platform.advance(1_000_000);
        self.settle();
        let left: usize = (0..self.kernels.len()).map(|index| self.kernel(index).expire()).sum();
        assert_eq!(left, 0);
        let total = self.fabric.total_stats();
        assert_eq!(total.sent, self.sent.len() as u64);
        assert_eq!(total.received, self.received.len() as u64);
        assert_eq!((self.fabric.pending(), total.unaccounted(), total.corrupt), (0, 0, 0), "{total:?}");
        for (id, (fate, _)) in &self.sent {
            match self.fabric.peek_receipt(*id).map(|receipt| receipt.status) {
                Ok(DeliveryStatus::Pending) => panic!("{id} is pending"),
                Ok(DeliveryStatus::Delivered) => assert!(self.received.contains(id)),
                Ok(status) => {
                    assert!(!self.received.contains(id));
                    let lack = [DeliveryStatus::QueueFull, DeliveryStatus::Timeout];
                    assert!(!self.fixed || status == *fate || lack.contains(&status), "{id}: {status}, not {fate}");
                }
                Err(error) => assert_eq!(error, ReceiptError::Overwritten),
            }
        }
        for kernel in self.kernels.iter().flatten() {
            assert_eq!((kernel.pending_count(), kernel.backlog()), (0, Backlog::None));
        }
        self
    }
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: if cfg!(miri) { 2 } else { 128 }, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    /// With room and time for everything, the reference router knows how each message ends.
    #[test]
    fn every_message_ends_as_the_reference_router_says(
        (routes, operations) in mesh(Mix { time: 0, routes: 0, replace: 0, count: 120 }),
    ) {
        let (platform, fabric) = (Manual::at(1), fabric::<KERNELS, 128, 64>(&CONFIG));
        let mut mesh = Mesh::new(&fabric, &platform, &routes);
        operations.iter().for_each(|operation| mesh.step(&routes, operation));
        mesh.settle();
        for (id, (status, _)) in &mesh.sent {
            prop_assert_eq!(fabric.peek_receipt(*id).map(|receipt| receipt.status), Ok(*status));
        }
        let forwards: u64 = mesh.sent.iter().map(|(_, (_, hops))| hops).sum();
        prop_assert_eq!((fabric.total_stats().forwarded, fabric.pending()), (forwards, 0));
    }

    #[test]
    fn a_crowded_mesh_loses_nothing_and_keeps_order(
        (routes, operations) in mesh(Mix { time: 0, routes: 0, replace: 0, count: 400 }),
    ) {
        let (platform, fabric) = (Manual::at(1), fabric::<KERNELS, 2, 64>(&CONFIG));
        let mut mesh = Mesh::new(&fabric, &platform, &routes);
        operations.iter().for_each(|operation| mesh.step(&routes, operation));
        mesh.settle();
        prop_assert_eq!((fabric.pending(), fabric.total_stats().timeout), (0, 0));
        mesh.finish();
    }

    #[test]
    fn a_mesh_in_which_time_passes_loses_nothing(
        (routes, operations) in mesh(Mix { time: 3, routes: 0, replace: 0, count: 400 }),
    ) {
        let (platform, fabric) = (Manual::at(1), fabric::<KERNELS, 4, 64>(&CONFIG));
        let mut mesh = Mesh::new(&fabric, &platform, &routes);
        operations.iter().for_each(|operation| mesh.step(&routes, operation));
        mesh.finish();
    }

    #[test]
    fn a_mesh_whose_routes_change_loses_nothing(
        (routes, operations) in mesh(Mix { time: 1, routes: 4, replace: 0, count: 400 }),
    ) {
        let (platform, fabric) = (Manual::at(1), fabric::<KERNELS, 2, 64>(&CONFIG));
        let mut mesh = Mesh::new(&fabric, &platform, &routes);
        operations.iter().for_each(|operation| mesh.step(&routes, operation));
        mesh.finish();
    }

    #[test]
    fn a_mesh_whose_kernels_come_and_go_loses_nothing(
        (routes, operations) in mesh(Mix { time: 2, routes: 2, replace: 2, count: 400 }),
    ) {
        let (platform, fabric) = (Manual::at(1), fabric::<KERNELS, 2, 64>(&CONFIG));
        let mut mesh = Mesh::new(&fabric, &platform, &routes);
        operations.iter().for_each(|operation| mesh.step(&routes, operation));
        mesh.finish();
    }
}

/// Every inbox on the way round is full of mail that has to go through the next one.
#[test]
fn a_cycle_of_full_inboxes_makes_progress() {
    const SLOTS: usize = 4;
    for distance in 2..KERNELS {
        let (platform, fabric) = (Manual::at(1), fabric::<KERNELS, SLOTS, 64>(&Config { hop_limit: 255, ..CONFIG }));
        let routes = Routes((0..KERNELS).map(|at| vec![Some((at + 1) % KERNELS); KERNELS]).collect());
        let mut mesh = Mesh::new(&fabric, &platform, &routes);
        for from in 0..KERNELS {
            let to = mesh.id((from + distance) % KERNELS);
            let own = mesh.id(from);
            for high in [Priority::Normal, Priority::High] {
                for _ in 0..SLOTS {
                    let kind = mesh.sent.len() as u32;
                    let message = Message::from_value(kind, &[u64::from(kind), own.raw(), to.raw()]);
                    let id = mesh.kernel(from).send_priority(to, &message, high).unwrap();
                    mesh.sent.push((id, (DeliveryStatus::Delivered, distance as u64 - 1)));
                }
                assert!(mesh.kernel(from).send_priority(to, &Message::new(0), high).is_err());
            }
        }
        // The clock stands still, so nothing times out: each message arrives, or its sender is told that there was no
        // room.
        mesh.settle();
        let total = fabric.total_stats();
        assert_eq!((fabric.pending(), total.received + total.queue_full), (0, (2 * KERNELS * SLOTS) as u64));
        assert!(total.received >= (KERNELS * SLOTS) as u64, "{} of {} arrive", total.received, total.sent);
        mesh.finish();
    }
}

#[test]
fn a_deferred_message_follows_a_new_route_and_keeps_its_turn() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 4, 64>(&CONFIG));
    let mut kernels = register_all(&fabric, &platform, 4);
    let ids: Vec<_> = kernels.iter().map(|kernel| kernel.id()).collect();
    let [a, b, c, d] = &mut kernels[..] else { unreachable!() };
    // a -> b -> c -> d, and c is full.
    fabric.set_route(ids[0], ids[3], ids[1]).unwrap();
    fabric.set_route(ids[1], ids[3], ids[2]).unwrap();
    while b.send(ids[2], &Message::new(0)).is_ok() {}
    let by_c: Vec<_> = (0..2).map(|_| a.send(ids[3], &Message::new(0)).unwrap()).collect();
    b.poll();
    let to_c = a.send(ids[2], &Message::new(0));
    assert!(to_c.is_ok());
    // d itself has room, and b is told that it can be reached directly.
    fabric.remove_route(ids[1], ids[3]);
    let direct: Vec<_> = (0..2).map(|_| a.send(ids[3], &Message::new(0)).unwrap()).collect();
    b.poll();
    let arrived: Vec<_> = core::iter::from_fn(|| d.try_receive()).map(|message| message.header.id()).collect();
    assert_eq!(arrived, [by_c, direct].concat());
    while c.try_receive().is_some() {}
    assert_eq!((b.backlog(), fabric.pending()), (Backlog::None, 0));
}

/// Messages deferred for a hop that is full must not hold up those deferred for another, whatever the routes were
/// before.
#[test]
fn messages_deferred_for_two_hops_that_swap_roles_all_arrive() {
    let (platform, fabric) = (Manual::at(1), fabric::<6, 4, 64>(&CONFIG));
    let mut kernels = register_all(&fabric, &platform, 6);
    let ids: Vec<_> = kernels.iter().map(|kernel| kernel.id()).collect();
    let [a, b, c, d, e, f] = &mut kernels[..] else { unreachable!() };
    // For e by way of c, for f by way of d; both are full.
    for (to, hop) in [(ids[4], ids[2]), (ids[5], ids[3])] {
        fabric.set_route(ids[0], to, ids[1]).unwrap();
        fabric.set_route(ids[1], to, hop).unwrap();
        while b.send(hop, &Message::new(0)).is_ok() {}
    }
    a.send(ids[4], &Message::new(0)).unwrap();
    a.send(ids[5], &Message::new(0)).unwrap();
    b.poll();
    assert_eq!(b.backlog(), Backlog::Transit);
    fabric.set_route(ids[1], ids[4], ids[3]).unwrap();
    fabric.set_route(ids[1], ids[5], ids[2]).unwrap();
    while d.try_receive().is_some() {}
    b.poll();
    d.poll();
    assert!(e.try_receive().is_some(), "the first has gone through d");
    while c.try_receive().is_some() {}
    b.poll();
    c.poll();
    assert!(f.try_receive().is_some());
    assert_eq!(b.backlog(), Backlog::None);
}

#[test]
fn routes_can_be_asked_for_replaced_and_removed() {
    let (platform, fabric) = (Manual::at(1), fabric::<4, 4, 64>(&CONFIG));
    let mut kernels = register_all(&fabric, &platform, 3);
    let ids: Vec<_> = kernels.iter().map(|kernel| kernel.id()).collect();
    assert_eq!(fabric.route(ids[0], ids[2]), None);
    fabric.set_route(ids[0], ids[2], ids[1]).unwrap();
    assert_eq!(fabric.route(ids[0], ids[2]), Some(ids[1]));
    fabric.set_route(ids[0], ids[2], ids[0]).unwrap();
    assert_eq!(fabric.route(ids[0], ids[2]), Some(ids[0]));
    fabric.remove_route(ids[0], ids[2]);
    assert_eq!(fabric.route(ids[0], ids[2]), None);
    let gone = kernels.pop().unwrap().id();
    for (at, to, next) in [(gone, ids[0], ids[1]), (ids[0], gone, ids[1]), (ids[0], ids[1], gone)] {
        assert_eq!(fabric.set_route(at, to, next).unwrap_err().0, gone);
    }
    let outside = KernelId::new(99, 1);
    assert_eq!((fabric.set_route(ids[0], outside, ids[1]).is_err(), fabric.route(outside, ids[0])), (true, None));
    fabric.remove_route(outside, ids[0]);
}
