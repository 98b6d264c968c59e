//! Number formats and approximate functions, lane by lane and free of branches, so that loops
//! over 32 lanes vectorise.

/// NaN as arithmetic produces it.
pub const NAN32: u32 = 0x7fff_ffff;
pub const NAN16: u32 = 0x7fff;
/// What tensor copies fill with that ask for NaN, in pairs for fp32; `fma.oob` knows it.
pub const OOB_NAN16: u32 = 0x7ff7;
pub const NAN_TF32: u32 = 0x7fff_e000;
pub const NAN64: u64 = 0x7fff_ffff_ffff_ffff;

/// Subnormals become zeros of their sign.
#[inline(always)]
pub fn flush(x: f32) -> f32 {
    let b = x.to_bits();
    f32::from_bits(if b & 0x7f80_0000 == 0 { b & 0x8000_0000 } else { b })
}

/// Bits with NaN in its one canonical form.
#[inline(always)]
pub fn canon(x: f32) -> u32 {
    if x.is_nan() { NAN32 } else { x.to_bits() }
}

/// As [`canon`], of fp64.
#[inline(always)]
pub fn canon64(x: f64) -> u64 {
    if x.is_nan() { NAN64 } else { x.to_bits() }
}

/// An fp64 result as a GPU has it. With NaN operands it is the last of them, made quiet; any other
/// NaN is the negative default one. fp64 alone keeps payloads.
#[inline(always)]
pub fn settle64(y: f64, from: &[u64]) -> u64 {
    if !y.is_nan() {
        return y.to_bits();
    }
    let nan = from.iter().rev().find(|x| f64::from_bits(**x).is_nan());
    nan.map_or(0xfff8 << 48, |x| x | 1 << 51)
}

/// A NaN of fp32 as one of fp64: sign and payload stay, and it is made quiet.
#[inline(always)]
pub fn widen_nan(a: u32) -> u64 {
    u64::from(a >> 31) << 63 | 0x7ff8 << 48 | u64::from(a & 0x7f_ffff) << 29
}

/// The way back from [`widen_nan`]: a NaN of fp64 as one of fp32.
#[inline(always)]
pub fn narrow_nan(a: u64) -> u32 {
    ((a >> 63) as u32) << 31 | 0x7fc0_0000 | (a >> 29) as u32 & 0x7f_ffff
}

/// fp32 cut off to fp16: what is too large is infinite.
#[inline(always)]
pub fn cut_to_f16(b: u32) -> u32 {
    let a = b & 0x7fff_ffff;
    let low = (f32::from_bits(a) * 16_777_216.0) as u32;
    let finite = if a < 0x3880_0000 { low } else { a.wrapping_sub(0x3800_0000) >> 13 };
    let h = if a >= 0x4780_0000 { 0x7c00 } else { finite };
    if a > 0x7f80_0000 { NAN16 } else { b >> 16 & 0x8000 | h }
}

/// fp32 cut off to bf16.
#[inline(always)]
pub fn cut_to_bf16(b: u32) -> u32 {
    if b & 0x7fff_ffff > 0x7f80_0000 { NAN16 } else { b >> 16 }
}

/// x y + z of halves in fp64, rounded to odd, so that the next rounding decides alone.
#[inline(always)]
pub fn fma_odd(x: f32, y: f32, z: f32) -> f64 {
    let (p, z) = (f64::from(x) * f64::from(y), f64::from(z));
    let sum = p + z;
    let part = sum - p;
    let lost = (p - (sum - part)) + (z - part);
    if lost == 0.0 || !lost.is_finite() || sum.to_bits() & 1 != 0 {
        return sum;
    }
    // One step towards what was lost; the bits grow with the magnitude.
    let away = (lost > 0.0) == (sum > 0.0);
    f64::from_bits(if away { sum.to_bits() + 1 } else { sum.to_bits() - 1 })
}

/// To [0, 1], NaN to 0.
#[inline(always)]
pub fn saturate(x: f32) -> f32 {
    if x > 0.0 { if x < 1.0 { x } else { 1.0 } } else { 0.0 }
}

/// The fp16 in the low 16 bits; exact.
#[inline(always)]
pub fn f16_to_f32(h: u32) -> f32 {
    let sign = (h & 0x8000) << 16;
    let e = (h & 0x7fff) << 13;
    let scaled = (f32::from_bits(e) * f32::from_bits(0x7780_0000)).to_bits();
    let bits = if e >= 0x0f80_0000 { e | 0x7f80_0000 } else { scaled };
    f32::from_bits(bits | sign)
}

/// Nearest, ties to even.
#[inline(always)]
pub fn f32_to_f16(x: f32) -> u32 {
    let b = x.to_bits();
    let sign = (b >> 16) & 0x8000;
    let a = b & 0x7fff_ffff;
    // Adding one half leaves a subnormal's bits at the bottom, rounded.
    let half = 126 << 23;
    let sub = (f32::from_bits(a) + f32::from_bits(half)).to_bits().wrapping_sub(half);
    let normal = a.wrapping_add(0xc800_0fff).wrapping_add((a >> 13) & 1) >> 13;
    let finite = if a < 0x3880_0000 { sub } else { normal };
    let bits = sign | if a >= 0x4780_0000 { 0x7c00 } else { finite };
    if a > 0x7f80_0000 { NAN16 } else { bits }
}

