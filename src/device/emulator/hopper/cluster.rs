//! A cluster: its CTAs run together, warp by warp, until all are done or none can go on.

use super::flight::Failed;
use super::registers::Pool;
use super::{Engine, Flow};
use crate::device::emulator::access::lanes;
use crate::device::emulator::cta::{Cta, Dims};
use crate::device::emulator::events::{Events, Object, Ordering, Who};
use crate::device::emulator::launch::Runner;
use crate::device::emulator::memory::Shared;
use crate::device::emulator::order::Checks;
use crate::device::emulator::program::Program;
use crate::device::emulator::timing::Trace;
use crate::device::emulator::trap::{Fault, FaultKind};
use crate::device::emulator::warp::{Context, Faulted, Group, Turn, Wait, Warp};

/// Steps of a warp before the next has its turn.
const QUANTUM: u64 = 1 << 14;
/// Rounds of all warps, some of them parked, after which copies land although other warps still
/// move: those may be spinning.
const PATIENCE: u32 = 8;

/// Requests of a cluster that are written down for the model of L2: half a GiB.
const MOST_REQUESTS: usize = 1 << 26;

/// Steps that a cluster may go on after a read of what is unwritten, for a race to explain it.
const RESPITE: u64 = 1 << 20;

/// Shared memories of the other CTAs of a cluster.
pub struct Peers<'a> {
    pub before: &'a mut [Shared],
    pub after: &'a mut [Shared],
}

impl Peers<'_> {
    /// CTAs of the cluster, the own one included.
    pub fn count(&self) -> u32 {
        (self.before.len() + 1 + self.after.len()) as u32
    }

    /// The shared memory of another rank of the cluster.
    pub fn get(&mut self, rank: u32) -> &mut Shared {
        let rank = rank as usize;
        match rank.checked_sub(self.before.len() + 1) {
            Some(i) => &mut self.after[i],
            None => &mut self.before[rank],
        }
    }
}

/// `barrier.cluster`.
#[derive(Debug, Clone, Default)]
pub struct ClusterBarrier {
    pub generation: u64,
    /// Threads that have not exited, and those of them that have not arrived.
    alive: u32,
    missing: u32,
}

impl ClusterBarrier {
    fn new(threads: u32) -> ClusterBarrier {
        ClusterBarrier { generation: 0, alive: threads, missing: threads }
    }

    fn arrive(&mut self, threads: u32) {
        self.missing -= threads;
        if self.missing == 0 {
            self.generation += 1;
            self.missing = self.alive;
        }
    }

    /// Threads that have not arrived, of those that have not exited.
    pub fn missing(&self) -> (u32, u32) {
        (self.missing, self.alive)
    }

    /// Threads exit; `late` of them had not arrived in this generation.
    pub fn leave(&mut self, threads: u32, late: u32) {
        self.alive -= threads;
        self.arrive(late);
    }
}

/// Where a warp's lanes stand with `barrier.cluster`.
#[derive(Debug, Clone, Default)]
pub struct Arrived {
    /// Lanes that have arrived and not waited yet.
    pub mask: u32,
    generation: [u64; 32],
}

impl Arrived {
    /// How many lanes of `of` have not arrived in a generation.
    pub fn late(&self, of: u32, generation: u64) -> u32 {
        let here = lanes(self.mask & of).filter(|&l| self.generation[l as usize] == generation);
        of.count_ones() - here.count() as u32
    }
}

impl Warp {
    /// The lanes of `exec` arrive at the cluster's barrier.
    ///
    /// # Errors
    /// A thread that has arrived already and has not waited since.
    pub fn cluster_arrive(
        &mut self,
        cx: &mut Context<'_>,
        order: Ordering,
        pc: usize,
        exec: u32,
    ) -> Result<(), Box<Fault>> {
        if exec & self.arrived.mask != 0 {
            let lane = (exec & self.arrived.mask).trailing_zeros();
            let message = "barrier.cluster.arrive by a thread that has arrived already: \
                           barrier.cluster.wait comes in between"
                .to_owned();
            return Err(Fault::new(FaultKind::Divergence, lane, message));
        }
        let generation = cx.engine.barrier.generation;
        self.arrived.mask |= exec;
        for lane in lanes(exec) {
            self.arrived.generation[lane as usize] = generation;
        }
        let who = self.who(cx.rank, exec, pc);
        cx.events.arrive(who, Object::Cluster, generation, order);
        cx.engine.barrier.arrive(exec.count_ones());
        cx.engine.progress += 1;
        Ok(())
    }

