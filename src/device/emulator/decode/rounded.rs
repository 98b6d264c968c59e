//! Rarer arithmetic, see [`super::super::alu_directed`], `set`, and `lop3` with a predicate.

use super::super::alu_directed as rare;
use super::super::alu_int::{Lop3, Or32};
use super::super::alu_narrow as narrow;
use super::super::regs::{AluFn, JOIN_AND, JOIN_NEGATED, JOIN_OR, JOIN_XOR, alu, selp, setp};
use super::table::{COMPARISONS, compare_fn};
use super::*;

const ROUNDINGS: &[(&str, u32)] =
    &[("rz", rare::TOWARD_ZERO), ("rm", rare::DOWN), ("rp", rare::UP)];

/// `sad` and `mad` in rarer types.
fn rare_three(i: &Instr<'_>) -> Option<AluFn> {
    Some(match (i.opcode, i.mods.as_slice()) {
        ("sad", ["u16"]) => alu::<rare::SadU16>,
        ("sad", ["s16"]) => alu::<rare::SadS16>,
        ("sad", ["u64"]) => alu::<rare::SadU64>,
        ("sad", ["s64"]) => alu::<rare::SadS64>,
        ("mad", ["hi", "sat", "s32"]) => alu::<rare::MadHiSat>,
        ("mad", ["hi", "u64"]) => alu::<rare::MadHiU64>,
        ("mad", ["hi", "s64"]) => alu::<rare::MadHiS64>,
        _ => return None,
    })
}

