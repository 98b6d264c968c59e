//! The tests' own test: kernels broken in one place each, and the check that must catch it.

mod faults;

use crossover::device::emulator::Checks;
use crossover::kernel::{Registry, Tile};
use crossover::op::{Problem, Side};
use crossover::verify::suite;
use crossover::verify::trial::{Check, Ending, Subject, Trial, run};

use crate::common::{data, emulator, plain, problem};

const ATTENTION: &str = "attention/prefill.broken";
const DELTA: &str = "gated_delta_rule/prefill.broken";

fn registry() -> Registry {
    Registry::from_dir(&data("broken")).expect("the broken kernels")
}

/// Two sequences and two heads of ragged length, causal: enough for every fault to show.
fn attention(change: &str) -> Problem {
    problem("attention", &format!("B=2,T=70,Hq=2,Hkv=1,D=64,causal=true,{change}"))
}

fn delta(change: &str) -> Problem {
    problem("gated_delta_rule", &format!("T=20,H=2,HV=4,K=64,V=64,initial_state=true,{change}"))
}

fn trial(kernel: &str, fault: i64, problem: Problem, family: &str) -> Trial {
    checked(kernel, fault, problem, family, Checks::ALL)
}

fn checked(kernel: &str, fault: i64, problem: Problem, family: &str, checks: Checks) -> Trial {
    let registry = registry();
    let kernel = registry.get(kernel).expect("a broken kernel");
    let tile = Tile([("FAULT".to_string(), fault)].into_iter().collect());
    let family = family.parse().expect("a family");
    let subject = Subject {
        prefix: problem.has_prefix_property(),
        case: suite::case(kernel, &tile, problem, family, 11),
        multiprocessors: None,
        most_steps: None,
    };
    run(kernel, &subject, &emulator().with_checks(checks), None)
}

/// The fault is caught by `check`, with a message that has all `words`.
fn caught(trial: &Trial, check: Check, words: &[&str]) {
    assert_eq!(trial.ending, Ending::Failed, "not caught: {trial:?}");
    let by: Vec<_> = trial.faults.iter().filter(|f| f.check == check).collect();
    assert!(!by.is_empty(), "caught by another check: {:#?}", trial.faults);
    for word in words {
        assert!(by.iter().any(|f| f.message.contains(word)), "no `{word}` in {by:#?}");
    }
}

fn attention_fault(fault: i64, check: Check, words: &[&str]) {
    caught(&trial(ATTENTION, fault, attention(""), "random"), check, words);
}

#[test]
fn sound_kernels_pass() {
    for problem in [
        attention(""),
        attention("Tq=1,causal=false"),
        attention("Tkv=30"),
        attention("Hq=6,Hkv=2"),
    ] {
        let t = trial(ATTENTION, 0, problem, "random");
        assert_eq!(t.ending, Ending::Passed, "{:#?}", t.faults);
        assert!(t.verification.unwrap().outputs.iter().all(|o| o.ratio() < 1.1));
    }
    for family in ["random", "gate=saturated", "beta=0", "gate=zero keys=identical beta=1"] {
        let t = trial(DELTA, 0, delta(""), family);
        assert_eq!(t.ending, Ending::Passed, "{:#?}", t.faults);
    }
    let t = trial(DELTA, 0, delta("initial_state=false,final_state=false"), "random");
    assert_eq!(t.ending, Ending::Passed, "{:#?}", t.faults);
}

#[test]
fn copies_that_nobody_waits_for() {
    attention_fault(1, Check::Trap, &["prefill.broken.ptx"]);
}

#[test]
fn a_missing_barrier_before_reading() {
    attention_fault(2, Check::Trap, &["prefill.broken.ptx"]);
}

