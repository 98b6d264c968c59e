//! Directed rounding, packing, and products of 8-bit whole numbers.

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64;

use super::*;

/// A float as a multiple of 2^-70.
fn scaled(x: f32) -> i128 {
    (f64::from(x) * 70f64.exp2()) as i128
}

/// `a * b + c` by `op`, and what it gives rounded down, up and toward zero.
fn check(op: &str, body: &str, [a, b, c]: [f32; 3], exact: i128) {
    let bits = [a, b, c].map(|x| x.to_bits());
    let run = |mode: &str| f32::from_bits(one(&body.replace("$", mode), bits[0], bits[1], bits[2]));
    let (down, up, zero) = (run("rm"), run("rp"), run("rz"));
    let what = format!("{op} of {a:e}, {b:e}, {c:e}: {down:e} {up:e} {zero:e}");
    assert!(scaled(down) <= exact && exact < scaled(down.next_up()), "{what}");
    assert!(scaled(up) >= exact && exact > scaled(up.next_down()), "{what}");
    assert_eq!(zero.to_bits(), if exact < 0 { up } else { down }.to_bits(), "{what}");
}

#[test]
fn sums_and_products_are_rounded_as_told() {
    let rng = &mut Pcg64::seed_from_u64(7);
    let mut number = || {
        let m: f32 = rng.random_range(-2.0f32..2.0);
        // Often short, so that results are exact or ties.
        let m = if rng.random_bool(0.3) { (m * 64.0).round() / 64.0 } else { m };
        let m = if m.abs() < 1e-3 { 1.0 } else { m };
        m * (rng.random_range(-8i32..8) as f32).exp2()
    };
    for _ in 0..150 {
        let (a, b, c) = (number(), number(), number());
        let (sa, sb, sc) = (scaled(a), scaled(b), scaled(c));
        if sa + sb != 0 {
            check("add", "add.$.f32 d, a, b;", [a, b, c], sa + sb);
        }
        if sa != sb {
            check("sub", "sub.$.f32 d, a, b;", [a, b, c], sa - sb);
        }
        let product = (sa >> 35) * (sb >> 35);
        check("mul", "mul.$.f32 d, a, b;", [a, b, c], product);
        if product + sc != 0 {
            check("fma", "fma.$.f32 d, a, b, c;", [a, b, c], product + sc);
        }
    }
    let f = |x: f32| x.to_bits();
    let of = |body: &str, a: f32, b: f32, c: f32| f32::from_bits(one(body, f(a), f(b), f(c)));
    // Overflow ends at the largest number where rounding leads back, and what is too small at the
    // smallest or at zero.
    let most = f32::MAX;
    assert_eq!(of("add.rz.f32 d, a, b;", most, most, 0.0), most);
    assert_eq!(of("add.rm.f32 d, a, b;", most, most, 0.0), most);
    assert_eq!(of("add.rp.f32 d, a, b;", most, most, 0.0), f32::INFINITY);
    assert_eq!(of("mul.rp.f32 d, a, b;", -most, 2.0, 0.0), -most);
    assert_eq!(of("mul.rm.f32 d, a, b;", -most, 2.0, 0.0), f32::NEG_INFINITY);
    let least = f32::from_bits(1);
    assert_eq!(of("mul.rp.f32 d, a, b;", least, 0.25, 0.0), least);
    assert_eq!(of("mul.rz.f32 d, a, b;", least, 0.25, 0.0), 0.0);
    assert_eq!(of("fma.rm.f32 d, a, b, c;", -least, least, 0.0), -least);
    assert_eq!(of("fma.rz.f32 d, a, b, c;", 1.0, 1.0, -least), 1f32.next_down());
    // Zeros: of opposite signs only down is negative.
    let zero = |body: &str, a: f32, b: f32, c: f32| of(body, a, b, c).to_bits();
    assert_eq!(zero("add.rm.f32 d, a, b;", 1.0, -1.0, 0.0), f(-0.0));
    assert_eq!(zero("add.rz.f32 d, a, b;", 1.0, -1.0, 0.0), f(0.0));
    assert_eq!(zero("sub.rp.f32 d, a, b;", 0.0, 0.0, 0.0), f(0.0));
    assert_eq!(zero("add.rm.f32 d, a, b;", 0.0, 0.0, 0.0), f(0.0));
    assert_eq!(zero("add.rp.f32 d, a, b;", -0.0, -0.0, 0.0), f(-0.0));
    assert_eq!(zero("mul.rp.f32 d, a, b;", -0.0, 5.0, 0.0), f(-0.0));
    assert_eq!(zero("fma.rm.f32 d, a, b, c;", 2.0, 3.0, -6.0), f(-0.0));
    assert_eq!(one("add.rz.f32 d, a, b;", f(f32::INFINITY), f(f32::NEG_INFINITY), 0), 0x7fff_ffff);
    assert_eq!(of("add.rz.ftz.f32 d, a, b;", least, 0.0, 0.0), 0.0);
    assert_eq!(of("fma.rp.sat.f32 d, a, b, c;", 3.0, 3.0, 1.0), 1.0);
}

