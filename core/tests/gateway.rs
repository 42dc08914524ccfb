//! Two domains and what joins them: each promise of a fabric, kept across a link.
#![allow(clippy::incompatible_msrv, reason = "the declared version is that of the library; tests use the newest")]

mod common;

use common::{Chosen, Manual, fabric, handle};
use k2k_core::gateway::{Gateway, GatewayConfig};
use k2k_core::link::{HalfRef, LinkError};
use k2k_core::{
    CLOCK_MARGIN_NS, Config, DeliveryStatus, Endpoint, Fabric, LinkEnd, LinkHalf, Message, MessageId, Priority,
    ReceiptError, Registration, SendError, Shape,
};

const KERNELS: usize = 6;
const SLOTS: usize = 8;
const FRAMES: usize = 16;
type Domain = Fabric<KERNELS, SLOTS, 64>;
type Half = LinkHalf<FRAMES, 64>;
/// Of both kinds of shape: the tests of `run_time_shape.rs` are these once more.
type Side<'w> = Gateway<'w, &'w Manual, Chosen<KERNELS, SLOTS, 64>, FRAMES>;
type End<'w> = Endpoint<'w, &'w Manual, Chosen<KERNELS, SLOTS, 64>>;
type Frames<const N: usize> = <Chosen<1, 1, 64> as Shape>::Frames<N>;

const TIMEOUT_NS: u64 = 1_000;
const CONFIG: Config = Config {
    delivery_timeout_ns: TIMEOUT_NS,
    max_clock_offset_ns: 1_000_000,
    hop_limit: 4,
    grace_ns: GRACE_NS,
    // Otherwise one message: too little to see a ring fill up.
    high_share: u32::MAX,
    tracing: true,
    ..Config::DEFAULT
};
/// After so long, a sender gives its message up.
const OVERDUE_NS: u64 = TIMEOUT_NS + CLOCK_MARGIN_NS + 1;
const GRACE_NS: u64 = 2 * CLOCK_MARGIN_NS;
const GATEWAY: GatewayConfig = GatewayConfig { silence_ns: 1_000_000, grace_ns: GRACE_NS, export_all: true };

/// A link on the heap, both halves set up.
fn link() -> [Box<Half>; 2] {
    let halves = [0, 1].map(|_| {
        // SAFETY: all zero is an unused half.
        unsafe { Box::<Half>::new_zeroed().assume_init() }
    });
    halves.iter().for_each(|half| half.set_up().unwrap());
    halves
}

/// The two halves of each link of these tests make one link.
fn open_end<'l, const N: usize>(
    near: &'l LinkHalf<N, 64>,
    far: &'l LinkHalf<N, 64>,
) -> Result<LinkEnd<'l, Frames<N>>, LinkError> {
    // SAFETY: see above.
    unsafe { LinkEnd::open(half(near)?, half(far)?) }
}

/// Half of a link as gateways of the kind of shape see it that the tests are for.
fn half<const N: usize>(half: &LinkHalf<N, 64>) -> Result<HalfRef<'_, Frames<N>>, LinkError> {
    // SAFETY: all of a half is behind atomics and cells.
    unsafe { HalfRef::open_raw(core::ptr::from_ref(half).cast_mut().cast(), size_of_val(half)) }
}

fn register<'w>(fabric: &'w Domain, platform: &'w Manual, name: &str) -> End<'w> {
    handle(fabric).register(&Registration::new(name).unwrap(), platform).unwrap()
}

fn gateway<'w>(
    fabric: &'w Domain,
    platform: &'w Manual,
    [near, far]: [&'w Half; 2],
    config: GatewayConfig,
) -> Side<'w> {
    // Names of gateways clash if both are announced, which is no harm.
    let endpoint = register(fabric, platform, "gateway");
    Gateway::new(endpoint, open_end(near, far).unwrap(), config)
}

/// What both domains are made of.
struct Memory {
    platform: Manual,
    fabrics: [Box<Domain>; 2],
    halves: [Box<Half>; 2],
}

impl Memory {
    fn new() -> Self {
        Self { platform: Manual::at(10_000), fabrics: [fabric(&CONFIG), fabric(&CONFIG)], halves: link() }
    }

    fn sides(&self) -> [Side<'_>; 2] {
        [self.side(0), self.side(1)]
    }

    fn side(&self, side: usize) -> Side<'_> {
        gateway(&self.fabrics[side], &self.platform, [&self.halves[side], &self.halves[1 - side]], GATEWAY)
    }

    fn register(&self, side: usize, name: &str) -> End<'_> {
        register(&self.fabrics[side], &self.platform, name)
    }

    fn assert_at_rest(&self) {
        for fabric in &self.fabrics {
            assert_adds_up(fabric);
        }
    }
}

fn assert_adds_up<const K: usize, const S: usize>(fabric: &Fabric<K, S, 64>) {
    let total = fabric.total_stats();
    assert_eq!((fabric.pending(), total.corrupt), (0, 0), "{total:?}");
    assert_eq!(total.sent, total.received + total.failed(), "{total:?}");
}

