//! An explicit-state model of the way of messages through a fabric: routes, deferred messages, receipts, a gateway,
//! deaths and successors. loom checks orders of memory for two or three threads; this checks *protocols* for all
//! topologies of up to four kernels, sequentially consistent, with a death possible between any two steps.
//!
//! Each kernel runs a program of [`Op`]s, one effect on shared memory each. [`Action::Die`] throws the program and all
//! private state away; [`Action::Succeed`] gives the index to a successor, which knows the shared state alone and
//! begins with the dead kernel's [`Hand`]. The names are those of `core/src/endpoint`.
//!
//! | in `core` | here |
//! | --- | --- |
//! | a shard, the high-priority ring's share of a sender | [`Shard`]: a queue per receiver, sender and priority |
//! | `Receipts`: one word per entry | [`Word`] |
//! | `Hand` | [`Hand`] |
//! | the transit store | `store`, deferred messages per kernel |
//! | deadline passed; deadline and grace passed | `time` 1; 2 |
//! | the sender set, of a sender that does not ask it | `denied` |
//!
//! In every state, a message was received at most once, and what was received was counted as received. In every state
//! from which nothing but a death is possible, nothing waits anywhere, and each message that was sent has been counted
//! exactly once, as what its receipt says. Since every step uses something up (a hop, a message, a death), each run gets
//! there: there is neither a deadlock nor a livelock.

use stateright::{Model, Property};

/// Kernels at most.
pub const MAX: usize = 4;
const PRIORITIES: usize = 2;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    Delivered,
    NotFound,
    QueueFull,
    Timeout,
    MaxHops,
    NotAllowed,
    /// With a gateway.
    InTransit,
    /// The sender had decided, and has taken that back.
    Retracted,
}

/// A message: an index into [`World::sends`], and how often it was forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Message {
    pub number: u8,
    pub hops: u8,
}

/// A ring from one kernel to another: positions and what lies between them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Shard {
    pub tail: u8,
    pub queue: Vec<Message>,
}

/// An entry of a sender's receipts: which of its messages has ended last there, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Word {
    /// 0: none.
    pub sequence: u8,
    pub status: Option<Status>,
    pub by_sender: bool,
    pub found: bool,
}

/// Where a message in hand comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum From {
    /// From a shard: it was consumed after the record was written, if the shard's head has moved.
    Shard { sender: u8, priority: u8, head: u8 },
    /// From the store, where it lies until it is removed.
    Store { place: u8 },
    /// One of the kernel's own, which it gives up or takes back.
    Own,
    /// One that the kernel holds as a gateway, and settles.
    Outstanding,
}

/// Where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum To {
    Shard { hop: u8, priority: u8, tail: u8 },
    Store { place: u8 },
}

/// What a kernel is about to do, written before it does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hand {
    pub message: Message,
    pub from: From,
    pub to: Option<To>,
    /// What it is about to be decided to.
    pub intended: Option<Status>,
    /// Its sender has given it up, which is about to be marked as found.
    pub found: bool,
    /// The kernel's count of outcomes when the record was written: it is live until that count moves.
    pub counted: u8,
}

/// One effect on shared memory, or a choice without one that the next effect makes visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Sending: where the message will lie, the receipt, the count, the message.
    Note(u8),
    Open(u8),
    CountSent(u8),
    Push(u8),
    /// Taking from a shard: the record, then the position.
    Record(Message, From),
    Consume {
        sender: u8,
        priority: u8,
    },
    /// What to do with a message in hand.
    Look(Message, From),
    /// Forwarding: where to, the push, removal from the store, the count.
    Aim(To),
    Deposit(Message, To),
    Remove(u8),
    Count(Count),
    /// Deferring.
    Put(Message, u8, u8),
    /// Ending: what is intended, the compare-exchange, and what follows from it.
    Intend(Status),
    Decide(Message, Status, From),
    /// The sender has decided: a note of that, the mark, and what follows from it.
    NoteFound,
    MarkFound(Message, Status, From),
    /// The sender's own: gives up a message, or takes that back.
    GiveUp(Message),
    Retract(Message),
    NoteRetracted(Message),
    /// A gateway has its answer.
    Settle(Message, Status),
    /// The handler gets the message.
    HandOver(Message),
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Count {
    Outcome(u8, Status),
    /// Takes the sender's own verdict back.
    TakeBack(u8, Status),
    Forwarded,
    Deferred,
    Discarded,
}

