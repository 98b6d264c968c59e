//! `crossover report`: HTML, Markdown and SVG from records, drawn again.

use std::path::{Path, PathBuf};

use super::output::{self, Input};
use super::{Failure, Result, console};
use crate::record;
use crate::report::{Pairing, Prose, Summary, write};
use crate::sweep::{Source, Sweep};

/// Name under which a run leaves its sweep beside its records.
pub const SWEEP_COPY: &str = "sweep.toml";

/// Endings of the files of a report.
pub const ENDINGS: [&str; 3] = ["html", "md", "svg"];

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
    let inputs: Vec<_> = paths.iter().map(|path| Input { option: "RECORDS", path }).collect();
    output::folder("--out", &args.out, &ENDINGS, &inputs)?;
    let pairing = match args.pair {
        Pair::Alike => Pairing::Alike,
        Pair::All => Pairing::All,
    };
    let summary = draw(&paths, None, pairing, &args.out)?;
    tell(&paths, &summary, true);
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
        None => {
            let several = read.records.iter().any(|r| r.sweep != read.records[0].sweep);
            together(records.iter().filter_map(|p| beside(p)).collect(), several)
        }
    };
    write(&read.records, &prose, pairing, out).map_err(|e| Failure::Usage(e.to_string()))
}

/// Says where the report is and, where all is there, what it comes to.
pub fn tell(records: &[&Path], summary: &Summary, whole: bool) {
    console::say("");
    let sentences = match summary.crossovers.len() {
        n if n <= MOST_SENTENCES => &summary.crossovers,
        _ => &summary.headlines,
    };
    if whole {
        sentences.iter().for_each(|s| console::say(s));
        summary.unpaired.iter().take(MOST_UNPAIRED).for_each(|s| console::say(s));
        match summary.unpaired.len().saturating_sub(MOST_UNPAIRED) {
            0 => {}
            more => {
                let text = format!("{more} more have nothing to be held against: see the report");
                console::say(&text);
            }
        }
    }
    for path in records {
        console::say(&format!("records  {}", path.display()));
    }
    console::say(&format!("report   {}", summary.index.display()));
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
