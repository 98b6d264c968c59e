//! Resumed runs: what would not be the same now is named, and measured again only if asked to.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crossover::record::{Record, Status, read};

use crate::common::PROGRAM;

const SWEEP: &str = "
name = 'small'
question = 'Does it go on?'
device = 'emulator'
[axes]
T = [16, 20]
dtype = 'bf16'
causal = true
heads = { Hq = 1, Hkv = 1, H = 1, HV = 1 }
[[group]]
op = ['attention', 'gated_delta_rule']
kernels = '*.sm80'
";
const FILE: &str = "out/small/records.jsonl";

/// A folder with a sweep, two kernels and the records of a run.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        folder.write("small.toml", SWEEP);
        ["attention", "gated_delta_rule"].iter().for_each(|op| folder.copy_kernels(op));
        good(&folder.run(&[]));
        assert_eq!(folder.records().len(), 4);
        folder
    }

    /// The kernels of an operator, with the parts that their templates include.
    fn copy_kernels(&self, op: &str) {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels").join(op);
        let to = self.path("kernels").join(op);
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Changes the text of a file.
    fn edit(&self, name: &str, edit: impl Fn(String) -> String) {
        let old = fs::read_to_string(self.path(name)).unwrap();
        let new = edit(old.clone());
        assert_ne!(old, new, "{name}");
        self.write(name, new);
    }

    fn run_by(&self, program: &Path, more: &[&str]) -> Output {
        let mut command = Command::new(program);
        command.args(["--kernels", "kernels", "run", "small.toml"]).args(more);
        command.current_dir(self.0.path());
        loop {
            match command.output() {
                // A process that another test starts has the file open for a moment.
                Err(e) if e.kind() == ErrorKind::ExecutableFileBusy => {}
                output => return output.unwrap(),
            }
        }
    }

    fn run(&self, more: &[&str]) -> Output {
        self.run_by(Path::new(PROGRAM), more)
    }

    fn records(&self) -> Vec<Record> {
        read(&[self.path(FILE)]).unwrap().records
    }

    fn lines(&self) -> usize {
        fs::read_to_string(self.path(FILE)).unwrap().lines().count()
    }

    /// Exit code 2, all of `words`, and nothing written.
    fn refused(&self, output: impl FnOnce() -> Output, words: &[&str]) {
        let state = || {
            let mut names: Vec<_> =
                fs::read_dir(self.path("out/small")).unwrap().map(|e| e.unwrap().path()).collect();
            names.sort();
            names.into_iter().map(|p| (fs::read(&p).unwrap(), p)).collect::<Vec<_>>()
        };
        let before = state();
        let output = output();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}{}", text(&output.stdout));
        assert!(words.iter().all(|w| said.contains(w)), "{said}\nwants {words:?}");
        assert!(before == state(), "something was written");
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Succeeds, and gives all that was said.
fn good(output: &Output) -> String {
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "{said}");
    said
}

fn says(output: &Output, words: &[&str]) {
    let said = good(output);
    assert!(words.iter().all(|w| said.contains(w)), "{said}\nwants {words:?}");
}

#[test]
fn a_changed_kernel_is_named_and_measured_again_if_asked_to() {
    let folder = Folder::new();
    let old = folder.records();
    says(&folder.run(&["--resume"]), &["0 cases", "4 done before"]);
    folder.edit("kernels/attention/prefill.sm80.ptx", |t| t + "// edited\n");
    let named = "2 records are of another PTX of attention/prefill.sm80";
    let ways = ["2 of 4 records", named, "--rerun changed runs 2 cases", "--rerun none"];
    folder.refused(|| folder.run(&["--resume"]), &ways);

    says(&folder.run(&["--rerun", "none"]), &["note: ", named, "0 cases", "4 done before"]);
    assert_eq!(folder.records(), old);
    says(&folder.run(&["--resume", "--rerun", "changed"]), &[named, "2 cases", "2 done before"]);
    let new = folder.records();
    assert_eq!((new.len(), folder.lines()), (4, 6), "appended");
    for (old, new) in old.iter().zip(&new) {
        let edited = new.kernel.name.starts_with("attention");
        assert_eq!(old.kernel.ptx_sha256 != new.kernel.ptx_sha256, edited);
        assert_eq!(old == new, !edited);
    }
    says(&folder.run(&["--resume"]), &["0 cases", "2 records are replaced by newer ones"]);
    says(&folder.run(&["--rerun", "all"]), &["4 cases"]);
    assert_eq!((folder.records().len(), folder.lines()), (4, 10));
}

