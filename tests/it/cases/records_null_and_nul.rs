//! `null` is NaN in every number field, and what a power cut leaves of an append, zero bytes, is no
//! record: docs/records.md says both.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use crossover::record::{Status, read};

use crate::common::{PROGRAM, data};

fn case(name: &str) -> PathBuf {
    data("cases/records_null_and_nul").join(name)
}

fn run(folder: &tempfile::TempDir, args: &[&str]) -> Output {
    Command::new(PROGRAM).args(args).current_dir(folder.path()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_median_of_null() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(&folder, &["report", case("null.jsonl").to_str().unwrap(), "--out", "r"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(folder.path().join("r/index.html").exists());
    let records = read(&[case("null.jsonl")]).unwrap().records;
    assert_eq!(records.len(), 6);
    assert!(records[0].timing.as_ref().unwrap().ns().is_nan());
    assert!(records[1..].iter().all(|r| r.timing.as_ref().unwrap().ns() > 0.0));
}

#[test]
fn a_tail_of_zeros() {
    let folder = tempfile::tempdir().unwrap();
    let given = case("nul-tail.jsonl");
    let output = run(&folder, &["report", given.to_str().unwrap(), "--out", "r"]);
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("nul-tail.jsonl:7 has 512 zero bytes"), "{said}");
    assert_eq!(read(&[&given]).unwrap().records.len(), 6);
}

/// A run whose last append a power cut ended goes on, and leaves a file without zeros in it.
#[test]
fn a_run_goes_on_after_zeros() {
    const SWEEP: &str = "
name = 'cut'
device = 'emulator'
[[group]]
op = 'attention'
kernels = '*.sm80'
T = [16, 20, 24]
Hq = 1
D = 64
causal = true
";
    for torn in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("cut.toml"), SWEEP).unwrap();
        let output = run(&folder, &["run", "cut.toml"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let file = folder.path().join("out/cut/records.jsonl");
        let whole = fs::read(&file).unwrap();
        let second = whole.iter().position(|b| *b == b'\n').unwrap() + 1;
        let end = if torn { second + 400 } else { second };
        fs::write(&file, [&whole[..end], &[0; 700]].concat()).unwrap();

        let output = run(&folder, &["run", "cut.toml", "--resume"]);
        let said = text(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("records.jsonl: 700 zero bytes"), "{said}");
        assert!(text(&output.stdout).contains("2 cases on"), "{}", text(&output.stdout));
        let after = fs::read(&file).unwrap();
        assert!(!after.contains(&0) && after.starts_with(&whole[..end]));
        let got = read(&[&file]).unwrap();
        assert_eq!((got.records.len(), got.ignored.len()), (3, usize::from(torn)));
        assert!(got.records.iter().all(|r| r.status == Status::Ok));
    }
}
