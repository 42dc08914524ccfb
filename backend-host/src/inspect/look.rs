//! A look at a fabric: its kernels, their owners, the waiting messages.

use super::image::Image;
use super::{Any, InspectError};
use crate::owner::{self, OwnerState};
use crate::platform::{Host, clock_id};
use core::time::Duration;
use k2k_core::fabric::{
    Failure, Geometry, LAYOUT_VERSION, Latency, Name, Observation, ObservedReceipt, Region, Status, TraceEntry,
};
use k2k_core::{
    Command, Config, DeliveryStatus, FabricRef, Header, KernelId, Message, Phase, Platform as _, Priority, Stats,
};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Instant;

/// The process that owns a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Process id, if the kernel's entry names a process.
    pub process: Option<u32>,
    /// Whether the process lives.
    pub state: OwnerState,
    /// Whether the process lives and is stopped (SIGSTOP, a debugger).
    pub stopped: bool,
}

/// Messages of a sender that wait in an inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SenderBacklog {
    /// Kernel index of the sender, or of the last forwarder; for high priority, possibly any number.
    pub sender: u16,
    /// Waiting messages of normal priority.
    pub normal: u64,
    /// Waiting messages of high priority.
    pub high: u64,
    /// Whether the sender finds no room for more messages of normal priority. The receiver gives room back in batches, so
    /// fewer messages may wait than there is room for.
    pub full: bool,
}

/// A kernel, or a kernel index that is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelLook {
    /// The kernel's address.
    pub id: KernelId,
    /// The kernel's name, if written already.
    pub name: Option<Name>,
    /// The kernel's status; `None` if its entry holds an invalid status.
    pub status: Option<Status>,
    /// The kernel's owner; `None` if the kernel is failed, without an owner.
    pub owner: Option<Owner>,
    /// Whether the kernel may park.
    pub parks: bool,
    /// Whether the kernel is marked asleep.
    pub asleep: bool,
    /// Whether some senders may be denied.
    pub restricted: bool,
    /// The kernel's current command.
    pub command: Command,
    /// The kernel's phase, as the kernel reports it.
    pub phase: Phase,
    /// Passes of the run loop; stays 0 without a run loop.
    pub heartbeat: u64,
    /// Counters of the kernel's index, over all owners of the index.
    pub stats: Stats,
    /// The inbox, by sender: only senders with waiting messages.
    pub backlog: Vec<SenderBacklog>,
    /// Messages deferred by the kernel, by the index of the next hop without room.
    pub deferred: BTreeMap<u16, u64>,
    /// How long received messages were on the way, as far as counted, over all owners of the kernel's index; `None` while
    /// counting is off. See [`Broker::set_latency`](crate::Broker::set_latency).
    pub latency: Option<Box<Latency>>,
    /// Kernels whose inbox has no room for this kernel: its shard there is full, or it has deferred messages for them.
    pub waits_for: Vec<u16>,
}

impl KernelLook {
    /// Messages that wait in the inbox.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.backlog.iter().map(|from| from.normal + from.high).sum()
    }

    /// Messages that the kernel has deferred.
    #[must_use]
    pub fn deferred(&self) -> u64 {
        self.deferred.values().sum()
    }

    /// The kernel's name, or else its address.
    #[must_use]
    pub fn label(&self) -> String {
        self.name.map_or_else(|| self.id.to_string(), |name| name.to_string())
    }
}

/// State of the file's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileState {
    /// The name belongs to this file.
    Named,
    /// The name was removed: processes with the file open go on, no further process can join.
    Removed,
    /// The name belongs to another file by now.
    Replaced,
}

/// Result of a look at a fabric.
#[derive(Clone, Debug)]
pub struct Look {
    /// Time of the look.
    pub at: Instant,
    /// Time of the look on the clock of deadlines, ns.
    pub now_ns: u64,
    /// Duration of the look.
    pub took: Duration,
    /// State of the file's name.
    pub file: FileState,
    /// For a [copy](View::is_copy), the number of updates so far: two looks with the same number saw the same.
    pub shown: Option<u32>,
    /// The configuration in force.
    pub config: Config,
    /// All kernel indices in use, in order.
    pub kernels: Vec<KernelLook>,
    /// Counters of free kernel indices with earlier owners: a leaving kernel counts the messages that it settles.
    pub left: Vec<(u16, Stats)>,
}

impl Look {
    /// The kernel at an index.
    #[must_use]
    pub fn kernel(&self, index: u16) -> Option<&KernelLook> {
        self.kernels.iter().find(|kernel| kernel.id.index() == usize::from(index))
    }