/// Passes until there is nothing left to do, and a few more.
fn settle(sides: &mut [Side<'_>]) {
    let mut quiet = 0;
    for _ in 0..10_000 {
        let worked = sides.iter_mut().fold(false, |worked, side| side.pass() | worked);
        quiet = if worked { 0 } else { quiet + 1 };
        if quiet > 2 * KERNELS {
            return;
        }
    }
    panic!("the gateways do not come to rest");
}

fn status(sender: &mut End<'_>, id: MessageId) -> DeliveryStatus {
    sender.receipt(id).unwrap().status
}

fn empty() -> Message<64> {
    Message::new(1)
}

#[test]
fn a_request_is_answered_across_both_ways() {
    let memory = Memory::new();
    let mut sides = memory.sides();
    let mut kernels = [memory.register(0, "a"), memory.register(1, "b")];
    settle(&mut sides);
    for (from, to, name) in [(0, 1, "b"), (1, 0, "a")] {
        for priority in [Priority::Normal, Priority::High] {
            let address = memory.fabrics[from].find(name).expect("announced");
            let request = Message::from_bytes(7, b"question").unwrap().with_flags(5).with_correlation_id(77);
            let id = kernels[from].send_priority(address, &request, priority).unwrap();
            settle(&mut sides);
            assert_eq!(status(&mut kernels[from], id), DeliveryStatus::Pending);
            let received = kernels[to].try_receive().expect("carried");
            assert_eq!(received.payload(), b"question");
            assert_eq!((received.header.kind, received.header.flags), (7, 5));
            assert_eq!((received.header.correlation_id, received.header.sequence), (77, id.sequence));
            assert_eq!((received.header.hops, received.header.hop_limit), (1, 4));
            let proxy = ["a", "b"][from];
            assert_eq!(memory.fabrics[to].find(proxy), Some(received.header.source()));
            let answer_id = kernels[to].reply(&received, &Message::from_bytes(8, b"answer").unwrap()).unwrap();
            settle(&mut sides);
            assert_eq!(status(&mut kernels[from], id), DeliveryStatus::Delivered);
            let answer = kernels[from].try_receive().expect("carried back");
            assert_eq!((answer.payload(), answer.header.correlation_id), (&b"answer"[..], id.sequence));
            assert_eq!(answer.header.source(), address, "from whom it was sent to");
            assert_eq!(answer.header.priority, priority as u8);
            settle(&mut sides);
            assert_eq!(status(&mut kernels[to], answer_id), DeliveryStatus::Delivered);
        }
    }
    memory.assert_at_rest();
    assert_eq!(sides[0].in_flight(), (0, 0));
    assert_eq!((sides[0].stats().sent, sides[0].stats().received), (4, 4));
}

/// Who drives a gateway goes to sleep when a pass says that there was nothing to do.
#[test]
fn a_pass_says_whether_it_did_something() {
    let memory = Memory::new();
    let mut sides = memory.sides();
    let (mut a, mut b) = (memory.register(0, "a"), memory.register(1, "b"));
    settle(&mut sides);
    let to = memory.fabrics[0].find("b").unwrap();
    for _ in 0..4 {
        for _ in 0..3 * KERNELS {
            assert_eq!(sides.each_mut().map(Gateway::pass), [false; 2], "at rest");
        }
        a.send(to, &empty()).unwrap();
        assert_eq!(sides.each_mut().map(Gateway::pass), [true; 2], "sent on, and received");
        assert!(b.try_receive().is_some());
        assert!(sides[1].pass(), "answered");
        assert!(sides[0].pass(), "told");
    }
}

#[test]
fn kernels_are_found_by_name_while_they_are_registered() {
    let memory = Memory::new();
    let mut sides = memory.sides();
    let b = memory.register(1, "b");
    settle(&mut sides);
    let first = memory.fabrics[0].find("b").unwrap();
    assert_eq!(sides[0].proxies().collect::<Vec<_>>(), [(first, b.id())]);
    b.unregister();
    settle(&mut sides);
    assert_eq!(memory.fabrics[0].find("b"), None);
    let again = memory.register(1, "b");
    settle(&mut sides);
    let second = memory.fabrics[0].find("b").unwrap();
    assert_ne!(first, second);
    assert_eq!(sides[0].proxies().collect::<Vec<_>>(), [(second, again.id())]);
    assert_eq!(memory.fabrics[0].find("gateway"), Some(sides[0].endpoint().id()), "its own");
}

/// A kernel leaves, another takes its index, and its first message crosses before the gateway has looked at the index:
/// the message introduces the one, and ends the other.
#[test]
fn an_index_that_changes_hands_between_two_looks_changes_them_at_the_remote_gateway_as_well() {
    let memory = Memory::new();
    let mut sides = memory.sides();
    let mut receiver = memory.register(0, "receiver");
    settle(&mut sides);
    let to = memory.fabrics[1].find("receiver").unwrap();
    let mut index = None;
    for name in ["first", "second", "third"] {
        let who = Registration::new(name).unwrap();
        let who = if let Some(index) = index { who.at(index) } else { who };
        let mut end = handle(&memory.fabrics[1]).register(&who, &memory.platform).unwrap();
        assert!(index.is_none_or(|index| index == end.id().index()));
        index = Some(end.id().index());
        let id = end.send(to, &empty()).unwrap();
        settle(&mut sides);
        let message = receiver.try_receive().expect("carried");
        let names: Vec<_> = memory.fabrics[0].kernels().collect();
        assert!(names.iter().any(|(id, found)| *id == message.header.source() && found.as_str() == name));
        assert_eq!(names.len(), 3, "the gateway, the receiver, and nobody who has left: {names:?}");
        assert_eq!(sides[0].stats().rejected, 0, "nothing is said of nobody");
        settle(&mut sides);
        assert_eq!(status(&mut end, id), DeliveryStatus::Delivered);
    }
}

#[test]
fn a_kernel_that_left_over_there_ends_messages_as_not_found() {
    let memory = Memory::new();
    let mut sides = memory.sides();
    let (mut a, b) = (memory.register(0, "a"), memory.register(1, "b"));
    settle(&mut sides);
    let to = memory.fabrics[0].find("b").unwrap();
    let before = a.send(to, &empty()).unwrap();
    settle(&mut sides);
    let on_its_way = a.send(to, &empty()).unwrap();
    b.unregister();
    settle(&mut sides);
    assert_eq!(status(&mut a, before), DeliveryStatus::NotFound, "in the inbox of who left");
    assert_eq!(status(&mut a, on_its_way), DeliveryStatus::NotFound);
    assert_eq!(a.send(to, &empty()), Err(SendError::NotFound { kernel: to }));
    memory.assert_at_rest();
    assert_eq!(sides[0].in_flight(), (0, 0));
}

#[test]
fn an_onlooker_sees_which_messages_a_gateway_holds() {
    let memory = Memory::new();
    let mut sides = memory.sides();
    let (mut a, mut b) = (memory.register(0, "a"), memory.register(1, "b"));
    settle(&mut sides);
    let to = memory.fabrics[0].find("b").unwrap();
    let ids = [0, 1].map(|_| {
        let id = a.send(to, &empty()).unwrap();
        settle(&mut sides);
        id
    });
    assert!(b.try_receive().is_some());
    settle(&mut sides);
    let waits = a.send(to, &empty()).unwrap();
    let seen: Vec<_> = handle(&memory.fabrics[0])
        .receipts_of(a.id().index())
        .map(|receipt| (receipt.id, receipt.status, receipt.in_transit, receipt.destination))
        .collect();
    for expected in [
        (ids[0], DeliveryStatus::Delivered, false, to),
        (ids[1], DeliveryStatus::Pending, true, to),
        (waits, DeliveryStatus::Pending, false, to),
    ] {
        assert!(seen.contains(&expected), "{expected:?} is not in {seen:?}");
    }
    assert_eq!(seen.len(), 3);
    settle(&mut sides);
    while b.try_receive().is_some() {}
    settle(&mut sides);
    memory.assert_at_rest();
}

/// A kernel next to the receiver fills the receiver's high-priority ring: what comes over the link waits in the gateway.
fn crowd(from: &mut End<'_>, to: &End<'_>) {
    while from.send_priority(to.id(), &Message::new(u32::MAX), Priority::High).is_ok() {}
}

/// A message may be received up to its deadline, that moment included; that it waited in a gateway changes nothing.
#[test]
fn a_message_that_waits_in_a_gateway_goes_on_at_its_deadline_and_not_a_moment_later() {
    for late in [0, 1] {
        let memory = Memory::new();
        let mut sides = memory.sides();
        let (mut a, mut b, mut c) = (memory.register(0, "a"), memory.register(1, "b"), memory.register(1, "c"));
        settle(&mut sides);
        let to = memory.fabrics[0].find("b").unwrap();
        crowd(&mut c, &b);
        let ids = [0, 1].map(|_| a.send_priority(to, &empty(), Priority::High).unwrap());
        settle(&mut sides);
        assert_eq!(sides[1].in_flight(), (0, 2), "they wait");
        memory.platform.advance(TIMEOUT_NS + late);
        while b.try_receive().is_some() {}
        settle(&mut sides);
        while b.try_receive().is_some() {}
        settle(&mut sides);
        let ended = [DeliveryStatus::Delivered, DeliveryStatus::Timeout][late as usize];
        assert_eq!(ids.map(|id| status(&mut a, id)), [ended; 2]);
        c.expire();
        memory.assert_at_rest();
    }
}

#[test]
fn an_answer_counts_up_to_deadline_and_grace_and_not_a_moment_later() {
    for late in [0, 1] {
        let memory = Memory::new();
        let mut sides = memory.sides();
        let (mut a, mut b) = (memory.register(0, "a"), memory.register(1, "b"));
        settle(&mut sides);
        let id = a.send(memory.fabrics[0].find("b").unwrap(), &empty()).unwrap();
        settle(&mut sides);
        assert!(b.try_receive().is_some());
        memory.platform.advance(TIMEOUT_NS + GRACE_NS + late);
        settle(&mut sides);
        let ended = [DeliveryStatus::Delivered, DeliveryStatus::Unanswered][late as usize];
        assert_eq!(status(&mut a, id), ended);
        memory.assert_at_rest();
    }
}

/// The proxy of a kernel that has left is nobody's address any more, also while it still answers for what crossed before.
#[test]
fn a_proxy_that_still_waits_for_answers_of_who_left_takes_no_more_mail() {
    let memory = Memory::new();
    let mut sides = memory.sides();
    let (mut a, b, mut c) = (memory.register(0, "a"), memory.register(1, "b"), memory.register(1, "c"));
    settle(&mut sides);
    let (proxy_of_a, to_b) = (memory.fabrics[1].find("a").unwrap(), memory.fabrics[0].find("b").unwrap());
    let outstanding = a.send(to_b, &empty()).unwrap();
    settle(&mut sides);
    assert_eq!(status(&mut a, outstanding), DeliveryStatus::Pending);
    a.unregister();
    settle(&mut sides);
    assert_eq!(memory.fabrics[1].find("a"), None);
    assert_eq!(c.send(proxy_of_a, &empty()), Err(SendError::NotFound { kernel: proxy_of_a }));
    b.unregister();
    settle(&mut sides);
    memory.assert_at_rest();
}

#[test]
fn a_denial_holds_on_both_sides_of_a_link() {
    let memory = Memory::new();
    let mut sides = memory.sides();
    let (mut a, mut b) = (memory.register(0, "a"), memory.register(1, "b"));
    settle(&mut sides);
    let proxies = [memory.fabrics[1].find("a").unwrap(), memory.fabrics[0].find("b").unwrap()];
    // In the domain of the receiver, before the message comes and while it waits in the inbox.
    let waits = a.send(proxies[1], &empty()).unwrap();
    settle(&mut sides);
    memory.fabrics[1].deny(b.id(), proxies[0]).unwrap();
    let later = [Priority::Normal, Priority::High].map(|p| a.send_priority(proxies[1], &empty(), p).unwrap());
    settle(&mut sides);
    assert_eq!(b.try_receive(), None);
    settle(&mut sides);
    for id in [waits, later[0], later[1]] {
        assert_eq!(status(&mut a, id), DeliveryStatus::NotAllowed);
    }
    memory.fabrics[1].allow(b.id(), proxies[0]);
    // In the domain of the sender: the proxy is the receiver there, before it is sent and before the gateway takes it.
    let taken = a.send(proxies[1], &empty()).unwrap();
    memory.fabrics[0].deny(proxies[1], a.id()).unwrap();
    assert_eq!(a.send(proxies[1], &empty()), Err(SendError::NotAllowed { receiver: proxies[1] }));
    settle(&mut sides);
    assert_eq!((status(&mut a, taken), b.try_receive()), (DeliveryStatus::NotAllowed, None));
    memory.fabrics[0].allow(proxies[1], a.id());
    let allowed = a.send(proxies[1], &empty()).unwrap();
    settle(&mut sides);
    assert!(b.try_receive().is_some());
    settle(&mut sides);
    assert_eq!(status(&mut a, allowed), DeliveryStatus::Delivered);
    memory.assert_at_rest();
    let not_allowed = memory.fabrics.each_ref().map(|fabric| fabric.total_stats().not_allowed);
    assert_eq!(not_allowed, [4, 1], "the first in both domains, two in the first alone, and the last there");
}

#[test]
fn a_message_that_is_not_received_in_time_is_timed_out_over_there() {
    let memory = Memory::new();
    let mut sides = memory.sides();
    let (mut a, mut b) = (memory.register(0, "a"), memory.register(1, "b"));
    settle(&mut sides);
    let to = memory.fabrics[0].find("b").unwrap();
    let id = a.send(to, &empty()).unwrap();
    settle(&mut sides);
    memory.platform.advance(OVERDUE_NS);
    assert_eq!(status(&mut a, id), DeliveryStatus::Pending, "in transit: only the answer decides");
    assert_eq!(a.expire(), 1);
    settle(&mut sides);
    assert_eq!(status(&mut a, id), DeliveryStatus::Timeout);
    assert_eq!(b.try_receive(), None);
    memory.assert_at_rest();
}

#[test]
fn a_message_that_no_gateway_has_taken_is_timed_out_by_its_sender() {
    let memory = Memory::new();
    let mut sides = memory.sides();
    let (mut a, _b) = (memory.register(0, "a"), memory.register(1, "b"));
    settle(&mut sides);
    let to = memory.fabrics[0].find("b").unwrap();
    let id = a.send(to, &empty()).unwrap();
    memory.platform.advance(OVERDUE_NS);
    assert_eq!(status(&mut a, id), DeliveryStatus::Timeout);
    settle(&mut sides);
    assert_eq!(sides[0].stats().sent, 0);
    memory.assert_at_rest();
}

#[test]
fn a_forwarder_without_room_over_there_is_reported_as_queue_full() {
    let memory = Memory::new();
    let mut sides = memory.sides();
    let mut a = memory.register(0, "a");
    let (mut via, b) = (memory.register(1, "via"), memory.register(1, "b"));
    settle(&mut sides);
    let far = &memory.fabrics[1];
    let source = far.find("a").unwrap();
    far.set_route(source, b.id(), via.id()).unwrap();
    // The way onward is full, and so is the forwarder's store but for all messages of `a` less one.
    while via.send(b.id(), &empty()).is_ok() {}
    let mut c = memory.register(1, "c");
    far.set_route(c.id(), b.id(), via.id()).unwrap();
    c.send(b.id(), &empty()).unwrap();
    via.poll();
    let to = memory.fabrics[0].find("b").unwrap();
    let mut sent = Vec::new();
    for _ in 0..SLOTS {
        sent.push(a.send(to, &empty()).unwrap());
        settle(&mut sides);
        via.poll();
        settle(&mut sides);
    }
    assert_eq!(status(&mut a, sent[SLOTS - 1]), DeliveryStatus::QueueFull);
    assert_eq!(status(&mut a, sent[0]), DeliveryStatus::Pending);
    assert_eq!(memory.fabrics[0].total_stats().queue_full, 1);
}

#[test]
fn a_full_destination_makes_messages_wait_and_loses_none_and_holds_up_nobody_else() {
    let memory = Memory::new();
    let mut sides = memory.sides();
    let mut a = memory.register(0, "a");
    let (mut slow, mut quick) = (memory.register(1, "slow"), memory.register(1, "quick"));
    settle(&mut sides);
    let [to_slow, to_quick] = ["slow", "quick"].map(|name| memory.fabrics[0].find(name).unwrap());
    let mut sent = 0;
    // Until inbox, transfers, and the proxy's inbox are full.
    loop {
        match a.send(to_slow, &Message::new(sent)) {
            Ok(_) => sent += 1,
            Err(SendError::QueueFull { next_hop }) => {
                assert_eq!(next_hop, to_slow);
                break;
            }
            Err(e) => panic!("{e}"),
        }
        settle(&mut sides);
    }
    assert!(sent as usize >= SLOTS + FRAMES / 2, "{sent}");
    let (outstanding, _) = sides[0].in_flight();
    assert_eq!(outstanding, FRAMES / 2, "half of the link is left to the others");
    for kind in 0..50 {
        let id = a.send(to_quick, &Message::new(kind)).unwrap();
        settle(&mut sides);
        assert_eq!(quick.try_receive().map(|m| m.header.kind), Some(kind));
        settle(&mut sides);
        assert_eq!(status(&mut a, id), DeliveryStatus::Delivered);
    }
    for kind in 0..sent {
        assert_eq!(slow.try_receive().map(|m| m.header.kind), Some(kind), "in order, and none is lost");
        settle(&mut sides);
    }
    memory.assert_at_rest();
}

#[test]
fn a_message_that_comes_as_room_arises_does_not_overtake_those_that_wait() {
    let memory = Memory::new();
    let mut sides = memory.sides();
    let (mut a, mut b, mut c) = (memory.register(0, "a"), memory.register(1, "b"), memory.register(1, "c"));
    settle(&mut sides);
    let to = memory.fabrics[0].find("b").unwrap();
    crowd(&mut c, &b);
    let mut next = 0;
    let mut send = |count| {
        (0..count).for_each(|i| _ = a.send_priority(to, &Message::new(next + i), Priority::High).unwrap());
        next += count;
    };
    send(4);
    settle(&mut sides);
    assert_eq!(sides[1].in_flight(), (0, 4), "they wait");
    let mut got = Vec::new();
    for _ in 0..20 {
        // Room for several of those that wait, and more to come in the same pass.
        got.extend((0..3).map_while(|_| b.try_receive()).map(|message| message.header.kind));
        send(3);
        sides.iter_mut().for_each(|side| _ = side.pass());
        settle(&mut sides);
    }
    while let Some(message) = b.try_receive() {
        got.push(message.header.kind);
        settle(&mut sides);
    }
    got.retain(|kind| *kind != u32::MAX);
    assert_eq!(got, (0..got.len() as u32).collect::<Vec<_>>());
    assert_eq!(got.len(), 64);
    memory.assert_at_rest();
}

#[test]
fn high_priority_overtakes_normal_messages_that_wait() {
    let memory = Memory::new();
    let mut sides = memory.sides();
    let (mut a, mut b) = (memory.register(0, "a"), memory.register(1, "b"));
    settle(&mut sides);
    let to = memory.fabrics[0].find("b").unwrap();
    for kind in 0..SLOTS as u32 {
        a.send(to, &Message::new(kind)).unwrap();
    }
    a.send_priority(to, &Message::new(100), Priority::High).unwrap();
    settle(&mut sides);
    assert_eq!(b.try_receive().map(|m| m.header.kind), Some(100));
    assert_eq!(b.try_receive().map(|m| m.header.kind), Some(0));
}

#[test]
fn routes_lead_to_proxies_and_through_them_and_every_hop_counts() {
    let memory = Memory::new();
    let mut sides = memory.sides();
    let (mut a, mut via) = (memory.register(0, "a"), memory.register(0, "via"));
    let mut b = memory.register(1, "b");
    settle(&mut sides);
    let near = &memory.fabrics[0];
    let to = near.find("b").unwrap();
    near.set_route(a.id(), to, via.id()).unwrap();
    let id = a.send(to, &empty()).unwrap();
    via.poll();
    settle(&mut sides);
    assert_eq!(b.try_receive().map(|m| m.header.hops), Some(2));
    settle(&mut sides);
    assert_eq!(status(&mut a, id), DeliveryStatus::Delivered);
    // By way of the proxy to a kernel of the same domain.
    near.set_route(a.id(), via.id(), to).unwrap();
    a.send(via.id(), &empty()).unwrap();
    settle(&mut sides);
    assert_eq!(via.try_receive().map(|m| m.header.hops), Some(1));
    memory.assert_at_rest();
}

#[test]
fn the_hop_limit_counts_the_link_and_a_loop_ends_there() {
    let memory = Memory::new();
    let mut sides = memory.sides();
    let mut a = memory.register(0, "a");
    let (mut b, mut c, mut d) = (memory.register(1, "b"), memory.register(1, "c"), memory.register(1, "d"));
    settle(&mut sides);
    let far = &memory.fabrics[1];
    // On the remote side it goes round and round between two kernels that are not its destination.
    far.set_route(far.find("a").unwrap(), b.id(), c.id()).unwrap();
    far.set_route(c.id(), b.id(), d.id()).unwrap();
    far.set_route(d.id(), b.id(), c.id()).unwrap();
    let to = memory.fabrics[0].find("b").unwrap();
    let id = a.send(to, &empty()).unwrap();
    for _ in 0..8 {
        settle(&mut sides);
        c.poll();
        d.poll();
    }
    settle(&mut sides);
    assert_eq!(status(&mut a, id), DeliveryStatus::MaxHopsExceeded);
    assert_eq!(b.try_receive(), None);
    assert_eq!(far.total_stats().forwarded, 3, "the link was the first of four hops");
    memory.assert_at_rest();
}

#[test]
fn a_name_in_use_is_refused_until_it_is_free() {
    let memory = Memory::new();
    let mut sides = memory.sides();
    let (mut a, here) = (memory.register(0, "a"), memory.register(0, "twin"));
    let mut there = memory.register(1, "twin");
    settle(&mut sides);
    assert_eq!(memory.fabrics[0].find("twin"), Some(here.id()));
    assert!(sides[0].stats().refused > 0);
    // Unknown in the remote domain, it cannot send there.
    let to = memory.fabrics[1].find("a").unwrap();
    let id = there.send(to, &empty()).unwrap();
    settle(&mut sides);
    assert_eq!(status(&mut there, id), DeliveryStatus::NotFound);
    assert_eq!(a.try_receive(), None);
    here.unregister();
    settle(&mut sides);
    memory.platform.advance(GATEWAY.silence_ns / 4);
    settle(&mut sides);
    let proxy = memory.fabrics[0].find("twin").expect("announced again");
    assert!(sides[0].proxies().any(|known| known == (proxy, there.id())));
    let to = memory.fabrics[1].find("a").unwrap();
    there.send(to, &empty()).unwrap();
    settle(&mut sides);
    assert_eq!(a.try_receive().map(|m| m.header.source()), Some(proxy));
    settle(&mut sides);
    memory.assert_at_rest();
}

#[test]
fn only_what_is_exported_is_known_if_not_all_is() {
    let memory = Memory::new();
    let config = GatewayConfig { export_all: false, ..GATEWAY };
    let [near, far] = &memory.halves;
    let mut sides = [memory.side(0), gateway(&memory.fabrics[1], &memory.platform, [far, near], config)];
    let (b, c) = (memory.register(1, "b"), memory.register(1, "c"));
    sides[1].export(b.id());
    settle(&mut sides);
    assert!(memory.fabrics[0].find("b").is_some() && memory.fabrics[0].find("c").is_none());
    sides[1].withdraw(b.id());
    sides[1].export(c.id());
    settle(&mut sides);
    assert!(memory.fabrics[0].find("b").is_none() && memory.fabrics[0].find("c").is_some());
}

#[test]
fn a_message_of_a_sender_that_is_not_announced_yet_introduces_it() {
    let memory = Memory::new();
    let mut sides = memory.sides();
    let mut b = memory.register(1, "b");
    settle(&mut sides);
    let to = memory.fabrics[0].find("b").unwrap();
    let mut late = memory.register(0, "late");
    late.send(to, &empty()).unwrap();
    // One pass each, too few to scan the table.
    sides.iter_mut().for_each(|side| {
        side.pass();
    });
    let received = b.try_receive().unwrap();
    assert_eq!(memory.fabrics[1].find("late"), Some(received.header.source()));
}

#[test]
fn what_a_sender_sent_before_it_left_still_arrives() {
    let memory = Memory::new();
    let mut sides = memory.sides();
    let (mut a, mut b) = (memory.register(0, "a"), memory.register(1, "b"));
    settle(&mut sides);
    let to = memory.fabrics[0].find("b").unwrap();
    a.send(to, &empty()).unwrap();
    a.unregister();
    settle(&mut sides);
    assert!(b.try_receive().is_some());
    settle(&mut sides);
    assert_eq!(memory.fabrics[1].find("a"), None);
    memory.assert_at_rest();
}

#[test]
fn a_dead_other_side_ends_messages_by_deadline_and_grace() {
    let memory = Memory::new();
    let [mut here, mut there] = memory.sides();
    let (mut a, _b) = (memory.register(0, "a"), memory.register(1, "b"));
    for _ in 0..2 * KERNELS {
        here.pass();
        there.pass();
    }
    let to = memory.fabrics[0].find("b").unwrap();
    let id = a.send(to, &empty()).unwrap();
    here.pass();
    // It does not run any more.
    core::mem::forget(there);
    memory.platform.advance(TIMEOUT_NS + GRACE_NS);
    here.pass();
    assert_eq!(status(&mut a, id), DeliveryStatus::Pending, "the grace itself is in time");
    memory.platform.advance(1);
    here.pass();
    assert_eq!(status(&mut a, id), DeliveryStatus::Unanswered);
    assert_eq!(here.stats().unanswered, 1);
    memory.platform.advance(GATEWAY.silence_ns);
    assert!(!here.is_connected());
    let id = a.send(to, &empty()).unwrap();
    here.pass();
    assert_eq!(here.stats().sent, 1, "nothing is sent to who is silent");
    memory.platform.advance(OVERDUE_NS);
    assert_eq!(status(&mut a, id), DeliveryStatus::Timeout, "so its sender decides");
    assert_eq!(here.in_flight().0, 1, "a number that the remote side may still hold is not used again");

    // A successor in the remote domain, on the same link.
    let [near, far] = &memory.halves;
    assert!(open_end(far, near).is_err());
    // What the dead one had registered.
    for id in memory.fabrics[1].kernels().filter(|(_, name)| name.as_str() != "b").map(|(id, _)| id) {
        // SAFETY: the gateway was forgotten.
        unsafe { memory.fabrics[1].take_over(id, &memory.platform) }.unwrap().unregister();
    }
    // SAFETY: the end was forgotten.
    let end = unsafe { LinkEnd::recover(half(far).unwrap(), half(near).unwrap()) }.unwrap();
    let there = Gateway::new(memory.register(1, "gateway"), end, GATEWAY);
    let mut sides = [here, there];
    settle(&mut sides);
    assert_eq!(sides[0].in_flight(), (0, 0), "the successor does not know it");
    assert!(sides[0].is_connected());
    let to = memory.fabrics[0].find("b").expect("announced again");
    let id = a.send(to, &empty()).unwrap();
    settle(&mut sides);
    assert_eq!((sides[0].stats().sent, status(&mut a, id)), (2, DeliveryStatus::Pending));
    assert_eq!(memory.fabrics[0].pending(), 1);
}

#[test]
fn a_late_answer_changes_nothing_and_frees_the_number() {
    let memory = Memory::new();
    let mut sides = memory.sides();
    let (mut a, mut b) = (memory.register(0, "a"), memory.register(1, "b"));
    settle(&mut sides);
    let to = memory.fabrics[0].find("b").unwrap();
    let id = a.send(to, &empty()).unwrap();
    settle(&mut sides);
    assert!(b.try_receive().is_some());
    memory.platform.advance(TIMEOUT_NS + GRACE_NS + 1);
    sides[0].pass();
    assert_eq!((status(&mut a, id), sides[0].in_flight().0), (DeliveryStatus::Unanswered, 1));
    settle(&mut sides);
    assert_eq!((status(&mut a, id), sides[0].in_flight().0), (DeliveryStatus::Unanswered, 0));
    assert_eq!((sides[0].stats().unanswered, sides[0].stats().rejected), (1, 1));
    memory.assert_at_rest();
}

#[test]
fn a_gateway_that_leaves_says_so_and_can_be_followed() {
    let memory = Memory::new();
    let [mut here, mut there] = memory.sides();
    let (mut a, b) = (memory.register(0, "a"), memory.register(1, "b"));
    for _ in 0..2 * KERNELS {
        here.pass();
        there.pass();
    }
    let to = memory.fabrics[0].find("b").unwrap();
    let unread = a.send(to, &empty()).unwrap();
    here.pass();
    // It answers what is in the link.
    drop(there);
    let mut sides = [here, memory.side(1)];
    sides[0].pass();
    assert_eq!(status(&mut a, unread), DeliveryStatus::NotFound);
    settle(&mut sides);
    let again = memory.fabrics[0].find("b").unwrap();
    assert_ne!(again, to);
    let id = a.send(again, &empty()).unwrap();
    settle(&mut sides);
    // This side leaves: whether the message was received is not known any more.
    let [here, there] = sides;
    drop(here);
    assert_eq!(status(&mut a, id), DeliveryStatus::Unanswered);
    let mut sides = [memory.side(0), there];
    settle(&mut sides);
    assert!(memory.fabrics[0].find("b").is_some() && memory.fabrics[1].find("a").is_some());
    drop(b);
    drop(sides);
    for fabric in &memory.fabrics {
        assert_eq!(fabric.find("a").is_some(), fabric.find("gateway").is_none() && fabric.is_registered(a.id()));
        assert_adds_up(fabric);
    }
}

/// The same if it ended without a word: its successor's hello says so.
#[test]
fn a_successor_ends_what_was_with_a_dead_other_side() {
    let memory = Memory::new();
    let mut sides = memory.sides();
    let (mut a, _b) = (memory.register(0, "a"), memory.register(1, "b"));
    settle(&mut sides);
    let to = memory.fabrics[0].find("b").unwrap();
    let id = a.send(to, &empty().with_deadline_ns(u64::MAX)).unwrap();
    settle(&mut sides);
    let [here, dead] = sides;
    core::mem::forget(dead);
    for id in memory.fabrics[1].kernels().filter(|(_, name)| name.as_str() != "b").map(|(id, _)| id) {
        // SAFETY: the gateway was forgotten.
        unsafe { memory.fabrics[1].take_over(id, &memory.platform) }.unwrap().unregister();
    }
    // SAFETY: as above, with its end.
    let end = unsafe { LinkEnd::recover(half(&memory.halves[1]).unwrap(), half(&memory.halves[0]).unwrap()) }.unwrap();
    let mut sides = [here, Gateway::new(memory.register(1, "gateway"), end, GATEWAY)];
    settle(&mut sides);
    assert_eq!((status(&mut a, id), sides[0].in_flight()), (DeliveryStatus::Unanswered, (0, 0)));
    assert!(memory.fabrics[0].find("b").is_some_and(|again| again != to));
}

/// The gateway that holds a receipt is dead, and nobody follows it: deadline and grace end the message.
#[test]
fn a_message_whose_gateway_died_is_unanswered_for_whoever_asks() {
    for asks in ["sender", "onlooker", "nobody but the next owner"] {
        let memory = Memory::new();
        let mut sides = memory.sides();
        let (mut a, _b) = (memory.register(0, "a"), memory.register(1, "b"));
        settle(&mut sides);
        let to = memory.fabrics[0].find("b").unwrap();
        let id = a.send(to, &empty()).unwrap();
        settle(&mut sides);
        core::mem::forget(sides);
        let fabric = &memory.fabrics[0];
        memory.platform.advance(OVERDUE_NS + GRACE_NS - 1);
        assert_eq!((status(&mut a, id), a.expire()), (DeliveryStatus::Pending, 1), "the grace itself is in time");
        assert_eq!(fabric.receipt(id, &memory.platform).unwrap().status, DeliveryStatus::Pending);
        assert_eq!((fabric.pending(), fabric.total_stats().unaccounted()), (1, 1));
        memory.platform.advance(1);
        match asks {
            "sender" => assert_eq!((a.expire(), status(&mut a, id)), (0, DeliveryStatus::Unanswered)),
            "onlooker" => {
                assert_eq!(fabric.receipt(id, &memory.platform).unwrap().status, DeliveryStatus::Unanswered);
                assert_eq!((fabric.pending(), fabric.total_stats().unaccounted()), (1, 1), "nobody has counted it");
                assert_eq!(a.expire(), 0);
            }
            _ => {
                let index = id.source.index();
                core::mem::forget(core::mem::replace(&mut a, memory.register(0, "other")));
                // SAFETY: it was forgotten.
                unsafe { fabric.take_over(id.source, &memory.platform) }.unwrap().unregister();
                fabric.register(&Registration::new("next").unwrap().at(index), &memory.platform).unwrap();
            }
        }
        assert_eq!(fabric.peek_receipt(id).unwrap().status, DeliveryStatus::Unanswered);
        assert_eq!(fabric.total_stats().unanswered, 1);
        assert_adds_up(fabric);
    }
}

/// A gateway holds more messages of one sender than that has receipts, and dies: its successor counts them all.
#[test]
fn a_message_that_outlived_its_receipt_is_counted_when_its_gateway_died() {
    let memory = Memory::new();
    let mut sides = memory.sides();
    let (mut a, _b) = (memory.register(0, "a"), memory.register(1, "b"));
    settle(&mut sides);
    let fabric = &memory.fabrics[0];
    let to = fabric.find("b").unwrap();
    let ids = [0, 1].map(|_| a.send(to, &empty()).unwrap());
    settle(&mut sides);
    for _ in 0..KERNELS * SLOTS {
        a.send(a.id(), &empty()).unwrap();
        assert!(a.try_receive().is_some());
    }
    assert_eq!(ids.map(|id| fabric.peek_receipt(id)), [Err(ReceiptError::Overwritten); 2]);
    assert_eq!(
        (fabric.pending(), fabric.total_stats().unaccounted()),
        (2, 2),
        "outstanding, and told of by no receipt"
    );
    core::mem::forget(sides);
    // SAFETY: the gateway was forgotten.
    unsafe { fabric.take_over(to, &memory.platform) }.unwrap().unregister();
    assert_eq!(fabric.total_stats().unanswered, 2);
    assert_adds_up(fabric);
}

/// A proxy has as many messages on the remote side as it has records of them, however much the link has room for.
#[test]
fn a_proxy_holds_as_many_messages_as_it_can_record() {
    const FEW: usize = 2;
    let platform = Manual::at(1_000);
    let fabrics = [(); 2].map(|()| fabric::<KERNELS, FEW, 64>(&CONFIG));
    let halves = link();
    let [near, far] = &halves;
    let who = |name: &str| Registration::new(name).unwrap();
    let mut sides = [(0, near, far), (1, far, near)].map(|(side, near, far)| {
        let endpoint = handle(&fabrics[side]).register(&who("gateway"), &platform).unwrap();
        Gateway::new(endpoint, open_end(near, far).unwrap(), GATEWAY)
    });
    let mut a = handle(&fabrics[0]).register(&who("a"), &platform).unwrap();
    let mut b = handle(&fabrics[1]).register(&who("b"), &platform).unwrap();
    let mut settle = || {
        for _ in 0..4 * KERNELS {
            sides.iter_mut().for_each(|side| _ = side.pass());
        }
        sides[0].in_flight().0
    };
    settle();
    let to = fabrics[0].find("b").unwrap();
    for kind in 0..2 * FEW as u32 {
        a.send(to, &Message::new(kind)).unwrap();
        assert!(settle() <= FEW);
    }
    for kind in 0..2 * FEW as u32 {
        assert_eq!(b.try_receive().map(|message| message.header.kind), Some(kind));
        settle();
    }
    assert_eq!(settle(), 0);
    assert_adds_up(&fabrics[0]);
}

/// If the dead gateway's proxies are taken over, that is known earlier, whatever the deadline is.
#[test]
fn a_message_whose_gateway_died_is_unanswered_with_its_proxy() {
    let memory = Memory::new();
    let mut sides = memory.sides();
    let (mut a, _b) = (memory.register(0, "a"), memory.register(1, "b"));
    settle(&mut sides);
    let to = memory.fabrics[0].find("b").unwrap();
    let id = a.send(to, &empty().with_deadline_ns(u64::MAX)).unwrap();
    settle(&mut sides);
    core::mem::forget(sides);
    assert_eq!(status(&mut a, id), DeliveryStatus::Pending);
    // SAFETY: the gateway was forgotten.
    unsafe { memory.fabrics[0].take_over(to, &memory.platform) }.unwrap().unregister();
    assert_eq!(status(&mut a, id), DeliveryStatus::Unanswered);
    // That is counted once, also when the receipt is overwritten.
    for _ in 0..KERNELS * SLOTS {
        a.send(a.id(), &empty()).unwrap();
        assert!(a.try_receive().is_some());
    }
    assert_adds_up(&memory.fabrics[0]);
}

/// A gateway that was stopped for so long that the sender has given the message up.
#[test]
fn an_answer_after_the_sender_has_given_up_changes_nothing() {
    for overwritten in [false, true] {
        let memory = Memory::new();
        let mut sides = memory.sides();
        let (mut a, mut b) = (memory.register(0, "a"), memory.register(1, "b"));
        settle(&mut sides);
        let to = memory.fabrics[0].find("b").unwrap();
        let id = a.send(to, &empty()).unwrap();
        settle(&mut sides);
        assert!(b.try_receive().is_some());
        memory.platform.advance(OVERDUE_NS + GRACE_NS);
        assert_eq!(status(&mut a, id), DeliveryStatus::Unanswered);
        for _ in 0..if overwritten { KERNELS * SLOTS } else { 0 } {
            a.send(a.id(), &empty()).unwrap();
            assert!(a.try_receive().is_some());
        }
        settle(&mut sides);
        assert_eq!((sides[0].stats().unanswered, sides[0].in_flight()), (1, (0, 0)));
        assert_eq!(memory.fabrics[0].total_stats().unanswered, 1);
        memory.assert_at_rest();
    }
}

/// Sequences of a kernel index are never used twice: a proxy shifts those of its kernel, and takes that off replies.
#[test]
fn a_proxy_shifts_sequences_and_replies_name_the_requesters() {
    let memory = Memory::new();
    let mut sides = memory.sides();
    // On side 1, another kernel has used sequences at each index.
    for index in 1..KERNELS {
        let mut before =
            memory.fabrics[1].register(&Registration::new("x").unwrap().at(index), &memory.platform).unwrap();
        for _ in 0..100 {
            before.send(before.id(), &empty()).unwrap();
            assert!(before.try_receive().is_some());
        }
    }
    let (mut a, mut b) = (memory.register(0, "a"), memory.register(1, "b"));
    settle(&mut sides);
    let to = memory.fabrics[0].find("b").unwrap();
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(a.send(to, &empty().with_correlation_id(77)).unwrap());
    }
    settle(&mut sides);
    let mut last = 100;
    for id in ids {
        let request = b.try_receive().unwrap();
        assert!(request.header.sequence > last, "above all that were used there");
        last = request.header.sequence;
        assert_eq!((request.header.correlation_id, request.header.is_reply()), (77, false), "as it was");
        b.reply(&request, &empty()).unwrap();
        // What is no reply crosses as it is.
        b.send(request.header.source(), &empty().with_correlation_id(request.header.sequence)).unwrap();
        settle(&mut sides);
        let answer = a.try_receive().unwrap();
        assert_eq!((answer.header.correlation_id, answer.header.is_reply()), (id.sequence, true));
        assert_eq!(a.try_receive().unwrap().header.correlation_id, request.header.sequence);
    }
    // The next owner of the proxy's index goes on above.
    let index = memory.fabrics[1].find("a").unwrap().index();
    a.unregister();
    settle(&mut sides);
    let mut next = memory.fabrics[1].register(&Registration::new("y").unwrap().at(index), &memory.platform).unwrap();
    let id = next.send(next.id(), &empty()).unwrap();
    assert!(id.sequence > last, "{} {last}", id.sequence);
    assert!(next.try_receive().is_some());
    settle(&mut sides);
    memory.assert_at_rest();
}

