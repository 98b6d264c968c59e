//! `cvt` in all generality, lane by lane. The pairs that inner loops use have vector forms in
//! [`super::alu_float`].

use pulp::Arch;

use super::num::{self, flush};
use super::ptx::ast::Ty;
use super::regs::{El, Regs, Row, Slots};

/// How a conversion rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Round {
    Nearest,
    Zero,
    Down,
    Up,
}

/// What a `cvt` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cvt {
    pub from: Ty,
    pub to: Ty,
    pub round: Round,
    /// Round to a whole number (`.rni`, ...) where both sides are floats.
    pub whole: bool,
    pub sat: bool,
    pub ftz: bool,
}

const TYPES: [Ty; 16] = [
    Ty::U8,
    Ty::U16,
    Ty::U32,
    Ty::U64,
    Ty::S8,
    Ty::S16,
    Ty::S32,
    Ty::S64,
    Ty::F16,
    Ty::Bf16,
    Ty::F32,
    Ty::F64,
    Ty::B8,
    Ty::B16,
    Ty::B32,
    Ty::B64,
];
const ROUNDS: [Round; 4] = [Round::Nearest, Round::Zero, Round::Down, Round::Up];

impl Cvt {
    /// As the immediate of [`cvt`]; `None` for a type that `cvt` does not take.
    pub fn pack(self) -> Option<u32> {
        let ty = |t| TYPES.iter().position(|&x| x == t).map(|i| i as u32);
        Some(
            ty(self.from)?
                | ty(self.to)? << 4
                | (self.round as u32) << 8
                | u32::from(self.whole) << 10
                | u32::from(self.sat) << 11
                | u32::from(self.ftz) << 12,
        )
    }

    fn unpack(imm: u32) -> Cvt {
        Cvt {
            from: TYPES[(imm & 15) as usize],
            to: TYPES[(imm >> 4 & 15) as usize],
            round: ROUNDS[(imm >> 8 & 3) as usize],
            whole: imm >> 10 & 1 != 0,
            sat: imm >> 11 & 1 != 0,
            ftz: imm >> 12 & 1 != 0,
        }
    }

    /// A NaN converted to or from fp64 keeps its sign and what fits of its payload, and is made
    /// quiet.
    fn nan(self, x: u64) -> Option<u64> {
        // Bits of the whole and of the mantissa.
        let format = |ty| match ty {
            Ty::F16 => Some((16, 10)),
            Ty::Bf16 => Some((16, 7)),
            Ty::F32 => Some((32, 23)),
            Ty::F64 => Some((64, 52)),
            _ => None,
        };
        let ((bits, mantissa), (to_bits, to_mantissa)) = (format(self.from)?, format(self.to)?);
        if self.sat || self.from != Ty::F64 && self.to != Ty::F64 {
            return None;
        }
        let exponent = |bits: u32, mantissa: u32| ((1u64 << (bits - 1 - mantissa)) - 1) << mantissa;
        let size = x & ((1 << (bits - 1)) - 1);
        if size <= exponent(bits, mantissa) {
            return None;
        }
        let payload = (x & ((1 << mantissa) - 1)) << (52 - mantissa) | 1 << 51;
        let sign = (x >> (bits - 1) & 1) << (to_bits - 1);
        Some(sign | exponent(to_bits, to_mantissa) | payload >> (52 - to_mantissa))
    }

    /// The bits of `x` converted.
    pub fn apply(self, x: u64) -> u64 {
        if let Some(nan) = self.nan(x) {
            return nan;
        }
        let value = match self.from {
            Ty::U8 | Ty::B8 => Err(i128::from(x as u8)),
            Ty::U16 | Ty::B16 => Err(i128::from(x as u16)),
            Ty::U32 | Ty::B32 => Err(i128::from(x as u32)),
            Ty::U64 | Ty::B64 => Err(i128::from(x)),
            Ty::S8 => Err(i128::from(x as i8)),
            Ty::S16 => Err(i128::from(x as i16)),
            Ty::S32 => Err(i128::from(x as i32)),
            Ty::S64 => Err(i128::from(x as i64)),
            Ty::F16 => Ok(f64::from(num::f16_to_f32(x as u32 & 0xffff))),
            Ty::Bf16 => Ok(f64::from(num::bf16_to_f32(x as u32 & 0xffff))),
            Ty::F64 => Ok(f64::from_bits(x)),
            _ => {
                let f = f32::from_bits(x as u32);
                Ok(f64::from(if self.ftz { flush(f) } else { f }))
            }
        };
        match (value, self.to) {
            (Ok(f), Ty::F16 | Ty::Bf16 | Ty::F32 | Ty::F64) => {
                self.float(if self.whole { self.integral(f) } else { f })
            }
            (Err(i), Ty::F16 | Ty::Bf16 | Ty::F32 | Ty::F64) => self.float_of_int(i),
            (Ok(f), _) => self.int_of_float(f),
            (Err(i), to) => {
                let (low, high) = range(to);
                cut(if self.sat { i.clamp(low, high) } else { i }, to)
            }
        }
    }