    /// The lanes of `exec` wait until all threads of the cluster have arrived.
    ///
    /// # Errors
    /// A thread that has not arrived.
    pub fn cluster_wait(
        &mut self,
        cx: &mut Context<'_>,
        order: Ordering,
        pc: usize,
        exec: u32,
    ) -> Result<Flow, Box<Fault>> {
        let without = exec & !self.arrived.mask;
        if without != 0 {
            let message = "barrier.cluster.wait by a thread that has not arrived".to_owned();
            return Err(Fault::new(FaultKind::Divergence, without.trailing_zeros(), message));
        }
        let now = cx.engine.barrier.generation;
        let latest = lanes(exec).map(|l| self.arrived.generation[l as usize]).max().unwrap_or(0);
        if latest == now {
            return Ok(Flow::Again(Wait::Cluster { generation: now }));
        }
        self.arrived.mask &= !exec;
        let who = self.who(cx.rank, exec, pc);
        cx.events.observe(who, Object::Cluster, latest, order);
        Ok(Flow::Next)
    }
}

/// A fault with its place.
pub struct Halt {
    pub faulted: Faulted,
    /// Rank of the CTA.
    pub rank: u32,
    pub warp: Option<u32>,
}

impl Halt {
    fn of((fault, who): Failed) -> Halt {
        Halt { faulted: Faulted(fault, who.pc), rank: who.cta, warp: Some(who.warp) }
    }
}

/// The CTAs of a cluster with their memories, reused from cluster to cluster.
pub struct Cluster {
    pub(super) ctas: Vec<Cta>,
    pub(super) shared: Vec<Shared>,
    pub(super) engine: Engine,
    pub(super) events: Events,
    dims: Dims,
}

impl Cluster {
    /// Room for the CTAs of a cluster; [`Cluster::run`] makes them ready.
    pub fn new(program: &Program, dims: Dims, checks: Checks) -> Cluster {
        let n = dims.cluster.iter().product::<u32>();
        Cluster {
            ctas: (0..n).map(|rank| Cta::new(program, dims, rank)).collect(),
            shared: (0..n).map(|_| Shared::checked(dims.total_shared, checks)).collect(),
            engine: Engine { checks, ..Engine::default() },
            events: Events::new(checks),
            dims,
        }
    }

    fn reset(&mut self, index: u64, program: &Program, oldest: u64) {
        let n = self.ctas.len() as u32;
        let warps = self.dims.threads().div_ceil(32);
        for (cta, shared) in self.ctas.iter_mut().zip(&mut self.shared) {
            shared.reset();
            cta.reset(program, index, self.events.order.checks);
        }
        let number = oldest + index * u64::from(n);
        self.events.reset((n, warps), self.dims.total_shared, number, oldest);
        let barrier = ClusterBarrier::new(n * self.dims.threads());
        self.engine.reset(barrier, (0..n).map(|_| Pool::new(program, warps)));
    }

    /// Runs cluster `index` from start to end and gives the most warp instructions of a CTA.
    ///
    /// # Errors
    /// The first fault of a thread, a deadlock, more than `limit` warp instructions in a CTA, or more
    /// requests than L2's model keeps. A read of something unwritten that came earlier is reported
    /// instead, unless a race, a missing proxy fence or a copy in flight explains it.
    pub fn run(
        &mut self,
        index: u64,
        limit: u64,
        program: &Program,
        runner: Runner<'_>,
    ) -> Result<u64, Halt> {
        self.reset(index, program, runner.number);
        self.events.trace = runner.trace.then(|| {
            Box::new(Trace::new(self.ctas.len() as u32, self.dims.threads().div_ceil(32)))
        });
        let done = self.execute(limit, program, runner);
        // A fault that came after the read of something unwritten is most likely the read's
        // consequence, unless it is of a kind that explains the read.
        let explains = |halt: &Halt| {
            matches!(halt.faulted.0.kind, FaultKind::Race | FaultKind::Proxy | FaultKind::InFlight)
        };
        let done = match self.events.order.take_deferred() {
            Some((fault, who)) if !done.as_ref().is_err_and(explains) => {
                Err(Halt::of((fault, who)))
            }
            _ => done,
        };
        done.map_err(|mut halt| {
            self.events.order.name(&mut halt.faulted.0);
            halt
        })
    }

