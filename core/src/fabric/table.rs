//! The kernel table: who is registered, under which name, what it was told to do and what it has done.
//!
//! One entry per place. Its state is one word, so that a sender learns with one load whether the address it has is
//! good:
//!
//! ```text
//!    31            16 15            8 7           0
//!   +----------------+---------------+-------------+
//!   |   generation   |  1: may park  |   status    |      0: free, never used
//!   +----------------+---------------+-------------+
//!
//!           register (compare-exchange, generation + 1)
//!   Free ------------------> Registering ---> Registered ---> Leaving ---> Free
//!                            (old mail is                 \-> Failed  --/
//!                             thrown out)
//! ```
//!
//! 1. Free → Registering: compare-exchanged by whoever wants the place. Afterwards the state is written by the owner
//!    alone, except that Failed → Free is compare-exchanged by whoever clears the place.
//! 2. `name`: written by the owner between Registering and Registered.
//! 3. `wake_flag.asleep`: see [`crate::WakeFlag`].
//! 4. `command`: set by the owner before Registered, then compare-exchanged by supervisors, who must find the owner's
//!    generation in it. Read by the owner. `phase`, `heartbeat`, `counters`: written by the owner.
//! 5. Scope: senders read `state` within the fabric's scope, once per message. All else is of system scope, for
//!    supervisors that look on from elsewhere; so are the few stores of `state` that they follow.
//!
//! | label | release | acquire | what becomes visible |
//! | --- | --- | --- | --- |
//! | `registered` | owner's store of Registered | `is_registered`, `find`, senders | the name; an inbox emptied of old mail |
//! | `name-began` | each name word's store | each name word's load | that the place has changed hands |
//! | `place-left` | owner's store of Free | the next owner's compare-exchange | everything the last owner did with the place |
//! | `commanded` | supervisor's store | owner's load | what the supervisor did before |
//! | `phase` | owner's store | supervisor's load | what the kernel did before it changed phase |

use crate::message::KernelId;
use crate::platform::Platform;
use crate::sync::Ordering::{Acquire, Relaxed, Release};
use crate::sync::{AtomicU32, AtomicU64, Scope, shared_struct};
use crate::wake_flag::WakeFlag;
use core::fmt;

/// Longest name of a kernel, bytes of UTF-8.
pub const NAME_LEN: usize = 32;

/// A kernel's name as it stands in the table.
#[derive(Clone, Copy, Eq, Default)]
pub struct Name {
    bytes: [u8; NAME_LEN],
}

/// A name was too long or empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameError {
    /// Bytes given.
    pub len: usize,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a kernel's name has 1 to {NAME_LEN} bytes and no NUL, not {}", self.len)
    }
}

impl core::error::Error for NameError {}

impl Name {
    /// Makes a name.
    ///
    /// # Errors
    /// [`NameError`] for an empty name, one of more than 32 bytes, or one that contains a NUL.
    pub const fn new(name: &str) -> Result<Self, NameError> {
        let name = name.as_bytes();
        if name.is_empty() || name.len() > NAME_LEN {
            return Err(NameError { len: name.len() });
        }
        let mut bytes = [0; NAME_LEN];
        let mut i = 0;
        while i < name.len() {
            if name[i] == 0 {
                return Err(NameError { len: name.len() });
            }
            bytes[i] = name[i];
            i += 1;
        }
        Ok(Self { bytes })
    }

    /// As it stands in the table, which can hold anything: a name is followed by zeros.
    pub(crate) const fn bytes(&self) -> &[u8; NAME_LEN] {
        &self.bytes
    }

    /// The name, or what of it is valid UTF-8: shared memory can hold anything.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let len = self.bytes.iter().position(|&b| b == 0).unwrap_or(NAME_LEN);
        match core::str::from_utf8(&self.bytes[..len]) {
            Ok(name) => name,
            Err(e) => core::str::from_utf8(&self.bytes[..e.valid_up_to()]).unwrap_or(""),
        }
    }
}

