//! Narrow floats: fp8 conversions, pairs of halves compared, and halves with `.ftz` and `.sat`.

use std::marker::PhantomData;

use pulp::Arch;

use super::alu_cvt::{Cvt, Round};
use super::alu_float::{HalfOp, Halved};
use super::alu_int::lanes;
use super::num;
use super::ptx::ast::Ty;
use super::regs::{Compare, JOIN_NEGATED, JOIN_OR, JOIN_XOR, Lane, Regs, Slots, put};

/// Bits of an immediate.
pub const RELU: u32 = 1;
pub const E5M2: u32 = 2;
pub const FTZ: u32 = 2;
pub const SAT: u32 = 4;
pub const BF16: u32 = 2;
pub const ZERO: u32 = 4;
pub const FINITE: u32 = 8;

const NAN8: u32 = 0x7f;

/// To fp8, to nearest even, clamped to the largest finite value; NaN is 0x7f.
fn to_fp8(x: f32, imm: u32) -> u32 {
    let (mantissa, bias, most) = if imm & E5M2 != 0 { (2, 15, 57344.0) } else { (3, 7, 448.0) };
    if x.is_nan() {
        return NAN8;
    }
    let sign = x.to_bits() >> 31 << 7;
    if imm & RELU != 0 && sign != 0 {
        return 0;
    }
    let a = f64::from(x.abs()).min(most);
    // Exponents below the least normal one share its spacing.
    let exponent = ((a.to_bits() >> 52) as i32 - 1023).max(1 - bias);
    let units = (a * f64::from(mantissa - exponent).exp2()).round_ties_even() as u32;
    sign | ((((exponent + bias - 1) as u32) << mantissa) + units)
}

/// fp8 as fp16, which holds every value of both formats.
fn from_fp8(b: u32, imm: u32) -> u32 {
    let sign = (b & 0x80) << 8;
    let a = b & 0x7f;
    let h = if imm & E5M2 != 0 {
        if a > 0x7c { num::NAN16 } else { sign | a << 8 }
    } else if a == NAN8 {
        num::NAN16
    } else {
        // The bits as a half are 2^-8 of the value.
        let y = num::f16_to_f32(a << 7) * 256.0;
        sign | num::f32_to_f16(y)
    };
    if imm & RELU != 0 && h & 0x8000 != 0 { 0 } else { h }
}

fn half_with_zero(x: u32, imm: u32) -> u32 {
    let to = if imm & BF16 != 0 { Ty::Bf16 } else { Ty::F16 };
    let round = if imm & ZERO != 0 { Round::Zero } else { Round::Nearest };
    let c = Cvt { from: Ty::F32, to, round, whole: false, sat: false, ftz: false };
    let h = c.apply(x.into()) as u32;
    let infinite = if imm & BF16 != 0 { 0x7f80 } else { 0x7c00 };
    let h = if imm & FINITE != 0 && h & 0x7fff == infinite { h - 1 } else { h };
    // A NaN is the positive one.
    if imm & RELU != 0 && h & 0x8000 != 0 { 0 } else { h }
}

fn f(x: u32) -> f32 {
    f32::from_bits(x)
}

lanes! {
    Fp8FromF32(a: u32, b: u32; imm) -> u32 = to_fp8(f(a), imm) << 8 | to_fp8(f(b), imm);
    Fp8FromHalves(a: u32; imm) -> u32 = {
        let half = |h| to_fp8(num::f16_to_f32(h), imm);
        half(a >> 16) << 8 | half(a & 0xffff)
    };
    HalvesFromFp8(a: u32; imm) -> u32 = from_fp8(a >> 8 & 0xff, imm) << 16 | from_fp8(a & 0xff, imm);
    /// A pair as `.rz`, `.relu` or `.satfinite` say.
    PackWith(a: u32, b: u32; imm) -> u32 = half_with_zero(a, imm) << 16 | half_with_zero(b, imm);
    HalfWith(a: u32; imm) -> u32 = half_with_zero(a, imm);
    Tf32With(a: u32; imm) -> u32 = {
        let y = if f(a).is_nan() {
            num::NAN_TF32
        } else if imm & ZERO != 0 {
            a & !0x1fff
        } else {
            num::f32_to_tf32_even(a)
        };
        if imm & RELU != 0 && y >> 31 != 0 && !f(y).is_nan() { 0 } else { y }
    };
}

lanes! {
    Copysign32(a: u32, b: u32) -> u32 = a & 0x8000_0000 | b & 0x7fff_ffff;
    Copysign64(a: u64, b: u64) -> u64 = a & 1 << 63 | b & !(1 << 63);
}

/// An operation on halves with `.ftz` and `.sat`.
pub struct Modded<O>(PhantomData<O>);
impl<O: HalfOp> HalfOp for Modded<O> {
    type B = O::B;
    type C = O::C;
    #[inline(always)]
    fn h(a: u32, b: u32, c: u32, imm: u32) -> u32 {
        let flush = |x: u32| if imm & FTZ != 0 && x & 0x7c00 == 0 { x & 0x8000 } else { x };
        let y = flush(O::h(flush(a), flush(b), flush(c), imm & RELU));
        if imm & SAT == 0 {
            y
        } else if y & 0x8000 != 0 || y > 0x7c00 {
            0
        } else {
            y.min(0x3c00)
        }
    }
}