/// What its sender has timed out does not cross, also when that verdict was taken back and the clock set back.
#[test]
fn a_message_that_was_given_up_does_not_cross() {
    let memory = Memory::new();
    let mut sides = memory.sides();
    let (mut a, mut b) = (memory.register(0, "a"), memory.register(1, "b"));
    settle(&mut sides);
    let to = memory.fabrics[0].find("b").unwrap();
    let late = a.send(to, &empty()).unwrap();
    memory.platform.advance(OVERDUE_NS);
    assert_eq!(status(&mut a, late), DeliveryStatus::Timeout);
    // The entry is needed again.
    for sent in 1..=KERNELS * SLOTS {
        a.send(a.id(), &empty()).unwrap();
        assert!(sent == KERNELS * SLOTS || a.try_receive().is_some());
    }
    memory.platform.now_ns.set(memory.platform.now_ns.get() - OVERDUE_NS);
    settle(&mut sides);
    assert_eq!((sides[0].stats().sent, b.try_receive()), (0, None));
    assert!(a.try_receive().is_some());
    drop(sides);
    memory.assert_at_rest();
}

/// What was on the remote side when it ended does not keep its numbers, nor the proxies their indices, until its
/// deadline.
#[test]
fn a_link_survives_any_number_of_restarts_of_the_other_side() {
    let memory = Memory::new();
    let [mut here, mut there] = memory.sides();
    let (mut a, mut b) = (memory.register(0, "a"), memory.register(1, "b"));
    for _ in 0..8 {
        let mut sides = [here, there];
        settle(&mut sides);
        let to = memory.fabrics[0].find("b").expect("announced again");
        let id = a.send(to, &empty().with_deadline_ns(u64::MAX)).unwrap();
        settle(&mut sides);
        let [still, leaves] = sides;
        (here, _) = (still, drop(leaves));
        here.pass();
        assert_eq!((status(&mut a, id), here.in_flight()), (DeliveryStatus::Unanswered, (0, 0)));
        while b.try_receive().is_some() {}
        there = memory.side(1);
    }
    drop((here, there));
    memory.assert_at_rest();
}