/// Where a kernel is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Life {
    Alive,
    Dead,
    /// A successor empties its inbox in order to leave.
    Leaving,
    Gone,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// By receiver, sender, priority.
    pub shards: Vec<[[Shard; PRIORITIES]; MAX]>,
    /// Deferred messages with their next hops, oldest first by `order`.
    pub store: Vec<Vec<Option<(Message, u8)>>>,
    /// By sender and entry.
    pub words: Vec<Vec<Word>>,
    pub opened: Vec<Vec<u8>>,
    /// The last message of each entry that its sender has given up and taken back. One is remembered: a holder that dies
    /// in the two steps between its note and its count, and whose successor comes when the entry was used and taken back
    /// twice more, is not modelled, and would be counted once too little.
    pub retracted: Vec<Vec<u8>>,
    pub hands: Vec<Option<Hand>>,
    /// The message that each kernel is sending or sent last, and the shard's tail before it.
    pub sending: Vec<Option<(u8, u8)>>,
    /// Outcomes, forwards and so on counted by each kernel, modulo 256.
    pub counted: Vec<u8>,
    /// Shared: how many messages each kernel has sent.
    pub sent: Vec<u8>,
    pub lives: Vec<Life>,
    /// Private: what each kernel has still to do.
    pub programs: Vec<Vec<Op>>,
    /// Private to a gateway: what it holds.
    pub outstanding: Vec<Vec<Message>>,
    pub time: u8,
    pub deaths: u8,
    /// For the properties: how often each message was handed over, and how its outcomes were counted.
    pub received: Vec<u8>,
    /// Whether the sender was told that it timed out.
    pub given_up: Vec<bool>,
    pub outcomes: Vec<Vec<Status>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Begins to send the sender's next message.
    Send(u8),
    /// Takes from a shard: kernel, sender, priority.
    Take(u8, u8, u8),
    /// Tries a deferred message again.
    Flush(u8, u8),
    /// Ends an overdue message of its own.
    Expire(u8, u8),
    /// The other domain answers a gateway's outstanding message.
    Answer(u8, u8, Status),
    /// The next step of a kernel's program.
    Step(u8),
    Die(u8),
    /// A successor goes on.
    Succeed(u8),
    /// A reaper takes the index over in order to free it.
    Reap(u8),
    /// The inbox of a leaving kernel is empty.
    Leave(u8),
    Time,
}

/// A step left out or exchanged, which a property must notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mutation {
    None,
    /// No successor looks at the hand.
    HandIgnored,
    /// A sender does not note where its message will lie.
    SendingNotNoted,
    /// The record is written after the position is consumed.
    RecordLate,
    /// The destination is recorded after the push.
    AimLate,
    /// The successor does not ask whether the push happened.
    PushForgotten,
    /// A forwarded message is removed from the store after it is counted.
    RemoveLate,
    /// A holder that finds the sender's verdict wipes the mark.
    MarkWiped,
    /// A holder marks the sender's verdict as found without a note.
    FoundNotNoted,
    /// The sender does not take its verdict back before it uses the entry again.
    NoRetract,
    /// What was outstanding at a dead gateway stays with it.
    OutstandingForEver,
    /// The receiver does not look at the clock.
    DeadlineIgnored,
    /// The receiver does not look into the sender set.
    DenialIgnored,
}

/// A topology and what is sent through it.
#[derive(Clone, Debug)]
pub struct World {
    pub kernels: usize,
    /// Next hop by index and destination.
    pub routes: [[Option<u8>; MAX]; MAX],
    /// Sender, destination, priority; in each sender's order.
    pub sends: Vec<(u8, u8, u8)>,
    pub shard_capacity: usize,
    pub store_capacity: usize,
    /// Entries of each sender's receipts.
    pub entries: usize,
    pub hop_limit: u8,
    pub deaths: u8,
    /// The kernel that is a gateway's proxy, if one is.
    pub proxy: Option<u8>,
    /// Whose messages a kernel may not receive: by receiver and sender.
    pub denied: [[bool; MAX]; MAX],
    pub mutation: Mutation,
}

