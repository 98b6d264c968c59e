//! A file's text, and messages that point into it.

use std::fmt::Display;
use std::ops::Range;
use std::sync::Arc;

/// What is wrong with a sweep. The message names the file, the place and the way out.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct SweepError(pub String);

/// Bytes of the text that a message is about.
pub type Span = Range<usize>;

/// The text of a sweep, and its name for messages.
#[derive(Debug, Clone)]
pub struct Source {
    /// The path as the user wrote it.
    pub name: String,
    pub text: Arc<str>,
}

impl Source {
    pub fn new(name: impl Into<String>, text: impl Into<Arc<str>>) -> Source {
        Source { name: name.into(), text: text.into() }
    }

    /// `why`, headed by file, line and column and followed by the line with the place underlined.
    pub fn error(&self, span: &Span, why: impl Display) -> SweepError {
        let floor = |mut at: usize| {
            at = at.min(self.text.len());
            while !self.text.is_char_boundary(at) {
                at -= 1;
            }
            at
        };
        let at = floor(span.start);
        let start = self.text[..at].rfind('\n').map_or(0, |i| i + 1);
        let line = self.text[start..].lines().next().unwrap_or("");
        let number = self.text[..start].matches('\n').count() + 1;
        let column = self.text[start..at].chars().count();
        let end = floor(span.end.clamp(at, start + line.len().max(at - start)));
        let width = self.text[at..end].chars().count().max(1);
        // A tab stays a tab, so that the marks stand under what they mark.
        let blank = |c: char| if c == '\t' { '\t' } else { ' ' };
        let lead: String = line.chars().map(blank).take(column).collect();
        let margin = " ".repeat(number.to_string().len());
        SweepError(format!(
            "{}:{number}:{}: {why}\n{margin} |\n{number} | {line}\n{margin} | {lead}{}",
            self.name,
            column + 1,
            "^".repeat(width)
        ))
    }

    /// `why`, headed by the file alone.
    pub fn fault(&self, why: impl Display) -> SweepError {
        SweepError(format!("{}: {why}", self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_point_at_their_place() {
        let source = Source::new("x.toml", "a = 1\n\tb = \"µ\" # c\n");
        let text = source.error(&(11..15), "no µ here").0;
        assert_eq!(text, "x.toml:2:6: no µ here\n  |\n2 | \tb = \"µ\" # c\n  | \t    ^^^");
        // Places past the end, at a line's end and inside a character are survived.
        for span in [0..0, 5..6, 13..14, 90..99, 3..90] {
            assert!(source.error(&span, "x").0.starts_with("x.toml:"));
        }
    }
}
