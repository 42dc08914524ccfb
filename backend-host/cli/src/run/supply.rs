//! The data to carry: a file, or data generated on the way. Cut into chunks, a chunk per message.

use super::files::Input;
use crate::interrupt;
use core::time::Duration;
use std::io::{self, BufReader, Read};
use std::time::Instant;

/// Bytes read from the input at a time.
const READ_AHEAD: usize = 1 << 18;

/// Source of chunks. Chunk `i` begins at byte `i * size` of the whole.
#[derive(Debug)]
pub(crate) struct Supply {
    source: Source,
    /// Bytes of every chunk but a file's last.
    size: usize,
    /// Index of the next chunk.
    next: u64,
}

#[derive(Debug)]
enum Source {
    Input { input: BufReader<Input>, ended: bool },
    Generated { lasts: Duration, until: Option<Instant> },
}

impl Supply {
    /// All chunks of an input.
    pub(crate) fn new(input: Input, size: usize) -> Self {
        let input = BufReader::with_capacity(READ_AHEAD, input);
        Self { source: Source::Input { input, ended: false }, size, next: 0 }
    }

    /// Generated chunks, until `lasts` after the first chunk is asked for.
    pub(crate) const fn generated(lasts: Duration, size: usize) -> Self {
        Self { source: Source::Generated { lasts, until: None }, size, next: 0 }
    }

    /// Fills in the next chunk and returns its index; `None` when there is no more, or the job is to end early.
    pub(crate) fn next(&mut self, chunk: &mut Vec<u8>) -> io::Result<Option<u64>> {
        chunk.clear();
        if interrupt::is_asked_for() {
            return Ok(None);
        }
        match &mut self.source {
            Source::Input { input, ended } => {
                if !*ended {
                    // Reads on until the chunk is full or the input ends.
                    input.by_ref().take(self.size as u64).read_to_end(chunk)?;
                    *ended = chunk.len() < self.size;
                }
                if chunk.is_empty() {
                    return Ok(None);
                }
            }
            Source::Generated { lasts, until } => {
                let now = Instant::now();
                if now >= *until.get_or_insert(now + *lasts) {
                    return Ok(None);
                }
                generate(self.next, self.size, chunk);
            }
        }
        self.next += 1;
        Ok(Some(self.next - 1))
    }
}

/// The content of a generated chunk, from its index.
fn generate(index: u64, size: usize, chunk: &mut Vec<u8>) {
    chunk.resize(size, 0);
    fastrand::Rng::with_seed(index).fill(chunk);
}

/// Checks a generated chunk. Keeps a buffer, so that checking allocates once.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    expected: Vec<u8>,
}

impl Checker {
    /// Whether `chunk` is chunk `index` as [`Supply`] generated it.
    pub(crate) fn is_intact(&mut self, index: u64, size: usize, chunk: &[u8]) -> bool {
        generate(index, size, &mut self.expected);
        self.expected == chunk
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, Write};

    fn chunks_of(content: &[u8], size: usize) -> Vec<Vec<u8>> {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(content).and_then(|()| file.rewind()).expect("written");
        let mut supply = Supply::new(Input::File(file), size);
        let (mut chunk, mut chunks) = (Vec::new(), Vec::new());
        while let Some(index) = supply.next(&mut chunk).expect("readable") {
            assert_eq!(index as usize, chunks.len());
            chunks.push(chunk.clone());
        }
        assert!(supply.next(&mut chunk).expect("readable").is_none(), "an ended supply stays ended");
        chunks
    }

    #[test]
    fn a_file_is_cut_into_chunks_of_the_size_and_a_rest() {
        assert_eq!(chunks_of(b"", 4), Vec::<Vec<u8>>::new());
        assert_eq!(chunks_of(b"a", 4), [b"a"]);
        assert_eq!(chunks_of(b"abcd", 4), [b"abcd"]);
        assert_eq!(chunks_of(b"abcde", 4), [&b"abcd"[..], b"e"]);
        assert_eq!(chunks_of(b"abc", 1), [b"a", b"b", b"c"]);
    }

    #[test]
    fn chunks_larger_than_the_read_ahead_are_whole() {
        let content: Vec<u8> = (0..READ_AHEAD * 2 + 5).map(|i| i as u8).collect();
        let chunks = chunks_of(&content, READ_AHEAD - 3);
        assert_eq!(chunks.len(), 3);
        assert_eq!(chunks.concat(), content);
    }

    #[test]
    fn a_generated_chunk_is_recognised_and_a_damaged_one_as_well() {
        let mut checker = Checker::default();
        let mut chunk = Vec::new();
        for size in [1, 7, 8, 100] {
            generate(3, size, &mut chunk);
            assert_eq!(chunk.len(), size);
            assert!(checker.is_intact(3, size, &chunk));
            assert!(!checker.is_intact(4, size, &chunk));
            chunk[size / 2] ^= 1;
            assert!(!checker.is_intact(3, size, &chunk));
        }
    }

    #[test]
    fn generated_data_ends_when_its_time_is_over() {
        let mut supply = Supply::generated(Duration::from_millis(5), 16);
        let mut chunk = Vec::new();
        let mut count = 0;
        while supply.next(&mut chunk).expect("generated").is_some() {
            count += 1;
        }
        assert!(count > 0);
    }
}
