//! The kernel table: who is registered, under which name, what it was told to do and what it has done.
//!
//! One entry per index. Its state is one word, so that a sender learns with one load whether the address it has is
//! good:
//!
//! ```text
//!    63            32 31    12    11      10         9            8        7           0
//!   +----------------+--------+-------+------+------------+----------------+-------------+
//!   |   generation   |  zero  | named | asks | restricted |  1: may park   |   status    |   0: free, never used
//!   +----------------+--------+-------+------+------------+----------------+-------------+
//!
//!   owner:  0 ----> me                                              me ----> 0
//!              (1)                                                     (6)
//!   state:      Free ----> Registering ----> Registered ----> Leaving ----> Free, generation as before
//!                     (2)               (3)              (4)         (5)
//!               generation + 1,                                      \----> Failed       owner: me ----> failed
//!               gets the name (below),                               (5)                             (6)
//!               old mail is thrown out
//! ```
//!
//! # Who owns an index
//!
//! The word `owner` says it: 0 is nobody, else it is the [platform's number](Platform::owner) of the owner. Step 1, the
//! claim, compare-exchanges it from 0 before anything else is written, and step 6 is the last thing that an owner
//! writes. So wherever an owner dies, one of two things is true: the index is free, or the word names the dead owner:
//!
//! | death after | `owner` | state | |
//! | --- | --- | --- | --- |
//! | claim (1) | dead | Free | old mail may wait |
//! | 2 | dead | Registering | old mail may wait; the name may be half written, asked for, or its own |
//! | 3 | dead | Registered | senders still find it |
//! | 4 | dead | Leaving | mail may wait |
//! | 5 | dead | Free or Failed | late mail may wait, as always |
//! | 6 | 0 or failed | Free or Failed | as if it had not died |
//!
//! A successor of the dead owner *seizes* the index, in the same way from each of these states: it compare-exchanges
//! `owner` from the dead owner's number to its own, and then the state to Registering with the next generation, as in
//! step 2. It throws out the mail, and leaves by steps 4 to 6. Should it die as well, the same table is true of it.
//!
//! An owner that was taken for dead and is not finds another generation in the state: it compares the whole word with
//! what it has written last, before each operation ([`Endpoint::is_evicted`](crate::Endpoint::is_evicted)), and each of
//! its steps 2 to 6 is a compare-exchange, which fails. It writes nothing more.
//!
//! A failed kernel's index keeps its trace until somebody clears it. Its `owner` is then a number made of the
//! generation: the index is nobody's, and the state alone decides when it is free. A clearing kernel compare-exchanges
//! the state to Free, and then `owner` to 0; should it die in between, the next claim takes Free and the failed number
//! together for free.
//!
//! # One kernel of a name
//!
//! An index that is Registering gets its name in two steps, before it is opened for mail. Its owner writes the name and
//! then says so (`asks`). It looks at all other indices, and then exchanges `asks` for `named`. Another index of the
//! same name is in the way, or is put out of the way:
//!
//! | the other index | the kernel that looks |
//! | --- | --- |
//! | Registered, or `named` | gives its own index back: the name is in use |
//! | `asks`, and its index is lower | the same |
//! | `asks`, and its index is higher | takes the other's `asks` away by an exchange; should that fail, it looks again |
//! | anything else | goes on |
//!
//! Between asking and looking stands a fence: of two that ask, one at least sees the other. Both may see each other, then
//! the higher index gives up. Only the lower may see the higher: then one exchange in the higher's state decides, to `named`
//! or to nothing. Only the higher may see the lower: it gives up. So of all that ask at one moment the lowest index is
//! stopped by nothing but a kernel that has the name. An owner that finds its `asks` taken away asks once more if nobody is in
//! the way now.
//!
//! An owner that dies keeps its name until its index is seized, also one that died while it asked and had the lower
//! index. A successor that takes over an index that is Registering does not ask.
//!
//! # Generations
//!
//! A generation never comes back. An index serves 2³² - 2 owners; then it is used up, and is not given to anybody again
//! (the last generation is kept for a successor). Free indices are claimed in turn: each search begins behind the index
//! that was claimed last. With `KERNELS` indices, of which most are free, and `r` registrations a second, a
//! fabric lasts `KERNELS` × 4.29 × 10⁹ / `r` seconds: 16 indices at 1000 a second, 2177 years; one index that is
//! claimed a million times a second, 71 minutes, and then it is refused, not reused.
//!
//! # Restricted kernels
//!
//! `restricted` says that a sender and the receiver have to look into the [sender set](super::senders) before a message
//! counts as allowed. A supervisor sets it in an index that is Registered; only the next step of the state removes it.
//! So the owner does not know whether it is set: it compares the word without it, and leaves by an exchange from the
//! word that it finds.
//!
//! # Rules
//!
//! 1. `owner` and the state: compare-exchanged as above; `restricted` by supervisors.
//! 2. `name`: written by the owner in Registering, before it asks.
//! 3. `wake_flag`: see [`crate::WakeFlag`].
//! 4. `command`: set by the owner before Registered, then compare-exchanged by supervisors, who must find the owner's
//!    generation in it. Read by the owner. `phase`, `heartbeat`, `counters`: written by the owner.
//! 5. Scope: senders read `state` within the fabric's scope, once per message. All else is of system scope, for
//!    supervisors that look on from elsewhere; so are the few stores of `state` that they follow.
//!
//! | label | release | acquire | what becomes visible |
//! | --- | --- | --- | --- |
//! | `registered` | owner's exchange to Registered | `is_registered`, `find`, senders | the name; an inbox emptied of old mail |
//! | `name-began` | fence in `Routes::clear`, before the name is written | each name word's load | that the index has changed hands |
//! | `name-asked` | a fence behind the owner's exchange to `asks` | the same fence of another kernel that registers | one of two that ask sees the other, and its name |
//! | `index-left` | owner's last exchange of `owner` | the next owner's first one | everything the last owner did with the index |
//! | `commanded` | supervisor's store | owner's load | what the supervisor did before |
//! | `phase` | owner's store | supervisor's load | what the kernel did before it changed phase |

