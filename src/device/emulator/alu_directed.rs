//! Rarer arithmetic: directed rounding, `.xorsign.abs`, `fma.oob`, pairs of 16-bit whole numbers,
//! `cvt.pack`, products of 24 bits.

use std::marker::PhantomData;

use super::alu_float::{Bf16, F16, FmaH, Half, HalfOp, X1, X2};
use super::alu_int::lanes;
use super::num::{self, canon, flush};
use super::ptx::ast::Ty;
use super::regs::{AluFn, Lane, alu};

/// Parts of the immediate of [`Directed`]: what is computed, and how.
pub const ADD: u32 = 0;
pub const SUB: u32 = 1;
pub const MUL: u32 = 2;
pub const FMA: u32 = 3;
pub const TOWARD_ZERO: u32 = 0;
pub const DOWN: u32 = 4;
pub const UP: u32 = 8;
pub const FTZ: u32 = 16;
pub const SAT: u32 = 32;

/// Bits of the immediate of [`Pair`] and [`Relu`].
pub const PAIR_MIN: u32 = 1;
pub const PAIR_MAX: u32 = 2;
pub const PAIR_SIGNED: u32 = 4;
pub const PAIR_RELU: u32 = 8;

lanes! {
    Directed(a: u32, b: u32, c: u32; imm) -> u32 = directed([a, b, c].map(f32::from_bits), imm);
    DirectedDiv(a: u32, b: u32; imm) -> u32 =
        directed_of([a, b], imm, |a, b| f64::from(a) / f64::from(b));
    DirectedRcp(a: u32; imm) -> u32 = directed_of([a, 0], imm, |a, _| 1.0 / f64::from(a));
    DirectedSqrt(a: u32; imm) -> u32 = directed_of([a, 0], imm, |a, _| f64::from(a).sqrt());
    /// `imm`: 1 the larger, 2 `.NaN`, 4 `.ftz`.
    XorSign(a: u32, b: u32; imm) -> u32 = xor_sign(a, b, imm);
    Pair(a: u32, b: u32; imm) -> u32 = pair(a, b, imm);
    /// The smaller of two 32-bit whole numbers, or with `imm` 1 the larger, with `.relu`.
    Relu(a: u32, b: u32; imm) -> u32 = relu(a as i32, b as i32, imm != 0) as u32;
    /// `imm`: bits of a result, 64 if it has a sign, 128 if c stands above.
    CvtPack(a: u32, b: u32, c: u32; imm) -> u32 = cvt_pack(a as i32, b as i32, c, imm);
    /// The high 32 of the 48 bits of a product of 24-bit numbers; `imm` 1: signed.
    Mul24Hi(a: u32, b: u32; imm) -> u32 = (mul24(a, b, imm != 0) >> 16) as u32;
    Mad24Lo(a: u32, b: u32, c: u32; imm) -> u32 =
        (mul24(a, b, imm & 1 != 0) as u32).wrapping_add(c);
    Mad24Hi(a: u32, b: u32, c: u32; imm) -> u32 =
        ((mul24(a, b, imm & 1 != 0) >> 16) as u32).wrapping_add(c);
    Mad24HiSat(a: u32, b: u32, c: u32) -> u32 =
        ((mul24(a, b, true) >> 16) as i32).saturating_add(c as i32) as u32;
    MadHiSat(a: u32, b: u32, c: u32) -> u32 = {
        let high = (i64::from(a as i32) * i64::from(b as i32)) >> 32;
        (high as i32).saturating_add(c as i32) as u32
    };
    MadHiU64(a: u64, b: u64, c: u64) -> u64 =
        (((u128::from(a) * u128::from(b)) >> 64) as u64).wrapping_add(c);
    MadHiS64(a: u64, b: u64, c: u64) -> u64 =
        (((i128::from(a as i64) * i128::from(b as i64)) >> 64) as u64).wrapping_add(c);
    SadU16(a: u32, b: u32, c: u32) -> u32 =
        u32::from((a as u16).abs_diff(b as u16).wrapping_add(c as u16));
    SadS16(a: u32, b: u32, c: u32) -> u32 =
        u32::from((a as i16).abs_diff(b as i16).wrapping_add(c as u16));
    SadU64(a: u64, b: u64, c: u64) -> u64 = a.abs_diff(b).wrapping_add(c);
    SadS64(a: u64, b: u64, c: u64) -> u64 = (a as i64).abs_diff(b as i64).wrapping_add(c);
    /// Infinities become the largest finite number, and an H200 takes as much off a NaN.
    Tf32Finite(a: u32) -> u32 = {
        let y = num::f32_to_tf32_away(a);
        if y & 0x7f80_0000 == 0x7f80_0000 { y - 0x2000 } else { y }
    };
}

