//! CTA sampling on the emulator: a part of the CTAs executed, counts extrapolated, outputs held
//! against fp64 where they were computed.

use crossover::device::emulator::{Checks, Emulator, LaunchProfile, Session};
use crossover::device::{
    Arg, BufferRole, Counts, CtaShare, DeviceError, Job, Launch, Loaded, Outcome,
};
use crossover::kernel::{Kernel, Tile};
use crossover::op::{DType, Family, Problem, Tensor};
use crossover::record::{Record, Verification};
use crossover::sweep::{Source, Sweep};
use crossover::verify::hold_run;
use predicates::str::contains;
use serde_json::Value;

use crate::common::{self, buffer, crossover, job, kernel, launch, registry};

const SM80: &str = "attention/prefill.sm80";
const SM90A: &str = "attention/prefill.sm90a";
const DELTA: &str = "gated_delta_rule/prefill.sm80";
const SEED: u64 = 3;

fn emulator(checks: Checks) -> Emulator {
    common::emulator().with_checks(checks)
}

/// The problem of a group of a sweep, with its default tile.
fn problem(kernel: &Kernel, group: &str) -> (Problem, Tile) {
    let op = kernel.manifest.op;
    let text = format!("name = 'x'\n[[group]]\nop = '{op}'\nkernels = '{}'\n{group}", kernel.name);
    let sweep = Sweep::parse(Source::new("x.toml", text)).unwrap_or_else(|e| panic!("{e}"));
    let plan = sweep.plan(registry(), None, None).unwrap_or_else(|e| panic!("{e}"));
    let case = plan.runnable().next().expect("a case").clone();
    (case.problem, case.tile)
}

/// A job with its inputs, and what a run of it gave.
struct Bench {
    problem: Problem,
    inputs: Vec<Tensor>,
    job: Job,
}

struct Ran {
    outcome: Outcome,
    profiles: Vec<LaunchProfile>,
}

impl Ran {
    fn counts(&self) -> &Counts {
        self.outcome.counts.as_ref().expect("counts")
    }

    /// CTAs executed, of how many.
    fn executed(&self) -> (u64, u64) {
        (self.counts().executed_ctas.unwrap_or(self.counts().ctas), self.counts().ctas)
    }
}

impl Bench {
    fn new(name: &str, group: &str) -> Bench {
        let kernel = kernel(name);
        let (problem, tile) = problem(kernel, group);
        let job = kernel.job(&problem, &tile).expect("a job");
        let inputs = problem.inputs(&Family::default(), SEED);
        Bench { problem, inputs, job }
    }

    fn run(&self, sampling: CtaShare) -> Ran {
        self.run_on(&emulator(Checks::ALL), sampling)
    }

    fn run_on(&self, emulator: &Emulator, sampling: CtaShare) -> Ran {
        let mut session = emulator.session(&self.job, &self.inputs).expect("a session");
        session.limit_ctas(sampling).expect("a job that can be sampled");
        let outcome = session.run().unwrap_or_else(|e| panic!("{e}"));
        Ran { outcome, profiles: session.profiles().to_vec() }
    }

    fn verify(&self, ran: &Ran) -> Verification {
        let (family, all) = (Family::default(), f64::INFINITY);
        hold_run(&self.problem, &family, &self.inputs, &ran.outcome, all).verification
    }
}

/// Every count that is extrapolated, by name.
fn counted(c: &Counts) -> Vec<(String, u64)> {
    let mut all: Vec<(String, u64)> = vec![
        ("ctas".into(), c.ctas),
        ("special".into(), c.special_ops),
        ("read sectors".into(), c.global_read_sectors),
        ("write sectors".into(), c.global_write_sectors),
        ("wavefronts".into(), c.shared_wavefronts),
        ("conflicts".into(), c.bank_conflicts),
        ("bulk read".into(), c.bulk_read_bytes),
        ("bulk written".into(), c.bulk_write_bytes),
    ];
    all.extend(c.instructions.iter().map(|(k, n)| (k.clone(), *n)));
    all.extend(c.tensor_flops.iter().map(|(k, n)| (format!("{k} FLOPs"), *n)));
    all
}

