//! Instructions between registers.

use super::*;

const NAN: u32 = 0x7fff_ffff;

fn f(x: f32) -> u32 {
    x.to_bits()
}

#[test]
fn integers_of_32_bits() {
    let minus = |x: i32| x as u32;
    for (body, a, b, c, want) in [
        ("add.u32 d, a, b;", u32::MAX, 2, 0, 1),
        ("add.sat.s32 d, a, b;", i32::MAX as u32, 1, 0, i32::MAX as u32),
        ("sub.s32 d, a, b;", 3, 5, 0, minus(-2)),
        ("mul.lo.u32 d, a, b;", 0x10001, 0x10001, 0, 0x20001),
        ("mul.hi.u32 d, a, b;", u32::MAX, u32::MAX, 0, u32::MAX - 1),
        ("mul.hi.s32 d, a, b;", minus(-2), 3, 0, u32::MAX),
        ("mad.lo.s32 d, a, b, c;", 7, minus(-3), 20, minus(-1)),
        ("mad.hi.u32 d, a, b, c;", 1 << 31, 6, 1, 4),
        ("sad.s32 d, a, b, c;", minus(-3), 4, 10, 17),
        ("div.s32 d, a, b;", minus(-7), 2, 0, minus(-3)),
        ("div.u32 d, a, b;", 7, 0, 0, u32::MAX),
        ("rem.s32 d, a, b;", minus(-7), 2, 0, minus(-1)),
        ("rem.u32 d, a, b;", 17, 5, 0, 2),
        ("min.s32 d, a, b;", minus(-1), 1, 0, minus(-1)),
        ("min.u32 d, a, b;", minus(-1), 1, 0, 1),
        ("max.s32 d, a, b;", minus(-1), 1, 0, 1),
        ("abs.s32 d, a;", minus(-5), 0, 0, 5),
        ("neg.s32 d, a;", 5, 0, 0, minus(-5)),
        ("shl.b32 d, a, b;", 1, 31, 0, 1 << 31),
        ("shl.b32 d, a, b;", 1, 32, 0, 0),
        ("shr.u32 d, a, b;", 1 << 31, 31, 0, 1),
        ("shr.s32 d, a, b;", 1 << 31, 40, 0, u32::MAX),
        ("not.b32 d, a;", 0xf0, 0, 0, 0xffff_ff0f),
        ("cnot.b32 d, a;", 0, 0, 0, 1),
        ("popc.b32 d, a;", 0xf0f0, 0, 0, 8),
        ("clz.b32 d, a;", 1, 0, 0, 31),
        ("clz.b32 d, a;", 0, 0, 0, 32),
        ("brev.b32 d, a;", 1, 0, 0, 1 << 31),
        ("bfind.u32 d, a;", 0x100, 0, 0, 8),
        ("bfind.u32 d, a;", 0, 0, 0, u32::MAX),
        ("bfind.s32 d, a;", minus(-1), 0, 0, u32::MAX),
        ("bfind.shiftamt.u32 d, a;", 0x100, 0, 0, 23),
        ("bfe.u32 d, a, b, c;", 0xabcd_1234, 8, 8, 0x12),
        ("bfe.s32 d, a, b, c;", 0x0000_8000, 12, 4, minus(-8)),
        ("bfe.s32 d, a, b, c;", 0x8000_0000, 28, 16, minus(-8)),
        ("bfe.u32 d, a, b, c;", u32::MAX, 40, 4, 0),
        ("bfi.b32 d, a, b, 8, 8;", 0x12, 0xffff_ffff, 0, 0xffff_12ff),
        ("bfi.b32 d, a, b, c, 8;", 0xab, 0, 28, 0xb000_0000),
        ("slct.b32.s32 d, a, b, c;", 1, 2, minus(-1), 2),
        ("slct.b32.f32 d, a, b, c;", 1, 2, f(0.5), 1),
        ("dp4a.u32.s32 d, a, b, c;", 0x0102_0304, 0xffff_ffff, 100, 90),
        ("mul24.lo.u32 d, a, b;", 0xff00_0003, 0xff00_0005, 0, 15),
    ] {
        assert_eq!(one(body, a, b, c), want, "{body} {a:#x} {b:#x} {c:#x}");
    }
}

