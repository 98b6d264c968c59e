//! Where a line of PTX that a macro brought stands: in which macro, and called where.
//!
//! The template engine tells no more of captured output than the expression that wrote it. So the
//! template is rendered once more with marks in its lines, and the places are read off the result.

use std::collections::BTreeMap;

use minijinja::value::Value;

use super::expr::{Context, environment};
use super::pieces;
use super::registry::Sources;
use super::render::hash;

/// Marks: a call begins, a call ends, a line ends; the first and last with a number and [`END`].
/// Templates have none of them.
const CALL: char = '\u{e000}';
const RETURN: char = '\u{e001}';
const LINE: char = '\u{e002}';
const END: char = '\u{e003}';

/// A line of a template, and the macro that it calls.
#[derive(Debug, Clone, PartialEq)]
struct Spot {
    file: String,
    line: u32,
    calls: String,
}

/// The place of each line that stands in a macro, and the calls that led there, by line of the
/// rendered text from 1. Empty if the marks change what is rendered.
pub(super) fn within(
    sources: &Sources,
    path: &str,
    context: &Context,
    sha256: &str,
) -> BTreeMap<u32, String> {
    let mut spots = Vec::new();
    let templates: BTreeMap<String, String> = sources
        .iter()
        .filter(|(name, _)| name.ends_with(".ptx"))
        .filter_map(|(name, text)| Some((name.clone(), pieces::guarded(text).ok()?)))
        .map(|(name, text)| (name.clone(), marked(&name, &text, &mut spots)))
        .collect();
    let mut env = environment();
    env.set_loader(move |name| Ok(templates.get(name).cloned()));
    let rendered = env
        .get_template(path)
        .and_then(|template| template.render(Value::from_pairs(context.clone())));
    let Ok(rendered) = rendered else { return BTreeMap::new() };
    let (text, lines) = read(&pieces::bare(&rendered), &spots);
    if hash(&text) == sha256 { lines } else { BTreeMap::new() }
}

/// A template's text with marks, which are numbers of `spots`.
fn marked(file: &str, text: &str, spots: &mut Vec<Spot>) -> String {
    let mut out = String::with_capacity(2 * text.len());
    let mut rest = text;
    let mut number = 1;
    // What ends the tag that the text is in.
    let mut tag: Option<&str> = None;
    // Braces of an expression, and whether a call's mark stands before it.
    let (mut depth, mut call, mut quote) = (0, false, None);
    let (mut start, mut plain, mut statement) = (true, true, false);
    let take = |out: &mut String, rest: &mut &str, n: usize| {
        out.push_str(&rest[..n]);
        *rest = &rest[n..];
    };
    while let Some(c) = rest.chars().next() {
        if c == '\n' {
            if tag.is_none() && depth == 0 && plain && statement {
                out.push_str(&format!("{LINE}{}{END}", spots.len()));
                spots.push(Spot { file: file.into(), line: number, calls: String::new() });
            }
            take(&mut out, &mut rest, 1);
            number += 1;
            (start, plain, statement) = (true, tag.is_none() && depth == 0, false);
        } else if let Some(end) = tag {
            if rest.starts_with(end) {
                tag = None;
            }
            take(&mut out, &mut rest, c.len_utf8());
        } else if depth > 0 {
            match c {
                _ if quote == Some(c) => quote = None,
                '"' | '\'' if quote.is_none() => quote = Some(c),
                '{' if quote.is_none() => depth += 1,
                '}' if quote.is_none() => depth -= 1,
                _ => {}
            }
            take(&mut out, &mut rest, c.len_utf8());
            if depth == 0 && std::mem::take(&mut call) {
                out.push(RETURN);
            }
        } else if rest.starts_with("<#") || rest.starts_with("<%") {
            tag = Some(if rest.starts_with("<#") { "#>" } else { "%>" });
            plain = false;
            take(&mut out, &mut rest, 2);
        } else if start && c == '#' {
            // A statement, or a comment, of one line.
            let end = rest.find('\n').unwrap_or(rest.len());
            plain = false;
            take(&mut out, &mut rest, end);
        } else if rest.starts_with("${") {
            let name: String = rest[2..]
                .trim_start()
                .chars()
                .take_while(|c| c.is_alphanumeric() || "_.".contains(*c))
                .collect();
            if start && rest[2..].trim_start()[name.len()..].starts_with('(') {
                call = true;
                out.push_str(&format!("{CALL}{}{END}", spots.len()));
                spots.push(Spot { file: file.into(), line: number, calls: name });
            }
            depth = 1;
            start = false;
            take(&mut out, &mut rest, 2);
        } else {
            start &= c.is_whitespace();
            statement |= c == ';';
            take(&mut out, &mut rest, c.len_utf8());
        }
    }
    out
}

