//! A command that writes where it reads loses what its user captured: refused, under whatever name,
//! before any work.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::common::{PROGRAM, data};

const KERNEL: &str = "attention/prefill.sm80";

struct Folder(tempfile::TempDir);

impl Folder {
    /// With the captured tensors as `c.safetensors`.
    fn new() -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        let captured = data("cases/out_over_input/captured.safetensors");
        fs::copy(captured, folder.path("c.safetensors")).unwrap();
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, args: &[&str]) -> Output {
        Command::new(PROGRAM).args(args).current_dir(self.0.path()).output().unwrap()
    }

    /// Exit code 2, a message with all `words`, and every file as it was.
    fn refused(&self, args: &[&str], words: &[&str]) {
        let before = contents(self.0.path());
        let output = self.run(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(words.iter().all(|w| said.contains(w)), "{args:?}: {said}\nwants {words:?}");
        assert!(!said.contains("panicked") && !said.contains(".crossover-"), "{said}");
        assert_eq!(contents(self.0.path()), before, "{args:?}");
    }
}

/// Every file below, by path; links to folders are not followed.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let path = entry.path();
        match path.is_dir() {
            true if entry.file_type().unwrap().is_symlink() => {}
            true => all.extend(contents(&path)),
            false => all.push((path.clone(), fs::read(&path).unwrap())),
        }
    }
    all.sort();
    all
}

fn exec<'a>(inputs: &'a str, out: &'a str) -> Vec<&'a str> {
    vec!["exec", KERNEL, "--device", "emulator", "--inputs", inputs, "--out", out]
}