#[test]
fn logic_tables_permutes_and_funnels() {
    for (body, a, b, c, want) in [
        ("lop3.b32 d, a, b, c, 0xE8;", 0xff00, 0xf0f0, 0xcccc, 0xfcc0),
        ("lop3.b32 d, a, b, c, 0x96;", 0xff00, 0xf0f0, 0xcccc, 0xff00 ^ 0xf0f0 ^ 0xcccc),
        ("lop3.b32 d, a, b, c, 0x80;", 0xff00, 0xf0f0, 0xcccc, 0xc000),
        ("prmt.b32 d, a, b, 0x5410;", 0x4433_2211, 0x8877_6655, 0, 0x6655_2211),
        ("prmt.b32 d, a, b, 0x7632;", 0x4433_2211, 0x8877_6655, 0, 0x8877_4433),
        ("prmt.b32 d, a, b, 0xF8C3;", 0x4433_2291, 0x8877_6655, 0, 0xffff_0044),
        ("prmt.b32.f4e d, a, b, c;", 0x4433_2211, 0x8877_6655, 1, 0x5544_3322),
        ("prmt.b32.b4e d, a, b, c;", 0x4433_2211, 0x8877_6655, 1, 0x7788_1122),
        ("prmt.b32.rc8 d, a, b, c;", 0x4433_2211, 0, 2, 0x3333_3333),
        ("prmt.b32.ecl d, a, b, c;", 0x4433_2211, 0, 2, 0x4433_3333),
        ("prmt.b32.ecr d, a, b, c;", 0x4433_2211, 0, 1, 0x2222_2211),
        ("prmt.b32.rc16 d, a, b, c;", 0x4433_2211, 0, 1, 0x4433_4433),
        ("shf.l.wrap.b32 d, a, b, c;", 0x8000_0001, 0x1, 33, 0x3),
        ("shf.l.clamp.b32 d, a, b, c;", 0x8000_0001, 0x1, 33, 0x8000_0001),
        ("shf.r.wrap.b32 d, a, b, c;", 0x10, 0xf, 4, 0xf000_0001),
        ("shf.r.clamp.b32 d, a, b, c;", 0x10, 0xf, 99, 0xf),
    ] {
        let got = one(body, a, b, c);
        assert_eq!(got, want, "{body}: {got:#x}, want {want:#x}");
    }
}

#[test]
fn integers_of_16_and_64_bits() {
    let h = |op: &str| {
        format!("cvt.u16.u32 h0, a; cvt.u16.u32 h1, b; {op} h2, h0, h1; cvt.u32.u16 d, h2;")
    };
    assert_eq!(one(&h("add.u16"), 0xffff, 2, 0), 1);
    assert_eq!(one(&h("mul.lo.u16"), 0x101, 0x101, 0), 0x201);
    assert_eq!(one(&h("min.s16"), 0xffff, 1, 0), 0xffff);
    assert_eq!(one(&h("sub.s16"), 0, 1, 0), 0xffff);
    assert_eq!(
        one("cvt.u16.u32 h0, a; cvt.u16.u32 h1, b; mul.wide.s16 d, h0, h1;", 0xffff, 2, 0),
        -2i32 as u32
    );
    assert_eq!(one("cvt.u16.u32 h0, a; cvt.s32.s16 d, h0;", 0x8000, 0, 0), 0xffff_8000);
    for (body, a, b, c, want) in [
        ("mul.wide.u32 wd, a, b;", 0xffff_ffff, 0xffff_ffff, 0, 0xffff_fffe_0000_0001),
        ("mul.wide.s32 wd, a, b;", 0xffff_ffff, 5, 0, -5i64 as u64),
        ("mad.wide.u32 wd, a, b, wc;", 1 << 31, 4, 7, (1 << 33) + 7),
        ("mad.lo.u64 wd, wa, wb, wc;", 1 << 40, 3, 5, (3 << 40) + 5),
        ("mul.hi.u64 wd, wa, wb;", 1 << 63, 6, 0, 3),
        ("add.u64 wd, wa, wb;", u64::MAX, 2, 0, 1),
        ("shl.b64 wd, wa, b;", 1, 63, 0, 1 << 63),
        ("shr.s64 wd, wa, b;", 1 << 63, 62, 0, -2i64 as u64),
        ("and.b64 wd, wa, wb;", 0xff00_ff00_0000_0000, 0xf0f0 << 48, 0, 0xf000 << 48),
        ("min.s64 wd, wa, wb;", u64::MAX, 1, 0, u64::MAX),
        ("div.s64 wd, wa, wb;", -9i64 as u64, 2, 0, -4i64 as u64),
        ("rem.u64 wd, wa, wb;", 100, 7, 0, 2),
        ("bfe.u64 wd, wa, b, c;", 0x1234 << 40, 40, 12, 0x234),
        ("brev.b64 wd, wa;", 1, 0, 0, 1 << 63),
        ("mov.b64 wd, {b, a};", 1, 2, 0, 1 << 32 | 2),
        ("mov.b64 {t, u}, wa; mov.b64 wd, {u, t};", 1 << 32 | 2, 0, 0, 2 << 32 | 1),
        ("cvt.s64.s32 wd, a;", 0xffff_ffff, 0, 0, u64::MAX),
        ("cvt.u64.u32 wd, a;", 0xffff_ffff, 0, 0, 0xffff_ffff),
    ] {
        let got = one64(body, a, b, c);
        assert_eq!(got, want, "{body}: {got:#x}, want {want:#x}");
    }
    assert_eq!(lanes("popc.b64 d, wa;", &[[u64::MAX, 0, 0]; 32]).0[3], 64);
    assert_eq!(lanes("clz.b64 d, wa;", &[[1, 0, 0]; 32]).0[3], 63);
}

