//! Atomics in shared and in global memory, stores and reductions to a CTA of the cluster, and what
//! else works on more than a lane's registers.

use super::operands::{declared, operand};
use super::programs::{HEAD, Program, generator, list, program, wait};

const THREADS: usize = 128;

/// Bytes of a type.
fn bytes(ty: &str) -> usize {
    match ty {
        "f16" | "bf16" | "b16" => 2,
        "u64" | "s64" | "b64" | "f64" => 8,
        _ => 4,
    }
}

fn values(name: &str, ty: &str, n: usize) -> Vec<u64> {
    let mut r = generator(name);
    (0..n).map(|i| operand(ty, i as u32, &mut r)).collect()
}

/// Each thread at a place of its own: old value and new one; so that any values will do.
fn alone(space: &str, op: &str, ty: &str) -> Program {
    // Halves are added without flushing, which must be said.
    let suffix = if op == "add" && ty.contains("f16") { "noftz." } else { "" };
    let form = format!("atom.{space}.{op}.{suffix}{ty}");
    let reg = declared(ty);
    let cas = if op == "cas" { ", c" } else { "" };
    let load = |to: &str, at: usize| match bytes(ty) {
        2 => format!("ld.global.b16 {to}, [p+{at}];"),
        8 => format!("ld.global.b64 {to}, [p+{at}];"),
        _ => format!("ld.global.b32 {to}, [p+{at}];"),
    };
    let bits = 8 * bytes(ty);
    let (place, at) = match space {
        "shared" => ("mad.lo.u32 a, t, 8, s;", "a"),
        _ => ("mad.wide.u32 g, t, 16, q; add.u64 g, g, 8;", "g"),
    };
    let keep = match bytes(ty) {
        2 => "mov.b32 w, {d, d}; st.global.b32 [q], w; mov.b32 w, {e, e}; st.global.b32 [q+8], w;"
            .to_owned(),
        n => format!("st.global.b{b} [q], d; st.global.b{b} [q+8], e;", b = 8 * n),
    };
    let text = format!(
        "{HEAD}.extern .shared .align 1024 .b8 smem[];
.visible .entry k(.param .u64 in, .param .u64 out)
{{
    .reg .b32 t, s, a, w; .reg .u64 p, q, g, off; .reg .{reg} b, c, d, e;
    ld.param.u64 p, [in]; ld.param.u64 q, [out]; mov.u32 t, %tid.x; mov.u32 s, smem;
    mul.wide.u32 off, t, 24; add.u64 p, p, off;
    {place}
    mov.b64 off, 0;
    mad.wide.u32 q, t, 16, q; st.global.b64 [q], off; st.global.b64 [q+8], off;
    {lb} {lc} {le} st.{space}.b{bits} [{at}], e;
    {form} d, [{at}], b{cas};
    ld.{space}.b{bits} e, [{at}];
    {keep}
    ret;
}}
",
        lb = load("b", 0),
        lc = load("c", 8),
        le = load("e", 16),
    );
    let (b, c) =
        (values(&format!("{form} b"), ty, THREADS), values(&format!("{form} c"), ty, THREADS));
    let mut e = values(&format!("{form} e"), ty, THREADS);
    if op == "cas" {
        // Half of them are as expected.
        e.iter_mut().zip(&b).step_by(2).for_each(|(e, b)| *e = *b);
    }
    let mut words = Vec::new();
    for i in 0..THREADS {
        words.extend([b[i], c[i], e[i]].iter().flat_map(|x| [*x as u32, (*x >> 32) as u32]));
    }
    let output = THREADS * 4;
    program(&form, text, (1, THREADS as u32, 8 * THREADS as u32), vec![words], output, Vec::new())
}

