//! `crossover inputs` and `crossover verify`, as a user meets them: inputs out, another program's
//! outputs in.

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use predicates::prelude::*;
use predicates::str::contains;
use safetensors::{Dtype, SafeTensors, serialize, tensor::TensorView};

use crate::common::crossover;

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Files {
        Files(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Writes inputs of `problem`, runs `kernel` on them with `options`.
    fn compute(&self, op: &str, kernel: &str, problem: &str, options: &[&str]) {
        crossover(&["inputs", op, "-p", problem, "--out", &self.text("in")])
            .assert()
            .success()
            .stdout(contains("wrote"));
        crossover(&["exec", kernel, "--inputs", &self.text("in"), "--out", &self.text("out")])
            .args(["--device", "emulator"])
            .args(options)
            .assert()
            .success();
    }

    fn verify(&self, op: &str, options: &[&str]) -> Command {
        let mut command = crossover(&["verify", op, "--inputs", &self.text("in")]);
        command.args(["--outputs", &self.text("out")]).args(options);
        command
    }
}

/// Rewrites a file with only the tensors that `keep` names, after `change` of their bytes.
fn rewrite(path: &Path, keep: &[&str], change: impl Fn(&mut Vec<u8>)) {
    let bytes = std::fs::read(path).expect("a file");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let kept: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = file
        .iter()
        .filter(|(name, _)| keep.contains(name))
        .map(|(name, view)| {
            let mut data = view.data().to_vec();
            change(&mut data);
            (name.to_string(), view.dtype(), view.shape().to_vec(), data)
        })
        .collect();
    let views = kept.iter().map(|(name, dtype, shape, data)| {
        (name.clone(), TensorView::new(*dtype, shape.clone(), data).expect("a tensor"))
    });
    let bytes = serialize(views, None).expect("safetensors");
    std::fs::write(path, bytes).expect("a written file");
}

#[test]
fn right_outputs_pass_and_wrong_ones_fail() {
    let f = Files::new();
    let problem = "T=70,Hq=2,Hkv=1,D=64,causal=true,window=20,softcap=3";
    let options = ["--causal", "--window", "20", "--softcap", "3"];
    let run = crossover(&["inputs", "attention", "-p", problem, "--out", &f.text("in")]).assert();
    run.success().stdout(contains("bf16 B=1 T=70 Hq=2 Hkv=1 D=64 causal window=20 softcap=3"));
    // The reference itself, rounded: what a perfect kernel gives.
    let p = crate::common::problem("attention", problem);
    let inputs = p.inputs(&Default::default(), 1);
    let o = p.reference(&inputs).swap_remove(0);
    let o = crossover::op::Tensor::from_f64(p.dtype(), &[1, 70, 2, 64], o);
    let view = TensorView::new(Dtype::BF16, o.shape.clone(), &o.bytes).expect("a tensor");
    std::fs::write(f.path("out"), serialize([("o", view)], None).expect("bytes")).expect("file");

    f.verify("attention", &options)
        .assert()
        .success()
        .stdout(contains("o: E ").and(contains("not held: lse")));
    // Another mask is another result.
    f.verify("attention", &["--causal"])
        .assert()
        .code(1)
        .stderr(contains("out: wrong: o: E/F").and(contains("panicked").not()));
    // One bit of one element in its exponent.
    rewrite(&f.path("out"), &["o"], |data| data[1001] ^= 0x20);
    f.verify("attention", &options).assert().code(1).stderr(contains("wrong: o"));
}

#[test]
fn verify_speaks_json_and_knows_states() {
    let f = Files::new();
    let problem = "dtype=fp16,T=70,K=64,V=64,HV=2,initial_state=true,final_state=true";
    f.compute("kda", "kda/prefill.sm80", problem, &["--final-state"]);
    let run = f.verify("kda", &["--final-state", "--json", "--all"]).assert().success();
    let text = String::from_utf8(run.get_output().stdout.clone()).expect("text");
    let object: serde_json::Value = serde_json::from_str(&text).expect("an object");
    assert_eq!(object["verification"]["outputs"].as_array().map(Vec::len), Some(2));
    assert_eq!(object["not_held"], serde_json::json!([]));
    // Without the option there is no state to hold; the file may have one.
    f.verify("kda", &[]).assert().success();
}

#[test]
fn bad_usage_is_refused_with_words() {
    let f = Files::new();
    let out = f.text("in");
    let refused = |args: &[&str], words: &str| {
        crossover(args).assert().code(2).stderr(contains(words).and(contains("panicked").not()));
    };
    refused(&["inputs", "softmax", "--out", &out], "no operator `softmax`: expected attention");
    refused(&["inputs", "attention", "-p", "T=0", "--out", &out], "T=0");
    refused(&["inputs", "attention", "--out", "/nowhere/x"], "cannot write there");
    assert!(!f.path("in").exists());
    f.compute("attention", "attention/prefill.sm80", "T=16,D=64", &[]);
    let verify = ["verify", "attention", "--inputs", &out, "--outputs"];
    fn join<'a>(a: &[&'a str], b: &[&'a str]) -> Vec<&'a str> {
        [a, b].concat()
    }
    refused(&join(&verify, &["/nowhere/x"]), "/nowhere/x: ");
    refused(&join(&verify, &[&out]), "none of the outputs o, lse: the file has");
    refused(
        &join(&verify, &[&f.text("out"), "--window", "8"]),
        "--window: a sliding window needs causal",
    );
    refused(&join(&verify, &[&f.text("out"), "--causal", "--window", "0"]), "--window 0");
    refused(&join(&verify, &[&f.text("out"), "--softcap=-1"]), "softcap");
    rewrite(&f.path("out"), &["lse"], |_| {});
    crossover(&join(&verify, &[&f.text("out")])).assert().success().stdout(contains("not held: o"));
}
