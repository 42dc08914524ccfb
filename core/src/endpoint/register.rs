//! Taking an index and leaving it.

use super::Endpoint;
use super::control::Control;
use super::deferred::Deferred;
use super::inbox::Inbox;
use super::member::Member;
use super::outbox::Outbox;
use super::own_receipts::OwnReceipts;
use crate::fabric::{
    Claim, ClaimError, Counter, DeliveryStatus, FabricRef, LAST_SEQUENCE, Ledger, Name, NameError, Status,
};
use crate::hlc::Clock;
use crate::in_place::make_in;
use crate::message::KernelId;
use crate::platform::Platform;
use crate::shape::{Index, Packet, Shape};
use crate::sync::{ReachesHere, zeroed_in};
use core::fmt;
use core::mem::MaybeUninit;

/// How a kernel registers: under which name, whether it may park, and at which kernel index.
///
/// ```
/// use k2k_core::Registration;
///
/// let named = Registration::new("a")?;
/// let sleeper = Registration::new("b")?.parking();
/// let third = Registration::new("c")?.at(3);
/// # Ok::<(), k2k_core::fabric::NameError>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Registration {
    name: Name,
    parks: bool,
    index: Option<usize>,
}

impl Registration {
    /// Under this name.
    ///
    /// # Errors
    /// [`NameError`] unless the name has 1 to 32 bytes.
    pub fn new(name: &str) -> Result<Self, NameError> {
        Ok(Self { name: Name::new(name)?, parks: false, index: None })
    }

    /// As a kernel that may sleep when its inbox is empty. Everyone who sends to it then pays for a fence per message,
    /// which is why it must be known from the start.
    pub const fn parking(mut self) -> Self {
        self.parks = true;
        self
    }

    /// At this kernel index; without it, at the next free one.
    pub const fn at(mut self, index: usize) -> Self {
        self.index = Some(index);
        self
    }
}

/// Tries to get a name that nobody is in the way of. All but the first are for others that come first, and go again.
const NAME_TRIES: u32 = 4;

/// The last sequence that may be used up when a kernel index gets a new owner, which has 2⁵⁶ to itself.
const LAST_TO_START: u64 = LAST_SEQUENCE / 2;

/// An index that was claimed for a kernel to be, and is not open for mail yet.
#[derive(Debug)]
pub(crate) struct ClaimedIndex<Sh> {
    index: Index<Sh>,
    claim: Claim,
}

impl<Sh: Shape> ClaimedIndex<Sh> {
    pub(crate) const fn index(&self) -> Index<Sh> {
        self.index
    }
}

/// Why a kernel could not register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegisterError {
    /// No index is free.
    NoFreeIndex {
        /// Indices there are.
        kernels: usize,
        /// Those of them that have had as many owners as an index can have, or have sent as many messages. They stay
        /// empty for ever.
        used_up: usize,
    },
    /// A kernel of that name is registered, or registers at this moment.
    NameInUse {
        /// Its address.
        by: KernelId,
    },
    /// The index that was asked for is in use.
    IndexInUse {
        /// Its index.
        index: usize,
    },
    /// The index that was asked for has had as many owners as an index can have, or has sent as many messages. It stays
    /// empty for ever.
    IndexUsedUp {
        /// Its index.
        index: usize,
    },
}

impl fmt::Display for RegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFreeIndex { kernels, used_up: 0 } => write!(
                f,
                "all {kernels} indices of the fabric are in use: unregister a kernel, reap those whose processes are gone, \
                 clear a failed one, or use a fabric \
                 with more KERNELS"
            ),
            Self::NoFreeIndex { kernels, used_up } => write!(
                f,
                "of the {kernels} indices of the fabric, {used_up} are used up, having had 2^32 - 2 owners or sent 2^56 messages each, and the \
                 others are in use: create a new fabric"
            ),
            Self::NameInUse { by } => {
                write!(
                    f,
                    "the name is in use by {by}: unregister that kernel, reap it if its process is gone, or choose another name"
                )
            }
            Self::IndexInUse { index } => {
                write!(f, "index {index} does not exist, is in use, or does not belong to the kernel to be taken over")
            }
            Self::IndexUsedUp { index } => write!(
                f,
                "index {index} is used up, having had 2^32 - 2 owners or sent 2^56 messages: take another index, or create a new fabric"
            ),
        }
    }
}

