//! Finding dead owners, and freeing their indices.
//!
//! Each index names its owner's process ([`owner`]). A reaper looks through all indices and seizes those whose owner is
//! gone, whether the owner died while registering, working or leaving. In the dead kernel's stead the reaper finishes or
//! undoes half-done steps, settles mail for that kernel as `NotFound`, passes transit traffic on, and frees the name and
//! the index.
//!
//! | the owner | what happens |
//! | --- | --- |
//! | gone: no process of that id, or only a process started at another time | reaped |
//! | there, also if it is stopped (SIGSTOP) or hangs | left alone |
//! | of another boot, container or namespace of process ids, or without a recorded process | left alone, and reported as unknown |
//! | has [failed](crate::Endpoint::fail), or its handler has panicked; there or gone | left alone, and reported as failed: see [`Broker::clear_failed`] |
//!
//! Several reapers may work at once, in any processes: a compare-exchange seizes an index. A reaper's death while it reaps
//! is found by the next reaper, like any owner's. A kernel may be reaped although its process goes on (a restored
//! checkpoint, say). Such a kernel does no harm: its address is gone, and its next operation reports so.

use super::Broker;
use crate::contain::contain;
use crate::owner::{self, OwnerState};
use crate::platform::Host;
use core::fmt;
use core::time::Duration;
use k2k_core::KernelId;
use k2k_core::Shape;
use k2k_core::fabric::{Name, Status};
use k2k_core::sync::System;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

/// A kernel whose owner was gone, and whose index is free again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReapedKernel {
    /// The kernel's address. If the owner died before the address was assigned, the address before.
    pub id: KernelId,
    /// The kernel's name, unless the owner died before writing it.
    pub name: Option<Name>,
    /// The kernel's state at the death: [`Status::Registered`], or in the middle of registering or leaving.
    pub status: Option<Status>,
    /// The owner's process.
    pub process: u32,
}

impl fmt::Display for ReapedKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} ({})", self.id)?,
            None => write!(f, "{}", self.id)?,
        }
        write!(f, ", whose process {} is gone", self.process)
    }
}

/// A kernel that has failed. Its run has ended; its index stays as it is until [cleared](Broker::clear_failed).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailedKernel {
    /// The failed kernel's address.
    pub id: KernelId,
    /// The failed kernel's name.
    pub name: Option<Name>,
}

impl fmt::Display for FailedKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} ({})", self.id),
            None => write!(f, "{}", self.id),
        }
    }
}

/// Result of a look at all indices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReapReport {
    /// Kernels whose owner was gone.
    pub reaped: Vec<ReapedKernel>,
    /// Kernels that have failed, whether or not their processes go on. Their indices stay in use, so that name, phase
    /// and trace can be read, until [`Broker::clear_failed`] frees them.
    pub failed: Vec<FailedKernel>,
    /// Kernels whose owner may be alive or dead: this process cannot tell.
    pub unknown: Vec<KernelId>,
    /// Indices whose owner lives.
    pub alive: usize,
}

impl fmt::Display for ReapReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for reaped in &self.reaped {
            writeln!(f, "reaped {reaped}")?;
        }
        for id in &self.unknown {
            writeln!(
                f,
                "unknown: {id}, whose owner runs in another container or boot, or has not said which process it is"
            )?;
        }
        for failed in &self.failed {
            writeln!(f, "failed: {failed}, whose index is kept, with its trace, until it is cleared")?;
        }
        let [reaped, unknown, failed] = [self.reaped.len(), self.unknown.len(), self.failed.len()];
        write!(f, "{reaped} reaped, {} alive, {unknown} unknown, {failed} failed", self.alive)
    }
}

