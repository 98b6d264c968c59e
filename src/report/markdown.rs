//! The report as Markdown that links the SVG files.

use std::fmt::Write as _;

use super::Page;
use super::table::{Mood, Table};

/// Text in which nothing is taken for Markdown or HTML; for cells and captions.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '|' | '*' | '_' | '`' | '[' | ']' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '\n' | '\r' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

fn table(out: &mut String, t: &Table) {
    let head: Vec<_> = t.head.iter().map(|h| plain(h)).collect();
    let _ = writeln!(out, "| {} |", head.join(" | "));
    let rule = (0..t.head.len()).map(|i| if i >= t.numbers_from { "--:" } else { "---" });
    let _ = writeln!(out, "|{}|", rule.collect::<Vec<_>>().join("|"));
    for row in &t.rows {
        let cell = |c: &super::table::Cell| match c.mood {
            Mood::Plain => plain(&c.text),
            Mood::Good | Mood::Bad => format!("**{}**", plain(&c.text)),
        };
        let _ = writeln!(out, "| {} |", row.iter().map(cell).collect::<Vec<_>>().join(" | "));
    }
    out.push('\n');
}

/// The whole document.
pub fn render(page: &Page) -> String {
    let mut out = format!("# {}\n\n", plain(&page.prose.name));
    // Prose comes from a sweep file, written by its author as Markdown.
    for text in [&page.prose.question, &page.prose.analysis] {
        if !text.trim().is_empty() {
            let _ = writeln!(out, "{}\n", text.trim());
        }
    }
    for headline in &page.headlines {
        let _ = writeln!(out, "- **{}**", plain(headline));
    }
    if !page.headlines.is_empty() {
        out.push('\n');
    }
    for s in &page.parts {
        let _ = writeln!(out, "## {}\n", plain(&s.title));
        if let Some(note) = &s.note {
            let _ = writeln!(out, "> {}\n", plain(note));
        }
        out.push_str("### Crossover\n\n");
        if let Some(note) = page.pairing {
            let _ = writeln!(out, "{note}\n");
        }
        for sentence in s.sentences.iter().chain(&s.unpaired) {
            let _ = writeln!(out, "- {}", plain(sentence));
        }
        out.push('\n');
        if let Some(t) = &s.speed {
            let _ = writeln!(out, "{}. {}\n", plain(&t.title), super::SPEED_NOTE);
            table(&mut out, t);
        }
        for f in &s.figures {
            let title = plain(&f.title);
            let _ = writeln!(
                out,
                "### {title}\n\n![{title}]({}.svg)\n\n{}\n",
                f.slug,
                plain(&f.caption)
            );
        }
        out.push_str("### Ranking\n\n");
        let _ = writeln!(out, "{}\n", super::ranking_note(s));
        for t in &s.ranking {
            let _ = writeln!(out, "{}\n", plain(&t.title));
            table(&mut out, t);
        }
        if let Some(t) = &s.failures {
            let _ = writeln!(out, "### {}\n", plain(&t.title));
            table(&mut out, t);
        }
        if let Some(t) = &s.skipped {
            let _ = writeln!(out, "### {}\n", plain(&t.title));
            table(&mut out, t);
        }
        out.push_str("### Results\n\n");
        if s.results.is_empty() {
            out.push_str("No case has a time.\n\n");
        }
        for t in &s.results {
            let _ = writeln!(out, "{}\n", plain(&t.title));
            table(&mut out, t);
        }
        out.push_str("### How it was run\n\n");
        for w in &s.facts.warnings {
            let _ = writeln!(out, "- **warning:** {}", plain(w));
        }
        for (name, value) in &s.facts.facts {
            for value in value.lines() {
                let _ = writeln!(out, "- {}: {}", plain(name), plain(value));
            }
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_cannot_break_the_table() {
        assert_eq!(plain("a|b\n<x> *y*"), "a\\|b &lt;x&gt; \\*y\\*");
    }
}
