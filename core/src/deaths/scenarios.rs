//! What the actor does when it dies.

extern crate std;

use super::world::{LONG, Node, TIMEOUT, World};
use super::{Fate, stop, with_fate};
use crate::{Command, KernelId, Priority, RegisterError, Registration};
use Priority::{High, Normal};
use fastrand::Rng;
use std::string::String;
use std::vec::Vec;
use std::{format, println};

/// A situation and an act. The actor is node 1.
struct Scenario {
    name: &'static str,
    before: fn(&mut World),
    act: fn(&mut Node),
}

const ACTOR: usize = 1;

/// Node 0 sends to node 2 through node 1, whose next hop has no room left.
fn full_next_hop(world: &mut World, priority: Priority) {
    world.route(0, 2, 1);
    world.send(1, 2, priority);
    world.send(1, 2, priority);
    world.send(0, 2, priority);
    while world.nodes[1].receive() {}
}

/// As `full_next_hop`, and then the next hop receives: what is deferred can go.
fn room_again(world: &mut World, priority: Priority) {
    full_next_hop(world, priority);
    while world.nodes[2].receive() {}
}

fn to_the_other(node: &mut Node, priority: Priority) {
    let to = node.fabric.find("c").expect("registered");
    let _ = node.send(to, priority);
}