impl core::error::Error for RegisterError {}

impl<'f, Sh: Shape> FabricRef<'f, Sh> {
    /// Takes an index and opens it for mail: the one that the registration asks for, or a free one, which are claimed
    /// in turn. Of several that register under one name at the same moment, one gets it.
    ///
    /// # Errors
    /// [`RegisterError::NameInUse`] if a registered kernel has the name, [`RegisterError::NoFreeIndex`] if all indices
    /// are in use. If the registration asks for an index: [`RegisterError::IndexInUse`] unless that is free,
    /// [`RegisterError::IndexUsedUp`] if it will not be any more.
    pub fn register<P: Platform>(&self, who: &Registration, platform: P) -> Result<Endpoint<'f, P, Sh>, RegisterError>
    where
        Sh::Scope: ReachesHere,
    {
        let mut at = MaybeUninit::uninit();
        self.register_in(&mut at, who, platform)?;
        // SAFETY: `register_in` has initialised it.
        Ok(unsafe { at.assume_init() })
    }

    /// As [`register`](Self::register), in memory of the caller's: an endpoint is large. Who wants the kernel to leave
    /// drops it there.
    ///
    /// # Errors
    /// As for `register`.
    pub fn register_in<'e, P: Platform>(
        &self,
        at: &'e mut MaybeUninit<Endpoint<'f, P, Sh>>,
        who: &Registration,
        platform: P,
    ) -> Result<&'e mut Endpoint<'f, P, Sh>, RegisterError>
    where
        Sh::Scope: ReachesHere,
    {
        let claimed = self.claim_index(who, platform.owner())?;
        Ok(Endpoint::open(at, *self, platform, claimed, who))
    }

    /// Takes an index and gets the name, for [`Endpoint::open`] or to be [given back](Self::give_back).
    pub(crate) fn claim_index(&self, who: &Registration, owner: u64) -> Result<ClaimedIndex<Sh>, RegisterError> {
        self.look_for_name(who)?;
        let claimed = match who.index {
            Some(index) => self.claim_at(index, owner)?,
            None => self.claim_next(owner)?,
        };
        self.get_name(claimed, who)
    }

    fn claim_at(&self, index: usize, owner: u64) -> Result<ClaimedIndex<Sh>, RegisterError> {
        let refused = RegisterError::IndexInUse { index };
        let at = self.index(index).ok_or(refused)?;
        match self.claim(at, owner) {
            Ok(claim) => Ok(ClaimedIndex { index: at, claim }),
            Err(ClaimError::InUse) => Err(refused),
            Err(ClaimError::UsedUp) => Err(RegisterError::IndexUsedUp { index }),
        }
    }

    fn claim_next(&self, owner: u64) -> Result<ClaimedIndex<Sh>, RegisterError> {
        let mut used_up = 0;
        for index in self.indices_in_turn() {
            match self.claim(index, owner) {
                Ok(claim) => {
                    self.set_last_claimed(index);
                    return Ok(ClaimedIndex { index, claim });
                }
                Err(ClaimError::UsedUp) => used_up += 1,
                Err(ClaimError::InUse) => {}
            }
        }
        Err(RegisterError::NoFreeIndex { kernels: self.shape().producers(), used_up })
    }

    /// A first look, so that no index is claimed for a name that is in use: each claim uses up a generation.
    /// An index that is asked for is left out: if anybody is there, it is in use, whatever the name.
    fn look_for_name(&self, who: &Registration) -> Result<(), RegisterError> {
        let mut others = self.statuses().filter(|(id, _)| who.index != Some(id.index()));
        let has_it = |id| self.is_registered(id) && self.name(id) == Some(who.name);
        others.find(|(id, _)| has_it(*id)).map_or(Ok(()), |(by, _)| Err(RegisterError::NameInUse { by }))
    }

    /// Makes the name of a claimed index its own, or gives the index back. See the page of the kernel table.
    fn get_name(&self, mut claimed: ClaimedIndex<Sh>, who: &Registration) -> Result<ClaimedIndex<Sh>, RegisterError> {
        let index = claimed.index;
        let entry = self.entry(index);
        self.routes().clear(index);
        let mut refused = RegisterError::IndexInUse { index: index.number() };
        for _ in 0..NAME_TRIES {
            entry.ask_for(&mut claimed.claim, &who.name);
            if let Some(by) = self.contest(index, &who.name) {
                refused = RegisterError::NameInUse { by };
                break;
            }
            if entry.take_name(&mut claimed.claim) {
                return Ok(claimed);
            }
            if !entry.stop_asking(&mut claimed.claim) {
                break;
            }
        }
        entry.stop_asking(&mut claimed.claim);
        self.give_back(claimed);
        Err(refused)
    }

    /// The kernel that is in the way of the one that asks for a name at `place`.
    fn contest(&self, index: Index<Sh>, name: &Name) -> Option<KernelId> {
        self.shape().indices().filter(|other| *other != index).find_map(|other| {
            let generation = self.entry(other).contests(name, other.number() < index.number())?;
            Some(KernelId::new(other.number() as u16, generation))
        })
    }

    /// Claims a kernel index that has sequences left for its next owner's messages.
    fn claim(&self, index: Index<Sh>, owner: u64) -> Result<Claim, ClaimError> {
        let sent = self.entry(index).counters()[Counter::Sent as usize];
        let has_sequences = self.receipts(index).base().checked_add(sent).is_some_and(|last| last <= LAST_TO_START);
        if has_sequences { self.entry(index).claim(owner) } else { Err(ClaimError::UsedUp) }
    }

    /// Frees an index that was claimed and not opened.
    pub(crate) fn give_back(&self, claimed: ClaimedIndex<Sh>) {
        self.entry(claimed.index).finish_leave(&claimed.claim, Status::Free);
    }

    /// For a model: claims a free index, and dies. Returns whether it got there.
    #[cfg(k2k_loom)]
    pub fn claim_and_die(&self, index: usize, owner: u64) -> bool {
        self.claim_at(index, owner).is_ok()
    }

    /// Takes over the endpoint of a kernel that died without unregistering, and goes on where it stopped: mail that
    /// waits is received, transit traffic moves on. One that died while it registered or left is found as well; nobody
    /// can send to it, and dropping what this returns frees its index.
    ///
    /// # Errors
    /// [`RegisterError::IndexInUse`] if `id` is not there.
    ///
    /// # Safety
    /// The endpoint that registered as `id` is not used any more, in any process, and `id` is taken over once.
    pub unsafe fn take_over<P: Platform>(&self, id: KernelId, platform: P) -> Result<Endpoint<'f, P, Sh>, RegisterError>
    where
        Sh::Scope: ReachesHere,
    {
        let claimed = self
            .index(id.index())
            .and_then(|index| {
                Some(ClaimedIndex { index, claim: self.entry(index).take_over(id.generation(), platform.owner())? })
            })
            .ok_or(RegisterError::IndexInUse { index: id.index() })?;
        // SAFETY: the caller vouches that this producer is dead.
        Ok(unsafe { self.succeed(claimed, platform) })
    }

    /// Takes an index away from its owner, which is dead, at whichever step of registering, working or leaving it died:
    /// see [`owners`](Self::owners). The endpoint that is returned has a new address, at which nobody can send to it;
    /// dropping it ends the mail of the dead kernel in `NotFound`, passes transit traffic on, and frees the index.
    ///
    /// An owner that was taken for dead and is not finds that it is [evicted](Endpoint::is_evicted).
    ///
    /// # Errors
    /// [`RegisterError::IndexInUse`] if `dead` does not own the index (any more).
    ///
    /// # Safety
    /// No thread of the owner is in the middle of an operation of the endpoint that has the index.
    pub unsafe fn seize<P: Platform>(
        &self,
        index: usize,
        dead: u64,
        platform: P,
    ) -> Result<Endpoint<'f, P, Sh>, RegisterError>
    where
        Sh::Scope: ReachesHere,
    {
        let claimed = self
            .index(index)
            .and_then(|index| Some(ClaimedIndex { index, claim: self.entry(index).seize(dead, platform.owner())? }))
            .ok_or(RegisterError::IndexInUse { index })?;
        // SAFETY: the caller vouches that this producer is dead.
        Ok(unsafe { self.succeed(claimed, platform) })
    }

    /// The endpoint of a kernel that goes on in the place of a dead one.
    ///
    /// # Safety
    /// The dead kernel writes to no slot any more.
    unsafe fn succeed<P: Platform>(&self, claimed: ClaimedIndex<Sh>, platform: P) -> Endpoint<'f, P, Sh>
    where
        Sh::Scope: ReachesHere,
    {
        let index = claimed.index;
        let mut at = MaybeUninit::uninit();
        let successor = Endpoint::recover(&mut at, *self, platform, claimed);
        successor.finish_predecessor();
        successor.settle_outstanding();
        for inbox in self.shape().indices() {
            // SAFETY: the caller's promise.
            unsafe { self.high(inbox).reclaim(index.number() as u16) };
        }
        successor.wake_receivers();
        // SAFETY: `recover` has initialised it.
        unsafe { at.assume_init() }
    }
}