/// Old values stand where new ones are not yet written: without a check of races nothing traps, but
/// the result is wrong.
#[test]
fn a_barrier_missing_from_the_second_turn_on() {
    let problem = attention("Tkv=200,causal=false");
    caught(&trial(ATTENTION, 8, problem.clone(), "random"), Check::Trap, &["race", "before that"]);
    let unchecked = checked(ATTENTION, 8, problem, "random", Checks::NONE);
    caught(&unchecked, Check::Accuracy, &["o: E/F"]);
    // One turn is right.
    let t = trial(ATTENTION, 8, attention("Tq=60,Tkv=60"), "random");
    assert_eq!(t.ending, Ending::Passed, "{:#?}", t.faults);
}

#[test]
fn a_mask_off_by_one() {
    let t = trial(ATTENTION, 3, attention(""), "random");
    caught(&t, Check::Accuracy, &["o[B=0 Tq=0 Hq=0 Dv=0]"]);
    caught(&t, Check::Prefix, &["an earlier output"]);
}

#[test]
fn a_tail_without_predicate_reads_out_of_bounds() {
    attention_fault(4, Check::Trap, &["out of bounds", "`v`"]);
}

#[test]
fn a_row_never_stored_stays_poison() {
    attention_fault(5, Check::Nonfinite, &["o[B=0 Tq=69 Hq=0 Dv=0] got NaN"]);
}

#[test]
fn swapped_halves_of_a_product() {
    attention_fault(6, Check::Accuracy, &["o: E/F"]);
}

#[test]
fn a_store_past_the_end() {
    let t = trial(ATTENTION, 7, attention(""), "random");
    let by = |c: Check| t.faults.iter().any(|f| f.check == c && f.message.contains('o'));
    assert!(by(Check::Trap) || by(Check::Damage), "{:#?}", t.faults);
}

#[test]
fn an_uninitialised_register() {
    attention_fault(9, Check::Trap, &["register `acc` is read before anything is written"]);
}

#[test]
fn a_barrier_that_half_a_warp_misses() {
    attention_fault(10, Check::Trap, &["bar.sync"]);
}

#[test]
fn a_barrier_that_a_warp_never_reaches() {
    attention_fault(11, Check::Trap, &["bar"]);
}

#[test]
fn a_loop_without_end() {
    let words = ["the limit is 5", "a check allows a CTA 5 million", "--steps N"];
    attention_fault(12, Check::Timeout, &words);
}

#[test]
fn an_input_overwritten() {
    let t = trial(ATTENTION, 13, attention(""), "random");
    let by = |c: Check| t.faults.iter().any(|f| f.check == c && f.message.contains('q'));
    assert!(by(Check::Damage) || by(Check::Trap), "{:#?}", t.faults);
}

#[test]
fn a_misaligned_load() {
    attention_fault(14, Check::Trap, &["misaligned"]);
}

#[test]
fn shared_memory_never_written() {
    attention_fault(15, Check::Trap, &["shared address 8444, which was never written"]);
}

#[test]
fn a_wrong_lse_beside_a_right_output() {
    let t = trial(ATTENTION, 16, attention(""), "random");
    caught(&t, Check::Accuracy, &["lse: E/F"]);
    assert!(t.faults.iter().all(|f| !f.message.starts_with("o:")), "{:#?}", t.faults);
}

#[test]
fn ptx_that_does_not_assemble() {
    attention_fault(17, Check::Build, &["undeclared"]);
}

#[test]
fn a_decay_narrowed_to_bf16_drifts() {
    let slow = |t: usize| delta(&format!("T={t},H=1,HV=1"));
    let t = trial(DELTA, 1, slow(512), "gate=slow");
    caught(&t, Check::Accuracy, &["o: E/F"]);
    let v = t.verification.expect("a verification");
    assert!(v.outputs[0].slope.is_some_and(|s| s > 0.2), "{:?}", v.outputs[0].slope);
}

#[test]
fn a_wrong_state_beside_a_right_output() {
    let t = trial(DELTA, 2, delta(""), "random");
    caught(&t, Check::Accuracy, &["final_state: E/F"]);
    assert!(t.faults.iter().all(|f| !f.message.starts_with("o:")), "{:#?}", t.faults);
}

