//! Receiving in `async` code, with any executor and without blocking its threads.
//!
//! Sending needs no counterpart: [`send`](Endpoint::send) and [`reply`](Endpoint::reply) never wait. On the error
//! [`QueueFull`](crate::SendError::QueueFull), sleep for a moment with the executor's timer and try again, because room in
//! an inbox wakes no task; [`send_blocking`](Endpoint::send_blocking) would block the executor's thread.
//! [`Client::request_async`](crate::Client::request_async) retries by itself.
//!
//! | the sender is | it wakes the task |
//! | --- | --- |
//! | in the same process | itself: takes the waker that the task has left, and calls the waker |
//! | in another process | through a futex, on which a helper thread of this process sleeps for all tasks |
//!
//! 1. Only the task reads the inbox and marks its kernel asleep.
//! 2. The `poll` that returns a message also takes the message out of the inbox. So a future dropped by `select!` or by a
//!    timeout has taken no message.
//! 3. A task without mail lets the other tasks run once, and looks again, before it falls asleep: if the answering kernel
//!    runs on the same executor, the answer is often there by then, and costs no wake-up.
//! 4. No sleep is longer than a [slice](crate::wait::longest_slice): the task then looks for itself.
//! 5. An executor's waker may run the task at once, within the sender's `send`. A waker must not block: blocking holds up
//!    the sender, or the helper thread and with it all tasks.
//!
//! To wait for several endpoints in a single task or thread, use a [`Set`](crate::Set); in an event loop that polls
//! descriptors (`epoll`), a [`Descriptor`](crate::Descriptor).

use crate::Endpoint;
use crate::reactor::{Entered, Reactor};
use crate::wait::{self, Awaited, ReceiveError};
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use k2k_core::sync::System;
use k2k_core::{Command, Kernel, Message, Pass, Platform as _, RunLoop, Shape, Sleep};
use std::time::Instant;

impl<Sh: Shape<Scope = System>> Endpoint<Sh> {
    /// The next message; `await` the future in any executor. Dropping the future loses no message.
    ///
    /// The endpoint should have registered as parking; otherwise the inbox is looked at every millisecond. For a time limit
    /// see [`receive_async_until`](Self::receive_async_until), or the executor's timeout.
    ///
    /// # Errors
    /// [`ReceiveError::Stopped`] as for [`receive`](Endpoint::receive).
    ///
    /// # Panics
    /// If the system cannot start the helper thread; the first `await` of a process starts the thread.
    pub const fn receive_async(&mut self) -> ReceiveAsync<'_, Sh> {
        ReceiveAsync { sleeper: Sleeper::new(self), deadline: None, drains: true }
    }

    /// As [`receive_async`](Self::receive_async), until a point in time. The helper thread keeps the time: the executor
    /// needs no timer.
    ///
    /// ```
    /// use core::time::Duration;
    /// use k2k::{Broker, ReceiveError};
    /// use std::time::Instant;
    ///
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// let broker: Broker = Broker::builder().build()?;
    /// let mut me = broker.register_parking("me")?;
    /// let soon = Instant::now() + Duration::from_millis(5);
    /// assert_eq!(me.receive_async_until(soon).await, Err(ReceiveError::Timeout));
    /// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As for [`receive_async`](Self::receive_async), and [`ReceiveError::Timeout`].
    ///
    /// # Panics
    /// If the system cannot start the helper thread; the first `await` of a process starts the thread.
    pub const fn receive_async_until(&mut self, deadline: Instant) -> ReceiveAsync<'_, Sh> {
        ReceiveAsync { sleeper: Sleeper::new(self), deadline: Some(deadline), drains: true }
    }

    /// As [`receive_async_until`](Self::receive_async_until), for a kernel that goes on waiting while draining.
    pub(crate) const fn receive_async_draining(&mut self, deadline: Instant) -> ReceiveAsync<'_, Sh> {
        ReceiveAsync { sleeper: Sleeper::new(self), deadline: Some(deadline), drains: false }
    }

    /// [`run`](Self::run) as a task, with any executor. The handler's methods must not block. After 64 messages in a row
    /// the executor's other tasks have their turn.
    ///
    /// Dropping the future ends the loop between two messages, without [`Kernel::on_stop`].
    ///
    /// ```
    /// use core::time::Duration;
    /// use k2k::{Broker, Context, Kernel, Message};
    ///
    /// struct Echo;
    /// impl Kernel<192> for Echo {
    ///     fn on_message(&mut self, context: &mut impl Context<192>, message: &Message<192>) {
    ///         let _ = context.reply(message, message);
    ///         context.stop();
    ///     }
    /// }
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// let broker: Broker = Broker::builder().build()?;
    /// let (mut echo, mut me) = (broker.register_parking("echo")?, broker.register_parking("me")?);
    /// let to = echo.id();
    /// let running = tokio::spawn(async move { echo.run_async(&mut Echo, Duration::from_secs(1)).await });
    /// me.send(to, &Message::from_bytes(1, b"hello")?)?;
    /// assert_eq!(me.receive_async().await?.payload(), b"hello");
    /// running.await?;
    /// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    /// If the system cannot start the helper thread; the first `await` of a process starts the thread.
    pub async fn run_async<const PAYLOAD: usize>(&mut self, kernel: &mut impl Kernel<PAYLOAD>, heartbeat: Duration)
    where
        Sh: Shape<Item = Message<PAYLOAD>>,
    {
        /// Messages in a row, after which other tasks have their turn.
        const TURN: u32 = 64;
        let (mut passes, mut worked) = (RunLoop::new(), 0);
        passes.start(self.core(), kernel);
        loop {
            match passes.pass(self.core(), kernel) {
                Pass::Worked if worked < TURN => worked += 1,
                Pass::Worked => {
                    worked = 0;
                    yield_now().await;
                }
                Pass::Idle(hint) => {
                    worked = 0;
                    let awaited = match hint.command {
                        Command::Pause => Awaited::Transit,
                        obeyed => Awaited::Mail(obeyed),
                    };
                    let limit = if hint.soon { heartbeat.min(wait::LONGEST_NAP) } else { heartbeat };
                    let until = Instant::now().checked_add(limit);
                    if (IdleAsync { sleeper: Sleeper::new(self), awaited, until }).await && !hint.soon {
                        self.expire();
                    }
                }
                Pass::Stopped => break,
            }
        }
        passes.finish(self.core(), kernel);
    }
}