impl<'f, P: Platform, Sh: Shape> Endpoint<'f, P, Sh> {
    /// An endpoint for an index that is already this caller's, going on where the last owner stopped.
    fn recover<'e>(
        memory: &'e mut MaybeUninit<Self>,
        fabric: FabricRef<'f, Sh>,
        platform: P,
        ClaimedIndex { index, claim }: ClaimedIndex<Sh>,
    ) -> &'e mut Self {
        let config = fabric.config();
        let me = Member::new(fabric, index, claim);
        let (entry, receipts) = (me.entry(), fabric.receipts(index));
        let (counts, base) = (entry.counters(), receipts.base());
        let sent = counts[Counter::Sent as usize];
        let last = if sent == 0 { None } else { Some(base.wrapping_add(sent)) };
        make_in!(memory, Self {
            outbox => |outbox| Outbox::recover_in(outbox, &me, &config),
            inbox => |inbox| Inbox::recover_in(inbox, &me),
            deferred => |deferred| Deferred::recover_in(deferred, &me),
            ledger => |ledger| Ledger::recover_in(ledger, fabric.hand(index), entry, counts, base),
            own: OwnReceipts::recover(last, receipts.capacity()),
            control: Control::new(entry.heartbeat()),
            clock: Clock::new(config.max_clock_offset_ns),
            config: config,
            platform: platform,
            member: me,
        })
    }

    /// The predecessor may have died between a message and the wake-up of its receiver.
    #[cold]
    #[inline(never)]
    fn wake_receivers(&self) {
        for entry in self.member.fabric().entries() {
            let state = entry.state();
            entry.wake(state.parks && state.status == Some(Status::Registered), &self.platform);
        }
    }

    /// Opens an index that was claimed, and has its name.
    #[cold]
    #[inline(never)]
    pub(crate) fn open<'e>(
        memory: &'e mut MaybeUninit<Self>,
        fabric: FabricRef<'f, Sh>,
        platform: P,
        claimed: ClaimedIndex<Sh>,
        who: &Registration,
    ) -> &'e mut Self {
        let endpoint = Self::recover(memory, fabric, platform, claimed);
        // Mail that senders put here after the last owner had left. It is for that owner, and ends in `NotFound`.
        endpoint.throw_out_mail();
        // Messages of earlier owners that nobody has settled, or an onlooker, whose verdict nobody has counted.
        endpoint.expire();
        endpoint.member.finish_register(who.parks);
        endpoint
    }

    /// Leaves. Mail for this kernel ends in `NotFound`, transit traffic moves on as far as there is room.
    pub fn unregister(self) {
        drop(self);
    }

    #[cold]
    #[inline(never)]
    pub(super) fn leave(&mut self, then: Status) {
        // A panic of the platform may have cut an operation in two.
        if self.may_write() {
            self.finish_predecessor();
            if then != Status::Leaving {
                self.settle_outstanding();
            }
        }
        self.expire();
        // An index that was taken away is left to its new owner.
        if !self.member.begin_leave() {
            return;
        }
        self.throw_out_mail();
        if then != Status::Leaving {
            self.member.finish_leave(then);
        }
    }

    /// Empties the inbox and the transit store: mail for this index ends in `NotFound`, the rest is passed on, or ends
    /// in `QueueFull`. What a slow sender puts here later is found by the next owner.
    #[cold]
    #[inline(never)]
    fn throw_out_mail(&mut self) {
        let mut memory = MaybeUninit::uninit();
        let message = zeroed_in(&mut memory);
        self.flush_all();
        // As many as an inbox and its store hold, so that busy senders cannot keep this kernel from leaving.
        let shape = self.member.fabric().shape();
        for _ in 0..(shape.producers() + 2) * shape.slots() {
            if self.take(message) {
                self.pass_over(message);
                continue;
            }
            // A sender has claimed a slot and not published it. It may be dead, and nobody may come after this kernel: what
            // lies behind is not to wait. One that lives is refused when it tries again.
            if !self.inbox.revoke_stalled(&self.member) {
                break;
            }
        }
        self.flush_all();
        for position in self.deferred.positions() {
            if !self.deferred.get(&self.member, position, message) {
                continue;
            }
            self.ledger.take(message.header().source_index, message.header().sequence);
            if self.member.fabric().index(message.header().source().index()).is_some() {
                self.settle_deferred(message.header(), DeliveryStatus::QueueFull, Some(position));
            } else {
                self.deferred.remove(&self.member, Some(position));
                self.ledger.count(Counter::Corrupt);
            }
        }
        self.deferred.forget_all();
        self.inbox.publish_all(&self.member);
    }
}

