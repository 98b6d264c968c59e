//! Instructions between registers.

use super::super::alu_cvt::{self, Cvt, Round};
use super::super::alu_float::{self as fl, Bf16, F16, X1, X2};
use super::super::alu_int::{self as int, *};
use super::super::alu_narrow as narrow;
use super::super::regs::{AluFn, JOIN_AND, JOIN_NEGATED, JOIN_OR, JOIN_XOR, alu, selp};
use super::table::{COMPARISONS, compare_fn, int_fn, keep_fn, whole_fn};
use super::*;

/// fp32 by `.ftz` and `.sat`.
macro_rules! f32_fn {
    ($op:ident, $ftz:expr, $sat:expr) => {
        match ($ftz, $sat) {
            (false, false) => alu::<fl::$op<false, false>> as AluFn,
            (true, false) => alu::<fl::$op<true, false>>,
            (false, true) => alu::<fl::$op<false, true>>,
            (true, true) => alu::<fl::$op<true, true>>,
        }
    };
}

/// 16-bit floats by type.
macro_rules! half_fn {
    ($op:ident, $ty:expr) => {
        match $ty {
            Ty::F16 => Some(alu::<X1<fl::$op<F16>>> as AluFn),
            Ty::F16x2 => Some(alu::<X2<fl::$op<F16>>> as AluFn),
            Ty::Bf16 => Some(alu::<X1<fl::$op<Bf16>>> as AluFn),
            Ty::Bf16x2 => Some(alu::<X2<fl::$op<Bf16>>> as AluFn),
            _ => None,
        }
    };
}

fn is_float(ty: Ty) -> bool {
    matches!(ty, Ty::F16 | Ty::F16x2 | Ty::Bf16 | Ty::Bf16x2 | Ty::F32 | Ty::F64)
}

