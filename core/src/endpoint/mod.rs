//! One kernel's handle on a fabric: sending, receiving, and passing on what is for others.
//!
//! # The way of a message
//!
//! ```text
//!   send ──> receipt opened (Pending) ──> lane of the next hop ──> its poll ──┬─> for it: receipt Delivered, received
//!                                              ^                              ├─> for another: hops + 1 ──┐
//!                                              └──────────────────────────────┼───────────────────────────┘
//!                                                                             └─> failed: receipt says why
//! ```
//!
//! Everything here runs on the kernel's own thread. What it shares with others is in [`fabric`](crate::fabric) and
//! [`ring`](crate::ring). The order in which things happen:
//!
//! 1. `send` opens the receipt before it publishes the message, so that a successor of a sender that died in between
//!    can time the message out.
//! 2. A message is decided (its receipt compare-exchanged) before it is counted, and counted by whoever decided it.
//! 3. A message is handed to the caller only if this endpoint decided `Delivered`.
//! 4. Where a death between two effects would lose a message or do something twice, the endpoint notes the message first,
//!    and its successor finishes or undoes what was noted: see [`hand`](crate::fabric) and `hand.rs`.
//! 5. A poll never waits: each message it takes is received, forwarded, stored or failed.
//!
//! | file | what |
//! | --- | --- |
//! | `register.rs` | taking a place, taking one over, leaving |
//! | `send.rs` | from the caller's message to the next hop's inbox |
//! | `receive.rs` | from the inbox to the caller |
//! | `forward.rs` | what is for others |
//! | `receipt.rs` | deciding, counting, telling the sender |
//! | `share.rs` | a sender's share of a high-priority ring |
//! | `sleep.rs` | falling asleep |
//! | `hand.rs` | what a successor does with a message that its predecessor had in hand |
//! | `transfer.rs` | what a gateway does with its proxies' endpoints |

mod forward;
mod hand;
mod receipt;
mod receive;
mod register;
mod send;
mod share;
mod sleep;
mod transfer;

pub use receive::HIGH_BURST;
pub use register::{Register, RegisterError};
pub use send::SendError;

use crate::fabric::{
    COUNTERS, Claim, Command, Config, Counter, DeliveryStatus, Entry, Event, FabricRef, Marks, Notes, Phase, Stats,
    Status, TraceEntry, TransitState,
};
use crate::hlc::{Clock, Timestamp};
use crate::message::{Header, KernelId, MessageId};
use crate::platform::Platform;
use crate::ring::lanes::LanesState;
use crate::ring::spsc::ProducerState;
use crate::ring::ticket::TicketConsumerState;
use crate::shape::{Index, Shape};
use crate::sync::ON_DEVICE;
use crate::wake_flag::WakeFlag;
use core::fmt;
use core::time::Duration;
use share::HighRoom;

/// The deadline of a message that has `time` from `now_ns`.
fn deadline_after(now_ns: u64, time: Duration) -> u64 {
    let ns = time.as_secs().saturating_mul(1_000_000_000).saturating_add(time.subsec_nanos().into());
    // 0 in a header stands for the fabric's delivery timeout.
    now_ns.saturating_add(ns).max(1)
}

/// How many priorities there are.
const PRIORITIES: usize = 2;

/// What an endpoint has left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backlog {
    /// Nothing: it may sleep until it is woken.
    None,
    /// Messages are put aside for next hops that are full: it may rest, but must poll again soon.
    Transit,
    /// There is mail.
    Mail,
}

