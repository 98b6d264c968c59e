//! Loads, stores, atomics, asynchronous copies and matrix loads.

use super::super::alu_int::{Add64, Mov64};
use super::super::memory::{LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW};
use super::super::regs::alu;
use super::super::warpwide;
use super::*;

pub(super) const SPACES: &[(&str, Space)] = &[
    ("global", Space::Global),
    ("shared", Space::Shared),
    ("shared::cta", Space::Shared),
    ("shared::cluster", Space::Cluster),
    ("local", Space::Local),
    ("param", Space::Param),
    ("param::entry", Space::Param),
    ("const", Space::Const),
];

/// Orderings, scopes and cache operators: all accesses are performed in order here.
const ORDER: &[&str] = &[
    "weak", "relaxed", "acquire", "release", "acq_rel", "volatile", "mmio", "cta", "gpu", "sys",
    "cluster", "ca", "cg", "cs", "lu", "cv", "wb", "wt", "nc", "noftz",
];

impl<'a> Decoder<'a> {
    /// Decodes `i` if it accesses memory.
    pub(super) fn mem_op(&mut self, i: &'a Instr<'a>, m: &mut Mods<'a>) -> Result<bool> {
        match i.opcode {
            "st" | "red" if i.mods.first() == Some(&"async") => return Ok(false),
            "ld" | "ldu" => self.load(i, m)?,
            "st" => self.store(i, m)?,
            "atom" | "red" => self.atomic(i, m)?,
            "cp" => return self.copy(i, m),
            "ldmatrix" | "stmatrix" => self.matrix(i, m)?,
            "cvta" => self.cvta(i, m)?,
            "isspacep" => {
                self.class = Class::Alu;
                let space = m.need(SPACES)?;
                let a = self.args(i, 2..=2)?;
                let x = self.src(&a[1], Ty::U64)?;
                let d = self.dst(&a[0], Ty::Pred)?;
                let rank = self.preset(Preset::ClusterCtarank, 32)?;
                self.alu(warpwide::isspacep, [d, x, rank, 0, 0], space as u32);
            }
            "prefetch" if i.mods.contains(&"tensormap") => return Ok(false),
            "prefetch" | "prefetchu" | "discard" | "applypriority" => {
                let n = i.mods.len();
                for _ in 0..n {
                    m.prefixed("");
                }
            }
            "createpolicy" => {
                for _ in 0..i.mods.len() {
                    m.prefixed("");
                }
                let Some(d) = i.operands.first() else { return m.unknown() };
                let d = self.dst(d, Ty::B64)?;
                let zero = self.constant(0, 64)?;
                self.class = Class::Move;
                self.alu(alu::<Mov64>, [d, zero, 0, 0, 0], 0);
                return Ok(true);
            }
            _ => return Ok(false),
        }
        if matches!(i.opcode, "prefetch" | "prefetchu" | "discard" | "applypriority") {
            self.push(Op::Nop);
        }
        Ok(true)
    }

    /// Base and constant offset of `[..]`.
    pub(super) fn address(&mut self, o: &Operand<'_>, space: Space) -> Result<(Base, i64)> {
        let Operand::Addr { base, offset, coords } = o else {
            return self.error("an address in brackets is expected as this operand");
        };
        if !coords.is_empty() {
            return self.error("tensor coordinates do not belong here");
        }
        self.place(*base, *offset, space)
    }

