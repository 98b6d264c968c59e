//! `atom` and `red`.

use super::mem::SPACES;
use super::*;

impl<'a> Decoder<'a> {
    pub(super) fn atomic(&mut self, i: &'a Instr<'a>, m: &mut Mods<'a>) -> Result<()> {
        self.class = Class::Atomic;
        let strength = Self::strength(m, true);
        Self::hints(m);
        let space = m.pick(SPACES).unwrap_or(Space::Generic);
        if !matches!(space, Space::Generic | Space::Global | Space::Shared | Space::Cluster) {
            return m.unknown();
        }
        let op = m.need(&[
            ("add", AtomOp::Add),
            ("min", AtomOp::Min),
            ("max", AtomOp::Max),
            ("and", AtomOp::And),
            ("or", AtomOp::Or),
            ("xor", AtomOp::Xor),
            ("exch", AtomOp::Exch),
            ("cas", AtomOp::Cas),
            ("inc", AtomOp::Inc),
            ("dec", AtomOp::Dec),
        ])?;
        let n = m.pick(&[("v2", 2usize), ("v4", 4), ("v8", 8)]).unwrap_or(1);
        let ty = m.ty()?;
        if ty == Ty::B128 {
            let values = match op {
                AtomOp::Exch => 1,
                AtomOp::Cas => 2,
                _ => return m.unknown(),
            };
            if i.opcode != "atom" || n > 1 {
                return m.unknown();
            }
            let a = self.args(i, 2 + values..=3 + values)?;
            let (base, offset) = self.address(&a[1], space)?;
            let regs = self.atomic_wide(a, values)?;
            let extra = Extra::Atom { op, ty: AtomTy::U64, returns: true };
            self.push_wide(space, base, offset, regs, (strength, extra), Op::Atom);
            return Ok(());
        }
        let bitwise =
            matches!(op, AtomOp::And | AtomOp::Or | AtomOp::Xor | AtomOp::Exch | AtomOp::Cas);
        let element = match ty {
            Ty::U32 | Ty::B32 => AtomTy::U32,
            Ty::S32 => AtomTy::S32,
            Ty::U64 | Ty::B64 => AtomTy::U64,
            Ty::S64 => AtomTy::S64,
            Ty::F32 => AtomTy::F32,
            Ty::F64 => AtomTy::F64,
            Ty::F16 => AtomTy::F16,
            // As bits; only compare-and-swap has it.
            Ty::B16 if op == AtomOp::Cas => AtomTy::F16,
            Ty::Bf16 => AtomTy::Bf16,
            Ty::F16x2 => AtomTy::F16x2,
            Ty::Bf16x2 => AtomTy::Bf16x2,
            _ => return m.unknown(),
        };
        let half = matches!(element, AtomTy::F16 | AtomTy::Bf16 | AtomTy::F16x2 | AtomTy::Bf16x2);
        let float = half || matches!(element, AtomTy::F32 | AtomTy::F64);
        let legal = match op {
            AtomOp::Cas if ty == Ty::B16 => true,
            AtomOp::Add => true,
            AtomOp::Inc | AtomOp::Dec => ty == Ty::U32,
            _ if bitwise => !float,
            // Halves have extremes in vectors alone.
            AtomOp::Min | AtomOp::Max if half => n > 1,
            _ => !float,
        };
        let returns = i.opcode == "atom";
        if !legal || !returns && matches!(op, AtomOp::Exch | AtomOp::Cas) {
            return m.unknown();
        }
        // Vectors are of at most 16 bytes in global memory.
        let vector = matches!(space, Space::Generic | Space::Global)
            && n as u32 * ty.bytes() <= 16
            && (half || op == AtomOp::Add && element == AtomTy::F32);
        if n > 1 && !vector {
            return m.unknown();
        }
        let values = if op == AtomOp::Cas { 2 } else { 1 };
        let first = usize::from(returns);
        let a = self.args(i, first + 1 + values..=first + 2 + values)?;
        let (base, offset) = self.address(&a[first], space)?;
        let mut regs = Vec::new();
        if returns {
            if n > 1 {
                regs.extend(self.data(&a[0], n as u32, ty, true)?.0);
            } else {
                regs.push(self.loose_dst(&a[0], ty)?);
            }
        } else {
            regs.push(0);
        }
        if n > 1 {
            let (list, _) = self.data(&a[first + 1], n as u32, ty, false)?;
            regs.extend(list);
        } else {
            for v in &a[first + 1..first + 1 + values] {
                regs.push(self.src(v, ty)?);
            }
        }
        let mem = Mem {
            space,
            size: ty.bytes(),
            n: n as u32,
            signed: false,
            wide: ty.bits() == 64,
            base,
            offset,
            regs,
            strength,
            extra: Extra::Atom { op, ty: element, returns },
        };
        self.push_mem(mem, Op::Atom);
        Ok(())
    }
}
