//! Two clocks: what becomes of messages, waits and gateways when the wall clock is set, and when the clocks of two
//! kernels differ by less than the margin.

mod common;

use common::fabric;
use core::cell::Cell;
use core::time::Duration;
use k2k_core::gateway::{Gateway, GatewayConfig};
use k2k_core::{
    CLOCK_MARGIN_NS, Command, Config, DeliveryStatus, Endpoint, Fabric, Fixed, KernelId, LinkEnd, LinkHalf, Message,
    MessageId, Platform, Priority, Registration, SendError, WakeFlag,
};
use proptest::prelude::*;

const HOUR_NS: u64 = 3_600_000_000_000;
const TIMEOUT_NS: u64 = 5_000_000_000;
/// Some time in the year 2026.
const WALL_NS: u64 = 1_795_000_000_000_000_000;

/// What all kernels of a machine look at.
#[derive(Debug)]
struct Machine {
    elapsed_ns: Cell<u64>,
    wall_ns: Cell<u64>,
}

impl Machine {
    fn new() -> Self {
        Self { elapsed_ns: Cell::new(77_000_000_000), wall_ns: Cell::new(WALL_NS) }
    }

    fn pass(&self, ns: u64) {
        self.elapsed_ns.set(self.elapsed_ns.get() + ns);
        self.wall_ns.set(self.wall_ns.get() + ns);
    }

    /// A kernel's look at the clocks: `ahead_ns` ahead of the machine.
    fn clock(&self, ahead_ns: u64) -> Skewed<'_> {
        Skewed { machine: self, ahead_ns }
    }
}

#[derive(Clone, Copy, Debug)]
struct Skewed<'m> {
    machine: &'m Machine,
    ahead_ns: u64,
}

impl Platform for Skewed<'_> {
    fn now_ns(&self) -> u64 {
        self.machine.elapsed_ns.get() + self.ahead_ns
    }

    fn wall_offset_ns(&self) -> u64 {
        self.machine.wall_ns.get().wrapping_sub(self.machine.elapsed_ns.get())
    }

    fn wake(&self, _: &WakeFlag) {}
}

type End<'f> = Endpoint<'f, Skewed<'f>, Fixed<4, 4, 64>>;

fn register<'f>(fabric: &'f Fabric<4, 4, 64>, name: &str, clock: Skewed<'f>) -> End<'f> {
    fabric.register(&Registration::new(name).unwrap(), clock).unwrap()
}

fn status(sender: &mut End<'_>, id: MessageId) -> Option<DeliveryStatus> {
    sender.receipt(id).ok().map(|receipt| receipt.status)
}

fn fill(from: &mut End<'_>, to: KernelId) -> usize {
    core::iter::from_fn(|| from.send(to, &Message::new(1)).ok()).count()
}

/// Forward an hour, and back an hour.
const STEPS: [u64; 2] = [HOUR_NS, HOUR_NS.wrapping_neg()];

fn set_wall(machine: &Machine, by_ns: u64) {
    machine.wall_ns.set(machine.wall_ns.get().wrapping_add(by_ns));
}

#[test]
fn a_wall_clock_that_is_set_neither_times_out_nor_delays_what_is_in_flight() {
    for by_ns in STEPS {
        let (machine, fabric) = (Machine::new(), fabric::<4, 4, 64>(&Config { tracing: true, ..Config::default() }));
        let [mut a, mut b, mut c] = ["a", "b", "c"].map(|name| register(&fabric, name, machine.clock(0)));
        fabric.set_route(a.id(), c.id(), b.id()).unwrap();
        let [direct, routed, late] =
            [b.id(), c.id(), c.id()].map(|to| a.send(to, &Message::new(1)).expect("there is room"));
        set_wall(&machine, by_ns);
        assert_eq!(a.expire(), 3);
        assert_eq!(b.try_receive().unwrap().header.id(), direct);
        b.poll();
        assert_eq!(c.try_receive().unwrap().header.id(), routed);
        machine.pass(TIMEOUT_NS + 1);
        assert_eq!(c.try_receive(), None, "in time neither earlier nor later");
        assert_eq!([direct, routed, late].map(|id| status(&mut a, id)), {
            [DeliveryStatus::Delivered, DeliveryStatus::Delivered, DeliveryStatus::Timeout].map(Some)
        });
    }
}

