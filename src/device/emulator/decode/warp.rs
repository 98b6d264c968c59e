//! Control flow, barriers, warp-wide exchange and matrix products.

use super::super::tensor;
use super::super::warpwide::{self as wide, CollectiveFn};
use super::*;

impl<'a> Decoder<'a> {
    pub(super) fn warp_op(&mut self, i: &'a Instr<'a>, m: &mut Mods<'a>) -> Result<bool> {
        match i.opcode {
            "bra" => {
                self.class = Class::Branch;
                m.flag("uni");
                let a = self.args(i, 1..=1)?;
                let Operand::Name(name) = &a[0] else {
                    return self.error("`bra` wants a label");
                };
                let label = self.label(name)?;
                self.push(Op::Bra(label));
            }
            "exit" | "ret" => {
                self.class = Class::Branch;
                m.flag("uni");
                self.args(i, 0..=0)?;
                self.push(Op::Exit);
            }
            "trap" | "brkpt" => self.push(Op::Trap),
            "barrier" if i.mods.first() == Some(&"cluster") => return Ok(false),
            "bar" | "barrier" => self.barrier(i, m)?,
            "nanosleep" | "griddepcontrol" => {
                m.ignore(&["u32", "launch_dependents", "wait"]);
                self.push(Op::Nop);
            }
            "shfl" => self.shfl(i, m)?,
            "vote" => self.vote(i, m)?,
            "match" => self.matching(i, m)?,
            "redux" => self.redux(i, m)?,
            "elect" => {
                self.class = Class::Vote;
                self.sync(m)?;
                let a = self.args(i, 2..=2)?;
                let member = self.src(&a[1], Ty::B32)?;
                let Operand::Pair(d, p) = &a[0] else {
                    return self.error("`elect` wants `lane|predicate`");
                };
                let d = self.dst(d, Ty::B32)?;
                let p = self.dst(p, Ty::Pred)?;
                self.collective(wide::elect, [d, p, 0, 0, 0], 0, member);
            }
            "activemask" => {
                self.class = Class::Vote;
                if m.ty()? != Ty::B32 {
                    return m.unknown();
                }
                let a = self.args(i, 1..=1)?;
                let d = self.dst(&a[0], Ty::B32)?;
                self.alu(wide::activemask, [d, 0, 0, 0, 0], 0);
            }
            "movmatrix" => {
                self.class = Class::Shuffle;
                let form = m.flag("sync") & m.flag("aligned") & m.flag("m8n8") & m.flag("trans");
                if !form || m.ty()? != Ty::B16 {
                    return m.unknown();
                }
                let a = self.args(i, 2..=2)?;
                let x = self.src(&a[1], Ty::B32)?;
                let d = self.dst(&a[0], Ty::B32)?;
                let all = self.constant(u32::MAX.into(), 32)?;
                self.collective(wide::movmatrix, [d, x, 0, 0, 0], 0, all);
            }
            "mma" => self.mma(i, m)?,
            "wgmma" => self.wgmma(i, m)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn sync(&self, m: &mut Mods<'a>) -> Result<()> {
        if m.flag("sync") { Ok(()) } else { m.unknown() }
    }

    fn collective(&mut self, f: CollectiveFn, o: [u16; 5], imm: u32, member: u16) {
        self.push(Op::Collective(f, Slots { o, imm }, member));
    }

    fn barrier(&mut self, i: &'a Instr<'a>, m: &mut Mods<'a>) -> Result<()> {
        self.class = Class::Barrier;
        let spelled = m.flag("aligned");
        m.flag("cta");
        if m.flag("warp") {
            self.sync(m)?;
            let a = self.args(i, 1..=1)?;
            let member = self.src(&a[0], Ty::B32)?;
            self.collective(wide::warp_sync, [0; 5], 0, member);
            return Ok(());
        }
        let aligned = i.opcode == "bar" || spelled;
        let kind = m.need(&[("sync", 0), ("arrive", 1), ("red", 2)])?;
        let mut first = 0;
        let mut reduce = None;
        let mut trailing = 0;
        if kind == 2 {
            let op = m.need(&[("and", Reduce::And), ("or", Reduce::Or), ("popc", Reduce::Popc)])?;
            let ty = if op == Reduce::Popc { Ty::U32 } else { Ty::Pred };
            if m.ty()? != ty {
                return m.unknown();
            }
            let a = self.args(i, 3..=4)?;
            let (p, negated) = self.pred_src(&a[a.len() - 1])?;
            let d = self.dst(&a[0], ty)?;
            reduce = Some((op, p << 1 | u16::from(negated), d));
            first = 1;
            trailing = 1;
        }
        let a = self.args(i, first + 1 + trailing..=first + 2 + trailing)?;
        let id = self.src(&a[first], Ty::U32)?;
        let count = if a.len() == first + 2 + trailing {
            self.src(&a[first + 1], Ty::U32)?
        } else if kind == 1 {
            return self.error("`bar.arrive` wants a count of threads");
        } else {
            UNGUARDED
        };
        self.push(Op::Bar(Bar { id, count, arrive: kind == 1, aligned, reduce }));
        Ok(())
    }

    fn shfl(&mut self, i: &'a Instr<'a>, m: &mut Mods<'a>) -> Result<()> {
        self.class = Class::Shuffle;
        self.sync(m)?;
        let mode = m.need(&[("up", 0), ("down", 1), ("bfly", 2), ("idx", 3)])?;
        if m.ty()?.bits() != 32 {
            return m.unknown();
        }
        let a = self.args(i, 5..=5)?;
        let x = self.src(&a[1], Ty::B32)?;
        let (b, c) = (self.src(&a[2], Ty::B32)?, self.src(&a[3], Ty::B32)?);
        let member = self.src(&a[4], Ty::B32)?;
        let (d, p) = match &a[0] {
            Operand::Pair(d, p) => (self.dst(d, Ty::B32)?, self.dst(p, Ty::Pred)?),
            d => (self.dst(d, Ty::B32)?, SINK),
        };
        self.collective(wide::shfl, [d, x, b, c, p], mode, member);
        Ok(())
    }

    fn vote(&mut self, i: &'a Instr<'a>, m: &mut Mods<'a>) -> Result<()> {
        self.class = Class::Vote;
        self.sync(m)?;
        let mode = m.need(&[("all", 0), ("any", 1), ("uni", 2), ("ballot", 3)])?;
        let ty = if mode == 3 { Ty::B32 } else { Ty::Pred };
        if m.ty()? != ty {
            return m.unknown();
        }
        let a = self.args(i, 3..=3)?;
        let (p, negated) = self.pred_src(&a[1])?;
        let member = self.src(&a[2], Ty::B32)?;
        let d = self.dst(&a[0], ty)?;
        self.collective(wide::vote, [d, p, 0, 0, 0], mode | u32::from(negated) << 2, member);
        Ok(())
    }

    fn matching(&mut self, i: &'a Instr<'a>, m: &mut Mods<'a>) -> Result<()> {
        self.class = Class::Vote;
        let all = m.need(&[("any", false), ("all", true)])?;
        self.sync(m)?;
        let ty = m.ty()?;
        let long = match ty {
            Ty::B32 => false,
            Ty::B64 => true,
            _ => return m.unknown(),
        };
        let a = self.args(i, 3..=3)?;
        let x = self.src(&a[1], ty)?;
        let member = self.src(&a[2], Ty::B32)?;
        let (d, p) = match &a[0] {
            Operand::Pair(d, p) if all => (self.dst(d, Ty::B32)?, self.dst(p, Ty::Pred)?),
            d => (self.dst(d, Ty::B32)?, SINK),
        };
        let imm = u32::from(all) | u32::from(long) << 1;
        self.collective(wide::matching, [d, x, p, 0, 0], imm, member);
        Ok(())
    }

    fn redux(&mut self, i: &'a Instr<'a>, m: &mut Mods<'a>) -> Result<()> {
        self.class = Class::Shuffle;
        self.sync(m)?;
        let op =
            m.need(&[("add", 0), ("min", 1), ("max", 2), ("and", 3), ("or", 4), ("xor", 5)])?;
        let ty = m.ty()?;
        let signed = match ty {
            Ty::U32 | Ty::B32 => 0,
            Ty::S32 => 8,
            _ => return m.unknown(),
        };
        let a = self.args(i, 3..=3)?;
        let x = self.src(&a[1], ty)?;
        let member = self.src(&a[2], Ty::B32)?;
        let d = self.dst(&a[0], ty)?;
        self.collective(wide::redux, [d, x, 0, 0, 0], op | signed, member);
        Ok(())
    }

    fn mma(&mut self, i: &'a Instr<'a>, m: &mut Mods<'a>) -> Result<()> {
        self.class = Class::Mma;
        let form = m.flag("sync") & m.flag("aligned");
        let (rows, k) = m.need(&[
            ("m16n8k4", (16, 4u32)),
            ("m16n8k8", (16, 8)),
            ("m16n8k16", (16, 16)),
            ("m16n8k32", (16, 32)),
            ("m8n8k16", (8, 16)),
        ])?;
        let form = form & m.flag("row") & m.flag("col");
        let saturate = m.flag("satfinite");
        let [d, a, b, c] = [m.ty()?, m.ty()?, m.ty()?, m.ty()?];
        let whole = d == Ty::S32;
        if !form || !whole && (a != b || saturate || rows == 8) || c != d {
            return m.unknown();
        }
        let shape = if whole {
            tensor::whole::shape(rows, k, [a, b], saturate).map(tensor::Shape::from)
        } else {
            tensor::shape(k, a, c)
        };
        let Some(shape) = shape else { return m.unknown() };
        let args = self.args(i, 4..=4)?;
        let mut slots = Vec::new();
        for (o, n, writes) in [
            (&args[0], shape.c, true),
            (&args[1], shape.a, false),
            (&args[2], shape.b, false),
            (&args[3], shape.c, false),
        ] {
            let Operand::Vector(list) = o else {
                return self.error("the operands of mma are vectors in braces");
            };
            if list.len() != n {
                return self
                    .error(format!("this operand of mma has {n} registers, not {}", list.len()));
            }
            for r in list {
                slots.push(if writes { self.dst(r, Ty::B32)? } else { self.src(r, Ty::B32)? });
            }
        }
        let at = self.pool.len() as u32;
        self.pool.extend(slots);
        self.push(Op::Mma(shape.f, at));
        Ok(())
    }
}