/// The bf16 in the low 16 bits; exact.
#[inline(always)]
pub fn bf16_to_f32(h: u32) -> f32 {
    f32::from_bits(h << 16)
}

/// Nearest, ties to even.
#[inline(always)]
pub fn f32_to_bf16(x: f32) -> u32 {
    let b = x.to_bits();
    let r = b.wrapping_add(0x7fff + ((b >> 16) & 1)) >> 16;
    if b & 0x7fff_ffff > 0x7f80_0000 { NAN16 } else { r }
}

/// Nearest, ties away from zero, as bits with 13 zeros at the end.
#[inline(always)]
pub fn f32_to_tf32_away(b: u32) -> u32 {
    let r = b.wrapping_add(0x1000) & !0x1fff;
    let a = b & 0x7fff_ffff;
    // A NaN keeps the upper bits of its payload, as on an H200.
    if a > 0x7f80_0000 { b & !0x1fff } else { r }
}

/// Nearest, ties to even.
#[inline(always)]
pub fn f32_to_tf32_even(b: u32) -> u32 {
    let r = b.wrapping_add(0xfff + ((b >> 13) & 1)) & !0x1fff;
    let a = b & 0x7fff_ffff;
    if a > 0x7f80_0000 {
        NAN_TF32
    } else if a == 0x7f80_0000 {
        b
    } else {
        r
    }
}

/// The fp32 next to `x` with an odd last bit unless exact: rounding it again to a narrower type
/// rounds `x` once.
#[inline(always)]
pub fn f64_to_f32_odd(x: f64) -> f32 {
    let y = x as f32;
    let d = f64::from(y);
    let b = y.to_bits();
    let truncated = if d.abs() > x.abs() { b.wrapping_sub(1) } else { b };
    f32::from_bits(if d == x || x.is_nan() { b } else { truncated | 1 })
}

/// Smaller of two; a NaN loses against a number; -0 is below +0.
#[inline(always)]
pub fn min(a: f32, b: f32) -> u32 {
    if a < b {
        a.to_bits()
    } else if b < a {
        b.to_bits()
    } else if a == b {
        a.to_bits() | b.to_bits()
    } else if a.is_nan() {
        canon(b)
    } else {
        a.to_bits()
    }
}

/// Larger of two; a NaN loses against a number; +0 is above -0.
#[inline(always)]
pub fn max(a: f32, b: f32) -> u32 {
    if a > b {
        a.to_bits()
    } else if b > a {
        b.to_bits()
    } else if a == b {
        a.to_bits() & b.to_bits()
    } else if a.is_nan() {
        canon(b)
    } else {
        a.to_bits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    #[test]
    fn half_precision_agrees_with_the_half_crate() {
        for h in 0..=0xffffu32 {
            let want = f16::from_bits(h as u16).to_f32();
            let got = f16_to_f32(h);
            assert!(want.to_bits() == got.to_bits() || want.is_nan() && got.is_nan(), "{h:x}");
            if !want.is_nan() {
                assert_eq!(f32_to_f16(want), h);
                assert_eq!(
                    f32_to_bf16(bf16_to_f32(h)),
                    if bf16_to_f32(h).is_nan() { NAN16 } else { h }
                );
            }
        }
        let mut b = 0u32;
        loop {
            let x = f32::from_bits(b);
            if !x.is_nan() {
                assert_eq!(f32_to_f16(x), u32::from(f16::from_f32(x).to_bits()), "{x:e}");
                assert_eq!(f32_to_bf16(x), u32::from(bf16::from_f32(x).to_bits()), "{x:e}");
            }
            let (next, over) = b.overflowing_add(4099);
            if over {
                break;
            }
            b = next;
        }
    }

    #[test]
    fn rounding_through_odd_rounds_once() {
        // One half unit of f16 above 1, and a hair: nearest fp32 would lose the hair.
        let x = 1.0 + 2f64.powi(-11) + 2f64.powi(-40);
        assert_eq!(f32_to_f16(x as f32), 0x3c00);
        assert_eq!(f32_to_f16(f64_to_f32_odd(x)), 0x3c01);
        assert_eq!(f64_to_f32_odd(0.1f32.into()), 0.1);
    }

    #[test]
    fn min_and_max_know_nan_and_signed_zero() {
        assert_eq!(min(f32::NAN, 1.0), 1f32.to_bits());
        assert_eq!(max(-2.0, f32::NAN), (-2f32).to_bits());
        assert_eq!(max(f32::NAN, f32::NAN), NAN32);
        assert_eq!(min(0.0, -0.0), 0x8000_0000);
        assert_eq!(max(-0.0, 0.0), 0);
    }
}
