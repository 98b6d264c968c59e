//! A CTA: its warps take turns until all are done or none can go on.

use super::events::Events;
use super::launch::Runner;
use super::memory::Shared;
use super::program::{Op, Preset, Program, Slot};
use super::regs::Row;
use super::trap::{Fault, FaultKind};
use super::warp::{Faulted, Turn, Wait, Warp};

/// Steps of a warp before the next has its turn.
const QUANTUM: u64 = 1 << 14;

#[derive(Debug, Clone, Copy, Default)]
struct Barrier {
    arrived: u32,
    /// Threads that this generation waits for, where an instruction said so.
    expected: Option<u32>,
    used: bool,
    generation: u64,
    votes: u32,
    voters: u32,
    result: (u32, u32),
}

pub enum Release {
    /// The last to arrive: nobody waits any longer.
    Open,
    Waiting,
}

/// The sixteen barriers of a CTA.
#[derive(Debug, Clone, Default)]
pub struct Barriers {
    state: [Barrier; 16],
    /// Threads of warps that have not exited, in whole warps.
    threads: u32,
}

impl Barriers {
    pub fn new(warps: u32) -> Barriers {
        Barriers { state: Default::default(), threads: 32 * warps }
    }

    pub fn generation(&self, id: u32) -> u64 {
        self.state[id as usize].generation
    }

    /// Of the last generation of `bar.red`: how many said yes, of how many.
    pub fn result(&self, id: u32) -> (u32, u32) {
        self.state[id as usize].result
    }

    /// `count` is the number of threads that take part, all if `None`.
    pub fn arrive(
        &mut self,
        id: u32,
        threads: u32,
        count: Option<u32>,
        votes: Option<(u32, u32)>,
    ) -> Result<Release, String> {
        let all = self.threads;
        let b = &mut self.state[id as usize];
        if b.used && b.expected != count {
            let say = |c: Option<u32>| c.map_or("all".into(), |c| c.to_string());
            return Err(format!(
                "barrier {id} is waiting for {} threads; this instruction says {}",
                say(b.expected),
                say(count)
            ));
        }
        (b.used, b.expected) = (true, count);
        b.arrived += threads;
        if let Some((yes, of)) = votes {
            b.votes += yes.count_ones();
            b.voters += of.count_ones();
        }
        let wanted = count.unwrap_or(all);
        if b.arrived > wanted {
            return Err(format!("{} threads at barrier {id}, which is for {wanted}", b.arrived));
        }
        Ok(if b.arrived == wanted {
            b.complete();
            Release::Open
        } else {
            Release::Waiting
        })
    }

    /// A warp has exited: nobody waits for it at barriers for all.
    fn leave(&mut self) {
        self.threads -= 32;
        for b in &mut self.state {
            if b.used && b.expected.is_none() && b.arrived >= self.threads {
                b.complete();
            }
        }
    }

    fn describe(&self, id: u32) -> String {
        let b = &self.state[id as usize];
        format!(
            "barrier {id}, {} of {} threads arrived",
            b.arrived,
            b.expected.unwrap_or(self.threads)
        )
    }
}

impl Barrier {
    fn complete(&mut self) {
        *self = Barrier {
            generation: self.generation + 1,
            result: (self.votes, self.voters),
            ..Barrier::default()
        };
    }
}

/// Numbers of a launch that special registers show.
#[derive(Debug, Clone, Copy)]
pub struct Dims {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub dynamic_shared: u32,
    pub total_shared: u32,
}

impl Dims {
    pub fn threads(&self) -> u32 {
        self.block.iter().product()
    }

    /// Coordinates of a thread of a CTA.
    pub fn thread(&self, t: u32) -> [u32; 3] {
        let [x, y, _] = self.block;
        [t % x, t / x % y, t / (x * y)]
    }

    pub fn cta(&self, i: u64) -> [u32; 3] {
        let [x, y, _] = self.grid.map(u64::from);
        [(i % x) as u32, (i / x % y) as u32, (i / (x * y)) as u32]
    }
}

/// Warps and shared memory, reused from CTA to CTA.
pub struct Cta {
    pub warps: Vec<Warp>,
    pub shared: Shared,
    events: Events,
    dims: Dims,
}

impl Cta {
    pub fn new(program: &Program, dims: Dims) -> Cta {
        let n = dims.threads().div_ceil(32);
        let mut cta = Cta {
            warps: (0..n).map(|_| Warp::new(program)).collect(),
            shared: Shared::new(dims.total_shared),
            events: Events::default(),
            dims,
        };
        for w in 0..n as usize {
            cta.preset(program, w, [0; 3], true);
        }
        cta
    }