impl World {
    /// A world without routes, in which nobody dies.
    #[must_use]
    pub fn new(kernels: usize, sends: &[(u8, u8, u8)]) -> Self {
        assert!(kernels <= MAX && sends.iter().all(|s| (s.0 as usize) < kernels && (s.1 as usize) < kernels));
        Self {
            kernels,
            routes: [[None; MAX]; MAX],
            sends: sends.to_vec(),
            shard_capacity: 1,
            store_capacity: 1,
            entries: 1,
            hop_limit: 3,
            deaths: 0,
            proxy: None,
            denied: [[false; MAX]; MAX],
            mutation: Mutation::None,
        }
    }

    fn source(&self, number: u8) -> usize {
        self.sends[number as usize].0 as usize
    }

    fn destination(&self, number: u8) -> u8 {
        self.sends[number as usize].1
    }

    fn priority(&self, number: u8) -> u8 {
        self.sends[number as usize].2
    }

    /// From 1, in the sender's order.
    fn sequence(&self, number: u8) -> u8 {
        let source = self.sends[number as usize].0;
        self.sends[..=number as usize].iter().filter(|s| s.0 == source).count() as u8
    }

    fn entry(&self, number: u8) -> (usize, usize) {
        (self.source(number), self.sequence(number) as usize % self.entries)
    }

    fn numbered(&self, source: usize, sequence: u8) -> u8 {
        (0..self.sends.len() as u8)
            .find(|&n| self.source(n) == source && self.sequence(n) == sequence)
            .expect("a message of the sender's")
    }

    fn hop(&self, at: usize, number: u8) -> u8 {
        let to = self.destination(number);
        self.routes[at][to as usize].unwrap_or(to)
    }

    /// Whether the receiver may not receive a message, by its source.
    fn denies(&self, number: u8) -> bool {
        self.denied[self.destination(number) as usize][self.source(number)]
    }

    fn is(&self, mutation: Mutation) -> bool {
        self.mutation == mutation
    }
}

/// Who decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Decided,
    Alone,
    GivenUp,
    /// The sender had given it up, and has to be told that it was found.
    Found,
    Lost,
}

impl State {
    fn registered(&self, k: u8) -> bool {
        // A dead kernel's index is registered until it is reaped.
        matches!(self.lives[k as usize], Life::Alive | Life::Dead)
    }

    fn room(&self, world: &World, at: usize, hop: u8, priority: u8) -> bool {
        self.shards[hop as usize][at][priority as usize].queue.len() < world.shard_capacity
    }

    /// Whether something of this priority is deferred for a hop before a slot of the store.
    fn deferred_before(&self, world: &World, at: usize, hop: u8, priority: u8, place: usize) -> bool {
        self.store[at][..place].iter().flatten().any(|(m, h)| *h == hop && world.priority(m.number) == priority)
    }

    /// A final status for a message's receipt, by its holder.
    fn enter(&mut self, world: &World, message: Message, status: Status) -> Verdict {
        let (source, entry) = world.entry(message.number);
        let sequence = world.sequence(message.number);
        let word = &mut self.words[source][entry];
        match word.sequence.cmp(&sequence) {
            core::cmp::Ordering::Less => {
                *word = Word { sequence, status: Some(status), by_sender: false, found: false };
                Verdict::Decided
            }
            core::cmp::Ordering::Equal if word.status == Some(Status::Retracted) => Verdict::GivenUp,
            core::cmp::Ordering::Equal => {
                if word.by_sender && !word.found {
                    Verdict::Found
                } else {
                    Verdict::Lost
                }
            }
            core::cmp::Ordering::Greater => Verdict::Alone,
        }
    }

