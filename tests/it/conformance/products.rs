//! Products whose operands lie in shared memory in every way that a descriptor can say, and of every
//! type: the bytes are numbers anywhere, so that only the descriptor decides what is multiplied.

use rand::Rng;

use super::programs::{HEAD, Program, cta, generator, list, numbers, program};

/// How an operand lies in shared memory: pieces of 16 bytes that are swizzled together.
#[derive(Clone, Copy)]
struct Layout {
    width: u64,
    mn_major: bool,
}

impl Layout {
    fn name(self) -> String {
        format!("{}{}", 16 * self.width, if self.mn_major { "mn" } else { "k" })
    }

    /// Swizzle's code, leading and stride offsets of a descriptor, for `rows` rows.
    fn bits(self, rows: u64) -> u64 {
        let line = 16 * self.width;
        let code = match self.width {
            1 => 0,
            8 => 1,
            4 => 2,
            _ => 3u64,
        };
        let (lead, stride) = match (self.mn_major, self.width) {
            (false, 1) => (16 * rows, 128),
            (false, _) => (0, 8 * line),
            (true, 1) => (128, 256),
            (true, _) => (16 * line, 8 * line),
        };
        lead >> 4 << 16 | stride >> 4 << 32 | code << 62
    }
}

struct Form {
    a: &'static str,
    b: &'static str,
    cd: &'static str,
    n: usize,
    layouts: [Layout; 2],
    scales: [i32; 2],
    special: bool,
}

const K128: Layout = Layout { width: 8, mn_major: false };

const BASE: Form = Form {
    a: "bf16",
    b: "bf16",
    cd: "f32",
    n: 64,
    layouts: [K128; 2],
    scales: [1, 1],
    special: false,
};

/// Words of a type; every 200th element or so is a zero, a NaN, an infinity or a subnormal if asked.
fn elements(name: &str, ty: &str, n: usize, special: bool) -> Vec<u32> {
    let mut r = generator(&format!("{name} {ty}"));
    let bits = if matches!(ty, "tf32" | "f32") { 32 } else { 16 };
    let mut words = match ty {
        "e4m3" | "e5m2" => {
            // Exponents near each other; neither NaN nor infinity.
            let low = if ty == "e4m3" { 0x20..0x58u32 } else { 0x2c..0x4c };
            let mut byte = || r.random_range(low.clone()) | r.random::<u32>() & 0x80;
            (0..n).map(|_| byte() | byte() << 8 | byte() << 16 | byte() << 24).collect()
        }
        _ => numbers(name, ty, n),
    };
    if special {
        let odd: &[u32] = match ty {
            "e4m3" => &[0x0000_7f00, 0x0080_0001, 0x7e00_8700],
            "e5m2" => &[0x0000_7c00, 0x0080_0001, 0x7e00_fc00, 0x0000_7b03],
            "f16" => &[0x7c00, 0xfc00, 0x7e00, 0x8001, 0x03ff, 0x7bff, 0x8000],
            "bf16" => &[0x7f80, 0xff80, 0x7fc0, 0x8001, 0x007f, 0x7f7f, 0x8000],
            _ => &[0x7f80_0000, 0xff80_0000, 0x7fc0_0000, 0x8000_0001, 0x7f7f_ffff, 0x007f_ffff],
        };
        for _ in 0..n / (if bits == 32 { 200 } else { 100 }) {
            let at = r.random_range(0..n);
            let x = odd[r.random_range(0..odd.len())];
            words[at] = match (ty, r.random::<bool>()) {
                ("f16" | "bf16", true) => words[at] & 0xffff | x << 16,
                ("f16" | "bf16", false) => words[at] & 0xffff_0000 | x,
                _ => x,
            };
        }
    }
    words
}

