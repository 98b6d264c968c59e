//! `wgmma`: products by four warps together, asynchronous to them.
//!
//! A warp computes its 16 rows when it issues the instruction. Nobody can tell from a result that
//! this is early: using a register before the wait that covers it is a fault, and so is a product
//! whose registers no `wgmma.fence` has handed over. A log, which each of the four warps follows at
//! its own pace, checks that all execute the same.

mod descriptor;
mod load;
mod operand;

pub use load::{LoadA, LoadB, loads};
pub use operand::Pieces;

use super::events::{Object, Ordering};
use super::lockstep::{LEAD, Lockstep};
use super::program::{Inst, Op, Program};
use super::regs::Row;
use super::tensor::{Accumulators, Scratch, Sum};
use super::trap::{At, Fault, FaultKind};
use super::warp::{Context, Warp};
use operand::{Met, Taken, gather};

/// What a warpgroup does together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WgOp {
    /// Index into [`Program::wgmmas`].
    Product(u32),
    Fence,
    Commit,
    /// Until at most this many groups are in flight.
    Wait(u32),
}

/// Where operand A comes from: four 32-bit slots of a fragment, or shared memory.
#[derive(Debug, Clone, Copy)]
pub enum From {
    Registers([u16; 4]),
    /// 64-bit slot of a descriptor.
    Shared(u16),
}

/// One `wgmma.mma_async`.
#[derive(Debug, Clone)]
pub struct Wgmma {
    pub sum: Sum,
    /// Columns.
    pub n: u32,
    /// Slots of the accumulators: n / 2, or n / 4 pairs of fp16.
    pub d: Vec<u16>,
    pub a: From,
    pub a_mn: bool,
    /// 64-bit slot of a descriptor.
    pub b: u16,
    pub b_mn: bool,
    pub load_a: LoadA,
    pub load_b: LoadB,
    /// Predicate slot times two plus negation: where false, accumulators start from zero.
    pub accumulate: u16,
    /// Sign bits to xor to the operands.
    pub flip: [u32; 2],
    /// Type of the operands, for counts.
    pub name: &'static str,
    /// Sets of registers: accumulators, A fragment. See [`Touch`].
    pub sets: [u64; 2],
}

impl Wgmma {
    /// Multiply-adds times two of one warp.
    pub fn flops(&self) -> u64 {
        2 * 16 * u64::from(self.n) * self.sum.k as u64
    }
}

/// Sets of registers that an instruction reads and writes, one bit each. Registers that stand in
/// the same operands of the same products are one set; beyond 63 sets none is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Touch {
    pub reads: u64,
    pub writes: u64,
}

/// What a warp knows of its products.
#[derive(Debug, Clone, Default)]
pub struct Pending {
    /// Sets in use as accumulators, and as A fragments, by products in flight.
    accumulators: u64,
    fragments: u64,
    /// Sets used by other instructions since the last fence.
    touched: u64,
    /// For each set, the first instruction that used it since.
    first: Vec<(u64, usize)>,
    fenced: bool,
    /// Products that nothing has waited for, each instruction once, with the number of its latest
    /// group and in the order of those numbers.
    products: Vec<(usize, u64)>,
    /// Groups committed so far.
    commits: u64,
}

impl Pending {
    pub fn reset(&mut self) {
        *self = Pending::default();
    }

    /// Whether an instruction may use these registers; notes that it did.
    #[inline(always)]
    pub fn touch(&mut self, t: Touch, pc: usize) -> bool {
        let new = (t.reads | t.writes) & !self.touched;
        if new != 0 {
            self.touched |= new;
            self.first.push((new, pc));
        }
        (t.reads | t.writes) & self.accumulators | t.writes & self.fragments == 0
    }

    fn in_flight(&self) -> impl Iterator<Item = usize> {
        self.products.iter().map(|&(pc, _)| pc)
    }

    /// A product begins.
    fn begin(&mut self, pc: usize, w: &Wgmma) {
        self.accumulators |= w.sets[0];
        self.fragments |= w.sets[1];
        if let Some(before) = self.products.iter().position(|p| p.0 == pc) {
            self.products.remove(before);
        }
        self.products.push((pc, self.commits));
    }

    /// Forgets all groups but the latest `n`, and what is not committed yet.
    fn wait(&mut self, program: &Program, n: u32) {
        let below = self.commits.saturating_sub(n.into());
        self.products.retain(|&(_, group)| group >= below);
        (self.accumulators, self.fragments) = (0, 0);
        for w in self.products.iter().filter_map(|&(pc, _)| program.wgmma(pc)) {
            self.accumulators |= w.sets[0];
            self.fragments |= w.sets[1];
        }
    }
}

