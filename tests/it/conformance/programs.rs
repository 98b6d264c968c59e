//! Small programs, each with its inputs: together they have every form of the kernels.

use half::{bf16, f16};
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64;

use crossover::device::{Arg, BufferRole, Job, Launch, Swizzle, TensorMap};
use crossover::op::{DType, Tensor};

use crate::common::{buffer, job, launch};

pub struct Program {
    pub name: String,
    pub job: Job,
    pub inputs: Vec<Tensor>,
}

pub const HEAD: &str = ".version 8.4\n.target sm_90a\n.address_size 64\n";

pub fn generator(name: &str) -> Pcg64 {
    let seed = name.bytes().fold(1u64, |h, b| h.wrapping_mul(0x100_0000_01b3) ^ u64::from(b));
    Pcg64::seed_from_u64(seed)
}

/// A program of one entry `k`. Its parameters are `maps`, then each input, then the output.
pub fn program(
    name: &str,
    text: String,
    (grid, block, shared): (u32, u32, u32),
    inputs: Vec<Vec<u32>>,
    output: usize,
    maps: Vec<TensorMap>,
) -> Program {
    let mut buffers = Vec::new();
    let mut args: Vec<Arg> = maps.into_iter().map(Arg::TensorMap).collect();
    let mut tensors = Vec::new();
    for (i, words) in inputs.into_iter().enumerate() {
        args.push(Arg::Buffer(buffers.len()));
        let shape = [words.len()];
        buffers.push(buffer(&format!("in{i}"), BufferRole::Input(i), DType::Fp32, &shape));
        tensors.push(Tensor {
            dtype: DType::Fp32,
            shape: shape.to_vec(),
            bytes: words.iter().flat_map(|w| w.to_le_bytes()).collect(),
        });
    }
    args.push(Arg::Buffer(buffers.len()));
    buffers.push(buffer("out", BufferRole::Output(0), DType::Fp32, &[output]));
    let launch = Launch { shared_bytes: shared, ..launch("k", grid, block, args) };
    let job = job(&format!("conformance/{name}"), text, buffers, vec![launch]);
    Program { name: name.into(), job, inputs: tensors }
}

/// A program of `threads` threads with `t` the thread, `s` shared memory, `p` the input and `q`
/// the output.
pub fn cta(
    name: &str,
    threads: u32,
    shared: u32,
    regs: &str,
    body: &str,
    input: Vec<u32>,
    output: usize,
) -> Program {
    let text = format!(
        "{HEAD}.extern .shared .align 1024 .b8 smem[];
.visible .entry k(.param .u64 in, .param .u64 out)\n{{
    .reg .b32 t, s; .reg .u64 p, q, off; {regs}
    ld.param.u64 p, [in]; ld.param.u64 q, [out];
    cvta.to.global.u64 p, p; cvta.to.global.u64 q, q;
    mov.u32 t, %tid.x; mov.u32 s, smem;
{body}
    ret;\n}}\n"
    );
    program(name, text, (1, threads, shared), vec![input], output, Vec::new())
}

pub fn random_words(name: &str, n: usize) -> Vec<u32> {
    let mut r = generator(name);
    (0..n).map(|_| r.random()).collect()
}

