//! Bulk copies and tensor copies: every number of dimensions and swizzle, boxes that reach out of the
//! tensor at both ends, stores and reductions.

use crossover::device::{Swizzle, TensorMap};
use crossover::op::DType;

use super::operands::operand;
use super::programs::{HEAD, Program, generator, program, random_words, wait};

const SWIZZLES: [(Swizzle, &str, u32); 4] = [
    (Swizzle::None, "none", 64),
    (Swizzle::B32, "32", 32),
    (Swizzle::B64, "64", 64),
    (Swizzle::B128, "128", 128),
];

/// A tensor of `rank` dimensions whose rows end within a piece of 16 bytes, its words,
/// and boxes of it: shapes and origins differ from each other.
struct Shape {
    map: TensorMap,
    words: usize,
    box_bytes: u32,
}

fn shape(rank: usize, dtype: DType, swizzle: (Swizzle, u32), nan_fill: bool) -> Shape {
    let element = dtype.bytes() as u32;
    let (swizzle, span) = swizzle;
    // A box and a half a row, and three elements.
    let inner = u64::from(span / element * 3 / 2 + 3);
    let dims: Vec<u64> = [inner, 5, 3, 2, 3][..rank].to_vec();
    let tile: Vec<u32> = [span / element, 4, 2, 2, 2][..rank].to_vec();
    let mut strides_bytes = Vec::new();
    let mut stride = (inner * u64::from(element)).next_multiple_of(16) + 16;
    for d in &dims[1..] {
        strides_bytes.push(stride);
        stride *= d;
    }
    let words = stride as usize / 4 + 64;
    let box_bytes = tile.iter().product::<u32>() * element;
    Shape {
        map: TensorMap { buffer: 0, dtype, dims, strides_bytes, tile, swizzle, nan_fill },
        words,
        box_bytes,
    }
}

fn braces(c: &[i32]) -> String {
    let list: Vec<_> = c.iter().map(i32::to_string).collect();
    format!("{{{}}}", list.join(", "))
}

const TYPES: [(DType, &str); 4] =
    [(DType::Bf16, "bf16"), (DType::Fp16, "f16"), (DType::Fp32, "f32"), (DType::I32, "s32")];

fn name_of(dtype: DType) -> &'static str {
    TYPES.iter().find(|t| t.0 == dtype).expect("a type of tensors").1
}

/// Boxes inside and across every end of the tensor, to shared memory and from there to the output.
fn load(
    rank: usize,
    dtype: DType,
    (swizzle, called, span): (Swizzle, &str, u32),
    nan: bool,
) -> Program {
    let s = shape(rank, dtype, (swizzle, span), nan);
    let piece = 16 / dtype.bytes() as i32;
    // Innermost coordinates are multiples of 16 bytes.
    let mut origins = vec![vec![0; rank], vec![piece; rank], vec![-piece; rank]];
    origins[1][1..].fill(1);
    origins[2][1..].fill(-1);
    for k in 0..rank {
        let mut c = vec![0; rank];
        c[k] = if k == 0 { s.map.tile[0] as i32 } else { s.map.dims[k] as i32 - 1 };
        origins.push(c);
    }
    // Wholly outside.
    origins.push(vec![64 * piece; rank]);
    let slot = s.box_bytes.next_multiple_of(1024);
    let bytes = slot * origins.len() as u32;
    let loads: String = origins
        .iter()
        .enumerate()
        .map(|(i, c)| {
            format!(
                "cp.async.bulk.tensor.{rank}d.shared::cluster.global.tile.mbarrier::complete_tx::bytes \
                 [s+{}], [m, {}], [bar];\n",
                slot * i as u32,
                braces(c)
            )
        })
        .collect();
    let text = format!(
        "{HEAD}.extern .shared .align 1024 .b8 smem[];
.visible .entry k(.param .align 64 .b8 map[128], .param .u64 in, .param .u64 out)
{{
    .reg .b32 t, s, x, a, i, bar; .reg .u64 q, off, m; .reg .pred first, more;
    ld.param.u64 q, [out]; mov.u32 t, %tid.x; mov.u32 s, smem; add.u32 bar, s, {bytes};
    mov.b64 m, map; cvta.param.u64 m, m;
    mad.lo.u32 a, t, 4, s; mov.u32 i, t; mov.u32 x, 0x5a5a5a5a;
$clear:
    st.shared.b32 [a], x; add.u32 a, a, 512; add.u32 i, i, 128;
    setp.lt.u32 more, i, {words}; @more bra $clear;
    setp.eq.u32 first, t, 0;
    @first mbarrier.init.shared::cta.b64 [bar], 1;
    fence.mbarrier_init.release.cluster;
    fence.proxy.async.shared::cta;
    bar.sync 0;
    @!first bra $issued;
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [bar], {expected};
    {loads}
$issued:
    {wait}
    mad.lo.u32 a, t, 4, s; mul.wide.u32 off, t, 4; add.u64 q, q, off; mov.u32 i, t;
$copy:
    ld.shared.b32 x, [a]; st.global.b32 [q], x;
    add.u32 a, a, 512; add.u64 q, q, 512; add.u32 i, i, 128;
    setp.lt.u32 more, i, {words}; @more bra $copy;
    ret;
}}
",
        words = bytes / 4,
        expected = s.box_bytes * origins.len() as u32,
        wait = wait(0).replace("[s+0]", "[bar]"),
    );
    let fill = if nan { " nan" } else { "" };
    let name = format!("tensor load {rank}d {} swizzle {called}{fill}", name_of(dtype));
    let input = random_words(&name, s.words);
    let output = bytes as usize / 4;
    program(&name, text, (1, 128, bytes + 16), vec![input], output, vec![s.map])
}