    /// Base and constant offset of what stands in brackets.
    pub(super) fn place(
        &mut self,
        base: Option<&str>,
        offset: i64,
        space: Space,
    ) -> Result<(Base, i64)> {
        let Some(name) = base else { return Ok((Base::None, offset)) };
        if self.find_reg(name).is_some() {
            let r = self.read(name)?;
            return match r.slot {
                Slot::R64(s) => Ok((Base::R64(s), offset)),
                Slot::R32(s)
                    if r.ty.bits() == 32 && !matches!(space, Space::Global | Space::Generic) =>
                {
                    Ok((Base::R32(s), offset))
                }
                _ => self.error(format!(
                    "`{name}` has {} bits; a {} address wants 64",
                    r.ty.bits(),
                    space.name()
                )),
            };
        }
        let Some(symbol) = self.find_symbol(name)? else {
            return self.error(format!("`{name}` is neither a register nor a variable"));
        };
        let (home, base, at) = match symbol {
            Symbol::Shared(at) => (Space::Shared, Base::None, at as i64),
            Symbol::ExternShared => {
                (Space::Shared, Base::R32(self.preset(Preset::ExternShared(0), 32)?), 0)
            }
            Symbol::Local(at) => (Space::Local, Base::None, at as i64),
            Symbol::Param(at) => (Space::Param, Base::None, at.into()),
            Symbol::Global(at) => (Space::Global, Base::None, at as i64),
        };
        let same = home == space
            || home == Space::Global && space == Space::Const
            || home == Space::Shared && space == Space::Cluster;
        if !same {
            return self.error(format!(
                "`{name}` lives in .{} memory, but the access is to .{}",
                home.name(),
                space.name()
            ));
        }
        Ok((base, at.wrapping_add(offset)))
    }

    /// Slot of a register that may be wider than `ty`, and whether it has 64 bits.
    fn loose(&self, name: &str, r: Reg, ty: Ty) -> Result<(u16, bool)> {
        match r.slot {
            Slot::R64(_) if r.ty == Ty::B128 => {
                self.error(format!("`{name}` has 128 bits, too many for .b{}", ty.bits()))
            }
            Slot::R32(s) if r.ty.bits() >= ty.bits() => Ok((s, false)),
            Slot::R64(s) => Ok((s, true)),
            _ => self.error(format!(
                "`{name}` has {} bits, too few for .b{}",
                r.ty.bits(),
                ty.bits()
            )),
        }
    }

    /// As [`Decoder::src`], but a register may be wider, within its file.
    pub(super) fn loose_src(&mut self, o: &Operand<'_>, ty: Ty) -> Result<u16> {
        if let Operand::Name(name) = o
            && self.find_reg(name).is_some()
        {
            let r = self.read(name)?;
            let (slot, wide) = self.loose(name, r, ty)?;
            if wide != (ty.bits() == 64) {
                return self.error(format!("`{name}` has 64 bits, but this operand {}", ty.bits()));
            }
            return Ok(slot);
        }
        self.src(o, ty)
    }

    pub(super) fn loose_dst(&mut self, o: &Operand<'_>, ty: Ty) -> Result<u16> {
        if let Operand::Name(name) = o
            && let Some(r) = self.find_reg(name)
        {
            let (slot, wide) = self.loose(name, r, ty)?;
            if wide != (ty.bits() == 64) {
                return self.error(format!("`{name}` has 64 bits, but this operand {}", ty.bits()));
            }
            self.now.writes.push(r.id);
            return Ok(slot);
        }
        self.dst(o, ty)
    }

    /// The registers of a load (`writes`) or store, and whether they have 64 bits.
    pub(super) fn data(
        &mut self,
        o: &Operand<'_>,
        n: u32,
        ty: Ty,
        writes: bool,
    ) -> Result<(Vec<u16>, bool)> {
        let one;
        let list: &[Operand<'_>] = match o {
            Operand::Vector(list) => list,
            o => {
                one = [o.clone()];
                &one
            }
        };
        if list.len() != n as usize {
            return self.error(format!("{n} registers are expected, not {}", list.len()));
        }
        let (mut slots, mut width) = (Vec::new(), None);
        for o in list {
            let (slot, wide) = match o {
                Operand::Name(name) if self.find_reg(name).is_some() => {
                    let r = self.find_reg(name).unwrap_or(Reg { slot: Slot::P(0), ty, id: 0 });
                    let uses = if writes { &mut self.now.writes } else { &mut self.now.reads };
                    uses.push(r.id);
                    self.loose(name, r, ty)?
                }
                Operand::Sink if writes => {
                    slots.push(0);
                    continue;
                }
                o if writes => (self.dst(o, ty)?, ty.bits() == 64),
                o => (self.src(o, ty)?, ty.bits() == 64),
            };
            if *width.get_or_insert(wide) != wide {
                return self.error("the registers of one access must have one width");
            }
            slots.push(slot);
        }
        Ok((slots, width.unwrap_or(ty.bits() == 64)))
    }

