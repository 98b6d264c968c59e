//! What a run may write over in its folder, and what not.

use std::path::{Path, PathBuf};

use super::super::output::{self, Input};
use super::super::report::{ENDINGS, SWEEP_COPY};
use super::super::{Failure, Result, cases};
use super::resume::Found;
use crate::record::Record;
use crate::record::file::FILE_NAME;
use crate::sweep::{Plan, Source, Sweep};

/// Makes sure that records and a report can be written into the folder, and that no sweep, kernel
/// or description of a device is lost by it.
///
/// # Errors
/// The folder is a file, cannot be written, or is where the kernels are; the records' file is a
/// folder.
pub fn check(
    out: &Path,
    file: &Path,
    sweep: &Sweep,
    kernels: Option<&Path>,
    description: Option<&Path>,
) -> Result {
    let fault = |why: String| Err(Failure::Usage(why));
    let source = Path::new(&sweep.source.name);
    let mut inputs = vec![Input { option: "the run", path: source }];
    inputs.extend(description.map(|path| Input { option: "--device", path }));
    output::folder("--out", out, &ENDINGS, &inputs)?;
    // Of a folder that is yet to be made, where it will be.
    let real = |path: &Path| match path.ancestors().find_map(|p| p.canonicalize().ok()) {
        None => Path::new(".").canonicalize().ok(),
        there => there,
    };
    if let (Some(kernels), Some(out_is)) = (kernels.and_then(real), real(out))
        && out_is.starts_with(&kernels)
    {
        return fault(format!(
            "--out {}: lies in the folder of --kernels, where {SWEEP_COPY} would be taken for a \
             manifest; name another folder",
            out.display()
        ));
    }
    if file.is_dir() {
        return fault(format!(
            "{}: is a folder, and the records go into a file of that name; name another folder \
             with --out DIR",
            file.display()
        ));
    }
    Ok(())
}

/// Where the copy of the sweep goes; `None` if it is there already.
///
/// # Errors
/// There is another file of that name that no run of this sweep left.
pub fn copy(out: &Path, sweep: &Sweep) -> Result<Option<PathBuf>> {
    let path = out.join(SWEEP_COPY);
    if !path.exists() {
        return Ok(Some(path));
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    if there == *sweep.source.text {
        return Ok(None);
    }
    let parsed = Sweep::parse(Source::new(path.display().to_string(), there));
    let is_of_this = parsed.is_ok_and(|there| there.name == sweep.name);
    let has_run = output::files(out).iter().any(|f| f.extension().is_some_and(|e| e == "jsonl"));
    match is_of_this && has_run {
        true => Ok(Some(path)),
        false => Err(Failure::Usage(format!(
            "{}: a run leaves a copy of its sweep under that name, and this is another file; move \
             it away, or write elsewhere with --out DIR",
            path.display()
        ))),
    }
}

/// Nothing is found in a folder for a run that is not resumed.
///
/// # Errors
/// There are records in the run's file, or of its cases in another one.
pub fn fresh(file: &Path, records: &[Record], part: &Plan, place: &str) -> Result<Found> {
    let known: std::collections::HashSet<&str> = records.iter().map(|r| r.id.as_str()).collect();
    let again = |p: &&crate::sweep::Planned| known.contains(p.case.id(&part.sweep, place).as_str());
    let again = part.cases.iter().filter(again).count();
    let size = file.metadata().map_or(0, |m| m.len());
    let ways = "go on with --resume, measure all again with --rerun all, or write elsewhere with \
                --out DIR";
    if size > 0 {
        return Err(Failure::Usage(format!("{} has records already: {ways}", file.display())));
    }
    if again > 0 {
        let folder = file.parent().unwrap_or(Path::new(FILE_NAME));
        return Err(Failure::Usage(format!(
            "{} has records of {} already: {ways}",
            folder.display(),
            cases(again)
        )));
    }
    Ok(Found::default())
}
