//! Floating-point instructions of one lane: fp32, fp64, fp16 and bf16, scalar and in pairs.

use std::marker::PhantomData;

use super::alu_int::{compares, lanes};
use super::num::{self, canon, flush, settle64};
use super::regs::{Compare, El, Lane};
use super::special;

/// fp32 with `.ftz` and `.sat` as type parameters.
macro_rules! floats {
    ($($name:ident ($a:ident $(, $b:ident $(, $c:ident)?)?) = $e:expr;)*) => {$(
        pub struct $name<const FTZ: bool, const SAT: bool>;
        impl<const FTZ: bool, const SAT: bool> Lane for $name<FTZ, SAT> {
            type A = u32;
            type B = floats!(@ty $($b)?);
            type C = floats!(@ty $($($c)?)?);
            type D = u32;
            #[inline(always)]
            fn f(a: u32, b: Self::B, c: Self::C, _: u32) -> u32 {
                let _ = (b, c);
                let arg = |x: u32| {
                    let x = f32::from_bits(x);
                    if FTZ { flush(x) } else { x }
                };
                let $a = arg(a);
                $(let $b = arg(b); $(let $c = arg(c);)?)?
                let y: f32 = $e;
                let y = if FTZ { flush(y) } else { y };
                if SAT { num::saturate(y).to_bits() } else { canon(y) }
            }
        }
    )*};
    (@ty) => { () };
    (@ty $t:ident) => { u32 };
}

floats! {
    Add(a, b) = a + b;
    Sub(a, b) = a - b;
    Mul(a, b) = a * b;
    Fma(a, b, c) = a.mul_add(b, c);
    Div(a, b) = a / b;
    Rcp(a) = 1.0 / a;
    Sqrt(a) = a.sqrt();
    DivApprox(a, b) = special::div::<FTZ>(a, b, false);
    DivFull(a, b) = special::div::<FTZ>(a, b, true);
    RcpApprox(a) = f32::from_bits(special::rcp::<FTZ>(a.to_bits()));
    SqrtApprox(a) = f32::from_bits(special::sqrt::<FTZ>(a.to_bits()));
    Rsqrt(a) = f32::from_bits(special::rsqrt::<FTZ>(a.to_bits()));
    Ex2(a) = f32::from_bits(special::ex2::<FTZ>(a.to_bits()));
    Lg2(a) = f32::from_bits(special::lg2::<FTZ>(a.to_bits()));
    Sin(a) = f32::from_bits(special::sin::<false>(a.to_bits()));
    Cos(a) = f32::from_bits(special::sin::<true>(a.to_bits()));
    Tanh(a) = f32::from_bits(special::tanh(a.to_bits()));
    Id(a) = a;
}

/// Sign changes and comparisons keep a NaN's bits out of arithmetic; `imm` 1 is `.NaN`.
macro_rules! signs {
    ($($name:ident($a:ident $(, $b:ident)?; $imm:ident) = $e:expr;)*) => {$(
        pub struct $name<const FTZ: bool>;
        impl<const FTZ: bool> Lane for $name<FTZ> {
            type A = u32;
            type B = floats!(@ty $($b)?);
            type C = ();
            type D = u32;
            #[inline(always)]
            fn f(a: u32, b: Self::B, (): (), $imm: u32) -> u32 {
                let _ = (b, $imm);
                let arg = |x: u32| if FTZ { flush(f32::from_bits(x)).to_bits() } else { x };
                let $a = arg(a);
                $(let $b = arg(b);)?
                $e
            }
        }
    )*};
}

signs! {
    // A GPU adds -0 to -a: no NaN keeps its payload.
    NegF(a; imm) = if a & 0x7fff_ffff > 0x7f80_0000 { num::NAN32 } else { a ^ 0x8000_0000 };
    AbsF(a; imm) = if a & 0x7fff_ffff > 0x7f80_0000 { num::NAN32 } else { a & 0x7fff_ffff };
    MinF(a, b; imm) = {
        let (a, b) = (f32::from_bits(a), f32::from_bits(b));
        if imm != 0 && (a.is_nan() || b.is_nan()) { num::NAN32 } else { num::min(a, b) }
    };
    MaxF(a, b; imm) = {
        let (a, b) = (f32::from_bits(a), f32::from_bits(b));
        if imm != 0 && (a.is_nan() || b.is_nan()) { num::NAN32 } else { num::max(a, b) }
    };
}

