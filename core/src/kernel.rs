//! A kernel's code: a handler, and the loop that feeds it. The same on a host thread and in a GPU block.

use crate::endpoint::{Backlog, Endpoint, SendError};
use crate::fabric::{Command, DeliveryReceipt, Phase, ReceiptError};
use crate::hlc::Timestamp;
use crate::message::{KernelId, Message, MessageId, Priority};
use crate::platform::Platform;
use crate::sync::Scope;

/// What a handler can do. [`Endpoint`] implements it; a handler that takes `impl Context` does not depend on the
/// fabric's shape or on where it runs.
pub trait Context<const PAYLOAD: usize> {
    /// This kernel's address.
    fn id(&self) -> KernelId;

    /// See [`Endpoint::send`].
    ///
    /// # Errors
    /// See [`SendError`].
    fn send(&mut self, to: KernelId, message: &Message<PAYLOAD>) -> Result<MessageId, SendError> {
        self.send_priority(to, message, Priority::Normal)
    }

    /// See [`Endpoint::send_priority`].
    ///
    /// # Errors
    /// See [`SendError`].
    fn send_priority(
        &mut self,
        to: KernelId,
        message: &Message<PAYLOAD>,
        priority: Priority,
    ) -> Result<MessageId, SendError>;

    /// See [`Endpoint::reply`].
    ///
    /// # Errors
    /// See [`SendError`].
    fn reply(&mut self, request: &Message<PAYLOAD>, answer: &Message<PAYLOAD>) -> Result<MessageId, SendError>;

    /// See [`Endpoint::receipt`].
    ///
    /// # Errors
    /// See [`ReceiptError`].
    fn receipt(&mut self, id: MessageId) -> Result<DeliveryReceipt, ReceiptError>;

    /// See [`Endpoint::now`].
    fn now(&mut self) -> Timestamp;

    /// The registered kernel of that name.
    fn find(&self, name: &str) -> Option<KernelId>;

    /// See [`Endpoint::stop`].
    fn stop(&mut self);
}

impl<L: Platform, const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize, S: Scope> Context<PAYLOAD>
    for Endpoint<'_, L, KERNELS, SLOTS, PAYLOAD, S>
{
    fn id(&self) -> KernelId {
        Endpoint::id(self)
    }

    fn send_priority(
        &mut self,
        to: KernelId,
        message: &Message<PAYLOAD>,
        priority: Priority,
    ) -> Result<MessageId, SendError> {
        Endpoint::send_priority(self, to, message, priority)
    }

    fn reply(&mut self, request: &Message<PAYLOAD>, answer: &Message<PAYLOAD>) -> Result<MessageId, SendError> {
        Endpoint::reply(self, request, answer)
    }

    fn receipt(&mut self, id: MessageId) -> Result<DeliveryReceipt, ReceiptError> {
        Endpoint::receipt(self, id)
    }

    fn now(&mut self) -> Timestamp {
        Endpoint::now(self)
    }

    fn find(&self, name: &str) -> Option<KernelId> {
        self.fabric().find(name)
    }

    fn stop(&mut self) {
        Endpoint::stop(self);
    }
}

/// A kernel's handler.
///
/// ```
/// use k2k_core::{Context, Kernel, Message};
///
/// /// Sends everything back.
/// struct Echo;
///
/// impl Kernel<64> for Echo {
///     fn on_message(&mut self, context: &mut impl Context<64>, message: &Message<64>) {
///         // A full inbox at the other end loses the answer, and the requester's timeout tells it so.
///         let _ = context.reply(message, message);
///     }
/// }
/// ```
pub trait Kernel<const PAYLOAD: usize> {
    /// Once, before the first message.
    fn on_start(&mut self, context: &mut impl Context<PAYLOAD>) {
        let _ = context;
    }

    /// For each message.
    fn on_message(&mut self, context: &mut impl Context<PAYLOAD>, message: &Message<PAYLOAD>);

    /// When the inbox is empty. `true` says that there was something to do: the loop comes back at once.
    fn on_idle(&mut self, context: &mut impl Context<PAYLOAD>) -> bool {
        let _ = context;
        false
    }

    /// Once, after the last message.
    fn on_stop(&mut self, context: &mut impl Context<PAYLOAD>) {
        let _ = context;
    }
}

/// Empty passes after which overdue receipts are looked for, again and again.
const EXPIRE_EVERY: u32 = 1024;

/// Feeds a handler until it stops itself or is told to stop.
///
/// Each pass obeys the supervisor's [`Command`], gives a sign of life, and handles one message. With nothing to do it calls
/// `idle` with the number of empty passes so far: the backend decides whether to spin, yield or sleep.
pub fn run<L: Platform, const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize, S: Scope>(
    endpoint: &mut Endpoint<'_, L, KERNELS, SLOTS, PAYLOAD, S>,
    kernel: &mut impl Kernel<PAYLOAD>,
    mut idle: impl FnMut(&mut Endpoint<'_, L, KERNELS, SLOTS, PAYLOAD, S>, u32),
) {
    let mut phase = Phase::Running;
    let mut empty_passes = 0u32;
    endpoint.start();
    endpoint.set_phase(phase);
    kernel.on_start(endpoint);
    while !endpoint.is_stopping() {
        endpoint.beat();
        let command = endpoint.command();
        let wanted = match command {
            Command::Run => Phase::Running,
            Command::Pause => Phase::Paused,
            Command::Drain => Phase::Draining,
            Command::Stop => break,
        };
        if wanted != phase {
            phase = wanted;
            endpoint.set_phase(phase);
        }
        if command == Command::Pause {
            empty_passes = if endpoint.poll() > 0 { 0 } else { empty_passes.saturating_add(1) };
            idle(endpoint, empty_passes);
            continue;
        }
        if let Some(message) = endpoint.try_receive() {
            kernel.on_message(endpoint, &message);
            empty_passes = 0;
            continue;
        }
        if command == Command::Drain && endpoint.backlog() == Backlog::None {
            break;
        }
        if kernel.on_idle(endpoint) {
            empty_passes = 0;
            continue;
        }
        empty_passes = empty_passes.saturating_add(1);
        if empty_passes % EXPIRE_EVERY == 1 {
            endpoint.expire();
        }
        idle(endpoint, empty_passes);
    }
    kernel.on_stop(endpoint);
    endpoint.set_phase(Phase::Stopped);
}
