//! The structs that cross, and how they grow: each begins with its size, which the caller sets.
//!
//! A program that was compiled with an older header passes a smaller struct; the library then takes what is there, and
//! zero for the rest. One compiled with a newer header passes a larger one, which is taken as long as the part that this
//! library does not know is zero.

use crate::error::{Failure, k2k_result};
use bytemuck::{Pod, Zeroable};
use k2k::{Config, Header, KernelId, MessageId, Stats};

/// The largest `size` that is believed.
const LARGEST: usize = 4096;

/// A fabric, as this process holds it. Not a pointer: zero is none, and a handle that was closed is found out.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct k2k_broker {
    /// For the library alone.
    pub handle: u64,
}

/// A kernel, as its owner holds it. For one thread at a time. Not a pointer: see `k2k_broker`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct k2k_endpoint {
    /// For the library alone.
    pub handle: u64,
}

/// The address of a kernel; 0 is none. It never becomes another kernel's.
pub type k2k_kernel_id = u64;

/// Names a message: its sender, and the sender's count.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct k2k_message_id {
    /// Who sent it.
    pub source: k2k_kernel_id,
    /// Which of the source's messages it is, from 1.
    pub sequence: u64,
}

/// Settings of a new fabric. Zero is the default of each.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct k2k_config {
    /// `sizeof(k2k_config)`.
    pub size: usize,
    /// How many kernels it has room for, at most 512. Default 16.
    pub kernels: u32,
    /// How many messages wait per pair of kernels: a power of two. Default 256.
    pub slots: u32,
    /// Bytes of payload that a message carries: a multiple of 64, at most 65472. Default 192.
    pub payload: u32,
    /// How often a message may be forwarded, at most 127. Default 8.
    pub hop_limit: u32,
    /// How long a message without a deadline of its own may take, ns. Default 5 s.
    pub delivery_timeout_ns: u64,
    /// How many messages of high priority one sender may have in an inbox. Default: `slots / kernels`.
    pub high_share: u32,
    /// Not 0: kernels write traces.
    pub tracing: u32,
    /// Mode of the file. Default 0600.
    pub mode: u32,
    /// Not 0: the file's room is taken when it is written, and not at once.
    pub sparse: u32,
}

/// The shape of a fabric.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct k2k_shape {
    /// `sizeof(k2k_shape)`, set by the caller.
    pub size: usize,
    /// How many kernels it has room for.
    pub kernels: u32,
    /// How many messages wait per pair of kernels.
    pub slots: u32,
    /// Bytes of payload that a message carries.
    pub payload: u32,
    /// 0.
    pub reserved: u32,
    /// Bytes of the whole fabric.
    pub bytes: u64,
}

/// How a kernel registers. Zero is the default of each.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct k2k_registration {
    /// `sizeof(k2k_registration)`.
    pub size: usize,
    /// How it waits: `K2K_WAIT_PARK`, `K2K_WAIT_YIELD` or `K2K_WAIT_SPIN`.
    pub wait: u32,
    /// Not 0: it never sleeps until mail wakes it, so that its senders do not pay for that; if it waits for long, it looks
    /// every millisecond.
    pub never_parks: u32,
    /// The kernel index, plus 1; 0: any.
    pub index_plus_1: u32,
    /// How many other messages it keeps while it waits for the answer to a request. Default 1024, or `kernels * slots` if that is less.
    pub keeps: u32,
}

/// How a message is sent. Zero is the default of each.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct k2k_send_options {
    /// `sizeof(k2k_send_options)`.
    pub size: usize,
    /// How long it may take, ns from now; 0: the fabric's delivery timeout; `K2K_FOREVER`: no limit.
    pub timeout_ns: u64,
    /// For the caller. A reply carries the sequence of its request here instead.
    pub correlation_id: u64,
    /// `K2K_PRIORITY_NORMAL` or `K2K_PRIORITY_HIGH`. A reply has that of its request instead.
    pub priority: u32,
    /// Not 0: waits for room until the deadline. Not for replies, nor in a handler.
    pub wait_for_room: u32,
    /// How often it may be forwarded; 0: the fabric's limit.
    pub hop_limit: u32,
    /// For the caller, 0 to 255.
    pub flags: u32,
}

