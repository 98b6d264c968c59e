//! Integer, logic and move instructions of one lane.

use pulp::Arch;

use super::regs::{Compare, El, Lane, Regs, Row, Slots};

/// Defines lane functions: `Name(a: type, b: type; imm) -> type = expression`.
macro_rules! lanes {
    ($($(#[$doc:meta])* $name:ident ($a:ident: $A:ty $(, $b:ident: $B:ty $(, $c:ident: $C:ty)?)? $(; $imm:ident)?) -> $D:ty = $e:expr;)*) => {$(
        $(#[$doc])*
        pub struct $name;
        impl Lane for $name {
            type A = $A;
            type B = lanes!(@ty $($B)?);
            type C = lanes!(@ty $($($C)?)?);
            type D = $D;
            #[inline(always)]
            fn f($a: $A, lanes!(@pat $($b)?): Self::B, lanes!(@pat $($($c)?)?): Self::C,
                 lanes!(@pat $($imm)?): u32) -> $D { $e }
        }
    )*};
    (@ty) => { () };
    (@ty $t:ty) => { $t };
    (@pat) => { _ };
    (@pat $p:ident) => { $p };
}
pub(super) use lanes;

macro_rules! compares {
    ($($name:ident<$A:ty>($a:ident, $b:ident) = $e:expr;)*) => {$(
        pub struct $name;
        impl Compare for $name {
            type A = $A;
            #[inline(always)]
            fn f($a: $A, $b: $A) -> bool { $e }
        }
    )*};
}
pub(super) use compares;

/// A value of 16 bits with its sign.
#[inline(always)]
fn s16(x: u32) -> i32 {
    i32::from(x as u16 as i16)
}

/// c >= 0 in fp32; `ftz` 1: subnormals are zeros.
#[inline(always)]
fn not_below(c: u32, ftz: u32) -> bool {
    f32::from_bits(c) >= 0.0 || ftz != 0 && c & 0x7f80_0000 == 0
}

#[inline(always)]
fn shl32(a: u32, b: u32) -> u32 {
    if b > 31 { 0 } else { a << b }
}

#[inline(always)]
fn shr32(a: u32, b: u32) -> u32 {
    if b > 31 { 0 } else { a >> b }
}

#[inline(always)]
fn mask64(n: u32) -> u64 {
    if n > 63 { u64::MAX } else { (1 << n) - 1 }
}

#[inline(always)]
fn bfe(a: u64, pos: u32, len: u32, bits: u32, signed: bool) -> u64 {
    let (pos, len) = (pos & 0xff, len & 0xff);
    if len == 0 {
        return 0;
    }
    let width = len.min(bits.saturating_sub(pos));
    let field = if pos > 63 { 0 } else { a >> pos & mask64(width) };
    // The sign is the field's top bit, or the register's where the field sticks out.
    let top = (pos + len - 1).min(bits - 1);
    if signed && a >> top & 1 != 0 { field | !mask64(width) } else { field }
}

#[inline(always)]
fn bfi(a: u64, b: u64, pos: u32, len: u32, bits: u32) -> u64 {
    let (pos, len) = (pos & 0xff, len & 0xff);
    if len == 0 || pos >= bits {
        return b;
    }
    let field = mask64(len.min(bits - pos)) << pos;
    b & !field | a << pos & field
}

#[inline(always)]
fn prmt(a: u32, b: u32, sel: u32, mode: u32) -> u32 {
    let bytes = u64::from(a) | u64::from(b) << 32;
    let s = sel & 3;
    let sel = match mode {
        // f4e, b4e, rc8, ecl, ecr, rc16
        1 => [0x3210, 0x4321, 0x5432, 0x6543][s as usize],
        2 => [0x5670, 0x6701, 0x7012, 0x0123][s as usize],
        3 => s * 0x1111,
        4 => [0x3210, 0x3211, 0x3222, 0x3333][s as usize],
        5 => [0x0000, 0x1110, 0x2210, 0x3210][s as usize],
        6 => [0x1010, 0x3232, 0x1010, 0x3232][s as usize],
        _ => sel,
    };
    let mut out = 0;
    for i in 0..4 {
        let nibble = sel >> (4 * i) & 0xf;
        let byte = (bytes >> (8 * (nibble & 7))) as u32 & 0xff;
        let replicated = if byte & 0x80 != 0 { 0xff } else { 0 };
        let byte = if nibble & 8 != 0 { replicated } else { byte };
        out |= byte << (8 * i);
    }
    out
}

#[inline(always)]
fn lop3(a: u32, b: u32, c: u32, lut: u32) -> u32 {
    let mut out = 0;
    for i in 0..8u32 {
        let pick = |x: u32, bit: u32| if i & bit != 0 { x } else { !x };
        let on = (lut >> i & 1).wrapping_neg();
        out |= pick(a, 4) & pick(b, 2) & pick(c, 1) & on;
    }
    out
}

#[inline(always)]
fn bfind(x: u64, shift_amount: bool, bits: u32) -> u32 {
    if x == 0 {
        return u32::MAX;
    }
    let top = 63 - x.leading_zeros();
    if shift_amount { bits - 1 - top } else { top }
}

lanes! {
    Mov32(a: u32) -> u32 = a;
    Mov64(a: u64) -> u64 = a;
    Not32(a: u32) -> u32 = !a;
    Not64(a: u64) -> u64 = !a;
    Not16(a: u32) -> u32 = !a & 0xffff;
    CNot32(a: u32) -> u32 = u32::from(a == 0);
    CNot64(a: u64) -> u64 = u64::from(a == 0);
    NegS16(a: u32) -> u32 = a.wrapping_neg() & 0xffff;
    NegS32(a: u32) -> u32 = a.wrapping_neg();
    NegS64(a: u64) -> u64 = a.wrapping_neg();
    AbsS16(a: u32) -> u32 = s16(a).wrapping_abs() as u32 & 0xffff;
    AbsS32(a: u32) -> u32 = (a as i32).wrapping_abs() as u32;
    AbsS64(a: u64) -> u64 = (a as i64).wrapping_abs() as u64;

    And32(a: u32, b: u32) -> u32 = a & b;
    Or32(a: u32, b: u32) -> u32 = a | b;
    Xor32(a: u32, b: u32) -> u32 = a ^ b;
    And64(a: u64, b: u64) -> u64 = a & b;
    Or64(a: u64, b: u64) -> u64 = a | b;
    Xor64(a: u64, b: u64) -> u64 = a ^ b;

    Add16(a: u32, b: u32) -> u32 = a.wrapping_add(b) & 0xffff;
    Sub16(a: u32, b: u32) -> u32 = a.wrapping_sub(b) & 0xffff;
    MulLo16(a: u32, b: u32) -> u32 = a.wrapping_mul(b) & 0xffff;
    MulHiU16(a: u32, b: u32) -> u32 = a.wrapping_mul(b) >> 16;
    MulHiS16(a: u32, b: u32) -> u32 = (s16(a) * s16(b)) as u32 >> 16;
    MulWideU16(a: u32, b: u32) -> u32 = a.wrapping_mul(b);
    MulWideS16(a: u32, b: u32) -> u32 = (s16(a) * s16(b)) as u32;
    MadLo16(a: u32, b: u32, c: u32) -> u32 = a.wrapping_mul(b).wrapping_add(c) & 0xffff;
    MadWideU16(a: u32, b: u32, c: u32) -> u32 = a.wrapping_mul(b).wrapping_add(c);
    MadWideS16(a: u32, b: u32, c: u32) -> u32 = ((s16(a) * s16(b)) as u32).wrapping_add(c);
    MinS16(a: u32, b: u32) -> u32 = s16(a).min(s16(b)) as u32 & 0xffff;
    MaxS16(a: u32, b: u32) -> u32 = s16(a).max(s16(b)) as u32 & 0xffff;
    DivS16(a: u32, b: u32) -> u32 =
        if b == 0 { 0xffff } else { (s16(a) / s16(b)) as u32 & 0xffff };
    RemS16(a: u32, b: u32) -> u32 =
        if b == 0 { a } else { (s16(a) % s16(b)) as u32 & 0xffff };
    DivU16(a: u32, b: u32) -> u32 = a.checked_div(b).unwrap_or(0xffff);
    Shl16(a: u32, b: u32) -> u32 = shl32(a, b) & 0xffff;
    ShrS16(a: u32, b: u32) -> u32 = (s16(a) >> b.min(31)) as u32 & 0xffff;

    Add32(a: u32, b: u32) -> u32 = a.wrapping_add(b);
    Sub32(a: u32, b: u32) -> u32 = a.wrapping_sub(b);
    AddSatS32(a: u32, b: u32) -> u32 = (a as i32).saturating_add(b as i32) as u32;
    SubSatS32(a: u32, b: u32) -> u32 = (a as i32).saturating_sub(b as i32) as u32;
    MulLo32(a: u32, b: u32) -> u32 = a.wrapping_mul(b);
    MulHiU32(a: u32, b: u32) -> u32 = ((u64::from(a) * u64::from(b)) >> 32) as u32;
    MulHiS32(a: u32, b: u32) -> u32 =
        ((i64::from(a as i32) * i64::from(b as i32)) >> 32) as u32;
    MulWideU32(a: u32, b: u32) -> u64 = u64::from(a) * u64::from(b);
    MulWideS32(a: u32, b: u32) -> u64 = (i64::from(a as i32) * i64::from(b as i32)) as u64;
    Mul24U(a: u32, b: u32) -> u32 = (a & 0xff_ffff).wrapping_mul(b & 0xff_ffff);
    Mul24S(a: u32, b: u32) -> u32 =
        ((a as i32) << 8 >> 8).wrapping_mul((b as i32) << 8 >> 8) as u32;
    MadLo32(a: u32, b: u32, c: u32) -> u32 = a.wrapping_mul(b).wrapping_add(c);
    MadHiU32(a: u32, b: u32, c: u32) -> u32 =
        (((u64::from(a) * u64::from(b)) >> 32) as u32).wrapping_add(c);
    MadHiS32(a: u32, b: u32, c: u32) -> u32 =
        (((i64::from(a as i32) * i64::from(b as i32)) >> 32) as u32).wrapping_add(c);
    MadWideU32(a: u32, b: u32, c: u64) -> u64 = (u64::from(a) * u64::from(b)).wrapping_add(c);
    MadWideS32(a: u32, b: u32, c: u64) -> u64 =
        ((i64::from(a as i32) * i64::from(b as i32)) as u64).wrapping_add(c);
    SadU32(a: u32, b: u32, c: u32) -> u32 = a.abs_diff(b).wrapping_add(c);
    SadS32(a: u32, b: u32, c: u32) -> u32 = (a as i32).abs_diff(b as i32).wrapping_add(c);
    MinU32(a: u32, b: u32) -> u32 = a.min(b);
    MaxU32(a: u32, b: u32) -> u32 = a.max(b);
    MinS32(a: u32, b: u32) -> u32 = (a as i32).min(b as i32) as u32;
    MaxS32(a: u32, b: u32) -> u32 = (a as i32).max(b as i32) as u32;
    DivU32(a: u32, b: u32) -> u32 = a.checked_div(b).unwrap_or(u32::MAX);
    RemU32(a: u32, b: u32) -> u32 = a.checked_rem(b).unwrap_or(a);
    DivS32(a: u32, b: u32) -> u32 =
        if b == 0 { u32::MAX } else { (a as i32).wrapping_div(b as i32) as u32 };
    RemS32(a: u32, b: u32) -> u32 =
        if b == 0 { a } else { (a as i32).wrapping_rem(b as i32) as u32 };
    Shl32(a: u32, b: u32) -> u32 = shl32(a, b);
    ShrU32(a: u32, b: u32) -> u32 = shr32(a, b);
    ShrS32(a: u32, b: u32) -> u32 = (a as i32 >> b.min(31)) as u32;
    /// The high word of b:a << c.
    ShfLWrap(a: u32, b: u32, c: u32) -> u32 =
        (((u64::from(b) << 32 | u64::from(a)) << (c & 31)) >> 32) as u32;
    ShfLClamp(a: u32, b: u32, c: u32) -> u32 =
        (((u64::from(b) << 32 | u64::from(a)) << c.min(32)) >> 32) as u32;
    /// The low word of b:a >> c.
    ShfRWrap(a: u32, b: u32, c: u32) -> u32 =
        ((u64::from(b) << 32 | u64::from(a)) >> (c & 31)) as u32;
    ShfRClamp(a: u32, b: u32, c: u32) -> u32 =
        ((u64::from(b) << 32 | u64::from(a)) >> c.min(32)) as u32;
    Popc32(a: u32) -> u32 = a.count_ones();
    Clz32(a: u32) -> u32 = a.leading_zeros();
    Brev32(a: u32) -> u32 = a.reverse_bits();
    BfindU32(a: u32; imm) -> u32 = bfind(a.into(), imm != 0, 32);
    BfindS32(a: u32; imm) -> u32 =
        bfind(u64::from(if (a as i32) < 0 { !a } else { a }), imm != 0, 32);
    BfeU32(a: u32, b: u32, c: u32) -> u32 = bfe(a.into(), b, c, 32, false) as u32;
    BfeS32(a: u32, b: u32, c: u32) -> u32 = bfe(a.into(), b, c, 32, true) as u32;
    Prmt(a: u32, b: u32, c: u32; imm) -> u32 = prmt(a, b, c, imm);
    Lop3(a: u32, b: u32, c: u32; imm) -> u32 = lop3(a, b, c, imm);
    SlctS32(a: u32, b: u32, c: u32) -> u32 = if c as i32 >= 0 { a } else { b };
    SlctF32(a: u32, b: u32, c: u32; ftz) -> u32 = if not_below(c, ftz) { a } else { b };
    Slct64S32(a: u64, b: u64, c: u32) -> u64 = if c as i32 >= 0 { a } else { b };
    Slct64F32(a: u64, b: u64, c: u32; ftz) -> u64 = if not_below(c, ftz) { a } else { b };

    Add64(a: u64, b: u64) -> u64 = a.wrapping_add(b);
    Sub64(a: u64, b: u64) -> u64 = a.wrapping_sub(b);
    MulLo64(a: u64, b: u64) -> u64 = a.wrapping_mul(b);
    MulHiU64(a: u64, b: u64) -> u64 = ((u128::from(a) * u128::from(b)) >> 64) as u64;
    MulHiS64(a: u64, b: u64) -> u64 =
        ((i128::from(a as i64) * i128::from(b as i64)) >> 64) as u64;
    MadLo64(a: u64, b: u64, c: u64) -> u64 = a.wrapping_mul(b).wrapping_add(c);
    MinU64(a: u64, b: u64) -> u64 = a.min(b);
    MaxU64(a: u64, b: u64) -> u64 = a.max(b);
    MinS64(a: u64, b: u64) -> u64 = (a as i64).min(b as i64) as u64;
    MaxS64(a: u64, b: u64) -> u64 = (a as i64).max(b as i64) as u64;
    DivU64(a: u64, b: u64) -> u64 = a.checked_div(b).unwrap_or(u64::MAX);
    RemU64(a: u64, b: u64) -> u64 = a.checked_rem(b).unwrap_or(a);
    DivS64(a: u64, b: u64) -> u64 =
        if b == 0 { u64::MAX } else { (a as i64).wrapping_div(b as i64) as u64 };
    RemS64(a: u64, b: u64) -> u64 =
        if b == 0 { a } else { (a as i64).wrapping_rem(b as i64) as u64 };
    Shl64(a: u64, b: u32) -> u64 = if b > 63 { 0 } else { a << b };
    ShrU64(a: u64, b: u32) -> u64 = if b > 63 { 0 } else { a >> b };
    ShrS64(a: u64, b: u32) -> u64 = (a as i64 >> b.min(63)) as u64;
    Popc64(a: u64) -> u32 = a.count_ones();
    Clz64(a: u64) -> u32 = a.leading_zeros();
    Brev64(a: u64) -> u64 = a.reverse_bits();
    BfindU64(a: u64; imm) -> u32 = bfind(a, imm != 0, 64);
    BfindS64(a: u64; imm) -> u32 = bfind(if (a as i64) < 0 { !a } else { a }, imm != 0, 64);
    BfeU64(a: u64, b: u32, c: u32) -> u64 = bfe(a, b, c, 64, false);
    BfeS64(a: u64, b: u32, c: u32) -> u64 = bfe(a, b, c, 64, true);

    Pack16(a: u32, b: u32) -> u32 = a & 0xffff | b << 16;
    Pack32(a: u32, b: u32) -> u64 = u64::from(a) | u64::from(b) << 32;
    Low16(a: u32) -> u32 = a & 0xffff;
    High16(a: u32) -> u32 = a >> 16;
    Low32(a: u64) -> u32 = a as u32;
    High32(a: u64) -> u32 = (a >> 32) as u32;
    /// Whole-number conversions; `imm` holds the bits to keep of the source, and to the result.
    SignExtend8(a: u32) -> u32 = a as u8 as i8 as i32 as u32;
    SignExtend16(a: u32) -> u32 = s16(a) as u32;
    Keep(a: u32; imm) -> u32 = a & imm;
    Widen(a: u32) -> u64 = u64::from(a);
    WidenS(a: u32) -> u64 = i64::from(a as i32) as u64;
}

/// dp4a: four products of bytes, summed; `imm` bit 0: a signed, bit 1: b signed.
pub struct Dp4a;
impl Lane for Dp4a {
    type A = u32;
    type B = u32;
    type C = u32;
    type D = u32;
    #[inline(always)]
    fn f(a: u32, b: u32, c: u32, imm: u32) -> u32 {
        let byte = |x: u32, i: u32, signed: bool| {
            let v = (x >> (8 * i)) as u8;
            if signed { i32::from(v as i8) } else { i32::from(v) }
        };
        let mut sum = c as i32;
        for i in 0..4 {
            sum = sum.wrapping_add(byte(a, i, imm & 1 != 0) * byte(b, i, imm & 2 != 0));
        }
        sum as u32
    }
}

compares! {
    EqU32<u32>(a, b) = a == b;
    NeU32<u32>(a, b) = a != b;
    LtU32<u32>(a, b) = a < b;
    LeU32<u32>(a, b) = a <= b;
    GtU32<u32>(a, b) = a > b;
    GeU32<u32>(a, b) = a >= b;
    LtS32<u32>(a, b) = (a as i32) < b as i32;
    LeS32<u32>(a, b) = a as i32 <= b as i32;
    GtS32<u32>(a, b) = a as i32 > b as i32;
    GeS32<u32>(a, b) = a as i32 >= b as i32;
    LtS16<u32>(a, b) = s16(a) < s16(b);
    LeS16<u32>(a, b) = s16(a) <= s16(b);
    GtS16<u32>(a, b) = s16(a) > s16(b);
    GeS16<u32>(a, b) = s16(a) >= s16(b);
    EqU64<u64>(a, b) = a == b;
    NeU64<u64>(a, b) = a != b;
    LtU64<u64>(a, b) = a < b;
    LeU64<u64>(a, b) = a <= b;
    GtU64<u64>(a, b) = a > b;
    GeU64<u64>(a, b) = a >= b;
    LtS64<u64>(a, b) = (a as i64) < b as i64;
    LeS64<u64>(a, b) = a as i64 <= b as i64;
    GtS64<u64>(a, b) = a as i64 > b as i64;
    GeS64<u64>(a, b) = a as i64 >= b as i64;
}

/// `o = [d, a, b, pos, len]`: b with bits of a put in.
pub fn bfi32(_: Arch, r: &mut Regs, s: &Slots, mask: u32) {
    let [d, a, b, pos, len] = s.o.map(usize::from);
    let out = std::array::from_fn(|i| {
        bfi(r.r32[a][i].into(), r.r32[b][i].into(), r.r32[pos][i], r.r32[len][i], 32) as u32
    });
    u32::write(r, d as u16, mask, &Row(out));
}

pub fn bfi64(_: Arch, r: &mut Regs, s: &Slots, mask: u32) {
    let [d, a, b, pos, len] = s.o.map(usize::from);
    let out =
        std::array::from_fn(|i| bfi(r.r64[a][i], r.r64[b][i], r.r32[pos][i], r.r32[len][i], 64));
    u64::write(r, d as u16, mask, &Row(out));
}

/// Logic on predicates: `o = [d, a, b]`; `imm` 0 and, 1 or, 2 xor, 3 not, 4 move.
pub fn pred(_: Arch, r: &mut Regs, s: &Slots, mask: u32) {
    let (a, b) = (r.p[s.o[1] as usize], r.p[s.o[2] as usize]);
    let v = match s.imm {
        0 => a & b,
        1 => a | b,
        2 => a ^ b,
        3 => !a,
        _ => a,
    };
    super::regs::put(&mut r.p[s.o[0] as usize], mask, v);
}