    /// Semantics and scope; to be asked before [`Decoder::hints`].
    pub(super) fn strength(m: &mut Mods<'a>, atomic: bool) -> Strength {
        let (acquire, release) = (m.flag("acquire"), m.flag("release"));
        let both = m.flag("acq_rel");
        let weak = m.flag("relaxed") | m.flag("volatile") | m.flag("mmio");
        Strength {
            strong: atomic || acquire || release || both || weak,
            acquire: acquire || both,
            release: release || both,
            near: m.flag("cta"),
        }
    }

    pub(super) fn hints(m: &mut Mods<'a>) -> bool {
        let mut hint = false;
        m.ignore(ORDER);
        while let Some(rest) = m.prefixed("L1::").or_else(|| m.prefixed("L2::")) {
            hint |= rest == "cache_hint";
        }
        hint
    }

    /// An access of 128 bits.
    pub(super) fn push_wide(
        &mut self,
        space: Space,
        base: Base,
        offset: i64,
        regs: Vec<u16>,
        (strength, extra): (Strength, Extra),
        op: fn(u32) -> Op,
    ) {
        let (signed, wide) = (false, true);
        let mem = Mem { space, size: 8, n: 2, signed, wide, base, offset, regs, strength, extra };
        self.push_mem(mem, op);
    }

    pub(super) fn push_mem(&mut self, mem: Mem, op: fn(u32) -> Op) {
        self.mems.push(mem);
        self.push(op(self.mems.len() as u32 - 1));
    }

    fn element(&self, ty: Ty, m: &Mods<'a>) -> Result<u32> {
        match ty.bits() {
            8 | 16 | 32 | 64 => Ok(ty.bytes()),
            _ => m.unknown(),
        }
    }

    fn load(&mut self, i: &'a Instr<'a>, m: &mut Mods<'a>) -> Result<()> {
        let strength = Self::strength(m, false);
        let hint = Self::hints(m);
        let space = m.pick(SPACES).unwrap_or(Space::Generic);
        let n = m.pick(&[("v2", 2), ("v4", 4), ("v8", 8)]).unwrap_or(1);
        let ty = m.ty()?;
        let size = if ty == Ty::B128 { 8 } else { self.element(ty, m)? };
        if size * n > 32 || ty == Ty::B128 && n > 1 {
            return m.unknown();
        }
        let a = self.args(i, 2..=if hint { 3 } else { 2 })?;
        self.class = match space {
            Space::Shared | Space::Cluster => Class::LoadShared,
            Space::Local => Class::LoadLocal,
            Space::Param | Space::Const => Class::LoadConst,
            Space::Global | Space::Generic => Class::LoadGlobal,
        };
        let (base, offset) = self.address(&a[1], space)?;
        if ty == Ty::B128 {
            let regs = self.quad(&a[0], true)?.to_vec();
            self.push_wide(space, base, offset, regs, (strength, Extra::None), Op::Ld);
            return Ok(());
        }
        let (regs, wide) = self.data(&a[0], n, ty, true)?;
        let extra = Extra::None;
        // Registers of 16 bits keep their upper half clear, so that only wider ones extend.
        let signed = ty.is_signed() && ty.bits() < 32;
        let first = match &a[0] {
            Operand::Vector(list) => &list[0],
            o => o,
        };
        let narrow = match first {
            Operand::Name(name) => self.find_reg(name).is_some_and(|r| r.ty.bits() <= 16),
            _ => false,
        };
        if signed && narrow && ty.bits() < 16 {
            return m.unknown();
        }
        let signed = signed && !narrow || ty == Ty::S32 && wide;
        let mem = Mem { space, size, n, signed, wide, base, offset, regs, strength, extra };
        self.push_mem(mem, Op::Ld);
        Ok(())
    }

