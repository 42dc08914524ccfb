//! What a gateway does when it dies. The actor is the gateway of fabric 0.

extern crate std;

use super::scenarios::Tried;
use super::world::{self, LONG, SLOTS, Shared, Small, TIMEOUT, World, check_messages};
use super::{Fate, stop, with_fate};
use crate::fabric::DeliveryStatus;
use crate::gateway::{Gateway, GatewayConfig};
use crate::message::Priority;
use crate::{Fixed, LinkEnd, LinkHalf, Registration};
use Priority::{High, Normal};
use core::mem;
use std::boxed::Box;
use std::format;
use std::string::String;

const FRAMES: usize = 4;
type Half = LinkHalf<FRAMES, 64>;
type Side = Gateway<'static, &'static Shared, Fixed<{ world::KERNELS }, SLOTS, 64>, FRAMES>;

const CONFIG: GatewayConfig = GatewayConfig { silence_ns: 2 * TIMEOUT, grace_ns: TIMEOUT / 2, export_all: true };

/// A gateway, and what it needs to begin. An actor is nothing but this, so that it can run on a thread of its own.
struct Station {
    name: &'static str,
    fabric: &'static Small,
    platform: &'static Shared,
    /// The near half and the far one.
    halves: [&'static Half; 2],
    gateway: Option<Box<Side>>,
}

impl Station {
    /// Begins, on a link that may have been in use.
    fn start(&mut self) {
        let [near, far] = self.halves;
        // SAFETY: the two halves make one link, and the last gateway is gone.
        let end = unsafe { LinkEnd::recover(near.handle(), far.handle()) }.expect("set up");
        let who = Registration::new(self.name).expect("short");
        let endpoint = self.fabric.register(&who, self.platform).expect("a free index");
        self.gateway = Some(Box::new(Gateway::new(endpoint, end, CONFIG)));
    }

    fn pass(&mut self) {
        if let Some(gateway) = &mut self.gateway {
            gateway.pass();
        }
    }

    fn passes(&mut self) {
        for _ in 0..3 {
            self.pass();
        }
    }

    fn leave(&mut self) {
        self.gateway = None;
    }

    /// The process is gone: what was in it is neither dropped nor used.
    fn die(&mut self) {
        mem::forget(self.gateway.take());
    }
}

/// Two fabrics with a kernel each, `a` and `b`, and the link between them.
struct Pair {
    worlds: [World; 2],
    stations: [Station; 2],
}

impl Pair {
    fn new() -> Self {
        let platform = world::platform();
        let worlds = [(0, ["a"]), (1, ["b"])].map(|(side, names)| World::of(side, platform, &names));
        let half = || -> &'static Half {
            // SAFETY: zero is an unused half.
            let half = Box::leak(unsafe { Box::<Half>::new_zeroed().assume_init() });
            half.set_up().expect("zeroed");
            half
        };
        let halves = [half(), half()];
        let stations = [(0, "gateway 0"), (1, "gateway 1")].map(|(side, name)| Station {
            name,
            fabric: worlds[side].fabric,
            platform,
            halves: [halves[side], halves[1 - side]],
            gateway: None,
        });
        let mut pair = Self { worlds, stations };
        pair.stations.iter_mut().for_each(Station::start);
        pair.settle();
        pair
    }

    /// Sends from the kernel of one side to that of the other.
    fn send(&mut self, from: usize, priority: Priority) {
        let World { fabric, nodes, .. } = &mut self.worlds[from];
        let to = fabric.find(["b", "a"][from]).expect("announced");
        nodes[0].send(to, priority).expect("room");
    }

    /// The gateway of one side passes, then that of the other.
    fn carry(&mut self, from: usize) {
        self.stations[from].passes();
        self.stations[1 - from].passes();
    }

    fn settle(&mut self) {
        for _ in 0..4 {
            self.stations.iter_mut().for_each(Station::passes);
            self.worlds.iter_mut().for_each(World::settle);
        }
    }

    /// As `settle`, and then everything that is still under way is past all deadlines and patience. Signs of life are
    /// given meanwhile.
    fn time_out(&mut self) {
        self.settle();
        for _ in 0..LONG / TIMEOUT {
            self.worlds[0].platform.advance(TIMEOUT);
            self.settle();
        }
    }

    fn overwrite_receipts(&mut self) {
        self.worlds.iter_mut().for_each(World::overwrite_receipts);
    }

    /// A successor of a side's dead gateway.
    fn succeed(&mut self, side: usize) {
        self.take_over(side);
        self.stations[side].start();
    }

    /// A supervisor takes over what a side's dead gateway had, and lets go of it.
    fn take_over(&self, side: usize) {
        let World { fabric, platform, .. } = self.worlds[side];
        for owned in self.worlds[side].orphans() {
            drop(world::succeed(fabric, platform, owned));
        }
    }

