//! `crossover compare`, as a user meets it.

use std::fs;
use std::path::Path;

use predicates::prelude::*;
use predicates::str::contains;
use serde_json::Value;

use crate::common::crossover;

const RECORDS: &str = "reports/h200-peer-shapes/records.jsonl";

/// A few records of a report, each changed.
fn write(path: &Path, change: impl Fn(&mut Value)) {
    let all = fs::read_to_string(RECORDS).expect("records");
    let some = all.lines().filter(|l| l.contains("\"kda/prefill.sm80\"")).take(3);
    let lines = some.map(|line| {
        let mut record: Value = serde_json::from_str(line).expect("a record");
        change(&mut record);
        format!("{record}\n")
    });
    fs::write(path, lines.collect::<String>()).expect("a file");
}

fn slower(record: &mut Value, by: f64) {
    let timing = &mut record["timing"];
    timing["median_ns"] = (timing["median_ns"].as_f64().expect("a time") * by).into();
    for sample in timing["samples"].as_array_mut().expect("samples") {
        sample["ns"] = (sample["ns"].as_f64().expect("a time") * by).into();
    }
}

#[test]
fn records_have_verdicts_and_exit_codes() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name);
    write(&file("old.jsonl"), |_| {});
    write(&file("new.jsonl"), |r| slower(r, 1.05));
    let args = |a: &str, b: &str| {
        let mut command = crossover(&["compare"]);
        command.arg(file(a)).arg(file(b));
        command
    };
    // One of them is noisy.
    let same = args("old.jsonl", "old.jsonl").args(["--threshold", "2"]).assert().success();
    same.stdout(contains("3 same"));
    args("old.jsonl", "new.jsonl")
        .assert()
        .code(1)
        .stdout(contains("3 slower").and(contains("1.0500")))
        .stderr(contains("3 cases are regressions"));
    args("new.jsonl", "old.jsonl").assert().success().stdout(contains("3 faster"));
    args("old.jsonl", "new.jsonl").args(["--threshold", "10%"]).assert().success();
    let json = args("old.jsonl", "new.jsonl").args(["--format", "json"]).assert().code(1);
    let found: Value = serde_json::from_slice(&json.get_output().stdout).expect("one object");
    assert_eq!((&found["regressions"], &found["verdicts"]["slower"]), (&3.into(), &3.into()));
    args("old.jsonl", "new.jsonl")
        .args(["--format", "csv", "--out"])
        .arg(file("c.csv"))
        .assert()
        .code(1)
        .stdout(contains("3 slower"));
    assert_eq!(fs::read_to_string(file("c.csv")).expect("a table").lines().count(), 4);

    write(&file("wrong.jsonl"), |r| {
        r["status"] = "wrong".into();
        r["reason"] = "o[0] is 1, wanted 2".into();
        r.as_object_mut().expect("a record").remove("timing");
    });
    args("old.jsonl", "wrong.jsonl")
        .assert()
        .code(1)
        .stdout(contains("ok in OLD, now wrong: o[0]").and(contains("FAILED")));
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name).display().to_string();
    let old = file("old.jsonl");
    write(Path::new(&old), |_| {});
    write(Path::new(&file("h100.jsonl")), |r| r["device"]["name"] = "NVIDIA H100".into());
    write(Path::new(&file("seed.jsonl")), |r| r["seed"] = 99.into());
    write(Path::new(&file("modelled.jsonl")), |r| r["device"]["emulated"] = true.into());
    fs::write(file("empty.jsonl"), "").expect("a file");
    for (args, words) in [
        (vec![&*old, "no-such.jsonl"], vec!["no-such.jsonl"]),
        (vec![&old], vec!["NEW"]),
        (vec![&old, &file("h100.jsonl")], vec!["NVIDIA H100", "--across-devices"]),
        (vec![&old, &file("seed.jsonl")], vec!["no case is on both sides"]),
        (vec![&old, &file("modelled.jsonl")], vec!["never compared"]),
        (vec![&old, &file("empty.jsonl")], vec!["NEW has no record"]),
        (vec![&old, &old, "--threshold", "-1"], vec!["--threshold", "percent"]),
        (vec![&old, &old, "--threshold", "x"], vec!["--threshold"]),
        (vec![&old, &old, "--out", &old], vec!["--out"]),
        (vec![&old, &old, "--budget", "1m"], vec!["--live"]),
        (vec!["--live", "no/such", "no/such"], vec!["no/such"]),
        (vec!["--live", "kda/prefill.sm80", "kda/prefill.sm80:BV"], vec!["BV"]),
        (vec!["--live", "nowhere::kda/prefill", "kda/prefill"], vec!["nowhere"]),
        (
            vec!["--live", "kda/prefill", "attention/prefill", "--device", "emulator"],
            vec!["attention", "kda"],
        ),
        (vec!["--live", "kda/prefill", "kda/prefill", "--budget", "0"], vec!["--budget"]),
        (vec!["--live", "kda/prefill", "kda/prefill", "--repeat", "0"], vec!["--repeat"]),
    ] {
        let mut refused = crossover(&["compare"]);
        let mut refused = refused.args(&args).assert().code(2).stdout("");
        for word in words {
            refused = refused.stderr(contains(word));
        }
        refused.stderr(contains("panicked").not());
    }
    let h100 = file("h100.jsonl");
    crossover(&["compare", &old, &h100, "--across-devices"]).assert().success();
}