const SCENARIOS: &[Scenario] = &[
    Scenario { name: "send", before: |_| {}, act: |node| to_the_other(node, Normal) },
    Scenario { name: "send, high", before: |_| {}, act: |node| to_the_other(node, High) },
    Scenario {
        name: "send, over receipts that were given up",
        before: |world| {
            for _ in 0..2 {
                world.send(1, 2, Normal);
            }
            world.platform.advance(LONG);
            world.nodes[1].endpoint().expire();
        },
        act: |node| {
            let me = node.id;
            for _ in 0..9 {
                let _ = node.send(me, Normal);
                while node.receive() {}
            }
        },
    },
    Scenario {
        name: "send, over a receipt that was given up for mail to itself",
        before: |world| {
            world.send(1, 1, Normal);
            for _ in 0..7 {
                world.send(1, 2, Normal);
                world.nodes[2].receive();
            }
            world.platform.advance(LONG);
            world.nodes[1].endpoint().expire();
        },
        act: |node| to_the_other(node, Normal),
    },
    Scenario {
        name: "send, over the receipt of a pending message",
        before: |world| {
            world.send(1, 1, Normal);
            for _ in 0..7 {
                world.send(1, 2, Normal);
                world.nodes[2].receive();
            }
        },
        act: |node| to_the_other(node, Normal),
    },
    Scenario { name: "receive", before: |world| world.send(0, 1, Normal), act: |node| _ = node.receive() },
    Scenario { name: "receive, high", before: |world| world.send(0, 1, High), act: |node| _ = node.receive() },
    Scenario {
        name: "receive, too late",
        before: |world| {
            world.send(0, 1, Normal);
            world.send(0, 1, High);
            world.platform.advance(LONG);
        },
        act: |node| _ = node.receive(),
    },
    Scenario {
        name: "receive what its sender has given up",
        before: |world| {
            world.send(0, 1, Normal);
            world.platform.advance(LONG);
            world.nodes[0].endpoint().expire();
        },
        act: |node| _ = node.receive(),
    },
    Scenario { name: "reply", before: |world| world.send(0, 1, Normal), act: |node| _ = node.serve() },
    Scenario { name: "reply, high", before: |world| world.send(2, 1, High), act: |node| _ = node.serve() },
    Scenario {
        name: "forward",
        before: |world| {
            world.route(0, 2, 1);
            world.send(0, 2, Normal);
            world.send(0, 2, Normal);
        },
        act: |node| while node.receive() {},
    },
    Scenario {
        name: "forward, high",
        before: |world| {
            world.route(0, 2, 1);
            world.send(0, 2, High);
        },
        act: |node| while node.receive() {},
    },
    Scenario {
        name: "tap",
        before: |world| {
            world.route(0, 2, 1);
            world.send(0, 2, Normal);
            world.send(0, 2, High);
            world.send(0, 1, Normal);
        },
        act: |node| while node.endpoint().tap(|_| {}).passed > 0 {},
    },
    Scenario {
        name: "tap past a full next hop",
        before: |world| {
            world.route(0, 2, 1);
            world.send(1, 2, Normal);
            world.send(1, 2, Normal);
            world.send(0, 2, Normal);
            world.send(0, 2, High);
        },
        act: |node| while node.endpoint().tap(|_| {}).passed > 0 {},
    },
    Scenario {
        name: "tap what is too late for a full next hop",
        before: |world| {
            world.route(0, 2, 1);
            world.send(1, 2, Normal);
            world.send(1, 2, Normal);
            world.send(0, 2, Normal);
            world.platform.advance(LONG);
        },
        act: |node| while node.endpoint().tap(|_| {}).passed > 0 {},
    },
    Scenario {
        name: "become a tap, and be none any more",
        before: |world| world.send(0, 2, Normal),
        act: |node| {
            let [from, to] = ["a", "c"].map(|name| node.fabric.find(name).expect("registered"));
            let handle = node.fabric.handle();
            if handle.reroute(from, to, None, Some(node.id)) == Ok(true) {
                handle.bypass(node.id);
            }
        },
    },
    Scenario {
        name: "defer",
        before: |world| {
            world.route(0, 2, 1);
            world.send(1, 2, Normal);
            world.send(1, 2, Normal);
            world.send(0, 2, Normal);
            world.send(0, 2, Normal);
        },
        act: |node| while node.receive() {},
    },
    Scenario {
        name: "fail for want of room",
        before: |world| {
            full_next_hop(world, Normal);
            world.send(0, 2, Normal);
            while world.nodes[1].receive() {}
            world.send(0, 2, Normal);
        },
        act: |node| while node.receive() {},
    },
    Scenario { name: "flush", before: |world| room_again(world, Normal), act: |node| while node.receive() {} },
    Scenario { name: "flush, high", before: |world| room_again(world, High), act: |node| while node.receive() {} },
    Scenario {
        name: "flush by poll",
        before: |world| room_again(world, Normal),
        act: |node| _ = node.endpoint().poll(),
    },
    Scenario {
        name: "flush to the second of two",
        before: |world| {
            full_next_hop(world, Normal);
            world.send(0, 2, Normal);
            while world.nodes[1].receive() {}
            world.nodes[2].receive();
        },
        act: |node| {
            _ = node.endpoint().poll();
            _ = node.endpoint().poll();
        },
    },
    Scenario {
        name: "flush what is too late",
        before: |world| {
            full_next_hop(world, Normal);
            world.platform.advance(LONG);
        },
        act: |node| _ = node.endpoint().poll(),
    },
    Scenario {
        name: "poll, paused, with mail of its own",
        before: |world| {
            world.command(1, Command::Pause);
            world.route(0, 2, 1);
            world.send(0, 1, High);
            world.send(2, 1, Normal);
            world.send(0, 2, Normal);
        },
        act: |node| _ = node.endpoint().poll(),
    },
    Scenario {
        name: "past the hop limit",
        before: |world| {
            world.route(0, 2, 1);
            world.route(1, 2, 0);
            world.send(0, 2, Normal);
            for _ in 0..3 {
                world.nodes[1].receive();
                world.nodes[0].receive();
            }
            world.send(0, 2, High);
        },
        act: |node| {
            while node.receive() {}
        },
    },
    Scenario {
        name: "expire",
        before: |world| {
            world.send(1, 2, Normal);
            world.send(1, 0, High);
            world.platform.advance(LONG);
        },
        act: |node| _ = node.endpoint().expire(),
    },
    Scenario {
        name: "receive from a denied sender",
        before: |world| {
            world.send(0, 1, Normal);
            world.send(0, 1, High);
            world.send(2, 1, High);
            world.fabric.deny(world.id(1), world.id(0)).expect("registered");
        },
        act: |node| while node.receive() {},
    },
    Scenario {
        name: "send to one that denies",
        before: |world| world.fabric.deny(world.id(2), world.id(1)).expect("registered"),
        act: |node| to_the_other(node, High),
    },
    Scenario {
        name: "deny",
        before: |world| world.send(0, 2, Normal),
        act: |node| {
            let [sender, receiver] = ["a", "c"].map(|name| node.fabric.find(name).expect("registered"));
            node.fabric.deny(receiver, sender).expect("registered");
            node.fabric.allow(receiver, sender);
        },
    },
    Scenario {
        name: "leave, denying and denied",
        before: |world| {
            world.send(0, 1, Normal);
            world.send(1, 2, High);
            world.fabric.deny(world.id(1), world.id(0)).expect("registered");
            world.fabric.deny(world.id(2), world.id(1)).expect("registered");
        },
        act: Node::leave,
    },
    Scenario { name: "leave, idle", before: |_| {}, act: Node::leave },
    Scenario {
        name: "leave with mail",
        before: |world| {
            room_again(world, Normal);
            world.send(0, 1, Normal);
            world.send(2, 1, High);
            world.send(1, 0, Normal);
        },
        act: Node::leave,
    },
    Scenario {
        name: "leave with mail for a full next hop",
        before: |world| {
            full_next_hop(world, Normal);
            world.send(0, 2, Normal);
        },
        act: Node::leave,
    },
    Scenario { name: "register", before: |world| world.nodes[1].leave(), act: |node| node.register(false) },
    Scenario {
        name: "register where mail was left",
        before: |world| {
            let to = world.id(1);
            world.nodes[1].leave();
            let _ = world.nodes[0].send(to, Normal);
        },
        act: |node| node.register(true),
    },
    Scenario { name: "wake", before: |world| world.nodes[2].park(), act: |node| to_the_other(node, Normal) },
    Scenario { name: "wake, high", before: |world| world.nodes[2].park(), act: |node| to_the_other(node, High) },
    Scenario {
        name: "wake a next hop",
        before: |world| {
            world.nodes[2].leave();
            world.nodes[2].register(true);
            room_again(world, Normal);
            let node = &mut world.nodes[2];
            node.sleep = node.endpoint().fall_asleep(Command::Run);
        },
        act: |node| _ = node.endpoint().poll(),
    },
    Scenario {
        name: "park",
        before: |world| {
            world.nodes[1].leave();
            world.nodes[1].register(true);
        },
        act: |node| {
            if let Some(sleep) = node.endpoint().fall_asleep(Command::Run) {
                sleep.end();
            }
        },
    },
    Scenario {
        name: "park with mail",
        before: |world| {
            world.nodes[1].leave();
            world.nodes[1].register(true);
            world.send(0, 1, Normal);
        },
        act: |node| {
            assert!(node.endpoint().fall_asleep(Command::Run).is_none(), "there is mail");
            node.receive();
        },
    },
    Scenario {
        name: "run",
        before: |world| {
            world.route(0, 2, 1);
            world.send(0, 1, Normal);
            world.send(0, 2, Normal);
            world.send(2, 1, High);
        },
        act: Node::run,
    },
    Scenario {
        name: "drain",
        before: |world| {
            world.route(0, 2, 1);
            world.send(0, 1, Normal);
            world.send(0, 2, Normal);
            world.send(2, 1, High);
            world.command(1, Command::Drain);
        },
        act: |node| {
            node.run();
            node.leave();
        },
    },
    Scenario {
        name: "send and wait for room",
        before: |world| {
            world.send(1, 2, Normal);
            world.send(1, 2, Normal);
        },
        act: |node| {
            let to = node.fabric.find("c").expect("registered");
            node.send_waiting(to, Normal);
        },
    },
    Scenario {
        name: "send to nobody",
        before: |world| world.nodes[2].leave(),
        act: |node| {
            let _ = node.send(KernelId::new(2, 1), Normal);
            let me = node.id;
            let _ = node.send(me, Normal);
        },
    },
    Scenario {
        name: "receive after a sender has left",
        before: |world| {
            world.send(0, 1, Normal);
            world.send(0, 1, High);
            world.nodes[0].leave();
            world.nodes[0].register(false);
        },
        act: |node| while node.receive() {},
    },
    Scenario {
        name: "take over",
        before: |world| {
            room_again(world, Normal);
            world.send(0, 1, Normal);
            world.kill(1);
        },
        act: |node| {
            // SAFETY: the driver has forgotten the endpoint.
            if let Ok(heir) = unsafe { node.fabric.take_over(node.id, node.platform) } {
                heir.unregister();
            }
        },
    },
];

