//! A small fabric, its kernels, and a ledger of all that they were told.

extern crate std;

use crate::endpoint::Endpoint;

use crate::fabric::{Config, DeliveryStatus, Fabric, IndexOwner, Status};
use crate::message::{KernelId, Message, MessageId, Priority};
use crate::platform::Platform;
use crate::shape::Fixed;
use crate::wake_flag::Sleep;
use crate::{Command, Context, Kernel, Pass, Registration, RunLoop, SendError, WakeFlag};
use core::mem::ManuallyDrop;
use std::boxed::Box;
use std::collections::{BTreeMap, BTreeSet};
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

/// A clock that the driver turns.
#[derive(Debug, Default)]
pub(super) struct Shared {
    now_ns: Mutex<u64>,
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

    fn is_here(&self) -> bool {
        !super::is_dead()
    }

    fn wake(&self, flag: &WakeFlag) {
        // Making the word even and waking are one step, as on a host.
        super::step();
        flag.wake_up();
    }
}

pub(super) type End = Endpoint<'static, &'static Shared, Fixed<KERNELS, SLOTS, 64>>;

/// One kernel and its ledger. An actor is nothing but this, so that it can run on a thread of its own.
pub(super) struct Node {
    name: &'static str,
    pub(super) fabric: &'static Small,
    pub(super) platform: &'static Shared,
    /// Never dropped by itself: a dead process drops nothing.
    endpoint: Option<ManuallyDrop<End>>,
    pub(super) id: KernelId,
    /// A sleep that the scenario has begun.
    pub(super) sleep: Option<Sleep<'static>>,
    /// Messages that were tried to send: to whom, and which of their kind.
    tried: Vec<(u64, KernelId)>,
    /// Messages that `send` has accepted.
    pub(super) accepted: Vec<(MessageId, KernelId, u64)>,
    /// Messages received.
    pub(super) received: Vec<Received>,
    /// What the next message's number begins with: the fabric and the node.
    first: u64,
    number: u64,
}

/// A message that a node has received.
#[derive(Clone, Copy)]
pub(super) struct Received {
    number: u64,
    priority: u8,
    /// The address at which it was received.
    at: KernelId,
}

impl Node {
    pub(super) fn endpoint(&mut self) -> &mut End {
        self.endpoint.as_mut().expect("registered")
    }

    pub(super) const fn is_here(&self) -> bool {
        self.endpoint.is_some()
    }

    pub(super) fn register(&mut self, parks: bool) {
        let who = Registration::new(self.name).expect("short");
        let who = if parks { who.parking() } else { who };
        let endpoint = self.fabric.register(&who, self.platform).expect("a free index");
        self.id = endpoint.id();
        self.endpoint = Some(ManuallyDrop::new(endpoint));
    }

    /// A message with a number of its own, noted as tried.
    fn next(&mut self, to: KernelId) -> (u64, Message<64>) {
        self.number += 1;
        let number = self.first + self.number;
        self.tried.push((number, to));
        (number, Message::from_value(1, &number))
    }

    /// Sends a message with a number of its own.
    pub(super) fn send(&mut self, to: KernelId, priority: Priority) -> Result<MessageId, SendError> {
        let (number, message) = self.next(to);
        let id = self.endpoint().send_priority(to, &message, priority)?;
        self.accepted.push((id, to, number));
        Ok(id)
    }

    /// Sends, and waits for room for as long as a message may take.
    pub(super) fn send_waiting(&mut self, to: KernelId, priority: Priority) {
        let (number, message) = self.next(to);
        let platform = self.platform;
        let wait = || platform.advance(TIMEOUT / 4);
        if let Ok(id) = self.endpoint().send_waiting(to, &message, priority, wait) {
            self.accepted.push((id, to, number));
        }
    }

    /// Notes a message that was received.
    fn note(&mut self, message: &Message<64>) {
        let number = message.value::<u64>().expect("eight bytes");
        self.received.push(Received { number, priority: message.header.priority, at: self.id });
    }

    /// Receives one message, if there is one.
    pub(super) fn receive(&mut self) -> bool {
        let Some(message) = self.endpoint().try_receive() else { return false };
        self.note(&message);
        true
    }