    /// Whether messages cross the link as if nothing had happened.
    fn check_ways(&mut self) -> Result<(), String> {
        let all_here = self.worlds.iter().all(|world| world.nodes[0].is_here())
            && self.stations.iter().all(|station| station.gateway.is_some());
        for side in (0..2).filter(|_| all_here) {
            let World { fabric, nodes, .. } = &mut self.worlds[side];
            let name = ["b", "a"][side];
            let to = fabric.find(name).ok_or_else(|| format!("{name} is not known on the remote side any more"))?;
            let id = nodes[0].send(to, Normal).map_err(|why| format!("to {name}: {why}"))?;
            self.settle();
            let receipt =
                self.worlds[side].fabric.receipt(id, &self.worlds[side].platform).map(|receipt| receipt.status);
            if receipt != Ok(DeliveryStatus::Delivered) {
                return Err(format!("to {name} on a healthy way: {receipt:?}"));
            }
        }
        Ok(())
    }

    /// Checks all promises at rest, and returns the first that is broken.
    fn check(&mut self) -> Result<(), String> {
        self.check_ways()?;
        check_messages(&self.worlds)?;
        for side in 0..2 {
            self.stations[side].leave();
            self.settle();
        }
        for world in &mut self.worlds {
            world.check_indices()?;
        }
        Ok(())
    }
}

/// A situation and an act.
struct Scenario {
    name: &'static str,
    before: fn(&mut Pair),
    act: fn(&mut Station),
}

/// The gateway of fabric 0 has messages that the kernel there has no room for.
fn no_room(pair: &mut Pair) {
    for _ in 0..SLOTS + 1 {
        pair.send(1, Normal);
        pair.send(1, High);
        pair.carry(1);
    }
}

/// Two messages have been received on the remote side, and its gateway has answered.
fn answered(pair: &mut Pair) {
    pair.send(0, Normal);
    pair.send(0, High);
    pair.carry(0);
    while pair.worlds[1].nodes[0].receive() {}
    pair.stations[1].passes();
}

/// As `answered`, and the gateway of this side comes to the answers after the sender has given the messages up.
fn given_up(pair: &mut Pair) {
    answered(pair);
    pair.worlds[0].platform.advance(LONG);
    pair.worlds[0].nodes[0].endpoint().expire();
}

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "start",
        before: |pair| {
            pair.stations[0].leave();
            pair.settle();
        },
        act: |station| {
            station.start();
            station.passes();
        },
    },
    Scenario { name: "announce", before: |pair| pair.worlds[0].add("c", 9), act: Station::passes },
    Scenario { name: "hear of another", before: |pair| pair.worlds[1].add("c", 9), act: Station::passes },
    Scenario {
        name: "withdraw",
        before: |pair| {
            pair.send(1, Normal);
            pair.carry(1);
            pair.worlds[0].nodes[0].leave();
        },
        act: Station::passes,
    },
    Scenario {
        name: "hear that a kernel has left",
        before: |pair| {
            pair.send(0, Normal);
            pair.worlds[1].nodes[0].leave();
            pair.stations[1].passes();
        },
        act: Station::passes,
    },
    Scenario {
        name: "carry out",
        before: |pair| {
            pair.send(0, Normal);
            pair.send(0, High);
        },
        act: Station::passes,
    },
    Scenario {
        name: "carry in",
        before: |pair| {
            pair.send(1, Normal);
            pair.send(1, High);
            pair.stations[1].passes();
        },
        act: Station::passes,
    },
    Scenario { name: "hear an answer", before: answered, act: Station::passes },
    Scenario {
        name: "hear answers to messages whose receipts are overwritten",
        before: |pair| {
            answered(pair);
            pair.overwrite_receipts();
        },
        act: Station::passes,
    },
    Scenario {
        name: "hear answers to messages that their sender has given up",
        before: given_up,
        act: Station::passes,
    },
    Scenario {
        name: "hear answers to messages that their sender has given up, and whose receipts are overwritten",
        before: |pair| {
            given_up(pair);
            pair.overwrite_receipts();
        },
        act: Station::passes,
    },
    Scenario {
        name: "carry out messages whose receipts are overwritten",
        before: |pair| {
            pair.send(0, Normal);
            pair.send(0, High);
            pair.overwrite_receipts();
        },
        act: Station::passes,
    },
    Scenario {
        name: "give an answer",
        before: |pair| {
            pair.send(1, Normal);
            pair.send(1, High);
            pair.carry(1);
            while pair.worlds[0].nodes[0].receive() {}
        },
        act: Station::passes,
    },
    Scenario { name: "no room", before: no_room, act: Station::passes },
    Scenario {
        name: "room again",
        before: |pair| {
            no_room(pair);
            while pair.worlds[0].nodes[0].receive() {}
        },
        act: Station::passes,
    },
    Scenario {
        name: "give up",
        before: |pair| {
            pair.send(0, Normal);
            pair.send(0, High);
            pair.stations[0].passes();
            pair.worlds[0].platform.advance(LONG);
        },
        act: Station::passes,
    },
    Scenario {
        name: "find mail too late",
        before: |pair| {
            pair.send(0, Normal);
            pair.worlds[0].platform.advance(LONG);
            pair.stations[1].passes();
        },
        act: Station::passes,
    },
    Scenario {
        name: "leave",
        before: |pair| {
            pair.send(0, Normal);
            pair.carry(0);
            pair.send(1, Normal);
            pair.carry(1);
            pair.send(0, High);
        },
        act: Station::leave,
    },
    Scenario {
        name: "hear goodbye",
        before: |pair| {
            pair.send(0, Normal);
            pair.carry(0);
            pair.stations[1].leave();
        },
        act: Station::passes,
    },
    Scenario {
        name: "meet a successor",
        before: |pair| {
            pair.send(0, Normal);
            pair.send(1, Normal);
            pair.carry(0);
            pair.stations[1].die();
            pair.succeed(1);
            pair.stations[1].pass();
        },
        act: Station::passes,
    },
];

