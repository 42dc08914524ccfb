//! A small fabric, its kernels, and a ledger of all that they were told.

extern crate std;

use crate::endpoint::Endpoint;
use crate::fabric::{Config, DeliveryStatus, Fabric, Owned, Status};
use crate::message::{KernelId, Message, MessageId, Priority};
use crate::platform::Platform;
use crate::{Command, Register, SendError, WakeFlag};
use core::mem::ManuallyDrop;
use std::boxed::Box;
use std::collections::BTreeMap;
use std::format;
use std::string::String;
use std::sync::{Mutex, PoisonError};
use std::vec::Vec;

pub(super) const KERNELS: usize = 4;
pub(super) const SLOTS: usize = 2;
pub(super) type Small = Fabric<KERNELS, SLOTS, 64>;

/// How long a message may take, ns.
pub(super) const TIMEOUT: u64 = 1_000_000_000;
/// Past every deadline, grace, margin and patience.
pub(super) const LONG: u64 = 10 * TIMEOUT;

/// A clock that the driver turns, and a count of wake-ups.
#[derive(Debug, Default)]
pub(super) struct Shared {
    now_ns: Mutex<u64>,
    wakes: Mutex<u64>,
}

fn add(to: &Mutex<u64>, n: u64) -> u64 {
    let mut value = to.lock().unwrap_or_else(PoisonError::into_inner);
    *value += n;
    *value
}

impl Shared {
    pub(super) fn advance(&self, ns: u64) {
        add(&self.now_ns, ns);
    }
}

impl Platform for &'static Shared {
    fn now_ns(&self) -> u64 {
        add(&self.now_ns, 0)
    }

    fn wake(&self, flag: &WakeFlag) {
        super::step();
        add(&self.wakes, 1);
        flag.wake_up();
    }
}

pub(super) type End = Endpoint<'static, &'static Shared, KERNELS, SLOTS, 64>;

/// One kernel and its ledger. An actor is nothing but this, so that it can run on a thread of its own.
pub(super) struct Node {
    name: &'static str,
    pub(super) fabric: &'static Small,
    pub(super) platform: &'static Shared,
    /// Never dropped by itself: a dead process drops nothing.
    endpoint: Option<ManuallyDrop<End>>,
    pub(super) id: KernelId,
    /// Messages that `send` has accepted.
    pub(super) accepted: Vec<(MessageId, KernelId, u64)>,
    /// Numbers of the messages received, with their sources and priorities.
    pub(super) received: Vec<(u64, KernelId, u8)>,
    number: u64,
}

impl Node {
    pub(super) fn endpoint(&mut self) -> &mut End {
        self.endpoint.as_mut().expect("registered")
    }

    pub(super) const fn is_here(&self) -> bool {
        self.endpoint.is_some()
    }

    pub(super) fn register(&mut self, parks: bool) {
        let who = Register::new(self.name).expect("short");
        let who = if parks { who.parking() } else { who };
        let endpoint = self.fabric.register(&who, self.platform).expect("a free place");
        self.id = endpoint.id();
        self.endpoint = Some(ManuallyDrop::new(endpoint));
    }

    /// Sends a message with a number of its own.
    pub(super) fn send(&mut self, to: KernelId, priority: Priority) -> Result<MessageId, SendError> {
        self.number += 1;
        let number = (self.id.index() as u64) << 32 | self.number;
        let id = self.endpoint().send_priority(to, &Message::from_value(1, &number), priority)?;
        self.accepted.push((id, to, number));
        Ok(id)
    }

    /// Receives one message, if there is one.
    pub(super) fn receive(&mut self) -> bool {
        let Some(message) = self.endpoint().try_receive() else { return false };
        let number = message.value::<u64>().expect("eight bytes");
        self.received.push((number, message.header.source(), message.header.priority));
        true
    }