/// A message that was received, without its payload.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct k2k_message {
    /// `sizeof(k2k_message)`, set by the caller.
    pub size: usize,
    /// Who sent it.
    pub source: k2k_kernel_id,
    /// The sender's count.
    pub sequence: u64,
    /// The sequence of the request, if it is a reply; otherwise the sender's choice.
    pub correlation_id: u64,
    /// When it was sent, ns since the Unix epoch.
    pub wall_time_ns: u64,
    /// When its delivery would have failed, ns on CLOCK_MONOTONIC.
    pub deadline_ns: u64,
    /// What the payload means: the sender's number.
    pub kind: u32,
    /// Bytes of payload.
    pub len: u32,
    /// `K2K_PRIORITY_NORMAL` or `K2K_PRIORITY_HIGH`.
    pub priority: u32,
    /// How often it was forwarded.
    pub hops: u32,
    /// The sender's choice.
    pub flags: u32,
    /// Not 0: it answers a message of this kernel.
    pub is_reply: u32,
}

impl k2k_message {
    pub(crate) fn of(header: &Header, len: usize) -> Self {
        Self {
            size: size_of::<Self>(),
            source: header.source().raw(),
            sequence: header.sequence,
            correlation_id: header.correlation_id,
            wall_time_ns: header.wall_time_ns,
            deadline_ns: header.deadline_ns,
            kind: header.kind,
            len: u32::try_from(len).unwrap_or(u32::MAX),
            priority: header.priority.into(),
            hops: header.hops.into(),
            flags: header.flags.into(),
            is_reply: header.is_reply().into(),
        }
    }

    /// What a reply needs of its request.
    pub(crate) fn write_request(&self, header: &mut Header) {
        header.set_source(KernelId::from_raw(self.source));
        header.sequence = self.sequence;
        header.priority = u8::from(self.priority != 0);
    }
}

/// What a kernel, or all of them together, did with messages.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct k2k_stats {
    /// `sizeof(k2k_stats)`, set by the caller.
    pub size: usize,
    /// Messages accepted by a send.
    pub sent: u64,
    /// Messages handed to their receiver.
    pub received: u64,
    /// Ended because destination or next hop had left.
    pub not_found: u64,
    /// Ended because a forwarder had no room.
    pub queue_full: u64,
    /// Ended because the deadline passed.
    pub timeout: u64,
    /// Ended because the hop limit was reached.
    pub max_hops_exceeded: u64,
    /// Ended because a remote domain did not say in time what became of them.
    pub unanswered: u64,
    /// Ended because the receiver may not receive from the sender.
    pub not_allowed: u64,
    /// Messages passed on for others.
    pub forwarded: u64,
    /// Messages found in an inbox that had been ended by another kernel.
    pub discarded: u64,
    /// Sends that were refused.
    pub refused: u64,
    /// Messages thrown away because memory was damaged.
    pub corrupt: u64,
    /// Received messages whose sender's clock was too far ahead.
    pub clock_skews: u64,
}

impl From<Stats> for k2k_stats {
    fn from(stats: Stats) -> Self {
        Self {
            size: size_of::<Self>(),
            sent: stats.sent,
            received: stats.received,
            not_found: stats.not_found,
            queue_full: stats.queue_full,
            timeout: stats.timeout,
            max_hops_exceeded: stats.max_hops_exceeded,
            unanswered: stats.unanswered,
            not_allowed: stats.not_allowed,
            forwarded: stats.forwarded,
            discarded: stats.discarded,
            refused: stats.refused,
            corrupt: stats.corrupt,
            clock_skews: stats.clock_skews,
        }
    }
}