#[test]
fn three_domains_in_a_row_carry_messages_and_statuses() {
    let platform = Manual::at(10_000);
    let fabrics: [Box<Domain>; 3] = [fabric(&CONFIG), fabric(&CONFIG), fabric(&CONFIG)];
    let (left, right) = (link(), link());
    let side = |index: usize, name: &str, near: &'_ Half, far: &'_ Half| {
        // SAFETY: the halves and fabrics outlive the sides; lifetimes are the same for all of them below.
        let (near, far) = unsafe { (&*core::ptr::from_ref(near), &*core::ptr::from_ref(far)) };
        Gateway::new(register(&fabrics[index], &platform, name), open_end(near, far).unwrap(), GATEWAY)
    };
    let mut sides = [
        side(0, "g0", &left[0], &left[1]),
        side(1, "g1", &left[1], &left[0]),
        side(1, "g2", &right[0], &right[1]),
        side(2, "g3", &right[1], &right[0]),
    ];
    let (mut a, mut c) = (register(&fabrics[0], &platform, "a"), register(&fabrics[2], &platform, "c"));
    settle(&mut sides);
    let to = fabrics[0].find("c").unwrap();
    let id = a.send(to, &empty()).unwrap();
    settle(&mut sides);
    let request = c.try_receive().unwrap();
    assert_eq!((request.header.hops, request.header.sequence), (2, id.sequence));
    c.reply(&request, &empty()).unwrap();
    settle(&mut sides);
    assert_eq!(status(&mut a, id), DeliveryStatus::Delivered);
    assert_eq!(a.try_receive().map(|m| m.header.correlation_id), Some(id.sequence));
    settle(&mut sides);

    let limited = a.send(to, &empty().with_hop_limit(1)).unwrap();
    settle(&mut sides);
    assert_eq!(status(&mut a, limited), DeliveryStatus::MaxHopsExceeded, "decided by the second gateway");
    assert_eq!(c.try_receive(), None);
    let late = a.send(to, &empty()).unwrap();
    settle(&mut sides);
    platform.advance(OVERDUE_NS);
    settle(&mut sides);
    assert_eq!(status(&mut a, late), DeliveryStatus::Timeout);
    for fabric in &fabrics {
        assert_adds_up(fabric);
    }
    drop(c);
    settle(&mut sides);
    assert_eq!(fabrics[0].find("c"), None);
}