/// One instruction as the first warp of a warpgroup executed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Step {
    pc: usize,
    /// Descriptors, and whether it accumulates.
    operands: ([u64; 2], bool),
}

/// How far the warps of a warpgroup are.
#[derive(Debug, Clone)]
struct Log {
    steps: Lockstep<Step>,
    exited: [bool; 4],
}

/// Operands that are kept: more than the products between two waits.
const KEPT: usize = 32;

/// A CTA's warpgroups, and room to work in.
#[derive(Default)]
pub struct Warpgroups {
    logs: Vec<Log>,
    warps: u32,
    scratch: Scratch,
    met: Met,
    words: Vec<u32>,
    kept: Vec<Taken>,
}

impl Warpgroups {
    /// For a new CTA of so many warps.
    pub fn reset(&mut self, warps: u32) {
        self.warps = warps;
        self.logs.clear();
    }

    /// Where `mma.sync` works.
    pub fn scratch(&mut self) -> &mut Scratch {
        &mut self.scratch
    }

    fn log(&mut self, warp: u32) -> &mut Log {
        let at = warp as usize / 4;
        if self.logs.len() <= at {
            let new = Log { steps: Lockstep::new(4), exited: [false; 4] };
            self.logs.resize(at + 1, new);
        }
        &mut self.logs[at]
    }

    /// Warp `warp` makes its next step.
    fn step(&mut self, warp: u32, step: Step) -> Result<(), Box<Fault>> {
        let fail = |message: String| Err(Fault::new(FaultKind::Divergence, None, message));
        let first = warp / 4 * 4;
        if first + 4 > self.warps {
            return fail(format!(
                "a warpgroup has four warps, but from warp {first} on the CTA has only {}",
                self.warps - first
            ));
        }
        let log = self.log(warp);
        let w = warp as usize % 4;
        if let Some(other) = log.steps.next(w) {
            if other.pc != step.pc {
                return fail(format!(
                    "the four warps of a warpgroup must execute the same wgmma instructions, but \
                     another of them is at {} where this one is",
                    At(other.pc)
                ));
            }
            if other.operands != step.operands {
                return fail(format!(
                    "descriptors and scale-d must be the same in the four warps of a warpgroup: \
                     {:x?} here, {:x?} in another",
                    step.operands, other.operands
                ));
            }
        } else {
            if let Some(gone) = log.exited.iter().position(|&e| e) {
                return fail(format!(
                    "the four warps of a warpgroup must execute this together, but warp {} has \
                     exited",
                    first + gone as u32
                ));
            }
            if let (true, Some((late, _))) = (log.steps.is_full(), log.steps.behind()) {
                return fail(format!(
                    "the four warps of a warpgroup must execute this together, but warp {} is \
                     {LEAD} wgmma instructions behind",
                    first + late as u32
                ));
            }
        }
        log.steps.advance(w, step);
        Ok(())
    }

    /// A warp has exited: gives the instruction that it has left to the others, if any.
    fn leave(&mut self, warp: u32) -> Option<usize> {
        if self.logs.len() <= warp as usize / 4 {
            return None;
        }
        let log = self.log(warp);
        let w = warp as usize % 4;
        log.exited[w] = true;
        log.steps.next(w).map(|s| s.pc)
    }
}

impl Warp {
    /// Executes `op`, with all lanes.
    ///
    /// # Errors
    /// Warps of a warpgroup that do not execute the same with the same operands; lanes that
    /// disagree on an operand; a missing `wgmma.fence`; registers of a product in flight; pieces
    /// that [`gather`](operand::gather) refuses.
    pub fn warpgroup(
        &mut self,
        cx: &mut Context<'_>,
        op: WgOp,
        pc: usize,
    ) -> Result<(), Box<Fault>> {
        let program = cx.program;
        let mut step = Step { pc, operands: ([0; 2], false) };
        match op {
            WgOp::Product(at) => {
                let w = &program.wgmmas[at as usize];
                step.operands = self.operands(w)?;
                cx.warpgroups.step(self.id, step)?;
                self.may_start(cx, w)?;
                self.product(cx, w, step.operands, pc)?;
                self.pending.begin(pc, w);
            }
            WgOp::Fence => {
                cx.warpgroups.step(self.id, step)?;
                (self.pending.touched, self.pending.fenced) = (0, true);
                self.pending.first.clear();
            }
            WgOp::Commit => {
                cx.warpgroups.step(self.id, step)?;
                self.pending.commits += 1;
            }
            WgOp::Wait(n) => {
                cx.warpgroups.step(self.id, step)?;
                self.pending.wait(program, n);
                let below = self.pending.commits.saturating_sub(n.into());
                let object = Object::Products { cta: cx.rank, warp: self.id / 4 * 4 };
                let who = cx.who(self.id, u32::MAX, pc);
                cx.events.observe(who, object, below, Ordering::Cta);
            }
        }
        Ok(())
    }

