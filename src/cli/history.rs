//! `crossover history`: a kernel's time from record to record.

use std::collections::HashSet;
use std::path::PathBuf;

use super::output::{self, Input};
use super::{Failure, Result, console};
use crate::compare::history::{Track, text, tracks};
use crate::disk;
use crate::record::{self, Record};
use crate::report::write_history;

/// Follow each case's time through stored records, and mark where it has become faster or slower.
///
/// Each folder is a run. Devices of other kinds, measured and modelled times are never one line.
#[derive(clap::Args)]
pub struct Args {
    /// Records, or folders that runs wrote.
    #[arg(required = true)]
    records: Vec<PathBuf>,
    /// Percent by which times may differ and still be the same.
    #[arg(long, value_name = "PCT", default_value = "1", value_parser = super::compare::percent)]
    threshold: f64,
    /// Draw the cases that were measured more than once as well: an SVG file.
    #[arg(long, value_name = "FILE.svg")]
    out: Option<PathBuf>,
}

/// Prints the tables, and draws them.
///
/// # Errors
/// Records that cannot be read, none with a time, a drawing that cannot be written.
pub fn run(args: Args) -> Result {
    let inputs: Vec<_> =
        args.records.iter().map(|path| Input { option: "RECORDS", path }).collect();
    if let Some(path) = &args.out {
        output::file("--out", path, &inputs)?;
    }
    let (mut all, mut known) = (Vec::new(), HashSet::new());
    for path in &args.records {
        let read = record::read(&[path]).map_err(|e| Failure::Usage(e.to_string()))?;
        read.ignored.iter().for_each(|ignored| console::note(&format!("note: {ignored}")));
        // A record that lies in two folders is one.
        let new = |r: &Record| known.insert((r.id.clone(), r.time.clone(), r.process));
        all.extend(read.records.into_iter().filter(new));
    }
    let found = tracks(&all, args.threshold);
    if found.is_empty() {
        return Err(Failure::Usage("no record has a time: there is no history".into()));
    }
    console::put(&text(&found));
    let Some(path) = &args.out else { return Ok(()) };
    let fault = |e: String| Failure::Usage(format!("cannot write {}: {e}", path.display()));
    let drawn = found.iter().filter(|t| t.points.len() > 1);
    let svg = write_history(&drawn.map(Track::course).collect::<Vec<_>>())
        .ok_or_else(|| fault("no case was measured twice; give records of several runs".into()))?;
    disk::replace(path, svg.as_bytes()).map_err(|e| fault(e.to_string()))
}