/// What happens after the death, before the promises are checked.
#[derive(Clone, Copy, Debug)]
enum Then {
    /// A successor goes on; time passes only at the end.
    TakeOver,
    /// The senders overwrite their receipts first.
    OverwriteThenTakeOver,
    /// A successor takes over, and the senders overwrite their receipts.
    TakeOverThenOverwrite,
    /// Everything times out first.
    TimeOutThenTakeOver,
    /// A supervisor takes the index away: nobody goes on there.
    Reap,
    /// The senders overwrite their receipts before that.
    OverwriteThenReap,
    /// The others stay among themselves. At the end the index is taken away.
    Nothing,
}

impl Then {
    const ALL: [Self; 7] = [
        Self::TakeOver,
        Self::OverwriteThenTakeOver,
        Self::TakeOverThenOverwrite,
        Self::TimeOutThenTakeOver,
        Self::Reap,
        Self::OverwriteThenReap,
        Self::Nothing,
    ];

    fn happens_in(self, world: &mut World) -> Result<(), String> {
        world.check_sleepers()?;
        match self {
            Self::TakeOver => world.take_over(ACTOR),
            Self::OverwriteThenTakeOver => {
                world.overwrite_receipts();
                world.take_over(ACTOR);
            }
            Self::TakeOverThenOverwrite => {
                world.take_over(ACTOR);
                world.overwrite_receipts();
            }
            Self::TimeOutThenTakeOver => {
                world.time_out();
                world.take_over(ACTOR);
            }
            Self::Reap => world.reap(),
            Self::OverwriteThenReap => {
                world.overwrite_receipts();
                world.reap();
            }
            Self::Nothing => {
                world.time_out();
                world.check_outcomes()?;
                world.reap();
            }
        }
        world.time_out();
        world.check()
    }
}