    /// Answers a message, if there is one.
    pub(super) fn serve(&mut self) -> bool {
        let Some(request) = self.endpoint().try_receive() else { return false };
        let number = request.value::<u64>().expect("eight bytes");
        self.received.push((number, request.header.source(), request.header.priority));
        self.number += 1;
        let number = (self.id.index() as u64) << 32 | self.number;
        if let Ok(id) = self.endpoint().reply(&request, &Message::from_value(1, &number)) {
            self.accepted.push((id, request.header.source(), number));
        }
        true
    }

    pub(super) fn leave(&mut self) {
        if let Some(endpoint) = self.endpoint.take() {
            drop(ManuallyDrop::into_inner(endpoint));
        }
    }

    /// The process is gone: what was in it is neither dropped nor used.
    fn die(&mut self) {
        self.endpoint = None;
    }
}

/// All kernels of a fabric.
pub(super) struct World {
    pub(super) nodes: Vec<Node>,
    pub(super) fabric: &'static Small,
    pub(super) platform: &'static Shared,
    /// The node that is killed, once it was.
    dead: Option<usize>,
}

impl World {
    /// A fabric in which the kernels 0 to 2 are registered; there is room for one more.
    pub(super) fn new() -> Self {
        let fabric: &'static Small = {
            // SAFETY: zero is an idle fabric.
            Box::leak(unsafe { Box::<Small>::new_zeroed().assume_init() })
        };
        let config = Config { delivery_timeout_ns: TIMEOUT, hop_limit: 3, tracing: true, ..Config::default() };
        fabric.init(&config).expect("zeroed");
        let platform: &'static Shared = Box::leak(Box::default());
        platform.advance(1);
        let nodes = ["a", "b", "c", "d"].map(|name| Node {
            name,
            fabric,
            platform,
            endpoint: None,
            id: KernelId::NONE,
            accepted: Vec::new(),
            received: Vec::new(),
            number: 0,
        });
        let mut world = Self { nodes: nodes.into(), fabric, platform, dead: None };
        for node in &mut world.nodes[..3] {
            node.register(false);
        }
        world
    }

    pub(super) fn id(&self, node: usize) -> KernelId {
        self.nodes[node].id
    }

    pub(super) fn send(&mut self, from: usize, to: usize, priority: Priority) {
        let to = self.id(to);
        self.nodes[from].send(to, priority).expect("room");
    }

    pub(super) fn route(&self, at: usize, to: usize, hop: usize) {
        self.fabric.set_route(self.id(at), self.id(to), self.id(hop)).expect("all are registered");
    }

    pub(super) fn command(&self, to: usize, command: Command) {
        self.fabric.command(self.id(to), command, &self.platform).expect("registered");
    }

    /// Lets all kernels that are here receive, forward and expire what there is.
    pub(super) fn settle(&mut self, skip: Option<usize>) {
        for _ in 0..8 * KERNELS * SLOTS {
            for (i, node) in self.nodes.iter_mut().enumerate() {
                if Some(i) == skip || !node.is_here() {
                    continue;
                }
                while node.receive() {}
                node.endpoint().expire();
            }
        }
    }

    /// The actor's process is gone.
    pub(super) fn kill(&mut self, actor: usize) {
        self.nodes[actor].die();
        self.dead = Some(actor);
    }

    /// Sends enough that every receipt of every sender that is here is overwritten. To itself, and received at once: no
    /// other kernel has to do anything.
    pub(super) fn overwrite_receipts(&mut self, skip: Option<usize>) {
        for (i, node) in self.nodes.iter_mut().enumerate() {
            if Some(i) == skip || !node.is_here() {
                continue;
            }
            let me = node.id;
            for _ in 0..KERNELS * SLOTS + 1 {
                // A message that a predecessor has sent to itself may be there.
                while node.send(me, Priority::Normal).is_err() {
                    if !node.receive() {
                        break;
                    }
                }
                while node.receive() {}
            }
        }
    }

    /// A successor takes over all that the dead actor had, also a place that it had half taken or half left.
    pub(super) fn take_over(&mut self, actor: usize) {
        let known: Vec<_> = self.nodes.iter().filter(|n| n.is_here()).map(|n| n.id).collect();
        let orphans: Vec<_> = self.fabric.owners().filter(|owned| !known.contains(&owned.id)).collect();
        for Owned { id, status, owner } in orphans {
            // SAFETY: its owner has unwound, and nobody uses its endpoint.
            let endpoint = unsafe {
                match status {
                    Some(Status::Registering | Status::Registered | Status::Leaving) => {
                        self.fabric.take_over(id, self.platform)
                    }
                    _ => self.fabric.seize(id.index(), owner, self.platform),
                }
            };
            let Ok(endpoint) = endpoint else { continue };
            let registered = self.fabric.is_registered(id);
            let node = &mut self.nodes[actor];
            if registered && node.endpoint.is_none() {
                node.endpoint = Some(ManuallyDrop::new(endpoint));
                node.id = id;
            } else {
                drop(endpoint);
            }
        }
    }

    /// Checks all promises of a fabric at rest, and returns the first that is broken.
    pub(super) fn check(&mut self) -> Result<(), String> {
        let dead = self.dead;
        let mut received: BTreeMap<u64, usize> = BTreeMap::new();
        for node in &self.nodes {
            let mut last: BTreeMap<(KernelId, u8), u64> = BTreeMap::new();
            for &(number, source, priority) in &node.received {
                *received.entry(number).or_default() += 1;
                let before = last.insert((source, priority), number).unwrap_or(0);
                if before > number && before >> 32 == number >> 32 {
                    return Err(format!("{number:#x} from {source} was received after {before:#x}"));
                }
            }
        }
        if let Some((number, times)) = received.iter().find(|(_, times)| **times > 1) {
            return Err(format!("message {number:#x} was received {times} times"));
        }
        for node in &self.nodes {
            for &(id, to, number) in &node.accepted {
                let here = received.contains_key(&number);
                match self.fabric.receipt(id).map(|receipt| receipt.status) {
                    Ok(DeliveryStatus::Pending) => return Err(format!("{id} to {to} is pending for ever")),
                    Ok(DeliveryStatus::Delivered) => {
                        let died = dead.is_some_and(|dead| self.nodes[dead].id.index() == to.index());
                        if !here && !died {
                            return Err(format!("{id} to {to} was delivered, but not received"));
                        }
                    }
                    Ok(status) if here => return Err(format!("{id} to {to} was received, and its receipt: {status}")),
                    _ => {}
                }
            }
        }
        let stats = self.fabric.total_stats();
        let ended = stats.received + stats.failed();
        if stats.sent != ended {
            return Err(format!("{} sent, {ended} ended: {stats:?}", stats.sent));
        }
        let handed_out = received.len() as u64;
        if stats.received < handed_out || stats.received > handed_out + u64::from(dead.is_some()) {
            return Err(format!("{} counted as received, {handed_out} were", stats.received));
        }
        let accepted: usize = self.nodes.iter().map(|node| node.accepted.len()).sum();
        if stats.sent < accepted as u64 || stats.sent > accepted as u64 + u64::from(dead.is_some()) {
            return Err(format!("{} counted as sent, {accepted} were accepted", stats.sent));
        }
        // Places come back.
        for node in &mut self.nodes {
            node.leave();
        }
        if let Some((id, status)) = self.fabric.places().next() {
            return Err(format!("{id} stays {status:?}"));
        }
        let all: Vec<_> = (0..KERNELS).map(|_| self.fabric.register(&another_name(), self.platform)).collect();
        let count = all.iter().filter(|endpoint| endpoint.is_ok()).count();
        if count != KERNELS {
            return Err(format!("{count} places of {KERNELS} can be taken"));
        }
        let stats = self.fabric.total_stats();
        let ended = stats.received + stats.failed();
        if stats.sent != ended {
            return Err(format!("{} sent, {ended} ended after all have left: {stats:?}", stats.sent));
        }
        Ok(())
    }
}

/// A name that no other kernel has.
fn another_name() -> Register {
    static NEXT: Mutex<u64> = Mutex::new(0);
    Register::new(&format!("z{}", add(&NEXT, 1))).expect("short")
}
