//! `crossover compare`: what has become faster or slower between two sets of records.

use std::path::{Path, PathBuf};

use super::output::{self, Input};
use super::{Failure, Result, console};
use crate::compare::{Comparison, Rule, compare, render};
use crate::{disk, record};

/// Hold new records against old ones, case by case: faster, slower, same or ambiguous.
///
/// The ratio of medians comes with a 95% interval. Same: the whole interval lies within the threshold.
/// Slower (faster): it lies beyond half the threshold. Ambiguous: neither, and a note says what helps.
/// Exit code 1 if a case is slower, or was right and is not any more.
#[derive(clap::Args)]
pub struct Args {
    /// Records from before: a file, or a folder that a run wrote.
    old: PathBuf,
    /// Records from after.
    new: PathBuf,
    /// Percent by which times may differ and still be the same.
    #[arg(long, value_name = "PCT", default_value = "1", value_parser = percent)]
    threshold: f64,
    /// Compare cases though they are of unlike devices.
    #[arg(long)]
    across_devices: bool,
    /// How the comparison is written.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    format: Format,
    /// Write it to a file; standard output then has the counts alone.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum Format {
    #[default]
    Text,
    Markdown,
    Csv,
    Json,
}

/// `1` or `1%`, as a part of one.
fn percent(text: &str) -> std::result::Result<f64, String> {
    match text.trim().trim_end_matches('%').parse::<f64>() {
        Ok(p) if p > 0.0 && p <= 100.0 => Ok(p / 100.0),
        _ => Err("expected percent over 0 and up to 100, such as 1 or 0.5".into()),
    }
}

/// Prints the comparison.
///
/// # Errors
/// Records that cannot be read or have no case in common, an output that cannot be written; a regression.
pub fn run(args: Args) -> Result {
    if let Some(path) = &args.out {
        let inputs = [("OLD", &args.old), ("NEW", &args.new)];
        output::file("--out", path, &inputs.map(|(option, path)| Input { option, path }))?;
    }
    let rule = Rule { threshold: args.threshold, across_devices: args.across_devices };
    let (old, new) = (records(&args.old)?, records(&args.new)?);
    let found = compare(&old, &new, rule).map_err(Failure::Usage)?;
    let text = match args.format {
        Format::Text => render::text(&found),
        Format::Markdown => render::markdown(&found),
        Format::Csv => render::csv(&found),
        Format::Json => render::json(&found),
    };
    match &args.out {
        None => console::put(&text),
        Some(path) => {
            disk::replace(path, text.as_bytes())
                .map_err(|e| Failure::Usage(format!("cannot write {}: {e}", path.display())))?;
            console::say(&render::counts(&found));
        }
    }
    verdict(&found)
}

fn verdict(found: &Comparison) -> Result {
    match found.regressions() {
        0 => Ok(()),
        1 => Err(Failure::Negative("1 case is a regression".into())),
        n => Err(Failure::Negative(format!("{n} cases are regressions"))),
    }
}

fn records(path: &Path) -> Result<Vec<record::Record>> {
    let read = record::read(&[path]).map_err(|e| Failure::Usage(e.to_string()))?;
    for ignored in &read.ignored {
        console::note(&format!("note: {ignored}"));
    }
    Ok(read.records)
}