    /// The sum of all counters.
    #[must_use]
    pub fn total(&self) -> Stats {
        let all = self.kernels.iter().map(|kernel| &kernel.stats).chain(self.left.iter().map(|(_, stats)| stats));
        all.fold(Stats::default(), |sum, stats| sum.plus(stats))
    }
}

/// A route, set by [`Fabric::set_route`](crate::Fabric::set_route).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The kernel with the route.
    pub at: KernelId,
    /// Destination of the messages.
    pub destination: KernelId,
    /// Next hop of the messages.
    pub next_hop: KernelId,
}

/// A sender denied by [`Fabric::deny`](crate::Fabric::deny).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The receiver that refuses the sender's messages.
    pub receiver: KernelId,
    /// The denied sender.
    pub sender: KernelId,
}

/// A sender's latest receipts, by state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ReceiptCounts {
    /// Messages on the way.
    pub pending: u64,
    /// Pending messages past their deadline whose timeout is not recorded yet.
    pub overdue: u64,
    /// Messages with a gateway.
    pub in_transit: u64,
    /// Messages received.
    pub delivered: u64,
    /// Messages whose receiver was not found.
    pub not_found: u64,
    /// Messages without room at a forwarder.
    pub queue_full: u64,
    /// Messages whose deadline passed.
    pub timeout: u64,
    /// Messages beyond their hop limit.
    pub max_hops_exceeded: u64,
    /// Messages not answered by a remote domain.
    pub unanswered: u64,
    /// Messages that were not allowed.
    pub not_allowed: u64,
}

impl ReceiptCounts {
    fn count(&mut self, receipt: &ObservedReceipt, now_ns: Option<u64>) {
        let is_overdue = now_ns.is_some_and(|now_ns| receipt.deadline_ns < now_ns);
        let count = match receipt.status {
            DeliveryStatus::Pending if receipt.in_transit => &mut self.in_transit,
            DeliveryStatus::Pending => {
                self.overdue += u64::from(is_overdue);
                &mut self.pending
            }
            DeliveryStatus::Delivered => &mut self.delivered,
            DeliveryStatus::NotFound => &mut self.not_found,
            DeliveryStatus::QueueFull => &mut self.queue_full,
            DeliveryStatus::Timeout => &mut self.timeout,
            DeliveryStatus::MaxHopsExceeded => &mut self.max_hops_exceeded,
            DeliveryStatus::Unanswered => &mut self.unanswered,
            DeliveryStatus::NotAllowed => &mut self.not_allowed,
        };
        *count += 1;
    }
}

/// A message that waits in an inbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// Kernel index of the sender, or of the last forwarder.
    pub from: u16,
    /// The message's priority.
    pub priority: Priority,
    /// The message's header, unchecked.
    pub header: Header,
    /// The message's payload, as far as the fabric has room for payload.
    pub payload: Vec<u8>,
}

/// A fabric's file, opened for reading. See the [module's page](super).
#[derive(Debug)]
pub struct View {
    image: Image,
    /// Handle on the image, so never handed out for longer than `self` is borrowed.
    fabric: FabricRef<'static, Any>,
    /// The clock of the process that opened the view.
    clock: u64,
}

impl View {
    /// Opens a fabric's file: a name for a file in `/dev/shm`, or a path. Also opens files of other users that this user
    /// may read.
    ///
    /// # Errors
    /// [`InspectError`] says why the file cannot be looked at.
    pub fn open(name: &str) -> Result<Self, InspectError> {
        let (image, fabric) = Image::open(name)?;
        Ok(Self { image, fabric, clock: clock_id() })
    }