#[inline(always)]
fn d(x: u64) -> f64 {
    f64::from_bits(x)
}

lanes! {
    AddD(a: u64, b: u64) -> u64 = settle64(d(a) + d(b), &[a, b]);
    SubD(a: u64, b: u64) -> u64 = settle64(d(a) - d(b), &[a, b]);
    MulD(a: u64, b: u64) -> u64 = settle64(d(a) * d(b), &[a, b]);
    FmaD(a: u64, b: u64, c: u64) -> u64 = settle64(d(a).mul_add(d(b), d(c)), &[a, b, c]);
    DivD(a: u64, b: u64) -> u64 = settle64(d(a) / d(b), &[a, b]);
    RcpD(a: u64) -> u64 = settle64(1.0 / d(a), &[a]);
    SqrtD(a: u64) -> u64 = settle64(d(a).sqrt(), &[a]);
    // A GPU comes within one unit of the last place of it.
    RsqrtD(a: u64) -> u64 = settle64(1.0 / d(a).sqrt(), &[a]);
    RcpApproxD(a: u64) -> u64 = special::rcp64(a);
    RsqrtApproxD(a: u64) -> u64 = special::rsqrt64(a);
    // Sums with -0 on a GPU.
    NegD(a: u64) -> u64 = if d(a).is_nan() { a | 1 << 51 } else { a ^ 1 << 63 };
    AbsD(a: u64) -> u64 = if d(a).is_nan() { a | 1 << 51 } else { a & !(1 << 63) };
    MinD(a: u64, b: u64) -> u64 = d(a).min(d(b)).to_bits();
    MaxD(a: u64, b: u64) -> u64 = d(a).max(d(b)).to_bits();
}

/// A 16-bit float format.
pub trait Half {
    fn to(h: u32) -> f32;
    fn from(x: f32) -> u32;
    /// The bits of an fp32 cut off, not rounded.
    fn cut(b: u32) -> u32;
}

pub struct F16;
impl Half for F16 {
    #[inline(always)]
    fn to(h: u32) -> f32 {
        num::f16_to_f32(h)
    }
    #[inline(always)]
    fn from(x: f32) -> u32 {
        num::f32_to_f16(x)
    }
    #[inline(always)]
    fn cut(b: u32) -> u32 {
        num::cut_to_f16(b)
    }
}

pub struct Bf16;
impl Half for Bf16 {
    #[inline(always)]
    fn to(h: u32) -> f32 {
        num::bf16_to_f32(h)
    }
    #[inline(always)]
    fn from(x: f32) -> u32 {
        num::f32_to_bf16(x)
    }
    #[inline(always)]
    fn cut(b: u32) -> u32 {
        num::cut_to_bf16(b)
    }
}

/// An operation on 16-bit floats, on their bits.
pub trait HalfOp {
    type B: El;
    type C: El;
    fn h(a: u32, b: u32, c: u32, imm: u32) -> u32;
}

/// The low 16 bits of a register, where there is an operand.
pub trait Part: El {
    fn part(self, shift: u32) -> u32;
}

impl Part for u32 {
    #[inline(always)]
    fn part(self, shift: u32) -> u32 {
        self >> shift & 0xffff
    }
}

impl Part for () {
    #[inline(always)]
    fn part(self, _: u32) -> u32 {
        0
    }
}

/// One value a register.
pub struct X1<O>(PhantomData<O>);
/// Two values a register.
pub struct X2<O>(PhantomData<O>);

impl<O: HalfOp<B: Part, C: Part>> Lane for X1<O> {
    type A = u32;
    type B = O::B;
    type C = O::C;
    type D = u32;
    #[inline(always)]
    fn f(a: u32, b: O::B, c: O::C, imm: u32) -> u32 {
        O::h(a.part(0), b.part(0), c.part(0), imm)
    }
}

impl<O: HalfOp<B: Part, C: Part>> Lane for X2<O> {
    type A = u32;
    type B = O::B;
    type C = O::C;
    type D = u32;
    #[inline(always)]
    fn f(a: u32, b: O::B, c: O::C, imm: u32) -> u32 {
        let low = O::h(a.part(0), b.part(0), c.part(0), imm);
        let high = O::h(a.part(16), b.part(16), c.part(16), imm);
        low | high << 16
    }
}

