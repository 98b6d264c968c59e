//! Hopper's asynchronous instructions: mbarriers, bulk copies, clusters, fences, `setmaxnreg`.

use super::super::events::{Fence, Ordering};
use super::super::hopper::{
    self, Addr, Async, Bulk, Mbar, MbarOp, Phase, Remote, Side, element_bytes, reducible,
};
use super::mem::SPACES;
use super::*;

const REDUCTIONS: &[(&str, AtomOp)] = &[
    ("add", AtomOp::Add),
    ("min", AtomOp::Min),
    ("max", AtomOp::Max),
    ("inc", AtomOp::Inc),
    ("dec", AtomOp::Dec),
    ("and", AtomOp::And),
    ("or", AtomOp::Or),
    ("xor", AtomOp::Xor),
];

/// Registers of a thread at entry, where `setmaxnreg` is not ignored: the assembler takes as many
/// as `.maxntid` or `.reqntid` with `.minnctapersm` leave room for, or those of `.maxnreg`.
pub fn entry_registers(asyncs: &[Async], entry: &Entry<'_>) -> Option<u32> {
    const OF_MULTIPROCESSOR: u32 = 65536;
    let most = asyncs.iter().filter_map(|a| match a {
        Async::SetMaxNreg { count, .. } => Some(*count),
        _ => None,
    });
    let most = most.max()?;
    if let Some(n) = entry.maxnreg {
        return Some(n);
    }
    let threads = entry.reqntid.or(entry.maxntid)?.iter().product::<u32>().max(1);
    let warps = threads.div_ceil(32).saturating_mul(entry.minnctapersm?.max(1)).max(1);
    Some((OF_MULTIPROCESSOR / 32 / warps / 8 * 8).clamp(24, most.max(24)))
}

