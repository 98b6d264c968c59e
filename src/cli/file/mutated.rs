//! Files of tensors, damaged in a thousand ways: read or refused by name, never a panic.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rand::Rng;
use rand_pcg::Pcg64Mcg;

use super::*;
use crate::mutate;
use crate::op::Family;

const FILES: u64 = 1000;

/// A problem of every operator, packed lengths too, with the bytes of its inputs and outputs.
fn samples() -> Vec<(Problem, [Vec<u8>; 2])> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    let mut problems: Vec<Problem> = Op::all()
        .map(|op| Problem::plain(op, op.phases()[0].name, DType::Bf16, (64, 64), 6))
        .collect();
    let packed = problems.iter().find(|p| p.op().with_role(Role::Lengths).is_some());
    problems.extend(packed.map(|p| p.pack(vec![[2, 2], [4, 4]])));
    let file = |problem: &Problem, flow: Flow, tensors: &[Tensor]| {
        write(&path, problem, flow, tensors, &[("by", "a test".to_string())]).unwrap();
        std::fs::read(&path).unwrap()
    };
    let sample = |problem: Problem| {
        let inputs = problem.inputs(&Family::default(), 1);
        let values = problem.reference(&inputs);
        let specs = problem.tensors_of(Flow::Output);
        let outputs: Vec<_> = specs
            .iter()
            .zip(values)
            .map(|(s, x)| Tensor::from_f64(s.dtype.storage(), &s.shape, x))
            .collect();
        let files = [file(&problem, Flow::Input, &inputs), file(&problem, Flow::Output, &outputs)];
        (problem, files)
    };
    problems.into_iter().map(sample).collect()
}

/// Damages the header, under a length that fits it or does not.
fn header(rng: &mut Pcg64Mcg, bytes: &mut Vec<u8>) -> &'static str {
    let length = bytes.first_chunk().map_or(0, |n| u64::from_le_bytes(*n) as usize);
    let Some(end) = length.checked_add(8).filter(|end| *end <= bytes.len()) else {
        return mutate::bytes(rng, bytes);
    };
    let mut header = bytes[8..end].to_vec();
    let way = match rng.random_range(0..6) {
        0 | 1 => mutate::number(rng, &mut header),
        2 | 3 => mutate::word(rng, &mut header),
        4 => mutate::bytes(rng, &mut header),
        _ => "another length",
    };
    let mut claimed = header.len() as u64;
    if way == "another length" || rng.random_range(0..8) == 0 {
        claimed = [0, 1, claimed - 1, claimed + 1, claimed + 8, 1 << 27, 1 << 63, u64::MAX]
            [rng.random_range(0..8)];
    }
    bytes.splice(..end, claimed.to_le_bytes().into_iter().chain(header));
    way
}

/// Reads both kinds of files; the error of the first, if it is one.
fn judge(problem: &Problem, bytes: &[u8], outputs: bool) -> Result<bool, String> {
    let path = Path::new("damaged.safetensors");
    let options = Options::default();
    let phases: Vec<_> = problem.op().phases().iter().map(|p| p.name).collect();
    let read = match outputs {
        true => parse_outputs(path, bytes, problem).map(drop),
        false => parse(path, bytes, problem.op(), &phases, &options).and_then(|found| {
            let specs = found.problem.tensors_of(Flow::Input);
            match specs.iter().zip(&found.inputs).all(|(s, t)| s.shape == t.shape) {
                true => Ok(()),
                false => Err("damaged.safetensors: tensors that do not fit the problem".into()),
            }
        }),
    };
    match read {
        Ok(()) => Ok(true),
        Err(e)
            if e.starts_with("damaged.safetensors: ")
                && e.len() > 25
                && !e.contains("do not fit the problem") =>
        {
            Ok(false)
        }
        Err(e) => Err(e),
    }
}

#[test]
fn a_thousand_damaged_files() {
    let samples = samples();
    let (mut read, mut wrong) = (0, Vec::new());
    for seed in 0..FILES {
        let rng = &mut mutate::seeded(seed);
        let (problem, files) = &samples[rng.random_range(0..samples.len())];
        let outputs = rng.random_range(0..4) == 0;
        let mut bytes = files[usize::from(outputs)].clone();
        let ways: Vec<_> = (0..rng.random_range(1..=2))
            .map(|_| match rng.random_range(0..4) {
                0 => mutate::bytes(rng, &mut bytes),
                _ => header(rng, &mut bytes),
            })
            .collect();
        match catch_unwind(AssertUnwindSafe(|| judge(problem, &bytes, outputs))) {
            Ok(Ok(was_read)) => read += u64::from(was_read),
            Ok(Err(why)) => wrong.push(format!("{seed} {problem} {ways:?}: {why}")),
            Err(_) => wrong.push(format!("{seed} {problem} {ways:?}: panicked")),
        }
    }
    assert!(wrong.is_empty(), "{} of {FILES}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(read > FILES / 50 && read < FILES * 9 / 10, "{read} of {FILES} were read");
}

#[test]
fn undamaged_files_are_read() {
    for (problem, [inputs, outputs]) in samples() {
        for (bytes, of_outputs) in [(&inputs, false), (&outputs, true)] {
            assert_eq!(judge(&problem, bytes, of_outputs), Ok(true), "{problem}");
        }
    }
}