    /// Answers a message, if there is one.
    pub(super) fn serve(&mut self) -> bool {
        let Some(request) = self.endpoint().try_receive() else { return false };
        self.note(&request);
        let (number, answer) = self.next(request.header.source());
        if let Ok(id) = self.endpoint().reply(&request, &answer) {
            self.accepted.push((id, request.header.source(), number));
        }
        true
    }

    /// Runs a run loop until it has nothing to do, or ends.
    pub(super) fn run(&mut self) {
        let mut received = Collector(Vec::new());
        let mut passes = RunLoop::new();
        let endpoint = self.endpoint.as_mut().expect("registered");
        passes.start(endpoint, &mut received);
        // A message counts as received when the handler has it: what is noted survives the death of this run.
        let mut pass = Pass::Worked;
        while matches!(pass, Pass::Worked) {
            pass = passes.pass(endpoint, &mut received);
            for message in received.0.drain(..) {
                let number = message.value::<u64>().expect("eight bytes");
                self.received.push(Received { number, priority: message.header.priority, at: self.id });
            }
        }
        if matches!(pass, Pass::Stopped) {
            passes.finish(endpoint, &mut received);
        }
    }

    /// Registers as parking, and begins to sleep.
    pub(super) fn park(&mut self) {
        self.leave();
        self.register(true);
        self.sleep = self.endpoint().fall_asleep(Command::Run);
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

/// A handler that keeps what it gets.
struct Collector(Vec<Message<64>>);
impl Kernel<64> for Collector {
    fn on_message(&mut self, _: &mut impl Context<64>, message: &Message<64>) {
        self.0.push(*message);
    }
}

/// All kernels of a fabric.
pub(super) struct World {
    pub(super) nodes: Vec<Node>,
    pub(super) fabric: &'static Small,
    pub(super) platform: &'static Shared,
    /// Number of the fabric.
    side: u64,
    /// The node that is killed, once it was.
    dead: Option<usize>,
}

impl World {
    /// A fabric in which the kernels 0 to 2 are registered; there is room for one more.
    pub(super) fn new() -> Self {
        Self::of(0, platform(), &["a", "b", "c"])
    }

    /// The fabric number `side`, in which kernels of these names are registered.
    pub(super) fn of(side: u64, platform: &'static Shared, names: &[&'static str]) -> Self {
        let fabric: &'static Small = {
            // SAFETY: zero is an idle fabric.
            Box::leak(unsafe { Box::<Small>::new_zeroed().assume_init() })
        };
        let high_share = u32::MAX;
        let config =
            Config { delivery_timeout_ns: TIMEOUT, hop_limit: 3, high_share, tracing: true, ..Config::default() };
        fabric.init(&config).expect("zeroed");
        let mut world = Self { nodes: Vec::new(), fabric, platform, side, dead: None };
        names.iter().zip(0..).for_each(|(name, i)| world.add(name, i));
        world
    }