/// Loads and stores of all widths, through shared memory and a barrier.
fn memory() -> Program {
    let body = "
    mul.wide.u32 off, t, 64; add.u64 p, p, off; add.u64 q, q, off;
    ld.global.nc.f32 f0, [p]; ld.global.nc.f32 f1, [p+4];
    ld.global.b32 x0, [p+8]; ld.global.v2.b32 {x1, x2}, [p+16]; ld.global.v4.b32 {x4, x5, x6, x7}, [p+32];
    ld.global.v4.f32 {f4, f5, f6, f7}, [p+48]; ld.global.v2.f32 {f2, f3}, [p+24];
    ld.global.nc.u32 x3, [p+12];
    mad.lo.u32 a, t, 64, s;
    st.shared.f32 [a], f0; st.shared.f32 [a+4], f1; st.shared.b32 [a+8], x0; st.shared.b32 [a+12], x3;
    st.shared.v2.b32 [a+16], {x1, x2}; st.shared.v2.f32 [a+24], {f2, f3};
    st.shared.v4.b32 [a+32], {x4, x5, x6, x7}; st.shared.v4.f32 [a+48], {f4, f5, f6, f7};
    bar.sync 0;
    xor.b32 a, t, 37; mad.lo.u32 a, a, 64, s;
    ld.shared.b32 x0, [a]; ld.shared.f32 f0, [a+4]; ld.shared.v2.f32 {f2, f3}, [a+8];
    ld.shared.v2.b32 {x1, x2}, [a+16]; ld.shared.f32 f1, [a+24]; ld.shared.b32 x3, [a+28];
    ld.shared.v4.f32 {f4, f5, f6, f7}, [a+32]; ld.shared.v4.b32 {x4, x5, x6, x7}, [a+48];
    st.global.b32 [q], x0; st.global.f32 [q+4], f0; st.global.v2.b32 [q+8], {x1, x2};
    st.global.v2.f32 [q+16], {f2, f3}; st.global.f32 [q+24], f1; st.global.u32 [q+28], x3;
    st.global.v4.b32 [q+32], {x4, x5, x6, x7}; st.global.v4.f32 [q+48], {f4, f5, f6, f7};";
    let n = 128 * 16;
    cta(
        "memory",
        128,
        8192,
        ".reg .b32 a, x<8>; .reg .f32 f<8>;",
        body,
        random_words("memory", n),
        n,
    )
}

/// Loads that are read once, of memory that nobody writes or that L1 need not keep.
fn streams() -> Program {
    let body = "
    mul.wide.u32 off, t, 64; add.u64 p, p, off; add.u64 q, q, off;
    ld.global.nc.v2.b32 {x0, x1}, [p]; ld.global.nc.v4.b32 {x4, x5, x6, x7}, [p+16];
    ld.global.L1::no_allocate.v4.b32 {y0, y1, y2, y3}, [p+32];
    ld.global.L1::no_allocate.v4.f32 {f0, f1, f2, f3}, [p+48];
    st.global.v2.b32 [q+8], {x1, x0}; st.global.v4.b32 [q+32], {x7, x6, x5, x4};
    st.global.v4.b32 [q+48], {y3, y2, y1, y0}; st.global.v4.f32 [q+16], {f3, f2, f1, f0};
    st.global.v2.b32 [q], {x4, y0};";
    let regs = ".reg .b32 x<8>, y<4>; .reg .f32 f<4>;";
    cta("streams", 64, 0, regs, body, random_words("streams", 64 * 16), 64 * 16)
}

/// Parameters of all types.
fn parameters() -> Program {
    let text = format!(
        "{HEAD}.visible .entry k(.param .u64 in, .param .u64 out, .param .u32 n, .param .f32 x, .param .u64 m)\n{{
    .reg .u32 t, a; .reg .f32 f, g; .reg .u64 p, q, off, b;
    ld.param.u64 p, [in]; ld.param.u64 q, [out]; ld.param.u32 a, [n]; ld.param.f32 f, [x]; ld.param.u64 b, [m];
    mov.u32 t, %tid.x; mul.wide.u32 off, t, 4; add.u64 p, p, off; mul.wide.u32 off, t, 16; add.u64 q, q, off;
    ld.global.f32 g, [p]; mul.f32 f, f, g; add.u32 a, a, t;
    st.global.u32 [q], a; st.global.f32 [q+4], f; st.global.u64 [q+8], b;
    ret;\n}}\n"
    );
    let input = numbers("parameters", "f32", 32);
    let mut p = program("parameters", text, (1, 32, 0), vec![input], 128, Vec::new());
    p.job.launches[0].args.extend([
        Arg::U32(0xfedc_ba98),
        Arg::F32(0.1),
        Arg::U64(0x0123_4567_89ab_cdef),
    ]);
    p
}

