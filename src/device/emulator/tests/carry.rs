//! Carries, masks, classes of floats and dot products of halves.

use super::*;

#[test]
fn carries_run_through_words() {
    // 128-bit sums and differences of (wa, wb) and (wc, wc).
    let sum = "mov.b64 {t, u}, wa; mov.b64 {a, b}, wc; add.cc.u32 t, t, a; addc.cc.u32 u, u, b;
               addc.u32 v, 0, 0; mov.b64 wd, {t, u}; mov.u32 d, v;";
    let difference = "mov.b64 {t, u}, wa; mov.b64 {a, b}, wc; sub.cc.u32 t, t, a;
                      subc.cc.u32 u, u, b; subc.u32 v, 0, 0; mov.b64 wd, {t, u}; mov.u32 d, v;";
    let cases = [0, 1, 0xffff_ffff, 0x1_0000_0000, u64::MAX, u64::MAX - 1, 0x8000_0000_0000_0000];
    for a in cases {
        for c in cases {
            let input = [[a, 0, c]; 32];
            let (x, carry) = a.overflowing_add(c);
            let (d, wd) = lanes(sum, &input);
            assert_eq!((d[0], wd[0]), (carry.into(), x), "{a:x} + {c:x}");
            let (x, borrow) = a.overflowing_sub(c);
            let (d, wd) = lanes(difference, &input);
            assert_eq!((d[0], wd[0]), (u32::from(borrow).wrapping_neg(), x), "{a:x} - {c:x}");
        }
    }
    let wide = "add.cc.u64 p, wa, wb; addc.u64 wd, wc, 0; cvt.u32.u64 d, p;";
    assert_eq!(one64(wide, u64::MAX, 1, 5), 6);
    assert_eq!(one64(wide, u64::MAX, 0, 5), 5);
    // A lane that is switched off keeps its carry.
    let body = "and.b32 t, a, 1; setp.eq.u32 p0, t, 1; add.cc.u32 u, -1, 1; @p0 add.cc.u32 u, 0, 0;
                addc.u32 d, 0, 0;";
    let input = std::array::from_fn(|i| [i as u64, 0, 0]);
    assert_eq!(lanes(body, &input).0, (0..32).map(|i| 1 - i % 2).collect::<Vec<_>>());
}

#[test]
fn products_carry() {
    // 64 x 64 -> 128 bits from 32-bit parts.
    let unsigned = "mov.b64 {t, u}, wa; mov.b64 {a, b}, wb;
        .reg .b32 r<4>;
        mul.lo.u32 r0, t, a; mul.hi.u32 r1, t, a;
        mad.lo.cc.u32 r1, u, a, r1; madc.hi.u32 r2, u, a, 0;
        mad.lo.cc.u32 r1, t, b, r1; madc.hi.cc.u32 r2, t, b, r2; addc.u32 r3, 0, 0;
        mad.lo.cc.u32 r2, u, b, r2; madc.hi.u32 r3, u, b, r3;
        mov.b64 wd, {r2, r3}; mov.u32 d, r1;";
    for a in [3, u64::MAX, 0x1234_5678_9abc_def0, 0xffff_ffff] {
        for b in [7, u64::MAX, 0xfedc_ba98_7654_3210] {
            let product = u128::from(a) * u128::from(b);
            let (d, wd) = lanes(unsigned, &[[a, b, 0]; 32]);
            assert_eq!((wd[0], d[0]), ((product >> 64) as u64, (product >> 32) as u32), "{a} {b}");
        }
    }
    // The high half of a signed product.
    let signed = "mad.hi.cc.s32 t, a, b, c; addc.u32 d, 0, t;";
    assert_eq!(one(signed, -3i32 as u32, 5, 0), u32::MAX);
    assert_eq!(one(signed, -3i32 as u32, 5, 1), 1);
    assert_eq!(one64("mad.hi.cc.s64 wd, wa, wb, wc;", -3i64 as u64, 5, 2), 1);
    assert_eq!(one64("mad.lo.cc.u64 p, wa, wb, wc; addc.u64 wd, 0, 0;", u64::MAX, 1, 1), 1);
}

