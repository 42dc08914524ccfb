//! Kernels on threads of their own: starting, steering and joining.
//!
//! A panic in a handler ends only its kernel: the panic is caught, the index is marked as failed (senders get `NotFound`,
//! the trace stays readable until the index is [cleared](crate::Broker::clear_failed)), and [`KernelHandle::join`]
//! reports the panic. Programs built with `panic = "abort"` end instead.

mod error;

pub use error::{HangReport, KernelFailure, StartError, StopError};

use crate::broker::{Broker, ControlError};
use crate::contain::{Contained, contain, words_of};
use crate::process::Own;
use crate::wait::Wait;
use core::fmt;
use core::time::Duration;
use k2k_core::Fixed;
use k2k_core::Shape;
use k2k_core::sync::System;
use k2k_core::{Command, Kernel, KernelId, Message, Phase};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::io;
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

/// How a kernel's thread waits, and on which core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartOptions {
    /// How the kernel waits for mail. With [`Wait::Park`] the kernel registers as parking.
    pub wait: Wait,
    /// The core to bind the thread to, counted from 0 as the system does; `None`: any.
    pub pin: Option<usize>,
    /// Longest time between wake-ups of a parked kernel, to give a sign of life, to settle its own overdue messages, and to
    /// call [`Kernel::on_idle`]. A kernel that retries sends from `on_idle` answers
    /// [`Idle::Soon`](k2k_core::Idle::Soon) and is called much sooner: room in an inbox wakes no kernel.
    pub heartbeat: Duration,
}

impl Default for StartOptions {
    /// Parks, runs on any core, gives a sign of life every 250 ms.
    fn default() -> Self {
        Self { wait: Wait::Park, pin: None, heartbeat: Duration::from_millis(250) }
    }
}

/// A kernel on a thread of its own. After a drop of the handle the kernel runs on; the [`Broker`] can still stop it.
pub struct KernelHandle<T, Sh: Shape<Scope = System> = Fixed<16, 256, 192>> {
    id: KernelId,
    name: String,
    broker: Broker<Sh>,
    end: Own<Mutex<mpsc::Receiver<Result<T, KernelFailure>>>>,
    thread: Own<JoinHandle<()>>,
}

impl<const PAYLOAD: usize, Sh: Shape<Scope = System, Item = Message<PAYLOAD>>> Broker<Sh> {
    /// Registers a kernel under this name and runs the kernel on a thread of its own, until it stops itself or is stopped.
    ///
    /// # Errors
    /// [`StartError`]; then the kernel is dropped, and its name and index are free.
    pub fn start<T: Kernel<PAYLOAD> + Send + 'static>(
        &self,
        name: &str,
        kernel: T,
        options: StartOptions,
    ) -> Result<KernelHandle<T, Sh>, StartError> {
        if let Some(core) = options.pin {
            let allowed = allowed_cores();
            if !allowed.contains(&core) {
                return Err(StartError::NoSuchCore { core, allowed });
            }
        }
        let mut endpoint = if options.wait == Wait::Park { self.register_parking(name)? } else { self.register(name)? };
        endpoint.set_wait(options.wait);
        let id = endpoint.id();
        let (pinned, is_pinned) = mpsc::sync_channel(1);
        let (ended, end) = mpsc::sync_channel(1);
        let ended = Own::new(ended);
        let broker = self.clone();
        let for_thread = (broker.clone(), name.to_owned());
        // From here on a panic of the kernel's destructor harms neither the caller nor another kernel.
        let mut kernel = Contained::new(kernel);
        let run = move || {
            let result = options.pin.map_or(Ok(()), pin_to);
            let go = result.is_ok();
            let _ = pinned.send(result);
            if !go {
                return;
            }
            let (broker, name) = for_thread;
            // A handler's panic corrupts at most the kernel's own state, dropped below. The handler calls the endpoint,
            // never the reverse, so the endpoint is whole.
            let result = contain(|| {
                if let Some(kernel) = kernel.get_mut() {
                    endpoint.run(kernel, options.heartbeat);
                }
            });
            if !broker.is_here() {
                // The handler forked, and this is the child: no caller waits for the child's copy of the kernel.
                return;
            }
            broker.forget_started(id);
            let result = match result {
                Ok(()) => {
                    drop(endpoint);
                    kernel.take()
                }
                Err(message) => {
                    endpoint.fail();
                    let failure = KernelFailure { id, name, message, trace: broker.trace(id) };
                    drop(kernel);
                    let _ = ended.send(Err(failure));
                    return;
                }
            };
            // If the handle is gone already, the kernel is dropped here.
            let _ = contain(|| result.map(|kernel| drop(ended.send(Ok(kernel)))));
        };
        self.remember_started(id);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(|e| {
            self.forget_started(id);
            StartError::Thread(e)
        })?;
        if let Ok(Err(why)) = is_pinned.recv() {
            let _ = thread.join();
            self.forget_started(id);
            return Err(StartError::Pin { core: options.pin.unwrap_or_default(), why });
        }
        Ok(KernelHandle { id, name: name.to_owned(), broker, end: Own::new(Mutex::new(end)), thread: Own::new(thread) })
    }
}

