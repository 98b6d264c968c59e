//! Shares: which clusters of a launch are executed in place of all, and which launches can do with
//! a part.
//!
//! The first and the last cluster are always executed and stand for themselves. Those in between
//! are cut, in the order of launch, into strata of equal size to within one. One cluster of each
//! stratum is executed and counts as often as the stratum has clusters: the one that brings the
//! coordinates of all that are executed closest to an even spread along each axis of the grid
//! ([`Axis`]). So work that depends on a coordinate (the block of rows, say) is met evenly, however
//! it repeats in the order of launch. Nothing is random.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::cta::Dims;
use super::hopper::Async;
use super::program::{Op, Program};
use super::ptx::ast::Space;
use crate::device::{Arg, BufferRole, DeviceError, Job, Launch};
use crate::device::{CtaShare, JobShare, LaunchShare};

/// Fewest clusters that are executed where a share of a launch is asked for.
const FEWEST: u64 = 16;
/// Clusters of a stratum that are looked at.
const CANDIDATES: u64 = 4096;

/// A cluster that is executed for `stands` clusters from `start` on, itself among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pick {
    pub index: u64,
    pub start: u64,
    pub stands: u64,
}

/// The picks of each launch; `None` for one that is executed whole.
pub type Picks = Vec<Option<Vec<Pick>>>;

/// Plans what to execute of each launch of a job, and what to say of it where a part was asked for.
/// `variables`: the module has variables in global memory.
///
/// # Errors
/// [`DeviceError::Launch`] if a number of CTAs was asked for and no launch with more can be
/// sampled.
pub fn plan(
    share: CtaShare,
    job: &Job,
    launches: &[(&Program, Dims)],
    variables: bool,
) -> Result<(Picks, Option<JobShare>), DeviceError> {
    let (mut all, mut said) = (Vec::new(), Vec::new());
    for (at, (program, dims)) in launches.iter().enumerate() {
        let product = |d: [u32; 3]| d.iter().map(|&n| u64::from(n)).product::<u64>();
        let (of, size) = (product(dims.grid), product(dims.cluster));
        let mut picks = picks(share, dims.clusters(), size);
        let whole = picks.as_ref().and_then(|_| whole(job, program, at, variables));
        if whole.is_some() {
            picks = None;
        }
        let executed = picks.as_ref().map_or(of, |p| p.len() as u64 * size);
        let entry = job.launches[at].entry.clone();
        said.push(LaunchShare { entry, executed, of, whole });
        all.push(picks);
    }
    let executed = JobShare::new(said);
    let refused = executed.launches.iter().any(|l| l.whole.is_some());
    if matches!(share, CtaShare::Most(_)) && refused && !executed.is_part() {
        return Err(DeviceError::Launch(format!(
            "{}: its CTAs cannot be sampled, so all must be executed\n  {}",
            job.ptx.kernel,
            executed.sentences().join("\n  ")
        )));
    }
    Ok((all, (refused || executed.is_part()).then_some(executed)))
}

/// The hint of a read of unwritten memory while CTAs are left out.
pub fn hint(hint: &str) -> String {
    let more = "CTAs are sampled: if one that was left out would have written it, execute all of \
                them (--sample-ctas all)";
    if hint.is_empty() { more.into() } else { format!("{hint}; {more}") }
}

/// Takes all sectors of a region to be touched if any is; returns how many that makes.
pub fn all_if_any(touched: u64, bits: &mut [u32], sectors: u64) -> u64 {
    if touched == 0 {
        return 0;
    }
    for (i, word) in bits.iter_mut().enumerate() {
        let left = sectors.saturating_sub(32 * i as u64).min(32);
        *word = if left == 32 { u32::MAX } else { (1 << left) - 1 };
    }
    sectors
}

