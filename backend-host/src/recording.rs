//! Recordings: a file of messages, written by `k2k record` and read by `k2k replay`.
//!
//! All numbers are little-endian. The file is a head, messages, and an end:
//!
//! ```text
//!   head, 96 bytes                            message, 32 bytes and its payload         end, 32 bytes
//!    0  "K2Krecor"                             0  ns since the recording began           0  ns since the recording began
//!    8  version: 1                      u32    8  correlation id                  u64    8  count of messages          u64
//!   12  payload that a message carries  u32   16  type word                       u32   16  0                          u32
//!   16  begin, ns since 1970            u64   20  payload, bytes                  u16   20  0                          u16
//!   24  sender's name, zeros behind      32   22  priority: 0 normal, 1 high       u8   22  0                           u8
//!   56  receiver's name, zeros behind    32   23  flags                            u8   23  0                           u8
//!   88  0                               u32   24  1: a message                    u32   24  2: the end                 u32
//!   92  CRC-32 of the 92 bytes before   u32   28  CRC-32 of the 28 bytes before   u32   28  as for a message           u32
//!                                                 and of the payload
//!                                             32  payload
//! ```
//!
//! Times never decrease. A file without its end was cut short: its recorder was killed, or the disk was full.
//!
//! ```
//! use k2k::recording::{Head, Reader, Record, Writer};
//!
//! let head = Head { capacity: 64, began_ns: 1_700_000_000_000_000_000, from: "a".into(), to: "b".into() };
//! let mut file = Vec::new();
//! let mut writer = Writer::new(&mut file, &head)?;
//! writer.write(&Record { offset_ns: 5, kind: 7, payload: b"hello".to_vec(), ..Record::default() })?;
//! writer.finish(9)?;
//!
//! let reader = Reader::new(&file[..])?;
//! assert_eq!(reader.head(), &head);
//! let records = reader.collect::<Result<Vec<_>, _>>()?;
//! assert_eq!((records.len(), &records[0].payload[..]), (1, &b"hello"[..]));
//! # Ok::<(), k2k::recording::RecordingError>(())
//! ```

use crate::Priority;
use core::fmt;
use crc32fast::Hasher;
use std::io::{self, Read, Write};

/// How each recording begins.
pub const MAGIC: [u8; 8] = *b"K2Krecor";

/// Version of the format.
pub const VERSION: u32 = 1;

/// Longest payload of any fabric, bytes.
const MOST: u32 = 65472;

const HEAD_LEN: usize = 96;
const RECORD_LEN: usize = 32;
const NAME_LEN: usize = 32;
const IS_MESSAGE: u32 = 1;
const IS_END: u32 = 2;

/// The head of a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Largest payload of a message in the recorded fabric, bytes: 65472 at most.
    pub capacity: u32,
    /// When the recording began, ns since 1970.
    pub began_ns: u64,
    /// Name of the sender or last forwarder: 32 bytes at most.
    pub from: String,
    /// Name of the receiver: 32 bytes at most.
    pub to: String,
}

/// A recorded message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// When the message was seen, ns since the recording began.
    pub offset_ns: u64,
    /// The message's correlation id.
    pub correlation_id: u64,
    /// The message's type word.
    pub kind: u32,
    /// The message's priority.
    pub priority: Priority,
    /// The message's flags.
    pub flags: u8,
    /// The message's payload.
    pub payload: Vec<u8>,
}

/// Why a recording cannot be written or read.
#[derive(Debug)]
#[non_exhaustive]
pub enum RecordingError {
    /// The file does not begin like a recording.
    Magic {
        /// The file's first bytes.
        found: [u8; 8],
    },
    /// The recording has another version.
    Version {
        /// Version found.
        found: u32,
    },
    /// The file ends before the recording does.
    Truncated {
        /// Number of complete messages.
        messages: u64,
    },
    /// Bytes have changed: a checksum does not fit, or a number is never written.
    Damaged {
        /// Complete messages before the damage.
        messages: u64,
        /// The damage, in words.
        what: &'static str,
    },
    /// Bytes follow the end of the recording.
    Trailing,
    /// The head or a message does not fit the format.
    TooLong {
        /// The part that is too long.
        what: &'static str,
        /// Length of the part, bytes.
        len: usize,
        /// The limit of the format or of the recorded fabric, bytes.
        most: usize,
    },
    /// The system refused.
    Io(io::Error),
}