/// `.xorsign.abs` of halves; `imm`: 1 the larger, 2 `.NaN`, 4 `.ftz`.
pub struct XorSignH<H>(PhantomData<H>);
impl<H: Half> HalfOp for XorSignH<H> {
    type B = u32;
    type C = ();
    #[inline(always)]
    fn h(a: u32, b: u32, _: u32, imm: u32) -> u32 {
        let sign = (a ^ b) & 0x8000;
        let size = |x: u32| {
            let x = x & 0x7fff;
            if imm & 4 != 0 && x < 0x400 { 0 } else { x }
        };
        let (a, b) = (size(a), size(b));
        let (na, nb) = (H::to(a).is_nan(), H::to(b).is_nan());
        if na && nb || imm & 2 != 0 && (na || nb) {
            return num::NAN16;
        }
        // Of numbers >= 0 the bits are in order, and NaN lies above them.
        sign | if imm & 1 == 0 || na || nb { a.min(b) } else { a.max(b) }
    }
}

/// The function of a form of halves by type.
macro_rules! by_type {
    ($op:ident, $ty:expr) => {
        match $ty {
            Ty::F16 => Some(alu::<X1<$op<F16>>> as AluFn),
            Ty::F16x2 => Some(alu::<X2<$op<F16>>> as AluFn),
            Ty::Bf16 => Some(alu::<X1<$op<Bf16>>> as AluFn),
            Ty::Bf16x2 => Some(alu::<X2<$op<Bf16>>> as AluFn),
            _ => None,
        }
    };
}

/// `fma.oob` of halves; `imm` 1 is `.relu`. Its NaN is the one that tensor copies fill with: all
/// 65536 patterns were tried on an H200.
pub struct FmaOobH<H>(PhantomData<H>);
impl<H: Half> HalfOp for FmaOobH<H> {
    type B = u32;
    type C = u32;
    #[inline(always)]
    fn h(a: u32, b: u32, c: u32, imm: u32) -> u32 {
        if [a, b].iter().any(|x| x & 0x7fff == num::OOB_NAN16) {
            return 0;
        }
        FmaH::<H>::h(a, b, c, imm)
    }
}

/// `fma.oob` and `.xorsign.abs` by type.
pub fn half_fn(ty: Ty, oob: bool) -> Option<AluFn> {
    if oob { by_type!(FmaOobH, ty) } else { by_type!(XorSignH, ty) }
}

fn directed(mut x: [f32; 3], imm: u32) -> u32 {
    if imm & FTZ != 0 {
        x = x.map(flush);
    }
    let [a, b, c] = x;
    let y = match imm & 3 {
        ADD => rounded(a.into(), b.into(), imm),
        SUB => rounded(a.into(), (-b).into(), imm),
        // Exact in fp64; a sum with zero would lose the sign of zero.
        MUL => narrow(f64::from(a) * f64::from(b), 0.0, imm),
        _ => rounded(f64::from(a) * f64::from(b), c.into(), imm),
    };
    let y = if imm & FTZ != 0 { flush(y) } else { y };
    if imm & SAT != 0 { num::saturate(y).to_bits() } else { canon(y) }
}

