//! Operands of tensor cores: what their bits are worth.

use super::rule::{SPECIAL, ZERO};
use crate::device::emulator::num;

/// A type of operand.
pub trait Element {
    /// How many a 32-bit register holds, along k.
    const PACK: usize;

    /// The value of the low bits of `w`; what stands above them is ignored.
    fn value(w: u32) -> f32;

    /// The exponent of the leading place. Subnormals have the least one of normal numbers; zeros,
    /// and infinities and NaN, give [`ZERO`] and [`SPECIAL`].
    fn exponent(w: u32) -> i16;
}

/// From an exponent field, its bias and least and greatest values.
#[inline(always)]
fn exponent(field: u32, bias: i16, zero: bool, special: bool) -> i16 {
    let field = field as i16;
    let e = if field == 0 { 1 - bias } else { field - bias };
    let e = if zero { ZERO } else { e };
    if special { SPECIAL } else { e }
}

pub struct Bf16;
impl Element for Bf16 {
    const PACK: usize = 2;
    #[inline(always)]
    fn value(w: u32) -> f32 {
        f32::from_bits(w << 16)
    }
    #[inline(always)]
    fn exponent(w: u32) -> i16 {
        let field = w >> 7 & 0xff;
        exponent(field, 127, w & 0x7fff == 0, field == 0xff)
    }
}

pub struct F16;
impl Element for F16 {
    const PACK: usize = 2;
    #[inline(always)]
    fn value(w: u32) -> f32 {
        num::f16_to_f32(w & 0xffff)
    }
    #[inline(always)]
    fn exponent(w: u32) -> i16 {
        let field = w >> 10 & 0x1f;
        exponent(field, 15, w & 0x7fff == 0, field == 0x1f)
    }
}

/// The hardware reads 19 bits of a register.
pub struct Tf32;
impl Element for Tf32 {
    const PACK: usize = 1;
    #[inline(always)]
    fn value(w: u32) -> f32 {
        f32::from_bits(w & !0x1fff)
    }
    #[inline(always)]
    fn exponent(w: u32) -> i16 {
        let field = w >> 23 & 0xff;
        exponent(field, 127, w & 0x7fff_e000 == 0, field == 0xff)
    }
}

pub struct E4m3;
impl Element for E4m3 {
    const PACK: usize = 4;
    #[inline(always)]
    fn value(w: u32) -> f32 {
        // At fp32's place, 2^120 too small; subnormals come out right as well.
        let x = f32::from_bits(w << 20 & 0x07f0_0000) * f32::from_bits(0x7b80_0000);
        let x = if w & 0x7f == 0x7f { f32::NAN } else { x };
        f32::from_bits(x.to_bits() | w << 24 & 0x8000_0000)
    }
    #[inline(always)]
    fn exponent(w: u32) -> i16 {
        exponent(w >> 3 & 0xf, 7, w & 0x7f == 0, w & 0x7f == 0x7f)
    }
}

pub struct E5m2;
impl Element for E5m2 {
    const PACK: usize = 4;
    #[inline(always)]
    fn value(w: u32) -> f32 {
        num::f16_to_f32(w << 8 & 0xff00)
    }
    #[inline(always)]
    fn exponent(w: u32) -> i16 {
        let field = w >> 2 & 0x1f;
        exponent(field, 15, w & 0x7f == 0, field == 0x1f)
    }
}
