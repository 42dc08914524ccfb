//! Waiting until a kernel of some name has registered, or until a kernel has left.
//!
//! A registration wakes no waiter, so a wait looks at the kernel table again and again: at once to begin with, then in
//! naps that grow to 1 ms. A wait of an [`Endpoint`] forwards transit traffic meanwhile and ends when its kernel is told
//! to stop; mail for the kernel stays in its inbox. A wait of a [`Broker`] belongs to no kernel, so it takes a time
//! limit.
//!
//! A kernel whose process died is registered until it is [reaped](Broker::reap).
//!
//! ```
//! use core::time::Duration;
//! use k2k::{Broker, Message, PresenceError};
//!
//! let broker: Broker = Broker::builder().build()?;
//! let mut me = broker.register("me")?;
//! let for_thread = broker.clone();
//! let late = std::thread::spawn(move || {
//!     std::thread::sleep(Duration::from_millis(20));
//!     let mut server = for_thread.register("server").unwrap();
//!     server.receive(Duration::from_secs(5)).unwrap();
//! });
//! let server = me.wait_for_kernel("server", Duration::from_secs(5))?;
//! me.send(server, &Message::new(1))?;
//!
//! // It ends with the message, and its endpoint with it.
//! me.wait_until_gone(server, Duration::from_secs(5))?;
//! # late.join().unwrap();
//! let missing = broker.wait_for_kernel("server", Duration::from_millis(10)).unwrap_err();
//! assert!(matches!(missing, PresenceError::NotRegistered { .. }));
//! assert_eq!(missing.to_string(), "no kernel registered as \"server\" within 10ms");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::asynchronous::Sleeper;
use crate::wait::{ReceiveError, stopped};
use crate::{Broker, Endpoint, Wait};
use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use k2k_core::fabric::{Name, NameError};
use k2k_core::sync::System;
use k2k_core::{FabricRef, KernelId, Shape};
use std::time::Instant;

/// Why a wait for a kernel, or for its end, came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PresenceError {
    /// No kernel can have this name.
    Name(NameError),
    /// No kernel of this name registered in time.
    NotRegistered {
        /// The name.
        name: Name,
        /// The time limit.
        waited: Duration,
    },
    /// The kernel did not leave in time.
    StillRegistered {
        /// The kernel.
        kernel: KernelId,
        /// The time limit.
        waited: Duration,
    },
    /// A supervisor told the waiting kernel to stop.
    Stopped,
    /// This process was forked: the endpoint is a copy.
    Forked,
    /// The owner of the waiting kernel was taken for dead, and another took the kernel over.
    Evicted,
}

impl fmt::Display for PresenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(e) => e.fmt(f),
            Self::NotRegistered { name, waited } => {
                write!(f, "no kernel registered as {:?} within {waited:?}", name.as_str())
            }
            Self::StillRegistered { kernel, waited } => {
                write!(f, "{kernel} did not leave within {waited:?}: it stays until its endpoint is dropped or reaped")
            }
            Self::Stopped => ReceiveError::Stopped.fmt(f),
            Self::Forked => ReceiveError::Forked.fmt(f),
            Self::Evicted => ReceiveError::Evicted.fmt(f),
        }
    }
}

impl core::error::Error for PresenceError {}

impl From<ReceiveError> for PresenceError {
    /// Of an error that ends a wait of a kernel, other than its time limit.
    fn from(e: ReceiveError) -> Self {
        match e {
            ReceiveError::Forked => Self::Forked,
            ReceiveError::Evicted => Self::Evicted,
            ReceiveError::Stopped | ReceiveError::Timeout => Self::Stopped,
        }
    }
}

/// The change that a wait is for.
#[derive(Clone, Copy, Debug)]
enum Change {
    Registers(Name),
    Leaves(KernelId),
}

impl Change {
    fn registers(name: &str) -> Result<Self, PresenceError> {
        Name::new(name).map(Self::Registers).map_err(PresenceError::Name)
    }

    /// The kernel, once the change has happened.
    fn look<Sh: Shape<Scope = System>>(self, fabric: FabricRef<'_, Sh>) -> Option<KernelId> {
        match self {
            Self::Registers(name) => fabric.find(name.as_str()),
            Self::Leaves(kernel) => (!fabric.is_registered(kernel)).then_some(kernel),
        }
    }

    const fn late(self, waited: Duration) -> PresenceError {
        match self {
            Self::Registers(name) => PresenceError::NotRegistered { name, waited },
            Self::Leaves(kernel) => PresenceError::StillRegistered { kernel, waited },
        }
    }
}

impl<Sh: Shape<Scope = System>> Broker<Sh> {
    /// The kernel of that name, as soon as there is one: see [`presence`](self).
    ///
    /// # Errors
    /// [`PresenceError::NotRegistered`] when `timeout` has passed; [`PresenceError::Name`] at once.
    pub fn wait_for_kernel(&self, name: &str, timeout: Duration) -> Result<KernelId, PresenceError> {
        self.await_change(Change::registers(name)?, timeout)
    }

