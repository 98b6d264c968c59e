//! The regression suite of every kernel, on the emulator: what `crossover check` runs.

use std::collections::HashMap;
use std::sync::{LazyLock, OnceLock};

use crossover::device::Device;
use crossover::device::open::open;
use crossover::kernel::Kernel;
use crossover::verify::suite;
use crossover::verify::trial::{self, Case, Verdict};

use crate::common::{emulator, kernel, registry};

const SEED: u64 = 1;

/// No kernel's suite has fewer cases.
const LEAST: usize = 60;

/// The cases of a kernel of the program, made once.
pub fn suite_cases(kernel: &Kernel) -> &'static [Case] {
    static ALL: LazyLock<HashMap<&str, OnceLock<Vec<Case>>>> = LazyLock::new(|| {
        registry().kernels().iter().map(|k| (&*k.name, OnceLock::new())).collect()
    });
    ALL[&*kernel.name].get_or_init(|| suite::cases(kernel, SEED).expect("a suite"))
}

/// A kernel passes its suite; only what the emulator never runs may be skipped, and then all of it.
fn of_kernel(name: &str) {
    let kernel = kernel(name);
    let cases = suite_cases(kernel);
    assert!(cases.len() >= LEAST, "only {} cases", cases.len());
    let work: Vec<_> = cases.iter().map(|c| (kernel, c.clone())).collect();
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get());
    let (mut failures, mut passed, mut skipped) = (Vec::new(), 0, 0);
    trial::run_all(&work, workers, &|| open("emulator"), None, |i, trial| match trial.verdict {
        Verdict::Passed => passed += 1,
        Verdict::Skipped if kernel.unfit(emulator().facts()).is_some() => skipped += 1,
        Verdict::Failed | Verdict::Skipped => {
            let faults: Vec<_> = trial.faults.iter().map(|f| f.message.as_str()).collect();
            let why = trial.skipped.unwrap_or_else(|| faults.join("\n  "));
            failures.push(format!("{why}\n  {}", work[i].1.command("emulator", None)));
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
    assert!(passed == work.len() || skipped == work.len(), "{passed} passed, {skipped} skipped");
    println!("{passed} cases passed, {skipped} need a GPU");
}

// A test for each kernel, by build.rs: `suite::kda_prefill_sm80`.
include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// No kernel of the program is left out, and the emulator runs most of them.
#[test]
fn every_kernel_has_a_test() {
    let tests = include_str!(concat!(env!("OUT_DIR"), "/kernels.rs"));
    let kernels = registry().kernels();
    for kernel in kernels {
        assert!(tests.contains(&format!("of_kernel(\"{}\");", kernel.name)), "{}", kernel.name);
    }
    assert_eq!(tests.matches("#[test]").count(), kernels.len());
    let run: Vec<_> = kernels.iter().filter(|k| k.unfit(emulator().facts()).is_none()).collect();
    let cases = run.iter().map(|k| suite_cases(k).len());
    let (kernels, cases) = (run.len(), cases.sum::<usize>());
    assert!(kernels >= 4 && cases >= 1000, "{kernels} kernels with {cases} cases");
}

/// The suite itself: what the contract asks of it is in it.
#[test]
fn the_suite_covers_what_it_must() {
    for kernel in registry().kernels() {
        let labels: Vec<String> = suite_cases(kernel).iter().map(Case::label).collect();
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
