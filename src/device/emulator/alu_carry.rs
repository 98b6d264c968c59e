//! Rarer instructions on whole numbers: carries, bit masks, dot products of halves, classes of floats.

use pulp::Arch;

use super::alu_int::lanes;
use super::regs::{El, Lane, Regs, Row, Slots, put};

/// Bits of the immediate of [`carry`].
pub const SUBTRACT: u32 = 1;
/// A product comes first: the low half of `o[1] * o[2]` or, with [`HIGH`], the high one.
pub const PRODUCT: u32 = 2;
pub const HIGH: u32 = 4;
pub const SIGNED: u32 = 8;
/// The carry takes part, and is left behind.
pub const CARRY_IN: u32 = 16;
pub const CARRY_OUT: u32 = 32;

/// What [`carry`] needs of registers of one width.
pub trait Word: El {
    fn sum(a: Self, b: Self, carry: bool) -> (Self, bool);
    fn difference(a: Self, b: Self, borrow: bool) -> (Self, bool);
    fn product(a: Self, b: Self, how: u32) -> Self;
}

macro_rules! word {
    ($u:ty, $s:ty, $wide:ty, $swide:ty, $bits:expr) => {
        impl Word for $u {
            fn sum(a: $u, b: $u, carry: bool) -> ($u, bool) {
                let (x, c) = a.overflowing_add(b);
                let (x, d) = x.overflowing_add(carry.into());
                (x, c | d)
            }

            fn difference(a: $u, b: $u, borrow: bool) -> ($u, bool) {
                let (x, c) = a.overflowing_sub(b);
                let (x, d) = x.overflowing_sub(borrow.into());
                (x, c | d)
            }

            fn product(a: $u, b: $u, how: u32) -> $u {
                let wide = if how & SIGNED != 0 {
                    (<$swide>::from(a as $s) * <$swide>::from(b as $s)) as $wide
                } else {
                    <$wide>::from(a) * <$wide>::from(b)
                };
                (if how & HIGH != 0 { wide >> $bits } else { wide }) as $u
            }
        }
    };
}
word!(u32, i32, u64, i64, 32);
word!(u64, i64, u128, i128, 64);

/// `add.cc`, `subc`, `madc` and the like: `o = [d, a, b, c, carry]`. The sum is a + b, or with a
/// product a * b + c.
pub fn carry<T: Word>(_: Arch, r: &mut Regs, s: &Slots, mask: u32) {
    let [d, a, b, c, flag] = s.o;
    let (a, b, c) = (*T::row(r, a), *T::row(r, b), *T::row(r, c));
    let before = if s.imm & CARRY_IN != 0 { r.p[usize::from(flag)] } else { 0 };
    let mut after = 0;
    let out = Row(std::array::from_fn(|i| {
        let (x, y) = match s.imm & PRODUCT {
            0 => (a[i], b[i]),
            _ => (T::product(a[i], b[i], s.imm), c[i]),
        };
        let before = before >> i & 1 != 0;
        let (x, carry) = match s.imm & SUBTRACT {
            0 => T::sum(x, y, before),
            _ => T::difference(x, y, before),
        };
        after |= u32::from(carry) << i;
        x
    }));
    T::write(r, d, mask, &out);
    if s.imm & CARRY_OUT != 0 {
        put(&mut r.p[usize::from(flag)], mask, after);
    }
}

/// What `testp` asks.
pub const TESTS: &[(&str, u32)] = &[
    ("finite", 0),
    ("infinite", 1),
    ("number", 2),
    ("notanumber", 3),
    ("normal", 4),
    ("subnormal", 5),
];

fn test(class: std::num::FpCategory, what: u32) -> bool {
    use std::num::FpCategory::{Infinite, Nan, Normal, Subnormal, Zero};
    match what {
        0 => !matches!(class, Nan | Infinite),
        1 => class == Infinite,
        2 => class != Nan,
        3 => class == Nan,
        // A GPU takes zeros for normal.
        4 => matches!(class, Normal | Zero),
        _ => class == Subnormal,
    }
}