#[test]
fn a_send_that_waits_ends_at_its_deadline_also_when_the_wall_clock_is_set_meanwhile() {
    for by_ns in STEPS {
        let (machine, fabric) = (Machine::new(), fabric::<4, 4, 64>(&Config::default()));
        let [mut a, b] = ["a", "b"].map(|name| register(&fabric, name, machine.clock(0)));
        fill(&mut a, b.id());
        let (began_ns, mut waits) = (a.now_ns(), 0);
        let sent = a.send_waiting(b.id(), &Message::new(1), Priority::Normal, || {
            machine.pass(TIMEOUT_NS / 10);
            set_wall(&machine, by_ns);
            waits += 1;
        });
        assert_eq!(sent, Err(SendError::Timeout { deadline_ns: began_ns + TIMEOUT_NS }));
        assert_eq!(waits, 10);
    }
}

#[test]
fn timestamps_follow_the_wall_clock_and_never_go_back() {
    let (machine, fabric) = (Machine::new(), fabric::<4, 4, 64>(&Config { tracing: true, ..Config::default() }));
    let [mut a, mut b] = ["a", "b"].map(|name| register(&fabric, name, machine.clock(0)));
    let mut last = a.now();
    assert_eq!(last.wall_time_ns, WALL_NS);
    for by_ns in [STEPS[0], STEPS[1], STEPS[1], STEPS[0], STEPS[0]] {
        set_wall(&machine, by_ns);
        machine.pass(1_000);
        let wall_ns = machine.wall_ns.get();
        a.send(b.id(), &Message::new(1)).unwrap();
        let sent = b.try_receive().unwrap().header.sent();
        assert!(sent > last && sent.wall_time_ns >= wall_ns && b.now() > sent);
        last = sent;
    }
    assert_eq!(last.wall_time_ns, machine.wall_ns.get(), "the clock has caught up");
    let traced = fabric.trace(a.id()).unwrap().read().next().unwrap();
    assert!(traced.at.wall_time_ns >= WALL_NS);
}

/// The receipt was overwritten, so the receiver sees nothing of what the sender has said.
#[test]
fn what_its_sender_has_given_up_is_refused_by_a_clock_that_is_behind() {
    for ahead_ns in [0, 1, CLOCK_MARGIN_NS / 2, CLOCK_MARGIN_NS - 1] {
        let (machine, fabric) = (Machine::new(), fabric::<4, 4, 64>(&Config::default()));
        let mut a = register(&fabric, "a", machine.clock(ahead_ns));
        let [mut b, mut c] = ["b", "c"].map(|name| register(&fabric, name, machine.clock(0)));
        let late = a.send(b.id(), &Message::new(1)).unwrap();
        let mut waited_ns = 0;
        while status(&mut a, late) == Some(DeliveryStatus::Pending) {
            machine.pass(1_000);
            waited_ns += 1_000;
            if waited_ns == 1_000 {
                machine.pass(TIMEOUT_NS - 10_000);
            }
        }
        assert_eq!(status(&mut a, late), Some(DeliveryStatus::Timeout));
        for _ in 0..16 {
            a.send(c.id(), &Message::new(1)).unwrap();
            assert!(c.try_receive().is_some());
        }
        assert_eq!(b.try_receive(), None, "{ahead_ns} ns behind");
    }
}

#[test]
fn what_is_received_in_time_is_never_timed_out_by_a_clock_that_is_ahead() {
    let (machine, fabric) = (Machine::new(), fabric::<4, 4, 64>(&Config::default()));
    let mut a = register(&fabric, "a", machine.clock(CLOCK_MARGIN_NS - 1));
    let mut b = register(&fabric, "b", machine.clock(0));
    let id = a.send(b.id(), &Message::new(1)).unwrap();
    machine.pass(TIMEOUT_NS + CLOCK_MARGIN_NS - 1);
    assert_eq!(status(&mut a, id), Some(DeliveryStatus::Pending), "b's clock is at the deadline");
    assert!(b.try_receive().is_some());
    assert_eq!(status(&mut a, id), Some(DeliveryStatus::Delivered));
}