/// A comparison of halves with `.ftz`.
pub struct FlushedHalf<C>(PhantomData<C>);
impl<C: Compare<A = u32>> Compare for FlushedHalf<C> {
    type A = u32;
    #[inline(always)]
    fn f(a: u32, b: u32) -> bool {
        let flush = |x: u32| if x & 0x7c00 == 0 { x & 0x8000 } else { x };
        C::f(flush(a), flush(b))
    }
}

/// `o = [p, a, b, q, c]` of pairs: p compares the low halves, q the high ones, each joined with c.
pub fn setp_pair<C: Compare<A = u32>>(_: Arch, r: &mut Regs, s: &Slots, mask: u32) {
    let (a, b) = (r.r32[usize::from(s.o[1])], r.r32[usize::from(s.o[2])]);
    let (mut low, mut high) = (0, 0);
    for i in 0..32 {
        low |= u32::from(C::f(a[i] & 0xffff, b[i] & 0xffff)) << i;
        high |= u32::from(C::f(a[i] >> 16, b[i] >> 16)) << i;
    }
    let mut c = r.p[usize::from(s.o[4])];
    if s.imm & JOIN_NEGATED != 0 {
        c = !c;
    }
    let join = |x: u32| match s.imm & 3 {
        JOIN_OR => x | c,
        JOIN_XOR => x ^ c,
        _ => x & c,
    };
    put(&mut r.p[usize::from(s.o[3])], mask, join(high));
    put(&mut r.p[usize::from(s.o[0])], mask, join(low));
}

/// The function of `setp` over pairs of halves.
pub fn pair_fn(op: &str, ty: Ty, ftz: bool) -> Option<super::regs::AluFn> {
    use super::alu_float::{self as fl, Bf16, F16};
    use super::regs::AluFn;
    macro_rules! pick {
        ($c:ident) => {
            match (ty, ftz) {
                (Ty::F16x2, false) => Some(setp_pair::<Halved<F16, fl::$c>> as AluFn),
                (Ty::F16x2, true) => Some(setp_pair::<FlushedHalf<Halved<F16, fl::$c>>> as AluFn),
                (Ty::Bf16x2, false) => Some(setp_pair::<Halved<Bf16, fl::$c>> as AluFn),
                _ => None,
            }
        };
    }
    match op {
        "eq" => pick!(EqF),
        "ne" => pick!(NeF),
        "lt" => pick!(LtF),
        "le" => pick!(LeF),
        "gt" => pick!(GtF),
        "ge" => pick!(GeF),
        "equ" => pick!(EquF),
        "neu" => pick!(NeuF),
        "ltu" => pick!(LtuF),
        "leu" => pick!(LeuF),
        "gtu" => pick!(GtuF),
        "geu" => pick!(GeuF),
        "num" => pick!(NumF),
        "nan" => pick!(NanF),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fp8_round_trips_and_rounds() {
        for imm in [0, E5M2] {
            for b in 0..256 {
                let h = from_fp8(b, imm);
                let x = num::f16_to_f32(h);
                if x.is_nan() || x.is_infinite() {
                    continue;
                }
                assert_eq!(to_fp8(x, imm), b, "{imm} {b:02x} {x}");
            }
        }
        assert_eq!(to_fp8(448.0, 0), 0x7e);
        assert_eq!(to_fp8(1e9, 0), 0x7e);
        assert_eq!(to_fp8(f32::NEG_INFINITY, 0), 0xfe);
        assert_eq!(to_fp8(1e9, E5M2), 0x7b);
        assert_eq!(to_fp8(f32::NAN, 0), 0x7f);
        assert_eq!(to_fp8(-2.0, RELU), 0);
        // Halfway between 1 and 1.125, 1.125 and 1.25: to even.
        assert_eq!((to_fp8(1.0625, 0), to_fp8(1.1875, 0)), (0x38, 0x3a));
        // The least subnormal of e4m3 is 2^-9; half of it goes to zero, a little more does not.
        assert_eq!((to_fp8(0.000_976_562_5, 0), to_fp8(0.000_98, 0)), (0, 1));
        assert_eq!(from_fp8(0x38, 0), 0x3c00);
        assert_eq!(from_fp8(0xc0, E5M2), 0xc000);
    }

    #[test]
    fn halves_with_modifiers() {
        assert_eq!(half_with_zero(1.0009f32.to_bits(), ZERO), 0x3c00);
        assert_eq!(half_with_zero((-1.0f32).to_bits(), RELU | BF16), 0);
        assert_eq!(half_with_zero(3.0f32.to_bits(), RELU | BF16), 0x4040);
        assert_eq!(<Tf32With as Lane>::f(0x3f80_1fff, (), (), ZERO), 0x3f80_0000);
    }
}
