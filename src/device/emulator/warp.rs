//! A warp: registers, groups of lanes that stand at one place, and the loop that runs them.

use pulp::Arch;
use serde::Serialize;

use super::access::Batch;
use super::cta::{Barriers, Release};
use super::events::{Events, Object, Ordering, Who};
use super::hopper::{Arrived, Engine, Flow, Peers};
use super::memory::{Global, Shared, sectors};
use super::program::{Bar, Class, Inst, Op, Program, Reduce, UNGUARDED};
use super::regs::{El, Regs, Row, put};
use super::stream::{Stream, Way};
use super::trap::{Fault, FaultKind};
use super::wgmma::{Pending, Warpgroups};

/// What one instruction of the program did, summed over warps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Warp instructions.
    pub executions: u64,
    /// Thread instructions: active lanes over all executions.
    pub lanes: u64,
    pub read_sectors: u64,
    pub write_sectors: u64,
    pub wavefronts: u64,
    pub conflicts: u64,
    /// Multiply-adds times two on tensor cores.
    pub flops: u64,
    /// Thread-level special-function operations.
    pub special: u64,
    /// Bytes that bulk copies (TMA) read from and write to global memory. Their sectors are among
    /// `read_sectors` and `write_sectors`.
    pub bulk_read_bytes: u64,
    pub bulk_write_bytes: u64,
    /// Sectors read that the modelled L2 had to fetch; 0 where L2 is not modelled.
    pub l2_miss_sectors: u64,
}

impl Line {
    /// As of `n` disjoint copies. What the modelled L2 fetched is that of all of them already.
    pub fn times(&self, n: u64) -> Line {
        Line {
            executions: self.executions * n,
            lanes: self.lanes * n,
            read_sectors: self.read_sectors * n,
            write_sectors: self.write_sectors * n,
            wavefronts: self.wavefronts * n,
            conflicts: self.conflicts * n,
            flops: self.flops * n,
            special: self.special * n,
            bulk_read_bytes: self.bulk_read_bytes * n,
            bulk_write_bytes: self.bulk_write_bytes * n,
            l2_miss_sectors: self.l2_miss_sectors,
        }
    }

    /// Adds what the same instruction did elsewhere.
    pub fn add(&mut self, o: &Line) {
        self.executions += o.executions;
        self.lanes += o.lanes;
        self.read_sectors += o.read_sectors;
        self.write_sectors += o.write_sectors;
        self.wavefronts += o.wavefronts;
        self.conflicts += o.conflicts;
        self.flops += o.flops;
        self.special += o.special;
        self.bulk_read_bytes += o.bulk_read_bytes;
        self.bulk_write_bytes += o.bulk_write_bytes;
        self.l2_miss_sectors += o.l2_miss_sectors;
    }
}

/// What a warp's instructions act on, beside its own state.
pub struct Context<'a> {
    pub arch: Arch,
    pub program: &'a Program,
    pub global: &'a Global,
    pub params: &'a [u8],
    pub shared: &'a mut Shared,
    /// Shared memories of the cluster's other CTAs.
    pub peers: Peers<'a>,
    /// Rank of the CTA in its cluster.
    pub rank: u32,
    pub barriers: &'a mut Barriers,
    pub engine: &'a mut Engine,
    pub events: &'a mut Events,
    pub warpgroups: &'a mut Warpgroups,
    pub counts: &'a mut [Line],
    /// Where requests to global memory are written down, if they are.
    pub stream: Option<&'a mut Stream>,
}