impl<T, Sh: Shape<Scope = System>> fmt::Debug for KernelHandle<T, Sh> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KernelHandle")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("phase", &self.phase())
            .field("heartbeat", &self.heartbeat())
            .finish_non_exhaustive()
    }
}

impl<T, Sh: Shape<Scope = System>> KernelHandle<T, Sh> {
    /// The kernel's address.
    #[must_use]
    pub const fn id(&self) -> KernelId {
        self.id
    }

    /// The kernel's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The kernel's phase, as the kernel reports it. After the kernel's end: the last phase at its index, perhaps of a later
    /// owner.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.broker.memory().fabric().phase(self.id).unwrap_or_default()
    }

    /// Passes of the run loop so far. If the count stands still for longer than [`StartOptions::heartbeat`], the kernel is
    /// in its handler.
    #[must_use]
    pub fn heartbeat(&self) -> u64 {
        self.broker.memory().fabric().heartbeat(self.id).unwrap_or_default()
    }

    /// Whether the kernel's thread has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Makes the kernel forward transit traffic, but handle no message.
    ///
    /// # Errors
    /// [`ControlError::NotRegistered`] if the kernel has ended.
    pub fn pause(&self) -> Result<(), ControlError> {
        self.broker.command(self.id, Command::Pause)
    }

    /// Makes the kernel handle messages again.
    ///
    /// # Errors
    /// [`ControlError::NotRegistered`] if the kernel has ended.
    pub fn resume(&self) -> Result<(), ControlError> {
        self.broker.command(self.id, Command::Run)
    }

    /// Makes the kernel handle the messages in its inbox, then stop.
    ///
    /// # Errors
    /// [`ControlError::NotRegistered`] if the kernel has ended.
    pub fn drain(&self) -> Result<(), ControlError> {
        self.broker.command(self.id, Command::Drain)
    }

    /// Makes the kernel stop after the message in hand.
    ///
    /// # Errors
    /// [`ControlError::NotRegistered`] if the kernel has ended.
    pub fn stop(&self) -> Result<(), ControlError> {
        self.broker.command(self.id, Command::Stop)
    }

    /// Waits until the kernel has ended, and returns the kernel's state.
    ///
    /// # Errors
    /// [`KernelFailure`] if the handler panicked, or if this is a forked process, where the thread does not exist.
    pub fn join(self) -> Result<T, KernelFailure> {
        if !self.thread.is_here() {
            return self.thread_is_done(None);
        }
        let result = self.end.lock().unwrap_or_else(PoisonError::into_inner).recv();
        self.thread_is_done(result.ok())
    }

    /// Stops the kernel, and waits for its end no longer than `timeout`.
    ///
    /// # Errors
    /// [`StopError::Hangs`] if the kernel has not stopped by then, with its last signs of life and this handle.
    pub fn stop_and_join(self, timeout: Duration) -> Result<T, StopError<T, Sh>> {
        if !self.thread.is_here() {
            return self.thread_is_done(None).map_err(StopError::Failed);
        }
        let before = self.heartbeat();
        // A kernel that has left already needs no command.
        let _ = self.stop();
        let outcome = self.end.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(timeout);
        match outcome {
            Err(mpsc::RecvTimeoutError::Timeout) => Err(StopError::Hangs(Box::new(HangReport {
                waited: timeout,
                phase: self.phase(),
                heartbeats: (before, self.heartbeat()),
                trace: self.broker.trace(self.id),
                handle: self,
            }))),
            result => self.thread_is_done(result.ok()).map_err(StopError::Failed),
        }
    }

    fn thread_is_done(self, result: Option<Result<T, KernelFailure>>) -> Result<T, KernelFailure> {
        let Self { id, name, broker, thread, .. } = self;
        let Some(thread) = thread.into_inner() else {
            let message = "its thread is the parent's: this process was forked, and has only a copy of the handle";
            return Err(KernelFailure { id, name, message: message.to_owned(), trace: Vec::new() });
        };
        let outcome = thread.join();
        result.unwrap_or_else(|| {
            // Only a panic outside of the handler ends the thread without a result: a panic while the endpoint left.
            let message = outcome.err().map_or_else(|| "its thread ended without a word".to_owned(), words_of);
            Err(KernelFailure { id, name, message, trace: broker.trace(id) })
        })
    }
}

/// The cores that this process may run on.
#[must_use]
pub fn allowed_cores() -> Vec<usize> {
    let set = sched_getaffinity(None).unwrap_or_default();
    (0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect()
}

fn pin_to(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}
