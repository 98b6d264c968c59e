//! `crossover check` as a user meets it: failures in groups, stops, processes.

use std::path::Path;
use std::process::{Command as Process, Stdio};
use std::time::{Duration, Instant};

use predicates::prelude::*;
use predicates::str::contains;
use serde_json::Value;

use crate::common::{PROGRAM, crossover};
use crate::manifests::mine;

/// The documented kernel, whose mask lets one key too many through.
fn wrong_mask() -> tempfile::TempDir {
    mine(|ptx| ptx.replace("add.s32  n, n, 1;", "add.s32  n, n, 2;"))
}

fn check(folder: &Path, args: &[&str]) -> assert_cmd::Command {
    let mut command = crossover(&["check", "attention/prefill.mine", "--device", "emulator"]);
    command.arg("--kernels").arg(folder).args(args);
    command
}

const SOME: [&str; 2] = ["--filter", "dtype=bf16 D=64 B=2"];

#[test]
fn failures_are_told_in_groups() {
    let folder = wrong_mask();
    let failed = check(folder.path(), &SOME).assert().code(1);
    failed
        .stdout(contains("cases FAILED alike: accuracy: o: E/F ="))
        .stdout(contains("all have causal=true"))
        .stdout(contains("slow: "))
        .stderr(contains("by a guess"));
    let json = check(folder.path(), &SOME).arg("--json").assert().code(1);
    let text = String::from_utf8_lossy(&json.get_output().stdout).into_owned();
    let all: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    let (groups, cases): (Vec<&Value>, Vec<&Value>) =
        all.iter().partition(|v| v.get("group").is_some());
    let failed = cases.iter().filter(|c| c["status"] == "failed").count();
    let passed = cases.iter().filter(|c| c["status"] == "passed").count();
    assert!(failed > 3 && passed > 3, "{failed} failed, {passed} passed");
    let count = |name: &str| groups.iter().filter_map(|g| g["group"][name].as_u64()).sum::<u64>();
    assert_eq!(count("cases"), failed as u64);
    let first = &groups[0]["group"];
    assert_eq!(first["in_common"][0], "causal=true");
    assert_eq!(first["passed"], passed);
    assert!(first["repeat"].as_str().is_some_and(|r| r.starts_with("crossover --kernels ")));
}

#[test]
fn a_fault_of_the_build_is_told_once() {
    let folder = mine(|ptx| ptx.replace("max.f32  top, m, s;", "max.f32  topp, m, s;"));
    let failed = check(folder.path(), &SOME).assert().code(1);
    let text = String::from_utf8_lossy(&failed.get_output().stdout).into_owned();
    // The first in full, then the group.
    assert_eq!(text.matches("FAILED attention").count(), 1, "{text}");
    assert_eq!(text.matches("topp").count(), 3, "{text}");
    assert!(text.contains("cases FAILED alike: build: "), "{text}");
}

#[test]
fn fail_fast_stops_at_the_first() {
    let folder = wrong_mask();
    check(folder.path(), &SOME)
        .args(["--fail-fast", "--jobs", "1"])
        .assert()
        .code(1)
        .stdout(contains("FAILED attention/prefill.mine").count(1))
        .stdout(contains("not run"))
        .stderr(contains("1 failed").and(contains("not run")));
}

/// Cases in processes end as those in threads do.
#[test]
fn processes_and_threads_agree() {
    let folder = wrong_mask();
    let objects = |more: &[&str]| {
        let args = [&SOME[..], &["--json", "--jobs", "2"], more].concat();
        let ended = check(folder.path(), &args).assert().code(1);
        let text = String::from_utf8_lossy(&ended.get_output().stdout).into_owned();
        let mut all: Vec<Value> =
            text.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
        all.retain(|v| v.get("group").is_none());
        for object in &mut all {
            object["seconds"] = Value::Null;
        }
        let mut all: Vec<String> = all.iter().map(Value::to_string).collect();
        all.sort();
        all
    };
    let (threads, processes) = (objects(&[]), objects(&["--processes"]));
    assert!(threads.len() > 6);
    assert_eq!(threads, processes);
}

/// The first Ctrl-C ends a check with what it has found, whatever still runs.
#[cfg(unix)]
#[test]
fn ctrl_c_ends_with_a_summary() {
    for more in [&["--jobs", "2"][..], &["--jobs", "2", "--processes"]] {
        let folder = wrong_mask();
        let mut child = Process::new(PROGRAM)
            .args(["check", "attention/prefill.mine", "--device", "emulator", "--kernels"])
            .arg(folder.path())
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program");
        // The first failure says that it is on its way.
        let mut said = std::io::BufReader::new(child.stdout.take().expect("an output"));
        let mut line = String::new();
        std::io::BufRead::read_line(&mut said, &mut line).expect("a line");
        let asked = Instant::now();
        let kill = Process::new("kill").args(["-INT", &child.id().to_string()]).status();
        assert!(kill.expect("kill").success());
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut said, &mut rest).expect("text");
        let ended = child.wait_with_output().expect("an end");
        let errors = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(130), "{line}{rest}{errors}");
        assert!(asked.elapsed() < Duration::from_secs(30));
        assert!(errors.contains("error: stopped: ") && errors.contains(" not run in "), "{errors}");
        assert!(rest.contains("attention/prefill.mine  ") && rest.contains("not run"), "{rest}");
    }
}
