//! Approximate functions against what an NVIDIA H200 with driver 580.159.04 gives, bit for bit.

use super::super::{RawArg, run_raw};
use super::one;
use super::tensor::vectors;

/// `op` of each of `x`.
fn apply(op: &str, x: &[u32]) -> Vec<u32> {
    let text = format!(
        ".version 8.4\n.target sm_90a\n.address_size 64
         .visible .entry k(.param .u64 in, .param .u64 out, .param .u32 count) {{
         .reg .b32 t, u, n; .reg .f32 x; .reg .b64 p, q, off; .reg .pred end;
         ld.param.u64 p, [in]; ld.param.u64 q, [out]; ld.param.u32 n, [count];
         mov.u32 t, %ctaid.x; mov.u32 u, %tid.x; mad.lo.u32 t, t, 256, u;
         setp.ge.u32 end, t, n; @end ret;
         mul.wide.u32 off, t, 4; add.u64 p, p, off; add.u64 q, q, off;
         ld.global.f32 x, [p]; {op} x, x; st.global.f32 [q], x; ret; }}"
    );
    let input = x.iter().flat_map(|x| x.to_le_bytes()).collect();
    let n = x.len() as u32;
    let args = [RawArg::In(input), RawArg::Out(4 * x.len()), RawArg::U32(n)];
    let out = run_raw(&text, "k", [n.div_ceil(256), 1, 1], [256, 1, 1], 0, &args);
    out.unwrap_or_else(|t| panic!("{op}: {t}")).words(0)
}

#[test]
fn approximate_functions_are_a_gpus() {
    let v = vectors("special.safetensors");
    let mut ops = 0;
    for (name, (_, want)) in &v {
        let (op, x) = match name.strip_prefix("dense.y.") {
            Some(op) => (op, format!("dense.x.{op}")),
            None if name == "x" || name.starts_with("dense") => continue,
            None => (name.as_str(), "x".to_owned()),
        };
        let x = &v[&x].1;
        assert_eq!(x.len(), want.len());
        let wrong: Vec<_> = apply(op, x)
            .iter()
            .zip(want)
            .zip(x)
            .filter(|((got, want), _)| got != want)
            .map(|((got, want), x)| format!("{op} {x:#010x}: {got:#010x}, want {want:#010x}"))
            .collect();
        assert!(
            wrong.is_empty(),
            "{} of {}: {:#?}",
            wrong.len(),
            x.len(),
            &wrong[..wrong.len().min(8)]
        );
        ops += 1;
    }
    assert_eq!(ops, 14 + 6);
}

#[test]
fn quotients_are_products_with_the_reciprocal() {
    let f = f32::to_bits;
    let tiny = f(2f32.powi(-140));
    let huge = f(2f32.powi(127));
    for (op, x, y, want) in [
        ("div.approx.ftz.f32", f(6.0), f(4.0), f(1.5)),
        // Beyond 2^126 the reciprocal is subnormal, and zero.
        ("div.approx.f32", huge, huge, 0),
        ("div.full.f32", huge, huge, f(1.0)),
        ("div.full.ftz.f32", huge, huge, f(1.0)),
        ("div.approx.f32", tiny, tiny, f(1.0)),
        ("div.full.f32", tiny, tiny, f(1.0)),
        ("div.approx.ftz.f32", tiny, f(2.0), 0),
        ("div.full.ftz.f32", f(1.0), tiny, f(f32::INFINITY)),
        ("div.approx.f32", f(1.0), f(0.0), f(f32::INFINITY)),
        ("div.full.f32", f(0.0), f(0.0), 0x7fff_ffff),
    ] {
        let got = one(&format!("{op} d, a, b;"), x, y, 0);
        assert_eq!(got, want, "{op} {x:#x}, {y:#x}: {got:#x}");
    }
    // What rounds correctly stays apart.
    assert_eq!(one("rcp.rn.f32 d, a;", f(3.0), 0, 0), f(1.0 / 3.0));
    assert_eq!(one("rcp.rn.f32 d, a;", huge, 0, 0), f(2f32.powi(-127)));
    assert_eq!(one("sqrt.rn.f32 d, a;", f(3.0), 0, 0), f(3f32.sqrt()));
}
