//! A CTA: its warps, its barriers, and the registers that a warp finds filled.

use super::events::Who;
use super::order::Checks;
use super::program::{Preset, Program, Slot};
use super::regs::Row;
use super::trap::{Fault, FaultKind};
use super::warp::Warp;
use super::wgmma::Warpgroups;

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
    /// Warps, one bit each, that have arrived, and that had in the generation before.
    here: u32,
    before: u32,
    /// The latest to arrive.
    last: Option<Who>,
}

/// What an arrival at a barrier did.
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
    /// The barriers of a CTA of so many warps.
    pub fn new(warps: u32) -> Barriers {
        Barriers { state: Default::default(), threads: 32 * warps }
    }

    /// How often barrier `id` has been completed.
    pub fn generation(&self, id: u32) -> u64 {
        self.state[id as usize].generation
    }

    /// How many threads said yes in the last generation of `bar.red`, and how many were asked.
    pub fn result(&self, id: u32) -> (u32, u32) {
        self.state[id as usize].result
    }

    /// `count` is the number of threads that take part, all if `None`.
    ///
    /// # Errors
    /// More threads than take part, or instructions that disagree on how many do.
    pub fn arrive(
        &mut self,
        id: u32,
        (who, threads): (Who, u32),
        count: Option<u32>,
        votes: Option<(u32, u32)>,
    ) -> Result<Release, Box<Fault>> {
        let all = self.threads;
        let b = &mut self.state[id as usize];
        let refuse = |b: &Barrier, message| {
            let other = b.last.map(|who| (who, "arrived there last"));
            let lane = who.lanes.trailing_zeros();
            Err(Fault::new(FaultKind::Divergence, lane, message).against(other))
        };
        if b.used && b.expected != count {
            let say = |c: Option<u32>| c.map_or("all".into(), |c| c.to_string());
            let message = format!(
                "barrier {id} is waiting for {} threads; this instruction says {}",
                say(b.expected),
                say(count)
            );
            return refuse(b, message);
        }
        (b.used, b.expected) = (true, count);
        b.arrived += threads;
        if let Some((yes, of)) = votes {
            b.votes += yes.count_ones();
            b.voters += of.count_ones();
        }
        let wanted = count.unwrap_or(all);
        if b.arrived > wanted {
            let message = format!("{} threads at barrier {id}, which is for {wanted}", b.arrived);
            return refuse(b, message);
        }
        b.here |= 1 << (who.warp % 32);
        b.last = Some(who);
        Ok(if b.arrived == wanted {
            b.complete();
            Release::Open
        } else {
            Release::Waiting
        })
    }

    /// A warp has exited: nobody waits for it at barriers for all.
    pub fn leave(&mut self) {
        self.threads -= 32;
        for b in &mut self.state {
            if b.used && b.expected.is_none() && b.arrived >= self.threads {
                b.complete();
            }
        }
    }

    /// Warps that have not arrived, one bit each, and true if the barrier waits for them: it is for
    /// all, or they arrived in the generation before. With false, any of them might come.
    pub fn late(&self, id: u32) -> (u32, bool) {
        let b = &self.state[id as usize];
        match b.before & !b.here {
            _ if b.expected.is_none() => (!b.here, true),
            0 => (!b.here, false),
            again => (again, true),
        }
    }

    /// `barrier 1, 32 of 64 threads arrived`
    pub fn describe(&self, id: u32) -> String {
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
            before: self.here,
            ..Barrier::default()
        };
    }
}

/// Numbers of a launch that special registers show.
#[derive(Debug, Clone, Copy)]
pub struct Dims {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    /// CTAs of a cluster along each axis.
    pub cluster: [u32; 3],
    pub dynamic_shared: u32,
    pub total_shared: u32,
}

impl Dims {
    /// Threads of a CTA.
    pub fn threads(&self) -> u32 {
        self.block.iter().product()
    }

    /// Coordinates of a thread of a CTA.
    pub fn thread(&self, t: u32) -> [u32; 3] {
        let [x, y, _] = self.block;
        [t % x, t / x % y, t / (x * y)]
    }

    /// Clusters along each axis of the grid.
    pub fn clusters(&self) -> [u32; 3] {
        std::array::from_fn(|a| self.grid[a] / self.cluster[a])
    }