impl<'a> Decoder<'a> {
    /// Decodes `i` if it works on registers alone.
    pub(super) fn alu_op(&mut self, i: &'a Instr<'a>, m: &mut Mods<'a>) -> Result<bool> {
        match i.opcode {
            "mov" => self.mov(i, m)?,
            "add" | "sub" | "mul" | "mad" | "fma" | "min" | "max" | "abs" | "neg" | "div"
            | "rem" | "mul24" | "sad" => self.arithmetic(i, m)?,
            "and" | "or" | "xor" | "not" | "cnot" | "shl" | "shr" => self.logic(i, m)?,
            "bfe" | "bfi" | "lop3" | "prmt" | "shf" | "popc" | "clz" | "bfind" | "brev"
            | "dp4a" => self.bits(i, m)?,
            "ex2" | "lg2" | "rcp" | "rsqrt" | "sqrt" | "sin" | "cos" | "tanh" => {
                self.special(i, m)?;
            }
            "copysign" => {
                self.class = Class::Alu;
                let ty = m.ty()?;
                let f = match ty {
                    Ty::F32 => alu::<narrow::Copysign32> as AluFn,
                    Ty::F64 => alu::<narrow::Copysign64>,
                    _ => return m.unknown(),
                };
                let a = self.args(i, 3..=3)?;
                let (x, y) = (self.src(&a[1], ty)?, self.src(&a[2], ty)?);
                let d = self.dst(&a[0], ty)?;
                self.alu(f, [d, x, y, 0, 0], 0);
            }
            "setp" => self.setp(i, m)?,
            "selp" => {
                self.class = Class::Alu;
                let ty = m.ty()?;
                let a = self.args(i, 4..=4)?;
                let f: AluFn = if ty.bits() == 64 { selp::<u64> } else { selp::<u32> };
                let (x, y) = (self.src(&a[1], ty)?, self.src(&a[2], ty)?);
                let (p, negated) = self.pred_src(&a[3])?;
                let d = self.dst(&a[0], ty)?;
                self.alu(f, [d, x, y, p, 0], negated.into());
            }
            "slct" => {
                self.class = Class::Alu;
                let ftz = m.flag("ftz");
                let (ty, by) = (m.ty()?, m.ty()?);
                let f = match (ty.bits(), by) {
                    (16 | 32, Ty::S32) => alu::<SlctS32> as AluFn,
                    (16 | 32, Ty::F32) => alu::<SlctF32>,
                    (64, Ty::S32) => alu::<Slct64S32>,
                    (64, Ty::F32) => alu::<Slct64F32>,
                    _ => return m.unknown(),
                };
                let a = self.args(i, 4..=4)?;
                let (x, y) = (self.src(&a[1], ty)?, self.src(&a[2], ty)?);
                let c = self.src(&a[3], by)?;
                let d = self.dst(&a[0], ty)?;
                self.alu(f, [d, x, y, c, 0], ftz.into());
            }
            "cvt" => self.cvt(i, m)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn mov(&mut self, i: &'a Instr<'a>, m: &mut Mods<'a>) -> Result<()> {
        self.class = Class::Move;
        let ty = m.ty()?;
        let a = self.args(i, 2..=2)?;
        match (&a[0], &a[1]) {
            (Operand::Vector(_), Operand::Vector(_)) => m.unknown(),
            _ if ty == Ty::B128 => self.mov_wide(i),
            (Operand::Vector(parts), s) => self.unpack(parts, s, ty, m),
            (d, Operand::Vector(parts)) => self.pack(d, parts, ty, m),
            (
                d,
                Operand::Name(name @ ("%clock" | "%clock64" | "%globaltimer" | "%globaltimer_lo")),
            ) => {
                let wide = ty.bits() == 64;
                if wide == matches!(*name, "%clock" | "%globaltimer_lo") {
                    return self.error(format!("`{name}` has another width"));
                }
                let d = self.dst(d, ty)?;
                self.push(Op::Clock(d, wide));
                Ok(())
            }
            (d, s) if ty == Ty::Pred => {
                let (p, negated) = self.pred_src(s)?;
                let d = self.dst(d, ty)?;
                self.alu(int::pred, [d, p, TRUE, 0, 0], if negated { 3 } else { 4 });
                Ok(())
            }
            (d, s) => {
                let s = self.src(s, ty)?;
                let d = self.dst(d, ty)?;
                let f = if ty.bits() == 64 { alu::<Mov64> as AluFn } else { alu::<Mov32> };
                self.alu(f, [d, s, 0, 0, 0], 0);
                Ok(())
            }
        }
    }

    fn part_type(&self, n: usize, ty: Ty, m: &Mods<'a>) -> Result<Ty> {
        match (ty.bits(), n) {
            (32, 2) | (64, 4) => Ok(Ty::B16),
            (64, 2) => Ok(Ty::B32),
            _ => m.unknown(),
        }
    }

    /// `mov.b64 {lo, hi}, x`
    fn unpack(
        &mut self,
        parts: &'a [Operand<'a>],
        s: &'a Operand<'a>,
        ty: Ty,
        m: &Mods<'a>,
    ) -> Result<()> {
        let part = self.part_type(parts.len(), ty, m)?;
        // Parts are written one after another: none may be the source itself, which has another
        // width anyway.
        let mut words = vec![self.src(s, ty)?];
        if ty.bits() == 64 {
            let source = words[0];
            words.clear();
            let halves = [alu::<Low32> as AluFn, alu::<High32>];
            for (k, f) in halves.into_iter().enumerate() {
                if part == Ty::B32 {
                    let d = self.dst(&parts[k], part)?;
                    self.alu(f, [d, source, 0, 0, 0], 0);
                } else {
                    let t = self.temporary()?;
                    self.alu(f, [t, source, 0, 0, 0], 0);
                    words.push(t);
                }
            }
        }
        if part == Ty::B16 {
            for (k, p) in parts.iter().enumerate() {
                let d = self.dst(p, part)?;
                let f = if k % 2 == 0 { alu::<Low16> as AluFn } else { alu::<High16> };
                self.alu(f, [d, words[k / 2], 0, 0, 0], 0);
            }
        }
        Ok(())
    }

    /// `mov.b64 x, {lo, hi}`
    fn pack(
        &mut self,
        d: &'a Operand<'a>,
        parts: &'a [Operand<'a>],
        ty: Ty,
        m: &Mods<'a>,
    ) -> Result<()> {
        let part = self.part_type(parts.len(), ty, m)?;
        let mut words = Vec::new();
        for p in parts {
            words.push(self.src(p, part)?);
        }
        if parts.len() == 4 {
            let (low, high) = (self.temporary()?, self.temporary()?);
            self.alu(alu::<Pack16>, [low, words[0], words[1], 0, 0], 0);
            self.alu(alu::<Pack16>, [high, words[2], words[3], 0, 0], 0);
            words = vec![low, high];
        }
        let d = self.dst(d, ty)?;
        let f = if ty.bits() == 64 { alu::<Pack32> as AluFn } else { alu::<Pack16> };
        self.alu(f, [d, words[0], words[1], 0, 0], 0);
        Ok(())
    }

