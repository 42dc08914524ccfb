//! The ordering comments of `core/src`, and whether every one of them has its mutations.

use core::ops::Range;

/// `// Release [label]:` above an access.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Site {
    pub(crate) file: String,
    pub(crate) line: usize,
    pub(crate) label: String,
    pub(crate) sides: &'static [&'static str],
    /// From the comment to the next one: where its access is.
    pub(crate) bytes: Range<usize>,
}

/// One change that the list makes.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) label: String,
    pub(crate) file: String,
    pub(crate) bytes: Range<usize>,
}

const STRONG: [(&str, &[&str]); 4] = [
    ("Release", &["release"]),
    ("Acquire", &["acquire"]),
    ("AcqRel", &["acquire", "release"]),
    ("SeqCst", &["seqcst"]),
];

/// Lines below its comment within which a strong ordering counts as labelled.
const NEAR: usize = 12;

/// The sites of one file, and the lines with a strong ordering that no comment above them explains.
pub(crate) fn scan(file: &str, text: &str) -> (Vec<Site>, Vec<usize>) {
    let mut sites: Vec<Site> = Vec::new();
    let mut bare = Vec::new();
    let mut at = 0;
    for (i, whole) in text.split_inclusive('\n').enumerate() {
        let line = whole.trim();
        if line == "#[cfg(test)]" {
            // Unit tests come last, and have no protocol of their own.
            break;
        }
        if let Some((label, sides)) = ordering_comment(line) {
            if let Some(last) = sites.last_mut() {
                last.bytes.end = at;
            }
            sites.push(Site {
                file: file.to_owned(),
                line: i + 1,
                label: label.to_owned(),
                sides,
                bytes: at..text.len(),
            });
        } else if names_strong(line) && sites.last().is_none_or(|site| i + 1 > site.line + NEAR) {
            bare.push(i + 1);
        }
        at += whole.len();
    }
    if let Some(last) = sites.last_mut() {
        last.bytes.end = at;
    }
    (sites, bare)
}

fn ordering_comment(line: &str) -> Option<(&str, &'static [&'static str])> {
    let text = line.strip_prefix("//")?.trim_start();
    STRONG.iter().find_map(|(word, sides)| {
        let label = text.strip_prefix(word)?.trim_start().strip_prefix('[')?;
        let (label, rest) = label.split_once(']')?;
        (rest.starts_with(':') && !label.is_empty()).then_some((label, *sides))
    })
}

/// Whether code (not a comment, an import or an attribute) on this line names a strong ordering. A compiler's fence is
/// none: it orders nothing between threads, and models have no compiler.
fn names_strong(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or("");
    let is_import = ["use ", "pub use ", "pub(crate) use ", "#"].iter().any(|not| code.starts_with(not));
    if is_import || code.contains("compiler_fence(") {
        return false;
    }
    code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| STRONG.iter().any(|(strong, _)| *strong == word))
}

/// What is missing: a side of a site that no mutation weakens, and a mutation that is not where its label is.
pub(crate) fn gaps(sites: &[Site], changes: &[Change]) -> Vec<String> {
    let holds = |site: &Site, change: &Change| change.file == site.file && site.bytes.contains(&change.bytes.start);
    let mut gaps = Vec::new();
    for site in sites {
        for side in site.sides {
            let want = format!("{}.{side}", site.label);
            if !changes.iter().any(|change| change.label == want && holds(site, change)) {
                gaps.push(format!("core/src/{}:{}: no mutation {want}", site.file, site.line));
            }
        }
    }
    for change in changes {
        let Some((label, side)) = change.label.rsplit_once('.') else {
            continue;
        };
        if !STRONG.iter().any(|(_, sides)| sides.contains(&side)) {
            continue;
        }
        let right = |site: &&Site| site.label == label && site.sides.contains(&side) && holds(site, change);
        if !sites.iter().any(|site| right(&site)) {
            gaps.push(format!(
                "mutations.toml: {} changes core/src/{} below no such comment",
                change.label, change.file
            ));
        }
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
use Ordering::{Acquire, Release};
fn push() {
    // Release [slot-published]: the payload
    // written above.
    seq.store(1, Release);
}
fn claim() {
    // AcqRel [claimed]: both.
    tail.compare_exchange(0, 1, AcqRel, Relaxed);
}
";

    fn change(label: &str, text: &str) -> Change {
        let start = FILE.find(text).unwrap();
        Change { label: label.to_owned(), file: "a.rs".to_owned(), bytes: start..start + text.len() }
    }

    #[test]
    fn comments_are_found_with_their_sides() {
        let (sites, bare) = scan("a.rs", FILE);
        let found: Vec<_> = sites.iter().map(|s| (s.line, s.label.as_str(), s.sides)).collect();
        assert_eq!(found, [(3, "slot-published", &["release"][..]), (8, "claimed", &["acquire", "release"])]);
        assert!(bare.is_empty());
        assert!(FILE[sites[0].bytes.clone()].ends_with("fn claim() {\n"));
    }

    #[test]
    fn only_plain_comments_of_the_exact_form_count() {
        for line in [
            "/// Release [x]: doc",
            "//! Release [x]: doc",
            "// Release: no label",
            "// Released [x]: no",
            "// Release [x] no colon",
            "// Release []: no",
        ] {
            assert_eq!(ordering_comment(line), None, "{line}");
        }
        assert_eq!(ordering_comment("// SeqCst [park]: fence"), Some(("park", &["seqcst"][..])));
    }

    #[test]
    fn an_ordering_without_a_comment_is_found() {
        let text =
            "fn f() {\n    x.load(Ordering::Acquire); // why\n    // Acquire\n}\n#[cfg(test)]\nmod t { Release }\n";
        assert_eq!(scan("a.rs", text).1, [2]);
        assert!(scan("a.rs", "compiler_fence(SeqCst);\n").1.is_empty());
        let far = format!("// Acquire [x]: near\nx.load(Acquire);\n{}y.load(Acquire);\n", "f();\n".repeat(NEAR));
        assert_eq!(scan("a.rs", &far).1, [3 + NEAR]);
    }

    #[test]
    fn every_side_of_every_site_needs_a_mutation() {
        let (sites, _) = scan("a.rs", FILE);
        assert_eq!(gaps(&sites, &[]).len(), 3);
        let full = [
            change("slot-published.release", "Release);"),
            change("claimed.acquire", "AcqRel,"),
            change("claimed.release", "AcqRel,"),
            change("full-check", "0, 1"),
        ];
        assert_eq!(gaps(&sites, &full), [""; 0]);
    }

    #[test]
    fn a_mutation_of_another_place_does_not_count() {
        let (sites, _) = scan("a.rs", FILE);
        let gaps = gaps(&sites[..1], &[change("slot-published.release", "AcqRel,")]);
        assert_eq!(gaps.len(), 2, "{gaps:?}");
        assert!(gaps[0].contains("a.rs:3: no mutation") && gaps[1].contains("below no such comment"), "{gaps:?}");
    }
}
