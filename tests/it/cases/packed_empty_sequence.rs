//! Packed batches with empty sequences, as those that are padded for CUDA graphs have.

use std::path::PathBuf;

use crossover::op::{Family, Flow, Problem, Tensor};
use crossover::verify::suite;
use crossover::verify::trial::{self, Ending, Subject};
use predicates::str::contains;
use safetensors::tensor::{Dtype, TensorView};

use crate::common::{crossover, data, emulator, kernel, problem};

const KERNEL: &str = "attention/prefill.sm90a";

fn file(name: &str) -> PathBuf {
    data("cases/packed_empty_sequence").join(name)
}

fn exec(inputs: PathBuf, more: &[&str]) -> assert_cmd::assert::Assert {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = crossover(&["exec", KERNEL, "--device", "emulator", "--verify", "--inputs"]);
    command.arg(inputs).arg("--out").arg(folder.path().join("o.safetensors")).args(more);
    command.assert()
}

#[test]
fn the_other_sequences_are_computed() {
    exec(file("in.safetensors"), &["--causal"]).success().stdout(contains("lens=30+0+70"));
    exec(file("no-queries.safetensors"), &["--causal"])
        .success()
        .stdout(contains("lens=30+0:30+70:40"));
    exec(file("in.safetensors"), &["--causal", "--window", "9", "--softcap", "5"]).success();
}

/// Empty of queries, of keys and of both; first, last, several in a row, nearly all of a thousand. The
/// emulator finds races and accesses out of bounds.
#[test]
fn sequences_may_be_empty_anywhere() {
    let (kernel, emulator) = (kernel(KERNEL), emulator());
    for (lens, rest) in [
        ("0+30+0+70:0+0:9+33", "D=64,causal=true"),
        ("0+30+0+70:0+0:9+33", "D=64,causal=false"),
        ("3x0+1+20x0+65:200+2x0", "D=128,causal=true"),
        ("70:0+0:70+5:0+1", "D=64,causal=true,window=20,softcap=5"),
        ("600x0+40+400x0+9:0", "D=64,causal=true"),
    ] {
        let problem = problem("attention", &format!("Hq=2,Hkv=1,{rest},lens={lens}"));
        let tile = kernel.default_tile(&problem).unwrap();
        let case = suite::case(kernel, &tile, problem.clone(), Family::default(), 5);
        let prefix = problem.has_prefix_property();
        let subject = Subject { case, prefix, multiprocessors: Some(3), most_steps: None };
        let trial = trial::run(kernel, &subject, &emulator, None);
        assert_eq!(trial.ending, Ending::Passed, "{lens} {rest}: {:?}", trial.faults);
    }
}

/// The inputs of a problem in a file, with other starts of the sequences.
fn with_starts(p: &Problem, q: &[i32], k: &[i32]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let words = |x: &[i32]| x.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let inputs: Vec<Tensor> = p.inputs(&Family::default(), 5);
    let views = p.tensors_of(Flow::Input).into_iter().zip(&inputs).map(|(spec, t)| {
        let (dtype, shape, bytes) = match spec.name {
            "cu_seqlens_q" => (Dtype::I32, vec![q.len()], words(q)),
            "cu_seqlens_kv" => (Dtype::I32, vec![k.len()], words(k)),
            _ => (Dtype::BF16, t.shape.clone(), t.bytes.clone()),
        };
        (spec.name, dtype, shape, bytes)
    });
    let views: Vec<_> = views.collect();
    let views = views.iter().map(|(name, dtype, shape, bytes)| {
        (*name, TensorView::new(*dtype, shape.clone(), bytes).expect("a tensor"))
    });
    let path = folder.path().join("in.safetensors");
    std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    (folder, path)
}

#[test]
fn what_is_wrong_with_starts_is_named_with_its_place() {
    let p = problem("attention", "D=64,lens=30+70");
    for (q, k, why) in [
        (&[0, 30, 20, 100][..], &[0, 30, 60, 100][..], "cu_seqlens_q: [2] is 20 after 30"),
        (&[1, 30, 100], &[0, 30, 100], "cu_seqlens_q: [0] is 1, expected 0"),
        (&[0, -3, 100], &[0, 30, 100], "cu_seqlens_q: [1] is -3 after 0"),
        (&[0, 30, 100], &[0, 30, 90], "cu_seqlens_kv: ends with 90: expected Tkv = 100"),
        (&[0, 30, 101], &[0, 30, 100], "cu_seqlens_q: ends with 101: expected Tq = 100"),
        (&[0], &[0], "cu_seqlens_q: got shape [1], expected [N+1]"),
        (&[0, 30, 100], &[0, 100], "cu_seqlens_q has 2 sequences, cu_seqlens_kv 1"),
        (&[0, 0, 0], &[0, 0, 100], "no sequence has queries"),
    ] {
        let (_folder, path) = with_starts(&p, q, k);
        exec(path, &[]).code(2).stdout("").stderr(contains(why));
    }
    let (_folder, path) = with_starts(&p, &[0, 0, 100, 100], &[0, 50, 50, 100]);
    exec(path, &["--causal"]).success();
}
