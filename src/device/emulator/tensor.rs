//! `mma.sync`: products of fragments spread over a warp.
//!
//! Lane l is row group g = l / 4 and column t = l % 4. Products are exact and are added to the
//! fp32 accumulator one by one, in a fixed order of k; hardware aligns and truncates a little.

use pulp::{Arch, Simd, WithSimd};

use super::num;
use super::ptx::ast::Ty;
use super::regs::{Regs, Row};

/// Over registers whose slots are given in the order d, a, b, c.
pub type MmaFn = fn(Arch, &mut Regs, &[u16]);

/// A form of `mma.sync` with 16 rows and 8 columns.
#[derive(Clone, Copy)]
pub struct Shape {
    pub f: MmaFn,
    /// Registers of an operand of a, b, and of c and d.
    pub a: usize,
    pub b: usize,
    pub c: usize,
}

/// The form with operands of type `ab` and accumulators of type `cd`.
pub fn shape(k: u32, ab: Ty, cd: Ty) -> Option<Shape> {
    let (f, a, b, c): (MmaFn, _, _, _) = match (k, ab, cd) {
        (16, Ty::Bf16, Ty::F32) => (mma::<PairBf16, 2, false>, 4, 2, 4),
        (16, Ty::F16, Ty::F32) => (mma::<PairF16, 2, false>, 4, 2, 4),
        (16, Ty::F16, Ty::F16) => (mma::<PairF16, 2, true>, 4, 2, 2),
        (8, Ty::Bf16, Ty::F32) => (mma::<PairBf16, 1, false>, 2, 1, 4),
        (8, Ty::F16, Ty::F32) => (mma::<PairF16, 1, false>, 2, 1, 4),
        (8, Ty::F16, Ty::F16) => (mma::<PairF16, 1, true>, 2, 1, 2),
        (8, Ty::Tf32, Ty::F32) => (mma::<OneTf32, 2, false>, 4, 2, 4),
        (4, Ty::Tf32, Ty::F32) => (mma::<OneTf32, 1, false>, 2, 1, 4),
        _ => return None,
    };
    Some(Shape { f, a, b, c })
}

/// Name of the operands' type and operations of one instruction over a full warp.
pub fn work(f: MmaFn) -> (&'static str, u64) {
    let forms = [
        (16, Ty::Bf16, Ty::F32, "bf16"),
        (16, Ty::F16, Ty::F32, "fp16"),
        (16, Ty::F16, Ty::F16, "fp16"),
        (8, Ty::Bf16, Ty::F32, "bf16"),
        (8, Ty::F16, Ty::F32, "fp16"),
        (8, Ty::F16, Ty::F16, "fp16"),
        (8, Ty::Tf32, Ty::F32, "tf32"),
        (4, Ty::Tf32, Ty::F32, "tf32"),
    ];
    for (k, ab, cd, name) in forms {
        if shape(k, ab, cd).is_some_and(|s| std::ptr::fn_addr_eq(s.f, f)) {
            return (name, 2 * 16 * 8 * u64::from(k));
        }
    }
    ("other", 0)
}

/// What a 32-bit register of an operand holds: one value, or two along k.
trait Pack {
    const PAIR: bool;
    fn low(w: u32) -> f32;
    fn high(w: u32) -> f32;
}

struct PairBf16;
impl Pack for PairBf16 {
    const PAIR: bool = true;
    #[inline(always)]
    fn low(w: u32) -> f32 {
        f32::from_bits(w << 16)
    }
    #[inline(always)]
    fn high(w: u32) -> f32 {
        f32::from_bits(w & 0xffff_0000)
    }
}

struct PairF16;
impl Pack for PairF16 {
    const PAIR: bool = true;
    #[inline(always)]
    fn low(w: u32) -> f32 {
        num::f16_to_f32(w & 0xffff)
    }
    #[inline(always)]
    fn high(w: u32) -> f32 {
        num::f16_to_f32(w >> 16)
    }
}

/// The hardware reads 19 bits of a tf32 operand.
struct OneTf32;
impl Pack for OneTf32 {
    const PAIR: bool = false;
    #[inline(always)]
    fn low(w: u32) -> f32 {
        f32::from_bits(w & !0x1fff)
    }
    #[inline(always)]
    fn high(_: u32) -> f32 {
        0.0
    }
}

