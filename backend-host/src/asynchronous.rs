//! Receiving in `async` code, with any executor and without blocking its threads.
//!
//! Sending needs no counterpart: [`send`](Endpoint::send) and [`reply`](Endpoint::reply) never wait. Where they answer
//! [`QueueFull`](crate::SendError::QueueFull), sleep for a moment with the executor's timer and try again, because room in
//! an inbox wakes no task; [`send_blocking`](Endpoint::send_blocking) would block the executor's thread.
//! [`Client::request_async`](crate::Client::request_async) does so by itself.
//!
//! A sender, perhaps in another process, wakes a sleeping kernel through a futex, and nobody can `await` a futex. So
//! each endpoint that is awaited gets a watcher: a thread that sleeps at the endpoint's wake flag in its place and then
//! calls the task's waker. It is started by the first `await` that finds no mail, and ends with the endpoint.
//!
//! ```text
//!   task:      look ── none ── fall asleep ── look again ── arm watcher ── Pending                    poll: look ── Ready
//!   watcher:                                                    └─> futex wait ──────> wake task ───────┘
//!   sender:                                               publish ── clear wake flag, futex wake ──┘
//! ```
//!
//! 1. Only the task reads the inbox and marks its kernel asleep. The watcher touches nothing but the wake flag's word, as
//!    a futex, and what the two share under a lock.
//! 2. A message is taken out of the inbox in the same `poll` that returns it. So a future that is dropped, by `select!`
//!    or by a timeout, has taken none.
//! 3. Every `poll` that returns `Pending` arms the watcher anew, for its own sleep and with a time at which that sleep
//!    ends. The watcher wakes the task when the sleep that was armed last is over. It hears of a new one by the flag's
//!    word, which differs for each sleep, or is nudged out of the futex.
//! 4. No sleep is longer than a [slice](crate::wait): the task then looks for itself.
//! 5. Wakers are the executor's code: they are cloned, called and dropped outside of the lock, and a panic of one ends
//!    neither the watcher nor another task's wake-up.

use crate::contain::contain;
use crate::platform::{nudge, sleep_for};
use crate::process::Own;
use crate::wait::{self, Awaited, ReceiveError};
use crate::{Endpoint, Memory};
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use k2k_core::sync::System;
use k2k_core::{Command, Kernel, KernelId, Message, Pass, Platform as _, RunLoop, Shape, Sleep, WakeFlag};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

impl<Sh: Shape<Scope = System>> Endpoint<Sh> {
    /// The next message; `await` it in any executor. Dropping the future loses nothing.
    ///
    /// The endpoint should have registered as parking; another one is looked at every millisecond. For a time limit see
    /// [`receive_async_until`](Self::receive_async_until), or the executor's timeout.
    ///
    /// # Errors
    /// [`ReceiveError::Stopped`] as for [`receive`](Endpoint::receive).
    ///
    /// # Panics
    /// If the system gives no thread for the watcher.
    pub const fn receive_async(&mut self) -> ReceiveAsync<'_, Sh> {
        ReceiveAsync { sleeper: Sleeper::new(self), deadline: None, drains: true }
    }

    /// As [`receive_async`](Self::receive_async), until a point in time. The endpoint's watcher keeps the time: the
    /// executor needs no timer.
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
    /// If the system gives no thread for the watcher.
    pub const fn receive_async_until(&mut self, deadline: Instant) -> ReceiveAsync<'_, Sh> {
        ReceiveAsync { sleeper: Sleeper::new(self), deadline: Some(deadline), drains: true }
    }

    /// As [`receive_async_until`](Self::receive_async_until), for a kernel that goes on waiting while it drains.
    pub(crate) const fn receive_async_draining(&mut self, deadline: Instant) -> ReceiveAsync<'_, Sh> {
        ReceiveAsync { sleeper: Sleeper::new(self), deadline: Some(deadline), drains: false }
    }

    /// [`run`](Self::run) as a task, with any executor. The handler's methods must not block; after 64 messages in a row
    /// the other tasks have their turn.
    ///
    /// A future that is dropped ends the loop between two messages, without [`Kernel::on_stop`].
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
    /// If the system gives no thread for the watcher.
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

