//! The regression suite of every kernel, on the emulator: what `crossover check` runs.

use crossover::device::open::open;
use crossover::kernel::{Kernel, Registry};
use crossover::verify::suite;
use crossover::verify::trial::{self, Case, Verdict};

const SEED: u64 = 1;

#[test]
fn every_kernel_passes_its_suite() {
    let registry = Registry::embedded().expect("the embedded kernels");
    let work: Vec<(&Kernel, Case)> = registry
        .kernels()
        .iter()
        .flat_map(|k| {
            let cases = suite::cases(k, SEED).expect("a suite");
            assert!(!cases.is_empty(), "{} has no case", k.name);
            cases.into_iter().map(move |c| (k, c))
        })
        .collect();
    let facts = open("emulator").expect("the emulator").facts().clone();
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get());
    let emulator = || open("emulator");
    let (mut failures, mut passed, mut skipped) = (Vec::new(), 0, 0);
    trial::run_all(&work, workers, &emulator, None, |i, trial| {
        let (kernel, case) = &work[i];
        match trial.verdict {
            Verdict::Passed => passed += 1,
            // Only what the emulator never runs may be skipped.
            Verdict::Skipped if kernel.unfit(&facts).is_some() => skipped += 1,
            Verdict::Failed | Verdict::Skipped => {
                let faults: Vec<_> = trial.faults.iter().map(|f| f.message.as_str()).collect();
                let why = trial.skipped.unwrap_or_else(|| faults.join("\n  "));
                failures.push(format!("{why}\n  {}", case.command("emulator", None)));
            }
        }
    })
    .expect("the emulator");
    assert!(
        failures.is_empty(),
        "{} of {} cases failed, the first of them:\n{}",
        failures.len(),
        work.len(),
        failures.iter().take(5).cloned().collect::<Vec<_>>().join("\n")
    );
    assert_eq!(passed + skipped, work.len());
    assert!(passed >= 300, "only {passed} cases passed");
    println!("{passed} cases passed, {skipped} need a GPU");
}

/// The suite itself: what the contract asks of it is in it.
#[test]
fn the_suite_covers_what_it_must() {
    let registry = Registry::embedded().expect("the embedded kernels");
    for kernel in registry.kernels() {
        let labels: Vec<String> =
            suite::cases(kernel, SEED).expect("a suite").iter().map(Case::label).collect();
        let has = |word: &str| {
            let words: Vec<&str> = word.split('+').collect();
            let found = labels.iter().any(|l| words.iter().all(|w| l.split(' ').any(|x| x == *w)));
            assert!(found, "{}: no case with {word}", kernel.name);
        };
        let name = match kernel.manifest.op {
            crossover::op::Op::Attention => "Tkv",
            _ => "T",
        };
        for t in [1, 63, 64, 65, 1000] {
            has(&format!("{name}={t}"));
        }
        for dtype in &kernel.manifest.dtypes {
            has(&format!("dtype={dtype}+{name}=1000"));
        }
        let words: &[&str] = match kernel.manifest.op {
            crossover::op::Op::Attention => &[
                "causal=true",
                "causal=false",
                "Hq=4+Hkv=2",
                "Tq=1+Tkv=1000",
                "Tq=102+Tkv=65",
                "keys=identical",
                "logits=huge",
                "logits=sink",
            ],
            _ => &[
                "H=2+HV=4",
                "initial_state=true+final_state=false",
                "initial_state=false+final_state=true",
                "gate=zero",
                "gate=saturated+T=1000",
                "gate=unbounded",
                "beta=0",
                "beta=1",
                "keys=identical+T=1000",
            ],
        };
        words.iter().for_each(|w| has(w));
        for tile in labels.iter().map(|l| l.split(" dtype=").next().unwrap()) {
            let n = labels.iter().filter(|l| l.starts_with(&format!("{tile} dtype="))).count();
            assert!(n >= 2, "{tile} has {n} cases");
        }
    }
}