#[test]
fn heads_dealt_out_in_turn() {
    caught(&trial(DELTA, 3, delta(""), "random"), Check::Accuracy, &["HV=1"]);
    // Without grouped heads there is nothing to see.
    let t = trial(DELTA, 3, delta("HV=2"), "random");
    assert_eq!(t.ending, Ending::Passed, "{:#?}", t.faults);
}

#[test]
fn a_look_into_the_future() {
    let t = trial(DELTA, 4, delta(""), "random");
    caught(&t, Check::Prefix, &["change an earlier output: o["]);
}

#[test]
fn a_forgotten_initial_state() {
    caught(&trial(DELTA, 5, delta(""), "random"), Check::Accuracy, &["o[B=0 T=0"]);
}

#[test]
fn exponents_taken_apart_overflow() {
    let mild = trial(DELTA, 6, delta(""), "random");
    assert_eq!(mild.ending, Ending::Passed, "{:#?}", mild.faults);
    caught(&trial(DELTA, 6, delta(""), "gate=saturated"), Check::Nonfinite, &["got NaN"]);
}

/// The real kernels with something taken out of their PTX.
mod cut {
    use super::*;
    use crossover::verify::trial::run_job;

    /// Runs every portable prefill kernel of the program without the lines that `is_cut` names;
    /// no such kernel may pass.
    fn without(what: &str, is_cut: impl Fn(&str, usize) -> bool) -> Vec<Trial> {
        let mut trials = Vec::new();
        for kernel in
            crate::common::registry().kernels().iter().filter(|k| k.name.ends_with("prefill.sm80"))
        {
            // Three blocks of tokens with a ragged tail.
            let op = kernel.manifest.op;
            let mut problem = plain(op, 150);
            if op.side() == Side::Linear {
                problem = problem.with("final_state", true);
            }
            let tile = kernel.default_tile(&problem).expect("a default tile");
            let mut job = kernel.job(&problem, &tile).expect("a job");
            let mut found = 0;
            let lines: Vec<&str> = job
                .ptx
                .text
                .lines()
                .map(|line| {
                    let is_cut = is_cut(line, found);
                    found += usize::from(is_cut);
                    if is_cut { "" } else { line }
                })
                .collect();
            assert!(found > 0, "{}: no {what} to take out", kernel.name);
            job.ptx.text = lines.join("\n") + "\n";
            let case = suite::case(kernel, &tile, problem, Default::default(), 1);
            let (multiprocessors, most_steps) = (None, None);
            let subject = Subject { case, prefix: false, multiprocessors, most_steps };
            let trial = run_job(&job, &subject, &emulator(), None);
            assert_eq!(trial.ending, Ending::Failed, "{} without {what} passes", kernel.name);
            trials.push(trial);
        }
        assert!(trials.len() >= 3, "{} kernels", trials.len());
        trials
    }

    #[test]
    fn waits_for_copies() {
        let mut within = Vec::new();
        for trial in without("waits", |l, _| l.contains("cp.async.wait")) {
            caught(&trial, Check::Trap, &[]);
            let traps = trial.faults.iter().filter_map(|f| f.trap.as_ref());
            within.extend(traps.filter_map(|t| t.at.within.clone()));
        }
        // Macros read what is not there yet: the report says which, and where they are called.
        let told =
            |w: &String| w.starts_with("lib/") && w.contains("(), called at attention/prefill");
        assert!(within.iter().any(told), "{within:?}");
    }

    #[test]
    fn barriers() {
        without("barriers", |l, _| l.contains("bar.sync") || l.contains("barrier.sync"));
    }

    #[test]
    fn one_product() {
        without("one product", |l, found| l.contains("mma.sync") && found == 0);
    }

    #[test]
    fn stores() {
        without("stores", |l, _| l.contains("st.global"));
    }
}
