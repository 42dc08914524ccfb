//! Taking a place and leaving it.

use super::Endpoint;
use crate::fabric::{Counter, DeliveryStatus, Fabric, Name, NameError, Phase, Receipts, Status};
use crate::hlc::Clock;
use crate::message::KernelId;
use crate::place::Place;
use crate::platform::Platform;
use crate::ring::lanes::LanesState;
use crate::ring::ticket::TicketConsumerState;
use crate::sync::{ReachesHere, Scope, zeroed_in};
use core::fmt;
use core::mem::MaybeUninit;

/// How a kernel registers.
#[derive(Clone, Copy, Debug)]
pub struct Register {
    name: Name,
    parks: bool,
}

impl Register {
    /// Under this name.
    ///
    /// # Errors
    /// [`NameError`] unless the name has 1 to 32 bytes.
    pub fn new(name: &str) -> Result<Self, NameError> {
        Ok(Self { name: Name::new(name)?, parks: false })
    }

    /// As a kernel that may sleep when its inbox is empty. Everyone who sends to it then pays for a fence per message,
    /// which is why it must be known from the start.
    #[must_use]
    pub const fn parking(mut self) -> Self {
        self.parks = true;
        self
    }
}

/// Why a kernel could not register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegisterError {
    /// All places are taken.
    NoPlace {
        /// Places there are.
        kernels: usize,
    },
    /// A kernel of that name is registered.
    NameTaken {
        /// Its address.
        by: KernelId,
    },
    /// The place that was asked for is taken.
    PlaceTaken {
        /// Its index.
        index: usize,
    },
}

impl fmt::Display for RegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPlace { kernels } => write!(
                f,
                "all {kernels} places of the fabric are taken: unregister a kernel, clear a failed one, or use a fabric \
                 with more KERNELS"
            ),
            Self::NameTaken { by } => {
                write!(f, "the name is taken by {by}: unregister it first or choose another name")
            }
            Self::PlaceTaken { index } => write!(f, "place {index} does not exist or is taken"),
        }
    }
}

impl core::error::Error for RegisterError {}

impl<const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize, S: Scope> Fabric<KERNELS, SLOTS, PAYLOAD, S> {
    /// Takes the first free place and opens it for mail.
    ///
    /// # Errors
    /// [`RegisterError::NameTaken`] if a registered kernel has the name, [`RegisterError::NoPlace`] if all are taken.
    pub fn register<L: Platform>(
        &self,
        who: &Register,
        platform: L,
    ) -> Result<Endpoint<'_, L, KERNELS, SLOTS, PAYLOAD, S>, RegisterError>
    where
        S: ReachesHere,
    {
        if let Some(by) = self.find_named(&who.name) {
            return Err(RegisterError::NameTaken { by });
        }
        let (place, generation) = Place::all()
            .find_map(|place| Some((place, self.kernels[place].begin_register()?)))
            .ok_or(RegisterError::NoPlace { kernels: KERNELS })?;
        Ok(Endpoint::open(self, platform, place, generation, who))
    }

    /// Takes a certain place.
    ///
    /// # Errors
    /// [`RegisterError::PlaceTaken`] unless it is free.
    pub fn register_at<L: Platform>(
        &self,
        index: usize,
        who: &Register,
        platform: L,
    ) -> Result<Endpoint<'_, L, KERNELS, SLOTS, PAYLOAD, S>, RegisterError>
    where
        S: ReachesHere,
    {
        let taken = RegisterError::PlaceTaken { index };
        let place = Place::new(index).ok_or(taken)?;
        let generation = self.kernels[place].begin_register().ok_or(taken)?;
        Ok(Endpoint::open(self, platform, place, generation, who))
    }

    /// Takes over the endpoint of a kernel that died without unregistering, and goes on where it stopped: mail that waits
    /// is received, transit traffic moves on.
    ///
    /// # Errors
    /// [`RegisterError::PlaceTaken`] if `id` is not registered.
    ///
    /// # Safety
    /// The endpoint that registered as `id` is not used any more, in any process.
    pub unsafe fn take_over<L: Platform>(
        &self,
        id: KernelId,
        platform: L,
    ) -> Result<Endpoint<'_, L, KERNELS, SLOTS, PAYLOAD, S>, RegisterError>
    where
        S: ReachesHere,
    {
        let place = Place::new(id.index())
            .filter(|&place| self.kernels[place].is_registered(id).is_some())
            .ok_or(RegisterError::PlaceTaken { index: id.index() })?;
        for inbox in &self.inboxes {
            // SAFETY: the caller vouches that this producer is dead, so it writes to no slot any more.
            unsafe { inbox.high.reclaim(id.index() as u16) };
        }
        Ok(Endpoint::recover(self, platform, place, id.generation()))
    }
}