#[test]
fn signs_join_by_exclusive_or() {
    let f = |x: f32| x.to_bits();
    let of = |body: &str, a: f32, b: f32| f32::from_bits(one(body, f(a), f(b), 0));
    assert_eq!(of("max.xorsign.abs.f32 d, a, b;", -3.0, 2.0), -3.0);
    assert_eq!(of("max.xorsign.abs.f32 d, a, b;", -3.0, -4.0), 4.0);
    assert_eq!(of("min.xorsign.abs.f32 d, a, b;", 3.0, -2.0), -2.0);
    assert_eq!(of("min.xorsign.abs.f32 d, a, b;", f32::NAN, -2.0), -2.0);
    assert_eq!(one("min.NaN.xorsign.abs.f32 d, a, b;", f(-1.0), 0x7fc0_0001, 0), 0x7fff_ffff);
}

#[test]
fn whole_numbers_go_in_pairs() {
    let x = 0x7fff_8000;
    assert_eq!(one("add.s16x2 d, a, b;", x, 0x0001_ffff, 0), 0x8000_7fff);
    assert_eq!(one("min.s16x2 d, a, b;", x, 0x0001_0001, 0), 0x0001_8000);
    assert_eq!(one("max.s16x2 d, a, b;", x, 0x0001_0001, 0), 0x7fff_0001);
    assert_eq!(one("min.u16x2 d, a, b;", x, 0x0001_0001, 0), 0x0001_0001);
    assert_eq!(one("max.u16x2 d, a, b;", x, 0x0001_0001, 0), 0x7fff_8000);
    assert_eq!(one("min.relu.s16x2 d, a, b;", x, 0x0001_0001, 0), 0x0001_0000);
    assert_eq!(one("max.relu.s32 d, a, b;", -5i32 as u32, -7i32 as u32, 0), 0);
    assert_eq!(one("min.relu.s32 d, a, b;", 5, 7, 0), 5);
    let minus = |x: i32| (-x) as u32;
    assert_eq!(one("cvt.pack.sat.s16.s32 d, a, b;", 70_000, minus(70_000), 0), 0x7fff_8000);
    assert_eq!(one("cvt.pack.sat.u16.s32 d, a, b;", 70_000, minus(1), 0), 0xffff_0000);
    assert_eq!(one("cvt.pack.sat.s8.s32.b32 d, a, b, c;", minus(1), 200, 0xabcd_1234), 0x1234_ff7f);
    assert_eq!(one("cvt.pack.sat.u8.s32.b32 d, a, b, c;", 300, minus(4), 0x5678), 0x5678_ff00);
    assert_eq!(one("cvt.pack.sat.s4.s32.b32 d, a, b, c;", minus(9), 9, 0xff12_3456), 0x1234_5687);
    assert_eq!(one("mul24.hi.u32 d, a, b;", 0xff80_0000, 0x00ff_ffff, 0), 0x7fff_ff80);
    assert_eq!(one("mul24.hi.s32 d, a, b;", 0x0080_0000, 2, 0), -256i32 as u32);
    assert_eq!(one("mad24.lo.s32 d, a, b, c;", 0x00ff_ffff, 7, 10), 3);
    assert_eq!(one("mad24.hi.u32 d, a, b, c;", 0x0080_0000, 0x0002_0000, 5), 0x0100_0005);
    // Whether a & b leaves anything, joined with another predicate.
    let both = |join: &str| {
        format!(
            "setp.ne.u32 p0, c, 0; lop3.{join}.b32 d|p1, a, b, c, 0xc0, p0;
                 selp.u32 t, 16, 0, p1; or.b32 d, d, t;"
        )
    };
    for (join, a, c, want) in [
        ("or", 1, 0, 17),
        ("or", 2, 0, 0),
        ("or", 2, 1, 16),
        ("and", 1, 0, 1),
        ("and", 1, 1, 17),
        ("and", 2, 1, 0),
    ] {
        assert_eq!(one(&both(join), a, 1, c), want, "{join} {a} {c}");
    }
}