#[test]
fn high_priority_waits_for_room_as_well() {
    let memory = Memory::new();
    let mut sides = memory.sides();
    let (mut a, mut b) = (memory.register(0, "a"), memory.register(1, "b"));
    settle(&mut sides);
    let to = memory.fabrics[0].find("b").unwrap();
    let mut sent = Vec::new();
    for kind in 0..2 * SLOTS as u32 {
        sent.push(a.send_priority(to, &Message::new(kind), Priority::High).unwrap());
        settle(&mut sides);
    }
    for kind in 0..2 * SLOTS as u32 {
        assert_eq!(b.try_receive().map(|m| m.header.kind), Some(kind));
        settle(&mut sides);
    }
    assert!(sent.into_iter().all(|id| status(&mut a, id) == DeliveryStatus::Delivered));
    memory.assert_at_rest();
}

/// Mail of the last owner of a proxy's index is still unread, under the very sequence that the proxy uses.
#[test]
fn a_proxys_receipts_are_not_those_of_the_last_owner_of_its_index() {
    let memory = Memory::new();
    let mut sides = memory.sides();
    let (mut a, mut b) = (memory.register(0, "a"), memory.register(1, "b"));
    let mut last = memory.register(1, "last");
    let local = last.send(b.id(), &Message::new(1)).unwrap();
    let index = last.id().index();
    last.unregister();
    // Free indices are claimed in turn: it is the next one's turn again.
    drop((index + 1..KERNELS).map(|i| memory.register(1, &format!("filler {i}"))).collect::<Vec<_>>());
    settle(&mut sides);
    let to = memory.fabrics[0].find("b").unwrap();
    let id = a.send(to, &Message::new(2)).unwrap();
    settle(&mut sides);
    let proxy = memory.fabrics[1].find("a").unwrap();
    assert_eq!((proxy.index(), id.sequence), (index, local.sequence), "what this test is about");
    assert_eq!(b.try_receive().map(|m| (m.header.kind, m.header.source())), Some((1, local.source)));
    settle(&mut sides);
    assert_eq!(status(&mut a, id), DeliveryStatus::Pending, "the other message was received");
    assert_eq!(b.try_receive().map(|m| (m.header.kind, m.header.source())), Some((2, proxy)));
    settle(&mut sides);
    assert_eq!(status(&mut a, id), DeliveryStatus::Delivered);
    memory.assert_at_rest();
}