impl<'f, L: Platform, const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize, S: Scope>
    Endpoint<'f, L, KERNELS, SLOTS, PAYLOAD, S>
{
    /// An endpoint for a place that is already this caller's, going on where the last owner stopped.
    fn recover(
        fabric: &'f Fabric<KERNELS, SLOTS, PAYLOAD, S>,
        platform: L,
        me: Place<KERNELS>,
        generation: u16,
    ) -> Self {
        let config = fabric.config();
        let transit = fabric.transit[me].recover();
        let counts = fabric.kernels[me].counters();
        let mut parked = [0; KERNELS];
        for next_hop in transit.positions().filter_map(|p| fabric.transit[me].next_hop(p)) {
            if let Some(count) = parked.get_mut(next_hop) {
                *count += 1;
            }
        }
        Self {
            fabric,
            platform,
            id: KernelId::new(me.index() as u16, generation),
            place: me,
            lanes_out: fabric.inboxes.each_ref().map(|inbox| inbox.lanes.recover_producer(me)),
            lanes_in: LanesState::recover(&fabric.inboxes[me].lanes),
            high_in: TicketConsumerState::recover(&fabric.inboxes[me].high),
            high_run: 0,
            stalled: None,
            held: bytemuck::Zeroable::zeroed(),
            holds: false,
            transit,
            parked,
            flushed: false,
            clock: Clock::new(config.max_clock_offset_ns),
            config,
            counts,
            unresolved: 1,
            // What a predecessor has given up; a place that has never sent has none.
            retract_until: match counts[Counter::Sent as usize] {
                0 => 0,
                sent => sent.saturating_add(Receipts::<KERNELS, SLOTS, S>::CAPACITY),
            },
            beats: fabric.kernels[me].heartbeat(),
            stopping: false,
            leave_as: Status::Free,
            turns: 0,
        }
    }

    /// Opens a place that `begin_register` has taken.
    #[cold]
    #[inline(never)]
    fn open(
        fabric: &'f Fabric<KERNELS, SLOTS, PAYLOAD, S>,
        platform: L,
        place: Place<KERNELS>,
        generation: u16,
        who: &Register,
    ) -> Self {
        let mut endpoint = Self::recover(fabric, platform, place, generation);
        // Mail that senders put here after the last owner had left. It is for that owner, and ends in `NotFound`.
        endpoint.throw_out_mail();
        fabric.routes.clear(place);
        fabric.kernels[place].finish_register(generation, &who.name, who.parks);
        endpoint
    }

    /// Leaves. Mail for this kernel ends in `NotFound`, transit traffic moves on as far as there is room.
    pub fn unregister(self) {
        drop(self);
    }

    /// Leaves as failed: the place stays taken, with its trace, until it is [cleared](Fabric::clear_failed).
    pub fn fail(mut self) {
        self.set_phase(Phase::Failed);
        self.leave_as = Status::Failed;
    }

    #[cold]
    #[inline(never)]
    pub(super) fn leave(&mut self, then: Status) {
        let entry = &self.fabric.kernels[self.place];
        entry.set_status(self.id.generation(), Status::Leaving);
        self.throw_out_mail();
        entry.set_status(self.id.generation(), then);
    }

    /// Empties the inbox and the transit store: mail for this place ends in `NotFound`, the rest is passed on, or ends in
    /// `QueueFull`. What a slow sender puts here later is found by the next owner.
    #[cold]
    #[inline(never)]
    fn throw_out_mail(&mut self) {
        let inbox = &self.fabric.inboxes[self.place];
        // As many as an inbox and its store hold, so that busy senders cannot keep this kernel from leaving.
        let mut place = MaybeUninit::uninit();
        let message = zeroed_in(&mut place);
        for _ in 0..(KERNELS + 2) * SLOTS {
            if !self.take(message) {
                break;
            }
            self.pass_over(message);
        }
        self.flush_transit();
        let store = &self.fabric.transit[self.place];
        for position in self.transit.positions() {
            if store.next_hop(position).is_some() {
                let header = store.header(position);
                store.remove(&mut self.transit, position);
                if header.source().index() < KERNELS {
                    self.end(&header, DeliveryStatus::QueueFull);
                } else {
                    self.count(Counter::Corrupt);
                }
            }
        }
        self.parked = [0; KERNELS];
        self.lanes_in.publish(&inbox.lanes);
        self.high_in.publish(&inbox.high);
    }
}

impl<L: Platform, const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize, S: Scope> Drop
    for Endpoint<'_, L, KERNELS, SLOTS, PAYLOAD, S>
{
    fn drop(&mut self) {
        self.leave(self.leave_as);
    }
}
