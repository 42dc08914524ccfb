//! A kernel's code: a handler, and the loop that feeds it. The same on a host thread and in a GPU block.

use crate::endpoint::{Endpoint, SendError};
use crate::fabric::{Command, DeliveryReceipt, Phase, ReceiptError};
use crate::hlc::Timestamp;
use crate::in_place::make_in;
use crate::message::{KernelId, Message, MessageId, Priority};
use crate::platform::Platform;
use crate::shape::Shape;
use crate::sync::zeroed_in;
use core::mem::MaybeUninit;
use core::time::Duration;

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

    /// See [`Endpoint::now_ns`].
    fn now_ns(&self) -> u64;

    /// See [`Endpoint::deadline_in`].
    fn deadline_in(&self, time: Duration) -> u64;

    /// The registered kernel of that name.
    fn find(&self, name: &str) -> Option<KernelId>;

    /// See [`Endpoint::stop`].
    fn stop(&mut self);
}

impl<P: Platform, const PAYLOAD: usize, Sh: Shape<Item = Message<PAYLOAD>>> Context<PAYLOAD> for Endpoint<'_, P, Sh> {
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

    #[inline]
    fn now_ns(&self) -> u64 {
        Endpoint::now_ns(self)
    }

    fn deadline_in(&self, time: Duration) -> u64 {
        Endpoint::deadline_in(self, time)
    }

    fn find(&self, name: &str) -> Option<KernelId> {
        self.fabric().find(name)
    }

    fn stop(&mut self) {
        Endpoint::stop(self);
    }
}

/// What a handler without mail has to say: when it wants to be asked again, should no mail come before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Idle {
    /// It has nothing to do: it may sleep until it is woken.
    #[default]
    Done,
    /// It had something to do: at once.
    Again,
    /// It waits for something that wakes nobody, such as room in another's inbox: soon.
    Soon,
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

    /// When the inbox is empty. The answer says when to come back.
    fn on_idle(&mut self, context: &mut impl Context<PAYLOAD>) -> Idle {
        let _ = context;
        Idle::Done
    }

    /// Once, after the last message.
    fn on_stop(&mut self, context: &mut impl Context<PAYLOAD>) {
        let _ = context;
    }
}

/// What a backend is told of a pass of a [`RunLoop`] that had nothing to do: from it follows how to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdleHint {
    /// Passes in a row that found nothing to do. 0 if a paused kernel has passed something on.
    pub empty_passes: u32,
    /// Whether the kernel has said [`Idle::Soon`]: it should not sleep for long, since nothing wakes it for what it
    /// waits for.
    pub soon: bool,
    /// The command that the pass obeyed: what the kernel waits for depends on it.
    pub command: Command,
}

/// What a pass of a [`RunLoop`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Pass {
    /// Something was done: the next pass should follow at once.
    Worked,
    /// Nothing to do: the backend decides whether to spin, yield or sleep.
    Idle(IdleHint),
    /// The kernel stops: [`RunLoop::finish`] comes next.
    Stopped,
}

/// A run loop to be called pass by pass, for backends that have a control flow of their own. All its state is in here,
/// so that it can lie where a GPU block keeps its endpoint, and not on a stack. [`run`] is the same as a function.
///
/// ```
/// # use k2k_core::{Endpoint, Fixed, Kernel, RunLoop, Pass, Platform};
/// # fn serve<P: Platform>(endpoint: &mut Endpoint<'_, P, Fixed<4, 8, 64>>, kernel: &mut impl Kernel<64>) {
/// let mut run = RunLoop::new();
/// run.start(endpoint, kernel);
/// loop {
///     match run.pass(endpoint, kernel) {
///         Pass::Worked => {}
///         Pass::Idle(_) => std::thread::yield_now(),
///         Pass::Stopped => break,
///     }
/// }
/// run.finish(endpoint, kernel);
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct RunLoop<const PAYLOAD: usize> {
    message: Message<PAYLOAD>,
    phase: Phase,
    empty_passes: u32,
}

impl<const PAYLOAD: usize> Default for RunLoop<PAYLOAD> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const PAYLOAD: usize> RunLoop<PAYLOAD> {
    /// A loop to be started.
    #[must_use]
    pub fn new() -> Self {
        Self { message: bytemuck::Zeroable::zeroed(), phase: Phase::Idle, empty_passes: 0 }
    }

    /// As [`new`](Self::new), in memory of the caller's.
    pub fn new_in(memory: &mut MaybeUninit<Self>) -> &mut Self {
        make_in!(memory, Self { message => zeroed_in, phase: Phase::Idle, empty_passes: 0 })
    }

    /// Begins, whatever the last loop of this endpoint was asked. Before the first pass.
    pub fn start<P: Platform, Sh: Shape<Item = Message<PAYLOAD>>>(
        &mut self,
        endpoint: &mut Endpoint<'_, P, Sh>,
        kernel: &mut impl Kernel<PAYLOAD>,
    ) {
        self.empty_passes = 0;
        endpoint.start();
        self.enter(endpoint, Phase::Running);
        kernel.on_start(endpoint);
    }