#[test]
fn a_changed_manifest_is_another_kernel_too() {
    let folder = Folder::new();
    folder.edit("kernels/gated_delta_rule/prefill.sm80.toml", |t| {
        t.replacen("shared = \"", "shared = \"16 + ", 1)
    });
    let named = "2 records are of other launches of gated_delta_rule/prefill.sm80";
    folder.refused(|| folder.run(&["--resume"]), &[named]);
    says(&folder.run(&["--rerun", "kernels"]), &[named, "2 cases"]);
    says(&folder.run(&["--resume"]), &["0 cases"]);
}

#[test]
fn what_is_no_change_is_none() {
    let folder = Folder::new();
    let old = folder.records();
    // Prose, comments and order of a sweep; a kernel that it does not run; a comment of a manifest.
    folder.edit("small.toml", |t| {
        t.replace("Does it go on?", "Why?").replace("[16, 20]", "[20, 16]") + "# a word\n"
    });
    folder.edit("kernels/attention/prefill.sm80.toml", |t| t + "# a word\n");
    folder.copy_kernels("kda");
    says(&folder.run(&["--resume"]), &["0 cases", "4 done before"]);
    assert_eq!(folder.records(), old);
    let copy = fs::read_to_string(folder.path("out/small/sweep.toml")).unwrap();
    assert!(copy.contains("Why?") && copy.contains("# a word"));
}

#[test]
fn a_changed_sweep_runs_its_new_cases_and_names_the_others() {
    let folder = Folder::new();
    folder.edit("small.toml", |t| t.replace("[16, 20]", "[16, 24]"));
    says(
        &folder.run(&["--resume"]),
        &["2 records are of cases that the sweep no longer has", "2 cases", "2 done before"],
    );
    assert_eq!(folder.records().len(), 6);

    // A case that is left out now was measured, and the other way round.
    let skip = "[[skip]]\nwhen = 'T == 16'\nwhy = 'too short'\n";
    folder.edit("small.toml", |t| t + skip);
    let named = "2 records are of cases that the plan leaves out now";
    folder.refused(|| folder.run(&["--resume"]), &[named]);
    says(&folder.run(&["--rerun", "changed"]), &[named, "0 cases", "2 skipped"]);
    folder.edit("small.toml", |t| t.replace(skip, ""));
    let named = "2 records are of cases that the plan left out and has now";
    folder.refused(|| folder.run(&["--resume"]), &[named]);
    says(&folder.run(&["--rerun", "changed"]), &[named, "2 cases"]);

    folder.refused(
        || folder.run(&["--resume", "--sample-ctas", "all"]),
        &["4 records are of --sample-ctas auto, not all"],
    );
}

#[test]
fn another_build_is_named() {
    let folder = Folder::new();
    // What stands behind a program's end is read by nobody, and makes another file.
    let other = folder.path("crossover");
    fs::copy(PROGRAM, &other).unwrap();
    let bytes = fs::read(&other).unwrap();
    fs::write(&other, [&bytes[..], b"another"].concat()).unwrap();
    let named = "4 records are of another build of crossover: 0.1.0, binary ";
    folder.refused(|| folder.run_by(&other, &["--resume"]), &[named, "4 of 4 records"]);
    says(&folder.run_by(&other, &["--rerun", "kernels"]), &[named, "0 cases"]);
    // With a kernel edited as well, `kernels` is those alone.
    folder.edit("kernels/attention/prefill.sm80.ptx", |t| t + "// edited\n");
    folder.refused(
        || folder.run_by(&other, &["--resume"]),
        &["another PTX", named, "--rerun kernels the 2 cases"],
    );
    says(&folder.run_by(&other, &["--rerun", "kernels"]), &["2 cases", "2 done before"]);
    says(&folder.run_by(&other, &["--rerun", "changed"]), &["2 records are of", "2 cases"]);
    says(&folder.run_by(&other, &["--resume"]), &["0 cases"]);
}

