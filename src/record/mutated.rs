//! Files of records, damaged in a thousand ways: what is whole is read, what is not is named, and
//! nothing that was given is changed.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use rand::Rng;

use super::file::FILE_NAME;
use super::*;
use crate::mutate;
use crate::report::{self, Pairing, Prose};

const FILES: u64 = 1000;

fn sample() -> Vec<Record> {
    let mut all: Vec<_> = made_up::sweep().into_iter().take(5).collect();
    let op = crate::op::examples::linear();
    for t in [256, 512] {
        let made = made_up::Made { measured: false, ..made_up::Made::new(op, t, 9e4) };
        all.push(made.record());
    }
    all[4].status = Status::Timeout;
    (all[4].timing, all[4].reason) = (None, Some("no end".into()));
    all
}

fn id(line: &[u8]) -> Option<&[u8]> {
    let mark = b"\"id\":\"";
    let start = line.windows(mark.len()).position(|w| w == mark)? + mark.len();
    let end = line[start..].iter().position(|b| *b == b'"')?;
    Some(&line[start..start + end])
}

/// What must hold of a damaged file, or what does not.
fn judge(path: &Path, bytes: &[u8], whole: &[(Vec<u8>, Record)]) -> Result<bool, String> {
    fs::write(path, bytes).map_err(|e| e.to_string())?;
    let lines: Vec<&[u8]> = bytes.split(|b| *b == b'\n').collect();
    let intact = |line: &[u8]| whole.iter().find(|(text, _)| text == line).map(|(_, r)| r);
    let got = read(&[path]);
    if fs::read(path).map_err(|e| e.to_string())? != bytes {
        return Err("reading has changed the file".into());
    }
    let got = match got {
        Ok(got) => got,
        Err(e) => {
            let said = e.to_string();
            let rest = said.strip_prefix(&format!("{}:", path.display()));
            let line = rest.and_then(|r| r.split_once(": ")?.0.parse::<usize>().ok());
            return match line.and_then(|n| lines.get(n.checked_sub(1)?)) {
                None => Err(format!("no place in: {said}")),
                Some(line) if intact(line).is_some() => Err(format!("a whole line is bad: {said}")),
                Some(_) => Ok(false),
            };
        }
    };
    for (i, line) in lines.iter().enumerate() {
        let Some(record) = intact(line) else { continue };
        let replaced = lines[i + 1..].iter().any(|l| {
            let same = |part: &[u8]| part == record.id.as_bytes();
            id(l).is_some_and(same) || l.windows(record.id.len()).any(same)
        });
        if !replaced && !got.records.contains(record) {
            return Err(format!("line {} is lost", i + 1));
        }
    }
    // A run goes on after it.
    let mut next = whole[0].1.clone();
    next.id = "next".into();
    Writer::append(path).and_then(|mut w| w.write(&next)).map_err(|e| e.to_string())?;
    let mut wanted = got.records.clone();
    wanted.push(next);
    let after = read(&[path]).map_err(|e| format!("after an append: {e}"))?;
    // NaN is not itself.
    if format!("{:?}", after.records) != format!("{wanted:?}") {
        return Err("an append has lost records".into());
    }
    if !got.records.is_empty() {
        let out = path.parent().expect("a folder").join("report");
        report::write(&got.records, &Prose::default(), Pairing::default(), &out)
            .map_err(|e| e.to_string())?;
    }
    Ok(true)
}

#[test]
fn a_thousand_damaged_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE_NAME);
    let line = |r: &Record| serde_json::to_vec(r).unwrap();
    let whole: Vec<_> = sample().into_iter().map(|r| (line(&r), r)).collect();
    let file: Vec<u8> = whole.iter().flat_map(|(line, _)| [&line[..], b"\n"].concat()).collect();
    let (mut read, mut wrong) = (0, Vec::new());
    for seed in 0..FILES {
        let rng = &mut mutate::seeded(seed);
        let mut bytes = file.clone();
        let ways: Vec<_> = (0..rng.random_range(1..=3))
            .map(|_| match rng.random_range(0..3) {
                0 => mutate::bytes(rng, &mut bytes),
                1 => mutate::number(rng, &mut bytes),
                _ => mutate::word(rng, &mut bytes),
            })
            .collect();
        match catch_unwind(AssertUnwindSafe(|| judge(&path, &bytes, &whole))) {
            Ok(Ok(was_read)) => read += u64::from(was_read),
            Ok(Err(why)) => wrong.push(format!("{seed} {ways:?}: {why}")),
            Err(_) => wrong.push(format!("{seed} {ways:?}: panicked")),
        }
    }
    assert!(wrong.is_empty(), "{} of {FILES}:\n{}", wrong.len(), wrong.join("\n"));
    // Both ends are met often.
    assert!(read > FILES / 10 && read < FILES * 9 / 10, "{read} of {FILES} were read");
}