/// Threads of four warps at eight places: the same in whatever order, as floats are small whole
/// numbers.
fn together(space: &str, op: &str, ty: &str) -> Program {
    let suffix = if op == "add" && ty.contains("f16") { "noftz." } else { "" };
    let form = format!("red.{space}.{op}.{suffix}{ty}");
    let reg = declared(ty);
    let b = 8 * bytes(ty);
    let (place, at) = match space {
        "shared" => ("and.b32 a, t, 7; mad.lo.u32 a, a, 8, s;", "a"),
        _ => ("and.b32 a, t, 7; mad.wide.u32 g, a, 8, q;", "g"),
    };
    let text = format!(
        "{HEAD}.extern .shared .align 1024 .b8 smem[];
.visible .entry k(.param .u64 in, .param .u64 out)
{{
    .reg .b32 t, s, a; .reg .u64 p, q, g, off; .reg .{reg} x; .reg .b64 o; .reg .pred more;
    ld.param.u64 p, [in]; ld.param.u64 q, [out]; mov.u32 t, %tid.x; mov.u32 s, smem;
    mul.wide.u32 off, t, 8; add.u64 p, p, off;
    {place}
    setp.ge.u32 more, t, 8; mov.b64 o, 0;
    @!more st.{space}.b64 [{at}], o;
    bar.sync 0;
    ld.global.b{b} x, [p];
    {form} [{at}], x;
    bar.sync 0;
    @more bra $end;
    ld.{space}.b64 o, [{at}]; mad.wide.u32 g, t, 8, q; st.global.b64 [g], o;
$end:
    ret;
}}
"
    );
    let whole = |x: u64| (x % 9) as f32 - 4.0;
    let number = |x: u64| -> u64 {
        match ty {
            "f32" => whole(x).to_bits().into(),
            "f64" => f64::from(whole(x)).to_bits(),
            "f16" => half::f16::from_f32(whole(x)).to_bits().into(),
            "bf16" => half::bf16::from_f32(whole(x)).to_bits().into(),
            "f16x2" => u64::from(half::f16::from_f32(whole(x)).to_bits()) * 0x1_0001,
            "bf16x2" => u64::from(half::bf16::from_f32(whole(x)).to_bits()) * 0x1_0001,
            // Sixteen of them together leave some bits.
            _ if op == "or" => x & 0x8042_2108_1840_0421,
            _ if op == "and" => x | 0x7fbd_def7_e7bf_fbde,
            _ => x,
        }
    };
    let source = match bytes(ty) {
        8 => "b64",
        _ => "b32",
    };
    let words = values(&form, source, THREADS)
        .into_iter()
        .flat_map(|x| {
            let x = number(x);
            [x as u32, (x >> 32) as u32]
        })
        .collect();
    program(&form, text, (1, THREADS as u32, 64), vec![words], 16, Vec::new())
}

/// Vectors in global memory, each thread alone.
fn vector(op: &str, n: usize, ty: &str) -> Program {
    let suffix = if ty == "f32" { "" } else { "noftz." };
    let (atom, red) = (
        format!("atom.global.{op}.{suffix}v{n}.{ty}"),
        format!("red.global.{op}.{suffix}v{n}.{ty}"),
    );
    let (b, d) = (list("b", 0..n), list("d", 0..n));
    let half = bytes(ty) == 2;
    let load = |v: &str, at: usize| -> String {
        (0..n)
            .map(|i| format!("ld.global.b{} {v}{i}, [p+{}];\n", 8 * bytes(ty), at + bytes(ty) * i))
            .collect()
    };
    let store = |v: &str, to: &str, at: usize| -> String {
        (0..n)
            .map(|i| {
                format!("st.global.b{} [{to}+{}], {v}{i};\n", 8 * bytes(ty), at + bytes(ty) * i)
            })
            .collect()
    };
    let text = format!(
        "{HEAD}.visible .entry k(.param .u64 in, .param .u64 out)
{{
    .reg .b32 t; .reg .u64 p, q, off; .reg .b{bits} b<{n}>, e<{n}>, d<{n}>;
    ld.param.u64 p, [in]; ld.param.u64 q, [out]; mov.u32 t, %tid.x;
    mul.wide.u32 off, t, 32; add.u64 p, p, off; mul.wide.u32 off, t, 48; add.u64 q, q, off;
    {clear}
    {lb}{le}{se}{se2}
    {atom} {d}, [q], {b};
    {red} [q+16], {b};
    {sd}
    ret;
}}
",
        clear = (0..12).map(|i| format!("st.global.u32 [q+{}], 0;\n", 4 * i)).collect::<String>(),
        bits = if half { 16 } else { 32 },
        lb = load("b", 0),
        le = load("e", 16),
        se = store("e", "q", 0),
        se2 = store("e", "q", 16),
        sd = store("d", "q", 32),
    );
    let name = atom.clone();
    let kind = match ty {
        "f16" => "f16x2",
        "bf16" => "bf16x2",
        other => other,
    };
    let input = values(&name, kind, THREADS * 8).into_iter().map(|x| x as u32).collect();
    program(&name, text, (1, THREADS as u32, 0), vec![input], THREADS * 12, Vec::new())
}