    /// One more kernel. Its number is in its messages.
    pub(super) fn add(&mut self, name: &'static str, number: u64) {
        let Self { fabric, platform, side, .. } = *self;
        let mut node = Node {
            name,
            fabric,
            platform,
            endpoint: None,
            id: KernelId::NONE,
            sleep: None,
            tried: Vec::new(),
            accepted: Vec::new(),
            received: Vec::new(),
            first: side << 48 | number << 32,
            number: 0,
        };
        node.register(false);
        self.nodes.push(node);
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

    /// Gives every sender the smallest share of the high-priority rings, as all kernels register anew.
    pub(super) fn equal_shares(&mut self) {
        self.fabric.handle().set_high_share(0);
        for node in &mut self.nodes {
            node.leave();
            node.register(false);
        }
    }

    /// Lets all kernels that are here receive, forward and expire what there is.
    pub(super) fn settle(&mut self) {
        let mut quiet = 0;
        while quiet < 2 {
            quiet += 1;
            for node in self.nodes.iter_mut().filter(|node| node.is_here()) {
                while node.receive() {
                    quiet = 0;
                }
                let before = node.endpoint().pending_count();
                node.endpoint().expire();
                let _ = node.endpoint().poll();
                if node.endpoint().pending_count() != before {
                    quiet = 0;
                }
            }
        }
    }

    /// As `settle`, and then everything that is still under way is past all deadlines and patience.
    pub(super) fn time_out(&mut self) {
        self.settle();
        self.platform.advance(LONG);
        self.settle();
    }

    /// The actor's process is gone.
    pub(super) fn kill(&mut self, actor: usize) {
        self.nodes[actor].die();
        self.dead = Some(actor);
    }

    /// Sends enough that every receipt of every sender that is here is overwritten. To itself, and received at once: no
    /// other kernel has to do anything.
    pub(super) fn overwrite_receipts(&mut self) {
        for node in self.nodes.iter_mut().filter(|node| node.is_here()) {
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

    /// The indices whose owner is not one of the nodes that are here.
    pub(super) fn orphans(&self) -> Vec<IndexOwner> {
        let known: Vec<_> = self.nodes.iter().filter(|node| node.is_here()).map(|node| node.id).collect();
        self.fabric.owners().filter(|owned| !known.contains(&owned.id)).collect()
    }

    /// A successor takes over all that the dead actor had, also an index that it had half claimed or half left.
    pub(super) fn take_over(&mut self, actor: usize) {
        for owned in self.orphans() {
            let Some(endpoint) = succeed(self.fabric, self.platform, owned) else { continue };
            let node = &mut self.nodes[actor];
            if self.fabric.is_registered(owned.id) && node.endpoint.is_none() {
                node.endpoint = Some(ManuallyDrop::new(endpoint));
                node.id = owned.id;
            } else {
                drop(endpoint);
            }
        }
    }

    /// A supervisor takes the indices of the dead away: nobody goes on there.
    pub(super) fn reap(&mut self) {
        for owned in self.orphans() {
            // SAFETY: its owner has unwound, and nobody uses its endpoint.
            drop(unsafe { self.fabric.seize(owned.id.index(), owned.owner, self.platform) });
        }
    }

    /// Whether a kernel that sleeps is woken within the bound: by the next sender's message, without a way through others.
    pub(super) fn check_sleepers(&mut self) -> Result<(), String> {
        let asleep: Vec<_> = (0..self.nodes.len()).filter(|&i| self.nodes[i].is_here()).collect();
        for i in asleep {
            let Some(sleep) = self.nodes[i].sleep.take() else { continue };
            let to = self.id(i);
            self.add("z", 9);
            self.nodes.last_mut().expect("added").send(to, Priority::Normal).expect("room");
            if !sleep.is_over() {
                return Err(format!("{to} sleeps on after a message of another sender"));
            }
        }
        Ok(())
    }

    /// Checks that each message has one outcome by now, though nobody has taken over.
    pub(super) fn check_outcomes(&self) -> Result<(), String> {
        check_messages(core::slice::from_ref(self))
    }

    /// Checks all promises of a fabric at rest, and returns the first that is broken.
    pub(super) fn check(&mut self) -> Result<(), String> {
        check_messages(core::slice::from_ref(self))?;
        let stats = self.fabric.total_stats();
        let doubt = u64::from(self.dead.is_some());
        let handed_out = self.nodes.iter().map(|node| node.received.len() as u64).sum();
        if !(handed_out..=handed_out + doubt).contains(&stats.received) {
            return Err(format!("{} counted as received, {handed_out} were", stats.received));
        }
        let accepted = self.nodes.iter().map(|node| node.accepted.len() as u64).sum();
        if !(accepted..=accepted + doubt).contains(&stats.sent) {
            return Err(format!("{} counted as sent, {accepted} were accepted", stats.sent));
        }
        self.check_indices()
    }

    /// Checks that all indices come back when all kernels leave, and that the counters add up before and after.
    pub(super) fn check_indices(&mut self) -> Result<(), String> {
        self.check_sum("")?;
        for node in &mut self.nodes {
            node.leave();
        }
        if let Some((id, status)) = self.fabric.statuses().next() {
            return Err(format!("{id} stays {status:?}"));
        }
        let all: Vec<_> = (0..KERNELS).map(|_| self.fabric.register(&another_name(), self.platform)).collect();
        let count = all.iter().filter(|endpoint| endpoint.is_ok()).count();
        if count != KERNELS {
            return Err(format!("{count} indices of {KERNELS} can be claimed"));
        }
        drop(all);
        self.check_sum(" after all have left")
    }

    fn check_sum(&self, when: &str) -> Result<(), String> {
        let stats = self.fabric.total_stats();
        let ended = stats.received + stats.failed();
        let pending = self.fabric.pending();
        let adds_up = stats.sent == ended && pending == 0;
        if adds_up {
            Ok(())
        } else {
            Err(format!("{} sent, {ended} ended, {pending} pending{when}: {stats:?}", stats.sent))
        }
    }
}

/// A clock.
pub(super) fn platform() -> &'static Shared {
    let platform: &'static Shared = Box::leak(Box::default());
    platform.advance(1);
    platform
}

/// The endpoint of a successor of a dead kernel, whose address it keeps if that was in use.
pub(super) fn succeed(fabric: &'static Small, platform: &'static Shared, owned: IndexOwner) -> Option<End> {
    let IndexOwner { id, status, owner } = owned;
    // SAFETY: its owner has unwound, and nobody uses its endpoint.
    let endpoint = unsafe {
        match status {
            Some(Status::Registering | Status::Registered | Status::Leaving) => fabric.take_over(id, platform),
            _ => fabric.seize(id.index(), owner, platform),
        }
    };
    endpoint.ok()
}

/// Checks that each message was received at most once, in order, by the kernel that it was sent to, and had one outcome.
/// The one outcome that leaves open whether a message was received is `Unanswered`, and only a message to another fabric has
/// it.
pub(super) fn check_messages(worlds: &[World]) -> Result<(), String> {
    let all = || worlds.iter().flat_map(|world| &world.nodes);
    let tried: BTreeMap<u64, KernelId> = all().flat_map(|node| node.tried.iter().copied()).collect();
    let mut received: BTreeMap<u64, usize> = BTreeMap::new();
    for node in all() {
        let mut last: BTreeMap<(u64, u8), u64> = BTreeMap::new();
        for &Received { number, priority, at } in &node.received {
            *received.entry(number).or_default() += 1;
            let to = *tried.get(&number).ok_or_else(|| format!("{number:#x} was received, and never sent"))?;
            if worlds.len() == 1 && to != at {
                return Err(format!("{number:#x} was sent to {to}, and received by {at}"));
            }
            let before = last.insert((number >> 32, priority), number).unwrap_or(0);
            if before > number {
                return Err(format!("{number:#x} was received after {before:#x}"));
            }
        }
    }
    // Scenarios with two fabrics send from one to the other, but for messages to the sender itself.
    let tried_to_itself: BTreeSet<u64> =
        all().flat_map(|node| node.tried.iter().filter(|(_, to)| *to == node.id).map(|(number, _)| *number)).collect();
    let crosses = |number: u64| worlds.len() > 1 && !tried_to_itself.contains(&number);
    if let Some((number, times)) = received.iter().find(|(_, times)| **times > 1) {
        return Err(format!("message {number:#x} was received {times} times"));
    }
    for world in worlds {
        for &(id, to, number) in world.nodes.iter().flat_map(|node| &node.accepted) {
            let here = received.contains_key(&number);
            match world.fabric.receipt(id, &world.platform).map(|receipt| receipt.status) {
                Ok(DeliveryStatus::Pending) => return Err(format!("{id} to {to} is pending for ever")),
                Ok(DeliveryStatus::Delivered) => {
                    let died = world.dead.is_some_and(|dead| world.nodes[dead].id.index() == to.index());
                    if !here && !died {
                        return Err(format!("{id} to {to} was delivered, but not received"));
                    }
                }
                Ok(DeliveryStatus::Unanswered) if crosses(number) => {}
                Ok(DeliveryStatus::Unanswered) => return Err(format!("{id} to {to} is unanswered, and did not cross")),
                Ok(status) if here => return Err(format!("{id} to {to} was received, and its receipt: {status}")),
                _ => {}
            }
        }
    }
    Ok(())
}

/// A name that no other kernel has.
fn another_name() -> Registration {
    static NEXT: Mutex<u64> = Mutex::new(0);
    Registration::new(&format!("z{}", add(&NEXT, 1))).expect("short")
}