#[test]
fn a_carry_that_nothing_left_is_found() {
    let t = run("", ".reg .b32 x; addc.u32 x, 0, 0; ret;", 32, 0, &[]).unwrap_err();
    assert_eq!(t.kind, FaultKind::Uninitialised);
    assert!(t.message.contains("CC.CF"), "{t}");
    let bad = |body: &str, words: &str| {
        let text = format!(".reg .b16 h; .reg .b32 x; .reg .b64 w; .reg .pred p; {body} ret;");
        let t = run("", &text, 32, 0, &[]).unwrap_err();
        assert!(t.message.contains(words), "{t}");
    };
    bad("add.cc.u16 h, 1, 1;", "does not know this form");
    bad("mad.wide.cc.u32 w, 1, 1, w;", "wants one of .lo, .hi");
    bad("testp.finite.f16 p, h;", "does not know this form");
    bad("pmevent 16;", "the event of pmevent is 16; 0 to 15 is wanted");
    bad("pmevent.mask 0x10000;", "0 to 65535 is wanted");
    bad("pmevent x;", "must be a whole-number constant");
}

#[test]
fn masks_and_extensions() {
    let bmsk = |at, len, mode: &str| one(&format!("bmsk.{mode}.b32 d, a, b;"), at, len, 0);
    assert_eq!(bmsk(1, 2, "wrap"), 6);
    for (at, len, clamp, wrap) in [
        (0, 0, 0, 0),
        (4, 8, 0xff0, 0xff0),
        (28, 8, 0xf000_0000, 0xf000_0000),
        (0, 31, 0x7fff_ffff, 0x7fff_ffff),
        (1, 31, 0xffff_fffe, 0xffff_fffe),
        (0, 32, 0xffff_ffff, 0),
        (3, 40, 0xffff_fff8, 0x7f8),
        (32, 4, 0, 0xf),
        (35, 4, 0, 0x78),
        (31, 1, 0x8000_0000, 0x8000_0000),
    ] {
        assert_eq!(bmsk(at, len, "clamp"), clamp, "{at} {len}");
        assert_eq!(bmsk(at, len, "wrap"), wrap, "{at} {len}");
    }
    let szext = |a, n, form: &str| one(&format!("szext.{form} d, a, b;"), a, n, 0);
    assert_eq!(szext(0xffff_ffff, 0, "wrap.u32"), 0);
    assert_eq!(szext(0x1234_56f8, 8, "clamp.u32"), 0xf8);
    assert_eq!(szext(0x1234_56f8, 8, "clamp.s32"), 0xffff_fff8);
    assert_eq!(szext(0x1234_5678, 8, "clamp.s32"), 0x78);
    assert_eq!(szext(0x9234_5678, 32, "clamp.s32"), 0x9234_5678);
    assert_eq!(szext(0x9234_5678, 32, "wrap.s32"), 0);
    assert_eq!(szext(0x9234_5678, 36, "wrap.s32"), 0xffff_fff8);
    assert_eq!(szext(0x9234_5678, 99, "clamp.u32"), 0x9234_5678);
}

/// As the manual words it.
fn nth_by_walking(mask: u32, base: i32, offset: i32) -> u32 {
    let set = |at: i32| mask >> at & 1 != 0;
    if offset == 0 {
        return if set(base) { base as u32 } else { u32::MAX };
    }
    let (mut at, mut count) = (base, offset.abs() - 1);
    while (0..32).contains(&at) {
        if set(at) {
            if count == 0 {
                return at as u32;
            }
            count -= 1;
        }
        at += offset.signum();
    }
    u32::MAX
}