/// Sleep until mail comes: next to no CPU time.
pub const K2K_WAIT_PARK: u32 = 0;
/// Look, and let other threads of the core run in between.
pub const K2K_WAIT_YIELD: u32 = 1;
/// Look again at once: a core of its own.
pub const K2K_WAIT_SPIN: u32 = 2;

/// First in, first out per sender.
pub const K2K_PRIORITY_NORMAL: u32 = 0;
/// Received before every normal message; after 16 of them in a row one normal message has its turn.
pub const K2K_PRIORITY_HIGH: u32 = 1;

/// Wait without a limit; a message without a deadline.
pub const K2K_FOREVER: u64 = u64::MAX;

/// Command: handle messages.
pub const K2K_COMMAND_RUN: u32 = 0;
/// Command: pass on what is for others, handle nothing.
pub const K2K_COMMAND_PAUSE: u32 = 1;
/// Command: handle what is in the inbox, then stop.
pub const K2K_COMMAND_DRAIN: u32 = 2;
/// Command: stop after the message in hand.
pub const K2K_COMMAND_STOP: u32 = 3;

/// Status: on its way, or waiting in an inbox.
pub const K2K_STATUS_PENDING: u32 = 1;
/// Status: received.
pub const K2K_STATUS_DELIVERED: u32 = 2;
/// Status: there is no such kernel any more.
pub const K2K_STATUS_NOT_FOUND: u32 = 3;
/// Status: a forwarder had no room.
pub const K2K_STATUS_QUEUE_FULL: u32 = 4;
/// Status: the deadline passed before it was received.
pub const K2K_STATUS_TIMEOUT: u32 = 5;
/// Status: it was forwarded as often as it may be.
pub const K2K_STATUS_MAX_HOPS_EXCEEDED: u32 = 6;
/// Status: a remote domain has not said in time whether it was received.
pub const K2K_STATUS_UNANSWERED: u32 = 7;
/// Status: its receiver may not receive from its sender.
pub const K2K_STATUS_NOT_ALLOWED: u32 = 10;

/// The kind of an answer that is a refusal, as services of the Rust library send it: its payload is a `uint32_t`.
pub const K2K_REFUSAL: u32 = u32::MAX;
/// A refusal: the service knows no request of this kind.
pub const K2K_REFUSED_UNKNOWN_KIND: u32 = u32::MAX;
/// A refusal: the request has another size than the service's requests of this kind.
pub const K2K_REFUSED_WRONG_SIZE: u32 = u32::MAX - 1;

/// A handler's answer when it has no mail: it may sleep.
pub const K2K_IDLE_DONE: u32 = 0;
/// A handler's answer when it has no mail: call it again at once.
pub const K2K_IDLE_AGAIN: u32 = 1;
/// A handler's answer when it has no mail: call it again soon, within a millisecond.
pub const K2K_IDLE_SOON: u32 = 2;

impl From<MessageId> for k2k_message_id {
    fn from(id: MessageId) -> Self {
        Self { source: id.source.raw(), sequence: id.sequence }
    }
}

impl From<k2k_message_id> for MessageId {
    fn from(id: k2k_message_id) -> Self {
        Self { source: KernelId::from_raw(id.source), sequence: id.sequence }
    }
}

/// A struct that begins with its size.
///
/// # Safety
/// `#[repr(C)]`, and the first field is the size, a `usize`.
pub(crate) unsafe trait Sized0: Pod {}
// SAFETY: as they are declared.
unsafe impl Sized0 for k2k_config {}
// SAFETY: as above.
unsafe impl Sized0 for k2k_shape {}
// SAFETY: as above.
unsafe impl Sized0 for k2k_registration {}
// SAFETY: as above.
unsafe impl Sized0 for k2k_send_options {}
// SAFETY: as above.
unsafe impl Sized0 for k2k_message {}
// SAFETY: as above.
unsafe impl Sized0 for k2k_stats {}