impl fmt::Display for RecordingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic { found } => {
                write!(
                    f,
                    "it is no recording: it begins with \"{}\", not \"{}\"",
                    found.escape_ascii(),
                    MAGIC.escape_ascii()
                )
            }
            Self::Version { found } => {
                write!(f, "it is a recording of version {found}, and this program reads version {VERSION}")
            }
            Self::Truncated { messages } => {
                write!(
                    f,
                    "it was cut short after {messages} whole messages: its recorder was killed, or the disk was full"
                )
            }
            Self::Damaged { messages, what } => {
                write!(f, "it is damaged behind {messages} whole messages: {what}")
            }
            Self::Trailing => f.write_str("bytes follow the end of the recording"),
            Self::TooLong { what, len, most } => write!(f, "{what} has {len} bytes, and {most} are allowed"),
            Self::Io(why) => why.fmt(f),
        }
    }
}

impl core::error::Error for RecordingError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Io(why) => Some(why),
            _ => None,
        }
    }
}

impl From<io::Error> for RecordingError {
    fn from(why: io::Error) -> Self {
        Self::Io(why)
    }
}

/// The CRC-32 of some pieces.
fn checksum(pieces: [&[u8]; 2]) -> u32 {
    let mut hasher = Hasher::new();
    for piece in pieces {
        hasher.update(piece);
    }
    hasher.finalize()
}

/// Writes a recording. Without [`finish`](Self::finish), the file counts as cut short.
#[derive(Debug)]
pub struct Writer<W: Write> {
    to: W,
    capacity: u32,
    messages: u64,
    last_ns: u64,
}

impl<W: Write> Writer<W> {
    /// Writes the head.
    ///
    /// # Errors
    /// [`RecordingError::TooLong`] for names or a capacity beyond the limits of [`Head`]; [`RecordingError::Io`].
    pub fn new(mut to: W, head: &Head) -> Result<Self, RecordingError> {
        if head.capacity > MOST {
            let len = usize::try_from(head.capacity).unwrap_or(usize::MAX);
            return Err(RecordingError::TooLong { what: "a payload", len, most: MOST as usize });
        }
        let mut bytes = [0; HEAD_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&head.capacity.to_le_bytes());
        bytes[16..24].copy_from_slice(&head.began_ns.to_le_bytes());
        for (at, name) in [(24, &head.from), (56, &head.to)] {
            let place = &mut bytes[at..at + NAME_LEN];
            let too_long = RecordingError::TooLong { what: "a name", len: name.len(), most: NAME_LEN };
            place.get_mut(..name.len()).ok_or(too_long)?.copy_from_slice(name.as_bytes());
        }
        let sum = checksum([&bytes[..HEAD_LEN - 4], &[]]);
        bytes[HEAD_LEN - 4..].copy_from_slice(&sum.to_le_bytes());
        to.write_all(&bytes)?;
        Ok(Self { to, capacity: head.capacity, messages: 0, last_ns: 0 })
    }

    /// Writes a message. A time before the last message's counts as the same.
    ///
    /// # Errors
    /// [`RecordingError::TooLong`] for a payload beyond the capacity; [`RecordingError::Io`].
    pub fn write(&mut self, record: &Record) -> Result<(), RecordingError> {
        let (len, most) = (record.payload.len(), self.capacity as usize);
        let payload_len = u16::try_from(len).ok().filter(|_| len <= most);
        let payload_len = payload_len.ok_or(RecordingError::TooLong { what: "a payload", len, most })?;
        self.last_ns = self.last_ns.max(record.offset_ns);
        let word = u64::from(payload_len) | (record.priority as u64) << 16 | u64::from(record.flags) << 24;
        self.put(
            [self.last_ns, record.correlation_id, u64::from(record.kind) | word << 32],
            IS_MESSAGE,
            &record.payload,
        )?;
        self.messages += 1;
        Ok(())
    }

    /// Flushes the buffered bytes.
    ///
    /// # Errors
    /// [`RecordingError::Io`].
    pub fn flush(&mut self) -> Result<(), RecordingError> {
        Ok(self.to.flush()?)
    }

    /// Writes the end: the recording lasted `offset_ns`. Returns the number of messages.
    ///
    /// # Errors
    /// [`RecordingError::Io`].
    pub fn finish(mut self, offset_ns: u64) -> Result<u64, RecordingError> {
        self.put([self.last_ns.max(offset_ns), self.messages, 0], IS_END, &[])?;
        self.to.flush()?;
        Ok(self.messages)
    }