/// Lets other tasks of the executor have their turn.
async fn yield_now() {
    let mut yielded = false;
    core::future::poll_fn(|context| {
        if core::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// A task's endpoint, and the sleep begun by the task's last poll. Dropping the sleeper ends the sleep.
#[derive(Debug)]
pub(crate) struct Sleeper<'e, Sh: Shape<Scope = System>> {
    endpoint: &'e mut Endpoint<Sh>,
    asleep: Option<Sleep<'static>>,
    /// Other tasks have had a turn since the first look.
    yielded: bool,
    /// The reactor has an entry for a nap of this task.
    naps: bool,
}

impl<'e, Sh: Shape<Scope = System>> Sleeper<'e, Sh> {
    pub(crate) const fn new(endpoint: &'e mut Endpoint<Sh>) -> Self {
        Self { endpoint, asleep: None, yielded: false, naps: false }
    }

    pub(crate) const fn endpoint(&mut self) -> &mut Endpoint<Sh> {
        self.endpoint
    }

    /// Ends the sleep begun by the last poll. `true` if the kernel was woken, or naps because an awaited event wakes no
    /// kernel.
    fn wake_up(&mut self) -> bool {
        let Some(sleep) = self.asleep.take() else { return false };
        let done = sleep.is_over() || wait::naps(self.endpoint.core(), &sleep);
        self.endpoint.disarm(sleep);
        done
    }

    /// Has the task polled again at an awaited event, at the end of a slice, or at `until`. `false` if an event has come
    /// already.
    fn sleep(&mut self, awaited: Awaited, until: Option<Instant>, waker: &Waker) -> bool {
        if !core::mem::replace(&mut self.yielded, true) {
            waker.wake_by_ref();
            return true;
        }
        self.asleep = self.endpoint.arm(awaited, until, waker);
        self.asleep.is_some()
    }

    /// Has the task polled again after a nap.
    pub(crate) fn nap(&mut self, waker: &Waker) {
        let until_ns = wait::longest_nap_from(self.endpoint.core());
        self.endpoint.entered().arm(waker, None, until_ns);
        self.naps = true;
    }
}

impl<Sh: Shape<Scope = System>> Drop for Sleeper<'_, Sh> {
    fn drop(&mut self) {
        if !self.endpoint.as_core().platform().is_here() {
            return;
        }
        if let Some(sleep) = self.asleep.take() {
            self.endpoint.disarm(sleep);
        }
        if self.naps {
            self.endpoint.entered().disarm();
        }
    }
}

impl<Sh: Shape<Scope = System>> Endpoint<Sh> {
    /// The reactor's entry for this endpoint. Made before an armed sleep begins, so that a sender finds the entry.
    fn entered(&mut self) -> &Entered {
        if self.entered.is_none() {
            let shared = self.memory().path().is_some();
            let flag = self.core().wake_flag();
            // SAFETY: an endpoint drops its reactor entry before its memory, in which the flag lies.
            self.entered = Some(unsafe { Reactor::here().enter(flag, shared) });
        }
        let Some(entered) = &self.entered else { unreachable!("entered above") };
        entered
    }

    /// Marks the kernel asleep, and has the task woken when the sleep is over, at the end of a slice, or at `until`. `None`
    /// if there is a reason to look now.
    pub(crate) fn arm(&mut self, awaited: Awaited, until: Option<Instant>, waker: &Waker) -> Option<Sleep<'static>> {
        if !self.core().platform().is_here() {
            return None;
        }
        self.entered();
        let core = self.core();
        let sleep = awaited.fall_asleep(core)?;
        let until_ns = wait::slice_ends(core, &sleep, until);
        self.entered().arm(waker, Some(sleep), until_ns);
        Some(sleep)
    }

    /// [`arm`](Self::arm), for mail and a command to stop.
    pub(crate) fn arm_for_mail(&mut self, waker: &Waker) -> Option<Sleep<'static>> {
        let obeyed = wait::obeyed(self.core()).ok()?;
        self.arm(Awaited::Mail(obeyed), None, waker)
    }

    /// Ends a sleep begun by [`arm`](Self::arm).
    pub(crate) fn disarm(&self, sleep: Sleep<'static>) {
        if !sleep.is_over() && self.as_core().platform().is_here() {
            sleep.end();
            if let Some(entered) = &self.entered {
                entered.disarm();
            }
        }
    }

    /// The next message, or the reason why no more will arrive; `None` while the inbox is empty.
    pub(crate) fn look(&mut self) -> Option<Result<Sh::Item, ReceiveError>> {
        let core = self.core();
        if !core.platform().is_here() {
            return Some(Err(ReceiveError::Forked));
        }
        match core.try_receive() {
            Some(message) => Some(Ok(message)),
            None => wait::obeyed(core).err().map(Err),
        }
    }
}