/// The sender's domain has more receipts than the receiver's: one that the sender can still read is not overwritten
/// there.
#[test]
fn a_receipt_that_the_sender_can_still_ask_for_is_kept_on_the_other_side() {
    let platform = Manual::at(10_000);
    let near: Box<Fabric<KERNELS, { 2 * SLOTS }, 64>> = fabric(&CONFIG);
    let far: Box<Domain> = fabric(&CONFIG);
    let halves = link();
    let [mut a, here] =
        ["a", "gateway"].map(|name| handle(&near).register(&Registration::new(name).unwrap(), &platform).unwrap());
    let mut here = Gateway::new(here, open_end(&*halves[0], &*halves[1]).unwrap(), GATEWAY);
    let mut there = gateway(&far, &platform, [&halves[1], &halves[0]], GATEWAY);
    let (mut slow, mut quick) = (register(&far, &platform, "slow"), register(&far, &platform, "quick"));
    let mut settle = || {
        for _ in 0..4 * KERNELS {
            here.pass();
            there.pass();
        }
    };
    settle();
    let [to_slow, to_quick] = ["slow", "quick"].map(|name| near.find(name).unwrap());
    let first = a.send(to_slow, &empty()).unwrap();
    for _ in 1..KERNELS * SLOTS {
        a.send(to_quick, &empty()).unwrap();
        settle();
        assert!(quick.try_receive().is_some());
        settle();
    }
    let waits = a.send(to_quick, &empty()).unwrap();
    settle();
    assert_eq!(waits.sequence - first.sequence, (KERNELS * SLOTS) as u64);
    assert_eq!(quick.try_receive(), None, "it would take the receipt of the first");
    assert!(slow.try_receive().is_some());
    settle();
    assert_eq!(a.receipt(first).unwrap().status, DeliveryStatus::Delivered);
    assert!(quick.try_receive().is_some());
    settle();
    assert_eq!(a.receipt(waits).unwrap().status, DeliveryStatus::Delivered);
    assert_adds_up(&near);
    assert_adds_up(&far);
}

