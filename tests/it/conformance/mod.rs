//! The emulator against a GPU: small programs, one or more for each form of instruction that the
//! kernels use and for most others of Hopper kernels, whose results on a GPU are kept in
//! `tests/vectors/conformance.safetensors`.
//!
//! The results are made anew on a machine with a GPU of compute capability 9.0 by
//! `cargo test --release conformance::record -- --ignored`, which writes the file that
//! `CROSSOVER_VECTORS` names, or the one in the repository. `CROSSOVER_FAMILY` makes it run one
//! family of programs and keep the file's other results. A program that faults takes the GPU from
//! its process: those after it run in a new one. Inputs come from a seed.

mod atomics;
mod bulk;
mod forms;
mod lanes;
mod operands;
mod products;
mod programs;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use crossover::device::Device;
use crossover::device::open::open;
use programs::Program;
use rayon::prelude::*;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use crate::common::{data, is_alone, process_of, ptxas};

fn path() -> PathBuf {
    match std::env::var_os("CROSSOVER_VECTORS") {
        Some(path) => path.into(),
        None => data("vectors/conformance.safetensors"),
    }
}

/// The output of a program as words.
fn run(device: &dyn Device, program: &Program) -> Result<Vec<u32>, String> {
    let mut loaded = device.load(&program.job, &program.inputs).map_err(|e| e.to_string())?;
    let outcome = loaded.run().map_err(|e| e.to_string())?;
    if !outcome.damage.is_empty() {
        return Err(outcome.damage.join("; "));
    }
    let bytes = outcome.outputs[0].bytes.as_chunks::<4>().0;
    Ok(bytes.iter().map(|b| u32::from_le_bytes(*b)).collect())
}

/// What keeps `got` from being what a GPU gave, if anything.
fn differs(got: &[u32], want: &[u32]) -> Option<String> {
    if got.len() != want.len() {
        return Some(format!("{} words, the GPU gave {}", got.len(), want.len()));
    }
    let bad: Vec<usize> = (0..got.len()).filter(|&i| got[i] != want[i]).collect();
    let &first = bad.first()?;
    Some(format!(
        "{} of {} words differ, the first of them number {first}: got {:08x}, the GPU gave {:08x}",
        bad.len(),
        got.len(),
        got[first],
        want[first]
    ))
}

/// Programs whose results, of fp64, no text fixes, and the units in the last place that the
/// emulator's may be away from a GPU's.
const BOUNDS: &[(&str, u64)] = &[("rsqrt.approx.f64", 1)];

/// What keeps `got` from being within `units` of what a GPU gave, if anything.
fn strays(got: &[u32], want: &[u32], units: u64) -> Option<String> {
    let long = |x: &[u32; 2]| u64::from(x[0]) | u64::from(x[1]) << 32;
    let pairs = got.as_chunks::<2>().0.iter().zip(want.as_chunks::<2>().0);
    let far = |(g, w): &(&[u32; 2], &[u32; 2])| long(g).abs_diff(long(w)) > units;
    let bad: Vec<_> = pairs.filter(far).collect();
    let (g, w) = bad.first()?;
    let (n, g, w) = (bad.len(), long(g), long(w));
    Some(format!("{n} results are far: got {g:016x}, the GPU gave {w:016x}"))
}

#[test]
fn every_form_of_the_kernels_has_a_vector() {
    let file = std::fs::read(path()).unwrap();
    let recorded = SafeTensors::deserialize(&file).unwrap();
    let mut known = BTreeSet::new();
    for p in programs::all() {
        if recorded.tensor(&p.name).is_ok() {
            known.extend(forms::forms(&p.job.ptx.text).into_keys());
        }
    }
    let missing: Vec<String> = forms::of_kernels()
        .into_iter()
        .filter(|(form, _)| !known.contains(form) && !forms::joined_of(form, &known))
        .map(|(form, kernel)| format!("{form} ({kernel})"))
        .collect();
    assert!(
        missing.is_empty(),
        "these forms have no vector; add programs to tests/it/conformance/programs.rs and record them \
         on a GPU:\n  {}",
        missing.join("\n  ")
    );
}

#[test]
fn the_emulator_does_as_a_gpu_did() {
    let file = std::fs::read(path()).unwrap();
    let recorded = SafeTensors::deserialize(&file).unwrap();
    let device = open("emulator").unwrap();
    let programs = programs::all();
    let (mut failures, mut lacking) = (Vec::new(), Vec::new());
    let mut replayed = 0;
    for p in &programs {
        let Ok(tensor) = recorded.tensor(&p.name) else {
            lacking.push(p.name.as_str());
            continue;
        };
        replayed += 1;
        let want: Vec<u32> =
            tensor.data().as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
        match run(&*device, p) {
            Ok(got) => {
                let found = match BOUNDS.iter().find(|(name, _)| *name == p.name) {
                    Some((_, units)) => strays(&got, &want, *units),
                    None => differs(&got, &want),
                };
                failures.extend(found.map(|d| format!("{}: {d}", p.name)));
            }
            Err(e) => failures.push(format!("{}: {e}", p.name)),
        }
    }
    assert!(failures.is_empty(), "{} programs:\n  {}", failures.len(), failures.join("\n  "));
    assert_eq!(replayed, recorded.len(), "the file has results of programs that are gone");
    assert!(lacking.is_empty(), "programs without results, to be recorded on a GPU: {lacking:?}");
}