    /// The warp's last lane exits.
    ///
    /// # Errors
    /// Another warp of the warpgroup has executed an instruction that this one has not.
    pub fn leave_warpgroup(&mut self, cx: &mut Context<'_>) -> Result<(), Box<Fault>> {
        match cx.warpgroups.leave(self.id) {
            None => Ok(()),
            Some(pc) => Err(Fault::new(
                FaultKind::Divergence,
                None,
                format!(
                    "the warp exits, but another of its warpgroup has executed {}, which all four \
                     must execute together",
                    At(pc)
                ),
            )),
        }
    }

    /// Lanes whose scale-d is true.
    fn accumulates(&self, w: &Wgmma) -> u32 {
        let p = self.regs.p[usize::from(w.accumulate >> 1)];
        if w.accumulate & 1 != 0 { !p } else { p }
    }

    /// Lanes in which an instruction does read what it reads only if its operands say so.
    pub fn maybe_reads(&self, program: &Program, inst: &Inst) -> u32 {
        match inst.op {
            Op::Warpgroup(WgOp::Product(at)) => self.accumulates(&program.wgmmas[at as usize]),
            _ => 0,
        }
    }

    /// Descriptors and whether to accumulate: the same in all lanes.
    fn operands(&self, w: &Wgmma) -> Result<([u64; 2], bool), Box<Fault>> {
        let uniform = |slot: u16, what: &str| {
            let row = &self.regs.r64[usize::from(slot)];
            // Nearly always the same, which is known sooner without looking for a lane.
            let same = row.iter().fold(0, |all, x| all | x ^ row[0]) == 0;
            let other = if same { None } else { row.iter().position(|x| *x != row[0]) };
            match other {
                None => Ok(row[0]),
                Some(lane) => Err(Fault::new(
                    FaultKind::Operand,
                    lane as u32,
                    format!(
                        "the descriptor of {what} must be the same in all lanes: {:#018x} in lane \
                         0, {:#018x} in lane {lane}",
                        row[0], row[lane]
                    ),
                )),
            }
        };
        let a = match w.a {
            From::Shared(slot) => uniform(slot, "A")?,
            From::Registers(_) => 0,
        };
        let b = uniform(w.b, "B")?;
        let p = self.accumulates(w);
        if p != 0 && p != u32::MAX {
            let message = format!("scale-d must be the same in all lanes; it is {p:08x}");
            return Err(Fault::new(FaultKind::Operand, None, message));
        }
        Ok(([a, b], p != 0))
    }

    /// Refuses a product whose registers have not been handed over, or that another product still
    /// holds, except accumulators of the same shape.
    fn may_start(&self, cx: &Context<'_>, w: &Wgmma) -> Result<(), Box<Fault>> {
        if !cx.events.order.checks.products {
            return Ok(());
        }
        let (p, program) = (&self.pending, cx.program);
        let [d, a] = w.sets;
        if !p.fenced || p.touched & (d | a) != 0 {
            let why = if p.fenced {
                format!(
                    "{} were used by other instructions since the last one",
                    program.set_names(p.touched & (d | a))
                )
            } else {
                "none has been executed yet".into()
            };
            let other = p.first.iter().find(|(sets, _)| sets & (d | a) != 0).map(|&(sets, pc)| {
                let writes = program.touches[usize::from(program.insts[pc].touch)].writes;
                let did = if writes & sets & (d | a) != 0 { "wrote" } else { "read" };
                let names = program.set_names(sets & (d | a));
                (cx.who(self.id, u32::MAX, pc), format!("{did} {names}"))
            });
            return Err(Fault::new(
                FaultKind::MissingFence,
                None,
                format!("wgmma.fence is missing before this product: {why}"),
            )
            .against(other));
        }
        if (p.accumulators | p.fragments) & d == 0 && p.accumulators & a == 0 {
            return Ok(());
        }
        for (pc, other) in p.in_flight().filter_map(|pc| Some((pc, program.wgmma(pc)?))) {
            let [od, oa] = other.sets;
            let same = other.d == w.d && other.sum.half == w.sum.half && other.sum.k == w.sum.k;
            let clash = od & a | oa & d | if same { 0 } else { od & d };
            if clash != 0 {
                return Err(Fault::new(
                    FaultKind::RegistersInFlight,
                    None,
                    format!(
                        "{} are in use by a product that has not been waited for (only \
                         accumulators of the same shape may follow each other)",
                        program.set_names(clash)
                    ),
                )
                .against(Some((cx.who(self.id, u32::MAX, pc), "began that product"))));
            }
        }
        Ok(())
    }