/// Two CTAs of a cluster: every thread does `each` to the other's shared memory, where it has 16
/// bytes at `to` that hold `in`'s, with an mbarrier at `bar` that expects `expected` bytes.
fn peers(name: &str, regs: &str, each: &str, expected: usize) -> Program {
    let text = format!(
        "{HEAD}.extern .shared .align 1024 .b8 smem[];
.visible .entry k(.param .u64 in, .param .u64 out)
{{
    .reg .b32 t, s, a, i, other, to, bar, x, y, z, w; .reg .u64 p, q, off; .reg .pred first; {regs}
    ld.param.u64 p, [in]; ld.param.u64 q, [out];
    mov.u32 t, %tid.x; mov.u32 s, smem; mov.u32 i, %cluster_ctarank; xor.b32 other, i, 1;
    mad.lo.u32 i, i, {THREADS}, t;
    mul.wide.u32 off, i, 32; add.u64 p, p, off; mul.wide.u32 off, i, 16; add.u64 q, q, off;
    ld.global.v4.b32 {{x, y, z, w}}, [p];
    mad.lo.u32 a, t, 16, s; st.shared.v4.b32 [a], {{x, y, z, w}};
    ld.global.v4.b32 {{x, y, z, w}}, [p+16];
    setp.eq.u32 first, t, 0;
    @first mbarrier.init.shared::cta.b64 [s+{bar}], 1;
    fence.mbarrier_init.release.cluster;
    @first mbarrier.arrive.expect_tx.shared::cta.b64 _, [s+{bar}], {expected};
    barrier.cluster.arrive.aligned;
    barrier.cluster.wait.aligned;
    mapa.shared::cluster.u32 to, a, other; add.u32 bar, s, {bar}; mapa.shared::cluster.u32 bar, bar, other;
    {each}
    {wait}
    ld.shared.v4.b32 {{x, y, z, w}}, [a]; st.global.v4.b32 [q], {{x, y, z, w}};
    barrier.cluster.arrive.aligned;
    barrier.cluster.wait.aligned;
    ret;
}}
",
        bar = 16 * THREADS,
        wait = wait(16 * THREADS as u32),
    );
    let n = 2 * THREADS * 8;
    let input = values(name, "b32", n).into_iter().map(|x| x as u32).collect();
    let shared = 16 * THREADS as u32 + 16;
    let output = 2 * THREADS * 4;
    let mut p = program(name, text, (2, THREADS as u32, shared), vec![input], output, Vec::new());
    p.job.launches[0].cluster = [2, 1, 1];
    p
}

const ASYNC: &str = "mbarrier::complete_tx::bytes.shared::cluster";

/// `st.async` of all widths.
fn stores() -> Vec<Program> {
    let wide = "mov.b64 l0, {x, y}; mov.b64 l1, {z, w};";
    [
        ("b32", "", "[to+4], x, [bar];", 4),
        ("s32", "", "[to+12], x, [bar];", 4),
        ("v2.b32", "", "[to+8], {x, y}, [bar];", 8),
        ("v4.b32", "", "[to], {x, y, z, w}, [bar];", 16),
        ("v4.f32", "", "[to], {x, y, z, w}, [bar];", 16),
        ("b64", wide, "[to+8], l0, [bar];", 8),
        ("v2.b64", wide, "[to], {l0, l1}, [bar];", 16),
    ]
    .into_iter()
    .map(|(ty, before, operands, bytes)| {
        let form = format!("st.async.weak.{ASYNC}.{ty}");
        let each = format!("{before} {form} {operands}");
        peers(&form, ".reg .b64 l<2>;", &each, bytes * THREADS)
    })
    .collect()
}

/// `red.async`: two threads at each word, in any order.
fn reductions() -> Vec<Program> {
    let mut all = Vec::new();
    for (ops, ty) in [
        (&["add", "min", "max", "inc", "dec"][..], "u32"),
        (&["add", "min", "max"], "s32"),
        (&["and", "or", "xor"], "b32"),
        (&["add"], "u64"),
    ] {
        for op in ops {
            let form = format!("red.async.relaxed.cluster.{ASYNC}.{op}.{ty}");
            let (before, value, bytes) = match ty {
                "u64" => ("mov.b64 l0, {x, y};", "l0", 16),
                _ => ("", "x", 8),
            };
            // A thread's own place and that of the next; the limits of inc and dec are the same.
            let limit = if matches!(*op, "inc" | "dec") { "mov.u32 x, 1000;" } else { "" };
            let each = format!(
                "xor.b32 i, t, 1; mad.lo.u32 i, i, 16, s; mapa.shared::cluster.u32 other, i, other;
    {before} {limit} {form} [to], {value}, [bar]; {form} [other], {value}, [bar];"
            );
            all.push(peers(&form, ".reg .b64 l<1>;", &each, bytes * THREADS));
        }
    }
    all
}