#[test]
fn floats_of_32_bits() {
    let tiny = f32::MIN_POSITIVE / 4.0;
    for (body, a, b, c, want) in [
        ("add.f32 d, a, b;", f(1.5), f(2.25), 0, f(3.75)),
        ("add.sat.f32 d, a, b;", f(0.75), f(2.25), 0, f(1.0)),
        ("sub.f32 d, a, b;", f(1.0), f(2.0), 0, f(-1.0)),
        ("sub.f32 d, a, b;", f(f32::INFINITY), f(f32::INFINITY), 0, NAN),
        ("mul.f32 d, a, b;", f(tiny), f(1.0), 0, f(tiny)),
        ("mul.ftz.f32 d, a, b;", f(-tiny), f(1.0), 0, f(-0.0)),
        // One rounding: the product alone is inexact.
        (
            "fma.rn.f32 d, a, b, c;",
            f(1.0 + f32::EPSILON),
            f(1.0 + f32::EPSILON),
            f(-1.0),
            f(2.0 * f32::EPSILON + f32::EPSILON * f32::EPSILON),
        ),
        ("min.f32 d, a, b;", NAN, f(2.0), 0, f(2.0)),
        ("min.NaN.f32 d, a, b;", NAN, f(2.0), 0, NAN),
        ("max.f32 d, a, b;", f(-0.0), f(0.0), 0, 0),
        ("neg.f32 d, a;", f(1.0), 0, 0, f(-1.0)),
        ("abs.f32 d, a;", f(-3.0), 0, 0, f(3.0)),
        ("div.rn.f32 d, a, b;", f(1.0), f(3.0), 0, f(1.0 / 3.0)),
        ("div.approx.ftz.f32 d, a, b;", f(6.0), f(3.0), 0, f(2.0)),
        ("ex2.approx.ftz.f32 d, a;", f(-3.0), 0, 0, f(0.125)),
        ("ex2.approx.f32 d, a;", f(f32::NEG_INFINITY), 0, 0, 0),
        ("lg2.approx.f32 d, a;", f(8.0), 0, 0, f(3.0)),
        ("rcp.approx.ftz.f32 d, a;", f(4.0), 0, 0, f(0.25)),
        ("rcp.rn.f32 d, a;", 0, 0, 0, f(f32::INFINITY)),
        ("rsqrt.approx.f32 d, a;", f(16.0), 0, 0, f(0.25)),
        ("sqrt.rn.f32 d, a;", f(2.0), 0, 0, f(2f32.sqrt())),
        ("tanh.approx.f32 d, a;", f(-8.0), 0, 0, f(-1.0)),
        ("sin.approx.f32 d, a;", 0, 0, 0, 0),
        ("cos.approx.f32 d, a;", 0, 0, 0, f(1.0)),
        ("mul.f32 d, a, 0f40000000;", f(3.0), 0, 0, f(6.0)),
        ("add.f32 d, a, 0.5;", f(3.0), 0, 0, f(3.5)),
    ] {
        let got = one(body, a, b, c);
        assert_eq!(got, want, "{body}: {got:#x}, want {want:#x}");
    }
    let d = |x: f64| x.to_bits();
    assert_eq!(one64("fma.rn.f64 wd, wa, wb, wc;", d(3.0), d(4.0), d(0.5)), d(12.5));
    assert_eq!(one64("cvt.f64.f32 wd, a;", f(1.5).into(), 0, 0), d(1.5));
}

