//! `crossover exec` and the other commands around single kernels, as a user meets them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use crossover::op::{DType, Family, Flow, PhaseName, Problem, Tensor};
use predicates::prelude::*;
use predicates::str::contains;
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};

use crate::common::{crossover, data, op, problem};

const ATTENTION: &str = "attention/prefill.sm80";
const DELTA: &str = "gated_delta_rule/prefill.sm80";

fn stored(dtype: DType) -> Dtype {
    match dtype {
        DType::Bf16 => Dtype::BF16,
        DType::Fp16 => Dtype::F16,
        DType::Tf32 | DType::Fp32 => Dtype::F32,
        DType::I32 => Dtype::I32,
        other => panic!("no problem has tensors of {other}"),
    }
}

/// A folder with the inputs of a problem in `in.safetensors`, changed before they are written.
struct Fixture {
    folder: tempfile::TempDir,
    problem: Problem,
    inputs: Vec<Tensor>,
}

impl Fixture {
    fn new(problem: Problem, change: impl FnOnce(&mut Vec<(String, Tensor)>)) -> Fixture {
        let inputs = problem.inputs(&Family::default(), 9);
        let specs = problem.tensors_of(Flow::Input);
        let mut named: Vec<(String, Tensor)> =
            specs.iter().zip(&inputs).map(|(s, t)| (s.name.to_string(), t.clone())).collect();
        change(&mut named);
        let views = named.iter().map(|(name, t)| {
            let view = TensorView::new(stored(t.dtype), t.shape.clone(), &t.bytes);
            (name.clone(), view.expect("a tensor"))
        });
        let bytes = serialize(views, None).expect("a safetensors file");
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("in.safetensors"), bytes).expect("a written file");
        Fixture { folder, problem, inputs }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn exec(&self, kernel: &str, more: &[&str]) -> Command {
        let mut command = crossover(&["exec", kernel, "--inputs"]);
        command
            .arg(self.path("in.safetensors"))
            .arg("--out")
            .arg(self.path("out.safetensors"))
            .args(more);
        if !more.contains(&"--device") {
            command.args(["--device", "emulator"]);
        }
        command
    }

    /// Fails as bad input does, with all of `words` on stderr, and writes nothing.
    fn refused(&self, kernel: &str, more: &[&str], words: &[&str]) {
        let mut failed = self.exec(kernel, more).assert().code(2).stdout("");
        for word in words {
            failed = failed.stderr(contains(*word));
        }
        failed.stderr(contains("panicked").not());
        assert!(!self.path("out.safetensors").exists());
    }
}

fn attention() -> Problem {
    problem("attention", "T=70,Hq=2,Hkv=1,D=64,causal=true")
}

fn delta() -> Problem {
    let settings = "dtype=fp16,T=70,HV=2,H=1,K=64,V=64,initial_state=true";
    problem("gated_delta_rule", settings)
}

/// The named tensors of a file, in fp64, with their shapes, and the file's metadata.
type File = (HashMap<String, (Vec<usize>, Vec<f64>)>, HashMap<String, String>);

fn read(path: &Path) -> File {
    let bytes = std::fs::read(path).expect("the outputs");
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let (_, metadata) = SafeTensors::read_metadata(&bytes).expect("metadata");
    let tensors = file
        .iter()
        .map(|(name, view)| {
            let dtype = match view.dtype() {
                Dtype::BF16 => DType::Bf16,
                Dtype::F16 => DType::Fp16,
                _ => DType::Fp32,
            };
            let n = view.shape().iter().product();
            let x = (0..n).map(|i| dtype.get(view.data(), i)).collect();
            (name.to_string(), (view.shape().to_vec(), x))
        })
        .collect();
    (tensors, metadata.metadata().clone().expect("metadata"))
}

/// Every output of the problem is in the file and near the reference.
fn near(fixture: &Fixture) {
    let (tensors, metadata) = read(&fixture.path("out.safetensors"));
    assert_eq!(metadata["ptx_sha256"].len(), 64);
    assert!(metadata["device"].starts_with("emulator:"));
    let specs = fixture.problem.tensors_of(Flow::Output).into_iter();
    let reference = fixture.problem.reference(&fixture.inputs);
    assert_eq!(tensors.len(), reference.len());
    for (spec, want) in specs.zip(reference) {
        let (shape, got) = &tensors[spec.name];
        assert_eq!(*shape, spec.shape);
        let error: f64 = got.iter().zip(&want).map(|(g, w)| (g - w).powi(2)).sum();
        let norm: f64 = want.iter().map(|w| w * w).sum();
        assert!((error / norm).sqrt() < 0.01, "{}: {}", spec.name, (error / norm).sqrt());
    }
}

