//! Source and destination of a job's data: files, standard input and standard output.
//!
//! Standard input can be read once, and standard output cannot be read at all. Both have a temporary file behind them,
//! so that output and input can be compared.

use super::arrival::Arrivals;
use crate::{interrupt, output};
use core::error::Error;
use core::fmt;
use k2k_command::OutputError;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::env;
use std::fs::{self, File, Metadata};
use std::io::{self, BufReader, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The path for standard input and output.
const STANDARD: &str = "-";

/// How often a job that waits for standard input checks whether it is to end.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Why the files of a job cannot be used.
#[derive(Debug)]
pub(super) enum FilesError {
    Input { path: String, why: io::Error },
    NotAFile { path: String, standard: &'static str },
    Output { path: String, why: io::Error },
    OutputIsInput { path: String },
    Temporary { folder: PathBuf, why: io::Error },
}

impl fmt::Display for FilesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input { path, why } => write!(f, "cannot read {path}: {why}"),
            Self::NotAFile { path, standard } => {
                write!(f, "{path} is not a regular file; {STANDARD} stands for standard {standard}")
            }
            Self::Output { path, why } => write!(f, "cannot write {path}: {why}"),
            Self::OutputIsInput { path } => write!(f, "{path} is both input and output: it would be overwritten"),
            Self::Temporary { folder, why } => write!(
                f,
                "cannot make a temporary file in {}: {why}; set TMPDIR to a folder where that is possible",
                folder.display()
            ),
        }
    }
}

/// The files of a job.
#[derive(Debug)]
pub(super) struct Files {
    /// The input, or the bytes read of standard input so far.
    input: File,
    /// Length of the input; `None`: standard input.
    len: Option<u64>,
    output: File,
    /// Name of the output, for messages.
    output_name: String,
    to_stdout: bool,
}

impl Files {
    /// Opens the input, and the output, emptied. Without an output, arriving bytes go to a temporary file.
    pub(super) fn open(input: &Path, output: Option<&Path>) -> Result<Self, FilesError> {
        let from_stdin = input.as_os_str() == STANDARD;
        let name = if from_stdin { "standard input".to_owned() } else { input.display().to_string() };
        let input_error = |why| FilesError::Input { path: name.clone(), why };
        // A path is looked at before it is opened: opening a pipe would wait for its other end.
        let meta = if from_stdin { metadata_of_stdin() } else { fs::metadata(input) }.map_err(input_error)?;
        if !from_stdin && !meta.is_file() {
            return Err(FilesError::NotAFile { path: name, standard: "input" });
        }
        let file = if from_stdin { temporary()? } else { File::open(input).map_err(input_error)? };
        let to_stdout = output.is_some_and(|path| path.as_os_str() == STANDARD);
        let (output, output_name) = match output.filter(|_| !to_stdout) {
            Some(path) => (create(path, &meta)?, path.display().to_string()),
            None => (temporary()?, format!("a temporary file in {}", env::temp_dir().display())),
        };
        Ok(Self { input: file, len: (!from_stdin).then_some(meta.len()), output, output_name, to_stdout })
    }

    /// Bytes of the input, if known.
    pub(super) const fn len(&self) -> Option<u64> {
        self.len
    }

    /// Whether [`pass_on`](Self::pass_on) writes the arrived bytes to standard output.
    pub(super) const fn goes_to_stdout(&self) -> bool {
        self.to_stdout
    }

    /// The bytes to carry.
    pub(super) fn source(&self) -> io::Result<Input> {
        let file = self.input.try_clone()?;
        Ok(if self.len.is_some() { Input::File(file) } else { Input::Stdin { copy: file } })
    }

    /// The destination of the bytes.
    pub(super) fn arrivals(&self, size: usize) -> io::Result<Arrivals> {
        Ok(Arrivals::to_file(self.output.try_clone()?, &self.output_name, size))
    }

    /// Compares output and input, up to `limit` bytes of the input; an inner error gives the first difference.
    pub(super) fn compare(&self, limit: Option<u64>) -> io::Result<Result<(), String>> {
        compare(&self.input, limit.unwrap_or(u64::MAX), &self.output)
    }

