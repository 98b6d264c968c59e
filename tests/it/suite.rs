//! The regression suite of every kernel, on the emulator: what `crossover check` runs.

use std::collections::HashMap;
use std::sync::{LazyLock, OnceLock};

use crossover::device::open::open;
use crossover::device::{Arg, Device};
use crossover::kernel::Kernel;
use crossover::op::{PhaseName, Problem, Role, Side};
use crossover::sweep::Case;
use crossover::verify::suite;
use crossover::verify::trial::{self, Ending, Subject};

use crate::common::{emulator, kernel, registry};

const SEED: u64 = 1;

/// The fewest cases that a kernel's suite may have.
const LEAST: usize = 60;

/// The cases of a kernel of the program, made once.
pub fn suite_cases(kernel: &Kernel) -> &'static [Subject] {
    static ALL: LazyLock<HashMap<&str, OnceLock<Vec<Subject>>>> = LazyLock::new(|| {
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
    let (mut failures, mut passed, mut skipped, mut known) = (Vec::new(), 0, 0, Vec::new());
    trial::run_all(&work, workers, &|| open("emulator"), None, |i, trial| match trial.ending {
        Ending::Passed => passed += 1,
        Ending::Skipped if kernel.unfit(emulator().facts()).is_some() => skipped += 1,
        Ending::Failed if trial.known.is_some() => known.push(&work[i].1.case.family),
        Ending::Failed | Ending::Skipped => {
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
    let known_all = known.len();
    let whole = passed + known_all == work.len() || skipped == work.len();
    assert!(whole, "{passed} passed, {known_all} failed as known, {skipped} skipped");
    // What the manifest says is lost must be lost, and is not most of the suite.
    for loss in kernel.manifest.loses.iter().filter(|_| skipped == 0) {
        let met = known.iter().any(|family| loss.covers(family));
        assert!(met, "no case of {} fails: take it out of `loses`", loss.family);
    }
    assert!(3 * known_all < work.len(), "{known_all} of {} cases fail as known", work.len());
    println!("{passed} cases passed, {known_all} failed as known, {skipped} need a GPU");
}

// A test for each kernel, written by build.rs: `suite::kda_prefill_sm80` calls `of_kernel`.
include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// build.rs wrote a test for each kernel, and the emulator runs at least four kernels.
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

/// Every suite has the families, lengths, dtypes, phases and states that it must have. Words of a
/// case's label stand for them, joined by `+` where one case must have several.
#[test]
fn the_suite_covers_what_it_must() {
    for kernel in registry().kernels() {
        let labels: Vec<String> = suite_cases(kernel).iter().map(Subject::label).collect();
        let has = |word: &str| {
            let words: Vec<&str> = word.split('+').collect();
            let found = labels.iter().any(|l| words.iter().all(|w| l.split(' ').any(|x| x == *w)));
            assert!(found, "{}: no case with {word}", kernel.name);
        };
        let op = kernel.manifest.op;
        for phase in &kernel.manifest.phases {
            // Every family, and every value of the operator's own flags.
            let suite = op.suite(*phase);
            for family in suite.families {
                has(&family.replace(' ', "+"));
            }
            let name = op.phase(*phase).expect("a phase").lengths.last().expect("a length");
            for dtype in &kernel.manifest.dtypes {
                has(&format!("dtype={dtype}+{name}=1000"));
            }
            if *phase == PhaseName::Prefill {
                for t in [1, 63, 64, 65, 1000] {
                    has(&format!("{name}={t}"));
                }
            } else {
                has(&format!("phase={phase}+B=2"));
            }
        }
        if kernel.manifest.phases.contains(&PhaseName::Verify) {
            let tokens = op.with_role(Role::Token).expect("a row of tokens").name;
            for t in ["2", "3", "8", "16"] {
                has(&format!("phase=verify+{tokens}={t}"));
            }
        }
        let words: &[&str] = match (op.name(), kernel.phase()) {
            ("attention", PhaseName::Prefill) => {
                &["causal=true", "causal=false", "Hq=4+Hkv=2", "Tq=1+Tkv=1000", "Tq=102+Tkv=65"]
            }
            ("gated_delta_rule" | "kda", PhaseName::Prefill) => {
                &["H=2+HV=4", "gate=saturated+T=1000", "keys=identical+T=1000"]
            }
            _ => &[],
        };
        words.iter().for_each(|w| has(w));
        if op.side() == Side::Linear {
            has("initial_state=true+final_state=false");
            has("initial_state=false+final_state=true");
        }
        for tile in labels.iter().map(|l| l.split(" dtype=").next().unwrap()) {
            let n = labels.iter().filter(|l| l.starts_with(&format!("{tile} dtype="))).count();
            assert!(n >= 2, "{tile} has {n} cases");
        }
    }
}

/// A kernel that takes windows, soft caps, packed lengths and value dimensions of their own has cases
/// with each; one that does not has none.
#[test]
fn extras_take_turns_where_a_kernel_has_them() {
    let met = |name: &str| {
        let all = suite_cases(kernel(name));
        let has = |f: fn(&Problem) -> bool| all.iter().any(|s| f(&s.case.problem));
        [
            has(|p| p.get("window").is_some()),
            has(|p| p.number("softcap").is_some()),
            has(|p| !p.lens().is_empty()),
            has(|p| p.count("Dv") != p.count("D")),
        ]
    };
    assert_eq!(met("attention/prefill.sm90a"), [true; 4]);
    assert_eq!(met("attention/prefill.sm80"), [false; 4]);
}

/// A CTA of a persistent kernel goes from one unit of work to the next. On the emulated 132
/// multiprocessors every CTA of an unpacked case has one unit, so cases for fewer must have CTAs with
/// several, for each kind of tile.
#[test]
fn persistent_ctas_have_several_units() {
    for kernel in registry().kernels() {
        let all = suite_cases(kernel);
        let few: Vec<_> = all.iter().filter(|c| c.multiprocessors.is_some()).collect();
        if !kernel.fills_device() {
            assert!(few.is_empty(), "{}", kernel.name);
            continue;
        }
        // By kind: cases with CTAs of two units or more, of three or more, and of two or more where
        // pairs of tiles are taken apart so that all CTAs have as much.
        let mut met: HashMap<String, [usize; 3]> = HashMap::new();
        for case in &few {
            let Case { problem, tile, .. } = &case.case;
            let launch = |sms: u32| {
                let job = kernel.job_on(problem, tile, sms).unwrap();
                job.launches.last().unwrap().clone()
            };
            let own = launch(case.multiprocessors.unwrap());
            let (ctas, units) = (own.grid[0], launch(1 << 14).grid[0]);
            let entry = kernel.manifest.entry.iter().find(|e| e.name == own.entry).unwrap();
            let rest = entry.params.iter().position(|p| p.name == "rest").unwrap();
            let apart = problem.flag("causal") && own.args[rest] != Arg::U32(0);
            let tile = |axis: &str| format!("{axis}={}", tile.0[axis]);
            let mut kinds = vec![format!("packed={}", !problem.lens().is_empty())];
            kinds.extend(["CLUSTER", "PINGPONG", "QREGS", "WG"].map(tile));
            for kind in kinds {
                let all =
                    met.entry(format!("causal={} {kind}", problem.flag("causal"))).or_default();
                all[0] += usize::from(units > ctas);
                all[1] += usize::from(units > 2 * ctas);
                all[2] += usize::from(units > ctas && apart);
            }
        }
        assert_eq!(met.len(), 20, "{met:?}");
        for (kind, [two, three, apart]) in &met {
            assert!(*two >= 20 && *three >= 10, "{kind}: {met:?}");
            let whole = kind.contains("causal=false") || kind.contains("packed=true");
            assert!(whole || *apart >= 2, "{kind}: {met:?}");
        }
    }
}
