//! The approximate functions as the special-function unit of a GPU computes them, bit for bit.
//!
//! ```text
//! x -> reduced argument -> row | 17 bits d        y = c0 + c1 d + c2 square(d), truncated to fp32
//! ```
//!
//! The first bits of the reduced argument pick a row of a table, the next 17 are d. Products and sums
//! are exact; d's square is what a multiplier without its lower half gives ([`square`]), and the
//! result is cut off, not rounded: the constant that rounds is part of c0. fp64 holds every sum
//! exactly, so the order of operations does not matter here.
//!
//! The unit takes subnormal arguments for zeros and gives zeros for subnormal results. Forms without
//! `.ftz` are the few instructions around it that an assembler makes of them.
//!
//! Functions take and give the bits of an fp32, are total, and are free of branches, so that loops
//! over 32 lanes vectorise. A NaN comes out as the canonical one.

mod table;

use super::num::NAN32;

const INF: u32 = 0x7f80_0000;
const ONE: u32 = 0x3f80_0000;
const SIGN: u32 = 0x8000_0000;
/// One step of the exponent, in the bits of an fp32.
const STEP: u32 = 0x0080_0000;
const MANTISSA: u32 = STEP - 1;
/// Bits of d.
const D: u32 = 0x1_ffff;

/// c0, c1 and c2 in units of the result; the fourth fills a row to 32 bytes.
type Row = [f64; 4];

/// Weighs a table's whole numbers: c1 d and 2 c2 square(d) count 2^-`unit`, and so does c0 once
/// followed by the `low.0` bits `low.1`. Rows behind the table's end are zeros.
const fn rows<const N: usize, const M: usize>(
    table: &[[i32; 3]; N],
    low: (u32, i64),
    unit: u32,
) -> [Row; M] {
    let unit = 1.0 / (1u64 << unit) as f64;
    let mut out = [[0.0; 4]; M];
    let mut i = 0;
    while i < N {
        let [c0, c1, c2] = table[i];
        let c0 = ((c0 as i64) << low.0) + low.1;
        out[i] = [c0 as f64 * unit, c1 as f64 * unit, 2.0 * c2 as f64 * unit, 0.0];
        i += 1;
    }
    out
}

static EX2: [Row; 64] = rows(&table::EX2, (15, 0x5f88), 40);
static RCP: [Row; 128] = rows(&table::RCP, (15, 0x1f9c), 41);
static RSQRT: [Row; 128] = rows(&table::RSQRT, (15, 0x7ffc), 41);
static SQRT: [Row; 128] = rows(&table::SQRT, (15, 0x7ffe), 40);
/// In units of 2^-36; the sum is cut off to those.
static LG2: [Row; 64] = rows(&table::LG2, (14, 0xd14), 4);
static TANH: [Row; 64] = rows(&table::TANH, (16, 0), 40);
static SIN: [Row; 64] = rows(&table::SIN, (15, 0), 40);

/// For each octave of tanh from 2^-8 on, its first row and how many bits pick one.
static OCTAVES: [[u8; 2]; 16] = {
    let bits = [0, 0, 0, 1, 1, 2, 2, 2, 3, 4, 3];
    let mut out = [[0; 2]; 16];
    let mut first = 0;
    let mut i = 0;
    while i < bits.len() {
        out[i] = [first, bits[i]];
        first += 1 << bits[i];
        i += 1;
    }
    out
};

/// d^2 / 2^19 without the columns below 2^18: no carry comes from them.
#[inline(always)]
fn square(d: u32) -> u32 {
    let mut sum = 0;
    for i in 2..17 {
        let bit = ((d << (31 - i)) as i32 >> 31) as u32;
        sum += d >> (18 - i) & bit;
    }
    sum >> 1
}

#[inline(always)]
fn interpolate(row: &Row, d: u32) -> f64 {
    let [c0, c1, c2, _] = *row;
    c0 + c1 * f64::from(d as i32) + c2 * f64::from(square(d) as i32)
}

/// A value of zero, or > 0 and of the size of a normal fp32, rounded towards zero to an fp32.
#[inline(always)]
fn truncate(y: f64) -> u32 {
    let bits = ((y.to_bits() >> 29) as u32).wrapping_sub((1023 - 127) << 23);
    if y == 0.0 { 0 } else { bits }
}

/// A result >= 0 whose exponent may have fallen below the range: zero if it has.
#[inline(always)]
fn underflow(y: u32) -> u32 {
    if (y as i32) < STEP as i32 { 0 } else { y }
}

#[inline(always)]
fn or_nan(a: u32, y: u32) -> u32 {
    if a > INF { NAN32 } else { y }
}