    fn temporary(&mut self) -> Result<u16> {
        match self.new_slot(32)? {
            Slot::R32(i) => Ok(i),
            _ => self.error("no temporary register"),
        }
    }

    fn arithmetic(&mut self, i: &'a Instr<'a>, m: &mut Mods<'a>) -> Result<()> {
        if matches!(i.opcode, "add" | "sub") && m.flag("cc") || m.flag("carry") {
            return m.unknown();
        }
        let ftz = m.flag("ftz");
        let sat = m.flag("sat");
        let nan = m.flag("NaN");
        let relu = m.flag("relu");
        let width = m.pick(&[("lo", 'l'), ("hi", 'h'), ("wide", 'w')]);
        let ty = m.ty()?;
        let float = is_float(ty);
        self.class = if float && !matches!(i.opcode, "min" | "max" | "abs" | "neg") {
            Class::Fma
        } else {
            Class::Alu
        };
        let approx = float && m.flag("approx");
        let full = float && m.flag("full");
        if float {
            m.ignore(&["rn", "noftz"]);
        }
        if i.opcode == "div" && ty == Ty::F32 {
            self.class = Class::Special;
        }
        let h = half_fn!(AddH, ty).is_some();
        let mut imm = u32::from(nan);
        // Halves with modifiers take another, slower function.
        let modded = matches!(ty, Ty::F16 | Ty::F16x2)
            && match i.opcode {
                "add" | "sub" | "mul" | "fma" => ftz || sat,
                "min" | "max" | "neg" | "abs" => ftz && !sat,
                _ => false,
            };
        macro_rules! modded_fn {
            ($op:ident) => {
                match ty {
                    Ty::F16 => Some(alu::<X1<narrow::Modded<fl::$op<F16>>>> as AluFn),
                    _ => Some(alu::<X2<narrow::Modded<fl::$op<F16>>>> as AluFn),
                }
            };
        }
        if modded {
            imm = if ftz { narrow::FTZ } else { 0 }
                | if sat { narrow::SAT } else { 0 }
                // `.NaN` of extremes is the same bit.
                | if relu || nan { narrow::RELU } else { 0 };
        }
        let f: Option<AluFn> = match (i.opcode, ty) {
            ("add", Ty::F32) => Some(f32_fn!(Add, ftz, sat)),
            ("sub", Ty::F32) => Some(f32_fn!(Sub, ftz, sat)),
            ("mul", Ty::F32) => Some(f32_fn!(Mul, ftz, sat)),
            ("fma" | "mad", Ty::F32) => Some(f32_fn!(Fma, ftz, sat)),
            ("div", Ty::F32) if full => Some(f32_fn!(DivFull, ftz, false)),
            ("div", Ty::F32) if approx => Some(f32_fn!(DivApprox, ftz, false)),
            ("div", Ty::F32) => Some(f32_fn!(Div, ftz, false)),
            ("min", Ty::F32) if ftz => Some(alu::<fl::MinF<true>>),
            ("min", Ty::F32) => Some(alu::<fl::MinF<false>>),
            ("max", Ty::F32) if ftz => Some(alu::<fl::MaxF<true>>),
            ("max", Ty::F32) => Some(alu::<fl::MaxF<false>>),
            ("neg", Ty::F32) if ftz => Some(alu::<fl::NegF<true>>),
            ("neg", Ty::F32) => Some(alu::<fl::NegF<false>>),
            ("abs", Ty::F32) if ftz => Some(alu::<fl::AbsF<true>>),
            ("abs", Ty::F32) => Some(alu::<fl::AbsF<false>>),
            ("add", Ty::F64) => Some(alu::<fl::AddD>),
            ("sub", Ty::F64) => Some(alu::<fl::SubD>),
            ("mul", Ty::F64) => Some(alu::<fl::MulD>),
            ("fma" | "mad", Ty::F64) => Some(alu::<fl::FmaD>),
            ("div", Ty::F64) => Some(alu::<fl::DivD>),
            ("min", Ty::F64) => Some(alu::<fl::MinD>),
            ("max", Ty::F64) => Some(alu::<fl::MaxD>),
            ("neg", Ty::F64) => Some(alu::<fl::NegD>),
            ("abs", Ty::F64) => Some(alu::<fl::AbsD>),
            ("add", _) if modded => modded_fn!(AddH),
            ("sub", _) if modded => modded_fn!(SubH),
            ("mul", _) if modded => modded_fn!(MulH),
            ("fma", _) if modded => modded_fn!(FmaH),
            ("min", _) if modded => modded_fn!(MinH),
            ("max", _) if modded => modded_fn!(MaxH),
            ("neg", _) if modded => modded_fn!(NegH),
            ("abs", _) if modded => modded_fn!(AbsH),
            ("add", _) if h => half_fn!(AddH, ty),
            ("sub", _) if h => half_fn!(SubH, ty),
            ("mul", _) if h => half_fn!(MulH, ty),
            ("fma", _) if h => {
                imm = relu.into();
                half_fn!(FmaH, ty)
            }
            ("min", _) if h => half_fn!(MinH, ty),
            ("max", _) if h => half_fn!(MaxH, ty),
            ("neg", _) if h => half_fn!(NegH, ty),
            ("abs", _) if h => half_fn!(AbsH, ty),
            _ if float => None,
            ("add", Ty::S32) if sat => Some(alu::<AddSatS32>),
            ("sub", Ty::S32) if sat => Some(alu::<SubSatS32>),
            _ => int_fn(i.opcode, ty, width),
        };
        let takes_sat = matches!(ty, Ty::F32) && !matches!(i.opcode, "min" | "max" | "div")
            || ty == Ty::S32 && matches!(i.opcode, "add" | "sub");
        let takes_sat = takes_sat || modded;
        let takes_ftz = ty == Ty::F32 || modded;
        let takes_nan = (ty == Ty::F32 || h) && matches!(i.opcode, "min" | "max");
        let takes_relu = h && i.opcode == "fma";
        let Some(f) = f else { return m.unknown() };
        if sat && !takes_sat || ftz && !takes_ftz || nan && !takes_nan || relu && !takes_relu {
            return m.unknown();
        }
        let n = match i.opcode {
            "mad" | "fma" | "sad" => 3,
            "abs" | "neg" => 1,
            _ => 2,
        };
        let a = self.args(i, n + 1..=n + 1)?;
        let wide = match (width, ty) {
            (Some('w'), Ty::U16 | Ty::S16) => Ty::B32,
            (Some('w'), _) => Ty::B64,
            _ => ty,
        };
        let mut o = [0; 5];
        for k in 1..=n {
            o[k] = self.src(&a[k], if k == 3 { wide } else { ty })?;
        }
        o[0] = self.dst(&a[0], wide)?;
        self.alu(f, o, imm);
        Ok(())
    }