/// Bulk copies and reductions from one CTA's shared memory to another's.
fn bulk_peers() -> Vec<Program> {
    let mut all = Vec::new();
    let copy = "cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes";
    let mut forms = vec![copy.to_owned()];
    for (ops, ty) in [
        (&["add", "min", "max", "inc", "dec"][..], "u32"),
        (&["add", "min", "max"], "s32"),
        (&["and", "or", "xor"], "b32"),
        (&["add"], "u64"),
    ] {
        forms.extend(ops.iter().map(|op| {
            let reduce = copy.replace("cp.async", "cp.reduce.async");
            format!("{reduce}.{op}.{ty}")
        }));
    }
    for form in forms {
        // From a second array, behind the mbarrier.
        let from = 16 * THREADS + 128;
        let each = format!(
            "add.u32 i, a, {from}; st.shared.v4.b32 [i], {{x, y, z, w}};
    fence.proxy.async.shared::cta; barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;
    @first add.u32 i, s, {from};
    @first {form} [to], [i], {}, [bar];",
            16 * THREADS
        );
        let mut p = peers(&form, "", &each, 16 * THREADS);
        p.job.launches[0].shared_bytes = 2 * 16 * THREADS as u32 + 128;
        all.push(p);
    }
    all
}

/// Loads, stores and atomics at a CTA of the cluster.
fn remote() -> Program {
    let each = "xor.b32 i, t, 3; mad.lo.u32 i, i, 16, s; mapa.shared::cluster.u32 i, i, other;
    st.shared::cluster.b32 [to], x; atom.shared::cluster.add.u32 x, [to+4], y;
    red.shared::cluster.max.s32 [to+8], z; atom.shared::cluster.exch.b32 w, [to+12], w;
    barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;
    @first mbarrier.arrive.release.cluster.shared::cluster.b64 _, [bar];
    ld.shared::cluster.v4.b32 {x0, x1, x2, x3}, [i];
    add.u32 x, x, w; add.u32 x0, x0, x1; xor.b32 x, x, x0; add.u32 x2, x2, x3; xor.b32 x, x, x2;
    barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;
    st.shared.b32 [a], x;";
    let mut p = peers("shared::cluster", ".reg .b32 x<4>;", each, 0);
    // Its own arrival completes no phase: the other's does.
    p.job.ptx.text = p.job.ptx.text.replace(
        "mbarrier.init.shared::cta.b64 [s+2048], 1;",
        "mbarrier.init.shared::cta.b64 [s+2048], 2;",
    );
    p
}

/// 128 bits in registers, in memory and in one exchange.
fn wide() -> Program {
    let text = format!(
        "{HEAD}.extern .shared .align 1024 .b8 smem[];
.visible .entry k(.param .u64 in, .param .u64 out)
{{
    .reg .b32 t, s; .reg .u64 p, q, off, x, y; .reg .b128 a, b, c;
    ld.param.u64 p, [in]; ld.param.u64 q, [out]; mov.u32 t, %tid.x; mov.u32 s, smem;
    mul.wide.u32 off, t, 48; add.u64 p, p, off; mul.wide.u32 off, t, 96; add.u64 q, q, off;
    mad.lo.u32 s, t, 16, s;
    ld.global.b128 a, [p]; ld.global.b128 b, [p+16]; ld.global.b128 c, [p+32];
    st.shared.b128 [s], a; mov.b128 {{x, y}}, a; mov.b128 a, {{y, x}}; st.global.b128 [q], a;
    st.global.b128 [q+16], b; st.global.b128 [q+32], c;
    atom.shared.exch.b128 a, [s], b; st.global.b128 [q+48], a;
    atom.global.exch.b128 a, [q+16], c; st.global.b128 [q+64], a;
    atom.global.cas.b128 a, [q+32], c, b; st.global.b128 [q+80], a;
    atom.shared.cas.b128 a, [s], c, b; ld.shared.b128 c, [s]; st.global.b128 [q+64], c;
    ret;
}}
"
    );
    let input = super::programs::random_words("b128", 64 * 12);
    program("b128", text, (1, 64, 1024), vec![input], 64 * 24, Vec::new())
}

