//! What commands say where nobody can read it: a full disk is a failure, a closed pipe is none.

#![cfg(unix)]

use std::fs::OpenOptions;
use std::process::{Command, Output, Stdio};

use crate::common::{PROGRAM, data};

fn full() -> Stdio {
    OpenOptions::new().write(true).open("/dev/full").unwrap().into()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn command(folder: &tempfile::TempDir, args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(args).current_dir(folder.path()).stdin(Stdio::null());
    command
}

const SWEEP: &str = "
name = 'small'
device = 'emulator'
[[group]]
op = 'attention'
kernels = '*.sm80'
T = 16
Hq = 1
D = 64
causal = true
";

/// Commands that print, on files that [`folder`] has.
fn printing() -> Vec<Vec<&'static str>> {
    let check = ["check", "attention/prefill.sm80", "--device", "emulator"];
    let one = [&check[..], &["--problem", "T=16,D=64", "--tile", TILE]].concat();
    vec![
        vec!["--help"],
        vec!["run", "--help"],
        vec!["--version"],
        vec!["plan", "small.toml"],
        vec!["plan", "small.toml", "--json"],
        vec!["kernels"],
        vec!["kernels", "attention/prefill.sm80", "--render"],
        vec!["devices"],
        vec!["devices", "--json"],
        [&check[..], &["--list"]].concat(),
        one.clone(),
        [&one[..], &["--json"]].concat(),
        vec!["inputs", "attention", "-p", "T=16,D=64", "--out", "new.safetensors"],
        vec![
            "exec",
            "attention/prefill.sm80",
            "--device",
            "emulator",
            "--inputs",
            "c.safetensors",
            "--out",
            "o.safetensors",
        ],
        vec!["verify", "attention", "--inputs", "c.safetensors", "--outputs", "o.safetensors"],
        vec!["profile", "attention/prefill.sm80", "-p", "T=16,D=64", "--summary"],
        vec!["report", "null.jsonl", "--out", "page"],
        vec!["run", "small.toml", "--rerun", "all"],
    ]
}

const TILE: &str = "BM=64,BN=32,WARPS=4,STAGES=2,QREG=0";

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("small.toml"), SWEEP).unwrap();
    let copy = |from: &str, to: &str| {
        std::fs::copy(data("cases").join(from), folder.path().join(to)).unwrap();
    };
    copy("out_over_input/captured.safetensors", "c.safetensors");
    copy("records_null_and_nul/null.jsonl", "null.jsonl");
    folder
}

#[test]
fn every_command_says_that_standard_output_is_full() {
    let folder = folder();
    for args in printing() {
        let output = command(&folder, &args).stdout(full()).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(
            said.contains("cannot write to standard output: No space left"),
            "{args:?}: {said}"
        );
        assert!(!said.contains("panicked"), "{args:?}: {said}");
    }
    // The work was done all the same.
    for name in ["new.safetensors", "o.safetensors", "page/index.html", "out/small/index.html"] {
        assert!(folder.path().join(name).exists(), "{name}");
    }
}

#[test]
fn no_command_minds_a_closed_pipe_or_a_full_standard_error() {
    let folder = folder();
    for args in printing() {
        let mut child =
            command(&folder, &args).stdout(Stdio::piped()).stderr(full()).spawn().unwrap();
        drop(child.stdout.take());
        assert_eq!(child.wait().unwrap().code(), Some(0), "{args:?}");
    }
    let bad = |args: &[&str]| -> Output { command(&folder, args).stderr(full()).output().unwrap() };
    assert_eq!(bad(&["plan", "none.toml"]).status.code(), Some(2));
    assert_eq!(bad(&["plan"]).status.code(), Some(2));
}

#[test]
fn a_negative_number_is_a_value() {
    let folder = folder();
    for (args, option) in [
        (&["run", "small.toml", "--seed", "-1"][..], "--seed"),
        (&["run", "small.toml", "--time", "-1"], "--time"),
        (&["check", "--seed", "-1"], "--seed"),
        (&["profile", "attention/prefill.sm80", "--hottest", "-1"], "--hottest"),
        (
            &[
                "verify",
                "attention",
                "--softcap",
                "-1",
                "--inputs",
                "c.safetensors",
                "--outputs",
                "x",
            ],
            "softcap",
        ),
    ] {
        let output = command(&folder, args).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains("-1") && said.contains(option), "{args:?}: {said}");
        assert!(!said.contains("-- -1"), "{args:?}: {said}");
    }
    let help = text(&command(&folder, &["--help"]).output().unwrap().stdout);
    assert!(help.contains("Exit codes: 0 done"), "{help}");
}