    /// Fills the registers that a warp finds filled; `all`, or those that differ between CTAs.
    fn preset(&mut self, program: &Program, w: usize, cta: [u32; 3], all: bool) {
        let d = self.dims;
        let regs = &mut self.warps[w].regs;
        for &(slot, preset) in &program.presets {
            let lane = |f: &dyn Fn(u32) -> u64| Row(std::array::from_fn(|i| f(i as u32)));
            let v = match preset {
                Preset::Ctaid(a) => Row::splat(cta[usize::from(a)].into()),
                _ if !all => continue,
                Preset::Const(c) => Row::splat(c),
                Preset::Tid(a) => lane(&|i| d.thread(32 * w as u32 + i)[usize::from(a)].into()),
                Preset::Ntid(a) => Row::splat(d.block[usize::from(a)].into()),
                Preset::Nctaid(a) => Row::splat(d.grid[usize::from(a)].into()),
                Preset::Laneid => lane(&u64::from),
                Preset::Warpid => Row::splat(w as u64),
                Preset::Nwarpid => Row::splat(d.threads().div_ceil(32).into()),
                Preset::Lanemask(k) => lane(&|i| {
                    let eq = 1u32 << i;
                    u64::from(match k {
                        0 => eq,
                        1 => eq | (eq - 1),
                        2 => eq - 1,
                        3 => !(eq - 1),
                        _ => !(eq | (eq - 1)),
                    })
                }),
                Preset::DynamicShared => Row::splat(d.dynamic_shared.into()),
                Preset::TotalShared => Row::splat(d.total_shared.into()),
                Preset::ExternShared(offset) => {
                    Row::splat(u64::from(program.dynamic_start()).wrapping_add(offset))
                }
            };
            match slot {
                Slot::R32(r) => regs.r32[usize::from(r)] = Row(v.map(|x| x as u32)),
                Slot::R64(r) => regs.r64[usize::from(r)] = v,
                Slot::P(p) => regs.p[usize::from(p)] = if v[0] != 0 { u32::MAX } else { 0 },
            }
        }
    }

    /// Runs CTA `cta` from start to end and gives its warp instructions. On a fault, also says which warp it was.
    pub fn run(
        &mut self,
        cta: [u32; 3],
        limit: u64,
        program: &Program,
        mut runner: Runner<'_>,
    ) -> Result<u64, (Faulted, Option<u32>)> {
        let threads = self.dims.threads();
        self.shared.reset();
        self.events.reset(1, self.warps.len() as u32);
        for w in 0..self.warps.len() {
            let lanes = (threads - 32 * w as u32).min(32);
            self.warps[w].reset(w as u32, u32::MAX >> (32 - lanes));
            self.preset(program, w, cta, false);
        }
        let mut barriers = Barriers::new(self.warps.len() as u32);
        let mut done = vec![false; self.warps.len()];
        let mut left = self.warps.len();
        let mut steps = 0;
        while left > 0 {
            let mut moved = false;
            for (w, warp) in self.warps.iter_mut().enumerate() {
                if done[w] {
                    continue;
                }
                let before = warp.steps;
                let mut cx = runner.context(&mut self.shared, &mut barriers, &mut self.events);
                let turn = warp.run(&mut cx, QUANTUM).map_err(|f| (f, Some(w as u32)))?;
                moved |= warp.steps != before;
                steps += warp.steps - before;
                if turn == Turn::Done {
                    done[w] = true;
                    left -= 1;
                    moved = true;
                    barriers.leave();
                }
            }
            if !moved {
                return Err(self.stuck(&barriers, program));
            }
            if steps > limit {
                let pc = self.warps.iter().find_map(|w| w.groups.first()).map_or(0, |g| g.pc);
                let message = format!(
                    "the CTA has executed {steps} warp instructions without coming to its end; \
                     the limit is {limit}"
                );
                return Err((Faulted(Fault::new(FaultKind::StepLimit, None, message), pc), None));
            }
        }
        Ok(steps)
    }

    /// Nobody can go on: says who waits where.
    fn stuck(&self, barriers: &Barriers, program: &Program) -> (Faulted, Option<u32>) {
        let mut lines = Vec::new();
        let mut first = None;
        let mut kind = FaultKind::Deadlock;
        for w in &self.warps {
            for g in &w.groups {
                let (what, pc) = match g.wait {
                    Wait::Barrier { id, .. } => (barriers.describe(id), g.pc.saturating_sub(1)),
                    Wait::Lanes(members) => {
                        kind = FaultKind::Divergence;
                        let missing = members & !g.mask;
                        let what = match program.insts[g.pc].op {
                            Op::Bar(_) => "a barrier of the whole warp",
                            _ => "a warp-wide instruction",
                        };
                        (format!("lanes {missing:08x} at {what}"), g.pc)
                    }
                    Wait::No => ("its turn".into(), g.pc),
                };
                lines.push(format!(
                    "  warp {} lanes {:08x} at PTX line {} for {what}",
                    w.id, g.mask, program.insts[pc].line
                ));
                if first.is_none()
                    || matches!(g.wait, Wait::Lanes(_)) && kind == FaultKind::Divergence
                {
                    first.get_or_insert((pc, w.id));
                }
            }
        }
        let (pc, warp) = first.unwrap_or((0, 0));
        let head = if kind == FaultKind::Divergence {
            "threads that must execute an instruction together have parted for good"
        } else {
            "deadlock"
        };
        let message = format!("{head}; these wait:\n{}", lines.join("\n"));
        (Faulted(Fault::new(kind, None, message), pc), Some(warp))
    }
}