    /// What a message in hand has to go through, as a program.
    fn look(&self, world: &World, k: usize, message: Message, from: From) -> Vec<Op> {
        let number = message.number;
        let end = |status| vec![Op::Intend(status), Op::Decide(message, status, from)];
        let late = self.time > 0;
        let leaving = self.lives[k] == Life::Leaving;
        if world.destination(number) as usize == k {
            if leaving {
                return end(if late { Status::Timeout } else { Status::NotFound });
            }
            if world.denies(number) && !world.is(Mutation::DenialIgnored) {
                return end(if late { Status::Timeout } else { Status::NotAllowed });
            }
            if world.proxy == Some(k as u8) {
                return end(if late { Status::Timeout } else { Status::InTransit });
            }
            let late = late && !world.is(Mutation::DeadlineIgnored);
            return end(if late { Status::Timeout } else { Status::Delivered });
        }
        if late {
            return end(Status::Timeout);
        }
        if message.hops >= world.hop_limit {
            return end(Status::MaxHops);
        }
        let hop = world.hop(k, number);
        if !self.registered(hop) || !self.registered(world.destination(number)) {
            return end(Status::NotFound);
        }
        let priority = world.priority(number);
        let before = match from {
            From::Store { place } => place as usize,
            _ => world.store_capacity,
        };
        if !self.deferred_before(world, k, hop, priority, before) && self.room(world, k, hop, priority) {
            let tail = self.shards[hop as usize][k][priority as usize].tail;
            let to = To::Shard { hop, priority, tail };
            let mut program = vec![Op::Aim(to), Op::Deposit(message, to)];
            if world.is(Mutation::AimLate) {
                program.swap(0, 1);
            }
            if let From::Store { place } = from {
                program.push(Op::Remove(place));
            }
            program.push(Op::Count(Count::Forwarded));
            if world.is(Mutation::RemoveLate) && program.len() == 4 {
                program.swap(2, 3);
            }
            return program;
        }
        if let From::Store { .. } = from {
            // Stays.
            return if leaving { end(Status::QueueFull) } else { Vec::new() };
        }
        match self.store[k].iter().rposition(Option::is_some).map_or(0, |last| last + 1) {
            free if free < world.store_capacity && !leaving => vec![
                Op::Aim(To::Store { place: free as u8 }),
                Op::Put(message, hop, free as u8),
                Op::Count(Count::Deferred),
            ],
            _ => end(Status::QueueFull),
        }
    }

    /// What follows from a verdict.
    fn after(&self, world: &World, message: Message, status: Status, from: From, verdict: Verdict) -> Vec<Op> {
        if verdict == Verdict::Found {
            let mut program = vec![Op::NoteFound, Op::MarkFound(message, status, from)];
            if world.is(Mutation::FoundNotNoted) {
                program.remove(0);
            }
            return program;
        }
        let mut program = Vec::new();
        let status = match (verdict, status) {
            (Verdict::GivenUp, _) => Status::Timeout,
            (Verdict::Alone, Status::Delivered | Status::InTransit)
                if self.time > 0 && !world.is(Mutation::DeadlineIgnored) =>
            {
                Status::Timeout
            }
            (_, status) => status,
        };
        if let From::Store { place } = from {
            program.push(Op::Remove(place));
        }
        program.push(Op::Count(match (verdict, status) {
            (Verdict::Lost, _) => Count::Discarded,
            (_, Status::InTransit) => Count::Forwarded,
            (_, status) => Count::Outcome(message.number, status),
        }));
        if verdict != Verdict::Lost && status == Status::Delivered {
            program.push(Op::HandOver(message));
        }
        program
    }

