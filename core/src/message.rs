//! What kernels send one another: a fixed header and up to `PAYLOAD` bytes.
//!
//! ```text
//!   byte 0        8          16              24         32         40                  44
//!        +--------+----------+----------------+----------+----------+-------------------+------------------------+
//!        | stamp  | sequence | correlation_id | wall_time| deadline | source_generation | destination_generation |
//!        +--------+----------+----------------+----------+----------+-------------------+------------------------+
//!   byte 48     52             54                  56            58        60      61     62          63         64
//!        +------+--------------+-------------------+-------------+---------+-------+------+-----------+----------+-- -
//!        | kind | source_index | destination_index | payload_len | logical | flags | hops | hop_limit | priority | payload
//!        +------+--------------+-------------------+-------------+---------+-------+------+-----------+----------+-- -
//! ```
//!
//! The stamp belongs to the ring slot and is not part of [`Message`]. Stamp and header fill exactly one cache line, and
//! `PAYLOAD` is a multiple of 64, so a slot is a whole number of lines and a short message moves only the lines
//! that it uses. The header carries no version: [`LAYOUT_VERSION`](crate::fabric::LAYOUT_VERSION) of the fabric and
//! [`LINK_VERSION`](crate::link::LINK_VERSION) of the link that it lies in say which one it is.
//!
//! Everything here is plain old data: every byte pattern is a `Message`. [`Header::check`] tells whether it is a
//! sensible one; nothing else in the crate believes a header that has not been through it.

use crate::hlc::Timestamp;
use bytemuck::{Pod, Zeroable};
use core::fmt;

/// Address of a kernel: an index in the fabric's table, and which of that index's successive owners is meant.
///
/// A message to a kernel that has left never reaches the one that took its index, because the generations differ.
/// An address never comes back: generations of an index run from 1 to 2³² - 2, and an index whose generations are used
/// up is never given to anybody again. Free indices are handed out in turn. A fabric of `KERNELS` indices therefore
/// serves `KERNELS` × 4.29 × 10⁹ registrations: at 1000 registrations a second and 16 indices, 2177 years; at a million
/// a second, 2.2 years. The zero `KernelId` is nobody.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Pod, Zeroable)]
#[repr(transparent)]
pub struct KernelId(u64);

impl KernelId {
    /// The address of nobody.
    pub const NONE: Self = Self(0);

    /// Owner number `generation` of index `index`.
    #[must_use]
    pub const fn new(index: u16, generation: u32) -> Self {
        Self((generation as u64) << 16 | index as u64)
    }

    /// From [`raw`](Self::raw). The upper 16 bits do not count.
    #[must_use]
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw & 0xffff_ffff_ffff)
    }

    /// Index in the lowest 16 bits, generation in the 32 above. The upper 16 are zero.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// Index in the fabric's table. Not checked against any table's size.
    #[must_use]
    pub const fn index(self) -> usize {
        (self.0 & 0xffff) as usize
    }

    /// Which owner of the index; 0 is none.
    #[must_use]
    pub const fn generation(self) -> u32 {
        (self.0 >> 16) as u32
    }

    /// Whether this is an address at all.
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.generation() == 0
    }
}

impl fmt::Debug for KernelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_none() { f.write_str("k-") } else { write!(f, "k{}.{}", self.index(), self.generation()) }
    }
}

impl fmt::Display for KernelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Names one message for ever: its sender and the sender's count. Needs no global counter.
///
/// An index's count goes on when the index changes hands, so `sequence` alone is unique for an index. Its 57 bits are
/// never used twice: an index that has sent 2⁵⁶ messages (2.3 years at 10⁹ messages a second) gets no new owner.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MessageId {
    /// Who sent it.
    pub source: KernelId,
    /// Which of the source's messages it is, from 1.
    pub sequence: u64,
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.source, self.sequence)
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Which of an inbox's two queues a message waits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum Priority {
    /// First in, first out per sender.
    #[default]
    Normal = 0,
    /// Received before every normal message; after 16 of them in a row one normal message has its turn.
    High = 1,
}