    fn logic(&mut self, i: &'a Instr<'a>, m: &mut Mods<'a>) -> Result<()> {
        self.class = Class::Alu;
        let ty = m.ty()?;
        if ty == Ty::Pred {
            let code = match i.opcode {
                "and" => 0,
                "or" => 1,
                "xor" => 2,
                "not" => 3,
                _ => return m.unknown(),
            };
            let n = if code == 3 { 2 } else { 3 };
            let a = self.args(i, n..=n)?;
            let x = self.src(&a[1], ty)?;
            let y = if n == 3 { self.src(&a[2], ty)? } else { TRUE };
            let d = self.dst(&a[0], ty)?;
            self.alu(int::pred, [d, x, y, 0, 0], code);
            return Ok(());
        }
        let f = match (i.opcode, ty.bits(), ty.is_signed()) {
            ("and", 16 | 32, _) => alu::<And32> as AluFn,
            ("or", 16 | 32, _) => alu::<Or32>,
            ("xor", 16 | 32, _) => alu::<Xor32>,
            ("and", 64, _) => alu::<And64>,
            ("or", 64, _) => alu::<Or64>,
            ("xor", 64, _) => alu::<Xor64>,
            ("not", 16, _) => alu::<Not16>,
            ("not", 32, _) => alu::<Not32>,
            ("not", 64, _) => alu::<Not64>,
            ("cnot", 16 | 32, _) => alu::<CNot32>,
            ("cnot", 64, _) => alu::<CNot64>,
            ("shl", 16, _) => alu::<Shl16>,
            ("shl", 32, _) => alu::<Shl32>,
            ("shl", 64, _) => alu::<Shl64>,
            ("shr", 16, true) => alu::<ShrS16>,
            ("shr", 16 | 32, false) => alu::<ShrU32>,
            ("shr", 32, true) => alu::<ShrS32>,
            ("shr", 64, false) => alu::<ShrU64>,
            ("shr", 64, true) => alu::<ShrS64>,
            _ => return m.unknown(),
        };
        let n = if matches!(i.opcode, "not" | "cnot") { 1 } else { 2 };
        let a = self.args(i, n + 1..=n + 1)?;
        let second = if i.opcode.starts_with("sh") { Ty::B32 } else { ty };
        let x = self.src(&a[1], ty)?;
        let y = if n == 2 { self.src(&a[2], second)? } else { 0 };
        let d = self.dst(&a[0], ty)?;
        self.alu(f, [d, x, y, 0, 0], 0);
        Ok(())
    }

