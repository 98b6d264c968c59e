//! Tensor cores against results of a GPU, and against each other.

use std::collections::HashMap;
use std::path::Path;

use proptest::prelude::*;
use pulp::Arch;
use safetensors::SafeTensors;

use super::super::num;
use super::super::regs::Row;
use super::super::tensor::rule::{Rule, exact};
use super::super::tensor::{Accumulators, Bf16, E4m3, E5m2, Element, F16, Scratch, Sum, Tf32};
use super::super::{RawArg, run_raw};

/// Words of each tensor of a file in `tests/vectors`, with the shape.
pub fn vectors(file: &str) -> HashMap<String, (Vec<usize>, Vec<u32>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(file);
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let words =
        |b: &[u8]| b.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect::<Vec<_>>();
    file.iter().map(|(k, t)| (k.to_owned(), (t.shape().to_vec(), words(t.data())))).collect()
}

const HEAD: &str = ".version 8.4\n.target sm_90a\n.address_size 64\n";

fn list(name: &str, n: usize) -> String {
    let regs: Vec<_> = (0..n).map(|i| format!("{name}{i}")).collect();
    format!("{{{}}}", regs.join(", "))
}

/// Loads A and C fragments of a thread, runs `body`, and stores the accumulators `c`. A CTA a
/// case; `b` is left to the body, with `pb` at the case's words.
fn program(threads: usize, a: usize, b: usize, c: usize, body: &str) -> String {
    let each = |n: usize, f: &dyn Fn(usize) -> String| (0..n).map(f).collect::<String>();
    format!(
        "{HEAD}.visible .entry k(.param .u64 a, .param .u64 b, .param .u64 c, .param .u64 d) {{
         .shared .align 1024 .b8 sh[256];
         .reg .b32 a<4>, b<2>, c<4>, cta, t, lane, x, at; .reg .b64 pa, pb, pc, pd, off, desc;
         .reg .pred p, q;
         ld.param.u64 pa, [a]; ld.param.u64 pb, [b]; ld.param.u64 pc, [c]; ld.param.u64 pd, [d];
         mov.u32 cta, %ctaid.x; mov.u32 t, %tid.x; and.b32 lane, t, 31;
         mad.lo.u32 x, cta, 32, lane;
         mul.wide.u32 off, x, {a4}; add.u64 pa, pa, off;
         mul.wide.u32 off, x, {c4}; add.u64 pc, pc, off;
         mad.lo.u32 x, cta, {threads}, t; mul.wide.u32 off, x, {c4}; add.u64 pd, pd, off;
         mul.wide.u32 off, cta, {b4}; add.u64 pb, pb, off;
         {la} {lc}
         {body}
         {sd} ret; }}",
        a4 = 4 * a,
        b4 = 4 * b,
        c4 = 4 * c,
        la = each(a, &|i| format!("ld.global.b32 a{i}, [pa+{}];", 4 * i)),
        lc = each(c, &|i| format!("ld.global.b32 c{i}, [pc+{}];", 4 * i)),
        sd = each(c, &|i| format!("st.global.b32 [pd+{}], c{i};", 4 * i)),
    )
}