/// The largest relative distance of the counts that make up at least 1% of their kind.
fn furthest(part: &Counts, whole: &Counts) -> (f64, String) {
    let (part, all) = (counted(part), counted(whole));
    let instructions = whole.total_instructions() as f64;
    assert_eq!(part.len(), all.len());
    let mut worst = (0.0, String::new());
    for ((name, a), (same, b)) in part.into_iter().zip(all) {
        assert_eq!(name, same);
        let small = whole.instructions.contains_key(&name) && (b as f64) < 0.01 * instructions;
        let off = (a as f64 - b as f64).abs() / (b as f64).max(1.0);
        if off > worst.0 && !small {
            worst = (off, format!("{name}: {a} for {b}"));
        }
    }
    worst
}

#[test]
fn equal_ctas_extrapolate_exactly() {
    let bench = Bench::new(SM80, "T = 512\nHq = 8\nHkv = 2\nD = 64\ncausal = false");
    let (whole, part) = (bench.run(CtaShare::All), bench.run(CtaShare::Most(10)));
    assert_eq!((whole.executed(), part.executed()), ((64, 64), (10, 64)));
    assert_eq!(counted(part.counts()), counted(whole.counts()));
    // By line as well, and so the modelled time.
    let (a, b) = (&whole.profiles[0], &part.profiles[0]);
    assert_eq!(a.lines, b.lines);
    assert_eq!((&a.steps, a.warp_cycles, a.pipe_cycles), (&b.steps, b.warp_cycles, b.pipe_cycles));
    // An upper bound of what is distinct: here all buffers are touched whole.
    assert_eq!(part.counts().unique_read_sectors, whole.counts().unique_read_sectors);
    assert_eq!(part.counts().unique_write_sectors, whole.counts().unique_write_sectors);
    assert_eq!(whole.counts().executed_ctas, None);
    assert!(whole.outcome.share.is_none() && whole.outcome.computed.is_none());
}

/// Two of the kernel's instructions depend on the data: whether the output is scaled again.
#[test]
fn equal_persistent_ctas_extrapolate_to_within_a_few_thousandths() {
    let bench = Bench::new(SM90A, "T = 1152\nHq = 8\nHkv = 2\nD = 64\ncausal = false");
    let (whole, part) = (bench.run(CtaShare::All), bench.run(CtaShare::Most(12)));
    assert_eq!(part.executed().0, 12);
    assert!(part.executed().1 >= 40, "{:?}", part.executed());
    let (off, what) = furthest(part.counts(), whole.counts());
    assert!(off < 3e-3, "{off}: {what}");
    let same = |c: &Counts| (c.tensor_flops.clone(), c.global_read_sectors, c.bulk_read_bytes);
    assert_eq!(same(part.counts()), same(whole.counts()));
}

#[test]
fn unequal_ctas_extrapolate_to_within_a_few_percent() {
    // Causal: persistent CTAs of one unit or two; and CTAs of 1 to 32 blocks in order.
    let groups = [
        (SM90A, "T = 1024\nHq = 40\nHkv = 8\nD = 64\ncausal = true", 32),
        (SM80, "T = 2048\nHq = 4\nHkv = 2\nD = 64\ncausal = true", 24),
    ];
    for (kernel, group, n) in groups {
        let bench = Bench::new(kernel, group);
        let on = emulator(Checks::UNORDERED);
        let (whole, part) =
            (bench.run_on(&on, CtaShare::All), bench.run_on(&on, CtaShare::Most(n)));
        let (executed, of) = part.executed();
        assert!(executed == n && of > 2 * n, "{executed} of {of}");
        let (off, what) = furthest(part.counts(), whole.counts());
        assert!(off < 0.04, "{kernel}: {off}: {what}");
        let steps = |r: &Ran| r.profiles[0].steps.clone();
        let (least, most) = (steps(&whole).into_iter().min(), steps(&whole).into_iter().max());
        assert!(least < most, "CTAs of {kernel} are alike");
        // Short and long CTAs are among them, and each CTA has a length in the schedule.
        assert_eq!(steps(&part).len(), steps(&whole).len());
        let near = |a: Option<u64>, b: Option<u64>| {
            let (a, b) = (a.unwrap() as f64, b.unwrap() as f64);
            (a / b - 1.0).abs() < 0.2
        };
        assert!(near(steps(&part).into_iter().min(), least), "{kernel}: shortest");
        assert!(near(steps(&part).into_iter().max(), most), "{kernel}: longest");
        assert!(bench.verify(&part).passed);
    }
}