/// D = +-A B + C with A from shared memory, then with A from registers and the next B.
fn wgmma(f: &Form) -> Program {
    let bytes = match f.a {
        "tf32" => 4,
        "e4m3" | "e5m2" => 1,
        _ => 2,
    };
    let (n, k) = (f.n, 32 / bytes);
    let half = f.cd == "f16";
    let nd = if half { n / 4 } else { n / 2 };
    let [la, lb] = f.layouts;
    let form = format!("wgmma.mma_async.sync.aligned.m64n{n}k{k}.{}.{}.{}", f.cd, f.a, f.b);
    let mut name = format!("{form} {} {}", la.name(), lb.name());
    if f.scales != [1, 1] {
        name += &format!(" {} {}", f.scales[0], f.scales[1]);
    }
    if f.special {
        name += " special";
    }
    // A at 0, B behind it, each with a next step of k.
    let b_at = 10240;
    let words = (b_at + 128 * n + 2048) / 4;
    let step = |l: Layout| if l.width >= 4 && !l.mn_major { 2 } else { 64 };
    let trans = |l: Layout| match bytes {
        2 => format!(", {}", i32::from(l.mn_major)),
        _ => String::new(),
    };
    let scales = format!("{}, {}", f.scales[0], f.scales[1]);
    // One word of each thread for all its results, but for few.
    let fold = nd > 4;
    let body = format!(
        "
    mul.wide.u32 off, t, 4; add.u64 p, p, off;
    mad.lo.u32 a, t, 4, s; mov.u32 i, t;
$fill:
    ld.global.b32 x, [p]; st.shared.b32 [a], x;
    add.u64 p, p, 512; add.u32 a, a, 512; add.u32 i, i, 128;
    setp.lt.u32 more, i, {words}; @more bra $fill;
    {fragments}
    {accumulators}
    fence.proxy.async.shared::cta;
    bar.sync 0;
    shr.u32 x, s, 4; cvt.u64.u32 off, x; and.b64 off, off, 0x3fff;
    add.u64 da, off, {a_bits}; add.u64 db, off, {b_bits};
    setp.eq.u32 more, 0, 0;
    wgmma.fence.sync.aligned;
    {form} {d}, da, db, more, {scales}{ta}{tb};
    add.u64 db, db, {b_step};
    {form} {d}, {f}, db, more, {scales}{tb};
    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned 0;
    mul.wide.u32 off, t, {stride}; add.u64 q, q, off;
    {stores}",
        fragments =
            (0..4).map(|i| format!("ld.global.b32 f{i}, [p+{}]; ", 512 * i)).collect::<String>(),
        accumulators = (0..nd)
            .map(|i| format!("ld.global.b32 d{i}, [p+{}];\n", 2048 + 512 * i))
            .collect::<String>(),
        a_bits = la.bits(64) as i64,
        b_bits = (lb.bits(n as u64) + (b_at as u64 >> 4)) as i64,
        b_step = step(lb),
        ta = trans(la),
        tb = trans(lb),
        d = list("d", 0..nd),
        f = list("f", 0..4),
        stride = if fold { 4 } else { 4 * nd },
        stores = if fold {
            let all: String = (0..nd).map(|i| format!("mad.lo.u32 x, x, 31, d{i};\n")).collect();
            format!("mov.u32 x, 0;\n{all}st.global.b32 [q], x;")
        } else {
            (0..nd).map(|i| format!("st.global.b32 [q+{}], d{i};\n", 4 * i)).collect()
        },
    );
    let regs = format!(".reg .b32 a, i, x, f<4>, d<{nd}>; .reg .b64 da, db; .reg .pred more;");
    // What the loop leaves p at is a multiple of 128 words.
    let filled = words.next_multiple_of(128);
    let mut input = elements(&name, f.a, b_at / 4, f.special);
    input.extend(elements(&format!("{name} b"), f.b, filled - b_at / 4, f.special));
    input.extend(elements(&format!("{name} f"), f.a, 512, f.special));
    input.extend(elements(&format!("{name} c"), f.cd, 128 * nd, f.special));
    let output = if fold { 128 } else { 128 * nd };
    cta(&name, 128, (filled * 4) as u32, &regs, &body, input, output)
}

/// A chain of two products of a warp; registers of A, B and the accumulator.
fn mma(form: &str, ty: [&str; 3], [na, nb, nc]: [usize; 3]) -> Program {
    let per = 2 * (na + nb) + nc;
    let loads: String = (0..per).map(|i| format!("ld.global.b32 x{i}, [p+{}];\n", 4 * i)).collect();
    let (a, b) = (|i: usize| list("x", i * na..(i + 1) * na), 2 * na);
    let (b, c) = (|i: usize| list("x", b + i * nb..b + (i + 1) * nb), list("x", per - nc..per));
    let stores: String =
        (0..nc).map(|i| format!("st.global.b32 [q+{}], x{};\n", 4 * i, per - nc + i)).collect();
    let body = format!(
        "
    mul.wide.u32 off, t, {}; add.u64 p, p, off; mul.wide.u32 off, t, {}; add.u64 q, q, off;
    {loads}
    {form} {c}, {}, {}, {c};
    {form} {c}, {}, {}, {c};
    {stores}",
        4 * per,
        4 * nc,
        a(0),
        b(0),
        a(1),
        b(1),
    );
    let words = |ty: &str, n: usize| match ty {
        "any" => super::programs::random_words(&format!("{form} {n}"), n),
        _ => elements(&format!("{form} {n}"), ty, n, true),
    };
    let [ta, tb, tc] = ty;
    let (xa, xb, xc) = (words(ta, 256 * na), words(tb, 256 * nb), words(tc, 128 * nc));
    let mut input = Vec::new();
    for t in 0..128 {
        input.extend(&xa[2 * na * t..2 * na * (t + 1)]);
        input.extend(&xb[2 * nb * t..2 * nb * (t + 1)]);
        input.extend(&xc[nc * t..nc * (t + 1)]);
    }
    cta(form, 128, 0, &format!(".reg .b32 x<{per}>;"), &body, input, 128 * nc)
}

