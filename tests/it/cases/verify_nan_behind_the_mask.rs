//! Causal attention whose last value is NaN: the rows before it do not see it, so they are finite, and
//! an answer that has just that is right.

use assert_cmd::Command;
use crossover::device::{Device, Outcome};
use crossover::op::{DType, Family, PhaseName, Problem, Tensor};
use crossover::verify::{Reference, Subset};
use predicates::prelude::*;
use predicates::str::contains;

use crate::common::{crossover, data, emulator, kernel, op};

fn file(name: &str) -> std::path::PathBuf {
    data("cases/verify_nan_behind_the_mask").join(name)
}

fn verify(more: &[&str]) -> Command {
    let mut command = crossover(&["verify", "attention", "--inputs"]);
    command.arg(file("in.safetensors")).arg("--outputs").arg(file("out.safetensors")).args(more);
    command
}

#[test]
fn the_right_answer_is_right() {
    let right = verify(&["--causal"]).assert().success();
    right
        .stdout(contains("o: E").and(contains(" 0 non-finite")))
        .stderr(contains("values are NaN"));
    // Without the mask every row sees the NaN.
    verify(&[]).assert().code(1).stderr(contains("wanted NaN"));
}

fn run(kernel_name: &str, problem: &Problem, inputs: &[Tensor]) -> Outcome {
    let (kernel, emulator) = (kernel(kernel_name), emulator());
    let tile = kernel.default_tile(problem).expect("a default tile");
    let job = kernel.job(problem, &tile).expect("a job");
    let mut loaded = emulator.load(&job, inputs).unwrap_or_else(|e| panic!("{e}"));
    loaded.run().unwrap_or_else(|e| panic!("{e}"))
}

fn poison(tensor: &mut Tensor, i: usize, x: f64) {
    let mut bytes = Vec::new();
    tensor.dtype.push(x, &mut bytes);
    tensor.bytes[i * bytes.len()..(i + 1) * bytes.len()].copy_from_slice(&bytes);
}

/// Where q or a key that every row sees is not finite, kernels and reference agree to the kind; a key
/// that no row sees may be anything.
#[test]
fn kernels_agree_with_the_reference_on_what_is_not_finite() {
    const NAN: f64 = f64::NAN;
    const INF: f64 = f64::INFINITY;
    for (kernel, dtype) in [
        ("attention/prefill.sm80", DType::Bf16),
        ("attention/prefill.sm80", DType::Tf32),
        ("attention/prefill.sm90a", DType::Bf16),
        ("attention/prefill.sm90a", DType::Fp16),
    ] {
        let settings = "Tq=20,Tkv=70,Hq=2,Hkv=1,D=64,causal=true";
        let plain = Problem::parse(op("attention"), PhaseName::Prefill, settings).unwrap();
        let plain = plain.with_dtype(dtype);
        let clean = plain.inputs(&Family::default(), 5);
        // The tensor, the token, what stands there: in q of one row, in k and v of a key.
        for (tensor, token, x) in [
            (0, 3, NAN),
            (0, 19, NAN),
            (1, 5, NAN),
            (1, 5, INF),
            (1, 5, -INF),
            (2, 5, NAN),
            (2, 5, INF),
            (1, 69, NAN),
            (1, 69, -INF),
        ] {
            let mut inputs = clean.clone();
            let row = inputs[tensor].shape[2] * inputs[tensor].shape[3];
            poison(&mut inputs[tensor], token * row + 7, x);
            let out = run(kernel, &plain, &inputs).outputs;
            let reference = Reference::new(&plain, &inputs, Subset::whole(&plain));
            let v = reference.hold(&Family::default(), &out).verification;
            assert!(v.passed, "{kernel} {dtype} tensor {tensor} token {token} {x}: {v:?}");
        }
    }
}

/// A slope or a gate that is NaN makes NaN, and is no decay.
#[test]
fn no_kernel_takes_nan_for_a_decay() {
    for (name, settings, tensor) in [
        ("lightning/prefill.sm80", "T=70,H=2,K=64,V=64,final_state=true", 3),
        ("lightning/decode.sm80", "phase=decode,H=2,K=64,V=64,context=9,final_state=true", 3),
        ("gated_delta_rule/prefill.sm80", "T=70,HV=2,K=64,V=64,final_state=true", 3),
        ("kda/prefill.sm80", "T=70,HV=2,K=64,V=64,final_state=true", 3),
    ] {
        let (operator, _) = name.split_once('/').expect("an operator");
        let problem = Problem::parse(op(operator), PhaseName::Prefill, settings).unwrap();
        let mut inputs = problem.inputs(&Family::default(), 5);
        poison(&mut inputs[tensor], 0, f64::NAN);
        let out = run(name, &problem, &inputs).outputs;
        let want = problem.reference(&inputs);
        for (got, want) in out.iter().zip(&want) {
            let kinds = (0..got.len()).filter(|&i| got.get(i).is_nan() != want[i].is_nan()).count();
            assert_eq!(kinds, 0, "{name}");
        }
        assert!(want[0].iter().any(|x| x.is_nan()) && want[0].iter().any(|x| x.is_finite()));
    }
}