#[test]
fn the_same_ctas_every_time_and_on_any_number_of_cores() {
    let bench = Bench::new(SM80, "T = 512\nHq = 8\nD = 64\ncausal = true");
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    let a = bench.run(CtaShare::Most(9));
    let b = one.install(|| bench.run(CtaShare::Most(9)));
    assert_eq!(a.outcome.outputs, b.outcome.outputs);
    assert_eq!(a.outcome.computed, b.outcome.computed);
    assert_eq!(a.outcome.counts, b.outcome.counts);
    assert_eq!(a.profiles, b.profiles);
}

#[test]
fn what_is_computed_has_the_bits_of_a_full_run_and_the_rest_is_poison() {
    let bench = Bench::new(SM80, "T = 300\nHq = 8\nD = 64\ncausal = true");
    let (whole, part) = (bench.run(CtaShare::All), bench.run(CtaShare::Most(9)));
    let computed = part.outcome.computed.as_ref().expect("a map of what was computed");
    assert_eq!(computed.len(), 2);
    for ((computed, a), b) in computed.iter().zip(&whole.outcome.outputs).zip(&part.outcome.outputs)
    {
        let share = computed.share();
        assert!(share > 0.1 && share < 0.5, "{share}");
        let size = a.dtype.bytes();
        let pieces = a.bytes.chunks(size).zip(b.bytes.chunks(size));
        for ((a, b), written) in pieces.zip(&computed.0) {
            if *written {
                assert_eq!(a, b);
            } else {
                assert!(b.iter().all(|b| *b == 0xff));
            }
        }
    }
    let v = bench.verify(&part);
    assert!(v.passed, "{v:?}");
    for (o, computed) in v.outputs.iter().zip(computed) {
        let share = o.share.expect("a share");
        // The reference had no limit here: all that was computed is held.
        assert_eq!((share.computed, share.verified), (computed.share(), computed.share()));
    }
    assert!(v.subset.expect("a subset").contains("executed CTAs"));
    assert!(bench.verify(&whole).outputs.iter().all(|o| o.share.is_none()));
}

/// Halves the softmax's scale in the CTA at `x`, `y`.
fn plant(job: &Job, [x, y]: [u32; 2]) -> Job {
    const AT: &str = "ld.param.f32 c, [c_param];";
    let fault = format!(
        "{AT} {{ .reg .b32 at; .reg .pred here; mov.u32 at, %ctaid.x; setp.eq.u32 here, at, {x}; \
         mov.u32 at, %ctaid.y; setp.eq.and.u32 here, at, {y}, here; \
         @here mul.f32 c, c, 0f3F000000; }}"
    );
    let mut job = job.clone();
    assert_eq!(job.ptx.text.matches(AT).count(), 1);
    job.ptx.text = job.ptx.text.replace(AT, &fault);
    job
}

