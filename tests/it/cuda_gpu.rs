//! The CUDA device on a real GPU: `cargo test --release cuda_gpu -- --ignored`.
//! One test in a process of its own, since faults and hangs take the context with them.

use crossover::device::{
    Arg, BufferRole, Clock, Device, DeviceError, Job, Launch, Regime, Swizzle, TensorMap, open,
};
use crossover::op::{DType, Tensor};

use crate::common::{self, buffer, is_alone, launch};

/// One thread copies one fp32 element.
const COPY: &str = "\
.version 7.0
.target sm_80
.address_size 64
.visible .entry copy(.param .u64 x, .param .u64 y, .param .u32 n)
.maxntid 256
{
    .reg .pred %out;
    .reg .b32  %i, %c, %n, %t;
    .reg .u64  %x, %y, %o;
    .reg .f32  %v;
    ld.param.u64 %x, [x];
    ld.param.u64 %y, [y];
    ld.param.u32 %n, [n];
    mov.u32 %t, %tid.x;
    mov.u32 %c, %ctaid.x;
    mad.lo.u32 %i, %c, 256, %t;
    setp.ge.u32 %out, %i, %n;
    @%out ret;
    mul.wide.u32 %o, %i, 4;
    add.u64 %x, %x, %o;
    add.u64 %y, %y, %o;
    ld.global.f32 %v, [%x];
    st.global.f32 [%y], %v;
    ret;
}
";

/// A 32x8 fp32 box of a tensor map to shared memory, then to y: one CTA of 256 threads.
const TMA: &str = "\
.version 8.0
.target sm_90
.address_size 64
.visible .entry tma(.param .align 64 .b8 map[128], .param .u64 y, .param .u32 row)
.maxntid 256
{
    .shared .align 128 .b8 tile[1024];
    .shared .align 8 .b64 bar;
    .reg .pred %one, %done;
    .reg .b32  %t, %tile, %bar, %row, %zero, %a;
    .reg .b64  %map, %y, %o;
    .reg .f32  %v;
    mov.u32 %t, %tid.x;
    mov.u32 %tile, tile;
    mov.u32 %bar, bar;
    mov.b32 %zero, 0;
    ld.param.u64 %y, [y];
    ld.param.u32 %row, [row];
    mov.b64 %map, map;
    cvta.param.u64 %map, %map;
    setp.eq.u32 %one, %t, 0;
    @%one mbarrier.init.shared::cta.b64 [%bar], 1;
    fence.proxy.async;
    bar.sync 0;
    @%one mbarrier.arrive.expect_tx.shared::cta.b64 _, [%bar], 1024;
    @%one cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes \
[%tile], [%map, {%zero, %row}], [%bar];
$wait:
    mbarrier.try_wait.parity.shared::cta.b64 %done, [%bar], 0;
    @!%done bra $wait;
    shl.b32 %a, %t, 2;
    add.u32 %a, %tile, %a;
    ld.shared.f32 %v, [%a];
    mul.wide.u32 %o, %t, 4;
    add.u64 %y, %y, %o;
    st.global.f32 [%y], %v;
    ret;
}
";

fn job(text: &str, n: usize, launch: Launch) -> Job {
    let buffer = |name, role| buffer(name, role, DType::Fp32, &[n]);
    let buffers = vec![buffer("x", BufferRole::Input(0)), buffer("y", BufferRole::Output(0))];
    common::job("gpu/copy", text, buffers, vec![launch])
}

fn copy(n: usize, copied: usize) -> Job {
    let args = vec![Arg::Buffer(0), Arg::Buffer(1), Arg::U32(copied as u32)];
    job(COPY, n, launch("copy", copied.div_ceil(256) as u32, 256, args))
}

fn ramp(n: usize) -> Tensor {
    Tensor::from_f64(DType::Fp32, &[n], (0..n).map(|i| i as f64))
}

#[test]
#[ignore = "needs a CUDA GPU"]
fn the_cuda_device_on_a_gpu() {
    if !is_alone("cuda_gpu::the_cuda_device_on_a_gpu") {
        return;
    }
    let device = open::open("cuda:0").unwrap();
    println!("{:#?}\n{:?}", device.facts(), device.health());
    copies_and_times(&*device);
    damage_is_found(&*device);
    if device.facts().compute_capability >= (9, 0) {
        tensor_maps_and_clusters_work(&*device);
    }
    errors_are_placed(&*device);
    faults_cost_one_case(&*device);
    a_hang_times_out(&*device);
}

fn copies_and_times(device: &dyn Device) {
    let n = 64 << 20;
    let mut loaded = device.load(&copy(n, n), &[ramp(n)]).unwrap();
    println!("{:?}", loaded.build());
    assert!(loaded.build().warnings.is_empty());
    assert!(loaded.build().entries["copy"].registers > 0);
    let outcome = loaded.run().unwrap();
    assert!(outcome.outputs[0] == ramp(n), "copied");
    assert!(outcome.damage.is_empty(), "{:?}", outcome.damage);
    let Clock::Measured(sampler) = loaded.clock(1) else { panic!("a GPU measures") };
    let bytes = 8.0 * n as f64;
    for regime in [Regime::Cold, Regime::Hot] {
        for _ in 0..5 {
            let sample = sampler.sample(regime).unwrap();
            println!("{regime:?} {:.0} GB/s {sample:?}", bytes / sample.ns);
            assert!(bytes / sample.ns < 1.1 * device.facts().peak.memory_gbps);
            assert!(sample.sm_mhz.is_some_and(|mhz| (200.0..4000.0).contains(&mhz)));
        }
    }

    // 2 MB stay in L2 when hot.
    let n = 256 << 10;
    let mut loaded = device.load(&copy(n, n), &[ramp(n)]).unwrap();
    let Clock::Measured(sampler) = loaded.clock(1) else { panic!("a GPU measures") };
    let mut median = |regime| {
        let mut ns: Vec<f64> = (0..31).map(|_| sampler.sample(regime).unwrap().ns).collect();
        ns.sort_by(f64::total_cmp);
        println!("2 MB {regime:?}: {ns:?}");
        ns[15]
    };
    let (cold, hot) = (median(Regime::Cold), median(Regime::Hot));
    assert!(cold > hot, "cold {cold} ns, hot {hot} ns");
}