/// floor((e - bias) / 2) in steps of the exponent, and the mantissa with the bit that is left.
#[inline(always)]
fn halve(a: u32) -> (u32, u32) {
    let e = (a >> 23).wrapping_sub(127) as i32;
    ((e >> 1 << 23) as u32, a & MANTISSA | (e as u32 & 1) << 23)
}

#[inline(always)]
fn times(a: u32, k: f32) -> u32 {
    (f32::from_bits(a) * k).to_bits()
}

const TINY: u32 = STEP;
/// 2^126
const HUGE: u32 = 0x7e80_0000;

/// 2^x
#[inline(always)]
fn ex2_unit(x: u32) -> u32 {
    let a = x & !SIGN;
    let negative = x & SIGN != 0;
    // 2^128 is infinite and 2^-128 zero already, so that larger magnitudes count as 128.
    let a7 = if a < 0x4300_0000 { a } else { 0x4300_0000 };
    let fixed = (f32::from_bits(a7) * 8_388_608.0) as i32;
    // The unit takes the ones' complement of a fraction, and the two's complement of a whole
    // number.
    let below = if fixed & MANTISSA as i32 == 0 { -fixed } else { !fixed };
    let fixed = if negative { below } else { fixed };
    let f = fixed as u32 & MANTISSA;
    let y = truncate(interpolate(&EX2[(f >> 17) as usize], f & D));
    or_nan(a, underflow(y.wrapping_add((fixed as u32) & !MANTISSA)))
}

/// 2^x
#[inline(always)]
pub fn ex2<const FTZ: bool>(x: u32) -> u32 {
    if FTZ {
        return ex2_unit(x);
    }
    let low = f32::from_bits(x) < -126.0;
    let y = ex2_unit(if low { times(x, 0.5) } else { x });
    if low { times(y, f32::from_bits(y)) } else { y }
}

/// 1/x
#[inline(always)]
fn rcp_unit(x: u32) -> u32 {
    let a = x & !SIGN;
    let m = a & MANTISSA;
    let y = truncate(interpolate(&RCP[(m >> 16) as usize], (m & 0xffff) << 1));
    let y = if m == 0 { ONE } else { y };
    let y = underflow(y.wrapping_add(ONE).wrapping_sub(a & !MANTISSA));
    let y = if a < TINY { INF } else { y };
    or_nan(a, y | x & SIGN)
}

/// What brings a divisor into the range of [`rcp_unit`].
#[inline(always)]
fn scale(x: u32, huge: bool) -> f32 {
    let a = x & !SIGN;
    let down = if huge && a > HUGE { 0.25 } else { 1.0 };
    if a < TINY { 16_777_216.0 } else { down }
}

/// 1/x
#[inline(always)]
pub fn rcp<const FTZ: bool>(x: u32) -> u32 {
    if FTZ {
        return rcp_unit(x);
    }
    let k = scale(x, true);
    times(rcp_unit(times(x, k)), k)
}

/// x/y; `full` for all y, and otherwise for |y| up to 2^126.
#[inline(always)]
pub fn div<const FTZ: bool>(x: f32, y: f32, full: bool) -> f32 {
    let y = y.to_bits();
    let k = scale(y, full);
    // With `.ftz` there are no subnormals left to scale but zero, where it makes no difference.
    x * k * f32::from_bits(rcp_unit(times(y, k)))
}

/// x^(-1/2)
#[inline(always)]
fn rsqrt_unit(x: u32) -> u32 {
    let a = x & !SIGN;
    let (h, m) = halve(a);
    let y = truncate(interpolate(&RSQRT[(m >> 17) as usize], m & D));
    let y = if m == 0 { ONE } else { y }.wrapping_sub(h);
    let y = if a == INF { 0 } else { y };
    let y = if x & SIGN != 0 { NAN32 } else { y };
    or_nan(a, if a < TINY { INF | x & SIGN } else { y })
}

/// x^(-1/2)
#[inline(always)]
pub fn rsqrt<const FTZ: bool>(x: u32) -> u32 {
    let low = !FTZ && x & !SIGN < TINY;
    let y = rsqrt_unit(if low { times(x, 16_777_216.0) } else { x });
    if low { times(y, 4096.0) } else { y }
}

/// 1/x of the upper word of an fp64, as an upper word; subnormals are zeros.
pub fn rcp64(x: u64) -> u64 {
    let (sign, size) = (x & 1 << 63, x & !(1 << 63));
    let exponent = (size >> 52) as i32;
    let mantissa = (size >> 32 & 0xf_ffff) as u32;
    if size > 0x7ff << 52 {
        return u64::from(NAN32) << 32;
    }
    match exponent {
        0 => return sign | 0x7ff << 52,
        0x7ff => return sign,
        _ => {}
    }
    let y = rcp_unit(ONE | mantissa << 3);
    let exponent = 2046 - exponent + (y >> 23) as i32 - 127;
    sign | if exponent > 0 { upper(exponent, y) } else { 0 }
}