/// Fragments as the instruction set describes them, element by element.
fn product(m: usize, k: usize, types: [&str; 2], saturate: bool, large: bool) {
    let rng = &mut Pcg64::seed_from_u64((m * k) as u64);
    let value = |ty: &str, byte: u8| match ty {
        "s8" => i64::from(byte as i8),
        _ => i64::from(byte),
    };
    let a: Vec<u8> = (0..m * k).map(|_| rng.random()).collect();
    let b: Vec<u8> = (0..k * 8).map(|_| rng.random()).collect();
    let c: Vec<i32> = (0..m * 8)
        .map(|_| if large { i32::MAX - rng.random_range(0..4000) } else { rng.random_range(-9..9) })
        .collect();
    let (na, nb, nc) = (m * k / 128, k / 16, m / 4);
    let mut words = Vec::new();
    for lane in 0..32 {
        let (g, t) = (lane / 4, lane % 4);
        for i in (0..4 * na).step_by(4) {
            // 16 rows: two registers of rows, then the next 16 of k.
            let (row, group) = if m == 16 { (g + 8 * (i / 4 % 2), i / 8) } else { (g, i / 4) };
            let at = row * k + 16 * group + 4 * t;
            words.push(u32::from_le_bytes([a[at], a[at + 1], a[at + 2], a[at + 3]]));
        }
        for i in 0..nb {
            let byte = |s: usize| b[(16 * i + 4 * t + s) * 8 + g];
            words.push(u32::from_le_bytes([byte(0), byte(1), byte(2), byte(3)]));
        }
        for i in 0..nc {
            words.push(c[(g + 8 * (i / 2)) * 8 + 2 * t + i % 2] as u32);
        }
    }
    let list = |name: &str, n: usize| {
        let all: Vec<String> = (0..n).map(|i| format!("{name}{i}")).collect();
        format!("{{{}}}", all.join(", "))
    };
    let n = na + nb + nc;
    let load = |name: &str, count: usize, from: usize| -> String {
        (0..count).map(|i| format!("ld.global.b32 {name}{i}, [p+{}];", 4 * (from + i))).collect()
    };
    let body = format!(
        ".reg .b32 t, a<4>, b<2>, c<4>; .reg .b64 p, q, o; mov.u32 t, %tid.x;
         ld.param.u64 p, [in]; ld.param.u64 q, [out]; mul.wide.u32 o, t, {}; add.u64 p, p, o;
         mul.wide.u32 o, t, {}; add.u64 q, q, o; {} {} {}
         mma.sync.aligned.m{m}n8k{k}.row.col{}.s32.{}.{}.s32 {c}, {}, {}, {c};
         {} ret;",
        4 * n,
        4 * nc,
        load("a", na, 0),
        load("b", nb, na),
        load("c", nc, na + nb),
        if saturate { ".satfinite" } else { "" },
        types[0],
        types[1],
        list("a", na),
        list("b", nb),
        (0..nc).map(|i| format!("st.global.b32 [q+{}], c{i};", 4 * i)).collect::<String>(),
        c = list("c", nc),
    );
    let args = [RawArg::words(words), RawArg::Out(128 * nc)];
    let out = run(".param .u64 in, .param .u64 out", &body, 32, 0, &args);
    let out = out.unwrap_or_else(|t| panic!("{t}"));
    assert_eq!(out.counts.tensor_flops["int8"], 2 * (m * k * 8) as u64);
    for (at, got) in out.words(0).into_iter().enumerate() {
        let (lane, i) = (at / nc, at % nc);
        let (row, column) = (lane / 4 + 8 * (i / 2), 2 * (lane % 4) + i % 2);
        let terms =
            (0..k).map(|j| value(types[0], a[row * k + j]) * value(types[1], b[j * 8 + column]));
        let sum = i64::from(c[row * 8 + column]) + terms.sum::<i64>();
        let want = if saturate { sum.clamp(i32::MIN.into(), i32::MAX.into()) } else { sum };
        assert_eq!(got, want as u32, "m{m} k{k} {types:?} row {row} column {column}");
    }
}

#[test]
fn products_of_bytes_are_exact() {
    for (m, k) in [(16, 32), (16, 16), (8, 16)] {
        for types in [["s8", "s8"], ["u8", "s8"], ["s8", "u8"], ["u8", "u8"]] {
            product(m, k, types, false, false);
            product(m, k, types, true, true);
            product(m, k, types, false, true);
        }
    }
}