/// Boxes from shared memory to the output, which holds numbers: stored, or combined with those.
fn store(
    rank: usize,
    dtype: DType,
    (swizzle, called, span): (Swizzle, &str, u32),
    op: &str,
) -> Program {
    let mut s = shape(rank, dtype, (swizzle, span), false);
    s.map.buffer = 2;
    // Next to each other along the two outermost dimensions, the last of them across the end; the
    // innermost coordinate is never below zero.
    let mut origins = vec![vec![0; rank]];
    let mut other = vec![0; rank];
    other[0] = s.map.tile[0] as i32;
    origins.push(other);
    if rank > 1 {
        let k = rank - 1;
        let mut above = vec![0; rank];
        above[k] = s.map.tile[k] as i32;
        origins.push(above);
    }
    let what = match op {
        "" => format!("cp.async.bulk.tensor.{rank}d.global.shared::cta.tile.bulk_group"),
        _ => format!("cp.reduce.async.bulk.tensor.{rank}d.global.shared::cta.{op}.tile.bulk_group"),
    };
    let slot = s.box_bytes.next_multiple_of(1024);
    let bytes = slot * origins.len() as u32;
    let stores: String = origins
        .iter()
        .enumerate()
        .map(|(i, c)| format!("{what} [m, {}], [s+{}];\n", braces(c), slot * i as u32))
        .collect();
    let text = format!(
        "{HEAD}.extern .shared .align 1024 .b8 smem[];
.visible .entry k(.param .align 64 .b8 map[128], .param .u64 in, .param .u64 start, .param .u64 out)
{{
    .reg .b32 t, s, x, a, i; .reg .u64 p, b, q, off, m; .reg .pred more;
    ld.param.u64 p, [in]; ld.param.u64 b, [start]; ld.param.u64 q, [out];
    mov.u32 t, %tid.x; mov.u32 s, smem; mov.b64 m, map; cvta.param.u64 m, m;
    mul.wide.u32 off, t, 4; add.u64 p, p, off; add.u64 b, b, off; add.u64 q, q, off;
    mad.lo.u32 a, t, 4, s; mov.u32 i, t;
$fill:
    ld.global.b32 x, [p]; st.shared.b32 [a], x;
    add.u64 p, p, 512; add.u32 a, a, 512; add.u32 i, i, 128;
    setp.lt.u32 more, i, {shared}; @more bra $fill;
    mov.u32 i, t;
$start:
    setp.ge.u32 more, i, {words}; @more bra $started;
    ld.global.b32 x, [b]; st.global.b32 [q], x;
    add.u64 b, b, 512; add.u64 q, q, 512; add.u32 i, i, 128; bra $start;
$started:
    fence.proxy.async;
    bar.sync 0;
    setp.ne.u32 more, t, 0; @more bra $end;
    {stores}
    cp.async.bulk.commit_group;
    cp.async.bulk.wait_group 0;
$end:
    ret;
}}
",
        shared = bytes / 4,
        words = s.words,
    );
    let verb = if op.is_empty() { "store".to_owned() } else { format!("reduce {op}") };
    let name = format!("tensor {verb} {rank}d {} swizzle {called}", name_of(dtype));
    let inputs = vec![
        values(&format!("{name} in"), name_of(dtype), bytes as usize / 4),
        values(&format!("{name} start"), name_of(dtype), s.words),
    ];
    program(&name, text, (1, 128, bytes), inputs, s.words, vec![s.map])
}

/// Words of a type's numbers, specials among them.
fn values(name: &str, ty: &str, n: usize) -> Vec<u32> {
    let mut r = generator(name);
    let ty = match ty {
        "bf16" => "bf16x2",
        "f16" => "f16x2",
        other => other,
    };
    let mut words = Vec::new();
    while words.len() < n {
        let x = operand(ty, 0, &mut r);
        words.push(x as u32);
        if matches!(ty, "f64" | "u64" | "s64" | "b64") {
            words.push((x >> 32) as u32);
        }
    }
    words.truncate(n);
    words
}