    /// Carries out the first step of a kernel's program.
    fn step(&mut self, world: &World, k: usize) {
        let op = self.programs[k].remove(0);
        let mut next = Vec::new();
        match op {
            Op::Note(number) => {
                let shard = &self.shards[world.hop(k, number) as usize][k][world.priority(number) as usize];
                self.sending[k] = Some((number, shard.tail));
            }
            Op::Open(number) => {
                let (source, entry) = world.entry(number);
                self.opened[source][entry] = world.sequence(number);
            }
            Op::CountSent(number) => self.sent[k] = world.sequence(number),
            Op::Push(number) => {
                let hop = world.hop(k, number);
                let shard = &mut self.shards[hop as usize][k][world.priority(number) as usize];
                shard.tail = shard.tail.wrapping_add(1);
                shard.queue.push(Message { number, hops: 0 });
            }
            Op::Record(message, from) => {
                self.hands[k] =
                    Some(Hand { message, from, to: None, intended: None, found: false, counted: self.counted[k] });
            }
            Op::Consume { sender, priority } => {
                self.shards[k][sender as usize][priority as usize].queue.remove(0);
            }
            Op::Look(message, from) => next = self.look(world, k, message, from),
            Op::Aim(to) => {
                if let Some(hand) = &mut self.hands[k] {
                    hand.to = Some(to);
                }
            }
            Op::Deposit(message, To::Shard { hop, priority, .. }) => {
                let shard = &mut self.shards[hop as usize][k][priority as usize];
                shard.tail = shard.tail.wrapping_add(1);
                shard.queue.push(Message { hops: message.hops + 1, ..message });
            }
            Op::Deposit(_, To::Store { .. }) => unreachable!("put, not deposited"),
            Op::Remove(place) => self.store[k][place as usize] = None,
            Op::Put(message, hop, place) => self.store[k][place as usize] = Some((message, hop)),
            Op::Count(count) => {
                self.counted[k] = self.counted[k].wrapping_add(1);
                match count {
                    Count::Outcome(number, status) => self.outcomes[number as usize].push(status),
                    Count::TakeBack(number, status) => {
                        let outcomes = &mut self.outcomes[number as usize];
                        match outcomes.iter().position(|s| *s == status) {
                            Some(at) => _ = outcomes.remove(at),
                            // Not counted yet: the property fails.
                            None => outcomes.extend([status; 2]),
                        }
                    }
                    _ => {}
                }
            }
            Op::Intend(status) => {
                if let Some(hand) = &mut self.hands[k] {
                    hand.intended = Some(status);
                }
            }
            Op::Decide(message, status, from) => {
                let verdict = self.enter(world, message, status);
                if status == Status::InTransit && matches!(verdict, Verdict::Decided) {
                    self.outstanding[k].push(message);
                }
                if status == Status::InTransit && verdict == Verdict::Alone {
                    self.outstanding[k].push(message);
                }
                next = self.after(world, message, status, from, verdict);
                if status == Status::InTransit
                    && !matches!(next.last(), Some(Op::Count(Count::Forwarded)))
                    && self.outstanding[k].last() == Some(&message)
                {
                    self.outstanding[k].pop();
                }
            }
            Op::NoteFound => {
                if let Some(hand) = &mut self.hands[k] {
                    hand.found = true;
                }
            }
            Op::MarkFound(message, status, from) => {
                let (source, entry) = world.entry(message.number);
                let sequence = world.sequence(message.number);
                let word = &mut self.words[source][entry];
                let verdict = if word.sequence != sequence {
                    Verdict::Alone
                } else if word.status == Some(Status::Retracted) {
                    Verdict::GivenUp
                } else {
                    word.found = true;
                    if world.is(Mutation::MarkWiped) {
                        word.by_sender = false;
                    }
                    Verdict::Lost
                };
                let status = if verdict == Verdict::Alone { Status::Timeout } else { status };
                next = self.after(world, message, status, from, verdict);
            }
            Op::NoteRetracted(message) => {
                let (source, entry) = world.entry(message.number);
                self.retracted[source][entry] = world.sequence(message.number);
            }
            Op::GiveUp(message) => {
                let (source, entry) = world.entry(message.number);
                let sequence = world.sequence(message.number);
                let word = &mut self.words[source][entry];
                let in_transit = word.sequence == sequence && word.status == Some(Status::InTransit);
                if word.sequence < sequence || in_transit && self.time > 1 {
                    *word = Word { sequence, status: Some(Status::Timeout), by_sender: true, found: in_transit };
                    self.given_up[message.number as usize] = !in_transit;
                    next = vec![Op::Count(Count::Outcome(message.number, Status::Timeout))];
                }
            }
            Op::Retract(message) => {
                let (source, entry) = world.entry(message.number);
                let word = &mut self.words[source][entry];
                if word.sequence == world.sequence(message.number) && word.by_sender && !word.found {
                    word.status = Some(Status::Retracted);
                    word.by_sender = false;
                    next =
                        vec![Op::NoteRetracted(message), Op::Count(Count::TakeBack(message.number, Status::Timeout))];
                }
            }
            Op::Settle(message, status) => {
                let (source, entry) = world.entry(message.number);
                let sequence = world.sequence(message.number);
                let word = &mut self.words[source][entry];
                let decided = if word.sequence == sequence {
                    let in_transit = word.status == Some(Status::InTransit);
                    if in_transit {
                        *word = Word { sequence, status: Some(status), by_sender: false, found: false };
                    }
                    in_transit
                } else {
                    true
                };
                next = vec![Op::Count(if decided { Count::Outcome(message.number, status) } else { Count::Discarded })];
            }
            Op::HandOver(message) => self.received[message.number as usize] += 1,
        }
        next.append(&mut self.programs[k]);
        self.programs[k] = next;
    }

