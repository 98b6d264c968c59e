//! Modelled times against measured ones: the variants of measured records, executed on the emulator.

use indexmap::IndexMap;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::device::emulator::Emulator;
use crate::device::model::{DeviceModel, LaunchWork, model_work};
use crate::device::{DeviceError, Job, Launch, Loaded, Modelled, Sample, ShareRule};
use crate::kernel::{Registry, Tile};
use crate::measure::stats::median;
use crate::op::Problem;
use crate::record::{Record, Timing};

/// FLOPs up to which a problem is executed whole where one head group does not stand for it.
const WHOLE: f64 = 1e11;

/// One variant that was measured, with what its time is modelled from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    pub kernel: String,
    pub problem: Problem,
    pub tile: Tile,
    /// The PTX that was measured and executed is the same.
    pub same_ptx: bool,
    pub measured_ns: f64,
    /// Median clock over the samples, where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured_mhz: Option<f64>,
    /// Median of the samples' time by the clock over them, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured_cycles: Option<f64>,
    pub launches: Vec<LaunchWork>,
}

/// One variant with both its times.
#[derive(Debug, Clone)]
pub struct Point {
    pub counted: Counted,
    pub modelled: Modelled,
}

impl Point {
    /// The time of `counted` on the described device.
    pub fn new(device: &DeviceModel, counted: Counted) -> Point {
        let modelled = model_work(device, &counted.launches);
        Point { counted, modelled }
    }

    /// Measured and modelled cycles of the multiprocessors.
    fn cycles(&self) -> Option<(f64, f64)> {
        let modelled = self.modelled.ns * self.modelled.sm_mhz? / 1e3;
        Some((self.counted.measured_cycles?, modelled))
    }
}

/// What a check counted, as a file: times can be modelled anew without executing anything.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Count {
    /// The name of the GPU that was measured.
    pub gpu: String,
    /// Executed as [`How::AsRun`] has it.
    pub as_run: bool,
    pub variants: Vec<Counted>,
}

impl Count {
    /// # Errors
    /// Text that is no such file, or a time that is none.
    pub fn parse(text: &str) -> Result<Count, String> {
        let count: Count = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let none = |c: &&Counted| !(c.measured_ns.is_finite() && c.measured_ns > 0.0);
        match count.variants.iter().find(none) {
            Some(c) => Err(format!("measured_ns = {} of {}", c.measured_ns, c.kernel)),
            None => Ok(count),
        }
    }

    /// A line a variant, so that changes show.
    pub fn text(&self) -> String {
        let line = |c: &Counted| serde_json::to_string(c).expect("counts are plain data");
        let lines: Vec<String> = self.variants.iter().map(line).collect();
        let gpu = serde_json::to_string(&self.gpu).expect("a name");
        format!(
            "{{\"gpu\": {gpu}, \"as_run\": {}, \"variants\": [\n{}\n]}}\n",
            self.as_run,
            lines.join(",\n")
        )
    }
}

/// How variants are executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// As well as can be: whole where a head group does not stand for all, L2 modelled.
    Exactly,
    /// As `run` does, whose times reports show: a head group stands for all, and a part of the CTAs
    /// of a large one.
    AsRun,
}

/// How well the order of modelled times is that of measured ones.
#[derive(Debug, Clone, PartialEq)]
pub struct Agreement {
    pub variants: usize,
    /// Spearman's rank correlation over all variants of the kernel.
    pub overall: f64,
    /// The same over the tiles of each problem that has at least five.
    pub by_problem: Vec<OneProblem>,
    /// As `overall` against measured cycles, where all variants have them: the model knows one
    /// clock, and a GPU slows heavy kernels down.
    pub in_cycles: Option<f64>,
    /// Median of modelled over measured time.
    pub ratio: f64,
}

/// How well the tiles of one problem are ordered.
#[derive(Debug, Clone, PartialEq)]
pub struct OneProblem {
    pub problem: Problem,
    pub variants: usize,
    /// Spearman's rank correlation, and the same against measured cycles.
    pub rho: f64,
    pub in_cycles: Option<f64>,
}

/// Points of a GPU, and the kernels that could not be executed: how many variants, and why the first.
#[derive(Debug, Default)]
pub struct Checked {
    pub gpu: String,
    /// Executed as [`How::AsRun`] has it.
    pub as_run: bool,
    pub points: Vec<Point>,
    pub missing: IndexMap<String, (usize, String)>,
}