/// An endpoint that a task waits at, and the sleep that its last poll began. Dropping it ends the sleep.
#[derive(Debug)]
pub(crate) struct Sleeper<'e, Sh: Shape<Scope = System>> {
    endpoint: &'e mut Endpoint<Sh>,
    asleep: Option<Sleep<'static>>,
    /// Sleeps so far.
    slices: u32,
    /// The watcher knows of this task.
    armed: bool,
}

impl<'e, Sh: Shape<Scope = System>> Sleeper<'e, Sh> {
    pub(crate) const fn new(endpoint: &'e mut Endpoint<Sh>) -> Self {
        Self { endpoint, asleep: None, slices: 0, armed: false }
    }

    pub(crate) const fn endpoint(&mut self) -> &mut Endpoint<Sh> {
        self.endpoint
    }

    /// Ends the sleep that the last poll began. `true` if its kernel was woken, or naps because something that it waits
    /// for wakes nobody.
    fn wake_up(&mut self) -> bool {
        let Some(sleep) = self.asleep.take() else { return false };
        let done = sleep.is_over() || wait::naps(self.endpoint.core(), &sleep);
        sleep.end();
        done
    }

    /// Has the task polled again when something awaited is there, at the end of a slice, or at `until`. `false` if it is
    /// there already.
    fn sleep(&mut self, awaited: Awaited, until: Option<Instant>, waker: &Waker) -> bool {
        let core = self.endpoint.core();
        let Some(sleep) = awaited.fall_asleep(core) else { return false };
        let slice_ends = Instant::now() + wait::rest(core, &sleep, self.slices);
        self.slices = self.slices.saturating_add(1);
        self.asleep = Some(sleep);
        let until = until.map_or(slice_ends, |until| until.min(slice_ends));
        self.arm(waker, Armed { sleep: Some(sleep), until });
        true
    }

    /// Has the task polled again after a nap.
    pub(crate) fn nap(&mut self, waker: &Waker) {
        self.arm(waker, Armed { sleep: None, until: Instant::now() + wait::LONGEST_NAP });
    }

    fn arm(&mut self, waker: &Waker, armed: Armed) {
        self.armed = true;
        self.endpoint.watch(waker, armed);
    }
}

impl<Sh: Shape<Scope = System>> Drop for Sleeper<'_, Sh> {
    fn drop(&mut self) {
        if !self.armed || !self.endpoint.as_core().platform().is_here() {
            return;
        }
        if let Some(sleep) = self.asleep.take() {
            sleep.end();
        }
        if let Some(watcher) = &self.endpoint.watcher {
            watcher.disarm();
        }
    }
}

impl<Sh: Shape<Scope = System>> Endpoint<Sh> {
    /// Waits for a nap, whatever comes.
    pub(crate) async fn nap_async(&mut self) {
        let mut sleeper = Sleeper::new(self);
        let until = Instant::now() + wait::LONGEST_NAP;
        core::future::poll_fn(move |context| {
            if until <= Instant::now() {
                return Poll::Ready(());
            }
            sleeper.nap(context.waker());
            Poll::Pending
        })
        .await;
    }
}

/// What [`Endpoint::receive_async`] returns.
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
        if this.until.is_some_and(|until| until <= Instant::now()) {
            return Poll::Ready(true);
        }
        if this.sleeper.sleep(this.awaited, this.until, context.waker()) { Poll::Pending } else { Poll::Ready(false) }
    }
}

impl<Sh: Shape<Scope = System>> Endpoint<Sh> {
    /// Lets the watcher wake a task when the sleep is over.
    fn watch(&mut self, waker: &Waker, armed: Armed) {
        if self.watcher.is_none() {
            let flag = self.core().wake_flag();
            self.watcher = Some(Watcher::start(self.memory().clone(), self.id(), flag));
        }
        if let Some(watcher) = &self.watcher {
            watcher.arm(waker.clone(), armed);
        }
    }
}

/// What a task and its watcher share.
#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The sleep that the watcher watches.
    armed: Option<Armed>,
    /// Whom to wake.
    waker: Option<Waker>,
    /// The watcher is in the futex, or about to be.
    asleep: bool,
    /// The endpoint goes.
    quit: bool,
}

