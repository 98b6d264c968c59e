//! `mma.sync` of 8-bit whole numbers: exact sums of 32 bits.

use pulp::Arch;

use super::Scratch;
use super::sync::MmaFn;
use crate::device::emulator::ptx::ast::Ty;
use crate::device::emulator::regs::{Regs, Row};

/// A form: its function, registers of a, of b and of c, and operations over a warp.
#[derive(Clone, Copy)]
pub struct Form {
    pub f: MmaFn,
    pub a: usize,
    pub b: usize,
    pub c: usize,
    pub work: u64,
}

/// Every form: rows, k, signs of a and b, saturation.
const FORMS: [(u32, u32, bool, bool, bool, MmaFn); 24] = {
    macro_rules! signs {
        ($m:literal, $k:literal) => {
            [
                ($m, $k, false, false, false, mma::<$m, $k, false, false, false> as MmaFn),
                ($m, $k, false, false, true, mma::<$m, $k, false, false, true>),
                ($m, $k, false, true, false, mma::<$m, $k, false, true, false>),
                ($m, $k, false, true, true, mma::<$m, $k, false, true, true>),
                ($m, $k, true, false, false, mma::<$m, $k, true, false, false>),
                ($m, $k, true, false, true, mma::<$m, $k, true, false, true>),
                ($m, $k, true, true, false, mma::<$m, $k, true, true, false>),
                ($m, $k, true, true, true, mma::<$m, $k, true, true, true>),
            ]
        };
    }
    let (small, medium, large) = (signs!(8, 16), signs!(16, 16), signs!(16, 32));
    let mut all = [small[0]; 24];
    let mut i = 0;
    while i < 8 {
        (all[i], all[8 + i], all[16 + i]) = (small[i], medium[i], large[i]);
        i += 1;
    }
    all
};

fn form(m: u32, k: u32, f: MmaFn) -> Form {
    let (rows, groups) = (m as usize / 8, k as usize / 16);
    Form { f, a: rows * groups, b: groups, c: 2 * rows, work: 2 * u64::from(m * 8 * k) }
}

/// The form `m`n8`k` of operands of types `a` and `b`.
pub fn shape(m: u32, k: u32, [a, b]: [Ty; 2], saturate: bool) -> Option<Form> {
    let sign = |t: Ty| match t {
        Ty::U8 => Some(false),
        Ty::S8 => Some(true),
        _ => None,
    };
    let wanted = (m, k, sign(a)?, sign(b)?, saturate);
    let hit = FORMS.iter().find(|(m, k, a, b, s, _)| (*m, *k, *a, *b, *s) == wanted)?;
    Some(form(m, k, hit.5))
}

/// Operations over a warp, if `f` is one of these.
pub fn work(f: MmaFn) -> Option<u64> {
    let hit = FORMS.iter().find(|of| std::ptr::fn_addr_eq(of.5, f))?;
    Some(form(hit.0, hit.1, f).work)
}

/// Slots are d, a, b, c. Element (i, k) of a is byte k % 4 of register i / 8 + rows / 8 (k / 16) in
/// lane 4 (i % 8) + k % 16 / 4; of b, (k, n), of register k / 16 in lane 4 n + k % 16 / 4.
fn mma<const M: u32, const K: u32, const SIGNED_A: bool, const SIGNED_B: bool, const SAT: bool>(
    _: Arch,
    regs: &mut Regs,
    _: &mut Scratch,
    slots: &[u16],
) {
    let (rows, groups) = (M as usize / 8, K as usize / 16);
    let (d, rest) = slots.split_at(2 * rows);
    let (a, rest) = rest.split_at(rows * groups);
    let (b, c) = rest.split_at(groups);
    let value = |word: u32, s: usize, signed: bool| {
        let byte = (word >> (8 * s)) as u8;
        if signed { i64::from(byte as i8) } else { i64::from(byte) }
    };
    let mut out = [Row([0u32; 32]); 4];
    for r in 0..rows {
        for i in 0..2 {
            let before = &regs.r32[usize::from(c[2 * r + i])];
            for lane in 0..32 {
                let (g, t) = (lane / 4, lane % 4);
                let column = 2 * t + i;
                let mut sum = i64::from(before[lane] as i32);
                for group in 0..groups {
                    let from_a = &regs.r32[usize::from(a[r + rows * group])];
                    let from_b = &regs.r32[usize::from(b[group])];
                    for q in 0..4 {
                        let (x, y) = (from_a[4 * g + q], from_b[4 * column + q]);
                        for s in 0..4 {
                            sum += value(x, s, SIGNED_A) * value(y, s, SIGNED_B);
                        }
                    }
                }
                out[2 * r + i][lane] = if SAT {
                    sum.clamp(i32::MIN.into(), i32::MAX.into()) as u32
                } else {
                    sum as u32
                };
            }
        }
    }
    for (slot, row) in d.iter().zip(&out) {
        regs.r32[usize::from(*slot)] = *row;
    }
}