impl Context<'_> {
    /// Counts what one instruction's lanes request of global memory.
    #[inline(always)]
    pub fn count_global(&mut self, pc: usize, address: &[u64; 32], mask: u32, way: Way) {
        let n = sectors(address, mask);
        let line = &mut self.counts[pc];
        match way {
            Way::Read => line.read_sectors += n,
            Way::Write => line.write_sectors += n,
        }
        if let Some(stream) = &mut self.stream {
            stream.lanes(pc, address, mask, way);
        }
    }

    /// Counts `bytes` from `address` on that a bulk copy moves; once for each contiguous row.
    #[inline(always)]
    pub fn count_bulk(&mut self, pc: usize, address: u64, bytes: u64, way: Way) {
        if bytes == 0 {
            return;
        }
        let sectors = (address + bytes - 1) / 32 - address / 32 + 1;
        let line = &mut self.counts[pc];
        match way {
            Way::Read => {
                (line.read_sectors, line.bulk_read_bytes) =
                    (line.read_sectors + sectors, line.bulk_read_bytes + bytes)
            }
            Way::Write => {
                (line.write_sectors, line.bulk_write_bytes) =
                    (line.write_sectors + sectors, line.bulk_write_bytes + bytes)
            }
        }
        if let Some(stream) = &mut self.stream {
            stream.range(pc, address, bytes, way);
        }
    }

    /// Counts cycles of the shared-memory pipe, and how many of them are bank conflicts.
    #[inline(always)]
    pub fn count_shared(&mut self, pc: usize, (cycles, conflicts): (u64, u64)) {
        let c = &mut self.counts[pc];
        c.wavefronts += cycles;
        c.conflicts += conflicts;
    }
}

/// Why a group does not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    No,
    /// For these lanes of its warp to come to the same instruction.
    Lanes(u32),
    /// Behind a barrier, for the end of this generation.
    Barrier {
        id: u32,
        generation: u64,
    },
    /// For the end of a phase of the mbarrier at a shared address.
    Mbarrier {
        cta: u32,
        at: u32,
        phase: u64,
    },
    /// At `barrier.cluster`, for the end of this generation.
    Cluster {
        generation: u64,
    },
    /// For so many registers a thread.
    Registers {
        more: u32,
    },
}

impl Wait {
    /// Waits for more than the lanes of its own warp.
    fn parked(self) -> bool {
        !matches!(self, Wait::No | Wait::Lanes(_))
    }
}

/// Lanes that execute together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    pub pc: usize,
    pub mask: u32,
    pub wait: Wait,
    /// When it last had its turn, for fairness between groups that loop.
    turn: u64,
}

/// How a warp's turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// All lanes have exited.
    Done,
    Blocked,
    /// Its steps are used up.
    Paused,
}

/// A fault and the instruction it happened at.
pub struct Faulted(pub Box<Fault>, pub usize);

/// A warp and all that its lanes have under way.
pub struct Warp {
    pub id: u32,
    pub regs: Regs,
    pub groups: Vec<Group>,
    /// Lanes that have not exited, and the latest exit.
    pub alive: u32,
    exit: usize,
    /// Lanes in which each tracked register is initialised.
    pub init: Vec<u32>,
    /// Local memory by word and lane.
    pub local: Vec<[u32; 32]>,
    pub local_shadow: Vec<[u8; 32]>,
    #[expect(clippy::vec_box, reason = "batches are large and move between the lists")]
    pub copies: Vec<Box<Batch>>,
    #[expect(clippy::vec_box, reason = "as above")]
    pub spare: Vec<Box<Batch>>,
    /// Groups of copies that each lane has committed.
    pub committed: [u32; 32],
    /// Instructions that have begun copies.
    pub copies_begun: u64,
    /// Bulk groups that each lane has committed.
    pub bulk_committed: [u32; 32],
    /// Where lanes stand with `barrier.cluster`.
    pub arrived: Arrived,
    /// Waits for mbarriers under way: instruction, CTA and address, phase.
    pub parked: Vec<(usize, (u32, u32), u64)>,
    /// Phase of each mbarrier up to which this warp has waited.
    pub seen: Vec<((u32, u32), u64)>,
    /// The wait (by instruction) that must answer no: nothing can complete what it waits for.
    pub forced: Option<usize>,
    /// The engine's progress, and the waits (by instruction) that have answered no since.
    pub refused: (u64, Vec<usize>),
    pub pending: Pending,
    pub steps: u64,
    turns: u64,
    /// `bar.red` not yet answered: lanes, barrier, generation, operation, destination.
    reductions: Vec<(u32, u32, u64, Reduce, u16)>,
}

