//! Reading and writing records as JSON Lines: one line a record, appended, never rewritten.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Record, SCHEMA, Status};

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
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RecordError {
        move |source| RecordError::Io { action, path: path.to_path_buf(), source }
    }
}

/// Appends records to a file. Each is on disk before [`Writer::write`] returns, so that neither
/// Ctrl-C nor kill -9 nor a power cut loses a finished case.
#[derive(Debug)]
pub struct Writer {
    file: File,
    path: PathBuf,
}

impl Writer {
    /// Opens `path` for appending; creates it and its folder where missing.
    ///
    /// A last line that an interrupted write left without its end is closed first, so that what
    /// follows stays readable.
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
        if !ends_line(&mut file).map_err(RecordError::io("read", path))? {
            file.write_all(b"\n").map_err(RecordError::io("write to", path))?;
        }
        Ok(Writer { file, path: path.to_path_buf() })
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
        self.file
            .write_all(&line)
            .and_then(|()| self.file.sync_data())
            .map_err(RecordError::io("write to", &self.path))
    }

    /// The file that is written.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Whether the file is empty or its last byte ends a line.
fn ends_line(file: &mut File) -> io::Result<bool> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(true);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last[0] == b'\n')
}

/// What files of records hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Records {
    /// In the order read. Of several with one id only the last.
    pub records: Vec<Record>,
    /// `file:line` of each line that an interrupted write cut short.
    pub torn: Vec<String>,
}

/// Reads records from files and folders; of a folder every `*.jsonl`, in the order of names.
///
/// Shards merge: of several records with one id the last read stays, in the place of the first.
/// A line cut short by an interrupted write holds no record; it is named in [`Records::torn`].
///
/// # Errors
/// A file cannot be read, a folder has no `*.jsonl`, a line is not a record (the error names
/// file, line and fault), or a record has a newer schema than [`SCHEMA`].
pub fn read<P: AsRef<Path>>(paths: &[P]) -> Result<Records, RecordError> {
    let mut all = Records::default();
    let mut place: HashMap<String, usize> = HashMap::new();
    for path in paths {
        for file in files(path.as_ref())? {
            let bytes = fs::read(&file).map_err(RecordError::io("read", &file))?;
            let (records, torn) = parse(&file, &bytes)?;
            all.torn.extend(torn);
            for record in records {
                match place.get(&record.id) {
                    Some(&i) => all.records[i] = record,
                    None => {
                        place.insert(record.id.clone(), all.records.len());
                        all.records.push(record);
                    }
                }
            }
        }
    }
    Ok(all)
}

/// Ids of the cases that a resumed run need not repeat.
///
/// Everything but `timeout` and `launch_failed` is done: those two may come from the machine's
/// state at the time, the others would come out the same again. A missing file or folder, or a
/// folder without records, means that nothing is done.
///
/// # Errors
/// As [`read`].
pub fn done_ids(path: &Path) -> Result<HashSet<String>, RecordError> {
    if !path.exists() {
        return Ok(HashSet::new());
    }
    let records = match read(&[path]) {
        Err(RecordError::Empty(_)) => return Ok(HashSet::new()),
        other => other?.records,
    };
    Ok(records.into_iter().filter(|r| r.status.is_final()).map(|r| r.id).collect())
}

