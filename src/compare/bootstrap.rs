//! The ratio of two medians with its interval: processes are drawn first, then runs of their samples.

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// By how much the median of one process may be off for what processes differ by, at 95%. It stands in
/// where one process measured, so that nothing tells how far processes are apart.
pub const PROCESS_ALLOWANCE: f64 = 0.005;

/// By how much the times of two GPUs of one model may be apart, at 95%.
pub const GPU_ALLOWANCE: f64 = 0.05;

const DRAWS: usize = 1000;
const SEED: u64 = 0x0c05_50fe;

/// A ratio with its 95% interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratio {
    pub ratio: f64,
    pub interval: (f64, f64),
}

/// New over old times, each a list of processes with their samples in the order taken, ns. `None` where a
/// side has no sample, or one that is no positive number.
///
/// A side is the median of its processes' medians. Samples are drawn in runs of neighbours, which
/// drifting clocks tie together. The ends are percentiles of the draws, widened for how few processes
/// there are: where a side has one, by [`PROCESS_ALLOWANCE`]; else by Student's t and the draws' own bias.
/// `other_gpu` adds [`GPU_ALLOWANCE`].
pub fn ratio(old: &[Vec<f64>], new: &[Vec<f64>], other_gpu: bool) -> Option<Ratio> {
    let good = |side: &[Vec<f64>]| {
        let fine = |x: &f64| x.is_finite() && *x > 0.0;
        !side.is_empty() && side.iter().all(|p| !p.is_empty() && p.iter().all(fine))
    };
    if !good(old) || !good(new) {
        return None;
    }
    let whole = |side: &[Vec<f64>]| {
        let mut medians: Vec<f64> = side.iter().map(|p| middle(&mut p.clone())).collect();
        middle(&mut medians)
    };
    let point = (whole(new) / whole(old)).ln();
    let mut rng = Pcg64Mcg::seed_from_u64(SEED);
    let mut draws: Vec<f64> =
        (0..DRAWS).map(|_| (draw(new, &mut rng) / draw(old, &mut rng)).ln()).collect();
    draws.sort_by(f64::total_cmp);
    let at = |share: f64| draws[((DRAWS as f64 * share) as usize).min(DRAWS - 1)];
    let few = factor(old.len(), new.len());
    let (below, above) = (few * (point - at(0.025)).max(0.0), few * (at(0.975) - point).max(0.0));
    let single = [old.len(), new.len()].iter().filter(|n| **n == 1).count() as f64;
    let apart = if other_gpu { GPU_ALLOWANCE } else { 0.0 };
    let wide = |x: f64| x.hypot(PROCESS_ALLOWANCE * single.sqrt()).hypot(apart);
    let interval = ((point - wide(below)).exp(), (point + wide(above)).exp());
    Some(Ratio { ratio: point.exp(), interval })
}

/// What the spread of draws is multiplied by: few processes spread less than all there could be.
fn factor(old: usize, new: usize) -> f64 {
    /// Student's t at 97.5% by degrees of freedom from 1.
    const T: [f64; 12] = [12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18];
    let several: Vec<usize> = [old, new].into_iter().filter(|n| *n > 1).collect();
    let Some(least) = several.iter().min() else { return 1.0 };
    let freedom: usize = several.iter().map(|n| n - 1).sum();
    let t = T.get(freedom - 1).copied().unwrap_or(1.96 + 2.7 / freedom as f64);
    let bias = *least as f64 / (*least as f64 - 1.0);
    t / 1.96 * bias.sqrt()
}

fn draw(side: &[Vec<f64>], rng: &mut Pcg64Mcg) -> f64 {
    let mut medians: Vec<f64> = side
        .iter()
        .map(|_| {
            let from = &side[rng.random_range(0..side.len())];
            let n = from.len();
            let run = (n as f64).cbrt().ceil() as usize;
            let mut drawn = Vec::with_capacity(n + run);
            while drawn.len() < n {
                let start = rng.random_range(0..n);
                drawn.extend((0..run).map(|i| from[(start + i) % n]));
            }
            drawn.truncate(n);
            middle(&mut drawn)
        })
        .collect();
    middle(&mut medians)
}

/// The median; of an even number the mean of both middle ones.
fn middle(values: &mut [f64]) -> f64 {
    let n = values.len();
    let (below, upper, _) = values.select_nth_unstable_by(n / 2, f64::total_cmp);
    let upper = *upper;
    match n % 2 {
        1 => upper,
        _ => (below.iter().copied().fold(f64::MIN, f64::max) + upper) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::Verdict;
    use rand_distr::{Distribution, Normal};

    /// Processes whose medians spread by `between`, of 100 samples that spread by `within`.
    fn side(rng: &mut Pcg64Mcg, level: f64, n: usize, between: f64, within: f64) -> Vec<Vec<f64>> {
        let mut normal = |sigma: f64| Normal::new(0.0, sigma).unwrap().sample(rng);
        (0..n)
            .map(|_| {
                let own = level * (1.0 + normal(between));
                (0..100).map(|_| own * (1.0 + normal(within))).collect()
            })
            .collect()
    }

    /// Counts of slower, faster, same, ambiguous over repeated comparisons.
    fn verdicts(level: f64, processes: usize, between: f64) -> [usize; 4] {
        let mut rng = Pcg64Mcg::seed_from_u64(7);
        let mut counts = [0; 4];
        for _ in 0..100 {
            let old = side(&mut rng, 1e5, processes, between, 0.01);
            let new = side(&mut rng, 1e5 * level, processes, between, 0.01);
            let found = ratio(&old, &new, false).unwrap();
            let verdict = Verdict::of(found.interval, 0.01);
            counts[Verdict::ALL.iter().position(|v| *v == verdict).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn equal_sides_are_seldom_told_apart() {
        for (processes, between) in [(1, 0.0025), (3, 0.005), (8, 0.005)] {
            let [slower, faster, ..] = verdicts(1.0, processes, between);
            assert!(slower + faster <= 2, "{processes}: {slower} {faster}");
        }
    }

    #[test]
    fn planted_slowdowns_are_found() {
        let [slower, faster, ..] = verdicts(1.05, 1, 0.0025);
        assert!(slower >= 95 && faster == 0, "{slower} {faster}");
        let [slower, faster, ..] = verdicts(1.03, 8, 0.003);
        assert!(slower >= 95 && faster == 0, "{slower} {faster}");
        assert_eq!(verdicts(1.01, 1, 0.0025)[1], 0);
    }

    #[test]
    fn the_same_samples_give_the_same_interval_and_nothing_gives_none() {
        let side = vec![vec![1.0, 2.0, 3.0, 2.5, 1.5]];
        let found = ratio(&side, &side, false).unwrap();
        assert_eq!(found, ratio(&side, &side, false).unwrap());
        assert!(found.ratio == 1.0 && found.interval.0 < 1.0 && found.interval.1 > 1.0);
        assert_eq!(ratio(&side, &[], false), None);
        assert_eq!(ratio(&side, &[vec![f64::NAN]], false), None);
        assert_eq!(ratio(&side, &[vec![0.0]], false), None);
    }
}