/// Columns in the order in which lanes of one row hold them: evens, then odds.
const COLUMN: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];

/// `KG` registers of b along k; `HALF`: accumulators are pairs of fp16.
fn mma<P: Pack, const KG: usize, const HALF: bool>(arch: Arch, r: &mut Regs, slots: &[u16]) {
    struct K<'a, P, const KG: usize, const HALF: bool>(
        &'a mut Regs,
        &'a [u16],
        std::marker::PhantomData<P>,
    );
    impl<P: Pack, const KG: usize, const HALF: bool> WithSimd for K<'_, P, KG, HALF> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) {
            body::<P, KG, HALF>(self.0, self.1);
        }
    }
    arch.dispatch(K::<P, KG, HALF>(r, slots, std::marker::PhantomData));
}

#[inline(always)]
fn body<P: Pack, const KG: usize, const HALF: bool>(r: &mut Regs, slots: &[u16]) {
    let c_regs = if HALF { 2 } else { 4 };
    let (d, rest) = slots.split_at(c_regs);
    let (a, rest) = rest.split_at(2 * KG);
    let (b, c) = rest.split_at(KG);
    let row = |s: u16| &r.r32[usize::from(s)];

    // b by k, each a row of columns in the order of COLUMN.
    let mut b_low = [[[0f32; 8]; 4]; KG];
    let mut b_high = [[[0f32; 8]; 4]; KG];
    for j in 0..KG {
        let src = row(b[j]);
        let mut words = [[0u32; 8]; 4];
        for t in 0..4 {
            for n in 0..8 {
                words[t][n] = src[COLUMN[n] * 4 + t];
            }
        }
        for t in 0..4 {
            for n in 0..8 {
                b_low[j][t][n] = P::low(words[t][n]);
                b_high[j][t][n] = P::high(words[t][n]);
            }
        }
    }
    let mut out = [[[0f32; 8]; 8]; 2];
    for half in 0..2 {
        // Register j of a's rows g + 8 * half.
        let mut a_low = [[0f32; 32]; KG];
        let mut a_high = [[0f32; 32]; KG];
        for j in 0..KG {
            let src = row(a[2 * j + half]);
            for i in 0..32 {
                a_low[j][i] = P::low(src[i]);
                a_high[j][i] = P::high(src[i]);
            }
        }
        let mut acc = [[0f32; 8]; 8];
        for (g, acc) in acc.iter_mut().enumerate() {
            for t in 0..4 {
                if HALF {
                    let w = row(c[half])[g * 4 + t];
                    acc[t] = num::f16_to_f32(w & 0xffff);
                    acc[4 + t] = num::f16_to_f32(w >> 16);
                } else {
                    acc[t] = f32::from_bits(row(c[2 * half])[g * 4 + t]);
                    acc[4 + t] = f32::from_bits(row(c[2 * half + 1])[g * 4 + t]);
                }
            }
        }
        for j in 0..KG {
            for t in 0..4 {
                for g in 0..8 {
                    let x = a_low[j][g * 4 + t];
                    for n in 0..8 {
                        acc[g][n] = x.mul_add(b_low[j][t][n], acc[g][n]);
                    }
                }
                if P::PAIR {
                    for g in 0..8 {
                        let x = a_high[j][g * 4 + t];
                        for n in 0..8 {
                            acc[g][n] = x.mul_add(b_high[j][t][n], acc[g][n]);
                        }
                    }
                }
            }
        }
        out[half] = acc;
    }
    for half in 0..2 {
        let (mut even, mut odd) = (Row([0; 32]), Row([0; 32]));
        for g in 0..8 {
            for t in 0..4 {
                even[g * 4 + t] = num::canon(out[half][g][t]);
                odd[g * 4 + t] = num::canon(out[half][g][4 + t]);
            }
        }
        if HALF {
            let mut pair = Row([0; 32]);
            for i in 0..32 {
                pair[i] = num::f32_to_f16(f32::from_bits(even[i]))
                    | num::f32_to_f16(f32::from_bits(odd[i])) << 16;
            }
            r.r32[usize::from(d[half])] = pair;
        } else {
            r.r32[usize::from(d[2 * half])] = even;
            r.r32[usize::from(d[2 * half + 1])] = odd;
        }
    }
}