impl Status {
    /// Whether the same case would end the same way again, so that `--resume` leaves it.
    pub fn is_final(self) -> bool {
        !matches!(self, Status::Timeout | Status::LaunchFailed)
    }
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

/// What every schema has.
#[derive(Deserialize)]
struct Head {
    schema: u32,
    #[serde(default)]
    version: String,
}

/// Records of one file, and `file:line` of its torn lines.
fn parse(path: &Path, bytes: &[u8]) -> Result<(Vec<Record>, Vec<String>), RecordError> {
    let (mut records, mut torn) = (Vec::new(), Vec::new());
    for (i, line) in bytes.split(|b| *b == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let fail = |what| RecordError::Line { path: path.to_path_buf(), line: i + 1, what };
        match parse_line(line) {
            Ok(record) => records.push(record),
            Err(Fault::Torn) => torn.push(format!("{}:{}", path.display(), i + 1)),
            Err(Fault::Bad(what)) => return Err(fail(what)),
        }
    }
    Ok((records, torn))
}

enum Fault {
    /// The line ends within the object.
    Torn,
    Bad(String),
}

fn parse_line(line: &[u8]) -> Result<Record, Fault> {
    // An interrupted write leaves a prefix of an object: parsing fails at its end, and nowhere
    // else. That tells it from damage, at the end of a file or, after a resumed run, within it.
    let fault = |e: serde_json::Error| {
        let in_number = matches!(line.last(), Some(b'-' | b'+' | b'.' | b'e'));
        let cut = e.is_eof() || (in_number && e.is_syntax() && e.column() == line.len());
        if cut { Fault::Torn } else { Fault::Bad(explain(&e)) }
    };
    let head: Head = serde_json::from_slice(line).map_err(fault)?;
    if head.schema == 0 || head.schema > SCHEMA {
        let by = if head.version.is_empty() { "a newer one" } else { &head.version };
        return Err(Fault::Bad(format!(
            "field `schema`: this crossover ({}) reads records up to schema {SCHEMA}, and this \
             one is of schema {}: read it with the crossover that wrote it ({by}) or a newer one",
            env!("CARGO_PKG_VERSION"),
            head.schema,
        )));
    }
    let record: Record = serde_json::from_slice(line).map_err(fault)?;
    let (said, is) = (record.phase, record.problem.phase());
    if said != is {
        return Err(Fault::Bad(format!("field `phase`: {said}, but its problem is one of {is}")));
    }
    Ok(record)
}

/// serde's message; its line is always 1 here, and only the column helps.
fn explain(e: &serde_json::Error) -> String {
    let text = e.to_string();
    match text.rsplit_once(" at line ") {
        Some((what, _)) => format!("not a record: {what} (column {})", e.column()),
        None => format!("not a record: {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::made_up;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn line(r: &Record) -> String {
        serde_json::to_string(r).unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = folder();
        let path = dir.path().join("a/b/records.jsonl");
        let records: Vec<_> = made_up::sweep().into_iter().take(5).collect();
        for half in records.chunks(3) {
            let mut w = Writer::append(&path).unwrap();
            half.iter().for_each(|r| w.write(r).unwrap());
        }
        let got = read(&[&path]).unwrap();
        assert_eq!(got.records, records);
        assert!(got.torn.is_empty());
        assert_eq!(read(&[dir.path().join("a/b")]).unwrap().records, records);
    }

    #[test]
    fn nonfinite_errors_survive() {
        let mut r = made_up::sweep().remove(0);
        let v = r.verification.as_mut().unwrap();
        v.outputs[0].error = f64::NAN;
        v.outputs[0].max_ulp = f64::INFINITY;
        v.outputs[0].blocks = vec![1.0, f64::NAN, 2.0];
        let back: Record = serde_json::from_str(&line(&r)).unwrap();
        let got = &back.verification.as_ref().unwrap().outputs[0];
        assert!(got.error.is_nan() && got.max_ulp.is_nan() && got.ratio().is_nan());
        assert!(got.blocks[1].is_nan());
        assert_eq!((got.blocks[0], got.blocks[2]), (1.0, 2.0));
    }

    #[test]
    fn a_torn_line_is_ignored_wherever_it_is_cut_and_a_writer_goes_on_after_it() {
        let dir = folder();
        let path = dir.path().join(FILE_NAME);
        let all = made_up::sweep();
        let (first, torn, last) = (&all[0], line(&all[1]), &all[2]);
        for cut in (1..torn.len()).step_by(3) {
            fs::write(&path, format!("{}\n{}", line(first), &torn[..cut])).unwrap();
            let got = read(&[&path]).unwrap();
            assert_eq!((got.records.len(), got.torn.len()), (1, 1), "cut at {cut}");
            Writer::append(&path).unwrap().write(last).unwrap();
            let got = read(&[&path]).unwrap();
            assert_eq!(got.records, [first.clone(), last.clone()]);
            assert!(got.torn[0].ends_with("records.jsonl:2"), "{:?}", got.torn);
        }
    }

    #[test]
    fn a_whole_line_without_its_end_is_a_record() {
        let dir = folder();
        let path = dir.path().join(FILE_NAME);
        let all = made_up::sweep();
        fs::write(&path, line(&all[0])).unwrap();
        Writer::append(&path).unwrap().write(&all[1]).unwrap();
        assert_eq!(read(&[&path]).unwrap().records, all[..2]);
    }

    #[test]
    fn damage_is_named_by_file_and_line() {
        let dir = folder();
        let path = dir.path().join(FILE_NAME);
        let good = line(&made_up::sweep()[0]);
        for (bad, wanted) in [
            ("not json", "records.jsonl:2: not a record: expected"),
            ("[]", "records.jsonl:2: not a record"),
            (r#"{"schema":1}"#, "records.jsonl:2: not a record: missing field `id`"),
            (&good.replacen("\"seed\":1", "\"seed\":\"x\"", 1), "invalid type: string \"x\""),
            (&good.replacen("\"schema\":1", "\"schema\":2", 1), "schema 2: read it with"),
            (&format!("{good}{good}"), "trailing characters"),
        ] {
            fs::write(&path, format!("{good}\n{bad}\n{good}\n")).unwrap();
            let said = read(&[&path]).unwrap_err().to_string();
            assert!(said.contains(wanted), "{said}");
        }
        let said = read(&[dir.path().join("none.jsonl")]).unwrap_err().to_string();
        assert!(said.starts_with("cannot read ") && said.contains("none.jsonl"), "{said}");
        fs::remove_file(&path).unwrap();
        assert!(matches!(read(&[dir.path()]), Err(RecordError::Empty(_))));
    }

    #[test]
    fn of_shards_the_last_record_of_an_id_wins() {
        let dir = folder();
        let all = made_up::sweep();
        let mut again = all[0].clone();
        again.status = Status::Timeout;
        for (name, records) in [("a.jsonl", &all[..2]), ("b.jsonl", &[again.clone()][..])] {
            let mut w = Writer::append(&dir.path().join(name)).unwrap();
            records.iter().for_each(|r| w.write(r).unwrap());
        }
        assert_eq!(read(&[dir.path()]).unwrap().records, [again, all[1].clone()]);
        assert_eq!(done_ids(dir.path()).unwrap(), HashSet::from([all[1].id.clone()]));
        assert!(done_ids(&dir.path().join("missing")).unwrap().is_empty());
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let dir = folder();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let said = Writer::append(&file.join(FILE_NAME)).unwrap_err().to_string();
        assert!(said.starts_with("cannot create the folder ") && said.contains("file"), "{said}");
    }
}