#[test]
fn an_error_is_found_where_it_was_computed_and_only_there() {
    // Eight heads along x, eight blocks of 64 rows along y.
    let mut bench = Bench::new(SM80, "T = 512\nHq = 8\nD = 64\ncausal = false");
    let sampling = CtaShare::Most(12);
    let right = bench.run(sampling);
    assert_eq!(bench.job.launches[0].grid, [8, 8, 1]);
    let o = &right.outcome.computed.as_ref().expect("a map")[0].0;
    let executed = |x: usize, y: usize| o[(64 * y * 8 + x) * 64];
    let all: Vec<(usize, usize)> = (0..64).map(|i| (i % 8, i / 8)).collect();
    assert_eq!(all.iter().filter(|(x, y)| executed(*x, *y)).count(), 12);
    assert!(executed(0, 0) && executed(7, 7));
    let sound = bench.job.clone();
    let inside = all[10..].iter().find(|(x, y)| executed(*x, *y)).expect("one inside");
    let outside = all[10..].iter().find(|(x, y)| !executed(*x, *y)).expect("one left out");

    for (x, y) in [(0, 0), (7, 7), *inside] {
        bench.job = plant(&sound, [x as u32, y as u32]);
        let v = bench.verify(&bench.run(sampling));
        assert!(!v.passed, "an error in CTA {x} {y}");
        let bad = v.outputs[0].first_bad.clone().expect("its place");
        assert!(bad.contains(&format!("Tq={} Hq={x}", 64 * y)), "{bad}");
    }

    // What is not executed is not found, and the verification claims no more than its share.
    let (x, y) = *outside;
    bench.job = plant(&sound, [x as u32, y as u32]);
    let v = bench.verify(&bench.run(sampling));
    assert!(v.passed);
    let share = v.outputs[0].share.expect("a share");
    assert_eq!((share.computed, share.verified), (12.0 / 64.0, 12.0 / 64.0));
    assert_eq!(share.to_string(), "19% computed, 19% verified");
    // It is an error: executing all CTAs finds it.
    assert!(!bench.verify(&bench.run(CtaShare::All)).passed);
}

#[test]
fn what_a_later_launch_needs_is_executed_whole() {
    let group = "T = 200\nHV = 8\nH = 4\nK = 64\nV = 64\ntile = 'BV=16,SPLIT=2,STAGES=3'";
    let bench = Bench::new(DELTA, group);
    let (whole, part) = (bench.run(CtaShare::All), bench.run(CtaShare::Most(8)));
    let sample = part.outcome.share.clone().expect("a sample");
    let [intra, state] = &sample.launches[..] else { panic!("{sample:?}") };
    assert_eq!((intra.executed, intra.of), (16, 16));
    let why = intra.whole.as_ref().expect("a reason");
    assert!(why.contains("`state` needs") && why.contains("`tb`"), "{why}");
    assert_eq!(state.executed, 8);
    assert!(state.of >= 32 && state.whole.is_none(), "{state:?}");
    assert_eq!(part.profiles[0].counts, whole.profiles[0].counts);
    assert_eq!(counted(&part.profiles[1].counts), counted(&whole.profiles[1].counts));
    let v = bench.verify(&part);
    assert!(v.passed, "{v:?}");
    let shares: Vec<_> = v.outputs.iter().map(|o| o.share.expect("a share").computed).collect();
    assert_eq!(shares, [8.0 / state.of as f64; 2]);
}

#[test]
fn packed_sequences_are_planned_whole_and_sampled() {
    let bench = Bench::new(SM90A, "lens = '700+8x100+300'\nHq = 8\nD = 64\ncausal = true");
    let part = bench.run(CtaShare::Most(12));
    let sample = part.outcome.share.clone().expect("a sample");
    let executed: Vec<_> = sample.launches.iter().map(|l| (&*l.entry, l.executed)).collect();
    assert_eq!(executed, [("attention_plan", 1), ("attention_prefill", 12)]);
    assert!(sample.launches[1].of > 24, "{sample:?}");
    let v = bench.verify(&part);
    assert!(v.passed, "{v:?}");
}

/// A job of small entries in PTX: each a grid of `ctas` and the buffers it takes.
fn small(text: &str, cluster: u32, entries: &[(&str, u32, &[usize])], roles: &[BufferRole]) -> Job {
    let buffer =
        |(i, role): (usize, &BufferRole)| buffer(&format!("b{i}"), *role, DType::Fp32, &[1024]);
    let launch = |(entry, ctas, args): &(&str, u32, &[usize])| {
        let args = args.iter().map(|b| Arg::Buffer(*b)).collect();
        Launch { cluster: [cluster, 1, 1], ..launch(entry, *ctas, 32, args) }
    };
    let text = format!(".version 8.1\n.target sm_90\n.address_size 64\n{text}");
    let buffers = roles.iter().enumerate().map(buffer).collect();
    job("small", text, buffers, entries.iter().map(launch).collect())
}