impl Checked {
    /// What was counted of all points.
    pub fn count(&self) -> Count {
        let variants = self.points.iter().map(|p| p.counted.clone()).collect();
        Count { gpu: self.gpu.clone(), as_run: self.as_run, variants }
    }
}

/// Executes the variant of each measured record of one GPU, in parallel; calls `done` after each.
pub fn check(
    registry: &Registry,
    emulator: &Emulator,
    records: &[Record],
    how: How,
    done: &(dyn Fn() + Sync),
) -> Checked {
    // What is executed does not depend on how many head groups it stands for, nor on the data.
    let mut groups: IndexMap<String, Vec<&Record>> = IndexMap::new();
    for record in records.iter().filter(|r| r.timing.as_ref().is_some_and(|t| t.is_measured())) {
        let own = (&record.kernel.name, &record.kernel.tile, record.problem.one_head_group().0);
        let key = match how {
            How::AsRun => format!("{own:?}"),
            How::Exactly => record.id.clone(),
        };
        groups.entry(key).or_default().push(record);
    }
    let groups: Vec<Vec<&Record>> = groups.into_values().collect();
    let results: Vec<(&Record, Result<Counted, String>)> = groups
        .par_iter()
        .flat_map_iter(|group| {
            let results = counted(registry, emulator, group, how);
            group.iter().for_each(|_| done());
            group.iter().copied().zip(results).collect::<Vec<_>>()
        })
        .collect();
    let gpu = records.first().map_or(String::new(), |r| r.device.name.clone());
    let mut checked = Checked { gpu, as_run: how == How::AsRun, ..Checked::default() };
    for (record, result) in results {
        match result {
            Ok(counted) => checked.points.push(Point::new(emulator.model(), counted)),
            Err(why) => {
                checked.missing.entry(record.kernel.name.clone()).or_insert((0, why)).0 += 1;
            }
        }
    }
    checked
}

/// Median of what `of` makes of a sample, if each says its clock.
fn middle(samples: &[Sample], of: impl Fn(f64, f64) -> f64) -> Option<f64> {
    let of = |s: &Sample| s.sm_mhz.map(|mhz| of(s.ns, mhz));
    let mut all: Vec<f64> = samples.iter().map(of).collect::<Option<_>>()?;
    all.sort_by(f64::total_cmp);
    (!all.is_empty()).then(|| median(&all))
}

/// Executes what all records of `group` have in common, once.
fn counted(
    registry: &Registry,
    emulator: &Emulator,
    group: &[&Record],
    how: How,
) -> Vec<Result<Counted, String>> {
    let record = group[0];
    let tile = Tile(record.kernel.tile.clone());
    let execute = || {
        let kernel = registry.get(&record.kernel.name).map_err(|e| e.0)?;
        let job_of = |problem: &Problem| {
            kernel.job_on(problem, &tile, emulator.model().multiprocessors).map_err(|e| e.0)
        };
        let (mut executed, mut times) = record.problem.one_head_group();
        let mut job = job_of(&executed)?;
        if how == How::Exactly && times > 1 && record.problem.flops() <= WHOLE {
            let whole = job_of(&record.problem)?;
            if !stands(&job, &whole, times) {
                (executed, times, job) = (record.problem.clone(), 1, whole);
            }
        }
        let inputs = executed.inputs(&record.family, record.seed);
        let say = |e: DeviceError| e.to_string().lines().next().unwrap_or_default().to_string();
        let mut session = emulator.session(&job, &inputs).map_err(say)?;
        session.set_copies(times as u64);
        if how == How::AsRun {
            session.limit_ctas(ShareRule::Auto.of(executed.flops())).map_err(say)?;
        }
        session.run().map_err(say)?;
        Ok((session, job.ptx.sha256.clone(), times))
    };
    let ran: Result<_, String> = execute();
    let of = |r: &&Record| -> Result<Counted, String> {
        let (session, sha256, times) = ran.as_ref().map_err(Clone::clone)?;
        let Some(Timing::Measured { median_ns, samples, .. }) = &r.timing else {
            return Err("it is not measured".into());
        };
        let times = if how == How::AsRun { r.problem.one_head_group().1 } else { *times };
        Ok(Counted {
            kernel: r.kernel.name.clone(),
            problem: r.problem.clone(),
            same_ptx: *sha256 == r.kernel.ptx_sha256,
            tile: tile.clone(),
            measured_ns: *median_ns,
            measured_mhz: middle(samples, |_, mhz| mhz),
            measured_cycles: middle(samples, |ns, mhz| ns * mhz / 1e3),
            launches: session.works(times as u64),
        })
    };
    group.iter().map(of).collect()
}

