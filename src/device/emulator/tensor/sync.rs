//! `mma.sync`: products of 16 rows and 8 columns by one warp.

use pulp::{Arch, Simd, WithSimd};

use super::rule::Rule;
use super::{Accumulators, Bf16, Element, F16, Scratch, Sum, Tf32};
use crate::device::emulator::ptx::ast::Ty;
use crate::device::emulator::regs::{Regs, Row, dispatch};

/// Over registers whose slots are given in the order d, a, b, c.
pub type MmaFn = fn(Arch, &mut Regs, &mut Scratch, &[u16]);

/// A form of `mma.sync` with 16 rows and 8 columns.
#[derive(Clone, Copy)]
pub struct Shape {
    pub f: MmaFn,
    /// Registers of an operand of a, b, and of c and d.
    pub a: usize,
    pub b: usize,
    pub c: usize,
}

impl From<super::whole::Form> for Shape {
    fn from(o: super::whole::Form) -> Shape {
        Shape { f: o.f, a: o.a, b: o.b, c: o.c }
    }
}

/// The form with operands of type `ab` and accumulators of type `cd`.
pub fn shape(k: u32, ab: Ty, cd: Ty) -> Option<Shape> {
    let (f, a, b, c): (MmaFn, _, _, _) = match (k, ab, cd) {
        (16, Ty::Bf16, Ty::F32) => (mma::<Bf16, 2, false>, 4, 2, 4),
        (16, Ty::F16, Ty::F32) => (mma::<F16, 2, false>, 4, 2, 4),
        (16, Ty::F16, Ty::F16) => (mma::<F16, 2, true>, 4, 2, 2),
        (8, Ty::Bf16, Ty::F32) => (mma::<Bf16, 1, false>, 2, 1, 4),
        (8, Ty::F16, Ty::F32) => (mma::<F16, 1, false>, 2, 1, 4),
        (8, Ty::F16, Ty::F16) => (mma::<F16, 1, true>, 2, 1, 2),
        (8, Ty::Tf32, Ty::F32) => (mma::<Tf32, 2, false>, 4, 2, 4),
        (4, Ty::Tf32, Ty::F32) => (mma::<Tf32, 1, false>, 2, 1, 4),
        _ => return None,
    };
    Some(Shape { f, a, b, c })
}

/// Name of the operands' type and operations of one instruction over a full warp.
pub fn work(f: MmaFn) -> (&'static str, u64) {
    if let Some(operations) = super::whole::work(f) {
        return ("int8", operations);
    }
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

/// `KG` registers of b along k; `HALF`: accumulators are pairs of fp16.
fn mma<E: Element, const KG: usize, const HALF: bool>(
    arch: Arch,
    regs: &mut Regs,
    scratch: &mut Scratch,
    slots: &[u16],
) {
    struct Load<'a, E, const KG: usize>(
        &'a Regs,
        &'a mut Scratch,
        &'a [u16],
        &'a [u16],
        std::marker::PhantomData<E>,
    );
    impl<E: Element, const KG: usize> WithSimd for Load<'_, E, KG> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) {
            let Load(regs, scratch, a, b, _) = self;
            for (j, &slot) in a[..2 * KG].iter().enumerate() {
                scratch.fragment::<E>(j, &regs.r32[usize::from(slot)], 0);
            }
            columns::<E, KG>(regs, scratch, b);
        }
    }
    let k = 4 * KG * E::PACK;
    let (d, rest) = slots.split_at(if HALF { 2 } else { 4 });
    let (a, rest) = rest.split_at(2 * KG);
    let (b, c) = rest.split_at(KG);
    let c = &c[..d.len()];
    dispatch(arch, Load::<E, KG>(regs, scratch, a, b, std::marker::PhantomData));
    let mut rows: [_; 4] =
        std::array::from_fn(|i| c.get(i).map_or(Row([0; 32]), |&c| regs.r32[usize::from(c)]));
    let slots = &[0, 1, 2, 3][..c.len()];
    let acc = Accumulators { rows: &mut rows, slots, fresh: false };
    Sum { rule: Rule::WIDE, k, half: HALF }.run(arch, &scratch.a, &scratch.b, acc);
    for (row, &d) in rows.iter().zip(d) {
        regs.r32[usize::from(d)] = *row;
    }
}

/// Element (k, n) is number k % P of register k / 4P in lane 4 n + k % 4P / P.
#[inline(always)]
fn columns<E: Element, const KG: usize>(regs: &Regs, scratch: &mut Scratch, b: &[u16]) {
    let k = 4 * KG * E::PACK;
    scratch.b.reserve(2 * k);
    for (j, &slot) in b[..KG].iter().enumerate() {
        let words = &regs.r32[usize::from(slot)];
        // Words t of columns i, 2 + i, 4 + i, 6 + i side by side, for each step i.
        let mut quads = [0; 32];
        for at in 0..8 {
            for n in 0..4 {
                quads[4 * at + n] = words[8 * n + at];
            }
        }
        for s in 0..E::PACK {
            let (mut value, mut exponent) = ([0f32; 32], [0i16; 32]);
            for i in 0..32 {
                let w = quads[i] >> (32 / E::PACK * s);
                (value[i], exponent[i]) = (E::value(w), E::exponent(w));
            }
            for at in 0..8 {
                let to = at / 4 * k + E::PACK * (4 * j + at % 4) + s;
                scratch.b.value[to] = value.as_chunks::<4>().0[at];
                scratch.b.exponent[to] = exponent.as_chunks::<4>().0[at];
            }
        }
    }
}
