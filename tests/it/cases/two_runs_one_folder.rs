//! Two runs into one folder would record every case twice, and on a GPU disturb each other's times:
//! the second is refused while the first lives, and only as long.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crossover::record::read;

use crate::common::{PROGRAM, data};

fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(args).current_dir(folder).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Starts a run of the sweep, and waits for its first records.
fn started(folder: &Path, args: &[&str], file: &str) -> Child {
    let child = command(folder, args).spawn().unwrap();
    let start = Instant::now();
    while fs::read(folder.join(file)).map_or(0, |text| text.len()) == 0 {
        assert!(start.elapsed() < Duration::from_secs(120), "no records");
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

fn refused(output: &Output, words: &[&str]) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(words.iter().all(|w| said.contains(w)), "{said}\nwants {words:?}");
}

#[test]
fn the_second_is_refused_while_the_first_lives() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::copy(data("cases/two_runs_one_folder/sweep.toml"), folder.join("sweep.toml")).unwrap();
    let run = ["run", "sweep.toml", "--out", "two"];
    let mut first = started(folder, &run, "two/records.jsonl");
    let process = format!("process {}", first.id());
    let words = ["two: ", &process, "run sweep.toml", "--out DIR"];
    for more in [&[][..], &["--resume"], &["--rerun", "all"], &["--shard", "0/2"]] {
        let output = command(folder, &[&run[..], more].concat()).output().unwrap();
        refused(&output, &words);
    }
    assert!(first.try_wait().unwrap().is_none(), "the first has ended too soon");
    first.kill().unwrap();
    first.wait().unwrap();

    // Its lock is gone with it: what it left means nothing, and another goes on.
    let before = read(&[folder.join("two")]).unwrap().records;
    assert!(folder.join("two/.crossover.lock").exists());
    let shard = [&run[..], &["--resume", "--shard", "0/39"]].concat();
    let output = command(folder, &shard).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let after = read(&[folder.join("two")]).unwrap();
    assert_eq!(after.superseded, 0);
    assert!(before.iter().all(|r| after.records.contains(r)));
    assert!(!folder.join("two/.crossover.lock").exists(), "the last one takes the lock away");
}

#[test]
fn shards_share_a_folder_at_the_same_time() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::copy(data("cases/two_runs_one_folder/sweep.toml"), folder.join("sweep.toml")).unwrap();
    let run = |shard| ["run", "sweep.toml", "--out", "two", "--shard", shard];
    let mut first = started(folder, &run("0/2"), "two/records-0-of-2.jsonl");
    let process = format!("process {}", first.id());
    refused(&command(folder, &run("0/2")).output().unwrap(), &[&process]);
    refused(&command(folder, &run("0/2")[..4]).output().unwrap(), &[&process]);
    let mut second = started(folder, &run("1/2"), "two/records-1-of-2.jsonl");
    assert!(first.try_wait().unwrap().is_none(), "the first has ended too soon");
    for child in [&mut first, &mut second] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert_eq!(read(&[folder.join("two")]).unwrap().superseded, 0);
}