macro_rules! halves {
    ($($name:ident<$h:ident>($a:ident $(, $b:ident $(, $c:ident)?)?; $imm:ident) = $e:expr;)*) => {$(
        pub struct $name<H>(PhantomData<H>);
        impl<$h: Half> HalfOp for $name<$h> {
            type B = floats!(@ty $($b)?);
            type C = floats!(@ty $($($c)?)?);
            #[inline(always)]
            fn h(a: u32, b: u32, c: u32, $imm: u32) -> u32 {
                let _ = (b, c, $imm);
                let $a = a;
                $(let $b = b; $(let $c = c;)?)?
                $e
            }
        }
    )*};
}

// fp32 keeps enough of sums, products and quotients of 11 bits to round them once more. A fused
// product and sum goes through fp64, which is exact wherever the rounding could tell.
halves! {
    AddH<H>(a, b; imm) = H::from(H::to(a) + H::to(b));
    SubH<H>(a, b; imm) = H::from(H::to(a) - H::to(b));
    MulH<H>(a, b; imm) = H::from(num::f64_to_f32_odd(f64::from(H::to(a)) * f64::from(H::to(b))));
    FmaH<H>(a, b, c; imm) = {
        let y = num::f64_to_f32_odd(num::fma_odd(H::to(a), H::to(b), H::to(c)));
        // `imm` 1 is `.relu`, which leaves no -0 either.
        H::from(if imm == 1 && y <= 0.0 { 0.0 } else { y })
    };
    MinH<H>(a, b; imm) = {
        let (x, y) = (H::to(a), H::to(b));
        if imm != 0 && (x.is_nan() || y.is_nan()) { num::NAN16 }
        else { H::from(f32::from_bits(num::min(x, y))) }
    };
    MaxH<H>(a, b; imm) = {
        let (x, y) = (H::to(a), H::to(b));
        if imm != 0 && (x.is_nan() || y.is_nan()) { num::NAN16 }
        else { H::from(f32::from_bits(num::max(x, y))) }
    };
    NegH<H>(a; imm) = if H::to(a).is_nan() { num::NAN16 } else { a ^ 0x8000 };
    AbsH<H>(a; imm) = if H::to(a).is_nan() { num::NAN16 } else { a & 0x7fff };
    // The unit of fp32, cut off.
    Ex2H<H>(a; imm) = H::cut(special::ex2::<true>(H::to(a).to_bits()));
    TanhH<H>(a; imm) = H::cut(special::tanh(H::to(a).to_bits()));
}

/// Two fp32 to a pair of 16-bit floats: a high, b low. `imm` 1 is `.relu`.
pub struct PackH<H>(PhantomData<H>);
impl<H: Half> Lane for PackH<H> {
    type A = u32;
    type B = u32;
    type C = ();
    type D = u32;
    #[inline(always)]
    fn f(a: u32, b: u32, (): (), imm: u32) -> u32 {
        let relu = |x: u32| {
            let x = f32::from_bits(x);
            if imm == 1 && x <= 0.0 { 0.0 } else { x }
        };
        H::from(relu(a)) << 16 | H::from(relu(b))
    }
}

/// fp32 to a 16-bit float.
pub struct ToH<H>(PhantomData<H>);
impl<H: Half> Lane for ToH<H> {
    type A = u32;
    type B = ();
    type C = ();
    type D = u32;
    #[inline(always)]
    fn f(a: u32, (): (), (): (), _: u32) -> u32 {
        H::from(f32::from_bits(a))
    }
}

/// A 16-bit float to fp32.
pub struct FromH<H>(PhantomData<H>);
impl<H: Half> Lane for FromH<H> {
    type A = u32;
    type B = ();
    type C = ();
    type D = u32;
    #[inline(always)]
    fn f(a: u32, (): (), (): (), _: u32) -> u32 {
        canon(H::to(a & 0xffff))
    }
}

/// To the nearest whole number, ties to even, clamped; NaN to 0.
#[inline(always)]
fn to_s32(x: f32) -> u32 {
    x as i32 as u32
}

