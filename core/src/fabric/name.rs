//! Names of kernels.

use core::fmt;

/// Longest name of a kernel, bytes of UTF-8.
pub const NAME_LEN: usize = 32;

/// A kernel's name as it stands in the table.
#[derive(Clone, Copy, Eq, Default)]
pub struct Name {
    pub(super) bytes: [u8; NAME_LEN],
}

/// A name was too long or empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameError {
    /// Bytes given.
    pub len: usize,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a kernel's name has 1 to {NAME_LEN} bytes and no NUL, not {}", self.len)
    }
}

impl core::error::Error for NameError {}

impl Name {
    /// Makes a name.
    ///
    /// # Errors
    /// [`NameError`] for an empty name, one of more than 32 bytes, or one that contains a NUL.
    pub const fn new(name: &str) -> Result<Self, NameError> {
        let name = name.as_bytes();
        if name.is_empty() || name.len() > NAME_LEN {
            return Err(NameError { len: name.len() });
        }
        let mut bytes = [0; NAME_LEN];
        let mut i = 0;
        while i < name.len() {
            if name[i] == 0 {
                return Err(NameError { len: name.len() });
            }
            bytes[i] = name[i];
            i += 1;
        }
        Ok(Self { bytes })
    }

    /// As it stands in the table, which can hold anything: a name is followed by zeros.
    pub(crate) const fn bytes(&self) -> &[u8; NAME_LEN] {
        &self.bytes
    }

    /// The name, or what of it is valid UTF-8: shared memory can hold anything.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let len = self.bytes.iter().position(|&b| b == 0).unwrap_or(NAME_LEN);
        match core::str::from_utf8(&self.bytes[..len]) {
            Ok(name) => name,
            Err(e) => core::str::from_utf8(&self.bytes[..e.valid_up_to()]).unwrap_or(""),
        }
    }
}

impl PartialEq for Name {
    /// Word by word: a comparison of byte arrays is a call of `memcmp`, which device code has not.
    fn eq(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.bytes.as_chunks::<8>().0, other.bytes.as_chunks::<8>().0);
        let differing = |(a, b): (&[u8; 8], &[u8; 8])| u64::from_ne_bytes(*a) ^ u64::from_ne_bytes(*b);
        ours.iter().zip(theirs).map(differing).fold(0, |all, word| all | word) == 0
    }
}

impl core::hash::Hash for Name {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        self.bytes.hash(state);
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