#[test]
fn floats_of_16_bits() {
    let bf = |x: f32| u32::from(half::bf16::from_f32(x).to_bits());
    let hf = |x: f32| u32::from(half::f16::from_f32(x).to_bits());
    let two = |f: &dyn Fn(f32) -> u32, low: f32, high: f32| f(low) | f(high) << 16;
    for (body, a, b, c, want) in [
        ("add.rn.bf16x2 d, a, b;", two(&bf, 1.0, 2.0), two(&bf, 0.5, -4.0), 0, two(&bf, 1.5, -2.0)),
        (
            "fma.rn.f16x2 d, a, b, c;",
            two(&hf, 2.0, 3.0),
            two(&hf, 4.0, 5.0),
            two(&hf, 1.0, -1.0),
            two(&hf, 9.0, 14.0),
        ),
        (
            "mul.f16x2 d, a, b;",
            two(&hf, 300.0, 2.0),
            two(&hf, 300.0, 2.0),
            0,
            two(&hf, f32::INFINITY, 4.0),
        ),
        (
            "max.bf16x2 d, a, b;",
            two(&bf, 1.0, -2.0),
            two(&bf, -1.0, f32::NAN),
            0,
            two(&bf, 1.0, -2.0),
        ),
        ("neg.bf16x2 d, a;", two(&bf, 1.0, -2.0), 0, 0, two(&bf, -1.0, 2.0)),
        ("ex2.approx.f16x2 d, a;", two(&hf, 3.0, -1.0), 0, 0, two(&hf, 8.0, 0.5)),
        ("ex2.approx.ftz.bf16x2 d, a;", two(&bf, 2.0, -2.0), 0, 0, two(&bf, 4.0, 0.25)),
        // The first source goes into the upper half.
        ("cvt.rn.bf16x2.f32 d, a, b;", f(1.0), f(-2.5), 0, two(&bf, -2.5, 1.0)),
        ("cvt.rn.f16x2.f32 d, a, b;", f(1.0), f(1e6), 0, two(&hf, f32::INFINITY, 1.0)),
        ("cvt.rn.relu.bf16x2.f32 d, a, b;", f(-1.0), f(2.0), 0, two(&bf, 2.0, 0.0)),
        ("mov.b32 {h0, h1}, a; mov.b32 d, {h1, h0};", 0x1234_5678, 0, 0, 0x5678_1234),
        ("mov.b32 {h0, h1}, a; cvt.f32.bf16 d, h1;", 0x3f80_0000, 0, 0, f(1.0)),
        (
            "cvt.rn.bf16.f32 h0, a; cvt.f32.bf16 d, h0;",
            f(1.0 + 1.5 / 128.0),
            0,
            0,
            f(1.0 + 2.0 / 128.0),
        ),
        ("cvt.rn.f16.f32 h0, a; cvt.f32.f16 d, h0;", f(65519.0), 0, 0, f(65504.0)),
        ("cvt.rz.f16.f32 h0, a; cvt.f32.f16 d, h0;", f(1.9999), 0, 0, f(1.999_023_4)),
        ("cvt.rna.tf32.f32 d, a;", f(1.0) + 0x1000, 0, 0, f(1.0) + 0x2000),
        ("cvt.rn.tf32.f32 d, a;", f(1.0) + 0x1000, 0, 0, f(1.0)),
    ] {
        let got = one(body, a, b, c);
        assert_eq!(got, want, "{body}: {got:#x}, want {want:#x}");
    }
}

