//! The emulator against a GPU: small programs, one or more for each form of instruction that the
//! kernels use, whose results on a GPU are kept in `tests/vectors/conformance.safetensors`.
//!
//! The results are made anew on a machine with a GPU of compute capability 9.0 by
//! `cargo test --release --test conformance -- --ignored record`, which writes the file that
//! `CROSSOVER_VECTORS` names, or the one in the repository. Inputs come from a seed.

#[path = "conformance/forms.rs"]
mod forms;
#[path = "conformance/programs.rs"]
mod programs;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use crossover::device::Device;
use crossover::device::open::open;
use programs::Program;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

fn path() -> PathBuf {
    match std::env::var_os("CROSSOVER_VECTORS") {
        Some(path) => path.into(),
        None => {
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/conformance.safetensors")
        }
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
        "these forms have no vector; add programs to tests/conformance/programs.rs and record them \
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
    let mut failures = Vec::new();
    let mut replayed = 0;
    for p in &programs {
        let Ok(tensor) = recorded.tensor(&p.name) else { continue };
        replayed += 1;
        let want: Vec<u32> =
            tensor.data().as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
        match run(&*device, p) {
            Ok(got) => {
                failures.extend(differs(&got, &want).map(|d| format!("{}: {d}", p.name)));
            }
            Err(e) => failures.push(format!("{}: {e}", p.name)),
        }
    }
    assert!(failures.is_empty(), "{} programs:\n  {}", failures.len(), failures.join("\n  "));
    assert_eq!(replayed, recorded.len(), "the file has results of programs that are gone");
    assert_eq!(replayed, programs.len(), "programs without results: record them on a GPU");
}

/// The programs themselves: names differ, and the emulator takes all of them.
#[test]
fn programs_run() {
    let device = open("emulator").unwrap();
    let mut names = BTreeSet::new();
    for p in programs::all() {
        assert!(names.insert(p.name.clone()), "two programs are called {}", p.name);
        let words = run(&*device, &p).unwrap_or_else(|e| panic!("{}: {e}", p.name));
        assert!(words.iter().any(|w| *w != u32::MAX), "{} writes nothing", p.name);
    }
}

#[test]
fn differences_are_found() {
    assert_eq!(differs(&[1, 2], &[1, 2]), None);
    assert!(differs(&[1, 2], &[1, 3]).unwrap().contains("number 1"));
    assert!(differs(&[1], &[1, 3]).is_some());
}

/// Writes what a GPU gives. `CROSSOVER_DEVICE` names another device than the first GPU.
#[test]
#[ignore = "needs a GPU of compute capability 9.0; writes the vectors"]
fn record() {
    let spec = std::env::var("CROSSOVER_DEVICE").unwrap_or_else(|_| "cuda:0".into());
    let device = open(&spec).unwrap();
    let facts = device.facts().clone();
    let mut outputs: Vec<(String, Vec<u8>)> = Vec::new();
    let mut failures = Vec::new();
    for p in programs::all() {
        match (run(&*device, &p), run(&*device, &p)) {
            (Ok(words), Ok(again)) if words == again => {
                println!("{}: {} words", p.name, words.len());
                outputs.push((p.name, words.iter().flat_map(|w| w.to_le_bytes()).collect()));
            }
            (Ok(_), Ok(_)) => failures.push(format!("{}: not the same twice", p.name)),
            (Err(e), _) | (_, Err(e)) => failures.push(format!("{}: {e}", p.name)),
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
    assert!(
        failures.is_empty(),
        "{} programs failed:\n  {}",
        failures.len(),
        failures.join("\n  ")
    );
}