#[test]
fn attention_on_a_file() {
    let f = Fixture::new(attention(), |_| {});
    let run = f.exec(ATTENTION, &["--causal", "--verify"]).assert().success();
    run.stdout(contains("o: E ").and(contains("lse: E ")).and(contains("modelled")));
    near(&f);
}

#[test]
fn a_delta_rule_on_a_file_with_facts_as_json() {
    // fp32 inputs may come narrower: here beta, in values that bf16 has.
    let f = Fixture::new(delta(), |t| {
        let beta = t.iter_mut().find(|(name, _)| name == "beta").expect("beta");
        let half = vec![0.5; beta.1.len()];
        beta.1 = Tensor::from_f64(DType::Bf16, &beta.1.shape.clone(), half);
        t.push(("note".into(), Tensor::from_f64(DType::Fp32, &[1], [1.0])));
    });
    let run = f
        .exec(DELTA, &["--final-state", "--verify", "--json"])
        .assert()
        .success()
        .stderr(contains("no input note: ignored"));
    let stdout = String::from_utf8(run.get_output().stdout.clone()).expect("text");
    let object: serde_json::Value = serde_json::from_str(&stdout).expect("one JSON object");
    assert_eq!(object["kernel"], DELTA);
    assert_eq!(object["outputs"]["final_state"]["shape"], serde_json::json!([1, 2, 64, 64]));
    assert_eq!(object["verification"]["passed"], true);
    assert!(object["counts"]["global_read_sectors"].as_u64().expect("a count") > 0);
    assert!(object["modelled"]["ns"].as_f64().expect("a time") > 0.0);
    let (tensors, _) = read(&f.path("out.safetensors"));
    assert_eq!(tensors["final_state"].0, [1, 2, 64, 64]);
}

#[test]
fn mismatches_name_file_tensor_got_and_expected() {
    let named = |t: &[(String, Tensor)], name: &str| {
        t.iter().position(|(n, _)| n == name).expect("a tensor")
    };
    let f = Fixture::new(attention(), |t| t.retain(|(name, _)| name != "k"));
    f.refused(ATTENTION, &[], &["in.safetensors: no tensor `k`: the file has q, v"]);

    let f = Fixture::new(attention(), |t| t[0].1.shape = vec![70, 2, 64]);
    f.refused(
        ATTENTION,
        &[],
        &["in.safetensors: q: got shape [70, 2, 64], expected [B, Tq, Hq, D]"],
    );

    let f = Fixture::new(attention(), |t| {
        t[2].1 = Tensor::from_f64(DType::Fp16, &t[2].1.shape, t[2].1.to_f64())
    });
    f.refused(ATTENTION, &[], &["in.safetensors: v: got F16, expected BF16 as q"]);

    let f = Fixture::new(attention(), |t| t[2].1.shape = vec![1, 35, 2, 64]);
    f.refused(ATTENTION, &[], &["v: got shape [1, 35, 2, 64], expected [1, 70, 1, 64]"]);

    let f = Fixture::new(delta(), |t| {
        let g = named(t, "g");
        t[g].1.shape = vec![1, 140];
    });
    f.refused(DELTA, &[], &["g: got shape [1, 140], expected [1, 70, 2] ([B, T, HV]"]);

    // Three query heads over two key/value heads.
    let f = Fixture::new(problem("attention", "T=70,Hq=4,Hkv=2,D=64,causal=true"), |t| {
        t[0].1 = Tensor::from_f64(DType::Bf16, &[1, 70, 3, 64], vec![0.0; 70 * 3 * 64]);
    });
    f.refused(ATTENTION, &[], &["k: query heads must be a multiple", "3 is no multiple of 2"]);

    let f = Fixture::new(problem("attention", "T=10,D=80"), |_| {});
    f.refused(ATTENTION, &[], &["in.safetensors", "D of [64, 128", "not 80"]);

    let f = Fixture::new(problem("gated_delta_rule", "dtype=tf32,T=10,K=64,V=64"), |_| {});
    f.refused(DELTA, &[], &["in.safetensors", "no dtype tf32: it has bf16, fp16"]);

    let f = Fixture::new(attention(), |_| {});
    f.refused(ATTENTION, &["--final-state"], &["--final-state: attention has no final_state"]);
    f.refused(ATTENTION, &["--tile", "BM=7"], &["tile axis"]);
    f.refused(ATTENTION, &["--tile", "BM"], &["write AXIS=INTEGER"]);
    f.refused("attention/prefill.sm1", &[], &["unknown kernel `attention/prefill.sm1`", ATTENTION]);
    f.refused(ATTENTION, &["--device", "tpu"], &["tpu", "emulator"]);
    let f = Fixture::new(delta(), |_| {});
    f.refused(DELTA, &["--causal"], &["--causal: gated_delta_rule has no causal"]);
}

