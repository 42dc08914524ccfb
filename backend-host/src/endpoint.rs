//! An endpoint that owns its share of the memory, so that it can move to any thread, and that can wait.
//!
//! Has every method of [`k2k_core::Endpoint`], under the same names, but does not deref to that type: the inner endpoint
//! borrows the fabric for longer than any caller may, and only this wrapper knows for how long the borrow is valid.

use crate::reactor::Entered;
use crate::wait::{self, Awaited, ReceiveError, Wait};
use crate::{EndpointError, Host, Memory};
use core::fmt;
use core::time::Duration;
use k2k_core::hlc::Timestamp;
use k2k_core::sync::System;
use k2k_core::{
    Backlog, Command, Context, DeliveryReceipt, Endpoint as Core, FabricRef, Fixed, Kernel, KernelId, Message,
    MessageId, Phase, Priority, ReceiptError, RegisterError, Registration, SendError, Shape, Stats, TapReport,
};
use std::time::Instant;

/// Declares methods that call the inner endpoint's methods of the same names.
macro_rules! forward {
    () => {};
    ($(#[$attr:meta])* $vis:vis fn $name:ident(&$self:ident $(, $arg:ident: $type:ty)*) $(-> $out:ty)?;
    $($rest:tt)*) => {
        $(#[$attr])*
        $vis fn $name(&$self $(, $arg: $type)*) $(-> $out)? {
            $self.inner.$name($($arg),*)
        }
        forward! { $($rest)* }
    };
    ($(#[$attr:meta])* $vis:vis fn $name:ident(&mut $self:ident $(, $arg:ident: $type:ty)*) $(-> $out:ty)?;
    $($rest:tt)*) => {
        $(#[$attr])*
        $vis fn $name(&mut $self $(, $arg: $type)*) $(-> $out)? {
            $self.inner.$name($($arg),*)
        }
        forward! { $($rest)* }
    };
}

/// One kernel's handle on a fabric in a [`Memory`]. Dropping it unregisters the kernel.
///
/// ```
/// use core::time::Duration;
/// use k2k::{Broker, Message};
///
/// let broker: Broker = Broker::builder().build()?;
/// let mut a = broker.register("a")?;
/// let mut b = broker.register_parking("b")?;
/// let worker = std::thread::spawn(move || b.receive(Duration::from_secs(5)));
/// a.send(broker.find("b").unwrap(), &Message::from_bytes(1, b"over there").unwrap())?;
/// assert_eq!(worker.join().unwrap()?.payload(), b"over there");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Endpoint<Sh: Shape<Scope = System> = Fixed<16, 256, 192>> {
    // Fields are dropped in this order: first the reactor's entry for this endpoint's wake flag, then the endpoint, then
    // the memory of both.
    pub(crate) entered: Option<Entered>,
    /// Borrows from `memory`. Never handed out by value or by `&mut`, nor with this lifetime.
    inner: Core<'static, Host, Sh>,
    memory: Memory<Sh>,
    wait: Wait,
}

impl<Sh: Shape<Scope = System>> fmt::Debug for Endpoint<Sh> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("inner", &self.inner).field("wait", &self.wait).finish_non_exhaustive()
    }
}

impl<Sh: Shape<Scope = System>> Memory<Sh> {
    /// Takes an index of the fabric, for an endpoint that keeps the memory alive.
    ///
    /// # Errors
    /// As for [`FabricRef::register`]; [`EndpointError::Forked`] in a forked process's copy of heap memory.
    pub fn register_owned(&self, who: &Registration) -> Result<Endpoint<Sh>, EndpointError> {
        Endpoint::new(self, |fabric| fabric.register(who, Host::in_domain(fabric.config().domain)))
    }

    /// Takes over the endpoint of a kernel that died: see [`FabricRef::take_over`].
    ///
    /// # Errors
    /// As for [`FabricRef::take_over`]; [`EndpointError::Forked`] in a forked process's copy of heap memory.
    ///
    /// # Safety
    /// The endpoint that registered as `id` is not used any more, in any process.
    pub unsafe fn take_over_owned(&self, id: KernelId) -> Result<Endpoint<Sh>, EndpointError> {
        // SAFETY: the caller vouches for it.
        Endpoint::new(self, |fabric| unsafe { fabric.take_over(id, Host::in_domain(fabric.config().domain)) })
    }
}

impl<Sh: Shape<Scope = System>> Endpoint<Sh> {
    fn new(
        memory: &Memory<Sh>,
        register: impl FnOnce(FabricRef<'static, Sh>) -> Result<Core<'static, Host, Sh>, RegisterError>,
    ) -> Result<Self, EndpointError> {
        if memory.is_private_copy() {
            return Err(EndpointError::Forked);
        }
        let memory = memory.clone();
        // SAFETY: the fabric stays mapped, at this address, until the last clone of `memory` is dropped. The clone in
        // the returned value is dropped after `inner`, and no other code gets hold of this lifetime: `register`
        // is one of the three functions above, and every method below shortens the lifetime to the borrow of `self`.
        let fabric = unsafe { memory.for_ever() };
        Ok(Self {
            entered: None,
            inner: register(fabric).map_err(EndpointError::Register)?,
            memory,
            wait: Wait::default(),
        })
    }

    pub(crate) const fn core(&mut self) -> &mut Core<'static, Host, Sh> {
        &mut self.inner
    }

    /// The inner endpoint, read only.
    #[must_use]
    pub const fn as_core(&self) -> &Core<'_, Host, Sh> {
        &self.inner
    }

    /// The memory of the fabric.
    #[must_use]
    pub const fn memory(&self) -> &Memory<Sh> {
        &self.memory
    }

    /// The fabric.
    #[must_use]
    pub const fn fabric(&self) -> FabricRef<'_, Sh> {
        self.memory.fabric()
    }

    /// This kernel's address.
    #[must_use]
    pub const fn id(&self) -> KernelId {
        self.inner.id()
    }

    /// How this endpoint waits: [`Wait::Park`] unless set otherwise.
    #[must_use]
    pub const fn wait(&self) -> Wait {
        self.wait
    }

    /// Chooses how [`receive`](Self::receive), [`send_blocking`](Self::send_blocking) and [`run`](Self::run) wait.
    pub const fn set_wait(&mut self, wait: Wait) {
        self.wait = wait;
    }

    /// As [`set_wait`](Self::set_wait), in a chain.
    #[must_use]
    pub const fn with_wait(mut self, wait: Wait) -> Self {
        self.wait = wait;
        self
    }

    forward! {
        /// See [`k2k_core::Endpoint::has_mail_of`].
        pub fn has_mail_of(&mut self, sender: KernelId) -> bool;

        /// See [`k2k_core::Endpoint::send`]. Never waits.
        ///
        /// # Errors
        /// See [`SendError`].
        #[inline]
        pub fn send(&mut self, to: KernelId, message: &Sh::Item) -> Result<MessageId, SendError>;

        /// See [`k2k_core::Endpoint::send_priority`]. Never waits.
        ///
        /// # Errors
        /// See [`SendError`].
        #[inline]
        pub fn send_priority(&mut self, to: KernelId, message: &Sh::Item, priority: Priority)
            -> Result<MessageId, SendError>;

        /// See [`k2k_core::Endpoint::reply`]. Never waits.
        ///
        /// # Errors
        /// See [`SendError`].
        pub fn reply(&mut self, request: &Sh::Item, answer: &Sh::Item) -> Result<MessageId, SendError>;

        /// The next message, if any. Never waits.
        #[inline]
        pub fn try_receive(&mut self) -> Option<Sh::Item>;

        /// See [`k2k_core::Endpoint::try_receive_into`].
        #[inline]
        pub fn try_receive_into(&mut self, message: &mut Sh::Item) -> bool;

        /// See [`k2k_core::Endpoint::poll`].
        pub fn poll(&mut self) -> usize;

        /// See [`k2k_core::Endpoint::receipt`].
        ///
        /// # Errors
        /// See [`ReceiptError`].
        pub fn receipt(&mut self, id: MessageId) -> Result<DeliveryReceipt, ReceiptError>;

        /// See [`k2k_core::Endpoint::expire`].
        pub fn expire(&mut self) -> usize;

        /// See [`k2k_core::Endpoint::pending_count`].
        #[must_use]
        pub fn pending_count(&self) -> u64;

        /// See [`k2k_core::Endpoint::backlog`].
        #[must_use]
        pub fn backlog(&self) -> Backlog;

        /// The supervisor's current command to this kernel.
        #[must_use]
        pub fn command(&self) -> Command;

        /// A new timestamp of this kernel's hybrid clock: wall time, for people and for order.
        pub fn now(&mut self) -> Timestamp;

        /// Elapsed time in ns, on the clock of deadlines: `CLOCK_MONOTONIC`, which cannot be set.
        #[must_use]
        pub fn now_ns(&self) -> u64;

        /// The deadline `time` from now, for a message.
        ///
        /// ```
        /// use core::time::Duration;
        /// use k2k::{Broker, Message};
        ///
        /// let broker: Broker = Broker::builder().build()?;
        /// let mut me = broker.register("me")?;
        /// let note = Message::new(1).with_deadline_ns(me.deadline_in(Duration::from_millis(20)));
        /// me.send(me.id(), &note)?;
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        #[must_use]
        pub fn deadline_in(&self, time: Duration) -> u64;

        /// This kernel's counters.
        #[must_use]
        pub fn stats(&self) -> Stats;

        /// Records the phase of this kernel. [`run`](Self::run) does so by itself.
        pub fn set_phase(&mut self, phase: Phase);

        /// Records a sign of life. [`run`](Self::run) does so by itself.
        pub fn heartbeat(&mut self);
    }

    /// Sends, and waits for room in the next hop's inbox until the message's deadline, by default the fabric's delivery
    /// timeout from now, or until a supervisor sends [`Command::Stop`] to this kernel. The command is noticed within a
    /// millisecond or two, so a message without end (a deadline in [`Duration::MAX`]) is allowed. Transit traffic is
    /// forwarded meanwhile; mail for this kernel is not received, so two kernels that fill each other's inboxes this way
    /// wait until their deadlines.
    ///
    /// # Errors
    /// As for [`send`](Self::send), but [`SendError::Timeout`] or [`SendError::Stopped`] in place of `QueueFull`.
    pub fn send_blocking(&mut self, to: KernelId, message: &Sh::Item) -> Result<MessageId, SendError> {
        self.send_priority_blocking(to, message, Priority::Normal)
    }

    /// [`send_blocking`](Self::send_blocking) with a priority.
    ///
    /// # Errors
    /// As for [`send_blocking`](Self::send_blocking).
    pub fn send_priority_blocking(
        &mut self,
        to: KernelId,
        message: &Sh::Item,
        priority: Priority,
    ) -> Result<MessageId, SendError> {
        let (wait, mut passes) = (self.wait, 0u32);
        self.inner.send_waiting(to, message, priority, || {
            passes = passes.saturating_add(1);
            wait.nap(passes);
        })
    }

    /// Waits for the next message, for `timeout` (a [`Duration`]) or for ever (`None`). Transit traffic is forwarded
    /// meanwhile. [`Command::Pause`] is for kernels in [`run`](Self::run); `receive` goes on receiving.
    ///
    /// Call this from a thread that may block; in `async` code see [`receive_async`](Self::receive_async).
    ///
    /// # Errors
    /// [`ReceiveError::Timeout`]; [`ReceiveError::Stopped`] when a supervisor has sent [`Command::Stop`] or `Drain` to
    /// this kernel and nothing is left to receive.
    pub fn receive(&mut self, timeout: impl Into<Option<Duration>>) -> Result<Sh::Item, ReceiveError> {
        let mut message = <Sh::Item as k2k_core::Packet>::empty();
        self.receive_into(&mut message, timeout)?;
        Ok(message)
    }

    /// As [`receive`](Self::receive), into the caller's message: saves a copy on the stack, worthwhile for large messages.
    /// After an error, `message` may hold a message for another kernel.
    ///
    /// # Errors
    /// As for [`receive`](Self::receive).
    pub fn receive_into(
        &mut self,
        message: &mut Sh::Item,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<(), ReceiveError> {
        // With mail waiting, the time is not needed: reading the clock costs as much as half of the receive.
        if self.inner.try_receive_into(message) {
            return Ok(());
        }
        // A time that does not fit the clock is as good as for ever.
        let deadline = timeout.into().and_then(|timeout| Instant::now().checked_add(timeout));
        wait::receive_into(&mut self.inner, message, self.wait, deadline, wait::obeyed)
    }

    /// As [`receive`](Self::receive), until a point in time.
    ///
    /// # Errors
    /// As for [`receive`](Self::receive).
    pub fn receive_until(&mut self, deadline: Instant) -> Result<Sh::Item, ReceiveError> {
        wait::receive(&mut self.inner, self.wait, Some(deadline))
    }

    /// Passes traffic in transit on, and then shows each message: for a [tap](k2k_core::Endpoint::tap), put between two
    /// kernels by [`reroute`](FabricRef::reroute). Waits up to `timeout` for some traffic. Without any, the report says
    /// whether a message stays in the inbox because its next hop has no room.
    ///
    /// # Errors
    /// [`ReceiveError::Stopped`] if a supervisor told this kernel to stop, or to drain its inbox and the inbox is empty;
    /// [`ReceiveError::Forked`]; [`ReceiveError::Evicted`].
    pub fn tap(&mut self, timeout: Duration, show: impl FnMut(&Sh::Item)) -> Result<TapReport, ReceiveError> {
        // A time that does not fit the clock is as good as for ever.
        let deadline = Instant::now().checked_add(timeout);
        wait::tap(&mut self.inner, self.wait, deadline, show)
    }

    /// Runs a kernel on this thread until the kernel stops itself or is told to stop, waiting as this endpoint does.
    ///
    /// A parked kernel wakes up every `heartbeat` at least, to give a sign of life and to settle its own overdue messages.
    /// After the answer [`Idle::Soon`](k2k_core::Idle::Soon), a kernel naps for 1 ms at most instead.
    pub fn run<const PAYLOAD: usize>(&mut self, kernel: &mut impl Kernel<PAYLOAD>, heartbeat: Duration)
    where
        Sh: Shape<Item = Message<PAYLOAD>>,
    {
        let wait = self.wait;
        k2k_core::run(&mut self.inner, kernel, |endpoint, hint| {
            let awaited = match hint.command {
                Command::Pause => Awaited::Transit,
                obeyed => Awaited::Mail(obeyed),
            };
            if hint.soon {
                wait.idle_soon(endpoint, awaited, hint.empty_passes, heartbeat);
            } else if wait.idle(endpoint, awaited, hint.empty_passes, Some(heartbeat)) {
                endpoint.expire();
            }
        });
    }

    /// Leaves; the same as dropping the endpoint.
    pub fn unregister(self) {
        drop(self);
    }

    /// Leaves as failed: the index stays in use, with its trace, until it is [cleared](FabricRef::clear_failed).
    pub fn fail(self) {
        // If a drop here panics, the rest is dropped in the order of the fields: the binding made last goes first.
        let Self { memory, inner, entered, .. } = self;
        drop(entered);
        inner.fail();
        drop(memory);
    }
}

impl<const PAYLOAD: usize, Sh: Shape<Scope = System, Item = Message<PAYLOAD>>> Context<PAYLOAD> for Endpoint<Sh> {
    forward! {
        fn id(&self) -> KernelId;
        fn send_priority(&mut self, to: KernelId, message: &Message<PAYLOAD>, priority: Priority)
            -> Result<MessageId, SendError>;
        fn reply(&mut self, request: &Message<PAYLOAD>, answer: &Message<PAYLOAD>) -> Result<MessageId, SendError>;
        fn receipt(&mut self, id: MessageId) -> Result<DeliveryReceipt, ReceiptError>;
        fn now(&mut self) -> Timestamp;
        fn now_ns(&self) -> u64;
        fn deadline_in(&self, time: Duration) -> u64;
        fn stop(&mut self);
    }

    fn find(&self, name: &str) -> Option<KernelId> {
        self.fabric().find(name)
    }
}