/// A kernel's sleep, or a nap that nothing ends early (`None`); and when it ends by itself.
#[derive(Clone, Copy, Debug)]
struct Armed {
    /// Lives as long as the memory, of which the endpoint and the watcher's thread have a share each.
    sleep: Option<Sleep<'static>>,
    until: Instant,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread that sleeps in a task's place. Dropping it ends the thread.
#[derive(Debug)]
pub(crate) struct Watcher {
    shared: Arc<Shared>,
    /// As for [`Armed::sleep`]: an endpoint drops its watcher before its memory.
    flag: &'static WakeFlag,
    thread: Option<Own<JoinHandle<()>>>,
}

impl Watcher {
    fn start<Sh: Shape<Scope = System>>(memory: Memory<Sh>, id: KernelId, flag: &'static WakeFlag) -> Self {
        let shared = Arc::new(Shared::default());
        let for_thread = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name(format!("k2k-watch-{}", id.index()))
            .spawn(move || {
                for_thread.watch();
                // What was armed points into the memory.
                drop(for_thread);
                drop(memory);
            })
            .expect("the system gives a thread for the watcher of an endpoint");
        Self { shared, flag, thread: Some(Own::new(thread)) }
    }

    fn arm(&self, waker: Waker, armed: Armed) {
        let mut state = self.shared.lock();
        state.armed = Some(armed);
        let asleep = state.asleep;
        let old = state.waker.replace(waker);
        drop(state);
        if asleep {
            // It either finds another number in the word than it expects, or is in the futex by now.
            nudge(self.flag);
        } else {
            self.shared.changed.notify_one();
        }
        drop(old);
    }

    /// Forgets the task.
    fn disarm(&self) {
        let mut state = self.shared.lock();
        state.armed = None;
        let waker = state.waker.take();
        drop(state);
        drop(waker);
    }
}

impl Shared {
    fn watch(&self) {
        let mut state = self.lock();
        while !state.quit {
            let Some(armed) = state.armed else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let rest = armed.until.saturating_duration_since(Instant::now());
            // After a sleep or a nap, whatever is armed now is looked at anew.
            match armed.sleep {
                _ if rest.is_zero() => {}
                Some(sleep) if sleep.is_over() => {}
                Some(sleep) => {
                    state.asleep = true;
                    drop(state);
                    sleep_for(&sleep, rest);
                    state = self.lock();
                    state.asleep = false;
                    continue;
                }
                None => {
                    state = self.changed.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner).0;
                    continue;
                }
            }
            state.armed = None;
            let waker = state.waker.take();
            drop(state);
            // Outside of the lock: a waker may run the task, which may arm this watcher or drop it.
            if let Some(waker) = waker {
                // The panic's hook has told of a panic.
                let _ = contain(|| waker.wake());
            }
            state = self.lock();
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take().and_then(Own::into_inner) else {
            // A forked process: the lock may be held, and the thread is the parent's.
            return;
        };
        let mut state = self.shared.lock();
        state.quit = true;
        let armed = state.armed.take();
        drop(state);
        self.shared.changed.notify_one();
        // The watcher finds its sleep over, or is in the futex by now.
        if let Some(sleep) = armed.and_then(|armed| armed.sleep) {
            sleep.end();
        }
        nudge(self.flag);
        // A waker may drop the task, and with it the endpoint, on the watcher's own thread.
        if thread.thread().id() != thread::current().id() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k2k_core::Config;
    use std::sync::mpsc;
    use std::task::Wake;

    struct Tells(mpsc::Sender<()>);
    impl Wake for Tells {
        fn wake(self: Arc<Self>) {
            let _ = self.0.send(());
        }
    }

    #[test]
    fn a_watcher_that_is_asleep_hears_of_a_shorter_sleep() {
        let memory: Memory<k2k_core::Fixed<4, 8, 64>> = Memory::heap(&Config::default()).unwrap();
        let mut endpoint = memory.register_owned(&k2k_core::Registration::new("a").unwrap().parking()).unwrap();
        let (tell, told) = mpsc::channel();
        let waker = Waker::from(Arc::new(Tells(tell)));
        for pause in [Duration::ZERO, Duration::from_millis(20)] {
            for rest in [Duration::from_secs(600), Duration::from_millis(10)] {
                let sleep = endpoint.core().fall_asleep(Command::Run).unwrap();
                endpoint.watch(&waker, Armed { sleep: Some(sleep), until: Instant::now() + rest });
                std::thread::sleep(pause);
            }
            told.recv_timeout(Duration::from_secs(60)).expect("the end of the shorter sleep");
        }
    }
}
