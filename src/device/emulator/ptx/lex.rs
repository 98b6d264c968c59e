//! Characters to tokens.

use winnow::ascii::{digit1, hex_digit1, multispace1};
use winnow::combinator::{alt, eof, opt, preceded, repeat, terminated};
use winnow::prelude::*;
use winnow::stream::{LocatingSlice, Stream};
use winnow::token::{any, one_of, take_till, take_until, take_while};

use super::{PtxError, Result};

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tok<'a> {
    /// An identifier, `%r1`, `$loop` and `_` included.
    Word(&'a str),
    /// `.name`, without the dot; `::` and what follows belongs to it.
    Dot(&'a str),
    Int(u64),
    /// An integer literal too large for 64 bits.
    Huge,
    F32(f32),
    F64(f64),
    Str,
    /// Punctuation; `<<` and `>>` come as `'L'` and `'R'`.
    P(char),
    End,
}

/// A token and where it stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Token<'a> {
    pub tok: Tok<'a>,
    /// From 1.
    pub line: u32,
    /// Directly behind the token before it.
    pub glued: bool,
}

type In<'a> = LocatingSlice<&'a str>;

fn space<'a>(i: &mut In<'a>) -> ModalResult<()> {
    repeat::<_, _, (), _, _>(
        0..,
        alt((
            multispace1.void(),
            ("//", take_till(0.., '\n')).void(),
            ("/*", take_until(0.., "*/"), "*/").void(),
        )),
    )
    .parse_next(i)
}

fn word_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$'
}

fn word<'a>(i: &mut In<'a>) -> ModalResult<Tok<'a>> {
    (one_of(|c: char| c.is_ascii_alphabetic() || "_$%".contains(c)), take_while(0.., word_char))
        .take()
        .map(Tok::Word)
        .parse_next(i)
}

fn dot<'a>(i: &mut In<'a>) -> ModalResult<Tok<'a>> {
    let name = || take_while(1.., word_char);
    preceded(".", (name(), repeat::<_, _, (), _, _>(0.., ("::", name()))).take())
        .map(Tok::Dot)
        .parse_next(i)
}

fn int<'a>(s: &str, radix: u32) -> Tok<'a> {
    u64::from_str_radix(s, radix).map_or(Tok::Huge, Tok::Int)
}

fn hex_float<'a>(i: &mut In<'a>) -> ModalResult<Tok<'a>> {
    let digits = |n: usize| take_while(n, |c: char| c.is_ascii_hexdigit());
    alt((
        preceded(('0', one_of(['f', 'F'])), digits(8)).map(|s: &str| {
            Tok::F32(f32::from_bits(u32::from_str_radix(s, 16).unwrap_or_default()))
        }),
        preceded(('0', one_of(['d', 'D'])), digits(16)).map(|s: &str| {
            Tok::F64(f64::from_bits(u64::from_str_radix(s, 16).unwrap_or_default()))
        }),
    ))
    .parse_next(i)
}

fn number<'a>(i: &mut In<'a>) -> ModalResult<Tok<'a>> {
    let exponent = || (one_of(['e', 'E']), opt(one_of(['+', '-'])), digit1);
    let fraction = (digit1, alt(((".", opt(digit1), opt(exponent())).void(), exponent().void())))
        .take()
        .map(|s: &str| Tok::F64(s.parse().unwrap_or(f64::NAN)));
    let suffix = || opt(one_of(['U', 'u']));
    alt((
        hex_float,
        terminated(
            preceded(("0", one_of(['x', 'X'])), hex_digit1).map(|s: &str| int(s, 16)),
            suffix(),
        ),
        terminated(
            preceded(("0", one_of(['b', 'B'])), take_while(1.., ['0', '1']))
                .map(|s: &str| int(s, 2)),
            suffix(),
        ),
        fraction,
        terminated(
            digit1.map(|s: &str| {
                let octal = s.len() > 1 && s.starts_with('0') && !s.contains(['8', '9']);
                int(s, if octal { 8 } else { 10 })
            }),
            suffix(),
        ),
    ))
    .parse_next(i)
}

fn token<'a>(i: &mut In<'a>) -> ModalResult<Tok<'a>> {
    alt((
        word,
        number,
        dot,
        ("\"", take_till(0.., ['"', '\n']), "\"").value(Tok::Str),
        "<<".value(Tok::P('L')),
        ">>".value(Tok::P('R')),
        any.map(Tok::P),
    ))
    .parse_next(i)
}