/// What happens after the death, before the promises are checked.
#[derive(Clone, Copy, Debug)]
enum Then {
    Succeed,
    OverwriteThenSucceed,
    TimeOutThenSucceed,
    TimeOutOverwriteThenSucceed,
    /// Nobody carries anything any more. At the end the indices are taken away.
    Nothing,
}

impl Then {
    const ALL: [Self; 5] = [
        Self::Succeed,
        Self::OverwriteThenSucceed,
        Self::TimeOutThenSucceed,
        Self::TimeOutOverwriteThenSucceed,
        Self::Nothing,
    ];

    fn happens_in(self, pair: &mut Pair) -> Result<(), String> {
        match self {
            Self::Succeed => pair.succeed(0),
            Self::OverwriteThenSucceed => {
                pair.overwrite_receipts();
                pair.succeed(0);
            }
            Self::TimeOutThenSucceed => {
                pair.time_out();
                pair.succeed(0);
            }
            Self::TimeOutOverwriteThenSucceed => {
                pair.time_out();
                pair.overwrite_receipts();
                pair.succeed(0);
            }
            Self::Nothing => {
                pair.time_out();
                check_messages(&pair.worlds)?;
                pair.worlds[0].reap();
            }
        }
        pair.time_out();
        pair.check()
    }
}

#[test]
fn no_death_of_a_gateway_at_any_step_breaks_a_promise() {
    let mut tried = Tried::new(SCENARIOS.len());
    for scenario in SCENARIOS {
        for then in Then::ALL {
            for at in 0.. {
                let mut pair = Pair::new();
                (scenario.before)(&mut pair);
                if !with_fate(at, Fate::Dies, || (scenario.act)(&mut pair.stations[0])) {
                    assert!(at > 0, "{}: an act without a step", scenario.name);
                    break;
                }
                pair.stations[0].die();
                let what = || format!("{}, dead at step {at}, {then:?}", scenario.name);
                tried.add(then.happens_in(&mut pair), what);
            }
        }
    }
    tried.finish("deaths of a gateway", 0);
}

/// The successor of its proxies dies as well, at each step of settling what was left at each step.
#[test]
fn no_second_death_of_a_gateway_at_any_step_breaks_a_promise() {
    let mut tried = Tried::new(SCENARIOS.len());
    for scenario in SCENARIOS {
        for overwritten in [false, true] {
            for at in 0.. {
                let dies = || {
                    let mut pair = Pair::new();
                    (scenario.before)(&mut pair);
                    let died = with_fate(at, Fate::Dies, || (scenario.act)(&mut pair.stations[0]));
                    pair.stations[0].die();
                    if overwritten {
                        pair.overwrite_receipts();
                    }
                    died.then_some(pair)
                };
                let Some(mut pair) = dies() else { break };
                // Every third, in turn: most steps leave the same behind as the one before.
                for second in (at % 3..).step_by(3) {
                    if !with_fate(second, Fate::Dies, || pair.take_over(0)) {
                        break;
                    }
                    pair.succeed(0);
                    pair.time_out();
                    tried.add(pair.check(), || {
                        format!("{}, dead at step {at}, then at {second}, overwritten: {overwritten}", scenario.name)
                    });
                    pair = dies().expect("as before");
                }
            }
        }
    }
    tried.finish("deaths of a gateway's successor", 0);
}

#[test]
fn no_stop_of_a_gateway_at_any_step_breaks_a_promise() {
    let mut tried = Tried::new(SCENARIOS.len());
    for scenario in SCENARIOS {
        for at in 0.. {
            let mut pair = Pair::new();
            (scenario.before)(&mut pair);
            let Station { name, fabric, platform, halves, .. } = pair.stations[0];
            let nobody = Station { name, fabric, platform, halves, gateway: None };
            let mut actor = mem::replace(&mut pair.stations[0], nobody);
            let (fate, is_stopped, go) = stop();
            let stopped = std::thread::scope(|scope| {
                let thread = scope.spawn(|| with_fate(at, fate, || (scenario.act)(&mut actor)));
                // An error means that the act has ended, and its end of the channel with it.
                if is_stopped.recv().is_ok() {
                    pair.time_out();
                    pair.overwrite_receipts();
                    go.send(()).expect("it waits");
                }
                thread.join().expect("no panic")
            });
            pair.stations[0] = actor;
            pair.time_out();
            tried.add(pair.check(), || format!("{}, stopped at step {at}", scenario.name));
            if !stopped {
                break;
            }
        }
    }
    tried.finish("stops of a gateway", 0);
}