    /// What a successor does first: finishes or undoes what the dead kernel had in hand.
    fn resolve(&mut self, world: &World, k: usize) {
        if world.is(Mutation::HandIgnored) {
            return;
        }
        // Counted as sent, and not deposited: it was never sent.
        if let Some((number, tail)) = self.sending[k]
            && self.sent[k] == world.sequence(number)
            && self.shards[world.hop(k, number) as usize][k][world.priority(number) as usize].tail == tail
        {
            self.sent[k] -= 1;
        }
        let Some(hand) = self.hands[k].filter(|hand| hand.counted == self.counted[k]) else { return };
        let Hand { message, from, to, intended, .. } = hand;
        let number = message.number;
        let (source, entry) = world.entry(number);
        let sequence = world.sequence(number);
        let word = self.words[source][entry];
        let told = word.sequence == sequence;
        if let From::Shard { sender, priority, head } = from {
            let shard = &self.shards[k][sender as usize][priority as usize];
            if shard.tail.wrapping_sub(shard.queue.len() as u8) == head {
                // Not consumed: the message is where it was.
                return;
            }
        }
        let remove = match from {
            From::Store { place } => Some(Op::Remove(place)),
            _ => None,
        };
        let happened = match to {
            Some(To::Shard { hop, priority, tail }) => {
                self.shards[hop as usize][k][priority as usize].tail != tail && !world.is(Mutation::PushForgotten)
            }
            Some(To::Store { place }) => self.store[k][place as usize].is_some(),
            None => false,
        };
        if happened {
            let mut program: Vec<Op> = remove.into_iter().collect();
            program.push(Op::Count(Count::Forwarded));
            self.programs[k] = program;
            return;
        }
        self.programs[k] = match (from, intended) {
            // Given up and not counted, or taken back and not counted.
            (From::Own, Some(Status::Timeout)) if told && word.by_sender => {
                vec![Op::Count(Count::Outcome(number, Status::Timeout))]
            }
            (From::Own, Some(Status::Retracted)) if told && word.status == Some(Status::Retracted) => {
                vec![Op::NoteRetracted(message), Op::Count(Count::TakeBack(number, Status::Timeout))]
            }
            // A gateway's: settled and not counted.
            (From::Outstanding, Some(status)) if told && word.status == Some(Status::InTransit) => {
                vec![Op::Settle(message, status)]
            }
            (From::Outstanding, Some(status))
                if word.sequence > sequence || told && !word.by_sender && word.status == Some(status) =>
            {
                vec![Op::Count(Count::Outcome(number, status))]
            }
            (From::Own | From::Outstanding, _) => Vec::new(),
            // Given up by its sender, and found by the dead kernel or not.
            (_, Some(status)) if hand.found => {
                let taken_back = word.sequence > sequence && self.retracted[source][entry] == sequence;
                if told && !word.found || taken_back {
                    vec![Op::MarkFound(message, status, from)]
                } else {
                    remove.into_iter().chain([Op::Count(Count::Discarded)]).collect()
                }
            }
            // Decided by the dead kernel and not counted.
            (_, Some(status)) if told && !word.by_sender && word.status == Some(status) => {
                let count = match status {
                    Status::InTransit => Op::Count(Count::Forwarded),
                    status => Op::Count(Count::Outcome(number, status)),
                };
                remove.into_iter().chain([count]).collect()
            }
            (From::Store { .. }, None) => Vec::new(),
            // The bytes are gone with the dead kernel, or the entry tells of a later message: ends as a failure.
            _ => {
                let status = match intended {
                    Some(status) if !matches!(status, Status::Delivered | Status::InTransit) => status,
                    _ if self.time > 0 => Status::Timeout,
                    _ => Status::NotFound,
                };
                vec![Op::Intend(status), Op::Decide(message, status, from)]
            }
        };
    }

