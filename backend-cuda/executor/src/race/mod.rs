//! Races, by vector clocks that know order and scope.
//!
//! The rules are those of the PTX memory consistency model (PTX ISA 8), for a sequentially consistent execution:
//!
//! - Two accesses *conflict* if they overlap and one of them writes (8.3).
//! - Two accesses are *morally strong* if both are strong (relaxed or more), the scope of each includes the thread of
//!   the other, and they overlap completely (8.7.1). The host's scope is always the system.
//! - A *release pattern* (a release, or a fence and then a strong write) synchronises with an *acquire pattern* (an
//!   acquire, or a strong read and then a fence) that reads its value or that of a chain of read-modify-writes behind
//!   it, if the two are morally strong (8.9.2). What synchronises, a barrier, a launch and a join order everything
//!   before against everything after (8.9.5).
//! - Conflicting accesses that are neither ordered nor morally strong are a race (8.7.2).
//!
//! The epochs are FastTrack's (Flanagan and Freund, PLDI 2009), kept for each access that could still take part in a
//! race: a granule of eight bytes holds one cell for each thread, kind and set of bytes.
//!
//! What this cannot see: outcomes that only a weaker machine shows although no access races (two threads that each
//! write their own word and then read the other's, without `fence.sc`).

mod clock;
mod report;
mod shadow;

pub use report::{Party, Race, RaceKind};

use crate::op::{Order, Scope};
use clock::{Clock, at, join};
use shadow::{Cell, Head, Published, Shadow, Word, bytes_mask};
use std::sync::Arc;

/// The host's number among the agents.
pub(crate) const HOST: u32 = 0;

/// One memory operation, as the detector sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observed {
    pub(crate) agent: u32,
    pub(crate) address: u64,
    pub(crate) bytes: u8,
    pub(crate) order: Order,
    pub(crate) scope: Scope,
    /// Function and line; a function beyond all stands for the host.
    pub(crate) function: u32,
    pub(crate) line: u32,
    /// Value found, if it reads.
    pub(crate) found: Option<u64>,
    /// Value left, if it writes.
    pub(crate) left: Option<u64>,
}

/// One side of a race, before names are put to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Site {
    pub(crate) agent: u32,
    pub(crate) function: u32,
    pub(crate) line: u32,
    pub(crate) writes: bool,
    pub(crate) order: Order,
    pub(crate) scope: Scope,
}

/// A race, before names are put to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) kind: RaceKind,
    pub(crate) address: u64,
    pub(crate) bytes: u8,
    pub(crate) earlier: Option<Site>,
    pub(crate) later: Site,
}

#[derive(Debug, Default)]
struct Agent {
    /// `None` for the host and threads that play it.
    block: Option<u32>,
    clock: Clock,
    /// What relaxed reads have seen, by the scope that a fence needs to acquire it.
    pending: [Clock; 3],
    /// The last releasing fence of each scope that no wider and later one has replaced.
    fenced: [Option<Arc<Clock>>; 3],
}

#[derive(Debug)]
pub(crate) struct Detector {
    agents: Vec<Agent>,
    shadow: Shadow,
    /// Control words: ranges that want strong accesses of at least this scope.
    control: Vec<(u64, u64, Scope)>,
    /// If the host's own code accesses memory unseen: what it may have seen of the device.
    native: Option<Clock>,
}

const SCOPES: [Scope; 3] = [Scope::Cta, Scope::Gpu, Scope::Sys];

impl Detector {
    pub(crate) fn new(native_host: bool) -> Self {
        let mut host = Agent::default();
        clock::tick(&mut host.clock, HOST);
        Self {
            agents: vec![host],
            shadow: Shadow::default(),
            control: Vec::new(),
            native: native_host.then(Clock::new),
        }
    }

    /// Starts an agent, new or again, after everything that the host has seen; without a block, it is one of the
    /// host's.
    pub(crate) fn start(&mut self, agent: u32, block: Option<u32>) {
        if self.agents.len() <= agent as usize {
            self.agents.resize_with(agent as usize + 1, Agent::default);
        }
        let parent = self.agents[HOST as usize].clock.clone();
        let this = &mut self.agents[agent as usize];
        join(&mut this.clock, &parent);
        clock::tick(&mut this.clock, agent);
        (this.block, this.pending, this.fenced) = (block, Default::default(), Default::default());
    }

    /// The host has published what it did (it launches).
    pub(crate) fn host_released(&mut self) {
        clock::tick(&mut self.agents[HOST as usize].clock, HOST);
    }

