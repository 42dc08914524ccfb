//! The control plane: names, routes, receipts and statistics of a fabric, and the fabric's memory.
//!
//! A [`Broker`] is never on the message path: kernels send through their [`Endpoint`]s, straight into each other's
//! inboxes. A broker is a handle, cheap to clone. Its list of started kernels and its fabric-wide routes are its own; all
//! other state is in the fabric, so brokers of several processes on the same shared-memory file see the same.
//!
//! # For users of RingKernel
//!
//! | RingKernel `k2k` | here |
//! | --- | --- |
//! | `K2KBuilder`: `max_pending_messages`, `delivery_timeout_ms`, `enable_tracing`, `max_hops`, `build` | the type parameter `SLOTS`; [`Builder::delivery_timeout`], [`tracing`](Builder::tracing), [`hop_limit`](Builder::hop_limit), [`build`](Builder::build) |
//! | `K2KConfig` | [`Config`](k2k_core::Config), read back with [`Fabric::config`](k2k_core::Fabric::config) |
//! | `K2KBroker::register` | [`Broker::register`], [`register_parking`](Broker::register_parking) |
//! | `K2KBroker::unregister` | drop the [`Endpoint`]; for kernels that run on threads [`Broker::unregister`] |
//! | `K2KBroker::is_registered`, `registered_kernels` | [`Broker::is_registered`], [`kernels`](Broker::kernels), [`find`](Broker::find) |
//! | `K2KBroker::send`, `send_priority` | [`Endpoint::send`], [`send_priority`](Endpoint::send_priority): the endpoint's kernel is the sender |
//! | `K2KBroker::add_route`, `remove_route` | [`Broker::add_route_everywhere`], [`remove_route_everywhere`](Broker::remove_route_everywhere); for one kernel [`add_route`](Broker::add_route), [`remove_route`](Broker::remove_route) |
//! | `K2KBroker::get_receipt` | [`Broker::receipt`], or [`Endpoint::receipt`] by the sender |
//! | `K2KBroker::stats`, `K2KStats` | [`Broker::stats`], [`kernel_stats`](Broker::kernel_stats), [`Stats`] |
//! | `K2KEndpoint::receive`, `try_receive` | [`Endpoint::receive_async`] and [`receive`](Endpoint::receive), [`try_receive`](Endpoint::try_receive) |
//! | `K2KEndpoint::send`, `send_priority`, `pending_count` | the same on [`Endpoint`] |
//! | `K2KMessage`, `K2KMessageHeader` | [`Message`](k2k_core::Message), [`Header`](k2k_core::Header) |
//! | `DeliveryStatus`, `DeliveryReceipt` | the same |
//! | `Priority::Low` to `Critical` | [`Priority::Normal`](k2k_core::Priority), `High` |

mod builder;
mod error;
mod reap;

pub use builder::Builder;
pub use error::{ControlError, EndpointError, UnregisterError};
pub use reap::{FailedKernel, ReapReport, ReapedKernel, Supervisor};

use crate::platform::Host;
use crate::process::Origin;
use crate::{Backing, Endpoint, Memory};
use core::fmt;
use k2k_core::Fixed;
use k2k_core::Shape;
use k2k_core::fabric::{Latency, Name, TraceEntry};
use k2k_core::sync::System;
use k2k_core::{Command, DeliveryReceipt, KernelId, MessageId, ReceiptError, Registration, Stats};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The control plane of a fabric. Clones are the same broker; a forked process's copies can only read.
pub struct Broker<Sh: Shape<Scope = System> = Fixed<16, 256, 192>> {
    memory: Memory<Sh>,
    own: Arc<Owned>,
}

/// State of this broker outside the fabric, valid in the process that made the broker: in a fork, a thread that does not
/// exist there may hold the lock.
#[derive(Debug)]
struct Owned {
    origin: Origin,
    lists: Mutex<Own>,
}

/// The lists of a broker.
#[derive(Debug, Default)]
struct Own {
    /// Kernels on threads that this broker started.
    started: Vec<KernelId>,
    /// Routes (destination, next hop) for every kernel, including kernels that register later.
    everywhere: Vec<(KernelId, KernelId)>,
}

impl<Sh: Shape<Scope = System>> Clone for Broker<Sh> {
    fn clone(&self) -> Self {
        Self { memory: self.memory.clone(), own: Arc::clone(&self.own) }
    }
}

