//! Records made up for tests: shapes and laws like real ones, times from formulae. Never written
//! outside of temporary folders.

use indexmap::{IndexMap, indexmap};

use super::*;
use crate::device::{Counts, EntryBuild, Peak};
use crate::op::{DType, Op, Side, examples};

/// What tells one made-up case from another.
#[derive(Debug, Clone)]
pub struct Made {
    pub op: Op,
    pub dtype: DType,
    pub t: usize,
    pub b: usize,
    pub heads: usize,
    pub family: &'static str,
    pub tile: IndexMap<String, i64>,
    pub ns: f64,
    pub measured: bool,
}

impl Made {
    pub fn new(op: Op, t: usize, ns: f64) -> Made {
        let tile = match op.side() {
            Side::Full => indexmap! { "BM".into() => 128 },
            Side::Linear => indexmap! { "BV".into() => 64 },
        };
        let (dtype, family) = (DType::Bf16, "gate=mid");
        Made { op, dtype, t, b: 1, heads: 16, family, tile, ns, measured: true }
    }

    pub fn record(&self) -> Record {
        let Made { t, b, heads, dtype, .. } = *self;
        let sizes = match self.op.side() {
            Side::Full => format!("Hq={heads},Hkv={},causal=true", heads / 4),
            Side::Linear => format!("HV={heads}"),
        };
        let problem = examples::problem(self.op, &format!("dtype={dtype},B={b},T={t},{sizes}"));
        let tile = self.tile.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>();
        let key = format!("{problem} {} {} {} {}", self.family, tile.join(","), self.measured, b);
        Record {
            schema: SCHEMA,
            id: key.replace(' ', "-"),
            sweep: "sample".into(),
            time: "2026-03-01T12:00:00Z".into(),
            command: "crossover run sweeps/sample.toml --device cuda:0".into(),
            version: "0.1.0".into(),
            binary_sha256: Some("c0de".repeat(16)),
            sample_ctas: (!self.measured).then(|| "auto".into()),
            attempt: None,
            process: None,
            energy: None,
            phase: PhaseName::Prefill,
            family: self.family.parse().unwrap(),
            seed: 1,
            kernel: Kernel {
                name: format!("{}/prefill.sm80", self.op),
                tile: self.tile.clone(),
                ptx_sha256: "5f2b".repeat(16),
                launch_sha256: Some("1a7c".repeat(16)),
                target: "sm_80".into(),
            },
            device: facts(self.measured),
            status: Status::Ok,
            reason: None,
            build: Some(Build {
                entries: indexmap! { "main".into() => EntryBuild {
                    registers: 168, ctas_per_sm: 1, ..EntryBuild::default()
                } },
                warnings: vec![],
                load_ms: 12.0,
            }),
            verification: Some(verification(&problem, self.family)),
            timing: Some(timing(self.ns, self.measured)),
            traffic: Some(Traffic {
                min_bytes: problem.min_bytes(),
                counts: (!self.measured).then(|| counts(&problem)),
                sampled: (!self.measured).then(|| {
                    let (executed, times) = problem.one_head_group();
                    Sampled { executed, times: times as u64, ctas: None }
                }),
            }),
            flops: problem.flops(),
            flops_formula: problem.flops_formula().into(),
            problem,
        }
    }
}

fn facts(measured: bool) -> Facts {
    Facts {
        id: if measured { "cuda:0" } else { "emulator:h200" }.into(),
        name: "NVIDIA H200".into(),
        emulated: !measured,
        compute_capability: (9, 0),
        multiprocessors: 132,
        l2_bytes: 60 << 20,
        memory_bytes: 141 << 30,
        shared_bytes_per_cta: 232_448,
        peak: Peak { bf16_tflops: 989.0, tf32_tflops: 494.5, memory_gbps: 4800.0 },
        driver: if measured { "580.65.06, CUDA 13.0" } else { "" }.into(),
        more: if measured {
            indexmap! { "power limit".into() => "700 W".into(), "MIG".into() => "off".into() }
        } else {
            IndexMap::new()
        },
    }
}

