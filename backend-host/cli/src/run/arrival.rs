//! The last kernel's work: arriving chunks are checked, timed and written to their place.

use super::supply::Checker;
use core::fmt;
use hdrhistogram::Histogram;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};

/// Bytes collected before they are written.
const WRITE_BEHIND: usize = 1 << 18;

/// Longest latency distinct from longer latencies, ns.
const LONGEST_NS: u64 = 3_600_000_000_000;

/// The chunks that have arrived. Needs memory only for chunks that overtook a missing chunk.
#[derive(Debug, Default)]
struct Seen {
    /// All chunks below this index have arrived.
    next: u64,
    ahead: BTreeSet<u64>,
}

impl Seen {
    /// Notes a chunk; `false` if the chunk has arrived before.
    fn insert(&mut self, index: u64) -> bool {
        if index < self.next {
            return false;
        }
        if index > self.next {
            return self.ahead.insert(index);
        }
        self.next += 1;
        while self.ahead.remove(&self.next) {
            self.next += 1;
        }
        true
    }

    fn count(&self) -> u64 {
        self.next + self.ahead.len() as u64
    }
}

/// Why an arrived chunk is not good.
#[derive(Debug)]
pub(crate) enum ArrivalError {
    Write { name: String, why: io::Error },
    Twice { chunk: u64 },
    Damaged { chunk: u64 },
}

impl fmt::Display for ArrivalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { name, why } => write!(f, "cannot write {name}: {why}"),
            Self::Twice { chunk } => write!(f, "message {chunk} was received twice"),
            Self::Damaged { chunk } => write!(f, "message {chunk} is not what was sent"),
        }
    }
}

/// Destination of chunks.
#[derive(Debug)]
enum Store {
    /// A file; the next byte would be written at `at`.
    File { file: BufWriter<File>, name: String, at: u64 },
    /// Chunks are compared with the generated chunks.
    Check(Checker),
}

/// State of the last kernel.
#[derive(Debug)]
pub(crate) struct Arrivals {
    store: Store,
    /// Bytes of a full chunk.
    size: usize,
    seen: Seen,
    bytes: u64,
    latency_ns: Histogram<u64>,
    /// The first error; later errors are not kept.
    error: Option<ArrivalError>,
}

/// Totals of the arrived chunks.
#[derive(Debug)]
pub(crate) struct Arrived {
    /// Number of different chunks.
    pub(crate) chunks: u64,
    pub(crate) bytes: u64,
    pub(crate) latency_ns: Histogram<u64>,
    pub(crate) error: Option<ArrivalError>,
}

impl Arrivals {
    /// Writes chunks to a file, called `name` in errors.
    pub(crate) fn to_file(file: File, name: &str, size: usize) -> Self {
        let file = BufWriter::with_capacity(WRITE_BEHIND, file);
        Self::new(Store::File { file, name: name.to_owned(), at: 0 }, size)
    }

    /// Checks generated chunks.
    pub(crate) fn to_check(size: usize) -> Self {
        Self::new(Store::Check(Checker::default()), size)
    }

    fn new(store: Store, size: usize) -> Self {
        let latency_ns = Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("1 < LONGEST_NS, 3 digits");
        Self { store, size, seen: Seen::default(), bytes: 0, latency_ns, error: None }
    }

    /// Takes a chunk in. `false` after any error.
    pub(crate) fn take(&mut self, index: u64, chunk: &[u8], latency_ns: u64) -> bool {
        self.latency_ns.saturating_record(latency_ns);
        let result =
            if self.seen.insert(index) { self.keep(index, chunk) } else { Err(ArrivalError::Twice { chunk: index }) };
        match result {
            Ok(()) => self.bytes += chunk.len() as u64,
            Err(e) => {
                self.error.get_or_insert(e);
            }
        }
        self.error.is_none()
    }

    fn keep(&mut self, index: u64, chunk: &[u8]) -> Result<(), ArrivalError> {
        match &mut self.store {
            Store::File { file, name, at } => {
                let error = |why| ArrivalError::Write { name: name.clone(), why };
                let place = index.saturating_mul(self.size as u64);
                if place != *at {
                    // A chunk that was sent again, or the chunk after it. Seeking flushes.
                    file.seek(SeekFrom::Start(place)).map_err(error)?;
                }
                file.write_all(chunk).map_err(error)?;
                *at = place.saturating_add(chunk.len() as u64);
                Ok(())
            }
            Store::Check(checker) => {
                let intact = checker.is_intact(index, self.size, chunk);
                if intact { Ok(()) } else { Err(ArrivalError::Damaged { chunk: index }) }
            }
        }
    }

    /// Writes the buffered rest.
    pub(crate) fn finish(mut self) -> Arrived {
        if let Store::File { file, name, .. } = &mut self.store
            && let Err(why) = file.flush()
        {
            self.error.get_or_insert(ArrivalError::Write { name: name.clone(), why });
        }
        let Self { seen, bytes, latency_ns, error, .. } = self;
        Arrived { chunks: seen.count(), bytes, latency_ns, error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn written(chunks: &[(u64, &[u8])], size: usize) -> (Vec<u8>, Arrived) {
        let mut file = tempfile::tempfile().expect("a temporary file");
        let mut arrivals = Arrivals::to_file(file.try_clone().expect("cloned"), "the file", size);
        for &(index, chunk) in chunks {
            arrivals.take(index, chunk, 10);
        }
        let arrived = arrivals.finish();
        let mut content = Vec::new();
        file.rewind().and_then(|()| file.read_to_end(&mut content)).expect("readable");
        (content, arrived)
    }

    #[test]
    fn chunks_are_put_in_their_places_in_whatever_order_they_come() {
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]] {
            let all: [&[u8]; 3] = [b"abcd", b"efgh", b"i"];
            let chunks: Vec<_> = order.iter().map(|&i| (i as u64, all[i])).collect();
            let (content, arrived) = written(&chunks, 4);
            assert_eq!(content, b"abcdefghi", "{order:?}");
            assert!(arrived.error.is_none());
            assert_eq!((arrived.chunks, arrived.bytes, arrived.latency_ns.len()), (3, 9, 3));
        }
    }

    #[test]
    fn a_chunk_that_comes_twice_is_an_error() {
        for chunks in [[(0, &b"ab"[..]), (0, b"ab")], [(5, b"ab"), (5, b"ab")]] {
            let (_, arrived) = written(&chunks, 2);
            let error = arrived.error.expect("the second is noticed").to_string();
            assert_eq!(error, format!("message {} was received twice", chunks[0].0));
            assert_eq!(arrived.chunks, 1);
        }
    }

    #[test]
    fn a_gap_shows_in_the_count() {
        let (_, arrived) = written(&[(0, b"ab"), (2, b"ef")], 2);
        assert_eq!(arrived.chunks, 2);
    }

    #[test]
    fn a_damaged_generated_chunk_is_an_error() {
        let mut arrivals = Arrivals::to_check(8);
        assert!(!arrivals.take(0, b"damaged!", 10));
        let error = arrivals.finish().error.expect("noticed").to_string();
        assert_eq!(error, "message 0 is not what was sent");
    }
}