/// The programs themselves: names differ, and the emulator takes all of them.
#[test]
fn programs_run() {
    let device = open("emulator").unwrap();
    let mut names = BTreeSet::new();
    let mut failures = Vec::new();
    for p in programs::all() {
        assert!(names.insert(p.name.clone()), "two programs are called {}", p.name);
        match run(&*device, &p) {
            Ok(words) if words.iter().all(|w| *w == u32::MAX) => {
                failures.push(format!("{}: writes nothing", p.name));
            }
            Ok(_) => {}
            Err(e) => failures.push(format!("{}: {e}", p.name)),
        }
    }
    assert!(failures.is_empty(), "{} programs:\n  {}", failures.len(), failures.join("\n  "));
}

/// Whatever NVIDIA's assembler refuses is no program.
#[test]
fn an_assembler_takes_them() {
    let Some(ptxas) = ptxas() else { return };
    let folder = tempfile::tempdir().unwrap();
    let all = programs::all();
    let refused: Vec<String> = (0..all.len())
        .into_par_iter()
        .filter_map(|i| {
            let file = |kind: &str| folder.path().join(format!("{i}.{kind}"));
            let (source, code) = (file("ptx"), file("cubin"));
            std::fs::write(&source, &all[i].job.ptx.text).unwrap();
            let done = std::process::Command::new(ptxas)
                .args(["-arch", "sm_90a", "-o"])
                .args([&code, &source])
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&done.stderr).into_owned();
            (!done.status.success()).then(|| format!("{}: {said}", all[i].name))
        })
        .collect();
    assert!(refused.is_empty(), "{} programs:\n  {}", refused.len(), refused.join("\n  "));
}

#[test]
fn differences_are_found() {
    assert_eq!(differs(&[1, 2], &[1, 2]), None);
    assert!(differs(&[1, 2], &[1, 3]).unwrap().contains("number 1"));
    assert!(differs(&[1], &[1, 3]).is_some());
    assert_eq!(strays(&[1, 2, 7, 8], &[2, 2, 6, 8], 1), None);
    assert!(strays(&[1, 2, 7, 8], &[1, 2, 5, 8], 1).unwrap().starts_with("1 result"));
}

/// Writes what a GPU gives. `CROSSOVER_DEVICE` names another device than the first GPU.
#[test]
#[ignore = "needs a GPU of compute capability 9.0; writes the vectors"]
fn record() {
    if !is_alone("conformance::record") {
        return;
    }
    let spec = std::env::var("CROSSOVER_DEVICE").unwrap_or_else(|_| "cuda:0".into());
    let device = open(&spec).unwrap();
    let facts = device.facts().clone();
    let mut outputs: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut failures = Vec::new();
    let family = std::env::var("CROSSOVER_FAMILY").ok();
    let after = std::env::var("CROSSOVER_AFTER").ok();
    let mut programs = Vec::new();
    for (name, list) in programs::families() {
        if family.as_ref().is_none_or(|f| f == name) {
            programs.extend(list);
        }
    }
    assert!(!programs.is_empty(), "there is no family {family:?}");
    if let Some(after) = &after {
        let faulted = programs.iter().position(|p| p.name == *after).expect("a program's name");
        programs.drain(..=faulted);
    }
    if (family.is_some() || after.is_some())
        && let Ok(file) = std::fs::read(path())
    {
        let kept = SafeTensors::deserialize(&file).unwrap();
        let ours = |name: &str| programs.iter().any(|p| p.name == name);
        let others = kept.tensors().into_iter().filter(|(name, _)| !ours(name));
        outputs.extend(others.map(|(name, t)| (name, t.data().to_vec())));
    }
    let mut faulted = None;
    for p in programs {
        match (run(&*device, &p), run(&*device, &p)) {
            (Ok(words), Ok(again)) if words == again => {
                println!("{}: {} words", p.name, words.len());
                outputs.insert(p.name, words.iter().flat_map(|w| w.to_le_bytes()).collect());
            }
            (Ok(_), Ok(_)) => failures.push(format!("{}: not the same twice", p.name)),
            (Err(e), _) | (_, Err(e)) => {
                failures.push(format!("{}: {e}", p.name));
                faulted = Some(p.name);
                break;
            }
        }
    }
    let views = outputs.iter().map(|(name, bytes)| {
        let view = TensorView::new(Dtype::U32, vec![bytes.len() / 4], bytes).unwrap();
        (name.clone(), view)
    });
    let metadata = HashMap::from([
        ("device".to_owned(), facts.name.clone()),
        ("driver".to_owned(), facts.driver.clone()),
    ]);
    safetensors::serialize_to_file(views, Some(metadata), &path()).unwrap();
    println!("{} programs on {} with driver {}", outputs.len(), facts.name, facts.driver);
    if let Some(name) = faulted {
        let rest = process_of("conformance::record").env("CROSSOVER_AFTER", name).status().unwrap();
        if !rest.success() {
            failures.push("and what the process for the rest says".to_owned());
        }
    }
    assert!(
        failures.is_empty(),
        "{} programs failed:\n  {}",
        failures.len(),
        failures.join("\n  ")
    );
}