/// One kernel's handle on a fabric. Dropping it unregisters the kernel.
///
/// It is a capability: the source of every message sent through it is this kernel. It can move to another thread, but
/// has one user at a time. It has lines of its own, so that endpoints may lie side by side.
#[cfg_attr(not(any(target_arch = "nvptx64", k2k_device)), repr(align(128)))]
pub struct Endpoint<'f, L: Platform, Sh: Shape> {
    fabric: FabricRef<'f, Sh>,
    platform: L,
    id: KernelId,
    /// The place of `id`.
    place: Index<Sh>,
    /// Its entry of the kernel table.
    entry: &'f Entry<Sh::Scope>,
    /// What this endpoint has written last into its entry.
    claim: Claim,
    /// This kernel's lanes to the others.
    lanes_out: Sh::Each<ProducerState>,
    /// What is known of this kernel's messages in the others' high-priority rings.
    high_out: Sh::Each<HighRoom>,
    lanes_in: LanesState<Sh>,
    high_in: TicketConsumerState,
    /// Messages of high priority received in a row.
    high_run: u32,
    /// A position of the high ring that was claimed and not published, and since when that is known.
    stalled: Option<(u64, u64)>,
    /// The sender whose turn it is in `poll`.
    next_polled: Index<Sh>,
    /// Header of the message of high priority that is being sent.
    outgoing: Header,
    transit: TransitState,
    /// Messages put aside per next hop and priority, when a look at all of them ended last, and since then.
    parked: Sh::Each<[u16; PRIORITIES]>,
    /// On a GPU: whether some senders may be denied, when this kernel looked last.
    restricted: bool,
    /// Those that the look of now has found to stay.
    kept: Sh::Each<[u16; PRIORITIES]>,
    kept_count: u32,
    /// Whether this call has looked already if some of them can go.
    flushed: bool,
    clock: Clock,
    config: Config,
    counts: [u64; COUNTERS],
    /// What a successor has to know of the message in hand.
    notes: Notes<'f, Sh::Scope>,
    /// This and the count of messages sent are the sequence of the last one.
    base: u64,
    /// All receipts below this sequence are settled or overwritten.
    unresolved: u64,
    /// Where the next step of a sweep over pending receipts looks.
    swept: u64,
    /// The first message that this sweep has found pending.
    sweep_pending: Option<u64>,
    /// Calls until a sweep begins again.
    sweep_rest: u32,
    /// Up to this sequence, opening a receipt may overwrite a verdict of this kernel's own.
    retract_until: u64,
    beats: u64,
    stopping: bool,
    /// What becomes of the place when this is dropped.
    leave_as: Status,
    /// Calls of `try_receive` while messages are put aside.
    turns: u32,
}

/// A registered kernel, to which a message may go next.
#[derive(Clone, Copy)]
struct Hop<Sh> {
    id: KernelId,
    place: Index<Sh>,
    /// Whether it may park; and whether the destination, which the next hop need not be, is restricted.
    marks: Marks,
}