    /// Writes the output to standard output, if asked for.
    pub(super) fn pass_on(&self) -> Result<(), Box<dyn Error>> {
        if !self.to_stdout {
            return Ok(());
        }
        let mut output = rewound(&self.output)?;
        let (mut buffer, mut stdout) = ([0; 1 << 16], io::stdout().lock());
        loop {
            let len = fill(&mut output, &mut buffer)?;
            if len == 0 {
                return Ok(stdout.flush().map_err(OutputError::from)?);
            }
            stdout.write_all(&buffer[..len]).map_err(OutputError::from)?;
        }
    }
}

fn metadata_of_stdin() -> io::Result<Metadata> {
    // A copy of the descriptor, which the file closes.
    File::from(io::stdin().as_fd().try_clone_to_owned()?).metadata()
}

fn temporary() -> Result<File, FilesError> {
    tempfile::tempfile().map_err(|why| FilesError::Temporary { folder: env::temp_dir(), why })
}

/// Opens the output, emptied, to write and to read again.
fn create(path: &Path, input: &Metadata) -> Result<File, FilesError> {
    let name = || path.display().to_string();
    match fs::metadata(path) {
        Ok(meta) if !meta.is_file() => return Err(FilesError::NotAFile { path: name(), standard: "output" }),
        Ok(meta) if (meta.dev(), meta.ino()) == (input.dev(), input.ino()) => {
            return Err(FilesError::OutputIsInput { path: name() });
        }
        Ok(_) | Err(_) => {}
    }
    output::create(path).map_err(|why| FilesError::Output { path: name(), why })
}

/// The bytes to carry.
#[derive(Debug)]
pub(super) enum Input {
    File(File),
    /// Standard input; bytes read are also written to `copy`.
    Stdin {
        copy: File,
    },
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let copy = match self {
            Self::File(file) => return file.read(buffer),
            Self::Stdin { copy } => copy,
        };
        // Standard input may never become readable.
        while poll(&mut [PollFd::new(&io::stdin(), PollFlags::IN)], Some(&LOOK_EVERY))? == 0 {
            if interrupt::is_asked_for() {
                return Ok(0);
            }
        }
        let len = rustix::io::read(io::stdin(), &mut *buffer)?;
        copy.write_all(&buffer[..len]).map_err(|why| {
            let folder = env::temp_dir();
            io::Error::new(why.kind(), format!("no copy of it in {}, which TMPDIR names: {why}", folder.display()))
        })?;
        Ok(len)
    }
}

/// Compares two files from their beginnings, the first up to `limit` bytes; an inner error gives the first difference.
fn compare(input: &File, limit: u64, output: &File) -> io::Result<Result<(), String>> {
    let (mut input, mut output) = (rewound(input)?.take(limit), rewound(output)?);
    let (mut expected, mut found) = ([0; 1 << 16], [0; 1 << 16]);
    let mut at = 0;
    loop {
        let (expect, find) = (fill(&mut input, &mut expected)?, fill(&mut output, &mut found)?);
        if expected[..expect] != found[..find] {
            let same = expected[..expect].iter().zip(&found[..find]).take_while(|(a, b)| a == b).count();
            return Ok(Err(format!("the output differs from the input from byte {} on", at + same as u64)));
        }
        if expect == 0 {
            return Ok(Ok(()));
        }
        at += expect as u64;
    }
}

fn rewound(mut file: &File) -> io::Result<BufReader<&File>> {
    file.rewind()?;
    Ok(BufReader::new(file))
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match file.read(&mut buffer[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(content).and_then(|()| file.rewind()).expect("written");
        file
    }

    #[test]
    fn equal_files_are_equal() {
        for content in [&b""[..], b"a", &[7; 70_000]] {
            assert_eq!(compare(&file(content), u64::MAX, &file(content)).expect("readable"), Ok(()));
        }
    }

    #[test]
    fn the_first_difference_is_named() {
        let mut other = [7; 70_000];
        other[66_000] = 8;
        for (a, b, at) in
            [(&b"abc"[..], &b"abd"[..], 2), (b"abc", b"ab", 2), (b"", b"x", 0), (&[7; 70_000], &other, 66_000)]
        {
            let message = format!("the output differs from the input from byte {at} on");
            assert_eq!(compare(&file(a), u64::MAX, &file(b)).expect("readable"), Err(message));
        }
    }

    #[test]
    fn a_part_is_compared_with_as_much_of_the_input() {
        for (part, equal) in [(&b"ab"[..], true), (b"a", false), (b"abc", false), (b"ax", false)] {
            let compared = compare(&file(b"abcd"), 2, &file(part)).expect("readable");
            assert_eq!(compared.is_ok(), equal, "{compared:?}");
        }
    }
}
