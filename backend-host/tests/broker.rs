//! The control plane.

mod common;
use common::{Echo, GUARD, broker, eventually, patient};
use core::time::Duration;
use k2k::ControlError;
use k2k::fabric::Event;
use k2k::{
    Broker, Builder, Config, DefaultFabric, DeliveryStatus, EndpointError, Fixed, Message, ReceiptError, RegisterError,
    StartOptions, UnregisterError,
};

#[test]
fn a_builder_sets_every_part_of_the_configuration() {
    let broker: Broker<Fixed<2, 4, 64>> = Builder::new()
        .delivery_timeout(Duration::from_millis(250))
        .hop_limit(5)
        .max_clock_offset(Duration::from_secs(2))
        .grace(Duration::from_nanos(77))
        .high_share(3)
        .tracing(true)
        .latency(true)
        .build()
        .unwrap();
    let expected = Config {
        delivery_timeout_ns: 250_000_000,
        max_clock_offset_ns: 2_000_000_000,
        hop_limit: 5,
        grace_ns: 77,
        high_share: 3,
        tracing: true,
        latency: true,
        clock: k2k::platform::clock_id(),
        domain: k2k::owner::domain(),
    };
    assert_eq!(broker.memory().config(), expected);
}

#[test]
fn the_default_shape_needs_no_parameters() {
    let broker: Broker = Broker::builder().build().unwrap();
    assert_eq!(k2k::Memory::<k2k::Fixed<16, 256, 192>>::SIZE, size_of::<DefaultFabric>());
    let endpoint: k2k::Endpoint = broker.register("me").unwrap();
    drop(endpoint);
}

#[test]
fn kernels_are_found_by_name_while_they_are_registered() {
    let broker = broker::<2, 4, 64>();
    let a = broker.register("a").unwrap();
    let b = broker.register_parking("b").unwrap();
    assert_eq!(broker.find("b"), Some(b.id()));
    assert_eq!(
        broker.kernels().iter().map(|(id, name)| (*id, name.to_string())).collect::<Vec<_>>(),
        [(a.id(), "a".to_owned()), (b.id(), "b".to_owned())]
    );
    assert_eq!(
        broker.register("c").unwrap_err(),
        EndpointError::Register(RegisterError::NoFreeIndex { kernels: 2, used_up: 0 })
    );
    assert_eq!(broker.register("b").unwrap_err(), EndpointError::Register(RegisterError::NameInUse { by: b.id() }));
    assert!(matches!(broker.register(""), Err(EndpointError::Name(_))));
    let gone = b.id();
    b.unregister();
    assert!(!broker.is_registered(gone) && broker.find("b").is_none());
    assert_ne!(broker.register("b").unwrap().id(), gone);
}

#[test]
fn unregister_stops_a_kernel_that_this_broker_started_and_no_other() {
    let broker = broker::<4, 8, 64>();
    let mine = broker.register("mine").unwrap();
    let handle = broker.start("echo", Echo::default(), StartOptions::default()).unwrap();
    let id = handle.id();
    assert_eq!(broker.unregister(mine.id()), Err(UnregisterError::NotStartedHere(mine.id())));
    let other = Broker::new(broker.memory().clone());
    assert_eq!(other.unregister(id), Err(UnregisterError::NotStartedHere(id)));
    broker.clone().unregister(id).unwrap();
    assert!(handle.join().unwrap().stopped);
    assert_eq!(broker.unregister(id), Err(UnregisterError::NotRegistered(id)));
}

#[test]
fn routes_are_per_kernel_or_everywhere() {
    let broker = patient::<6, 8, 64>().hop_limit(4).build().unwrap();
    let mut a = broker.register("a").unwrap();
    let mut b = broker.register("b").unwrap();
    let mut hub = broker.register("hub").unwrap();
    let mut target = broker.register("target").unwrap();
    let target_id = target.id();

    broker.add_route(a.id(), target_id, b.id()).unwrap();
    assert_eq!(broker.route(a.id(), target_id), Some(b.id()));
    a.send(target_id, &Message::new(0)).unwrap();
    assert_eq!((target.try_receive(), b.poll()), (None, 1));
    assert_eq!(target.try_receive().unwrap().header.hops, 1);
    broker.remove_route(a.id(), target_id);
    assert_eq!(broker.route(a.id(), target_id), None);

    broker.add_route_everywhere(target_id, hub.id()).unwrap();
    let mut late = broker.register("late").unwrap();
    for endpoint in [&mut a, &mut b, &mut late] {
        endpoint.send(target_id, &Message::new(0)).unwrap();
    }
    assert_eq!((target.try_receive(), hub.poll()), (None, 3));
    for _ in 0..3 {
        assert_eq!(target.try_receive().unwrap().header.hops, 1);
    }
    assert_eq!((broker.route(hub.id(), target_id), broker.route(target_id, target_id)), (None, None));

    broker.remove_route_everywhere(target_id);
    late.send(target_id, &Message::new(0)).unwrap();
    assert_eq!(target.try_receive().unwrap().header.hops, 0);
    drop(hub);
    let gone = broker.find("late").unwrap();
    drop(late);
    assert_eq!(broker.add_route_everywhere(target_id, gone), Err(ControlError::NotRegistered(gone)));
}