#[test]
fn results_are_those_of_a_gpu() {
    let v = vectors("tensor.safetensors");
    let mut forms = 0;
    for key in v.keys().filter_map(|k| k.strip_suffix(".d")) {
        let get = |x: &str| &v[&format!("{key}.{x}")];
        let ((sa, a), (sb, b), (sc, c), (_, want)) = (get("a"), get("b"), get("c"), get("d"));
        let (cases, na, nc) = (sa[0], sa[2], sc[2]);
        let words = sb[1..].iter().product();
        let parts: Vec<&str> = key.split('_').collect();
        let (shape, cd) = (parts[1], parts[2]);
        let c_list = list("c", nc);
        let (threads, body) = if parts[0] == "mma" {
            let ab = parts[3];
            let loads: String =
                (0..sb[2]).map(|i| format!("ld.global.b32 b{i}, [pb+{}];", 4 * i)).collect();
            let body = format!(
                "mul.wide.u32 off, lane, {}; add.u64 pb, pb, off; {loads}
                 mma.sync.aligned.{shape}.row.col.{cd}.{ab}.{ab}.{cd} {c_list}, {}, {}, {c_list};",
                4 * sb[2],
                list("a", na),
                list("b", sb[2]),
            );
            (32, body)
        } else {
            let (ta, tb) = (parts[3], parts[4]);
            let trans = if matches!(ta, "bf16" | "f16") { ", 0" } else { "" };
            // Two core matrices, 128 bytes apart.
            let body = format!(
                "setp.lt.u32 q, t, 64; mul.wide.u32 off, t, 4; add.u64 pb, pb, off;
                 mov.u32 at, sh; shl.b32 x, t, 2; add.u32 x, x, at;
                 @q ld.global.b32 lane, [pb]; @q st.shared.b32 [x], lane;
                 fence.proxy.async; bar.sync 0;
                 shr.u32 at, at, 4; cvt.u64.u32 desc, at; or.b64 desc, desc, {};
                 setp.eq.u32 p, 0, 0;
                 wgmma.fence.sync.aligned;
                 wgmma.mma_async.sync.aligned.{shape}.{cd}.{ta}.{tb} {c_list}, {}, desc, p, 1, 1{trans};
                 wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 0;",
                (128u64 / 16) << 16 | (256u64 / 16) << 32,
                list("a", na),
            );
            (128, body)
        };
        let text = program(threads, na, words, nc, &body);
        let arg = |w: &[u32]| RawArg::words(w.iter().copied());
        let args = [arg(a), arg(b), arg(c), RawArg::Out(cases * threads * nc * 4)];
        let out = run_raw(&text, "k", [cases as u32, 1, 1], [threads as u32, 1, 1], 0, &args);
        let got = out.unwrap_or_else(|t| panic!("{key}: {t}")).words(0);
        for case in 0..cases {
            for warp in 0..threads / 32 {
                let at = (case * threads + 32 * warp) * nc;
                let (got, want) = (&got[at..][..32 * nc], &want[case * 32 * nc..][..32 * nc]);
                if let Some(i) = (0..32 * nc).find(|&i| got[i] != want[i]) {
                    panic!(
                        "{key}, case {case}, warp {warp}, lane {}, register {}: got {:08x}, the \
                         GPU gave {:08x}",
                        i / nc,
                        i % nc,
                        got[i],
                        want[i]
                    );
                }
            }
        }
        forms += 1;
    }
    assert_eq!(forms, 16);
}

/// Random bits of any exponent, of exponents near each other, and zeros.
fn words() -> impl Strategy<Value = Vec<u32>> {
    let near = (any::<u32>(), 100u32..150).prop_map(|(w, e)| w & 0x807f_ffff | e << 23);
    let word = prop_oneof![2 => any::<u32>(), 6 => near, 1 => Just(0u32)];
    proptest::collection::vec(word, 32)
}