impl Warp {
    /// A warp with room for the program's registers; [`Warp::reset`] makes it ready.
    pub fn new(program: &Program) -> Warp {
        let words = program.local_bytes.div_ceil(4) as usize;
        Warp {
            id: 0,
            regs: program.empty_regs(),
            groups: Vec::new(),
            alive: 0,
            exit: 0,
            init: vec![0; program.tracked.len()],
            local: vec![[0; 32]; words],
            local_shadow: vec![[0; 32]; words],
            copies: Vec::new(),
            spare: Vec::new(),
            committed: [0; 32],
            copies_begun: 0,
            bulk_committed: [0; 32],
            arrived: Arrived::default(),
            parked: Vec::new(),
            seen: Vec::new(),
            forced: None,
            refused: (0, Vec::new()),
            pending: Pending::default(),
            steps: 0,
            turns: 0,
            reductions: Vec::new(),
        }
    }

    /// Where its last lanes exited.
    pub fn left(&self, cta: u32) -> Who {
        Who { cta, warp: self.id, lanes: u32::MAX, pc: self.exit }
    }

    /// Ready for a new CTA, with the lanes of `alive`; `track` what has been written.
    pub fn reset(&mut self, id: u32, alive: u32, track: bool) {
        self.id = id;
        self.alive = alive;
        self.groups.clear();
        self.groups.push(Group { pc: 0, mask: alive, wait: Wait::No, turn: 0 });
        let (init, local) = if track { (0, 0) } else { (u32::MAX, 0xf) };
        self.init.fill(init);
        self.local_shadow.fill([local; 32]);
        self.spare.append(&mut self.copies);
        self.committed = [0; 32];
        self.copies_begun = 0;
        self.bulk_committed = [0; 32];
        self.arrived = Arrived::default();
        self.parked.clear();
        self.seen.clear();
        self.forced = None;
        self.refused = (0, Vec::new());
        self.pending.reset();
        self.steps = 0;
        self.turns = 0;
        self.reductions.clear();
    }

    /// Runs until the warp ends, blocks, or has made `budget` steps.
    ///
    /// # Errors
    /// The fault of an instruction, with its place.
    pub fn run(&mut self, cx: &mut Context<'_>, budget: u64) -> Result<Turn, Faulted> {
        let end = self.steps + budget;
        loop {
            let Some(at) = self.choose(cx) else {
                return Ok(if self.alive == 0 { Turn::Done } else { Turn::Blocked });
            };
            if self.steps >= end {
                return Ok(Turn::Paused);
            }
            if !self.reductions.is_empty() {
                self.collect(cx.barriers);
            }
            self.merge(at);
            self.turns += 1;
            // Alone, a group may run on; among others it must let them catch up.
            let slice = if self.groups.len() == 1 { end } else { end.min(self.steps + 4096) };
            self.run_group(cx, slice)?;
        }
    }

