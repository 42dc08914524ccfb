//! The handler of a tile. It never blocks: [`on_message`](Kernel::on_message) puts what has come into its place,
//! [`on_idle`](Kernel::on_idle) does the next thing that can be done, one iteration at most.
//!
//! ```text
//!   Waiting --START--> Exchanging --last iteration--> Confirming --all delivered--> Reporting --sent--> Finished
//!      |                   |  ^  |                        |                                                |
//!      |                   |  +--+ next iteration         |                                             FINISH
//!      +-------------------+--- failure ------------------+--> Failing --told everybody--> stop         stop
//! ```

use crate::diffusion::{Params, Stencil};
use crate::protocol::{ABORT, FINISH, HALO, Outcome, REPORT, Report, START, Start};
use crate::shape::{Cells, Shape, Side};
use core::fmt;
use k2k_core::{Context, DeliveryStatus, Idle, Kernel, KernelId, Message, MessageId, SendError};

/// The memory lent to a tile has the wrong length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StorageError {
    /// Values lent.
    pub found: usize,
    /// Values needed.
    pub expected: usize,
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the storage of a tile of this shape has {} values, not {}", self.expected, self.found)
    }
}

impl core::error::Error for StorageError {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// For START.
    Waiting,
    /// Of halos.
    Exchanging,
    /// That the last halos were delivered.
    Confirming,
    /// To the controller.
    Reporting,
    /// For FINISH.
    Finished,
    /// Telling the neighbours and the controller.
    Failing,
}

/// What is exchanged with the neighbour on one side.
#[derive(Clone, Copy, Debug)]
struct Link {
    /// Nobody where the picture ends, and before anything is known.
    neighbour: KernelId,
    /// Values of this iteration's border that have gone.
    sent: usize,
    /// Values of the frame that have come, for the even and the odd iterations.
    arrived: [usize; 2],
    /// Whether, after a failure, the neighbour still has to be told.
    untold: bool,
}

/// A rectangle of the picture: its pixels, and what it needs to bring them through all iterations.
///
/// `S` is the memory of [`Shape::storage_len`] values: `&mut [f32]`, or anything that owns a slice.
#[derive(Debug)]
pub struct Tile<S> {
    storage: S,
    shape: Shape,
    phase: Phase,
    outcome: Option<Outcome>,
    controller: KernelId,
    links: [Link; 4],
    iteration: u32,
    iterations: u32,
    stencil: Stencil,
    patience_ns: u64,
    /// When nothing was found to be done for the first time since something was.
    idle_since_ns: Option<u64>,
    /// Sequence of the last halo sent, and of the last one known to be delivered.
    last_sent: u64,
    confirmed: u64,
    sent: u64,
    received: u64,
    retries: u64,
}

impl<S: AsRef<[f32]>> Tile<S> {
    /// A tile whose pixels have been [loaded](Shape::load) into `storage`.
    ///
    /// # Errors
    /// [`StorageError`] if `storage` has not exactly the length that the shape needs.
    pub fn new(storage: S, shape: Shape) -> Result<Self, StorageError> {
        let (found, expected) = (storage.as_ref().len(), shape.storage_len());
        if found != expected {
            return Err(StorageError { found, expected });
        }
        Ok(Self {
            storage,
            shape,
            phase: Phase::Waiting,
            outcome: None,
            controller: KernelId::NONE,
            links: [Link { neighbour: KernelId::NONE, sent: 0, arrived: [0; 2], untold: false }; 4],
            iteration: 0,
            iterations: 0,
            stencil: Stencil::IDLE,
            patience_ns: u64::MAX,
            idle_since_ns: None,
            last_sent: 0,
            confirmed: 0,
            sent: 0,
            received: 0,
            retries: 0,
        })
    }

    /// Gives the storage back; [`Shape::unload`] takes the pixels out of it.
    #[must_use]
    pub fn into_storage(self) -> S {
        self.storage
    }
}

impl<S> Tile<S> {
    /// How it ended, once it has.
    #[must_use]
    pub const fn outcome(&self) -> Option<Outcome> {
        self.outcome
    }

    /// Iterations done.
    #[must_use]
    pub const fn iteration(&self) -> u32 {
        self.iteration
    }