/// The picks of a launch of that many clusters along each axis, ascending; `None` if every cluster is
/// executed.
fn picks(share: CtaShare, grid: [u32; 3], cluster_ctas: u64) -> Option<Vec<Pick>> {
    let clusters: u64 = grid.iter().map(|&n| u64::from(n)).product();
    let n = match share {
        CtaShare::All => return None,
        CtaShare::Most(ctas) => ctas.div_ceil(cluster_ctas.max(1)).max(3),
        CtaShare::Fraction(share) => ((clusters as f64 * share).ceil() as u64).max(FEWEST),
    };
    if n >= clusters {
        return None;
    }
    let (inner, strata) = (clusters - 2, n - 2);
    let own = |index| Pick { index, start: index, stands: 1 };
    let at = |k: u64| 1 + (u128::from(inner) * u128::from(k) / u128::from(strata)) as u64;
    let mut axes = Axis::of(grid);
    let mut all = vec![own(0)];
    for k in 0..strata {
        let (start, stands) = (at(k), at(k + 1) - at(k));
        // Where the axes do not tell, the first candidate is another each time.
        let first = turn(k, stands);
        let step = stands.div_ceil(CANDIDATES);
        let candidates = (0..stands).step_by(step as usize).map(|i| start + (first + i) % stands);
        let candidates: Vec<u64> = candidates.collect();
        axes.iter_mut().for_each(|a| a.meet(&candidates));
        // Sums that floating point cannot tell apart are equal, and the first of equals is taken.
        let lack = |i: u64| (1e6 * axes.iter().map(|a| a.lack(i)).sum::<f64>()).round() as i64;
        let index = candidates.iter().copied().min_by_key(|&i| Reverse(lack(i))).unwrap_or(start);
        axes.iter_mut().for_each(|a| a.add(index));
        all.push(Pick { index, start, stands });
    }
    all.push(own(clusters - 1));
    Some(all)
}

/// Place of the `k`-th pick in 0..`size`: `k + 1/2` times the inverse of the plastic number, modulo
/// 1, which no period repeats for long.
fn turn(k: u64, size: u64) -> u64 {
    const STEP: u64 = 0xc13f_a9a9_02a6_328f;
    let fraction = STEP.wrapping_mul(k).wrapping_add(STEP / 2);
    ((u128::from(fraction) * u128::from(size)) >> 64) as u64
}

/// One axis of the grid in at most 64 bins.
///
/// Two bins are the nearer, the fewer bins they are apart. Each bin keeps how near it is to the
/// clusters of all strata so far, each stratum counting 1, less how near it is to those picked.
/// Picking where most is lacking keeps the coordinates of what is picked spread like those of all.
struct Axis {
    /// Clusters from one coordinate to the next, and coordinates.
    stride: u64,
    extent: u64,
    lack: Vec<f64>,
}

impl Axis {
    fn of(grid: [u32; 3]) -> Vec<Axis> {
        let mut stride = 1;
        let mut axes = Vec::new();
        for extent in grid.map(u64::from) {
            axes.push(Axis { stride, extent, lack: vec![0.0; extent.min(64) as usize] });
            stride *= extent;
        }
        // Along a single axis strata are even already.
        let several = axes.iter().filter(|a| a.extent > 1).count() > 1;
        axes.retain(|a| several && a.extent > 1);
        axes
    }

    fn bin(&self, index: u64) -> usize {
        let bins = self.lack.len() as u64;
        (index / self.stride % self.extent * bins / self.extent) as usize
    }

    fn near(&self, a: usize, b: usize) -> f64 {
        1.0 - a.abs_diff(b) as f64 / self.lack.len() as f64
    }

    /// The clusters of the next stratum.
    fn meet(&mut self, clusters: &[u64]) {
        let mut members = vec![0u32; self.lack.len()];
        clusters.iter().for_each(|&i| members[self.bin(i)] += 1);
        for b in 0..self.lack.len() {
            let near = |(c, n): (usize, &u32)| self.near(b, c) * f64::from(*n);
            let sum: f64 = members.iter().enumerate().map(near).sum();
            self.lack[b] += sum / clusters.len() as f64;
        }
    }

    fn lack(&self, index: u64) -> f64 {
        self.lack[self.bin(index)]
    }

    fn add(&mut self, index: u64) {
        let at = self.bin(index);
        for b in 0..self.lack.len() {
            self.lack[b] -= self.near(b, at);
        }
    }
}

/// Why launch `at` of the job must be executed whole; `None` if a part of its CTAs will do.
fn whole(job: &Job, program: &Program, at: usize, variables: bool) -> Option<String> {
    let launch = &job.launches[at];
    if let Some(line) = communicates(program) {
        return Some(format!(
            "its CTAs may work together through global memory (PTX line {line}: an atomic or strong \
             access)"
        ));
    }
    if variables {
        return Some("the module has variables in global memory, which all CTAs share".into());
    }
    let mine = writable(job, launch);
    for later in &job.launches[at + 1..] {
        if let Some(&b) = mine.intersection(&writable(job, later)).next() {
            let name = &job.buffers[b].name;
            return Some(format!("`{}` needs what all of them leave in `{name}`", later.entry));
        }
    }
    // Whether such an element is final could not be told.
    for earlier in &job.launches[..at] {
        let output = |b: &&usize| matches!(job.buffers[**b].role, BufferRole::Output(_));
        if let Some(&b) = mine.intersection(&writable(job, earlier)).find(output) {
            let name = &job.buffers[b].name;
            return Some(format!("`{}` works on the output `{name}` as well", earlier.entry));
        }
    }
    None
}

