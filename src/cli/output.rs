//! Where a command writes, judged before any work is done for it: it can be written there, and
//! nothing is replaced that the command reads.

use std::fs;
use std::path::{Path, PathBuf};

use same_file::is_same_file;

use super::{Failure, Result};
use crate::disk;

/// A file or folder that a command reads, and the option that names it.
pub struct Input<'a> {
    pub option: &'a str,
    pub path: &'a Path,
}

/// The file of a device's description, if `--device` or `--model` names one.
pub fn description(spec: &str) -> Option<&Path> {
    let path = Path::new(spec.strip_prefix("emulator:").unwrap_or(spec));
    path.is_file().then_some(path)
}

/// Makes sure that a file can be made at `path`, or replaced there.
///
/// # Errors
/// The path is a folder, a device, a pipe, write-protected or one of `inputs`, or nothing can be
/// written beside it.
pub fn file(option: &str, path: &Path, inputs: &[Input]) -> Result {
    let fault = |why: String| Err(Failure::Usage(format!("{option} {}: {why}", path.display())));
    if let Ok(there) = path.metadata() {
        if there.is_dir() {
            return fault("is a folder; name a file".into());
        }
        // The file is renamed into place: that would replace a device by a file.
        if !there.is_file() {
            return fault("is a device or pipe; name a file".into());
        }
        if there.permissions().readonly() {
            return fault("is write-protected; name another file".into());
        }
    }
    if let Some(input) = inputs.iter().find(|input| would_lose(path, input.path)) {
        let read = input.path.display();
        let what = match input.path.is_dir() {
            true => "lies in the folder",
            false => "is the file",
        };
        return fault(format!("{what} that {} reads ({read}); name another file", input.option));
    }
    match disk::beside(path) {
        Ok(_) => Ok(()),
        Err(e) => fault(format!("cannot write there: {e}")),
    }
}

/// Whether replacing `path` takes away what is read: the same file under whatever name, or a file
/// of the folder that is read.
fn would_lose(path: &Path, read: &Path) -> bool {
    if !read.is_dir() {
        return is_same_file(path, read).unwrap_or(false);
    }
    match (path.canonicalize(), read.canonicalize()) {
        (Ok(path), Ok(folder)) => path.starts_with(folder),
        _ => false,
    }
}

/// Makes sure that files of these endings can be made in a folder, which need not be there.
///
/// # Errors
/// The path is no folder, nothing can be written there, or a file of such an ending there is one of
/// `inputs`.
pub fn folder(option: &str, path: &Path, endings: &[&str], inputs: &[Input]) -> Result {
    let fault = |why: String| Err(Failure::Usage(format!("{option} {}: {why}", path.display())));
    if path.exists() && !path.is_dir() {
        return fault("is a file; name a folder".into());
    }
    // The nearest folder that is there tells whether the missing ones can be made.
    let there = path.ancestors().find(|p| p.exists());
    let there = there.filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !there.is_dir() {
        return fault(format!("cannot be made: {} is a file", there.display()));
    }
    if let Err(e) = disk::beside(&there.join("x")) {
        return fault(format!("cannot write there: {e}"));
    }
    for file in files(path) {
        let ours = file.extension().is_some_and(|e| endings.iter().any(|ending| e == *ending));
        let read = |input: &&Input| !input.path.is_dir() && would_lose(&file, input.path);
        if let Some(input) = inputs.iter().find(read).filter(|_| ours) {
            let (file, option) = (file.display(), input.option);
            return fault(format!(
                "{file}, which {option} reads, could be replaced; name another folder"
            ));
        }
    }
    Ok(())
}

/// The files of a folder; none where it cannot be read.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect()
}
