//! The model of time against what an H200 took for the same small programs
//! (reports/h200-latencies): cycles of one more step, so that launches cancel out.

use crossover::device::emulator::{Checks, Emulator};
use crossover::device::model::DeviceModel;
use crossover::device::{Arg, BufferRole, Clock, Launch, Loaded};
use crossover::op::DType;

use crate::common::{buffer, job, launch};

/// Modelled cycles of a kernel of `body`, in clusters of `cluster` CTAs.
fn cycles(body: &str, threads: u32, cluster: u32) -> f64 {
    let text = format!(
        ".version 8.0\n.target sm_90a\n.address_size 64\n.extern .shared .align 1024 .b8 sh[];\n\
         .visible .entry k(.param .u64 po)\n{{\n\
         .reg .u32 tid, smem, peer, r<4>; .reg .u64 out, da, db; .reg .f32 f<16>; .reg .f32 d<64>;\n\
         .reg .b32 a<4>; .reg .pred first, second, mine, yes;\n\
         ld.param.u64 out, [po]; cvta.to.global.u64 out, out;\n\
         mov.u32 tid, %tid.x; mov.u32 smem, sh; setp.eq.u32 first, tid, 0; setp.eq.u32 yes, 0, 0;\n\
         setp.eq.u32 second, tid, 32; setp.ge.u32 mine, tid, 32; mov.f32 f0, 0f00000000;\n\
         {body}\n@first st.global.f32 [out], f0;\nret;\n}}\n"
    );
    let launch = Launch {
        cluster: [cluster, 1, 1],
        shared_bytes: 65536,
        ..launch("k", cluster, threads, vec![Arg::Buffer(0)])
    };
    let out = buffer("out", BufferRole::Output(0), DType::Fp32, &[1]);
    let job = job("k", text, vec![out], vec![launch]);
    let model = DeviceModel::named("h200").expect("a described device");
    let ghz = f64::from(model.sm_mhz) / 1e3;
    let emulator = Emulator::new(model).with_timing().with_checks(Checks::NONE);
    let mut session = emulator.session(&job, &[]).unwrap_or_else(|e| panic!("{e}"));
    session.run().unwrap_or_else(|e| panic!("{e}"));
    match session.clock(1) {
        Clock::Modelled(Some(modelled)) => modelled.ns * ghz,
        _ => panic!("no modelled time"),
    }
}

/// Cycles of each of 12 more repetitions, which `body` makes.
fn each(body: impl Fn(usize) -> String, threads: u32, cluster: u32) -> f64 {
    (cycles(&body(16), threads, cluster) - cycles(&body(4), threads, cluster)) / 12.0
}

fn near(what: &str, modelled: f64, measured: f64, percent: f64) {
    let off = (modelled / measured - 1.0) * 100.0;
    assert!(off.abs() <= percent, "{what}: modelled {modelled:.1} cycles, measured {measured:.1}");
}

/// `count` products m64nNk16 in one group, from zeroed operands, waited for.
fn group(n: usize, registers: bool, count: usize) -> String {
    let d: Vec<String> = (0..n / 2).map(|i| format!("d{i}")).collect();
    let (a, more) = if registers { ("{a0, a1, a2, a3}", "0") } else { ("da", "0, 0") };
    let d = d.join(", ");
    let product = format!(
        "wgmma.mma_async.sync.aligned.m64n{n}k16.f32.bf16.bf16 {{{d}}}, {a}, db, yes, 1, 1, {more};\n"
    );
    format!(
        "wgmma.fence.sync.aligned;\n{}wgmma.commit_group.sync.aligned;\n\
         wgmma.wait_group.sync.aligned 0;\n",
        product.repeat(count)
    )
}

/// Operands for [`group`], and its accumulators.
fn operands(n: usize, threads: u32) -> String {
    let zeros: String = (0..n / 2).map(|i| format!("mov.f32 d{i}, 0f00000000;\n")).collect();
    format!(
        "shr.u32 r0, smem, 4; and.b32 r0, r0, 0x3fff; mov.b64 da, {{r0, 0x40000040}}; mov.b64 db, da;\n\
         mov.u32 r1, tid; $z: shl.b32 r2, r1, 2; add.u32 r2, r2, smem; mov.u32 r3, 0; st.shared.u32 [r2], r3;\n\
         {{ .reg .pred p; add.u32 r1, r1, {threads}; setp.lt.u32 p, r1, 8192; @p bra $z; }}\n\
         fence.proxy.async.shared::cta;\nbar.sync 0;\n\
         mov.b32 a0, 0; mov.b32 a1, 0; mov.b32 a2, 0; mov.b32 a3, 0;\n{zeros}"
    )
}

