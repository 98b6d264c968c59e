//! What an emulated run costs, by counts that repeat exactly: instructions grow with the work, and
//! memory with the pages that executed CTAs touch.

use crossover::device::emulator::Checks;
use crossover::device::{Arg, BufferRole, CtaShare, Job, Loaded};
use crossover::op::{DType, Family, Role, Side};

use crate::common::{buffer, emulator, is_alone, job, kernel, launch, peak_bytes, plain};

/// Warp instructions that the emulator executes for a kernel on `t` tokens.
fn executed(name: &str, t: usize, heads: usize) -> f64 {
    let kernel = kernel(name);
    let mut problem = plain(kernel.manifest.op, t).with_role(Role::Heads, heads);
    if kernel.manifest.op.side() == Side::Linear {
        problem = problem.with("H", heads);
    }
    // One tile for all sizes.
    let small = plain(kernel.manifest.op, 512);
    let tile = kernel.default_tile(&small).expect("a default tile");
    let job = kernel.job(&problem, &tile).expect("a job");
    let emulator = emulator().with_checks(Checks::UNORDERED);
    let inputs = problem.inputs(&Family::default(), 1);
    let mut session = emulator.session(&job, &inputs).expect("a session");
    session.run().expect("a run").counts.expect("counts").total_instructions() as f64
}

#[test]
fn instructions_grow_with_the_work() {
    let near = |ratio: f64, want: f64, off: f64, what: &str| {
        assert!((ratio / want - 1.0).abs() < off, "{what}: {ratio} times as many, not {want}");
    };
    for kernel in ["gated_delta_rule/prefill.sm80", "kda/prefill.sm80"] {
        let [one, two, four] = [512, 1024, 2048].map(|t| executed(kernel, t, 1));
        near(two / one, 2.0, 0.02, kernel);
        near(four / two, 2.0, 0.01, kernel);
        near(executed(kernel, 512, 2) / one, 2.0, 0.001, kernel);
    }
    // Full attention meets every query with every key; what a tile costs beside them is a part of it.
    for kernel in ["attention/prefill.sm80", "attention/prefill.sm90a"] {
        let [one, two] = [1536, 3072].map(|t| executed(kernel, t, 1));
        near(two / one, 4.0, 0.05, kernel);
        near(executed(kernel, 1536, 2) / one, 2.0, 0.02, kernel);
    }
}

/// Of `CTAS`, each writes and reads 128 bytes of its own `APART` bytes of a workspace.
const CTAS: u32 = 1 << 16;
const APART: usize = 1 << 15;

fn sparse() -> Job {
    let text = format!(
        ".version 8.1\n.target sm_90\n.address_size 64\n
        .visible .entry sparse(.param .u64 work, .param .u64 out) {{
        .reg .b32 c, t, x; .reg .b64 at, o; .reg .pred first;
        mov.u32 c, %ctaid.x; mov.u32 t, %tid.x; ld.param.u64 at, [work];
        mul.wide.u32 o, c, {APART}; add.u64 at, at, o; mul.wide.u32 o, t, 4; add.u64 at, at, o;
        add.u32 x, c, t; st.global.b32 [at], x; ld.global.b32 x, [at];
        setp.ne.u32 first, t, 0; @first ret;
        ld.param.u64 at, [out]; mul.wide.u32 o, c, 4; add.u64 at, at, o; st.global.b32 [at], x;
        ret; }}\n"
    );
    let buffer = |name, role, words| buffer(name, role, DType::Fp32, &[words]);
    job(
        "sparse",
        text,
        vec![
            buffer("work", BufferRole::Workspace, CTAS as usize * APART / 4),
            buffer("out", BufferRole::Output(0), CTAS as usize),
        ],
        vec![launch("sparse", CTAS, 32, vec![Arg::Buffer(0), Arg::Buffer(1)])],
    )
}

/// 64 CTAs of 65536 touch 64 pages of 2 GiB.
#[cfg(target_os = "linux")]
#[test]
fn memory_grows_with_the_pages_that_are_touched() {
    // What this process has in memory must be of this test.
    if !is_alone("bounds::memory_grows_with_the_pages_that_are_touched") {
        return;
    }
    let job = sparse();
    let whole = job.buffers[0].bytes() as u64;
    assert_eq!(whole, 1 << 31);
    for checks in [Checks::UNORDERED, Checks::ALL] {
        let before = peak_bytes();
        let emulator = emulator().with_checks(checks);
        let mut session = emulator.session(&job, &[]).expect("a session");
        session.limit_ctas(CtaShare::Most(64)).expect("a sample");
        for _ in 0..2 {
            let run = session.run().unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(run.share.map(|s| (s.executed, s.of)), Some((64, CTAS.into())));
            let words = run.outputs[0].bytes.as_chunks::<4>().0;
            let computed = &run.computed.expect("what was computed")[0].0;
            assert_eq!(computed.iter().filter(|yes| **yes).count(), 64);
            for (cta, (word, yes)) in words.iter().zip(computed).enumerate() {
                assert_eq!(u32::from_le_bytes(*word), if *yes { cta as u32 } else { u32::MAX });
            }
        }
        // Sector maps of a sampled buffer, and pages of race shadows.
        let more = peak_bytes() - before;
        assert!(more < whole / 16, "{} MiB more in memory", more >> 20);
    }
}