    /// Index of the group to run: the one furthest back, unless others have waited too long.
    fn choose(&mut self, cx: &mut Context<'_>) -> Option<usize> {
        for g in &mut self.groups {
            let over = match g.wait {
                Wait::No | Wait::Lanes(_) => continue,
                Wait::Barrier { id, generation } => cx.barriers.generation(id) != generation,
                Wait::Mbarrier { cta, at, phase } => {
                    // One that is gone is the instruction's to report.
                    cx.shared_of(cta).mbarriers.get(at).is_none_or(|b| b.phase != phase)
                }
                Wait::Cluster { generation } => cx.engine.barrier.generation != generation,
                Wait::Registers { more } => cx.engine.pools[cx.rank as usize].free >= more,
            };
            if over {
                if let Wait::Barrier { id, generation } = g.wait {
                    let who = cx.who(self.id, g.mask, g.pc.saturating_sub(1));
                    let bar = Object::Bar { cta: cx.rank, id };
                    cx.events.observe(who, bar, generation, Ordering::Cta);
                }
                g.wait = Wait::No;
            }
        }
        if let [g] = self.groups[..] {
            return (g.wait == Wait::No).then_some(0);
        }
        let ready = || self.groups.iter().enumerate().filter(|(_, g)| g.wait == Wait::No);
        let oldest = ready().min_by_key(|(_, g)| g.turn)?;
        if self.turns > oldest.1.turn + 64 {
            return Some(oldest.0);
        }
        ready().min_by_key(|(_, g)| g.pc).map(|(i, _)| i)
    }

    /// Moves group `at` to the end of the list, with all others that stand at its place.
    fn merge(&mut self, at: usize) {
        let mut g = self.groups.swap_remove(at);
        if !self.groups.is_empty() {
            self.groups.retain(|o| {
                let same = o.pc == g.pc && !o.wait.parked();
                if same {
                    g.mask |= o.mask;
                }
                !same
            });
        }
        g.turn = self.turns;
        self.groups.push(g);
    }