/// cp.async with and without a tail of zeros, in groups.
fn copies() -> Program {
    let body = "
    mul.wide.u32 off, t, 32; add.u64 p, p, off; add.u64 q, q, off;
    mad.lo.u32 a, t, 32, s; and.b32 n, t, 31; min.u32 n, n, 16;
    cp.async.cg.shared.global [a], [p], 16;
    cp.async.commit_group;
    cp.async.cg.shared.global [a+16], [p+16], 16, n;
    cp.async.commit_group;
    cp.async.wait_group 1;
    ld.shared.v4.b32 {x0, x1, x2, x3}, [a];
    cp.async.wait_group 0;
    ld.shared.v4.b32 {x4, x5, x6, x7}, [a+16];
    st.global.v4.b32 [q], {x0, x1, x2, x3}; st.global.v4.b32 [q+16], {x4, x5, x6, x7};";
    let n = 64 * 8;
    cta("cp.async", 64, 2048, ".reg .b32 a, n, x<8>;", body, random_words("cp.async", n), n)
}

/// Matrices of 8x8 to and from registers.
fn matrices() -> Program {
    let body = "
    mul.wide.u32 off, t, 16; add.u64 off, p, off; mad.lo.u32 a, t, 16, s;
    ld.global.v4.b32 {x0, x1, x2, x3}, [off]; st.shared.v4.b32 [a], {x0, x1, x2, x3};
    bar.warp.sync 0xffffffff;
    xor.b32 a, t, 5; mad.lo.u32 a, a, 16, s;
    ldmatrix.sync.aligned.m8n8.x4.shared.b16 {x0, x1, x2, x3}, [a];
    ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {x4, x5, x6, x7}, [a];
    ldmatrix.sync.aligned.m8n8.x2.shared.b16 {x8, x9}, [a];
    bar.warp.sync 0xffffffff;
    xor.b32 a, t, 9; mad.lo.u32 a, a, 16, s;
    stmatrix.sync.aligned.m8n8.x4.shared.b16 [a], {x4, x0, x5, x1};
    stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [a+512], {x2, x6, x3, x7};
    bar.warp.sync 0xffffffff;
    mad.lo.u32 a, t, 16, s;
    ld.shared.v4.b32 {x0, x1, x2, x3}, [a]; ld.shared.v4.b32 {x4, x5, x6, x7}, [a+512];
    mul.wide.u32 off, t, 48; add.u64 q, q, off;
    st.global.v4.b32 [q], {x0, x1, x2, x3}; st.global.v4.b32 [q+16], {x4, x5, x6, x7};
    st.global.v2.b32 [q+32], {x8, x9}; st.global.v2.b32 [q+40], {x8, x9};";
    cta("ldmatrix", 32, 1024, ".reg .b32 a, x<10>;", body, random_words("ldmatrix", 128), 32 * 12)
}

/// Two warps hand values over through named barriers, in a loop.
fn barriers() -> Program {
    let body = "
    and.b32 lane, t, 31; mul.wide.u32 off, lane, 4; add.u64 p, p, off; mad.lo.u32 a, lane, 4, s;
    mul.wide.u32 off, t, 4; add.u64 q, q, off;
    mov.u32 n, 0; mov.u32 x, 0; mov.u32 y, 0;
    setp.ge.u32 second, t, 32; @second bra $take;
$give:
    bar.sync 2, 64;
    ld.global.b32 y, [p]; add.u32 x, x, y; st.shared.b32 [a], x;
    bar.arrive 1, 64;
    add.u32 n, n, 1; setp.lt.u32 more, n, 5; @more bra $give;
    bra.uni $end;
$take:
    bar.arrive 2, 64;
    bar.sync 1, 64;
    ld.shared.b32 y, [a]; mad.lo.u32 x, x, 3, y;
    add.u32 n, n, 1; setp.lt.u32 more, n, 5; @more bra $take;
$end:
    st.global.b32 [q], x;";
    let regs = ".reg .b32 a, n, x, y, lane; .reg .pred second, more;";
    cta("bar", 64, 128, regs, body, random_words("bar", 32), 64)
}