#[test]
fn a_send_that_waits_hears_stop_and_so_may_wait_for_ever() {
    for priority in [Priority::Normal, Priority::High] {
        let (machine, fabric) = (Machine::new(), fabric::<4, 4, 64>(&Config::default()));
        let [mut a, mut b] = ["a", "b"].map(|name| register(&fabric, name, machine.clock(0)));
        let (me, to) = (a.id(), b.id());
        while a.send_priority(to, &Message::new(1), priority).is_ok() {}
        let forever = Message::new(2).with_deadline_ns(a.deadline_in(Duration::MAX));
        assert_eq!(forever.header.deadline_ns, u64::MAX);
        for command in [Command::Stop, Command::Pause, Command::Drain] {
            let refused = a.stats().refused;
            let mut waits = 0;
            let sent = a.send_waiting(to, &forever, priority, || {
                machine.pass(HOUR_NS);
                waits += 1;
                if waits == 5 {
                    fabric.command(me, command, &machine.clock(0)).unwrap();
                } else if waits == 10 {
                    fabric.command(me, Command::Stop, &machine.clock(0)).unwrap();
                }
            });
            assert_eq!(sent, Err(SendError::Stopped { next_hop: to }));
            assert_eq!(waits, if command == Command::Stop { 5 } else { 10 }, "{command:?}");
            assert_eq!(a.stats().refused, refused + 1);
            fabric.command(me, Command::Run, &machine.clock(0)).unwrap();
        }
        // One that was told before still sends where there is room.
        fabric.command(me, Command::Stop, &machine.clock(0)).unwrap();
        assert_eq!(a.send_waiting(to, &forever, priority, || unreachable!()), Err(SendError::Stopped { next_hop: to }));
        machine.elapsed_ns.set(77_000_000_000);
        while b.try_receive().is_some() {}
        assert!(a.send_waiting(to, &forever, priority, || unreachable!()).is_ok());
    }
    let stopped = SendError::Stopped { next_hop: KernelId::new(1, 1) };
    assert_eq!(stopped.status(), None);
    assert!(stopped.to_string().contains("told to stop while it waited for room"));
}

#[test]
fn a_deadline_is_a_duration_from_now_and_never_the_default_by_accident() {
    let (machine, fabric) = (Machine::new(), fabric::<4, 4, 64>(&Config::default()));
    let [mut a, mut b] = ["a", "b"].map(|name| register(&fabric, name, machine.clock(0)));
    let now_ns = a.now_ns();
    assert_eq!(now_ns, machine.elapsed_ns.get());
    for (time, expected_ns) in [
        (Duration::ZERO, now_ns),
        (Duration::from_nanos(1), now_ns + 1),
        (Duration::new(3, 999_999_999), now_ns + 3_999_999_999),
        (Duration::from_secs(u64::MAX / 1_000_000_000 + 1), u64::MAX),
        (Duration::MAX, u64::MAX),
    ] {
        assert_eq!(a.deadline_in(time), expected_ns);
    }
    let message = Message::new(1).with_deadline_ns(a.deadline_in(Duration::ZERO));
    assert_eq!(a.send(b.id(), &message), Err(SendError::Timeout { deadline_ns: now_ns }));
    let message = Message::new(1).with_deadline_ns(a.deadline_in(Duration::from_millis(1)));
    a.send(b.id(), &message).unwrap();
    machine.pass(1_000_001);
    assert_eq!(b.try_receive(), None);
    machine.elapsed_ns.set(0);
    assert_eq!(a.deadline_in(Duration::ZERO), 1, "0 would stand for the fabric's timeout");
}

#[test]
fn a_gateway_does_not_take_a_clock_that_is_set_for_silence_or_for_a_late_answer() {
    type Half = LinkHalf<8, 64>;
    for by_ns in STEPS {
        let machine = Machine::new();
        let fabrics: [Box<Fabric<4, 4, 64>>; 2] = [fabric(&Config::default()), fabric(&Config::default())];
        // SAFETY: all zero is an unused half.
        let halves = [0, 1].map(|_| unsafe { Box::<Half>::new_zeroed().assume_init() });
        halves.iter().for_each(|half| half.set_up().unwrap());
        let side = |at: usize| {
            // SAFETY: the two halves make one link.
            let end = unsafe { LinkEnd::open(halves[at].handle(), halves[1 - at].handle()) }.unwrap();
            Gateway::new(register(&fabrics[at], "gateway", machine.clock(0)), end, GatewayConfig::default())
        };
        let mut sides = [side(0), side(1)];
        let settle = |sides: &mut [Gateway<'_, _, Fixed<4, 4, 64>, 8>; 2]| {
            for _ in 0..16 {
                let _ = (sides[0].pass(), sides[1].pass());
            }
        };
        let (mut a, mut b) =
            (register(&fabrics[0], "a", machine.clock(0)), register(&fabrics[1], "b", machine.clock(0)));
        settle(&mut sides);
        let to = fabrics[0].find("b").unwrap();
        let id = a.send(to, &Message::new(1)).unwrap();
        settle(&mut sides);
        set_wall(&machine, by_ns);
        assert!(sides[0].is_connected() && sides[1].is_connected());
        settle(&mut sides);
        assert_eq!(status(&mut a, id), Some(DeliveryStatus::Pending));
        assert!(b.try_receive().is_some());
        settle(&mut sides);
        assert_eq!(status(&mut a, id), Some(DeliveryStatus::Delivered));
        assert_eq!(sides[0].stats().unanswered, 0);
    }
}

