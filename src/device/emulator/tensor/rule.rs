//! How a tensor core adds up, as found on an NVIDIA H200 (`tests/vectors/mma.json` has a selection
//! of the operands and results that say so).
//!
//! An output is one sum of all products of the instruction and the accumulator. Products are exact
//! and not normalised: their exponent is the sum of the operands', whatever the significands'
//! product in [0, 4). All terms are aligned to the greatest exponent among those that are not zero
//! and cut off, toward zero, [`Rule::fraction`] bits below its place; what is left adds up exactly.
//! The sum is cut to [`Rule::keep`] significant bits, or rounded to the nearest fp16.

use crate::device::emulator::num;

/// The exponent of an operand that is zero: no sum with another comes near a real one.
pub const ZERO: i16 = -5000;
/// The exponent of infinities and NaN: above all sums of others.
pub const SPECIAL: i16 = 10000;

/// The numbers of one kind of product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Bits kept below the greatest exponent.
    pub fraction: i32,
    /// Significant bits of an fp32 result.
    pub keep: u32,
}

impl Rule {
    /// fp16, bf16 and tf32.
    pub const WIDE: Rule = Rule { fraction: 25, keep: 24 };
    /// e4m3 and e5m2.
    pub const FP8: Rule = Rule { fraction: 13, keep: 14 };
}

/// An operand: its value and its exponent, as the `exponent` of an [`super::element::Element`].
pub type Operand = (f32, i16);

/// One output from its products' operands and the accumulator, whatever they hold. With `half`, an
/// fp32 that rounds to the fp16 result once, to nearest.
pub fn exact(
    rule: Rule,
    pairs: impl Iterator<Item = (Operand, Operand)> + Clone,
    c: f32,
    half: bool,
) -> u32 {
    let mut special = if c.is_finite() { 0.0 } else { c };
    let mut top = i32::MIN;
    for ((a, ea), (b, eb)) in pairs.clone() {
        if ea >= SPECIAL || eb >= SPECIAL {
            // Signs alone, so that nothing finite overflows.
            special += if a == 0.0 || b == 0.0 { f32::NAN } else { sign(a) * sign(b) };
        } else if ea > ZERO && eb > ZERO {
            top = top.max(i32::from(ea) + i32::from(eb));
        }
    }
    if special != 0.0 {
        return num::canon(special);
    }
    let (mc, ec) = significand(c);
    if mc != 0 {
        top = top.max(ec + 23);
    }
    if top == i32::MIN {
        return 0;
    }
    // In units of 2^unit.
    let unit = top - rule.fraction;
    let mut sum = cut(mc, ec - unit);
    for ((a, ea), (b, eb)) in pairs {
        if ea > ZERO && eb > ZERO {
            let ((ma, xa), (mb, xb)) = (significand(a), significand(b));
            sum += cut(ma * mb, xa + xb - unit);
        }
    }
    pack(sum, unit, if half { None } else { Some(rule.keep) })
}

/// The infinity or NaN that `x` is, or its sign as an infinity.
fn sign(x: f32) -> f32 {
    if x.is_nan() { x } else { f32::INFINITY.copysign(x) }
}

/// A finite `x` as a whole number (24 bits) times a power of two.
fn significand(x: f32) -> (i64, i32) {
    let bits = x.to_bits();
    let field = (bits >> 23 & 0xff) as i32;
    let m = i64::from(bits & 0x7f_ffff | u32::from(field > 0) << 23);
    (if bits >> 31 != 0 { -m } else { m }, field.max(1) - 150)
}

/// m 2^shift without its fraction.
fn cut(m: i64, shift: i32) -> i64 {
    if shift >= 0 {
        m << shift.min(63)
    } else {
        let a = m.abs().checked_shr(shift.unsigned_abs()).unwrap_or(0);
        if m < 0 { -a } else { a }
    }
}

/// sum 2^unit as an fp32 of at most `keep` significant bits, cut toward zero; without `keep`, of 24
/// with an odd last one unless exact.
fn pack(sum: i64, unit: i32, keep: Option<u32>) -> u32 {
    if sum == 0 {
        return 0;
    }
    let sign = u32::from(sum < 0) << 31;
    let m = sum.unsigned_abs();
    let top = 63 - m.leading_zeros() as i32;
    // The place of the last bit that stays.
    let last = (top + 1 - keep.unwrap_or(24) as i32).max(-149 - unit);
    let m = if last > 0 {
        let kept = m.checked_shr(last as u32).unwrap_or(0);
        let lost = kept.checked_shl(last as u32).unwrap_or(0) != m;
        kept | u64::from(keep.is_none() && lost)
    } else {
        m
    };
    let unit = unit + last.max(0);
    // At most 24 bits: both factors and the product are exact, or the result is an infinity.
    let x = m as f64 * 2f64.powi(unit);
    let bits = if x >= 2f64.powi(128) { f32::INFINITY.to_bits() } else { (x as f32).to_bits() };
    sign | bits
}