    fn put(&mut self, words: [u64; 3], mark: u32, payload: &[u8]) -> Result<(), RecordingError> {
        let mut bytes = [0; RECORD_LEN];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes[24..28].copy_from_slice(&mark.to_le_bytes());
        let sum = checksum([&bytes[..28], payload]);
        bytes[28..].copy_from_slice(&sum.to_le_bytes());
        self.to.write_all(&bytes)?;
        Ok(self.to.write_all(payload)?)
    }
}

/// Reads a recording, message by message. The bytes are untrusted: without a complete recording, reading ends with an error
/// as the last item.
#[derive(Debug)]
pub struct Reader<R: Read> {
    from: R,
    head: Head,
    messages: u64,
    last_ns: u64,
    ended: bool,
}

impl<R: Read> Reader<R> {
    /// Reads the head. The source should be buffered.
    ///
    /// # Errors
    /// [`RecordingError::Magic`], [`RecordingError::Version`], [`RecordingError::Damaged`],
    /// [`RecordingError::Truncated`], [`RecordingError::Io`].
    pub fn new(mut from: R) -> Result<Self, RecordingError> {
        let mut bytes = [0; HEAD_LEN];
        let len = fill(&mut from, &mut bytes)?;
        // Before the check of the length, so that a short foreign file is reported as foreign.
        let found: [u8; 8] = bytes[..8].try_into().unwrap_or_default();
        if found != MAGIC {
            return Err(RecordingError::Magic { found });
        }
        if len < HEAD_LEN {
            return Err(RecordingError::Truncated { messages: 0 });
        }
        let version = number(&bytes[8..12]) as u32;
        if version != VERSION {
            return Err(RecordingError::Version { found: version });
        }
        let damaged = |what| RecordingError::Damaged { messages: 0, what };
        if checksum([&bytes[..HEAD_LEN - 4], &[]]) != number(&bytes[HEAD_LEN - 4..]) as u32 {
            return Err(damaged("the checksum of its head does not fit"));
        }
        let capacity = number(&bytes[12..16]) as u32;
        if capacity > MOST || number(&bytes[88..92]) != 0 {
            return Err(damaged("its head holds a number that no fabric has"));
        }
        let [from_name, to] = [24, 56].map(|at| {
            let name = &bytes[at..at + NAME_LEN];
            let len = name.iter().position(|&byte| byte == 0).unwrap_or(NAME_LEN);
            core::str::from_utf8(&name[..len]).map(str::to_owned).map_err(|_| damaged("a name is no UTF-8"))
        });
        let head = Head { capacity, began_ns: number(&bytes[16..24]), from: from_name?, to: to? };
        Ok(Self { from, head, messages: 0, last_ns: 0, ended: false })
    }

    /// The head of the recording.
    pub const fn head(&self) -> &Head {
        &self.head
    }

    fn read(&mut self) -> Result<Option<Record>, RecordingError> {
        let truncated = RecordingError::Truncated { messages: self.messages };
        let damaged = |what| RecordingError::Damaged { messages: self.messages, what };
        let mut bytes = [0; RECORD_LEN];
        if fill(&mut self.from, &mut bytes)? < RECORD_LEN {
            return Err(truncated);
        }
        let (payload_len, mark) = (number(&bytes[20..22]) as usize, number(&bytes[24..28]) as u32);
        if payload_len > self.head.capacity as usize {
            return Err(damaged("a payload is longer than a message of the recorded fabric"));
        }
        let mut payload = vec![0; payload_len];
        if fill(&mut self.from, &mut payload)? < payload_len {
            return Err(truncated);
        }
        if checksum([&bytes[..28], &payload]) != number(&bytes[28..]) as u32 {
            return Err(damaged("a checksum does not fit"));
        }
        let (offset_ns, correlation_id, flags) = (number(&bytes[..8]), number(&bytes[8..16]), bytes[23]);
        if offset_ns < self.last_ns {
            return Err(damaged("its times decrease"));
        }
        self.last_ns = offset_ns;
        let kind = number(&bytes[16..20]) as u32;
        match (mark, bytes[22]) {
            (IS_MESSAGE, priority @ (0 | 1)) => {
                let priority = if priority == 0 { Priority::Normal } else { Priority::High };
                self.messages += 1;
                Ok(Some(Record { offset_ns, correlation_id, kind, priority, flags, payload }))
            }
            (IS_END, 0) if correlation_id == self.messages && bytes[16..24] == [0; 8] => {
                if fill(&mut self.from, &mut [0])? > 0 {
                    return Err(RecordingError::Trailing);
                }
                Ok(None)
            }
            (IS_END, _) => Err(damaged("its end does not count the messages before it")),
            _ => Err(damaged("there is something that is neither a message nor the end")),
        }
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<Record, RecordingError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let record = self.read().transpose();
        self.ended = !matches!(record, Some(Ok(_)));
        record
    }
}