/// The text without its marks, and what they say of lines in macros.
fn read(rendered: &str, spots: &[Spot]) -> (String, BTreeMap<u32, String>) {
    let mut lines: Vec<String> = Vec::new();
    let mut within = BTreeMap::new();
    let mut calls: Vec<&Spot> = Vec::new();
    for line in rendered.split_inclusive('\n') {
        let mut text = String::with_capacity(line.len());
        let mut said = None;
        let mut rest = line;
        while let Some(at) = rest.find([CALL, RETURN, LINE]) {
            text.push_str(&rest[..at]);
            let mark = rest[at..].chars().next();
            rest = &rest[at + CALL.len_utf8()..];
            if mark == Some(RETURN) {
                calls.pop();
                continue;
            }
            let Some((number, behind)) = rest.split_once(END) else { break };
            rest = behind;
            let Some(spot) = number.parse().ok().and_then(|n: usize| spots.get(n)) else { break };
            if mark == Some(CALL) {
                calls.push(spot);
            } else if said.is_none() {
                // The line that the instruction itself stands in comes first.
                said = Some(chain(spot, &calls));
            }
        }
        text.push_str(rest);
        let text = text.trim_end();
        if text.is_empty() && lines.last().is_none_or(String::is_empty) {
            continue;
        }
        lines.push(text.to_owned());
        if let Some(Some(said)) = said {
            within.insert(lines.len() as u32, said);
        }
    }
    (lines.join("\n") + "\n", within)
}

/// `lib/mma.ptx:31 in mma.step(), called at attention/prefill.sm90a.ptx:1042`
fn chain(spot: &Spot, calls: &[&Spot]) -> Option<String> {
    let of = |s: &Spot| format!("{}:{}", s.file, s.line);
    let called = |c: &&Spot| format!(" in {}(), called at {}", c.calls, of(c));
    let calls: String = calls.iter().rev().map(called).collect();
    (!calls.is_empty()).then(|| of(spot) + &calls)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn calls_of_macros_are_told() {
        let outer = "# import \"lib/a.ptx\" as a\n<# a comment; of\n two lines; #>\n    mov x;\n    \
                     ${a.outer(\"}\",\n        2)}\n# for i in range(2)\n    ${a.inner(i)}\n# endfor\n\
                     ret;\n";
        let lib = "<% macro inner(r) %>\n    add ${r};   // one\n\n    sub ${r};\n<%- endmacro %>\n\
                   <% macro outer(q, r) %>\n    ${inner(r)}\n    last ${q};\n<%- endmacro %>\n";
        let sources = [("k.ptx", outer), ("lib/a.ptx", lib)];
        let sources: Sources =
            Arc::new(sources.map(|(n, t)| (n.to_string(), t.to_string())).into());
        let mut env = environment();
        let all = sources.clone();
        env.set_loader(move |name| Ok(all.get(name).cloned()));
        let plain = env.get_template("k.ptx").unwrap().render(()).unwrap();
        let (plain, none) = read(&plain, &[]);
        assert!(none.is_empty());
        let found = within(&sources, "k.ptx", &Context::new(), &hash(&plain));
        let lines: Vec<&str> = plain.lines().collect();
        let said: Vec<(&str, &str)> =
            found.iter().map(|(n, s)| (lines[*n as usize - 1].trim(), s.as_str())).collect();
        let outer = ", called at k.ptx:5";
        let inner = format!(" in inner(), called at lib/a.ptx:7 in a.outer(){outer}");
        assert_eq!(
            said,
            [
                ("add 2;   // one", &*format!("lib/a.ptx:2{inner}")),
                ("sub 2;", &*format!("lib/a.ptx:4{inner}")),
                ("last };", &*format!("lib/a.ptx:8 in a.outer(){outer}")),
                ("add 0;   // one", "lib/a.ptx:2 in a.inner(), called at k.ptx:8"),
                ("sub 0;", "lib/a.ptx:4 in a.inner(), called at k.ptx:8"),
                ("add 1;   // one", "lib/a.ptx:2 in a.inner(), called at k.ptx:8"),
                ("sub 1;", "lib/a.ptx:4 in a.inner(), called at k.ptx:8"),
            ]
        );
    }
}