/// A scenario up to the death of its actor at a step. `None` if the act ended before that step.
fn dies(scenario: &Scenario, at: u32) -> Option<World> {
    let mut world = World::new();
    (scenario.before)(&mut world);
    let died = with_fate(at, Fate::Dies, || (scenario.act)(&mut world.nodes[ACTOR]));
    died.then(|| {
        world.kill(ACTOR);
        world
    })
}

/// How many steps a scenario has.
fn steps(scenario: &Scenario) -> u32 {
    let steps = (0..).find(|&at| dies(scenario, at).is_none()).expect("a scenario ends");
    assert!(steps > 0, "{}: an act without a step", scenario.name);
    steps
}

/// What broke, and how much was tried.
pub(super) struct Tried {
    scenarios: usize,
    count: u32,
    broken: Vec<String>,
}

impl Tried {
    pub(super) const fn new(scenarios: usize) -> Self {
        Self { scenarios, count: 0, broken: Vec::new() }
    }

    pub(super) fn add(&mut self, result: Result<(), String>, what: impl FnOnce() -> String) {
        self.count += 1;
        if let Err(why) = result {
            self.broken.push(format!("{}: {why}", what()));
        }
    }

    /// Prints what was tried, and panics if more broke than is known. `K2K_DEATHS=1` lists all of them.
    pub(super) fn finish(self, what: &str, known: usize) {
        let Self { scenarios, count, broken } = self;
        println!("{scenarios} scenarios, {count} {what}");
        if std::env::var_os("K2K_DEATHS").is_some() {
            println!("{}", broken.join("\n"));
        }
        assert!(broken.len() <= known, "{} broken, {known} known:\n{}", broken.len(), broken.join("\n"));
    }
}

#[test]
fn no_death_at_any_step_breaks_a_promise() {
    let mut tried = Tried::new(SCENARIOS.len());
    for scenario in SCENARIOS {
        for at in 0..steps(scenario) {
            for then in Then::ALL {
                let mut world = dies(scenario, at).expect("counted");
                tried.add(then.happens_in(&mut world), || format!("{}, dead at step {at}, {then:?}", scenario.name));
            }
        }
    }
    // FIXME: to be 0 when all of them are mended; lower it with each cure.
    tried.finish("deaths", 0);
}

