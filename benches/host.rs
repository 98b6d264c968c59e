//! Host-side hot paths: rendering, planning, inputs, references, and the emulator's throughput.
//!
//! `cargo bench --bench host`; no GPU needed.

use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use crossover::device::open::open;
use crossover::kernel::Registry;
use crossover::op::{DType, Family, Problem, attention, delta};
use crossover::sweep::Sweep;

fn attention(t: usize, d: usize) -> Problem {
    Problem::Attention(attention::Shape {
        dtype: DType::Bf16,
        b: 1,
        tq: t,
        tkv: t,
        hq: 1,
        hkv: 1,
        d,
        causal: true,
        scale: (d as f64).powf(-0.5),
        extras: Default::default(),
    })
}

fn delta(t: usize) -> delta::Shape {
    delta::Shape {
        dtype: DType::Bf16,
        b: 1,
        t,
        h: 1,
        hv: 1,
        k: 128,
        v: 128,
        initial_state: false,
        final_state: true,
        scale: 128f64.powf(-0.5),
    }
}

fn render(c: &mut Criterion) {
    let registry = Registry::embedded().expect("the embedded kernels");
    for kernel in registry.kernels() {
        let problem =
            [attention(512, 128), Problem::GatedDeltaRule(delta(512)), Problem::Kda(delta(512))]
                .into_iter()
                .find(|p| p.op() == kernel.manifest.op)
                .expect("a problem of every operator");
        let tile = kernel.default_tile(&problem).expect("a default tile");
        c.bench_function(&format!("render/{}", kernel.name), |b| {
            b.iter(|| kernel.render(black_box(&problem), &tile).expect("a legal tile"))
        });
    }
}

fn plan(c: &mut Criterion) {
    let registry = Registry::embedded().expect("the embedded kernels");
    let sweep = Sweep::load(Path::new("sweeps/prefill-crossover.toml")).expect("a curated sweep");
    c.bench_function("plan/prefill-crossover", |b| {
        b.iter(|| black_box(&sweep).plan(&registry, None, None).expect("a plan"))
    });
}

fn reference(c: &mut Criterion) {
    let mut group = c.benchmark_group("reference");
    group.sample_size(10);
    for problem in
        [attention(512, 128), Problem::GatedDeltaRule(delta(512)), Problem::Kda(delta(512))]
    {
        let inputs = problem.inputs(&Family::default(), 1);
        group.throughput(Throughput::Elements(problem.flops() as u64));
        group.bench_function(format!("{} T=512, FLOPs", problem.op()), |b| {
            b.iter(|| black_box(&problem).reference(&inputs))
        });
    }
}

fn inputs(c: &mut Criterion) {
    let mut group = c.benchmark_group("inputs");
    let problem = Problem::Kda(delta(4096));
    group.throughput(Throughput::Bytes(problem.min_bytes() as u64));
    group.bench_function("kda T=4096", |b| b.iter(|| problem.inputs(&Family::default(), 1)));
}

/// A run of a whole job; the throughput is in warp instructions a second.
fn emulator(c: &mut Criterion) {
    let registry = Registry::embedded().expect("the embedded kernels");
    let device = open("emulator").expect("the emulator");
    let mut group = c.benchmark_group("emulator");
    group.sample_size(10);
    for (name, problem) in [
        ("attention/prefill.sm80", attention(512, 128)),
        ("gated_delta_rule/prefill.sm80", Problem::GatedDeltaRule(delta(512))),
        ("kda/prefill.sm80", Problem::Kda(delta(512))),
    ] {
        let kernel = registry.get(name).expect("a portable kernel");
        let tile = kernel.default_tile(&problem).expect("a default tile");
        let job = kernel.job(&problem, &tile).expect("a job");
        let inputs = problem.inputs(&Family::default(), 1);
        let mut loaded = device.load(&job, &inputs).expect("a job the emulator takes");
        let counts = loaded.run().expect("a sound kernel").counts.expect("the emulator counts");
        group.throughput(Throughput::Elements(counts.total_instructions()));
        group.bench_function(format!("{name} T=512, warp instructions"), |b| {
            b.iter(|| loaded.run().expect("a sound kernel"))
        });
    }
}

criterion_group!(benches, render, plan, inputs, reference, emulator);
criterion_main!(benches);