#[test]
fn unreadable_and_unwritable_files() {
    let f = Fixture::new(attention(), |_| {});
    std::fs::write(f.path("in.safetensors"), b"not a tensor file").expect("a written file");
    f.refused(ATTENTION, &[], &["in.safetensors: no safetensors file"]);
    std::fs::remove_file(f.path("in.safetensors")).expect("a removed file");
    f.refused(ATTENTION, &[], &["in.safetensors: ", "No such file"]);

    let f = Fixture::new(attention(), |_| {});
    let mut command = crossover(&["exec", ATTENTION, "--device", "emulator", "--inputs"]);
    command.arg(f.path("in.safetensors")).arg("--out").arg(f.path("missing/out.safetensors"));
    command.assert().code(2).stderr(contains("--out").and(contains("cannot write there")));
}

#[test]
fn values_that_make_no_sense_are_warned_about() {
    let f = Fixture::new(delta(), |t| {
        let mut g = t[3].1.to_f64();
        g[0] = 0.25;
        t[3].1 = Tensor::from_f64(DType::Fp32, &t[3].1.shape.clone(), g);
        let mut v = t[2].1.to_f64();
        v[0] = f64::NAN;
        t[2].1 = Tensor::from_f64(DType::Fp16, &t[2].1.shape.clone(), v);
    });
    f.exec(DELTA, &[])
        .assert()
        .success()
        .stderr(contains("v: 1 values are NaN").and(contains("g: values above 0 are no decay")));
}

#[test]
fn devices_says_plainly_what_there_is() {
    let listed = crossover(&["devices"]).assert().success();
    listed.stdout(contains("emulator:h200").and(contains("never measured")));
    let run = crossover(&["devices", "--json"]).assert().success();
    let text = String::from_utf8(run.get_output().stdout.clone()).expect("text");
    let all: Vec<serde_json::Value> =
        text.lines().map(|l| serde_json::from_str(l).expect("an object a line")).collect();
    assert!(all.iter().any(|d| d["id"] == "emulator:h100" && d["emulated"] == true));
}

#[test]
fn check_runs_one_problem() {
    let run = crossover(&["check", ATTENTION, "--device", "emulator", "--json"])
        .args(["--problem", "Tq=33,Tkv=70,D=64,causal=true", "--family", "logits=huge"])
        .assert()
        .success();
    let text = String::from_utf8(run.get_output().stdout.clone()).expect("text");
    assert!(text.lines().count() >= 4, "every legal tile");
    for line in text.lines() {
        let object: serde_json::Value = serde_json::from_str(line).expect("an object a line");
        assert_eq!(object["status"], "passed");
        assert_eq!(object["family"], "logits=huge");
        assert!(object["repeat"].as_str().expect("a command").starts_with("crossover check "));
    }
}

#[test]
fn check_fails_on_a_broken_kernel_and_says_how_to_see_it() {
    let mut command = crossover(&["--kernels"]);
    command.arg(data("broken")).args(["check", "attention/*", "--device", "emulator"]);
    command.args(["--tile", "FAULT=6", "--problem", "D=64,Tq=70,Tkv=70"]);
    let failed = command.assert().code(1);
    failed
        .stdout(
            contains("FAILED attention/prefill.broken FAULT=6")
                .and(contains("first bad o[B=0 Tq=0 Hq=0 Dv=0] got"))
                .and(contains("elements bad"))
                .and(contains("repeat: crossover --kernels"))
                .and(contains("--tile FAULT=6 --problem dtype=bf16,")),
        )
        .stderr(contains("0 passed, 1 failed, 0 skipped"));
}