/// Exchanges among some of a warp's lanes.
fn some_lanes() -> Program {
    let forms = [
        "redux.sync.add.s32 d, a, m;",
        "redux.sync.min.s32 d, a, m;",
        "redux.sync.xor.b32 d, a, m;",
        "match.any.sync.b32 d, b, m;",
        "match.all.sync.b32 d|z, b, m; @z add.u32 d, d, 1;",
        "vote.sync.ballot.b32 d, odd, m;",
        "vote.sync.any.pred z, odd, m; selp.u32 d, 5, 6, z;",
        "vote.sync.uni.pred z, odd, m; selp.u32 d, 5, 6, z;",
        "shfl.sync.idx.b32 d|z, a, l, 0x1f, m; @z xor.b32 d, d, 1;",
        "elect.sync d|z, m; @z add.u32 d, d, 64;",
    ];
    let mut body = String::new();
    for (i, form) in forms.iter().enumerate() {
        // A branch, so that the others are elsewhere.
        body += &format!(
            "mov.u32 d, 77; @!member bra $skip{i};\n{form}\n$skip{i}: bar.warp.sync 0xffffffff; \
             st.global.b32 [q+{}], d;\n",
            4 * i
        );
    }
    let text = format!(
        "{HEAD}.visible .entry k(.param .u64 in, .param .u64 out)
{{
    .reg .b32 t, a, b, d, m, l; .reg .u64 p, q, off; .reg .pred member, odd, z;
    ld.param.u64 p, [in]; ld.param.u64 q, [out]; mov.u32 t, %tid.x;
    mul.wide.u32 off, t, 4; add.u64 p, p, off; mul.wide.u32 off, t, {}; add.u64 q, q, off;
    ld.global.b32 a, [p]; and.b32 b, a, 3; and.b32 d, t, 31;
    // Every other lane of the first warp, five of the second, half of the third, one of the last.
    shr.u32 l, t, 5; mov.u32 m, 0x55555555;
    setp.eq.u32 z, l, 1; @z mov.u32 m, 0x80030401; setp.eq.u32 z, l, 2; @z mov.u32 m, 0xffff0000;
    setp.eq.u32 z, l, 3; @z mov.u32 m, 0x00008000;
    shr.u32 l, m, d; and.b32 l, l, 1; setp.ne.u32 member, l, 0;
    // The last of them.
    bfind.u32 l, m; and.b32 d, a, 4; setp.ne.u32 odd, d, 0;
    {body}
    ret;
}}
",
        4 * forms.len()
    );
    let input = super::programs::random_words("some lanes", 128);
    program("some lanes", text, (1, 128, 0), vec![input], 128 * forms.len(), Vec::new())
}

pub fn all() -> Vec<Program> {
    let mut all = Vec::new();
    for space in ["shared", "global"] {
        for (op, types) in [
            ("add", &["u32", "s32", "u64", "f32", "f64", "f16", "f16x2", "bf16", "bf16x2"][..]),
            ("min", &["u32", "s32", "u64", "s64"]),
            ("max", &["u32", "s32", "u64", "s64"]),
            ("and", &["b32", "b64"]),
            ("or", &["b32", "b64"]),
            ("xor", &["b32", "b64"]),
            ("exch", &["b32", "b64"]),
            ("cas", &["b32", "b64", "b16"]),
            ("inc", &["u32"]),
            ("dec", &["u32"]),
        ] {
            for ty in types {
                all.push(alone(space, op, ty));
                if !matches!(op, "exch" | "cas" | "inc" | "dec") {
                    all.push(together(space, op, ty));
                }
            }
        }
    }
    for (op, n, ty) in [
        ("add", 2, "f32"),
        ("add", 4, "f32"),
        ("add", 2, "f16x2"),
        ("add", 4, "bf16x2"),
        ("add", 8, "bf16"),
        ("add", 4, "f16"),
        ("min", 8, "f16"),
        ("max", 4, "bf16x2"),
        ("max", 2, "f16x2"),
        ("min", 2, "bf16"),
    ] {
        all.push(vector(op, n, ty));
    }
    all.extend([wide(), some_lanes()]);
    all
}

/// Those of clusters.
pub fn clusters() -> Vec<Program> {
    let mut all = stores();
    all.extend(reductions());
    all.extend(bulk_peers());
    all.push(remote());
    all
}