#[test]
fn receipts_statistics_and_traces_can_be_read_by_anyone() {
    let broker = broker::<4, 4, 64>();
    broker.set_tracing(true);
    let mut a = broker.register("a").unwrap();
    let mut b = broker.register("b").unwrap();
    let ids: Vec<_> = (0..3).map(|i| a.send(b.id(), &Message::new(i)).unwrap()).collect();
    assert_eq!(broker.receipt(ids[0]).unwrap().status, DeliveryStatus::Pending);
    assert_eq!(b.pending_count(), 3);
    while b.try_receive().is_some() {}
    assert_eq!(broker.receipt(ids[0]).unwrap().status, DeliveryStatus::Delivered);
    assert_eq!((broker.stats().sent, broker.stats().received, broker.pending()), (3, 3, 0));
    assert_eq!(broker.kernel_stats(a.id()).unwrap().sent, 3);
    let trace = broker.trace(b.id());
    assert_eq!(trace.iter().map(|e| (e.event, e.id)).collect::<Vec<_>>(), ids.map_to(Event::Received));
    assert!(trace.is_sorted_by_key(|e| e.number));
    for i in 0..16 {
        a.send(b.id(), &Message::new(i)).unwrap();
        b.try_receive().unwrap();
    }
    assert_eq!(broker.receipt(ids[0]), Err(ReceiptError::Overwritten));
    b.unregister();
}

trait MapTo {
    fn map_to(&self, event: Event) -> Vec<(Event, k2k::MessageId)>;
}

impl MapTo for Vec<k2k::MessageId> {
    fn map_to(&self, event: Event) -> Vec<(Event, k2k::MessageId)> {
        self.iter().map(|id| (event, *id)).collect()
    }
}

#[test]
fn mail_for_a_kernel_that_leaves_ends_in_not_found() {
    let broker = broker::<4, 4, 64>();
    let mut a = broker.register("a").unwrap();
    let b = broker.register("b").unwrap();
    let id = a.send(b.id(), &Message::new(0)).unwrap();
    drop(b);
    assert_eq!(a.receipt(id).unwrap().status, DeliveryStatus::NotFound);
    assert_eq!(broker.pending(), 0);
}

#[test]
fn brokers_on_one_file_see_the_same_kernels() {
    let shm = common::Shm::new("brokers");
    let one: Broker<Fixed<4, 8, 64>> = patient().create(&shm.0).build().unwrap();
    let two: Broker<Fixed<4, 8, 64>> = Builder::new().open(&shm.0).build().unwrap();
    let handle = one.start("echo", Echo::default(), StartOptions::default()).unwrap();
    let mut me = two.register_parking("me").unwrap();
    me.send(two.find("echo").unwrap(), &Message::new(1)).unwrap();
    assert_eq!(me.receive(GUARD).unwrap().header.kind, 1);
    two.command(handle.id(), k2k::Command::Stop).unwrap();
    assert_eq!(handle.join().unwrap().handled, 1);
    eventually("it has left", || two.find("echo").is_none());
}

#[test]
fn a_builder_takes_the_shape_from_wherever_it_is_written() {
    let spelt = Broker::<Fixed<8, 4, 64>>::builder().build().unwrap();
    let inferred: Broker<Fixed<8, 4, 64>> = Broker::builder().build().unwrap();
    let default: Broker = Broker::builder().build().unwrap();
    for _ in [spelt, inferred] {}
    assert_eq!(size_of_val(&**default.memory()), size_of::<DefaultFabric>());
}