impl<L: Platform, Sh: Shape> fmt::Debug for Endpoint<'_, L, Sh> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("id", &self.id).field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl<'f, L: Platform, Sh: Shape> Endpoint<'f, L, Sh> {
    /// This kernel's address.
    #[must_use]
    pub const fn id(&self) -> KernelId {
        self.id
    }

    /// Whether this kernel's place was taken away, because somebody took its process for dead. Its address is gone and
    /// nothing can be sent or received any more: drop it, and register anew. Every operation looks first.
    // The kernels of a GPU end all together, or not at all: nobody takes their places away one by one, and a load of
    // what others may write is dear there.
    #[inline(always)]
    #[must_use]
    pub fn is_evicted(&self) -> bool {
        !ON_DEVICE && !self.entry.is_in(self.claim.state)
    }

    /// Whether this endpoint may write to the fabric: it is no forked process's copy, and not evicted.
    #[inline(always)]
    pub(crate) fn may_write(&self) -> bool {
        self.platform.is_here() && !self.is_evicted()
    }

    /// Whether this kernel registered as [parking](Register::parking).
    #[must_use]
    pub fn parks(&self) -> bool {
        self.registered(self.id).is_some_and(|me| me.marks.parks())
    }

    /// The fabric.
    #[must_use]
    pub const fn fabric(&self) -> FabricRef<'f, Sh> {
        self.fabric
    }

    /// Bytes of payload that a message of this fabric carries at most.
    #[inline(always)]
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.fabric.shape().numbers().payload
    }

    /// The backend.
    #[must_use]
    pub const fn platform(&self) -> &L {
        &self.platform
    }

    /// Messages that wait in this kernel's inbox, for it or to be passed on: a snapshot that only senders can make
    /// too small.
    #[must_use]
    pub fn pending_count(&self) -> u64 {
        let (lanes, high) = (self.fabric.lanes(self.place), self.fabric.high(self.place));
        lanes.pending(&self.lanes_in) + high.pending(&self.high_in) + self.transit.len() as u64
    }

    /// What is left to do.
    #[must_use]
    pub fn backlog(&self) -> Backlog {
        let (lanes, high) = (self.fabric.lanes(self.place), self.fabric.high(self.place));
        if high.ready(&self.high_in) || lanes.any_ready(&self.lanes_in) {
            Backlog::Mail
        } else if self.transit.len() > 0 {
            Backlog::Transit
        } else {
            Backlog::None
        }
    }

    /// Whether there seems to be mail from the senders at the places `first`, `first + step`, ...: a share of an idle
    /// poll, for the threads of a warp that wait together. A hint: [`try_receive`](Self::try_receive) decides.
    #[inline]
    #[must_use]
    pub fn has_rung(&self, first: usize, step: usize) -> bool {
        let high = first == 0 && self.fabric.high(self.place).ready(&self.high_in);
        high || self.fabric.lanes(self.place).any_rung(&self.lanes_in, first, step)
    }

    /// This kernel's wake flag.
    #[must_use]
    pub fn wake_flag(&self) -> &'f WakeFlag {
        &self.entry.wake_flag
    }

    /// What the supervisor wants. An [evicted](Self::is_evicted) kernel has to stop.
    #[inline]
    #[must_use]
    pub fn command(&self) -> Command {
        if self.is_evicted() {
            return Command::Stop;
        }
        self.entry.command(self.id.generation())
    }

    /// Whether the supervisor wants anything but [`Command::Run`]: then ask [`command`](Self::command) what.
    #[inline(always)]
    pub(crate) fn is_commanded(&self) -> bool {
        self.entry.is_commanded(self.id.generation())
    }

    /// Says what this kernel is doing. The run loop does so by itself.
    pub fn set_phase(&mut self, phase: Phase) {
        if !self.may_write() {
            return;
        }
        self.entry.set_phase(phase);
    }

    /// Gives a sign of life. The run loop does so by itself.
    #[inline]
    pub fn beat(&mut self) {
        if !self.may_write() {
            return;
        }
        self.beats = self.beats.wrapping_add(1);
        self.entry.set_heartbeat(self.beats);
    }

    /// Lets a run loop begin, whatever the last one was asked.
    pub(crate) fn start(&mut self) {
        self.stopping = false;
    }

    /// Asks the run loop to end after the message in hand.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Whether [`stop`](Self::stop) was called, or this is a forked process's copy, or [evicted](Self::is_evicted).
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping || !self.may_write()
    }

    /// A new timestamp of this kernel's hybrid clock: wall time, for people and for order. Deadlines are on another
    /// clock: see [`deadline_in`](Self::deadline_in).
    pub fn now(&mut self) -> Timestamp {
        let now_ns = self.platform.now_ns();
        self.clock.now(self.wall_ns(now_ns))
    }

    /// Elapsed time in ns, on the clock of deadlines: see [`Platform::now_ns`].
    #[inline]
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        self.platform.now_ns()
    }

    /// The deadline of a message that has this long from now, for
    /// [`Message::with_deadline_ns`](crate::Message::with_deadline_ns). A time too long for the clock is never over.
    ///
    /// ```
    /// # use core::time::Duration;
    /// # use k2k_core::{Endpoint, Fixed, KernelId, Message, Platform, SendError};
    /// # fn ask<P: Platform>(me: &mut Endpoint<'_, P, Fixed<4, 8, 64>>, echo: KernelId) -> Result<(), SendError> {
    /// let question = Message::new(7).with_deadline_ns(me.deadline_in(Duration::from_millis(20)));
    /// me.send(echo, &question)?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn deadline_in(&self, time: Duration) -> u64 {
        deadline_after(self.platform.now_ns(), time)
    }

    /// The wall time at a reading of the other clock that was just taken.
    #[inline(always)]
    fn wall_ns(&self, now_ns: u64) -> u64 {
        now_ns.wrapping_add(self.platform.wall_offset_ns())
    }

    /// This kernel's counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats::from_counters(&self.counts)
    }

    /// A kernel, if it is registered. Any address is safe to ask for.
    #[inline(always)]
    fn registered(&self, id: KernelId) -> Option<Hop<Sh>> {
        let place = self.fabric.index(id.index())?;
        let marks = self.fabric.entry(place).registered(id)?;
        Some(Hop { id, place, marks })
    }

    /// The next hop on the way to a kernel: itself, unless a route says otherwise.
    ///
    /// # Errors
    /// Which of the two is not registered.
    #[inline(always)]
    fn next_hop(&self, to: KernelId) -> Result<Hop<Sh>, KernelId> {
        // In three variables, not one of two hops: the compiler would choose between them in memory.
        let mut id = to;
        let mut place = self.fabric.index(id.index()).ok_or(id)?;
        let mut marks = self.fabric.entry(place).registered(id).ok_or(id)?;
        if let Some(next) = self.fabric.routes().get((self.place, self.id), (place, to))
            && next != to
        {
            id = next;
            place = self.fabric.index(id.index()).ok_or(id)?;
            marks = self.fabric.entry(place).registered(id).ok_or(id)?.restricted_as(marks);
        }
        Ok(Hop { id, place, marks })
    }

    #[inline(always)]
    fn count(&mut self, counter: Counter) {
        if counter.ends_a_note() {
            self.notes.counted(1);
        }
        self.set_count(counter, self.counts[counter as usize].wrapping_add(1));
    }

    #[inline(always)]
    fn set_count(&mut self, counter: Counter, value: u64) {
        self.counts[counter as usize] = value;
        self.entry.show(counter, value);
    }

    #[inline(always)]
    fn trace(&mut self, event: Event, status: Option<DeliveryStatus>, header: &Header) {
        if self.fabric.tracing() {
            // On a GPU, what is lent to a call has to be in local memory. On a host, that is where a header is best: it
            // goes to its slot in pieces larger than a register.
            if ON_DEVICE {
                self.write_trace(event, status, header.id(), header.hops);
            } else {
                self.write_trace_of(event, status, header);
            }
        }
    }

    /// The same, for a message of which no more is known.
    #[inline(always)]
    fn trace_of(&mut self, event: Event, status: Option<DeliveryStatus>, id: MessageId, hops: u8) {
        if self.fabric.tracing() {
            self.write_trace(event, status, id, hops);
        }
    }

    #[cold]
    #[inline(never)]
    fn write_trace_of(&mut self, event: Event, status: Option<DeliveryStatus>, header: &Header) {
        self.write_trace(event, status, header.id(), header.hops);
    }

    #[cold]
    #[inline(never)]
    fn write_trace(&mut self, event: Event, status: Option<DeliveryStatus>, id: MessageId, hops: u8) {
        let at = match event {
            // The clock was moved by what is traced.
            Event::Sent | Event::Received => self.clock.last(),
            // A kernel that only forwards has no other reason to move it.
            _ => self.now(),
        };
        let entry = TraceEntry {
            number: self.counts[Counter::TraceEvents as usize],
            event,
            status: status.map_or(0, |s| s as u8),
            hops,
            id,
            at,
        };
        self.fabric.trace_at(self.place).write(&entry);
        self.count(Counter::TraceEvents);
    }
}