impl<P: Platform, Sh: Shape> Drop for Endpoint<'_, P, Sh> {
    fn drop(&mut self) {
        // A forked process drops a copy; the kernel stays the parent's.
        if !self.platform.is_here() {
            return;
        }
        self.leave(self.control.leave_as());
    }
}

#[cfg(test)]
#[cfg(not(k2k_loom))]
mod tests {
    use super::*;
    use crate::fabric::{Config, Fabric};

    struct Still;
    impl Platform for Still {
        fn now_ns(&self) -> u64 {
            1
        }
        fn wake(&self, _: &crate::WakeFlag) {}
    }

    #[test]
    fn an_index_can_be_taken_over_whenever_its_owner_died() {
        // SAFETY: all zero is a valid, idle fabric.
        let fabric: Fabric<3, 4, 64> = unsafe { core::mem::zeroed() };
        fabric.init(&Config::default()).unwrap();
        let [a, b, c, who] = ["a", "b", "c", "d"].map(|name| Registration::new(name).unwrap());
        // While it registered, while it left, and in between.
        let claimed = fabric.handle().claim_index(&a, 1).unwrap();
        let registering = KernelId::new(claimed.index.number() as u16, claimed.claim.generation);
        let mut leaving = fabric.register(&b, Still).unwrap();
        leaving.close();
        let registered = fabric.register(&c, Still).unwrap();
        for id in [registering, leaving.id(), registered.id()] {
            // SAFETY: nobody uses it any more.
            drop(unsafe { fabric.take_over(id, Still) }.unwrap());
            // SAFETY: as above.
            assert!(unsafe { fabric.take_over(id, Still) }.is_err());
            assert!(fabric.register(&who.at(id.index()), Still).is_ok());
        }
        core::mem::forget((leaving, registered));
    }