/// Matrices of 8x8 in the numbers that [`super::programs`] leaves out.
fn matrices() -> Program {
    let text = format!(
        "{HEAD}.extern .shared .align 1024 .b8 smem[];
.visible .entry k(.param .u64 in, .param .u64 out)
{{
    .reg .b32 t, s, a, x<8>; .reg .u64 p, q, off;
    ld.param.u64 p, [in]; ld.param.u64 q, [out]; mov.u32 t, %tid.x; mov.u32 s, smem;
    mul.wide.u32 off, t, 16; add.u64 p, p, off; mul.wide.u32 off, t, 32; add.u64 q, q, off;
    mad.lo.u32 a, t, 16, s; ld.global.v4.b32 {{x0, x1, x2, x3}}, [p];
    st.shared.v4.b32 [a], {{x0, x1, x2, x3}}; bar.warp.sync 0xffffffff;
    xor.b32 a, t, 3; mad.lo.u32 a, a, 16, s;
    ldmatrix.sync.aligned.m8n8.x1.shared.b16 {{x0}}, [a];
    ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {{x1}}, [a];
    ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {{x2, x3}}, [a];
    bar.warp.sync 0xffffffff;
    stmatrix.sync.aligned.m8n8.x1.shared.b16 [a], {{x2}};
    stmatrix.sync.aligned.m8n8.x1.trans.shared.b16 [a+128], {{x0}};
    stmatrix.sync.aligned.m8n8.x2.shared.b16 [a+256], {{x1, x3}};
    bar.warp.sync 0xffffffff;
    mad.lo.u32 a, t, 16, s; ld.shared.v4.b32 {{x4, x5, x6, x7}}, [a];
    st.global.v4.b32 [q], {{x0, x1, x2, x3}}; st.global.v4.b32 [q+16], {{x4, x5, x6, x7}};
    ret;
}}
"
    );
    let input = super::programs::random_words("ldmatrix x1 x2", 128);
    program("ldmatrix x1 x2", text, (1, 32, 1024), vec![input], 256, Vec::new())
}

pub fn all() -> Vec<Program> {
    let mut all = Vec::new();
    let mut add = |f: Form| all.push(wgmma(&f));
    for width in [1, 2, 4, 8] {
        for mn_major in [false, true] {
            let l = Layout { width, mn_major };
            add(Form { layouts: [l, K128], ..BASE });
            if width != 8 || mn_major {
                add(Form { a: "f16", b: "f16", n: 128, layouts: [K128, l], ..BASE });
            }
            add(Form { n: 192, layouts: [l, l], scales: [-1, 1], ..BASE });
        }
        let l = Layout { width, mn_major: false };
        for ty in ["tf32", "e4m3"] {
            add(Form { a: ty, b: ty, n: 128, layouts: [l, l], ..BASE });
        }
    }
    for (a, b) in [("e5m2", "e5m2"), ("e4m3", "e5m2"), ("e5m2", "e4m3"), ("e4m3", "e4m3")] {
        for n in [8, 64, 256] {
            add(Form { a, b, n, ..BASE });
        }
        add(Form { a, b, n: 128, cd: "f16", ..BASE });
    }
    add(Form { a: "f16", b: "f16", n: 128, cd: "f16", ..BASE });
    for (a, n) in [("tf32", 64), ("tf32", 256), ("bf16", 248)] {
        add(Form { a, b: a, n, ..BASE });
    }
    for scales in [[-1, 1], [1, -1], [-1, -1]] {
        for a in ["f16", "tf32", "e5m2"] {
            add(Form { a, b: a, scales, ..BASE });
        }
    }
    for a in ["bf16", "f16", "tf32", "e4m3", "e5m2"] {
        add(Form { a, b: a, special: true, ..BASE });
    }
    add(Form { a: "f16", b: "f16", cd: "f16", special: true, ..BASE });
    add(Form { a: "e4m3", b: "e5m2", cd: "f16", special: true, ..BASE });
    let f =
        |shape: &str, d: &str, a: &str| format!("mma.sync.aligned.{shape}.row.col.{d}.{a}.{a}.{d}");
    all.extend([
        mma(&f("m16n8k8", "f32", "bf16"), ["bf16", "bf16", "f32"], [2, 1, 4]),
        mma(&f("m16n8k8", "f32", "f16"), ["f16", "f16", "f32"], [2, 1, 4]),
        mma(&f("m16n8k4", "f32", "tf32"), ["tf32", "tf32", "f32"], [2, 1, 4]),
        mma(&f("m16n8k8", "f16", "f16"), ["f16", "f16", "f16"], [2, 1, 2]),
        mma(&f("m16n8k16", "f16", "f16"), ["f16", "f16", "f16"], [4, 2, 2]),
        mma(&f("m8n8k16", "s32", "s8"), ["any"; 3], [1, 1, 2]),
        mma(&f("m16n8k16", "s32", "u8"), ["any"; 3], [2, 1, 4]),
        mma(&f("m16n8k32", "s32", "s8"), ["any"; 3], [4, 2, 4]),
        mma("mma.sync.aligned.m16n8k32.row.col.satfinite.s32.u8.s8.s32", ["any"; 3], [4, 2, 4]),
    ]);
    all.push(matrices());
    all
}