impl PartialEq for Name {
    /// Word by word: a comparison of byte arrays is a call of `memcmp`, which device code has not.
    fn eq(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.bytes.as_chunks::<8>().0, other.bytes.as_chunks::<8>().0);
        let differing = |(a, b): (&[u8; 8], &[u8; 8])| u64::from_ne_bytes(*a) ^ u64::from_ne_bytes(*b);
        ours.iter().zip(theirs).map(differing).fold(0, |all, word| all | word) == 0
    }
}

impl core::hash::Hash for Name {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        self.bytes.hash(state);
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Where a place is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Status {
    /// Nobody's.
    Free = 0,
    /// Taken; old mail is being thrown out.
    Registering = 1,
    /// In use: can be sent to.
    Registered = 2,
    /// Its owner is leaving: mail on its way ends in `NotFound`.
    Leaving = 3,
    /// Its owner failed. Stays until it is [cleared](super::Fabric::clear_failed), so that its trace can be read.
    Failed = 4,
}

/// The state word, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) generation: u32,
    pub(crate) parks: bool,
    /// `None` if the word holds no status that exists.
    pub(crate) status: Option<Status>,
}

impl State {
    pub(crate) const fn encode(generation: u32, parks: bool, status: Status) -> u64 {
        (generation as u64) << 32 | (parks as u64) << 8 | status as u64
    }

    const fn decode(word: u64) -> Self {
        Self {
            generation: (word >> 32) as u32,
            parks: word >> 8 & 1 == 1,
            status: match word & 0xff {
                0 => Some(Status::Free),
                1 => Some(Status::Registering),
                2 => Some(Status::Registered),
                3 => Some(Status::Leaving),
                4 => Some(Status::Failed),
                _ => None,
            },
        }
    }
}

/// What a supervisor tells a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Command {
    /// Handle messages. What every kernel starts with.
    #[default]
    Run = 0,
    /// Forward transit traffic, but handle nothing. The first message of high priority for this kernel holds up all
    /// others of high priority: see [`poll`](crate::Endpoint::poll).
    Pause = 1,
    /// Handle what is in the inbox, then stop.
    Drain = 2,
    /// Stop after the message in hand.
    Stop = 3,
}

/// What a kernel says that it is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Phase {
    /// Not in a run loop.
    #[default]
    Idle = 0,
    /// Handling messages.
    Running = 1,
    /// Told to pause.
    Paused = 2,
    /// Handling the rest of its inbox.
    Draining = 3,
    /// Has left its run loop.
    Stopped = 4,
    /// Its handler failed.
    Failed = 5,
}

/// Which counter of a kernel. The order is the layout in shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Counter {
    Sent,
    Received,
    NotFound,
    QueueFull,
    Timeout,
    MaxHopsExceeded,
    Forwarded,
    Discarded,
    Refused,
    Corrupt,
    ClockSkews,
    TraceEvents,
}

pub(crate) const COUNTERS: usize = Counter::TraceEvents as usize + 1;

/// What a kernel, or all of them together, did with messages. Every accepted message ends in exactly one of `received`
/// and the four failures, so over all kernels of a fabric at rest
/// `sent == received + not_found + queue_full + timeout + max_hops_exceeded + pending()`.
///
/// A failure is counted by the kernel that decided it. A message that its own sender has given up, and that nobody
/// found before its receipt was overwritten, is pending again until someone finds it. Counts go on when a place changes
/// hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Stats {
    /// Messages accepted by `send`.
    pub sent: u64,
    /// Messages handed to their receiver; for a [proxy](crate::gateway), over there.
    pub received: u64,
    /// Ended because destination or next hop had left.
    pub not_found: u64,
    /// Ended because a forwarder had no room.
    pub queue_full: u64,
    /// Ended because the deadline passed.
    pub timeout: u64,
    /// Ended because the hop limit was reached.
    pub max_hops_exceeded: u64,
    /// Hops: messages passed on for others. Says nothing about how they end.
    pub forwarded: u64,
    /// Messages found in an inbox that had been ended, and counted, by someone else.
    pub discarded: u64,
    /// Calls of `send` that were refused; the message stayed with the caller and is not in `sent`.
    pub refused: u64,
    /// Messages thrown away because their header was not one that `send` writes: memory was damaged. Such a
    /// message stays in `pending` until its sender times it out.
    pub corrupt: u64,
    /// Received messages whose sender's clock was too far ahead to follow.
    pub clock_skews: u64,
}

