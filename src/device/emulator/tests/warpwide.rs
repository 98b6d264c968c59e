//! Exchange between lanes, fragments, divergence.

use super::*;

fn ramp() -> [[u64; 3]; 32] {
    std::array::from_fn(|i| [i as u64, 100 + i as u64, 0])
}

fn each(body: &str, want: impl Fn(u32) -> u32) {
    let (d, _) = lanes(body, &ramp());
    assert_eq!(d, (0..32).map(want).collect::<Vec<_>>(), "{body}");
}

#[test]
fn shuffles() {
    each("shfl.sync.bfly.b32 d, b, 5, 0x1f, 0xffffffff;", |i| 100 + (i ^ 5));
    each("shfl.sync.up.b32 d, b, 3, 0, 0xffffffff;", |i| 100 + if i < 3 { i } else { i - 3 });
    each("shfl.sync.down.b32 d, b, 3, 0x1f, 0xffffffff;", |i| 100 + if i > 28 { i } else { i + 3 });
    each("shfl.sync.idx.b32 d, b, 7, 0x1f, 0xffffffff;", |_| 107);
    // Segments of 8 lanes.
    each("shfl.sync.idx.b32 d, b, 2, 0x181f, 0xffffffff;", |i| 100 + (i & !7) + 2);
    each("shfl.sync.down.b32 d|p0, b, 6, 0x1807, 0xffffffff; selp.u32 d, 1, 0, p0;", |i| {
        u32::from(i % 8 < 2)
    });
    each("shfl.sync.down.b32 d|p0, b, 1, 0x1f, 0xffffffff; selp.u32 d, d, 7, p0;", |i| {
        if i == 31 { 7 } else { 101 + i }
    });
}

#[test]
fn votes_matches_and_reductions() {
    let even = "and.b32 t, a, 1; setp.eq.u32 p0, t, 0;";
    each(&format!("{even} vote.sync.ballot.b32 d, p0, 0xffffffff;"), |_| 0x5555_5555);
    each(&format!("{even} vote.sync.all.pred p1, p0, -1; selp.u32 d, 1, 0, p1;"), |_| 0);
    each(&format!("{even} vote.sync.any.pred p1, !p0, -1; selp.u32 d, 1, 0, p1;"), |_| 1);
    each("shr.u32 t, a, 3; match.any.sync.b32 d, t, 0xffffffff;", |i| 0xff << (8 * (i / 8)));
    each("match.all.sync.b32 d|p0, a, 0xffffffff; selp.u32 d, 1, d, p0;", |_| 0);
    each("redux.sync.add.u32 d, a, 0xffffffff;", |_| 496);
    each("sub.u32 t, a, 5; redux.sync.min.s32 d, t, 0xffffffff;", |_| -5i32 as u32);
    each("elect.sync d|p0, 0xffffffff; selp.u32 d, 1, 0, p0;", |i| u32::from(i == 0));
    each("setp.lt.u32 p0, a, 4; @p0 activemask.b32 d;", |i| if i < 4 { 15 } else { 0 });
    each("setp.lt.u32 p0, a, 8; @!p0 bra $x; redux.sync.max.u32 d, a, 0xff; $x:", |i| {
        if i < 8 { 7 } else { 0 }
    });
}