    /// Obeys the supervisor's [`Command`], gives a sign of life, and handles one message.
    #[inline]
    pub fn pass<P: Platform, Sh: Shape<Item = Message<PAYLOAD>>>(
        &mut self,
        endpoint: &mut Endpoint<'_, P, Sh>,
        kernel: &mut impl Kernel<PAYLOAD>,
    ) -> Pass {
        if !endpoint.begin_pass() {
            return Pass::Stopped;
        }
        // One that runs goes on without a look at what its supervisor did; one that was paused does not.
        let runs_on = self.phase == Phase::Running && !endpoint.is_commanded();
        let command = if runs_on { Command::Run } else { endpoint.command() };
        let wanted = match command {
            Command::Run => Phase::Running,
            Command::Pause => Phase::Paused,
            Command::Drain => Phase::Draining,
            Command::Stop => return Pass::Stopped,
        };
        if wanted != self.phase {
            self.enter(endpoint, wanted);
        }
        if command == Command::Pause {
            self.empty_passes = if endpoint.poll() > 0 { 0 } else { self.empty_passes.saturating_add(1) };
            return Pass::Idle(IdleHint { empty_passes: self.empty_passes, soon: false, command });
        }
        if endpoint.receive_into(&mut self.message) {
            kernel.on_message(endpoint, &self.message);
            self.empty_passes = 0;
            return Pass::Worked;
        }
        if command == Command::Drain && endpoint.is_drained() {
            return Pass::Stopped;
        }
        let idle = kernel.on_idle(endpoint);
        if idle == Idle::Again {
            self.empty_passes = 0;
            return Pass::Worked;
        }
        self.empty_passes = self.empty_passes.saturating_add(1);
        endpoint.expire_some();
        Pass::Idle(IdleHint { empty_passes: self.empty_passes, soon: idle == Idle::Soon, command })
    }

    /// Ends. After the last pass.
    pub fn finish<P: Platform, Sh: Shape<Item = Message<PAYLOAD>>>(
        &mut self,
        endpoint: &mut Endpoint<'_, P, Sh>,
        kernel: &mut impl Kernel<PAYLOAD>,
    ) {
        if endpoint.may_write() {
            kernel.on_stop(endpoint);
        }
        self.enter(endpoint, Phase::Stopped);
    }

    fn enter<P: Platform, Sh: Shape<Item = Message<PAYLOAD>>>(
        &mut self,
        endpoint: &mut Endpoint<'_, P, Sh>,
        phase: Phase,
    ) {
        self.phase = phase;
        endpoint.set_phase(phase);
    }
}

/// Feeds a handler until it stops itself or is told to stop.
///
/// Each pass obeys the supervisor's [`Command`], gives a sign of life, and handles one message. With nothing to do it
/// calls `idle`: the backend decides whether to spin, yield or sleep.
pub fn run<P: Platform, const PAYLOAD: usize, Sh: Shape<Item = Message<PAYLOAD>>>(
    endpoint: &mut Endpoint<'_, P, Sh>,
    kernel: &mut impl Kernel<PAYLOAD>,
    mut idle: impl FnMut(&mut Endpoint<'_, P, Sh>, IdleHint),
) {
    let mut passes = RunLoop::new();
    passes.start(endpoint, kernel);
    loop {
        match passes.pass(endpoint, kernel) {
            Pass::Worked => {}
            Pass::Idle(hint) => idle(endpoint, hint),
            Pass::Stopped => break,
        }
    }
    passes.finish(endpoint, kernel);
}

#[cfg(test)]
#[cfg(not(k2k_loom))]
mod tests {
    use super::*;
    use crate::{Config, Fabric, Registration, WakeFlag};
    use core::cell::Cell;

    struct Turned<'c>(&'c Cell<u64>);
    impl Platform for Turned<'_> {
        fn now_ns(&self) -> u64 {
            self.0.get()
        }
        fn wake(&self, _: &WakeFlag) {}
    }

    struct Deaf;
    impl Kernel<64> for Deaf {
        fn on_message(&mut self, _: &mut impl Context<64>, _: &Message<64>) {}
    }

    #[test]
    fn what_is_overdue_is_looked_for_also_after_more_empty_passes_than_are_counted() {
        // SAFETY: all zero is a valid, idle fabric.
        let fabric: Fabric<2, 4, 64> = unsafe { core::mem::zeroed() };
        fabric.init(&Config { delivery_timeout_ns: 1_000, ..Config::default() }).unwrap();
        let now = Cell::new(1);
        let [mut a, b] =
            ["a", "b"].map(|name| fabric.register(&Registration::new(name).unwrap(), Turned(&now)).unwrap());
        a.send(b.id(), &Message::new(1)).unwrap();
        let mut run = RunLoop::new();
        run.start(&mut a, &mut Deaf);
        let _ = run.pass(&mut a, &mut Deaf);
        run.empty_passes = u32::MAX;
        now.set(5_000 + crate::CLOCK_MARGIN_NS);
        for _ in 0..2 * 1024 {
            let _ = run.pass(&mut a, &mut Deaf);
        }
        assert_eq!(a.stats().timeout, 1);
    }
}