    /// The trace of the latest run, where it was asked for and could be kept.
    pub fn take_trace(&mut self) -> Option<Box<Trace>> {
        self.events.trace.take().filter(|trace| trace.whole())
    }

    fn execute(
        &mut self,
        limit: u64,
        program: &Program,
        mut runner: Runner<'_>,
    ) -> Result<u64, Halt> {
        let mut last = None;
        let mut left = self.ctas.len();
        let mut rounds = 0;
        while left > 0 {
            let (mut moved, mut parked) = (false, false);
            for rank in 0..self.ctas.len() {
                if self.ctas[rank].left == 0 {
                    continue;
                }
                let before = self.ctas[rank].steps;
                moved |= self.round(rank, program, &mut runner, &mut parked)?;
                let cta = &self.ctas[rank];
                if cta.left == 0 {
                    self.end(rank as u32, &runner)?;
                    left -= 1;
                    moved = true;
                } else if cta.steps > limit {
                    return Err(self.endless(rank as u32, limit));
                } else if runner.stream.as_ref().is_some_and(|s| s.len() > MOST_REQUESTS) {
                    return Err(self.too_many_requests(rank as u32));
                }
                moved |= self.ctas[rank].steps != before;
            }
            if self.events.order.is_deferred() {
                let steps: u64 = self.ctas.iter().map(|c| c.steps).sum();
                if steps > *last.get_or_insert(steps.saturating_add(RESPITE)) {
                    break;
                }
            }
            rounds = if moved && parked { rounds + 1 } else { 0 };
            if left > 0 && (!moved || rounds >= PATIENCE) {
                rounds = 0;
                if !self.unblock()? && !moved {
                    return Err(self.stuck(program));
                }
            }
        }
        Ok(self.ctas.iter().map(|c| c.steps).max().unwrap_or(0))
    }

    /// Gives each warp of a CTA a turn. True if one moved; `parked` is set if one waits.
    fn round(
        &mut self,
        rank: usize,
        program: &Program,
        runner: &mut Runner<'_>,
        parked: &mut bool,
    ) -> Result<bool, Halt> {
        let mut moved = false;
        let cta = &mut self.ctas[rank];
        let (before, rest) = self.shared.split_at_mut(rank);
        let Some((shared, after)) = rest.split_first_mut() else { return Ok(false) };
        for (w, warp) in cta.warps.iter_mut().enumerate() {
            if cta.done[w] {
                continue;
            }
            let steps = warp.steps;
            let mut cx = Context {
                arch: runner.arch,
                program,
                global: runner.global,
                params: runner.params,
                shared,
                peers: Peers { before, after },
                rank: rank as u32,
                barriers: &mut cta.barriers,
                engine: &mut self.engine,
                events: &mut self.events,
                warpgroups: &mut cta.warpgroups,
                counts: runner.counts,
                stream: runner.stream.as_deref_mut(),
            };
            let turn = warp.run(&mut cx, QUANTUM).map_err(|faulted| Halt {
                faulted,
                rank: rank as u32,
                warp: Some(w as u32),
            })?;
            moved |= warp.steps != steps;
            cta.steps += warp.steps - steps;
            match turn {
                Turn::Done => {
                    cta.done[w] = true;
                    cta.left -= 1;
                    cta.last = w;
                    moved = true;
                    cta.barriers.leave();
                }
                Turn::Blocked => *parked = true,
                Turn::Paused => {}
            }
        }
        Ok(moved)
    }

