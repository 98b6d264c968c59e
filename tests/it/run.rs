//! The binary end to end, on the emulator: runs, shards, resumed and interrupted runs, bad input.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crossover::record::{Record, Status, read};
use tempfile::TempDir;

use crate::common::PROGRAM;

/// Two operators' worth of small cases.
const TINY: &str = "
name = 'tiny'
question = 'Does it run?'
analysis = 'It is small.'
device = 'emulator'
[axes]
T = [64, 100, 128]
dtype = ['bf16', 'fp16']
heads = { Hq = 4, Hkv = 2, H = 2, HV = 4 }
causal = true
[[group]]
op = ['attention', 'gated_delta_rule']
kernels = '*.sm80'
[[skip]]
when = \"op == 'attention' and T == 100 and dtype == 'fp16'\"
why = 'to have one skipped'
";
const CASES: usize = 12;

struct Folder(TempDir);

impl Folder {
    fn new() -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        fs::write(folder.path("tiny.toml"), TINY).unwrap();
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(args).current_dir(self.0.path());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn records(&self, name: &str) -> Vec<Record> {
        read(&[self.path(name)]).unwrap().records
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Succeeds, and gives standard output.
fn good(output: &Output) -> String {
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Fails with exit code 2 and a message with all `words`, and without a panic.
fn refused(output: &Output, words: &[&str]) {
    let e = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{e}{}", text(&output.stdout));
    assert!(words.iter().all(|w| e.contains(w)), "{e}\nwants {words:?}");
    assert!(!e.contains("panicked"), "{e}");
}

fn ids(records: &[Record]) -> HashSet<String> {
    let ids: HashSet<_> = records.iter().map(|r| r.id.clone()).collect();
    assert_eq!(ids.len(), records.len());
    ids
}

#[test]
fn a_run_leaves_records_and_a_report() {
    let folder = Folder::new();
    let out = good(&folder.run(&["run", "tiny.toml"]));
    let records = folder.records("out/tiny/records.jsonl");
    assert_eq!(records.len(), CASES);
    let ok: Vec<_> = records.iter().filter(|r| r.status == Status::Ok).collect();
    assert_eq!(ok.len(), CASES - 1, "{out}");
    for r in &ok {
        assert!(r.verification.as_ref().unwrap().passed);
        assert!(!r.timing.as_ref().unwrap().is_measured(), "a model is no measurement");
        let error = r.model_error().expect("an error of the described H200");
        assert!(out.contains(&format!("ms (modelled, {})", error.percent())), "{out}");
        assert!(r.device.emulated && r.device.id == "emulator:h200");
        assert_eq!(r.command, "crossover run tiny.toml");
        let traffic = r.traffic.as_ref().unwrap();
        let sampled = traffic.sampled.as_ref().unwrap();
        assert_eq!(sampled.times, 2);
        assert!(traffic.counts.as_ref().unwrap().unique_bytes() as f64 >= 0.9 * traffic.min_bytes);
    }
    let skipped = records.iter().find(|r| r.status == Status::Skipped).unwrap();
    assert_eq!(skipped.reason.as_deref(), Some("to have one skipped"));

    let last: Vec<_> = out.lines().rev().take(2).collect();
    assert!(last[1].starts_with("records") && last[1].contains("out/tiny/records.jsonl"), "{out}");
    assert!(last[0].starts_with("report") && last[0].contains("index.html"), "{out}");
    assert!(out.contains("rossover"), "{out}");
    let page = fs::read_to_string(folder.path("out/tiny/index.html")).unwrap();
    assert!(page.contains("Does it run?") && page.contains("to have one skipped"));

    // Again: refused, and nothing to do when resumed.
    refused(
        &folder.run(&["run", "tiny.toml"]),
        &["records.jsonl", "--resume", "--rerun all", "--out"],
    );
    let out = good(&folder.run(&["run", "tiny.toml", "--resume"]));
    assert!(out.contains("0 cases") && out.contains("12 done before"), "{out}");
    assert_eq!(folder.records("out/tiny").len(), CASES);

    // Redrawn from the records alone, with the prose of the sweep beside them.
    good(&folder.run(&["report", "out/tiny", "--out", "again"]));
    assert_eq!(fs::read_to_string(folder.path("again/index.html")).unwrap(), page);
}

#[test]
fn shards_are_the_whole_and_nothing_twice() {
    let folder = Folder::new();
    let whole = good(&folder.run(&["plan", "tiny.toml", "--device", "emulator", "--json"]));
    let planned: HashSet<String> = whole
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|case| case["id"].as_str().unwrap().to_string())
        .collect();
    assert_eq!(planned.len(), CASES);
    let mut union = HashSet::new();
    for i in 0..3 {
        let shard = format!("{i}/3");
        good(&folder.run(&["run", "tiny.toml", "--out", "shared", "--shard", &shard]));
        let part = ids(&folder.records(&format!("shared/records-{i}-of-3.jsonl")));
        assert!(!part.is_empty() && union.is_disjoint(&part));
        union.extend(part);
    }
    assert_eq!(union, planned);
    assert_eq!(ids(&folder.records("shared")), planned);
    // Concatenation merges.
    let all: String = (0..3)
        .map(|i| {
            fs::read_to_string(folder.path(&format!("shared/records-{i}-of-3.jsonl"))).unwrap()
        })
        .collect();
    fs::write(folder.path("all.jsonl"), all).unwrap();
    good(&folder.run(&["report", "all.jsonl", "--out", "report"]));
    assert!(folder.path("report/index.html").exists());
}

/// Starts a longer run and waits for its first records.
fn started(folder: &Folder, sweep: &str, out: &str) -> Child {
    fs::write(
        folder.path(sweep),
        TINY.replace("'tiny'", "'long'").replace("128]", "512, 2048, 8192]"),
    )
    .unwrap();
    let mut command = folder.command(&["run", sweep, "--out", out]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (file, start) = (folder.path(out).join("records.jsonl"), Instant::now());
    while fs::read(&file).map_or(0, |bytes| bytes.iter().filter(|b| **b == b'\n').count()) < 3 {
        assert!(start.elapsed() < Duration::from_secs(120), "no records");
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

#[test]
fn a_killed_run_keeps_what_it_finished() {
    let folder = Folder::new();
    let mut child = started(&folder, "long.toml", "out/long");
    child.kill().unwrap();
    child.wait().unwrap();
    let before = folder.records("out/long");
    assert!(before.len() >= 3 && before.len() < 20, "{}", before.len());
    // What a write cut short leaves.
    let file = folder.path("out/long/records.jsonl");
    let torn = fs::read_to_string(&file).unwrap() + "{\"schema\":1,\"id\":\"tor";
    fs::write(&file, torn).unwrap();
    let redrawn = folder.run(&["report", "out/long", "--out", "report"]);
    assert!(text(&redrawn.stderr).contains("cut short"));
    good(&redrawn);
    // A shorter sweep of the same name goes on from there: its cases have the same ids.
    fs::write(folder.path("long.toml"), TINY.replace("'tiny'", "'long'")).unwrap();
    good(&folder.run(&["run", "long.toml", "--resume"]));
    let after = folder.records("out/long");
    assert!(ids(&before).is_subset(&ids(&after)));
    for r in &before {
        assert!(after.contains(r), "finished cases are not run again");
    }
    assert!(after.iter().filter(|r| r.problem.tokens() <= 128).count() == CASES);
}

#[cfg(unix)]
#[test]
fn ctrl_c_stops_cleanly() {
    let folder = Folder::new();
    let child = started(&folder, "a long one.toml", "it's here");
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    let (out, e) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(130), "{out}{e}");
    let again = r"go on with: crossover run 'a long one.toml' --out 'it'\''s here' --resume";
    assert!(e.contains(again), "{e}");
    assert!(out.contains("index.html") && folder.path("it's here/index.html").exists(), "{out}");
    // Part of a sweep comes to nothing.
    assert!(!out.contains("rossover between") && !out.contains("overtakes"), "{out}");
    assert!(folder.records("it's here").len() >= 3);
}

#[test]
fn bad_input_is_refused_with_the_way_out() {
    let folder = Folder::new();
    let good_group = "T = 64\nHV = 2\n";
    let sweep =
        |fields: &str| format!("name = 'x'\n[[group]]\nop = 'gated_delta_rule'\n{fields}\n");
    let with = |extra: &str| sweep(&format!("{good_group}{extra}"));
    let table: &[(String, &[&str])] = &[
        (with("lenght = 3"), &["bad.toml:6:1", "unknown key `lenght`", "variable"]),
        (sweep("T = 'long'\nHV = 2"), &["bad.toml:4:5", "`T`", "string"]),
        (
            with("kernels = 'gated_delta_rule/prefil.sm80'"),
            &["bad.toml:6", "prefil.sm80", "prefill.sm80"],
        ),
        (with("dtype = 'fp8'"), &["bad.toml:6", "fp8", "bf16"]),
        (sweep("T = 0\nHV = 2"), &["bad.toml:4:5", "T = 0", "1 to"]),
        (with("K = 96"), &["bad.toml:6:5", "K", "96", "[64, 128]"]),
        (sweep("T = []\nHV = 2"), &["bad.toml:4:5", "`T`", "empty"]),
        (with("skip = [{ when = 'T >= 1', why = 'never mind' }]"), &["bad.toml", "never mind"]),
    ];
    for (content, words) in table {
        fs::write(folder.path("bad.toml"), content).unwrap();
        refused(&folder.run(&["run", "bad.toml", "--device", "emulator"]), words);
        assert!(!folder.path("out").exists(), "nothing is written");
        if !content.contains("skip") {
            refused(&folder.run(&["plan", "bad.toml"]), words);
        }
    }
    refused(&folder.run(&["run", "missing.toml"]), &["missing.toml", "quickstart"]);

    let e = ["run", "tiny.toml", "--device"];
    let device = |name: &str| folder.run(&[&e[..], &[name]].concat());
    refused(&device("cuda:99"), &["cuda"]);
    refused(&device("tpu"), &["tpu", "emulator"]);
    refused(&device("emulator:h300"), &["h300", "h200"]);

    fs::write(folder.path("file"), "").unwrap();
    let blocked = folder.run(&["run", "tiny.toml", "--out", "file/below"]);
    refused(&blocked, &["file/below"]);
    refused(&folder.run(&["run", "tiny.toml", "--shard", "3/3"]), &["3 of 3", "from 0"]);
    refused(&folder.run(&["run", "tiny.toml", "--time", "0"]), &["--time"]);
    refused(&folder.run(&["--kernels", "none", "plan", "tiny.toml"]), &["none"]);

    fs::write(folder.path("bad.jsonl"), "{\"schema\": 1, \"id\": 3}\n{}\n").unwrap();
    refused(&folder.run(&["report", "bad.jsonl", "--out", "r"]), &["bad.jsonl:1"]);
    refused(&folder.run(&["report", "none.jsonl", "--out", "r"]), &["none.jsonl"]);
    good(&folder.run(&["run", "tiny.toml", "--shard", "0/6"]));
    let records = "out/tiny/records-0-of-6.jsonl";
    refused(&folder.run(&["report", records, "--out", "file/r"]), &["file/r"]);
}

#[test]
fn sweeps_by_name_run_anywhere() {
    let folder = Folder::new();
    let by_name = good(&folder.run(&["plan", "quickstart"]));
    assert_eq!(by_name, good(&folder.run(&["plan", "sweeps/quickstart.toml"])));
    assert!(by_name.contains("cases to run"), "{by_name}");
    let all = good(&folder.run(&["plan", "prefill-crossover", "--device", "emulator:h200"]));
    assert!(all.contains("many minutes on the emulator"), "{all}");
    assert!(!Path::new("out").join("quickstart").join("x").exists());
}
