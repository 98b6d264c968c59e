//! Draws a report from records: a page of HTML, the same as Markdown, and SVG files.
//!
//! Nothing here touches a device. Measured and modelled records are never on one plot, in one
//! table or in one comparison.

mod crossover;
mod facts;
mod figures;
pub mod format;
mod group;
mod html;
mod markdown;
mod plot;
pub mod profile;
mod rank;
mod scatter;
mod svg;
mod table;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::disk;
use crate::op::{Op, Side};
use crate::record::Record;

pub use crossover::{Crossing, Race};
pub use rank::{Rank, Ranking, geometric_mean, rankings};
pub use scatter::write_model_check;

/// What people wrote about a sweep; taken from its file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Prose {
    /// Heading of the report.
    pub name: String,
    /// What the sweep asks; Markdown of paragraphs and `code`.
    pub question: String,
    /// How to read the results; as `question`.
    pub analysis: String,
}

/// What was written, and what it says in short.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// The page of HTML.
    pub index: PathBuf,
    /// Every file, `index` first.
    pub files: Vec<PathBuf>,
    /// Where linear operators overtake full ones, or that they do not: one sentence for each
    /// comparison and section.
    pub crossovers: Vec<String>,
    /// The same in one line an operator and section, for when there are many.
    pub headlines: Vec<String>,
}

/// Why no report was written.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error("there are no records to report on: every file given is empty")]
    NoRecords,
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// Writes `index.html`, `report.md` and the SVG files of `records` into the folder `out`, which
/// is created where missing.
///
/// # Errors
/// There are no records, or a file cannot be written.
pub fn write(records: &[Record], prose: &Prose, out: &Path) -> Result<Summary, ReportError> {
    if records.is_empty() {
        return Err(ReportError::NoRecords);
    }
    let page = Page::new(records, prose);
    let fail = |path: &Path| {
        let path = path.to_path_buf();
        move |source| ReportError::Write { path, source }
    };
    fs::create_dir_all(out).map_err(fail(out))?;
    let mut files = Vec::new();
    let mut put = |name: String, text: String| {
        let path = out.join(name);
        disk::replace(&path, text.as_bytes()).map_err(fail(&path))?;
        files.push(path);
        Ok(())
    };
    put("index.html".to_string(), html::render(&page))?;
    put("report.md".to_string(), markdown::render(&page))?;
    for f in page.parts.iter().flat_map(|p| &p.figures) {
        put(format!("{}.svg", f.slug), f.svg.standalone())?;
    }
    Ok(Summary {
        index: files[0].clone(),
        files,
        crossovers: page.parts.iter().flat_map(|p| p.sentences.clone()).collect(),
        headlines: page.headlines,
    })
}

/// All that both renderings show.
struct Page {
    prose: Prose,
    records: usize,
    headlines: Vec<String>,
    parts: Vec<Part>,
}

/// A section, ready to be rendered.
struct Part {
    title: String,
    /// `measured` or `modelled`.
    word: &'static str,
    note: Option<&'static str>,
    sentences: Vec<String>,
    speed: Option<table::Table>,
    figures: Vec<figures::Figure>,
    ranking: Vec<table::Table>,
    results: Vec<table::Table>,
    failures: Option<table::Table>,
    skipped: Option<table::Table>,
    facts: facts::Facts,
}

const SPEED_NOTE: &str = "The full operator's time over the linear one's, each by its fastest kernel \
    and tile; above 1x the linear operator is the faster one.";

const MODELLED_NOTE: &str = "Modelled, not measured: the times of this section are a roofline \
    over exact counts from the emulator. They say what the counts would allow on the device \
    described, and are not to be held against measured times.";

fn ranking_note(tables: &[table::Table]) -> &'static str {
    if tables.is_empty() {
        "No problem was run by more than one kernel or tile: there is nothing to rank."
    } else {
        "Kernels and tiles over the cases that at least two of them ran. Slower than best is the \
         geometric mean of the time over the best time in each case; a failed case counts 0 in \
         the mean reciprocal rank."
    }
}

impl Page {
    fn new(records: &[Record], prose: &Prose) -> Page {
        let sections = group::sections(records);
        let mut prose = prose.clone();
        if prose.name.trim().is_empty() {
            prose.name = records[0].sweep.clone();
        }
        let part = |s: &group::Section| {
            let sentences: Vec<_> =
                s.panels.iter().flat_map(|p| crossover::sentences(s, p)).collect();
            Part {
                title: s.title(),
                word: s.source.word(),
                note: (!s.source.is_measured()).then_some(MODELLED_NOTE),
                sentences: if sentences.is_empty() { vec![no_pair(s)] } else { sentences },
                speed: table::speed(s),
                figures: figures::figures(s),
                ranking: table::ranking(s),
                results: s.panels.iter().filter_map(table::results).collect(),
                failures: table::failures(s),
                skipped: table::skipped(s),
                facts: facts::of(s),
            }
        };
        Page {
            prose,
            records: records.len(),
            headlines: sections.iter().flat_map(crossover::headlines).collect(),
            parts: sections.iter().map(part).collect(),
        }
    }
}

/// Why a section compares nothing.
fn no_pair(section: &group::Section) -> String {
    let mut ops: Vec<&str> = section.records.iter().map(|r| r.problem.op().name()).collect();
    ops.sort_unstable();
    ops.dedup();
    let where_ = section.provenance();
    let of = |side: Side| {
        let has = |name: &&&str| Op::parse(name).is_some_and(|op| op.side() == side);
        format::list(&ops.iter().filter(has).copied().collect::<Vec<_>>())
    };
    match (of(Side::Full), of(Side::Linear)) {
        (full, linear) if full.is_empty() || linear.is_empty() => {
            format!("no crossover to tell: only {} was run ({where_})", format::list(&ops))
        }
        (full, linear) => format!(
            "no crossover to tell: {full} and {linear} were not run at one precision and batch \
             ({where_})"
        ),
    }
}

#[cfg(test)]
mod tests;