    /// Runs the last group until it ends, blocks, splits, or comes to where another group stands.
    fn run_group(&mut self, cx: &mut Context<'_>, end: u64) -> Result<(), Faulted> {
        let last = self.groups.len() - 1;
        let alone = last == 0;
        let Group { mut pc, mask, .. } = self.groups[last];
        let limit = self.groups[..last]
            .iter()
            .filter(|g| !g.wait.parked() && g.pc > pc)
            .map(|g| g.pc)
            .min()
            .unwrap_or(usize::MAX);
        let program = cx.program;
        let insts = &program.insts[..];
        loop {
            if self.steps >= end || pc == limit {
                self.groups[last].pc = pc;
                return Ok(());
            }
            let inst = &insts[pc];
            self.steps += u64::from(!inst.continued);
            let mut exec = mask;
            if inst.guard != UNGUARDED {
                let p = self.regs.p[usize::from(inst.guard >> 1)];
                exec &= if inst.guard & 1 != 0 { !p } else { p };
            }
            let line = &mut cx.counts[pc];
            line.executions += 1;
            line.lanes += u64::from(exec.count_ones());
            if let Some(trace) = &mut cx.events.trace {
                trace.issue(cx.rank, self.id, pc);
            }
            if inst.check != 0 {
                self.check(program, inst, mask, exec).map_err(|f| Faulted(f, pc))?;
            }
            if exec == 0 {
                pc += 1;
                continue;
            }
            if inst.touch != 0 {
                let touch = program.touches[usize::from(inst.touch)];
                if !self.pending.touch(touch, pc) && cx.events.order.checks.products {
                    return Err(Faulted(self.in_flight(cx, touch), pc));
                }
            }
            match inst.op {
                Op::Alu(f, ref s) => f(cx.arch, &mut self.regs, s, exec),
                Op::Mma(f, at) => {
                    if exec != u32::MAX {
                        if self.wait_for(cx, pc, u32::MAX, exec, mask)? {
                            return Ok(());
                        }
                    } else {
                        let pool = &program.pool[at as usize..];
                        f(cx.arch, &mut self.regs, cx.warpgroups.scratch(), pool);
                    }
                }
                Op::Warpgroup(op) => {
                    if exec != u32::MAX {
                        if self.wait_for(cx, pc, u32::MAX, exec, mask)? {
                            return Ok(());
                        }
                    } else {
                        self.warpgroup(cx, op, pc).map_err(|f| Faulted(f, pc))?;
                    }
                }
                Op::Async(at) => {
                    let aligned = program.asyncs[at as usize].aligned();
                    if aligned && exec != self.alive {
                        if self.wait_for(cx, pc, self.alive, exec, mask)? {
                            return Ok(());
                        }
                    } else {
                        let flow =
                            self.asynchronous(cx, at, pc, exec).map_err(|f| Faulted(f, pc))?;
                        if let Flow::Again(wait) = flow {
                            self.retry(cx, pc, exec, wait);
                            return Ok(());
                        }
                    }
                }
                Op::Ld(at) => self
                    .load(cx, &program.mems[at as usize], pc, exec)
                    .map_err(|f| Faulted(f, pc))?,
                Op::St(at) => {
                    cx.engine.progress += 1;
                    self.store(cx, &program.mems[at as usize], pc, exec)
                        .map_err(|f| Faulted(f, pc))?;
                }
                Op::Ldmatrix(at) => {
                    if exec != u32::MAX {
                        if self.wait_for(cx, pc, u32::MAX, exec, mask)? {
                            return Ok(());
                        }
                    } else {
                        self.ldmatrix(cx, &program.mems[at as usize], pc)
                            .map_err(|f| Faulted(f, pc))?;
                    }
                }
                Op::Stmatrix(at) => {
                    if exec != u32::MAX {
                        if self.wait_for(cx, pc, u32::MAX, exec, mask)? {
                            return Ok(());
                        }
                    } else {
                        self.stmatrix(cx, &program.mems[at as usize], pc)
                            .map_err(|f| Faulted(f, pc))?;
                    }
                }
                Op::CpAsync(at) => self
                    .cp_async(cx, &program.mems[at as usize], pc, exec)
                    .map_err(|f| Faulted(f, pc))?,
                Op::Bra(target) => {
                    let target = target as usize;
                    if exec == mask {
                        pc = target;
                    } else {
                        let g = &mut self.groups[last];
                        (g.mask, g.pc) = (mask & !exec, pc + 1);
                        let turn = g.turn;
                        self.groups.push(Group { pc: target, mask: exec, wait: Wait::No, turn });
                        return Ok(());
                    }
                    if !alone {
                        self.groups[last].pc = pc;
                        return Ok(());
                    }
                    continue;
                }
                Op::Collective(f, ref s, member) => {
                    let members = self.members(member, exec).map_err(|f| Faulted(f, pc))?;
                    let wanted = members & self.alive;
                    if wanted & !exec != 0 {
                        if self.wait_for(cx, pc, members, exec, mask)? {
                            return Ok(());
                        }
                    } else {
                        f(&mut self.regs, s, exec).map_err(|f| Faulted(f, pc))?;
                        if inst.class == Class::Barrier && exec == self.alive {
                            cx.events.order.warp_sync(cx.who(self.id, exec, pc));
                        }
                    }
                }
                Op::Bar(bar) => {
                    if bar.aligned && exec != self.alive {
                        if self.wait_for(cx, pc, self.alive, exec, mask)? {
                            return Ok(());
                        }
                    } else {
                        let blocked =
                            self.barrier(cx, bar, pc, exec, mask).map_err(|f| Faulted(f, pc))?;
                        if blocked {
                            return Ok(());
                        }
                    }
                }
                Op::Atom(at) => {
                    cx.engine.progress += 1;
                    self.atomic(cx, &program.mems[at as usize], pc, exec)
                        .map_err(|f| Faulted(f, pc))?;
                }
                Op::CommitGroup => self.commit_group(exec),
                Op::WaitGroup(n) => self.wait_group(cx, Some(n), exec),
                Op::WaitAll => self.wait_group(cx, None, exec),
                Op::Clock(d, wide) => {
                    if wide {
                        u64::write(&mut self.regs, d, exec, &Row([self.steps; 32]));
                    } else {
                        u32::write(&mut self.regs, d, exec, &Row([self.steps as u32; 32]));
                    }
                }
                Op::Exit => {
                    self.alive &= !exec;
                    self.exit = pc;
                    let late = self.arrived.late(exec, cx.engine.barrier.generation);
                    cx.engine.barrier.leave(exec.count_ones(), late);
                    cx.engine.progress += 1;
                    if self.alive == 0 {
                        // What nobody waited for arrives all the same.
                        self.wait_group(cx, None, u32::MAX);
                        self.leave_warpgroup(cx).map_err(|f| Faulted(f, pc))?;
                    }
                    let g = &mut self.groups[last];
                    (g.mask, g.pc) = (mask & !exec, pc + 1);
                    if g.mask == 0 {
                        self.groups.pop();
                    }
                    return Ok(());
                }
                Op::Trap => {
                    let lane = exec.trailing_zeros();
                    let message = "the kernel executed `trap`".into();
                    return Err(Faulted(Fault::new(FaultKind::Trap, lane, message), pc));
                }
                Op::Nop => {}
            }
            pc += 1;
        }
    }