    /// Of two senders of high priority one dies between its claim and its message, and the receiver leaves at once.
    #[test]
    fn mail_behind_a_dead_senders_claim_ends_when_its_receiver_leaves() {
        // SAFETY: all zero is a valid, idle fabric.
        let fabric: Fabric<4, 8, 64> = unsafe { core::mem::zeroed() };
        fabric.init(&Config::default()).unwrap();
        let [mut a, b] = ["a", "b"].map(|name| fabric.register(&Registration::new(name).unwrap(), Still).unwrap());
        let mut dead = fabric.inboxes[b.member.index()].high.producer(3);
        core::mem::forget(dead.claim().unwrap());
        let sent = a.send_priority(b.id(), &crate::Message::new(7), crate::Priority::High).unwrap();
        drop(b);
        assert_eq!(fabric.pending(), 0, "nobody need come after it");
        assert_eq!(a.receipt(sent).unwrap().status, DeliveryStatus::NotFound);
    }

    #[test]
    fn an_index_that_is_given_back_can_be_claimed_again() {
        // SAFETY: all zero is a valid, idle fabric.
        let fabric: Fabric<2, 4, 64> = unsafe { core::mem::zeroed() };
        fabric.init(&Config::default()).unwrap();
        let [a, b, c] = ["a", "b", "c"].map(|name| Registration::new(name).unwrap());
        let first = fabric.handle().claim_index(&a, 1).unwrap();
        fabric.handle().claim_index(&b, 1).unwrap();
        assert_eq!(
            fabric.handle().claim_index(&c, 1).unwrap_err(),
            RegisterError::NoFreeIndex { kernels: 2, used_up: 0 }
        );
        fabric.handle().give_back(first);
        assert_eq!(fabric.handle().claim_index(&c, 1).unwrap().index().number(), 0);
    }
}