impl<'a> Decoder<'a> {
    /// Decodes `i` if it is one of them.
    pub(super) fn rounded_op(&mut self, i: &'a Instr<'a>, m: &mut Mods<'a>) -> Result<bool> {
        let has = |name: &str| i.mods.contains(&name);
        let directed = has("rz") || has("rm") || has("rp");
        let pairs = has("u16x2") || has("s16x2");
        match i.opcode {
            "add" | "sub" | "mul" | "fma" | "mad" if directed && has("f32") => {
                self.directed(i, m)?
            }
            "div" | "rcp" | "sqrt" if directed && has("f32") => {
                self.class = Class::Special;
                let (n, f): (_, AluFn) = match i.opcode {
                    "div" => (3, alu::<rare::DirectedDiv>),
                    "rcp" => (2, alu::<rare::DirectedRcp>),
                    _ => (2, alu::<rare::DirectedSqrt>),
                };
                let round = m.need(ROUNDINGS)?;
                let ftz = if m.flag("ftz") { rare::FTZ } else { 0 };
                m.ty()?;
                let a = self.args(i, n..=n)?;
                let x = self.src(&a[1], Ty::F32)?;
                let y = if n == 3 { self.src(&a[2], Ty::F32)? } else { 0 };
                let d = self.dst(&a[0], Ty::F32)?;
                self.alu(f, [d, x, y, 0, 0], round | ftz);
            }
            "min" | "max" if has("xorsign") => self.xor_sign(i, m)?,
            "fma" if has("oob") => self.oob(i, m)?,
            "set" => self.set(i, m)?,
            "sad" | "mad" if rare_three(i).is_some() => {
                self.class = Class::Alu;
                m.ignore(&["hi", "sat"]);
                let ty = m.ty()?;
                let a = self.args(i, 4..=4)?;
                let Some(f) = rare_three(i) else { return m.unknown() };
                self.three(f, a, ty, 0)?;
            }
            "mad24" if has("sat") => {
                self.class = Class::Alu;
                if !(m.flag("hi") & m.flag("sat")) || m.ty()? != Ty::S32 {
                    return m.unknown();
                }
                let a = self.args(i, 4..=4)?;
                self.three(alu::<rare::Mad24HiSat>, a, Ty::B32, 0)?;
            }
            "cvt" if has("rna") && has("satfinite") => {
                self.class = Class::Convert;
                m.ignore(&["rna", "satfinite"]);
                if (m.ty()?, m.ty()?) != (Ty::Tf32, Ty::F32) {
                    return m.unknown();
                }
                self.cvt_one(i, alu::<rare::Tf32Finite>, Ty::Tf32, Ty::F32, 0)?;
            }
            "add" | "min" | "max" if pairs => self.pairs(i, m)?,
            "min" | "max" if has("relu") && has("s32") => {
                self.class = Class::Alu;
                m.flag("relu");
                m.ty()?;
                self.two(alu::<rare::Relu>, i, u32::from(i.opcode == "max"))?;
            }
            "cvt" if has("pack") => self.cvt_pack(i, m)?,
            "mul24" if has("hi") => {
                self.class = Class::Alu;
                m.flag("hi");
                let signed = self.whole(m)?;
                self.two(alu::<rare::Mul24Hi>, i, signed)?;
            }
            "mad24" => {
                self.class = Class::Alu;
                let f =
                    m.need(&[("lo", alu::<rare::Mad24Lo> as AluFn), ("hi", alu::<rare::Mad24Hi>)])?;
                let signed = self.whole(m)?;
                let a = self.args(i, 4..=4)?;
                self.three(f, a, Ty::B32, signed)?;
            }
            "lop3" if has("or") || has("and") || has("xor") => self.lop3(i, m)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// 1 for .s32, 0 for .u32.
    fn whole(&self, m: &mut Mods<'a>) -> Result<u32> {
        match m.ty()? {
            Ty::S32 => Ok(1),
            Ty::U32 => Ok(0),
            _ => m.unknown(),
        }
    }

    fn two(&mut self, f: AluFn, i: &'a Instr<'a>, imm: u32) -> Result<()> {
        let a = self.args(i, 3..=3)?;
        let (x, y) = (self.src(&a[1], Ty::B32)?, self.src(&a[2], Ty::B32)?);
        let d = self.dst(&a[0], Ty::B32)?;
        self.alu(f, [d, x, y, 0, 0], imm);
        Ok(())
    }

    fn directed(&mut self, i: &'a Instr<'a>, m: &mut Mods<'a>) -> Result<()> {
        self.class = Class::Fma;
        let op = match i.opcode {
            "add" => rare::ADD,
            "sub" => rare::SUB,
            "mul" => rare::MUL,
            _ => rare::FMA,
        };
        let round = m.need(ROUNDINGS)?;
        let ftz = if m.flag("ftz") { rare::FTZ } else { 0 };
        let sat = if m.flag("sat") { rare::SAT } else { 0 };
        m.ty()?;
        let n = if op == rare::FMA { 4 } else { 3 };
        let a = self.args(i, n..=n)?;
        let mut o = [0; 5];
        for k in 1..n {
            o[k] = self.src(&a[k], Ty::F32)?;
        }
        o[0] = self.dst(&a[0], Ty::F32)?;
        self.alu(alu::<rare::Directed>, o, op | round | ftz | sat);
        Ok(())
    }

    fn xor_sign(&mut self, i: &'a Instr<'a>, m: &mut Mods<'a>) -> Result<()> {
        self.class = Class::Alu;
        let form = m.flag("xorsign") & m.flag("abs");
        let nan = if m.flag("NaN") { 2 } else { 0 };
        let ftz = if m.flag("ftz") { 4 } else { 0 };
        let ty = m.ty()?;
        let half =
            rare::half_fn(ty, false).filter(|_| ftz == 0 || ty == Ty::F16 || ty == Ty::F16x2);
        let f = match ty {
            Ty::F32 => Some(alu::<rare::XorSign> as AluFn),
            _ => half,
        };
        let Some(f) = f.filter(|_| form) else { return m.unknown() };
        let imm = nan | ftz | u32::from(i.opcode == "max");
        let a = self.args(i, 3..=3)?;
        let (x, y) = (self.src(&a[1], ty)?, self.src(&a[2], ty)?);
        let d = self.dst(&a[0], ty)?;
        self.alu(f, [d, x, y, 0, 0], imm);
        Ok(())
    }

    fn oob(&mut self, i: &'a Instr<'a>, m: &mut Mods<'a>) -> Result<()> {
        self.class = Class::Fma;
        let form = m.flag("rn") & m.flag("oob");
        let relu = m.flag("relu");
        let ty = m.ty()?;
        let Some(f) = rare::half_fn(ty, true).filter(|_| form) else { return m.unknown() };
        let a = self.args(i, 4..=4)?;
        self.three(f, a, ty, relu.into())
    }

    /// `set`, its comparison joined with a predicate or not.
    fn set(&mut self, i: &'a Instr<'a>, m: &mut Mods<'a>) -> Result<()> {
        self.class = Class::Alu;
        let op = m.need(COMPARISONS)?;
        let join = m.pick(&[("and", JOIN_AND), ("or", JOIN_OR), ("xor", JOIN_XOR)]);
        let ftz = m.flag("ftz");
        let (result, ty) = (m.ty()?, m.ty()?);
        let pair = matches!(ty, Ty::F16x2 | Ty::Bf16x2);
        let yes = match result {
            Ty::U32 | Ty::S32 if pair => 0xffff,
            Ty::U32 | Ty::S32 => u32::MAX,
            Ty::U16 | Ty::S16 if matches!(ty, Ty::F16 | Ty::Bf16) => 0xffff,
            Ty::F32 if !pair => 1f32.to_bits(),
            Ty::F16 | Ty::F16x2 if result == ty => 0x3c00,
            Ty::Bf16 | Ty::Bf16x2 if result == ty => 0x3f80,
            _ => return m.unknown(),
        };
        let n = if join.is_some() { 4 } else { 3 };
        if join.is_none()
            && !pair
            && let Some(f) = compare_fn(op, ty, ftz, true)
        {
            let a = self.args(i, n..=n)?;
            let (x, y) = (self.src(&a[1], ty)?, self.src(&a[2], ty)?);
            let d = self.dst(&a[0], result)?;
            self.alu(f, [d, x, y, 0, 0], yes);
            return Ok(());
        }
        let f = if pair { narrow::pair_fn(op, ty, ftz) } else { compare_fn(op, ty, ftz, false) };
        let Some(f) = f else { return m.unknown() };
        let a = self.args(i, n..=n)?;
        let (x, y) = (self.src(&a[1], ty)?, self.src(&a[2], ty)?);
        let (c, negated) = match join {
            Some(_) => self.pred_src(&a[3])?,
            None => (TRUE, false),
        };
        let (p, q) = (self.predicate()?, if pair { self.predicate()? } else { SINK });
        let imm = join.unwrap_or(JOIN_AND) | if negated { JOIN_NEGATED } else { 0 };
        self.alu(f, [p, x, y, q, c], imm);
        let zero = self.constant(0, 32)?;
        let yes_low = self.constant(yes.into(), 32)?;
        let d = self.dst(&a[0], result)?;
        if !pair {
            self.alu(selp::<u32>, [d, yes_low, zero, p, 0], 0);
            return Ok(());
        }
        let yes_high = self.constant(u64::from(yes) << 16, 32)?;
        let Slot::R32(t) = self.new_slot(32)? else {
            return self.error("no temporary register");
        };
        self.alu(selp::<u32>, [t, yes_low, zero, p, 0], 0);
        self.alu(selp::<u32>, [d, yes_high, zero, q, 0], 0);
        self.alu(alu::<Or32>, [d, d, t, 0, 0], 0);
        Ok(())
    }

    /// A predicate of the emulator's own.
    fn predicate(&mut self) -> Result<u16> {
        match self.new_slot(1)? {
            Slot::P(p) => Ok(p),
            _ => self.error("no temporary predicate"),
        }
    }

    fn pairs(&mut self, i: &'a Instr<'a>, m: &mut Mods<'a>) -> Result<()> {
        self.class = Class::Alu;
        let signed = m.need(&[("u16x2", 0), ("s16x2", rare::PAIR_SIGNED)])?;
        let relu = if m.flag("relu") { rare::PAIR_RELU } else { 0 };
        let how = match i.opcode {
            "add" => 0,
            "min" => rare::PAIR_MIN,
            _ => rare::PAIR_MAX,
        };
        if relu != 0 && (signed == 0 || how == 0) {
            return m.unknown();
        }
        self.two(alu::<rare::Pair>, i, how | signed | relu)
    }

    fn cvt_pack(&mut self, i: &'a Instr<'a>, m: &mut Mods<'a>) -> Result<()> {
        self.class = Class::Convert;
        let form = m.flag("pack") & m.flag("sat");
        let above = m.flag("b32");
        let kind = m.need(&[
            ("u16", 16),
            ("s16", 16 | 64),
            ("u8", 8),
            ("s8", 8 | 64),
            ("u4", 4),
            ("s4", 4 | 64),
            ("u2", 2),
            ("s2", 2 | 64),
        ])?;
        // Whole words are packed two to a register; the narrower ones push what was there up.
        if !form || !m.flag("s32") || above == (kind & 16 != 0) {
            return m.unknown();
        }
        let n = if above { 4 } else { 3 };
        let a = self.args(i, n..=n)?;
        let (x, y) = (self.src(&a[1], Ty::B32)?, self.src(&a[2], Ty::B32)?);
        let z = if above { self.src(&a[3], Ty::B32)? } else { 0 };
        let d = self.dst(&a[0], Ty::B32)?;
        self.alu(alu::<rare::CvtPack>, [d, x, y, z, 0], kind | if above { 128 } else { 0 });
        Ok(())
    }

    /// `lop3.BoolOp.b32 d|p, a, b, c, table, q`: p is whether d is not zero, joined with q.
    fn lop3(&mut self, i: &'a Instr<'a>, m: &mut Mods<'a>) -> Result<()> {
        self.class = Class::Alu;
        let join = m.need(&[("or", JOIN_OR), ("and", JOIN_AND), ("xor", JOIN_XOR)])?;
        if join == JOIN_XOR || m.ty()? != Ty::B32 {
            return m.unknown();
        }
        let a = self.args(i, 6..=6)?;
        let Operand::Pair(d, p) = &a[0] else {
            return self.error("lop3 with a predicate has two destinations: d|p");
        };
        let table = self.int_const(&a[4], "the table of lop3")? as u32 & 0xff;
        let mut o = [0; 5];
        for k in 1..4 {
            o[k] = self.src(&a[k], Ty::B32)?;
        }
        let (q, negated) = self.pred_src(&a[5])?;
        if negated {
            return m.unknown();
        }
        let p = self.dst(p, Ty::Pred)?;
        let d = match &**d {
            Operand::Sink => None,
            d => Some(self.dst(d, Ty::B32)?),
        };
        // The result must not lie where an operand of the comparison does.
        let Slot::R32(t) = self.new_slot(32)? else {
            return self.error("no temporary register");
        };
        o[0] = t;
        self.alu(alu::<Lop3>, o, table);
        let zero = self.constant(0, 32)?;
        self.alu(setp::<NotEqual>, [p, t, zero, SINK, q], join);
        if let Some(d) = d {
            self.alu(alu::<super::super::alu_int::Mov32>, [d, t, 0, 0, 0], 0);
        }
        Ok(())
    }
}

/// Whether two words differ.
struct NotEqual;

impl super::super::regs::Compare for NotEqual {
    type A = u32;

    #[inline(always)]
    fn f(a: u32, b: u32) -> bool {
        a != b
    }
}