    /// The group at `pc` needs lanes that are not with it. True if it now waits for them.
    #[cold]
    fn wait_for(
        &mut self,
        cx: &mut Context<'_>,
        pc: usize,
        members: u32,
        exec: u32,
        mask: u32,
    ) -> Result<bool, Faulted> {
        let missing = members & !exec;
        let never = missing & (mask | !self.alive);
        if never != 0 {
            let why = if never & mask != 0 { "its predicate is false" } else { "it has exited" };
            let lane = never.trailing_zeros();
            let message = format!(
                "all of lanes {members:08x} must execute this together, but lane {lane} does not: \
                 {why}"
            );
            return Err(Faulted(Fault::new(FaultKind::Divergence, lane, message), pc));
        }
        self.retry(cx, pc, exec, Wait::Lanes(members));
        Ok(true)
    }

    /// The group waits, then executes, and is counted for, the instruction again.
    #[cold]
    fn retry(&mut self, cx: &mut Context<'_>, pc: usize, exec: u32, wait: Wait) {
        let line = &mut cx.counts[pc];
        line.executions -= 1;
        line.lanes -= u64::from(exec.count_ones());
        self.steps -= 1;
        if let Some(trace) = &mut cx.events.trace {
            trace.take_back(cx.rank, self.id);
        }
        if let Some(g) = self.groups.last_mut() {
            (g.pc, g.wait) = (pc, wait);
        }
    }

    /// The member mask, which must be one for all and name every executing lane.
    #[inline(always)]
    fn members(&self, slot: u16, exec: u32) -> Result<u32, Box<Fault>> {
        let row = &self.regs.r32[usize::from(slot)];
        let members = row[exec.trailing_zeros() as usize & 31];
        if exec & !members == 0 {
            return Ok(members);
        }
        let lane = (exec & !members).trailing_zeros();
        Err(Fault::new(
            FaultKind::Divergence,
            lane,
            format!(
                "lane {lane} executes this, but the member mask {members:08x} does not name it"
            ),
        ))
    }

    /// Initialisation of tracked registers: refuses reads, notes writes.
    #[cold]
    fn check(
        &mut self,
        program: &Program,
        inst: &Inst,
        mask: u32,
        exec: u32,
    ) -> Result<(), Box<Fault>> {
        let c = &program.checks[inst.check as usize];
        let guard = c.guard.iter().map(|&r| (r, mask));
        for (r, mask) in guard.chain(c.reads.iter().map(|&r| (r, exec))) {
            self.check_read(program, r, mask)?;
        }
        if !c.maybe.is_empty() {
            let exec = exec & self.maybe_reads(program, inst);
            for &r in &c.maybe {
                self.check_read(program, r, exec)?;
            }
        }
        for &w in &c.writes {
            self.init[usize::from(w)] |= exec;
        }
        Ok(())
    }