impl<'a> Decoder<'a> {
    /// Decodes `i` if it belongs to this machinery.
    pub(super) fn hopper_op(&mut self, i: &'a Instr<'a>, m: &mut Mods<'a>) -> Result<bool> {
        match (i.opcode, i.mods.first().copied()) {
            ("mbarrier", _) => self.mbarrier(i, m)?,
            ("cp", Some("async" | "reduce")) => self.bulk(i, m)?,
            ("st" | "red", Some("async")) => self.remote(i, m)?,
            ("membar" | "fence", _) => self.fence(i, m)?,
            ("barrier", Some("cluster")) => self.cluster_barrier(i, m)?,
            ("setmaxnreg", _) => self.set_max_nreg(i, m)?,
            ("mapa" | "getctarank", _) => self.map_address(i, m)?,
            ("tensormap", _) => self.tensor_map(i, m)?,
            ("prefetch", _) => {
                m.flag("tensormap");
                let space = m.pick(SPACES).unwrap_or(Space::Generic);
                let a = self.args(i, 1..=1)?;
                let at = self.addr(&a[0], space)?;
                self.class = Class::Tma;
                self.push_async(Async::TensorMap { at, fence: false });
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn push_async(&mut self, a: Async) {
        self.asyncs.push(a);
        self.push(Op::Async(self.asyncs.len() as u32 - 1));
    }

    fn addr(&mut self, o: &Operand<'_>, space: Space) -> Result<Addr> {
        let (base, offset) = self.address(o, space)?;
        Ok(Addr { space, base, offset })
    }

    /// The state space of an mbarrier.
    fn bar_space(m: &mut Mods<'a>) -> Result<Space> {
        match m.pick(SPACES).unwrap_or(Space::Generic) {
            space @ (Space::Generic | Space::Shared | Space::Cluster) => Ok(space),
            _ => m.unknown(),
        }
    }

    /// `.release.cluster` and the like; `by_default` where nothing is said.
    fn order(m: &mut Mods<'a>, by_default: Ordering) -> Ordering {
        let relaxed = m.flag("relaxed");
        m.ignore(&["release", "acquire"]);
        let scope = m.pick(&[("cta", Ordering::Cta), ("cluster", Ordering::Cluster)]);
        if relaxed { Ordering::Relaxed } else { scope.unwrap_or(by_default) }
    }

    fn mbarrier(&mut self, i: &'a Instr<'a>, m: &mut Mods<'a>) -> Result<()> {
        self.class = Class::Mbarrier;
        let verb = m.need(&[
            ("init", "init"),
            ("inval", "inval"),
            ("arrive", "arrive"),
            ("arrive_drop", "arrive_drop"),
            ("expect_tx", "expect_tx"),
            ("complete_tx", "complete_tx"),
            ("test_wait", "wait"),
            ("try_wait", "wait"),
            ("pending_count", "pending_count"),
        ])?;
        if verb == "pending_count" {
            if m.ty()? != Ty::B64 {
                return m.unknown();
            }
            let a = self.args(i, 2..=2)?;
            let state = self.src(&a[1], Ty::B64)?;
            let d = self.dst(&a[0], Ty::U32)?;
            self.alu(hopper::pending_count, [d, state, 0, 0, 0], 0);
            return Ok(());
        }
        let (expect, no_complete, parity) =
            (m.flag("expect_tx"), m.flag("noComplete"), m.flag("parity"));
        // Where nothing is said, the letter means `.cta`; kernels rely on more, and hardware gives
        // it.
        let order = Self::order(m, Ordering::Cluster);
        let space = Self::bar_space(m)?;
        if m.ty()? != Ty::B64 {
            return m.unknown();
        }
        let arrives = verb.starts_with("arrive");
        if (expect || no_complete) && !arrives || expect && no_complete || parity && verb != "wait"
        {
            return m.unknown();
        }
        let op = match verb {
            "init" => MbarOp::Init,
            "inval" => MbarOp::Inval,
            "expect_tx" => MbarOp::Expect,
            "complete_tx" => MbarOp::Complete,
            "wait" => {
                let a = self.args(i, 3..=if i.mods[0] == "try_wait" { 4 } else { 3 })?;
                let at = self.addr(&a[1], space)?;
                let phase = if parity {
                    Phase::Parity(self.src(&a[2], Ty::U32)?)
                } else {
                    Phase::State(self.src(&a[2], Ty::B64)?)
                };
                if let Some(hint) = a.get(3) {
                    self.src(hint, Ty::U32)?;
                }
                let done = self.dst(&a[0], Ty::Pred)?;
                self.push_async(Async::MbarWait { at, phase, done, order });
                return Ok(());
            }
            _ => MbarOp::Arrive { expect, drop: verb == "arrive_drop", no_complete },
        };
        // Arrivals give a state, except at another CTA's mbarrier.
        let given =
            usize::from(arrives && !matches!(i.operands.first(), Some(Operand::Addr { .. })));
        let (least, most) = match op {
            MbarOp::Inval => (1, 1),
            MbarOp::Arrive { expect, no_complete, .. } => {
                (given + 1 + usize::from(expect || no_complete), given + 2)
            }
            _ => (2, 2),
        };
        let a = self.args(i, least..=most)?;
        if given == 1 && space == Space::Cluster && a[0] != Operand::Sink {
            return self.error("an arrival at .shared::cluster gives no state: `_` stands for it");
        }
        let at = self.addr(&a[given], space)?;
        let value = match a.get(given + 1) {
            Some(v) => Some(self.src(v, Ty::U32)?),
            None => None,
        };
        let state = if given == 1 { self.dst(&a[0], Ty::B64)? } else { 0 };
        self.push_async(Async::Mbar(Mbar { op, at, value, state, order }));
        Ok(())
    }

    /// `cp.async.bulk...`, `cp.reduce.async.bulk...`, `cp.async.mbarrier.arrive`
    fn bulk(&mut self, i: &'a Instr<'a>, m: &mut Mods<'a>) -> Result<()> {
        self.class = Class::Tma;
        let reduces = m.flag("reduce");
        if !m.flag("async") {
            return m.unknown();
        }
        if m.flag("mbarrier") {
            self.class = Class::CpAsync;
            if !m.flag("arrive") {
                return m.unknown();
            }
            let noinc = m.flag("noinc");
            let space = Self::bar_space(m)?;
            if m.ty()? != Ty::B64 {
                return m.unknown();
            }
            let a = self.args(i, 1..=1)?;
            let at = self.addr(&a[0], space)?;
            self.push_async(Async::CopiesArrive { at, noinc });
            return Ok(());
        }
        if !m.flag("bulk") {
            return m.unknown();
        }
        if m.flag("commit_group") {
            self.args(i, 0..=0)?;
            self.push_async(Async::BulkCommit);
            return Ok(());
        }
        if m.flag("wait_group") {
            let read = m.flag("read");
            let a = self.args(i, 1..=1)?;
            let n = self.int_const(&a[0], "the number of groups")?;
            let groups = n.min(u32::MAX.into()) as u32;
            self.push_async(Async::BulkWait { groups, read });
            return Ok(());
        }
        let prefetch = m.flag("prefetch");
        let tensor = m.flag("tensor");
        let rank = if tensor {
            Some(m.need(&[("1d", 1usize), ("2d", 2), ("3d", 3), ("4d", 4), ("5d", 5)])?)
        } else {
            None
        };
        m.flag("tile");
        let hint = m.flag("L2::cache_hint");
        let multicast = m.flag("multicast::cluster");
        if prefetch {
            m.flag("L2");
        }
        let to = if prefetch { Space::Global } else { m.need(SPACES)? };
        let from = m.need(SPACES)?;
        let on_bar = m.flag("mbarrier::complete_tx::bytes");
        let grouped = m.flag("bulk_group");
        let shared = |s| matches!(s, Space::Shared | Space::Cluster);
        let form = match (to, from) {
            _ if prefetch => !on_bar && !grouped && !reduces,
            (to, Space::Global) if shared(to) => on_bar && !grouped && !reduces,
            (Space::Cluster, Space::Shared) => on_bar && !grouped && !tensor && !multicast,
            (Space::Global, Space::Shared) => grouped && !on_bar && !multicast,
            _ => false,
        };
        if !form {
            return m.unknown();
        }
        let reduce = if reduces { Some(self.reduction(m, tensor, to)?) } else { None };
        let most = 2
            + usize::from(!tensor)
            + usize::from(on_bar)
            + usize::from(multicast)
            + usize::from(hint)
            - usize::from(prefetch);
        let a = self.args(i, most..=most)?;
        let mut next = a.iter();
        let mut take = || next.next().unwrap_or(&Operand::Sink);
        let side = |d: &mut Self, o: &'a Operand<'a>, space: Space| match (rank, space) {
            (Some(rank), Space::Global) => d.tensor_side(o, rank),
            (_, Space::Global) => Ok(Side::Global(d.addr(o, space)?)),
            _ => Ok(Side::Shared(d.addr(o, space)?)),
        };
        let to = if prefetch { None } else { Some(side(self, take(), to)?) };
        let from = side(self, take(), from)?;
        let size = if tensor { None } else { Some(self.src(take(), Ty::U32)?) };
        let mbar = if on_bar { Some(self.addr(take(), Space::Cluster)?) } else { None };
        let ranks = if multicast { Some(self.src(take(), Ty::B16)?) } else { None };
        if hint {
            self.src(take(), Ty::B64)?;
        }
        self.push_async(Async::Bulk(Box::new(Bulk { to, from, size, mbar, ranks, reduce })));
        Ok(())
    }

    fn reduction(
        &mut self,
        m: &mut Mods<'a>,
        tensor: bool,
        to: Space,
    ) -> Result<(AtomOp, Option<AtomTy>)> {
        let op = m.need(REDUCTIONS)?;
        m.flag("noftz");
        if tensor {
            return Ok((op, None));
        }
        let ty = Self::element_type(m)?;
        let whole = !matches!(ty, AtomTy::F16 | AtomTy::Bf16 | AtomTy::F32 | AtomTy::F64);
        if !reducible(op, ty) || to != Space::Global && !whole {
            return m.unknown();
        }
        Ok((op, Some(ty)))
    }

    fn element_type(m: &mut Mods<'a>) -> Result<AtomTy> {
        Ok(match m.ty()? {
            Ty::U32 | Ty::B32 => AtomTy::U32,
            Ty::S32 => AtomTy::S32,
            Ty::U64 | Ty::B64 => AtomTy::U64,
            Ty::S64 => AtomTy::S64,
            Ty::F16 => AtomTy::F16,
            Ty::Bf16 => AtomTy::Bf16,
            Ty::F32 => AtomTy::F32,
            Ty::F64 => AtomTy::F64,
            _ => return m.unknown(),
        })
    }

    /// `[map, {c0, c1}]`
    fn tensor_side(&mut self, o: &Operand<'a>, rank: usize) -> Result<Side> {
        let Operand::Addr { base, offset, coords } = o else {
            return self.error("a tensor map and coordinates in brackets are expected here");
        };
        if coords.len() != rank {
            return self.error(format!("{rank} coordinates are expected, not {}", coords.len()));
        }
        let (base, offset) = self.place(*base, *offset, Space::Generic)?;
        let mut slots = Vec::new();
        for c in coords {
            slots.push(self.src(c, Ty::S32)?);
        }
        Ok(Side::Tensor(Addr { space: Space::Generic, base, offset }, slots))
    }

    /// `st.async`, `red.async`
    fn remote(&mut self, i: &'a Instr<'a>, m: &mut Mods<'a>) -> Result<()> {
        self.class = Class::StoreShared;
        let reduces = i.opcode == "red";
        m.flag("async");
        m.ignore(&["weak", "relaxed", "cluster"]);
        let space = Self::bar_space(m)?;
        if !m.flag("mbarrier::complete_tx::bytes") || space == Space::Shared {
            return m.unknown();
        }
        let op = if reduces { Some(m.need(REDUCTIONS)?) } else { None };
        let n = match reduces {
            true => 1,
            false => m.pick(&[("v2", 2u32), ("v4", 4)]).unwrap_or(1),
        };
        let ty = match m.opt_ty() {
            Some(t @ (Ty::B32 | Ty::U32 | Ty::S32 | Ty::B64 | Ty::U64 | Ty::S64)) => t,
            Some(t @ (Ty::F32 | Ty::F64)) if !reduces => t,
            _ => return m.unknown(),
        };
        let element = match ty {
            Ty::S32 => AtomTy::S32,
            Ty::S64 => AtomTy::S64,
            t if t.bits() == 64 => AtomTy::U64,
            _ => AtomTy::U32,
        };
        let reduce = op.map(|op| (op, element));
        if n == 4 && ty.bits() == 64 || reduce.is_some_and(|(op, ty)| !reducible(op, ty)) {
            return m.unknown();
        }
        let a = self.args(i, 3..=3)?;
        let to = self.addr(&a[0], space)?;
        let (values, wide) = self.data(&a[1], n, ty, false)?;
        let mbar = self.addr(&a[2], space)?;
        if wide != (element_bytes(element) == 8) {
            return self.error("the registers have another width than the type");
        }
        self.push_async(Async::Remote(Remote { to, values, wide, mbar, reduce }));
        Ok(())
    }

    fn fence(&mut self, i: &'a Instr<'a>, m: &mut Mods<'a>) -> Result<()> {
        self.class = Class::Barrier;
        let proxy = m.flag("proxy");
        let mut map = None;
        let fence = if proxy {
            let kind = m.prefixed("async").or_else(|| m.prefixed("alias").map(|_| "alias"));
            match (kind, i.opcode) {
                (Some(""), _) => {
                    let space = m.pick(SPACES);
                    let shared = !matches!(space, Some(Space::Global));
                    let global = matches!(space, None | Some(Space::Global));
                    Fence::Async { shared, global }
                }
                (Some("alias"), _) => Fence::OtherProxy,
                // `async::generic.acquire.sync_restrict::...`: between a copy and its reader.
                (Some("::generic"), "fence") => {
                    m.ignore(&["acquire", "release", "cluster"]);
                    m.prefixed("sync_restrict");
                    Fence::OtherProxy
                }
                (None, "fence") if m.flag("tensormap::generic") => {
                    let acquire = m.need(&[("acquire", true), ("release", false)])?;
                    m.need(&[("cta", ()), ("cluster", ()), ("gpu", ()), ("sys", ())])?;
                    if acquire {
                        let a = self.args(i, 2..=2)?;
                        if self.int_const(&a[1], "the size of a tensor map")? != 128 {
                            return self.error("a tensor map has 128 bytes");
                        }
                        map = Some(self.addr(&a[0], Space::Generic)?);
                    }
                    Fence::MapRelease
                }
                _ => return m.unknown(),
            }
        } else if m.flag("mbarrier_init") {
            if !m.flag("release") || !m.flag("cluster") {
                return m.unknown();
            }
            Fence::MbarrierInit
        } else {
            m.pick(&[("sc", ()), ("acq_rel", ()), ("acquire", ()), ("release", ())]);
            m.prefixed("sync_restrict");
            let wide = m.need(&[
                ("cta", false),
                ("cluster", true),
                ("gpu", true),
                ("gl", true),
                ("sys", true),
            ])?;
            Fence::Thread { wide }
        };
        match map {
            Some(at) => self.push_async(Async::TensorMap { at, fence: true }),
            None => {
                self.args(i, 0..=0)?;
                self.push_async(Async::Fence(fence));
            }
        }
        Ok(())
    }

    /// `tensormap.replace...`, `tensormap.cp_fenceproxy...`
    fn tensor_map(&mut self, i: &'a Instr<'a>, m: &mut Mods<'a>) -> Result<()> {
        self.class = Class::Tma;
        if m.flag("cp_fenceproxy") {
            let spaces = (m.need(SPACES)?, m.need(SPACES)?);
            let form = m.flag("tensormap::generic") & m.flag("release");
            m.need(&[("cta", ()), ("cluster", ()), ("gpu", ()), ("sys", ())])?;
            let whole = m.flag("sync") & m.flag("aligned");
            if !form || !whole || spaces != (Space::Global, Space::Shared) {
                return m.unknown();
            }
            let a = self.args(i, 3..=3)?;
            if self.int_const(&a[2], "the size of a tensor map")? != 128 {
                return self.error("a tensor map has 128 bytes");
            }
            let (to, from) = (self.addr(&a[0], Space::Global)?, self.addr(&a[1], Space::Shared)?);
            self.push_async(Async::MapCopy { to, from });
            return Ok(());
        }
        let form = m.flag("replace") & m.flag("tile") & m.flag("b1024");
        let field = hopper::FIELDS.into_iter().find(|f| m.flag(f.name));
        let space = m.pick(SPACES).unwrap_or(Space::Generic);
        let ty = m.ty()?;
        let Some(field) = field.filter(|f| ty == if f.wide { Ty::B64 } else { Ty::B32 }) else {
            return m.unknown();
        };
        if !form || !matches!(space, Space::Generic | Space::Global | Space::Shared) {
            return m.unknown();
        }
        let indexed = usize::from(field.count > 1);
        let a = self.args(i, 2 + indexed..=2 + indexed)?;
        let at = self.addr(&a[0], space)?;
        let mut index = 0;
        if indexed == 1 {
            index = self.int_const(&a[1], "the ordinal of a dimension")? as usize;
            if index >= field.count {
                return self.error(format!("{} has {} values", field.name, field.count));
            }
        }
        let value = self.src(&a[1 + indexed], ty)?;
        self.push_async(Async::MapReplace(hopper::Replace { at, field, index, value }));
        Ok(())
    }

    fn cluster_barrier(&mut self, i: &'a Instr<'a>, m: &mut Mods<'a>) -> Result<()> {
        self.class = Class::Barrier;
        m.flag("cluster");
        let arrives = m.need(&[("arrive", true), ("wait", false)])?;
        let order = if m.flag("relaxed") { Ordering::Relaxed } else { Ordering::Cluster };
        m.flag(if arrives { "release" } else { "acquire" });
        let aligned = m.flag("aligned");
        self.args(i, 0..=0)?;
        self.push_async(if arrives {
            Async::ClusterArrive { aligned, order }
        } else {
            Async::ClusterWait { aligned, order }
        });
        Ok(())
    }

    fn set_max_nreg(&mut self, i: &'a Instr<'a>, m: &mut Mods<'a>) -> Result<()> {
        let inc = m.need(&[("inc", true), ("dec", false)])?;
        let form = m.flag("sync") & m.flag("aligned");
        if !form || m.ty()? != Ty::U32 {
            return m.unknown();
        }
        let a = self.args(i, 1..=1)?;
        let count = self.int_const(&a[0], "the number of registers")?;
        if !(24..=256).contains(&count) || !count.is_multiple_of(8) {
            return self.error(format!(
                "setmaxnreg to {count} registers; a multiple of 8 from 24 to 256 is wanted"
            ));
        }
        self.push_async(Async::SetMaxNreg { inc, count: count as u32 });
        Ok(())
    }

    fn map_address(&mut self, i: &'a Instr<'a>, m: &mut Mods<'a>) -> Result<()> {
        self.class = Class::Alu;
        let space = m.pick(SPACES).unwrap_or(Space::Generic);
        if !matches!(space, Space::Generic | Space::Cluster) {
            return m.unknown();
        }
        let ty = m.ty()?;
        let wide = match ty {
            Ty::U32 if space == Space::Cluster => 0,
            Ty::U64 => 1,
            _ => return m.unknown(),
        };
        if i.opcode == "mapa" {
            let a = self.args(i, 3..=3)?;
            let x = self.src(&a[1], ty)?;
            let rank = self.src(&a[2], Ty::U32)?;
            let d = self.dst(&a[0], ty)?;
            self.alu(hopper::mapa, [d, x, rank, 0, 0], wide);
        } else {
            let a = self.args(i, 2..=2)?;
            let x = self.src(&a[1], ty)?;
            let own = self.preset(Preset::ClusterCtarank, 32)?;
            let d = self.dst(&a[0], Ty::U32)?;
            self.alu(hopper::getctarank, [d, x, own, 0, 0], wide);
        }
        Ok(())
    }
}