    fn bits(&mut self, i: &'a Instr<'a>, m: &mut Mods<'a>) -> Result<()> {
        self.class = Class::Alu;
        match i.opcode {
            "popc" | "clz" | "bfind" | "brev" => {
                let amount = m.flag("shiftamt");
                let ty = m.ty()?;
                let a = self.args(i, 2..=2)?;
                let (f, result) = match (i.opcode, ty) {
                    ("popc", Ty::B32) => (alu::<Popc32> as AluFn, Ty::B32),
                    ("popc", Ty::B64) => (alu::<Popc64> as AluFn, Ty::B32),
                    ("clz", Ty::B32) => (alu::<Clz32> as AluFn, Ty::B32),
                    ("clz", Ty::B64) => (alu::<Clz64> as AluFn, Ty::B32),
                    ("brev", Ty::B32) => (alu::<Brev32> as AluFn, Ty::B32),
                    ("brev", Ty::B64) => (alu::<Brev64> as AluFn, Ty::B64),
                    ("bfind", Ty::U32) => (alu::<BfindU32> as AluFn, Ty::B32),
                    ("bfind", Ty::S32) => (alu::<BfindS32> as AluFn, Ty::B32),
                    ("bfind", Ty::U64) => (alu::<BfindU64> as AluFn, Ty::B32),
                    ("bfind", Ty::S64) => (alu::<BfindS64> as AluFn, Ty::B32),
                    _ => return m.unknown(),
                };
                let x = self.src(&a[1], ty)?;
                let d = self.dst(&a[0], result)?;
                self.alu(f, [d, x, 0, 0, 0], amount.into());
            }
            "bfe" => {
                let ty = m.ty()?;
                let f = match ty {
                    Ty::U32 => alu::<BfeU32> as AluFn,
                    Ty::S32 => alu::<BfeS32>,
                    Ty::U64 => alu::<BfeU64>,
                    Ty::S64 => alu::<BfeS64>,
                    _ => return m.unknown(),
                };
                let a = self.args(i, 4..=4)?;
                let x = self.src(&a[1], ty)?;
                let (p, n) = (self.src(&a[2], Ty::U32)?, self.src(&a[3], Ty::U32)?);
                let d = self.dst(&a[0], ty)?;
                self.alu(f, [d, x, p, n, 0], 0);
            }
            "bfi" => {
                let ty = m.ty()?;
                let f: AluFn = match ty {
                    Ty::B32 => int::bfi32,
                    Ty::B64 => int::bfi64,
                    _ => return m.unknown(),
                };
                let a = self.args(i, 5..=5)?;
                let (x, y) = (self.src(&a[1], ty)?, self.src(&a[2], ty)?);
                let (p, n) = (self.src(&a[3], Ty::U32)?, self.src(&a[4], Ty::U32)?);
                let d = self.dst(&a[0], ty)?;
                self.alu(f, [d, x, y, p, n], 0);
            }
            "lop3" => {
                if m.ty()? != Ty::B32 {
                    return m.unknown();
                }
                let a = self.args(i, 5..=5)?;
                let lut = self.int_const(&a[4], "the table of lop3")?;
                self.three(alu::<Lop3>, a, Ty::B32, lut as u32 & 0xff)?;
            }
            "prmt" => {
                let ty = m.ty()?;
                let mode = m.pick(&[
                    ("f4e", 1u32),
                    ("b4e", 2),
                    ("rc8", 3),
                    ("ecl", 4),
                    ("ecr", 5),
                    ("rc16", 6),
                ]);
                if ty != Ty::B32 {
                    return m.unknown();
                }
                let a = self.args(i, 4..=4)?;
                self.three(alu::<Prmt>, a, Ty::B32, mode.unwrap_or(0))?;
            }
            "shf" => {
                let left = m.need(&[("l", true), ("r", false)])?;
                let wrap = m.need(&[("wrap", true), ("clamp", false)])?;
                if m.ty()? != Ty::B32 {
                    return m.unknown();
                }
                let f = match (left, wrap) {
                    (true, true) => alu::<ShfLWrap> as AluFn,
                    (true, false) => alu::<ShfLClamp>,
                    (false, true) => alu::<ShfRWrap>,
                    (false, false) => alu::<ShfRClamp>,
                };
                let a = self.args(i, 4..=4)?;
                self.three(f, a, Ty::B32, 0)?;
            }
            _ => {
                let (x, y) = (m.ty()?, m.ty()?);
                let sign = |t| match t {
                    Ty::U32 => Some(0u32),
                    Ty::S32 => Some(1),
                    _ => None,
                };
                let (Some(x), Some(y)) = (sign(x), sign(y)) else { return m.unknown() };
                let a = self.args(i, 4..=4)?;
                self.three(alu::<Dp4a>, a, Ty::B32, x | y << 1)?;
            }
        }
        Ok(())
    }

