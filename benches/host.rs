//! Host-side hot paths: rendering, planning, inputs, references, and the emulator's throughput.
//!
//! `cargo bench --bench host`; no GPU needed.

use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use crossover::device::Device;
use crossover::device::emulator::{
    Checks, Emulator, RawArg, RawOptions, RawOutcome, run_raw_checked,
};
use crossover::device::model::DeviceModel;
use crossover::device::open::DEFAULT_MODEL;
use crossover::kernel::{Kernel, Registry};
use crossover::op::{Family, Op, PhaseName, Problem};
use crossover::sweep::Sweep;

/// A prefill of `t` tokens, one head, causal.
fn prefill(op: Op, t: usize) -> Problem {
    let mask = op.variable("causal").map_or("", |_| ",causal=true");
    Problem::parse(op, PhaseName::Prefill, &format!("T={t}{mask}")).expect("a problem")
}

/// A small problem of a kernel's first phase.
fn small(kernel: &Kernel) -> Problem {
    match kernel.phase() {
        PhaseName::Prefill => prefill(kernel.manifest.op, 512),
        phase => Problem::parse(kernel.manifest.op, phase, "context=512").expect("a problem"),
    }
}

fn render(c: &mut Criterion) {
    let registry = Registry::embedded().expect("the embedded kernels");
    for kernel in registry.kernels() {
        let problem = small(kernel);
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
    for problem in Op::all().map(|op| prefill(op, 512)) {
        let inputs = problem.inputs(&Family::default(), 1);
        group.throughput(Throughput::Elements(problem.flops() as u64));
        group.bench_function(format!("{} T=512, FLOPs", problem.op()), |b| {
            b.iter(|| black_box(&problem).reference(&inputs))
        });
    }
}

fn inputs(c: &mut Criterion) {
    let mut group = c.benchmark_group("inputs");
    for problem in Op::all().map(|op| prefill(op, 4096)) {
        group.throughput(Throughput::Bytes(problem.min_bytes() as u64));
        group.bench_function(format!("{} T=4096", problem.op()), |b| {
            b.iter(|| problem.inputs(&Family::default(), 1))
        });
    }
}

/// A run of a whole job on all cores, with all checks of order and with none; the throughput is in
/// warp instructions a second. RAYON_NUM_THREADS=1 makes it one core.
fn emulator(c: &mut Criterion) {
    let registry = Registry::embedded().expect("the embedded kernels");
    let model = DeviceModel::named(DEFAULT_MODEL).expect("the default model");
    let mut group = c.benchmark_group("emulator");
    group.sample_size(10);
    for kernel in registry.kernels().iter().filter(|k| k.unfit(&model.facts()).is_none()) {
        let (name, problem) = (&kernel.name, small(kernel));
        let tile = kernel.default_tile(&problem).expect("a default tile");
        let job = kernel.job(&problem, &tile).expect("a job");
        let inputs = problem.inputs(&Family::default(), 1);
        for (checked, checks) in [("all checks", Checks::ALL), ("none", Checks::NONE)] {
            let device = Emulator::new(model.clone()).with_checks(checks);
            let mut loaded = device.load(&job, &inputs).expect("a job the emulator takes");
            let counts = loaded.run().expect("a sound kernel").counts.expect("counts");
            group.throughput(Throughput::Elements(counts.total_instructions()));
            group.bench_function(format!("{name} T=512, {checked}"), |b| {
                b.iter(|| loaded.run().expect("a sound kernel"))
            });
        }
    }
}

/// Steps that the longest of these loops may take.
const STEPS: u64 = 1 << 32;

/// Runs one CTA with all checks; reading the text is nothing beside its loops. Threads, bytes of
/// shared memory, and whether vectors have 256 bits whatever the machine.
fn execute(text: &str, (threads, shared, narrow): (u32, u32, bool), args: &[RawArg]) -> RawOutcome {
    let options = RawOptions { steps: STEPS, narrow, ..Default::default() };
    let shape = [[1; 3], [threads, 1, 1], [1; 3]];
    run_raw_checked(text, "k", shape, shared, args, options).expect("a sound program")
}

/// One warp executing one instruction over and over, on one core, all checks on; the throughput is
/// in executions a second. The loop's own three instructions are not counted.
fn instructions(c: &mut Criterion) {
    const UNROLLED: usize = 64;
    const ROUNDS: usize = 8192;
    let mut group = c.benchmark_group("instruction");
    group.sample_size(20);
    group.throughput(Throughput::Elements((UNROLLED * ROUNDS) as u64));
    let cases = [
        ("add.s32", "add.s32 x, y, z;"),
        ("add.s32, a quarter of the lanes", "@few add.s32 x, y, z;"),
        ("fma.rn.f32", "fma.rn.f32 f, g, h, f;"),
        ("setp.lt.s32", "setp.lt.s32 few, x, y;"),
        ("ld.shared.b32 of a row", "ld.shared.b32 x, [a];"),
        ("ld.shared.b32 of one word", "ld.shared.b32 x, [s];"),
        ("ld.shared.b32, 2 ways", "ld.shared.b32 x, [c];"),
        ("ld.shared.v4.b32", "ld.shared.v4.b32 {x, y, z, w}, [d];"),
        ("st.shared.b32", "st.shared.b32 [a], x;"),
        ("ldmatrix.x4", "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {x, y, z, w}, [d];"),
        ("ld.global.v4.b32", "ld.global.v4.b32 {x, y, z, w}, [p];"),
        (
            "mma.m16n8k16.bf16",
            "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {f, g, h, i}, {x, y, z, w}, {x, y}, {f, g, h, i};",
        ),
    ];
    for (name, body) in cases {
        let text = format!(
            ".version 8.0\n.target sm_80\n.address_size 64\n.extern .shared .align 16 .b8 smem[];
            .visible .entry k(.param .u64 in, .param .u64 out) {{
            .reg .b32 a, c, d, n, s, t, w, x, y, z; .reg .b64 p, q, o; .reg .pred on, few;
            .reg .f32 f, g, h, i;
            ld.param.u64 p, [in]; ld.param.u64 q, [out]; mov.u32 t, %tid.x; mov.u32 s, smem;
            setp.lt.u32 few, t, 8; mad.lo.u32 a, t, 4, s; mad.lo.u32 c, t, 8, s; mad.lo.u32 d, t, 16, s;
            mul.wide.u32 o, t, 16; add.u64 p, p, o; add.u64 q, q, o;
            ld.global.v4.b32 {{x, y, z, w}}, [p]; st.shared.v4.b32 [d], {{x, y, z, w}}; bar.warp.sync 0xffffffff;
            mov.f32 f, 0f3f800000; mov.f32 g, f; mov.f32 h, f; mov.f32 i, f; mov.u32 n, {ROUNDS};
            again: {}
            sub.u32 n, n, 1; setp.ne.u32 on, n, 0; @on bra again;
            st.global.v4.b32 [q], {{x, y, z, w}}; ret; }}",
            body.repeat(UNROLLED)
        );
        let args = [RawArg::In(vec![0; 512]), RawArg::Out(512)];
        group.bench_function(name, |b| b.iter(|| execute(&text, (32, 512, false), &args)));
    }
}

/// Products on random operands, and a mix of arithmetic, on one core, with the machine's widest
/// vectors and with AVX2; the throughput is in instructions a second: of a warpgroup for wgmma, else
/// of a warp.
fn products(c: &mut Criterion) {
    const ROUNDS: u32 = 2048;
    let list = |name: &str, n: usize| {
        let all: Vec<_> = (0..n).map(|i| format!("{name}{i}")).collect();
        format!("{{{}}}", all.join(", "))
    };
    let wgmma = |a: &str, trans: &str| {
        let product = format!(
            "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {}, {a}, db, yes, 1, 1{trans};",
            list("d", 64)
        );
        format!(
            "wgmma.fence.sync.aligned; {} wgmma.commit_group.sync.aligned;
            wgmma.wait_group.sync.aligned 0;",
            product.repeat(4)
        )
    };
    let mma = format!(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {d}, {a}, {{a0, a2}}, {d};",
        d = list("d", 4),
        a = list("a", 4)
    );
    let mix = "mad.lo.u32 x, y, 3, i; add.u32 y, x, t; fma.rn.f32 f, g, g, f; xor.b32 i, i, y;
        add.f32 g, g, f; shl.b32 a0, i, 1; max.f32 h, f, g; and.b32 i, a0, y;";
    let cases = [
        ("wgmma.m64n128k16, both from shared memory", 128, 4, wgmma("da", ", 0, 0")),
        ("wgmma.m64n128k16, A from registers", 128, 4, wgmma(&list("a", 4), ", 1")),
        ("mma.m16n8k16", 32, 16, mma.repeat(16)),
        ("arithmetic", 32, 128, mix.repeat(16)),
    ];
    // bf16 of a normal distribution.
    let op = Op::all().next().expect("an operator");
    let values = prefill(op, 256).inputs(&Family::default(), 1)[0].bytes.clone();
    let words = values.len() / 4;
    let mut group = c.benchmark_group("product");
    group.sample_size(20);
    for (name, threads, unrolled, body) in cases {
        let text = format!(
            ".version 8.4\n.target sm_90a\n.address_size 64\n
            .extern .shared .align 1024 .b8 smem[];
            .visible .entry k(.param .u64 in, .param .u64 out) {{
            .reg .b32 t, s, n, i, x, y, a, d<64>, a<4>; .reg .f32 f, g, h;
            .reg .u64 p, q, o; .reg .b64 da, db; .reg .pred more, yes;
            ld.param.u64 p, [in]; ld.param.u64 q, [out]; mov.u32 t, %tid.x; mov.u32 s, smem;
            mul.wide.u32 o, t, 4; add.u64 p, p, o; add.u64 q, q, o;
            mad.lo.u32 a, t, 4, s; mov.u32 i, t;
            fill: ld.global.b32 x, [p]; st.shared.b32 [a], x;
            add.u64 p, p, {step}; add.u32 a, a, {step}; add.u32 i, i, {threads};
            setp.lt.u32 more, i, {words}; @more bra fill;
            fence.proxy.async; bar.sync 0;
            mad.lo.u32 a, t, 4, s; ld.shared.b32 a0, [a]; ld.shared.b32 a1, [a+512];
            ld.shared.b32 a2, [a+1024]; ld.shared.b32 a3, [a+1536];
            mov.b32 x, a0; mov.b32 y, a1; mov.b32 f, a0; mov.b32 g, a1; {zero}
            shr.u32 i, s, 4; mov.b64 da, {{i, 0x40000040}}; add.u32 i, i, 16;
            mov.b64 db, {{i, 0x40000040}};
            setp.eq.u32 yes, 0, 0; mov.u32 n, {ROUNDS};
            again: {body} sub.u32 n, n, 1; setp.ne.u32 more, n, 0; @more bra again;
            st.global.b32 [q], d0; ret; }}",
            step = 4 * threads,
            zero = (0..64).map(|i| format!("mov.b32 d{i}, 0; ")).collect::<String>(),
        );
        let args = [RawArg::In(values.clone()), RawArg::Out(512)];
        group.throughput(Throughput::Elements(u64::from(ROUNDS) * unrolled));
        for (with, narrow) in [("", false), (", AVX2", true)] {
            group.bench_function(format!("{name}{with}"), |b| {
                b.iter(|| execute(&text, (threads, 32768, narrow), &args))
            });
        }
    }
}

criterion_group!(benches, render, plan, inputs, reference, emulator, instructions, products);
criterion_main!(benches);
