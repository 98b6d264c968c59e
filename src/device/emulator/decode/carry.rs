//! Rarer instructions on whole numbers, see [`super::super::alu_carry`].

use super::super::alu_carry as rare;
use super::super::regs::{AluFn, alu};
use super::*;

impl<'a> Decoder<'a> {
    /// Decodes `i` if it is one of them.
    pub(super) fn rare_op(&mut self, i: &'a Instr<'a>, m: &mut Mods<'a>) -> Result<bool> {
        self.class = Class::Alu;
        match i.opcode {
            "add" | "sub" | "mad" if i.mods.contains(&"cc") => self.carry(i, m)?,
            "addc" | "subc" | "madc" => self.carry(i, m)?,
            "testp" => {
                let what = m.need(rare::TESTS)?;
                let ty = m.ty()?;
                let f: AluFn = match ty {
                    Ty::F32 => rare::testp32,
                    Ty::F64 => rare::testp64,
                    _ => return m.unknown(),
                };
                let a = self.args(i, 2..=2)?;
                let x = self.src(&a[1], ty)?;
                let p = self.dst(&a[0], Ty::Pred)?;
                self.alu(f, [p, x, 0, 0, 0], what);
            }
            "bmsk" | "szext" => {
                let clamp = m.need(&[("clamp", 1), ("wrap", 0)])?;
                let (f, imm) = match (i.opcode, m.ty()?) {
                    ("bmsk", Ty::B32) => (alu::<rare::Bmsk> as AluFn, clamp),
                    ("szext", Ty::U32) => (alu::<rare::Szext> as AluFn, clamp),
                    ("szext", Ty::S32) => (alu::<rare::Szext> as AluFn, clamp | 2),
                    _ => return m.unknown(),
                };
                let a = self.args(i, 3..=3)?;
                let (x, y) = (self.src(&a[1], Ty::B32)?, self.src(&a[2], Ty::B32)?);
                let d = self.dst(&a[0], Ty::B32)?;
                self.alu(f, [d, x, y, 0, 0], imm);
            }
            "fns" => {
                if m.ty()? != Ty::B32 {
                    return m.unknown();
                }
                let a = self.args(i, 4..=4)?;
                self.three(alu::<rare::Fns>, a, Ty::B32, 0)?;
            }
            "dp2a" => {
                let upper = m.need(&[("lo", 0), ("hi", 4)])?;
                let signs = [m.ty()?, m.ty()?].map(|t| match t {
                    Ty::U32 => Some(0u32),
                    Ty::S32 => Some(1),
                    _ => None,
                });
                let [Some(x), Some(y)] = signs else { return m.unknown() };
                let a = self.args(i, 4..=4)?;
                self.three(alu::<rare::Dp2a>, a, Ty::B32, x | y << 1 | upper)?;
            }
            "pmevent" => {
                let (most, what) = if m.flag("mask") {
                    (0xffff, "the mask of pmevent.mask")
                } else {
                    (15, "the event of pmevent")
                };
                let a = self.args(i, 1..=1)?;
                let n = self.int_const(&a[0], what)?;
                if n > most {
                    return self.error(format!("{what} is {n}; 0 to {most} is wanted"));
                }
                self.class = Class::Other;
                self.push(Op::Nop);
            }
            _ => {
                self.class = Class::Other;
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn carry(&mut self, i: &'a Instr<'a>, m: &mut Mods<'a>) -> Result<()> {
        let mut how = match i.opcode {
            "sub" | "subc" => rare::SUBTRACT,
            "mad" | "madc" => rare::PRODUCT | m.need(&[("lo", 0), ("hi", rare::HIGH)])?,
            _ => 0,
        };
        if i.opcode.ends_with('c') {
            how |= rare::CARRY_IN;
        }
        if m.flag("cc") {
            how |= rare::CARRY_OUT;
        }
        let ty = m.ty()?;
        if ty.is_signed() {
            how |= rare::SIGNED;
        }
        let f: AluFn = match ty {
            Ty::U32 | Ty::S32 => rare::carry::<u32>,
            Ty::U64 | Ty::S64 => rare::carry::<u64>,
            _ => return m.unknown(),
        };
        let sources = if how & rare::PRODUCT != 0 { 3 } else { 2 };
        let a = self.args(i, sources + 1..=sources + 1)?;
        let flag = self.carry_flag()?;
        if how & rare::CARRY_IN != 0 {
            self.now.reads.push(flag.id);
        }
        let mut o = [0; 5];
        for k in 1..=sources {
            o[k] = self.src(&a[k], ty)?;
        }
        o[0] = self.dst(&a[0], ty)?;
        if how & rare::CARRY_OUT != 0 {
            self.now.writes.push(flag.id);
        }
        o[4] = match flag.slot {
            Slot::P(slot) | Slot::R32(slot) | Slot::R64(slot) => slot,
        };
        self.alu(f, o, how);
        Ok(())
    }

    /// `CC.CF`, the carry of each lane: a register that no text declares.
    fn carry_flag(&mut self) -> Result<Reg> {
        const NAME: &str = "CC.CF";
        if let Some(flag) = self.scopes[0].regs.get(NAME) {
            return Ok(*flag);
        }
        let flag = Reg { slot: self.new_slot(1)?, ty: Ty::Pred, id: self.declared.len() as u32 };
        self.declared.push(Declared { name: NAME.into(), words: 0 });
        self.scopes[0].regs.insert(NAME.into(), flag);
        Ok(flag)
    }
}