fn damage_is_found(device: &dyn Device) {
    let n = 1000;
    let mut loaded = device.load(&copy(n, n + 3), &[ramp(n)]).unwrap();
    let damage = loaded.run().unwrap().damage;
    // The 3 elements past y's end come from x's canary, which is the same pattern: no damage.
    assert!(damage.is_empty(), "{damage:?}");
    let mut swapped = copy(n, n + 3);
    swapped.ptx.text = COPY.replace("ld.global.f32 %v, [%x];", "mov.f32 %v, 0f3F800000;");
    let damage = device.load(&swapped, &[ramp(n)]).unwrap().run().unwrap().damage;
    assert!(damage.len() == 1 && damage[0].contains("12 bytes past its end"), "{damage:?}");
    swapped.launches[0].args[1] = Arg::Buffer(0);
    swapped.launches[0].args[2] = Arg::U32(n as u32);
    let damage = device.load(&swapped, &[ramp(n)]).unwrap().run().unwrap().damage;
    assert!(damage.len() == 1 && damage[0].contains("input x: changed"), "{damage:?}");
}

fn tensor_maps_and_clusters_work(device: &dyn Device) {
    let n = 64 * 100;
    let map = TensorMap {
        buffer: 0,
        dtype: DType::Fp32,
        dims: vec![64, 100],
        strides_bytes: vec![256],
        tile: vec![32, 8],
        swizzle: Swizzle::None,
        nan_fill: false,
    };
    let args = vec![Arg::TensorMap(map), Arg::Buffer(1), Arg::U32(96)];
    let launch = Launch { cluster: [2, 1, 1], shared_bytes: 1024, ..launch("tma", 2, 256, args) };
    let mut loaded = device.load(&job(TMA, n, launch), &[ramp(n)]).unwrap();
    let outcome = loaded.run().unwrap();
    // Rows 96 to 99 are there, 100 to 103 are out of bounds.
    let row = |r: usize| (0..32).map(move |c| if r < 4 { ((96 + r) * 64 + c) as f64 } else { 0.0 });
    let wanted: Vec<f64> = (0..8).flat_map(row).collect();
    let got: Vec<f64> = (0..256).map(|i| outcome.outputs[0].get(i)).collect();
    assert_eq!(got, wanted);
    assert!(outcome.outputs[0].get(256).is_nan(), "poisoned where nothing is written");
}

fn errors_are_placed(device: &dyn Device) {
    let mut bad = copy(256, 256);
    bad.ptx.text = COPY.replace("ld.global.f32 %v, [%x];", "ld.global.f32 %v, [%nowhere];");
    let e = device.load(&bad, &[ramp(256)]).err().unwrap();
    println!("{e}");
    assert!(matches!(e, DeviceError::Build(_)), "{e:?}");
    assert!(e.to_string().contains("line 22: ld.global.f32 %v, [%nowhere];"), "{e}");
    let mut short = copy(256, 256);
    short.launches[0].args.pop();
    let e = device.load(&short, &[ramp(256)]).err().unwrap().to_string();
    assert!(e.contains("declares 3 parameters"), "{e}");
}

fn faults_cost_one_case(device: &dyn Device) {
    for (instruction, name) in [
        ("mov.u64 %y, 64; st.global.f32 [%y], 0f00000000;", "ILLEGAL_ADDRESS"),
        ("add.u64 %y, %y, 2; st.global.f32 [%y], 0f00000000;", "MISALIGNED_ADDRESS"),
        ("trap;", "CUDA_ERROR"),
    ] {
        let mut faulty = copy(256, 256);
        faulty.ptx.text = COPY.replace("ld.global.f32 %v, [%x];", instruction);
        let mut loaded = device.load(&faulty, &[ramp(256)]).unwrap();
        let e = loaded.run().unwrap_err();
        println!("{e}");
        assert!(e.to_string().contains(name) && e.to_string().contains("entry copy"), "{e}");
        let mut after = device.load(&copy(256, 256), &[ramp(256)]).unwrap();
        assert!(after.run().unwrap().outputs[0] == ramp(256), "the next case runs");
    }
}

fn a_hang_times_out(device: &dyn Device) {
    let mut hung = copy(256, 256);
    hung.ptx.text = COPY.replace("ld.global.f32 %v, [%x];", "$spin: bra $spin;");
    let mut loaded = device.load(&hung, &[ramp(256)]).unwrap();
    let e = loaded.run().unwrap_err();
    assert!(matches!(e, DeviceError::Timeout(_)), "{e:?}");
    match device.load(&copy(256, 256), &[ramp(256)]) {
        Ok(mut after) => assert!(after.run().unwrap().outputs[0] == ramp(256)),
        Err(e) => {
            println!("{e}");
            assert!(matches!(e, DeviceError::Unavailable(_)), "{e:?}");
        }
    };
}