    fn store(&mut self, i: &'a Instr<'a>, m: &mut Mods<'a>) -> Result<()> {
        let strength = Self::strength(m, false);
        let hint = Self::hints(m);
        let space = m.pick(SPACES).unwrap_or(Space::Generic);
        let n = m.pick(&[("v2", 2), ("v4", 4), ("v8", 8)]).unwrap_or(1);
        let ty = m.ty()?;
        let size = if ty == Ty::B128 { 8 } else { self.element(ty, m)? };
        if size * n > 32 || ty == Ty::B128 && n > 1 || matches!(space, Space::Param | Space::Const)
        {
            return m.unknown();
        }
        let a = self.args(i, 2..=if hint { 3 } else { 2 })?;
        self.class = match space {
            Space::Shared | Space::Cluster => Class::StoreShared,
            Space::Local => Class::StoreLocal,
            _ => Class::StoreGlobal,
        };
        let (base, offset) = self.address(&a[0], space)?;
        if ty == Ty::B128 {
            let regs = self.quad(&a[1], false)?.to_vec();
            self.push_wide(space, base, offset, regs, (strength, Extra::None), Op::St);
            return Ok(());
        }
        let (regs, wide) = self.data(&a[1], n, ty, false)?;
        let extra = Extra::None;
        let mem = Mem { space, size, n, signed: false, wide, base, offset, regs, strength, extra };
        self.push_mem(mem, Op::St);
        Ok(())
    }

    /// `cp.async...`
    fn copy(&mut self, i: &'a Instr<'a>, m: &mut Mods<'a>) -> Result<bool> {
        if i.mods.first() != Some(&"async") || matches!(i.mods.get(1), Some(&("bulk" | "mbarrier")))
        {
            return Ok(false);
        }
        m.flag("async");
        self.class = Class::CpAsync;
        if m.flag("commit_group") {
            self.args(i, 0..=0)?;
            self.push(Op::CommitGroup);
            return Ok(true);
        }
        if m.flag("wait_all") {
            self.args(i, 0..=0)?;
            self.push(Op::WaitAll);
            return Ok(true);
        }
        if m.flag("wait_group") {
            let a = self.args(i, 1..=1)?;
            let n = self.int_const(&a[0], "the number of groups")?;
            self.push(Op::WaitGroup(n.min(u32::MAX.into()) as u32));
            return Ok(true);
        }
        let bypass = m.need(&[("ca", false), ("cg", true)])?;
        let mut hint = false;
        while let Some(rest) = m.prefixed("L2::") {
            hint |= rest == "cache_hint";
        }
        if m.pick(SPACES) != Some(Space::Shared) || m.pick(SPACES) != Some(Space::Global) {
            return self.error("cp.async copies from .global to .shared");
        }
        let most = 4 + usize::from(hint);
        let a = self.args(i, 3..=most)?;
        let size = self.int_const(&a[2], "the size of cp.async")?;
        if !(size == 16 || !bypass && matches!(size, 4 | 8)) {
            return self.error(format!("cp.async cannot copy {size} bytes"));
        }
        let (base, offset) = self.address(&a[0], Space::Shared)?;
        let (from, from_offset) = self.address(&a[1], Space::Global)?;
        let (mut bytes, mut ignore) = (None, None);
        // The fourth operand is the source size, the predicate, or the cache policy.
        if let Some(o) = a.get(3)
            && !(hint && a.len() == 4)
        {
            let is_pred = match o {
                Operand::Not(_) => true,
                Operand::Name(name) => self.find_reg(name).is_some_and(|r| r.ty == Ty::Pred),
                _ => false,
            };
            if is_pred {
                let (p, negated) = self.pred_src(o)?;
                ignore = Some(p << 1 | u16::from(negated));
            } else {
                bytes = Some(self.src(o, Ty::U32)?);
            }
        }
        let mem = Mem {
            space: Space::Shared,
            size: size as u32,
            n: 1,
            signed: false,
            wide: false,
            base,
            offset,
            regs: Vec::new(),
            strength: Strength::default(),
            extra: Extra::CpAsync { from, offset: from_offset, bytes, ignore },
        };
        self.push_mem(mem, Op::CpAsync);
        Ok(true)
    }