/// The fixed part of every message. What the caller sets, and what [`send`](crate::Endpoint::send) fills in, is said at
/// each field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Header {
    /// The sender's count, from 1. Set by `send`.
    pub sequence: u64,
    /// Free for the caller; a reply carries the `sequence` of its request here.
    pub correlation_id: u64,
    /// Wall time of sending, ns since the Unix epoch; the upper part of the hybrid timestamp. Set by `send`.
    pub wall_time_ns: u64,
    /// When delivery has failed, in ns on the clock of [`Platform::now_ns`](crate::Platform::now_ns); 0 lets `send` set it
    /// from the fabric's timeout.
    pub deadline_ns: u64,
    /// Generation of the [sender](Self::source). Set by `send`; never the caller's choice.
    pub source_generation: u32,
    /// Generation of the [receiver](Self::destination). Set by `send`.
    pub destination_generation: u32,
    /// What the payload means: the caller's number.
    pub kind: u32,
    /// Index of the [sender](Self::source). Set by `send`; never the caller's choice.
    pub source_index: u16,
    /// Index of the [receiver](Self::destination). Set by `send`.
    pub destination_index: u16,
    /// Bytes of payload that count, at most `PAYLOAD`.
    pub payload_len: u16,
    /// Logical part of the hybrid timestamp. Set by `send`.
    pub logical: u16,
    /// Free for the caller.
    pub flags: u8,
    /// How often the message was forwarded. Set by `send` and by each forwarder.
    pub hops: u8,
    /// How often it may be forwarded; 0 lets `send` set the fabric's limit.
    ///
    /// Set by `send`: 1 to 127 in the low bits, which [`hop_limit`](Self::hop_limit()) gives; the top bit says whether
    /// the message [is a reply](Self::is_reply).
    pub hop_limit: u8,
    /// A [`Priority`]. Set by `send`.
    pub priority: u8,
}

impl Header {
    /// As [`Shared::LAYOUT`](crate::sync::Shared::LAYOUT): the offsets of all fields, in the order above.
    #[cfg(not(k2k_loom))]
    pub const LAYOUT: u64 = {
        use core::mem::offset_of;
        crate::sync::layout_of(
            0,
            &[
                size_of::<Self>(),
                offset_of!(Self, sequence),
                offset_of!(Self, correlation_id),
                offset_of!(Self, wall_time_ns),
                offset_of!(Self, deadline_ns),
                offset_of!(Self, source_generation),
                offset_of!(Self, destination_generation),
                offset_of!(Self, kind),
                offset_of!(Self, source_index),
                offset_of!(Self, destination_index),
                offset_of!(Self, payload_len),
                offset_of!(Self, logical),
                offset_of!(Self, flags),
                offset_of!(Self, hops),
                offset_of!(Self, hop_limit),
                offset_of!(Self, priority),
            ],
        )
    };
}

/// Why a header cannot be one that `send` wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeaderError {
    /// More payload than the slot holds.
    PayloadLen {
        /// What the header says, in bytes.
        found: u16,
        /// What fits, in bytes.
        capacity: u16,
    },
    /// A priority that does not exist.
    Priority {
        /// What the header says.
        found: u8,
    },
    /// Sender or receiver is not a kernel's address, or the sequence is 0.
    Address,
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PayloadLen { found, capacity } => {
                write!(f, "header claims {found} bytes of payload, but a slot holds {capacity}")
            }
            Self::Priority { found } => write!(f, "priority {found} does not exist: 0 is normal, 1 is high"),
            Self::Address => f.write_str("source, destination or sequence is 0, which `send` never writes"),
        }
    }
}

impl core::error::Error for HeaderError {}

/// How often a message may be forwarded at most.
pub const HOP_LIMIT_MAX: u8 = 127;

/// In [`Header::hop_limit`]: the correlation id is a sequence of the destination's.
const REPLY: u8 = 0x80;

impl Header {
    /// How often the message may be forwarded.
    #[inline(always)]
    #[must_use]
    pub const fn hop_limit(&self) -> u8 {
        self.hop_limit & HOP_LIMIT_MAX
    }