use super::name::{NAME_LEN, Name};
use super::stats::{COUNTERS, Counter};
use crate::message::KernelId;
use crate::platform::Platform;
use crate::sync::Ordering::{Acquire, Relaxed, Release, SeqCst};
use crate::sync::{AtomicU32, AtomicU64, Scope, fence, shared_struct};
use crate::wake_flag::WakeFlag;

/// Where an index is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Status {
    /// Nobody's.
    Free = 0,
    /// Claimed; old mail is being thrown out.
    Registering = 1,
    /// In use: can be sent to.
    Registered = 2,
    /// Its owner is leaving: mail on its way ends in `NotFound`.
    Leaving = 3,
    /// Its owner failed. Stays until it is [cleared](super::Fabric::clear_failed), so that its trace can be read.
    Failed = 4,
}

/// The last generation that a kernel registers with. One more is for a successor that clears up after its death.
pub(crate) const LAST_GENERATION: u32 = u32::MAX - 1;

/// In the state: this kernel may park.
const PARKS: u64 = 1 << 8;

/// In the state: messages of some senders may not be received.
const RESTRICTED: u64 = 1 << 9;

/// In the state of an index that is Registering: its owner asks for the name that stands there.
const ASKS: u64 = 1 << 10;

/// In the state of an index that is Registering: the name that stands there is its owner's.
const NAMED: u64 = 1 << 11;

/// Tries of an exchange of the state that another kernel can come in between of, by setting [`RESTRICTED`] or removing
/// [`ASKS`] once.
const STEP_TRIES: u32 = 2;

/// Tries of a successor that finds the state changed by an owner that should be dead.
const SEIZE_TRIES: u32 = 4;

/// `owner` of an index that nobody owns.
const NOBODY: u64 = 0;
/// Upper bits of `owner` for a failed index; the generation is below them.
const FAILED: u64 = 0b01 << 62;
/// An owner of whom nothing is known.
const NOT_SAID: u64 = 1;

const fn failed(generation: u32) -> u64 {
    FAILED | generation as u64
}

const fn is_failed(owner: u64) -> bool {
    owner >> 62 == FAILED >> 62
}

/// What a platform says of itself, as a number that can stand in `owner`.
const fn number(owner: u64) -> u64 {
    if owner >> 63 == 1 { owner } else { NOT_SAID }
}

/// An index that is the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) generation: u32,
    /// The state that the caller has written last.
    pub(crate) state: u64,
    pub(crate) owner: u64,
}

/// Why an index could not be claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClaimError {
    /// It is not free.
    InUse,
    /// It is free, and has no generation left.
    UsedUp,
}

/// The state word, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) generation: u32,
    pub(crate) parks: bool,
    pub(crate) restricted: bool,
    /// `None` if the word holds no status that exists.
    pub(crate) status: Option<Status>,
}

/// The marks in the state of a registered kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Marks(u64);

impl Marks {
    #[inline(always)]
    pub(crate) const fn parks(self) -> bool {
        self.0 & PARKS != 0
    }