/// `count` times 16 exponentials that do not depend on each other.
fn exponentials(count: usize) -> String {
    let set: String =
        (0..16).map(|i| format!("cvt.rn.f32.u32 f{i}, tid;\n")).collect::<Vec<_>>().concat();
    let all: String = (0..16).map(|i| format!("ex2.approx.ftz.f32 f{i}, f{i};\n")).collect();
    set + &all.repeat(count)
}

#[test]
fn products_take_the_tensor_cores_and_return() {
    for (n, registers, measured) in [(64, true, 32.0), (64, false, 32.0), (128, false, 64.0)] {
        let one = each(|k| operands(n, 128) + &group(n, registers, k), 128, 1);
        near("a product more", one, measured, 2.0);
    }
    // Groups of one product, one behind the other.
    for (n, registers, measured) in [(64, false, 95.0), (64, true, 104.0), (128, false, 127.0)] {
        let one = each(|k| operands(n, 128) + &group(n, registers, 1).repeat(k), 128, 1);
        near("a group more", one, measured, 5.0);
    }
}

#[test]
fn exponentials_share_their_unit_and_take_longer_beside_products() {
    for warps in 1..=3 {
        let one = each(exponentials, 128 * warps, 1) / 16.0;
        near("an exponential of each warp", one, 8.16 * f64::from(warps), 3.0);
    }
    // 26 products of 48 cycles in each step, beside 128 exponentials: those end last.
    let both = |k: usize| {
        operands(96, 256)
            + "setp.ge.u32 mine, tid, 128;\n@mine bra $other;\n"
            + &group(96, true, 26).repeat(k)
            + "bra $end;\n$other:\n"
            + &exponentials(8 * k)
            + "$end:\n"
    };
    near("128 exponentials beside products", each(both, 256, 1), 1336.0, 3.0);
}

const BARRIERS: &str = "@first mbarrier.init.shared::cta.b64 [smem], 1;\n\
     @first mbarrier.init.shared::cta.b64 [smem + 8], 1;\n\
     @first fence.mbarrier_init.release.cluster;\n";

/// Waits for the phase `i` of the mbarrier at `at`.
fn wait(at: &str, i: usize) -> String {
    let parity = i % 2;
    format!(
        "{{ .reg .pred p; .reg .u32 parity; mov.u32 parity, {parity};\n$again:\n\
         mbarrier.try_wait.parity.shared::cta.b64 p, [{at}], parity;\n@p bra $on;\nbra $again;\n$on: }}\n"
    )
}

#[test]
fn barriers_take_their_time_from_warp_to_warp() {
    let named = |k: usize| {
        format!(
            "bar.sync 0;\n@mine bra $other;\n{}bra $end;\n$other:\n{}$end:\n",
            "bar.arrive 1, 64;\nbar.sync 2, 64;\n".repeat(k),
            "bar.sync 1, 64;\nbar.arrive 2, 64;\n".repeat(k)
        )
    };
    near("two named barriers", each(named, 64, 1), 48.5, 10.0);
    let own = |k: usize| {
        let (mut one, mut two) = (String::new(), String::new());
        for i in 0..k {
            one += "@first mbarrier.arrive.shared::cta.b64 _, [smem + 8];\n";
            one += &wait("smem", i);
            two += &wait("smem + 8", i);
            two += "@second mbarrier.arrive.shared::cta.b64 _, [smem];\n";
        }
        format!("{BARRIERS}bar.sync 0;\n@mine bra $other;\n{one}bra $end;\n$other:\n{two}$end:\n")
    };
    near("two mbarriers", each(own, 64, 1), 115.0, 10.0);
    let far = |k: usize| {
        let tell = "@first mbarrier.arrive.shared::cluster.b64 _, [peer];\n";
        let (mut one, mut two) = (String::new(), String::new());
        for i in 0..k {
            one += tell;
            one += &wait("smem", i);
            two += &wait("smem", i);
            two += tell;
        }
        format!(
            "{BARRIERS}mov.u32 r0, %cluster_ctarank; xor.b32 r1, r0, 1;\n\
             mapa.shared::cluster.u32 peer, smem, r1; setp.ne.u32 mine, r0, 0;\n\
             barrier.cluster.arrive; barrier.cluster.wait;\n\
             @mine bra $other;\n{one}bra $end;\n$other:\n{two}$end:\n\
             barrier.cluster.arrive; barrier.cluster.wait;\n"
        )
    };
    near("two mbarriers of a cluster", each(far, 32, 2), 247.0, 10.0);
}