impl Stats {
    pub(crate) const fn from_counters(counters: &[u64; COUNTERS]) -> Self {
        Self {
            sent: counters[Counter::Sent as usize],
            received: counters[Counter::Received as usize],
            not_found: counters[Counter::NotFound as usize],
            queue_full: counters[Counter::QueueFull as usize],
            timeout: counters[Counter::Timeout as usize],
            max_hops_exceeded: counters[Counter::MaxHopsExceeded as usize],
            forwarded: counters[Counter::Forwarded as usize],
            discarded: counters[Counter::Discarded as usize],
            refused: counters[Counter::Refused as usize],
            corrupt: counters[Counter::Corrupt as usize],
            clock_skews: counters[Counter::ClockSkews as usize],
        }
    }

    /// Messages whose way did not end in being received.
    #[must_use]
    pub const fn failed(&self) -> u64 {
        self.not_found.wrapping_add(self.queue_full).wrapping_add(self.timeout).wrapping_add(self.max_hops_exceeded)
    }

    /// Of the sum over all kernels: messages whose way has not ended.
    #[must_use]
    pub const fn pending(&self) -> u64 {
        self.sent.wrapping_sub(self.received).wrapping_sub(self.failed())
    }

    /// Adds another kernel's numbers. Wraps, because they come out of shared memory.
    #[must_use]
    pub const fn plus(&self, other: &Self) -> Self {
        Self {
            sent: self.sent.wrapping_add(other.sent),
            received: self.received.wrapping_add(other.received),
            not_found: self.not_found.wrapping_add(other.not_found),
            queue_full: self.queue_full.wrapping_add(other.queue_full),
            timeout: self.timeout.wrapping_add(other.timeout),
            max_hops_exceeded: self.max_hops_exceeded.wrapping_add(other.max_hops_exceeded),
            forwarded: self.forwarded.wrapping_add(other.forwarded),
            discarded: self.discarded.wrapping_add(other.discarded),
            refused: self.refused.wrapping_add(other.refused),
            corrupt: self.corrupt.wrapping_add(other.corrupt),
            clock_skews: self.clock_skews.wrapping_add(other.clock_skews),
        }
    }
}

shared_struct! {
    /// The words that a supervisor and a kernel exchange.
    #[repr(align(128))]
    pub(crate) struct Control[][] {
        /// generation << 32 | [`Command`]; a command for another generation is none.
        command: AtomicU64,
        heartbeat: AtomicU64,
        phase: AtomicU32,
        _zero: AtomicU32,
    }
}

shared_struct! {
    /// One place: four parts on lines of their own, by who writes them.
    #[repr(align(128))]
    pub(crate) struct Entry[][] in S {
        /// With `name`: written at registration, read by every sender.
        state: AtomicU64<S>,
        name: [AtomicU64; NAME_LEN / 8],
        pub(crate) wake_flag: WakeFlag,
        control: Control,
        counters: Counters,
    }
}

shared_struct! {
    #[repr(align(128))]
    struct Counters[][] {
        counters: [AtomicU64; COUNTERS],
    }
}

impl<S: Scope> Entry<S> {
    /// The state, with everything that its owner did before it was written.
    #[inline(always)]
    pub(crate) fn state(&self) -> State {
        // Acquire [registered]: the name, and an inbox without old mail, are visible.
        State::decode(self.state.load(Acquire))
    }

    /// Whether `id` is registered here, and whether it may park.
    #[inline(always)]
    pub(crate) fn is_registered(&self, id: KernelId) -> Option<bool> {
        let state = self.state();
        (state.generation == id.generation() && state.status == Some(Status::Registered)).then_some(state.parks)
    }

    /// Whether the owner of this generation has neither left nor failed.
    pub(crate) fn is_owned(&self, generation: u32) -> bool {
        let state = self.state();
        let owned = matches!(state.status, Some(Status::Registering | Status::Registered | Status::Leaving));
        state.generation == generation && owned
    }