#[test]
fn matrices_transpose() {
    // Element (r, c) of the 8x8 is 8 r + c.
    let element = |r: u32, c: u32| 8 * r + c;
    let fragment = |i: u32| element(i / 4, 2 * (i % 4)) | element(i / 4, 2 * (i % 4) + 1) << 16;
    let turned = |i: u32| element(2 * (i % 4), i / 4) | element(2 * (i % 4) + 1, i / 4) << 16;
    let input = std::array::from_fn(|i| [fragment(i as u32).into(), 0, 0]);
    let (d, _) = lanes("movmatrix.sync.aligned.m8n8.trans.b16 d, a;", &input);
    assert_eq!(d, (0..32).map(turned).collect::<Vec<_>>());
    // By way of shared memory: rows of 16 bytes.
    let text = |load: &str| {
        format!(
            ".reg .b32 s, r, t; .reg .b64 p, o; ld.param.u64 p, [out]; mov.u32 t, %tid.x;
             mov.u32 s, smem; shl.b32 r, t, 2; add.u32 r, r, s; ld.param.u64 o, [in];
             .reg .b64 q; mul.wide.u32 q, t, 4; add.u64 o, o, q; add.u64 p, p, q;
             ld.global.b32 t, [o]; st.shared.b32 [r], t; bar.warp.sync -1;
             mov.u32 t, %tid.x; and.b32 t, t, 7; shl.b32 t, t, 4; add.u32 s, s, t;
             {load} {{t}}, [s]; st.global.b32 [p], t;"
        )
    };
    let words = || RawArg::words((0..32).map(fragment));
    let params = ".param .u64 in, .param .u64 out";
    for (load, want) in [
        ("ldmatrix.sync.aligned.m8n8.x1.shared.b16", (0..32).map(fragment).collect::<Vec<_>>()),
        ("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16", (0..32).map(turned).collect()),
    ] {
        let out = run(params, &text(load), 32, 512, &[words(), RawArg::Out(128)]).unwrap();
        assert_eq!(out.words(0), want, "{load}");
        assert_eq!(out.counts.shared_wavefronts, 2);
    }
}

/// d = a b + c over fragments filled by `a(row, k)`, `b(k, column)`, `c(row, column)`, all small
/// whole numbers.
fn product(shape: &str, k: usize, dtype: &str, half_acc: bool) {
    let a = |m: usize, k: usize| ((m * 3 + k * 5) % 7) as f32 - 3.0;
    let b = |k: usize, n: usize| ((k * 2 + n * 3) % 5) as f32 - 2.0;
    let c = |m: usize, n: usize| (m + 2 * n) as f32;
    let pair = dtype != "tf32";
    let encode = |x: f32| match dtype {
        "bf16" => u32::from(half::bf16::from_f32(x).to_bits()),
        "f16" => u32::from(half::f16::from_f32(x).to_bits()),
        _ => x.to_bits(),
    };
    let word = |f: &dyn Fn(usize) -> f32, k: usize| {
        if pair { encode(f(k)) | encode(f(k + 1)) << 16 } else { encode(f(k)) }
    };
    let (per, step) = if pair { (2, 8) } else { (1, 4) };
    let kg = k / step;
    let (mut wa, mut wb, mut wc) = (Vec::new(), Vec::new(), Vec::new());
    for l in 0..32 {
        let (g, t) = (l / 4, l % 4);
        for j in 0..kg {
            for half in 0..2 {
                wa.push(word(&|k| a(g + 8 * half, k), per * t + step * j));
            }
        }
        for j in 0..kg {
            wb.push(word(&|k| b(k, g), per * t + step * j));
        }
        for half in 0..2 {
            let (x, y) = (c(g + 8 * half, 2 * t), c(g + 8 * half, 2 * t + 1));
            if half_acc {
                wc.push(encode(x) | encode(y) << 16);
            } else {
                wc.extend([x.to_bits(), y.to_bits()]);
            }
        }
    }
    let nc = if half_acc { 2 } else { 4 };
    let list =
        |name: &str, n: usize| (0..n).map(|i| format!("{name}{i}")).collect::<Vec<_>>().join(", ");
    let loads = |name: &str, n: usize| {
        let mut s =
            format!("ld.param.u64 p, [{name}]; mul.wide.u32 o, t, {}; add.u64 p, p, o;\n", 4 * n);
        for i in 0..n {
            s += &format!("ld.global.b32 {name}{i}, [p+{}];\n", 4 * i);
        }
        s
    };
    let acc = if half_acc { "f16" } else { "f32" };
    let mut text = format!(
        ".reg .b32 t, ra<4>, rb<4>, rc<4>; .reg .b64 p, o; mov.u32 t, %tid.x;\n{}{}{}
         mma.sync.aligned.{shape}.row.col.{acc}.{dtype}.{dtype}.{acc} {{{}}}, {{{}}}, {{{}}}, {{{}}};
         ld.param.u64 p, [out]; mul.wide.u32 o, t, {}; add.u64 p, p, o;\n",
        loads("ra", 2 * kg),
        loads("rb", kg),
        loads("rc", nc),
        list("rc", nc),
        list("ra", 2 * kg),
        list("rb", kg),
        list("rc", nc),
        4 * nc
    );
    for i in 0..nc {
        text += &format!("st.global.b32 [p+{}], rc{i};\n", 4 * i);
    }
    let out = run(
        ".param .u64 ra, .param .u64 rb, .param .u64 rc, .param .u64 out",
        &text,
        32,
        0,
        &[RawArg::words(wa), RawArg::words(wb), RawArg::words(wc), RawArg::Out(128 * nc)],
    )
    .unwrap_or_else(|t| panic!("{shape} {dtype}: {t}"));
    let got = out.words(0);
    for l in 0..32 {
        let (g, t) = (l / 4, l % 4);
        for half in 0..2 {
            for odd in 0..2 {
                let (m, n) = (g + 8 * half, 2 * t + odd);
                let want = c(m, n) + (0..k).map(|k| a(m, k) * b(k, n)).sum::<f32>();
                let x = if half_acc {
                    half::f16::from_bits((got[l * nc + half] >> (16 * odd)) as u16).to_f32()
                } else {
                    f32::from_bits(got[l * nc + 2 * half + odd])
                };
                assert_eq!(x, want, "{shape} {dtype}, row {m} column {n}");
            }
        }
    }
    let name = if dtype == "f16" { "fp16" } else { dtype };
    assert_eq!(out.counts.tensor_flops[name], 2 * 16 * 8 * k as u64);
}

