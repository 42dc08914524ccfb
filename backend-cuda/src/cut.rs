//! What an entry point needs of a text, and nothing else: a driver compiles each function of a text that it is given, seconds of
//! them, whether or not anybody launches it.

use std::collections::{HashMap, HashSet};

/// Something at the outermost level of a text.
struct Part<'t> {
    text: &'t str,
    /// What it declares or defines; `None` of directives, which every text has.
    name: Option<&'t str>,
}

/// The directives of a text, and all that these names need. Its parts keep their order and their bytes.
pub(crate) fn cut(text: &str, names: &[&str]) -> String {
    let parts = parts(text);
    // A function may be declared before it is defined.
    let mut by_name = HashMap::<&str, Vec<usize>>::new();
    for (number, part) in parts.iter().enumerate() {
        if let Some(name) = part.name {
            by_name.entry(name).or_default().push(number);
        }
    }
    let mut wanted: HashSet<usize> = HashSet::new();
    let mut next: Vec<usize> = names.iter().filter_map(|name| by_name.get(name)).flatten().copied().collect();
    while let Some(number) = next.pop() {
        if wanted.insert(number) {
            next.extend(words(parts[number].text).filter_map(|word| by_name.get(word)).flatten());
        }
    }
    let kept = parts.iter().enumerate().filter(|(number, part)| part.name.is_none() || wanted.contains(number));
    kept.map(|(_, part)| part.text).collect()
}

const fn is_in_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'%' | b'.')
}

/// Names and numbers of a part. Registers begin with `%` and opcodes have points in them, so neither is a name.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii() || !is_in_word(c as u8)).filter(|word| !word.is_empty())
}

/// Where a comment or a string that begins there ends, if one does.
fn skip(bytes: &[u8], at: usize) -> Option<usize> {
    let end = |needle: &[u8], from: usize| {
        let found = bytes.get(from..)?.windows(needle.len()).position(|found| found == needle)?;
        Some(from + found + needle.len())
    };
    match (bytes[at], bytes.get(at + 1)) {
        (b'/', Some(b'/')) => Some(end(b"\n", at).unwrap_or(bytes.len())),
        (b'/', Some(b'*')) => Some(end(b"*/", at + 2).unwrap_or(bytes.len())),
        (b'"', _) => Some(end(b"\"", at + 1).unwrap_or(bytes.len())),
        _ => None,
    }
}

/// Cuts a text where a part ends: at the semicolon of a declaration, at the brace of a function, at the end of a line that
/// is a directive.
fn parts(text: &str) -> Vec<Part<'_>> {
    let bytes = text.as_bytes();
    let (mut parts, mut start, mut at, mut depth) = (Vec::new(), 0, 0, 0usize);
    // Where the part's first word is; and whether it has a body.
    let (mut word, mut function) = (None, false);
    while at < bytes.len() {
        if let Some(end) = skip(bytes, at) {
            at = end;
            continue;
        }
        let byte = bytes[at];
        at += 1;
        let ends = match byte {
            b'{' | b'(' | b'[' => {
                depth += 1;
                false
            }
            b'}' | b')' | b']' => {
                depth = depth.saturating_sub(1);
                byte == b'}' && depth == 0 && function
            }
            b';' => depth == 0,
            b'\n' => depth == 0 && word.is_some_and(|word| is_directive(&text[word..])),
            b'.' if depth == 0 => {
                function |= [".func", ".entry", ".section"].iter().any(|what| text[at - 1..].starts_with(what));
                word.get_or_insert(at - 1);
                false
            }
            _ => false,
        };
        if ends {
            parts.push(part(&text[start..at], function));
            (start, word, function) = (at, None, false);
        }
    }
    parts.push(Part { text: &text[start..], name: None });
    parts
}

/// Whether a line is a directive that ends with it.
fn is_directive(line: &str) -> bool {
    [".version", ".target", ".address_size", ".file", ".loc", ".pragma"].iter().any(|what| line.starts_with(what))
}

fn part(text: &str, function: bool) -> Part<'_> {
    // The name stands before its parameters, its bounds or its value.
    let Some(start) = start_of(text) else { return Part { text, name: None } };
    let code = &text[start..];
    if is_directive(code) {
        return Part { text, name: None };
    }
    let head = if function {
        let what = code.find(".entry").map(|at| at + 6).or(code.find(".func").map(|at| at + 5)).unwrap_or(0);
        let rest = code[what..].trim_start();
        // What it returns stands before the name.
        let rest = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')).map_or(rest, |(_, rest)| rest);
        rest.split(['(', '{', ';']).next().unwrap_or_default()
    } else {
        code.split(['[', '=', ';']).next().unwrap_or_default()
    };
    Part { text, name: words_of(head).last() }
}

/// Where the code begins, after comments.
fn start_of(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match skip(bytes, at) {
            Some(end) => at = end,
            None if bytes[at].is_ascii_whitespace() => at += 1,
            None => return Some(at),
        }
    }
    None
}

/// As [`words`], of a head.
fn words_of(head: &str) -> impl Iterator<Item = &str> {
    words(head).filter(|word| !word.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ptx::Ptx;

    const TEXT: &str = r#"// A comment; with a } in it.
.version 7.0
.target sm_70 // another
.address_size 64
.extern .func  (.param .b32 out) far
(
    .param .b64 a
)
;
.func near(.param .b64 a);
.global .align 8 .u64 table[2] = {far, 0};
.global .align 4 .b32 alone;
.visible .entry one(
    .param .u64 a
)
.maxntid 32, 1, 1
{
    .reg .b64 %rd<2>;
    mov.u64 %rd1, table;
    { call.uni near, (%rd1); }
    ret;
}
/* not .entry no() { } */
.entry two() { ret; }
.func near(.param .b64 a) { ret; }
"#;

    #[test]
    fn what_is_needed_stays_and_the_rest_goes() {
        let one = cut(TEXT, &["one"]);
        let missing: Vec<_> = TEXT.lines().filter(|line| !one.contains(line)).collect();
        assert_eq!(
            missing,
            [".global .align 4 .b32 alone;", "/* not .entry no() { } */", ".entry two() { ret; }"],
            "{one}"
        );
        let two = cut(TEXT, &["two"]);
        assert!(two.contains(".entry two() { ret; }") && !two.contains("near") && !two.contains("table"), "{two}");
        assert!(two.contains(".version 7.0\n.target sm_70 // another\n.address_size 64\n"), "{two}");
        assert_eq!(cut(TEXT, &["one", "two"]).len() + ".global .align 4 .b32 alone;\n".len(), TEXT.len());
    }

    #[test]
    fn each_entry_point_of_what_is_embedded_can_be_had_by_itself() {
        let ptx = Ptx::library();
        for name in ptx.entries() {
            let only = ptx.only(&[name]).unwrap();
            assert_eq!(only.entries(), core::slice::from_ref(name));
            assert!(only.text().len() < ptx.text().len());
            assert_eq!(only.only(&[name]).unwrap(), only, "nothing more can go");
        }
        let all: Vec<_> = ptx.entries().iter().map(String::as_str).collect();
        assert!(ptx.only(&all).unwrap().text().len() > ptx.text().len() * 95 / 100);
    }
}