    /// Takes a free place; returns the new generation.
    pub(crate) fn begin_register(&self) -> Option<u32> {
        // Relaxed: only a first look.
        let word = self.state.load(Relaxed);
        let state = State::decode(word);
        if state.status != Some(Status::Free) {
            return None;
        }
        // A place whose generations are used up is nobody's for ever: a generation never comes back.
        let generation = state.generation.checked_add(1)?;
        let taken = State::encode(generation, false, Status::Registering);
        // Acquire [place-left]: what the last owner did with the inbox and its counters is visible.
        // Relaxed on failure: the place is someone else's.
        self.state.compare_exchange(word, taken, Acquire, Relaxed).ok().map(|_| generation)
    }

    /// Opens the place for mail.
    pub(crate) fn finish_register(&self, generation: u32, name: &Name, parks: bool) {
        for (word, bytes) in self.name.iter().zip(name.bytes.as_chunks::<8>().0) {
            // Release [name-began]: who reads this word sees in the state that the place is not its predecessor's any
            // more.
            word.store(u64::from_le_bytes(*bytes), Release);
        }
        self.wake_flag.wake_up();
        // Relaxed: published by the state below.
        self.control.command.store(Self::command_word(generation, Command::Run), Relaxed);
        self.set_phase(Phase::Idle);
        // Release [registered]: the name, and that old mail is gone, are visible to whoever sees this state.
        self.state.widened().store(State::encode(generation, parks, Status::Registered), Release);
    }

    /// For the owner: moves on to Leaving, Failed or Free.
    pub(crate) fn set_status(&self, generation: u32, status: Status) {
        // Release [place-left]: everything this owner did is visible to the next one.
        self.state.widened().store(State::encode(generation, false, status), Release);
    }

    /// Makes a failed place free.
    pub(crate) fn clear_failed(&self, generation: u32) -> bool {
        let failed = State::encode(generation, false, Status::Failed);
        let free = State::encode(generation, false, Status::Free);
        // Relaxed, both: the next owner's exchange reads through this one to the store of Failed (a release sequence),
        // and so sees what the failed owner did. This caller adds nothing to it.
        self.state.compare_exchange(failed, free, Relaxed, Relaxed).is_ok()
    }

    /// The name, if `generation` still owns the place after it was read.
    pub(crate) fn name(&self, generation: u32) -> Option<Name> {
        let state = self.state();
        let named = matches!(state.status, Some(Status::Registered | Status::Leaving | Status::Failed));
        if state.generation != generation || !named {
            return None;
        }
        let mut name = Name::default();
        for (bytes, word) in name.bytes.as_chunks_mut::<8>().0.iter_mut().zip(&self.name) {
            // Acquire [name-began]: having read a word of a later name, the state below is seen changed.
            *bytes = word.load(Acquire).to_le_bytes();
        }
        // Relaxed: the loads above keep it in its place.
        (State::decode(self.state.load(Relaxed)).generation == generation).then_some(name)
    }

    /// Where the command stands, bytes from the entry's start.
    #[cfg(not(k2k_loom))]
    pub(super) const COMMAND_OFFSET: usize =
        core::mem::offset_of!(Self, control) + core::mem::offset_of!(Control, command);

    pub(super) const fn command_word(generation: u32, command: Command) -> u64 {
        (generation as u64) << 32 | command as u64
    }

    /// For a supervisor; `false` if the place has another owner by now, whose commands are not touched.
    pub(crate) fn set_command(&self, generation: u32, command: Command) -> bool {
        // Relaxed: `is_registered` has made the word of this generation visible; the exchange decides.
        let seen = self.control.command.load(Relaxed);
        if seen >> 32 != u64::from(generation) {
            return false;
        }
        let new = Self::command_word(generation, command);
        // Release [commanded]: what the supervisor did before is visible to the kernel that sees the command.
        // Relaxed on failure: another command or another owner came at the same moment, and this one just before it.
        let _ = self.control.command.compare_exchange(seen, new, Release, Relaxed);
        true
    }

    #[inline(always)]
    pub(crate) fn command(&self, generation: u32) -> Command {
        // Acquire [commanded]: pairs with the exchange above.
        let word = self.control.command.load(Acquire);
        Self::command_in(word, generation)
    }