#[test]
fn records_of_before_hashes_are_unknown() {
    let folder = Folder::new();
    let old: String = fs::read_to_string(folder.path(FILE))
        .unwrap()
        .lines()
        .map(|line| {
            let mut json: serde_json::Value = serde_json::from_str(line).unwrap();
            for key in ["binary_sha256", "sample_ctas"] {
                assert!(json.as_object_mut().unwrap().remove(key).is_some(), "{key}");
            }
            assert!(json["kernel"].as_object_mut().unwrap().remove("launch_sha256").is_some());
            json.to_string() + "\n"
        })
        .collect();
    folder.write(FILE, old);
    let named = "4 records are of an older build of crossover (0.1.0) that left no hash";
    folder.refused(|| folder.run(&["--resume"]), &[named, "unknown"]);
    says(&folder.run(&["--rerun", "none"]), &[named, "4 done before"]);
    // Another device under the same name.
    folder.edit(FILE, |t| t.replace("\"multiprocessors\":132", "\"multiprocessors\":114"));
    folder.refused(|| folder.run(&["--resume"]), &["4 records are of", "with other facts"]);
}

#[test]
fn records_of_shards_are_known_to_a_run_of_all() {
    let folder = Folder::new();
    fs::rename(folder.path(FILE), folder.path("out/small/records-0-of-1.jsonl")).unwrap();
    folder.refused(|| folder.run(&[]), &["out/small has records of 4 cases already", "--resume"]);
    says(&folder.run(&["--resume"]), &["0 cases", "4 done before"]);
}

/// Damage that no interrupted write leaves ends a resumed run before it writes; what one leaves
/// does not.
#[test]
fn damaged_records_are_not_appended_to() {
    let folder = Folder::new();
    let whole = fs::read_to_string(folder.path(FILE)).unwrap();
    let (first, rest) = whole.split_once('\n').unwrap();
    for (damaged, words) in [
        (format!("{first}\nlog: done\n{rest}"), "records.jsonl:2: not a record"),
        (whole.replacen("\"seed\":0", "\"seed\":null", 1), "records.jsonl:1: not a record"),
        (whole.replacen("\"schema\":1", "\"schema\":9", 1), "schema 9: read it with"),
    ] {
        assert_ne!(damaged, whole);
        folder.write(FILE, damaged);
        folder.refused(|| folder.run(&["--resume"]), &[words]);
    }
    for (left, note, cases) in [
        (whole.replace('\n', "\r\n"), "", "0 cases"),
        (format!("\u{feff}{whole}"), "", "0 cases"),
        (format!("{}\n{rest}", &first[..300]), "records.jsonl:1 was cut short", "1 case"),
        (format!("{}{rest}", &first[..300]), "records.jsonl:1 was cut short", "1 case"),
        (format!("{}\0\0\0\n{rest}", &first[..300]), "records.jsonl:1 has 3 zero bytes", "1 case"),
        (format!("{first}\n{rest}{}", "\0".repeat(9)), "9 zero bytes", "0 cases"),
        (String::new(), "", "4 cases"),
    ] {
        folder.write(FILE, left);
        says(&folder.run(&["--resume"]), &[note, cases]);
        assert_eq!(folder.records().len(), 4, "{note}");
    }
    fs::remove_file(folder.path(FILE)).unwrap();
    fs::create_dir(folder.path(FILE)).unwrap();
    let output = folder.run(&["--resume"]);
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("is a folder"), "{said}");
}

/// Changes the fields of a record of the file, as the run before had left it.
fn set(folder: &Folder, index: usize, fields: &[(&str, serde_json::Value)]) -> String {
    let text = fs::read_to_string(folder.path(FILE)).unwrap();
    let mut lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (name, value) in fields {
        lines[index][name] = value.clone();
    }
    let id = lines[index]["id"].as_str().unwrap().to_owned();
    folder.write(FILE, lines.iter().map(|line| format!("{line}\n")).collect::<String>());
    id
}

/// What ended a run once is tried once more, and then only if asked to.
#[test]
fn a_case_that_fails_twice_is_left_alone() {
    let folder = Folder::new();
    let failed =
        [("status", "timeout".into()), ("reason", "it hung".into()), ("timing", ().into())];
    let id = set(&folder, 1, &failed);
    says(&folder.run(&["--resume"]), &["1 case ", "3 done before"]);
    let newest = |id: &str| folder.records().into_iter().find(|r| r.id == id).unwrap();
    assert_eq!((newest(&id).status, newest(&id).attempt), (Status::Ok, Some(2)));

    // The second attempt fails as well.
    set(&folder, 4, &failed);
    let left = "1 record is of cases that failed twice";
    says(&folder.run(&["--resume"]), &["0 cases", "4 done before", left, "--rerun failed"]);
    assert_eq!(newest(&id).status, Status::Timeout);
    says(&folder.run(&["--rerun", "failed"]), &["1 case ", "3 done before"]);
    assert_eq!((newest(&id).status, newest(&id).attempt), (Status::Ok, Some(3)));
}

