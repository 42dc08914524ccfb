//! `mutations.toml`, and how one entry of it changes a file.

use core::ops::Range;

use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct List {
    #[serde(default)]
    pub(crate) mutation: Vec<Mutation>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mutation {
    /// `LABEL.SIDE`, the side being `release`, `acquire` or `seqcst`; anything else is a bug that is not an ordering.
    pub(crate) label: String,
    /// Relative to `core/src`.
    pub(crate) file: String,
    /// Occurs once in the file, unless `occurrence` says which one is meant.
    pub(crate) find: String,
    pub(crate) replace: String,
    /// From 1.
    pub(crate) occurrence: Option<usize>,
    /// A file of `loom-tests/tests`, without `.rs`.
    pub(crate) model: String,
    /// Only tests whose names contain this.
    pub(crate) test: Option<String>,
    /// Preemption bound, where the default does not show the bug.
    pub(crate) preemptions: Option<u8>,
    /// Of the change in the file, where it fits.
    #[serde(skip)]
    pub(crate) line: Option<usize>,
}

impl List {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let list: Self = toml::from_str(text).map_err(|e| e.to_string())?;
        for (i, m) in list.mutation.iter().enumerate() {
            let same =
                |o: &Mutation| (&o.label, &o.file, &o.find, o.occurrence) == (&m.label, &m.file, &m.find, m.occurrence);
            if list.mutation[..i].iter().any(same) {
                return Err(format!("{}: listed twice", m.name()));
            }
        }
        Ok(list)
    }
}

impl Mutation {
    /// Several places may have one label: the file and the line tell them apart.
    pub(crate) fn name(&self) -> String {
        let line = self.line.map_or(String::new(), |line| format!(":{line}"));
        format!("{} @ {}{line}", self.label, self.file)
    }

    pub(crate) fn model_name(&self) -> String {
        self.test.as_ref().map_or_else(|| self.model.clone(), |test| format!("{}::{test}", self.model))
    }

    /// The mutated text, and the bytes of the original that were changed.
    pub(crate) fn apply(&self, text: &str) -> Result<(String, Range<usize>), String> {
        if self.find.is_empty() || self.find == self.replace {
            return Err("changes nothing".to_owned());
        }
        let found: Vec<usize> = text.match_indices(&self.find).map(|(at, _)| at).collect();
        let at = match (self.occurrence, found.as_slice()) {
            (_, []) => return Err("`find` does not occur".to_owned()),
            (None, [at]) => *at,
            (None, many) => return Err(format!("`find` occurs {} times, say which `occurrence`", many.len())),
            (Some(n), many) => *n
                .checked_sub(1)
                .and_then(|n| many.get(n))
                .ok_or_else(|| format!("no occurrence {n}, there are {}", many.len()))?,
        };
        let end = at + self.find.len();
        let same = |a: &str, b: &str| a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
        let before = same(&self.find, &self.replace);
        let changed = at + before..end.max(at + before);
        let mutated = format!("{}{}{}", &text[..at], self.replace, &text[end..]);
        Ok((mutated, changed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: &str = r#"
[[mutation]]
label = "x.release"
file = "ring/spsc.rs"
find = "store(1, Release)"
replace = "store(1, Relaxed)"
model = "loom_spsc"
"#;

    #[test]
    fn an_entry_is_read_and_applied() {
        let list = List::parse(ENTRY).unwrap();
        let m = &list.mutation[0];
        assert_eq!((m.label.as_str(), m.occurrence, m.test.as_deref()), ("x.release", None, None));
        assert_eq!(m.model_name(), "loom_spsc");
        let (text, changed) = m.apply("a.store(1, Release);").unwrap();
        assert_eq!(text, "a.store(1, Relaxed);");
        assert_eq!(&"a.store(1, Release);"[changed], "ease)", "what differs, not what was matched");
    }

    #[test]
    fn text_that_is_gone_or_ambiguous_is_an_error() {
        let mut m = List::parse(ENTRY).unwrap().mutation.remove(0);
        let twice = "a.store(1, Release); b.store(1, Release);";
        assert!(m.apply("a.store(2, Release);").unwrap_err().contains("does not occur"));
        assert!(m.apply(twice).unwrap_err().contains("occurs 2 times"));
        m.occurrence = Some(2);
        assert_eq!(m.apply(twice).unwrap().0, "a.store(1, Release); b.store(1, Relaxed);");
        m.occurrence = Some(3);
        assert!(m.apply(twice).unwrap_err().contains("no occurrence 3"));
        m.occurrence = Some(0);
        assert!(m.apply(twice).is_err());
    }

    #[test]
    fn mistakes_in_the_list_are_errors() {
        assert!(List::parse("").unwrap().mutation.is_empty());
        assert!(List::parse(&format!("{ENTRY}{ENTRY}")).unwrap_err().contains("listed twice"));
        assert!(List::parse(&format!("{ENTRY}modle = \"x\"")).unwrap_err().contains("modle"));
        assert!(List::parse("[[mutation]]\nlabel = \"x\"").unwrap_err().contains("missing"));
        let mut m = List::parse(ENTRY).unwrap().mutation.remove(0);
        m.replace = m.find.clone();
        assert!(m.apply("a.store(1, Release);").unwrap_err().contains("nothing"));
    }
}
