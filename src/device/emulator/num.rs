//! Number formats and approximate functions, lane by lane and free of branches, so that loops
//! over 32 lanes vectorise.

/// NaN as arithmetic produces it.
pub const NAN32: u32 = 0x7fff_ffff;
pub const NAN16: u32 = 0x7fff;
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

#[inline(always)]
pub fn canon64(x: f64) -> u64 {
    if x.is_nan() { NAN64 } else { x.to_bits() }
}

/// To [0, 1], NaN to 0.
#[inline(always)]
pub fn saturate(x: f32) -> f32 {
    if x > 0.0 { if x < 1.0 { x } else { 1.0 } } else { 0.0 }
}

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
        NAN32
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

/// 2^x to within half a unit in the last place and a little.
#[inline(always)]
pub fn exp2(x: f32) -> f32 {
    exp2_wide(x) as f32
}

#[inline(always)]
fn exp2_wide(x: f32) -> f64 {
    let nan = x.is_nan();
    let x = f64::from(x);
    let x = if x > 200.0 { 200.0 } else { x };
    let x = if x > -200.0 { x } else { -200.0 };
    // 1.5 * 2^52: the sum's low bits are the nearest whole number.
    let magic = 6_755_399_441_055_744.0;
    let t = x + magic;
    let f = x - (t - magic);
    let scale = f64::from_bits((t.to_bits() << 52).wrapping_add(1023 << 52));
    // ln(2)^k / k!
    let mut p = 1.017_808_600_923_97e-7;
    p = p * f + 1.321_548_679_014_431e-6;
    p = p * f + 1.525_273_380_405_984e-5;
    p = p * f + 1.540_353_039_338_161e-4;
    p = p * f + 1.333_355_814_642_844_3e-3;
    p = p * f + 9.618_129_107_628_477e-3;
    p = p * f + 5.550_410_866_482_158e-2;
    p = p * f + 2.402_265_069_591_007e-1;
    p = p * f + std::f64::consts::LN_2;
    p = p * f + 1.0;
    if nan { f64::NAN } else { p * scale }
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
    fn exp2_is_within_one_unit() {
        let mut b = 0u32;
        while b < 0x7f80_0000 {
            let x = f32::from_bits(b);
            let ulps = |got: f32, want: f64| {
                (f64::from(got) - want).abs() / f64::from(f32::EPSILON) / want.abs().max(1e-30)
            };
            if x < 120.0 {
                for x in [x, -x] {
                    assert!(ulps(exp2(x), f64::from(x).exp2()) < 1.0, "exp2 {x:e}");
                }
            }
            b += 54_321;
        }
        assert_eq!(exp2(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp2(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp2(3.0), 8.0);
        assert!(exp2(f32::NAN).is_nan());
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