/// x^(-1/2) of the upper word of an fp64, as an upper word; subnormals are zeros.
pub fn rsqrt64(x: u64) -> u64 {
    let (sign, size) = (x & 1 << 63, x & !(1 << 63));
    let exponent = (size >> 52) as i32;
    let mantissa = (size >> 32 & 0xf_ffff) as u32;
    if size <= 0x7ff << 52 && exponent == 0 {
        return sign | 0x7ff << 52;
    }
    if size > 0x7ff << 52 || sign != 0 {
        return u64::from(NAN32) << 32;
    }
    if exponent == 0x7ff {
        return 0;
    }
    // Half of an even power of two of the argument is the power of two of the result.
    let e = exponent - 1023;
    let y = rsqrt_unit((127 + (e & 1) as u32) << 23 | mantissa << 3);
    upper(1023 - (e >> 1) + (y >> 23) as i32 - 127, y)
}

/// An fp64 of that exponent with the upper bits of an fp32's mantissa.
fn upper(exponent: i32, y: u32) -> u64 {
    (exponent as u64) << 52 | u64::from((y & MANTISSA) >> 3) << 32
}

/// x^(1/2)
#[inline(always)]
fn sqrt_unit(x: u32) -> u32 {
    let a = x & !SIGN;
    let (h, m) = halve(a);
    let y = truncate(interpolate(&SQRT[(m >> 17) as usize], m & D)).wrapping_add(h);
    let y = if a == INF { INF } else { y };
    let y = if x & SIGN != 0 { NAN32 } else { y };
    or_nan(a, if a < TINY { x & SIGN } else { y })
}

/// x^(1/2)
#[inline(always)]
pub fn sqrt<const FTZ: bool>(x: u32) -> u32 {
    let low = !FTZ && x & !SIGN < TINY;
    let y = sqrt_unit(if low { times(x, 16_777_216.0) } else { x });
    if low { times(y, 1.0 / 4096.0) } else { y }
}

/// log2 x
#[inline(always)]
fn lg2_unit(x: u32) -> u32 {
    let a = x & !SIGN;
    let m = a & MANTISSA;
    let y = interpolate(&LG2[(m >> 17) as usize], m & D).floor();
    let y = if a == ONE { 0.0 } else { y };
    let y = y + f64::from((a >> 23) as i32 - 127) * (1u64 << 36) as f64;
    // Below zero too it is the ones' complement.
    let positive = if y < 0.0 { -1.0 - y } else { y };
    let sign = if y < 0.0 { SIGN } else { 0 };
    let y = truncate(positive / (1u64 << 36) as f64) | sign;
    let y = if a == INF { INF } else { y };
    let y = if x & SIGN != 0 { NAN32 } else { y };
    or_nan(a, if a < TINY { INF | SIGN } else { y })
}

/// log2 x
#[inline(always)]
pub fn lg2<const FTZ: bool>(x: u32) -> u32 {
    let low = !FTZ && x & !SIGN < TINY;
    let y = lg2_unit(if low { times(x, 16_777_216.0) } else { x });
    if low { (f32::from_bits(y) - 24.0).to_bits() } else { y }
}

/// tanh x
#[inline(always)]
pub fn tanh(x: u32) -> u32 {
    let a = x & !SIGN;
    // From 2^-8, which is 119, to below 8.
    let [first, bits] = OCTAVES[((a >> 23).wrapping_sub(119) & 15) as usize];
    let m = a & MANTISSA;
    let row = u32::from(first) + (m >> (23 - u32::from(bits)));
    let d = (m << u32::from(bits) & MANTISSA) >> 6;
    let y = truncate(interpolate(&TANH[(row & 63) as usize], d));
    let y = if a < 119 << 23 { a } else { y };
    let y = if a >= 130 << 23 { ONE } else { y };
    or_nan(a, y | x & SIGN)
}

/// sin x, or cos x
#[inline(always)]
pub fn sin<const COS: bool>(x: u32) -> u32 {
    let a = x & !SIGN;
    // Turns, as a product of fp32 rounded towards zero, and then their fraction.
    let turns = f64::from(f32::from_bits(a)) * f64::from(f32::from_bits(0x3e22_f983));
    let turns = f64::from_bits(turns.to_bits() & !((1 << 29) - 1));
    let fixed = ((turns - turns.trunc()) * 33_554_432.0) as i32 as u32;
    let quadrant = (fixed >> 23) + u32::from(COS);
    let f = if quadrant & 1 == 0 { fixed } else { !fixed } & MANTISSA;
    let y = truncate(interpolate(&SIN[(f >> 17) as usize], f & D));
    let sign = if COS { 0 } else { x & SIGN };
    let y = y | sign ^ (quadrant & 2) << 30;
    if a >= INF { NAN32 } else { y }
}