    /// Whether nothing is left anywhere.
    fn at_rest(&self) -> bool {
        self.programs.iter().all(Vec::is_empty)
            // What a slow sender put into the inbox of a kernel that is gone is found by the index's next owner.
            && (0..self.shards.len()).all(|k| {
                self.lives[k] == Life::Gone || self.shards[k].iter().flatten().all(|shard| shard.queue.is_empty())
            })
            && self.store.iter().flatten().all(Option::is_none)
    }
}

impl Model for World {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let n = self.kernels;
        vec![State {
            shards: vec![Default::default(); n],
            store: vec![vec![None; self.store_capacity]; n],
            words: vec![vec![Word::default(); self.entries]; n],
            opened: vec![vec![0; self.entries]; n],
            retracted: vec![vec![0; self.entries]; n],
            hands: vec![None; n],
            sending: vec![None; n],
            counted: vec![0; n],
            sent: vec![0; n],
            lives: vec![Life::Alive; n],
            programs: vec![Vec::new(); n],
            outstanding: vec![Vec::new(); n],
            time: 0,
            deaths: self.deaths,
            received: vec![0; self.sends.len()],
            given_up: vec![false; self.sends.len()],
            outcomes: vec![Vec::new(); self.sends.len()],
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for k in 0..self.kernels {
            let id = k as u8;
            match state.lives[k] {
                Life::Dead => {
                    actions.extend([Action::Succeed(id), Action::Reap(id)]);
                    continue;
                }
                Life::Gone => continue,
                Life::Alive | Life::Leaving => {}
            }
            if state.deaths > 0 {
                actions.push(Action::Die(id));
            }
            if !state.programs[k].is_empty() {
                actions.push(Action::Step(id));
                continue;
            }
            let alive = state.lives[k] == Life::Alive;
            let next = (0..self.sends.len() as u8).find(|&n| self.source(n) == k && self.sequence(n) > state.sent[k]);
            if let Some(number) = next
                && alive
                && state.time < 2
                && state.registered(self.hop(k, number))
                && state.room(self, k, self.hop(k, number), self.priority(number))
            {
                actions.push(Action::Send(id));
            }
            for sender in 0..self.kernels {
                for priority in 0..PRIORITIES {
                    if !state.shards[k][sender][priority].queue.is_empty() {
                        actions.push(Action::Take(id, sender as u8, priority as u8));
                    }
                }
            }
            for place in 0..self.store_capacity {
                if let Some((message, _)) = state.store[k][place]
                    && !state.look(self, k, message, From::Store { place: place as u8 }).is_empty()
                {
                    actions.push(Action::Flush(id, place as u8));
                }
            }
            if alive && state.time > 0 {
                for number in 0..self.sends.len() as u8 {
                    let (source, entry) = self.entry(number);
                    let (sequence, word) = (self.sequence(number), state.words[source][entry]);
                    let due = word.sequence < sequence
                        || word.sequence == sequence
                            && word.status == Some(Status::InTransit)
                            && state.time > 1
                            && !self.is(Mutation::OutstandingForEver);
                    if source == k && sequence <= state.sent[k] && state.opened[source][entry] == sequence && due {
                        actions.push(Action::Expire(id, number));
                    }
                }
            }
            for message in &state.outstanding[k] {
                if state.time < 2 {
                    actions.push(Action::Answer(id, message.number, Status::Delivered));
                    actions.push(Action::Answer(id, message.number, Status::NotFound));
                } else {
                    actions.push(Action::Answer(id, message.number, Status::Timeout));
                }
            }
            if state.lives[k] == Life::Leaving
                && state.shards[k].iter().flatten().all(|shard| shard.queue.is_empty())
                && state.store[k].iter().all(Option::is_none)
            {
                actions.push(Action::Leave(id));
            }
        }
        if state.time < 2 {
            actions.push(Action::Time);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Send(k) => {
                let k = k as usize;
                let number = self.numbered(k, state.sent[k] + 1);
                let (source, entry) = self.entry(number);
                let word = state.words[source][entry];
                let mut program = Vec::new();
                if word.by_sender && !word.found && !self.is(Mutation::NoRetract) {
                    let before = Message { number: self.numbered(k, word.sequence), hops: 0 };
                    program = vec![Op::Record(before, From::Own), Op::Intend(Status::Retracted), Op::Retract(before)];
                }
                if !self.is(Mutation::SendingNotNoted) {
                    program.push(Op::Note(number));
                }
                program.extend([Op::Open(number), Op::CountSent(number), Op::Push(number)]);
                state.programs[k] = program;
            }
            Action::Take(k, sender, priority) => {
                let shard = &state.shards[k as usize][sender as usize][priority as usize];
                let message = shard.queue[0];
                let head = shard.tail.wrapping_sub(shard.queue.len() as u8);
                let from = From::Shard { sender, priority, head };
                let mut program = vec![Op::Record(message, from), Op::Consume { sender, priority }];
                if self.is(Mutation::RecordLate) {
                    program.swap(0, 1);
                }
                program.push(Op::Look(message, from));
                state.programs[k as usize] = program;
            }
            Action::Flush(k, place) => {
                let from = From::Store { place };
                let (message, _) = state.store[k as usize][place as usize]?;
                let mut program = vec![Op::Record(message, from)];
                program.extend(state.look(self, k as usize, message, from));
                state.programs[k as usize] = program;
            }
            Action::Expire(k, number) => {
                let message = Message { number, hops: 0 };
                state.programs[k as usize] =
                    vec![Op::Record(message, From::Own), Op::Intend(Status::Timeout), Op::GiveUp(message)];
            }
            Action::Answer(k, number, status) => {
                let outstanding = &mut state.outstanding[k as usize];
                let message = outstanding.remove(outstanding.iter().position(|m| m.number == number)?);
                state.programs[k as usize] =
                    vec![Op::Record(message, From::Outstanding), Op::Intend(status), Op::Settle(message, status)];
            }
            Action::Step(k) => state.step(self, k as usize),
            Action::Die(k) => {
                state.deaths -= 1;
                state.lives[k as usize] = Life::Dead;
                state.programs[k as usize].clear();
                state.outstanding[k as usize].clear();
            }
            Action::Succeed(k) => {
                state.lives[k as usize] = Life::Alive;
                state.resolve(self, k as usize);
            }
            Action::Reap(k) => {
                state.lives[k as usize] = Life::Leaving;
                state.resolve(self, k as usize);
            }
            Action::Leave(k) => state.lives[k as usize] = Life::Gone,
            Action::Time => state.time += 1,
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("received at most once", |_, state: &State| state.received.iter().all(|&n| n <= 1)),
            Property::always("at rest, each message that was sent has one outcome", |world: &World, state: &State| {
                let mut actions = Vec::new();
                world.actions(state, &mut actions);
                actions.retain(|action| !matches!(action, Action::Die(_)));
                if !actions.is_empty() {
                    return true;
                }
                state.at_rest()
                    && (0..world.sends.len() as u8).all(|number| {
                        let (source, entry) = world.entry(number);
                        let sent = world.sequence(number) <= state.sent[source];
                        let outcomes = &state.outcomes[number as usize];
                        let word = state.words[source][entry];
                        let in_transit = word.status == Some(Status::InTransit);
                        let told = word.sequence == world.sequence(number) && !in_transit;
                        let gone = state.lives[source] == Life::Gone;
                        // A slow forwarder's, in the inbox of a kernel that is gone: ended by the index's next owner.
                        let lies = (0..world.kernels).any(|k| {
                            state.lives[k] == Life::Gone
                                && state.shards[k].iter().flatten().any(|l| l.queue.iter().any(|m| m.number == number))
                        });
                        // Undecided, and its sender is gone: settled by whoever asks, counted by the index's next
                        // owner.
                        outcomes.len() == usize::from(sent) || sent && outcomes.is_empty() && (gone && !told || lies)
                    })
            }),
            Property::always("what is denied is not received", |world: &World, state: &State| {
                (0..world.sends.len() as u8).all(|number| !world.denies(number) || state.received[number as usize] == 0)
            }),
            Property::always("what has timed out is not received", |_, state: &State| {
                state.received.iter().zip(&state.given_up).all(|(&n, &given_up)| n == 0 || !given_up)
            }),
            Property::always("what is received is counted as received", |_, state: &State| {
                state
                    .received
                    .iter()
                    .zip(&state.outcomes)
                    .all(|(&n, counted)| n == 0 || counted.contains(&Status::Delivered))
            }),
        ]
    }
}