/// Numbers of a normal distribution, more or less, in a type of operand.
pub fn numbers(name: &str, ty: &str, n: usize) -> Vec<u32> {
    let mut r = generator(name);
    let mut one = || (0..4).map(|_| r.random_range(-1.0..1.0f32)).sum::<f32>();
    match ty {
        "tf32" | "f32" => (0..n).map(|_| one().to_bits()).collect(),
        _ => (0..n)
            .map(|_| {
                let bits = |x: f32| match ty {
                    "f16" => f16::from_f32(x).to_bits(),
                    _ => bf16::from_f32(x).to_bits(),
                };
                u32::from(bits(one())) | u32::from(bits(one())) << 16
            })
            .collect(),
    }
}

pub fn list(name: &str, range: std::ops::Range<usize>) -> String {
    let all: Vec<_> = range.map(|i| format!("{name}{i}")).collect();
    format!("{{{}}}", all.join(", "))
}

/// A chain of two products, so that the first sum is the second's accumulator.
fn mma(shape: &str, ty: &str) -> Program {
    let form = format!("mma.sync.aligned.{shape}.row.col.f32.{ty}.{ty}.f32");
    let loads: String = (0..16).map(|i| format!("ld.global.b32 x{i}, [p+{}];\n", 4 * i)).collect();
    let body = format!(
        "
    mul.wide.u32 off, t, 64; add.u64 p, p, off; mul.wide.u32 off, t, 16; add.u64 q, q, off;
    {loads}
    {form} {c}, {a0}, {b0}, {c};
    {form} {c}, {a1}, {b1}, {c};
    st.global.v4.b32 [q], {c};",
        c = list("x", 12..16),
        a0 = list("x", 0..4),
        b0 = list("x", 4..6),
        a1 = list("x", 6..10),
        b1 = list("x", 10..12),
    );
    // The accumulators are fp32 whatever the operands.
    let mut input = numbers(&form, ty, 128 * 16);
    let c = numbers(&format!("{form} c"), "f32", 128 * 4);
    for (thread, c) in input.chunks_exact_mut(16).zip(c.chunks_exact(4)) {
        thread[12..].copy_from_slice(c);
    }
    cta(&form, 128, 0, ".reg .b32 x<16>;", &body, input, 128 * 4)
}

/// As attention has them: both operands from shared memory, then A from registers and B MN-major.
fn wgmma(n: usize, ty: &str) -> Program {
    let form = format!("wgmma.mma_async.sync.aligned.m64n{n}k16.f32.{ty}.{ty}");
    let nd = n / 2;
    // One word for all of a thread's results, but for one width.
    let whole = n == 64;
    // A: 64 lines of 128 bytes; B: n lines; V: slabs of 64 columns, 64 lines each.
    let v_at = 8192 + (128 * n).next_multiple_of(1024);
    let words = (v_at + 8192 * n.div_ceil(64)) / 4;
    let b_at = 8192;
    let hi = 0x4000_0000u64 + 64;
    let body = format!(
        "
    mul.wide.u32 off, t, 4; add.u64 p, p, off;
    mad.lo.u32 a, t, 4, s; mov.u32 i, t;
$fill:
    ld.global.b32 x, [p]; st.shared.b32 [a], x;
    add.u64 p, p, 512; add.u32 a, a, 512; add.u32 i, i, 128;
    setp.lt.u32 more, i, {words}; @more bra $fill;
    ld.global.b32 f0, [p]; ld.global.b32 f1, [p+512]; ld.global.b32 f2, [p+1024]; ld.global.b32 f3, [p+1536];
    fence.proxy.async.shared::cta;
    bar.sync 0;
    shr.u32 x, s, 4; and.b32 x, x, 0x3fff; mov.b64 da, {{x, {hi}}};
    add.u32 x, s, {b_at}; shr.u32 x, x, 4; and.b32 x, x, 0x3fff; mov.b64 db, {{x, {hi}}};
    add.u32 x, s, {v_at}; shr.u32 x, x, 4; and.b32 x, x, 0x3fff; or.b32 x, x, {lead}; mov.b64 dv, {{x, {hi}}};
    setp.ne.u32 add, 0, 0; setp.eq.u32 more, 0, 0;
    wgmma.fence.sync.aligned;
    {form} {d}, da, db, add, 1, 1, 0, 0;
    add.u64 da, da, 2; add.u64 db, db, 2;
    {form} {d}, da, db, more, 1, 1, 0, 0;
    wgmma.commit_group.sync.aligned;
    {form} {d}, {f}, dv, more, 1, 1, 1;
    add.u64 dv, dv, 128;
    {form} {d}, {f}, dv, more, 1, 1, 1;
    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned 1;
    wgmma.wait_group.sync.aligned 0;
    mul.wide.u32 off, t, {bytes}; add.u64 q, q, off;
    {stores}",
        lead = (64 * 128 / 16) << 16,
        d = list("d", 0..nd),
        f = list("f", 0..4),
        bytes = if whole { 4 * nd } else { 4 },
        stores = match whole {
            true => (0..nd).map(|i| format!("st.global.f32 [q+{}], d{i};\n", 4 * i)).collect(),
            false => {
                let fold = |i| format!("mov.b32 a, d{i}; mad.lo.u32 x, x, 31, a;\n");
                let all: String = (0..nd).map(fold).collect();
                format!("mov.u32 x, 0;\n{all}st.global.b32 [q], x;")
            }
        },
    );
    let regs = format!(
        ".reg .b32 a, i, x, f<4>; .reg .f32 d<{nd}>; .reg .b64 da, db, dv; .reg .pred more, add;"
    );
    let input = numbers(&form, ty, words + 512);
    cta(&form, 128, (words * 4) as u32, &regs, &body, input, if whole { 128 * nd } else { 128 })
}