#[test]
fn the_nth_one() {
    for mask in [0, 1, 0x8000_0000, 0xaaaa_aaaa, u32::MAX, 0x1234_5678] {
        for n in [0, 1, -1, 2, -2, 5, -7, 32, -32, 33, 1000] {
            let input = std::array::from_fn(|base| [mask.into(), base as u64, n as u32 as u64]);
            let wanted: Vec<_> = (0..32).map(|base| nth_by_walking(mask, base, n)).collect();
            assert_eq!(lanes("fns.b32 d, a, b, c;", &input).0, wanted, "{mask:x} {n}");
        }
    }
    assert_eq!(one("fns.b32 d, a, 3, -1;", 0xaaaa_aaaa, 0, 0), 3);
}

#[test]
fn dot_products_of_halves() {
    let (a, b) = (0xfffe_0003, 0x80ff_7f02);
    assert_eq!(one("dp2a.lo.u32.u32 d, a, b, c;", a, b, 10), 10 + 3 * 2 + 0xfffe * 0x7f);
    assert_eq!(one("dp2a.hi.u32.u32 d, a, b, c;", a, b, 0), 3 * 0xff + 0xfffe * 0x80);
    let signed = 5 + 3 * 2 - 2 * 0x7f;
    assert_eq!(one("dp2a.lo.s32.s32 d, a, b, c;", a, b, 5), signed as u32);
    assert_eq!(one("dp2a.hi.s32.s32 d, a, b, c;", a, b, 0), (-3 + 2 * 128) as u32);
    assert_eq!(one("dp2a.hi.u32.s32 d, a, b, c;", a, b, 0), (-3 - 0xfffe * 128) as u32);
    assert_eq!(one("dp2a.hi.s32.u32 d, a, b, c;", a, b, 0), (3 * 255 - 2 * 128) as u32);
}

#[test]
fn classes_of_floats() {
    let values = [0.0, -1.5, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1e-40, f32::MIN_POSITIVE];
    let wanted = [
        ("finite", [1, 1, 0, 0, 0, 1, 1]),
        ("infinite", [0, 0, 1, 1, 0, 0, 0]),
        ("number", [1, 1, 1, 1, 0, 1, 1]),
        ("notanumber", [0, 0, 0, 0, 1, 0, 0]),
        ("normal", [1, 1, 0, 0, 0, 0, 1]),
        ("subnormal", [0, 0, 0, 0, 0, 1, 0]),
    ];
    for (what, wanted) in wanted {
        let body =
            format!("mov.b32 f0, a; testp.{what}.f32 p0, f0; selp.u32 d, 1, 0, p0; pmevent 3;");
        let got: Vec<_> = values.iter().map(|x| one(&body, x.to_bits(), 0, 0)).collect();
        assert_eq!(got, wanted, "{what}");
        let body = format!(
            ".reg .f64 g; mov.b64 g, wa; testp.{what}.f64 p0, g; selp.u64 wd, 1, 0, p0;
             pmevent.mask 0xffff;"
        );
        let values = values.map(|x| if x == 1e-40 { 5e-324 } else { f64::from(x) });
        let got: Vec<_> = values.iter().map(|x| one64(&body, x.to_bits(), 0, 0) as u32).collect();
        assert_eq!(got, wanted, "{what}");
    }
}

#[test]
fn explicit_clusters() {
    let text = |directive: &str| {
        format!(
            ".version 8.0\n.target sm_90\n.address_size 64\n\
             .visible .entry k(.param .u64 out) {directive} {{ .reg .pred e; .reg .b32 x, t;
             .reg .b64 p; mov.pred e, %is_explicit_cluster; selp.u32 x, 1, 0, e;
             mov.u32 t, %tid.x; setp.ne.u32 e, t, 0; @e ret; ld.param.u64 p, [out];
             st.global.b32 [p], x; ret; }}"
        )
    };
    let got = |directive: &str| {
        let out = run_raw(&text(directive), "k", [1; 3], [32, 1, 1], 0, &[RawArg::Out(4)]);
        out.unwrap_or_else(|t| panic!("{t}")).outputs[0][0]
    };
    assert_eq!(got(""), 0);
    assert_eq!(got(".reqnctapercluster 1, 1, 1"), 1);
}