lanes! {
    ToTf32Away(a: u32) -> u32 = num::f32_to_tf32_away(a);
    ToTf32Even(a: u32) -> u32 = num::f32_to_tf32_even(a);
    // A shift on a GPU: a NaN keeps its payload.
    Bf16ToF32(a: u32) -> u32 = a << 16;
    S32ToF32(a: u32) -> u32 = (a as i32 as f32).to_bits();
    U32ToF32(a: u32) -> u32 = (a as f32).to_bits();
    F32ToS32Rz(a: u32) -> u32 = to_s32(f32::from_bits(a));
    F32ToS32Rn(a: u32) -> u32 = to_s32(f32::from_bits(a).round_ties_even());
    F32ToS32Rm(a: u32) -> u32 = to_s32(f32::from_bits(a).floor());
    F32ToS32Rp(a: u32) -> u32 = to_s32(f32::from_bits(a).ceil());
    F32ToF64(a: u32) -> u64 = {
        let x = f32::from_bits(a);
        if x.is_nan() { num::widen_nan(a) } else { f64::from(x).to_bits() }
    };
    F64ToF32(a: u64) -> u32 = {
        let x = d(a);
        if x.is_nan() { num::narrow_nan(a) } else { (x as f32).to_bits() }
    };
}

/// A comparison of fp32 with `.ftz`.
pub struct Flushed<C>(PhantomData<C>);
impl<C: Compare<A = u32>> Compare for Flushed<C> {
    type A = u32;
    #[inline(always)]
    fn f(a: u32, b: u32) -> bool {
        let arg = |x| flush(f32::from_bits(x)).to_bits();
        C::f(arg(a), arg(b))
    }
}

/// A comparison of 16-bit floats, by way of fp32.
pub struct Halved<H, C>(PhantomData<(H, C)>);
impl<H: Half, C: Compare<A = u32>> Compare for Halved<H, C> {
    type A = u32;
    #[inline(always)]
    fn f(a: u32, b: u32) -> bool {
        C::f(H::to(a & 0xffff).to_bits(), H::to(b & 0xffff).to_bits())
    }
}

#[inline(always)]
fn s(x: u32) -> f32 {
    f32::from_bits(x)
}

compares! {
    EqF<u32>(a, b) = s(a) == s(b);
    NeF<u32>(a, b) = s(a) < s(b) || s(a) > s(b);
    LtF<u32>(a, b) = s(a) < s(b);
    LeF<u32>(a, b) = s(a) <= s(b);
    GtF<u32>(a, b) = s(a) > s(b);
    GeF<u32>(a, b) = s(a) >= s(b);
    EquF<u32>(a, b) = !(s(a) < s(b) || s(a) > s(b));
    NeuF<u32>(a, b) = s(a) != s(b);
    LtuF<u32>(a, b) = s(a) < s(b) || s(a).is_nan() || s(b).is_nan();
    LeuF<u32>(a, b) = s(a) <= s(b) || s(a).is_nan() || s(b).is_nan();
    GtuF<u32>(a, b) = s(a) > s(b) || s(a).is_nan() || s(b).is_nan();
    GeuF<u32>(a, b) = s(a) >= s(b) || s(a).is_nan() || s(b).is_nan();
    NumF<u32>(a, b) = !(s(a).is_nan() || s(b).is_nan());
    NanF<u32>(a, b) = s(a).is_nan() || s(b).is_nan();
    EqD<u64>(a, b) = d(a) == d(b);
    NeD<u64>(a, b) = d(a) < d(b) || d(a) > d(b);
    LtD<u64>(a, b) = d(a) < d(b);
    LeD<u64>(a, b) = d(a) <= d(b);
    GtD<u64>(a, b) = d(a) > d(b);
    GeD<u64>(a, b) = d(a) >= d(b);
    NeuD<u64>(a, b) = d(a) != d(b);
    NanD<u64>(a, b) = d(a).is_nan() || d(b).is_nan();
    NumD<u64>(a, b) = !(d(a).is_nan() || d(b).is_nan());
}

/// `set`: `imm` where the comparison holds, else 0.
pub struct Set<C>(PhantomData<C>);
impl<C: Compare> Lane for Set<C> {
    type A = C::A;
    type B = C::A;
    type C = ();
    type D = u32;
    #[inline(always)]
    fn f(a: C::A, b: C::A, (): (), imm: u32) -> u32 {
        if C::f(a, b) { imm } else { 0 }
    }
}
