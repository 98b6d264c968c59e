//! `crossover report`: HTML, Markdown and SVG from records, drawn again.

use std::path::{Path, PathBuf};

use super::output::{self, Input};
use super::{Failure, Result, console};
use crate::record;
use crate::report::{Prose, Summary, write};
use crate::sweep::{Source, Sweep};

/// Name under which a run leaves its sweep beside its records.
pub const SWEEP_COPY: &str = "sweep.toml";

/// Endings of the files of a report.
pub const ENDINGS: [&str; 3] = ["html", "md", "svg"];

/// Most sentences about crossovers on the terminal; the report has all of them.
const MOST_SENTENCES: usize = 12;

/// Redraw HTML, Markdown and SVG from records.
#[derive(clap::Args)]
pub struct Args {
    /// Records, or folders that runs wrote; shards of a run merge.
    #[arg(required = true)]
    records: Vec<PathBuf>,
    /// Folder of the report.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Draws the report and says where it is.
///
/// # Errors
/// As of [`draw`].
pub fn run(args: Args) -> Result {
    let paths: Vec<&Path> = args.records.iter().map(PathBuf::as_path).collect();
    let inputs: Vec<_> = paths.iter().map(|path| Input { option: "RECORDS", path }).collect();
    output::folder("--out", &args.out, &ENDINGS, &inputs)?;
    let summary = draw(&paths, None, &args.out)?;
    tell(&paths, &summary, true);
    Ok(())
}

/// Draws the records of files and folders. The prose is that of `sweep`, else of the sweep that
/// a run left beside the records.
///
/// # Errors
/// Records that cannot be read, none at all, or a report that cannot be written.
pub fn draw(records: &[&Path], sweep: Option<&Sweep>, out: &Path) -> Result<Summary> {
    let read = record::read(records).map_err(|e| Failure::Usage(e.to_string()))?;
    for ignored in &read.ignored {
        console::note(&format!("note: {ignored}"));
    }
    match read.superseded {
        0 => {}
        1 => console::note("note: 1 record is replaced by a newer one of its case"),
        n => console::note(&format!("note: {n} records are replaced by newer ones of their cases")),
    }
    let prose = match sweep {
        Some(sweep) => prose(sweep),
        None => records.iter().find_map(|p| beside(p)).unwrap_or_default(),
    };
    write(&read.records, &prose, out).map_err(|e| Failure::Usage(e.to_string()))
}

/// Says where the report is and, where all is there, what it comes to.
pub fn tell(records: &[&Path], summary: &Summary, whole: bool) {
    console::say("");
    let sentences = match summary.crossovers.len() {
        n if n <= MOST_SENTENCES => &summary.crossovers,
        _ => &summary.headlines,
    };
    sentences.iter().filter(|_| whole).for_each(|s| console::say(s));
    for path in records {
        console::say(&format!("records  {}", path.display()));
    }
    console::say(&format!("report   {}", summary.index.display()));
}

fn prose(sweep: &Sweep) -> Prose {
    Prose {
        name: sweep.name.clone(),
        question: sweep.question.clone(),
        analysis: sweep.analysis.clone(),
    }
}

/// The prose of the sweep beside records; none where there is no such file or it is no sweep.
fn beside(records: &Path) -> Option<Prose> {
    let folder = if records.is_dir() { records } else { records.parent()? };
    let path = folder.join(SWEEP_COPY);
    let text = std::fs::read_to_string(&path).ok()?;
    let sweep = Sweep::parse(Source::new(path.display().to_string(), text)).ok()?;
    Some(prose(&sweep))
}