#[test]
fn check_refuses_bad_usage() {
    let refused = |args: &[&str], words: &str| {
        crossover(&["check"]).args(args).assert().code(2).stderr(contains(words));
    };
    let on = ["--device", "emulator"];
    refused(&["nothing/*", on[0], on[1]], "no kernel matches `nothing/*`");
    refused(&[ATTENTION, "--filter", "dtype=fp8"], "no case of");
    refused(&[ATTENTION, "--problem", "T=0"], "T=0: expected an integer from 1 to 1073741824");
    refused(&[ATTENTION, "--problem", "Hq=3,Hkv=2"], "must be a multiple");
    refused(&[ATTENTION, "--problem", "K=3"], "no variable `K`");
    refused(&[ATTENTION, "--family", "random"], "--problem");
    refused(&[ATTENTION, "--device", "emulator:pocket", "--problem", "D=64"], "pocket");
    // Without a driver a GPU is an error, never a pass.
    if crossover::device::cuda::CudaDevice::count().is_err() {
        refused(&[ATTENTION, "--device", "cuda:0"], "driver");
    }
}

/// What would take the machine down, wait for ever or replace a device is refused.
#[test]
fn hostile_arguments_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let inputs = |problem: &str, out: &str, words: &str| {
        crossover(&["inputs", "attention", "-p", problem, "--out", out])
            .current_dir(folder.path())
            .assert()
            .code(2)
            .stderr(contains(words));
    };
    let huge = "B=1000000,Tq=1000000,Tkv=1000000";
    inputs(huge, "x.safetensors", "the tensors take 1.0e15 bytes, more than any machine has");
    inputs("B=100000,T=100000", "x.safetensors", "this machine has less memory");
    let all = "B=1073741824,T=1073741824,Hq=1073741824,Hkv=1073741824";
    inputs(all, "x.safetensors", "more than any machine has");
    inputs("T=1073741825", "x.safetensors", "expected an integer from 1 to 1073741824");
    inputs("Hq=3,Hkv=2", "x.safetensors", "Hq");
    inputs("scale=inf", "x.safetensors", "scale = inf: expected a finite number");
    inputs("T=16", "/dev/null", "is a device or pipe; name a file");
    crossover(&["inputs", "attention", "-p", "T=16", "--out", "x.safetensors"])
        .current_dir(folder.path())
        .assert()
        .success();
    crossover(&["exec", ATTENTION, "--device", "emulator", "--causal", "--window"])
        .args(["18446744073709551615", "--inputs", "x.safetensors", "--out", "y.safetensors"])
        .current_dir(folder.path())
        .assert()
        .code(2)
        .stderr(contains(
            "--window 18446744073709551615: expected an integer from 1 to 1073741824",
        ));
    crossover(&["check", "*.sm80", "--device", "emulator", "--problem", huge])
        .assert()
        .code(2)
        .stderr(contains("bytes"));

    let kernels = folder.path().join("attention");
    std::fs::create_dir(&kernels).expect("a folder");
    let link = kernels.join("prefill.sm80.ptx");
    std::os::unix::fs::symlink("/dev/zero", &link).expect("a link");
    crossover(&["--kernels", folder.path().to_str().expect("text"), "kernels"])
        .assert()
        .code(2)
        .stderr(contains("prefill.sm80.ptx: is no regular file"));
}

/// On an H200 the Hopper kernel, where it can do the problem; elsewhere the portable one.
#[test]
fn a_name_without_target_is_the_best_for_device_and_problem() {
    const ANY: &str = "attention/prefill";
    let f = Fixture::new(attention(), |_| {});
    for (device, picked) in [
        ("emulator:h200", "attention/prefill.sm90a"),
        ("emulator:laptop", "attention/prefill.sm80"),
    ] {
        let note = format!("note: {ANY} is {picked} here ({device}, ");
        f.exec(ANY, &["--causal", "--verify", "--device", device])
            .assert()
            .success()
            .stderr(contains(note))
            .stdout(contains(format!("{picked} ")));
        near(&f);
        assert_eq!(read(&f.path("out.safetensors")).1["kernel"], picked);
        std::fs::remove_file(f.path("out.safetensors")).expect("outputs");
    }
    // No kernel that a laptop runs has a window: each says why.
    f.refused(
        ANY,
        &["--causal", "--window", "20", "--device", "emulator:laptop"],
        &[
            "in.safetensors",
            "no kernel of attention/prefill does",
            "on emulator:laptop",
            "attention/prefill.sm80: plain attention alone",
            "attention/prefill.sm90a needs sm_90a",
        ],
    );
    f.refused(
        "attention/training",
        &[],
        &["unknown kernel `attention/training`", "without its target"],
    );

    let kernels = |problem: &str, device: &str, more: &str| {
        let args = ["kernels", ANY, "--problem", problem, "--device", device, more];
        let run = crossover(&args).assert().success();
        String::from_utf8(run.get_output().stdout.clone()).expect("text")
    };
    assert!(kernels("D=64", "emulator", "--render").contains(".target sm_90a"));
    assert!(kernels("D=64,dtype=tf32", "emulator", "--render").contains(".target sm_80"));
    assert!(kernels("D=64", "emulator:laptop", "--render").contains(".target sm_80"));
    // Far more units of work than multiprocessors: the grid is that of the device.
    let job = kernels("D=64,B=64,Hq=4,Hkv=4,T=384", "emulator:h100", "--job");
    assert!(job.contains("\"grid\":[132,1,1]"), "{job}");
    crossover(&["profile", ANY, "-p", "T=64,D=64,softcap=20", "--summary"])
        .assert()
        .success()
        .stderr(contains("is attention/prefill.sm90a here"));
    crossover(&["check", ANY, "--list"])
        .assert()
        .success()
        .stdout(contains("attention/prefill.sm80 BM").and(contains("attention/prefill.sm90a WG")))
        .stdout(contains(" sms=3 ").and(contains(" sms=5 ")));
}