/// Whichever step of registering a kernel has died at, no second kernel of its name is registered beside it, and the name is
/// free when its index was taken away. The next one to register is at a lower or a higher index.
#[test]
fn a_name_comes_back_wherever_a_kernel_that_registers_has_died() {
    for next_is_lower in [true, false] {
        let scenario = Scenario {
            name: "register",
            before: if next_is_lower {
                |world| world.nodes[ACTOR].leave()
            } else {
                // The last index was the last to be taken.
                |world| {
                    world.add("z", 9);
                    world.nodes[ACTOR].leave();
                    world.nodes[3].leave();
                }
            },
            act: |node| node.register(false),
        };
        let who = Registration::new("b").expect("short");
        let mut refused = 0;
        for at in 0..steps(&scenario) {
            let mut world = dies(&scenario, at).expect("counted");
            let first = world.fabric.register(&who, world.platform);
            let named = world.fabric.kernels().filter(|(_, name)| name.as_str() == "b").count();
            assert_eq!(named, usize::from(first.is_ok() || world.fabric.find("b").is_some()), "dead at step {at}");
            match first {
                Ok(endpoint) => drop(endpoint),
                Err(RegisterError::NameInUse { by }) => {
                    refused += 1;
                    assert!(world.orphans().iter().any(|owned| owned.id == by), "dead at step {at}: {by} is not there");
                }
                Err(why) => panic!("dead at step {at}: {why}"),
            }
            world.reap();
            drop(world.fabric.register(&who, world.platform).expect("the name is free"));
            world.time_out();
            world.check().unwrap();
        }
        assert!(refused > 0, "the dead never had the name");
    }
}

/// Whichever step of sending a message of high priority a sender has died at, its successor has what is left of its share.
#[test]
fn a_successor_keeps_within_its_predecessors_share() {
    let scenario = Scenario {
        name: "send with a share of one",
        before: |world| world.equal_shares(),
        act: |node| to_the_other(node, High),
    };
    for at in 0..steps(&scenario) {
        let mut world = dies(&scenario, at).expect("counted");
        world.take_over(ACTOR);
        for _ in 0..5 {
            for _ in 0..2 {
                to_the_other(&mut world.nodes[ACTOR], High);
            }
            let received = (0..3).filter(|_| world.nodes[2].receive()).count();
            assert_eq!(received, 1, "dead at step {at}");
        }
    }
}

/// A successor dies as well, at each step of taking over what was left at each step.
#[test]
fn no_second_death_at_any_step_breaks_a_promise() {
    let mut tried = Tried::new(SCENARIOS.len());
    for scenario in SCENARIOS {
        for at in 0..steps(scenario) {
            for then in [Then::TakeOver, Then::OverwriteThenTakeOver, Then::Reap] {
                for second in 0.. {
                    let mut world = dies(scenario, at).expect("counted");
                    let died = with_fate(second, Fate::Dies, || {
                        if let Then::Reap = then { world.reap() } else { world.take_over(ACTOR) }
                    });
                    if !died {
                        break;
                    }
                    world.kill(ACTOR);
                    let what = || format!("{}, dead at step {at}, then at {second}, {then:?}", scenario.name);
                    tried.add(then.happens_in(&mut world), what);
                }
            }
        }
    }
    // FIXME: to be 0 when all of them are mended; lower it with each cure.
    tried.finish("pairs of deaths", 0);
}

/// The actor stops, and goes on when everybody else has timed out.
#[test]
fn no_stop_at_any_step_breaks_a_promise() {
    let mut tried = Tried::new(SCENARIOS.len());
    for scenario in SCENARIOS {
        for at in 0.. {
            let mut world = World::new();
            (scenario.before)(&mut world);
            let mut actor = world.nodes.remove(ACTOR);
            let (fate, is_stopped, go) = stop();
            let mut result = Ok(());
            let stopped = std::thread::scope(|scope| {
                let thread = scope.spawn(|| with_fate(at, fate, || (scenario.act)(&mut actor)));
                // An error means that the act has ended, and its end of the channel with it.
                if is_stopped.recv().is_ok() {
                    result = world.check_sleepers();
                    world.time_out();
                    world.overwrite_receipts();
                    go.send(()).expect("it waits");
                }
                thread.join().expect("no panic")
            });
            world.nodes.insert(ACTOR, actor);
            world.time_out();
            tried.add(result.and_then(|()| world.check()), || format!("{}, stopped at step {at}", scenario.name));
            if !stopped {
                break;
            }
        }
    }
    tried.finish("stops", 0);
}

