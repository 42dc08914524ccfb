//! What several threads do together: barriers of a block, operations of a warp, and the end.
//!
//! All threads of a block take part in `bar.sync` without a count, those that have ended too: a barrier that some of
//! them never reach is a deadlock here, whatever a device makes of it. Lanes that have ended are not waited for in
//! operations of a warp (PTX ISA 9.7.9.6).

use super::Machine;
use crate::error::{Error, FaultKind};
use crate::exec::alu;
use crate::exec::thread::{State, Thread};
use crate::op::{Binary, Collective, CollectiveOp, NO_SLOT, Op, Shuffle, Slot};

/// The value of an operand, or 0.
fn value(thread: &Thread, slot: Slot) -> u64 {
    thread.slots.get(thread.slot_base + slot as usize).copied().unwrap_or(0)
}

fn set(thread: &mut Thread, slot: Slot, value: u64) {
    if let Some(place) = thread.slots.get_mut(thread.slot_base.saturating_add(slot as usize)) {
        *place = value;
    }
}

impl Machine {
    pub(super) fn exit(&mut self, number: u32) -> Result<(), Error> {
        let thread = &mut self.threads[number as usize];
        thread.state = State::Done;
        self.launches[thread.launch as usize].live -= 1;
        // Others of its warp may have waited for it.
        let waiting = self.warp(number).find(|t| matches!(self.threads[*t as usize].state, State::AtCollective { .. }));
        match waiting {
            Some(other) => self.complete_collective(other),
            None => Ok(()),
        }
    }

    /// The threads of the warp that a thread belongs to, lane by lane.
    fn warp(&self, number: u32) -> impl Iterator<Item = u32> + '_ {
        let thread = &self.threads[number as usize];
        let first = (thread.linear / 32 * 32) as usize;
        self.blocks[thread.block as usize].threads[first..].iter().take(32).copied()
    }

    pub(super) fn arrive(&mut self, number: u32, id: u64, count: Option<u64>) -> Result<(), Error> {
        let block = &mut self.blocks[self.threads[number as usize].block as usize];
        let all = block.threads.len() as u32;
        // A count is a multiple of the warp's size, and the last warp may be smaller.
        let possible = |n: u64| n.is_multiple_of(32) && n > 0 && n <= u64::from(all.next_multiple_of(32));
        let expected = match count {
            None => Some(all),
            Some(n) if possible(n) => Some((n as u32).min(all)),
            Some(_) => None,
        };
        let (Some(expected), Some(barrier)) = (expected, block.barriers.get_mut(id as usize)) else {
            return Err(self.fault(number, FaultKind::BadBarrier));
        };
        if !barrier.arrived.is_empty() && barrier.expected != expected {
            return Err(self.fault(number, FaultKind::BadBarrier));
        }
        barrier.expected = expected;
        barrier.arrived.push(number);
        self.threads[number as usize].state = State::AtBarrier { id: id as u8 };
        if barrier.arrived.len() < expected as usize {
            return Ok(());
        }
        let arrived = core::mem::take(&mut barrier.arrived);
        self.meet(&arrived);
        self.release(&arrived);
        Ok(())
    }

    fn meet(&mut self, threads: &[u32]) {
        if let Some(detector) = &mut self.detector {
            let agents: Vec<u32> = threads.iter().map(|t| self.threads[*t as usize].agent).collect();
            detector.meet(&agents);
        }
    }

    fn release(&mut self, threads: &[u32]) {
        for number in threads {
            self.threads[*number as usize].state = State::Ready;
            self.ready.push(*number);
        }
    }

    /// The collective operation that a thread waits in, and its mask.
    fn collective(&self, number: u32) -> Option<(CollectiveOp, u32)> {
        let thread = &self.threads[number as usize];
        let State::AtCollective { list } = thread.state else { return None };
        let op = self.functions[thread.function as usize].collectives[list as usize];
        Some((op, value(thread, op.mask) as u32))
    }

    /// Does the operation that a thread waits in, if all who take part have come.
    pub(super) fn complete_collective(&mut self, number: u32) -> Result<(), Error> {
        let Some((op, mask)) = self.collective(number) else { return Ok(()) };
        let divergence = |reason: &str| FaultKind::Divergence { reason: reason.to_owned() };
        if mask >> self.threads[number as usize].lane() & 1 == 0 {
            return Err(self.fault(number, divergence("the thread is not in its own mask")));
        }
        let mut members = Vec::new();
        let mut missing = false;
        for other in self.warp(number).collect::<Vec<_>>() {
            let thread = &self.threads[other as usize];
            if mask >> thread.lane() & 1 == 0 || thread.state == State::Done {
                continue;
            }
            match self.collective(other) {
                None => missing = true,
                Some((_, theirs)) if theirs != mask => {
                    return Err(self.fault(number, divergence("lanes of one mask wait with different masks")));
                }
                Some((theirs, _)) if theirs.what != op.what => {
                    return Err(self.fault(number, divergence("lanes of one mask are at different operations")));
                }
                Some((theirs, _)) => members.push((other, theirs)),
            }
        }
        if missing {
            return Ok(());
        }
        let lanes: Vec<Lane> = members
            .iter()
            .map(|(other, op)| {
                let thread = &self.threads[*other as usize];
                let a = value(thread, op.a) ^ u64::from(op.negated);
                Lane { lane: thread.lane(), a, b: value(thread, op.b) as u32, c: value(thread, op.c) as u32 }
            })
            .collect();
        for (i, (other, op)) in members.iter().enumerate() {
            let (result, flag) = evaluate(op.what, &lanes, i).map_err(|kind| self.fault(*other, kind))?;
            let thread = &mut self.threads[*other as usize];
            if op.dst != NO_SLOT {
                set(thread, op.dst, result);
            }
            if op.flag != NO_SLOT {
                set(thread, op.flag, u64::from(flag));
            }
        }
        let threads: Vec<u32> = members.iter().map(|(other, _)| *other).collect();
        if op.what == Collective::Barrier {
            self.meet(&threads);
        }
        self.release(&threads);
        Ok(())
    }

    /// `activemask`: those of the warp that stand at the same instruction execute it together, or this thread does
    /// alone.
    pub(super) fn active_mask(&mut self, number: u32, dst: Slot) {
        let alone = self.scheduler.coin();
        let this = &self.threads[number as usize];
        let (function, at, depth) = (this.function, this.pc - 1, this.frames.len());
        let instruction = self.functions[function as usize].code[at as usize];
        debug_assert!(matches!(instruction.op, Op::ActiveMask { .. }));
        let together = |other: &u32| {
            let thread = &self.threads[*other as usize];
            let same = (thread.function, thread.pc, thread.frames.len()) == (function, at, depth);
            same && !alone && instruction.guard == NO_SLOT && thread.state == State::Ready
        };
        let mut members: Vec<u32> = self.warp(number).filter(together).collect();
        let mask = members.iter().chain([&number]).fold(0, |m, t| m | 1u64 << self.threads[*t as usize].lane());
        for other in &members {
            self.threads[*other as usize].pc += 1;
        }
        members.push(number);
        for other in members {
            set(&mut self.threads[other as usize], dst, mask);
        }
    }
}