    fn integral(self, f: f64) -> f64 {
        match self.round {
            Round::Nearest => f.round_ties_even(),
            Round::Zero => f.trunc(),
            Round::Down => f.floor(),
            Round::Up => f.ceil(),
        }
    }

    fn int_of_float(self, f: f64) -> u64 {
        if f.is_nan() {
            // What the hardware gives: the top bit for 64 bits and from them, else zero.
            return match self.to.bits() {
                64 => 1 << 63,
                32 if self.from == Ty::F64 => 1 << 31,
                _ => 0,
            };
        }
        let (low, high) = range(self.to);
        cut((self.integral(f) as i128).clamp(low, high), self.to)
    }

    fn float_of_int(self, i: i128) -> u64 {
        if self.to == Ty::F64 {
            return self
                .directed(i as f64, |y| (y as i128).cmp(&i), f64::next_up, f64::next_down)
                .to_bits();
        }
        // fp64 to odd, so that the second rounding decides alone.
        let f = i as f64;
        let f = match (f as i128).cmp(&i) {
            std::cmp::Ordering::Equal => f,
            order => {
                let beyond = (order == std::cmp::Ordering::Greater) == (i > 0);
                let b = f.to_bits() - u64::from(beyond);
                f64::from_bits(b | 1)
            }
        };
        self.float(f)
    }

    fn directed<T: Copy>(
        self,
        nearest: T,
        order: impl Fn(T) -> std::cmp::Ordering,
        up: impl Fn(T) -> T,
        down: impl Fn(T) -> T,
    ) -> T
    where
        f64: From<T>,
    {
        use std::cmp::Ordering::{Greater, Less};
        let negative = f64::from(nearest).is_sign_negative();
        match (self.round, order(nearest)) {
            (Round::Down, Greater) => down(nearest),
            (Round::Up, Less) => up(nearest),
            (Round::Zero, Greater) if !negative => down(nearest),
            (Round::Zero, Less) if negative => up(nearest),
            _ => nearest,
        }
    }

    /// `f`, exact or rounded to odd, in the target's format.
    fn float(self, f: f64) -> u64 {
        let f = match (self.sat, f) {
            (false, f) => f,
            (true, f) if f > 0.0 => f.min(1.0),
            (true, _) => 0.0,
        };
        let order = |y: f64| y.partial_cmp(&f).unwrap_or(std::cmp::Ordering::Equal);
        match self.to {
            Ty::F64 => num::canon64(f),
            Ty::F32 => {
                let y =
                    self.directed(f as f32, |y| order(f64::from(y)), f32::next_up, f32::next_down);
                num::canon(if self.ftz { flush(y) } else { y }).into()
            }
            to => {
                let odd = num::f64_to_f32_odd(f);
                let (h, v) = if to == Ty::F16 {
                    let h = num::f32_to_f16(odd);
                    (h, num::f16_to_f32(h))
                } else {
                    let h = num::f32_to_bf16(odd);
                    (h, num::bf16_to_f32(h))
                };
                // Sign and magnitude: one step towards zero is one less.
                let v = f64::from(v);
                let step = match (self.round, order(v)) {
                    (Round::Nearest, _) | (_, std::cmp::Ordering::Equal) => 0i32,
                    (Round::Zero, _) if v.abs() > f.abs() => -1,
                    (Round::Down, std::cmp::Ordering::Greater) => {
                        if v > 0.0 {
                            -1
                        } else {
                            1
                        }
                    }
                    (Round::Up, std::cmp::Ordering::Less) => {
                        if v < 0.0 {
                            -1
                        } else {
                            1
                        }
                    }
                    _ => 0,
                };
                u64::from(h.wrapping_add_signed(step) & 0xffff)
            }
        }
    }
}