/// A quotient or root. Its operands have 24 bits, so that fp64 tells on which side of an fp32 it
/// lies.
fn directed_of(x: [u32; 2], imm: u32, f: impl Fn(f32, f32) -> f64) -> u32 {
    let arg = |x: u32| {
        let x = f32::from_bits(x);
        if imm & FTZ != 0 { flush(x) } else { x }
    };
    let y = narrow(f(arg(x[0]), arg(x[1])), 0.0, imm);
    canon(if imm & FTZ != 0 { flush(y) } else { y })
}

/// x + y, each an fp32 number or a product of two, rounded once.
fn rounded(x: f64, y: f64, imm: u32) -> f32 {
    let sum = x + y;
    if !sum.is_finite() {
        return sum as f32;
    }
    // What the sum lost.
    let part = sum - x;
    let lost = (x - (sum - part)) + (y - part);
    if sum == 0.0 && lost == 0.0 && (x != 0.0 || x.is_sign_negative() != y.is_sign_negative()) {
        return if imm & DOWN != 0 { -0.0 } else { 0.0 };
    }
    narrow(sum, lost, imm)
}

/// x + lost as fp32, where lost is at most half of x's last place.
fn narrow(x: f64, lost: f64, imm: u32) -> f32 {
    let near = x as f32;
    if !x.is_finite() {
        return near;
    }
    // What must be added to the nearest to come to the exact.
    let rest = x - f64::from(near);
    let rest = if rest == 0.0 { lost } else { rest };
    let (above, below) = (rest > 0.0, rest < 0.0);
    let up = imm & UP != 0 || imm & DOWN == 0 && (x < 0.0);
    match up {
        true if above => near.next_up(),
        false if below => near.next_down(),
        _ => near,
    }
}

fn xor_sign(a: u32, b: u32, imm: u32) -> u32 {
    let sign = (a ^ b) & 1 << 31;
    let size = |x: u32| {
        let x = f32::from_bits(x & !(1 << 31));
        if imm & 4 != 0 { flush(x) } else { x }
    };
    let (a, b) = (size(a), size(b));
    if a.is_nan() && b.is_nan() || imm & 2 != 0 && (a.is_nan() || b.is_nan()) {
        return num::NAN32;
    }
    let y = if imm & 1 != 0 { a.max(b) } else { a.min(b) };
    y.to_bits() | sign
}

fn pair(a: u32, b: u32, imm: u32) -> u32 {
    let half = |shift: u32| {
        let (x, y) = ((a >> shift) as u16, (b >> shift) as u16);
        let larger = if imm & PAIR_SIGNED != 0 { x as i16 > y as i16 } else { x > y };
        let z = match imm & 3 {
            0 => x.wrapping_add(y),
            how => {
                if larger == (how == PAIR_MAX) {
                    x
                } else {
                    y
                }
            }
        };
        if imm & PAIR_RELU != 0 && (z as i16) < 0 { 0 } else { u32::from(z) }
    };
    half(0) | half(16) << 16
}

fn relu(a: i32, b: i32, larger: bool) -> i32 {
    if larger { a.max(b) } else { a.min(b) }.max(0)
}

fn cvt_pack(a: i32, b: i32, c: u32, imm: u32) -> u32 {
    let bits = imm & 63;
    let (least, most) = if imm & 64 != 0 {
        (-1 << (bits - 1), (1 << (bits - 1)) - 1)
    } else {
        (0, (1 << bits) - 1)
    };
    let mask = (1u32 << bits) - 1;
    let clamp = |x: i32| x.clamp(least, most) as u32 & mask;
    let low = clamp(a) << bits | clamp(b);
    if imm & 128 != 0 { c << (2 * bits) | low } else { low }
}

fn mul24(a: u32, b: u32, signed: bool) -> u64 {
    let part = |x: u32| {
        let x = i64::from(x & 0xff_ffff);
        if signed { x << 40 >> 40 } else { x }
    };
    (part(a) * part(b)) as u64
}