    /// The host has waited for the end of an agent.
    pub(crate) fn joined(&mut self, agent: u32) {
        let ended = self.agents[agent as usize].clock.clone();
        join(&mut self.agents[HOST as usize].clock, &ended);
        if let Some(native) = &mut self.native {
            join(native, &ended);
        }
    }

    /// Registers control words.
    pub(crate) fn control(&mut self, address: u64, bytes: u64, scope: Scope) {
        let at = self.control.partition_point(|(start, ..)| *start < address);
        self.control.insert(at, (address, address + bytes, scope));
    }

    /// Forgets a range: it is no longer registered.
    pub(crate) fn forget(&mut self, address: u64, bytes: u64) {
        self.control.retain(|(start, ..)| *start < address || *start >= address + bytes);
        self.shadow.forget(address, bytes);
    }

    /// All of these have met at a barrier.
    pub(crate) fn meet(&mut self, agents: &[u32]) {
        let mut all = Clock::new();
        for agent in agents {
            join(&mut all, &self.agents[*agent as usize].clock);
        }
        for agent in agents {
            let clock = &mut self.agents[*agent as usize].clock;
            clock.clone_from(&all);
            clock::tick(clock, *agent);
        }
    }

    pub(crate) fn fence(&mut self, agent: u32, order: Order, scope: Scope) {
        let this = &mut self.agents[agent as usize];
        if order.acquires() {
            for pending in &mut this.pending[..=scope as usize] {
                join(&mut this.clock, pending);
            }
        }
        if order.releases() {
            // It also stands for earlier fences that are not wider.
            this.fenced[..scope as usize].fill(None);
            this.fenced[scope as usize] = Some(Arc::new(this.clock.clone()));
            clock::tick(&mut this.clock, agent);
        }
    }

    /// Whether an operation of `agent` at `scope` includes `other`.
    fn includes(agents: &[Agent], scope: Scope, agent: u32, other: u32) -> bool {
        agent == other || scope >= Self::between(agents, agent, other)
    }

    /// The narrowest scope that includes both.
    fn between(agents: &[Agent], a: u32, b: u32) -> Scope {
        match (agents[a as usize].block, agents[b as usize].block) {
            (Some(a), Some(b)) if a == b => Scope::Cta,
            (Some(_), Some(_)) => Scope::Gpu,
            _ => Scope::Sys,
        }
    }

    /// Checks and records a load, store or read-modify-write.
    pub(crate) fn access(&mut self, op: Observed) -> Result<(), Found> {
        self.check_control(&op)?;
        let mask = bytes_mask(op.address, op.bytes);
        let Self { agents, shadow, native, .. } = self;
        let word = shadow.word(op.address);
        check_cells(agents, word, &op, mask)?;
        let strong = op.order != Order::Weak;
        if !strong && word.published.is_empty() {
            return Ok(());
        }
        if let (Some(found), true) = (op.found, strong) {
            observe(agents, native.as_ref(), word, &op, mask, found);
        }
        if op.left.is_some() {
            publish(agents, native.as_mut(), word, &op, mask);
        }
        Ok(())
    }

    fn check_control(&self, op: &Observed) -> Result<(), Found> {
        if op.agent == HOST {
            return Ok(());
        }
        let at = self.control.partition_point(|(start, ..)| *start < op.address + u64::from(op.bytes));
        let Some((_, end, scope)) = at.checked_sub(1).map(|at| self.control[at]) else { return Ok(()) };
        let kind = match op.order {
            _ if end <= op.address => return Ok(()),
            Order::Weak | Order::Volatile => RaceKind::WeakControl,
            _ if op.scope < scope => RaceKind::NarrowControl { wanted: scope },
            _ => return Ok(()),
        };
        Err(Found { kind, address: op.address, bytes: op.bytes, earlier: None, later: site(op) })
    }
}

fn site(op: &Observed) -> Site {
    let writes = op.left.is_some();
    Site { agent: op.agent, function: op.function, line: op.line, writes, order: op.order, scope: op.scope }
}