#[test]
fn processes_measure_what_threads_do() {
    let folder = Folder::new();
    let threads = folder.records();
    let said = good(&folder.run(&["--processes", "--out", "out/apart"]));
    assert!(said.contains("4 cases"), "{said}");
    let apart = read(&[folder.path("out/apart")]).unwrap().records;
    assert_eq!(apart.len(), 4);
    for own in &threads {
        let mut other = apart.iter().find(|r| r.id == own.id).expect("the same case").clone();
        assert_ne!(other.command, own.command);
        (other.time, other.command) = (own.time.clone(), own.command.clone());
        other.build.clone_from(&own.build);
        assert_eq!(&other, own);
    }
    // Several devices share the work.
    let two = folder.run(&["--device", "emulator,emulator", "--out", "out/two"]);
    says(&two, &["4 cases on 2 times"]);
    let ids = |records: &[Record]| {
        let mut ids: Vec<String> = records.iter().map(|r| r.id.clone()).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&read(&[folder.path("out/two")]).unwrap().records), ids(&threads));
    let refused = folder.run(&["--device", "emulator:h200,emulator:h100", "--out", "out/x"]);
    let said = text(&refused.stderr);
    assert!(refused.status.code() == Some(2) && said.contains("not of one kind"), "{said}");
    let refused = folder.run(&["--repeat-process", "3", "--out", "out/again"]);
    let said = text(&refused.stderr);
    assert!(refused.status.code() == Some(2) && said.contains("modelled"), "{said}");
}

/// However often a run is killed, each case is in its records once.
#[test]
fn a_run_killed_at_random_moments_is_finished_by_resuming() {
    const KILLS: u32 = 100;
    let folder = Folder::new();
    let before = folder.records();
    let (mut kills, mut whole, mut state) = (0, 0, 7u64);
    while kills < KILLS {
        fs::remove_dir_all(folder.path("out")).unwrap();
        loop {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Startup, cases and report of so small a sweep lie within this.
            let pause = Duration::from_millis((state >> 33) % 400);
            let mut command = Command::new(PROGRAM);
            let args = ["--kernels", "kernels", "run", "small.toml", "--resume", "--processes"];
            command.args(args).current_dir(folder.0.path());
            let mut run = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
            std::thread::sleep(pause);
            run.kill().unwrap();
            let output = run.wait_with_output().unwrap();
            if let Some(code) = output.status.code() {
                assert_eq!(code, 0, "{}", text(&output.stderr));
                break;
            }
            kills += 1;
        }
        whole += 1;
        let mut ids: Vec<String> = fs::read_to_string(folder.path(FILE))
            .unwrap()
            .lines()
            .filter_map(|line| serde_json::from_str::<Record>(line).ok())
            .map(|r| {
                assert_eq!(r.status, Status::Ok);
                r.id
            })
            .collect();
        ids.sort();
        let mut wanted: Vec<String> = before.iter().map(|r| r.id.clone()).collect();
        wanted.sort();
        assert_eq!(ids, wanted, "each case once");
        assert!(folder.path("out/small/index.html").exists());
    }
    println!("{kills} kills, {whole} sweeps");
}

/// A disk that is full ends the run with a sentence, and nothing that was written is lost.
#[cfg(unix)]
#[test]
fn a_full_disk_ends_the_run_cleanly() {
    let folder = Folder::new();
    let before = folder.records();
    let size = fs::metadata(folder.path(FILE)).unwrap().len();
    fs::remove_dir_all(folder.path("out")).unwrap();
    // As on a full disk, files end: in the middle of the third record.
    let script = format!(
        "trap '' XFSZ; ulimit -f {}; exec {PROGRAM} --kernels kernels run small.toml",
        size * 5 / 8 / 512
    );
    let mut command = Command::new("sh");
    let output = command.args(["-c", &script]).current_dir(folder.0.path()).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("cannot write to") && said.contains("records.jsonl"), "{said}");
    let left = fs::read_to_string(folder.path(FILE)).unwrap();
    assert!(left.ends_with('\n') && left.lines().count() >= 1, "no torn line: {left:.60}");
    says(&folder.run(&["--resume"]), &["done before"]);
    let mut ids: Vec<String> = folder.records().into_iter().map(|r| r.id).collect();
    let mut wanted: Vec<String> = before.into_iter().map(|r| r.id).collect();
    ids.sort();
    wanted.sort();
    assert_eq!((ids, folder.lines()), (wanted, 4));
}
