//! Text for a device: which version, for which device, with which entry points.

use crate::cut::cut;
use crate::error::{Error, Version};
use std::borrow::Cow;

/// PTX: what a device's kernels are compiled to, as text. The driver compiles it for the device at hand.
///
/// ```
/// use k2k_cuda::{Ptx, Version};
///
/// let ptx = Ptx::new(".version 7.0\n.target sm_70\n.visible .entry nothing() { ret; }")?;
/// assert_eq!((ptx.version(), ptx.target()), (Version(7, 0), Version(7, 0)));
/// assert_eq!(ptx.entries(), ["nothing"]);
/// # Ok::<(), k2k_cuda::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ptx {
    text: Cow<'static, str>,
    version: Version,
    target: Version,
    entries: Vec<String>,
}

impl Ptx {
    /// Takes a text, and reads its head and the names of its entry points.
    ///
    /// # Errors
    /// [`Error::NotPtx`] if it has no head. Whether the rest is right, a device says when it is loaded.
    pub fn new(text: impl Into<Cow<'static, str>>) -> Result<Self, Error> {
        let text = text.into();
        let version = directive(&text, ".version")
            .and_then(|words| {
                let (major, minor) = words.split_once('.')?;
                Some(Version(major.parse().ok()?, minor.parse().ok()?))
            })
            .ok_or(Error::NotPtx { missing: ".version" })?;
        let target = directive(&text, ".target")
            .and_then(|words| {
                let digits = words.strip_prefix("sm_")?;
                let digits: u32 = digits.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().ok()?;
                Some(Version(digits / 10, digits % 10))
            })
            .ok_or(Error::NotPtx { missing: ".target sm_…" })?;
        let entries = entries(&text).map(str::to_owned).collect();
        Ok(Self { text, version, target, entries })
    }

    /// The kernels that come with K2K: `k2k_echo`, `k2k_relay`, `k2k_gateway`. For fabrics of
    /// [`k2k_kernels::shape`]'s shape.
    ///
    /// # Panics
    /// Never: a test reads the text.
    #[must_use]
    pub fn library() -> Self {
        Self::new(include_str!("../ptx/k2k.ptx")).expect("read by a test")
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Of this text, these entry points and what they need: a driver compiles all that it is given, and takes seconds for it.
    /// Each text that is loaded has variables of its own, so entry points that share one belong together.
    ///
    /// ```
    /// # use k2k_cuda::Ptx;
    /// let echo = Ptx::library().only(&["k2k_echo"])?;
    /// assert_eq!(echo.entries(), ["k2k_echo"]);
    /// # Ok::<(), k2k_cuda::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NoEntry`], with those there are.
    pub fn only(&self, entries: &[&str]) -> Result<Self, Error> {
        if let Some(missing) = entries.iter().find(|name| !self.entries.iter().any(|entry| entry == *name)) {
            return Err(Error::NoEntry { asked: (*missing).to_owned(), entries: self.entries.clone() });
        }
        let kept = self.entries.iter().filter(|entry| entries.contains(&entry.as_str())).cloned().collect();
        Ok(Self { text: cut(&self.text, entries).into(), version: self.version, target: self.target, entries: kept })
    }

    /// The hash of what `k2k-ptx build` has made, if this is that: it stands in a comment at the head.
    #[must_use]
    pub fn source_hash(&self) -> Option<&str> {
        let head = self.text.lines().take_while(|line| line.starts_with("//"));
        let (_, rest) = head.filter_map(|line| line.split_once(" has the hash ")).next()?;
        rest.split(' ').next()
    }

    /// The PTX version that it is written in.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// The least compute capability that it runs on.
    #[must_use]
    pub const fn target(&self) -> Version {
        self.target
    }

    /// Names of its entry points, in the order of the text.
    #[must_use]
    pub fn entries(&self) -> &[String] {
        &self.entries
    }

    /// The first version of CUDA whose driver knows this version of PTX (PTX ISA manual, release notes).
    #[must_use]
    pub fn needs_cuda(&self) -> Version {
        match self.version {
            Version(0..=5, _) => Version(8, 0),
            Version(6, minor @ 0..=2) => Version(9, minor),
            Version(6, minor) => Version(10, minor - 3),
            Version(7, minor) => Version(11, minor),
            // There was no PTX for CUDA 12.6: it uses 8.5.
            Version(8, minor @ 0..=5) => Version(12, minor),
            Version(8, minor) => Version(12, minor + 1),
            Version(major, minor) => Version(major + 4, minor),
        }
    }
}

/// The first word after a directive that stands at the beginning of a line.
fn directive<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let rest = text.lines().find_map(|line| line.trim_start().strip_prefix(name))?;
    rest.split([' ', '\t', ',', '/']).find(|word| !word.is_empty())
}

/// What stands between `.entry` and its parameters, outside of comments that take a whole line.
fn entries(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.filter_map(|line| {
        let (_, rest) = line.split_once(".entry")?;
        let name = rest.trim_start().split(['(', ' ', '\t', '{']).next()?;
        (!name.is_empty()).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(version: &str) -> Ptx {
        Ptx::new(format!(".version {version}\n.target sm_90a, texmode_independent\n.address_size 64\n")).unwrap()
    }

    #[test]
    fn versions_are_those_of_the_release_notes() {
        for (ptx, cuda) in [
            ("6.2", (9, 2)),
            ("6.5", (10, 2)),
            ("7.0", (11, 0)),
            ("7.8", (11, 8)),
            ("8.0", (12, 0)),
            ("8.5", (12, 5)),
            ("8.6", (12, 7)),
            ("8.7", (12, 8)),
            ("8.8", (12, 9)),
            ("9.0", (13, 0)),
        ] {
            assert_eq!(head(ptx).needs_cuda(), Version(cuda.0, cuda.1), "PTX {ptx}");
        }
        assert_eq!(head("7.0").target(), Version(9, 0));
    }

    #[test]
    fn what_is_embedded_can_be_read() {
        assert!(Ptx::library().entries().iter().any(|entry| entry == "k2k_echo"));
        assert_eq!(Ptx::library().source_hash().map(str::len), Some(16));
        assert_eq!(head("7.0").source_hash(), None);
    }

    #[test]
    fn what_has_no_head_is_no_ptx() {
        assert!(matches!(Ptx::new("hello"), Err(Error::NotPtx { missing: ".version" })));
        assert!(matches!(Ptx::new(".version 7.0\n"), Err(Error::NotPtx { .. })));
        assert!(matches!(Ptx::new(".version seven\n.target sm_70"), Err(Error::NotPtx { .. })));
    }

    #[test]
    fn entry_points_are_found_and_comments_are_not() {
        let ptx = Ptx::new(
            ".version 7.0\n.target sm_70\n// .entry no(\n.visible .entry a(\n.param .u64 p\n)\n{ ret; }\n.entry b() \
            {}\n",
        )
        .unwrap();
        assert_eq!(ptx.entries(), ["a", "b"]);
    }
}