    pub(super) fn three(&mut self, f: AluFn, a: &'a [Operand<'a>], ty: Ty, imm: u32) -> Result<()> {
        let (x, y, z) = (self.src(&a[1], ty)?, self.src(&a[2], ty)?, self.src(&a[3], ty)?);
        let d = self.dst(&a[0], ty)?;
        self.alu(f, [d, x, y, z, 0], imm);
        Ok(())
    }

    fn special(&mut self, i: &'a Instr<'a>, m: &mut Mods<'a>) -> Result<()> {
        self.class = Class::Special;
        let approx = m.flag("approx");
        m.ignore(&["rn"]);
        let ftz = m.flag("ftz");
        let ty = m.ty()?;
        let f = match (i.opcode, ty) {
            ("ex2", Ty::F32) => f32_fn!(Ex2, ftz, false),
            ("lg2", Ty::F32) => f32_fn!(Lg2, ftz, false),
            ("rcp", Ty::F32) if approx => f32_fn!(RcpApprox, ftz, false),
            ("rcp", Ty::F32) => f32_fn!(Rcp, ftz, false),
            ("rsqrt", Ty::F32) => f32_fn!(Rsqrt, ftz, false),
            ("sqrt", Ty::F32) if approx => f32_fn!(SqrtApprox, ftz, false),
            ("sqrt", Ty::F32) => f32_fn!(Sqrt, ftz, false),
            ("sin", Ty::F32) => f32_fn!(Sin, ftz, false),
            ("cos", Ty::F32) => f32_fn!(Cos, ftz, false),
            ("tanh", Ty::F32) => f32_fn!(Tanh, ftz, false),
            ("rcp", Ty::F64) if approx && ftz => alu::<fl::RcpApproxD>,
            ("rsqrt", Ty::F64) if ftz => alu::<fl::RsqrtApproxD>,
            ("rcp", Ty::F64) if !ftz => alu::<fl::RcpD>,
            ("sqrt", Ty::F64) if !ftz => alu::<fl::SqrtD>,
            ("rsqrt", Ty::F64) if !ftz => alu::<fl::RsqrtD>,
            ("ex2", _) => match half_fn!(Ex2H, ty) {
                Some(f) => f,
                None => return m.unknown(),
            },
            ("tanh", _) if !ftz => match half_fn!(TanhH, ty) {
                Some(f) => f,
                None => return m.unknown(),
            },
            _ => return m.unknown(),
        };
        let a = self.args(i, 2..=2)?;
        let x = self.src(&a[1], ty)?;
        let d = self.dst(&a[0], ty)?;
        self.alu(f, [d, x, 0, 0, 0], 0);
        Ok(())
    }

    fn setp(&mut self, i: &'a Instr<'a>, m: &mut Mods<'a>) -> Result<()> {
        self.class = Class::Alu;
        let op = m.need(COMPARISONS)?;
        let join = m.pick(&[("and", JOIN_AND), ("or", JOIN_OR), ("xor", JOIN_XOR)]);
        let ftz = m.flag("ftz");
        let ty = m.ty()?;
        let pair = matches!(ty, Ty::F16x2 | Ty::Bf16x2);
        let f = if pair { narrow::pair_fn(op, ty, ftz) } else { compare_fn(op, ty, ftz, false) };
        let Some(f) = f else { return m.unknown() };
        let n = if join.is_some() { 4 } else { 3 };
        let a = self.args(i, n..=n)?;
        let (x, y) = (self.src(&a[1], ty)?, self.src(&a[2], ty)?);
        let (c, negated) = match join {
            Some(_) => self.pred_src(&a[3])?,
            None => (TRUE, false),
        };
        let (p, q) = match &a[0] {
            Operand::Pair(p, q) => (self.dst(p, Ty::Pred)?, self.dst(q, Ty::Pred)?),
            p => (self.dst(p, Ty::Pred)?, SINK),
        };
        let imm = join.unwrap_or(JOIN_AND) | if negated { JOIN_NEGATED } else { 0 };
        self.alu(f, [p, x, y, q, c], imm);
        Ok(())
    }

    fn cvt(&mut self, i: &'a Instr<'a>, m: &mut Mods<'a>) -> Result<()> {
        self.class = Class::Convert;
        let whole = m.pick(&[
            ("rni", Round::Nearest),
            ("rzi", Round::Zero),
            ("rmi", Round::Down),
            ("rpi", Round::Up),
        ]);
        let round = m.pick(&[
            ("rn", Round::Nearest),
            ("rz", Round::Zero),
            ("rm", Round::Down),
            ("rp", Round::Up),
        ]);
        let away = m.flag("rna");
        let (ftz, sat, relu) = (m.flag("ftz"), m.flag("sat"), m.flag("relu"));
        let satfinite = m.flag("satfinite");
        let (to, from) = (m.ty()?, m.ty()?);
        let plain = !sat && !ftz && !away && whole.is_none();
        let relus = if relu { narrow::RELU } else { 0 };
        let zero = match round {
            Some(Round::Zero) => narrow::ZERO,
            _ => 0,
        };
        let fp8 = |t: Ty| match t {
            Ty::E4m3x2 => Some(relus),
            Ty::E5m2x2 => Some(relus | narrow::E5M2),
            _ => None,
        };
        if let Some(imm) = fp8(to).or(fp8(from)) {
            if !plain || round != Some(Round::Nearest) || satfinite == fp8(from).is_some() {
                return m.unknown();
            }
            return match (to, from) {
                (_, Ty::F32) => {
                    let a = self.args(i, 3..=3)?;
                    let (x, y) = (self.src(&a[1], from)?, self.src(&a[2], from)?);
                    let d = self.dst(&a[0], Ty::B16)?;
                    self.alu(alu::<narrow::Fp8FromF32>, [d, x, y, 0, 0], imm);
                    Ok(())
                }
                (_, Ty::F16x2) => self.cvt_one(i, alu::<narrow::Fp8FromHalves>, to, from, imm),
                (Ty::F16x2, _) => self.cvt_one(i, alu::<narrow::HalvesFromFp8>, to, from, imm),
                _ => m.unknown(),
            };
        }
        let halves = matches!(to, Ty::F16 | Ty::Bf16 | Ty::F16x2 | Ty::Bf16x2) && from == Ty::F32;
        if satfinite && !(halves && plain) {
            return m.unknown();
        }
        let finite = if satfinite { narrow::FINITE } else { 0 };
        if to == Ty::Tf32 && from == Ty::F32 && plain && round.is_some() && (relu || zero != 0) {
            return self.cvt_one(i, alu::<narrow::Tf32With>, to, from, relus | zero);
        }
        if matches!(to, Ty::F16 | Ty::Bf16) && halves && plain && (relu || satfinite) {
            if !matches!(round, Some(Round::Nearest | Round::Zero)) {
                return m.unknown();
            }
            let half = if to == Ty::Bf16 { narrow::BF16 } else { 0 };
            return self.cvt_one(
                i,
                alu::<narrow::HalfWith>,
                to,
                from,
                relus | zero | half | finite,
            );
        }
        if matches!(to, Ty::F16x2 | Ty::Bf16x2) && halves && plain && (zero != 0 || satfinite) {
            if !matches!(round, Some(Round::Nearest | Round::Zero)) {
                return m.unknown();
            }
            let half = if to == Ty::Bf16x2 { narrow::BF16 } else { 0 };
            let a = self.args(i, 3..=3)?;
            let (x, y) = (self.src(&a[1], from)?, self.src(&a[2], from)?);
            let d = self.dst(&a[0], to)?;
            self.alu(alu::<narrow::PackWith>, [d, x, y, 0, 0], relus | zero | half | finite);
            return Ok(());
        }
        if to == Ty::Tf32 && from == Ty::F32 && !sat && !ftz {
            let f = match (away, round, relu) {
                (true, None, false) => alu::<fl::ToTf32Away> as AluFn,
                (false, Some(Round::Nearest), false) => alu::<fl::ToTf32Even>,
                _ => return m.unknown(),
            };
            return self.cvt_one(i, f, to, from, 0);
        }
        if let (Ty::Bf16x2 | Ty::F16x2, Ty::F32) = (to, from) {
            if round != Some(Round::Nearest) || sat || ftz || away || whole.is_some() {
                return m.unknown();
            }
            let f = if to == Ty::Bf16x2 {
                alu::<fl::PackH<Bf16>> as AluFn
            } else {
                alu::<fl::PackH<F16>>
            };
            let a = self.args(i, 3..=3)?;
            let (x, y) = (self.src(&a[1], from)?, self.src(&a[2], from)?);
            let d = self.dst(&a[0], to)?;
            self.alu(f, [d, x, y, 0, 0], relu.into());
            return Ok(());
        }
        let to_float = is_float(to);
        if away || relu || whole.is_some() && round.is_some() {
            return m.unknown();
        }
        if to_float && from.is_int() && round.is_none()
            || !to_float && is_float(from) && whole.is_none()
        {
            return self.error("this `cvt` wants a rounding, such as .rn or .rzi");
        }
        let rounding = whole.or(round).unwrap_or(Round::Nearest);
        let fast = match (from, to) {
            _ if sat => None,
            (Ty::F32, Ty::Bf16) if rounding == Round::Nearest => {
                Some(alu::<fl::ToH<Bf16>> as AluFn)
            }
            (Ty::F32, Ty::F16) if rounding == Round::Nearest && !ftz => {
                Some(alu::<fl::ToH<F16>> as AluFn)
            }
            (Ty::Bf16, Ty::F32) => Some(alu::<fl::Bf16ToF32> as AluFn),
            (Ty::F16, Ty::F32) if !ftz => Some(alu::<fl::FromH<F16>> as AluFn),
            (Ty::S32, Ty::F32) if rounding == Round::Nearest => Some(alu::<fl::S32ToF32> as AluFn),
            (Ty::U32, Ty::F32) if rounding == Round::Nearest => Some(alu::<fl::U32ToF32> as AluFn),
            (Ty::F32, Ty::S32) if !ftz => Some(match rounding {
                Round::Nearest => alu::<fl::F32ToS32Rn> as AluFn,
                Round::Zero => alu::<fl::F32ToS32Rz>,
                Round::Down => alu::<fl::F32ToS32Rm>,
                Round::Up => alu::<fl::F32ToS32Rp>,
            }),
            (Ty::F32, Ty::F32) if whole.is_none() => Some(f32_fn!(Id, ftz, false)),
            (Ty::F32, Ty::F64) if whole.is_none() && !ftz => Some(alu::<fl::F32ToF64> as AluFn),
            (Ty::F64, Ty::F32) if rounding == Round::Nearest && whole.is_none() && !ftz => {
                Some(alu::<fl::F64ToF32> as AluFn)
            }
            (f, t) if f.is_int() && t.is_int() => whole_fn(f, t),
            _ => None,
        };
        if let Some((f, imm)) = fast.map(|f| (f, 0)).or_else(|| keep_fn(from, to, sat)) {
            return self.cvt_one(i, f, to, from, imm);
        }
        let c = Cvt { from, to, round: rounding, whole: whole.is_some() && to_float, sat, ftz };
        let Some(imm) = c.pack() else { return m.unknown() };
        self.cvt_one(i, alu_cvt::cvt, to, from, imm)
    }

    pub(super) fn cvt_one(
        &mut self,
        i: &'a Instr<'a>,
        f: AluFn,
        to: Ty,
        from: Ty,
        imm: u32,
    ) -> Result<()> {
        let a = self.args(i, 2..=2)?;
        let x = self.loose_src(&a[1], from)?;
        let d = self.loose_dst(&a[0], to)?;
        self.alu(f, [d, x, 0, 0, 0], imm);
        // A wider register takes the sign.
        let wider = match &a[0] {
            Operand::Name(name) => self.find_reg(name).is_some_and(|r| r.ty.bits() == 32),
            _ => false,
        };
        if to == Ty::S16 && wider {
            self.alu(alu::<SignExtend16>, [d, d, 0, 0, 0], 0);
        }
        Ok(())
    }
}