/// A number of up to eight bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// Reads until the room is full or the source ends, and returns the number of bytes.
fn fill(from: &mut impl Read, room: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < room.len() {
        match from.read(&mut room[len..]) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        Head { capacity: 192, began_ns: 12, from: "sender".into(), to: "x".repeat(32) }
    }

    fn records() -> Vec<Record> {
        let of = |offset_ns, kind, priority, payload: &[u8]| Record {
            offset_ns,
            kind,
            priority,
            payload: payload.to_vec(),
            correlation_id: u64::MAX - offset_ns,
            flags: kind as u8,
        };
        vec![
            of(0, 0, Priority::Normal, b""),
            of(5, u32::MAX, Priority::High, &[255; 192]),
            of(5, 7, Priority::Normal, b"abc"),
        ]
    }

    fn file() -> Vec<u8> {
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file, &head()).unwrap();
        records().iter().for_each(|record| writer.write(record).unwrap());
        assert_eq!(writer.finish(1).unwrap(), 3);
        file
    }

    fn read(file: &[u8]) -> Result<Vec<Record>, RecordingError> {
        Reader::new(file)?.collect()
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(Reader::new(&file()[..]).unwrap().head(), &head());
        assert_eq!(read(&file()).unwrap(), records());
    }

    #[test]
    fn the_format_is_that_of_the_page() {
        let mut file = Vec::new();
        let mut writer =
            Writer::new(&mut file, &Head { capacity: 64, began_ns: 2, from: "a".into(), to: "b".into() }).unwrap();
        let record =
            Record { offset_ns: 3, correlation_id: 4, kind: 5, priority: Priority::High, flags: 6, payload: vec![7] };
        writer.write(&record).unwrap();
        writer.finish(8).unwrap();
        let mut expected = b"K2Krecor".to_vec();
        expected.extend([1, 0, 0, 0, 64, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, b'a']);
        expected.resize(56, 0);
        expected.push(b'b');
        expected.resize(92, 0);
        // CRC-32 as zlib computes it.
        expected.extend(0x4aa5_a0a3u32.to_le_bytes());
        expected.extend([3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 1, 0, 1, 6, 1, 0, 0, 0]);
        expected.extend(0x65db_591bu32.to_le_bytes());
        expected.push(7);
        expected.extend([8, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0]);
        expected.extend(0x42b1_6cccu32.to_le_bytes());
        assert_eq!(file, expected);
    }

    #[test]
    fn a_file_that_is_cut_anywhere_is_called_that() {
        let file = file();
        for len in 0..file.len() {
            match read(&file[..len]) {
                Err(RecordingError::Magic { .. }) if len < 8 => {}
                Err(RecordingError::Truncated { messages }) if len >= 8 => assert!(messages <= 3),
                other => panic!("{len}: {other:?}"),
            }
        }
        assert!(matches!(read(&[&file[..], &[0]].concat()), Err(RecordingError::Trailing)));
    }

    #[test]
    fn no_changed_byte_goes_unnoticed() {
        let file = file();
        for at in 0..file.len() {
            for bit in 0..8 {
                let mut changed = file.clone();
                changed[at] ^= 1 << bit;
                match (at, read(&changed)) {
                    (..8, Err(RecordingError::Magic { .. })) | (8..12, Err(RecordingError::Version { .. })) => {}
                    (12.., Err(RecordingError::Damaged { .. } | RecordingError::Truncated { .. })) => {}
                    (_, other) => panic!("byte {at}, bit {bit}: {other:?}"),
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_with_both_numbers() {
        let name = Head { from: "y".repeat(33), ..head() };
        let why = Writer::new(Vec::new(), &name).unwrap_err();
        assert_eq!(why.to_string(), "a name has 33 bytes, and 32 are allowed");
        let mut writer = Writer::new(Vec::new(), &head()).unwrap();
        let why = writer.write(&Record { payload: vec![0; 193], ..Record::default() }).unwrap_err();
        assert_eq!(why.to_string(), "a payload has 193 bytes, and 192 are allowed");
        assert!(Writer::new(Vec::new(), &Head { capacity: 65473, ..head() }).is_err());
    }
}