#[test]
fn exec_over_its_inputs() {
    let folder = Folder::new();
    let words = ["--out", "is the file that --inputs reads"];
    fs::create_dir(folder.path("sub")).unwrap();
    fs::hard_link(folder.path("c.safetensors"), folder.path("hard.safetensors")).unwrap();
    let absolute = folder.path("c.safetensors").display().to_string();
    let mut names = vec!["c.safetensors", "./c.safetensors", "sub/../c.safetensors", &absolute];
    names.push("hard.safetensors");
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("c.safetensors", folder.path("soft.safetensors")).unwrap();
        std::os::unix::fs::symlink(".", folder.path("here")).unwrap();
        names.extend(["soft.safetensors", "here/c.safetensors"]);
    }
    for out in &names {
        folder.refused(&exec("c.safetensors", out), &words);
        folder.refused(&exec(out, "c.safetensors"), &words);
    }
    // Another file is none of them, also one that is replaced.
    for _ in 0..2 {
        let output = folder.run(&exec("c.safetensors", "o.safetensors"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_ne!(fs::read(folder.path("o.safetensors")).unwrap().len(), 0);
    let captured = fs::read(data("cases/out_over_input/captured.safetensors")).unwrap();
    assert_eq!(fs::read(folder.path("c.safetensors")).unwrap(), captured);
}

#[test]
fn exec_over_what_else_it_reads() {
    let folder = Folder::new();
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let kernels = folder.path("kernels/attention");
    fs::create_dir_all(&kernels).unwrap();
    for name in ["prefill.sm80.ptx", "prefill.sm80.toml"] {
        fs::copy(repository.join("kernels/attention").join(name), kernels.join(name)).unwrap();
    }
    let template = "kernels/attention/prefill.sm80.ptx";
    let with = |args: Vec<&'static str>| [vec!["--kernels", "kernels"], args].concat();
    folder.refused(&with(exec("c.safetensors", template)), &["--out", "--kernels"]);
    let profile = |html| vec!["profile", KERNEL, "-p", "T=16,D=64", "--summary", "--html", html];
    folder.refused(&with(profile(template)), &["--html", "--kernels"]);
    fs::write(
        folder.path("a.toml"),
        "name = 'a'\n[[group]]\nop = 'attention'\nT = 16\nHq = 1\nD = 64\ncausal = true\n",
    )
    .unwrap();
    let run = vec!["run", "a.toml", "--device", "emulator", "--out", "kernels/new"];
    folder.refused(&with(run), &["--out", "--kernels", "manifest"]);

    fs::copy(repository.join("devices/h200.toml"), folder.path("mine.toml")).unwrap();
    let mut args = exec("c.safetensors", "mine.toml");
    args[3] = "emulator:mine.toml";
    folder.refused(&args, &["--out", "is the file that --device reads"]);
    let mut args = profile("mine.toml");
    args.extend(["--device", "emulator:mine.toml"]);
    folder.refused(&args, &["--html", "is the file that --device reads"]);
}

#[test]
fn outputs_are_judged_before_any_work() {
    let folder = Folder::new();
    fs::create_dir(folder.path("sub")).unwrap();
    fs::write(folder.path("file"), "x").unwrap();
    fs::write(folder.path("kept"), "x").unwrap();
    let mut permissions = fs::metadata(folder.path("kept")).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(folder.path("kept"), permissions).unwrap();
    let places = [
        ("none/x", "cannot write there: No such file"),
        ("sub", "is a folder"),
        ("file/x", "cannot write there: Not a directory"),
        ("kept", "is write-protected"),
    ];
    for (place, why) in places {
        folder.refused(&exec("c.safetensors", place), &["--out", place, why]);
        // A billion tokens: nothing of that is begun.
        let profile = ["profile", KERNEL, "-p", "T=100000,D=64", "--html", place];
        folder.refused(&profile, &["--html", place, why]);
        let inputs = ["inputs", "attention", "-p", "T=16", "--out", place];
        folder.refused(&inputs, &["--out", place, why]);
    }
    for place in ["file", "file/x"] {
        folder.refused(&["report", "none.jsonl", "--out", place], &["--out", place, "file"]);
        folder.refused(&["model-check", "none.jsonl", "--out", place], &["--out", place, "file"]);
        folder.refused(
            &["run", "quickstart", "--device", "emulator", "--out", place],
            &["--out", place, "file"],
        );
    }
    fs::write(folder.path("sub/README.md"), "mine").unwrap();
    folder.refused(&["model-check", "none.jsonl", "--out", "sub"], &["README.md is no table"]);
}

#[test]
fn reports_over_their_records() {
    let folder = Folder::new();
    let records = data("cases/records_null_and_nul/null.jsonl");
    fs::create_dir(folder.path("r")).unwrap();
    for name in ["report.md", "index.html", "time.svg"] {
        fs::copy(&records, folder.path("r").join(name)).unwrap();
        let given = format!("r/{name}");
        folder.refused(&["report", &given, "--out", "r"], &["--out r", name, "RECORDS"]);
        folder.refused(&["report", &given, "--out", "./r/../r"], &[name, "RECORDS"]);
        folder.refused(&["report", &given, "--out", &given], &["is a file"]);
        fs::remove_file(folder.path("r").join(name)).unwrap();
    }
    // A link where a page goes is replaced and not written into.
    fs::copy(&records, folder.path("records.jsonl")).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink("../records.jsonl", folder.path("r/other.svg")).unwrap();
    let output = folder.run(&["report", "records.jsonl", "--out", "."]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("records  records.jsonl\n"), "{said}");
    assert_eq!(fs::read(folder.path("records.jsonl")).unwrap(), fs::read(&records).unwrap());
}

#[test]
fn a_run_over_another_sweep() {
    let folder = Folder::new();
    let sweep = |name: &str| {
        format!(
            "name = '{name}'\ndevice = 'emulator'\n[[group]]\nop = 'attention'\n\
             kernels = '*.sm80'\nT = 16\nHq = 1\nD = 64\ncausal = true\n"
        )
    };
    fs::create_dir(folder.path("d")).unwrap();
    fs::write(folder.path("d/sweep.toml"), sweep("theirs")).unwrap();
    fs::write(folder.path("mine.toml"), sweep("mine")).unwrap();
    let words = ["d/sweep.toml", "another file", "--out"];
    folder.refused(&["run", "mine.toml", "--out", "d"], &words);
    // The sweep itself may lie where its run writes.
    let output = folder.run(&["run", "d/sweep.toml", "--out", "d"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::read_to_string(folder.path("d/sweep.toml")).unwrap(), sweep("theirs"));
    folder.refused(&["run", "mine.toml", "--out", "d", "--resume"], &words);
}
