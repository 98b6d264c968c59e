//! Names without a target, such as `attention/prefill`: the best kernel for device and problem.

use crossover::device::Facts;
use crossover::device::model::DeviceModel;
use crossover::op::{PhaseName, Problem};

use crate::common::{op, problem, registry};

/// An H200 but for its compute capability.
fn facts(compute_capability: (u32, u32)) -> Facts {
    let model = DeviceModel::named("h200").expect("a described device");
    Facts { compute_capability, ..model.facts() }
}

/// Attention over 70 tokens, heads 64 wide, and what the settings say.
fn attention(settings: &str) -> Problem {
    problem("attention", &format!("T=70,D=64,{settings}"))
}

/// The name of the best prefill kernel, or why there is none.
fn best(facts: &Facts, problem: &Problem) -> Result<String, String> {
    let registry = registry();
    let best = registry.best(problem.op(), PhaseName::Prefill, facts, problem);
    best.map(|k| k.name.clone()).map_err(|e| e.0)
}

#[test]
fn the_highest_architecture_that_device_and_problem_admit() {
    let plain = attention("");
    assert_eq!(best(&facts((9, 0)), &plain).unwrap(), "attention/prefill.sm90a");
    // sm_90a is for 9.0 alone.
    for other in [(8, 0), (8, 9), (10, 0)] {
        assert_eq!(best(&facts(other), &plain).unwrap(), "attention/prefill.sm80");
    }
    // Only the older one has tf32.
    let tf32 = attention("dtype=tf32");
    assert_eq!(best(&facts((9, 0)), &tf32).unwrap(), "attention/prefill.sm80");
    let extras = ["causal=true,window=20", "softcap=20", "D=192,Dv=128"];
    let packed = attention("").pack(vec![[5, 5], [30, 40]]);
    for problem in extras.map(attention).into_iter().chain([packed]) {
        assert_eq!(best(&facts((9, 0)), &problem).unwrap(), "attention/prefill.sm90a");
        let why = best(&facts((8, 0)), &problem).unwrap_err();
        assert!(why.contains("attention/prefill.sm90a needs sm_90a"), "{why}");
        assert_eq!(why.lines().count(), 3, "{why}");
        assert!(why.lines().any(|l| l.contains("attention/prefill.sm80")), "{why}");
    }
    let why = best(&facts((7, 5)), &plain).unwrap_err();
    assert!(why.contains("sm80 needs sm_80") && why.contains("sm90a needs sm_90a"), "{why}");
}

#[test]
fn names_with_and_without_target() {
    let registry = registry();
    let (of, problem) = (facts((8, 0)), attention(""));
    for (name, picked) in [
        ("attention/prefill", "attention/prefill.sm80"),
        // A kernel that is named with its target is picked though this device cannot run it: the
        // command that uses it says so.
        ("attention/prefill.sm90a", "attention/prefill.sm90a"),
    ] {
        let named = registry.named(name).unwrap();
        assert_eq!((named.to_string().as_str(), named.op()), (name, op("attention")));
        assert_eq!(named.pick(&of, &problem).unwrap().name, picked);
    }
    for name in ["attention", "attention/training", "attention/prefill.", "prefill", ""] {
        let why = registry.named(name).unwrap_err().0;
        assert!(why.contains("unknown kernel") && why.contains("without its target"), "{why}");
    }
    let all: Vec<_> = registry.matching("attention/prefill").unwrap();
    assert_eq!(all.len(), 2, "every target");
}