/// Each CTA does `body` with `i`, its number times 32 plus the lane, and `at`, the element `i` of
/// its one argument.
fn entry(name: &str, body: &str) -> String {
    format!(
        ".visible .entry {name}(.param .u64 p)\n{{ .reg .b32 c, t, i, x; .reg .b64 at, o;\n\
         mov.u32 c, %ctaid.x; mov.u32 t, %tid.x; mad.lo.u32 i, c, 32, t;\n\
         ld.param.u64 at, [p]; mul.wide.u32 o, i, 4; add.u64 at, at, o;\n{body}\nret; }}\n"
    )
}

fn sampled<'d>(
    emulator: &'d Emulator,
    job: &Job,
    sampling: CtaShare,
) -> Result<Session<'d>, DeviceError> {
    let mut session = emulator.session(job, &[]).expect("a session");
    session.limit_ctas(sampling)?;
    Ok(session)
}

#[test]
fn clusters_are_whole() {
    let text = entry(
        "k",
        "barrier.cluster.arrive; barrier.cluster.wait; st.global.b32 [at], i; \
         barrier.cluster.arrive; barrier.cluster.wait;",
    );
    let job = small(&text, 4, &[("k", 32, &[0])], &[BufferRole::Output(0)]);
    let on = emulator(Checks::ALL);
    let mut session = sampled(&on, &job, CtaShare::Most(14)).expect("a sample");
    let run = session.run().expect("a run");
    let counts = run.counts.expect("counts");
    assert_eq!((counts.ctas, counts.executed_ctas), (32, Some(16)));
    assert_eq!(counts.instructions["store_global"], 32);
    let written = &run.computed.expect("a map")[0].0;
    let clusters: Vec<bool> = written
        .chunks(4 * 32)
        .map(|c| {
            assert!(c.iter().all(|w| *w == c[0]), "a part of a cluster");
            c[0]
        })
        .collect();
    assert_eq!(clusters.iter().filter(|c| **c).count(), 4);
    assert!(clusters[0] && clusters[7]);
}

#[test]
fn launches_that_cannot_be_sampled_say_why() {
    let store = entry("k", "st.global.b32 [at], i;");
    let load = entry("l", "ld.global.b32 x, [at]; st.global.b32 [at], x;");
    let count = entry("k", "ld.param.u64 at, [p]; atom.global.add.u32 x, [at], 1;");
    let flag = entry("k", "st.release.gpu.global.b32 [at], i;");
    let variable = format!(".global .b32 total;\n{store}");
    let output = [BufferRole::Output(0)];
    let zeroed = [BufferRole::ZeroedWorkspace];
    let both = format!("{store}{load}");
    let two: &[(&str, u32, &[usize])] = &[("k", 32, &[0]), ("l", 32, &[0])];
    let one: &[(&str, u32, &[usize])] = &[("k", 32, &[0])];
    let cases = [
        (small(&count, 1, one, &zeroed), "work together through global memory"),
        (small(&flag, 1, one, &output), "work together through global memory"),
        (small(&variable, 1, one, &output), "variables in global memory"),
        (small(&both, 1, two, &output), "`l` needs what all of them leave in `b0`"),
        (small(&both, 1, two, &output), "`k` works on the output `b0` as well"),
    ];
    let on = emulator(Checks::UNORDERED);
    for (job, why) in cases {
        let refused = sampled(&on, &job, CtaShare::Most(8)).err().expect("a refusal").to_string();
        let words = ["small: its CTAs cannot be sampled", why, "all 32 CTAs of k executed"];
        assert!(words.iter().all(|w| refused.contains(w)), "{refused}\nwants {why}");
        // A budget leaves it at that: all are executed, and the outcome says why.
        let mut session = sampled(&on, &job, CtaShare::Fraction(0.1)).expect("a session");
        let run = session.run().expect("a run");
        assert_eq!(run.counts.expect("counts").executed_ctas, None);
        let sample = run.share.expect("what was asked for");
        assert!(!sample.is_part() && run.computed.is_none());
        assert!(sample.sentences().concat().contains(why), "{sample:?}");
    }
    // Few CTAs are executed without a word.
    let job = small(&count, 1, one, &zeroed);
    assert!(sampled(&on, &job, CtaShare::Most(32)).expect("a session").share().is_none());
}