    /// A CTA has come to its end: nothing may use its memory any longer.
    fn end(&mut self, rank: u32, runner: &Runner<'_>) -> Result<(), Halt> {
        let cta = &self.ctas[rank as usize];
        let exit = cta.warps[cta.last].left(rank);
        let checks = self.events.order.checks;
        let lost = |who: Who, why: &str| {
            let message = format!("{why}; its memory is gone before it is done");
            let fault = Fault::new(FaultKind::InFlight, who.lanes.trailing_zeros(), message);
            Err(Halt::of((fault.against(Some((exit, "exited, its CTA's last"))), who)))
        };
        self.shared[rank as usize].exited = Some(exit);
        if !checks.in_flight {
            self.engine.drop_flights(rank);
        }
        for f in &self.engine.flights {
            let from = f.load.from().map_or(f.signal.0, |from| from.cta);
            if matches!(f.load, super::Load::Copies { .. }) {
                continue;
            }
            if f.signal.0 == rank {
                return lost(
                    f.who,
                    "the CTA ends while a copy into its shared memory is in flight",
                );
            }
            if from == rank {
                return lost(f.who, "the CTA ends while a copy still reads its shared memory");
            }
        }
        let mut i = 0;
        while i < self.engine.stores.len() {
            let s = &self.engine.stores[i];
            if s.reading && s.from.cta == rank && checks.in_flight {
                return lost(
                    s.who,
                    "the CTA ends while a bulk store still reads its shared memory \
                     (cp.async.bulk.wait_group.read waits for that)",
                );
            }
            if s.who.cta == rank {
                self.engine.end_store(i).perform(runner.global);
            } else {
                i += 1;
            }
        }
        if let Some((warp, ahead, pc)) = self.engine.pools[rank as usize].uneven() {
            let group = warp / 4 * 4;
            let message = format!(
                "setmaxnreg that warp {warp} never executed, but others of warps {group} to {} \
                 did: all warps of a warpgroup must",
                group + 3
            );
            let other = Who { cta: rank, warp: ahead as u32, lanes: u32::MAX, pc };
            let fault = Fault::new(FaultKind::Registers, None, message);
            let fault = fault.against(Some((other, "executed it")));
            return Err(Halt { faulted: Faulted(fault, pc), rank, warp: Some(warp as u32) });
        }
        Ok(())
    }

    fn endless(&self, rank: u32, limit: u64) -> Halt {
        let cta = &self.ctas[rank as usize];
        let pc = cta.warps.iter().find_map(|w| w.groups.first()).map_or(0, |g| g.pc);
        let message = format!(
            "the CTA has executed {} warp instructions without coming to its end; the limit is \
             {limit}",
            cta.steps
        );
        let fault = Fault::new(FaultKind::StepLimit, None, message);
        Halt { faulted: Faulted(fault, pc), rank, warp: None }
    }

    fn too_many_requests(&self, rank: u32) -> Halt {
        let cta = &self.ctas[rank as usize];
        let pc = cta.warps.iter().find_map(|w| w.groups.first()).map_or(0, |g| g.pc);
        let message = format!(
            "the cluster has made more than {MOST_REQUESTS} requests to global memory, in {} warp \
             instructions of this CTA: the model of L2 takes no more of one cluster",
            cta.steps
        );
        let fault = Fault::new(FaultKind::StepLimit, None, message);
        Halt { faulted: Faulted(fault, pc), rank, warp: None }
    }

    /// The groups that wait for an mbarrier: CTA, warp, group.
    fn waiters(&self) -> Vec<(usize, usize, Group)> {
        let mut out = Vec::new();
        for (c, cta) in self.ctas.iter().enumerate() {
            for (w, warp) in cta.warps.iter().enumerate() {
                let waits = warp.groups.iter().filter(|g| matches!(g.wait, Wait::Mbarrier { .. }));
                out.extend(waits.map(|g| (c, w, *g)));
            }
        }
        out
    }

    /// Lets somebody go on: lands what is waited for, or else lets a poll say no.
    fn unblock(&mut self) -> Result<bool, Halt> {
        let waiters = self.waiters();
        for (_, _, g) in &waiters {
            let Wait::Mbarrier { cta, at, phase } = g.wait else { continue };
            let phase_of = |shared: &[Shared]| {
                shared[cta as usize].mbarriers.get(at).map_or(u64::MAX, |b| b.phase)
            };
            while phase_of(&self.shared) <= phase {
                let next = self.engine.flights.iter().position(|f| f.signal == (cta, at));
                let Some(i) = next else { break };
                self.engine
                    .land(i, &mut self.shared, &mut self.ctas, &mut self.events)
                    .map_err(Halt::of)?;
            }
            if phase_of(&self.shared) > phase {
                return Ok(true);
            }
        }
        // A wait may come back without success, but while nothing happens only once at each place.
        let progress = self.engine.progress;
        for (c, w, g) in waiters {
            let warp = &mut self.ctas[c].warps[w];
            if warp.refused.0 != progress {
                warp.refused = (progress, Vec::new());
            }
            if warp.refused.1.contains(&g.pc) {
                continue;
            }
            warp.refused.1.push(g.pc);
            warp.forced = Some(g.pc);
            if let Some(mine) = warp.groups.iter_mut().find(|o| **o == g) {
                mine.wait = Wait::No;
                return Ok(true);
            }
        }
        Ok(false)
    }
}