/// Whether a preprocessor's line marker stands there, which assemblers pass over: `# 1 "a.cu"` or
/// `#line 1`, alone in its line.
fn is_marker(text: &str, at: usize) -> bool {
    let Some(rest) = text[at..].strip_prefix('#') else { return false };
    let before = text[..at].rsplit('\n').next().unwrap_or_default();
    let word = rest.trim_start_matches([' ', '\t']);
    let number = |word: &str| word.trim_start().starts_with(|c: char| c.is_ascii_digit());
    before.trim().is_empty() && (number(word) || word.strip_prefix("line ").is_some_and(number))
}

/// The tokens of `text`, with [`Tok::End`] last.
///
/// # Errors
/// A comment or string without an end, or a character that PTX does not have, with its line.
pub fn lex(text: &str) -> Result<Vec<Token<'_>>> {
    let mut i = LocatingSlice::new(text);
    let mut out = Vec::new();
    let (mut line, mut counted, mut last_end) = (1u32, 0usize, usize::MAX);
    loop {
        // Cannot fail: every alternative may match nothing.
        let _ = space(&mut i);
        let rest: &str = &i;
        let at = text.len() - rest.len();
        line += text.as_bytes()[counted..at].iter().filter(|&&b| b == b'\n').count() as u32;
        counted = at;
        if eof::<_, winnow::error::ContextError>.parse_next(&mut i).is_ok() {
            out.push(Token { tok: Tok::End, line, glued: false });
            return Ok(out);
        }
        if is_marker(text, at) {
            let end = rest.find('\n').unwrap_or(rest.len());
            i.next_slice(end);
            continue;
        }
        if rest.starts_with("/*") {
            return Err(PtxError::new(line, "this comment has no end: `*/` is missing"));
        }
        let tok = token(&mut i).map_err(|_| PtxError::new(line, "cannot read a token here"))?;
        let known = "{}[](),;:@!+-|<>=*/%~&^?LR";
        match tok {
            Tok::P('"') => return Err(PtxError::new(line, "this string has no end")),
            Tok::P(c) if !known.contains(c) => {
                return Err(PtxError::new(line, format!("stray character {c:?}")));
            }
            _ => {}
        }
        out.push(Token { tok, line, glued: at == last_end });
        let rest: &str = &i;
        last_end = text.len() - rest.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toks(s: &str) -> Vec<Tok<'_>> {
        lex(s).unwrap().into_iter().map(|t| t.tok).collect()
    }

    #[test]
    fn reads_every_kind_of_literal() {
        assert_eq!(
            toks("12 0x1F 0b101 017 0f3F800000 0d3FF0000000000000 1.5 2e3 7U"),
            [
                Tok::Int(12),
                Tok::Int(31),
                Tok::Int(5),
                Tok::Int(15),
                Tok::F32(1.0),
                Tok::F64(1.0),
                Tok::F64(1.5),
                Tok::F64(2000.0),
                Tok::Int(7),
                Tok::End
            ]
        );
    }

    #[test]
    fn line_markers_are_passed_over() {
        let t = lex("# 1 \"a.cu\"\na\n  #line 7 \"b\"\nb # 1\n").unwrap_err();
        assert_eq!((t.line, t.message.contains("stray character '#'")), (4, true));
        let t = lex("# 1 \"a.cu\"\na\n  #line 7 \"b\"\nb\n# 3").unwrap();
        assert_eq!(t.iter().map(|t| t.line).collect::<Vec<_>>(), [2, 4, 5]);
        assert!(lex("#define A 1\n").is_err());
    }

    #[test]
    fn counts_lines_through_comments() {
        let t = lex("a // b\n/* c\n d */ e\n;").unwrap();
        assert_eq!(t.iter().map(|t| t.line).collect::<Vec<_>>(), [1, 3, 4, 4]);
    }

    #[test]
    fn suffixes_keep_their_colons() {
        assert_eq!(
            toks("ld.shared::cta.b32 %tid.x"),
            [
                Tok::Word("ld"),
                Tok::Dot("shared::cta"),
                Tok::Dot("b32"),
                Tok::Word("%tid"),
                Tok::Dot("x"),
                Tok::End
            ]
        );
    }

    #[test]
    fn refuses_stray_bytes_with_their_line() {
        assert_eq!(lex("a\n\u{1f600}").unwrap_err().line, 2);
        assert!(lex("/* open").is_err());
        assert!(lex("\"open").is_err());
    }
}