#[test]
fn a_workspace_between_launches_is_written_whole() {
    let store = entry("k", "st.global.b32 [at], i;");
    let take = ".visible .entry l(.param .u64 p, .param .u64 q)\n{ .reg .b32 c, t, i, x; \
                .reg .b64 at, to, o;\nmov.u32 c, %ctaid.x; mov.u32 t, %tid.x; \
                mad.lo.u32 i, c, 32, t; sub.u32 x, 1023, i; ld.param.u64 at, [p]; \
                mul.wide.u32 o, x, 4; add.u64 at, at, o; ld.global.b32 x, [at]; \
                ld.param.u64 to, [q]; mul.wide.u32 o, i, 4; add.u64 to, to, o; \
                st.global.b32 [to], x; ret; }\n";
    let entries: &[(&str, u32, &[usize])] = &[("k", 32, &[0]), ("l", 32, &[0, 1])];
    let roles = [BufferRole::Workspace, BufferRole::Output(0)];
    let job = small(&format!("{store}{take}"), 1, entries, &roles);
    let on = emulator(Checks::ALL);
    let run = sampled(&on, &job, CtaShare::Most(5)).expect("a sample").run().expect("a run");
    let sample = run.share.expect("a sample");
    let executed: Vec<_> = sample.launches.iter().map(|l| l.executed).collect();
    assert_eq!((executed, sample.executed, sample.of), (vec![32, 5], 37, 64));
    let counts = run.counts.expect("counts");
    assert_eq!((counts.ctas, counts.executed_ctas), (64, Some(37)));
    let words = run.outputs[0].bytes.as_chunks::<4>().0;
    for (i, (word, written)) in words.iter().zip(&run.computed.expect("a map")[0].0).enumerate() {
        assert_eq!(u32::from_le_bytes(*word), if *written { 1023 - i as u32 } else { u32::MAX });
    }
}

#[test]
fn a_read_of_what_was_left_out_says_so() {
    // Each CTA but the first reads what the one before it wrote, and nothing orders them.
    let body = "st.global.b32 [at], i; setp.eq.u32 first, c, 0; @first ret; \
                ld.global.b32 x, [at+-128];";
    let text = entry("k", &format!(".reg .pred first; {body}"));
    let job = small(&text, 1, &[("k", 32, &[0])], &[BufferRole::Output(0)]);
    let on = emulator(Checks::UNORDERED);
    let mut session = sampled(&on, &job, CtaShare::Most(8)).expect("a sample");
    let trap = session.run().expect_err("a read of unwritten memory").to_string();
    assert!(trap.contains("never written") && trap.contains("--sample-ctas all"), "{trap}");
}

