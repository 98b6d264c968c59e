//! One line of a file of records: a record, what an interrupted write left, or both of them.

use serde::Deserialize;

use super::{Record, SCHEMA};

/// What a line holds, in its order.
pub enum Piece {
    Record(Box<Record>),
    /// A record that ends within its object.
    CutShort,
    /// So many zero bytes, which a file system leaves of a write that a power cut ended.
    Zeros(usize),
}

/// How every record begins. Within a string the quotes would be escaped, and no object in a record
/// begins so: wherever this stands, a record begins.
const START: &[u8] = b"{\"schema\":";

/// The pieces of a line. What is appended to a file whose last line was cut short, as `cat` does,
/// stands in one line with what is left of that: it is read all the same.
///
/// # Errors
/// The line is no record, for the reason given, and no interrupted write left it.
pub fn pieces(line: &[u8]) -> Result<Vec<Piece>, String> {
    // Windows begins files with a byte order mark; concatenated they have some within.
    let mark = line.strip_prefix(b"\xef\xbb\xbf").map_or(0, |_| 3);
    let whole = piece(&line[mark..], mark);
    if matches!(whole.as_deref(), Ok([] | [Piece::Record(_), ..])) {
        return whole;
    }
    let begins = |&at: &usize| at > mark && line[at..].starts_with(START);
    let starts: Vec<usize> = (mark..line.len()).filter(begins).collect();
    if starts.is_empty() {
        return whole;
    }
    let ends = starts.iter().copied().chain([line.len()]);
    let mut all = Vec::new();
    for (start, end) in [mark].iter().chain(&starts).zip(ends) {
        all.extend(piece(&line[*start..end], *start)?);
    }
    Ok(all)
}

/// What a part of a line holds; the part begins at that byte of the line.
fn piece(part: &[u8], at: usize) -> Result<Vec<Piece>, String> {
    let is_space = |b: &u8| b.is_ascii_whitespace() || *b == 0;
    let first = part.iter().position(|b| !is_space(b)).unwrap_or(part.len());
    let last = part.iter().rposition(|b| !is_space(b)).map_or(first, |i| i + 1);
    let text = &part[first..last];
    let mut all = Vec::new();
    if !text.is_empty() {
        all.push(match record(text) {
            Ok(record) => Piece::Record(Box::new(record)),
            Err(Fault::CutShort) => Piece::CutShort,
            Err(Fault::Schema(what)) => return Err(what),
            Err(Fault::Bad { what, column }) => {
                let column = at + first + column;
                return Err(format!(
                    "not a record: {what} (column {column}); without the line the rest can be read"
                ));
            }
        });
    }
    let zeros = part[..first].iter().chain(&part[last..]).filter(|b| **b == 0).count();
    all.extend((zeros > 0).then_some(Piece::Zeros(zeros)));
    Ok(all)
}

/// What every schema has.
#[derive(Deserialize)]
struct Head {
    schema: u32,
    #[serde(default)]
    version: String,
}

enum Fault {
    /// The text ends within the object.
    CutShort,
    /// A record that this program is too old for.
    Schema(String),
    /// What is wrong, and up to which column; columns count from 1.
    Bad { what: String, column: usize },
}

fn record(text: &[u8]) -> Result<Record, Fault> {
    // An interrupted write leaves a prefix of an object: parsing fails at its end, and nowhere
    // else. That tells it from damage, at the end of a file or, after a resumed run, within it.
    let fault = |e: serde_json::Error| {
        let in_number = matches!(text.last(), Some(b'-' | b'+' | b'.' | b'e' | b'E'));
        let at_end = in_number && e.is_syntax() && e.column() == text.len();
        match text.starts_with(b"{") && (e.is_eof() || at_end) {
            true => Fault::CutShort,
            false => Fault::Bad { what: without_place(&e), column: e.column() },
        }
    };
    let head: Head = serde_json::from_slice(text).map_err(fault)?;
    if head.schema == 0 || head.schema > SCHEMA {
        let reads = format!(
            "field `schema`: this crossover ({}) reads records up to schema {SCHEMA}",
            env!("CARGO_PKG_VERSION")
        );
        let by = if head.version.is_empty() { "a newer one" } else { &head.version };
        return Err(Fault::Schema(match head.schema {
            0 => format!("{reads}, from 1 on: there is no schema 0"),
            n => format!(
                "{reads}, and this one is of schema {n}: read it with the crossover that wrote it \
                 ({by}) or a newer one"
            ),
        }));
    }
    let record: Record = serde_json::from_slice(text).map_err(fault)?;
    let (said, is) = (record.phase, record.problem.phase());
    if said != is {
        let what = format!("field `phase`: {said}, but its problem is one of {is}");
        return Err(Fault::Bad { what, column: 1 });
    }
    Ok(record)
}

/// serde's message without its place: its line is always 1 here.
fn without_place(e: &serde_json::Error) -> String {
    let text = e.to_string();
    text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what).to_string()
}
