//! Small programs that never end: the emulator stops them at a limit, and keeps little until then.
//!
//! Each runs in a process of its own, twice, the second time ten times as long: what it keeps must
//! not grow with the time that it runs.

use crossover::device::FaultKind;
use crossover::device::emulator::Checks;
use crossover::device::{Arg, BufferRole, DeviceError, Launch};
use crossover::op::DType;

use crate::common::{buffer, emulator, job, launch, peak_bytes, process_of};

/// How a program is run.
#[derive(Clone, Copy, PartialEq)]
enum How {
    /// As `crossover check` does.
    Check,
    /// Without checks, which would end it sooner.
    Unchecked,
    /// As `crossover profile` does.
    Profile,
}

/// Name, instructions before and within the loop, how it is run, and warp instructions.
const PROGRAMS: &[(&str, &str, &str, How, u64)] = &[
    ("setmaxnreg", "", "setmaxnreg.dec.sync.aligned.u32 24;", How::Check, 12_000_000),
    ("empty products", "", "wgmma.commit_group.sync.aligned;", How::Check, 12_000_000),
    (
        "products without a commit",
        "wgmma.fence.sync.aligned;",
        "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {d0, d1, d2, d3}, \
         {a0, a1, a2, a3}, desc, c, 1, 1, 0;",
        How::Check,
        500_000,
    ),
    (
        "products without a wait",
        "wgmma.fence.sync.aligned;",
        "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {d0, d1, d2, d3}, \
         {a0, a1, a2, a3}, desc, c, 1, 1, 0; wgmma.commit_group.sync.aligned;",
        How::Check,
        500_000,
    ),
    (
        "arrivals of no copies",
        "",
        "cp.async.mbarrier.arrive.noinc.shared.b64 [s];",
        How::Check,
        500_000,
    ),
    (
        "arrivals of copies",
        "cp.async.ca.shared.global [at + 1024], [p], 4;",
        "cp.async.mbarrier.arrive.noinc.shared.b64 [s];",
        How::Check,
        500_000,
    ),
    ("copies", "", "cp.async.ca.shared.global [at + 1024], [p], 4;", How::Unchecked, 4_000_000),
    (
        "bulk stores",
        "",
        "@first cp.async.bulk.global.shared::cta.bulk_group [q], [s + 8192], 8192;
         @first cp.async.bulk.commit_group;",
        How::Unchecked,
        4_000_000,
    ),
    (
        "bulk loads of nothing",
        "",
        "@first cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes \
         [s + 1024], [p], 0, [s];",
        How::Check,
        2_000_000,
    ),
    (
        "asynchronous reductions",
        "",
        "@first red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes\
         .add.u32 [s + 8192], t, [s];",
        How::Unchecked,
        4_000_000,
    ),
    ("profiled arrivals", "", "mbarrier.arrive.shared.b64 _, [s];", How::Profile, 1_000_000),
    ("profiled barriers", "", "bar.sync 1;", How::Profile, 9_000_000),
];

fn text(before: &str, within: &str) -> String {
    format!(
        ".version 8.3\n.target sm_90a\n.address_size 64\n\
         .extern .shared .align 1024 .b8 smem[];\n\
         .visible .entry k(.param .u64 in, .param .u64 out) .maxntid 128 .maxnreg 64\n{{\n\
         .reg .b32 t, s, at, x, d<4>, a<4>; .reg .b64 p, q, desc; .reg .pred first, c;\n\
         mov.u32 t, %tid.x; mov.u32 s, smem; setp.eq.u32 first, t, 0; setp.eq.u32 c, 0, 1;\n\
         ld.param.u64 p, [in]; ld.param.u64 q, [out]; shl.b32 at, t, 2; add.u32 at, at, s;\n\
         mov.u32 d0, 0; mov.u32 d1, 0; mov.u32 d2, 0; mov.u32 d3, 0;\n\
         mov.u32 a0, 0; mov.u32 a1, 0; mov.u32 a2, 0; mov.u32 a3, 0;\n\
         add.u32 x, s, 8192; shr.u32 x, x, 4; cvt.u64.u32 desc, x;\n\
         or.b64 desc, desc, 0x1000080000; mov.u32 x, 8192;\n\
         $fill: add.u32 d0, at, x; st.shared.b32 [d0], t; add.u32 x, x, 512;\n\
         setp.lt.u32 c, x, 16384; @c bra $fill; mov.u32 d0, 0;\n\
         @first mbarrier.init.shared.b64 [s], 1048575;\n\
         fence.mbarrier_init.release.cluster; fence.proxy.async; bar.sync 0;\n\
         {before}\n$again:\n{within}\nbra $again;\n}}\n"
    )
}

/// Runs it for so many steps; it must stop at a limit.
fn run(before: &str, within: &str, how: How, steps: u64) {
    let buffer = |name| buffer(name, BufferRole::ZeroedWorkspace, DType::Bf16, &[8192]);
    let args = vec![Arg::Buffer(0), Arg::Buffer(1)];
    let launch = Launch { shared_bytes: 32768, ..launch("k", 1, 128, args) };
    let text = text(before, within);
    let job = job("endless", text, vec![buffer("in"), buffer("out")], vec![launch]);
    let mut emulator = emulator().with_step_limit(steps);
    match how {
        How::Check => {}
        How::Unchecked => emulator = emulator.with_checks(Checks::NONE),
        How::Profile => emulator = emulator.with_l2().with_timing(),
    }
    let mut session = emulator.session(&job, &[]).unwrap_or_else(|e: DeviceError| panic!("{e}"));
    let trap = session.try_run().expect_err("an end");
    assert_eq!(trap.kind, FaultKind::StepLimit, "{trap}");
}

/// The variable that tells a process of this test which program it is to run, and how long.
const PROGRAM: &str = "CROSSOVER_ENDLESS";

/// What the processes run; nothing by itself.
#[test]
fn one() {
    let Ok(wanted) = std::env::var(PROGRAM) else { return };
    let (name, steps) = wanted.split_once('=').expect("a program and its steps");
    let &(_, before, within, how, _) =
        PROGRAMS.iter().find(|p| p.0 == name).expect("a program of the list");
    run(before, within, how, steps.parse().expect("a number"));
    println!("peak {}", peak_bytes() / 1024);
}

#[test]
fn endless_programs_keep_little() {
    if !cfg!(target_os = "linux") {
        eprintln!("skipped: how much memory a process has is asked of Linux");
        return;
    }
    let peak_of = |name: &str, steps: u64| -> u64 {
        let out = process_of("endless::one")
            .env(PROGRAM, format!("{name}={steps}"))
            .output()
            .expect("a process");
        let said = String::from_utf8_lossy(&out.stdout);
        let peak = said.split_once("peak ").and_then(|(_, n)| n.split_whitespace().next());
        peak.and_then(|n| n.parse().ok()).unwrap_or_else(|| {
            panic!("{name}, {steps} steps: {said}{}", String::from_utf8_lossy(&out.stderr))
        })
    };
    let mut faults = Vec::new();
    for &(name, _, _, how, steps) in PROGRAMS {
        // What a trace may hold is full behind the first of the two.
        let short = if how == How::Profile { steps / 3 } else { steps / 10 };
        let (before, after) = (peak_of(name, short), peak_of(name, steps));
        println!("{name}: {before} KiB, {after} KiB");
        if after > before + 16 * 1024 || after > 1024 * 1024 {
            faults.push(format!("{name}: {before} KiB at {short} steps, {after} KiB at {steps}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