/// One lane's operands.
struct Lane {
    lane: u32,
    a: u64,
    b: u32,
    c: u32,
}

/// Result and predicate for the `i`-th of the lanes that take part.
fn evaluate(what: Collective, lanes: &[Lane], i: usize) -> Result<(u64, bool), FaultKind> {
    let me = &lanes[i];
    let mask_of = |test: &dyn Fn(&Lane) -> bool| lanes.iter().filter(|l| test(l)).fold(0u64, |m, l| m | 1 << l.lane);
    let reduce = |f: Binary| {
        let mut values = lanes.iter().map(|l| l.a);
        let first = values.next().unwrap_or(0);
        (values.fold(first, |x, y| alu::binary(f, 32, x, y)), false)
    };
    let on = |l: &Lane| l.a != 0;
    Ok(match what {
        Collective::Barrier => (0, false),
        Collective::Shuffle(mode) => {
            let (source, inside) = source_lane(mode, me);
            let from = lanes.iter().find(|l| l.lane == source).ok_or(FaultKind::AbsentLane { lane: source })?;
            (from.a, inside)
        }
        Collective::VoteAll => (u64::from(lanes.iter().all(on)), false),
        Collective::VoteAny => (u64::from(lanes.iter().any(on)), false),
        Collective::VoteUniform => (u64::from(lanes.iter().all(|l| on(l) == on(me))), false),
        Collective::Ballot => (mask_of(&on), false),
        Collective::MatchAny => (mask_of(&|l| l.a == me.a), false),
        Collective::MatchAll => {
            let same = lanes.iter().all(|l| l.a == me.a);
            (if same { mask_of(&|_| true) } else { 0 }, same)
        }
        Collective::Elect => (u64::from(lanes[0].lane), i == 0),
        Collective::ReduceAdd => reduce(Binary::Add),
        Collective::ReduceAnd => reduce(Binary::And),
        Collective::ReduceOr => reduce(Binary::Or),
        Collective::ReduceXor => reduce(Binary::Xor),
        Collective::ReduceMinU => reduce(Binary::MinU),
        Collective::ReduceMinS => reduce(Binary::MinS),
        Collective::ReduceMaxU => reduce(Binary::MaxU),
        Collective::ReduceMaxS => reduce(Binary::MaxS),
    })
}

/// Where a shuffle reads, and whether that is inside the segment (the pseudocode of PTX ISA 9.7.9.6).
fn source_lane(mode: Shuffle, me: &Lane) -> (u32, bool) {
    let (lane, by, clamp, segment) = (me.lane as i32, (me.b & 31) as i32, (me.c & 31) as i32, (me.c >> 8 & 31) as i32);
    let (most, least) = ((lane & segment) | (clamp & !segment), lane & segment);
    let (source, inside) = match mode {
        Shuffle::Up => (lane - by, lane - by >= most),
        Shuffle::Down => (lane + by, lane + by <= most),
        Shuffle::Butterfly => (lane ^ by, lane ^ by <= most),
        Shuffle::Index => {
            let source = least | (by & !segment);
            (source, source <= most)
        }
    };
    (if inside { source } else { lane } as u32, inside)
}
