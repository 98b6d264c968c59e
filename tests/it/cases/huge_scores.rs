//! Scores of billions, and soft caps and scales far from 1: right to a bound, and refused beyond it.

use std::path::PathBuf;

use assert_cmd::Command;
use crossover::device::Device;
use crossover::op::{DType, Family, PhaseName, Problem, Tensor};
use crossover::verify::{Reference, Subset};
use predicates::str::contains;

use crate::common::{crossover, data, emulator, kernel, op};

const KERNELS: [&str; 2] = ["attention/prefill.sm80", "attention/prefill.sm90a"];

fn file(name: &str) -> PathBuf {
    data("cases/huge_scores").join(name)
}

fn exec(kernel: &str, file: PathBuf, more: &[&str]) -> (Command, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = crossover(&["exec", kernel, "--device", "emulator", "--verify", "--inputs"]);
    command.arg(file).arg("--out").arg(folder.path().join("o.safetensors")).args(more);
    (command, folder)
}

#[test]
fn scores_beyond_the_bound_are_refused() {
    for kernel in KERNELS {
        let (mut command, folder) = exec(kernel, file("score-7e9.safetensors"), &[]);
        let refused = command.assert().code(2).stdout("");
        refused
            .stderr(contains("score-7e9.safetensors"))
            .stderr(contains("scores must stay within 2^31 ln 2 = 1488522235"))
            .stderr(contains("score_bound = 7.177e9"));
        assert!(!folder.path().join("o.safetensors").exists());
        // The same with a scale that brings them into the bound.
        exec(kernel, file("score-7e9.safetensors"), &["--scale", "0.02"]).0.assert().success();
    }
}

#[test]
fn a_soft_cap_that_changes_nothing_changes_nothing() {
    let kernel = "attention/prefill.sm90a";
    for cap in ["3e8", "1e10", "1e30"] {
        let options = ["--causal", "--softcap", cap];
        exec(kernel, file("plain.safetensors"), &options).0.assert().success();
    }
    for (options, why) in [
        (["--softcap", "1e31"], "from 1e-30 to 1e30"),
        (["--softcap", "1e-31"], "from 1e-30 to 1e30"),
        (["--scale", "1e38"], "the scale must be from 1e-37 to 1e37"),
        (["--scale", "1e-38"], "the scale must be from 1e-37 to 1e37"),
        (["--scale", "0"], "the scale must be from 1e-37 to 1e37"),
        (["--scale", "3e8"], "scores must stay within"),
    ] {
        let (mut command, _folder) = exec(kernel, file("plain.safetensors"), &options);
        command.assert().code(2).stderr(contains(why));
    }
    exec(kernel, file("plain.safetensors"), &["--scale", "1e-37", "--causal"]).0.assert().success();
}

/// Equal keys of scores up to the bound, and keys whose scores differ by as little as fp32 tells, in
/// blocks with and without the largest.
#[test]
fn scores_up_to_the_bound_are_right() {
    let text = "Tq=4,Tkv=300,Hq=1,Hkv=1,D=64,causal=false,scale=1";
    let plain = Problem::parse(op("attention"), PhaseName::Prefill, text).unwrap();
    for (dtype, scores) in [
        (DType::Bf16, [1e6f64, 2e7, 3e8, 9.9e8, 1.2e9, 1.37e9, 1.48e9].as_slice()),
        (DType::Fp16, &[1e6, 2e7, 5.1e7, 7.7e7, 9.2e7]),
    ] {
        let problem = plain.with_dtype(dtype);
        for (score, sign, step) in scores
            .iter()
            .flat_map(|s| [(s, 1.0, 0.0), (s, -1.0, 0.0), (s, 1.0, 1.0), (s, -1.0, 1.0)])
        {
            // A score is a sum of digits of 8 bits, each times 2^15, and of 22 bits in all: both formats
            // have the digits, and fp32 every sum of them.
            let unit = 2f64.powi(15);
            let least = 2f64.powi((score * 1.5).log2() as i32 - 22);
            let keys = (0..300).flat_map(|j| {
                let near = f64::from(if j < 150 { j % 7 } else { -(j % 7) });
                let mut rest = ((sign * score / least).round() + step * near) * least / unit;
                let digits = (0..64).map(move |_| {
                    if rest == 0.0 {
                        return 0.0;
                    }
                    let bit = 2f64.powi(rest.abs().log2().floor() as i32 - 7);
                    let digit = (rest / bit).trunc() * bit;
                    rest -= digit;
                    digit
                });
                digits.collect::<Vec<_>>()
            });
            let mut inputs = problem.inputs(&Family::default(), 5);
            inputs[0] = Tensor::from_f64(dtype, &[1, 4, 1, 64], vec![unit; 256]);
            inputs[1] = Tensor::from_f64(dtype, &[1, 300, 1, 64], keys);
            let family = problem.op().family_of(&problem, &inputs, &Family::default());
            assert_ne!(family, Family::default());
            let reference = Reference::new(&problem, &inputs, Subset::whole(&problem));
            for name in KERNELS {
                let (kernel, emulator) = (kernel(name), emulator());
                let job = kernel.job(&problem, &kernel.default_tile(&problem).unwrap()).unwrap();
                let mut loaded = emulator.load(&job, &inputs).unwrap_or_else(|e| panic!("{e}"));
                let out = loaded.run().unwrap_or_else(|e| panic!("{e}")).outputs;
                let v = reference.hold(&family, &out).verification;
                assert!(v.passed, "{name} {dtype} {score} {sign} {step}: {v:?}");
            }
        }
    }
}

/// Drawn inputs with a scale that takes their scores out: refused by name, not found wrong.
#[test]
fn check_says_what_is_out_of_range() {
    let tile = "WG=2,BN=128,STAGES=2,PINGPONG=1,CTAS=1,CLUSTER=1,QREGS=0";
    let check = |problem: &str| {
        let mut command = crossover(&["check", "attention/prefill.sm90a", "--device", "emulator"]);
        command.args(["--tile", tile, "--problem", problem]);
        command
    };
    let refused = check("D=128,T=64,causal=true,scale=1e9").assert().code(1);
    refused.stdout(contains("scores must stay within"));
    check("D=128,T=64,causal=true,scale=1e5").assert().success();
}
