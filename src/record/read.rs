//! Reading records from files and folders, and what becomes of several with one id.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use super::line::{Piece, pieces};
use super::{Record, RecordError};
use crate::disk;

/// What files of records hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Records {
    /// In the order read. Of several with one id and process the newest, in the place of the first.
    pub records: Vec<Record>,
    /// What interrupted writes left.
    pub ignored: Vec<Ignored>,
    /// How many records were read that a newer one of their id and process replaces.
    pub superseded: usize,
}

/// Part of a line that holds no record since its write was interrupted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ignored {
    /// `file:line`
    pub place: String,
    /// How many zero bytes it is; `None` for a record that ends within its object.
    pub zeros: Option<usize>,
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = &self.place;
        match self.zeros {
            None => write!(f, "{place} was cut short by an interrupted write: ignored"),
            Some(n) => write!(f, "{place} has {n} zero bytes of an interrupted write: ignored"),
        }
    }
}

/// Reads records from files and folders; of a folder every `*.jsonl`, in the order of names. A file
/// that is named twice is read once.
///
/// Of several records with one id and process in one file the last stays: files are appended to. Of several in
/// different files the one with the newest `time` stays. A line cut short by an interrupted write
/// holds no record; it is named in [`Records::ignored`].
///
/// # Errors
/// A file cannot be read, a folder has no `*.jsonl`, a line is not a record (the error names
/// file, line and fault), or a record has a newer schema than [`SCHEMA`](super::SCHEMA).
pub fn read<P: AsRef<Path>>(paths: &[P]) -> Result<Records, RecordError> {
    let mut all = Records::default();
    let mut place: HashMap<(String, Option<u32>), Place> = HashMap::new();
    let mut seen = HashSet::new();
    for path in paths {
        for file in files(path.as_ref())? {
            if let Ok(real) = file.canonicalize()
                && !seen.insert(real)
            {
                continue;
            }
            let number = seen.len();
            let bytes = disk::read(&file).map_err(RecordError::io("read", &file))?;
            let (records, ignored) = parse(&file, &bytes)?;
            all.ignored.extend(ignored);
            for record in records {
                let key = (record.id.clone(), record.process);
                let Some(known) = place.get_mut(&key) else {
                    let at = all.records.len();
                    place.insert(key, Place { at, file: number });
                    all.records.push(record);
                    continue;
                };
                all.superseded += 1;
                if known.file == number || !is_older(&record, &all.records[known.at]) {
                    all.records[known.at] = record;
                    known.file = number;
                }
            }
        }
    }
    Ok(all)
}

/// Where the record of an id is, and which file it came from.
struct Place {
    at: usize,
    file: usize,
}

/// Whether both say when they were made, and `record` earlier.
fn is_older(record: &Record, than: &Record) -> bool {
    let time = |r: &Record| r.time.parse::<jiff::Timestamp>().ok();
    matches!((time(record), time(than)), (Some(a), Some(b)) if a < b)
}

fn files(path: &Path) -> Result<Vec<PathBuf>, RecordError> {
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(RecordError::io("read the folder", path))? {
        let entry = entry.map_err(RecordError::io("read the folder", path))?.path();
        if entry.extension().is_some_and(|e| e == "jsonl") && entry.is_file() {
            found.push(entry);
        }
    }
    if found.is_empty() {
        return Err(RecordError::Empty(path.to_path_buf()));
    }
    found.sort();
    Ok(found)
}

/// Records of one file, and what interrupted writes left in it.
pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<(Vec<Record>, Vec<Ignored>), RecordError> {
    let (mut records, mut ignored) = (Vec::new(), Vec::new());
    let fail = |line, what| RecordError::Line { path: path.to_path_buf(), line, what };
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        let what =
            "the file is UTF-16: records are UTF-8; convert it, as with `iconv -f UTF-16 -t UTF-8`";
        return Err(fail(1, what.into()));
    }
    for (i, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        for piece in pieces(line).map_err(|what| fail(i + 1, what))? {
            let place = || format!("{}:{}", path.display(), i + 1);
            match piece {
                Piece::Record(record) => records.push(*record),
                Piece::CutShort => ignored.push(Ignored { place: place(), zeros: None }),
                Piece::Zeros(n) => ignored.push(Ignored { place: place(), zeros: Some(n) }),
            }
        }
    }
    Ok((records, ignored))
}