#[test]
fn records_and_reports_say_sampled() {
    let folder = tempfile::tempdir().expect("a folder");
    let sweep = "name = 'part'\ndevice = 'emulator'\nsample_ctas = 6\n[[group]]\n\
                 op = 'attention'\nkernels = '*.sm80'\nT = 1024\nHq = 4\nHkv = 2\nD = 64\n\
                 causal = true\n";
    std::fs::write(folder.path().join("part.toml"), sweep).expect("a sweep");
    let run = |args: &[&str], out: &str| -> Record {
        let all = [&["run", "part.toml", "--out", out], args].concat();
        let said = crossover(&all).current_dir(folder.path()).assert().success();
        let said = String::from_utf8_lossy(&said.get_output().stdout).into_owned();
        assert_eq!(said.contains("sampled 6 of 32 CTAs"), out == "part", "{said}");
        let file = folder.path().join(out).join("records.jsonl");
        serde_json::from_str(&std::fs::read_to_string(file).expect("records")).expect("a record")
    };
    let (part, all) = (run(&[], "part"), run(&["--sample-ctas", "all"], "all"));
    let sampled = |r: &Record| r.traffic.clone().expect("traffic").sampled.expect("sampled");
    let ctas = sampled(&part).ctas.expect("CTAs");
    assert_eq!((ctas.executed, ctas.of, sampled(&part).times), (6, 32, 2));
    assert_eq!(sampled(&all).ctas, None);
    let counts = |r: &Record| r.traffic.clone().expect("traffic").counts.expect("counts");
    assert_eq!((counts(&part).executed_ctas, counts(&part).ctas), (Some(6), 64));
    assert_eq!((counts(&all).executed_ctas, counts(&all).ctas), (None, 64));
    assert_eq!(counts(&part).l2, None);
    let v = part.verification.clone().expect("a verification");
    assert!(v.passed && v.subset.is_some());
    let share = v.outputs[0].share.expect("a share");
    assert!((share.computed - 6.0 / 32.0).abs() < 1e-9 && share.verified <= share.computed);
    let report = std::fs::read_to_string(folder.path().join("part/report.md")).expect("a report");
    assert!(report.contains("1 case executed a part of the CTAs"), "{report}");
    assert!(report.contains("6 of 32"), "{report}");
    let report = std::fs::read_to_string(folder.path().join("all/report.md")).expect("a report");
    assert!(!report.contains("a part of the CTAs"), "{report}");

    let bad = sweep.replace("sample_ctas = 6", "sample_ctas = 'some'");
    std::fs::write(folder.path().join("bad.toml"), bad).expect("a sweep");
    let bad = crossover(&["plan", "bad.toml"]).current_dir(folder.path()).assert().code(2);
    bad.stderr(contains("bad.toml:3:15: sample_ctas: expected auto, all or a number of CTAs"));
}

#[test]
fn profiles_and_runs_of_one_kernel_say_sampled() {
    let of = "T=512,Hq=4,Hkv=1,D=64,causal=true";
    let args = ["profile", SM80, "-p", of, "--summary", "--sample-ctas", "5"];
    let out = crossover(&args).assert().success();
    out.stdout(contains("sampled: executed 5 of 32 CTAs, counts are extrapolated"))
        .stdout(contains("L2 is not modelled"))
        .stdout(contains("at most"))
        .stdout(contains("16% computed"))
        .stdout(contains("5 of them executed as"));

    let folder = tempfile::tempdir().expect("a folder");
    let exec = |args: &[&str]| {
        let base = ["exec", SM80, "--inputs", "in.safetensors", "--out", "out.safetensors"];
        let all = [&base[..], &["--causal", "--device", "emulator", "--verify"], args].concat();
        crossover(&all).current_dir(folder.path()).assert().success()
    };
    crossover(&["inputs", "attention", "-p", of, "--out", "in.safetensors"])
        .current_dir(folder.path())
        .assert()
        .success();
    exec(&["--sample-ctas", "5"])
        .stdout(contains("sampled: executed 5 of 32 CTAs"))
        .stdout(contains("16% computed, 16% verified"));
    let nans = || {
        let bytes = std::fs::read(folder.path().join("out.safetensors")).expect("outputs");
        let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("tensors");
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).expect("metadata");
        let said = header.metadata().as_ref().and_then(|m| m.get("sampled").cloned());
        let o = tensors.tensor("o").expect("o").data().to_vec();
        (o.chunks(2).filter(|b| *b == [0xff, 0xff]).count(), o.len() / 2, said)
    };
    let (missing, elements, said) = nans();
    assert_eq!(missing, elements / 32 * 27);
    let said = said.expect("metadata");
    assert!(said.contains("5 of 32 CTAs executed") && said.contains("NaN"), "{said}");
    // Everything, unless told otherwise.
    exec(&[]).stdout(predicates::str::contains("sampled").count(0));
    assert_eq!((nans().0, nans().2), (0, None));
    let json = exec(&["--sample-ctas", "5", "--json"]).get_output().stdout.clone();
    let json: Value = serde_json::from_slice(&json).expect("an object");
    assert_eq!((&json["sample"]["executed"], &json["sample"]["of"]), (&5.into(), &32.into()));
    assert_eq!(json["counts"]["executed_ctas"], 5);
}