    fn fail(&mut self, outcome: Outcome) {
        if !matches!(self.phase, Phase::Failing | Phase::Finished) {
            self.phase = Phase::Failing;
            self.outcome = Some(outcome);
            for link in &mut self.links {
                link.untold = !link.neighbour.is_none();
            }
        }
    }

    fn on_start_message<const PAYLOAD: usize>(&mut self, message: &Message<PAYLOAD>) {
        let controller = message.header.source();
        // An unknown controller is told of the failure; a known one must not lose its place to a stranger.
        if self.phase != Phase::Waiting {
            if controller == self.controller {
                self.fail(Outcome::BadStart);
            }
            return;
        }
        self.controller = controller;
        let Ok(start) = message.value::<Start>() else { return self.fail(Outcome::BadStart) };
        let Ok(params) = Params::new(start.iterations, start.kappa, start.lambda) else {
            return self.fail(Outcome::BadStart);
        };
        for (link, raw) in self.links.iter_mut().zip(start.neighbours) {
            let neighbour = KernelId::from_raw(raw);
            // Someone else may have written already.
            if !link.neighbour.is_none() && link.neighbour != neighbour {
                return self.fail(Outcome::BadStart);
            }
            link.neighbour = neighbour;
        }
        self.iterations = params.iterations();
        self.stencil = params.stencil();
        self.patience_ns = start.patience_ns;
        self.phase = if self.iterations == 0 { Phase::Confirming } else { Phase::Exchanging };
    }

    /// Told by anybody else, it does not count.
    fn is_neighbour(&self, id: KernelId) -> bool {
        self.links.iter().any(|link| link.neighbour == id)
    }

    fn report(&self) -> Report {
        let outcome = self.outcome.unwrap_or(Outcome::Stopped);
        Report::new(outcome, self.iteration, self.sent, self.received, self.retries)
    }
}

impl<S: AsRef<[f32]> + AsMut<[f32]>> Tile<S> {
    fn on_halo_message<const PAYLOAD: usize>(&mut self, message: &Message<PAYLOAD>) {
        let header = &message.header;
        let Some(side) = Side::from_number(header.flags) else { return self.fail(Outcome::BadHalo) };
        let link = &mut self.links[side.index()];
        if self.phase == Phase::Waiting && link.neighbour.is_none() {
            // A neighbour that was started earlier. START will tell whether it is the right one.
            link.neighbour = header.source();
        }
        if link.neighbour != header.source() {
            return;
        }
        let iteration = (header.correlation_id >> 32) as u32;
        let first = header.correlation_id as u32 as usize;
        let (values, rest) = message.payload().as_chunks::<4>();
        let arrived = &mut link.arrived[(iteration % 2) as usize];
        // In order, without gaps and within the border; of this iteration or the next, but none after the last.
        let ahead = iteration.wrapping_sub(self.iteration);
        let expected = first == *arrived
            && rest.is_empty()
            && values.len() <= self.shape.border_len(side) - first
            && ahead <= 1
            && (iteration < self.iterations || self.phase == Phase::Waiting);
        if !expected {
            return self.fail(Outcome::BadHalo);
        }
        *arrived += values.len();
        self.received += 1;
        let storage = self.storage.as_mut();
        for (value, position) in values.iter().zip(self.shape.border(side, Cells::Frame, iteration, first)) {
            if let Some(cell) = storage.get_mut(position) {
                *cell = f32::from_le_bytes(*value);
            }
        }
    }

    /// Sends as much of the borders as there is room for; `Ok(true)` if anything went.
    fn send_borders<const PAYLOAD: usize>(&mut self, context: &mut impl Context<PAYLOAD>) -> Result<bool, Outcome> {
        let mut progress = false;
        for side in Side::ALL {
            let len = self.shape.border_len(side);
            while !self.links[side.index()].neighbour.is_none() && self.links[side.index()].sent < len {
                if !self.send_border(context, side)? {
                    break;
                }
                progress = true;
            }
        }
        Ok(progress)
    }