    fn check_read(&self, program: &Program, r: u16, mask: u32) -> Result<(), Box<Fault>> {
        let missing = mask & !self.init[usize::from(r)];
        if missing == 0 {
            return Ok(());
        }
        Err(Fault::new(
            FaultKind::Uninitialised,
            missing.trailing_zeros(),
            format!(
                "register `{}` is read before anything is written to it",
                program.tracked[usize::from(r)]
            ),
        ))
    }

    /// Arrives at a barrier. True if the group now waits.
    fn barrier(
        &mut self,
        cx: &mut Context<'_>,
        bar: Bar,
        pc: usize,
        exec: u32,
        mask: u32,
    ) -> Result<bool, Box<Fault>> {
        let lane = exec.trailing_zeros();
        let value = |slot: u16| self.regs.r32[usize::from(slot)][lane as usize & 31];
        let id = value(bar.id);
        if id > 15 {
            return Err(Fault::new(FaultKind::Operand, lane, format!("there is no barrier {id}")));
        }
        let count = if bar.count == UNGUARDED { None } else { Some(value(bar.count)) };
        if let Some(n) = count
            && (n == 0 || n % 32 != 0)
        {
            let message = format!("a barrier for {n} threads; it must be a multiple of 32");
            return Err(Fault::new(FaultKind::Operand, lane, message));
        }
        if mask != exec && !bar.arrive {
            // Lanes whose predicate is false go on alone.
            let g = &mut self.groups[..];
            let Some(g) = g.last_mut() else { return Ok(false) };
            let rest = Group { pc: pc + 1, mask: mask & !exec, ..*g };
            g.mask = exec;
            let at = self.groups.len() - 1;
            self.groups.insert(at, rest);
        }
        let votes = bar.reduce.map(|(_, p, _)| {
            let v = self.regs.p[usize::from(p >> 1)];
            (if p & 1 != 0 { !v } else { v }) & exec
        });
        // A barrier counts 32 threads for a warp of which all living lanes come.
        let arriving = if exec == self.alive { 32 } else { exec.count_ones() };
        let generation = cx.barriers.generation(id);
        let who = self.who(cx.rank, exec, pc);
        let release = cx.barriers.arrive(id, (who, arriving), count, votes.map(|v| (v, exec)))?;
        let object = Object::Bar { cta: cx.rank, id };
        cx.events.arrive(who, object, generation, Ordering::Cta);
        cx.engine.progress += 1;
        if bar.arrive {
            return Ok(false);
        }
        if let Some((op, _, d)) = bar.reduce {
            // Its result is fetched when the group runs again.
            self.reductions.push((exec, id, generation, op, d));
        }
        let wait = match release {
            Release::Open => {
                cx.events.observe(who, object, generation, Ordering::Cta);
                Wait::No
            }
            Release::Waiting => Wait::Barrier { id, generation },
        };
        if let Some(g) = self.groups.last_mut() {
            (g.pc, g.wait) = (pc + 1, wait);
        }
        Ok(true)
    }

    /// Writes the results of `bar.red` whose barrier has completed.
    pub fn collect(&mut self, barriers: &Barriers) {
        let mut k = 0;
        while k < self.reductions.len() {
            let (exec, id, generation, op, d) = self.reductions[k];
            if barriers.generation(id) == generation {
                k += 1;
                continue;
            }
            let (yes, of) = barriers.result(id);
            match op {
                Reduce::Popc => u32::write(&mut self.regs, d, exec, &Row([yes; 32])),
                Reduce::And => {
                    put(&mut self.regs.p[usize::from(d)], exec, u32::from(yes == of).wrapping_neg())
                }
                Reduce::Or => {
                    put(&mut self.regs.p[usize::from(d)], exec, u32::from(yes > 0).wrapping_neg())
                }
            }
            self.reductions.swap_remove(k);
        }
    }
}