fn check<E: Element>(rule: Rule, a: &[u32], b: &[u32], c: &[u32], half: bool) {
    let k = 4 * E::PACK;
    let mut s = Scratch::default();
    s.fragment::<E>(0, &Row(std::array::from_fn(|i| a[i])), 0);
    s.fragment::<E>(1, &Row(std::array::from_fn(|i| a[31 - i])), 0);
    s.b.reserve(2 * k);
    let b_word = |k: usize, t: usize| b[(k / E::PACK) * 4 + t] >> (32 / E::PACK * (k % E::PACK));
    // The second step's columns are the first's in another order.
    let b_word = |k: usize, step: usize, t: usize| b_word(k, (t + step) % 4);
    for at in 0..2 * k {
        s.b.value[at] = std::array::from_fn(|t| E::value(b_word(at % k, at / k, t)));
        s.b.exponent[at] = std::array::from_fn(|t| E::exponent(b_word(at % k, at / k, t)));
    }
    let sum = Sum { rule, k, half };
    let c: [Row<u32>; 2] = [0, 5].map(|by| Row(std::array::from_fn(|i| c[(i + by) % 32])));
    let slots = if half { &[0][..] } else { &[1, 0] };
    let mut results = Vec::new();
    for arch in archs() {
        let mut rows = c;
        let acc = Accumulators { rows: &mut rows, slots, fresh: false };
        match arch {
            Some(arch) => sum.run(arch, &s.a, &s.b, acc),
            None => sum.run_portable(&s.a, &s.b, acc),
        }
        results.push(rows);
    }
    let fast = results[0];
    assert!(results.iter().all(|r| *r == fast), "{results:08x?}");
    let lanes = (0..32 * slots.len()).map(|i| (i / 32, i % 32));
    for (step, i) in lanes {
        let (fast, c) = (fast[usize::from(slots[step])][i], c[usize::from(slots[step])][i]);
        let a_word =
            |k: usize| a[(i & !3) + k % (4 * E::PACK) / E::PACK] >> (32 / E::PACK * (k % E::PACK));
        let one = |step: usize, c: f32| {
            let pairs = (0..k).map(|k| {
                let (a, b) = (a_word(k), b_word(k, step, i % 4));
                ((E::value(a), E::exponent(a)), (E::value(b), E::exponent(b)))
            });
            exact(rule, pairs, c, half)
        };
        let want = if half {
            let of = |step: usize, c: u32| {
                num::f32_to_f16(f32::from_bits(one(step, num::f16_to_f32(c & 0xffff))))
            };
            of(0, c) | of(1, c >> 16) << 16
        } else {
            one(step, f32::from_bits(c))
        };
        assert_eq!(fast, want, "step {step}, lane {i}: {fast:08x} {want:08x}");
    }
}

/// The vectors of this machine, narrower ones, and none.
fn archs() -> Vec<Option<Arch>> {
    let mut all = vec![Some(Arch::new()), None];
    #[cfg(target_arch = "x86_64")]
    all.extend(pulp::x86::V3::try_new().map(|v| Some(Arch::V3(v))));
    all
}

proptest! {
    #[test]
    fn all_ways_to_add_up_agree(a in words(), b in words(), c in words(), half: bool) {
        check::<Bf16>(Rule::WIDE, &a, &b, &c, half);
        check::<F16>(Rule::WIDE, &a, &b, &c, half);
        check::<Tf32>(Rule::WIDE, &a, &b, &c, false);
        check::<E4m3>(Rule::FP8, &a, &b, &c, half);
        check::<E5m2>(Rule::FP8, &a, &b, &c, half);
    }
}

#[test]
fn scales_below_one_agree() {
    // bf16 1 and 0, by powers of two on both sides of the greatest exponent whose scale is 1, and far.
    for x in [0x3f80_3f80u32, 0x3f80_0000, 0xbf80_8000, 0x0000_3fff] {
        for exponent in [23u32, 24, 25, 26, 27, 60, 118, 121] {
            let y = (127 + exponent) << 7 | 0x35;
            for c in [0, 0x8000_0000, 0x4c00_0001, 0x3f80_0000] {
                check::<Bf16>(Rule::WIDE, &[x; 32], &[y << 16 | y; 32], &[c; 32], false);
            }
        }
    }
    for x in [0x7e7e_7e7eu32, 0x7e00_7e01, 0x5656_fe00] {
        for c in [0, 0x4500_0001, 0x4780_0001, 0xc880_0000] {
            check::<E4m3>(Rule::FP8, &[x; 32], &[0x7e7e_5e00; 32], &[c; 32], false);
            check::<E5m2>(Rule::FP8, &[x & 0x7b7b_7b7b; 32], &[0x7b7b_5b00; 32], &[c; 32], false);
        }
    }
}

#[test]
fn constant_matrices_reach_the_greatest_sums() {
    for x in [0x3fff_3fffu32, 0x3f80_3f80, 0xbfff_3fff, 0xbfff_bfff, 0, 0x8000_8000] {
        for c in [0, 0x8000_0000, 0x41ff_ffff, 0xc1ff_ffff] {
            check::<Bf16>(Rule::WIDE, &[x; 32], &[0x3fff_3fff; 32], &[c; 32], false);
        }
    }
}