/// Buffers among the arguments that a launch may write.
fn writable(job: &Job, launch: &Launch) -> BTreeSet<usize> {
    let buffer = |arg: &Arg| match arg {
        Arg::Buffer(b) => Some(*b),
        Arg::TensorMap(map) => Some(map.buffer),
        _ => None,
    };
    let input = |b: &usize| matches!(job.buffers[*b].role, BufferRole::Input(_));
    launch.args.iter().filter_map(buffer).filter(|b| !input(b)).collect()
}

/// The PTX line of an access by which CTAs may wait for each other, or add to what others add to.
fn communicates(program: &Program) -> Option<u32> {
    let far = |space| matches!(space, Space::Global | Space::Generic);
    let inst = program.insts.iter().find(|inst| match inst.op {
        Op::Atom(m) => far(program.mems[m as usize].space),
        Op::Ld(m) | Op::St(m) => {
            let mem = &program.mems[m as usize];
            far(mem.space) && mem.strength.strong && !mem.strength.near
        }
        Op::Async(a) => match &program.asyncs[a as usize] {
            Async::Bulk(bulk) => bulk.reduces_globally(),
            _ => false,
        },
        _ => false,
    });
    inst.map(|inst| inst.line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strata_cover_every_cluster_once() {
        for grid in [[4, 1, 1], [5, 1, 1], [17, 1, 1], [12, 11, 1], [8, 5, 25], [4097, 1, 1]] {
            let clusters: u64 = grid.iter().map(|&n| u64::from(n)).product();
            for n in [3, 4, 7, 16, 99, 999] {
                let Some(picks) = picks(CtaShare::Most(n), grid, 1) else {
                    assert!(n >= clusters);
                    continue;
                };
                assert_eq!(picks.len() as u64, n);
                let mut next = 0;
                for p in &picks {
                    assert_eq!(p.start, next);
                    assert!((p.start..p.start + p.stands).contains(&p.index), "{p:?}");
                    next += p.stands;
                }
                assert_eq!(next, clusters);
                let ends = [picks[0], picks[picks.len() - 1]];
                assert_eq!(ends.map(|p| p.index), [0, clusters - 1]);
                assert_eq!(ends.map(|p| p.stands), [1, 1]);
                let inner = picks[1..picks.len() - 1].iter().map(|p| p.stands);
                assert!(inner.clone().max().unwrap() - inner.min().unwrap() <= 1);
            }
        }
    }

    #[test]
    fn how_many() {
        let n = |share, clusters, size| picks(share, [clusters, 1, 1], size).map(|p| p.len());
        assert_eq!(n(CtaShare::All, 1000, 1), None);
        assert_eq!(n(CtaShare::Most(64), 64, 1), None);
        assert_eq!(n(CtaShare::Most(64), 65, 1), Some(64));
        // Whole clusters: 33 CTAs take 17 pairs.
        assert_eq!(n(CtaShare::Most(33), 100, 2), Some(17));
        assert_eq!(n(CtaShare::Most(1), 100, 4), Some(3));
        assert_eq!(n(CtaShare::Fraction(0.5), 100, 2), Some(50));
        assert_eq!(n(CtaShare::Fraction(0.01), 100, 2), Some(16));
        assert_eq!(n(CtaShare::Fraction(0.01), 16, 2), None);
        assert_eq!(n(CtaShare::Most(1), 1, 1), None);
    }

    /// Work that depends on a coordinate is met evenly, whichever axis it is along.
    #[test]
    fn ramps_along_any_axis() {
        for grid in
            [[64, 64, 1], [256, 16, 1], [16, 256, 1], [100, 40, 1], [8, 32, 16], [4096, 1, 1]]
        {
            let clusters: u64 = grid.iter().map(|&n| u64::from(n)).product();
            let [x, y, _] = grid.map(u64::from);
            for axis in 0..3 {
                let work = |i: u64| 1 + [i % x, i / x % y, i / (x * y)][axis];
                let all: u64 = (0..clusters).map(work).sum();
                for n in [12, 16, 32, 64, 130, 258, 1000] {
                    let picks = picks(CtaShare::Most(n), grid, 1).unwrap();
                    let sum: u64 = picks.iter().map(|p| p.stands * work(p.index)).sum();
                    let off = (sum as f64 / all as f64 - 1.0).abs();
                    assert!(off < 1.0 / n as f64 + 0.006, "{grid:?} axis {axis}, {n}: {off}");
                }
            }
        }
    }
}