    /// Returns when `kernel` has left.
    ///
    /// # Errors
    /// [`PresenceError::StillRegistered`] when `timeout` has passed.
    pub fn wait_until_gone(&self, kernel: KernelId, timeout: Duration) -> Result<(), PresenceError> {
        self.await_change(Change::Leaves(kernel), timeout).map(drop)
    }

    fn await_change(&self, change: Change, timeout: Duration) -> Result<KernelId, PresenceError> {
        let (began, mut passes) = (Instant::now(), 0u32);
        loop {
            if let Some(kernel) = change.look(self.memory().fabric()) {
                return Ok(kernel);
            }
            if began.elapsed() >= timeout {
                return Err(change.late(timeout));
            }
            passes = passes.saturating_add(1);
            Wait::Park.nap(passes);
        }
    }
}

impl<Sh: Shape<Scope = System>> Endpoint<Sh> {
    /// The kernel of that name, as soon as there is one; waits for `timeout` (a [`Duration`]), or for ever (`None`): see
    /// [`presence`](self).
    ///
    /// # Errors
    /// [`PresenceError::NotRegistered`] when `timeout` has passed, [`PresenceError::Name`] at once,
    /// [`PresenceError::Stopped`] when a supervisor has sent [`Command::Stop`](k2k_core::Command::Stop) to this kernel.
    pub fn wait_for_kernel(
        &mut self,
        name: &str,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<KernelId, PresenceError> {
        self.await_change(Change::registers(name)?, timeout.into())
    }

    /// Returns when `kernel` has left; waits for `timeout` (a [`Duration`]), or for ever (`None`).
    ///
    /// # Errors
    /// [`PresenceError::StillRegistered`] when `timeout` has passed, [`PresenceError::Stopped`] as for
    /// [`wait_for_kernel`](Self::wait_for_kernel).
    pub fn wait_until_gone(
        &mut self,
        kernel: KernelId,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<(), PresenceError> {
        self.await_change(Change::Leaves(kernel), timeout.into()).map(drop)
    }

    /// [`wait_for_kernel`](Self::wait_for_kernel) for `async` code, with any executor: it looks every millisecond.
    ///
    /// # Errors
    /// As for [`wait_for_kernel`](Self::wait_for_kernel).
    ///
    /// # Panics
    /// If the system gives no thread for the helper, which the first `await` of a process starts.
    pub async fn wait_for_kernel_async(
        &mut self,
        name: &str,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<KernelId, PresenceError> {
        let (change, timeout) = (Change::registers(name)?, timeout.into());
        AwaitChange { sleeper: Sleeper::new(self), change, began: Instant::now(), timeout }.await
    }

    /// [`wait_until_gone`](Self::wait_until_gone) for `async` code, with any executor: it looks every millisecond.
    ///
    /// # Errors
    /// As for [`wait_until_gone`](Self::wait_until_gone).
    ///
    /// # Panics
    /// If the system gives no thread for the helper, which the first `await` of a process starts.
    pub async fn wait_until_gone_async(
        &mut self,
        kernel: KernelId,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<(), PresenceError> {
        let (change, timeout) = (Change::Leaves(kernel), timeout.into());
        AwaitChange { sleeper: Sleeper::new(self), change, began: Instant::now(), timeout }.await.map(drop)
    }

    fn await_change(&mut self, change: Change, timeout: Option<Duration>) -> Result<KernelId, PresenceError> {
        let (wait, began, mut passes) = (self.wait(), Instant::now(), 0u32);
        loop {
            if let Some(decided) = self.look_for(change, began, timeout) {
                return decided;
            }
            passes = passes.saturating_add(1);
            wait.nap(passes);
        }
    }

    /// One look: the end of the wait, if it has come. Passes transit traffic on.
    fn look_for(
        &mut self,
        change: Change,
        began: Instant,
        timeout: Option<Duration>,
    ) -> Option<Result<KernelId, PresenceError>> {
        // A forked process's copy would see the fabric, and could do nothing with what it finds.
        if let Err(why) = stopped(self.core()) {
            return Some(Err(why.into()));
        }
        if let Some(kernel) = change.look(self.fabric()) {
            return Some(Ok(kernel));
        }
        if let Some(timeout) = timeout
            && began.elapsed() >= timeout
        {
            return Some(Err(change.late(timeout)));
        }
        self.poll();
        None
    }
}

/// A wait of a task.
struct AwaitChange<'e, Sh: Shape<Scope = System>> {
    sleeper: Sleeper<'e, Sh>,
    change: Change,
    began: Instant,
    timeout: Option<Duration>,
}

impl<Sh: Shape<Scope = System>> Future for AwaitChange<'_, Sh> {
    type Output = Result<KernelId, PresenceError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        match this.sleeper.endpoint().look_for(this.change, this.began, this.timeout) {
            Some(decided) => Poll::Ready(decided),
            None => {
                this.sleeper.nap(context.waker());
                Poll::Pending
            }
        }
    }
}