    /// Whether the message is a [reply](crate::Endpoint::reply), so that its correlation id is the sequence of a message
    /// that the destination has sent.
    #[must_use]
    pub const fn is_reply(&self) -> bool {
        self.hop_limit & REPLY != 0
    }

    /// A hop limit together with what [`is_reply`](Self::is_reply) answers.
    pub(crate) const fn marked_hop_limit(limit: u8, is_reply: bool) -> u8 {
        limit & HOP_LIMIT_MAX | if is_reply { REPLY } else { 0 }
    }

    /// Bytes of its message that count, itself included.
    #[inline(always)]
    pub(crate) const fn used(&self) -> usize {
        size_of::<Self>() + self.payload_len as usize
    }

    /// Checks everything that can be known from the header alone. After it, `payload_len` and `priority` can be
    /// relied on; addresses still have to be looked up.
    ///
    /// # Errors
    /// The first rule that the header breaks.
    pub const fn check(&self, payload_capacity: usize) -> Result<(), HeaderError> {
        if self.payload_len as usize > payload_capacity {
            return Err(HeaderError::PayloadLen { found: self.payload_len, capacity: payload_capacity as u16 });
        }
        if self.priority > Priority::High as u8 {
            return Err(HeaderError::Priority { found: self.priority });
        }
        if self.sequence == 0 || self.source_generation == 0 || self.destination_generation == 0 {
            return Err(HeaderError::Address);
        }
        Ok(())
    }

    /// The message's name.
    #[must_use]
    pub const fn id(&self) -> MessageId {
        MessageId { source: self.source(), sequence: self.sequence }
    }

    /// Who sent it.
    #[must_use]
    pub const fn source(&self) -> KernelId {
        KernelId::new(self.source_index, self.source_generation)
    }

    /// Sets who sent it. What a caller sets here, `send` overwrites.
    #[inline(always)]
    pub const fn set_source(&mut self, source: KernelId) {
        self.source_index = source.index() as u16;
        self.source_generation = source.generation();
    }

    /// Who it is for.
    #[must_use]
    pub const fn destination(&self) -> KernelId {
        KernelId::new(self.destination_index, self.destination_generation)
    }

    /// Sets who it is for. What a caller sets here, `send` overwrites.
    #[inline(always)]
    pub const fn set_destination(&mut self, destination: KernelId) {
        self.destination_index = destination.index() as u16;
        self.destination_generation = destination.generation();
    }

    /// When it was sent, as a hybrid timestamp.
    #[must_use]
    pub const fn sent(&self) -> Timestamp {
        Timestamp { wall_time_ns: self.wall_time_ns, logical: self.logical }
    }
}

/// A payload did not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadTooLong {
    /// Bytes that were given.
    pub len: usize,
    /// Bytes that fit.
    pub capacity: usize,
}

impl fmt::Display for PayloadTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "payload of {} bytes is too long: a message of this fabric carries {} bytes; split it, or use a fabric \
             with a larger PAYLOAD",
            self.len, self.capacity
        )
    }
}

impl core::error::Error for PayloadTooLong {}

/// A payload has not the size of the type it was to be read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadSize {
    /// Bytes that the message carries.
    pub found: usize,
    /// Size of the type, in bytes.
    pub expected: usize,
}

impl fmt::Display for PayloadSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "message carries {} bytes, but the type asked for has {}", self.found, self.expected)
    }
}

impl core::error::Error for PayloadSize {}

/// A header and `PAYLOAD` bytes, of which the first `header.payload_len` count. `PAYLOAD` is a multiple of 64, at
/// most 65472.
///
/// ```
/// use k2k_core::Message;
///
/// let message = Message::<64>::from_bytes(7, b"hello").expect("5 bytes fit in 64");
/// assert_eq!(message.payload(), b"hello");
/// assert_eq!(message.header.kind, 7);
///
/// let too_long = Message::<64>::from_bytes(7, &[0; 65]).unwrap_err();
/// assert_eq!((too_long.len, too_long.capacity), (65, 64));
/// ```
///
/// Any bytes are a message (`bytemuck::AnyBitPattern`), but a message is not always bytes: one of an odd `PAYLOAD`,
/// which no function here takes, would end in padding.
///
/// ```compile_fail,E0277
/// let read_padding = |message: &k2k_core::Message<1>| bytemuck::bytes_of(message)[63];
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Message<const PAYLOAD: usize> {
    /// The fixed part.
    pub header: Header,
    bytes: [u8; PAYLOAD],
}