/// Words that a bulk reduction combines.
const LINE: usize = 256;

/// `cp.reduce.async.bulk` to global memory.
fn reduce(op: &str, ty: &str) -> Program {
    let suffix = if op == "add" && matches!(ty, "f16" | "bf16") { "noftz." } else { "" };
    let form = format!("cp.reduce.async.bulk.global.shared::cta.bulk_group.{op}.{suffix}{ty}");
    let text = format!(
        "{HEAD}.extern .shared .align 1024 .b8 smem[];
.visible .entry k(.param .u64 in, .param .u64 start, .param .u64 out)
{{
    .reg .b32 t, s, x, a; .reg .u64 p, b, q, o, off; .reg .pred more;
    ld.param.u64 p, [in]; ld.param.u64 b, [start]; ld.param.u64 q, [out];
    mov.u32 t, %tid.x; mov.u32 s, smem;
    mul.wide.u32 off, t, 4; add.u64 p, p, off; add.u64 b, b, off; add.u64 o, q, off;
    mad.lo.u32 a, t, 4, s;
    ld.global.b32 x, [p]; st.shared.b32 [a], x; ld.global.b32 x, [b]; st.global.b32 [o], x;
    fence.proxy.async;
    bar.sync 0;
    setp.ne.u32 more, t, 0; @more bra $end;
    {form} [q], [s], 512;
    {form} [q+512], [s+512], 512;
    cp.async.bulk.commit_group;
    cp.async.bulk.wait_group 0;
$end:
    ret;
}}
"
    );
    let inputs =
        vec![values(&format!("{form} in"), ty, LINE), values(&format!("{form} start"), ty, LINE)];
    program(&form, text, (1, LINE as u32, 4 * LINE as u32), inputs, LINE, Vec::new())
}

/// `cp.async.bulk` there and back again.
fn copies() -> Program {
    let text = format!(
        "{HEAD}.extern .shared .align 1024 .b8 smem[];
.visible .entry k(.param .u64 in, .param .u64 out)
{{
    .reg .b32 t, s; .reg .u64 p, q; .reg .pred first;
    ld.param.u64 p, [in]; ld.param.u64 q, [out]; mov.u32 t, %tid.x; mov.u32 s, smem;
    setp.ne.u32 first, t, 0; @first bra $end;
    mbarrier.init.shared::cta.b64 [s+4096], 1;
    fence.mbarrier_init.release.cluster;
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [s+4096], 2064;
    cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [s], [p], 16, [s+4096];
    cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [s+16], [p+1024], 2048, [s+4096];
    {}
    cp.async.bulk.global.shared::cta.bulk_group [q], [s+16], 1024;
    cp.async.bulk.global.shared::cta.bulk_group [q+1024], [s], 1024;
    cp.async.bulk.commit_group;
    cp.async.bulk.wait_group 0;
$end:
    ret;
}}
",
        wait(4096)
    );
    let input = random_words("cp.async.bulk", 1024);
    program("cp.async.bulk", text, (1, 32, 4112), vec![input], 512, Vec::new())
}

pub fn all() -> Vec<Program> {
    let mut all = vec![copies()];
    let b128 = SWIZZLES[3];
    for rank in 1..=5 {
        all.push(load(rank, DType::Bf16, b128, false));
        all.push(load(rank, DType::Fp32, SWIZZLES[0], false));
        all.push(store(rank, DType::Fp16, b128, ""));
    }
    for swizzle in &SWIZZLES[..3] {
        all.push(load(3, DType::Bf16, *swizzle, true));
        all.push(store(2, DType::Fp32, *swizzle, ""));
    }
    for (dtype, _) in TYPES {
        if dtype != DType::I32 {
            all.push(load(2, dtype, b128, true));
        }
        all.push(load(2, dtype, SWIZZLES[1], false));
        all.push(store(2, dtype, b128, "add"));
        let ops: &[&str] = match dtype {
            DType::I32 => &["min", "max", "and", "or", "xor"],
            DType::Fp32 => &[],
            _ => &["min", "max"],
        };
        all.extend(ops.iter().map(|op| store(3, dtype, b128, op)));
    }
    all.push(store(1, DType::Bf16, SWIZZLES[0], "add"));
    all.push(store(5, DType::Fp32, SWIZZLES[2], "add"));
    for (op, types) in [
        ("add", &["u32", "s32", "u64", "f16", "bf16", "f32", "f64"][..]),
        ("min", &["u32", "s32", "u64", "s64", "f16", "bf16"]),
        ("max", &["u32", "s32", "u64", "s64", "f16", "bf16"]),
        ("and", &["b32", "b64"]),
        ("or", &["b32", "b64"]),
        ("xor", &["b32", "b64"]),
        ("inc", &["u32"]),
        ("dec", &["u32"]),
    ] {
        all.extend(types.iter().map(|ty| reduce(op, ty)));
    }
    all
}