#[test]
fn modelled_times_are_compared_exactly_and_called_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("live.json");
    let kernel = "attention/prefill.sm80";
    let args =
        ["compare", "--live", kernel, kernel, "-p", "T=128,Hq=1,Hkv=1", "--device", "emulator"];
    crossover(&args)
        .arg("--out")
        .arg(&out)
        .assert()
        .success()
        .stdout(contains("same: B/A 1.0000, modelled exactly, nothing measured"));
    let kept: Value =
        serde_json::from_str(&fs::read_to_string(&out).expect("a file")).expect("JSON");
    assert_eq!(kept["comparisons"][0]["kind"], "modelled");
    crossover(&args).args(["--plant", "2"]).assert().code(1).stdout(contains("slower: B/A 1.0200"));
}

#[test]
fn history_follows_a_case_through_folders() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name);
    let on = |day: u32, by: f64| {
        move |r: &mut Value| {
            slower(r, by);
            r["time"] = format!("2026-03-{day:02}T12:00:00Z").into();
        }
    };
    for (name, day, by) in [("b.jsonl", 2, 1.2), ("a.jsonl", 1, 1.0), ("c.jsonl", 3, 1.2)] {
        fs::create_dir(file(name).with_extension("")).expect("a folder");
        write(&file(name).with_extension("").join("records.jsonl"), on(day, by));
    }
    let history = || {
        let mut command = crossover(&["history"]);
        command.args(["b", "a", "c", "c"].map(file));
        command
    };
    let said =
        history().args(["--threshold", "2"]).arg("--out").arg(file("h.svg")).assert().success();
    let said = String::from_utf8(said.get_output().stdout.clone()).expect("text");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 3 * 4, "{said}");
    assert!(lines[1].contains("2026-03-01") && lines[2].contains("slower 1.2000"), "{said}");
    assert!(lines[2].ends_with("<--") && lines[3].contains("same 1.0000"), "{said}");
    let svg = fs::read_to_string(file("h.svg")).expect("a drawing");
    assert!(svg.contains("+20.0%") && svg.contains("2026-03-01"));
    history().arg("--out").arg(file("a").join("records.jsonl")).assert().code(2);
    let mut once = crossover(&["history"]);
    once.arg(file("a")).arg("--out").arg(file("once.svg"));
    once.assert().code(2).stdout(contains("2026-03-01")).stderr(contains("measured twice"));
    assert!(!file("once.svg").exists());
    crossover(&["history", "nowhere"]).assert().code(2).stderr(contains("nowhere"));
}