/// The clock of the wall, for threads.
#[derive(Debug)]
struct Wall(std::time::Instant);

impl k2k_core::Platform for Wall {
    fn now_ns(&self) -> u64 {
        1 + self.0.elapsed().as_nanos() as u64
    }

    fn wake(&self, _: &k2k_core::WakeFlag) {}
}

/// Each side sends so many to the other, from and to two kernels, while both gateways run on threads of their own.
#[test]
fn messages_cross_both_ways_on_threads_and_all_are_accounted_for() {
    const COUNT: u32 = if cfg!(miri) { 40 } else { 25_000 };
    type Big = Fabric<6, 64, 64>;
    let config = Config { delivery_timeout_ns: 60_000_000_000, ..CONFIG };
    let wall = Wall(std::time::Instant::now());
    let fabrics: [Box<Big>; 2] = [fabric(&config), fabric(&config)];
    let halves: [LinkHalf<64, 64>; 2] = [LinkHalf::new(), LinkHalf::new()];
    halves.iter().for_each(|half| half.set_up().unwrap());
    let finished = k2k_core::sync::AtomicU32::new(0);
    // Told apart by name, so that each finds its peer before it starts.
    let names = [["a0", "a1"], ["b0", "b1"]];
    std::thread::scope(|scope| {
        // Joined by handle, which ThreadSanitizer understands.
        let mut threads = Vec::new();
        for side in 0..2 {
            let (fabrics, halves, wall, finished) = (&fabrics, &halves, &wall, &finished);
            threads.push(scope.spawn(move || {
                let endpoint = handle(&fabrics[side]).register(&Registration::new("gateway").unwrap(), wall).unwrap();
                let end = open_end(&halves[side], &halves[1 - side]).unwrap();
                let mut gateway = Gateway::new(endpoint, end, GatewayConfig::default());
                let relaxed = k2k_core::sync::Ordering::Relaxed;
                while finished.load(relaxed) < 4 || gateway.in_flight() != (0, 0) {
                    if !gateway.pass() {
                        std::thread::yield_now();
                    }
                }
                assert_eq!((gateway.stats().rejected, gateway.stats().unanswered), (0, 0));
                // The remote side may still wait for answers.
                for _ in 0..1000 {
                    gateway.pass();
                    std::thread::yield_now();
                }
            }));
            for (number, name) in names[side].into_iter().enumerate() {
                let peer = names[1 - side][number];
                threads.push(scope.spawn(move || {
                    let fabric = &fabrics[side];
                    let mut kernel = handle(fabric).register(&Registration::new(name).unwrap(), wall).unwrap();
                    let to = loop {
                        match fabric.find(peer) {
                            Some(to) => break to,
                            None => std::thread::yield_now(),
                        }
                    };
                    let (mut sent, mut received) = (0, 0);
                    while sent < COUNT || received < COUNT {
                        let priority = Priority::Normal;
                        if sent < COUNT && kernel.send_priority(to, &Message::new(sent), priority).is_ok() {
                            sent += 1;
                        }
                        match kernel.try_receive() {
                            Some(message) => {
                                assert_eq!(message.header.kind, received, "in order");
                                received += 1;
                            }
                            None => std::thread::yield_now(),
                        }
                    }
                    while kernel.expire() > 0 {
                        std::thread::yield_now();
                    }
                    // `sync` has no addition.
                    loop {
                        let seen = finished.load(k2k_core::sync::Ordering::Relaxed);
                        let relaxed = k2k_core::sync::Ordering::Relaxed;
                        if finished.compare_exchange(seen, seen + 1, relaxed, relaxed).is_ok() {
                            break;
                        }
                    }
                }));
            }
        }
        for thread in threads {
            thread.join().unwrap();
        }
    });
    for fabric in &fabrics {
        assert_adds_up(fabric);
        let total = fabric.total_stats();
        // Each message is counted in both domains.
        assert_eq!((total.received, total.failed()), (4 * u64::from(COUNT), 0));
    }
}