#[test]
fn matrix_products() {
    product("m16n8k16", 16, "bf16", false);
    product("m16n8k16", 16, "f16", false);
    product("m16n8k16", 16, "f16", true);
    product("m16n8k8", 8, "bf16", false);
    product("m16n8k8", 8, "f16", false);
    product("m16n8k8", 8, "f16", true);
    product("m16n8k8", 8, "tf32", false);
    product("m16n8k4", 4, "tf32", false);
}

#[test]
fn divergent_branches_meet_again() {
    // Lanes loop a times each, then all take part in one reduction.
    each(
        "mov.u32 t, 0; mov.u32 u, a;
         $loop: setp.eq.u32 p0, u, 0; @p0 bra $done;
         add.u32 t, t, 2; sub.u32 u, u, 1; bra $loop;
         $done: redux.sync.add.u32 v, t, 0xffffffff; add.u32 d, v, t;",
        |i| 992 + 2 * i,
    );
    each(
        "setp.lt.u32 p0, a, 16; @p0 bra $low; add.u32 d, a, 1000; bra.uni $end;
         $low: add.u32 d, a, 2000; $end: add.u32 d, d, 1;",
        |i| if i < 16 { 2001 + i } else { 1001 + i },
    );
    // A spinning lane does not starve the one it waits for.
    let (d, _) = lanes(
        ".shared .b32 flag;
         setp.eq.u32 p0, a, 0; @p0 st.shared.u32 [flag], 0; bar.warp.sync -1;
         setp.eq.u32 p0, a, 31; @p0 bra $give;
         $spin: ld.volatile.shared.u32 t, [flag]; setp.eq.u32 p1, t, 0; @p1 bra $spin; bra $end;
         $give: st.volatile.shared.u32 [flag], 1;
         $end: mov.u32 d, 1;",
        &ramp(),
    );
    assert_eq!(d, vec![1; 32]);
}