    /// A generic address of shared memory as an address in it.
    fn generic_shared(&mut self, o: &Operand<'_>) -> Result<(Base, i64)> {
        let (base, offset) = self.address(o, Space::Generic)?;
        let Base::R64(from) = base else {
            return self.error("a generic address is a register of 64 bits");
        };
        let window = self.constant(SHARED_WINDOW.wrapping_neg(), 64)?;
        let Slot::R64(at) = self.new_slot(64)? else {
            return self.error("no temporary register");
        };
        let class = std::mem::replace(&mut self.class, Class::Alu);
        self.alu(alu::<Add64>, [at, from, window, 0, 0], 0);
        // The access itself is the instruction that counts.
        if let Some(i) = self.insts.last_mut() {
            i.continued = true;
        }
        (self.class, self.first) = (class, true);
        Ok((Base::R64(at), offset))
    }

    fn matrix(&mut self, i: &'a Instr<'a>, m: &mut Mods<'a>) -> Result<()> {
        let load = i.opcode == "ldmatrix";
        self.class = if load { Class::Ldmatrix } else { Class::Stmatrix };
        let form = m.flag("sync") & m.flag("aligned") & m.flag("m8n8");
        let n = m.need(&[("x1", 1u32), ("x2", 2), ("x4", 4)])?;
        let transposed = m.flag("trans");
        let space = m.pick(SPACES);
        if !form || !matches!(space, None | Some(Space::Shared)) || m.ty()? != Ty::B16 {
            return m.unknown();
        }
        let a = self.args(i, 2..=2)?;
        let (address, data) = if load { (&a[1], &a[0]) } else { (&a[0], &a[1]) };
        let (base, offset) = match space {
            Some(space) => self.address(address, space)?,
            None => self.generic_shared(address)?,
        };
        let (regs, wide) = self.data(data, n, Ty::B32, load)?;
        if wide {
            return self.error("matrix registers have 32 bits");
        }
        let extra = Extra::Matrix { transposed };
        let strength = Strength::default();
        let space = Space::Shared;
        let mem =
            Mem { space, size: 16, n, signed: false, wide, base, offset, regs, strength, extra };
        self.push_mem(mem, if load { Op::Ldmatrix } else { Op::Stmatrix });
        Ok(())
    }

    fn cvta(&mut self, i: &'a Instr<'a>, m: &mut Mods<'a>) -> Result<()> {
        self.class = Class::Alu;
        let to = m.flag("to");
        let space = m.need(SPACES)?;
        if !matches!(m.ty()?, Ty::U64) {
            return self.error("cvta works on .u64");
        }
        let window = match space {
            Space::Shared | Space::Cluster => SHARED_WINDOW,
            Space::Local => LOCAL_WINDOW,
            Space::Param => PARAM_WINDOW,
            Space::Global | Space::Const => 0,
            _ => return m.unknown(),
        };
        let a = self.args(i, 2..=2)?;
        let x = self.src(&a[1], Ty::U64)?;
        let d = self.dst(&a[0], Ty::U64)?;
        let shift = if to { window.wrapping_neg() } else { window };
        let shift = self.constant(shift, 64)?;
        self.alu(alu::<Add64>, [d, x, shift, 0, 0], 0);
        Ok(())
    }
}
