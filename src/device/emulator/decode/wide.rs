//! Registers of 128 bits: two slots of 64, the lower half first. They are moved, loaded, stored,
//! exchanged and compared, and no more.

use super::super::alu_int::Mov64;
use super::super::regs::alu;
use super::*;

impl<'a> Decoder<'a> {
    /// The slots of a register of 128 bits.
    pub(super) fn quad(&mut self, o: &Operand<'_>, writes: bool) -> Result<[u16; 2]> {
        let Operand::Name(name) = o else {
            return self.error("a register of 128 bits is expected as this operand");
        };
        let Some(r) = self.find_reg(name) else {
            return self.error(format!("there is no register `{name}`"));
        };
        let (Slot::R64(low), Ty::B128) = (r.slot, r.ty) else {
            return self.error(format!("`{name}` has {} bits, but 128 are wanted", r.ty.bits()));
        };
        let uses = if writes { &mut self.now.writes } else { &mut self.now.reads };
        uses.push(r.id);
        Ok([low, low + 1])
    }

    /// `mov.b128`, between registers or to and from two halves.
    pub(super) fn mov_wide(&mut self, i: &'a Instr<'a>) -> Result<()> {
        let a = self.args(i, 2..=2)?;
        let halves = |parts: &'a [Operand<'a>], d: &Self| match parts {
            [low, high] => Ok([low, high]),
            _ => d.error("two halves of 64 bits are expected"),
        };
        let (mut from, mut to) = ([0; 2], [0; 2]);
        match &a[1] {
            Operand::Vector(parts) => {
                for (slot, part) in from.iter_mut().zip(halves(parts, self)?) {
                    *slot = self.src(part, Ty::B64)?;
                }
            }
            s => from = self.quad(s, false)?,
        }
        match &a[0] {
            Operand::Vector(parts) => {
                for (slot, part) in to.iter_mut().zip(halves(parts, self)?) {
                    *slot = self.dst(part, Ty::B64)?;
                }
            }
            d => to = self.quad(d, true)?,
        }
        for (d, s) in to.into_iter().zip(from) {
            self.alu(alu::<Mov64>, [d, s, 0, 0, 0], 0);
        }
        Ok(())
    }

    /// `atom.exch.b128`, `atom.cas.b128`: the slots of all operands, by halves.
    pub(super) fn atomic_wide(&mut self, a: &'a [Operand<'a>], values: usize) -> Result<Vec<u16>> {
        let mut regs = Vec::new();
        regs.extend(match &a[0] {
            Operand::Sink => [0; 2],
            d => self.quad(d, true)?,
        });
        for v in &a[2..2 + values] {
            regs.extend(self.quad(v, false)?);
        }
        Ok(regs)
    }
}