    /// Coordinates of the `rank`-th CTA of cluster `i`.
    pub fn cta(&self, i: u64, rank: u32) -> [u32; 3] {
        let (of, within) = (unravel(i, self.clusters()), unravel(rank.into(), self.cluster));
        std::array::from_fn(|a| of[a] * self.cluster[a] + within[a])
    }
}

/// Coordinates of the `i`-th place of a box, along x first.
fn unravel(i: u64, [x, y, _]: [u32; 3]) -> [u32; 3] {
    let (x, y) = (u64::from(x), u64::from(y));
    [(i % x) as u32, (i / x % y) as u32, (i / (x * y)) as u32]
}

/// The warps of a CTA, reused from cluster to cluster.
pub struct Cta {
    pub warps: Vec<Warp>,
    pub barriers: Barriers,
    pub warpgroups: Warpgroups,
    /// Warps that have come to their end, how many have not, and the latest that has.
    pub done: Vec<bool>,
    pub left: usize,
    pub last: usize,
    /// Warp instructions executed.
    pub steps: u64,
    /// Its rank in the cluster.
    rank: u32,
    dims: Dims,
}

impl Cta {
    /// Room for the warps of the CTA of this rank; [`Cta::reset`] makes them ready.
    pub fn new(program: &Program, dims: Dims, rank: u32) -> Cta {
        let n = dims.threads().div_ceil(32);
        let mut cta = Cta {
            warps: (0..n).map(|_| Warp::new(program)).collect(),
            barriers: Barriers::default(),
            warpgroups: Warpgroups::default(),
            done: Vec::new(),
            left: 0,
            last: 0,
            steps: 0,
            rank,
            dims,
        };
        for w in 0..n as usize {
            cta.preset(program, w, [0; 3], true);
        }
        cta
    }

    /// Ready to be the CTA of its rank in cluster `index`.
    pub fn reset(&mut self, program: &Program, index: u64, checks: Checks) {
        let threads = self.dims.threads();
        let at = self.dims.cta(index, self.rank);
        for w in 0..self.warps.len() {
            let lanes = (threads - 32 * w as u32).min(32);
            self.warps[w].reset(w as u32, u32::MAX >> (32 - lanes), checks.uninitialised);
            self.preset(program, w, at, false);
        }
        self.barriers = Barriers::new(self.warps.len() as u32);
        self.warpgroups.reset(self.warps.len() as u32);
        self.done.clear();
        self.done.resize(self.warps.len(), false);
        self.left = self.warps.len();
        self.steps = 0;
    }

    /// Fills the registers that a warp finds filled: `all` of them, or those that differ between
    /// CTAs.
    fn preset(&mut self, program: &Program, w: usize, cta: [u32; 3], all: bool) {
        let d = self.dims;
        let regs = &mut self.warps[w].regs;
        for &(slot, preset) in &program.presets {
            let lane = |f: &dyn Fn(u32) -> u64| Row(std::array::from_fn(|i| f(i as u32)));
            let v = match preset {
                Preset::Ctaid(a) => Row::splat(cta[usize::from(a)].into()),
                Preset::Clusterid(a) => {
                    Row::splat((cta[usize::from(a)] / d.cluster[usize::from(a)]).into())
                }
                _ if !all => continue,
                Preset::Const(c) => Row::splat(c),
                Preset::Tid(a) => lane(&|i| d.thread(32 * w as u32 + i)[usize::from(a)].into()),
                Preset::Ntid(a) => Row::splat(d.block[usize::from(a)].into()),
                Preset::Nctaid(a) => Row::splat(d.grid[usize::from(a)].into()),
                Preset::Nclusterid(a) => Row::splat(d.clusters()[usize::from(a)].into()),
                Preset::ClusterCtaid(a) => {
                    Row::splat(unravel(self.rank.into(), d.cluster)[usize::from(a)].into())
                }
                Preset::ClusterNctaid(a) => Row::splat(d.cluster[usize::from(a)].into()),
                Preset::ClusterCtarank => Row::splat(self.rank.into()),
                Preset::ClusterNctarank => Row::splat(d.cluster.iter().product::<u32>().into()),
                Preset::ExplicitCluster => {
                    Row::splat((program.cluster.is_some() || d.cluster != [1; 3]).into())
                }
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
}