#[test]
fn two_domains_on_different_clocks_do_not_meet() {
    type Half = LinkHalf<8, 64>;
    for (clocks, meet) in [([5, 6], false), ([5, 5], true), ([0, 6], true), ([5, 0], true)] {
        let machine = Machine::new();
        let fabrics: [Box<Fabric<4, 4, 64>>; 2] = clocks.map(|clock| fabric(&Config { clock, ..Config::DEFAULT }));
        // SAFETY: all zero is an unused half.
        let halves = [0, 1].map(|_| unsafe { Box::<Half>::new_zeroed().assume_init() });
        halves.iter().for_each(|half| half.set_up().unwrap());
        let side = |at: usize| {
            // SAFETY: the two halves make one link.
            let end = unsafe { LinkEnd::open(halves[at].handle(), halves[1 - at].handle()) }.unwrap();
            Gateway::new(register(&fabrics[at], "gateway", machine.clock(0)), end, GatewayConfig::default())
        };
        let mut sides = [side(0), side(1)];
        let _b = register(&fabrics[1], "b", machine.clock(0));
        for _ in 0..16 {
            let _ = (sides[0].pass(), sides[1].pass());
        }
        assert_eq!(sides.each_ref().map(Gateway::is_connected), [meet; 2], "{clocks:?}");
        assert_eq!(fabrics[0].find("b").is_some(), meet);
        assert_eq!(sides.each_ref().map(|side| side.stats().other_clock > 0), [!meet; 2]);
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Send {
        from: usize,
        to: usize,
        high: bool,
        short: bool,
    },
    Receive(usize),
    Poll(usize),
    Ask(usize),
    /// Sends itself as many messages as it has receipts.
    Overwrite(usize),
    Pass(u64),
    SetWall(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3usize, 0..3usize, any::<bool>(), any::<bool>())
            .prop_map(|(from, to, high, short)| Step::Send { from, to, high, short }),
        2 => (0..3usize).prop_map(Step::Receive),
        1 => (0..3usize).prop_map(Step::Poll),
        2 => (0..3usize).prop_map(Step::Ask),
        1 => (0..3usize).prop_map(Step::Overwrite),
        3 => (0..2 * CLOCK_MARGIN_NS).prop_map(Step::Pass),
        1 => (-(HOUR_NS.cast_signed())..HOUR_NS.cast_signed()).prop_map(Step::SetWall),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 2 } else { 512 }, ..ProptestConfig::default() })]

    /// Whatever the clocks show within the margin, and however the wall clock is set: no message that was seen to have
    /// timed out is received, before or after, and the other way round.
    #[test]
    fn delivered_and_timed_out_exclude_each_other(
        ahead_ns in prop::array::uniform3(0..CLOCK_MARGIN_NS),
        steps in prop::collection::vec(step(), 1..300),
    ) {
        let (machine, fabric) = (Machine::new(), fabric::<4, 4, 64>(&Config::default()));
        let mut kernels = [0, 1, 2].map(|i| register(&fabric, ["a", "b", "c"][i], machine.clock(ahead_ns[i])));
        let ids = [0, 1, 2].map(|i: usize| kernels[i].id());
        fabric.set_route(ids[0], ids[2], ids[1]).unwrap();
        let (mut sent, mut given_up, mut received) = (Vec::new(), Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::Send { from, to, high, short } => {
                    let priority = if high { Priority::High } else { Priority::Normal };
                    let time = Duration::from_nanos(if short { CLOCK_MARGIN_NS / 2 } else { 3 * CLOCK_MARGIN_NS });
                    let message = Message::new(1).with_deadline_ns(kernels[from].deadline_in(time));
                    sent.extend(kernels[from].send_priority(ids[to], &message, priority));
                }
                Step::Receive(at) => received.extend(kernels[at].try_receive().map(|message| message.header.id())),
                Step::Poll(at) => drop(kernels[at].poll()),
                Step::Ask(at) => {
                    kernels[at].expire();
                    given_up.extend(sent.iter().filter(|&&id| {
                        fabric.receipt(id, kernels[at].platform()).is_ok_and(|receipt| receipt.status == DeliveryStatus::Timeout)
                    }));
                }
                Step::Overwrite(at) => {
                    for _ in 0..16 {
                        let _ = kernels[at].send(ids[at], &Message::new(1));
                        received.extend(kernels[at].try_receive().map(|message| message.header.id()));
                    }
                }
                Step::Pass(ns) => machine.pass(ns),
                Step::SetWall(by_ns) => set_wall(&machine, by_ns.cast_unsigned()),
            }
        }
        for id in &received {
            prop_assert!(!given_up.contains(id), "{:?} was timed out and received", id);
            prop_assert_eq!(received.iter().filter(|other| *other == id).count(), 1);
        }
    }
}
