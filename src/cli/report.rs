//! `crossover report`: HTML, Markdown and SVG from records, drawn again.

use std::path::{Path, PathBuf};

use super::{Failure, Result, run::progress::say};
use crate::record::file;
use crate::report::{Prose, Summary, write};
use crate::sweep::{Source, Sweep};

/// Name under which a run leaves its sweep beside its records.
pub const SWEEP_COPY: &str = "sweep.toml";

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
    let summary = draw(&paths, None, &args.out)?;
    tell(&args.out, &summary);
    Ok(())
}

/// Draws the records of files and folders. The prose is that of `sweep`, else of the sweep that
/// a run left beside the records.
///
/// # Errors
/// Records that cannot be read, none at all, or a report that cannot be written.
pub fn draw(records: &[&Path], sweep: Option<&Sweep>, out: &Path) -> Result<Summary> {
    let read = file::read(records).map_err(|e| Failure::Usage(e.to_string()))?;
    for torn in &read.torn {
        eprintln!("note: {torn} was cut short by an interrupted write; that case has no record");
    }
    let prose = match sweep {
        Some(sweep) => prose(sweep),
        None => records.iter().find_map(|p| beside(p)).unwrap_or_default(),
    };
    write(&read.records, &prose, out).map_err(|e| Failure::Usage(e.to_string()))
}

/// Says where the report is and what it comes to.
pub fn tell(records: &Path, summary: &Summary) {
    say("");
    let sentences = match summary.crossovers.len() {
        n if n <= MOST_SENTENCES => &summary.crossovers,
        _ => &summary.headlines,
    };
    sentences.iter().for_each(|s| say(s));
    say(&format!("records  {}", records.display()));
    say(&format!("report   {}", summary.index.display()));
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