    /// Whether [`command`](Self::command) would say anything but `Run`.
    #[inline(always)]
    pub(crate) fn is_commanded(&self, generation: u32) -> bool {
        // Relaxed: whoever is to obey looks again, and sees this word or a later one. A kernel that goes on running
        // needs nothing of what its supervisor did, and on a GPU an acquire of system scope would be the
        // dearest access of a message's way.
        let word = self.control.command.load(Relaxed);
        Self::command_in(word, generation) != Command::Run
    }

    #[inline(always)]
    fn command_in(word: u64, generation: u32) -> Command {
        match word & 0xffff_ffff {
            _ if word >> 32 != u64::from(generation) => Command::Run,
            1 => Command::Pause,
            2 => Command::Drain,
            3 => Command::Stop,
            _ => Command::Run,
        }
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        // Release [phase]: what the kernel did in the phase before is visible to who sees the new one.
        self.control.phase.store(phase as u32, Release);
    }

    pub(crate) fn phase(&self) -> Phase {
        // Acquire [phase]: pairs with the store above.
        match self.control.phase.load(Acquire) {
            1 => Phase::Running,
            2 => Phase::Paused,
            3 => Phase::Draining,
            4 => Phase::Stopped,
            5 => Phase::Failed,
            _ => Phase::Idle,
        }
    }

    #[inline(always)]
    pub(crate) fn set_heartbeat(&self, beats: u64) {
        // Relaxed: a sign of life, nothing else.
        self.control.heartbeat.store(beats, Relaxed);
    }

    pub(crate) fn heartbeat(&self) -> u64 {
        // Relaxed: as above.
        self.control.heartbeat.load(Relaxed)
    }

    /// For the owner: shows a counter's new value.
    #[inline(always)]
    pub(crate) fn show(&self, counter: Counter, value: u64) {
        // Relaxed: statistics; only the owner writes them.
        self.counters.counters[counter as usize].store(value, Relaxed);
    }

    pub(crate) fn counters(&self) -> [u64; COUNTERS] {
        // Relaxed: statistics. For an owner that has just taken the place, `place-left` made them visible.
        core::array::from_fn(|i| self.counters.counters[i].load(Relaxed))
    }

    /// Rings the kernel's wake flag, if it may park and sleeps.
    #[inline(always)]
    pub(crate) fn wake(&self, parks: bool, platform: &impl Platform) {
        if parks && self.wake_flag.answer() {
            platform.wake(&self.wake_flag);
        }
    }
}

#[cfg(not(k2k_loom))]
const _: () = assert!(size_of::<Entry>() == 3 * 128);

#[cfg(all(test, not(k2k_loom)))]
mod tests {
    use super::*;

    fn entry() -> Entry {
        // SAFETY: `Shared`: zero is the idle state.
        unsafe { core::mem::zeroed() }
    }

    /// Registers, and returns the generation.
    fn own(entry: &Entry, name: &str) -> u32 {
        let generation = entry.begin_register().unwrap();
        entry.finish_register(generation, &Name::new(name).unwrap(), false);
        generation
    }

    #[test]
    fn a_command_for_the_owner_before_does_not_push_out_one_for_the_owner() {
        let entry = entry();
        let old = own(&entry, "old");
        entry.set_status(old, Status::Free);
        let new = own(&entry, "new");
        assert!(entry.set_command(new, Command::Stop));
        assert!(!entry.set_command(old, Command::Drain));
        assert_eq!(entry.command(new), Command::Stop);
        assert_eq!(entry.command(old), Command::Run);
    }

    #[test]
    fn a_name_belongs_to_one_owner() {
        let entry = entry();
        let old = own(&entry, "old");
        assert_eq!(entry.name(old).unwrap().as_str(), "old");
        entry.set_status(old, Status::Free);
        assert_eq!(entry.name(old), None);
        let new = entry.begin_register().unwrap();
        assert_eq!(entry.name(new), None, "not written yet");
        entry.finish_register(new, &Name::new("new").unwrap(), true);
        assert_eq!((entry.name(old), entry.name(new).unwrap().as_str()), (None, "new"));
    }
}