/// The actor was taken for dead, and its index taken away, while it did nothing. It acts all the same. (On a GPU nobody
/// is evicted: see [`is_evicted`](crate::Endpoint::is_evicted).)
#[cfg(not(k2k_device))]
#[test]
fn a_kernel_that_was_taken_for_dead_does_no_harm() {
    let mut tried = Tried::new(SCENARIOS.len());
    for scenario in SCENARIOS {
        let mut world = World::new();
        (scenario.before)(&mut world);
        let (id, owned) = (world.id(ACTOR), world.fabric.owners().find(|owned| owned.id == world.id(ACTOR)));
        if let Some(owned) = owned {
            // SAFETY: the owner is in no operation.
            drop(unsafe { world.fabric.seize(id.index(), owned.owner, world.platform) });
        }
        (scenario.act)(&mut world.nodes[ACTOR]);
        world.nodes[ACTOR].sleep = None;
        world.time_out();
        world.time_out();
        tried.add(world.check(), || scenario.name.into());
    }
    tried.finish("evicted kernels", 0);
}

/// One operation of a node, on whatever the traffic before it has left.
fn operate(node: &mut Node, ids: [KernelId; 3], random: &mut Rng) {
    let priority = if random.u32(..4) == 0 { High } else { Normal };
    match random.u32(..12) {
        0..=4 => drop(node.send(ids[random.usize(..3)], priority)),
        5..=8 => _ = node.receive(),
        9 => _ = node.serve(),
        10 => _ = node.endpoint().poll(),
        _ => _ = node.endpoint().expire(),
    }
}

/// Random traffic over random routes, until the actor dies at a random step, and then any of the ways on.
fn random_death(seed: u64) -> Result<u32, String> {
    let mut random = Rng::with_seed(seed);
    let mut world = World::new();
    let mut through_the_actor = false;
    for _ in 0..random.u32(..4) {
        let hop = random.usize(..3);
        through_the_actor |= hop == ACTOR;
        world.route(random.usize(..3), random.usize(..3), hop);
    }
    let ids = [world.id(0), world.id(1), world.id(2)];
    let mut messages = 0;
    for _ in 0..random.u32(..60) {
        if random.u32(..16) == 0 {
            world.platform.advance(TIMEOUT / 3);
        }
        let node = random.usize(..3);
        operate(&mut world.nodes[node], ids, &mut random);
    }
    loop {
        let at = random.u32(..60);
        // Several operations, so that a late step is reached as well.
        let died = with_fate(at, Fate::Dies, || {
            for _ in 0..4 {
                operate(&mut world.nodes[ACTOR], ids, &mut random);
            }
        });
        if died {
            break;
        }
        let other = [0, 2][random.u32(..2) as usize];
        operate(&mut world.nodes[other], ids, &mut random);
    }
    world.kill(ACTOR);
    for node in &world.nodes {
        messages += node.accepted.len() as u32;
    }
    // A route through the actor ends when its index is taken away, and order holds over an unchanged route alone.
    let ways = if through_the_actor { 4 } else { Then::ALL.len() as u32 };
    let then = Then::ALL[random.u32(..ways) as usize];
    then.happens_in(&mut world).map_err(|why| format!("{then:?}: {why}")).map(|()| messages)
}

/// `K2K_SECONDS=300` tries for minutes, and `K2K_SEED` says where to begin.
#[test]
fn no_death_amid_random_traffic_breaks_a_promise() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (first, seconds) = (number("K2K_SEED").unwrap_or(1), number("K2K_SECONDS"));
    let began = std::time::Instant::now();
    let (mut count, mut messages) = (0u64, 0u64);
    while seconds.map_or(count < 2000, |seconds| began.elapsed().as_secs() < seconds) {
        let seed = first + count;
        match random_death(seed) {
            Ok(more) => messages += u64::from(more),
            Err(why) => panic!("K2K_SEED={seed}: {why}"),
        }
        count += 1;
    }
    println!("{count} deaths amid {messages} messages, seeds from {first}");
}