// SAFETY: zero is valid for both fields.
unsafe impl<const PAYLOAD: usize> Zeroable for Message<PAYLOAD> {
    #[inline]
    fn zeroed() -> Self {
        let () = Self::SIZE_IS_RIGHT;
        // SAFETY: see above.
        unsafe { core::mem::zeroed() }
    }
}
// SAFETY: every byte pattern is valid for both fields. Not `Pod`: for a `PAYLOAD` that is no multiple of 8 the compiler
// puts padding at the end, which no code may read, and a trait cannot ask for a multiple.
unsafe impl<const PAYLOAD: usize> bytemuck::AnyBitPattern for Message<PAYLOAD> {}

impl<const PAYLOAD: usize> fmt::Debug for Message<PAYLOAD> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").field("header", &self.header).field("payload", &self.payload()).finish()
    }
}

impl<const PAYLOAD: usize> Message<PAYLOAD> {
    pub(crate) const SIZE_IS_RIGHT: () = {
        assert!(PAYLOAD.is_multiple_of(64), "PAYLOAD must be a multiple of 64, so that slots are whole cache lines");
        assert!(PAYLOAD <= 65472, "PAYLOAD must be at most 65472 bytes: its length is a u16");
        assert!(size_of::<Self>() == size_of::<Header>() + PAYLOAD);
    };

    /// An empty message. That is a legal thing to send.
    #[must_use]
    pub fn new(kind: u32) -> Self {
        let mut place = core::mem::MaybeUninit::uninit();
        Self::new_in(&mut place, kind);
        // SAFETY: made above.
        unsafe { place.assume_init() }
    }

    /// As [`new`](Self::new), in memory of the caller's: a message of many KiB is copied more than once on its way
    /// through values, and on the stack.
    #[inline(always)]
    pub fn new_in(place: &mut core::mem::MaybeUninit<Self>, kind: u32) -> &mut Self {
        const { Self::SIZE_IS_RIGHT };
        let message = crate::sync::zeroed_in::<Self>(place);
        message.header.kind = kind;
        message
    }

    /// A message carrying bytes.
    ///
    /// # Errors
    /// [`PayloadTooLong`] if there are more than `PAYLOAD`.
    pub fn from_bytes(kind: u32, payload: &[u8]) -> Result<Self, PayloadTooLong> {
        let mut message = Self::new(kind);
        message.set_payload(payload)?;
        Ok(message)
    }

    /// A message carrying one plain value. Whether it fits is checked when the program is compiled.
    ///
    /// ```
    /// use k2k_core::Message;
    /// let message = Message::<64>::from_value(1, &[1.0f32, 2.0]);
    /// assert_eq!(message.value::<[f32; 2]>(), Ok([1.0, 2.0]));
    /// ```
    #[must_use]
    pub fn from_value<T: Pod>(kind: u32, value: &T) -> Self {
        const { assert!(size_of::<T>() <= PAYLOAD, "the value does not fit in PAYLOAD bytes") };
        let mut message = Self::new(kind);
        message.bytes[..size_of::<T>()].copy_from_slice(bytemuck::bytes_of(value));
        message.header.payload_len = size_of::<T>() as u16;
        message
    }

    /// Replaces the payload.
    ///
    /// # Errors
    /// [`PayloadTooLong`] if there are more than `PAYLOAD` bytes; the message is then unchanged.
    pub fn set_payload(&mut self, payload: &[u8]) -> Result<(), PayloadTooLong> {
        let place =
            self.bytes.get_mut(..payload.len()).ok_or(PayloadTooLong { len: payload.len(), capacity: PAYLOAD })?;
        place.copy_from_slice(payload);
        self.header.payload_len = payload.len() as u16;
        Ok(())
    }