    /// Sends the next message of a border; `Ok(false)` if there was no room.
    #[inline(never)]
    fn send_border<const PAYLOAD: usize>(
        &mut self,
        context: &mut impl Context<PAYLOAD>,
        side: Side,
    ) -> Result<bool, Outcome> {
        const { assert!(PAYLOAD >= 4, "a message must hold at least one value") };
        let link = &mut self.links[side.index()];
        let storage = self.storage.as_ref();
        let count = (PAYLOAD / 4).min(self.shape.border_len(side) - link.sent);
        let positions = self.shape.border(side, Cells::Own, self.iteration, link.sent);
        let mut message = Message::<PAYLOAD>::new(HALO);
        message.header.flags = side.opposite() as u8;
        message.header.correlation_id = u64::from(self.iteration) << 32 | link.sent as u64;
        // `count` chunks are not longer than a payload: it does not fail.
        let (chunks, _) = message.payload_mut(count * 4).unwrap_or(&mut []).as_chunks_mut::<4>();
        for (chunk, position) in chunks.iter_mut().zip(positions) {
            *chunk = storage.get(position).copied().unwrap_or(0.0).to_le_bytes();
        }
        match context.send(link.neighbour, &message) {
            Ok(id) => {
                if self.last_sent == 0 {
                    // An index's count goes on where its last owner stopped.
                    self.confirmed = id.sequence - 1;
                }
                self.last_sent = id.sequence;
                link.sent += count;
                self.sent += 1;
                Ok(true)
            }
            Err(SendError::QueueFull { .. }) => {
                self.retries += 1;
                Ok(false)
            }
            Err(e) => Err(Outcome::Undelivered(e.status().unwrap_or(DeliveryStatus::NotFound))),
        }
    }

    /// Looks what became of the halos that were sent; `Ok(true)` if all were delivered.
    fn confirm<const PAYLOAD: usize>(&mut self, context: &mut impl Context<PAYLOAD>) -> Result<bool, Outcome> {
        while self.confirmed < self.last_sent {
            let id = MessageId { source: context.id(), sequence: self.confirmed + 1 };
            // A receipt that was overwritten tells nothing any more. Should that halo have been lost, its receiver runs
            // out of patience.
            match context.receipt(id).map_or(DeliveryStatus::Delivered, |receipt| receipt.status) {
                DeliveryStatus::Delivered => self.confirmed += 1,
                DeliveryStatus::Pending => return Ok(false),
                status => return Err(Outcome::Undelivered(status)),
            }
        }
        Ok(true)
    }

    /// Whether this iteration's borders have gone.
    fn is_sent(&self) -> bool {
        Side::ALL
            .iter()
            .zip(&self.links)
            .all(|(side, link)| link.neighbour.is_none() || link.sent == self.shape.border_len(*side))
    }

    /// Whether this iteration's borders have gone and its frame is complete.
    fn is_exchanged(&self) -> bool {
        let arrived = |link: &Link| link.arrived[(self.iteration % 2) as usize];
        let has_arrived =
            |(side, link): (&Side, &Link)| link.neighbour.is_none() || arrived(link) == self.shape.border_len(*side);
        self.is_sent() && Side::ALL.iter().zip(&self.links).all(has_arrived)
    }

    fn compute(&mut self) {
        let storage = self.storage.as_mut();
        for (side, link) in Side::ALL.into_iter().zip(&mut self.links) {
            link.sent = 0;
            link.arrived[(self.iteration % 2) as usize] = 0;
            if link.neighbour.is_none() {
                // The picture ends here: the frame mirrors the border, so that nothing flows.
                let own = self.shape.border(side, Cells::Own, self.iteration, 0);
                let frame = self.shape.border(side, Cells::Frame, self.iteration, 0);
                for (own, frame) in own.zip(frame).take(self.shape.border_len(side)) {
                    let value = storage.get(own).copied().unwrap_or(0.0);
                    if let Some(cell) = storage.get_mut(frame) {
                        *cell = value;
                    }
                }
            }
        }
        if let Some((even, odd)) = storage.split_at_mut_checked(self.shape.buffer_len()) {
            let (current, next) = if self.iteration.is_multiple_of(2) { (&*even, odd) } else { (&*odd, even) };
            // At least 9; said this way, no path to a panic is compiled.
            let len = self.shape.plane_len().max(1);
            for (current, next) in current.chunks_exact(len).zip(next.chunks_exact_mut(len)) {
                self.stencil.step(current, next, self.shape.stride());
            }
        }
        self.iteration += 1;
    }