/// Whether the CTAs of `times` head groups are those of the whole problem. They are not where a
/// kernel arranges a grid of the device's size by how many heads there are.
fn stands(group: &Job, whole: &Job, times: usize) -> bool {
    let ctas = |l: &Launch| l.grid.iter().map(|&n| u64::from(n)).product::<u64>();
    group.launches.len() == whole.launches.len()
        && group
            .launches
            .iter()
            .zip(&whole.launches)
            .all(|(g, w)| ctas(g) * times as u64 == ctas(w))
}

/// By kernel, in the order of points.
pub fn agreements(points: &[Point]) -> IndexMap<&str, Agreement> {
    let mut by_kernel: IndexMap<&str, Vec<&Point>> = IndexMap::new();
    for p in points {
        by_kernel.entry(&p.counted.kernel).or_default().push(p);
    }
    by_kernel.into_iter().map(|(kernel, points)| (kernel, agreement(&points))).collect()
}

fn agreement(points: &[&Point]) -> Agreement {
    let correlation = |points: &[&Point]| {
        let pairs: Vec<_> = points.iter().map(|p| (p.counted.measured_ns, p.modelled.ns)).collect();
        let cycles = points.iter().map(|p| p.cycles());
        (spearman(&pairs), cycles.collect::<Option<Vec<_>>>().map(|pairs| spearman(&pairs)))
    };
    let mut problems: Vec<(&Problem, Vec<&Point>)> = Vec::new();
    for &p in points {
        match problems.iter_mut().find(|(problem, _)| **problem == p.counted.problem) {
            Some((_, list)) => list.push(p),
            None => problems.push((&p.counted.problem, vec![p])),
        }
    }
    let mut ratios: Vec<f64> =
        points.iter().map(|p| p.modelled.ns / p.counted.measured_ns).collect();
    ratios.sort_by(f64::total_cmp);
    let (overall, in_cycles) = correlation(points);
    Agreement {
        variants: points.len(),
        overall,
        in_cycles,
        by_problem: problems
            .into_iter()
            .filter(|(_, list)| list.len() >= 5)
            .map(|(problem, list)| {
                let (rho, in_cycles) = correlation(&list);
                OneProblem { problem: problem.clone(), variants: list.len(), rho, in_cycles }
            })
            .collect(),
        ratio: ratios.get(ratios.len() / 2).copied().unwrap_or(f64::NAN),
    }
}

/// Spearman's rank correlation: Pearson's of the ranks, equal values sharing their mean rank. NaN
/// where one side is all equal.
pub fn spearman(pairs: &[(f64, f64)]) -> f64 {
    let x = ranks(pairs.iter().map(|p| p.0).collect());
    let y = ranks(pairs.iter().map(|p| p.1).collect());
    let mean = (pairs.len() as f64 - 1.0) / 2.0;
    let (mut xy, mut xx, mut yy) = (0.0, 0.0, 0.0);
    for (a, b) in x.iter().zip(&y) {
        xy += (a - mean) * (b - mean);
        xx += (a - mean) * (a - mean);
        yy += (b - mean) * (b - mean);
    }
    xy / (xx * yy).sqrt()
}

fn ranks(values: Vec<f64>) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut from = 0;
    while from < order.len() {
        let same = |&&i: &&usize| values[i] == values[order[from]];
        let n = order[from..].iter().take_while(same).count();
        for &i in &order[from..from + n] {
            ranks[i] = from as f64 + (n as f64 - 1.0) / 2.0;
        }
        from += n;
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rank_correlation() {
        let close = |pairs: &[(f64, f64)], want: f64| {
            let got = spearman(pairs);
            assert!((got - want).abs() < 1e-12, "{got} {want}");
        };
        close(&[(1.0, 10.0), (2.0, 20.0), (3.0, 900.0)], 1.0);
        close(&[(1.0, 3.0), (2.0, 2.0), (3.0, 1.0)], -1.0);
        // 1 - 6 (0 + 1 + 1) / (3 * 8)
        close(&[(1.0, 1.0), (2.0, 3.0), (3.0, 2.0)], 0.5);
        assert_eq!(ranks(vec![5.0, 1.0, 5.0, 9.0]), [1.5, 0.0, 1.5, 3.0]);
        assert!(spearman(&[(1.0, 1.0), (1.0, 2.0)]).is_nan());
    }
}
