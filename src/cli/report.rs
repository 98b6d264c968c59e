//! `crossover report`: HTML, Markdown and SVG from records, drawn again.

use std::path::{Path, PathBuf};

use super::{Failure, Result, run::progress::say};
use crate::record::file;
use crate::report::{Pairing, Prose, Summary, write};
use crate::sweep::{Source, Sweep};

/// Name under which a run leaves its sweep beside its records.
pub const SWEEP_COPY: &str = "sweep.toml";

/// Most sentences about crossovers on the terminal; the report has all of them.
const MOST_SENTENCES: usize = 12;

/// Most sentences there about what has nothing to be held against.
const MOST_UNPAIRED: usize = 6;

/// Redraw HTML, Markdown and SVG from records.
#[derive(clap::Args)]
pub struct Args {
    /// Records, or folders that runs wrote; shards of a run merge.
    #[arg(required = true)]
    records: Vec<PathBuf>,
    /// Folder of the report.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Which linear operators are held against which full ones.
    #[arg(long, value_name = "WHAT", value_enum, default_value_t)]
    pair: Pair,
}

/// What is compared, of one precision and batch.
#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum Pair {
    /// What one sweep ran with outputs as wide (heads times head dimension).
    #[default]
    Alike,
    /// Everything, across sweeps and unlike widths.
    All,
}

/// Draws the report and says where it is.
///
/// # Errors
/// As of [`draw`].
pub fn run(args: Args) -> Result {
    let paths: Vec<&Path> = args.records.iter().map(PathBuf::as_path).collect();
    let pairing = match args.pair {
        Pair::Alike => Pairing::Alike,
        Pair::All => Pairing::All,
    };
    let summary = draw(&paths, None, pairing, &args.out)?;
    tell(&paths, &summary);
    Ok(())
}

/// Draws the records of files and folders. The prose is that of `sweep`, else of the sweeps that
/// runs left beside the records.
///
/// # Errors
/// Records that cannot be read, none at all, or a report that cannot be written.
pub fn draw(
    records: &[&Path],
    sweep: Option<&Sweep>,
    pairing: Pairing,
    out: &Path,
) -> Result<Summary> {
    let read = file::read(records).map_err(|e| Failure::Usage(e.to_string()))?;
    for torn in &read.torn {
        eprintln!("note: {torn} was cut short by an interrupted write; that case has no record");
    }
    let prose = match sweep {
        Some(sweep) => prose(sweep),
        None => {
            let several = read.records.iter().any(|r| r.sweep != read.records[0].sweep);
            together(records.iter().filter_map(|p| beside(p)).collect(), several)
        }
    };
    write(&read.records, &prose, pairing, out).map_err(|e| Failure::Usage(e.to_string()))
}

/// Says where the report is and what it comes to.
pub fn tell(records: &[&Path], summary: &Summary) {
    say("");
    let sentences = match summary.crossovers.len() {
        n if n <= MOST_SENTENCES => &summary.crossovers,
        _ => &summary.headlines,
    };
    sentences.iter().for_each(|s| say(s));
    summary.unpaired.iter().take(MOST_UNPAIRED).for_each(|s| say(s));
    match summary.unpaired.len().saturating_sub(MOST_UNPAIRED) {
        0 => {}
        more => say(&format!("{more} more have nothing to be held against: see the report")),
    }
    let records: Vec<_> = records.iter().map(|p| p.display().to_string()).collect();
    say(&format!("records  {}", records.join(" ")));
    say(&format!("report   {}", summary.index.display()));
}

/// The prose of several sweeps, each under its name; that of one as it is.
fn together(all: Vec<Prose>, several: bool) -> Prose {
    let mut by_name: indexmap::IndexMap<String, Prose> = indexmap::IndexMap::new();
    for prose in all {
        by_name.entry(prose.name.clone()).or_insert(prose);
    }
    if !several {
        return by_name.pop().map(|(_, prose)| prose).unwrap_or_default();
    }
    let texts = |of: fn(&Prose) -> &str| {
        let named = by_name.values().filter(|p| !of(p).trim().is_empty());
        named.map(|p| format!("`{}`: {}", p.name, of(p).trim())).collect::<Vec<_>>().join("\n\n")
    };
    Prose {
        name: String::new(),
        question: texts(|p| &p.question),
        analysis: texts(|p| &p.analysis),
    }
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