fn range(ty: Ty) -> (i128, i128) {
    let bits = ty.bits();
    if ty.is_signed() { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) }
}

/// The low bits; signed values keep their sign up to the register's 32 or 64 bits.
fn cut(i: i128, ty: Ty) -> u64 {
    match ty {
        Ty::S8 => i as i8 as u32 as u64,
        Ty::S16 => i as u16 as u64,
        _ => i as u64 & (u64::MAX >> (64 - ty.bits())),
    }
}

/// `o = [d, a]`, of 32-bit rows unless a type has 64 bits; `imm` is a packed [`Cvt`].
pub fn cvt(_: Arch, r: &mut Regs, s: &Slots, mask: u32) {
    let c = Cvt::unpack(s.imm);
    let a = usize::from(s.o[1]);
    let mut out = [0u64; 32];
    for (i, x) in out.iter_mut().enumerate() {
        let bits = if c.from.bits() == 64 { r.r64[a][i] } else { r.r32[a][i].into() };
        *x = c.apply(bits);
    }
    if c.to.bits() == 64 {
        u64::write(r, s.o[0], mask, &Row(out));
    } else {
        u32::write(r, s.o[0], mask, &Row(out.map(|x| x as u32)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cvt(from: Ty, to: Ty, round: Round) -> Cvt {
        Cvt { from, to, round, whole: false, sat: false, ftz: false }
    }

    #[test]
    fn packing_keeps_everything() {
        let c = Cvt { whole: true, sat: true, ftz: true, ..cvt(Ty::F64, Ty::S8, Round::Up) };
        assert_eq!(Cvt::unpack(c.pack().unwrap()), c);
    }

    #[test]
    fn directed_roundings() {
        let f = |x: f32| u64::from(x.to_bits());
        let third = (1.0f64 / 3.0).to_bits();
        let down = cvt(Ty::F64, Ty::F32, Round::Down).apply(third);
        let up = cvt(Ty::F64, Ty::F32, Round::Up).apply(third);
        assert_eq!(up, down + 1);
        assert_eq!(cvt(Ty::F64, Ty::F32, Round::Zero).apply(third), down);
        // 1 + 3/4 of a unit of bf16 (2^-7).
        let x = f(1.0 + 0.75 / 128.0);
        assert_eq!(cvt(Ty::F32, Ty::Bf16, Round::Nearest).apply(x), 0x3f81);
        assert_eq!(cvt(Ty::F32, Ty::Bf16, Round::Zero).apply(x), 0x3f80);
        assert_eq!(cvt(Ty::F32, Ty::F16, Round::Zero).apply(f(1e9)), 0x7bff);
        assert_eq!(cvt(Ty::F32, Ty::S32, Round::Nearest).apply(f(2.5)), 2);
        assert_eq!(cvt(Ty::F32, Ty::S32, Round::Up).apply(f(-2.5)) as i32, -2);
        assert_eq!(cvt(Ty::F32, Ty::S32, Round::Down).apply(f(-2.5)) as i32, -3);
        assert_eq!(cvt(Ty::F32, Ty::U8, Round::Zero).apply(f(300.0)), 255);
        assert_eq!(
            cvt(Ty::U64, Ty::F32, Round::Nearest).apply((1 << 53) + (1 << 29) + 1),
            f(((1u64 << 53) + (1 << 30)) as f32)
        );
        assert_eq!(cvt(Ty::S64, Ty::F32, Round::Zero).apply(-16777217i64 as u64), f(-16777216.0));
        assert_eq!(cvt(Ty::S64, Ty::F32, Round::Down).apply(-16777217i64 as u64), f(-16777218.0));
    }

    #[test]
    fn integers_wrap_saturate_and_extend() {
        let sat = Cvt { sat: true, ..cvt(Ty::S32, Ty::U8, Round::Zero) };
        assert_eq!(sat.apply(-5i32 as u32 as u64), 0);
        assert_eq!(sat.apply(700), 255);
        assert_eq!(cvt(Ty::S32, Ty::S64, Round::Zero).apply(0xffff_ffff), u64::MAX);
        assert_eq!(cvt(Ty::U32, Ty::S64, Round::Zero).apply(0xffff_ffff), 0xffff_ffff);
        assert_eq!(cvt(Ty::S32, Ty::S8, Round::Zero).apply(0x80), 0xffff_ff80);
    }
}