/// A number in (-1, 1) that only depends on `i`.
fn wobble(i: usize) -> f64 {
    ((i as f64 + 1.0) * 12.9898).sin()
}

fn timing(ns: f64, measured: bool) -> Timing {
    if !measured {
        return Timing::Modelled(Modelled {
            model: "h200".into(),
            ns,
            sm_mhz: Some(1830.0),
            limits: indexmap! { "memory".into() => ns * 0.4, "tensor".into() => ns },
            bound: "tensor".into(),
        });
    }
    let health = |mhz| Health {
        sm_mhz: Some(mhz),
        max_sm_mhz: Some(1980),
        memory_mhz: Some(3201),
        power_w: Some(412.0),
        temperature_c: Some(48),
        throttle: vec![],
    };
    let samples = (0..21)
        .map(|i| Sample { ns: ns * (1.0 + 0.03 * wobble(i + ns as usize)), sm_mhz: Some(1830.0) });
    let mut samples: Vec<_> = samples.collect();
    samples[10].ns = ns;
    Timing::Measured {
        regime: Regime::Cold,
        samples,
        median_ns: ns,
        ci_ns: (ns * 0.99, ns * 1.01),
        stopped: "precise".into(),
        before: Some(health(1980)),
        after: Some(health(1830)),
        warnings: vec!["clocks are not locked".into()],
    }
}

fn counts(problem: &Problem) -> Counts {
    let sectors = (problem.min_bytes() / 32.0) as u64;
    Counts {
        ctas: 64,
        global_read_sectors: sectors * 3,
        global_write_sectors: sectors / 2,
        unique_read_sectors: sectors * 3 / 4,
        unique_write_sectors: sectors / 4,
        ..Counts::default()
    }
}

fn verification(problem: &Problem, family: &str) -> Verification {
    let floor = match problem.dtype() {
        DType::Bf16 => 1.66e-3,
        DType::Fp16 => 2.1e-4,
        _ => 1e-4,
    };
    let slope = match (problem.op().side(), family) {
        (Side::Full, _) => 0.01,
        (_, "gate=slow") => 0.12,
        _ => 0.04,
    };
    let t = problem.tokens();
    let at = |i: usize| floor * 1.4 * (1.0 + i as f64).powf(slope);
    let output = |name: &str, n: usize| OutputError {
        name: name.into(),
        error: at(t / 64),
        floor,
        limit: 4.0,
        nonfinite: 0,
        blocks: (0..n).map(|i| at(i) * (1.0 + 0.02 * wobble(i))).collect(),
        slope: (n > 1).then_some(slope),
        max_ulp: 2.0,
        first_bad: None,
        share: None,
    };
    let mut outputs = vec![output("o", t.div_ceil(64))];
    match problem.op().side() {
        Side::Full => outputs.push(output("lse", t.div_ceil(64))),
        Side::Linear => outputs.push(output("final_state", 0)),
    }
    Verification { passed: true, outputs, subset: None, deterministic: Some(true), damage: vec![] }
}

/// The operators of made-up sweeps.
pub fn ops() -> [Op; 3] {
    [examples::full(), examples::linear(), examples::other()]
}

/// Time in ns by a law like the operators' own: linear in T, or quadratic with a start-up cost.
pub fn law(op: Op, t: usize) -> f64 {
    let t = t as f64;
    match op.side() {
        Side::Full => 6_000.0 + 0.0045 * t * t + 4.0 * t,
        Side::Linear if op == examples::linear() => 14_000.0 + 21.0 * t,
        Side::Linear => 18_000.0 + 33.0 * t,
    }
}

/// A small measured sweep: three operators, T 256..16384, two tiles of attention.
pub fn sweep() -> Vec<Record> {
    let mut all = Vec::new();
    for t in (8..15).map(|e| 1usize << e) {
        for op in ops() {
            let made = Made::new(op, t, law(op, t));
            all.push(made.record());
            if op.side() == Side::Full {
                let tile = indexmap! { "BM".into() => 64 };
                let ns = made.ns * if t < 1024 { 0.9 } else { 1.2 };
                all.push(Made { tile, ns, ..made }.record());
            }
        }
    }
    all
}
