//! Receiving in `async` code, with any executor and without blocking its threads.
//!
//! Sending needs no counterpart: [`send`](Endpoint::send) and [`reply`](Endpoint::reply) never wait. Where they answer
//! [`QueueFull`](crate::SendError::QueueFull), sleep for a moment with the executor's timer and try again, because room in
//! an inbox wakes no task; [`send_blocking`](Endpoint::send_blocking) would block the executor's thread.
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
use k2k_core::Shape;
use k2k_core::sync::System;
use k2k_core::{KernelId, Platform as _, Sleep, WakeFlag};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

impl<Sh: Shape<Scope = System>> Endpoint<Sh> {
    /// The next message; `await` it in any executor. Dropping the future loses nothing.
    ///
    /// The endpoint should have registered as parking; another one is looked at every millisecond. A timeout is the
    /// executor's: `tokio::time::timeout(t, endpoint.receive_async())`.
    ///
    /// # Errors
    /// [`ReceiveError::Stopped`] as for [`receive`](Endpoint::receive).
    ///
    /// # Panics
    /// If the system gives no thread for the watcher.
    pub const fn receive_async(&mut self) -> ReceiveAsync<'_, Sh> {
        ReceiveAsync { endpoint: self, asleep: None, slices: 0 }
    }
}

/// What [`Endpoint::receive_async`] returns.
#[must_use = "a future does nothing until it is awaited"]
#[derive(Debug)]
pub struct ReceiveAsync<'e, Sh: Shape<Scope = System>> {
    endpoint: &'e mut Endpoint<Sh>,
    /// The sleep that the last poll began.
    asleep: Option<Sleep<'static>>,
    /// Sleeps so far.
    slices: u32,
}

impl<Sh: Shape<Scope = System>> Future for ReceiveAsync<'_, Sh> {
    type Output = Result<Sh::Item, ReceiveError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let core = this.endpoint.core();
        if !core.platform().is_here() {
            return Poll::Ready(Err(ReceiveError::Forked));
        }
        if let Some(sleep) = this.asleep.take() {
            sleep.end();
        }
        if let Some(message) = core.try_receive() {
            return Poll::Ready(Ok(message));
        }
        let obeyed = match wait::obeyed(core) {
            Ok(obeyed) => obeyed,
            Err(why) => return Poll::Ready(Err(why)),
        };
        match Awaited::Mail(obeyed).fall_asleep(core) {
            Some(sleep) => {
                let until = Instant::now() + wait::rest(core, &sleep, this.slices);
                this.slices = this.slices.saturating_add(1);
                this.asleep = Some(sleep);
                this.endpoint.watch(context.waker(), Armed { sleep, until });
            }
            None => context.waker().wake_by_ref(),
        }
        Poll::Pending
    }
}

impl<Sh: Shape<Scope = System>> Drop for ReceiveAsync<'_, Sh> {
    fn drop(&mut self) {
        if let Some(sleep) = self.asleep.take()
            && self.endpoint.as_core().platform().is_here()
        {
            sleep.end();
            if let Some(watcher) = &self.endpoint.watcher {
                watcher.disarm();
            }
        }
    }
}

impl<Sh: Shape<Scope = System>> Endpoint<Sh> {
    /// Lets the watcher wake a task when the sleep is over.
    fn watch(&mut self, waker: &Waker, armed: Armed) {
        if self.watcher.is_none() {
            self.watcher = Some(Watcher::start(self.memory().clone(), self.id(), armed.sleep.flag()));
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

/// A kernel's sleep, and when it ends by itself.
#[derive(Clone, Copy, Debug)]
struct Armed {
    /// Lives as long as the memory, of which the endpoint and the watcher's thread have a share each.
    sleep: Sleep<'static>,
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
            if !rest.is_zero() && !armed.sleep.is_over() {
                state.asleep = true;
                drop(state);
                sleep_for(&armed.sleep, rest);
                state = self.lock();
                state.asleep = false;
                // Whatever is armed now is looked at anew.
                continue;
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
        if let Some(armed) = armed {
            armed.sleep.end();
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
    use core::time::Duration;
    use k2k_core::{Command, Config};
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
                endpoint.watch(&waker, Armed { sleep, until: Instant::now() + rest });
                std::thread::sleep(pause);
            }
            told.recv_timeout(Duration::from_secs(60)).expect("the end of the shorter sleep");
        }
    }
}
