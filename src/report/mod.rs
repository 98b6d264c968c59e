//! Draws a report from records: a page of HTML, the same as Markdown, and SVG files.
//!
//! Nothing here touches a device. Measured and modelled records are never on one plot, in one
//! table or in one comparison.

mod crossover;
mod facts;
mod figures;
pub mod format;
mod group;
mod headline;
mod history;
mod html;
mod markdown;
mod modelled;
mod pairing;
mod plot;
pub mod profile;
mod race;
mod rank;
mod scatter;
mod setting;
mod span;
mod svg;
mod table;
mod unpaired;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::disk;
use crate::record::{self, Record};

pub use history::{Course, write_history};
pub use pairing::Pairing;
pub use race::{Crossing, Lead, Point, Race};
pub use rank::{Rank, Ranking, geometric_mean, rankings};
pub use scatter::write_model_check;
pub use span::{Ground, Span};

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
    /// Where linear operators overtake full ones, or that they do not or that it cannot be told:
    /// one sentence for each comparison and section.
    pub crossovers: Vec<String>,
    /// The same in one line an operator and precision, for when there are many.
    pub headlines: Vec<String>,
    /// What was compared with nothing, and why.
    pub unpaired: Vec<String>,
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
/// is created where missing. `pairing` says what is compared with what.
///
/// # Errors
/// There are no records, or a file cannot be written.
pub fn write(
    records: &[Record],
    prose: &Prose,
    pairing: Pairing,
    out: &Path,
) -> Result<Summary, ReportError> {
    if records.is_empty() {
        return Err(ReportError::NoRecords);
    }
    let records = &record::joined(records);
    let page = Page::new(records, prose, pairing);
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
        unpaired: page.parts.iter().flat_map(|p| p.unpaired.clone()).collect(),
    })
}

/// All that both renderings show.
struct Page {
    prose: Prose,
    records: usize,
    /// What to know of the comparisons.
    pairing: Option<&'static str>,
    headlines: Vec<String>,
    parts: Vec<Part>,
}

/// A section, ready to be rendered.
struct Part {
    title: String,
    /// `measured` or `modelled`.
    word: &'static str,
    note: Option<String>,
    sentences: Vec<String>,
    /// What is compared with nothing, and why.
    unpaired: Vec<String>,
    speed: Option<table::Table>,
    figures: Vec<figures::Figure>,
    ranking: Vec<table::Table>,
    results: Vec<table::Table>,
    failures: Option<table::Table>,
    skipped: Option<table::Table>,
    facts: facts::Facts,
}

const SPEED_NOTE: &str = "The full operator's time over the linear one's, each by its fastest kernel \
    and tile; above 1x the linear operator is the faster one. After ≈ both are level: the ranges of \
    their times meet. After ? a time has no range.";

const PAIRED_ALL: &str = "Compared across sweeps and unlike output widths, as asked by --pair all.";

fn ranking_note(part: &Part) -> String {
    if part.ranking.is_empty() {
        return "No problem was run by more than one kernel or tile: there is nothing to rank."
            .to_string();
    }
    let level = match part.word {
        "measured" => "the intervals of their medians part".to_string(),
        _ => format!(
            "their modelled times part by more than the model's error; between tiles of one kernel \
             on one problem, which share most of it, by {:.0}%",
            (span::AMONG_TILES.powi(2) - 1.0) * 100.0
        ),
    };
    format!(
        "Kernels and tiles over the cases that at least two of them ran. One is ahead of another where \
         {level}; what no other is ahead of has place 1, and variants of one place were not told apart. \
         Slower than best is the geometric mean of the time over the best time in each case; a failed \
         case counts 0 in the mean reciprocal rank."
    )
}

impl Page {
    fn new(records: &[Record], prose: &Prose, pairing: Pairing) -> Page {
        let sections = group::sections(records, pairing);
        let mut prose = prose.clone();
        let sweeps: indexmap::IndexSet<&str> = records.iter().map(|r| r.sweep.as_str()).collect();
        if prose.name.trim().is_empty() || sweeps.len() > 1 {
            prose.name = format::list(&sweeps.into_iter().collect::<Vec<_>>());
        }
        let part = |s: &group::Section| Part {
            title: s.title(),
            word: s.source.word(),
            note: (!s.source.is_measured()).then(|| modelled::note(s)),
            sentences: s.panels.iter().flat_map(|p| crossover::sentences(s, p)).collect(),
            unpaired: unpaired::sentences(s, pairing),
            speed: table::speed(s),
            figures: figures::figures(s),
            ranking: table::ranking(s),
            results: s.panels.iter().filter_map(|p| table::results(s, p)).collect(),
            failures: table::failures(s),
            skipped: table::skipped(s),
            facts: facts::of(s),
        };
        Page {
            prose,
            records: records.len(),
            pairing: (pairing == Pairing::All).then_some(PAIRED_ALL),
            headlines: sections.iter().flat_map(headline::headlines).collect(),
            parts: sections.iter().map(part).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