#[test]
fn a_check_that_does_not_end_says_what_it_was_allowed() {
    const TILE: &str = "BM=64,BN=32,WARPS=4,STAGES=2,QREG=0";
    let of = ["check", ATTENTION, "--device", "emulator", "--problem", "T=256,D=64"];
    crossover(&of).args(["--tile", TILE]).assert().success();
    crossover(&of)
        .args(["--tile", TILE, "--steps", "100"])
        .assert()
        .code(1)
        .stdout(contains("the limit is 100").and(contains("5 million")).and(contains("--steps N")))
        .stdout(contains("--family 'random' --steps 100"));
}

/// What is said of a file must not contradict its tensors, and says where it does.
#[test]
fn options_do_not_contradict_the_tensors() {
    let f = Fixture::new(attention(), |_| {});
    for (given, words) in [
        ("T=5", "T = 70, not 5 as given"),
        ("Hq=4", "q: Hq = 2, not 4 as given"),
        ("dtype=fp16", "the tensors say the precision"),
        ("phase=training", "attention has prefill, decode, verify"),
        ("tau=3", "attention has no variable `tau`"),
    ] {
        f.refused(ATTENTION, &["-p", given], &[words]);
    }
    f.refused(ATTENTION, &["--window", "20"], &["--window: a sliding window needs causal = true"]);
    f.refused(ATTENTION, &["--softcap=-1"], &["softcap = -1: expected a number above 0"]);
    // The same said twice is no contradiction, and -p says what the options say.
    f.exec(ATTENTION, &["-p", "T=70,Hq=2,causal=true", "--verify"]).assert().success();
    near(&f);
    let f = Fixture::new(delta(), |_| {});
    f.refused(DELTA, &["-p", "initial_state=false"], &["initial_state = true, not false as given"]);
    f.refused(
        "lightning/decode.sm80",
        &["--state", "fp64"],
        &["--state fp64: expected fp32, bf16, fp16"],
    );
}

/// A kernel of several phases takes the one whose number of new tokens the file has; states come in
/// the format that is said.
#[test]
fn steps_of_decode_and_verify_on_a_file() {
    const KERNEL: &str = "lightning/decode.sm80";
    let of = |settings: &str| {
        let p = format!("H=2,K=64,V=64,{settings}");
        Problem::parse(op("lightning"), PhaseName::Decode, &p).expect("a problem")
    };
    for (settings, more) in [
        ("context=9", vec!["--final-state"]),
        ("phase=verify,T=5", vec!["-p", "final_state=true"]),
        ("state=bf16", vec!["--final-state", "--state", "bf16"]),
    ] {
        let f = Fixture::new(of(settings), |_| {});
        f.exec(KERNEL, &[&more[..], &["--verify"]].concat()).assert().success();
        near(&f);
    }
    let f = Fixture::new(of("state=bf16"), |t| {
        let state = t.iter_mut().find(|(name, _)| name == "initial_state").expect("a state");
        state.1 = Tensor::from_f64(DType::Fp32, &state.1.shape.clone(), state.1.to_f64());
    });
    f.refused(
        KERNEL,
        &["--state", "bf16"],
        &["initial_state: got F32, expected BF16 as state = bf16"],
    );
    let f = Fixture::new(of("phase=verify,T=16"), |t| {
        for name in ["q", "k", "v"] {
            let tensor = &mut t.iter_mut().find(|(n, _)| n == name).expect("a tensor").1;
            *tensor = Tensor::from_f64(DType::Bf16, &[1, 17, 2, 64], vec![0.0; 17 * 2 * 64]);
        }
    });
    f.refused(KERNEL, &[], &["q: T = 17: decode takes 1"]);
}