    /// Whether some senders may be denied.
    #[inline(always)]
    pub(crate) const fn is_restricted(self) -> bool {
        self.0 & RESTRICTED != 0
    }

    /// These, but for the restrictions, which are those of another kernel.
    #[inline(always)]
    pub(crate) const fn restricted_as(self, other: Self) -> Self {
        Self(self.0 & !RESTRICTED | other.0 & RESTRICTED)
    }
}

impl State {
    pub(crate) const fn encode(generation: u32, parks: bool, status: Status) -> u64 {
        (generation as u64) << 32 | (parks as u64) << 8 | status as u64
    }

    const fn decode(word: u64) -> Self {
        Self {
            generation: (word >> 32) as u32,
            parks: word & PARKS != 0,
            restricted: word & RESTRICTED != 0,
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
    /// One index: four parts on lines of their own, by who writes them.
    #[repr(align(128))]
    pub(crate) struct Entry[][] in S {
        /// With `name`: written at registration, read by every sender.
        state: AtomicU64<S>,
        name: [AtomicU64; NAME_LEN / 8],
        /// Written at registration only.
        owner: AtomicU64<S>,
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
    /// The state's word, with everything that its owner did before it was written.
    #[inline(always)]
    fn word(&self) -> u64 {
        // Acquire [registered]: the name, and an inbox without old mail, are visible.
        self.state.load(Acquire)
    }

    #[inline(always)]
    pub(crate) fn state(&self) -> State {
        State::decode(self.word())
    }

    /// What the state says besides, if `id` is registered here.
    #[inline(always)]
    pub(crate) fn registered(&self, id: KernelId) -> Option<Marks> {
        let word = self.word();
        let registered = State::encode(id.generation(), false, Status::Registered);
        (word & !(PARKS | RESTRICTED) == registered).then_some(Marks(word))
    }

    /// Whether the state is the one that an owner has written last.
    #[inline(always)]
    pub(crate) fn is_in(&self, state: u64) -> bool {
        // Relaxed: an index that was taken away says so soon enough, and nothing is read through it.
        let found = self.state.load(Relaxed);
        // Most kernels are not restricted: then one comparison is all.
        found == state || found == state | RESTRICTED
    }

    /// Whether the receiver has to look into the sender set.
    #[inline(always)]
    pub(crate) fn is_restricted(&self) -> bool {
        // Relaxed: a switch that takes effect soon.
        self.state.load(Relaxed) & RESTRICTED != 0
    }

    /// For a supervisor: lets senders and the receiver look into the sender set from now on. `false` if that kernel is not
    /// registered (any more).
    pub(crate) fn restrict(&self, generation: u32) -> bool {
        // An index that is Registered changes by this mark, and then by leaving: two tries, and a third look.
        for _ in 0..=STEP_TRIES {
            // Relaxed: the exchange decides.
            let found = self.state.load(Relaxed);
            let state = State::decode(found);
            if state.generation != generation || state.status != Some(Status::Registered) {
                return false;
            }
            // An exchange: a reader of the new word sees what the owner published with the old one.
            if state.restricted || self.advance(found, found | RESTRICTED) {
                return true;
            }
        }
        false
    }

    /// The owner's number; `None` for an index that is free or failed.
    pub(crate) fn owner(&self) -> Option<u64> {
        // Relaxed: a number to be asked about, or exchanged.
        Some(self.owner.load(Relaxed)).filter(|&owner| owner != NOBODY && !is_failed(owner))
    }

    /// Step 1 and 2 of the module's page: claims a free index.
    pub(crate) fn claim(&self, owner: u64) -> Result<Claim, ClaimError> {
        // Relaxed, both: only a first look.
        let state = State::decode(self.state.load(Relaxed));
        let from = self.owner.load(Relaxed);
        if state.status != Some(Status::Free) || from != NOBODY && from != failed(state.generation) {
            return Err(ClaimError::InUse);
        }
        if state.generation >= LAST_GENERATION {
            return Err(ClaimError::UsedUp);
        }
        let owner = number(owner);
        if !self.pass_on(from, owner) {
            return Err(ClaimError::InUse);
        }
        // Relaxed: written by the last owner before it let go.
        let found = self.state.load(Relaxed);
        let state = State::decode(found);
        if state.status == Some(Status::Free)
            && state.generation < LAST_GENERATION
            && let Some(claim) = self.begin(found, owner)
        {
            return Ok(claim);
        }
        // Used up meanwhile, or somebody has written over the table.
        self.let_go(owner, NOBODY);
        Err(ClaimError::InUse)
    }

    /// Takes an index away from an owner that is dead, with a new generation, from whichever of its steps. `None` if it
    /// is not that owner's (any more).
    pub(crate) fn seize(&self, dead: u64, owner: u64) -> Option<Claim> {
        let owner = number(owner);
        if dead == NOBODY || is_failed(dead) || !self.pass_on(dead, owner) {
            return None;
        }
        // More than one try only if the owner is not dead, and goes on.
        for _ in 0..SEIZE_TRIES {
            // Relaxed: the exchange decides.
            let found = self.state.load(Relaxed);
            if let Some(claim) = self.begin(found, owner) {
                return Some(claim);
            }
        }
        self.let_go(owner, dead);
        None
    }

    /// Takes over the index of an owner that does not use it any more, with its generation.
    pub(crate) fn take_over(&self, generation: u32, owner: u64) -> Option<Claim> {
        let owned = |word| {
            let state = State::decode(word);
            let owned = matches!(state.status, Some(Status::Registering | Status::Registered | Status::Leaving));
            state.generation == generation && owned
        };
        // Relaxed, all: the caller vouches that the owner has ended; that knowledge is the synchronisation.
        let from = self.owner.load(Relaxed);
        let owner = number(owner);
        if !owned(self.state.load(Relaxed)) || !self.pass_on(from, owner) {
            return None;
        }
        for _ in 0..STEP_TRIES {
            let found = self.state.load(Relaxed);
            if !owned(found) {
                break;
            }
            // Nobody will ever open this index for mail, so it does not ask for a name.
            let state = found & !ASKS;
            if state == found || self.advance(found, state) {
                return Some(Claim { generation, state: state & !RESTRICTED, owner });
            }
        }
        self.let_go(owner, from);
        None
    }

    /// Step 1.
    fn pass_on(&self, from: u64, to: u64) -> bool {
        // Acquire [index-left]: what the last owner did with the inbox and its counters is visible.
        // Relaxed on failure: the index is someone else's.
        self.owner.widened().compare_exchange(from, to, Acquire, Relaxed).is_ok()
    }

    /// Step 2.
    fn begin(&self, found: u64, owner: u64) -> Option<Claim> {
        let generation = State::decode(found).generation.saturating_add(1);
        let state = State::encode(generation, false, Status::Registering);
        self.advance(found, state).then_some(Claim { generation, state, owner })
    }

    /// Step 6.
    fn let_go(&self, owner: u64, to: u64) {
        // Release [index-left]: everything this owner did is visible to the next one.
        // Relaxed on failure: the index was taken away.
        let _ = self.owner.widened().compare_exchange(owner, to, Release, Relaxed);
    }

    /// A step of the state; `false` if the index was taken away.
    fn advance(&self, from: u64, to: u64) -> bool {
        // Relaxed: what the owner does with the index is published by its last step. An exchange continues the release
        // sequence of Registered, so that the name stays visible in the states after it.
        // Relaxed on failure: nothing was read.
        self.state.widened().compare_exchange(from, to, Relaxed, Relaxed).is_ok()
    }

    /// Asks for a name, in Registering: see the module's page.
    pub(crate) fn ask_for(&self, claim: &mut Claim, name: &Name) {
        for (word, bytes) in self.name.iter().zip(name.bytes.as_chunks::<8>().0) {
            // Relaxed: behind the fence in `Routes::clear`, so that a reader of this word that acquires sees in the state
            // that the index is not the predecessor's any more.
            word.store(u64::from_le_bytes(*bytes), Relaxed);
        }
        let asking = State::encode(claim.generation, false, Status::Registering) | ASKS;
        // If the index was taken away, the next step finds that.
        self.advance(claim.state, asking);
        claim.state = asking;
        // SeqCst [name-asked]: the name and the exchange above come before the look at the other indices that follows.
        // Pairs with the same fence of another kernel that asks: one of the two sees the other's state and name.
        fence(SeqCst);
    }

    /// Looks whether this index stands in the way of another kernel that asks for `name`; the generation here if so.
    /// One that asks as well goes on if it `comes_first`, and asks no more if not.
    pub(crate) fn contests(&self, name: &Name, comes_first: bool) -> Option<u32> {
        // It may get the name meanwhile, and leave, and another come.
        for _ in 0..=STEP_TRIES {
            let word = self.word();
            let State { generation, status, .. } = State::decode(word);
            let asks = status == Some(Status::Registering) && word & ASKS != 0;
            let has = status == Some(Status::Registered) || status == Some(Status::Registering) && word & NAMED != 0;
            if !(asks || has) || !self.is_called(name, generation) {
                return None;
            }
            if has || comes_first {
                return Some(generation);
            }
            if self.advance(word, word & !ASKS) {
                return None;
            }
        }
        Some(self.state().generation)
    }

    /// The last step to a name that nobody contests; `false` if a kernel that comes first has asked meanwhile, or the
    /// index was taken away.
    pub(crate) fn take_name(&self, claim: &mut Claim) -> bool {
        let named = claim.state & !ASKS | NAMED;
        let taken = self.advance(claim.state, named);
        if taken {
            claim.state = named;
        }
        taken
    }

    /// Asks no more. `false` if the index was taken away.
    pub(crate) fn stop_asking(&self, claim: &mut Claim) -> bool {
        let asking = claim.state;
        claim.state = asking & !ASKS;
        // Another kernel may have done the same.
        self.advance(asking, claim.state) || self.is_in(claim.state)
    }

    /// Step 3: opens the index for mail. Returns the state as it is then, also if the index was taken away.
    pub(crate) fn finish_register(&self, claim: &Claim, parks: bool) -> u64 {
        self.wake_flag.wake_up();
        // Relaxed: published by the state below.
        self.control.command.store(Self::command_word(claim.generation, Command::Run), Relaxed);
        self.set_phase(Phase::Idle);
        let registered = State::encode(claim.generation, parks, Status::Registered);
        // Release [registered]: the name, and that old mail is gone, are visible to whoever sees this state.
        // Relaxed on failure: the index was taken away, as the owner will find.
        let _ = self.state.widened().compare_exchange(claim.state, registered, Release, Relaxed);
        registered
    }

    /// Step 4: no mail any more. Returns the new state, unless the index was taken away.
    pub(crate) fn begin_leave(&self, claim: &Claim) -> Option<u64> {
        let leaving = State::encode(claim.generation, false, Status::Leaving);
        for _ in 0..STEP_TRIES {
            // Relaxed: the exchange decides. It fails if a supervisor restricts this kernel at the same moment.
            let found = self.state.load(Relaxed);
            if found & !RESTRICTED == claim.state && self.advance(found, leaving) {
                return Some(leaving);
            }
        }
        None
    }

    /// Step 5 and 6: the index is free, or failed.
    pub(crate) fn finish_leave(&self, claim: &Claim, then: Status) {
        if !self.advance(claim.state, State::encode(claim.generation, false, then)) {
            return;
        }
        let nobody = if then == Status::Failed { failed(claim.generation) } else { NOBODY };
        self.let_go(claim.owner, nobody);
    }

    /// Makes a failed index free.
    pub(crate) fn clear_failed(&self, generation: u32) -> bool {
        let state = State::encode(generation, false, Status::Failed);
        let free = State::encode(generation, false, Status::Free);
        // The exchange of `owner` continues the release sequence of the failed owner's last step; if that is yet to
        // come, the index is free with it.
        if !self.advance(state, free) {
            return false;
        }
        self.let_go(failed(generation), NOBODY);
        true
    }

    /// The name, if `generation` still owns the index after it was read.
    pub(crate) fn name(&self, generation: u32) -> Option<Name> {
        let state = self.state();
        let named = matches!(state.status, Some(Status::Registered | Status::Leaving | Status::Failed));
        if state.generation != generation || !named {
            return None;
        }
        let mut name = Name::default();
        for (bytes, word) in name.bytes.as_chunks_mut::<8>().0.iter_mut().zip(self.name_words()) {
            *bytes = word.to_le_bytes();
        }
        self.still_has(generation).then_some(name)
    }

    /// Whether this is the name, and `generation` still owns the index after it was read.
    fn is_called(&self, name: &Name, generation: u32) -> bool {
        let differs = |(word, bytes): (u64, &[u8; 8])| word != u64::from_le_bytes(*bytes);
        !self.name_words().zip(name.bytes.as_chunks::<8>().0).any(differs) && self.still_has(generation)
    }

    fn name_words(&self) -> impl Iterator<Item = u64> {
        // Acquire [name-began]: having read a word of a later name, `still_has` finds the state changed.
        self.name.iter().map(|word| word.load(Acquire))
    }

    /// Whether what was read of the name belongs to this generation.
    fn still_has(&self, generation: u32) -> bool {
        // Relaxed: the loads of the name keep it in its place.
        State::decode(self.state.load(Relaxed)).generation == generation
    }

    /// Where the command stands, bytes from the entry's start.
    #[cfg(not(k2k_loom))]
    pub(super) const COMMAND_OFFSET: usize =
        core::mem::offset_of!(Self, control) + core::mem::offset_of!(Control, command);

    pub(super) const fn command_word(generation: u32, command: Command) -> u64 {
        (generation as u64) << 32 | command as u64
    }

    /// For a supervisor; `false` if the index has another owner by now, whose commands are not touched.
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
    pub(crate) fn set_heartbeat(&self, heartbeats: u64) {
        // Relaxed: a sign of life, nothing else.
        self.control.heartbeat.store(heartbeats, Relaxed);
    }

    pub(crate) fn heartbeat(&self) -> u64 {
        // Relaxed: as above.
        self.control.heartbeat.load(Relaxed)
    }

    /// For an onlooker: the command for this generation, and whether the kernel is marked asleep.
    #[cfg(not(k2k_loom))]
    pub(crate) fn commanded(&self, generation: u32) -> (Command, bool) {
        // Relaxed: a word to show.
        (Self::command_in(self.control.command.load(Relaxed), generation), self.wake_flag.is_asleep())
    }

    /// For the owner: shows a counter's new value.
    #[inline(always)]
    pub(crate) fn show(&self, counter: Counter, value: u64) {
        // Relaxed: statistics; only the owner writes them.
        self.counters.counters[counter as usize].store(value, Relaxed);
    }

    pub(crate) fn counters(&self) -> [u64; COUNTERS] {
        // Relaxed: statistics. For an owner that has just claimed the index, `index-left` made them visible.
        core::array::from_fn(|i| self.counters.counters[i].load(Relaxed))
    }

    /// Wakes the kernel, if it may park and sleeps.
    #[inline(always)]
    pub(crate) fn wake(&self, parks: bool, platform: &impl Platform) {
        if parks && self.wake_flag.must_wake() {
            platform.wake(&self.wake_flag);
        }
    }
}

#[cfg(not(k2k_loom))]
const _: () = assert!(size_of::<Entry>() == 3 * 128);

#[cfg(test)]
#[cfg(not(k2k_loom))]
mod tests {
    use super::*;

    fn entry() -> Entry {
        // SAFETY: `Shared`: zero is the idle state.
        unsafe { core::mem::zeroed() }
    }

    /// Registers.
    fn own(entry: &Entry, name: &str) -> Claim {
        let mut claim = entry.claim(ME).unwrap();
        entry.ask_for(&mut claim, &Name::new(name).unwrap());
        assert!(entry.take_name(&mut claim));
        claim.state = entry.finish_register(&claim, false);
        claim
    }

    fn leave(entry: &Entry, mut claim: Claim, then: Status) {
        claim.state = entry.begin_leave(&claim).unwrap();
        entry.finish_leave(&claim, then);
    }

    const ME: u64 = 1 << 63 | 7;
    const OTHER: u64 = 1 << 63 | 8;

    #[test]
    fn a_state_says_who_parks_and_who_is_restricted() {
        for status in [Status::Free, Status::Registering, Status::Registered, Status::Leaving, Status::Failed] {
            for (parks, restricted) in [(false, false), (true, false), (false, true), (true, true)] {
                let word = State::encode(u32::MAX, parks, status) | if restricted { RESTRICTED } else { 0 };
                let state = State { generation: u32::MAX, parks, restricted, status: Some(status) };
                assert_eq!(State::decode(word), state);
                assert_eq!((Marks(word).parks(), Marks(word).is_restricted()), (parks, restricted));
                for other in [0, RESTRICTED] {
                    let mixed = Marks(word).restricted_as(Marks(other));
                    assert_eq!((mixed.parks(), mixed.is_restricted()), (parks, other != 0));
                }
            }
        }
    }

    #[test]
    fn a_command_for_the_owner_before_does_not_push_out_one_for_the_owner() {
        let entry = entry();
        let old = own(&entry, "old");
        leave(&entry, old, Status::Free);
        let new = own(&entry, "new");
        assert!(entry.set_command(new.generation, Command::Stop));
        assert!(!entry.set_command(old.generation, Command::Drain));
        assert_eq!(entry.command(new.generation), Command::Stop);
        assert_eq!(entry.command(old.generation), Command::Run);
    }

    #[test]
    fn a_name_belongs_to_one_owner() {
        let entry = entry();
        let old = own(&entry, "old");
        assert_eq!(entry.name(old.generation).unwrap().as_str(), "old");
        leave(&entry, old, Status::Free);
        assert_eq!(entry.name(old.generation), None);
        let mut new = entry.claim(ME).unwrap();
        assert_eq!(entry.name(new.generation), None, "not written yet");
        entry.ask_for(&mut new, &Name::new("new").unwrap());
        assert!(entry.take_name(&mut new));
        assert_eq!(entry.name(new.generation), None, "nobody can send to it yet");
        entry.finish_register(&new, true);
        let name = entry.name(new.generation);
        assert_eq!((entry.name(old.generation), name.unwrap().as_str()), (None, "new"));
    }

    /// An entry, and what its owner has of it, after a number of steps of the module's page: claimed, Registering, asks,
    /// named, Registered, Leaving, Free or Failed, and let go.
    fn after(steps: usize, then: Status) -> (Entry, Option<Claim>) {
        let entry = entry();
        if steps == 1 {
            assert!(entry.pass_on(NOBODY, ME));
            return (entry, None);
        }
        let mut claim = entry.claim(ME).unwrap();
        if steps >= 3 {
            entry.ask_for(&mut claim, &Name::new("k").unwrap());
        }
        if steps >= 4 {
            assert!(entry.take_name(&mut claim));
        }
        if steps >= 5 {
            claim.state = entry.finish_register(&claim, true);
        }
        if steps >= 6 {
            claim.state = entry.begin_leave(&claim).unwrap();
        }
        if steps == 7 {
            let state = State::encode(claim.generation, false, then);
            assert!(entry.advance(claim.state, state));
            claim.state = state;
        }
        if steps == 8 {
            entry.finish_leave(&claim, then);
        }
        (entry, Some(claim))
    }

    #[test]
    fn an_index_comes_back_wherever_its_owner_died() {
        for then in [Status::Free, Status::Failed] {
            for steps in 1..=7 {
                let (entry, zombie) = after(steps, then);
                assert_eq!(entry.owner(), Some(ME), "after {steps}");
                assert_eq!(entry.claim(OTHER), Err(ClaimError::InUse), "after {steps}");
                assert_eq!(entry.seize(OTHER, OTHER), None, "not the dead owner's");
                let claim = entry.seize(ME, OTHER).unwrap();
                assert_eq!(entry.seize(ME, OTHER), None, "once");
                assert_eq!(claim.generation, if steps == 1 { 1 } else { 2 });
                assert!(entry.is_in(claim.state) && entry.owner() == Some(OTHER));
                // The owner was not dead after all.
                if let Some(mut zombie) = zombie {
                    assert!(!entry.is_in(zombie.state));
                    assert_eq!(entry.begin_leave(&zombie), None);
                    entry.finish_leave(&zombie, then);
                    entry.finish_register(&zombie, true);
                    entry.ask_for(&mut zombie, &Name::new("z").unwrap());
                    assert!(!entry.take_name(&mut zombie) && !entry.stop_asking(&mut zombie));
                    assert!(entry.is_in(claim.state) && entry.owner() == Some(OTHER), "after {steps}");
                }
                leave(&entry, claim, Status::Free);
                assert_eq!((entry.owner(), entry.seize(OTHER, ME)), (None, None));
                assert_eq!(own(&entry, "next").generation, claim.generation + 1);
            }
        }
    }

    #[test]
    fn a_failed_index_is_nobodys_until_it_is_cleared() {
        let (entry, claim) = after(8, Status::Failed);
        let generation = claim.unwrap().generation;
        assert_eq!((entry.owner(), entry.claim(ME)), (None, Err(ClaimError::InUse)));
        assert_eq!(entry.seize(failed(generation), ME), None);
        assert!(!entry.clear_failed(generation + 1) && !entry.clear_failed(generation + (1 << 16)));
        assert!(entry.clear_failed(generation) && !entry.clear_failed(generation));
        assert_eq!(own(&entry, "next").generation, generation + 1);
        // The one that clears it dies between its two steps, or is quicker than the failed owner's last one.
        for steps in [8, 7] {
            let (entry, claim) = after(steps, Status::Failed);
            let claim = claim.unwrap();
            if steps == 8 {
                assert!(
                    entry.advance(claim.state, 0) || entry.advance(State::encode(1, false, Status::Failed), 1 << 32)
                );
            } else {
                assert!(entry.clear_failed(1));
                assert_eq!(entry.claim(ME), Err(ClaimError::InUse), "its owner has not let go");
                entry.let_go(claim.owner, failed(1));
            }
            assert_eq!(own(&entry, "next").generation, 2);
        }
    }

    #[test]
    fn of_two_that_ask_for_a_name_the_first_index_gets_it_unless_the_other_has_it() {
        let (k, other) = (Name::new("k").unwrap(), Name::new("other").unwrap());
        for comes_first in [true, false] {
            // Asks: gives way to the first index alone.
            let (entry, claim) = after(3, Status::Free);
            let mut claim = claim.unwrap();
            assert_eq!((entry.contests(&other, comes_first), entry.name(1)), (None, None));
            assert_eq!(entry.contests(&k, comes_first), comes_first.then_some(1));
            assert_eq!(entry.take_name(&mut claim), comes_first);
            if !comes_first {
                // It asks again, and nobody is there any more.
                assert!(entry.stop_asking(&mut claim));
                entry.ask_for(&mut claim, &k);
                assert!(entry.take_name(&mut claim));
            }
            // Has it, from now on until it leaves.
            for steps in 4..=8 {
                let (entry, _) = after(steps, Status::Free);
                assert_eq!(entry.contests(&other, comes_first), None, "after {steps}");
                assert_eq!(entry.contests(&k, comes_first), (steps < 6).then_some(1), "after {steps}");
            }
        }
    }

    #[test]
    fn a_dead_kernel_that_asked_for_a_name_does_not_keep_it() {
        let k = Name::new("k").unwrap();
        for steps in [3, 4] {
            for seize in [true, false] {
                let (entry, _) = after(steps, Status::Free);
                let successor = if seize { entry.seize(ME, OTHER) } else { entry.take_over(1, OTHER) }.unwrap();
                assert!(entry.is_in(successor.state));
                assert_eq!(entry.contests(&k, true), (steps == 4 && !seize).then_some(1));
                leave(&entry, successor, Status::Free);
                assert_eq!((entry.contests(&k, true), entry.owner()), (None, None));
            }
        }
    }

    #[test]
    fn a_used_up_index_is_not_given_to_anybody() {
        let entry = entry();
        entry.state.store(State::encode(LAST_GENERATION - 1, false, Status::Free), Relaxed);
        let last = own(&entry, "last");
        assert_eq!(last.generation, LAST_GENERATION);
        leave(&entry, last, Status::Free);
        assert_eq!((entry.claim(ME), entry.owner()), (Err(ClaimError::UsedUp), None));
        // The last owner dies: a successor clears up, and then it is used up as well.
        entry.state.store(State::encode(LAST_GENERATION - 1, false, Status::Free), Relaxed);
        own(&entry, "last");
        let successor = entry.seize(ME, OTHER).unwrap();
        assert_eq!(successor.generation, u32::MAX);
        leave(&entry, successor, Status::Free);
        assert_eq!((entry.claim(ME), entry.owner()), (Err(ClaimError::UsedUp), None));
        assert!(entry.state().generation == u32::MAX && entry.name(LAST_GENERATION).is_none());
    }

    #[test]
    fn a_command_and_a_name_ask_for_the_whole_generation() {
        let entry = entry();
        let old = own(&entry, "old");
        for turns in [65_535, 65_536] {
            entry.state.store(State::encode(old.generation + turns - 1, false, Status::Free), Relaxed);
            entry.owner.store(NOBODY, Relaxed);
            let new = own(&entry, "new");
            assert_eq!(new.generation, old.generation + turns);
            assert!(!entry.set_command(old.generation, Command::Stop));
            assert_eq!((entry.command(new.generation), entry.name(old.generation)), (Command::Run, None));
            leave(&entry, new, Status::Failed);
            assert!(!entry.clear_failed(old.generation) && entry.clear_failed(new.generation));
        }
    }

    #[test]
    fn a_restricted_kernel_leaves_and_is_succeeded_like_any_other() {
        for succeed in [false, true] {
            let entry = entry();
            let mut claim = own(&entry, "k");
            let id = KernelId::new(0, claim.generation);
            assert!(!entry.restrict(claim.generation + 1) && !entry.is_restricted());
            for _ in 0..2 {
                assert!(entry.restrict(claim.generation) && entry.is_restricted());
            }
            assert!(entry.is_in(claim.state) && entry.registered(id).is_some_and(Marks::is_restricted));
            if succeed {
                claim = entry.take_over(claim.generation, OTHER).unwrap();
                assert!(entry.is_in(claim.state) && entry.is_restricted(), "the same kernel");
            }
            leave(&entry, claim, Status::Free);
            assert!(!entry.is_restricted() && !entry.restrict(claim.generation));
            assert_eq!(own(&entry, "next").generation, claim.generation + 1);
            assert!(!entry.is_restricted(), "another kernel");
        }
        let entry = entry();
        let claim = own(&entry, "k");
        assert!(entry.restrict(claim.generation));
        let successor = entry.seize(ME, OTHER).unwrap();
        assert!(!entry.is_in(claim.state) && entry.is_in(successor.state) && !entry.is_restricted());
    }

    #[test]
    fn an_owner_that_says_nothing_sensible_has_said_nothing() {
        assert_eq!([0, 1, 7, FAILED | 3, u64::MAX >> 1].map(number), [NOT_SAID; 5]);
        assert_eq!((number(ME), number(u64::MAX)), (ME, u64::MAX));
    }
}
