//! All topologies of up to four kernels, with deaths; and the mutations that the properties must notice.

use k2k_explicit_model::{Mutation, World};
use stateright::{Checker, Model};

/// Explores a world. Returns its states, and the first property that is broken, with the way there.
fn explore(world: &World) -> (usize, Option<String>) {
    let checker = world.clone().checker().threads(2).spawn_bfs().join();
    let broken = checker
        .discoveries()
        .into_iter()
        .map(|(name, path)| {
            let (last, actions) = (path.last_state().clone(), path.into_actions());
            format!("{name}\n  {actions:?}\n  words {:?} outcomes {:?}", last.words, last.outcomes)
        })
        .next();
    (checker.unique_state_count(), broken)
}

fn holds(what: &str, world: &World) -> usize {
    let (states, broken) = explore(world);
    if let Some(broken) = broken {
        panic!("{what}: {broken}\n  in {world:?}");
    }
    // At once: a run that is ended early says how far it came.
    println!("{what}: {states} states");
    states
}

/// Each way in which the kernels other than the last can route to the last.
fn topologies(kernels: usize) -> impl Iterator<Item = World> {
    let destination = kernels as u8 - 1;
    let choices = kernels - 1;
    (0..choices.pow(choices as u32)).map(move |number| {
        let mut world = World::new(kernels, &[]);
        let mut rest = number;
        for at in 0..choices {
            let next = (rest % choices) as u8;
            rest /= choices;
            // A kernel's own index stands for "directly".
            world.routes[at][destination as usize] = (usize::from(next) != at).then_some(next);
        }
        world
    })
}

fn with(mut world: World, sends: &[(u8, u8, u8)], deaths: u8) -> World {
    world.sends = sends.to_vec();
    world.deaths = deaths;
    world
}

#[test]
fn every_topology_of_up_to_four_kernels_keeps_its_promises_when_one_of_them_dies() {
    let (mut states, mut worlds) = (0, 0);
    for kernels in 2..=4 {
        let to = kernels as u8 - 1;
        for world in topologies(kernels) {
            // Two of one sender, whose second one needs the entry of the first; and two senders, one of high priority.
            // The former is left out of four kernels' worlds unless K2K_LONG is set: 17 million states.
            let long = std::env::var_os("K2K_LONG").is_some() || kernels < 4;
            let all = [&[(0, to, 0), (to - 1, to, 1)][..], &[(0, to, 0), (0, to, 0)]];
            for sends in &all[..1 + usize::from(long)] {
                states += holds("a death", &with(world.clone(), sends, 1));
                worlds += 1;
            }
        }
    }
    println!("{worlds} worlds, one death between any two steps: {states} in all");
}

#[test]
fn a_cycle_of_full_inboxes_is_no_deadlock() {
    // 0 and 2 route to 1 through each other, and fill the inboxes between them.
    let mut world = with(World::new(3, &[]), &[(0, 1, 0), (0, 1, 0), (2, 1, 0)], 0);
    world.routes[0][1] = Some(2);
    world.routes[2][1] = Some(0);
    world.entries = 2;
    holds("a cycle of full inboxes", &world);
}

#[test]
fn what_a_gateway_holds_ends_whichever_of_them_dies() {
    let mut world = with(World::new(2, &[]), &[(0, 1, 0), (0, 1, 0)], 2);
    world.proxy = Some(1);
    world.entries = 2;
    let mut states = holds("a gateway", &world);
    let mut world = with(World::new(3, &[]), &[(0, 2, 0), (1, 2, 1)], 1);
    world.proxy = Some(2);
    world.routes[0][2] = Some(1);
    states += holds("a gateway behind a forwarder", &world);
    println!("gateways: {states} in all");
}

#[test]
fn two_deaths_of_one_message_are_no_worse_than_one() {
    let mut world = with(World::new(3, &[]), &[(0, 2, 0)], 3);
    world.routes[0][2] = Some(1);
    holds("three deaths", &world);
}

/// Each choice of who may not send to the last of three kernels, through each of their topologies and a proxy.
#[test]
fn a_denied_message_ends_once_and_is_not_received_whichever_kernel_dies() {
    let (mut states, mut worlds) = (0, 0);
    for world in topologies(3) {
        for choice in 1..4u8 {
            for proxy in [None, Some(2)] {
                let mut world = with(world.clone(), &[(0, 2, 0), (1, 2, 1)], 1);
                world.denied[2] = [choice & 1 != 0, choice & 2 != 0, false, false];
                world.proxy = proxy;
                states += holds("denied", &world);
                worlds += 1;
            }
        }
    }
    println!("{worlds} worlds with denials, one death between any two steps: {states} in all");
}

/// A step left out or exchanged breaks a promise in some world: none of the properties holds for nothing.
#[test]
fn every_mutation_is_noticed() {
    let line = |deaths, entries| {
        let mut world = with(World::new(3, &[]), &[(0, 2, 0), (0, 2, 0)], deaths);
        world.routes[0][2] = Some(1);
        world.entries = entries;
        world
    };
    // The forwarder's own message fills the shard, and the sender's first is deferred.
    let deferred = || {
        let mut world = line(1, 1);
        world.sends.insert(0, (1, 2, 0));
        world
    };
    let gateway = || {
        let mut world = with(World::new(2, &[]), &[(0, 1, 0)], 1);
        world.proxy = Some(1);
        world
    };
    let denying = || {
        let mut world = with(World::new(2, &[]), &[(0, 1, 0)], 1);
        world.denied[1][0] = true;
        world
    };
    let mutations = [
        (Mutation::HandIgnored, line(1, 1)),
        (Mutation::SendingNotNoted, line(1, 1)),
        (Mutation::RecordLate, line(1, 1)),
        (Mutation::AimLate, line(1, 1)),
        (Mutation::PushForgotten, line(1, 1)),
        (Mutation::RemoveLate, deferred()),
        (Mutation::MarkWiped, line(1, 1)),
        (Mutation::FoundNotNoted, line(1, 1)),
        (Mutation::NoRetract, line(0, 1)),
        (Mutation::DeadlineIgnored, line(0, 1)),
        (Mutation::OutstandingForEver, gateway()),
        (Mutation::DenialIgnored, denying()),
    ];
    let mut unnoticed = Vec::new();
    for (mutation, world) in mutations {
        let sound = explore(&world).1;
        assert!(sound.is_none(), "{mutation:?}, not made: {sound:?}");
        match explore(&World { mutation, ..world }) {
            (states, Some(broken)) => println!("{mutation:?}: {} ({states} states)", broken.lines().next().unwrap()),
            (states, None) => unnoticed.push((mutation, states)),
        }
    }
    assert!(unnoticed.is_empty(), "not noticed: {unnoticed:?}");
}