impl<Sh: Shape<Scope = System>> Broker<Sh> {
    /// Finds kernels whose process is gone, settles their messages, and frees their names and indices. Reads `/proc` once
    /// per index, so call it now and then, or let a [supervisor](Self::supervise) do so.
    ///
    /// A process killed a moment ago [counts as alive](crate::owner) until the system has ended all of its threads: a parent
    /// waits for its child first ([`Child::wait`](std::process::Child::wait)), another reaper finds the death at the next
    /// look. A kernel that starts again under the freed name gets a new address, found with [`find`](Self::find). To keep
    /// the dead kernel's address and waiting mail, its successor [takes the kernel over](Self::take_over) before a reaper
    /// does.
    ///
    /// ```
    /// use k2k::Broker;
    ///
    /// let broker: Broker = Broker::builder().build()?;
    /// let worker = broker.register("worker")?;
    /// let report = broker.reap();
    /// assert_eq!((report.reaped.len(), report.alive), (0, 1));
    /// # drop(worker);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reap(&self) -> ReapReport {
        let mut report = ReapReport::default();
        // A forked process reaps none of its parent's kernels.
        let Some(mut own) = self.own() else { return report };
        let domain = self.memory.fabric().config().domain;
        let indices = self.memory.fabric().statuses().filter(|(_, status)| *status == Status::Failed);
        report.failed = indices.map(|(id, _)| FailedKernel { id, name: self.memory.fabric().name(id) }).collect();
        for owned in self.memory.fabric().owners() {
            match owner::state_of(owned.owner, domain) {
                OwnerState::Alive => report.alive += 1,
                OwnerState::Unknown => report.unknown.push(owned.id),
                OwnerState::Dead => {
                    let name = self.memory.fabric().name(owned.id);
                    // First, so that no sender finds the next hop gone.
                    self.memory.fabric().bypass(owned.id);
                    // SAFETY: the process of the owner is gone, so none of its threads runs.
                    let seized =
                        unsafe { self.memory.fabric().seize(owned.id.index(), owned.owner, Host::in_domain(domain)) };
                    // Otherwise another reaper was faster, or the index has changed hands since.
                    if let Ok(endpoint) = seized {
                        drop(endpoint);
                        let process = owner::process_of(owned.owner, domain).unwrap_or_default();
                        report.reaped.push(ReapedKernel { id: owned.id, name, status: owned.status, process });
                    }
                }
            }
        }
        if !report.reaped.is_empty() {
            own.everywhere.retain(|&(to, next)| {
                self.memory.fabric().is_registered(to) && self.memory.fabric().is_registered(next)
            });
        }
        report
    }

    /// Starts a thread that [reaps](Self::reap) periodically, until the returned [`Supervisor`] is dropped. `tell` is called
    /// after each look that reaped a kernel, or found other failed kernels than the look before; a panic in `tell` is
    /// contained.
    ///
    /// # Errors
    /// The system's error if it cannot start a thread.
    pub fn supervise(
        &self,
        every: Duration,
        mut tell: impl FnMut(&ReapReport) + Send + 'static,
    ) -> std::io::Result<Supervisor> {
        let stop = Arc::<(Mutex<bool>, Condvar)>::default();
        let (broker, for_thread) = (self.clone(), Arc::clone(&stop));
        let thread = std::thread::Builder::new().name("k2k-supervisor".to_owned()).spawn(move || {
            let (stopped, changed) = &*for_thread;
            let mut next = Some(Instant::now());
            let mut failed = Vec::new();
            loop {
                let report = broker.reap();
                if !report.reaped.is_empty() || report.failed != failed {
                    // The panic hook has reported the panic; reaping goes on all the same.
                    let _ = contain(|| tell(&report));
                }
                failed = report.failed;
                // A time that does not fit the clock never comes.
                next = next.and_then(|next| Instant::now().max(next).checked_add(every));
                let mut guard = stopped.lock().unwrap_or_else(PoisonError::into_inner);
                while !*guard {
                    let left = next.map_or(Duration::MAX, |next| next.saturating_duration_since(Instant::now()));
                    if left.is_zero() {
                        break;
                    }
                    guard = changed.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0;
                }
                if *guard {
                    return;
                }
            }
        })?;
        Ok(Supervisor { stop, thread: Some(thread), process: std::process::id() })
    }
}

/// A thread that reaps. Dropping it stops the thread.
#[derive(Debug)]
pub struct Supervisor {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
    process: u32,
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // A forked process does not have the thread.
        if self.process != std::process::id() {
            core::mem::forget(self.thread.take());
            return;
        }
        *self.stop.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.1.notify_one();
        if let Some(thread) = self.thread.take() {
            // `tell` may drop the supervisor, on the thread itself.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}