impl<Sh: Shape<Scope = System>> fmt::Debug for Broker<Sh> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("memory", &self.memory).field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl<Sh: Shape<Scope = System>> Broker<Sh> {
    /// A builder for a fabric of this shape.
    pub fn builder() -> Builder<Sh> {
        Builder::new()
    }

    /// A broker for the fabric in this memory.
    #[must_use]
    pub fn new(memory: Memory<Sh>) -> Self {
        Self { memory, own: Arc::new(Owned { origin: Origin::here(), lists: Mutex::default() }) }
    }

    /// The fabric's memory.
    #[must_use]
    pub const fn memory(&self) -> &Memory<Sh> {
        &self.memory
    }

    /// The kind of memory that holds the fabric, and why a better kind was not available.
    #[must_use]
    pub fn backing(&self) -> &Backing {
        self.memory.backing()
    }

    /// Registers a kernel whose owner keeps looking for mail. A long wait is spent in naps of 1 ms.
    ///
    /// # Errors
    /// [`EndpointError`] says why not.
    pub fn register(&self, name: &str) -> Result<Endpoint<Sh>, EndpointError> {
        self.register_as(&Registration::new(name)?)
    }

    /// Registers a kernel that may sleep until mail wakes it: needed for a blocking or `async` receive. Every sender to this
    /// kernel pays a fence per message, and a system call when the kernel sleeps.
    ///
    /// # Errors
    /// [`EndpointError`] says why not.
    pub fn register_parking(&self, name: &str) -> Result<Endpoint<Sh>, EndpointError> {
        self.register_as(&Registration::new(name)?.parking())
    }

    /// Registers a kernel as `who` says: name, index, parking.
    ///
    /// ```
    /// use k2k::{Broker, Registration};
    ///
    /// let broker: Broker = Broker::builder().build()?;
    /// let third = broker.register_as(&Registration::new("third")?.parking().at(3))?;
    /// assert_eq!(third.id().index(), 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`EndpointError`] says why not.
    pub fn register_as(&self, who: &Registration) -> Result<Endpoint<Sh>, EndpointError> {
        let mut own = self.own().ok_or(EndpointError::Forked)?;
        self.forget_routes_of_the_gone(&mut own);
        let endpoint = self.memory.register_owned(who)?;
        for &(destination, next_hop) in &own.everywhere {
            self.set_route_unless_own(endpoint.id(), destination, next_hop);
        }
        Ok(endpoint)
    }

    /// Takes over the endpoint of a kernel whose process died: see [`k2k_core::Fabric::take_over`].
    ///
    /// # Errors
    /// [`EndpointError::Register`] if `id` is not registered.
    ///
    /// # Safety
    /// The endpoint that registered as `id` is not used any more, in any process.
    pub unsafe fn take_over(&self, id: KernelId) -> Result<Endpoint<Sh>, EndpointError> {
        if !self.is_here() {
            return Err(EndpointError::Forked);
        }
        // SAFETY: the caller vouches for it.
        unsafe { self.memory.take_over_owned(id) }
    }

    /// Tells a kernel that this broker [started](Self::start) to stop and then unregister. Does not wait.
    ///
    /// # Errors
    /// [`UnregisterError::NotStartedHere`] for other kernels: they leave when their endpoint is dropped.
    pub fn unregister(&self, id: KernelId) -> Result<(), UnregisterError> {
        let own = self.own().ok_or(UnregisterError::Forked)?;
        if !self.is_registered(id) {
            return Err(UnregisterError::NotRegistered(id));
        }
        if !own.started.contains(&id) {
            return Err(UnregisterError::NotStartedHere(id));
        }
        self.command(id, Command::Stop).map_err(|_| UnregisterError::NotRegistered(id))
    }

    /// Sends a command to any kernel of the fabric, in any process.
    ///
    /// # Errors
    /// [`ControlError::NotRegistered`] if the kernel has left.
    pub fn command(&self, id: KernelId, command: Command) -> Result<(), ControlError> {
        self.here()?;
        Ok(self.memory.fabric().command(id, command, &Host::new())?)
    }