/// Compares an access with those before it that it could race with, and takes their place where it can.
fn check_cells(agents: &[Agent], word: &mut Word, op: &Observed, mask: u8) -> Result<(), Found> {
    let new = site(op);
    let mine = &agents[op.agent as usize].clock;
    let now = at(mine, op.agent);
    // The same access again.
    if let [cell] = &mut word.cells[..]
        && cell.mask == mask
        && cell.site == new
    {
        cell.clock = now;
        return Ok(());
    }
    let strong = |order: Order| order != Order::Weak;
    let mut kept = 0;
    for i in 0..word.cells.len() {
        let cell = word.cells[i];
        let before = cell.site.agent == op.agent || at(mine, cell.site.agent) >= cell.clock;
        if !before && cell.mask & mask != 0 && (cell.site.writes || new.writes) {
            let morally_strong = strong(cell.site.order)
                && strong(op.order)
                && cell.mask == mask
                && Detector::includes(agents, op.scope, op.agent, cell.site.agent)
                && Detector::includes(agents, cell.site.scope, cell.site.agent, op.agent);
            if !morally_strong {
                let kind = RaceKind::classify(cell.site.order, op.order);
                return Err(Found { kind, address: op.address, bytes: op.bytes, earlier: Some(cell.site), later: new });
            }
        }
        // Whoever races with the old access races with the new one too: it comes later, covers it, and is no stronger.
        let replaced = before
            && cell.mask & !mask == 0
            && (new.writes || !cell.site.writes)
            && (!strong(op.order) || (strong(cell.site.order) && cell.site.scope == op.scope));
        if !replaced {
            word.cells[kept] = cell;
            kept += 1;
        }
    }
    word.cells.truncate(kept);
    word.cells.push(Cell { site: new, mask, clock: now });
    Ok(())
}

/// A strong read: what its value was released with becomes, or may become, visible.
fn observe(agents: &mut [Agent], native: Option<&Clock>, word: &Word, op: &Observed, mask: u8, found: u64) {
    let seen = word.published.iter().find(|p| p.mask == mask && p.value == found);
    let Some(seen) = seen else {
        // Written by host code that the detector does not see. It may have seen all that was released to it.
        if let Some(native) = native {
            let this = &mut agents[op.agent as usize];
            if op.order.acquires() && op.scope == Scope::Sys {
                join(&mut this.clock, native);
            }
            join(&mut this.pending[Scope::Sys as usize], native);
        }
        return;
    };
    let linked = Detector::includes(agents, op.scope, op.agent, seen.writer)
        && Detector::includes(agents, seen.scope, seen.writer, op.agent);
    if !linked {
        return;
    }
    for head in &seen.heads {
        if !Detector::includes(agents, head.scope, head.agent, op.agent) {
            continue;
        }
        let needed = Detector::between(agents, op.agent, head.agent);
        let this = &mut agents[op.agent as usize];
        if op.order.acquires() && op.scope >= needed {
            join(&mut this.clock, &head.clock);
        }
        join(&mut this.pending[needed as usize], &head.clock);
    }
}

/// A write: what it and earlier fences release, and, for a read-modify-write, what it carries on.
fn publish(agents: &mut [Agent], native: Option<&mut Clock>, word: &mut Word, op: &Observed, mask: u8) {
    let strong = op.order != Order::Weak;
    let mut heads: Vec<Head> = Vec::new();
    if strong {
        let this = &agents[op.agent as usize];
        if op.order.releases() {
            heads.push(Head { agent: op.agent, scope: op.scope, clock: Arc::new(this.clock.clone()) });
        }
        for (scope, fenced) in SCOPES.iter().zip(&this.fenced) {
            if let Some(clock) = fenced {
                heads.push(Head { agent: op.agent, scope: *scope, clock: Arc::clone(clock) });
            }
        }
        for old in word.published.iter().filter(|p| p.mask == mask) {
            let carried = op.found == Some(old.value)
                && Detector::includes(agents, op.scope, op.agent, old.writer)
                && Detector::includes(agents, old.scope, old.writer, op.agent);
            // A thread's own later strong write continues its release (release pattern, second form).
            let kept = old.heads.iter().filter(|h| carried || h.agent == op.agent);
            let new: Vec<Head> = kept.filter(|h| !heads.iter().any(|n| n.replaces(h))).cloned().collect();
            heads.extend(new);
        }
    }
    word.published.retain(|p| p.mask & mask == 0);
    if let (Some(native), Scope::Sys) = (native, op.scope) {
        for head in heads.iter().filter(|h| h.scope == Scope::Sys) {
            join(native, &head.clock);
        }
    }
    let value = op.left.unwrap_or(0);
    if strong {
        word.published.push(Published { mask, value, writer: op.agent, scope: op.scope, heads });
    }
    if op.order.releases() {
        clock::tick(&mut agents[op.agent as usize].clock, op.agent);
    }
}