#[test]
fn conversions_of_whole_numbers() {
    for (body, a, want) in [
        ("cvt.rn.f32.s32 d, a;", -3i32 as u32, f(-3.0)),
        ("cvt.rn.f32.u32 d, a;", 0xffff_ffff, f(4294967296.0)),
        ("cvt.rz.f32.u32 d, a;", 0xffff_ffff, f(4294967040.0)),
        ("cvt.rzi.s32.f32 d, a;", f(-2.7), -2i32 as u32),
        ("cvt.rni.s32.f32 d, a;", f(2.5), 2),
        ("cvt.rmi.s32.f32 d, a;", f(-2.2), -3i32 as u32),
        ("cvt.rpi.u32.f32 d, a;", f(2.2), 3),
        ("cvt.rzi.u32.f32 d, a;", f(-1.0), 0),
        ("cvt.rzi.s32.f32 d, a;", f(1e20), i32::MAX as u32),
        ("cvt.rni.f32.f32 d, a;", f(3.5), f(4.0)),
        ("cvt.sat.f32.f32 d, a;", f(3.5), f(1.0)),
        ("cvt.u32.u8 d, a;", 0x1234, 0x34),
        ("cvt.s32.s8 d, a;", 0x80, 0xffff_ff80),
        ("cvt.sat.u8.s32 d, a;", 300, 255),
    ] {
        let got = one(body, a, 0, 0);
        assert_eq!(got, want, "{body}: {got:#x}, want {want:#x}");
    }
}

#[test]
fn comparisons_and_selection() {
    let sel = |cmp: &str| format!("{cmp} selp.b32 d, 1, 0, p0;");
    for (cmp, a, b, want) in [
        ("setp.lt.s32 p0, a, b;", u32::MAX, 1, 1),
        ("setp.lt.u32 p0, a, b;", u32::MAX, 1, 0),
        ("setp.hs.u32 p0, a, b;", 1, 1, 1),
        ("setp.eq.f32 p0, a, b;", NAN, NAN, 0),
        ("setp.neu.f32 p0, a, b;", NAN, NAN, 1),
        ("setp.ne.f32 p0, a, b;", NAN, f(1.0), 0),
        ("setp.ltu.f32 p0, a, b;", NAN, f(1.0), 1),
        ("setp.ge.f32 p0, a, b;", f(2.0), f(1.0), 1),
        ("setp.nan.f32 p0, a, b;", NAN, f(1.0), 1),
        ("setp.lt.ftz.f32 p0, a, b;", 1, 2, 0),
        ("setp.lt.f32 p0, a, b;", 1, 2, 1),
        ("setp.lt.u32 p1, a, 10; setp.eq.and.u32 p0, b, 4, p1;", 3, 4, 1),
        ("setp.lt.u32 p1, a, 10; setp.eq.and.u32 p0, b, 4, !p1;", 3, 4, 0),
        ("setp.lt.u32 p1, a, 10; setp.eq.or.u32 p0, b, 5, p1;", 3, 4, 1),
        ("setp.lt.u32 p1|p0, a, 10;", 3, 0, 0),
        ("setp.lt.u32 p1, a, 10; not.pred p0, p1;", 3, 0, 0),
        ("setp.lt.u32 p1, a, 10; mov.pred p2, p1; xor.pred p0, p1, p2;", 3, 0, 0),
    ] {
        assert_eq!(one(&sel(cmp), a, b, 0), want, "{cmp}");
    }
    assert_eq!(one("set.lt.u32.f32 d, a, b;", f(1.0), f(2.0), 0), u32::MAX);
    assert_eq!(one("set.gt.f32.s32 d, a, b;", 3, 2, 0), f(1.0));
    assert_eq!(one("setp.eq.u32 p0, a, 1; @p0 mov.u32 d, 5; @!p0 mov.u32 d, 6;", 1, 0, 0), 5);
}

#[test]
fn special_registers_and_addresses() {
    let out = run_raw(
        &module(
            ".param .u64 out",
            ".reg .b32 t, x; .reg .b64 p, o;
             ld.param.u64 p, [out]; mov.u32 t, %tid.y; mov.u32 x, %tid.x; mad.lo.u32 t, t, 4, x;
             mov.u32 x, %ctaid.x; mad.lo.u32 t, x, 8, t;
             mul.wide.u32 o, t, 16; add.u64 p, p, o;
             mov.u32 x, %nctaid.x; st.global.u32 [p], x; mov.u32 x, %ntid.y; st.global.u32 [p+4], x;
             mov.u32 x, %laneid; st.global.u32 [p+8], x;
             mov.u32 x, %lanemask_lt; st.global.u32 [p+12], x;",
        ),
        "k",
        [3, 1, 1],
        [4, 2, 1],
        0,
        &[RawArg::Out(3 * 8 * 16)],
    )
    .unwrap();
    let w = out.words(0);
    for t in 0..24 {
        let lane = t as u32 % 8;
        assert_eq!(w[4 * t..4 * t + 4], [3, 2, lane, (1 << lane) - 1]);
    }
}