mod random {
    use super::*;
    use k2k_core::KernelId;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[derive(Clone, Debug)]
    enum Operation {
        Send { side: usize, from: usize, to: usize, high: bool, hop_limit: u8 },
        Receive { side: usize, at: usize },
        Pass(usize),
        Advance(u64),
        Expire { side: usize, at: usize },
        Replace { side: usize, at: usize },
    }

    const PER_SIDE: usize = 2;
    /// So that every receipt can be asked for to the end.
    const MOST: usize = KERNELS * SLOTS / 3;

    fn operations(time: u64, replace: u32) -> impl Strategy<Value = Vec<Operation>> {
        let operation = prop_oneof![
            8 => (0..2usize, 0..PER_SIDE, 0..PER_SIDE, proptest::bool::weighted(0.2), prop_oneof![4 => Just(0), 1 => 1..3u8])
                .prop_map(|(side, from, to, high, hop_limit)| Operation::Send { side, from, to, high, hop_limit }),
            8 => (0..2usize, 0..PER_SIDE).prop_map(|(side, at)| Operation::Receive { side, at }),
            12 => (0..2usize).prop_map(Operation::Pass),
            2 => (0..=time).prop_map(Operation::Advance),
            2 => (0..2usize, 0..PER_SIDE).prop_map(|(side, at)| Operation::Expire { side, at }),
            replace => (0..2usize, 0..PER_SIDE).prop_map(|(side, at)| Operation::Replace { side, at }),
        ];
        proptest::collection::vec(operation, 0..if cfg!(miri) { 30 } else { 400 })
    }

    /// Where a message is known by what it carries: its number is its kind.
    fn run(operations: Vec<Operation>) -> Result<(), TestCaseError> {
        let memory = Memory::new();
        let mut sides = memory.sides();
        let names = [["a", "b"], ["c", "d"]];
        let mut kernels: Vec<Vec<Option<End<'_>>>> =
            (0..2).map(|side| names[side].iter().map(|name| Some(memory.register(side, name))).collect()).collect();
        settle(&mut sides);
        let mut sent: Vec<(usize, MessageId)> = Vec::new();
        let mut count: HashMap<KernelId, usize> = HashMap::new();
        let mut received: HashMap<u32, u32> = HashMap::new();
        for operation in operations {
            match operation {
                Operation::Send { side, from, to, high, hop_limit } => {
                    let Some(to) = memory.fabrics[side].find(names[1 - side][to]) else { continue };
                    let kernel = kernels[side][from].as_mut().unwrap();
                    let message = Message::new(sent.len() as u32).with_hop_limit(hop_limit);
                    let priority = if high { Priority::High } else { Priority::Normal };
                    let count = count.entry(kernel.id()).or_default();
                    if *count < MOST
                        && let Ok(id) = kernel.send_priority(to, &message, priority)
                    {
                        *count += 1;
                        sent.push((side, id));
                    }
                }
                Operation::Receive { side, at } => {
                    if let Some(message) = kernels[side][at].as_mut().unwrap().try_receive() {
                        *received.entry(message.header.kind).or_default() += 1;
                    }
                }
                Operation::Pass(side) => drop(core::hint::black_box(Some(sides[side].pass()))),
                Operation::Advance(ns) => memory.platform.advance(ns),
                Operation::Expire { side, at } => {
                    kernels[side][at].as_mut().unwrap().expire();
                }
                Operation::Replace { side, at } => {
                    let left = kernels[side][at].take().unwrap();
                    let senders = sent.iter().filter(|(of, id)| *of == side && id.source == left.id()).count();
                    // An owner's receipts are not overwritten by the next one's.
                    let id = left.id();
                    left.unregister();
                    let next = memory.register(side, names[side][at]);
                    if next.id().index() == id.index() {
                        count.insert(next.id(), count.get(&id).copied().unwrap_or(senders));
                    }
                    kernels[side][at] = Some(next);
                }
            }
        }
        // To the end of all deadlines.
        for _ in 0..3 {
            for _ in 0..2 * SLOTS + FRAMES {
                settle(&mut sides);
                for kernel in kernels.iter_mut().flatten().flatten() {
                    while let Some(message) = kernel.try_receive() {
                        *received.entry(message.header.kind).or_default() += 1;
                    }
                    kernel.expire();
                }
            }
            memory.platform.advance(OVERDUE_NS);
        }
        let unanswered: u64 = sides.iter().map(|side| side.stats().unanswered).sum();
        for (number, &(side, id)) in sent.iter().enumerate() {
            let times = received.get(&(number as u32)).copied().unwrap_or(0);
            prop_assert!(times <= 1, "received twice");
            let status = match memory.fabrics[side].peek_receipt(id) {
                Ok(receipt) => receipt.status,
                // A proxy that has the sender's index by now may use any entry of its receipts.
                Err(why) => {
                    let gone = !memory.fabrics[side].is_registered(id.source);
                    prop_assert!(why == ReceiptError::Overwritten && gone, "message {}: {}", number, why);
                    continue;
                }
            };
            prop_assert_ne!(status, DeliveryStatus::Pending);
            // Only this status leaves open whether a message was received.
            prop_assert!(unanswered > 0 || status != DeliveryStatus::Unanswered);
            if status != DeliveryStatus::Unanswered {
                prop_assert_eq!(times == 1, status == DeliveryStatus::Delivered, "message {}: {}", number, status);
            }
        }
        for fabric in &memory.fabrics {
            let total = fabric.total_stats();
            prop_assert_eq!((fabric.pending(), total.corrupt), (0, 0), "{:?}", total);
            prop_assert_eq!(total.sent, total.received + total.failed(), "{:?}", total);
        }
        prop_assert!(sides.iter().all(|side| side.in_flight() == (0, 0)));
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 200 }))]

        #[test]
        fn every_message_ends_once_and_both_sides_agree(operations in operations(GRACE_NS / 8, 0)) {
            run(operations)?;
        }

        #[test]
        fn every_message_ends_once_while_kernels_come_and_go(operations in operations(GRACE_NS, 2)) {
            run(operations)?;
        }
    }
}