    /// Path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.image.path()
    }

    /// The fabric's shape and size.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.fabric.geometry()
    }

    /// The version of the fabric's layout: always this program's, since no other version can be looked at.
    #[must_use]
    pub const fn version(&self) -> u32 {
        LAYOUT_VERSION
    }

    /// Whether this is a copy for onlookers of a fabric in other memory, such as a GPU's: without mail and receipts, and as
    /// recent as the publishing program's last update.
    #[must_use]
    pub fn is_copy(&self) -> bool {
        self.fabric.shown().is_some()
    }

    /// Whether the fabric's times are on this process's clock. If not, the fabric is of an earlier boot or another time
    /// namespace, and its deadlines have no meaning here.
    #[must_use]
    pub fn is_on_this_clock(&self) -> bool {
        self.fabric.check_clock(self.clock).is_ok()
    }

    /// Looks at all kernels.
    ///
    /// # Errors
    /// [`InspectError::Shorter`] and [`InspectError::Changed`] if the file has changed since the view opened.
    pub fn look(&mut self) -> Result<Look, InspectError> {
        let at = Instant::now();
        self.fetch(Region::Table)?;
        self.image.check(self.geometry())?;
        let config = self.fabric.config();
        let host = Host::in_domain(config.domain);
        let mut owners = BTreeMap::new();
        let mut kernels = Vec::new();
        let mut left = Vec::new();
        for index in 0..self.geometry().kernels as u16 {
            let number = usize::from(index);
            let Some(observed) = self.fabric.observe(number) else {
                let stats = self.fabric.counters_at(number).unwrap_or_default();
                if stats != Stats::default() {
                    left.push((index, stats));
                }
                continue;
            };
            let index = number;
            self.fetch(Region::Backlog(index))?;
            let owner = observed.owner.map(|tag| *owners.entry(tag).or_insert_with(|| owner_of(tag, &config)));
            let mut kernel = self.kernel(&observed, owner);
            if config.latency {
                kernel.latency = self.latency(index as u16)?.map(Box::new);
            }
            kernels.push(kernel);
        }
        Self::note_who_waits(&mut kernels);
        let file = self.file_state();
        let (took, shown) = (at.elapsed(), self.fabric.shown());
        Ok(Look { at, now_ns: host.now_ns(), took, file, shown, config, kernels, left })
    }

    /// The routes between the kernels of a look.
    ///
    /// # Errors
    /// As for [`look`](Self::look).
    pub fn routes(&mut self, look: &Look) -> Result<Vec<Route>, InspectError> {
        self.fetch(Region::Routes)?;
        let fabric = &self.fabric;
        let pairs = look.kernels.iter().flat_map(|at| look.kernels.iter().map(move |to| (at.id, to.id)));
        Ok(pairs
            .filter_map(|(at, destination)| {
                fabric.route(at, destination).map(|next_hop| Route { at, destination, next_hop })
            })
            .collect())
    }

    /// The denied pairs of sender and receiver among the kernels of a look.
    ///
    /// # Errors
    /// As for [`look`](Self::look).
    pub fn denials(&mut self, look: &Look) -> Result<Vec<Denial>, InspectError> {
        self.fetch(Region::Denials)?;
        let fabric = &self.fabric;
        let restricted = look.kernels.iter().filter(|kernel| kernel.restricted);
        let pairs = restricted.flat_map(|receiver| look.kernels.iter().map(move |from| (receiver.id, from.id)));
        Ok(pairs
            .filter(|&(receiver, sender)| !fabric.is_allowed(receiver, sender))
            .map(|(receiver, sender)| Denial { receiver, sender })
            .collect())
    }

    /// Outcomes of the latest messages of a kernel index, `KERNELS x SLOTS` at most.
    ///
    /// # Errors
    /// As for [`look`](Self::look).
    pub fn receipts(&mut self, index: u16) -> Result<ReceiptCounts, InspectError> {
        let number = usize::from(index);
        self.fetch(Region::Receipts(number))?;
        let now_ns = self.is_on_this_clock().then(|| Host::in_domain(self.fabric.config().domain).now_ns());
        let mut counts = ReceiptCounts::default();
        self.fabric.receipts_of(number).for_each(|receipt| counts.count(&receipt, now_ns));
        self.image.forget();
        self.fetch(Region::Table)?;
        Ok(counts)
    }

    /// Messages that wait in the inbox of a kernel index: the first `limit` of high priority, and per sender the
    /// first `limit` of normal priority.
    ///
    /// # Errors
    /// As for [`look`](Self::look).
    pub fn inbox(&mut self, index: u16, limit: u64) -> Result<Vec<Mail>, InspectError> {
        let number = usize::from(index);
        self.fetch(Region::Backlog(number))?;
        self.fetch(Region::Inbox(number, limit))?;
        let room = self.geometry().payload as usize;
        let mut message = crate::boxed(|place| Message::new_in(place, 0));
        let mut mail = Vec::new();
        self.fabric.peek_inbox(number, limit, &mut message, |priority, from, message| {
            let payload = message.payload();
            let payload = payload.get(..room.min(payload.len())).unwrap_or_default().to_vec();
            mail.push(Mail { from, priority, header: message.header, payload });
        });
        self.image.forget();
        self.fetch(Region::Table)?;
        Ok(mail)
    }

    /// The last events of a kernel index, oldest first, if the fabric's tracing is on.
    ///
    /// # Errors
    /// As for [`look`](Self::look).
    pub fn trace(&mut self, index: u16) -> Result<Vec<TraceEntry>, InspectError> {
        self.fetch(Region::Trace(usize::from(index)))?;
        let trace = self.fabric.trace_of_index(usize::from(index));
        let mut entries: Vec<_> = trace.map(|trace| trace.read().collect()).unwrap_or_default();
        entries.sort_unstable_by_key(|entry: &TraceEntry| entry.number);
        Ok(entries)
    }

    /// How long the messages received at a kernel index were on the way, over all owners of the index, as far as counted,
    /// also before counting was switched off. `None` for an index beyond the shape.
    ///
    /// # Errors
    /// As for [`look`](Self::look).
    pub fn latency(&mut self, index: u16) -> Result<Option<Latency>, InspectError> {
        self.fetch(Region::Latency(usize::from(index)))?;
        Ok(self.fabric.latency_of_index(usize::from(index)))
    }

    /// Notes on the failures at a kernel index, over all owners of the index, by kind: the times of the first and the last
    /// failure, and the last failure's message. The number of failures is in the [counters](KernelLook::stats). A kind whose
    /// notes are being written at this very moment is left out.
    ///
    /// # Errors
    /// As for [`look`](Self::look).
    pub fn failures(&mut self, index: u16) -> Result<Vec<Failure>, InspectError> {
        self.fetch(Region::Failures(usize::from(index)))?;
        let failures = self.fabric.failures_of_index(usize::from(index));
        Ok(failures.map(|failures| failures.read().collect()).unwrap_or_default())
    }

    fn fetch(&mut self, region: Region) -> Result<(), InspectError> {
        self.fabric.fetch(region, |range| self.image.copy(range))
    }

    fn kernel(&self, observed: &Observation, owner: Option<Owner>) -> KernelLook {
        let index = observed.id.index();
        let mut senders: BTreeMap<u16, SenderBacklog> = BTreeMap::new();
        for shard in self.fabric.normal_backlog(index) {
            let (sender, normal, full) = (shard.sender, shard.waiting, shard.full);
            senders.insert(sender, SenderBacklog { sender, normal, high: 0, full });
        }
        for sender in self.fabric.high_backlog(index) {
            senders.entry(sender).or_insert(SenderBacklog { sender, ..SenderBacklog::default() }).high += 1;
        }
        let mut deferred = BTreeMap::new();
        for next_hop in self.fabric.deferred(index) {
            *deferred.entry(next_hop as u16).or_insert(0) += 1;
        }
        KernelLook {
            id: observed.id,
            name: observed.name,
            status: observed.status,
            owner,
            parks: observed.parks,
            asleep: observed.asleep,
            restricted: observed.restricted,
            command: observed.command,
            phase: observed.phase,
            heartbeat: observed.heartbeat,
            stats: observed.stats,
            backlog: senders.into_values().collect(),
            deferred,
            latency: None,
            waits_for: Vec::new(),
        }
    }

    fn note_who_waits(kernels: &mut [KernelLook]) {
        let full: Vec<(u16, u16)> = kernels
            .iter()
            .flat_map(|receiver| {
                let full = receiver.backlog.iter().filter(|from| from.full);
                full.map(|from| (from.sender, receiver.id.index() as u16))
            })
            .collect();
        for kernel in kernels {
            let shards = full.iter().filter(|(sender, _)| usize::from(*sender) == kernel.id.index());
            let mut waits_for: Vec<u16> = shards.map(|(_, receiver)| *receiver).collect();
            waits_for.extend(kernel.deferred.keys());
            waits_for.sort_unstable();
            waits_for.dedup();
            kernel.waits_for = waits_for;
        }
    }

    fn file_state(&self) -> FileState {
        let own = self.image.file().metadata().map(|meta| (meta.dev(), meta.ino()));
        match (std::fs::metadata(self.path()).map(|meta| (meta.dev(), meta.ino())), own) {
            (Ok(named), Ok(own)) if named == own => FileState::Named,
            (Ok(_), Ok(_)) => FileState::Replaced,
            _ => FileState::Removed,
        }
    }
}

fn owner_of(tag: u64, config: &Config) -> Owner {
    let state = owner::state_of(tag, config.domain);
    let stopped = state == OwnerState::Alive && owner::is_suspended(tag, config.domain);
    Owner { process: owner::process_of(tag, config.domain), state, stopped }
}