/// Until the first phase of the mbarrier at `s + at`; what waits for too long stops.
pub fn wait(at: u32) -> String {
    format!(
        "{{ .reg .pred d; .reg .b32 n; mov.u32 n, 0;
$again: mbarrier.try_wait.parity.shared::cta.b64 d, [s+{at}], 0;
    @d bra $through; add.u32 n, n, 1; setp.lt.u32 d, n, 100000; @d bra $again; trap; $through: }}"
    )
}

/// Words of a tensor with a map, and the map: boxes of 2048 bytes, 16 rows of one head.
const MAPPED: usize = 2 * 20 * 2 * 32;

fn tensor_map(buffer: usize) -> TensorMap {
    TensorMap {
        buffer,
        dtype: DType::Bf16,
        dims: vec![64, 2, 20, 2],
        strides_bytes: vec![128, 256, 256 * 20],
        tile: vec![64, 1, 16, 1],
        swizzle: Swizzle::B128,
        nan_fill: false,
    }
}

/// A producer and a consumer warpgroup around a tensor copy, out of bounds at one end, and a
/// tensor copy back.
fn tensor_copies() -> Program {
    let n = MAPPED;
    let load = "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes";
    let store = "cp.async.bulk.tensor.4d.global.shared::cta.bulk_group";
    // Boxes of 2048 bytes: rows from 0 and from 16 (four of them inside) of both heads and batches.
    let boxes: Vec<(usize, usize, usize)> =
        (0..8).map(|i| (i % 2, i / 2 % 2 * 16, i / 4)).collect();
    let each = |f: &dyn Fn(usize, (usize, usize, usize)) -> String| {
        boxes.iter().enumerate().map(|(i, b)| f(i, *b)).collect::<String>()
    };
    let text = format!(
        "{HEAD}.extern .shared .align 1024 .b8 smem[];
.visible .entry k(.param .align 64 .b8 m_in[128], .param .align 64 .b8 m_out[128], .param .u64 in, .param .u64 out)
.maxntid 256 .maxnreg 128
{{
    .reg .b32 t, s, x, a, i; .reg .u64 q, off; .reg .b64 mi, mo; .reg .pred p, e;
    ld.param.u64 q, [out];
    mov.u32 t, %tid.x; mov.u32 s, smem;
    mov.b64 mi, m_in; cvta.param.u64 mi, mi; mov.b64 mo, m_out; cvta.param.u64 mo, mo;
    setp.ne.u32 p, t, 0; @p bra $ready;
    mbarrier.init.shared::cta.b64 [s+16384], 1;
    mbarrier.init.shared::cta.b64 [s+16392], 128;
    fence.mbarrier_init.release.cluster;
    fence.proxy.async.shared::cta;
$ready:
    bar.sync 0;
    setp.ge.u32 p, t, 128; @p bra $consumer;
    setmaxnreg.dec.sync.aligned.u32 40;
    setp.ge.u32 p, t, 32; @p bra $exit;
    elect.sync _|e, 0xffffffff;
    @!e bra $exit;
    prefetch.tensormap [mi];
    add.u32 a, s, 16384;
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [a], 16384;
    {loads}
    {wait_consumer}
    {stores}
    cp.async.bulk.commit_group;
    cp.async.bulk.wait_group.read 0;
    cp.async.bulk.wait_group 0;
    bra $exit;
$consumer:
    setmaxnreg.inc.sync.aligned.u32 208;
    {wait_full}
    // Each word and one, so that both ways are seen.
    sub.u32 i, t, 128; mad.lo.u32 a, i, 4, s;
$words:
    ld.shared.b32 x, [a]; xor.b32 x, x, 65537; st.shared.b32 [a], x;
    add.u32 a, a, 512; add.u32 i, i, 128; setp.lt.u32 p, i, 4096; @p bra $words;
    fence.proxy.async.shared::cta;
    mbarrier.arrive.shared::cta.b64 _, [s+16392];
$exit:
    ret;
}}
",
        loads = each(&|i, (h, row, b)| format!(
            "{load} [s+{}], [mi, {{0, {h}, {row}, {b}}}], [a];\n",
            2048 * i
        )),
        stores = each(&|i, (h, row, b)| format!(
            "{store} [mo, {{0, {h}, {row}, {b}}}], [s+{}];\n",
            2048 * i
        )),
        wait_consumer = wait(16392),
        wait_full = wait(16384),
    );
    let input = random_words("tensor copies", n);
    program(
        "tensor copies",
        text,
        (1, 256, 16400),
        vec![input],
        n,
        vec![tensor_map(0), tensor_map(1)],
    )
}

