//! Words, numbers and punctuation (PTX ISA 4: syntax). A word takes its dots with it: `ld.acquire.sys.b64`, `%tid.x`.

use super::ParseError;

/// One token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    /// Directive, mnemonic, register, label or symbol.
    Word(&'a str),
    /// Integer literal without its sign.
    Int(u64),
    /// `0f` literal: the bits of a single.
    Single(u32),
    /// `0d` literal: the bits of a double.
    Double(u64),
    /// String literal, without its quotes.
    Text(&'a str),
    /// Any other character.
    Sign(char),
}

/// A token and the line on which it begins, from 1.
pub(crate) type Spanned<'a> = (Token<'a>, u32);

fn is_word_start(c: u8) -> bool {
    c.is_ascii_alphabetic() || matches!(c, b'_' | b'$' | b'%' | b'.')
}

fn is_word(c: u8) -> bool {
    is_word_start(c) || c.is_ascii_digit()
}

/// End of the run of bytes from `at` that satisfy `test`.
fn run(bytes: &[u8], at: usize, test: impl Fn(u8) -> bool) -> usize {
    at + bytes[at..].iter().take_while(|c| test(**c)).count()
}

/// Cuts a source into tokens, without comments.
pub(crate) fn tokens(source: &str) -> Result<Vec<Spanned<'_>>, ParseError> {
    let bytes = source.as_bytes();
    let (mut out, mut at, mut line) = (Vec::new(), 0, 1u32);
    while at < bytes.len() {
        let rest = &bytes[at..];
        match bytes[at] {
            b'\n' => {
                line += 1;
                at += 1;
            }
            c if c.is_ascii_whitespace() => at += 1,
            b'/' if rest.starts_with(b"//") => at = run(bytes, at, |c| c != b'\n'),
            b'/' if rest.starts_with(b"/*") => {
                let Some(len) = source[at..].find("*/") else {
                    return Err(ParseError::at(source, line, "a comment without an end"));
                };
                line += source[at..at + len].matches('\n').count() as u32;
                at += len + 2;
            }
            b'"' => {
                let end = run(bytes, at + 1, |c| c != b'"' && c != b'\n');
                out.push((Token::Text(&source[at + 1..end]), line));
                at = end + 1;
            }
            c if is_word_start(c) => {
                let mut end = run(bytes, at, is_word);
                while bytes[end..].starts_with(b"::") && bytes.get(end + 2).is_some_and(|c| is_word(*c)) {
                    end = run(bytes, end + 2, is_word);
                }
                out.push((Token::Word(&source[at..end]), line));
                at = end;
            }
            c if c.is_ascii_digit() => {
                let end = run(bytes, at, |c| c.is_ascii_alphanumeric());
                let token = number(&source[at..end])
                    .ok_or_else(|| ParseError::at(source, line, "a number that is not understood"))?;
                out.push((token, line));
                at = end;
            }
            c if c.is_ascii() => {
                out.push((Token::Sign(char::from(c)), line));
                at += 1;
            }
            _ => return Err(ParseError::at(source, line, "a character that is not ASCII")),
        }
    }
    Ok(out)
}

fn number(text: &str) -> Option<Token<'static>> {
    let hex = |digits: &str| u64::from_str_radix(digits, 16).ok();
    match text.get(..2) {
        Some("0f" | "0F") if text.len() == 10 => return hex(&text[2..]).map(|bits| Token::Single(bits as u32)),
        Some("0d" | "0D") if text.len() == 18 => return hex(&text[2..]).map(Token::Double),
        _ => {}
    }
    let text = text.trim_end_matches('U');
    let value = match text.get(..2) {
        Some("0x" | "0X") => hex(&text[2..])?,
        Some("0b" | "0B") => u64::from_str_radix(&text[2..], 2).ok()?,
        _ if text.len() > 1 && text.starts_with('0') => u64::from_str_radix(&text[1..], 8).ok()?,
        _ => text.parse().ok()?,
    };
    Some(Token::Int(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_numbers_and_comments_are_told_apart() {
        let source = "ld.L2::64B %r1, [%rd2+-8]; // x\n/* y\n*/ 0f3F800000 0x10U 017 $L_1:";
        let words: Vec<_> = tokens(source).unwrap();
        use Token::*;
        let expected = [
            (Word("ld.L2::64B"), 1),
            (Word("%r1"), 1),
            (Sign(','), 1),
            (Sign('['), 1),
            (Word("%rd2"), 1),
            (Sign('+'), 1),
            (Sign('-'), 1),
            (Int(8), 1),
            (Sign(']'), 1),
            (Sign(';'), 1),
            (Single(0x3F80_0000), 3),
            (Int(16), 3),
            (Int(15), 3),
            (Word("$L_1"), 3),
            (Sign(':'), 3),
        ];
        assert_eq!(words, expected);
    }
}
