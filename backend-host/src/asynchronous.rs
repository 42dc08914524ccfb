//! Receiving in `async` code, with any executor and without blocking its threads.
//!
//! A sender, perhaps in another process, wakes a sleeping kernel through a futex, and nobody can `await` a futex. So
//! each endpoint that is awaited gets a watcher: a thread that sleeps at the endpoint's wake flag in its place and then
//! calls the task's waker. It is started by the first `await` that finds no mail, and ends with the endpoint.
//!
//! ```text
//!   task:      look ── none ── wake flag: asleep ── look again ── arm watcher ── Pending            poll: look ── Ready
//!   watcher:                                                        └─> futex wait ──────> wake task ───┘
//!   sender:                                               publish ── wake flag: awake, futex wake ──┘
//! ```
//!
//! 1. Only the task reads the inbox and says that it sleeps. The watcher touches nothing but the wake flag's word, as a
//!    futex, and what the two share under a lock.
//! 2. A message is taken out of the inbox in the same `poll` that returns it. So a future that is dropped, by `select!`
//!    or by a timeout, has taken none.
//! 3. Every return of the watcher from its sleep wakes the task, and every `poll` that returns `Pending` arms the
//!    watcher again. A wake-up too many costs a look; one too few cannot happen.

use crate::platform::{ring, sleep_at};
use crate::process::Own;
use crate::wait::{self, ReceiveError};
use crate::{Endpoint, Host, Memory};
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use k2k_core::WakeFlag;
use k2k_core::{Endpoint as Core, Fabric, Message, Platform as _};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

impl<const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize> Endpoint<KERNELS, SLOTS, PAYLOAD> {
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
    pub const fn receive_async(&mut self) -> ReceiveAsync<'_, KERNELS, SLOTS, PAYLOAD> {
        ReceiveAsync { endpoint: self, polls: 0 }
    }
}

/// What [`Endpoint::receive_async`] returns.
#[must_use = "a future does nothing until it is awaited"]
#[derive(Debug)]
pub struct ReceiveAsync<'e, const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize> {
    endpoint: &'e mut Endpoint<KERNELS, SLOTS, PAYLOAD>,
    /// Polls that found nothing.
    polls: u32,
}

impl<const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize> Future
    for ReceiveAsync<'_, KERNELS, SLOTS, PAYLOAD>
{
    type Output = Result<Message<PAYLOAD>, ReceiveError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let core = this.endpoint.core();
        if !core.platform().is_here() {
            return Poll::Ready(Err(ReceiveError::Forked));
        }
        core.wake_flag().wake_up();
        if let Some(message) = core.try_receive() {
            return Poll::Ready(Ok(message));
        }
        if wait::is_stopped(core) {
            return Poll::Ready(Err(ReceiveError::Stopped));
        }
        this.polls = this.polls.saturating_add(1);
        // As many passes as it takes for the longest nap: a waker is no cheap thing.
        match wait::fall_asleep(core, u32::MAX) {
            Some((rest, _)) => this.endpoint.watch(context.waker(), rest),
            None => context.waker().wake_by_ref(),
        }
        Poll::Pending
    }
}

impl<const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize> Drop
    for ReceiveAsync<'_, KERNELS, SLOTS, PAYLOAD>
{
    fn drop(&mut self) {
        if self.polls > 0 && self.endpoint.as_core().platform().is_here() {
            let wake_flag = self.endpoint.as_core().wake_flag();
            wake_flag.wake_up();
            if self.endpoint.watcher.as_ref().is_some_and(Watcher::disarm) {
                ring(wake_flag);
            }
        }
    }
}

impl<const KERNELS: usize, const SLOTS: usize, const PAYLOAD: usize> Endpoint<KERNELS, SLOTS, PAYLOAD> {
    /// Lets the watcher wake a task when the wake flag rings, or after `rest`.
    fn watch(&mut self, waker: &Waker, rest: Option<Duration>) {
        if self.watcher.is_none() {
            self.watcher = Some(Watcher::start(self.memory().clone(), self.as_core()));
        }
        if let Some(watcher) = &self.watcher {
            watcher.arm(waker, rest);
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
    /// The watcher has something to watch: for so long at most.
    armed: Option<Option<Duration>>,
    /// Whom to wake.
    waker: Option<Waker>,
    /// The endpoint goes.
    quit: bool,
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
    wake_flag: WakeFlagRef,
    thread: Option<Own<JoinHandle<()>>>,
}

/// A wake flag whose memory the holder keeps alive.
#[derive(Clone, Copy, Debug)]
struct WakeFlagRef(*const WakeFlag);

// SAFETY: `WakeFlag: Sync`; the pointer is used only while the memory is held.
unsafe impl Send for WakeFlagRef {}
// SAFETY: as above.
unsafe impl Sync for WakeFlagRef {}

impl WakeFlagRef {
    /// # Safety
    /// The memory of the fabric is alive.
    const unsafe fn get<'a>(self) -> &'a WakeFlag {
        // SAFETY: made from a reference; the caller vouches that its memory is still there.
        unsafe { &*self.0 }
    }
}

impl Watcher {
    fn start<const K: usize, const S: usize, const P: usize>(
        memory: Memory<K, S, P>,
        endpoint: &Core<'_, Host, K, S, P>,
    ) -> Self
    where
        Fabric<K, S, P>: Sync,
    {
        let shared = Arc::new(Shared::default());
        let wake_flag = WakeFlagRef(endpoint.wake_flag());
        let for_thread = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name(format!("k2k-watch-{}", endpoint.id().index()))
            .spawn(move || {
                let wake_flag = wake_flag;
                // SAFETY: `memory` lives until the end of this thread.
                for_thread.watch(unsafe { wake_flag.get() });
                drop(memory);
            })
            .expect("the system gives a thread for the watcher of an endpoint");
        Self { shared, wake_flag, thread: Some(Own::new(thread)) }
    }

    fn arm(&self, waker: &Waker, rest: Option<Duration>) {
        let mut state = self.shared.lock();
        state.armed = Some(rest);
        match &mut state.waker {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        drop(state);
        self.shared.changed.notify_one();
    }

    /// Forgets the task; `true` if the watcher may be asleep for it.
    fn disarm(&self) -> bool {
        let mut state = self.shared.lock();
        let waker = state.waker.take();
        let armed = state.armed.take().is_some();
        drop(state);
        drop(waker);
        armed
    }
}

impl Shared {
    fn watch(&self, wake_flag: &WakeFlag) {
        let mut state = self.lock();
        while !state.quit {
            let Some(rest) = state.armed else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(state);
            sleep_at(wake_flag, rest);
            state = self.lock();
            state.armed = None;
            let waker = state.waker.take();
            drop(state);
            // Outside of the lock: a waker may run the task, which may arm this watcher or drop it.
            if let Some(waker) = waker {
                waker.wake();
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
        self.shared.lock().quit = true;
        self.shared.changed.notify_one();
        // SAFETY: an endpoint drops its watcher before its memory.
        let wake_flag = unsafe { self.wake_flag.get() };
        // From here on nobody says that this kernel sleeps, so the watcher either finds the word cleared or is woken.
        wake_flag.wake_up();
        ring(wake_flag);
        // A waker may drop the task, and with it the endpoint, on the watcher's own thread.
        if thread.thread().id() != thread::current().id() {
            let _ = thread.join();
        }
    }
}
