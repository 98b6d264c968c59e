//! The report as one page of HTML: nothing outside of it is needed, and no script.

use std::fmt::Write as _;

use super::Page;
use super::svg;
use super::table::{Cell, Mood, Table};

/// Text for HTML, in elements and in quoted attributes.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// Paragraphs, parted by empty lines, and `code`: what the prose of sweep files needs.
fn prose(text: &str, class: &str) -> String {
    let mut out = String::new();
    for paragraph in text.split("\n\n").map(str::trim).filter(|p| !p.is_empty()) {
        let _ = write!(out, "<p class=\"{class}\">");
        for (i, part) in paragraph.split('`').enumerate() {
            match i % 2 {
                0 => out.push_str(&escape(part)),
                _ => drop(write!(out, "<code>{}</code>", escape(part))),
            }
        }
        out.push_str("</p>\n");
    }
    out
}

fn table(out: &mut String, t: &Table) {
    out.push_str("<div class=\"wide\"><table><thead><tr>");
    let class = |i: usize, c: Option<&Cell>| {
        let mood = match c.map(|c| c.mood) {
            Some(Mood::Good) => "good",
            Some(Mood::Bad) => "bad",
            _ => "",
        };
        let number = if i >= t.numbers_from { "n" } else { "" };
        match format!("{number} {mood}").trim() {
            "" => String::new(),
            class => format!(" class=\"{class}\""),
        }
    };
    for (i, head) in t.head.iter().enumerate() {
        let _ = write!(out, "<th{}>{}</th>", class(i, None), escape(head));
    }
    out.push_str("</tr></thead><tbody>\n");
    for row in &t.rows {
        out.push_str("<tr>");
        for (i, cell) in row.iter().enumerate() {
            let _ = write!(out, "<td{}>{}</td>", class(i, Some(cell)), escape(&cell.text));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>\n");
}

fn titled(out: &mut String, level: u8, t: &Table) {
    let _ = writeln!(out, "<h{level}>{}</h{level}>", escape(&t.title));
    table(out, t);
}

/// Folded where it is long; open otherwise.
fn folded(out: &mut String, t: &Table, open: bool) {
    let open = if open { " open" } else { "" };
    let rows = super::format::plural(t.rows.len(), "row");
    let _ =
        writeln!(out, "<details{open}><summary>{} <span>{rows}</span></summary>", escape(&t.title));
    table(out, t);
    out.push_str("</details>\n");
}

/// Sentences as a list, if there are any: what one comes to stands out, the setting in brackets is
/// quiet.
fn list(out: &mut String, sentences: &[String]) {
    if sentences.is_empty() {
        return;
    }
    out.push_str("<ul class=\"plain\">\n");
    for sentence in sentences {
        let (what, place) = match sentence.split_once(" (") {
            Some((what, place)) => (what, format!("({place}")),
            None => (sentence.as_str(), String::new()),
        };
        let _ = writeln!(
            out,
            "<li>{} <span class=\"quiet\">{}</span></li>",
            escape(what),
            escape(&place)
        );
    }
    out.push_str("</ul>\n");
}

/// Rows of results up to which they are shown without a click.
const OPEN_ROWS: usize = 120;

/// Sentences on crossovers up to which they are shown without a click.
const OPEN_SENTENCES: usize = 8;

/// The whole page.
pub fn render(page: &Page) -> String {
    let (light, dark) = svg::properties();
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{}</title>\n<style>\n\
         :root{{{light}}}\n@media(prefers-color-scheme:dark){{:root{{{dark}}}}}\n\
         @media print{{:root{{{light}}}}}\n{}\n{}</style>\n</head>\n<body>\n<main>\n<header>\n",
        escape(&page.prose.name),
        svg::rules(),
        include_str!("style.css"),
    );
    let _ = writeln!(
        out,
        "<p class=\"kicker\">crossover report</p>\n<h1>{}</h1>",
        escape(&page.prose.name)
    );
    out.push_str(&prose(&page.prose.question, "question"));
    if !page.headlines.is_empty() {
        out.push_str("<ul class=\"answer\">\n");
        for headline in &page.headlines {
            let _ = writeln!(out, "<li>{}</li>", escape(headline));
        }
        out.push_str("</ul>\n");
    }
    out.push_str("</header>\n");
    out.push_str(&prose(&page.prose.analysis, "prose"));
    for s in &page.parts {
        let _ = writeln!(out, "<section class=\"{}\">\n<h2>{}</h2>", s.word, escape(&s.title));
        if let Some(note) = &s.note {
            let _ = writeln!(out, "<p class=\"note\">{}</p>", escape(note));
        }
        for w in &s.facts.warnings {
            let _ = writeln!(out, "<p class=\"warning\">{}</p>", escape(w));
        }
        out.push_str("<h3>Crossover</h3>\n");
        if let Some(note) = page.pairing {
            let _ = writeln!(out, "<p class=\"note\">{}</p>", escape(note));
        }
        let fold = s.sentences.len() > OPEN_SENTENCES;
        if fold {
            let count = super::format::plural(s.sentences.len(), "sentence");
            let _ = writeln!(
                out,
                "<details><summary>Every comparison <span>{count}; the table below tells the \
                 same</span></summary>"
            );
        }
        list(&mut out, &s.sentences);
        if fold {
            out.push_str("</details>\n");
        }
        list(&mut out, &s.unpaired);
        if let Some(t) = &s.speed {
            titled(&mut out, 3, t);
            let _ = writeln!(out, "<p class=\"caption\">{}</p>", super::SPEED_NOTE);
        }
        for f in &s.figures {
            let _ = writeln!(
                out,
                "<figure id=\"{}\">\n<h3>{}</h3>\n{}\n<figcaption>{}</figcaption>\n</figure>",
                escape(&f.slug),
                escape(&f.title),
                f.svg.inline(),
                escape(&f.caption)
            );
        }
        out.push_str("<h3>Ranking</h3>\n");
        let _ = writeln!(out, "<p class=\"caption\">{}</p>", escape(&super::ranking_note(s)));
        s.ranking.iter().for_each(|t| titled(&mut out, 4, t));
        s.failures.iter().chain(&s.skipped).for_each(|t| titled(&mut out, 3, t));
        out.push_str("<h3>Results</h3>\n");
        if s.results.is_empty() {
            out.push_str("<p class=\"caption\">No case has a time.</p>\n");
        }
        let rows: usize = s.results.iter().map(|t| t.rows.len()).sum();
        s.results.iter().for_each(|t| folded(&mut out, t, rows <= OPEN_ROWS));
        out.push_str("<h3>How it was run</h3>\n<dl class=\"facts\">\n");
        for (name, value) in &s.facts.facts {
            let value: Vec<_> = value.lines().map(escape).collect();
            let _ = writeln!(out, "<dt>{}</dt><dd>{}</dd>", escape(name), value.join("<br>"));
        }
        out.push_str("</dl>\n</section>\n");
    }
    let _ = write!(
        out,
        "<footer>Drawn from {} by crossover {}.</footer>\n</main>\n</body>\n</html>\n",
        super::format::plural(page.records, "record"),
        env!("CARGO_PKG_VERSION")
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        assert_eq!(
            escape("<a href='x'>&\"</a>"),
            "&lt;a href=&#39;x&#39;&gt;&amp;&quot;&lt;/a&gt;"
        );
        assert_eq!(
            prose("a `<b>` c\n\n\n& d", "p"),
            "<p class=\"p\">a <code>&lt;b&gt;</code> c</p>\n<p class=\"p\">&amp; d</p>\n"
        );
    }
}
