//! Modelled times against measured ones: the variants of measured records, executed on the emulator.

use indexmap::IndexMap;
use rayon::prelude::*;

use crate::device::emulator::Emulator;
use crate::device::{Clock, DeviceError, Job, Launch, Loaded, Modelled, Sample};
use crate::kernel::{Registry, Tile};
use crate::measure::stats::median;
use crate::op::Problem;
use crate::record::{Record, Timing};

/// FLOPs up to which a problem is executed whole where one head group does not stand for it.
const WHOLE: f64 = 1e11;

/// One variant with both its times.
#[derive(Debug, Clone)]
pub struct Point {
    pub kernel: String,
    pub problem: Problem,
    pub tile: Tile,
    pub measured_ns: f64,
    /// Median of the samples' time by the clock over them, where that was measured.
    pub measured_cycles: Option<f64>,
    pub modelled: Modelled,
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

/// Points, and the kernels that could not be executed: how many variants, and why the first.
#[derive(Debug, Default)]
pub struct Checked {
    pub points: Vec<Point>,
    pub missing: IndexMap<String, (usize, String)>,
}

/// Executes the variant of each measured record, in parallel; calls `done` after each.
pub fn check(
    registry: &Registry,
    emulator: &Emulator,
    records: &[Record],
    done: &(dyn Fn() + Sync),
) -> Checked {
    let measured: Vec<(&Record, f64, Option<f64>)> = records
        .iter()
        .filter_map(|r| match &r.timing {
            Some(Timing::Measured { median_ns, samples, .. }) => {
                Some((r, *median_ns, cycles(samples)))
            }
            _ => None,
        })
        .collect();
    let results: Vec<(&Record, Result<Point, String>)> = measured
        .par_iter()
        .map(|&(record, ns, cycles)| {
            let result = point(registry, emulator, record, (ns, cycles));
            done();
            (record, result)
        })
        .collect();
    let mut checked = Checked::default();
    for (record, result) in results {
        match result {
            Ok(point) => checked.points.push(point),
            Err(why) => {
                checked.missing.entry(record.kernel.name.clone()).or_insert((0, why)).0 += 1;
            }
        }
    }
    checked
}

/// Median cycles, if each sample says its clock.
fn cycles(samples: &[Sample]) -> Option<f64> {
    let of = |s: &Sample| s.sm_mhz.map(|mhz| s.ns * mhz / 1e3);
    let mut all: Vec<f64> = samples.iter().map(of).collect::<Option<_>>()?;
    all.sort_by(f64::total_cmp);
    (!all.is_empty()).then(|| median(&all))
}

fn point(
    registry: &Registry,
    emulator: &Emulator,
    record: &Record,
    (measured_ns, measured_cycles): (f64, Option<f64>),
) -> Result<Point, String> {
    let kernel = registry.get(&record.kernel.name).map_err(|e| e.0)?;
    let tile = Tile(record.kernel.tile.clone());
    let job_of = |problem: &Problem| {
        kernel.job_on(problem, &tile, emulator.model().multiprocessors).map_err(|e| e.0)
    };
    let (mut executed, mut times) = record.problem.one_head_group();
    let mut job = job_of(&executed)?;
    if times > 1 && record.problem.flops() <= WHOLE {
        let whole = job_of(&record.problem)?;
        if !stands(&job, &whole, times) {
            (executed, times, job) = (record.problem.clone(), 1, whole);
        }
    }
    let inputs = executed.inputs(&record.family, record.seed);
    let say = |e: DeviceError| e.to_string().lines().next().unwrap_or_default().to_string();
    let mut session = emulator.session(&job, &inputs).map_err(say)?;
    session.set_copies(times as u64);
    session.run().map_err(say)?;
    match session.clock(times as u64) {
        Clock::Modelled(Some(modelled)) => Ok(Point {
            kernel: record.kernel.name.clone(),
            problem: record.problem.clone(),
            tile,
            measured_ns,
            measured_cycles,
            modelled,
        }),
        _ => Err("nothing was counted".into()),
    }
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
        by_kernel.entry(&p.kernel).or_default().push(p);
    }
    by_kernel.into_iter().map(|(kernel, points)| (kernel, agreement(&points))).collect()
}

fn agreement(points: &[&Point]) -> Agreement {
    let correlation = |points: &[&Point]| {
        let pairs: Vec<_> = points.iter().map(|p| (p.measured_ns, p.modelled.ns)).collect();
        let cycles = points.iter().map(|p| p.measured_cycles.map(|c| (c, p.modelled.ns)));
        (spearman(&pairs), cycles.collect::<Option<Vec<_>>>().map(|pairs| spearman(&pairs)))
    };
    let mut problems: Vec<(&Problem, Vec<&Point>)> = Vec::new();
    for &p in points {
        match problems.iter_mut().find(|(problem, _)| **problem == p.problem) {
            Some((_, list)) => list.push(p),
            None => problems.push((&p.problem, vec![p])),
        }
    }
    let mut ratios: Vec<f64> = points.iter().map(|p| p.modelled.ns / p.measured_ns).collect();
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
