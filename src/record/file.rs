//! Writing records as JSON Lines: one line a record, appended, never rewritten.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::Record;

/// Name of the records file that a run writes into its output folder.
pub const FILE_NAME: &str = "records.jsonl";

/// Why records could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// `cannot create reports/x: Permission denied (os error 13)`
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    /// `records.jsonl:17: missing field ...`; lines count from 1.
    #[error("{}:{line}: {what}", path.display())]
    Line { path: PathBuf, line: usize, what: String },
    /// A folder without a single `*.jsonl`.
    #[error(
        "no *.jsonl file in the folder {}: give a records file, or the folder that a run wrote",
        .0.display()
    )]
    Empty(PathBuf),
}

impl RecordError {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RecordError {
        move |source| RecordError::Io { action, path: path.to_path_buf(), source }
    }
}

/// Appends records to a file. Each is on disk before [`Writer::write`] returns, so that neither
/// Ctrl-C nor kill -9 nor a power cut loses a finished case.
#[derive(Debug)]
pub struct Writer {
    file: File,
    path: PathBuf,
    zeros: u64,
}

impl Writer {
    /// Opens `path` for appending; creates it and its folder where missing.
    ///
    /// Zero bytes at the end of the file, which a file system leaves of a write that a power cut
    /// ended, are cut off. A last line without its end is closed. What follows stays readable.
    ///
    /// # Errors
    /// The folder or the file cannot be created, read or written.
    pub fn append(path: &Path) -> Result<Writer, RecordError> {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
        if let Some(folder) = folder {
            fs::create_dir_all(folder).map_err(RecordError::io("create the folder", folder))?;
        }
        let is_new = !path.exists();
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .open(path)
            .map_err(RecordError::io("open for appending", path))?;
        if is_new {
            // The file's name must survive a power cut as well as its contents.
            let folder = folder.unwrap_or(Path::new("."));
            File::open(folder)
                .and_then(|f| f.sync_all())
                .map_err(RecordError::io("write the folder", folder))?;
        }
        let (end, last) = content_end(&mut file).map_err(RecordError::io("read", path))?;
        let size = file.metadata().map_err(RecordError::io("read", path))?.len();
        if end < size {
            file.set_len(end).map_err(RecordError::io("write to", path))?;
        }
        if end > 0 && last != b'\n' {
            file.write_all(b"\n").map_err(RecordError::io("write to", path))?;
        }
        Ok(Writer { file, path: path.to_path_buf(), zeros: size - end })
    }

    /// Appends one record as one line and waits until it is on disk.
    ///
    /// # Errors
    /// The record cannot be written, say for a full disk.
    pub fn write(&mut self, record: &Record) -> Result<(), RecordError> {
        let mut line = serde_json::to_vec(record)
            .map_err(|e| RecordError::io("write to", &self.path)(e.into()))?;
        line.push(b'\n');
        // One write of the whole line: lines of two processes do not interleave.
        let written = self.file.write_all(&line).and_then(|()| self.file.sync_data());
        if written.is_err() {
            self.drop_torn_line();
        }
        written.map_err(RecordError::io("write to", &self.path))
    }

    /// Cuts off what a failed write left behind the last whole line, if that can be done; a reader
    /// passes it over otherwise.
    fn drop_torn_line(&mut self) {
        let Ok(size) = self.file.seek(SeekFrom::End(0)) else { return };
        let mut end = size;
        let mut byte = [0];
        while end > 0
            && self.file.seek(SeekFrom::Start(end - 1)).is_ok()
            && self.file.read_exact(&mut byte).is_ok()
            && byte != *b"\n"
        {
            end -= 1;
        }
        if end < size {
            let _ = self.file.set_len(end);
        }
    }

    /// The file that is written.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many zero bytes were cut off the file's end.
    pub fn zeros_cut(&self) -> u64 {
        self.zeros
    }
}

/// Where the file ends without the zero bytes at its end, and the byte before that place; 0 where
/// there is none.
fn content_end(file: &mut File) -> io::Result<(u64, u8)> {
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut part = vec![0; 1 << 16];
    while end > 0 {
        let size = end.min(part.len() as u64);
        file.seek(SeekFrom::Start(end - size))?;
        let part = &mut part[..size as usize];
        file.read_exact(part)?;
        if let Some(at) = part.iter().rposition(|byte| *byte != 0) {
            return Ok((end - size + at as u64 + 1, part[at]));
        }
        end -= size;
    }
    Ok((0, 0))
}