    /// The next thing to do; `Ok(true)` if something was done.
    fn advance<const PAYLOAD: usize>(&mut self, context: &mut impl Context<PAYLOAD>) -> Result<bool, Outcome> {
        match self.phase {
            Phase::Waiting | Phase::Finished => Ok(false),
            Phase::Exchanging => {
                let sent = self.send_borders(context)?;
                self.confirm(context)?;
                if !self.is_exchanged() {
                    return Ok(sent);
                }
                self.compute();
                if self.iteration == self.iterations {
                    self.phase = Phase::Confirming;
                }
                Ok(true)
            }
            Phase::Confirming => {
                let confirmed = self.confirm(context)?;
                if confirmed {
                    self.outcome = Some(Outcome::Done);
                    self.phase = Phase::Reporting;
                }
                Ok(confirmed)
            }
            Phase::Reporting => {
                let reported = self.tell_controller(context);
                if reported {
                    self.phase = Phase::Finished;
                }
                Ok(reported)
            }
            Phase::Failing => {
                let done = self.tell_neighbours(context) && self.tell_controller(context);
                if done {
                    context.stop();
                }
                Ok(done)
            }
        }
    }

    /// `true` if all neighbours know of the failure, or have left.
    #[cold]
    #[inline(never)]
    fn tell_neighbours<const PAYLOAD: usize>(&mut self, context: &mut impl Context<PAYLOAD>) -> bool {
        let abort = Message::new(ABORT);
        let mut told = true;
        for link in &mut self.links {
            // A neighbour that is full is tried again; one that has left need not be told.
            link.untold =
                link.untold && matches!(context.send(link.neighbour, &abort), Err(SendError::QueueFull { .. }));
            told &= !link.untold;
        }
        told
    }

    /// `true` if the controller has its report, or is not there to have one.
    #[cold]
    #[inline(never)]
    fn tell_controller<const PAYLOAD: usize>(&self, context: &mut impl Context<PAYLOAD>) -> bool {
        let report = Message::from_value(REPORT, &self.report());
        !matches!(context.send(self.controller, &report), Err(SendError::QueueFull { .. }))
    }
}

impl<S: AsRef<[f32]> + AsMut<[f32]>, const PAYLOAD: usize> Kernel<PAYLOAD> for Tile<S> {
    fn on_message(&mut self, context: &mut impl Context<PAYLOAD>, message: &Message<PAYLOAD>) {
        self.idle_since_ns = None;
        let source = message.header.source();
        match message.header.kind {
            HALO => self.on_halo_message(message),
            START => self.on_start_message(message),
            FINISH if self.controller.is_none() || self.controller == source => context.stop(),
            ABORT if self.is_neighbour(source) => self.fail(Outcome::NeighbourFailed),
            // Not for a tile, or not from one that has a say.
            _ => {}
        }
    }

    fn on_idle(&mut self, context: &mut impl Context<PAYLOAD>) -> Idle {
        match self.advance(context) {
            Ok(true) => {
                self.idle_since_ns = None;
                return Idle::Again;
            }
            Ok(false) => {}
            Err(outcome) => {
                self.fail(outcome);
                return Idle::Again;
            }
        }
        if matches!(self.phase, Phase::Waiting | Phase::Finished) {
            // For the controller. The supervisor's stop word ends that.
            return Idle::Done;
        }
        let now_ns = context.now_ns();
        let since_ns = *self.idle_since_ns.get_or_insert(now_ns);
        if now_ns.saturating_sub(since_ns) > self.patience_ns {
            if self.phase == Phase::Failing {
                // Nobody listens.
                context.stop();
            } else {
                self.fail(Outcome::Stalled);
                self.idle_since_ns = None;
            }
        }
        // Halos ring. Room and receipts do not.
        let waits_for_halos = self.phase == Phase::Exchanging && self.is_sent();
        if waits_for_halos { Idle::Done } else { Idle::Soon }
    }

    fn on_stop(&mut self, _: &mut impl Context<PAYLOAD>) {
        self.outcome.get_or_insert(Outcome::Stopped);
    }
}