    /// Sets the length of the payload, and gives its bytes to be written: nothing is copied twice.
    ///
    /// # Errors
    /// [`PayloadTooLong`] if there is not that much room; nothing has changed then.
    pub fn payload_mut(&mut self, len: usize) -> Result<&mut [u8], PayloadTooLong> {
        let payload = self.bytes.get_mut(..len).ok_or(PayloadTooLong { len, capacity: PAYLOAD })?;
        self.header.payload_len = len as u16;
        Ok(payload)
    }

    /// The payload: `header.payload_len` bytes, or all there are if the header claims more.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.bytes[..(self.header.payload_len as usize).min(PAYLOAD)]
    }

    /// The payload as a plain value.
    ///
    /// # Errors
    /// [`PayloadSize`] if the message carries more or fewer bytes than `T` has.
    pub fn value<T: Pod>(&self) -> Result<T, PayloadSize> {
        bytemuck::try_pod_read_unaligned(self.payload())
            .map_err(|_| PayloadSize { found: self.payload().len(), expected: size_of::<T>() })
    }

    /// Sets the correlation id.
    #[must_use]
    pub const fn with_correlation_id(mut self, correlation_id: u64) -> Self {
        self.header.correlation_id = correlation_id;
        self
    }

    /// Sets how often this message may be forwarded, instead of the fabric's limit. 1 to 127; more is taken for 127.
    #[must_use]
    pub const fn with_hop_limit(mut self, hop_limit: u8) -> Self {
        self.header.hop_limit = if hop_limit > HOP_LIMIT_MAX { HOP_LIMIT_MAX } else { hop_limit };
        self
    }

    /// Sets when delivery has failed, instead of the fabric's timeout from now. In ns on the clock of
    /// [`Platform::now_ns`](crate::Platform::now_ns), so [`Endpoint::deadline_in`](crate::Endpoint::deadline_in) is the way
    /// to make one of a duration. `u64::MAX` is never.
    #[must_use]
    pub const fn with_deadline_ns(mut self, deadline_ns: u64) -> Self {
        self.header.deadline_ns = deadline_ns;
        self
    }

    /// Sets that delivery has failed once `timeout` has passed from now, on the clock of the kernel that sends the message:
    /// its endpoint, or the context of its handler.
    ///
    /// ```
    /// use core::time::Duration;
    /// use k2k_core::{Context, Message};
    ///
    /// fn urgent(sender: &impl Context<64>) -> Message<64> {
    ///     Message::new(1).with_timeout(sender, Duration::from_millis(5))
    /// }
    /// ```
    #[must_use]
    pub fn with_timeout(self, sender: &impl crate::Context<PAYLOAD>, timeout: core::time::Duration) -> Self {
        self.with_deadline_ns(sender.deadline_in(timeout))
    }

    /// Sets the caller's flags.
    #[must_use]
    pub const fn with_flags(mut self, flags: u8) -> Self {
        self.header.flags = flags;
        self
    }
}

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<Header>() == 56 && align_of::<Header>() == 8);
    assert!(offset_of!(Header, sequence) == 0);
    assert!(offset_of!(Header, correlation_id) == 8);
    assert!(offset_of!(Header, wall_time_ns) == 16);
    assert!(offset_of!(Header, deadline_ns) == 24);
    assert!(offset_of!(Header, source_generation) == 32);
    assert!(offset_of!(Header, destination_generation) == 36);
    assert!(offset_of!(Header, kind) == 40);
    assert!(offset_of!(Header, source_index) == 44);
    assert!(offset_of!(Header, destination_index) == 46);
    assert!(offset_of!(Header, payload_len) == 48);
    assert!(offset_of!(Header, logical) == 50);
    assert!(offset_of!(Header, flags) == 52);
    assert!(offset_of!(Header, hops) == 53);
    assert!(offset_of!(Header, hop_limit) == 54);
    assert!(offset_of!(Header, priority) == 55);
    assert!(size_of::<Message<192>>() == 248);
};

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    fn sent() -> Header {
        let mut header = Header { sequence: 1, ..Zeroable::zeroed() };
        header.set_source(KernelId::new(0, 1));
        header.set_destination(KernelId::new(1, 1));
        header
    }

    #[test]
    fn an_address_is_printed_as_index_and_generation() {
        let id = KernelId::new(7, 3);
        assert_eq!((std::format!("{id}"), std::format!("{id:?}")), ("k7.3".into(), "k7.3".into()));
        assert_eq!(std::format!("{}", KernelId::new(7, 0)), "k-");
        let message = MessageId { source: id, sequence: 9 };
        assert_eq!((std::format!("{message}"), std::format!("{message:?}")), ("k7.3#9".into(), "k7.3#9".into()));
    }

    #[test]
    fn a_header_as_send_writes_it_passes() {
        assert_eq!(sent().check(64), Ok(()));
    }

    #[test]
    fn each_broken_field_is_named() {
        let long = Header { payload_len: 65, ..sent() };
        assert_eq!(long.check(64), Err(HeaderError::PayloadLen { found: 65, capacity: 64 }));
        assert_eq!(Header { priority: 2, ..sent() }.check(64), Err(HeaderError::Priority { found: 2 }));
        assert_eq!(Header { sequence: 0, ..sent() }.check(64), Err(HeaderError::Address));
        assert_eq!(Header { source_generation: 0, ..sent() }.check(64), Err(HeaderError::Address));
        assert_eq!(Header { destination_generation: 0, ..sent() }.check(64), Err(HeaderError::Address));
    }

    #[test]
    fn a_payload_written_in_place_has_the_length_that_was_asked_for() {
        let mut message = Message::<64>::from_bytes(1, b"longer").unwrap();
        message.payload_mut(4).unwrap().copy_from_slice(b"four");
        assert_eq!(message.payload(), b"four");
        assert_eq!(message.payload_mut(65), Err(PayloadTooLong { len: 65, capacity: 64 }));
        assert_eq!(message.payload(), b"four");
    }

    #[test]
    fn an_empty_payload_is_legal_and_a_full_one_fits() {
        assert_eq!(Message::<64>::new(1).payload(), b"");
        assert_eq!(Message::<0>::new(1).payload(), b"");
        assert_eq!(Message::<64>::from_bytes(1, &[3; 64]).map(|m| m.payload().len()), Ok(64));
    }

    #[test]
    fn a_lying_length_is_clamped() {
        let mut message = Message::<64>::new(1);
        message.header.payload_len = u16::MAX;
        assert_eq!(message.payload().len(), 64);
    }

    #[test]
    fn a_value_of_the_wrong_size_is_refused_with_both_sizes() {
        let message = Message::<64>::from_value(1, &5u32);
        assert_eq!(message.value::<u32>(), Ok(5));
        assert_eq!(message.value::<u64>(), Err(PayloadSize { found: 4, expected: 8 }));
    }

    #[test]
    fn kernel_ids_split_into_index_and_generation() {
        let id = KernelId::new(300, 7);
        assert_eq!((id.index(), id.generation()), (300, 7));
        assert!(KernelId::NONE.is_none());
        let last = KernelId::new(u16::MAX, u32::MAX);
        assert_eq!((last.index(), last.generation()), (0xffff, u32::MAX));
        assert_eq!(KernelId::from_raw(u64::MAX), last, "bits that mean nothing make no second address");
        assert_eq!(KernelId::from_raw(last.raw()), last);
    }

    #[test]
    fn a_header_gives_back_the_addresses_that_it_was_given() {
        let mut header = sent();
        let (source, destination) = (KernelId::new(u16::MAX, 1), KernelId::new(7, u32::MAX));
        header.set_source(source);
        header.set_destination(destination);
        assert_eq!((header.source(), header.destination()), (source, destination));
        assert_eq!(header.id(), MessageId { source, sequence: 1 });
    }
}