/// A tensor map copied to global memory, cut there to 13 of its 20 rows, and a box with rows on both
/// sides of the new end.
fn cut_map() -> Program {
    let (words, map_words) = (512, 32);
    let load = "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes";
    let copy: String = (0..16)
        .map(|i| format!("ld.b64 w, [mi+{at}]; st.global.b64 [m+{at}], w;\n", at = 8 * i))
        .collect();
    let text = format!(
        "{HEAD}.extern .shared .align 1024 .b8 smem[];
.visible .entry k(.param .align 64 .b8 m_in[128], .param .u64 in, .param .u64 out)
{{
    .reg .b32 t, s, x, a, rows; .reg .u64 q, m, off; .reg .b64 mi, w; .reg .pred p;
    ld.param.u64 q, [out]; cvta.to.global.u64 q, q;
    mov.u32 t, %tid.x; mov.u32 s, smem; mov.b64 mi, m_in; cvta.param.u64 mi, mi;
    add.u64 m, q, 2048;
    setp.ne.u32 p, t, 0; @p bra $ready;
    mbarrier.init.shared::cta.b64 [s+4096], 1;
    fence.mbarrier_init.release.cluster;
    {copy}
    mov.u32 rows, 13;
    tensormap.replace.tile.global_dim.global.b1024.b32 [m], 2, rows;
    fence.proxy.tensormap::generic.release.gpu;
    fence.proxy.tensormap::generic.acquire.gpu [m], 128;
    add.u32 a, s, 4096;
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [a], 2048;
    {load} [s], [m, {{0, 1, 4, 1}}], [a];
$ready:
    bar.sync 0;
    {wait}
    // The words, and zeros over the map, whose bits are the device's own.
    mul.wide.u32 off, t, 4; add.u64 q, q, off; mad.lo.u32 a, t, 4, s;
    ld.shared.b32 x, [a]; st.global.b32 [q], x;
    ld.shared.b32 x, [a+1024]; st.global.b32 [q+1024], x;
    mov.u32 x, 0; setp.lt.u32 p, t, {map_words}; @p st.global.b32 [q+2048], x;
    ret;
}}
",
        wait = wait(4096),
    );
    let input = random_words("cut map", MAPPED);
    let maps = vec![tensor_map(0)];
    program("cut map", text, (1, 256, 4104), vec![input], words + map_words, maps)
}