impl<Sh: Shape<Scope = System>> Endpoint<Sh> {
    /// Sleeps for a nap, regardless of mail.
    pub(crate) async fn nap_async(&mut self) {
        let mut sleeper = Sleeper::new(self);
        let until = Instant::now() + wait::LONGEST_NAP;
        core::future::poll_fn(move |context| {
            if until <= Instant::now() || !sleeper.endpoint().core().platform().is_here() {
                return Poll::Ready(());
            }
            sleeper.nap(context.waker());
            Poll::Pending
        })
        .await;
    }
}

/// The future of [`Endpoint::receive_async`].
#[must_use = "a future does nothing until it is awaited"]
#[derive(Debug)]
pub struct ReceiveAsync<'e, Sh: Shape<Scope = System>> {
    sleeper: Sleeper<'e, Sh>,
    deadline: Option<Instant>,
    /// Whether [`Command::Drain`] ends the wait at an empty inbox.
    drains: bool,
}

impl<Sh: Shape<Scope = System>> Future for ReceiveAsync<'_, Sh> {
    type Output = Result<Sh::Item, ReceiveError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if !this.sleeper.endpoint.core().platform().is_here() {
            return Poll::Ready(Err(ReceiveError::Forked));
        }
        this.sleeper.wake_up();
        let core = this.sleeper.endpoint.core();
        if let Some(message) = core.try_receive() {
            return Poll::Ready(Ok(message));
        }
        let goes_on = if this.drains { wait::obeyed(core) } else { wait::stopped(core) };
        let obeyed = match goes_on {
            Ok(obeyed) => obeyed,
            Err(why) => return Poll::Ready(Err(why)),
        };
        if this.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Poll::Ready(Err(ReceiveError::Timeout));
        }
        if !this.sleeper.sleep(Awaited::Mail(obeyed), this.deadline, context.waker()) {
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

/// The sleep of a run loop between two passes. `true` if it lasted until `until`.
struct IdleAsync<'e, Sh: Shape<Scope = System>> {
    sleeper: Sleeper<'e, Sh>,
    awaited: Awaited,
    until: Option<Instant>,
}

impl<Sh: Shape<Scope = System>> Future for IdleAsync<'_, Sh> {
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<bool> {
        let this = &mut *self;
        if !this.sleeper.endpoint.core().platform().is_here() || this.sleeper.wake_up() {
            return Poll::Ready(false);
        }
        // Other tasks have their turn also where the sleep has no length.
        if this.sleeper.yielded && this.until.is_some_and(|until| until <= Instant::now()) {
            return Poll::Ready(true);
        }
        if this.sleeper.sleep(this.awaited, this.until, context.waker()) { Poll::Pending } else { Poll::Ready(false) }
    }
}