    /// Frees the index of a failed kernel. Until then, the kernel's name, phase and [trace](Self::trace) can be read.
    /// [`reap`](Self::reap) reports failed kernels.
    ///
    /// # Errors
    /// [`ControlError::NotFailed`] gives the state of `id`.
    pub fn clear_failed(&self, id: KernelId) -> Result<(), ControlError> {
        self.here()?;
        Ok(self.memory.fabric().clear_failed(id)?)
    }

    /// The registered kernel of that name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<KernelId> {
        self.memory.fabric().find(name)
    }

    /// Whether messages can be sent to `id` now.
    #[must_use]
    pub fn is_registered(&self, id: KernelId) -> bool {
        self.memory.fabric().is_registered(id)
    }

    /// All registered kernels with their names, by index.
    #[must_use]
    pub fn kernels(&self) -> Vec<(KernelId, Name)> {
        self.memory.fabric().kernels().collect()
    }

    /// Sets or replaces the next hop that the kernel `at` uses for messages to `destination`, while traffic flows.
    ///
    /// # Errors
    /// [`ControlError::NotRegistered`] names the address without a kernel.
    pub fn add_route(&self, at: KernelId, destination: KernelId, next_hop: KernelId) -> Result<(), ControlError> {
        self.here()?;
        Ok(self.memory.fabric().set_route(at, destination, next_hop)?)
    }

    /// Removes a route: the kernel `at` sends to `destination` directly again.
    pub fn remove_route(&self, at: KernelId, destination: KernelId) {
        if self.is_here() {
            self.memory.fabric().remove_route(at, destination);
        }
    }

    /// The next hop of `at` for `destination`; `None`: directly.
    #[must_use]
    pub fn route(&self, at: KernelId, destination: KernelId) -> Option<KernelId> {
        self.memory.fabric().route(at, destination)
    }

    /// Denies `sender` the inbox of `receiver`, until the sender is [allowed](Self::allow) again or either kernel has left:
    /// see [`k2k_core::Fabric::deny`].
    ///
    /// ```
    /// use k2k::{Broker, Fixed, Message, SendError};
    ///
    /// let broker = Broker::<Fixed<4, 16, 64>>::builder().build()?;
    /// let mut worker = broker.register("worker")?;
    /// let vault = broker.register("vault")?;
    /// broker.deny(vault.id(), worker.id())?;
    /// assert_eq!(worker.send(vault.id(), &Message::new(1)), Err(SendError::NotAllowed { receiver: vault.id() }));
    /// broker.allow(vault.id(), worker.id());
    /// worker.send(vault.id(), &Message::new(1))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ControlError::NotRegistered`] names the address without a kernel.
    pub fn deny(&self, receiver: KernelId, sender: KernelId) -> Result<(), ControlError> {
        self.here()?;
        Ok(self.memory.fabric().deny(receiver, sender)?)
    }

    /// Undoes [`deny`](Self::deny). Initially every kernel may send to every kernel.
    pub fn allow(&self, receiver: KernelId, sender: KernelId) {
        if self.is_here() {
            self.memory.fabric().allow(receiver, sender);
        }
    }

    /// Whether `sender` may send to `receiver`, as far as [`deny`](Self::deny) is concerned.
    #[must_use]
    pub fn is_allowed(&self, receiver: KernelId, sender: KernelId) -> bool {
        self.memory.fabric().is_allowed(receiver, sender)
    }

    /// Sends all messages to `destination` through `next_hop`, from every registered kernel and from every kernel registered
    /// later through this broker. The routes of `next_hop` and of `destination` stay as they are.
    ///
    /// # Errors
    /// [`ControlError::NotRegistered`] names the address without a kernel.
    pub fn add_route_everywhere(&self, destination: KernelId, next_hop: KernelId) -> Result<(), ControlError> {
        let mut own = self.own().ok_or(ControlError::Forked)?;
        for id in [destination, next_hop] {
            if !self.is_registered(id) {
                return Err(ControlError::NotRegistered(id));
            }
        }
        own.everywhere.retain(|(known, _)| *known != destination);
        self.forget_routes_of_the_gone(&mut own);
        own.everywhere.push((destination, next_hop));
        for (at, _) in self.memory.fabric().kernels() {
            self.set_route_unless_own(at, destination, next_hop);
        }
        Ok(())
    }

    /// Removes the routes of all kernels for `destination`.
    pub fn remove_route_everywhere(&self, destination: KernelId) {
        let Some(mut own) = self.own() else { return };
        own.everywhere.retain(|(known, _)| *known != destination);
        for (at, _) in self.memory.fabric().kernels() {
            self.memory.fabric().remove_route(at, destination);
        }
    }

    /// Ids are never reused, so a route to or through a departed kernel will never be used again.
    fn forget_routes_of_the_gone(&self, own: &mut Own) {
        own.everywhere
            .retain(|&(destination, next_hop)| self.is_registered(destination) && self.is_registered(next_hop));
    }

    fn set_route_unless_own(&self, at: KernelId, destination: KernelId, next_hop: KernelId) {
        if at != destination && at != next_hop {
            // A kernel that left meanwhile needs no route.
            let _ = self.memory.fabric().set_route(at, destination, next_hop);
        }
    }

    /// The outcome of a message: see [`k2k_core::Fabric::receipt`].
    ///
    /// # Errors
    /// [`ReceiptError`] if the message was never sent, or so long ago that its receipt was overwritten.
    pub fn receipt(&self, id: MessageId) -> Result<DeliveryReceipt, ReceiptError> {
        self.memory.fabric().receipt(id, &Host::new())
    }

    /// Messages whose outcome was not counted yet, counted individually: see [`k2k_core::Fabric::pending`].
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.memory.fabric().pending()
    }

    /// The sum of all kernels' counters. Consistent while no kernel sends or receives.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.memory.fabric().total_stats()
    }

    /// The counters of a kernel's index, over all owners of the index; `None` if no kernel has had this address yet.
    #[must_use]
    pub fn kernel_stats(&self, id: KernelId) -> Option<Stats> {
        self.memory.fabric().stats(id)
    }

    /// Switches tracing on or off for all kernels, at any time.
    pub fn set_tracing(&self, on: bool) {
        if self.is_here() {
            self.memory.fabric().set_tracing(on);
        }
    }

    /// Switches, for all kernels and at any time, whether receivers count how long their messages were on the way: a sample,
    /// 1 message in [`LATENCY_SAMPLE`](crate::fabric::LATENCY_SAMPLE).
    pub fn set_latency(&self, on: bool) {
        if self.is_here() {
            self.memory.fabric().set_latency(on);
        }
    }

    /// How long the messages received at a kernel's index had been on the way, as far as kernels counted; `None` if no
    /// kernel has had this address yet.
    #[must_use]
    pub fn latency(&self, id: KernelId) -> Option<Latency> {
        self.memory.fabric().latency(id)
    }

    /// The last events at a kernel's index, oldest first.
    #[must_use]
    pub fn trace(&self, id: KernelId) -> Vec<TraceEntry> {
        let mut trace: Vec<_> = self.memory.fabric().trace(id).into_iter().flat_map(|trace| trace.read()).collect();
        trace.sort_unstable_by_key(|entry| entry.number);
        trace
    }

    pub(crate) fn remember_started(&self, id: KernelId) {
        if let Some(mut own) = self.own() {
            own.started.push(id);
        }
    }

    pub(crate) fn forget_started(&self, id: KernelId) {
        if let Some(mut own) = self.own() {
            own.started.retain(|known| *known != id);
        }
    }

    /// Whether this process made the broker.
    pub(crate) fn is_here(&self) -> bool {
        self.own.origin.is_here()
    }

    fn here(&self) -> Result<(), ControlError> {
        if self.is_here() { Ok(()) } else { Err(ControlError::Forked) }
    }

    /// The lists; `None` in a forked process.
    fn own(&self) -> Option<MutexGuard<'_, Own>> {
        // Every change to the lists is whole when something panics.
        self.is_here().then(|| self.own.lists.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_of_kernels_that_are_gone_are_forgotten() {
        let broker: Broker<Fixed<4, 8, 64>> =
            Broker::<Fixed<4, 8, 64>>::new(Memory::heap(&k2k_core::Config::default()).unwrap());
        let hop = broker.register("hop").unwrap();
        for _ in 0..10 {
            let to = broker.register("to").unwrap();
            broker.add_route_everywhere(to.id(), hop.id()).unwrap();
            assert_eq!(broker.own().unwrap().everywhere.len(), 1);
        }
        drop(hop);
        let _other = broker.register("other").unwrap();
        assert_eq!(broker.own().unwrap().everywhere, []);
    }
}
