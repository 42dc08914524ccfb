//! Messages that a kernel has deferred because their next hops are full: which of them wait for which hop, and which
//! one a look at all of them has come to. The messages themselves lie in the fabric's
//! [transit store](crate::fabric).

use super::member::Member;
use crate::fabric::{Note, TransitState};
use crate::in_place::make_in;
use crate::message::{Header, Priority};
use crate::shape::{Fan, Index, Packet, Shape};
use core::mem::MaybeUninit;

/// How many priorities there are.
const PRIORITIES: usize = 2;

/// Messages received in a row while others are deferred, before those are tried again.
const FLUSH_EVERY: u32 = 64;

/// Per next hop and priority, a number of messages.
type Counts<Sh> = <Sh as Fan>::Each<[u16; PRIORITIES]>;

/// The owner's end of a transit store.
pub(super) struct Deferred<Sh: Shape> {
    store: TransitState,
    /// Messages that were deferred when a look at all of them ended last, and since then.
    waiting: Counts<Sh>,
    /// Those that the present look has found to stay.
    kept: Counts<Sh>,
    kept_count: u32,
    /// Whether this call has looked already if some of them can go.
    flushed: bool,
    /// Calls of `try_receive` while messages are deferred.
    turns: u32,
}

/// Where messages of this one's priority are counted.
#[inline(always)]
const fn priority_of(header: &Header) -> usize {
    (header.priority != Priority::Normal as u8) as usize
}

fn count<Sh: Shape>(counts: &mut Counts<Sh>, next_hop: Index<Sh>, header: &Header) {
    let count = &mut counts[next_hop][priority_of(header)];
    *count = count.saturating_add(1);
}

impl<Sh: Shape> Deferred<Sh> {
    /// Goes on with what the last owner of the kernel index has deferred.
    pub(super) fn recover_in<'e>(memory: &'e mut MaybeUninit<Self>, me: &Member<'_, Sh>) -> &'e mut Self {
        let shape = me.fabric().shape();
        let made = make_in!(memory, Self {
            store: me.transit().recover(),
            waiting => |each| shape.each_in(each, |_| [0; PRIORITIES]),
            kept => |each| shape.each_in(each, |_| [0; PRIORITIES]),
            kept_count: 0,
            flushed: false,
            turns: 0,
        });
        for position in made.positions() {
            if let Some(next_hop) = me.transit().next_hop(position).and_then(|number| shape.index(number)) {
                count(&mut made.waiting, next_hop, &me.transit().header(position));
            }
        }
        made
    }

    #[inline(always)]
    pub(super) const fn len(&self) -> usize {
        self.store.len()
    }

    #[inline(always)]
    pub(super) const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A call begins that may look once if some of the messages can go.
    #[inline(always)]
    pub(super) const fn begin_call(&mut self) {
        self.flushed = false;
    }

    /// This call looks.
    #[inline(always)]
    pub(super) const fn set_flushed(&mut self) {
        self.flushed = true;
    }

    /// Whether the store is full, and this call has not looked yet.
    #[inline(always)]
    pub(super) fn needs_room(&self, me: &Member<'_, Sh>) -> bool {
        self.len() >= me.fabric().shape().slots() && !self.flushed
    }

    /// For each message that is received while others are deferred: whether it is those messages' turn.
    #[inline(always)]
    pub(super) const fn is_turn(&mut self) -> bool {
        self.turns = self.turns.wrapping_add(1);
        self.turns.is_multiple_of(FLUSH_EVERY)
    }

    /// Whether a message has to stay behind earlier ones of its priority for the same next hop. One that lies in the store
    /// itself stays only behind those that the present look has found to stay.
    #[inline(always)]
    pub(super) fn keeps_back(&self, next_hop: Index<Sh>, header: &Header, deferred: Option<u64>) -> bool {
        let before = if deferred.is_some() { &self.kept } else { &self.waiting };
        before[next_hop][priority_of(header)] > 0
    }

    /// Defers a message; `false` if the store is full.
    pub(super) fn put(&mut self, me: &Member<'_, Sh>, message: &Sh::Item, next_hop: Index<Sh>) -> bool {
        let is_deferred = me.transit().put(&mut self.store, message, next_hop.number());
        if is_deferred {
            count(&mut self.waiting, next_hop, message.header());
        }
        is_deferred
    }

    /// Removes the message at a position, if one is given.
    #[inline(always)]
    pub(super) fn remove(&mut self, me: &Member<'_, Sh>, deferred: Option<u64>) {
        if let Some(position) = deferred {
            me.transit().remove(&mut self.store, position);
        }
    }

    /// The position that the present look has come to. `None` at its end, where the next one begins.
    pub(super) fn look(&mut self, me: &Member<'_, Sh>) -> Option<u64> {
        let position = self.store.look();
        if position.is_none() {
            // What the store says now counts.
            me.transit().settle(&mut self.store, self.kept_count);
            core::mem::swap(&mut self.waiting, &mut self.kept);
            self.forget_kept();
        }
        position
    }

    /// Moves the look past a position: after what is there was dealt with. Until then a panic of the platform leaves the
    /// look where it is, and the message in its turn.
    pub(super) const fn looked(&mut self, position: u64) {
        self.store.looked(position);
    }

    /// The present look has found that the message at a position stays, for a next hop.
    pub(super) fn keep(&mut self, me: &Member<'_, Sh>, position: u64, header: &Header, next_hop: Index<Sh>) {
        self.kept_count += 1;
        count(&mut self.kept, next_hop, header);
        if me.transit().next_hop(position) != Some(next_hop.number()) {
            me.transit().redirect(position, next_hop.number());
            count(&mut self.waiting, next_hop, header);
        }
    }

    /// Copies out the message at a position, if there is one. Bytes behind its payload stay what they were.
    pub(super) fn get(&self, me: &Member<'_, Sh>, position: u64, message: &mut Sh::Item) -> bool {
        let is_there = me.transit().next_hop(position).is_some();
        if is_there {
            me.transit().get(position, message);
        }
        is_there
    }

    /// Positions that may hold messages, oldest first.
    pub(super) fn positions(&self) -> impl Iterator<Item = u64> + use<Sh> {
        self.store.positions()
    }

    /// For a successor: where a message lies, if it is here.
    pub(super) fn position_of(&self, me: &Member<'_, Sh>, noted: &Note) -> Option<u64> {
        let store = me.transit();
        self.positions().find(|&at| store.next_hop(at).is_some() && noted.is(&store.header(at)))
    }

    /// All messages are gone.
    pub(super) fn forget_all(&mut self) {
        self.waiting.as_mut().fill([0; PRIORITIES]);
        self.forget_kept();
    }

    fn forget_kept(&mut self) {
        self.kept.as_mut().fill([0; PRIORITIES]);
        self.kept_count = 0;
    }
}