/// `o = [p, a]`; `imm`: one of [`TESTS`].
pub fn testp32(_: Arch, r: &mut Regs, s: &Slots, mask: u32) {
    let a = &r.r32[usize::from(s.o[1])];
    let hit = (0..32).filter(|&i| test(f32::from_bits(a[i]).classify(), s.imm));
    let hit = hit.fold(0, |all, i| all | 1 << i);
    put(&mut r.p[usize::from(s.o[0])], mask, hit);
}

/// As [`testp32`], of fp64.
pub fn testp64(_: Arch, r: &mut Regs, s: &Slots, mask: u32) {
    let a = &r.r64[usize::from(s.o[1])];
    let hit = (0..32).filter(|&i| test(f64::from_bits(a[i]).classify(), s.imm));
    let hit = hit.fold(0, |all, i| all | 1 << i);
    put(&mut r.p[usize::from(s.o[0])], mask, hit);
}

/// `len` ones from bit `at` on. Positions and lengths above 32 count as 32 with `clamp`, else
/// modulo 32.
#[inline(always)]
fn mask_of(at: u32, len: u32, clamp: bool) -> u32 {
    let (at, len) = if clamp { (at.min(32), len.min(32)) } else { (at % 32, len % 32) };
    let ones = (1u64 << len) - 1;
    (ones << at) as u32
}

/// The low `len` bits of `a`: from 32 on all of them with `clamp`, else `len` modulo 32.
#[inline(always)]
fn extend(a: u32, len: u32, clamp: bool, signed: bool) -> u32 {
    let len = if clamp { len.min(32) } else { len % 32 };
    if len == 0 {
        return 0;
    }
    let up = a << (32 - len);
    if signed { (up as i32 >> (32 - len)) as u32 } else { up >> (32 - len) }
}

/// Place of the |n|-th set bit of `mask`, counted from bit `base` upwards, or downwards for n < 0.
/// For n = 0 it is `base` itself, if that bit is set.
#[inline(always)]
fn nth(mask: u32, base: u32, n: i32) -> u32 {
    if base > 31 {
        return u32::MAX;
    }
    let mut left = match n {
        0 => mask & 1 << base,
        1.. => mask & u32::MAX << base,
        _ => mask & u32::MAX >> (31 - base),
    };
    for _ in 1..n.unsigned_abs().min(33) {
        // Without its lowest or highest one.
        left &= match left.checked_ilog2() {
            Some(top) if n < 0 => !(1 << top),
            _ => left.wrapping_sub(1),
        };
    }
    match left {
        0 => u32::MAX,
        left if n > 0 => left.trailing_zeros(),
        left => 31 - left.leading_zeros(),
    }
}

#[inline(always)]
fn dp2a(a: u32, b: u32, c: u32, how: u32) -> u32 {
    let b = if how & 4 != 0 { b >> 16 } else { b };
    let x = |i: u32| {
        let v = a >> (16 * i);
        if how & 1 != 0 { i64::from(v as i16) } else { i64::from(v as u16) }
    };
    let y = |i: u32| {
        let v = b >> (8 * i);
        if how & 2 != 0 { i64::from(v as i8) } else { i64::from(v as u8) }
    };
    c.wrapping_add((x(0) * y(0) + x(1) * y(1)) as u32)
}

lanes! {
    /// `imm`: clamped.
    Bmsk(a: u32, b: u32; imm) -> u32 = mask_of(a, b, imm != 0);
    /// `imm`: 1 clamped, 2 signed.
    Szext(a: u32, b: u32; imm) -> u32 = extend(a, b, imm & 1 != 0, imm & 2 != 0);
    Fns(a: u32, b: u32, c: u32) -> u32 = nth(a, b, c as i32);
    /// `imm`: 1 signed a, 2 signed b, 4 the upper bytes of b.
    Dp2a(a: u32, b: u32, c: u32; imm) -> u32 = dp2a(a, b, c, imm);
}