/// The size that a struct of the caller's says it has.
///
/// # Safety
/// There are as many bytes as that, and as a `usize` has.
pub(crate) unsafe fn size_of_struct<T: Sized0>(given: *const T) -> Result<usize, Failure> {
    // SAFETY: passed on.
    let size = unsafe { given.cast::<usize>().read_unaligned() };
    if !(size_of::<usize>()..=LARGEST).contains(&size) {
        let name = core::any::type_name::<T>().rsplit(':').next().unwrap_or_default();
        return Err(Failure::new(
            k2k_result::K2K_BAD_SIZE,
            format!("the size of a {name} is {size}: set it to sizeof({name}), which is {} here", size_of::<T>()),
        ));
    }
    Ok(size)
}

/// A struct of the caller's; all zero, which means the defaults, for NULL.
///
/// # Safety
/// NULL, or there are as many bytes as its size says.
pub(crate) unsafe fn read_struct<T: Sized0>(given: *const T) -> Result<T, Failure> {
    let mut read = T::zeroed();
    if given.is_null() {
        return Ok(read);
    }
    // SAFETY: passed on.
    let size = unsafe { size_of_struct(given) }?;
    let known = size.min(size_of::<T>());
    // SAFETY: both have as many bytes, and any bytes are a `T`.
    unsafe { core::ptr::copy_nonoverlapping(given.cast::<u8>(), core::ptr::from_mut(&mut read).cast(), known) };
    for at in known..size {
        // SAFETY: within the size.
        if unsafe { given.cast::<u8>().add(at).read() } != 0 {
            return Err(Failure::new(
                k2k_result::K2K_BAD_SIZE,
                format!("byte {at} of a struct is set, which this library knows {known} bytes of: use a later library"),
            ));
        }
    }
    Ok(read)
}

/// Writes what fits into a struct of the caller's, whose size stays as it is.
///
/// # Safety
/// There are as many bytes as its size says.
pub(crate) unsafe fn write_struct<T: Sized0>(given: *mut T, value: &T) -> Result<(), Failure> {
    // SAFETY: passed on.
    let size = unsafe { size_of_struct(given) }?;
    let bytes = &bytemuck::bytes_of(value)[size_of::<usize>()..size.min(size_of::<T>())];
    // SAFETY: within the size.
    unsafe {
        let to = given.cast::<u8>().add(size_of::<usize>());
        core::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
    }
    Ok(())
}

impl k2k_config {
    /// As the library has it, with what is zero at its default.
    pub(crate) fn config(&self) -> Config {
        let mut config = Config { tracing: self.tracing != 0, high_share: self.high_share, ..Config::default() };
        if self.delivery_timeout_ns != 0 {
            config.delivery_timeout_ns = self.delivery_timeout_ns;
        }
        if self.hop_limit != 0 {
            config.hop_limit = self.hop_limit.min(127) as u8;
        }
        config
    }
}

/// The Rust library's numbers, which stand in files and in other programs.
const _: () = {
    use k2k::{DeliveryStatus, Refused};
    assert!(K2K_REFUSAL == Refused::ANSWER_KIND);
    assert!(K2K_REFUSED_UNKNOWN_KIND == Refused::UNKNOWN_KIND.0 && K2K_REFUSED_WRONG_SIZE == Refused::WRONG_SIZE.0);
    assert!(K2K_STATUS_PENDING == DeliveryStatus::Pending as u32);
    assert!(K2K_STATUS_DELIVERED == DeliveryStatus::Delivered as u32);
    assert!(K2K_STATUS_NOT_FOUND == DeliveryStatus::NotFound as u32);
    assert!(K2K_STATUS_QUEUE_FULL == DeliveryStatus::QueueFull as u32);
    assert!(K2K_STATUS_TIMEOUT == DeliveryStatus::Timeout as u32);
    assert!(K2K_STATUS_MAX_HOPS_EXCEEDED == DeliveryStatus::MaxHopsExceeded as u32);
    assert!(K2K_STATUS_UNANSWERED == DeliveryStatus::Unanswered as u32);
    assert!(K2K_STATUS_NOT_ALLOWED == DeliveryStatus::NotAllowed as u32);
};