    /// An instruction uses registers of a product in flight.
    #[cold]
    pub fn in_flight(&self, cx: &Context<'_>, t: Touch) -> Box<Fault> {
        let program = cx.program;
        let clash = |w: &Wgmma| (t.reads | t.writes) & w.sets[0] | t.writes & w.sets[1];
        let product = self
            .pending
            .in_flight()
            .filter_map(|pc| Some((pc, clash(program.wgmma(pc)?))))
            .find(|(_, clash)| *clash != 0);
        let names = product.map_or(String::new(), |(_, clash)| program.set_names(clash));
        Fault::new(
            FaultKind::RegistersInFlight,
            None,
            format!(
                "this uses a register of {names}, which a product still works on: no \
                 wgmma.wait_group has covered it"
            ),
        )
        .against(product.map(|(pc, _)| (cx.who(self.id, u32::MAX, pc), "began that product")))
    }

    /// This warp's 16 rows.
    fn product(
        &mut self,
        cx: &mut Context<'_>,
        w: &Wgmma,
        ([a, b], accumulate): ([u64; 2], bool),
        pc: usize,
    ) -> Result<(), Box<Fault>> {
        let rank = self.id % 4;
        let who = cx.who(self.id, u32::MAX, pc);
        let group = self.pending.commits;
        let mut bytes = w.n * 32;
        match w.a {
            From::Registers(slots) => {
                let rows = slots.map(|s| self.regs.r32[usize::from(s)]);
                (w.load_a)(cx.arch, &mut cx.warpgroups.scratch, &rows, w.flip[0]);
            }
            From::Shared(_) => {
                let pieces = cx.warpgroups.met.pieces((a, 2 * rank, 2 * rank + 2, w.a_mn))?;
                cx.events.order.product(who, group, &pieces)?;
                let mut words = std::mem::take(&mut cx.warpgroups.words);
                let read = gather(cx, &pieces, &mut words, ("A", a), who);
                let g = &mut *cx.warpgroups;
                g.words = words;
                read?;
                let rows = if w.a_mn { mn_fragments(&g.words) } else { fragments(&g.words) };
                (w.load_a)(cx.arch, &mut g.scratch, &rows, w.flip[0]);
                bytes += 64 * 32;
            }
        }
        let pieces = cx.warpgroups.met.pieces((b, 0, w.n / 8, w.b_mn))?;
        cx.events.order.product(who, group, &pieces)?;
        cx.warpgroups.kept.resize_with(KEPT, Taken::default);
        let place = (b >> 1 ^ b >> 7) as usize % KEPT;
        let mut kept = std::mem::take(&mut cx.warpgroups.kept[place]);
        let taken = kept.take(cx, w, &pieces, (b, who));
        let g = &mut *cx.warpgroups;
        g.kept[place] = kept;
        taken?;
        let acc = Accumulators { rows: &mut self.regs.r32, slots: &w.d, fresh: !accumulate };
        w.sum.run(cx.arch, &g.scratch.a, &g.kept[place].columns, acc);
        // The warpgroup reads its operands once.
        if rank == 0 {
            cx.count_shared(pc, ((bytes / 128).into(), 0));
        }
        Ok(())
    }
}

/// A fragment's registers from 16 rows of two pieces.
fn fragments(words: &[u32]) -> [Row<u32>; 4] {
    let pieces = words.as_chunks::<4>().0;
    let mut rows = [Row([0; 32]); 4];
    for (j, row) in rows.iter_mut().enumerate() {
        for (g, to) in row.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            *to = pieces[2 * (g + 8 * (j % 2)) + j / 2];
        }
    }
    rows
}

/// The same from 16 k of 16 elements of 16 bits.
fn mn_fragments(words: &[u32]) -> [Row<u32>; 4] {
    let lines = words.as_chunks::<8>().0;
    std::array::from_fn(|j| {
        Row(std::array::from_fn(|i| {
            let row = i / 4 + 8 * (j % 2);
            let k = 8 * (j / 2) + 2 * (i % 4);
            let of = |k: usize| lines[k][row / 2] >> (16 * (row % 2)) & 0xffff;
            of(k) | of(k + 1) << 16
        }))
    })
}