/// Two CTAs of a cluster: each loads a box into both, waits for both, tells both that it has read.
fn cluster() -> Program {
    let load = "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster";
    let text = format!(
        "{HEAD}.extern .shared .align 1024 .b8 smem[];
.visible .entry k(.param .align 64 .b8 m_in[128], .param .u64 in, .param .u64 out)
{{
    .reg .b32 t, s, x, a, i, rank, row, told; .reg .u64 q, off; .reg .b64 mi; .reg .b16 both; .reg .pred p;
    ld.param.u64 q, [out];
    mov.u32 t, %tid.x; mov.u32 s, smem; mov.u32 rank, %cluster_ctarank;
    mov.b64 mi, m_in; cvta.param.u64 mi, mi;
    setp.ne.u32 p, t, 0; @p bra $ready;
    mbarrier.init.shared::cta.b64 [s+4096], 1;
    mbarrier.init.shared::cta.b64 [s+4104], 4;
    fence.mbarrier_init.release.cluster;
$ready:
    barrier.cluster.arrive.aligned;
    barrier.cluster.wait.aligned;
    @p bra $loaded;
    mov.u16 both, 3;
    add.u32 a, s, 4096;
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [a], 4096;
    mad.lo.u32 x, rank, 2048, s; mul.lo.u32 row, rank, 16;
    {load} [x], [mi, {{0, rank, row, rank}}], [a], both;
$loaded:
    {wait_full}
    mul.lo.u32 i, rank, 4096; mad.lo.u32 i, t, 4, i; cvt.u64.u32 off, i; add.u64 q, q, off;
    mad.lo.u32 a, t, 4, s; mov.u32 i, t;
$words:
    ld.shared.b32 x, [a]; st.global.b32 [q], x;
    add.u32 a, a, 256; add.u64 q, q, 256; add.u32 i, i, 64; setp.lt.u32 p, i, 1024; @p bra $words;
    bar.warp.sync 0xffffffff;
    and.b32 told, t, 1; mapa.shared::cluster.u32 told, s, told;
    and.b32 x, t, 31; setp.lt.u32 p, x, 2;
    @p mbarrier.arrive.shared::cluster.b64 _, [told+4104];
    {wait_told}
    barrier.cluster.arrive;
    barrier.cluster.wait;
    ret;
}}
",
        wait_full = wait(4096),
        wait_told = wait(4104),
    );
    let input = random_words("cluster", MAPPED);
    let mut program =
        program("cluster", text, (2, 64, 4112), vec![input], 2048, vec![tensor_map(0)]);
    program.job.launches[0].cluster = [2, 1, 1];
    program
}

/// All programs by family: programs of which one may stop a GPU stand apart.
pub fn families() -> Vec<(&'static str, Vec<Program>)> {
    let mut kernels = vec![
        memory(),
        streams(),
        parameters(),
        copies(),
        matrices(),
        barriers(),
        tensor_copies(),
        cut_map(),
        cluster(),
    ];
    for ty in ["bf16", "f16"] {
        kernels.push(mma("m16n8k16", ty));
        kernels.extend((8..=256).step_by(8).map(|n| wgmma(n, ty)));
    }
    kernels.push(mma("m16n8k8", "tf32"));
    vec![
        ("lanes", super::lanes::all()),
        ("kernels", kernels),
        ("products", super::products::all()),
        ("bulk", super::bulk::all()),
        ("atomics", super::atomics::all()),
        ("clusters", super::atomics::clusters()),
    ]
}

pub fn all() -> Vec<Program> {
    families().into_iter().flat_map(|(_, programs)| programs).collect()
}
