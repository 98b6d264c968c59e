//! Which parts of a text are PTX, which are a template's.
//!
//! Comments and strings of PTX may hold anything, template syntax too. There `${ }` alone is the
//! template's: all else is text and stays as it is.

use std::borrow::Cow;

/// A part of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    /// PTX outside of comments and strings, line markers such as `# 1 "a.cu"` too.
    Code,
    /// A comment or string of PTX.
    Quoted,
    /// `${ }`, in comments and strings as well.
    Value { quoted: bool },
    /// `<% %>`, `<# #>`, or a line that begins with `#`.
    Block,
    /// From `##` behind code to the end of the line.
    Remark,
}

/// What stands for `#` and `<` where the template engine must not see them. Templates have neither.
const HASH: char = '\u{e010}';
const ANGLE: char = '\u{e011}';

/// Characters that a template may not have: those above, and the marks of [`super::macros`].
const RESERVED: std::ops::RangeInclusive<char> = '\u{e000}'..='\u{e01f}';

/// The text in pieces, in order, nothing left out.
fn pieces(text: &str) -> Vec<(Piece, &str)> {
    let mut all: Vec<(Piece, &str)> = Vec::new();
    let mut from = 0;
    let mut at = 0;
    let mut start = true;
    let mut push = |from: &mut usize, at: usize, end: usize, piece: Piece| {
        if *from < at {
            all.push((Piece::Code, &text[*from..at]));
        }
        if at < end {
            all.push((piece, &text[at..end]));
        }
        *from = end;
    };
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        let line_end = at + rest.find('\n').unwrap_or(rest.len());
        let behind = |end: &str| rest[2..].find(end).map_or(text.len(), |n| at + 2 + n + end.len());
        let begins = |words: &[&str]| words.iter().any(|w| rest.starts_with(w));
        if start && c == '#' && !is_marker(rest) {
            push(&mut from, at, line_end, Piece::Block);
            at = line_end;
        } else if begins(&["##"]) {
            push(&mut from, at, line_end, Piece::Remark);
            at = line_end;
        } else if begins(&["${"]) {
            let end = at + expression(rest);
            push(&mut from, at, end, Piece::Value { quoted: false });
            at = end;
        } else if begins(&["<#", "<%"]) {
            let end = behind(if rest.starts_with("<#") { "#>" } else { "%>" });
            push(&mut from, at, end, Piece::Block);
            at = end;
        } else if begins(&["//", "/*", "\""]) {
            let end = match c {
                '"' => rest[1..].find(['"', '\n']).map_or(text.len(), |n| {
                    at + 1 + n + usize::from(rest[1 + n..].starts_with('"'))
                }),
                _ if rest.starts_with("//") => line_end,
                _ => behind("*/"),
            };
            // An expression in it may hold what would end it.
            while at < end {
                let next = text[at..end].find("${").map_or(end, |n| at + n);
                push(&mut from, at, next, Piece::Quoted);
                at = next;
                if next < end {
                    at = next + expression(&text[next..]);
                    push(&mut from, next, at, Piece::Value { quoted: true });
                }
            }
        } else {
            start = c == '\n' || start && c.is_whitespace();
            at += c.len_utf8();
            continue;
        }
        start = false;
    }
    push(&mut from, text.len(), text.len(), Piece::Code);
    all
}

/// Whether a line that begins with `#` is a preprocessor's line marker: `# 1 "a.cu"`, `#line 1`.
fn is_marker(line: &str) -> bool {
    let rest = line[1..].trim_start_matches([' ', '\t']);
    let number = |word: &str| word.trim_start().starts_with(|c: char| c.is_ascii_digit());
    number(rest) || rest.strip_prefix("line ").is_some_and(number)
}

/// Bytes of the `${ }` that a text begins with, all of it if it is not closed.
fn expression(text: &str) -> usize {
    let (mut depth, mut quote) = (0, None);
    for (i, c) in text.char_indices() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '{') => depth += 1,
            (None, '}') => {
                depth -= 1;
                if depth == 0 {
                    return i + 1;
                }
            }
            _ => {}
        }
    }
    text.len()
}

/// Whether a text is a template: it has template syntax outside of comments and strings of PTX, where
/// PTX has nothing that looks like it.
pub(super) fn is_template(text: &str) -> bool {
    let is_syntax = |(piece, _): &(Piece, &str)| match piece {
        Piece::Value { quoted } => !quoted,
        Piece::Block => true,
        Piece::Code | Piece::Quoted | Piece::Remark => false,
    };
    pieces(text).iter().any(is_syntax)
}

/// A template as the engine may read it: comments and strings of PTX hold no block, statement or
/// comment of the template, and a remark behind code ends with its line. [`bare`] undoes it.
///
/// # Errors
/// The template has a character that stands for something here; the message has its line.
pub(super) fn guarded(text: &str) -> Result<String, String> {
    if let Some(at) = text.find(|c| RESERVED.contains(&c)) {
        let c = u32::from(text[at..].chars().next().unwrap_or_default());
        let line = 1 + text[..at].matches('\n').count();
        return Err(format!("line {line}: the character U+{c:04X} is the renderer's own"));
    }
    let hash = HASH.to_string();
    let guard = |(piece, part): (Piece, &str)| match piece {
        Piece::Value { .. } | Piece::Block => part.to_owned(),
        Piece::Code | Piece::Quoted => {
            let open = format!("{ANGLE}%");
            part.replace('#', &hash).replace("<%", &open)
        }
        Piece::Remark => String::new(),
    };
    Ok(pieces(text).into_iter().map(guard).collect())
}

/// What a guarded text stands for.
pub(super) fn bare(text: &str) -> Cow<'_, str> {
    if !text.contains([HASH, ANGLE]) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace(HASH, "#").replace(ANGLE, "<"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_and_ptx_is_told_from_the_template() {
        for (text, template) in [
            ("add.u32 a, b, c; // ### a ## b <# ${x} <% if %>\nret;\n", false),
            ("/* # if x\n# for y\n ${z} <# */ ret;", false),
            ("# 1 \"a.cu\"\n#line 7\n  # 33 \"b\"\nret;", false),
            (".file 1 \"// ${x} <# ## /*\"\nret;\n", false),
            ("mov.u32 a, ${ \"}\" ~ '{' };\n", true),
            ("  # if causal\nret;\n# endif\n", true),
            ("<# a\n// b\n#>\nret;", true),
            ("<% set a = 1 %>ret;", true),
            ("## a line\nret;", true),
            ("mov a, \"x\n# if a\n; // ${y", true),
            ("// é ## ü\n", false),
        ] {
            let all = pieces(text);
            assert_eq!(all.iter().map(|(_, part)| *part).collect::<String>(), text);
            assert_eq!(is_template(text), template, "{text}: {all:?}");
        }
    }

    #[test]
    fn guarded_text_comes_back_without_remarks() {
        let text = "ret; // ## a <# b <% c\n/* # if\n#endif ## */\n# 1 \"x\"\n    # if a // b\n";
        let safe = guarded(text).unwrap();
        assert!(!safe.contains("##") && !safe.contains("<#") && safe.matches('#').count() == 1);
        assert_eq!(bare(&safe), text);
        assert_eq!(guarded("ret; ## a // b\nret;\n").unwrap(), "ret; \nret;\n");
        assert!(guarded("a\nb\u{e001}").unwrap_err().contains("line 2: the character U+E001"));
    }
}
